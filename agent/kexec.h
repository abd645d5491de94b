/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The target kernel: look at it, load it, unload it, jump into it.
 *
 * The image has to be loaded with kexec_file_load(2) before the jump; KHO hooks into exactly that
 * call. reboot(LINUX_REBOOT_CMD_KEXEC) then freezes every LUO session first, and returns with an
 * error, everything thawed again, if one can't be frozen: the last point of return.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/** struct hf_target - what to jump into. Strings are owned. */
struct hf_target {
	char *kernel;  /* path of the image */
	char *initrd;  /* path, or NULL for none */
	char *cmdline; /* whole command line of the new kernel */
	char *version; /* as the image says of itself, or NULL if it does not */
};

/**
 * hf_target_new() - Look at an image and settle the command line; loads nothing.
 * @kernel:  path of a bzImage
 * @initrd:  path, or NULL
 * @append:  added to the running kernel's command line, or NULL
 * @cmdline: taken instead of all that, or NULL; excludes @append
 * @ret:     filled on success, hf_target_clear() frees it
 *
 * kho=on and liveupdate=on are added where they are missing: without them the new kernel would
 * drop everything that is handed over.
 */
int hf_target_new(const char *kernel, const char *initrd, const char *append, const char *cmdline,
	struct hf_target *ret, struct hf_error *error);
void hf_target_clear(struct hf_target *target);

/**
 * hf_target_cmdline() - The command line rule, pure.
 * @running: contents of /proc/cmdline
 *
 * What the boot loader put there for itself (BOOT_IMAGE=, initrd=) is left out. Return: a string
 * owned by the caller, NULL when memory is short.
 */
char *hf_target_cmdline(const char *running, const char *append, const char *cmdline);

/**
 * hf_target_image_version() - The release string inside a bzImage, pure.
 * @image, @size: the first part of the file; 64 KiB is always enough
 * @ret: static room, at least 64 bytes
 *
 * Source: Documentation/arch/x86/boot.rst, header fields 0x1fe, 0x202 and 0x20e.
 * Return: 0; -EBADMSG when this is no bzImage; -ENODATA when it carries no version.
 */
int hf_target_image_version(const void *image, size_t size, char ret[64]);

/**
 * hf_target_image_min_bytes() - How many bytes a whole image has at least, by its header; pure.
 * @image, @size: the first part of the file
 *
 * Source: Documentation/arch/x86/boot.rst, setup_sects (0x1f1) and syssize (0x1f4).
 * Return: 0, or -EBADMSG when this is no bzImage.
 */
int hf_target_image_min_bytes(const void *image, size_t size, uint64_t *ret_bytes);

/** hf_kexec_load() - Load a target. Blocks while the image is read. Replaces one loaded before. */
int hf_kexec_load(const struct hf_target *target, struct hf_error *error);

/** hf_kexec_unload() - Undo of hf_kexec_load(). Success when nothing was loaded. */
int hf_kexec_unload(struct hf_error *error);

/** hf_kexec_allowed() - May this process load a kernel at all? */
int hf_kexec_allowed(struct hf_error *error);

/**
 * hf_kexec_settle_disks() - Write everything back and remount read-only what can be.
 *
 * kexec does not sync. File systems with files open for writing (guests' disks, the root) stay
 * writable and are synced. Blocks. Undo: hf_kexec_unsettle_disks().
 */
void hf_kexec_settle_disks(void);
void hf_kexec_unsettle_disks(void);

/**
 * hf_kexec_jump() - Leave this kernel. Irreversible, unless it returns.
 *
 * Return: only when the kernel refused: -errno with the reason, everything still preserved and
 * unfrozen, the image still loaded.
 */
int hf_kexec_jump(struct hf_error *error);
