/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The files by which libvirt knows a domain: status, pid, saved image, RAM.
 */
#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <signal.h>

#include "common/fd.h"
#include "vmm-glue/cmdline-params.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt.h"
#include "vmm-glue/registration.h"

#define STATUS_MAX_BYTES (HF_MANIFEST_MAX_STRING - 1)

/*
 * A saved image to libvirt, in a version that there will never be, whichever way its bytes are
 * read. Then it says so and leaves the file where it is. One with another magic, or one that is too
 * short, counts as damaged, and is removed at the next start (libvirt 11; 9 does so with some).
 */
#define GUARD_BYTES 4096
#define GUARD_VERSION 0x7f00007fu
#define GUARD_MAGIC "HoldfastGuard01\n"
#define GUARD_TEXT \
	GUARD_MAGIC \
	"The memory of this domain is kept by holdfast, for a live update of the host or after " \
	"one.\n" \
	"libvirt can't start the domain while this file is here. See `holdfast status`.\n"

struct guard {
	char libvirt_magic[16];
	uint32_t libvirt_version;
	char libvirt_rest[108]; /* libvirt's header ends in it */
	char text[GUARD_BYTES - 128];
};
static_assert(sizeof(struct guard) == GUARD_BYTES, "no padding");

/* A name that libvirt accepts may not be one of a file: it refuses a slash itself. */
static int path_of(const struct hf_manifest_guest *g, const char *dir, const char *suffix,
	char *ret, size_t size)
{
	if (!g->name || !g->name[0] || strchr(g->name, '/'))
		return -EINVAL;
	return snprintf(ret, size, "%s/%s%s", dir, g->name, suffix) >= (int)size ? -ENAMETOOLONG
										 : 0;
}

static int failed(const char *what, const char *path, int r, struct hf_error *e)
{
	return hf_error_set(e, r, HF_ERR_FAILED, NULL, "can't %s %s: %s", what, path, strerror(-r));
}

int hf_libvirt_read_status(struct hf_manifest_guest *guest, struct hf_error *e)
{
	cleanup_free char *text = NULL;
	char path[512];
	int r = path_of(guest, HF_LIBVIRT_RUN_DIR, ".xml", path, sizeof(path));

	if (r == 0)
		r = hf_file_read(path, STATUS_MAX_BYTES, &text, NULL);
	if (r == 0 && !strstr(text, guest->uuid))
		r = -ESTALE;
	if (r < 0)
		return failed("read libvirt's status file", path, r, e);
	return hf_manifest_set(&guest->libvirt_status, text);
}

int hf_libvirt_log_path(const struct hf_manifest_guest *guest, char *ret, size_t size)
{
	return path_of(guest, HF_LIBVIRT_LOG_DIR, ".log", ret, size);
}

int hf_libvirt_publish(const struct hf_manifest_guest *guest, pid_t pid,
	const struct hf_libvirt_pty *ptys, size_t n_ptys, struct hf_error *e)
{
	cleanup_free char *xml = NULL;
	char path[512], number[24];
	int r;

	if (!guest->libvirt_status)
		return hf_error_set(e, -ENODATA, HF_ERR_FAILED, NULL,
			"libvirt's status file did not come over with it");
	r = hf_libvirt_patch_status(guest->libvirt_status, pid, ptys, n_ptys, &xml);
	if (r == 0)
		r = path_of(guest, HF_LIBVIRT_RUN_DIR, ".pid", path, sizeof(path));
	if (r == 0)
		r = hf_mkdir_p_public(HF_LIBVIRT_RUN_DIR);
	snprintf(number, sizeof(number), "%d", (int)pid);
	if (r == 0)
		r = hf_file_write_atomic(path, number, strlen(number), 0644);
	/* Last: that is what libvirt looks for. */
	if (r == 0)
		r = path_of(guest, HF_LIBVIRT_RUN_DIR, ".xml", path, sizeof(path));
	if (r == 0)
		r = hf_file_write_atomic(path, xml, strlen(xml), 0600);
	return r < 0 ? failed("write for libvirt", path, r, e) : 0;
}

