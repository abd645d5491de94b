/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Notes in the runtime folder that are taken apart by an agent which comes after a dead one.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "agent/freeze-note.h"
#include "common/json.h"
#include "vmm-glue/disks.h"

#define RAN "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"
#define PAUSED "1e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"

static void test_freeze_note(void **state)
{
	static const char text[] = "{\"guests\": [\"" RAN "\"], \"paused\": [\"" PAUSED "\"]}";
	cleanup_json struct json_object *note = NULL;

	assert_int_equal(hf_freeze_note_parse(text, strlen(text), &note), 0);
	assert_true(hf_freeze_note_has(note, "guests", RAN));
	assert_false(hf_freeze_note_has(note, "guests", PAUSED));
	assert_true(hf_freeze_note_has(note, "paused", PAUSED));
	assert_false(hf_freeze_note_has(note, "none", PAUSED));
}

/* One that is taken for empty would be removed, with its guests paused for ever. */
static void test_damaged_freeze_note(void **state)
{
	static const char *const bad[] = {"", "{", "[]", "{}", "{\"guests\": null}",
		"{\"guests\": \"" RAN "\"}", "{\"guests\": [1]}", "{\"guests\": [null]}",
		"{\"paused\": []}", "{\"guests\": [], \"paused\": null}",
		"{\"guests\": [], \"paused\": [{}]}"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		struct json_object *note = NULL;

		assert_int_equal(hf_freeze_note_parse(bad[i], strlen(bad[i]), &note), -EBADMSG);
		assert_null(note);
	}
}

static void test_read_only(void **state)
{
	static const char text[] = "/var/lib\n\nrelative\n/n\0ul\n/with space\n/cut";
	const char *rest = text;
	size_t size = sizeof(text) - 1;
	char dir[64];

	assert_true(hf_disks_next_noted(&rest, &size, dir, sizeof(dir)));
	assert_string_equal(dir, "/var/lib");
	assert_true(hf_disks_next_noted(&rest, &size, dir, sizeof(dir)));
	assert_string_equal(dir, "/with space");
	/* Its writer died in the middle: what was meant can't be told, and was not done. */
	assert_false(hf_disks_next_noted(&rest, &size, dir, sizeof(dir)));
	rest = "/longer\n/ok\n";
	size = strlen(rest);
	assert_true(hf_disks_next_noted(&rest, &size, dir, 7));
	assert_string_equal(dir, "/ok");
	assert_false(hf_disks_next_noted(&rest, &size, dir, 7));
	assert_int_equal(size, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_freeze_note),
		cmocka_unit_test(test_damaged_freeze_note),
		cmocka_unit_test(test_read_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
