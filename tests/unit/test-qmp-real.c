/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The QMP client against real QEMUs, one after the other.
 *
 * $HOLDFAST_TEST_QEMU names one; else it is the machine's own and those that the test setup has put
 * into its cache. Guests have no kernel: their firmware runs on TCG, which is all that is needed to
 * be paused, saved, loaded and resumed. Exit 77 when there is no QEMU at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <cmocka.h>

#include "common/fd.h"
#include "qmp/commands.h"

#define RAM_BYTES (32u << 20)
#define WAIT_US (30 * HF_USEC_PER_SEC)
#define UUID "ac5fe8bf-0d1c-4a3e-9d4f-0123456789ab"

static char folder[64], monitor[96];
static const char *qemu; /* the one that is tried */
static unsigned int n_tried;

/* A VMM and our connection to it. */
struct vmm {
	sd_event *event;
	struct hf_qmp *q;
	pid_t pid;
	bool ready, closed;
	int closed_err;
	unsigned int n_events;
	bool resumed;
	enum hf_qmp_migration_status last;
	bool over; /* a MIGRATION event said so */
};

/* What a command came to: waits for it. */
struct answer {
	bool done;
	int err;
	struct json_object *ret;
	struct hf_error error;
};

static void on_ready(struct hf_qmp *q, void *userdata)
{
	((struct vmm *)userdata)->ready = true;
}

static void on_event(
	struct hf_qmp *q, const char *name, struct json_object *data, uint64_t us, void *userdata)
{
	struct vmm *v = userdata;

	assert_true(us > 1700000000ull * 1000000);
	v->n_events++;
	if (!strcmp(name, "RESUME"))
		v->resumed = true;
	if (!strcmp(name, "MIGRATION")) {
		assert_int_equal(hf_qmp_parse_migration_event(data, &v->last), 0);
		assert_int_not_equal(v->last, HF_QMP_MIGRATION_UNKNOWN);
		v->over = hf_qmp_migration_over(v->last);
	}
}

static void on_closed(struct hf_qmp *q, int err, const struct hf_error *reason, void *userdata)
{
	struct vmm *v = userdata;

	v->closed = true;
	v->closed_err = err;
}

static const struct hf_qmp_ops ops = {on_ready, on_event, on_closed};

static void on_answer(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct answer *a = data;

	a->done = true;
	a->err = err;
	a->ret = json_object_get(ret);
	if (error)
		a->error = *error;
}

static void wait_for(struct vmm *v, const bool *flag)
{
	while (!*flag)
		if (sd_event_run(v->event, WAIT_US) <= 0)
			fail_msg("nothing came from %s", qemu);
}

