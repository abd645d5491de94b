/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/registration.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "vmm-glue/registration-trust.h"

#define SUFFIX ".json"

const char *hf_run_dir(void)
{
	const char *dir = secure_getenv("HOLDFAST_RUN_DIR");

	return dir && *dir ? dir : HF_RUN_DIR_DEFAULT;
}

static int guests_path(char *ret, size_t size)
{
	return snprintf(ret, size, "%s/guests", hf_run_dir()) < (int)size ? 0 : -ENAMETOOLONG;
}

int hf_registration_path(const char *uuid, char *ret, size_t size)
{
	int n = snprintf(ret, size, "%s/guests/%s" SUFFIX, hf_run_dir(), uuid);

	return n < (int)size ? 0 : -ENAMETOOLONG;
}

/*
 * Between "is the process in this file alive?" and what follows from the answer the file must not
 * change: launchers and the agent take turns. The lock ends with the fd.
 */
static int lock_guests(int *ret_fd)
{
	char path[PATH_MAX];
	cleanup_close int fd = -EBADF;

	if (snprintf(path, sizeof(path), "%s/guests/.lock", hf_run_dir()) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int same_process(const struct hf_registration *a, const struct hf_registration *b)
{
	return a->pid == b->pid && a->start_ticks == b->start_ticks;
}

int hf_registration_write(const struct hf_registration *reg, struct hf_error *error)
{
	cleanup_registration struct hf_registration old = {0};
	cleanup_close int lock = -EBADF;
	cleanup_free char *json = NULL;
	char path[PATH_MAX];
	size_t size;
	int r;

	r = hf_registration_format(reg, &json, &size, error);
	if (r < 0)
		return r;
	r = guests_path(path, sizeof(path));
	if (r == 0)
		r = hf_mkdir_p(hf_run_dir(), 0755);
	if (r == 0)
		r = hf_mkdir_p(path, 0700);
	if (r == 0)
		r = lock_guests(&lock);
	if (r < 0)
		return hf_error_set(error, r, r == -EACCES ? HF_ERR_NOT_PERMITTED : HF_ERR_FAILED,
			NULL, "%s: %s", hf_run_dir(), strerror(-r));
	r = hf_registration_check_folder(error);
	if (r < 0)
		return r;
	r = hf_registration_path(reg->guest.uuid, path, sizeof(path));
	if (r == 0 && hf_registration_read(path, &old, NULL) == 0 && !same_process(&old, reg) &&
		hf_registration_alive(&old))
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY,
			"end that one first, or start this one with another --uuid",
			"guest %s (%s) runs already, as process %d", old.guest.name, old.guest.uuid,
			(int)old.pid);
	if (r == 0)
		r = hf_file_write_atomic(path, json, size, 0600);
	if (r < 0)
		return hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "writing %s: %s", path, strerror(-r));
	return 0;
}

/* Never through a link, never from what would make us wait. */
static int read_file(
	const char *path, char **ret_json, size_t *ret_size, uid_t *ret_owner, struct hf_error *e)
{
	cleanup_close int fd =
		open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "reading %s: %s", path, strerror(errno));
	r = hf_registration_check_file(&st, e);
	if (r < 0) {
		hf_error_prefix(e, "%s", path);
		return r;
	}
	*ret_owner = st.st_uid;
	r = hf_fd_read_all(fd, HF_REGISTRATION_MAX_BYTES, ret_json, ret_size);
	return r < 0 ? hf_error_set(e, r, HF_ERR_FAILED, NULL, "reading %s: %s", path, strerror(-r))
		     : 0;
}

int hf_registration_read(const char *path, struct hf_registration *ret, struct hf_error *error)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	struct hf_registration reg = {0};
	cleanup_free char *json = NULL;
	char expected[HF_UUID_CHARS + sizeof(SUFFIX)];
	uid_t owner = (uid_t)-1;
	size_t size;
	int r;

	r = read_file(path, &json, &size, &owner, error);
	if (r < 0)
		return r;
	r = hf_registration_parse(json, size, &reg, error);
	if (r < 0) {
		hf_error_prefix(error, "%s", path);
		return r;
	}
	snprintf(expected, sizeof(expected), "%s" SUFFIX, reg.guest.uuid);
	if (strcmp(base, expected) != 0) {
		hf_registration_clear(&reg);
		return hf_error_set(error, -EBADMSG, HF_ERR_FAILED, NULL,
			"%s: it describes another guest than its name says", path);
	}
	reg.owner = owner;
	*ret = reg;
	return 0;
}

