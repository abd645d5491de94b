/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/requests.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "agent/adopt-policy.h"
#include "agent/adopt.h"
#include "agent/check-host.h"
#include "agent/check-target.h"
#include "agent/guest-json.h"
#include "agent/history.h"
#include "agent/plan.h"
#include "agent/saved-domains.h"
#include "agent/shut-down.h"
#include "agent/survey.h"
#include "agent/update.h"
#include "common/json.h"
#include "common/worker.h"

/* One call, with what it asked for and what was found out for it. */
struct request {
	struct hf_agent *agent;
	struct hf_varlink_call *call;
	hf_survey_done_fn done; /* goes on when everything was looked at */
	char *kernel;
	char *initrd;
	char *append;
	char *cmdline;
	struct hf_way way;
	bool else_image; /* where the agent's own carrier won't do */
	bool dry_run;
	bool commit;
	bool keep_loaded;
	bool shut_down; /* guests were: what still can't come along stays in the way */
	bool adopted;	/* guests were; likewise */
	bool saved;	/* domains were, by libvirt; likewise */
	bool plan;	/* wants the history, too */
	struct hf_history history;
	int history_error;
	struct hf_host_facts host;
	bool has_target; /* and it was looked at: what follows is valid */
	struct hf_target target;
	struct hf_error target_error; /* why there is none, or unset */
	struct hf_running running;
};

static void request_free(struct request *q)
{
	/* There is an update that they are saved for, or there won't be one. */
	if (q->saved)
		hf_saved_domains_let_go(q->agent);
	hf_varlink_call_unref(q->call);
	hf_target_clear(&q->target);
	hf_history_clear(&q->history);
	free(q->kernel);
	free(q->initrd);
	free(q->append);
	free(q->cmdline);
	free(q);
}

static char *copy(const char *s)
{
	return s ? strdup(s) : NULL;
}

/* Where guests' memory is to go, and how the kernel is left. @carrier NULL: by the configuration.
 */
static void set_way(struct request *q, const char *carrier, bool reboot, bool plaintext)
{
	cleanup_config struct hf_config *config = hf_config_load();
	struct hf_config_host host = {0};

	if (config)
		host = *hf_config_host(config);
	if (carrier)
		host.carrier = strcmp(carrier, "auto") == 0 ? HF_CONFIG_CARRIER_AUTO
			       : strcmp(carrier, hf_carrier_name(q->agent->image)) == 0
				       ? HF_CONFIG_CARRIER_IMAGE
				       : HF_CONFIG_CARRIER_OWN;
	q->else_image = host.carrier == HF_CONFIG_CARRIER_AUTO;
	q->way = (struct hf_way){
		.carrier = host.carrier == HF_CONFIG_CARRIER_IMAGE ? q->agent->image
								   : q->agent->carrier,
		.leaves = hf_agent_is_luo(q->agent),
		.reboot = reboot,
		.has_key = q->agent->has_image_key,
		.plaintext = plaintext || host.plaintext,
	};
}

static int take_way(
	struct request *q, const char *carrier, bool reboot, bool plaintext, struct hf_error *e)
{
	const char *own = hf_carrier_name(q->agent->carrier);
	bool image;

	set_way(q, carrier, reboot, plaintext);
	image = hf_way_on_disk(&q->way);
	if (carrier && !image && !q->else_image && strcmp(carrier, own) != 0)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, "give `image`, `auto`, or none",
			"this agent has no carrier `%s`, only `%s` and `image`", carrier, own);
	if ((reboot && !image) || (plaintext && !image && !q->else_image))
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, "give the carrier `image`",
			"%s is for guests' memory on disk, and with the carrier `%s` it is not",
			reboot ? "reboot" : "plaintext", own);
	if (!q->kernel && !reboot && q->way.leaves)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, "give a kernel, or reboot",
			"which kernel is to be next is not said");
	if (q->kernel && reboot)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, "give one of them",
			"which kernel is next after a reboot is for the boot loader to say");
	return 0;
}

