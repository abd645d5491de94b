/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The threads behind images. For image-*.c only.
 *
 * Each thread has a ring, buffers that are registered with it, and a cipher of its own, so that
 * none of these needs a lock. It takes a *unit* of a job (a piece of one block), works on it and
 * submits what is to be written or read; when that has come back it is called once more. A job is
 * over when all of its units were worked on and all of its buffers are free, or, after an error,
 * when the buffers are. Jobs are worked on in the order in which they came.
 *
 * One ring for all threads would need a lock around every request, or a thread that does nothing
 * else, and gains nothing: requests are of up to 1 MiB.
 *
 * A buffer belongs to a job from hf_image_buffer_get() until its requests have come back.
 */
#pragma once

#include <liburing.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "memfd-preserve/image.h"

#define HF_IMAGE_BUFFER_BYTES (1u << 20)
#define HF_IMAGE_WINDOW_BYTES (2u << 20) /* a huge page */
#define HF_IMAGE_BUFFER_CHUNKS (HF_IMAGE_BUFFER_BYTES >> HF_IMAGE_MIN_CHUNK_SHIFT)
#define HF_IMAGE_MAX_IOS HF_IMAGE_BUFFER_CHUNKS

struct hf_image_worker;
struct hf_image_job;
struct hf_image_buffer;

/* One request to the ring. */
struct hf_image_io {
	struct hf_image_buffer *buffer;
	uint8_t *data;
	uint32_t bytes;
	uint64_t offset;
	int fd;
	bool is_write;
};

struct hf_image_buffer {
	struct hf_image_worker *worker;
	struct hf_image_job *job; /* NULL: free */
	uint8_t *data;		  /* HF_IMAGE_BUFFER_BYTES */
	uint8_t *window;	  /* room for a mapping, aligned; NULL: not this one */
	unsigned int n_ios, n_pending;
	int err; /* of the first request that failed */
	struct hf_image_io ios[HF_IMAGE_MAX_IOS];
	/* The job's. */
	const struct hf_image_block_info *block;
	uint32_t n_chunks;
	uint32_t chunks[HF_IMAGE_BUFFER_CHUNKS];
};

struct hf_image_worker {
	struct hf_image_engine *engine;
	pthread_t thread;
	bool started;
	struct io_uring ring;
	bool has_ring;
	bool registered; /* buffers with the ring */
	struct hf_image_cipher *cipher;
	uint8_t *memory; /* of all buffers */
	struct hf_image_buffer *buffers;
	unsigned int n_buffers, n_busy;
	struct hf_image_buffer *open; /* being filled */
	uint8_t *room;		      /* address space of twice a window */
	uint8_t *window;	      /* in it, aligned: room for a mapping */
};

struct hf_image_job_ops {
	/* Work on a unit. */
	int (*unit)(struct hf_image_worker *w, struct hf_image_job *job, uint64_t unit,
		struct hf_error *e);
	/* No more for the open buffer of this thread: submit it. NULL: there is never one. */
	int (*flush)(struct hf_image_worker *w, struct hf_image_job *job, struct hf_error *e);
	/* All requests of a buffer came back well. NULL: nothing to do. */
	int (*done)(struct hf_image_worker *w, struct hf_image_buffer *b, struct hf_error *e);
};

struct hf_image_job {
	const struct hf_image_job_ops *ops;
	struct hf_image_control *control;
	uint64_t n_units;
	/* The engine's, under its lock. */
	struct hf_image_job *next;
	uint64_t next_unit;
	uint64_t n_busy; /* units and buffers */
	int err;
	struct hf_error error;
};

/** hf_image_job_run() - Have a job done, and wait for it. Return: 0 or -errno with @e filled. */
int hf_image_job_run(struct hf_image_engine *engine, struct hf_image_job *job, struct hf_error *e);

/**
 * hf_image_buffer_get() - A free buffer for a job; waits for one.
 *
 * It is given back by hf_image_buffer_submit() in the end. To be called from unit() only.
 */
struct hf_image_buffer *hf_image_buffer_get(struct hf_image_worker *w, struct hf_image_job *job);

/** hf_image_buffer_io() - Add a request to a buffer. */
void hf_image_buffer_io(struct hf_image_buffer *b, int fd, bool is_write, void *data,
	uint32_t bytes, uint64_t offset);

/** hf_image_buffer_submit() - Submit its requests. Without any it is free at once. */
void hf_image_buffer_submit(struct hf_image_buffer *b);
