/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The guests of an arrival, and what an operator decides about those that are held.
 */
#include <string.h>

#include "agent/arrival-internal.h"

static struct hf_incoming *find(const struct hf_arrival *a, const char *uuid)
{
	for (size_t i = 0; i < a->n_guests; i++) {
		if (strcmp(hf_incoming_guest(a->guests[i])->uuid, uuid) == 0)
			return a->guests[i];
	}
	return NULL;
}

const char *hf_arrival_guest_step(const struct hf_arrival *a, const char *uuid)
{
	struct hf_incoming *in = find(a, uuid);

	return in ? hf_incoming_step_name(hf_incoming_get_step(in)) : NULL;
}

const struct hf_error *hf_arrival_guest_error(const struct hf_arrival *a, const char *uuid)
{
	struct hf_incoming *in = find(a, uuid);

	return in && !hf_incoming_is_up(in) && hf_incoming_error(in)->err ? hf_incoming_error(in)
									  : NULL;
}

/* ---- what an operator decides ---- */

int hf_arrival_find(const struct hf_agent *agent, const char *id, struct hf_incoming **ret,
	struct hf_error *error)
{
	const struct hf_arrival *a = agent->arrival;
	struct hf_incoming *in = a ? find(a, id) : NULL;

	for (size_t i = 0; !in && a && i < a->n_guests; i++)
		if (strcmp(hf_incoming_guest(a->guests[i])->name, id) == 0)
			in = a->guests[i];
	if (!in) {
		hf_error_set(error, -ENOENT, HF_ERR_NO_GUEST, "see `holdfast status`",
			"no guest of this name or uuid is held");
		hf_error_guest(error, id);
		return -ENOENT;
	}
	*ret = in;
	return 0;
}

/* Its callback comes with a later turn of the loop. */
static void add_waiter(
	struct hf_arrival *a, struct hf_incoming *in, hf_arrival_done_fn done, void *data)
{
	for (size_t i = 0; i < a->n_guests; i++) {
		if (a->guests[i] != in)
			continue;
		a->waiters[i] = (struct hf_arrival_waiter){.in = in, .done = done, .data = data};
		a->n_held--;
		a->pending++;
	}
}

int hf_arrival_retry(struct hf_agent *agent, const char *id, const struct hf_retry_how *how,
	hf_arrival_done_fn done, void *data, struct hf_error *error)
{
	struct hf_incoming *in = NULL;
	int r = hf_arrival_find(agent, id, &in, error);

	if (r == 0)
		r = hf_incoming_retry(in, how, error);
	if (r < 0) {
		hf_error_guest(error, in ? hf_incoming_guest(in)->name : id);
		return r;
	}
	add_waiter(agent->arrival, in, done, data);
	hf_agent_progress(agent, hf_incoming_guest(in)->name, "tried once more%s%s",
		how->vmm ? ", with " : "", how->vmm ? how->vmm : "");
	return 0;
}

int hf_arrival_release(struct hf_agent *agent, const char *id, hf_arrival_done_fn done, void *data,
	struct hf_error *error)
{
	struct hf_incoming *in = NULL;
	int r = hf_arrival_find(agent, id, &in, error);

	if (r == 0)
		r = hf_incoming_release(in, error);
	if (r < 0) {
		hf_error_guest(error, in ? hf_incoming_guest(in)->name : id);
		return r;
	}
	add_waiter(agent->arrival, in, done, data);
	hf_agent_progress(agent, hf_incoming_guest(in)->name, "being released");
	return 0;
}

/* ---- who asked for it ---- */

static void answer(struct hf_arrival_waiter *w, const struct hf_error *error)
{
	struct hf_arrival_waiter copy = *w;

	*w = (struct hf_arrival_waiter){0};
	copy.done(error, copy.data);
}

void hf_arrival_tell_waiter(
	struct hf_arrival *a, struct hf_incoming *in, const struct hf_error *error)
{
	for (size_t i = 0; i < a->n_guests; i++) {
		if (a->waiters[i].in != in)
			continue;
		/* The last of all: it is told what became of the host. */
		if (!error && a->pending == 1)
			a->waiters[i].is_done = true;
		else
			answer(&a->waiters[i], error);
		return;
	}
}

void hf_arrival_tell_done(struct hf_arrival *a)
{
	for (size_t i = 0; i < a->n_guests; i++)
		if (a->waiters[i].is_done)
			answer(&a->waiters[i], NULL);
}
