/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast release: give a held guest up.
 */
#include "agent/cli/cli.h"

#include <string.h>

/* What it would cost, said by the agent, which also knows whether it can be. */
static int only_ask(struct hf_cli *cli, const char *guest)
{
	cleanup_json struct json_object *reply = NULL;
	struct json_object *params = json_object_new_object();
	int r;

	hf_json_add_string(params, "guest", guest);
	hf_json_add_bool(params, "dry_run", true);
	r = hf_cli_fetch(cli, "Release", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	guest = hf_cli_clean(guest);
	fprintf(stderr,
		"holdfast: %s: nothing was done: this would give up its memory, %s, for good\n"
		"  What the guest had not written to its disks would be lost, and it could only "
		"be\n"
		"  booted anew. `holdfast retry %s` tries once more to bring it up, `holdfast dump "
		"%s\n"
		"  FILE` keeps a copy of its memory.\n"
		"  To give it up: holdfast release %s --yes\n",
		guest, hf_cli_bytes(hf_json_get_int(reply, "ram_bytes", 0)), guest, guest, guest);
	return HF_EXIT_USAGE;
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	bool yes = false;
	const struct hf_cli_option options[] = {{"yes", NULL, &yes}, {0}};
	cleanup_json struct json_object *reply = NULL;
	struct json_object *params;
	char **args = NULL;
	int r;

	r = hf_cli_parse_guest(cli, argc, argv, options, 1, &args);
	if (r != HF_CLI_GO_ON)
		return r;
	if (!yes)
		return only_ask(cli, args[0]);
	params = json_object_new_object();
	hf_json_add_string(params, "guest", args[0]);
	r = hf_cli_watch(cli, "Release", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	else
		printf("%s is given up: %s are free again.\n", hf_cli_clean(args[0]),
			hf_cli_bytes(hf_json_get_int(reply, "ram_bytes", 0)));
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_release = {
	.name = "release",
	.usage = "GUEST --yes",
	.summary = "give a held guest up, and its memory with it",
	.help = "Frees the memory of a guest that is held, for good: it can only be booted anew.\n"
		"When the last held guest is resumed or released, the host is `normal` again.\n"
		"\n"
		"  --yes             do it; without, this says what would be lost\n",
	.run = run,
};
