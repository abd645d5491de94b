/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast guests: which guests the agent knows, and whether they can come along.
 */
#include "agent/cli/cli.h"

#include <string.h>

static int64_t ram_bytes(struct json_object *guest)
{
	struct json_object *blocks = hf_json_get_array(guest, "ram");
	int64_t sum = 0;

	for (size_t i = 0; i < hf_json_array_size(blocks); i++)
		sum += hf_json_get_int(json_object_array_get_idx(blocks, i), "size_bytes", 0);
	return sum;
}

/* Why not: the first refusal. */
static const char *refusal(struct json_object *guest)
{
	struct json_object *findings = hf_json_get_array(guest, "findings");

	for (size_t i = 0; i < hf_json_array_size(findings); i++) {
		struct json_object *finding = json_object_array_get_idx(findings, i);

		if (strcmp(hf_json_get_string(finding, "verdict", ""), "refusal") == 0)
			return hf_json_get_string(finding, "message", "");
	}
	return "";
}

void hf_cli_show_guests(const struct hf_cli *cli, struct json_object *guests, bool steps)
{
	struct hf_cli_table table = {0};

	hf_cli_table_column(&table, "GUEST");
	hf_cli_table_column(&table, "STATUS");
	if (steps)
		hf_cli_table_column(&table, "STEP");
	hf_cli_table_column(&table, HF_CLI_RIGHT "RAM");
	hf_cli_table_column(&table, HF_CLI_RIGHT "PID");
	hf_cli_table_column(&table, "MANAGER");
	hf_cli_table_column(&table, "VMM");
	hf_cli_table_column(&table, "UUID");
	hf_cli_table_column(&table, "ELIGIBLE");
	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		struct json_object *g = json_object_array_get_idx(guests, i);
		int64_t pid = hf_json_get_int(g, "pid", 0);
		bool eligible = hf_json_get_bool(g, "eligible", false);
		char text[1024];

		hf_cli_table_cell(&table, hf_json_get_string(g, "name", ""));
		hf_cli_table_cell(&table, hf_json_get_string(g, "status", ""));
		if (steps)
			hf_cli_table_cell(&table, hf_json_get_string(g, "step", ""));
		hf_cli_table_cell(&table, hf_cli_bytes(ram_bytes(g)));
		snprintf(text, sizeof(text), "%lld", (long long)pid);
		hf_cli_table_cell(&table, pid > 0 ? text : "");
		hf_cli_table_cell(&table, hf_json_get_string(g, "manager", ""));
		hf_cli_table_cell(&table, hf_json_get_string(g, "vmm", ""));
		hf_cli_table_cell(&table, hf_json_get_string(g, "uuid", ""));
		snprintf(text, sizeof(text), "%s%s%s", eligible ? "yes" : "no",
			!eligible && refusal(g)[0] ? ": " : "", eligible ? "" : refusal(g));
		hf_cli_table_cell(&table, text);
	}
	hf_cli_table_print(cli, &table);
}

/* What is done for one guest in an update, key by key. */
static void show_policy(const struct hf_cli *cli, struct json_object *guest)
{
	struct json_object *policy = hf_json_get_object(guest, "policy");
	struct hf_cli_table table = {0};

	if (!policy)
		return;
	putchar('\n');
	hf_cli_table_column(&table, "POLICY");
	hf_cli_table_column(&table, "VALUE");
	json_object_object_foreach (policy, key, value) {
		hf_cli_table_cell(&table, key);
		hf_cli_table_cell(&table, json_object_is_type(value, json_type_string)
						  ? json_object_get_string(value)
						  : "");
	}
	hf_cli_table_print(cli, &table);
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	cleanup_json struct json_object *reply = NULL;
	struct json_object *guests, *params;
	char **args = NULL;
	int r;

	r = hf_cli_parse(cli, argc, argv, NULL, 1, &args);
	if (r != HF_CLI_GO_ON)
		return r;
	params = json_object_new_object();
	hf_json_add_string(params, "guest", args[0]);
	r = hf_cli_fetch(cli, "Guests", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	guests = hf_json_get_array(reply, "guests");
	if (cli->json)
		hf_cli_print_json(reply);
	else if (hf_json_array_size(guests) == 0)
		puts("No guests. They are started with holdfast-vmm in the place of QEMU.");
	else
		hf_cli_show_guests(cli, guests, false);
	if (!cli->json && args[0])
		show_policy(cli, json_object_array_get_idx(guests, 0));
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_guests = {
	.name = "guests",
	.usage = "[GUEST]",
	.summary = "list the guests and whether they can come along",
	.help = "Lists every guest, or the one with this name or uuid, with its RAM and its VMM,\n"
		"and why it can't come along, if it can't. Of a single one also the policies in\n"
		"effect.\n",
	.run = run,
};
