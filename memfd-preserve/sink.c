/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Where device state lies: a few mapped memfds, seen as one run of bytes.
 */
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "common/fd.h"
#include "memfd-preserve/stream.h"

/*
 * Pages touched ahead of time. A guest without a display has about 400 KiB of state; touching all
 * of a generous memfd would only make the agent's resident memory large.
 */
#define PREFAULT_BYTES (512ULL << 10)

int hf_sink_add(struct hf_sink *s, int fd, uint64_t capacity, uint64_t length, struct hf_error *e)
{
	int prot = length > 0 ? PROT_READ : PROT_READ | PROT_WRITE;
	struct hf_inode inode;
	uint64_t size;
	void *map;
	int r;

	if (capacity == 0 || length > capacity || capacity > SIZE_MAX / 2)
		return hf_error_set(e, -EINVAL, HF_ERR_FAILED, NULL,
			"%llu bytes of device state can't be in a file of %llu",
			(unsigned long long)length, (unsigned long long)capacity);
	if (s->n_chunks == HF_SINK_MAX_CHUNKS)
		return hf_error_set(e, -ENOSPC, HF_ERR_FAILED, NULL,
			"device state in more than %d files", HF_SINK_MAX_CHUNKS);
	r = hf_fd_inode(fd, &inode, &size);
	if (r < 0)
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "device state file: %s", strerror(-r));
	/* Beyond its end a mapping is a SIGBUS. */
	if (size < capacity)
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
			"the device state file has %llu bytes, not %llu", (unsigned long long)size,
			(unsigned long long)capacity);
	map = mmap(NULL, capacity, prot, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "mapping device state: %m");
	/* A favour, not a need: old kernels don't know it. */
	madvise(map, HF_MIN(length > 0 ? length : capacity, PREFAULT_BYTES),
		length > 0 ? MADV_POPULATE_READ : MADV_POPULATE_WRITE);
	s->chunks[s->n_chunks++] =
		(struct hf_sink_chunk){.capacity = capacity, .length = length, .map = map};
	return 0;
}

uint64_t hf_sink_length(const struct hf_sink *s)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < s->n_chunks; i++)
		sum += s->chunks[i].length;
	return sum;
}

uint64_t hf_sink_xxh3(const struct hf_sink *s)
{
	XXH3_state_t *state;
	uint64_t hash;

	/* One file is the usual case, and needs no state. */
	if (s->n_chunks == 1)
		return XXH3_64bits(s->chunks[0].map, s->chunks[0].length);
	state = XXH3_createState();
	if (!state)
		return 0;
	XXH3_64bits_reset(state);
	for (size_t i = 0; i < s->n_chunks; i++)
		XXH3_64bits_update(state, s->chunks[i].map, s->chunks[i].length);
	hash = XXH3_64bits_digest(state);
	XXH3_freeState(state);
	return hash;
}

void hf_sink_release(struct hf_sink *s)
{
	for (size_t i = 0; i < s->n_chunks; i++)
		munmap(s->chunks[i].map, s->chunks[i].capacity);
	*s = (struct hf_sink){0};
}
