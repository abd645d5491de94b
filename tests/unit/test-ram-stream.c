/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The parser of QEMU's migration stream: what it takes out, what it passes on, what it
 * refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/ram-stream-sample.h"
#include "vmm-glue/ram-stream.h"

#define PAGES 4
#define RAM_BYTES (PAGES * 4096)

struct result {
	uint8_t ram[2][RAM_BYTES];
	uint8_t passed[1 << 20];
	size_t n_passed;
	size_t n_pages, n_zeros;
	int fail_with; /* the next page */
};

static const struct hf_ram_stream_block wanted[] = {{"pc.ram", RAM_BYTES}, {"m1", RAM_BYTES}};

static int on_page(void *data, size_t block, uint64_t offset, const uint8_t *bytes)
{
	struct result *r = data;

	assert_true(block < 2 && offset % 4096 == 0 && offset < RAM_BYTES);
	memcpy(r->ram[block] + offset, bytes, 4096);
	r->n_pages++;
	return r->fail_with;
}

static int on_zero(void *data, size_t block, uint64_t offset)
{
	struct result *r = data;

	assert_true(block < 2 && offset % 4096 == 0 && offset < RAM_BYTES);
	memset(r->ram[block] + offset, 0, 4096);
	r->n_zeros++;
	return 0;
}

static int on_pass(void *data, const uint8_t *bytes, size_t size)
{
	struct result *r = data;

	assert_true(r->n_passed + size <= sizeof(r->passed));
	memcpy(r->passed + r->n_passed, bytes, size);
	r->n_passed += size;
	return 0;
}

static const struct hf_ram_stream_ops ops = {.page = on_page, .zero = on_zero, .pass = on_pass};

/* Feeds it in pieces of @step bytes. Return: the end's verdict, or the first error. */
static int run(
	const struct sample *in, size_t n_wanted, size_t step, struct result *r, struct hf_error *e)
{
	struct hf_ram_stream *s = NULL;
	int err = 0;

	assert_int_equal(hf_ram_stream_new(wanted, n_wanted, &ops, r, &s), 0);
	for (size_t at = 0; at < in->n && err == 0; at += step)
		err = hf_ram_stream_feed(
			s, in->bytes + at, in->n - at < step ? in->n - at : step, e);
	if (err == 0)
		err = hf_ram_stream_end(s, e);
	else
		assert_true(hf_ram_stream_feed(s, in->bytes, 1, NULL) < 0);
	hf_ram_stream_free(s);
	return err;
}

static struct sample *sample_new(void)
{
	struct sample *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	return s;
}

static struct result *result_new(void)
{
	struct result *r = calloc(1, sizeof(*r));

	assert_non_null(r);
	memset(r->ram, 0xee, sizeof(r->ram));
	return r;
}

/* A whole stream; @passed: what has to be left of it. */
static void make(struct sample *s, struct sample *passed)
{
	for (int both = 0; both < 2; both++) {
		struct sample *out = both ? passed : s;

		sample_header(out);
		sample_start(out);
		sample_list(out, 2 * RAM_BYTES + 8192);
		sample_block(out, "pc.ram", RAM_BYTES);
		sample_block(out, "/rom@etc/acpi/tables", 8192);
		sample_block(out, "/objects/m1", RAM_BYTES);
		sample_end_part(out);
		sample_part(out, 2);
		if (!both) {
			sample_page(out, "pc.ram", 0, 0x11);
			sample_page(out, NULL, 4096, 0x12);
			sample_page(out, NULL, 8192, 0);
			sample_page(out, NULL, 12288, 0x14);
		}
		sample_page(out, "/rom@etc/acpi/tables", 0, 0x21);
		sample_page(out, NULL, 4096, 0);
		if (!both) {
			for (uint64_t i = 0; i < PAGES; i++)
				sample_page(out, i ? NULL : "/objects/m1", i * 4096, 0x31);
		}
		sample_end_part(out);
		/* A later round: what was full is empty again, and the other way round. */
		sample_part(out, 2);
		if (!both) {
			sample_page(out, NULL, 0, 0);
			sample_page(out, "pc.ram", 4096, 0);
			sample_page(out, NULL, 8192, 0x19);
		}
		sample_page(out, "/rom@etc/acpi/tables", 0, 0x22);
		sample_end_part(out);
		/* From 10.0 on. */
		sample_number(out, 8, 1);
		sample_number(out, 11, 2);
		sample_number(out, 0, 2);
		sample_part(out, 3);
		sample_page(out, NULL, 4096, 0x23);
		sample_end_part(out);
		sample_devices(out);
	}
}

