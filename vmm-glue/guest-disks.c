/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/guest-disks.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/fd.h"

/*
 * File systems keep times on disk in units of up to two seconds (FAT), rounded down: a file may
 * seem that much older once it was read anew.
 */
#define ROUNDED_NS (2 * HF_NSEC_PER_SEC)

/* One of several that write to the same disk says nothing about the others. */
static bool shares_disks(const struct hf_manifest_guest *guest)
{
	for (size_t i = 0; i < guest->n_argv; i++) {
		const char *p = strstr(guest->argv[i], "share-rw");

		if (p && !strstr(p, "share-rw=off"))
			return true;
	}
	return false;
}

static bool is_in_memory(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) < 0 || fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC ||
	       fs.f_type == HUGETLBFS_MAGIC;
}

/* From its line "flags:\t0100002", which is octal. */
static bool is_read_and_written(pid_t pid, const char *number)
{
	char path[300];
	cleanup_free char *text = NULL;
	const char *flags;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)pid, number);
	if (hf_file_read(path, 65536, &text, NULL) < 0)
		return false;
	flags = strstr(text, "flags:\t");
	return flags && (strtoul(flags + strlen("flags:\t"), NULL, 8) & O_ACCMODE) == O_RDWR;
}

static uint64_t mtime_of(const struct stat *st)
{
	return (uint64_t)st->st_mtim.tv_sec * HF_NSEC_PER_SEC + (uint64_t)st->st_mtim.tv_nsec;
}

static int note(struct hf_manifest_guest *guest, const char *path)
{
	struct hf_manifest_disk *disk;

	for (size_t i = 0; i < guest->n_disks; i++)
		if (strcmp(guest->disks[i].path, path) == 0)
			return 0;
	if (guest->n_disks == HF_MANIFEST_MAX_DISKS)
		return 0;
	disk = hf_manifest_add_disk(guest);
	return disk ? hf_manifest_set(&disk->path, path) : -ENOMEM;
}

static int look_at(struct hf_manifest_guest *guest, pid_t pid, const char *number)
{
	char link[300], path[PATH_MAX];
	struct stat open, named;
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/%d/fd/%s", (int)pid, number);
	if (stat(link, &open) < 0 || !S_ISREG(open.st_mode) || is_in_memory(link) ||
		!is_read_and_written(pid, number))
		return 0;
	n = readlink(link, path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = 0;
	/* Removed, or in another mount name space. */
	if (path[0] != '/' || stat(path, &named) < 0 || named.st_dev != open.st_dev ||
		named.st_ino != open.st_ino)
		return 0;
	return note(guest, path);
}

int hf_guest_disks_collect(struct hf_manifest_guest *guest, pid_t pid)
{
	char folder[64];
	DIR *dir;
	int r = 0;

	hf_manifest_forget_disks(guest);
	snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)pid);
	dir = shares_disks(guest) ? NULL : opendir(folder);
	for (struct dirent *d; dir && r == 0 && (d = readdir(dir));)
		if (d->d_name[0] != '.')
			r = look_at(guest, pid, d->d_name);
	if (dir)
		closedir(dir);
	return r;
}

void hf_guest_disks_stamp(struct hf_manifest_guest *guest)
{
	struct stat st;

	for (size_t i = 0; i < guest->n_disks; i++) {
		struct hf_manifest_disk *disk = &guest->disks[i];

		disk->size = disk->mtime_ns = 0;
		if (stat(disk->path, &st) == 0) {
			disk->size = (uint64_t)st.st_size;
			disk->mtime_ns = mtime_of(&st);
		}
	}
}

static bool has_changed(const struct hf_manifest_disk *disk, const struct stat *st)
{
	uint64_t now = mtime_of(st);

	return (uint64_t)st->st_size != disk->size || now > disk->mtime_ns ||
	       disk->mtime_ns - now >= ROUNDED_NS;
}

int hf_guest_disks_check(const struct hf_manifest_guest *guest, struct hf_error *e)
{
	struct stat st;

	for (size_t i = 0; i < guest->n_disks; i++) {
		const struct hf_manifest_disk *disk = &guest->disks[i];

		if (disk->mtime_ns == 0 || stat(disk->path, &st) < 0 || !has_changed(disk, &st))
			continue;
		return hf_error_set(e, -ESTALE, HF_ERR_DEGRADED,
			"see who wrote to it: if the guest was started afresh, here or on another "
			"host, release this memory, which is of the past; retry it with "
			"--ignore-disks if nothing in the disk has changed",
			"its disk %.300s was written to after its memory was saved", disk->path);
	}
	return 0;
}
