/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Who else than root may change the host: calls over a control socket, with a polkit that says
 * what the test wants, on a bus of the test's own.
 *
 * Every client counts as user 65534 here. The bus is a dbus-daemon, polkit a child process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <systemd/sd-bus.h>

#include "agent/authorise.h"
#include "common/fd.h"

#define NOBODY 65534
#define TIMEOUT_NS (400 * HF_NSEC_PER_MSEC)

enum answer { YES, NO, CHALLENGE, NOTHING, NONSENSE, DIE, YES_WHEN_TOLD };

/* Shared with the child that is polkit. */
static struct {
	volatile enum answer answer;
	volatile bool told;
	volatile int asked;
	volatile uint32_t pid, flags;
	volatile uint64_t start_ticks;
	volatile int32_t uid;
	char action[64];
} * shared;

static char dir[] = "/tmp/test-authorise.XXXXXX";
static char socket_path[64], bus_address[80], no_bus[80], hung_bus[80];
static pid_t bus_pid, polkit_pid;
static sd_event *event;
static struct hf_authority *authority;
static struct hf_varlink_server *server;
static int carried_out;

/* ---- polkit ---- */

static int on_question(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
	const char *kind = NULL, *key = NULL, *action = NULL;
	sd_bus_message *reply = NULL;
	uint64_t start = 0;
	uint32_t number;
	int32_t uid;

	if (sd_bus_message_enter_container(m, 'r', "sa{sv}") < 0 ||
		sd_bus_message_read(m, "s", &kind) < 0 || strcmp(kind, "unix-process") != 0 ||
		sd_bus_message_enter_container(m, 'a', "{sv}") < 0)
		_exit(3);
	while (sd_bus_message_enter_container(m, 'e', "sv") > 0) {
		if (sd_bus_message_read(m, "s", &key) < 0)
			_exit(3);
		if (strcmp(key, "pid") == 0 && sd_bus_message_read(m, "v", "u", &number) > 0)
			shared->pid = number;
		else if (strcmp(key, "start-time") == 0 &&
			 sd_bus_message_read(m, "v", "t", &start) > 0)
			shared->start_ticks = start;
		else if (strcmp(key, "uid") == 0 && sd_bus_message_read(m, "v", "i", &uid) > 0)
			shared->uid = uid;
		else
			_exit(3);
		sd_bus_message_exit_container(m);
	}
	sd_bus_message_exit_container(m);
	sd_bus_message_exit_container(m);
	if (sd_bus_message_read(m, "s", &action) < 0 || sd_bus_message_skip(m, "a{ss}") < 0 ||
		sd_bus_message_read(m, "u", &number) < 0)
		_exit(3);
	snprintf(shared->action, sizeof(shared->action), "%s", action);
	shared->flags = number;
	shared->asked++;
	if (shared->answer == DIE)
		_exit(0);
	if (shared->answer == NOTHING)
		return 1;
	if (shared->answer == NONSENSE)
		return sd_bus_reply_method_return(m, "s", "yes");
	while (shared->answer == YES_WHEN_TOLD && !shared->told)
		usleep(1000);
	if (sd_bus_message_new_method_return(m, &reply) < 0 ||
		sd_bus_message_append(reply, "(bba{ss})",
			shared->answer == YES || shared->answer == YES_WHEN_TOLD,
			shared->answer == CHALLENGE, 0) < 0)
		_exit(3);
	sd_bus_send(NULL, reply, NULL);
	sd_bus_message_unref(reply);
	return 1;
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD("CheckAuthorization", "(sa{sv})sa{ss}us", "(bba{ss})", on_question,
		SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

static _Noreturn void be_polkit(int ready)
{
	sd_bus *bus = NULL;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sd_bus_open_system(&bus) < 0 ||
		sd_bus_add_object_vtable(bus, NULL, "/org/freedesktop/PolicyKit1/Authority",
			"org.freedesktop.PolicyKit1.Authority", vtable, NULL) < 0 ||
		sd_bus_request_name(bus, "org.freedesktop.PolicyKit1", 0) < 0 ||
		write(ready, "", 1) != 1)
		_exit(2);
	for (;;) {
		int r = sd_bus_process(bus, NULL);

		if (r < 0 || (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0))
			_exit(1);
	}
}

static void start_polkit(enum answer answer)
{
	int ready[2];
	char byte;

	shared->answer = answer;
	shared->told = false;
	shared->asked = 0;
	shared->action[0] = 0;
	assert_int_equal(pipe(ready), 0);
	polkit_pid = fork();
	assert_true(polkit_pid >= 0);
	if (polkit_pid == 0) {
		close(ready[0]);
		be_polkit(ready[1]);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
}

static void end_polkit(void)
{
	kill(polkit_pid, SIGKILL);
	waitpid(polkit_pid, NULL, 0);
}

/* ---- the server ---- */

static int everybody_is_nobody(int fd, void *userdata, uid_t *ret_uid)
{
	*ret_uid = NOBODY;
	return 0;
}

static int authorise(struct hf_varlink_call *call, const char *method, void *userdata)
{
	return hf_authority_ask(authority, call, method);
}

static void handle(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	carried_out++;
	assert_string_equal(hf_json_get_string(params, "guest", "none"), "web1");
	hf_varlink_call_reply(call, NULL);
}

static void start_server(uint64_t timeout_ns)
{
	static const struct hf_varlink_method methods[] = {
		{"Commit", handle, HF_VARLINK_MUTATING},
		{"Dump", handle, HF_VARLINK_MUTATING},
		{"InspectKho", handle, HF_VARLINK_MUTATING},
		{NULL, NULL, 0},
	};
	static const struct hf_varlink_interface interfaces[] = {
		{"org.holdfast.Host", "interface org.holdfast.Host\n", methods},
		{NULL, NULL, NULL},
	};
	struct hf_varlink_server_options options = {.path = socket_path,
		.listen_fd = -EBADF,
		.interfaces = interfaces,
		.peer_uid = everybody_is_nobody,
		.authorise = authorise};

	carried_out = 0;
	assert_int_equal(sd_event_new(&event), 0);
	assert_int_equal(hf_authority_new(event, timeout_ns, &authority), 0);
	assert_int_equal(hf_varlink_server_new(event, &options, &server), 0);
}

static void stop_server(void)
{
	server = hf_varlink_server_free(server);
	authority = hf_authority_free(authority);
	event = sd_event_unref(event);
}

/* ---- clients ---- */

static void connect_and_call(int fd, const char *method)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char text[200];

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", socket_path);
	snprintf(text, sizeof(text),
		"{\"method\":\"org.holdfast.Host.%s\",\"parameters\":{\"guest\":\"web1\"}}",
		method);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		hf_fd_write_full(fd, text, strlen(text) + 1) < 0)
		abort();
}

