/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The manifest for people: the tables of manifest-schema.c as JSON.
 *
 * Property names become keys with `_` for `-`, and without `required,`; lists become arrays under
 * the container's name.
 */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>

#include "memfd-preserve/json-text.h"
#include "memfd-preserve/manifest-schema.h"

static struct json_object *node_to_json(const struct node_type *type, const void *object);

static void key_of(const char *property, char *key, size_t size)
{
	size_t i, prefix = strlen(HF_MANIFEST_REQUIRED);

	if (strncmp(property, HF_MANIFEST_REQUIRED, prefix) == 0)
		property += prefix;
	for (i = 0; property[i] && i + 1 < size; i++)
		key[i] = property[i] == '-' ? '_' : property[i];
	key[i] = 0;
}

static struct json_object *strings_to_json(const struct field *f, const void *object)
{
	size_t n = *(const size_t *)field_at(object, f->count_offset);
	char **strings = field_pointer(object, f->offset);
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < n; i++)
		json_object_array_add(array, hf_json_text(strings[i], strlen(strings[i])));
	return array;
}

static struct json_object *u32s_to_json(const uint32_t *values, size_t n)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < n; i++)
		json_object_array_add(array, json_object_new_int64(values[i]));
	return array;
}

static struct json_object *u64s_to_json(const uint64_t *values, size_t n)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < n; i++)
		json_object_array_add(array, json_object_new_uint64(values[i]));
	return array;
}

static struct json_object *field_to_json(const struct field *f, const void *object)
{
	const void *p = field_at(object, f->offset);
	const char *s;
	char hex[24];

	switch (f->type) {
	case FIELD_STRING:
		s = field_pointer(object, f->offset);
		return s ? hf_json_text(s, strlen(s)) : NULL;
	case FIELD_UUID:
		return *(const char *)p ? json_object_new_string(p) : NULL;
	case FIELD_BOOL:
		return json_object_new_boolean(*(const bool *)p);
	case FIELD_U32:
		return json_object_new_int64(*(const uint32_t *)p);
	case FIELD_I32:
		return json_object_new_int(*(const int32_t *)p);
	case FIELD_CHOICE:
		for (uint32_t i = 0; f->names[i]; i++)
			if (i == *(const uint32_t *)p)
				return json_object_new_string(f->names[i]);
		return NULL;
	case FIELD_U64:
		return json_object_new_uint64(*(const uint64_t *)p);
	case FIELD_HASH:
		snprintf(hex, sizeof(hex), "%016" PRIx64, *(const uint64_t *)p);
		return json_object_new_string(hex);
	case FIELD_STRINGS:
		return strings_to_json(f, object);
	case FIELD_U32S:
		return u32s_to_json(field_pointer(object, f->offset),
			*(const size_t *)field_at(object, f->count_offset));
	case FIELD_U64S:
		return u64s_to_json(field_pointer(object, f->offset),
			*(const size_t *)field_at(object, f->count_offset));
	case FIELD_VERSION:
		return u32s_to_json(p, 3);
	}
	return NULL;
}

static struct json_object *list_to_json(const struct list *list, const void *owner)
{
	struct json_object *array = json_object_new_array();
	size_t n = hf_manifest_schema_count(list, owner);

	for (size_t i = 0; array && i < n; i++)
		json_object_array_add(
			array, node_to_json(list->type, hf_manifest_schema_at(list, owner, i)));
	return array;
}

static struct json_object *node_to_json(const struct node_type *type, const void *object)
{
	struct json_object *json = json_object_new_object();
	char key[64];

	for (size_t i = 0; json && i < type->n_fields; i++) {
		key_of(type->fields[i].name, key, sizeof(key));
		json_object_object_add(json, key, field_to_json(&type->fields[i], object));
	}
	for (size_t i = 0; json && i < type->n_lists; i++) {
		key_of(type->lists[i].container, key, sizeof(key));
		json_object_object_add(json, key, list_to_json(&type->lists[i], object));
	}
	return json;
}

struct json_object *hf_manifest_to_json(const struct hf_manifest *m)
{
	struct json_object *json = node_to_json(&hf_manifest_schema_root, m);

	if (!json)
		return NULL;
	json_object_object_add(json, "version", json_object_new_int64(m->version));
	json_object_object_add(
		json, "min_reader_version", json_object_new_int64(m->min_reader_version));
	return json;
}
