/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast dump: the memory of a held guest as a core file.
 */
#include "agent/cli/cli.h"

#include <limits.h>
#include <string.h>

static void show(struct json_object *reply, const char *guest, const char *path)
{
	struct json_object *missing = hf_json_get_array(reply, "missing");
	int64_t vcpus = hf_json_get_int(reply, "vcpus", 0);

	printf("%s: %s of memory, %s of them not zero", hf_cli_clean(guest),
		hf_cli_bytes(hf_json_get_int(reply, "ram_bytes", 0)),
		hf_cli_bytes(hf_json_get_int(reply, "data_bytes", 0)));
	if (vcpus > 0)
		printf(", and the registers of %lld vCPU%s", (long long)vcpus,
			vcpus == 1 ? "" : "s");
	printf(" are in %s.\n", hf_cli_clean(path));
	for (size_t i = 0; i < hf_json_array_size(missing); i++)
		printf("Missing: %s.\n", hf_cli_clean(json_object_get_string(
						 json_object_array_get_idx(missing, i))));
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	cleanup_json struct json_object *reply = NULL;
	char absolute[PATH_MAX], cwd[PATH_MAX];
	struct json_object *params;
	char **args = NULL;
	const char *path;
	int r;

	r = hf_cli_parse_guest(cli, argc, argv, NULL, 2, &args);
	if (r != HF_CLI_GO_ON)
		return r;
	if (!args[1])
		return hf_cli_usage_error(cli, "dump it to which file?");
	path = args[1];
	/* The agent has another working directory. */
	if (path[0] != '/' && getcwd(cwd, sizeof(cwd)) &&
		snprintf(absolute, sizeof(absolute), "%s/%s", cwd, path) < (int)sizeof(absolute))
		path = absolute;
	params = json_object_new_object();
	hf_json_add_string(params, "guest", args[0]);
	hf_json_add_string(params, "path", path);
	r = hf_cli_watch(cli, "Dump", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	else
		show(reply, args[0], path);
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_dump = {
	.name = "dump",
	.usage = "GUEST FILE",
	.summary = "write the memory of a held guest to a core file",
	.help = "Writes the memory of a guest that is held to FILE, as an ELF core for gdb or "
		"crash,\n"
		"with the registers of its vCPUs. The guest is left as it is. FILE must not "
		"exist;\n"
		"it is made for root alone, and is sparse: zeros need no room.\n"
		"Interrupting this program ends the dump and removes the file.\n",
	.run = run,
};
