/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The libraries that unpack by themselves in a stream. lz4's legacy frame has its own file.
 */
#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "memfd-preserve/decompress-internal.h"

/* No library is ever given more than the buffers of decompress.c, so sizes fit into their ints. */

static void advance(struct hf_codec_io *io, size_t in_left, size_t out_left)
{
	io->in += io->in_size - in_left;
	io->in_size = in_left;
	io->out += io->out_room - out_left;
	io->out_room = out_left;
}

/* ---- gzip ---- */

#define GZIP_ONLY (15 + 16) /* zlib: the largest window, and no other header */

static int gzip_open(void **ret_state)
{
	z_stream *s = calloc(1, sizeof(*s));

	if (!s || inflateInit2(s, GZIP_ONLY) != Z_OK) {
		free(s);
		return -ENOMEM;
	}
	*ret_state = s;
	return 0;
}

static int gzip_step(void *state, struct hf_codec_io *io, bool *ret_end)
{
	z_stream *s = state;
	int r;

	s->next_in = (Bytef *)io->in;
	s->avail_in = (uInt)io->in_size;
	s->next_out = io->out;
	s->avail_out = (uInt)io->out_room;
	r = inflate(s, Z_NO_FLUSH);
	advance(io, s->avail_in, s->avail_out);
	*ret_end = r == Z_STREAM_END;
	/* Z_BUF_ERROR: no progress without more input. */
	if (r == Z_OK || r == Z_STREAM_END || r == Z_BUF_ERROR)
		return 0;
	return r == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
}

static void gzip_close(void *state)
{
	inflateEnd(state);
	free(state);
}

const struct hf_codec hf_codec_gzip = {gzip_open, gzip_step, gzip_close};

/* ---- bzip2 ---- */

static int bzip2_open(void **ret_state)
{
	bz_stream *s = calloc(1, sizeof(*s));

	if (!s || BZ2_bzDecompressInit(s, 0, 0) != BZ_OK) {
		free(s);
		return -ENOMEM;
	}
	*ret_state = s;
	return 0;
}

static int bzip2_step(void *state, struct hf_codec_io *io, bool *ret_end)
{
	bz_stream *s = state;
	int r;

	s->next_in = (char *)io->in;
	s->avail_in = (unsigned int)io->in_size;
	s->next_out = (char *)io->out;
	s->avail_out = (unsigned int)io->out_room;
	r = BZ2_bzDecompress(s);
	advance(io, s->avail_in, s->avail_out);
	*ret_end = r == BZ_STREAM_END;
	if (r == BZ_OK || r == BZ_STREAM_END)
		return 0;
	return r == BZ_MEM_ERROR ? -ENOMEM : -EBADMSG;
}

static void bzip2_close(void *state)
{
	BZ2_bzDecompressEnd(state);
	free(state);
}

const struct hf_codec hf_codec_bzip2 = {bzip2_open, bzip2_step, bzip2_close};

/* ---- lzma and xz ---- */

static int liblzma_open(lzma_ret (*init)(lzma_stream *s), void **ret_state)
{
	lzma_stream *s = calloc(1, sizeof(*s)); /* all zero is LZMA_STREAM_INIT */

	if (!s || init(s) != LZMA_OK) {
		free(s);
		return -ENOMEM;
	}
	*ret_state = s;
	return 0;
}

static lzma_ret init_alone(lzma_stream *s)
{
	return lzma_alone_decoder(s, HF_CODEC_MAX_MEMORY_BYTES);
}

static lzma_ret init_xz(lzma_stream *s)
{
	return lzma_stream_decoder(s, HF_CODEC_MAX_MEMORY_BYTES, 0);
}

static int lzma_open(void **ret_state)
{
	return liblzma_open(init_alone, ret_state);
}

static int xz_open(void **ret_state)
{
	return liblzma_open(init_xz, ret_state);
}

static int liblzma_step(void *state, struct hf_codec_io *io, bool *ret_end)
{
	lzma_stream *s = state;
	lzma_ret r;

	s->next_in = io->in;
	s->avail_in = io->in_size;
	s->next_out = io->out;
	s->avail_out = io->out_room;
	r = lzma_code(s, LZMA_RUN);
	advance(io, s->avail_in, s->avail_out);
	*ret_end = r == LZMA_STREAM_END;
	if (r == LZMA_OK || r == LZMA_STREAM_END || r == LZMA_BUF_ERROR)
		return 0;
	if (r == LZMA_MEMLIMIT_ERROR)
		return -E2BIG;
	return r == LZMA_MEM_ERROR ? -ENOMEM : -EBADMSG;
}

static void liblzma_close(void *state)
{
	lzma_end(state);
	free(state);
}

const struct hf_codec hf_codec_lzma = {lzma_open, liblzma_step, liblzma_close};
const struct hf_codec hf_codec_xz = {xz_open, liblzma_step, liblzma_close};

/* ---- zstd ---- */

static int zstd_open(void **ret_state)
{
	ZSTD_DCtx *s = ZSTD_createDCtx();

	if (!s)
		return -ENOMEM;
	ZSTD_DCtx_setParameter(s, ZSTD_d_windowLogMax, HF_CODEC_MAX_WINDOW_LOG);
	*ret_state = s;
	return 0;
}

static int zstd_step(void *state, struct hf_codec_io *io, bool *ret_end)
{
	ZSTD_inBuffer in = {io->in, io->in_size, 0};
	ZSTD_outBuffer out = {io->out, io->out_room, 0};
	size_t r = ZSTD_decompressStream(state, &out, &in);

	advance(io, io->in_size - in.pos, io->out_room - out.pos);
	if (ZSTD_isError(r)) {
		switch (ZSTD_getErrorCode(r)) {
		case ZSTD_error_frameParameter_windowTooLarge:
			return -E2BIG;
		case ZSTD_error_memory_allocation:
			return -ENOMEM;
		default:
			return -EBADMSG;
		}
	}
	*ret_end = r == 0;
	return 0;
}

static void zstd_close(void *state)
{
	ZSTD_freeDCtx(state);
}

const struct hf_codec hf_codec_zstd = {zstd_open, zstd_step, zstd_close};
