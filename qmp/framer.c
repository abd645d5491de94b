/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QMP framing.
 *
 * Two passes: a scanner that looks at each byte once, however the stream was cut, and only knows
 * brackets and strings; then json-c on the whole message that it found. Limits are checked by the
 * scanner, so json-c, whose objects cost some hundred bytes for an input of two, never sees a
 * message that breaks one.
 *
 * Ownership: the framer owns its buffer. It gives memory back after a large message, as an agent
 * with many guests must not keep megabytes for each.
 */
#include "qmp/framer.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"

/* A buffer beyond this is freed once it is empty. */
#define KEEP_BYTES (64u << 10)

struct hf_qmp_framer {
	struct hf_qmp_limits limits;
	char *buf;
	size_t room;
	size_t start; /* first byte not handed out yet */
	size_t scan;  /* first byte not looked at yet */
	size_t end;
	unsigned int depth;
	unsigned int values;
	bool in_string;
	bool escaped;
	int err; /* the stream is broken for good */
};

int hf_qmp_framer_new(const struct hf_qmp_limits *limits, struct hf_qmp_framer **ret)
{
	struct hf_qmp_framer *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	if (limits)
		f->limits = *limits;
	if (!f->limits.message_bytes)
		f->limits.message_bytes = HF_QMP_MAX_MESSAGE_BYTES;
	/* json-c counts bytes in an int. */
	f->limits.message_bytes = HF_MIN(f->limits.message_bytes, (size_t)INT_MAX / 2);
	if (!f->limits.depth)
		f->limits.depth = HF_QMP_MAX_DEPTH;
	/* json-c frees nested objects by recursion: never let a caller ask for a stack overflow. */
	f->limits.depth = HF_MIN(f->limits.depth, 1024u);
	if (!f->limits.values)
		f->limits.values = HF_QMP_MAX_VALUES;
	*ret = f;
	return 0;
}

struct hf_qmp_framer *hf_qmp_framer_free(struct hf_qmp_framer *f)
{
	if (f) {
		free(f->buf);
		free(f);
	}
	return NULL;
}

static int make_room(struct hf_qmp_framer *f, size_t size)
{
	size_t room;
	char *buf;

	if (f->start) {
		memmove(f->buf, f->buf + f->start, f->end - f->start);
		f->scan -= f->start;
		f->end -= f->start;
		f->start = 0;
	}
	if (size > SIZE_MAX / 2 - f->end)
		return -ENOMEM;
	if (f->end + size <= f->room)
		return 0;
	room = HF_MAX(f->end + size, HF_MAX(f->room * 2, (size_t)4096));
	buf = realloc(f->buf, room);
	if (!buf)
		return -ENOMEM;
	f->buf = buf;
	f->room = room;
	return 0;
}

int hf_qmp_framer_push(struct hf_qmp_framer *f, const void *data, size_t size)
{
	int r;

	if (f->err)
		return f->err;
	if (!size)
		return 0;
	if (f->end + size > f->room || f->end + size < f->end) {
		r = make_room(f, size);
		if (r < 0)
			return r;
	}
	memcpy(f->buf + f->end, data, size);
	f->end += size;
	return 0;
}

/* Between messages: white space, or the first bracket of the next. */
static int scan_outside(struct hf_qmp_framer *f, char c)
{
	switch (c) {
	case ' ':
	case '\t':
	case '\r':
	case '\n':
		f->start = f->scan + 1;
		return 0;
	case '{':
		f->depth = 1;
		f->values = 1;
		return 0;
	default:
		return -EBADMSG;
	}
}

static int scan_string(struct hf_qmp_framer *f, char c)
{
	/* JSON has no raw control characters in strings; json-c would take some, and stop at a NUL.
	 */
	if ((unsigned char)c < ' ')
		return -EBADMSG;
	if (f->escaped)
		f->escaped = false;
	else if (c == '\\')
		f->escaped = true;
	else if (c == '"')
		f->in_string = false;
	return 0;
}

/* Inside a message, outside its strings. Return: 1 when it is complete, 0, or -errno. */
static int scan_inside(struct hf_qmp_framer *f, char c)
{
	switch (c) {
	case '"':
		f->in_string = true;
		return 0;
	case '{':
	case '[':
		if (++f->depth > f->limits.depth)
			return -EMSGSIZE;
		/* fall through */
	case ',':
		return ++f->values > f->limits.values ? -EMSGSIZE : 0;
	case '}':
	case ']':
		/* Whether the brackets match in kind, json-c finds out. */
		return --f->depth == 0;
	case ':':
	case '+':
	case '-':
	case '.':
	case ' ':
	case '\t':
	case '\r':
	case '\n':
		return 0;
	default:
		/*
		 * Numbers, true, false, null. json-c, even when strict, takes strings in single
		 * quotes, whose brackets would not have been told from real ones here.
		 */
		return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == 'E' ? 0 : -EBADMSG;
	}
}

/* Return: 1 when [start, scan) is one message, 0 when more bytes are needed, or -errno. */
static int scan(struct hf_qmp_framer *f)
{
	int r;

	for (; f->scan < f->end; f->scan++) {
		char c = f->buf[f->scan];

		if (!f->depth)
			r = scan_outside(f, c);
		else if (f->in_string)
			r = scan_string(f, c);
		else
			r = scan_inside(f, c);
		if (r < 0)
			return r;
		if (f->depth || r > 0) {
			if (f->scan + 1 - f->start > f->limits.message_bytes)
				return -EMSGSIZE;
		}
		if (r > 0) {
			f->scan++;
			return 1;
		}
	}
	return 0;
}

static void drop_if_empty(struct hf_qmp_framer *f)
{
	if (f->start != f->end)
		return;
	f->start = f->scan = f->end = 0;
	if (f->room > KEEP_BYTES) {
		free(f->buf);
		f->buf = NULL;
		f->room = 0;
	}
}

int hf_qmp_framer_next(struct hf_qmp_framer *f, struct json_object **ret)
{
	struct json_object *obj = NULL;
	int r;

	if (f->err)
		return f->err;
	r = scan(f);
	if (r > 0) {
		/* One level to spare: the scanner has already judged the depth. */
		int p = hf_json_parse(
			f->buf + f->start, f->scan - f->start, (int)f->limits.depth + 1, &obj);

		r = p < 0 ? p : 1;
		f->start = f->scan;
	}
	if (r < 0) {
		f->err = r;
		return r;
	}
	drop_if_empty(f);
	if (r > 0)
		*ret = obj;
	return r;
}
