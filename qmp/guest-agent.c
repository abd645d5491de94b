/* SPDX-License-Identifier: Apache-2.0 */
#include "qmp/guest-agent.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/json.h"

#define MARK 0xff
#define MAX_DEPTH 8
#define READ_BYTES 4096 /* in one turn of the loop */

struct hf_guest_agent {
	int fd;
	sd_event_source *io;
	sd_event_source *timer;
	bool syncing;
	bool busy;
	int32_t sync_id;
	size_t received;
	hf_guest_agent_fn fn;
	void *data;
	struct hf_guest_agent_input input;
};

/* ---- parsers ---- */

int hf_guest_agent_input_add(
	struct hf_guest_agent_input *in, const uint8_t *data, size_t size, size_t *ret_used)
{
	/* The line before was taken. */
	if (in->n > 0 && in->line[in->n - 1] == '\n')
		in->n = 0;
	for (size_t i = 0; i < size; i++) {
		*ret_used = i + 1;
		if (data[i] == MARK) {
			in->marked = true;
			in->n = 0;
			continue;
		}
		if (!in->marked)
			continue;
		if (in->n == sizeof(in->line))
			return -EMSGSIZE;
		in->line[in->n++] = (char)data[i];
		if (data[i] == '\n')
			return 1;
	}
	*ret_used = size;
	return 0;
}

int hf_guest_agent_parse(
	const char *line, size_t size, struct json_object **ret, struct hf_error *error)
{
	cleanup_json struct json_object *o = NULL;
	struct json_object *value = NULL;
	char desc[200];
	int r;

	while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
		size--;
	r = hf_json_parse(line, size, MAX_DEPTH, &o);
	if (r == -ENOMEM)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "out of memory");
	if (r == 0 && json_object_object_get_ex(o, "return", &value)) {
		*ret = json_object_get(value);
		return 0;
	}
	value = r == 0 ? hf_json_get_object(o, "error") : NULL;
	if (!value)
		return hf_error_set(error, -EBADMSG, HF_ERR_FAILED, NULL,
			"what its guest agent answers is no answer");
	snprintf(desc, sizeof(desc), "%s", hf_json_get_string(value, "desc", "no reason given"));
	for (char *s = desc; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
	return hf_error_set(
		error, -EREMOTEIO, HF_ERR_FAILED, NULL, "its guest agent refuses: %s", desc);
}

/* ---- the conversation ---- */

static void end(
	struct hf_guest_agent *a, int err, struct json_object *ret, const struct hf_error *error)
{
	hf_guest_agent_fn fn = a->fn;

	a->busy = a->syncing = false;
	fn(a, err, ret, error, a->data);
}

static void fail(struct hf_guest_agent *a, int err, const char *what)
{
	struct hf_error e = {0};

	sd_event_source_set_enabled(a->io, SD_EVENT_OFF);
	sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
	if (!a->busy)
		return;
	hf_error_set(&e, err, HF_ERR_FAILED, NULL, "%s", what);
	end(a, err, NULL, &e);
}

/* Return: whether @a is still what it was. */
static bool take_line(struct hf_guest_agent *a)
{
	cleanup_json struct json_object *ret = NULL;
	struct hf_error e = {0};
	int r = hf_guest_agent_parse(a->input.line, a->input.n, &ret, &e);

	if (a->syncing) {
		/* The answer to somebody else's question, perhaps: ours is still to come. */
		if (r < 0 || !json_object_is_type(ret, json_type_int) ||
			json_object_get_int64(ret) != a->sync_id) {
			a->input.marked = false;
			return true;
		}
		end(a, 0, NULL, NULL);
		return false;
	}
	/* Not asked for anything. */
	if (!a->busy)
		return true;
	end(a, r, ret, r < 0 ? &e : NULL);
	return false;
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct hf_guest_agent *a = userdata;
	uint8_t data[READ_BYTES];
	size_t used = 0;
	ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);
	int r;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		fail(a, -ECONNRESET, "QEMU closed the channel of its guest agent");
		return 0;
	}
	a->received += (size_t)n;
	if (a->received > HF_GUEST_AGENT_MAX_BYTES) {
		fail(a, -EMSGSIZE, "its guest agent says more than it was asked for");
		return 0;
	}
	for (size_t at = 0; at < (size_t)n; at += used) {
		r = hf_guest_agent_input_add(&a->input, data + at, (size_t)n - at, &used);
		if (r < 0) {
			fail(a, r, "what its guest agent answers is too long");
			return 0;
		}
		/* Whatever lies behind an answer wasn't asked for, either. */
		if (r > 0 && !take_line(a))
			return 0;
	}
	return 0;
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
	fail(userdata, -ETIMEDOUT, "its guest agent does not answer in time");
	return 0;
}

