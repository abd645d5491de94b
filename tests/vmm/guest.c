/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vmm/guest.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include "common/fd.h"
#include "vmm-glue/cmdline.h"

extern char **environ;

const char *test_qemu(void)
{
	const char *qemu = getenv("HOLDFAST_TEST_QEMU");

	return qemu && qemu[0] ? qemu : "qemu-system-x86_64";
}

unsigned int test_qemu_major(void)
{
	static unsigned int major;
	char command[512], line[128] = "";
	FILE *f;

	if (major)
		return major;
	snprintf(command, sizeof(command), "%s --version", test_qemu());
	f = popen(command, "r");
	if (f && fgets(line, sizeof(line), f))
		sscanf(line, "QEMU emulator version %u.", &major);
	if (f)
		pclose(f);
	return major;
}

/* A test that fails leaves by longjmp(): its QEMUs and folders are cleared away at the very end. */
static int leftover_pidfds[512];
static size_t n_leftovers;
static char leftover_dirs[256][64];
static size_t n_dirs;

static void clear_away(void)
{
	char command[20480];

	for (size_t i = 0; i < n_leftovers; i++)
		syscall(SYS_pidfd_send_signal, leftover_pidfds[i], SIGKILL, NULL, 0);
	for (size_t i = 0; i < n_dirs; i++) {
		snprintf(command, sizeof(command), "rm -rf %s", leftover_dirs[i]);
		if (system(command) != 0)
			fprintf(stderr, "can't remove %s\n", leftover_dirs[i]);
	}
}

static void note_process(pid_t pid)
{
	int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

	if (fd >= 0 && n_leftovers < HF_ARRAY_SIZE(leftover_pidfds))
		leftover_pidfds[n_leftovers++] = fd;
}

static void note_folder(const char *dir)
{
	if (n_dirs == 0)
		atexit(clear_away);
	if (n_dirs < HF_ARRAY_SIZE(leftover_dirs) && !getenv("HOLDFAST_TEST_KEEP"))
		snprintf(leftover_dirs[n_dirs++], sizeof(leftover_dirs[0]), "%s", dir);
}

static void on_gone(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct test_guest *t = data;

	t->n_gone++;
	t->gone_error = *error;
}

void guest_new_vmm(struct test_guest *t)
{
	hf_vmm_free(t->vmm);
	t->vmm = NULL;
	assert_int_equal(hf_vmm_new(t->event, t->guest, t->ring, on_gone, t, &t->vmm), 0);
}

void guest_init(struct test_guest *t, const char *const *args, size_t n)
{
	const char *argv[64] = {test_qemu()};
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	struct hf_error e = {0};
	char path[128];
	size_t n_env = 0;

	*t = (struct test_guest){.timeout_ns = TEST_TIMEOUT_NS};
	for (size_t i = 0; i < HF_ARRAY_SIZE(t->ram_fds); i++)
		t->ram_fds[i] = -EBADF;
	snprintf(t->dir, sizeof(t->dir), "/tmp/hf-vmm.XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	note_folder(t->dir);
	setenv("HOLDFAST_LOG_DIR", t->dir, 1);
	setenv("HOLDFAST_RUN_DIR", t->dir, 1);
	assert_true(sd_event_new(&t->event) >= 0);
	assert_int_equal(hf_stream_ring_new(t->event, &t->ring, &e), 0);
	assert_int_equal(hf_manifest_new(&t->manifest), 0);
	assert_int_equal(hf_manifest_add_guest(t->manifest, &t->guest), 0);
	memcpy(argv + 1, args, n * sizeof(args[0]));
	while (environ[n_env])
		n_env++;
	snprintf(t->guest->uuid, sizeof(t->guest->uuid), "11111111-2222-3333-4444-555555555555");
	hf_manifest_set(&t->guest->name, "testguest");
	hf_manifest_set(&t->guest->manager, "qemu");
	hf_manifest_set(&t->guest->policy, "refuse");
	hf_manifest_set(&t->guest->session, "holdfast-test");
	hf_manifest_set(&t->guest->vmm, test_qemu());
	hf_manifest_set_strings(&t->guest->argv, &t->guest->n_argv, argv, n + 1);
	hf_manifest_set_strings(
		&t->guest->env, &t->guest->n_env, (const char *const *)environ, n_env);
	hf_manifest_set(&t->guest->cwd, t->dir);
	snprintf(path, sizeof(path), "%s/qmp", t->dir);
	hf_manifest_set(&t->guest->qmp_path, path);
	t->guest->uid = getuid();
	t->guest->gid = getgid();
	t->guest->umask = 022;
	if (hf_cmdline_parse(argv, n + 1, &plan, &e) < 0 || plan->reason[0])
		fail_msg("%s%s", e.message, plan ? plan->reason : "");
	for (size_t i = 0; i < plan->n_ram; i++) {
		struct hf_manifest_ram *ram = hf_manifest_add_ram(t->guest);

		hf_manifest_set(&ram->id, plan->ram[i].id);
		ram->size = plan->ram[i].size;
		ram->fd = 10 + (int)i; /* not what a respawn takes */
		assert_int_equal(hf_memfd_new("ram", ram->size, &t->ram_fds[i]), 0);
	}
	guest_new_vmm(t);
}

void guest_start(struct test_guest *t)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	cleanup_free char **argv = NULL;
	int numbers[8];
	struct hf_error e = {0};

	for (size_t i = 0; i < t->guest->n_ram; i++)
		numbers[i] = t->guest->ram[i].fd;
	assert_int_equal(
		hf_cmdline_parse((const char *const *)t->guest->argv, t->guest->n_argv, &plan, &e),
		0);
	assert_int_equal(hf_cmdline_build(plan,
				 &(struct hf_cmdline_how){
					 .ram_fds = numbers, .qmp_path = t->guest->qmp_path},
				 &argv, NULL, &e),
		0);
	guest_start_as(t, argv);
}

