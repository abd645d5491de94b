/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The luo carrier against a LUO played by this file.
 *
 * The test's own open() and ioctl() stand before the C library's and act as the device and its
 * sessions, by the rules read in Linux 7.3's kernel/liveupdate/. What a real kernel does is for the
 * nested suite; here every error it can give is tried, which a real one wouldn't do on demand.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cmocka.h>

#include "common/fd.h"
#include "memfd-preserve/carrier.h"
#include "memfd-preserve/luo.h"

#define DEVICE "/fake/liveupdate"
#define MAX_SESSIONS 8
#define MAX_FILES 8

struct fake_session {
	bool used, incoming, retrieved;
	char name[HF_LUO_NAME_BYTES];
	int fd;
	uint64_t tokens[MAX_FILES];
	int files[MAX_FILES];
	int n_files;
};

static struct {
	struct fake_session sessions[MAX_SESSIONS];
	int busy_opens;	 /* this many opens fail with EBUSY, -1: all */
	int open_error;	 /* every open fails with this */
	int ioctl_error; /* the next session ioctl fails with this … */
	int ioctl_more;	 /* … and so many more after it */
	int ioctls;	 /* on sessions, so far */
	bool is_open;
	int opens;
	pthread_mutex_t lock;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void fake_drop(struct fake_session *s)
{
	for (int i = 0; i < s->n_files; i++)
		close(s->files[i]);
	*s = (struct fake_session){0};
}

static void fake_reset(void)
{
	for (int i = 0; i < MAX_SESSIONS; i++)
		if (fake.sessions[i].used)
			fake_drop(&fake.sessions[i]);
	fake.busy_opens = fake.open_error = fake.ioctl_error = fake.opens = 0;
	fake.ioctl_more = fake.ioctls = 0;
}

/* Sessions whose fd was closed are gone, with what they hold. */
static void fake_sweep(void)
{
	for (int i = 0; i < MAX_SESSIONS; i++) {
		struct fake_session *s = &fake.sessions[i];

		if (s->used && s->fd >= 0 && fcntl(s->fd, F_GETFD) < 0)
			fake_drop(s);
	}
}

/* The kexec: outgoing sessions become incoming ones. Their fds die with the old kernel. */
static void fake_jump(void)
{
	for (int i = 0; i < MAX_SESSIONS; i++) {
		struct fake_session *s = &fake.sessions[i];

		if (!s->used || s->incoming)
			continue;
		close(s->fd);
		s->fd = -1;
		s->incoming = true;
	}
}

static struct fake_session *fake_find(const char *name, bool incoming)
{
	for (int i = 0; i < MAX_SESSIONS; i++)
		if (fake.sessions[i].used && fake.sessions[i].incoming == incoming &&
			strcmp(fake.sessions[i].name, name) == 0)
			return &fake.sessions[i];
	return NULL;
}

static int fake_errno(int err)
{
	errno = err;
	return -1;
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode = 0;
	int fd;

	if (flags & O_CREAT) {
		va_start(ap, flags);
		mode = va_arg(ap, mode_t);
		va_end(ap);
	}
	if (strcmp(path, DEVICE) != 0)
		return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	fake_sweep(); /* before a number is used again */
	fake.opens++;
	if (fake.open_error)
		return fake_errno(fake.open_error);
	if (fake.busy_opens != 0) {
		fake.busy_opens -= fake.busy_opens > 0;
		return fake_errno(EBUSY);
	}
	fd = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC);
	return fd;
}

static int fake_create(struct hf_luo_session_arg *a)
{
	assert_int_equal(a->size, sizeof(*a));
	if (fake_find((char *)a->name, false))
		return fake_errno(EEXIST);
	for (int i = 0; i < MAX_SESSIONS; i++) {
		struct fake_session *s = &fake.sessions[i];

		if (s->used)
			continue;
		s->used = true;
		memcpy(s->name, a->name, sizeof(s->name));
		s->fd = a->fd = eventfd(0, EFD_CLOEXEC);
		return 0;
	}
	return fake_errno(ENOMEM);
}

