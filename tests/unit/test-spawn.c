/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a process that hf_spawn() starts finds around it, and how its end is told.
 *
 * All of it twice: started by this process, and by a spawner (spawner.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/fd.h"
#include "vmm-glue/limits.h"
#include "vmm-glue/spawn-internal.h"
#include "vmm-glue/spawner.h"

#define DIR_TEMPLATE "/tmp/hf-spawn.XXXXXX"
static char dir[] = DIR_TEMPLATE;
static char spawner_path[sizeof(dir) + 8];
static pid_t spawner;
static sd_event *event;

static char *const plain_env[] = {(char *)"PATH=/usr/bin:/bin", (char *)"A=b c", NULL};

static void on_exit_child(struct hf_child *child, void *data)
{
	assert_true(hf_child_exited(child));
	(*(unsigned int *)data)++;
}

static char missed[256]; /* what the last one that ran could not be given */

/* Runs a shell script to its end and reads what it wrote to its log. */
static void run(struct hf_spawn_spec *spec, const char *script, char *buf, size_t size)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
	cleanup_free char *text = NULL;
	struct hf_child *child = NULL;
	struct hf_error e = {0};
	unsigned int n_exits = 0;
	char log[128];

	snprintf(log, sizeof(log), "%s/log", dir);
	unlink(log);
	spec->program = "sh";
	spec->argv = argv;
	if (!spec->envp)
		spec->envp = plain_env;
	spec->log_path = log;
	if (hf_spawn(event, spec, on_exit_child, &n_exits, &child, &e) < 0)
		fail_msg("%s", e.message);
	assert_true(hf_child_pid(child) > 0);
	while (n_exits == 0)
		sd_event_run(event, UINT64_MAX);
	hf_child_missed(child, missed, sizeof(missed));
	hf_child_release(child);
	assert_int_equal(hf_file_read(log, 65536, &text, NULL), 0);
	snprintf(buf, size, "%s", text);
}

static struct hf_spawn_spec spec_of_me(void)
{
	return (struct hf_spawn_spec){.uid = geteuid(), .gid = getegid(), .umask = 027};
}

static void test_surroundings(void **state)
{
	struct hf_spawn_spec spec = spec_of_me();
	char text[4096], want[512];

	spec.cwd = dir;
	run(&spec, "pwd; umask; echo \"$A\"; env | grep -c '='; id -u", text, sizeof(text));
	/* PATH, A, and the shell's own PWD, OLDPWD or _ at most. */
	snprintf(want, sizeof(want), "%s\n0027\nb c\n", dir);
	assert_int_equal(strncmp(text, want, strlen(want)), 0);
	assert_true(atoi(text + strlen(want)) <= 5);
	spec.cwd = NULL;
	run(&spec, "pwd", text, sizeof(text));
	assert_string_equal(text, "/\n");
}

static void test_session(void **state)
{
	struct hf_spawn_spec spec = spec_of_me();
	char text[256];
	int pid, session;

	run(&spec, "echo $$ $(cut -d' ' -f6 /proc/$$/stat)", text, sizeof(text));
	assert_int_equal(sscanf(text, "%d %d", &pid, &session), 2);
	assert_int_equal(pid, session);
	assert_int_not_equal(session, getsid(0));
}

/* Ignored and blocked signals would both pass through execve(). */
static void test_signals(void **state)
{
	struct hf_spawn_spec spec = spec_of_me();
	unsigned long long blocked, ignored;
	sigset_t some, old;
	char text[512];

	signal(SIGPIPE, SIG_IGN);
	signal(SIGUSR1, SIG_IGN);
	sigemptyset(&some);
	sigaddset(&some, SIGTERM);
	sigprocmask(SIG_BLOCK, &some, &old);
	run(&spec, "grep -E 'SigBlk|SigIgn' /proc/self/status", text, sizeof(text));
	assert_int_equal(sscanf(text, "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2);
	assert_int_equal(blocked, 0);
	/* 32 and 33 are the C library's own: sigaction() leaves them, make ignores them. */
	assert_int_equal(ignored & ~(3ULL << 31), 0);
	/* And nothing changed here. */
	assert_ptr_equal(signal(SIGUSR1, SIG_DFL), SIG_IGN);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, &old, &some);
	assert_int_equal(sigismember(&some, SIGTERM), 1);
	assert_int_equal(sigismember(&some, SIGINT), 0);
}

/* Descriptors arrive under their numbers, whatever theirs are here, and no others do. */
static void test_descriptors(void **state)
{
	struct hf_spawn_spec spec = spec_of_me();
	struct hf_spawn_fd fds[3];
	char text[1024], path[128];
	int stray;

	for (int i = 0; i < 3; i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/f%d", dir, i);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		fds[i] = (struct hf_spawn_fd){.fd = fd};
	}
	stray = open("/dev/null", O_RDONLY); /* not even close-on-exec */
	/* Each one's number here is another one's there. */
	fds[0].number = fds[1].fd;
	fds[1].number = fds[2].fd;
	fds[2].number = fds[2].fd + 4;
	spec.fds = fds;
	spec.n_fds = 3;
	run(&spec, "for f in /proc/$$/fd/*; do echo ${f##*/} $(readlink $f); done", text,
		sizeof(text));
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "\n%d %s/f%d\n", fds[i].number, dir, i);
		assert_non_null(strstr(text, path));
		close(fds[i].fd);
	}
	/* 0, 1, 2, the three, and the shell's own copies (dash: 10) at most. */
	snprintf(path, sizeof(path), "\n%d /dev/null\n", stray);
	assert_null(strstr(text, path));
	close(stray);
}

