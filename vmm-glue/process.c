/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/process.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-id128.h>

#include "vmm-glue/cmdline-internal.h"

#define MAX_STRINGS_BYTES (4u << 20)
/* Flags of open(2) that make sense for a file opened once more. */
#define KEPT_OPEN_FLAGS (O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC)

static int proc_file(pid_t pid, const char *name, char **ret, size_t *ret_size)
{
	char path[128];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return hf_file_read(path, MAX_STRINGS_BYTES, ret, ret_size);
}

/* Strings that end with a NUL each. @ret: pointers into @text, and a NULL. */
static int split(char *text, size_t size, const char ***ret, size_t *ret_n)
{
	const char **list;
	size_t n = 0;

	for (size_t i = 0; i < size; i++)
		n += !text[i];
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	n = 0;
	for (size_t at = 0; at < size && memchr(text + at, 0, size - at);
		at += strlen(text + at) + 1)
		list[n++] = text + at;
	*ret = list;
	*ret_n = n;
	return 0;
}

static int read_strings(pid_t pid, const char *name, char ***field, size_t *ret_n)
{
	cleanup_free const char **list = NULL;
	cleanup_free char *text = NULL;
	size_t size, n = 0;
	int r;

	r = proc_file(pid, name, &text, &size);
	if (r == 0)
		r = split(text, size, &list, &n);
	return r < 0 ? r : hf_manifest_set_strings(field, ret_n, list, n);
}

/* A line of /proc/PID/status. Return: what follows its name, or NULL. */
static const char *find_line(const char *status, const char *name)
{
	size_t len = strlen(name);

	for (const char *s = status; s; s = strchr(s, '\n') ? strchr(s, '\n') + 1 : NULL)
		if (strncmp(s, name, len) == 0 && s[len] == ':')
			return s + len + 1;
	return NULL;
}

static int read_groups(const char *line, struct hf_manifest_guest *g)
{
	size_t n = 0, room = strcspn(line, "\n") / 2 + 1;

	g->groups = calloc(room, sizeof(*g->groups));
	if (!g->groups)
		return -ENOMEM;
	for (char *end; n < room; line = end) {
		unsigned long id;

		line += strspn(line, " \t");
		if (*line < '0' || *line > '9')
			break;
		id = strtoul(line, &end, 10);
		g->groups[n++] = (uint32_t)id;
	}
	g->n_groups = n;
	return 0;
}

static int read_credentials(pid_t pid, struct hf_manifest_guest *g)
{
	cleanup_free char *status = NULL;
	const char *uid, *gid, *groups, *mask;
	int r = proc_file(pid, "status", &status, NULL);

	if (r < 0)
		return r;
	uid = find_line(status, "Uid");
	gid = find_line(status, "Gid");
	groups = find_line(status, "Groups");
	mask = find_line(status, "Umask");
	if (!uid || !gid || !groups || !mask)
		return -EBADMSG;
	/* The effective ones come second. */
	if (sscanf(uid, "%*u %u", &g->uid) != 1 || sscanf(gid, "%*u %u", &g->gid) != 1)
		return -EBADMSG;
	g->umask = (uint32_t)strtoul(mask, NULL, 8);
	return read_groups(groups, g);
}

static int read_link(pid_t pid, const char *name, char *ret, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	n = readlink(path, ret, size - 1);
	if (n < 0)
		return -errno;
	ret[n] = 0;
	return 0;
}

/* Flags of an open file. Return: 0 or -errno. */
static int read_flags(pid_t pid, int fd, unsigned int *ret)
{
	cleanup_free char *info = NULL;
	const char *flags;
	char name[64];
	int r;

	snprintf(name, sizeof(name), "fdinfo/%d", fd);
	r = proc_file(pid, name, &info, NULL);
	flags = r < 0 ? NULL : find_line(info, "flags");
	if (!flags)
		return r < 0 ? r : -EBADMSG;
	*ret = (unsigned int)strtoul(flags, NULL, 8);
	return 0;
}

/* As the launcher does it for itself: only regular files can be opened again and be the same. */
static int describe_stdio(pid_t pid, int fd, struct hf_manifest_stdio *ret)
{
	char name[32], link[64], path[PATH_MAX];
	struct stat by_fd, by_path;
	unsigned int flags = 0;

	snprintf(name, sizeof(name), "fd/%d", fd);
	snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)pid, fd);
	ret->kind = HF_STDIO_NONE;
	if (read_link(pid, name, path, sizeof(path)) < 0)
		return 0;
	ret->kind = HF_STDIO_NULL;
	if (stat(link, &by_fd) < 0 || !S_ISREG(by_fd.st_mode) || stat(path, &by_path) < 0 ||
		by_fd.st_dev != by_path.st_dev || by_fd.st_ino != by_path.st_ino ||
		read_flags(pid, fd, &flags) < 0)
		return 0;
	ret->kind = HF_STDIO_PATH;
	ret->open_flags = flags & KEPT_OPEN_FLAGS;
	return hf_manifest_set(&ret->path, path);
}

/* It has become another user, or sees another root: a new one can't be started from what is seen.
 */
