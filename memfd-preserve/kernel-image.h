/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a kernel image is and what it understands, found out without starting it.
 *
 * The file is read with pread(2) only, so that one that is cut meanwhile is an error and no
 * signal, and its contents never have to fit into memory: the kernel in it is unpacked in a stream
 * (decompress.h) and looked through as it comes by (kernel-scan.h). Nothing in it is trusted.
 *
 * It takes as long as unpacking takes, seconds for large images packed with xz or bzip2: not for a
 * loop. It may run in any thread and keeps nothing between calls.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "memfd-preserve/boot-header.h"
#include "memfd-preserve/decompress.h"
#include "memfd-preserve/kernel-scan.h"

/* No kernel for x86-64 is larger when unpacked (KERNEL_IMAGE_SIZE). */
#define HF_KERNEL_MAX_BYTES (1ULL << 30)

#define HF_KERNEL_RELEASE_BYTES 65
#define HF_KERNEL_MAX_CONFIG_BYTES (4u << 20)

enum hf_kernel_kind {
	HF_KERNEL_BZIMAGE, /* what kexec_file_load(2) takes on x86-64 */
	HF_KERNEL_UKI,	   /* an EFI program with a bzImage in it: a unified kernel image */
	HF_KERNEL_ELF,	   /* vmlinux as it is linked */
};

/**
 * struct hf_kernel_image - what was found. Plain values but for @config.
 * @kind:         what the file is
 * @file_bytes:   its size
 * @boot:         the bzImage's header; zeroed when there is none
 * @compression:  what the kernel is packed with
 * @kernel_bytes: its size when unpacked
 * @release:      "7.3.4", or "" when the image does not say
 * @strings:      handover formats and banner; its config_gz is always NULL here
 * @config:       the configuration built in (CONFIG_IKCONFIG), NUL-terminated and owned, or NULL
 * @uki_cmdline:  a UKI brings a command line of its own
 * @uki_initrd:   … an initial RAM disk
 * @uki_uname:    what a UKI says that its kernel's release is, or ""
 */
struct hf_kernel_image {
	enum hf_kernel_kind kind;
	uint64_t file_bytes;
	struct hf_boot_header boot;
	enum hf_compression compression;
	uint64_t kernel_bytes;
	char release[HF_KERNEL_RELEASE_BYTES];
	struct hf_kernel_strings strings;
	char *config;
	bool uki_cmdline;
	bool uki_initrd;
	char uki_uname[HF_KERNEL_RELEASE_BYTES];
};

/** hf_kernel_kind_name() - "bzImage", "unified kernel image", "ELF". */
const char *hf_kernel_kind_name(enum hf_kernel_kind kind);

/**
 * hf_kernel_image_read() - Look into an image.
 * @fd:        a regular file open for reading; its position is neither used nor changed
 * @max_bytes: unpacked bytes that are too many, HF_KERNEL_MAX_BYTES or less
 * @ret:       filled on success; hf_kernel_image_clear() frees it
 * @e:         the sentence is about "it" and does not know the file's name: prefix it
 *
 * A kernel without any of the strings is no error: whether it will do is for the caller to say.
 * Return: 0; -EBADMSG not a kernel image, cut or corrupt; -EOPNOTSUPP packed in a way that can't
 * be unpacked; -EFBIG, -E2BIG beyond the limits; -ENOMEM; -errno of reading.
 */
int hf_kernel_image_read(
	int fd, uint64_t max_bytes, struct hf_kernel_image *ret, struct hf_error *e);

/** hf_kernel_image_clear() - Free what an image owns and zero it. */
void hf_kernel_image_clear(struct hf_kernel_image *image);

/**
 * hf_kernel_image_no_kexec() - Why kexec_file_load(2) would refuse an image; pure.
 *
 * Source: bzImage64_probe() in arch/x86/kernel/kexec-bzimage64.c of Linux 7.3.4.
 * Return: a static sentence about "it", or NULL when nothing speaks against it.
 */
const char *hf_kernel_image_no_kexec(const struct hf_kernel_image *image);

/**
 * hf_kernel_config_has() - Is an option of a configuration on (y or m)? Pure.
 * @config: text of a configuration
 * @option: "CONFIG_TUN"
 */
bool hf_kernel_config_has(const char *config, const char *option);

/**
 * hf_kernel_config_beside() - The configuration that distributions install beside an image.
 * @path:     the image, "/boot/vmlinuz-7.3.4", or a link to it
 * @release:  its release
 * @ret_path: where it was found, "/boot/config-7.3.4"; owned by the caller
 *
 * Return: its text, owned by the caller, or NULL when there is none that can be read.
 */
char *hf_kernel_config_beside(const char *path, const char *release, char **ret_path);
