/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/launch.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-id128.h>
#include <sys/un.h>

#include "common/fd.h"

/* Flags of open(2) that make sense for a file opened once more. */
#define KEPT_OPEN_FLAGS (O_ACCMODE | O_APPEND | O_NONBLOCK | O_SYNC)

static int oom(struct hf_error *error)
{
	return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

/* ---- who the guest is ---- */

static int random_uuid(char ret[HF_UUID_CHARS])
{
	sd_id128_t id;
	int r = sd_id128_randomize(&id);

	if (r >= 0)
		sd_id128_to_uuid_string(id, ret);
	return r;
}

static enum hf_not_eligible not_eligible(const struct hf_launch_options *options)
{
	return options->policy ? options->policy->not_eligible : HF_NOT_ELIGIBLE_REFUSE;
}

static int set_identity(const struct hf_cmdline *plan, const struct hf_launch_options *options,
	struct hf_manifest_guest *g, struct hf_error *error)
{
	const char *uuid = options->uuid ? options->uuid : plan->uuid;
	const char *name = options->name ? options->name : plan->name;
	char short_uuid[9];

	if (uuid && !hf_uuid_parse(uuid, g->uuid))
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, "8-4-4-4-12 hexadecimal digits",
			"`%s` is not a UUID", uuid);
	if (!uuid && random_uuid(g->uuid) < 0)
		return hf_error_set(error, -EIO, HF_ERR_FAILED, NULL, "no random numbers");
	if (!name) {
		snprintf(short_uuid, sizeof(short_uuid), "%.8s", g->uuid);
		name = short_uuid;
	}
	if (!hf_guest_name_valid(name))
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, NULL,
			"the guest's name is empty, longer than %d bytes, or has characters that "
			"can't be in one",
			HF_GUEST_NAME_MAX);
	if (hf_manifest_set(&g->name, name) < 0 || hf_manifest_set(&g->manager, "qemu") < 0 ||
		hf_manifest_set(&g->policy, hf_policy_not_eligible_names[not_eligible(options)]) <
			0 ||
		hf_manifest_set_strings(
			&g->settings, &g->n_settings, options->settings, options->n_settings) < 0)
		return oom(error);
	return 0;
}

/* ---- what its process is like ---- */

static int describe_stdio(int fd, struct hf_manifest_stdio *ret)
{
	char link[64], path[4096];
	struct stat by_fd, by_path;
	int flags = fcntl(fd, F_GETFL);
	ssize_t n;

	if (flags < 0) {
		ret->kind = HF_STDIO_NONE;
		return 0;
	}
	ret->kind = HF_STDIO_NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return 0;
	path[n] = 0;
	/* Only a regular file can be opened again and be the same: not pipes, sockets, terminals.
	 */
	if (fstat(fd, &by_fd) < 0 || !S_ISREG(by_fd.st_mode) || stat(path, &by_path) < 0 ||
		by_fd.st_dev != by_path.st_dev || by_fd.st_ino != by_path.st_ino)
		return 0;
	ret->kind = HF_STDIO_PATH;
	ret->open_flags = flags & KEPT_OPEN_FLAGS;
	return hf_manifest_set(&ret->path, path);
}

static int describe_groups(struct hf_manifest_guest *g)
{
	int n = getgroups(0, NULL);

	if (n < 0)
		return -errno;
	g->groups = calloc(n ? n : 1, sizeof(*g->groups));
	if (!g->groups)
		return -ENOMEM;
	static_assert(sizeof(gid_t) == sizeof(*g->groups), "gids are 32 bits");
	n = getgroups(n, g->groups);
	if (n < 0)
		return -errno;
	g->n_groups = n;
	return 0;
}

static int describe_process(struct hf_registration *reg)
{
	struct hf_manifest_guest *g = &reg->guest;
	cleanup_free char *cwd = getcwd(NULL, 0);
	size_t n_env = 0;
	mode_t mask;
	int r;

	while (environ[n_env])
		n_env++;
	r = hf_manifest_set_strings(&g->env, &g->n_env, (const char *const *)environ, n_env);
	if (r == 0)
		r = hf_manifest_set(&g->cwd, cwd ? cwd : "/");
	for (int fd = 0; r == 0 && fd < 3; fd++)
		r = describe_stdio(fd, &g->stdio[fd]);
	if (r == 0)
		r = describe_groups(g);
	g->uid = geteuid();
	g->gid = getegid();
	mask = umask(0);
	umask(mask);
	g->umask = mask;
	reg->pid = getpid();
	/* It stays the same through the exec, as the pid does. */
	return r < 0 ? r : hf_pid_start_time(reg->pid, &reg->start_ticks);
}

/* ---- its memory ---- */

