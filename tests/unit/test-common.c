/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The common ground: errors, files, fd passing, process identity, clocks, workers. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "common/error.h"
#include "common/fd.h"
#include "common/tsc.h"
#include "common/worker.h"

static void test_error(void **state)
{
	struct hf_error e = {0};
	char longer[2000];

	assert_int_equal(hf_error_prefix(&e, "nothing"), 0);
	assert_string_equal(e.message, "");
	assert_int_equal(hf_error_set(&e, -EIO, HF_ERR_FAILED, "do this", "read %s", "x"), -EIO);
	assert_int_equal(hf_error_prefix(&e, "guest %d", 1), -EIO);
	assert_string_equal(e.message, "guest 1: read x");
	assert_string_equal(e.remedy, "do this");
	memset(longer, 'a', sizeof(longer));
	longer[sizeof(longer) - 1] = 0;
	hf_error_set(&e, -EIO, HF_ERR_FAILED, longer, "%s", longer);
	hf_error_prefix(&e, "%s", longer);
	hf_error_guest(&e, longer);
	assert_int_equal(strlen(e.message), sizeof(e.message) - 1);
	assert_int_equal(strlen(e.guest), sizeof(e.guest) - 1);
	assert_int_equal(hf_error_set(NULL, -EIO, HF_ERR_FAILED, NULL, "x"), -EIO);
}

static void test_files(void **state)
{
	char dir[] = "/tmp/hf-test-common-XXXXXX";
	char path[256], deep[256];
	struct stat st;
	char *data = NULL;
	size_t size;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	snprintf(deep, sizeof(deep), "%s/a/b/c", dir);
	assert_int_equal(hf_mkdir_p(deep, 0700), 0);
	assert_int_equal(hf_mkdir_p(deep, 0700), 0);
	assert_int_equal(hf_file_write_atomic(path, "one", 3, 0640), 0);
	assert_int_equal(hf_file_write_atomic(path, "three", 5, 0600), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(hf_file_read(path, 5, &data, &size), 0);
	assert_int_equal(size, 5);
	assert_string_equal(data, "three");
	free(data);
	assert_int_equal(hf_file_read(path, 4, &data, &size), -EFBIG);
	assert_int_equal(hf_file_read("/nonexistent", 4, &data, &size), -ENOENT);
	/* A folder in the place of the file: no temporary file is left behind. */
	assert_int_equal(hf_file_write_atomic(deep, "x", 1, 0600), -EISDIR);
	snprintf(path, sizeof(path),
		"rm -r %s/a/b/c && rmdir %s/a/b %s/a && rm %s/file && rmdir %s", dir, dir, dir, dir,
		dir);
	assert_int_equal(system(path), 0);
}

static void test_fd_passing(void **state)
{
	int sv[2], fds[16], memfd = -EBADF;
	struct hf_inode sent, got;
	uint64_t size = 0;
	size_t n = 16;
	char buf[8];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(hf_memfd_new("t", 4096, &memfd), 0);
	assert_int_equal(hf_fd_send(sv[0], "hello", 5, (int[]){memfd, memfd}, 2), 0);
	assert_int_equal(hf_fd_recv(sv[1], buf, sizeof(buf), fds, &n), 5);
	assert_int_equal(n, 2);
	assert_true(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
	assert_int_equal(hf_fd_inode(memfd, &sent, NULL), 0);
	assert_int_equal(hf_fd_inode(fds[1], &got, &size), 0);
	assert_true(hf_inode_equal(&sent, &got));
	assert_int_equal(size, 4096);
	close(fds[0]);
	close(fds[1]);
	/* More than there is room for: the rest is closed, not leaked. */
	n = 1;
	assert_int_equal(hf_fd_send(sv[0], "x", 1, (int[]){memfd, memfd, memfd}, 3), 0);
	assert_int_equal(hf_fd_recv(sv[1], buf, sizeof(buf), fds, &n), 1);
	assert_int_equal(n, 1);
	assert_int_equal(fcntl(fds[0] + 1, F_GETFD), -1);
	close(fds[0]);
	close(sv[0]);
	n = 16;
	assert_int_equal(hf_fd_recv(sv[1], buf, sizeof(buf), fds, &n), 0);
	assert_int_equal(hf_fd_read_full(sv[1], buf, 1), -EBADMSG);
	close(sv[1]);
	close(memfd);
}

static void test_process_identity(void **state)
{
	uint64_t ticks = 0, child_ticks = 0;
	int fd = -EBADF, memfd = -EBADF, status;
	struct hf_inode a, b;
	pid_t pid;

	assert_int_equal(hf_pid_start_time(getpid(), &ticks), 0);
	assert_true(ticks > 0);
	assert_int_equal(hf_memfd_new("t", 4096, &memfd), 0);
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	assert_int_equal(hf_pid_start_time(pid, &child_ticks), 0);
	assert_true(child_ticks >= ticks);
	assert_int_equal(hf_pid_get_fd(pid, child_ticks + 1, memfd, &fd), -ESTALE);
	assert_int_equal(hf_pid_get_fd(pid, child_ticks, memfd, &fd), 0);
	hf_fd_inode(memfd, &a, NULL);
	hf_fd_inode(fd, &b, NULL);
	assert_true(hf_inode_equal(&a, &b));
	close(fd);
	assert_int_equal(hf_pid_get_fd(pid, child_ticks, 1000, &fd), -EBADF);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_int_equal(hf_pid_start_time(pid, &child_ticks), -ESRCH);
	close(memfd);
}

static void test_tsc(void **state)
{
	struct timespec ms20 = {.tv_nsec = 20000000};
	struct hf_tsc_mark from = hf_tsc_mark(), to;
	struct timespec up;
	uint64_t hz, start, now;

	nanosleep(&ms20, NULL);
	to = hf_tsc_mark();
	hz = hf_tsc_hz(&from, &to);
	assert_in_range(hz, 100000000ULL, 20000000000ULL);
	assert_int_equal(hf_tsc_hz(&from, &from), 0);
	assert_int_equal(hf_tsc_hz(&to, &from), 0);
	assert_int_equal(hf_tsc_to_ns(hz * 3600, hz), 3600ULL * HF_NSEC_PER_SEC);
	clock_gettime(CLOCK_BOOTTIME, &up);
	start = hf_tsc_kernel_start(hz);
	now = hf_tsc_now();
	/* A virtual machine's counter may have started long before or after its kernel. */
	if (start > 0)
		assert_true(now - start > hz * (uint64_t)(up.tv_sec / 2));
}

struct job {
	sd_event *event;
	int ran;
	int result;
};

static int run_job(void *data)
{
	struct job *j = data;

	j->ran++;
	return -ENOTTY;
}

static void job_done(void *data, int result)
{
	struct job *j = data;

	j->result = result;
	sd_event_exit(j->event, 0);
}

static void test_worker(void **state)
{
	struct job j = {0};

	assert_true(sd_event_new(&j.event) >= 0);
	assert_int_equal(hf_worker_run(j.event, run_job, job_done, &j), 0);
	assert_int_equal(j.result, 0); /* never from within the call */
	assert_true(sd_event_loop(j.event) >= 0);
	assert_int_equal(j.ran, 1);
	assert_int_equal(j.result, -ENOTTY);
	sd_event_unref(j.event);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_fd_passing),
		cmocka_unit_test(test_process_identity),
		cmocka_unit_test(test_tsc),
		cmocka_unit_test(test_worker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
