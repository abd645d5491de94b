/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The hold carrier: sessions cross to the next agent through the keeper, or not at all. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fd.h"
#include "memfd-preserve/carrier.h"

static char path[108];

static int make_memfd(const char *text)
{
	int fd = -1;

	assert_int_equal(hf_memfd_new("test", 4096, &fd), 0);
	assert_int_equal(pwrite(fd, text, strlen(text) + 1, 0), (ssize_t)strlen(text) + 1);
	return fd;
}

static struct hf_carrier *new_carrier(void)
{
	struct hf_carrier *c = NULL;
	struct hf_error e = {0};

	if (hf_carrier_hold_new(&c, &e) < 0)
		fail_msg("%s", e.message);
	return c;
}

/* One with a keeper, which was there before or not. */
static struct hf_carrier *next_agent(bool want_found)
{
	struct hf_carrier *c = new_carrier();
	bool found = !want_found;
	struct hf_error e = {0};

	assert_int_equal(hf_carrier_keeper(c), 0);
	if (hf_carrier_keep(c, path, &found, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(found, want_found);
	assert_true(hf_carrier_keeper(c) > 1);
	assert_int_not_equal(hf_carrier_keeper(c), getpid());
	return c;
}

static struct hf_session *session(struct hf_carrier *c, const char *name, const char *text)
{
	struct hf_session *s = NULL;
	int fd = make_memfd(text);

	assert_int_equal(hf_carrier_session_create(c, name, &s, NULL), 0);
	assert_int_equal(hf_session_preserve(s, 1, fd, NULL), 0);
	close(fd);
	return s;
}

static void expect_text(struct hf_session *s, uint64_t token, const char *text)
{
	char got[64] = "";
	int fd = -1;

	assert_int_equal(hf_session_retrieve(s, token, &fd, NULL), 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_true(pread(fd, got, sizeof(got), 0) > 0);
	assert_string_equal(got, text);
	close(fd);
}

static void wait_keeper_end(void)
{
	for (int i = 0; i < 1000 && access(path, F_OK) == 0; i++)
		usleep(10000);
	assert_int_not_equal(access(path, F_OK), 0);
}

static size_t count_fds(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_crosses(void **state)
{
	size_t before = count_fds();
	struct hf_carrier *c = next_agent(false);
	struct hf_session *a = session(c, "a", "of a"), *b = session(c, "b", "of b"), *s = NULL;
	int second = make_memfd("second");

	assert_int_equal(hf_session_preserve(a, UINT64_MAX, second, NULL), 0);
	close(second);
	assert_int_equal(hf_carrier_hand_over(c, "b", NULL), 0);
	/* It ends, and takes its own copies along. */
	hf_session_discard(a);
	hf_session_discard(b);
	hf_carrier_free(c);

	c = next_agent(true);
	assert_int_equal(hf_carrier_session_retrieve(c, "x", &s, NULL), -ENOENT);
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &s, NULL), 0);
	expect_text(s, 1, "of a");
	expect_text(s, UINT64_MAX, "second");
	assert_int_equal(hf_session_retrieve(s, 2, &second, NULL), -ENOENT);
	assert_int_equal(hf_session_finish(s, NULL), 0);
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &s, NULL), -EALREADY);
	assert_int_equal(hf_carrier_session_retrieve(c, "b", &s, NULL), 0);
	hf_session_detach(s);
	hf_carrier_free(c);

	/* What was not finished is held on: a guest that could not be resumed keeps its memory. */
	c = next_agent(true);
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &s, NULL), -EALREADY);
	assert_int_equal(hf_carrier_session_retrieve(c, "b", &s, NULL), 0);
	expect_text(s, 1, "of b");
	hf_session_discard(s); /* incoming: nothing but a detach */
	hf_carrier_unkeep(c);
	assert_int_equal(hf_carrier_session_retrieve(c, "b", &s, NULL), -ENOENT);
	hf_carrier_free(c);
	wait_keeper_end();
	assert_int_equal(count_fds(), before);
}

