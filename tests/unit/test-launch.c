/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast-vmm from outside, with real QEMUs behind it.
 *
 * $HOLDFAST_TEST_QEMU names one; else it is the machine's own and those that the test setup has put
 * into its cache. Without any, the tests that need one are skipped. Guests have no vCPU running
 * (-S) and no kernel. The launcher is the one built beside this program.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/fd.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/registration.h"

#define UUID "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"
#define MAX_ARGS 64
#define MAX_QEMUS 8
#define WAIT_MS 60000

static char folder[64], run[96], out_path[96], waiter[96], launcher[PATH_MAX];
static char *qemus[MAX_QEMUS];
static size_t n_qemus;

/* ---- running it ---- */

/* A command line: words parted by spaces; `@` stands for the launcher, `%` for one that waits. */
static void split(char *text, char **argv)
{
	size_t n = 0;

	for (char *s = strtok(text, " "); s; s = strtok(NULL, " ")) {
		assert_true(n < MAX_ARGS);
		argv[n++] = strcmp(s, "@") == 0 ? launcher : strcmp(s, "%") == 0 ? waiter : s;
	}
	argv[n] = NULL;
}

/* Starts it with stdout and stderr in a file, and stdin at @in (-1: /dev/null). */
static pid_t start(const char *line, int in)
{
	cleanup_free char *text = strdup(line);
	char *argv[MAX_ARGS + 1];
	pid_t pid;

	split(text, argv);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int out = open(out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (in < 0)
			in = open("/dev/null", O_RDONLY);
		dup2(in, 0);
		dup2(out, 1);
		dup2(out, 2);
		close(in);
		close(out);
		execv(argv[0], argv);
		_exit(126);
	}
	return pid;
}

static int wait_exit(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run_line(const char *line)
{
	return wait_exit(start(line, -1));
}

/* What the last one wrote. Valid until the next call. */
static char *output(void)
{
	static char text[1 << 16];
	FILE *f = fopen(out_path, "re");

	assert_non_null(f);
	text[fread(text, 1, sizeof(text) - 1, f)] = 0;
	fclose(f);
	return text;
}

static void expect_output(const char *part)
{
	char *text = output();

	if (!strstr(text, part))
		fail_msg("no \"%s\" in: %s", part, text);
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
}

/* The guest's entry, once it is there. */
static void wait_registered(pid_t pid, struct hf_registration *reg)
{
	char path[PATH_MAX];

	assert_int_equal(hf_registration_path(UUID, path, sizeof(path)), 0);
	for (int i = 0; i < WAIT_MS / 10; i++) {
		if (hf_registration_read(path, reg, NULL) == 0)
			return;
		if (waitpid(pid, &(int){0}, WNOHANG) == pid)
			fail_msg("it ended: %s", output());
		nap();
	}
	fail_msg("not registered: %s", output());
}

static void wait_monitor(pid_t pid, const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char greeting[8] = "";

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	for (int i = 0; i < WAIT_MS / 10; i++) {
		if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
			assert_int_equal(read(fd, greeting, 7), 7);
			assert_string_equal(greeting, "{\"QMP\":");
			return;
		}
		if (waitpid(pid, &(int){0}, WNOHANG) == pid)
			fail_msg("it ended: %s", output());
		nap();
	}
	fail_msg("no monitor at %s: %s", path, output());
}

/* ---- the launcher's own command line ---- */

