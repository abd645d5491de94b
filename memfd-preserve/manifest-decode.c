/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Reading the manifest. The bytes come from another build, or from who knows where.
 *
 * First the envelope: magic, format, length, checksum. Then the tree is found sound as a
 * whole (fdt-check.h), so that walking it can't leave it. Then every node is matched with
 * the tables of manifest-schema.c.
 */
#include <endian.h>
#include <libfdt.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "memfd-preserve/fdt-check.h"
#include "memfd-preserve/manifest-schema.h"
#include "memfd-preserve/manifest-wire.h"

struct decoder {
	const void *fdt;
	struct hf_error *e;
};

static int decode_node(struct decoder *de, const struct node_type *type, int node, void *object);

static int malformed(
	struct decoder *de, const struct node_type *type, const char *name, const char *why)
{
	return hf_error_set(de->e, -EBADMSG, HF_ERR_FAILED, NULL,
		"the manifest is malformed: `%.64s` of a %s %s", name, type->noun, why);
}

static int no_memory(struct decoder *de)
{
	return hf_error_set(de->e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

static int too_new(struct hf_error *e, const char *what, const char *name)
{
	return hf_error_set(e, -EPROTONOSUPPORT, HF_ERR_FAILED,
		"install the holdfast that wrote the manifest, or a newer one, and restart "
		"holdfastd",
		"the manifest is from a newer holdfast: %s%.64s", what, name);
}

static bool is_required(const char *name)
{
	return strncmp(name, HF_MANIFEST_REQUIRED, strlen(HF_MANIFEST_REQUIRED)) == 0;
}

static uint64_t load_be64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return be64toh(v);
}

static uint32_t load_be32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static int get_string(struct decoder *de, const struct node_type *type, const struct field *f,
	const char *value, size_t len, void *object)
{
	char *copy;

	if (len == 0 || len > HF_MANIFEST_MAX_STRING || strnlen(value, len) != len - 1)
		return malformed(de, type, f->name, "is not a string of allowed length");
	if (f->type == FIELD_UUID) {
		if (!hf_manifest_uuid_valid(value, len - 1))
			return malformed(de, type, f->name, "is not a UUID");
		memcpy(field_at(object, f->offset), value, len);
		return 0;
	}
	copy = strndup(value, len);
	if (!copy)
		return no_memory(de);
	field_set_pointer(object, f->offset, copy);
	return 0;
}

static int get_choice(struct decoder *de, const struct node_type *type, const struct field *f,
	const char *value, size_t len, void *object)
{
	if (len == 0 || len > HF_MANIFEST_MAX_STRING || strnlen(value, len) != len - 1)
		return malformed(de, type, f->name, "is not a string of allowed length");
	for (uint32_t i = 0; f->names[i]; i++)
		if (strcmp(f->names[i], value) == 0)
			*(uint32_t *)field_at(object, f->offset) = i;
	return 0;
}

static int get_strings(struct decoder *de, const struct node_type *type, const struct field *f,
	const char *value, size_t len, void *object)
{
	size_t n = 0, *count = field_at(object, f->count_offset);
	char **strings;

	if (len > 0 && value[len - 1] != 0)
		return malformed(de, type, f->name, "is not a list of strings");
	for (size_t at = 0; at < len; at += strlen(value + at) + 1) {
		if (strlen(value + at) >= HF_MANIFEST_MAX_STRING || ++n > f->max)
			return malformed(de, type, f->name, "is too long");
	}
	strings = calloc(n + 1, sizeof(*strings));
	if (!strings)
		return no_memory(de);
	field_set_pointer(object, f->offset, strings);
	for (size_t at = 0; *count < n; at += strlen(value + at) + 1) {
		strings[*count] = strdup(value + at);
		if (!strings[*count])
			return no_memory(de);
		++*count;
	}
	return 0;
}

static int get_numbers(struct decoder *de, const struct node_type *type, const struct field *f,
	const char *value, size_t len, void *object)
{
	size_t size = f->type == FIELD_U64S ? sizeof(uint64_t) : sizeof(uint32_t), n = len / size;
	void *values;

	if (len % size != 0 || n > f->max)
		return malformed(de, type, f->name, "has a length that can't be");
	if (n == 0)
		return 0;
	values = calloc(n, size);
	if (!values)
		return no_memory(de);
	for (size_t i = 0; i < n; i++) {
		if (f->type == FIELD_U64S)
			((uint64_t *)values)[i] = load_be64(value + i * size);
		else
			((uint32_t *)values)[i] = load_be32(value + i * size);
	}
	field_set_pointer(object, f->offset, values);
	*(size_t *)field_at(object, f->count_offset) = n;
	return 0;
}

static int get_number(struct decoder *de, const struct node_type *type, const struct field *f,
	const char *value, size_t len, void *object)
{
	void *p = field_at(object, f->offset);
	size_t want = f->type == FIELD_U64 || f->type == FIELD_HASH ? 8
		      : f->type == FIELD_VERSION		    ? 12
								    : 4;

	if (len != want)
		return malformed(de, type, f->name, "has a length that can't be");
	switch (f->type) {
	case FIELD_BOOL:
		if (load_be32(value) > 1)
			return malformed(de, type, f->name, "is neither 0 nor 1");
		*(bool *)p = load_be32(value);
		return 0;
	case FIELD_U32:
		*(uint32_t *)p = load_be32(value);
		return 0;
	case FIELD_I32:
		*(int32_t *)p = (int32_t)load_be32(value);
		return 0;
	case FIELD_VERSION:
		for (size_t i = 0; i < 3; i++)
			((uint32_t *)p)[i] = load_be32(value + i * 4);
		return 0;
	default:
		*(uint64_t *)p = load_be64(value);
		return 0;
	}
}

static int get_field(struct decoder *de, const struct node_type *type, const struct field *f,
	const char *value, size_t len, void *object)
{
	switch (f->type) {
	case FIELD_STRING:
	case FIELD_UUID:
		return get_string(de, type, f, value, len, object);
	case FIELD_CHOICE:
		return get_choice(de, type, f, value, len, object);
	case FIELD_STRINGS:
		return get_strings(de, type, f, value, len, object);
	case FIELD_U32S:
	case FIELD_U64S:
		return get_numbers(de, type, f, value, len, object);
	default:
		return get_number(de, type, f, value, len, object);
	}
}

static int decode_properties(
	struct decoder *de, const struct node_type *type, int node, void *object)
{
	uint64_t seen = 0;
	int prop;

	fdt_for_each_property_offset(prop, de->fdt, node)
	{
		const char *name, *value;
		int len, r;
		size_t i;

		value = fdt_getprop_by_offset(de->fdt, prop, &name, &len);
		if (!value)
			return malformed(de, type, "?", "is not a property");
		for (i = 0; i < type->n_fields; i++)
			if (strcmp(type->fields[i].name, name) == 0)
				break;
		if (i == type->n_fields) {
			if (is_required(name))
				return too_new(de->e, "this one doesn't know ", name);
			continue;
		}
		if (seen & (1ULL << i))
			return malformed(de, type, name, "is there twice");
		seen |= 1ULL << i;
		r = get_field(de, type, &type->fields[i], value, (size_t)len, object);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < type->n_fields; i++)
		if (type->fields[i].needed && !(seen & (1ULL << i)))
			return malformed(de, type, type->fields[i].name, "is missing");
	return 0;
}

static int decode_item(struct decoder *de, const struct list *list, int node, void *owner, size_t i)
{
	void *object;

	if (i >= list->max)
		return malformed(de, list->type, list->container, "are too many");
	if (list->fixed)
		object = field_at(hf_manifest_schema_at(list, owner, i), 0);
	else
		object = hf_manifest_schema_append(list, owner);
	if (!object)
		return no_memory(de);
	return decode_node(de, list->type, node, object);
}

/* The children of `container` that are called `item@…`, in their order. */
static int decode_list(struct decoder *de, const struct list *list, int container, void *owner)
{
	size_t n = 0, prefix = strlen(list->item);
	int node, r;

	fdt_for_each_subnode(node, de->fdt, container)
	{
		const char *name = fdt_get_name(de->fdt, node, NULL);

		if (!name)
			return malformed(de, list->type, list->container, "has a nameless child");
		if (strncmp(name, list->item, prefix) == 0 && name[prefix] == '@') {
			r = decode_item(de, list, node, owner, n++);
			if (r < 0)
				return r;
		} else if (is_required(name)) {
			return too_new(de->e, "this one doesn't know ", name);
		}
	}
	return 0;
}

static int decode_node(struct decoder *de, const struct node_type *type, int node, void *object)
{
	uint64_t seen = 0;
	int child, r = decode_properties(de, type, node, object);

	if (r < 0)
		return r;
	fdt_for_each_subnode(child, de->fdt, node)
	{
		const char *name = fdt_get_name(de->fdt, child, NULL);
		size_t i;

		if (!name)
			return malformed(de, type, "?", "is a nameless node");
		for (i = 0; i < type->n_lists; i++)
			if (strcmp(type->lists[i].container, name) == 0)
				break;
		if (i == type->n_lists) {
			if (is_required(name))
				return too_new(de->e, "this one doesn't know ", name);
			continue;
		}
		if (seen & (1ULL << i))
			return malformed(de, type, name, "is there twice");
		seen |= 1ULL << i;
		r = decode_list(de, &type->lists[i], child, object);
		if (r < 0)
			return r;
	}
	return 0;
}

static int get_version(struct decoder *de, const char *name, uint32_t *ret)
{
	int len;
	const void *value = fdt_getprop(de->fdt, 0, name, &len);

	if (!value || len != 4)
		return malformed(de, &hf_manifest_schema_root, name, "is missing");
	*ret = load_be32(value);
	return 0;
}

static int decode_root(struct decoder *de, struct hf_manifest *m)
{
	char number[16];
	int r;

	if (fdt_node_check_compatible(de->fdt, 0, HF_MANIFEST_COMPATIBLE) != 0)
		return malformed(de, &hf_manifest_schema_root, "compatible",
			"is not " HF_MANIFEST_COMPATIBLE);
	r = get_version(de, "version", &m->version);
	if (r == 0)
		r = get_version(de, "min-reader-version", &m->min_reader_version);
	if (r < 0)
		return r;
	if (m->min_reader_version > HF_MANIFEST_VERSION) {
		snprintf(number, sizeof(number), "%u", m->min_reader_version);
		return too_new(de->e, "it asks for manifest version ", number);
	}
	return decode_node(de, &hf_manifest_schema_root, 0, m);
}

static int corrupt(struct hf_error *e, const char *why)
{
	return hf_error_set(
		e, -EBADMSG, HF_ERR_FAILED, NULL, "the manifest can't be read: %s", why);
}

/* Checks the envelope. */
static int check_header(const void *data, size_t size, size_t *ret_tree, struct hf_error *e)
{
	static const struct hf_manifest_header zero;
	struct hf_manifest_header h;
	uint64_t tree;

	if (size < sizeof(h))
		return corrupt(e, "it is cut short");
	memcpy(&h, data, sizeof(h));
	if (memcmp(&h, &zero, sizeof(h)) == 0)
		return corrupt(e, "it was never written");
	if (memcmp(h.magic, HF_MANIFEST_MAGIC, sizeof(h.magic)) != 0)
		return corrupt(e, "it is something else");
	if (le32toh(h.format) > HF_MANIFEST_FORMAT)
		return too_new(e, "another envelope", "");
	if (le32toh(h.format) != HF_MANIFEST_FORMAT || le32toh(h.header_bytes) != sizeof(h) ||
		memcmp(h.reserved, zero.reserved, sizeof(h.reserved)) != 0)
		return corrupt(e, "its header is damaged");
	tree = le64toh(h.tree_bytes);
	if (tree > HF_MANIFEST_MAX_BYTES || tree > size - sizeof(h))
		return corrupt(e, "it is cut short");
	*ret_tree = (size_t)tree;
	return 0;
}

/* An aligned copy of header and tree whose checksum is right. libfdt wants the alignment. */
static int copy_checked(const void *data, size_t tree, char **ret_copy, struct hf_error *e)
{
	size_t size = sizeof(struct hf_manifest_header) + tree;
	cleanup_free char *copy = malloc(size);
	uint64_t xxh3;

	if (!copy)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	memcpy(copy, data, size);
	memcpy(&xxh3, copy + offsetof(struct hf_manifest_header, xxh3), sizeof(xxh3));
	memset(copy + offsetof(struct hf_manifest_header, xxh3), 0, sizeof(xxh3));
	if (XXH3_64bits(copy, size) != le64toh(xxh3))
		return corrupt(e, "its checksum is wrong");
	*ret_copy = TAKE_PTR(copy);
	return 0;
}

int hf_manifest_decode(
	const void *data, size_t size, struct hf_manifest **ret_manifest, struct hf_error *e)
{
	cleanup_free char *copy = NULL;
	struct hf_manifest *m = NULL;
	struct decoder de = {.e = e};
	size_t tree = 0;
	int r;

	r = check_header(data, size, &tree, e);
	if (r == 0)
		r = copy_checked(data, tree, &copy, e);
	if (r < 0)
		return r;
	de.fdt = copy + sizeof(struct hf_manifest_header);
	if (!hf_fdt_check(de.fdt, tree) || fdt_totalsize(de.fdt) != tree)
		return corrupt(e, "its tree is malformed");
	r = hf_manifest_new(&m);
	if (r < 0)
		return no_memory(&de);
	r = decode_root(&de, m);
	if (r < 0) {
		hf_manifest_free(m);
		return r;
	}
	*ret_manifest = m;
	return 0;
}
