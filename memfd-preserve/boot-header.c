/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/boot-header.h"

#include <string.h>

#include "memfd-preserve/little-endian.h"

#define SECTOR_BYTES 512
#define MIN_PROTOCOL 0x0208 /* the first that says where the payload is */

/* Offsets of the boot protocol's header. */
enum {
	BOOT_SETUP_SECTS = 0x1f1,
	BOOT_SYSSIZE = 0x1f4,
	BOOT_FLAG = 0x1fe,
	BOOT_MAGIC = 0x202,
	BOOT_VERSION = 0x206,
	BOOT_KERNEL_VERSION = 0x20e,
	BOOT_LOADFLAGS = 0x211,
	BOOT_ALIGNMENT = 0x230,
	BOOT_XLOADFLAGS = 0x236,
	BOOT_PAYLOAD_OFFSET = 0x248,
	BOOT_PAYLOAD_LENGTH = 0x24c,
	BOOT_HEADER_END = 0x250,
	BOOT_PREF_ADDRESS = 0x258, /* from here on since protocol 2.10 */
	BOOT_INIT_SIZE = 0x260,
	BOOT_HEADER_2_10_END = 0x264,
};

#define LOADED_HIGH 0x01
#define XLF_KERNEL_64 0x01
#define XLF_ABOVE_4G 0x02

/* Of PE files. */
enum {
	DOS_PE_OFFSET = 0x3c,
	PE_MACHINE = 4,
	PE_SECTIONS = 6,
	PE_OPTIONAL_BYTES = 20,
	PE_HEADER_BYTES = 24, /* then the optional header, then the sections */
	SECTION_VIRTUAL_BYTES = 8,
	SECTION_RAW_BYTES = 16,
	SECTION_RAW_OFFSET = 20,
	SECTION_BYTES = 40,
};

#define PE_MACHINE_X86_64 0x8664
#define PE_NAME_BYTES 8

static int not_sound(struct hf_error *e, const char *why)
{
	return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, NULL, "%s", why);
}

bool hf_boot_is_bzimage(const void *head, size_t size)
{
	const uint8_t *p = head;

	return size >= BOOT_HEADER_END && p[BOOT_FLAG] == 0x55 && p[BOOT_FLAG + 1] == 0xaa &&
	       memcmp(p + BOOT_MAGIC, "HdrS", 4) == 0;
}

/* A text inside the setup code, up to its NUL; what can't be printed shows as '?'. */
static void copy_version(const uint8_t *head, size_t size, uint64_t setup_bytes, char *ret)
{
	uint64_t at = hf_le16(head + BOOT_KERNEL_VERSION);
	size_t n = 0;

	if (at == 0)
		return;
	at += SECTOR_BYTES;
	for (; at + n < HF_MIN(setup_bytes, (uint64_t)size) && head[at + n]; n++) {
		uint8_t c = head[at + n];

		if (n == HF_BOOT_VERSION_BYTES - 1)
			break;
		ret[n] = c >= ' ' && c < 0x7f ? (char)c : '?';
	}
	ret[n] = 0;
}

int hf_boot_parse(const void *head, size_t size, uint64_t file_bytes, struct hf_boot_header *ret,
	struct hf_error *e)
{
	struct hf_boot_header h = {0};
	const uint8_t *p = head;
	uint64_t setup_bytes;

