/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The Varlink framer and the JSON helpers, on bytes that behave and on bytes that don't.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/varlink.h"

#define FRAMER(name, max) \
	HF_CLEANUP(hf_varlink_framer_clear) struct hf_varlink_framer name = {.limit = (max)}

static void expect_message(struct hf_varlink_framer *f, const char *text)
{
	cleanup_json struct json_object *m = NULL;

	assert_int_equal(hf_varlink_framer_pop(f, &m), 1);
	assert_string_equal(json_object_to_json_string_ext(m, JSON_C_TO_STRING_PLAIN), text);
}

static void expect_nothing(struct hf_varlink_framer *f)
{
	struct json_object *m = NULL;

	assert_int_equal(hf_varlink_framer_pop(f, &m), 0);
	assert_null(m);
}

static void test_coalesced(void **state)
{
	FRAMER(f, 100);

	assert_int_equal(hf_varlink_framer_push(&f, "{\"a\":1}\0{\"b\":2}\0{\"c\"", 20), 0);
	expect_message(&f, "{\"a\":1}");
	expect_message(&f, "{\"b\":2}");
	expect_nothing(&f);
	assert_int_equal(hf_varlink_framer_push(&f, ":3}\0", 4), 0);
	expect_message(&f, "{\"c\":3}");
	expect_nothing(&f);
	/* An idle stream holds no memory. */
	assert_null(f.buf);
}

static void test_byte_by_byte(void **state)
{
	static const char text[] = "{\"a\":[1,2]}\0{}";
	FRAMER(f, 100);

	for (int round = 0; round < 1000; round++) {
		for (size_t i = 0; i < sizeof(text); i++) {
			assert_int_equal(hf_varlink_framer_push(&f, text + i, 1), 0);
			if (i == 11)
				expect_message(&f, "{\"a\":[1,2]}");
			else if (i == sizeof(text) - 1)
				expect_message(&f, "{}");
			expect_nothing(&f);
		}
	}
}

static void test_limit(void **state)
{
	struct json_object *m = NULL;
	char text[64] = "{}";

	memset(text + 2, ' ', sizeof(text) - 2);
	{
		/* Exactly the limit is fine, finished or not. */
		FRAMER(f, 63);

		text[63] = 0;
		assert_int_equal(hf_varlink_framer_push(&f, text, 63), 0);
		expect_nothing(&f);
		assert_int_equal(hf_varlink_framer_push(&f, text + 63, 1), 0);
		expect_message(&f, "{}");
	}
	{
		FRAMER(f, 62);

		assert_int_equal(hf_varlink_framer_push(&f, text, 62), 0);
		assert_int_equal(hf_varlink_framer_push(&f, text + 62, 1), -EBADMSG);
	}
	{
		/* One that is too long behind one that is not. */
		FRAMER(f, 10);

		assert_int_equal(hf_varlink_framer_push(&f, "{}\0{            }\0", 18), 0);
		expect_message(&f, "{}");
		assert_int_equal(hf_varlink_framer_pop(&f, &m), -EBADMSG);
	}
}

static void test_garbage(void **state)
{
	static const char *const bad[] = {
		"",
		" ",
		"null",
		"1",
		"[]",
		"\"text\"",
		"{",
		"{\"a\":",
		"{\"a\":1}}",
		"{} {}",
		"{}x",
		"{\"a\":1,}",
		"{/* */}",
		"{\"a\":\"\xff\"}",
		"{\"a\":\"\xc0\xaf\"}",
		"GET / HTTP/1.1\r\n\r\n",
		"\xef\xbb\xbf{}",
	};
	struct json_object *m = NULL;

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		FRAMER(f, 100);

		assert_int_equal(hf_varlink_framer_push(&f, bad[i], strlen(bad[i]) + 1), 0);
		if (hf_varlink_framer_pop(&f, &m) != -EBADMSG)
			fail_msg("taken for a message: %s", bad[i]);
		assert_null(m);
	}
}

static void test_depth(void **state)
{
	char text[400];
	struct json_object *m = NULL;

	for (int depth = 2; depth < 100; depth++) {
		char *p = text;
		int r;

		p += sprintf(p, "{\"a\":");
		for (int i = 1; i < depth; i++)
			*p++ = '[';
		for (int i = 1; i < depth; i++)
			*p++ = ']';
		sprintf(p, "}");
		r = hf_json_parse(text, strlen(text), HF_VARLINK_MAX_DEPTH, &m);
		if (depth <= HF_VARLINK_MAX_DEPTH - 1) {
			assert_int_equal(r, 0);
			json_object_put(m);
		} else if (depth > HF_VARLINK_MAX_DEPTH) {
			assert_int_equal(r, -EBADMSG);
		} else if (r == 0) {
			json_object_put(m);
		}
		m = NULL;
	}
}

