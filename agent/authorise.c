/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/authorise.h"

#include <stdio.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "common/cleanup.h"

#define ACTION_UPDATE "org.holdfast.update"
#define ACTION_HELD "org.holdfast.held"

static const struct {
	const char *method;
	const char *action;
} actions[] = {
	{"Prepare", ACTION_UPDATE},
	{"Commit", ACTION_UPDATE},
	{"Upgrade", ACTION_UPDATE},
	{"Abort", ACTION_UPDATE},
	{"Adopt", ACTION_UPDATE},
	{"VmmUpgrade", ACTION_UPDATE},
	{"Retry", ACTION_HELD},
	{"Release", ACTION_HELD},
	{"Dump", ACTION_HELD},
};

struct question {
	struct hf_authority *authority;
	struct question *next;
	struct hf_varlink_call *call; /* referenced */
	const char *method;
	const char *action;
	sd_bus *bus;
	sd_bus_slot *slot;
	sd_event_source *timer;
	sd_event_source *end; /* concludes it: never from within the bus, which it closes */
	bool allowed;
	bool challenge; /* a password would do */
	char why[200];	/* no answer was had */
};

struct hf_authority {
	sd_event *event;
	uint64_t timeout_ns;
	struct question *questions;
};

const char *hf_authority_action(const char *method)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(actions); i++)
		if (strcmp(actions[i].method, method) == 0)
			return actions[i].action;
	return NULL;
}

int hf_authority_new(sd_event *event, uint64_t timeout_ns, struct hf_authority **ret)
{
	struct hf_authority *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	*a = (struct hf_authority){.event = sd_event_ref(event), .timeout_ns = timeout_ns};
	*ret = a;
	return 0;
}

/* Nothing of it is called back any more. */
static void question_free(struct question *q)
{
	struct question **p = &q->authority->questions;

	while (*p && *p != q)
		p = &(*p)->next;
	if (*p)
		*p = q->next;
	sd_bus_slot_unref(q->slot);
	/* Without flushing: a hung bus must not be waited for. */
	if (q->bus) {
		sd_bus_detach_event(q->bus);
		sd_bus_close(q->bus);
		sd_bus_unref(q->bus);
	}
	sd_event_source_disable_unref(q->timer);
	sd_event_source_disable_unref(q->end);
	if (q->call)
		hf_varlink_call_on_gone(q->call, NULL, NULL);
	hf_varlink_call_unref(q->call);
	free(q);
}

struct hf_authority *hf_authority_free(struct hf_authority *a)
{
	if (!a)
		return NULL;
	while (a->questions)
		question_free(a->questions);
	sd_event_unref(a->event);
	free(a);
	return NULL;
}

static void refuse(struct question *q)
{
	unsigned int uid = (unsigned int)hf_varlink_call_peer_uid(q->call);
	struct hf_error e = {0};

	if (q->why[0])
		hf_error_set(&e, -EPERM, HF_ERR_NOT_PERMITTED, "Call it as root.",
			"%s changes the host, and whether user %u may do that is not known: %s",
			q->method, uid, q->why);
	else
		hf_error_set(&e, -EPERM, HF_ERR_NOT_PERMITTED,
			q->challenge ? "Call it as root, or have a polkit rule allow it without a "
				       "password: holdfastd has nobody asked for one."
				     : "Call it as root, or have a polkit rule allow it.",
			"%s changes the host, and polkit doesn't let user %u do that (action %s)",
			q->method, uid, q->action);
	hf_varlink_call_error(q->call, &e, NULL);
}

static int on_end(sd_event_source *s, void *userdata)
{
	struct question *q = userdata;
	struct hf_varlink_call *call;
	uint64_t ticks;
	pid_t pid;

	/* The answer was about a process: has another got its number meanwhile? */
	if (q->allowed && hf_varlink_call_peer_process(q->call, &pid, &ticks) < 0) {
		q->allowed = false;
		snprintf(q->why, sizeof(q->why), "the process that asked has ended");
	}
	if (!q->allowed) {
		refuse(q);
		question_free(q);
		return 0;
	}
	/* First, as carrying it out may set its own gone callback. */
	call = hf_varlink_call_ref(q->call);
	question_free(q);
	hf_varlink_call_proceed(call);
	hf_varlink_call_unref(call);
	return 0;
}

