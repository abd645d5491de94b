/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The gate at the end of a guest's way in, with an agent in the guest that does well or badly.
 *
 * What QEMU says of the channel is made up here; the channel and the agent behind it are real ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>

#include "common/fd.h"
#include "tests/unit/fake-guest-agent.h"
#include "vmm-glue/vmm.h"

static struct hf_vmm_channel made_up;
static bool qmp_silent;

static int made_up_ask(struct hf_vmm *vmm, const char *label, hf_vmm_channel_fn done, void *data)
{
	assert_string_equal(label, "ga");
	if (!qmp_silent)
		done(vmm, &made_up, data);
	return 0;
}

static void made_up_forget(struct hf_vmm *vmm)
{
}

#define hf_vmm_ask_channel made_up_ask
#define hf_vmm_forget_channel made_up_forget
#define hf_vmm_pid(vmm) getpid()
#include "agent/health.c"

#define SEC (int64_t) HF_NSEC_PER_SEC

/* One guest and what came of it. */
struct rig {
	struct hf_agent agent;
	struct hf_manifest_guest guest;
	struct fake_ga ga;
	char chardev[256];
	char *argv[6];
	struct hf_health *health;
	bool done, answers;
	struct hf_health_result result;
};

static void on_done(const struct hf_health_result *result, void *data)
{
	struct rig *r = data;

	assert_false(r->done);
	r->done = true;
	r->result = *result;
	r->health = hf_health_free(r->health);
}

static void on_probe(bool answers, void *data)
{
	struct rig *r = data;

	assert_false(r->done);
	r->done = true;
	r->answers = answers;
	r->health = hf_health_free(r->health);
}

static void rig_start(struct rig *r, enum fake_ga_mode mode, int64_t offset_ns)
{
	static char *const argv[] = {(char *)"qemu", (char *)"-device",
		(char *)"virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
		(char *)"-chardev"};

	memset(r, 0, sizeof(*r));
	assert_true(sd_event_new(&r->agent.event) >= 0);
	fake_ga_start(&r->ga, mode);
	r->ga.offset_ns = offset_ns;
	snprintf(r->chardev, sizeof(r->chardev), "socket,id=ga,server=on,wait=off,path=%s",
		r->ga.path);
	memcpy(r->argv, argv, sizeof(argv));
	r->argv[4] = r->chardev;
	r->guest.argv = r->argv;
	r->guest.n_argv = 5;
	r->guest.name = (char *)"web";
	hf_policy_init(&r->guest.policies);
	r->guest.policies.resume_timeout_ns = 300 * HF_NSEC_PER_MSEC;
	made_up = (struct hf_vmm_channel){.known = true, .open = true};
	qmp_silent = false;
}

static void rig_wait(struct rig *r)
{
	while (!r->done)
		assert_true(sd_event_run(r->agent.event, 10000000) > 0);
}

/* The guest stood still for three seconds. */
static void rig_run(struct rig *r)
{
	assert_int_equal(hf_health_start(&r->agent, NULL, &r->guest, (uint64_t)(3 * SEC), on_done,
				 r, &r->health),
		0);
	assert_false(r->done);
	rig_wait(r);
	fake_ga_stop(&r->ga);
	sd_event_unref(r->agent.event);
}

static void test_catches_up(void **state)
{
	static const int64_t behind[] = {3 * SEC, SEC / 10, 5 * SEC - SEC / 10, -SEC};
	struct rig r;

	for (size_t i = 0; i < HF_ARRAY_SIZE(behind); i++) {
		rig_start(&r, i < 2 ? FAKE_GA_GOOD : FAKE_GA_NO_RTC, -behind[i]);
		r.guest.agent_answered = i % 2;
		r.guest.policies.resume_timeout_ns = 10 * HF_NSEC_PER_SEC;
		rig_run(&r);
		assert_false(r.result.unhealthy);
		assert_int_equal(r.result.clock, HF_HEALTH_CLOCK_CAUGHT_UP);
		assert_int_equal(r.ga.n_set, 1);
		assert_true(llabs(r.result.lag_ns) <= (int64_t)HF_GUEST_CLOCK_NEAR_NS);
		assert_string_equal(r.result.clock_message, "");
	}
}

