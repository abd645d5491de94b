/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Which targets are refused, and in what words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/check-target.h"
#include "common/fd.h"
#include "common/json.h"

static struct hf_target target(const char *kho, const char *luo, const char *memfd)
{
	const char *const names[] = {kho, luo, memfd};
	struct hf_target t = HF_TARGET_NONE;

	t.kernel = (char *)"/boot/vmlinuz";
	strcpy(t.image.release, "7.3.4");
	t.image.boot.loaded_high = t.image.boot.kernel_64 = t.image.boot.above_4g = true;
	for (size_t f = 0; f < HF_KERNEL_N_FAMILIES; f++) {
		struct hf_kernel_formats *formats = &t.image.strings.formats[f];

		if (names[f])
			strcpy(formats->names[formats->n++], names[f]);
	}
	return t;
}

static struct hf_running running(const char *kho, const char *luo, const char *memfd)
{
	struct hf_running r = {0};

	strcpy(r.formats.kho, kho);
	strcpy(r.formats.luo, luo);
	strcpy(r.formats.memfd, memfd);
	return r;
}

static struct hf_target_needs needs;

static struct json_object *check(
	const struct hf_target *t, const struct hf_running *r, enum hf_verdict want)
{
	struct json_object *findings = json_object_new_array();

	assert_int_equal(hf_check_target(true, t, NULL, r, &needs, findings), want);
	return findings;
}

/* The finding of this id and verdict, which says all of the words. */
static void expect(
	struct json_object *findings, const char *id, const char *verdict, const char *const *says)
{
	for (size_t i = 0; i < hf_json_array_size(findings); i++) {
		struct json_object *f = json_object_array_get_idx(findings, i);
		const char *message = hf_json_get_string(f, "message", "");

		if (strcmp(hf_json_get_string(f, "id", ""), id) != 0)
			continue;
		assert_string_equal(hf_json_get_string(f, "verdict", ""), verdict);
		for (; *says; says++) {
			if (!strstr(message, *says))
				fail_msg("`%s` does not say `%s`", message, *says);
		}
		if (strcmp(verdict, "ok") != 0)
			assert_true(hf_json_get_string(f, "remedy", "")[0]);
		return;
	}
	fail_msg("no %s in %s", id, json_object_to_json_string(findings));
}

#define SAYS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect_none(struct json_object *findings, const char *id)
{
	for (size_t i = 0; i < hf_json_array_size(findings); i++)
		assert_string_not_equal(
			hf_json_get_string(json_object_array_get_idx(findings, i), "id", ""), id);
}

static void test_fits(void **state)
{
	struct hf_target t = target("kho-v4", "luo-v5", "memfd-v2");
	struct hf_running r = running("kho-v4", "luo-v5", "");
	struct json_object *f = check(&t, &r, HF_OK);

	expect(f, "target.image", "ok", SAYS("/boot/vmlinuz is Linux 7.3.4"));
	expect(f, "target.formats", "ok", SAYS("kho-v4 and luo-v5", "memfd-v2 is not compared"));
	expect_none(f, "target.kexec");
	expect_none(f, "target.config");
	json_object_put(f);
	r = running("kho-v4", "luo-v5", "memfd-v2");
	f = check(&t, &r, HF_OK);
	expect(f, "target.formats", "ok", SAYS("kho-v4, luo-v5, memfd-v2"));
	json_object_put(f);
	/* One that understands an older format as well. */
	strcpy(t.image.strings.formats[HF_KERNEL_LUO].names[1], "luo-v6");
	t.image.strings.formats[HF_KERNEL_LUO].n = 2;
	json_object_put(check(&t, &r, HF_OK));
}

