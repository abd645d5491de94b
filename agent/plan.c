/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/plan.h"

#include <stdio.h>
#include <string.h>

#include "agent/check.h"
#include "common/json.h"

/* ---- steps ---- */

#define QEMUS_END "the guests' QEMUs end, and the agent starts itself anew"
#define QEMUS_START \
	"all guests get a new QEMU on their RAM at the same time; each runs as soon as its state " \
	"is loaded"

/* The host's phases have the names of the steps. */
static const struct {
	const char *name;
	const char *guests;
	const char *luo, *hold, *image; /* NULL: there is no such step with that carrier */
} steps[] = {
	{"prepare", "run",
		"every guest's RAM is preserved and the kernel is loaded; from here to the end RAM "
		"keeps its size",
		"every guest's RAM is kept by the agent; from here to the end RAM keeps its size",
		"every guest's RAM is copied to disk, and copied again as far as it changed"},
	{"freeze", "paused",
		"all guests are paused, the state of their devices is saved, disks are written "
		"back",
		"all guests are paused and the state of their devices is saved",
		"all guests are paused and the state of their devices is saved; all of their RAM "
		"is read once, and what changed is written"},
	{"jump", "paused", "the new kernel starts in the place of the old one", QEMUS_END,
		"the new kernel starts in the place of the old one"},
	{"boot", "paused", "the new kernel boots as far as the agent", NULL,
		"the new kernel boots as far as the agent"},
	{"resume", "paused", QEMUS_START, QEMUS_START,
		"RAM is read from disk, and checked; " QEMUS_START},
	{"report", "run", "what was handed over is released, and the report is written",
		"what was handed over is released, and the report is written",
		"the images are removed, and the report is written"},
};

static const char *what_is_done(size_t step, const struct hf_way *way)
{
	bool jump = strcmp(steps[step].name, "jump") == 0;

	if (way->reboot && jump)
		return "the machine restarts, firmware and all";
	if (hf_way_in_memory(way))
		return steps[step].luo;
	/* With images and without a jump as with `hold`. */
	if (!hf_way_on_disk(way) ||
		(!way->leaves && (jump || strcmp(steps[step].name, "boot") == 0)))
		return steps[step].hold;
	return steps[step].image;
}

static struct json_object *steps_json(const struct hf_way *way, const struct hf_sample *sample)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < HF_ARRAY_SIZE(steps); i++) {
		const char *what = what_is_done(i, way);
		struct json_object *o;

		if (!what)
			continue;
		o = json_object_new_object();
		hf_json_add_string(o, "name", steps[i].name);
		hf_json_add_string(o, "guests", steps[i].guests);
		hf_json_add_string(o, "what", what);
		hf_json_add(o, "estimate", hf_sample_phase(sample, NULL, steps[i].name));
		hf_json_append(list, o);
	}
	return list;
}

/* ---- guests ---- */

/* The first of them speaks for all: they are among the findings. */
static uint64_t ram_bytes(const struct hf_manifest_guest *g)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < g->n_ram; i++)
		bytes += g->ram[i].size;
	return bytes;
}

/* What its policy costs in the worst case. NULL: nothing that it has now. */
static const char *if_it_fails(const struct hf_policy *p)
{
	bool save = p->save_failure == HF_SAVE_FAILURE_COLD_BOOT;
	bool resume = p->resume_failure == HF_RESUME_FAILURE_COLD_BOOT;

	if (save && resume)
		return "if it can't be saved or brought back, it is started afresh: what it has in "
		       "memory is lost then";
	if (save)
		return "if it can't be saved, it is started afresh: what it has in memory is lost "
		       "then";
	return resume ? "if it can't be brought back, it is started afresh: what it has in memory "
			"is lost then"
		      : NULL;
}

static struct json_object *guest_json(const struct hf_survey_guest *g, const char *to_kernel,
	const struct hf_sample *sample, uint64_t *total_bytes)
{
	const struct hf_manifest_guest *guest = &g->reg.guest;
	cleanup_json struct json_object *findings = json_object_new_array();
	struct json_object *o = json_object_new_object();
	bool refused = hf_check_guest(g, to_kernel, findings) == HF_REFUSAL;
	enum hf_fate fate = hf_check_fate(g);
	bool paused = g->asked && !g->error.err && !g->probe.running;
	uint64_t bytes = ram_bytes(guest);

	hf_json_add_string(o, "uuid", guest->uuid);
	hf_json_add_string(o, "name", guest->name);
	hf_json_add_string(o, "action",
		refused			    ? "refuse"
		: fate == HF_FATE_SHUT_DOWN ? "shut_down"
		: fate == HF_FATE_ADOPTED   ? "adopt"
		: fate == HF_FATE_SAVED	    ? "managed_save"
		: paused		    ? "keep_paused"
					    : "carry");
	hf_json_add_int(o, "ram_bytes", (int64_t)bytes);
	if (refused || fate != HF_FATE_COMES_ALONG)
		hf_json_add_string(o, "message",
			hf_json_get_string(
				hf_findings_first(findings, refused ? HF_REFUSAL : HF_WARNING),
				"message", NULL));
	else
		hf_json_add_string(o, "message", if_it_fails(&g->policy));
	if (refused || fate == HF_FATE_SHUT_DOWN || fate == HF_FATE_SAVED) {
		hf_json_add(o, "phases", json_object_new_array());
		return o;
	}
	*total_bytes += bytes;
	hf_json_add(o, "preserve", hf_sample_preserve(sample, bytes));
	hf_json_add(o, "blackout", hf_sample_blackout(sample, guest->uuid));
	hf_json_add(o, "phases", hf_sample_phases(sample, guest->uuid));
	return o;
}

void hf_plan_add(struct json_object *reply, const struct hf_way *way,
	const struct hf_survey *survey, const char *to_kernel, const struct hf_history *history)
{
	struct json_object *list = json_object_new_array();
	struct hf_sample sample;
	uint64_t total_bytes = 0;
	size_t n;
	const struct hf_survey_guest *guests = hf_survey_guests(survey, &n);

	hf_sample_take(history, hf_carrier_name(way->carrier), &sample);
	for (size_t i = 0; i < n; i++)
		hf_json_append(list, guest_json(&guests[i], to_kernel, &sample, &total_bytes));
	hf_json_add(reply, "guests", list);
	hf_json_add(reply, "steps", steps_json(way, &sample));
	hf_json_add(reply, "blackout", hf_sample_blackout(&sample, NULL));
	if (total_bytes > 0)
		hf_json_add(reply, "preserve", hf_sample_preserve(&sample, total_bytes));
	hf_json_add_int(reply, "updates", (int64_t)sample.n);
	hf_json_add(reply, "skipped", json_object_get(history->skipped));
}