/* What it is late by is made up for. */
static void test_slow_agent_catches_up(void **state)
{
	struct rig r;

	rig_start(&r, FAKE_GA_SLOW, -3 * SEC);
	r.guest.policies.resume_timeout_ns = 10 * HF_NSEC_PER_SEC;
	rig_run(&r);
	assert_int_equal(r.result.clock, HF_HEALTH_CLOCK_CAUGHT_UP);
	assert_int_equal(r.ga.n_set, 2);
	assert_true(llabs(r.result.lag_ns) <= (int64_t)HF_GUEST_CLOCK_NEAR_NS);
}

/* Right already, or another time altogether: nobody touches it. */
static void test_clock_left_alone(void **state)
{
	static const int64_t behind[] = {0, 6 * SEC, -3 * SEC, 86400 * SEC, -86400 * SEC};
	struct rig r;

	for (size_t i = 0; i < HF_ARRAY_SIZE(behind); i++) {
		rig_start(&r, FAKE_GA_GOOD, -behind[i]);
		r.guest.policies.resume_timeout_ns = 10 * HF_NSEC_PER_SEC;
		rig_run(&r);
		assert_false(r.result.unhealthy);
		assert_int_equal(r.ga.n_set, 0);
		assert_int_equal(
			r.result.clock, i == 0 ? HF_HEALTH_CLOCK_CAUGHT_UP : HF_HEALTH_CLOCK_LAGS);
		if (i > 0)
			assert_non_null(strstr(r.result.clock_message, "another time"));
	}
}

static void test_clock_that_cannot_be_set(void **state)
{
	static const struct {
		enum fake_ga_mode mode;
		const char *says;
	} cases[] = {
		{FAKE_GA_REFUSES, "refuses"},
		{FAKE_GA_LIES, "not to the right time"},
		{FAKE_GA_NONSENSE, "no answer"},
	};
	struct rig r;

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		rig_start(&r, cases[i].mode, -3 * SEC);
		r.guest.agent_answered = true;
		rig_run(&r);
		/* It answers: it is well. */
		assert_false(r.result.unhealthy);
		assert_int_equal(r.result.clock, HF_HEALTH_CLOCK_LAGS);
		assert_non_null(strstr(r.result.clock_message, cases[i].says));
	}
}

static void test_frozen(void **state)
{
	struct rig r;

	for (int answered = 0; answered < 2; answered++) {
		rig_start(&r, FAKE_GA_GOOD, -3 * SEC);
		r.guest.policies.clock = HF_CLOCK_FROZEN;
		r.guest.agent_answered = answered;
		rig_run(&r);
		assert_false(r.result.unhealthy);
		assert_int_equal(r.ga.n_set, 0);
		assert_int_equal(r.ga.sync_id != 0, answered);
		assert_int_equal(r.result.clock, HF_HEALTH_CLOCK_FROZEN);
		assert_int_equal(r.result.lag_ns, 3 * SEC);
	}
}

/* Its silence counts only if it answered before. */
static void test_silent_agent(void **state)
{
	static const enum fake_ga_mode modes[] = {
		FAKE_GA_SILENT, FAKE_GA_UNREAD, FAKE_GA_HUGE, FAKE_GA_FLOOD, FAKE_GA_HANG_UP};
	struct rig r;

	for (size_t i = 0; i < HF_ARRAY_SIZE(modes) * 2; i++) {
		rig_start(&r, modes[i / 2], 0);
		r.guest.agent_answered = i % 2;
		r.guest.policies.health_command = (char *)"/bin/true";
		rig_run(&r);
		assert_int_equal(r.result.unhealthy, i % 2);
		assert_int_equal(r.result.clock, HF_HEALTH_CLOCK_LAGS);
		assert_true(r.result.clock_message[0] != 0);
		if (i % 2)
			assert_non_null(strstr(r.result.message, "answered before the update"));
	}
}

