/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What comes in on a QMP connection.
 *
 * The peer is untrusted: whatever isn't QMP breaks the connection with -EBADMSG. A callback may
 * close or free the connection, so the state is looked at again after each message.
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/socket.h>

#include "qmp/commands.h"
#include "qmp/internal.h"

#define READ_BYTES (32u << 10)

/* The member's text, NULL when it is absent, no string, or has a NUL inside. */
static const char *text_of(struct json_object *obj, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(obj, key, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	if (strlen(json_object_get_string(v)) != (size_t)json_object_get_string_len(v))
		return NULL;
	return json_object_get_string(v);
}

static void on_negotiated(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	if (q->state != HF_QMP_NEGOTIATING)
		return;
	if (err < 0) {
		hf_qmp_fail(q, err, "%.300s", error->message);
		return;
	}
	q->state = HF_QMP_READY;
	q->connect_us = HF_QMP_USEC_NEVER;
	if (q->ops && q->ops->ready)
		q->ops->ready(q, q->userdata);
}

static void handle_greeting(struct hf_qmp *q, struct json_object *msg)
{
	struct json_object *greeting, *version;
	int r;

	if (!json_object_object_get_ex(msg, "QMP", &greeting) ||
		!json_object_object_get_ex(greeting, "version", &version) ||
		hf_qmp_parse_version(version, &q->version) < 0) {
		hf_qmp_fail(q, -EBADMSG, "what answers is not QMP");
		return;
	}
	q->state = HF_QMP_NEGOTIATING;
	r = hf_qmp_submit(q, "qmp_capabilities", NULL, -EBADF, HF_QMP_TIMEOUT_NEVER, on_negotiated,
		NULL, true, NULL);
	if (r < 0)
		hf_qmp_fail(q, r, "%s", strerror(-r));
}

static void handle_event(struct hf_qmp *q, struct json_object *msg)
{
	struct json_object *data = NULL, *stamp, *s, *us;
	const char *name = text_of(msg, "event");
	uint64_t timestamp_us = 0;

	if (!name) {
		hf_qmp_fail(q, -EBADMSG, "an event without a name");
		return;
	}
	json_object_object_get_ex(msg, "data", &data);
	if (json_object_object_get_ex(msg, "timestamp", &stamp) &&
		json_object_object_get_ex(stamp, "seconds", &s) &&
		json_object_object_get_ex(stamp, "microseconds", &us)) {
		int64_t sec = json_object_get_int64(s), usec = json_object_get_int64(us);

		/* QEMU puts -1 when it couldn't tell the time. */
		if (sec >= 0 && sec < INT64_MAX / 2000000 && usec >= 0 && usec < 1000000)
			timestamp_us = (uint64_t)sec * HF_USEC_PER_SEC + (uint64_t)usec;
	}
	if (q->ops && q->ops->event)
		q->ops->event(q, name, data, timestamp_us, q->userdata);
}

static int errno_of(const char *class)
{
	static const struct {
		const char *class;
		int err;
	} map[] = {
		{"CommandNotFound", -EOPNOTSUPP},
		{"KVMMissingCap", -EOPNOTSUPP},
		{"DeviceNotFound", -ENODEV},
		{"DeviceNotActive", -ENODEV},
	};
	size_t i;

	for (i = 0; class && i < HF_ARRAY_SIZE(map); i++)
		if (!strcmp(class, map[i].class))
			return map[i].err;
	return -EREMOTEIO;
}

static void complete_refused(struct hf_qmp *q, struct hf_qmp_pending *p, struct json_object *e)
{
	const char *class = text_of(e, "class"), *desc = text_of(e, "desc");
	struct hf_error error = {0};
	char words[360], kind[48];

	hf_qmp_copy_text(words, sizeof(words), desc ? desc : "no reason given");
	hf_qmp_copy_text(kind, sizeof(kind), class ? class : "no class");
	hf_error_set(&error, errno_of(class), HF_ERR_FAILED, NULL, "QEMU refused `%s`: %s (%s)",
		p->name, words, kind);
	hf_qmp_complete(q, p, NULL, &error);
}

static void handle_reply(struct hf_qmp *q, struct json_object *msg)
{
	struct json_object *id_obj, *ret = NULL, *e = NULL;
	bool refused = json_object_object_get_ex(msg, "error", &e);
	struct hf_qmp_pending *p;
	char words[256];
	uint64_t id;

	if (!refused && !json_object_object_get_ex(msg, "return", &ret)) {
		hf_qmp_fail(q, -EBADMSG, "a message that is neither reply nor event");
		return;
	}
	if (!json_object_object_get_ex(msg, "id", &id_obj)) {
		/* QEMU does so for input that it couldn't parse. */
		hf_qmp_copy_text(words, sizeof(words), text_of(e, "desc") ?: "no reason given");
		hf_qmp_fail(q, -EBADMSG, "a reply without an id: %s", words);
		return;
	}
	id = json_object_is_type(id_obj, json_type_int) ? json_object_get_uint64(id_obj) : 0;
	if (id <= q->first_id || id > q->last_id) {
		/* Of the client before: QEMU is done with that before it reads the first of ours.
		 */
		if (q->state == HF_QMP_NEGOTIATING)
			return;
		hf_qmp_fail(q, -EBADMSG, "a reply to a command that was never sent");
		return;
	}
	if (id == q->fd_id) {
		q->fd_id = 0;
		hf_qmp_send(q);
	}
	p = hf_qmp_pending_find(q, id);
	if (!p)
		return; /* cancelled, timed out, or answered twice */
	if (refused)
		complete_refused(q, p, e);
	else
		hf_qmp_complete(q, p, ret, NULL);
}

static void handle_message(struct hf_qmp *q, struct json_object *msg)
{
	if (q->state == HF_QMP_GREETING)
		handle_greeting(q, msg);
	else if (json_object_object_get_ex(msg, "event", NULL))
		handle_event(q, msg);
	else
		handle_reply(q, msg);
}

static void handle_input(struct hf_qmp *q)
{
	struct json_object *msg;
	int r = 0;

	while (q->state != HF_QMP_CLOSED && (r = hf_qmp_framer_next(q->framer, &msg)) > 0) {
		handle_message(q, msg);
		json_object_put(msg);
	}
	if (q->state == HF_QMP_CLOSED || r == 0)
		return;
	if (r == -EMSGSIZE)
		hf_qmp_fail(q, r, "QEMU sent a message beyond all limits");
	else if (r == -ENOMEM)
		hf_qmp_fail(q, r, "no memory for QEMU's message");
	else
		hf_qmp_fail(q, r, "QEMU sent what is no JSON object");
}

/* One read, so that one connection can't starve the others. */
void hf_qmp_read(struct hf_qmp *q)
{
	char buf[READ_BYTES];
	ssize_t n;
	int r;

	if (q->fd < 0)
		return;
	n = recv(q->fd, buf, sizeof(buf), MSG_DONTWAIT);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			hf_qmp_fail(
				q, errno == EPIPE ? -ECONNRESET : -errno, "%s", strerror(errno));
		return;
	}
	if (n == 0) {
		hf_qmp_fail(q, -ECONNRESET, "QEMU closed the connection");
		return;
	}
	r = hf_qmp_framer_push(q->framer, buf, (size_t)n);
	if (r < 0)
		hf_qmp_fail(q, r, "%s", strerror(-r));
	else
		handle_input(q);
}
