/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A guest's whole way on one real QEMU, without a reboot: out, back, and in again.
 */
#include "tests/vmm/guest.h"

#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "common/tsc.h"
#include "vmm-glue/registration.h"

#define MIB (1024u * 1024u)
/* Firmware keeps to the first MiB and to the end of what it takes for RAM, which is below 48 MiB.
 */
#define FROM (16 * MIB)
#define TO (40 * MIB)

static const char *const q35[] = {"-machine", "q35", "-accel", "tcg", "-m", "64", "-nodefaults",
	"-display", "none", "-name", "testguest", "-device", "virtio-rng-pci"};

static void start(struct test_guest *t, const char *const *args, size_t n)
{
	guest_init(t, args, n);
	guest_start(t);
	guest_fill(t, FROM, TO, 7);
}

static void attach(struct test_guest *t)
{
	if (guest_attach(t) < 0)
		fail_msg("attach: %s", t->outcome.error.message);
	guest_add_chunk(t, hf_vmm_get_probe(t->vmm)->state_estimate_bytes);
}

#define MUST(t, call) \
	do { \
		if ((call) < 0) \
			fail_msg(#call ": %s", (t)->outcome.error.message); \
	} while (0)

/* Names and sizes of `info ramblock`, without addresses. */
static void block_names(struct test_guest *t, char *buf, size_t size)
{
	char text[16384], *save = NULL;

	guest_ask(t, "info ramblock", text, sizeof(text));
	buf[0] = 0;
	for (char *p = text; (p = strstr(p, "\\r\\n")); p++)
		memcpy(p, "\n   ", 4);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[128], page[16], unit[16], offset[32], used[32];

		if (sscanf(line, " %127s %15s %15s %31s %31s", name, page, unit, offset, used) == 5)
			snprintf(buf + strlen(buf), size - strlen(buf), "%s %s\n", name, used);
	}
}

/* Lets go of the monitor so that the test can look, and takes it again. */
static void expect_status(struct test_guest *t, const char *status)
{
	char text[512], want[64];

	hf_vmm_free(t->vmm);
	t->vmm = NULL;
	guest_ask(t, "{\"execute\":\"query-status\",\"id\":1}", text, sizeof(text));
	snprintf(want, sizeof(want), "\"status\": \"%s\"", status);
	if (!strstr(text, want))
		fail_msg("status is not %s: %s", status, text);
}

static void expect_settings_restored(struct test_guest *t)
{
	char text[8192];

	guest_ask(t, "{\"execute\":\"query-migrate-capabilities\",\"id\":1}", text, sizeof(text));
	assert_non_null(strstr(text, "{\"state\": false, \"capability\": \"x-ignore-shared\"}"));
	assert_non_null(strstr(text, "{\"state\": false, \"capability\": \"events\"}"));
	guest_ask(t, "{\"execute\":\"query-migrate-parameters\",\"id\":1}", text, sizeof(text));
	assert_non_null(strstr(text, "\"max-bandwidth\": 134217728"));
}

static void report_times(struct test_guest *t, const char *what)
{
	const struct hf_vmm_stamps *s = hf_vmm_get_stamps(t->vmm);
	const struct hf_manifest_guest *g = t->guest;
	struct hf_tsc_mark a = hf_tsc_mark(), b;
	uint64_t hz;

	usleep(20000);
	b = hf_tsc_mark();
	hz = hf_tsc_hz(&a, &b);
#define US(from, to) ((to) && (from) ? hf_tsc_to_ns((to) - (from), hz) / 1000 : 0)
	print_message("    %s: pause %lu us, save %lu us (%lu bytes), start %lu us, load %lu us, "
		      "resume %lu us\n",
		what, US(g->tsc_pause, g->tsc_paused), US(g->tsc_paused, g->tsc_saved),
		g->state_length, US(s->spawn, s->ready), US(s->ready, s->loaded),
		US(s->loaded, s->resumed));
}

