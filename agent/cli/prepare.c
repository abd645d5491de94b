/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast prepare: the long part of an update, while the guests run on.
 */
#include "agent/cli/cli.h"

static int run(struct hf_cli *cli, int argc, char **argv)
{
	struct hf_cli_target target = {0};
	bool orderly = false;
	const struct hf_cli_option options[] = {
		HF_CLI_TARGET_OPTIONS(&target),
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
	if (orderly)
		hf_json_add_bool(params, "orderly", true);
	r = hf_cli_watch(cli, "Prepare", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (orderly) {
		r = hf_cli_orderly_settle(cli);
		if (r != HF_CLI_GO_ON)
			return hf_cli_abort_after(cli, r);
	}
	if (cli->json)
		hf_cli_print_json(reply);
	else
		printf("Prepared: update %s. Go on with `holdfast commit`, or undo it with "
		       "`holdfast abort`.\n",
			hf_cli_clean(hf_json_get_string(reply, "update_id", cli->update_id)));
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_prepare = {
	.name = "prepare",
	.usage = "--kernel FILE [--initrd FILE] [--append TEXT | --cmdline TEXT] [--orderly]",
	.summary = "preserve the guests' RAM and load the kernel; guests run on",
	.help = "Does all that takes long: preserves every guest's RAM and loads the kernel.\n"
		"Guests run on.\n"
		"Interrupting this program undoes what was done.\n"
		"\n" HF_CLI_TARGET_HELP
		"  --orderly         leave the kernel loaded, for `systemctl kexec` to commit\n",
	.run = run,
};