static int make_ram(const struct hf_cmdline *plan, struct hf_launch *l, struct hf_error *error)
{
	if (plan->n_ram > HF_ARRAY_SIZE(l->reg.ram_inodes))
		return hf_error_set(error, -E2BIG, HF_ERR_FAILED, NULL, "more than %zu RAM blocks",
			HF_ARRAY_SIZE(l->reg.ram_inodes));
	for (size_t i = 0; i < plan->n_ram; i++) {
		struct hf_manifest_ram *ram = hf_manifest_add_ram(&l->reg.guest);
		char name[256];
		int r;

		if (!ram || hf_manifest_set(&ram->id, plan->ram[i].id) < 0)
			return oom(error);
		ram->size = plan->ram[i].size;
		snprintf(name, sizeof(name), "holdfast:%.200s", ram->id);
		r = hf_memfd_new(name, ram->size, &l->ram_fds[i]);
		if (r == 0)
			r = hf_fd_inode(l->ram_fds[i], &l->reg.ram_inodes[i], NULL);
		if (r < 0)
			return hf_error_set(error, r, HF_ERR_FAILED, NULL,
				"can't make the memfd of RAM block %s: %s", ram->id, strerror(-r));
		ram->fd = l->ram_fds[i];
	}
	return 0;
}

static int build(const struct hf_cmdline *plan, bool monitor_only, struct hf_launch *l,
	struct hf_error *error)
{
	struct hf_manifest_guest *g = &l->reg.guest;
	/* QEMU wouldn't start with a path that doesn't fit a socket's address. */
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

	if (snprintf(path, sizeof(path), "%s/qmp/%s.sock", hf_run_dir(), g->uuid) >=
		(int)sizeof(path))
		return hf_error_set(error, -ENAMETOOLONG, HF_ERR_FAILED,
			"set HOLDFAST_RUN_DIR to a shorter one",
			"the path %.100s is too long for a socket", hf_run_dir());
	if (hf_manifest_set(&g->qmp_path, path) < 0)
		return oom(error);
	return hf_cmdline_build(plan,
		&(struct hf_cmdline_how){.ram_fds = l->ram_fds,
			.qmp_path = g->qmp_path,
			.monitor_only = monitor_only},
		&l->argv, NULL, error);
}

/* Could its RAM be moved to where it can be preserved, later and by the agent? */
static bool can_be_adopted(const struct hf_cmdline *plan)
{
	cleanup_free char **argv = NULL;
	size_t n;

	return hf_cmdline_adopt((const char *const *)plan->argv, plan->n_argv, &argv, &n, NULL) ==
	       0;
}

int hf_launch_prepare(const struct hf_cmdline *plan, const struct hf_launch_options *options,
	struct hf_launch *l, struct hf_error *error)
{
	struct hf_manifest_guest *g = &l->reg.guest;
	int r;

	*l = (struct hf_launch){0};
	for (size_t i = 0; i < HF_ARRAY_SIZE(l->ram_fds); i++)
		l->ram_fds[i] = -EBADF;
	r = set_identity(plan, options, g, error);
	if (r < 0)
		return r;
	if (hf_manifest_set(&g->vmm, plan->argv[0]) < 0 ||
		hf_manifest_set_strings(
			&g->argv, &g->n_argv, (const char *const *)plan->argv, plan->n_argv) < 0)
		return oom(error);
	r = describe_process(&l->reg);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL,
			"can't describe this process: %s", strerror(-r));
	if (plan->reason[0]) {
		snprintf(l->reg.reason, sizeof(l->reg.reason), "%s", plan->reason);
		snprintf(l->reg.remedy, sizeof(l->reg.remedy), "%s", plan->remedy);
		/* A monitor is all that is added: its RAM stays as it is. */
		if (not_eligible(options) == HF_NOT_ELIGIBLE_SHUTDOWN)
			return build(plan, true, l, error);
		if (can_be_adopted(plan) && build(plan, true, l, error) < 0) {
			hf_error_clear(error);
			return hf_manifest_set(&g->qmp_path, NULL);
		}
		return 0;
	}
	r = make_ram(plan, l, error);
	return r < 0 ? r : build(plan, false, l, error);
}

int hf_launch_exec(struct hf_launch *l)
{
	char **argv = l->argv ? l->argv : l->reg.guest.argv;

	for (size_t i = 0; i < l->reg.guest.n_ram; i++) {
		int r = hf_fd_cloexec(l->ram_fds[i], false);

		if (r < 0)
			return r;
	}
	execvp(argv[0], argv);
	return -errno;
}

void hf_launch_clear(struct hf_launch *l)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(l->ram_fds); i++)
		hf_close(&l->ram_fds[i]);
	free(l->argv);
	l->argv = NULL;
	hf_registration_clear(&l->reg);
}
