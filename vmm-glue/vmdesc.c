/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/vmdesc.h"

#include <endian.h>
#include <string.h>

#include "common/json.h"

/* Bytes that begin and end things in a stream, as QEMU has had them since 2.4. */
#define BYTE_FULL 0x04 /* a section with all of a device */
#define BYTE_DESCRIPTION 0x06
#define BYTE_FOOTER 0x7e

#define FOOTER_BYTES 5 /* its byte, the section's id */
#define HEADER_BYTES(name_len) (1 + 4 + 1 + (name_len) + 4 + 4)
#define SUBSECTION_BYTES(name_len) (1 + 1 + (name_len) + 4)

#define MAX_JSON_DEPTH 64
#define MAX_NESTING 16 /* of subsections */
#define MAX_NAME 255

struct hf_vmdesc {
	const uint8_t *stream;
	size_t size; /* up to the description */
	struct json_object *root;
	struct json_object *devices;
};

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

static void put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

/* Where the description's text begins. Its length says that it goes to the end of the stream. */
static const uint8_t *find_text(const uint8_t *stream, size_t size, size_t *ret_size)
{
	size_t most = HF_MIN(size, (size_t)HF_VMDESC_MAX_BYTES);

	/* From the end: the text itself has no such byte. */
	for (size_t n = 2; n + FOOTER_BYTES <= most; n++) {
		const uint8_t *text = stream + size - n;

		if (text[0] == '{' && text[-5] == BYTE_DESCRIPTION && get32(text - 4) == n) {
			*ret_size = n;
			return text;
		}
	}
	return NULL;
}

int hf_vmdesc_parse(const void *stream, size_t size, struct hf_vmdesc **ret)
{
	cleanup_vmdesc struct hf_vmdesc *d = NULL;
	const uint8_t *text;
	size_t text_size;
	int r;

	text = find_text(stream, size, &text_size);
	if (!text)
		return -ENODATA;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	r = hf_json_parse(text, text_size, MAX_JSON_DEPTH, &d->root);
	if (r < 0)
		return r;
	d->stream = stream;
	d->size = (size_t)(text - d->stream) - FOOTER_BYTES;
	d->devices = hf_json_get_array(d->root, "devices");
	if (!d->devices || hf_json_array_size(d->devices) > HF_VMDESC_MAX_DEVICES)
		return -EBADMSG;
	*ret = TAKE_PTR(d);
	return 0;
}

void hf_vmdesc_free(struct hf_vmdesc *d)
{
	if (!d)
		return;
	json_object_put(d->root);
	free(d);
}

static struct json_object *nth_device(const struct hf_vmdesc *d, const char *name, size_t nth)
{
	for (size_t i = 0; i < hf_json_array_size(d->devices); i++) {
		struct json_object *device = json_object_array_get_idx(d->devices, i);

		if (strcmp(hf_json_get_string(device, "name", ""), name) == 0 && nth-- == 0)
			return device;
	}
	return NULL;
}

size_t hf_vmdesc_count(const struct hf_vmdesc *d, const char *device)
{
	size_t n = 0;

	for (size_t i = 0; i < hf_json_array_size(d->devices); i++)
		n += strcmp(hf_json_get_string(
				    json_object_array_get_idx(d->devices, i), "name", ""),
			     device) == 0;
	return n;
}

/* ---- sizes ---- */

/* One element of a field, and how many there are. */
static int measure(struct json_object *field, size_t *ret_size, size_t *ret_n)
{
	int64_t size = hf_json_get_int(field, "size", -1);
	int64_t n = hf_json_get_int(field, "array_len", 1);

	if (size < 0 || n < 0 || size > UINT32_MAX || n > UINT32_MAX)
		return -EBADMSG;
	*ret_size = (size_t)size;
	*ret_n = (size_t)n;
	return 0;
}

static int add_size(size_t *sum, size_t size, size_t n)
{
	size_t bytes;

	if (__builtin_mul_overflow(size, n, &bytes) || __builtin_add_overflow(*sum, bytes, sum))
		return -EBADMSG;
	return 0;
}

/* All fields of a device, and the subsections behind them. */
static int contents_size(struct json_object *described, unsigned int nesting, size_t *sum)
{
	struct json_object *fields = hf_json_get_array(described, "fields");
	struct json_object *subsections = hf_json_get_array(described, "subsections");
	int r = nesting < MAX_NESTING ? 0 : -EBADMSG;

	for (size_t i = 0; r == 0 && i < hf_json_array_size(fields); i++) {
		size_t size, n;

		r = measure(json_object_array_get_idx(fields, i), &size, &n);
		if (r == 0)
			r = add_size(sum, size, n);
	}
	for (size_t i = 0; r == 0 && i < hf_json_array_size(subsections); i++) {
		struct json_object *sub = json_object_array_get_idx(subsections, i);

		r = add_size(
			sum, SUBSECTION_BYTES(strlen(hf_json_get_string(sub, "vmsd_name", ""))), 1);
		if (r == 0)
			r = contents_size(sub, nesting + 1, sum);
	}
	return r;
}

