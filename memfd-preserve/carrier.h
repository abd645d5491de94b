/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Carriers: the ways for a file to get from this agent to its next self.
 *
 * `luo`: files stay in memory across a kexec (carrier-luo.c). `hold`: nothing leaves the kernel,
 * the keeper has the files while the agent starts itself anew (carrier-hold.c). `image`: files are
 * copied to local storage and back, across any reboot (carrier-image.c).
 *
 * A carrier deals in sessions, named groups of files that live and die together; each file has a
 * token in its session. A session is *outgoing* (created here, filled with preserve) or *incoming*
 * (retrieved by name, emptied with retrieve, ended with finish).
 *
 * Ownership: a struct hf_session owns its session fd, there is no other copy and no automatic
 * clean-up. It ends in exactly one of: hf_session_discard(), hf_session_finish(),
 * hf_session_detach(). Files passed in stay the caller's, files that come out are the caller's.
 *
 * Threads: every call may block for as long as the files are large. Calls on *different* sessions
 * of one carrier may run at the same time; calls on the *same* session must not.
 *
 * On failure every call fills the error, with a remedy where there is one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

struct hf_carrier;
struct hf_session;
struct hf_image_keys;

enum hf_carrier_kind {
	HF_CARRIER_LUO,
	HF_CARRIER_HOLD,
	HF_CARRIER_IMAGE,
};

/* Bytes of a session name, NUL included. Letters, digits and any of `-_.@+` only. */
#define HF_SESSION_NAME_BYTES 64

/**
 * hf_carrier_luo_new() - The carrier through kexec.
 * @device:      path of the device, NULL for /dev/liveupdate
 * @ret_carrier: freed with hf_carrier_free()
 *
 * Doesn't touch the device: ask hf_luo_available() first whether the host has it.
 */
int hf_carrier_luo_new(const char *device, struct hf_carrier **ret_carrier, struct hf_error *e);

/**
 * hf_carrier_hold_new() - The carrier through an execve of the agent, or its death.
 * @ret_carrier: freed with hf_carrier_free()
 *
 * Files cross only after hf_carrier_keep().
 */
int hf_carrier_hold_new(struct hf_carrier **ret_carrier, struct hf_error *e);

/** struct hf_carrier_image_config - for hf_carrier_image_new(). Nothing of it has to stay. */
struct hf_carrier_image_config {
	const char *folder;		  /* for images only, made with mode 0700 when needed */
	uint8_t machine[16];		  /* /etc/machine-id: images of others are refused */
	uint8_t boot[16];		  /* boot id; zero: what was handed over may come in on the
					   * same boot */
	const struct hf_image_keys *keys; /* copied, but for its data; NULL: there is no key */
};

/**
 * hf_carrier_image_new() - The carrier through any reboot.
 * @ret_carrier: freed with hf_carrier_free()
 *
 * Touches nothing until there are sessions.
 */
int hf_carrier_image_new(const struct hf_carrier_image_config *config,
	struct hf_carrier **ret_carrier, struct hf_error *e);

/**
 * hf_carrier_image_plaintext() - May images be not encrypted? Where there is a key they are all the
 * same. For sessions that are created, and retrieved, from here on. `image` only.
 */
void hf_carrier_image_plaintext(struct hf_carrier *c, bool allowed);

/**
 * hf_carrier_keep() - Have a keeper (keeper.h): sessions that came over outlive this process.
 * @socket_path: where the keeper is found by the next agent
 * @ret_found:   whether there was one: what came over before this process began can be had again
 *
 * With `luo` call it before there are threads. On failure the carrier is as before: with `luo`
 * sessions end with the process, with `hold` nothing can cross.
 */
int hf_carrier_keep(
	struct hf_carrier *c, const char *socket_path, bool *ret_found, struct hf_error *e);

/** hf_carrier_keeper() - The keeper's process, 0 when there is none. It may have guest RAM open. */
pid_t hf_carrier_keeper(const struct hf_carrier *c);

/**
 * hf_carrier_unkeep() - The arrival is over: nothing that came over is needed any more.
 *
 * With `luo` the keeper is left to end; with `hold` it forgets what it has and stays for the next
 * time. Does nothing twice. Not thread-safe.
 */
void hf_carrier_unkeep(struct hf_carrier *c);

/**
 * hf_carrier_free() - Free a carrier. NULL is fine.
 *
 * Its sessions must have ended before. What the keeper keeps, it keeps.
 */
void hf_carrier_free(struct hf_carrier *c);

/** hf_carrier_kind() - Which of the three it is. */
enum hf_carrier_kind hf_carrier_kind(const struct hf_carrier *c);

/** hf_carrier_name() - "luo", "hold" or "image". */
const char *hf_carrier_name(const struct hf_carrier *c);

/**
 * hf_carrier_hand_over() - Have all outgoing sessions go to the next agent.
 * @last: name of the session that goes last: an agent that finds it there finds all others, too
 *
 * From here on the next agent gets them, whatever becomes of this one. With `hold` the keeper has
 * them then, with `image` they are on disk, each sealed before; with `luo` it is the jump that does
 * it, and there is nothing to do. Return: 0; -ENOENT when there is no session @last; -ENOTSUP there
 * is no keeper; other -errno, and then the next agent gets none of them.
 */