static int fake_retrieve_session(struct hf_luo_session_arg *a)
{
	struct fake_session *s = fake_find((char *)a->name, true);

	if (!s)
		return fake_errno(ENOENT);
	if (s->retrieved)
		return fake_errno(EINVAL);
	s->retrieved = true;
	s->fd = a->fd = eventfd(0, EFD_CLOEXEC);
	return 0;
}

static int fake_preserve(struct fake_session *s, struct hf_luo_fd_arg *a)
{
	if (s->incoming)
		return fake_errno(EINVAL);
	for (int i = 0; i < s->n_files; i++)
		if (s->tokens[i] == a->token)
			return fake_errno(EEXIST);
	s->tokens[s->n_files] = a->token;
	s->files[s->n_files++] = fcntl(a->fd, F_DUPFD_CLOEXEC, 3);
	return 0;
}

static int fake_retrieve(struct fake_session *s, struct hf_luo_fd_arg *a)
{
	if (!s->incoming)
		return fake_errno(EINVAL);
	for (int i = 0; i < s->n_files; i++) {
		if (s->tokens[i] == a->token) {
			a->fd = fcntl(s->files[i], F_DUPFD_CLOEXEC, 3);
			return 0;
		}
	}
	return fake_errno(ENOENT);
}

static int fake_session_ioctl(int fd, unsigned long request, void *arg)
{
	struct fake_session *s = NULL;

	for (int i = 0; i < MAX_SESSIONS; i++)
		if (fake.sessions[i].used && fake.sessions[i].fd == fd)
			s = &fake.sessions[i];
	if (!s)
		return fake_errno(ENOTTY);
	fake.ioctls++;
	if (fake.ioctl_error) {
		errno = fake.ioctl_error;
		if (fake.ioctl_more-- <= 0)
			fake.ioctl_error = fake.ioctl_more = 0;
		return -1;
	}
	switch (request) {
	case HF_LUO_PRESERVE_FD:
		return fake_preserve(s, arg);
	case HF_LUO_RETRIEVE_FD:
		return fake_retrieve(s, arg);
	case HF_LUO_FINISH:
		for (int i = 0; i < s->n_files; i++)
			close(s->files[i]);
		s->n_files = 0;
		return s->incoming ? 0 : fake_errno(EINVAL);
	case HF_LUO_GET_NAME:
		memcpy(((struct hf_luo_name_arg *)arg)->name, s->name, sizeof(s->name));
		return 0;
	}
	return fake_errno(EINVAL);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;
	int r;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if ((request >> 8 & 0xff) != 0xBA)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	pthread_mutex_lock(&fake.lock);
	if (request == HF_LUO_CREATE_SESSION)
		r = fake_create(arg);
	else if (request == HF_LUO_RETRIEVE_SESSION)
		r = fake_retrieve_session(arg);
	else
		r = fake_session_ioctl(fd, request, arg);
	pthread_mutex_unlock(&fake.lock);
	return r;
}

static int setup(void **state)
{
	struct hf_carrier *c = NULL;

	fake_reset();
	if (hf_carrier_luo_new(DEVICE, &c, NULL) < 0)
		return -1;
	*state = c;
	return 0;
}

static int teardown(void **state)
{
	hf_carrier_free(*state);
	fake_reset();
	return 0;
}

static int make_memfd(const char *text)
{
	int fd = -1;

	assert_int_equal(hf_memfd_new("test", 4096, &fd), 0);
	assert_int_equal(pwrite(fd, text, strlen(text) + 1, 0), (ssize_t)strlen(text) + 1);
	return fd;
}

