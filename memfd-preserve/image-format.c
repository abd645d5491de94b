/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/image-format.h"

#include <assert.h>
#include <endian.h>
#include <string.h>
#include <xxhash.h>

#define HEADER_MAGIC "HOLDFIMG" /* 8 bytes, no NUL */
#define COMMIT_MAGIC "HOLDFCMT"
#define BLOCK_HUGE 1u

struct wire_header {
	uint8_t magic[8];
	uint32_t version, min_reader;
	uint8_t image[16], guest[16], machine[16];
	uint64_t created_ns;
	uint32_t cipher, chunk_shift, n_blocks, key_bytes;
	uint64_t n_chunks, data_offset;
	uint8_t key_kind[16];
	uint64_t reserved;
	uint8_t secret[192];
	uint8_t rest[4088 - 320];
	uint64_t xxh3;
};

struct wire_block {
	uint64_t token, size;
	uint32_t flags, reserved;
	char id[40];
};

struct wire_commit {
	uint8_t magic[8];
	uint32_t version, passes;
	uint8_t image[16];
	uint64_t index_offset, index_bytes, file_bytes, n_slots, n_data, committed_ns;
	uint8_t header_check[16], table_check[16], index_check[16], tag[16];
	uint8_t rest[4088 - 144];
	uint64_t xxh3;
};

struct wire_entry {
	uint32_t kind, slot, generation, reserved;
	uint8_t check[16];
};

static_assert(sizeof(struct wire_header) == HF_IMAGE_PAGE_BYTES, "on the wire");
static_assert(sizeof(struct wire_commit) == HF_IMAGE_PAGE_BYTES, "on the wire");
static_assert(sizeof(struct wire_block) == HF_IMAGE_BLOCK_BYTES, "on the wire");
static_assert(sizeof(struct wire_entry) == HF_IMAGE_ENTRY_BYTES, "on the wire");
static_assert(HF_IMAGE_SECRET_BYTES >= XXH3_SECRET_SIZE_MIN, "as the library wants it");

static int bad(struct hf_error *e, const char *what)
{
	return hf_error_set(e, -EBADMSG, HF_ERR_FAILED,
		"remove the image: what was in it is lost, and the guest has to be booted afresh",
		"the image is damaged: %s", what);
}

/* Chunks of a block, more than there may be when there are too many. */
static uint64_t chunks_of(uint64_t size, uint32_t shift)
{
	return (size >> shift) + ((size & ((1ULL << shift) - 1)) != 0);
}

static bool number_chunks(
	uint32_t shift, struct hf_image_block_info *blocks, size_t n_blocks, uint64_t *ret_n)
{
	uint64_t n = 0;

	for (size_t i = 0; i < n_blocks; i++) {
		blocks[i].first_chunk = n;
		blocks[i].n_chunks = chunks_of(blocks[i].size, shift);
		n += blocks[i].n_chunks;
		if (blocks[i].n_chunks > HF_IMAGE_MAX_CHUNKS || n > HF_IMAGE_MAX_CHUNKS)
			return false;
	}
	*ret_n = n;
	return true;
}

int hf_image_lay_out(uint32_t shift, struct hf_image_block_info *blocks, size_t n_blocks,
	uint32_t *ret_shift, uint64_t *ret_n_chunks, struct hf_error *e)
{
	uint32_t s = shift ? shift : HF_IMAGE_MIN_CHUNK_SHIFT;
	uint64_t n = 0;
	bool fits;

	fits = number_chunks(s, blocks, n_blocks, &n);
	while (!shift && (!fits || n > HF_IMAGE_WANTED_CHUNKS) && s < HF_IMAGE_MAX_CHUNK_SHIFT)
		fits = number_chunks(++s, blocks, n_blocks, &n);
	if (!fits)
		return hf_error_set(e, -EFBIG, HF_ERR_NOT_READY,
			"carry this guest over in memory, or shut it down for the update",
			"an image can't hold more than %u chunks of %u KiB", HF_IMAGE_MAX_CHUNKS,
			1u << (s - 10));
	*ret_shift = s;
	*ret_n_chunks = n;
	return 0;
}

void hf_image_check_bytes(const void *data, size_t size, uint8_t ret[HF_IMAGE_CHECK_BYTES])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, size));
	memcpy(ret, canonical.digest, HF_IMAGE_CHECK_BYTES);
}

