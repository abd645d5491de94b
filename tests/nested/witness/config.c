// SPDX-License-Identifier: Apache-2.0
/**
 * DOC: hf.* words of the command line
 *
 * The kernel hands words it doesn't know with a dot in them to nobody, so the witness reads
 * /proc/cmdline. An hf.* word that it doesn't understand is an error: a test that misspells an
 * option must not pass without it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "witness.h"

enum kind { KIND_U64, KIND_STR };

static const struct option {
	const char *key;
	enum kind kind;
	size_t offset;
	size_t size;
	uint64_t min;
	uint64_t max;
} options[] = {
#define STR(k, f) \
	{ \
		k, KIND_STR, offsetof(struct config, f), sizeof(((struct config *)0)->f), 0, 0 \
	}
#define NUM(k, f, lo, hi) \
	{ \
		k, KIND_U64, offsetof(struct config, f), sizeof(uint64_t), lo, hi \
	}
	STR("hf.name", name),
	NUM("hf.seed", seed, 0, UINT64_MAX),
	NUM("hf.ram_mib", ram_mib, 1, 1UL << 24),
	NUM("hf.mem", mem_pct, 1, 95),
	NUM("hf.mem_mib", mem_mib, 1, 1UL << 24),
	NUM("hf.threads", threads, 1, MEM_MAX_THREADS),
	NUM("hf.duty", duty, 1, 100),
	NUM("hf.clock_ms", clock_ms, 1, 1000),
	NUM("hf.report_ms", report_ms, 50, 60000),
	STR("hf.disk", disk),
	NUM("hf.disk_slots", disk_slots, 16, 65536),
	NUM("hf.disk_ms", disk_ms, 1, 60000),
	NUM("hf.disk_reuse", disk_reuse, 0, 1),
	STR("hf.ip", ip),
	STR("hf.gw", gw),
	STR("hf.if", ifname),
	NUM("hf.port", port, 0, 65535),
};

void config_defaults(struct config *cfg)
{
	*cfg = (struct config){
		.name = "guest",
		.seed = 1,
		.mem_pct = 75,
		.duty = 20,
		.clock_ms = 5,
		.report_ms = 1000,
		.disk_slots = 256,
		.disk_ms = 50,
		.ifname = "eth0",
		.port = 7000,
	};
}

static int parse_u64(const struct option *o, const char *text, uint64_t *ret_value)
{
	unsigned long long v;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || *end)
		return -EINVAL;
	if (v < o->min || v > o->max)
		return -ERANGE;
	*ret_value = v;
	return 0;
}

static int parse_str(const struct option *o, const char *text, char *ret_value)
{
	size_t len = strlen(text);

	if (!len || len >= o->size)
		return -EINVAL;
	memcpy(ret_value, text, len + 1);
	return 0;
}

/* Returns 0 also for a word that is none of ours. */
int config_parse_word(struct config *cfg, const char *word)
{
	if (strncmp(word, "hf.", 3))
		return 0;

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		const struct option *o = &options[i];
		size_t len = strlen(o->key);
		char *field = (char *)cfg + o->offset;

		if (strncmp(word, o->key, len) || word[len] != '=')
			continue;
		if (!strcmp(o->key, "hf.ip") || !strcmp(o->key, "hf.port"))
			cfg->net = true;
		if (o->kind == KIND_U64)
			return parse_u64(o, word + len + 1, (uint64_t *)(void *)field);
		return parse_str(o, word + len + 1, field);
	}
	return -EINVAL;
}

int config_parse_line(struct config *cfg, char *line)
{
	char *save = NULL;
	int r = 0;

	for (char *word = strtok_r(line, " \t\n", &save); word;
		word = strtok_r(NULL, " \t\n", &save)) {
		r = config_parse_word(cfg, word);
		if (r < 0)
			return r;
	}
	return 0;
}
