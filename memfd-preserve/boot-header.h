/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The outsides of kernel images: the boot protocol's header, and EFI programs around it.
 *
 * Pure parsers of the first bytes of a file, which nobody vouches for: every offset is compared
 * with what there is. They own nothing and may run anywhere.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define HF_BOOT_HEAD_BYTES (64 * 1024) /* always enough for what is parsed here */
#define HF_BOOT_VERSION_BYTES 256

/** struct hf_boot_header - a bzImage. Offsets are from its first byte. */
struct hf_boot_header {
	uint16_t protocol;    /* 0x020f is 2.15 */
	bool loaded_high;     /* a bzImage, no zImage */
	bool kernel_64;	      /* has a 64-bit entry */
	bool above_4g;	      /* can be loaded anywhere: CONFIG_RELOCATABLE */
	uint64_t image_bytes; /* of the whole image, as far as the header tells */
	uint64_t payload_offset;
	uint64_t payload_bytes;
	uint64_t init_bytes; /* it needs from where it is loaded until it knows its memory, or 0 */
	uint64_t pref_address;		     /* it is not loaded below this */
	uint64_t alignment;		     /* of where it is loaded, or 0 */
	char version[HF_BOOT_VERSION_BYTES]; /* "7.3.4 (me@there) #1 SMP …", or "" */
};

/** hf_boot_is_bzimage() - Does it have a boot sector with the header's magic? */
bool hf_boot_is_bzimage(const void *head, size_t size);

/**
 * hf_boot_parse() - Take the header of a bzImage apart.
 * @head, @size: the first HF_BOOT_HEAD_BYTES of it, or all there is
 * @file_bytes:  how many bytes there are altogether
 *
 * Source: Documentation/arch/x86/boot.rst of Linux.
 * Return: 0; -EBADMSG not a bzImage, cut, or with offsets that lead out of it.
 */
int hf_boot_parse(const void *head, size_t size, uint64_t file_bytes, struct hf_boot_header *ret,
	struct hf_error *e);

/** struct hf_pe_section - a part of an EFI program's file. */
struct hf_pe_section {
	uint64_t offset;
	uint64_t bytes; /* 0: there is no such section */
};

/** hf_pe_is() - Does it begin like an EFI program (or one for DOS)? */
bool hf_pe_is(const void *head, size_t size);

/**
 * hf_pe_find() - Find a section by name.
 * @name: up to 8 characters, with the dot
 * @ret:  the first of that name; zeroed when there is none
 *
 * Source: the PE format, and the UAPI group's specification of unified kernel images.
 * Return: 0, also when there is none; -EBADMSG not a PE file, or a section that is not in it.
 */
int hf_pe_find(const void *head, size_t size, uint64_t file_bytes, const char *name,
	struct hf_pe_section *ret, struct hf_error *e);
