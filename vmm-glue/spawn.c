/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Starting processes, and holding them by pidfd (see spawn.h).
 *
 * The child is cloned with CLONE_VM | CLONE_VFORK on a stack of its own: nothing is copied, the
 * parent's thread sleeps until the program is executed, and a failure in the child is simply left
 * in shared memory. In exchange the child may change nothing that the parent sees: signals are
 * blocked throughout, and credentials are set by raw system calls, because glibc's wrappers would
 * try to set those of the parent's threads too.
 */
#include "vmm-glue/spawn.h"

#include <ctype.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/fd.h"
#include "vmm-glue/spawn-internal.h"
#include "vmm-glue/spawner.h"

/* Linux 6.9; Debian 12 has no name for it yet. */
#ifndef PIDFD_SIGNAL_PROCESS_GROUP
#define PIDFD_SIGNAL_PROCESS_GROUP (1u << 2)
#endif

#define CHILD_STACK_BYTES (64u * 1024u)

/* Who starts processes in our place; NULL: nobody. */
static const char *spawner;

/* All that the child needs, prepared by the parent: the child allocates nothing. */
struct child_work {
	const struct hf_spawn_spec *spec;
	const char *path;
	int log_fd;
	int moved[HF_SPAWN_MAX_FDS]; /* copies above every number that is wanted */
	int first_free;		     /* the lowest number that is not wanted */
	bool set_credentials;
	struct hf_limits_missed missed; /* out */
	int err;			/* out: positive errno of the step that failed */
	const char *step;
};

static int child_fail(struct child_work *w, const char *step)
{
	w->err = errno;
	w->step = step;
	return 127;
}

static void child_reset_signals(void)
{
	struct sigaction def = {.sa_handler = SIG_DFL};

	for (int sig = 1; sig < NSIG; sig++)
		sigaction(sig, &def, NULL); /* fails for SIGKILL and the like, which can't differ */
}

static int child_credentials(const struct hf_spawn_spec *s)
{
	if (syscall(SYS_setgroups, s->n_groups, s->groups) < 0)
		return -1;
	if (syscall(SYS_setresgid, s->gid, s->gid, s->gid) < 0)
		return -1;
	return syscall(SYS_setresuid, s->uid, s->uid, s->uid) < 0 ? -1 : 0;
}