int hf_carrier_hand_over(struct hf_carrier *c, const char *last, struct hf_error *e);

/**
 * hf_carrier_take_back() - Undo hf_carrier_hand_over(), @last first, also one of a dead agent's.
 *
 * Before any guest runs again: after that what was handed over is of the past. Return: 0, also when
 * nothing was handed over; -errno, and then the next agent may still get them.
 */
int hf_carrier_take_back(struct hf_carrier *c, const char *last, struct hf_error *e);

/**
 * hf_carrier_session_create() - Create an outgoing session.
 * @name:        1 to 63 bytes, see HF_SESSION_NAME_BYTES
 * @ret_session: ends with hf_session_discard() or with the jump
 *
 * Return: 0; -EEXIST; -EINVAL bad name; -EBUSY device taken too long; other -errno.
 */
int hf_carrier_session_create(struct hf_carrier *c, const char *name,
	struct hf_session **ret_session, struct hf_error *e);

/**
 * hf_carrier_session_retrieve() - Get an incoming session by name.
 *
 * Return: 0; -ENOENT no such session came over: a normal start (the error is filled all the same);
 * -EALREADY retrieved before; -ENODEV the carrier can't work on this host; other -errno.
 */
int hf_carrier_session_retrieve(struct hf_carrier *c, const char *name,
	struct hf_session **ret_session, struct hf_error *e);

/**
 * hf_carrier_session_adopt() - Make a session from a session fd that was kept elsewhere.
 * @fd:       from systemd's fd store; taken on success only
 * @incoming: whether it is one that hf_carrier_session_retrieve() gave
 *
 * `luo` only. The name is the kernel's. Return: 0; -EBADMSG not a session fd; -ENOTSUP.
 */
int hf_carrier_session_adopt(struct hf_carrier *c, int fd, bool incoming,
	struct hf_session **ret_session, struct hf_error *e);

/** hf_session_name() - Name, valid as long as the session. */
const char *hf_session_name(const struct hf_session *s);

/** hf_session_incoming() - Whether it was retrieved or adopted as such. */
bool hf_session_incoming(const struct hf_session *s);

/**
 * hf_session_fd() - The session's own fd, for systemd's fd store.
 *
 * Stays the session's; to be duplicated by sending it, never closed. -EBADF with `hold`.
 */
int hf_session_fd(const struct hf_session *s);

/**
 * hf_session_preserve() - Preserve a file in an outgoing session.
 * @token: any number, once a session
 * @fd:    stays the caller's
 *
 * From here until the session ends the file can't change its size (with `luo`).
 * Return: 0; -EALREADY the same file (dev and inode) is preserved by this carrier; -EEXIST token in
 * use; -EOPNOTSUPP a kind of file that can't be preserved; other -errno.
 */
int hf_session_preserve(struct hf_session *s, uint64_t token, int fd, struct hf_error *e);

/**
 * hf_session_copy() - Copy what was preserved, while guests go on writing to it.
 *
 * Makes hf_session_seal() faster, with `image`; others have nothing to do. May be repeated.
 * @ret_changed: bytes that this call wrote; may be NULL
 */
int hf_session_copy(struct hf_session *s, uint64_t *ret_changed, struct hf_error *e);

/**
 * hf_session_seal() - What was preserved is as it is to arrive: nobody writes to it any more.
 *
 * With `image` everything is on disk for good when this returns; others have nothing to do. To be
 * undone by discarding the session only.
 */
int hf_session_seal(struct hf_session *s, struct hf_error *e);

/**
 * hf_session_retrieve() - Get a file back from an incoming session.
 * @ret_fd: close-on-exec, owned by the caller. Its file offset is where it was left.
 *
 * May be repeated. Return: 0; -ENOENT no such token; other -errno, which is final.
 */
int hf_session_retrieve(struct hf_session *s, uint64_t token, int *ret_fd, struct hf_error *e);

/**
 * hf_session_spend() - The guest of an incoming session is about to run: never bring it up again.
 *
 * With `image`, from its return on no agent retrieves files from it, on this boot or a later one;
 * with others the session ends with this kernel anyway. Return: 0; -errno, and then it must not
 * run.
 */
int hf_session_spend(struct hf_session *s, struct hf_error *e);

/**
 * hf_session_finish() - End an incoming session for good. IRREVERSIBLE.
 *
 * What was not retrieved is freed: guest RAM is lost for ever. Call it when the guest is healthy,
 * or when the manifest is no longer needed. On success @s is freed; on failure it is as before.
 */
int hf_session_finish(struct hf_session *s, struct hf_error *e);

/**
 * hf_session_discard() - Undo hf_carrier_session_create(). IRREVERSIBLE.
 *
 * Everything preserved in an outgoing session is no longer, in reverse order; the files themselves
 * go on as the caller's. @s is freed. Must not be called on an incoming session, where it would
 * mean the loss of the guest: there it does nothing but detach. NULL is fine.
 */
void hf_session_discard(struct hf_session *s);

/**
 * hf_session_detach() - Forget a session and leave its fd open until the process ends.
 *
 * For a guest that must stay held after a failure while its bookkeeping goes. @s is freed, the
 * session fd (with `hold`: the files) stays open.
 */
void hf_session_detach(struct hf_session *s);