/* Without a way to it, it isn't waited for; only where QEMU is the reason that counts. */
static void test_channel(void **state)
{
	static const struct {
		struct hf_vmm_channel channel;
		bool unhealthy;
		const char *says;
	} cases[] = {
		{{.known = true, .taken = true, .open = true}, false, "another program"},
		{{.known = true, .taken = true}, false, "another program"},
		{{.known = false}, true, "does not tell"},
	};
	struct rig r;

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases) * 2; i++) {
		rig_start(&r, FAKE_GA_GOOD, -3 * SEC);
		made_up = cases[i / 2].channel;
		r.guest.agent_answered = i % 2;
		rig_run(&r);
		assert_int_equal(r.result.unhealthy, i % 2 && cases[i / 2].unhealthy);
		assert_non_null(strstr(r.result.clock_message, cases[i / 2].says));
		assert_int_equal(r.ga.sync_id, 0);
	}
	rig_start(&r, FAKE_GA_GOOD, -3 * SEC);
	made_up.open = false;
	rig_run(&r);
	assert_false(r.result.unhealthy);
	assert_non_null(strstr(r.result.clock_message, "has opened"));
	assert_int_equal(r.ga.sync_id, 0);
	/* QEMU says nothing at all. */
	rig_start(&r, FAKE_GA_GOOD, 0);
	qmp_silent = true;
	r.guest.agent_answered = true;
	rig_run(&r);
	assert_true(r.result.unhealthy);
}

static void test_command(void **state)
{
	static const struct {
		const char *command, *says; /* NULL: well */
	} cases[] = {
		{"/bin/true", NULL},
		{"/usr/bin/test  a\t= a ", NULL},
		{"/usr/bin/test a = b", "exit status 1"},
		{"/bin/sleep 100", "in time"},
		{"/nonexistent", "can't be run"},
		{"/dev/null", "can't be run"},
	};
	struct rig r;

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		rig_start(&r, FAKE_GA_GOOD, 0);
		r.guest.policies.health_command = (char *)(uintptr_t)cases[i].command;
		rig_run(&r);
		assert_int_equal(r.result.unhealthy, cases[i].says != NULL);
		if (cases[i].says)
			assert_non_null(strstr(r.result.message, cases[i].says));
		/* No process of it is left. */
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	}
}

/* What the launcher gave is run as the guest's user; what an administrator gave is not. */
static void test_command_as_user(void **state)
{
	static char *const settings[] = {(char *)"priority=3", (char *)"health-command=/bin/sh /x"};
	char script[] = "/tmp/hf-test-health-XXXXXX", command[64];
	static const char text[] = "test \"$(id -u) $(id -g) $(id -G)\" = \"65534 65533 65533\"\n";
	int fd;
	struct rig r;

	if (geteuid() != 0)
		skip();
	fd = mkstemp(script);
	assert_true(fd >= 0 && fchmod(fd, 0644) == 0);
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	snprintf(command, sizeof(command), "/bin/sh %s", script);
	for (size_t n = 0; n <= HF_ARRAY_SIZE(settings); n++) {
		rig_start(&r, FAKE_GA_GOOD, 0);
		r.guest.policies.resume_timeout_ns = 10 * HF_NSEC_PER_SEC;
		r.guest.policies.health_command = command;
		r.guest.settings = (char **)(uintptr_t)settings;
		r.guest.n_settings = n;
		r.guest.uid = 65534;
		r.guest.gid = 65533;
		rig_run(&r);
		assert_int_equal(r.result.unhealthy, n < HF_ARRAY_SIZE(settings));
	}
	unlink(script);
}

static void test_probe(void **state)
{
	static const struct {
		enum fake_ga_mode mode;
		bool answers;
	} cases[] = {{FAKE_GA_GOOD, true}, {FAKE_GA_STALE, true}, {FAKE_GA_SILENT, false},
		{FAKE_GA_HANG_UP, false}};
	struct rig r;

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		rig_start(&r, cases[i].mode, 0);
		/* Nothing of it happens before the update. */
		r.guest.policies.health_command = (char *)"/nonexistent";
		assert_int_equal(
			hf_health_probe(&r.agent, NULL, &r.guest, on_probe, &r, &r.health), 0);
		rig_wait(&r);
		assert_int_equal(r.answers, cases[i].answers);
		fake_ga_stop(&r.ga);
		sd_event_unref(r.agent.event);
	}
}

