/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What an image looks like on disk (docs/FORMATS.md). Pure: bytes in, structures out, no I/O.
 *
 * This interface is a contract between builds of holdfast. All numbers are little-endian. An image
 * is a header, a commit record, a block table with the wrapped key behind it, data, and an index
 * with one entry per chunk. Each part begins at a multiple of 4096 bytes, so that all of it can be
 * moved by direct I/O.
 *
 * Everything that is decoded here may be damaged or made up: every number is checked before
 * anybody computes with it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define HF_IMAGE_VERSION 1
#define HF_IMAGE_MIN_READER 1
#define HF_IMAGE_PAGE_BYTES 4096
#define HF_IMAGE_COMMIT_OFFSET 4096
#define HF_IMAGE_TABLE_OFFSET 8192
#define HF_IMAGE_BLOCK_BYTES 64
#define HF_IMAGE_ENTRY_BYTES 32

#define HF_IMAGE_UUID_BYTES 16
#define HF_IMAGE_SECRET_BYTES 192
#define HF_IMAGE_CHECK_BYTES 16
#define HF_IMAGE_ID_BYTES 40
#define HF_IMAGE_KEY_KIND_BYTES 16

#define HF_IMAGE_MAX_BLOCKS 256
#define HF_IMAGE_MAX_KEY_BLOB_BYTES (64u << 10)
#define HF_IMAGE_MIN_CHUNK_SHIFT 16 /* 64 KiB */
#define HF_IMAGE_MAX_CHUNK_SHIFT 20 /* 1 MiB */
#define HF_IMAGE_MAX_CHUNKS (1u << 20)
/* Chunks get larger before there are more than so many. */
#define HF_IMAGE_WANTED_CHUNKS (1u << 19)

enum hf_image_cipher_id {
	HF_IMAGE_PLAIN = 0,
	HF_IMAGE_AES_256_GCM = 1,
};

enum hf_image_chunk_kind {
	HF_IMAGE_HOLE = 0, /* nothing was in the file */
	HF_IMAGE_ZERO = 1, /* only zeros were */
	HF_IMAGE_DATA = 2, /* lies in a slot */
};

struct hf_image_header {
	uint32_t version, min_reader;
	uint8_t image[HF_IMAGE_UUID_BYTES];
	uint8_t guest[HF_IMAGE_UUID_BYTES];
	uint8_t machine[HF_IMAGE_UUID_BYTES];
	uint64_t created_ns; /* CLOCK_REALTIME, for people */
	uint32_t cipher;     /* enum hf_image_cipher_id */
	uint32_t chunk_shift;
	uint32_t n_blocks;
	uint32_t key_bytes; /* of the wrapped key, 0 in a plain image */
	uint64_t n_chunks;
	uint64_t data_offset;
	char key_kind[HF_IMAGE_KEY_KIND_BYTES]; /* who can unwrap the key; "" in a plain image */
	/* Of the checksums of chunks; zero in an encrypted image, which has none. */
	uint8_t secret[HF_IMAGE_SECRET_BYTES];
};

struct hf_image_block_info {
	uint64_t token;
	uint64_t size;
	bool huge; /* to be loaded into 2 MiB folios */
	char id[HF_IMAGE_ID_BYTES];
	uint64_t first_chunk, n_chunks; /* follow from the sizes */
};

struct hf_image_entry {
	uint32_t kind;
	uint32_t slot;
	uint32_t generation;		     /* of the pass that wrote it, from 1 */
	uint8_t check[HF_IMAGE_CHECK_BYTES]; /* keyed XXH3-128, or tag */
};

struct hf_image_commit {
	uint8_t image[HF_IMAGE_UUID_BYTES];
	uint32_t passes;
	uint64_t index_offset, index_bytes; /* without the padding */
	uint64_t file_bytes;
	uint64_t n_slots;
	uint64_t n_data;
	uint64_t committed_ns; /* CLOCK_REALTIME, for people */
	uint8_t header_check[HF_IMAGE_CHECK_BYTES];
	uint8_t table_check[HF_IMAGE_CHECK_BYTES];
	uint8_t index_check[HF_IMAGE_CHECK_BYTES];
	uint8_t tag[HF_IMAGE_CHECK_BYTES]; /* zero in a plain image */
};

