/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast history: the updates of this host, the newest first.
 */
#include "agent/cli/cli.h"

#include <string.h>

static void row(struct hf_cli_table *table, struct json_object *update)
{
	int64_t blackout = hf_json_get_int(update, "longest_blackout_ns", 0);
	int64_t afresh = hf_json_get_int(update, "cold_booted", 0);
	char text[512];

	hf_cli_table_cell(table, hf_json_get_string(update, "time", ""));
	hf_cli_table_cell(table, hf_json_get_string(update, "id", "?"));
	snprintf(text, sizeof(text), "%s -> %s", hf_json_get_string(update, "from_kernel", "?"),
		hf_json_get_string(update, "to_kernel", "?"));
	hf_cli_table_cell(table, text);
	hf_cli_table_cell(table, hf_json_get_string(update, "outcome", "?"));
	snprintf(text, sizeof(text), "%lld", (long long)hf_json_get_int(update, "guests", 0));
	if (afresh > 0)
		snprintf(text, sizeof(text), "%lld (%lld afresh)",
			(long long)hf_json_get_int(update, "guests", 0), (long long)afresh);
	hf_cli_table_cell(table, text);
	hf_cli_table_cell(table, blackout > 0 ? hf_cli_duration(blackout) : "");
}

void hf_cli_show_skipped(struct json_object *skipped)
{
	size_t n = hf_json_array_size(skipped);

	for (size_t i = 0; i < n; i++)
		fprintf(stderr,
			"holdfast: the report of update %s can't be read, and is left out\n",
			hf_cli_clean(
				json_object_get_string(json_object_array_get_idx(skipped, i))));
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	static const char *const columns[] = {"TIME", "UPDATE", "KERNEL", "OUTCOME",
		HF_CLI_RIGHT "GUESTS", HF_CLI_RIGHT "BLACKOUT"};
	cleanup_json struct json_object *reply = NULL;
	struct hf_cli_table table = {0};
	struct json_object *updates;
	int r;

	r = hf_cli_parse(cli, argc, argv, NULL, 0, NULL);
	if (r == HF_CLI_GO_ON)
		r = hf_cli_fetch(cli, "History", NULL, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json) {
		hf_cli_print_json(reply);
		return HF_EXIT_OK;
	}
	updates = hf_json_get_array(reply, "updates");
	if (hf_json_array_size(updates) == 0)
		puts("No update has been made yet.");
	for (size_t i = 0; i < HF_ARRAY_SIZE(columns); i++)
		hf_cli_table_column(&table, columns[i]);
	for (size_t i = 0; i < hf_json_array_size(updates); i++)
		row(&table, json_object_array_get_idx(updates, i));
	if (table.n_cells > 0)
		hf_cli_table_print(cli, &table);
	hf_cli_show_skipped(hf_json_get_array(reply, "skipped"));
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_history = {
	.name = "history",
	.usage = "",
	.summary = "the updates of this host, the newest first",
	.help = "Lists the updates that there are reports of, the newest first: when each was\n"
		"over (UTC), its id for `holdfast report`, the kernels, the outcome, how many\n"
		"guests there were (and how many of them were started afresh), and how long\n"
		"the one stood still that did so for longest.\n",
	.run = run,
};
