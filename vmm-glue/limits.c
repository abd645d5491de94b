/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/limits.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "common/fd.h"

enum { MISSED_OOM = RLIM_NLIMITS, MISSED_NICE, MISSED_CPUS, MISSED_N_ };

static const char *const names[] = {
	[RLIMIT_AS] = "RLIMIT_AS",
	[RLIMIT_CORE] = "RLIMIT_CORE",
	[RLIMIT_CPU] = "RLIMIT_CPU",
	[RLIMIT_DATA] = "RLIMIT_DATA",
	[RLIMIT_FSIZE] = "RLIMIT_FSIZE",
	[RLIMIT_LOCKS] = "RLIMIT_LOCKS",
	[RLIMIT_MEMLOCK] = "RLIMIT_MEMLOCK",
	[RLIMIT_MSGQUEUE] = "RLIMIT_MSGQUEUE",
	[RLIMIT_NICE] = "RLIMIT_NICE",
	[RLIMIT_NOFILE] = "RLIMIT_NOFILE",
	[RLIMIT_NPROC] = "RLIMIT_NPROC",
	[RLIMIT_RSS] = "RLIMIT_RSS",
	[RLIMIT_RTPRIO] = "RLIMIT_RTPRIO",
	[RLIMIT_RTTIME] = "RLIMIT_RTTIME",
	[RLIMIT_SIGPENDING] = "RLIMIT_SIGPENDING",
	[RLIMIT_STACK] = "RLIMIT_STACK",
	[MISSED_OOM] = "oom_score_adj",
	[MISSED_NICE] = "the nice value",
	[MISSED_CPUS] = "the CPUs it may run on",
};
static_assert(HF_ARRAY_SIZE(names) == MISSED_N_ && MISSED_N_ <= 32, "one name and bit each");
static_assert(sizeof(rlim_t) == sizeof(uint64_t) && RLIM_INFINITY == UINT64_MAX, "as in manifests");
static_assert(2 * RLIM_NLIMITS <= HF_MANIFEST_MAX_RLIMITS, "all fit");

/* ---- reading ---- */

/* A number, or UINT64_MAX for `unlimited`. */
static int parse_limit(const char *text, uint64_t *ret)
{
	char *end;

	text += strspn(text, " ");
	if (strncmp(text, "unlimited", strlen("unlimited")) == 0) {
		*ret = UINT64_MAX;
		return 0;
	}
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return end == text || errno ? -EBADMSG : 0;
}

/*
 * From /proc, where looking needs no more rights than for the rest of it: prlimit(2) on another
 * user's process takes the very capability that raises limits. A headline, then a line for each
 * limit in the order of their numbers, in columns of fixed width.
 */
static int read_rlimits(pid_t pid, struct hf_manifest_limits *l)
{
	enum { SOFT_COLUMN = 26, HARD_COLUMN = 47 };
	cleanup_free char *text = NULL;
	char path[64], *line, *next;
	int r;

	l->rlimits = calloc(2 * RLIM_NLIMITS, sizeof(*l->rlimits));
	if (!l->rlimits)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
	r = hf_file_read(path, 65536, &text, NULL);
	if (r == -ENOENT)
		r = -ESRCH;
	line = r == 0 ? strchr(text, '\n') : NULL;
	for (int i = 0; r == 0 && i < RLIM_NLIMITS; i++, line = next) {
		next = line ? strchr(line + 1, '\n') : NULL;
		if (!next || next - line <= HARD_COLUMN + 1)
			return -EBADMSG;
		r = parse_limit(line + 1 + SOFT_COLUMN, &l->rlimits[(size_t)2 * i]);
		if (r == 0)
			r = parse_limit(line + 1 + HARD_COLUMN, &l->rlimits[(size_t)2 * i + 1]);
	}
	if (r == 0)
		l->n_rlimits = 2 * RLIM_NLIMITS;
	return r;
}

static int read_oom(pid_t pid, int32_t *ret)
{
	cleanup_free char *text = NULL;
	char path[64], *end;
	long v;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", (int)pid);
	r = hf_file_read(path, 64, &text, NULL);
	if (r < 0)
		return r;
	v = strtol(text, &end, 10);
	if (end == text || v < -1000 || v > 1000)
		return -EBADMSG;
	*ret = (int32_t)v;
	return 0;
}

static int read_nice(pid_t pid, int32_t *ret)
{
	int v;

	errno = 0;
	v = getpriority(PRIO_PROCESS, (id_t)pid);
	if (v == -1 && errno)
		return -errno;
	*ret = v;
	return 0;
}

