/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Small kernel images for tests: an ELF head, noise and the strings that are asked for, packed
 * by the libraries that Linux' own build packs with, behind a boot header as in Linux 7.3.
 */
#pragma once

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "common/fd.h"
#include "memfd-preserve/decompress.h"

/* Needs <cmocka.h> before it, for its assertions. */

struct sample {
	uint8_t *data;
	size_t size;
};

static inline void sample_free(struct sample *s)
{
	free(s->data);
	*s = (struct sample){0};
}

static inline void sample_add(struct sample *s, const void *data, size_t size)
{
	s->data = realloc(s->data, s->size + size + 1);
	assert_non_null(s->data);
	if (size > 0)
		memcpy(s->data + s->size, data, size);
	s->size += size;
}

static inline void sample_add_u32(struct sample *s, uint32_t value)
{
	const uint8_t bytes[] = {value, value >> 8, value >> 16, value >> 24};

	sample_add(s, bytes, sizeof(bytes));
}

/* Bytes that hardly compress, and the same each time. None is printable: nothing is found in them.
 */
static inline void sample_add_noise(struct sample *s, size_t size)
{
	uint32_t x = 2463534242u + (uint32_t)s->size;

	s->data = realloc(s->data, s->size + size + 1);
	assert_non_null(s->data);
	for (size_t i = 0; i < size; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		s->data[s->size++] = x & 0x9f;
	}
}

static inline void sample_add_string(struct sample *s, const char *text)
{
	sample_add(s, text, strlen(text) + 1);
}

static inline void sample_pack_lzma(lzma_stream *ls, const struct sample *in, struct sample *out)
{
	size_t room = in->size + in->size / 2 + 65536;
	uint8_t *buf = malloc(room);

	assert_non_null(buf);
	ls->next_in = in->data;
	ls->avail_in = in->size;
	ls->next_out = buf;
	ls->avail_out = room;
	assert_int_equal(lzma_code(ls, LZMA_FINISH), LZMA_STREAM_END);
	sample_add(out, buf, ls->total_out);
	lzma_end(ls);
	free(buf);
}

