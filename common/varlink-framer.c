/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Varlink messages out of a stream of bytes. Pure: no I/O, no clock.
 *
 * Every byte is looked at once for the NUL that ends a message, however it arrives in pieces.
 */
#include "common/varlink.h"

#include <string.h>

#define FRAMER_MIN_ROOM 4096

static int framer_grow(struct hf_varlink_framer *f, size_t need)
{
	size_t room = HF_MAX(f->room, (size_t)FRAMER_MIN_ROOM);
	char *buf;

	while (room < need)
		room *= 2;
	if (room == f->room)
		return 0;
	buf = realloc(f->buf, room);
	if (!buf)
		return -ENOMEM;
	f->buf = buf;
	f->room = room;
	return 0;
}

int hf_varlink_framer_push(struct hf_varlink_framer *f, const void *data, size_t size)
{
	size_t pending = f->end - f->start;
	const char *nul;
	int r;

	if (size == 0)
		return 0;
	/* Moving costs no more than the copying of what made room for it. */
	if (f->start > 0 && f->start >= pending) {
		memmove(f->buf, f->buf + f->start, pending);
		f->scan -= f->start;
		f->start = 0;
		f->end = pending;
	}
	r = framer_grow(f, f->end + size);
	if (r < 0)
		return r;
	memcpy(f->buf + f->end, data, size);
	f->end += size;

	nul = memchr(f->buf + f->scan, 0, f->end - f->scan);
	f->scan = nul ? (size_t)(nul - f->buf) : f->end;
	return f->scan - f->start > f->limit ? -EBADMSG : 0;
}

int hf_varlink_framer_pop(struct hf_varlink_framer *f, struct json_object **ret)
{
	const char *nul;
	int r;

	/* @scan is at the NUL that ends the first message, or at the end of what there is of it. */
	if (f->scan - f->start > f->limit)
		return -EBADMSG;
	if (f->scan == f->end)
		return 0;
	r = hf_json_parse(f->buf + f->start, f->scan - f->start, HF_VARLINK_MAX_DEPTH, ret);
	if (r < 0)
		return r;
	f->start = f->scan + 1;
	if (f->start == f->end) {
		/* Most of the time there is nothing to keep: idle clients cost no buffer. */
		hf_varlink_framer_clear(f);
		return 1;
	}
	nul = memchr(f->buf + f->start, 0, f->end - f->start);
	f->scan = nul ? (size_t)(nul - f->buf) : f->end;
	return 1;
}

void hf_varlink_framer_clear(struct hf_varlink_framer *f)
{
	free(f->buf);
	*f = (struct hf_varlink_framer){.limit = f->limit};
}
