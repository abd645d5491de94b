/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Device states: real ones of three QEMUs, cut to what is read of them, and hostile ones.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/fd.h"
#include "vmm-glue/cpu-notes.h"
#include "vmm-glue/vmdesc.h"

#define SAMPLES "tests/fuzz/corpus/vmdesc/qemu-"

/* A stream that is put together by hand. */
struct stream {
	uint8_t data[65536];
	size_t size;
};

static void put(struct stream *s, const void *data, size_t size)
{
	assert_true(s->size + size <= sizeof(s->data));
	memcpy(s->data + s->size, data, size);
	s->size += size;
}

static void put8(struct stream *s, uint8_t v)
{
	put(s, &v, 1);
}

static void put32(struct stream *s, uint32_t v)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		put8(s, (uint8_t)(v >> shift));
}

static void put_section(
	struct stream *s, uint32_t id, const char *name, uint32_t instance, const char *body)
{
	put8(s, 4);
	put32(s, id);
	put8(s, (uint8_t)strlen(name));
	put(s, name, strlen(name));
	put32(s, instance);
	put32(s, 3);
	put(s, body, strlen(body));
	put8(s, 0x7e);
	put32(s, id);
}

static void put_text(struct stream *s, const char *text)
{
	put8(s, 0);
	put8(s, 6);
	put32(s, (uint32_t)strlen(text));
	put(s, text, strlen(text));
}

#define DEVICE(fields) \
	"{\"devices\":[{\"name\":\"dev\",\"instance_id\":7,\"version\":3,\"fields\":[" fields "]}" \
	"]}"

/* Of exactly its size, for the sanitizer to see what lies behind it. */
static uint8_t *parsed;

static int parse(const struct stream *s, struct hf_vmdesc **ret)
{
	int r;

	free(parsed);
	parsed = malloc(s->size);
	assert_non_null(parsed);
	memcpy(parsed, s->data, s->size);
	r = hf_vmdesc_parse(parsed, s->size, ret);
	if (r < 0)
		free(TAKE_PTR(parsed));
	return r;
}

static void done(struct hf_vmdesc *d)
{
	hf_vmdesc_free(d);
	free(TAKE_PTR(parsed));
}

/* ---- real ones ---- */

static void real_one(const char *version)
{
	cleanup_vmdesc struct hf_vmdesc *d = NULL;
	cleanup_free char *data = NULL;
	struct hf_core_notes notes = {0};
	struct hf_vmdesc_section s;
	const uint8_t *cmos;
	char path[128];
	uint64_t v = 0;
	size_t size, n = 0;

	snprintf(path, sizeof(path), SAMPLES "%s", version);
	assert_int_equal(hf_file_read(path, 1 << 20, &data, &size), 0);
	assert_int_equal(hf_vmdesc_parse(data, size, &d), 0);
	assert_int_equal(hf_vmdesc_count(d, "cpu"), 2);
	assert_int_equal(hf_vmdesc_count(d, "none"), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(hf_vmdesc_find(d, "cpu", i, &s), 0);
		/* Paging is off. */
		assert_int_equal(hf_vmdesc_number(&s, "env.cr[3]", 0, NULL, &v), 0);
		assert_int_equal(v, 0);
		assert_int_equal(hf_vmdesc_number(&s, "env.segs", 1, "limit", &v), 0);
		assert_true(v == 0xffff || v == 0xffffffff);
		assert_int_equal(hf_vmdesc_number(&s, "env.segs", 6, "limit", &v), -ENOENT);
		assert_int_equal(hf_vmdesc_number(&s, "env.segs", 0, "none", &v), -ENOENT);
		assert_int_equal(hf_vmdesc_number(&s, "env.segs", 0, NULL, &v), -EBADMSG);
		assert_int_equal(hf_vmdesc_number(&s, "env.eip", 0, "limit", &v), -ENOENT);
		assert_int_equal(hf_vmdesc_number(&s, "env.regs", 15, NULL, &v), 0);
		assert_int_equal(hf_vmdesc_number(&s, "env.regs", 16, NULL, &v), -ENOENT);
	}
	/* Both are somewhere in the BIOS, below 1 MiB. */
	assert_int_equal(hf_vmdesc_number(&s, "env.eip", 0, NULL, &v), 0);
	assert_in_range(v, 0xf0000, 0xfffff);
	assert_int_equal(hf_vmdesc_find(d, "cpu", 2, &s), -ENOENT);
	assert_int_equal(hf_vmdesc_find(d, "mc146818rtc", 0, &s), 0);
	assert_int_equal(hf_vmdesc_bytes(&s, "cmos_data", 0, &cmos, &n), 0);
	assert_int_equal(n, 128);
	/* 64 MiB: 48 above the first 16, in units of 64 KiB. */
	assert_int_equal(cmos[0x34] | cmos[0x35] << 8, 48 * 16);
	assert_int_equal(hf_cpu_notes_add(d, &notes, &n), 0);
	assert_int_equal(n, 2);
	assert_true(notes.size > 2 * 336);
	hf_core_notes_clear(&notes);
}