static void test_round_trip(void **state)
{
	struct hf_carrier *c = *state;
	struct hf_session *s = NULL, *back = NULL;
	struct hf_error e = {0};
	int fd = make_memfd("guest memory"), got = -1;
	char text[32];

	assert_string_equal(hf_carrier_name(c), "luo");
	assert_int_equal(hf_carrier_session_create(c, "guest-1", &s, &e), 0);
	assert_string_equal(hf_session_name(s), "guest-1");
	assert_false(hf_session_incoming(s));
	assert_true(hf_session_fd(s) >= 0);
	assert_int_equal(fcntl(hf_session_fd(s), F_GETFD), FD_CLOEXEC);
	assert_int_equal(hf_session_preserve(s, 7, fd, &e), 0);
	close(fd);

	fake_jump();
	hf_session_detach(s); /* what the old agent knew is gone */

	assert_int_equal(hf_carrier_session_retrieve(c, "guest-1", &back, &e), 0);
	assert_true(hf_session_incoming(back));
	assert_int_equal(hf_session_retrieve(back, 8, &got, &e), -ENOENT);
	assert_non_null(strstr(e.message, "no token 8"));
	assert_int_equal(hf_session_retrieve(back, 7, &got, &e), 0);
	assert_true(pread(got, text, sizeof(text), 0) > 0);
	assert_string_equal(text, "guest memory");
	close(got);
	assert_int_equal(hf_session_preserve(back, 1, 0, &e), -EINVAL);
	assert_int_equal(hf_session_finish(back, &e), 0);
}

static void test_discard_unpreserves(void **state)
{
	struct hf_session *s = NULL;
	int fd = make_memfd("x"), session_fd;

	assert_int_equal(hf_carrier_session_create(*state, "a", &s, NULL), 0);
	assert_int_equal(hf_session_preserve(s, 1, fd, NULL), 0);
	session_fd = hf_session_fd(s);
	hf_session_discard(s);
	assert_int_equal(fcntl(session_fd, F_GETFD), -1);
	/* The file can be preserved again, under the same name. */
	assert_int_equal(hf_carrier_session_create(*state, "a", &s, NULL), 0);
	assert_int_equal(hf_session_preserve(s, 1, fd, NULL), 0);
	hf_session_discard(s);
	close(fd);
}

static void test_incoming_is_never_discarded(void **state)
{
	struct hf_session *s = NULL;
	int fd = make_memfd("x"), session_fd;

	assert_int_equal(hf_carrier_session_create(*state, "a", &s, NULL), 0);
	assert_int_equal(hf_session_preserve(s, 1, fd, NULL), 0);
	fake_jump();
	hf_session_detach(s);
	assert_int_equal(hf_carrier_session_retrieve(*state, "a", &s, NULL), 0);
	session_fd = hf_session_fd(s);
	hf_session_discard(s);
	assert_true(fcntl(session_fd, F_GETFD) >= 0);
	close(session_fd);
	close(fd);
}

static void test_same_file_twice(void **state)
{
	struct hf_session *a = NULL, *b = NULL;
	struct hf_error e = {0};
	int fd = make_memfd("x"), again = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	assert_int_equal(hf_carrier_session_create(*state, "a", &a, NULL), 0);
	assert_int_equal(hf_carrier_session_create(*state, "b", &b, NULL), 0);
	assert_int_equal(hf_session_preserve(a, 1, fd, &e), 0);
	assert_int_equal(hf_session_preserve(a, 2, again, &e), -EALREADY);
	assert_int_equal(hf_session_preserve(b, 1, again, &e), -EALREADY);
	assert_non_null(strstr(e.message, "preserved already"));
	assert_true(e.remedy[0] != 0);
	/* A failed preserve leaves no trace. */
	hf_session_discard(a);
	fake.ioctl_error = EIO;
	assert_int_equal(hf_session_preserve(b, 1, fd, &e), -EIO);
	assert_int_equal(hf_session_preserve(b, 1, fd, &e), 0);
	hf_session_discard(b);
	close(fd);
	close(again);
}