void hf_libvirt_withdraw(const struct hf_manifest_guest *guest)
{
	static const char *const suffixes[] = {".xml", ".pid"};
	char path[512];

	for (size_t i = 0; i < HF_ARRAY_SIZE(suffixes); i++)
		if (path_of(guest, HF_LIBVIRT_RUN_DIR, suffixes[i], path, sizeof(path)) == 0)
			unlink(path);
}

int hf_libvirt_may_save(const struct hf_manifest_guest *guest, bool jump, struct hf_error *e)
{
	struct statfs fs;
	char path[512];
	int r = path_of(guest, HF_LIBVIRT_CONFIG_DIR, ".xml", path, sizeof(path));

	if (r < 0 || access(path, F_OK) < 0)
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"define it (`virsh define`), or shut it down for the update",
			"libvirt can't save a transient domain by itself");
	if (jump && statfs(HF_LIBVIRT_SAVE_DIR, &fs) == 0 &&
		(fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC))
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"mount a disk there, or shut the domain down for the update",
			"libvirt would save it to %s, which is in memory and gone after the jump",
			HF_LIBVIRT_SAVE_DIR);
	return 0;
}

/* ---- guard ---- */

/* Return: 1 it is one; 0 it is another file; -errno. */
static int is_guard(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct guard guard;
	int r;

	if (fd < 0)
		return -errno;
	r = hf_fd_read_full(fd, &guard, sizeof(guard));
	return r == 0 && memcmp(guard.text, GUARD_MAGIC, sizeof(GUARD_MAGIC) - 1) == 0;
}

int hf_libvirt_guard(const struct hf_manifest_guest *guest, struct hf_error *e)
{
	struct guard guard = {.libvirt_version = GUARD_VERSION};
	char path[512];
	int r = path_of(guest, HF_LIBVIRT_SAVE_DIR, ".save", path, sizeof(path));

	memcpy(guard.libvirt_magic, "LibvirtQemudSave", sizeof(guard.libvirt_magic));
	snprintf(guard.text, sizeof(guard.text), "%s%s %s\n", GUARD_TEXT, guest->uuid, guest->name);
	if (r == 0) {
		r = is_guard(path);
		if (r == 0)
			return hf_error_set(e, -EEXIST, HF_ERR_NOT_READY,
				"`virsh managedsave-remove` it, if nobody needs it any more",
				"libvirt has a saved image of it, %s, although it runs", path);
		r = r > 0 || r == -ENOENT ? 0 : r;
	}
	if (r == 0)
		r = hf_mkdir_p(HF_LIBVIRT_SAVE_DIR, 0755);
	if (r == 0)
		r = hf_file_write_atomic(path, &guard, sizeof(guard), 0600);
	return r < 0 ? failed("write", path, r, e) : 0;
}

static int remove_guard(const char *path)
{
	int r = is_guard(path);

	if (r <= 0)
		return r == -ENOENT ? 0 : r;
	return unlink(path) < 0 ? -errno : 0;
}

int hf_libvirt_unguard(const struct hf_manifest_guest *guest)
{
	char path[512];
	int r = path_of(guest, HF_LIBVIRT_SAVE_DIR, ".save", path, sizeof(path));

	return r < 0 ? r : remove_guard(path);
}

void hf_libvirt_unguard_all(void)
{
	DIR *dir = opendir(HF_LIBVIRT_SAVE_DIR);
	char path[512];

	for (struct dirent *d; dir && (d = readdir(dir));)
		if (snprintf(path, sizeof(path), HF_LIBVIRT_SAVE_DIR "/%s", d->d_name) <
			(int)sizeof(path))
			remove_guard(path);
	if (dir)
		closedir(dir);
}

/* ---- which domains run ---- */