static void test_bad_numbers(void **state)
{
	char *argv[] = {(char *)"true", NULL};
	struct hf_spawn_fd fds[2] = {{.fd = 0, .number = 4}, {.fd = 0, .number = 4}};
	struct hf_spawn_spec spec = spec_of_me();
	struct hf_child *child;
	struct hf_error e = {0};

	spec.program = "true";
	spec.argv = argv;
	spec.envp = plain_env;
	spec.fds = fds;
	spec.n_fds = 2;
	assert_int_equal(hf_spawn(event, &spec, NULL, NULL, &child, &e), -EINVAL);
	fds[0].number = 2;
	assert_int_equal(hf_spawn(event, &spec, NULL, NULL, &child, &e), -EINVAL);
}

static void test_standard_streams(void **state)
{
	struct hf_spawn_spec spec = spec_of_me();
	cleanup_free char *out = NULL;
	char in_path[128], out_path[128], text[1024];

	snprintf(in_path, sizeof(in_path), "%s/in", dir);
	snprintf(out_path, sizeof(out_path), "%s/out", dir);
	assert_int_equal(hf_file_write_atomic(in_path, "question\n", 9, 0600), 0);
	assert_int_equal(hf_file_write_atomic(out_path, "before\n", 7, 0600), 0);
	spec.stdio[0] = in_path;
	spec.stdio[1] = out_path;
	run(&spec, "read x; echo \"got $x\"; echo problem >&2", text, sizeof(text));
	assert_string_equal(text, "problem\n");
	assert_int_equal(hf_file_read(out_path, 1024, &out, NULL), 0);
	assert_string_equal(out, "before\ngot question\n");
	/* One that can't be opened gives way to the log; no stdin is an empty one. */
	spec.stdio[0] = NULL;
	spec.stdio[1] = "/nonexistent/out";
	run(&spec, "read x || echo end", text, sizeof(text));
	assert_string_equal(text, "end\n");
}

static void test_user(void **state)
{
	static const gid_t groups[] = {2, 3};
	struct hf_spawn_spec spec = spec_of_me();
	char *argv[] = {(char *)"true", NULL};
	struct hf_child *child;
	struct hf_error e = {0};
	char text[256];

	spec.uid = 65534;
	spec.gid = 65533;
	if (geteuid() != 0) {
		spec.program = "true";
		spec.argv = argv;
		spec.envp = plain_env;
		assert_int_equal(hf_spawn(event, &spec, NULL, NULL, &child, &e), -EPERM);
		return;
	}
	spec.groups = groups;
	spec.n_groups = 2;
	run(&spec, "grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status", text, sizeof(text));
	assert_string_equal(text,
		"Uid:\t65534\t65534\t65534\t65534\nGid:\t65533\t65533\t65533\t65533\n"
		"Groups:\t2 3 \nCapEff:\t0000000000000000\n");
	assert_int_equal(geteuid(), 0);
}

/* A limit as /proc/PID/limits writes it. */
static uint64_t parse_limit(char **text)
{
	uint64_t v = UINT64_MAX;

	*text += strspn(*text, " ");
	if (strncmp(*text, "unlimited", 9) == 0)
		*text += 9;
	else
		v = strtoull(*text, text, 10);
	return v;
}

/* The kernel lists them in the order of their numbers, in columns. */
static void read_limits(char *text, uint64_t limits[static 2 * RLIM_NLIMITS])
{
	assert_int_equal(strncmp(text, "Limit ", 6), 0);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		text = strchr(text, '\n') + 1;
		assert_true(strlen(text) > 26);
		text += 26;
		limits[2 * i] = parse_limit(&text);
		limits[2 * i + 1] = parse_limit(&text);
	}
}

