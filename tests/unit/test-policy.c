/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Policies: times, values, what would have been right, and laying one over another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "memfd-preserve/policy.h"

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
		const char *again;
	} good[] = {
		{"5", 5000, "5s"},
		{"5s", 5000, "5s"},
		{" 5 s ", 5000, "5s"},
		{"500ms", 500, "500ms"},
		{"2min", 120000, "2min"},
		{"90s", 90000, "1min 30s"},
		{"1min30s", 90000, "1min 30s"},
		{"2m 5 sec", 125000, "2min 5s"},
		{"1h 1500 msec", 3601500, "1h 1s 500ms"},
		{"0", 0, "0ms"},
		{"1 hour 1 minute", 3660000, "1h 1min"},
	};
	static const char *const bad[] = {
		"", " ", "s", "5 x", "-5s", "5.5s", "5s,", "infinity", "0x5", "5mins", "s5"};
	uint64_t ns = 0;
	char text[64];

	for (size_t i = 0; i < HF_ARRAY_SIZE(good); i++) {
		if (hf_duration_parse(good[i].text, &ns) < 0)
			fail_msg("%s", good[i].text);
		assert_int_equal(ns, good[i].ms * HF_NSEC_PER_MSEC);
		hf_duration_format(ns, text, sizeof(text));
		assert_string_equal(text, good[i].again);
		assert_int_equal(hf_duration_parse(text, &ns), 0);
		assert_int_equal(ns, good[i].ms * HF_NSEC_PER_MSEC);
	}
	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		ns = 77;
		if (hf_duration_parse(bad[i], &ns) != -EINVAL)
			fail_msg("`%s` is taken", bad[i]);
		assert_int_equal(ns, 77);
	}
	assert_int_equal(hf_duration_parse("99999999999999999999s", &ns), -ERANGE);
	assert_int_equal(hf_duration_parse("9999999999999h", &ns), -ERANGE);
	assert_int_equal(hf_duration_parse("5124095h 5124095h", &ns), -ERANGE);
}

static void test_defaults(void **state)
{
	static const char *const expected[] = {"refuse", "rollback", "hold", "10s", "30s", "30s",
		"1min", "2min", "50", "catch-up", ""};
	cleanup_policy struct hf_policy p;
	char text[HF_POLICY_TEXT_MAX];

	hf_policy_init(&p);
	assert_int_equal(p.given, 0);
	for (int i = 0; i < HF_POLICY_N_; i++) {
		hf_policy_format(&p, i, text, sizeof(text));
		assert_string_equal(text, expected[i]);
		assert_int_equal(hf_policy_find_key(hf_policy_key_name(i)), i);
	}
}

/* Whatever is shown can be given again. */
static void test_values(void **state)
{
	static const struct {
		const char *key, *value, *shown;
	} good[] = {
		{"not-eligible", "refuse", "refuse"},
		{"not-eligible", "adopt", "adopt"},
		{"not-eligible", "shutdown", "shutdown"},
		{"not-eligible", "managed-save", "managed-save"},
		{"save-failure", "rollback", "rollback"},
		{"save-failure", "cold-boot", "cold-boot"},
		{"resume-failure", "hold", "hold"},
		{"resume-failure", "cold-boot", "cold-boot"},
		{"attach-timeout", "100ms", "100ms"},
		{"save-timeout", "1h", "1h"},
		{"rollback-timeout", "60", "1min"},
		{"resume-timeout", "3 min", "3min"},
		{"shutdown-timeout", "5s", "5s"},
		{"priority", "0", "0"},
		{"priority", "100", "100"},
		{"clock", "frozen", "frozen"},
		{"clock", "catch-up", "catch-up"},
		{"health-command", "/bin/ping -c 1 web", "/bin/ping -c 1 web"},
		{"health-command", "", ""},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(good); i++) {
		cleanup_policy struct hf_policy p, again;
		char text[HF_POLICY_TEXT_MAX], assignment[HF_POLICY_TEXT_MAX + 64];
		struct hf_error e = {0};
		int key = hf_policy_find_key(good[i].key);

		hf_policy_init(&p);
		hf_policy_init(&again);
		if (hf_policy_set(&p, good[i].key, good[i].value, &e) < 0)
			fail_msg("%s=%s: %s", good[i].key, good[i].value, e.message);
		assert_int_equal(p.given, 1u << key);
		hf_policy_format(&p, key, text, sizeof(text));
		assert_string_equal(text, good[i].shown);
		snprintf(assignment, sizeof(assignment), "%s=%s", good[i].key, text);
		assert_int_equal(hf_policy_assign(&again, assignment, &e), 0);
		assert_int_equal(again.given, p.given);
	}
}

