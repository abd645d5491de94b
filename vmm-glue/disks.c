/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/disks.h"

#include <fcntl.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "vmm-glue/spawner.h"

/* File systems made read-only here are remembered for the way back. */
#define MAX_REMOUNTED 64
static char *remounted[MAX_REMOUNTED];
static size_t n_remounted;

/*
 * Reconfigures the file system itself. mount(2) with MS_REMOUNT would also reset the mount's own
 * flags (nosuid, nodev, ...) to whatever is given, and the way back could not know them.
 */
static int set_read_only(const char *dir, bool read_only)
{
	cleanup_close int fs = syscall(SYS_fspick, AT_FDCWD, dir, FSPICK_CLOEXEC);

	if (fs < 0 ||
		syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, read_only ? "ro" : "rw", NULL, 0) <
			0 ||
		syscall(SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
		return -errno;
	return 0;
}

static void make_read_only(const struct mntent *m)
{
	char *dir;

	if (strncmp(m->mnt_fsname, "/dev/", 5) != 0 || hasmntopt(m, "ro") ||
		n_remounted == MAX_REMOUNTED)
		return;
	dir = strdup(m->mnt_dir);
	/* EBUSY is the normal answer where guests' disks or logs are open for writing. */
	if (dir && set_read_only(dir, true) == 0)
		remounted[n_remounted++] = dir;
	else
		free(dir);
}

static void settle(void)
{
	FILE *f;

	sync();
	f = setmntent("/proc/self/mounts", "re");
	if (!f)
		return;
	for (struct mntent *m; (m = getmntent(f));)
		make_read_only(m);
	endmntent(f);
}

static void unsettle(void)
{
	while (n_remounted > 0) {
		char *dir = remounted[--n_remounted];

		set_read_only(dir, false);
		free(dir);
	}
}

void hf_disks_settle_here(bool settled)
{
	if (settled)
		settle();
	else
		unsettle();
}

int hf_disks_settle(bool settled, struct hf_error *error)
{
	const char *spawner = hf_spawn_spawner();

	if (spawner)
		return hf_spawner_settle_disks(spawner, settled, error);
	hf_disks_settle_here(settled);
	return 0;
}
