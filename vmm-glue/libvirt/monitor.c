/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast-libvirt monitor UUID: a domain's QMP monitor, through libvirt, on descriptor 3.
 *
 * The other end of that socket takes this for QEMU: a greeting, commands with ids, replies in
 * order, descriptors beside commands. Each command goes to virDomainQemuMonitorCommandWithFiles(),
 * so that libvirt sees what happens to its domain and keeps its hold on the monitor. There are no
 * events. The program ends when the other end closes the socket, and closes it itself when libvirt
 * can't be asked any more: to the agent that is a monitor that was lost.
 */
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <string.h>

#include "common/fd.h"
#include "common/json.h"
#include "vmm-glue/libvirt/verbs.h"

#define SOCKET_FD 3
#define MAX_COMMAND_BYTES (1u << 20)
#define MAX_FDS 8
#define JSON_DEPTH 32

struct proxy {
	virDomainPtr domain;
	char buf[MAX_COMMAND_BYTES];
	size_t size;
	int fds[MAX_FDS]; /* came with what is in the buffer; the next command takes them */
	unsigned int n_fds;
};

static int send_json(struct json_object *o)
{
	const char *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN);
	int r;

	if (!text)
		return -ENOMEM;
	r = hf_fd_write_full(SOCKET_FD, text, strlen(text));
	return r < 0 ? r : hf_fd_write_full(SOCKET_FD, "\r\n", 2);
}

static int send_error(struct json_object *id, const char *class, const char *desc)
{
	cleanup_json struct json_object *reply = json_object_new_object();
	struct json_object *error = json_object_new_object();

	hf_json_add_string(error, "class", class);
	hf_json_add_string(error, "desc", desc);
	hf_json_add(reply, "error", error);
	hf_json_add(reply, "id", json_object_get(id));
	return send_json(reply);
}

/* QEMU's own answer. Return: 0; -EAGAIN libvirt refuses, @ret NULL; -ENOTCONN it is not there. */
static int ask(struct proxy *p, const char *command, struct json_object **ret)
{
	char *text = NULL;
	int r;

	*ret = NULL;
	r = p->n_fds > 0 ? virDomainQemuMonitorCommandWithFiles(
				   p->domain, command, p->n_fds, p->fds, NULL, NULL, &text, 0)
			 : virDomainQemuMonitorCommand(p->domain, command, &text, 0);
	hf_libvirt_patience();
	if (r < 0) {
		int code = virGetLastErrorCode();

		return code == VIR_ERR_RPC || code == VIR_ERR_SYSTEM_ERROR ||
				       code == VIR_ERR_INTERNAL_ERROR ||
				       code == VIR_ERR_NO_DOMAIN ||
				       code == VIR_ERR_OPERATION_INVALID
			       ? -ENOTCONN
			       : -EAGAIN;
	}
	r = hf_json_parse(text, strlen(text), JSON_DEPTH, ret);
	free(text);
	return r < 0 ? -ENOTCONN : 0;
}

static int greet(struct proxy *p)
{
	cleanup_json struct json_object *answer = NULL, *greeting = json_object_new_object();
	struct json_object *qmp = json_object_new_object();
	int r = ask(p, "{\"execute\":\"query-version\"}", &answer);

	if (r < 0)
		return r;
	hf_json_add(qmp, "version", json_object_get(hf_json_get_object(answer, "return")));
	hf_json_add(qmp, "capabilities", json_object_new_array());
	hf_json_add(greeting, "QMP", qmp);
	return send_json(greeting);
}

static void drop_fds(struct proxy *p)
{
	while (p->n_fds > 0)
		hf_close(&p->fds[--p->n_fds]);
}

/* libvirt counts commands by ids of its own. */
static int forward(struct proxy *p, struct json_object *command, struct json_object *id)
{
	cleanup_json struct json_object *answer = NULL;
	int r;

	json_object_object_del(command, "id");
	r = ask(p, json_object_to_json_string_ext(command, JSON_C_TO_STRING_PLAIN), &answer);
	if (r == -EAGAIN)
		return send_error(id, "GenericError", virGetLastErrorMessage());
	if (r < 0)
		return r;
	json_object_object_del(answer, "id");
	hf_json_add(answer, "id", json_object_get(id));
	return send_json(answer);
}

static int on_command(struct proxy *p, const char *text, size_t size)
{
	cleanup_json struct json_object *command = NULL, *id = NULL;
	const char *name;
	int r;

	if (hf_json_parse(text, size, JSON_DEPTH, &command) < 0)
		return -EBADMSG;
	id = json_object_get(json_object_object_get(command, "id"));
	name = hf_json_get_string(command, "execute", "");
	if (strcmp(name, "qmp_capabilities") == 0) {
		cleanup_json struct json_object *reply = json_object_new_object();

		hf_json_add(reply, "return", json_object_new_object());
		hf_json_add(reply, "id", json_object_get(id));
		return send_json(reply);
	}
	/* Descriptors are getfd's; another command, sent behind it, may have come with the same
	 * read. */
	if (strcmp(name, "getfd") == 0 || p->n_fds == 0) {
		r = forward(p, command, id);
		drop_fds(p);
	} else {
		unsigned int n = p->n_fds;

		p->n_fds = 0;
		r = forward(p, command, id);
		p->n_fds = n;
	}
	return r;
}

/* Return: 1: there may be more; 0: the other end closed; -errno. */
static int receive(struct proxy *p)
{
	size_t room = sizeof(p->buf) - p->size, n_fds = MAX_FDS - p->n_fds;
	ssize_t n;

	if (room == 0)
		return -EMSGSIZE;
	n = hf_fd_recv(SOCKET_FD, p->buf + p->size, room, p->fds + p->n_fds, &n_fds);
	if (n < 0)
		return (int)n;
	p->n_fds += (unsigned int)n_fds;
	p->size += (size_t)n;
	return n > 0;
}

/* While the agent says nothing, nobody waits for an answer of libvirt's. */
static int serve(struct proxy *p)
{
	int r = greet(p);

	while (r >= 0) {
		char *newline = memchr(p->buf, '\n', p->size);

		if (newline) {
			size_t size = newline + 1 - p->buf;

			hf_libvirt_patience();
			r = on_command(p, p->buf, size);
			p->size -= size;
			memmove(p->buf, p->buf + size, p->size);
			continue;
		}
		hf_libvirt_no_hurry();
		r = receive(p);
		if (r == 0)
			break;
	}
	return r;
}

static int run(const struct hf_libvirt_verb *verb, int argc, char **argv)
{
	struct proxy *p = calloc(1, sizeof(*p));
	struct hf_error e = {0};
	virConnectPtr conn;
	int r;

	if (argc != 2 || !p) {
		free(p);
		return hf_libvirt_usage_error(verb, "a domain's UUID is missing");
	}
	r = hf_libvirt_connect(NULL, &conn, &e);
	if (r < 0) {
		free(p);
		return hf_libvirt_fail(&e);
	}
	p->domain = virDomainLookupByUUIDString(conn, argv[1]);
	r = p->domain ? serve(p) : hf_libvirt_error(&e, "no such domain");
	if (p->domain)
		virDomainFree(p->domain);
	drop_fds(p);
	virConnectClose(conn);
	free(p);
	return r < 0 ? HF_LIBVIRT_FAILED : HF_LIBVIRT_OK;
}

const struct hf_libvirt_verb hf_libvirt_verb_monitor = {
	.name = "monitor",
	.usage = "UUID 3<>SOCKET",
	.help = "The QMP monitor of a domain on the socket at descriptor 3. For holdfastd.\n",
	.run = run,
};