void hf_image_header_encode(const struct hf_image_header *h, uint8_t page[HF_IMAGE_PAGE_BYTES])
{
	struct wire_header w = {
		.version = htole32(h->version),
		.min_reader = htole32(h->min_reader),
		.created_ns = htole64(h->created_ns),
		.cipher = htole32(h->cipher),
		.chunk_shift = htole32(h->chunk_shift),
		.n_blocks = htole32(h->n_blocks),
		.key_bytes = htole32(h->key_bytes),
		.n_chunks = htole64(h->n_chunks),
		.data_offset = htole64(h->data_offset),
	};

	memcpy(w.magic, HEADER_MAGIC, sizeof(w.magic));
	memcpy(w.image, h->image, sizeof(w.image));
	memcpy(w.guest, h->guest, sizeof(w.guest));
	memcpy(w.machine, h->machine, sizeof(w.machine));
	memcpy(w.key_kind, h->key_kind, sizeof(w.key_kind));
	memcpy(w.secret, h->secret, sizeof(w.secret));
	w.xxh3 = htole64(XXH3_64bits(&w, offsetof(struct wire_header, xxh3)));
	memcpy(page, &w, sizeof(w));
}

static int check_header(const struct hf_image_header *h, struct hf_error *e)
{
	if (h->cipher != HF_IMAGE_PLAIN && h->cipher != HF_IMAGE_AES_256_GCM)
		return hf_error_set(e, -EPROTONOSUPPORT, HF_ERR_NOT_READY,
			"load it with the holdfast that wrote it, or a newer one",
			"the image is encrypted by cipher %u, which this holdfast doesn't know",
			h->cipher);
	if (h->chunk_shift < HF_IMAGE_MIN_CHUNK_SHIFT || h->chunk_shift > HF_IMAGE_MAX_CHUNK_SHIFT)
		return bad(e, "an impossible size of chunks in its header");
	if (h->n_blocks == 0 || h->n_blocks > HF_IMAGE_MAX_BLOCKS)
		return bad(e, "an impossible number of blocks in its header");
	if (h->key_bytes > HF_IMAGE_MAX_KEY_BLOB_BYTES ||
		(h->cipher == HF_IMAGE_PLAIN) != (h->key_bytes == 0))
		return bad(e, "an impossible size of the key in its header");
	if (h->n_chunks > HF_IMAGE_MAX_CHUNKS)
		return bad(e, "an impossible number of chunks in its header");
	if (h->data_offset != hf_image_data_offset(h->n_blocks, h->key_bytes))
		return bad(e, "data don't begin behind the block table");
	if (!memchr(h->key_kind, 0, sizeof(h->key_kind)))
		return bad(e, "the kind of its key has no end");
	return 0;
}

int hf_image_header_decode(
	const void *data, size_t size, struct hf_image_header *ret, struct hf_error *e)
{
	struct hf_image_header h;
	struct wire_header w;
	int r;

	if (size < sizeof(w))
		return bad(e, "it is cut short before the end of its header");
	memcpy(&w, data, sizeof(w));
	if (memcmp(w.magic, HEADER_MAGIC, sizeof(w.magic)) != 0)
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
			"the file is no image of holdfast's, or its first bytes are damaged");
	if (le64toh(w.xxh3) != XXH3_64bits(&w, offsetof(struct wire_header, xxh3)))
		return bad(e, "the checksum of its header, at offset 0, is wrong");
	if (le32toh(w.min_reader) > HF_IMAGE_VERSION)
		return hf_error_set(e, -EPROTONOSUPPORT, HF_ERR_NOT_READY,
			"load it with the holdfast that wrote it, or a newer one",
			"the image needs a reader of version %u, and this is version %u",
			le32toh(w.min_reader), HF_IMAGE_VERSION);
	h = (struct hf_image_header){
		.version = le32toh(w.version),
		.min_reader = le32toh(w.min_reader),
		.created_ns = le64toh(w.created_ns),
		.cipher = le32toh(w.cipher),
		.chunk_shift = le32toh(w.chunk_shift),
		.n_blocks = le32toh(w.n_blocks),
		.key_bytes = le32toh(w.key_bytes),
		.n_chunks = le64toh(w.n_chunks),
		.data_offset = le64toh(w.data_offset),
	};
	memcpy(h.image, w.image, sizeof(h.image));
	memcpy(h.guest, w.guest, sizeof(h.guest));
	memcpy(h.machine, w.machine, sizeof(h.machine));
	memcpy(h.key_kind, w.key_kind, sizeof(h.key_kind));
	memcpy(h.secret, w.secret, sizeof(h.secret));
	if (h.version == 0 || h.min_reader == 0 || h.min_reader > h.version)
		return bad(e, "an impossible version in its header");
	r = check_header(&h, e);
	if (r == 0)
		*ret = h;
	return r;
}

