/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The Varlink server and client against each other and against clients that misbehave.
 *
 * Most tests drive the server's loop by hand and speak through raw sockets, so that every byte and
 * every order of events is theirs. The blocking client runs in a thread beside the loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/varlink.h"

static const char description[] =
	"interface org.example.Test\nmethod Echo(text: string) -> (text: string)\n";

static struct {
	sd_event *event;
	struct hf_varlink_server *server;
	struct hf_varlink_call *held[16];
	size_t n_held;
	unsigned int n_changes;
	unsigned int n_gone;
	uid_t fake_uid;
	char path[64];
	char dir[40];
} t;

static void do_echo(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const char *text = NULL;
	const struct hf_json_field fields[] = {{"text", json_type_string, 0, &text}, {0}};
	struct json_object *reply;

	assert_ptr_equal(userdata, &t);
	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	reply = json_object_new_object();
	hf_json_add_string(reply, "text", text);
	hf_varlink_call_reply(call, reply);
	/* The first answer wins, this one goes nowhere. */
	hf_varlink_call_reply(call, NULL);
}

static void do_hold(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	t.held[t.n_held++] = hf_varlink_call_ref(call);
}

static void do_change(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	t.n_changes++;
	hf_varlink_call_reply(call, NULL);
}

static void do_forget(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
}

static void do_fail(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	struct json_object *extra = json_object_new_object();
	struct hf_error e = {0};

	hf_error_set(&e, -EBUSY, HF_ERR_BUSY, "Wait.", "guest is %s", "busy");
	hf_error_guest(&e, "web1");
	hf_json_add_int(extra, "retry_after_s", 5);
	hf_varlink_call_error(call, &e, extra);
}

static void do_count(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	assert_true(hf_varlink_call_wants_more(call));
	for (int i = 0; i < 3; i++) {
		struct json_object *reply = json_object_new_object();

		hf_json_add_int(reply, "i", i);
		if (i < 2)
			hf_varlink_call_notify(call, reply);
		else
			hf_varlink_call_reply(call, reply);
	}
}

static const struct hf_varlink_method methods[] = {
	{"Echo", do_echo, 0},
	{"Hold", do_hold, 0},
	{"Change", do_change, HF_VARLINK_MUTATING},
	{"Forget", do_forget, 0},
	{"Fail", do_fail, 0},
	{"Count", do_count, HF_VARLINK_MORE},
	{"Later", NULL, 0},
	{NULL, NULL, 0},
};

static const struct hf_varlink_interface interfaces[] = {
	{"org.example.Test", description, methods},
	{NULL, NULL, NULL},
};

static int fake_uid(int fd, void *userdata, uid_t *ret)
{
	*ret = t.fake_uid;
	return 0;
}

static struct hf_varlink_server_options default_options(void)
{
	return (struct hf_varlink_server_options){
		.path = t.path,
		.vendor = "Example",
		.product = "Test",
		.version = "1",
		.url = "https://example.org",
		.interfaces = interfaces,
		.userdata = &t,
		.peer_uid = fake_uid,
	};
}

static void start(const struct hf_varlink_server_options *options)
{
	t.server = hf_varlink_server_free(t.server);
	assert_int_equal(hf_varlink_server_new(t.event, options, &t.server), 0);
}

