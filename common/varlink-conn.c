/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: One client of a Varlink server. See varlink-internal.h for who owns what.
 *
 * A client that says no more (its end is half closed) still gets its answers; a client that is gone
 * altogether (EPOLLHUP) has its call ended, and of what it had sent before only `oneway` calls are
 * still carried out.
 */
#include "common/varlink-internal.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

#define READ_BYTES 16384
/* Messages of one client in one turn of the loop, so that others get theirs. */
#define PUMP_MESSAGES 16
#define OUT_KEEP_BYTES 4096

static size_t buffered(const struct hf_varlink_conn *conn)
{
	return conn->in.end - conn->in.start;
}

static void update_events(struct hf_varlink_conn *conn)
{
	uint32_t events = 0;

	/* While a call is being answered, no more than one message's worth is read ahead. */
	if (!conn->eof && !conn->dead && buffered(conn) <= conn->in.limit)
		events |= EPOLLIN;
	if (conn->out_end > conn->out_start && !conn->dead)
		events |= EPOLLOUT;
	if (sd_event_source_set_io_events(conn->io, events) < 0)
		conn->dead = true;
}

void hf_varlink_conn_wake(struct hf_varlink_conn *conn)
{
	/* The pump looks for itself what there is to do before it returns. */
	if (!conn->in_pump)
		sd_event_source_set_enabled(conn->pump, SD_EVENT_ONESHOT);
}

static void kill_conn(struct hf_varlink_conn *conn)
{
	conn->dead = true;
	update_events(conn);
	hf_varlink_conn_wake(conn);
}

int hf_varlink_conn_write(struct hf_varlink_conn *conn)
{
	while (conn->out_end > conn->out_start) {
		ssize_t n = send(conn->fd, conn->out + conn->out_start,
			conn->out_end - conn->out_start, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		conn->out_start += (size_t)n;
	}
	conn->out_start = conn->out_end = 0;
	if (conn->out_room > OUT_KEEP_BYTES) {
		free(conn->out);
		conn->out = NULL;
		conn->out_room = 0;
	}
	return 0;
}

static int queue_bytes(struct hf_varlink_conn *conn, const char *data, size_t size)
{
	size_t pending = conn->out_end - conn->out_start;
	size_t room = HF_MAX(conn->out_room, (size_t)OUT_KEEP_BYTES);
	char *out;

	if (pending > conn->server->options.max_out)
		return -ENOBUFS;
	if (conn->out_start > 0) {
		memmove(conn->out, conn->out + conn->out_start, pending);
		conn->out_start = 0;
		conn->out_end = pending;
	}
	while (room < pending + size)
		room *= 2;
	if (room != conn->out_room) {
		out = realloc(conn->out, room);
		if (!out)
			return -ENOMEM;
		conn->out = out;
		conn->out_room = room;
	}
	memcpy(conn->out + pending, data, size);
	conn->out_end += size;
	return 0;
}

void hf_varlink_conn_send(struct hf_varlink_conn *conn, struct json_object *message)
{
	const char *text;
	size_t size;
	int r;

	if (conn->dead)
		return;
	text = json_object_to_json_string_length(
		message, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &size);
	/* The text ends in the NUL that the wire wants. */
	r = text ? queue_bytes(conn, text, size + 1) : -ENOMEM;
	if (r == 0) {
		r = hf_varlink_conn_write(conn);
		if (r == -EAGAIN)
			r = 0;
	}
	if (r < 0)
		kill_conn(conn);
	else
		update_events(conn);
}

/* Reads what is there, a bounded amount. */
static int read_some(struct hf_varlink_conn *conn)
{
	char data[READ_BYTES];
	ssize_t n;

	n = recv(conn->fd, data, sizeof(data), MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		conn->eof = true;
	return hf_varlink_framer_push(&conn->in, data, (size_t)n);
}

/* Carries out what is buffered until a call has to be waited for. Return: 1 when there may be more.
 */
static int handle_messages(struct hf_varlink_conn *conn)
{
	for (int i = 0; i < PUMP_MESSAGES; i++) {
		cleanup_json struct json_object *message = NULL;
		int r;

		if (conn->current || conn->dead)
			return 0;
		r = hf_varlink_framer_pop(&conn->in, &message);
		if (r == 1)
			r = hf_varlink_service_handle(conn, message);
		else if (r == 0)
			return 0;
		if (r < 0)
			return r;
	}
	return 1;
}

static bool is_over(const struct hf_varlink_conn *conn)
{
	if (conn->dead || conn->hup)
		return true;
	/* All is said and answered. */
	return conn->eof && !conn->current && conn->out_start == conn->out_end;
}

static int on_pump(sd_event_source *s, void *userdata)
{
	struct hf_varlink_conn *conn = userdata;
	int r;

	conn->in_pump = true;
	r = handle_messages(conn);
	conn->in_pump = false;
	if (r < 0)
		conn->dead = true;
	if (r == 1 && !conn->dead) {
		hf_varlink_conn_wake(conn);
		update_events(conn);
	} else if (is_over(conn)) {
		hf_varlink_conn_free(conn);
	} else {
		update_events(conn);
	}
	return 0;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct hf_varlink_conn *conn = userdata;
	int r = 0;

	if (revents & (EPOLLHUP | EPOLLERR)) {
		/* The last words may still be in the socket: at most as much as it buffers. */
		while (r == 0 && !conn->eof && buffered(conn) <= conn->in.limit)
			r = read_some(conn);
		conn->hup = true;
		/* It would be reported again and again. */
		sd_event_source_set_enabled(conn->io, SD_EVENT_OFF);
	} else {
		if (revents & EPOLLOUT)
			r = hf_varlink_conn_write(conn);
		if ((r == 0 || r == -EAGAIN) && (revents & EPOLLIN))
			r = read_some(conn);
	}
	if (r < 0 && r != -EAGAIN) {
		kill_conn(conn);
		return 0;
	}
	update_events(conn);
	hf_varlink_conn_wake(conn);
	return 0;
}

/*
 * The peer's process, to be asked about later. The kernel hands out the very process that
 * connected; one from before 6.5 only its number, which somebody else may have got between
 * connecting and now.
 */
static void find_peer(struct hf_varlink_conn *conn)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);
	socklen_t pidfd_size = sizeof(conn->pidfd);

	if (getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0 || cred.pid <= 0)
		return;
	conn->pid = cred.pid;
	if (getsockopt(conn->fd, SOL_SOCKET, SO_PEERPIDFD, &conn->pidfd, &pidfd_size) == 0)
		return;
	conn->pidfd = errno == ENOPROTOOPT ? (int)syscall(SYS_pidfd_open, cred.pid, 0) : -EBADF;
}

