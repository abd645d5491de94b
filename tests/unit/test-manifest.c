/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The manifest: round trip, golden file, and everything that must be refused.
 *
 * `test-manifest --write FOLDER` writes the sample as manifest-v8.bin and .json, for a new
 * version's golden files.
 */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <json-c/json.h>
#include <libfdt.h>
#include <xxhash.h>

#include "common/fd.h"
#include "memfd-preserve/manifest-schema.h"
#include "memfd-preserve/manifest-wire.h"
#include "tests/unit/manifest-sample.h"

#define CAPACITY (64u << 10)
#define GOLDEN "tests/golden/manifest-v8"

static char *encode(const struct hf_manifest *m, size_t *ret_size)
{
	char *buf = malloc(CAPACITY);
	struct hf_error e = {0};

	memset(buf, 0xee, CAPACITY);
	if (hf_manifest_encode(m, buf, CAPACITY, ret_size, &e) < 0)
		fail_msg("%s", e.message);
	return buf;
}

static char *json_text(const struct hf_manifest *m)
{
	struct json_object *json = hf_manifest_to_json(m);
	char *text;

	assert_non_null(json);
	if (asprintf(&text, "%s\n",
		    json_object_to_json_string_ext(
			    json, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
					  JSON_C_TO_STRING_NOSLASHESCAPE)) < 0)
		abort();
	json_object_put(json);
	return text;
}

/* Gives the envelope around a tree that was changed its right length and checksum again. */
static void seal(char *buf, size_t *size)
{
	struct hf_manifest_header *h = (struct hf_manifest_header *)buf;

	h->tree_bytes = htole64(fdt_totalsize(buf + HF_MANIFEST_HEADER_BYTES));
	*size = HF_MANIFEST_HEADER_BYTES + fdt_totalsize(buf + HF_MANIFEST_HEADER_BYTES);
	h->xxh3 = 0;
	h->xxh3 = htole64(XXH3_64bits(buf, *size));
}

static int at(void *fdt, const char *path)
{
	int node = fdt_path_offset(fdt, path);

	assert_true(node >= 0);
	return node;
}

static int decode_error(const char *buf, size_t size, struct hf_error *e)
{
	struct hf_manifest *m = NULL;
	int r;

	hf_error_clear(e);
	r = hf_manifest_decode(buf, size, &m, e);
	if (r < 0) {
		assert_null(m);
		assert_int_equal(e->err, r);
		assert_true(e->message[0] != 0);
	}
	hf_manifest_free(m);
	return r;
}

static void test_round_trip(void **state)
{
	struct hf_manifest *m = sample_manifest(), *back = NULL;
	char *first, *second, *text, *text_back;
	size_t size, size2;

	first = encode(m, &size);
	assert_int_equal(hf_manifest_decode(first, CAPACITY, &back, NULL), 0);
	second = encode(back, &size2);
	assert_int_equal(size, size2);
	assert_memory_equal(first, second, size);
	text = json_text(m);
	text_back = json_text(back);
	assert_string_equal(text, text_back);
	assert_int_equal(back->n_guests, 2);
	assert_string_equal(back->guests[0]->argv[3], "");
	assert_null(back->guests[0]->argv[6]);
	assert_int_equal(back->guests[0]->net[0].fd, -1);
	assert_int_equal(back->guests[0]->limits.rlimits[3], UINT64_MAX);
	assert_int_equal(back->guests[0]->limits.rlimits[31], 1031);
	assert_int_equal(back->guests[0]->limits.cpus[0], 0x8000000000000005ULL);
	assert_int_equal(back->guests[0]->limits.nice, -5);
	assert_int_equal(back->guests[0]->limits.oom_score_adj, 250);
	assert_int_equal(back->guests[1]->limits.nice, HF_MANIFEST_UNKNOWN);
	assert_int_equal(back->guests[1]->n_argv, 0);
	assert_int_equal(back->guests[0]->policies.priority, 80);
	assert_int_equal(back->guests[0]->policies.clock, HF_CLOCK_FROZEN);
	assert_int_equal(back->guests[0]->policies.resume_timeout_ns, 4 * HF_NSEC_PER_SEC);
	assert_string_equal(back->guests[0]->policies.health_command, "/bin/true -x");
	assert_string_equal(back->guests[0]->settings[1], "health-command=/bin/true -x");
	assert_int_equal(back->guests[1]->policies.priority, 50);
	assert_null(back->guests[1]->policies.health_command);
	assert_int_equal(back->guests[1]->stdio[2].kind, HF_STDIO_NONE);
	free(first);
	free(second);
	free(text);
	free(text_back);
	hf_manifest_free(m);
	hf_manifest_free(back);
}

