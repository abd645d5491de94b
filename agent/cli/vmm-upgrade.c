/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast vmm-upgrade: replace the QEMU of running guests by the one that is installed now.
 */
#include "agent/cli/cli.h"

#include <string.h>

/* Of several guests that failed, what an operator has to see to first. */
static int exit_code(const char *error)
{
	if (strcmp(error, HF_ERR_DEGRADED) == 0)
		return HF_EXIT_DEGRADED;
	if (strcmp(error, HF_ERR_ROLLED_BACK) == 0)
		return HF_EXIT_ROLLED_BACK;
	return strcmp(error, HF_ERR_NOT_READY) == 0 ? HF_EXIT_NOT_READY : HF_EXIT_FAILED;
}

static int worse(int a, int b)
{
	static const int order[] = {HF_EXIT_DEGRADED, HF_EXIT_FAILED, HF_EXIT_ROLLED_BACK,
		HF_EXIT_NOT_READY, HF_EXIT_OK};

	for (size_t i = 0; i < HF_ARRAY_SIZE(order); i++)
		if (a == order[i] || b == order[i])
			return order[i];
	return HF_EXIT_FAILED;
}

static void show_guest(struct json_object *g)
{
	const char *outcome = hf_json_get_string(g, "outcome", "");
	const char *remedy = hf_json_get_string(g, "remedy", "");
	int64_t blackout = hf_json_get_int(g, "blackout_ns", -1);
	struct json_object *phases = hf_json_get_array(g, "phases");

	printf("%s: ", hf_cli_clean(hf_json_get_string(g, "name", "")));
	if (strcmp(outcome, "failed") == 0) {
		printf("%s", hf_cli_clean(hf_json_get_string(g, "message", "")));
		if (remedy[0])
			printf(". To do: %s", hf_cli_clean(remedy));
	} else if (strcmp(outcome, "current") == 0) {
		printf("runs on QEMU %s already", hf_cli_clean(hf_json_get_string(g, "to", "")));
	} else {
		printf("%s QEMU %s",
			strcmp(outcome, "replaced") == 0 ? "replaced" : "would replace",
			hf_cli_clean(hf_json_get_string(g, "from", "")));
		printf(" by %s", hf_cli_clean(hf_json_get_string(g, "to", "")));
	}
	if (strcmp(outcome, "replaced") == 0)
		printf(", now process %lld", (long long)hf_json_get_int(g, "pid", 0));
	if (blackout >= 0) {
		printf("; it stood still for %s", hf_cli_duration(blackout));
		for (size_t i = 0; i < hf_json_array_size(phases); i++) {
			struct json_object *p = json_object_array_get_idx(phases, i);

			printf("%s%s", i ? ", " : " (",
				hf_cli_clean(hf_json_get_string(p, "name", "")));
			printf(" %s", hf_cli_duration(hf_json_get_int(p, "duration_ns", 0)));
		}
		if (hf_json_array_size(phases) > 0)
			printf(")");
	}
	printf("\n");
}

static int show(const struct hf_cli *cli, struct json_object *reply)
{
	struct json_object *guests = hf_json_get_array(reply, "guests");
	size_t n = hf_json_array_size(guests);
	int code = HF_EXIT_OK;

	if (cli->json)
		hf_cli_print_json(reply);
	else if (n == 0)
		printf("There are no guests.\n");
	for (size_t i = 0; i < n; i++) {
		struct json_object *g = json_object_array_get_idx(guests, i);

		if (!cli->json)
			show_guest(g);
		if (strcmp(hf_json_get_string(g, "outcome", ""), "failed") == 0)
			code = worse(code, exit_code(hf_json_get_string(g, "error", "")));
	}
	return code;
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	const char *qemu = NULL;
	bool all = false, force = false, dry_run = false;
	const struct hf_cli_option options[] = {
		{"all", NULL, &all},
		{"qemu", &qemu, NULL},
		{"force", NULL, &force},
		{"dry-run", NULL, &dry_run},
		{0},
	};
	cleanup_json struct json_object *params = json_object_new_object(), *reply = NULL;
	char **args = NULL;
	int r;

	r = hf_cli_parse(cli, argc, argv, options, 1, &args);
	if (r != HF_CLI_GO_ON)
		return r;
	if (!args[0] == !all)
		return hf_cli_usage_error(cli, "name a guest, or say --all");
	if (qemu && qemu[0] != '/')
		return hf_cli_usage_error(cli, "--qemu takes an absolute path, not '%s'", qemu);
	hf_json_add_string(params, "guest", args[0]);
	hf_json_add_string(params, "qemu", qemu);
	if (all)
		hf_json_add_bool(params, "all", true);
	if (force)
		hf_json_add_bool(params, "force", true);
	if (dry_run)
		hf_json_add_bool(params, "dry_run", true);
	r = hf_cli_watch(cli, "VmmUpgrade", TAKE_PTR(params), &reply);
	return r == HF_CLI_GO_ON ? show(cli, reply) : r;
}

const struct hf_cli_verb hf_cli_verb_vmm_upgrade = {
	.name = "vmm-upgrade",
	.usage = "GUEST | --all [--qemu PATH] [--force] [--dry-run]",
	.summary = "replace the QEMU of running guests",
	.help = "Starts the QEMU that is installed now on the guest's memory, while the guest\n"
		"runs in the old one, and goes on in the new one after a pause of milliseconds.\n"
		"Until the new QEMU runs the guest, whatever fails leaves it in the old one;\n"
		"interrupting this program, too.\n"
		"\n"
		"  --all          all guests, each on its own\n"
		"  --qemu PATH    another program than the guest was started with, for good\n"
		"  --force        also for guests that run the installed QEMU already\n"
		"  --dry-run      only say what would be done\n",
	.run = run,
};
