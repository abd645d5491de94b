/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/libvirt/domain-xml.h"

#include <libxml/parser.h>
#include <libxml/tree.h>
#include <libxml/xpath.h>
#include <string.h>

#define S(text) ((const xmlChar *)(text))

static const char *const hypervisors[] = {
	"kvm", "qemu", "test", /* libvirt's driver for trying programs out */
};

/* What the memory of such a domain is lost with, or what it can't come along with anyway. */
static const struct {
	const char *xpath;
	struct hf_domain_xml_refusal refusal;
} refused[] = {
	{"/domain/memoryBacking/hugepages",
		{"its memory is on hugetlb pages, which the kernel does not hand over",
			"remove <hugepages/> from <memoryBacking>; the tmpfs that `holdfast "
			"libvirt setup` makes has transparent huge pages"}},
	{"/domain/memoryBacking/discard | /domain/cpu/numa/cell[@discard='yes']",
		{"QEMU is told to discard its memory when it ends",
			"remove <discard/> from <memoryBacking> and discard= from NUMA cells"}},
	{"/domain/devices/memory",
		{"it has memory devices (dimm, nvdimm, virtio-mem, ...)",
			"give it all of its memory as <memory> and remove the <memory> devices"}},
	{"/domain/devices/hostdev[@mode='subsystem' and (@type='pci' or @type='mdev')] | "
	 "/domain/devices/interface[@type='hostdev']",
		{"it has a PCI device of the host (VFIO), whose state can't be saved",
			"remove it, or shut the domain down for an update"}},
	{"/domain/devices/disk[@type='nvme']",
		{"it has an NVMe disk of the host by VFIO, whose state can't be saved",
			"give it the disk as <disk type='block'>"}},
	{"/domain/devices/interface[@type='vdpa'] | /domain/devices/disk[@type='vhostvdpa']",
		{"it has a vDPA device, whose state can't be saved",
			"use a virtio device with a tap or an image"}},
	{"/domain/devices/interface[@type='vhostuser'] | /domain/devices/disk[@type='vhostuser'] | "
	 "/domain/devices/filesystem[driver/@type='virtiofs']",
		{"a process beside QEMU has its memory mapped (vhost-user, virtiofs), which would "
		 "not be started again",
			"use devices that QEMU itself provides"}},
	{"/domain/launchSecurity", {"its memory is encrypted by the processor (<launchSecurity>)",
					   "shut the domain down for an update"}},
};

static bool name_is(const xmlNode *node, const char *name)
{
	return node->type == XML_ELEMENT_NODE && !node->ns && xmlStrEqual(node->name, S(name));
}

static xmlNode *child_named(const xmlNode *parent, const char *name)
{
	for (xmlNode *c = parent->children; c; c = c->next)
		if (name_is(c, name))
			return c;
	return NULL;
}

static bool attr_is(const xmlNode *node, const char *attr, const char *value)
{
	xmlChar *has = xmlGetNoNsProp(node, S(attr));
	bool equal = has && xmlStrEqual(has, S(value));

	xmlFree(has);
	return equal;
}

/* Line feed and indentation, as libvirt lays its XML out. */
static xmlNode *new_indent(int depth)
{
	char text[32];

	snprintf(text, sizeof(text), "\n%*s", depth * 2, "");
	return xmlNewText(S(text));
}

/*
 * A new element in @parent, whose children are @depth deep: behind @after, or as the first. Return:
 * NULL for lack of memory.
 */
static xmlNode *add_child(xmlNode *parent, const char *name, int depth, xmlNode *after)
{
	xmlNode *node = xmlNewNode(NULL, S(name)), *indent = new_indent(depth);
	xmlNode *end = NULL;

	if (node && indent && !after && !xmlFirstElementChild(parent)) {
		/* Whatever blanks it has: now it has children. */
		xmlNodeSetContent(parent, NULL);
		end = new_indent(depth - 1);
		if (end && !xmlAddChild(parent, end))
			xmlFreeNode(end), end = NULL;
		if (!end) {
			xmlFreeNode(node);
			xmlFreeNode(indent);
			return NULL;
		}
	}
	if (node && indent) {
		if (after)
			xmlAddNextSibling(after, node);
		else if (parent->children)
			xmlAddPrevSibling(parent->children, node);
		/* In this order: two texts side by side would become one. */
		xmlAddPrevSibling(node, indent);
		return node;
	}
	xmlFreeNode(node);
	xmlFreeNode(indent);
	return NULL;
}

static int set_attr(xmlNode *node, const char *attr, const char *value)
{
	if (attr_is(node, attr, value))
		return 0;
	return xmlSetProp(node, S(attr), S(value)) ? 0 : -ENOMEM;
}

/* <name attr='value'/> in <memoryBacking>, as which there is one at most. */
static int set_backing(xmlNode *backing, const char *name, const char *attr, const char *value)
{
	xmlNode *node = child_named(backing, name);

	if (!node)
		node = add_child(backing, name, 2, xmlLastElementChild(backing));
	return node ? set_attr(node, attr, value) : -ENOMEM;
}

static int edit_backing(xmlNode *domain)
{
	/* Where libvirt itself would put it. */
	static const char *const before[] = {
		"memtune", "blkiotune", "currentMemory", "memory", "maxMemory", "uuid", "name"};
	xmlNode *backing = child_named(domain, "memoryBacking"), *after = NULL;
	int r;

	for (size_t i = 0; !after && i < HF_ARRAY_SIZE(before); i++)
		after = child_named(domain, before[i]);
	if (!backing)
		backing = add_child(domain, "memoryBacking", 1, after);
	if (!backing)
		return -ENOMEM;
	r = set_backing(backing, "source", "type", "file");
	return r < 0 ? r : set_backing(backing, "access", "mode", "shared");
}

