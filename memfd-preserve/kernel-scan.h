/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Finding what a kernel says of itself, in its unpacked bytes as they come by.
 *
 * Three things are looked for. The strings that name its handover formats, each of them whole:
 * something unprintable before it, a NUL behind it. Its banner ("Linux version …"). And the
 * configuration that CONFIG_IKCONFIG builds in, which is kept as it is, packed with gzip.
 *
 * The scanner owns its buffers, of which only that of a configuration grows, up to a limit. What is
 * found is the same however the bytes are cut into pieces. Facts: Linux 7.3.4,
 * include/linux/kho/abi/, init/version.c, kernel/configs.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The users of the handover whose formats have to be the same on both sides. */
enum hf_kernel_family {
	HF_KERNEL_KHO,
	HF_KERNEL_LUO,
	HF_KERNEL_MEMFD,
	HF_KERNEL_N_FAMILIES,
};

#define HF_KERNEL_MAX_FORMATS 4	   /* of one family; a kernel names one */
#define HF_KERNEL_FORMAT_BYTES 16  /* "memfd-v2" */
#define HF_KERNEL_BANNER_BYTES 512 /* "Linux version 7.3.4 (…" */
#define HF_KERNEL_MAX_CONFIG_GZ_BYTES (1u << 20)

/** struct hf_kernel_formats - the different strings of one family, as they came. */
struct hf_kernel_formats {
	size_t n;
	char names[HF_KERNEL_MAX_FORMATS][HF_KERNEL_FORMAT_BYTES];
};

/** struct hf_kernel_strings - what was found. */
struct hf_kernel_strings {
	struct hf_kernel_formats formats[HF_KERNEL_N_FAMILIES];
	char banner[HF_KERNEL_BANNER_BYTES]; /* without line feed; "" when there is none */
	uint8_t *config_gz;		     /* owned; NULL when there is none */
	size_t config_gz_bytes;
};

/** hf_kernel_family_name() - "kho", "luo", "memfd". */
const char *hf_kernel_family_name(enum hf_kernel_family family);

/** hf_kernel_formats_has() - Is a string among those of a family? */
bool hf_kernel_formats_has(const struct hf_kernel_formats *formats, const char *name);

struct hf_kernel_scan;

/** hf_kernel_scan_new() - Begin. Return: 0 or -ENOMEM. */
int hf_kernel_scan_new(struct hf_kernel_scan **ret);

/** hf_kernel_scan_free() - NULL is fine. */
void hf_kernel_scan_free(struct hf_kernel_scan *scan);

/** hf_kernel_scan_feed() - The next bytes. Return: 0 or -ENOMEM. */
int hf_kernel_scan_feed(struct hf_kernel_scan *scan, const void *bytes, size_t size);

/**
 * hf_kernel_scan_end() - There are no more bytes.
 * @ret: what was found; the caller frees config_gz
 *
 * Return: 0 or -ENOMEM.
 */
int hf_kernel_scan_end(struct hf_kernel_scan *scan, struct hf_kernel_strings *ret);
