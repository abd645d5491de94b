/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: One pass over the files of an image: what the threads do.
 *
 * A unit is as much of one block as fits into a buffer. Chunks that changed stay in the buffer, one
 * behind the other, until it is full or there are no more units.
 *
 * Memory is read by pread(2) and never mapped, though hashing a mapping would save the copy of what
 * did not change: the files are a VMM's as well, and one that cuts its own short would end this
 * process by a signal, with all that it does for other guests. This way it is an error.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "common/fault.h"
#include "memfd-preserve/image-save.h"

/* A file system that is nearly full says so this much before the place is needed. */
#define ALLOCATE_BYTES (256ULL << 20)

static struct hf_image_save *save_of(struct hf_image_job *job)
{
	return (struct hf_image_save *)((char *)job - offsetof(struct hf_image_save, job));
}

static uint64_t units_of(const struct hf_image_save *s, const struct hf_image_block_info *b)
{
	uint64_t per_unit = HF_IMAGE_BUFFER_BYTES >> s->header.chunk_shift;

	return (b->n_chunks + per_unit - 1) / per_unit;
}

/* Make sure of room in the file up to @end. Called with the lock held. */
static int allocate(struct hf_image_save *s, uint64_t end, struct hf_error *e)
{
	uint64_t most = hf_image_slot_offset(&s->header, s->header.n_chunks);
	uint64_t want = HF_MAX(end, HF_MIN(s->allocated + ALLOCATE_BYTES, most));
	int r = hf_fault(HF_FAULT_IMAGE_ALLOCATE, NULL);

	if (r == 0 && fallocate(s->fd, 0, (off_t)s->allocated, (off_t)(want - s->allocated)) < 0) {
		r = -errno;
		if (r == -ENOSPC && want > end) {
			want = end;
			r = fallocate(s->fd, 0, (off_t)s->allocated, (off_t)(want - s->allocated)) <
					    0
				    ? -errno
				    : 0;
		}
		if (r == -EOPNOTSUPP)
			r = ftruncate(s->fd, (off_t)want) < 0 ? -errno : 0;
	}
	if (r < 0)
		return hf_error_set(e, r, r == -ENOSPC ? HF_ERR_NOT_READY : HF_ERR_FAILED,
			r == -ENOSPC ? "make room on the file system of the images" : NULL,
			"no room for the first %llu MiB of the image: %s",
			(unsigned long long)(end >> 20), strerror(-r));
	s->allocated = want;
	return 0;
}

/* Slots for the chunks of a buffer that have none. */
static int give_slots(struct hf_image_save *s, const struct hf_image_buffer *b, struct hf_error *e)
{
	uint64_t next, n = 0, end;
	int r = 0;

	for (uint32_t i = 0; i < b->n_chunks; i++)
		n += s->chunks[b->chunks[i]].slot == HF_IMAGE_NO_SLOT;
	if (n == 0)
		return 0;
	pthread_mutex_lock(&s->lock);
	next = s->n_slots;
	end = hf_image_slot_offset(&s->header, next + n);
	if (end > s->allocated)
		r = allocate(s, end, e);
	if (r == 0)
		s->n_slots += n;
	pthread_mutex_unlock(&s->lock);
	for (uint32_t i = 0; i < b->n_chunks && r == 0; i++)
		if (s->chunks[b->chunks[i]].slot == HF_IMAGE_NO_SLOT)
			s->chunks[b->chunks[i]].slot = (uint32_t)next++;
	return r;
}

/* The open buffer goes to the disk, neighbouring slots in one request. */
static int flush(struct hf_image_worker *w, struct hf_image_job *job, struct hf_error *e)
{
	struct hf_image_save *s = save_of(job);
	struct hf_image_buffer *b = w->open;
	uint32_t shift = s->header.chunk_shift;
	int r;

	w->open = NULL;
	r = give_slots(s, b, e);
	for (uint32_t i = 0, n; r == 0 && i < b->n_chunks; i += n) {
		uint32_t slot = s->chunks[b->chunks[i]].slot;

		n = 1;
		while (i + n < b->n_chunks && s->chunks[b->chunks[i + n]].slot == slot + n)
			n++;
		hf_image_buffer_io(b, s->fd, true, b->data + ((size_t)i << shift), n << shift,
			hf_image_slot_offset(&s->header, slot));
		if (job->control)
			atomic_fetch_add(&job->control->transfer_bytes, (uint64_t)n << shift);
	}
	atomic_fetch_add(&s->changed, b->n_chunks);
	hf_image_buffer_submit(b);
	return r;
}

typedef uint64_t vector __attribute__((vector_size(32), may_alias));

static bool is_zero(const uint8_t *data, size_t bytes)
{
	const vector *v = (const vector *)data;

	for (size_t i = 0; i < bytes / sizeof(vector); i += 8) {
		vector any = v[i] | v[i + 1] | v[i + 2] | v[i + 3] | v[i + 4] | v[i + 5] |
			     v[i + 6] | v[i + 7];

		if (any[0] | any[1] | any[2] | any[3])
			return false;
	}
	return true;
}

/* A copy of a chunk, filled up with zeros where the block ends. */
static int copy_chunk(struct hf_image_save *s, const struct hf_image_block_info *b, uint64_t at,
	uint8_t *to, struct hf_error *e)
{
	size_t chunk = (size_t)1 << s->header.chunk_shift;
	size_t bytes = (size_t)HF_MIN((uint64_t)chunk, b->size - at), got = 0;
	int r = hf_fault(HF_FAULT_IMAGE_RAM, e);

	while (r == 0 && got < bytes) {
		ssize_t n = pread(s->fds[b - s->blocks], to + got, bytes - got, (off_t)(at + got));

		if (n < 0 && errno != EINTR)
			r = hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
				"reading %s at offset %llu: %s", b->id,
				(unsigned long long)(at + got), strerror(errno));
		if (n == 0)
			r = hf_error_set(e, -ESTALE, HF_ERR_FAILED, NULL,
				"%s has become shorter than its %llu bytes", b->id,
				(unsigned long long)b->size);
		if (n > 0)
			got += (size_t)n;
	}
	memset(to + got, 0, chunk - got);
	return r;
}

