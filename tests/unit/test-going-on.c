/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Processes that have a file open end, others stay; what is noted of a resume is read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/resume-journal.h"
#include "common/fd.h"
#include "vmm-glue/ram-users.h"

#define UUID "0123abcd-0000-4000-8000-0000000000ff"

/* A process with @keep open and @drop not. */
static pid_t start(int keep, int drop)
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* SIGTERM would not do. */
		signal(SIGTERM, SIG_IGN);
		close(drop);
		if (keep < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void test_ends_users(void **state)
{
	int ram = -EBADF, other = -EBADF, status;
	struct hf_inode inode;
	struct hf_error e = {0};
	pid_t user, stranger;
	size_t n = 99;

	assert_int_equal(hf_memfd_new("ram", 4096, &ram), 0);
	assert_int_equal(hf_memfd_new("other", 4096, &other), 0);
	assert_int_equal(hf_fd_inode(ram, &inode, NULL), 0);
	user = start(ram, other);
	stranger = start(other, ram);

	assert_int_equal(hf_ram_users_end(&inode, 1, 10 * HF_NSEC_PER_SEC, &n, &e), 0);
	assert_int_equal(n, 1);
	assert_int_equal(waitpid(user, &status, WNOHANG), user);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(waitpid(stranger, &status, WNOHANG), 0);
	/* Nobody is left but this process, which is none of them. */
	assert_int_equal(hf_ram_users_end(&inode, 1, HF_NSEC_PER_SEC, &n, &e), 0);
	assert_int_equal(n, 0);
	kill(stranger, SIGKILL);
	waitpid(stranger, &status, 0);
	close(ram);
	close(other);
}

static void test_journal(void **state)
{
	char folder[] = "/tmp/hf-journal-XXXXXX", path[128];
	struct hf_error e = {0};
	uint64_t ticks = 0, mine = 0;
	bool afresh = true;
	pid_t pid = 0;

	assert_non_null(mkdtemp(folder));
	setenv("HOLDFAST_RUN_DIR", folder, 1);
	assert_int_equal(hf_resume_journal_read(UUID, &pid, &ticks, &afresh), -ENOENT);
	assert_int_equal(hf_resume_journal_write(UUID, getpid(), false, &e), 0);
	assert_int_equal(hf_resume_journal_read(UUID, &pid, &ticks, &afresh), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(hf_pid_start_time(getpid(), &mine), 0);
	assert_int_equal(ticks, mine);
	assert_false(afresh);
	assert_int_equal(hf_resume_journal_write(UUID, getpid(), true, &e), 0);
	assert_int_equal(hf_resume_journal_read(UUID, &pid, &ticks, &afresh), 0);
	assert_true(afresh);
	/* A process that isn't there can't be noted. */
	assert_true(hf_resume_journal_write(UUID, 0x7ffffffe, false, &e) < 0);
	snprintf(path, sizeof(path), "%s/resumed/" UUID ".json", folder);
	for (size_t i = 0; i < 5; i++) {
		static const char *const bad[] = {
			"", "[]", "{\"pid\":5}", "{\"pid\":-5,\"start_ticks\":7}", "{\"pid\":5,"};

		assert_int_equal(hf_file_write_atomic(path, bad[i], strlen(bad[i]), 0600), 0);
		assert_int_equal(hf_resume_journal_read(UUID, &pid, &ticks, &afresh), -EBADMSG);
	}
	hf_resume_journal_remove(UUID);
	assert_int_equal(hf_resume_journal_read(UUID, &pid, &ticks, &afresh), -ENOENT);
	snprintf(path, sizeof(path), "%s/resumed", folder);
	rmdir(path);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ends_users),
		cmocka_unit_test(test_journal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
