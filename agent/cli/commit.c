/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast commit: the jump.
 */
#include "agent/cli/cli.h"

static int run(struct hf_cli *cli, int argc, char **argv)
{
	cleanup_json struct json_object *reply = NULL;
	int r;

	r = hf_cli_parse(cli, argc, argv, NULL, 0, NULL);
	if (r == HF_CLI_GO_ON)
		r = hf_cli_follow(cli, "Commit", NULL, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	else
		puts("Done.");
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_commit = {
	.name = "commit",
	.usage = "",
	.summary = "pause the guests and jump into the prepared kernel",
	.help = "Pauses the guests, saves their device state and jumps. Needs\n"
		"`holdfast prepare` first.\n"
		"If anything fails before the jump, every guest runs on (exit code 5).\n"
		"The host's new kernel takes this program's place: look at\n"
		"`holdfast report` afterwards.\n",
	.run = run,
};
