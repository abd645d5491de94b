/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Command lines of guests whose RAM is to be moved: what becomes of them, and what is
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/cmdline.h"

#define MAX_ARGS 32

struct row {
	const char *args; /* behind qemu-system-x86_64 */
	const char *made; /* what comes out, or NULL */
	int err;
	const char *says; /* part of the message */
};

static const struct row rows[] = {
	{"-m 1G -mem-path /var/tmp -name g", "-m 1G -name g", 0, NULL},
	{"--mem-path /dev/hugepages -mem-prealloc -m 1G", "-mem-prealloc -m 1G", 0, NULL},
	{"-mem-path /a -mem-path /b -m 64", "-m 64", 0, NULL},
	{"-object memory-backend-file,id=m0,size=64M,mem-path=/srv/ram -machine "
	 "q35,memory-backend=m0",
		"-object memory-backend-memfd,id=m0,size=64M -machine q35,memory-backend=m0", 0,
		NULL},
	{"-object memory-backend-file,mem-path=/dev/hugepages,share=on,prealloc=on,id=m0,"
	 "host-nodes=0,policy=bind,size=64M,align=2M -machine memory-backend=m0",
		"-object memory-backend-memfd,prealloc=on,id=m0,host-nodes=0,policy=bind,size=64M "
		"-machine memory-backend=m0",
		0, NULL},
	{"-object qom-type=memory-backend-file,size=64M,id=a,,b,mem-path=/x,,y -machine "
	 "memory-backend=a,,b",
		"-object memory-backend-memfd,size=64M,id=a,,b -machine memory-backend=a,,b", 0,
		NULL},
	{"-object memory-backend-memfd,id=m0,hugetlb=on,hugetlbsize=2M,seal=off,size=64M -numa "
	 "node,memdev=m0",
		"-object memory-backend-memfd,id=m0,size=64M -numa node,memdev=m0", 0, NULL},
	{"-object {\"qom-type\":\"memory-backend-file\",\"id\":\"m0\",\"size\":67108864,"
	 "\"mem-path\":\"/dev/hugepages\",\"share\":true} -numa node,memdev=m0",
		"-object {\"qom-type\":\"memory-backend-memfd\",\"id\":\"m0\",\"size\":67108864} "
		"-numa node,memdev=m0",
		0, NULL},
	{"-object memory-backend-file,id=m0,size=64M,mem-path=/r,x-use-canonical-path-for-ramblock-"
	 "id=on -machine memory-backend=m0",
		"-object "
		"memory-backend-memfd,id=m0,size=64M,x-use-canonical-path-for-ramblock-id=on "
		"-machine memory-backend=m0",
		0, NULL},
	/* Nothing to do. */
	{"-m 1G", NULL, -EALREADY, "can be preserved as it is"},
	{"-object memory-backend-memfd,id=m0,size=64M -numa node,memdev=m0", NULL, -EALREADY,
		"as it is"},
	/* Memory that isn't the guest's alone. */
	{"-object memory-backend-file,id=m0,size=64M,mem-path=/dev/shm/x,share=on -numa "
	 "node,memdev=m0",
		NULL, -EOPNOTSUPP, "RAM m0 is a shared file"},
	{"-object memory-backend-file,id=m0,size=64M,mem-path=/x,readonly=on -device "
	 "nvdimm,memdev=m0",
		NULL, -EOPNOTSUPP, "read-only"},
	{"-object memory-backend-file,id=m0,size=64M,mem-path=/x,pmem=on", NULL, -EOPNOTSUPP,
		"persistent"},
	{"-object memory-backend-file,id=m0,mem-path=/x -machine memory-backend=m0", NULL,
		-EOPNOTSUPP, "the size of RAM m0"},
	/* Something else in the way. */
	{"-mem-path /x -device vfio-pci,host=1", NULL, -EOPNOTSUPP, "passed through"},
	{"-mem-path /x -device virtio-mem-pci,memdev=a", NULL, -EOPNOTSUPP, "virtio-mem"},
	{"-mem-path /x -daemonize", NULL, -EOPNOTSUPP, "-daemonize"},
	{"-mem-path /x -chardev socket,id=c,fd=4", NULL, -EOPNOTSUPP, "file descriptor"},
	{"-mem-path /x -machine virt", NULL, -EOPNOTSUPP, "virt"},
	{"-mem-path /x -frobnicate", NULL, -EOPNOTSUPP, "-frobnicate"},
	{"-mem-path /x -device virtio-balloon-pci,free-page-hint=on", NULL, -EOPNOTSUPP,
		"free-page-hint"},
	{"-mem-path /x -version", NULL, -EOPNOTSUPP, "not one of a guest"},
	{"-mem-path", NULL, -EOPNOTSUPP, "lacks its value"},
};