static void test_differs(void **state)
{
	static const struct {
		const char *kho, *luo, *memfd;
		const char *says;
	} bad[] = {
		{"kho-v3", "luo-v5", "memfd-v2", "understands kho-v3, luo-v5, memfd-v2"},
		{"kho-v4", "luo-v6", "memfd-v2", "understands kho-v4, luo-v6, memfd-v2"},
		{"kho-v4", "luo-v5", "memfd-v1", "understands kho-v4, luo-v5, memfd-v1"},
		{NULL, "luo-v5", "memfd-v2", "understands no kho, luo-v5, memfd-v2"},
		{"kho-v4", NULL, "memfd-v2", "understands kho-v4, no luo, memfd-v2"},
		{"kho-v4", "luo-v5", NULL, "understands kho-v4, luo-v5, no memfd"},
		{NULL, NULL, NULL, "understands no kho, no luo, no memfd"},
	};
	struct hf_running r = running("kho-v4", "luo-v5", "memfd-v2");

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		struct hf_target t = target(bad[i].kho, bad[i].luo, bad[i].memfd);
		struct json_object *f = check(&t, &r, HF_REFUSAL);

		expect(f, "target.formats", "refusal",
			SAYS("hands over as kho-v4, luo-v5, memfd-v2", bad[i].says));
		json_object_put(f);
	}
}

/* Without a string of the running kernel's memfds their format can't differ, but it can lack. */
static void test_memfd_unknown(void **state)
{
	struct hf_running r = running("kho-v4", "luo-v5", "");
	struct hf_target t = target("kho-v4", "luo-v5", NULL);
	struct json_object *f = check(&t, &r, HF_REFUSAL);

	expect(f, "target.formats", "refusal",
		SAYS("kho-v4, luo-v5, memfd unknown", "kho-v4, luo-v5, no memfd"));
	json_object_put(f);
	t = target("kho-v4", "luo-v5", "memfd-v9");
	json_object_put(check(&t, &r, HF_OK));
}

static void test_running_unknown(void **state)
{
	struct hf_running r = running("", "", "");
	struct hf_target t = target("kho-v4", "luo-v5", "memfd-v2");
	struct json_object *f;

	hf_error_set(
		&r.formats_error, -ENOENT, HF_ERR_NOT_READY, "mount it", "debugfs is not mounted");
	f = check(&t, &r, HF_WARNING);
	expect(f, "target.formats", "warning",
		SAYS("kho-v4, luo-v5, memfd-v2", "can't be told: debugfs is not mounted"));
	json_object_put(f);
	/* Any of the three missing is enough. */
	t = target("kho-v4", "luo-v5", NULL);
	json_object_put(check(&t, &r, HF_REFUSAL));
	t = target("kho-v4", NULL, "memfd-v2");
	json_object_put(check(&t, &r, HF_REFUSAL));
	t = target(NULL, "luo-v5", "memfd-v2");
	f = check(&t, &r, HF_REFUSAL);
	expect(f, "target.formats", "refusal",
		SAYS("kho unknown, luo unknown, memfd unknown", "no kho, luo-v5, memfd-v2"));
	json_object_put(f);
	/* KHO is there, LUO shows nothing. */
	r = running("kho-v4", "", "");
	t = target("kho-v4", "luo-v5", "memfd-v2");
	json_object_put(check(&t, &r, HF_WARNING));
	t = target("kho-v3", "luo-v5", "memfd-v2");
	json_object_put(check(&t, &r, HF_REFUSAL));
}

static void test_loadable(void **state)
{
	struct hf_running r = running("kho-v4", "luo-v5", "");
	struct hf_target t = target("kho-v4", "luo-v5", "memfd-v2");
	struct json_object *f;

	t.image.boot.above_4g = false;
	f = check(&t, &r, HF_REFUSAL);
	expect(f, "target.kexec", "refusal", SAYS("CONFIG_RELOCATABLE"));
	expect(f, "target.formats", "ok", SAYS("kho-v4"));
	json_object_put(f);
	t.image.kind = HF_KERNEL_UKI;
	f = check(&t, &r, HF_REFUSAL);
	expect(f, "target.kexec", "refusal", SAYS("unified kernel image"));
	json_object_put(f);
}

