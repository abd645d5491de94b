/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Writing the manifest: the tables of manifest-schema.c through libfdt's sequential writer.
 */
#include <endian.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "memfd-preserve/manifest-schema.h"
#include "memfd-preserve/manifest-wire.h"

struct encoder {
	void *fdt;
	struct hf_error *e;
	char where[64]; /* guest being written, for sentences */
};

static int encode_node(struct encoder *en, const struct node_type *type, const void *object);

static int refuse(
	struct encoder *en, const struct node_type *type, const struct field *f, const char *why)
{
	return hf_error_set(en->e, -EINVAL, HF_ERR_FAILED, NULL,
		"the manifest can't be written: `%s` of a %s%s%s %s", f->name, type->noun,
		en->where[0] ? " of guest " : "", en->where, why);
}

/* libfdt's only failure in a buffer of fixed size is that it is too small. */
static int put(int fdt_result)
{
	return fdt_result < 0 ? -EFBIG : 0;
}

static int put_string(
	struct encoder *en, const struct node_type *type, const struct field *f, const char *s)
{
	if (!s)
		return f->needed ? refuse(en, type, f, "is missing") : 0;
	if (strlen(s) >= HF_MANIFEST_MAX_STRING)
		return refuse(en, type, f, "is too long");
	return put(fdt_property_string(en->fdt, f->name, s));
}

static int put_uuid(
	struct encoder *en, const struct node_type *type, const struct field *f, const char *s)
{
	size_t len = strnlen(s, HF_UUID_CHARS);

	if (len == 0)
		return f->needed ? refuse(en, type, f, "is missing") : 0;
	if (!hf_manifest_uuid_valid(s, len))
		return refuse(en, type, f, "is not a UUID");
	return put(fdt_property_string(en->fdt, f->name, s));
}

static int put_strings(
	struct encoder *en, const struct node_type *type, const struct field *f, const void *object)
{
	char **strings = field_pointer(object, f->offset);
	size_t n = *(const size_t *)field_at(object, f->count_offset), total = 0;
	void *value;
	char *p;
	int r;

	if (n > f->max)
		return refuse(en, type, f, "has too many entries");
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(strings[i]);

		if (len >= HF_MANIFEST_MAX_STRING)
			return refuse(en, type, f, "has an entry that is too long");
		total += len + 1;
	}
	if (total > HF_MANIFEST_MAX_BYTES)
		return -EFBIG;
	r = put(fdt_property_placeholder(en->fdt, f->name, (int)total, &value));
	if (r < 0)
		return r;
	p = value;
	for (size_t i = 0; i < n; i++)
		p = stpcpy(p, strings[i]) + 1;
	return 0;
}

static int put_choice(
	struct encoder *en, const struct node_type *type, const struct field *f, uint32_t value)
{
	for (uint32_t i = 0; f->names[i]; i++)
		if (i == value)
			return put(fdt_property_string(en->fdt, f->name, f->names[i]));
	return refuse(en, type, f, "has a value that has no name");
}

/* @type says how wide the numbers are: FIELD_U64S, or else four bytes. */
static int put_numbers(
	struct encoder *en, const char *name, enum field_type type, const void *values, size_t n)
{
	size_t size = type == FIELD_U64S ? sizeof(uint64_t) : sizeof(uint32_t);
	void *value;
	int r = put(fdt_property_placeholder(en->fdt, name, (int)(n * size), &value));

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		uint64_t be64;
		uint32_t be32;

		if (type == FIELD_U64S) {
			be64 = htobe64(((const uint64_t *)values)[i]);
			memcpy((char *)value + i * size, &be64, size);
		} else {
			be32 = htobe32(((const uint32_t *)values)[i]);
			memcpy((char *)value + i * size, &be32, size);
		}
	}
	return 0;
}

static int put_field(
	struct encoder *en, const struct node_type *type, const struct field *f, const void *object)
{
	const void *p = field_at(object, f->offset);
	size_t n;

