/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The QMP connection against a server that does what QEMU does, and what it never should.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "qmp/commands.h"
#include "qmp/internal.h"
#include "qmp/qmp.h"
#include "tests/unit/fake-qmp.h"

#define MS HF_NSEC_PER_MSEC

/* What a command's callback saw. */
struct outcome {
	struct rig *rig;
	unsigned int n_calls;
	bool done;
	int err;
	char message[512];
	char json[256];
	unsigned int order; /* nth callback of all */
};

/* A client with all it heard, and the other end. */
struct rig {
	sd_event *event;
	struct fake_qmp *fake;
	struct hf_qmp *q;
	bool ready, closed, evented;
	int closed_err;
	unsigned int n_ready, n_closed, n_events, n_callbacks;
	struct hf_error reason;
	char event_name[64];
	uint64_t event_us;
	bool free_in_event, free_in_ready, free_in_closed, free_in_reply, close_in_reply;
	bool in_submit;
};

static void on_ready(struct hf_qmp *q, void *userdata)
{
	struct rig *rig = userdata;

	assert_false(rig->in_submit);
	assert_int_equal(hf_qmp_get_state(q), HF_QMP_READY);
	rig->ready = true;
	rig->n_ready++;
	if (rig->free_in_ready)
		rig->q = hf_qmp_free(q);
}

static void on_event(
	struct hf_qmp *q, const char *name, struct json_object *data, uint64_t us, void *userdata)
{
	struct rig *rig = userdata;

	assert_false(rig->in_submit);
	snprintf(rig->event_name, sizeof(rig->event_name), "%s", name);
	rig->event_us = us;
	rig->n_events++;
	rig->evented = true;
	if (rig->free_in_event)
		rig->q = hf_qmp_free(q);
}

static void on_closed(struct hf_qmp *q, int err, const struct hf_error *reason, void *userdata)
{
	struct rig *rig = userdata;

	assert_false(rig->in_submit);
	assert_int_equal(err, reason->err);
	assert_int_equal(hf_qmp_get_state(q), HF_QMP_CLOSED);
	rig->closed = true;
	rig->closed_err = err;
	rig->reason = *reason;
	rig->n_closed++;
	if (rig->free_in_closed)
		rig->q = hf_qmp_free(q);
}

static const struct hf_qmp_ops ops = {on_ready, on_event, on_closed};

static void on_reply(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct outcome *o = data;

	assert_false(o->rig->in_submit);
	assert_true(err ? error && error->err == err : !error);
	o->n_calls++;
	o->done = true;
	o->err = err;
	o->order = ++o->rig->n_callbacks;
	snprintf(o->message, sizeof(o->message), "%s", error ? error->message : "");
	snprintf(o->json, sizeof(o->json), "%s",
		json_object_to_json_string_ext(ret, JSON_C_TO_STRING_PLAIN));
	if (o->rig->free_in_reply)
		o->rig->q = hf_qmp_free(q);
	if (o->rig->close_in_reply)
		hf_qmp_close(q);
}

static uint64_t submit(struct rig *rig, const char *name, uint64_t timeout_ns, struct outcome *o)
{
	uint64_t id = 0;

	*o = (struct outcome){.rig = rig};
	rig->in_submit = true;
	assert_int_equal(
		hf_qmp_command(rig->q, name, NULL, -EBADF, timeout_ns, on_reply, o, &id), 0);
	rig->in_submit = false;
	assert_true(id > 0);
	return id;
}

static void rig_pair(struct rig *rig, uint64_t timeout_ns)
{
	struct hf_error error = {0};
	int fd;

	*rig = (struct rig){0};
	assert_true(sd_event_new(&rig->event) >= 0);
	rig->fake = fake_qmp_pair(rig->event, &fd);
	rig->fake->data = rig;
	assert_int_equal(hf_qmp_attach_fd(rig->event, fd, "the pair", timeout_ns, &ops, rig,
				 &rig->q, &error),
		0);
}

static void rig_ready(struct rig *rig)
{
	rig_pair(rig, 0);
	fake_qmp_greet(rig->fake);
	assert_true(fake_qmp_run_until(rig->event, &rig->ready, 2000));
}

static void rig_done(struct rig *rig)
{
	rig->q = hf_qmp_free(rig->q);
	rig->fake = fake_qmp_free(rig->fake);
	rig->event = sd_event_unref(rig->event);
}

static bool run(struct rig *rig, const bool *flag)
{
	return fake_qmp_run_until(rig->event, flag, 2000);
}

static char folder[64];

static const char *socket_path(void)
{
	static char path[96];

	snprintf(path, sizeof(path), "%s/qmp", folder);
	return path;
}

/* ---- the way in ---- */

static void test_greeting(void **state)
{
	struct rig rig;
	struct outcome o;

	rig_pair(&rig, 0);
	assert_int_equal(hf_qmp_get_state(rig.q), HF_QMP_GREETING);
	assert_int_equal(hf_qmp_get_version(rig.q)->major, 0);
	assert_false(hf_qmp_at_least(rig.q, 1, 0));
	fake_qmp_greet(rig.fake);
	assert_true(run(&rig, &rig.ready));
	assert_int_equal(hf_qmp_get_version(rig.q)->major, 10);
	assert_int_equal(hf_qmp_get_version(rig.q)->micro, 3);
	assert_string_equal(hf_qmp_get_version(rig.q)->package, "Debian 1:fake");
	assert_true(hf_qmp_at_least(rig.q, 10, 0));
	assert_true(hf_qmp_at_least(rig.q, 9, 1));
	assert_false(hf_qmp_at_least(rig.q, 10, 1));
	submit(&rig, "query-status", 0, &o);
	assert_true(run(&rig, &o.done));
	assert_int_equal(o.err, 0);
	assert_string_equal(o.json, "{}");
	rig_done(&rig);
}

