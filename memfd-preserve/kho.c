/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/kho.h"

#include <ctype.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <libfdt.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "memfd-preserve/fdt-check.h"
#include "memfd-preserve/json-text.h"

#define MAX_DEPTH 16
#define MAX_NODES 16384
#define MAX_PROPERTIES 65536
#define MAX_HEX_BYTES 64
#define MAX_TEXT_BYTES 4096

struct walk {
	const void *fdt;
	unsigned int nodes, properties;
};

static struct json_object *hex_to_json(const uint8_t *data, size_t size)
{
	char hex[2 * MAX_HEX_BYTES + 1] = "";

	for (size_t i = 0; i < HF_MIN(size, (size_t)MAX_HEX_BYTES); i++)
		snprintf(hex + 2 * i, 3, "%02x", data[i]);
	return json_object_new_string(hex);
}

/* One or more printable strings, each with its NUL, none empty. */
static bool is_text(const char *value, size_t size)
{
	if (size < 2 || size > MAX_TEXT_BYTES || value[size - 1] != 0)
		return false;
	for (size_t i = 0; i < size; i++)
		if (value[i] ? !isprint((unsigned char)value[i]) : i == 0 || value[i - 1] == 0)
			return false;
	return true;
}

static struct json_object *text_to_json(const char *value, size_t size)
{
	struct json_object *array = json_object_new_array();

	for (size_t at = 0; array && at < size; at += strlen(value + at) + 1)
		json_object_array_add(array, json_object_new_string(value + at));
	return array;
}

static struct json_object *property_to_json(const void *value, size_t size)
{
	struct json_object *json = json_object_new_object();
	uint32_t u32;
	uint64_t u64;

	if (!json)
		return NULL;
	json_object_object_add(json, "size", json_object_new_int64((int64_t)size));
	if (is_text(value, size)) {
		json_object_object_add(json, "strings", text_to_json(value, size));
		return json;
	}
	if (size == sizeof(u32)) {
		memcpy(&u32, value, sizeof(u32));
		json_object_object_add(json, "u32", json_object_new_uint64(u32));
	} else if (size == sizeof(u64)) {
		memcpy(&u64, value, sizeof(u64));
		json_object_object_add(json, "u64", json_object_new_uint64(u64));
	}
	if (size > 0)
		json_object_object_add(json, "hex", hex_to_json(value, size));
	return json;
}

static int properties_to_json(struct walk *w, int node, struct json_object *out)
{
	int prop;

	fdt_for_each_property_offset(prop, w->fdt, node)
	{
		const char *name;
		int len;
		const void *value = fdt_getprop_by_offset(w->fdt, prop, &name, &len);
		struct json_object *key, *json;

		if (!value || ++w->properties > MAX_PROPERTIES)
			return -EBADMSG;
		key = hf_json_text(name, strlen(name));
		json = property_to_json(value, (size_t)len);
		if (key && json)
			json_object_object_add(out, json_object_get_string(key), json);
		else
			json_object_put(json);
		json_object_put(key);
		if (!key || !json)
			return -ENOMEM;
	}
	return 0;
}

static int node_to_json(struct walk *w, int node, unsigned int depth, struct json_object **ret);

static int child_to_json(struct walk *w, int child, unsigned int depth, struct json_object *out)
{
	struct json_object *json = NULL, *key;
	int len, r;
	const char *name = fdt_get_name(w->fdt, child, &len);

	if (!name)
		return -EBADMSG;
	r = node_to_json(w, child, depth, &json);
	if (r < 0)
		return r;
	key = hf_json_text(name, (size_t)len);
	if (!key) {
		json_object_put(json);
		return -ENOMEM;
	}
	json_object_object_add(out, json_object_get_string(key), json);
	json_object_put(key);
	return 0;
}

static int node_to_json(struct walk *w, int node, unsigned int depth, struct json_object **ret)
{
	struct json_object *json = json_object_new_object();
	struct json_object *properties = json_object_new_object();
	struct json_object *nodes = json_object_new_object();
	int child, r = json && properties && nodes ? 0 : -ENOMEM;

	if (depth > MAX_DEPTH || ++w->nodes > MAX_NODES)
		r = -EBADMSG;
	if (r == 0)
		r = properties_to_json(w, node, properties);
	if (r == 0) {
		fdt_for_each_subnode(child, w->fdt, node)
		{
			r = child_to_json(w, child, depth + 1, nodes);
			if (r < 0)
				break;
		}
	}
	if (r < 0) {
		json_object_put(json);
		json_object_put(properties);
		json_object_put(nodes);
		return r;
	}
	json_object_object_add(json, "properties", properties);
	json_object_object_add(json, "nodes", nodes);
	*ret = json;
	return 0;
}

