/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: What is said of guests, each finding with a guest that has it and one that has not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "agent/check-guest.h"
#include "common/json.h"

#define MIB (1ULL << 20)

static struct hf_manifest_ram ram = {.id = (char *)"pc.ram", .size = 1024 * MIB};
static struct hf_installed_vmm installed;

/* A guest that QEMU was asked about, and is content with. */
static struct hf_survey_guest guest(const char *const *argv)
{
	struct hf_survey_guest g = {.asked = true, .installed = &installed};

	g.reg.guest.name = (char *)"web";
	g.reg.guest.ram = &ram;
	g.reg.guest.n_ram = 1;
	g.reg.guest.argv = (char **)argv;
	while (argv[g.reg.guest.n_argv])
		g.reg.guest.n_argv++;
	g.probe.version = installed.version = (struct hf_qmp_version){10, 0, 2, "d1"};
	strcpy(g.probe.machine_type, "pc-q35-10.0");
	strcpy(g.probe.status, "running");
	g.probe.running = true;
	return g;
}

#define GUEST(...) guest((const char *const[]){"qemu", __VA_ARGS__, NULL})

static struct json_object *find(struct json_object *findings, const char *id)
{
	for (size_t i = 0; i < hf_json_array_size(findings); i++) {
		struct json_object *f = json_object_array_get_idx(findings, i);

		if (strcmp(hf_json_get_string(f, "id", ""), id) == 0)
			return f;
	}
	return NULL;
}

/* As test-check-host.c has it. */
static void expect_to(const struct hf_survey_guest *g, const char *to_kernel, const char *id,
	const char *verdict, const char *says)
{
	struct json_object *findings = json_object_new_array();
	enum hf_verdict worst = hf_check_guest(g, to_kernel, findings);
	struct json_object *f = find(findings, id);

	if (!verdict && f)
		fail_msg("%s", json_object_to_json_string(f));
	if (verdict) {
		if (!f)
			fail_msg("no %s in %s", id, json_object_to_json_string(findings));
		assert_string_equal(hf_json_get_string(f, "verdict", ""), verdict);
		assert_string_equal(hf_json_get_string(f, "guest", ""), "web");
		if (!strstr(hf_json_get_string(f, "message", ""), says))
			fail_msg("%s does not say `%s`", json_object_to_json_string(f), says);
		if (strcmp(verdict, "ok") != 0) {
			assert_true(hf_json_get_string(f, "remedy", "")[0]);
			assert_true(worst >=
				    (strcmp(verdict, "refusal") == 0 ? HF_REFUSAL : HF_WARNING));
		}
	}
	json_object_put(findings);
}

static void expect(
	const struct hf_survey_guest *g, const char *id, const char *verdict, const char *says)
{
	expect_to(g, NULL, id, verdict, says);
}

static void test_content(void **state)
{
	struct hf_survey_guest g = GUEST("-cpu", "host", "-M", "q35");
	struct json_object *findings = json_object_new_array();

	assert_int_equal(hf_check_guest(&g, NULL, findings), HF_OK);
	assert_int_equal(hf_json_array_size(findings), 1);
	assert_non_null(find(findings, "guest.eligible"));
	json_object_put(findings);
}

static void test_not_ready(void **state)
{
	struct hf_survey_guest g = GUEST("-m", "1G");
	struct json_object *findings;

	strcpy(g.probe.blockers[0], "9p is mounted");
	g.probe.n_blockers = 1;
	expect(&g, "guest.blocked", "refusal", "9p is mounted");
	/* All of them are said, so that all can be dealt with at once. */
	strcpy(g.probe.blockers[1], "device hot was plugged in");
	g.probe.n_blockers = 2;
	findings = json_object_new_array();
	assert_int_equal(hf_check_guest(&g, NULL, findings), HF_REFUSAL);
	assert_int_equal(hf_json_array_size(findings), 2);
	assert_non_null(strstr(json_object_to_json_string(findings), "device hot was plugged in"));
	json_object_put(findings);
	hf_error_set(&g.error, -EBUSY, HF_ERR_BUSY, "end it", "somebody else has its monitor");
	expect(&g, "guest.monitor", "refusal", "somebody else");
	/* Nothing is known of it then. */
	g.probe.balloon = true;
	expect(&g, "guest.balloon", NULL, "");
	g = GUEST("-m", "1G");
	hf_error_set(&installed.error, -ENOEXEC, HF_ERR_NOT_READY, "install it", "it is gone");
	expect(&g, "guest.qemu-version", "refusal", "nothing could be started");
	hf_error_clear(&installed.error);
	g.probe.version.micro = 1;
	expect(&g, "guest.qemu-version", "warning", "10.0.1");
}

