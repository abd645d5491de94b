/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Unpacking: every format, in pieces of every size, cut, corrupt, and without an end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "memfd-preserve/decompress.h"
#include "tests/unit/kernel-sample.h"

static const enum hf_compression packed[] = {HF_COMPRESSION_GZIP, HF_COMPRESSION_BZIP2,
	HF_COMPRESSION_LZMA, HF_COMPRESSION_XZ, HF_COMPRESSION_LZ4, HF_COMPRESSION_ZSTD};

/* Gives bytes in pieces, and compares what comes out. */
struct pipe {
	const uint8_t *in;
	size_t left;
	size_t piece;
	int fail_read, fail_write;
	const struct sample *want;
	size_t got;
	bool differs;
};

static ssize_t give(void *buf, size_t room, void *data)
{
	struct pipe *p = data;
	size_t n = HF_MIN(HF_MIN(p->piece, room), p->left);

	if (p->fail_read)
		return p->fail_read;
	if (n == 0)
		return 0;
	memcpy(buf, p->in, n);
	p->in += n;
	p->left -= n;
	return (ssize_t)n;
}

static int take(const void *bytes, size_t size, void *data)
{
	struct pipe *p = data;

	assert_true(size > 0);
	if (p->want &&
		(p->got + size > p->want->size || memcmp(p->want->data + p->got, bytes, size) != 0))
		p->differs = true;
	p->got += size;
	return p->fail_write;
}

static int unpack(enum hf_compression c, struct pipe *p, uint64_t max, struct hf_error *e)
{
	const struct hf_decompress d = {
		.format = c, .max_bytes = max, .read = give, .write = take, .data = p};
	uint64_t n = 12345;
	int r = hf_decompress_run(&d, &n, e);

	if (r == 0)
		assert_int_equal(n, p->got);
	else
		assert_int_equal(n, 12345);
	return r;
}

static struct sample some_data(void)
{
	const struct sample_options o = {.noise = 100 * 1024};

	return sample_vmlinux(&o);
}

static void test_every_format(void **state)
{
	static const size_t pieces[] = {1, 7, 4096, 1 << 20};
	struct sample data = some_data();

	for (size_t i = 0; i < HF_ARRAY_SIZE(packed); i++) {
		struct sample s = sample_pack(packed[i], &data);

		assert_int_equal(hf_compression_detect(s.data, s.size), packed[i]);
		for (size_t k = 0; k < HF_ARRAY_SIZE(pieces); k++) {
			struct pipe p = {
				.in = s.data, .left = s.size, .piece = pieces[k], .want = &data};

			assert_int_equal(unpack(packed[i], &p, data.size, NULL), 0);
			assert_int_equal(p.got, data.size);
			assert_false(p.differs);
		}
		sample_free(&s);
	}
	sample_free(&data);
}

static void test_not_packed(void **state)
{
	struct sample data = some_data();
	struct pipe p = {.in = data.data, .left = data.size, .piece = 1000, .want = &data};
	struct pipe empty = {0};

	assert_int_equal(hf_compression_detect(data.data, data.size), HF_COMPRESSION_NONE);
	assert_int_equal(unpack(HF_COMPRESSION_NONE, &p, data.size, NULL), 0);
	assert_int_equal(p.got, data.size);
	assert_false(p.differs);
	assert_int_equal(unpack(HF_COMPRESSION_NONE, &empty, 0, NULL), 0);
	sample_free(&data);
}

/* Cut anywhere, a stream must neither succeed nor hang; it may deliver its first part. */
static void test_cut(void **state)
{
	struct sample data = {0};
	struct hf_error e;

	sample_add_noise(&data, 3000);
	for (size_t i = 0; i < HF_ARRAY_SIZE(packed); i++) {
		struct sample s = sample_pack(packed[i], &data);

		for (size_t n = 0; n < s.size; n++) {
			struct pipe p = {.in = s.data, .left = n, .piece = 512, .want = &data};

			/* What lz4 writes has no end: a frame without blocks is whole. */
			if (packed[i] == HF_COMPRESSION_LZ4 && n == 4)
				continue;
			assert_int_equal(unpack(packed[i], &p, data.size, &e), -EBADMSG);
			assert_false(p.differs);
			assert_non_null(strstr(e.message, hf_compression_name(packed[i])));
		}
		sample_free(&s);
	}
	sample_free(&data);
}

static void test_corrupt(void **state)
{
	static const uint8_t other[] = "\177ELF\2\1\1 and so on, and on";
	struct sample data = some_data();

	for (size_t i = 0; i < HF_ARRAY_SIZE(packed); i++) {
		struct sample s = sample_pack(packed[i], &data);
		struct pipe p = {.in = s.data, .left = s.size, .piece = 1 << 20};
		struct pipe none = {.in = other, .left = sizeof(other), .piece = 64};
		struct hf_error e;

		memset(s.data + s.size / 2, 0xff, s.size / 4);
		/* The noise is stored as it is, and lz4 has no checksum: its structure has to
		 * break. */
		if (packed[i] == HF_COMPRESSION_LZ4)
			s.data[4]--;
		assert_int_equal(unpack(packed[i], &p, data.size * 4, &e), -EBADMSG);
		assert_int_equal(unpack(packed[i], &none, 1 << 20, &e), -EBADMSG);
		sample_free(&s);
	}
	sample_free(&data);
}

