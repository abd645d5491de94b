/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QEMU command lines and what is understood of them.
 *
 * A table of command lines, with the RAM blocks or the reason each must give; then what the builder
 * writes, argument by argument; then the parts. What QEMU itself makes of built command lines is
 * for test-launch.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "memfd-preserve/manifest.h"
#include "vmm-glue/cmdline-params.h"
#include "vmm-glue/cmdline.h"

#define MAX_ARGS 64

/* Splits at spaces; the text stays the caller's. Return: number of words. */
static size_t split(char *text, const char **words)
{
	size_t n = 0;

	for (char *s = strtok(text, " "); s; s = strtok(NULL, " ")) {
		assert_true(n < MAX_ARGS);
		words[n++] = s;
	}
	return n;
}

static struct hf_cmdline *parse(const char *line)
{
	const char *words[MAX_ARGS];
	char *text = strdup(line);
	struct hf_cmdline *plan = NULL;
	struct hf_error e = {0};
	size_t n = split(text, words);

	assert_int_equal(hf_cmdline_parse(words, n, &plan, &e), 0);
	assert_non_null(plan);
	free(text);
	return plan;
}

/* "id:bytes id:bytes" */
static void describe_ram(const struct hf_cmdline *plan, char *out, size_t size)
{
	size_t n = 0;

	out[0] = 0;
	for (size_t i = 0; i < plan->n_ram; i++)
		n += snprintf(out + n, size - n, "%s%s:%llu", i ? " " : "", plan->ram[i].id,
			(unsigned long long)plan->ram[i].size);
}

struct row {
	const char *args;   /* behind qemu-system-x86_64 */
	const char *ram;    /* what goes on memfds, or NULL when not looked at */
	const char *reason; /* part of the reason, or NULL: it can be preserved */
};

