/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast plan: what an update would do, to whom, and how long that took before.
 */
#include "agent/cli/cli.h"

#include <string.h>

/* A cell with a duration out of an Estimate, or an empty one. */
static void time_cell(struct hf_cli_table *table, struct json_object *estimate, const char *key)
{
	hf_cli_table_cell(
		table, estimate ? hf_cli_duration(hf_json_get_int(estimate, key, 0)) : "");
}

static void columns(struct hf_cli_table *table, const char *const *titles, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hf_cli_table_column(table, titles[i]);
}

static void show_steps(const struct hf_cli *cli, struct json_object *steps)
{
	static const char *const titles[] = {
		"STEP", "GUESTS", HF_CLI_RIGHT "MEDIAN", HF_CLI_RIGHT "WORST", "WHAT HAPPENS"};
	struct hf_cli_table table = {0};

	columns(&table, titles, HF_ARRAY_SIZE(titles));
	for (size_t i = 0; i < hf_json_array_size(steps); i++) {
		struct json_object *step = json_object_array_get_idx(steps, i);
		struct json_object *estimate = hf_json_get_object(step, "estimate");

		hf_cli_table_cell(&table, hf_json_get_string(step, "name", "?"));
		hf_cli_table_cell(&table, hf_json_get_string(step, "guests", "?"));
		time_cell(&table, estimate, "median_ns");
		time_cell(&table, estimate, "worst_ns");
		hf_cli_table_cell(&table, hf_json_get_string(step, "what", ""));
	}
	puts("");
	hf_cli_table_print(cli, &table);
}

static const char *action_text(const char *action)
{
	if (strcmp(action, "carry") == 0)
		return "carried over";
	if (strcmp(action, "keep_paused") == 0)
		return "carried over, stays paused";
	if (strcmp(action, "adopt") == 0)
		return "adopted, then carried over";
	if (strcmp(action, "managed_save") == 0)
		return "saved by libvirt first";
	if (strcmp(action, "shut_down") == 0)
		return "shut down first";
	return strcmp(action, "refuse") == 0 ? "REFUSES THE UPDATE" : action;
}

static void show_guests(const struct hf_cli *cli, struct json_object *guests)
{
	static const char *const titles[] = {"GUEST", "ACTION", HF_CLI_RIGHT "RAM",
		HF_CLI_RIGHT "PRESERVE", HF_CLI_RIGHT "BLACKOUT", HF_CLI_RIGHT "WORST",
		HF_CLI_RIGHT "UPDATES", "WHY"};
	struct hf_cli_table table = {0};

	columns(&table, titles, HF_ARRAY_SIZE(titles));
	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		struct json_object *g = json_object_array_get_idx(guests, i);
		struct json_object *blackout = hf_json_get_object(g, "blackout");
		char text[32] = "";

		hf_cli_table_cell(&table, hf_json_get_string(g, "name", "?"));
		hf_cli_table_cell(&table, action_text(hf_json_get_string(g, "action", "?")));
		hf_cli_table_cell(&table, hf_cli_bytes(hf_json_get_int(g, "ram_bytes", 0)));
		time_cell(&table, hf_json_get_object(g, "preserve"), "median_ns");
		time_cell(&table, blackout, "median_ns");
		time_cell(&table, blackout, "worst_ns");
		if (blackout)
			snprintf(text, sizeof(text), "%lld",
				(long long)hf_json_get_int(blackout, "updates", 0));
		hf_cli_table_cell(&table, text);
		hf_cli_table_cell(&table, hf_json_get_string(g, "message", ""));
	}
	puts("");
	if (table.n_cells > 0)
		hf_cli_table_print(cli, &table);
	else
		puts("No guests.");
}

static void show_expectation(struct json_object *reply)
{
	struct json_object *blackout = hf_json_get_object(reply, "blackout");
	struct json_object *preserve = hf_json_get_object(reply, "preserve");
	long long updates = hf_json_get_int(reply, "updates", 0);

	puts("");
	if (updates == 0) {
		puts("No history yet: how long it takes is not known before the first update.");
		return;
	}
	if (blackout)
		printf("Blackout   %s, %s at worst: first guest paused to last guest running\n",
			hf_cli_duration(hf_json_get_int(blackout, "median_ns", 0)),
			hf_cli_duration(hf_json_get_int(blackout, "worst_ns", 0)));
	if (preserve)
		printf("Preserving %s, %s at worst: by RAM, for all guests one after the other\n",
			hf_cli_duration(hf_json_get_int(preserve, "median_ns", 0)),
			hf_cli_duration(hf_json_get_int(preserve, "worst_ns", 0)));
	printf("Times are of the last %lld updates of this host that were done.\n", updates);
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	cleanup_json struct json_object *reply = NULL;
	int r = hf_cli_ask_target(cli, argc, argv, "Plan", &reply);

	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json) {
		hf_cli_print_json(reply);
	} else {
		hf_cli_show_findings(cli, hf_json_get_array(reply, "findings"), NULL);
		show_steps(cli, hf_json_get_array(reply, "steps"));
		show_guests(cli, hf_json_get_array(reply, "guests"));
		show_expectation(reply);
		hf_cli_show_skipped(hf_json_get_array(reply, "skipped"));
	}
	return hf_cli_show_verdict(cli, hf_json_get_string(reply, "verdict", "refusal"));
}

const struct hf_cli_verb hf_cli_verb_plan = {
	.name = "plan",
	.usage = "[--kernel FILE [--initrd FILE] [--append TEXT | --cmdline TEXT]]",
	.summary = "what would an update do, and how long would it take?",
	.help = "Looks as `check` does, and says what would happen, step by step and to each\n"
		"guest, with the times that it took in the last 10 updates that were done. It\n"
		"changes nothing. Exit codes are those of `check`.\n"
		"\n" HF_CLI_TARGET_HELP,
	.run = run,
};
