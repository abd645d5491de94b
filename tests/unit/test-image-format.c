/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The format of images: released ones are read for ever, and what makes no sense is refused.
 */
#include "image-rig.h"

#include <endian.h>
#include <xxhash.h>

/* Of tests/golden/image-v1*.img: 192 KiB with data, zeros and a hole, and a page. */
static const uint8_t golden_machine[HF_IMAGE_UUID_BYTES] = "golden machine.";
static const uint8_t golden_guest[HF_IMAGE_UUID_BYTES] = "golden guest...";
static const uint8_t golden_kek[HF_IMAGE_KEY_BYTES] = "the key of the golden images....";

static void golden_ram(struct ram rams[2])
{
	rams[0] = ram_new(3 * CHUNK);
	rams[1] = ram_new(4096);
	for (uint64_t i = 0; i < CHUNK; i++)
		rams[0].map[i] = (uint8_t)(i * 7 / 5);
	memset(rams[0].map + CHUNK, 0, CHUNK);
	memset(rams[1].map, 0x5a, 4096);
}

static uint8_t *golden_file(const char *name, size_t *ret_size)
{
	char path[100];
	char *data = NULL;

	snprintf(path, sizeof(path), "tests/golden/%s", name);
	assert_int_equal(hf_file_read(path, MIB, &data, ret_size), 0);
	return (uint8_t *)data;
}

static void check_encoding(const uint8_t *data, size_t size)
{
	struct hf_image_header h;
	struct hf_image_commit c;
	struct hf_image_block_info *blocks;
	uint8_t page[HF_IMAGE_PAGE_BYTES];

	must(hf_image_header_decode(data, size, &h, &error));
	hf_image_header_encode(&h, page);
	assert_memory_equal(page, data, sizeof(page));
	must(hf_image_commit_decode(
		data + HF_IMAGE_COMMIT_OFFSET, HF_IMAGE_PAGE_BYTES, &h, &c, &error));
	hf_image_commit_encode(&c, false, page);
	assert_memory_equal(page, data + HF_IMAGE_COMMIT_OFFSET, sizeof(page));
	assert_int_equal(c.file_bytes, size);
	must(hf_image_table_decode(data + HF_IMAGE_TABLE_OFFSET,
		h.data_offset - HF_IMAGE_TABLE_OFFSET, &h, &blocks, &error));
	for (uint32_t i = 0; i < h.n_blocks; i++) {
		hf_image_block_encode(&blocks[i], page);
		assert_memory_equal(page, data + HF_IMAGE_TABLE_OFFSET + i * HF_IMAGE_BLOCK_BYTES,
			HF_IMAGE_BLOCK_BYTES);
	}
	must(hf_image_index_check(data + c.index_offset, c.index_bytes, &h, &c, &error));
	for (uint64_t i = 0; i < h.n_chunks; i++) {
		const uint8_t *at = data + c.index_offset + i * HF_IMAGE_ENTRY_BYTES;
		struct hf_image_entry entry;

		hf_image_entry_decode(at, &entry);
		hf_image_entry_encode(&entry, page);
		assert_memory_equal(page, at, HF_IMAGE_ENTRY_BYTES);
	}
	free(blocks);
}

static void test_golden(void **state)
{
	static const char *const names[] = {"image-v1.img", "image-v1-encrypted.img"};
	struct ram rams[2];

	golden_ram(rams);
	for (int i = 0; i < 2; i++) {
		struct hf_image_keys of_golden = hf_image_kek(golden_kek);
		struct hf_image_load_config config = {.folder = folder,
			.name = names[i],
			.guest = golden_guest,
			.keys = i ? &of_golden : NULL,
			.plaintext = !i};
		struct hf_image_loaded l = {0};
		char path[300];
		size_t size;
		cleanup_free uint8_t *data = golden_file(names[i], &size);

		memcpy(config.machine, golden_machine, sizeof(config.machine));
		check_encoding(data, size);
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		assert_int_equal(hf_file_write_atomic(path, data, size, 0600), 0);
		must(hf_image_load(engine, &config, NULL, &l, &error));
		assert_int_equal(l.n_blocks, 2);
		assert_int_equal(l.blocks[0].token, 7);
		assert_string_equal(l.blocks[0].id, "pc.ram");
		assert_true(l.blocks[0].huge);
		assert_int_equal(l.blocks[1].token, 1ULL << 63);
		check_same(&rams[0], &l.blocks[0]);
		check_same(&rams[1], &l.blocks[1]);
		assert_int_equal(l.stats.data_chunks, 2);
		hf_image_loaded_release(&l);
	}
	ram_free(&rams[0]);
	ram_free(&rams[1]);
}

