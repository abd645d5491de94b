/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Unpacking what kernel images are packed with, in a stream and with limits.
 *
 * Bytes come from one callback and go to another; between them are two buffers of fixed size and
 * the state of one packaged library. That state is as large as the format's dictionary: at most
 * 160 MiB for xz, lzma and zstd (of which only as much is touched as is unpacked), 16 MiB for
 * lz4, less for the others. How much comes out is the caller's to limit.
 *
 * Everything here may run in any thread and keeps nothing between calls.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

enum hf_compression {
	HF_COMPRESSION_UNKNOWN,
	HF_COMPRESSION_NONE, /* an ELF file as it is */
	HF_COMPRESSION_GZIP,
	HF_COMPRESSION_BZIP2,
	HF_COMPRESSION_LZMA, /* the format of lzma(1), before xz */
	HF_COMPRESSION_XZ,
	HF_COMPRESSION_LZO, /* known by name only: no library of it is built in */
	HF_COMPRESSION_LZ4, /* the legacy frame, as `lz4 -l` writes it */
	HF_COMPRESSION_ZSTD,
};

/** hf_compression_name() - "zstd", "none", … */
const char *hf_compression_name(enum hf_compression c);

/** hf_compression_detect() - Tell by the first bytes; six of them are enough. Pure. */
enum hf_compression hf_compression_detect(const void *head, size_t size);

/** hf_compression_can() - Can it be unpacked here? */
bool hf_compression_can(enum hf_compression c);

/**
 * struct hf_decompress - one stream to unpack.
 * @format:    what it is packed with
 * @max_bytes: unpacked bytes that are too many
 * @read:      fills a buffer. Return: bytes, 0 at the end, or -errno
 * @write:     takes what was unpacked. Return: 0, or -errno to stop
 * @data:      handed to both
 *
 * The stream has to reach its own end. What follows that end is not looked at; of lz4, whose
 * legacy frame has no end, nothing may follow.
 */
struct hf_decompress {
	enum hf_compression format;
	uint64_t max_bytes;
	ssize_t (*read)(void *buf, size_t room, void *data);
	int (*write)(const void *bytes, size_t size, void *data);
	void *data;
};

/**
 * hf_decompress_run() - Unpack.
 * @ret_bytes: how many bytes came out
 *
 * Return: 0; -EBADMSG corrupt or cut; -EFBIG more than @max_bytes; -E2BIG it would need more
 * memory than is allowed; -EOPNOTSUPP a format that can't be unpacked here; -ENOMEM; whatever a
 * callback failed with (then @e says so only in general words).
 */
int hf_decompress_run(const struct hf_decompress *d, uint64_t *ret_bytes, struct hf_error *e);