/* What the next update goes by. */
static void expect_registered(struct test_guest *t)
{
	struct hf_registration *regs;
	struct hf_inode a, b;
	struct hf_error e = {0};
	size_t n, n_bad;
	int fd = -EBADF;

	assert_int_equal(hf_registration_list(&regs, &n, &n_bad), 0);
	assert_int_equal(n, 1);
	assert_int_equal(n_bad, 0);
	assert_int_equal(regs[0].pid, hf_vmm_pid(t->vmm));
	assert_string_equal(regs[0].guest.uuid, t->guest->uuid);
	assert_true(hf_registration_alive(&regs[0]));
	if (hf_registration_open_ram(&regs[0], &fd, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(hf_fd_inode(fd, &a, NULL), 0);
	assert_int_equal(hf_fd_inode(t->ram_fds[0], &b, NULL), 0);
	assert_true(hf_inode_equal(&a, &b));
	close(fd);
	hf_registration_list_free(regs, n);
}

/* From here on the guest's process is the one that was respawned. */
static void watch_new(struct test_guest *t)
{
	pid_t pid = hf_vmm_pid(t->vmm);
	uint64_t ticks;

	hf_child_release(t->child);
	assert_int_equal(hf_pid_start_time(pid, &ticks), 0);
	assert_int_equal(hf_child_watch(t->event, pid, ticks, NULL, NULL, &t->child), 0);
}

static void cycle(const char *const *args, size_t n, bool running, const char *what)
{
	struct test_guest t;
	char before[4096], after[4096], type[64];
	pid_t old;

	start(&t, args, n);
	block_names(&t, before, sizeof(before));
	attach(&t);
	assert_int_equal(hf_vmm_get_probe(t.vmm)->running, running);
	snprintf(type, sizeof(type), "%s", t.guest->machine);
	MUST(&t, guest_save(&t));
	assert_int_equal(t.guest->was_running, running);
	assert_true(t.guest->state_length > 10000);
	assert_true(t.guest->tsc_pause && t.guest->tsc_paused && t.guest->tsc_saved);
	old = hf_vmm_pid(t.vmm);
	assert_true(old > 0);
	MUST(&t, guest_quit(&t));
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	assert_int_equal(t.n_gone, 0);

	/* The agent's next self knows the guest by its manifest only. */
	guest_new_vmm(&t);
	MUST(&t, guest_respawn(&t));
	assert_int_not_equal(hf_vmm_pid(t.vmm), old);
	MUST(&t, guest_resume(&t));
	report_times(&t, what);
	expect_registered(&t);
	assert_true(hf_vmm_get_stamps(t.vmm)->resumed > hf_vmm_get_stamps(t.vmm)->loaded);
	assert_int_equal(guest_count_bad(&t, FROM, TO, 7), 0);
	assert_int_equal(t.n_gone, 0);

	/* An update after the update. */
	watch_new(&t);
	expect_status(&t, running ? "running" : "paused");
	block_names(&t, after, sizeof(after));
	assert_string_equal(before, after);
	guest_ask(&t,
		"{\"execute\":\"qom-get\",\"id\":1,\"arguments\":{\"path\":\"/machine\","
		"\"property\":\"type\"}}",
		after, sizeof(after));
	assert_non_null(strstr(after, type));
	expect_settings_restored(&t);
	guest_new_vmm(&t);
	MUST(&t, guest_attach(&t));
	hf_sink_release(&t.sink);
	assert_int_equal(hf_sink_add(&t.sink, t.state_fds[0], t.guest->state[0].capacity, 0,
				 &t.outcome.error),
		0);
	MUST(&t, guest_save(&t));
	MUST(&t, guest_rollback(&t));
	expect_status(&t, running ? "running" : "postmigrate");
	assert_int_equal(guest_count_bad(&t, FROM, TO, 7), 0);
	guest_free(&t);
}

static void test_running_guest(void **state)
{
	cycle(q35, HF_ARRAY_SIZE(q35), true, "q35");
}

/* What an agent does that comes after one which died when the guest had been loaded. */
static void adopt(struct test_guest *t, bool runs)
{
	struct hf_error e = {0};

	guest_new_vmm(t);
	assert_int_equal(hf_vmm_adopt(t->vmm, t->ram_fds, &e), -ENOTCONN);
	MUST(t, guest_attach(t));
	assert_int_equal(hf_vmm_get_probe(t->vmm)->running, runs);
	t->guest->was_running = true;
	if (hf_vmm_adopt(t->vmm, t->ram_fds, &e) < 0)
		fail_msg("%s", e.message);
	MUST(t, guest_resume(t));
	expect_registered(t);
}

static void test_adopted_guest(void **state)
{
	struct test_guest t;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	attach(&t);
	MUST(&t, guest_save(&t));
	MUST(&t, guest_quit(&t));
	guest_new_vmm(&t);
	MUST(&t, guest_respawn(&t));
	watch_new(&t);
	adopt(&t, false);
	expect_status(&t, "running");
	/* And once more, of a guest that runs but is not registered yet. */
	assert_int_equal(hf_registration_remove(t.guest->uuid), 0);
	adopt(&t, true);
	expect_status(&t, "running");
	assert_int_equal(guest_count_bad(&t, FROM, TO, 7), 0);
	guest_free(&t);
}

static void test_paused_guest(void **state)
{
	static const char *const args[] = {"-machine", "pc", "-accel", "tcg", "-m", "64M",
		"-nodefaults", "-display", "none", "-S"};
	struct test_guest t;

	guest_init(&t, args, HF_ARRAY_SIZE(args));
	guest_start(&t);
	guest_ask(&t, "{\"execute\":\"cont\",\"id\":1}", t.outcome.error.message, 100);
	guest_ask(&t, "{\"execute\":\"stop\",\"id\":1}", t.outcome.error.message, 100);
	guest_fill(&t, FROM, TO, 9);
	attach(&t);
	assert_string_equal(hf_vmm_get_probe(t.vmm)->status, "paused");
	MUST(&t, guest_save(&t));
	assert_false(t.guest->was_running);
	MUST(&t, guest_quit(&t));
	guest_new_vmm(&t);
	MUST(&t, guest_respawn(&t));
	MUST(&t, guest_resume(&t));
	assert_int_equal(guest_count_bad(&t, FROM, TO, 9), 0);
	guest_ask(&t, "{\"execute\":\"query-status\",\"id\":1}", t.outcome.error.message, 200);
	assert_non_null(strstr(t.outcome.error.message, "\"paused\""));
	guest_ask(&t, "{\"execute\":\"cont\",\"id\":1}", t.outcome.error.message, 100);
	assert_non_null(strstr(t.outcome.error.message, "return"));
	guest_free(&t);
}

static void test_never_started_guest(void **state)
{
	static const char *const args[] = {"-machine", "pc", "-accel", "tcg", "-m", "64M",
		"-nodefaults", "-display", "none", "-S"};
	struct test_guest t;

	guest_init(&t, args, HF_ARRAY_SIZE(args));
	guest_start(&t);
	attach(&t);
	assert_string_equal(hf_vmm_get_probe(t.vmm)->status, "prelaunch");
	MUST(&t, guest_save(&t));
	MUST(&t, guest_quit(&t));
	guest_new_vmm(&t);
	MUST(&t, guest_respawn(&t));
	MUST(&t, guest_resume(&t));
	guest_free(&t);
}

/* Every way to write a device down, and one plugged in by hand. */
static void test_devices(void **state)
{
	static const char *const args[] = {"-machine", "pc", "-accel", "tcg", "-m", "64M",
		"-nodefaults", "-display", "none", "-device", "virtio-rng-pci", "-device",
		"driver=virtio-balloon-pci,id=a.b", "-device",
		"{\"driver\": \"virtio-net-pci\", \"id\": \"json\"}", "-drive",
		"if=virtio,file=/dev/null,format=raw,readonly=on", "-usb", "-device",
		"usb-tablet,id=t"};
	const struct hf_vmm_probe *p;
	struct test_guest t;
	char text[512];

	guest_init(&t, args, HF_ARRAY_SIZE(args));
	guest_start(&t);
	MUST(&t, guest_attach(&t));
	p = hf_vmm_get_probe(t.vmm);
	if (p->n_blockers > 0)
		fail_msg("%s", p->blockers[0]);
	hf_vmm_free(t.vmm);
	t.vmm = NULL;
	guest_ask(&t,
		"{\"execute\":\"device_add\",\"id\":1,\"arguments\":{\"driver\":"
		"\"virtio-rng-pci\",\"id\":\"hot\"}}",
		text, sizeof(text));
	assert_non_null(strstr(text, "return"));
	guest_new_vmm(&t);
	MUST(&t, guest_attach(&t));
	p = hf_vmm_get_probe(t.vmm);
	assert_int_equal(p->n_blockers, 1);
	print_message("    %s\n", p->blockers[0]);
	assert_non_null(strstr(p->blockers[0], "hot"));
	guest_free(&t);
}

/* ---- rollback ---- */

static void test_rollback_after_attach(void **state)
{
	struct test_guest t;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	attach(&t);
	MUST(&t, guest_rollback(&t));
	expect_status(&t, "running");
	expect_settings_restored(&t);
	guest_free(&t);
}

static void test_rollback_after_save(void **state)
{
	struct test_guest t;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	attach(&t);
	MUST(&t, guest_save(&t));
	MUST(&t, guest_rollback(&t));
	expect_status(&t, "running");
	expect_settings_restored(&t);
	assert_int_equal(guest_count_bad(&t, FROM, TO, 7), 0);
	guest_free(&t);
}

static struct outcome saved;

static void on_saved(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	assert_false(saved.over);
	saved.over = true;
	if (error)
		saved.error = *error;
}

/* From right behind the call up to its end, in steps of 200 us. */
static void test_rollback_amid_save(void **state)
{
	struct test_guest t;
	unsigned int n_canceled = 0;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	attach(&t);
	for (unsigned int i = 0; i < 40; i++) {
		saved = (struct outcome){0};
		hf_sink_release(&t.sink);
		assert_int_equal(hf_sink_add(&t.sink, t.state_fds[0], t.guest->state[0].capacity, 0,
					 &t.outcome.error),
			0);
		assert_int_equal(
			hf_vmm_save(t.vmm, &t.sink, guest_grow, TEST_TIMEOUT_NS, on_saved, &t), 0);
		if (i > 0)
			guest_run_for(&t, i * 200);
		MUST(&t, guest_rollback(&t));
		assert_true(saved.over);
		n_canceled += saved.error.err == -ECANCELED;
		if (i % 8 == 0) {
			expect_status(&t, "running");
			expect_settings_restored(&t);
			guest_new_vmm(&t);
			MUST(&t, guest_attach(&t));
		}
	}
	print_message("    %u of 40 saves were ended by the rollback\n", n_canceled);
	assert_true(n_canceled > 0);
	/* And it can still be saved for good. */
	hf_sink_release(&t.sink);
	assert_int_equal(hf_sink_add(&t.sink, t.state_fds[0], t.guest->state[0].capacity, 0,
				 &t.outcome.error),
		0);
	MUST(&t, guest_save(&t));
	MUST(&t, guest_rollback(&t));
	expect_status(&t, "running");
	expect_settings_restored(&t);
	assert_int_equal(guest_count_bad(&t, FROM, TO, 7), 0);
	guest_free(&t);
}

/* ---- failures ---- */

static void test_no_room(void **state)
{
	struct test_guest t;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	MUST(&t, guest_attach(&t));
	guest_add_chunk(&t, 64 * 1024);
	assert_int_equal(guest_save(&t), -ENOSPC);
	assert_string_equal(t.outcome.error.guest, "testguest");
	assert_non_null(strstr(t.outcome.error.message,
		"the device state is larger than the 65536 bytes there is room for"));
	assert_non_null(strstr(t.outcome.error.remedy, "--state-bytes"));
	MUST(&t, guest_rollback(&t));
	expect_status(&t, "running");
	expect_settings_restored(&t);
	guest_free(&t);
}

static void test_growing_room(void **state)
{
	struct test_guest t;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	MUST(&t, guest_attach(&t));
	guest_add_chunk(&t, 64 * 1024);
	t.grow_bytes = 1024 * 1024;
	MUST(&t, guest_save(&t));
	assert_int_equal(t.guest->n_state, 2);
	MUST(&t, guest_quit(&t));
	guest_new_vmm(&t);
	MUST(&t, guest_respawn(&t));
	MUST(&t, guest_resume(&t));
	expect_status(&t, "running");
	guest_new_vmm(&t);
	guest_free(&t);
}

static void test_monitor_taken(void **state)
{
	struct test_guest t;
	struct hf_vmm *first;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	attach(&t);
	first = t.vmm;
	t.vmm = NULL;
	guest_new_vmm(&t);
	assert_int_equal(guest_attach(&t), -EBUSY);
	hf_vmm_free(first);
	guest_new_vmm(&t);
	MUST(&t, guest_attach(&t));
	guest_free(&t);
}

static void test_other_process(void **state)
{
	struct test_guest t;
	uint64_t ticks;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	assert_int_equal(hf_pid_start_time(hf_child_pid(t.child), &ticks), 0);
	assert_int_equal(hf_vmm_attach(t.vmm, hf_child_pid(t.child), ticks + 1, TEST_TIMEOUT_NS,
				 guest_on_done, &t),
		0);
	assert_int_equal(guest_wait(&t), -ESTALE);
	guest_free(&t);
}

static void test_dies_attached(void **state)
{
	struct test_guest t;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	attach(&t);
	hf_child_kill(t.child);
	while (t.n_gone == 0)
		sd_event_run(t.event, UINT64_MAX);
	guest_run_for(&t, 20000);
	assert_int_equal(t.n_gone, 1);
	assert_int_equal(guest_save(&t), -ENOTCONN);
	guest_free(&t);
}

static void test_dies_amid_save(void **state)
{
	struct test_guest t;

	start(&t, q35, HF_ARRAY_SIZE(q35));
	attach(&t);
	t.outcome = (struct outcome){0};
	assert_int_equal(
		hf_vmm_save(t.vmm, &t.sink, guest_grow, TEST_TIMEOUT_NS, guest_on_done, &t), 0);
	hf_child_kill(t.child);
	assert_true(guest_wait(&t) < 0);
	guest_run_for(&t, 20000);
	assert_int_equal(t.n_gone, 1);
	assert_true(guest_rollback(&t) < 0);
	assert_string_equal(t.outcome.error.name, HF_ERR_DEGRADED);
	guest_free(&t);
}

static void saved_and_gone(struct test_guest *t)
{
	start(t, q35, HF_ARRAY_SIZE(q35));
	attach(t);
	MUST(t, guest_save(t));
	MUST(t, guest_quit(t));
	guest_new_vmm(t);
}

static void test_spoilt_state(void **state)
{
	struct test_guest t;
	uint8_t byte;

	saved_and_gone(&t);
	assert_int_equal(pread(t.state_fds[0], &byte, 1, 5000), 1);
	byte ^= 1;
	assert_int_equal(pwrite(t.state_fds[0], &byte, 1, 5000), 1);
	assert_int_equal(guest_respawn(&t), -EBADMSG);
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	/* Nothing of the guest was touched: with the right bytes it still works. */
	byte ^= 1;
	assert_int_equal(pwrite(t.state_fds[0], &byte, 1, 5000), 1);
	MUST(&t, guest_respawn(&t));
	MUST(&t, guest_resume(&t));
	assert_int_equal(guest_count_bad(&t, FROM, TO, 7), 0);
	guest_free(&t);
}

/*
 * A stream that ends early, by its checksum a whole one: QEMU has to be what finds out. (It doesn't
 * miss the very end, which only describes what came before.)
 */
static void test_short_state(void **state)
{
	static const unsigned int eighths[] = {1, 3, 5};

	for (size_t i = 0; i < HF_ARRAY_SIZE(eighths); i++) {
		struct hf_sink cut = {0};
		struct hf_error e = {0};
		struct test_guest t;

		saved_and_gone(&t);
		t.guest->state[0].length = t.guest->state_length * eighths[i] / 8;
		assert_int_equal(hf_sink_add(&cut, t.state_fds[0], t.guest->state[0].capacity,
					 t.guest->state[0].length, &e),
			0);
		t.guest->state_length = hf_sink_length(&cut);
		t.guest->state_xxh3 = hf_sink_xxh3(&cut);
		hf_sink_release(&cut);
		assert_int_equal(guest_respawn(&t), -EUCLEAN);
		print_message("    %s\n", t.outcome.error.message);
		assert_int_equal(hf_vmm_pid(t.vmm), 0);
		assert_int_equal(t.n_gone, 0);
		guest_free(&t);
	}
}

static void test_empty_state(void **state)
{
	struct test_guest t;

	saved_and_gone(&t);
	t.guest->state[0].length = t.guest->state_length = 0;
	assert_int_equal(guest_respawn(&t), -EBADMSG);
	guest_free(&t);
}

/* Nonsense with a good checksum: has to end, one way or the other, and without a QEMU left. */
static void test_garbage_state(void **state)
{
	static uint8_t garbage[100000];
	struct hf_sink sink = {0};
	struct hf_error e = {0};
	struct test_guest t;

	saved_and_gone(&t);
	assert_int_equal(hf_sink_add(&sink, t.state_fds[0], t.guest->state[0].capacity,
				 t.guest->state[0].length, &e),
		0);
	memset(garbage, 0x5a, sizeof(garbage));
	assert_int_equal(pwrite(t.state_fds[0], garbage, sizeof(garbage), 0), sizeof(garbage));
	t.guest->state_xxh3 = hf_sink_xxh3(&sink);
	hf_sink_release(&sink);
	assert_int_equal(guest_respawn(&t), -EUCLEAN);
	print_message("    %s\n", t.outcome.error.message);
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	guest_free(&t);
}

static void test_program_gone(void **state)
{
	struct test_guest t;

	saved_and_gone(&t);
	hf_manifest_set(&t.guest->vmm, "/nonexistent/qemu");
	assert_int_equal(guest_respawn(&t), -ENOENT);
	assert_non_null(strstr(t.outcome.error.message, "/nonexistent/qemu"));
	hf_manifest_set(&t.guest->vmm, test_qemu());
	MUST(&t, guest_respawn(&t));
	MUST(&t, guest_resume(&t));
	guest_free(&t);
}

/* The new QEMU lacks a device: its own words have to reach the operator. */
static void test_start_fails(void **state)
{
	struct test_guest t;

	saved_and_gone(&t);
	hf_manifest_set(&t.guest->argv[t.guest->n_argv - 1], "nosuchdevice");
	assert_true(guest_respawn(&t) < 0);
	assert_int_not_equal(t.outcome.error.err, -EUCLEAN);
	print_message("    %s\n", t.outcome.error.message);
	assert_non_null(strstr(t.outcome.error.message, "nosuchdevice"));
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	hf_manifest_set(&t.guest->argv[t.guest->n_argv - 1], "virtio-rng-pci");
	MUST(&t, guest_respawn(&t));
	MUST(&t, guest_resume(&t));
	guest_free(&t);
}

/* The new QEMU has other devices: it refuses the stream. */
static void test_load_fails(void **state)
{
	struct test_guest t;

	saved_and_gone(&t);
	hf_manifest_set(&t.guest->argv[t.guest->n_argv - 1], "virtio-balloon-pci");
	assert_int_equal(guest_respawn(&t), -EUCLEAN);
	print_message("    %s\n", t.outcome.error.message);
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	guest_free(&t);
}

static void test_respawn_canceled(void **state)
{
	struct test_guest t;

	saved_and_gone(&t);
	saved = (struct outcome){0};
	assert_int_equal(
		hf_vmm_respawn(t.vmm, t.ram_fds, t.state_fds, TEST_TIMEOUT_NS, on_saved, &t), 0);
	guest_run_for(&t, 5000);
	MUST(&t, guest_rollback(&t));
	assert_true(saved.over);
	assert_int_equal(saved.error.err, -ECANCELED);
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	MUST(&t, guest_respawn(&t));
	MUST(&t, guest_resume(&t));
	guest_free(&t);
}

/*
 * RAM that QEMU takes for its own goes into the stream: from 10.0 on that of a memfd backend. It
 * has to be noticed in time. (7.2 leaves it out, and then it is as good as any.)
 */
static void test_ram_in_stream(void **state)
{
	char monitor[160];
	char *argv[] = {(char *)test_qemu(), (char *)"-machine",
		(char *)"q35,memory-backend=pc.ram", (char *)"-accel", (char *)"tcg", (char *)"-m",
		(char *)"64", (char *)"-object",
		(char *)"memory-backend-memfd,id=pc.ram,size=64M,share=on", (char *)"-nodefaults",
		(char *)"-display", (char *)"none", (char *)"-device", (char *)"virtio-rng-pci",
		(char *)"-qmp", monitor, NULL};
	struct test_guest t;
	int r;

	guest_init(&t, q35, HF_ARRAY_SIZE(q35));
	snprintf(monitor, sizeof(monitor), "unix:%s,server=on,wait=off", t.guest->qmp_path);
	guest_start_as(&t, argv);
	attach(&t);
	r = guest_save(&t);
	if (test_qemu_major() < 10)
		assert_int_equal(r, 0);
	else if (r != -EOPNOTSUPP && r != -ENOSPC)
		fail_msg("%d %s", r, t.outcome.error.message);
	MUST(&t, guest_rollback(&t));
	expect_status(&t, "running");
	expect_settings_restored(&t);
	guest_free(&t);
}

/* ---- many at once ---- */

#define MANY 4

/* All share one loop and one ring, as in the agent. */
static void all(struct test_guest *t, int (*begin)(struct test_guest *t), const char *what)
{
	for (size_t i = 0; i < MANY; i++) {
		t[i].outcome = (struct outcome){0};
		assert_int_equal(begin(&t[i]), 0);
	}
	for (size_t i = 0; i < MANY; i++)
		if (guest_wait(&t[i]) < 0)
			fail_msg("%s %zu: %s", what, i, t[i].outcome.error.message);
}

static int begin_save(struct test_guest *t)
{
	return hf_vmm_save(t->vmm, &t->sink, guest_grow, t->timeout_ns, guest_on_done, t);
}

static int begin_quit(struct test_guest *t)
{
	return hf_vmm_quit(t->vmm, t->timeout_ns, guest_on_done, t);
}

static int begin_respawn(struct test_guest *t)
{
	return hf_vmm_respawn(t->vmm, t->ram_fds, t->state_fds, t->timeout_ns, guest_on_done, t);
}

static int begin_resume(struct test_guest *t)
{
	return hf_vmm_resume(t->vmm, t->timeout_ns, guest_on_done, t);
}

static void test_many(void **state)
{
	static struct test_guest t[MANY];
	sd_event *events[MANY];
	struct hf_stream_ring *rings[MANY];

	for (size_t i = 0; i < MANY; i++) {
		guest_init(&t[i], q35, HF_ARRAY_SIZE(q35));
		t[i].guest->uuid[0] = (char)('a' + i);
		events[i] = t[i].event;
		rings[i] = t[i].ring;
		t[i].event = events[0];
		t[i].ring = rings[0];
		guest_new_vmm(&t[i]);
		guest_start(&t[i]);
		guest_fill(&t[i], FROM, TO, i);
		attach(&t[i]);
	}
	all(t, begin_save, "save");
	for (size_t i = 0; i < MANY; i++)
		t[i].guest->state[0].length = t[i].sink.chunks[0].length;
	all(t, begin_quit, "quit");
	for (size_t i = 0; i < MANY; i++)
		guest_new_vmm(&t[i]);
	all(t, begin_respawn, "respawn");
	all(t, begin_resume, "resume");
	for (size_t i = 0; i < MANY; i++) {
		report_times(&t[i], "one of four");
		assert_int_equal(guest_count_bad(&t[i], FROM, TO, i), 0);
	}
	for (size_t i = MANY; i-- > 0;) {
		t[i].ring = rings[i];
		if (i > 0)
			sd_event_ref(t[i].event);
		guest_free(&t[i]);
		if (i > 0)
			sd_event_unref(events[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_running_guest),
		cmocka_unit_test(test_adopted_guest),
		cmocka_unit_test(test_paused_guest),
		cmocka_unit_test(test_never_started_guest),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_rollback_after_attach),
		cmocka_unit_test(test_rollback_after_save),
		cmocka_unit_test(test_rollback_amid_save),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_growing_room),
		cmocka_unit_test(test_monitor_taken),
		cmocka_unit_test(test_other_process),
		cmocka_unit_test(test_dies_attached),
		cmocka_unit_test(test_dies_amid_save),
		cmocka_unit_test(test_spoilt_state),
		cmocka_unit_test(test_short_state),
		cmocka_unit_test(test_empty_state),
		cmocka_unit_test(test_garbage_state),
		cmocka_unit_test(test_program_gone),
		cmocka_unit_test(test_start_fails),
		cmocka_unit_test(test_load_fails),
		cmocka_unit_test(test_respawn_canceled),
		cmocka_unit_test(test_ram_in_stream),
		cmocka_unit_test(test_many),
	};

	if (test_qemu_major() == 0) {
		print_message("no QEMU to test with\n");
		return 77;
	}
	cmocka_set_message_output(CM_OUTPUT_STDOUT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
