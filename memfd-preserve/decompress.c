/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/decompress.h"

#include <string.h>

#include "memfd-preserve/decompress-internal.h"

#define IN_BYTES (64 * 1024)
#define OUT_BYTES (128 * 1024)

static int copy_step(void *state, struct hf_codec_io *io, bool *ret_end)
{
	size_t n = HF_MIN(io->in_size, io->out_room);

	memcpy(io->out, io->in, n);
	io->in += n;
	io->in_size -= n;
	io->out += n;
	io->out_room -= n;
	*ret_end = io->in_ends && io->in_size == 0;
	return 0;
}

static const struct hf_codec codec_none = {.step = copy_step};

/* Magics: lib/decompress.c of Linux, and those of ELF. */
static const struct format {
	const char *name;
	const char *magic;
	size_t magic_bytes;
	const struct hf_codec *codec;
} formats[] = {
	[HF_COMPRESSION_UNKNOWN] = {"unknown", NULL, 0, NULL},
	[HF_COMPRESSION_NONE] = {"none", "\177ELF", 4, &codec_none},
	[HF_COMPRESSION_GZIP] = {"gzip", "\037\213", 2, &hf_codec_gzip},
	[HF_COMPRESSION_BZIP2] = {"bzip2", "BZh", 3, &hf_codec_bzip2},
	[HF_COMPRESSION_LZMA] = {"lzma", "\135\0\0", 3, &hf_codec_lzma},
	[HF_COMPRESSION_XZ] = {"xz", "\3757zXZ\0", 6, &hf_codec_xz},
	[HF_COMPRESSION_LZO] = {"lzo", "\211LZO", 4, NULL},
	[HF_COMPRESSION_LZ4] = {"lz4", "\002\041\114\030", 4, &hf_codec_lz4},
	[HF_COMPRESSION_ZSTD] = {"zstd", "\050\265\057\375", 4, &hf_codec_zstd},
};

const char *hf_compression_name(enum hf_compression c)
{
	return formats[c].name;
}

bool hf_compression_can(enum hf_compression c)
{
	return formats[c].codec != NULL;
}

enum hf_compression hf_compression_detect(const void *head, size_t size)
{
	for (size_t i = HF_COMPRESSION_NONE; i < HF_ARRAY_SIZE(formats); i++) {
		if (size >= formats[i].magic_bytes &&
			memcmp(head, formats[i].magic, formats[i].magic_bytes) == 0)
			return (enum hf_compression)i;
	}
	return HF_COMPRESSION_UNKNOWN;
}

/* One stream while it is unpacked. */
struct run {
	const struct hf_decompress *d;
	const struct hf_codec *codec;
	void *state;
	struct hf_codec_io io;
	uint8_t *in;
	uint8_t *out;
	uint64_t total;
};

static int refill(struct run *run, struct hf_error *e)
{
	ssize_t n;

	if (run->io.in_size > 0 || run->io.in_ends)
		return 0;
	n = run->d->read(run->in, IN_BYTES, run->d->data);
	if (n < 0)
		return hf_error_set(
			e, (int)n, HF_ERR_FAILED, NULL, "can't be read: %s", strerror((int)-n));
	run->io.in = run->in;
	run->io.in_size = (size_t)n;
	run->io.in_ends = n == 0;
	return 0;
}

static int deliver(struct run *run, size_t size, struct hf_error *e)
{
	int r;

	if (size > run->d->max_bytes - run->total)
		return hf_error_set(e, -EFBIG, HF_ERR_FAILED, NULL,
			"it unpacks to more than %llu bytes",
			(unsigned long long)run->d->max_bytes);
	run->total += size;
	r = size > 0 ? run->d->write(run->out, size, run->d->data) : 0;
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "stopped: %s", strerror(-r));
	return 0;
}

static int step_error(const struct run *run, int r, struct hf_error *e)
{
	const char *name = hf_compression_name(run->d->format);

	if (r == -ENOMEM)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "out of memory");
	if (r == -E2BIG)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL,
			"unpacking its %s data needs more than %llu MiB", name,
			HF_CODEC_MAX_MEMORY_BYTES >> 20);
	return hf_error_set(e, r, HF_ERR_FAILED, NULL, "its %s data is corrupt", name);
}

static int unpack(struct run *run, struct hf_error *e)
{
	struct hf_codec_io *io = &run->io;
	bool end = false;
	int r = 0;

	while (r == 0 && !end) {
		size_t before, produced;

		r = refill(run, e);
		if (r < 0)
			return r;
		before = io->in_size;
		io->out = run->out;
		io->out_room = OUT_BYTES;
		r = run->codec->step(run->state, io, &end);
		if (r < 0)
			return step_error(run, r, e);
		produced = OUT_BYTES - io->out_room;
		r = deliver(run, produced, e);
		if (r == 0 && !end && produced == 0 && io->in_size == before &&
			(before > 0 || io->in_ends))
			return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL, "its %s data is %s",
				hf_compression_name(run->d->format),
				io->in_ends ? "cut" : "corrupt");
	}
	return r;
}

int hf_decompress_run(const struct hf_decompress *d, uint64_t *ret_bytes, struct hf_error *e)
{
	cleanup_free uint8_t *in = malloc(IN_BYTES), *out = malloc(OUT_BYTES);
	struct run run = {.d = d, .codec = formats[d->format].codec, .in = in, .out = out};
	int r = 0;

	if (!run.codec)
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_FAILED, NULL,
			d->format == HF_COMPRESSION_UNKNOWN
				? "it is packed in an unknown way"
				: "it is packed with %s, which can't be unpacked here",
			hf_compression_name(d->format));
	if (!in || !out)
		r = -ENOMEM;
	if (r == 0 && run.codec->open)
		r = run.codec->open(&run.state);
	if (r < 0)
		return step_error(&run, r, e);
	r = unpack(&run, e);
	if (run.codec->close)
		run.codec->close(run.state);
	if (r == 0)
		*ret_bytes = run.total;
	return r;
}