static inline uint64_t hf_image_align(uint64_t bytes)
{
	return (bytes + HF_IMAGE_PAGE_BYTES - 1) & ~(uint64_t)(HF_IMAGE_PAGE_BYTES - 1);
}

/** hf_image_slot_offset() - Where in the file a slot begins. */
static inline uint64_t hf_image_slot_offset(const struct hf_image_header *h, uint64_t slot)
{
	return h->data_offset + (slot << h->chunk_shift);
}

/** hf_image_data_offset() - Where data begin behind so many blocks and so large a key. */
static inline uint64_t hf_image_data_offset(uint32_t n_blocks, uint32_t key_bytes)
{
	return hf_image_align(
		HF_IMAGE_TABLE_OFFSET + (uint64_t)n_blocks * HF_IMAGE_BLOCK_BYTES + key_bytes);
}

/**
 * hf_image_lay_out() - Number the chunks of blocks.
 * @shift:        chunks of 2^@shift bytes; 0: choose
 * @blocks:       first_chunk and n_chunks are set from size
 * @ret_shift:    what was chosen
 * @ret_n_chunks: of all
 *
 * Return: 0; -EFBIG when there is more than an image can hold.
 */
int hf_image_lay_out(uint32_t shift, struct hf_image_block_info *blocks, size_t n_blocks,
	uint32_t *ret_shift, uint64_t *ret_n_chunks, struct hf_error *e);

/** hf_image_check_bytes() - The plain XXH3-128 of some bytes, as it is stored. */
void hf_image_check_bytes(const void *data, size_t size, uint8_t ret[HF_IMAGE_CHECK_BYTES]);

/** hf_image_header_encode() - Fill the first page, its checksum included. */
void hf_image_header_encode(const struct hf_image_header *h, uint8_t page[HF_IMAGE_PAGE_BYTES]);

/**
 * hf_image_header_decode() - Read the first page.
 * @size: at least a page, of which the rest is not looked at
 *
 * Return: 0; -EBADMSG damaged or something else; -EPROTONOSUPPORT of a newer holdfast.
 */
int hf_image_header_decode(
	const void *data, size_t size, struct hf_image_header *ret, struct hf_error *e);

/** hf_image_block_encode() - Fill one entry of the table. */
void hf_image_block_encode(const struct hf_image_block_info *b, uint8_t out[HF_IMAGE_BLOCK_BYTES]);

/**
 * hf_image_table_decode() - Read the block table.
 * @size: bytes from HF_IMAGE_TABLE_OFFSET to where data begin
 * @ret:  h->n_blocks of them, freed by the caller
 *
 * Return: 0; -EBADMSG; -EPROTONOSUPPORT a flag this build doesn't know; -ENOMEM.
 */
int hf_image_table_decode(const void *data, size_t size, const struct hf_image_header *h,
	struct hf_image_block_info **ret, struct hf_error *e);

/** hf_image_commit_encode() - Fill the second page. With @bare as it is signed: see FORMATS. */
void hf_image_commit_encode(
	const struct hf_image_commit *c, bool bare, uint8_t page[HF_IMAGE_PAGE_BYTES]);

/**
 * hf_image_commit_decode() - Read the second page.
 *
 * Return: 0; -ENODATA when it was never written: the image is not complete; -EBADMSG.
 */
int hf_image_commit_decode(const void *data, size_t size, const struct hf_image_header *h,
	struct hf_image_commit *ret, struct hf_error *e);

/** hf_image_entry_encode() - Fill one entry of the index. */
void hf_image_entry_encode(const struct hf_image_entry *entry, uint8_t out[HF_IMAGE_ENTRY_BYTES]);

/** hf_image_entry_decode() - Read one entry, which hf_image_index_check() has accepted. */
void hf_image_entry_decode(const uint8_t in[HF_IMAGE_ENTRY_BYTES], struct hf_image_entry *ret);

/**
 * hf_image_index_check() - Look at every entry of an index.
 * @size: bytes of it, as in the commit record
 *
 * No two chunks share a slot, none lies outside, and the count is right. Return: 0; -EBADMSG;
 * -ENOMEM.
 */
int hf_image_index_check(const void *data, size_t size, const struct hf_image_header *h,
	const struct hf_image_commit *c, struct hf_error *e);