/* What is at @data becomes part of the image, unless it is that already. Return: 1, 0, -errno. */
static int take_chunk(struct hf_image_worker *w, struct hf_image_save *s, uint64_t number,
	uint8_t *data, struct hf_error *e)
{
	size_t bytes = (size_t)1 << s->header.chunk_shift;
	struct hf_image_chunk *c = &s->chunks[number];
	XXH128_hash_t hash;
	int r;

	if (is_zero(data, bytes)) {
		c->kind = HF_IMAGE_ZERO;
		return 0;
	}
	hash = XXH3_128bits_withSecret(data, bytes, s->secret, sizeof(s->secret));
	/* A chunk that was zero meanwhile still has in its slot what it had before. */
	if (c->slot != HF_IMAGE_NO_SLOT && c->hash[0] == hash.low64 && c->hash[1] == hash.high64) {
		c->kind = HF_IMAGE_DATA;
		return 0;
	}
	c->hash[0] = hash.low64;
	c->hash[1] = hash.high64;
	c->kind = HF_IMAGE_DATA;
	c->generation = s->pass & ((1u << 30) - 1);
	if (!s->key)
		return 1;
	r = hf_image_cipher_use(w->cipher, s->key);
	if (r == 0)
		r = hf_image_seal(
			w->cipher, (uint32_t)number, c->generation, data, bytes, s->tags[number]);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "encrypting guest memory failed");
	return 1;
}

static int add_chunk(struct hf_image_worker *w, struct hf_image_save *s,
	const struct hf_image_block_info *block, uint64_t number, struct hf_error *e)
{
	uint32_t shift = s->header.chunk_shift;
	uint8_t *data;
	int r;

	if (!w->open)
		w->open = hf_image_buffer_get(w, &s->job);
	data = w->open->data + ((size_t)w->open->n_chunks << shift);
	r = copy_chunk(s, block, (number - block->first_chunk) << shift, data, e);
	if (r == 0)
		r = take_chunk(w, s, number, data, e);
	if (r <= 0)
		return r;
	w->open->chunks[w->open->n_chunks++] = (uint32_t)number;
	if (w->open->n_chunks == HF_IMAGE_BUFFER_BYTES >> shift)
		return flush(w, &s->job, e);
	return 0;
}

/* Where the next data of a block begin. */
static int next_data(struct hf_image_save *s, const struct hf_image_block_info *b, uint64_t at,
	uint64_t *ret, struct hf_error *e)
{
	off_t data = lseek(s->fds[b - s->blocks], (off_t)at, SEEK_DATA);

	if (data < 0 && errno != ENXIO)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "looking for data in %s: %s",
			b->id, strerror(errno));
	*ret = data < 0 ? UINT64_MAX : (uint64_t)data;
	return 0;
}

static int unit(
	struct hf_image_worker *w, struct hf_image_job *job, uint64_t number, struct hf_error *e)
{
	struct hf_image_save *s = save_of(job);
	const struct hf_image_block_info *b = s->blocks;
	uint32_t shift = s->header.chunk_shift;
	uint64_t at, end, data = 0;
	int r = 0;

	for (; number >= units_of(s, b); b++)
		number -= units_of(s, b);
	at = number * HF_IMAGE_BUFFER_BYTES;
	end = HF_MIN(at + HF_IMAGE_BUFFER_BYTES, b->size);
	for (uint64_t p = at; p < end && r == 0; p += 1ULL << shift) {
		uint64_t chunk = b->first_chunk + (p >> shift);

		if (data <= p)
			r = next_data(s, b, p, &data, e);
		if (r == 0 && data < p + (1ULL << shift))
			r = add_chunk(w, s, b, chunk, e);
		else if (r == 0)
			s->chunks[chunk].kind = HF_IMAGE_HOLE;
	}
	if (job->control)
		atomic_fetch_add(&job->control->done_bytes, end - at);
	return r;
}

static int check_sizes(const struct hf_image_save *s, struct hf_error *e)
{
	struct stat st;

	for (uint32_t i = 0; i < s->header.n_blocks; i++) {
		if (fstat(s->fds[i], &st) < 0)
			return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "looking at %s: %s",
				s->blocks[i].id, strerror(errno));
		if ((uint64_t)st.st_size < s->blocks[i].size)
			return hf_error_set(e, -ESTALE, HF_ERR_FAILED, NULL,
				"%s has %llu bytes instead of %llu", s->blocks[i].id,
				(unsigned long long)st.st_size,
				(unsigned long long)s->blocks[i].size);
	}
	return 0;
}

int hf_image_save_run_pass(
	struct hf_image_save *s, struct hf_image_control *control, struct hf_error *e)
{
	static const struct hf_image_job_ops ops = {.unit = unit, .flush = flush};
	uint64_t bytes = 0;
	int r;

	r = check_sizes(s, e);
	if (r < 0)
		return r;
	s->job = (struct hf_image_job){.ops = &ops, .control = control};
	for (uint32_t i = 0; i < s->header.n_blocks; i++) {
		s->job.n_units += units_of(s, &s->blocks[i]);
		bytes += s->blocks[i].size;
	}
	if (control)
		atomic_fetch_add(&control->total_bytes, bytes);
	atomic_store(&s->changed, 0);
	return hf_image_job_run(s->engine, &s->job, e);
}