static void test_errors_of_preserve(void **state)
{
	static const struct {
		int from_kernel, expected;
	} cases[] = {
		{EEXIST, -EEXIST},
		{EBUSY, -EALREADY},
		{ENOENT, -EOPNOTSUPP},
		{EOPNOTSUPP, -EOPNOTSUPP},
		{EIO, -EIO},
	};
	struct hf_session *s = NULL;
	int fd = make_memfd("x");

	assert_int_equal(hf_carrier_session_create(*state, "a", &s, NULL), 0);
	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct hf_error e = {0};

		fake.ioctl_error = cases[i].from_kernel;
		assert_int_equal(hf_session_preserve(s, 1, fd, &e), cases[i].expected);
		assert_int_equal(e.err, cases[i].expected);
		assert_non_null(strstr(e.message, "session a"));
	}
	assert_int_equal(hf_session_preserve(s, 1, -1, NULL), -EBADF);
	hf_session_discard(s);
	close(fd);
}

/* ENOMEM is also a page that could not be moved just now. */
static void test_preserve_is_tried_again(void **state)
{
	struct hf_session *s = NULL;
	struct hf_error e = {0};
	int fd = make_memfd("x");

	assert_int_equal(hf_carrier_session_create(*state, "a", &s, NULL), 0);
	fake.ioctls = 0;
	fake.ioctl_error = ENOMEM;
	fake.ioctl_more = 3;
	assert_int_equal(hf_session_preserve(s, 1, fd, &e), 0);
	assert_int_equal(fake.ioctls, 5);
	hf_session_discard(s);

	assert_int_equal(hf_carrier_session_create(*state, "a", &s, NULL), 0);
	fake.ioctls = 0;
	fake.ioctl_error = ENOMEM;
	fake.ioctl_more = 99;
	assert_int_equal(hf_session_preserve(s, 1, fd, &e), -ENOMEM);
	assert_int_equal(fake.ioctls, 5);
	assert_non_null(strstr(e.message, "session a"));
	assert_non_null(strstr(e.remedy, "memory"));
	fake.ioctl_error = fake.ioctl_more = 0;
	hf_session_discard(s);
	close(fd);
}

static void test_names(void **state)
{
	static const char *const bad[] = {
		"",
		"a b",
		"a/b",
		"a:b",
		"a,b",
		"\xc3\xa4",
		"0123456789012345678901234567890123456789012345678901234567890123",
	};
	struct hf_session *s = NULL;

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		assert_int_equal(hf_carrier_session_create(*state, bad[i], &s, NULL), -EINVAL);
		assert_int_equal(hf_carrier_session_retrieve(*state, bad[i], &s, NULL), -EINVAL);
	}
	assert_int_equal(hf_carrier_session_create(*state,
				 "012345678901234567890123456789012345678901234567890123456789012",
				 &s, NULL),
		0);
	assert_int_equal(hf_carrier_session_create(*state, hf_session_name(s), &s, NULL), -EEXIST);
	hf_session_discard(s);
}

static void test_retrieve_what_is_not_there(void **state)
{
	struct hf_session *s = NULL, *second = NULL;
	struct hf_error e = {0};

	assert_int_equal(hf_carrier_session_retrieve(*state, "none", &s, &e), -ENOENT);
	fake.open_error = ENOENT;
	assert_int_equal(hf_carrier_session_retrieve(*state, "none", &s, &e), -ENODEV);
	fake.open_error = EACCES;
	assert_int_equal(hf_carrier_session_retrieve(*state, "none", &s, &e), -EACCES);
	fake.open_error = EIO;
	assert_int_equal(hf_carrier_session_retrieve(*state, "none", &s, &e), -EIO);
	assert_non_null(strstr(e.remedy, "reboot"));
	fake.open_error = 0;
	assert_int_equal(hf_carrier_session_create(*state, "a", &s, &e), 0);
	fake_jump();
	hf_session_detach(s);
	assert_int_equal(hf_carrier_session_retrieve(*state, "a", &s, &e), 0);
	assert_int_equal(hf_carrier_session_retrieve(*state, "a", &second, &e), -EALREADY);
	assert_int_equal(hf_session_finish(s, &e), 0);
}

