/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: What is read of a host, from folders made up here, and what is said to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <zlib.h>

#include "agent/check-host.h"
#include "agent/kexec.h"
#include "common/fd.h"
#include "common/json.h"

#define MIB (1ULL << 20)
#define GIB (1ULL << 30)

static char root[64];
static struct hf_way in_memory = {.leaves = true}, in_process, on_disk = {.leaves = true};

/* A host that has everything, as the files below its root say it. */
static const struct {
	const char *path, *text;
} ready[] = {
	{"/dev/liveupdate", ""},
	{"/sys/kernel/kexec_loaded", "0\n"},
	{"/sys/kernel/security/lockdown", "[none] integrity confidentiality\n"},
	{"/proc/sys/kernel/kexec_load_disabled", "0\n"},
	{"/proc/sys/kernel/kexec_load_limit_reboot", "-1\n"},
	{"/proc/cmdline", "kho=on liveupdate=on\n"},
	{"/proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         100 kB\nMemAvailable:    "
			  "8388608 kB\n"
			  "SwapTotal:       1048576 kB\nSwapFree:        1048576 kB\n"},
	{"/proc/self/cgroup", "0::/system.slice/holdfastd.service\n"},
	{"/sys/fs/cgroup/system.slice/holdfastd.service/memory.max", "max\n"},
	{"/sys/fs/cgroup/system.slice/holdfastd.service/memory.high", "max\n"},
	{"/sys/fs/cgroup/system.slice/memory.max", "max\n"},
	{"/proc/1/comm", "systemd\n"},
	{"/proc/1/maps", "7f00-7f01 r-xp 0 08:01 7 /usr/lib/systemd/libsystemd-shared-257.so\n"},
	{"/proc/4711/comm", "hog (worse)\n"},
	{"/sys/kernel/mm/transparent_hugepage/shmem_enabled",
		"always within_size [advise] never deny force\n"},
	{"/sys/kernel/debug/kho/out/scratch_phys", "0x1000000\n0x100000000\n0x200000000\n"},
	{"/sys/kernel/debug/kho/out/scratch_len", "0x1000000\n0x20000000\n0x10000000\n"},
};

static void put(const char *path, const char *text)
{
	char full[256], *slash;

	snprintf(full, sizeof(full), "%s%s", root, path);
	slash = strrchr(full, '/');
	*slash = 0;
	assert_int_equal(hf_mkdir_p(full, 0755), 0);
	*slash = '/';
	assert_int_equal(hf_file_write_atomic(full, text, strlen(text), 0644), 0);
}

static void drop(const char *path)
{
	char full[256];

	snprintf(full, sizeof(full), "%s%s", root, path);
	assert_int_equal(unlink(full), 0);
}

static int set_up(void **state)
{
	strcpy(root, "/tmp/hf-test-host-XXXXXX");
	if (!mkdtemp(root))
		return -1;
	for (size_t i = 0; i < HF_ARRAY_SIZE(ready); i++)
		put(ready[i].path, ready[i].text);
	return 0;
}

static int tear_down(void **state)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -r %s", root);
	return system(cmd);
}

static struct hf_host_needs needs = {
	.n_guests = 2, .ram_bytes = 4 * GIB, .hole_bytes = GIB, .state_bytes = 4 * MIB};

static struct hf_host_facts facts(void)
{
	struct hf_host_facts f;

	hf_host_facts_read(root, root, root, &f);
	/* Tests need not run as root, or on an empty disk. */
	if (geteuid() != 0 && strstr(f.kexec.message, "CAP_SYS_BOOT"))
		hf_error_clear(&f.kexec);
	f.state_dir.free_bytes = f.run_dir.free_bytes = GIB;
	return f;
}

static struct hf_target target(const char *release, uint64_t init_bytes)
{
	struct hf_target t = HF_TARGET_NONE;

	strcpy(t.image.release, release);
	t.image.boot.init_bytes = init_bytes;
	t.image.boot.pref_address = 16 * MIB;
	t.image.boot.alignment = 2 * MIB;
	return t;
}

static struct json_object *find(struct json_object *findings, const char *id)
{
	for (size_t i = 0; i < hf_json_array_size(findings); i++) {
		struct json_object *f = json_object_array_get_idx(findings, i);

		if (strcmp(hf_json_get_string(f, "id", ""), id) == 0)
			return f;
	}
	return NULL;
}

