/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Running the installed QEMU for what it prints (see installed.h).
 *
 * Each thing asked is a process of its own, and all of a program's run side by side. A process is
 * done when it has ended; what it wrote until then counts, so that one that leaves a child behind
 * with its output open holds up nobody.
 */
#include "vmm-glue/installed.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "vmm-glue/spawn.h"

#define MAX_PROGRAMS 64
#define MAX_OUTPUT_BYTES (64u * 1024u)
#define MAX_WAITERS 4096

enum question {
	ASK_VERSION,
	ASK_MACHINES,
	ASK_DIRS,
	N_QUESTIONS,
};

static const char *const questions[N_QUESTIONS][2] = {
	[ASK_VERSION] = {"--version", NULL},
	[ASK_MACHINES] = {"-machine", "help"},
	[ASK_DIRS] = {"-L", "help"},
};

struct program;

/* One process that was asked something. */
struct run {
	struct program *program;
	struct hf_child *child; /* NULL: not running */
	int fd;
	sd_event_source *io;
	char *text;
	size_t size;
	bool too_much;
};

struct waiter {
	hf_installed_done_fn done;
	void *data;
};

/* What makes a file another one. */
struct identity {
	struct hf_inode inode;
	struct timespec changed;
	bool is_binary; /* what it does is in itself, and not in what it calls */
};

struct program {
	struct hf_installed *in;
	char *path;
	uid_t uid;
	gid_t gid;
	uint64_t used; /* when it was asked for last */
	struct identity identity;
	bool known;
	struct hf_installed_vmm answer;
	struct run runs[N_QUESTIONS];
	size_t n_running; /* 0: not under way */
	sd_event_source *deadline;
	struct waiter *waiters;
	size_t n_waiters;
};

struct hf_installed {
	sd_event *event;
	struct program *programs[MAX_PROGRAMS];
	size_t n_programs;
	uint64_t clock;
};

/* ---- life ---- */

static void forget_answer(struct program *p)
{
	free(p->answer.machines);
	free(p->answer.data_dirs);
	p->answer = (struct hf_installed_vmm){0};
	p->known = false;
}

static void end_run(struct run *run)
{
	run->io = sd_event_source_disable_unref(run->io);
	hf_close(&run->fd);
	free(TAKE_PTR(run->text));
	if (!run->child)
		return;
	if (!hf_child_exited(run->child))
		hf_child_kill(run->child);
	hf_child_release(TAKE_PTR(run->child));
}

static void program_free(struct program *p)
{
	for (size_t i = 0; i < N_QUESTIONS; i++)
		end_run(&p->runs[i]);
	sd_event_source_disable_unref(p->deadline);
	forget_answer(p);
	free(p->waiters);
	free(p->path);
	free(p);
}

int hf_installed_new(sd_event *event, struct hf_installed **ret)
{
	struct hf_installed *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	in->event = sd_event_ref(event);
	*ret = in;
	return 0;
}

struct hf_installed *hf_installed_free(struct hf_installed *in)
{
	if (!in)
		return NULL;
	for (size_t i = 0; i < in->n_programs; i++)
		program_free(in->programs[i]);
	sd_event_unref(in->event);
	free(in);
	return NULL;
}

/* ---- answers ---- */

/* The last line of what a program said, for people. */
static void last_words(const struct run *run, char *buf, size_t size)
{
	size_t end = run->size, begin, used = 0;

	while (end > 0 && (unsigned char)run->text[end - 1] <= ' ')
		end--;
	begin = end;
	while (begin > 0 && run->text[begin - 1] != '\n')
		begin--;
	for (size_t i = begin; i < end && used + 1 < size; i++)
		buf[used++] = (unsigned char)run->text[i] < ' ' ? ' ' : run->text[i];
	buf[used] = 0;
}

static void take_version(struct program *p, const struct run *run)
{
	struct hf_installed_vmm *a = &p->answer;
	char how[128], words[200] = "";

	if (!run->too_much && run->text &&
		hf_installed_parse_version(run->text, run->size, &a->version) == 0)
		return;
	if (run->text)
		last_words(run, words, sizeof(words));
	hf_child_describe(run->child, how, sizeof(how));
	/* One that fails at this does not get as far as a guest. */
	hf_error_set(&a->error,
		hf_child_succeeded(run->child) || run->too_much ? -EBADMSG : -ENOEXEC,
		HF_ERR_FAILED, NULL, "`%.256s --version` %s without saying which QEMU it is%s%s",
		p->path, how, words[0] ? ": " : "", words);
}