/* Commands submitted before the greeting go out behind qmp_capabilities, without a round trip. */
static void silent(
	struct fake_qmp *f, const char *name, struct json_object *args, int64_t id, void *data)
{
}

static void test_early_commands(void **state)
{
	struct rig rig;
	struct outcome a, b;

	rig_pair(&rig, 0);
	rig.fake->raw = true;
	rig.fake->command = silent;
	submit(&rig, "one", 0, &a);
	submit(&rig, "two", 0, &b);
	fake_qmp_settle(rig.event, 5);
	assert_int_equal(rig.fake->n_commands, 0);
	fake_qmp_greet(rig.fake);
	fake_qmp_settle(rig.event, 5);
	/* All three are there though nothing was answered. */
	assert_int_equal(rig.fake->n_commands, 3);
	assert_false(rig.ready);
	fake_qmp_reply(rig.fake, 3, "{}");
	fake_qmp_reply(rig.fake, 1, "1");
	fake_qmp_reply(rig.fake, 2, "2");
	assert_true(run(&rig, &b.done));
	assert_true(rig.ready && a.done);
	assert_string_equal(b.json, "2");
	rig_done(&rig);
}

static void test_greeting_split(void **state)
{
	struct rig rig;
	size_t i;

	rig_pair(&rig, 0);
	for (i = 0; i < strlen(FAKE_QMP_GREETING); i++) {
		fake_qmp_raw(rig.fake, &FAKE_QMP_GREETING[i], 1);
		assert_true(sd_event_run(rig.event, 1000) >= 0);
	}
	assert_true(run(&rig, &rig.ready));
	rig_done(&rig);
}

static void test_no_greeting_pair(void **state)
{
	struct rig rig;
	struct outcome o;

	rig_pair(&rig, 30 * MS);
	submit(&rig, "query-status", 0, &o);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -ETIMEDOUT);
	assert_int_equal(o.err, -ECONNRESET);
	assert_int_equal(o.n_calls, 1);
	assert_int_equal(rig.n_closed, 1);
	assert_int_equal(
		hf_qmp_command(rig.q, "x", NULL, -EBADF, 0, on_reply, &o, NULL), -ENOTCONN);
	rig_done(&rig);
}

static void test_no_negotiation(void **state)
{
	struct rig rig;

	rig_pair(&rig, 50 * MS);
	rig.fake->raw = true;
	rig.fake->command = silent;
	fake_qmp_greet(rig.fake);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -ETIMEDOUT);
	assert_non_null(strstr(rig.reason.message, "qmp_capabilities"));
	rig_done(&rig);
}

static void refuse(
	struct fake_qmp *f, const char *name, struct json_object *args, int64_t id, void *data)
{
	fake_qmp_error(f, id, "GenericError", "not\\ntoday");
}

static void test_negotiation_refused(void **state)
{
	struct rig rig;
	struct outcome o;

	rig_pair(&rig, 0);
	rig.fake->raw = true;
	rig.fake->command = refuse;
	fake_qmp_greet(rig.fake);
	submit(&rig, "query-status", 0, &o);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -EREMOTEIO);
	assert_non_null(strstr(rig.reason.message, "not today"));
	assert_int_equal(o.n_calls, 1);
	rig_done(&rig);
}

static void rig_connect(struct rig *rig, unsigned int flags, uint64_t timeout_ns)
{
	struct hf_error error = {0};

	*rig = (struct rig){0};
	assert_true(sd_event_new(&rig->event) >= 0);
	assert_int_equal(hf_qmp_connect(rig->event, socket_path(), flags, timeout_ns, &ops, rig,
				 &rig->q, &error),
		0);
}

static void test_connect_fails(void **state)
{
	cleanup_close int fd = -EBADF;
	struct hf_error error = {0};
	struct hf_qmp *q = NULL;
	struct rig rig;
	sd_event *event;
	char longer[200];

	unlink(socket_path());
	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(
		hf_qmp_connect(event, socket_path(), 0, 0, &ops, &rig, &q, &error), -ENOENT);
	assert_non_null(strstr(error.message, socket_path()));
	fd = fake_qmp_listen(socket_path());
	hf_close(&fd);
	assert_int_equal(
		hf_qmp_connect(event, socket_path(), 0, 0, &ops, &rig, &q, &error), -ECONNREFUSED);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(hf_qmp_connect(event, longer, HF_QMP_WAIT_SOCKET, 0, &ops, &rig, &q, NULL),
		-ENAMETOOLONG);
	assert_null(q);
	sd_event_unref(event);
	/* Waiting ends too. */
	rig_connect(&rig, HF_QMP_WAIT_SOCKET, 30 * MS);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -ECONNREFUSED);
	rig_done(&rig);
	unlink(socket_path());
	rig_connect(&rig, HF_QMP_WAIT_SOCKET, 30 * MS);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -ENOENT);
	rig_done(&rig);
}

/* QEMU's second client connects, and hears nothing. The third can't even connect. */
static void test_monitor_taken(void **state)
{
	int fd = fake_qmp_listen(socket_path());
	struct hf_error error = {0};
	struct hf_qmp *third = NULL, *fourth = NULL;
	struct rig rig;

	rig_connect(&rig, 0, 40 * MS);
	assert_int_equal(hf_qmp_get_state(rig.q), HF_QMP_GREETING);
	assert_int_equal(
		hf_qmp_connect(rig.event, socket_path(), 0, 0, NULL, NULL, &third, &error), 0);
	assert_int_equal(
		hf_qmp_connect(rig.event, socket_path(), 0, 0, NULL, NULL, &fourth, &error), 0);
	assert_int_equal(hf_qmp_get_state(fourth), HF_QMP_CONNECTING);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -EBUSY);
	assert_non_null(strstr(rig.reason.message, "the monitor at "));
	assert_non_null(strstr(rig.reason.message, "is taken by another client"));
	assert_string_equal(rig.reason.name, HF_ERR_BUSY);
	assert_true(strlen(rig.reason.remedy) > 0);
	hf_qmp_free(third);
	hf_qmp_free(fourth);
	rig_done(&rig);
	close(fd);
}