/* @id has this verdict and says this; NULL: there is no such finding. */
static void expect_facts(const struct hf_host_facts *f, const struct hf_target *t, const char *id,
	const char *verdict, const char *says)
{
	struct json_object *findings = json_object_new_array();
	enum hf_verdict worst = hf_check_host(&in_memory, f, &needs, t, findings);
	struct json_object *found = find(findings, id);

	if (!verdict) {
		if (found)
			fail_msg("%s: %s", id, json_object_to_json_string(found));
	} else {
		if (!found)
			fail_msg("no %s in %s", id, json_object_to_json_string(findings));
		assert_string_equal(hf_json_get_string(found, "verdict", ""), verdict);
		if (!strstr(hf_json_get_string(found, "message", ""), says))
			fail_msg("%s does not say `%s`", json_object_to_json_string(found), says);
		if (strcmp(verdict, "ok") != 0) {
			assert_true(hf_json_get_string(found, "remedy", "")[0]);
			assert_true(worst >=
				    (strcmp(verdict, "refusal") == 0 ? HF_REFUSAL : HF_WARNING));
		}
	}
	json_object_put(findings);
}

static void expect(const char *id, const char *verdict, const char *says)
{
	const struct hf_host_facts f = facts();

	expect_facts(&f, NULL, id, verdict, says);
}

static void test_ready(void **state)
{
	static const char *const ids[] = {"host.luo", "host.kexec", "host.kexec-signature",
		"host.scratch", "host.memory", "host.shmem-huge", "host.cgroup", "host.init",
		"host.storage"};
	const struct hf_host_facts f = facts();
	struct json_object *findings = json_object_new_array();

	assert_int_equal(hf_check_host(&in_memory, &f, &needs, NULL, findings), HF_OK);
	assert_int_equal(hf_json_array_size(findings), HF_ARRAY_SIZE(ids));
	for (size_t i = 0; i < HF_ARRAY_SIZE(ids); i++)
		assert_non_null(find(findings, ids[i]));
	json_object_put(findings);
	/* Without a jump little of it matters, whatever it is. */
	drop("/dev/liveupdate");
	findings = json_object_new_array();
	assert_int_equal(hf_check_host(&in_process, &f, &needs, NULL, findings), HF_OK);
	assert_int_equal(hf_json_array_size(findings), 2);
	assert_non_null(find(findings, "host.carrier"));
	assert_non_null(find(findings, "host.storage"));
	json_object_put(findings);
}

static void test_nothing_known(void **state)
{
	const struct hf_host_facts f = {
		.memory_max.bytes = UINT64_MAX, .memory_high.bytes = UINT64_MAX};
	struct json_object *findings = json_object_new_array();

	/* No refusal is made up. */
	assert_int_equal(hf_check_host(&in_memory, &f, &needs, NULL, findings), HF_OK);
	assert_null(find(findings, "host.memory"));
	assert_null(find(findings, "host.scratch"));
	assert_null(find(findings, "host.kexec-signature"));
	json_object_put(findings);
}

static void test_luo(void **state)
{
	char link[128];

	snprintf(link, sizeof(link), "%s/proc/4711/fd", root);
	assert_int_equal(hf_mkdir_p(link, 0755), 0);
	strcat(link, "/7");
	assert_int_equal(symlink("/dev/liveupdates", link), 0);
	expect("host.luo-busy", NULL, "");
	unlink(link);
	assert_int_equal(symlink("/dev/liveupdate", link), 0);
	expect("host.luo-busy", "refusal", "is open in 4711 (hog (worse))");
	unlink(link);
	drop("/dev/liveupdate");
	expect("host.luo", "refusal", "live update missing or switched off");
	/* Without KHO there is no scratch to speak of. */
	expect("host.scratch", NULL, "");
}

static void test_kexec(void **state)
{
	put("/proc/sys/kernel/kexec_load_disabled", "1\n");
	expect("host.kexec", "refusal", "kexec_load_disabled=1");
	put("/proc/sys/kernel/kexec_load_disabled", "0\n");
	put("/proc/sys/kernel/kexec_load_limit_reboot", "0\n");
	expect("host.kexec", "refusal", "kexec_load_limit_reboot=0");
	put("/proc/sys/kernel/kexec_load_limit_reboot", "3\n");
	expect("host.kexec", "ok", "may be loaded");
	drop("/sys/kernel/kexec_loaded");
	expect("host.kexec", "refusal", "has no kexec");
}

