/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The state table: every pair of state and event is either a row or refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/state.h"

static void follow(const enum hf_state_event *events, size_t n, enum hf_state want)
{
	enum hf_state state = HF_STATE_NORMAL;

	for (size_t i = 0; i < n; i++)
		assert_int_equal(hf_state_next(state, events[i], &state), 0);
	assert_int_equal(state, want);
}

#define FOLLOW(want, ...) \
	do { \
		const enum hf_state_event e_[] = {__VA_ARGS__}; \
		follow(e_, sizeof(e_) / sizeof(e_[0]), want); \
	} while (0)

static void test_paths(void **state)
{
	FOLLOW(HF_STATE_FROZEN, HF_EVENT_PREPARE, HF_EVENT_ALL_PREPARED, HF_EVENT_COMMIT);
	FOLLOW(HF_STATE_NORMAL, HF_EVENT_PREPARE, HF_EVENT_ABORT, HF_EVENT_UNDONE);
	FOLLOW(HF_STATE_NORMAL, HF_EVENT_PREPARE, HF_EVENT_ALL_PREPARED, HF_EVENT_ABORT,
		HF_EVENT_UNDONE);
	FOLLOW(HF_STATE_NORMAL, HF_EVENT_PREPARE, HF_EVENT_ALL_PREPARED, HF_EVENT_COMMIT,
		HF_EVENT_ABORT, HF_EVENT_UNDONE);
	FOLLOW(HF_STATE_DEGRADED, HF_EVENT_PREPARE, HF_EVENT_ABORT, HF_EVENT_UNDO_FAILED);
	FOLLOW(HF_STATE_NORMAL, HF_EVENT_ARRIVED, HF_EVENT_ALL_RESUMED);
	FOLLOW(HF_STATE_DEGRADED, HF_EVENT_ARRIVED, HF_EVENT_SOME_HELD);
	FOLLOW(HF_STATE_NORMAL, HF_EVENT_ARRIVED, HF_EVENT_SOME_HELD, HF_EVENT_ALL_RESUMED);
}

/* Before the jump every state that holds something can be aborted; after it none can. */
static void test_abort_only_before_the_jump(void **state)
{
	enum hf_state next;

	for (int s = 0; s < HF_STATE_N_; s++) {
		int want = s == HF_STATE_PREPARING || s == HF_STATE_PREPARED || s == HF_STATE_FROZEN
				   ? 0
				   : -EPERM;

		assert_int_equal(hf_state_next(s, HF_EVENT_ABORT, &next), want);
	}
}

static void test_refused_leaves_result_alone(void **state)
{
	enum hf_state next = HF_STATE_DEGRADED;

	assert_int_equal(hf_state_next(HF_STATE_NORMAL, HF_EVENT_COMMIT, &next), -EPERM);
	assert_int_equal(next, HF_STATE_DEGRADED);
	/* An update can't start on top of another one. */
	for (int s = 0; s < HF_STATE_N_; s++) {
		if (s != HF_STATE_NORMAL)
			assert_int_equal(hf_state_next(s, HF_EVENT_PREPARE, &next), -EPERM);
	}
}

static void test_names_and_print(void **state)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	hf_state_print(f);
	fclose(f);
	for (int s = 0; s < HF_STATE_N_; s++) {
		assert_non_null(hf_state_name(s));
		assert_non_null(strstr(text, hf_state_name(s)));
	}
	for (int e = 0; e < HF_EVENT_N_; e++)
		assert_non_null(strstr(text, hf_state_event_name(e)));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_abort_only_before_the_jump),
		cmocka_unit_test(test_refused_leaves_result_alone),
		cmocka_unit_test(test_names_and_print),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
