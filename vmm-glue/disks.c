/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/disks.h"

#include <fcntl.h>
#include <mntent.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include "common/fd.h"
#include "vmm-glue/note.h"
#include "vmm-glue/spawn.h"
#include "vmm-glue/spawner.h"

/* Mount points, one a line. */
#define NOTE "read-only"
#define NOTE_MAX_BYTES (1024 * 1024)

/*
 * Reconfigures the file system itself. mount(2) with MS_REMOUNT would also reset the mount's own
 * flags (nosuid, nodev, ...) to whatever is given, and the way back could not know them.
 */
static int set_read_only(const char *dir, bool read_only)
{
	cleanup_close int fs = (int)syscall(SYS_fspick, AT_FDCWD, dir, FSPICK_CLOEXEC);

	if (fs < 0 ||
		syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, read_only ? "ro" : "rw", NULL, 0) <
			0 ||
		syscall(SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		return -errno;
	return 0;
}

static bool may_become_read_only(const struct mntent *m)
{
	return strncmp(m->mnt_fsname, "/dev/", 5) == 0 && !hasmntopt(m, "ro") &&
	       !strchr(m->mnt_dir, '\n');
}

static void settle(void)
{
	cleanup_close int note = -EBADF;
	char path[4096];
	FILE *f;

	sync();
	hf_note_path(NOTE, path, sizeof(path));
	note = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	f = setmntent("/proc/self/mounts", "re");
	for (struct mntent *m; f && note >= 0 && (m = getmntent(f));) {
		/* Without a note of it one could not be made writable again. */
		if (!may_become_read_only(m) ||
			hf_fd_write_full(note, m->mnt_dir, strlen(m->mnt_dir)) < 0 ||
			hf_fd_write_full(note, "\n", 1) < 0)
			continue;
		/* EBUSY is the normal answer where guests' disks or logs are open for writing. */
		set_read_only(m->mnt_dir, true);
	}
	if (f)
		endmntent(f);
}

bool hf_disks_next_noted(const char **text, size_t *size, char *ret_dir, size_t dir_size)
{
	const char *end;

	while (*size > 0 && (end = memchr(*text, '\n', *size))) {
		const char *line = *text;
		size_t n = (size_t)(end - line);

		*text += n + 1;
		*size -= n + 1;
		if (n == 0 || n >= dir_size || line[0] != '/' || memchr(line, 0, n))
			continue;
		memcpy(ret_dir, line, n);
		ret_dir[n] = 0;
		return true;
	}
	return false;
}

static void unsettle(void)
{
	cleanup_free char *text = NULL;
	const char *rest;
	size_t size = 0;
	char dir[4096];

	if (hf_note_read(NOTE, NOTE_MAX_BYTES, &text, &size) < 0)
		return;
	rest = text;
	/* In those that stayed writable this changes nothing. */
	while (hf_disks_next_noted(&rest, &size, dir, sizeof(dir)))
		set_read_only(dir, false);
	hf_note_remove(NOTE);
}

void hf_disks_settle_here(bool settled)
{
	if (settled)
		settle();
	else
		unsettle();
}

bool hf_disks_left_settled(void)
{
	return hf_note_is_there(NOTE);
}

int hf_disks_settle(bool settled, struct hf_error *error)
{
	const char *spawner = hf_spawn_spawner();

	if (spawner)
		return hf_spawner_settle_disks(spawner, settled, error);
	hf_disks_settle_here(settled);
	return 0;
}