static void test_whole(void **state)
{
	static const size_t steps[] = {1, 2, 3, 7, 8, 9, 4095, 4096, 4097, 1 << 20};
	static const uint8_t fills[2][PAGES] = {{0x11, 0, 0x19, 0x14}, {0, 0x31, 0x31, 0x31}};
	struct sample *in = sample_new(), *left = sample_new();

	make(in, left);
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		struct result *r = result_new();
		struct hf_error e = {0};

		assert_int_equal(run(in, 2, steps[i], r, &e), 0);
		assert_int_equal(e.err, 0);
		assert_int_equal(r->n_passed, left->n);
		assert_memory_equal(r->passed, left->bytes, left->n);
		assert_int_equal(r->n_pages, 8);
		assert_int_equal(r->n_zeros, 3);
		for (size_t at = 0; at < sizeof(r->ram); at++)
			assert_int_equal(r->ram[at / RAM_BYTES][at % RAM_BYTES],
				fills[at / RAM_BYTES][at % RAM_BYTES / 4096]);
		free(r);
	}
	free(in);
	free(left);
}

/* Wherever it is cut, it isn't taken for complete. */
static void test_cut(void **state)
{
	struct sample *in = sample_new(), *left = sample_new();
	size_t whole, devices;

	make(in, left);
	whole = in->n;
	left->n = 0;
	sample_devices(left);
	devices = whole - left->n;
	for (in->n = 0; in->n <= devices; in->n += in->n + 64 < devices ? 61 : 1) {
		struct result *r = result_new();
		struct hf_error e = {0};

		assert_int_equal(run(in, 2, 8192, r, &e), -EBADMSG);
		assert_non_null(strstr(e.message, "ended early"));
		free(r);
	}
	free(in);
	free(left);
}

static void begin(struct sample *s)
{
	s->n = 0;
	sample_header(s);
	sample_start(s);
	sample_list(s, RAM_BYTES + 4096);
	sample_block(s, "pc.ram", RAM_BYTES);
	sample_block(s, "small", 4096);
	sample_end_part(s);
	sample_part(s, 2);
}

/* Return: what the parser says, @says is a part of it. */
static void refused(struct sample *s, int err, const char *says)
{
	struct result *r = result_new();
	struct hf_error e = {0};

	assert_int_equal(run(s, 1, 4096, r, &e), err);
	assert_non_null(strstr(e.message, says));
	assert_true(e.remedy[0]);
	free(r);
}

static void test_unknown_flags(void **state)
{
	/* full, a hook, XBZRLE, compressed, multifd, both kinds at once, a second list, a bare
	 * continue, an end with an address */
	static const uint64_t words[] = {0x01, 0x80, 0x48, 0x40, 0x60, 0x100, 0x200, 0x0a, 0x1004,
		0x20, 0x1010, 0x30, 0x800, 0};
	struct sample *s = sample_new();

	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
		begin(s);
		sample_page(s, "pc.ram", 0, 0x77);
		sample_number(s, words[i], 8);
		sample_end_part(s);
		refused(s, -EPROTONOSUPPORT, "flags 0x");
	}
	free(s);
}

static void test_bad_pages(void **state)
{
	struct sample *s = sample_new();

	begin(s);
	sample_page(s, NULL, 0, 1);
	refused(s, -EBADMSG, "without a RAM block");
	begin(s);
	sample_page(s, "other", 0, 1);
	refused(s, -EBADMSG, "wasn't listed");
	begin(s);
	sample_page(s, "", 0, 1);
	refused(s, -EBADMSG, "without a name");
	begin(s);
	sample_page(s, "pc.ram", RAM_BYTES, 1);
	refused(s, -EBADMSG, "beyond the end of RAM block pc.ram");
	begin(s);
	sample_page(s, "small", 4096, 0);
	refused(s, -EBADMSG, "beyond the end of RAM block small");
	begin(s);
	sample_page(s, "pc.ram", 0, 0);
	s->bytes[s->n - 1] = 0x55;
	refused(s, -EPROTONOSUPPORT, "a page filled with 85");
	free(s);
}