static void test_ram(void **state)
{
	static const struct {
		const char *id, *option, *value, *reason;
		bool other; /* the launcher's reason is another one, and is said too */
	} rows[] = {
		{"guest.vfio", "-device", "vfio-pci,host=1:0.0",
			"it has a host device passed through (vfio-pci)", false},
		{"guest.hugetlb", "-object", "memory-backend-memfd,id=m,size=1G,hugetlb=on",
			"RAM m is on hugetlb pages, which the kernel can't preserve", false},
		{"guest.hugetlb", "-object", "memory-backend-file,id=m,mem-path=/dev/hugepages",
			"RAM m is on hugetlbfs (/dev/hugepages), which can't be preserved", false},
		{"guest.discard-data", "-object", "memory-backend-file,id=m,discard-data=on",
			"RAM m has discard-data=on: QEMU wipes it when it ends", false},
		{"guest.virtio-mem", "-device", "virtio-mem-pci",
			"its device virtio-mem-pci may empty its RAM when a new QEMU starts",
			false},
		{"guest.vfio", "-device", "vfio-pci,host=1:0.0", "-daemonize gives QEMU another id",
			true},
		{"guest.ram", "-m", "1G", "-daemonize gives QEMU another id", true},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		struct hf_survey_guest g = GUEST(rows[i].option, rows[i].value);

		strcpy(g.reg.reason, rows[i].reason);
		strcpy(g.reg.remedy, "start it differently");
		expect(&g, rows[i].id, "refusal", "");
		expect(&g, "guest.ram", rows[i].other ? "refusal" : NULL, rows[i].reason);
		expect(&g, "guest.eligible", NULL, "");
	}
}

static void test_balloon(void **state)
{
	struct hf_survey_guest g = GUEST("-m", "1G");

	expect(&g, "guest.balloon", NULL, "");
	g.probe.balloon = true;
	g.probe.balloon_bytes = 1024 * MIB;
	expect(&g, "guest.balloon", "warning", "it has a balloon: inflating it");
	g.probe.balloon_bytes = 768 * MIB;
	expect(&g, "guest.balloon", "warning", "holds 256 MiB of its 1024 MiB");
	expect(&g, "guest.free-page-reporting", NULL, "");
	g.probe.free_page_reporting = true;
	expect(&g, "guest.free-page-reporting", "warning", "reports free pages");
}

static void test_cpu(void **state)
{
	struct hf_survey_guest g = GUEST("-cpu", "max");
	struct utsname uts;

	uname(&uts);
	expect(&g, "guest.cpu-model", NULL, "");
	expect_to(&g, uts.release, "guest.cpu-model", NULL, "");
	expect_to(&g, "7.9.9", "guest.cpu-model", "warning",
		"`max`, which is whatever the new kernel offers");
	installed.version.micro = 3;
	expect(&g, "guest.cpu-model", "warning", "whatever the QEMU that is installed offers");
	expect_to(&g, "7.9.9", "guest.cpu-model", "warning", "the new kernel and the QEMU");
	g = GUEST("-cpu", "qemu64");
	expect_to(&g, "7.9.9", "guest.cpu-model", NULL, "");
}

static void test_machine(void **state)
{
	struct hf_survey_guest g = GUEST("-M", "q35");

	expect(&g, "guest.machine-type", NULL, "");
	installed.version.micro = 3;
	expect(&g, "guest.machine-type", "warning", "its machine type is `q35`");
	expect(&g, "guest.machine-type", "warning", "started as `pc-q35-10.0`");
	g = GUEST("-m", "1G");
	installed.version.micro = 3;
	expect(&g, "guest.machine-type", "warning", "is not given");
	g = GUEST("-M", "pc-q35-10.0");
	installed.version.micro = 3;
	expect(&g, "guest.machine-type", NULL, "");
}

static void test_disks(void **state)
{
	struct hf_survey_guest g = GUEST("-m", "1G");

	expect(&g, "guest.disk-cache", NULL, "");
	g.probe.n_no_flush = 1;
	strcpy(g.probe.no_flush_disk, "disk0");
	expect(&g, "guest.disk-cache", "warning", "its disk disk0 ignores");
	g.probe.n_no_flush = 3;
	expect(&g, "guest.disk-cache", "warning", "disk0 and 2 more");
}

static void test_agent(void **state)
{
	struct hf_survey_guest g = GUEST("-m", "1G");

	expect(&g, "guest.agent", NULL, "");
	g.probe.agent_known = true;
	expect(&g, "guest.agent", "ok", "no channel");
	g.probe.agent_channel = true;
	expect(&g, "guest.agent", "ok", "nothing in the guest has it open");
	g.probe.agent_open = true;
	expect(&g, "guest.agent", "ok", "is there");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_content),
		cmocka_unit_test(test_not_ready),
		cmocka_unit_test(test_ram),
		cmocka_unit_test(test_balloon),
		cmocka_unit_test(test_cpu),
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_disks),
		cmocka_unit_test(test_agent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
