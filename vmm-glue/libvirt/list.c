/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast-libvirt list: the domains that run, for the agent, as JSON on descriptor 3.
 *
 *   {"domains": [{"uuid", "name", "id", "persistent", "emulator", "settings": ["KEY=VALUE"],
 *                 "memory": [{"id", "address"}]}]}
 *   {"error": "sentence"}
 *
 * A domain that ends while it is asked for is left out. "memory" is only there where a domain has
 * several memfds: its QEMU is asked for it, so only of domains that are not among the arguments,
 * UUIDs of those that the agent knows.
 */
#include <libvirt/libvirt-qemu.h>
#include <libvirt/libvirt.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "common/json.h"
#include "vmm-glue/libvirt/memory-blocks.h"
#include "vmm-glue/libvirt/verbs.h"

#define RESULT_FD 3
#define POLICY_URI "urn:holdfast:libvirt:1"

/* No file is opened and nothing fetched for what a domain's XML says. */
#define XML_OPTIONS (XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_NOBLANKS)

static const xmlNode *child_of(const xmlNode *node, const char *name)
{
	for (const xmlNode *n = node ? node->children : NULL; n; n = n->next)
		if (n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, name) == 0)
			return n;
	return NULL;
}

static void add_emulator(struct json_object *o, const xmlNode *domain)
{
	xmlNode *node = (xmlNode *)(uintptr_t)child_of(child_of(domain, "devices"), "emulator");
	xmlChar *text = node ? xmlNodeGetContent(node) : NULL;

	hf_json_add_string(o, "emulator", (const char *)text);
	xmlFree(text);
}

/* The attributes of <holdfast:policy> in <metadata>. */
static void add_settings(struct json_object *o, const xmlNode *domain)
{
	const xmlNode *metadata = child_of(domain, "metadata");
	struct json_object *list = json_object_new_array();
	char setting[512];

	for (const xmlNode *n = metadata ? metadata->children : NULL; n; n = n->next) {
		if (n->type != XML_ELEMENT_NODE || strcmp((const char *)n->name, "policy") != 0 ||
			!n->ns || strcmp((const char *)n->ns->href, POLICY_URI) != 0)
			continue;
		for (xmlAttr *a = n->properties; a; a = a->next) {
			xmlChar *value = xmlNodeListGetString(n->doc, a->children, 1);

			snprintf(setting, sizeof(setting), "%s=%s", (const char *)a->name,
				value ? (const char *)value : "");
			hf_json_append(list, json_object_new_string(setting));
			xmlFree(value);
		}
	}
	hf_json_add(o, "settings", list);
}

/* Memory in several memfds, which nothing but QEMU itself can tell apart. */
static bool has_memfds(const xmlNode *domain)
{
	const xmlNode *source = child_of(child_of(domain, "memoryBacking"), "source");
	const xmlNode *cell = child_of(child_of(child_of(domain, "cpu"), "numa"), "cell");
	xmlChar *type = source ? xmlGetNoNsProp(source, (const xmlChar *)"type") : NULL;
	bool memfd = type && strcmp((const char *)type, "memfd") == 0;
	size_t cells = 0;

	xmlFree(type);
	for (; cell; cell = cell->next)
		cells += cell->type == XML_ELEMENT_NODE;
	return memfd && cells > 1;
}

/* The answer to a command of the human monitor; NULL: none. The caller's. */
static char *ask_monitor(virDomainPtr domain, const char *command)
{
	char *answer = NULL;
	int r = virDomainQemuMonitorCommand(
		domain, command, &answer, VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP);

	hf_libvirt_patience();
	return r < 0 ? NULL : answer;
}

/* What is missing here the agent finds out: then it doesn't know which memory is which. */
static void add_memory(struct json_object *o, virDomainPtr domain)
{
	cleanup_free char *tree = ask_monitor(domain, "info mtree -f");
	struct json_object *list = json_object_new_array();
	struct hf_memory_block block;

	for (const char *at = tree; at && hf_memory_block_next(&at, &block);) {
		cleanup_free char *answer = NULL;
		struct json_object *entry;
		char command[64];
		uint64_t address;

		snprintf(command, sizeof(command), "gpa2hva 0x%llx",
			(unsigned long long)block.guest_address);
		answer = ask_monitor(domain, command);
		if (!answer || !hf_memory_block_parse_host(answer, &block, &address))
			continue;
		entry = json_object_new_object();
		hf_json_add_string(entry, "id", block.id);
		hf_json_add_int(entry, "address", (int64_t)address);
		hf_json_append(list, entry);
	}
	hf_json_add(o, "memory", list);
}

static bool is_known(const char *uuid, char *const *known)
{
	for (; *known; known++)
		if (strcmp(*known, uuid) == 0)
			return true;
	return false;
}

static void add_domain(struct json_object *list, virDomainPtr domain, char *const *known)
{
	char *xml = virDomainGetXMLDesc(domain, 0);
	char uuid[VIR_UUID_STRING_BUFLEN];
	struct json_object *o;
	xmlDoc *doc;

	hf_libvirt_patience();
	if (!xml || virDomainGetUUIDString(domain, uuid) < 0) {
		free(xml);
		return;
	}
	doc = xmlReadMemory(xml, (int)strlen(xml), NULL, NULL, XML_OPTIONS);
	free(xml);
	o = json_object_new_object();
	hf_json_add_string(o, "uuid", uuid);
	hf_json_add_string(o, "name", virDomainGetName(domain));
	hf_json_add_int(o, "id", (int)virDomainGetID(domain));
	hf_json_add_bool(o, "persistent", virDomainIsPersistent(domain) == 1);
	if (doc) {
		add_emulator(o, xmlDocGetRootElement(doc));
		add_settings(o, xmlDocGetRootElement(doc));
		if (!is_known(uuid, known) && has_memfds(xmlDocGetRootElement(doc)))
			add_memory(o, domain);
	}
	xmlFreeDoc(doc);
	hf_json_append(list, o);
}

static int list_domains(struct json_object *list, char *const *known, struct hf_error *e)
{
	virDomainPtr *domains = NULL;
	virConnectPtr conn;
	int n, r = hf_libvirt_connect(NULL, &conn, e);

	if (r < 0)
		return r;
	n = virConnectListAllDomains(conn, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
	if (n < 0)
		r = hf_libvirt_error(e, "can't list the domains");
	hf_libvirt_patience();
	for (int i = 0; i < n; i++) {
		add_domain(list, domains[i], known);
		virDomainFree(domains[i]);
	}
	free(domains);
	virConnectClose(conn);
	return r;
}

static int run(const struct hf_libvirt_verb *verb, int argc, char **argv)
{
	cleanup_json struct json_object *answer = json_object_new_object();
	struct json_object *list = json_object_new_array();
	struct hf_error e = {0};
	const char *text;
	int r;

	r = list_domains(list, argv + 1, &e);
	if (r < 0) {
		json_object_put(list);
		hf_json_add_string(answer, "error", e.message);
	} else {
		hf_json_add(answer, "domains", list);
	}
	text = json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN);
	r = text ? hf_fd_write_full(RESULT_FD, text, strlen(text)) : -ENOMEM;
	return r < 0 ? HF_LIBVIRT_FAILED : HF_LIBVIRT_OK;
}

const struct hf_libvirt_verb hf_libvirt_verb_list = {
	.name = "list",
	.usage = "[KNOWN-UUID]... 3>FILE",
	.help = "The domains that run, as JSON on descriptor 3. For holdfastd.\n",
	.run = run,
};
