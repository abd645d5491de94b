/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines that libvirt wrote: what is taken of them, what is refused, what a respawn gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/cleanup.h"
#include "vmm-glue/cmdline.h"

#define RAM(id, file) \
	"{\"qom-type\":\"memory-backend-file\",\"id\":\"" id "\",\"mem-path\":\"" file \
	"\",\"share\":true,\"size\":134217728}"
#define NODE0 "/var/lib/libvirt/qemu/ram/1-d/ram-node0"

static const char tap[] =
	"{\"type\":\"tap\",\"fds\":\"31:33\",\"vhost\":true,\"vhostfds\":\"34:35\","
	"\"id\":\"hostnet0\"}";

/* As libvirt 9.0 writes it for QEMU 7.2, less the devices that are of no interest. */
static const char *const q35[] = {"/usr/bin/qemu-system-x86_64", "-name", "guest=d", "-S",
	"-object",
	"{\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"format\":\"raw\",\"file\":\"/k\"}",
	"-machine", "pc-q35-7.2,usb=off", "-m", "256", "-object", RAM("ram-node0", NODE0), "-numa",
	"node,nodeid=0,cpus=0,memdev=ram-node0", "-object", RAM("ram-node1", "/r/ram-node1"),
	"-numa", "node,nodeid=1,cpus=1,memdev=ram-node1", "-uuid",
	"11111111-2222-3333-4444-555555555501", "-nodefaults", "-chardev",
	"socket,id=charmonitor,fd=30,server=on,wait=off", "-mon",
	"chardev=charmonitor,id=monitor,mode=control", "-netdev", tap, "-chardev",
	"socket,id=chrtpm,path=/run/libvirt/qemu/swtpm/1-d-swtpm.sock", "-tpmdev",
	"emulator,id=tpm-tpm0,chardev=chrtpm", "-add-fd", "set=0,fd=36,opaque=serial0-source",
	"-chardev", "file,id=charserial0,path=/dev/fdset/0,append=on", "-add-fd",
	"set=3,fd=37,opaque=serial1-log", "-chardev",
	"pty,id=charserial1,logfile=/dev/fdset/3,logappend=on", "-incoming", "fd:32"};

static void expect_fd(const struct hf_cmdline *plan, size_t i, int fd,
	enum hf_manifest_fd_kind kind, const char *id)
{
	assert_true(i < plan->n_fds);
	assert_int_equal(plan->fds[i].fd, fd);
	assert_int_equal(plan->fds[i].kind, kind);
	assert_string_equal(plan->fds[i].id, id);
}

static void test_q35(void **state)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;

	assert_int_equal(hf_cmdline_parse_libvirt(q35, HF_ARRAY_SIZE(q35), &plan, NULL), 0);
	assert_string_equal(plan->reason, "");
	assert_int_equal(plan->n_ram, 2);
	assert_string_equal(plan->ram[0].id, "ram-node0");
	assert_int_equal(plan->ram[1].size, 128 << 20);
	/* libvirt's -S doesn't mean that the domain is to stay paused. */
	assert_false(plan->paused);
	assert_int_equal(plan->n_fds, 7);
	expect_fd(plan, 0, 30, HF_FD_LISTEN, "charmonitor");
	expect_fd(plan, 1, 31, HF_FD_TAP, "hostnet0");
	expect_fd(plan, 2, 33, HF_FD_TAP, "hostnet0");
	expect_fd(plan, 3, 34, HF_FD_VHOST, "hostnet0");
	expect_fd(plan, 4, 35, HF_FD_VHOST, "hostnet0");
	expect_fd(plan, 5, 36, HF_FD_FILE, "serial0-source");
	expect_fd(plan, 6, 37, HF_FD_FILE, "serial1-log");
	assert_int_equal(plan->n_taps, 0);
	assert_int_equal(plan->n_sockets, 1);
	assert_string_equal(plan->sockets[0], "/run/libvirt/qemu/swtpm/1-d-swtpm.sock");
}

/* To a user's command line none of that is allowed. */
static void test_not_for_others(void **state)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;

	assert_int_equal(hf_cmdline_parse(q35, HF_ARRAY_SIZE(q35), &plan, NULL), 0);
	assert_string_not_equal(plan->reason, "");
	assert_int_equal(plan->n_fds, 0);
}

