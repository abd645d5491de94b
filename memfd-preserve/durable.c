/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/durable.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

int hf_durable_failed(struct hf_error *e, int r, const char *what, const char *path)
{
	return hf_error_set(e, r, HF_ERR_FAILED, "look at the file system that it is on",
		"can't %s %s: %s", what, path, strerror(-r));
}

int hf_durable_sync_folder(const char *path, struct hf_error *e)
{
	cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? hf_durable_failed(e, -errno, "write back", path) : 0;
}

int hf_durable_rename(const char *folder, const char *from, const char *to, struct hf_error *e)
{
	if (rename(from, to) < 0)
		return hf_durable_failed(e, -errno, "rename", from);
	return hf_durable_sync_folder(folder, e);
}

int hf_remove_tree(const char *path, int depth)
{
	DIR *dir = opendir(path);
	int r = dir ? 0 : -errno;

	for (struct dirent *d; dir && (d = readdir(dir));) {
		char below[4352];
		struct stat st;

		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		snprintf(below, sizeof(below), "%s/%s", path, d->d_name);
		if (depth > 0 && lstat(below, &st) == 0 && S_ISDIR(st.st_mode))
			r = hf_remove_tree(below, depth - 1) < 0 ? -EIO : r;
		else if (unlink(below) < 0)
			r = -errno;
	}
	if (dir)
		closedir(dir);
	if (r == 0 && rmdir(path) < 0)
		r = -errno;
	return r == -ENOENT ? 0 : r;
}
