/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Where RAM is: by machine type, by command line, by what the firmware was told.
 */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "vmm-glue/layout.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

static struct hf_manifest_ram ram[4];

static struct hf_layout get(
	const struct hf_vmdesc *d, const char *machine, size_t n_ram, char **argv)
{
	struct hf_manifest_guest g = {
		.machine = (char *)machine, .ram = ram, .n_ram = n_ram, .argv = argv};
	struct hf_layout layout;
	uint64_t sum = 0, all = 0;

	while (argv[g.n_argv])
		g.n_argv++;
	assert_int_equal(hf_layout_get(&g, d, &layout), 0);
	for (size_t i = 0; i < n_ram; i++)
		all += ram[i].size;
	for (size_t i = 0; i < layout.n_ranges; i++)
		sum += layout.ranges[i].size;
	assert_true(sum == all);
	return layout;
}

/* One block: how much of it is below the hole; 0: not known. */
static uint64_t below(
	const struct hf_vmdesc *d, const char *machine, uint64_t size, const char *option)
{
	char *argv[] = {(char *)"qemu", (char *)"-machine", (char *)option, NULL};
	struct hf_layout l;

	ram[0] = (struct hf_manifest_ram){.id = (char *)"pc.ram", .size = size};
	l = get(d, machine, 1, argv);
	assert_true(l.ranges[0].address == 0 && l.ranges[0].offset == 0);
	if (l.unknown[0]) {
		assert_int_equal(l.n_ranges, 1);
		return 0;
	}
	if (l.n_ranges == 2)
		assert_true(
			l.ranges[1].address == 4 * GIB && l.ranges[1].offset == l.ranges[0].size);
	return l.ranges[0].size;
}

static void test_types(void **state)
{
	assert_true(below(NULL, "pc-q35-7.2", 64 * MIB, "q35") == 64 * MIB);
	assert_true(below(NULL, "pc-q35-7.2", 0xb0000000 - 4096, "q35") == 0xb0000000 - 4096);
	assert_true(below(NULL, "pc-q35-7.2", 0xb0000000, "q35") == 2 * GIB);
	assert_true(below(NULL, "pc-q35-10.0", 64 * GIB, "q35") == 2 * GIB);
	assert_true(below(NULL, "pc-i440fx-7.2", 0xe0000000 - 4096, "pc") == 0xe0000000 - 4096);
	assert_true(below(NULL, "pc-i440fx-7.2", 0xe0000000, "pc") == 3 * GIB);
	assert_true(below(NULL, "pc-i440fx-7.2", 64 * GIB, "pc") == 3 * GIB);
	assert_true(below(NULL, "microvm", 3 * GIB, "microvm") == 3 * GIB);
	assert_true(below(NULL, "microvm", 4 * GIB, "microvm") == 0);
	assert_true(below(NULL, "isapc", 1 * GIB, "isapc") == GIB);
	assert_true(below(NULL, "virt-9.0", 1 * GIB, "virt") == 0);
	assert_true(below(NULL, NULL, 1 * GIB, "x") == 0);
	assert_true(below(NULL, "pc-q35-7.2", 2048 * GIB, "q35") == 0);
}

static void test_options(void **state)
{
	assert_true(below(NULL, "pc-i440fx-7.2", 4 * GIB, "pc,max-ram-below-4g=1G") == GIB);
	assert_true(below(NULL, "pc-i440fx-7.2", 512 * MIB, "pc,max_ram_below_4g=1G") == 512 * MIB);
	assert_true(below(NULL, "pc-i440fx-7.2", 8 * GIB, "pc,max-ram-below-4g=3.5G") == 3 * GIB);
	assert_true(below(NULL, "pc-q35-7.2", 4 * GIB, "q35,max-ram-below-4g=1G") == GIB);
	assert_true(below(NULL, "pc-q35-7.2", 4 * GIB, "q35,max-ram-below-4g=3G") == 2 * GIB);
	assert_true(below(NULL, "pc-q35-7.2", 4 * GIB, "q35,max-ram-below-4g=lots") == 0);
}