static struct hf_manifest *read_golden(const char *name, char **ret_data, size_t *ret_size)
{
	struct hf_manifest *m = NULL;
	struct hf_error e = {0};
	char path[128];

	snprintf(path, sizeof(path), "%s.bin", name);
	assert_int_equal(hf_file_read(path, 1 << 20, ret_data, ret_size), 0);
	if (hf_manifest_decode(*ret_data, *ret_size, &m, &e) < 0)
		fail_msg("%s", e.message);
	return m;
}

/* What the newest version writes is read, and written again just so. */
static void test_golden(void **state)
{
	cleanup_free char *golden = NULL, *golden_json = NULL, *again = NULL, *text = NULL;
	size_t size, again_size;
	struct hf_manifest *m = read_golden(GOLDEN, &golden, &size);

	assert_int_equal(hf_file_read(GOLDEN ".json", 1 << 20, &golden_json, NULL), 0);
	text = json_text(m);
	assert_string_equal(text, golden_json);
	again = encode(m, &again_size);
	assert_int_equal(again_size, size);
	assert_memory_equal(again, golden, size);
	hf_manifest_free(m);
}

/* Whatever a version said is still there, as it was; there may be more now. */
static void expect_within(struct json_object *old, struct json_object *now, const char *where)
{
	if (json_object_is_type(old, json_type_object)) {
		json_object_object_foreach (old, key, value) {
			struct json_object *other;

			if (!json_object_object_get_ex(now, key, &other))
				fail_msg("%s of %s is gone", key, where);
			expect_within(value, other, key);
		}
		return;
	}
	if (!json_object_is_type(old, json_type_array)) {
		if (!json_object_equal(old, now))
			fail_msg("%s is %s", where, json_object_to_json_string(now));
		return;
	}
	assert_true(json_object_is_type(now, json_type_array));
	assert_int_equal(json_object_array_length(old), json_object_array_length(now));
	for (size_t i = 0; i < json_object_array_length(old); i++)
		expect_within(json_object_array_get_idx(old, i), json_object_array_get_idx(now, i),
			where);
}

static void expect_json_within(const char *path, const struct hf_manifest *m)
{
	struct json_object *old = json_object_from_file(path), *now = hf_manifest_to_json(m);

	assert_non_null(old);
	expect_within(old, now, "the manifest");
	json_object_put(old);
	json_object_put(now);
}

/* Of an older version, with all that it said. */
static struct hf_manifest *read_old(unsigned int version)
{
	cleanup_free char *golden = NULL;
	struct hf_manifest *m;
	char name[64], json[80];
	size_t size;

	snprintf(name, sizeof(name), "tests/golden/manifest-v%u", version);
	snprintf(json, sizeof(json), "%s.json", name);
	m = read_golden(name, &golden, &size);
	assert_int_equal(m->version, version);
	assert_int_equal(m->n_guests, 2);
	expect_json_within(json, m);
	return m;
}

/* A manifest of version 1 has no limits: the new VMM gets the agent's, as it did then. */
static void test_golden_v1(void **state)
{
	struct hf_manifest *m = read_old(1);

	for (size_t i = 0; i < m->n_guests; i++) {
		const struct hf_manifest_limits *l = &m->guests[i]->limits;

		assert_int_equal(l->n_rlimits, 0);
		assert_int_equal(l->n_cpus, 0);
		assert_int_equal(l->nice, HF_MANIFEST_UNKNOWN);
		assert_int_equal(l->oom_score_adj, HF_MANIFEST_UNKNOWN);
	}
	hf_manifest_free(m);
}

