/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: An image that is being made. For image-*.c only.
 *
 * What is known of a chunk is written by the one thread that has it in a pass, and read when the
 * pass is over.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "memfd-preserve/image-engine.h"

#define HF_IMAGE_NO_SLOT UINT32_MAX

struct hf_image_chunk {
	uint64_t hash[2]; /* of what is in the slot */
	uint32_t slot;	  /* HF_IMAGE_NO_SLOT: never had one */
	uint32_t generation : 30;
	uint32_t kind : 2;
};

enum hf_image_save_state {
	HF_IMAGE_OPEN,
	HF_IMAGE_FINAL, /* what the files have is what is written */
	HF_IMAGE_COMMITTED,
	HF_IMAGE_BROKEN,
};

struct hf_image_save {
	struct hf_image_engine *engine;
	enum hf_image_save_state state;
	int folder, fd;
	char *name;
	bool direct;
	struct hf_image_header header;
	struct hf_image_block_info *blocks;
	int *fds;		  /* of the blocks */
	struct hf_image_key *key; /* NULL: plain */
	void *front;		  /* header, empty commit record, table and key, as on disk */
	struct hf_image_chunk *chunks;
	uint8_t (*tags)[HF_IMAGE_CHECK_BYTES]; /* encrypted images only */
	uint8_t secret[HF_IMAGE_SECRET_BYTES]; /* of the hashes */
	uint32_t pass;
	atomic_uint_least64_t changed; /* chunks written in this pass */
	pthread_mutex_t lock;	       /* guards the two below during a pass */
	uint64_t n_slots;
	uint64_t allocated; /* bytes of the file that are sure to have room */
	/* Of the pass under way. */
	struct hf_image_job job;
};

/** hf_image_save_run_pass() - One pass, numbered s->pass. Return: 0 or -errno. */
int hf_image_save_run_pass(
	struct hf_image_save *s, struct hf_image_control *control, struct hf_error *e);
