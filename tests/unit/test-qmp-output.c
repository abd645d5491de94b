/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a QMP connection sends: descriptors, much at once, many at once, and the words of each
 * command.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "tests/unit/qmp-rig.h"

/* ---- descriptors ---- */

struct fd_log {
	unsigned int n_with, n_without;
	uint64_t ino[8];
	char order[256];
	int64_t held_id; /* the getfd that isn't answered yet */
	bool hold;
};

static void log_fds(
	struct fake_qmp *f, const char *name, struct json_object *args, int64_t id, void *data)
{
	struct fd_log *log = data;
	struct hf_inode inode;

	strncat(log->order, name, 8);
	strcat(log->order, " ");
	if (f->passed_fd >= 0) {
		assert_string_equal(name, "getfd");
		assert_int_equal(hf_fd_inode(f->passed_fd, &inode, NULL), 0);
		assert_true(fcntl(f->passed_fd, F_GETFD) & FD_CLOEXEC);
		log->ino[log->n_with++] = inode.ino;
	} else {
		assert_string_not_equal(name, "getfd");
		log->n_without++;
	}
	if (log->hold && !strcmp(name, "getfd"))
		log->held_id = id;
	else
		fake_qmp_reply(f, id, "{}");
}

static void test_fd_passing(void **state)
{
	struct fd_log log = {.hold = true};
	struct outcome o[5];
	struct hf_inode inode[2];
	struct rig rig;
	int fd[2], i;

	rig_pair(&rig, 0);
	rig.fake->command = log_fds;
	rig.fake->data = &log;
	for (i = 0; i < 2; i++) {
		assert_int_equal(hf_memfd_new("x", 1, &fd[i]), 0);
		assert_int_equal(hf_fd_inode(fd[i], &inode[i], NULL), 0);
	}
	submit(&rig, "first", 0, &o[0]);
	o[1] = (struct outcome){.rig = &rig};
	assert_int_equal(hf_qmp_getfd(rig.q, "a", fd[0], 0, on_reply, &o[1], NULL), 0);
	submit(&rig, "between", 0, &o[2]);
	o[3] = (struct outcome){.rig = &rig};
	assert_int_equal(hf_qmp_getfd(rig.q, "b", fd[1], 0, on_reply, &o[3], NULL), 0);
	submit(&rig, "last", 0, &o[4]);
	/* They are the caller's: closing them now takes nothing away. */
	close(fd[0]);
	close(fd[1]);
	fake_qmp_greet(rig.fake);
	fake_qmp_settle(rig.event, 5);
	/* The second one isn't sent before the first is answered. */
	assert_string_equal(log.order, "first getfd between ");
	log.hold = false;
	fake_qmp_reply(rig.fake, log.held_id, "{}");
	assert_true(run(&rig, &o[4].done));
	assert_string_equal(log.order, "first getfd between getfd last ");
	assert_int_equal(log.n_with, 2);
	assert_int_equal(log.ino[0], inode[0].ino);
	assert_int_equal(log.ino[1], inode[1].ino);
	assert_int_equal(log.n_without, 3);
	assert_int_equal(hf_qmp_getfd(rig.q, "c", -1, 0, on_reply, &o[0], NULL), -EBADF);
	assert_int_equal(hf_qmp_command(rig.q, "c", NULL, 12345, 0, on_reply, &o[0], NULL), -EBADF);
	rig_done(&rig);
}

/* A timed-out or cancelled command with a descriptor doesn't hold up the next for ever. */
static void test_fd_waiting(void **state)
{
	struct fd_log log = {.hold = true};
	struct outcome a, b, c;
	struct rig rig;
	uint64_t id;
	int fd;

	rig_ready(&rig);
	rig.fake->command = log_fds;
	rig.fake->data = &log;
	assert_int_equal(hf_memfd_new("x", 1, &fd), 0);
	a = b = (struct outcome){.rig = &rig};
	assert_int_equal(hf_qmp_getfd(rig.q, "a", fd, 20 * MS, on_reply, &a, NULL), 0);
	assert_int_equal(hf_qmp_getfd(rig.q, "b", fd, 0, on_reply, &b, &id), 0);
	submit(&rig, "status", 0, &c);
	assert_true(run(&rig, &a.done));
	assert_int_equal(a.err, -ETIMEDOUT);
	assert_false(c.done);
	/* What waits behind the one that is cancelled goes out. */
	assert_int_equal(hf_qmp_cancel(rig.q, id), 0);
	assert_true(run(&rig, &c.done));
	assert_string_equal(log.order, "getfd status ");
	/* And once the late reply came, descriptors do again. */
	log.hold = false;
	assert_int_equal(hf_qmp_getfd(rig.q, "b", fd, 0, on_reply, &b, &id), 0);
	fake_qmp_settle(rig.event, 5);
	assert_false(b.done);
	fake_qmp_reply(rig.fake, log.held_id, "{}");
	assert_true(run(&rig, &b.done));
	assert_int_equal(log.n_with, 2);
	close(fd);
	rig_done(&rig);
}