static void test_backlog_full(void **state)
{
	int fd = fake_qmp_listen(socket_path()), others[2], i;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct rig rig;

	strcpy(sa.sun_path, socket_path());
	for (i = 0; i < 2; i++) {
		others[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(others[i], (struct sockaddr *)&sa, sizeof(sa)), 0);
	}
	rig_connect(&rig, 0, 40 * MS);
	assert_int_equal(hf_qmp_get_state(rig.q), HF_QMP_CONNECTING);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -EBUSY);
	rig_done(&rig);
	close(others[0]);
	close(others[1]);
	close(fd);
}

/* Turns of the loop that don't wait: what is there now, and nothing that takes time. */
static void turn(struct rig *rig)
{
	int i;

	for (i = 0; i < 3; i++)
		assert_true(sd_event_run(rig->event, 0) >= 0);
}

/*
 * Promptness, without a clock: a loaded machine may take the processor away for longer than what
 * is asked for here.
 */
static void test_late_socket(void **state)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char other[128];
	struct rig rig;
	uint64_t delay;
	int how, fd;

	strcpy(sa.sun_path, socket_path());
	snprintf(other, sizeof(other), "%s.new", socket_path());
	for (how = 0; how < 3; how++) {
		unlink(socket_path());
		rig_connect(&rig, HF_QMP_WAIT_SOCKET, 2000 * MS);
		fake_qmp_run_for(rig.event, 15);
		assert_int_equal(hf_qmp_get_state(rig.q), HF_QMP_CONNECTING);
		if (how == 0) {
			fd = fake_qmp_listen(socket_path());
		} else if (how == 1) {
			fd = fake_qmp_listen(other);
			assert_int_equal(rename(other, socket_path()), 0);
		} else {
			/* The time between bind(2) and listen(2): retries within a millisecond. */
			fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
			assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
			turn(&rig);
			assert_int_equal(rig.q->connect_err, -ECONNREFUSED);
			assert_true(rig.q->retry_us <= hf_qmp_now_us() + 1000);
			assert_int_equal(rig.q->armed_us, rig.q->retry_us);
			assert_int_equal(listen(fd, 1), 0);
			delay = rig.q->retry_us - HF_MIN(hf_qmp_now_us(), rig.q->retry_us);
			usleep((useconds_t)delay);
		}
		turn(&rig);
		assert_int_equal(hf_qmp_get_state(rig.q), HF_QMP_GREETING);
		rig.fake = fake_qmp_accept(rig.event, fd);
		fake_qmp_greet(rig.fake);
		assert_true(run(&rig, &rig.ready));
		close(fd);
		rig_done(&rig);
	}
}

/* The folder doesn't exist yet either. */
static void test_late_folder(void **state)
{
	struct hf_error error = {0};
	char sub[80], path[96];
	struct rig rig = {0};
	int fd;

	snprintf(sub, sizeof(sub), "%s/sub", folder);
	snprintf(path, sizeof(path), "%s/qmp", sub);
	assert_true(sd_event_new(&rig.event) >= 0);
	assert_int_equal(hf_qmp_connect(rig.event, path, HF_QMP_WAIT_SOCKET, 2000 * MS, &ops, &rig,
				 &rig.q, &error),
		0);
	fake_qmp_run_for(rig.event, 10);
	assert_int_equal(mkdir(sub, 0700), 0);
	fd = fake_qmp_listen(path);
	while (hf_qmp_get_state(rig.q) == HF_QMP_CONNECTING)
		assert_true(sd_event_run(rig.event, 1000000) > 0);
	assert_int_equal(hf_qmp_get_state(rig.q), HF_QMP_GREETING);
	rig_done(&rig);
	close(fd);
	unlink(path);
	rmdir(sub);
}

/* ---- replies ---- */

static void test_out_of_order(void **state)
{
	struct rig rig;
	struct outcome o[4];
	uint64_t id[4];
	size_t i;

	rig_ready(&rig);
	rig.fake->command = silent;
	for (i = 0; i < 4; i++)
		id[i] = submit(&rig, "query-status", 0, &o[i]);
	fake_qmp_settle(rig.event, 5);
	assert_int_equal(rig.fake->n_commands, 4);
	fake_qmp_send(rig.fake,
		"{\"return\": 3, \"id\": %llu}\r\n{\"event\": \"STOP\"}\r\n"
		"{\"return\": 0, \"id\": %llu}{\"id\": %llu, \"return\": 2}\r\n",
		(unsigned long long)id[3], (unsigned long long)id[0], (unsigned long long)id[2]);
	fake_qmp_event(rig.fake, "RESUME", "{\"a\": 1}");
	fake_qmp_error(rig.fake, (int64_t)id[1], "DeviceNotActive", "No balloon device");
	assert_true(run(&rig, &o[1].done));
	assert_int_equal(o[3].order, 1);
	assert_int_equal(o[0].order, 2);
	assert_int_equal(o[2].order, 3);
	assert_int_equal(o[1].order, 4);
	assert_string_equal(o[3].json, "3");
	assert_string_equal(o[0].json, "0");
	assert_string_equal(o[2].json, "2");
	assert_int_equal(o[1].err, -ENODEV);
	assert_string_equal(
		o[1].message, "QEMU refused `query-status`: No balloon device (DeviceNotActive)");
	assert_int_equal(rig.n_events, 2);
	assert_string_equal(rig.event_name, "RESUME");
	assert_true(rig.event_us == 1700000000123456ull);
	rig_done(&rig);
}