/* A device state with nothing but a clock. */
static struct hf_vmdesc *clock_with(uint64_t low, uint64_t high, uint8_t *stream)
{
	static const char text[] =
		"{\"devices\":[{\"name\":\"mc146818rtc\",\"instance_id\":0,\"version\":3,"
		"\"fields\":[{\"name\":\"cmos_data\",\"size\":128}]}]}";
	uint32_t length = htobe32((uint32_t)sizeof(text) - 1);
	struct hf_vmdesc *d = NULL;
	uint8_t *p = stream, *cmos;

	p = mempcpy(p, "\004\0\0\0\001\013mc146818rtc\0\0\0\0\0\0\0\003", 25);
	cmos = p;
	memset(cmos, 0, 128);
	low = (low - 16 * MIB) >> 16;
	high >>= 16;
	cmos[0x34] = (uint8_t)low;
	cmos[0x35] = (uint8_t)(low >> 8);
	cmos[0x5b] = (uint8_t)high;
	cmos[0x5c] = (uint8_t)(high >> 8);
	cmos[0x5d] = (uint8_t)(high >> 16);
	p = mempcpy(p + 128, "\176\0\0\0\001\0\006", 7);
	p = mempcpy(p, &length, 4);
	p = mempcpy(p, text, sizeof(text) - 1);
	assert_int_equal(hf_vmdesc_parse(stream, (size_t)(p - stream), &d), 0);
	return d;
}

static void test_cmos(void **state)
{
	uint8_t stream[512];
	struct hf_vmdesc *d = clock_with(0xb0000000, 5 * GIB - 0xb0000000, stream);

	/* Believed where it adds up, and nowhere else. */
	assert_true(below(d, "pc-q35-7.2", 5 * GIB, "q35") == 0xb0000000);
	assert_true(below(d, "microvm", 5 * GIB, "microvm") == 0xb0000000);
	assert_true(below(d, "pc-q35-7.2", 6 * GIB, "q35") == 2 * GIB);
	assert_true(below(d, "microvm", 6 * GIB, "microvm") == 0);
	hf_vmdesc_free(d);
}

static void test_nodes(void **state)
{
	char *argv[] = {(char *)"qemu", (char *)"-numa", (char *)"node,nodeid=2,memdev=a",
		(char *)"-numa", (char *)"cpu,node-id=2,socket-id=0", (char *)"-numa",
		(char *)"node,nodeid=0,memdev=b", (char *)"-numa", (char *)"node,nodeid=1,cpus=1",
		NULL};
	struct hf_layout l;

	ram[0] = (struct hf_manifest_ram){.id = (char *)"a", .size = 3 * GIB};
	ram[1] = (struct hf_manifest_ram){.id = (char *)"b", .size = GIB};
	l = get(NULL, "pc-q35-7.2", 2, argv);
	assert_string_equal(l.unknown, "");
	assert_int_equal(l.n_ranges, 3);
	assert_true(l.ranges[0].block == 1 && l.ranges[0].address == 0 && l.ranges[0].size == GIB);
	assert_true(
		l.ranges[1].block == 0 && l.ranges[1].address == GIB && l.ranges[1].size == GIB);
	assert_true(l.ranges[2].block == 0 && l.ranges[2].address == 4 * GIB &&
		    l.ranges[2].offset == GIB && l.ranges[2].size == 2 * GIB);
	/* One more than nodes have, and one that isn't there. */
	ram[2] = (struct hf_manifest_ram){.id = (char *)"dimm", .size = GIB};
	l = get(NULL, "pc-q35-7.2", 3, argv);
	assert_non_null(strstr(l.unknown, "memory modules"));
	assert_int_equal(l.n_ranges, 3);
	assert_true(l.ranges[1].block == 1 && l.ranges[1].address == 3 * GIB);
	ram[1].id = (char *)"c";
	l = get(NULL, "pc-q35-7.2", 2, argv);
	assert_non_null(strstr(l.unknown, "other memory"));
	argv[2] = (char *)"node,nodeid=x,memdev=a";
	l = get(NULL, "pc-q35-7.2", 2, argv);
	assert_non_null(strstr(l.unknown, "numbers"));
	argv[1] = NULL;
	l = get(NULL, "pc-q35-7.2", 2, argv);
	assert_non_null(strstr(l.unknown, "memory modules"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_cmos),
		cmocka_unit_test(test_nodes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
