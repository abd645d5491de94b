/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Filling memfds from an image: what the threads do.
 *
 * A unit is as much of one block as fits into a buffer. It is read into the buffer and verified and
 * decrypted there. From the buffer it goes to the memfd in one of two ways. Of a block that is to
 * have large pages a window of 2 MiB is mapped, populated and copied to: pwrite(2) alone gets small
 * pages, and holds the file's lock meanwhile. Everything else is written by pwrite(2), which costs
 * less CPU with small pages than to clear and fault in each, but is done by one thread at a time
 * for a block.
 *
 * Windows are populated before the CPU writes to them, so that a lack of memory is an error and no
 * signal.
 */
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#include "memfd-preserve/image-load.h"

static struct hf_image_load *load_of(struct hf_image_job *job)
{
	return (struct hf_image_load *)((char *)job - offsetof(struct hf_image_load, job));
}

static uint64_t units_of(const struct hf_image_block_info *b)
{
	return (b->size + HF_IMAGE_BUFFER_BYTES - 1) / HF_IMAGE_BUFFER_BYTES;
}

static int damaged(const struct hf_image_load *l, const struct hf_image_block_info *b,
	uint64_t chunk, const struct hf_image_entry *entry, struct hf_error *e)
{
	return hf_error_set(e, -EBADMSG, HF_ERR_FAILED,
		"remove the image: what was in it is lost, and the guest has to be booted afresh",
		"the image is damaged: what lies at offset %llu, which is offset %llu of %s, is "
		"not "
		"what was written",
		(unsigned long long)hf_image_slot_offset(&l->header, entry->slot),
		(unsigned long long)((chunk - b->first_chunk) << l->header.chunk_shift), b->id);
}

/* Verify, and decrypt in place. */
static int verify(struct hf_image_worker *w, const struct hf_image_load *l,
	const struct hf_image_block_info *b, uint64_t chunk, uint8_t *data, struct hf_error *e)
{
	size_t bytes = (size_t)1 << l->header.chunk_shift;
	XXH128_canonical_t canonical;
	struct hf_image_entry entry;
	int r;

	hf_image_load_entry(l, chunk, &entry);
	if (!l->key) {
		XXH128_canonicalFromHash(
			&canonical, XXH3_128bits_withSecret(data, bytes, l->header.secret,
					    sizeof(l->header.secret)));
		if (memcmp(canonical.digest, entry.check, sizeof(entry.check)) != 0)
			return damaged(l, b, chunk, &entry, e);
		return 0;
	}
	r = hf_image_cipher_use(w->cipher, l->key);
	if (r == 0)
		r = hf_image_unseal(w->cipher, (uint32_t)chunk, entry.generation, data, data, bytes,
			entry.check);
	if (r == -EBADMSG)
		return damaged(l, b, chunk, &entry, e);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "decrypting the image failed");
	return 0;
}

/* Of a range of chunks those with data one behind the other on disk. Return: how many. */
static uint32_t run_of(
	const struct hf_image_load *l, uint64_t chunk, uint64_t end, uint32_t *ret_slot)
{
	struct hf_image_entry entry;
	uint32_t n = 0;

	for (; chunk + n < end; n++) {
		hf_image_load_entry(l, chunk + n, &entry);
		if (entry.kind != HF_IMAGE_DATA || (n > 0 && entry.slot != *ret_slot + n))
			break;
		if (n == 0)
			*ret_slot = entry.slot;
	}
	return n;
}

/* The large page around an offset of a block, if there is a whole one. @ret_map: NULL: there isn't.
 */
static int map_window(struct hf_image_worker *w, const struct hf_image_load *l,
	const struct hf_image_block_info *b, uint64_t offset, uint8_t **ret_map, struct hf_error *e)
{
	uint64_t base = offset & ~(uint64_t)(HF_IMAGE_WINDOW_BYTES - 1);

	*ret_map = NULL;
	if (!b->huge || !l->large_pages || base + HF_IMAGE_WINDOW_BYTES > b->size)
		return 0;
	if (mmap(w->window, HF_IMAGE_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		    l->fds[b - l->blocks], (off_t)base) == MAP_FAILED)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "mapping %s: %s", b->id, strerror(errno));
	*ret_map = w->window;
	/* Refused where large pages are off. */
	madvise(w->window, HF_IMAGE_WINDOW_BYTES, MADV_HUGEPAGE);
	while (madvise(w->window, HF_IMAGE_WINDOW_BYTES, MADV_POPULATE_WRITE) < 0)
		if (errno != EAGAIN && errno != EINTR)
			return hf_error_set(e, -errno, HF_ERR_FAILED,
				"free memory on the host, or raise the limit of the unit",
				"no memory for %s: %s", b->id, strerror(errno));
	return 0;
}

