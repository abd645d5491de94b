/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Telling the memfds of a QEMU apart, each of which is one memory object.
 */
#include <dirent.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt-internal.h"

#define MEMFD_LINK "/memfd:memory-backend-memfd (deleted)"
#define LINE_MAX_BYTES 4096
#define CMDLINE_MAX_BYTES (4u << 20)

bool hf_libvirt_parse_map(const char *line, uint64_t address, struct hf_inode *ret)
{
	unsigned int major, minor;
	uint64_t from, to, inode;
	char mode[5];

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %x:%x %" SCNu64, &from, &to, mode, &major,
		    &minor, &inode) != 6 ||
		address < from || address >= to || strncmp(mode, "rw", 2) != 0 || mode[3] != 's')
		return false;
	*ret = (struct hf_inode){.dev = makedev(major, minor), .ino = inode};
	return true;
}

/* The file that is mapped there. */
static int mapped_at(pid_t pid, uint64_t address, struct hf_inode *ret)
{
	char path[64], line[LINE_MAX_BYTES];
	bool found = false;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "re");
	if (!maps)
		return -errno;
	while (!found && fgets(line, sizeof(line), maps))
		found = hf_libvirt_parse_map(line, address, ret);
	fclose(maps);
	return found ? 0 : -ENOENT;
}

/* Is the descriptor's link to a memfd of a memory object? */
static bool is_memfd(const char *link)
{
	char target[256];
	ssize_t n = readlink(link, target, sizeof(target) - 1);

	target[n < 0 ? 0 : n] = 0;
	return strcmp(target, MEMFD_LINK) == 0;
}

int hf_libvirt_find_memfd(
	pid_t pid, uint64_t address, int *ret_fd, struct hf_inode *ret_inode, bool *ret_shmem)
{
	struct hf_inode wanted = {0}, have = {0};
	char folder[64], link[384];
	bool shmem = false;
	int number = -1, r = 0;
	DIR *dir;

	if (address)
		r = mapped_at(pid, address, &wanted);
	if (r < 0)
		return r;
	snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)pid);
	dir = opendir(folder);
	if (!dir)
		return -errno;
	for (struct dirent *d; r == 0 && (d = readdir(dir));) {
		struct hf_inode inode;
		struct statfs fs;
		struct stat st;
		int fd = (int)strtol(d->d_name, NULL, 10);

		snprintf(link, sizeof(link), "%s/%s", folder, d->d_name);
		if (d->d_name[0] == '.' || !is_memfd(link) || stat(link, &st) < 0 ||
			statfs(link, &fs) < 0)
			continue;
		inode = (struct hf_inode){.dev = st.st_dev, .ino = st.st_ino};
		if (address && !hf_inode_equal(&inode, &wanted))
			continue;
		if (number >= 0 && !hf_inode_equal(&inode, &have))
			r = -ENOTUNIQ;
		number = number < 0 ? fd : HF_MIN(number, fd);
		have = inode;
		shmem = fs.f_type == TMPFS_MAGIC;
	}
	closedir(dir);
	if (r < 0 || number < 0)
		return r < 0 ? r : -ENOENT;
	*ret_fd = number;
	*ret_inode = have;
	*ret_shmem = shmem;
	return 0;
}

/* Since then it leaves out what has a name that others can open it by, and no other memory. */
static bool leaves_memfds_out(const uint32_t version[3])
{
	return version[0] < 8 || (version[0] == 8 && version[1] < 1);
}

int hf_libvirt_check_memfds(const struct hf_manifest_guest *guest, pid_t pid, struct hf_error *e)
{
	static const char object[] = "memory-backend-memfd";
	cleanup_free char *text = NULL;
	const uint32_t *version = guest->qemu_version;
	char path[64], remedy[256];
	size_t size = 0;
	int r;

	if (!hf_guest_is_libvirt(guest) || leaves_memfds_out(version))
		return 0;
	/* Its own, not libvirt's: in one that was started for an update they are files. */
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	r = hf_file_read(path, CMDLINE_MAX_BYTES, &text, &size);
	if (r < 0)
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "can't read %s: %s", path, strerror(-r));
	if (!memmem(text, size, object, sizeof(object) - 1))
		return 0;
	snprintf(remedy, sizeof(remedy),
		"`holdfast libvirt enable %.63s` gives the domain memory that can be preserved, "
		"from "
		"its next start on",
		guest->name);
	return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, remedy,
		"its RAM is on memfds, and QEMU %u.%u saves such RAM with the device state: only "
		"QEMU before 8.1 leaves it where it is",
		version[0], version[1]);
}