static void test_respawn(void **state)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	cleanup_free char **argv = NULL;
	const int fds[] = {38, 39};
	bool defers = false, memory = false;
	size_t n = 0;

	assert_int_equal(hf_cmdline_parse_libvirt(q35, HF_ARRAY_SIZE(q35), &plan, NULL), 0);
	assert_int_equal(
		hf_cmdline_build(plan, &(struct hf_cmdline_how){.ram_fds = fds, .respawn = true},
			&argv, &n, NULL),
		0);
	for (size_t i = 0; i < n; i++) {
		assert_null(strstr(argv[i], "/var/lib/libvirt/qemu/ram"));
		assert_string_not_equal(argv[i], "fd:32");
		defers = defers ||
			 (strcmp(argv[i], "defer") == 0 && strcmp(argv[i - 1], "-incoming") == 0);
		if (strstr(argv[i], "\"ram-node1\"") && argv[i][0] == '{') {
			assert_non_null(strstr(argv[i], "\"mem-path\":\"/proc/self/fd/39\""));
			/* The block has the name it had, whatever that was. */
			assert_null(strstr(argv[i], "ramblock-id"));
			memory = true;
		}
	}
	assert_true(defers && memory);
}

/* Memory on a memfd is a file to the new QEMU, and nothing of what made the memfd is left. */
static void test_memfd(void **state)
{
	static const char *const argv[] = {"/usr/bin/qemu-system-x86_64", "-machine",
		"pc-q35-7.2,memory-backend=pc.ram", "-object",
		"{\"qom-type\":\"memory-backend-memfd\",\"id\":\"pc.ram\",\"share\":true,"
		"\"x-use-canonical-path-for-ramblock-id\":false,\"prealloc\":true,"
		"\"size\":134217728}",
		"-incoming", "defer"};
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	cleanup_free char **built = NULL;
	const int fd = 31;
	size_t n = 0;

	assert_int_equal(hf_cmdline_parse_libvirt(argv, HF_ARRAY_SIZE(argv), &plan, NULL), 0);
	assert_string_equal(plan->reason, "");
	assert_int_equal(plan->n_ram, 1);
	assert_string_equal(plan->ram[0].id, "pc.ram");
	assert_int_equal(
		hf_cmdline_build(plan, &(struct hf_cmdline_how){.ram_fds = &fd, .respawn = true},
			&built, &n, NULL),
		0);
	assert_string_equal(built[4],
		"{\"qom-type\":\"memory-backend-file\",\"id\":\"pc.ram\","
		"\"x-use-canonical-path-for-ramblock-id\":false,\"size\":134217728,"
		"\"share\":true,\"mem-path\":\"/proc/self/fd/31\",\"align\":2097152,"
		"\"prealloc\":false}");
}