static void test_usage(void **state)
{
	assert_int_equal(run_line("@ --help"), 0);
	expect_output("Usage: holdfast-vmm");
	assert_int_equal(run_line("@ --version"), 0);
	expect_output("holdfast-vmm " HF_VERSION "\n");
	assert_int_equal(run_line("@"), 2);
	expect_output("command line is missing");
	assert_int_equal(run_line("@ --name x --"), 2);
	assert_int_equal(run_line("@ --frobnicate -- /bin/true"), 2);
	expect_output("Usage");
	assert_int_equal(run_line("@ --policy adopt -- /bin/true"), 2);
	expect_output("--policy: `adopt` is no setting (KEY=VALUE, such as not-eligible=refuse)");
	assert_int_equal(run_line("@ --policy not-elligible=adopt -- /bin/true"), 2);
	expect_output("did you mean `not-eligible`?");
	assert_int_equal(run_line("@ --policy not-eligible=kill -- /bin/true"), 2);
	expect_output(
		"`kill` is no value of not-eligible (refuse, adopt, shutdown or managed-save)");
	assert_int_equal(run_line("@ --policy priority=3 --policy priority=4 -- /bin/true"), 2);
	expect_output("priority is given twice");
	assert_int_equal(run_line("@ --uuid 12 -- /bin/true"), 2);
	expect_output("not a UUID");
	assert_int_equal(run_line("@ --name a/b -- /bin/true"), 2);
	expect_output("name");
	assert_int_equal(run_line("@ --policy not-eligible=refuse --policy save-timeout=5s --name "
				  "x -- /bin/true"),
		0);
}

static void test_no_program(void **state)
{
	char path[PATH_MAX];

	assert_int_equal(run_line("@ --uuid " UUID " -- /nonexistent/qemu -m 1"), 127);
	expect_output("can't execute /nonexistent/qemu");
	assert_int_equal(hf_registration_path(UUID, path, sizeof(path)), 0);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(run_line("@ -- surely-no-qemu-of-this-name"), 127);
}

/* Probes go through as they are: nothing added, nothing registered. */
static void test_probe(void **state)
{
	struct hf_registration *list;
	size_t n;

	assert_int_equal(run_line("@ -- /bin/echo -machine none -m 64"), 0);
	expect_output("-machine none -m 64\n");
	assert_int_equal(run_line("@ /bin/echo -device help"), 0);
	expect_output("-device help\n");
	assert_int_equal(hf_registration_list(&list, &n, NULL), 0);
	assert_int_equal(n, 0);
	hf_registration_list_free(list, n);
}

/* What can't be preserved starts untouched, with one warning and an entry that says why. What could
 * be moved gets a monitor, and nothing else. */
static void test_ineligible(void **state)
{
	static const struct {
		const char *args, *reason;
		bool monitor;
	} rows[] = {
		{"-daemonize", "process id", false},
		{"-device vfio-pci,host=01:00.0", "passed through", false},
		{"-object memory-backend-memfd,id=m,size=1M,hugetlb=on", "hugetlb", true},
		{"-m 64 -mem-path /dev/hugepages", "-mem-path", true},
		{"-m 64 -mem-path /dev/hugepages -daemonize", "-mem-path", false},
		{"-netdev tap,id=n,fd=7", "file descriptor", false},
		{"-incoming defer", "-incoming", false},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		cleanup_registration struct hf_registration reg = {0};
		char line[512], path[PATH_MAX], *text, *newline;

		snprintf(line, sizeof(line), "@ --uuid " UUID " --name g -- /bin/echo %s",
			rows[i].args);
		assert_int_equal(run_line(line), 0);
		text = output();
		newline = strchr(text, '\n');
		assert_non_null(newline);
		*newline = 0;
		if (!strstr(text, rows[i].reason) || !strstr(text, "guest g "))
			fail_msg("warning: %s", text);
		snprintf(line, sizeof(line), "%s%s", rows[i].args,
			rows[i].monitor ? " -monitor vc -qmp unix:" : "\n");
		assert_memory_equal(newline + 1, line, strlen(line));
		assert_true(rows[i].monitor || !newline[1 + strlen(line)]);
		hf_registration_path(UUID, path, sizeof(path));
		assert_int_equal(hf_registration_read(path, &reg, NULL), 0);
		assert_non_null(strstr(reg.reason, rows[i].reason));
		assert_true(reg.remedy[0]);
		assert_int_equal(reg.guest.n_ram, 0);
		assert_int_equal(!reg.guest.qmp_path, !rows[i].monitor);
	}
	assert_int_equal(hf_registration_remove(UUID), 0);
}

