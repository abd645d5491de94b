/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A guest's QEMU that fails in every way, at every step.
 *
 * The QEMU is this very program, started again as a QMP server of its own mind: $FAKE tells which
 * command it is to answer how, once: `stop=error`, `migrate=silent` …, and what its streams are
 * like. It keeps what a QEMU would keep (run state, capabilities, bandwidth) and writes it into the
 * file `state` of its folder, so that a rollback can be judged by its effect.
 */
#include "tests/vmm/guest.c"

#include <assert.h>
#include <json-c/json.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "qmp/framer.h"
#include "vmm-glue/limits.h"

#define STREAM_BYTES 300000
/* Long enough for a fake on a busy machine to get there, short enough to be waited for often. */
#define SHORT_MS 300

/* ---- the fake QEMU ---- */

struct fake {
	int sock;
	int passed_fd;
	const char *mode;
	char used[16][64]; /* commands that have failed already */
	size_t n_used;
	char status[32];
	bool running, ignore_shared, events;
	unsigned int n_announced;
	uint64_t bandwidth;
	char migration[32];
	char error[64];
	int stream_fd; /* held open by stream=never-eof */
	bool stream_due;
};

static void fake_send(struct fake *f, const char *fmt, ...) HF_PRINTF(2, 3);
static void fake_send(struct fake *f, const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (hf_fd_write_full(f->sock, text, strlen(text)) < 0)
		_exit(0);
}

static void fake_event(struct fake *f, const char *name, const char *data)
{
	fake_send(f,
		"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"%s\", "
		"\"data\": "
		"%s}\r\n",
		name, data);
}

static void fake_migration(struct fake *f, const char *status)
{
	char data[64];

	snprintf(f->migration, sizeof(f->migration), "%s", status);
	snprintf(data, sizeof(data), "{\"status\": \"%s\"}", status);
	if (f->events)
		fake_event(f, "MIGRATION", data);
}

static void fake_write_state(const struct fake *f)
{
	char text[256];

	snprintf(text, sizeof(text),
		"%s running=%d ignore-shared=%d events=%d bandwidth=%lu announced=%u", f->status,
		f->running, f->ignore_shared, f->events, f->bandwidth, f->n_announced);
	hf_file_write_atomic("state", text, strlen(text), 0600);
}

/* What $FAKE says about a word: "stop=error,…". */
static bool fake_wants(const struct fake *f, const char *key, char *value, size_t size)
{
	size_t len = strlen(key);

	for (const char *p = f->mode; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (strncmp(p, key, len) == 0 && p[len] == '=') {
			snprintf(value, size, "%.*s", (int)strcspn(p + len + 1, ","), p + len + 1);
			return true;
		}
	}
	return false;
}

/* Return: whether the command was dealt with. */
static bool fake_fails(struct fake *f, const char *name, int64_t id)
{
	char how[32];

	if (!fake_wants(f, name, how, sizeof(how)))
		return false;
	for (size_t i = 0; i < f->n_used; i++)
		if (strcmp(f->used[i], name) == 0)
			return false;
	snprintf(f->used[f->n_used++], sizeof(f->used[0]), "%s", name);
	if (strcmp(how, "error") == 0) {
		fake_send(f,
			"{\"id\": %ld, \"error\": {\"class\": \"GenericError\", \"desc\": "
			"\"it is Tuesday\"}}\r\n",
			id);
	} else if (strcmp(how, "die") == 0) {
		fprintf(stderr, "qemu: fake QEMU dies at %s\n", name);
		raise(SIGKILL);
	} else if (strcmp(how, "exit") == 0) {
		fprintf(stderr, "qemu: fake QEMU exits at %s\n", name);
		_exit(3);
	} else if (strcmp(how, "hang-up") == 0) {
		shutdown(f->sock, SHUT_RDWR);
		for (;;)
			pause();
	} else if (strcmp(how, "hang") == 0) {
		for (;;)
			pause();
	} else if (strcmp(how, "garbage") == 0) {
		fake_send(f, "{]]]\r\n");
	} else if (strcmp(how, "nonsense") == 0) {
		fake_send(f, "{\"return\": 42, \"id\": %ld}\r\n", id);
	} else if (strcmp(how, "silent") != 0) {
		abort();
	}
	return true;
}

static void fake_stream_out(struct fake *f)
{
	static char bytes[STREAM_BYTES];
	int fd = f->passed_fd;
	char how[32] = "";
	size_t n = sizeof(bytes);

	f->passed_fd = -EBADF;
	fake_wants(f, "stream", how, sizeof(how));
	for (size_t i = 0; i < n; i++)
		bytes[i] = (char)(i * 7);
	fake_migration(f, "setup");
	fake_migration(f, "active");
	if (strcmp(how, "empty") == 0)
		n = 0;
	if (strcmp(how, "short") == 0)
		n /= 2;
	if (hf_fd_write_full(fd, bytes, n) < 0 || strcmp(how, "short") == 0) {
		snprintf(f->error, sizeof(f->error), "the dog ate it");
		close(fd);
		fake_migration(f, "failing");
		fake_migration(f, "failed");
		snprintf(f->status, sizeof(f->status), "postmigrate");
		return;
	}
	if (strcmp(how, "never-eof") == 0)
		f->stream_fd = fd;
	else
		close(fd);
	/* Stays active for ever, though its stream has ended. */
	if (strcmp(how, "never-done") == 0)
		return;
	snprintf(f->status, sizeof(f->status), "finish-migrate");
	fake_migration(f, "completed");
	snprintf(f->status, sizeof(f->status), "postmigrate");
}

static void fake_run(struct fake *f, bool running, const char *status)
{
	f->running = running;
	snprintf(f->status, sizeof(f->status), "%s", status);
	fake_event(f, running ? "RESUME" : "STOP", "{}");
}

/* Stopped by the migration itself, if nobody else does it: then that is looked at before it goes
 * on. */
static void fake_migrate(struct fake *f)
{
	if (strstr(f->mode, "pauses-amid")) {
		fake_run(f, false, "paused");
		f->stream_due = true;
		return;
	}
	if (strstr(f->mode, "runs-amid"))
		fake_run(f, true, "running");
	if (f->running)
		fake_run(f, false, "finish-migrate");
	fake_stream_out(f);
}

