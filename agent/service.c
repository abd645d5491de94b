/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/service.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "agent/adopt-request.h"
#include "agent/arrival.h"
#include "agent/authorise.h"
#include "agent/guest-json.h"
#include "agent/held.h"
#include "agent/history.h"
#include "agent/interface.h"
#include "agent/report.h"
#include "agent/requests.h"
#include "agent/saved-domains.h"
#include "agent/survey.h"
#include "agent/update.h"
#include "agent/vmm-upgrade-request.h"
#include "common/json.h"
#include "common/worker.h"
#include "memfd-preserve/kho.h"
#include "vmm-glue/registration.h"

/* A call that waits for a survey, with what it asked for. */
struct request {
	struct hf_agent *agent;
	struct hf_varlink_call *call;
	char *guest;
};

static void request_free(struct request *q)
{
	hf_varlink_call_unref(q->call);
	free(q->guest);
	free(q);
}

static struct request *request_new(struct hf_agent *agent, struct hf_varlink_call *call)
{
	struct request *q = calloc(1, sizeof(*q));

	if (!q) {
		hf_varlink_call_errno(call, -ENOMEM, "request");
		return NULL;
	}
	*q = (struct request){.agent = agent, .call = hf_varlink_call_ref(call)};
	return q;
}

static void survey_for(struct request *q, hf_survey_done_fn done)
{
	int r = hf_survey_start(q->agent, done, q);

	if (r < 0) {
		hf_survey_refuse(q->call, r);
		request_free(q);
	}
}

/* ---- Guests, Status ---- */

static bool no_parameters(struct hf_varlink_call *call, struct json_object *params)
{
	static const struct hf_json_field fields[] = {{NULL, json_type_null, 0, NULL}};

	return hf_varlink_call_dispatch(call, params, fields) == 0;
}

static bool is_guest(struct json_object *guest, const char *id)
{
	return strcmp(hf_json_get_string(guest, "name", ""), id) == 0 ||
	       strcmp(hf_json_get_string(guest, "uuid", ""), id) == 0;
}

static struct json_object *only_guest(struct json_object *all, const char *id)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < hf_json_array_size(all); i++) {
		struct json_object *guest = json_object_array_get_idx(all, i);

		if (is_guest(guest, id))
			hf_json_append(list, json_object_get(guest));
	}
	return list;
}

static void on_guests(const struct hf_survey *survey, void *data)
{
	struct request *q = data;
	struct json_object *params = json_object_new_object();
	struct json_object *guests = hf_guest_json_list(q->agent, survey, NULL);
	struct hf_error e = {0};

	if (q->guest) {
		struct json_object *list = only_guest(guests, q->guest);

		json_object_put(guests);
		guests = list;
	}
	if (q->guest && hf_json_array_size(guests) == 0) {
		json_object_put(guests);
		json_object_put(params);
		hf_error_set(&e, -ENOENT, HF_ERR_NO_GUEST,
			"`holdfast guests` lists those there are",
			"there is no guest with this name or uuid");
		hf_error_guest(&e, q->guest);
		hf_varlink_call_error(q->call, &e, NULL);
	} else {
		hf_json_add(params, "guests", guests);
		hf_varlink_call_reply(q->call, params);
	}
	request_free(q);
}

static void handle_guests(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const char *guest = NULL;
	const struct hf_json_field fields[] = {
		{"guest", json_type_string, HF_JSON_OPTIONAL, &guest},
		{NULL, json_type_null, 0, NULL},
	};
	struct request *q;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	q = request_new(userdata, call);
	if (!q)
		return;
	q->guest = guest ? strdup(guest) : NULL;
	survey_for(q, on_guests);
}

static struct json_object *status_json(struct hf_agent *agent, const struct hf_survey *survey)
{
	struct json_object *params = json_object_new_object(), *domains;
	char newest[HF_UUID_BYTES];
	struct utsname uts;

