/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: Talking to an agent inside a guest that answers, lies, floods or is silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <json-c/json.h>

#include "qmp/guest-agent.h"
#include "tests/unit/fake-guest-agent.h"
#include "vmm-glue/agent-channel.h"

#define MS HF_NSEC_PER_MSEC

struct heard {
	unsigned int n;
	int err;
	int64_t number;
	char message[512];
};

static void hear(struct hf_guest_agent *a, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct heard *h = data;

	h->n++;
	h->err = err;
	h->number = ret ? json_object_get_int64(ret) : -1;
	assert_int_equal(err, error ? error->err : 0);
	snprintf(h->message, sizeof(h->message), "%s", error ? error->message : "");
}

static void wait_for(sd_event *event, const struct heard *h, unsigned int n)
{
	while (h->n < n)
		assert_true(sd_event_run(event, 10000000) > 0);
	/* No more than that. */
	while (sd_event_run(event, 20000) > 0)
		;
	assert_int_equal(h->n, n);
}

static void test_conversation(void **state)
{
	static const enum fake_ga_mode modes[] = {FAKE_GA_GOOD, FAKE_GA_STALE};

	for (size_t i = 0; i < HF_ARRAY_SIZE(modes); i++) {
		struct hf_guest_agent *a = NULL;
		struct heard h = {0};
		struct fake_ga f;
		sd_event *event;

		assert_true(sd_event_new(&event) >= 0);
		fake_ga_start(&f, modes[i]);
		f.offset_ns = -5000000000;
		assert_int_equal(
			hf_guest_agent_open(event, f.path, getpid(), 5000 * MS, hear, &h, &a, NULL),
			0);
		assert_int_equal(hf_guest_agent_command(a, "{}", hear, &h), -EBUSY);
		wait_for(event, &h, 1);
		assert_int_equal(h.err, 0);
		assert_int_equal(
			hf_guest_agent_command(a, "{\"execute\": \"guest-get-time\"}", hear, &h),
			0);
		wait_for(event, &h, 2);
		assert_int_equal(h.err, 0);
		assert_true(llabs(fake_ga_now() - 5000000000 - h.number) < 2000000000);
		hf_guest_agent_free(a);
		fake_ga_stop(&f);
		sd_event_unref(event);
	}
}

