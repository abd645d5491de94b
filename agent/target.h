/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What to jump into: a kernel image that was looked into, an initrd, a command line.
 *
 * The image stays open from the look into it until it is loaded, so that both are of one file; a
 * file that is written to in between is noticed. hf_target_new() takes seconds for some images and
 * runs in a worker; a struct hf_target has one owner and moves by assignment.
 */
#pragma once

#include <sys/stat.h>

#include "common/error.h"
#include "memfd-preserve/kernel-image.h"

/** struct hf_target - a target. All of it is owned. */
struct hf_target {
	char *kernel;	   /* path of the image; NULL: there is no target */
	int kernel_fd;	   /* open until it is loaded */
	char *initrd;	   /* path, or NULL for none */
	char *cmdline;	   /* whole command line of the new kernel */
	char *config;	   /* text of the image's configuration, or NULL when it is not known */
	char *config_path; /* where that was found, or NULL: in the image */
	struct hf_kernel_image image;
	struct stat kernel_stat; /* before it was looked into */
};

#define HF_TARGET_NONE ((struct hf_target){.kernel_fd = -EBADF})

/**
 * hf_target_new() - Look into an image and settle the command line; loads nothing. Blocks.
 * @in_memory: guests' memory is handed over to it
 * @kernel:  path of a kernel image
 * @initrd:  path, or NULL
 * @append:  added to the running kernel's command line, or NULL
 * @cmdline: taken instead of all that, or NULL; excludes @append
 * @ret:     filled on success, hf_target_clear() frees it
 *
 * With @in_memory kho=on and liveupdate=on are added where they are missing: without them the new
 * kernel would drop everything that is handed over. Whether the image will do is for
 * hf_check_target() to say.
 */
int hf_target_new(bool in_memory, const char *kernel, const char *initrd, const char *append,
	const char *cmdline, struct hf_target *ret, struct hf_error *error);
void hf_target_clear(struct hf_target *target);

/** hf_target_check_unchanged() - Is the image the one that was looked into? 0 or -ESTALE. */
int hf_target_check_unchanged(const struct hf_target *target, struct hf_error *error);

/** hf_target_open_file() - Open a regular file that has contents. @what: "initrd". */
int hf_target_open_file(const char *path, const char *what, int *ret_fd, struct hf_error *error);

/**
 * hf_target_cmdline() - The command line rule, pure.
 * @running: contents of /proc/cmdline
 *
 * What the boot loader put there for itself (BOOT_IMAGE=, initrd=) is left out. Return: a string
 * owned by the caller, NULL when memory is short.
 */
char *hf_target_cmdline(
	bool in_memory, const char *running, const char *append, const char *cmdline);