	uname(&uts);
	hf_json_add_string(params, "state", hf_state_name(agent->state));
	hf_json_add_string(params, "agent_version", HF_VERSION);
	hf_json_add_string(params, "kernel", uts.release);
	hf_json_add_string(params, "carrier", hf_carrier_name(agent->carrier));
	hf_json_add_string(
		params, "update_id", agent->state != HF_STATE_NORMAL ? agent->update_id : NULL);
	hf_json_add_string(params, "message", agent->message[0] ? agent->message : NULL);
	hf_json_add_string(
		params, "last_update_id", hf_report_newest_id(newest) == 0 ? newest : NULL);
	hf_json_add(params, "guests", hf_guest_json_list(agent, survey, NULL));
	domains = hf_saved_domains_json(agent);
	if (domains)
		hf_json_add(params, "domains", domains);
	return params;
}

static void on_status(const struct hf_survey *survey, void *data)
{
	struct request *q = data;

	if (hf_varlink_call_wants_more(q->call)) {
		/* Now, and again at each change: hf_service_status_changed() asks anew. */
		hf_varlink_call_notify(q->call, status_json(q->agent, survey));
	} else {
		hf_varlink_call_reply(q->call, status_json(q->agent, survey));
	}
	request_free(q);
}

struct status_watch {
	struct hf_agent *agent;
	struct hf_varlink_call *call;
	sd_event_source *timer;
	enum hf_state state;
	char message[sizeof(((struct hf_agent *)0)->message)];
};

static void on_watcher_gone(struct hf_varlink_call *call, void *userdata)
{
	struct status_watch *w = userdata;

	sd_event_source_disable_unref(w->timer);
	hf_varlink_call_unref(w->call);
	free(w);
}

static void send_status(struct status_watch *w)
{
	struct request *q = request_new(w->agent, w->call);

	w->state = w->agent->state;
	snprintf(w->message, sizeof(w->message), "%s", w->agent->message);
	if (q)
		survey_for(q, on_status);
}

/* Looks for a change often enough for a person's eye; costs nothing when nobody watches. */
#define WATCH_PERIOD_USEC (200 * 1000)

static int on_watch_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct status_watch *w = userdata;

	if (w->state != w->agent->state || strcmp(w->message, w->agent->message) != 0)
		send_status(w);
	sd_event_source_set_time_relative(s, WATCH_PERIOD_USEC);
	sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	return 0;
}

static void watch_status(struct hf_agent *agent, struct hf_varlink_call *call)
{
	struct status_watch *w = calloc(1, sizeof(*w));
	int r = -ENOMEM;

	if (w) {
		*w = (struct status_watch){.agent = agent, .call = hf_varlink_call_ref(call)};
		r = sd_event_add_time_relative(agent->event, &w->timer, CLOCK_MONOTONIC,
			WATCH_PERIOD_USEC, 0, on_watch_timer, w);
	}
	if (r < 0) {
		hf_varlink_call_errno(call, r, "can't watch");
		if (w)
			hf_varlink_call_unref(w->call);
		free(w);
		return;
	}
	hf_varlink_call_on_gone(call, on_watcher_gone, w);
	send_status(w);
}

static void handle_status(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	struct request *q;

	if (!no_parameters(call, params))
		return;
	if (hf_varlink_call_wants_more(call))
		watch_status(userdata, call);
	else if ((q = request_new(userdata, call)))
		survey_for(q, on_status);
}

/* ---- Commit, Abort ---- */

static void handle_commit(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	struct hf_error e = {0};
	bool hand_over = false;
	const struct hf_json_field fields[] = {
		{"hand_over", json_type_boolean, HF_JSON_OPTIONAL, &hand_over},
		{NULL, json_type_null, 0, NULL},
	};

	if (hf_varlink_call_dispatch(call, params, fields) == 0 &&
		hf_update_commit(userdata, hand_over, call, &e) < 0)
		hf_varlink_call_error(call, &e, NULL);
}

static void handle_abort(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	struct hf_error e = {0};

	if (no_parameters(call, params) && hf_update_abort(userdata, NULL, call, &e) < 0)
		hf_varlink_call_error(call, &e, NULL);
}

/* ---- Report, History, Inspect ---- */

