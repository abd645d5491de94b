/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: KHO's trees, on a folder made to look like debugfs does in Linux 7.3.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include <json-c/json.h>
#include <libfdt.h>

#include "common/fd.h"
#include "memfd-preserve/kho.h"

static char dir[] = "/tmp/hf-test-kho-XXXXXX";

/* The root tree: integers in the machine's own byte order, as the kernel stores them. */
static size_t root_tree(void *buf, size_t size)
{
	uint64_t map = 0x1234000, luo = 0xabc000, luo_size = 32;

	fdt_create(buf, (int)size);
	fdt_finish_reservemap(buf);
	fdt_begin_node(buf, "");
	fdt_property_string(buf, "compatible", "kho-v4");
	fdt_property(buf, "preserved-memory-map", &map, sizeof(map));
	fdt_begin_node(buf, "LUO");
	fdt_property(buf, "preserved-data", &luo, sizeof(luo));
	fdt_property(buf, "blob-size", &luo_size, sizeof(luo_size));
	fdt_end_node(buf);
	fdt_end_node(buf);
	fdt_finish(buf);
	return fdt_totalsize(buf);
}

static size_t memblock_tree(void *buf, size_t size)
{
	uint64_t start = 0x100000;

	fdt_create(buf, (int)size);
	fdt_finish_reservemap(buf);
	fdt_begin_node(buf, "");
	fdt_property_string(buf, "compatible", "memblock-v1");
	fdt_begin_node(buf, "trace");
	fdt_property_string(buf, "compatible", "reserve-mem-v1");
	fdt_property(buf, "start", &start, sizeof(start));
	fdt_end_node(buf);
	fdt_end_node(buf);
	fdt_finish(buf);
	return fdt_totalsize(buf);
}

static void write_file(const char *name, const void *data, size_t size)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(hf_file_write_atomic(path, data, size, 0600), 0);
}

static int setup(void **state)
{
	struct __attribute__((packed)) {
		char compatible[8];
		uint64_t number, sessions, flbs;
	} luo = {"luo-v5", 3, 0x7000, 0x8000};
	struct __attribute__((packed)) {
		uint32_t version;
		char release[65];
		uint32_t count;
	} metadata = {1, "7.2.12", 2};
	char buf[4096], path[256];
	size_t size;

	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/out/sub_fdts", dir);
	hf_mkdir_p(path, 0700);
	size = root_tree(buf, sizeof(buf));
	write_file("out/fdt", buf, size);
	write_file("out/sub_fdts/LUO", &luo, sizeof(luo));
	write_file("out/sub_fdts/kexec-metadata", &metadata, sizeof(metadata));
	size = memblock_tree(buf, sizeof(buf));
	write_file("out/sub_fdts/memblock", buf, size);
	write_file("out/scratch_phys", "0x1000000\n0x2000000\n", 20);
	write_file("out/scratch_len", "0x400000\n0x800000\n", 18);
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command) == 0 ? 0 : -1;
}

/* The value behind keys, one after the other. */
static struct json_object *dig(struct json_object *json, const char *const *keys)
{
	for (; *keys; keys++)
		if (!json_object_object_get_ex(json, *keys, &json))
			fail_msg("no key %s", *keys);
	return json;
}
#define DIG(json, ...) dig(json, (const char *const[]){__VA_ARGS__, NULL})

