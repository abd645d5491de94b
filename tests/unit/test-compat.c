/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What is said of a guest whose QEMU is not the one that is installed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "vmm-glue/compat.h"

static char *all_machines[] = {
	(char *)"pc", (char *)"pc-q35-7.2", (char *)"pc-q35-10.0", (char *)"pc-q35-11.1", NULL};
static char *old_machines[] = {(char *)"pc-q35-7.2", NULL};
static struct hf_error why;

#define V(major, minor, micro, package) ((struct hf_qmp_version){major, minor, micro, package})

static struct hf_vmm_probe running(struct hf_qmp_version version, uint64_t odd_entries)
{
	struct hf_vmm_probe p = {.version = version,
		.machine_type = "pc-q35-10.0",
		.odd_queue_entries = odd_entries,
		.odd_queue_device = "virtio-rng"};

	return p;
}

static enum hf_compat judge(const struct hf_vmm_probe *p, struct hf_qmp_version version)
{
	struct hf_installed_vmm in = {.version = version, .machines = all_machines};

	why = (struct hf_error){0};
	return hf_compat_judge(p, &in, &why);
}

static void says(const char *a, const char *b)
{
	if (!strstr(why.message, a) || !strstr(why.message, b) || !why.remedy[0])
		fail_msg("`%s` (%s)", why.message, why.remedy);
}

static void test_same(void **state)
{
	struct hf_vmm_probe p = running(V(10, 0, 13, "d1"), 0);

	assert_int_equal(judge(&p, V(10, 0, 13, "d1")), HF_COMPAT_SAME);
	assert_int_equal(why.err, 0);
	/* What a QEMU gets wrong it gets wrong twice. */
	p = running(V(10, 0, 13, "d1"), 1024);
	assert_int_equal(judge(&p, V(10, 0, 13, "d1")), HF_COMPAT_SAME);
	p = running(V(11, 1, 3, ""), 1024);
	assert_int_equal(judge(&p, V(11, 1, 3, "")), HF_COMPAT_SAME);
}

static void test_different(void **state)
{
	struct hf_vmm_probe p = running(V(10, 0, 13, "d1"), 0);

	assert_int_equal(judge(&p, V(11, 1, 3, "d9")), HF_COMPAT_DIFFERENT);
	says("QEMU 10.0.13;", "QEMU 11.1.3 ");
	assert_int_equal(judge(&p, V(10, 0, 14, "d1")), HF_COMPAT_DIFFERENT);
	says("10.0.13;", "10.0.14 ");
	assert_int_equal(judge(&p, V(9, 0, 13, "d1")), HF_COMPAT_DIFFERENT);
	says("10.0.13;", "9.0.13 ");
	/* Another build of the same version: only its package tells. */
	assert_int_equal(judge(&p, V(10, 0, 13, "d2")), HF_COMPAT_DIFFERENT);
	says("10.0.13 (d1);", "10.0.13 (d2) ");
	assert_int_equal(judge(&p, V(10, 0, 13, "")), HF_COMPAT_DIFFERENT);
	says("10.0.13 (d1);", "10.0.13 ");
}

/* Refused where it was seen to fail, and nowhere else. */
static void test_queues(void **state)
{
	struct hf_vmm_probe p = running(V(10, 0, 13, "d1"), 1024);

	assert_int_equal(judge(&p, V(11, 1, 3, "d9")), HF_COMPAT_BROKEN);
	says("10.0.13", "11.1.3");
	says("1024 entries of virtio-rng", "refuses");
	assert_non_null(strstr(why.remedy, "install QEMU 10.0.13 again"));
	assert_int_equal(judge(&p, V(11, 2, 0, "")), HF_COMPAT_BROKEN);
	assert_int_equal(judge(&p, V(12, 0, 0, "")), HF_COMPAT_BROKEN);
	assert_int_equal(judge(&p, V(11, 0, 9, "")), HF_COMPAT_DIFFERENT);
	assert_int_equal(judge(&p, V(10, 0, 14, "")), HF_COMPAT_DIFFERENT);
	assert_int_equal(judge(&p, V(7, 2, 22, "")), HF_COMPAT_DIFFERENT);
	p = running(V(10, 0, 13, "d1"), 0);
	assert_int_equal(judge(&p, V(12, 0, 0, "")), HF_COMPAT_DIFFERENT);
}

static void test_machines(void **state)
{
	struct hf_vmm_probe p = running(V(10, 0, 13, "d1"), 0);
	struct hf_installed_vmm in = {.version = V(7, 2, 22, ""), .machines = old_machines};

	assert_int_equal(hf_compat_judge(&p, &in, &why), HF_COMPAT_BROKEN);
	says("10.0.13", "7.2.22");
	says("pc-q35-10.0", "no machine type");
	strcpy(p.machine_type, "pc-q35-7.2");
	assert_int_equal(hf_compat_judge(&p, &in, &why), HF_COMPAT_DIFFERENT);
	/* It didn't say which it has. */
	strcpy(p.machine_type, "pc-q35-10.0");
	in.machines = NULL;
	assert_int_equal(hf_compat_judge(&p, &in, &why), HF_COMPAT_DIFFERENT);
}

static void test_unknown(void **state)
{
	struct hf_vmm_probe p = running(V(10, 0, 13, "d1"), 1024);
	struct hf_installed_vmm in = {.version = V(0, 0, 0, "")};

	assert_int_equal(hf_compat_judge(&p, NULL, &why), HF_COMPAT_DIFFERENT);
	says("10.0.13", "can't be told");
	hf_error_set(&in.error, -ETIMEDOUT, HF_ERR_FAILED, NULL, "it sleeps");
	assert_int_equal(hf_compat_judge(&p, &in, &why), HF_COMPAT_DIFFERENT);
	says("can't be told", "it sleeps");
	hf_error_set(&in.error, -ENOEXEC, HF_ERR_FAILED, "buy one", "there is none");
	assert_int_equal(hf_compat_judge(&p, &in, &why), HF_COMPAT_BROKEN);
	says("10.0.13", "there is none");
	assert_string_equal(why.remedy, "buy one");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same),
		cmocka_unit_test(test_different),
		cmocka_unit_test(test_queues),
		cmocka_unit_test(test_machines),
		cmocka_unit_test(test_unknown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