static void handle_report(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const char *id = NULL;
	const struct hf_json_field fields[] = {
		{"id", json_type_string, HF_JSON_OPTIONAL, &id},
		{NULL, json_type_null, 0, NULL},
	};
	struct json_object *report = NULL, *reply;
	struct hf_error e = {0};
	int r;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	r = hf_report_load(id, &report);
	if (r < 0) {
		hf_error_set(&e, r,
			r == -EBADMSG	      ? HF_ERR_FAILED
			: r == -ENOENT && !id ? HF_ERR_STATE
					      : HF_ERR_INVALID,
			NULL, "%s",
			r == -ENOENT
				? (id ? "no update has this id" : "no update has been made yet")
			: r == -EINVAL ? "this is not an update's id"
				       : "the report can't be read");
		hf_varlink_call_error(call, &e, NULL);
		return;
	}
	reply = json_object_new_object();
	hf_json_add(reply, "report", report);
	hf_varlink_call_reply(call, reply);
}

/* Up to 64 MiB of files: read in a worker. */
struct history_request {
	struct hf_varlink_call *call;
	struct hf_history history;
};

static int load_history(void *data)
{
	struct history_request *h = data;

	return hf_history_load(&h->history);
}

static void on_history(void *data, int result)
{
	struct history_request *h = data;
	struct json_object *reply;

	if (result < 0) {
		hf_varlink_call_errno(h->call, result, "can't list the reports");
	} else {
		reply = json_object_new_object();
		hf_json_add(reply, "updates", hf_history_json(&h->history));
		hf_json_add(reply, "skipped", json_object_get(h->history.skipped));
		hf_varlink_call_reply(h->call, reply);
		hf_history_clear(&h->history);
	}
	hf_varlink_call_unref(h->call);
	free(h);
}

static void handle_history(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	struct hf_agent *agent = userdata;
	struct history_request *h;
	int r = -ENOMEM;

	if (!no_parameters(call, params))
		return;
	h = calloc(1, sizeof(*h));
	if (h) {
		h->call = hf_varlink_call_ref(call);
		r = hf_worker_run(agent->event, load_history, on_history, h);
	}
	if (r < 0) {
		hf_varlink_call_errno(call, r, "can't list the reports");
		if (h)
			hf_varlink_call_unref(h->call);
		free(h);
	}
}

/* As in RFC 4648: groups of four, padded, nothing in between, no bits that mean nothing. */
static int decode_base64(const char *text, uint8_t **ret, size_t *ret_size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n = strlen(text), size = 0;
	cleanup_free uint8_t *out = malloc(n / 4 * 3 + 1);
	uint32_t bits = 0;
	int have = 0;

	if (!out)
		return -ENOMEM;
	if (n % 4 != 0)
		return -EINVAL;
	for (int pad = 0; pad < 2 && n > 0 && text[n - 1] == '='; pad++)
		n--;
	for (size_t i = 0; i < n; i++) {
		const char *d = strchr(digits, text[i]);

		if (!d)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)(d - digits);
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[size++] = (uint8_t)(bits >> have);
		}
	}
	if (bits & ((1u << have) - 1))
		return -EINVAL;
	*ret = TAKE_PTR(out);
	*ret_size = size;
	return 0;
}

static void reply_manifest(struct hf_varlink_call *call, const struct hf_manifest *m)
{
	struct json_object *params = json_object_new_object();

	hf_json_add(params, "manifest", hf_manifest_to_json(m));
	hf_varlink_call_reply(call, params);
}

static void inspect_given(struct hf_varlink_call *call, const char *text)
{
	cleanup_free uint8_t *data = NULL;
	struct hf_manifest *m = NULL;
	struct hf_error e = {0};
	size_t size;

	if (decode_base64(text, &data, &size) < 0) {
		hf_varlink_call_invalid(call, "data");
		return;
	}
	if (hf_manifest_decode(data, size, &m, &e) < 0) {
		snprintf(e.name, sizeof(e.name), "%s", HF_ERR_INVALID);
		hf_varlink_call_error(call, &e, NULL);
		return;
	}
	reply_manifest(call, m);
	hf_manifest_free(m);
}