static int setup(void **state)
{
	struct hf_varlink_server_options options;

	memset(&t, 0, sizeof(t));
	t.fake_uid = geteuid();
	strcpy(t.dir, "/tmp/test-varlink.XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	snprintf(t.path, sizeof(t.path), "%s/socket", t.dir);
	assert_true(sd_event_new(&t.event) >= 0);
	options = default_options();
	start(&options);
	return 0;
}

static int teardown(void **state)
{
	for (size_t i = 0; i < t.n_held; i++)
		hf_varlink_call_unref(t.held[i]);
	t.server = hf_varlink_server_free(t.server);
	assert_null(sd_event_unref(t.event));
	unlink(t.path);
	assert_int_equal(rmdir(t.dir), 0);
	return 0;
}

/* Runs the loop until nothing happens any more. */
static void settle(void)
{
	int turns = 0;

	while (sd_event_run(t.event, 2000) > 0)
		assert_true(++turns < 100000);
}

static int raw_connect(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	strcpy(addr.sun_path, t.path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void raw_send(int fd, const void *data, size_t size)
{
	assert_int_equal(send(fd, data, size, MSG_NOSIGNAL), size);
}

/* Sends one call. */
static void raw_call(int fd, const char *text)
{
	raw_send(fd, text, strlen(text) + 1);
}

/* What has arrived, with each NUL shown as '|', or "END" behind it when the server has closed. */
static const char *raw_receive(int fd)
{
	static char text[65536];
	size_t used = 0;
	ssize_t n;

	do {
		settle();
		n = recv(fd, text + used, sizeof(text) - 8 - used, MSG_DONTWAIT);
		used += n > 0 ? (size_t)n : 0;
	} while (n > 0 && used < sizeof(text) - 8);
	for (size_t i = 0; i < used; i++)
		if (text[i] == 0)
			text[i] = '|';
	strcpy(text + used, n == 0 || (n < 0 && errno == ECONNRESET) ? "END" : "");
	return text;
}

#define ECHO(x) "{\"method\":\"org.example.Test.Echo\",\"parameters\":{\"text\":\"" x "\"}}"
#define ECHOED(x) "{\"parameters\":{\"text\":\"" x "\"}}|"
#define CALL(m) "{\"method\":\"org.example.Test." m "\"}"
#define CALL_MORE(m) "{\"method\":\"org.example.Test." m "\",\"more\":true}"

static void test_echo(void **state)
{
	cleanup_close int fd = raw_connect();
	static const char text[] = ECHO("split");

	raw_call(fd, ECHO("one"));
	assert_string_equal(raw_receive(fd), ECHOED("one"));

	/* Two in one piece, one in many. */
	raw_send(fd, ECHO("a") "\0" ECHO("b"), sizeof(ECHO("a") "\0" ECHO("b")));
	assert_string_equal(raw_receive(fd), ECHOED("a") ECHOED("b"));
	for (size_t i = 0; i < sizeof(text); i++) {
		assert_string_equal(raw_receive(fd), "");
		raw_send(fd, text + i, 1);
	}
	assert_string_equal(raw_receive(fd), ECHOED("split"));
}

static void test_standard_errors(void **state)
{
	static const struct {
		const char *call, *answer;
	} cases[] = {
		{"{\"method\":\"org.example.None.X\"}",
			"{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{"
			"\"interface\":\"org.example.None\"}}|"},
		{"{\"method\":\"x\"}", "{\"error\":\"org.varlink.service.InterfaceNotFound\","
				       "\"parameters\":{\"interface\":\"x\"}}|"},
		{"{\"method\":\"org.example.Test.\"}",
			"{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{"
			"\"method\":\"org.example.Test.\"}}|"},
		{CALL("Nope"), "{\"error\":\"org.varlink.service.MethodNotFound\",\"parameters\":{"
			       "\"method\":\"org.example.Test.Nope\"}}|"},
		{CALL("Later"), "{\"error\":\"org.varlink.service.MethodNotImplemented\","
				"\"parameters\":{\"method\":\"org.example.Test.Later\"}}|"},
		{CALL("Count"),
			"{\"error\":\"org.varlink.service.ExpectedMore\",\"parameters\":{}}|"},
		{CALL("Echo"),
			"{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{"
			"\"parameter\":\"text\"}}|"},
		{"{\"method\":\"org.example.Test.Echo\",\"parameters\":{\"text\":7}}",
			"{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{"
			"\"parameter\":\"text\"}}|"},
		{"{\"method\":\"org.example.Test.Echo\",\"parameters\":{\"text\":\"\",\"u\":null}}",
			"{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{"
			"\"parameter\":\"u\"}}|"},
		{"{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":{\"a\":1}}",
			"{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{"
			"\"parameter\":\"a\"}}|"},
		{"{\"method\":\"org.example.Test.Echo\",\"parameters\":{\"text\":\"\"},\"upgrade\":"
		 "true}",
			"{\"error\":\"org.varlink.service.MethodNotImplemented\",\"parameters\":{"
			"\"method\":\"org.example.Test.Echo\"}}|"},
		{"{\"method\":\"org.varlink.service.GetInterfaceDescription\","
		 "\"parameters\":{\"interface\":\"org.x\"}}",
			"{\"error\":\"org.varlink.service.InterfaceNotFound\",\"parameters\":{"
			"\"interface\":\"org.x\"}}|"},
	};
	cleanup_close int fd = raw_connect();

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		raw_call(fd, cases[i].call);
		assert_string_equal(raw_receive(fd), cases[i].answer);
	}
}

static void test_service(void **state)
{
	cleanup_close int fd = raw_connect();

	raw_call(fd, "{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":null}");
	assert_string_equal(raw_receive(fd),
		"{\"parameters\":{\"vendor\":\"Example\",\"product\":\"Test\",\"version\":\"1\","
		"\"url\":\"https://example.org\","
		"\"interfaces\":[\"org.varlink.service\",\"org.example.Test\"]}}|");
	raw_call(fd, "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
		     "\"parameters\":{\"interface\":\"org.example.Test\"}}");
	assert_string_equal(raw_receive(fd),
		"{\"parameters\":{\"description\":\"interface org.example.Test\\nmethod Echo(text: "
		"string) -> (text: string)\\n\"}}|");
	raw_call(fd, "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
		     "\"parameters\":{\"interface\":\"org.varlink.service\"}}");
	assert_non_null(strstr(raw_receive(fd), "interface org.varlink.service\\n"));
}

static void test_garbage_ends_the_connection(void **state)
{
	static const char *const bad[] = {
		"",
		"hello",
		"[]",
		"{}",
		"{\"method\":1}",
		"{\"method\":\"org.example.Test.Echo\",\"parameters\":[]}",
		"{\"method\":\"org.example.Test.Echo\",\"more\":1}",
		"{\"method\":\"org.example.Test.Echo\",\"more\":true,\"oneway\":true}",
		"{\"method\":\"org.example.Test.Echo\",\"else\":true}",
	};
	cleanup_close int good = raw_connect();

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		cleanup_close int fd = raw_connect();

		raw_call(fd, bad[i]);
		assert_string_equal(raw_receive(fd), "END");
	}
	/* Others don't notice. */
	raw_call(good, ECHO("still here"));
	assert_string_equal(raw_receive(good), ECHOED("still here"));
}

static void test_oversize(void **state)
{
	cleanup_close int fd = raw_connect();
	cleanup_free char *blanks = malloc(65536);
	size_t sent = 0;

	memset(blanks, ' ', 65536);
	while (sent < 2 * HF_VARLINK_MAX_IN) {
		ssize_t n = send(fd, blanks, 65536, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN)
			break;
		if (n > 0)
			sent += (size_t)n;
		settle();
	}
	assert_true(sent >= HF_VARLINK_MAX_IN && sent < 2 * HF_VARLINK_MAX_IN);
}

/* Calls are answered in order: the second waits until the first is done. */
static void test_pipelined(void **state)
{
	cleanup_close int fd = raw_connect();

	raw_send(fd, CALL("Hold") "\0" ECHO("x"), sizeof(CALL("Hold") "\0" ECHO("x")));
	assert_string_equal(raw_receive(fd), "");
	assert_int_equal(t.n_held, 1);
	hf_varlink_call_reply(t.held[0], NULL);
	assert_false(hf_varlink_call_is_open(t.held[0]));
	assert_string_equal(raw_receive(fd), "{\"parameters\":{}}|" ECHOED("x"));
}

/* Far more calls than are carried out in one turn of the loop. */
static void test_many_pipelined(void **state)
{
	cleanup_close int fd = raw_connect();
	static char calls[500 * sizeof(ECHO("x"))];
	size_t answers = 0;

	for (size_t i = 0; i < 500; i++)
		memcpy(calls + i * sizeof(ECHO("x")), ECHO("x"), sizeof(ECHO("x")));
	raw_send(fd, calls, sizeof(calls));
	for (const char *p = raw_receive(fd); (p = strchr(p, '|')); p++)
		answers++;
	assert_int_equal(answers, 500);
}

static void test_oneway(void **state)
{
	cleanup_close int fd = raw_connect();

	raw_call(fd, "{\"method\":\"org.example.Test.Change\",\"oneway\":true}");
	raw_call(fd, "{\"method\":\"org.example.Test.Nope\",\"oneway\":true}");
	raw_call(fd, ECHO("only this"));
	assert_string_equal(raw_receive(fd), ECHOED("only this"));
	assert_int_equal(t.n_changes, 1);
}

static void test_more(void **state)
{
	cleanup_close int fd = raw_connect();
	struct json_object *o;

	raw_call(fd, CALL_MORE("Count"));
	assert_string_equal(raw_receive(fd), "{\"parameters\":{\"i\":0},\"continues\":true}|"
					     "{\"parameters\":{\"i\":1},\"continues\":true}|"
					     "{\"parameters\":{\"i\":2}}|");

	raw_call(fd, CALL_MORE("Hold"));
	assert_string_equal(raw_receive(fd), "");
	o = json_object_new_object();
	hf_json_add_string(o, "a", "b");
	hf_varlink_call_notify(t.held[0], o);
	assert_string_equal(raw_receive(fd), "{\"parameters\":{\"a\":\"b\"},\"continues\":true}|");
	hf_varlink_call_reply(t.held[0], NULL);
	hf_varlink_call_notify(t.held[0], json_object_new_object());
	assert_string_equal(raw_receive(fd), "{\"parameters\":{}}|");

	/* Without `more` there is nothing between call and reply. */
	raw_call(fd, CALL("Hold"));
	assert_string_equal(raw_receive(fd), "");
	hf_varlink_call_notify(t.held[1], json_object_new_object());
	assert_string_equal(raw_receive(fd), "");
}

static void test_error(void **state)
{
	cleanup_close int fd = raw_connect();
	struct hf_error unset = {0};

	raw_call(fd, CALL("Fail"));
	assert_string_equal(raw_receive(fd),
		"{\"error\":\"org.example.Test.Busy\",\"parameters\":{\"retry_after_s\":5,"
		"\"message\":\"guest is busy\",\"remedy\":\"Wait.\",\"guest\":\"web1\"}}|");
	/* A handler that neither answers nor keeps the call. */
	raw_call(fd, CALL("Forget"));
	assert_string_equal(raw_receive(fd),
		"{\"error\":\"org.example.Test.Failed\",\"parameters\":{\"message\":\"the call "
		"ended without an answer\"}}|");
	/* The same, later. */
	raw_call(fd, CALL("Hold"));
	assert_string_equal(raw_receive(fd), "");
	t.n_held = 0;
	hf_varlink_call_unref(t.held[0]);
	assert_non_null(strstr(raw_receive(fd), "org.example.Test.Failed"));
	raw_call(fd, CALL("Hold"));
	assert_string_equal(raw_receive(fd), "");
	hf_varlink_call_error(t.held[0], &unset, NULL);
	assert_string_equal(raw_receive(fd), "{\"error\":\"org.example.Test.Failed\","
					     "\"parameters\":{\"message\":\"unknown error\"}}|");
}

static void count_gone(struct hf_varlink_call *call, void *userdata)
{
	assert_ptr_equal(userdata, &t);
	assert_false(hf_varlink_call_is_open(call));
	t.n_gone++;
	/* Harmless. */
	hf_varlink_call_notify(call, json_object_new_object());
	hf_varlink_call_reply(call, NULL);
}

static void test_client_vanishes(void **state)
{
	int fd = raw_connect();

	raw_call(fd, CALL_MORE("Hold"));
	raw_call(fd, CALL("Change"));
	raw_call(fd, "{\"method\":\"org.example.Test.Change\",\"oneway\":true}");
	settle();
	hf_varlink_call_on_gone(t.held[0], count_gone, &t);
	hf_varlink_call_notify(t.held[0], json_object_new_object());
	assert_int_equal(t.n_gone, 0);
	close(fd);
	settle();
	assert_int_equal(t.n_gone, 1);
	/* What it had asked for beyond is not begun. */
	assert_int_equal(t.n_changes, 0);
	hf_varlink_call_notify(t.held[0], json_object_new_object());
	hf_varlink_call_reply(t.held[0], NULL);
	settle();
	assert_int_equal(t.n_gone, 1);
}

/* Found out by writing, before the loop could say so. */
static void test_client_vanishes_at_a_notify(void **state)
{
	int fd = raw_connect();

	raw_call(fd, CALL_MORE("Hold"));
	settle();
	hf_varlink_call_on_gone(t.held[0], count_gone, &t);
	close(fd);
	for (int i = 0; i < 5; i++)
		hf_varlink_call_notify(t.held[0], json_object_new_object());
	assert_false(hf_varlink_call_is_open(t.held[0]));
	assert_int_equal(t.n_gone, 0);
	settle();
	assert_int_equal(t.n_gone, 1);
}

/* A oneway call and good-bye: it is carried out. A normal one from a client that is gone is not. */
static void test_last_words(void **state)
{
	int fd = raw_connect();

	raw_call(fd, "{\"method\":\"org.example.Test.Change\",\"oneway\":true}");
	raw_call(fd, CALL("Change"));
	close(fd);
	settle();
	assert_int_equal(t.n_changes, 1);
}

/* A client may close its sending half and still hear the answers. */
static void test_half_closed(void **state)
{
	cleanup_close int fd = raw_connect();

	raw_call(fd, CALL("Hold"));
	raw_call(fd, ECHO("bye"));
	shutdown(fd, SHUT_WR);
	assert_string_equal(raw_receive(fd), "");
	hf_varlink_call_reply(t.held[0], NULL);
	assert_string_equal(raw_receive(fd), "{\"parameters\":{}}|" ECHOED("bye") "END");
}

static void test_permissions(void **state)
{
	cleanup_close int user = -1, root = -1;

	t.fake_uid = 12345;
	user = raw_connect();
	settle();
	t.fake_uid = 0;
	root = raw_connect();
	raw_call(user, CALL("Change"));
	assert_string_equal(raw_receive(user),
		"{\"error\":\"org.example.Test.NotPermitted\",\"parameters\":{\"message\":\"Change "
		"changes the host, which user 12345 may not do\",\"remedy\":\"Call it as "
		"root.\"}}|");
	assert_int_equal(t.n_changes, 0);
	raw_call(user, ECHO("reading is fine"));
	assert_string_equal(raw_receive(user), ECHOED("reading is fine"));
	raw_call(user, CALL("Hold"));
	raw_call(root, CALL("Change"));
	assert_string_equal(raw_receive(root), "{\"parameters\":{}}|");
	assert_int_equal(t.n_changes, 1);
	assert_int_equal(hf_varlink_call_peer_uid(t.held[0]), 12345);
}

static void test_real_credentials(void **state)
{
	struct hf_varlink_server_options options = default_options();
	cleanup_close int fd = -1;
	struct stat st;

	options.peer_uid = NULL;
	start(&options);
	assert_int_equal(stat(t.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	fd = raw_connect();
	raw_call(fd, CALL("Hold"));
	settle();
	assert_int_equal(hf_varlink_call_peer_uid(t.held[0]), getuid());
}

static size_t count_answering(const int *fds, size_t n)
{
	size_t ok = 0;

	for (size_t i = 0; i < n; i++) {
		if (send(fds[i], ECHO("x"), sizeof(ECHO("x")), MSG_NOSIGNAL) < 0)
			continue;
		ok += strcmp(raw_receive(fds[i]), ECHOED("x")) == 0;
	}
	return ok;
}

static void test_many_clients(void **state)
{
	int users[70], roots[20];

	t.fake_uid = 12345;
	for (size_t i = 0; i < HF_ARRAY_SIZE(users); i++) {
		users[i] = raw_connect();
		settle();
	}
	t.fake_uid = 0;
	for (size_t i = 0; i < HF_ARRAY_SIZE(roots); i++) {
		roots[i] = raw_connect();
		settle();
	}
	/* A quarter of the places is kept for root. */
	assert_int_equal(count_answering(users, HF_ARRAY_SIZE(users)), 48);
	assert_int_equal(count_answering(roots, HF_ARRAY_SIZE(roots)), 16);
	for (size_t i = 0; i < HF_ARRAY_SIZE(users); i++)
		close(users[i]);
	for (size_t i = 0; i < HF_ARRAY_SIZE(roots); i++)
		close(roots[i]);
	settle();
	users[0] = raw_connect();
	assert_int_equal(count_answering(users, 1), 1);
	close(users[0]);
}

/* Notifies @n times with 64 KiB each. */
static void notify_much(struct hf_varlink_call *call, int n)
{
	cleanup_free char *text = calloc(1, 65536);

	memset(text, 'x', 65535);
	while (n--) {
		struct json_object *o = json_object_new_object();

		hf_json_add_string(o, "text", text);
		hf_varlink_call_notify(call, o);
	}
}

static void test_slow_reader_is_dropped(void **state)
{
	cleanup_close int slow = raw_connect();
	cleanup_close int other = raw_connect();

	raw_call(slow, CALL_MORE("Hold"));
	settle();
	hf_varlink_call_on_gone(t.held[0], count_gone, &t);
	notify_much(t.held[0], 60);
	settle();
	assert_true(hf_varlink_call_is_open(t.held[0]));
	notify_much(t.held[0], 20);
	assert_false(hf_varlink_call_is_open(t.held[0]));
	settle();
	assert_int_equal(t.n_gone, 1);
	raw_call(other, ECHO("x"));
	assert_string_equal(raw_receive(other), ECHOED("x"));
}

/* Slow, but within the limit: nothing is lost. */
static void test_late_reader(void **state)
{
	cleanup_close int fd = raw_connect();
	cleanup_free char *data = malloc(65536);
	size_t got = 0, messages = 0;

	raw_call(fd, CALL_MORE("Hold"));
	settle();
	notify_much(t.held[0], 40);
	hf_varlink_call_reply(t.held[0], NULL);
	for (int idle = 0; idle < 3;) {
		ssize_t n = recv(fd, data, 65536, MSG_DONTWAIT);

		settle();
		idle = n > 0 ? 0 : idle + 1;
		for (ssize_t i = 0; i < n; i++)
			messages += data[i] == 0;
		got += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(messages, 41);
	assert_true(got > 40 * 65535);
}

/* A client that asks and asks and never reads: bounded, and the others are served. */
static void test_asker_that_never_reads(void **state)
{
	cleanup_close int fd = raw_connect();
	cleanup_close int other = raw_connect();
	static const char call[] = "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
				   "\"parameters\":{\"interface\":\"org.varlink.service\"}}";
	bool dropped = false;

	for (int i = 0; i < 200000 && !dropped; i++) {
		ssize_t n = send(fd, call, sizeof(call), MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN)
			settle();
		else if (n < 0)
			dropped = true;
		else if (n != sizeof(call))
			break; /* Cut by the socket buffer: good enough. */
	}
	settle();
	assert_true(dropped);
	raw_call(other, ECHO("x"));
	assert_string_equal(raw_receive(other), ECHOED("x"));
}

static void *drain(void *arg)
{
	char data[65536];
	size_t *ret = arg, got = 0;
	int fd = (int)*ret;
	ssize_t n;

	while ((n = recv(fd, data, sizeof(data), 0)) > 0)
		got += (size_t)n;
	*ret = got;
	return NULL;
}

static void test_flush(void **state)
{
	int fd = raw_connect();
	pthread_t thread;
	size_t got = (size_t)fd;

	raw_call(fd, CALL_MORE("Hold"));
	settle();
	assert_int_equal(hf_varlink_server_flush(t.server, HF_NSEC_PER_SEC), 0);
	notify_much(t.held[0], 40);
	/* Nobody reads: bounded. */
	assert_int_equal(hf_varlink_server_flush(t.server, 20 * HF_NSEC_PER_MSEC), -ETIMEDOUT);
	assert_int_equal(pthread_create(&thread, NULL, drain, &got), 0);
	assert_int_equal(hf_varlink_server_flush(t.server, 10 * HF_NSEC_PER_SEC), 0);
	t.server = hf_varlink_server_free(t.server);
	pthread_join(thread, NULL);
	close(fd);
	assert_true(got > 40 * 65535);
}

static void test_socketpair_and_listen_fd(void **state)
{
	struct hf_varlink_server_options options = default_options();
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_close int client = -1;
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(hf_varlink_server_add(t.server, pair[1]), 0);
	raw_call(pair[0], ECHO("pair"));
	assert_string_equal(raw_receive(pair[0]), ECHOED("pair"));

	t.server = hf_varlink_server_free(t.server);
	options.path = NULL;
	options.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(addr.sun_path, t.path);
	assert_int_equal(bind(options.listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(options.listen_fd, 5), 0);
	start(&options);
	/* The connection ended with the first server. */
	assert_string_equal(raw_receive(pair[0]), "END");
	close(pair[0]);
	client = raw_connect();
	raw_call(client, ECHO("listened"));
	assert_string_equal(raw_receive(client), ECHOED("listened"));
}

static void test_server_ends_with_calls_open(void **state)
{
	cleanup_close int fd = raw_connect();

	raw_call(fd, CALL("Hold"));
	settle();
	hf_varlink_call_on_gone(t.held[0], count_gone, &t);
	t.server = hf_varlink_server_free(t.server);
	assert_int_equal(t.n_gone, 1);
	hf_varlink_call_reply(t.held[0], NULL);
	assert_string_equal(raw_receive(fd), "END");
	assert_int_equal(access(t.path, F_OK), -1);
}

static void test_path_taken(void **state)
{
	struct hf_varlink_server_options options = default_options();
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct hf_varlink_server *second = NULL;
	cleanup_close int stale = -1, file = -1;
	char other[80];

	/* One that works stays. */
	assert_int_equal(hf_varlink_server_new(t.event, &options, &second), -EADDRINUSE);
	settle();

	/* One that a dead process left is replaced. */
	snprintf(other, sizeof(other), "%s/other", t.dir);
	options.path = other;
	strcpy(addr.sun_path, other);
	stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(stale, (struct sockaddr *)&addr, sizeof(addr)), 0);
	hf_close(&stale);
	assert_int_equal(hf_varlink_server_new(t.event, &options, &second), 0);
	second = hf_varlink_server_free(second);

	/* What is no socket is not ours to remove. */
	file = open(other, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(file >= 0);
	assert_int_equal(hf_varlink_server_new(t.event, &options, &second), -EADDRINUSE);
	assert_int_equal(unlink(other), 0);

	options.path = "/nonexistent/folder/socket";
	assert_int_equal(hf_varlink_server_new(t.event, &options, &second), -ENOENT);
}

/* ---- the blocking client, in a thread beside the loop ---- */

static int count_replies(struct json_object *params, void *userdata)
{
	int *n = userdata;

	if (hf_json_get_int(params, "i", -1) != *n)
		return -EINVAL;
	++*n;
	return *n == 100 ? -ECANCELED : 0;
}

#define EXPECT(x) \
	do { \
		if (!(x)) \
			return #x; \
	} while (0)

static const char *client_calls(struct hf_varlink_client *c)
{
	struct json_object *params = json_object_new_object();
	cleanup_json struct json_object *echo = NULL, *count = NULL, *fail = NULL, *none = NULL;
	struct hf_error e = {0};
	int n = 0;

	hf_json_add_string(params, "text", "caf\xc3\xa9 \"/\" \n");
	EXPECT(hf_varlink_client_call(c, "org.example.Test.Echo", params, NULL, NULL, &echo, &e) ==
		0);
	EXPECT(strcmp(hf_json_get_string(echo, "text", ""), "caf\xc3\xa9 \"/\" \n") == 0);
	EXPECT(hf_varlink_client_call(
		       c, "org.example.Test.Count", NULL, count_replies, &n, &count, &e) == 0);
	EXPECT(n == 2 && hf_json_get_int(count, "i", -1) == 2);
	EXPECT(hf_varlink_client_call(c, "org.example.Test.Fail", NULL, NULL, NULL, &fail, &e) ==
		-EREMOTEIO);
	EXPECT(strcmp(e.name, HF_ERR_BUSY) == 0 && strcmp(e.guest, "web1") == 0);
	EXPECT(strcmp(e.message, "guest is busy") == 0 && strcmp(e.remedy, "Wait.") == 0);
	EXPECT(hf_json_get_int(fail, "retry_after_s", 0) == 5);
	EXPECT(hf_varlink_client_call(c, "org.example.Test.Nope", NULL, NULL, NULL, &none, &e) ==
		-EREMOTEIO);
	EXPECT(strcmp(e.name, "MethodNotFound") == 0 && e.remedy[0] == 0 && e.guest[0] == 0);
	EXPECT(strcmp(e.message, "the agent answers org.varlink.service.MethodNotFound: "
				 "org.example.Test.Nope") == 0);
	return NULL;
}

struct client_thread {
	const char *(*run)(struct hf_varlink_client *c);
	const char *failed;
	int wake;
};

static void *client_main(void *arg)
{
	struct client_thread *ct = arg;
	cleanup_varlink_client struct hf_varlink_client *c = NULL;

	if (hf_varlink_client_connect(t.path, &c, NULL) < 0)
		ct->failed = "connect";
	else
		ct->failed = ct->run(c);
	close(ct->wake);
	return NULL;
}

static int on_client_done(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	return sd_event_exit(t.event, 0);
}

static void run_client(const char *(*run)(struct hf_varlink_client *c))
{
	struct client_thread ct = {.run = run};
	sd_event_source *source = NULL;
	pthread_t thread;
	int pipefd[2];

	assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
	ct.wake = pipefd[1];
	assert_true(
		sd_event_add_io(t.event, &source, pipefd[0], EPOLLIN, on_client_done, NULL) >= 0);
	assert_int_equal(pthread_create(&thread, NULL, client_main, &ct), 0);
	assert_int_equal(sd_event_loop(t.event), 0);
	pthread_join(thread, NULL);
	sd_event_source_disable_unref(source);
	close(pipefd[0]);
	if (ct.failed)
		fail_msg("client: %s", ct.failed);
}

static void test_client(void **state)
{
	run_client(client_calls);
}

static void test_client_without_server(void **state)
{
	struct hf_varlink_client *c = NULL;
	struct hf_error e = {0};
	char long_path[200];

	t.server = hf_varlink_server_free(t.server);
	assert_int_equal(hf_varlink_client_connect(t.path, &c, &e), -ENOENT);
	assert_string_equal(e.name, HF_ERR_NOT_READY);
	setenv(HF_VARLINK_SOCKET_ENV, t.path, 1);
	assert_int_equal(hf_varlink_client_connect(NULL, &c, &e), -ENOENT);
	assert_non_null(strstr(e.message, t.path));
	unsetenv(HF_VARLINK_SOCKET_ENV);
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = 0;
	assert_int_equal(hf_varlink_client_connect(long_path, &c, &e), -ENAMETOOLONG);
}

/* A server that answers with bytes of a test's choice and hangs up. */
static void *bad_server(void *arg)
{
	const char *const *say = arg;
	cleanup_close int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char data[1024];

	strcpy(addr.sun_path, t.path);
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(listener, 8) < 0)
		abort();
	for (; *say; say++) {
		cleanup_close int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

		if (recv(fd, data, sizeof(data), 0) > 0 && (*say)[0])
			send(fd, *say, strlen(*say) + 1, MSG_NOSIGNAL);
	}
	return NULL;
}

static void test_client_of_a_bad_server(void **state)
{
	static const char *const say[] = {"", "nonsense", "{\"parameters\":{},\"continues\":true}",
		"{\"parameters\":{\"i\":0},\"continues\":true}", "{\"parameters\":7}", NULL};
	static const int expected[] = {-ECONNRESET, -EBADMSG, -EINVAL, -ECONNRESET, 0};
	pthread_t thread;

	t.server = hf_varlink_server_free(t.server);
	assert_int_equal(pthread_create(&thread, NULL, bad_server, (void *)say), 0);
	for (size_t i = 0; i < HF_ARRAY_SIZE(expected); i++) {
		cleanup_varlink_client struct hf_varlink_client *c = NULL;
		cleanup_json struct json_object *reply = NULL;
		struct hf_error e = {0};
		int n = 0, tries = 0;

		while (hf_varlink_client_connect(t.path, &c, NULL) < 0 && ++tries < 1000)
			usleep(1000);
		assert_non_null(c);
		assert_int_equal(
			hf_varlink_client_call(c, "x.Y", NULL, count_replies, &n, &reply, &e),
			expected[i]);
		assert_true((reply != NULL) == (expected[i] == 0));
	}
	pthread_join(thread, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_echo),
		TEST(test_standard_errors),
		TEST(test_service),
		TEST(test_garbage_ends_the_connection),
		TEST(test_oversize),
		TEST(test_pipelined),
		TEST(test_many_pipelined),
		TEST(test_oneway),
		TEST(test_more),
		TEST(test_error),
		TEST(test_client_vanishes),
		TEST(test_client_vanishes_at_a_notify),
		TEST(test_last_words),
		TEST(test_half_closed),
		TEST(test_permissions),
		TEST(test_real_credentials),
		TEST(test_many_clients),
		TEST(test_slow_reader_is_dropped),
		TEST(test_late_reader),
		TEST(test_asker_that_never_reads),
		TEST(test_flush),
		TEST(test_socketpair_and_listen_fd),
		TEST(test_server_ends_with_calls_open),
		TEST(test_path_taken),
		TEST(test_client),
		TEST(test_client_without_server),
		TEST(test_client_of_a_bad_server),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