/* Given up at any moment: no callback, and nothing left behind. */
static void test_given_up(void **state)
{
	struct rig r;

	for (unsigned int turns = 0; turns < 8; turns++) {
		rig_start(&r, FAKE_GA_SILENT, 0);
		r.guest.policies.resume_timeout_ns = 20 * HF_NSEC_PER_SEC;
		r.guest.agent_answered = turns < 4;
		made_up.open = turns < 4;
		r.guest.policies.health_command = (char *)"/bin/sleep 100";
		hf_health_start(&r.agent, NULL, &r.guest, 0, on_done, &r, &r.health);
		for (unsigned int i = 0; i < turns % 4; i++)
			sd_event_run(r.agent.event, 10000);
		hf_health_free(r.health);
		assert_false(r.done);
		fake_ga_stop(&r.ga);
		sd_event_unref(r.agent.event);
		while (waitpid(-1, NULL, 0) > 0)
			;
	}
}

static void test_judge(void **state)
{
	static const int64_t ends[] = {
		INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX};
	const size_t n = HF_ARRAY_SIZE(ends);
	int64_t behind;

	for (size_t i = 0; i < n * n * n; i++) {
		enum hf_guest_clock_act act = hf_guest_clock_judge(
			ends[i % n], ends[i / n % n], (uint64_t)ends[i / n / n], &behind);

		if (act != HF_GUEST_CLOCK_LEAVE)
			assert_true(behind >= -(int64_t)HF_GUEST_CLOCK_LOOSE_NS);
	}
	assert_int_equal(hf_guest_clock_judge(10 * SEC, 13 * SEC, 3 * HF_NSEC_PER_SEC, &behind),
		HF_GUEST_CLOCK_SET);
	assert_int_equal(behind, 3 * SEC);
	assert_int_equal(
		hf_guest_clock_judge(INT64_MIN, INT64_MAX, 1, &behind), HF_GUEST_CLOCK_LEAVE);
	assert_int_equal(behind, INT64_MAX);
}

static void test_note(void **state)
{
	char dir[] = "/tmp/hf-test-health-XXXXXX", cmd[64];
	const struct hf_health_remark said = {.message = "it is not\nwell",
		.agent_answered = true,
		.blackout_ns = 21 * HF_NSEC_PER_SEC};
	struct hf_health_remark got;
	char path[128];

	assert_non_null(mkdtemp(dir));
	setenv("HOLDFAST_RUN_DIR", dir, 1);
	assert_int_equal(hf_health_noted("u", 12, &got), -ENOENT);
	hf_health_note("u", 12, &said);
	assert_int_equal(hf_health_noted("u", 12, &got), 0);
	assert_string_equal(got.message, "it is not well");
	assert_true(got.agent_answered);
	assert_int_equal(got.blackout_ns, said.blackout_ns);
	/* Another process of the same guest, and half a number. */
	assert_int_equal(hf_health_noted("u", 1, &got), -ENOENT);
	assert_int_equal(hf_health_noted("u", 123, &got), -ENOENT);
	hf_health_forget("u");
	assert_int_equal(hf_health_noted("u", 12, &got), -ENOENT);
	/* As an agent before this one wrote it. */
	snprintf(path, sizeof(path), "%s/unhealthy/u", dir);
	assert_int_equal(hf_file_write_atomic(path, "12 it is not well\n", 18, 0600), 0);
	assert_int_equal(hf_health_noted("u", 12, &got), 0);
	assert_string_equal(got.message, "it is not well");
	assert_false(got.agent_answered);
	assert_int_equal(got.blackout_ns, 0);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_catches_up),
		cmocka_unit_test(test_slow_agent_catches_up),
		cmocka_unit_test(test_clock_left_alone),
		cmocka_unit_test(test_clock_that_cannot_be_set),
		cmocka_unit_test(test_frozen),
		cmocka_unit_test(test_silent_agent),
		cmocka_unit_test(test_channel),
		cmocka_unit_test(test_command),
		cmocka_unit_test(test_command_as_user),
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_given_up),
		cmocka_unit_test(test_judge),
		cmocka_unit_test(test_note),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
