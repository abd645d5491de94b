/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Room for a guest's device state: memfds that are made before the pause, and more of them
 * when a state turns out larger than it was estimated.
 */
#pragma once

#include "common/error.h"
#include "memfd-preserve/carrier.h"
#include "memfd-preserve/manifest.h"
#include "memfd-preserve/stream.h"

/** struct hf_state_room - starts zeroed but for what is borrowed; ends with
 * hf_state_room_release(). */
struct hf_state_room {
	struct hf_manifest_guest *guest; /* borrowed: its chunks are these files */
	struct hf_session *session;	 /* borrowed: it preserves them */
	struct hf_sink sink;
	int fds[HF_SINK_MAX_CHUNKS]; /* the first @n of them */
	size_t n;
};

/**
 * hf_state_room_add() - One more file: made, preserved, mapped.
 * @capacity: in bytes
 *
 * May run in a worker. Return: 0 or -errno, -ENOSPC among them: there are as many as there may be.
 */
int hf_state_room_add(struct hf_state_room *room, uint64_t capacity, struct hf_error *error);

/** hf_state_room_grow() - As much again as there is. Return: likewise. */
int hf_state_room_grow(struct hf_state_room *room, struct hf_error *error);

/** hf_state_room_filled() - The state was saved: the guest's chunks get their lengths. */
void hf_state_room_filled(struct hf_state_room *room);

/** hf_state_room_release() - Close everything. The guest's chunks stay. */
void hf_state_room_release(struct hf_state_room *room);
