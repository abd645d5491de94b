/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The hold carrier, with a real execve: the test starts itself again and looks at what came
 * over.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/fd.h"
#include "memfd-preserve/carrier.h"

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

/*
 * What the next self would see, without an execve: the same files under other numbers, because both
 * selves live in this process. Frees @c.
 */
static struct hf_carrier *next_self(struct hf_carrier *c, char **ret_env)
{
	char *env = NULL, *entry, *save = NULL, next[1024] = "";
	size_t used = 0;

	assert_int_equal(hf_carrier_hold_export(c, &env, NULL), 0);
	assert_memory_equal(env, HF_HOLD_ENV "=", strlen(HF_HOLD_ENV "="));
	*ret_env = strdup(env);
	for (entry = strtok_r(strchr(env, '=') + 1, ",", &save); entry;
		entry = strtok_r(NULL, ",", &save)) {
		int fd = dup(atoi(entry));

		assert_true(fd >= 3);
		used += (size_t)snprintf(next + used, sizeof(next) - used, "%s%d%s",
			used ? "," : "", fd, strchr(entry, ':'));
	}
	free(env);
	hf_carrier_free(c);
	assert_int_equal(setenv(HF_HOLD_ENV, next, 1), 0);
	return new_carrier();
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

static size_t count_fds(void)
{
	size_t n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Run in the process that execve() made. Exit status 0: all as it should be. */
static int after_execve(void)
{
	struct hf_carrier *c = NULL;
	struct hf_session *s = NULL;
	char text[16] = "";
	int fd = -1;

	if (hf_carrier_hold_new(&c, NULL) < 0 || getenv(HF_HOLD_ENV))
		return 1;
	if (hf_carrier_session_retrieve(c, "guest-1", &s, NULL) < 0)
		return 2;
	if (hf_session_retrieve(s, 1, &fd, NULL) < 0 || fcntl(fd, F_GETFD) != FD_CLOEXEC)
		return 3;
	if (pread(fd, text, sizeof(text), 0) <= 0 || strcmp(text, "one") != 0)
		return 4;
	if (hf_session_retrieve(s, UINT64_MAX, &fd, NULL) < 0)
		return 5;
	if (hf_session_finish(s, NULL) < 0)
		return 6;
	hf_carrier_free(c);
	return 0;
}

static void test_execve(void **state)
{
	struct hf_carrier *c = new_carrier();
	struct hf_session *s = NULL;
	int one = make_memfd("one"), two = make_memfd("two"), status;
	char *env = NULL;
	pid_t pid;

	assert_int_equal(hf_carrier_session_create(c, "guest-1", &s, NULL), 0);
	assert_int_equal(hf_session_preserve(s, 1, one, NULL), 0);
	assert_int_equal(hf_session_preserve(s, UINT64_MAX, two, NULL), 0);
	close(one);
	close(two);
	pid = fork();
	if (pid == 0) {
		char *argv[] = {(char *)"test-hold", (char *)"--after-execve", NULL};
		char *envp[] = {NULL, NULL};

		if (hf_carrier_hold_export(c, &env, NULL) < 0)
			_exit(99);
		envp[0] = env;
		execve("/proc/self/exe", argv, envp);
		_exit(98);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	hf_session_discard(s);
	hf_carrier_free(c);
}

static void test_rules(void **state)
{
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
}

static void test_nothing_leaks(void **state)
{
	size_t before = count_fds();
	struct hf_carrier *c = new_carrier(), *next;
	struct hf_session *s = NULL;
	int fd = make_memfd("x");
	char *env;

	assert_int_equal(hf_carrier_session_create(c, "a", &s, NULL), 0);
	assert_int_equal(hf_session_preserve(s, 1, fd, NULL), 0);
	close(fd);
	hf_session_detach(s);
	next = next_self(c, &env);
	free(env);
	assert_int_equal(hf_carrier_session_retrieve(next, "a", &s, NULL), 0);
	expect_text(s, 1, "x");
	assert_int_equal(hf_session_finish(s, NULL), 0);
	hf_carrier_free(next);
	assert_int_equal(count_fds(), before);
}

/* What was not finished is held on: a guest that could not be resumed keeps its memory. */
static void test_unfinished_crosses_again(void **state)
{
	struct hf_carrier *first = new_carrier(), *second, *third;
	struct hf_session *s = NULL, *t = NULL;
	struct hf_error e = {0};
	int fd = make_memfd("old"), fd2 = make_memfd("new"), got = -1;
	char *env;

	assert_int_equal(hf_carrier_session_create(first, "a", &s, NULL), 0);
	assert_int_equal(hf_session_preserve(s, 1, fd, NULL), 0);
	hf_session_detach(s);
	second = next_self(first, &env);
	free(env);
	assert_int_equal(hf_carrier_session_retrieve(second, "a", &s, NULL), 0);
	assert_int_equal(hf_carrier_session_retrieve(second, "a", &t, &e), -EALREADY);
	/* A file that is still held can't be preserved anew. */
	assert_int_equal(hf_carrier_session_create(second, "b", &t, NULL), 0);
	assert_int_equal(hf_session_retrieve(s, 1, &got, NULL), 0);
	assert_int_equal(hf_session_preserve(t, 1, got, &e), -EALREADY);
	assert_non_null(strstr(e.remedy, "finish"));
	close(got);
	hf_session_detach(t);
	hf_session_discard(s); /* incoming: nothing but a detach */

	third = next_self(second, &env);
	assert_null(strstr(env, ":b")); /* no files, so nothing to carry */
	free(env);
	assert_int_equal(hf_carrier_session_retrieve(third, "a", &s, NULL), 0);
	expect_text(s, 1, "old");
	hf_session_detach(s);
	/* An outgoing namesake takes its place; an empty one doesn't. */
	assert_int_equal(hf_carrier_session_create(third, "a", &t, NULL), 0);
	assert_int_equal(hf_carrier_hold_export(third, &env, NULL), 0);
	assert_non_null(strstr(env, ":1:a"));
	free(env);
	assert_int_equal(hf_session_preserve(t, 9, fd2, NULL), 0);
	assert_int_equal(hf_carrier_hold_export(third, &env, NULL), 0);
	assert_null(strstr(env, ":1:a"));
	assert_non_null(strstr(env, ":9:a"));
	free(env);
	hf_session_discard(t);
	hf_carrier_free(third);
	close(fd);
	close(fd2);
}

static void test_unexport(void **state)
{
	struct hf_carrier *c = new_carrier();
	struct hf_session *s = NULL;
	int fd = make_memfd("x"), held;
	char *env = NULL;

	assert_int_equal(hf_carrier_session_create(c, "a", &s, NULL), 0);
	assert_int_equal(hf_session_preserve(s, 1, fd, NULL), 0);
	assert_int_equal(hf_carrier_hold_export(c, &env, NULL), 0);
	held = atoi(strchr(env, '=') + 1);
	assert_int_not_equal(held, fd);
	assert_int_equal(fcntl(held, F_GETFD), 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	hf_carrier_hold_unexport(c);
	assert_int_equal(fcntl(held, F_GETFD), FD_CLOEXEC);
	free(env);
	hf_session_discard(s);
	assert_int_equal(fcntl(held, F_GETFD), -1);
	hf_carrier_free(c);
	close(fd);
}

static void expect_refused(const char *value)
{
	struct hf_carrier *c = NULL;
	struct hf_error e = {0};

	assert_int_equal(setenv(HF_HOLD_ENV, value, 1), 0);
	if (hf_carrier_hold_new(&c, &e) != -EBADMSG)
		fail_msg("`%s` was accepted", value);
	assert_null(c);
	assert_null(getenv(HF_HOLD_ENV));
	assert_non_null(strstr(e.message, HF_HOLD_ENV));
}

static void test_bad_environment(void **state)
{
	static const char *const bad[] = {
		",",
		"x",
		"1",
		"1:2",
		"1:2:",
		":1:a",
		"-5:1:a",
		"+5:1:a",
		" 5:1:a",
		"5 :1:a",
		"0:1:a",
		"2:1:a",
		"99999:1:a",
		"4294967301:1:a",
		"5:x:a",
		"5:-1:a",
		"5:18446744073709551616:a",
		"5:1:a b",
		"5:1:a/b",
		"5:1:a:b",
		"5:1:0123456789012345678901234567890123456789012345678901234567890123",
		"0x5:1:a",
		"005:1:a",
	};
	int fd = make_memfd("x"), pipe_fds[2];
	char value[128];

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++)
		expect_refused(bad[i]);
	snprintf(value, sizeof(value), "%d:1:a,", fd);
	expect_refused(value);
	snprintf(value, sizeof(value), "%d:1:a,,", fd);
	expect_refused(value);
	snprintf(value, sizeof(value), "%d:1:a,%d:2:a", fd, fd);
	expect_refused(value);
	snprintf(value, sizeof(value), "0%d:1:a", fd);
	expect_refused(value);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	snprintf(value, sizeof(value), "%d:1:a", pipe_fds[0]);
	expect_refused(value);
	/* A token doubled in one session, with two files. */
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	pipe_fds[0] = make_memfd("y");
	snprintf(value, sizeof(value), "%d:1:a,%d:1:a", fd, pipe_fds[0]);
	expect_refused(value);
	/* None of the refusals closed what isn't known to be ours. */
	assert_true(fcntl(fd, F_GETFD) >= 0);
	close(pipe_fds[0]);
	close(fd);
	assert_int_equal(setenv(HF_HOLD_ENV, "", 1), 0);
	hf_carrier_free(new_carrier());
}

static void test_too_many(void **state)
{
	struct rlimit limit = {4096, 4096};
	struct hf_carrier *c = new_carrier();
	struct hf_session *s = NULL;
	struct hf_error e = {0};
	char *env = NULL;

	assert_int_equal(
		hf_carrier_session_create(c,
			"a-session-with-a-name-as-long-as-names-can-be-63-bytes-of-them", &s, &e),
		0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (uint64_t i = 0; i < 1500; i++) {
		int fd = make_memfd("x");

		assert_int_equal(hf_session_preserve(s, UINT64_MAX - i, fd, &e), 0);
		close(fd);
		if (i == 1000) {
			assert_int_equal(hf_carrier_hold_export(c, &env, &e), 0);
			free(env);
		}
	}
	assert_int_equal(hf_carrier_hold_export(c, &env, &e), -E2BIG);
	hf_session_discard(s);
	hf_carrier_free(c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_execve),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_nothing_leaks),
		cmocka_unit_test(test_unfinished_crosses_again),
		cmocka_unit_test(test_unexport),
		cmocka_unit_test(test_bad_environment),
		cmocka_unit_test(test_too_many),
	};

	if (argc == 2 && strcmp(argv[1], "--after-execve") == 0)
		return after_execve();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