static void put_config(const char *text)
{
	struct utsname uts;
	char path[128];

	uname(&uts);
	snprintf(path, sizeof(path), "/boot/config-%s", uts.release);
	put(path, text);
}

static void test_signature(void **state)
{
	char path[128];
	gzFile gz;

	put("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
	expect("host.kexec-signature", "warning", "locked down (integrity)");
	put("/sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
	expect("host.kexec-signature", "warning", "locked down (confidentiality)");
	/* Without it signatures are not looked at, locked down or not. */
	put_config("CONFIG_KEXEC_FILE=y\n# CONFIG_KEXEC_SIG is not set\n");
	expect("host.kexec-signature", "ok", "need no signature");
	put("/sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
	put_config("CONFIG_KEXEC_SIG=y\n# CONFIG_KEXEC_SIG_FORCE is not set\n");
	expect("host.kexec-signature", "ok", "need no signature");
	put_config("CONFIG_KEXEC_SIG=y\nCONFIG_KEXEC_SIG_FORCE=y\n");
	expect("host.kexec-signature", "warning", "CONFIG_KEXEC_SIG_FORCE");
	/* What is built in goes before what lies in a folder. */
	snprintf(path, sizeof(path), "%s/proc/config.gz", root);
	gz = gzopen(path, "wb");
	assert_true(gzputs(gz, "CONFIG_KEXEC_SIG=y\n") > 0);
	gzclose(gz);
	expect("host.kexec-signature", "ok", "need no signature");
}

static void test_scratch(void **state)
{
	struct hf_host_facts f = facts();
	struct hf_target t = target("7.2.12", 64 * MIB);
	char initrd[128];

	assert_int_equal(f.n_scratch, 3);
	assert_int_equal(f.scratch[1].start, 0x100000000);
	assert_int_equal(f.scratch[2].size, 256 * MIB);
	/* 784 MiB in all; the map of 16 GiB takes 256 MiB. */
	expect_facts(&f, &t, "host.scratch", "ok",
		"has 784 MiB, of which kernel and initrd take 64 MiB");
	t.image.boot.init_bytes = 513 * MIB;
	expect_facts(&f, &t, "host.scratch", "refusal", "the kernel (513 MiB) can't be loaded");
	/* It would fit by its size, but not below its address, or aligned. */
	t.image.boot.init_bytes = 64 * MIB;
	t.image.boot.pref_address = 0x200000000 + 200 * MIB;
	expect_facts(&f, &t, "host.scratch", "refusal", "no area");
	t.image.boot.pref_address = 0x200000000 + 192 * MIB;
	expect_facts(&f, &t, "host.scratch", "ok", "");
	f.scratch[2].start += MIB;
	t.image.boot.pref_address += MIB;
	expect_facts(&f, &t, "host.scratch", "refusal", "no area");
	/* Kernel and initrd, both in the one large area or in one each. */
	f = facts();
	t = target("7.2.12", 300 * MIB);
	put("/initrd", "");
	snprintf(initrd, sizeof(initrd), "%s/initrd", root);
	t.initrd = initrd;
	assert_int_equal(truncate(initrd, 200 * MIB), 0);
	expect_facts(&f, &t, "host.scratch", "ok", "take 500 MiB");
	assert_int_equal(truncate(initrd, 300 * MIB), 0);
	expect_facts(&f, &t, "host.scratch", "refusal", "and its initrd (300 MiB)");
	/* What is left must have the map of memory, unless the kernel knows how to find more. */
	f.scratch[2].size = 220 * MIB;
	assert_int_equal(truncate(initrd, 210 * MIB), 0);
	expect_facts(&f, &t, "host.scratch", "refusal", "it would panic");
	strcpy(t.image.release, "7.3.4");
	expect_facts(&f, &t, "host.scratch", "warning", "where nothing is preserved");
	strcpy(t.image.release, "");
	expect_facts(&f, &t, "host.scratch", "refusal", "of unknown version");
	/* Nothing is shown. */
	drop("/sys/kernel/debug/kho/out/scratch_len");
	f = facts();
	expect_facts(&f, &t, "host.scratch", "warning", "does not show");
	expect_facts(&f, NULL, "host.scratch", NULL, "");
	put("/sys/kernel/debug/kho/out/scratch_len", "0x10\nnonsense");
	f = facts();
	assert_int_equal(f.n_scratch, 1);
}

static void test_memory(void **state)
{
	struct hf_host_facts f = facts();

	assert_int_equal(f.mem_total, 16 * GIB);
	/* 1 GiB of holes, 8 MiB of pointers, 16 MiB of records, 4 MiB of state. */
	f.mem_available = GIB + 28 * MIB;
	expect_facts(&f, NULL, "host.memory", "ok", "1.0 GiB of memory, 1 GiB of it");
	f.mem_available--;
	expect_facts(&f, NULL, "host.memory", "warning", "may need 1.0 GiB");
	f.mem_available = GIB + 8 * MIB;
	expect_facts(&f, NULL, "host.memory", "warning", "");
	f.mem_available--;
	expect_facts(&f, NULL, "host.memory", "refusal", "needs at least");
	/* RAM may be on swap; it comes back. */
	put("/proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 2097152 kB\n"
			     "SwapTotal: 2097152 kB\nSwapFree: 0 kB\n");
	expect("host.memory", "warning", "may need");
}

static void test_huge_pages(void **state)
{
	static const struct {
		const char *all, *own;
		bool good;
	} rows[] = {
		{"[always] advise never", NULL, true},
		{"always advise [never] deny force", NULL, false},
		{"always advise never [deny] force", "[always] inherit", false},
		{"always advise never deny [force]", "always [never] inherit", true},
		{"always [advise] never", "always [inherit] never", true},
		{"always advise [never]", "always [inherit] never", false},
		{"always [advise] never", "always inherit [never]", false},
		{"always advise [never]", "always [advise] inherit never", true},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		put("/sys/kernel/mm/transparent_hugepage/shmem_enabled", rows[i].all);
		if (rows[i].own)
			put("/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/shmem_enabled",
				rows[i].own);
		if (rows[i].good)
			expect("host.shmem-huge", "ok", "may use");
		else
			expect("host.shmem-huge", "warning",
				"42 ms longer, for each GiB of RAM "
				"(guests here have 4 GiB)");
	}
	drop("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
	expect("host.shmem-huge", NULL, "");
}

static void test_cgroup(void **state)
{
	put("/sys/fs/cgroup/system.slice/holdfastd.service/memory.max", "4294967296\n");
	expect("host.cgroup", "ok", "");
	/* One above counts as much. */
	put("/sys/fs/cgroup/system.slice/memory.max", "4294967295\n");
	expect("host.cgroup", "refusal", "limit of /system.slice)");
	put("/sys/fs/cgroup/system.slice/memory.max", "max\n");
	put("/sys/fs/cgroup/system.slice/holdfastd.service/memory.high", "1073741824\n");
	expect("host.cgroup", "refusal", "1 GiB (memory.high of /system.slice/holdfastd.service)");
	/* Version 1, beside a version 2 that has other controllers. */
	put("/proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/\n0::/\n");
	put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	expect("host.cgroup", "ok", "");
	put("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", "1000000\n");
	expect("host.cgroup", "refusal", "limit of /box)");
	put("/proc/self/cgroup", "rubbish\n:\n");
	expect("host.cgroup", "ok", "");
}

static void test_init(void **state)
{
	expect("host.init", "ok", "systemd 257: `systemctl kexec`");
	put("/proc/1/maps", "/usr/lib/systemd/libsystemd-shared-261~rc1.so\n");
	expect("host.init", "ok", "systemd 261, which keeps a LUO session of its own");
	drop("/proc/1/maps");
	expect("host.init", "ok", "process 1 is systemd: ");
	put("/proc/1/comm", "init\n");
	expect("host.init", "ok", "process 1 is init: ");
	drop("/proc/1/comm");
	expect("host.init", NULL, "");
}

static void test_storage(void **state)
{
	struct hf_host_facts f = facts();
	char deep[128];

	f.state_dir.free_bytes = 16 * MIB - 1;
	expect_facts(&f, NULL, "host.storage", "warning",
		"the file system for reports has 16.0 MiB left");
	f.state_dir.read_only = true;
	expect_facts(&f, NULL, "host.storage", "warning", "reports is read-only");
	f = facts();
	f.run_dir.free_bytes = 0;
	expect_facts(&f, NULL, "host.storage", "warning", "registrations has 0 B left");
	f.state_dir.known = f.run_dir.known = false;
	expect_facts(&f, NULL, "host.storage", NULL, "");
	/* A folder that will be made. */
	snprintf(deep, sizeof(deep), "%s/not/made/yet", root);
	hf_host_facts_read(root, deep, "/dev/null/no", &f);
	assert_true(f.state_dir.known && f.state_dir.free_bytes > 0);
	assert_false(f.run_dir.known);
}

/* What is asked of a host where guests' memory goes to its disk. */
static void test_images(void **state)
{
	struct hf_host_facts f = facts();
	struct json_object *findings = json_object_new_array();
	struct hf_way way = on_disk;

	/* No LUO is needed, and no memory but that of the guests. */
	drop("/dev/liveupdate");
	f = facts();
	f.image_dir.free_bytes = 100 * GIB;
	way.has_key = true;
	assert_int_equal(hf_check_host(&way, &f, &needs, NULL, findings), HF_OK);
	assert_null(find(findings, "host.luo"));
	assert_non_null(find(findings, "host.kexec"));
	assert_string_equal(hf_json_get_string(find(findings, "host.images"), "verdict", ""), "ok");
	json_object_put(findings);
	/* Nothing is jumped into. */
	findings = json_object_new_array();
	way.reboot = true;
	hf_error_set(&f.kexec, -EPERM, HF_ERR_NOT_READY, NULL, "no kexec here");
	assert_int_equal(hf_check_host(&way, &f, &needs, NULL, findings), HF_OK);
	assert_null(find(findings, "host.kexec"));
	json_object_put(findings);
	/* Readable memory on a disk is for the operator to say. */
	way.has_key = false;
	findings = json_object_new_array();
	assert_int_equal(hf_check_host(&way, &f, &needs, NULL, findings), HF_REFUSAL);
	assert_non_null(
		strstr(hf_json_get_string(find(findings, "host.images"), "message", ""), "no key"));
	json_object_put(findings);
	way.plaintext = true;
	findings = json_object_new_array();
	assert_int_equal(hf_check_host(&way, &f, &needs, NULL, findings), HF_WARNING);
	json_object_put(findings);
	f.image_dir.free_bytes = needs.ram_bytes - needs.hole_bytes;
	findings = json_object_new_array();
	assert_int_equal(hf_check_host(&way, &f, &needs, NULL, findings), HF_REFUSAL);
	assert_non_null(strstr(
		hf_json_get_string(find(findings, "host.images"), "message", ""), "take up to"));
	json_object_put(findings);
	f.image_dir.read_only = true;
	findings = json_object_new_array();
	assert_int_equal(hf_check_host(&way, &f, &needs, NULL, findings), HF_REFUSAL);
	json_object_put(findings);
}

static int make_carriers(void **state)
{
	const struct hf_carrier_image_config config = {.folder = "/nonexistent"};
	struct hf_error e = {0};

	return hf_carrier_luo_new("/nonexistent", &in_memory.carrier, &e) < 0 ||
			       hf_carrier_hold_new(&in_process.carrier, &e) < 0 ||
			       hf_carrier_image_new(&config, &on_disk.carrier, &e) < 0
		       ? -1
		       : 0;
}

static int free_carriers(void **state)
{
	hf_carrier_free(in_memory.carrier);
	hf_carrier_free(in_process.carrier);
	hf_carrier_free(on_disk.carrier);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ready),
		TEST(test_images),
		TEST(test_nothing_known),
		TEST(test_luo),
		TEST(test_kexec),
		TEST(test_signature),
		TEST(test_scratch),
		TEST(test_memory),
		TEST(test_huge_pages),
		TEST(test_cgroup),
		TEST(test_init),
		TEST(test_storage),
	};

	return cmocka_run_group_tests(tests, make_carriers, free_carriers);
}
