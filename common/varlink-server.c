/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The listening end of Varlink. See varlink-internal.h for the other files of the server.
 *
 * Limits on clients: a quarter of the places is kept for privileged ones, so that no user can lock
 * root out, and the rate of accepting is bounded, so that a flood of connections (or a lack of file
 * descriptors, which leaves a client waiting at the door) can't keep the loop busy.
 */
#include "common/varlink-internal.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define BACKLOG 32
#define ACCEPTS_PER_SEC 200

static int socket_uid(int fd, void *userdata, uid_t *ret_uid)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
		return -errno;
	*ret_uid = cred.uid;
	return 0;
}

int hf_varlink_server_add(struct hf_varlink_server *server, int fd)
{
	const struct hf_varlink_server_options *o = &server->options;
	unsigned int max = o->max_clients;
	uid_t uid = (uid_t)-1;
	int r;

	r = o->peer_uid(fd, o->userdata, &uid);
	if (r < 0) {
		close(fd);
		return r;
	}
	if (server->n_conns >= max ||
		(!hf_varlink_uid_privileged(uid) && server->n_unprivileged >= max - max / 4)) {
		close(fd);
		return -EUSERS;
	}
	return hf_varlink_conn_new(server, fd, uid);
}

static int on_accept(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct hf_varlink_server *server = userdata;
	int client;

	client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (client >= 0)
		hf_varlink_server_add(server, client);
	return 0;
}

/* Is somebody answering at the path, or did a dead process leave the socket? */
static bool is_served(const struct sockaddr_un *addr)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return true;
	return connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN;
}

static int listen_at(const char *path, int *ret_fd)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_close int fd = -EBADF;
	struct stat st;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		if (errno != EADDRINUSE)
			return -errno;
		/* Never unlink what is no socket, nor one that works. */
		if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode) || is_served(&addr))
			return -EADDRINUSE;
		if (unlink(path) < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
			return -errno;
	}
	if (chmod(path, 0666) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int hf_varlink_server_new(sd_event *event, const struct hf_varlink_server_options *options,
	struct hf_varlink_server **ret)
{
	struct hf_varlink_server *server;
	int r;

	server = calloc(1, sizeof(*server));
	if (!server) {
		if (!options->path)
			close(options->listen_fd);
		return -ENOMEM;
	}
	server->event = sd_event_ref(event);
	server->options = *options;
	server->listen_fd = options->path ? -EBADF : options->listen_fd;
	if (!server->options.max_clients)
		server->options.max_clients = HF_VARLINK_MAX_CLIENTS;
	if (!server->options.max_out)
		server->options.max_out = HF_VARLINK_MAX_OUT;
	if (!server->options.peer_uid)
		server->options.peer_uid = socket_uid;

	if (options->path) {
		r = listen_at(options->path, &server->listen_fd);
		if (r < 0)
			goto fail;
		server->unlink_path = true;
	}
	r = sd_event_add_io(event, &server->accept, server->listen_fd, EPOLLIN, on_accept, server);
	if (r >= 0)
		r = sd_event_source_set_ratelimit(server->accept, HF_USEC_PER_SEC, ACCEPTS_PER_SEC);
	if (r < 0)
		goto fail;
	sd_event_source_set_description(server->accept, "varlink-server");
	*ret = server;
	return 0;
fail:
	hf_varlink_server_free(server);
	return r;
}

struct hf_varlink_server *hf_varlink_server_free(struct hf_varlink_server *server)
{
	if (!server)
		return NULL;
	sd_event_source_disable_unref(server->accept);
	if (server->unlink_path)
		unlink(server->options.path);
	hf_close(&server->listen_fd);
	while (server->conns)
		hf_varlink_conn_free(server->conns);
	sd_event_unref(server->event);
	free(server);
	return NULL;
}

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * HF_NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* One round: write to every client that has something waiting. Return: how many still have. */
static size_t flush_round(struct hf_varlink_server *server, struct pollfd *waiting, size_t max)
{
	size_t n = 0;

	for (struct hf_varlink_conn *c = server->conns; c; c = c->next) {
		int r = c->dead ? 0 : hf_varlink_conn_write(c);

		if (r == -EAGAIN && n < max) {
			waiting[n++] = (struct pollfd){.fd = c->fd, .events = POLLOUT};
		} else if (r < 0 && r != -EAGAIN) {
			c->dead = true;
			hf_varlink_conn_wake(c);
		}
	}
	return n;
}

int hf_varlink_server_flush(struct hf_varlink_server *server, uint64_t timeout_ns)
{
	uint64_t end = monotonic_ns() + timeout_ns;
	cleanup_free struct pollfd *waiting = NULL;
	size_t n;

	waiting = calloc(server->n_conns + 1, sizeof(*waiting));
	if (!waiting)
		return -ENOMEM;
	while ((n = flush_round(server, waiting, server->n_conns)) > 0) {
		uint64_t now = monotonic_ns();
		struct timespec ts;

		if (now >= end)
			return -ETIMEDOUT;
		ts.tv_sec = (time_t)((end - now) / HF_NSEC_PER_SEC);
		ts.tv_nsec = (long)((end - now) % HF_NSEC_PER_SEC);
		if (ppoll(waiting, n, &ts, NULL) < 0 && errno != EINTR)
			return -errno;
	}
	return 0;
}
