/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Fuzzes the Varlink framer and what stands behind it: JSON, strict fields, error decoding.
 *
 * The first byte chooses in which pieces the rest arrives. The messages must not depend on that:
 * the same bytes in one piece have to give the same messages and the same end.
 */
#include <stdint.h>
#include <string.h>

#include "common/varlink.h"

#define MESSAGE_LIMIT 4096
#define MAX_MESSAGES 64

struct outcome {
	int result; /* 0, or the error that ended it */
	size_t n;
	struct json_object *messages[MAX_MESSAGES];
};

static void check_fields(struct json_object *message)
{
	bool more = false;
	struct json_object *params = NULL;
	const char *method = NULL, *bad = NULL;
	const struct hf_json_field fields[] = {
		{"method", json_type_string, 0, &method},
		{"parameters", json_type_object, HF_JSON_OPTIONAL, &params},
		{"more", json_type_boolean, HF_JSON_OPTIONAL, &more},
		{0},
	};
	cleanup_json struct json_object *copy = json_object_new_object(), *back = NULL;
	const char *text;
	size_t size;

	if (hf_json_dispatch(message, fields, &bad) < 0) {
		if (!bad)
			__builtin_trap();
		return;
	}
	/* What was read can be sent on. */
	hf_json_add_string(copy, "method", method);
	if (params)
		hf_json_add(copy, "parameters", json_object_get(params));
	text = json_object_to_json_string_length(copy, JSON_C_TO_STRING_PLAIN, &size);
	if (hf_json_parse(text, size, HF_VARLINK_MAX_DEPTH + 1, &back) < 0)
		__builtin_trap();
	if (strcmp(hf_json_get_string(back, "method", ""), method) != 0)
		__builtin_trap();
}

static void run(struct outcome *o, const uint8_t *data, size_t size, size_t piece)
{
	struct hf_varlink_framer f = {.limit = MESSAGE_LIMIT};
	int r = 0;

	*o = (struct outcome){0};
	for (size_t at = 0; at < size && r == 0; at += piece) {
		struct json_object *m = NULL;

		r = hf_varlink_framer_push(&f, data + at, HF_MIN(piece, size - at));
		/* In many pieces, good messages before a bad one come out first. */
		while (o->n < MAX_MESSAGES && hf_varlink_framer_pop(&f, &m) == 1)
			o->messages[o->n++] = m;
		if (r == 0 && o->n < MAX_MESSAGES)
			r = hf_varlink_framer_pop(&f, &m);
		if (o->n == MAX_MESSAGES)
			break;
	}
	o->result = r;
	hf_varlink_framer_clear(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, pieces;

	if (size < 2)
		return 0;
	run(&whole, data + 1, size - 1, size);
	run(&pieces, data + 1, size - 1, (size_t)data[0] + 1);
	if (whole.n != pieces.n || whole.result != pieces.result)
		__builtin_trap();
	for (size_t i = 0; i < whole.n; i++) {
		if (!json_object_equal(whole.messages[i], pieces.messages[i]))
			__builtin_trap();
		check_fields(whole.messages[i]);
		json_object_put(whole.messages[i]);
		json_object_put(pieces.messages[i]);
	}
	return 0;
}
