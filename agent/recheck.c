/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/recheck.h"

#include <stdio.h>
#include <string.h>

#include "agent/config.h"
#include "agent/health.h"
#include "agent/log.h"
#include "agent/survey.h"
#include "vmm-glue/registration-trust.h"
#include "vmm-glue/registration.h"

#define ATTACH_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)

struct hf_recheck {
	struct hf_agent *agent;
	struct hf_registration reg;
	struct hf_health_remark noted;
	struct hf_vmm *vmm;
	struct hf_health *gate;
	hf_recheck_done_fn done;
	void *data;
};

static struct hf_recheck *recheck_free(struct hf_recheck *c)
{
	if (!c)
		return NULL;
	hf_health_free(c->gate);
	hf_vmm_free(c->vmm);
	hf_registration_clear(&c->reg);
	free(c);
	return NULL;
}

static void end(struct hf_recheck *c, const struct hf_error *error)
{
	struct hf_error e = {0};
	hf_recheck_done_fn done = c->done;
	void *data = c->data;

	if (error) {
		e = *error;
		hf_error_guest(&e, c->reg.guest.name);
	}
	c->agent->recheck = NULL;
	recheck_free(c);
	done(error ? &e : NULL, data);
}

static void on_checked(const struct hf_health_result *result, void *data)
{
	struct hf_recheck *c = data;
	const struct hf_manifest_guest *g = &c->reg.guest;
	struct hf_error e = {0};

	if (!result->unhealthy) {
		hf_health_forget(g->uuid);
		hf_log(LOG_NOTICE, g->uuid, "%s was looked at again, and is well", g->name);
		end(c, NULL);
		return;
	}
	snprintf(c->noted.message, sizeof(c->noted.message), "%s", result->message);
	hf_health_note(g->uuid, c->reg.pid, &c->noted);
	hf_log(LOG_WARNING, g->uuid, "%s was looked at again, and is still not well: %s", g->name,
		result->message);
	hf_error_set(&e, -EAGAIN, HF_ERR_DEGRADED,
		"see into the guest, which runs on, and retry it again",
		"it runs, but is still not well: %s", result->message);
	end(c, &e);
}

static void on_attached(struct hf_vmm *vmm, const struct hf_error *error, void *data)
{
	struct hf_recheck *c = data;
	struct hf_error e = {0};
	int r;

	if (error) {
		e = *error;
		hf_error_prefix(&e, "its QEMU can't be asked");
		end(c, &e);
		return;
	}
	/* One that somebody paused can't answer, and nothing is said of it by that. */
	if (!c->reg.guest.was_running) {
		hf_error_set(
			&e, -EPERM, HF_ERR_STATE, "let it run, and retry it then", "it is paused");
		end(c, &e);
		return;
	}
	c->reg.guest.agent_answered = c->noted.agent_answered;
	r = hf_health_start(
		c->agent, vmm, &c->reg.guest, c->noted.blackout_ns, on_checked, c, &c->gate);
	if (r < 0) {
		hf_error_set(
			&e, r, HF_ERR_FAILED, "try again", "can't look at it: %s", strerror(-r));
		end(c, &e);
	}
}

/* By name or uuid, of those that were noted. */
static int find(const struct hf_agent *agent, const char *id, struct hf_registration *ret,
	struct hf_health_remark *ret_noted)
{
	struct hf_registration *regs = NULL;
	size_t n = 0;
	int r;

	r = hf_registration_check_folder(NULL);
	if (r == 0)
		r = hf_registration_list(&regs, &n, NULL);
	if (r < 0)
		return r;
	r = -ENOENT;
	for (size_t i = 0; i < n && r < 0; i++) {
		const struct hf_manifest_guest *g = &regs[i].guest;

		if ((strcmp(g->uuid, id) != 0 && strcmp(g->name, id) != 0) || !g->qmp_path ||
			hf_survey_update_step(agent, g->uuid) ||
			hf_health_noted(g->uuid, regs[i].pid, ret_noted) < 0)
			continue;
		*ret = regs[i];
		regs[i] = (struct hf_registration){0};
		r = 0;
	}
	hf_registration_list_free(regs, n);
	return r;
}

bool hf_recheck_applies(const struct hf_agent *agent, const char *id)
{
	struct hf_health_remark noted;
	struct hf_registration reg;

	if (agent->recheck && (strcmp(agent->recheck->reg.guest.uuid, id) == 0 ||
				      strcmp(agent->recheck->reg.guest.name, id) == 0))
		return true;
	if (find(agent, id, &reg, &noted) < 0)
		return false;
	hf_registration_clear(&reg);
	return true;
}

static int take_policies(struct hf_manifest_guest *g, struct hf_error *error)
{
	cleanup_config struct hf_config *config = hf_config_load();
	size_t n_problems = 0;
	int r;

	if (!config)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	hf_config_problems(config, &(size_t){0}, &n_problems);
	if (n_problems > 0)
		return hf_error_set(error, -EINVAL, HF_ERR_NOT_READY,
			"see `holdfastd --check-config`, and retry it then",
			"the configuration has errors, so its health-command is not known");
	hf_policy_clear(&g->policies);
	r = hf_config_policy(config, g, &g->policies, error);
	hf_policy_repair(&g->policies);
	return r;
}

int hf_recheck_start(struct hf_agent *agent, const char *id, hf_recheck_done_fn done, void *data,
	struct hf_error *error)
{
	struct hf_recheck *c;
	int r;

	if (agent->recheck || agent->update || agent->adopt || agent->vmm_upgrades)
		return hf_error_set(error, -EBUSY, HF_ERR_BUSY, "try again when that is over",
			agent->recheck ? "another guest is being looked at"
				       : "an update or an adoption is under way");
	c = calloc(1, sizeof(*c));
	if (!c)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	c->agent = agent;
	c->done = done;
	c->data = data;
	r = find(agent, id, &c->reg, &c->noted);
	if (r < 0)
		hf_error_set(error, r, HF_ERR_NO_GUEST, "see `holdfast status`",
			"no guest of this name or uuid is unhealthy");
	if (r == 0)
		r = take_policies(&c->reg.guest, error);
	if (r == 0)
		r = hf_vmm_new(agent->event, &c->reg.guest, agent->ring, NULL, NULL, &c->vmm);
	if (r == 0)
		r = hf_vmm_attach(
			c->vmm, c->reg.pid, c->reg.start_ticks, ATTACH_TIMEOUT_NS, on_attached, c);
	if (r < 0) {
		if (error && !error->err)
			hf_error_set(error, r, HF_ERR_FAILED, NULL, "its QEMU can't be asked: %s",
				strerror(-r));
		hf_error_guest(error, c->reg.guest.name ? c->reg.guest.name : id);
		recheck_free(c);
		return r;
	}
	agent->recheck = c;
	return 0;
}

const char *hf_recheck_guest(const struct hf_agent *agent)
{
	return agent->recheck ? agent->recheck->reg.guest.uuid : NULL;
}

void hf_recheck_stop(struct hf_agent *agent)
{
	agent->recheck = recheck_free(agent->recheck);
}