static int take_target(struct request *q, struct json_object *target)
{
	const char *kernel = NULL, *initrd = NULL, *append = NULL, *cmdline = NULL, *carrier = NULL;
	bool reboot = false, plaintext = false;
	const struct hf_json_field fields[] = {
		{"kernel", json_type_string, HF_JSON_OPTIONAL, &kernel},
		{"initrd", json_type_string, HF_JSON_OPTIONAL, &initrd},
		{"append", json_type_string, HF_JSON_OPTIONAL, &append},
		{"cmdline", json_type_string, HF_JSON_OPTIONAL, &cmdline},
		{"carrier", json_type_string, HF_JSON_OPTIONAL, &carrier},
		{"reboot", json_type_boolean, HF_JSON_OPTIONAL, &reboot},
		{"plaintext", json_type_boolean, HF_JSON_OPTIONAL, &plaintext},
		{NULL, json_type_null, 0, NULL},
	};
	struct hf_error e = {0};

	if (hf_varlink_call_dispatch(q->call, target, fields) < 0)
		return -EINVAL;
	q->kernel = copy(kernel);
	q->initrd = copy(initrd);
	q->append = copy(append);
	q->cmdline = copy(cmdline);
	if ((kernel && !q->kernel) || (initrd && !q->initrd) || (append && !q->append) ||
		(cmdline && !q->cmdline)) {
		hf_varlink_call_errno(q->call, -ENOMEM, "request");
		return -ENOMEM;
	}
	if (take_way(q, carrier, reboot, plaintext, &e) < 0) {
		hf_varlink_call_error(q->call, &e, NULL);
		return e.err;
	}
	return 0;
}

static struct request *request_new(
	struct hf_agent *agent, struct hf_varlink_call *call, hf_survey_done_fn done)
{
	struct request *q = calloc(1, sizeof(*q));

	if (!q) {
		hf_varlink_call_errno(call, -ENOMEM, "request");
		return NULL;
	}
	*q = (struct request){
		.agent = agent,
		.call = hf_varlink_call_ref(call),
		.done = done,
		.target = HF_TARGET_NONE,
	};
	return q;
}

/* ---- looking ---- */

static void ask_guests(struct request *q)
{
	int r = hf_survey_start(q->agent, q->done, q);

	if (r < 0) {
		hf_survey_refuse(q->call, r);
		request_free(q);
	}
}

/* In a worker. */
static int look_at_host(void *data)
{
	/* Every process of the host is looked at: several callers don't get more of it. */
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	struct request *q = data;

	pthread_mutex_lock(&one_at_a_time);
	hf_host_facts_read("", hf_state_dir(), hf_run_dir(), &q->host);
	if (q->plan)
		q->history_error = hf_history_load(&q->history);
	pthread_mutex_unlock(&one_at_a_time);
	return 0;
}

static void on_host(void *data, int result)
{
	struct request *q = data;

	if (hf_varlink_call_is_open(q->call))
		ask_guests(q);
	else
		request_free(q);
}

/* In a worker. */
static int look_into_target(void *data)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	struct request *q = data;

	pthread_mutex_lock(&one_at_a_time);
	hf_target_new(hf_way_in_memory(&q->way), q->kernel, q->initrd, q->append, q->cmdline,
		&q->target, &q->target_error);
	hf_running_read(HF_KHO_DEBUGFS, HF_CPUINFO, &q->running);
	pthread_mutex_unlock(&one_at_a_time);
	return look_at_host(q);
}

static void on_looked(void *data, int result)
{
	struct request *q = data;

	q->agent->n_looking--;
	q->has_target = true;
	on_host(q, result);
}

static bool guests_stand_still(const struct hf_agent *agent)
{
	return agent->state == HF_STATE_FROZEN || agent->state == HF_STATE_ABORTING ||
	       agent->state == HF_STATE_RESUMING;
}

static bool is_privileged(const struct hf_varlink_call *call)
{
	uid_t uid = hf_varlink_call_peer_uid(call);

	return uid == 0 || uid == geteuid();
}

/* What an unprivileged caller names must not keep anybody else waiting. */
static int may_look(const struct request *q, struct hf_error *error)
{
	if (guests_stand_still(q->agent))
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when it is over",
			"no kernel image is looked into while guests stand still (state `%s`)",
			hf_state_name(q->agent->state));
	if (q->agent->n_looking > 0 && !is_privileged(q->call))
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again",
			"another kernel image is being looked into");
	return 0;
}

