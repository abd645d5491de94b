/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What decompress.c wants of a library. Only the decompress-*.c files include this.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cleanup.h"

/* Dictionaries of kernels have 128 MiB at most (scripts/xz_wrap.sh, zstd -22 --ultra). */
#define HF_CODEC_MAX_MEMORY_BYTES (160ULL << 20)
#define HF_CODEC_MAX_WINDOW_LOG 27

/** struct hf_codec_io - what a step may take and give; it moves pointers and counts along. */
struct hf_codec_io {
	const uint8_t *in;
	size_t in_size;
	bool in_ends; /* nothing will follow in_size */
	uint8_t *out;
	size_t out_room;
};

/**
 * struct hf_codec - one library.
 * @open:  makes a state. Return: 0 or -ENOMEM
 * @step:  goes on as far as it can, and sets @ret_end at the end of the stream. Return: 0 (no
 *         progress means that it needs more to read); -EBADMSG; -E2BIG; -ENOMEM
 * @close: frees the state
 */
struct hf_codec {
	int (*open)(void **ret_state);
	int (*step)(void *state, struct hf_codec_io *io, bool *ret_end);
	void (*close)(void *state);
};

extern const struct hf_codec hf_codec_gzip, hf_codec_bzip2, hf_codec_lzma, hf_codec_xz,
	hf_codec_zstd, hf_codec_lz4;
