/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: In which states of the host a shutdown is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "agent/inhibit.h"

static void test_states(void **state)
{
	for (int s = 0; s < HF_STATE_N_; s++) {
		const char *why = hf_inhibit_reason(s, false);

		/* Whatever state there will be: only one with nothing to lose may have none. */
		assert_true((why == NULL) == (s == HF_STATE_NORMAL));
		/* The lock is only taken anew when the words change: they must be the same ones. */
		assert_ptr_equal(why, hf_inhibit_reason(s, false));
	}
	assert_non_null(strstr(hf_inhibit_reason(HF_STATE_PREPARED, false), "holdfast abort"));
}

/* A shutdown is what commits it. */
static void test_orderly(void **state)
{
	assert_null(hf_inhibit_reason(HF_STATE_PREPARED, true));
	assert_non_null(hf_inhibit_reason(HF_STATE_PREPARING, true));
	assert_non_null(hf_inhibit_reason(HF_STATE_DEGRADED, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_orderly),
	};

	cmocka_set_message_output(CM_OUTPUT_STDOUT);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
