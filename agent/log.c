/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-journal.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static char context_update[64];
static char context_phase[32];
static bool debug_on;

void hf_log_context(const char *update_id, const char *phase)
{
	snprintf(context_update, sizeof(context_update), "%s", update_id ? update_id : "");
	snprintf(context_phase, sizeof(context_phase), "%s", phase ? phase : "");
}

void hf_log_debug_on(void)
{
	debug_on = true;
}

void hf_log(int priority, const char *guest_uuid, const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	if (priority >= LOG_DEBUG && !debug_on)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (getenv("JOURNAL_STREAM") && access(JOURNAL_SOCKET, F_OK) == 0 &&
		sd_journal_send("MESSAGE=%s", line, "PRIORITY=%i", priority, "UPDATE_ID=%s",
			context_update, "PHASE=%s", context_phase, "GUEST_UUID=%s",
			guest_uuid ? guest_uuid : "", "SYSLOG_IDENTIFIER=holdfastd", NULL) == 0)
		return;
	fprintf(stderr, "holdfastd: %s\n", line);
}