static int child_stdio(struct child_work *w)
{
	for (int i = 0; i < 3; i++) {
		const char *path = w->spec->stdio[i];
		int fd = -1;

		/* O_NONBLOCK only for the opening: a FIFO without a reader must not stop us here.
		 */
		if (path && path[0])
			fd = open(path, (i == 0 ? O_RDONLY : O_WRONLY | O_APPEND) | O_NOCTTY |
						O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0)
			fcntl(fd, F_SETFL, i == 0 ? 0 : O_APPEND);
		else if (i > 0 && w->log_fd >= 0)
			fd = fcntl(w->log_fd, F_DUPFD_CLOEXEC, 3);
		else
			fd = open("/dev/null", (i == 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
		if (fd < 0)
			return -1;
		/* 0..2 may be closed in the parent; then open() gave us the very number. */
		if (fd == i ? hf_fd_cloexec(fd, false) < 0 : dup2(fd, i) < 0)
			return -1;
		if (fd > 2)
			close(fd);
	}
	return 0;
}

/* Here, as the kernel lets a process change only itself. Execution keeps the profile. */
static int child_confine(const char *profile)
{
	char command[256];
	int n = snprintf(command, sizeof(command), "changeprofile %s", profile);
	int fd, r;

	if (n >= (int)sizeof(command)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = open("/proc/self/attr/apparmor/current", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	r = write(fd, command, (size_t)n) == n ? 0 : -1;
	n = errno;
	close(fd);
	errno = n;
	return r;
}

static int child_descriptors(struct child_work *w)
{
	const struct hf_spawn_spec *s = w->spec;
	int next = 3;

	for (size_t i = 0; i < s->n_fds; i++) {
		/* dup2() on another number leaves close-on-exec off there. */
		if (dup2(w->moved[i], s->fds[i].number) < 0)
			return -1;
		if (s->fds[i].number > next && close_range(next, s->fds[i].number - 1, 0) < 0)
			return -1;
		next = s->fds[i].number + 1;
	}
	return close_range(next, ~0u, 0);
}

static int child_main(void *arg)
{
	struct child_work *w = arg;
	const struct hf_spawn_spec *s = w->spec;
	sigset_t none;

	child_reset_signals();
	if (setsid() < 0)
		return child_fail(w, "start a session");
	umask(s->umask);
	if (s->limits)
		hf_limits_take(s->limits, &w->missed);
	if (w->set_credentials && child_credentials(s) < 0)
		return child_fail(w, "become the guest's user");
	if (chdir(s->cwd && s->cwd[0] ? s->cwd : "/") < 0)
		return child_fail(w, "enter the folder it was started in");
	if (child_stdio(w) < 0)
		return child_fail(w, "open the standard streams");
	/* Not earlier: its log need not be a file that it may open. */
	if (s->apparmor && child_confine(s->apparmor) < 0)
		return child_fail(w, "enter its AppArmor profile");
	if (child_descriptors(w) < 0)
		return child_fail(w, "arrange the file descriptors");
	/* Not earlier: with as few descriptors as it may have, it could not be given any. */
	if (s->limits)
		hf_limits_apply(s->limits, &w->missed);
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0)
		return child_fail(w, "unblock signals");
	execve(w->path, s->argv, s->envp);
	return child_fail(w, "execute it");
}

/* Looks a program up in the PATH that it will have itself. */
struct hf_spawn_spec hf_spawn_spec_of(const struct hf_manifest_guest *guest)
{
	static char *const no_env[] = {NULL};

	return (struct hf_spawn_spec){
		.program = guest->vmm,
		.envp = guest->env ? guest->env : no_env,
		.cwd = guest->cwd,
		.uid = guest->uid,
		.gid = guest->gid,
		.groups = guest->groups,
		.n_groups = guest->n_groups,
		.umask = guest->umask,
	};
}

int hf_spawn_find(const struct hf_spawn_spec *s, char *ret, size_t size)
{
	const char *path = "/usr/local/bin:/usr/bin:/bin";
	int r = -ENOENT;

	if (s->program[0] == '/')
		return snprintf(ret, size, "%s", s->program) < (int)size ? 0 : -ENAMETOOLONG;
	/* Executed only after the child went there. */
	if (strchr(s->program, '/'))
		return snprintf(ret, size, "%s/%s", s->cwd ? s->cwd : "", s->program) < (int)size
			       ? 0
			       : -ENAMETOOLONG;
	for (char *const *e = s->envp; e && *e; e++)
		if (strncmp(*e, "PATH=", 5) == 0)
			path = *e + 5;
	while (*path) {
		int len = (int)strcspn(path, ":");
		struct stat st;

		if (len > 0 && snprintf(ret, size, "%.*s/%s", len, path, s->program) < (int)size &&
			stat(ret, &st) == 0 && S_ISREG(st.st_mode)) {
			if (access(ret, X_OK) == 0)
				return 0;
			r = -errno;
		}
		path += len + (path[len] == ':');
	}
	return r;
}

/* Copies of all descriptors above the numbers wanted, so that no dup2() hits one still needed. */
static int move_fds(struct child_work *w)
{
	const struct hf_spawn_spec *s = w->spec;
	int min = 3;

	for (size_t i = 0; i < s->n_fds; i++) {
		if (s->fds[i].number < min)
			return -EINVAL;
		min = s->fds[i].number + 1;
	}
	for (size_t i = 0; i < s->n_fds; i++) {
		w->moved[i] = fcntl(s->fds[i].fd, F_DUPFD_CLOEXEC, min);
		if (w->moved[i] < 0)
			return -errno;
	}
	return 0;
}

static int clone_child(struct child_work *w, struct hf_child *c)
{
	cleanup_free char *stack = malloc(CHILD_STACK_BYTES);
	sigset_t all, old;
	int pidfd = -EBADF;
	pid_t pid;

	if (!stack)
		return -ENOMEM;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pid = clone(child_main, (char *)(((uintptr_t)stack + CHILD_STACK_BYTES) & ~(uintptr_t)15),
		CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, w, &pidfd);
	if (pid < 0)
		w->err = errno;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (pid < 0) {
		w->step = "make a process";
		return -w->err;
	}
	c->pid = pid;
	c->pidfd = pidfd;
	if (w->err != 0) {
		waitid(P_PIDFD, pidfd, &c->status, WEXITED);
		return -w->err;
	}
	return 0;
}

static void child_free(struct hf_child *c)
{
	hf_close(&c->pidfd);
	hf_close(&c->conn);
	hf_close(&c->stderr_fd);
	free(c);
}

static void cleanup_childp(struct hf_child **c)
{
	if (*c) {
		sd_event_source_disable_unref((*c)->source);
		child_free(*c);
	}
}

/* The file that stderr goes to, to be read when the process ends early; NULL: none. */
static const char *stderr_path(const struct hf_spawn_spec *s)
{
	return s->stdio[2] && s->stdio[2][0] ? s->stdio[2] : s->log_path;
}

/* Before the start: what is in it then is of others. */
static void note_stderr(const struct hf_spawn_spec *s, struct hf_child *c)
{
	struct stat st;

	if (stderr_path(s) && stat(stderr_path(s), &st) == 0 && S_ISREG(st.st_mode))
		c->stderr_offset = st.st_size;
}

/* After it: the start may have made the file. */
static void open_stderr_reader(const struct hf_spawn_spec *s, struct hf_child *c)
{
	const char *path = stderr_path(s);
	struct stat st;

	if (path)
		c->stderr_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (c->stderr_fd >= 0 && (fstat(c->stderr_fd, &st) < 0 || !S_ISREG(st.st_mode)))
		hf_close(&c->stderr_fd);
}

/* Return: false when the spawner is gone and the process is not: then its pidfd tells. */
static bool take_status(sd_event_source *source, struct hf_child *c)
{
	struct pollfd p = {.fd = c->pidfd, .events = POLLIN};

	if (c->conn >= 0) {
		c->have_status = hf_spawner_take_status(c->conn, &c->status) == 0;
		hf_close(&c->conn);
		if (!c->have_status && poll(&p, 1, 0) == 0 &&
			sd_event_source_set_io_fd(source, c->pidfd) >= 0)
			return false;
	} else if (c->ours) {
		c->have_status = waitid(P_PIDFD, c->pidfd, &c->status, WEXITED | WNOHANG) == 0 &&
				 c->status.si_pid != 0;
	}
	return true;
}

static int on_child_io(sd_event_source *source, int fd, uint32_t revents, void *data)
{
	struct hf_child *c = data;

	if (!take_status(source, c))
		return 0;
	c->exited = true;
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	if (!c->source)
		/* Let go of before: drops the last reference, which frees @c after this call. */
		sd_event_source_set_floating(source, false);
	else if (c->on_exit)
		c->on_exit(c, c->data);
	return 0;
}

/* As a child of ours. */
static int spawn_here(const struct hf_spawn_spec *spec, struct hf_child *c, struct hf_error *error)
{
	struct child_work work = {.spec = spec, .log_fd = -EBADF, .step = "prepare it"};
	char path[4096];
	int r;

	for (size_t i = 0; i < HF_SPAWN_MAX_FDS; i++)
		work.moved[i] = -EBADF;
	r = hf_spawn_find(spec, path, sizeof(path));
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, "install the VMM's package",
			"can't find the program `%s`: %s", spec->program, strerror(-r));
	work.path = path;
	if (spec->output_fd > 0)
		work.log_fd = fcntl(spec->output_fd, F_DUPFD_CLOEXEC, 3);
	else if (spec->log_path)
		work.log_fd = open(spec->log_path,
			O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	/* Without root there is only one user to be. */
	work.set_credentials = geteuid() == 0;
	if (!work.set_credentials && (spec->uid != geteuid() || spec->gid != getegid())) {
		work.step = "become the guest's user";
		r = -EPERM;
	} else {
		r = move_fds(&work);
	}
	if (r == 0)
		r = clone_child(&work, c);
	for (size_t i = 0; i < spec->n_fds; i++)
		hf_close(&work.moved[i]);
	hf_close(&work.log_fd);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't start `%s`: %s: %s", path,
			work.step, strerror(-r));
	c->ours = true;
	c->missed = work.missed;
	return 0;
}

void hf_spawn_use_spawner(const char *path)
{
	spawner = path;
}

const char *hf_spawn_spawner(void)
{
	return spawner;
}

int hf_spawn(sd_event *event, const struct hf_spawn_spec *spec, hf_child_exit_fn on_exit,
	void *data, struct hf_child **ret, struct hf_error *error)
{
	HF_CLEANUP(cleanup_childp) struct hf_child *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	*c = (struct hf_child){.pidfd = -EBADF,
		.conn = -EBADF,
		.stderr_fd = -EBADF,
		.on_exit = on_exit,
		.data = data};
	if (spec->n_fds > HF_SPAWN_MAX_FDS)
		return hf_error_set(error, -E2BIG, HF_ERR_FAILED, NULL,
			"%zu descriptors are more than a process can be given", spec->n_fds);
	note_stderr(spec, c);
	r = spawner ? hf_spawner_start(spawner, spec, c, error) : spawn_here(spec, c, error);
	if (r < 0)
		return r;
	open_stderr_reader(spec, c);
	r = sd_event_add_io(
		event, &c->source, c->conn >= 0 ? c->conn : c->pidfd, EPOLLIN, on_child_io, c);
	if (r < 0) {
		hf_child_kill(c);
		if (c->ours)
			waitid(P_PIDFD, c->pidfd, &c->status, WEXITED);
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't watch `%s`: %s",
			spec->program, strerror(-r));
	}
	*ret = TAKE_PTR(c);
	return 0;
}

void hf_child_missed(const struct hf_child *child, char *buf, size_t size)
{
	hf_limits_describe(&child->missed, buf, size);
}

int hf_child_watch(sd_event *event, pid_t pid, uint64_t start_ticks, hf_child_exit_fn on_exit,
	void *data, struct hf_child **ret)
{
	HF_CLEANUP(cleanup_childp) struct hf_child *c = calloc(1, sizeof(*c));
	uint64_t ticks;
	int r;

	if (!c)
		return -ENOMEM;
	*c = (struct hf_child){.pid = pid,
		.pidfd = -EBADF,
		.conn = -EBADF,
		.stderr_fd = -EBADF,
		.on_exit = on_exit,
		.data = data};
	c->pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (c->pidfd < 0)
		return errno == EINVAL ? -ESRCH : -errno;
	/* Read after the pidfd is there: what it names can't change any more. */
	r = hf_pid_start_time(pid, &ticks);
	if (r < 0)
		return r;
	if (ticks != start_ticks)
		return -ESTALE;
	r = sd_event_add_io(event, &c->source, c->pidfd, EPOLLIN, on_child_io, c);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(c);
	return 0;
}

static void destroy_floating(void *data)
{
	child_free(data);
}

void hf_child_release(struct hf_child *child)
{
	sd_event_source *source;

	if (!child)
		return;
	child->on_exit = NULL;
	source = TAKE_PTR(child->source);
	if (child->ours && !child->exited &&
		sd_event_source_set_destroy_callback(source, destroy_floating) >= 0) {
		/* The loop keeps the source, and with it the child, until the process ends. */
		sd_event_source_set_floating(source, true);
		sd_event_source_unref(source);
		return;
	}
	sd_event_source_disable_unref(source);
	child_free(child);
}

pid_t hf_child_pid(const struct hf_child *child)
{
	return child->pid;
}

bool hf_child_exited(const struct hf_child *child)
{
	return child->exited;
}

int hf_child_status(const struct hf_child *child)
{
	return child->have_status && child->status.si_code == CLD_EXITED ? child->status.si_status
									 : -1;
}

bool hf_child_succeeded(const struct hf_child *child)
{
	return hf_child_status(child) == 0;
}

static int kill_child(struct hf_child *child, unsigned int flags)
{
	if (child->exited)
		return 0;
	if (syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, flags) < 0)
		return errno == ESRCH ? 0 : -errno;
	return 0;
}

