/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/libvirt-gate.h"

#include <string.h>

#include "agent/log.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt.h"
#include "vmm-glue/note.h"

#define DAEMON_TIMEOUT_NS (30 * HF_NSEC_PER_SEC)
/* As long as it is there the daemon may be away, and somebody has to start it again. */
#define NOTE "libvirt-away"

struct waiter {
	hf_libvirt_gate_fn closed; /* NULL: forgotten */
	void *data;
};

struct hf_libvirt_gate {
	struct hf_agent *agent;
	struct hf_libvirt_call *call;
	bool starting;	    /* what the call is for */
	bool away;	    /* the daemon is stopped */
	unsigned int users; /* who want it so, those that wait for it included */
	struct waiter *waiters;
	size_t n_waiters;
};

static void advance(struct hf_libvirt_gate *g);

static int get(struct hf_agent *agent, struct hf_libvirt_gate **ret)
{
	if (!agent->libvirt_gate) {
		agent->libvirt_gate = calloc(1, sizeof(*agent->libvirt_gate));
		if (!agent->libvirt_gate)
			return -ENOMEM;
		agent->libvirt_gate->agent = agent;
	}
	*ret = agent->libvirt_gate;
	return 0;
}

static void tell_all(struct hf_libvirt_gate *g, const struct hf_error *error)
{
	struct waiter *waiters = TAKE_PTR(g->waiters);
	size_t n = g->n_waiters;

	g->n_waiters = 0;
	for (size_t i = 0; i < n; i++) {
		if (error || !waiters[i].closed)
			g->users--;
		if (waiters[i].closed)
			waiters[i].closed(error, waiters[i].data);
	}
	free(waiters);
}

static void on_called(const struct hf_error *error, void *data)
{
	struct hf_libvirt_gate *g = data;

	g->call = hf_libvirt_call_free(g->call);
	if (g->starting && error)
		hf_log(LOG_ERR, NULL,
			"%s. Domains run, but libvirt doesn't see them until its daemon is started",
			error->message);
	if (g->starting && !error)
		hf_note_remove(NOTE);
	/* One that could not be stopped may be half gone: it is started again. */
	g->away = !g->starting;
	if (!g->starting)
		tell_all(g, error);
	advance(g);
}

static void advance(struct hf_libvirt_gate *g)
{
	bool want_away = g->users > 0;

	if (g->call)
		return;
	if (g->away == want_away) {
		if (g->away)
			tell_all(g, NULL);
		return;
	}
	g->starting = !want_away;
	/* Without a note it would stay away where this agent dies; it does no other harm. */
	if (!g->starting && hf_note_write(NOTE, "", NULL) < 0)
		hf_log(LOG_WARNING, NULL, "can't note that libvirt's daemon is stopped");
	if (hf_libvirt_daemon(
		    g->agent->event, g->starting, DAEMON_TIMEOUT_NS, on_called, g, &g->call) < 0) {
		struct hf_error e = {0};

		hf_error_set(&e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
		hf_log(LOG_ERR, NULL, "libvirt's daemon can't be stopped or started: %s",
			e.message);
		tell_all(g, &e);
	}
}

int hf_libvirt_gate_close(struct hf_agent *agent, hf_libvirt_gate_fn closed, void *data)
{
	struct hf_libvirt_gate *g;
	struct waiter *waiters;
	int r = get(agent, &g);

	if (r < 0)
		return r;
	waiters = reallocarray(g->waiters, g->n_waiters + 1, sizeof(*waiters));
	if (!waiters)
		return -ENOMEM;
	g->waiters = waiters;
	waiters[g->n_waiters++] = (struct waiter){closed, data};
	g->users++;
	/* Where it is away already that is told at once: callers count on no order. */
	advance(g);
	return 0;
}

void hf_libvirt_gate_forget(struct hf_agent *agent, void *data)
{
	struct hf_libvirt_gate *g = agent->libvirt_gate;

	for (size_t i = 0; g && i < g->n_waiters; i++)
		if (g->waiters[i].data == data)
			g->waiters[i].closed = NULL;
}

int hf_libvirt_gate_take(struct hf_agent *agent)
{
	struct hf_libvirt_gate *g;
	int r = get(agent, &g);

	if (r < 0)
		return r;
	g->away = true;
	g->users++;
	return 0;
}

void hf_libvirt_gate_recover(struct hf_agent *agent)
{
	if (!hf_note_is_there(NOTE) || hf_libvirt_gate_take(agent) < 0)
		return;
	hf_log(LOG_NOTICE, NULL, "an agent that died left libvirt's daemon stopped: starting it");
	hf_libvirt_gate_open(agent);
}

void hf_libvirt_gate_open(struct hf_agent *agent)
{
	struct hf_libvirt_gate *g = agent->libvirt_gate;

	if (!g || g->users == 0)
		return;
	g->users--;
	advance(g);
}

void hf_libvirt_gate_unguard(const struct hf_manifest_guest *guest)
{
	int r = hf_guest_is_libvirt(guest) ? hf_libvirt_unguard(guest) : 0;

	if (r < 0)
		hf_log(LOG_WARNING, guest->uuid,
			"%s: libvirt will not start it until `virsh managedsave-remove`: %s",
			guest->name, strerror(-r));
}

void hf_libvirt_gate_free(struct hf_libvirt_gate *g)
{
	if (!g)
		return;
	hf_libvirt_call_free(g->call);
	free(g->waiters);
	free(g);
}
