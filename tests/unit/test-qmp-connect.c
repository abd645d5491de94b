/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: How a QMP connection comes about: sockets that are late, taken or mute, and the greeting.
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

static char folder[64];

static const char *socket_path(void)
{
	static char path[96];

	snprintf(path, sizeof(path), "%s/qmp", folder);
	return path;
}

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
static void test_early_commands(void **state)
{
	struct rig rig;
	struct outcome a, b;
	int64_t one, two;

	rig_pair(&rig, 0);
	rig.fake->raw = true;
	rig.fake->command = silent;
	one = (int64_t)submit(&rig, "one", 0, &a);
	two = (int64_t)submit(&rig, "two", 0, &b);
	fake_qmp_settle(rig.event, 5);
	assert_int_equal(rig.fake->n_commands, 0);
	fake_qmp_greet(rig.fake);
	fake_qmp_settle(rig.event, 5);
	/* All three are there though nothing was answered. */
	assert_int_equal(rig.fake->n_commands, 3);
	assert_false(rig.ready);
	fake_qmp_reply(rig.fake, two + 1, "{}");
	fake_qmp_reply(rig.fake, one, "1");
	fake_qmp_reply(rig.fake, two, "2");
	assert_true(run(&rig, &b.done));
	assert_true(rig.ready && a.done);
	assert_string_equal(b.json, "2");
	rig_done(&rig);
}

/* QEMU was working on a command of a client that died, and its reply goes to the next one. */
static void test_reply_of_the_client_before(void **state)
{
	struct rig rig;
	struct outcome o;
	uint64_t id;

	rig_pair(&rig, 0);
	rig.fake->raw = true;
	rig.fake->command = silent;
	id = submit(&rig, "stop", 0, &o);
	fake_qmp_greet(rig.fake);
	fake_qmp_settle(rig.event, 5);
	for (int64_t other = 1; other < 4; other++)
		fake_qmp_reply(rig.fake, other, "\"not for us\"");
	fake_qmp_error(rig.fake, (int64_t)id - 2, "GenericError", "not for us");
	fake_qmp_settle(rig.event, 5);
	assert_false(rig.closed || rig.ready || o.done);
	fake_qmp_reply(rig.fake, (int64_t)id + 1, "{}");
	fake_qmp_reply(rig.fake, (int64_t)id, "{}");
	assert_true(run(&rig, &o.done));
	assert_int_equal(o.err, 0);
	assert_string_equal(o.json, "{}");
	/* From here on it is nonsense. */
	fake_qmp_reply(rig.fake, 1, "{}");
	assert_true(run(&rig, &rig.closed));
	assert_int_equal(rig.closed_err, -EBADMSG);
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
		cmocka_unit_test(test_reply_of_the_client_before),
		cmocka_unit_test(test_greeting_split),
		cmocka_unit_test(test_no_greeting_pair),
		cmocka_unit_test(test_no_negotiation),
		cmocka_unit_test(test_negotiation_refused),
		cmocka_unit_test(test_connect_fails),
		cmocka_unit_test(test_monitor_taken),
		cmocka_unit_test(test_backlog_full),
		cmocka_unit_test(test_late_socket),
		cmocka_unit_test(test_late_folder),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