static void test_dispatch(void **state)
{
	static const char good[] =
		"{\"s\":\"x\",\"b\":true,\"i\":-7,\"o\":{\"k\":1},\"l\":[1],\"n\":null}";
	struct json_object *o = NULL, *l = NULL;
	const char *s = NULL, *n = "untouched", *bad = NULL;
	int64_t i = 0;
	bool b = false;
	const struct hf_json_field fields[] = {
		{"s", json_type_string, 0, &s},
		{"b", json_type_boolean, 0, &b},
		{"i", json_type_int, 0, &i},
		{"o", json_type_object, 0, &o},
		{"l", json_type_array, HF_JSON_OPTIONAL, &l},
		{"n", json_type_string, HF_JSON_OPTIONAL, &n},
		{"z", json_type_string, HF_JSON_OPTIONAL, NULL},
		{0},
	};
	static const struct {
		const char *text, *bad;
	} wrong[] = {
		{"{\"s\":1,\"b\":true,\"i\":1,\"o\":{}}", "s"},
		{"{\"s\":\"\",\"b\":0,\"i\":1,\"o\":{}}", "b"},
		{"{\"s\":\"\",\"b\":true,\"i\":1.5,\"o\":{}}", "i"},
		{"{\"s\":\"\",\"b\":true,\"i\":1,\"o\":[]}", "o"},
		{"{\"s\":\"\",\"b\":true,\"i\":1}", "o"},
		{"{\"s\":null,\"b\":true,\"i\":1,\"o\":{}}", "s"},
		{"{\"s\":\"a\\u0000b\",\"b\":true,\"i\":1,\"o\":{}}", "s"},
		{"{\"s\":\"\",\"b\":true,\"i\":1,\"o\":{},\"more\":1}", "more"},
		{"{\"s\":\"\",\"b\":true,\"i\":1,\"o\":{},\"l\":{}}", "l"},
	};
	cleanup_json struct json_object *obj = NULL;

	assert_int_equal(hf_json_parse(good, strlen(good), 8, &obj), 0);
	assert_int_equal(hf_json_dispatch(obj, fields, &bad), 0);
	assert_string_equal(s, "x");
	assert_true(b);
	assert_int_equal(i, -7);
	assert_int_equal(hf_json_get_int(o, "k", 0), 1);
	assert_int_equal(hf_json_array_size(l), 1);
	assert_string_equal(n, "untouched");

	for (size_t k = 0; k < HF_ARRAY_SIZE(wrong); k++) {
		cleanup_json struct json_object *w = NULL;

		assert_int_equal(hf_json_parse(wrong[k].text, strlen(wrong[k].text), 8, &w), 0);
		assert_int_equal(hf_json_dispatch(w, fields, &bad), -EINVAL);
		assert_string_equal(bad, wrong[k].bad);
	}
	assert_int_equal(hf_json_dispatch(NULL, fields, &bad), -EINVAL);
	assert_int_equal(hf_json_dispatch(NULL, (const struct hf_json_field[]){{0}}, &bad), 0);
}

static void test_strings_become_utf8(void **state)
{
	static const struct {
		const char *in, *out;
	} cases[] = {
		{"plain", "plain"},
		{"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7",
			"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7"},
		{"\xff\xfe", "??"},
		{"a\xc3", "a?"},
		{"\xe2\x82", "??"},
		{"\xc0\xaf", "??"},
		{"\xed\xa0\x80", "???"},
		{"\xf4\x90\x80\x80", "????"},
		{"\xf8\x88\x80\x80\x80", "?????"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		cleanup_json struct json_object *o = json_object_new_object(), *back = NULL;
		const char *text;

		hf_json_add_string(o, "k", cases[i].in);
		assert_string_equal(hf_json_get_string(o, "k", NULL), cases[i].out);
		text = json_object_to_json_string(o);
		assert_int_equal(hf_json_parse(text, strlen(text), 4, &back), 0);
	}
}

static void test_getters(void **state)
{
	static const char text[] = "{\"s\":\"x\",\"i\":3,\"b\":true}";
	cleanup_json struct json_object *o = NULL;

	assert_int_equal(hf_json_parse(text, strlen(text), 4, &o), 0);
	assert_string_equal(hf_json_get_string(o, "i", "d"), "d");
	assert_string_equal(hf_json_get_string(NULL, "i", "d"), "d");
	assert_int_equal(hf_json_get_int(o, "s", 9), 9);
	assert_int_equal(hf_json_get_int(o, "i", 9), 3);
	assert_true(hf_json_get_bool(o, "b", false));
	assert_null(hf_json_get_object(o, "s"));
	assert_null(hf_json_get_array(o, "none"));
	assert_int_equal(hf_json_array_size(NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_coalesced),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_dispatch),
		cmocka_unit_test(test_strings_become_utf8),
		cmocka_unit_test(test_getters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