/* Lower than here, each in its own way: that is everybody's right. */
static void lower_limits(uint64_t limits[static 2 * RLIM_NLIMITS])
{
	static const uint64_t low[RLIM_NLIMITS] = {
		[RLIMIT_CPU] = 1000,
		[RLIMIT_FSIZE] = 1 << 20,
		[RLIMIT_DATA] = 1 << 30,
		[RLIMIT_STACK] = 4 << 20,
		[RLIMIT_CORE] = 4096,
		[RLIMIT_RSS] = 1 << 29,
		[RLIMIT_NPROC] = 5000,
		[RLIMIT_NOFILE] = 12,
		[RLIMIT_MEMLOCK] = 16384,
		[RLIMIT_AS] = 2u << 30,
		[RLIMIT_LOCKS] = 99,
		[RLIMIT_SIGPENDING] = 88,
		[RLIMIT_MSGQUEUE] = 7777,
		[RLIMIT_RTTIME] = 9000000,
	};

	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit here;

		assert_int_equal(getrlimit(i, &here), 0);
		limits[2 * i + 1] = HF_MIN(low[i] + (uint64_t)i, here.rlim_max);
		limits[2 * i] = HF_MIN(low[i], limits[2 * i + 1]);
	}
}

static void clear_limits(struct hf_manifest_limits *l)
{
	free(l->rlimits);
	free(l->cpus);
}

/* All sixteen, although there are more descriptors open here than the new process may have. */
static void test_limits(void **state)
{
	uint64_t rlimits[2 * RLIM_NLIMITS], got[2 * RLIM_NLIMITS], mask = 0;
	struct hf_manifest_limits limits = {.rlimits = rlimits,
		.n_rlimits = 2 * RLIM_NLIMITS,
		.cpus = &mask,
		.n_cpus = 1,
		.nice = getpriority(PRIO_PROCESS, 0) + 3,
		.oom_score_adj = 777};
	struct hf_spawn_spec spec = spec_of_me();
	char text[4096], want[128];
	struct hf_manifest_limits before = {0}, after = {0};
	int open_fds[20], cpu = 0;
	cpu_set_t mine;

	assert_int_equal(sched_getaffinity(0, sizeof(mine), &mine), 0);
	while (!CPU_ISSET(cpu, &mine))
		cpu++;
	assert_true(cpu < 64);
	mask = 1ULL << cpu;
	lower_limits(rlimits);
	assert_int_equal(hf_limits_read(getpid(), &before, NULL), 0);
	for (size_t i = 0; i < HF_ARRAY_SIZE(open_fds); i++)
		open_fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	spec.limits = &limits;
	run(&spec,
		"cat /proc/self/limits /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; "
		"grep Cpus_allowed_list: /proc/self/status",
		text, sizeof(text));
	assert_string_equal(missed, "");
	read_limits(text, got);
	for (int i = 0; i < 2 * RLIM_NLIMITS; i++)
		if (got[i] != rlimits[i])
			fail_msg("limit %d is %lu, not %lu", i, got[i], rlimits[i]);
	snprintf(want, sizeof(want), "\n777\n%d\nCpus_allowed_list:\t%d\n", (int)limits.nice, cpu);
	if (!strstr(text, want))
		fail_msg("no %s in %s", want, text);
	/* And nothing changed here, with whom it shared its memory. */
	assert_int_equal(hf_limits_read(getpid(), &after, NULL), 0);
	assert_memory_equal(before.rlimits, after.rlimits, sizeof(rlimits));
	assert_int_equal(before.n_cpus, after.n_cpus);
	assert_memory_equal(before.cpus, after.cpus, before.n_cpus * sizeof(*before.cpus));
	assert_int_equal(before.nice, after.nice);
	assert_int_equal(before.oom_score_adj, after.oom_score_adj);
	clear_limits(&before);
	clear_limits(&after);
	for (size_t i = 0; i < HF_ARRAY_SIZE(open_fds); i++)
		close(open_fds[i]);
}

/* What isn't known stays as it is here. */
static void test_no_limits(void **state)
{
	struct hf_manifest_limits limits = {
		.nice = HF_MANIFEST_UNKNOWN, .oom_score_adj = HF_MANIFEST_UNKNOWN};
	struct hf_spawn_spec spec = spec_of_me();
	static const char script[] =
		"cat /proc/self/limits /proc/self/oom_score_adj; cut -d' ' -f19 /proc/self/stat; "
		"grep Cpus_allowed_list: /proc/self/status";
	char with[4096], without[4096];

	run(&spec, script, without, sizeof(without));
	spec.limits = &limits;
	run(&spec, script, with, sizeof(with));
	assert_string_equal(missed, "");
	assert_string_equal(with, without);
}

