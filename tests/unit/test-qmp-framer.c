/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "qmp/framer.h"

/* Pushes @text whole and takes one message out. */
static int one(
	const struct hf_qmp_limits *limits, const void *text, size_t size, struct json_object **ret)
{
	struct hf_qmp_framer *f;
	int r;

	assert_int_equal(hf_qmp_framer_new(limits, &f), 0);
	assert_int_equal(hf_qmp_framer_push(f, text, size), 0);
	r = hf_qmp_framer_next(f, ret);
	hf_qmp_framer_free(f);
	return r;
}

static int verdict(const struct hf_qmp_limits *limits, const char *text)
{
	struct json_object *obj = NULL;
	int r = one(limits, text, strlen(text), &obj);

	if (r > 0)
		json_object_put(obj);
	else
		assert_null(obj);
	return r;
}

static void test_many_in_one_push(void **state)
{
	static const char text[] = "{\"a\": 1}\r\n\r\n {\"b\": [1, {\"c\": \"}\"}]}\r\n{\"d\"";
	struct hf_qmp_framer *f;
	struct json_object *obj;

	assert_int_equal(hf_qmp_framer_new(NULL, &f), 0);
	assert_int_equal(hf_qmp_framer_push(f, text, strlen(text)), 0);
	assert_int_equal(hf_qmp_framer_next(f, &obj), 1);
	assert_string_equal(json_object_to_json_string_ext(obj, 0), "{\"a\":1}");
	json_object_put(obj);
	assert_int_equal(hf_qmp_framer_next(f, &obj), 1);
	assert_string_equal(json_object_to_json_string_ext(obj, 0), "{\"b\":[1,{\"c\":\"}\"}]}");
	json_object_put(obj);
	assert_int_equal(hf_qmp_framer_next(f, &obj), 0);
	assert_int_equal(hf_qmp_framer_next(f, &obj), 0);
	assert_int_equal(hf_qmp_framer_push(f, ":2}", 3), 0);
	assert_int_equal(hf_qmp_framer_next(f, &obj), 1);
	assert_string_equal(json_object_to_json_string_ext(obj, 0), "{\"d\":2}");
	json_object_put(obj);
	hf_qmp_framer_free(f);
}

static void test_byte_by_byte(void **state)
{
	/* Brackets and quotes in strings, escapes cut in two, a surrogate pair. */
	static const char text[] =
		"{\"a\\\\\\\"{\": \"\\ud83d\\ude00 ]}\", \"b\": [ [ ], -1.5e3 ]}\n";
	struct hf_qmp_framer *f;
	struct json_object *obj = NULL, *v;
	size_t i;
	int got = 0;

	assert_int_equal(hf_qmp_framer_new(NULL, &f), 0);
	for (i = 0; i < strlen(text); i++) {
		int r;

		assert_int_equal(hf_qmp_framer_push(f, text + i, 1), 0);
		r = hf_qmp_framer_next(f, &obj);
		assert_true(r >= 0);
		got += r;
	}
	assert_int_equal(got, 1);
	assert_true(json_object_object_get_ex(obj, "a\\\"{", &v));
	assert_string_equal(json_object_get_string(v), "\xf0\x9f\x98\x80 ]}");
	json_object_put(obj);
	hf_qmp_framer_free(f);
}

static void test_pretty(void **state)
{
	assert_int_equal(verdict(NULL, "{\r\n    \"QMP\": {\r\n\t\"a\": 1\r\n    }\r\n}\r\n"), 1);
}

