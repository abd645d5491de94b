/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Migration streams as QEMU writes them, put together piece by piece.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#define SAMPLE_SECTION 3

struct sample {
	uint8_t bytes[1 << 20];
	size_t n;
};

static inline void sample_number(struct sample *s, uint64_t value, int bytes)
{
	while (bytes-- > 0)
		s->bytes[s->n++] = (uint8_t)(value >> (8 * bytes));
}

static inline void sample_text(struct sample *s, const char *text)
{
	memcpy(s->bytes + s->n, text, strlen(text));
	s->n += strlen(text);
}

/* A length of one byte, then the text. */
static inline void sample_name(struct sample *s, const char *name)
{
	sample_number(s, strlen(name), 1);
	sample_text(s, name);
}

static inline void sample_header(struct sample *s)
{
	sample_number(s, 0x5145564d, 4);
	sample_number(s, 3, 4);
	sample_number(s, 7, 1);
	sample_number(s, 8, 4);
	sample_text(s, "pc-q35-9");
}

static inline void sample_start(struct sample *s)
{
	sample_number(s, 1, 1);
	sample_number(s, SAMPLE_SECTION, 4);
	sample_name(s, "ram");
	sample_number(s, 0, 4);
	sample_number(s, 4, 4);
}

static inline void sample_part(struct sample *s, int type)
{
	sample_number(s, (uint64_t)type, 1);
	sample_number(s, SAMPLE_SECTION, 4);
}

static inline void sample_list(struct sample *s, uint64_t total)
{
	sample_number(s, total | 4, 8);
}

static inline void sample_block(struct sample *s, const char *name, uint64_t size)
{
	sample_name(s, name);
	sample_number(s, size, 8);
}

/* @block: NULL: it continues. @fill 0: a zero page, else one full of these. */
static inline void sample_page(struct sample *s, const char *block, uint64_t offset, uint8_t fill)
{
	sample_number(s, offset | (fill ? 8 : 2) | (block ? 0 : 0x20), 8);
	if (block)
		sample_name(s, block);
	if (!fill) {
		sample_number(s, 0, 1);
		return;
	}
	memset(s->bytes + s->n, fill, 4096);
	s->n += 4096;
}

static inline void sample_end_part(struct sample *s)
{
	sample_number(s, 0x10, 8);
	sample_number(s, 0x7e, 1);
	sample_number(s, SAMPLE_SECTION, 4);
}

static inline void sample_devices(struct sample *s)
{
	sample_number(s, 4, 1);
	sample_text(s, "whatever devices have to say, which may look like RAM: \x01\x02\x03");
	sample_number(s, 0, 1);
}
