/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast upgrade: prepare and commit in one go.
 */
#include "agent/cli/cli.h"

/* Nothing stays loaded meanwhile: systemd needs that no more than the agent does. */
static int run_orderly(struct hf_cli *cli, struct json_object *params)
{
	cleanup_json struct json_object *reply = NULL;
	int r;

	r = hf_cli_watch(cli, "Prepare", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	r = hf_cli_orderly_settle(cli);
	if (r == HF_CLI_GO_ON)
		r = hf_cli_orderly_kexec(cli);
	return r == HF_EXIT_OK ? r : hf_cli_abort_after(cli, r);
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	struct hf_cli_target target = {0};
	bool dry_run = false, orderly = false;
	const struct hf_cli_option options[] = {
		HF_CLI_TARGET_OPTIONS(&target),
		{"dry-run", NULL, &dry_run},
		{"orderly", NULL, &orderly},
		{0},
	};
	cleanup_json struct json_object *reply = NULL;
	struct json_object *params, *target_json;
	int r;

	r = hf_cli_parse(cli, argc, argv, options, 0, NULL);
	if (r == HF_CLI_GO_ON)
		r = hf_cli_target_json(cli, &target, true, &target_json);
	if (r != HF_CLI_GO_ON)
		return r;
	params = json_object_new_object();
	hf_json_add(params, "target", target_json);
	if (orderly && !dry_run)
		return run_orderly(cli, params);
	if (dry_run)
		hf_json_add_bool(params, "dry_run", true);
	r = hf_cli_follow(cli, "Upgrade", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	else
		puts(dry_run ? "Nothing stands in the way, and nothing was changed." : "Done.");
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_upgrade = {
	.name = "upgrade",
	.usage = "--kernel FILE [--initrd FILE] [--append TEXT | --cmdline TEXT] [--dry-run]"
		 " [--orderly]",
	.summary = "prepare and commit in one go",
	.help = "Does what `holdfast prepare` and `holdfast commit` do. Interrupting this\n"
		"program before the jump undoes what was done.\n"
		"\n" HF_CLI_TARGET_HELP
		"  --dry-run         go as far as can be without changing anything\n"
		"  --orderly         have systemd stop everything else before the jump\n",
	.run = run,
};