static void unmap_window(struct hf_image_worker *w, const uint8_t *map)
{
	/* The address space stays ours; what can't be replaced stays until the next time. */
	if (map)
		(void)mmap(w->window, HF_IMAGE_WINDOW_BYTES, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static int write_ram(const struct hf_image_load *l, const struct hf_image_block_info *b,
	uint64_t offset, const uint8_t *data, uint64_t bytes, struct hf_error *e)
{
	/* The end of a block's last chunk is not of the block. */
	bytes = HF_MIN(bytes, b->size - offset);
	while (bytes > 0) {
		ssize_t n = pwrite(l->fds[b - l->blocks], data, bytes, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return hf_error_set(e, n < 0 ? -errno : -ENOMEM, HF_ERR_FAILED,
				"free memory on the host, or raise the limit of the unit",
				"no memory for %s: %s", b->id, strerror(n < 0 ? errno : ENOMEM));
		data += n;
		offset += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

/* Verified bytes become memory. */
static int put_bytes(const struct hf_image_load *l, const struct hf_image_block_info *b,
	uint64_t offset, const uint8_t *data, uint64_t bytes, uint8_t *map, struct hf_error *e)
{
	if (!map)
		return write_ram(l, b, offset, data, bytes, e);
	memcpy(map + (offset & (HF_IMAGE_WINDOW_BYTES - 1)), data, bytes);
	return 0;
}

/* A buffer was read. Neighbouring chunks go at once. */
static int done(struct hf_image_worker *w, struct hf_image_buffer *buffer, struct hf_error *e)
{
	struct hf_image_load *l = load_of(buffer->job);
	const struct hf_image_block_info *b = buffer->block;
	uint32_t shift = l->header.chunk_shift;
	uint8_t *map;
	int r;

	if (buffer->n_chunks == 0)
		return 0;
	r = map_window(w, l, b, (buffer->chunks[0] - b->first_chunk) << shift, &map, e);
	for (uint32_t i = 0, n; r == 0 && i < buffer->n_chunks; i += n) {
		uint8_t *data = buffer->data + ((size_t)i << shift);

		for (n = 0; r == 0 && i + n < buffer->n_chunks &&
			    buffer->chunks[i + n] == buffer->chunks[i] + n;
			n++)
			r = verify(w, l, b, buffer->chunks[i + n], data + ((size_t)n << shift), e);
		if (r == 0)
			r = put_bytes(l, b, (buffer->chunks[i] - b->first_chunk) << shift, data,
				(uint64_t)n << shift, map, e);
	}
	unmap_window(w, map);
	return r;
}

static int unit(
	struct hf_image_worker *w, struct hf_image_job *job, uint64_t number, struct hf_error *e)
{
	struct hf_image_load *l = load_of(job);
	const struct hf_image_block_info *b = l->blocks;
	uint32_t shift = l->header.chunk_shift, slot = 0, n;
	struct hf_image_buffer *buffer = NULL;
	uint64_t first, end;

	for (; number >= units_of(b); b++)
		number -= units_of(b);
	first = b->first_chunk + number * (HF_IMAGE_BUFFER_BYTES >> shift);
	end = HF_MIN(first + (HF_IMAGE_BUFFER_BYTES >> shift), b->first_chunk + b->n_chunks);
	for (uint64_t c = first; c < end; c += n) {
		n = run_of(l, c, end, &slot);
		if (n == 0) {
			n = 1;
			continue;
		}
		if (!buffer) {
			buffer = hf_image_buffer_get(w, job);
			buffer->block = b;
		}
		hf_image_buffer_io(buffer, l->fd, false,
			buffer->data + ((size_t)buffer->n_chunks << shift), n << shift,
			hf_image_slot_offset(&l->header, slot));
		for (uint32_t i = 0; i < n; i++)
			buffer->chunks[buffer->n_chunks++] = (uint32_t)(c + i);
	}
	if (buffer && job->control)
		atomic_fetch_add(
			&job->control->transfer_bytes, (uint64_t)buffer->n_chunks << shift);
	if (buffer)
		hf_image_buffer_submit(buffer);
	if (job->control)
		atomic_fetch_add(&job->control->done_bytes,
			HF_MIN(HF_IMAGE_BUFFER_BYTES, b->size - number * HF_IMAGE_BUFFER_BYTES));
	return 0;
}

int hf_image_load_data(struct hf_image_load *l, struct hf_image_engine *engine,
	struct hf_image_control *control, struct hf_error *e)
{
	static const struct hf_image_job_ops ops = {.unit = unit, .done = done};
	uint64_t bytes = 0;

	l->job = (struct hf_image_job){.ops = &ops, .control = control};
	for (uint32_t i = 0; i < l->header.n_blocks; i++) {
		l->job.n_units += units_of(&l->blocks[i]);
		bytes += l->blocks[i].size;
	}
	if (control)
		atomic_fetch_add(&control->total_bytes, bytes);
	return hf_image_job_run(engine, &l->job, e);
}