static const struct row rows[] = {
	/* -m in all its spellings */
	{"", "pc.ram:134217728", NULL},
	{"-m 64", "pc.ram:67108864", NULL},
	{"-m 2G", "pc.ram:2147483648", NULL},
	{"-m 2g", "pc.ram:2147483648", NULL},
	{"--m 65536K", "pc.ram:67108864", NULL},
	{"-m size=1G,slots=2,maxmem=4G", "pc.ram:1073741824", NULL},
	{"-m 1G -m slots=2,maxmem=4G", "pc.ram:1073741824", NULL},
	{"-m slots=2,maxmem=4G", "pc.ram:134217728", NULL},
	{"-m 1G -m 512M", "pc.ram:536870912", NULL},
	{"-m 1.5G", "pc.ram:1610612736", NULL},
	{"-m 0x40", "pc.ram:67108864", NULL},
	{"-m 0", "pc.ram:134217728", NULL},
	{"-m 1G -m 0", "pc.ram:134217728", NULL},
	{"-m 67108865B", "pc.ram:67117056", NULL},
	{"-machine memory.size=64M", "pc.ram:67108864", NULL},
	{"-m 1G -machine memory.size=64M", "pc.ram:1073741824", NULL},
	{"-m 2GG", NULL, "memory size"},
	{"-m -5", NULL, "memory size"},
	{"-m 1e3", NULL, "memory size"},
	{"-m 16E", NULL, "memory size"},
	{"-m 7E", NULL, "beyond all bounds"},
	{"-m", NULL, "lacks its value"},

	/* machines */
	{"-M q35", "pc.ram:134217728", NULL},
	{"-machine type=pc-q35-10.0,accel=kvm", "pc.ram:134217728", NULL},
	{"-machine pc-i440fx-2.4", "pc.ram:134217728", NULL},
	{"--machine microvm,rtc=on", "microvm.ram:134217728", NULL},
	{"-machine isapc", "pc.ram:134217728", NULL},
	{"-machine q35 -machine accel=tcg -M vmport=off", "pc.ram:134217728", NULL},
	{"-machine xenfv", NULL, "machine type xenfv"},
	{"-machine virt", NULL, "machine type virt"},
	{"-machine pc,confidential-guest-support=sev0", NULL, "confidential"},
	{"-machine pc,confidential_guest_support=sev0", NULL, "confidential"},
	{"-machine pc,memory-encryption=sev0", NULL, "confidential"},
	{"-machine pc,sgx-epc.0.memdev=e0", NULL, "SGX"},
	{"-accel xen", NULL, "Xen"},
	{"-machine pc,accel=xen:kvm", NULL, "Xen"},

	/* memory objects */
	{"-m 1G -object memory-backend-ram,id=m0,size=1G -machine memory-backend=m0",
		"m0:1073741824", NULL},
	{"-machine pc,memory_backend=m0 -object memory-backend-memfd,id=m0,size=64M,share=on",
		"m0:67108864", NULL},
	{"-object qom-type=memory-backend-ram,size=64M,id=m0 -M memory-backend=m0", "m0:67108864",
		NULL},
	{"-object memory-backend-shm,id=m0,size=64M -M memory-backend=m0", "m0:67108864", NULL},
	{"--object {\"qom-type\":\"memory-backend-ram\",\"id\":\"m0\",\"size\":67108864} "
	 "-M memory-backend=m0",
		"m0:67108864", NULL},
	{"-object {\"qom-type\":\"memory-backend-ram\",\"id\":\"m0\",\"size\":\"64M\"}", NULL,
		"size of RAM m0"},
	{"-object {\"qom-type\":", NULL, "can't be read"},
	{"-object {'qom-type':'memory-backend-ram'}", NULL, "can't be read"},
	{"-object memory-backend-ram,id=a,size=64M -object memory-backend-memfd,id=b,size=64M "
	 "-numa node,memdev=a -numa node,nodeid=1,memdev=b -m 128M",
		"a:67108864 b:67108864", NULL},
	{"-numa node,cpus=0 -numa node,cpus=1 -m 64", "pc.ram:67108864", NULL},
	{"-machine pc-i440fx-4.0 -m 128 -numa node,mem=64M -numa node,mem=64M", "pc.ram:134217728",
		NULL},
	{"-m 64M,slots=2,maxmem=1G -object memory-backend-ram,id=d0,size=128M -device "
	 "pc-dimm,memdev=d0",
		"d0:134217728 pc.ram:67108864", NULL},
	{"-object memory-backend-ram,id=d0,size=4097", "d0:8192 pc.ram:134217728", NULL},
	{"-object memory-backend-memfd,id=m0,size=1G,hugetlb=on,hugetlbsize=2M", NULL, "hugetlb"},
	{"-object memory-backend-memfd,id=m0,size=1G,hugetlb", NULL, "hugetlb"},
	{"-object memory-backend-memfd,id=m0,size=1G,nohugetlb -M memory-backend=m0",
		"m0:1073741824", NULL},
	{"-object {\"qom-type\":\"memory-backend-memfd\",\"id\":\"m0\",\"size\":4096,"
	 "\"hugetlb\":true}",
		NULL, "hugetlb"},
	{"-object memory-backend-file,id=m0,size=1G,mem-path=/dev/hugepages", NULL, "hugetlbfs"},
	{"-object memory-backend-file,id=m0,size=1G,mem-path=/dev/shm/m0,share=on", NULL,
		"others may use"},
	{"-object memory-backend-file,id=m0,size=1G,mem-path=/x,share=on,discard-data=on", NULL,
		"discard-data"},
	{"-object memory-backend-file,id=m0,size=1G,mem-path=/var/template", NULL, "private copy"},
	{"-object memory-backend-file,id=m0,size=1G,mem-path=/rom,readonly=on", NULL, "read-only"},
	{"-object memory-backend-epc,id=e0,size=64M", NULL, "memory-backend-epc"},
	{"-object memory-backend-ram,size=64M", NULL, "no id"},
	{"-object memory-backend-ram,id=m0", NULL, "size of RAM m0"},
	{"-object memory-backend-ram,id=m0,size=0", NULL, "size of RAM m0"},
	{"-object memory-backend-ram,id=m0,size=99999999E", NULL, "size of RAM m0"},
	{"-object memory-backend-ram,id=m0,size=1M -object memory-backend-ram,id=m0,size=1M", NULL,
		"two memory objects"},
	{"-object memory-backend-ram,id=pc.ram,size=1M", NULL, "two memory objects"},
	{"-object rng-random,id=r0,filename=/dev/urandom -m 64", "pc.ram:67108864", NULL},
	{"-mem-path /dev/hugepages", NULL, "-mem-path"},
	{"-mem-prealloc -m 64", "pc.ram:67108864", NULL},
	{"-global memory-backend-ram.share=off", NULL, "-global"},
	{"-global driver=memory-backend-ram,property=share,value=on", NULL, "-global"},
	{"-set object.m0.share=on", NULL, "-set"},
	{"-set device.d0.vgamem_mb=16 -m 64", "pc.ram:67108864", NULL},
	{"-set device.d0.vhostfd=16", NULL, "-set"},

	/* descriptors from outside */
	{"-netdev tap,id=n0,fd=5", NULL, "file descriptor"},
	{"-netdev tap,id=n0,fds=5:6,vhost=on,vhostfds=7:8", NULL, "file descriptor"},
	{"-netdev tap,id=n0,ifname=t0,vhost=on,vhostfd=7", NULL, "file descriptor"},
	{"-netdev {\"type\":\"tap\",\"id\":\"n0\",\"fd\":\"5\"}", NULL, "file descriptor"},
	{"-netdev stream,id=n0,addr.type=fd,addr.str=7", NULL, "file descriptor"},
	{"-nic tap,fd=3,model=virtio", NULL, "file descriptor"},
	{"-add-fd fd=3,set=2", NULL, "file descriptor"},
	{"-chardev socket,id=c0,fd=26,server=on,wait=off", NULL, "file descriptor"},
	{"-drive file=/dev/fdset/2,if=virtio", NULL, "file descriptor"},
	{"-blockdev {\"driver\":\"file\",\"filename\":\"/dev/fdset/1\",\"node-name\":\"x\"}", NULL,
		"file descriptor"},
	{"-device vhost-vsock-pci,guest-cid=3,vhostfd=9", NULL, "file descriptor"},
	{"-object memory-backend-file,id=m0,size=1G,share=on,mem-path=/proc/self/fd/3", NULL,
		"is the file"},
	{"-kernel /proc/self/fd/5", NULL, "file descriptor"},
	{"/dev/fd/7", NULL, "file descriptor"},
	{"-netdev tap,id=n0,ifname=fd -m 64", "pc.ram:67108864", NULL},

	/* devices and backends that don't cross */
	{"-device vfio-pci,host=01:00.0", NULL, "passed through"},
	{"-device {\"driver\":\"vfio-pci\",\"host\":\"01:00.0\"}", NULL, "passed through"},
	{"-device vhost-user-fs-pci,chardev=c0,tag=x", NULL, "another process"},
	{"-netdev vhost-user,id=n0,chardev=c0", NULL, "another process"},
	{"-netdev vhost-vdpa,id=n0,vhostdev=/dev/vhost-vdpa-0", NULL, "hardware"},
	{"-device virtio-mem-pci,memdev=m0", NULL, "virtio-mem"},
	{"-tpmdev emulator,id=t0,chardev=c0", NULL, "TPM"},
	{"-device virtio-blk-pci,drive=d0 -drive id=d0,file=/srv/a,,b.img,if=none",
		"pc.ram:134217728", NULL},

	/* ways of starting */
	{"-daemonize", NULL, "-daemonize"},
	{"--daemonize", NULL, "-daemonize"},
	{"-incoming defer", NULL, "-incoming"},
	{"-readconfig /etc/vm.cfg", NULL, "-readconfig"},
	{"-preconfig", NULL, "-preconfig"},
	{"-snapshot", NULL, "-snapshot"},
	{"-drive file=/x,snapshot=on", NULL, "snapshot=on"},
	{"-frobnicate", NULL, "-frobnicate"},
	{"-", NULL, "doesn't know"},
	{"-m=2G", NULL, "doesn't know"},

	/* values that look like options, or like more than they are */
	{"-append -daemonize -m 64", "pc.ram:67108864", NULL},
	{"-append console=ttyS0,fd=5,mem=2G -m 64", "pc.ram:67108864", NULL},
	{"-name guest=-m,debug-threads=on -m 64", "pc.ram:67108864", NULL},
	{"-fw_cfg name=opt/x,string=vfio-pci -m 64", "pc.ram:67108864", NULL},
	{"-object memory-backend-ram,id=m0,size=64M,policy=bind,host-nodes=0-1,host-nodes=3 "
	 "-M memory-backend=m0",
		"m0:67108864", NULL},
};

