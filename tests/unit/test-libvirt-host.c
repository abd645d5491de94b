/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: What is read of a host for libvirt, and the units that it gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "common/cleanup.h"
#include "vmm-glue/libvirt/host-files.h"

static void test_conf(void **state)
{
	static const struct {
		const char *text, *value;
		int r;
	} cases[] = {
		{"", NULL, 0},
		{"#dir = \"/a\"\n", NULL, 0},
		{"dir = \"/a\"\n", "/a", 0},
		{"  dir='/a b' # or not", "/a b", 0},
		{"dirs = \"/b\"\nx_dir = \"/c\"\ndir = \"/a\"\r\n", "/a", 0},
		{"dir = \"/a\"\ndir = \"/b\"\n", "/b", 0},
		{"dir = \"\"\n", "", 0},
		{"dir = 5\n", NULL, -EBADMSG},
		{"dir = \"/a\n", NULL, -EBADMSG},
		{"dir = \"\"\"/a\"\"\"\n", NULL, -EBADMSG},
		{"dir = [ \"/a\" ]\n", NULL, -EBADMSG},
		{"dir = \"/a\" \"/b\"\n", NULL, -EBADMSG},
		{"dir =", NULL, -EBADMSG},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		cleanup_free char *value = NULL;

		assert_int_equal(hf_host_conf_string(cases[i].text, "dir", &value), cases[i].r);
		if (cases[i].value)
			assert_string_equal(value, cases[i].value);
		else
			assert_null(value);
	}
}

static void test_paths(void **state)
{
	static const char *const good[] = {"/a", "/a/", "/a/b-c_d.e", "/..a", "/a..", "//a//b"};
	static const char *const bad[] = {"", "a", "/", "//", "/a b", "/a/../b", "/..", "/a/..",
		"/a/.", "/a/./b", "/a%b", "/a\"b", "/a\nb", "/a\\b", "/\xc3\xa4", "/a$b"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(good); i++)
		assert_true(hf_host_path_is_plain(good[i]));
	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++)
		assert_false(hf_host_path_is_plain(bad[i]));
}

/* As systemd-escape(1) has it. */
static void test_unit_names(void **state)
{
	static const char *const cases[][2] = {
		{"/var/lib/libvirt/qemu/ram", "var-lib-libvirt-qemu-ram.mount"},
		{"/var/lib/libvirt-qemu/ram_1/.x.y", "var-lib-libvirt\\x2dqemu-ram_1-.x.y.mount"},
		{"//a//b/", "a-b.mount"},
		{"/.a", "\\x2ea.mount"},
		{"/a+b:c@d", "a\\x2bb:c\\x40d.mount"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		cleanup_free char *name = hf_host_unit_name(cases[i][0], ".mount");

		assert_string_equal(name, cases[i][1]);
	}
}

static void test_mounts(void **state)
{
	static const char info[] = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
				   "23 22 0:21 / /dev/shm rw,nosuid - tmpfs tmpfs rw\n"
				   "24 22 0:22 / /srv rw shared:7 master:2 - xfs /dev/sdb rw\n"
				   "25 24 0:23 / /srv/ram rw - tmpfs tmpfs rw\n"
				   "26 25 0:24 / /srv/ram rw - ramfs ramfs rw\n"
				   "nonsense\n"
				   "27 22 0:25 / /sr rw - btrfs x rw";
	static const struct {
		const char *path, *type, *point;
		bool at_path;
	} cases[] = {
		{"/var/lib", "ext4", "/", false},
		{"/dev/shm", "tmpfs", "/dev/shm", true},
		{"/dev/shm/", "tmpfs", "/dev/shm", true},
		{"/dev/shm/a", "tmpfs", "/dev/shm", false},
		{"/srv/a", "xfs", "/srv", false},
		{"/srv/ram/x", "ramfs", "/srv/ram", false},
		{"/srv/rama", "xfs", "/srv", false},
		{"/sr", "btrfs", "/sr", true},
	};
	struct hf_host_mount m;

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		hf_host_mount_of(info, cases[i].path, &m);
		assert_string_equal(m.type, cases[i].type);
		assert_string_equal(m.point, cases[i].point);
		assert_int_equal(m.at_path, cases[i].at_path);
	}
	hf_host_mount_of("", "/a", &m);
	assert_string_equal(m.type, "");
}