static void test_real(void **state)
{
	real_one("7.2");
	real_one("10.0");
	real_one("11.1");
}

/* Cut anywhere: an error, or what is there is still read. */
static void test_cut(void **state)
{
	cleanup_free char *data = NULL;
	size_t size;

	assert_int_equal(hf_file_read(SAMPLES "7.2", 1 << 20, &data, &size), 0);
	for (size_t cut = 0; cut < size; cut += 37) {
		cleanup_free char *copy = malloc(size - cut);
		struct hf_core_notes notes = {0};
		struct hf_vmdesc *d = NULL;
		size_t n = 99;

		/* Its end: there is no description any more. */
		memcpy(copy, data, size - cut);
		assert_int_equal(hf_vmdesc_parse(copy, size - cut, &d), cut == 0 ? 0 : -ENODATA);
		hf_vmdesc_free(d);
		/* Its beginning: some sections are not there. */
		memcpy(copy, data + cut, size - cut);
		d = NULL;
		if (hf_vmdesc_parse(copy, size - cut, &d) == 0 &&
			hf_cpu_notes_add(d, &notes, &n) < 0) {
			assert_int_equal(notes.size, 0);
			assert_int_equal(n, 99);
		}
		hf_core_notes_clear(&notes);
		hf_vmdesc_free(d);
	}
}

/* ---- made by hand ---- */

static void test_fields(void **state)
{
	static const char text[] =
		DEVICE("{\"name\":\"a\",\"size\":1},"
		       "{\"name\":\"list\",\"index\":0,\"size\":1},"
		       "{\"name\":\"list\",\"index\":1,\"size\":2},"
		       "{\"name\":\"s\",\"array_len\":2,\"size\":3,\"struct\":{\"fields\":["
		       "{\"name\":\"x\",\"size\":1},{\"name\":\"y\",\"size\":2}]}},"
		       "{\"name\":\"odd\",\"size\":3},{\"name\":\"none\",\"size\":0}");
	struct stream s = {0};
	struct hf_vmdesc_section section;
	struct hf_vmdesc *d = NULL;
	const uint8_t *p;
	uint64_t v = 0;
	size_t n = 0;

	put_section(&s, 9, "dev", 7, "ABCDxyyXYYooo");
	put_text(&s, text);
	assert_int_equal(parse(&s, &d), 0);
	assert_int_equal(hf_vmdesc_find(d, "dev", 0, &section), 0);
	assert_int_equal(section.size, 13);
	assert_int_equal(hf_vmdesc_number(&section, "a", 0, NULL, &v), 0);
	assert_int_equal(v, 'A');
	assert_int_equal(hf_vmdesc_number(&section, "list", 1, NULL, &v), 0);
	assert_int_equal(v, 'C' << 8 | 'D');
	assert_int_equal(hf_vmdesc_number(&section, "list", 2, NULL, &v), -ENOENT);
	assert_int_equal(hf_vmdesc_number(&section, "s", 1, "x", &v), 0);
	assert_int_equal(v, 'X');
	assert_int_equal(hf_vmdesc_number(&section, "s", 1, "y", &v), 0);
	assert_int_equal(v, 'Y' << 8 | 'Y');
	assert_int_equal(hf_vmdesc_number(&section, "odd", 0, NULL, &v), -EBADMSG);
	assert_int_equal(hf_vmdesc_bytes(&section, "odd", 0, &p, &n), 0);
	assert_memory_equal(p, "ooo", 3);
	assert_int_equal(hf_vmdesc_bytes(&section, "none", 0, &p, &n), 0);
	assert_int_equal(n, 0);
	done(d);
}

static void test_subsections(void **state)
{
	static const char text[] =
		"{\"devices\":[{\"name\":\"dev\",\"instance_id\":7,\"version\":3,\"fields\":["
		"{\"name\":\"a\",\"size\":1}],\"subsections\":[{\"vmsd_name\":\"dev/sub\","
		"\"version\":1,\"fields\":[{\"name\":\"b\",\"size\":2}]}]}]}";
	struct hf_vmdesc_section section;
	struct hf_vmdesc *d = NULL;
	struct stream s = {0};

	put_section(&s, 9, "dev", 7, "A\005\007dev/sub1234BB");
	put_text(&s, text);
	assert_int_equal(parse(&s, &d), 0);
	assert_int_equal(hf_vmdesc_find(d, "dev", 0, &section), 0);
	assert_int_equal(section.size, 1 + 2 + 7 + 4 + 2);
	done(d);
}