/* A hard limit above ours takes a right, and the new process must take it before it gives it up. */
static void test_higher_limits(void **state)
{
	struct rlimit old, low = {5000, 5000};
	uint64_t rlimits[2 * RLIM_NLIMITS], got[2 * RLIM_NLIMITS];
	struct hf_manifest_limits limits = {.rlimits = rlimits,
		.n_rlimits = 2 * RLIM_NLIMITS,
		.nice = HF_MANIFEST_UNKNOWN,
		.oom_score_adj = HF_MANIFEST_UNKNOWN};
	struct hf_spawn_spec spec = spec_of_me();
	char text[4096];
	bool may;

	getrlimit(RLIMIT_MSGQUEUE, &old);
	assert_int_equal(setrlimit(RLIMIT_MSGQUEUE, &low), 0);
	low = (struct rlimit){5000, 5001};
	may = setrlimit(RLIMIT_MSGQUEUE, &low) == 0;
	lower_limits(rlimits);
	rlimits[2 * RLIMIT_MSGQUEUE] = 6000;
	rlimits[2 * RLIMIT_MSGQUEUE + 1] = 7000;
	spec.limits = &limits;
	if (geteuid() == 0)
		spec.uid = spec.gid = 65534;
	run(&spec, "cat /proc/self/limits", text, sizeof(text));
	read_limits(text, got);
	if (may) {
		assert_string_equal(missed, "");
		assert_int_equal(got[2 * RLIMIT_MSGQUEUE], 6000);
		assert_int_equal(got[2 * RLIMIT_MSGQUEUE + 1], 7000);
		setrlimit(RLIMIT_MSGQUEUE, &old);
	} else {
		assert_string_equal(missed, "RLIMIT_MSGQUEUE: Operation not permitted");
		assert_int_equal(got[2 * RLIMIT_MSGQUEUE], 5000);
		assert_int_equal(got[2 * RLIMIT_MSGQUEUE + 1], 5000);
	}
	/* The others don't suffer for it. */
	assert_int_equal(got[2 * RLIMIT_NOFILE], 12);
	assert_int_equal(got[2 * RLIMIT_NOFILE + 1], 12 + RLIMIT_NOFILE);
}

/* What nobody can have is missed, said, and no reason not to start. */
static void test_impossible_limits(void **state)
{
	uint64_t rlimits[2 * RLIM_NLIMITS + 4], got[2 * RLIM_NLIMITS], cpus[2] = {0};
	struct hf_manifest_limits limits = {.rlimits = rlimits,
		.n_rlimits = HF_ARRAY_SIZE(rlimits), /* more than this kernel has: ignored */
		.cpus = cpus,
		.n_cpus = 2, /* none */
		.nice = HF_MANIFEST_UNKNOWN,
		.oom_score_adj = 1001};
	struct hf_spawn_spec spec = spec_of_me();
	struct rlimit here;
	char text[4096];

	memset(rlimits, 0xff, sizeof(rlimits));
	lower_limits(rlimits);
	/* More than fs.nr_open allows anybody. */
	rlimits[2 * RLIMIT_NOFILE] = rlimits[2 * RLIMIT_NOFILE + 1] = UINT64_MAX - 1;
	/* Soft above hard can't be; the hard one counts. */
	rlimits[2 * RLIMIT_CORE] = UINT64_MAX;
	getrlimit(RLIMIT_NOFILE, &here);
	spec.limits = &limits;
	run(&spec, "cat /proc/self/limits", text, sizeof(text));
	assert_string_equal(
		missed, "RLIMIT_NOFILE, oom_score_adj, the CPUs it may run on: Invalid argument");
	read_limits(text, got);
	assert_int_equal(got[2 * RLIMIT_NOFILE], here.rlim_max);
	assert_int_equal(got[2 * RLIMIT_NOFILE + 1], here.rlim_max);
	assert_int_equal(got[2 * RLIMIT_CORE], rlimits[2 * RLIMIT_CORE + 1]);
}

