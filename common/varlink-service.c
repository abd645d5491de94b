/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: From a message to the handler of its method; and org.varlink.service, which every Varlink
 * server offers: who am I, and what can I do.
 */
#include "common/varlink-internal.h"

#include <stdio.h>
#include <string.h>

/* Facts: https://varlink.org/Service. */
static const char service_description[] =
	"# Questions that every Varlink server answers about itself.\n"
	"interface org.varlink.service\n"
	"\n"
	"# Who is serving, and which interfaces.\n"
	"method GetInfo() -> (\n"
	"  vendor: string,\n"
	"  product: string,\n"
	"  version: string,\n"
	"  url: string,\n"
	"  interfaces: []string\n"
	")\n"
	"\n"
	"# The definition of one of them, in this language.\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n"
	"\n"
	"error InterfaceNotFound(interface: string)\n"
	"\n"
	"error MethodNotFound(method: string)\n"
	"\n"
	"error MethodNotImplemented(method: string)\n"
	"\n"
	"error InvalidParameter(parameter: string)\n"
	"\n"
	"error PermissionDenied()\n"
	"\n"
	"error ExpectedMore()\n";

static void get_info(struct hf_varlink_call *call, struct json_object *params, void *userdata);
static void get_description(
	struct hf_varlink_call *call, struct json_object *params, void *userdata);

static const struct hf_varlink_method service_methods[] = {
	{"GetInfo", get_info, 0},
	{"GetInterfaceDescription", get_description, 0},
	{NULL, NULL, 0},
};

static const struct hf_varlink_interface service_interface = {
	.name = "org.varlink.service",
	.description = service_description,
	.methods = service_methods,
};

static const struct hf_varlink_interface *find_interface(
	const struct hf_varlink_server *server, const char *name, size_t len)
{
	if (strlen(service_interface.name) == len && memcmp(service_interface.name, name, len) == 0)
		return &service_interface;
	for (const struct hf_varlink_interface *i = server->options.interfaces; i && i->name; i++)
		if (strlen(i->name) == len && memcmp(i->name, name, len) == 0)
			return i;
	return NULL;
}

static void get_info(struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const struct hf_varlink_server_options *o = &call->conn->server->options;
	const struct hf_json_field none[] = {{0}};
	struct json_object *reply, *names;

	if (hf_varlink_call_dispatch(call, params, none) < 0)
		return;
	reply = json_object_new_object();
	names = json_object_new_array();
	hf_json_append(names, json_object_new_string(service_interface.name));
	for (const struct hf_varlink_interface *i = o->interfaces; i && i->name; i++)
		hf_json_append(names, json_object_new_string(i->name));
	hf_json_add_string(reply, "vendor", o->vendor ? o->vendor : "");
	hf_json_add_string(reply, "product", o->product ? o->product : "");
	hf_json_add_string(reply, "version", o->version ? o->version : "");
	hf_json_add_string(reply, "url", o->url ? o->url : "");
	hf_json_add(reply, "interfaces", names);
	hf_varlink_call_reply(call, reply);
}

/* Answers with one of the standard errors that have one parameter. */
static void standard_error(
	struct hf_varlink_call *call, const char *error, const char *key, const char *value)
{
	struct json_object *params = json_object_new_object();

	if (params)
		hf_json_add_string(params, key, value);
	hf_varlink_call_error_full(call, error, params);
}

static void get_description(
	struct hf_varlink_call *call, struct json_object *params, void *userdata)
{
	const struct hf_varlink_interface *i;
	struct json_object *reply;
	const char *name = NULL;
	const struct hf_json_field fields[] = {{"interface", json_type_string, 0, &name}, {0}};

	if (hf_varlink_call_dispatch(call, params, fields) < 0)
		return;
	i = find_interface(call->conn->server, name, strlen(name));
	if (!i) {
		standard_error(call, "org.varlink.service.InterfaceNotFound", "interface", name);
		return;
	}
	reply = json_object_new_object();
	hf_json_add_string(reply, "description", i->description);
	hf_varlink_call_reply(call, reply);
}

