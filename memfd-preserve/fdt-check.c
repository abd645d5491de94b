/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/fdt-check.h"

#include <libfdt.h>
#include <stdint.h>
#include <string.h>

#define LAYOUT 17
#define MAX_DEPTH 64

/* The structure block of a tree, as far as it is walked. */
struct walk {
	const char *block;
	uint32_t size, at;
	const char *strings;
	uint32_t strings_size;
};

static bool take_u32(struct walk *w, uint32_t *ret)
{
	if (w->size - w->at < sizeof(*ret))
		return false;
	*ret = fdt32_ld((const fdt32_t *)(const void *)(w->block + w->at));
	w->at += sizeof(*ret);
	return true;
}

/* Moves on by @bytes and what fills them up to a multiple of 4. */
static bool skip(struct walk *w, uint32_t bytes)
{
	uint32_t padded = (bytes + 3) & ~3u;

	if (padded < bytes || padded > w->size - w->at)
		return false;
	w->at += padded;
	return true;
}

static bool walk_name(struct walk *w)
{
	const char *end = memchr(w->block + w->at, 0, w->size - w->at);

	return end && skip(w, (uint32_t)(end - (w->block + w->at)) + 1);
}

static bool walk_property(struct walk *w)
{
	uint32_t length, name;

	return take_u32(w, &length) && take_u32(w, &name) && skip(w, length) &&
	       name < w->strings_size && memchr(w->strings + name, 0, w->strings_size - name);
}

static bool walk_structure(struct walk *w)
{
	uint32_t depth = 0, tag;

	while (take_u32(w, &tag)) {
		switch (tag) {
		case FDT_BEGIN_NODE:
			if (++depth > MAX_DEPTH || !walk_name(w))
				return false;
			break;
		case FDT_END_NODE:
			if (depth-- == 0)
				return false;
			break;
		case FDT_PROP:
			if (depth == 0 || !walk_property(w))
				return false;
			break;
		case FDT_NOP:
			break;
		case FDT_END:
			return depth == 0;
		default:
			return false;
		}
	}
	return false;
}

/* A block of @bytes at @offset within @total. */
static bool inside(uint32_t offset, uint32_t bytes, uint32_t total)
{
	return offset <= total && bytes <= total - offset;
}

bool hf_fdt_check(const void *fdt, size_t size)
{
	struct walk w;
	uint32_t total;

	if (size < FDT_V17_SIZE || fdt_magic(fdt) != FDT_MAGIC || fdt_version(fdt) < LAYOUT ||
		fdt_last_comp_version(fdt) > LAYOUT)
		return false;
	total = fdt_totalsize(fdt);
	if (total > size || total > INT32_MAX || fdt_off_dt_struct(fdt) % 4 != 0 ||
		!inside(fdt_off_dt_struct(fdt), fdt_size_dt_struct(fdt), total) ||
		!inside(fdt_off_dt_strings(fdt), fdt_size_dt_strings(fdt), total))
		return false;
	w = (struct walk){
		.block = (const char *)fdt + fdt_off_dt_struct(fdt),
		.size = fdt_size_dt_struct(fdt),
		.strings = (const char *)fdt + fdt_off_dt_strings(fdt),
		.strings_size = fdt_size_dt_strings(fdt),
	};
	return walk_structure(&w) && fdt_check_full(fdt, size) == 0;
}