static void check_row(const struct row *row)
{
	char line[1024], ram[512];
	struct hf_cmdline *plan;

	snprintf(line, sizeof(line), "qemu-system-x86_64 %s", row->args);
	plan = parse(line);
	describe_ram(plan, ram, sizeof(ram));
	if (plan->kind != HF_CMDLINE_GUEST)
		fail_msg("%s: no guest", row->args);
	if (!row->reason && plan->reason[0])
		fail_msg("%s: refused: %s", row->args, plan->reason);
	if (row->reason && !strstr(plan->reason, row->reason))
		fail_msg("%s: reason is \"%s\", not \"%s\"", row->args, plan->reason, row->reason);
	if (row->reason && !plan->remedy[0])
		fail_msg("%s: no remedy", row->args);
	if (row->ram && strcmp(row->ram, ram) != 0)
		fail_msg("%s: RAM is %s, not %s", row->args, ram, row->ram);
	hf_cmdline_free(plan);
}

static void test_rows(void **state)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++)
		check_row(&rows[i]);
}

static void test_probes(void **state)
{
	static const char *const probes[] = {"-version", "--version", "-h", "-help", "--help",
		"-machine help", "-M ?", "-machine none -S -qmp stdio",
		"-S -no-user-config -nodefaults -nographic -machine none,accel=kvm:tcg -daemonize",
		"-device help", "-device virtio-blk-pci,help", "-cpu help", "-cpu ?",
		"-object help", "-object memory-backend-ram,help", "-netdev help",
		"-nic user,model=help", "-d help", "-display help", "-audio-help"};
	static const char *const guests[] = {"-name help", "-append help", "-kernel help", "help",
		"-device virtio-blk-pci,serial=help", "-cdrom ?"};
	char line[256];

	for (size_t i = 0; i < HF_ARRAY_SIZE(probes) + HF_ARRAY_SIZE(guests); i++) {
		bool probe = i < HF_ARRAY_SIZE(probes);
		const char *args = probe ? probes[i] : guests[i - HF_ARRAY_SIZE(probes)];
		struct hf_cmdline *plan;

		snprintf(line, sizeof(line), "/usr/bin/qemu-system-x86_64 %s", args);
		plan = parse(line);
		if ((plan->kind == HF_CMDLINE_PROBE) != probe)
			fail_msg("%s: taken for a %s", args, probe ? "guest" : "probe");
		hf_cmdline_free(plan);
	}
}