/* What a guest may have put into memory that is in the stream. */
static void test_lookalikes(void **state)
{
	static const char text[] = DEVICE("{\"name\":\"a\",\"size\":4}");
	struct hf_vmdesc_section section;
	struct hf_vmdesc *d = NULL;
	struct stream s = {0};

	/* Another instance, a body of another size, another id in its footer: none of them. */
	put_section(&s, 9, "dev", 6, "AAAA");
	put_section(&s, 9, "dev", 7, "AAAAA");
	put_section(&s, 9, "dev", 7, "AAAA");
	put_text(&s, text);
	assert_int_equal(parse(&s, &d), 0);
	assert_int_equal(hf_vmdesc_find(d, "dev", 0, &section), 0);
	done(d);
	s.size = 0;
	put_section(&s, 9, "dev", 7, "AAAA");
	put_section(&s, 10, "dev", 7, "BBBB");
	put_text(&s, text);
	assert_int_equal(parse(&s, &d), 0);
	assert_int_equal(hf_vmdesc_find(d, "dev", 0, &section), -ENOTUNIQ);
	done(d);
	s.size = 0;
	put_section(&s, 9, "dev", 7, "AAAA");
	s.data[s.size - 1] = 8;
	put_text(&s, text);
	assert_int_equal(parse(&s, &d), 0);
	assert_int_equal(hf_vmdesc_find(d, "dev", 0, &section), -ENOENT);
	done(d);
}

static void test_hostile(void **state)
{
	static const char *const senseless[] = {
		DEVICE("{\"name\":\"a\"}"),
		DEVICE("{\"name\":\"a\",\"size\":-1}"),
		DEVICE("{\"name\":\"a\",\"size\":4294967296}"),
		DEVICE("{\"name\":\"a\",\"size\":\"4\"}"),
		DEVICE("{\"name\":\"a\",\"size\":4,\"array_len\":-1}"),
		DEVICE("7"),
		"{\"devices\":[{\"name\":\"dev\",\"version\":3}]}",
		"{\"devices\":[{\"name\":\"dev\",\"instance_id\":4294967296,\"version\":3}]}",
	};
	static const char *const elsewhere[] = {
		DEVICE("{\"name\":\"a\",\"size\":4294967295,\"array_len\":4294967295}"),
		DEVICE("{\"name\":\"a\",\"size\":5}"),
	};
	static const char *const bad[] = {"{}", "{\"devices\":7}", "{\"devices\":[}", "{"};
	struct hf_vmdesc_section section;
	struct hf_vmdesc *d = NULL;
	struct stream s = {0};

	for (size_t i = 0; i < HF_ARRAY_SIZE(senseless) + HF_ARRAY_SIZE(elsewhere); i++) {
		bool sense = i >= HF_ARRAY_SIZE(senseless);

		s.size = 0;
		put_section(&s, 9, "dev", 7, "AAAA");
		put_text(&s, sense ? elsewhere[i - HF_ARRAY_SIZE(senseless)] : senseless[i]);
		assert_int_equal(parse(&s, &d), 0);
		assert_int_equal(hf_vmdesc_find(d, "dev", 0, &section), sense ? -ENOENT : -EBADMSG);
		done(d);
	}
	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		s.size = 0;
		put_text(&s, bad[i]);
		assert_true(parse(&s, &d) < 0);
	}
	/* Lengths that lie, and nothing at all. */
	s.size = 0;
	put_text(&s, "{\"devices\":[]}");
	s.data[5]++;
	assert_int_equal(parse(&s, &d), -ENODATA);
	assert_int_equal(hf_vmdesc_parse("", 0, &d), -ENODATA);
	assert_int_equal(hf_vmdesc_parse("\006\0\0\0\002{}", 7, &d), -EBADMSG);
}

/* Subsections in subsections, deeper than the description may be or than it is followed. */
static void test_deep(void **state)
{
	for (size_t depth = 1; depth < 60; depth++) {
		struct hf_vmdesc_section section;
		struct hf_vmdesc *d = NULL;
		struct stream s = {0};
		char text[8192] = "{\"devices\":[{\"name\":\"dev\",\"instance_id\":7,\"version\":3";
		int r;

		for (size_t i = 0; i < depth; i++)
			strcat(text, ",\"subsections\":[{\"vmsd_name\":\"x\"");
		for (size_t i = 0; i < depth; i++)
			strcat(text, "}]");
		strcat(text, "}]}");
		put_section(&s, 9, "dev", 7, "AAAA");
		put_text(&s, text);
		r = parse(&s, &d);
		if (r == 0) {
			assert_int_equal(hf_vmdesc_find(d, "dev", 0, &section),
				depth < 16 ? -ENOENT : -EBADMSG);
			done(d);
		} else {
			assert_true(depth > 16);
			assert_int_equal(r, -EBADMSG);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_subsections),
		cmocka_unit_test(test_lookalikes),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_deep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