static void test_lay_out(void **state)
{
	static const struct {
		uint64_t sizes[2];
		uint32_t shift;
		uint64_t n;
	} cases[] = {
		{{1, 1}, 16, 2},
		{{65536, 65537}, 16, 3},
		{{(32ULL << 30) - 65536, 65536}, 16, 1 << 19},
		{{32ULL << 30, 1}, 17, (1 << 18) + 1},
		{{256ULL << 30, 1}, 20, (1 << 18) + 1},
		{{(1ULL << 40) - 1, 1}, 20, 0}, /* one too many */
		{{1ULL << 40, 0}, 20, 1 << 20},
		{{INT64_MAX, INT64_MAX}, 0, 0},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct hf_image_block_info b[2] = {
			{.size = cases[i].sizes[0]}, {.size = cases[i].sizes[1]}};
		uint32_t shift = 0;
		uint64_t n = 0;
		int r = hf_image_lay_out(0, b, 2, &shift, &n, &error);

		if (cases[i].n == 0) {
			assert_int_equal(r, -EFBIG);
			continue;
		}
		assert_int_equal(r, 0);
		assert_int_equal(shift, cases[i].shift);
		assert_int_equal(n, cases[i].n);
		assert_int_equal(b[1].first_chunk, b[0].n_chunks);
	}
}

/* A change to a header, with its checksum made right again. */
static int with_header(const uint8_t *data, size_t at, uint32_t value)
{
	uint8_t page[HF_IMAGE_PAGE_BYTES];
	struct hf_image_header h;
	uint64_t xxh3;

	memcpy(page, data, sizeof(page));
	value = htole32(value);
	memcpy(page + at, &value, sizeof(value));
	xxh3 = htole64(XXH3_64bits(page, sizeof(page) - 8));
	memcpy(page + sizeof(page) - 8, &xxh3, sizeof(xxh3));
	return hf_image_header_decode(page, sizeof(page), &h, &error);
}

static void test_header(void **state)
{
	size_t size;
	cleanup_free uint8_t *data = golden_file("image-v1.img", &size);
	struct hf_image_header h;

	assert_int_equal(with_header(data, 8, 2), 0); /* newer, but for us to read */
	assert_int_equal(with_header(data, 12, 2), -EPROTONOSUPPORT);
	assert_non_null(strstr(error.message, "version 2"));
	assert_int_equal(with_header(data, 8, 0), -EBADMSG);
	assert_int_equal(with_header(data, 72, 2), -EPROTONOSUPPORT); /* cipher */
	assert_int_equal(with_header(data, 72, 1), -EBADMSG);	      /* without a key */
	assert_int_equal(with_header(data, 76, 15), -EBADMSG);
	assert_int_equal(with_header(data, 76, 21), -EBADMSG);
	assert_int_equal(with_header(data, 80, 0), -EBADMSG);
	assert_int_equal(with_header(data, 80, 257), -EBADMSG);
	assert_int_equal(with_header(data, 80, 200), -EBADMSG); /* data begin elsewhere then */
	assert_int_equal(with_header(data, 84, 1 << 20), -EBADMSG);
	assert_int_equal(with_header(data, 88, (1 << 20) + 1), -EBADMSG);
	assert_int_equal(with_header(data, 1000, 1), 0); /* reserved */
	assert_int_equal(hf_image_header_decode(data, 4095, &h, &error), -EBADMSG);
	data[0] ^= 1;
	assert_int_equal(hf_image_header_decode(data, size, &h, &error), -EBADMSG);
	assert_non_null(strstr(error.message, "no image"));
}

