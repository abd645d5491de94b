/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast commit: the jump.
 */
#include "agent/cli/cli.h"

#include <string.h>

static int run_orderly(struct hf_cli *cli)
{
	cleanup_json struct json_object *status = NULL;
	struct hf_error e = {0};
	int r = hf_cli_fetch(cli, "Status", NULL, &status);

	if (r != HF_CLI_GO_ON)
		return r;
	if (strcmp(hf_json_get_string(status, "state", ""), "prepared") != 0) {
		hf_error_set(&e, -EPERM, HF_ERR_STATE, "prepare an update first",
			"the host is in state `%s`", hf_json_get_string(status, "state", ""));
		return hf_cli_fail(cli, &e, NULL);
	}
	r = hf_cli_orderly_settle(cli);
	return r != HF_CLI_GO_ON ? r : hf_cli_orderly_kexec(cli);
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	cleanup_json struct json_object *reply = NULL;
	bool orderly = false;
	const struct hf_cli_option options[] = {{"orderly", NULL, &orderly}, {0}};
	int r;

	r = hf_cli_parse(cli, argc, argv, options, 0, NULL);
	if (r == HF_CLI_GO_ON && orderly)
		return run_orderly(cli);
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
	.usage = "[--orderly]",
	.summary = "pause the guests and jump into the prepared kernel",
	.help = "Pauses the guests, saves their device state and jumps. Needs\n"
		"`holdfast prepare` first.\n"
		"If anything fails before the jump, every guest runs on (exit code 5).\n"
		"The host's new kernel takes this program's place: look at\n"
		"`holdfast report` afterwards.\n"
		"\n"
		"  --orderly         have systemd stop everything else first\n",
	.run = run,
};
