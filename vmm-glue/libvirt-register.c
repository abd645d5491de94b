/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Registrations of libvirt's domains, from libvirt's list and from what the kernel shows of
 * their processes.
 *
 * What libvirt says is believed: name, UUID, emulator, policies. The process is the one of the pid
 * file, which is in a folder of root's; user, groups and files are the kernel's word. Its command
 * line and environment are its own, and a QEMU that was taken over could have changed both: what is
 * started from them has the same user, and the program is the one that libvirt names.
 */
#include <dirent.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "common/fd.h"
#include "common/json.h"
#include "vmm-glue/cmdline-params.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/confinement.h"
#include "vmm-glue/libvirt-internal.h"
#include "vmm-glue/process.h"
#include "vmm-glue/registration.h"

static int read_pid(const char *name, pid_t *ret)
{
	cleanup_free char *text = NULL;
	char path[512];
	int r;

	if (strchr(name, '/') || snprintf(path, sizeof(path), HF_LIBVIRT_RUN_DIR "/%s.pid", name) >=
					 (int)sizeof(path))
		return -EINVAL;
	r = hf_file_read(path, 64, &text, NULL);
	*ret = r == 0 ? (pid_t)strtol(text, NULL, 10) : 0;
	return r == 0 && *ret <= 1 ? -EBADMSG : r;
}

/* What else is in the environment is the user's or QEMU's own and is not handed on. */
static void keep_environment(struct hf_manifest_guest *g)
{
	static const char *const names[] = {"LC_ALL=", "PATH=", "HOME=", "USER=", "LOGNAME=",
		"XDG_DATA_HOME=", "XDG_CACHE_HOME=", "XDG_CONFIG_HOME=", "QEMU_AUDIO_DRV=",
		"SPICE_", "SDL_AUDIODRIVER="};
	size_t kept = 0;

	for (size_t i = 0; i < g->n_env; i++) {
		bool known = false;

		for (size_t k = 0; k < HF_ARRAY_SIZE(names); k++)
			known = known || strncmp(g->env[i], names[k], strlen(names[k])) == 0;
		if (known)
			g->env[kept++] = g->env[i];
		else
			free(g->env[i]);
	}
	g->n_env = kept;
	if (g->env)
		g->env[kept] = NULL;
}

/* A remedy that is a command for domains is given this one's name. */
static void refuse(struct hf_registration *reg, const char *remedy, const char *why)
{
	static const char verb[] = "libvirt enable";
	const char *found = strstr(remedy, verb);
	int head = found ? (int)(found - remedy + sizeof(verb) - 1) : 0;

	snprintf(reg->reason, sizeof(reg->reason), "%s", why);
	if (found)
		snprintf(reg->remedy, sizeof(reg->remedy), "%.*s %.63s%s", head, remedy,
			reg->guest.name, remedy + head);
	else
		snprintf(reg->remedy, sizeof(reg->remedy), "%s", remedy);
}

/* The number under which the process has a file open. */
static int find_file(
	pid_t pid, const char *path, int *ret_fd, struct hf_inode *ret_inode, bool *ret_tmpfs)
{
	char folder[64], link[384], target[512];
	struct stat by_path = {0};
	int r = -ENOENT;
	DIR *dir;

	/* Names are those of QEMU's own mounts, and gone once an update was prepared. */
	if (stat(path, &by_path) < 0)
		by_path.st_ino = 0;

	snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)pid);
	dir = opendir(folder);
	if (!dir)
		return -errno;
	for (struct dirent *d; r == -ENOENT && (d = readdir(dir));) {
		size_t len = strlen(path);
		struct statfs fs;
		struct stat st;
		ssize_t n;

		snprintf(link, sizeof(link), "%s/%s", folder, d->d_name);
		n = readlink(link, target, sizeof(target) - 1);
		target[n < 0 ? 0 : n] = 0;
		if (d->d_name[0] == '.' || stat(link, &st) < 0 || statfs(link, &fs) < 0)
			continue;
		if (by_path.st_ino ? st.st_dev != by_path.st_dev || st.st_ino != by_path.st_ino
				   : strncmp(target, path, len) != 0 ||
					     strcmp(target + len, " (deleted)") != 0)
			continue;
		*ret_fd = (int)strtol(d->d_name, NULL, 10);
		*ret_inode = (struct hf_inode){.dev = st.st_dev, .ino = st.st_ino};
		*ret_tmpfs = fs.f_type == TMPFS_MAGIC;
		r = 0;
	}
	closedir(dir);
	return r;
}

