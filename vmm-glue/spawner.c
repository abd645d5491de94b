/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/spawner.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "common/fd.h"
#include "vmm-glue/disks.h"
#include "vmm-glue/spawn-internal.h"
#include "vmm-glue/spawner-internal.h"

#define MAX_REQUEST_BYTES (16u * 1024u * 1024u)
#define FDS_AT_ONCE 16
#define PEER_TIMEOUT_S 20

/*
 * First record. With HF_SPAWNER_START a memfd with the specification comes along, and further
 * records bring descriptors. With HF_SPAWNER_GREET it is another one.
 */
struct request {
	uint32_t op;
	uint32_t size_bytes;
	uint32_t n_fds;
};

struct answer {
	int32_t result; /* 0 or -errno */
	int32_t pid;
	uint32_t missed;
	int32_t missed_err;
	char message[512];
	char remedy[256];
};

/* When the process has ended. */
struct ended {
	int32_t code; /* as in siginfo_t */
	int32_t status;
};

static int address_of(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, path, strlen(path));
	return 0;
}

static bool is_ours(int sock)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == geteuid() || peer.uid == 0);
}

static int set_timeouts(int sock)
{
	const struct timeval limit = {.tv_sec = PEER_TIMEOUT_S};

	if (setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
		setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -errno;
	return 0;
}

/* ---- the agent's side ---- */

int hf_spawner_connect(const char *path, int *ret)
{
	cleanup_close int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	int r = address_of(path, &address);

	if (r < 0)
		return r;
	if (sock < 0 || connect(sock, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	if (!is_ours(sock))
		return -EPERM;
	r = set_timeouts(sock);
	if (r == 0)
		*ret = TAKE_FD(sock);
	return r;
}

static int make_memfd(const struct hf_spawn_spec *spec, int *ret_fd, uint32_t *ret_size)
{
	cleanup_close int fd = -EBADF;
	cleanup_free void *data = NULL;
	size_t size = 0;
	int r = hf_spawner_encode(spec, &data, &size);

	if (r == 0 && size > MAX_REQUEST_BYTES)
		r = -E2BIG;
	if (r == 0)
		r = hf_memfd_new("holdfast:spawn", size, &fd);
	if (r == 0)
		r = hf_fd_write_full(fd, data, size);
	if (r < 0)
		return r;
	*ret_fd = TAKE_FD(fd);
	*ret_size = (uint32_t)size;
	return 0;
}

static int send_request(int sock, const struct hf_spawn_spec *spec)
{
	int fds[HF_SPAWN_MAX_FDS + 1], r;
	cleanup_close int memfd = -EBADF;
	struct request q = {0};
	size_t n = 0;

	if (spec->output_fd > 0)
		fds[n++] = spec->output_fd;
	for (size_t i = 0; i < spec->n_fds; i++)
		fds[n++] = spec->fds[i].fd;
	q.n_fds = (uint32_t)n;
	r = make_memfd(spec, &memfd, &q.size_bytes);
	if (r == 0)
		r = hf_fd_send(sock, &q, sizeof(q), &memfd, 1);
	for (size_t i = 0; r == 0 && i < n; i += FDS_AT_ONCE)
		r = hf_fd_send(sock, "", 1, fds + i, HF_MIN(n - i, (size_t)FDS_AT_ONCE));
	return r;
}

static int receive_answer(int sock, struct hf_child *child, struct hf_error *error)
{
	struct answer a = {0};
	size_t n_fds = 1;
	int fd = -EBADF;
	ssize_t n = hf_fd_recv(sock, &a, sizeof(a), &fd, &n_fds);

	if (n != (ssize_t)sizeof(a) || (a.result == 0) != (n_fds == 1)) {
		if (n_fds > 0)
			hf_close(&fd);
		return n < 0 ? (int)n : -EBADMSG;
	}
	if (a.result < 0) {
		a.message[sizeof(a.message) - 1] = a.remedy[sizeof(a.remedy) - 1] = 0;
		hf_error_set(error, a.result, HF_ERR_FAILED, a.remedy, "%s", a.message);
		return a.result;
	}
	child->pid = a.pid;
	child->pidfd = fd;
	child->missed = (struct hf_limits_missed){.what = a.missed, .err = a.missed_err};
	return 0;
}

/* Nothing is as important to a host that is about to jump: no time-out but a disk's own. */
static int ask_plain(const char *path, enum hf_spawner_op op)
{
	const struct request q = {.op = op};
	const struct timeval never = {0};
	cleanup_close int sock = -EBADF;
	struct answer a = {0};
	ssize_t n;
	int r = hf_spawner_connect(path, &sock);

	if (r == 0 && setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &never, sizeof(never)) < 0)
		r = -errno;
	if (r == 0)
		r = hf_fd_send(sock, &q, sizeof(q), NULL, 0);
	if (r < 0)
		return r;
	do
		n = recv(sock, &a, sizeof(a), 0);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(a))
		return n < 0 ? -errno : -ECONNRESET;
	return a.result;
}

int hf_spawner_settle_disks(const char *path, bool settled, struct hf_error *error)
{
	int r = ask_plain(path, settled ? HF_SPAWNER_SETTLE : HF_SPAWNER_UNSETTLE);

	return r < 0 ? hf_error_set(error, r, HF_ERR_FAILED,
			       "see `systemctl status holdfast-spawn.service`",
			       "can't have file systems remounted by the spawner at %s: %s", path,
			       strerror(-r))
		     : 0;
}

int hf_spawner_start(const char *path, const struct hf_spawn_spec *spec, struct hf_child *child,
	struct hf_error *error)
{
	cleanup_close int sock = -EBADF;
	int r = hf_spawner_connect(path, &sock);

	if (r == 0)
		r = send_request(sock, spec);
	if (r == 0)
		r = receive_answer(sock, child, error);
	if (r < 0 && !error->err)
		return hf_error_set(error, r, HF_ERR_FAILED,
			"see `systemctl status holdfast-spawn.service`",
			"can't have `%s` started by the spawner at %s: %s", spec->program, path,
			strerror(-r));
	if (r < 0)
		return r;
	child->conn = TAKE_FD(sock);
	return 0;
}

int hf_spawner_take_status(int conn, siginfo_t *ret)
{
	struct ended e;
	ssize_t n = recv(conn, &e, sizeof(e), MSG_DONTWAIT);

	if (n != (ssize_t)sizeof(e))
		return n < 0 ? -errno : -ECONNRESET;
	*ret = (siginfo_t){.si_code = e.code};
	ret->si_status = e.status;
	return 0;
}

/* ---- the spawner's side ---- */

/* One process that runs, and who wants to know of its end. */
struct job {
	int sock;
};

static void job_free(struct job *job)
{
	hf_close(&job->sock);
	free(job);
}

static void on_end(struct hf_child *child, void *data)
{
	struct job *job = data;
	struct ended e = {.code = child->status.si_code, .status = child->status.si_status};

	if (child->have_status)
		(void)!send(job->sock, &e, sizeof(e), MSG_NOSIGNAL | MSG_DONTWAIT);
	job_free(job);
	hf_child_release(child);
}

/* Has the agent ended, or closed the connection? It sends nothing more. */
static bool is_gone(int sock)
{
	struct pollfd p = {.fd = sock, .events = POLLIN | POLLRDHUP};

	return poll(&p, 1, 0) != 0;
}

static int receive_fds(int sock, struct hf_spawner_request *q, size_t n, int *fds)
{
	size_t have = 0;

	if (n != q->spec.n_fds + (q->has_output ? 1 : 0))
		return -EBADMSG;
	while (have < n) {
		size_t more = HF_MIN(n - have, (size_t)FDS_AT_ONCE);
		char byte;
		ssize_t r = hf_fd_recv(sock, &byte, 1, fds + have, &more);

		have += more;
		if (r != 1 || more == 0)
			return r < 0 ? (int)r : -EBADMSG;
	}
	n = 0;
	if (q->has_output)
		q->spec.output_fd = fds[n++];
	for (size_t i = 0; i < q->spec.n_fds; i++)
		q->fds[i].fd = fds[n++];
	return 0;
}

static int read_request(int sock, void **ret, size_t *ret_size, size_t *ret_n_fds, uint32_t *ret_op)
{
	struct request q = {0};
	cleanup_close int memfd = -EBADF;
	cleanup_free void *data = NULL;
	size_t n_fds = 1;
	ssize_t n = hf_fd_recv(sock, &q, sizeof(q), &memfd, &n_fds);

	if (n_fds == 0)
		memfd = -EBADF;
	*ret_op = HF_SPAWNER_START;
	if (n == (ssize_t)sizeof(q) && n_fds == 0 &&
		(q.op == HF_SPAWNER_SETTLE || q.op == HF_SPAWNER_UNSETTLE)) {
		*ret_op = q.op;
		return 0;
	}
	if (n != (ssize_t)sizeof(q) || q.op != HF_SPAWNER_START || n_fds != 1 ||
		q.size_bytes > MAX_REQUEST_BYTES || q.n_fds > HF_SPAWN_MAX_FDS + 1)
		return n < 0 ? (int)n : -EBADMSG;
	data = malloc(q.size_bytes + 1);
	if (!data)
		return -ENOMEM;
	if (pread(memfd, data, q.size_bytes, 0) != (ssize_t)q.size_bytes)
		return -EBADMSG;
	*ret = TAKE_PTR(data);
	*ret_size = q.size_bytes;
	*ret_n_fds = q.n_fds;
	return 0;
}

static int start(sd_event *event, struct job *job, struct hf_child **ret, struct hf_error *error)
{
	struct hf_spawner_request q = {0};
	int fds[HF_SPAWN_MAX_FDS + 1];
	cleanup_free void *data = NULL;
	size_t size = 0, n_fds = 0;
	uint32_t op;
	int r;

	for (size_t i = 0; i < HF_ARRAY_SIZE(fds); i++)
		fds[i] = -EBADF;
	r = read_request(job->sock, &data, &size, &n_fds, &op);
	if (r == 0 && op != HF_SPAWNER_START) {
		hf_disks_settle_here(op == HF_SPAWNER_SETTLE);
		return 0;
	}
	if (r == 0)
		r = hf_spawner_decode(data, size, &q);
	if (r == 0)
		r = receive_fds(job->sock, &q, n_fds, fds);
	/* Its successor has looked for what has the guest's RAM, maybe before we had it. */
	if (r == 0 && is_gone(job->sock))
		r = -ECONNRESET;
	if (r == 0)
		r = hf_spawn(event, &q.spec, on_end, job, ret, error);
	else
		hf_error_set(error, r, HF_ERR_FAILED,
			r == -EPROTONOSUPPORT ? "restart holdfast-spawn.service" : NULL,
			"the spawner does not understand the agent: %s", strerror(-r));
	for (size_t i = 0; i < HF_ARRAY_SIZE(fds); i++)
		hf_close(&fds[i]);
	hf_spawner_request_release(&q);
	return r;
}

static bool take_greeting(int sock)
{
	uint8_t record[sizeof(struct hf_spawner_greeting) + 1];
	uint32_t op = HF_SPAWNER_START;
	ssize_t n;

	if (recv(sock, &op, sizeof(op), MSG_PEEK) != (ssize_t)sizeof(op) || op != HF_SPAWNER_GREET)
		return false;
	n = recv(sock, record, sizeof(record), 0);
	hf_spawner_answer_greeting(sock, record, n < 0 ? 0 : (size_t)n);
	return true;
}

/* All of a request is there, or comes at once: the agent waits for the answer. */
static int on_client(sd_event_source *s, int listener, uint32_t revents, void *data)
{
	struct job *job = calloc(1, sizeof(*job));
	struct hf_child *child = NULL;
	struct sockaddr_un peer;
	socklen_t peer_size = sizeof(peer);
	struct hf_error e = {0};
	struct answer a = {0};

	if (!job)
		return 0;
	job->sock = accept4(listener, (struct sockaddr *)&peer, &peer_size, SOCK_CLOEXEC);
	if (job->sock < 0 || !is_ours(job->sock) || set_timeouts(job->sock) < 0 ||
		take_greeting(job->sock)) {
		job_free(job);
		return 0;
	}
	a.result = start(sd_event_source_get_event(s), job, &child, &e);
	if (child) {
		a.pid = child->pid;
		a.missed = child->missed.what;
		a.missed_err = child->missed.err;
	}
	snprintf(a.message, sizeof(a.message), "%s", e.message);
	snprintf(a.remedy, sizeof(a.remedy), "%s", e.remedy);
	/* An agent that is gone will look for what has its guest's RAM when it comes back. */
	hf_fd_send(job->sock, &a, sizeof(a), child ? &child->pidfd : NULL, child ? 1 : 0);
	if (!child)
		job_free(job);
	return 0;
}

static int listen_at(const char *path, int *ret)
{
	cleanup_close int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	mode_t mask;
	int r = address_of(path, &address);

	if (r < 0 || sock < 0)
		return r < 0 ? r : -errno;
	unlink(path);
	mask = umask(0177);
	r = bind(sock, (const struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (r < 0 || listen(sock, SOMAXCONN) < 0)
		return -errno;
	*ret = TAKE_FD(sock);
	return 0;
}

static int get_listener(const char *path, int *ret)
{
	if (path)
		return listen_at(path, ret);
	if (sd_listen_fds(1) != 1 ||
		sd_is_socket_unix(SD_LISTEN_FDS_START, SOCK_SEQPACKET, 1, NULL, 0) <= 0)
		return -ENOTSOCK;
	*ret = SD_LISTEN_FDS_START;
	return 0;
}

int hf_spawner_run(const char *path, struct hf_error *error)
{
	sd_event_source *source = NULL;
	cleanup_close int listener = -EBADF;
	sd_event *event = NULL;
	sigset_t mask;
	int r;

	hf_spawn_use_spawner(NULL);
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = get_listener(path, &listener);
	if (r >= 0)
		r = sd_event_new(&event);
	if (r >= 0)
		r = sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
	if (r >= 0)
		r = sd_event_add_io(event, &source, listener, EPOLLIN, on_client, NULL);
	if (r >= 0) {
		sd_notify(0, "READY=1");
		r = sd_event_loop(event);
	}
	sd_event_source_unref(source);
	sd_event_unref(event);
	return r < 0 ? hf_error_set(error, r, HF_ERR_FAILED, NULL, "can't serve as spawner%s%s: %s",
			       path ? " at " : "", path ? path : "", strerror(-r))
		     : 0;
}