int hf_varlink_conn_new(struct hf_varlink_server *server, int fd, uid_t uid)
{
	struct hf_varlink_conn *conn;
	int r;

	conn = calloc(1, sizeof(*conn));
	if (!conn) {
		close(fd);
		return -ENOMEM;
	}
	conn->server = server;
	conn->fd = fd;
	conn->uid = uid;
	conn->pidfd = -EBADF;
	if (!hf_varlink_uid_privileged(uid))
		find_peer(conn);
	conn->in.limit = HF_VARLINK_MAX_IN;
	conn->next = server->conns;
	if (conn->next)
		conn->next->prev = conn;
	server->conns = conn;
	server->n_conns++;
	server->n_unprivileged += !hf_varlink_uid_privileged(uid);

	r = sd_event_add_defer(server->event, &conn->pump, on_pump, conn);
	if (r >= 0)
		r = sd_event_source_set_enabled(conn->pump, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_io(server->event, &conn->io, fd, EPOLLIN, on_io, conn);
	if (r < 0) {
		hf_varlink_conn_free(conn);
		return r;
	}
	sd_event_source_set_description(conn->io, "varlink-client");
	return 0;
}

void hf_varlink_conn_free(struct hf_varlink_conn *conn)
{
	struct hf_varlink_server *server = conn->server;
	struct hf_varlink_call *call = TAKE_PTR(conn->current);

	if (conn->prev)
		conn->prev->next = conn->next;
	else
		server->conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	server->n_conns--;
	server->n_unprivileged -= !hf_varlink_uid_privileged(conn->uid);
	sd_event_source_disable_unref(conn->io);
	sd_event_source_disable_unref(conn->pump);
	hf_close(&conn->fd);
	hf_close(&conn->pidfd);
	hf_varlink_framer_clear(&conn->in);
	free(conn->out);
	free(conn);

	if (call) {
		call->conn = NULL;
		if (call->gone)
			call->gone(call, call->gone_userdata);
		hf_varlink_call_unref(call);
	}
}