/* One that is to be shut down for an update gets a monitor to be asked over, and that is all. */
static void test_ineligible_gets_a_monitor(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	char path[PATH_MAX], *line;

	assert_int_equal(run_line("@ --uuid " UUID " --policy not-eligible=shutdown --policy "
				  "priority=3 -- /bin/echo -m 64 -netdev tap,id=n,fd=7"),
		0);
	line = strchr(output(), '\n');
	assert_non_null(line);
	assert_non_null(strstr(line, "\n-m 64 -netdev tap,id=n,fd=7 "));
	assert_non_null(strstr(line, " -qmp unix:"));
	assert_null(strstr(line, "memory-backend"));
	hf_registration_path(UUID, path, sizeof(path));
	assert_int_equal(hf_registration_read(path, &reg, NULL), 0);
	assert_non_null(strstr(reg.reason, "file descriptor"));
	assert_int_equal(reg.guest.n_ram, 0);
	assert_non_null(reg.guest.qmp_path);
	assert_string_equal(reg.guest.policy, "shutdown");
	assert_int_equal(reg.guest.n_settings, 2);
	assert_string_equal(reg.guest.settings[1], "priority=3");
	assert_int_equal(hf_registration_remove(UUID), 0);
}

/* No runtime folder, and none can be made: one warning, and QEMU as the user wanted it. */
static void test_no_folder(void **state)
{
	static const char *const dirs[] = {"/proc/nonexistent/holdfast",
		/* Too long for a socket's address. */
		"/tmp/"
		"holdfast-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	char *text, *newline;

	for (size_t i = 0; i < HF_ARRAY_SIZE(dirs); i++) {
		setenv("HOLDFAST_RUN_DIR", dirs[i], 1);
		assert_int_equal(run_line("@ -- /bin/echo -m 64"), 0);
		setenv("HOLDFAST_RUN_DIR", run, 1);
		text = output();
		newline = strchr(text, '\n');
		assert_non_null(newline);
		assert_non_null(strstr(text, "no live update will know it"));
		assert_string_equal(newline + 1, "-m 64\n");
		assert_int_equal(access(dirs[i], F_OK), -1);
	}
}

static void test_same_uuid(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	pid_t pid = start("@ --uuid " UUID " --name first -- %", -1);

	wait_registered(pid, &reg);
	assert_int_equal(reg.pid, pid);
	assert_int_equal(run_line("@ --uuid " UUID " --name second -- /bin/true"), 1);
	expect_output("guest first");
	/* The entry is still the first one's. */
	assert_true(hf_registration_alive(&reg));
	kill(pid, SIGKILL);
	wait_exit(pid);
	assert_int_equal(run_line("@ --uuid " UUID " --name second -- /bin/true"), 0);
	assert_int_equal(hf_registration_remove(UUID), 0);
}

static void test_identity(void **state)
{
	cleanup_registration struct hf_registration reg = {0};
	struct hf_registration *list;
	char path[PATH_MAX];
	size_t n;
	pid_t pid;

	/* QEMU's own -name and -uuid; a file as stdout; bytes that are no text. */
	setenv("HF_TEST_ODD", "\xff\x01", 1);
	assert_int_equal(run_line("@ -- /bin/true -name guest=web1,debug-threads=on -uuid "
				  "0E7A3AD2-0D1C-4A3E-9D4F-0123456789AB"),
		0);
	unsetenv("HF_TEST_ODD");
	hf_registration_path(UUID, path, sizeof(path));
	assert_int_equal(hf_registration_read(path, &reg, NULL), 0);
	assert_string_equal(reg.guest.name, "web1");
	assert_string_equal(reg.guest.vmm, "/bin/true");
	assert_int_equal(reg.guest.n_argv, 5);
	assert_string_equal(reg.guest.argv[1], "-name");
	assert_int_equal(reg.guest.uid, geteuid());
	assert_int_equal(reg.guest.stdio[0].kind, HF_STDIO_NULL);
	assert_int_equal(reg.guest.stdio[1].kind, HF_STDIO_PATH);
	assert_string_equal(reg.guest.stdio[1].path, out_path);
	n = 0;
	for (size_t i = 0; i < reg.guest.n_env; i++)
		n += strcmp(reg.guest.env[i], "HF_TEST_ODD=\xff\x01") == 0;
	assert_int_equal(n, 1);
	assert_int_equal(hf_registration_remove(UUID), 0);

	/* Without any, it gets one of its own. */
	pid = start("@ -- %", -1);
	for (int i = 0; i < WAIT_MS / 10; i++) {
		assert_int_equal(hf_registration_list(&list, &n, NULL), 0);
		if (n)
			break;
		hf_registration_list_free(list, n);
		nap();
	}
	assert_int_equal(n, 1);
	assert_int_equal(strlen(list[0].guest.name), 8);
	assert_memory_equal(list[0].guest.name, list[0].guest.uuid, 8);
	assert_int_equal(list[0].guest.uuid[14], '4');
	hf_registration_list_free(list, n);
	kill(pid, SIGKILL);
	wait_exit(pid);
}

/* ---- with QEMU ---- */

static void skip_without_qemu(void)
{
	if (!n_qemus) {
		print_message("no QEMU on this machine\n");
		skip();
	}
}

/* Is @inode mapped writable and shared in the process? */
static bool is_mapped(pid_t pid, const struct hf_inode *inode)
{
	char path[64], line[4096], perms[8];
	unsigned long long ino;
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	f = fopen(path, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %7s %*s %*s %llu", perms, &ino) == 2 && ino == inode->ino &&
			strcmp(perms, "rw-s") == 0)
			found = true;
	fclose(f);
	return found;
}

/* The process stays, its RAM is the memfds that the entry names, its monitor answers. */
static void check_guest(const char *qemu, const char *args, size_t n_ram)
{
	cleanup_registration struct hf_registration reg = {0};
	int fds[HF_MANIFEST_MAX_RAM];
	struct hf_error e = {0};
	char line[1024];
	pid_t pid;

	snprintf(line, sizeof(line),
		"@ --uuid " UUID " --name web1 -- %s -S -accel tcg "
		"-display none -nodefaults %s",
		qemu, args);
	pid = start(line, -1);
	wait_registered(pid, &reg);
	assert_string_equal(reg.reason, "");
	wait_monitor(pid, reg.guest.qmp_path);
	assert_int_equal(reg.pid, pid);
	assert_true(hf_registration_alive(&reg));
	assert_int_equal(reg.guest.n_ram, n_ram);
	if (hf_registration_open_ram(&reg, fds, &e) < 0)
		fail_msg("%s", e.message);
	for (size_t i = 0; i < n_ram; i++) {
		if (!is_mapped(pid, &reg.ram_inodes[i]))
			fail_msg(
				"%s %s: RAM %s is somewhere else", qemu, args, reg.guest.ram[i].id);
		close(fds[i]);
	}
	kill(pid, SIGKILL);
	wait_exit(pid);
	assert_int_equal(hf_registration_remove(UUID), 0);
}

static void test_guests(void **state)
{
	skip_without_qemu();
	for (size_t i = 0; i < n_qemus; i++) {
		check_guest(qemus[i], "-m 64", 1);
		check_guest(qemus[i],
			"-M q35 -m 128M -smp 2 -object memory-backend-ram,id=a,size=64M "
			"-object memory-backend-memfd,id=b,size=64M -numa node,memdev=a "
			"-numa node,nodeid=1,memdev=b",
			2);
	}
}

/* All RAM blocks, as QEMU's own monitor lists them: names and sizes, sorted. */
static void list_blocks(const char *line, char *out, size_t size)
{
	char *names[64], *text, *save = NULL;
	size_t n = 0, used = 0;
	int in[2];
	pid_t pid;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	pid = start(line, in[0]);
	close(in[0]);
	assert_int_equal(write(in[1], "info ramblock\nquit\n", 19), 19);
	close(in[1]);
	if (wait_exit(pid) != 0)
		fail_msg("%s: %s", line, output());
	text = output();
	for (char *s = strtok_r(text, "\r\n", &save); s; s = strtok_r(NULL, "\r\n", &save)) {
		char name[128], page[32], unit[16];
		unsigned long long offset, used_bytes;

		if (sscanf(s, "%127s %31s %15s 0x%llx 0x%llx", name, page, unit, &offset,
			    &used_bytes) == 5) {
			assert_true(n < HF_ARRAY_SIZE(names));
			assert_true(asprintf(&names[n++], "%s:%llx", name, used_bytes) > 0);
		}
	}
	out[0] = 0;
	for (size_t i = 0; i < n; i++)
		for (size_t k = i + 1; k < n; k++)
			if (strcmp(names[k], names[i]) < 0) {
				char *t = names[i];

				names[i] = names[k];
				names[k] = t;
			}
	for (size_t i = 0; i < n; i++) {
		used += snprintf(out + used, size - used, "%s ", names[i]);
		free(names[i]);
	}
	assert_true(n > 0);
}

/* Is this machine type one of the QEMU's? */
static bool has_machine(const char *qemu, const char *type)
{
	char line[512];

	snprintf(line, sizeof(line), "%s -machine help", qemu);
	assert_int_equal(run_line(line), 0);
	return strstr(output(), type);
}

static void test_same_blocks(void **state)
{
	static const struct {
		const char *args;
		const char *machine; /* skipped by a QEMU that hasn't got it */
	} rows[] = {
		{"", NULL},
		{"-m 96.5M -vga std", NULL},
		{"-M q35 -m size=64M,slots=2,maxmem=1G", NULL},
		{"-M microvm -m 64", NULL},
		{"-M isapc -cpu 486 -m 64", "isapc"},
		{"-m 64M -object memory-backend-memfd,id=m0,size=64M,seal=off -M memory-backend=m0",
			NULL},
		{"-m 64M -mem-prealloc -object "
		 "{\"qom-type\":\"memory-backend-ram\",\"id\":\"m0\",\"size\":67108864} "
		 "-M memory-backend=m0",
			NULL},
		{"-m 64M,slots=2,maxmem=1G -object "
		 "memory-backend-ram,id=d0,size=128M,host-nodes=0,policy=preferred "
		 "-device pc-dimm,memdev=d0",
			NULL},
		/* These name a file's block after its path, if they aren't told otherwise. */
		{"-m 64M -M pc-i440fx-3.1", "pc-i440fx-3.1"},
		{"-m 64M -object memory-backend-ram,id=m0,size=64M -M "
		 "pc-i440fx-3.1,memory-backend=m0",
			"pc-i440fx-3.1"},
		{"-m 64M -object memory-backend-memfd,id=m0,size=64M -M "
		 "pc-i440fx-3.1,memory-backend=m0",
			"pc-i440fx-3.1"},
		{"-m 64 -smp 2 -M pc-i440fx-4.0 -numa node,mem=32M -numa node,mem=32M",
			"pc-i440fx-4.0"},
	};

	skip_without_qemu();
	for (size_t q = 0; q < n_qemus; q++)
		for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
			char plain[512], line[1024], one[2048], two[2048];

			if (rows[i].machine && !has_machine(qemus[q], rows[i].machine))
				continue;
			snprintf(plain, sizeof(plain),
				"%s -S -accel tcg -display none -nodefaults -monitor stdio %s",
				qemus[q], rows[i].args);
			snprintf(line, sizeof(line), "@ --uuid " UUID " -- %s", plain);
			list_blocks(plain, one, sizeof(one));
			list_blocks(line, two, sizeof(two));
			if (strcmp(one, two) != 0)
				fail_msg("%s:\n  alone %s\n  launched %s", plain, one, two);
		}
	assert_int_equal(hf_registration_remove(UUID), 0);
}

