/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: What /proc shows of a QEMU: this program itself plays one, and waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm-glue/process.h"

#define UUID "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"

#define READY_FD 20

static char folder[] = "/tmp/hf-test-process.XXXXXX";

/* Starts this program anew as QEMU, in @folder, and waits until it is that. */
static pid_t start(const char *const *argv)
{
	static const char *const env[] = {"HF_TEST_WAIT=1", "COLOUR=blue", NULL};
	char path[128], byte;
	int ready[2];
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		snprintf(path, sizeof(path), "%s/out", folder);
		if (chdir(folder) < 0 || dup2(open("/dev/null", O_RDONLY), 0) < 0 ||
			dup2(open(path, O_WRONLY | O_CREAT | O_APPEND, 0600), 1) < 0)
			_exit(1);
		close(2);
		if (dup2(ready[1], READY_FD) < 0)
			_exit(1);
		umask(027);
		execve("/proc/self/exe", (char *const *)argv, (char *const *)env);
		_exit(1);
	}
	close(ready[1]);
	/* Its end is closed by main(): the loader has files open before, as fd 2. */
	assert_int_equal(read(ready[0], &byte, 1), 0);
	close(ready[0]);
	return pid;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_describe(void **state)
{
	static const char *const argv[] = {"qemu-system-x86_64", "-m", "64", "-name",
		"web,process=x", "-uuid", UUID, "", NULL};
	cleanup_registration struct hf_registration reg = {0};
	const struct hf_manifest_guest *g = &reg.guest;
	struct hf_error e = {0};
	pid_t pid = start(argv);
	uint64_t bytes = 0;
	char path[128];

	if (hf_process_describe(pid, NULL, &reg, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(reg.pid, pid);
	assert_true(hf_registration_alive(&reg));
	assert_int_equal(g->n_argv, 8);
	for (size_t i = 0; i < 8; i++)
		assert_string_equal(g->argv[i], argv[i]);
	assert_string_equal(g->vmm, argv[0]);
	assert_int_equal(g->n_env, 2);
	assert_string_equal(g->env[1], "COLOUR=blue");
	assert_string_equal(g->cwd, folder);
	assert_string_equal(g->name, "web");
	assert_string_equal(g->uuid, UUID);
	assert_int_equal(g->uid, geteuid());
	assert_int_equal(g->gid, getegid());
	assert_int_equal(g->n_groups, getgroups(0, NULL));
	assert_int_equal(g->umask, 027);
	assert_int_equal(g->stdio[0].kind, HF_STDIO_NULL);
	assert_int_equal(g->stdio[1].kind, HF_STDIO_PATH);
	snprintf(path, sizeof(path), "%s/out", folder);
	assert_string_equal(g->stdio[1].path, path);
	assert_int_equal(g->stdio[1].open_flags, O_WRONLY | O_APPEND);
	assert_int_equal(g->stdio[2].kind, HF_STDIO_NONE);
	assert_int_equal(g->n_ram, 0);
	assert_null(g->qmp_path);
	assert_int_equal(hf_process_touched_bytes(pid, &bytes), 0);
	assert_true(bytes > 0);
	stop(pid);
	assert_false(hf_registration_alive(&reg));
}

static void test_names(void **state)
{
	static const char *const argv[] = {"qemu-system-x86_64", "-m", "64", NULL};
	struct hf_registration reg = {0};
	struct hf_error e = {0};
	pid_t pid = start(argv);

	assert_int_equal(hf_process_describe(pid, "mine", &reg, &e), 0);
	assert_string_equal(reg.guest.name, "mine");
	hf_registration_clear(&reg);
	assert_int_equal(hf_process_describe(pid, NULL, &reg, &e), 0);
	assert_memory_equal(reg.guest.name, reg.guest.uuid, 8);
	hf_registration_clear(&reg);
	assert_int_equal(hf_process_describe(pid, "a/b", &reg, &e), -EINVAL);
	assert_non_null(strstr(e.remedy, "--name"));
	hf_registration_clear(&reg);
	stop(pid);
	assert_int_equal(hf_process_describe(pid, NULL, &reg, &e), -ESRCH);
	assert_string_equal(e.name, HF_ERR_NO_GUEST);
	hf_registration_clear(&reg);
}

/* It isn't what it was started as any more. */
static void test_changed(void **state)
{
	static const char *const rows[][2] = {
		{"-runas", "nobody"}, {"-chroot", "/var/empty"}, {"-run-with", "user=nobody"}};

	for (size_t i = 0; i < 3; i++) {
		const char *const argv[] = {"qemu-system-x86_64", rows[i][0], rows[i][1], NULL};
		struct hf_registration reg = {0};
		struct hf_error e = {0};
		pid_t pid = start(argv);

		assert_int_equal(hf_process_describe(pid, NULL, &reg, &e), -EOPNOTSUPP);
		assert_non_null(strstr(e.message, rows[i][0]));
		assert_true(e.remedy[0]);
		hf_registration_clear(&reg);
		stop(pid);
	}
}

static void test_memory(void **state)
{
	uint64_t bytes = 0;

	assert_int_equal(hf_host_available_bytes(&bytes), 0);
	assert_true(bytes > 1 << 20);
	assert_int_equal(hf_process_touched_bytes(getpid(), &bytes), 0);
	assert_true(bytes > 65536);
	assert_true(hf_process_touched_bytes(-1, &bytes) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_describe),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_changed),
		cmocka_unit_test(test_memory),
	};
	char path[128];
	int r;

	if (getenv("HF_TEST_WAIT")) {
		close(READY_FD);
		pause();
		return 0;
	}
	if (!mkdtemp(folder))
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	snprintf(path, sizeof(path), "%s/out", folder);
	unlink(path);
	rmdir(folder);
	return r;
}