static void test_other_architectures(void **state)
{
	struct hf_cmdline *plan = parse("/usr/bin/qemu-system-aarch64 -machine pc");

	assert_non_null(strstr(plan->reason, "machine type pc"));
	hf_cmdline_free(plan);
	plan = parse("qemu-system-s390x -m 64");
	assert_non_null(strstr(plan->reason, "isn't one for x86"));
	hf_cmdline_free(plan);
	/* Distributions have other names for theirs. */
	plan = parse("/usr/libexec/qemu-kvm -m 64");
	assert_string_equal(plan->reason, "");
	hf_cmdline_free(plan);
}

static void test_identity(void **state)
{
	struct hf_cmdline *plan =
		parse("qemu-system-x86_64 -name a,,b,debug-threads=on "
		      "-uuid 0E7A3AD2-0D1C-4A3E-9D4F-0123456789AB -S -enable-kvm");

	assert_string_equal(plan->name, "a,b");
	assert_string_equal(plan->uuid, "0E7A3AD2-0D1C-4A3E-9D4F-0123456789AB");
	assert_true(plan->paused);
	assert_true(plan->kvm);
	assert_null(plan->machine);
	hf_cmdline_free(plan);

	plan = parse("qemu-system-x86_64 -name first -name debug-threads=on -name guest=x "
		     "-machine pc,accel=tcg:kvm -M type=q35 -overcommit mem-lock=on");
	assert_string_equal(plan->name, "x");
	assert_string_equal(plan->machine, "q35");
	assert_true(plan->kvm);
	assert_true(plan->mem_lock);
	assert_false(plan->paused);
	hf_cmdline_free(plan);
}

static void test_stdio(void **state)
{
	static const char *const with[] = {"-nographic", "-serial stdio", "-serial mon:stdio",
		"-monitor stdio", "-qmp stdio", "-chardev stdio,id=c0,signal=off",
		"-display curses", "-nographic -monitor none", "-parallel stdio"};
	static const char *const without[] = {"", "-nographic -nodefaults",
		"-nographic -serial null -monitor none", "-serial file:stdio",
		"-chardev socket,id=stdio,path=/x", "-display none"};
	char line[256];

	for (size_t i = 0; i < HF_ARRAY_SIZE(with) + HF_ARRAY_SIZE(without); i++) {
		bool expected = i < HF_ARRAY_SIZE(with);
		const char *args = expected ? with[i] : without[i - HF_ARRAY_SIZE(with)];
		struct hf_cmdline *plan;

		snprintf(line, sizeof(line), "qemu-system-x86_64 %s", args);
		plan = parse(line);
		if (plan->stdio != expected)
			fail_msg("%s: stdio is %d", args, plan->stdio);
		hf_cmdline_free(plan);
	}
}

static void test_taps(void **state)
{
	struct hf_cmdline *plan = parse(
		"qemu-system-x86_64 -netdev tap,id=n0,ifname=t0,script=no,downscript=no,queues=4 "
		"-netdev bridge,id=n1,br=br7 -nic tap,helper=/usr/lib/h,,1,br=br8 "
		"-net nic -net user -netdev user,id=n3 "
		"-netdev {\"type\":\"tap\",\"id\":\"n4\",\"ifname\":\"t4\",\"queues\":2}");

	assert_string_equal(plan->reason, "");
	assert_int_equal(plan->n_taps, 4);
	assert_string_equal(plan->taps[0].id, "n0");
	assert_string_equal(plan->taps[0].ifname, "t0");
	assert_string_equal(plan->taps[0].script, "no");
	assert_string_equal(plan->taps[0].downscript, "no");
	assert_int_equal(plan->taps[0].queues, 4);
	assert_false(plan->taps[0].helper_used);
	assert_string_equal(plan->taps[1].bridge, "br7");
	assert_true(plan->taps[1].helper_used);
	assert_null(plan->taps[2].id);
	assert_string_equal(plan->taps[2].helper, "/usr/lib/h,1");
	assert_true(plan->taps[2].helper_used);
	assert_string_equal(plan->taps[3].ifname, "t4");
	assert_int_equal(plan->taps[3].queues, 2);
	hf_cmdline_free(plan);
}

