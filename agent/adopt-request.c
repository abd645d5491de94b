/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/adopt-request.h"

#include <stdio.h>
#include <string.h>

#include "agent/adopt.h"

#define MAX_DOWNTIME_MS 60000
#define MAX_TIMEOUT_S (24 * 3600)

struct request {
	struct hf_agent *agent;
	struct hf_varlink_call *call;
};

static struct json_object *copy_json(const struct hf_vmm_progress *p)
{
	struct json_object *o = json_object_new_object();

	hf_json_add_int(o, "sent_bytes", p->sent_bytes);
	hf_json_add_int(o, "remaining_bytes", p->remaining_bytes);
	hf_json_add_int(o, "total_bytes", p->total_bytes);
	hf_json_add_int(o, "rounds", p->rounds);
	hf_json_add_int(o, "dirty_bytes_per_second", p->dirty_bytes_per_s);
	return o;
}

static void on_progress(void *data, const struct hf_vmm_progress *p)
{
	const struct request *q = data;
	struct json_object *params;

	if (!hf_varlink_call_wants_more(q->call))
		return;
	params = json_object_new_object();
	hf_json_add(params, "copy", copy_json(p));
	hf_varlink_call_notify(q->call, params);
}

static void on_done(void *data, const struct hf_adopt_result *result, const struct hf_error *error)
{
	struct request *q = data;
	struct json_object *params, *adopted;

	hf_varlink_call_on_gone(q->call, NULL, NULL);
	hf_agent_unwatch(q->agent, q->call);
	if (error) {
		hf_varlink_call_error(q->call, error, NULL);
	} else {
		params = json_object_new_object();
		adopted = json_object_new_object();
		hf_json_add_string(adopted, "uuid", result->uuid);
		hf_json_add_string(adopted, "name", result->name);
		hf_json_add_int(adopted, "pid", (uint64_t)result->pid);
		hf_json_add_int(adopted, "blackout_ns", result->blackout_ns);
		hf_json_add(params, "adopted", adopted);
		hf_json_add(params, "copy", copy_json(&result->copy));
		hf_varlink_call_reply(q->call, params);
	}
	hf_varlink_call_unref(q->call);
	free(q);
}

static const struct hf_adopt_ops adopt_ops = {.progress = on_progress, .done = on_done};

static void on_gone(struct hf_varlink_call *call, void *userdata)
{
	struct request *q = userdata;
	struct hf_error e = {0};

	hf_error_set(&e, -ECONNRESET, HF_ERR_ROLLED_BACK, "start again",
		"the client that asked for the adoption went away");
	if (q->agent->adopt)
		hf_adopt_cancel(q->agent->adopt, &e);
}

static bool is_within(struct hf_varlink_call *call, const char *name, int64_t value, int64_t max)
{
	if (value >= 0 && value <= max)
		return true;
	hf_varlink_call_invalid(call, name);
	return false;
}

void hf_request_adopt(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const char *guest = NULL, *qmp = NULL, *name = NULL;
	int64_t pid = 0, downtime_ms = 0, timeout_s = 0;
	bool paused = false;
	const struct hf_json_field fields[] = {
		{"guest", json_type_string, HF_JSON_OPTIONAL, &guest},
		{"pid", json_type_int, HF_JSON_OPTIONAL, &pid},
		{"qmp", json_type_string, HF_JSON_OPTIONAL, &qmp},
		{"name", json_type_string, HF_JSON_OPTIONAL, &name},
		{"paused", json_type_boolean, HF_JSON_OPTIONAL, &paused},
		{"downtime_ms", json_type_int, HF_JSON_OPTIONAL, &downtime_ms},
		{"timeout_s", json_type_int, HF_JSON_OPTIONAL, &timeout_s},
		{NULL, json_type_null, 0, NULL},
	};
	struct hf_error e = {0};
	struct request *q;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	if (!is_within(call, "pid", pid, INT32_MAX) ||
		!is_within(call, "downtime_ms", downtime_ms, MAX_DOWNTIME_MS) ||
		!is_within(call, "timeout_s", timeout_s, MAX_TIMEOUT_S))
		return;
	q = calloc(1, sizeof(*q));
	if (!q) {
		hf_varlink_call_errno(call, -ENOMEM, "request");
		return;
	}
	*q = (struct request){.agent = userdata, .call = call};
	if (hf_adopt_start(q->agent,
		    &(struct hf_adopt_request){
			    .guest = guest,
			    .pid = (pid_t)pid,
			    .qmp_path = qmp,
			    .name = name,
			    .paused = paused,
			    .downtime_ms = (uint64_t)downtime_ms,
			    .timeout_ns = (uint64_t)timeout_s * HF_NSEC_PER_SEC,
		    },
		    &adopt_ops, q, &e) < 0) {
		hf_varlink_call_error(call, &e, NULL);
		free(q);
		return;
	}
	hf_varlink_call_ref(call);
	hf_varlink_call_on_gone(call, on_gone, q);
	if (hf_varlink_call_wants_more(call))
		hf_agent_watch(q->agent, call);
}