static void test_failures(void **state)
{
	char *argv[] = {(char *)"x", NULL};
	struct hf_spawn_spec spec = spec_of_me();
	struct hf_child *child = NULL;
	struct hf_error e = {0};
	char path[128];

	spec.argv = argv;
	spec.envp = plain_env;
	spec.program = "no-such-program-here";
	assert_int_equal(hf_spawn(event, &spec, NULL, NULL, &child, &e), -ENOENT);
	assert_non_null(strstr(e.message, "no-such-program-here"));
	snprintf(path, sizeof(path), "%s/script", dir);
	assert_int_equal(hf_file_write_atomic(path, "text", 4, 0700), 0);
	spec.program = path;
	assert_int_equal(hf_spawn(event, &spec, NULL, NULL, &child, &e), -ENOEXEC);
	spec.program = "/bin/true";
	spec.cwd = "/nonexistent";
	assert_int_equal(hf_spawn(event, &spec, NULL, NULL, &child, &e), -ENOENT);
	assert_non_null(strstr(e.message, "folder"));
	/* Nothing runs unconfined that was to be confined: neither without AppArmor nor without
	 * that profile. */
	spec.cwd = NULL;
	spec.apparmor = "libvirt-not-loaded";
	assert_int_equal(hf_spawn(event, &spec, NULL, NULL, &child, &e), -ENOENT);
	assert_non_null(strstr(e.message, "AppArmor"));
	assert_null(child);
}

static void describe(const char *script, char *buf, size_t size)
{
	char *argv[] = {(char *)"sh", (char *)"-c", (char *)script, NULL};
	struct hf_spawn_spec spec = spec_of_me();
	struct hf_child *child = NULL;
	struct hf_error e = {0};
	unsigned int n_exits = 0;
	char log[128];

	snprintf(log, sizeof(log), "%s/log2", dir);
	spec.program = "/bin/sh";
	spec.argv = argv;
	spec.envp = plain_env;
	spec.log_path = log;
	assert_int_equal(hf_spawn(event, &spec, on_exit_child, &n_exits, &child, &e), 0);
	while (n_exits == 0)
		sd_event_run(event, UINT64_MAX);
	hf_child_describe(child, buf, size);
	assert_int_equal(hf_child_kill(child), 0);
	hf_child_release(child);
}

static void test_last_words(void **state)
{
	char text[480], small[40];

	describe("echo one >&2; echo two >&2; exit 5", text, sizeof(text));
	assert_string_equal(text, "ended with status 5: one / two");
	/* Not what an earlier one said into the same file. */
	describe("exit 0", text, sizeof(text));
	assert_string_equal(text, "ended with status 0");
	describe("kill -9 $$", text, sizeof(text));
	assert_string_equal(text, "was killed by signal 9 (Killed)");
	describe("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; exit 1", text,
		sizeof(text));
	assert_non_null(strstr(text, "line 299"));
	describe("printf 'tab\\there\\033[0m\\n'; exit 1", text, sizeof(text));
	assert_string_equal(text, "ended with status 1: tab here [0m");
	describe("echo a very long line that can not fit into so little room; exit 1", small,
		sizeof(small));
	assert_true(strlen(small) < sizeof(small));
}

/* One that was let go of lives on, and leaves no zombie. */
static void test_release(void **state)
{
	char *argv[] = {(char *)"sleep", (char *)"0.1", NULL};
	struct hf_spawn_spec spec = spec_of_me();
	struct hf_child *child = NULL;
	struct hf_error e = {0};
	pid_t pid;

	spec.program = "sleep";
	spec.argv = argv;
	spec.envp = plain_env;
	assert_int_equal(hf_spawn(event, &spec, on_exit_child, NULL, &child, &e), 0);
	pid = hf_child_pid(child);
	hf_child_release(child);
	assert_int_equal(kill(pid, 0), 0);
	for (int i = 0; i < 100 && kill(pid, 0) == 0; i++)
		sd_event_run(event, 20000);
	assert_int_equal(kill(pid, 0), -1);
	hf_child_release(NULL);
}

static void test_watch(void **state)
{
	char *argv[] = {(char *)"sleep", (char *)"100", NULL};
	struct hf_spawn_spec spec = spec_of_me();
	struct hf_child *child = NULL, *watch = NULL;
	struct hf_error e = {0};
	unsigned int n_exits = 0, n_watched = 0;
	uint64_t ticks;
	char text[128];
	pid_t pid;

	spec.program = "sleep";
	spec.argv = argv;
	spec.envp = plain_env;
	assert_int_equal(hf_spawn(event, &spec, on_exit_child, &n_exits, &child, &e), 0);
	pid = hf_child_pid(child);
	assert_int_equal(hf_pid_start_time(pid, &ticks), 0);
	assert_int_equal(hf_child_watch(event, pid, ticks + 1, NULL, NULL, &watch), -ESTALE);
	assert_int_equal(hf_child_watch(event, pid, ticks, on_exit_child, &n_watched, &watch), 0);
	hf_child_describe(watch, text, sizeof(text));
	assert_string_equal(text, "still runs");
	assert_int_equal(hf_child_kill(watch), 0);
	while (n_exits == 0 || n_watched == 0)
		sd_event_run(event, UINT64_MAX);
	hf_child_describe(watch, text, sizeof(text));
	assert_string_equal(text, "ended");
	hf_child_release(watch);
	hf_child_release(child);
	assert_int_equal(hf_child_watch(event, pid, ticks, NULL, NULL, &watch), -ESRCH);
}

