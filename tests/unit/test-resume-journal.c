/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The resume journal: there and back, garbage, and all of it forgotten at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/resume-journal.h"
#include "common/fd.h"

#define UUID_A "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"
#define UUID_B "1e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"

static char folder[] = "/tmp/holdfast-resume-XXXXXX";

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

static void there_and_back(void **state)
{
	struct hf_error e = {0};
	uint64_t ticks = 0, want = 0;
	pid_t pid = 0;
	bool afresh;

	assert_int_equal(hf_resume_journal_read(UUID_A, &pid, &ticks, &afresh), -ENOENT);
	assert_int_equal(hf_resume_journal_write(UUID_A, getpid(), false, &e), 0);
	assert_int_equal(hf_pid_start_time(getpid(), &want), 0);
	assert_int_equal(hf_resume_journal_read(UUID_A, &pid, &ticks, &afresh), 0);
	assert_int_equal(pid, getpid());
	assert_true(ticks == want);
	assert_false(afresh);
	assert_int_equal(hf_resume_journal_write(UUID_A, getpid(), true, &e), 0);
	assert_int_equal(hf_resume_journal_read(UUID_A, &pid, &ticks, &afresh), 0);
	assert_true(afresh);
	assert_int_equal(hf_resume_journal_read(UUID_B, &pid, &ticks, &afresh), -ENOENT);
	hf_resume_journal_remove(UUID_A);
	assert_int_equal(hf_resume_journal_read(UUID_A, &pid, &ticks, &afresh), -ENOENT);
}

static void dead_process(void **state)
{
	struct hf_error e = {0};

	assert_true(hf_resume_journal_write(UUID_A, 0x3fffffff, false, &e) < 0);
	assert_non_null(strstr(e.message, UUID_A));
}

static void garbage(void **state)
{
	static const char *const bad[] = {"", "{", "[]", "{\"pid\":7}", "{\"start_ticks\":7}",
		"{\"pid\":0,\"start_ticks\":1}", "{\"pid\":-4,\"start_ticks\":1}",
		"{\"pid\":\"x\",\"start_ticks\":1}", "{\"pid\":\"7\",\"start_ticks\":1}",
		"{\"pid\":7,\"start_ticks\":\"1\"}", "{\"pid\":7,\"start_ticks\":-1}",
		"{\"pid\":4294967303,\"start_ticks\":1}", "{\"pid\":7.5,\"start_ticks\":1}"};
	uint64_t ticks;
	char path[256];
	pid_t pid;
	bool afresh;

	snprintf(path, sizeof(path), "%s/resumed/%s.json", folder, UUID_B);
	assert_int_equal(
		hf_resume_journal_write(UUID_B, getpid(), false, &(struct hf_error){0}), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(hf_file_write_atomic(path, bad[i], strlen(bad[i]), 0600), 0);
		assert_int_equal(hf_resume_journal_read(UUID_B, &pid, &ticks, &afresh), -EBADMSG);
	}
}

static void decisions(void **state)
{
	struct hf_error e = {0};
	char path[256], *vmm = NULL;
	uint64_t ticks;
	bool afresh;
	pid_t pid;

	assert_false(hf_resume_journal_released(UUID_A));
	assert_int_equal(hf_resume_journal_release(UUID_A, &e), 0);
	assert_true(hf_resume_journal_released(UUID_A));
	assert_false(hf_resume_journal_released(UUID_B));
	/* It was not let run for that. */
	assert_int_equal(hf_resume_journal_read(UUID_A, &pid, &ticks, &afresh), -ENOENT);
	hf_resume_journal_unrelease(UUID_A);
	assert_false(hf_resume_journal_released(UUID_A));

	assert_int_equal(hf_resume_journal_get_vmm(UUID_A, &vmm), -ENOENT);
	assert_int_equal(hf_resume_journal_set_vmm(UUID_A, "/opt/q e/m\nu", &e), 0);
	assert_int_equal(hf_resume_journal_get_vmm(UUID_A, &vmm), 0);
	assert_string_equal(vmm, "/opt/q e/m\nu");
	free(vmm);
	assert_int_equal(hf_resume_journal_set_vmm(UUID_A, NULL, &e), 0);
	assert_int_equal(hf_resume_journal_get_vmm(UUID_A, &vmm), -ENOENT);
	snprintf(path, sizeof(path), "%s/resumed/%s.vmm", folder, UUID_A);
	assert_int_equal(hf_file_write_atomic(path, "/a\0b", 4, 0600), 0);
	assert_int_equal(hf_resume_journal_get_vmm(UUID_A, &vmm), -EBADMSG);
	assert_int_equal(hf_file_write_atomic(path, "qemu", 4, 0600), 0);
	assert_int_equal(hf_resume_journal_get_vmm(UUID_A, &vmm), -EBADMSG);

	assert_int_equal(hf_resume_journal_release(UUID_A, &e), 0);
	hf_resume_journal_remove(UUID_A);
	assert_false(hf_resume_journal_released(UUID_A));
	assert_int_equal(hf_resume_journal_get_vmm(UUID_A, &vmm), -ENOENT);
	assert_int_equal(hf_resume_journal_release(UUID_B, &e), 0);
	hf_resume_journal_clear();
	assert_false(hf_resume_journal_released(UUID_B));
}

static void all_forgotten(void **state)
{
	struct hf_error e = {0};
	uint64_t ticks;
	pid_t pid;
	bool afresh;

	assert_int_equal(hf_resume_journal_write(UUID_A, getpid(), false, &e), 0);
	assert_int_equal(hf_resume_journal_write(UUID_B, getpid(), false, &e), 0);
	hf_resume_journal_clear();
	assert_int_equal(hf_resume_journal_read(UUID_A, &pid, &ticks, &afresh), -ENOENT);
	assert_int_equal(hf_resume_journal_read(UUID_B, &pid, &ticks, &afresh), -ENOENT);
	hf_resume_journal_clear();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(dead_process),
		cmocka_unit_test(garbage),
		cmocka_unit_test(decisions),
		cmocka_unit_test(all_forgotten),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