/* At the host, at the target if there is one, then at the guests; then q->done() has it. */
static void look(struct request *q)
{
	bool target = q->kernel && q->way.leaves;
	struct hf_error e = {0};
	int r;

	r = target ? may_look(q, &e) : 0;
	if (r == 0) {
		r = hf_worker_run(q->agent->event, target ? look_into_target : look_at_host,
			target ? on_looked : on_host, q);
		if (r < 0)
			hf_error_set(&e, r, HF_ERR_FAILED, NULL, "can't start a thread: %s",
				strerror(-r));
	}
	if (r < 0) {
		hf_varlink_call_error(q->call, &e, NULL);
		request_free(q);
		return;
	}
	q->agent->n_looking += target;
}

/* NULL: it is not known which. */
static const char *to_kernel(const struct request *q)
{
	return q->has_target && q->target.image.release[0] ? q->target.image.release : NULL;
}

static enum hf_verdict check_way(
	const struct request *q, const struct hf_survey *survey, struct json_object *findings)
{
	const struct hf_host_needs host_needs = hf_host_needs_of(survey);
	const struct hf_error *no_target = q->target_error.err ? &q->target_error : NULL;
	enum hf_verdict worst, v;

	worst = hf_check_host(&q->way, &q->host, &host_needs,
		q->has_target && !no_target ? &q->target : NULL, findings);
	if (q->has_target) {
		const struct hf_target_needs needs = hf_target_needs_of(survey);

		v = hf_check_target(hf_way_in_memory(&q->way), &q->target, no_target, &q->running,
			&needs, findings);
		worst = HF_MAX(worst, v);
	}
	v = hf_check_guests(survey, to_kernel(q), findings);
	return HF_MAX(worst, v);
}

/* What stands in the way first. Borrowed. */
/* Also settles the way, where that was left to the agent. The findings are the caller's. */
static enum hf_verdict check_all(
	struct request *q, const struct hf_survey *survey, struct json_object **ret_findings)
{
	struct json_object *findings = json_object_new_array(), *others;
	enum hf_verdict verdict = check_way(q, survey, findings), other;
	const struct hf_way own = q->way;
	char message[512];

	*ret_findings = findings;
	/* An orderly shutdown unmounts the disks before images could be completed. */
	if (verdict != HF_REFUSAL || !q->else_image || q->keep_loaded)
		return verdict;
	q->way.carrier = q->agent->image;
	others = json_object_new_array();
	snprintf(message, sizeof(message), "guests' memory goes to disk, because: %s",
		hf_json_get_string(hf_findings_first(findings, HF_REFUSAL), "message", ""));
	hf_json_append(others, hf_finding_new("host.carrier", HF_WARNING, NULL, message, NULL));
	other = check_way(q, survey, others);
	if (other == HF_REFUSAL) {
		/* Neither will do: what is missing for the usual one is what to mend. */
		q->way = own;
		json_object_put(others);
		return verdict;
	}
	json_object_put(findings);
	*ret_findings = others;
	return HF_MAX(HF_WARNING, other);
}

/* ---- Check, Plan ---- */

static void on_check(const struct hf_survey *survey, void *data)
{
	struct request *q = data;
	struct json_object *params = json_object_new_object();
	struct json_object *findings;
	enum hf_verdict verdict = check_all(q, survey, &findings);

	hf_json_add_string(params, "verdict", hf_verdict_name(verdict));
	hf_json_add(params, "findings", findings);
	hf_json_add(params, "guests", hf_guest_json_list(q->agent, survey, to_kernel(q)));
	hf_varlink_call_reply(q->call, params);
	request_free(q);
}