static void test_errors(void **state)
{
	static const struct {
		const char *class;
		int err;
	} map[] = {
		{"GenericError", -EREMOTEIO},
		{"CommandNotFound", -EOPNOTSUPP},
		{"KVMMissingCap", -EOPNOTSUPP},
		{"DeviceNotFound", -ENODEV},
		{"SomethingNew", -EREMOTEIO},
	};
	struct outcome o;
	struct rig rig;
	uint64_t id;
	size_t i;

	rig_ready(&rig);
	rig.fake->command = silent;
	for (i = 0; i < HF_ARRAY_SIZE(map); i++) {
		id = submit(&rig, "cont", 0, &o);
		fake_qmp_error(rig.fake, (int64_t)id, map[i].class, "because\\u0007");
		assert_true(run(&rig, &o.done));
		assert_int_equal(o.err, map[i].err);
		assert_non_null(strstr(o.message, "because "));
	}
	id = submit(&rig, "cont", 0, &o);
	fake_qmp_send(rig.fake, "{\"error\": 1, \"id\": %llu}", (unsigned long long)id);
	assert_true(run(&rig, &o.done));
	assert_int_equal(o.err, -EREMOTEIO);
	rig_done(&rig);
}

static void test_timeout(void **state)
{
	struct rig rig;
	struct outcome slow, fast, later;
	uint64_t id;

	rig_ready(&rig);
	rig.fake->command = silent;
	submit(&rig, "stop", 5000 * MS, &slow);
	id = submit(&rig, "query-status", 40 * MS, &fast);
	assert_true(run(&rig, &fast.done));
	assert_int_equal(fast.err, -ETIMEDOUT);
	assert_non_null(strstr(fast.message, "query-status"));
	assert_false(slow.done);
	assert_false(rig.closed);
	/* The late reply hurts nobody, nor does a second one. */
	fake_qmp_reply(rig.fake, (int64_t)id, "{}");
	fake_qmp_reply(rig.fake, (int64_t)id, "{}");
	rig.fake->command = NULL;
	submit(&rig, "query-status", 0, &later);
	assert_true(run(&rig, &later.done));
	assert_int_equal(later.err, 0);
	assert_int_equal(fast.n_calls, 1);
	assert_false(slow.done);
	rig_done(&rig);
	assert_false(slow.done);
}

static void test_cancel(void **state)
{
	struct rig rig;
	struct outcome sent, unsent, last;
	uint64_t id, id2;

	/* Not sent yet: QEMU never sees it. */
	rig_pair(&rig, 0);
	id = submit(&rig, "quit", 0, &unsent);
	submit(&rig, "query-status", 0, &last);
	assert_int_equal(hf_qmp_cancel(rig.q, id), 0);
	assert_int_equal(hf_qmp_cancel(rig.q, id), -ENOENT);
	fake_qmp_greet(rig.fake);
	assert_true(run(&rig, &last.done));
	assert_int_equal(rig.fake->n_commands, 1);
	/* Sent: its reply is swallowed. */
	rig.fake->command = silent;
	id2 = submit(&rig, "query-status", 0, &sent);
	fake_qmp_settle(rig.event, 5);
	assert_int_equal(hf_qmp_cancel(rig.q, id2), 0);
	fake_qmp_reply(rig.fake, (int64_t)id2, "{}");
	rig.fake->command = NULL;
	submit(&rig, "query-status", 0, &last);
	assert_true(run(&rig, &last.done));
	assert_false(sent.done);
	assert_false(unsent.done);
	assert_false(rig.closed);
	assert_int_equal(hf_qmp_cancel(rig.q, 12345), -ENOENT);
	rig_done(&rig);
}

/* ---- a bad peer ---- */

static void test_bad_peer(void **state)
{
	static const struct {
		bool greeted;
		const char *text;
		int err;
	} bad[] = {
		{false, "SSH-2.0-OpenSSH_9.2\r\n", -EBADMSG},
		{false, "{\"QMP\": 1}", -EBADMSG},
		{false, "{\"QMP\": {\"version\": {\"qemu\": {}}}}", -EBADMSG},
		{false, "{\"return\": {}, \"id\": 1}", -EBADMSG},
		{true, FAKE_QMP_GREETING, -EBADMSG},
		{true, "{\"event\": 1}", -EBADMSG},
		{true, "{\"return\": {}}", -EBADMSG},
		{true, "{\"return\": {}, \"id\": 99}", -EBADMSG},
		{true, "{\"return\": {}, \"id\": -1}", -EBADMSG},
		{true, "{\"return\": {}, \"id\": \"1\"}", -EBADMSG},
		{true, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}",
			-EBADMSG},
		{true, "{}", -EBADMSG},
		{true, "\xff\xff", -EBADMSG},
		{true,
			"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["
			"[",
			-EMSGSIZE},
	};
	size_t i;

	for (i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		struct rig rig;
		struct outcome a, b;

		if (bad[i].greeted)
			rig_ready(&rig);
		else
			rig_pair(&rig, 0);
		rig.fake->command = silent;
		submit(&rig, "stop", 0, &a);
		submit(&rig, "cont", 0, &b);
		fake_qmp_raw(rig.fake, bad[i].text, strlen(bad[i].text));
		assert_true(run(&rig, &rig.closed));
		if (rig.closed_err != bad[i].err)
			fail_msg("%s: %d", bad[i].text, rig.closed_err);
		assert_int_equal(a.n_calls, 1);
		assert_int_equal(b.n_calls, 1);
		assert_int_equal(a.err, -ECONNRESET);
		assert_int_equal(b.err, -ECONNRESET);
		fake_qmp_settle(rig.event, 5);
		assert_int_equal(rig.n_closed, 1);
		assert_int_equal(b.n_calls, 1);
		rig_done(&rig);
	}
}

