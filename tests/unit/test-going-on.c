/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Processes that have a guest's RAM open are ended, others stay. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "vmm-glue/ram-users.h"

/*
 * A process with @keep open and @drop not: another program, or as it is between fork and exec. The
 * program says that it runs by closing its copy of the pipe.
 */
static pid_t start(int keep, int drop, bool exec)
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (exec) {
			fcntl(keep, F_SETFD, 0);
			execl("/bin/sleep", "sleep", "1000", NULL);
			_exit(1);
		}
		/* SIGTERM would not do. */
		signal(SIGTERM, SIG_IGN);
		close(drop);
		if (keep < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), exec ? 0 : 1);
	close(ready[0]);
	return pid;
}

/* The QEMU that a guest was adopted from: that process, and not whoever has its number since. */
static void test_ends_former(void **state)
{
	struct hf_error e = {0};
	uint64_t ticks = 0;
	int status;
	pid_t pid = start(-EBADF, -EBADF, true);

	assert_int_equal(hf_pid_start_time(pid, &ticks), 0);
	assert_int_equal(hf_ram_users_end_former(pid, ticks + 1, HF_NSEC_PER_SEC, &e), 0);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	assert_int_equal(hf_ram_users_end_former(pid, ticks, 10 * HF_NSEC_PER_SEC, &e), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(hf_ram_users_end_former(pid, ticks, HF_NSEC_PER_SEC, &e), 0);
}

static void test_ends_users(void **state)
{
	int ram = -EBADF, other = -EBADF, status;
	struct hf_inode inode;
	struct hf_error e = {0};
	pid_t user, stranger, keeper, starting;
	size_t n = 99;

	assert_int_equal(hf_memfd_new("ram", 4096, &ram), 0);
	assert_int_equal(hf_memfd_new("other", 4096, &other), 0);
	assert_int_equal(hf_fd_inode(ram, &inode, NULL), 0);
	user = start(ram, other, true);
	stranger = start(other, ram, true);
	keeper = start(ram, other, true);
	starting = start(ram, other, false);

	assert_int_equal(hf_ram_users_end(&inode, 1, keeper, 10 * HF_NSEC_PER_SEC, &n, &e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(waitpid(user, &status, WNOHANG), user);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(waitpid(stranger, &status, WNOHANG), 0);
	assert_int_equal(waitpid(keeper, &status, WNOHANG), 0);
	/* It has become nobody's QEMU yet: what it has open is what its parent has. */
	assert_int_equal(waitpid(starting, &status, WNOHANG), 0);
	/* Nobody is left but these two, and this process, which is none of them. */
	assert_int_equal(hf_ram_users_end(&inode, 1, keeper, HF_NSEC_PER_SEC, &n, &e), 0);
	assert_int_equal(n, 0);
	kill(stranger, SIGKILL);
	waitpid(stranger, &status, 0);
	kill(keeper, SIGKILL);
	waitpid(keeper, &status, 0);
	kill(starting, SIGKILL);
	waitpid(starting, &status, 0);
	close(ram);
	close(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ends_former),
		cmocka_unit_test(test_ends_users),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
