/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Answering a Varlink call. See varlink-internal.h for who owns what.
 */
#include "common/varlink-internal.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"

struct hf_varlink_call *hf_varlink_call_ref(struct hf_varlink_call *call)
{
	call->refs++;
	return call;
}

/* The call is over for its connection, which may go on with the next one. */
static void call_done(struct hf_varlink_call *call)
{
	struct hf_varlink_conn *conn = call->conn;

	call->conn = NULL;
	call->gone = NULL;
	conn->current = NULL;
	hf_varlink_conn_wake(conn);
	hf_varlink_call_unref(call);
}

struct hf_varlink_call *hf_varlink_call_unref(struct hf_varlink_call *call)
{
	if (!call)
		return NULL;
	if (--call->refs == 0) {
		json_object_put(call->params);
		free(call);
		return NULL;
	}
	if (call->refs == 1 && call->conn) {
		struct hf_error e = {0};

		hf_error_set(&e, -EIO, HF_ERR_FAILED, NULL, "the call ended without an answer");
		hf_varlink_call_error(call, &e, NULL);
	}
	return NULL;
}

static void call_send(
	struct hf_varlink_call *call, const char *error, struct json_object *params, bool continues)
{
	cleanup_json struct json_object *message = NULL;

	if (!call->conn || call->oneway) {
		json_object_put(params);
		return;
	}
	message = json_object_new_object();
	if (!params)
		params = json_object_new_object();
	if (!message || !params) {
		/* Out of memory: a client that is cut off knows at least that something is wrong.
		 */
		json_object_put(params);
		call->conn->dead = true;
		hf_varlink_conn_wake(call->conn);
		return;
	}
	if (error)
		hf_json_add_string(message, "error", error);
	hf_json_add(message, "parameters", params);
	if (continues)
		hf_json_add_bool(message, "continues", true);
	hf_varlink_conn_send(call->conn, message);
}

void hf_varlink_call_reply(struct hf_varlink_call *call, struct json_object *params)
{
	call_send(call, NULL, params, false);
	if (call->conn)
		call_done(call);
}

void hf_varlink_call_notify(struct hf_varlink_call *call, struct json_object *params)
{
	if (call->more)
		call_send(call, NULL, params, true);
	else
		json_object_put(params);
}

void hf_varlink_call_error_full(
	struct hf_varlink_call *call, const char *name, struct json_object *params)
{
	call_send(call, name, params, false);
	if (call->conn)
		call_done(call);
}

void hf_varlink_call_error(
	struct hf_varlink_call *call, const struct hf_error *e, struct json_object *extra)
{
	struct json_object *params = extra ? extra : json_object_new_object();
	char name[256];

	if (!call->conn) {
		json_object_put(params);
		return;
	}
	if (params) {
		hf_json_add_string(params, "message", e->err ? e->message : "unknown error");
		if (e->err && e->remedy[0])
			hf_json_add_string(params, "remedy", e->remedy);
		if (e->err && e->guest[0])
			hf_json_add_string(params, "guest", e->guest);
	}
	snprintf(name, sizeof(name), "%s.%s", call->interface, e->err ? e->name : HF_ERR_FAILED);
	hf_varlink_call_error_full(call, name, params);
}

void hf_varlink_call_errno(struct hf_varlink_call *call, int err, const char *what)
{
	struct hf_error e = {0};

	hf_error_set(&e, err, HF_ERR_FAILED, NULL, "%s: %s", what, strerror(-err));
	hf_varlink_call_error(call, &e, NULL);
}

void hf_varlink_call_invalid(struct hf_varlink_call *call, const char *parameter)
{
	struct json_object *params = json_object_new_object();

	if (params)
		hf_json_add_string(params, "parameter", parameter);
	hf_varlink_call_error_full(call, "org.varlink.service.InvalidParameter", params);
}

int hf_varlink_call_dispatch(
	struct hf_varlink_call *call, struct json_object *obj, const struct hf_json_field *fields)
{
	const char *bad = NULL;
	int r;

	r = hf_json_dispatch(obj, fields, &bad);
	if (r < 0)
		hf_varlink_call_invalid(call, bad);
	return r;
}

bool hf_varlink_call_wants_more(const struct hf_varlink_call *call)
{
	return call->more;
}

bool hf_varlink_call_is_open(const struct hf_varlink_call *call)
{
	return call->conn && !call->conn->dead;
}

uid_t hf_varlink_call_peer_uid(const struct hf_varlink_call *call)
{
	return call->uid;
}

int hf_varlink_call_peer_process(
	const struct hf_varlink_call *call, pid_t *ret_pid, uint64_t *ret_start_ticks)
{
	struct pollfd ended = {.events = POLLIN};
	uint64_t ticks;
	int r;

	if (!call->conn || call->conn->pidfd < 0)
		return -ESRCH;
	r = hf_pid_start_time(call->conn->pid, &ticks);
	if (r < 0)
		return r;
	/* Only then: while it lives, its number is nobody else's, and it is what was read above. */
	ended.fd = call->conn->pidfd;
	r = poll(&ended, 1, 0);
	if (r != 0)
		return r < 0 ? -errno : -ESRCH;
	*ret_pid = call->conn->pid;
	*ret_start_ticks = ticks;
	return 0;
}

void hf_varlink_call_proceed(struct hf_varlink_call *call)
{
	const struct hf_varlink_method *method = TAKE_PTR(call->waiting);
	cleanup_json struct json_object *params = TAKE_PTR(call->params);

	if (method && call->conn)
		method->handler(call, params, call->conn->server->options.userdata);
}

void hf_varlink_call_on_gone(struct hf_varlink_call *call,
	void (*gone)(struct hf_varlink_call *call, void *userdata), void *userdata)
{
	if (!call->conn || call->oneway)
		return;
	call->gone = gone;
	call->gone_userdata = userdata;
}
