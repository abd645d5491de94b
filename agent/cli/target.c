/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The options that say what to jump into.
 */
#include "agent/cli/cli.h"

#include <limits.h>
#include <string.h>

/* The agent has another working directory. A file that is not there is the agent's to complain
 * about. */
static void add_path(struct json_object *obj, const char *key, const char *path)
{
	cleanup_free char *real = realpath(path, NULL);
	char absolute[PATH_MAX], cwd[PATH_MAX];

	if (!real && path[0] != '/' && getcwd(cwd, sizeof(cwd)) &&
		snprintf(absolute, sizeof(absolute), "%s/%s", cwd, path) < (int)sizeof(absolute))
		path = absolute;
	hf_json_add_string(obj, key, real ? real : path);
}

int hf_cli_target_json(const struct hf_cli *cli, const struct hf_cli_target *target, bool required,
	struct json_object **ret)
{
	struct json_object *obj;

	*ret = NULL;
	if (target->append && target->cmdline)
		return hf_cli_usage_error(cli, "--append adds to the running kernel's command line "
					       "and --cmdline replaces it: one of them");
	if ((target->reboot || target->plaintext) && !target->carrier)
		return hf_cli_usage_error(cli, "--reboot and --plaintext need --carrier image");
	if (target->kernel && target->reboot)
		return hf_cli_usage_error(
			cli, "--kernel jumps, and --reboot does not: one of them");
	if (!target->kernel || !target->kernel[0]) {
		if (required && !target->reboot)
			return hf_cli_usage_error(cli, "which kernel? --kernel FILE is missing");
		if (target->initrd || target->append || target->cmdline)
			return hf_cli_usage_error(
				cli, "--initrd, --append and --cmdline need --kernel");
		if (!target->carrier)
			return HF_CLI_GO_ON;
	}
	obj = json_object_new_object();
	if (target->kernel && target->kernel[0])
		add_path(obj, "kernel", target->kernel);
	if (target->initrd)
		add_path(obj, "initrd", target->initrd);
	hf_json_add_string(obj, "append", target->append);
	hf_json_add_string(obj, "cmdline", target->cmdline);
	hf_json_add_string(obj, "carrier", target->carrier);
	if (target->reboot)
		hf_json_add_bool(obj, "reboot", true);
	if (target->plaintext)
		hf_json_add_bool(obj, "plaintext", true);
	*ret = obj;
	return HF_CLI_GO_ON;
}

int hf_cli_ask_target(
	struct hf_cli *cli, int argc, char **argv, const char *method, struct json_object **ret)
{
	struct hf_cli_target target = {0};
	const struct hf_cli_option options[] = {HF_CLI_TARGET_OPTIONS(&target), {0}};
	struct json_object *params, *target_json;
	int r;

	r = hf_cli_parse(cli, argc, argv, options, 0, NULL);
	if (r == HF_CLI_GO_ON)
		r = hf_cli_target_json(cli, &target, false, &target_json);
	if (r != HF_CLI_GO_ON)
		return r;
	params = json_object_new_object();
	hf_json_add(params, "target", target_json);
	return hf_cli_fetch(cli, method, params, ret);
}