static int check_options(const struct hf_manifest_guest *g, struct hf_error *error)
{
	struct hf_option o;
	size_t pos = 1;

	while (hf_option_next(g->argv, g->n_argv, &pos, &o)) {
		if (strcmp(o.name, "runas") == 0 || strcmp(o.name, "chroot") == 0 ||
			strcmp(o.name, "run-with") == 0)
			return hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY,
				"shut it down for the update, and start it with holdfast-vmm",
				"-%s changed the process, so it can't be started again as it is",
				o.name);
	}
	return 0;
}

static int check_root(pid_t pid, struct hf_error *error)
{
	static const char *const names[] = {"root", "ns/mnt", "ns/net", "ns/user"};
	char theirs[PATH_MAX], ours[PATH_MAX];

	for (size_t i = 0; i < HF_ARRAY_SIZE(names); i++) {
		const char *name = names[i];

		if (read_link(pid, name, theirs, sizeof(theirs)) < 0 ||
			read_link(getpid(), name, ours, sizeof(ours)) < 0 ||
			strcmp(theirs, ours) != 0)
			return hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY,
				"shut it down for the update",
				"process %d sees other files, networks or users than holdfastd: it "
				"runs in a container or a chroot",
				(int)pid);
	}
	return 0;
}

static int set_identity(
	const struct hf_cmdline *plan, const char *name, struct hf_manifest_guest *g)
{
	char fallback[9];
	sd_id128_t id;
	int r = 0;

	if (!plan->uuid || !hf_uuid_parse(plan->uuid, g->uuid)) {
		r = sd_id128_randomize(&id);
		if (r >= 0)
			sd_id128_to_uuid_string(id, g->uuid);
	}
	snprintf(fallback, sizeof(fallback), "%.8s", g->uuid);
	name = name ? name : plan->name ? plan->name : fallback;
	if (r >= 0 && !hf_guest_name_valid(name))
		return -EINVAL;
	if (r >= 0)
		r = hf_manifest_set(&g->name, name);
	if (r >= 0)
		r = hf_manifest_set(&g->manager, "qemu");
	return r < 0 ? r : hf_manifest_set(&g->policy, "refuse");
}

int hf_process_read(pid_t pid, struct hf_registration *reg)
{
	struct hf_manifest_guest *g = &reg->guest;
	char cwd[PATH_MAX];
	int r = hf_pid_start_time(pid, &reg->start_ticks);

	if (r == 0)
		r = read_strings(pid, "cmdline", &g->argv, &g->n_argv);
	if (r == 0)
		r = g->n_argv > 0 ? hf_manifest_set(&g->vmm, g->argv[0]) : -ESRCH;
	if (r == 0)
		r = read_strings(pid, "environ", &g->env, &g->n_env);
	if (r == 0)
		r = read_link(pid, "cwd", cwd, sizeof(cwd));
	if (r == 0)
		r = hf_manifest_set(&g->cwd, cwd);
	if (r == 0)
		r = read_credentials(pid, g);
	for (int fd = 0; r == 0 && fd < 3; fd++)
		r = describe_stdio(pid, fd, &g->stdio[fd]);
	return r;
}

int hf_process_describe(
	pid_t pid, const char *name, struct hf_registration *reg, struct hf_error *error)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	int r;

	*reg = (struct hf_registration){.pid = pid};
	r = hf_process_read(pid, reg);
	if (r == -ENOENT)
		r = -ESRCH;
	if (r < 0)
		return hf_error_set(error, r, r == -ESRCH ? HF_ERR_NO_GUEST : HF_ERR_FAILED,
			r == -ESRCH ? "look for QEMU's process id" : NULL,
			"can't describe process %d: %s", (int)pid, strerror(-r));
	r = check_root(pid, error);
	if (r == 0)
		r = check_options(&reg->guest, error);
	if (r == 0)
		r = hf_cmdline_parse(
			(const char *const *)reg->guest.argv, reg->guest.n_argv, &plan, error);
	if (r < 0)
		return r;
	r = plan ? set_identity(plan, name, &reg->guest) : -ENOMEM;
	if (r == -EINVAL)
		return hf_error_set(error, r, HF_ERR_INVALID, "give it one with --name",
			"its name is empty, longer than %d bytes, or has characters that can't be "
			"in one",
			HF_GUEST_NAME_MAX);
	return r < 0 ? hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory") : 0;
}

/* Kibibytes of a line. 0 when there is none. */
static uint64_t kib(const char *text, const char *name)
{
	const char *line = find_line(text, name);

	return line ? strtoull(line, NULL, 10) : 0;
}

int hf_process_touched_bytes(pid_t pid, uint64_t *ret)
{
	cleanup_free char *status = NULL;
	int r = proc_file(pid, "status", &status, NULL);

	if (r < 0)
		return r;
	*ret = (kib(status, "VmRSS") + kib(status, "VmSwap") + kib(status, "HugetlbPages")) * 1024;
	return 0;
}

int hf_host_available_bytes(uint64_t *ret)
{
	cleanup_free char *text = NULL;
	int r = hf_file_read("/proc/meminfo", 65536, &text, NULL);

	if (r < 0)
		return r;
	*ret = kib(text, "MemAvailable") * 1024;
	return 0;
}
