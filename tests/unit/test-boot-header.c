/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Boot headers and EFI programs, whole, cut anywhere, and with offsets that lead astray. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "memfd-preserve/boot-header.h"
#include "tests/unit/kernel-sample.h"

static struct sample image(void)
{
	const struct sample_options o = {.noise = 1000};

	return sample_bzimage(HF_COMPRESSION_GZIP, &o);
}

static int parse(const struct sample *s, struct hf_boot_header *h, struct hf_error *e)
{
	return hf_boot_parse(s->data, HF_MIN(s->size, (size_t)HF_BOOT_HEAD_BYTES), s->size, h, e);
}

static void test_bzimage(void **state)
{
	struct sample s = image();
	struct hf_boot_header h;

	assert_true(hf_boot_is_bzimage(s.data, s.size));
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_int_equal(h.protocol, 0x020f);
	assert_true(h.loaded_high && h.kernel_64 && h.above_4g);
	assert_int_equal(h.image_bytes, s.size);
	assert_int_equal(h.payload_offset, SAMPLE_SETUP_BYTES + SAMPLE_PAYLOAD_OFFSET);
	assert_true(h.payload_bytes > 0 && h.payload_offset + h.payload_bytes <= s.size);
	assert_string_equal(h.version, SAMPLE_VERSION);

	/* How much room it needs, and where: of 2.10 only. */
	assert_int_equal(h.init_bytes, 0);
	sample_put32(s.data + 0x230, 2 << 20);
	sample_put32(s.data + 0x258, 16 << 20);
	sample_put32(s.data + 0x25c, 1);
	sample_put32(s.data + 0x260, 0xfff00000);
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_int_equal(h.init_bytes, 0xfff00000);
	assert_int_equal(h.alignment, 2 << 20);
	assert_int_equal(h.pref_address, (1ULL << 32) + (16 << 20));
	sample_put16(s.data + 0x206, 0x0209);
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_int_equal(h.init_bytes + h.alignment + h.pref_address, 0);

	/* Such flags are of 2.12 only. */
	sample_put16(s.data + 0x206, 0x020b);
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_false(h.kernel_64 || h.above_4g);
	sample_put16(s.data + 0x206, 0x020f);
	sample_put16(s.data + 0x236, 1);
	s.data[0x211] = 0;
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_true(h.kernel_64);
	assert_false(h.above_4g || h.loaded_high);
	/* 0 sectors of setup code mean 4, as it was when there was no such field. */
	s.data[0x1f1] = 0;
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_int_equal(h.payload_offset, SAMPLE_SETUP_BYTES + SAMPLE_PAYLOAD_OFFSET);
	sample_free(&s);
}

static void test_version(void **state)
{
	struct sample s = image();
	struct hf_boot_header h;

	sample_put16(s.data + 0x20e, 0);
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_string_equal(h.version, "");
	/* Outside of the setup code. */
	sample_put16(s.data + 0x20e, 0xffff);
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_string_equal(h.version, "");
	/* One that ends with the setup code, not with a NUL. */
	memset(s.data + 0x300, 'a', SAMPLE_SETUP_BYTES - 0x300);
	sample_put16(s.data + 0x20e, SAMPLE_SETUP_BYTES - 3 - 0x200);
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_string_equal(h.version, "aaa");
	/* One that is too long, and one that would drive a terminal. */
	sample_put16(s.data + 0x20e, 0x100);
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_int_equal(strlen(h.version), HF_BOOT_VERSION_BYTES - 1);
	memcpy(s.data + 0x300, "7.3\033[2J\377", 9);
	assert_int_equal(parse(&s, &h, NULL), 0);
	assert_string_equal(h.version, "7.3?[2J?");
	sample_free(&s);
}

static void test_offsets(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
	} bad[] = {
		{0x248, 0xffffffff}, /* payload far away */
		{0x24c, 0xffffffff}, /* payload too long */
		{0x24c, 0},	     /* none */
		{0x248, 1 << 20},    /* behind the image */
	};
	struct hf_boot_header h;
	struct hf_error e;

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		struct sample s = image();

		sample_put32(s.data + bad[i].at, bad[i].value);
		assert_int_equal(parse(&s, &h, &e), -EBADMSG);
		assert_non_null(strstr(e.message, "outside"));
		sample_free(&s);
	}
}

