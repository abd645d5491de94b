/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: What is found in command lines, and what only looks like it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "common/cleanup.h"
#include "vmm-glue/traits.h"

static struct hf_traits find(const char *const *argv)
{
	struct hf_traits t;
	size_t n = 0;

	while (argv[n])
		n++;
	hf_traits_find((char *const *)argv, n, &t);
	return t;
}

#define FIND(...) find((const char *const[]){"qemu-system-x86_64", __VA_ARGS__, NULL})

static void test_nothing(void **state)
{
	struct hf_traits t = FIND("-machine", "pc-q35-9.2,accel=kvm", "-cpu", "Skylake-Server,+vmx",
		"-m", "1G", "-object", "memory-backend-memfd,id=a,size=1G,hugetlb=off", "-device",
		"virtio-balloon-pci", "-name", "vfio-pci,hugetlb=on");

	assert_false(t.machine_alias);
	assert_string_equal(t.machine, "pc-q35-9.2");
	assert_string_equal(t.cpu, "");
	assert_string_equal(t.vfio, "");
	assert_string_equal(t.hugetlb, "");
	assert_string_equal(t.discard_data, "");
	assert_string_equal(t.virtio_mem, "");
	assert_string_equal(t.agent_chardev, "");
}

static void test_cpu(void **state)
{
	assert_string_equal(FIND("-cpu", "host").cpu, "host");
	assert_string_equal(FIND("-cpu", "max,-avx512f").cpu, "max");
	assert_string_equal(FIND("-cpu", "hostile").cpu, "");
	assert_string_equal(FIND("-cpu", "maximal,x=host").cpu, "");
	/* The last one counts. */
	assert_string_equal(FIND("-cpu", "host", "-cpu", "qemu64").cpu, "");
	assert_string_equal(FIND("--cpu", "host").cpu, "host");
}

static void test_machine(void **state)
{
	assert_true(FIND("-m", "1G").machine_alias);
	assert_true(FIND("-M", "q35").machine_alias);
	assert_true(FIND("-machine", "type=pc,accel=tcg", "-machine", "kernel_irqchip=on")
			    .machine_alias);
	assert_false(FIND("-M", "q35", "-M", "pc-i440fx-7.2").machine_alias);
	assert_false(FIND("-M", "microvm").machine_alias);
}

static void test_memory(void **state)
{
	struct hf_traits t = FIND("-object", "memory-backend-memfd,id=m0,size=1G,hugetlb=on");

	assert_string_equal(t.hugetlb, "m0");
	t = FIND("-object",
		"{\"qom-type\":\"memory-backend-memfd\",\"id\":\"m1\",\"hugetlb\":true}");
	assert_string_equal(t.hugetlb, "m1");
	t = FIND("-object", "memory-backend-file,id=m2,mem-path=/dev/hugepages,discard-data=on");
	assert_string_equal(t.hugetlb, "m2");
	assert_string_equal(t.discard_data, "m2");
	assert_string_equal(FIND("-mem-path", "/dev/hugepages").hugetlb, "/dev/hugepages");
	assert_string_equal(FIND("-mem-path", "/dev/shm").hugetlb, "");
	assert_string_equal(FIND("-object", "rng-random,id=r,hugetlb=on").hugetlb, "");
	assert_string_equal(FIND("-object", "memory-backend-memfd,hugetlb=on").hugetlb, "?");
}

static void test_devices(void **state)
{
	struct hf_traits t = FIND("-device", "vfio-pci,host=01:00.0", "-device", "vfio-ap",
		"-device", "virtio-mem-pci,id=v");

	assert_string_equal(t.vfio, "vfio-pci");
	assert_string_equal(t.virtio_mem, "virtio-mem-pci");
	t = FIND("-device", "{\"driver\":\"vfio-pci-nohotplug\",\"host\":\"0000:01:00.0\"}");
	assert_string_equal(t.vfio, "vfio-pci-nohotplug");
}

static void test_agent(void **state)
{
	assert_string_equal(FIND("-device", "virtio-serial", "-device",
				    "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0")
				    .agent_chardev,
		"qga0");
	assert_string_equal(
		FIND("-device",
			"{\"driver\":\"virtserialport\",\"name\":\"org.qemu.guest_agent.0\","
			"\"chardev\":\"c1\"}")
			.agent_chardev,
		"c1");
	assert_string_equal(
		FIND("-device", "virtserialport,chardev=c,name=org.spice.0").agent_chardev, "");
	assert_string_equal(
		FIND("-device", "virtconsole,chardev=c,name=org.qemu.guest_agent.0").agent_chardev,
		"");
}

/* What can't be read, or ends too early, is passed over. */
static void test_odd(void **state)
{
	struct hf_traits t = FIND("-device", "{broken", "-object", "", "-device", "", "-cpu", "",
		"-machine", "", "-device", "vfio-pci", "-cpu");
	char big[300];

	assert_string_equal(t.vfio, "vfio-pci");
	memset(big, 'v', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	memcpy(big, "vfio-", 5);
	assert_int_equal(strlen(FIND("-device", big).vfio), HF_TRAIT_BYTES - 1);
	assert_int_equal(strlen(FIND("-M", big).machine), HF_TRAIT_BYTES - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_cpu),
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_agent),
		cmocka_unit_test(test_odd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
