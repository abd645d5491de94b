/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A process outside of the agent's sandbox that starts VMMs for it.
 *
 * Name spaces, filters of system calls and lost capabilities are inherited, for life. The agent's
 * are made for the agent; a guest's QEMU must have the surroundings that it had before the update.
 * So a second, unconfined service waits at a socket, and does for the agent what hf_spawn() does
 * without it: with the same specification, in the same way.
 *
 * It also remounts file systems before a jump (disks.h), and moves the clock after it
 * (clock-step.h), which takes rights that the agent is better without.
 *
 * One connection (SOCK_SEQPACKET) is one process, or one such act. The request for a process is a
 * memfd with the specification, and the descriptors; the answer a pidfd or an error; and when the
 * process has ended, how it did. The format is between two processes of one version: a number tells
 * them apart. The socket is for the user that the spawner runs as, and what comes is checked all
 * the same.
 */
#pragma once

#include <signal.h>

#include "common/error.h"
#include "vmm-glue/clock-step.h"
#include "vmm-glue/spawn.h"

/** hf_spawner_run() - Be the spawner, until SIGTERM. What it started lives on.
 * @path: of the socket to make; NULL: the one that systemd passes
 *
 * Return: 0 or -errno, @error filled.
 */
int hf_spawner_run(const char *path, struct hf_error *error);

/** hf_spawner_start() - The client's side: fill @child with a process, or fail as hf_spawn() does.
 */
int hf_spawner_start(const char *path, const struct hf_spawn_spec *spec, struct hf_child *child,
	struct hf_error *error);

/** hf_spawner_settle_disks() - hf_disks_settle_here(), by the spawner. Blocks. 0 or -errno. */
int hf_spawner_settle_disks(const char *path, bool settled, struct hf_error *error);

struct hf_spawner_call;

/**
 * typedef hf_spawner_greeted_fn - The spawner serves, or is gone.
 * @r:     0; -ENODATA when there was no target; else -errno, the clock was not moved
 * @clock: borrowed for the call, as is @error
 */
typedef void (*hf_spawner_greeted_fn)(
	int r, const struct hf_wall_clock *clock, const struct hf_error *error, void *data);

/**
 * hf_spawner_greet() - Wait for the spawner without blocking, and have it move the clock.
 * @target: all zero: there is none
 * @done:   called once, from the loop; with no time-out, because the spawner's unit waits for disks
 * @ret:    for hf_spawner_call_free(), which is allowed in @done
 *
 * Whatever it is asked to start afterwards, it starts after that. Return: 0, or -errno (then @done
 * isn't called), @error filled.
 */
int hf_spawner_greet(sd_event *event, const char *path, const struct hf_wall_clock_target *target,
	hf_spawner_greeted_fn done, void *data, struct hf_spawner_call **ret,
	struct hf_error *error);

/** hf_spawner_call_free() - No callback runs afterwards. NULL is fine. Return: NULL. */
struct hf_spawner_call *hf_spawner_call_free(struct hf_spawner_call *call);

/** hf_spawner_encode_greeting() - Return: bytes written; 0 when @size is too small. */
size_t hf_spawner_encode_greeting(
	const struct hf_wall_clock_target *target, void *buf, size_t size);

/** hf_spawner_decode_greeting() - 0; -EBADMSG; -EPROTONOSUPPORT when it is of another version. */
int hf_spawner_decode_greeting(const void *data, size_t size, struct hf_wall_clock_target *ret);

/** hf_spawner_take_status() - How the process ended, from the connection. Return: 0 or -errno. */
int hf_spawner_take_status(int conn, siginfo_t *ret);

/**
 * hf_spawner_encode() - A specification as bytes, without its descriptors but for their numbers.
 * @ret: owned by the caller
 */
int hf_spawner_encode(const struct hf_spawn_spec *spec, void **ret, size_t *ret_size);

/** struct hf_spawner_request - a specification that was decoded, and the memory it lies in. */
struct hf_spawner_request {
	struct hf_spawn_spec spec;
	struct hf_manifest_limits limits;
	struct hf_spawn_fd fds[64];
	bool has_output; /* the first descriptor that came is spec.output_fd */
	void *memory[8];
	size_t n_memory;
};

/**
 * hf_spawner_decode() - The other way round. Strings point into @data.
 *
 * Return: 0; -EBADMSG when it is no specification; -EPROTONOSUPPORT when it is of another version;
 * -ENOMEM. @ret is to be released in every case.
 */
int hf_spawner_decode(const void *data, size_t size, struct hf_spawner_request *ret);
void hf_spawner_request_release(struct hf_spawner_request *request);