static void fake_stream_in(struct fake *f)
{
	char how[32] = "", buf[4096];
	size_t total = 0;
	ssize_t n;

	fake_wants(f, "load", how, sizeof(how));
	fake_migration(f, "setup");
	while ((n = read(f->passed_fd, buf, sizeof(buf))) > 0) {
		total += (size_t)n;
		if (strcmp(how, "unread") == 0 && total > 1000)
			break;
		if (strcmp(how, "exit") == 0) {
			fprintf(stderr, "qemu: load of migration failed\n");
			_exit(1);
		}
	}
	close(f->passed_fd);
	f->passed_fd = -EBADF;
	if (strcmp(how, "hang") == 0)
		return;
	snprintf(f->error, sizeof(f->error), "section 7 is missing");
	if (strcmp(how, "unread") == 0)
		return;
	fake_migration(
		f, strcmp(how, "fail") == 0 || total != STREAM_BYTES ? "failed" : "completed");
	snprintf(f->status, sizeof(f->status), "paused");
	if (strcmp(how, "runs") == 0) {
		f->running = true;
		snprintf(f->status, sizeof(f->status), "running");
	}
}

static void fake_reply_migration(struct fake *f, int64_t id)
{
	bool failed = strcmp(f->migration, "failed") == 0;

	if (!f->migration[0])
		fake_send(f, "{\"return\": {}, \"id\": %ld}\r\n", id);
	else
		fake_send(f,
			"{\"return\": {\"status\": \"%s\"%s%s%s, \"ram\": {\"total\": %s, "
			"\"remaining\": 0, "
			"\"transferred\": 9, \"duplicate\": 1, \"normal\": 2, \"normal-bytes\": "
			"8192}}, "
			"\"id\": %ld}\r\n",
			f->migration, failed ? ", \"error-desc\": \"" : "", failed ? f->error : "",
			failed ? "\"" : "", strstr(f->mode, "stream=ram") ? "70000000" : "794624",
			id);
}

static void fake_set(struct fake *f, const char *name, struct json_object *args)
{
	struct json_object *v;

	if (strcmp(name, "migrate-set-parameters") == 0 &&
		json_object_object_get_ex(args, "max-bandwidth", &v))
		f->bandwidth = (uint64_t)json_object_get_int64(v);
	if (strcmp(name, "migrate-set-capabilities") == 0 &&
		json_object_object_get_ex(args, "capabilities", &v)) {
		for (size_t i = 0; i < json_object_array_length(v); i++) {
			struct json_object *cap = json_object_array_get_idx(v, i), *n, *on;

			json_object_object_get_ex(cap, "capability", &n);
			json_object_object_get_ex(cap, "state", &on);
			*(strcmp(json_object_get_string(n), "events") == 0 ? &f->events
									   : &f->ignore_shared) =
				json_object_get_boolean(on);
		}
	}
}

/*
 * Virtio devices, when $FAKE has "virtio=NAME-NUM-DEFAULT-ASKED;…": how large the queue is that
 * QEMU is to be asked for, and what the device's property says. ASKED is 0 without such a property.
 */
static void fake_virtio(struct fake *f, const char *name, struct json_object *args, int64_t id)
{
	unsigned int i = 0, index = UINT_MAX, num, num_default, asked;
	char list[256] = "", text[1024] = "", device[32];
	struct json_object *v;
	char *save = NULL;

	fake_wants(f, "virtio", list, sizeof(list));
	if (args && json_object_object_get_ex(args, "path", &v))
		sscanf(json_object_get_string(v), "/v/%u", &index);
	for (char *p = strtok_r(list, ";", &save); p; p = strtok_r(NULL, ";", &save), i++) {
		assert(sscanf(p, "%31[^0-9]%u-%u-%u", device, &num, &num_default, &asked) == 4);
		device[strlen(device) - 1] = 0;
		if (strcmp(name, "x-query-virtio") == 0)
			snprintf(text + strlen(text), sizeof(text) - strlen(text),
				"%s{\"name\": \"%s\", \"path\": \"/v/%u\"}", i ? ", " : "", device,
				i);
		else if (i == index && strcmp(device, "virtio-balloon") == 0 &&
			 strcmp(name, "qom-get") == 0)
			fake_send(f, "{\"return\": true, \"id\": %ld}\r\n", id);
		else if (i == index && strcmp(name, "qom-get") == 0)
			fake_send(f, "{\"return\": %u, \"id\": %ld}\r\n", asked, id);
		else if (i == index)
			fake_send(f,
				"{\"return\": {\"vring-num\": %u, \"vring-num-default\": %u}, "
				"\"id\": %ld}\r\n",
				num, num_default, id);
	}
	if (strcmp(name, "x-query-virtio") == 0)
		fake_send(f, "{\"return\": [%s], \"id\": %ld}\r\n", text, id);
}

/* Of a virtio device, and not of the machine. */
static bool is_virtio(const char *name, struct json_object *args)
{
	struct json_object *v;

	return strncmp(name, "x-query-virtio", 14) == 0 ||
	       (strcmp(name, "qom-get") == 0 && json_object_object_get_ex(args, "path", &v) &&
		       strncmp(json_object_get_string(v), "/v/", 3) == 0);
}

/* What the human monitor says. */
static const char *fake_human(struct json_object *args)
{
	struct json_object *v;
	const char *line = "";

	if (json_object_object_get_ex(args, "command-line", &v))
		line = json_object_get_string(v);
	if (strcmp(line, "info roms") == 0)
		return "fw=genroms/kvmvapic.bin size=0x002400 name=\\\"kvmvapic.bin\\\"\\r\\n"
		       "addr=0000000000100000 size=0x200000 mem=ram "
		       "name=\\\"/boot/vmlinux ELF program header segment 0\\\"\\r\\n"
		       "addr=0000000000300000 size=0x100000 mem=ram "
		       "name=\\\"/boot/vmlinux ELF program header segment 1\\\"\\r\\n"
		       "addr=00000000fffc0000 size=0x040000 mem=rom "
		       "name=\\\"bios-256k.bin\\\"\\r\\n"
		       "/rom@etc/acpi/tables size=0x200000 name=\\\"etc/acpi/tables\\\"\\r\\n";
	if (strcmp(line, "info qtree") == 0)
		return "bus: pci.0\\r\\n  dev: e1000, id \\\"\\\"\\r\\n"
		       "    romfile = \\\"efi-e1000.rom\\\"\\r\\n    romfile = \\\"\\\"\\r\\n"
		       "    romfile = \\\"bios-256k.bin\\\"\\r\\n";
	return "              Block Name    PSize              Offset               Used"
	       "              Total\\r\\n"
	       "                  pc.ram    4 KiB  0x0000000000000000 0x0000000004000000 "
	       "0x0000000004000000\\r\\n"
	       "                 pc.bios    4 KiB  0x0000000004000000 0x0000000000040000 "
	       "0x0000000000040000\\r\\n";
}

