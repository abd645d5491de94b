/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/kexec.h"

#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/fd.h"

#define KERNEL_HEAD_BYTES (64 * 1024)
#define CMDLINE_MAX_BYTES 2048 /* COMMAND_LINE_SIZE of x86 */

int hf_target_image_version(const void *image, size_t size, char ret[64])
{
	const unsigned char *p = image;
	size_t at;

	if (size < 0x250 || p[0x1fe] != 0x55 || p[0x1ff] != 0xaa ||
		memcmp(p + 0x202, "HdrS", 4) != 0)
		return -EBADMSG;
	at = (size_t)(p[0x20e] | p[0x20f] << 8);
	if (at == 0)
		return -ENODATA;
	at += 0x200;
	if (at + 1 >= size)
		return -ENODATA;
	/* "7.2.12 (builder@host) #1 SMP ...": the release is its first word. */
	for (size_t i = 0; i < 63 && at + i < size; i++) {
		unsigned char c = p[at + i];

		if (c <= ' ' || c >= 0x7f) {
			memcpy(ret, p + at, i);
			ret[i] = 0;
			return i ? 0 : -ENODATA;
		}
	}
	return -ENODATA;
}

static uint32_t le32(const unsigned char *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

int hf_target_image_min_bytes(const void *image, size_t size, uint64_t *ret_bytes)
{
	const unsigned char *p = image;
	uint64_t setup_sects;

	if (size < 0x250 || p[0x1fe] != 0x55 || p[0x1ff] != 0xaa ||
		memcmp(p + 0x202, "HdrS", 4) != 0)
		return -EBADMSG;
	setup_sects = p[0x1f1] ? p[0x1f1] : 4;
	/* The boot sector, the real-mode code, and the protected-mode code in units of 16 bytes. */
	*ret_bytes = (1 + setup_sects) * 512 + (uint64_t)le32(p + 0x1f4) * 16;
	return 0;
}

static bool has_word(const char *line, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = line; (p = strstr(p, word)); p += n) {
		if ((p == line || p[-1] == ' ') && (p[n] == 0 || p[n] == ' '))
			return true;
	}
	return false;
}

static int add_word(char *line, size_t room, const char *word, size_t n)
{
	size_t have = strlen(line);

	if (n == 0)
		return 0;
	if (have + n + 2 > room)
		return -E2BIG;
	snprintf(line + have, room - have, "%s%.*s", have ? " " : "", (int)n, word);
	return 0;
}

static bool is_loader_word(const char *word, size_t n)
{
	return (n >= 11 && strncmp(word, "BOOT_IMAGE=", 11) == 0) ||
	       (n >= 7 && strncmp(word, "initrd=", 7) == 0);
}

char *hf_target_cmdline(const char *running, const char *append, const char *cmdline)
{
	static const char *const needed[] = {"kho=on", "liveupdate=on"};
	const char *from = cmdline ? cmdline : running;
	size_t room = strlen(from) + (append ? strlen(append) : 0) + 64;
	char *line = calloc(1, room);

	if (!line)
		return NULL;
	for (const char *p = from; *p;) {
		size_t n = strcspn(p, " \t\n");

		if (cmdline || !is_loader_word(p, n))
			add_word(line, room, p, n);
		p += n;
		p += strspn(p, " \t\n");
	}
	if (append && !cmdline)
		add_word(line, room, append, strlen(append));
	for (size_t i = 0; i < HF_ARRAY_SIZE(needed); i++) {
		if (!has_word(line, needed[i]))
			add_word(line, room, needed[i], strlen(needed[i]));
	}
	return line;
}

static int open_regular(const char *path, const char *what, int *ret_fd, struct hf_error *error)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return hf_error_set(error, -errno, HF_ERR_NOT_READY,
			"give the path of a file root can read", "can't open %s %s: %s", what, path,
			strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return hf_error_set(error, -EINVAL, HF_ERR_NOT_READY,
			"give the path of the image itself", "%s %s is not a file with contents",
			what, path);
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/*
 * kexec_file_load(2) takes a cut image without a word, and the jump then ends in nothing.
 */
static int check_whole(const char *path, int fd, const void *head, size_t n, struct hf_error *error)
{
	uint64_t needed = 0;
	struct stat st;

	if (hf_target_image_min_bytes(head, n, &needed) < 0 || fstat(fd, &st) < 0)
		return hf_error_set(
			error, -EBADMSG, HF_ERR_NOT_READY, NULL, "can't tell the size of %s", path);
	if ((uint64_t)st.st_size < needed)
		return hf_error_set(error, -EBADMSG, HF_ERR_NOT_READY, "copy or install it again",
			"%s is cut: it has %llu bytes, and should have %llu", path,
			(unsigned long long)st.st_size, (unsigned long long)needed);
	return 0;
}

static int read_version(const char *path, char **ret, struct hf_error *error)
{
	cleanup_free unsigned char *head = malloc(KERNEL_HEAD_BYTES);
	cleanup_close int fd = -EBADF;
	char version[64];
	ssize_t n;
	int r;

	if (!head)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	r = open_regular(path, "kernel", &fd, error);
	if (r < 0)
		return r;
	n = pread(fd, head, KERNEL_HEAD_BYTES, 0);
	if (n < 0)
		return hf_error_set(error, -errno, HF_ERR_NOT_READY, NULL,
			"can't read kernel %s: %s", path, strerror(errno));
	r = hf_target_image_version(head, n, version);
	if (r == -EBADMSG)
		return hf_error_set(error, r, HF_ERR_NOT_READY,
			"give a bzImage, as distributions install it as /boot/vmlinuz-*",
			"%s is not a Linux kernel image for x86", path);
	if (r == 0) {
		*ret = strdup(version);
		if (!*ret)
			return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	}
	return check_whole(path, fd, head, n, error);
}

static int settle_cmdline(
	const char *append, const char *cmdline, char **ret, struct hf_error *error)
{
	cleanup_free char *running = NULL;
	char *line;
	int r;

	r = hf_file_read("/proc/cmdline", 65536, &running, NULL);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't read /proc/cmdline: %s",
			strerror(-r));
	line = hf_target_cmdline(running, append, cmdline);
	if (!line)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (strlen(line) >= CMDLINE_MAX_BYTES) {
		free(line);
		return hf_error_set(error, -E2BIG, HF_ERR_INVALID, "shorten it",
			"the kernel command line has more than %d bytes", CMDLINE_MAX_BYTES - 1);
	}
	*ret = line;
	return 0;
}