/* A manifest of version 2 says nothing of policies: they are what was done then. */
static void test_golden_v2(void **state)
{
	struct hf_manifest *m = read_old(2);
	struct hf_policy defaults;

	hf_policy_init(&defaults);
	for (size_t i = 0; i < m->n_guests; i++) {
		assert_memory_equal(&m->guests[i]->policies, &defaults, sizeof(defaults));
		assert_int_equal(m->guests[i]->n_settings, 0);
	}
	hf_manifest_free(m);
}

/* A manifest of version 3 says nothing of the clock, nor of guest agents: nothing is done then. */
static void test_golden_v3(void **state)
{
	struct hf_manifest *m = read_old(3);

	assert_int_equal(m->clock_tsc, 0);
	assert_int_equal(m->clock_ns, 0);
	assert_false(m->guests[0]->agent_answered);
	assert_int_equal(m->guests[0]->policies.priority, 80);
	hf_manifest_free(m);
}

/*
 * A manifest of version 4 has only guests that were saved, and none that was adopted: every state
 * is loaded with x-ignore-shared.
 */
static void test_golden_v4(void **state)
{
	struct hf_manifest *m = read_old(4);

	for (size_t i = 0; i < m->n_guests; i++) {
		assert_null(m->guests[i]->not_saved);
		assert_int_equal(m->guests[i]->policies.save_failure, HF_SAVE_FAILURE_ROLLBACK);
		assert_false(m->guests[i]->ram_copied);
		assert_int_equal(m->guests[i]->adopted_pid, 0);
		assert_int_equal(m->guests[i]->adopted_start_ticks, 0);
	}
	assert_int_equal(m->clock_width, 120);
	hf_manifest_free(m);
}

/* Version 5 knew nothing of what a VMM inherits. */
static void test_golden_v5(void **state)
{
	struct hf_manifest *m = read_old(5);

	for (size_t i = 0; i < m->n_guests; i++) {
		assert_false(m->guests[i]->inherits);
		assert_int_equal(
			m->guests[i]->n_fds + m->guests[i]->n_folders + m->guests[i]->n_helpers, 0);
		assert_null(m->guests[i]->libvirt_status);
	}
	assert_true(m->guests[0]->ram_copied);
	hf_manifest_free(m);
}

/* Version 6 had no files among the descriptors. */
static void test_golden_v6(void **state)
{
	struct hf_manifest *m = read_old(6);

	assert_true(m->guests[0]->inherits);
	assert_int_equal(m->guests[0]->n_fds, 2);
	assert_int_equal(m->guests[0]->fds[1].kind, HF_FD_VHOST);
	hf_manifest_free(m);
}

/* Version 7 said nothing of disks. */
static void test_golden_v7(void **state)
{
	struct hf_manifest *m = read_old(7);

	assert_int_equal(m->guests[0]->n_disks + m->guests[1]->n_disks, 0);
	assert_int_equal(m->guests[0]->n_fds, 3);
	assert_int_equal(m->guests[0]->fds[2].kind, HF_FD_FILE);
	hf_manifest_free(m);
}

/* Who doesn't know it would load the state as another one. Where it isn't set, old readers do well.
 */
static void test_ram_copied_is_required(void **state)
{
	struct hf_manifest *m = sample_manifest();
	size_t size;
	char *buf = encode(m, &size);
	void *fdt = buf + HF_MANIFEST_HEADER_BYTES;
	int len;

	assert_non_null(fdt_getprop(fdt, at(fdt, "/guests/guest@0"), "required,ram-copied", &len));
	assert_null(fdt_getprop(fdt, at(fdt, "/guests/guest@1"), "required,ram-copied", &len));
	hf_manifest_free(m);
	free(buf);
}

