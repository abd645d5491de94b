/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A QMP connection on an sd-event loop.
 *
 * States: connecting → greeting → negotiating → ready → closed. Nothing here blocks.
 *
 * - Commands may be submitted in any state but closed: they wait for the greeting and go out right
 *   behind `qmp_capabilities`, without a round trip between.
 * - Callbacks run from the loop only, never from within a call of this interface. Inside any of
 *   them the connection may be used, closed or freed.
 * - Each submitted command's callback runs exactly once: reply, QMP error, time-out or loss of the
 *   connection; unless hf_qmp_cancel() or hf_qmp_free() forbade it, and then never.
 * - Replies are matched by `id`. A reply to a command that timed out or was cancelled is dropped
 *   silently, a second one to the same command too; one with an id that was never given out, or
 *   with none, breaks the connection (-EBADMSG), as does any message that is not QMP.
 * - Events are handed over as they arrive, none is queued. One turn of the loop reads a bounded
 *   number of bytes of a connection, so that a flood in one leaves the others alive.
 *
 * Ownership: the creator owns the struct hf_qmp and ends it by hf_qmp_free(). Arguments handed to
 * callbacks live until the callback returns; take a reference (json_object_get()) to keep JSON.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "qmp/framer.h"

struct json_object;
struct hf_qmp;

enum hf_qmp_state {
	HF_QMP_CONNECTING,  /* no socket yet */
	HF_QMP_GREETING,    /* connected, QEMU has said nothing yet */
	HF_QMP_NEGOTIATING, /* qmp_capabilities sent */
	HF_QMP_READY,
	HF_QMP_CLOSED,
};

/** hf_qmp_state_name() - A word for it, for people and logs. */
const char *hf_qmp_state_name(enum hf_qmp_state state);

/** struct hf_qmp_version - what the greeting says. All 0 before it. */
struct hf_qmp_version {
	unsigned int major, minor, micro;
	char package[64]; /* the distribution's own version, or "" */
};

/**
 * struct hf_qmp_ops - what the owner hears about. Any may be NULL.
 * @ready:  negotiated; the version is known. At most once.
 * @event:  an event: its name, its data (NULL when it has none) and the wall-clock time QEMU put
 *          on it in microseconds since the epoch (0 when it had none).
 * @closed: the connection failed or was lost: at most once, after the callbacks of all outstanding
 *          commands, and the last call ever. Not called for the owner's own hf_qmp_close().
 */
struct hf_qmp_ops {
	void (*ready)(struct hf_qmp *q, void *userdata);
	void (*event)(struct hf_qmp *q, const char *name, struct json_object *data,
		uint64_t timestamp_us, void *userdata);
	void (*closed)(struct hf_qmp *q, int err, const struct hf_error *reason, void *userdata);
};

/**
 * typedef hf_qmp_reply_fn - the outcome of a command.
 * @q:     connection
 * @err:   0, or: -ETIMEDOUT; -ECONNRESET when the connection was lost or closed; for an error that
 *         QEMU answered with, -EOPNOTSUPP (CommandNotFound, KVMMissingCap), -ENODEV
 *         (DeviceNotFound, DeviceNotActive), -EREMOTEIO (any other)
 * @ret:   the `return` value, NULL on error
 * @error: the error with the command's name and QEMU's own words, NULL on success
 * @data:  as submitted
 */
typedef void (*hf_qmp_reply_fn)(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data);

#define HF_QMP_TIMEOUT_NEVER UINT64_MAX
#define HF_QMP_TIMEOUT_DEFAULT 0 /* 10 seconds */

/* The socket may not exist, or nobody listen on it, yet: keep trying until the time-out. */
#define HF_QMP_WAIT_SOCKET (1u << 0)

/**
 * hf_qmp_connect() - Connect to a monitor's UNIX socket.
 * @event:      loop; a reference is kept
 * @path:       the socket
 * @flags:      0 or HF_QMP_WAIT_SOCKET. Waiting follows the folder by inotify and retries every
 *              millisecond once the socket is there, as it is spent inside the blackout.
 * @timeout_ns: for everything up to ready; HF_QMP_TIMEOUT_*
 * @ops:        callbacks, static
 * @userdata:   handed to them
 * @ret:        the connection, owned by the caller
 * @error:      filled on failure, may be NULL
 *
 * Later failures come through ops->closed: -ENOENT or -ECONNREFUSED when no socket came in time,
 * -EBUSY when it is connected but silent (QEMU serves one client a monitor and greets the next one
 * only when the first leaves), -ETIMEDOUT when it greeted but didn't answer `qmp_capabilities`,
 * -EBADMSG, -EMSGSIZE, -ECONNRESET.
 *
 * Return: 0 (on the way), -ENOENT, -ECONNREFUSED, -EACCES … from connect(2), -ENAMETOOLONG or
 * -ENOMEM.
 */
