/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What goes out on a QMP connection.
 *
 * Lines are sent in the order they were queued, as many in one sendmsg(2) as there are; only a line
 * with a descriptor begins a call of its own, because the descriptor belongs to the first byte of
 * the call that carries it.
 *
 * QEMU's socket layer keeps the descriptors of the newest message that had any and closes older
 * ones, so the next descriptor isn't sent before QEMU has answered the command that uses the last.
 *
 * Ownership: a queued line owns its descriptor (a duplicate of the caller's) until it is sent.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "qmp/internal.h"

#define MAX_IOV 32

static void line_free(struct hf_qmp *q, struct hf_qmp_line *l)
{
	TAILQ_REMOVE(&q->lines, l, entry);
	q->unsent_bytes -= l->size - l->sent;
	hf_close(&l->fd);
	free(l);
}

int hf_qmp_queue(struct hf_qmp *q, uint64_t id, const char *bytes, size_t size, int fd, bool first)
{
	cleanup_close int owned = fd;
	struct hf_qmp_line *l = malloc(sizeof(*l) + size);

	if (!l)
		return -ENOMEM;
	*l = (struct hf_qmp_line){.id = id, .fd = TAKE_FD(owned), .size = size};
	memcpy(l->bytes, bytes, size);
	if (first)
		TAILQ_INSERT_HEAD(&q->lines, l, entry);
	else
		TAILQ_INSERT_TAIL(&q->lines, l, entry);
	q->unsent_bytes += size;
	return 0;
}

bool hf_qmp_unqueue(struct hf_qmp *q, uint64_t id)
{
	struct hf_qmp_line *l;

	TAILQ_FOREACH(l, &q->lines, entry)
	{
		if (l->id == id) {
			if (l->sent)
				return false;
			line_free(q, l);
			return true;
		}
	}
	return false;
}

void hf_qmp_drop_lines(struct hf_qmp *q)
{
	struct hf_qmp_line *l;

	while ((l = TAILQ_FIRST(&q->lines)))
		line_free(q, l);
}

/* Lines that may go in one call: from the first up to the next one with a descriptor. */
static size_t gather(struct hf_qmp *q, struct iovec iov[static MAX_IOV])
{
	struct hf_qmp_line *l;
	size_t n = 0;

	TAILQ_FOREACH(l, &q->lines, entry)
	{
		if (n == MAX_IOV || (n && l->fd >= 0))
			break;
		iov[n].iov_base = l->bytes + l->sent;
		iov[n].iov_len = l->size - l->sent;
		n++;
	}
	return n;
}

static ssize_t send_some(struct hf_qmp *q, struct hf_qmp_line *first)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov[MAX_IOV];
	struct msghdr msg = {.msg_iov = iov};
	ssize_t n;

	msg.msg_iovlen = gather(q, iov);
	if (first->fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &first->fd, sizeof(int));
	}
	do
		n = sendmsg(q->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* The kernel took @n bytes, and with the first of them the first line's descriptor. */
static void advance(struct hf_qmp *q, size_t n)
{
	struct hf_qmp_line *l = TAILQ_FIRST(&q->lines);

	if (n && l->fd >= 0) {
		q->fd_id = l->id;
		hf_close(&l->fd);
	}
	while (n) {
		size_t part;

		l = TAILQ_FIRST(&q->lines);
		part = HF_MIN(n, l->size - l->sent);
		l->sent += part;
		q->unsent_bytes -= part;
		n -= part;
		if (l->sent == l->size)
			line_free(q, l);
	}
}

static void want_output(struct hf_qmp *q, bool want)
{
	if (q->blocked == want)
		return;
	q->blocked = want;
	sd_event_source_set_io_events(q->io, want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/*
 * Sends what the socket takes. Return: 0 (also when some is left), or -errno of a dead socket.
 */
int hf_qmp_flush(struct hf_qmp *q)
{
	struct hf_qmp_line *l;
	ssize_t n;

	if (q->state != HF_QMP_NEGOTIATING && q->state != HF_QMP_READY)
		return 0;
	while ((l = TAILQ_FIRST(&q->lines))) {
		if (l->fd >= 0 && q->fd_id)
			break;
		n = send_some(q, l);
		if (n == -EAGAIN) {
			want_output(q, true);
			return 0;
		}
		if (n < 0)
			return (int)n;
		advance(q, (size_t)n);
	}
	want_output(q, false);
	return 0;
}
