/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast abort: undo an update that has not jumped.
 */
#include "agent/cli/cli.h"

static int run(struct hf_cli *cli, int argc, char **argv)
{
	cleanup_json struct json_object *reply = NULL;
	int r;

	r = hf_cli_parse(cli, argc, argv, NULL, 0, NULL);
	if (r == HF_CLI_GO_ON)
		r = hf_cli_fetch(cli, "Abort", NULL, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	else
		puts("Undone. Every guest is as it was before.");
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_abort = {
	.name = "abort",
	.usage = "",
	.summary = "undo what was prepared",
	.help = "Undoes `holdfast prepare`, or an update under way that has not jumped yet.\n"
		"Every guest is then as it was before.\n",
	.run = run,
};
