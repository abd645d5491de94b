/* SPDX-License-Identifier: Apache-2.0 */
/* Which memfd is which cell's memory: QEMU's words, and the kernel's. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/cleanup.h"
#include "vmm-glue/libvirt-internal.h"
#include "vmm-glue/libvirt/memory-blocks.h"

/* As QEMU 7.2 and 10.0 say it. */
static const char tree[] =
	"FlatView #0\n AS \"memory\", root: system\n Root memory region: system\n"
	"  0000000000000000-00000000000bffff (prio 0, ram): ram-node0 KVM\r\n"
	"  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom\r\n"
	"  0000000000100000-0000000001ffffff (prio 0, ram): ram-node0 @0000000000100000 KVM\r\n"
	"  0000000002000000-0000000003ffffff (prio 0, ram): /objects/ram-node1\r\n"
	"  0000000004000000-0000000004ffffff (prio 0, ram): ram-nodex\n"
	"  0000000005000000-0000000005ffffff (prio 0, ram): ram-node\n"
	"  00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram\n"
	"  00000000fec00000-00000000fec00fff (prio 0, i/o): ram-node2\n";

static void test_tree(void **state)
{
	static const struct {
		const char *id;
		uint64_t address;
	} wanted[] = {{"ram-node0", 0}, {"ram-node0", 0x100000}, {"ram-node1", 0x2000000}};
	struct hf_memory_block block;
	const char *at = tree;

	for (size_t i = 0; i < HF_ARRAY_SIZE(wanted); i++) {
		assert_true(hf_memory_block_next(&at, &block));
		assert_string_equal(block.id, wanted[i].id);
		assert_int_equal(block.guest_address, wanted[i].address);
	}
	assert_false(hf_memory_block_next(&at, &block));
}

static void test_host_address(void **state)
{
	static const struct hf_memory_block block = {"ram-node1", 0x2000000};
	static const char *const wrong[] = {"", "Memory is not mapped at address 0x2000000",
		"Host virtual address for 0x2000000 (ram-node0) is 0x7f0000000000",
		"Host virtual address for 0x3000000 (ram-node1) is 0x7f0000000000",
		"Host virtual address for 0x2000000 (ram-node1) is (nil)",
		"Host virtual address for 0x2000000 (ram-node1) is 0x0",
		"Host virtual address for 0x2000000 (ram-node1) is 0xffffffffffffffff"};
	uint64_t address = 1;

	assert_true(hf_memory_block_parse_host(
		"Host virtual address for 0x2000000 (ram-node1) is 0x7f153dfff000\r\n", &block,
		&address));
	assert_int_equal(address, 0x7f153dfff000);
	assert_true(hf_memory_block_parse_host(
		"Host virtual address for 0x2000000 (/objects/ram-node1) is 0x7f0000000000", &block,
		&address));
	for (size_t i = 0; i < HF_ARRAY_SIZE(wrong); i++)
		assert_false(hf_memory_block_parse_host(wrong[i], &block, &address));
}

static void test_map(void **state)
{
	static const char line[] = "7f1000000000-7f1000200000 rw-s 00000000 00:01 123456789012 "
				   "                /memfd:memory-backend-memfd (deleted)\n";
	struct hf_inode inode;

	assert_true(hf_libvirt_parse_map(line, 0x7f1000000000, &inode));
	assert_int_equal(inode.ino, 123456789012);
	assert_int_equal(inode.dev, 1);
	assert_true(hf_libvirt_parse_map(line, 0x7f10001fffff, &inode));
	assert_false(hf_libvirt_parse_map(line, 0x7f1000200000, &inode));
	assert_false(hf_libvirt_parse_map(line, 0x7f0fffffffff, &inode));
	assert_false(hf_libvirt_parse_map("1000-2000 rw-p 0 00:01 5 /memfd:x", 0x1000, &inode));
	assert_false(hf_libvirt_parse_map("1000-2000 r--s 0 00:01 5 /memfd:x", 0x1000, &inode));
	assert_false(hf_libvirt_parse_map("nonsense", 0x1000, &inode));
}

/* In this very process: two that look the same, one of them open twice. */
static void test_find(void **state)
{
	enum { SIZE = 1 << 20 };
	struct hf_inode inode, other;
	int a = memfd_create("memory-backend-memfd", MFD_CLOEXEC), b, again, fd = -1;
	bool shmem = false;
	void *at[2];

	assert_int_equal(hf_libvirt_find_memfd(getpid(), 0, &fd, &inode, &shmem), 0);
	assert_int_equal(fd, a);
	assert_true(shmem);
	again = fcntl(a, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(hf_libvirt_find_memfd(getpid(), 0, &fd, &inode, &shmem), 0);
	assert_int_equal(fd, HF_MIN(a, again));
	b = memfd_create("memory-backend-memfd", MFD_CLOEXEC);
	assert_int_equal(hf_libvirt_find_memfd(getpid(), 0, &fd, &inode, &shmem), -ENOTUNIQ);
	assert_int_equal(ftruncate(a, SIZE), 0);
	assert_int_equal(ftruncate(b, SIZE), 0);
	at[0] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, a, 0);
	at[1] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, b, 0);
	assert_int_equal(
		hf_libvirt_find_memfd(getpid(), (uintptr_t)at[1] + 4096, &fd, &inode, &shmem), 0);
	assert_int_equal(fd, b);
	assert_int_equal(hf_libvirt_find_memfd(getpid(), (uintptr_t)at[0], &fd, &other, &shmem), 0);
	assert_int_equal(fd, HF_MIN(a, again));
	assert_false(hf_inode_equal(&inode, &other));
	/* Mapped, but no memory object. */
	assert_int_equal(
		hf_libvirt_find_memfd(getpid(), (uintptr_t)tree, &fd, &inode, &shmem), -ENOENT);
	munmap(at[0], SIZE);
	munmap(at[1], SIZE);
	close(a);
	close(b);
	close(again);
	assert_int_equal(hf_libvirt_find_memfd(getpid(), 0, &fd, &inode, &shmem), -ENOENT);
}

/* This process has the words among its arguments: as a QEMU that was started with one has. */
static void test_version(void **state)
{
	static const struct {
		uint32_t version[3];
		int r;
	} rows[] = {{{7, 2, 22}, 0}, {{8, 0, 5}, 0}, {{8, 1, 0}, -EOPNOTSUPP},
		{{10, 0, 3}, -EOPNOTSUPP}};
	struct hf_manifest_guest g = {.name = (char *)"web", .manager = (char *)"libvirt"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		struct hf_error e = {0};

		memcpy(g.qemu_version, rows[i].version, sizeof(g.qemu_version));
		assert_int_equal(hf_libvirt_check_memfds(&g, getpid(), &e), rows[i].r);
		if (rows[i].r < 0)
			assert_non_null(strstr(e.remedy, "libvirt enable web"));
		/* What was started for an update, and what isn't libvirt's. */
		assert_int_equal(hf_libvirt_check_memfds(&g, getppid(), NULL), 0);
	}
	g.manager = (char *)"qemu";
	assert_int_equal(hf_libvirt_check_memfds(&g, getpid(), NULL), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_host_address),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_find),
	};

	if (argc == 1) {
		execl("/proc/self/exe", argv[0], "-object", "memory-backend-memfd,id=x", NULL);
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
