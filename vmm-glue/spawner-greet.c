/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The agent's first word to its spawner after a jump.
 *
 * It is answered when the spawner serves, which its unit makes wait for what guests need of the
 * host; and it has the host's clock moved. The spawner does one thing after the other, in the order
 * in which it is connected to: whatever is started later starts with the right time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "vmm-glue/spawner-internal.h"
#include "vmm-glue/spawner.h"

#define VERSION 1

struct hf_spawner_call {
	sd_event_source *source;
	int sock;
	hf_spawner_greeted_fn done;
	void *data;
};

/* ---- the bytes ---- */

size_t hf_spawner_encode_greeting(const struct hf_wall_clock_target *target, void *buf, size_t size)
{
	const struct hf_spawner_greeting g = {
		.op = HF_SPAWNER_GREET, .version = VERSION, .target = *target};

	if (size < sizeof(g))
		return 0;
	memcpy(buf, &g, sizeof(g));
	return sizeof(g);
}

int hf_spawner_decode_greeting(const void *data, size_t size, struct hf_wall_clock_target *ret)
{
	struct hf_spawner_greeting g;

	if (size != sizeof(g))
		return -EBADMSG;
	memcpy(&g, data, sizeof(g));
	if (g.op != HF_SPAWNER_GREET)
		return -EBADMSG;
	if (g.version != VERSION)
		return -EPROTONOSUPPORT;
	*ret = g.target;
	return 0;
}

/* ---- the spawner's side ---- */

void hf_spawner_answer_greeting(int sock, const void *data, size_t size)
{
	struct hf_spawner_greeted a = {.version = VERSION};
	struct hf_wall_clock_target target = {0};
	struct hf_wall_clock clock = {0};
	struct hf_error e = {0};

	a.result = hf_spawner_decode_greeting(data, size, &target);
	if (a.result < 0)
		hf_error_set(&e, a.result, HF_ERR_FAILED, NULL,
			"the spawner does not understand the agent: %s", strerror(-a.result));
	else
		a.result = hf_clock_step_here(&target, &clock, &e);
	a.step_ns = clock.step_ns;
	a.error_ns = clock.error_ns;
	snprintf(a.message, sizeof(a.message), "%s", e.message);
	hf_fd_send(sock, &a, sizeof(a), NULL, 0);
}

/* ---- the agent's side ---- */

static int take_answer(int sock, struct hf_wall_clock *ret, struct hf_error *error)
{
	struct hf_spawner_greeted a = {0};
	ssize_t n = recv(sock, &a, sizeof(a), MSG_DONTWAIT);

	if (n != (ssize_t)sizeof(a) || a.version != VERSION || a.result > 0)
		return hf_error_set(error,
			n < 0	 ? -errno
			: n == 0 ? -ECONNRESET
				 : -EBADMSG,
			HF_ERR_FAILED, "see `systemctl status holdfast-spawn.service`",
			"the spawner gave no answer");
	a.message[sizeof(a.message) - 1] = 0;
	if (a.result < 0)
		return hf_error_set(error, a.result, HF_ERR_FAILED, NULL, "%s", a.message);
	*ret = (struct hf_wall_clock){.known = true, .step_ns = a.step_ns, .error_ns = a.error_ns};
	return 0;
}

static int on_answer(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct hf_spawner_call *call = userdata;
	struct hf_wall_clock clock = {0};
	struct hf_error e = {0};
	int r;

	sd_event_source_set_enabled(s, SD_EVENT_OFF);
	r = take_answer(fd, &clock, &e);
	call->done(r, &clock, &e, call->data);
	return 0;
}

int hf_spawner_greet(sd_event *event, const char *path, const struct hf_wall_clock_target *target,
	hf_spawner_greeted_fn done, void *data, struct hf_spawner_call **ret,
	struct hf_error *error)
{
	struct hf_spawner_call *call = calloc(1, sizeof(*call));
	struct hf_spawner_greeting g;
	int r;

	if (!call)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	call->sock = -EBADF;
	call->done = done;
	call->data = data;
	r = hf_spawner_connect(path, &call->sock);
	if (r == 0)
		r = hf_fd_send(
			call->sock, &g, hf_spawner_encode_greeting(target, &g, sizeof(g)), NULL, 0);
	if (r == 0)
		r = sd_event_add_io(event, &call->source, call->sock, EPOLLIN, on_answer, call);
	if (r < 0) {
		hf_spawner_call_free(call);
		return hf_error_set(error, r, HF_ERR_FAILED,
			"see `systemctl status holdfast-spawn.service`",
			"can't reach the spawner at %s: %s", path, strerror(-r));
	}
	*ret = call;
	return 0;
}

struct hf_spawner_call *hf_spawner_call_free(struct hf_spawner_call *call)
{
	if (!call)
		return NULL;
	sd_event_source_disable_unref(call->source);
	hf_close(&call->sock);
	free(call);
	return NULL;
}