/* Where its QEMU says that it has a memory object; 0: it was not asked. */
static uint64_t address_of(struct json_object *domain, const char *id)
{
	struct json_object *list = hf_json_get_array(domain, "memory");

	for (size_t i = 0; i < hf_json_array_size(list); i++) {
		struct json_object *block = json_object_array_get_idx(list, i);

		if (strcmp(hf_json_get_string(block, "id", ""), id) == 0)
			return (uint64_t)hf_json_get_int(block, "address", 0);
	}
	return 0;
}

static int find_ram(struct hf_registration *reg, const struct hf_params *v,
	struct json_object *domain, size_t i, bool *ret_tmpfs)
{
	struct hf_manifest_ram *ram = &reg->guest.ram[i];
	const char *type = hf_params_get(v, "qom-type"), *path = hf_params_get(v, "mem-path");

	if (type && strcmp(type, "memory-backend-memfd") == 0)
		return hf_libvirt_find_memfd(reg->pid, address_of(domain, ram->id), &ram->fd,
			&reg->ram_inodes[i], ret_tmpfs);
	return path ? find_file(reg->pid, path, &ram->fd, &reg->ram_inodes[i], ret_tmpfs) : -ENOENT;
}

/* One file under two names would be the guest's memory twice, and half of it lost. */
static bool is_another(const struct hf_registration *reg, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (hf_inode_equal(&reg->ram_inodes[k], &reg->ram_inodes[i]))
			return true;
	return false;
}

static int add_ram(
	struct hf_registration *reg, const struct hf_cmdline *plan, struct json_object *domain)
{
	for (size_t i = 0; i < plan->n_ram; i++) {
		struct hf_manifest_ram *ram = hf_manifest_add_ram(&reg->guest);
		cleanup_params struct hf_params v = {0};
		bool tmpfs = false;
		int r;

		if (!ram || hf_manifest_set(&ram->id, plan->ram[i].id) < 0)
			return -ENOMEM;
		ram->size = plan->ram[i].size;
		r = hf_params_parse(plan->argv[plan->ram[i].arg], "qom-type", &v);
		if (r == 0)
			r = find_ram(reg, &v, domain, i, &tmpfs);
		if (r == -ENOTUNIQ)
			refuse(reg,
				"try again; if that does not help, `<source type='file'/>` in its "
				"<memoryBacking>, and start the domain anew",
				"its QEMU has several memfds and does not say which is which");
		else if (r < 0 || is_another(reg, i))
			refuse(reg, "start the domain anew",
				"the file that its RAM is in can't be found in its process");
		else if (!tmpfs)
			refuse(reg,
				"make libvirt's memory_backing_dir a tmpfs: `holdfast libvirt "
				"setup`; then start the domain anew",
				"its RAM is in a file on a disk");
	}
	return 0;
}

static int take_settings(struct hf_manifest_guest *g, struct json_object *settings)
{
	const char *list[HF_POLICY_N_];
	size_t n = 0;

	for (size_t i = 0; i < hf_json_array_size(settings) && n < HF_ARRAY_SIZE(list); i++)
		list[n++] = json_object_get_string(json_object_array_get_idx(settings, i));
	return hf_manifest_set_strings(&g->settings, &g->n_settings, list, n);
}

/* Its monitor: libvirt has it, and an agent whose predecessor died in an arrival. */
static int take_monitor(struct hf_manifest_guest *g, struct hf_error *e)
{
	char path[108];
	const char *monitor;
	int r = hf_libvirt_read_status(g, e);

	if (r < 0)
		return r;
	monitor = strstr(g->libvirt_status, "<monitor path='");
	if (monitor && sscanf(monitor, "<monitor path='%107[^']'", path) == 1)
		r = hf_manifest_set(&g->qmp_path, path);
	/* That is of now: another one is taken when it is saved. */
	return r == 0 ? hf_manifest_set(&g->libvirt_status, NULL) : r;
}

/* A QEMU that is started outside of it could do what this one can't. */
static int check_confinement(struct hf_registration *reg)
{
	cleanup_free char *profile = NULL;
	struct hf_error e = {0};
	int r = hf_confinement_read(reg->pid, &profile, &e);

	if (r == 0 && profile)
		r = hf_confinement_check_host(&e);
	if (r != -EOPNOTSUPP && r != -ENOENT)
		return r;
	refuse(reg, e.remedy, e.message);
	return 0;
}

