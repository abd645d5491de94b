/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Fuzzes the QMP framer, and holds it to its promise that how a stream is cut doesn't matter.
 *
 * The first byte is the size of the pieces, the rest is the stream. It is pushed whole, byte by
 * byte and in pieces: messages and the error at the end must be the same.
 */
#include <json-c/json.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qmp/framer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct verdict {
	int err;
	unsigned int n_messages;
	uint64_t hash;
};

static void take_all(struct hf_qmp_framer *f, struct verdict *v)
{
	struct json_object *obj;
	const char *s;
	int r;

	while ((r = hf_qmp_framer_next(f, &obj)) > 0) {
		if (!json_object_is_type(obj, json_type_object))
			abort();
		for (s = json_object_to_json_string(obj); *s; s++)
			v->hash = (v->hash ^ (uint8_t)*s) * 0x100000001b3ull;
		v->n_messages++;
		json_object_put(obj);
	}
	v->err = r;
}

static struct verdict run(const uint8_t *data, size_t size, size_t piece)
{
	const struct hf_qmp_limits limits = {.message_bytes = 512, .depth = 8, .values = 32};
	struct verdict v = {0};
	struct hf_qmp_framer *f;

	if (hf_qmp_framer_new(&limits, &f) < 0)
		abort();
	while (size && v.err >= 0) {
		size_t n = size < piece ? size : piece;

		if (hf_qmp_framer_push(f, data, n) < 0)
			abort();
		take_all(f, &v);
		data += n;
		size -= n;
	}
	hf_qmp_framer_free(f);
	return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct verdict whole, bytes, pieces;

	if (size < 2)
		return 0;
	whole = run(data + 1, size - 1, size);
	bytes = run(data + 1, size - 1, 1);
	pieces = run(data + 1, size - 1, (size_t)data[0] + 1);
	if (whole.err != bytes.err || whole.n_messages != bytes.n_messages ||
		whole.hash != bytes.hash)
		abort();
	if (whole.err != pieces.err || whole.n_messages != pieces.n_messages ||
		whole.hash != pieces.hash)
		abort();
	return 0;
}
