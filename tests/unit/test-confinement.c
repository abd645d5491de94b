/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel says of a process's confinement, and what is made of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "vmm-glue/confinement.h"

#define PROFILE "libvirt-6b1b2d3e-0000-4000-8000-000000000001"

static const struct {
	const char *apparmor, *current;
	const char *profile; /* NULL: none */
	bool refused;
} cases[] = {
	{NULL, NULL, NULL, false},
	{NULL, "", NULL, false},
	{NULL, "kernel", NULL, false},
	{NULL, "unconfined\n", NULL, false},
	{"unconfined\n", "unconfined\n", NULL, false},
	{PROFILE " (enforce)\n", PROFILE " (enforce)\n", PROFILE, false},
	{PROFILE " (complain)\n", PROFILE " (complain)\n", PROFILE, false},
	/* Another module is asked for the labels of all. */
	{PROFILE " (enforce)\n", "system_u:system_r:svirt_t:s0:c1,c2", NULL, true},
	{"unconfined\n", "system_u:system_r:svirt_t:s0:c1,c2", NULL, true},
	{NULL, "system_u:system_r:svirt_t:s0:c1,c2", NULL, true},
	/* What was not made for one domain. */
	{"libvirtd (enforce)\n", "libvirtd (enforce)\n", NULL, true},
	{"/usr/bin/qemu-system-x86_64 (enforce)\n", "/usr/bin/qemu-system-x86_64 (enforce)\n", NULL,
		true},
	{PROFILE "//passt (enforce)\n", PROFILE "//passt (enforce)\n", NULL, true},
	{PROFILE "/../x (enforce)\n", PROFILE "/../x (enforce)\n", NULL, true},
	{"libvirt-../../../etc/passwd\n", "libvirt-../../../etc/passwd\n", NULL, true},
	{"libvirt-\n", "libvirt-\n", NULL, true},
	{"libvirt-6b1b2d3e-0000-4000-8000-00000000000g (enforce)\n",
		"libvirt-6b1b2d3e-0000-4000-8000-00000000000g (enforce)\n", NULL, true},
};

static void test_parse(void **state)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		cleanup_free char *profile = NULL;
		struct hf_error e = {0};
		int r = hf_confinement_parse(cases[i].apparmor, cases[i].current, &profile, &e);

		print_message("%s, %s\n", cases[i].apparmor, cases[i].current);
		assert_int_equal(r, cases[i].refused ? -EOPNOTSUPP : 0);
		if (cases[i].refused)
			assert_true(e.message[0] && e.remedy[0]);
		if (cases[i].profile)
			assert_string_equal(profile, cases[i].profile);
		else
			assert_null(profile);
	}
}

/* Whatever module there is: this process is not one of libvirt's. */
static void test_read(void **state)
{
	cleanup_free char *profile = NULL;
	struct hf_error e = {0};
	int r = hf_confinement_read(getpid(), &profile, &e);

	assert_true(r == 0 || r == -EOPNOTSUPP);
	assert_null(profile);
}

/* Names that lead elsewhere are not looked for, and profiles that aren't there not loaded. */
static void test_load(void **state)
{
	static const char *const wrong[] = {
		"libvirt-../../passwd", "unconfined", "", PROFILE "/x", PROFILE " (enforce)"};
	struct hf_child *child = NULL;
	struct hf_error e = {0};

	for (size_t i = 0; i < HF_ARRAY_SIZE(wrong); i++)
		assert_int_equal(
			hf_confinement_load(NULL, wrong[i], NULL, NULL, NULL, &child, &e), -EINVAL);
	assert_int_equal(hf_confinement_load(NULL, PROFILE, NULL, NULL, NULL, &child, &e), -ENOENT);
	assert_non_null(strstr(e.message, PROFILE));
	assert_true(e.remedy[0]);
	assert_null(child);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
