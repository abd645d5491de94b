/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/image-save.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "common/fault.h"
#include "common/fd.h"
#include "memfd-preserve/image-file.h"

static int no_memory(struct hf_error *e)
{
	return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

static uint64_t realtime_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * HF_NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

static int check_config(const struct hf_image_save_config *config, struct hf_error *e)
{
	const struct hf_image_block *b = config->blocks;

	if (!config->keys && !config->plaintext)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID,
			"give a key, or say that plain images are wanted",
			"guest memory is not written to disk without encryption unless asked for");
	if (config->n_blocks == 0 || config->n_blocks > HF_IMAGE_MAX_BLOCKS)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
			"an image can have 1 to %d blocks", HF_IMAGE_MAX_BLOCKS);
	for (size_t i = 0; i < config->n_blocks; i++) {
		if (b[i].size == 0 || b[i].size > INT64_MAX || !memchr(b[i].id, 0, sizeof(b[i].id)))
			return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
				"a block has no size, or a name that is too long");
		for (size_t k = 0; k < i; k++)
			if (b[k].token == b[i].token)
				return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
					"two blocks have the token %llu",
					(unsigned long long)b[i].token);
	}
	return 0;
}

static int take_blocks(
	struct hf_image_save *s, const struct hf_image_save_config *config, struct hf_error *e)
{
	struct hf_image_header *h = &s->header;
	uint32_t shift = config->chunk_bytes ? (uint32_t)__builtin_ctz(config->chunk_bytes) : 0;

	if (config->chunk_bytes &&
		(config->chunk_bytes != 1u << shift || shift < HF_IMAGE_MIN_CHUNK_SHIFT ||
			shift > HF_IMAGE_MAX_CHUNK_SHIFT))
		return hf_error_set(
			e, -EINVAL, HF_ERR_INVALID, NULL, "chunks can't have this size");
	s->blocks = calloc(config->n_blocks, sizeof(*s->blocks));
	s->fds = calloc(config->n_blocks, sizeof(*s->fds));
	if (!s->blocks || !s->fds)
		return no_memory(e);
	h->n_blocks = (uint32_t)config->n_blocks;
	for (size_t i = 0; i < config->n_blocks; i++)
		s->fds[i] = -EBADF;
	for (size_t i = 0; i < config->n_blocks; i++) {
		const struct hf_image_block *b = &config->blocks[i];

		s->blocks[i].token = b->token;
		s->blocks[i].size = b->size;
		s->blocks[i].huge = b->huge;
		memcpy(s->blocks[i].id, b->id, sizeof(b->id));
		s->fds[i] = fcntl(b->fd, F_DUPFD_CLOEXEC, 3);
		if (s->fds[i] < 0)
			return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "the file of %s: %s",
				b->id, strerror(errno));
	}
	return hf_image_lay_out(
		shift, s->blocks, config->n_blocks, &h->chunk_shift, &h->n_chunks, e);
}

/* Everything that is known of chunks is in memory that isn't touched before it is needed. */
static int make_chunks(struct hf_image_save *s, struct hf_error *e)
{
	uint64_t n = s->header.n_chunks;

	s->chunks = calloc(n, sizeof(*s->chunks));
	if (s->key)
		s->tags = calloc(n, sizeof(*s->tags));
	if (!s->chunks || (s->key && !s->tags))
		return no_memory(e);
	for (uint64_t i = 0; i < n; i++)
		s->chunks[i].slot = HF_IMAGE_NO_SLOT;
	return 0;
}

/* Names, secrets and the key of a new image. */
static int make_identity(struct hf_image_save *s, const struct hf_image_save_config *config,
	void *blob, size_t *blob_bytes, struct hf_error *e)
{
	struct hf_image_header *h = &s->header;
	int r;

	h->version = HF_IMAGE_VERSION;
	h->min_reader = HF_IMAGE_MIN_READER;
	h->created_ns = realtime_ns();
	memcpy(h->guest, config->guest, sizeof(h->guest));
	memcpy(h->machine, config->machine, sizeof(h->machine));
	r = hf_image_random(h->image, sizeof(h->image));
	if (r == 0)
		r = hf_image_random(s->secret, sizeof(s->secret));
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "no random numbers");
	/* A uuid of version 4. */
	h->image[6] = (uint8_t)((h->image[6] & 0x0f) | 0x40);
	h->image[8] = (uint8_t)((h->image[8] & 0x3f) | 0x80);
	if (!config->keys) {
		h->cipher = HF_IMAGE_PLAIN;
		memcpy(h->secret, s->secret, sizeof(h->secret));
		*blob_bytes = 0;
		return 0;
	}
	h->cipher = HF_IMAGE_AES_256_GCM;
	if (strlen(config->keys->kind) >= sizeof(h->key_kind))
		return hf_error_set(
			e, -EINVAL, HF_ERR_INVALID, NULL, "the kind of the key is too long a word");
	memcpy(h->key_kind, config->keys->kind, strlen(config->keys->kind));
	r = hf_image_key_new(&s->key, e);
	if (r == 0 && hf_image_random(s->key->bytes, sizeof(s->key->bytes)) < 0)
		r = hf_error_set(e, -EIO, HF_ERR_FAILED, NULL, "no random numbers");
	if (r == 0)
		r = config->keys->wrap(
			config->keys->data, h->image, s->key->bytes, blob, blob_bytes, e);
	if (r == 0 && (*blob_bytes == 0 || *blob_bytes > HF_IMAGE_MAX_KEY_BLOB_BYTES))
		r = hf_error_set(e, -EINVAL, HF_ERR_FAILED, NULL, "the wrapped key has no size");
	return r;
}