int hf_child_kill(struct hf_child *child)
{
	return kill_child(child, 0);
}

int hf_child_kill_group(struct hf_child *child)
{
	int r = kill_child(child, PIDFD_SIGNAL_PROCESS_GROUP);

	/* On Linux before 6.9. That it has ended was not told yet, so the number is still its own.
	 */
	if (r == -EINVAL && !child->exited)
		r = killpg(child->pid, SIGKILL) < 0 && errno != ESRCH ? -errno : 0;
	return r;
}

/* The last lines of what was written to stderr since the start, joined by " / ". */
static void append_tail(const struct hf_child *c, char *buf, size_t size)
{
	char raw[400], text[3 * sizeof(raw) + 1];
	size_t used = strlen(buf), len = 0, skip;
	struct stat st;
	ssize_t n;

	if (c->stderr_fd < 0 || fstat(c->stderr_fd, &st) < 0 || size - used < 8)
		return;
	n = pread(c->stderr_fd, raw, sizeof(raw),
		HF_MAX(c->stderr_offset, st.st_size - (off_t)sizeof(raw)));
	while (n > 0 && isspace((unsigned char)raw[n - 1]))
		n--;
	if (n <= 0)
		return;
	for (ssize_t i = 0; i < n; i++) {
		if (raw[i] == '\n') {
			memcpy(text + len, " / ", 3);
			len += 3;
		} else {
			text[len++] = raw[i];
			if (iscntrl((unsigned char)raw[i]))
				text[len - 1] = ' ';
		}
	}
	text[len] = 0;
	/* When it is too much, the end of it counts. */
	skip = len > size - used - 3 ? len - (size - used - 3) : 0;
	snprintf(buf + used, size - used, ": %s", text + skip);
}

void hf_child_describe(const struct hf_child *child, char *buf, size_t size)
{
	if (!child->exited)
		snprintf(buf, size, "still runs");
	else if (!child->have_status)
		snprintf(buf, size, "ended");
	else if (child->status.si_code == CLD_EXITED)
		snprintf(buf, size, "ended with status %d", child->status.si_status);
	else
		snprintf(buf, size, "was killed by signal %d (%s)", child->status.si_status,
			strsignal(child->status.si_status));
	append_tail(child, buf, size);
}
