/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Whether somebody else than root may change the host: polkit decides.
 *
 * The question is CheckAuthorization of org.freedesktop.PolicyKit1 on the system bus, without
 * interaction: nobody is asked for a password, rules or a kept authorisation have to allow it. The
 * actions are in deploy/polkit/org.holdfast.policy.
 *
 * Each question has a bus connection of its own and a time-out, so that neither a bus that hangs
 * nor one that dies concerns anything else; the loop never waits. Only a clear yes lets a call
 * through, and only while the process that connected lives: what polkit said was about that one.
 * Methods that are in no action (they show guests' command lines) stay root's.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/varlink.h"

struct hf_authority;

#define HF_AUTHORITY_TIMEOUT_NS (30 * HF_NSEC_PER_SEC)
#define HF_AUTHORITY_MAX_QUESTIONS 16 /* under way at once */
#define HF_AUTHORITY_MAX_PER_USER 4

/** hf_authority_new() - @timeout_ns: of one question. Return: 0 or -ENOMEM. */
int hf_authority_new(sd_event *event, uint64_t timeout_ns, struct hf_authority **ret);

/** hf_authority_free() - Calls that still wait are refused. NULL is fine. Return: NULL. */
struct hf_authority *hf_authority_free(struct hf_authority *authority);

/**
 * hf_authority_ask() - To be called by the authorise function of a Varlink server, see there.
 * @method: without interface
 *
 * Return: 0: the call is going to be answered, or carried out; -ENOENT no action has this method;
 * -errno when polkit can't be asked.
 */
int hf_authority_ask(
	struct hf_authority *authority, struct hf_varlink_call *call, const char *method);

/** hf_authority_action() - The action that a method belongs to, or NULL. */
const char *hf_authority_action(const char *method);