/* A cell's own word goes before that of <memoryBacking>. */
static int edit_cells(xmlNode *domain)
{
	xmlNode *cpu = child_named(domain, "cpu");
	xmlNode *numa = cpu ? child_named(cpu, "numa") : NULL;

	for (xmlNode *cell = numa ? numa->children : NULL; cell; cell = cell->next)
		if (name_is(cell, "cell") && xmlHasProp(cell, S("memAccess")) &&
			set_attr(cell, "memAccess", "shared") < 0)
			return -ENOMEM;
	return 0;
}

static int collect_refusals(xmlDoc *doc, struct hf_domain_xml *d)
{
	xmlXPathContext *context = xmlXPathNewContext(doc);

	if (!context)
		return -ENOMEM;
	for (size_t i = 0; i < HF_ARRAY_SIZE(refused); i++) {
		xmlXPathObject *found = xmlXPathEvalExpression(S(refused[i].xpath), context);

		if (!found) {
			xmlXPathFreeContext(context);
			return -ENOMEM;
		}
		if (!xmlXPathNodeSetIsEmpty(found->nodesetval))
			d->refusals[d->n_refusals++] = &refused[i].refusal;
		xmlXPathFreeObject(found);
	}
	xmlXPathFreeContext(context);
	return 0;
}
_Static_assert(HF_ARRAY_SIZE(refused) <= HF_DOMAIN_XML_MAX_REFUSALS, "no room for all refusals");

static char *to_text(xmlDoc *doc)
{
	xmlBuffer *buffer = xmlBufferCreate();
	char *text = NULL;

	if (buffer && xmlNodeDump(buffer, doc, xmlDocGetRootElement(doc), 0, 0) >= 0 &&
		asprintf(&text, "%s\n", (const char *)xmlBufferContent(buffer)) < 0)
		text = NULL;
	if (buffer)
		xmlBufferFree(buffer);
	return text;
}

static int no_domain(struct hf_error *e, const char *why)
{
	return hf_error_set(
		e, -EBADMSG, HF_ERR_FAILED, NULL, "what libvirt says is no domain: %s", why);
}

static int parse(const void *xml, size_t size, xmlDoc **ret, struct hf_error *e)
{
	/* No entities are resolved, nothing is loaded, and libxml2's own limits hold. */
	int flags = XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING;
	xmlDoc *doc = NULL;

	if (size > HF_DOMAIN_XML_MAX_BYTES)
		return hf_error_set(e, -EFBIG, HF_ERR_FAILED, NULL, "its XML has more than %u MiB",
			HF_DOMAIN_XML_MAX_BYTES >> 20);
	doc = xmlReadMemory(xml, (int)size, NULL, "UTF-8", flags);
	if (!doc)
		return no_domain(e, "it is not well-formed XML");
	if (doc->intSubset || doc->extSubset) {
		xmlFreeDoc(doc);
		return no_domain(e, "it has a document type");
	}
	*ret = doc;
	return 0;
}

static int check_domain(const xmlNode *domain, struct hf_error *e)
{
	xmlChar *type;
	bool known = false;
	int r = 0;

	if (!domain || !name_is(domain, "domain") || !child_named(domain, "name") ||
		!child_named(domain, "memory"))
		return no_domain(e, "there is no <domain> with <name> and <memory>");
	type = xmlGetNoNsProp(domain, S("type"));
	for (size_t i = 0; type && i < HF_ARRAY_SIZE(hypervisors); i++)
		known = known || xmlStrEqual(type, S(hypervisors[i]));
	if (!known)
		r = hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"only domains of the types kvm and qemu can be carried over",
			"it is a domain of the type '%.32s'", type ? (const char *)type : "");
	xmlFree(type);
	return r;
}

static int enable(xmlDoc *doc, struct hf_domain_xml *d, struct hf_error *e)
{
	xmlNode *domain = xmlDocGetRootElement(doc);
	int r = check_domain(domain, e);

	if (r < 0)
		return r;
	r = collect_refusals(doc, d);
	d->before = to_text(doc);
	if (r == 0)
		r = edit_backing(domain);
	if (r == 0)
		r = edit_cells(domain);
	d->after = to_text(doc);
	if (r < 0 || !d->before || !d->after)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	d->to_do = strcmp(d->before, d->after) != 0;
	return 0;
}

int hf_domain_xml_enable(
	const void *xml, size_t size, struct hf_domain_xml *ret, struct hf_error *e)
{
	struct hf_domain_xml d = {0};
	xmlDoc *doc = NULL;
	int r = parse(xml, size, &doc, e);

	if (r < 0)
		return r;
	r = enable(doc, &d, e);
	xmlFreeDoc(doc);
	if (r < 0)
		hf_domain_xml_clear(&d);
	else
		*ret = d;
	return r;
}

void hf_domain_xml_clear(struct hf_domain_xml *d)
{
	free(d->before);
	free(d->after);
	*d = (struct hf_domain_xml){0};
}

void hf_domain_xml_hide(char *xml)
{
	static const char attr[] = " passwd=";

	for (char *p = xml; (p = strstr(p, attr));) {
		char quote = *(p += sizeof(attr) - 1);

		if (quote != '"' && quote != '\'')
			continue;
		while (*++p && *p != quote)
			*p = '*';
	}
}
