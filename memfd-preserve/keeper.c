/* SPDX-License-Identifier: Apache-2.0 */
#include "memfd-preserve/keeper.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/fd.h"
#include "memfd-preserve/luo-uapi.h"

/* Of one update: one session a guest and the manifest's, or with `hold` all of their files. */
#define MAX_KEPT 16384

/* Numbers and layout are those of docs/FORMATS.md: the other side may be of another version. */
enum op {
	OP_PING, /* is anybody there? */
	OP_RETRIEVE,
	OP_DROP,
	OP_PUT,
	OP_GET,
	OP_LOOK,
	OP_CLEAR,
};

struct request {
	uint32_t op;
	char name[HF_LUO_NAME_BYTES];
	uint32_t zero;
	uint64_t token;
};

struct answer {
	int32_t result; /* 0 or -errno */
	int32_t pid;	/* the keeper's */
};

struct hf_keeper {
	int sock;
	pid_t pid;	      /* the other side's */
	pthread_mutex_t lock; /* a request and its answer belong together */
};

/* ---- the keeper's side ---- */

/* A session's fd, or one file of a session that was put. */
struct kept {
	char name[HF_LUO_NAME_BYTES];
	uint64_t token;
	int fd; /* negative: dropped */
};

struct keeping {
	const char *device;
	hf_keeper_retrieve_fn retrieve;
	struct kept *kept; /* room for MAX_KEPT */
	size_t n_kept;
	size_t n_open;
};

/* How a session stands: 0 something is kept, -EALREADY it was dropped, -ENOENT never seen. */
static int look(const struct keeping *k, const char *name)
{
	int r = -ENOENT;

	for (size_t i = 0; i < k->n_kept && r < 0; i++) {
		if (strcmp(k->kept[i].name, name) == 0)
			r = k->kept[i].fd >= 0 ? 0 : -EALREADY;
	}
	return r;
}

static int get(const struct keeping *k, const char *name, uint64_t token, int *ret_fd)
{
	for (size_t i = 0; i < k->n_kept; i++) {
		const struct kept *s = &k->kept[i];

		if (s->fd >= 0 && s->token == token && strcmp(s->name, name) == 0) {
			*ret_fd = s->fd;
			return 0;
		}
	}
	return -ENOENT;
}

/* Room for one more: with its fd in hand nothing may fail any more. */
static struct kept *make_room(struct keeping *k)
{
	return k->n_kept < MAX_KEPT ? &k->kept[k->n_kept] : NULL;
}

static void add(struct keeping *k, struct kept *room, const char *name, uint64_t token, int fd)
{
	snprintf(room->name, sizeof(room->name), "%s", name);
	room->token = token;
	room->fd = fd;
	k->n_kept++;
	k->n_open++;
}

static void forget(struct keeping *k, const char *name)
{
	size_t n = 0;

	for (size_t i = 0; i < k->n_kept; i++) {
		if (strcmp(k->kept[i].name, name) != 0)
			k->kept[n++] = k->kept[i];
	}
	k->n_kept = n;
}

static int do_retrieve(struct keeping *k, const char *name, int *ret_fd)
{
	struct kept *room;
	int r, fd = -EBADF;

	r = look(k, name);
	if (r == 0)
		return get(k, name, 0, ret_fd);
	if (r == -EALREADY)
		return r;
	if (!k->retrieve)
		return -ENOENT;
	room = make_room(k);
	if (!room)
		return -ENOMEM;
	r = k->retrieve(k->device, name, &fd);
	if (r < 0)
		return r;
	add(k, room, name, 0, fd);
	*ret_fd = fd;
	return 0;
}

/* Takes @fd on success only. */
static int do_put(struct keeping *k, const char *name, uint64_t token, int fd)
{
	struct hf_inode inode, other;
	struct kept *room;
	int r, unused;

	r = hf_fd_inode(fd, &inode, NULL);
	if (r < 0)
		return r;
	if (get(k, name, token, &unused) == 0)
		return -EEXIST;
	for (size_t i = 0; i < k->n_kept; i++) {
		if (k->kept[i].fd >= 0 && hf_fd_inode(k->kept[i].fd, &other, NULL) == 0 &&
			hf_inode_equal(&inode, &other))
			return -EEXIST;
	}
	if (look(k, name) == -EALREADY)
		forget(k, name);
	room = make_room(k);
	if (!room)
		return -ENOMEM;
	add(k, room, name, token, fd);
	return 0;
}

static int do_drop(struct keeping *k, const char *name)
{
	int r = -ENOENT;

	for (size_t i = 0; i < k->n_kept; i++) {
		struct kept *s = &k->kept[i];

		if (s->fd < 0 || strcmp(s->name, name) != 0)
			continue;
		hf_close(&s->fd);
		k->n_open--;
		r = 0;
	}
	return r;
}