/* What a newer build may want done, and this one doesn't know, is as if it weren't there. */
static void test_unknown_choice(void **state)
{
	struct hf_manifest *m = sample_manifest(), *back = NULL;
	size_t size;
	char *buf = encode(m, &size);
	void *fdt = buf + HF_MANIFEST_HEADER_BYTES;
	struct hf_error e = {0};

	fdt_open_into(fdt, fdt, CAPACITY - HF_MANIFEST_HEADER_BYTES);
	fdt_setprop_string(fdt, at(fdt, "/guests/guest@0"), "resume-failure", "clone");
	fdt_setprop_u32(fdt, at(fdt, "/guests/guest@0"), "priority", 4000);
	seal(buf, &size);
	if (hf_manifest_decode(buf, size, &back, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(back->guests[0]->policies.resume_failure, HF_RESUME_FAILURE_HOLD);
	assert_int_equal(back->guests[0]->policies.not_eligible, HF_NOT_ELIGIBLE_SHUTDOWN);
	hf_policy_repair(&back->guests[0]->policies);
	assert_int_equal(back->guests[0]->policies.priority, 50);
	hf_manifest_free(m);
	hf_manifest_free(back);
	free(buf);
}

static void test_cut_and_flipped(void **state)
{
	struct hf_manifest *m = sample_manifest();
	struct hf_error e = {0};
	size_t size;
	char *buf = encode(m, &size);

	for (size_t n = 0; n < size; n++) {
		char *cut = malloc(n ? n : 1); /* so that a read past the end is seen */

		memcpy(cut, buf, n);
		assert_int_equal(decode_error(cut, n, &e), -EBADMSG);
		free(cut);
	}
	for (size_t i = 0; i < size; i++) {
		for (int bit = 0; bit < 8; bit += 7) {
			int r;

			buf[i] ^= (char)(1 << bit);
			r = decode_error(buf, CAPACITY, &e);
			assert_true(r == -EBADMSG || r == -EPROTONOSUPPORT);
			buf[i] ^= (char)(1 << bit);
		}
	}
	assert_int_equal(decode_error(buf, CAPACITY, &e), 0);
	memset(buf, 0, CAPACITY);
	assert_int_equal(decode_error(buf, CAPACITY, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "never written"));
	free(buf);
	hf_manifest_free(m);
}

/* Flips in the tree whose checksum was made right again: any answer, but no crash. */
static void test_flipped_and_sealed(void **state)
{
	struct hf_manifest *m = sample_manifest();
	struct hf_error e = {0};
	size_t size;
	char *buf = encode(m, &size), *copy = malloc(CAPACITY);

	for (size_t i = HF_MANIFEST_HEADER_BYTES; i < size; i++) {
		struct hf_manifest_header *h = (struct hf_manifest_header *)copy;

		memcpy(copy, buf, size);
		copy[i] ^= 0x11;
		h->xxh3 = 0;
		h->xxh3 = htole64(XXH3_64bits(copy, size));
		decode_error(copy, size, &e);
	}
	free(copy);
	free(buf);
	hf_manifest_free(m);
}

typedef void (*change_fn)(void *fdt);

/* Decode the sample with a change to its tree. */
static int with_change(change_fn change, struct hf_error *e)
{
	struct hf_manifest *m = sample_manifest();
	size_t size;
	char *buf = encode(m, &size);
	void *fdt = buf + HF_MANIFEST_HEADER_BYTES;
	int r;

	assert_int_equal(fdt_open_into(fdt, fdt, CAPACITY - HF_MANIFEST_HEADER_BYTES), 0);
	change(fdt);
	assert_int_equal(fdt_pack(fdt), 0);
	seal(buf, &size);
	r = decode_error(buf, size, e);
	free(buf);
	hf_manifest_free(m);
	return r;
}

static void no_change(void *fdt)
{
}
static void unknown_property(void *fdt)
{
	fdt_setprop_string(fdt, 0, "flavour", "new");
	fdt_setprop_string(fdt, at(fdt, "/guests/guest@0"), "flavour", "new");
	fdt_setprop_string(fdt, at(fdt, "/guests"), "flavour", "new");
}
static void unknown_node(void *fdt)
{
	fdt_add_subnode(fdt, 0, "extras");
	fdt_add_subnode(fdt, at(fdt, "/guests/guest@0/ram"), "hint");
}
static void required_property(void *fdt)
{
	fdt_setprop_string(fdt, 0, "required,flavour", "new");
}
static void required_in_guest(void *fdt)
{
	fdt_setprop_string(fdt, at(fdt, "/guests/guest@1"), "required,vtpm", "");
}
static void required_node(void *fdt)
{
	fdt_add_subnode(fdt, at(fdt, "/guests/guest@0"), "required,vfio");
}
static void required_item(void *fdt)
{
	fdt_add_subnode(fdt, at(fdt, "/guests/guest@0/ram"), "required,hugetlb@0");
}
static void newer_but_compatible(void *fdt)
{
	fdt_setprop_u32(fdt, 0, "version", 9);
}
static void too_new(void *fdt)
{
	fdt_setprop_u32(fdt, 0, "version", 9);
	fdt_setprop_u32(fdt, 0, "min-reader-version", HF_MANIFEST_VERSION + 1);
}
static void other_compatible(void *fdt)
{
	fdt_setprop_string(fdt, 0, "compatible", "holdfast,manifest-v2");
}
static void no_uuid(void *fdt)
{
	fdt_delprop(fdt, at(fdt, "/guests/guest@0"), "uuid");
}
static void bad_uuid(void *fdt)
{
	fdt_setprop_string(fdt, at(fdt, "/guests/guest@0"), "uuid", "../../etc/passwd");
}
static void no_size(void *fdt)
{
	fdt_delprop(fdt, at(fdt, "/guests/guest@0/ram/block@0"), "size");
}
static void short_number(void *fdt)
{
	fdt_setprop(fdt, 0, "tsc-hz", "abc", 3);
}
static void string_without_end(void *fdt)
{
	fdt_setprop(fdt, 0, "writer", "abc", 3);
}
static void string_with_nul(void *fdt)
{
	fdt_setprop(fdt, 0, "writer", "a\0b", 4);
}
static void strings_without_end(void *fdt)
{
	fdt_setprop(fdt, at(fdt, "/guests/guest@0"), "argv", "a\0b", 3);
}
static void bad_bool(void *fdt)
{
	fdt_setprop_u32(fdt, at(fdt, "/guests/guest@0"), "was-running", 2);
}
static void four_streams(void *fdt)
{
	fdt_add_subnode(fdt, at(fdt, "/guests/guest@0/stdio"), "stream@3");
}
static void two_rams(void *fdt)
{
	/* libfdt refuses a doubled name, so one node is renamed to another's. */
	fdt_set_name(fdt, at(fdt, "/guests/guest@0/net"), "ram");
}
static void many_strings(void *fdt)
{
	char value[HF_MANIFEST_MAX_STRINGS + 1] = "";

	fdt_setprop(fdt, at(fdt, "/guests/guest@0"), "argv", value, sizeof(value));
}
static void odd_groups(void *fdt)
{
	fdt_setprop(fdt, at(fdt, "/guests/guest@0"), "groups", "abcdef", 6);
}
static void odd_limits(void *fdt)
{
	fdt_setprop(fdt, at(fdt, "/guests/guest@0"), "limits", "abcdefghijkl", 12);
}
static void many_limits(void *fdt)
{
	uint64_t value[HF_MANIFEST_MAX_RLIMITS + 1] = {0};

	fdt_setprop(fdt, at(fdt, "/guests/guest@0"), "limits", value, sizeof(value));
}
static void no_limits(void *fdt)
{
	fdt_setprop(fdt, at(fdt, "/guests/guest@0"), "limits", "", 0);
	fdt_delprop(fdt, at(fdt, "/guests/guest@0"), "cpus");
	fdt_delprop(fdt, at(fdt, "/guests/guest@0"), "nice");
	fdt_delprop(fdt, at(fdt, "/guests/guest@0"), "oom-score-adj");
}

static void test_changes(void **state)
{
	static const struct {
		const char *name;
		change_fn change;
		int expected;
	} cases[] = {
		{"no change", no_change, 0},
		{"unknown property", unknown_property, 0},
		{"unknown node", unknown_node, 0},
		{"newer but compatible", newer_but_compatible, 0},
		{"required property", required_property, -EPROTONOSUPPORT},
		{"required in guest", required_in_guest, -EPROTONOSUPPORT},
		{"required node", required_node, -EPROTONOSUPPORT},
		{"required item", required_item, -EPROTONOSUPPORT},
		{"too new", too_new, -EPROTONOSUPPORT},
		{"other compatible", other_compatible, -EBADMSG},
		{"no uuid", no_uuid, -EBADMSG},
		{"bad uuid", bad_uuid, -EBADMSG},
		{"no size", no_size, -EBADMSG},
		{"short number", short_number, -EBADMSG},
		{"string without end", string_without_end, -EBADMSG},
		{"string with NUL", string_with_nul, -EBADMSG},
		{"strings without end", strings_without_end, -EBADMSG},
		{"bad bool", bad_bool, -EBADMSG},
		{"four streams", four_streams, -EBADMSG},
		{"two rams", two_rams, -EBADMSG},
		{"many strings", many_strings, -EBADMSG},
		{"odd groups", odd_groups, -EBADMSG},
		{"odd limits", odd_limits, -EBADMSG},
		{"many limits", many_limits, -EBADMSG},
		{"no limits", no_limits, 0},
	};
	struct hf_error e = {0};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		int r = with_change(cases[i].change, &e);

		if (r != cases[i].expected)
			fail_msg("%s: %d (%s)", cases[i].name, r, e.message);
		if (r == -EPROTONOSUPPORT)
			assert_non_null(strstr(e.remedy, "newer"));
	}
}

static void test_newer_envelope(void **state)
{
	struct hf_manifest *m = sample_manifest();
	struct hf_error e = {0};
	size_t size;
	char *buf = encode(m, &size);

	((struct hf_manifest_header *)buf)->format = htole32(2);
	assert_int_equal(decode_error(buf, size, &e), -EPROTONOSUPPORT);
	free(buf);
	hf_manifest_free(m);
}

static void test_encode_refuses(void **state)
{
	struct hf_manifest *m = sample_manifest();
	struct hf_error e = {0};
	size_t size = 0;
	cleanup_free char *buf = malloc(CAPACITY);
	char *big = calloc(1, HF_MANIFEST_MAX_STRING + 1);

	for (size_t capacity = 0; capacity < 2048; capacity += 8)
		assert_int_equal(hf_manifest_encode(m, buf, capacity, &size, &e), -EFBIG);
	assert_non_null(strstr(e.message, "2 guests"));
	assert_int_equal(size, 0);
	assert_int_equal(hf_manifest_encode(m, buf + 1, CAPACITY - 1, &size, &e), -EINVAL);

	strcpy(m->guests[0]->uuid, "nonsense");
	assert_int_equal(hf_manifest_encode(m, buf, CAPACITY, &size, &e), -EINVAL);
	assert_non_null(strstr(e.message, "`uuid` of a guest of guest web is not a UUID"));
	strcpy(m->guests[0]->uuid, "6f1c1d3e-8a43-4a3c-9a53-0d6d0f2f7b11");
	hf_manifest_set(&m->guests[1]->vmm, NULL);
	assert_int_equal(hf_manifest_encode(m, buf, CAPACITY, &size, &e), -EINVAL);
	assert_non_null(strstr(e.message, "`vmm`"));
	assert_non_null(strstr(e.message, "bare"));
	memset(big, 'x', HF_MANIFEST_MAX_STRING);
	hf_manifest_set(&m->guests[1]->vmm, big);
	assert_int_equal(hf_manifest_encode(m, buf, CAPACITY, &size, &e), -EINVAL);
	hf_manifest_set(&m->guests[1]->vmm, "qemu");
	m->guests[0]->limits.n_cpus = HF_MANIFEST_MAX_CPUS + 1;
	assert_int_equal(hf_manifest_encode(m, buf, CAPACITY, &size, &e), -EINVAL);
	assert_non_null(strstr(e.message, "`cpus`"));
	free(big);
	hf_manifest_free(m);
}

static void test_many_guests(void **state)
{
	struct hf_manifest *m = sample_manifest(), *back = NULL;
	size_t capacity = 1 << 20, size = 0;
	cleanup_free char *buf = malloc(capacity);
	struct timespec a, b;

	for (int i = 0; i < 98; i++)
		sample_guest(m);
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(hf_manifest_encode(m, buf, capacity, &size, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	print_message("100 guests: %zu bytes, encoded in %ld us\n", size,
		(b.tv_sec - a.tv_sec) * 1000000 + (b.tv_nsec - a.tv_nsec) / 1000);
	assert_int_equal(hf_manifest_decode(buf, capacity, &back, NULL), 0);
	assert_int_equal(back->n_guests, 100);
	hf_manifest_free(back);
	hf_manifest_free(m);
}

/* However large the buffer, no more of it is touched than the manifest takes. */
static void test_touches_little(void **state)
{
	struct hf_manifest *m = sample_manifest();
	cleanup_free unsigned char *buf = malloc(CAPACITY);
	size_t size = 0, touched = CAPACITY;

	memset(buf, 0xee, CAPACITY);
	assert_int_equal(hf_manifest_encode(m, buf, CAPACITY, &size, NULL), 0);
	while (touched > size && buf[touched - 1] == 0xee)
		touched--;
	assert_in_range(touched, size, 2 * size);
	hf_manifest_free(m);
}

static void test_editing(void **state)
{
	struct hf_manifest *m = sample_manifest();
	struct hf_manifest_guest *web = hf_manifest_find_guest(m, "web"), *bare;

	assert_non_null(web);
	bare = hf_manifest_find_guest(m, "00000000-0000-4000-8000-000000000002");
	assert_string_equal(bare->name, "bare");
	assert_null(hf_manifest_find_guest(m, "nobody"));
	hf_manifest_remove_guest(m, web);
	assert_int_equal(m->n_guests, 1);
	assert_ptr_equal(m->guests[0], bare);
	hf_manifest_remove_guest(m, bare);
	assert_int_equal(m->n_guests, 0);
	hf_manifest_free(m);
	hf_manifest_free(NULL);
}

/* The document names every property, container and item there is. */
static void expect_documented(const char *text, const struct node_type *type)
{
	char word[80];

	for (size_t i = 0; i < type->n_fields; i++) {
		snprintf(word, sizeof(word), "`%s`", type->fields[i].name);
		if (!strstr(text, word))
			fail_msg("docs/FORMATS.md lacks %s", word);
	}
	for (size_t i = 0; i < type->n_lists; i++) {
		snprintf(word, sizeof(word), "/%s/%s@N", type->lists[i].container,
			type->lists[i].item);
		if (!strstr(text, word))
			fail_msg("docs/FORMATS.md lacks %s", word);
		expect_documented(text, type->lists[i].type);
	}
}

static void test_document(void **state)
{
	cleanup_free char *text = NULL;

	assert_int_equal(hf_file_read("docs/FORMATS.md", 1 << 20, &text, NULL), 0);
	expect_documented(text, &hf_manifest_schema_root);
}

static int write_golden(const char *folder)
{
	struct hf_manifest *m = sample_manifest();
	size_t size;
	char *buf = encode(m, &size), *text = json_text(m), path[4096];
	int r;

	snprintf(path, sizeof(path), "%s/manifest-v8.bin", folder);
	r = hf_file_write_atomic(path, buf, size, 0644);
	snprintf(path, sizeof(path), "%s/manifest-v8.json", folder);
	if (r == 0)
		r = hf_file_write_atomic(path, text, strlen(text), 0644);
	free(buf);
	free(text);
	hf_manifest_free(m);
	return r < 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_golden_v1),
		cmocka_unit_test(test_golden_v2),
		cmocka_unit_test(test_golden_v3),
		cmocka_unit_test(test_golden_v4),
		cmocka_unit_test(test_golden_v5),
		cmocka_unit_test(test_golden_v6),
		cmocka_unit_test(test_golden_v7),
		cmocka_unit_test(test_ram_copied_is_required),
		cmocka_unit_test(test_unknown_choice),
		cmocka_unit_test(test_cut_and_flipped),
		cmocka_unit_test(test_flipped_and_sealed),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_newer_envelope),
		cmocka_unit_test(test_encode_refuses),
		cmocka_unit_test(test_many_guests),
		cmocka_unit_test(test_touches_little),
		cmocka_unit_test(test_editing),
		cmocka_unit_test(test_document),
	};

	if (argc == 3 && strcmp(argv[1], "--write") == 0)
		return write_golden(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