static void test_bad_agents(void **state)
{
	static const struct {
		enum fake_ga_mode mode;
		int err;
		const char *says;
	} cases[] = {
		{FAKE_GA_SILENT, -ETIMEDOUT, "in time"},
		{FAKE_GA_UNREAD, -ETIMEDOUT, "in time"},
		{FAKE_GA_HUGE, -EMSGSIZE, "too long"},
		{FAKE_GA_FLOOD, -EMSGSIZE, "more than it was asked for"},
		{FAKE_GA_HANG_UP, -ECONNRESET, "closed"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct hf_guest_agent *a = NULL;
		struct heard h = {0};
		struct fake_ga f;
		sd_event *event;

		assert_true(sd_event_new(&event) >= 0);
		fake_ga_start(&f, cases[i].mode);
		assert_int_equal(
			hf_guest_agent_open(event, f.path, getpid(), 300 * MS, hear, &h, &a, NULL),
			0);
		wait_for(event, &h, 1);
		assert_int_equal(h.err, cases[i].err);
		assert_non_null(strstr(h.message, cases[i].says));
		hf_guest_agent_free(a);
		fake_ga_stop(&f);
		sd_event_unref(event);
	}
}

static void test_refusal_and_nonsense(void **state)
{
	static const struct {
		enum fake_ga_mode mode;
		int err;
		const char *says;
	} cases[] = {
		{FAKE_GA_REFUSES, -EREMOTEIO, "refuses: no?[2J"},
		{FAKE_GA_NONSENSE, -EBADMSG, "no answer"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct hf_guest_agent *a = NULL;
		struct heard h = {0};
		struct fake_ga f;
		sd_event *event;

		assert_true(sd_event_new(&event) >= 0);
		fake_ga_start(&f, cases[i].mode);
		hf_guest_agent_open(event, f.path, 0, 5000 * MS, hear, &h, &a, NULL);
		wait_for(event, &h, 1);
		assert_int_equal(h.err, 0);
		hf_guest_agent_command(a,
			"{\"execute\": \"guest-set-time\", \"arguments\": {\"time\": 1}}", hear,
			&h);
		wait_for(event, &h, 2);
		assert_int_equal(h.err, cases[i].err);
		assert_non_null(strstr(h.message, cases[i].says));
		hf_guest_agent_free(a);
		fake_ga_stop(&f);
		sd_event_unref(event);
	}
}

/* A socket that isn't there, one of another process, and one that others wait for. */
static void test_no_way_in(void **state)
{
	struct hf_guest_agent *a = NULL, *first = NULL, *second = NULL;
	struct heard h = {0};
	struct hf_error e = {0};
	struct fake_ga f;
	sd_event *event;

	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(
		hf_guest_agent_open(event, "/nonexistent/s", 1, MS, hear, &h, &a, &e), -ENOENT);
	fake_ga_start(&f, FAKE_GA_UNREAD);
	assert_int_equal(
		hf_guest_agent_open(event, f.path, getppid(), MS, hear, &h, &a, &e), -EPERM);
	assert_non_null(strstr(e.message, "not its QEMU"));
	/* The refused one is still in the queue, of a length of one: there is room for one more. */
	hf_guest_agent_open(event, f.path, 0, 1000 * MS, hear, &h, &first, &e);
	assert_int_equal(
		hf_guest_agent_open(event, f.path, 0, 1000 * MS, hear, &h, &second, &e), -EBUSY);
	assert_null(a);
	assert_int_equal(h.n, 0);
	hf_guest_agent_free(first);
	hf_guest_agent_free(second);
	fake_ga_stop(&f);
	sd_event_unref(event);
}

/* Cut anywhere, the same lines come out. */
static void test_input(void **state)
{
	static const char text[] = "lost\nlost\xffhalf\xff{\"a\": 1}\nsecond\r\n\xff\n";
	static struct hf_guest_agent_input in;
	const size_t size = sizeof(text) - 1;

	for (size_t cut = 0; cut <= size; cut++) {
		char got[128] = "";
		size_t used;

		memset(&in, 0, sizeof(in));
		for (size_t at = 0; at < size; at += used) {
			size_t n = at < cut ? cut - at : size - at;
			int r = hf_guest_agent_input_add(&in, (const uint8_t *)text + at, n, &used);

			assert_true(r >= 0 && used > 0);
			if (r > 0)
				strncat(got, in.line, in.n);
		}
		assert_string_equal(got, "{\"a\": 1}\nsecond\r\n\n");
	}
}

static void test_parse(void **state)
{
	static const char *const bad[] = {"", "\n", "{", "[]", "1", "{\"return\"}",
		"{\"error\": 1}", "{\"event\": {}}", "{\"return\": [[[[[[[[[[1]]]]]]]]]]}",
		"\xfe\xfe"};
	struct json_object *ret = NULL;
	struct hf_error e = {0};

	for (size_t i = 0; i < HF_ARRAY_SIZE(bad); i++) {
		assert_int_equal(hf_guest_agent_parse(bad[i], strlen(bad[i]), &ret, &e), -EBADMSG);
		assert_null(ret);
	}
	assert_int_equal(hf_guest_agent_parse("{\"return\": 7}\r\n", 15, &ret, &e), 0);
	assert_int_equal(json_object_get_int(ret), 7);
	json_object_put(ret);
	assert_int_equal(hf_guest_agent_parse("{\"error\": {}}", 13, &ret, &e), -EREMOTEIO);
	assert_non_null(strstr(e.message, "no reason"));
}

#define PORT "-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0"

static int find(
	const char *chardev, const char *cwd, struct hf_agent_channel *c, struct hf_error *e)
{
	const char *argv[] = {
		"qemu", PORT, "-chardev", "socket,id=other,path=/o,server=on", "-chardev", chardev};

	const struct hf_manifest_guest guest = {.argv = (char **)(uintptr_t)argv,
		.n_argv = HF_ARRAY_SIZE(argv),
		.cwd = (char *)(uintptr_t)cwd};

	return hf_agent_channel_find(&guest, c, e);
}

static void test_channel(void **state)
{
	char *const given[] = {(char *)"qemu", (char *)"-chardev",
		(char *)"socket,id=ga,fd=31,server=on", (char *)"-device",
		(char *)"virtserialport,chardev=ga,name=org.qemu.guest_agent.0"};
	struct hf_manifest_fd fds[] = {{.fd = 30, .kind = HF_FD_LISTEN, .path = (char *)"/run/qmp"},
		{.fd = 31, .kind = HF_FD_LISTEN, .path = (char *)"/run/ga.sock"}};
	struct hf_manifest_guest with_fd = {
		.argv = (char **)(uintptr_t)given, .fds = fds, .n_fds = HF_ARRAY_SIZE(fds)};
	const struct hf_manifest_guest bare = {.argv = (char *[]){(char *)"qemu"}, .n_argv = 1};
	static const struct {
		const char *chardev, *cwd, *path; /* path NULL: refused */
	} cases[] = {
		{"socket,id=ga,path=/run/g.sock,server=on,wait=off", NULL, "/run/g.sock"},
		{"socket,path=/run/g.sock,server,nowait,id=ga", NULL, "/run/g.sock"},
		{"socket,id=ga,path=g.sock,server=on,wait=off", "/srv", "/srv/g.sock"},
		{"{\"backend\": \"socket\", \"id\": \"ga\", \"path\": \"/j\", \"server\": true}",
			NULL, "/j"},
		{"socket,id=ga,path=g.sock,server=on", NULL, NULL},
		{"socket,id=ga,path=/run/g.sock", NULL, NULL},
		{"socket,id=ga,path=/run/g.sock,server=off", NULL, NULL},
		{"socket,id=ga,path=g,abstract=on,server=on", "/srv", NULL},
		{"socket,id=ga,path=/g,telnet=on,server=on", NULL, NULL},
		{"socket,id=ga,host=127.0.0.1,port=1,server=on", NULL, NULL},
		{"socket,id=ga,fd=5,server=on", NULL, NULL},
		{"pty,id=ga", NULL, NULL},
		{"socket,id=gb,path=/g,server=on", NULL, NULL},
	};
	struct hf_agent_channel c;
	char path[200];

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		struct hf_error e = {0};
		int r = find(cases[i].chardev, cases[i].cwd, &c, &e);

		if (!cases[i].path) {
			assert_int_equal(r, -EOPNOTSUPP);
			assert_true(e.message[0] != 0);
			continue;
		}
		assert_int_equal(r, 0);
		assert_string_equal(c.path, cases[i].path);
		assert_string_equal(c.label, "ga");
	}
	snprintf(path, sizeof(path), "socket,id=ga,server=on,path=/%0107d", 1);
	assert_int_equal(find(path, NULL, &c, NULL), -EOPNOTSUPP);
	snprintf(path, sizeof(path), "socket,id=ga,server=on,path=/%0106d", 1);
	assert_int_equal(find(path, NULL, &c, NULL), 0);
	assert_int_equal(hf_agent_channel_find(&bare, &c, NULL), -ENODEV);
	assert_int_equal(find("socket,id=ga,server=on,fd=31", NULL, &c, NULL), -EOPNOTSUPP);
	with_fd.n_argv = HF_ARRAY_SIZE(given);
	assert_int_equal(hf_agent_channel_find(&with_fd, &c, NULL), 0);
	assert_string_equal(c.path, "/run/ga.sock");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conversation),
		cmocka_unit_test(test_bad_agents),
		cmocka_unit_test(test_refusal_and_nonsense),
		cmocka_unit_test(test_no_way_in),
		cmocka_unit_test(test_input),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