void hf_image_block_encode(const struct hf_image_block_info *b, uint8_t out[HF_IMAGE_BLOCK_BYTES])
{
	struct wire_block w = {
		.token = htole64(b->token),
		.size = htole64(b->size),
		.flags = htole32(b->huge ? BLOCK_HUGE : 0),
	};

	memcpy(w.id, b->id, sizeof(w.id));
	memcpy(out, &w, sizeof(w));
}

static int decode_block(const uint8_t *in, struct hf_image_block_info *b, struct hf_error *e)
{
	struct wire_block w;

	memcpy(&w, in, sizeof(w));
	if (le32toh(w.flags) & ~BLOCK_HUGE)
		return hf_error_set(e, -EPROTONOSUPPORT, HF_ERR_NOT_READY,
			"load it with the holdfast that wrote it, or a newer one",
			"a block of the image has the flags 0x%x, which this holdfast doesn't know",
			le32toh(w.flags));
	if (!memchr(w.id, 0, sizeof(w.id)))
		return bad(e, "a name in its block table has no end");
	b->token = le64toh(w.token);
	b->size = le64toh(w.size);
	b->huge = le32toh(w.flags) & BLOCK_HUGE;
	memcpy(b->id, w.id, sizeof(b->id));
	if (b->size == 0 || b->size > INT64_MAX)
		return bad(e, "an impossible size in its block table");
	return 0;
}

int hf_image_table_decode(const void *data, size_t size, const struct hf_image_header *h,
	struct hf_image_block_info **ret, struct hf_error *e)
{
	cleanup_free struct hf_image_block_info *blocks = NULL;
	uint64_t n_chunks = 0;
	int r;

	if (size < (size_t)h->n_blocks * HF_IMAGE_BLOCK_BYTES)
		return bad(e, "it is cut short before the end of its block table");
	blocks = calloc(h->n_blocks, sizeof(*blocks));
	if (!blocks)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	for (size_t i = 0; i < h->n_blocks; i++) {
		r = decode_block((const uint8_t *)data + i * HF_IMAGE_BLOCK_BYTES, &blocks[i], e);
		if (r < 0)
			return r;
		for (size_t k = 0; k < i; k++)
			if (blocks[k].token == blocks[i].token)
				return bad(e, "two blocks in its table have the same token");
	}
	if (!number_chunks(h->chunk_shift, blocks, h->n_blocks, &n_chunks) ||
		n_chunks != h->n_chunks)
		return bad(e, "its block table and its header differ in the number of chunks");
	*ret = TAKE_PTR(blocks);
	return 0;
}

void hf_image_commit_encode(
	const struct hf_image_commit *c, bool bare, uint8_t page[HF_IMAGE_PAGE_BYTES])
{
	struct wire_commit w = {
		.version = htole32(HF_IMAGE_VERSION),
		.passes = htole32(c->passes),
		.index_offset = htole64(c->index_offset),
		.index_bytes = htole64(c->index_bytes),
		.file_bytes = htole64(c->file_bytes),
		.n_slots = htole64(c->n_slots),
		.n_data = htole64(c->n_data),
		.committed_ns = htole64(c->committed_ns),
	};

	memcpy(w.magic, COMMIT_MAGIC, sizeof(w.magic));
	memcpy(w.image, c->image, sizeof(w.image));
	memcpy(w.header_check, c->header_check, sizeof(w.header_check));
	memcpy(w.table_check, c->table_check, sizeof(w.table_check));
	memcpy(w.index_check, c->index_check, sizeof(w.index_check));
	if (!bare) {
		memcpy(w.tag, c->tag, sizeof(w.tag));
		w.xxh3 = htole64(XXH3_64bits(&w, offsetof(struct wire_commit, xxh3)));
	}
	memcpy(page, &w, sizeof(w));
}

static int check_commit(
	const struct hf_image_commit *c, const struct hf_image_header *h, struct hf_error *e)
{
	if (memcmp(c->image, h->image, sizeof(c->image)) != 0)
		return bad(e, "its commit record is of another image");
	if (c->n_slots > h->n_chunks || c->n_data > c->n_slots)
		return bad(e, "more chunks in its commit record than in its header");
	if (c->index_offset != hf_image_slot_offset(h, c->n_slots) ||
		c->index_bytes != h->n_chunks * HF_IMAGE_ENTRY_BYTES ||
		c->file_bytes != c->index_offset + hf_image_align(c->index_bytes))
		return bad(e, "its index isn't where its commit record has it");
	if (c->passes == 0)
		return bad(e, "no pass in its commit record");
	return 0;
}

