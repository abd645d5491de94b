/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/keeper.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/fd.h"
#include "memfd-preserve/luo-uapi.h"

/* Of one update: one a guest and the manifest's. */
#define MAX_SESSIONS 4096

enum op {
	OP_PING, /* is anybody there? */
	OP_RETRIEVE,
	OP_DROP,
};

struct request {
	uint32_t op;
	char name[HF_LUO_NAME_BYTES];
};

struct answer {
	int32_t result; /* 0 or -errno */
};

struct hf_keeper {
	int sock;
	pthread_mutex_t lock; /* a request and its answer belong together */
};

/* ---- the keeper's side ---- */

struct kept {
	char name[HF_LUO_NAME_BYTES];
	int fd; /* negative: dropped */
};

struct keeping {
	const char *device;
	hf_keeper_retrieve_fn retrieve;
	struct kept *sessions;
	size_t n_sessions;
	size_t n_open;
};

static struct kept *find(struct keeping *k, const char *name)
{
	for (size_t i = 0; i < k->n_sessions; i++)
		if (strcmp(k->sessions[i].name, name) == 0)
			return &k->sessions[i];
	return NULL;
}

static int do_retrieve(struct keeping *k, const char *name, int *ret_fd)
{
	struct kept *s = find(k, name);
	int r, fd = -EBADF;

	if (s) {
		*ret_fd = s->fd;
		return s->fd < 0 ? -EALREADY : 0;
	}
	if (k->n_sessions == MAX_SESSIONS)
		return -ENOBUFS;
	/* Room first: with the fd in hand nothing may fail any more. */
	s = reallocarray(k->sessions, k->n_sessions + 1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	k->sessions = s;
	r = k->retrieve(k->device, name, &fd);
	if (r < 0)
		return r;
	s += k->n_sessions++;
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->fd = *ret_fd = fd;
	k->n_open++;
	return 0;
}

static int do_drop(struct keeping *k, const char *name)
{
	struct kept *s = find(k, name);

	if (!s || s->fd < 0)
		return -ENOENT;
	hf_close(&s->fd);
	k->n_open--;
	return 0;
}

static bool serve_one(struct keeping *k, int sock)
{
	struct request q = {0};
	struct answer a;
	int fd = -EBADF;
	ssize_t n;

	do
		n = recv(sock, &q, sizeof(q), 0);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(q) || !memchr(q.name, 0, sizeof(q.name)))
		return false;
	switch (q.op) {
	case OP_PING:
		a.result = 0;
		break;
	case OP_RETRIEVE:
		a.result = do_retrieve(k, q.name, &fd);
		break;
	case OP_DROP:
		a.result = do_drop(k, q.name);
		break;
	default:
		a.result = -EINVAL;
	}
	return hf_fd_send(sock, &a, sizeof(a), &fd, fd >= 0) == 0;
}

static bool is_ours(int sock)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       peer.uid == geteuid();
}

static int next_client(int listener)
{
	for (;;) {
		struct sockaddr_un peer;
		socklen_t size = sizeof(peer);
		int sock = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC);

		if (sock < 0 && errno != EINTR && errno != ECONNABORTED)
			return -errno;
		if (sock >= 0 && is_ours(sock))
			return sock;
		hf_close(&sock);
	}
}

/* One client at a time: there is one agent. */
static void keep(struct keeping *k, int listener, int sock, const char *path)
{
	do {
		while (serve_one(k, sock))
			;
		hf_close(&sock);
		if (k->n_open > 0)
			sock = next_client(listener);
	} while (sock >= 0);
	/*
	 * Without a way to be reached, but with sessions, it has to stay: they end with it. Nothing
	 * that is known leads here.
	 */
	while (k->n_open > 0)
		pause();
	unlink(path);
}

/* In the child. Nothing of the agent is left but its memory: no lock, no device, no socket. */
static _Noreturn void run(struct keeping *k, int listener, int sock, const char *path)
{
	const int base = 3;
	int fd;

	prctl(PR_SET_NAME, "hf-keeper");
	setsid();
	if (chdir("/") < 0)
		_exit(1);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/* The agent's own end is its event loop's; here it must not interrupt anything. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "-1000", 5) < 0) { /* allowed or not, there is nothing to do */
		}
		close(fd);
	}
	/* To 3 and 4, whatever they were. */
	listener = fcntl(listener, F_DUPFD_CLOEXEC, 1000);
	sock = fcntl(sock, F_DUPFD_CLOEXEC, 1000);
	if (listener < 0 || sock < 0 || dup3(listener, base, O_CLOEXEC) < 0 ||
		dup3(sock, base + 1, O_CLOEXEC) < 0 ||
		close_range((unsigned int)base + 2, ~0U, 0) < 0)
		_exit(1);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; fd >= 0 && i < 3; i++)
		dup2(fd, i);
	hf_close(&fd);
	keep(k, base, base + 1, path);
	_exit(0);
}