	switch (f->type) {
	case FIELD_STRING:
		return put_string(en, type, f, field_pointer(object, f->offset));
	case FIELD_UUID:
		return put_uuid(en, type, f, p);
	case FIELD_BOOL:
		if (f->only_set && !*(const bool *)p)
			return 0;
		return put(fdt_property_u32(en->fdt, f->name, *(const bool *)p));
	case FIELD_U32:
		return put(fdt_property_u32(en->fdt, f->name, *(const uint32_t *)p));
	case FIELD_I32:
		return put(fdt_property_u32(en->fdt, f->name, (uint32_t) * (const int32_t *)p));
	case FIELD_CHOICE:
		return put_choice(en, type, f, *(const uint32_t *)p);
	case FIELD_U64:
	case FIELD_HASH:
		return put(fdt_property_u64(en->fdt, f->name, *(const uint64_t *)p));
	case FIELD_STRINGS:
		return put_strings(en, type, f, object);
	case FIELD_U32S:
	case FIELD_U64S:
		n = *(const size_t *)field_at(object, f->count_offset);
		if (n > f->max)
			return refuse(en, type, f, "has too many entries");
		return put_numbers(en, f->name, f->type, field_pointer(object, f->offset), n);
	case FIELD_VERSION:
		return put_numbers(en, f->name, FIELD_U32S, p, 3);
	}
	return -EINVAL;
}

static int encode_list(struct encoder *en, const struct list *list, const void *owner)
{
	size_t n = hf_manifest_schema_count(list, owner);
	char name[32];
	int r;

	if (n > list->max)
		return hf_error_set(en->e, -EINVAL, HF_ERR_FAILED, NULL,
			"the manifest can't be written: %zu entries in %s, %zu are allowed", n,
			list->container, list->max);
	r = put(fdt_begin_node(en->fdt, list->container));
	for (size_t i = 0; i < n && r == 0; i++) {
		const void *object = hf_manifest_schema_at(list, owner, i);

		if (list->type == &hf_manifest_schema_guest) {
			const char *guest = ((const struct hf_manifest_guest *)object)->name;

			snprintf(en->where, sizeof(en->where), "%s",
				guest ? guest : "without a name");
		}
		snprintf(name, sizeof(name), "%s@%zx", list->item, i);
		r = put(fdt_begin_node(en->fdt, name));
		if (r == 0)
			r = encode_node(en, list->type, object);
		if (r == 0)
			r = put(fdt_end_node(en->fdt));
	}
	return r < 0 ? r : put(fdt_end_node(en->fdt));
}

/* Properties and child nodes of a node that has begun. */
static int encode_node(struct encoder *en, const struct node_type *type, const void *object)
{
	int r = 0;

	for (size_t i = 0; i < type->n_fields && r == 0; i++)
		r = put_field(en, type, &type->fields[i], object);
	for (size_t i = 0; i < type->n_lists && r == 0; i++)
		r = encode_list(en, &type->lists[i], object);
	return r;
}

/* ---- how much room it takes at most ---- */

/* Header, reservation block, root node, end, alignment. */
#define TREE_OVERHEAD_BYTES 512

static size_t property_bytes(const char *name, size_t value)
{
	return 12 + ((value + 3) & ~(size_t)3) + strlen(name) + 1;
}

static size_t field_bytes(const struct field *f, const void *object)
{
	size_t total = 0, n = 0;
	char **strings;
	const char *s;

	if (f->count_offset)
		n = *(const size_t *)field_at(object, f->count_offset);
	switch (f->type) {
	case FIELD_STRING:
		s = field_pointer(object, f->offset);
		return s ? property_bytes(f->name, strlen(s) + 1) : 0;
	case FIELD_STRINGS:
		strings = field_pointer(object, f->offset);
		for (size_t i = 0; i < n; i++)
			total += strlen(strings[i]) + 1;
		return property_bytes(f->name, total);
	case FIELD_U32S:
		return property_bytes(f->name, n * sizeof(uint32_t));
	case FIELD_U64S:
		return property_bytes(f->name, n * sizeof(uint64_t));
	default:
		return property_bytes(f->name, HF_UUID_CHARS); /* the longest of the others */
	}
}