	if (!hf_boot_is_bzimage(head, size))
		return not_sound(e, "it has no boot sector of Linux");
	h.protocol = hf_le16(p + BOOT_VERSION);
	if (h.protocol < MIN_PROTOCOL)
		return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, NULL,
			"its boot protocol is %d.%02d, too old to look into", h.protocol >> 8,
			h.protocol & 0xff);
	/* The boot sector and the real-mode code, then the rest in units of 16 bytes. */
	setup_bytes =
		(1 + (p[BOOT_SETUP_SECTS] ? p[BOOT_SETUP_SECTS] : 4)) * (uint64_t)SECTOR_BYTES;
	h.image_bytes = setup_bytes + (uint64_t)hf_le32(p + BOOT_SYSSIZE) * 16;
	if (file_bytes < h.image_bytes)
		return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY, "copy or install it again",
			"it is cut: it has %llu bytes, and should have %llu",
			(unsigned long long)file_bytes, (unsigned long long)h.image_bytes);
	h.payload_offset = setup_bytes + hf_le32(p + BOOT_PAYLOAD_OFFSET);
	h.payload_bytes = hf_le32(p + BOOT_PAYLOAD_LENGTH);
	if (h.payload_bytes == 0 || h.payload_offset > h.image_bytes ||
		h.payload_bytes > h.image_bytes - h.payload_offset)
		return not_sound(e, "its header says that the kernel lies outside of it");
	if (h.protocol >= 0x020a && size >= BOOT_HEADER_2_10_END) {
		h.alignment = hf_le32(p + BOOT_ALIGNMENT);
		h.pref_address = hf_le64(p + BOOT_PREF_ADDRESS);
		h.init_bytes = hf_le32(p + BOOT_INIT_SIZE);
	}
	h.loaded_high = p[BOOT_LOADFLAGS] & LOADED_HIGH;
	h.kernel_64 = h.protocol >= 0x020c && (p[BOOT_XLOADFLAGS] & XLF_KERNEL_64);
	h.above_4g = h.protocol >= 0x020c && (p[BOOT_XLOADFLAGS] & XLF_ABOVE_4G);
	copy_version(p, size, setup_bytes, h.version);
	*ret = h;
	return 0;
}

bool hf_pe_is(const void *head, size_t size)
{
	return size >= DOS_PE_OFFSET + 4 && memcmp(head, "MZ", 2) == 0;
}

/* Where the table of sections is. Return: 0 or -EBADMSG. */
static int find_table(
	const uint8_t *head, size_t size, size_t *ret_at, size_t *ret_n, struct hf_error *e)
{
	uint64_t pe = hf_pe_is(head, size) ? hf_le32(head + DOS_PE_OFFSET) : size;
	uint64_t table;
	size_t n;

	if (pe + PE_HEADER_BYTES > size || memcmp(head + pe, "PE\0", 4) != 0)
		return not_sound(e, "it is no EFI program");
	if (hf_le16(head + pe + PE_MACHINE) != PE_MACHINE_X86_64)
		return not_sound(e, "it is an EFI program for another kind of machine");
	n = hf_le16(head + pe + PE_SECTIONS);
	table = pe + PE_HEADER_BYTES + hf_le16(head + pe + PE_OPTIONAL_BYTES);
	if (table + (uint64_t)n * SECTION_BYTES > size)
		return not_sound(e, "its table of sections is cut");
	*ret_at = table;
	*ret_n = n;
	return 0;
}

int hf_pe_find(const void *head, size_t size, uint64_t file_bytes, const char *name,
	struct hf_pe_section *ret, struct hf_error *e)
{
	char wanted[PE_NAME_BYTES] = {0};
	size_t at = 0, n = 0;
	int r = find_table(head, size, &at, &n, e);

	if (r < 0)
		return r;
	memcpy(wanted, name, strnlen(name, sizeof(wanted)));
	*ret = (struct hf_pe_section){0};
	for (size_t i = 0; i < n; i++) {
		const uint8_t *s = (const uint8_t *)head + at + i * SECTION_BYTES;
		uint32_t virtual_bytes = hf_le32(s + SECTION_VIRTUAL_BYTES);
		uint32_t raw_bytes = hf_le32(s + SECTION_RAW_BYTES);
		uint32_t offset = hf_le32(s + SECTION_RAW_OFFSET);

		if (memcmp(s, wanted, sizeof(wanted)) != 0)
			continue;
		/* On disk it is filled up to whole sectors; some tools leave one of the two 0. */
		if (virtual_bytes > 0)
			raw_bytes = HF_MIN(raw_bytes, virtual_bytes);
		if (offset > file_bytes || raw_bytes > file_bytes - offset)
			return hf_error_set(e, -EBADMSG, HF_ERR_NOT_READY,
				"copy or install it again", "it is cut inside its section %s",
				name);
		*ret = (struct hf_pe_section){.offset = offset, .bytes = raw_bytes};
		return 0;
	}
	return 0;
}
