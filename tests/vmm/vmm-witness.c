/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A guest with an operating system, carried from one QEMU process into another while a witness
 * in it watches its memory, disk and clocks. Twice, and rolled back in between.
 *
 * Wants the kernel and the witness of the nested suite (tests/nested/kernel.sh,
 * tests/nested/witness/build.sh): $HOLDFAST_TEST_KERNEL and $HOLDFAST_TEST_INITRD, or where those
 * leave them. Skips without.
 */
#include "tests/vmm/guest.h"

#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "vmm-glue/compat.h"

#define BOOT_SECONDS 180
#define PASS_SECONDS 120
#define DISK_BYTES (2u << 20)

static char kernel[PATH_MAX], initrd[PATH_MAX];

static bool find_first(const char *pattern, char *ret, size_t size)
{
	glob_t g = {0};
	bool found = glob(pattern, GLOB_TILDE, NULL, &g) == 0 && g.gl_pathc > 0;

	if (found)
		snprintf(ret, size, "%s", g.gl_pathv[0]);
	globfree(&g);
	return found;
}

static bool find_files(void)
{
	const char *k = getenv("HOLDFAST_TEST_KERNEL"), *i = getenv("HOLDFAST_TEST_INITRD");
	const char *cache = getenv("HOLDFAST_CACHE");
	char pattern[600];

	snprintf(pattern, sizeof(pattern), "%s/kernel/*/bzImage",
		cache ? cache : "~/.cache/holdfast");
	/* QEMU is started in another folder. */
	return find_first(k ? k : pattern, pattern, sizeof(pattern)) && realpath(pattern, kernel) &&
	       find_first(i ? i : "build/witness/initramfs.cpio.gz", pattern, sizeof(pattern)) &&
	       realpath(pattern, initrd);
}

/* The newest whole status line of the console, and the number of boots. */
struct witness {
	unsigned int n_boots;
	bool ready;
	bool failed;
	char state[16];
	unsigned long line, passes, bad, disk_seq, fails;
	char text[1024];
};

static void value(const char *line, const char *key, unsigned long *ret)
{
	const char *p = strstr(line, key);

	if (p)
		*ret = strtoul(p + strlen(key), NULL, 10);
}

static void read_witness(const struct test_guest *t, struct witness *w)
{
	cleanup_free char *text = NULL;
	char path[128], *save = NULL;

	*w = (struct witness){0};
	snprintf(path, sizeof(path), "%s/console", t->dir);
	if (hf_file_read(path, 16 << 20, &text, NULL) < 0)
		return;
	for (char *line = strtok_r(text, "\r\n", &save); line;
		line = strtok_r(NULL, "\r\n", &save)) {
		if (strncmp(line, "WITNESS-", 8) == 0 && !strstr(line, " sum="))
			continue; /* not whole yet */
		w->n_boots += strncmp(line, "WITNESS-BOOT ", 13) == 0;
		w->ready |= strncmp(line, "WITNESS-READY ", 14) == 0;
		w->failed |=
			strncmp(line, "WITNESS-FAIL ", 13) == 0 || strstr(line, "Kernel panic");
		if (strncmp(line, "WITNESS-STATUS ", 15) != 0)
			continue;
		snprintf(w->text, sizeof(w->text), "%s", line);
		value(line, " n=", &w->line);
		value(line, " passes=", &w->passes);
		value(line, " bad=", &w->bad);
		value(line, " disk_seq=", &w->disk_seq);
		value(line, " fails=", &w->fails);
		if (strstr(line, " state="))
			sscanf(strstr(line, " state=") + 7, "%15s", w->state);
	}
}

static void expect_unharmed(const struct witness *w)
{
	if (w->failed || w->n_boots > 1 || w->bad || w->fails)
		fail_msg("the witness saw harm: %u boots, %s", w->n_boots, w->text);
}

