/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/kexec.h"

#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "common/fd.h"
#include "vmm-glue/note.h"

/* The first number of a file, or @fallback. */
static long read_number(const char *root, const char *file, long fallback)
{
	cleanup_free char *text = NULL;
	char path[4096];

	snprintf(path, sizeof(path), "%s%s", root, file);
	return hf_file_read(path, 64, &text, NULL) == 0 && text[0] ? strtol(text, NULL, 10)
								   : fallback;
}

int hf_kexec_allowed(const char *root, struct hf_error *error)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/sys/kernel/kexec_loaded", root);
	if (access(path, F_OK) < 0)
		return hf_error_set(error, -ENOSYS, HF_ERR_NOT_READY,
			"boot a kernel with CONFIG_KEXEC_FILE", "the running kernel has no kexec");
	if (read_number(root, "/proc/sys/kernel/kexec_load_disabled", 0) == 1)
		return hf_error_set(error, -EPERM, HF_ERR_NOT_READY,
			"it stays so until a reboot: find out which service sets "
			"kernel.kexec_load_disabled",
			"loading a kernel has been switched off (kernel.kexec_load_disabled=1)");
	if (read_number(root, "/proc/sys/kernel/kexec_load_limit_reboot", -1) == 0)
		return hf_error_set(error, -EPERM, HF_ERR_NOT_READY,
			"it stays so until a reboot: find out what sets "
			"kernel.kexec_load_limit_reboot",
			"no kernel may be loaded any more (kernel.kexec_load_limit_reboot=0)");
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

/* There from before a target is loaded until after it is unloaded: an agent that died is undone. */
#define NOTE "target-loaded"

int hf_kexec_load(const struct hf_target *t, struct hf_error *error)
{
	cleanup_close int initrd_fd = -EBADF;
	unsigned long flags = t->initrd ? 0 : KEXEC_FILE_NO_INITRAMFS;
	int r;

	if (t->initrd) {
		r = hf_target_open_file(t->initrd, "initrd", &initrd_fd, error);
		if (r < 0)
			return r;
	}
	r = hf_note_write(NOTE, "", error);
	if (r < 0)
		return r;
	if (syscall(SYS_kexec_file_load, t->kernel_fd, initrd_fd, strlen(t->cmdline) + 1,
		    t->cmdline, flags) < 0) {
		r = load_error(errno, t, error);
		hf_note_remove(NOTE);
		return r;
	}
	/* After the kernel has read it: what was loaded is what was looked into. */
	r = hf_target_check_unchanged(t, error);
	if (r < 0)
		hf_kexec_unload(NULL);
	return r;
}

int hf_kexec_unload(struct hf_error *error)
{
	if (syscall(SYS_kexec_file_load, -1, -1, 1UL, "", (unsigned long)KEXEC_FILE_UNLOAD) < 0)
		return hf_error_set(error, -errno, HF_ERR_FAILED, "unload it with `kexec -u`",
			"can't unload the target kernel: %s", strerror(errno));
	hf_note_remove(NOTE);
	return 0;
}

int hf_kexec_recover(struct hf_error *error)
{
	int r;

	if (!hf_note_is_there(NOTE))
		return 0;
	r = hf_kexec_unload(error);
	return r < 0 ? r : 1;
}

int hf_kexec_jump(struct hf_error *error)
{
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	return hf_error_set(error, -errno, HF_ERR_ROLLED_BACK,
		"look for luo: and kho: in the kernel log", "the kernel refused to jump: %s",
		strerror(errno));
}

int hf_kexec_reboot(struct hf_error *error)
{
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART,
		NULL);
	return hf_error_set(error, -errno, HF_ERR_ROLLED_BACK, NULL,
		"the kernel refused to reboot: %s", strerror(errno));
}
