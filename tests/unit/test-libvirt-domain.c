/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: What is changed in domains' XML, with definitions as libvirt 9.0 dumps them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "vmm-glue/libvirt/domain-xml.h"

#define GOLDEN "tests/golden/libvirt/"

#define DOMAIN(inside) \
	"<domain type='kvm'><name>a</name><memory>1</memory><devices/>" inside "</domain>"

static struct hf_domain_xml enable(const char *xml)
{
	struct hf_domain_xml d = {0};
	struct hf_error e = {0};

	assert_int_equal(hf_domain_xml_enable(xml, strlen(xml), &d, &e), 0);
	return d;
}

static char *golden(const char *name)
{
	char path[256], *text = NULL;

	snprintf(path, sizeof(path), GOLDEN "%s", name);
	assert_int_equal(hf_file_read(path, 1 << 20, &text, NULL), 0);
	return text;
}

/* The whole text, so that whatever else is dropped or changed fails here. */
static void check_golden(const char *from, const char *to)
{
	cleanup_free char *xml = golden(from), *wanted = golden(to);
	struct hf_domain_xml d = enable(xml), again;

	assert_int_equal(d.n_refusals, 0);
	assert_true(d.to_do);
	assert_string_equal(d.after, wanted);
	again = enable(d.after);
	assert_false(again.to_do);
	assert_string_equal(again.after, d.after);
	assert_string_equal(again.before, d.after);
	hf_domain_xml_clear(&again);
	hf_domain_xml_clear(&d);
}

static void test_plain(void **state)
{
	check_golden("plain.xml", "plain.enabled.xml");
}

static void test_numa(void **state)
{
	check_golden("numa.xml", "numa.enabled.xml");
}

static bool refuses(const struct hf_domain_xml *d, const char *word)
{
	for (size_t i = 0; i < d->n_refusals; i++)
		if (strstr(d->refusals[i]->reason, word))
			return true;
	return false;
}

static void test_refusals(void **state)
{
	cleanup_free char *xml = golden("hostdev.xml");
	struct hf_domain_xml d = enable(xml);

	assert_int_equal(d.n_refusals, 4);
	assert_true(refuses(&d, "hugetlb"));
	assert_true(refuses(&d, "discard"));
	assert_true(refuses(&d, "memory devices"));
	assert_true(refuses(&d, "VFIO"));
	hf_domain_xml_clear(&d);
}

static void test_each_refusal(void **state)
{
	static const struct {
		const char *xml, *word;
	} cases[] = {
		{DOMAIN("<memoryBacking><hugepages/></memoryBacking>"), "hugetlb"},
		{DOMAIN("<cpu><numa><cell memory='1' discard='yes'/></numa></cpu>"), "discard"},
		{DOMAIN("<devices><memory model='virtio-mem'/></devices>"), "memory devices"},
		{DOMAIN("<devices><hostdev mode='subsystem' type='mdev'/></devices>"), "VFIO"},
		{DOMAIN("<devices><interface type='hostdev'/></devices>"), "VFIO"},
		{DOMAIN("<devices><disk type='nvme'/></devices>"), "NVMe"},
		{DOMAIN("<devices><interface type='vdpa'/></devices>"), "vDPA"},
		{DOMAIN("<devices><interface type='vhostuser'/></devices>"), "vhost-user"},
		{DOMAIN("<devices><filesystem><driver type='virtiofs'/></filesystem></devices>"),
			"virtiofs"},
		{DOMAIN("<launchSecurity type='sev'/>"), "encrypted"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct hf_domain_xml d = enable(cases[i].xml);

		assert_int_equal(d.n_refusals, 1);
		assert_true(refuses(&d, cases[i].word));
		assert_true(strlen(d.refusals[0]->remedy) > 0);
		hf_domain_xml_clear(&d);
	}
}

/* What only looks like one of those. */
static void test_no_refusals(void **state)
{
	static const char *const cases[] = {
		DOMAIN("<memoryBacking><locked/><nosharepages/></memoryBacking>"),
		DOMAIN("<cpu><numa><cell memory='1' discard='no'/></numa></cpu>"),
		DOMAIN("<devices><hostdev mode='subsystem' type='usb'/></devices>"),
		DOMAIN("<devices><filesystem><driver type='path'/></filesystem></devices>"),
		DOMAIN("<metadata><a:b xmlns:a='urn:a'><hugepages/><memory/></a:b></metadata>"),
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct hf_domain_xml d = enable(cases[i]);

		assert_int_equal(d.n_refusals, 0);
		assert_true(d.to_do);
		hf_domain_xml_clear(&d);
	}
}

static void test_nothing_to_do(void **state)
{
	struct hf_domain_xml d = enable(DOMAIN("<memoryBacking><access mode='shared'/>"
					       "<source type='file'/></memoryBacking>"
					       "<cpu><numa><cell memory='1'/></numa></cpu>"));

	assert_false(d.to_do);
	hf_domain_xml_clear(&d);
}

/* An element of that name in another name space is not libvirt's. */
static void test_name_spaces(void **state)
{
	struct hf_domain_xml d = enable(
		DOMAIN("<x:memoryBacking xmlns:x='urn:x'><source type='file'/></x:memoryBacking>"));

	assert_true(d.to_do);
	assert_non_null(strstr(d.after, "  <memoryBacking>\n    <source type=\"file\"/>\n"
					"    <access mode=\"shared\"/>\n  </memoryBacking>"));
	hf_domain_xml_clear(&d);
}

static void test_malformed(void **state)
{
	static const struct {
		const char *xml;
		int err;
	} cases[] = {
		{"", -EBADMSG},
		{"<domain", -EBADMSG},
		{"<domain type='kvm'><name>a</name></domain>", -EBADMSG},
		{"<network><name>a</name><memory>1</memory></network>", -EBADMSG},
		{"<domain><name>a</name><memory>1</memory></domain>", -EOPNOTSUPP},
		{"<domain type='xen'><name>a</name><memory>1</memory></domain>", -EOPNOTSUPP},
		{"<!DOCTYPE domain [<!ENTITY a 'b'>]><domain type='kvm'><name>&a;</name>"
		 "<memory>1</memory></domain>",
			-EBADMSG},
		{"<domain type='kvm'><name>a</name><memory>1</memory></domain><b/>", -EBADMSG},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct hf_domain_xml d = {0};
		struct hf_error e = {0};

		assert_int_equal(hf_domain_xml_enable(cases[i].xml, strlen(cases[i].xml), &d, &e),
			cases[i].err);
		assert_int_equal(e.err, cases[i].err);
		assert_null(d.before);
	}
}

static void test_too_large(void **state)
{
	size_t size = HF_DOMAIN_XML_MAX_BYTES + 1;
	cleanup_free char *xml = malloc(size);
	struct hf_domain_xml d = {0};
	struct hf_error e = {0};

	assert_non_null(xml);
	memset(xml, ' ', size);
	assert_int_equal(hf_domain_xml_enable(xml, size, &d, &e), -EFBIG);
}

static void test_passwords(void **state)
{
	char xml[] = "<graphics type='vnc' passwd='ab\"c'/><graphics passwd=\"d'\" x='y'/> passwd=";

	hf_domain_xml_hide(xml);
	assert_string_equal(
		xml, "<graphics type='vnc' passwd='****'/><graphics passwd=\"**\" x='y'/> passwd=");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_numa),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_each_refusal),
		cmocka_unit_test(test_no_refusals),
		cmocka_unit_test(test_nothing_to_do),
		cmocka_unit_test(test_name_spaces),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_passwords),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