/* It lives as long as this process, and makes its socket before anything is asked. */
static void start_spawner(void)
{
	struct hf_error e = {0};

	snprintf(spawner_path, sizeof(spawner_path), "%s/spawn", dir);
	spawner = fork();
	if (spawner == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (hf_spawner_run(spawner_path, &e) < 0)
			fprintf(stderr, "%s\n", e.message);
		_exit(e.err ? 1 : 0);
	}
	for (int i = 0; i < 500 && access(spawner_path, F_OK) < 0; i++)
		usleep(10000);
	hf_spawn_use_spawner(spawner_path);
}

static int set_up_spawner(void **state)
{
	strcpy(dir, DIR_TEMPLATE);
	if (!mkdtemp(dir) || chmod(dir, 0755) < 0)
		return -1;
	start_spawner();
	return sd_event_new(&event) >= 0 ? 0 : -1;
}

/* The process is somebody else's child, and still its end is told, without its status. */
static void test_spawner_dies(void **state)
{
	char *argv[] = {(char *)"sleep", (char *)"100", NULL};
	struct hf_spawn_spec spec = spec_of_me();
	struct hf_child *child = NULL, *none = NULL;
	struct hf_error e = {0};
	unsigned int n_exits = 0;
	char text[128];

	spec.program = "sleep";
	spec.argv = argv;
	spec.envp = plain_env;
	assert_int_equal(hf_spawn(event, &spec, on_exit_child, &n_exits, &child, &e), 0);
	assert_int_equal(kill(spawner, SIGKILL), 0);
	assert_int_equal(waitpid(spawner, NULL, 0), spawner);
	for (int i = 0; i < 5; i++)
		sd_event_run(event, 20000);
	assert_int_equal(n_exits, 0);
	assert_int_equal(kill(hf_child_pid(child), 0), 0);
	assert_int_equal(hf_child_kill(child), 0);
	while (n_exits == 0)
		sd_event_run(event, UINT64_MAX);
	hf_child_describe(child, text, sizeof(text));
	assert_string_equal(text, "ended");
	hf_child_release(child);

	/* And one that is not there is said to be, with its remedy. */
	assert_int_equal(hf_spawn(event, &spec, NULL, NULL, &none, &e), -ECONNREFUSED);
	assert_non_null(strstr(e.message, spawner_path));
	assert_non_null(strstr(e.remedy, "holdfast-spawn.service"));
	unlink(spawner_path);
	start_spawner();
}

/* More than one record's worth, and every part there is. */
static void test_spawner_wire(void **state)
{
	uint64_t numbers[] = {1, UINT64_MAX, 3};
	const struct hf_manifest_limits limits = {.rlimits = numbers,
		.n_rlimits = 2,
		.cpus = numbers,
		.n_cpus = 3,
		.nice = -5,
		.oom_score_adj = HF_MANIFEST_UNKNOWN};
	char *argv[] = {(char *)"a", (char *)"", NULL};
	struct hf_spawn_fd fds[] = {{.fd = 0, .number = 3}, {.fd = 0, .number = 9}};
	const gid_t groups[] = {7, 8};
	const struct hf_spawn_spec spec = {.program = "p",
		.argv = argv,
		.envp = plain_env,
		.cwd = "/x",
		.uid = 5,
		.gid = 6,
		.groups = groups,
		.n_groups = 2,
		.umask = 027,
		.limits = &limits,
		.apparmor = "libvirt-x",
		.fds = fds,
		.n_fds = 2,
		.stdio = {NULL, "", "/e"},
		.log_path = "/l",
		.output_fd = 1};
	struct hf_spawner_request q;
	void *data = NULL;
	size_t size = 0;

	assert_int_equal(hf_spawner_encode(&spec, &data, &size), 0);
	assert_int_equal(hf_spawner_decode(data, size, &q), 0);
	assert_string_equal(q.spec.program, "p");
	assert_string_equal(q.spec.argv[1], "");
	assert_null(q.spec.argv[2]);
	assert_string_equal(q.spec.envp[1], "A=b c");
	assert_string_equal(q.spec.cwd, "/x");
	assert_int_equal(q.spec.uid, 5);
	assert_int_equal(q.spec.n_groups, 2);
	assert_int_equal(q.spec.groups[1], 8);
	assert_int_equal(q.spec.umask, 027);
	assert_true(q.spec.limits->rlimits[1] == UINT64_MAX && q.spec.limits->cpus[2] == 3);
	assert_int_equal(q.spec.limits->nice, -5);
	assert_int_equal(q.spec.limits->oom_score_adj, HF_MANIFEST_UNKNOWN);
	assert_string_equal(q.spec.apparmor, "libvirt-x");
	assert_int_equal(q.spec.fds[1].number, 9);
	assert_null(q.spec.stdio[0]);
	assert_string_equal(q.spec.stdio[1], "");
	assert_string_equal(q.spec.log_path, "/l");
	assert_true(q.has_output);
	hf_spawner_request_release(&q);
	for (size_t cut = 0; cut < size; cut++) {
		assert_int_equal(hf_spawner_decode(data, cut, &q), -EBADMSG);
		hf_spawner_request_release(&q);
	}
	((uint8_t *)data)[4]++;
	assert_int_equal(hf_spawner_decode(data, size, &q), -EPROTONOSUPPORT);
	hf_spawner_request_release(&q);
	free(data);
}

