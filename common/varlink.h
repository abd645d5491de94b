/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Varlink, both ends: https://varlink.org
 *
 * On the wire a message is one JSON object followed by a NUL byte. A client sends calls, the server
 * answers them in order. Three parts, each of use without the others:
 *
 *  - the framer: bytes in, JSON objects out. Pure, for both ends, made for hostile input.
 *  - the server: on an sd-event loop, never blocks, limits everything that a client controls.
 *  - the client: blocking, for the command line.
 *
 * Ownership: a JSON object given as `params` to reply, notify, error or call is consumed in every
 * case, success or not. A JSON object handed to a handler or callback is borrowed.
 *
 * Who may call: reading methods anybody who can open the socket, methods flagged
 * HF_VARLINK_MUTATING only root and the user the server runs as, and whom the server's authorise
 * function lets.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

#include "common/error.h"
#include "common/json.h"

#define HF_VARLINK_SOCKET "/run/holdfast/control.sock"
#define HF_VARLINK_SOCKET_ENV "HOLDFAST_SOCKET"

/* Limits. A server's client is not trusted; a client trusts its server with more. */
#define HF_VARLINK_MAX_IN (1024 * 1024)		/* bytes in one message to a server */
#define HF_VARLINK_MAX_REPLY (64 * 1024 * 1024) /* bytes in one message to a client */
#define HF_VARLINK_MAX_OUT (4 * 1024 * 1024)	/* bytes a client may leave unread */
#define HF_VARLINK_MAX_DEPTH 32			/* nesting of a message */
#define HF_VARLINK_MAX_CLIENTS 64

/* ---- framer ---- */

/** struct hf_varlink_framer - bytes not yet made into messages. Zero-initialise but for @limit. */
struct hf_varlink_framer {
	size_t limit; /* largest message in bytes */
	char *buf;
	size_t start; /* first byte not consumed */
	size_t end;   /* behind the last byte */
	size_t scan;  /* no NUL between start and here */
	size_t room;  /* allocated bytes */
};

/**
 * hf_varlink_framer_push() - Add bytes that arrived. They are copied.
 *
 * Return: 0, -EBADMSG when the unfinished message is over the limit, -ENOMEM.
 */
int hf_varlink_framer_push(struct hf_varlink_framer *f, const void *data, size_t size);

/**
 * hf_varlink_framer_pop() - Take out the next whole message.
 * @f:   framer
 * @ret: the message, an object, owned by the caller
 *
 * Return: 1 with a message, 0 when more bytes are needed, -EBADMSG when it is no JSON object, is
 * not UTF-8, nests too deep or is too long, -ENOMEM. After an error the stream can't be used any
 * more.
 */
int hf_varlink_framer_pop(struct hf_varlink_framer *f, struct json_object **ret);

/** hf_varlink_framer_clear() - Free what it holds; the limit stays. */
void hf_varlink_framer_clear(struct hf_varlink_framer *f);

/* ---- server ---- */

struct hf_varlink_server;
struct hf_varlink_call;

#define HF_VARLINK_MUTATING (1u << 0) /* only root (or the server's own user) may call it */
#define HF_VARLINK_MORE (1u << 1)     /* only with `more`, else error ExpectedMore */

/**
 * struct hf_varlink_method - a method and who answers it.
 * @name:    without the interface
 * @handler: called on the loop. @params is borrowed and never NULL. It replies before it returns,
 * or takes a reference of @call and replies later. NULL: MethodNotImplemented.
 * @flags:   HF_VARLINK_*
 */
struct hf_varlink_method {
	const char *name;
	void (*handler)(struct hf_varlink_call *call, struct json_object *params, void *userdata);
	unsigned int flags;
};

/**
 * struct hf_varlink_interface - an interface with its definition.
 * @name:        e.g. "org.holdfast.Host"; errors of its methods are named after it
 * @description: text of its .varlink file
 * @methods:     table ended by a NULL name
 */
struct hf_varlink_interface {
	const char *name;
	const char *description;
	const struct hf_varlink_method *methods;
};

