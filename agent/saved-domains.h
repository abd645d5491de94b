/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Domains that can't come along and that libvirt puts into an image of its own for the time of
 * an update, where that is their policy (not-eligible=managed-save).
 *
 * They are saved when nothing else stands in the way of an update, and started from their images
 * again when there is no update any more: it was made, was undone, was refused after all, or its
 * agent died. Which they are is in a file that outlives the kernel, as their images do, written
 * before the first of them is saved: whichever agent comes next starts them. Their state needs no
 * place in an update for that, and a power failure takes nothing away.
 *
 * libvirt's daemon starts after this agent is ready, so starting them waits for it, and is tried
 * again for a while. A domain that can't be started keeps its image and is reported; nothing is
 * ever booted afresh. At all times libvirt knows these domains as what they are, saved ones, and
 * anybody may start them.
 */
#pragma once

#include <json-c/json.h>

#include "agent/survey.h"

struct hf_saved_domains;

/** Called once, from the loop. @error: why the first of them can't be saved; NULL: all are. */
typedef void (*hf_saved_done_fn)(const struct hf_error *error, void *data);

/** hf_saved_domains_load() - At the start of an agent: find out what the one before left. */
void hf_saved_domains_load(struct hf_agent *agent);

/**
 * hf_saved_domains_save() - Have all saved that have that fate.
 * @survey: borrowed for the call
 *
 * They stay saved until hf_saved_domains_let_go(), also after an error, and as long as there is an
 * update. Return: 0 when @done will be called; -errno: nothing was done.
 */
int hf_saved_domains_save(struct hf_agent *agent, const struct hf_survey *survey,
	hf_saved_done_fn done, void *data, struct hf_error *error);

/** hf_saved_domains_let_go() - Who had them saved has made an update of it, or won't. */
void hf_saved_domains_let_go(struct hf_agent *agent);

/** hf_saved_domains_tend() - Start them again if it is time for that. Called in each turn of the
 * loop. */
void hf_saved_domains_tend(struct hf_agent *agent);

/** hf_saved_domains_busy() - Are domains being saved, or started again? */
bool hf_saved_domains_busy(const struct hf_agent *agent);

/** hf_saved_domains_json() - An array of SavedDomain, owned by the caller; NULL: there are none. */
struct json_object *hf_saved_domains_json(const struct hf_agent *agent);

/** hf_saved_domains_free() - At the end of the agent; the file stays. */
void hf_saved_domains_free(struct hf_saved_domains *saved);

/* struct hf_saved_name - a line of the file. */
struct hf_saved_name {
	char uuid[HF_UUID_CHARS];
	char *name;
};

/**
 * hf_saved_domains_parse() - Read what is in the file: lines of "UUID NAME". Pure.
 * @ret:     free() each name, and it
 * @ret_bad: lines that make no sense, which are left out
 *
 * Return: how many domains there are; -ENOMEM.
 */
int hf_saved_domains_parse(
	const void *data, size_t size, struct hf_saved_name **ret, size_t *ret_bad);
