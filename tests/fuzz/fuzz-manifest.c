/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The manifest reader on arbitrary bytes.
 *
 * Each input is read twice: as it is, and as a tree around which a sound envelope is put, because a
 * fuzzer doesn't guess checksums. What is accepted must encode, and decode to the same.
 */
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <json-c/json.h>

#include "memfd-preserve/manifest-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CAPACITY (4u << 20)

static void check_accepted(const struct hf_manifest *m)
{
	struct json_object *json = hf_manifest_to_json(m), *again;
	struct hf_manifest *back = NULL;
	uint8_t *buf = malloc(CAPACITY);
	size_t size;
	int r;

	if (!json || !buf)
		abort();
	r = hf_manifest_encode(m, buf, CAPACITY, &size, NULL);
	/* The inputs are small: there is room for all they can hold. */
	if (r == 0) {
		if (hf_manifest_decode(buf, size, &back, NULL) < 0)
			abort();
		/* Encode doesn't keep the versions of what was read. */
		back->version = m->version;
		back->min_reader_version = m->min_reader_version;
		again = hf_manifest_to_json(back);
		if (strcmp(json_object_to_json_string(json), json_object_to_json_string(again)) !=
			0)
			abort();
		json_object_put(again);
		hf_manifest_free(back);
	} else {
		abort();
	}
	json_object_put(json);
	free(buf);
}

static void decode(const uint8_t *data, size_t size)
{
	struct hf_manifest *m = NULL;
	struct hf_error e = {0};

	if (hf_manifest_decode(data, size, &m, &e) == 0) {
		check_accepted(m);
		hf_manifest_free(m);
	} else if (!e.err || !e.message[0]) {
		abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hf_manifest_header h = {
		.magic = {'H', 'O', 'L', 'D', 'F', 'A', 'S', 'T'},
		.format = htole32(HF_MANIFEST_FORMAT),
		.header_bytes = htole32(HF_MANIFEST_HEADER_BYTES),
		.tree_bytes = htole64(size),
	};
	uint8_t *sealed = malloc(sizeof(h) + size);

	decode(data, size);
	if (!sealed)
		return 0;
	memcpy(sealed, &h, sizeof(h));
	if (size > 0)
		memcpy(sealed + sizeof(h), data, size);
	h.xxh3 = htole64(XXH3_64bits(sealed, sizeof(h) + size));
	memcpy(sealed, &h, sizeof(h));
	decode(sealed, sizeof(h) + size);
	free(sealed);
	return 0;
}