/* Takes what goes through the fake at the client's pace: the fake's own writes may not block. */
static void send_slowly(struct rig *rig, const char *data, size_t size)
{
	while (size && !rig->closed) {
		ssize_t n = send(rig->fake->fd, data, HF_MIN(size, (size_t)65536),
			MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0) {
			data += n;
			size -= (size_t)n;
		}
		assert_true(sd_event_run(rig->event, 1000) >= 0);
	}
}

static void test_huge_message(void **state)
{
	const size_t size = HF_QMP_MAX_MESSAGE_BYTES + 100;
	char *text = malloc(size);
	struct rig rig;
	struct outcome o;
	uint64_t id;
	int n;

	memset(text, 'x', size);
	rig_ready(&rig);
	rig.fake->command = silent;
	id = submit(&rig, "human-monitor-command", 0, &o);
	/* One that just fits. */
	n = sprintf(text, "{\"id\": %llu, \"return\": \"", (unsigned long long)id);
	text[n] = 'x';
	memcpy(text + HF_QMP_MAX_MESSAGE_BYTES - 2, "\"}", 2);
	send_slowly(&rig, text, HF_QMP_MAX_MESSAGE_BYTES);
	assert_true(run(&rig, &o.done));
	assert_int_equal(o.err, 0);
	memset(text + HF_QMP_MAX_MESSAGE_BYTES - 2, 'x', 2);
	send_slowly(&rig, text, size);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -EMSGSIZE);
	rig_done(&rig);
	free(text);
}

static void test_hang_up(void **state)
{
	struct rig rig;
	struct outcome o[3];
	uint64_t id;
	size_t i;

	rig_ready(&rig);
	rig.fake->command = silent;
	id = submit(&rig, "a", 0, &o[0]);
	submit(&rig, "b", 0, &o[1]);
	submit(&rig, "c", HF_QMP_TIMEOUT_NEVER, &o[2]);
	fake_qmp_settle(rig.event, 5);
	/* A whole reply, half of one, and gone. */
	fake_qmp_reply(rig.fake, (int64_t)id, "{}");
	fake_qmp_send(rig.fake, "{\"return\": {}, \"i");
	fake_qmp_hang_up(rig.fake);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -ECONNRESET);
	assert_int_equal(o[0].err, 0);
	for (i = 1; i < 3; i++) {
		assert_int_equal(o[i].err, -ECONNRESET);
		assert_int_equal(o[i].n_calls, 1);
	}
	assert_non_null(strstr(o[1].message, "`b`"));
	rig_done(&rig);

	/* Gone before the command is sent: what it said before is heard, nothing runs in submit().
	 */
	rig_ready(&rig);
	fake_qmp_event(rig.fake, "SHUTDOWN", "{}");
	fake_qmp_hang_up(rig.fake);
	submit(&rig, "a", 0, &o[0]);
	assert_false(rig.closed);
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.n_events, 1);
	assert_int_equal(rig.closed_err, -ECONNRESET);
	assert_int_equal(o[0].n_calls, 1);
	rig_done(&rig);
}

