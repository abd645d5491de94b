/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/held.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/arrival.h"
#include "agent/incoming.h"
#include "common/json.h"

/* One call, until what it asked for has ended. */
struct request {
	struct hf_agent *agent;
	struct hf_varlink_call *call;
	uint64_t ram_bytes;
};

static struct request *request_new(struct hf_agent *agent, struct hf_varlink_call *call)
{
	struct request *q = calloc(1, sizeof(*q));

	if (!q) {
		hf_varlink_call_errno(call, -ENOMEM, "request");
		return NULL;
	}
	*q = (struct request){.agent = agent, .call = hf_varlink_call_ref(call)};
	/* Without room for one more the answer still comes. */
	if (hf_varlink_call_wants_more(call))
		hf_agent_watch(agent, call);
	return q;
}

static void request_free(struct request *q)
{
	hf_agent_unwatch(q->agent, q->call);
	hf_varlink_call_unref(q->call);
	free(q);
}

static void refuse(struct request *q, const struct hf_error *error)
{
	hf_varlink_call_error(q->call, error, NULL);
	request_free(q);
}

/* It was tried, and the guest is held. */
static void still_held(struct request *q, const struct hf_error *error)
{
	struct hf_error e = *error;

	snprintf(e.name, sizeof(e.name), "%s", HF_ERR_DEGRADED);
	refuse(q, &e);
}

/* ---- Retry ---- */

static int check_program(const char *path, struct hf_error *error)
{
	struct stat st;

	if (path[0] != '/')
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, "give its absolute path",
			"`%.200s` is not an absolute path", path);
	if (strlen(path) >= 4096)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, NULL,
			"the path of the QEMU binary is too long");
	if (stat(path, &st) < 0)
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, "give the path of a QEMU",
			"%.200s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || !(st.st_mode & 0111))
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, "give the path of a QEMU",
			"%.200s is not a program", path);
	return 0;
}

static void on_retried(const struct hf_error *error, void *data)
{
	struct request *q = data;

	if (error) {
		still_held(q, error);
		return;
	}
	hf_varlink_call_reply(q->call, NULL);
	request_free(q);
}

void hf_held_retry(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const char *guest = NULL, *qemu = NULL;
	const struct hf_json_field fields[] = {
		{"guest", json_type_string, 0, &guest},
		{"qemu", json_type_string, HF_JSON_OPTIONAL, &qemu},
		{NULL, json_type_null, 0, NULL},
	};
	struct hf_error e = {0};
	struct request *q;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	q = request_new(userdata, call);
	if (!q)
		return;
	if ((qemu && check_program(qemu, &e) < 0) ||
		hf_arrival_retry(q->agent, guest, qemu, on_retried, q, &e) < 0)
		refuse(q, &e);
}

/* ---- Release ---- */

static void reply_released(struct request *q)
{
	struct json_object *params = json_object_new_object();

	hf_json_add_int(params, "ram_bytes", q->ram_bytes);
	hf_varlink_call_reply(q->call, params);
	request_free(q);
}

static void on_released(const struct hf_error *error, void *data)
{
	if (error)
		still_held(data, error);
	else
		reply_released(data);
}

static int may_release(struct request *q, const char *guest, struct hf_error *error)
{
	const struct hf_manifest_guest *g;
	struct hf_incoming *in = NULL;
	int r = hf_arrival_find(q->agent, guest, &in, error);

	if (r < 0)
		return r;
	g = hf_incoming_guest(in);
	for (size_t i = 0; i < g->n_ram; i++)
		q->ram_bytes += g->ram[i].size;
	r = hf_incoming_may_release(in, error);
	if (r < 0)
		hf_error_guest(error, g->name);
	return r;
}

void hf_held_release(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const char *guest = NULL;
	bool dry_run = false;
	const struct hf_json_field fields[] = {
		{"guest", json_type_string, 0, &guest},
		{"dry_run", json_type_boolean, HF_JSON_OPTIONAL, &dry_run},
		{NULL, json_type_null, 0, NULL},
	};
	struct hf_error e = {0};
	struct request *q;
	int r;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	q = request_new(userdata, call);
	if (!q)
		return;
	r = may_release(q, guest, &e);
	if (r == 0 && dry_run) {
		reply_released(q);
		return;
	}
	if (r == 0)
		r = hf_arrival_release(q->agent, guest, on_released, q, &e);
	if (r < 0)
		refuse(q, &e);
}
