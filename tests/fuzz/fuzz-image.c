/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Images of arbitrary bytes: what is accepted has all its chunks inside of the file.
 *
 * The bytes are taken as they are, and once more with the checksums made right, behind which
 * a fuzzer would hardly come.
 */
#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "memfd-preserve/image-format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at_index(const uint8_t *data, const struct hf_image_header *h,
	const struct hf_image_commit *c, uint64_t file_bytes)
{
	struct hf_image_entry entry;

	if (hf_image_index_check(data + c->index_offset, c->index_bytes, h, c, NULL) < 0)
		return;
	for (uint64_t i = 0; i < h->n_chunks; i++) {
		hf_image_entry_decode(data + c->index_offset + i * HF_IMAGE_ENTRY_BYTES, &entry);
		if (entry.kind == HF_IMAGE_DATA &&
			hf_image_slot_offset(h, entry.slot) + (1ULL << h->chunk_shift) > file_bytes)
			abort();
	}
}

static void look(const uint8_t *data, size_t size)
{
	struct hf_image_block_info *blocks = NULL;
	struct hf_image_header h;
	struct hf_image_commit c;
	uint64_t n = 0;

	if (hf_image_header_decode(data, size, &h, NULL) < 0)
		return;
	if (h.data_offset <= size &&
		hf_image_table_decode(data + HF_IMAGE_TABLE_OFFSET,
			h.data_offset - HF_IMAGE_TABLE_OFFSET, &h, &blocks, NULL) == 0) {
		for (uint32_t i = 0; i < h.n_blocks; i++) {
			if (blocks[i].first_chunk != n ||
				blocks[i].n_chunks << h.chunk_shift < blocks[i].size)
				abort();
			n += blocks[i].n_chunks;
		}
		if (n != h.n_chunks)
			abort();
		free(blocks);
	}
	if (size < HF_IMAGE_TABLE_OFFSET ||
		hf_image_commit_decode(data + HF_IMAGE_COMMIT_OFFSET, size - HF_IMAGE_COMMIT_OFFSET,
			&h, &c, NULL) < 0)
		return;
	if (c.index_offset > c.file_bytes || c.index_bytes > c.file_bytes - c.index_offset)
		abort();
	if (c.file_bytes <= size)
		look_at_index(data, &h, &c, c.file_bytes);
}

static void correct(uint8_t *page)
{
	uint64_t xxh3 = htole64(XXH3_64bits(page, HF_IMAGE_PAGE_BYTES - sizeof(xxh3)));

	memcpy(page + HF_IMAGE_PAGE_BYTES - sizeof(xxh3), &xxh3, sizeof(xxh3));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	look(data, size);
	if (size < HF_IMAGE_TABLE_OFFSET)
		return 0;
	copy = malloc(size);
	if (!copy)
		abort();
	memcpy(copy, data, size);
	memcpy(copy, "HOLDFIMG", 8);
	memcpy(copy + HF_IMAGE_COMMIT_OFFSET, "HOLDFCMT", 8);
	/* The commit record names the image. */
	memcpy(copy + HF_IMAGE_COMMIT_OFFSET + 16, copy + 16, HF_IMAGE_UUID_BYTES);
	correct(copy);
	correct(copy + HF_IMAGE_COMMIT_OFFSET);
	look(copy, size);
	free(copy);
	return 0;
}