static void fake_command(struct fake *f, const char *name, struct json_object *args, int64_t id)
{
	if (fake_fails(f, name, id))
		return;
	fake_set(f, name, args);
	if (strcmp(name, "stop") == 0 && f->running && !strstr(f->mode, "deaf")) {
		f->running = false;
		snprintf(f->status, sizeof(f->status), "%s",
			strstr(f->mode, "off-by-stop") ? "shutdown" : "paused");
		fake_event(f, "STOP", "{}");
	} else if (strcmp(name, "cont") == 0) {
		f->running = true;
		snprintf(f->status, sizeof(f->status), "running");
		fake_event(f, "RESUME", "{}");
	} else if (strcmp(name, "announce-self") == 0) {
		f->n_announced++;
	}
	fake_write_state(f);
	if (is_virtio(name, args))
		fake_virtio(f, name, args, id);
	else if (strcmp(name, "query-status") == 0)
		fake_send(f, "{\"return\": {\"status\": \"%s\", \"running\": %s}, \"id\": %ld}\r\n",
			f->status, f->running ? "true" : "false", id);
	else if (strcmp(name, "query-kvm") == 0)
		fake_send(f, "{\"return\": {\"enabled\": %s, \"present\": true}, \"id\": %ld}\r\n",
			strstr(f->mode, "kvm") ? "true" : "false", id);
	else if (strcmp(name, "query-balloon") == 0 && strstr(f->mode, "balloon"))
		fake_send(f, "{\"return\": {\"actual\": 1048576}, \"id\": %ld}\r\n", id);
	else if (strcmp(name, "query-chardev") == 0)
		fake_send(f,
			"{\"return\": [{\"frontend-open\": true, \"filename\": \"unix:\", "
			"\"label\": \"other\"}, {\"frontend-open\": %s, \"filename\": \"unix:\", "
			"\"label\": \"qga0\"}], \"id\": %ld}\r\n",
			strstr(f->mode, "agent") ? "true" : "false", id);
	else if (strcmp(name, "query-block") == 0)
		fake_send(f,
			"{\"return\": [{\"device\": \"d0\", \"inserted\": {\"cache\": "
			"{\"no-flush\": false, \"direct\": true, \"writeback\": true}}}, "
			"{\"device\": \"\", \"qdev\": \"v1\", \"inserted\": {\"cache\": "
			"{\"no-flush\": true, \"direct\": false, \"writeback\": true}}}, "
			"{\"device\": \"cd\"}], \"id\": %ld}\r\n",
			id);
	else if (strcmp(name, "qom-get") == 0)
		fake_send(f, "{\"return\": \"pc-q35-9.2-machine\", \"id\": %ld}\r\n", id);
	else if (strcmp(name, "qom-list") == 0)
		fake_send(f,
			"{\"return\": [{\"name\": \"type\", \"type\": \"string\"}%s], \"id\": "
			"%ld}\r\n",
			!strstr(f->mode, "plugged")
				? ""
				: ", {\"name\": \"hot\", \"type\": \"child<x>\"}",
			id);
	else if (strcmp(name, "query-migrate") == 0)
		fake_reply_migration(f, id);
	else if (strcmp(name, "query-migrate-capabilities") == 0)
		fake_send(f,
			"{\"return\": [{\"state\": %s, \"capability\": \"x-ignore-shared\"}, "
			"{\"state\": %s, \"capability\": \"events\"}], \"id\": %ld}\r\n",
			f->ignore_shared ? "true" : "false", f->events ? "true" : "false", id);
	else if (strcmp(name, "query-migrate-parameters") == 0)
		fake_send(f,
			"{\"return\": {\"max-bandwidth\": %lu, \"mode\": \"normal\"}, \"id\": "
			"%ld}\r\n",
			f->bandwidth, id);
	else if (strcmp(name, "human-monitor-command") == 0)
		fake_send(f, "{\"return\": \"%s\", \"id\": %ld}\r\n", fake_human(args), id);
	else
		fake_send(f, "{\"return\": {}, \"id\": %ld}\r\n", id);
	if (strcmp(name, "migrate_cancel") == 0 && strcmp(f->migration, "active") == 0)
		fake_migration(f, "cancelled");
	if (strcmp(name, "migrate") == 0)
		fake_migrate(f);
	if (strcmp(name, "query-status") == 0 && f->stream_due) {
		f->stream_due = false;
		fake_stream_out(f);
	}
	if (strcmp(name, "migrate-incoming") == 0)
		fake_stream_in(f);
	if (strcmp(name, "quit") == 0)
		_exit(0);
}

static void fake_serve(struct fake *f)
{
	cleanup_free struct hf_qmp_framer *framer = NULL;
	struct json_object *msg, *v, *args;
	char c;

	if (fake_fails(f, "greeting", 0))
		pause();
	fake_send(f,
		"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 9}, "
		"\"package\": \"\"}, \"capabilities\": []}}\r\n");
	hf_qmp_framer_new(NULL, &framer);
	for (;;) {
		int fds[2];
		size_t n_fds = 2;

		if (hf_fd_recv(f->sock, &c, 1, fds, &n_fds) <= 0)
			return;
		if (n_fds > 0)
			f->passed_fd = fds[0];
		if (hf_qmp_framer_push(framer, &c, 1) < 0 || hf_qmp_framer_next(framer, &msg) <= 0)
			continue;
		json_object_object_get_ex(msg, "id", &v);
		args = NULL;
		json_object_object_get_ex(msg, "arguments", &args);
		fake_command(f, json_object_get_string(json_object_object_get(msg, "execute")),
			args, json_object_get_int64(v));
		json_object_put(msg);
	}
}

static int fake_main(int argc, char **argv)
{
	struct fake f = {.mode = getenv("FAKE"),
		.bandwidth = 134217728,
		.status = "running",
		.running = true,
		.sock = -1,
		.passed_fd = -1,
		.stream_fd = -1};
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char path[108];
	int server;

	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "socket,id=holdfast-boot,fd=", 27) == 0)
			f.sock = atoi(argv[i] + 27);
		else if (strncmp(argv[i], "unix:", 5) == 0)
			snprintf(sa.sun_path, sizeof(sa.sun_path) - 1, "%.*s",
				(int)strcspn(argv[i] + 5, ","), argv[i] + 5);
	}
	if (strstr(f.mode, "paused")) {
		f.running = false;
		snprintf(f.status, sizeof(f.status), "paused");
	}
	if (fake_fails(&f, "start", 0))
		pause();
	if (f.sock >= 0) {
		f.running = false;
		snprintf(f.status, sizeof(f.status), "inmigrate");
		fake_serve(&f);
		return 0;
	}
	server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* There at once with an ear behind it. */
	snprintf(path, sizeof(path), "%s", sa.sun_path);
	strcat(sa.sun_path, "~");
	if (bind(server, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(server, 1) < 0 ||
		rename(sa.sun_path, path) < 0)
		return 1;
	for (;;) {
		f.sock = accept(server, NULL, NULL);
		fake_serve(&f);
		close(f.sock);
	}
}

