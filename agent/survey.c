/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/survey.h"

#include <string.h>

#include "agent/adopt.h"
#include "agent/arrival.h"
#include "agent/recheck.h"
#include "agent/update.h"
#include "agent/vmm-upgrade-request.h"
#include "vmm-glue/cmdline.h"
#include "vmm-glue/libvirt.h"
#include "vmm-glue/registration-trust.h"

#define ASK_TIMEOUT_NS (3 * HF_NSEC_PER_SEC)
/* A program may have to be read from disk first. */
#define INSTALLED_TIMEOUT_NS (5 * HF_NSEC_PER_SEC)
/* A program is started, and libvirt may be busy. */
#define LIBVIRT_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)
#define MAX_WAITERS 64

struct hf_survey {
	struct hf_agent *agent;
	struct hf_survey_guest *guests;
	size_t n_guests;
	size_t unreadable;
	struct hf_config *config;
	size_t pending;
	sd_event_source *finish;
	struct hf_libvirt_call *refresh;
	struct hf_error list_error, libvirt_error;
	struct {
		hf_survey_done_fn done;
		void *data;
	} waiters[MAX_WAITERS];
	size_t n_waiters;
};

static void survey_free(struct hf_survey *s)
{
	for (size_t i = 0; i < s->n_guests; i++) {
		hf_vmm_free(s->guests[i].vmm);
		hf_registration_clear(&s->guests[i].reg);
		hf_policy_clear(&s->guests[i].policy);
	}
	hf_libvirt_call_free(s->refresh);
	hf_config_free(s->config);
	free(s->guests);
	sd_event_source_disable_unref(s->finish);
	free(s);
}

static int on_finish(sd_event_source *source, void *userdata)
{
	struct hf_survey *s = userdata;

	s->agent->survey = NULL;
	s->config = hf_config_load();
	for (size_t i = 0; i < s->n_guests; i++) {
		struct hf_survey_guest *g = &s->guests[i];

		hf_vmm_free(g->vmm);
		g->vmm = NULL;
		if (g->asked)
			g->installed = hf_installed_get(s->agent->installed, &g->reg.guest);
		if (s->config)
			hf_config_policy(s->config, &g->reg.guest, &g->policy, &g->policy_error);
	}
	for (size_t i = 0; i < s->n_waiters; i++)
		s->waiters[i].done(s, s->waiters[i].data);
	survey_free(s);
	return 0;
}

static void one_done(struct hf_survey *s)
{
	if (--s->pending == 0)
		sd_event_source_set_enabled(s->finish, SD_EVENT_ONESHOT);
}

static void on_answer(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_survey_guest *g = data;

	if (error)
		g->error = *error;
	else
		g->probe = *hf_vmm_get_probe(vmm);
	one_done(g->survey);
}

static void on_installed(void *data)
{
	one_done(data);
}

const char *hf_survey_update_step(const struct hf_agent *agent, const char *uuid)
{
	const char *step = NULL;

	if (agent->update)
		step = hf_update_guest_step(agent->update, uuid);
	if (!step && agent->adopt)
		step = hf_adopt_guest_step(agent->adopt, uuid);
	if (!step && agent->vmm_upgrades)
		step = hf_vmm_upgrades_guest_step(agent->vmm_upgrades, uuid);
	if (!step && hf_recheck_guest(agent) && strcmp(hf_recheck_guest(agent), uuid) == 0)
		step = "checking";
	if (!step && agent->arrival && hf_arrival_manifest(agent->arrival))
		step = hf_arrival_guest_step(agent->arrival, uuid);
	/* Those it is over for: they run, or are gone. */
	if (step && (strcmp(step, "resumed") == 0 || strcmp(step, "cold-booted") == 0 ||
			    strcmp(step, "released") == 0))
		return NULL;
	return step;
}