static void test_bad_lists(void **state)
{
	struct sample *s = sample_new();
	static const struct {
		const char *name;
		uint64_t size;
		int err;
		const char *says;
	} bad[] = {
		{"pc.ram", RAM_BYTES - 4096, -ESTALE, "its command line says 16384"},
		{"pc.ram", RAM_BYTES + 1, -EBADMSG, "has 16385 bytes"},
		{"pc.ram", 0, -EBADMSG, "has 0 bytes"},
		{"pc.ram", UINT64_MAX - 4095, -EBADMSG, "bytes"},
		{"", 4096, -EBADMSG, "without a name"},
		{"other", 8 * RAM_BYTES, -ESTALE, "0 of the 1 RAM blocks"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		s->n = 0;
		sample_header(s);
		sample_start(s);
		sample_list(s, 8 * RAM_BYTES);
		sample_block(s, bad[i].name, bad[i].size);
		refused(s, bad[i].err, bad[i].says);
	}
	/* The same block under both of its names, and a name twice. */
	for (int i = 0; i < 2; i++) {
		s->n = 0;
		sample_header(s);
		sample_start(s);
		sample_list(s, 8 * RAM_BYTES);
		sample_block(s, i ? "pc.ram" : "/objects/pc.ram", RAM_BYTES);
		sample_block(s, "pc.ram", RAM_BYTES);
		refused(s, -EBADMSG, i ? "name of its own" : "twice");
	}
	/* Too many. */
	s->n = 0;
	sample_header(s);
	sample_start(s);
	sample_list(s, 1 << 30);
	for (int i = 0; i <= HF_RAM_STREAM_MAX_BLOCKS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "b%d", i);
		sample_block(s, name, 4096);
	}
	refused(s, -EBADMSG, "more than 512");
	/* Pages, or the end, before the list. */
	s->n = 0;
	sample_header(s);
	sample_start(s);
	sample_end_part(s);
	refused(s, -EPROTONOSUPPORT, "flags 0x10");
	free(s);
}

static void section(struct sample *s, uint8_t type, const char *name, uint32_t instance)
{
	sample_number(s, type, 1);
	sample_number(s, SAMPLE_SECTION + 1, 4);
	sample_name(s, name);
	sample_number(s, instance, 4);
	sample_number(s, 4, 4);
}

static void test_other_sections(void **state)
{
	struct sample *s = sample_new();

	/* Something else that is sent in rounds: before the RAM, and behind its beginning. */
	sample_header(s);
	section(s, 1, "dirty-bitmap", 0);
	refused(s, -EPROTONOSUPPORT, "`dirty-bitmap` is sent in rounds");
	begin(s);
	sample_end_part(s);
	section(s, 1, "vfio", 0);
	refused(s, -EPROTONOSUPPORT, "type 1");
	begin(s);
	sample_end_part(s);
	sample_number(s, 2, 1);
	sample_number(s, SAMPLE_SECTION + 1, 4);
	refused(s, -EPROTONOSUPPORT, "a part of something else");
	/* An early device, a second configuration, parts of its own, an early end. */
	sample_number((s->n = 0, sample_header(s), s), 4, 1);
	refused(s, -EPROTONOSUPPORT, "before the RAM is complete");
	for (uint8_t type = 0; type < 9; type++) {
		static const uint8_t bad[] = {0, 2, 3, 5, 6, 7, 9, 0x42, 0x7e};

		sample_number((s->n = 0, sample_header(s), s), bad[type], 1);
		refused(s, -EPROTONOSUPPORT, "a section of type");
	}
	s->n = 0;
	sample_header(s);
	section(s, 1, "ram", 1);
	refused(s, -EPROTONOSUPPORT, "another format of RAM");
	/* A command that wants an answer; and one that is known, with data that is not. */
	for (int i = 0; i < 2; i++) {
		s->n = 0;
		sample_header(s);
		sample_number(s, 8, 1);
		sample_number(s, i ? 11 : 1, 2);
		sample_number(s, i, 2);
		refused(s, -EPROTONOSUPPORT, "command");
	}
	/* No end mark, or another's. */
	begin(s);
	sample_end_part(s);
	s->bytes[s->n - 1] ^= 1;
	refused(s, -EPROTONOSUPPORT, "without its end mark");
	begin(s);
	sample_number(s, 0x10, 8);
	sample_part(s, 2);
	refused(s, -EPROTONOSUPPORT, "without its end mark");
	free(s);
}

