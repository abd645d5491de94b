/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast check: can this host and its guests be updated?
 */
#include "agent/cli/cli.h"

#include <string.h>

static void show_finding(const struct hf_cli *cli, struct json_object *finding)
{
	const char *verdict = hf_json_get_string(finding, "verdict", "refusal");
	const char *remedy = hf_json_get_string(finding, "remedy", NULL);
	enum hf_cli_mood mood = HF_MOOD_BAD;

	if (strcmp(verdict, "ok") == 0)
		mood = HF_MOOD_GOOD;
	else if (strcmp(verdict, "warning") == 0)
		mood = HF_MOOD_DOUBTFUL;
	fputs("  ", stdout);
	hf_cli_mark(cli, mood, verdict);
	printf(" %s\n", hf_cli_clean(hf_json_get_string(finding, "message", "")));
	if (remedy)
		printf("  %*s %s\n", cli->out_glyphs ? 1 : 7, "", hf_cli_clean(remedy));
}

static bool same_string(struct json_object *a, struct json_object *b, const char *key)
{
	return strcmp(hf_json_get_string(a, key, ""), hf_json_get_string(b, key, "")) == 0;
}

/* The agent may tell a guest's finding twice: with the guest and in the list of all. */
static bool is_among(struct json_object *finding, struct json_object *array)
{
	for (size_t i = 0; i < hf_json_array_size(array); i++) {
		struct json_object *other = json_object_array_get_idx(array, i);

		if (same_string(finding, other, "id") && same_string(finding, other, "message"))
			return true;
	}
	return false;
}

static bool is_about(struct json_object *finding, struct json_object *guest)
{
	const char *name = hf_json_get_string(finding, "guest", "");

	return strcmp(name, hf_json_get_string(guest, "name", "")) == 0 ||
	       strcmp(name, hf_json_get_string(guest, "uuid", "")) == 0;
}

static bool is_of_a_guest(struct json_object *finding, struct json_object *guests)
{
	for (size_t i = 0; i < hf_json_array_size(guests); i++)
		if (is_about(finding, json_object_array_get_idx(guests, i)))
			return true;
	return false;
}

static void show_guest_findings(
	const struct hf_cli *cli, struct json_object *guest, struct json_object *findings)
{
	struct json_object *own = hf_json_get_array(guest, "findings");

	printf("Guest %s\n", hf_cli_clean(hf_json_get_string(guest, "name", "?")));
	for (size_t i = 0; i < hf_json_array_size(own); i++)
		show_finding(cli, json_object_array_get_idx(own, i));
	for (size_t i = 0; i < hf_json_array_size(findings); i++) {
		struct json_object *finding = json_object_array_get_idx(findings, i);

		if (is_about(finding, guest) && !is_among(finding, own))
			show_finding(cli, finding);
	}
}

void hf_cli_show_findings(
	const struct hf_cli *cli, struct json_object *findings, struct json_object *guests)
{
	const char *group = NULL;

	for (size_t i = 0; i < hf_json_array_size(findings); i++) {
		struct json_object *finding = json_object_array_get_idx(findings, i);
		const char *name = hf_json_get_string(finding, "guest", "");

		if (name[0] && is_of_a_guest(finding, guests))
			continue;
		if (!group || strcmp(group, name) != 0)
			printf(name[0] ? "Guest %s\n" : "Host\n", hf_cli_clean(name));
		group = name;
		show_finding(cli, finding);
	}
	for (size_t i = 0; i < hf_json_array_size(guests); i++)
		show_guest_findings(cli, json_object_array_get_idx(guests, i), findings);
}

int hf_cli_show_verdict(const struct hf_cli *cli, const char *verdict)
{
	static const struct {
		const char *verdict, *word, *text;
		enum hf_cli_mood mood;
		int code;
	} rows[] = {
		{"ok", "ready", "the host can be updated", HF_MOOD_GOOD, HF_EXIT_OK},
		{"warning", "ready with caveats",
			"the host can be updated; look at the warnings first", HF_MOOD_DOUBTFUL,
			HF_EXIT_OK},
		{"refusal", "not ready", "the host can't be updated as it is", HF_MOOD_BAD,
			HF_EXIT_NOT_READY},
	};
	size_t i = 0;

	/* One that this build doesn't know is no permission. */
	while (i + 1 < HF_ARRAY_SIZE(rows) && strcmp(rows[i].verdict, verdict) != 0)
		i++;
	if (cli->json)
		return rows[i].code;
	fputs("\nVerdict: ", stdout);
	if (cli->out_glyphs) {
		hf_cli_mark(cli, rows[i].mood, rows[i].verdict);
		putchar(' ');
	}
	printf("%s: %s\n", rows[i].word, rows[i].text);
	return rows[i].code;
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	cleanup_json struct json_object *reply = NULL;
	int r = hf_cli_ask_target(cli, argc, argv, "Check", &reply);

	if (r != HF_CLI_GO_ON)
		return r;

	if (cli->json)
		hf_cli_print_json(reply);
	else
		hf_cli_show_findings(cli, hf_json_get_array(reply, "findings"),
			hf_json_get_array(reply, "guests"));
	return hf_cli_show_verdict(cli, hf_json_get_string(reply, "verdict", "refusal"));
}

const struct hf_cli_verb hf_cli_verb_check = {
	.name = "check",
	.usage = "[--kernel FILE [--initrd FILE] [--append TEXT | --cmdline TEXT]]",
	.summary = "can this host and its guests be updated? Changes nothing",
	.help = "Looks at the host, at every guest and, if one is given, at the kernel to jump\n"
		"into, and changes nothing. The host is ready or ready with caveats, exit\n"
		"code 0, or not ready, exit code 3.\n"
		"\n" HF_CLI_TARGET_HELP,
	.run = run,
};
