/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HF_FAULTS
#define HF_FAULTS 1 /* built with them only, but looked at by tools in any case */
#endif
#include "common/fault.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
#define HF_FAULT_POINT(id, name, phase, death, failure, text) [HF_FAULT_##id] = (name),
#include "common/fault-points.def"
#undef HF_FAULT_POINT
};

static atomic_uint visits[HF_FAULT_N_];

/* What is to happen at this visit of the point, or NULL. Points into the environment. */
static const char *wanted(enum hf_fault_point point, unsigned int visit)
{
	const char *p = getenv("HOLDFAST_FAULT");
	size_t len = strlen(names[point]);

	for (; p && *p; p += *p == ',') {
		size_t entry = strcspn(p, ",");
		const char *colon = memchr(p, ':', entry);
		unsigned long nth = colon ? strtoul(colon + 1, NULL, 10) : 1;

		if (strncmp(p, names[point], len) == 0 && p[len] == '=' && nth == visit)
			return p + len + 1;
		p += entry;
	}
	return NULL;
}

static bool is(const char *kind, const char *what)
{
	size_t len = strlen(what);

	return strncmp(kind, what, len) == 0 && (!kind[len] || strchr(",:", kind[len]));
}

int hf_fault(enum hf_fault_point point, struct hf_error *e)
{
	const char *kind = wanted(point, ++visits[point]);
	int r;

	if (!kind)
		return 0;
	dprintf(STDERR_FILENO, "fault point %s: %.*s\n", names[point], (int)strcspn(kind, ",:"),
		kind);
	if (is(kind, "exit"))
		_exit(99);
	if (is(kind, "SIGKILL"))
		raise(SIGKILL);
	while (is(kind, "hang"))
		pause();
	r = is(kind, "ENOMEM")	 ? -ENOMEM
	    : is(kind, "ENOSPC") ? -ENOSPC
	    : is(kind, "EIO")	 ? -EIO
				 : 0;
	if (r == 0) {
		dprintf(STDERR_FILENO, "fault point %s: no such kind\n", names[point]);
		_exit(98);
	}
	return hf_error_set(
		e, r, HF_ERR_FAILED, NULL, "fault point %s: %s", names[point], strerror(-r));
}