/* As many as QEMU would make; what it would refuse is not guessed at. */
static void test_queues(void **state)
{
	static const struct {
		const char *text;
		unsigned int expected; /* 0: the guest is refused */
	} cases[] = {{"1", 1}, {"2", 2}, {"256", 256}, {"0x10", 16}, {"010", 8}, {"0", 0},
		{"257", 0}, {"-1", 0}, {"+2", 0}, {"2x", 0}, {"x", 0}, {"", 0}, {"1.5", 0},
		{"0x", 0}, {"08", 0}, {"4294967298", 0}, {"18446744073709551618", 0}};
	struct hf_cmdline *plan;
	char line[128];

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		snprintf(line, sizeof(line),
			"qemu-system-x86_64 -netdev tap,id=n0,ifname=t0,queues=%s", cases[i].text);
		plan = parse(line);
		assert_int_equal(plan->n_taps, 1);
		if (plan->taps[0].queues != (cases[i].expected ?: 1))
			fail_msg("queues=%s: %u", cases[i].text, plan->taps[0].queues);
		if ((strstr(plan->reason, "queues") == NULL) != (cases[i].expected > 0))
			fail_msg("queues=%s: \"%s\"", cases[i].text, plan->reason);
		hf_cmdline_free(plan);
	}
	/* Its JSON form is no way around that. */
	plan = parse("qemu-system-x86_64 -netdev "
		     "{\"type\":\"tap\",\"id\":\"n\",\"queues\":-2}");
	assert_string_equal(plan->reason, "a tap can't have queues=-2");
	assert_non_null(strstr(plan->remedy, "1 to 256"));
	hf_cmdline_free(plan);
}

/* ---- building ---- */

struct build_row {
	const char *args;
	const char *launch;  /* what follows the program at first */
	const char *respawn; /* and when it is started anew, as pc-x-1.0 */
};

#define F "/proc/self/fd/"
#define ALIGN ",align=2097152"
#define CANON ",x-use-canonical-path-for-ramblock-id=off"
#define QMP "-qmp unix:/r/q,,1.sock,server=on,wait=off"
#define DEFER "-incoming defer -S"

