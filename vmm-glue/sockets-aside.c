/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/sockets-aside.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".holdfast-old"

/* One socket: its folder, opened once, and its two names there. */
struct place {
	int dir;
	char name[NAME_MAX + 1];
	char aside[NAME_MAX + 1];
};

static void place_close(struct place *p)
{
	if (p->dir >= 0)
		close(p->dir);
}

static int place_open(const struct hf_manifest_guest *guest, const char *path, struct place *ret)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char dir[PATH_MAX];
	int n;

	ret->dir = -EBADF;
	n = path[0] == '/' ? snprintf(dir, sizeof(dir), "%.*s/", (int)(slash - path), path)
			   : snprintf(dir, sizeof(dir), "%s/%.*s", guest->cwd ? guest->cwd : "",
				     slash ? (int)(slash - path) : 0, path);
	if (n >= (int)sizeof(dir) || !name[0] ||
		snprintf(ret->name, sizeof(ret->name), "%s", name) >= (int)sizeof(ret->name) ||
		snprintf(ret->aside, sizeof(ret->aside), "%s" SUFFIX, name) >=
			(int)sizeof(ret->aside))
		return -ENAMETOOLONG;
	ret->dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return ret->dir < 0 ? -errno : 0;
}

/* Return: 0 it is a socket of the guest's user; -ENOENT; -EPERM it is something else. */
static int look(const struct hf_manifest_guest *guest, const struct place *p, const char *name)
{
	struct stat st;

	if (fstatat(p->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return S_ISSOCK(st.st_mode) && st.st_uid == guest->uid ? 0 : -EPERM;
}

static int move(const struct hf_manifest_guest *guest, const char *path, bool back)
{
	struct place p;
	int r = place_open(guest, path, &p);
	const char *from = back ? p.aside : p.name, *to = back ? p.name : p.aside;

	if (r == 0)
		r = look(guest, &p, from);
	if (r == 0 && (r = look(guest, &p, to)) == -ENOENT)
		r = 0;
	if (r == 0 && renameat(p.dir, from, p.dir, to) < 0)
		r = -errno;
	place_close(&p);
	/* It was removed since it was made, or an agent before this one got no further. */
	return r == -ENOENT ? 0 : r;
}

int hf_sockets_put_aside(const struct hf_manifest_guest *guest, const struct hf_beside_paths *paths,
	struct hf_error *e)
{
	for (size_t i = 0; i < paths->n; i++) {
		int r = move(guest, paths->v[i], false);

		if (r == 0)
			continue;
		hf_error_set(e, r, HF_ERR_NOT_READY,
			"see whose it is and who may write to its folder",
			"the socket %.200s that it listens on can't be renamed: %s", paths->v[i],
			strerror(-r));
		hf_sockets_put_back(guest, paths);
		return r;
	}
	return 0;
}

void hf_sockets_put_back(const struct hf_manifest_guest *guest, const struct hf_beside_paths *paths)
{
	for (size_t i = 0; i < paths->n; i++)
		move(guest, paths->v[i], true);
}

void hf_sockets_forget(const struct hf_manifest_guest *guest, const struct hf_beside_paths *paths)
{
	for (size_t i = 0; i < paths->n; i++) {
		struct place p;

		if (place_open(guest, paths->v[i], &p) == 0 && look(guest, &p, p.aside) == 0)
			unlinkat(p.dir, p.aside, 0);
		place_close(&p);
	}
}
