/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Images: memfds in a file on local storage and back, over any reboot.
 *
 * An image has a few files of one guest (its *blocks*: RAM, and memfds with device state or a
 * manifest, which are nothing else to it) as they were at one instant. It is made in *passes*.
 * While the guest runs a pass copies what changed since the one before; the final pass runs while
 * it stands still and nothing else writes to the files. Only a commit record, written when all else
 * is on the disk, makes it an image: one that was cut short, at whatever point, is never loaded.
 *
 * What changed is found by looking at everything. The kernel has no record of writes to a shared
 * file that is complete: soft-dirty bits of a page are lost when its mapping goes (reclaim,
 * khugepaged, a split) and comes back for reading, devices that have pages pinned write past page
 * tables, and the logs of KVM and userfaultfd belong to QEMU's address space. So each pass copies a
 * chunk into a buffer of its own, takes a 128-bit hash of that copy, keyed by a secret of this
 * image, and writes *that copy* if the hash is not the one of what was written before. What has one
 * hash is on disk with these very bytes, whatever the guest does meanwhile. The price is that the
 * final pass reads all of RAM, at the speed of memory, in all threads; what it writes is what
 * changed.
 *
 * Threads: the engine has threads of its own, which work on all images at once. The functions below
 * block until their work is done: call them in hf_worker_run(). Calls on different images may run
 * at the same time, calls on one image must not. A struct hf_image_control may be looked at and
 * cancelled from any thread meanwhile.
 *
 * Memory: 12 MiB of buffers an engine, and 24 to 40 bytes for a chunk, of which an image has up to
 * a million: less than 64 MiB in all for one image of any size.
 *
 * Trust: the folder must belong to the user of this process and be closed to all others, and so
 * must images. What is in them is believed only as far as it is proven: by checksums against damage
 * and, in encrypted images, by tags against everything else.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "memfd-preserve/image-crypt.h"
#include "memfd-preserve/image-format.h"

/* Threads and rings for the work on images. */
struct hf_image_engine;

/**
 * hf_image_engine_new() - Start the threads, about as many as there are CPUs.
 *
 * Return: 0; -ENOSYS, -EPERM there is no io_uring for us; other -errno.
 */
int hf_image_engine_new(struct hf_image_engine **ret, struct hf_error *e);

/** hf_image_engine_free() - End them. No call on an image may be under way. NULL is fine. */
void hf_image_engine_free(struct hf_image_engine *engine);

/* Of one call that works for long. Zero-initialise; numbers only grow. */
struct hf_image_control {
	atomic_bool cancel;		      /* set it to have the call end with -ECANCELED */
	atomic_uint_least64_t total_bytes;    /* of all blocks */
	atomic_uint_least64_t done_bytes;     /* of them, looked at or loaded */
	atomic_uint_least64_t transfer_bytes; /* written to or read from the image */
};

/* Who wraps keys of images. The functions run on the thread of the call. */
struct hf_image_keys {
	const char *kind; /* up to 15 characters: stored in the image, compared when it is loaded */
	/* @size: in: room at @blob, out: bytes of it. Return: 0 or -errno with @e filled. */
	int (*wrap)(void *data, const uint8_t image[HF_IMAGE_UUID_BYTES],
		const uint8_t key[HF_IMAGE_KEY_BYTES], void *blob, size_t *size,
		struct hf_error *e);
	int (*unwrap)(void *data, const uint8_t image[HF_IMAGE_UUID_BYTES], const void *blob,
		size_t size, uint8_t key[HF_IMAGE_KEY_BYTES], struct hf_error *e);
	void *data;
};

/**
 * hf_image_kek() - Keys wrapped by another key, with AES-256-GCM.
 * @kek: 32 bytes, which have to stay
 */
struct hf_image_keys hf_image_kek(const uint8_t kek[HF_IMAGE_KEY_BYTES]);

struct hf_image_block {
	uint64_t token; /* any number, once an image */
	uint64_t size;
	bool huge;		    /* load it into 2 MiB folios where the host has them on */
	char id[HF_IMAGE_ID_BYTES]; /* for people */
	int fd;			    /* saving: stays the caller's, its file position moves */
};

struct hf_image_save_config {
	const char *folder;		      /* mode 0700, of this process' user */
	const char *name;		      /* of the file in it, which must not exist */
	uint8_t guest[HF_IMAGE_UUID_BYTES];   /* zero where it is of none */
	uint8_t machine[HF_IMAGE_UUID_BYTES]; /* the host's machine-id */
	const struct hf_image_keys *keys;     /* NULL: not encrypted, which takes plaintext */
	bool plaintext;			      /* yes, guest memory may lie on the disk readable */
	const struct hf_image_block *blocks;  /* they need not stay */
	size_t n_blocks;
	uint32_t chunk_bytes; /* 0: by size */
	bool buffered;	      /* no direct I/O even if there is */
};

