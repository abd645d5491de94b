/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Fuzzes a whole QMP connection: the input is what the peer says.
 *
 * A first byte above 127 has the greeting come before it. The second says what callbacks do:
 * nothing, submit more, cancel, close, or free the connection from inside. Whatever comes, each
 * command's callback runs once at most, and exactly once when nobody forbade it.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qmp/commands.h"
#include "qmp/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_COMMANDS 16

static const char greeting[] =
	"{\"QMP\":{\"version\":{\"qemu\":{\"micro\":0,\"minor\":0,\"major\":10}}}}\n";

struct state {
	struct hf_qmp *q;
	unsigned int mode;
	unsigned int n_submitted;
	unsigned int n_calls[MAX_COMMANDS];
	uint64_t ids[MAX_COMMANDS];
	bool cancelled[MAX_COMMANDS];
	bool freed;
	unsigned int n_closed;
	struct slot {
		struct state *s;
		unsigned int i;
	} slots[MAX_COMMANDS];
};

static void submit(struct state *s);

static void act(struct state *s)
{
	unsigned int i;

	switch (s->mode % 6) {
	case 1:
		submit(s);
		break;
	case 2:
		hf_qmp_close(s->q);
		break;
	case 3:
		s->freed = true;
		s->q = hf_qmp_free(s->q);
		break;
	case 4:
		for (i = 0; i < s->n_submitted; i++)
			if (hf_qmp_cancel(s->q, s->ids[i]) == 0)
				s->cancelled[i] = true;
		break;
	case 5:
		submit(s);
		if (s->n_submitted == MAX_COMMANDS)
			s->mode = 3;
		break;
	}
}

static void on_reply(struct hf_qmp *q, int err, struct json_object *ret,
	const struct hf_error *error, void *data)
{
	struct slot *slot = data;
	struct state *s = slot->s;

	if (s->freed || s->cancelled[slot->i] || s->n_calls[slot->i]++)
		abort();
	if ((err < 0) != (error != NULL) || err > 0)
		abort();
	act(s);
}

static void submit(struct state *s)
{
	unsigned int i = s->n_submitted;

	if (i == MAX_COMMANDS)
		return;
	s->slots[i] = (struct slot){s, i};
	if (hf_qmp_command(s->q, "x", NULL, i % 3 == 2 ? 0 : -EBADF, HF_QMP_TIMEOUT_NEVER, on_reply,
		    &s->slots[i], &s->ids[i]) == 0)
		s->n_submitted++;
}

static void on_event(
	struct hf_qmp *q, const char *name, struct json_object *data, uint64_t us, void *userdata)
{
	struct state *s = userdata;

	if (s->freed || !name)
		abort();
	act(s);
}

static void on_closed(struct hf_qmp *q, int err, const struct hf_error *reason, void *userdata)
{
	struct state *s = userdata;

	if (s->freed || s->n_closed++ || err >= 0 || !reason->message[0])
		abort();
}

static const struct hf_qmp_ops ops = {.event = on_event, .closed = on_closed};

static void run_all(sd_event *event)
{
	while (sd_event_run(event, 0) > 0)
		;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct state s = {0};
	sd_event *event;
	int fds[2];
	unsigned int i;

	if (size < 2 || size > 8192)
		return 0;
	if (sd_event_new(&event) < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		abort();
	s.mode = data[1];
	if (hf_qmp_attach_fd(event, fds[0], "fuzz", HF_QMP_TIMEOUT_NEVER, &ops, &s, &s.q, NULL) < 0)
		abort();
	/* As the corpus has them. */
	s.q->first_id = s.q->last_id = 0;
	for (i = 0; i < 4; i++)
		submit(&s);
	if (data[0] > 127 && send(fds[1], greeting, strlen(greeting), MSG_NOSIGNAL) < 0)
		abort();
	run_all(event);
	for (data += 2, size -= 2; size && s.q;) {
		size_t n = size < 512 ? size : 512;

		send(fds[1], data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
		run_all(event);
		data += n;
		size -= n;
	}
	close(fds[1]);
	run_all(event);
	if (!s.freed) {
		if (hf_qmp_get_state(s.q) != HF_QMP_CLOSED)
			abort();
		for (i = 0; i < s.n_submitted; i++)
			if (s.n_calls[i] != !s.cancelled[i])
				abort();
		hf_qmp_free(s.q);
	}
	sd_event_unref(event);
	return 0;
}