/* ---- the tests ---- */

static const char *const args[] = {"-machine", "q35", "-m", "64"};

/* How long an operation may take: only those that never end have to be cut short. */
static uint64_t patience_ns(const char *mode)
{
	bool endless = strstr(mode, "hang") || strstr(mode, "silent") || strstr(mode, "never");

	return endless && !strstr(mode, "hang-up") ? SHORT_MS * HF_NSEC_PER_MSEC
						   : 20 * HF_NSEC_PER_SEC;
}

static void fake_start(struct test_guest *t, const char *mode)
{
	setenv("FAKE", mode, 1);
	guest_init(t, args, HF_ARRAY_SIZE(args));
	t->timeout_ns = patience_ns(mode);
	guest_start(t);
}

static void fake_attach(struct test_guest *t, const char *mode)
{
	fake_start(t, mode);
	t->timeout_ns = 10 * HF_NSEC_PER_SEC;
	if (guest_attach(t) < 0)
		fail_msg("%s: attach: %s", mode, t->outcome.error.message);
	guest_add_chunk(t, hf_vmm_get_probe(t->vmm)->state_estimate_bytes);
	t->timeout_ns = patience_ns(mode);
}

static void expect_state(struct test_guest *t, const char *mode, const char *want)
{
	cleanup_free char *text = NULL;
	char path[128];

	snprintf(path, sizeof(path), "%s/state", t->dir);
	assert_int_equal(hf_file_read(path, 1024, &text, NULL), 0);
	if (!strstr(text, want))
		fail_msg("after %s: %s", mode, text);
}

/* An error has to say something, of this guest. */
static void expect_error(struct test_guest *t, const char *mode)
{
	const struct hf_error *e = &t->outcome.error;

	if (e->err >= 0 || !e->message[0] || !e->name[0] || strcmp(e->guest, "testguest") != 0)
		fail_msg("%s: %d `%s` of `%s`", mode, e->err, e->message, e->guest);
	if (getenv("HOLDFAST_TEST_VERBOSE"))
		print_message("    %-40s %s\n", mode, e->message);
}

static void test_probe(void **state)
{
	const struct hf_vmm_probe *p;
	struct test_guest t;

	fake_attach(&t, "");
	p = hf_vmm_get_probe(t.vmm);
	assert_int_equal(p->version.major, 9);
	assert_int_equal(p->odd_queue_entries, 0);
	assert_string_equal(p->machine_type, "pc-q35-9.2");
	assert_string_equal(t.guest->machine, "pc-q35-9.2");
	assert_string_equal(p->status, "running");
	assert_true(p->running && t.guest->was_running);
	assert_int_equal(p->n_blockers, 0);
	assert_int_equal(p->state_estimate_bytes, 2u << 20);
	assert_int_equal(hf_vmm_pid(t.vmm), hf_child_pid(t.child));
	assert_int_equal(t.guest->limits.n_rlimits, 2 * RLIM_NLIMITS);
	assert_int_equal(t.guest->limits.nice, getpriority(PRIO_PROCESS, 0));
	assert_true(t.guest->limits.n_cpus > 0);
	assert_string_equal(hf_vmm_get_warning(t.vmm), "");
	guest_free(&t);
}