static int new_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	return fd;
}

/* Runs the loop until there is an answer. Takes @fd. Static text. */
static const char *answer_of(int fd)
{
	static char answer[4096];
	size_t used = 0;

	for (int turns = 0; used == 0 || answer[used - 1] != 0; turns++) {
		ssize_t n = recv(fd, answer + used, sizeof(answer) - used, MSG_DONTWAIT);

		assert_true(turns < 1000 && n != 0);
		used += n > 0 ? (size_t)n : 0;
		assert_true(sd_event_run(event, 10000) >= 0);
	}
	close(fd);
	return answer;
}

static const char *call(const char *method)
{
	int fd = new_socket();

	connect_and_call(fd, method);
	return answer_of(fd);
}

static void expect_refused(const char *answer, const char *why)
{
	assert_int_equal(carried_out, 0);
	if (!strstr(answer, "org.holdfast.Host.NotPermitted") || !strstr(answer, why))
		fail_msg("%s: no %s", answer, why);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- the tests ---- */

static void test_allowed(void **state)
{
	uint64_t ticks = 0;

	start_polkit(YES);
	start_server(10 * HF_NSEC_PER_SEC);
	assert_non_null(strstr(call("Commit"), "{\"parameters\":{}}"));
	assert_int_equal(carried_out, 1);
	assert_string_equal(shared->action, "org.holdfast.update");
	assert_int_equal(hf_pid_start_time(getpid(), &ticks), 0);
	assert_int_equal(shared->pid, getpid());
	assert_int_equal(shared->start_ticks, ticks);
	assert_int_equal(shared->uid, NOBODY);
	assert_int_equal(shared->flags, 0);
	assert_non_null(strstr(call("Dump"), "{\"parameters\":{}}"));
	assert_int_equal(carried_out, 2);
	assert_string_equal(shared->action, "org.holdfast.held");
	stop_server();
	end_polkit();
}

static void test_denied(void **state)
{
	start_polkit(NO);
	start_server(10 * HF_NSEC_PER_SEC);
	expect_refused(call("Commit"), "polkit doesn't let user 65534 do that");
	shared->answer = CHALLENGE;
	expect_refused(call("Commit"), "without a password");
	shared->answer = NONSENSE;
	expect_refused(call("Commit"), "not known");
	assert_int_equal(shared->asked, 3);
	stop_server();
	end_polkit();
}

/* What shows guests' command lines is root's: polkit isn't even asked. */
static void test_no_action(void **state)
{
	start_polkit(YES);
	start_server(10 * HF_NSEC_PER_SEC);
	expect_refused(call("InspectKho"), "which user 65534 may not do");
	assert_int_equal(shared->asked, 0);
	stop_server();
	end_polkit();
}

static void test_timeout(void **state)
{
	uint64_t begin = now_ms();

	start_polkit(NOTHING);
	start_server(TIMEOUT_NS);
	expect_refused(call("Commit"), "polkit doesn't answer");
	assert_in_range(now_ms() - begin, 300, 5000);
	stop_server();
	end_polkit();
}

static void test_no_polkit(void **state)
{
	start_server(10 * HF_NSEC_PER_SEC);
	expect_refused(call("Commit"), "polkit can't be asked");
	stop_server();
}

static void test_no_bus(void **state)
{
	uint64_t begin = now_ms();

	setenv("DBUS_SYSTEM_BUS_ADDRESS", no_bus, 1);
	start_server(10 * HF_NSEC_PER_SEC);
	expect_refused(call("Commit"), "65534");
	assert_in_range(now_ms() - begin, 0, 2000);
	stop_server();
	setenv("DBUS_SYSTEM_BUS_ADDRESS", bus_address, 1);
}

/* Somebody listens there, and never says a word. */
static void test_hung_bus(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int listener = new_socket();

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", strchr(hung_bus, '/'));
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 4), 0);
	setenv("DBUS_SYSTEM_BUS_ADDRESS", hung_bus, 1);
	start_server(TIMEOUT_NS);
	expect_refused(call("Commit"), "polkit doesn't answer");
	stop_server();
	close(listener);
	setenv("DBUS_SYSTEM_BUS_ADDRESS", bus_address, 1);
}

