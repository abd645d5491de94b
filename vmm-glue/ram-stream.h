/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QEMU's migration stream, taken apart as far as guest RAM goes.
 *
 * A pure, incremental parser: bytes in, in pieces of any size; out through callbacks come the pages
 * of chosen RAM blocks, and everything else unchanged and in order. What is passed on is a complete
 * stream for a QEMU that has those blocks' contents already: the records of their pages are all
 * that it lacks, and loading asks for none in particular.
 *
 * What it understands is an ordinary pre-copy migration of x86 without any capability that changes
 * the stream, as QEMU 7.2 to 11.1 write it: header, configuration, one section `ram` in as many
 * parts as rounds take, and then the devices, which have no lengths and need none, because
 * everything that is iterated over comes before them. Anything else is an error: the guest must not
 * be given up for a stream that was not understood.
 *
 * Untrusted input: every count and length has a limit.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define HF_RAM_STREAM_PAGE 4096	     /* the target page of x86, whatever the host's */
#define HF_RAM_STREAM_MAX_BLOCKS 512 /* in the stream */

/**
 * struct hf_ram_stream_block - a block whose pages are wanted.
 * @id:   QEMU's object id; in the stream it is this, or with /objects/ in front
 * @size: in bytes, which has to be that of the stream
 */
struct hf_ram_stream_block {
	const char *id;
	uint64_t size;
};

/**
 * struct hf_ram_stream_ops - where it goes. Each returns 0, or -errno, which ends the parse.
 * @page: a page was written: @bytes are HF_RAM_STREAM_PAGE of them
 * @zero: a page holds nothing but zeros, whatever it held before
 * @pass: anything else, the next @size bytes of the remaining stream
 *
 * @offset is a multiple of HF_RAM_STREAM_PAGE and within the block.
 */
struct hf_ram_stream_ops {
	int (*page)(void *data, size_t block, uint64_t offset, const uint8_t *bytes);
	int (*zero)(void *data, size_t block, uint64_t offset);
	int (*pass)(void *data, const uint8_t *bytes, size_t size);
};

struct hf_ram_stream;

/**
 * hf_ram_stream_new() - Begin a stream.
 * @blocks: copied; at least one
 * @ops:    borrowed
 *
 * Return: 0, -EINVAL, -ENOMEM.
 */
int hf_ram_stream_new(const struct hf_ram_stream_block *blocks, size_t n_blocks,
	const struct hf_ram_stream_ops *ops, void *data, struct hf_ram_stream **ret);

/**
 * hf_ram_stream_feed() - The next bytes.
 *
 * Return: 0; -EBADMSG when it makes no sense; -EPROTONOSUPPORT when it has something that is not
 * understood; -ESTALE when RAM blocks aren't the expected ones; what a callback returned. Once
 * failed it stays failed.
 */
int hf_ram_stream_feed(
	struct hf_ram_stream *s, const uint8_t *bytes, size_t size, struct hf_error *error);

/** hf_ram_stream_end() - No more bytes. Return: 0; -EBADMSG when the RAM isn't complete. */
int hf_ram_stream_end(struct hf_ram_stream *s, struct hf_error *error);

/** hf_ram_stream_free() - NULL is fine. */
void hf_ram_stream_free(struct hf_ram_stream *s);