static const struct build_row build_rows[] = {
	{"-m 64 -nodefaults",
		"-m 64 -nodefaults -object "
		"memory-backend-file,id=pc.ram,size=67108864,share=on,mem-path=" F "10" ALIGN CANON
		" -machine memory-backend=pc.ram " QMP,
		"-m 64 -nodefaults -object "
		"memory-backend-file,id=pc.ram,size=67108864,share=on,mem-path=" F "10" ALIGN CANON
		" -machine type=pc-x-1.0,memory-backend=pc.ram " QMP " " DEFER},
	{"-m 64 -mem-prealloc -nodefaults -M microvm",
		"-m 64 -mem-prealloc -nodefaults -M microvm -object "
		"memory-backend-file,id=microvm.ram,size=67108864,share=on,mem-path=" F
		"10" ALIGN CANON " -machine memory-backend=microvm.ram " QMP,
		"-m 64 -mem-prealloc -nodefaults -M microvm -object "
		"memory-backend-file,id=microvm.ram,size=67108864,share=on,mem-path=" F
		"10" ALIGN CANON
		",prealloc=off -machine type=pc-x-1.0,memory-backend=microvm.ram " QMP " " DEFER},
	{"-nodefaults -M memory-backend=b -object "
	 "memory-backend-ram,id=b,size=64M,prealloc=on,host-nodes=0,host-nodes=1,policy=bind,"
	 "noshare "
	 "disk,,x.img",
		"-nodefaults -M memory-backend=b -object "
		"memory-backend-file,id=b,size=64M,prealloc=on,host-nodes=0,host-nodes=1,policy="
		"bind,"
		"share=on,mem-path=" F "10" ALIGN CANON " disk,,x.img " QMP,
		"-nodefaults -M memory-backend=b -object "
		"memory-backend-file,id=b,size=64M,host-nodes=0,host-nodes=1,policy=bind,"
		"share=on,mem-path=" F "10" ALIGN CANON
		",prealloc=off disk,,x.img -machine type=pc-x-1.0 " QMP " " DEFER},
	/* Its name follows the rules of files already; and the user's word on it stays. */
	{"-nodefaults -object memory-backend-memfd,size=64M,id=b,seal=off,hugetlb=off,merge=off "
	 "-M memory-backend=b -object "
	 "memory-backend-ram,x-use-canonical-path-for-ramblock-id=on,id=c,size=1M",
		"-nodefaults -object "
		"memory-backend-file,size=64M,id=b,merge=off,share=on,mem-path=" F "10" ALIGN
		" -M memory-backend=b -object "
		"memory-backend-file,x-use-canonical-path-for-ramblock-id=on,id=c,size=1M,share=on,"
		"mem-path=" F "11" ALIGN " " QMP,
		"-nodefaults -object "
		"memory-backend-file,size=64M,id=b,merge=off,share=on,mem-path=" F "10" ALIGN
		" -M memory-backend=b -object "
		"memory-backend-file,x-use-canonical-path-for-ramblock-id=on,id=c,size=1M,share=on,"
		"mem-path=" F "11" ALIGN " -machine type=pc-x-1.0 " QMP " " DEFER},
	{"-nodefaults -M memory-backend=b -object "
	 "{\"qom-type\":\"memory-backend-ram\",\"id\":\"b\",\"prealloc\":true,\"size\":1048576,"
	 "\"host-nodes\":[0,1]}",
		"-nodefaults -M memory-backend=b -object "
		"{\"qom-type\":\"memory-backend-file\",\"id\":\"b\",\"prealloc\":true,\"size\":"
		"1048576,"
		"\"host-nodes\":[0,1],\"share\":true,\"mem-path\":\"" F
		"10\",\"align\":2097152,\"x-use-canonical-path-for-ramblock-id\":false} " QMP,
		"-nodefaults -M memory-backend=b -object "
		"{\"qom-type\":\"memory-backend-file\",\"id\":\"b\",\"size\":1048576,"
		"\"host-nodes\":[0,1],\"share\":true,\"mem-path\":\"" F
		"10\",\"align\":2097152,\"x-use-canonical-path-for-ramblock-id\":false,"
		"\"prealloc\":false} "
		"-machine type=pc-x-1.0 " QMP " " DEFER},
	/* QEMU's own monitor and serial port stay as they would be without ours. */
	{"-M memory-backend=b -object memory-backend-memfd,id=b,size=1M -nographic -loadvm s -S",
		"-M memory-backend=b -object memory-backend-file,id=b,size=1M,share=on,mem-path=" F
		"10" ALIGN " -nographic -loadvm s -S -serial mon:stdio " QMP,
		"-M memory-backend=b -object memory-backend-file,id=b,size=1M,share=on,mem-path=" F
		"10" ALIGN " -nographic -S -machine type=pc-x-1.0 -serial mon:stdio " QMP
		" " DEFER},
	{"-M memory-backend=b -object memory-backend-memfd,id=b,size=1M -nographic -serial null",
		"-M memory-backend=b -object memory-backend-file,id=b,size=1M,share=on,mem-path=" F
		"10" ALIGN " -nographic -serial null -monitor stdio " QMP,
		NULL},
	{"-M memory-backend=b -object memory-backend-memfd,id=b,size=1M -display none",
		"-M memory-backend=b -object memory-backend-file,id=b,size=1M,share=on,mem-path=" F
		"10" ALIGN " -display none -monitor vc " QMP,
		NULL},
	{"-M memory-backend=b -object memory-backend-memfd,id=b,size=1M -nographic -monitor none",
		"-M memory-backend=b -object memory-backend-file,id=b,size=1M,share=on,mem-path=" F
		"10" ALIGN " -nographic -monitor none " QMP,
		NULL},
	{"-M memory-backend=b -object memory-backend-memfd,id=b,size=1M -serial mon:stdio",
		"-M memory-backend=b -object memory-backend-file,id=b,size=1M,share=on,mem-path=" F
		"10" ALIGN " -serial mon:stdio " QMP,
		NULL},
	{"-M memory-backend=b -object memory-backend-memfd,id=b,size=1M -nographic "
	 "-device isa-serial,chardev=c",
		"-M memory-backend=b -object memory-backend-file,id=b,size=1M,share=on,mem-path=" F
		"10" ALIGN " -nographic -device isa-serial,chardev=c -monitor stdio " QMP,
		NULL},
};

