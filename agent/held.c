/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/held.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "agent/arrival.h"
#include "agent/dump.h"
#include "agent/incoming.h"
#include "agent/log.h"
#include "agent/recheck.h"
#include "common/json.h"
#include "common/worker.h"
#include "vmm-glue/registration-trust.h"

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

int hf_held_check_program(const char *path, struct hf_error *error)
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
	/* Who may ask for this need not be who may start programs as the guest's user. */
	if (!hf_registration_trusts(st.st_uid) || (st.st_mode & 0022))
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID,
			"give it to root, and let nobody else write to it (chown, chmod go-w)",
			"%.200s can be written to by others than root", path);
	return 0;
}

static void on_rechecked(const struct hf_error *error, void *data)
{
	struct request *q = data;
	struct json_object *params;

	if (error) {
		refuse(q, error);
		return;
	}
	params = json_object_new_object();
	hf_json_add_bool(params, "healthy", true);
	hf_varlink_call_reply(q->call, params);
	request_free(q);
}

/* One that runs has all that it needs of holdfast: only whether it is well is asked again. */
static int recheck(struct request *q, const char *guest, const char *qemu, struct hf_error *error)
{
	if (qemu) {
		hf_error_guest(error, guest);
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID, "retry it without --qemu",
			"it runs: another QEMU can't have it");
	}
	return hf_recheck_start(q->agent, guest, on_rechecked, q, error);
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
	const char *guest = NULL;
	struct hf_retry_how how = {0};
	const struct hf_json_field fields[] = {
		{"guest", json_type_string, 0, &guest},
		{"qemu", json_type_string, HF_JSON_OPTIONAL, &how.vmm},
		{"ignore_disks", json_type_boolean, HF_JSON_OPTIONAL, &how.ignore_disks},
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
	r = how.vmm ? hf_held_check_program(how.vmm, &e) : 0;
	if (r == 0)
		r = hf_recheck_applies(q->agent, guest)
			    ? recheck(q, guest, how.vmm, &e)
			    : hf_arrival_retry(q->agent, guest, &how, on_retried, q, &e);
	if (r < 0)
		refuse(q, &e);
}

/* ---- Dump ---- */

/* A call that has its guest dumped, until that has ended. */
struct dump_request {
	struct hf_agent *agent;
	struct hf_varlink_call *call;
	sd_event_source *timer;
	char *path;
	uint64_t begin_ns;
	uint64_t told_bytes;
	uint64_t all_bytes;
	struct hf_dump dump;
};

static void dump_request_free(struct dump_request *q)
{
	sd_event_source_disable_unref(q->timer);
	hf_varlink_call_unref(q->call);
	free(q->path);
	free(q);
}

static void on_dump_client_gone(struct hf_varlink_call *call, void *userdata)
{
	struct dump_request *q = userdata;

	atomic_store(&q->dump.cancel, true);
}

static int on_dump_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct dump_request *q = userdata;
	uint64_t done = atomic_load(&q->dump.done_bytes);

	if (done != q->told_bytes && q->all_bytes > 0)
		hf_agent_tell(q->agent, q->call, q->begin_ns, hf_incoming_guest(q->dump.in)->name,
			"%llu of %llu MiB", (unsigned long long)(done >> 20),
			(unsigned long long)(q->all_bytes >> 20));
	q->told_bytes = done;
	sd_event_source_set_time_relative(s, HF_USEC_PER_SEC);
	sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	return 0;
}

static void reply_dumped(struct dump_request *q)
{
	struct json_object *params = json_object_new_object();
	struct json_object *missing = json_object_new_array();

	for (size_t i = 0; i < q->dump.n_missing; i++)
		hf_json_append(missing, json_object_new_string(q->dump.missing[i]));
	hf_json_add_int(params, "ram_bytes", (int64_t)q->dump.ram_bytes);
	hf_json_add_int(params, "data_bytes", (int64_t)q->dump.data_bytes);
	hf_json_add_int(params, "vcpus", (int64_t)q->dump.n_cpus);
	hf_json_add(params, "missing", missing);
	hf_varlink_call_reply(q->call, params);
}

static void on_dumped(void *data, int result)
{
	struct dump_request *q = data;
	const struct hf_manifest_guest *g = hf_incoming_guest(q->dump.in);

	hf_incoming_end_dump(q->dump.in);
	hf_varlink_call_on_gone(q->call, NULL, NULL);
	if (result < 0) {
		hf_error_guest(&q->dump.error, g->name);
		hf_log(LOG_WARNING, g->uuid, "%s was not dumped: %s", g->name,
			q->dump.error.message);
		hf_varlink_call_error(q->call, &q->dump.error, NULL);
	} else {
		hf_log(LOG_NOTICE, g->uuid, "%s was dumped to %s", g->name, q->path);
		reply_dumped(q);
	}
	dump_request_free(q);
}

static int run_dump(void *data)
{
	struct dump_request *q = data;

	return hf_dump_run(&q->dump);
}

static int check_path(const char *path, struct hf_error *error)
{
	size_t n = strlen(path);

	if (path[0] != '/' || n >= 4096 || path[n - 1] == '/')
		return hf_error_set(error, -EINVAL, HF_ERR_INVALID,
			"give the absolute path of a file that does not exist yet",
			"`%.200s` is not an absolute path of a file", path);
	return 0;
}

static int start_dump(struct dump_request *q, const char *guest, struct hf_error *error)
{
	struct hf_incoming *in = NULL;
	int r = hf_arrival_find(q->agent, guest, &in, error);

	if (r < 0)
		return r;
	/* Others stand still until their memory and programs are read. */
	if (q->agent->state == HF_STATE_RESUMING)
		r = hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when they are back",
			"other guests are still coming in");
	if (r == 0)
		r = hf_incoming_begin_dump(in, error);
	if (r < 0) {
		hf_error_guest(error, hf_incoming_guest(in)->name);
		return r;
	}
	q->dump.in = in;
	q->dump.path = q->path;
	for (size_t i = 0; i < hf_incoming_guest(in)->n_ram; i++)
		q->all_bytes += hf_incoming_guest(in)->ram[i].size;
	r = sd_event_add_time_relative(
		q->agent->event, &q->timer, CLOCK_MONOTONIC, HF_USEC_PER_SEC, 0, on_dump_timer, q);
	if (r >= 0)
		r = hf_worker_run(q->agent->event, run_dump, on_dumped, q);
	if (r < 0) {
		hf_incoming_end_dump(in);
		return hf_error_set(error, r, HF_ERR_FAILED, "try again",
			"can't start a thread: %s", strerror(-r));
	}
	hf_varlink_call_on_gone(q->call, on_dump_client_gone, q);
	return 0;
}

void hf_held_dump(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const char *guest = NULL, *path = NULL;
	const struct hf_json_field fields[] = {
		{"guest", json_type_string, 0, &guest},
		{"path", json_type_string, 0, &path},
		{NULL, json_type_null, 0, NULL},
	};
	struct dump_request *q;
	struct hf_error e = {0};
	int r;

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	q = calloc(1, sizeof(*q));
	if (!q) {
		hf_varlink_call_errno(call, -ENOMEM, "request");
		return;
	}
	q->agent = userdata;
	q->call = hf_varlink_call_ref(call);
	q->begin_ns = hf_agent_now_ns();
	q->path = strdup(path);
	r = q->path ? check_path(path, &e)
		    : hf_error_set(&e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	if (r == 0)
		r = start_dump(q, guest, &e);
	if (r < 0) {
		hf_varlink_call_error(call, &e, NULL);
		dump_request_free(q);
	}
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