static void on_plan(const struct hf_survey *survey, void *data)
{
	struct request *q = data;
	struct json_object *params = json_object_new_object();
	struct json_object *findings;
	enum hf_verdict verdict = check_all(q, survey, &findings);
	struct hf_error e = {0};

	if (hf_update_may_prepare(q->agent, &e) < 0) {
		verdict = HF_REFUSAL;
		hf_json_append(
			findings, hf_finding_new("host.state", verdict, NULL, e.message, e.remedy));
	}
	hf_json_add_string(params, "verdict", hf_verdict_name(verdict));
	hf_json_add(params, "findings", findings);
	hf_plan_add(params, &q->way, survey, to_kernel(q), &q->history);
	if (q->history_error < 0) {
		hf_varlink_call_errno(q->call, q->history_error, "can't list the reports");
		json_object_put(params);
	} else {
		hf_varlink_call_reply(q->call, params);
	}
	request_free(q);
}

static void start_look(struct hf_varlink_call *call, struct json_object *params, void *userdata,
	hf_survey_done_fn done)
{
	struct json_object *target = NULL;
	const struct hf_json_field fields[] = {
		{"target", json_type_object, HF_JSON_OPTIONAL, &target},
		{NULL, json_type_null, 0, NULL},
	};
	struct request *q;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	q = request_new(userdata, call, done);
	if (!q)
		return;
	q->plan = done == on_plan;
	if (!target)
		set_way(q, NULL, false, false);
	if (target && take_target(q, target) < 0)
		request_free(q);
	else
		look(q);
}

void hf_request_check(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	start_look(call, params, userdata, on_check);
}

void hf_request_plan(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	start_look(call, params, userdata, on_plan);
}

/* ---- Prepare, Upgrade ---- */

static void refuse(struct request *q, struct json_object *findings)
{
	struct json_object *extra = json_object_new_object();
	/* It speaks for all of them; programs find the others in `findings`. */
	struct json_object *first = hf_findings_first(findings, HF_REFUSAL);
	struct hf_error e = {0};

	hf_error_set(&e, -EOPNOTSUPP, HF_ERR_NOT_READY, hf_json_get_string(first, "remedy", NULL),
		"%s", hf_json_get_string(first, "message", ""));
	hf_error_guest(&e, hf_json_get_string(first, "guest", ""));
	hf_json_add(extra, "findings", findings);
	hf_varlink_call_error(q->call, &e, extra);
}

static void begin(struct request *q, const struct hf_survey *survey)
{
	const struct hf_update_request request = {
		.target = &q->target,
		.way = q->way,
		.config = hf_survey_config(survey),
		.commit = q->commit,
		.keep_loaded = q->keep_loaded,
	};
	struct hf_error e = {0};

	if (hf_update_prepare(q->agent, &request, q->call, &e) < 0)
		hf_varlink_call_error(q->call, &e, NULL);
}

/* Not only the guests: it took its time, and there is less memory, or more. */
static void look_anew(struct request *q)
{
	hf_target_clear(&q->target);
	hf_error_clear(&q->target_error);
	q->has_target = false;
	look(q);
}

static void on_adopter_gone(struct hf_varlink_call *call, void *userdata)
{
	const struct request *q = userdata;
	struct hf_error e = {0};

	hf_error_set(&e, -ECONNRESET, HF_ERR_ROLLED_BACK, "start again",
		"the client that asked for the update went away");
	if (q->agent->adopt)
		hf_adopt_cancel(q->agent->adopt, &e);
}

static void on_made_ready(const struct hf_error *error, void *data)
{
	struct request *q = data;

	hf_varlink_call_on_gone(q->call, NULL, NULL);
	hf_agent_unwatch(q->agent, q->call);
	if (!hf_varlink_call_is_open(q->call)) {
		request_free(q);
	} else if (error) {
		hf_varlink_call_error(q->call, error, NULL);
		request_free(q);
	} else {
		look_anew(q);
	}
}

/*
 * Nothing else stands in the way of the update than guests that can't come along: they are adopted,
 * or saved by libvirt, or shut down, all of them, but once only. Takes the request.
 */