static void test_other_files(void **state)
{
	struct sample *s = sample_new();
	struct sample *left = sample_new();

	make(s, left);
	free(left);
	s->bytes[7] = 2;
	refused(s, -EPROTONOSUPPORT, "no stream of version 3");
	s->bytes[7] = 3;
	s->bytes[0] ^= 1;
	refused(s, -EPROTONOSUPPORT, "no stream");
	s->bytes[0] ^= 1;
	s->bytes[12] = 0;
	refused(s, -EBADMSG, "a machine type of 0 letters");
	s->bytes[10] = 1;
	refused(s, -EBADMSG, "a machine type of 65536 letters");
	free(s);
}

/* What a callback answers comes out, and ends it. */
static void test_callback_fails(void **state)
{
	struct sample *in = sample_new(), *left = sample_new();
	struct result *r = result_new();

	make(in, left);
	r->fail_with = -ENOSPC;
	assert_int_equal(run(in, 2, 100, r, NULL), -ENOSPC);
	assert_int_equal(r->n_pages, 1);
	free(in);
	free(left);
	free(r);
}

static int count_page(void *data, size_t block, uint64_t offset, const uint8_t *bytes)
{
	*(size_t *)data += 1;
	return 0;
}

static int count_zero(void *data, size_t block, uint64_t offset)
{
	*(size_t *)data += 1;
	return 0;
}

static int ignore(void *data, const uint8_t *bytes, size_t size)
{
	return 0;
}

/* What three QEMUs sent of a guest with 1 MiB of RAM (some pages were taken out to make it small).
 */
static void test_real(void **state)
{
	static const struct hf_ram_stream_ops counting = {
		.page = count_page, .zero = count_zero, .pass = ignore};
	static const struct hf_ram_stream_block ram = {"pc.ram", 1 << 20};
	static const char *const files[] = {"7.2.22", "10.0.13", "11.1.3"};

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++) {
		struct sample *in = sample_new();
		struct hf_ram_stream *s = NULL;
		struct hf_error e = {0};
		size_t count = 0;
		char path[128];
		FILE *f;

		snprintf(path, sizeof(path), "tests/fuzz/corpus/ram-stream/qemu-%s.bin", files[i]);
		f = fopen(path, "re");
		assert_non_null(f);
		in->n = fread(in->bytes, 1, sizeof(in->bytes), f);
		fclose(f);
		assert_int_equal(hf_ram_stream_new(&ram, 1, &counting, &count, &s), 0);
		assert_int_equal(hf_ram_stream_feed(s, in->bytes, in->n, &e), 0);
		assert_int_equal(hf_ram_stream_end(s, &e), 0);
		assert_true(count >= 230);
		hf_ram_stream_free(s);
		free(in);
	}
}

static void test_arguments(void **state)
{
	struct hf_ram_stream *s = NULL;

	assert_int_equal(hf_ram_stream_new(wanted, 0, &ops, NULL, &s), -EINVAL);
	assert_int_equal(
		hf_ram_stream_new(wanted, HF_RAM_STREAM_MAX_BLOCKS + 1, &ops, NULL, &s), -EINVAL);
	hf_ram_stream_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_unknown_flags),
		cmocka_unit_test(test_bad_pages),
		cmocka_unit_test(test_bad_lists),
		cmocka_unit_test(test_other_sections),
		cmocka_unit_test(test_other_files),
		cmocka_unit_test(test_callback_fails),
		cmocka_unit_test(test_real),
		cmocka_unit_test(test_arguments),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