/**
 * struct hf_varlink_server_options - what a server is made from. Nothing is copied: all of it must
 * stay alive as long as the server.
 * @path:       where to listen. A socket left there by a dead process is replaced. Mode 0666: the
 *              server itself decides by the peer's credentials who may do what.
 * @listen_fd:  with a NULL @path: a listening socket, taken over, on failure too
 * @vendor:     for GetInfo, as @product, @version and @url
 * @interfaces: table ended by a NULL name; org.varlink.service is built in
 * @userdata:   for every handler
 * @max_clients: 0: HF_VARLINK_MAX_CLIENTS
 * @max_out:    0: HF_VARLINK_MAX_OUT
 * @peer_uid:   NULL, or replaces the question to the kernel who a client is (for tests)
 * @authorise:  NULL, or asked when anybody else than root and the server's own user calls a
 * mutating method, before anything is looked at in its parameters. Called on the loop, and must not
 * block: it takes a reference of the call, returns 0, and later answers with an error or has it
 * carried out by hf_varlink_call_proceed(). Returns -errno, without a reference, to have it refused
 * as without this function.
 */
struct hf_varlink_server_options {
	const char *path;
	int listen_fd;
	const char *vendor;
	const char *product;
	const char *version;
	const char *url;
	const struct hf_varlink_interface *interfaces;
	void *userdata;
	unsigned int max_clients;
	size_t max_out;
	int (*peer_uid)(int fd, void *userdata, uid_t *ret_uid);
	int (*authorise)(struct hf_varlink_call *call, const char *method, void *userdata);
};

/**
 * hf_varlink_server_new() - Listen and serve on a loop.
 *
 * Return: 0; -EADDRINUSE when somebody answers at the path; another -errno.
 */
int hf_varlink_server_new(sd_event *event, const struct hf_varlink_server_options *options,
	struct hf_varlink_server **ret);

/**
 * hf_varlink_server_free() - Close every connection and the socket, and unlink its path.
 *
 * Unanswered calls get their gone callback and stay valid for those who hold a reference. NULL is
 * fine. Must not be called from a handler or callback of the same server. Return: NULL.
 */
struct hf_varlink_server *hf_varlink_server_free(struct hf_varlink_server *server);

/** hf_varlink_server_add() - Serve a connected stream socket too. Takes @fd, on failure too. */
int hf_varlink_server_add(struct hf_varlink_server *server, int fd);

/**
 * hf_varlink_server_flush() - Push out what is waiting to be sent, without the loop.
 * @timeout_ns: how long to wait for slow clients at most
 *
 * For the last words before a jump. Return: 0, -ETIMEDOUT when some of it is still there.
 */
int hf_varlink_server_flush(struct hf_varlink_server *server, uint64_t timeout_ns);

/** hf_varlink_call_ref() - Keep a call for later. Return: @call. */
struct hf_varlink_call *hf_varlink_call_ref(struct hf_varlink_call *call);

/**
 * hf_varlink_call_unref() - Drop a reference. NULL is fine. Return: NULL.
 *
 * When nobody holds a call that was not answered, the client gets error Failed, so that a mistake
 * here never leaves it waiting.
 */
struct hf_varlink_call *hf_varlink_call_unref(struct hf_varlink_call *call);

static inline void hf_cleanup_varlink_call_unrefp(struct hf_varlink_call **p)
{
	hf_varlink_call_unref(*p);
}
#define cleanup_varlink_call HF_CLEANUP(hf_cleanup_varlink_call_unrefp)

/**
 * hf_varlink_call_reply() - The final reply.
 * @params: consumed; NULL: no parameters
 *
 * Once answered, by this or by an error, later replies are dropped: the first wins. Harmless when
 * the client is gone.
 */
void hf_varlink_call_reply(struct hf_varlink_call *call, struct json_object *params);

/**
 * hf_varlink_call_notify() - One reply of several, with `continues`.
 * @params: consumed
 *
 * Nothing happens when the client did not ask for `more`, was answered already or is gone.
 */
void hf_varlink_call_notify(struct hf_varlink_call *call, struct json_object *params);

/**
 * hf_varlink_call_error() - Answer with an error of the call's own interface.
 * @e:     gives name, message, remedy and guest; an unset one counts as Failed
 * @extra: more parameters, consumed; or NULL
 */
void hf_varlink_call_error(
	struct hf_varlink_call *call, const struct hf_error *e, struct json_object *extra);

/** hf_varlink_call_errno() - Answer that something failed, as "WHAT: why". */
void hf_varlink_call_errno(struct hf_varlink_call *call, int err, const char *what);