static void wait_for(struct test_guest *t, struct witness *w, unsigned int seconds,
	const char *what, bool (*there)(const struct witness *w, const struct witness *from),
	const struct witness *from)
{
	for (unsigned int i = 0; i < seconds * 10; i++) {
		read_witness(t, w);
		expect_unharmed(w);
		if (there(w, from))
			return;
		if (hf_child_exited(t->child))
			fail_msg("QEMU ended before the witness was %s", what);
		guest_run_for(t, 100000);
	}
	fail_msg("the witness is not %s within %u s: %s", what, seconds, w->text);
}

static bool is_ready(const struct witness *w, const struct witness *from)
{
	return w->ready && w->line > 0;
}

/* Every word of its memory verified since, and new records on its disk. */
static bool has_verified(const struct witness *w, const struct witness *from)
{
	return w->passes >= from->passes + 2 && w->disk_seq > from->disk_seq &&
	       strcmp(w->state, "ok") == 0;
}

static void must(struct test_guest *t, int r, const char *what)
{
	if (r < 0)
		fail_msg("%s: %s", what, t->outcome.error.message);
}
#define MUST(t, call) must(t, call, #call)

static void empty_sink(struct test_guest *t)
{
	hf_sink_release(&t->sink);
	for (size_t i = 0; i < t->n_state_fds; i++)
		assert_int_equal(hf_sink_add(&t->sink, t->state_fds[i], t->guest->state[i].capacity,
					 0, &t->outcome.error),
			0);
}

static void save_and_quit(struct test_guest *t)
{
	MUST(t, guest_save(t));
	assert_true(t->guest->was_running);
	MUST(t, guest_quit(t));
	guest_new_vmm(t);
}

/* The test's own child is gone then: the new QEMU takes its place. */
static void resume_and_attach(struct test_guest *t)
{
	uint64_t ticks;
	pid_t pid;

	MUST(t, guest_resume(t));
	hf_child_release(t->child);
	pid = hf_vmm_pid(t->vmm);
	assert_int_equal(hf_pid_start_time(pid, &ticks), 0);
	assert_int_equal(hf_child_watch(t->event, pid, ticks, NULL, NULL, &t->child), 0);
	guest_new_vmm(t);
	MUST(t, guest_attach(t));
	empty_sink(t);
}

/* Out of one QEMU and into the next. */
static void carry(struct test_guest *t)
{
	save_and_quit(t);
	MUST(t, guest_respawn(t));
	resume_and_attach(t);
}

static void on_installed(void *data)
{
	*(bool *)data = true;
}

/* What holdfast check would say of the guest, were the program at @path installed now. */
static enum hf_compat foretell(struct test_guest *t, const char *path)
{
	struct hf_manifest_guest guest = *t->guest;
	struct hf_installed *installed;
	struct hf_error why = {0};
	enum hf_compat compat;
	bool known = false;
	int r;

	guest.vmm = (char *)(uintptr_t)path;
	assert_int_equal(hf_installed_new(t->event, &installed), 0);
	r = hf_installed_ask(installed, &guest, TEST_TIMEOUT_NS, on_installed, &known);
	assert_true(r >= 0);
	while (r == 0 && !known)
		assert_true(sd_event_run(t->event, UINT64_MAX) >= 0);
	compat = hf_compat_judge(
		hf_vmm_get_probe(t->vmm), hf_installed_get(installed, &guest), &why);
	hf_installed_free(installed);
	print_message("    %s\n", compat == HF_COMPAT_SAME ? "the same QEMU" : why.message);
	return compat;
}

/*
 * On from one QEMU to the next newer one, as when it was upgraded along with the kernel. Not every
 * pair works: Debian's 10.0.13 gives all virtqueues 1024 entries, which 11.1.3 refuses to load.
 * That has to be foretold, the operator has to learn which QEMU it takes, and the guest has to live
 * on with that one.
 */