static void test_refusals(void **state)
{
	static const struct {
		const char *text, *message, *remedy;
	} bad[] = {
		{"not-eligible", "`not-eligible` is no setting", "KEY=VALUE"},
		{"refuse", "`refuse` is no setting", "KEY=VALUE"},
		{"=x", "no setting ``", "there are not-eligible, save-failure"},
		{"resume-timout=5s", "no setting `resume-timout`",
			"did you mean `resume-timeout`?"},
		{"prio=5", "no setting `prio`", "there are"},
		{"priorities=5", "no setting", "did you mean `priority`?"},
		{"Priority=5", "no setting `Priority`", "did you mean `priority`?"},
		{"not-eligible=ignore", "`ignore` is no value of not-eligible",
			"refuse, adopt, shutdown or managed-save"},
		{"save-failure=shutdown", "no value of save-failure", "rollback or cold-boot"},
		{"resume-failure=", "`` is no value", "hold or cold-boot"},
		{"clock=stopped", "no value of clock", "catch-up or frozen"},
		{"priority=101", "no value of priority", "a number from 0 to 100"},
		{"priority=-1", "no value", "0 to 100"},
		{"priority=1e1", "no value", "0 to 100"},
		{"priority=", "no value", "0 to 100"},
		{"save-timeout=0", "no value of save-timeout", "from 100ms to 1h"},
		{"save-timeout=99ms", "no value", "from 100ms"},
		{"save-timeout=61min", "no value", "to 1h"},
		{"save-timeout=fast", "no value", "such as 500ms"},
		{"health-command=ping", "no value of health-command", "an absolute path"},
		{"health-command=/bin/x\n", "no value", "an absolute path"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		cleanup_policy struct hf_policy p, fresh;
		struct hf_error e = {0};

		hf_policy_init(&p);
		hf_policy_init(&fresh);
		assert_int_equal(hf_policy_assign(&p, bad[i].text, &e), -EINVAL);
		if (!strstr(e.message, bad[i].message) || !strstr(e.remedy, bad[i].remedy))
			fail_msg("%s: %s (%s)", bad[i].text, e.message, e.remedy);
		assert_memory_equal(&p, &fresh, sizeof(p));
	}
}

static void test_twice(void **state)
{
	cleanup_policy struct hf_policy p;
	struct hf_error e = {0};

	hf_policy_init(&p);
	assert_int_equal(hf_policy_assign(&p, "priority=5", &e), 0);
	assert_int_equal(hf_policy_assign(&p, "priority=5", &e), -EINVAL);
	assert_non_null(strstr(e.message, "twice"));
}

/* Only what is given counts; also when it is the default, and also nothing. */
static void test_overlay(void **state)
{
	cleanup_policy struct hf_policy p, over;
	struct hf_error e = {0};

	hf_policy_init(&p);
	hf_policy_init(&over);
	assert_int_equal(hf_policy_assign(&p, "priority=5", &e), 0);
	assert_int_equal(hf_policy_assign(&p, "save-timeout=5s", &e), 0);
	assert_int_equal(hf_policy_assign(&p, "health-command=/bin/true", &e), 0);
	assert_int_equal(hf_policy_assign(&over, "priority=50", &e), 0);
	assert_int_equal(hf_policy_assign(&over, "clock=frozen", &e), 0);
	assert_int_equal(hf_policy_overlay(&p, &over), 0);
	assert_int_equal(p.priority, 50);
	assert_int_equal(p.save_timeout_ns, 5 * HF_NSEC_PER_SEC);
	assert_int_equal(p.clock, HF_CLOCK_FROZEN);
	assert_string_equal(p.health_command, "/bin/true");
	assert_int_equal(hf_policy_assign(&over, "health-command=", &e), 0);
	assert_int_equal(hf_policy_overlay(&p, &over), 0);
	assert_null(p.health_command);
	/* A copy, not the same text. */
	hf_policy_clear(&over);
	assert_int_equal(hf_policy_assign(&over, "health-command=/bin/false", &e), 0);
	assert_int_equal(hf_policy_overlay(&p, &over), 0);
	hf_policy_clear(&over);
	assert_string_equal(p.health_command, "/bin/false");
}

static void test_repair(void **state)
{
	cleanup_policy struct hf_policy p;

	hf_policy_init(&p);
	p.not_eligible = 4;
	p.save_failure = 2;
	p.clock = UINT32_MAX;
	p.priority = 101;
	p.save_timeout_ns = 0;
	p.resume_timeout_ns = UINT64_MAX;
	p.attach_timeout_ns = 5 * HF_NSEC_PER_SEC;
	p.resume_failure = HF_RESUME_FAILURE_COLD_BOOT;
	p.health_command = strdup("rm -rf /");
	hf_policy_repair(&p);
	assert_int_equal(p.not_eligible, HF_NOT_ELIGIBLE_REFUSE);
	assert_int_equal(p.save_failure, HF_SAVE_FAILURE_ROLLBACK);
	assert_int_equal(p.clock, HF_CLOCK_CATCH_UP);
	assert_int_equal(p.priority, 50);
	assert_int_equal(p.save_timeout_ns, 30 * HF_NSEC_PER_SEC);
	assert_int_equal(p.resume_timeout_ns, 60 * HF_NSEC_PER_SEC);
	assert_int_equal(p.attach_timeout_ns, 5 * HF_NSEC_PER_SEC);
	assert_int_equal(p.resume_failure, HF_RESUME_FAILURE_COLD_BOOT);
	assert_null(p.health_command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_twice),
		cmocka_unit_test(test_overlay),
		cmocka_unit_test(test_repair),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
