/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The scanner: whole strings only, the same however the bytes are cut into pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "memfd-preserve/kernel-scan.h"
#include "tests/unit/kernel-sample.h"

static struct hf_kernel_strings scan_in_pieces(const void *data, size_t size, size_t piece)
{
	struct hf_kernel_strings found = {0};
	struct hf_kernel_scan *scan = NULL;

	assert_int_equal(hf_kernel_scan_new(&scan), 0);
	for (size_t at = 0; at < size; at += piece) {
		size_t n = HF_MIN(piece, size - at);
		/* Exact size, so that a read past the end is past the allocation. */
		uint8_t *copy = malloc(n);

		assert_non_null(copy);
		memcpy(copy, (const uint8_t *)data + at, n);
		assert_int_equal(hf_kernel_scan_feed(scan, copy, n), 0);
		free(copy);
	}
	assert_int_equal(hf_kernel_scan_end(scan, &found), 0);
	hf_kernel_scan_free(scan);
	return found;
}

#define SCAN(literal) scan_in_pieces(literal, sizeof(literal) - 1, sizeof(literal))

static void test_whole_strings(void **state)
{
	struct hf_kernel_strings f = SCAN("\0kho-v4\0\377luo-v5\0\1\2memfd-v2\0\0");

	assert_int_equal(f.formats[HF_KERNEL_KHO].n, 1);
	assert_string_equal(f.formats[HF_KERNEL_KHO].names[0], "kho-v4");
	assert_int_equal(f.formats[HF_KERNEL_LUO].n, 1);
	assert_string_equal(f.formats[HF_KERNEL_LUO].names[0], "luo-v5");
	assert_int_equal(f.formats[HF_KERNEL_MEMFD].n, 1);
	assert_string_equal(f.formats[HF_KERNEL_MEMFD].names[0], "memfd-v2");
	assert_true(hf_kernel_formats_has(&f.formats[HF_KERNEL_LUO], "luo-v5"));
	assert_false(hf_kernel_formats_has(&f.formats[HF_KERNEL_LUO], "luo-v"));
	assert_string_equal(f.banner, "");
	assert_null(f.config_gz);

	/* At the very begin there is nothing before it; at the very end its NUL is the last. */
	f = SCAN("luo-v123456\0");
	assert_string_equal(f.formats[HF_KERNEL_LUO].names[0], "luo-v123456");
	f = scan_in_pieces("x", 0, 1);
	assert_int_equal(f.formats[HF_KERNEL_LUO].n, 0);
}

static void test_parts_of_others(void **state)
{
	static const char *const others[] = {"fluo-v5", "luo-v5a", "luo-v", "luo-v5-2", "my luo-v5",
		"text\nluo-v5", "text\tluo-v5", "luo-v5 ", "luo-v1234567", "LUO-v5", "luo-v05x",
		"luo-luo-v", "test-luo-v1"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(others); i++) {
		struct hf_kernel_strings f = scan_in_pieces(others[i], strlen(others[i]) + 1, 1000);

		if (f.formats[HF_KERNEL_LUO].n != 0)
			fail_msg("found in `%s`", others[i]);
	}
	/* Without its NUL it is not whole. */
	assert_int_equal(scan_in_pieces("luo-v5", 6, 6).formats[HF_KERNEL_LUO].n, 0);
}

static void test_several(void **state)
{
	struct hf_kernel_strings f = SCAN("\0luo-v5\0luo-v4\0luo-v5\0");

	assert_int_equal(f.formats[HF_KERNEL_LUO].n, 2);
	assert_string_equal(f.formats[HF_KERNEL_LUO].names[0], "luo-v5");
	assert_string_equal(f.formats[HF_KERNEL_LUO].names[1], "luo-v4");
	f = SCAN("\0luo-v1\0luo-v2\0luo-v3\0luo-v4\0luo-v5\0luo-v6\0");
	assert_int_equal(f.formats[HF_KERNEL_LUO].n, HF_KERNEL_MAX_FORMATS);
}