static void test_table(void **state)
{
	struct hf_image_block_info in[2] = {{.token = 1, .size = 100}, {.token = 2, .size = CHUNK}};
	struct hf_image_header h = {.n_blocks = 2, .n_chunks = 2, .chunk_shift = 16};
	struct hf_image_block_info *out = NULL;
	uint8_t table[2 * HF_IMAGE_BLOCK_BYTES];

	for (int i = 0; i < 2; i++)
		hf_image_block_encode(&in[i], table + (size_t)i * HF_IMAGE_BLOCK_BYTES);
	must(hf_image_table_decode(table, sizeof(table), &h, &out, &error));
	assert_int_equal(out[1].first_chunk, 1);
	free(out);
	assert_int_equal(
		hf_image_table_decode(table, sizeof(table) - 1, &h, &out, &error), -EBADMSG);
	h.n_chunks = 3;
	assert_int_equal(hf_image_table_decode(table, sizeof(table), &h, &out, &error), -EBADMSG);
	h.n_chunks = 2;
	table[16] = 2; /* a flag */
	assert_int_equal(
		hf_image_table_decode(table, sizeof(table), &h, &out, &error), -EPROTONOSUPPORT);
	table[16] = 0;
	table[0] = 2; /* token */
	assert_int_equal(hf_image_table_decode(table, sizeof(table), &h, &out, &error), -EBADMSG);
	table[0] = 1;
	memset(table + 24, 'x', HF_IMAGE_ID_BYTES);
	assert_int_equal(hf_image_table_decode(table, sizeof(table), &h, &out, &error), -EBADMSG);
	table[24] = 0;
	table[63] = 0;
	memset(table + 8, 0xff, 8); /* size */
	assert_int_equal(hf_image_table_decode(table, sizeof(table), &h, &out, &error), -EBADMSG);
	table[15] = 0x7f;
	assert_int_equal(hf_image_table_decode(table, sizeof(table), &h, &out, &error), -EBADMSG);
	memset(table + 8, 0, 8);
	assert_int_equal(hf_image_table_decode(table, sizeof(table), &h, &out, &error), -EBADMSG);
}

static void test_index(void **state)
{
	struct hf_image_header h = {.n_chunks = 3};
	struct hf_image_commit c = {.n_slots = 2, .n_data = 2, .passes = 2};
	const struct hf_image_entry good[3] = {{.kind = HF_IMAGE_DATA, .slot = 1, .generation = 2},
		{.kind = HF_IMAGE_ZERO}, {.kind = HF_IMAGE_DATA, .slot = 0, .generation = 1}};
	static const struct {
		int entry;
		struct hf_image_entry is;
	} cases[] = {
		{1, {.kind = HF_IMAGE_DATA, .slot = 2, .generation = 1}},
		{2, {.kind = HF_IMAGE_DATA, .slot = 1, .generation = 1}},
		{2, {.kind = HF_IMAGE_DATA, .slot = 0, .generation = 3}},
		{2, {.kind = HF_IMAGE_DATA, .slot = 0, .generation = 0}},
		{0, {.kind = HF_IMAGE_HOLE}},
		{1, {.kind = 3}},
	};
	uint8_t index[3 * HF_IMAGE_ENTRY_BYTES];

	for (size_t i = 0; i <= HF_ARRAY_SIZE(cases); i++) {
		for (int k = 0; k < 3; k++)
			hf_image_entry_encode(&good[k], index + (size_t)k * HF_IMAGE_ENTRY_BYTES);
		if (i == HF_ARRAY_SIZE(cases)) {
			must(hf_image_index_check(index, sizeof(index), &h, &c, &error));
			break;
		}
		hf_image_entry_encode(
			&cases[i].is, index + (size_t)cases[i].entry * HF_IMAGE_ENTRY_BYTES);
		assert_int_equal(
			hf_image_index_check(index, sizeof(index), &h, &c, &error), -EBADMSG);
	}
	assert_int_equal(hf_image_index_check(index, sizeof(index) - 1, &h, &c, &error), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_lay_out),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_index),
	};

	return cmocka_run_group_tests(tests, rig_setup, rig_teardown);
}