void guest_start_as(struct test_guest *t, char *const *argv)
{
	struct hf_spawn_fd fds[8];
	char log[128];
	struct hf_error e = {0};
	struct stat st;

	for (size_t i = 0; i < t->guest->n_ram; i++)
		fds[i] = (struct hf_spawn_fd){t->ram_fds[i], t->guest->ram[i].fd};
	snprintf(log, sizeof(log), "%s/first.log", t->dir);
	if (hf_spawn(t->event,
		    &(struct hf_spawn_spec){
			    .program = t->guest->vmm,
			    .argv = argv,
			    .envp = t->guest->env,
			    .cwd = t->guest->cwd,
			    .uid = t->guest->uid,
			    .gid = t->guest->gid,
			    .umask = t->guest->umask,
			    .fds = fds,
			    .n_fds = t->guest->n_ram,
			    .log_path = log,
		    },
		    NULL, NULL, &t->child, &e) < 0)
		fail_msg("%s", e.message);
	note_process(hf_child_pid(t->child));
	for (int i = 0; stat(t->guest->qmp_path, &st) < 0; i++) {
		if (i == 1000 || hf_child_exited(t->child)) {
			char how[480];

			hf_child_describe(t->child, how, sizeof(how));
			fail_msg("QEMU's monitor does not appear: it %s", how);
		}
		sd_event_run(t->event, 10000);
	}
	/* QEMU listens a moment after it binds. */
	usleep(10000);
}

void guest_free(struct test_guest *t)
{
	if (t->vmm && hf_vmm_pid(t->vmm)) {
		struct outcome *o = &t->outcome;

		*o = (struct outcome){0};
		if (hf_vmm_quit(t->vmm, HF_NSEC_PER_SEC / 10, guest_on_done, t) == 0)
			while (!o->over)
				sd_event_run(t->event, UINT64_MAX);
	}
	hf_vmm_free(t->vmm);
	if (t->child) {
		hf_child_kill(t->child);
		while (!hf_child_exited(t->child))
			sd_event_run(t->event, UINT64_MAX);
		hf_child_release(t->child);
	}
	hf_sink_release(&t->sink);
	for (size_t i = 0; i < HF_ARRAY_SIZE(t->ram_fds); i++)
		hf_close(&t->ram_fds[i]);
	for (size_t i = 0; i < t->n_state_fds; i++)
		hf_close(&t->state_fds[i]);
	hf_stream_ring_free(t->ring);
	hf_manifest_free(t->manifest);
	sd_event_unref(t->event);
}

void guest_add_chunk(struct test_guest *t, uint64_t capacity)
{
	struct hf_manifest_chunk *chunk = hf_manifest_add_chunk(t->guest);
	struct hf_error e = {0};
	int fd;

	assert_non_null(chunk);
	assert_int_equal(hf_memfd_new("state", capacity, &fd), 0);
	t->state_fds[t->n_state_fds++] = fd;
	chunk->capacity = capacity;
	assert_int_equal(hf_sink_add(&t->sink, fd, capacity, 0, &e), 0);
}

int guest_grow(void *data, struct hf_sink *sink, struct hf_error *e)
{
	struct test_guest *t = data;

	if (!t->grow_bytes)
		return hf_error_set(e, -ENOSPC, HF_ERR_FAILED, NULL, "no more memfds");
	guest_add_chunk(t, t->grow_bytes);
	return 0;
}

/* ---- operations ---- */

void guest_on_done(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct test_guest *t = data;

	assert_false(t->outcome.over);
	t->outcome.over = true;
	if (error)
		t->outcome.error = *error;
}

int guest_wait(struct test_guest *t)
{
	while (!t->outcome.over)
		assert_true(sd_event_run(t->event, UINT64_MAX) >= 0);
	if (t->outcome.error.err && getenv("HOLDFAST_TEST_VERBOSE"))
		print_message("    %d %s: %s (%s)\n", t->outcome.error.err, t->outcome.error.name,
			t->outcome.error.message, t->outcome.error.remedy);
	return t->outcome.error.err;
}