struct greeted {
	bool done;
	int r;
	struct hf_wall_clock clock;
	struct hf_error error;
};

static void on_greeted(
	int r, const struct hf_wall_clock *clock, const struct hf_error *error, void *data)
{
	struct greeted *g = data;

	*g = (struct greeted){.done = true, .r = r, .clock = *clock, .error = *error};
}

static struct greeted greet(const struct hf_wall_clock_target *target)
{
	struct hf_spawner_call *call = NULL;
	struct greeted g = {0};
	struct hf_error e = {0};

	assert_int_equal(
		hf_spawner_greet(event, spawner_path, target, on_greeted, &g, &call, &e), 0);
	/* Never from inside the call. */
	assert_false(g.done);
	while (!g.done)
		sd_event_run(event, UINT64_MAX);
	hf_spawner_call_free(call);
	return g;
}

/* This machine's clock, noted now: it is right, so that nothing here moves it. */
static struct hf_wall_clock_target right_now(void)
{
	struct hf_tsc_mark from = hf_tsc_mark(), to;
	struct hf_tsc_wall now = hf_tsc_wall();

	usleep(200000);
	to = hf_tsc_mark();
	return (struct hf_wall_clock_target){.tsc = now.tsc,
		.wall_ns = now.wall_ns,
		.width = now.width,
		.hz = hf_tsc_hz(&from, &to)};
}

/* How long a target was under way makes no difference: what is sent is where the clock belongs. */
static void test_spawner_clock(void **state)
{
	struct hf_wall_clock_target target = right_now();
	struct greeted g;

	if (!hf_clock_tsc_is_sound())
		skip();
	for (int i = 0; i < 2; i++) {
		g = greet(&target);
		assert_int_equal(g.r, 0);
		assert_true(g.clock.known);
		assert_int_equal(g.clock.step_ns, 0);
		assert_true(g.clock.error_ns < 10 * HF_NSEC_PER_MSEC);
		usleep(300000);
	}
}

static void test_spawner_clock_refused(void **state)
{
	const struct hf_wall_clock_target none = {0}, good = right_now();
	struct hf_wall_clock_target bad = good;
	struct greeted g = greet(&none);

	assert_int_equal(g.r, -ENODATA);
	assert_false(g.clock.known);
	bad.wall_ns += HF_WALL_CLOCK_MAX_STEP_NS + HF_NSEC_PER_SEC;
	g = greet(&bad);
	assert_int_equal(g.r, -ERANGE);
	assert_false(g.clock.known);
	assert_non_null(strstr(g.error.message, "ten minutes"));
	bad = good;
	bad.tsc += 3600 * good.hz;
	g = greet(&bad);
	assert_int_equal(g.r, -ERANGE);
	bad = good;
	bad.hz = 1;
	g = greet(&bad);
	assert_int_equal(g.r, -ERANGE);
}

