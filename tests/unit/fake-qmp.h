/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A QMP server for tests, on the same loop as the client under test.
 *
 * Only a header, so that any test can include it. It reads one byte at a time, as QEMU's monitor
 * does, so that a descriptor that came with the wrong byte is noticed. What it answers is up to the
 * test's handler; fake_qmp_reply() and friends write. The handler NULL answers each command with an
 * empty object.
 *
 * One struct fake_qmp is one client's connection.
 */
#pragma once

#include <assert.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "common/fd.h"
#include "qmp/framer.h"

#define FAKE_QMP_UNUSED __attribute__((unused))

#define FAKE_QMP_GREETING_OF(major, minor) \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 3, \"minor\": " #minor \
	", \"major\": " #major "}, \"package\": \"Debian 1:fake\"}, \"capabilities\": " \
	"[\"oob\"]}}\r\n"
#define FAKE_QMP_GREETING FAKE_QMP_GREETING_OF(10, 0)

struct fake_qmp {
	sd_event *event;
	int fd;
	sd_event_source *io;
	struct hf_qmp_framer *framer;
	bool inside;   /* between the first byte of a message and its last */
	int passed_fd; /* came with the first byte of the command that is handled; -EBADF */
	unsigned int n_commands; /* without qmp_capabilities */
	bool negotiated;
	/*
	 * Called for each command but qmp_capabilities, which is answered by itself unless @raw.
	 * @id is to be handed to fake_qmp_reply().
	 */
	void (*command)(struct fake_qmp *f, const char *name, struct json_object *args, int64_t id,
		void *data);
	void *data;
	bool raw;
	bool gone; /* the client hung up */
};

/* Writes bytes as they are; waits when the socket is full. */
static FAKE_QMP_UNUSED void fake_qmp_raw(struct fake_qmp *f, const void *data, size_t size)
{
	int r = hf_fd_write_full(f->fd, data, size);

	assert(r == 0 || r == -EPIPE || r == -ECONNRESET);
}

HF_PRINTF(2, 3)
static FAKE_QMP_UNUSED void fake_qmp_send(struct fake_qmp *f, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	assert(n >= 0);
	fake_qmp_raw(f, text, (size_t)n);
	free(text);
}

static FAKE_QMP_UNUSED void fake_qmp_greet(struct fake_qmp *f)
{
	fake_qmp_raw(f, FAKE_QMP_GREETING, strlen(FAKE_QMP_GREETING));
}

/* @json: the value of `return`. */
static FAKE_QMP_UNUSED void fake_qmp_reply(struct fake_qmp *f, int64_t id, const char *json)
{
	fake_qmp_send(f, "{\"return\": %s, \"id\": %lld}\r\n", json, (long long)id);
}

static FAKE_QMP_UNUSED void fake_qmp_error(
	struct fake_qmp *f, int64_t id, const char *class, const char *desc)
{
	fake_qmp_send(f, "{\"id\": %lld, \"error\": {\"class\": \"%s\", \"desc\": \"%s\"}}\r\n",
		(long long)id, class, desc);
}

/* @json: the event's data. */
static FAKE_QMP_UNUSED void fake_qmp_event(struct fake_qmp *f, const char *name, const char *json)
{
	fake_qmp_send(f,
		"{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 123456}, "
		"\"event\": \"%s\", \"data\": %s}\r\n",
		name, json);
}

/* Hangs up. */
static FAKE_QMP_UNUSED void fake_qmp_hang_up(struct fake_qmp *f)
{
	f->io = sd_event_source_disable_unref(f->io);
	hf_close(&f->fd);
}

static FAKE_QMP_UNUSED struct fake_qmp *fake_qmp_free(struct fake_qmp *f)
{
	if (f) {
		fake_qmp_hang_up(f);
		hf_close(&f->passed_fd);
		hf_qmp_framer_free(f->framer);
		sd_event_unref(f->event);
		free(f);
	}
	return NULL;
}

static void fake_qmp_dispatch(struct fake_qmp *f, struct json_object *msg)
{
	struct json_object *v, *args = NULL;
	const char *name;
	int64_t id;

	assert(json_object_object_get_ex(msg, "execute", &v));
	name = json_object_get_string(v);
	assert(json_object_object_get_ex(msg, "id", &v) && json_object_is_type(v, json_type_int));
	id = json_object_get_int64(v);
	json_object_object_get_ex(msg, "arguments", &args);
	if (!f->raw && !f->negotiated) {
		assert(!strcmp(name, "qmp_capabilities"));
		f->negotiated = true;
		fake_qmp_reply(f, id, "{}");
		return;
	}
	f->n_commands++;
	if (f->command)
		f->command(f, name, args, id, f->data);
	else
		fake_qmp_reply(f, id, "{}");
}