/* The socket is full: everything arrives all the same, in order, descriptors where they belong. */
static void test_full_socket(void **state)
{
	struct fd_log log = {0};
	struct outcome o[8];
	struct rig rig;
	char *big = malloc(60001);
	int fd, i;

	memset(big, 'y', 60000);
	big[60000] = '\0';
	rig_ready(&rig);
	rig.fake->command = log_fds;
	rig.fake->data = &log;
	assert_int_equal(hf_memfd_new("x", 1, &fd), 0);
	for (i = 0; i < 8; i++) {
		struct json_object *args = json_object_new_object();

		o[i] = (struct outcome){.rig = &rig};
		json_object_object_add(args, "big", json_object_new_string(big));
		assert_int_equal(
			hf_qmp_command(rig.q, i % 2 ? "getfd" : "other", args, i % 2 ? fd : -EBADF,
				HF_QMP_TIMEOUT_NEVER, on_reply, &o[i], NULL),
			0);
	}
	while (!o[7].done)
		assert_true(sd_event_run(rig.event, 10000000) > 0);
	assert_string_equal(log.order, "other getfd other getfd other getfd other getfd ");
	assert_int_equal(log.n_with, 4);
	close(fd);
	rig_done(&rig);
	free(big);
}

/* ---- limits of our own ---- */

static void test_submit_limits(void **state)
{
	struct json_object *args;
	struct rig rig;
	char *big;
	int i, r;

	rig_pair(&rig, 0);
	for (i = 0; i < 1024; i++)
		assert_int_equal(hf_qmp_query_status(rig.q, 0, NULL, NULL, NULL), 0);
	assert_int_equal(hf_qmp_query_status(rig.q, 0, NULL, NULL, NULL), -ENOBUFS);
	/* The negotiation has a place of its own. */
	fake_qmp_greet(rig.fake);
	assert_true(run(&rig, &rig.ready));
	while (rig.fake->n_commands < 1024)
		assert_true(sd_event_run(rig.event, 2000000) > 0);
	assert_int_equal(rig.fake->n_commands, 1024);
	fake_qmp_settle(rig.event, 5);
	assert_int_equal(hf_qmp_query_status(rig.q, 0, NULL, NULL, NULL), 0);
	rig_done(&rig);

	rig_pair(&rig, 0);
	big = malloc((4 << 20) + 1);
	memset(big, 'z', 4 << 20);
	big[4 << 20] = '\0';
	for (i = 0, r = 0; i < 8 && r == 0; i++) {
		args = json_object_new_object();
		json_object_object_add(args, "big", json_object_new_string(big));
		r = hf_qmp_command(rig.q, "x", args, -EBADF, 0, NULL, NULL, NULL);
	}
	assert_int_equal(r, -ENOBUFS);
	assert_int_equal(i, 4);
	free(big);
	rig_done(&rig);
}

/* ---- many ---- */

static void test_many(void **state)
{
	enum { N = 64 };
	struct rig *rigs = calloc(N, sizeof(*rigs));
	struct outcome(*o)[4] = calloc(N, sizeof(*o));
	sd_event *event;
	int i, k, fd;

	assert_true(sd_event_new(&event) >= 0);
	for (i = 0; i < N; i++) {
		rigs[i].event = sd_event_ref(event);
		rigs[i].fake = fake_qmp_pair(event, &fd);
		assert_int_equal(
			hf_qmp_attach_fd(event, fd, "many", 0, &ops, &rigs[i], &rigs[i].q, NULL),
			0);
		for (k = 0; k < 4; k++)
			submit(&rigs[i], "query-status", 0, &o[i][k]);
	}
	for (i = 0; i < N; i++)
		fake_qmp_greet(rigs[i].fake);
	for (i = 0; i < N; i++) {
		assert_true(fake_qmp_run_until(event, &o[i][3].done, 5000));
		for (k = 0; k < 4; k++)
			assert_true(o[i][k].n_calls == 1 && o[i][k].err == 0);
		rig_done(&rigs[i]);
	}
	sd_event_unref(event);
	free(rigs);
	free(o);
}

