/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: An image that is being loaded. For image-*.c only.
 */
#pragma once

#include "memfd-preserve/image-engine.h"

struct hf_image_load {
	int fd;
	bool direct;
	uint64_t file_bytes;
	struct hf_image_header header;
	struct hf_image_commit commit;
	struct hf_image_block_info *blocks;
	int *fds; /* new memfds of the blocks */
	struct hf_image_key *key;
	uint8_t *index; /* verified */
	size_t index_bytes;
	bool large_pages; /* are to be had */
	struct hf_image_job job;
};

/** hf_image_load_entry() - What the index says of a chunk. */
static inline void hf_image_load_entry(
	const struct hf_image_load *l, uint64_t chunk, struct hf_image_entry *ret)
{
	hf_image_entry_decode(l->index + chunk * HF_IMAGE_ENTRY_BYTES, ret);
}

/** hf_image_load_data() - Fill the memfds. Return: 0; -EBADMSG; other -errno. */
int hf_image_load_data(struct hf_image_load *l, struct hf_image_engine *engine,
	struct hf_image_control *control, struct hf_error *e);