static void test_inspect(void **state)
{
	struct json_object *json = NULL;
	struct hf_error e = {0};

	if (hf_kho_inspect(dir, &json, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(json_object_to_json_string_ext(
				    DIG(json, "out", "fdt", "properties", "compatible", "strings"),
				    JSON_C_TO_STRING_PLAIN),
		"[\"kho-v4\"]");
	assert_int_equal(json_object_get_int64(DIG(json, "out", "fdt", "nodes", "LUO", "properties",
				 "preserved-data", "u64")),
		0xabc000);
	assert_string_equal(
		json_object_get_string(DIG(json, "out", "sub_fdts", "LUO", "compatible")),
		"luo-v5");
	assert_int_equal(
		json_object_get_int64(DIG(json, "out", "sub_fdts", "LUO", "liveupdate_num")), 3);
	assert_string_equal(json_object_get_string(DIG(
				    json, "out", "sub_fdts", "kexec-metadata", "previous_release")),
		"7.2.12");
	assert_int_equal(json_object_get_int64(DIG(json, "out", "sub_fdts", "memblock", "nodes",
				 "trace", "properties", "start", "u64")),
		0x100000);
	assert_int_equal(json_object_get_int64(
				 json_object_array_get_idx(DIG(json, "out", "scratch_len"), 1)),
		0x800000);
	assert_false(json_object_object_get_ex(json, "in", NULL));
	json_object_put(json);
}

static void test_abi(void **state)
{
	struct hf_kho_abi abi = {0};

	assert_int_equal(hf_kho_running_abi(dir, &abi, NULL), 0);
	assert_string_equal(abi.kho, "kho-v4");
	assert_string_equal(abi.luo, "luo-v5");
	assert_string_equal(abi.memfd, "");
}

/* No kernel so far shows it; where one does, it is taken. */
static void test_memfd_in_blob(void **state)
{
	static const char blob[] = "luo-v9\0\0filesmemfd-v3\0rest";
	char ret[16];

	hf_kho_blob_memfd(blob, sizeof(blob), ret, sizeof(ret));
	assert_string_equal(ret, "memfd-v3");
	hf_kho_blob_memfd(blob, 20, ret, sizeof(ret));
	assert_string_equal(ret, "");
	hf_kho_blob_memfd(blob, 8, ret, sizeof(ret));
	assert_string_equal(ret, "");
}

static void test_absent(void **state)
{
	struct json_object *json = NULL;
	struct hf_kho_abi abi;
	struct hf_error e = {0};

	assert_int_equal(hf_kho_inspect("/tmp/hf-nowhere/kho", &json, &e), -ENOENT);
	assert_non_null(strstr(e.remedy, "mount"));
	assert_int_equal(hf_kho_running_abi("/tmp/hf-nowhere/kho", &abi, &e), -ENOENT);
	assert_null(json);
}

/* As real kernels show it: nodes were added after the file got its size. */
static void test_root_longer_than_its_file(void **state)
{
	struct json_object *json = NULL, *side, *tree, *incomplete;
	struct hf_kho_abi abi;
	struct hf_error e = {0};
	char buf[4096];
	size_t size = root_tree(buf, sizeof(buf));

	write_file("out/fdt", buf, size - 1);
	assert_int_equal(hf_kho_inspect(dir, &json, &e), 0);
	assert_true(json_object_object_get_ex(json, "out", &side));
	assert_true(json_object_object_get_ex(side, "fdt", &tree));
	assert_true(json_object_object_get_ex(tree, "incomplete", &incomplete));
	assert_true(json_object_get_boolean(incomplete));
	assert_null(json_object_object_get(tree, "nodes"));
	json_object_put(json);
	assert_int_equal(hf_kho_running_abi(dir, &abi, &e), 0);
	assert_string_equal(abi.kho, "kho-v4");
	write_file("out/fdt", buf, size);
}

static void test_cut_and_flipped(void **state)
{
	char buf[4096];
	size_t size = memblock_tree(buf, sizeof(buf));
	struct json_object *json;

	for (size_t n = 0; n <= size; n++) {
		cleanup_free char *cut = malloc(n ? n : 1);
		int r;

		memcpy(cut, buf, n);
		r = hf_kho_fdt_to_json(cut, n, &json, NULL);
		assert_int_equal(r, n == size ? 0 : -EBADMSG);
		if (r == 0)
			json_object_put(json);
		assert_int_equal(hf_kho_blob_to_json("x", cut, n, &json), 0);
		json_object_put(json);
	}
	for (size_t i = 0; i < size; i++) {
		buf[i] ^= 0x55;
		assert_int_equal(hf_kho_blob_to_json("LUO", buf, size, &json), 0);
		json_object_put(json);
		buf[i] ^= 0x55;
	}
}

static void test_depth(void **state)
{
	char buf[4096];
	struct json_object *json;

	fdt_create(buf, sizeof(buf));
	fdt_finish_reservemap(buf);
	for (int i = 0; i < 40; i++)
		fdt_begin_node(buf, i ? "n" : "");
	for (int i = 0; i < 40; i++)
		fdt_end_node(buf);
	fdt_finish(buf);
	assert_int_equal(hf_kho_fdt_to_json(buf, fdt_totalsize(buf), &json, NULL), -EBADMSG);
}

static void test_compatible(void **state)
{
	char text[8], buf[4096];
	size_t size = memblock_tree(buf, sizeof(buf));

	assert_int_equal(hf_kho_blob_compatible("luo-v5\0\0", 8, text, sizeof(text)), 0);
	assert_string_equal(text, "luo-v5");
	assert_int_equal(hf_kho_blob_compatible("luo-v5", 6, text, sizeof(text)), -ENOENT);
	assert_int_equal(hf_kho_blob_compatible("luo\1v5\0\0", 8, text, sizeof(text)), -ENOENT);
	assert_int_equal(hf_kho_blob_compatible("", 0, text, sizeof(text)), -ENOENT);
	assert_int_equal(hf_kho_blob_compatible("long-name-v5\0", 13, text, sizeof(text)), -ENOENT);
	assert_string_equal(text, "");
	/* A tree's is its property's, and it is too long for the room here. */
	assert_int_equal(hf_kho_blob_compatible(buf, size, text, sizeof(text)), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inspect),
		cmocka_unit_test(test_abi),
		cmocka_unit_test(test_memfd_in_blob),
		cmocka_unit_test(test_absent),
		cmocka_unit_test(test_root_longer_than_its_file),
		cmocka_unit_test(test_cut_and_flipped),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_compatible),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