static void make_ready(struct request *q, const struct hf_survey *survey, enum hf_fate fate)
{
	bool adopt = fate == HF_FATE_ADOPTED, save = fate == HF_FATE_SAVED;
	bool *begun = adopt ? &q->adopted : save ? &q->saved : &q->shut_down;
	struct hf_error e = {0};
	int r = 0;

	if (*begun)
		r = hf_error_set(&e, -EBUSY, HF_ERR_NOT_READY, "see `holdfast check`",
			"guests that can't come along were %s, and there are such again",
			adopt  ? "adopted"
			: save ? "saved by libvirt"
			       : "shut down");
	*begun = true;
	if (r == 0 && hf_varlink_call_wants_more(q->call))
		hf_agent_watch(q->agent, q->call);
	if (r == 0 && adopt)
		r = hf_adopt_all_start(q->agent, survey, on_made_ready, q, &e);
	else if (r == 0 && save)
		r = hf_saved_domains_save(q->agent, survey, on_made_ready, q, &e);
	else if (r == 0)
		r = hf_shut_down_start(q->agent, survey, on_made_ready, q, &e);
	if (r < 0) {
		hf_agent_unwatch(q->agent, q->call);
		hf_varlink_call_error(q->call, &e, NULL);
		request_free(q);
	} else if (adopt) {
		/* A guest that was asked to power down can't be told that it need not. */
		hf_varlink_call_on_gone(q->call, on_adopter_gone, q);
	}
}

static void on_checked(const struct hf_survey *survey, void *data)
{
	struct request *q = data;
	struct json_object *findings;
	enum hf_verdict verdict = check_all(q, survey, &findings);
	struct hf_error e = {0};

	if (!hf_varlink_call_is_open(q->call)) {
		json_object_put(findings);
	} else if (hf_update_may_prepare(q->agent, &e) < 0) {
		/* Somebody else was faster; findings would be about what that update does. */
		json_object_put(findings);
		hf_varlink_call_error(q->call, &e, NULL);
	} else if (verdict == HF_REFUSAL) {
		refuse(q, findings);
	} else if (q->dry_run) {
		struct json_object *params = json_object_new_object();

		json_object_put(findings);
		hf_json_add_string(params, "update_id", NULL);
		hf_varlink_call_reply(q->call, params);
	} else if (hf_check_count(survey, HF_FATE_ADOPTED) > 0) {
		/* Before others are shut down: it may fail, and then nothing is lost by it. */
		json_object_put(findings);
		make_ready(q, survey, HF_FATE_ADOPTED);
		return;
	} else if (hf_check_count(survey, HF_FATE_SAVED) > 0) {
		/* Likewise: what libvirt has saved it starts again. */
		json_object_put(findings);
		make_ready(q, survey, HF_FATE_SAVED);
		return;
	} else if (hf_check_count(survey, HF_FATE_SHUT_DOWN) > 0) {
		json_object_put(findings);
		make_ready(q, survey, HF_FATE_SHUT_DOWN);
		return;
	} else {
		json_object_put(findings);
		begin(q, survey);
	}
	request_free(q);
}

static void start_update(
	struct hf_varlink_call *call, struct json_object *params, void *userdata, bool commit)
{
	struct json_object *target = NULL;
	struct hf_error e = {0};
	bool flag = false;
	const struct hf_json_field fields[] = {
		{"target", json_type_object, 0, &target},
		{commit ? "dry_run" : "orderly", json_type_boolean, HF_JSON_OPTIONAL, &flag},
		{NULL, json_type_null, 0, NULL},
	};
	struct request *q;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	q = request_new(userdata, call, on_checked);
	if (!q)
		return;
	q->commit = commit;
	q->dry_run = commit && flag;
	q->keep_loaded = !commit && flag;
	if (take_target(q, target) < 0) {
		request_free(q);
	} else if (q->keep_loaded && hf_way_on_disk(&q->way)) {
		hf_error_set(&e, -EOPNOTSUPP, HF_ERR_INVALID, "leave `orderly` out",
			"an orderly shutdown has unmounted the disks by the time that images are "
			"completed");
		hf_varlink_call_error(call, &e, NULL);
		request_free(q);
	} else if (hf_update_may_prepare(q->agent, &e) < 0) {
		hf_varlink_call_error(call, &e, NULL);
		request_free(q);
	} else {
		look(q);
	}
}

void hf_request_prepare(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	start_update(call, params, userdata, false);
}

void hf_request_upgrade(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	start_update(call, params, userdata, true);
}