/* A sound tree, copied to where libfdt can read it. NULL without memory or when it isn't one. */
static void *copy_tree(const void *data, size_t size)
{
	void *copy;

	if (size < FDT_V17_SIZE || size > INT32_MAX)
		return NULL;
	copy = malloc(size);
	if (!copy)
		return NULL;
	memcpy(copy, data, size);
	if (hf_fdt_check(copy, size))
		return copy;
	free(copy);
	return NULL;
}

int hf_kho_fdt_to_json(
	const void *data, size_t size, struct json_object **ret_json, struct hf_error *e)
{
	cleanup_free void *fdt = copy_tree(data, size);
	struct walk w = {.fdt = fdt};
	struct json_object *json = NULL;
	int r = fdt ? node_to_json(&w, 0, 0, &json) : -EBADMSG;

	if (r == -ENOMEM)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "out of memory");
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "not a sound flattened device tree");
	*ret_json = json;
	return 0;
}

/* The string a structure begins with, "" when there is none. */
static void leading_string(const void *data, size_t size, char *ret, size_t room)
{
	const char *s = data;
	size_t n = strnlen(s, HF_MIN(size, room));

	ret[0] = 0;
	if (n == 0 || n == HF_MIN(size, room))
		return;
	for (size_t i = 0; i < n; i++)
		if (!isgraph((unsigned char)s[i]))
			return;
	memcpy(ret, s, n + 1);
}

static void add_u64(struct json_object *json, const char *key, const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	json_object_object_add(json, key, json_object_new_uint64(v));
}

static void add_u32(struct json_object *json, const char *key, const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	json_object_object_add(json, key, json_object_new_uint64(v));
}

/* struct luo_ser of luo-v5: its string, live updates so far, where sessions and global data are. */
#define LUO_V5 "luo-v5"
#define LUO_V5_BYTES 32

/* struct kho_kexec_metadata, version 1. */
#define METADATA_BYTES 73
#define METADATA_RELEASE_BYTES 65

static void add_known(struct json_object *json, const char *name, const uint8_t *data, size_t size)
{
	uint32_t version;

	if (strcmp(name, "LUO") == 0 && size >= LUO_V5_BYTES &&
		memcmp(data, LUO_V5, sizeof(LUO_V5)) == 0) {
		add_u64(json, "liveupdate_num", data + 8);
		add_u64(json, "sessions_pa", data + 16);
		add_u64(json, "flbs_pa", data + 24);
	}
	if (strcmp(name, "kexec-metadata") == 0 && size >= METADATA_BYTES) {
		memcpy(&version, data, sizeof(version));
		add_u32(json, "version", data);
		if (version == 1) {
			json_object_object_add(json, "previous_release",
				hf_json_text((const char *)data + 4,
					strnlen((const char *)data + 4, METADATA_RELEASE_BYTES)));
			add_u32(json, "kexec_count", data + 4 + METADATA_RELEASE_BYTES);
		}
	}
}

int hf_kho_blob_to_json(
	const char *name, const void *data, size_t size, struct json_object **ret_json)
{
	struct json_object *json = NULL;
	char compatible[64];
	int r = hf_kho_fdt_to_json(data, size, &json, NULL);

	if (r == 0) {
		*ret_json = json;
		return 0;
	}
	json = json_object_new_object();
	if (!json)
		return -ENOMEM;
	json_object_object_add(json, "size", json_object_new_int64((int64_t)size));
	leading_string(data, size, compatible, sizeof(compatible));
	if (compatible[0])
		json_object_object_add(json, "compatible", json_object_new_string(compatible));
	add_known(json, name, data, size);
	json_object_object_add(json, "hex", hex_to_json(data, size));
	*ret_json = json;
	return 0;
}

int hf_kho_blob_compatible(const void *data, size_t size, char *ret, size_t room)
{
	cleanup_free void *fdt = copy_tree(data, size);
	const char *s = NULL;
	int len = 0;

	if (fdt)
		s = fdt_getprop(fdt, 0, "compatible", &len);
	if (s && len > 0)
		leading_string(s, (size_t)len, ret, room);
	else
		leading_string(data, size, ret, room);
	/* The kernel's file may end before the tree does; the root's compatible comes first. */
	s = ret[0] ? NULL : memmem(data, size, "kho-v", 5);
	if (s)
		leading_string(s, size - (size_t)(s - (const char *)data), ret, room);
	return ret[0] ? 0 : -ENOENT;
}

void hf_kho_blob_memfd(const void *data, size_t size, char *ret, size_t room)
{
	const char *s = memmem(data, size, "memfd-v", 7);

	ret[0] = 0;
	if (s)
		leading_string(s, size - (size_t)(s - (const char *)data), ret, room);
}
