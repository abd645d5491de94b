/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Learning from a running VMM which files it starts from.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "memfd-preserve/readahead.h"

#define MAPS_MAX_BYTES (16u << 20)
#define MAX_WRITABLE 1024

/* Files the process can write to: never ours to read. */
struct writable {
	struct hf_inode inodes[MAX_WRITABLE];
	size_t n;
};

void hf_readahead_clear(struct hf_readahead_list *list)
{
	for (size_t i = 0; i < list->n_files; i++)
		free(list->files[i].path);
	free(list->files);
	*list = (struct hf_readahead_list){0};
}

static int append(struct hf_readahead_list *list, const struct hf_readahead_file *file)
{
	struct hf_readahead_file *files;
	char *path;

	if (list->n_files >= HF_READAHEAD_MAX_FILES)
		return -EFBIG;
	path = strdup(file->path);
	files = reallocarray(list->files, list->n_files + 1, sizeof(*files));
	if (files)
		list->files = files;
	if (!path || !files) {
		free(path);
		return -ENOMEM;
	}
	files[list->n_files] = *file;
	files[list->n_files++].path = path;
	list->bytes += file->size;
	return 0;
}

int hf_readahead_add(struct hf_readahead_list *list, const char *path, uint64_t size)
{
	return append(
		list, &(struct hf_readahead_file){.path = (char *)(uintptr_t)path, .size = size});
}

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool path_is_file(const char *path)
{
	static const char deleted[] = " (deleted)";
	size_t len = strlen(path), n = sizeof(deleted) - 1;

	if (path[0] != '/' || (len >= n && strcmp(path + len - n, deleted) == 0))
		return false;
	return !starts_with(path, "/dev/") && !starts_with(path, "/proc/") &&
	       !starts_with(path, "/sys/") && !starts_with(path, "/memfd:");
}

static bool is_writable(const struct writable *w, const struct stat *st)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->inodes[i].dev == st->st_dev && w->inodes[i].ino == st->st_ino)
			return true;
	return false;
}

/*
 * Add a path that is worth it. It may lead to another file than the one the process has: a package
 * upgrade put it there, and it is what the next VMM will open, so it is the right one to take.
 */
static int add_path(struct hf_readahead_list *list, const char *path, const struct writable *w)
{
	struct stat st;
	int r;

	if (!path_is_file(path) || stat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0 ||
		(uint64_t)st.st_size > HF_READAHEAD_MAX_FILE_BYTES || is_writable(w, &st))
		return 0;
	for (size_t i = 0; i < list->n_files; i++)
		if (list->files[i].ino == st.st_ino && list->files[i].dev == st.st_dev)
			return 0;
	r = append(list, &(struct hf_readahead_file){
				 .path = (char *)(uintptr_t)path,
				 .size = (uint64_t)st.st_size,
				 .dev = st.st_dev,
				 .ino = st.st_ino,
			 });
	return r == -EFBIG ? 0 : r;
}

/* How the process has it open: O_RDONLY, O_WRONLY or O_RDWR; -errno. */
static int access_mode(pid_t pid, const char *fd)
{
	cleanup_free char *data = NULL;
	char path[64];
	const char *flags;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%.16s", (int)pid, fd);
	r = hf_file_read(path, 64 << 10, &data, NULL);
	if (r < 0)
		return r;
	flags = strstr(data, "flags:");
	if (!flags)
		return -EBADMSG;
	return (int)(strtoul(flags + strlen("flags:"), NULL, 8) & O_ACCMODE);
}

/* One open descriptor: note it as writable, or add it. Descriptors may go while we look. */
static int visit_fd(pid_t pid, const char *fd, bool writable_pass, struct writable *w,
	struct hf_readahead_list *list)
{
	char link[64], target[4096];
	struct stat st;
	ssize_t n;
	int mode;

	snprintf(link, sizeof(link), "/proc/%d/fd/%.16s", (int)pid, fd);
	if (stat(link, &st) < 0 || !S_ISREG(st.st_mode))
		return 0;
	mode = access_mode(pid, fd);
	if (mode < 0)
		return 0;
	if (writable_pass) {
		if (mode != O_RDONLY && w->n < MAX_WRITABLE)
			w->inodes[w->n++] = (struct hf_inode){st.st_dev, st.st_ino};
		return 0;
	}
	n = mode == O_RDONLY ? readlink(link, target, sizeof(target) - 1) : -1;
	if (n <= 0)
		return 0;
	target[n] = 0;
	return add_path(list, target, w);
}

static int visit_fds(
	pid_t pid, bool writable_pass, struct writable *w, struct hf_readahead_list *list)
{
	char path[64];
	struct dirent *entry;
	int r = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while (r == 0 && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			r = visit_fd(pid, entry->d_name, writable_pass, w, list);
	closedir(dir);
	return r;
}

/* Lines of `from-to rwxp offset major:minor inode   path`. */
static int visit_maps(pid_t pid, const struct writable *w, struct hf_readahead_list *list)
{
	cleanup_free char *maps = NULL;
	char path[64], *line, *save = NULL;
	const char *last = "";
	int r;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	r = hf_file_read(path, MAPS_MAX_BYTES, &maps, NULL);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	for (line = strtok_r(maps, "\n", &save); line && r >= 0;
		line = strtok_r(NULL, "\n", &save)) {
		char *file = strchr(line, '/'), *perms = strchr(line, ' ');

		if (!file || !perms || strcmp(file, last) == 0)
			continue;
		last = file; /* a library has several lines in a row */
		/* Shared and writable: data, not code. */
		if (perms[2] == 'w' && perms[4] == 's')
			continue;
		r = add_path(list, file, w);
	}
	return r;
}

int hf_readahead_collect(pid_t pid, const char *const *extra, struct hf_readahead_list *list)
{
	struct writable *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	r = visit_fds(pid, true, w, list);
	if (r == 0)
		r = visit_maps(pid, w, list);
	if (r == 0)
		r = visit_fds(pid, false, w, list);
	for (; r == 0 && extra && *extra; extra++)
		r = add_path(list, *extra, w);
	free(w);
	return r;
}
