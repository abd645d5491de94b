/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The far end of a guest's migration: RAM into memfds, the rest into device state.
 *
 * A receiver reads QEMU's stream from a socket in a thread of its own, because it copies all of a
 * guest's RAM. Pages of the blocks it was made for go to those blocks' memfds; what remains of the
 * stream goes into memfds of its own, which grow as needed, and is the device state of a guest that
 * starts on those memfds.
 *
 * Success means: the stream was understood to its end, and every page of every block came at least
 * once. Whether the *device state* is complete, only QEMU's monitor can tell.
 *
 * Used from the loop's thread. A failure leaves memfds with anything in them: throw them away.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

/* More device state than this is refused: RAM that should have been kept out, or rewritten forever.
 */
#define HF_RAM_RECEIVER_MAX_STATE (256ull << 20)

/** struct hf_ram_dest - a RAM block. @fd: memfd of at least @size bytes, all zero; borrowed. */
struct hf_ram_dest {
	const char *id;
	uint64_t size;
	int fd;
};

struct hf_ram_receiver;

/** Called once, on the loop. @error is NULL on success, borrowed. */
typedef void (*hf_ram_receiver_done_fn)(void *data, const struct hf_error *error);

/**
 * hf_ram_receiver_new() - Map the blocks, make room for device state.
 * @state_bytes: first room for device state
 *
 * Return: 0 or -errno, @error filled.
 */
int hf_ram_receiver_new(const struct hf_ram_dest *dests, size_t n_dests, uint64_t state_bytes,
	struct hf_ram_receiver **ret, struct hf_error *error);

/**
 * hf_ram_receiver_start() - Read a stream. Once.
 * @sock: taken, on failure too; shut down as soon as anything fails, so that QEMU notices
 *
 * Return: 0 when @done will be called, or -errno.
 */
int hf_ram_receiver_start(struct hf_ram_receiver *r, sd_event *event, int sock,
	hf_ram_receiver_done_fn done, void *data);

/** hf_ram_receiver_cancel() - End it early: @done comes later, with -ECANCELED. NULL is fine. */
void hf_ram_receiver_cancel(struct hf_ram_receiver *r);

/**
 * hf_ram_receiver_take_state() - The device state of a stream that was read.
 * @guest:   gets state[], state_length and state_xxh3
 * @ret_fds: room for HF_MANIFEST_MAX_CHUNKS; now the caller's
 *
 * Return: 0 or -ENOMEM.
 */
int hf_ram_receiver_take_state(
	struct hf_ram_receiver *r, struct hf_manifest_guest *guest, int *ret_fds);

/** hf_ram_receiver_free() - Not between start and done. NULL is fine. */
void hf_ram_receiver_free(struct hf_ram_receiver *r);
