/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/state.h"

#include <assert.h>
#include <errno.h>

#include "common/cleanup.h"

struct state_row {
	const char *name;
	const char *meaning;
	const char *undo;
	const char *crash;
};

static const struct state_row states[] = {
	[HF_STATE_NORMAL] = {"normal", "no update is under way", "nothing to undo",
		"guests run on: the agent is not in their way"},
	[HF_STATE_PREPARING] = {"preparing",
		"RAM is being preserved, the target kernel loaded; guests run",
		"wait for calls in the kernel, discard every session, unload the target",
		"closed sessions un-preserve everything; guests run on"},
	[HF_STATE_PREPARED] = {"prepared", "everything that takes time is done; guests run",
		"discard every session, unload the target",
		"closed sessions un-preserve everything; guests run on; the next agent unloads the "
		"target"},
	[HF_STATE_FROZEN] = {"frozen", "guests are paused and saved; the jump follows",
		"roll every guest back (cancel, capability off, cont if it ran), then as for "
		"prepared",
		"agent: guests stand paused with their RAM and device state intact in their QEMU; "
		"the next "
		"agent lets those run again that ran. Host: after the jump began, the new kernel "
		"has the "
		"manifest; before it, power loss means what it always means"},
	[HF_STATE_ABORTING] = {"aborting", "an update is being undone, guests first",
		"it is the undo", "as for the state it came from"},
	[HF_STATE_RESUMING] = {"resuming", "the new kernel: guests are respawned, loaded, resumed",
		"none: each guest is resumed or held",
		"the keeper has the sessions: the next agent takes over guests that were let run, "
		"and loads the others once more"},
	[HF_STATE_DEGRADED] = {"degraded", "some guest needs an operator: its RAM is held",
		"none: the operator tries again, or gives the guest up",
		"held RAM lives in the keeper: the next agent tries once more"},
};
static_assert(HF_ARRAY_SIZE(states) == HF_STATE_N_, "every state has its row");

static const char *const events[] = {
	[HF_EVENT_PREPARE] = "prepare",
	[HF_EVENT_ALL_PREPARED] = "all-prepared",
	[HF_EVENT_COMMIT] = "commit",
	[HF_EVENT_ABORT] = "abort",
	[HF_EVENT_UNDONE] = "undone",
	[HF_EVENT_UNDO_FAILED] = "undo-failed",
	[HF_EVENT_ARRIVED] = "arrived",
	[HF_EVENT_ALL_RESUMED] = "all-resumed",
	[HF_EVENT_SOME_HELD] = "some-held",
};
static_assert(HF_ARRAY_SIZE(events) == HF_EVENT_N_, "every event has its name");

static const struct transition {
	enum hf_state from;
	enum hf_state_event event;
	enum hf_state to;
} transitions[] = {
	{HF_STATE_NORMAL, HF_EVENT_PREPARE, HF_STATE_PREPARING},
	{HF_STATE_NORMAL, HF_EVENT_ARRIVED, HF_STATE_RESUMING},
	{HF_STATE_PREPARING, HF_EVENT_ALL_PREPARED, HF_STATE_PREPARED},
	{HF_STATE_PREPARING, HF_EVENT_ABORT, HF_STATE_ABORTING},
	{HF_STATE_PREPARED, HF_EVENT_COMMIT, HF_STATE_FROZEN},
	{HF_STATE_PREPARED, HF_EVENT_ABORT, HF_STATE_ABORTING},
	{HF_STATE_FROZEN, HF_EVENT_ABORT, HF_STATE_ABORTING},
	{HF_STATE_ABORTING, HF_EVENT_UNDONE, HF_STATE_NORMAL},
	{HF_STATE_ABORTING, HF_EVENT_UNDO_FAILED, HF_STATE_DEGRADED},
	{HF_STATE_RESUMING, HF_EVENT_ALL_RESUMED, HF_STATE_NORMAL},
	{HF_STATE_RESUMING, HF_EVENT_SOME_HELD, HF_STATE_DEGRADED},
	{HF_STATE_DEGRADED, HF_EVENT_ALL_RESUMED, HF_STATE_NORMAL},
};

const char *hf_state_name(enum hf_state state)
{
	return states[state].name;
}

const char *hf_state_event_name(enum hf_state_event event)
{
	return events[event];
}

int hf_state_next(enum hf_state state, enum hf_state_event event, enum hf_state *ret)
{
	for (size_t i = 0; i < HF_ARRAY_SIZE(transitions); i++) {
		if (transitions[i].from == state && transitions[i].event == event) {
			*ret = transitions[i].to;
			return 0;
		}
	}
	return -EPERM;
}

void hf_state_print(FILE *out)
{
	fprintf(out, "| state | meaning | undo | if we crash here |\n| --- | --- | --- | --- |\n");
	for (size_t i = 0; i < HF_ARRAY_SIZE(states); i++)
		fprintf(out, "| `%s` | %s | %s | %s |\n", states[i].name, states[i].meaning,
			states[i].undo, states[i].crash);
	fprintf(out, "\n| in state | on event | to state |\n| --- | --- | --- |\n");
	for (size_t i = 0; i < HF_ARRAY_SIZE(transitions); i++)
		fprintf(out, "| `%s` | %s | `%s` |\n", states[transitions[i].from].name,
			events[transitions[i].event], states[transitions[i].to].name);
}
