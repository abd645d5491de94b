/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QEMU's migration stream, whole and in pieces: both must come to the same, and no page may
 * lie outside its block.
 */
#include <stdint.h>
#include <stdlib.h>
#include <xxhash.h>

#include "vmm-glue/ram-stream.h"

#define RAM_BYTES (1u << 20) /* as in the corpus, which has a guest's real stream */

struct outcome {
	XXH64_hash_t hash;
	uint64_t n_passed;
	int err;
};

static const struct hf_ram_stream_block wanted = {"pc.ram", RAM_BYTES};

static void mix(
	struct outcome *o, uint64_t kind, uint64_t offset, const uint8_t *bytes, size_t size)
{
	const uint64_t what[] = {o->hash, kind, offset};

	o->hash = XXH3_64bits_withSeed(bytes, size, XXH3_64bits(what, sizeof(what)));
}

static int on_page(void *data, size_t block, uint64_t offset, const uint8_t *bytes)
{
	if (block != 0 || offset % HF_RAM_STREAM_PAGE != 0 || offset >= RAM_BYTES)
		abort();
	mix(data, 1, offset, bytes, HF_RAM_STREAM_PAGE);
	return 0;
}

static int on_zero(void *data, size_t block, uint64_t offset)
{
	if (block != 0 || offset % HF_RAM_STREAM_PAGE != 0 || offset >= RAM_BYTES)
		abort();
	mix(data, 2, offset, NULL, 0);
	return 0;
}

/* Pieces may be cut anywhere, so they are taken byte by byte. */
static int on_pass(void *data, const uint8_t *bytes, size_t size)
{
	struct outcome *o = data;

	for (size_t i = 0; i < size; i++)
		mix(o, 3, 0, bytes + i, 1);
	o->n_passed += size;
	return 0;
}

static void run(const uint8_t *data, size_t size, size_t step, struct outcome *o)
{
	static const struct hf_ram_stream_ops ops = {
		.page = on_page, .zero = on_zero, .pass = on_pass};
	struct hf_ram_stream *s = NULL;
	struct hf_error e = {0};

	if (hf_ram_stream_new(&wanted, 1, &ops, o, &s) < 0)
		abort();
	for (size_t at = 0; at < size && o->err == 0; at += step)
		o->err = hf_ram_stream_feed(s, data + at, size - at < step ? size - at : step, &e);
	if (o->err == 0)
		o->err = hf_ram_stream_end(s, &e);
	if (o->err < 0 && !e.message[0])
		abort();
	hf_ram_stream_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole = {0}, pieces = {0};

	run(data, size, size ? size : 1, &whole);
	run(data, size, size ? data[size - 1] % 97 + 1 : 1, &pieces);
	if (whole.err != pieces.err || whole.hash != pieces.hash || whole.n_passed > size)
		abort();
	return 0;
}
