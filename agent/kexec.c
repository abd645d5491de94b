/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/kexec.h"

#include <fcntl.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "common/fd.h"

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
	cleanup_close int initrd_fd = -EBADF;
	unsigned long flags = t->initrd ? 0 : KEXEC_FILE_NO_INITRAMFS;
	int r;

	if (t->initrd) {
		r = hf_target_open_file(t->initrd, "initrd", &initrd_fd, error);
		if (r < 0)
			return r;
	}
	if (syscall(SYS_kexec_file_load, t->kernel_fd, initrd_fd, strlen(t->cmdline) + 1,
		    t->cmdline, flags) < 0)
		return load_error(errno, t, error);
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
	return 0;
}

int hf_kexec_jump(struct hf_error *error)
{
	syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
	return hf_error_set(error, -errno, HF_ERR_ROLLED_BACK,
		"look for luo: and kho: in the kernel log", "the kernel refused to jump: %s",
		strerror(errno));
}
