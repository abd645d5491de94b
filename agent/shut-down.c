/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/shut-down.h"

#include <string.h>

#include "agent/check.h"
#include "agent/log.h"
#include "vmm-glue/powerdown.h"

struct shut_down {
	struct hf_agent *agent;
	struct one {
		struct shut_down *all;
		struct hf_powerdown *powerdown;
		char *name;
	} * guests;
	size_t n_guests;
	size_t pending;
	hf_shut_down_done_fn done;
	void *data;
	struct hf_error error; /* the first failure */
};

static void shut_down_free(struct shut_down *s)
{
	for (size_t i = 0; i < s->n_guests; i++) {
		hf_powerdown_free(s->guests[i].powerdown);
		free(s->guests[i].name);
	}
	free(s->guests);
	free(s);
}

static void note(struct one *g, const struct hf_error *error)
{
	if (error) {
		hf_agent_progress(g->all->agent, g->name, "not shut down: %s", error->message);
		if (!g->all->error.err)
			g->all->error = *error;
	} else {
		hf_agent_progress(
			g->all->agent, g->name, "has ended: the update is made without it");
	}
}

static void on_powered_down(struct hf_powerdown *p, const struct hf_error *error, void *data)
{
	struct one *g = data;
	struct shut_down *s = g->all;

	note(g, error);
	if (--s->pending > 0)
		return;
	s->agent->shutting_down = false;
	s->done(s->error.err ? &s->error : NULL, s->data);
	shut_down_free(s);
}

static void ask(struct shut_down *s, const struct hf_survey_guest *guest)
{
	struct one *g = &s->guests[s->n_guests++];
	struct hf_error e = {0};

	*g = (struct one){
		.all = s,
		.name = strdup(guest->reg.guest.name),
	};
	hf_log(LOG_NOTICE, guest->reg.guest.uuid,
		"%s can't come along: asking it to power down, as is its policy",
		guest->reg.guest.name);
	hf_agent_progress(s->agent, guest->reg.guest.name, "powering down");
	if (hf_powerdown_start(s->agent->event, &guest->reg, guest->policy.shutdown_timeout_ns,
		    on_powered_down, g, &g->powerdown, &e) < 0)
		note(g, &e);
	else
		s->pending++;
}

int hf_shut_down_start(struct hf_agent *agent, const struct hf_survey *survey,
	hf_shut_down_done_fn done, void *data, struct hf_error *error)
{
	struct shut_down *s = calloc(1, sizeof(*s));
	size_t n, needed = hf_check_count(survey, HF_FATE_SHUT_DOWN);
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);

	if (s)
		s->guests = calloc(needed ? needed : 1, sizeof(*s->guests));
	if (!s || !s->guests) {
		free(s);
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	}
	s->agent = agent;
	s->done = done;
	s->data = data;
	for (size_t i = 0; i < n; i++) {
		if (hf_check_fate(&guests[i]) == HF_FATE_SHUT_DOWN)
			ask(s, &guests[i]);
	}
	if (s->pending == 0) {
		*error = s->error;
		shut_down_free(s);
		return error->err ? error->err : -EINVAL;
	}
	agent->shutting_down = true;
	return 0;
}
