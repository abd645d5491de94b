/* SPDX-License-Identifier: Apache-2.0 */
#include "common/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int hf_error_set(
	struct hf_error *e, int err, const char *name, const char *remedy, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return err;
	e->err = err;
	e->guest[0] = 0;
	snprintf(e->name, sizeof(e->name), "%s", name);
	snprintf(e->remedy, sizeof(e->remedy), "%s", remedy ? remedy : "");
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof(e->message), fmt, ap);
	va_end(ap);
	return err;
}

int hf_error_prefix(struct hf_error *e, const char *fmt, ...)
{
	char old[sizeof(e->message)];
	va_list ap;
	size_t n;

	if (!e || !e->err)
		return 0;
	memcpy(old, e->message, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof(e->message), fmt, ap);
	va_end(ap);
	n = strlen(e->message);
	snprintf(e->message + n, sizeof(e->message) - n, ": %s", old);
	return e->err;
}

void hf_error_guest(struct hf_error *e, const char *guest)
{
	if (e)
		snprintf(e->guest, sizeof(e->guest), "%s", guest);
}