static void test_spawner_greeting_wire(void **state)
{
	const struct hf_wall_clock_target target = {
		.tsc = 1, .wall_ns = UINT64_MAX, .width = 3, .hz = 4};
	struct hf_wall_clock_target back;
	uint8_t bytes[128] = {0};
	size_t size = hf_spawner_encode_greeting(&target, bytes, sizeof(bytes));

	assert_true(size > 0 && size < sizeof(bytes));
	assert_int_equal(hf_spawner_decode_greeting(bytes, size, &back), 0);
	assert_memory_equal(&back, &target, sizeof(back));
	for (size_t n = 0; n < sizeof(bytes); n++)
		if (n != size)
			assert_int_equal(hf_spawner_decode_greeting(bytes, n, &back), -EBADMSG);
	bytes[4]++;
	assert_int_equal(hf_spawner_decode_greeting(bytes, size, &back), -EPROTONOSUPPORT);
	bytes[0]++;
	assert_int_equal(hf_spawner_decode_greeting(bytes, size, &back), -EBADMSG);
	assert_int_equal(hf_spawner_encode_greeting(&target, bytes, size - 1), 0);
}

/* One that doesn't serve yet is waited for, without blocking; one that dies is not. */
static void test_spawner_late(void **state)
{
	const struct hf_wall_clock_target none = {0};
	struct hf_spawner_call *call = NULL;
	struct greeted g = {0};
	struct hf_error e = {0};

	assert_int_equal(kill(spawner, SIGSTOP), 0);
	assert_int_equal(
		hf_spawner_greet(event, spawner_path, &none, on_greeted, &g, &call, &e), 0);
	for (int i = 0; i < 5; i++)
		sd_event_run(event, 20000);
	assert_false(g.done);
	assert_int_equal(kill(spawner, SIGKILL), 0);
	assert_int_equal(waitpid(spawner, NULL, 0), spawner);
	while (!g.done)
		sd_event_run(event, UINT64_MAX);
	assert_true(g.r == -ECONNRESET);
	assert_non_null(strstr(g.error.remedy, "holdfast-spawn.service"));
	hf_spawner_call_free(call);

	assert_int_equal(hf_spawner_greet(event, spawner_path, &none, on_greeted, &g, &call, &e),
		-ECONNREFUSED);
	assert_non_null(strstr(e.message, spawner_path));
	unlink(spawner_path);
	start_spawner();
}

/* Even if the socket's mode were no bar: it serves its own user and root, and nobody else. */
static void test_spawner_stranger(void **state)
{
	const struct hf_wall_clock_target none = {0};
	int status;
	pid_t pid;

	if (geteuid() != 0)
		skip();
	assert_int_equal(chmod(spawner_path, 0666), 0);
	pid = fork();
	if (pid == 0) {
		struct sockaddr_un address = {.sun_family = AF_UNIX};
		uint8_t bytes[128];
		size_t size = hf_spawner_encode_greeting(&none, bytes, sizeof(bytes));
		int sock = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(10);
		snprintf(address.sun_path, sizeof(address.sun_path), "%s", spawner_path);
		if (connect(sock, (struct sockaddr *)&address, sizeof(address)) < 0)
			_exit(11);
		(void)!send(sock, bytes, size, MSG_NOSIGNAL);
		/* Hung up on, before or after it was sent. */
		_exit(recv(sock, bytes, sizeof(bytes), 0) <= 0 ? 0 : 12);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(greet(&none).r, -ENODATA);
}

static int set_up(void **state)
{
	return mkdtemp(dir) && chmod(dir, 0755) == 0 && sd_event_new(&event) >= 0 ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[64];

	sd_event_unref(event);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_surroundings),
		cmocka_unit_test(test_session),
		cmocka_unit_test(test_signals),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_bad_numbers),
		cmocka_unit_test(test_standard_streams),
		cmocka_unit_test(test_user),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_no_limits),
		cmocka_unit_test(test_higher_limits),
		cmocka_unit_test(test_impossible_limits),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_last_words),
		cmocka_unit_test(test_release),
		cmocka_unit_test(test_watch),
	};

	const struct CMUnitTest spawner_tests[] = {
		cmocka_unit_test(test_spawner_wire),
		cmocka_unit_test(test_spawner_greeting_wire),
		cmocka_unit_test(test_spawner_clock),
		cmocka_unit_test(test_spawner_clock_refused),
		cmocka_unit_test(test_spawner_stranger),
		cmocka_unit_test(test_spawner_late),
		cmocka_unit_test(test_spawner_dies),
	};
	int failed;

	cmocka_set_message_output(CM_OUTPUT_STDOUT);
	failed = cmocka_run_group_tests(tests, set_up, tear_down);
	failed += cmocka_run_group_tests_name("with a spawner", tests, set_up_spawner, tear_down);
	failed += cmocka_run_group_tests_name("spawner", spawner_tests, set_up_spawner, tear_down);
	return failed;
}
