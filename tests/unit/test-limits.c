/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a process may use, as it is read from it. That it is given again is in test-spawn.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "vmm-glue/limits.h"

static void clear(struct hf_manifest_limits *l)
{
	free(l->rlimits);
	free(l->cpus);
}

static void restrict_myself(const cpu_set_t *cpus)
{
	struct rlimit v = {.rlim_cur = 30, .rlim_max = 40};
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (write(fd, "321", 3) != 3 || setrlimit(RLIMIT_NOFILE, &v) < 0 ||
		setpriority(PRIO_PROCESS, 0, 17) < 0 ||
		sched_setaffinity(0, sizeof(*cpus), cpus) < 0)
		_exit(1);
}

/* A process that waits to be killed. */
static pid_t start(const cpu_set_t *cpus)
{
	int ready[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		restrict_myself(cpus);
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_read(void **state)
{
	struct hf_manifest_limits l = {0};
	struct hf_error e = {0};
	cpu_set_t all, one;
	size_t cpu = 0;
	pid_t pid;

	assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	pid = start(&one);
	/* Twice: what was there before is freed. */
	for (int i = 0; i < 2; i++)
		if (hf_limits_read(pid, &l, &e) < 0)
			fail_msg("%s", e.message);
	assert_int_equal(l.n_rlimits, 2 * RLIM_NLIMITS);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit v;

		assert_int_equal(getrlimit(i, &v), 0);
		if (i == RLIMIT_NOFILE)
			v = (struct rlimit){30, 40};
		assert_int_equal(l.rlimits[2 * i], v.rlim_cur);
		assert_int_equal(l.rlimits[2 * i + 1], v.rlim_max);
	}
	assert_int_equal(l.nice, 17);
	assert_int_equal(l.oom_score_adj, 321);
	assert_true(l.n_cpus > cpu / 64);
	/* On a host with one CPU that one is all there are. */
	for (size_t i = 0; i < l.n_cpus; i++)
		assert_int_equal(l.cpus[i], sysconf(_SC_NPROCESSORS_ONLN) == 1 ? UINT64_MAX
					    : i == cpu / 64		       ? 1ULL << cpu % 64
									       : 0);
	end(pid);

	assert_int_equal(hf_limits_read(pid, &l, &e), -ESRCH);
	assert_non_null(strstr(e.message, "resource limits"));
	assert_int_equal(l.n_rlimits, 0);
	assert_int_equal(l.n_cpus, 0);
	assert_int_equal(l.nice, HF_MANIFEST_UNKNOWN);
	assert_int_equal(l.oom_score_adj, HF_MANIFEST_UNKNOWN);
	clear(&l);
}

/* What may run everywhere may do so where there are more CPUs, too. */
static void test_all_cpus(void **state)
{
	struct hf_manifest_limits l = {0};
	cpu_set_t mine;

	assert_int_equal(sched_getaffinity(0, sizeof(mine), &mine), 0);
	assert_int_equal(hf_limits_read(getpid(), &l, NULL), 0);
	assert_true(l.n_cpus > 0);
	for (size_t i = 0; CPU_COUNT(&mine) == sysconf(_SC_NPROCESSORS_ONLN) && i < l.n_cpus; i++)
		assert_int_equal(l.cpus[i], UINT64_MAX);
	clear(&l);
}

static void test_describe(void **state)
{
	struct hf_limits_missed missed = {0};
	char text[400], small[16];

	hf_limits_describe(&missed, text, sizeof(text));
	assert_string_equal(text, "");
	missed = (struct hf_limits_missed){1u << RLIMIT_AS, EPERM};
	hf_limits_describe(&missed, text, sizeof(text));
	assert_string_equal(text, "RLIMIT_AS: Operation not permitted");
	missed = (struct hf_limits_missed){UINT32_MAX, EPERM};
	hf_limits_describe(&missed, text, sizeof(text));
	assert_non_null(strstr(text, "RLIMIT_CPU, RLIMIT_FSIZE, "));
	assert_non_null(strstr(text, "the CPUs it may run on: Operation not permitted"));
	hf_limits_describe(&missed, small, sizeof(small));
	assert_string_equal(small, "RLIMIT_CPU, RLI");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_all_cpus),
		cmocka_unit_test(test_describe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
