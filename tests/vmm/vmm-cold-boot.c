/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A guest that is started afresh on one real QEMU, and taken over by an agent that comes
 * later.
 */
#include "tests/vmm/guest.h"

#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "vmm-glue/registration.h"

#define MIB (1024u * 1024u)
#define FROM (16 * MIB)
#define TO (40 * MIB)

static const char *const q35[] = {"-machine", "q35", "-accel", "tcg", "-m", "64", "-nodefaults",
	"-display", "none", "-name", "testguest"};
static const char *const paused[] = {
	"-machine", "pc", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-S"};

static pid_t spawned;
static int spawned_result;

static int on_spawned(struct hf_vmm *vmm, void *data, struct hf_error *error)
{
	assert_int_equal(spawned, 0);
	spawned = hf_vmm_pid(vmm);
	return spawned_result < 0 ? hf_error_set(error, spawned_result, HF_ERR_FAILED, NULL,
					    "nobody may know of it")
				  : 0;
}

/* Its QEMU has ended, and what it had in memory is there. */
static void start_saved(struct test_guest *t, const char *const *args, size_t n)
{
	guest_init(t, args, n);
	guest_start(t);
	guest_fill(t, FROM, TO, 5);
	if (guest_attach(t) < 0)
		fail_msg("attach: %s", t->outcome.error.message);
	guest_add_chunk(t, hf_vmm_get_probe(t->vmm)->state_estimate_bytes);
	assert_int_equal(guest_save(t), 0);
	assert_int_equal(guest_quit(t), 0);
	guest_new_vmm(t);
	spawned = 0;
}

static int cold_boot(struct test_guest *t)
{
	t->outcome = (struct outcome){0};
	assert_int_equal(hf_vmm_cold_boot(t->vmm, t->timeout_ns, on_spawned, guest_on_done, t), 0);
	return guest_wait(t);
}

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

/* From here on the guest's process is the one that was started afresh, and dies with the test. */
static void watch_new(struct test_guest *t)
{
	uint64_t ticks;

	assert_int_equal(hf_vmm_pid(t->vmm), spawned);
	hf_child_release(t->child);
	assert_int_equal(hf_pid_start_time(spawned, &ticks), 0);
	assert_int_equal(hf_child_watch(t->event, spawned, ticks, NULL, NULL, &t->child), 0);
}

/* With memory that is its own. */
static void expect_registered(struct test_guest *t)
{
	struct hf_registration *regs;
	struct hf_inode a, b;
	struct hf_error e = {0};
	int fd = -EBADF;
	size_t n;

	assert_int_equal(hf_registration_list(&regs, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(regs[0].pid, spawned);
	if (hf_registration_open_ram(&regs[0], &fd, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(hf_fd_inode(fd, &a, NULL), 0);
	assert_int_equal(hf_fd_inode(t->ram_fds[0], &b, NULL), 0);
	assert_false(hf_inode_equal(&a, &b));
	close(fd);
	hf_registration_list_free(regs, n);
}

static void test_cold_boot(void **state)
{
	struct test_guest t;

	start_saved(&t, q35, HF_ARRAY_SIZE(q35));
	if (cold_boot(&t) < 0)
		fail_msg("%s", t.outcome.error.message);
	watch_new(&t);
	/* It waits until it may. */
	assert_string_equal(t.guest->status, "prelaunch");
	assert_true(t.guest->was_running);
	assert_int_equal(guest_resume(&t), 0);
	expect_registered(&t);
	expect_status(&t, "running");
	/* What it had before is nobody's yet. */
	assert_int_equal(guest_count_bad(&t, FROM, TO, 5), 0);
	guest_free(&t);
}

static void test_stays_paused(void **state)
{
	struct test_guest t;

	start_saved(&t, paused, HF_ARRAY_SIZE(paused));
	t.guest->was_running = true;
	assert_int_equal(cold_boot(&t), 0);
	watch_new(&t);
	assert_false(t.guest->was_running);
	assert_int_equal(guest_resume(&t), 0);
	expect_registered(&t);
	expect_status(&t, "prelaunch");
	guest_free(&t);
}

static void adopt_fresh(struct test_guest *t, bool runs)
{
	struct hf_error e = {0};

	guest_new_vmm(t);
	assert_int_equal(hf_vmm_adopt_fresh(t->vmm, &e), -ENOTCONN);
	assert_int_equal(guest_attach(t), 0);
	assert_int_equal(hf_vmm_get_probe(t->vmm)->running, runs);
	if (hf_vmm_adopt_fresh(t->vmm, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(guest_resume(t), 0);
	expect_registered(t);
}

/* An agent died before it let the guest run, and once more before it had it registered. */
static void test_taken_over(void **state)
{
	struct test_guest t;

	start_saved(&t, q35, HF_ARRAY_SIZE(q35));
	assert_int_equal(cold_boot(&t), 0);
	watch_new(&t);
	adopt_fresh(&t, false);
	expect_status(&t, "running");
	assert_int_equal(hf_registration_remove(t.guest->uuid), 0);
	adopt_fresh(&t, true);
	expect_status(&t, "running");
	guest_free(&t);
}

/* A program that starts and ends: it was told of, and nothing of it is left. */
static void test_fails(void **state)
{
	struct test_guest t;

	start_saved(&t, q35, HF_ARRAY_SIZE(q35));
	assert_int_equal(hf_manifest_set(&t.guest->vmm, "/bin/false"), 0);
	assert_true(cold_boot(&t) < 0);
	assert_non_null(strstr(t.outcome.error.message, "ended with status 1"));
	assert_true(spawned > 0);
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	assert_int_equal(guest_count_bad(&t, FROM, TO, 5), 0);
	/* And one that isn't there at all. */
	spawned = 0;
	assert_int_equal(hf_manifest_set(&t.guest->vmm, "/nonexistent/qemu"), 0);
	assert_true(cold_boot(&t) < 0);
	assert_int_equal(spawned, 0);
	guest_free(&t);
}

/* What can't be noted must not be there. */
static void test_unwanted(void **state)
{
	struct test_guest t;
	uint64_t ticks;

	start_saved(&t, q35, HF_ARRAY_SIZE(q35));
	spawned_result = -EROFS;
	assert_int_equal(cold_boot(&t), -EROFS);
	assert_string_equal(t.outcome.error.message, "nobody may know of it");
	assert_true(spawned > 0);
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	assert_true(hf_pid_start_time(spawned, &ticks) < 0);
	spawned_result = 0;
	guest_free(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cold_boot),
		cmocka_unit_test(test_stays_paused),
		cmocka_unit_test(test_taken_over),
		cmocka_unit_test(test_fails),
		cmocka_unit_test(test_unwanted),
	};

	if (test_qemu_major() == 0) {
		print_message("no QEMU to test with\n");
		return 77;
	}
	cmocka_set_message_output(CM_OUTPUT_STDOUT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