static size_t node_bytes(const struct node_type *type, const void *object)
{
	size_t total = 0;

	for (size_t i = 0; i < type->n_fields; i++)
		total += field_bytes(&type->fields[i], object);
	for (size_t i = 0; i < type->n_lists; i++) {
		const struct list *list = &type->lists[i];
		size_t n = hf_manifest_schema_count(list, object);

		total += 12 + strlen(list->container);
		for (size_t k = 0; k < n; k++)
			total += 32 + strlen(list->item) +
				 node_bytes(list->type, hf_manifest_schema_at(list, object, k));
	}
	return total;
}

static int encode_tree(struct encoder *en, const struct hf_manifest *m, size_t capacity)
{
	/* Looking every name up to store it once costs more time in the blackout than its bytes. */
	int r = put(fdt_create_with_flags(en->fdt, (int)capacity, FDT_CREATE_FLAG_NO_NAME_DEDUP));

	if (r == 0)
		r = put(fdt_finish_reservemap(en->fdt));
	if (r == 0)
		r = put(fdt_begin_node(en->fdt, ""));
	if (r == 0)
		r = put(fdt_property_string(en->fdt, "compatible", HF_MANIFEST_COMPATIBLE));
	if (r == 0)
		r = put(fdt_property_u32(en->fdt, "version", HF_MANIFEST_VERSION));
	if (r == 0)
		r = put(fdt_property_u32(en->fdt, "min-reader-version", HF_MANIFEST_MIN_READER));
	if (r == 0)
		r = encode_node(en, &hf_manifest_schema_root, m);
	if (r == 0)
		r = put(fdt_end_node(en->fdt));
	if (r == 0)
		r = put(fdt_finish(en->fdt));
	return r;
}

int hf_manifest_encode(const struct hf_manifest *m, void *buf, size_t capacity, size_t *ret_size,
	struct hf_error *e)
{
	struct hf_manifest_header *header = buf;
	struct encoder en = {.fdt = (char *)buf + HF_MANIFEST_HEADER_BYTES, .e = e};
	size_t room = HF_MIN(capacity, (size_t)HF_MANIFEST_MAX_BYTES), size;
	int r = -EFBIG;

	if ((uintptr_t)buf % 8 != 0)
		return hf_error_set(e, -EINVAL, HF_ERR_FAILED, NULL, "manifest buffer not aligned");
	if (room > HF_MANIFEST_HEADER_BYTES) {
		/* libfdt zeroes all it is given: no more of a large buffer is touched than needed.
		 */
		room -= HF_MANIFEST_HEADER_BYTES;
		room = HF_MIN(room,
			node_bytes(&hf_manifest_schema_root, m) + (size_t)TREE_OVERHEAD_BYTES);
		r = encode_tree(&en, m, room);
	}
	if (r == -EFBIG)
		return hf_error_set(e, r, HF_ERR_FAILED,
			"update fewer guests at a time, or shorten their environments",
			"the manifest of %zu guests doesn't fit into the %zu KiB set aside for it",
			m->n_guests, capacity >> 10);
	if (r < 0)
		return r;
	size = HF_MANIFEST_HEADER_BYTES + fdt_totalsize(en.fdt);
	*header = (struct hf_manifest_header){
		.format = htole32(HF_MANIFEST_FORMAT),
		.header_bytes = htole32(HF_MANIFEST_HEADER_BYTES),
		.tree_bytes = htole64(fdt_totalsize(en.fdt)),
	};
	memcpy(header->magic, HF_MANIFEST_MAGIC, sizeof(header->magic));
	header->xxh3 = htole64(XXH3_64bits(buf, size));
	*ret_size = size;
	return 0;
}
