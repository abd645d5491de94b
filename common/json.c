/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json.h"

#include <limits.h>
#include <string.h>

/*
 * Length of the UTF-8 sequence that @size bytes begin with, 0 when it is none (overlong, surrogate
 * and truncated ones too, which json-c's own check lets pass).
 */
static size_t utf8_sequence(const void *data, size_t size)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *s = data;
	size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
	uint32_t c;

	if (n <= 1)
		return n;
	if (s[0] >= 0xf8 || n > size)
		return 0;
	c = s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

static const struct hf_json_field *find_field(const struct hf_json_field *fields, const char *key)
{
	for (; fields->name; fields++)
		if (strcmp(fields->name, key) == 0)
			return fields;
	return NULL;
}

static int take_value(struct json_object *value, const struct hf_json_field *field)
{
	if (!json_object_is_type(value, field->type))
		return -EINVAL;
	switch (field->type) {
	case json_type_string:
		/* A NUL inside would make two readers see two different strings. */
		if (strlen(json_object_get_string(value)) !=
			(size_t)json_object_get_string_len(value))
			return -EINVAL;
		if (field->ret)
			*(const char **)field->ret = json_object_get_string(value);
		return 0;
	case json_type_boolean:
		if (field->ret)
			*(bool *)field->ret = json_object_get_boolean(value);
		return 0;
	case json_type_int:
		if (field->ret)
			*(int64_t *)field->ret = json_object_get_int64(value);
		return 0;
	case json_type_object:
	case json_type_array:
		if (field->ret)
			*(struct json_object **)field->ret = value;
		return 0;
	default:
		return -EINVAL;
	}
}

int hf_json_dispatch(
	struct json_object *obj, const struct hf_json_field *fields, const char **ret_bad)
{
	const char *bad = NULL;

	if (obj) {
		json_object_object_foreach (obj, key, value) {
			const struct hf_json_field *field = find_field(fields, key);

			if (field && !value && (field->flags & HF_JSON_OPTIONAL))
				continue;
			if (!field || take_value(value, field) < 0) {
				bad = key;
				break;
			}
		}
	}
	for (const struct hf_json_field *f = fields; f->name && !bad; f++)
		if (!(f->flags & HF_JSON_OPTIONAL) && !json_object_object_get(obj, f->name))
			bad = f->name;
	if (!bad)
		return 0;
	if (ret_bad)
		*ret_bad = bad;
	return -EINVAL;
}

static struct json_object *get_typed(struct json_object *obj, const char *key, enum json_type type)
{
	struct json_object *value;

	if (!json_object_is_type(obj, json_type_object) ||
		!json_object_object_get_ex(obj, key, &value) || !json_object_is_type(value, type))
		return NULL;
	return value;
}

const char *hf_json_get_string(struct json_object *obj, const char *key, const char *fallback)
{
	struct json_object *value = get_typed(obj, key, json_type_string);

	return value ? json_object_get_string(value) : fallback;
}

int64_t hf_json_get_int(struct json_object *obj, const char *key, int64_t fallback)
{
	struct json_object *value = get_typed(obj, key, json_type_int);

	return value ? json_object_get_int64(value) : fallback;
}

bool hf_json_get_bool(struct json_object *obj, const char *key, bool fallback)
{
	struct json_object *value = get_typed(obj, key, json_type_boolean);

	return value ? json_object_get_boolean(value) : fallback;
}

struct json_object *hf_json_get_object(struct json_object *obj, const char *key)
{
	return get_typed(obj, key, json_type_object);
}

struct json_object *hf_json_get_array(struct json_object *obj, const char *key)
{
	return get_typed(obj, key, json_type_array);
}

size_t hf_json_array_size(struct json_object *array)
{
	return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

void hf_json_add(struct json_object *obj, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(obj, key, value) < 0)
		json_object_put(value);
}

void hf_json_add_string(struct json_object *obj, const char *key, const char *value)
{
	cleanup_free char *copy = value ? strdup(value) : NULL;

	if (!copy)
		return;
	for (char *p = copy, *end = copy + strlen(copy); p < end;) {
		size_t n = utf8_sequence(p, (size_t)(end - p));

		if (n == 0)
			*p = '?';
		p += n ? n : 1;
	}
	hf_json_add(obj, key, json_object_new_string(copy));
}

void hf_json_add_int(struct json_object *obj, const char *key, int64_t value)
{
	hf_json_add(obj, key, json_object_new_int64(value));
}

void hf_json_add_bool(struct json_object *obj, const char *key, bool value)
{
	hf_json_add(obj, key, json_object_new_boolean(value));
}

void hf_json_append(struct json_object *array, struct json_object *value)
{
	if (value && json_object_array_add(array, value) < 0)
		json_object_put(value);
}

int hf_json_parse(const void *data, size_t size, int depth, struct json_object **ret)
{
	cleanup_json struct json_object *obj = NULL;
	struct json_tokener *tok;
	const char *text = data;
	size_t end;

	if (size > INT_MAX)
		return -EBADMSG;
	for (size_t i = 0, n; i < size; i += n) {
		n = utf8_sequence(text + i, size - i);
		if (n == 0)
			return -EBADMSG;
	}
	tok = json_tokener_new_ex(depth);
	if (!tok)
		return -ENOMEM;
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
	obj = json_tokener_parse_ex(tok, text, (int)size);
	end = json_tokener_get_parse_end(tok);
	json_tokener_free(tok);
	if (!json_object_is_type(obj, json_type_object))
		return -EBADMSG;
	for (; end < size; end++)
		if (!text[end] || !strchr(" \t\r\n", text[end]))
			return -EBADMSG;
	*ret = TAKE_PTR(obj);
	return 0;
}
