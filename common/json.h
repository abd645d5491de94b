/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The few JSON helpers that json-c lacks: reading fields strictly, building objects briefly.
 *
 * Reading: a table of wanted fields against an object, as untrusted input needs it: what is not in
 * the table is refused, and so is a wrong type. Values point into the object (borrowed).
 *
 * Building: json-c's add calls can fail and then leave the value with the caller; here the value is
 * always consumed, and a failure leaves the field out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "common/cleanup.h"

static inline void hf_cleanup_json_putp(struct json_object **p)
{
	json_object_put(*p);
}

/* A json_object reference that is dropped when it goes out of scope. */
#define cleanup_json HF_CLEANUP(hf_cleanup_json_putp)

/* Flags of a field. */
#define HF_JSON_OPTIONAL (1u << 0) /* may be absent, or null */

/**
 * struct hf_json_field - one field that an object may have.
 * @name:  key; NULL ends a table
 * @type:  json_type_string, _boolean, _int, _object or _array
 * @flags: HF_JSON_OPTIONAL
 * @ret:   where the value goes: const char ** (no embedded NUL), bool *, int64_t *, or
 *         struct json_object ** (borrowed) for objects and arrays; NULL only checks.
 *         Untouched when the field is absent or null.
 */
struct hf_json_field {
	const char *name;
	enum json_type type;
	unsigned int flags;
	void *ret;
};

/**
 * hf_json_dispatch() - Take the fields of an object apart, strictly.
 * @obj:     the object; NULL counts as an empty one
 * @fields:  table ended by a NULL name
 * @ret_bad: set on failure to the offending key, borrowed from @obj or @fields; may be NULL
 *
 * Return: 0, -EINVAL for an unknown key, a missing one or a wrong type.
 */
int hf_json_dispatch(
	struct json_object *obj, const struct hf_json_field *fields, const char **ret_bad);

/** hf_json_get_string() - A string field, or @fallback when absent or no string. Borrowed. */
const char *hf_json_get_string(struct json_object *obj, const char *key, const char *fallback);

/** hf_json_get_int() - An integer field, or @fallback when absent or no integer. */
int64_t hf_json_get_int(struct json_object *obj, const char *key, int64_t fallback);

/** hf_json_get_bool() - A boolean field, or @fallback when absent or no boolean. */
bool hf_json_get_bool(struct json_object *obj, const char *key, bool fallback);

/** hf_json_get_object() - An object field, borrowed, or NULL. */
struct json_object *hf_json_get_object(struct json_object *obj, const char *key);

/** hf_json_get_array() - An array field, borrowed, or NULL. */
struct json_object *hf_json_get_array(struct json_object *obj, const char *key);

/** hf_json_array_size() - Number of elements, 0 for NULL. */
size_t hf_json_array_size(struct json_object *array);

/** hf_json_add() - Add a value, which is consumed in any case. NULL leaves the field out. */
void hf_json_add(struct json_object *obj, const char *key, struct json_object *value);

/**
 * hf_json_add_string() - Add a string; NULL leaves the field out.
 *
 * Bytes that are no UTF-8 (file names, VMM messages) become '?', for the peer would refuse them.
 */
void hf_json_add_string(struct json_object *obj, const char *key, const char *value);

/** hf_json_add_int() - Add an integer. */
void hf_json_add_int(struct json_object *obj, const char *key, int64_t value);

/** hf_json_add_bool() - Add a boolean. */
void hf_json_add_bool(struct json_object *obj, const char *key, bool value);

/** hf_json_append() - Append a value to an array. Consumed in any case; NULL is skipped. */
void hf_json_append(struct json_object *array, struct json_object *value);

/**
 * hf_json_parse() - Parse one whole JSON object from untrusted bytes.
 * @data:  bytes, no NUL needed at the end
 * @size:  their number
 * @depth: how deep it may nest
 * @ret:   the object, owned by the caller
 *
 * Strict JSON (but for json-c taking single quotes around keys), valid UTF-8, nothing behind it.
 *
 * Return: 0, -EBADMSG, or -ENOMEM.
 */
int hf_json_parse(const void *data, size_t size, int depth, struct json_object **ret);
