/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/adopt-policy.h"

#include <stdio.h>
#include <string.h>

#include "agent/adopt.h"
#include "agent/check.h"
#include "agent/log.h"
#include "vmm-glue/cmdline.h"

bool hf_adopt_possible(const struct hf_registration *reg, struct hf_error *error)
{
	const struct hf_manifest_guest *g = &reg->guest;
	cleanup_free char **argv = NULL;
	size_t n = 0;
	int r;

	if (!reg->reason[0])
		r = hf_error_set(error, -EALREADY, HF_ERR_STATE, NULL,
			"it is not its RAM that is in the way");
	else if (hf_guest_is_libvirt(g))
		r = hf_error_set(error, -EOPNOTSUPP, HF_ERR_NOT_READY, reg->remedy,
			"its memory can't be moved while libvirt manages it");
	else if (!g->qmp_path)
		r = hf_error_set(error, -ENOTCONN, HF_ERR_NOT_READY,
			"shut it down, or start it anew with holdfast-vmm",
			"holdfast has no monitor of this guest");
	else
		r = hf_cmdline_adopt((const char *const *)g->argv, g->n_argv, &argv, &n, error);
	return r == 0;
}

struct adopt_all {
	struct hf_agent *agent;
	char (*uuids)[HF_UUID_CHARS];
	size_t n_uuids;
	size_t next;
	hf_adopt_all_fn done;
	void *data;
};

static void adopt_all_free(struct adopt_all *s)
{
	free(s->uuids);
	free(s);
}

/* For who asked for an update, and not for this: it is refused, unless there is no way back. */
static void as_refusal(struct hf_error *e, const char *guest)
{
	char remedy[sizeof(e->remedy)];

	hf_error_prefix(e, "not adopted, as is its policy");
	if (strcmp(e->name, HF_ERR_DEGRADED) == 0)
		return;
	snprintf(e->name, sizeof(e->name), "%s", HF_ERR_NOT_READY);
	snprintf(remedy, sizeof(remedy), "run `holdfast adopt %.63s` by hand%s%.140s", guest,
		e->remedy[0] ? ": " : "", e->remedy);
	snprintf(e->remedy, sizeof(e->remedy), "%s", remedy);
}

static int adopt_next(struct adopt_all *s, struct hf_error *error);

static void on_adopted(
	void *data, const struct hf_adopt_result *result, const struct hf_error *error)
{
	struct adopt_all *s = data;
	struct hf_error e = {0};

	if (error) {
		e = *error;
		as_refusal(&e, result->name);
	} else if (s->next < s->n_uuids && adopt_next(s, &e) == 0) {
		return;
	}
	s->done(e.err ? &e : NULL, s->data);
	adopt_all_free(s);
}

static int adopt_next(struct adopt_all *s, struct hf_error *error)
{
	static const struct hf_adopt_ops ops = {.done = on_adopted};
	const char *uuid = s->uuids[s->next++];
	int r;

	hf_log(LOG_NOTICE, uuid, "it can't come along as it is: adopting it, as is its policy");
	r = hf_adopt_start(s->agent, &(struct hf_adopt_request){.guest = uuid}, &ops, s, error);
	if (r < 0)
		as_refusal(error, uuid);
	return r;
}

int hf_adopt_all_start(struct hf_agent *agent, const struct hf_survey *survey, hf_adopt_all_fn done,
	void *data, struct hf_error *error)
{
	struct adopt_all *s = calloc(1, sizeof(*s));
	size_t n, needed = hf_check_count(survey, HF_FATE_ADOPTED);
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);
	int r;

	if (s)
		s->uuids = calloc(needed ? needed : 1, sizeof(*s->uuids));
	if (!s || !s->uuids) {
		free(s);
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	}
	s->agent = agent;
	s->done = done;
	s->data = data;
	for (size_t i = 0; i < n; i++) {
		if (hf_check_fate(&guests[i]) == HF_FATE_ADOPTED)
			snprintf(s->uuids[s->n_uuids++], HF_UUID_CHARS, "%s",
				guests[i].reg.guest.uuid);
	}
	r = s->n_uuids > 0 ? adopt_next(s, error) : -EINVAL;
	if (r < 0)
		adopt_all_free(s);
	return r;
}