struct hf_image_stats {
	bool direct; /* past the page cache */
	bool encrypted;
	uint64_t chunk_bytes; /* of the last pass, and of the image: */
	uint64_t chunks, data_chunks, zero_chunks, hole_chunks;
	uint64_t changed_chunks; /* that the last pass wrote */
	uint64_t file_bytes;	 /* so far, or of the image */
	uint32_t passes;
};

/* An image that is being made. */
struct hf_image_save;

/**
 * hf_image_save_begin() - Make the file and everything in it that doesn't change.
 * @ret: ends with hf_image_save_abort() or hf_image_save_close()
 *
 * Return: 0; -EINVAL neither keys nor plaintext, or another argument is wrong; -EPERM the folder
 * isn't closed to others; -EEXIST; -EFBIG; -ENOSPC; other -errno.
 */
int hf_image_save_begin(struct hf_image_engine *engine, const struct hf_image_save_config *config,
	struct hf_image_save **ret, struct hf_error *e);

/** hf_image_save_uuid() - Of the image, made at its begin. Valid as long as @s. */
const uint8_t *hf_image_save_uuid(const struct hf_image_save *s);

/**
 * hf_image_save_pass() - Look at everything, write what changed.
 * @final:   nothing writes to the files from before this call until the image is committed or
 *           aborted
 * @control: may be NULL
 *
 * Return: 0; -ECANCELED, after which there may be another pass; -ENOSPC, -EIO or other -errno,
 * after which the image can only be aborted.
 */
int hf_image_save_pass(
	struct hf_image_save *s, bool final, struct hf_image_control *control, struct hf_error *e);

/**
 * hf_image_save_commit() - Make it an image, on the disk for good. After a final pass only.
 *
 * Return: 0; -EINVAL; other -errno, after which it can only be aborted.
 */
int hf_image_save_commit(struct hf_image_save *s, struct hf_error *e);

/** hf_image_save_stats() - What there is to know. Not while a call on @s is under way. */
void hf_image_save_stats(const struct hf_image_save *s, struct hf_image_stats *ret);

/** hf_image_save_abort() - Remove the file, even if it was committed, and free @s. NULL is fine. */
void hf_image_save_abort(struct hf_image_save *s);

/** hf_image_save_close() - Free @s. A file that was not committed is removed. NULL is fine. */
void hf_image_save_close(struct hf_image_save *s);

/**
 * hf_image_remove() - Remove an image, for good.
 *
 * Its blocks of the disk are free, not overwritten. Return: 0; -ENOENT; -EPERM; other -errno.
 */
int hf_image_remove(const char *folder, const char *name, struct hf_error *e);

struct hf_image_load_config {
	const char *folder;
	const char *name;
	const uint8_t *image; /* uuid that it has to have; NULL: any */
	const uint8_t *guest; /* likewise */
	uint8_t machine[HF_IMAGE_UUID_BYTES];
	const struct hf_image_keys *keys; /* NULL: it must not be encrypted */
	bool plaintext;			  /* it may be not encrypted */
	bool buffered;
	bool map_anyway; /* blocks that are `huge`, even where large pages are off: for tests */
};

struct hf_image_loaded {
	struct hf_image_block *blocks; /* with fds of new memfds, the owner's */
	size_t n_blocks;
	struct hf_image_header header;
	struct hf_image_stats stats;
};

/**
 * hf_image_load() - Load an image into new memfds.
 * @ret: released with hf_image_loaded_release()
 *
 * All of it is verified before anything is returned. The image stays as it is. Return: 0; -ENOENT;
 * -ENODATA it was never completed; -EBADMSG damaged, with the offset; -EPROTONOSUPPORT newer;
 * -ESTALE of another machine, another guest, or not the image expected; -EPERM file or folder open
 * to others, or plain where that isn't wanted; -ENOKEY; -ECANCELED; other -errno.
 */
int hf_image_load(struct hf_image_engine *engine, const struct hf_image_load_config *config,
	struct hf_image_control *control, struct hf_image_loaded *ret, struct hf_error *e);

/** hf_image_loaded_release() - Close the fds that are still in it, and free. */
void hf_image_loaded_release(struct hf_image_loaded *l);

/**
 * hf_image_peek() - Read what is said at the beginning of an image, without its key.
 * @ret_committed: whether it was completed; may be NULL
 *
 * Nothing of it is proven. Return: as hf_image_load().
 */
int hf_image_peek(const char *folder, const char *name, struct hf_image_header *ret,
	bool *ret_committed, struct hf_error *e);
