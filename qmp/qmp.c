/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QMP connection: life cycle, commands, deadlines.
 *
 * Every way out leads through fail(): it disconnects first, then calls back what is outstanding,
 * then says closed; so no callback ever sees a half-closed connection. What must not happen inside
 * a caller's own call (a send that fails, a close) is put off to the `kick` source.
 *
 * Deadlines of all commands and of the connection share one timer. It is armed for the earliest
 * that was ever asked for, and finds out when it fires what is really due.
 */
#include "qmp/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "qmp/internal.h"

#define DEFAULT_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)
#define MAX_PENDING 1024
#define MAX_UNSENT_BYTES (16u << 20)

uint64_t hf_qmp_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * HF_USEC_PER_SEC + (uint64_t)ts.tv_nsec / HF_NSEC_PER_USEC;
}

/* When something asked for now is due. Rounds up: a time-out is never early. */
static uint64_t deadline_us(uint64_t timeout_ns)
{
	uint64_t now = hf_qmp_now_us(), us;

	if (timeout_ns == HF_QMP_TIMEOUT_NEVER)
		return HF_QMP_USEC_NEVER;
	us = timeout_ns / HF_NSEC_PER_USEC + 1;
	return us < HF_QMP_USEC_NEVER - now ? now + us : HF_QMP_USEC_NEVER;
}

void hf_qmp_arm(struct hf_qmp *q, uint64_t at_us)
{
	if (at_us >= q->armed_us)
		return;
	q->armed_us = at_us;
	sd_event_source_set_time(q->timer, at_us);
	sd_event_source_set_enabled(q->timer, SD_EVENT_ONESHOT);
}

static void ref(struct hf_qmp *q)
{
	q->n_ref++;
}

static void unref(struct hf_qmp *q)
{
	if (--q->n_ref)
		return;
	hf_qmp_framer_free(q->framer);
	sd_event_unref(q->event);
	free(q->label);
	free(q);
}

/* ---- the way out ---- */

static void disconnect(struct hf_qmp *q)
{
	q->state = HF_QMP_CLOSED;
	hf_qmp_connect_stop(q);
	q->io = sd_event_source_unref(q->io);
	hf_close(&q->fd);
	sd_event_source_set_enabled(q->timer, SD_EVENT_OFF);
	q->armed_us = HF_QMP_USEC_NEVER;
	hf_qmp_drop_lines(q);
}

static void pending_remove(struct hf_qmp *q, struct hf_qmp_pending *p)
{
	TAILQ_REMOVE(&q->pending, p, entry);
	q->n_pending--;
}

/* Ends a command: off the list first, so that its callback may do what it likes. */
void hf_qmp_complete(struct hf_qmp *q, struct hf_qmp_pending *p, struct json_object *ret,
	const struct hf_error *error)
{
	pending_remove(q, p);
	if (p->fn)
		p->fn(q, error ? error->err : 0, ret, error, p->data);
	free(p);
}

static void reset_pending(struct hf_qmp *q, const char *why)
{
	struct hf_qmp_pending *p;
	struct hf_error error;

	while (!q->dead && (p = TAILQ_FIRST(&q->pending))) {
		hf_error_clear(&error);
		hf_error_set(&error, -ECONNRESET, HF_ERR_FAILED, NULL, "`%s` got no answer: %.400s",
			p->name, why);
		hf_qmp_complete(q, p, NULL, &error);
	}
}

static void fail(struct hf_qmp *q, const struct hf_error *reason)
{
	if (q->state == HF_QMP_CLOSED)
		return;
	disconnect(q);
	reset_pending(q, reason->message);
	if (!q->dead && q->ops && q->ops->closed)
		q->ops->closed(q, reason->err, reason, q->userdata);
}