static void take_answers(struct program *p)
{
	const struct run *machines = &p->runs[ASK_MACHINES], *dirs = &p->runs[ASK_DIRS];

	take_version(p, &p->runs[ASK_VERSION]);
	/* Good to have, but nothing is wrong without them. */
	if (machines->text && !machines->too_much)
		hf_installed_parse_machines(machines->text, machines->size, &p->answer.machines);
	if (dirs->text && !dirs->too_much)
		hf_installed_parse_dirs(dirs->text, dirs->size, &p->answer.data_dirs);
}

static void finish(struct program *p)
{
	struct waiter *waiters = TAKE_PTR(p->waiters);
	size_t n = p->n_waiters;

	p->n_waiters = 0;
	p->n_running = 0;
	p->known = true;
	p->deadline = sd_event_source_disable_unref(p->deadline);
	for (size_t i = 0; i < N_QUESTIONS; i++)
		end_run(&p->runs[i]);
	for (size_t i = 0; i < n; i++)
		waiters[i].done(waiters[i].data);
	free(waiters);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *data)
{
	struct program *p = data;

	hf_error_set(&p->answer.error, -ETIMEDOUT, HF_ERR_FAILED, NULL,
		"`%s` does not answer when it is asked for its version", p->path);
	finish(p);
	return 0;
}

/* Return: 1: there may be more; 0: no more is wanted or will come; -EAGAIN: nothing now. */
static int read_some(struct run *run)
{
	ssize_t n;

	if (!run->text)
		run->text = malloc(MAX_OUTPUT_BYTES);
	if (!run->text)
		return 0;
	if (run->size == MAX_OUTPUT_BYTES) {
		run->too_much = true;
		return 0;
	}
	n = read(run->fd, run->text + run->size, MAX_OUTPUT_BYTES - run->size);
	if (n > 0)
		run->size += (size_t)n;
	if (n < 0 && errno == EAGAIN)
		return -EAGAIN;
	return n > 0 || (n < 0 && errno == EINTR);
}

static int on_output(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct run *run = data;

	if (read_some(run) != 0)
		return 0;
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	/* Nobody reads on: it would wait for ever. */
	if (run->too_much)
		hf_child_kill(run->child);
	return 0;
}

static void on_exit_run(struct hf_child *child, void *data)
{
	struct run *run = data;
	struct program *p = run->program;

	while (read_some(run) > 0)
		;
	if (--p->n_running > 0)
		return;
	take_answers(p);
	finish(p);
}

/* ---- questions ---- */

static int start_run(struct run *run, const struct hf_manifest_guest *guest,
	const char *const question[2], struct hf_error *e)
{
	struct hf_spawn_spec spec = hf_spawn_spec_of(guest);
	cleanup_close int theirs = -EBADF;
	char *argv[] = {guest->n_argv > 0 ? guest->argv[0] : guest->vmm,
		(char *)(uintptr_t)question[0], (char *)(uintptr_t)question[1], NULL};
	int pipe_fds[2], r;

	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "can't make a pipe: %s", strerror(errno));
	run->fd = pipe_fds[0];
	theirs = pipe_fds[1];
	if (fcntl(run->fd, F_SETFL, O_NONBLOCK) < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "pipe: %s", strerror(errno));
	spec.argv = argv;
	spec.output_fd = theirs;
	r = hf_spawn(run->program->in->event, &spec, on_exit_run, run, &run->child, e);
	if (r < 0)
		return r;
	run->program->n_running++;
	r = sd_event_add_io(run->program->in->event, &run->io, run->fd, EPOLLIN, on_output, run);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "pipe: %s", strerror(-r));
	return 0;
}

/* These say that a respawn would fail as well; the others may be over by then. */
static bool is_lasting(int err)
{
	return err == -ENOENT || err == -EACCES || err == -ENOTDIR || err == -ENOEXEC ||
	       err == -EPERM || err == -ELOOP || err == -ENAMETOOLONG || err == -EISDIR;
}

static int start(struct program *p, const struct hf_manifest_guest *guest, uint64_t timeout_ns)
{
	struct hf_error *e = &p->answer.error;
	int r;

	forget_answer(p);
	for (size_t i = 0; i < N_QUESTIONS; i++)
		p->runs[i] = (struct run){.program = p, .fd = -EBADF};
	r = sd_event_add_time_relative(p->in->event, &p->deadline, CLOCK_MONOTONIC,
		timeout_ns / HF_NSEC_PER_USEC, 1000, on_deadline, p);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "timer: %s", strerror(-r));
	for (size_t i = 0; i < N_QUESTIONS; i++) {
		r = start_run(&p->runs[i], guest, questions[i], e);
		if (r < 0)
			break;
	}
	if (r < 0 && is_lasting(r))
		e->err = -ENOEXEC;
	return r;
}

