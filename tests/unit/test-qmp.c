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

#include "tests/unit/qmp-rig.h"

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
	uint64_t id;

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
	id = submit(&rig, "a", 0, &a);
	submit(&rig, "b", 0, &b);
	fake_qmp_send(rig.fake, "{\"return\": 1, \"id\": %llu}{\"return\": 1, \"id\": %llu}",
		(unsigned long long)id, (unsigned long long)id + 1);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