/* ---- finding ---- */

/* The part of a section's header behind its id. */
static int make_header(struct json_object *device, const char *name, uint8_t *buf, size_t *ret_size)
{
	int64_t instance = hf_json_get_int(device, "instance_id", -1);
	int64_t version = hf_json_get_int(device, "version", -1);
	size_t len = strlen(name);

	if (len > MAX_NAME || instance < 0 || instance > UINT32_MAX || version < 0 ||
		version > UINT32_MAX)
		return -EBADMSG;
	buf[0] = (uint8_t)len;
	memcpy(buf + 1, name, len);
	put32(buf + 1 + len, (uint32_t)instance);
	put32(buf + 1 + len + 4, (uint32_t)version);
	*ret_size = 1 + len + 8;
	return 0;
}

static bool is_section(const struct hf_vmdesc *d, const uint8_t *data, size_t name_len, size_t size)
{
	size_t at = (size_t)(data - d->stream), header = HEADER_BYTES(name_len);
	const uint8_t *begin;

	if (at < header || size > d->size - at || d->size - at - size < FOOTER_BYTES)
		return false;
	begin = data - header;
	return begin[0] == BYTE_FULL && data[size] == BYTE_FOOTER &&
	       memcmp(begin + 1, data + size + 1, 4) == 0;
}

int hf_vmdesc_find(
	const struct hf_vmdesc *d, const char *name, size_t nth, struct hf_vmdesc_section *ret)
{
	struct json_object *device = nth_device(d, name, nth);
	uint8_t header[1 + MAX_NAME + 8];
	const uint8_t *p, *end = d->stream + d->size, *found = NULL;
	size_t header_size, size = 0;
	int r;

	if (!device)
		return -ENOENT;
	r = make_header(device, name, header, &header_size);
	if (r == 0)
		r = contents_size(device, 0, &size);
	if (r < 0)
		return r;
	for (p = d->stream; (p = memmem(p, (size_t)(end - p), header, header_size)); p++) {
		if (!is_section(d, p + header_size, strlen(name), size))
			continue;
		if (found)
			return -ENOTUNIQ;
		found = p + header_size;
	}
	if (!found)
		return -ENOENT;
	*ret = (struct hf_vmdesc_section){
		.data = found,
		.size = size,
		.fields = hf_json_get_array(device, "fields"),
	};
	return 0;
}

/* ---- fields ---- */

/* An element of a field in a list of them: where it is from the list's beginning. */
static int locate(struct json_object *fields, const char *name, size_t index, size_t *ret_at,
	size_t *ret_size, struct json_object **ret_field)
{
	size_t at = 0;

	for (size_t i = 0; i < hf_json_array_size(fields); i++) {
		struct json_object *field = json_object_array_get_idx(fields, i);
		/* Elements that differ are described one by one. */
		int64_t first = hf_json_get_int(field, "index", 0);
		size_t size, n;

		if (measure(field, &size, &n) < 0 || first < 0)
			return -EBADMSG;
		if (strcmp(hf_json_get_string(field, "name", ""), name) == 0 &&
			index >= (size_t)first && index - (size_t)first < n) {
			*ret_field = field;
			*ret_size = size;
			*ret_at = at;
			return add_size(ret_at, size, index - (size_t)first);
		}
		if (add_size(&at, size, n) < 0)
			return -EBADMSG;
	}
	return -ENOENT;
}

static int field_bytes(const struct hf_vmdesc_section *s, const char *name, size_t index,
	const uint8_t **ret, size_t *ret_size, struct json_object **ret_field)
{
	size_t at, size;
	int r = locate(s->fields, name, index, &at, &size, ret_field);

	if (r < 0)
		return r;
	if (at > s->size || size > s->size - at)
		return -EBADMSG;
	*ret = s->data + at;
	*ret_size = size;
	return 0;
}

int hf_vmdesc_bytes(const struct hf_vmdesc_section *s, const char *name, size_t index,
	const uint8_t **ret, size_t *ret_size)
{
	struct json_object *field;

	return field_bytes(s, name, index, ret, ret_size, &field);
}

static int to_number(const uint8_t *p, size_t size, uint64_t *ret)
{
	uint64_t v = 0;

	if (size != 1 && size != 2 && size != 4 && size != 8)
		return -EBADMSG;
	for (size_t i = 0; i < size; i++)
		v = v << 8 | p[i];
	*ret = v;
	return 0;
}

int hf_vmdesc_number(const struct hf_vmdesc_section *s, const char *name, size_t index,
	const char *member, uint64_t *ret)
{
	struct hf_vmdesc_section inner = {0};
	struct json_object *field;
	const uint8_t *p;
	size_t size;
	int r = field_bytes(s, name, index, &p, &size, &field);

	if (r == 0 && member) {
		inner.data = p;
		inner.size = size;
		inner.fields = hf_json_get_array(hf_json_get_object(field, "struct"), "fields");
		r = field_bytes(&inner, member, 0, &p, &size, &field);
	}
	return r < 0 ? r : to_number(p, size, ret);
}