/* ---- what the typed commands say ---- */

struct spoken {
	char text[1024];
	bool done;
};

static void log_words(
	struct fake_qmp *f, const char *name, struct json_object *args, int64_t id, void *data)
{
	struct spoken *s = data;

	snprintf(s->text, sizeof(s->text), "%s %s", name,
		args ? json_object_to_json_string_ext(
			       args, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
		     : "-");
	s->done = true;
	fake_qmp_reply(f, id, "{}");
}

static void test_typed_commands(void **state)
{
	const struct hf_qmp_capability caps[] = {{"x-ignore-shared", true}, {"events", false}};
	const struct hf_qmp_migrate_parameters params = {
		.has_max_bandwidth = true, .mode = "cpr-reboot"};
	const struct hf_qmp_announce announce = {1, 2, 3, 4};
	struct spoken said;
	struct rig rig;

	rig_pair(&rig, 0);
	assert_int_equal(hf_qmp_migrate_incoming(rig.q, "fd:x", 0, NULL, NULL, NULL), -EAGAIN);
	fake_qmp_greet(rig.fake);
	assert_true(run(&rig, &rig.ready));
	rig.fake->command = log_words;
	rig.fake->data = &said;
#define SAYS(words, function, ...) \
	do { \
		said.done = false; \
		assert_int_equal(function(rig.q, ##__VA_ARGS__, 0, NULL, NULL, NULL), 0); \
		assert_true(run(&rig, &said.done)); \
		assert_string_equal(said.text, words); \
	} while (0)
	SAYS("query-status -", hf_qmp_query_status);
	SAYS("stop -", hf_qmp_stop);
	SAYS("cont -", hf_qmp_cont);
	SAYS("quit -", hf_qmp_quit);
	SAYS("system_powerdown -", hf_qmp_system_powerdown);
	SAYS("migrate_cancel -", hf_qmp_migrate_cancel);
	SAYS("migrate {\"uri\":\"fd:s/1\"}", hf_qmp_migrate, "fd:s/1");
	SAYS("migrate-incoming {\"uri\":\"fd:s\",\"exit-on-error\":false}", hf_qmp_migrate_incoming,
		"fd:s");
	SAYS("migrate-set-capabilities {\"capabilities\":["
	     "{\"capability\":\"x-ignore-shared\",\"state\":true},"
	     "{\"capability\":\"events\",\"state\":false}]}",
		hf_qmp_migrate_set_capabilities, caps, HF_ARRAY_SIZE(caps));
	SAYS("migrate-set-parameters {\"max-bandwidth\":0,\"mode\":\"cpr-reboot\"}",
		hf_qmp_migrate_set_parameters, &params);
	SAYS("closefd {\"fdname\":\"s\"}", hf_qmp_closefd, "s");
	SAYS("announce-self {\"initial\":50,\"max\":550,\"rounds\":5,\"step\":100}",
		hf_qmp_announce_self, NULL);
	SAYS("announce-self {\"initial\":1,\"max\":2,\"rounds\":3,\"step\":4}",
		hf_qmp_announce_self, &announce);
	SAYS("human-monitor-command {\"command-line\":\"info roms\"}", hf_qmp_human_command,
		"info roms");
	SAYS("qom-get {\"path\":\"/machine\",\"property\":\"type\"}", hf_qmp_qom_get, "/machine",
		"type");
	SAYS("qom-list {\"path\":\"/machine\"}", hf_qmp_qom_list, "/machine");
	SAYS("query-block -", hf_qmp_query_block);
	SAYS("x-query-virtio -", hf_qmp_query_virtio);
	SAYS("x-query-virtio-queue-status {\"path\":\"/machine/d\",\"queue\":1}",
		hf_qmp_query_virtqueue, "/machine/d", 1);
	rig_done(&rig);

	/* exit-on-error came with 9.1. */
	rig_pair(&rig, 0);
	fake_qmp_send(rig.fake, "%s", FAKE_QMP_GREETING_OF(9, 0));
	assert_true(run(&rig, &rig.ready));
	rig.fake->command = log_words;
	rig.fake->data = &said;
	SAYS("migrate-incoming {\"uri\":\"fd:s\"}", hf_qmp_migrate_incoming, "fd:s");
	rig_done(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fd_passing),
		cmocka_unit_test(test_fd_waiting),
		cmocka_unit_test(test_full_socket),
		cmocka_unit_test(test_submit_limits),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_typed_commands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