HF_PRINTF(3, 4) void hf_qmp_fail(struct hf_qmp *q, int err, const char *fmt, ...)
{
	struct hf_error reason = {0};
	char text[sizeof(reason.message)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	hf_error_set(&reason, err, HF_ERR_FAILED, NULL, "monitor %.128s: %.360s", q->label, text);
	fail(q, &reason);
}

static void send_failed(struct hf_qmp *q, int err)
{
	q->send_err = err;
	sd_event_source_set_enabled(q->kick, SD_EVENT_ONESHOT);
}

void hf_qmp_send(struct hf_qmp *q)
{
	int r = hf_qmp_flush(q);

	if (r < 0)
		send_failed(q, r);
}

/* ---- commands ---- */

static char *encode(const char *name, struct json_object *args, uint64_t id, size_t *ret_size)
{
	struct json_object *cmd = json_object_new_object();
	const char *text;
	char *line = NULL;
	size_t n;

	if (!cmd || json_object_object_add(cmd, "execute", json_object_new_string(name)) < 0 ||
		json_object_object_add(cmd, "id", json_object_new_uint64(id)) < 0)
		goto out;
	if (args && json_object_object_add(cmd, "arguments", json_object_get(args)) < 0) {
		json_object_put(args);
		goto out;
	}
	text = json_object_to_json_string_length(
		cmd, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &n);
	if (text)
		line = malloc(n + 1);
	if (line) {
		memcpy(line, text, n);
		line[n] = '\n';
		*ret_size = n + 1;
	}
out:
	json_object_put(cmd);
	return line;
}

/* Does not consume @args. Owns @fd. */
int hf_qmp_submit(struct hf_qmp *q, const char *name, struct json_object *args, int fd,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, bool first, uint64_t *ret_id)
{
	cleanup_close int owned = fd;
	cleanup_free struct hf_qmp_pending *p = calloc(1, sizeof(*p));
	cleanup_free char *line = NULL;
	size_t size;
	int r;

	if (!p)
		return -ENOMEM;
	line = encode(name, args, q->last_id + 1, &size);
	if (!line)
		return -ENOMEM;
	if (!first && (q->n_pending >= MAX_PENDING || q->unsent_bytes + size > MAX_UNSENT_BYTES))
		return -ENOBUFS;
	r = hf_qmp_queue(q, q->last_id + 1, line, size, TAKE_FD(owned), first);
	if (r < 0)
		return r;
	p->id = ++q->last_id;
	p->timeout_ns = timeout_ns;
	p->deadline_us = deadline_us(timeout_ns);
	p->fn = fn;
	p->data = data;
	snprintf(p->name, sizeof(p->name), "%s", name);
	if (ret_id)
		*ret_id = p->id;
	hf_qmp_arm(q, p->deadline_us);
	TAILQ_INSERT_TAIL(&q->pending, p, entry);
	TAKE_PTR(p);
	q->n_pending++;
	hf_qmp_send(q);
	return 0;
}

int hf_qmp_command(struct hf_qmp *q, const char *name, struct json_object *args, int fd,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id)
{
	cleanup_close int dup = -EBADF;
	int r;

	if (q->state == HF_QMP_CLOSED || q->send_err) {
		r = -ENOTCONN;
		goto out;
	}
	if (fd >= 0) {
		dup = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (dup < 0) {
			r = -errno;
			goto out;
		}
	}
	if (timeout_ns == HF_QMP_TIMEOUT_DEFAULT)
		timeout_ns = DEFAULT_TIMEOUT_NS;
	r = hf_qmp_submit(q, name, args, TAKE_FD(dup), timeout_ns, fn, data, false, ret_id);
out:
	json_object_put(args);
	return r;
}

struct hf_qmp_pending *hf_qmp_pending_find(struct hf_qmp *q, uint64_t id)
{
	struct hf_qmp_pending *p;

	/* Replies come in the order of the commands: the first is nearly always the one. */
	TAILQ_FOREACH(p, &q->pending, entry)
	if (p->id == id)
		return p;
	return NULL;
}

int hf_qmp_cancel(struct hf_qmp *q, uint64_t id)
{
	struct hf_qmp_pending *p = hf_qmp_pending_find(q, id);

	if (!p)
		return -ENOENT;
	pending_remove(q, p);
	free(p);
	/* Others may have waited behind it. */
	if (hf_qmp_unqueue(q, id))
		hf_qmp_send(q);
	return 0;
}

static void fail_send(struct hf_qmp *q)
{
	/* The last words of a QEMU that left may still be there to read. */
	hf_qmp_read(q);
	if (q->state != HF_QMP_CLOSED)
		hf_qmp_fail(q, q->send_err == -EPIPE ? -ECONNRESET : q->send_err, "send: %s",
			strerror(-q->send_err));
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct hf_qmp *q = userdata;

	ref(q);
	if (revents & EPOLLOUT)
		hf_qmp_send(q);
	if (revents & ~(uint32_t)EPOLLOUT)
		hf_qmp_read(q);
	unref(q);
	return 0;
}

static int on_kick(sd_event_source *s, void *userdata)
{
	struct hf_qmp *q = userdata;

	ref(q);
	if (q->state == HF_QMP_CLOSED)
		reset_pending(q, "the connection was closed");
	else if (q->send_err)
		fail_send(q);
	unref(q);
	return 0;
}

/* ---- time ---- */

static void fail_late(struct hf_qmp *q)
{
	double seconds = (double)q->connect_ns / (double)HF_NSEC_PER_SEC;
	struct hf_error reason = {0};

	if (q->state == HF_QMP_CONNECTING) {
		hf_qmp_connect_error(q, q->connect_err, &reason);
		fail(q, &reason);
	} else if (q->state == HF_QMP_GREETING && !q->attached) {
		hf_error_set(&reason, -EBUSY, HF_ERR_BUSY,
			"give holdfast a QMP socket of its own, or disconnect the other client",
			"the monitor at %s is taken by another client (no greeting within %.1f s)",
			q->label, seconds);
		fail(q, &reason);
	} else {
		hf_qmp_fail(q, -ETIMEDOUT, "QEMU %s within %.1f s",
			q->state == HF_QMP_GREETING ? "sent no greeting"
						    : "did not answer `qmp_capabilities`",
			seconds);
	}
}

static void expire(struct hf_qmp *q, struct hf_qmp_pending *p)
{
	struct hf_error error = {0};

	if (hf_qmp_unqueue(q, p->id))
		hf_qmp_send(q);
	hf_error_set(&error, -ETIMEDOUT, HF_ERR_FAILED, NULL,
		"QEMU did not answer `%s` within %.1f s (monitor %.200s)", p->name,
		(double)p->timeout_ns / (double)HF_NSEC_PER_SEC, q->label);
	hf_qmp_complete(q, p, NULL, &error);
}

static struct hf_qmp_pending *earliest(struct hf_qmp *q)
{
	struct hf_qmp_pending *p, *first = TAILQ_FIRST(&q->pending);

	TAILQ_FOREACH(p, &q->pending, entry)
	if (p->deadline_us < first->deadline_us)
		first = p;
	return first;
}

static void handle_time(struct hf_qmp *q)
{
	uint64_t now = hf_qmp_now_us();
	struct hf_qmp_pending *p;

	if (q->state == HF_QMP_CONNECTING && q->retry_us <= now)
		hf_qmp_connect_retry(q);
	/* A busy loop comes late to both: an answer that is there already counts. */
	if (q->fd >= 0)
		hf_qmp_read(q);
	if (q->state < HF_QMP_READY && q->connect_us <= now)
		fail_late(q);
	while (q->state != HF_QMP_CLOSED && (p = earliest(q)) && p->deadline_us <= now)
		expire(q, p);
	if (q->state == HF_QMP_CLOSED)
		return;
	p = earliest(q);
	if (p)
		hf_qmp_arm(q, p->deadline_us);
	hf_qmp_arm(q, q->connect_us);
	hf_qmp_arm(q, q->retry_us);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_qmp *q = userdata;

	ref(q);
	q->armed_us = HF_QMP_USEC_NEVER;
	handle_time(q);
	unref(q);
	return 0;
}

/* ---- the way in ---- */

int hf_qmp_connected(struct hf_qmp *q, int fd)
{
	int r;

	q->fd = fd;
	r = sd_event_add_io(q->event, &q->io, fd, EPOLLIN, on_io, q);
	if (r < 0) {
		hf_close(&q->fd);
		return r;
	}
	q->state = HF_QMP_GREETING;
	return 0;
}

pid_t hf_qmp_peer_pid(const struct hf_qmp *q)
{
	struct ucred cred;
	socklen_t size = sizeof(cred);

	if (q->fd < 0 || getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
		return 0;
	return cred.pid;
}

static int new_connection(sd_event *event, const char *label, uint64_t timeout_ns,
	const struct hf_qmp_ops *ops, void *userdata, struct hf_qmp **ret)
{
	struct hf_qmp *q = calloc(1, sizeof(*q));
	int r = -ENOMEM;

	if (!q)
		return -ENOMEM;
	q->n_ref = 1;
	q->fd = -EBADF;
	q->event = sd_event_ref(event);
	q->ops = ops;
	q->userdata = userdata;
	q->armed_us = q->retry_us = HF_QMP_USEC_NEVER;
	TAILQ_INIT(&q->lines);
	TAILQ_INIT(&q->pending);
	q->connect_ns = timeout_ns == HF_QMP_TIMEOUT_DEFAULT ? DEFAULT_TIMEOUT_NS : timeout_ns;
	q->connect_us = deadline_us(q->connect_ns);
	q->first_id = q->last_id = hf_qmp_now_us();
	q->label = strdup(label);
	if (!q->label)
		goto err;
	r = hf_qmp_framer_new(NULL, &q->framer);
	if (r < 0)
		goto err;
	/* An accuracy of 0 would mean a quarter of a second. */
	r = sd_event_add_time(event, &q->timer, CLOCK_MONOTONIC, UINT64_MAX, 1, on_timer, q);
	if (r < 0)
		goto err;
	r = sd_event_source_set_enabled(q->timer, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_defer(event, &q->kick, on_kick, q);
	if (r >= 0)
		r = sd_event_source_set_enabled(q->kick, SD_EVENT_OFF);
	if (r < 0)
		goto err;
	hf_qmp_arm(q, q->connect_us);
	*ret = q;
	return 0;
err:
	hf_qmp_free(q);
	return r;
}

int hf_qmp_connect(sd_event *event, const char *path, unsigned int flags, uint64_t timeout_ns,
	const struct hf_qmp_ops *ops, void *userdata, struct hf_qmp **ret, struct hf_error *error)
{
	cleanup_qmp struct hf_qmp *q = NULL;
	int r;

	r = new_connection(event, path, timeout_ns, ops, userdata, &q);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "connect to QMP socket %s: %s",
			path, strerror(-r));
	q->wait_socket = flags & HF_QMP_WAIT_SOCKET;
	r = hf_qmp_connect_start(q);
	if (r < 0)
		return hf_qmp_connect_error(q, r, error);
	*ret = TAKE_PTR(q);
	return 0;
}

int hf_qmp_attach_fd(sd_event *event, int fd, const char *label, uint64_t timeout_ns,
	const struct hf_qmp_ops *ops, void *userdata, struct hf_qmp **ret, struct hf_error *error)
{
	cleanup_close int owned = fd;
	cleanup_qmp struct hf_qmp *q = NULL;
	int r;

	r = new_connection(event, label, timeout_ns, ops, userdata, &q);
	if (r >= 0) {
		q->attached = true;
		r = hf_qmp_connected(q, TAKE_FD(owned));
	}
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "attach to QMP over %s: %s",
			label, strerror(-r));
	*ret = TAKE_PTR(q);
	return 0;
}

struct hf_qmp *hf_qmp_free(struct hf_qmp *q)
{
	struct hf_qmp_pending *p;

	if (!q)
		return NULL;
	disconnect(q);
	q->dead = true;
	q->timer = sd_event_source_unref(q->timer);
	q->kick = sd_event_source_unref(q->kick);
	while ((p = TAILQ_FIRST(&q->pending))) {
		pending_remove(q, p);
		free(p);
	}
	unref(q);
	return NULL;
}

void hf_qmp_close(struct hf_qmp *q)
{
	if (q->state == HF_QMP_CLOSED)
		return;
	disconnect(q);
	sd_event_source_set_enabled(q->kick, SD_EVENT_ONESHOT);
}

enum hf_qmp_state hf_qmp_get_state(const struct hf_qmp *q)
{
	return q->state;
}

const char *hf_qmp_state_name(enum hf_qmp_state state)
{
	static const char *const names[] = {
		[HF_QMP_CONNECTING] = "connecting",
		[HF_QMP_GREETING] = "greeting",
		[HF_QMP_NEGOTIATING] = "negotiating",
		[HF_QMP_READY] = "ready",
		[HF_QMP_CLOSED] = "closed",
	};

	return (size_t)state < HF_ARRAY_SIZE(names) ? names[state] : "unknown";
}

const struct hf_qmp_version *hf_qmp_get_version(const struct hf_qmp *q)
{
	return &q->version;
}

bool hf_qmp_at_least(const struct hf_qmp *q, unsigned int major, unsigned int minor)
{
	return q->version.major > major || (q->version.major == major && q->version.minor >= minor);
}

const char *hf_qmp_label(const struct hf_qmp *q)
{
	return q->label;
}