/* The process of NAME.pid, if it lives. */
static pid_t read_pid(const char *file)
{
	cleanup_free char *text = NULL;
	char path[512];
	long pid;

	if (snprintf(path, sizeof(path), HF_LIBVIRT_RUN_DIR "/%s", file) >= (int)sizeof(path) ||
		hf_file_read(path, 64, &text, NULL) < 0)
		return 0;
	pid = strtol(text, NULL, 10);
	return pid > 1 && pid < INT32_MAX && kill((pid_t)pid, 0) == 0 ? (pid_t)pid : 0;
}

pid_t hf_libvirt_pid(const struct hf_manifest_guest *guest)
{
	char file[256];

	return guest->name && snprintf(file, sizeof(file), "%s.pid", guest->name) <
				       (int)sizeof(file)
		       ? read_pid(file)
		       : 0;
}

static bool is_known(const char *name, struct hf_manifest_guest *const *guests, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (hf_guest_is_libvirt(guests[i]) && strcmp(guests[i]->name, name) == 0)
			return true;
	return false;
}

int hf_libvirt_check_known(struct hf_manifest_guest *const *guests, size_t n, struct hf_error *e)
{
	DIR *dir = opendir(HF_LIBVIRT_RUN_DIR);
	char name[256] = "";
	int r = 0;

	for (struct dirent *d; dir && r == 0 && (d = readdir(dir));) {
		size_t len = strlen(d->d_name);

		/* driver.pid is the daemon's. */
		if (len < 5 || strcmp(d->d_name + len - 4, ".pid") != 0 ||
			strcmp(d->d_name, "driver.pid") == 0)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)len - 4, d->d_name);
		if (read_pid(d->d_name) > 0 && !is_known(name, guests, n))
			r = hf_error_set(e, -ESTALE, HF_ERR_STATE, "abort, then prepare again",
				"libvirt has started this domain since the update was prepared");
	}
	if (dir)
		closedir(dir);
	if (r < 0)
		hf_error_guest(e, name);
	return r;
}

bool hf_libvirt_has_domains(void)
{
	return hf_libvirt_check_known(NULL, 0, NULL) < 0;
}

/* ---- RAM ---- */

/*
 * Its name is QEMU's own word, which the agent has the rights to remove any file by. So it has to
 * be the very file that is QEMU's memory, and QEMU's user's own.
 */
static int remove_name(const char *path, int fd, uid_t uid)
{
	cleanup_free char *folder = strdup(path);
	char *slash = folder ? strrchr(folder, '/') : NULL;
	cleanup_close int dir = -EBADF;
	struct stat named, open_file;

	if (!folder || !slash || slash == folder)
		return folder ? -EINVAL : -ENOMEM;
	*slash = 0;
	dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fstatat(dir, slash + 1, &named, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (fstat(fd, &open_file) < 0)
		return -errno;
	if (!S_ISREG(named.st_mode) || named.st_dev != open_file.st_dev ||
		named.st_ino != open_file.st_ino || named.st_uid != uid)
		return -ESTALE;
	return unlinkat(dir, slash + 1, 0) < 0 ? -errno : 0;
}

int hf_libvirt_release_ram(
	const struct hf_manifest_guest *guest, const int *ram_fds, struct hf_error *e)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	int r = hf_cmdline_of_guest(guest, &plan, e);

	for (size_t i = 0; r == 0 && i < plan->n_ram; i++) {
		cleanup_params struct hf_params v = {0};
		const char *path;

		if (plan->ram[i].arg < 0)
			continue;
		r = hf_params_parse(plan->argv[plan->ram[i].arg], "qom-type", &v);
		path = r == 0 ? hf_params_get(&v, "mem-path") : NULL;
		/* In a domain that came over already it has none. */
		if (path && path[0] == '/' && strncmp(path, "/proc/", 6) != 0)
			r = remove_name(path, ram_fds[i], guest->uid);
		if (r < 0)
			failed("remove the name of the RAM file", path ? path : "", r, e);
	}
	return r;
}