bool hf_varlink_uid_privileged(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static void refuse_caller(struct hf_varlink_call *call, const char *method)
{
	struct hf_error e = {0};

	hf_error_set(&e, -EPERM, HF_ERR_NOT_PERMITTED, "Call it as root.",
		"%s changes the host, which user %u may not do", method, (unsigned int)call->uid);
	hf_varlink_call_error(call, &e, NULL);
}

/* Neither root nor the server's own user: who else may? */
static void ask_leave(struct hf_varlink_call *call, const struct hf_varlink_method *method,
	struct json_object *params)
{
	const struct hf_varlink_server_options *o = &call->conn->server->options;

	call->waiting = method;
	call->params = json_object_get(params);
	if (!o->authorise || o->authorise(call, method->name, o->userdata) < 0)
		refuse_caller(call, method->name);
}

static void call_method(struct hf_varlink_call *call, const char *name, struct json_object *params)
{
	const struct hf_varlink_server *server = call->conn->server;
	const struct hf_varlink_interface *interface;
	const struct hf_varlink_method *m;
	const char *dot = strrchr(name, '.');
	size_t len = dot ? (size_t)(dot - name) : strlen(name);

	interface = find_interface(server, name, len);
	if (!interface || !dot) {
		cleanup_free char *unknown = strndup(name, len);

		standard_error(call, "org.varlink.service.InterfaceNotFound", "interface", unknown);
		return;
	}
	call->interface = interface->name;
	for (m = interface->methods; m->name && strcmp(m->name, dot + 1) != 0; m++)
		;
	if (!m->name)
		standard_error(call, "org.varlink.service.MethodNotFound", "method", name);
	else if (!m->handler)
		standard_error(call, "org.varlink.service.MethodNotImplemented", "method", name);
	else if ((m->flags & HF_VARLINK_MORE) && !call->more)
		hf_varlink_call_error_full(call, "org.varlink.service.ExpectedMore", NULL);
	else if ((m->flags & HF_VARLINK_MUTATING) && !hf_varlink_uid_privileged(call->uid))
		ask_leave(call, m, params);
	else
		m->handler(call, params, server->options.userdata);
}

int hf_varlink_service_handle(struct hf_varlink_conn *conn, struct json_object *message)
{
	bool more = false, oneway = false, upgrade = false;
	struct json_object *given = NULL;
	const char *method = NULL;
	const struct hf_json_field fields[] = {
		{"method", json_type_string, 0, &method},
		{"parameters", json_type_object, HF_JSON_OPTIONAL, &given},
		{"more", json_type_boolean, HF_JSON_OPTIONAL, &more},
		{"oneway", json_type_boolean, HF_JSON_OPTIONAL, &oneway},
		{"upgrade", json_type_boolean, HF_JSON_OPTIONAL, &upgrade},
		{0},
	};
	cleanup_json struct json_object *params = NULL;
	struct hf_varlink_call *call;

	if (hf_json_dispatch(message, fields, NULL) < 0 || (more && oneway))
		return -EBADMSG;
	/* Nobody would learn what came of it: better not to begin. */
	if (conn->hup && !oneway)
		return 0;
	params = given ? json_object_get(given) : json_object_new_object();
	call = params ? calloc(1, sizeof(*call)) : NULL;
	if (!call)
		return -ENOMEM;
	*call = (struct hf_varlink_call){
		.refs = 2, /* the connection's and this function's */
		.conn = conn,
		.interface = service_interface.name,
		.uid = conn->uid,
		.more = more,
		.oneway = oneway,
	};
	conn->current = call;
	if (upgrade)
		standard_error(call, "org.varlink.service.MethodNotImplemented", "method", method);
	else
		call_method(call, method, params);
	hf_varlink_call_unref(call);
	return 0;
}
