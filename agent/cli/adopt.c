/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast adopt: move a guest's RAM to where it can be preserved, while it runs.
 */
#include "agent/cli/cli.h"

#include <ctype.h>
#include <string.h>

/* A positive decimal number. Return: HF_CLI_GO_ON or an exit code. */
static int add_number(const struct hf_cli *cli, struct json_object *params, const char *key,
	const char *option, const char *text)
{
	unsigned long long n;
	char *end;

	if (!text)
		return HF_CLI_GO_ON;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || *end || n == 0 || n > INT32_MAX)
		return hf_cli_usage_error(cli, "--%s takes a number, not '%s'", option, text);
	hf_json_add_int(params, key, n);
	return HF_CLI_GO_ON;
}

static int show(const struct hf_cli *cli, struct json_object *reply)
{
	struct json_object *adopted = hf_json_get_object(reply, "adopted");
	struct json_object *copy = hf_json_get_object(reply, "copy");

	if (cli->json) {
		hf_cli_print_json(reply);
		return HF_EXIT_OK;
	}
	printf("Adopted: guest %s, now process %lld. It stood still for %s; %s were copied in %lld "
	       "rounds.\n",
		hf_cli_clean(hf_json_get_string(adopted, "name", "")),
		(long long)hf_json_get_int(adopted, "pid", 0),
		hf_cli_duration(hf_json_get_int(adopted, "blackout_ns", 0)),
		hf_cli_bytes(hf_json_get_int(copy, "sent_bytes", 0)),
		(long long)hf_json_get_int(copy, "rounds", 0));
	return HF_EXIT_OK;
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	const char *pid = NULL, *qmp = NULL, *name = NULL, *downtime = NULL, *timeout = NULL;
	bool paused = false;
	const struct hf_cli_option options[] = {
		{"pid", &pid, NULL},
		{"qmp", &qmp, NULL},
		{"name", &name, NULL},
		{"paused", NULL, &paused},
		{"downtime", &downtime, NULL},
		{"timeout", &timeout, NULL},
		{0},
	};
	cleanup_json struct json_object *params = json_object_new_object(), *reply = NULL;
	cleanup_free char *path = NULL;
	char **args = NULL;
	int r;

	r = hf_cli_parse(cli, argc, argv, options, 1, &args);
	if (r != HF_CLI_GO_ON)
		return r;
	if (!args[0] == !pid)
		return hf_cli_usage_error(cli, "name a guest, or a process with --pid");
	if (pid && !qmp)
		return hf_cli_usage_error(cli, "--pid needs --qmp");
	if (name && !pid)
		return hf_cli_usage_error(cli, "--name goes with --pid");
	if (qmp) {
		path = realpath(qmp, NULL);
		if (!path)
			return hf_cli_usage_error(cli, "%s: %s", qmp, strerror(errno));
	}
	hf_json_add_string(params, "guest", args[0]);
	hf_json_add_string(params, "qmp", path);
	hf_json_add_string(params, "name", name);
	if (paused)
		hf_json_add_bool(params, "paused", true);
	r = add_number(cli, params, "pid", "pid", pid);
	if (r == HF_CLI_GO_ON)
		r = add_number(cli, params, "downtime_ms", "downtime", downtime);
	if (r == HF_CLI_GO_ON)
		r = add_number(cli, params, "timeout_s", "timeout", timeout);
	if (r != HF_CLI_GO_ON)
		return r;
	r = hf_cli_watch(cli, "Adopt", TAKE_PTR(params), &reply);
	return r == HF_CLI_GO_ON ? show(cli, reply) : r;
}

const struct hf_cli_verb hf_cli_verb_adopt = {
	.name = "adopt",
	.usage = "GUEST | --pid PID --qmp PATH [--name NAME] [--paused] [--downtime MS] [--timeout "
		 "SECONDS]",
	.summary = "move a guest's RAM to where it can be preserved",
	.help = "Copies the guest's RAM while the guest runs, and then goes on with it in a new\n"
		"QEMU on the copy. For guests that `holdfast guests` says can't come along\n"
		"because of their RAM, and for QEMUs that were not started with holdfast-vmm.\n"
		"Interrupting this program undoes what was done, up to the end of the old QEMU.\n"
		"\n"
		"  --pid PID          the process of a QEMU that holdfast doesn't know\n"
		"  --qmp PATH         a QMP socket of it that nobody is connected to\n"
		"  --name NAME        name of the guest (default: QEMU's -name, else from its "
		"UUID)\n"
		"  --paused           pause it for the whole copy; a must where QEMU emulates "
		"CPUs\n"
		"  --downtime MS      how long the last round may take (default: 300)\n"
		"  --timeout SECONDS  give up when the copy takes longer (default: 600)\n",
	.run = run,
};