static size_t split(char *text, const char **words)
{
	size_t n = 0;

	words[n++] = "qemu-system-x86_64";
	for (char *s = strtok(text, " "); s; s = strtok(NULL, " ")) {
		assert_true(n < MAX_ARGS);
		words[n++] = s;
	}
	return n;
}

static void test_rows(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		const struct row *row = &rows[i];
		const char *words[MAX_ARGS];
		char *text = strdup(row->args);
		struct hf_error e = {0};
		char **made = NULL;
		char joined[1024] = "";
		size_t n = split(text, words), n_made = 0;
		int r = hf_cmdline_adopt(words, n, &made, &n_made, &e);

		if (r != row->err || (row->says && !strstr(e.message, row->says)))
			fail_msg("%s: %d, %s", row->args, r, e.message);
		if (r < 0) {
			assert_null(made);
			free(text);
			continue;
		}
		assert_string_equal(made[0], "qemu-system-x86_64");
		assert_null(made[n_made]);
		for (size_t k = 1; k < n_made; k++) {
			strcat(joined, k > 1 ? " " : "");
			strcat(joined, made[k]);
		}
		assert_string_equal(joined, row->made);
		free(made);
		free(text);
	}
}

/* What QEMU then gets: the memfd under the block's old name, whichever kind of object it was. */
static void test_built(void **state)
{
	static const char *const argv[] = {"qemu-system-x86_64", "-machine", "pc-i440fx-3.1",
		"-object", "memory-backend-file,id=m0,size=64M,mem-path=/srv/x", "-numa",
		"node,memdev=m0"};
	static const char *const expected = "memory-backend-file,id=m0,size=64M,share=on,mem-path=/"
					    "proc/self/fd/9,align=2097152";
	struct hf_cmdline *plan = NULL;
	char **made = NULL, **built = NULL;
	const int fd = 9;
	size_t n;

	assert_int_equal(hf_cmdline_adopt(argv, 7, &made, &n, NULL), 0);
	assert_int_equal(hf_cmdline_parse((const char *const *)made, n, &plan, NULL), 0);
	assert_int_equal(plan->n_ram, 1);
	assert_int_equal(plan->ram[0].size, 64 << 20);
	assert_int_equal(hf_cmdline_build(plan, &(struct hf_cmdline_how){.ram_fds = &fd}, &built,
				 NULL, NULL),
		0);
	assert_string_equal(built[4], expected);
	free(built);
	hf_cmdline_free(plan);
	free(made);
}

/* A monitor is added, and the RAM is left alone. */
static void test_monitor_only(void **state)
{
	static const char *const argv[] = {"qemu-system-x86_64", "-m", "64", "-mem-path", "/x",
		"-object", "memory-backend-ram,id=m1,size=1M"};
	struct hf_cmdline *plan = NULL;
	char **built = NULL;
	size_t n;

	assert_int_equal(hf_cmdline_parse(argv, 7, &plan, NULL), 0);
	assert_int_equal(hf_cmdline_build(plan,
				 &(struct hf_cmdline_how){.qmp_path = "/q", .monitor_only = true},
				 &built, &n, NULL),
		0);
	assert_true(n > 7);
	for (size_t i = 0; i < 7; i++)
		assert_string_equal(built[i], argv[i]);
	assert_string_equal(built[n - 2], "-qmp");
	assert_string_equal(built[n - 1], "unix:/q,server=on,wait=off");
	for (size_t i = 7; i < n; i++)
		assert_null(strstr(built[i], "memory-backend"));
	free(built);
	hf_cmdline_free(plan);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_built),
		cmocka_unit_test(test_monitor_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
