/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QMP framing: bytes in, JSON objects out.
 *
 * Pure: no I/O, no clock, no state but what was pushed. The peer is untrusted, so size, nesting and
 * number of values of a message are bounded *before* anything is allocated for its contents.
 *
 * QEMU ends each message with CRLF, but with `pretty=on` it spreads one message over many lines; so
 * the framer goes by brackets, and takes any white space between messages.
 */
#pragma once

#include <stddef.h>

struct json_object;
struct hf_qmp_framer;

#define HF_QMP_MAX_MESSAGE_BYTES (8u << 20)
#define HF_QMP_MAX_DEPTH 64u
#define HF_QMP_MAX_VALUES 65536u

/** struct hf_qmp_limits - what one message may be. A field of 0 takes the default above. */
struct hf_qmp_limits {
	size_t message_bytes; /* from its first bracket to its last */
	unsigned int depth;   /* objects and arrays within each other; 1: a flat object */
	unsigned int values;  /* members and elements, all levels together */
};

/**
 * hf_qmp_framer_new() - Make a framer.
 * @limits: limits, NULL for the defaults
 * @ret:    the framer, owned by the caller
 *
 * Return: 0 or -ENOMEM.
 */
int hf_qmp_framer_new(const struct hf_qmp_limits *limits, struct hf_qmp_framer **ret);

/** hf_qmp_framer_free() - Free a framer with all it holds; NULL is fine. Return: NULL. */
struct hf_qmp_framer *hf_qmp_framer_free(struct hf_qmp_framer *f);

/**
 * hf_qmp_framer_push() - Give the framer bytes, as they came.
 * @f:    framer
 * @data: bytes, copied
 * @size: how many
 *
 * The caller takes all messages out before it pushes more: what is held back is bounded by one
 * message and one push. Return: 0, -ENOMEM, or the error that the stream already broke with.
 */
int hf_qmp_framer_push(struct hf_qmp_framer *f, const void *data, size_t size);

/**
 * hf_qmp_framer_next() - Take the next whole message out.
 * @f:   framer
 * @ret: a JSON object, owned by the caller (json_object_put())
 *
 * Return: 1 with a message, 0 when more bytes are needed, -EBADMSG for what is no JSON object,
 * -EMSGSIZE for a message over a limit, -ENOMEM. Errors are final: a broken stream has no next
 * message.
 */
int hf_qmp_framer_next(struct hf_qmp_framer *f, struct json_object **ret);