static void test_no_image(void **state)
{
	struct hf_running r = running("kho-v4", "luo-v5", "");
	struct hf_target t = HF_TARGET_NONE;
	struct json_object *f = json_object_new_array();
	struct hf_error e = {0};

	hf_error_set(&e, -EBADMSG, HF_ERR_NOT_READY, "give another", "/x: not a kernel image: no");
	assert_int_equal(hf_check_target(true, &t, &e, &r, &needs, f), HF_REFUSAL);
	expect(f, "target.image", "refusal", SAYS("/x: not a kernel image: no"));
	assert_int_equal(hf_json_array_size(f), 1);
	json_object_put(f);
}

static void test_config(void **state)
{
	struct hf_running r = running("kho-v4", "luo-v5", "");
	struct hf_target t = target("kho-v4", "luo-v5", "memfd-v2");
	struct json_object *f;

	t.config = (char *)"CONFIG_KVM_AMD=m\nCONFIG_BRIDGE=y\n";
	t.config_path = (char *)"/boot/config-7.3.4";
	f = check(&t, &r, HF_OK);
	expect(f, "target.config", "ok", SAYS("/boot/config-7.3.4"));
	json_object_put(f);
	r.svm = true;
	json_object_put(check(&t, &r, HF_OK));
	r.svm = false;
	r.vmx = true;
	f = check(&t, &r, HF_REFUSAL);
	expect(f, "target.kvm", "refusal", SAYS("no CONFIG_KVM_INTEL", "/boot/config-7.3.4"));
	expect_none(f, "target.config");
	json_object_put(f);
	r.vmx = false;
	needs.bridge = true;
	json_object_put(check(&t, &r, HF_OK));
	needs.tap = true;
	f = check(&t, &r, HF_WARNING);
	expect(f, "target.tun", "warning", SAYS("no CONFIG_TUN"));
	expect_none(f, "target.bridge");
	json_object_put(f);
	t.config = (char *)"CONFIG_TUN=y\n";
	t.config_path = NULL;
	r.svm = true;
	f = check(&t, &r, HF_REFUSAL);
	expect(f, "target.bridge", "warning", SAYS("no CONFIG_BRIDGE", "the configuration in it"));
	expect(f, "target.kvm", "refusal", SAYS("no CONFIG_KVM_AMD"));
	json_object_put(f);
	needs = (struct hf_target_needs){0};
	/* What is not known is not complained about. */
	t.config = NULL;
	json_object_put(check(&t, &r, HF_OK));
}

static void write_cpuinfo(const char *path, const char *text)
{
	assert_int_equal(hf_file_write_atomic(path, text, strlen(text), 0644), 0);
}

static void test_running(void **state)
{
	char dir[] = "/tmp/hf-test-running-XXXXXX", path[64];
	struct hf_running r;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/cpuinfo", dir);
	hf_running_read("/nonexistent/kho", path, &r);
	assert_false(r.svm || r.vmx);
	assert_string_equal(r.formats.kho, "");
	assert_int_equal(r.formats_error.err, -ENOENT);
	assert_non_null(strstr(r.formats_error.remedy, "mount"));
	write_cpuinfo(path, "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu svm sse\n"
			    "bugs\t\t: vmx\n");
	hf_running_read("/nonexistent/kho", path, &r);
	assert_true(r.svm);
	assert_false(r.vmx);
	write_cpuinfo(path, "processor\t: 0\nflags\t\t: fpu svm_lock vmx");
	hf_running_read("/nonexistent/kho", path, &r);
	assert_false(r.svm);
	assert_true(r.vmx);
	unlink(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fits),
		cmocka_unit_test(test_differs),
		cmocka_unit_test(test_memfd_unknown),
		cmocka_unit_test(test_running_unknown),
		cmocka_unit_test(test_loadable),
		cmocka_unit_test(test_no_image),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_running),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