/* Nothing beyond the limit is delivered, however much there would be. */
static void test_bombs(void **state)
{
	const size_t size = 24 << 20, limit = 1 << 20;
	struct sample zeros = {.data = calloc(1, size), .size = size};
	struct hf_error e;

	assert_non_null(zeros.data);
	for (size_t i = 0; i < HF_ARRAY_SIZE(packed); i++) {
		struct sample s = sample_pack(packed[i], &zeros);
		struct pipe p = {.in = s.data, .left = s.size, .piece = 1 << 20, .want = &zeros};

		assert_int_equal(unpack(packed[i], &p, limit, &e), -EFBIG);
		assert_true(p.got <= limit);
		assert_non_null(strstr(e.message, "more than 1048576 bytes"));
		/* To the byte. */
		p = (struct pipe){.in = s.data, .left = s.size, .piece = 999, .want = &zeros};
		assert_int_equal(unpack(packed[i], &p, size - 1, &e), -EFBIG);
		p = (struct pipe){.in = s.data, .left = s.size, .piece = 1 << 20, .want = &zeros};
		assert_int_equal(unpack(packed[i], &p, size, &e), 0);
		assert_false(p.differs);
		sample_free(&s);
	}
	sample_free(&zeros);
}

/* A header that wants gigabytes for its dictionary gets an answer, and no gigabytes. */
static void test_greedy(void **state)
{
	/* lzma: properties, a dictionary of 4 GiB - 1, unknown size. */
	static const uint8_t lzma[] = {0x5d, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0};
	/* zstd: a window of 2 GiB. */
	static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00};
	struct pipe p = {.in = lzma, .left = sizeof(lzma), .piece = 64};
	struct hf_error e;

	assert_int_equal(unpack(HF_COMPRESSION_LZMA, &p, 1 << 20, &e), -E2BIG);
	assert_non_null(strstr(e.message, "lzma data needs more than 160 MiB"));
	p = (struct pipe){.in = zstd, .left = sizeof(zstd), .piece = 64};
	assert_int_equal(unpack(HF_COMPRESSION_ZSTD, &p, 1 << 20, &e), -E2BIG);
}

static void test_lz4_frames(void **state)
{
	static const uint8_t too_long[] = {0x02, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0x7f, 0, 0};
	static const uint8_t no_magic[] = {4, 0, 0, 0, 0x40, 'a', 'b', 'c', 'd'};
	struct sample data = {0}, s, twice = {0}, want = {0};
	struct pipe p = {.in = too_long, .left = sizeof(too_long), .piece = 64};

	assert_int_equal(unpack(HF_COMPRESSION_LZ4, &p, 1 << 20, NULL), -EBADMSG);
	p = (struct pipe){.in = no_magic, .left = sizeof(no_magic), .piece = 64};
	assert_int_equal(unpack(HF_COMPRESSION_LZ4, &p, 1 << 20, NULL), -EBADMSG);

	/* A frame behind a frame goes on; a size of 0 ends it, whatever follows. */
	sample_add_noise(&data, 5000);
	s = sample_pack(HF_COMPRESSION_LZ4, &data);
	sample_add(&twice, s.data, s.size);
	sample_add(&twice, s.data, s.size);
	sample_add(&want, data.data, data.size);
	sample_add(&want, data.data, data.size);
	p = (struct pipe){.in = twice.data, .left = twice.size, .piece = 100, .want = &want};
	assert_int_equal(unpack(HF_COMPRESSION_LZ4, &p, 1 << 20, NULL), 0);
	assert_int_equal(p.got, want.size);
	assert_false(p.differs);
	sample_add_u32(&s, 0);
	sample_add(&s, "rest", 4);
	p = (struct pipe){.in = s.data, .left = s.size, .piece = 100, .want = &data};
	assert_int_equal(unpack(HF_COMPRESSION_LZ4, &p, 1 << 20, NULL), 0);
	assert_int_equal(p.got, data.size);
	sample_free(&data);
	sample_free(&s);
	sample_free(&twice);
	sample_free(&want);
}

static void test_refused_by_name(void **state)
{
	static const uint8_t lzo[] = {0x89, 'L', 'Z', 'O', 0, 13, 10, 26, 10};
	struct pipe p = {.in = lzo, .left = sizeof(lzo), .piece = 64};
	struct hf_error e;

	assert_int_equal(hf_compression_detect(lzo, sizeof(lzo)), HF_COMPRESSION_LZO);
	assert_int_equal(unpack(HF_COMPRESSION_LZO, &p, 1 << 20, &e), -EOPNOTSUPP);
	assert_string_equal(e.message, "it is packed with lzo, which can't be unpacked here");
	assert_int_equal(hf_compression_detect("hello", 5), HF_COMPRESSION_UNKNOWN);
	assert_int_equal(hf_compression_detect("\37", 1), HF_COMPRESSION_UNKNOWN);
	assert_int_equal(unpack(HF_COMPRESSION_UNKNOWN, &p, 1 << 20, &e), -EOPNOTSUPP);
	assert_non_null(strstr(e.message, "unknown"));
}

static void test_callbacks_that_fail(void **state)
{
	struct sample data = some_data();
	struct hf_error e;

	for (size_t i = 0; i < HF_ARRAY_SIZE(packed); i++) {
		struct sample s = sample_pack(packed[i], &data);
		struct pipe p = {.in = s.data, .left = s.size, .piece = 64, .fail_read = -EIO};

		assert_int_equal(unpack(packed[i], &p, data.size, &e), -EIO);
		assert_int_equal(p.got, 0);
		p = (struct pipe){
			.in = s.data, .left = s.size, .piece = 1 << 20, .fail_write = -ENOMEM};
		assert_int_equal(unpack(packed[i], &p, data.size, &e), -ENOMEM);
		sample_free(&s);
	}
	sample_free(&data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_format),
		cmocka_unit_test(test_not_packed),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_corrupt),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_greedy),
		cmocka_unit_test(test_lz4_frames),
		cmocka_unit_test(test_refused_by_name),
		cmocka_unit_test(test_callbacks_that_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
