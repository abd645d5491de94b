/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Parts of a QMP connection, shared by the files of this folder and nobody else.
 *
 * qmp.c has the life cycle, commands and deadlines; connect.c gets the socket; input.c takes
 * messages from it; output.c puts bytes and descriptors on it.
 *
 * Life: the owner holds one reference until hf_qmp_free(), each handler of the loop one while it
 * runs. So a callback may free the connection: the handler sees `dead` and leaves.
 */
#pragma once

#include <sys/queue.h>

#include "qmp/qmp.h"

#define HF_QMP_USEC_NEVER UINT64_MAX

/* A command whose callback is still due. */
struct hf_qmp_pending {
	TAILQ_ENTRY(hf_qmp_pending) entry;
	uint64_t id;
	uint64_t timeout_ns;
	uint64_t deadline_us; /* CLOCK_MONOTONIC */
	hf_qmp_reply_fn fn;
	void *data;
	char name[64];
};

/* A line not wholly sent. It outlives its command when that is cancelled half-way. */
struct hf_qmp_line {
	TAILQ_ENTRY(hf_qmp_line) entry;
	uint64_t id;
	int fd; /* goes with the first byte, owned; -EBADF */
	size_t size;
	size_t sent;
	char bytes[];
};

struct hf_qmp {
	unsigned int n_ref;
	bool dead;
	enum hf_qmp_state state;
	sd_event *event;
	const struct hf_qmp_ops *ops;
	void *userdata;
	char *label;
	struct hf_qmp_version version;

	int fd;
	sd_event_source *io;
	sd_event_source *timer;
	sd_event_source *kick; /* runs what a call of ours may not run itself */
	uint64_t armed_us;     /* what the timer is set to */
	uint64_t connect_us;   /* when being ready is due */
	uint64_t connect_ns;   /* the same as it was asked for */

	/* connect.c */
	bool wait_socket;
	bool attached;	 /* given to us: no other client can be in the way */
	int connect_err; /* why the last attempt failed */
	unsigned int fast_tries;
	uint64_t retry_us;
	sd_event_source *inotify;

	/* output.c */
	TAILQ_HEAD(, hf_qmp_line) lines;
	size_t unsent_bytes;
	uint64_t fd_id; /* the command with a descriptor that QEMU hasn't answered yet */
	bool blocked;	/* waiting for EPOLLOUT */
	int send_err;

	/* qmp.c */
	struct hf_qmp_framer *framer;
	TAILQ_HEAD(, hf_qmp_pending) pending;
	size_t n_pending;
	/* Of commands. They begin where no other connection's do: QEMU may send us the reply to a
	 * command of the client before, if that went away while QEMU worked on it. */
	uint64_t first_id, last_id;
};

uint64_t hf_qmp_now_us(void);
/* Makes sure that the timer fires at @at_us or before. */
void hf_qmp_arm(struct hf_qmp *q, uint64_t at_us);
/* Ends the connection: callbacks of all commands, then closed(). Nothing if it is closed already.
 */
void hf_qmp_fail(struct hf_qmp *q, int err, const char *fmt, ...) HF_PRINTF(3, 4);
/* Sends what can be sent; a failure is handled from the loop. */
void hf_qmp_send(struct hf_qmp *q);
/* hf_qmp_command() without its checks. Does not consume @args, takes @fd. */
int hf_qmp_submit(struct hf_qmp *q, const char *name, struct json_object *args, int fd,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, bool first, uint64_t *ret_id);
struct hf_qmp_pending *hf_qmp_pending_find(struct hf_qmp *q, uint64_t id);
/* Calls back and frees @p; success when @error is NULL. */
void hf_qmp_complete(struct hf_qmp *q, struct hf_qmp_pending *p, struct json_object *ret,
	const struct hf_error *error);
/* Takes over the connected socket. */
int hf_qmp_connected(struct hf_qmp *q, int fd);

/* input.c: one read(2) and all messages that it completes, so that none starves the others. */
void hf_qmp_read(struct hf_qmp *q);

int hf_qmp_connect_start(struct hf_qmp *q);
void hf_qmp_connect_stop(struct hf_qmp *q);
void hf_qmp_connect_retry(struct hf_qmp *q);
int hf_qmp_connect_error(const struct hf_qmp *q, int err, struct hf_error *error);

/* Queues a line; takes @fd. @first puts it in front of all others. */
int hf_qmp_queue(struct hf_qmp *q, uint64_t id, const char *bytes, size_t size, int fd, bool first);
int hf_qmp_flush(struct hf_qmp *q);
/* Takes a line back that nothing was sent of. Whether it did. */
bool hf_qmp_unqueue(struct hf_qmp *q, uint64_t id);
void hf_qmp_drop_lines(struct hf_qmp *q);

/*
 * Copies text of the peer for people: control characters become spaces, and what doesn't fit is
 * cut at a whole UTF-8 character.
 */
void hf_qmp_copy_text(char *dst, size_t size, const char *src);