static int describe(struct hf_registration *reg, struct json_object *domain, const char *uuid,
	struct hf_error *e)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	struct hf_manifest_guest *g = &reg->guest;
	const char *emulator = hf_json_get_string(domain, "emulator", "");
	char have[HF_UUID_CHARS];
	int r;

	r = hf_process_read(reg->pid, reg);
	if (r == 0)
		keep_environment(g);
	snprintf(g->uuid, sizeof(g->uuid), "%s", uuid);
	if (r == 0)
		r = hf_manifest_set(&g->name, hf_json_get_string(domain, "name", ""));
	if (r == 0)
		r = hf_manifest_set(&g->manager, "libvirt");
	if (r == 0)
		r = hf_manifest_set(&g->policy, "refuse");
	if (r == 0)
		r = hf_manifest_set(&g->vmm, emulator);
	/* Where libvirt starts all of them; what is seen is by the name of QEMU's own root. */
	if (r == 0)
		r = hf_manifest_set(&g->cwd, "/");
	if (r == 0)
		r = take_monitor(g, e);
	if (r == 0)
		r = hf_cmdline_of_guest(g, &plan, e);
	if (r < 0)
		return r;
	if (!plan || !plan->uuid || !hf_uuid_parse(plan->uuid, have) || strcmp(have, uuid) != 0)
		return -ESTALE;
	if (strcmp(g->argv[0], emulator) != 0)
		refuse(reg, "start the domain anew",
			"its process was not started as the emulator that libvirt names");
	else if (plan->reason[0])
		refuse(reg, plan->remedy, plan->reason);
	if (!reg->reason[0])
		r = check_confinement(reg);
	return r < 0 || reg->reason[0] ? r : add_ram(reg, plan, domain);
}

/* Return: 1 when the registration is there, of the process that runs; its settings are news. */
static int refresh_existing(
	const char *path, struct json_object *domain, pid_t pid, uint64_t ticks, struct hf_error *e)
{
	cleanup_registration struct hf_registration old = {0};
	int r = hf_registration_read(path, &old, NULL);

	/* The agent started this one: its registration has libvirt's own command line. */
	if (r < 0 || old.pid != pid || old.start_ticks != ticks || old.reason[0] ||
		!hf_guest_is_libvirt(&old.guest))
		return 0;
	r = take_settings(&old.guest, hf_json_get_array(domain, "settings"));
	if (r == 0)
		r = hf_registration_write(&old, e);
	return r < 0 ? r : 1;
}

static int register_one(struct json_object *domain, struct hf_error *e)
{
	cleanup_registration struct hf_registration reg = {0};
	const char *name = hf_json_get_string(domain, "name", "");
	char uuid[HF_UUID_CHARS], path[512];
	int r;

	if (!hf_uuid_parse(hf_json_get_string(domain, "uuid", ""), uuid))
		return hf_error_set(
			e, -EBADMSG, HF_ERR_FAILED, NULL, "domain %s has no UUID", name);
	r = read_pid(name, &reg.pid);
	if (r == 0)
		r = hf_pid_start_time(reg.pid, &reg.start_ticks);
	/* It ended since libvirt was asked. */
	if (r == -ENOENT || r == -ESRCH)
		return 0;
	if (r == 0)
		r = hf_registration_path(uuid, path, sizeof(path));
	if (r == 0)
		r = refresh_existing(path, domain, reg.pid, reg.start_ticks, e);
	if (r > 0)
		return 0;
	if (r == 0)
		r = describe(&reg, domain, uuid, e);
	if (r == 0)
		r = take_settings(&reg.guest, hf_json_get_array(domain, "settings"));
	if (r == 0)
		r = hf_registration_write(&reg, e);
	if (r == -ESRCH || r == -ENOENT)
		return 0;
	if (r < 0 && !e->err)
		hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "can't describe the domain: %s", strerror(-r));
	if (r < 0)
		hf_error_guest(e, name);
	return r;
}

static bool is_listed(struct json_object *domains, const char *uuid)
{
	char have[HF_UUID_CHARS];

	for (size_t i = 0; i < hf_json_array_size(domains); i++)
		if (hf_uuid_parse(
			    hf_json_get_string(json_object_array_get_idx(domains, i), "uuid", ""),
			    have) &&
			strcmp(have, uuid) == 0)
			return true;
	return false;
}

int hf_libvirt_register(struct json_object *domains, struct hf_error *e)
{
	struct hf_registration *regs = NULL;
	size_t n = 0;
	int r = hf_registration_list(&regs, &n, NULL);

	/* By its pid file: a daemon that has only just started may not know of it yet. */
	for (size_t i = 0; r == 0 && i < n; i++)
		if (hf_guest_is_libvirt(&regs[i].guest) &&
			!is_listed(domains, regs[i].guest.uuid) &&
			hf_libvirt_pid(&regs[i].guest) != regs[i].pid)
			hf_registration_remove(regs[i].guest.uuid);
	hf_registration_list_free(regs, n);
	if (r < 0)
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "can't list the guests: %s", strerror(-r));
	for (size_t i = 0; r == 0 && i < hf_json_array_size(domains); i++)
		r = register_one(json_object_array_get_idx(domains, i), e);
	return r;
}
