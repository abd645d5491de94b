/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The receiver: RAM arrives bit for bit, the rest becomes device state, failures are noticed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/unit/ram-stream-sample.h"
#include "vmm-glue/ram-receive.h"

#define PAGES 8
#define RAM_BYTES (PAGES * 4096)

struct world {
	sd_event *event;
	int ram, sock;
	struct hf_ram_receiver *r;
	struct sample s;
	bool done;
	struct hf_error error;
	pthread_t writer;
};

static void on_done(void *data, const struct hf_error *error)
{
	struct world *w = data;

	assert_false(w->done);
	w->done = true;
	if (error)
		w->error = *error;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	int pair[2];

	assert_non_null(w);
	assert_true(sd_event_new(&w->event) >= 0);
	assert_int_equal(hf_memfd_new("ram", RAM_BYTES, &w->ram), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	w->sock = pair[1];
	assert_int_equal(hf_ram_receiver_new(&(struct hf_ram_dest){"pc.ram", RAM_BYTES, w->ram}, 1,
				 8192, &w->r, NULL),
		0);
	assert_int_equal(hf_ram_receiver_start(w->r, w->event, pair[0], on_done, w), 0);
	sample_header(&w->s);
	sample_start(&w->s);
	sample_list(&w->s, RAM_BYTES + 4096);
	sample_block(&w->s, "pc.ram", RAM_BYTES);
	sample_block(&w->s, "rom", 4096);
	sample_end_part(&w->s);
	sample_part(&w->s, 2);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	hf_ram_receiver_free(w->r);
	close(w->ram);
	hf_close(&w->sock);
	sd_event_unref(w->event);
	free(w);
	return 0;
}

static void wait_done(struct world *w)
{
	for (int i = 0; !w->done && i < 100; i++)
		sd_event_run(w->event, 100000);
	assert_true(w->done);
}

static void *write_all(void *data)
{
	struct world *w = data;

	hf_fd_write_full(w->sock, w->s.bytes, w->s.n);
	close(w->sock);
	w->sock = -EBADF;
	return NULL;
}

static void run(struct world *w)
{
	assert_int_equal(pthread_create(&w->writer, NULL, write_all, w), 0);
	wait_done(w);
	pthread_join(w->writer, NULL);
}

static void finish(struct sample *s)
{
	sample_end_part(s);
	sample_part(s, 3);
	sample_end_part(s);
	sample_devices(s);
}

static void test_copy(void **state)
{
	static const uint8_t fills[PAGES] = {0x11, 0, 0x12, 0, 0, 0x15, 0x16, 0x17};
	struct world *w = *state;
	struct hf_manifest_guest guest = {0};
	int fds[HF_MANIFEST_MAX_CHUNKS];
	uint8_t page[4096], got[4096];
	size_t state_bytes;
	struct stat st;
	char *all;

	/* Page 1 was full and is empty in a later round, page 2 the other way round. */
	for (uint64_t i = 0; i < PAGES; i++)
		sample_page(&w->s, i ? NULL : "pc.ram", i * 4096,
			i == 1	 ? 0x99
			: i == 2 ? 0
				 : fills[i]);
	sample_end_part(&w->s);
	sample_part(&w->s, 2);
	sample_page(&w->s, NULL, 4096, 0);
	sample_page(&w->s, NULL, 8192, 0x12);
	/* More than the first room for device state, three times over. */
	for (int i = 0; i < 12; i++)
		sample_page(&w->s, "rom", 0, (uint8_t)(0x41 + i));
	finish(&w->s);
	run(w);
	assert_int_equal(w->error.err, 0);
	for (uint64_t i = 0; i < PAGES; i++) {
		memset(page, fills[i], sizeof(page));
		assert_int_equal(pread(w->ram, got, sizeof(got), (off_t)(i * 4096)), sizeof(got));
		assert_memory_equal(got, page, sizeof(page));
	}
	/* Pages 3 and 4 never held anything: they take no memory. */
	assert_int_equal(fstat(w->ram, &st), 0);
	if (st.st_blocks > (PAGES - 2) * 8)
		assert_true(st.st_blocks * 512 >= 2 << 20); /* one large page */
	/* What remains: all but the 10 pages' records of pc.ram. */
	assert_int_equal(hf_ram_receiver_take_state(w->r, &guest, fds), 0);
	state_bytes = w->s.n - (6 * (8 + 4096) + 4 * (8 + 1) + 7);
	assert_int_equal(guest.state_length, state_bytes);
	assert_true(guest.n_state >= 3);
	all = malloc(state_bytes);
	assert_non_null(all);
	for (size_t i = 0, at = 0; i < guest.n_state; i++) {
		assert_true(at + guest.state[i].length <= state_bytes);
		assert_int_equal(
			pread(fds[i], all + at, guest.state[i].length, 0), guest.state[i].length);
		at += guest.state[i].length;
		close(fds[i]);
	}
	assert_memory_equal(all, w->s.bytes, 64);
	assert_memory_equal(all + state_bytes - 60, w->s.bytes + w->s.n - 60, 60);
	free(all);
	hf_manifest_clear_guest(&guest);
}

static void test_page_missing(void **state)
{
	struct world *w = *state;

	for (uint64_t i = 0; i < PAGES - 1; i++)
		sample_page(&w->s, i ? NULL : "pc.ram", i * 4096, i & 1);
	finish(&w->s);
	run(w);
	assert_int_equal(w->error.err, -EBADMSG);
	assert_non_null(strstr(w->error.message, "left 1 pages of RAM out"));
}

/* The one who sends learns of it: its socket breaks. */
static void test_not_understood(void **state)
{
	struct world *w = *state;

	sample_number(&w->s, 0x40, 8);
	assert_int_equal(hf_fd_write_full(w->sock, w->s.bytes, w->s.n), 0);
	wait_done(w);
	assert_int_equal(w->error.err, -EPROTONOSUPPORT);
	assert_non_null(strstr(w->error.message, "flags 0x40"));
	assert_int_equal(hf_fd_write_full(w->sock, w->s.bytes, w->s.n), -EPIPE);
}

static void test_cut(void **state)
{
	struct world *w = *state;

	run(w);
	assert_int_equal(w->error.err, -EBADMSG);
	assert_non_null(strstr(w->error.message, "ended early"));
}

static void test_cancel(void **state)
{
	struct world *w = *state;

	assert_int_equal(hf_fd_write_full(w->sock, w->s.bytes, w->s.n), 0);
	sd_event_run(w->event, 10000);
	hf_ram_receiver_cancel(w->r);
	assert_false(w->done);
	wait_done(w);
	assert_int_equal(w->error.err, -ECANCELED);
	hf_ram_receiver_cancel(w->r);
	hf_ram_receiver_cancel(NULL);
}

static void test_arguments(void **state)
{
	struct world *w = *state;
	struct hf_ram_receiver *r = NULL;
	struct hf_error e = {0};
	const struct hf_ram_dest large = {"x", RAM_BYTES + 4096, w->ram};
	const struct hf_ram_dest odd = {"x", 100, w->ram}, none = {"x", 4096, -EBADF};

	assert_int_equal(hf_ram_receiver_new(&large, 1, 4096, &r, &e), -EINVAL);
	assert_int_equal(hf_ram_receiver_new(&odd, 1, 4096, &r, &e), -EINVAL);
	assert_int_equal(hf_ram_receiver_new(&none, 1, 4096, &r, &e), -EBADF);
	assert_int_equal(hf_ram_receiver_new(&none, 0, 4096, &r, &e), -EINVAL);
	hf_ram_receiver_cancel(w->r);
	wait_done(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_page_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_understood, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(test_arguments, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
