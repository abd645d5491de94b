/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What QEMU prints about itself, taken apart.
 *
 * The program is the choice of the guest's user, so this is input. QEMU's libraries, and wrappers
 * around it, may print lines of their own before and between.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "vmm-glue/installed.h"

#define MAX_LINES 512

/* Takes the next line off. False at the end. */
static bool next_line(const char **text, size_t *size, const char **ret, size_t *ret_n)
{
	const char *nl;

	if (*size == 0)
		return false;
	nl = memchr(*text, '\n', *size);
	*ret = *text;
	*ret_n = nl ? (size_t)(nl - *text) : *size;
	*text += *ret_n + (nl ? 1 : 0);
	*size -= *ret_n + (nl ? 1 : 0);
	if (*ret_n > 0 && (*ret)[*ret_n - 1] == '\r')
		--*ret_n;
	return true;
}

static bool is_printable(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return false;
	return true;
}

/* `1:2.3 …` in the brackets that end the line, as QMP has it: without them, "" when there are none.
 */
static void take_package(const char *s, char *buf, size_t size)
{
	size_t n = strlen(s);

	buf[0] = 0;
	if (n < 3 || s[0] != ' ' || s[1] != '(' || s[n - 1] != ')')
		return;
	snprintf(buf, size, "%.*s", (int)(n - 3), s + 2);
}

int hf_installed_parse_version(const char *text, size_t size, struct hf_qmp_version *ret)
{
	static const char intro[] = "QEMU emulator version ";
	struct hf_qmp_version v = {0};
	const char *line;
	char copy[256];
	size_t n;
	int end;

	while (next_line(&text, &size, &line, &n)) {
		if (n < sizeof(intro) || n - sizeof(intro) >= sizeof(copy) - 1 ||
			memcmp(line, intro, sizeof(intro) - 1) != 0 || !is_printable(line, n))
			continue;
		snprintf(copy, sizeof(copy), "%.*s", (int)(n - sizeof(intro) + 1),
			line + sizeof(intro) - 1);
		end = 0;
		/* Four digits at most, as QMP's versions may have; the span leaves no signs. */
		if (sscanf(copy, "%4u.%4u.%4u%n", &v.major, &v.minor, &v.micro, &end) < 3 ||
			strspn(copy, "0123456789.") != (size_t)end ||
			(copy[end] != 0 && copy[end] != ' '))
			return -EBADMSG;
		take_package(copy + end, v.package, sizeof(v.package));
		*ret = v;
		return 0;
	}
	return -EBADMSG;
}

/* How much of a line counts, 0: it doesn't. */
typedef size_t (*pick_fn)(const char *line, size_t n);

static int collect(const char *text, size_t size, pick_fn pick, char ***ret)
{
	const char *rest = text, *line;
	size_t left = size, n, found = 0, bytes = 0, used;
	char **list, *p;

	while (next_line(&rest, &left, &line, &n)) {
		used = pick(line, n);
		found += used > 0;
		bytes += used > 0 ? used + 1 : 0;
	}
	/* A part of a list would be worse than none. */
	if (found == 0 || found > MAX_LINES)
		return -EBADMSG;
	list = malloc((found + 1) * sizeof(*list) + bytes);
	if (!list)
		return -ENOMEM;
	p = (char *)(list + found + 1);
	list[found] = NULL;
	for (size_t i = 0; i < found && next_line(&text, &size, &line, &n);) {
		used = pick(line, n);
		if (used == 0)
			continue;
		list[i++] = p;
		memcpy(p, line, used);
		p[used] = 0;
		p += used + 1;
	}
	*ret = list;
	return 0;
}

/* `pc-q35-10.0          Standard PC (Q35 + ICH9, 2009)` */
static size_t pick_machine(const char *line, size_t n)
{
	size_t i = 0;

	while (i < n && line[i] > ' ' && line[i] != 0x7f)
		i++;
	/* The head line, and whatever a library says, has one blank behind its first word. */
	return i > 0 && i + 1 < n && line[i] == ' ' && (line[i + 1] == ' ' || i >= 20) &&
			       line[i - 1] != ':'
		       ? i
		       : 0;
}

int hf_installed_parse_machines(const char *text, size_t size, char ***ret)
{
	const char *head = memmem(text, size, "Supported machines are:", 23);

	if (!head)
		return -EBADMSG;
	return collect(head, size - (size_t)(head - text), pick_machine, ret);
}

static size_t pick_dir(const char *line, size_t n)
{
	return n > 0 && n < 4096 && line[0] == '/' && is_printable(line, n) ? n : 0;
}

int hf_installed_parse_dirs(const char *text, size_t size, char ***ret)
{
	return collect(text, size, pick_dir, ret);
}