/* The part of the file that doesn't change, written and kept: it is signed in the end. */
static int write_front(
	struct hf_image_save *s, const void *blob, size_t blob_bytes, struct hf_error *e)
{
	struct hf_image_header *h = &s->header;
	uint8_t *front;
	int r;

	h->key_bytes = (uint32_t)blob_bytes;
	h->data_offset = hf_image_data_offset(h->n_blocks, h->key_bytes);
	r = hf_image_pages_new(h->data_offset, &s->front, e);
	if (r < 0)
		return r;
	front = s->front;
	hf_image_header_encode(h, front);
	for (uint32_t i = 0; i < h->n_blocks; i++)
		hf_image_block_encode(&s->blocks[i],
			front + HF_IMAGE_TABLE_OFFSET + (size_t)i * HF_IMAGE_BLOCK_BYTES);
	if (blob_bytes > 0)
		memcpy(front + HF_IMAGE_TABLE_OFFSET + (size_t)h->n_blocks * HF_IMAGE_BLOCK_BYTES,
			blob, blob_bytes);
	r = hf_fault(HF_FAULT_IMAGE_BEGIN, e);
	if (r == 0)
		r = hf_image_write(s->fd, front, h->data_offset, 0, e);
	s->allocated = h->data_offset;
	return r;
}

static int begin(
	struct hf_image_save *s, const struct hf_image_save_config *config, struct hf_error *e)
{
	cleanup_free void *blob = malloc(HF_IMAGE_MAX_KEY_BLOB_BYTES);
	size_t blob_bytes = HF_IMAGE_MAX_KEY_BLOB_BYTES;
	int r;

	if (!blob)
		return no_memory(e);
	r = take_blocks(s, config, e);
	if (r == 0)
		r = make_identity(s, config, blob, &blob_bytes, e);
	if (r == 0)
		r = make_chunks(s, e);
	if (r == 0)
		r = hf_image_folder_open(config->folder, config->name, &s->folder, e);
	if (r == 0)
		r = hf_image_file_make(
			s->folder, config->name, config->buffered, &s->fd, &s->direct, e);
	if (r < 0)
		return r;
	return write_front(s, blob, blob_bytes, e);
}

int hf_image_save_begin(struct hf_image_engine *engine, const struct hf_image_save_config *config,
	struct hf_image_save **ret, struct hf_error *e)
{
	struct hf_image_save *s;
	int r;