static void conclude(struct question *q)
{
	sd_event_source_set_enabled(q->timer, SD_EVENT_OFF);
	sd_event_source_set_enabled(q->end, SD_EVENT_ONESHOT);
}

static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct question *q = userdata;
	const sd_bus_error *e = sd_bus_message_get_error(m);
	int authorised = 0, challenge = 0;
	int r = 0;

	if (!e)
		r = sd_bus_message_enter_container(m, 'r', "bba{ss}");
	if (!e && r >= 0)
		r = sd_bus_message_read(m, "bb", &authorised, &challenge);
	if (e)
		snprintf(q->why, sizeof(q->why), "polkit can't be asked: %s",
			e->message ? e->message : e->name);
	else if (r < 0)
		snprintf(q->why, sizeof(q->why), "polkit's answer makes no sense");
	q->allowed = !q->why[0] && authorised;
	q->challenge = challenge;
	conclude(q);
	return 0;
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct question *q = userdata;

	snprintf(q->why, sizeof(q->why), "polkit doesn't answer");
	conclude(q);
	return 0;
}

static void on_gone(struct hf_varlink_call *call, void *userdata)
{
	question_free(userdata);
}

static int send_question(struct question *q, pid_t pid, uint64_t start_ticks)
{
	uint64_t timeout_us = q->authority->timeout_ns / HF_NSEC_PER_USEC;
	sd_bus_message *m = NULL;
	int r;

	r = sd_bus_open_system_with_description(&q->bus, "holdfastd-polkit");
	if (r >= 0)
		r = sd_bus_set_exit_on_disconnect(q->bus, 0);
	if (r >= 0)
		r = sd_bus_attach_event(q->bus, q->authority->event, SD_EVENT_PRIORITY_NORMAL);
	if (r >= 0)
		r = sd_bus_message_new_method_call(q->bus, &m, "org.freedesktop.PolicyKit1",
			"/org/freedesktop/PolicyKit1/Authority",
			"org.freedesktop.PolicyKit1.Authority", "CheckAuthorization");
	/* No details; flags 0: no interaction; can't be cancelled. */
	if (r >= 0)
		r = sd_bus_message_append(m, "(sa{sv})sa{ss}us", "unix-process", 3, "pid", "u",
			(uint32_t)pid, "start-time", "t", start_ticks, "uid", "i",
			(int32_t)hf_varlink_call_peer_uid(q->call), q->action, 0, (uint32_t)0, "");
	/* The bus's own time-out only begins when it has let us in: the timer is ours. */
	if (r >= 0)
		r = sd_bus_call_async(q->bus, &q->slot, m, on_answer, q, 2 * timeout_us);
	sd_bus_message_unref(m);
	if (r >= 0)
		r = sd_event_add_time_relative(q->authority->event, &q->timer, CLOCK_MONOTONIC,
			timeout_us, 0, on_timeout, q);
	if (r >= 0)
		r = sd_event_add_defer(q->authority->event, &q->end, on_end, q);
	if (r >= 0)
		r = sd_event_source_set_enabled(q->end, SD_EVENT_OFF);
	return r < 0 ? r : 0;
}

/* One user's questions must not keep those of others from being asked. */
static bool too_many(const struct hf_authority *a, uid_t uid)
{
	unsigned int all = 0, theirs = 0;

	for (const struct question *q = a->questions; q; q = q->next) {
		all++;
		theirs += hf_varlink_call_peer_uid(q->call) == uid;
	}
	return all >= HF_AUTHORITY_MAX_QUESTIONS || theirs >= HF_AUTHORITY_MAX_PER_USER;
}

int hf_authority_ask(struct hf_authority *a, struct hf_varlink_call *call, const char *method)
{
	const char *action = hf_authority_action(method);
	struct question *q;
	uint64_t ticks;
	pid_t pid;
	int r;

	if (!action)
		return -ENOENT;
	if (too_many(a, hf_varlink_call_peer_uid(call)))
		return -EBUSY;
	r = hf_varlink_call_peer_process(call, &pid, &ticks);
	if (r < 0)
		return r;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	*q = (struct question){
		.authority = a, .next = a->questions, .method = method, .action = action};
	a->questions = q;
	q->call = hf_varlink_call_ref(call);
	r = send_question(q, pid, ticks);
	if (r < 0) {
		question_free(q);
		return r;
	}
	hf_varlink_call_on_gone(call, on_gone, q);
	return 0;
}