static void check_built(const struct build_row *row, bool respawn)
{
	static const int fds[] = {10, 11, 12, 13};
	const char *expected = respawn ? row->respawn : row->launch;
	char line[1024], built[4096] = "";
	struct hf_cmdline *plan;
	struct hf_error e = {0};
	char **argv;
	size_t n;

	snprintf(line, sizeof(line), "qemu-system-x86_64 %s", row->args);
	plan = parse(line);
	assert_string_equal(plan->reason, "");
	assert_int_equal(hf_cmdline_build(plan,
				 &(struct hf_cmdline_how){.ram_fds = fds,
					 .qmp_path = "/r/q,1.sock",
					 .respawn = respawn,
					 .machine_type = respawn ? "pc-x-1.0" : NULL},
				 &argv, &n, &e),
		0);
	assert_null(argv[n]);
	assert_string_equal(argv[0], "qemu-system-x86_64");
	for (size_t i = 1; i < n; i++) {
		strcat(built, argv[i]);
		if (i + 1 < n)
			strcat(built, " ");
	}
	if (strcmp(built, expected) != 0)
		fail_msg("%s\n  became %s\n  not    %s", row->args, built, expected);
	free(argv);
	hf_cmdline_free(plan);
}

static void test_build(void **state)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(build_rows); i++) {
		check_built(&build_rows[i], false);
		if (build_rows[i].respawn)
			check_built(&build_rows[i], true);
	}
}

/* Taps become descriptors, in their order; what else is a backend stays as it is. */
static void test_build_taps(void **state)
{
	static const int fds[] = {10}, taps[] = {21, 22, 23};
	struct hf_cmdline *plan =
		parse("q -m 64 "
		      "-netdev tap,id=a,ifname=t0,script=/etc/up,downscript=no,vhost=on,sndbuf=0 "
		      "-netdev user,id=u "
		      "-netdev {\"type\":\"tap\",\"id\":\"b\",\"ifname\":\"t1\",\"vhost\":true} "
		      "-netdev id=c,vnet_hdr=on,type=tap,ifname=t2,queues=1");
	const char *expected[] = {"tap,id=a,vhost=on,sndbuf=0,fd=21", "user,id=u",
		"{\"type\":\"tap\",\"fd\":\"22\",\"id\":\"b\",\"vhost\":true}", "tap,id=c,fd=23"};
	struct hf_cmdline_how how = {.ram_fds = fds, .tap_fds = taps};
	struct hf_error e = {0};
	char **argv;
	size_t n;

	assert_int_equal(plan->n_taps, 3);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(hf_cmdline_build(plan, &how, &argv, &n, &e), 0);
		for (size_t i = 0; i < HF_ARRAY_SIZE(expected); i++) {
			assert_string_equal(argv[3 + 2 * i], "-netdev");
			assert_string_equal(
				argv[4 + 2 * i], round ? plan->argv[4 + 2 * i] : expected[i]);
		}
		free(argv);
		how.tap_fds = NULL;
	}
	hf_cmdline_free(plan);
}

/* A built command line takes nothing from a user who wants nothing that touches RAM. */
static void test_build_bare(void **state)
{
	struct hf_cmdline *plan = parse("q -machine xenfv -append x");
	struct hf_error e = {0};
	char **argv;
	size_t n;

	assert_true(plan->reason[0]);
	assert_int_equal(hf_cmdline_build(plan, &(struct hf_cmdline_how){0}, &argv, &n, &e), 0);
	assert_int_equal(n, plan->n_argv);
	for (size_t i = 0; i < n; i++)
		assert_string_equal(argv[i], plan->argv[i]);
	free(argv);
	hf_cmdline_free(plan);
}

static void test_limits(void **state)
{
	const char **many = calloc(HF_MANIFEST_MAX_STRINGS + 1, sizeof(*many));
	char *large = malloc(HF_MANIFEST_MAX_STRING + 1);
	struct hf_cmdline *plan = NULL;
	struct hf_error e = {0};

	for (size_t i = 0; i <= HF_MANIFEST_MAX_STRINGS; i++)
		many[i] = "x";
	assert_int_equal(hf_cmdline_parse(many, HF_MANIFEST_MAX_STRINGS + 1, &plan, &e), -EFBIG);
	assert_non_null(strstr(e.message, "too long"));
	assert_int_equal(hf_cmdline_parse(many, HF_MANIFEST_MAX_STRINGS, &plan, &e), 0);
	hf_cmdline_free(plan);
	memset(large, 'x', HF_MANIFEST_MAX_STRING);
	large[HF_MANIFEST_MAX_STRING] = 0;
	many[1] = large;
	assert_int_equal(hf_cmdline_parse(many, 2, &plan, &e), -EFBIG);
	assert_int_equal(hf_cmdline_parse(many, 0, &plan, &e), -EINVAL);
	free(large);
	free(many);
}