static void test_refused(void **state)
{
	struct sample s = image();
	struct hf_boot_header h;
	struct hf_error e;

	sample_put16(s.data + 0x206, 0x0207);
	assert_int_equal(parse(&s, &h, &e), -EBADMSG);
	assert_string_equal(e.message, "its boot protocol is 2.07, too old to look into");
	sample_put16(s.data + 0x206, 0x020f);
	/* Its header promises more than the file has. */
	sample_put32(s.data + 0x1f4, 0x10000);
	assert_int_equal(parse(&s, &h, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "it is cut"));
	assert_non_null(strstr(e.message, "should have 1051136"));
	s.data[0x202] = 'X';
	assert_false(hf_boot_is_bzimage(s.data, s.size));
	assert_int_equal(parse(&s, &h, &e), -EBADMSG);
	sample_free(&s);
}

static void test_pe(void **state)
{
	const struct sample_section sections[] = {
		{".osrel", "ID=x", 4}, {".cmdline", "quiet", 5}, {".linux", "kernel", 6}, {0}};
	struct sample s = sample_pe(sections);
	struct hf_pe_section found;
	struct hf_error e;

	assert_true(hf_pe_is(s.data, s.size));
	assert_int_equal(hf_pe_find(s.data, s.size, s.size, ".linux", &found, NULL), 0);
	assert_int_equal(found.bytes, 6);
	assert_memory_equal(s.data + found.offset, "kernel", 6);
	/* Eight characters have no NUL. */
	assert_int_equal(hf_pe_find(s.data, s.size, s.size, ".cmdline", &found, NULL), 0);
	assert_int_equal(found.bytes, 5);
	assert_int_equal(hf_pe_find(s.data, s.size, s.size, ".lin", &found, NULL), 0);
	assert_int_equal(found.bytes, 0);
	/* A file that ends before the section does. */
	assert_int_equal(hf_pe_find(s.data, 1024, s.size - 513, ".linux", &found, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "cut inside its section .linux"));
	sample_put16(s.data + 0x84, 0xaa64);
	assert_int_equal(hf_pe_find(s.data, s.size, s.size, ".linux", &found, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "another kind of machine"));
	sample_put16(s.data + 0x84, 0x8664);
	sample_put16(s.data + 0x86, 0xffff);
	assert_int_equal(hf_pe_find(s.data, s.size, s.size, ".linux", &found, &e), -EBADMSG);
	sample_put32(s.data + 0x3c, 0xfffffff0);
	assert_int_equal(hf_pe_find(s.data, s.size, s.size, ".linux", &found, &e), -EBADMSG);
	sample_free(&s);
}

/* Cut anywhere: refused, or nothing of it is read past its end. */
static void test_cut_anywhere(void **state)
{
	const struct sample_section sections[] = {{".linux", "kernel", 6}, {0}};
	struct sample pe = sample_pe(sections), bz = image();

	for (size_t n = 0; n < 1200; n++) {
		uint8_t *copy = malloc(n ? n : 1);
		struct hf_pe_section found;
		struct hf_boot_header h;

		assert_non_null(copy);
		memcpy(copy, bz.data, n);
		assert_int_equal(hf_boot_parse(copy, n, n, &h, NULL), -EBADMSG);
		/* The head may be all that was read of a longer file. */
		hf_boot_parse(copy, n, bz.size, &h, NULL);
		memcpy(copy, pe.data, HF_MIN(n, pe.size));
		if (n < 512)
			assert_int_equal(hf_pe_find(copy, n, n, ".linux", &found, NULL), -EBADMSG);
		hf_pe_find(copy, n, pe.size, ".linux", &found, NULL);
		free(copy);
	}
	sample_free(&pe);
	sample_free(&bz);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bzimage),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_offsets),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_pe),
		cmocka_unit_test(test_cut_anywhere),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