static void test_banner(void **state)
{
	char text[2000];
	struct hf_kernel_strings f = SCAN("\0Linux version 7.3.4 (a@b) # SMP \n\0Linux version "
					  "7.3.4 (a@b) #1 SMP Sat\n\0Linux version %s\0");

	assert_string_equal(f.banner, "Linux version 7.3.4 (a@b) #1 SMP Sat");
	assert_string_equal(SCAN("Linux version ").banner, "");
	assert_string_equal(SCAN("Linux version 7").banner, "Linux version 7");
	/* One that never ends is cut. */
	memset(text, 'x', sizeof(text));
	memcpy(text, "Linux version 7", 15);
	f = scan_in_pieces(text, sizeof(text), 100);
	assert_int_equal(strlen(f.banner), HF_KERNEL_BANNER_BYTES - 1);
}

static void expect_same(const struct hf_kernel_strings *a, const struct hf_kernel_strings *b)
{
	assert_memory_equal(a->formats, b->formats, sizeof(a->formats));
	assert_string_equal(a->banner, b->banner);
	assert_int_equal(a->config_gz_bytes, b->config_gz_bytes);
	if (a->config_gz_bytes > 0)
		assert_memory_equal(a->config_gz, b->config_gz, a->config_gz_bytes);
}

/* Every piece of a kernel, and every place that a window may end at. */
static void test_pieces(void **state)
{
	const struct sample_options o = {
		"kho-v4", "luo-v5", "memfd-v2", "CONFIG_TUN=y\nCONFIG_BRIDGE=m\n", .noise = 700};
	struct sample s = sample_vmlinux(&o);
	struct hf_kernel_strings want = scan_in_pieces(s.data, s.size, s.size);

	assert_int_equal(want.formats[HF_KERNEL_MEMFD].n, 1);
	assert_string_equal(want.banner, SAMPLE_BANNER);
	assert_true(want.config_gz_bytes > 20);
	assert_memory_equal(want.config_gz, "\37\213\10", 3);
	for (size_t piece = 1; piece < s.size; piece += piece < 40 ? 1 : 97) {
		struct hf_kernel_strings f = scan_in_pieces(s.data, s.size, piece);

		expect_same(&f, &want);
		free(f.config_gz);
	}
	for (size_t shift = 63000; shift < 66500; shift += 61) {
		struct sample t = {0};
		struct hf_kernel_strings f;

		sample_add_noise(&t, shift);
		sample_add(&t, s.data, s.size);
		f = scan_in_pieces(t.data, t.size, 128 * 1024);
		expect_same(&f, &want);
		free(f.config_gz);
		sample_free(&t);
	}
	free(want.config_gz);
	sample_free(&s);
}

static void test_config_marks(void **state)
{
	struct hf_kernel_strings f = SCAN("IKCFG_ST\37\213\10abcIKCFG_ED");
	struct sample s = {0};

	assert_int_equal(f.config_gz_bytes, 6);
	assert_memory_equal(f.config_gz, "\37\213\10abc", 6);
	free(f.config_gz);
	/* The words alone are not it; neither is one without an end. */
	f = SCAN("IKCFG_ST IKCFG_ED IKCFG_ST\37\213\10abIKCFG_ED");
	assert_int_equal(f.config_gz_bytes, 5);
	free(f.config_gz);
	assert_null(SCAN("IKCFG_ED IKCFG_ST\37\213\10ab").config_gz);

	/* Strings inside of what looks like one are found all the same, and one that never ends is
	 * given up at its limit: then another may come. */
	sample_add(&s, "IKCFG_ST\37\213\10", 11);
	sample_add_noise(&s, 10);
	sample_add_string(&s, "\1luo-v5");
	sample_add_noise(&s, HF_KERNEL_MAX_CONFIG_GZ_BYTES);
	sample_add(&s, "IKCFG_ST\37\213\10xyIKCFG_ED", 21);
	f = scan_in_pieces(s.data, s.size, 128 * 1024);
	assert_int_equal(f.formats[HF_KERNEL_LUO].n, 1);
	assert_int_equal(f.config_gz_bytes, 5);
	assert_memory_equal(f.config_gz, "\37\213\10xy", 5);
	free(f.config_gz);
	sample_free(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_strings),
		cmocka_unit_test(test_parts_of_others),
		cmocka_unit_test(test_several),
		cmocka_unit_test(test_banner),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_config_marks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