static void test_too_many_blocks(void **state)
{
	const char *argv[1 + 2 * (HF_MANIFEST_MAX_RAM + 1)] = {"q"};
	static char values[HF_MANIFEST_MAX_RAM + 1][64];
	struct hf_cmdline *plan;
	size_t n = 1;

	for (size_t i = 0; i <= HF_MANIFEST_MAX_RAM; i++) {
		snprintf(values[i], sizeof(values[i]), "memory-backend-ram,id=m%zu,size=1M", i);
		argv[n++] = "-object";
		argv[n++] = values[i];
	}
	assert_int_equal(hf_cmdline_parse(argv, n, &plan, NULL), 0);
	assert_non_null(strstr(plan->reason, "more than 64"));
	hf_cmdline_free(plan);
}

/* ---- parts ---- */

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		uint64_t unit;
		int r;
		uint64_t bytes;
	} sizes[] = {
		{"0", 1, 0, 0},
		{"1", 1 << 20, 0, 1 << 20},
		{"1B", 1 << 20, 0, 1},
		{"1k", 1, 0, 1024},
		{"0.5K", 1, 0, 512},
		{"1.k", 1, 0, 1024},
		{"1.1M", 1, 0, 1153434},
		{"0x10M", 1, 0, 16 << 20},
		{"0xb", 1, 0, 11},
		{"15E", 1, 0, 15ULL << 60},
		{"18446744073709551615", 1, 0, UINT64_MAX},
		{"16E", 1, -ERANGE, 0},
		{"18446744073709551616", 1, -ERANGE, 0},
		{"", 1, -EINVAL, 0},
		{" 1", 1, -EINVAL, 0},
		{"+1", 1, -EINVAL, 0},
		{"-1", 1, -EINVAL, 0},
		{"0x", 1, -EINVAL, 0},
		{"0x-1", 1, -EINVAL, 0},
		{"1.5", 1, -EINVAL, 0},
		{"1MB", 1, -EINVAL, 0},
		{"1M ", 1, -EINVAL, 0},
		{"K", 1, -EINVAL, 0},
		{"inf", 1, -EINVAL, 0},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(sizes); i++) {
		uint64_t bytes = 0;
		int r = hf_size_parse(sizes[i].text, sizes[i].unit, &bytes);

		if (r != sizes[i].r || bytes != sizes[i].bytes)
			fail_msg("size \"%s\": %d, %llu", sizes[i].text, r,
				(unsigned long long)bytes);
	}
}

static void test_params(void **state)
{
	struct hf_params p;

	assert_int_equal(hf_params_parse("a,,b=c,x=,,,y=1,,2,,,noz,no,w=3,x=4", "type", &p), 0);
	/* As QEMU reads it: the first comma ends the search for "=", the rest is one value. */
	assert_string_equal(hf_params_get(&p, "type"), "a,b=c");
	assert_string_equal(hf_params_get_first(&p, "x"), ",");
	assert_string_equal(hf_params_get(&p, "x"), "4");
	assert_string_equal(hf_params_get(&p, "y"), "1,2,");
	assert_string_equal(hf_params_get(&p, "z"), "off");
	assert_string_equal(hf_params_get(&p, ""), "off");
	assert_string_equal(hf_params_get(&p, "w"), "3");
	assert_null(hf_params_get(&p, "nothing"));
	hf_params_clear(&p);

	assert_int_equal(hf_params_parse("", "type", &p), 0);
	assert_int_equal(p.n, 0);
	hf_params_clear(&p);

	assert_int_equal(hf_params_parse("{\"a\":{\"b\":[1,true,\"x\"]},\"c\":null}", NULL, &p), 0);
	assert_true(p.json);
	assert_string_equal(hf_params_get(&p, "a.b.0"), "1");
	assert_true(hf_params_is_on(&p, "a.b.1"));
	assert_string_equal(hf_params_get(&p, "a.b.2"), "x");
	assert_string_equal(hf_params_get(&p, "c"), "");
	hf_params_clear(&p);

	assert_int_equal(hf_params_parse("{\"a\":\"x\\u0000y\"}", NULL, &p), -EBADMSG);
	assert_int_equal(hf_params_parse("{\"a\":1} x", NULL, &p), -EBADMSG);
	assert_int_equal(
		hf_params_parse(
			"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}}}}}", NULL,
			&p),
		-EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_probes),
		cmocka_unit_test(test_other_architectures),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_stdio),
		cmocka_unit_test(test_taps),
		cmocka_unit_test(test_queues),
		cmocka_unit_test(test_build),
		cmocka_unit_test(test_build_taps),
		cmocka_unit_test(test_build_bare),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_too_many_blocks),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_params),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
