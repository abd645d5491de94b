/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: lz4's legacy frame: a magic, then blocks, each behind its packed size, each of 8 MiB but
 * the last. liblz4 knows the blocks; of frames it knows only the newer ones.
 *
 * Source: lib/decompress_unlz4.c of Linux. As there, the magic may come again between blocks, and
 * a size of 0 ends the stream.
 */
#include <lz4.h>
#include <string.h>

#include "memfd-preserve/decompress-internal.h"
#include "memfd-preserve/little-endian.h"

#define MAGIC 0x184c2102u
#define BLOCK_BYTES (8u << 20)
#define PACKED_BYTES LZ4_COMPRESSBOUND(BLOCK_BYTES)

struct lz4_state {
	uint8_t word[4]; /* the size that is being read */
	size_t n_word;
	bool begun;	  /* the first magic was there */
	uint32_t expects; /* packed bytes of the block, 0: a size comes next */
	size_t n_packed;
	size_t n_block, delivered; /* of what the last block unpacked to */
	uint8_t *packed;
	uint8_t *block;
};

static void lz4_close(void *state)
{
	struct lz4_state *s = state;

	free(s->packed);
	free(s->block);
	free(s);
}

static int lz4_open(void **ret_state)
{
	struct lz4_state *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->packed = malloc(PACKED_BYTES);
	s->block = malloc(BLOCK_BYTES);
	if (!s->packed || !s->block) {
		lz4_close(s);
		return -ENOMEM;
	}
	*ret_state = s;
	return 0;
}

static size_t take(struct hf_codec_io *io, void *to, size_t wanted)
{
	size_t n = HF_MIN(wanted, io->in_size);

	memcpy(to, io->in, n);
	io->in += n;
	io->in_size -= n;
	return n;
}

/* The word between blocks. Return: 0, also when it is not whole yet, or -EBADMSG. */
static int take_size(struct lz4_state *s, struct hf_codec_io *io, bool *ret_end)
{
	uint32_t value;

	s->n_word += take(io, s->word + s->n_word, sizeof(s->word) - s->n_word);
	if (s->n_word < sizeof(s->word)) {
		*ret_end = s->begun && s->n_word == 0 && io->in_ends;
		return 0;
	}
	s->n_word = 0;
	value = hf_le32(s->word);
	if (value == MAGIC) {
		s->begun = true;
		return 0;
	}
	if (!s->begun || value > PACKED_BYTES)
		return -EBADMSG;
	s->expects = value;
	*ret_end = value == 0;
	return 0;
}

static int take_block(struct lz4_state *s, struct hf_codec_io *io)
{
	int n;

	s->n_packed += take(io, s->packed + s->n_packed, s->expects - s->n_packed);
	if (s->n_packed < s->expects)
		return 0;
	n = LZ4_decompress_safe(
		(const char *)s->packed, (char *)s->block, (int)s->expects, (int)BLOCK_BYTES);
	if (n < 0)
		return -EBADMSG;
	s->n_block = (size_t)n;
	s->delivered = 0;
	s->n_packed = 0;
	s->expects = 0;
	return 0;
}

static void give(struct lz4_state *s, struct hf_codec_io *io)
{
	size_t n = HF_MIN(s->n_block - s->delivered, io->out_room);

	memcpy(io->out, s->block + s->delivered, n);
	io->out += n;
	io->out_room -= n;
	s->delivered += n;
}

static int lz4_step(void *state, struct hf_codec_io *io, bool *ret_end)
{
	struct lz4_state *s = state;
	int r = 0;

	give(s, io);
	while (r == 0 && !*ret_end && s->delivered == s->n_block) {
		size_t before = io->in_size;

		r = s->expects > 0 ? take_block(s, io) : take_size(s, io, ret_end);
		if (r == 0 && io->in_size == before)
			break;
		give(s, io);
	}
	return r;
}

const struct hf_codec hf_codec_lz4 = {lz4_open, lz4_step, lz4_close};