	r = check_config(config, e);
	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return no_memory(e);
	s->engine = engine;
	s->folder = s->fd = -EBADF;
	s->name = strdup(config->name);
	pthread_mutex_init(&s->lock, NULL);
	r = s->name ? begin(s, config, e) : no_memory(e);
	if (r < 0) {
		hf_image_save_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

const uint8_t *hf_image_save_uuid(const struct hf_image_save *s)
{
	return s->header.image;
}

int hf_image_save_pass(
	struct hf_image_save *s, bool final, struct hf_image_control *control, struct hf_error *e)
{
	int r;

	if (s->state != HF_IMAGE_OPEN || s->pass >= (1u << 30) - 1)
		return hf_error_set(e, -EINVAL, HF_ERR_FAILED, NULL,
			"the image has had its final pass, or failed before");
	s->pass++;
	r = hf_image_save_run_pass(s, control, e);
	/* While the guest runs there is time for this, and less is left for the end. */
	if (r == 0 && !final && fdatasync(s->fd) < 0)
		r = hf_error_set(e, -errno, HF_ERR_FAILED, "look at the kernel's log for the disk",
			"syncing the image: %s", strerror(errno));
	if (r == 0 && final)
		s->state = HF_IMAGE_FINAL;
	else if (r < 0 && r != -ECANCELED)
		s->state = HF_IMAGE_BROKEN;
	return r;
}

/* The index, page-aligned pieces of it one after the other. */
static int write_index(struct hf_image_save *s, struct hf_image_cipher *cipher,
	struct hf_image_commit *c, XXH3_state_t *hash, struct hf_error *e)
{
	const size_t piece = HF_IMAGE_BUFFER_BYTES, per_piece = piece / HF_IMAGE_ENTRY_BYTES;
	uint64_t n = s->header.n_chunks, offset = c->index_offset;
	void *page = NULL;
	int r;

	r = hf_image_pages_new(piece, &page, e);
	for (uint64_t i = 0; r == 0 && i < n; i += per_piece) {
		size_t here = (size_t)HF_MIN(n - i, (uint64_t)per_piece);
		size_t bytes = (size_t)hf_image_align(here * HF_IMAGE_ENTRY_BYTES);

		memset(page, 0, piece);
		for (size_t k = 0; k < here; k++) {
			const struct hf_image_chunk *chunk = &s->chunks[i + k];
			struct hf_image_entry entry = {.kind = chunk->kind,
				.slot = chunk->slot,
				.generation = chunk->generation};
			XXH128_hash_t h = {.low64 = chunk->hash[0], .high64 = chunk->hash[1]};

			if (s->key)
				memcpy(entry.check, s->tags[i + k], sizeof(entry.check));
			else
				XXH128_canonicalFromHash((XXH128_canonical_t *)entry.check, h);
			c->n_data += entry.kind == HF_IMAGE_DATA;
			hf_image_entry_encode(&entry, (uint8_t *)page + k * HF_IMAGE_ENTRY_BYTES);
		}
		XXH3_128bits_update(hash, page, bytes);
		if (cipher && hf_image_sign_add(cipher, page, bytes) < 0)
			r = hf_error_set(e, -EIO, HF_ERR_FAILED, NULL, "signing the index failed");
		if (r == 0)
			r = hf_image_write(s->fd, page, bytes, offset, e);
		offset += bytes;
	}
	hf_image_pages_free(page, piece);
	return r;
}

/* Fill a commit record; the index is written on the way, and both are signed. */
static int make_commit(struct hf_image_save *s, struct hf_image_cipher *cipher, XXH3_state_t *hash,
	struct hf_image_commit *c, struct hf_error *e)
{
	const struct hf_image_header *h = &s->header;
	const uint8_t *front = s->front;
	uint8_t page[HF_IMAGE_PAGE_BYTES];
	int r = 0;

	memcpy(c->image, h->image, sizeof(c->image));
	c->passes = s->pass;
	c->n_slots = s->n_slots;
	c->index_offset = hf_image_slot_offset(h, s->n_slots);
	c->index_bytes = h->n_chunks * HF_IMAGE_ENTRY_BYTES;
	c->file_bytes = c->index_offset + hf_image_align(c->index_bytes);
	c->committed_ns = realtime_ns();
	hf_image_check_bytes(front, HF_IMAGE_PAGE_BYTES, c->header_check);
	hf_image_check_bytes(front + HF_IMAGE_TABLE_OFFSET, h->data_offset - HF_IMAGE_TABLE_OFFSET,
		c->table_check);
	XXH3_128bits_reset(hash);
	if (cipher && (hf_image_cipher_use(cipher, s->key) < 0 || hf_image_sign_begin(cipher) < 0 ||
			      hf_image_sign_add(cipher, front, HF_IMAGE_PAGE_BYTES) < 0 ||
			      hf_image_sign_add(cipher, front + HF_IMAGE_TABLE_OFFSET,
				      h->data_offset - HF_IMAGE_TABLE_OFFSET) < 0))
		r = hf_error_set(e, -EIO, HF_ERR_FAILED, NULL, "signing the image failed");
	if (r == 0)
		r = write_index(s, cipher, c, hash, e);
	if (r < 0)
		return r;
	XXH128_canonicalFromHash((XXH128_canonical_t *)c->index_check, XXH3_128bits_digest(hash));
	hf_image_commit_encode(c, true, page);
	if (cipher && (hf_image_sign_add(cipher, page, sizeof(page)) < 0 ||
			      hf_image_sign_end(cipher, c->tag) < 0))
		r = hf_error_set(e, -EIO, HF_ERR_FAILED, NULL, "signing the image failed");
	return r;
}

static int sync_file(struct hf_image_save *s, struct hf_error *e)
{
	if (fdatasync(s->fd) < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED,
			"look at the kernel's log for the disk", "syncing the image: %s",
			strerror(errno));
	return 0;
}

static int commit(struct hf_image_save *s, struct hf_image_cipher *cipher, XXH3_state_t *hash,
	struct hf_error *e)
{
	struct hf_image_commit c = {0};
	uint8_t *page = (uint8_t *)s->front + HF_IMAGE_COMMIT_OFFSET;
	int r;

	r = hf_fault(HF_FAULT_IMAGE_INDEX, e);
	if (r == 0)
		r = make_commit(s, cipher, hash, &c, e);
	if (r == 0 && ftruncate(s->fd, (off_t)c.file_bytes) < 0)
		r = hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "cutting the image to size: %s",
			strerror(errno));
	if (r == 0)
		r = sync_file(s, e);
	if (r == 0)
		r = hf_fault(HF_FAULT_IMAGE_COMMIT, e);
	if (r < 0)
		return r;
	/* All that it stands for is on the disk. From here on it is an image. */
	hf_image_commit_encode(&c, false, page);
	r = hf_image_write(s->fd, page, HF_IMAGE_PAGE_BYTES, HF_IMAGE_COMMIT_OFFSET, e);
	if (r == 0)
		r = hf_fault(HF_FAULT_IMAGE_COMMITTED, e);
	if (r == 0)
		r = sync_file(s, e);
	return r;
}

int hf_image_save_commit(struct hf_image_save *s, struct hf_error *e)
{
	struct hf_image_cipher *cipher = NULL;
	XXH3_state_t *hash;
	int r = 0;

	if (s->state != HF_IMAGE_FINAL)
		return hf_error_set(
			e, -EINVAL, HF_ERR_FAILED, NULL, "the image has had no final pass");
	hash = XXH3_createState();
	if (!hash || (s->key && hf_image_cipher_new(&cipher) < 0))
		r = no_memory(e);
	if (r == 0)
		r = commit(s, cipher, hash, e);
	XXH3_freeState(hash);
	hf_image_cipher_free(cipher);
	s->state = r == 0 ? HF_IMAGE_COMMITTED : HF_IMAGE_BROKEN;
	/* Nobody reads it before the reboot. */
	if (r == 0 && !s->direct)
		posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
	return r;
}

void hf_image_save_stats(const struct hf_image_save *s, struct hf_image_stats *ret)
{
	*ret = (struct hf_image_stats){
		.direct = s->direct,
		.encrypted = s->key,
		.chunk_bytes = 1ULL << s->header.chunk_shift,
		.chunks = s->header.n_chunks,
		.changed_chunks = atomic_load(&s->changed),
		.file_bytes = hf_image_slot_offset(&s->header, s->n_slots),
		.passes = s->pass,
	};
	if (s->state == HF_IMAGE_COMMITTED)
		ret->file_bytes += hf_image_align(s->header.n_chunks * HF_IMAGE_ENTRY_BYTES);
	for (uint64_t i = 0; i < s->header.n_chunks; i++) {
		ret->data_chunks += s->chunks[i].kind == HF_IMAGE_DATA;
		ret->zero_chunks += s->chunks[i].kind == HF_IMAGE_ZERO;
		ret->hole_chunks += s->chunks[i].kind == HF_IMAGE_HOLE;
	}
}

void hf_image_save_abort(struct hf_image_save *s)
{
	if (s && s->state == HF_IMAGE_COMMITTED)
		s->state = HF_IMAGE_BROKEN;
	hf_image_save_close(s);
}

void hf_image_save_close(struct hf_image_save *s)
{
	if (!s)
		return;
	if (s->fd >= 0 && s->state != HF_IMAGE_COMMITTED) {
		unlinkat(s->folder, s->name, 0);
		fsync(s->folder);
	}
	hf_close(&s->fd);
	hf_close(&s->folder);
	for (uint32_t i = 0; s->fds && i < s->header.n_blocks; i++)
		hf_close(&s->fds[i]);
	hf_image_pages_free(s->front, s->header.data_offset);
	hf_image_key_free(s->key);
	pthread_mutex_destroy(&s->lock);
	free(s->fds);
	free(s->blocks);
	free(s->chunks);
	free(s->tags);
	free(s->name);
	free(s);
}

int hf_image_remove(const char *folder, const char *name, struct hf_error *e)
{
	cleanup_close int fd = -EBADF;
	int r;

	r = hf_image_folder_open(folder, name, &fd, e);
	if (r < 0)
		return r;
	if (unlinkat(fd, name, 0) < 0 || fsync(fd) < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "removing the image %s: %s",
			name, strerror(errno));
	return 0;
}
