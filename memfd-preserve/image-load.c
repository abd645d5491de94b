/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/image-load.h"

#include <fcntl.h>
#include <string.h>

#include "common/fd.h"
#include "memfd-preserve/image-file.h"

/* Read the front of a file: header and commit record. Return of the latter apart. */
static int read_front(struct hf_image_load *l, int *ret_commit, struct hf_error *commit_error,
	uint8_t check[HF_IMAGE_CHECK_BYTES], struct hf_error *e)
{
	const size_t bytes = HF_IMAGE_TABLE_OFFSET;
	void *front = NULL;
	int r;

	r = hf_image_pages_new(bytes, &front, e);
	if (r < 0)
		return r;
	r = hf_image_read(l->fd, front, bytes, 0, e);
	if (r == 0)
		r = hf_image_header_decode(front, bytes, &l->header, e);
	if (r == 0) {
		hf_image_check_bytes(front, HF_IMAGE_PAGE_BYTES, check);
		*ret_commit = hf_image_commit_decode((uint8_t *)front + HF_IMAGE_COMMIT_OFFSET,
			HF_IMAGE_PAGE_BYTES, &l->header, &l->commit, commit_error);
	}
	hf_image_pages_free(front, bytes);
	return r;
}

static int open_image(struct hf_image_load *l, const char *folder, const char *name, bool buffered,
	struct hf_error *e)
{
	cleanup_close int dir = -EBADF;
	int r;

	r = hf_image_folder_open(folder, name, &dir, e);
	if (r == 0)
		r = hf_image_file_open(dir, name, buffered, &l->fd, &l->direct, &l->file_bytes, e);
	return r;
}

int hf_image_peek(const char *folder, const char *name, struct hf_image_header *ret,
	bool *ret_committed, struct hf_error *e)
{
	struct hf_image_load l = {.fd = -EBADF};
	uint8_t check[HF_IMAGE_CHECK_BYTES];
	int r, committed = 0;

	r = open_image(&l, folder, name, true, e);
	if (r == 0)
		r = read_front(&l, &committed, NULL, check, e);
	hf_close(&l.fd);
	if (r < 0)
		return r;
	if (committed < 0 && committed != -ENODATA)
		return hf_error_set(e, committed, HF_ERR_FAILED, NULL,
			"the image is damaged: its commit record makes no sense");
	*ret = l.header;
	if (ret_committed)
		*ret_committed = committed == 0;
	return 0;
}

/* Whether it is the image that is wanted, here. */
static int check_identity(const struct hf_image_load *l, const struct hf_image_load_config *config,
	struct hf_error *e)
{
	const struct hf_image_header *h = &l->header;

	if (memcmp(h->machine, config->machine, sizeof(h->machine)) != 0)
		return hf_error_set(e, -ESTALE, HF_ERR_FAILED, NULL,
			"the image is of a guest on another machine");
	if (config->guest && memcmp(h->guest, config->guest, sizeof(h->guest)) != 0)
		return hf_error_set(
			e, -ESTALE, HF_ERR_FAILED, NULL, "the image is of another guest");
	if (config->image && memcmp(h->image, config->image, sizeof(h->image)) != 0)
		return hf_error_set(e, -ESTALE, HF_ERR_FAILED,
			"remove it: the guest has run since it was made",
			"the image is not the one that was made last");
	if (h->cipher == HF_IMAGE_PLAIN && !config->plaintext)
		return hf_error_set(e, -EPERM, HF_ERR_FAILED,
			"find out who wrote it before you allow plain images",
			"the image is not encrypted, and it should be");
	if (h->cipher != HF_IMAGE_PLAIN &&
		(!config->keys || strcmp(config->keys->kind, h->key_kind) != 0))
		return hf_error_set(e, -ENOKEY, HF_ERR_NOT_READY,
			"give the key that the image was saved with",
			"the image is encrypted with a key of the kind `%s`", h->key_kind);
	return 0;
}

/* Of a part of the file: read it, and see whether it is as the commit record has it. */
static int read_part(struct hf_image_load *l, void *data, size_t bytes, uint64_t offset,
	const uint8_t check[HF_IMAGE_CHECK_BYTES], const char *what, struct hf_error *e)
{
	uint8_t got[HF_IMAGE_CHECK_BYTES];
	int r;

	r = hf_image_read(l->fd, data, bytes, offset, e);
	if (r < 0)
		return r;
	hf_image_check_bytes(data, bytes, got);
	if (memcmp(got, check, sizeof(got)) != 0)
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
			"the image is damaged: the checksum of its %s, at offset %llu, is wrong",
			what, (unsigned long long)offset);
	return 0;
}