static void test_taken_back(void **state)
{
	struct hf_carrier *c = next_agent(false);
	struct hf_session *a = session(c, "a", "of a"), *b = session(c, "b", "of b"), *s = NULL;
	struct hf_error e = {0};

	assert_int_equal(hf_carrier_hand_over(c, "manifest", &e), -ENOENT);
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &s, NULL), -ENOENT);
	assert_int_equal(hf_carrier_hand_over(c, "b", &e), 0);
	assert_int_equal(hf_carrier_take_back(c, "b", &e), 0);
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &s, NULL), -EALREADY);
	/* And once more, with what is there by then. */
	hf_session_discard(a);
	a = session(c, "a", "new a");
	assert_int_equal(hf_carrier_hand_over(c, "b", &e), 0);
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &s, NULL), 0);
	expect_text(s, 1, "new a");
	hf_session_detach(s);
	/* What is kept already can't be handed over again: all or nothing. */
	assert_int_equal(hf_carrier_hand_over(c, "b", &e), -EEXIST);
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &s, NULL), -EALREADY);
	assert_int_equal(hf_carrier_session_retrieve(c, "b", &s, NULL), -EALREADY);
	hf_session_discard(a);
	hf_session_discard(b);
	hf_carrier_free(c);
	wait_keeper_end();
}

static void test_without_keeper(void **state)
{
	struct hf_carrier *c = new_carrier();
	struct hf_session *s = session(c, "a", "x"), *t = NULL;
	struct hf_error e = {0};

	assert_int_equal(hf_carrier_hand_over(c, "a", &e), -ENOTSUP);
	assert_int_equal(hf_carrier_take_back(c, "a", &e), 0);
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &t, &e), -ENOENT);
	hf_carrier_unkeep(c);
	hf_session_discard(s);
	hf_carrier_free(c);
}

static void test_rules(void **state)
{
	size_t before = count_fds();
	struct hf_carrier *c = new_carrier();
	struct hf_session *s = NULL, *other = NULL;
	struct hf_error e = {0};
	int fd = make_memfd("x"), got = -1, pipe_fds[2];

	assert_string_equal(hf_carrier_name(c), "hold");
	assert_int_equal(hf_carrier_session_retrieve(c, "a", &s, &e), -ENOENT);
	assert_int_equal(hf_carrier_session_create(c, "a", &s, &e), 0);
	assert_int_equal(hf_carrier_session_create(c, "a", &other, &e), -EEXIST);
	assert_int_equal(hf_session_fd(s), -EBADF);
	assert_int_equal(hf_session_preserve(s, 1, fd, &e), 0);
	assert_int_equal(hf_session_preserve(s, 2, fd, &e), -EALREADY);
	assert_int_equal(hf_session_retrieve(s, 1, &got, &e), -EINVAL);
	assert_int_equal(hf_session_finish(s, &e), -EINVAL);
	assert_int_equal(hf_carrier_session_adopt(c, fd, true, &other, &e), -ENOTSUP);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	assert_int_equal(hf_session_preserve(s, 3, pipe_fds[0], &e), -EOPNOTSUPP);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(fd);
	fd = make_memfd("y");
	assert_int_equal(hf_session_preserve(s, 1, fd, &e), -EEXIST);
	assert_int_equal(hf_session_preserve(s, 2, fd, &e), 0);
	close(fd);
	hf_session_discard(s);
	assert_int_equal(hf_carrier_session_create(c, "a", &s, &e), 0);
	hf_session_discard(s);
	hf_carrier_free(c);
	assert_int_equal(count_fds(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crosses),
		cmocka_unit_test(test_taken_back),
		cmocka_unit_test(test_without_keeper),
		cmocka_unit_test(test_rules),
	};
	char folder[] = "/tmp/hf-hold-XXXXXX";
	int r;

	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%s/keeper.sock", folder);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(folder);
	return r;
}