static int fake_qmp_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct fake_qmp *f = userdata;
	unsigned int budget;

	for (budget = 0; budget < 4096 && f->fd >= 0; budget++) {
		struct json_object *msg;
		int fds[4];
		size_t n_fds = HF_ARRAY_SIZE(fds);
		ssize_t n;
		char c;
		int r;

		/* Without MSG_DONTWAIT hf_fd_recv() would wait: ask first. */
		n = recv(f->fd, &c, 1, MSG_DONTWAIT | MSG_PEEK);
		if (n < 0 && errno == EAGAIN)
			break;
		n = n <= 0 ? n : hf_fd_recv(f->fd, &c, 1, fds, &n_fds);
		if (n <= 0) {
			f->gone = true;
			fake_qmp_hang_up(f);
			break;
		}
		if (n_fds) {
			assert(n_fds == 1 && !f->inside && c == '{');
			hf_close(&f->passed_fd);
			f->passed_fd = fds[0];
		}
		if (c == '{')
			f->inside = true;
		r = hf_qmp_framer_push(f->framer, &c, 1);
		assert(r == 0);
		r = hf_qmp_framer_next(f->framer, &msg);
		assert(r >= 0);
		if (r > 0) {
			f->inside = false;
			fake_qmp_dispatch(f, msg);
			json_object_put(msg);
			hf_close(&f->passed_fd);
		}
	}
	return 0;
}

/* Serves a connection; takes @fd. No greeting yet: fake_qmp_greet(). */
static FAKE_QMP_UNUSED struct fake_qmp *fake_qmp_serve(sd_event *event, int fd)
{
	struct fake_qmp *f = calloc(1, sizeof(*f));
	int r;

	assert(f);
	f->event = sd_event_ref(event);
	f->fd = fd;
	f->passed_fd = -EBADF;
	r = hf_qmp_framer_new(NULL, &f->framer);
	assert(r == 0);
	r = sd_event_add_io(event, &f->io, fd, EPOLLIN, fake_qmp_on_io, f);
	assert(r >= 0);
	return f;
}

/* A server and the client's end of its socket pair. */
static FAKE_QMP_UNUSED struct fake_qmp *fake_qmp_pair(sd_event *event, int *ret_client)
{
	int fds[2];
	int r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds);

	assert(r == 0);
	*ret_client = fds[1];
	return fake_qmp_serve(event, fds[0]);
}

/* A listening socket with QEMU's backlog of one. */
static FAKE_QMP_UNUSED int fake_qmp_listen(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int r;

	assert(fd >= 0 && strlen(path) < sizeof(sa.sun_path));
	strcpy(sa.sun_path, path);
	unlink(path);
	r = bind(fd, (struct sockaddr *)&sa, sizeof(sa));
	assert(r == 0);
	r = listen(fd, 1);
	assert(r == 0);
	return fd;
}

/* Accepts a client that has connected already. */
static FAKE_QMP_UNUSED struct fake_qmp *fake_qmp_accept(sd_event *event, int listen_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);

	assert(fd >= 0);
	return fake_qmp_serve(event, fd);
}

/* Runs the loop until *flag, at most @ms milliseconds. Whether it came. */
static FAKE_QMP_UNUSED bool fake_qmp_run_until(sd_event *event, const bool *flag, unsigned int ms)
{
	uint64_t now, end;

	sd_event_now(event, CLOCK_MONOTONIC, &now);
	end = now + ms * 1000ULL;
	while (!*flag) {
		struct timespec ts;

		clock_gettime(CLOCK_MONOTONIC, &ts);
		now = (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
		if (now >= end)
			return false;
		assert(sd_event_run(event, end - now) >= 0);
	}
	return true;
}

/* Runs the loop for a while, whatever happens. */
static FAKE_QMP_UNUSED void fake_qmp_run_for(sd_event *event, unsigned int ms)
{
	bool never = false;

	fake_qmp_run_until(event, &never, ms);
}

/* Runs the loop until nothing happened for @quiet_ms: both ends are on it, so all was said then. */
static FAKE_QMP_UNUSED void fake_qmp_settle(sd_event *event, unsigned int quiet_ms)
{
	int r;

	while ((r = sd_event_run(event, quiet_ms * 1000ULL)) > 0)
		;
	assert(r == 0);
}
