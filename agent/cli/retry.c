/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast retry: try once more to bring a held guest up.
 */
#include "agent/cli/cli.h"

#include <string.h>

static int run(struct hf_cli *cli, int argc, char **argv)
{
	const char *qemu = NULL;
	bool ignore_disks = false;
	const struct hf_cli_option options[] = {
		{"qemu", &qemu, NULL}, {"ignore-disks", NULL, &ignore_disks}, {0}};
	cleanup_json struct json_object *reply = NULL;
	struct json_object *params;
	char **args = NULL;
	int r;

	r = hf_cli_parse_guest(cli, argc, argv, options, 1, &args);
	if (r != HF_CLI_GO_ON)
		return r;
	/* A name would be looked up in the agent's PATH, and is none. */
	if (qemu && qemu[0] != '/')
		return hf_cli_usage_error(cli, "--qemu takes an absolute path, not '%s'", qemu);
	params = json_object_new_object();
	hf_json_add_string(params, "guest", args[0]);
	hf_json_add_string(params, "qemu", qemu);
	if (ignore_disks)
		hf_json_add_bool(params, "ignore_disks", true);
	r = hf_cli_watch(cli, "Retry", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	else
		printf("%s is %s.\n", hf_cli_clean(args[0]),
			hf_json_get_bool(reply, "healthy", false) ? "well" : "back");
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_retry = {
	.name = "retry",
	.usage = "GUEST [--qemu PATH] [--ignore-disks]",
	.summary = "try once more to bring a held guest up, or ask an unhealthy one again",
	.help = "Starts QEMU on the memory of a guest that is held, loads its device state and "
		"lets\n"
		"it run, as after the jump. It can be repeated. Exit code 6: it is still held.\n"
		"A guest that was let run already is not loaded again: if its process is still\n"
		"there, that is taken over. Interrupting this program ends nothing.\n"
		"A guest that runs but is unhealthy is looked at again: its agent, if it\n"
		"answered before the update, and its health-command. Exit code 6: it is still\n"
		"unhealthy.\n"
		"\n"
		"  --qemu PATH       with this QEMU in place of its own, now and from then on\n"
		"  --ignore-disks    also when its disks were written to after it was saved: only "
		"if\n"
		"                    you know that nothing in them has changed\n",
	.run = run,
};
