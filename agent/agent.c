/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-id128.h>
#include <time.h>

#include "agent/inhibit.h"
#include "agent/log.h"
#include "common/fd.h"
#include "common/json.h"

/* A client that hears nothing gives up: varlinkctl after 45 s. */
#define HEARTBEAT_USEC (10 * HF_USEC_PER_SEC)

bool hf_agent_is_luo(const struct hf_agent *agent)
{
	return hf_carrier_kind(agent->carrier) == HF_CARRIER_LUO;
}

uint64_t hf_agent_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * HF_NSEC_PER_SEC + ts.tv_nsec;
}

int hf_agent_event(struct hf_agent *agent, enum hf_state_event event)
{
	enum hf_state next;
	int r = hf_state_next(agent->state, event, &next);

	if (r < 0) {
		hf_log(LOG_ERR, NULL, "event %s has no meaning in state %s",
			hf_state_event_name(event), hf_state_name(agent->state));
		return r;
	}
	hf_log(LOG_DEBUG, NULL, "%s: %s -> %s", hf_state_event_name(event),
		hf_state_name(agent->state), hf_state_name(next));
	agent->state = next;
	hf_log_context(agent->update_id, hf_state_name(next));
	hf_inhibit_update(agent);
	return 0;
}

static struct json_object *progress_json(
	struct hf_agent *agent, uint64_t begin_ns, const char *guest, const char *message)
{
	struct json_object *params = json_object_new_object();
	struct json_object *p = json_object_new_object();

	hf_json_add_string(p, "update_id", agent->update_id);
	hf_json_add_string(p, "state", hf_state_name(agent->state));
	hf_json_add_string(p, "guest", guest);
	hf_json_add_string(p, "message", message);
	hf_json_add_int(p, "elapsed_ns", hf_agent_now_ns() - begin_ns);
	hf_json_add(params, "progress", p);
	return params;
}

void hf_agent_progress(struct hf_agent *agent, const char *guest, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(agent->message, sizeof(agent->message), fmt, ap);
	va_end(ap);
	hf_log(LOG_INFO, NULL, "%s%s%s", guest ? guest : "", guest ? ": " : "", agent->message);
	if (agent->heartbeat)
		sd_event_source_set_time_relative(agent->heartbeat, HEARTBEAT_USEC);
	for (size_t i = 0; i < agent->n_watchers; i++)
		hf_varlink_call_notify(agent->watchers[i],
			progress_json(agent, agent->update_begin_ns, guest, agent->message));
}

void hf_agent_tell(struct hf_agent *agent, struct hf_varlink_call *call, uint64_t begin_ns,
	const char *guest, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	hf_varlink_call_notify(call, progress_json(agent, begin_ns, guest, message));
}

static int on_heartbeat(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_agent *agent = userdata;

	for (size_t i = 0; i < agent->n_watchers; i++)
		hf_agent_tell(agent, agent->watchers[i], agent->update_begin_ns, NULL,
			"still under way: %s", agent->message);
	sd_event_source_set_time_relative(s, HEARTBEAT_USEC);
	return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

int hf_agent_watch(struct hf_agent *agent, struct hf_varlink_call *call)
{
	int r = 0;

	if (agent->n_watchers == HF_ARRAY_SIZE(agent->watchers))
		return -ENOBUFS;
	if (!agent->heartbeat)
		r = sd_event_add_time_relative(agent->event, &agent->heartbeat, CLOCK_MONOTONIC,
			HEARTBEAT_USEC, 0, on_heartbeat, agent);
	if (r < 0)
		return r;
	agent->watchers[agent->n_watchers++] = hf_varlink_call_ref(call);
	return 0;
}

void hf_agent_unwatch(struct hf_agent *agent, struct hf_varlink_call *call)
{
	for (size_t i = 0; i < agent->n_watchers; i++) {
		if (agent->watchers[i] != call)
			continue;
		agent->watchers[i] = agent->watchers[--agent->n_watchers];
		hf_varlink_call_unref(call);
		break;
	}
	if (agent->n_watchers == 0)
		agent->heartbeat = sd_event_source_disable_unref(agent->heartbeat);
}

int hf_agent_new_update_id(struct hf_agent *agent)
{
	sd_id128_t id;
	int r = sd_id128_randomize(&id);

	if (r < 0)
		return r;
	sd_id128_to_uuid_string(id, agent->update_id);
	agent->update_begin_ns = hf_agent_now_ns();
	return 0;
}

uint64_t hf_agent_rss_bytes(void)
{
	cleanup_free char *status = NULL;
	unsigned long long kib;
	char *p;

	if (hf_file_read("/proc/self/status", 65536, &status, NULL) < 0)
		return 0;
	p = strstr(status, "VmHWM:");
	return p && sscanf(p, "VmHWM: %llu kB", &kib) == 1 ? kib * 1024 : 0;
}

const char *hf_state_dir(void)
{
	const char *dir = getenv("HOLDFAST_STATE_DIR");

	return dir && dir[0] == '/' ? dir : "/var/lib/holdfast";
}