/* Queues that are larger than their device asks for, whatever the guest's driver made of them. */
static void test_odd_queues(void **state)
{
	static const struct {
		const char *mode;
		unsigned int entries;
		const char *device;
	} cases[] = {
		{"virtio=", 0, ""},
		{"virtio=virtio-rng-8-8-0", 0, ""},
		{"virtio=virtio-rng-1024-1024-0", 1024, "virtio-rng"},
		{"virtio=virtio-rng-8-1024-0", 1024, "virtio-rng"},
		{"virtio=virtio-rng-1024-8-0", 1024, "virtio-rng"},
		{"virtio=virtio-iommu-256-256-0", 0, ""},
		{"virtio=virtio-blk-1024-1024-1024", 0, ""},
		{"virtio=virtio-blk-256-1024-256", 1024, "virtio-blk"},
		{"virtio=virtio-blk-256-256-256;virtio-net-1024-1024-256;virtio-rng-8-8-0", 1024,
			"virtio-net"},
		{"virtio=virtio-scsi-1024-1024-1024;virtio-serial-1024-1024-0", 1024,
			"virtio-serial"},
		{"virtio=virtio-rng-1024-1024-0,x-query-virtio=error", 0, ""},
		{"virtio=virtio-rng-1024-1024-0,x-query-virtio=nonsense", 0, ""},
		{"virtio=virtio-rng-1024-1024-0,x-query-virtio-queue-status=error", 0, ""},
		{"virtio=virtio-rng-9-9-0;virtio-rng-512-9-0,x-query-virtio-queue-status=nonsense",
			512, "virtio-rng"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		const struct hf_vmm_probe *p;
		struct test_guest t;

		fake_attach(&t, cases[i].mode);
		p = hf_vmm_get_probe(t.vmm);
		if (p->odd_queue_entries != cases[i].entries ||
			strcmp(p->odd_queue_device, cases[i].device) != 0)
			fail_msg("%s: %lu of %s", cases[i].mode, p->odd_queue_entries,
				p->odd_queue_device);
		guest_free(&t);
	}
}

/* Balloon, guest agent's channel and disks: asked for on demand, and nothing fails for them. */
static void test_details(void **state)
{
	static const char *const commands[] = {"query-balloon", "query-chardev", "query-block"};
	static const char *const hows[] = {"error", "nonsense"};
	const struct hf_vmm_probe *p;
	struct test_guest t;
	char mode[96];

	fake_start(&t, "agent,virtio=virtio-rng-8-8-0;virtio-balloon-128-128-0");
	hf_vmm_want_details(t.vmm);
	assert_int_equal(guest_attach(&t), 0);
	p = hf_vmm_get_probe(t.vmm);
	assert_true(p->balloon && p->free_page_reporting && p->agent_known);
	assert_int_equal(p->balloon_bytes, 1048576);
	assert_int_equal(p->n_no_flush, 1);
	assert_string_equal(p->no_flush_disk, "v1");
	/* Its command line has no port for it, whatever the chardev is called. */
	assert_false(p->agent_channel);
	guest_free(&t);
	fake_start(&t, "virtio=virtio-rng-8-8-0");
	hf_vmm_want_details(t.vmm);
	assert_int_equal(guest_attach(&t), 0);
	p = hf_vmm_get_probe(t.vmm);
	assert_false(p->balloon || p->free_page_reporting);
	guest_free(&t);
	/* Not asked for. */
	fake_attach(&t, "virtio=virtio-balloon-128-128-0");
	p = hf_vmm_get_probe(t.vmm);
	assert_false(p->balloon || p->free_page_reporting || p->agent_known || p->n_no_flush);
	guest_free(&t);
	for (size_t i = 0; i < HF_ARRAY_SIZE(commands); i++) {
		for (size_t j = 0; j < HF_ARRAY_SIZE(hows); j++) {
			snprintf(mode, sizeof(mode), "virtio=virtio-balloon-128-128-0,%s=%s",
				commands[i], hows[j]);
			fake_start(&t, mode);
			hf_vmm_want_details(t.vmm);
			assert_int_equal(guest_attach(&t), 0);
			p = hf_vmm_get_probe(t.vmm);
			assert_int_equal(p->balloon, i != 0);
			assert_int_equal(p->agent_known, i != 1);
			assert_int_equal(p->n_no_flush, i != 2);
			guest_free(&t);
		}
		/* One that dies meanwhile is news. */
		snprintf(mode, sizeof(mode), "%s=die", commands[i]);
		fake_start(&t, mode);
		hf_vmm_want_details(t.vmm);
		assert_true(guest_attach(&t) < 0);
		guest_free(&t);
	}
}

static void test_roms(void **state)
{
	char *const *roms;
	struct test_guest t;

	fake_start(&t, "");
	hf_vmm_want_roms(t.vmm);
	assert_int_equal(guest_attach(&t), 0);
	roms = hf_vmm_get_roms(t.vmm);
	assert_string_equal(roms[0], "kvmvapic.bin");
	assert_string_equal(roms[1], "/boot/vmlinux");
	assert_string_equal(roms[2], "bios-256k.bin");
	assert_string_equal(roms[3], "efi-e1000.rom");
	assert_null(roms[4]);
	guest_free(&t);
	/* Not asked for. */
	fake_attach(&t, "");
	assert_null(hf_vmm_get_roms(t.vmm));
	guest_free(&t);
}

/* What was plugged in since the start would be missing after a respawn. */
static void test_plugged_device(void **state)
{
	const struct hf_vmm_probe *p;
	struct test_guest t;

	fake_attach(&t, "plugged");
	p = hf_vmm_get_probe(t.vmm);
	assert_int_equal(p->n_blockers, 2);
	assert_non_null(strstr(p->blockers[0], "device hot was plugged in"));
	assert_non_null(strstr(p->blockers[1], "without id"));
	guest_free(&t);
}

/* The process that a registration names is there, but the monitor is somebody else's. */
static void test_foreign_monitor(void **state)
{
	struct test_guest t;
	uint64_t ticks = 0;
	pid_t other = fork();

	assert_true(other >= 0);
	if (other == 0)
		for (;;)
			pause();
	fake_start(&t, "");
	assert_int_equal(hf_pid_start_time(other, &ticks), 0);
	t.outcome = (struct outcome){0};
	assert_int_equal(
		hf_vmm_attach(t.vmm, other, ticks, 6 * HF_NSEC_PER_SEC, guest_on_done, &t), 0);
	assert_int_equal(guest_wait(&t), -ESTALE);
	if (!strstr(t.outcome.error.message, "the monitor at"))
		fail_msg("%s", t.outcome.error.message);
	assert_int_equal(t.n_gone, 0);
	guest_free(&t);
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
}

static void test_attach_fails(void **state)
{
	static const char *const commands[] = {"greeting", "query-status", "qom-get", "qom-list",
		"query-migrate", "query-migrate-capabilities", "query-migrate-parameters",
		"human-monitor-command"};
	static const char *const optional[] = {"x-query-virtio", "x-query-virtio-queue-status"};
	static const char *const hows[] = {
		"error", "silent", "hang", "die", "hang-up", "garbage", "nonsense"};
	struct test_guest t;
	char mode[96];

	for (size_t i = 0; i < HF_ARRAY_SIZE(commands); i++) {
		for (size_t j = 0; j < HF_ARRAY_SIZE(hows); j++) {
			snprintf(mode, sizeof(mode), "%s=%s", commands[i], hows[j]);
			fake_start(&t, mode);
			assert_true(guest_attach(&t) < 0);
			expect_error(&t, mode);
			assert_int_equal(t.n_gone, 0);
			assert_int_equal(
				hf_vmm_save(t.vmm, &t.sink, NULL, 1, guest_on_done, &t), -ENOTCONN);
			guest_free(&t);
		}
	}
	/* What it may refuse to answer it may not leave unanswered. */
	for (size_t i = 0; i < HF_ARRAY_SIZE(optional); i++) {
		for (size_t j = 1; j < HF_ARRAY_SIZE(hows) - 1; j++) {
			snprintf(mode, sizeof(mode), "virtio=virtio-rng-8-8-0,%s=%s", optional[i],
				hows[j]);
			fake_start(&t, mode);
			assert_true(guest_attach(&t) < 0);
			expect_error(&t, mode);
			guest_free(&t);
		}
	}
}

/* A save that fails at each of its commands, in each way; then the guest has to be as before. */
static void save_fails(const char *mode, bool was_running)
{
	struct test_guest t;

	fake_attach(&t, mode);
	assert_true(guest_save(&t) < 0);
	expect_error(&t, mode);
	if (strstr(mode, "die") || strstr(mode, "hang-up") || strstr(mode, "garbage")) {
		guest_run_for(&t, 20000);
		assert_int_equal(t.n_gone, 1);
		assert_true(guest_rollback(&t) < 0);
		assert_string_equal(t.outcome.error.name, HF_ERR_DEGRADED);
		expect_error(&t, mode);
	} else if (strstr(mode, "=hang")) {
		/* There is nothing to be done for this one, but to say so in time. */
		assert_int_equal(guest_rollback(&t), -ETIMEDOUT);
		assert_string_equal(t.outcome.error.name, HF_ERR_DEGRADED);
		expect_error(&t, mode);
	} else {
		t.timeout_ns = 10 * HF_NSEC_PER_SEC;
		if (guest_rollback(&t) < 0)
			fail_msg("%s: rollback: %s", mode, t.outcome.error.message);
		assert_int_equal(t.n_gone, 0);
		expect_state(&t, mode,
			was_running ? "running=1 ignore-shared=0 events=0 bandwidth=134217728"
				    : "running=0 ignore-shared=0 events=0 bandwidth=134217728");
	}
	guest_free(&t);
}

static void test_save_fails(void **state)
{
	static const char *const commands[] = {
		"stop", "migrate-set-parameters", "migrate-set-capabilities", "getfd", "migrate"};
	static const char *const hows[] = {"error", "silent", "hang", "die", "hang-up", "garbage"};
	char mode[128];

	for (size_t i = 0; i < HF_ARRAY_SIZE(commands); i++) {
		for (size_t j = 0; j < HF_ARRAY_SIZE(hows); j++) {
			snprintf(mode, sizeof(mode), "%s=%s", commands[i], hows[j]);
			save_fails(mode, true);
			if (j < 2) {
				snprintf(mode, sizeof(mode), "%s=%s,paused", commands[i], hows[j]);
				save_fails(mode, false);
			}
		}
	}
}

static void test_stream_fails(void **state)
{
	save_fails("stream=short", true);
	save_fails("stream=empty", true);
	save_fails("stream=never-eof", true);
	save_fails("stream=never-done", true);
	save_fails("stream=ram", true);
	save_fails("stream=short,paused", false);
}

/* Only a QEMU that said so, and is still there, leaves its guest standing for a start afresh. */
static void test_save_is_refused(void **state)
{
	static const struct {
		const char *mode;
		bool refused;
	} rows[] = {
		{"migrate=error", true},
		{"migrate-set-capabilities=error", true},
		{"getfd=error,paused", true},
		{"stream=short", true},
		{"stream=ram", true},
		{"stop=silent", false},
		{"migrate=hang", false},
		{"migrate=garbage", false},
		{"migrate=die", false},
		{"migrate=hang-up", false},
		{"stream=never-eof", false},
		{"stream=never-done", false},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		const char *mode = rows[i].mode;
		struct test_guest t;

		fake_attach(&t, mode);
		assert_true(guest_save(&t) < 0);
		if (hf_vmm_save_refused(t.vmm) != rows[i].refused)
			fail_msg("%s: %s", mode, t.outcome.error.message);
		guest_free(&t);
	}
}

static int guest_halt(struct test_guest *t)
{
	t->outcome = (struct outcome){0};
	assert_int_equal(hf_vmm_halt(t->vmm, 10 * HF_NSEC_PER_SEC, guest_on_done, t), 0);
	return guest_wait(t);
}

static void test_halt(void **state)
{
	static const char *const modes[] = {
		"migrate=error", "stream=short", "stream=ram", "stream=short,paused"};
	struct test_guest t;

	for (size_t i = 0; i < HF_ARRAY_SIZE(modes); i++) {
		fake_attach(&t, modes[i]);
		t.timeout_ns = 10 * HF_NSEC_PER_SEC;
		assert_int_equal(hf_vmm_halt(t.vmm, 1, guest_on_done, &t), -EINVAL);
		assert_true(guest_save(&t) < 0);
		if (guest_halt(&t) < 0)
			fail_msg("%s: halt: %s", modes[i], t.outcome.error.message);
		expect_state(&t, modes[i], "running=0");
		/* There is still a way back. */
		assert_int_equal(guest_rollback(&t), 0);
		expect_state(&t, modes[i],
			strstr(modes[i], "paused")
				? "running=0 ignore-shared=0 events=0 bandwidth=134217728"
				: "running=1 ignore-shared=0 events=0 bandwidth=134217728");
		guest_free(&t);
	}
}

static void test_halt_fails(void **state)
{
	struct test_guest t;

	/* It did not stop when it was first told to. */
	fake_attach(&t, "stop=error");
	t.timeout_ns = 10 * HF_NSEC_PER_SEC;
	assert_true(guest_save(&t) < 0);
	assert_true(hf_vmm_save_refused(t.vmm));
	assert_int_equal(guest_halt(&t), 0);
	expect_state(&t, "stop=error", "running=0");
	guest_free(&t);
	/* It doesn't, whatever it says. */
	fake_attach(&t, "migrate=error,deaf");
	t.timeout_ns = 10 * HF_NSEC_PER_SEC;
	assert_true(guest_save(&t) < 0);
	assert_int_equal(guest_halt(&t), -EBUSY);
	expect_error(&t, "deaf");
	assert_int_equal(guest_rollback(&t), 0);
	expect_state(&t, "deaf", "running=1 ignore-shared=0 events=0 bandwidth=134217728");
	guest_free(&t);
	/* Whoever switched it off doesn't want it started. */
	fake_attach(&t, "migrate=error,off-by-stop");
	assert_true(guest_save(&t) < 0);
	assert_int_equal(guest_halt(&t), -EBUSY);
	assert_non_null(strstr(t.outcome.error.message, "shutdown"));
	guest_free(&t);
	/* Gone meanwhile. */
	fake_attach(&t, "migrate=error,migrate_cancel=die");
	assert_true(guest_save(&t) < 0);
	assert_true(guest_halt(&t) < 0);
	assert_int_equal(t.n_gone, 1);
	guest_free(&t);
}

static void test_save_errors_say_why(void **state)
{
	struct test_guest t;

	fake_attach(&t, "stream=short");
	guest_save(&t);
	assert_non_null(strstr(t.outcome.error.message, "the dog ate it"));
	guest_free(&t);
	fake_attach(&t, "migrate=error");
	guest_save(&t);
	assert_non_null(strstr(t.outcome.error.message, "it is Tuesday"));
	guest_free(&t);
	fake_attach(&t, "stop=hang");
	assert_int_equal(guest_save(&t), -ETIMEDOUT);
	assert_non_null(strstr(t.outcome.error.message, "pause the guest"));
	guest_free(&t);
	fake_attach(&t, "stream=ram");
	assert_int_equal(guest_save(&t), -EOPNOTSUPP);
	guest_free(&t);
}

static void test_rollback_fails(void **state)
{
	static const char *const modes[] = {"cont=error", "cont=silent", "cont=hang", "cont=die"};
	struct test_guest t;

	for (size_t i = 0; i < HF_ARRAY_SIZE(modes); i++) {
		fake_attach(&t, modes[i]);
		t.timeout_ns = 10 * HF_NSEC_PER_SEC;
		assert_int_equal(guest_save(&t), 0);
		t.timeout_ns = patience_ns(modes[i]);
		assert_true(guest_rollback(&t) < 0);
		assert_string_equal(t.outcome.error.name, HF_ERR_DEGRADED);
		assert_true(t.outcome.error.remedy[0]);
		expect_error(&t, modes[i]);
		guest_free(&t);
	}
}

/* Asked a second time, it may work out. */
static void test_rollback_again(void **state)
{
	struct test_guest t;

	fake_attach(&t, "cont=error");
	t.timeout_ns = 10 * HF_NSEC_PER_SEC;
	assert_int_equal(guest_save(&t), 0);
	assert_true(guest_rollback(&t) < 0);
	assert_int_equal(guest_rollback(&t), 0);
	expect_state(&t, "cont=error", "running=1 ignore-shared=0 events=0 bandwidth=134217728");
	guest_free(&t);
}

static void test_one_at_a_time(void **state)
{
	struct test_guest t;

	fake_attach(&t, "");
	t.timeout_ns = 10 * HF_NSEC_PER_SEC;
	t.outcome = (struct outcome){0};
	assert_int_equal(hf_vmm_save(t.vmm, &t.sink, NULL, t.timeout_ns, guest_on_done, &t), 0);
	assert_int_equal(
		hf_vmm_save(t.vmm, &t.sink, NULL, t.timeout_ns, guest_on_done, &t), -EBUSY);
	assert_int_equal(hf_vmm_quit(t.vmm, t.timeout_ns, guest_on_done, &t), -EBUSY);
	assert_int_equal(guest_wait(&t), 0);
	assert_int_equal(t.guest->state_length, STREAM_BYTES);
	guest_free(&t);
}

/* Let go of in the middle of everything: nothing may be touched afterwards (ASan looks). */
static void test_freed_amid_save(void **state)
{
	for (unsigned int i = 0; i < 8; i++) {
		struct test_guest t;

		fake_attach(&t, i % 2 ? "stream=never-eof" : "");
		t.timeout_ns = 10 * HF_NSEC_PER_SEC;
		assert_int_equal(
			hf_vmm_save(t.vmm, &t.sink, NULL, t.timeout_ns, guest_on_done, &t), 0);
		if (i > 0)
			guest_run_for(&t, i * 300);
		hf_vmm_free(t.vmm);
		t.vmm = NULL;
		guest_run_for(&t, 20000);
		guest_free(&t);
	}
}

static void free_it(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct test_guest *t = data;

	hf_vmm_free(vmm);
	t->vmm = NULL;
	t->outcome.over = true;
}

static void test_freed_in_callback(void **state)
{
	struct test_guest t;

	fake_attach(&t, "stop=die");
	t.outcome = (struct outcome){0};
	assert_int_equal(hf_vmm_save(t.vmm, &t.sink, NULL, t.timeout_ns, free_it, &t), 0);
	guest_wait(&t);
	guest_run_for(&t, 20000);
	assert_int_equal(t.n_gone, 0);
	guest_free(&t);
}

static void test_quit_that_hangs(void **state)
{
	struct test_guest t;

	fake_attach(&t, "quit=silent");
	t.timeout_ns = SHORT_MS * HF_NSEC_PER_MSEC;
	assert_int_equal(guest_quit(&t), 0);
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	assert_int_equal(t.n_gone, 0);
	guest_free(&t);
}

/* ---- the way in ---- */

static void fake_saved(struct test_guest *t, const char *mode)
{
	fake_attach(t, mode);
	t->timeout_ns = 10 * HF_NSEC_PER_SEC;
	if (guest_save(t) < 0 || guest_quit(t) < 0)
		fail_msg("%s: %s", mode, t->outcome.error.message);
	guest_new_vmm(t);
}

static void test_respawn(void **state)
{
	struct test_guest t;

	fake_saved(&t, "");
	assert_int_equal(guest_respawn(&t), 0);
	expect_state(&t, "load",
		"paused running=0 ignore-shared=0 events=0 bandwidth=134217728 announced=0");
	assert_int_equal(guest_resume(&t), 0);
	expect_state(
		&t, "resume", "running=1 ignore-shared=0 events=0 bandwidth=134217728 announced=1");
	guest_free(&t);
	fake_saved(&t, "paused");
	assert_int_equal(guest_respawn(&t), 0);
	assert_int_equal(guest_resume(&t), 0);
	expect_state(
		&t, "resume", "running=0 ignore-shared=0 events=0 bandwidth=134217728 announced=0");
	assert_true(hf_vmm_get_stamps(t.vmm)->resumed > 0);
	guest_free(&t);
}

/*
 * Into a QEMU beside it: with KVM it runs until QEMU stops it, and what somebody else does to it
 * until then is kept to.
 */
static void expect_moved(const char *mode, bool runs)
{
	struct test_guest t, loading = {0};
	struct hf_vmm *beside = NULL;
	char state[64];

	fake_attach(&t, mode);
	assert_int_equal(hf_vmm_new(t.event, t.guest, t.ring, NULL, NULL, &beside), 0);
	free(t.guest->qmp_path);
	assert_true(asprintf(&t.guest->qmp_path, "%s/beside", t.dir) > 0);
	t.outcome = (struct outcome){0};
	assert_int_equal(
		hf_vmm_start_beside(beside, t.ram_fds, NULL, t.timeout_ns, guest_on_done, &t), 0);
	assert_int_equal(guest_wait(&t), 0);
	note_process(hf_vmm_pid(beside));
	t.outcome = (struct outcome){0};
	assert_int_equal(hf_vmm_load(beside, t.timeout_ns, guest_on_done, &loading), 0);
	assert_int_equal(hf_vmm_save_into(t.vmm, beside, t.timeout_ns, NULL, guest_on_done, &t), 0);
	while (!t.outcome.over || !loading.outcome.over)
		assert_true(sd_event_run(t.event, UINT64_MAX) >= 0);
	if (t.outcome.error.err || loading.outcome.error.err || t.guest->was_running != runs)
		fail_msg("%s: `%s`, `%s`, it ran: %d", mode, t.outcome.error.message,
			loading.outcome.error.message, t.guest->was_running);
	/* No time passes between the wish to pause it and the pause, where QEMU does that. */
	assert_int_equal(t.guest->tsc_pause == t.guest->tsc_paused, strstr(mode, "kvm") != NULL);
	assert_true(t.guest->tsc_paused > 0 && t.guest->tsc_paused <= t.guest->tsc_saved);
	t.outcome = (struct outcome){0};
	assert_int_equal(hf_vmm_resume(beside, t.timeout_ns, guest_on_done, &t), 0);
	assert_int_equal(guest_wait(&t), 0);
	snprintf(state, sizeof(state), "running=%d ignore-shared=0 events=0", runs);
	expect_state(&t, mode, state);
	t.outcome = (struct outcome){0};
	assert_int_equal(hf_vmm_kill(beside, t.timeout_ns, guest_on_done, &t), 0);
	assert_int_equal(guest_wait(&t), 0);
	hf_vmm_free(beside);
	guest_free(&t);
}

static void test_move(void **state)
{
	expect_moved("", true);
	expect_moved("paused", false);
	expect_moved("kvm", true);
	expect_moved("kvm,paused", false);
	expect_moved("kvm,pauses-amid", false);
	expect_moved("kvm,paused,runs-amid", true);
}

/* The old QEMU's limits come along; what the new one can't have is told, and it runs. */
static void test_respawn_limits(void **state)
{
	struct hf_manifest_limits *limits, got = {0};
	struct test_guest t;

	fake_saved(&t, "");
	limits = &t.guest->limits;
	assert_int_equal(limits->n_rlimits, 2 * RLIM_NLIMITS);
	limits->rlimits[2 * RLIMIT_CORE] = 0;
	limits->nice = 11;
	assert_int_equal(guest_respawn(&t), 0);
	assert_string_equal(hf_vmm_get_warning(t.vmm), "");
	assert_int_equal(hf_limits_read(hf_vmm_pid(t.vmm), &got, NULL), 0);
	assert_memory_equal(got.rlimits, limits->rlimits, limits->n_rlimits * sizeof(uint64_t));
	assert_int_equal(got.nice, 11);
	free(got.rlimits);
	free(got.cpus);
	guest_free(&t);

	fake_saved(&t, "");
	t.guest->limits.rlimits[2 * RLIMIT_NOFILE + 1] = UINT64_MAX - 1;
	assert_int_equal(guest_respawn(&t), 0);
	assert_string_equal(hf_vmm_get_warning(t.vmm),
		"its QEMU runs, but not as before: it could not be given RLIMIT_NOFILE: Operation "
		"not permitted");
	assert_int_equal(guest_resume(&t), 0);
	expect_state(&t, "resume", "running=1");
	guest_free(&t);
}

/* Before migrate-incoming nothing was touched, from there on maybe: the error has to tell. */
static void respawn_fails(const char *mode, bool spoilt)
{
	struct test_guest t;
	pid_t pid;

	fake_saved(&t, "");
	setenv("FAKE", mode, 1);
	for (size_t i = 0; i < t.guest->n_env; i++)
		if (strncmp(t.guest->env[i], "FAKE=", 5) == 0) {
			char text[128];

			snprintf(text, sizeof(text), "FAKE=%s", mode);
			hf_manifest_set(&t.guest->env[i], text);
		}
	t.outcome = (struct outcome){0};
	assert_int_equal(hf_vmm_respawn(t.vmm, t.ram_fds, t.state_fds, 2 * patience_ns(mode),
				 guest_on_done, &t),
		0);
	pid = hf_vmm_pid(t.vmm);
	assert_true(guest_wait(&t) < 0);
	expect_error(&t, mode);
	if ((t.outcome.error.err == -EUCLEAN) != spoilt)
		fail_msg("%s: %d %s", mode, t.outcome.error.err, t.outcome.error.message);
	assert_int_equal(hf_vmm_pid(t.vmm), 0);
	assert_true(pid <= 0 || kill(pid, 0) < 0);
	assert_int_equal(t.n_gone, 0);
	if ((strstr(mode, "exit") || strstr(mode, "die")) &&
		!strstr(t.outcome.error.message, "qemu: "))
		fail_msg("%s: its last words are missing: %s", mode, t.outcome.error.message);
	guest_free(&t);
}

static void test_respawn_fails(void **state)
{
	static const char *const before[] = {"start", "greeting"};
	static const char *const after[] = {
		"migrate-set-capabilities", "getfd", "migrate-incoming", "query-status"};
	static const char *const hows[] = {
		"hang", "die", "hang-up", "exit", "garbage", "error", "silent"};
	char mode[128];

	for (size_t i = 0; i < HF_ARRAY_SIZE(before); i++)
		for (size_t j = 0; j < 4; j++) {
			if (i == 0 && j == 2)
				continue; /* no socket yet to hang up */
			snprintf(mode, sizeof(mode), "%s=%s", before[i], hows[j]);
			respawn_fails(mode, false);
		}
	for (size_t i = 0; i < HF_ARRAY_SIZE(after); i++)
		for (size_t j = 0; j < HF_ARRAY_SIZE(hows); j++) {
			snprintf(mode, sizeof(mode), "%s=%s", after[i], hows[j]);
			respawn_fails(mode, true);
		}
}

static void test_load_fails(void **state)
{
	respawn_fails("load=fail", true);
	respawn_fails("load=hang", true);
	respawn_fails("load=exit", true);
	respawn_fails("load=unread", true);
	respawn_fails("load=runs", true);
}

static void test_resume_fails(void **state)
{
	static const char *const modes[] = {
		"cont=error", "cont=silent", "cont=die", "cont=garbage"};
	struct test_guest t;

	for (size_t i = 0; i < HF_ARRAY_SIZE(modes); i++) {
		fake_saved(&t, modes[i]);
		t.timeout_ns = 10 * HF_NSEC_PER_SEC;
		assert_int_equal(guest_respawn(&t), 0);
		t.timeout_ns = patience_ns(modes[i]);
		assert_true(guest_resume(&t) < 0);
		expect_error(&t, modes[i]);
		guest_free(&t);
	}
}

/* Most of the time is spent waiting for time-outs: the groups wait side by side. */
static int run_groups(void)
{
	const struct CMUnitTest attach[] = {
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_odd_queues),
		cmocka_unit_test(test_details),
		cmocka_unit_test(test_roms),
		cmocka_unit_test(test_plugged_device),
		cmocka_unit_test(test_foreign_monitor),
		cmocka_unit_test(test_attach_fails),
	};
	const struct CMUnitTest save[] = {
		cmocka_unit_test(test_save_fails),
	};
	const struct CMUnitTest life[] = {
		cmocka_unit_test(test_stream_fails),
		cmocka_unit_test(test_save_is_refused),
		cmocka_unit_test(test_halt),
		cmocka_unit_test(test_halt_fails),
		cmocka_unit_test(test_save_errors_say_why),
		cmocka_unit_test(test_rollback_fails),
		cmocka_unit_test(test_rollback_again),
		cmocka_unit_test(test_one_at_a_time),
		cmocka_unit_test(test_freed_amid_save),
		cmocka_unit_test(test_freed_in_callback),
		cmocka_unit_test(test_quit_that_hangs),
	};
	const struct CMUnitTest respawn[] = {
		cmocka_unit_test(test_respawn),
		cmocka_unit_test(test_move),
		cmocka_unit_test(test_respawn_limits),
		cmocka_unit_test(test_respawn_fails),
		cmocka_unit_test(test_load_fails),
		cmocka_unit_test(test_resume_fails),
	};
	unsigned int n_failed = 0;
	int status;

	if (fork() == 0)
		exit(cmocka_run_group_tests(attach, NULL, NULL) != 0);
	if (fork() == 0)
		exit(cmocka_run_group_tests(save, NULL, NULL) != 0);
	if (fork() == 0)
		exit(cmocka_run_group_tests(life, NULL, NULL) != 0);
	if (fork() == 0)
		exit(cmocka_run_group_tests(respawn, NULL, NULL) != 0);
	while (wait(&status) > 0)
		n_failed += status != 0;
	return n_failed != 0;
}

int main(int argc, char **argv)
{
	static char self[4096];

	if (getenv("FAKE"))
		return fake_main(argc, argv);
	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	setenv("HOLDFAST_TEST_QEMU", self, 1);
	cmocka_set_message_output(CM_OUTPUT_STDOUT);
	return run_groups();
}