static int unwrap(struct hf_image_load *l, const struct hf_image_load_config *config,
	const uint8_t *table, struct hf_error *e)
{
	const struct hf_image_header *h = &l->header;
	int r;

	r = hf_image_key_new(&l->key, e);
	if (r < 0)
		return r;
	return config->keys->unwrap(config->keys->data, h->image,
		table + (size_t)h->n_blocks * HF_IMAGE_BLOCK_BYTES, h->key_bytes, l->key->bytes, e);
}

/* The tag over everything but chunks, which have their own in the index. */
static int check_tag(
	struct hf_image_load *l, const uint8_t *table, size_t table_bytes, struct hf_error *e)
{
	uint8_t page[HF_IMAGE_PAGE_BYTES], tag[HF_IMAGE_CHECK_BYTES];
	struct hf_image_cipher *cipher = NULL;
	void *header = NULL;
	int r;

	r = hf_image_pages_new(HF_IMAGE_PAGE_BYTES, &header, e);
	if (r == 0)
		r = read_part(
			l, header, HF_IMAGE_PAGE_BYTES, 0, l->commit.header_check, "header", e);
	if (r == 0 && hf_image_cipher_new(&cipher) < 0)
		r = hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (r < 0)
		goto out;
	hf_image_commit_encode(&l->commit, true, page);
	r = hf_image_cipher_use(cipher, l->key);
	if (r == 0)
		r = hf_image_sign_begin(cipher);
	if (r == 0)
		r = hf_image_sign_add(cipher, header, HF_IMAGE_PAGE_BYTES);
	if (r == 0)
		r = hf_image_sign_add(cipher, table, table_bytes);
	if (r == 0)
		r = hf_image_sign_add(cipher, l->index, l->index_bytes);
	if (r == 0)
		r = hf_image_sign_add(cipher, page, sizeof(page));
	if (r == 0)
		r = hf_image_sign_end(cipher, tag);
	if (r < 0)
		hf_error_set(e, r, HF_ERR_FAILED, NULL, "verifying the image failed");
	else if (memcmp(tag, l->commit.tag, sizeof(tag)) != 0)
		r = hf_error_set(e, -EBADMSG, HF_ERR_FAILED,
			"find out who wrote to it: a disk does not do that",
			"the image is not what was saved: its header, tables or index were "
			"changed");
out:
	hf_image_cipher_free(cipher);
	hf_image_pages_free(header, HF_IMAGE_PAGE_BYTES);
	return r;
}

/* Everything but the data. */
static int read_tables(
	struct hf_image_load *l, const struct hf_image_load_config *config, struct hf_error *e)
{
	size_t table_bytes = (size_t)(l->header.data_offset - HF_IMAGE_TABLE_OFFSET);
	void *table = NULL, *index = NULL;
	int r;

	r = hf_image_pages_new(table_bytes, &table, e);
	if (r == 0)
		r = read_part(l, table, table_bytes, HF_IMAGE_TABLE_OFFSET, l->commit.table_check,
			"block table", e);
	if (r == 0)
		r = hf_image_table_decode(table, table_bytes, &l->header, &l->blocks, e);
	if (r == 0) {
		l->index_bytes = (size_t)hf_image_align(l->commit.index_bytes);
		r = hf_image_pages_new(l->index_bytes, &index, e);
	}
	if (r == 0) {
		l->index = index;
		r = read_part(l, index, l->index_bytes, l->commit.index_offset,
			l->commit.index_check, "index", e);
	}
	if (r == 0 && l->header.cipher != HF_IMAGE_PLAIN)
		r = unwrap(l, config, table, e);
	if (r == 0 && l->key)
		r = check_tag(l, table, table_bytes, e);
	if (r == 0)
		r = hf_image_index_check(
			l->index, (size_t)l->commit.index_bytes, &l->header, &l->commit, e);
	hf_image_pages_free(table, table_bytes);
	return r;
}

static int make_memfds(struct hf_image_load *l, struct hf_error *e)
{
	int r;

	l->fds = calloc(HF_IMAGE_MAX_BLOCKS, sizeof(*l->fds));
	if (!l->fds)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	for (uint32_t i = 0; i < l->header.n_blocks; i++)
		l->fds[i] = -EBADF;
	for (uint32_t i = 0; i < l->header.n_blocks; i++) {
		const char *id = l->blocks[i].id;

		r = hf_memfd_new(id[0] ? id : "image", l->blocks[i].size, &l->fds[i]);
		if (r < 0)
			return hf_error_set(e, r, HF_ERR_FAILED, NULL,
				"making a memfd of %llu bytes for %s: %s",
				(unsigned long long)l->blocks[i].size, id, strerror(-r));
	}
	return 0;
}