/* One that may run on every CPU there is may do so on those that come later. */
static int read_cpus(pid_t pid, struct hf_manifest_limits *l)
{
	size_t size = HF_MANIFEST_MAX_CPUS * sizeof(*l->cpus), n_cpus = 0;
	long bytes, online = sysconf(_SC_NPROCESSORS_ONLN);

	l->cpus = calloc(1, size);
	if (!l->cpus)
		return -ENOMEM;
	/* Not by its wrapper, which doesn't tell how much the kernel wrote. */
	bytes = syscall(SYS_sched_getaffinity, pid, size, l->cpus);
	if (bytes < 0)
		return -errno;
	for (size_t i = 0; i < HF_MANIFEST_MAX_CPUS; i++)
		n_cpus += (size_t)__builtin_popcountll(l->cpus[i]);
	if ((long)n_cpus >= online)
		memset(l->cpus, 0xff, (size_t)bytes);
	l->n_cpus = (size_t)bytes / sizeof(*l->cpus);
	return 0;
}

int hf_limits_read(pid_t pid, struct hf_manifest_limits *l, struct hf_error *error)
{
	const char *what = "resource limits";
	int r;

	free(l->rlimits);
	free(l->cpus);
	*l = (struct hf_manifest_limits){
		.nice = HF_MANIFEST_UNKNOWN, .oom_score_adj = HF_MANIFEST_UNKNOWN};
	r = read_rlimits(pid, l);
	if (r == 0) {
		what = names[MISSED_OOM];
		r = read_oom(pid, &l->oom_score_adj);
	}
	if (r == 0) {
		what = names[MISSED_NICE];
		r = read_nice(pid, &l->nice);
	}
	if (r == 0) {
		what = names[MISSED_CPUS];
		r = read_cpus(pid, l);
	}
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL,
			"can't read %s of process %d: %s", what, (int)pid, strerror(-r));
	return 0;
}

/* ---- giving, in the new process: nothing here allocates or locks ---- */

static void note(struct hf_limits_missed *missed, int what, int err)
{
	if (!missed->err)
		missed->err = err;
	missed->what |= 1u << what;
}

/* Limits that this build has no number for are not applied: there is no such kernel yet. */
static int n_limits(const struct hf_manifest_limits *l)
{
	return (int)HF_MIN(l->n_rlimits / 2, (size_t)RLIM_NLIMITS);
}

static int set_oom(int32_t value)
{
	char text[16];
	int n = snprintf(text, sizeof(text), "%d", (int)value), r = 0;
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	if (write(fd, text, (size_t)n) < 0)
		r = errno;
	close(fd);
	return r;
}

void hf_limits_take(const struct hf_manifest_limits *l, struct hf_limits_missed *missed)
{
	int err = l->oom_score_adj == HF_MANIFEST_UNKNOWN ? 0 : set_oom(l->oom_score_adj);

	if (err)
		note(missed, MISSED_OOM, err);
	if (l->nice != HF_MANIFEST_UNKNOWN && setpriority(PRIO_PROCESS, 0, l->nice) < 0)
		note(missed, MISSED_NICE, errno);
	if (l->n_cpus > 0 &&
		syscall(SYS_sched_setaffinity, 0, l->n_cpus * sizeof(*l->cpus), l->cpus) < 0)
		note(missed, MISSED_CPUS, errno);
	for (int i = 0; i < n_limits(l); i++) {
		struct rlimit v;

		if (getrlimit(i, &v) < 0 || v.rlim_max >= l->rlimits[2 * i + 1])
			continue;
		v.rlim_max = l->rlimits[2 * i + 1];
		if (setrlimit(i, &v) < 0)
			note(missed, i, errno);
	}
}

void hf_limits_apply(const struct hf_manifest_limits *l, struct hf_limits_missed *missed)
{
	for (int i = 0; i < n_limits(l); i++) {
		struct rlimit v, have;

		/* Higher than it is now it was not to be had: that is noted already. */
		if (getrlimit(i, &have) < 0)
			continue;
		v.rlim_max = HF_MIN(l->rlimits[2 * i + 1], have.rlim_max);
		v.rlim_cur = HF_MIN(l->rlimits[2 * i], v.rlim_max);
		if (setrlimit(i, &v) < 0)
			note(missed, i, errno);
	}
}

void hf_limits_describe(const struct hf_limits_missed *missed, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = 0;
	for (int i = 0; i < MISSED_N_ && n < size; i++)
		if (missed->what & (1u << i))
			n += (size_t)snprintf(buf + n, size - n, "%s%s", n ? ", " : "", names[i]);
	if (n > 0 && n < size)
		snprintf(buf + n, size - n, ": %s", strerror(missed->err));
}
