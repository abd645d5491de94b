/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Is the host ready? Findings from what was read of it, of the guests, and of the target.
 *
 * Pure but for hf_host_needs_of(), which asks the kernel how much of the guests' RAM there is.
 * Nothing is guessed: what could not be read yields no refusal, and where that matters it is said.
 */
#pragma once

#include <json-c/json.h>

#include "agent/check.h"
#include "agent/host-facts.h"
#include "agent/target.h"
#include "agent/way.h"

/** struct hf_host_needs - what the guests that can come along need of the host. */
struct hf_host_needs {
	size_t n_guests;
	uint64_t ram_bytes;
	uint64_t hole_bytes;  /* of it not allocated yet: preserving allocates it */
	uint64_t state_bytes; /* room for their device state */
};

/** hf_host_needs_of() - Of all guests that a survey knows and that are not refused for their RAM.
 */
struct hf_host_needs hf_host_needs_of(const struct hf_survey *survey);

/**
 * hf_check_host() - Is it ready for this?
 * @way:    less matters where the kernel stays, or finds nothing in memory
 * @facts:  what was read of the host
 * @needs:  what its guests need
 * @target: what to jump into, or NULL
 *
 * Appends to @findings. Return: the worst verdict.
 */
enum hf_verdict hf_check_host(const struct hf_way *way, const struct hf_host_facts *facts,
	const struct hf_host_needs *needs, const struct hf_target *target,
	struct json_object *findings);