static void test_garbage(void **state)
{
	static const char *const bad[] = {
		"SSH-2.0-x\r\n",
		"[1]",
		"1",
		"\"x\"",
		"null",
		"}",
		"{]",
		"{\"a\":1]",
		"{\"a\" 1}",
		"{\"a\":1,}",
		"{'a':1}",
		"{a:1}",
		"{\"a\":/* x */1}",
		"{\"a\":\"\x01\"}",
		"{\"a\":\x02}",
		"{\"a\":\"\xff\"}",
		"{\"a\":NaN}",
		"{\"a\":tru}",
		"{\"a\":0x1}",
		"{} x",
		"\xff{}",
		"{\"a\":\"\\x\"}",
		"{\"a\":\"\n\"}",
	};
	struct json_object *obj;
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int r = verdict(NULL, bad[i]);

		if (!strncmp(bad[i], "{} ", 3)) /* good, then bad */
			assert_int_equal(r, 1);
		else if (r != -EBADMSG)
			fail_msg("%s: %d", bad[i], r);
	}
	/* A NUL neither ends nor hides anything. */
	assert_int_equal(one(NULL, "{\"a\":1\0}", 8, &obj), -EBADMSG);
	assert_int_equal(one(NULL, "\0{}", 3, &obj), -EBADMSG);
	assert_int_equal(one(NULL, "{\"a\0\":1}", 8, &obj), -EBADMSG);
}

static void test_errors_are_final(void **state)
{
	struct hf_qmp_framer *f;
	struct json_object *obj;

	assert_int_equal(hf_qmp_framer_new(NULL, &f), 0);
	assert_int_equal(hf_qmp_framer_push(f, "{}x{}", 5), 0);
	assert_int_equal(hf_qmp_framer_next(f, &obj), 1);
	json_object_put(obj);
	assert_int_equal(hf_qmp_framer_next(f, &obj), -EBADMSG);
	assert_int_equal(hf_qmp_framer_next(f, &obj), -EBADMSG);
	assert_int_equal(hf_qmp_framer_push(f, "{}", 2), -EBADMSG);
	hf_qmp_framer_free(f);
}

static void test_limits(void **state)
{
	const struct hf_qmp_limits tight = {.message_bytes = 16, .depth = 3, .values = 4};

	assert_int_equal(verdict(&tight, "{\"a\":\"12345678\"}"), 1);
	assert_int_equal(verdict(&tight, "{\"a\":\"123456789\"}"), -EMSGSIZE);
	/* Also when its end never comes. */
	assert_int_equal(verdict(&tight, "{\"a\":\"1234567890a"), -EMSGSIZE);
	/* White space between messages is free. */
	assert_int_equal(verdict(&tight, "                        {}"), 1);
	assert_int_equal(verdict(&tight, "{\"a\":[[1]]}"), 1);
	assert_int_equal(verdict(&tight, "{\"a\":[[[1]]]}"), -EMSGSIZE);
	assert_int_equal(verdict(&tight, "{\"a\":[1,2,3]}"), 1);
	assert_int_equal(verdict(&tight, "{\"a\":[1,2,3,4]}"), -EMSGSIZE);
	/* The default depth exactly: 64. */
	for (size_t depth = 64; depth <= 65; depth++) {
		char text[512] = "{\"a\":";
		size_t i, n = strlen(text);

		for (i = 1; i < depth; i++)
			text[n++] = '[';
		for (i = 1; i < depth; i++)
			text[n++] = ']';
		text[n++] = '}';
		assert_int_equal(verdict(NULL, text), depth == 64 ? 1 : -EMSGSIZE);
	}
}

static void test_large(void **state)
{
	const size_t size = HF_QMP_MAX_MESSAGE_BYTES;
	char *text = malloc(size + 2);
	struct json_object *obj, *v;

	assert_non_null(text);
	memset(text, 'x', size + 2);
	memcpy(text, "{\"a\":\"", 6);
	memcpy(text + size - 2, "\"}", 2);
	assert_int_equal(one(NULL, text, size, &obj), 1);
	assert_true(json_object_object_get_ex(obj, "a", &v));
	assert_int_equal(json_object_get_string_len(v), size - 8);
	json_object_put(obj);
	memset(text + size - 2, 'x', 2);
	memcpy(text + size - 1, "\"}", 2);
	assert_int_equal(one(NULL, text, size + 1, &obj), -EMSGSIZE);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_many_in_one_push),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_pretty),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_errors_are_final),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