static void identify(const char *path, struct identity *ret)
{
	cleanup_close int fd = -EBADF;
	char magic[4] = "";
	struct stat st;

	*ret = (struct identity){0};
	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	ret->inode = (struct hf_inode){st.st_dev, st.st_ino};
	ret->changed = st.st_mtim;
	ret->is_binary = pread(fd, magic, sizeof(magic), 0) == sizeof(magic) &&
			 memcmp(magic, "\177ELF", sizeof(magic)) == 0;
}

static bool is_same(const struct identity *a, const struct identity *b)
{
	return a->is_binary && b->is_binary && hf_inode_equal(&a->inode, &b->inode) &&
	       a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Without one in PATH the bare name does: the answer is that there is none. */
static int path_of(const struct hf_manifest_guest *guest, char *path, size_t size)
{
	struct hf_spawn_spec spec = hf_spawn_spec_of(guest);

	if (!guest->vmm)
		return -EINVAL;
	if (hf_spawn_find(&spec, path, size) < 0)
		snprintf(path, size, "%s", guest->vmm);
	return 0;
}

static struct program *find(
	const struct hf_installed *in, const struct hf_manifest_guest *guest, const char *path)
{
	for (size_t i = 0; i < in->n_programs; i++) {
		struct program *p = in->programs[i];

		if (p->uid == guest->uid && p->gid == guest->gid && strcmp(p->path, path) == 0)
			return p;
	}
	return NULL;
}

/* Room for one more: the one that nobody asked for the longest goes. */
static int make_room(struct hf_installed *in)
{
	size_t oldest = MAX_PROGRAMS;

	if (in->n_programs < MAX_PROGRAMS)
		return 0;
	for (size_t i = 0; i < in->n_programs; i++)
		if (in->programs[i]->n_running == 0 &&
			(oldest == MAX_PROGRAMS ||
				in->programs[i]->used < in->programs[oldest]->used))
			oldest = i;
	if (oldest == MAX_PROGRAMS)
		return -ENOBUFS;
	program_free(in->programs[oldest]);
	in->programs[oldest] = in->programs[--in->n_programs];
	return 0;
}

static int add(struct hf_installed *in, const struct hf_manifest_guest *guest, const char *path,
	struct program **ret)
{
	struct program *p;
	int r = make_room(in);

	if (r < 0)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct program){.in = in, .path = strdup(path), .uid = guest->uid, .gid = guest->gid};
	for (size_t i = 0; i < N_QUESTIONS; i++)
		p->runs[i].fd = -EBADF;
	if (!p->path) {
		free(p);
		return -ENOMEM;
	}
	in->programs[in->n_programs++] = *ret = p;
	return 0;
}

static int add_waiter(struct program *p, hf_installed_done_fn done, void *data)
{
	struct waiter *waiters;

	if (p->n_waiters == MAX_WAITERS)
		return -ENOBUFS;
	waiters = reallocarray(p->waiters, p->n_waiters + 1, sizeof(*waiters));
	if (!waiters)
		return -ENOMEM;
	p->waiters = waiters;
	waiters[p->n_waiters++] = (struct waiter){done, data};
	return 0;
}

int hf_installed_ask(struct hf_installed *in, const struct hf_manifest_guest *guest,
	uint64_t timeout_ns, hf_installed_done_fn done, void *data)
{
	struct identity now;
	struct program *p;
	char path[4096];
	int r = path_of(guest, path, sizeof(path));

	if (r < 0)
		return r;
	p = find(in, guest, path);
	if (!p)
		r = add(in, guest, path, &p);
	if (r < 0)
		return r;
	p->used = ++in->clock;
	if (p->n_running > 0)
		return add_waiter(p, done, data);
	identify(path, &now);
	if (p->known && p->answer.error.err == 0 && is_same(&now, &p->identity))
		return 1;
	p->identity = now;
	if (start(p, guest, timeout_ns) < 0) {
		finish(p);
		return 1;
	}
	r = add_waiter(p, done, data);
	if (r < 0)
		finish(p);
	return r;
}

const struct hf_installed_vmm *hf_installed_get(
	const struct hf_installed *in, const struct hf_manifest_guest *guest)
{
	const struct program *p;
	char path[4096];

	if (path_of(guest, path, sizeof(path)) < 0)
		return NULL;
	p = find(in, guest, path);
	return p && p->known ? &p->answer : NULL;
}