/* Runs a submit function of qmp/commands.h and waits: ask(v, &a, hf_qmp_stop, more arguments). */
#define ask(v, a, function, ...) \
	({ \
		json_object_put((a)->ret); \
		*(a) = (struct answer){0}; \
		assert_int_equal(function((v)->q, ##__VA_ARGS__, 0, on_answer, a, NULL), 0); \
		wait_for(v, &(a)->done); \
		(a)->err; \
	})

#define must(v, a, function, ...) \
	do { \
		if (ask(v, a, function, ##__VA_ARGS__) != 0) \
			fail_msg("%s: %s", qemu, (a)->error.message); \
	} while (0)

/* Starts a QEMU on the RAM in @ram_fd; it inherits that and, if given, @qmp_fd. */
static pid_t spawn(int ram_fd, int qmp_fd, bool incoming)
{
	char object[128], chardev[128], server[160];
	const char *argv[] = {qemu, "-nodefaults", "-display", "none", "-accel", "tcg", "-machine",
		"pc,memory-backend=pc.ram", "-m", "32M", "-object", object, "-name", "real-test",
		"-uuid", UUID, "-chardev", server, "-mon", "chardev=m0,mode=control", "-chardev",
		chardev, "-mon", "chardev=m1,mode=control", "-device", "virtio-balloon-pci",
		"-device", "e1000", "-incoming", "defer", "-S", NULL};
	pid_t pid;

	snprintf(object, sizeof(object),
		"memory-backend-file,id=pc.ram,size=32M,share=on,mem-path=/proc/self/fd/%d",
		ram_fd);
	snprintf(server, sizeof(server), "socket,id=m0,path=%s,server=on,wait=off", monitor);
	if (qmp_fd >= 0)
		snprintf(chardev, sizeof(chardev), "socket,id=m1,fd=%d", qmp_fd);
	else
		snprintf(chardev, sizeof(chardev), "null,id=m1");
	if (!incoming)
		argv[HF_ARRAY_SIZE(argv) - 4] = NULL;
	unlink(monitor);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		/* -mon is deprecated in 11.1, which says so. */
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		/* A test that fails must not leave it behind. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!getenv("HOLDFAST_TEST_VERBOSE"))
			dup2(null, 2);
		hf_fd_cloexec(ram_fd, false);
		if (qmp_fd >= 0)
			hf_fd_cloexec(qmp_fd, false);
		execv(qemu, (char **)argv);
		_exit(127);
	}
	return pid;
}

static void vmm_start(struct vmm *v, int ram_fd, bool by_path, bool incoming)
{
	struct hf_error error = {0};
	int fds[2];

	*v = (struct vmm){0};
	assert_true(sd_event_new(&v->event) >= 0);
	if (by_path) {
		v->pid = spawn(ram_fd, -EBADF, incoming);
		assert_int_equal(hf_qmp_connect(v->event, monitor, HF_QMP_WAIT_SOCKET,
					 30 * HF_NSEC_PER_SEC, &ops, v, &v->q, &error),
			0);
	} else {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
		v->pid = spawn(ram_fd, fds[1], incoming);
		close(fds[1]);
		assert_int_equal(hf_qmp_attach_fd(v->event, fds[0], "the pair",
					 30 * HF_NSEC_PER_SEC, &ops, v, &v->q, &error),
			0);
	}
}

static void vmm_end(struct vmm *v)
{
	v->q = hf_qmp_free(v->q);
	kill(v->pid, SIGKILL);
	waitpid(v->pid, NULL, 0);
	v->event = sd_event_unref(v->event);
}

static void check_identity(struct vmm *v, struct answer *a)
{
	struct hf_qmp_version version;
	struct hf_qmp_status status;
	char name[32], uuid[37];

	must(v, a, hf_qmp_query_version);
	assert_int_equal(hf_qmp_parse_version(a->ret, &version), 0);
	assert_memory_equal(&version, hf_qmp_get_version(v->q), sizeof(version));
	must(v, a, hf_qmp_query_status);
	assert_int_equal(hf_qmp_parse_status(a->ret, &status), 0);
	assert_int_equal(status.state, HF_QMP_RUN_RUNNING);
	must(v, a, hf_qmp_query_name);
	assert_int_equal(hf_qmp_parse_name(a->ret, name, sizeof(name)), 0);
	assert_string_equal(name, "real-test");
	must(v, a, hf_qmp_query_uuid);
	assert_int_equal(hf_qmp_parse_uuid(a->ret, uuid), 0);
	assert_string_equal(uuid, UUID);
}

static void check_parts(struct vmm *v, struct answer *a)
{
	struct hf_qmp_chardev chardevs[8];
	struct hf_qmp_memdev memdevs[4];
	struct hf_qmp_block blocks[8];
	uint64_t actual;
	size_t n;

	must(v, a, hf_qmp_query_block);
	assert_int_equal(hf_qmp_parse_blocks(a->ret, blocks, HF_ARRAY_SIZE(blocks), &n), 0);
	must(v, a, hf_qmp_query_memdev);
	assert_int_equal(hf_qmp_parse_memdevs(a->ret, memdevs, HF_ARRAY_SIZE(memdevs), &n), 0);
	assert_int_equal(n, 1);
	assert_string_equal(memdevs[0].id, "pc.ram");
	assert_true(memdevs[0].share);
	assert_int_equal(memdevs[0].size_bytes, RAM_BYTES);
	must(v, a, hf_qmp_query_chardev);
	assert_int_equal(hf_qmp_parse_chardevs(a->ret, chardevs, HF_ARRAY_SIZE(chardevs), &n), 0);
	assert_true(n >= 2);
	/* The firmware doesn't drive it, but it is there. */
	must(v, a, hf_qmp_query_balloon);
	assert_int_equal(hf_qmp_parse_balloon(a->ret, &actual), 0);
	assert_int_equal(actual, RAM_BYTES);
	must(v, a, hf_qmp_qom_get, "/machine", "type");
	assert_non_null(strstr(json_object_get_string(a->ret), "pc-i440fx-"));
	must(v, a, hf_qmp_qom_list, "/objects");
	assert_non_null(strstr(json_object_to_json_string(a->ret), "pc.ram"));
}

/* The balloon's queues have 128 entries; Debian's 10.0.13 makes all queues of 1024. */
static void check_virtio(struct vmm *v, struct answer *a)
{
	struct hf_qmp_virtio_device devices[4];
	struct hf_qmp_virtqueue queue;
	size_t n;
	bool on;

	must(v, a, hf_qmp_query_virtio);
	assert_int_equal(
		hf_qmp_parse_virtio_devices(a->ret, devices, HF_ARRAY_SIZE(devices), &n), 0);
	assert_int_equal(n, 1);
	assert_string_equal(devices[0].name, "virtio-balloon");
	must(v, a, hf_qmp_qom_get, devices[0].path, "free-page-reporting");
	assert_int_equal(hf_qmp_parse_bool(a->ret, &on), 0);
	assert_false(on);
	must(v, a, hf_qmp_query_virtqueue, devices[0].path, 0);
	assert_int_equal(hf_qmp_parse_virtqueue(a->ret, &queue), 0);
	assert_int_equal(queue.num, queue.num_default);
	assert_true(queue.num == 128 || queue.num == 1024);
	assert_int_equal(ask(v, a, hf_qmp_query_virtqueue, "/machine/peripheral", 0), -EREMOTEIO);
}

static void check_human(struct vmm *v, struct answer *a)
{
	struct hf_qmp_ramblock blocks[32];
	struct hf_qmp_romfile files[32];
	struct hf_qmp_rom roms[32];
	bool found = false;
	const char *text;
	size_t i, n, size;

	must(v, a, hf_qmp_human_command, "info ramblock");
	assert_int_equal(hf_qmp_parse_text(a->ret, &text, &size), 0);
	assert_int_equal(hf_qmp_parse_ramblocks(text, size, blocks, HF_ARRAY_SIZE(blocks), &n), 0);
	for (i = 0; i < n; i++) {
		if (!strcmp(blocks[i].name, "pc.ram")) {
			found = true;
			assert_int_equal(blocks[i].total_bytes, RAM_BYTES);
			assert_int_equal(blocks[i].page_bytes, 4096);
		}
	}
	assert_true(found);
	must(v, a, hf_qmp_human_command, "info roms");
	assert_int_equal(hf_qmp_parse_text(a->ret, &text, &size), 0);
	assert_int_equal(hf_qmp_parse_roms(text, size, roms, HF_ARRAY_SIZE(roms), &n), 0);
	for (i = 0, found = false; i < n; i++)
		found |= strstr(roms[i].name, "bios") != NULL;
	assert_true(found);
	must(v, a, hf_qmp_human_command, "info qtree");
	assert_int_equal(hf_qmp_parse_text(a->ret, &text, &size), 0);
	assert_int_equal(hf_qmp_parse_romfiles(text, size, files, HF_ARRAY_SIZE(files), &n), 0);
	assert_int_equal(n, 1);
	assert_string_equal(files[0].name, "efi-e1000.rom");
}

static void check_refusals(struct vmm *v, struct answer *a)
{
	assert_int_equal(ask(v, a, hf_qmp_qom_get, "/machine", "no-such-thing"), -EREMOTEIO);
	assert_non_null(strstr(a->error.message, "no-such-thing"));
	assert_int_equal(ask(v, a, hf_qmp_qom_get, "/nowhere", "x"), -ENODEV);
	*a = (struct answer){0};
	assert_int_equal(
		hf_qmp_command(v->q, "no-such-command", NULL, -EBADF, 0, on_answer, a, NULL), 0);
	wait_for(v, &a->done);
	assert_int_equal(a->err, -EOPNOTSUPP);
	assert_non_null(strstr(a->error.message, "no-such-command"));
	assert_int_equal(ask(v, a, hf_qmp_closefd, "never-given"), -EREMOTEIO);
}

/* A second client of a monitor in use is not greeted. */
static void check_taken(struct vmm *v)
{
	struct vmm first = {.event = v->event}, second = {.event = v->event};
	struct hf_error error;

	assert_int_equal(
		hf_qmp_connect(v->event, monitor, 0, 0, &ops, &first, &first.q, &error), 0);
	wait_for(v, &first.ready);
	assert_int_equal(hf_qmp_connect(v->event, monitor, 0, 300 * HF_NSEC_PER_MSEC, &ops, &second,
				 &second.q, &error),
		0);
	wait_for(v, &second.closed);
	assert_int_equal(second.closed_err, -EBUSY);
	hf_qmp_free(second.q);
	hf_qmp_free(first.q);
}

static void set_capabilities(struct vmm *v, struct answer *a, bool on)
{
	const struct hf_qmp_capability caps[] = {{"x-ignore-shared", on}, {"events", true}};
	bool is;

	must(v, a, hf_qmp_migrate_set_capabilities, caps, HF_ARRAY_SIZE(caps));
	must(v, a, hf_qmp_query_migrate_capabilities);
	assert_int_equal(hf_qmp_parse_capability(a->ret, "x-ignore-shared", &is), 0);
	assert_int_equal(is, on);
	assert_int_equal(hf_qmp_parse_capability(a->ret, "no-such-one", &is), -ENOENT);
}

static void set_parameters(struct vmm *v, struct answer *a)
{
	struct hf_qmp_migrate_parameters p = {.has_max_bandwidth = true};

	if (hf_qmp_at_least(v->q, 8, 2))
		strcpy(p.mode, "cpr-reboot");
	must(v, a, hf_qmp_migrate_set_parameters, &p);
	must(v, a, hf_qmp_query_migrate_parameters);
	assert_int_equal(hf_qmp_parse_migrate_parameters(a->ret, &p), 0);
	assert_int_equal(p.max_bandwidth, 0);
	assert_string_equal(p.mode, hf_qmp_at_least(v->q, 8, 2) ? "cpr-reboot" : "");
}

/* Takes what a socket has into a memfd. At the end: true. */
static bool pump(int sock, int out)
{
	char buf[65536];
	ssize_t n = recv(sock, buf, sizeof(buf), MSG_DONTWAIT);

	if (n > 0)
		assert_int_equal(hf_fd_write_full(out, buf, (size_t)n), 0);
	return n == 0;
}

/*
 * Saves into @state_fd. Two descriptors are given at once, without waiting between: QEMU must have
 * both under the right names.
 */
static void save(struct vmm *v, struct answer *a, int state_fd)
{
	int right[2], wrong[2];
	struct hf_qmp_migration m;
	struct hf_qmp_status status;
	char byte;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, right), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, wrong), 0);
	assert_int_equal(hf_qmp_getfd(v->q, "right", right[1], 0, NULL, NULL, NULL), 0);
	assert_int_equal(hf_qmp_getfd(v->q, "wrong", wrong[1], 0, NULL, NULL, NULL), 0);
	close(right[1]);
	close(wrong[1]);
	v->over = false;
	must(v, a, hf_qmp_migrate, "fd:right");
	while (!pump(right[0], state_fd) || !v->over)
		assert_true(sd_event_run(v->event, 2000) >= 0);
	assert_int_equal(v->last, HF_QMP_MIGRATION_COMPLETED);
	assert_int_equal(recv(wrong[0], &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	must(v, a, hf_qmp_closefd, "wrong");
	assert_int_equal(recv(wrong[0], &byte, 1, 0), 0);
	close(right[0]);
	close(wrong[0]);
	do {
		must(v, a, hf_qmp_query_migrate);
		assert_int_equal(hf_qmp_parse_migration(a->ret, &m), 0);
		assert_int_equal(m.status, HF_QMP_MIGRATION_COMPLETED);
		must(v, a, hf_qmp_query_status);
		assert_int_equal(hf_qmp_parse_status(a->ret, &status), 0);
	} while (status.state != HF_QMP_RUN_POSTMIGRATE);
	assert_true(m.has_ram);
	assert_int_equal(m.n_blockers, 0);
	/* RAM stayed out. */
	assert_true(m.ram_transferred_bytes > 0 && m.ram_transferred_bytes < (4u << 20));
}

/* Gives QEMU the far end of a socket, as 11.1 wants no regular file by `fd:`. Returns the near end.
 */
static int give_socket(struct vmm *v)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(hf_qmp_getfd(v->q, "state", pair[1], 0, NULL, NULL, NULL), 0);
	close(pair[1]);
	return pair[0];
}

static void load(struct vmm *v, struct answer *a, int state_fd)
{
	struct hf_qmp_status status;
	struct hf_inode inode;
	uint64_t size;
	size_t sent = 0;
	char *state;
	int sock;

	assert_int_equal(hf_fd_inode(state_fd, &inode, &size), 0);
	state = malloc(size);
	assert_int_equal(pread(state_fd, state, size, 0), size);
	sock = give_socket(v);
	v->over = false;
	must(v, a, hf_qmp_migrate_incoming, "fd:state");
	while (sent < size) {
		ssize_t n = send(sock, state + sent, size - sent, MSG_DONTWAIT);

		sent += n > 0 ? (size_t)n : 0;
		assert_true(sd_event_run(v->event, 2000) >= 0);
	}
	free(state);
	close(sock);
	wait_for(v, &v->over);
	assert_int_equal(v->last, HF_QMP_MIGRATION_COMPLETED);
	must(v, a, hf_qmp_query_status);
	assert_int_equal(hf_qmp_parse_status(a->ret, &status), 0);
	assert_false(status.running);
	v->resumed = false;
	must(v, a, hf_qmp_cont);
	wait_for(v, &v->resumed);
	must(v, a, hf_qmp_query_status);
	assert_int_equal(hf_qmp_parse_status(a->ret, &status), 0);
	assert_true(status.running);
	must(v, a, hf_qmp_announce_self, NULL);
}

/* A state that is none: from 9.1 on QEMU lives to tell; before, it is gone. */
static void load_garbage(int ram_fd)
{
	struct hf_qmp_migration m;
	struct answer a = {0};
	struct vmm v;
	static const char garbage[4096];
	int sock;

	vmm_start(&v, ram_fd, false, true);
	wait_for(&v, &v.ready);
	set_capabilities(&v, &a, true);
	sock = give_socket(&v);
	assert_int_equal(send(sock, garbage, sizeof(garbage), 0), sizeof(garbage));
	close(sock);
	if (hf_qmp_at_least(v.q, 9, 1)) {
		must(&v, &a, hf_qmp_migrate_incoming, "fd:state");
		wait_for(&v, &v.over);
		assert_int_equal(v.last, HF_QMP_MIGRATION_FAILED);
		must(&v, &a, hf_qmp_query_migrate);
		assert_int_equal(hf_qmp_parse_migration(a.ret, &m), 0);
		assert_int_equal(m.status, HF_QMP_MIGRATION_FAILED);
		assert_true(strlen(m.error_desc) > 0);
	} else {
		ask(&v, &a, hf_qmp_migrate_incoming, "fd:state");
		wait_for(&v, &v.closed);
		assert_int_equal(v.closed_err, -ECONNRESET);
	}
	json_object_put(a.ret);
	vmm_end(&v);
}

/* The whole way that a guest goes. */
static void try_one(void)
{
	struct vmm v;
	struct answer a = {0};
	cleanup_close int ram_fd = -EBADF, state_fd = -EBADF;
	struct hf_qmp_status status;

	assert_int_equal(hf_memfd_new("ram", RAM_BYTES, &ram_fd), 0);
	assert_int_equal(hf_memfd_new("state", 0, &state_fd), 0);
	vmm_start(&v, ram_fd, false, false);
	/* Submitted before there is anybody to hear it. */
	must(&v, &a, hf_qmp_query_status);
	assert_true(v.ready);
	printf("    QEMU %u.%u.%u: %s\n", hf_qmp_get_version(v.q)->major,
		hf_qmp_get_version(v.q)->minor, hf_qmp_get_version(v.q)->micro, qemu);
	check_identity(&v, &a);
	check_parts(&v, &a);
	check_virtio(&v, &a);
	check_human(&v, &a);
	check_refusals(&v, &a);
	check_taken(&v);
	must(&v, &a, hf_qmp_stop);
	must(&v, &a, hf_qmp_cont);
	set_capabilities(&v, &a, true);
	set_parameters(&v, &a);
	if (!hf_qmp_at_least(v.q, 8, 2))
		must(&v, &a, hf_qmp_stop);
	save(&v, &a, state_fd);
	set_capabilities(&v, &a, false);
	/* The way back. */
	must(&v, &a, hf_qmp_cont);
	must(&v, &a, hf_qmp_query_status);
	assert_int_equal(hf_qmp_parse_status(a.ret, &status), 0);
	assert_true(status.running);
	ask(&v, &a, hf_qmp_quit);
	wait_for(&v, &v.closed);
	vmm_end(&v);

	/* The next one, by a socket that isn't there yet when we ask for it. */
	vmm_start(&v, ram_fd, true, true);
	wait_for(&v, &v.ready);
	set_capabilities(&v, &a, true);
	load(&v, &a, state_fd);
	json_object_put(a.ret);
	vmm_end(&v);
	load_garbage(ram_fd);
	n_tried++;
}

static void test_each(void **state)
{
	const char *only = getenv("HOLDFAST_TEST_QEMU"), *cache = getenv("HOLDFAST_CACHE");
	char pattern[256];
	glob_t g = {0};
	size_t i;

	if (only) {
		qemu = only;
		try_one();
		return;
	}
	if (access("/usr/bin/qemu-system-x86_64", X_OK) == 0) {
		qemu = "/usr/bin/qemu-system-x86_64";
		try_one();
	}
	if (cache)
		snprintf(pattern, sizeof(pattern), "%s/qemu/*/qemu-system-x86_64", cache);
	else
		snprintf(pattern, sizeof(pattern), "%s/.cache/holdfast/qemu/*/qemu-system-x86_64",
			getenv("HOME") ? getenv("HOME") : "");
	if (glob(pattern, 0, NULL, &g) == 0) {
		for (i = 0; i < g.gl_pathc; i++) {
			qemu = g.gl_pathv[i];
			try_one();
		}
	}
	globfree(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_each)};
	int r;

	strcpy(folder, "/tmp/hf-test-qmp-real.XXXXXX");
	if (!mkdtemp(folder))
		return 1;
	snprintf(monitor, sizeof(monitor), "%s/qmp", folder);
	signal(SIGPIPE, SIG_IGN);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(monitor);
	rmdir(folder);
	if (r == 0 && !n_tried) {
		printf("no QEMU on this machine\n");
		return 77;
	}
	return r;
}