static int say(struct hf_guest_agent *a, const char *text, size_t size)
{
	ssize_t n = send(a->fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -EAGAIN;
}

static int connect_to(const char *path, int *ret_fd)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	cleanup_close int fd = -EBADF;
	size_t n = strlen(path);

	if (n >= sizeof(sa.sun_path))
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path, n + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sa,
		    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1)) < 0)
		return errno == EAGAIN ? -EBUSY : -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Its path is of the guest's command line: it must not lead to somebody else. */
static int check_peer(int fd, pid_t pid)
{
	struct ucred cred = {0};
	socklen_t size = sizeof(cred);

	if (pid == 0)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
		return -errno;
	return cred.pid == pid ? 0 : -EPERM;
}

static int start(sd_event *event, struct hf_guest_agent *a, uint64_t timeout_ns)
{
	char text[96];
	int n, r;

	r = sd_event_add_io(event, &a->io, a->fd, EPOLLIN, on_io, a);
	if (r >= 0)
		r = sd_event_add_time_relative(event, &a->timer, CLOCK_MONOTONIC,
			timeout_ns / HF_NSEC_PER_USEC, 0, on_timeout, a);
	if (r < 0)
		return r;
	if (getrandom(&a->sync_id, sizeof(a->sync_id), GRND_NONBLOCK) != sizeof(a->sync_id))
		a->sync_id = (int32_t)(uintptr_t)a;
	a->sync_id &= INT32_MAX;
	/* The mark has its parser forget what somebody else left unfinished. */
	n = snprintf(text, sizeof(text),
		"\xff{\"execute\": \"guest-sync-delimited\", \"arguments\": {\"id\": %d}}\n",
		(int)a->sync_id);
	return say(a, text, (size_t)n);
}

int hf_guest_agent_open(sd_event *event, const char *path, pid_t pid, uint64_t timeout_ns,
	hf_guest_agent_fn fn, void *data, struct hf_guest_agent **ret, struct hf_error *error)
{
	struct hf_guest_agent *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	a->fd = -EBADF;
	a->fn = fn;
	a->data = data;
	a->busy = a->syncing = true;
	r = connect_to(path, &a->fd);
	if (r == 0)
		r = check_peer(a->fd, pid);
	if (r == 0)
		r = start(event, a, timeout_ns);
	if (r < 0) {
		hf_guest_agent_free(a);
		return hf_error_set(error, r, HF_ERR_FAILED, NULL,
			"can't use the channel of its guest agent at %s: %s", path,
			r == -EPERM ? "it is not its QEMU that listens there" : strerror(-r));
	}
	*ret = a;
	return 0;
}

int hf_guest_agent_command(
	struct hf_guest_agent *a, const char *text, hf_guest_agent_fn fn, void *data)
{
	char line[512];
	int n, r;

	if (a->busy)
		return -EBUSY;
	n = snprintf(line, sizeof(line), "%s\n", text);
	if (n < 0 || (size_t)n >= sizeof(line))
		return -EMSGSIZE;
	r = say(a, line, (size_t)n);
	if (r < 0)
		return r;
	a->busy = true;
	a->fn = fn;
	a->data = data;
	return 0;
}

struct hf_guest_agent *hf_guest_agent_free(struct hf_guest_agent *a)
{
	if (!a)
		return NULL;
	sd_event_source_disable_unref(a->io);
	sd_event_source_disable_unref(a->timer);
	hf_close(&a->fd);
	free(a);
	return NULL;
}