static void test_polkit_dies(void **state)
{
	uint64_t begin = now_ms();

	start_polkit(DIE);
	start_server(10 * HF_NSEC_PER_SEC);
	expect_refused(call("Commit"), "polkit can't be asked");
	assert_int_equal(shared->asked, 1);
	assert_in_range(now_ms() - begin, 0, 5000);
	stop_server();
	end_polkit();
}

/* The client leaves while polkit is asked: nothing is carried out for it. */
static void test_client_leaves(void **state)
{
	int fd;

	start_polkit(YES_WHEN_TOLD);
	start_server(10 * HF_NSEC_PER_SEC);
	fd = new_socket(); /* not before: polkit would have it, too */
	connect_and_call(fd, "Commit");
	for (int i = 0; i < 500 && shared->asked == 0; i++)
		sd_event_run(event, 10000);
	assert_int_equal(shared->asked, 1);
	close(fd);
	for (int i = 0; i < 10; i++)
		sd_event_run(event, 1000);
	shared->told = true;
	for (int i = 0; i < 10; i++)
		sd_event_run(event, 10000);
	assert_int_equal(carried_out, 0);
	stop_server();
	end_polkit();
}

/* A process with a given number, which takes rights that a test may not have. */
static pid_t start_as(pid_t pid)
{
	struct clone_args args = {
		.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&pid, .set_tid_size = 1};
	long r = syscall(SYS_clone3, &args, sizeof(args));

	if (r == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return (pid_t)r;
}

/*
 * The process that connected ends, but its socket lives on with us, and its number goes to another
 * process. @asked: that happens while polkit thinks, else before it is asked.
 */
static void peer_ends(bool asked)
{
	pid_t pid, other;
	int fd;

	start_polkit(asked ? YES_WHEN_TOLD : YES);
	start_server(10 * HF_NSEC_PER_SEC);
	fd = new_socket();
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		connect_and_call(fd, "Commit");
		for (;;)
			pause();
	}
	if (asked) {
		for (int i = 0; i < 500 && shared->asked == 0; i++)
			sd_event_run(event, 10000);
		assert_int_equal(shared->asked, 1);
		assert_int_equal(shared->pid, pid);
	} else {
		/* Connected and let in, but what it wants isn't read. */
		usleep(100000);
		sd_event_run(event, 1000000);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	other = start_as(pid);
	if (other < 0)
		print_message(
			"[    note ] the number isn't given away again: %s\n", strerror(errno));
	else
		assert_int_equal(other, pid);
	shared->told = true;
	expect_refused(answer_of(fd), asked ? "has ended" : "65534");
	assert_int_equal(shared->asked, asked);
	if (other > 0) {
		kill(other, SIGKILL);
		waitpid(other, NULL, 0);
	}
	stop_server();
	end_polkit();
}

static void test_peer_ends_while_asked(void **state)
{
	peer_ends(true);
}

static void test_peer_ends_before(void **state)
{
	peer_ends(false);
}

/* One user's questions are few, so that others can ask theirs. */
static void test_flood(void **state)
{
	int fds[HF_AUTHORITY_MAX_PER_USER];

	start_polkit(NOTHING);
	start_server(TIMEOUT_NS);
	for (int i = 0; i < HF_AUTHORITY_MAX_PER_USER; i++) {
		fds[i] = new_socket();
		connect_and_call(fds[i], "Commit");
	}
	for (int i = 0; i < 500 && shared->asked < HF_AUTHORITY_MAX_PER_USER; i++)
		sd_event_run(event, 10000);
	assert_int_equal(shared->asked, HF_AUTHORITY_MAX_PER_USER);
	expect_refused(call("Commit"), "which user 65534 may not do");
	assert_int_equal(shared->asked, HF_AUTHORITY_MAX_PER_USER);
	/* Ends with the last of them unanswered: nothing may be left behind. */
	expect_refused(answer_of(fds[0]), "polkit doesn't answer");
	for (int i = 1; i < HF_AUTHORITY_MAX_PER_USER; i++)
		close(fds[i]);
	stop_server();
	end_polkit();
}

/* Actions that polkit doesn't know are refused to everybody. */
static void test_policy_file(void **state)
{
	static const char *const methods[] = {"Prepare", "Commit", "Upgrade", "Abort", "Adopt",
		"VmmUpgrade", "Retry", "Release", "Dump"};
	cleanup_free char *text = NULL;
	char word[80];

	assert_int_equal(
		hf_file_read("deploy/polkit/org.holdfast.policy", 1 << 16, &text, NULL), 0);
	for (size_t i = 0; i < HF_ARRAY_SIZE(methods); i++) {
		assert_non_null(hf_authority_action(methods[i]));
		snprintf(word, sizeof(word), "<action id=\"%s\">", hf_authority_action(methods[i]));
		assert_non_null(strstr(text, word));
	}
	assert_null(strstr(text, ">yes<"));
	assert_null(hf_authority_action("InspectManifest"));
	assert_null(hf_authority_action("Status"));
}

/* ---- the bus ---- */

static int start_bus(void)
{
	char config[80];
	FILE *f;

	snprintf(config, sizeof(config), "%s/bus.conf", dir);
	f = fopen(config, "we");
	if (!f)
		return -1;
	fprintf(f,
		"<busconfig><type>custom</type><listen>%s</listen><auth>EXTERNAL</auth>"
		"<policy context=\"default\"><allow send_destination=\"*\"/><allow "
		"receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>\n",
		bus_address);
	fclose(f);
	bus_pid = fork();
	if (bus_pid == 0) {
		char arg[100];

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		snprintf(arg, sizeof(arg), "--config-file=%s", config);
		execlp("dbus-daemon", "dbus-daemon", arg, "--nofork", "--nopidfile", NULL);
		_exit(77);
	}
	return bus_pid < 0 ? -1 : 0;
}

static int set_up(void **state)
{
	sd_bus *bus = NULL;
	int status = 0;

	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || !mkdtemp(dir))
		return -1;
	snprintf(socket_path, sizeof(socket_path), "%s/control.sock", dir);
	snprintf(bus_address, sizeof(bus_address), "unix:path=%s/bus", dir);
	snprintf(no_bus, sizeof(no_bus), "unix:path=%s/none", dir);
	snprintf(hung_bus, sizeof(hung_bus), "unix:path=%s/hung", dir);
	setenv("DBUS_SYSTEM_BUS_ADDRESS", bus_address, 1);
	if (start_bus() < 0)
		return -1;
	for (int i = 0; i < 500; i++) {
		if (sd_bus_open_system(&bus) >= 0) {
			sd_bus_flush_close_unref(bus);
			return 0;
		}
		if (waitpid(bus_pid, &status, WNOHANG) == bus_pid)
			break;
		usleep(10000);
	}
	fprintf(stderr, "no dbus-daemon can be started: install dbus-daemon\n");
	return -1;
}

static int tear_down(void **state)
{
	char command[128];

	kill(bus_pid, SIGKILL);
	waitpid(bus_pid, NULL, 0);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_denied),
		cmocka_unit_test(test_no_action),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_no_polkit),
		cmocka_unit_test(test_no_bus),
		cmocka_unit_test(test_hung_bus),
		cmocka_unit_test(test_polkit_dies),
		cmocka_unit_test(test_client_leaves),
		cmocka_unit_test(test_peer_ends_while_asked),
		cmocka_unit_test(test_peer_ends_before),
		cmocka_unit_test(test_flood),
		cmocka_unit_test(test_policy_file),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
