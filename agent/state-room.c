/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/state-room.h"

#include <inttypes.h>
#include <string.h>

#include "agent/log.h"
#include "agent/outgoing.h"
#include "common/fault.h"
#include "common/fd.h"

int hf_state_room_add(struct hf_state_room *room, uint64_t capacity, struct hf_error *error)
{
	const uint64_t token = HF_TOKEN_STATE + room->n;
	struct hf_manifest_chunk *chunk;
	cleanup_close int fd = -EBADF;
	int r;

	if (room->n == HF_ARRAY_SIZE(room->fds))
		return hf_error_set(error, -ENOSPC, HF_ERR_FAILED, NULL,
			"the device state needs more than %zu memfds", room->n);
	r = hf_memfd_new("holdfast:state", capacity, &fd);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, "free memory",
			"can't make a memfd for the device state: %s", strerror(-r));
	r = hf_session_preserve(room->session, token, fd, error);
	if (r == 0)
		r = hf_sink_add(&room->sink, fd, capacity, 0, error);
	if (r < 0)
		return r;
	/* Last: the next agent looks for the file of every chunk. */
	chunk = hf_manifest_add_chunk(room->guest);
	if (!chunk)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	chunk->token = token;
	chunk->capacity = capacity;
	room->fds[room->n++] = TAKE_FD(fd);
	return 0;
}

int hf_state_room_grow(struct hf_state_room *room, struct hf_error *error)
{
	uint64_t have = 0;
	int r;

	for (size_t i = 0; i < room->sink.n_chunks; i++)
		have += room->sink.chunks[i].capacity;
	hf_log(LOG_NOTICE, room->guest->uuid,
		"%s: device state is larger than estimated, adding %" PRIu64 " bytes",
		room->guest->name, have);
	r = hf_fault(HF_FAULT_GROW_STATE, error);
	return r < 0 ? r : hf_state_room_add(room, have, error);
}

void hf_state_room_filled(struct hf_state_room *room)
{
	for (size_t i = 0; i < room->guest->n_state && i < room->sink.n_chunks; i++)
		room->guest->state[i].length = room->sink.chunks[i].length;
}

void hf_state_room_release(struct hf_state_room *room)
{
	hf_sink_release(&room->sink);
	while (room->n > 0)
		hf_close(&room->fds[--room->n]);
}