int hf_qmp_connect(sd_event *event, const char *path, unsigned int flags, uint64_t timeout_ns,
	const struct hf_qmp_ops *ops, void *userdata, struct hf_qmp **ret, struct hf_error *error);

/**
 * hf_qmp_attach_fd() - Speak QMP over a connected stream socket.
 * @fd:    one end of a socketpair whose other end QEMU has (`-chardev socket,fd=N`), or an accepted
 *         connection; taken over, on failure too
 * @label: what messages call it, in place of the path
 *
 * Other arguments, and later failures, as in hf_qmp_connect(); but silence is -ETIMEDOUT, as no
 * other client can be in the way. There is nothing to wait for but the greeting. Return: 0 or
 * -errno.
 */
int hf_qmp_attach_fd(sd_event *event, int fd, const char *label, uint64_t timeout_ns,
	const struct hf_qmp_ops *ops, void *userdata, struct hf_qmp **ret, struct hf_error *error);

/**
 * hf_qmp_free() - End a connection. NULL is fine.
 *
 * Closes the socket (QEMU runs on). No callback runs afterwards: those of outstanding commands are
 * dropped. Allowed in any callback. Return: NULL.
 */
struct hf_qmp *hf_qmp_free(struct hf_qmp *q);

/**
 * hf_qmp_close() - Close the socket but keep the object.
 *
 * Outstanding commands are called back from the loop with -ECONNRESET; ops->closed is not.
 */
void hf_qmp_close(struct hf_qmp *q);

static inline void hf_qmp_freep(struct hf_qmp **q)
{
	hf_qmp_free(*q);
}
#define cleanup_qmp HF_CLEANUP(hf_qmp_freep)

/**
 * hf_qmp_command() - Submit a command.
 * @q:          connection, in any state but closed
 * @name:       e.g. "query-status"
 * @args:       its arguments, a JSON object or NULL; the reference is consumed, on failure too
 * @fd:         a descriptor to go with it (SCM_RIGHTS, on its first byte), or -EBADF. Stays the
 *              caller's, who may close it at once. QEMU keeps only the newest descriptor it was
 *              sent, so a command with one waits until the one before it with one is answered, and
 *              everything submitted later waits behind it: the order of commands is kept.
 * @timeout_ns: from now to the reply; HF_QMP_TIMEOUT_*
 * @fn:         callback, NULL when nobody cares
 * @data:       handed to it
 * @ret_id:     names the command for hf_qmp_cancel(), may be NULL. Never 0.
 *
 * Any number may be outstanding, up to limits that only a bug reaches (-ENOBUFS: 1024 commands or
 * 16 MiB unsent).
 *
 * Return: 0 (then @fn is called, once), -ENOTCONN when closed, -ENOBUFS, -ENOMEM, or an errno of
 * fcntl(2) for @fd (then it is not).
 */
int hf_qmp_command(struct hf_qmp *q, const char *name, struct json_object *args, int fd,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/**
 * hf_qmp_cancel() - Forget a command: its callback won't run, its reply is swallowed.
 *
 * QEMU may carry it out all the same, unless none of it had been sent yet.
 * Return: 0, or -ENOENT when it is not outstanding (any more).
 */
int hf_qmp_cancel(struct hf_qmp *q, uint64_t id);

/** hf_qmp_get_state() - Where the connection is. */
enum hf_qmp_state hf_qmp_get_state(const struct hf_qmp *q);

/**
 * hf_qmp_peer_pid() - The process that listens on the socket, or made the pair. 0: not known.
 *
 * Whose monitor it is, before anything is done through it that can't be taken back.
 */
pid_t hf_qmp_peer_pid(const struct hf_qmp *q);

/** hf_qmp_get_version() - QEMU's version, never NULL; zeros before the greeting. */
const struct hf_qmp_version *hf_qmp_get_version(const struct hf_qmp *q);

/** hf_qmp_at_least() - Whether QEMU is of this version or newer; false before the greeting. */
bool hf_qmp_at_least(const struct hf_qmp *q, unsigned int major, unsigned int minor);

/** hf_qmp_label() - Path or label that it was made with, for messages. */
const char *hf_qmp_label(const struct hf_qmp *q);