static int do_clear(struct keeping *k)
{
	for (size_t i = 0; i < k->n_kept; i++)
		hf_close(&k->kept[i].fd);
	k->n_kept = k->n_open = 0;
	return 0;
}

static int serve(struct keeping *k, const struct request *q, int *fd, int *ret_fd)
{
	int r;

	switch (q->op) {
	case OP_PING:
		return 0;
	case OP_RETRIEVE:
		return do_retrieve(k, q->name, ret_fd);
	case OP_DROP:
		return do_drop(k, q->name);
	case OP_PUT:
		r = *fd >= 0 ? do_put(k, q->name, q->token, *fd) : -EINVAL;
		if (r == 0)
			TAKE_FD(*fd);
		return r;
	case OP_GET:
		return get(k, q->name, q->token, ret_fd);
	case OP_LOOK:
		return look(k, q->name);
	case OP_CLEAR:
		return do_clear(k);
	default:
		return -EINVAL;
	}
}

static bool serve_one(struct keeping *k, int sock)
{
	cleanup_close int fd = -EBADF;
	struct request q = {0};
	int ret_fd = -EBADF;
	struct answer a;
	size_t n_fds = 1;
	ssize_t n;

	n = hf_fd_recv(sock, &q, sizeof(q), &fd, &n_fds);
	if (n != (ssize_t)sizeof(q) || !memchr(q.name, 0, sizeof(q.name)))
		return false;
	a = (struct answer){.result = serve(k, &q, &fd, &ret_fd), .pid = getpid()};
	return hf_fd_send(sock, &a, sizeof(a), &ret_fd, ret_fd >= 0) == 0;
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

/*
 * In the child. Nothing of the agent is left but its memory: no lock, no device, no socket. There
 * may have been threads, so nothing in here allocates from the heap, which one of them may have
 * locked at the fork.
 */
static _Noreturn void run(struct keeping *k, int listener, int sock, const char *path)
{
	const int base = 3;
	struct rlimit files;
	int fd;

	prctl(PR_SET_NAME, "hf-keeper");
	setsid();
	/* What isn't used of it takes no memory. */
	k->kept = mmap(NULL, MAX_KEPT * sizeof(*k->kept), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (k->kept == MAP_FAILED || chdir("/") < 0)
		_exit(1);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/* The agent's own end is its event loop's; here it must not interrupt anything. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
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

static int ask(
	struct hf_keeper *k, enum op op, const char *name, uint64_t token, int fd, int *ret_fd)
{
	struct request q = {.op = op, .token = token};
	struct answer a = {0};
	int fds[1] = {-EBADF};
	size_t n_fds = 1;
	ssize_t n = 0;
	int r;

	if (strlen(name) >= sizeof(q.name))
		return -EINVAL;
	memcpy(q.name, name, strlen(name));
	pthread_mutex_lock(&k->lock);
	r = hf_fd_send(k->sock, &q, sizeof(q), &fd, fd >= 0);
	if (r == 0)
		n = hf_fd_recv(k->sock, &a, sizeof(a), fds, &n_fds);
	pthread_mutex_unlock(&k->lock);
	if (r < 0)
		return r;
	if (n != (ssize_t)sizeof(a))
		return n < 0 ? (int)n : -ECONNRESET;
	k->pid = a.pid;
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
	if (r == 0 && ask(k, OP_PING, "", 0, -EBADF, NULL) < 0) {
		hf_close(&k->sock);
		r = -ECONNREFUSED;
	}
	*ret_found = r == 0;
	if (r == -ENOENT || r == -ECONNREFUSED) {
		r = start(&keeping, &address, &k->sock);
		if (r == 0)
			r = ask(k, OP_PING, "", 0, -EBADF, NULL);
	}
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
	return ask(k, OP_RETRIEVE, name, 0, -EBADF, ret_fd);
}

int hf_keeper_put(struct hf_keeper *k, const char *name, uint64_t token, int fd)
{
	return fd < 0 ? -EBADF : ask(k, OP_PUT, name, token, fd, NULL);
}

int hf_keeper_get(struct hf_keeper *k, const char *name, uint64_t token, int *ret_fd)
{
	return ask(k, OP_GET, name, token, -EBADF, ret_fd);
}

int hf_keeper_look(struct hf_keeper *k, const char *name)
{
	return ask(k, OP_LOOK, name, 0, -EBADF, NULL);
}

int hf_keeper_drop(struct hf_keeper *k, const char *name)
{
	return ask(k, OP_DROP, name, 0, -EBADF, NULL);
}

int hf_keeper_clear(struct hf_keeper *k)
{
	return ask(k, OP_CLEAR, "", 0, -EBADF, NULL);
}

pid_t hf_keeper_pid(const struct hf_keeper *k)
{
	return k->pid;
}

void hf_keeper_close(struct hf_keeper *k)
{
	if (!k)
		return;
	hf_close(&k->sock);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
