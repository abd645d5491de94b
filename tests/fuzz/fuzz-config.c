/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Any file in the place of the configuration, and any setting of a launcher.
 *
 * What is right prints as a file that is right, and that prints as itself. Every problem has a line
 * of the file and a sentence.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hf_config *parse(const void *data, size_t size)
{
	struct hf_config *c = hf_config_new();

	if (!c || hf_config_parse(c, "file", data, size) < 0)
		abort();
	return c;
}

static char *print(const struct hf_config *c, size_t *ret_size)
{
	char *text = NULL;
	FILE *f = open_memstream(&text, ret_size);

	hf_config_print(c, f);
	fclose(f);
	return text;
}

static void check_problems(
	const struct hf_config *c, const uint8_t *data, size_t size, size_t *ret_total)
{
	size_t n, lines = 1;
	const struct hf_config_problem *p = hf_config_problems(c, &n, ret_total);

	for (size_t i = 0; i < size; i++)
		lines += data[i] == '\n';
	if (n > *ret_total || n > HF_CONFIG_MAX_PROBLEMS)
		abort();
	for (size_t i = 0; i < n; i++)
		if (!p[i].message[0] || p[i].line == 0 || p[i].line > lines)
			abort();
}

static void check_policy(const struct hf_config *c, const uint8_t *data, size_t size)
{
	struct hf_manifest_guest g = {.name = (char *)"web1"};
	char *setting = strndup((const char *)data, size);
	struct hf_policy p, same;
	struct hf_error e = {0};

	strcpy(g.uuid, "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab");
	g.settings = &setting;
	g.n_settings = 1;
	if (hf_config_policy(c, &g, &p, &e) < 0 && !e.message[0])
		abort();
	/* Whatever is in effect is a value that can be. */
	same = p;
	hf_policy_repair(&p);
	if (memcmp(&p, &same, sizeof(p)) != 0)
		abort();
	hf_policy_clear(&p);
	free(setting);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hf_config *c = parse(data, size), *again;
	size_t total, first_size, second_size;
	char *first, *second;

	check_problems(c, data, size, &total);
	check_policy(c, data, size);
	first = print(c, &first_size);
	again = parse(first, first_size);
	second = print(again, &second_size);
	hf_config_problems(again, &(size_t){0}, &total);
	if (total != 0 || first_size != second_size || memcmp(first, second, first_size) != 0)
		abort();
	free(first);
	free(second);
	hf_config_free(c);
	hf_config_free(again);
	return 0;
}