static void test_sizes(void **state)
{
	static const char *const good[] = {"1%", "90%", "100%", "64G", "1t", "512m", "1048576"};
	static const char *const bad[] = {"", "%", "0", "0G", "101%", "999%", "-1", "1.5G", "64GB",
		"64 G", "all", "64G,mode=777"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(good); i++)
		assert_true(hf_host_size_is_valid(good[i]));
	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++)
		assert_false(hf_host_size_is_valid(bad[i]));
}

static void test_mount_unit(void **state)
{
	static const char *const sizes[] = {"90%", "5%", "64G"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(sizes); i++) {
		struct hf_host_ram ram = {
			.dir = "/a/b", .size = sizes[i], .uid = 7, .gid = 8, .huge = i > 0};
		cleanup_free char *unit = hf_host_mount_unit(&ram);
		cleanup_free char *size = hf_host_unit_size(unit);

		assert_memory_equal(unit, HF_HOST_FILES_MARK, strlen(HF_HOST_FILES_MARK));
		assert_string_equal(size, sizes[i]);
		assert_non_null(strstr(unit, "\nWhere=/a/b\nType=tmpfs\n"));
		assert_non_null(strstr(unit, ",uid=7,gid=8,"));
		assert_int_equal(!!strstr(unit, ",huge=advise\n"), i > 0);
		/* systemd takes one per cent sign for a specifier. */
		assert_int_equal(!!strstr(unit, "%%,"), i < 2);
	}
	assert_null(hf_host_unit_size("[Mount]\nOptions=nosize=5\n"));
	assert_null(hf_host_unit_size("Options=mode=1,size=x\n"));
	assert_null(hf_host_unit_size(""));
}

static void test_drop_ins(void **state)
{
	cleanup_free char *with = hf_host_daemon_drop_in("a.mount");
	cleanup_free char *without = hf_host_daemon_drop_in(NULL);
	cleanup_free char *stop = hf_host_guests_drop_in("/b stop", "/w");
	cleanup_free char *order = hf_host_guests_drop_in(NULL, "/w");

	assert_non_null(strstr(with, "\nWants=holdfastd.service a.mount\n"));
	assert_non_null(strstr(with, "\nAfter=holdfastd.service a.mount\n"));
	assert_null(strstr(with, "Requires="));
	assert_non_null(strstr(without, "\nWants=holdfastd.service\n"));
	assert_non_null(strstr(stop, "\nExecStop=\nExecStop=/bin/sh -c 'w=/w; "));
	assert_non_null(strstr(stop, "exec $$w /b stop'\n"));
	assert_null(strstr(order, "ExecStop"));
	assert_non_null(strstr(order, "\nAfter=holdfastd.service"));
}

static void test_exec_stop(void **state)
{
	static const struct {
		const char *unit, *command;
	} cases[] = {
		{"[Service]\nExecStart=/a start\nExecStop=/a stop\nType=oneshot\n", "/a stop"},
		{"ExecStop=/a", "/a"},
		{"", NULL},
		{"#ExecStop=/a\n", NULL},
		{"ExecStop=/a\nExecStop=/b\n", NULL},
		{"ExecStop=-/a stop\n", NULL},
		{"ExecStop=/a 'stop it'\n", NULL},
		{"ExecStop=/a $B\n", NULL},
		{"ExecStop=/a %n\n", NULL},
		{"ExecStop=/a \\\n stop\n", NULL},
		{"ExecStart=/a \\\nExecStop=/b\nExecStop=/c\n", "/c"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		cleanup_free char *command = hf_host_exec_stop(cases[i].unit);

		if (cases[i].command)
			assert_string_equal(command, cases[i].command);
		else
			assert_null(command);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conf),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_unit_names),
		cmocka_unit_test(test_mounts),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_mount_unit),
		cmocka_unit_test(test_drop_ins),
		cmocka_unit_test(test_exec_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