static void ask(struct hf_survey *s, struct hf_survey_guest *g)
{
	struct hf_agent *agent = s->agent;
	int r;

	g->survey = s;
	if (hf_survey_update_step(agent, g->reg.guest.uuid) || !g->reg.guest.qmp_path)
		return;
	g->asked = true;
	r = hf_vmm_new(agent->event, &g->reg.guest, agent->ring, NULL, NULL, &g->vmm);
	if (r == 0) {
		hf_vmm_want_details(g->vmm);
		r = hf_vmm_attach(g->vmm, g->reg.pid, g->reg.start_ticks,
			hf_guest_is_libvirt(&g->reg.guest) ? LIBVIRT_TIMEOUT_NS : ASK_TIMEOUT_NS,
			on_answer, g);
	}
	if (r < 0)
		hf_error_set(
			&g->error, r, HF_ERR_FAILED, NULL, "can't ask its QEMU: %s", strerror(-r));
	else
		s->pending++;
	/* One that can't come along anyway is not started by anybody. */
	if (!g->reg.reason[0] && hf_installed_ask(agent->installed, &g->reg.guest,
					 INSTALLED_TIMEOUT_NS, on_installed, s) == 0)
		s->pending++;
}

static int list_guests(struct hf_survey *s)
{
	struct hf_registration *regs = NULL;
	size_t n = 0;
	int r;

	r = hf_registration_list(&regs, &n, &s->unreadable);
	if (r < 0)
		return r;
	s->guests = calloc(n ? n : 1, sizeof(*s->guests));
	if (!s->guests) {
		hf_registration_list_free(regs, n);
		return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		s->guests[i].reg = regs[i];
		hf_policy_init(&s->guests[i].policy);
	}
	s->n_guests = n;
	free(regs); /* its elements have moved */
	return 0;
}

/* libvirt's domains are registered now, or it is known that they can't be. */
static void on_refreshed(const struct hf_error *error, void *data)
{
	struct hf_survey *s = data;
	int r;

	if (error)
		s->libvirt_error = *error;
	r = list_guests(s);
	if (r < 0)
		hf_error_set(&s->list_error, r, HF_ERR_FAILED, NULL, "can't list the guests: %s",
			strerror(-r));
	for (size_t i = 0; i < s->n_guests; i++)
		ask(s, &s->guests[i]);
	if (s->pending == 0)
		sd_event_source_set_enabled(s->finish, SD_EVENT_ONESHOT);
}

const struct hf_error *hf_survey_list_error(const struct hf_survey *s)
{
	return s->list_error.err ? &s->list_error : s->libvirt_error.err ? &s->libvirt_error : NULL;
}

static int survey_new(struct hf_agent *agent, struct hf_survey **ret)
{
	struct hf_survey *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->agent = agent;
	r = sd_event_add_defer(agent->event, &s->finish, on_finish, s);
	if (r >= 0)
		r = sd_event_source_set_enabled(s->finish, SD_EVENT_OFF);
	/* From what is there follows what is run, as whom. */
	if (r >= 0)
		r = hf_registration_check_folder(NULL);
	if (r >= 0)
		r = hf_libvirt_refresh(
			agent->event, LIBVIRT_TIMEOUT_NS, on_refreshed, s, &s->refresh);
	if (r < 0) {
		survey_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int hf_survey_start(struct hf_agent *agent, hf_survey_done_fn done, void *data)
{
	struct hf_survey *s = agent->survey;
	int r;

	if (s && s->n_waiters == MAX_WAITERS)
		return -EBUSY;
	if (!s) {
		r = survey_new(agent, &s);
		if (r < 0)
			return r;
		agent->survey = s;
	}
	s->waiters[s->n_waiters].done = done;
	s->waiters[s->n_waiters++].data = data;
	return 0;
}

const struct hf_survey_guest *hf_survey_guests(const struct hf_survey *s, size_t *ret_n)
{
	*ret_n = s->n_guests;
	return s->guests;
}

bool hf_survey_is_luo(const struct hf_survey *s)
{
	return hf_agent_is_luo(s->agent);
}

const struct hf_config *hf_survey_config(const struct hf_survey *s)
{
	return s->config;
}

size_t hf_survey_unreadable(const struct hf_survey *s)
{
	return s->unreadable;
}

void hf_survey_refuse(struct hf_varlink_call *call, int err)
{
	struct hf_error e = {0};

	if (err == -EPERM && hf_registration_check_folder(&e) < 0)
		hf_varlink_call_error(call, &e, NULL);
	else
		hf_varlink_call_errno(call, err, "can't list the guests");
}