#define RUN(t, call) \
	({ \
		int run_r_; \
		(t)->outcome = (struct outcome){0}; \
		run_r_ = (call); \
		assert_false((t)->outcome.over); \
		run_r_ < 0 ? run_r_ : guest_wait(t); \
	})

int guest_attach(struct test_guest *t)
{
	uint64_t ticks = 0;
	pid_t pid = hf_child_pid(t->child);

	assert_int_equal(hf_pid_start_time(pid, &ticks), 0);
	return RUN(t, hf_vmm_attach(t->vmm, pid, ticks, HF_MIN(t->timeout_ns, 6 * HF_NSEC_PER_SEC),
			      guest_on_done, t));
}

int guest_save(struct test_guest *t)
{
	int r = RUN(t, hf_vmm_save(t->vmm, &t->sink, guest_grow, t->timeout_ns, guest_on_done, t));

	for (size_t i = 0; i < t->sink.n_chunks; i++)
		t->guest->state[i].length = t->sink.chunks[i].length;
	return r;
}

int guest_rollback(struct test_guest *t)
{
	return RUN(t, hf_vmm_rollback(t->vmm, t->timeout_ns, guest_on_done, t));
}

int guest_quit(struct test_guest *t)
{
	return RUN(t, hf_vmm_quit(t->vmm, t->timeout_ns, guest_on_done, t));
}

int guest_respawn(struct test_guest *t)
{
	int r = RUN(t,
		hf_vmm_respawn(t->vmm, t->ram_fds, t->state_fds, t->timeout_ns, guest_on_done, t));

	note_process(hf_vmm_pid(t->vmm));
	return r;
}

int guest_resume(struct test_guest *t)
{
	return RUN(t, hf_vmm_resume(t->vmm, t->timeout_ns, guest_on_done, t));
}

static int on_timer(sd_event_source *s, uint64_t usec, void *data)
{
	*(bool *)data = true;
	return 0;
}

void guest_run_for(struct test_guest *t, uint64_t usec)
{
	sd_event_source *s = NULL;
	bool over = false;

	assert_true(sd_event_add_time_relative(
			    t->event, &s, CLOCK_MONOTONIC, usec, 1, on_timer, &over) >= 0);
	while (!over)
		sd_event_run(t->event, UINT64_MAX);
	sd_event_source_unref(s);
}

/* A client of its own, blocking and simple: the thing under test must not check itself. */
void guest_ask(struct test_guest *t, const char *command, char *buf, size_t size)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	cleanup_close int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static char all[65536];
	size_t n = 0;
	char text[512];
	char *p;

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", t->guest->qmp_path);
	for (int i = 0; connect(s, (struct sockaddr *)&sa, sizeof(sa)) < 0; i++) {
		assert_true(i < 500);
		usleep(10000);
	}
	n = (size_t)snprintf(text, sizeof(text), "{\"execute\":\"qmp_capabilities\"}\r\n%s%s%s\r\n",
		command[0] == '{' ? ""
				  : "{\"execute\":\"human-monitor-command\",\"id\":1,\"arguments\":"
				    "{\"command-line\":\"",
		command, command[0] == '{' ? "" : "\"}}");
	assert_int_equal(hf_fd_write_full(s, text, n), 0);
	n = 0;
	do {
		ssize_t got = read(s, all + n, sizeof(all) - 1 - n);

		assert_true(got > 0);
		n += (size_t)got;
		all[n] = 0;
		p = strstr(all, "\"id\": 1}");
	} while (!p || !strchr(p, '\n'));
	while (p > all && p[-1] != '\n')
		p--;
	snprintf(buf, size, "%.*s", (int)strcspn(p, "\n"), p);
}

/* ---- RAM ---- */

static uint64_t *map_ram(struct test_guest *t)
{
	uint64_t *p = mmap(
		NULL, t->guest->ram[0].size, PROT_READ | PROT_WRITE, MAP_SHARED, t->ram_fds[0], 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static uint64_t word(uint64_t index, uint64_t seed)
{
	return (index ^ seed) * 0x9e3779b97f4a7c15u;
}

void guest_fill(struct test_guest *t, uint64_t from, uint64_t to, uint64_t seed)
{
	uint64_t *p = map_ram(t);

	for (uint64_t i = from / 8; i < to / 8; i++)
		p[i] = word(i, seed);
	munmap(p, t->guest->ram[0].size);
}

uint64_t guest_count_bad(struct test_guest *t, uint64_t from, uint64_t to, uint64_t seed)
{
	uint64_t *p = map_ram(t);
	uint64_t bad = 0;

	for (uint64_t i = from / 8; i < to / 8; i++)
		if (p[i] != word(i, seed) && bad++ < 3)
			print_message("    word at %#lx is %#lx\n", i * 8, p[i]);
	munmap(p, t->guest->ram[0].size);
	return bad;
}