static void handle_inspect_manifest(
	struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	struct hf_agent *agent = userdata;
	const struct hf_manifest *m = NULL;
	struct hf_error e = {0};
	const char *text = NULL;
	const struct hf_json_field fields[] = {
		{"data", json_type_string, HF_JSON_OPTIONAL, &text},
		{NULL, json_type_null, 0, NULL},
	};

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	if (text) {
		inspect_given(call, text);
		return;
	}
	if (agent->update)
		m = hf_update_manifest(agent->update);
	else if (agent->arrival)
		m = hf_arrival_manifest(agent->arrival);
	if (m) {
		reply_manifest(call, m);
		return;
	}
	hf_error_set(&e, -ENOENT, HF_ERR_STATE, "prepare one, or give a manifest's file",
		"no update is under way, so there is no manifest");
	hf_varlink_call_error(call, &e, NULL);
}

static void handle_inspect_kho(
	struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	struct json_object *trees = NULL, *reply;
	struct hf_error e = {0};

	if (!no_parameters(call, params))
		return;
	if (hf_kho_inspect(HF_KHO_DEBUGFS, &trees, &e) < 0) {
		hf_varlink_call_error(call, &e, NULL);
		return;
	}
	reply = json_object_new_object();
	hf_json_add(reply, "trees", trees);
	hf_varlink_call_reply(call, reply);
}

/* Guest command lines and environments are in manifests and KHO trees: for root's eyes only. */
static const struct hf_varlink_method methods[] = {
	{"Check", hf_request_check, 0},
	{"Plan", hf_request_plan, 0},
	{"Guests", handle_guests, 0},
	{"Prepare", hf_request_prepare, HF_VARLINK_MUTATING},
	{"Commit", handle_commit, HF_VARLINK_MUTATING},
	{"Upgrade", hf_request_upgrade, HF_VARLINK_MUTATING},
	{"Abort", handle_abort, HF_VARLINK_MUTATING},
	{"Retry", hf_held_retry, HF_VARLINK_MUTATING},
	{"Dump", hf_held_dump, HF_VARLINK_MUTATING},
	{"Release", hf_held_release, HF_VARLINK_MUTATING},
	{"Adopt", hf_request_adopt, HF_VARLINK_MUTATING},
	{"VmmUpgrade", hf_request_vmm_upgrade, HF_VARLINK_MUTATING},
	{"Status", handle_status, 0},
	{"Report", handle_report, 0},
	{"History", handle_history, 0},
	{"InspectManifest", handle_inspect_manifest, HF_VARLINK_MUTATING},
	{"InspectKho", handle_inspect_kho, HF_VARLINK_MUTATING},
	{NULL, NULL, 0},
};

static int authorise(struct hf_varlink_call *call, const char *method, void *userdata)
{
	struct hf_agent *agent = userdata;

	return hf_authority_ask(agent->authority, call, method);
}

int hf_service_start(struct hf_agent *agent, const char *path, struct hf_error *error)
{
	static char buf[4096];
	static struct hf_varlink_interface interfaces[2];
	struct hf_varlink_server_options options = {
		.listen_fd = -EBADF,
		.vendor = "holdfast",
		.product = "holdfastd",
		.version = HF_VERSION,
		.url = "https://holdfast.invalid/",
		.interfaces = interfaces,
		.userdata = agent,
		.authorise = authorise,
	};
	int r;

	interfaces[0] = (struct hf_varlink_interface){
		.name = HF_INTERFACE,
		.description = hf_interface_description,
		.methods = methods,
	};
	if (!path)
		path = getenv(HF_VARLINK_SOCKET_ENV);
	if (!path) {
		snprintf(buf, sizeof(buf), "%s/control.sock", hf_run_dir());
		path = buf;
	}
	options.path = path;
	r = hf_authority_new(agent->event, HF_AUTHORITY_TIMEOUT_NS, &agent->authority);
	if (r == 0)
		r = hf_varlink_server_new(agent->event, &options, &agent->server);
	if (r < 0)
		return hf_error_set(error, r, r == -EADDRINUSE ? HF_ERR_BUSY : HF_ERR_FAILED,
			r == -EADDRINUSE ? "another holdfastd runs: use that one, or stop it"
					 : NULL,
			"can't serve on %s: %s", path, strerror(-r));
	return 0;
}

void hf_service_stop(struct hf_agent *agent)
{
	/* In this order: calls that end with the server are taken back from the authority. */
	agent->server = hf_varlink_server_free(agent->server);
	agent->authority = hf_authority_free(agent->authority);
}