/* What was in the memfd before is still there when a new QEMU waits on it to be loaded. */
static void test_respawn_keeps_ram(void **state)
{
	static const char mark[] = "still here";
	const off_t at = 5 << 20;

	skip_without_qemu();
	for (size_t q = 0; q < n_qemus; q++) {
		const char *user[] = {qemus[q], "-S", "-accel", "tcg", "-display", "none",
			"-nodefaults", "-m", "32", "-mem-prealloc", "-machine", "q35"};
		cleanup_cmdline struct hf_cmdline *plan = NULL;
		cleanup_close int fd = -EBADF;
		struct hf_inode inode;
		char **argv, path[128], got[sizeof(mark)];
		pid_t pid;

		snprintf(path, sizeof(path), "%s/respawn.sock", run);
		assert_int_equal(hf_cmdline_parse(user, HF_ARRAY_SIZE(user), &plan, NULL), 0);
		assert_int_equal(hf_memfd_new("test", plan->ram[0].size, &fd), 0);
		assert_int_equal(pwrite(fd, mark, sizeof(mark), at), sizeof(mark));
		assert_int_equal(hf_fd_inode(fd, &inode, NULL), 0);
		assert_int_equal(hf_cmdline_build(plan,
					 &(struct hf_cmdline_how){.ram_fds = &fd,
						 .qmp_path = path,
						 .respawn = true,
						 .machine_type = "pc-i440fx-7.2"},
					 &argv, NULL, NULL),
			0);
		pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			hf_fd_cloexec(fd, false);
			execv(argv[0], argv);
			_exit(126);
		}
		wait_monitor(pid, path);
		assert_true(is_mapped(pid, &inode));
		assert_int_equal(pread(fd, got, sizeof(got), at), sizeof(got));
		assert_string_equal(got, mark);
		kill(pid, SIGKILL);
		wait_exit(pid);
		unlink(path);
		free(argv);
	}
}