/* ---- the agent's side ---- */

static int address_of(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, path, strlen(path));
	return 0;
}

static int connect_to(const struct sockaddr_un *address, int *ret_sock)
{
	cleanup_close int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (sock < 0 || connect(sock, (const struct sockaddr *)address, sizeof(*address)) < 0)
		return -errno;
	if (!is_ours(sock))
		return -EPERM;
	*ret_sock = TAKE_FD(sock);
	return 0;
}

static int listen_at(const struct sockaddr_un *address, int *ret_sock)
{
	cleanup_close int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	mode_t mask;
	int r;

	if (sock < 0)
		return -errno;
	/* Nobody answers here: it is left of a keeper that is gone. */
	unlink(address->sun_path);
	mask = umask(0177);
	r = bind(sock, (const struct sockaddr *)address, sizeof(*address));
	umask(mask);
	if (r < 0 || listen(sock, 4) < 0)
		return -errno;
	*ret_sock = TAKE_FD(sock);
	return 0;
}

/* A grandchild: nobody has to wait for it. */
static int start(struct keeping *k, const struct sockaddr_un *address, int *ret_sock)
{
	cleanup_close int listener = -EBADF, ours = -EBADF, theirs = -EBADF;
	int pair[2], status, r;
	pid_t pid;

	r = listen_at(address, &listener);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		pid = fork();
		if (pid == 0)
			run(k, listener, theirs, address->sun_path);
		_exit(pid < 0 ? errno : 0);
	}
	do
		r = waitpid(pid, &status, 0);
	while (r < 0 && errno == EINTR);
	if (r < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return r < 0 ? -errno : -EAGAIN;
	*ret_sock = TAKE_FD(ours);
	return 0;
}

static int ask(struct hf_keeper *k, enum op op, const char *name, int *ret_fd)
{
	struct request q = {.op = op};
	struct answer a = {0};
	int fds[1] = {-EBADF};
	size_t n_fds = 1;
	ssize_t n = 0;
	int r;

	if (strlen(name) >= sizeof(q.name))
		return -EINVAL;
	memcpy(q.name, name, strlen(name));
	pthread_mutex_lock(&k->lock);
	r = hf_fd_send(k->sock, &q, sizeof(q), NULL, 0);
	if (r == 0)
		n = hf_fd_recv(k->sock, &a, sizeof(a), fds, &n_fds);
	pthread_mutex_unlock(&k->lock);
	if (r < 0)
		return r;
	if (n != (ssize_t)sizeof(a))
		return n < 0 ? (int)n : -ECONNRESET;
	if (a.result == 0 && ret_fd) {
		if (n_fds == 0)
			return -EBADMSG;
		*ret_fd = fds[0];
	}
	return a.result;
}

int hf_keeper_open(const char *path, const char *device, hf_keeper_retrieve_fn retrieve,
	struct hf_keeper **ret, bool *ret_found, struct hf_error *e)
{
	struct keeping keeping = {.device = device, .retrieve = retrieve};
	struct hf_keeper *k = calloc(1, sizeof(*k));
	struct sockaddr_un address;
	int r;

	if (!k)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	k->sock = -EBADF;
	*ret_found = false;
	pthread_mutex_init(&k->lock, NULL);
	r = address_of(path, &address);
	if (r == 0)
		r = connect_to(&address, &k->sock);
	/* One that is about to end still takes connections. */
	if (r == 0 && ask(k, OP_PING, "", NULL) < 0) {
		hf_close(&k->sock);
		r = -ECONNREFUSED;
	}
	*ret_found = r == 0;
	if (r == -ENOENT || r == -ECONNREFUSED)
		r = start(&keeping, &address, &k->sock);
	if (r < 0) {
		hf_keeper_close(k);
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "can't have sessions kept at %s: %s",
			path, strerror(-r));
	}
	*ret = k;
	return 0;
}

int hf_keeper_retrieve(struct hf_keeper *k, const char *name, int *ret_fd)
{
	return ask(k, OP_RETRIEVE, name, ret_fd);
}

int hf_keeper_drop(struct hf_keeper *k, const char *name)
{
	return ask(k, OP_DROP, name, NULL);
}

void hf_keeper_close(struct hf_keeper *k)
{
	if (!k)
		return;
	hf_close(&k->sock);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
