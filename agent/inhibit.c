/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/inhibit.h"

#include <fcntl.h>
#include <systemd/sd-bus.h>

#include "agent/log.h"
#include "agent/update.h"
#include "common/fd.h"

/* In the first moments of a kernel guests stand still, and D-Bus is not there yet. */
#define RETRY_USEC (2 * 1000 * 1000)
#define CALL_TIMEOUT_USEC (30 * 1000 * 1000)

struct hf_inhibit {
	sd_bus *bus;
	sd_bus_slot *call;
	sd_event_source *timer;
	const char *why; /* what the lock is asked for or held with; NULL: none */
	int fd;		 /* the lock */
};

const char *hf_inhibit_reason(enum hf_state state, bool orderly)
{
	switch (state) {
	case HF_STATE_PREPARING:
	case HF_STATE_ABORTING:
		return "a live update of this host is under way; it can be undone with `holdfast "
		       "abort`";
	case HF_STATE_PREPARED:
		return orderly ? NULL
			       : "a live update of this host is prepared: `holdfast commit` or "
				 "`holdfast abort` first";
	case HF_STATE_FROZEN:
		return "virtual machines are paused for a live update of this host";
	case HF_STATE_RESUMING:
		return "virtual machines are being resumed after a live update of this host";
	case HF_STATE_DEGRADED:
		return "virtual machines that need you would lose their memory; see `holdfast "
		       "status`";
	default:
		return NULL;
	}
}

static void give_up(struct hf_inhibit *in)
{
	in->call = sd_bus_slot_unref(in->call);
	in->bus = sd_bus_close_unref(in->bus);
	if (in->timer)
		sd_event_source_set_enabled(in->timer, SD_EVENT_OFF);
	hf_close(&in->fd);
	in->why = NULL;
}

static void retry_later(struct hf_inhibit *in)
{
	in->call = sd_bus_slot_unref(in->call);
	in->bus = sd_bus_close_unref(in->bus);
	sd_event_source_set_time_relative(in->timer, RETRY_USEC);
	sd_event_source_set_enabled(in->timer, SD_EVENT_ONESHOT);
}

static int on_lock(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	struct hf_inhibit *in = userdata;
	int fd, r = sd_bus_message_is_method_error(reply, NULL)
			    ? -EIO
			    : sd_bus_message_read(reply, "h", &fd);

	if (r >= 0)
		in->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	/* The lock is its fd; the connection has done its work. It can't be closed from in here. */
	if (in->fd < 0)
		hf_log(LOG_DEBUG, NULL, "logind gives no lock against a shutdown");
	sd_event_source_set_time_relative(in->timer, in->fd < 0 ? RETRY_USEC : 0);
	sd_event_source_set_enabled(in->timer, SD_EVENT_ONESHOT);
	return 0;
}

static int ask(struct hf_inhibit *in, sd_event *event)
{
	int r = sd_bus_open_system(&in->bus);

	if (r >= 0)
		r = sd_bus_attach_event(in->bus, event, SD_EVENT_PRIORITY_IDLE);
	if (r >= 0)
		r = sd_bus_set_method_call_timeout(in->bus, CALL_TIMEOUT_USEC);
	if (r >= 0)
		r = sd_bus_call_method_async(in->bus, &in->call, "org.freedesktop.login1",
			"/org/freedesktop/login1", "org.freedesktop.login1.Manager", "Inhibit",
			on_lock, in, "ssss", "shutdown", "holdfastd", in->why, "block");
	return r;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct hf_inhibit *in = userdata;

	in->call = sd_bus_slot_unref(in->call);
	in->bus = sd_bus_close_unref(in->bus);
	if (in->fd < 0 && in->why && ask(in, sd_event_source_get_event(s)) < 0)
		retry_later(in);
	return 0;
}

static struct hf_inhibit *inhibit_new(struct hf_agent *agent)
{
	struct hf_inhibit *in = calloc(1, sizeof(*in));

	if (!in)
		return NULL;
	in->fd = -EBADF;
	if (sd_event_add_time_relative(
		    agent->event, &in->timer, CLOCK_MONOTONIC, 0, 0, on_timer, in) < 0) {
		free(in);
		return NULL;
	}
	sd_event_source_set_enabled(in->timer, SD_EVENT_OFF);
	return in;
}

void hf_inhibit_update(struct hf_agent *agent)
{
	struct hf_inhibit *in = agent->inhibit;
	const char *why = hf_inhibit_reason(
		agent->state, agent->update && hf_update_is_orderly(agent->update));

	/* With hold there is no jump of the host, and its memory is gone with any process. */
	if (!hf_agent_is_luo(agent) || (!in && !why) || (in && in->why == why))
		return;
	if (!in)
		in = agent->inhibit = inhibit_new(agent);
	if (!in)
		return;
	give_up(in);
	in->why = why;
	if (!why)
		return;
	/* Never while guests stand still: the first try is when the loop has nothing else, or
	 * later. */
	sd_event_source_set_time_relative(
		in->timer, agent->state == HF_STATE_RESUMING ? RETRY_USEC : 0);
	sd_event_source_set_enabled(in->timer, SD_EVENT_ONESHOT);
}

void hf_inhibit_stop(struct hf_agent *agent)
{
	struct hf_inhibit *in = agent->inhibit;

	if (!in)
		return;
	give_up(in);
	sd_event_source_disable_unref(in->timer);
	free(in);
	agent->inhibit = NULL;
}