static void test_refused(void **state)
{
	static const struct {
		const char *option, *value, *says;
	} rows[] = {
		{"-object",
			"{\"qom-type\":\"memory-backend-memfd\",\"id\":\"x\",\"share\":false,"
			"\"size\":4096}",
			"nobody else can open"},
		{"-object",
			"{\"qom-type\":\"memory-backend-memfd\",\"id\":\"x\",\"hugetlb\":true,"
			"\"size\":4096}",
			"hugetlb pages"},
		{"-object", "{\"qom-type\":\"memory-backend-ram\",\"id\":\"x\",\"size\":4096}",
			"nobody else can open"},
		{"-object", RAM("x", "/dev/hugepages/libvirt/qemu/1-d/x"), "hugetlbfs"},
		{"-object",
			"{\"qom-type\":\"memory-backend-file\",\"id\":\"x\",\"mem-path\":\"/a\","
			"\"share\":false,\"size\":4096}",
			"private copy"},
		{"-chardev", "socket,id=c,fd=40", "file descriptor"},
		{"-chardev", "pipe,id=c,fd=40,server=on", "file descriptor"},
		{"-netdev", "{\"type\":\"tap\",\"fd\":\"40x\",\"id\":\"n\"}", "file descriptor"},
		{"-netdev", "{\"type\":\"tap\",\"fd\":\"2\",\"id\":\"n\"}", "file descriptor"},
		{"-netdev", "{\"type\":\"tap\",\"fds\":\"40:\",\"id\":\"n\"}", "file descriptor"},
		{"-netdev", "{\"type\":\"stream\",\"fd\":\"40\",\"id\":\"n\"}", "file descriptor"},
		{"-add-fd", "set=1,fd=40", "file descriptor"},
		/* Nothing that is understood writes there. */
		{"-add-fd", "set=9,fd=40,opaque=serial9-source", "file descriptor"},
		{"-add-fd", "set=0,fd=40,opaque=serial0-source", "file descriptor"},
		{"-add-fd", "set=x,fd=40,opaque=serial9-source", "file descriptor"},
		{"-add-fd", "set=9,fd=2,opaque=serial9-source", "file descriptor"},
		{"-chardev", "file,id=charserial0,path=/dev/fdset/0,append=on", "file descriptor"},
		{"-chardev", "file,id=charserial7,path=/dev/fdset/7,append=on", "file descriptor"},
		{"-blockdev", "{\"driver\":\"file\",\"filename\":\"/dev/fdset/0\"}",
			"file descriptor"},
		{"-tpmdev", "passthrough,id=t", "TPM"},
		{"-device", "{\"driver\":\"vfio-pci\",\"host\":\"0000:01:00.0\"}",
			"passed through"},
		{"-device", "{\"driver\":\"vhost-user-fs-pci\"}", "another process"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		cleanup_cmdline struct hf_cmdline *plan = NULL;
		const char *argv[HF_ARRAY_SIZE(q35) + 2];

		memcpy(argv, q35, sizeof(q35));
		argv[HF_ARRAY_SIZE(q35)] = rows[i].option;
		argv[HF_ARRAY_SIZE(q35) + 1] = rows[i].value;
		assert_int_equal(
			hf_cmdline_parse_libvirt(argv, HF_ARRAY_SIZE(argv), &plan, NULL), 0);
		if (!strstr(plan->reason, rows[i].says))
			fail_msg("%s: `%s`", rows[i].value, plan->reason);
	}
}

/* Each is what it says, or nobody knows what it is. */
static void test_files_that_do_not_match(void **state)
{
	static const char *const rows[][2] = {
		{"set=9,fd=40,opaque=serial9-source", "file,id=charserial9,path=/dev/fdset/9"},
		{"set=9,fd=40,opaque=serial9-source",
			"file,id=charserial8,path=/dev/fdset/9,append=on"},
		{"set=9,fd=40,opaque=serial9-log",
			"file,id=charserial9,path=/dev/fdset/9,append=on"},
		{"set=9,fd=40,opaque=serial9-source",
			"pipe,id=charserial9,path=/dev/fdset/9,append=on"},
		{"set=9,fd=40,opaque=serial9-log",
			"pty,id=charserial9,logfile=/dev/fdset/9,logappend=off"},
		{"set=9,fd=40,opaque=serial9-log,x=y",
			"pty,id=charserial9,logfile=/dev/fdset/9,logappend=on"},
		{"set=9,fd=40,opaque=serial9-log",
			"pty,id=charserial9,logfile=/dev/fdset/8,logappend=on"},
		{"set=9,fd=40,opaque=serial9-log",
			"pty,id=charserial9,logfile=/dev/fdset/9x,logappend=on"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		cleanup_cmdline struct hf_cmdline *plan = NULL;
		const char *argv[HF_ARRAY_SIZE(q35) + 4];

		memcpy(argv, q35, sizeof(q35));
		argv[HF_ARRAY_SIZE(q35)] = "-add-fd";
		argv[HF_ARRAY_SIZE(q35) + 1] = rows[i][0];
		argv[HF_ARRAY_SIZE(q35) + 2] = "-chardev";
		argv[HF_ARRAY_SIZE(q35) + 3] = rows[i][1];
		assert_int_equal(
			hf_cmdline_parse_libvirt(argv, HF_ARRAY_SIZE(argv), &plan, NULL), 0);
		if (!strstr(plan->reason, "file descriptor"))
			fail_msg("%s, %s: `%s`", rows[i][0], rows[i][1], plan->reason);
	}
}

/* Without memory that it could name there is only private memory. */
static void test_default_ram(void **state)
{
	static const char *const argv[] = {
		"/usr/bin/qemu-system-x86_64", "-machine", "pc-i440fx-7.2", "-m", "256"};
	cleanup_cmdline struct hf_cmdline *plan = NULL;

	assert_int_equal(hf_cmdline_parse_libvirt(argv, HF_ARRAY_SIZE(argv), &plan, NULL), 0);
	assert_non_null(strstr(plan->reason, "private memory"));
	assert_non_null(strstr(plan->remedy, "holdfast libvirt enable"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_q35),
		cmocka_unit_test(test_not_for_others),
		cmocka_unit_test(test_respawn),
		cmocka_unit_test(test_memfd),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_files_that_do_not_match),
		cmocka_unit_test(test_default_ram),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
