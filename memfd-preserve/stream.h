/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Device-state streams: from the VMMs' sockets into preserved memfds, and back.
 *
 * One io_uring for all guests at once, driven by an sd-event loop through an eventfd. Bytes go
 * straight between socket and the mapped memfd; XXH3-64 runs along.
 *
 * A *sink* is the place for one guest's state: memfds of fixed size (preserved ones can't grow),
 * mapped and touched ahead of time, filled in order. When they are full a callback may supply
 * another one.
 *
 * Life of a transfer: started with hf_stream_save() or hf_stream_load(); ends with exactly one call
 * of its `done`, from the loop, never from inside the function that started it, also after
 * hf_stream_cancel() and in hf_stream_ring_free(). After that the handle is gone. The sink must
 * stay until then. Sockets are taken, on failure too, and closed before `done`.
 *
 * Everything runs on the loop's thread. Kernels from 5.15 on.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"

#define HF_SINK_MAX_CHUNKS 16

/* One memfd of a sink. */
struct hf_sink_chunk {
	uint64_t capacity; /* size of the memfd */
	uint64_t length;   /* bytes of the stream in it */
	uint8_t *map;
};

/* Device state of one guest in memory. Zero-initialise; released with hf_sink_release(). */
struct hf_sink {
	struct hf_sink_chunk chunks[HF_SINK_MAX_CHUNKS];
	size_t n_chunks;
};

/**
 * hf_sink_add() - Map a memfd as the next chunk.
 * @fd:       not kept, the mapping is enough; must be at least @capacity long
 * @capacity: bytes of it to use
 * @length:   bytes of a stream that are in it (load), 0 (save)
 *
 * Touches every page, so that no page fault is left for the blackout: call it at prepare.
 * Return: 0; -EINVAL; -ENOSPC too many chunks; -EBADMSG memfd too short; other -errno.
 */
int hf_sink_add(struct hf_sink *s, int fd, uint64_t capacity, uint64_t length, struct hf_error *e);

/** hf_sink_length() - Bytes of the stream in all chunks. */
uint64_t hf_sink_length(const struct hf_sink *s);

/** hf_sink_xxh3() - XXH3-64 of the stream in it, computed from the bytes. */
uint64_t hf_sink_xxh3(const struct hf_sink *s);

/** hf_sink_release() - Unmap everything and make it empty again. */
void hf_sink_release(struct hf_sink *s);

struct hf_stream_ring;
struct hf_stream;

struct hf_stream_result {
	int err;	 /* 0, -ECANCELED, -ENOSPC no room left, -EPIPE the VMM went away, … */
	uint64_t length; /* bytes moved */
	uint64_t xxh3;	 /* of those bytes, valid when err is 0 */
	struct hf_error error; /* set when err isn't 0 */
};

typedef void (*hf_stream_done_fn)(void *data, const struct hf_stream_result *result);

/**
 * hf_stream_grow_fn() - A sink is full and there is more to come.
 * @sink: add one more chunk to it, from a memfd that is preserved already
 *
 * Return: 0, or -errno: there is none to be had. That ends the transfer with -ENOSPC, and with @e.
 */
typedef int (*hf_stream_grow_fn)(void *data, struct hf_sink *sink, struct hf_error *e);

/**
 * hf_stream_ring_new() - Set up the ring.
 * @event:    loop; referenced
 * @ret_ring: freed with hf_stream_ring_free()
 *
 * Return: 0; -ENOSYS or -EPERM when io_uring is off on this host (the remedy says how to switch it
 * on); other -errno.
 */
int hf_stream_ring_new(sd_event *event, struct hf_stream_ring **ret_ring, struct hf_error *e);

/**
 * hf_stream_ring_free() - Cancel all transfers, wait for the kernel to let go of their buffers,
 * call each `done` with -ECANCELED, free the ring. Not from within a `done` or `grow`. NULL is
 * fine.
 */
void hf_stream_ring_free(struct hf_stream_ring *ring);

/**
 * hf_stream_save() - Read a stream to its end into a sink.
 * @sock_fd: socket the VMM writes to; taken
 * @sink:    empty, with at least one chunk; its lengths are set as bytes come
 * @grow:    may be NULL
 * @data:    for @grow and @done
 * @ret_stream: to cancel with; may be NULL
 *
 * End of file is the end of the stream: whether it is a *complete* one, only the VMM's monitor can
 * tell. An empty one is -ENODATA. Return: 0 when started; else `done` is never called.
 */
int hf_stream_save(struct hf_stream_ring *ring, int sock_fd, struct hf_sink *sink,
	hf_stream_grow_fn grow, hf_stream_done_fn done, void *data, struct hf_stream **ret_stream,
	struct hf_error *e);

/**
 * hf_stream_load() - Send the stream in a sink, once its length and checksum were found right.
 * @sock_fd: socket the VMM reads from; taken, and closed at the end, which ends the stream
 * @length:  from the manifest
 * @xxh3:    from the manifest
 *
 * Return: 0 when started; -EBADMSG when length or checksum are wrong: not a byte was sent then.
 */
int hf_stream_load(struct hf_stream_ring *ring, int sock_fd, struct hf_sink *sink, uint64_t length,
	uint64_t xxh3, hf_stream_done_fn done, void *data, struct hf_stream **ret_stream,
	struct hf_error *e);

/** hf_stream_cancel() - End a transfer early. `done` comes later, from the loop. NULL is fine. */
void hf_stream_cancel(struct hf_stream *stream);
