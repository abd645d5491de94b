/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Changing libvirt's status file for another process: text in, text out.
 *
 * libvirt wrote it a moment before and reads it itself, so what is not to be changed stays as it
 * is, byte for byte. It is written by one formatter: attributes in single quotes, one element a
 * line.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vmm-glue/libvirt.h"

#define PTS "'/dev/pts/"

struct out {
	char *text;
	size_t n, room;
	bool failed;
};

static void put(struct out *o, const char *s, size_t n)
{
	if (o->failed)
		return;
	if (!o->text || o->n + n + 1 > o->room) {
		size_t room = (o->n + n + 1) * 2;
		char *text = realloc(o->text, room);

		if (!text) {
			o->failed = true;
			return;
		}
		o->text = text;
		o->room = room;
	}
	memcpy(o->text + o->n, s, n);
	o->n += n;
	o->text[o->n] = 0;
}

/* The start tag of the device that an alias belongs to: the last one opened before it. */
static const char *device_of(const char *xml, const char *alias)
{
	static const char *const names[] = {
		"<serial ", "<console ", "<channel ", "<parallel ", "<redirdev ", "<smartcard "};
	const char *last = NULL;

	for (size_t i = 0; i < HF_ARRAY_SIZE(names); i++)
		for (const char *s = xml; (s = strstr(s, names[i])) && s < alias; s++)
			if (!last || s > last)
				last = s;
	return last;
}

/* The terminal that belongs at @at, the place of an old one's path; NULL: it stays. */
static const struct hf_libvirt_pty *pty_at(
	const char *xml, const char *at, const struct hf_libvirt_pty *ptys, size_t n)
{
	char want[96];

	for (size_t i = 0; i < n; i++) {
		snprintf(want, sizeof(want), "<alias name='%s'/>", ptys[i].alias);
		for (const char *a = xml; (a = strstr(a, want)); a++) {
			const char *begin = device_of(xml, a);

			if (begin && begin <= at && at < a)
				return &ptys[i];
		}
	}
	return NULL;
}

static void put_with_ptys(struct out *o, const char *xml, const char *from, const char *to,
	const struct hf_libvirt_pty *ptys, size_t n)
{
	while (from < to) {
		const char *at = strstr(from, PTS);
		const struct hf_libvirt_pty *pty;

		if (!at || at >= to)
			break;
		pty = pty_at(xml, at, ptys, n);
		put(o, from, at + 1 - from);
		from = at + 1;
		if (!pty)
			continue;
		put(o, pty->path, strlen(pty->path));
		from += strcspn(from, "'");
	}
	if (from < to)
		put(o, from, to - from);
}

/* ---- files of consoles ---- */

/*
 * Where the domain's devices begin. Metadata are anybody's elements, and have to be behind it; all
 * other texts have no `<` in them.
 */
static const char *find_devices(const char *xml, const char **ret_end)
{
	static const char metadata[] = "<metadata", end_metadata[] = "</metadata>";
	const char *status = strstr(xml, "<domstatus "), *domain, *skip, *devices;

	domain = status ? strstr(status, "<domain ") : NULL;
	if (!domain)
		return NULL;
	devices = strstr(domain, "<devices>");
	skip = strstr(domain, metadata);
	if (skip && devices && skip < devices) {
		for (const char *s = skip; (s = strstr(s, end_metadata)); s++)
			skip = s;
		devices = strstr(skip, "<devices>");
	}
	*ret_end = devices ? strstr(devices, "</devices>") : NULL;
	return *ret_end ? devices : NULL;
}

/* The value of an attribute that begins here, without its references. */
static int take_value(const char *s, char *ret, size_t size)
{
	static const struct {
		const char *name;
		char c;
	} references[] = {
		{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&apos;", '\''}, {"&quot;", '"'}};
	size_t n = 0;

	for (; *s && *s != '\''; s++) {
		char c = *s;

		for (size_t i = 0; *s == '&' && i < HF_ARRAY_SIZE(references); i++)
			if (strncmp(s, references[i].name, strlen(references[i].name)) == 0) {
				c = references[i].c;
				s += strlen(references[i].name) - 1;
			}
		if (c == '&' && *s == '&')
			return -EBADMSG;
		if (n + 1 >= size)
			return -ENAMETOOLONG;
		ret[n++] = c;
	}
	ret[n] = 0;
	return *s ? 0 : -EBADMSG;
}

/* The first place of a text before @end. */
static const char *find_before(const char *from, const char *end, const char *text)
{
	const char *s = strstr(from, text);

	return s && s < end ? s : NULL;
}

int hf_libvirt_console_path(const char *xml, const char *opaque, char *ret, size_t size)
{
	static const char source[] = "<source path='", log[] = "<log file='";
	const char *dash = strrchr(opaque, '-'), *end, *devices = find_devices(xml, &end);
	const char *element, *alias, *tag;
	bool is_log = dash && strcmp(dash, "-log") == 0;
	char want[160];

	if (!devices)
		return -EBADMSG;
	if (!dash || (!is_log && strcmp(dash, "-source") != 0))
		return -ENOENT;
	if (snprintf(want, sizeof(want), "<alias name='%.*s'/>", (int)(dash - opaque), opaque) >=
		(int)sizeof(want))
		return -ENOENT;
	alias = find_before(devices, end, want);
	element = alias ? device_of(devices, alias) : NULL;
	/* Another alias between them: that is the one of this element. */
	if (!element || find_before(element, alias, "<alias name='"))
		return -ENOENT;
	if (is_log) {
		tag = find_before(element, alias, log);
		return tag ? take_value(tag + strlen(log), ret, size) : -ENOENT;
	}
	tag = strchr(element, '>');
	if (!tag || !find_before(element, tag, " type='file'"))
		return -ENOENT;
	tag = find_before(tag, alias, source);
	return tag ? take_value(tag + strlen(source), ret, size) : -ENOENT;
}

/* ---- another process ---- */

int hf_libvirt_patch_status(const char *xml, pid_t pid, const struct hf_libvirt_pty *ptys,
	size_t n_ptys, char **ret_xml)
{
	static const char open[] = "<namespaces>", close[] = "</namespaces>";
	const char *status = strstr(xml, "<domstatus "), *end, *attr, *spaces, *after;
	struct out o = {0};
	char number[24];

	end = status ? strchr(status, '>') : NULL;
	attr = status ? strstr(status, " pid='") : NULL;
	if (!end || !attr || attr > end)
		return -EBADMSG;
	attr += strlen(" pid='");
	snprintf(number, sizeof(number), "%d", (int)pid);
	put(&o, xml, attr - xml);
	put(&o, number, strlen(number));
	attr += strcspn(attr, "'");
	/* Only libvirt's part of the file, which comes before the domain's: that may have any text.
	 */
	after = strstr(end, "<domain ");
	spaces = strstr(end, open);
	if (spaces && (!after || spaces < after)) {
		const char *over = strstr(spaces, close);

		if (!over) {
			free(o.text);
			return -EBADMSG;
		}
		put_with_ptys(&o, xml, attr, spaces, ptys, n_ptys);
		attr = over + sizeof(close) - 1;
	}
	put_with_ptys(&o, xml, attr, xml + strlen(xml), ptys, n_ptys);
	if (o.failed || !o.text) {
		free(o.text);
		return -ENOMEM;
	}
	*ret_xml = o.text;
	return 0;
}