/* ---- frame ---- */

/* A program that takes any arguments and stays. */
static bool write_waiter(void)
{
	static const char script[] = "#!/bin/sh\nexec sleep 60\n";

	snprintf(waiter, sizeof(waiter), "%s/wait", folder);
	return hf_file_write_atomic(waiter, script, sizeof(script) - 1, 0700) == 0;
}

static void find_qemus(void)
{
	const char *only = getenv("HOLDFAST_TEST_QEMU"), *cache = getenv("HOLDFAST_CACHE");
	const char *home = getenv("HOME");
	char pattern[256];
	glob_t g = {0};

	if (only) {
		qemus[n_qemus++] = strdup(only);
		return;
	}
	if (access("/usr/bin/qemu-system-x86_64", X_OK) == 0)
		qemus[n_qemus++] = strdup("/usr/bin/qemu-system-x86_64");
	snprintf(pattern, sizeof(pattern), "%s%s/qemu/*/qemu-system-x86_64",
		cache ? cache : (home ? home : ""), cache ? "" : "/.cache/holdfast");
	if (glob(pattern, 0, NULL, &g) == 0)
		for (size_t i = 0; i < g.gl_pathc && n_qemus < MAX_QEMUS; i++)
			qemus[n_qemus++] = strdup(g.gl_pathv[i]);
	globfree(&g);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_no_program),
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_ineligible),
		cmocka_unit_test(test_ineligible_gets_a_monitor),
		cmocka_unit_test(test_no_folder),
		cmocka_unit_test(test_same_uuid),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_guests),
		cmocka_unit_test(test_same_blocks),
		cmocka_unit_test(test_respawn_keeps_ram),
	};
	char self[PATH_MAX], command[128];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int r;

	if (n <= 0)
		return 1;
	self[n] = 0;
	for (int i = 0; i < 2; i++)
		*strrchr(self, '/') = 0;
	snprintf(launcher, sizeof(launcher), "%.4000s/holdfast-vmm", self);
	strcpy(folder, "/tmp/hf-test-launch.XXXXXX");
	if (!mkdtemp(folder))
		return 1;
	snprintf(run, sizeof(run), "%s/run,1", folder);
	snprintf(out_path, sizeof(out_path), "%s/out", folder);
	if (!write_waiter())
		return 1;
	setenv("HOLDFAST_RUN_DIR", run, 1);
	signal(SIGPIPE, SIG_IGN);
	find_qemus();
	r = cmocka_run_group_tests(tests, NULL, NULL);
	for (size_t i = 0; i < n_qemus; i++)
		free(qemus[i]);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) == 0 ? r : 1;
}
