/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The note on a guest that has two QEMUs: there and back, and garbage.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/vmm-upgrade-note.h"

#define UUID "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"

static char folder[] = "/tmp/holdfast-upgrade-XXXXXX";

static int set_up(void **state)
{
	return mkdtemp(folder) ? setenv("HOLDFAST_RUN_DIR", folder, 1) : -1;
}

static int tear_down(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

/* As a guest with one block of RAM is registered. */
static void fill(struct hf_vmm_upgrade_note *note)
{
	static const char *const argv[] = {"qemu-system-x86_64", "-m", "64"};
	struct hf_manifest_guest *g = &note->reg.guest;
	struct hf_manifest_ram *ram;

	*note = (struct hf_vmm_upgrade_note){
		.phase = HF_VMM_UPGRADE_PAUSING,
		.was_running = true,
		.old_pid = 4711,
		.old_start_ticks = 17,
		.ram = {{.dev = 1, .ino = 77}},
		.n_ram = 1,
		.taps = {.v = {{"tap-a", .fd = 5, .header_bytes = 12, .offloads = 31}}, .n = 1},
	};
	snprintf(g->uuid, sizeof(g->uuid), "%s", UUID);
	assert_int_equal(hf_manifest_set(&g->name, "web"), 0);
	assert_int_equal(hf_manifest_set(&g->manager, "qemu"), 0);
	assert_int_equal(hf_manifest_set(&g->vmm, "/usr/bin/qemu-system-x86_64"), 0);
	assert_int_equal(hf_manifest_set(&g->cwd, "/"), 0);
	assert_int_equal(hf_manifest_set(&g->qmp_path, "/run/holdfast/qmp/b.sock"), 0);
	assert_int_equal(hf_manifest_set_strings(&g->argv, &g->n_argv, argv, 3), 0);
	ram = hf_manifest_add_ram(g);
	assert_non_null(ram);
	assert_int_equal(hf_manifest_set(&ram->id, "pc.ram"), 0);
	ram->size = 64 << 20;
	ram->fd = 3;
	note->reg.pid = 4712;
	note->reg.start_ticks = 18;
	note->reg.ram_inodes[0] = note->ram[0];
}

static void there_and_back(void **state)
{
	cleanup_free char(*uuids)[HF_UUID_CHARS] = NULL;
	struct hf_vmm_upgrade_note note, got;
	struct hf_error e = {0};

	assert_int_equal(hf_vmm_upgrade_note_list(&uuids), 0);
	assert_int_equal(hf_vmm_upgrade_note_read(UUID, &got), -ENOENT);
	fill(&note);
	for (int phase = 0; phase < HF_VMM_UPGRADE_PHASES_; phase++) {
		cleanup_free char *text = NULL;

		note.phase = phase;
		note.was_running = phase != HF_VMM_UPGRADE_RUNNING;
		if (hf_vmm_upgrade_note_format(&note, &text, &e) < 0)
			fail_msg("%s", e.message);
		assert_int_equal(hf_vmm_upgrade_note_write(UUID, text, &e), 0);
		assert_int_equal(hf_vmm_upgrade_note_read(UUID, &got), 0);
		assert_int_equal(got.phase, phase);
		assert_int_equal(got.was_running, note.was_running);
		assert_int_equal(got.old_pid, 4711);
		assert_int_equal(got.old_start_ticks, 17);
		assert_int_equal(got.n_ram, 1);
		assert_true(hf_inode_equal(&got.ram[0], &note.ram[0]));
		assert_int_equal(got.taps.n, 1);
		assert_string_equal(got.taps.v[0].ifname, "tap-a");
		assert_int_equal(got.taps.v[0].fd, -EBADF);
		assert_int_equal(got.taps.v[0].header_bytes, 12);
		assert_int_equal(got.taps.v[0].offloads, 31);
		assert_string_equal(got.uuid, UUID);
		assert_int_equal(got.reg.pid, 4712);
		assert_int_equal(got.reg.start_ticks, 18);
		assert_string_equal(got.reg.guest.qmp_path, note.reg.guest.qmp_path);
		hf_vmm_upgrade_note_clear(&got);
	}
	assert_int_equal(hf_vmm_upgrade_note_list(&uuids), 1);
	assert_string_equal(uuids[0], UUID);
	assert_int_equal(hf_vmm_upgrade_note_remove(UUID), 0);
	assert_int_equal(hf_vmm_upgrade_note_remove(UUID), 0);
	assert_int_equal(hf_vmm_upgrade_note_read(UUID, &got), -ENOENT);
	hf_vmm_upgrade_note_clear(&note);
}

/* A note of one guest in the place of another's; and any byte of it changed to another sense. */
static void garbage(void **state)
{
	static const struct {
		const char *from, *to;
	} rows[] = {
		{"\"pausing\"", "\"dancing\""},
		{"\"phase\"", "\"phrase\""},
		{"\"old_pid\":4711", "\"old_pid\":1"},
		{"\"old_pid\":4711", "\"old_pid\":\"4711\""},
		{"\"old_start_ticks\":17", "\"old_start_ticks\":-1"},
		{"\"ram\":[{\"dev\":1,\"ino\":77}]", "\"ram\":[]"},
		{"\"ram\":[{\"dev\":1,\"ino\":77}]", "\"ram\":[77]"},
		{"\"ram\":[{\"dev\":1,\"ino\":77}]", "\"ram\":[{\"dev\":1,\"ino\":0}]"},
		{"\"ram\":[{\"dev\":1,\"ino\":77}]",
			"\"ram\":[{\"dev\":1,\"ino\":77},{\"dev\":1,\"ino\":78}]"},
		{"\"ifname\":\"tap-a\"", "\"ifname\":\"\""},
		{"\"ifname\":\"tap-a\"", "\"ifname\":\"tap-a-of-a-longer-name\""},
		{"\"header_bytes\":12", "\"header_bytes\":-12"},
		{"\"header_bytes\":12", "\"header_bytes\":4096"},
		{"\"offloads\":31", "\"offloads\":4294967296"},
		{"\"taps\":[{", "\"taps\":[7,{"},
		{"\"registration\":\"{", "\"registration\":\"["},
		{"\"registration\"", "\"reg\""},
	};
	struct hf_vmm_upgrade_note note, got = {0};
	cleanup_free char *text = NULL;
	struct hf_error e = {0};

	fill(&note);
	assert_int_equal(hf_vmm_upgrade_note_format(&note, &text, &e), 0);
	assert_int_equal(hf_vmm_upgrade_note_parse(text, strlen(text), &got), 0);
	hf_vmm_upgrade_note_clear(&got);
	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		char *at = strstr(text, rows[i].from), changed[8192];

		if (!at)
			fail_msg("no %s in %s", rows[i].from, text);
		snprintf(changed, sizeof(changed), "%.*s%s%s", (int)(at - text), text, rows[i].to,
			at + strlen(rows[i].from));
		if (hf_vmm_upgrade_note_parse(changed, strlen(changed), &got) != -EBADMSG)
			fail_msg("taken: %s", changed);
	}
	for (size_t size = 0; size < strlen(text); size++)
		assert_int_equal(hf_vmm_upgrade_note_parse(text, size, &got), -EBADMSG);
	/* Under another guest's name. */
	assert_int_equal(
		hf_vmm_upgrade_note_write("1e7a3ad2-0d1c-4a3e-9d4f-0123456789ab", text, &e), 0);
	assert_int_equal(
		hf_vmm_upgrade_note_read("1e7a3ad2-0d1c-4a3e-9d4f-0123456789ab", &got), -EBADMSG);
	hf_vmm_upgrade_note_clear(&note);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(garbage),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