/* Whether one of these is what a setting of the kernel is set to: `always [advise] never`. */
static bool set_to(const char *path, const char *const *words)
{
	cleanup_free char *text = NULL;

	if (hf_file_read(path, 4096, &text, NULL) < 0)
		return false;
	for (; *words; words++)
		if (strstr(text, *words))
			return true;
	return false;
}

#define THP "/sys/kernel/mm/transparent_hugepage/"

/* Where there are none, to populate takes several times as long as to write. */
static bool large_pages(void)
{
	static const char *const on[] = {"[always]", "[within_size]", "[advise]", "[force]", NULL};
	static const char *const off[] = {"[never]", "[deny]", NULL};
	const char *of_size = THP "hugepages-2048kB/shmem_enabled";

	/* Newer kernels have a setting for each size, which may be to go by the one for all. */
	return set_to(of_size, on) || (!set_to(of_size, off) && set_to(THP "shmem_enabled", on));
}

static int load(struct hf_image_load *l, struct hf_image_engine *engine,
	const struct hf_image_load_config *config, struct hf_image_control *control,
	struct hf_error *e)
{
	uint8_t header_check[HF_IMAGE_CHECK_BYTES];
	struct hf_error commit_error = {0};
	int r, commit = 0;

	r = open_image(l, config->folder, config->name, config->buffered, e);
	if (r == 0)
		r = read_front(l, &commit, &commit_error, header_check, e);
	if (r == 0)
		r = check_identity(l, config, e);
	if (r < 0)
		return r;
	if (commit < 0) {
		if (e)
			*e = commit_error;
		return commit;
	}
	if (memcmp(header_check, l->commit.header_check, sizeof(header_check)) != 0)
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
			"the image is damaged: its commit record is of another header");
	if (l->file_bytes != l->commit.file_bytes)
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
			"the image is damaged: it has %llu bytes instead of %llu",
			(unsigned long long)l->file_bytes,
			(unsigned long long)l->commit.file_bytes);
	l->large_pages = config->map_anyway || large_pages();
	r = read_tables(l, config, e);
	if (r == 0)
		r = make_memfds(l, e);
	if (r == 0)
		r = hf_image_load_data(l, engine, control, e);
	return r;
}

static void describe(const struct hf_image_load *l, struct hf_image_stats *ret)
{
	struct hf_image_entry entry;

	*ret = (struct hf_image_stats){
		.direct = l->direct,
		.encrypted = l->key,
		.chunk_bytes = 1ULL << l->header.chunk_shift,
		.chunks = l->header.n_chunks,
		.file_bytes = l->file_bytes,
		.passes = l->commit.passes,
	};
	for (uint64_t i = 0; i < l->header.n_chunks; i++) {
		hf_image_load_entry(l, i, &entry);
		ret->data_chunks += entry.kind == HF_IMAGE_DATA;
		ret->zero_chunks += entry.kind == HF_IMAGE_ZERO;
		ret->hole_chunks += entry.kind == HF_IMAGE_HOLE;
	}
}

/* Hand the memfds over. */
static int give(struct hf_image_load *l, struct hf_image_loaded *ret, struct hf_error *e)
{
	struct hf_image_block *blocks = calloc(l->header.n_blocks, sizeof(*blocks));

	if (!blocks)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	for (uint32_t i = 0; i < l->header.n_blocks; i++) {
		blocks[i].token = l->blocks[i].token;
		blocks[i].size = l->blocks[i].size;
		blocks[i].huge = l->blocks[i].huge;
		memcpy(blocks[i].id, l->blocks[i].id, sizeof(blocks[i].id));
		blocks[i].fd = TAKE_FD(l->fds[i]);
	}
	*ret = (struct hf_image_loaded){
		.blocks = blocks, .n_blocks = l->header.n_blocks, .header = l->header};
	describe(l, &ret->stats);
	return 0;
}

int hf_image_load(struct hf_image_engine *engine, const struct hf_image_load_config *config,
	struct hf_image_control *control, struct hf_image_loaded *ret, struct hf_error *e)
{
	struct hf_image_load l = {.fd = -EBADF};
	int r;

	r = load(&l, engine, config, control, e);
	if (r == 0)
		r = give(&l, ret, e);
	if (l.fd >= 0 && !l.direct)
		posix_fadvise(l.fd, 0, 0, POSIX_FADV_DONTNEED);
	for (uint32_t i = 0; l.fds && i < l.header.n_blocks; i++)
		hf_close(&l.fds[i]);
	hf_image_pages_free(l.index, l.index_bytes);
	hf_image_key_free(l.key);
	hf_close(&l.fd);
	free(l.fds);
	free(l.blocks);
	return r;
}

void hf_image_loaded_release(struct hf_image_loaded *l)
{
	for (size_t i = 0; i < l->n_blocks; i++)
		hf_close(&l->blocks[i].fd);
	free(l->blocks);
	*l = (struct hf_image_loaded){0};
}