int hf_registration_remove(const char *uuid)
{
	char path[PATH_MAX];
	int r;

	r = hf_registration_path(uuid, path, sizeof(path));
	if (r < 0)
		return r;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* A zombie keeps its pid and start time, but nothing of the guest. */
static bool is_zombie(pid_t pid)
{
	cleanup_free char *stat = NULL;
	char path[64];
	char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (hf_file_read(path, 8192, &stat, NULL) < 0)
		return true;
	p = strrchr(stat, ')');
	return p && p[1] == ' ' && (p[2] == 'Z' || p[2] == 'X');
}

bool hf_registration_alive(const struct hf_registration *reg)
{
	uint64_t ticks;

	return hf_pid_start_time(reg->pid, &ticks) == 0 && ticks == reg->start_ticks &&
	       !is_zombie(reg->pid);
}

static int by_name(const void *a, const void *b)
{
	const struct hf_registration *x = a, *y = b;
	int r = strcmp(x->guest.name, y->guest.name);

	return r ? r : strcmp(x->guest.uuid, y->guest.uuid);
}

static bool is_registration_name(const char *name)
{
	size_t len = strlen(name);

	return name[0] != '.' && len > strlen(SUFFIX) &&
	       strcmp(name + len - strlen(SUFFIX), SUFFIX) == 0;
}

/* Reads one file; @list grows by it when its process lives. */
static int take_file(const char *path, struct hf_registration **list, size_t *n, size_t *bad)
{
	struct hf_registration reg = {0};
	struct hf_registration *p;
	int r;

	r = hf_registration_read(path, &reg, NULL);
	if (r == -ENOMEM || r == -ENOENT)
		return r == -ENOENT ? 0 : r;
	if (r < 0) {
		(*bad)++;
		return 0;
	}
	if (!hf_registration_alive(&reg)) {
		unlink(path);
		hf_registration_clear(&reg);
		return 0;
	}
	r = hf_registration_check_process(&reg, NULL);
	if (r < 0) {
		hf_registration_clear(&reg);
		*bad += r != -ESRCH; /* has just ended */
		return 0;
	}
	p = realloc(*list, (*n + 1) * sizeof(*p));
	if (!p) {
		hf_registration_clear(&reg);
		return -ENOMEM;
	}
	*list = p;
	p[(*n)++] = reg;
	return 0;
}

static void cleanup_dirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

int hf_registration_list(struct hf_registration **ret, size_t *ret_n, size_t *ret_bad)
{
	HF_CLEANUP(cleanup_dirp) DIR *d = NULL;
	cleanup_close int lock = -EBADF;
	struct hf_registration *list = NULL;
	char folder[PATH_MAX], path[PATH_MAX];
	size_t n = 0, bad = 0;
	struct dirent *entry;
	int r;

	r = guests_path(folder, sizeof(folder));
	if (r < 0)
		return r;
	d = opendir(folder);
	if (!d && errno != ENOENT)
		return -errno;
	if (d)
		r = lock_guests(&lock);
	while (r == 0 && d && (entry = readdir(d))) {
		if (!is_registration_name(entry->d_name))
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >=
			(int)sizeof(path))
			continue;
		r = take_file(path, &list, &n, &bad);
	}
	if (r < 0) {
		hf_registration_list_free(list, n);
		return r;
	}
	if (n > 1)
		qsort(list, n, sizeof(*list), by_name);
	*ret = list;
	*ret_n = n;
	if (ret_bad)
		*ret_bad = bad;
	return 0;
}

void hf_registration_list_free(struct hf_registration *regs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hf_registration_clear(&regs[i]);
	free(regs);
}

void hf_registration_clear(struct hf_registration *reg)
{
	hf_manifest_clear_guest(&reg->guest);
	*reg = (struct hf_registration){0};
}

static int open_one(
	const struct hf_registration *reg, size_t i, int *ret_fd, struct hf_error *error)
{
	const struct hf_manifest_guest *g = &reg->guest;
	cleanup_close int fd = -EBADF;
	struct hf_inode inode = {0};
	uint64_t size = 0;
	struct stat st;
	int r;

	r = hf_pid_get_fd(reg->pid, reg->start_ticks, g->ram[i].fd, &fd);
	if (r == 0)
		r = hf_fd_inode(fd, &inode, &size);
	if (r == -ESTALE || r == -ESRCH)
		return hf_error_set(error, -ESTALE, HF_ERR_NOT_READY, "start it again",
			"guest %s: process %d has ended", g->name, (int)reg->pid);
	if (r < 0)
		return hf_error_set(error, r, r == -EPERM ? HF_ERR_NOT_PERMITTED : HF_ERR_FAILED,
			NULL, "guest %s: taking RAM %s (fd %d) from process %d: %s", g->name,
			g->ram[i].id, (int)g->ram[i].fd, (int)reg->pid, strerror(-r));
	if (!hf_inode_equal(&inode, &reg->ram_inodes[i]) || size < g->ram[i].size)
		return hf_error_set(error, -ESTALE, HF_ERR_NOT_READY, "start it again",
			"guest %s: fd %d of process %d isn't RAM %s any more", g->name,
			(int)g->ram[i].fd, (int)reg->pid, g->ram[i].id);
	/* A program with more rights than its user may have anything open, under a number to guess.
	 */
	if (!hf_registration_trusts(reg->owner) &&
		(fstat(fd, &st) < 0 || st.st_uid != reg->owner || fcntl(fd, F_GET_SEALS) < 0))
		return hf_error_set(error, -EPERM, HF_ERR_NOT_PERMITTED, "start it again",
			"guest %s: RAM %s (fd %d) of process %d is no memory of user %u", g->name,
			g->ram[i].id, (int)g->ram[i].fd, (int)reg->pid, (unsigned int)reg->owner);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int hf_registration_open_ram(
	const struct hf_registration *reg, int *ret_fds, struct hf_error *error)
{
	size_t n;
	int r = 0;

	if (reg->guest.n_ram > HF_MANIFEST_MAX_RAM)
		return hf_error_set(error, -EINVAL, HF_ERR_FAILED, NULL, "too many RAM blocks");
	for (n = 0; n < reg->guest.n_ram; n++) {
		r = open_one(reg, n, &ret_fds[n], error);
		if (r < 0)
			break;
	}
	if (r == 0)
		return 0;
	hf_error_guest(error, reg->guest.name);
	while (n > 0)
		hf_close(&ret_fds[--n]);
	return r;
}