/** hf_varlink_call_invalid() - Answer with org.varlink.service.InvalidParameter. */
void hf_varlink_call_invalid(struct hf_varlink_call *call, const char *parameter);

/**
 * hf_varlink_call_dispatch() - hf_json_dispatch(), answering with InvalidParameter on failure.
 * @obj: the parameters, or an object in them
 *
 * Return: 0; -EINVAL when the call has been answered and the handler has to return.
 */
int hf_varlink_call_dispatch(
	struct hf_varlink_call *call, struct json_object *obj, const struct hf_json_field *fields);

/** hf_varlink_call_wants_more() - Did the client ask for several replies? */
bool hf_varlink_call_wants_more(const struct hf_varlink_call *call);

/** hf_varlink_call_is_open() - Is anybody still waiting for the answer? */
bool hf_varlink_call_is_open(const struct hf_varlink_call *call);

/** hf_varlink_call_peer_uid() - Who is asking. */
uid_t hf_varlink_call_peer_uid(const struct hf_varlink_call *call);

/**
 * hf_varlink_call_peer_process() - The process that connected, if it still lives.
 * @ret_pid:         its number
 * @ret_start_ticks: when it was started, see hf_pid_start_time(): together they name no other one
 *
 * Others may have the socket by now, too. Only for callers that are neither root nor the server's
 * own user. Return: 0; -ESRCH when it has ended, or the client is gone; -errno.
 */
int hf_varlink_call_peer_process(
	const struct hf_varlink_call *call, pid_t *ret_pid, uint64_t *ret_start_ticks);

/**
 * hf_varlink_call_proceed() - Carry out a call that the authorise function took.
 *
 * Nothing happens when the client is gone, or was answered meanwhile.
 */
void hf_varlink_call_proceed(struct hf_varlink_call *call);

/**
 * hf_varlink_call_on_gone() - Be told when the client vanishes before it was answered. Never
 * happens to a `oneway` call, whose client does not wait.
 * @gone: called once at most, on the loop, never from within another function of this header
 *        except hf_varlink_server_free(). NULL: no more.
 *
 * Holds no reference: take one (a call that nobody holds is answered, see hf_varlink_call_unref()).
 */
void hf_varlink_call_on_gone(struct hf_varlink_call *call,
	void (*gone)(struct hf_varlink_call *call, void *userdata), void *userdata);

/* ---- client ---- */

struct hf_varlink_client;

/**
 * hf_varlink_client_connect() - Connect to a server.
 * @path: socket; NULL: $HOLDFAST_SOCKET, else HF_VARLINK_SOCKET
 * @ret:  the client
 * @e:    filled on failure; may be NULL
 *
 * Return: 0; -ENOENT or -ECONNREFUSED when nobody serves there (HostNotReady), -EACCES
 * (NotPermitted), or another -errno.
 */
int hf_varlink_client_connect(const char *path, struct hf_varlink_client **ret, struct hf_error *e);

/** hf_varlink_client_free() - Close. NULL is fine. Return: NULL. */
struct hf_varlink_client *hf_varlink_client_free(struct hf_varlink_client *client);

static inline void hf_cleanup_varlink_client_freep(struct hf_varlink_client **p)
{
	hf_varlink_client_free(*p);
}
#define cleanup_varlink_client HF_CLEANUP(hf_cleanup_varlink_client_freep)

/**
 * hf_varlink_client_call() - Call a method and wait for its final reply.
 * @method:   with interface
 * @params:   consumed; NULL: none
 * @on_reply: NULL, or called for each reply that has more behind it, then `more` is asked for. A
 *            negative result ends the call with it (and the connection is of no use any more).
 * @userdata: for @on_reply
 * @ret:      parameters of the final reply, owned by the caller. On an error that the server sent:
 *            the error's parameters. May be NULL.
 * @e:        filled on failure: for an error the server sent, its name without interface, message,
 *            remedy and guest; may be NULL
 *
 * Return: 0; -ECONNRESET when the connection ended first; -EREMOTEIO for an error that the server
 * sent; -EBADMSG for nonsense; another -errno. *@ret is set (an object) with 0 and -EREMOTEIO only.
 */
int hf_varlink_client_call(struct hf_varlink_client *client, const char *method,
	struct json_object *params, int (*on_reply)(struct json_object *params, void *userdata),
	void *userdata, struct json_object **ret, struct hf_error *e);