static inline struct sample sample_pack_xz(const struct sample *in)
{
	lzma_stream ls = LZMA_STREAM_INIT;
	struct sample out = {0};
	lzma_options_lzma options;
	lzma_filter filters[] = {
		{LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};

	/* As scripts/xz_wrap.sh does it, but for the size of the dictionary. */
	assert_false(lzma_lzma_preset(&options, 1));
	assert_int_equal(lzma_stream_encoder(&ls, filters, LZMA_CHECK_CRC32), LZMA_OK);
	sample_pack_lzma(&ls, in, &out);
	return out;
}

static inline struct sample sample_pack_alone(const struct sample *in)
{
	lzma_stream ls = LZMA_STREAM_INIT;
	struct sample out = {0};
	lzma_options_lzma options;

	assert_false(lzma_lzma_preset(&options, 1));
	assert_int_equal(lzma_alone_encoder(&ls, &options), LZMA_OK);
	sample_pack_lzma(&ls, in, &out);
	return out;
}

static inline struct sample sample_pack_gzip(const struct sample *in)
{
	struct sample out = {0};
	z_stream z = {0};

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	out.data = malloc(deflateBound(&z, in->size) + 64);
	assert_non_null(out.data);
	z.next_in = in->data;
	z.avail_in = (uInt)in->size;
	z.next_out = out.data;
	z.avail_out = (uInt)deflateBound(&z, in->size) + 64;
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	out.size = z.total_out;
	deflateEnd(&z);
	return out;
}

static inline struct sample sample_pack_bzip2(const struct sample *in)
{
	unsigned int size = (unsigned int)(in->size + in->size / 50 + 1024);
	struct sample out = {.data = malloc(size)};

	assert_non_null(out.data);
	assert_int_equal(BZ2_bzBuffToBuffCompress((char *)out.data, &size, (char *)in->data,
				 (unsigned int)in->size, 9, 0, 0),
		BZ_OK);
	out.size = size;
	return out;
}

static inline struct sample sample_pack_zstd(const struct sample *in)
{
	size_t room = ZSTD_compressBound(in->size);
	struct sample out = {.data = malloc(room)};
	ZSTD_CCtx *z = ZSTD_createCCtx();

	assert_non_null(out.data);
	assert_non_null(z);
	/* zstd(1) adds a checksum, the library only when told to. */
	ZSTD_CCtx_setParameter(z, ZSTD_c_checksumFlag, 1);
	out.size = ZSTD_compress2(z, out.data, room, in->data, in->size);
	assert_false(ZSTD_isError(out.size));
	ZSTD_freeCCtx(z);
	return out;
}

/* `lz4 -l`: a magic, then blocks of 8 MiB, each behind its packed size. */
static inline struct sample sample_pack_lz4(const struct sample *in)
{
	struct sample out = {0};

	sample_add_u32(&out, 0x184c2102);
	for (size_t at = 0; at < in->size;) {
		int n = (int)HF_MIN(in->size - at, (size_t)8 << 20), packed;
		char *buf = malloc((size_t)LZ4_compressBound(n));

		assert_non_null(buf);
		packed = LZ4_compress_default((char *)in->data + at, buf, n, LZ4_compressBound(n));
		assert_true(packed > 0);
		sample_add_u32(&out, (uint32_t)packed);
		sample_add(&out, buf, (size_t)packed);
		free(buf);
		at += (size_t)n;
	}
	return out;
}

/* The stream alone, without the size that follows it in a kernel. */
static inline struct sample sample_pack(enum hf_compression c, const struct sample *in)
{
	struct sample copy = {0};

	switch (c) {
	case HF_COMPRESSION_GZIP:
		return sample_pack_gzip(in);
	case HF_COMPRESSION_BZIP2:
		return sample_pack_bzip2(in);
	case HF_COMPRESSION_LZMA:
		return sample_pack_alone(in);
	case HF_COMPRESSION_XZ:
		return sample_pack_xz(in);
	case HF_COMPRESSION_LZ4:
		return sample_pack_lz4(in);
	case HF_COMPRESSION_ZSTD:
		return sample_pack_zstd(in);
	default:
		sample_add(&copy, in->data, in->size);
		return copy;
	}
}

/* struct sample_options - a kernel; NULL leaves a string out. */
struct sample_options {
	const char *kho, *luo, *memfd;
	const char *config; /* text, built in as CONFIG_IKCONFIG does */
	size_t noise;	    /* bytes before, between and behind */
};

#define SAMPLE_BANNER "Linux version 7.3.4 (me@there) (gcc 12.2.0) #1 SMP Sat Nov 21 2026"
#define SAMPLE_VERSION "7.3.4 (me@there) #1 SMP Sat Nov 21 2026"

static inline struct sample sample_vmlinux(const struct sample_options *o)
{
	const char *const strings[] = {o->kho, o->luo, o->memfd};
	struct sample s = {0};

	sample_add(&s, "\177ELF\2\1\1", 7);
	sample_add_noise(&s, o->noise);
	for (size_t i = 0; i < HF_ARRAY_SIZE(strings); i++) {
		if (!strings[i])
			continue;
		/* In structures strings stand behind pointers. */
		sample_add(&s, "\200\377", 2);
		sample_add_string(&s, strings[i]);
		sample_add_noise(&s, o->noise);
	}
	sample_add(&s, "\0Linux version 7.3.4 (me@there) # SMP \n", 39);
	sample_add_string(&s, SAMPLE_BANNER "\n");
	if (o->config) {
		struct sample text = {.data = (uint8_t *)o->config, .size = strlen(o->config)};
		struct sample gz = sample_pack_gzip(&text);

		sample_add(&s, "IKCFG_ST", 8);
		sample_add(&s, gz.data, gz.size);
		sample_add(&s, "IKCFG_ED", 8);
		sample_free(&gz);
	}
	sample_add_noise(&s, o->noise);
	return s;
}

static inline void sample_put16(uint8_t *p, uint16_t value)
{
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

static inline void sample_put32(uint8_t *p, uint32_t value)
{
	sample_put16(p, (uint16_t)value);
	sample_put16(p + 2, (uint16_t)(value >> 16));
}

#define SAMPLE_SETUP_SECTS 4
#define SAMPLE_SETUP_BYTES ((SAMPLE_SETUP_SECTS + 1) * 512)
#define SAMPLE_PAYLOAD_OFFSET 0x2c4

/* A bzImage around a payload, which is taken as it is. */
static inline struct sample sample_bzimage_around(const struct sample *payload)
{
	struct sample s = {0};
	size_t code = SAMPLE_PAYLOAD_OFFSET + payload->size;

	code += -code & 15;
	s.size = SAMPLE_SETUP_BYTES + code;
	s.data = calloc(1, s.size + 1);
	assert_non_null(s.data);
	memcpy(s.data, "MZ", 2);
	s.data[0x1f1] = SAMPLE_SETUP_SECTS;
	sample_put32(s.data + 0x1f4, (uint32_t)(code / 16));
	sample_put16(s.data + 0x1fe, 0xaa55);
	memcpy(s.data + 0x202, "HdrS", 4);
	sample_put16(s.data + 0x206, 0x020f);
	sample_put16(s.data + 0x20e, 0x300 - 0x200);
	s.data[0x211] = 1;		    /* LOADED_HIGH */
	s.data[0x234] = 1;		    /* relocatable */
	sample_put16(s.data + 0x236, 0x7f); /* xloadflags of 64 bits */
	sample_put32(s.data + 0x248, SAMPLE_PAYLOAD_OFFSET);
	sample_put32(s.data + 0x24c, (uint32_t)payload->size);
	memcpy(s.data + 0x300, SAMPLE_VERSION, sizeof(SAMPLE_VERSION));
	memcpy(s.data + SAMPLE_SETUP_BYTES + SAMPLE_PAYLOAD_OFFSET, payload->data, payload->size);
	return s;
}

static inline struct sample sample_bzimage_of(enum hf_compression c, const struct sample *vmlinux)
{
	struct sample payload = sample_pack(c, vmlinux), s;

	if (c != HF_COMPRESSION_GZIP && c != HF_COMPRESSION_NONE)
		sample_add_u32(&payload, (uint32_t)vmlinux->size);
	s = sample_bzimage_around(&payload);
	sample_free(&payload);
	return s;
}

static inline struct sample sample_bzimage(enum hf_compression c, const struct sample_options *o)
{
	struct sample vmlinux = sample_vmlinux(o), s = sample_bzimage_of(c, &vmlinux);

	sample_free(&vmlinux);
	return s;
}

/* struct sample_section - of an EFI program; a NULL name ends a table. */
struct sample_section {
	const char *name;
	const void *data;
	size_t size;
};

/* An EFI program: sections on disk begin at and are filled up to multiples of 512. */
static inline struct sample sample_pe(const struct sample_section *sections)
{
	size_t n = 0, at, pe = 0x80;
	struct sample s = {0};

	while (sections[n].name)
		n++;
	s.size = pe + 24 + 240 + n * 40;
	s.size += -s.size & 511;
	s.data = calloc(1, s.size);
	assert_non_null(s.data);
	memcpy(s.data, "MZ", 2);
	sample_put32(s.data + 0x3c, (uint32_t)pe);
	memcpy(s.data + pe, "PE\0\0", 4);
	sample_put16(s.data + pe + 4, 0x8664);
	sample_put16(s.data + pe + 6, (uint16_t)n);
	sample_put16(s.data + pe + 20, 240);
	for (size_t i = 0; i < n; i++) {
		size_t filled = sections[i].size + (-sections[i].size & 511);
		uint8_t *header = s.data + pe + 24 + 240 + i * 40;

		memcpy(header, sections[i].name, strnlen(sections[i].name, 8));
		sample_put32(header + 8, (uint32_t)sections[i].size);
		sample_put32(header + 12, (uint32_t)(0x1000 * (i + 1)));
		sample_put32(header + 16, (uint32_t)filled);
		sample_put32(header + 20, (uint32_t)s.size);
		at = s.size;
		s.size += filled;
		s.data = realloc(s.data, s.size);
		assert_non_null(s.data);
		memset(s.data + at, 0, filled);
		memcpy(s.data + at, sections[i].data, sections[i].size);
	}
	return s;
}

static inline int sample_fd(const struct sample *s)
{
	int fd = -EBADF;

	assert_int_equal(hf_memfd_new("kernel-sample", 0, &fd), 0);
	assert_int_equal(hf_fd_write_full(fd, s->data, s->size), 0);
	return fd;
}
