/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The carrier `image`: what may be brought up, by which agent, on which boot. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "memfd-preserve/carrier.h"
#include "memfd-preserve/image.h"

#define GUEST "holdfast-01234567-89ab-cdef-0123-456789abcdef"
#define RAM_BYTES (4u << 20)

static char folder[64];
static uint8_t key[HF_IMAGE_KEY_BYTES] = {1, 2, 3};

static int set_up(void **state)
{
	strcpy(folder, "/tmp/hf-test-images-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	char cmd[128];

	/* A keeper that ends removes its own socket, maybe just now. */
	snprintf(cmd, sizeof(cmd), "rm -rf %s", folder);
	return system(cmd);
}

static struct hf_carrier *carrier(uint8_t machine, uint8_t boot, bool encrypted)
{
	const struct hf_image_keys keys = hf_image_kek(key);
	struct hf_carrier_image_config config = {
		.folder = folder, .keys = encrypted ? &keys : NULL};
	struct hf_carrier *c = NULL;
	struct hf_error e = {0};

	memset(config.machine, machine, sizeof(config.machine));
	memset(config.boot, boot, sizeof(config.boot));
	assert_int_equal(hf_carrier_image_new(&config, &c, &e), 0);
	hf_carrier_image_plaintext(c, !encrypted);
	return c;
}

static int memory(uint8_t first)
{
	uint8_t *map;
	int fd = -EBADF;

	assert_int_equal(hf_memfd_new("ram", RAM_BYTES, &fd), 0);
	map = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	for (size_t i = 0; i < RAM_BYTES / 2; i++)
		map[i] = (uint8_t)(first + i * 7 + (i >> 12));
	munmap(map, RAM_BYTES);
	return fd;
}

static void poke(int fd, off_t at, const char *text)
{
	assert_int_equal(pwrite(fd, text, strlen(text), at), strlen(text));
}

static void expect_same(int a, int b)
{
	static uint8_t x[RAM_BYTES], y[RAM_BYTES];

	assert_int_equal(pread(a, x, RAM_BYTES, 0), RAM_BYTES);
	assert_int_equal(pread(b, y, RAM_BYTES, 0), RAM_BYTES);
	assert_memory_equal(x, y, RAM_BYTES);
}

static struct hf_session *session(struct hf_carrier *c, const char *name, int fd)
{
	struct hf_session *s = NULL;
	struct hf_error e = {0};

	assert_int_equal(hf_carrier_session_create(c, name, &s, &e), 0);
	assert_int_equal(hf_session_preserve(s, 7, fd, &e), 0);
	return s;
}

static int retrieve(struct hf_carrier *c, const char *name, struct hf_session **ret)
{
	struct hf_error e = {0};

	return hf_carrier_session_retrieve(c, name, ret, &e);
}

/* As an agent would leave it: a guest's session, and the manifest's that goes last. */
static int send(uint8_t boot, bool encrypted)
{
	struct hf_carrier *c = carrier(1, boot, encrypted);
	int ram = memory(3), small = memory(9);
	struct hf_session *s = session(c, GUEST, ram), *m = session(c, "holdfast", small);
	struct hf_error e = {0};
	uint64_t changed = 0;

	assert_int_equal(hf_session_copy(s, &changed, &e), 0);
	assert_true(changed >= RAM_BYTES / 2);
	poke(ram, 100000, "written while the guest ran");
	poke(ram, RAM_BYTES - 100, "and where nothing was");
	assert_int_equal(hf_session_copy(s, &changed, &e), 0);
	assert_true(changed > 0 && changed < RAM_BYTES / 4);
	poke(ram, 300000, "the last of it");
	assert_int_equal(hf_session_seal(s, &e), 0);
	assert_int_equal(hf_session_seal(m, &e), 0);
	assert_int_equal(hf_carrier_hand_over(c, "holdfast", &e), 0);
	/* The process ends without a word. */
	hf_session_detach(s);
	hf_session_detach(m);
	hf_carrier_free(c);
	close(small);
	return ram;
}

static void cross(bool encrypted)
{
	int ram = send(1, encrypted), back = -EBADF;
	struct hf_carrier *c = carrier(1, 2, encrypted);
	struct hf_session *s = NULL, *m = NULL, *again = NULL;
	struct hf_error e = {0};

	assert_int_equal(retrieve(c, "holdfast", &m), 0);
	assert_int_equal(retrieve(c, GUEST, &s), 0);
	assert_true(hf_session_incoming(s));
	assert_int_equal(hf_session_retrieve(s, 7, &back, &e), 0);
	expect_same(ram, back);
	close(back);
	assert_int_equal(hf_session_retrieve(s, 8, &back, &e), -ENOENT);
	/* As often as one likes, and the same memory. */
	assert_int_equal(hf_session_retrieve(s, 7, &back, &e), 0);
	close(back);

	assert_int_equal(hf_session_spend(s, &e), 0);
	assert_int_equal(hf_session_spend(s, &e), 0);
	assert_int_equal(retrieve(c, GUEST, &again), -EALREADY);
	assert_int_equal(hf_session_finish(s, &e), 0);
	assert_int_equal(retrieve(c, GUEST, &again), -EALREADY);
	assert_int_equal(hf_session_finish(m, &e), 0);
	assert_int_equal(retrieve(c, "holdfast", &again), -ENOENT);
	hf_carrier_unkeep(c);
	hf_carrier_free(c);
	/* Nothing of it is left. */
	assert_int_equal(rmdir(folder), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	close(ram);
}

static void test_cross(void **state)
{
	cross(false);
}

static void test_encrypted(void **state)
{
	cross(true);
}

static void test_keys(void **state)
{
	struct hf_session *s = NULL;
	struct hf_error e = {0};
	struct hf_carrier *c;
	int back = -EBADF, ram;

	/* One that is encrypted, and no key. */
	close(send(1, true));
	c = carrier(1, 2, false);
	assert_int_equal(retrieve(c, GUEST, &s), 0);
	assert_int_equal(hf_session_retrieve(s, 7, &back, &e), -ENOKEY);
	hf_session_detach(s);
	hf_carrier_free(c);
	/* With another key. */
	key[0]++;
	c = carrier(1, 2, true);
	assert_int_equal(retrieve(c, GUEST, &s), 0);
	hf_error_clear(&e);
	assert_true(hf_session_retrieve(s, 7, &back, &e) < 0);
	hf_session_detach(s);
	hf_carrier_free(c);
	key[0]--;

	/* Neither a key nor leave to do without. */
	tear_down(NULL);
	set_up(NULL);
	c = carrier(1, 1, false);
	hf_carrier_image_plaintext(c, false);
	ram = memory(1);
	s = session(c, GUEST, ram);
	hf_error_clear(&e);
	assert_int_equal(hf_session_copy(s, NULL, &e), -EINVAL);
	hf_session_discard(s);
	hf_carrier_free(c);

	/* Where there is a key, one that isn't encrypted was put there by somebody else. */
	close(send(1, false));
	c = carrier(1, 2, true);
	assert_int_equal(retrieve(c, GUEST, &s), 0);
	hf_error_clear(&e);
	assert_int_equal(hf_session_retrieve(s, 7, &back, &e), -EPERM);
	hf_session_detach(s);
	hf_carrier_free(c);
	close(ram);
}

static void test_same_boot(void **state)
{
	int ram = send(1, false);
	struct hf_carrier *c = carrier(1, 1, false);
	struct hf_session *s = NULL;
	struct hf_error e = {0};

	/* The agent that handed it over died, and nobody has left the kernel. */
	assert_int_equal(retrieve(c, "holdfast", &s), -ENOENT);
	assert_int_equal(hf_carrier_session_create(c, GUEST, &s, &e), -EBUSY);
	assert_int_equal(hf_carrier_take_back(c, "holdfast", &e), 0);
	assert_int_equal(hf_carrier_take_back(c, "holdfast", &e), 0);
	hf_carrier_unkeep(c);
	hf_carrier_free(c);
	c = carrier(1, 2, false);
	assert_int_equal(retrieve(c, "holdfast", &s), -ENOENT);
	hf_carrier_free(c);
	assert_int_equal(rmdir(folder), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	close(ram);
}

static void test_undone(void **state)
{
	struct hf_carrier *c = carrier(1, 1, false), *next;
	int ram = memory(5);
	struct hf_session *s = session(c, GUEST, ram), *n = NULL;
	struct hf_error e = {0};

	assert_int_equal(hf_session_copy(s, NULL, &e), 0);
	assert_int_equal(hf_session_seal(s, &e), 0);
	assert_int_equal(hf_carrier_hand_over(c, "other", &e), -ENOENT);
	assert_int_equal(hf_carrier_hand_over(c, GUEST, &e), 0);
	assert_int_equal(hf_carrier_take_back(c, GUEST, &e), 0);
	hf_session_discard(s);
	next = carrier(1, 2, false);
	assert_int_equal(retrieve(next, GUEST, &n), -ENOENT);
	hf_carrier_free(next);
	hf_carrier_free(c);
	assert_int_equal(rmdir(folder), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	close(ram);
}

static void test_refused(void **state)
{
	int ram = send(1, false), back = -EBADF;
	struct hf_carrier *c = carrier(2, 2, false);
	struct hf_session *s = NULL;
	struct hf_error e = {0};
	char from[256], to[256];

	/* Of another machine. */
	assert_int_equal(retrieve(c, GUEST, &s), 0);
	assert_int_equal(hf_session_retrieve(s, 7, &back, &e), -ESTALE);
	hf_session_detach(s);
	hf_carrier_free(c);
	/* Of another guest, put in its place. */
	snprintf(from, sizeof(from), "%s/incoming/" GUEST, folder);
	snprintf(to, sizeof(to), "%s/incoming/holdfast-11111111-2222-3333-4444-555555555555",
		folder);
	assert_int_equal(rename(from, to), 0);
	c = carrier(1, 2, false);
	assert_int_equal(retrieve(c, strrchr(to, '/') + 1, &s), 0);
	hf_error_clear(&e);
	assert_int_equal(hf_session_retrieve(s, 7, &back, &e), -ESTALE);
	hf_session_detach(s);
	hf_carrier_free(c);
	close(ram);
}

/* More room for device state than there was when the guest's memory was copied first. */
static void test_second_image(void **state)
{
	struct hf_carrier *c = carrier(1, 1, false);
	int ram = memory(3), more = memory(4), back = -EBADF;
	struct hf_session *s = session(c, GUEST, ram);
	struct hf_error e = {0};

	assert_int_equal(hf_session_copy(s, NULL, &e), 0);
	assert_int_equal(hf_session_preserve(s, 8, more, &e), 0);
	assert_int_equal(hf_session_preserve(s, 8, more, &e), -EALREADY);
	assert_int_equal(hf_session_seal(s, &e), 0);
	assert_int_equal(hf_carrier_hand_over(c, GUEST, &e), 0);
	hf_session_detach(s);
	hf_carrier_free(c);
	c = carrier(1, 2, false);
	assert_int_equal(retrieve(c, GUEST, &s), 0);
	assert_int_equal(hf_session_retrieve(s, 7, &back, &e), 0);
	expect_same(ram, back);
	close(back);
	assert_int_equal(hf_session_retrieve(s, 8, &back, &e), 0);
	expect_same(more, back);
	close(back);
	assert_int_equal(hf_session_finish(s, &e), 0);
	hf_carrier_free(c);
	close(ram);
	close(more);
}

/* What an agent had loaded when it died, the next one gets from the keeper: the same memory. */
static void test_keeper(void **state)
{
	int ram = send(1, false), first = -EBADF, second = -EBADF;
	struct hf_carrier *c = carrier(1, 2, false);
	struct hf_inode a, b;
	struct hf_session *s = NULL;
	struct hf_error e = {0};
	bool found = true;
	char path[128];

	snprintf(path, sizeof(path), "%s/keeper.sock", folder);
	assert_int_equal(hf_carrier_keep(c, path, &found, &e), 0);
	assert_false(found);
	assert_true(hf_carrier_keeper(c) > 0);
	assert_int_equal(retrieve(c, GUEST, &s), 0);
	assert_int_equal(hf_session_retrieve(s, 7, &first, &e), 0);
	assert_int_equal(hf_session_spend(s, &e), 0);
	hf_session_detach(s);
	hf_carrier_free(c);

	c = carrier(1, 2, false);
	assert_int_equal(hf_carrier_keep(c, path, &found, &e), 0);
	assert_true(found);
	assert_int_equal(retrieve(c, GUEST, &s), 0);
	assert_int_equal(hf_session_retrieve(s, 7, &second, &e), 0);
	assert_int_equal(hf_fd_inode(first, &a, NULL), 0);
	assert_int_equal(hf_fd_inode(second, &b, NULL), 0);
	assert_true(hf_inode_equal(&a, &b));
	assert_int_equal(hf_session_finish(s, &e), 0);
	assert_int_equal(retrieve(c, GUEST, &s), -EALREADY);
	hf_carrier_unkeep(c);
	assert_int_equal(hf_carrier_keeper(c), 0);
	hf_carrier_free(c);
	close(first);
	close(second);
	close(ram);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_cross),
		TEST(test_encrypted),
		TEST(test_keys),
		TEST(test_same_boot),
		TEST(test_undone),
		TEST(test_refused),
		TEST(test_second_image),
		TEST(test_keeper),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
