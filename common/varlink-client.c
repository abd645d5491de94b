/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The calling end of Varlink, for programs that have nothing else to do than to wait.
 *
 * There is no time-out: preserving a large guest takes as long as it takes, and the server says so
 * with progress. A user who has had enough sends SIGINT.
 */
#include "common/varlink.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/fd.h"

struct hf_varlink_client {
	int fd;
	struct hf_varlink_framer in;
};

static int connect_error(struct hf_error *e, int err, const char *path)
{
	switch (err) {
	case -ENOENT:
	case -ECONNREFUSED:
		return hf_error_set(e, err, HF_ERR_NOT_READY, "Start it: systemctl start holdfastd",
			"the agent is not running (nobody answers at %s)", path);
	case -EACCES:
	case -EPERM:
		return hf_error_set(
			e, err, HF_ERR_NOT_PERMITTED, "Call it as root.", "may not open %s", path);
	default:
		return hf_error_set(
			e, err, HF_ERR_FAILED, NULL, "connect to %s: %s", path, strerror(-err));
	}
}

int hf_varlink_client_connect(const char *path, struct hf_varlink_client **ret, struct hf_error *e)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_varlink_client struct hf_varlink_client *client = NULL;

	hf_error_clear(e);
	if (!path)
		path = secure_getenv(HF_VARLINK_SOCKET_ENV);
	if (!path || !path[0])
		path = HF_VARLINK_SOCKET;
	if (strlen(path) >= sizeof(addr.sun_path))
		return connect_error(e, -ENAMETOOLONG, path);
	strcpy(addr.sun_path, path);

	client = calloc(1, sizeof(*client));
	if (!client)
		return connect_error(e, -ENOMEM, path);
	client->in.limit = HF_VARLINK_MAX_REPLY;
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return connect_error(e, -errno, path);
	*ret = TAKE_PTR(client);
	return 0;
}

struct hf_varlink_client *hf_varlink_client_free(struct hf_varlink_client *client)
{
	if (client) {
		hf_close(&client->fd);
		hf_varlink_framer_clear(&client->in);
		free(client);
	}
	return NULL;
}

static int send_call(
	struct hf_varlink_client *client, const char *method, struct json_object *params, bool more)
{
	cleanup_json struct json_object *message = json_object_new_object();
	const char *text;
	size_t size;

	if (!message) {
		json_object_put(params);
		return -ENOMEM;
	}
	hf_json_add_string(message, "method", method);
	hf_json_add(message, "parameters", params);
	if (more)
		hf_json_add_bool(message, "more", true);
	text = json_object_to_json_string_length(
		message, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &size);
	return text ? hf_fd_write_full(client->fd, text, size + 1) : -ENOMEM;
}

static int receive(struct hf_varlink_client *client, struct json_object **ret)
{
	char data[16384];
	ssize_t n;
	int r;

	for (;;) {
		r = hf_varlink_framer_pop(&client->in, ret);
		if (r != 0)
			return r < 0 ? r : 0;
		n = recv(client->fd, data, sizeof(data), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		r = hf_varlink_framer_push(&client->in, data, (size_t)n);
		if (r < 0)
			return r;
	}
}

/* An error of the server, as it names itself, in our terms. */
static int server_error(struct hf_error *e, const char *name, struct json_object *params)
{
	const char *message = hf_json_get_string(params, "message", NULL);
	const char *last = strrchr(name, '.');
	const char *what;

	last = last ? last + 1 : name;
	if (message) {
		hf_error_set(e, -EREMOTEIO, last, hf_json_get_string(params, "remedy", NULL), "%s",
			message);
		hf_error_guest(e, hf_json_get_string(params, "guest", ""));
		return -EREMOTEIO;
	}
	/* The standard ones say what they are about in a parameter of their own. */
	what = hf_json_get_string(params, "parameter", NULL);
	if (!what)
		what = hf_json_get_string(params, "method", NULL);
	if (!what)
		what = hf_json_get_string(params, "interface", NULL);
	return hf_error_set(e, -EREMOTEIO, last, NULL, "the agent answers %s%s%s", name,
		what ? ": " : "", what ? what : "");
}

static int stream_error(struct hf_error *e, int err)
{
	if (err == -ECONNRESET || err == -EPIPE)
		return hf_error_set(
			e, -ECONNRESET, HF_ERR_FAILED, NULL, "the agent ended the connection");
	if (err == -EBADMSG)
		return hf_error_set(
			e, err, HF_ERR_FAILED, NULL, "the agent's answer can't be understood");
	return hf_error_set(
		e, err, HF_ERR_FAILED, NULL, "talking to the agent: %s", strerror(-err));
}

int hf_varlink_client_call(struct hf_varlink_client *client, const char *method,
	struct json_object *params, int (*on_reply)(struct json_object *params, void *userdata),
	void *userdata, struct json_object **ret, struct hf_error *e)
{
	int r;

	hf_error_clear(e);
	r = send_call(client, method, params, on_reply);
	/* A server that is about to go may have said something before. */
	if (r < 0 && r != -EPIPE && r != -ECONNRESET)
		return stream_error(e, r);
	for (;;) {
		cleanup_json struct json_object *message = NULL, *answer = NULL;
		const char *error;

		r = receive(client, &message);
		if (r < 0)
			return stream_error(e, r);
		answer = json_object_get(hf_json_get_object(message, "parameters"));
		if (!answer)
			answer = json_object_new_object();
		if (!answer)
			return stream_error(e, -ENOMEM);
		error = hf_json_get_string(message, "error", NULL);
		if (!error && on_reply && hf_json_get_bool(message, "continues", false)) {
			r = on_reply(answer, userdata);
			if (r < 0)
				return r;
			continue;
		}
		r = error ? server_error(e, error, answer) : 0;
		if (ret)
			*ret = TAKE_PTR(answer);
		return r;
	}
}