static void through_newer_qemus(struct test_guest *t, struct witness *w)
{
	const char *list = getenv("HOLDFAST_TEST_NEWER");

	for (; list && *list; list += strcspn(list, ":"), list += *list == ':') {
		struct witness before = *w;
		char old[512], path[512];
		enum hf_compat compat;

		snprintf(old, sizeof(old), "%s", t->guest->vmm);
		snprintf(path, sizeof(path), "%.*s", (int)strcspn(list, ":"), list);
		assert_int_equal(foretell(t, old), HF_COMPAT_SAME);
		compat = foretell(t, path);
		assert_int_not_equal(compat, HF_COMPAT_SAME);
		save_and_quit(t);
		hf_manifest_set(&t->guest->vmm, path);
		if (guest_respawn(t) < 0) {
			print_message("    %s\n    (%s)\n", t->outcome.error.message,
				t->outcome.error.remedy);
			if (!strstr(t->outcome.error.message, "virtio") ||
				!strstr(t->outcome.error.remedy, "10.0."))
				fail_msg("%s: %s", path, t->outcome.error.message);
			assert_int_equal(t->outcome.error.err, -EUCLEAN);
			assert_int_equal(compat, HF_COMPAT_BROKEN);
			hf_manifest_set(&t->guest->vmm, old);
			MUST(t, guest_respawn(t));
		}
		resume_and_attach(t);
		wait_for(t, w, PASS_SECONDS, "through its memory after a change of QEMU",
			has_verified, &before);
		print_message("    %s machine on with %s\n", t->guest->machine, t->guest->vmm);
	}
}

static void witness_crosses(const char *machine)
{
	char path[128];
	const char *const args[] = {"-machine", machine, "-cpu", "qemu64", "-accel",
		"tcg,thread=multi", "-m", "96", "-smp", "2", "-nodefaults", "-display", "none",
		"-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append",
		"console=ttyS0 quiet panic=-1 kho=off liveupdate=off cgroup_disable=memory "
		"cgroup.memory=nokmem hf.seed=77 hf.ram_mib=96 hf.mem=30 hf.duty=60 "
		"hf.disk=/dev/vda "
		"hf.report_ms=300",
		"-chardev", "file,id=console,append=on,path=console", "-serial", "chardev:console",
		/* Found in the folder that the guest was started in. */
		"-drive", "file=disk,format=raw,if=none,id=d0", "-device",
		"virtio-blk-pci,drive=d0"};
	struct test_guest t;
	struct witness w, before;
	int fd;

	guest_init(&t, args, HF_ARRAY_SIZE(args));
	snprintf(path, sizeof(path), "%s/disk", t.dir);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && ftruncate(fd, DISK_BYTES) == 0);
	close(fd);
	guest_start(&t);
	wait_for(&t, &w, BOOT_SECONDS, "ready", is_ready, NULL);

	MUST(&t, guest_attach(&t));
	guest_add_chunk(&t, hf_vmm_get_probe(t.vmm)->state_estimate_bytes);
	print_message("    %s: estimate %lu bytes\n", machine,
		hf_vmm_get_probe(t.vmm)->state_estimate_bytes);
	before = w;
	carry(&t);
	print_message("    %s: state %lu bytes\n", machine, t.guest->state_length);
	wait_for(&t, &w, PASS_SECONDS, "through its memory again", has_verified, &before);

	MUST(&t, guest_save(&t));
	guest_run_for(&t, 300000);
	MUST(&t, guest_rollback(&t));
	empty_sink(&t);
	before = w;
	wait_for(
		&t, &w, PASS_SECONDS, "through its memory after a rollback", has_verified, &before);

	before = w;
	carry(&t);
	wait_for(&t, &w, PASS_SECONDS, "through its memory a second time", has_verified, &before);
	through_newer_qemus(&t, &w);
	print_message("    %s\n", w.text);
	guest_free(&t);
}

static void test_pc(void **state)
{
	witness_crosses("pc");
}

static void test_q35(void **state)
{
	witness_crosses("q35");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pc),
		cmocka_unit_test(test_q35),
	};

	if (test_qemu_major() == 0) {
		print_message("no QEMU to test with\n");
		return 77;
	}
	if (!find_files()) {
		print_message("no test kernel or witness: run tests/nested/kernel.sh and "
			      "tests/nested/witness/build.sh\n");
		return 77;
	}
	cmocka_set_message_output(CM_OUTPUT_STDOUT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
