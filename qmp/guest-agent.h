/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A short conversation with the agent inside a guest (qemu-ga), over its channel's socket.
 *
 * The channel is a UNIX socket that the guest's QEMU listens on, for one client at a time. What
 * comes back is the guest's: it is bounded in length, number and time, and believed in nothing but
 * what was asked. Before anything else both ends are brought in step (guest-sync-delimited):
 * answers to whoever used the channel before are thrown away.
 *
 * States: connecting and syncing (hf_guest_agent_open), idle, one command under way
 * (hf_guest_agent_command). Each of the two ends in one callback, from the loop, never from within
 * the call; after a failure there is nothing left but hf_guest_agent_free(), which is allowed in
 * any callback and forbids all others. The time-out is one for the whole conversation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/error.h"

struct json_object;
struct hf_guest_agent;

#define HF_GUEST_AGENT_MAX_LINE 16384
#define HF_GUEST_AGENT_MAX_BYTES (1u << 20) /* of all that comes in one conversation */

/**
 * typedef hf_guest_agent_fn - the end of hf_guest_agent_open() or of a command.
 * @err: 0; -ETIMEDOUT no answer in time; -EREMOTEIO the agent refused the command; -ECONNRESET the
 *       channel was closed; -EBADMSG, -EMSGSIZE what came is no answer
 * @ret: of a command: its `return`, borrowed for the call; else NULL
 */
typedef void (*hf_guest_agent_fn)(struct hf_guest_agent *a, int err, struct json_object *ret,
	const struct hf_error *error, void *data);

/**
 * hf_guest_agent_open() - Connect, and see whether the agent answers.
 * @path:       the channel's socket
 * @pid:        the process that must be the one that listens there; 0: any
 * @timeout_ns: for all of the conversation
 *
 * Return: 0 (then @fn is called, once); -EBUSY when others wait for the channel; -EPERM when
 * another process has the socket; -errno of connect(2). @error is filled.
 */
int hf_guest_agent_open(sd_event *event, const char *path, pid_t pid, uint64_t timeout_ns,
	hf_guest_agent_fn fn, void *data, struct hf_guest_agent **ret, struct hf_error *error);

/**
 * hf_guest_agent_command() - Ask for something. Only when idle.
 * @text: a whole command as JSON, without line feeds
 *
 * Return: 0 (then @fn is called, once), or -errno.
 */
int hf_guest_agent_command(
	struct hf_guest_agent *a, const char *text, hf_guest_agent_fn fn, void *data);

/** hf_guest_agent_free() - End it. NULL is fine. Return: NULL. */
struct hf_guest_agent *hf_guest_agent_free(struct hf_guest_agent *a);

/* ---- the parsers: pure ---- */

/** struct hf_guest_agent_input - bytes of the guest on their way to lines. Starts zeroed. */
struct hf_guest_agent_input {
	bool marked; /* the byte in front of the first answer that counts has come */
	size_t n;
	char line[HF_GUEST_AGENT_MAX_LINE];
};

/**
 * hf_guest_agent_input_add() - Take bytes up to the end of a line.
 * @ret_used: how many of them were taken
 *
 * What comes before the first mark (0xff) is dropped, and so is what a later mark cuts off. Return:
 * 1 when a line is complete (input->line, input->n bytes; the next call begins a new one), 0 when
 * all was taken and it isn't, -EMSGSIZE when it is too long.
 */
int hf_guest_agent_input_add(
	struct hf_guest_agent_input *in, const uint8_t *data, size_t size, size_t *ret_used);

/**
 * hf_guest_agent_parse() - Take an answer apart.
 * @ret: the `return` value, owned by the caller
 *
 * Return: 0; -EREMOTEIO, with the agent's words, when it is an error; -EBADMSG.
 */
int hf_guest_agent_parse(
	const char *line, size_t size, struct json_object **ret, struct hf_error *error);