/* A peer that floods one connection leaves the others alive. */
static void test_flood(void **state)
{
	struct rig rig, other;
	struct outcome o;
	char *flood = malloc(2 << 20);
	size_t n = 0, sent = 0;
	int fd;

	while (n < (2 << 20) - 64)
		n += (size_t)sprintf(flood + n, "{\"event\": \"STOP\"}\r\n");
	rig_ready(&rig);
	other = (struct rig){.event = sd_event_ref(rig.event)};
	other.fake = fake_qmp_pair(rig.event, &fd);
	assert_int_equal(
		hf_qmp_attach_fd(rig.event, fd, "other", 0, &ops, &other, &other.q, NULL), 0);
	fake_qmp_greet(other.fake);
	submit(&other, "query-status", 0, &o);
	/* There is always more of it than one turn takes. */
	while (!o.done) {
		ssize_t k = send(rig.fake->fd, flood + sent, n - sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		sent += k > 0 ? (size_t)k : 0;
		assert_true(sent < n);
		assert_true(sd_event_run(rig.event, 100000) >= 0);
	}
	assert_true(rig.n_events > 0);
	send_slowly(&rig, flood + sent, n - sent);
	while (rig.n_events < n / strlen("{\"event\": \"STOP\"}\r\n"))
		assert_true(sd_event_run(rig.event, 2000000) > 0);
	assert_int_equal(rig.n_events, n / strlen("{\"event\": \"STOP\"}\r\n"));
	rig_done(&other);
	rig_done(&rig);
	free(flood);
}

/* ---- ending it from inside ---- */

static void test_free_inside(void **state)
{
	struct rig rig;
	struct outcome a, b;
	uint64_t id;
	int how;

	for (how = 0; how < 8; how++) {
		rig_pair(&rig, how == 7 ? 20 * MS : 0);
		rig.free_in_ready = how == 0;
		rig.free_in_event = how == 1;
		rig.free_in_reply = how >= 2 && how <= 5;
		rig.free_in_closed = how >= 6;
		if (how == 7) {
			while (rig.q)
				assert_true(sd_event_run(rig.event, 100000) >= 0);
			rig_done(&rig);
			continue;
		}
		rig.fake->command = silent;
		fake_qmp_greet(rig.fake);
		assert_true(run(&rig, &rig.ready));
		if (rig.q) {
			id = submit(&rig, "a", how == 3 ? 10 * MS : 0, &a);
			submit(&rig, "b", how == 3 ? 10 * MS : 0, &b);
			fake_qmp_settle(rig.event, 5);
			if (how == 1 || how == 2) {
				fake_qmp_send(rig.fake,
					"{\"event\": \"STOP\"}{\"return\": 1, \"id\": %llu}"
					"{\"return\": 1, \"id\": %llu}",
					(unsigned long long)id, (unsigned long long)id + 1);
			} else if (how == 4) {
				hf_qmp_close(rig.q);
			} else if (how == 5 || how == 6) {
				fake_qmp_hang_up(rig.fake);
			}
			while (rig.q)
				assert_true(sd_event_run(rig.event, 100000) >= 0);
			/* The one that freed it was the last to run. */
			if (how == 1)
				assert_false(a.done || b.done);
			else if (how < 6)
				assert_true(a.done && !b.done);
			else
				assert_true(a.n_calls == 1 && b.n_calls == 1);
		}
		fake_qmp_run_for(rig.event, 15);
		assert_int_equal(rig.n_closed, how == 6);
		rig_done(&rig);
	}
}

static void test_close(void **state)
{
	struct rig rig;
	struct outcome a, b;

	rig_ready(&rig);
	rig.fake->command = silent;
	submit(&rig, "a", 0, &a);
	submit(&rig, "b", 0, &b);
	hf_qmp_close(rig.q);
	assert_false(a.done);
	assert_int_equal(hf_qmp_get_state(rig.q), HF_QMP_CLOSED);
	assert_int_equal(
		hf_qmp_command(rig.q, "c", json_object_new_object(), -EBADF, 0, NULL, NULL, NULL),
		-ENOTCONN);
	assert_true(run(&rig, &b.done));
	assert_int_equal(a.err, -ECONNRESET);
	assert_int_equal(b.n_calls, 1);
	hf_qmp_close(rig.q);
	fake_qmp_settle(rig.event, 5);
	assert_int_equal(rig.n_closed, 0);
	assert_true(rig.fake->gone);
	rig_done(&rig);

	/* In a reply, with another reply in the same read. */
	rig_ready(&rig);
	rig.fake->command = silent;
	rig.close_in_reply = true;
	submit(&rig, "a", 0, &a);
	submit(&rig, "b", 0, &b);
	fake_qmp_send(rig.fake, "{\"return\": 1, \"id\": 2}{\"return\": 1, \"id\": 3}");
	assert_true(run(&rig, &b.done));
	assert_int_equal(a.err, 0);
	assert_int_equal(b.err, -ECONNRESET);
	assert_int_equal(rig.n_closed, 0);
	rig_done(&rig);
}

/* A reply's callback submits the next command. */
static void chain(struct hf_qmp *q, int err, struct json_object *ret, const struct hf_error *error,
	void *data)
{
	struct outcome *o = data;

	assert_int_equal(err, 0);
	o->done = ++o->n_calls == 50;
	if (!o->done)
		assert_int_equal(hf_qmp_query_status(q, 0, chain, o, NULL), 0);
}

static void test_chain(void **state)
{
	struct rig rig;
	struct outcome o = {.rig = &rig};

	rig_pair(&rig, 0);
	assert_int_equal(hf_qmp_query_status(rig.q, 0, chain, &o, NULL), 0);
	fake_qmp_greet(rig.fake);
	assert_true(run(&rig, &o.done));
	assert_int_equal(rig.fake->n_commands, 50);
	rig_done(&rig);
}

/* ---- descriptors ---- */

struct fd_log {
	unsigned int n_with, n_without;
	uint64_t ino[8];
	char order[256];
	int64_t held_id; /* the getfd that isn't answered yet */
	bool hold;
};

static void log_fds(
	struct fake_qmp *f, const char *name, struct json_object *args, int64_t id, void *data)
{
	struct fd_log *log = data;
	struct hf_inode inode;

	strncat(log->order, name, 8);
	strcat(log->order, " ");
	if (f->passed_fd >= 0) {
		assert_string_equal(name, "getfd");
		assert_int_equal(hf_fd_inode(f->passed_fd, &inode, NULL), 0);
		assert_true(fcntl(f->passed_fd, F_GETFD) & FD_CLOEXEC);
		log->ino[log->n_with++] = inode.ino;
	} else {
		assert_string_not_equal(name, "getfd");
		log->n_without++;
	}
	if (log->hold && !strcmp(name, "getfd"))
		log->held_id = id;
	else
		fake_qmp_reply(f, id, "{}");
}

static void test_fd_passing(void **state)
{
	struct fd_log log = {.hold = true};
	struct outcome o[5];
	struct hf_inode inode[2];
	struct rig rig;
	int fd[2], i;

	rig_pair(&rig, 0);
	rig.fake->command = log_fds;
	rig.fake->data = &log;
	for (i = 0; i < 2; i++) {
		assert_int_equal(hf_memfd_new("x", 1, &fd[i]), 0);
		assert_int_equal(hf_fd_inode(fd[i], &inode[i], NULL), 0);
	}
	submit(&rig, "first", 0, &o[0]);
	o[1] = (struct outcome){.rig = &rig};
	assert_int_equal(hf_qmp_getfd(rig.q, "a", fd[0], 0, on_reply, &o[1], NULL), 0);
	submit(&rig, "between", 0, &o[2]);
	o[3] = (struct outcome){.rig = &rig};
	assert_int_equal(hf_qmp_getfd(rig.q, "b", fd[1], 0, on_reply, &o[3], NULL), 0);
	submit(&rig, "last", 0, &o[4]);
	/* They are the caller's: closing them now takes nothing away. */
	close(fd[0]);
	close(fd[1]);
	fake_qmp_greet(rig.fake);
	fake_qmp_settle(rig.event, 5);
	/* The second one isn't sent before the first is answered. */
	assert_string_equal(log.order, "first getfd between ");
	log.hold = false;
	fake_qmp_reply(rig.fake, log.held_id, "{}");
	assert_true(run(&rig, &o[4].done));
	assert_string_equal(log.order, "first getfd between getfd last ");
	assert_int_equal(log.n_with, 2);
	assert_int_equal(log.ino[0], inode[0].ino);
	assert_int_equal(log.ino[1], inode[1].ino);
	assert_int_equal(log.n_without, 3);
	assert_int_equal(hf_qmp_getfd(rig.q, "c", -1, 0, on_reply, &o[0], NULL), -EBADF);
	assert_int_equal(hf_qmp_command(rig.q, "c", NULL, 12345, 0, on_reply, &o[0], NULL), -EBADF);
	rig_done(&rig);
}

/* A timed-out or cancelled command with a descriptor doesn't hold up the next for ever. */
static void test_fd_waiting(void **state)
{
	struct fd_log log = {.hold = true};
	struct outcome a, b, c;
	struct rig rig;
	uint64_t id;
	int fd;

	rig_ready(&rig);
	rig.fake->command = log_fds;
	rig.fake->data = &log;
	assert_int_equal(hf_memfd_new("x", 1, &fd), 0);
	a = b = (struct outcome){.rig = &rig};
	assert_int_equal(hf_qmp_getfd(rig.q, "a", fd, 20 * MS, on_reply, &a, NULL), 0);
	assert_int_equal(hf_qmp_getfd(rig.q, "b", fd, 0, on_reply, &b, &id), 0);
	submit(&rig, "status", 0, &c);
	assert_true(run(&rig, &a.done));
	assert_int_equal(a.err, -ETIMEDOUT);
	assert_false(c.done);
	/* What waits behind the one that is cancelled goes out. */
	assert_int_equal(hf_qmp_cancel(rig.q, id), 0);
	assert_true(run(&rig, &c.done));
	assert_string_equal(log.order, "getfd status ");
	/* And once the late reply came, descriptors do again. */
	log.hold = false;
	assert_int_equal(hf_qmp_getfd(rig.q, "b", fd, 0, on_reply, &b, &id), 0);
	fake_qmp_settle(rig.event, 5);
	assert_false(b.done);
	fake_qmp_reply(rig.fake, log.held_id, "{}");
	assert_true(run(&rig, &b.done));
	assert_int_equal(log.n_with, 2);
	close(fd);
	rig_done(&rig);
}

/* The socket is full: everything arrives all the same, in order, descriptors where they belong. */
static void test_full_socket(void **state)
{
	struct fd_log log = {0};
	struct outcome o[8];
	struct rig rig;
	char *big = malloc(60001);
	int fd, i;

	memset(big, 'y', 60000);
	big[60000] = '\0';
	rig_ready(&rig);
	rig.fake->command = log_fds;
	rig.fake->data = &log;
	assert_int_equal(hf_memfd_new("x", 1, &fd), 0);
	for (i = 0; i < 8; i++) {
		struct json_object *args = json_object_new_object();

		o[i] = (struct outcome){.rig = &rig};
		json_object_object_add(args, "big", json_object_new_string(big));
		assert_int_equal(
			hf_qmp_command(rig.q, i % 2 ? "getfd" : "other", args, i % 2 ? fd : -EBADF,
				HF_QMP_TIMEOUT_NEVER, on_reply, &o[i], NULL),
			0);
	}
	while (!o[7].done)
		assert_true(sd_event_run(rig.event, 10000000) > 0);
	assert_string_equal(log.order, "other getfd other getfd other getfd other getfd ");
	assert_int_equal(log.n_with, 4);
	close(fd);
	rig_done(&rig);
	free(big);
}

/* ---- limits of our own ---- */

static void test_submit_limits(void **state)
{
	struct json_object *args;
	struct rig rig;
	char *big;
	int i, r;

	rig_pair(&rig, 0);
	for (i = 0; i < 1024; i++)
		assert_int_equal(hf_qmp_query_status(rig.q, 0, NULL, NULL, NULL), 0);
	assert_int_equal(hf_qmp_query_status(rig.q, 0, NULL, NULL, NULL), -ENOBUFS);
	/* The negotiation has a place of its own. */
	fake_qmp_greet(rig.fake);
	assert_true(run(&rig, &rig.ready));
	while (rig.fake->n_commands < 1024)
		assert_true(sd_event_run(rig.event, 2000000) > 0);
	assert_int_equal(rig.fake->n_commands, 1024);
	fake_qmp_settle(rig.event, 5);
	assert_int_equal(hf_qmp_query_status(rig.q, 0, NULL, NULL, NULL), 0);
	rig_done(&rig);

	rig_pair(&rig, 0);
	big = malloc((4 << 20) + 1);
	memset(big, 'z', 4 << 20);
	big[4 << 20] = '\0';
	for (i = 0, r = 0; i < 8 && r == 0; i++) {
		args = json_object_new_object();
		json_object_object_add(args, "big", json_object_new_string(big));
		r = hf_qmp_command(rig.q, "x", args, -EBADF, 0, NULL, NULL, NULL);
	}
	assert_int_equal(r, -ENOBUFS);
	assert_int_equal(i, 4);
	free(big);
	rig_done(&rig);
}

/* ---- many ---- */

static void test_many(void **state)
{
	enum { N = 64 };
	struct rig *rigs = calloc(N, sizeof(*rigs));
	struct outcome(*o)[4] = calloc(N, sizeof(*o));
	sd_event *event;
	int i, k, fd;

	assert_true(sd_event_new(&event) >= 0);
	for (i = 0; i < N; i++) {
		rigs[i].event = sd_event_ref(event);
		rigs[i].fake = fake_qmp_pair(event, &fd);
		assert_int_equal(
			hf_qmp_attach_fd(event, fd, "many", 0, &ops, &rigs[i], &rigs[i].q, NULL),
			0);
		for (k = 0; k < 4; k++)
			submit(&rigs[i], "query-status", 0, &o[i][k]);
	}
	for (i = 0; i < N; i++)
		fake_qmp_greet(rigs[i].fake);
	for (i = 0; i < N; i++) {
		assert_true(fake_qmp_run_until(event, &o[i][3].done, 5000));
		for (k = 0; k < 4; k++)
			assert_true(o[i][k].n_calls == 1 && o[i][k].err == 0);
		rig_done(&rigs[i]);
	}
	sd_event_unref(event);
	free(rigs);
	free(o);
}

/* ---- what the typed commands say ---- */

struct spoken {
	char text[1024];
	bool done;
};

static void log_words(
	struct fake_qmp *f, const char *name, struct json_object *args, int64_t id, void *data)
{
	struct spoken *s = data;

	snprintf(s->text, sizeof(s->text), "%s %s", name,
		args ? json_object_to_json_string_ext(
			       args, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
		     : "-");
	s->done = true;
	fake_qmp_reply(f, id, "{}");
}

static void test_typed_commands(void **state)
{
	const struct hf_qmp_capability caps[] = {{"x-ignore-shared", true}, {"events", false}};
	const struct hf_qmp_migrate_parameters params = {
		.has_max_bandwidth = true, .mode = "cpr-reboot"};
	const struct hf_qmp_announce announce = {1, 2, 3, 4};
	struct spoken said;
	struct rig rig;

	rig_pair(&rig, 0);
	assert_int_equal(hf_qmp_migrate_incoming(rig.q, "fd:x", 0, NULL, NULL, NULL), -EAGAIN);
	fake_qmp_greet(rig.fake);
	assert_true(run(&rig, &rig.ready));
	rig.fake->command = log_words;
	rig.fake->data = &said;
#define SAYS(words, function, ...) \
	do { \
		said.done = false; \
		assert_int_equal(function(rig.q, ##__VA_ARGS__, 0, NULL, NULL, NULL), 0); \
		assert_true(run(&rig, &said.done)); \
		assert_string_equal(said.text, words); \
	} while (0)
	SAYS("query-status -", hf_qmp_query_status);
	SAYS("stop -", hf_qmp_stop);
	SAYS("cont -", hf_qmp_cont);
	SAYS("quit -", hf_qmp_quit);
	SAYS("migrate_cancel -", hf_qmp_migrate_cancel);
	SAYS("migrate {\"uri\":\"fd:s/1\"}", hf_qmp_migrate, "fd:s/1");
	SAYS("migrate-incoming {\"uri\":\"fd:s\",\"exit-on-error\":false}", hf_qmp_migrate_incoming,
		"fd:s");
	SAYS("migrate-set-capabilities {\"capabilities\":["
	     "{\"capability\":\"x-ignore-shared\",\"state\":true},"
	     "{\"capability\":\"events\",\"state\":false}]}",
		hf_qmp_migrate_set_capabilities, caps, HF_ARRAY_SIZE(caps));
	SAYS("migrate-set-parameters {\"max-bandwidth\":0,\"mode\":\"cpr-reboot\"}",
		hf_qmp_migrate_set_parameters, &params);
	SAYS("closefd {\"fdname\":\"s\"}", hf_qmp_closefd, "s");
	SAYS("announce-self {\"initial\":50,\"max\":550,\"rounds\":5,\"step\":100}",
		hf_qmp_announce_self, NULL);
	SAYS("announce-self {\"initial\":1,\"max\":2,\"rounds\":3,\"step\":4}",
		hf_qmp_announce_self, &announce);
	SAYS("human-monitor-command {\"command-line\":\"info roms\"}", hf_qmp_human_command,
		"info roms");
	SAYS("qom-get {\"path\":\"/machine\",\"property\":\"type\"}", hf_qmp_qom_get, "/machine",
		"type");
	SAYS("qom-list {\"path\":\"/machine\"}", hf_qmp_qom_list, "/machine");
	rig_done(&rig);

	/* exit-on-error came with 9.1. */
	rig_pair(&rig, 0);
	fake_qmp_send(rig.fake, "%s", FAKE_QMP_GREETING_OF(9, 0));
	assert_true(run(&rig, &rig.ready));
	rig.fake->command = log_words;
	rig.fake->data = &said;
	SAYS("migrate-incoming {\"uri\":\"fd:s\"}", hf_qmp_migrate_incoming, "fd:s");
	rig_done(&rig);
}

static int make_folder(void **state)
{
	strcpy(folder, "/tmp/hf-test-qmp.XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	unlink(socket_path());
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greeting),
		cmocka_unit_test(test_early_commands),
		cmocka_unit_test(test_greeting_split),
		cmocka_unit_test(test_no_greeting_pair),
		cmocka_unit_test(test_no_negotiation),
		cmocka_unit_test(test_negotiation_refused),
		cmocka_unit_test(test_connect_fails),
		cmocka_unit_test(test_monitor_taken),
		cmocka_unit_test(test_backlog_full),
		cmocka_unit_test(test_late_socket),
		cmocka_unit_test(test_late_folder),
		cmocka_unit_test(test_out_of_order),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_bad_peer),
		cmocka_unit_test(test_huge_message),
		cmocka_unit_test(test_hang_up),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_free_inside),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_fd_passing),
		cmocka_unit_test(test_fd_waiting),
		cmocka_unit_test(test_full_socket),
		cmocka_unit_test(test_submit_limits),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_typed_commands),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
