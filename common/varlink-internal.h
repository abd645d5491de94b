/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the files of the Varlink server share. Not for anybody else.
 *
 *  varlink-server.c   listening, clients coming, the server's life
 *  varlink-conn.c     one client: bytes in and out, messages in order, its end
 *  varlink-call.c     one call: answering it
 *  varlink-service.c  which method a message means, and org.varlink.service
 *
 * A connection has one current call at most and holds a reference to it. A call points back at its
 * connection until it is answered or the client is gone. Connections end in one place only,
 * conn_pump(), which runs from the loop: whoever finds a connection broken marks it dead and wakes
 * the pump, so nothing disappears under a function that is using it.
 */
#pragma once

#include "common/varlink.h"

struct hf_varlink_conn {
	struct hf_varlink_server *server;
	struct hf_varlink_conn *prev, *next;
	int fd;
	uid_t uid;
	pid_t pid; /* of who connected; with @pidfd */
	int pidfd; /* -EBADF for privileged peers, and where it can't be had */
	sd_event_source *io;
	sd_event_source *pump; /* one-shot: go on with what is buffered, or end */
	struct hf_varlink_framer in;
	char *out;
	size_t out_start, out_end, out_room;
	struct hf_varlink_call *current; /* referenced */
	bool eof;			 /* the client will say no more, but may listen */
	bool hup;			 /* the client listens no more */
	bool dead;			 /* broken or thrown out: end it */
	bool in_pump;
};

struct hf_varlink_server {
	sd_event *event;
	struct hf_varlink_server_options options;
	int listen_fd;
	bool unlink_path;
	sd_event_source *accept;
	struct hf_varlink_conn *conns;
	unsigned int n_conns;
	unsigned int n_unprivileged;
};

struct hf_varlink_call {
	unsigned int refs;
	struct hf_varlink_conn *conn; /* NULL: answered, or nobody waits */
	const char *interface;	      /* for the names of errors; used while @conn is set */
	uid_t uid;
	const struct hf_varlink_method *waiting; /* for leave to be carried out, with @params */
	struct json_object *params;
	bool more;
	bool oneway;
	void (*gone)(struct hf_varlink_call *call, void *userdata);
	void *gone_userdata;
};

/** hf_varlink_conn_new() - Make a connection part of a server. Takes @fd, on failure too. */
int hf_varlink_conn_new(struct hf_varlink_server *server, int fd, uid_t uid);

/** hf_varlink_conn_free() - End a connection; its call's client is gone. */
void hf_varlink_conn_free(struct hf_varlink_conn *conn);

/** hf_varlink_conn_send() - Send a message, now or when the client reads. @message is borrowed. */
void hf_varlink_conn_send(struct hf_varlink_conn *conn, struct json_object *message);

/** hf_varlink_conn_write() - Send what is waiting. Return: 0, -EAGAIN, or a fatal -errno. */
int hf_varlink_conn_write(struct hf_varlink_conn *conn);

/** hf_varlink_conn_wake() - Have the pump run soon. */
void hf_varlink_conn_wake(struct hf_varlink_conn *conn);

/** hf_varlink_uid_privileged() - Is it root, or who the server is? */
bool hf_varlink_uid_privileged(uid_t uid);

/**
 * hf_varlink_service_handle() - Find the method of a message and have it answered.
 * @conn:    where it came from; has no current call
 * @message: borrowed
 *
 * Return: 0, or -EBADMSG when it is no Varlink call.
 */
int hf_varlink_service_handle(struct hf_varlink_conn *conn, struct json_object *message);

/** hf_varlink_call_error_full() - Answer with an error by its full name. @params is consumed. */
void hf_varlink_call_error_full(
	struct hf_varlink_call *call, const char *name, struct json_object *params);
