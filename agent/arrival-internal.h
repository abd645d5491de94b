/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What arrival.c, an update on its way in, and arrival-held.c share. All of it is the loop's.
 */
#pragma once

#include "agent/arrival.h"
#include "agent/incoming.h"
#include "agent/wall-clock.h"
#include "memfd-preserve/readahead.h"
#include "vmm-glue/spawner.h"

/* Somebody who asked for something to be done with a held guest. */
struct hf_arrival_waiter {
	struct hf_incoming *in; /* NULL: a free place */
	hf_arrival_done_fn done;
	void *data;
	bool is_done; /* well: to be told when the host is where it belongs */
};

struct hf_arrival {
	struct hf_agent *agent;
	struct hf_carrier *carrier;
	struct hf_manifest *manifest;
	int64_t tsc_shift;	    /* see hf_wall_clock_tsc_shift() */
	struct hf_session *session; /* the manifest's: finished when every guest is resumed */
	struct hf_incoming **guests;
	size_t n_guests;
	size_t pending; /* guests, the read-ahead, the last finish */
	size_t n_held;
	size_t n_afresh;
	size_t n_released;
	struct hf_arrival_waiter *waiters; /* one place a guest */
	bool libvirt_kept;		   /* libvirt's daemon waits for some of the guests */
	struct hf_readahead_result readahead;
	struct hf_wall_clock clock;
	struct hf_spawner_call *greeting; /* no guest is started before it is answered */
	sd_event_source *slow;
	struct hf_error error; /* of the worker */
	sd_event_source *advance;
	bool finishing;
	bool local; /* the end of an adoption; what follows is for this, where it is of this agent
		     */
	hf_arrival_local_fn local_done;
	void *local_data;
};

/** hf_arrival_tell_waiter() - A guest is through its chain: who asked for that is told, or will be.
 */
void hf_arrival_tell_waiter(
	struct hf_arrival *a, struct hf_incoming *in, const struct hf_error *error);

/** hf_arrival_tell_done() - The host is where it belongs: who waits for that is told. */
void hf_arrival_tell_done(struct hf_arrival *a);