static void test_busy_device(void **state)
{
	struct hf_session *s = NULL;
	int fd = -1;

	fake.busy_opens = 5;
	assert_int_equal(hf_carrier_session_create(*state, "a", &s, NULL), 0);
	assert_int_equal(fake.opens, 6);
	hf_session_discard(s);
	fake.busy_opens = -1;
	assert_int_equal(hf_luo_session_create(DEVICE, "b", 20 * HF_NSEC_PER_MSEC, &fd), -EBUSY);
	assert_int_equal(fd, -1);
	/* Somebody works with it: it is there. */
	assert_int_equal(hf_luo_check(DEVICE, "/proc", NULL), 0);
}

static void test_finish_that_fails(void **state)
{
	struct hf_session *s = NULL;
	struct hf_error e = {0};

	assert_int_equal(hf_carrier_session_create(*state, "a", &s, NULL), 0);
	assert_int_equal(hf_session_finish(s, &e), -EINVAL);
	fake_jump();
	hf_session_detach(s);
	assert_int_equal(hf_carrier_session_retrieve(*state, "a", &s, NULL), 0);
	fake.ioctl_error = EBUSY;
	assert_int_equal(hf_session_finish(s, &e), -EBUSY);
	assert_true(fcntl(hf_session_fd(s), F_GETFD) >= 0);
	assert_int_equal(hf_session_finish(s, &e), 0);
}

static void test_adopt(void **state)
{
	struct hf_session *s = NULL;
	struct hf_error e = {0};
	int fd, plain = make_memfd("x");

	assert_int_equal(hf_carrier_session_create(*state, "kept", &s, NULL), 0);
	fd = hf_session_fd(s);
	hf_session_detach(s);
	assert_int_equal(hf_carrier_session_adopt(*state, plain, true, &s, &e), -EBADMSG);
	assert_int_equal(hf_carrier_session_adopt(*state, fd, false, &s, &e), 0);
	assert_string_equal(hf_session_name(s), "kept");
	assert_int_equal(hf_session_fd(s), fd);
	hf_session_discard(s);
	close(plain);
}

struct job {
	struct hf_carrier *carrier;
	int number;
	int shared_fd;
	int shared_result;
};

static void *thread_main(void *data)
{
	struct job *j = data;
	struct hf_session *s = NULL;
	char name[32];

	snprintf(name, sizeof(name), "thread-%d", j->number);
	if (hf_carrier_session_create(j->carrier, name, &s, NULL) < 0)
		return data;
	j->shared_result = hf_session_preserve(s, 1, j->shared_fd, NULL);
	return s;
}

/* Four sessions at once, and one file that all of them want: exactly one gets it. */
static void test_threads(void **state)
{
	struct job jobs[4];
	pthread_t threads[4];
	void *sessions[4];
	int fd = make_memfd("x"), won = 0;

	for (int i = 0; i < 4; i++) {
		jobs[i] = (struct job){.carrier = *state, .number = i, .shared_fd = fd};
		assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &jobs[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], &sessions[i]), 0);
		assert_ptr_not_equal(sessions[i], &jobs[i]);
	}
	for (int i = 0; i < 4; i++) {
		won += jobs[i].shared_result == 0;
		if (jobs[i].shared_result != 0)
			assert_int_equal(jobs[i].shared_result, -EALREADY);
		hf_session_discard(sessions[i]);
	}
	assert_int_equal(won, 1);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_discard_unpreserves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_incoming_is_never_discarded, setup, teardown),
		cmocka_unit_test_setup_teardown(test_same_file_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors_of_preserve, setup, teardown),
		cmocka_unit_test_setup_teardown(test_preserve_is_tried_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_retrieve_what_is_not_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_finish_that_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_adopt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