int hf_target_new(const char *kernel, const char *initrd, const char *append, const char *cmdline,
	struct hf_target *ret, struct hf_error *error)
{
	struct hf_target t = {0};
	cleanup_close int initrd_fd = -EBADF;
	int r;

	if (append && cmdline)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, "give one of the two",
			"append and cmdline exclude each other");
	r = read_version(kernel, &t.version, error);
	if (r == 0 && initrd)
		r = open_regular(initrd, "initrd", &initrd_fd, error);
	if (r == 0)
		r = settle_cmdline(append, cmdline, &t.cmdline, error);
	if (r == 0) {
		t.kernel = strdup(kernel);
		t.initrd = initrd ? strdup(initrd) : NULL;
		if (!t.kernel || (initrd && !t.initrd))
			r = hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	}
	if (r < 0) {
		hf_target_clear(&t);
		return r;
	}
	*ret = t;
	return 0;
}

void hf_target_clear(struct hf_target *t)
{
	free(t->kernel);
	free(t->initrd);
	free(t->cmdline);
	free(t->version);
	*t = (struct hf_target){0};
}

int hf_kexec_allowed(struct hf_error *error)
{
	cleanup_free char *disabled = NULL;

	if (access("/sys/kernel/kexec_loaded", F_OK) < 0)
		return hf_error_set(error, -ENOSYS, HF_ERR_NOT_READY,
			"boot a kernel with CONFIG_KEXEC_FILE", "the running kernel has no kexec");
	if (hf_file_read("/proc/sys/kernel/kexec_load_disabled", 64, &disabled, NULL) == 0 &&
		disabled[0] == '1')
		return hf_error_set(error, -EPERM, HF_ERR_NOT_READY,
			"it stays so until a reboot: find out which service sets "
			"kernel.kexec_load_disabled",
			"loading a kernel has been switched off (kernel.kexec_load_disabled=1)");
	if (geteuid() != 0)
		return hf_error_set(error, -EPERM, HF_ERR_NOT_READY, "run holdfastd as root",
			"loading a kernel needs CAP_SYS_BOOT");
	return 0;
}

static int load_error(int err, const struct hf_target *t, struct hf_error *error)
{
	switch (err) {
	case ENOEXEC:
		return hf_error_set(error, -err, HF_ERR_NOT_READY,
			"give a bzImage with CONFIG_RELOCATABLE",
			"the kernel refuses %s as a kernel image", t->kernel);
	case EPERM:
		return hf_error_set(error, -err, HF_ERR_NOT_READY,
			"check kernel.kexec_load_disabled, lockdown and CAP_SYS_BOOT",
			"loading a kernel is not permitted on this host");
	case EKEYREJECTED:
	case ENOKEY:
	case ENODATA:
	case EBADMSG:
		return hf_error_set(error, -err, HF_ERR_NOT_READY,
			"use a kernel signed with a trusted key",
			"the running kernel does not accept the signature of %s", t->kernel);
	case ENOMEM:
	case EADDRNOTAVAIL:
		return hf_error_set(error, -err, HF_ERR_NOT_READY,
			"free memory, or make KHO's scratch area larger (kho_scratch= on the "
			"command line)",
			"no room for kernel and initrd where they survive the jump");
	default:
		return hf_error_set(error, -err, HF_ERR_NOT_READY, NULL, "can't load %s: %s",
			t->kernel, strerror(err));
	}
}

int hf_kexec_load(const struct hf_target *t, struct hf_error *error)
{
	cleanup_close int kernel_fd = -EBADF;
	cleanup_close int initrd_fd = -EBADF;
	unsigned long flags = t->initrd ? 0 : KEXEC_FILE_NO_INITRAMFS;
	int r;

	r = open_regular(t->kernel, "kernel", &kernel_fd, error);
	if (r == 0 && t->initrd)
		r = open_regular(t->initrd, "initrd", &initrd_fd, error);
	if (r < 0)
		return r;
	if (syscall(SYS_kexec_file_load, kernel_fd, initrd_fd, strlen(t->cmdline) + 1, t->cmdline,
		    flags) < 0)
		return load_error(errno, t, error);
	return 0;
}

int hf_kexec_unload(struct hf_error *error)
{
	if (syscall(SYS_kexec_file_load, -1, -1, 1UL, "", (unsigned long)KEXEC_FILE_UNLOAD) < 0)
		return hf_error_set(error, -errno, HF_ERR_FAILED, "unload it with `kexec -u`",
			"can't unload the target kernel: %s", strerror(errno));
	return 0;
}

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

void hf_kexec_settle_disks(void)
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

void hf_kexec_unsettle_disks(void)
{
	while (n_remounted > 0) {
		char *dir = remounted[--n_remounted];

		set_read_only(dir, false);
		free(dir);
	}
}

int hf_kexec_jump(struct hf_error *error)
{
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	return hf_error_set(error, -errno, HF_ERR_ROLLED_BACK,
		"look for luo: and kho: in the kernel log", "the kernel refused to jump: %s",
		strerror(errno));
}