int hf_image_commit_decode(const void *data, size_t size, const struct hf_image_header *h,
	struct hf_image_commit *ret, struct hf_error *e)
{
	static const uint8_t nothing[HF_IMAGE_PAGE_BYTES];
	struct hf_image_commit c;
	struct wire_commit w;
	int r;

	if (size < sizeof(w))
		return bad(e, "it is cut short before the end of its commit record");
	memcpy(&w, data, sizeof(w));
	if (memcmp(&w, nothing, sizeof(w)) == 0)
		return hf_error_set(e, -ENODATA, HF_ERR_FAILED,
			"remove it: the guest was not given up for it, or has to be booted afresh",
			"the image was never completed: it has no commit record");
	if (memcmp(w.magic, COMMIT_MAGIC, sizeof(w.magic)) != 0 ||
		le64toh(w.xxh3) != XXH3_64bits(&w, offsetof(struct wire_commit, xxh3)))
		return bad(e, "the checksum of its commit record, at offset 4096, is wrong");
	c = (struct hf_image_commit){
		.passes = le32toh(w.passes),
		.index_offset = le64toh(w.index_offset),
		.index_bytes = le64toh(w.index_bytes),
		.file_bytes = le64toh(w.file_bytes),
		.n_slots = le64toh(w.n_slots),
		.n_data = le64toh(w.n_data),
		.committed_ns = le64toh(w.committed_ns),
	};
	memcpy(c.image, w.image, sizeof(c.image));
	memcpy(c.header_check, w.header_check, sizeof(c.header_check));
	memcpy(c.table_check, w.table_check, sizeof(c.table_check));
	memcpy(c.index_check, w.index_check, sizeof(c.index_check));
	memcpy(c.tag, w.tag, sizeof(c.tag));
	r = check_commit(&c, h, e);
	if (r == 0)
		*ret = c;
	return r;
}

void hf_image_entry_encode(const struct hf_image_entry *entry, uint8_t out[HF_IMAGE_ENTRY_BYTES])
{
	struct wire_entry w = {.kind = htole32(entry->kind)};

	if (entry->kind == HF_IMAGE_DATA) {
		w.slot = htole32(entry->slot);
		w.generation = htole32(entry->generation);
		memcpy(w.check, entry->check, sizeof(w.check));
	}
	memcpy(out, &w, sizeof(w));
}

void hf_image_entry_decode(const uint8_t in[HF_IMAGE_ENTRY_BYTES], struct hf_image_entry *ret)
{
	struct wire_entry w;

	memcpy(&w, in, sizeof(w));
	*ret = (struct hf_image_entry){
		.kind = le32toh(w.kind),
		.slot = le32toh(w.slot),
		.generation = le32toh(w.generation),
	};
	memcpy(ret->check, w.check, sizeof(ret->check));
}

static const char *entry_problem(
	const struct hf_image_entry *entry, const struct hf_image_commit *c, uint8_t *taken)
{
	if (entry->kind == HF_IMAGE_HOLE || entry->kind == HF_IMAGE_ZERO)
		return NULL;
	if (entry->kind != HF_IMAGE_DATA)
		return "of an unknown kind";
	if (entry->slot >= c->n_slots)
		return "outside of the data";
	if (entry->generation == 0 || entry->generation > c->passes)
		return "of a pass that wasn't";
	if (taken[entry->slot / 8] & 1u << entry->slot % 8)
		return "in the place of another";
	taken[entry->slot / 8] |= (uint8_t)(1u << entry->slot % 8);
	return NULL;
}

int hf_image_index_check(const void *data, size_t size, const struct hf_image_header *h,
	const struct hf_image_commit *c, struct hf_error *e)
{
	cleanup_free uint8_t *taken = calloc(c->n_slots / 8 + 1, 1);
	uint64_t n_data = 0;

	if (!taken)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (size != h->n_chunks * HF_IMAGE_ENTRY_BYTES)
		return bad(e, "it is cut short before the end of its index");
	for (uint64_t i = 0; i < h->n_chunks; i++) {
		struct hf_image_entry entry;
		const char *problem;

		hf_image_entry_decode((const uint8_t *)data + i * HF_IMAGE_ENTRY_BYTES, &entry);
		problem = entry_problem(&entry, c, taken);
		if (problem)
			return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL,
				"the image is damaged: chunk %llu in its index, at offset %llu, is "
				"%s",
				(unsigned long long)i,
				(unsigned long long)(c->index_offset + i * HF_IMAGE_ENTRY_BYTES),
				problem);
		n_data += entry.kind == HF_IMAGE_DATA;
	}
	if (n_data != c->n_data)
		return bad(e, "its index and its commit record differ in the number of chunks");
	return 0;
}
