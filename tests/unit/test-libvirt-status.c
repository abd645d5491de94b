/* SPDX-License-Identifier: Apache-2.0 */
/* Changing libvirt's status file for another process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vmm-glue/libvirt.h"

static const char status[] =
	"<domstatus state='running' reason='booted' pid='20525'>\n"
	"  <monitor path='/m.sock' type='unix'/>\n"
	"  <namespaces>\n    <mount/>\n  </namespaces>\n"
	"  <vcpus>\n    <vcpu id='0' pid='20533'/>\n  </vcpus>\n"
	"  <domain type='kvm' id='1'>\n"
	"    <description>pid='20525' &lt;namespaces&gt;</description>\n"
	"    <devices>\n"
	"      <serial type='pty'>\n        <source path='/dev/pts/0'/>\n"
	"        <alias name='serial0'/>\n      </serial>\n"
	"      <console type='pty' tty='/dev/pts/0'>\n        <source path='/dev/pts/0'/>\n"
	"        <alias name='serial0'/>\n      </console>\n"
	"      <channel type='pty'>\n        <source path='/dev/pts/1'/>\n"
	"        <alias name='channel0'/>\n      </channel>\n"
	"      <disk type='block'>\n        <source dev='/dev/pts/0'/>\n      </disk>\n"
	"    </devices>\n  </domain>\n</domstatus>\n";

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	for (const char *s = text; (s = strstr(s, what)); s++)
		n++;
	return n;
}

static void test_patch(void **state)
{
	/* Swapped: what was put in must not be taken for an old one. */
	const struct hf_libvirt_pty ptys[] = {
		{"serial0", "/dev/pts/1"}, {"channel0", "/dev/pts/0"}, {"gone0", "/dev/pts/7"}};
	cleanup_free char *xml = NULL;

	assert_int_equal(hf_libvirt_patch_status(status, 4711, ptys, HF_ARRAY_SIZE(ptys), &xml), 0);
	assert_non_null(strstr(xml, "reason='booted' pid='4711'>"));
	assert_non_null(strstr(xml, "<description>pid='20525' &lt;namespaces&gt;</description>"));
	assert_non_null(strstr(xml, "<vcpu id='0' pid='20533'/>"));
	assert_int_equal(count(xml, "namespaces>"), 0);
	assert_non_null(strstr(xml, "<serial type='pty'>\n        <source path='/dev/pts/1'/>"));
	assert_non_null(strstr(
		xml, "<console type='pty' tty='/dev/pts/1'>\n        <source path='/dev/pts/1'/>"));
	assert_non_null(strstr(xml, "<channel type='pty'>\n        <source path='/dev/pts/0'/>"));
	/* No terminal's. */
	assert_non_null(strstr(xml, "<source dev='/dev/pts/0'/>"));
	assert_null(strstr(xml, "/dev/pts/7"));
	assert_non_null(strstr(xml, "</domstatus>\n"));
}

/* But for the pid, a domain without terminals and name spaces stays byte for byte. */
static void test_nothing_else(void **state)
{
	static const char before[] = "<!-- x -->\n<domstatus state='paused' pid='1'>\n"
				     "  <domain type='kvm'>\n    <name>&lt;namespaces&gt;"
				     "</name>\n  </domain>\n</domstatus>\n";
	cleanup_free char *xml = NULL, *same = NULL;

	assert_int_equal(hf_libvirt_patch_status(before, 222, NULL, 0, &xml), 0);
	assert_int_equal(hf_libvirt_patch_status(xml, 1, NULL, 0, &same), 0);
	assert_string_equal(same, before);
}

static void test_malformed(void **state)
{
	static const char *const bad[] = {"", "<domain/>", "<domstatus state='running'>",
		"<domstatus state='running'", "<domstatus state='running'>\n<vcpu pid='1'/>",
		"<domstatus pid='1'>\n<namespaces>\n<domain type='kvm'/>"};
	char *xml = NULL;

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++)
		assert_int_equal(hf_libvirt_patch_status(bad[i], 1, NULL, 0, &xml), -EBADMSG);
	assert_null(xml);
}

static const char consoles[] =
	"<domstatus state='running' pid='1'>\n  <devices>\n    <device alias='serial0'/>\n  "
	"</devices>\n  <domain type='kvm' id='1'>\n"
	"    <metadata>\n      <metadata/><devices><serial type='file'><source path='/etc/shadow'/>"
	"<alias name='serial0'/></serial></devices>\n    </metadata>\n"
	"    <devices>\n"
	"      <disk type='file'>\n        <source file='/d'/>\n        <alias name='disk0'/>\n"
	"      </disk>\n"
	"      <serial type='file'>\n        <source path='/log/a&amp;b&apos;&lt;&gt;&quot;' "
	"append='on'/>\n        <alias name='serial0'/>\n      </serial>\n"
	"      <serial type='pty'>\n        <source path='/dev/pts/3'/>\n"
	"        <log file='/log/pty' append='off'/>\n        <alias name='serial1'/>\n"
	"      </serial>\n"
	"      <console type='file'>\n        <source path='/log/console'/>\n"
	"        <alias name='console1'/>\n      </console>\n"
	"      <console type='file'>\n        <source path='/log/odd&#10;'/>\n"
	"        <alias name='console2'/>\n      </console>\n"
	"      <rng model='virtio'>\n        <source path='/log/no'/>\n"
	"        <alias name='rng0'/>\n      </rng>\n"
	"    </devices>\n  </domain>\n</domstatus>\n";

static void test_console_paths(void **state)
{
	static const struct {
		const char *opaque, *path;
		int r;
	} rows[] = {{"serial0-source", "/log/a&b'<>\"", 0}, {"serial1-log", "/log/pty", 0},
		{"console1-source", "/log/console", 0}, {"serial0-log", NULL, -ENOENT},
		/* A terminal. */
		{"serial1-source", NULL, -ENOENT}, {"console2-source", NULL, -EBADMSG},
		{"rng0-source", NULL, -ENOENT}, {"disk0-source", NULL, -ENOENT},
		{"gone-source", NULL, -ENOENT}, {"serial0", NULL, -ENOENT},
		{"serial0-other", NULL, -ENOENT}};
	char path[64];

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		int r = hf_libvirt_console_path(consoles, rows[i].opaque, path, sizeof(path));

		if (r != rows[i].r)
			fail_msg("%s: %d", rows[i].opaque, r);
		if (r == 0)
			assert_string_equal(path, rows[i].path);
	}
	assert_int_equal(
		hf_libvirt_console_path(consoles, "console1-source", path, 5), -ENAMETOOLONG);
	assert_int_equal(hf_libvirt_console_path("<domstatus pid='1'>\n<devices>", "serial0-source",
				 path, sizeof(path)),
		-EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patch),
		cmocka_unit_test(test_nothing_else),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_console_paths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
