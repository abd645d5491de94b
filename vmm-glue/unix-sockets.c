/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/unix-sockets.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"

#define UNIX_LISTENS 0x10000u /* Flags: __SO_ACCEPTCON */
#define TABLE_MAX_BYTES (16u << 20)

struct listener {
	uint64_t inode;
	const char *path; /* in the table */
	size_t len;
};

/* From the end of one line on. Return: where the next search begins; NULL: there is none. */
static const char *next_listener(const char *s, struct listener *ret)
{
	while ((s = strchr(s, '\n')) && *++s) {
		unsigned int flags;
		int at = 0;

		if (sscanf(s, "%*[^:]: %*x %*x %x %*x %*x %" SCNu64 " %n", &flags, &ret->inode,
			    &at) < 2 ||
			!(flags & UNIX_LISTENS) || at == 0 || s[at] != '/')
			continue;
		ret->path = s + at;
		ret->len = strcspn(s + at, "\n");
		return s;
	}
	return NULL;
}

int hf_unix_table_read(char **ret_table)
{
	return hf_file_read("/proc/net/unix", TABLE_MAX_BYTES, ret_table, NULL);
}

int hf_unix_listener_path(const char *table, uint64_t inode, char *ret, size_t size)
{
	struct listener l;

	for (const char *s = table; (s = next_listener(s, &l));) {
		if (l.inode != inode)
			continue;
		if (l.len >= size)
			return -ENAMETOOLONG;
		snprintf(ret, size, "%.*s", (int)l.len, l.path);
		return 0;
	}
	return -ENOENT;
}

bool hf_unix_listens(const char *path)
{
	cleanup_free char *table = NULL;
	struct listener l;

	if (hf_unix_table_read(&table) < 0)
		return false;
	for (const char *s = table; (s = next_listener(s, &l));)
		if (l.len == strlen(path) && memcmp(l.path, path, l.len) == 0)
			return true;
	return false;
}
