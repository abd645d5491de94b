/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The host's place in an update: one table of states and events.
 *
 * Everything the agent does moves along this table and nowhere else: hf_state_next() is the only
 * way from one state to the next, and an event that a state does not know is refused. The table
 * also says, for each state, what undoes it and what happens to the guests if the agent or the host
 * dies there; docs/ARCHITECTURE.md shows the same rows (`holdfastd --print-states`).
 */
#pragma once

#include <stdio.h>

enum hf_state {
	HF_STATE_NORMAL,
	HF_STATE_PREPARING,
	HF_STATE_PREPARED,
	HF_STATE_FROZEN,
	HF_STATE_ABORTING,
	HF_STATE_RESUMING,
	HF_STATE_DEGRADED,
	HF_STATE_N_,
};

enum hf_state_event {
	HF_EVENT_PREPARE,      /* asked to prepare */
	HF_EVENT_ALL_PREPARED, /* every guest and the target are prepared */
	HF_EVENT_COMMIT,       /* asked to commit */
	HF_EVENT_ABORT, /* asked to abort, a failure, a time-out, a guest gone, the jump returned */
	HF_EVENT_UNDONE,      /* everything is undone, guests run as before */
	HF_EVENT_UNDO_FAILED, /* undone as far as possible, some guest does not run as before */
	HF_EVENT_ARRIVED,     /* a manifest was found at start: this is the new kernel */
	HF_EVENT_ALL_RESUMED, /* every guest is resumed and finished, or was given up */
	HF_EVENT_SOME_HELD,   /* every guest is accounted for, some are held */
	HF_EVENT_N_,
};

/** hf_state_name() - The state's name on the Varlink interface. */
const char *hf_state_name(enum hf_state state);

/** hf_state_event_name() - The event's name in logs and documents. */
const char *hf_state_event_name(enum hf_state_event event);

/**
 * hf_state_next() - Where an event leads.
 * @state: current state
 * @event: what happened
 * @ret:   the next state, set on success only
 *
 * Return: 0, or -EPERM when the event has no meaning in this state.
 */
int hf_state_next(enum hf_state state, enum hf_state_event event, enum hf_state *ret);

/** hf_state_print() - Write both tables as Markdown, for docs/ARCHITECTURE.md. */
void hf_state_print(FILE *out);
