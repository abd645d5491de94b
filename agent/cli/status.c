/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast status: where the host is in an update, now or as it changes.
 */
#include "agent/cli/cli.h"

#include <string.h>
#include <time.h>

/* What to do about a guest that needs its operator. */
static void show_held(struct json_object *guest)
{
	const char *name = hf_json_get_string(guest, "name", "?");
	struct json_object *findings = hf_json_get_array(guest, "findings");

	if (strcmp(hf_json_get_string(guest, "status", ""), "held") != 0)
		return;
	printf("\n%s is held:\n", hf_cli_clean(name));
	for (size_t i = 0; i < hf_json_array_size(findings); i++) {
		struct json_object *finding = json_object_array_get_idx(findings, i);
		const char *remedy = hf_json_get_string(finding, "remedy", NULL);

		printf("  %s\n", hf_cli_clean(hf_json_get_string(finding, "message", "")));
		if (remedy)
			printf("  %s\n", hf_cli_clean(remedy));
	}
	name = hf_cli_clean(name);
	printf("  To try once more:                 holdfast retry %s [--qemu PATH]\n", name);
	printf("  To keep a copy of its memory:     holdfast dump %s FILE\n", name);
	printf("  To give it up, with its memory:   holdfast release %s --yes\n", name);
}

void hf_cli_show_domains(const struct hf_cli *cli, struct json_object *domains)
{
	struct hf_cli_table table = {0};

	if (hf_json_array_size(domains) == 0)
		return;
	puts("\nDomains that libvirt saved to disk for an update");
	hf_cli_table_column(&table, "DOMAIN");
	hf_cli_table_column(&table, "OUTCOME");
	hf_cli_table_column(&table, "MESSAGE");
	for (size_t i = 0; i < hf_json_array_size(domains); i++) {
		struct json_object *d = json_object_array_get_idx(domains, i);

		hf_cli_table_cell(&table, hf_json_get_string(d, "name", "?"));
		hf_cli_table_cell(&table, hf_json_get_string(d, "outcome", "?"));
		hf_cli_table_cell(&table, hf_json_get_string(d, "message", ""));
	}
	hf_cli_table_print(cli, &table);
}

/* Its memory is safe, and what is to be done is libvirt's business. */
static void show_not_started(struct json_object *domains)
{
	for (size_t i = 0; i < hf_json_array_size(domains); i++) {
		struct json_object *d = json_object_array_get_idx(domains, i);

		if (strcmp(hf_json_get_string(d, "outcome", ""), "failed") == 0)
			printf("  To start it from its saved image: virsh start %s\n",
				hf_cli_clean(hf_json_get_string(d, "name", "?")));
	}
}

static void show_status(const struct hf_cli *cli, struct json_object *status)
{
	static const char *const fields[][2] = {
		{"state", "state"},
		{"message", "message"},
		{"kernel", "kernel"},
		{"agent", "agent_version"},
		{"carrier", "carrier"},
		{"update", "update_id"},
		{"last update", "last_update_id"},
	};
	struct json_object *guests = hf_json_get_array(status, "guests");

	for (size_t i = 0; i < HF_ARRAY_SIZE(fields); i++)
		hf_cli_field(fields[i][0], hf_json_get_string(status, fields[i][1], NULL));
	if (hf_json_array_size(guests) > 0) {
		puts("");
		hf_cli_show_guests(cli, guests, true);
	}
	for (size_t i = 0; i < hf_json_array_size(guests); i++)
		show_held(json_object_array_get_idx(guests, i));
	hf_cli_show_domains(cli, hf_json_get_array(status, "domains"));
	show_not_started(hf_json_get_array(status, "domains"));
}

/* One line for one change. */
static void show_change(struct json_object *status)
{
	struct json_object *guests = hf_json_get_array(status, "guests");
	const char *message = hf_json_get_string(status, "message", NULL);
	time_t now = time(NULL);
	char clock[16];

	strftime(clock, sizeof(clock), "%H:%M:%S", localtime(&now));
	printf("%s %s", clock, hf_cli_clean(hf_json_get_string(status, "state", "?")));
	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		struct json_object *g = json_object_array_get_idx(guests, i);

		printf("  %s=%s/%s", hf_cli_clean(hf_json_get_string(g, "name", "?")),
			hf_cli_clean(hf_json_get_string(g, "status", "?")),
			hf_cli_clean(hf_json_get_string(g, "step", "?")));
	}
	if (message)
		printf("  (%s)", hf_cli_clean(message));
	puts("");
}

static int on_change(struct json_object *status, void *userdata)
{
	struct hf_cli *cli = userdata;

	if (cli->json)
		puts(json_object_to_json_string_ext(
			status, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	else
		show_change(status);
	/* Whoever reads this through a pipe wants it now, and may have stopped reading. */
	return fflush(stdout) == 0 ? 0 : -EPIPE;
}

/* Until it is interrupted; over the jump of a carrier that this program survives. */
static int watch(struct hf_cli *cli)
{
	for (;;) {
		cleanup_json struct json_object *reply = NULL;
		struct hf_error e = {0};
		int r;

		r = hf_cli_connect(cli, &e);
		if (r == 0)
			r = hf_varlink_client_call(cli->client, HF_CLI_IFACE "Status", NULL,
				on_change, cli, &reply, &e);
		if (r == 0) {
			on_change(reply, cli);
			return HF_EXIT_OK;
		}
		if (r == -EPIPE)
			return HF_EXIT_FAILED;
		if (r != -ECONNRESET)
			return hf_cli_fail(cli, &e, reply);
		fputs("The agent ended the connection; waiting for it to come back.\n", stderr);
		r = hf_cli_reconnect(cli, &e);
		if (r < 0)
			return hf_cli_fail(cli, &e, NULL);
	}
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	bool watching = false;
	const struct hf_cli_option options[] = {{"watch", NULL, &watching}, {0}};
	cleanup_json struct json_object *reply = NULL;
	int r;

	r = hf_cli_parse(cli, argc, argv, options, 0, NULL);
	if (r != HF_CLI_GO_ON)
		return r;
	if (watching)
		return watch(cli);
	r = hf_cli_fetch(cli, "Status", NULL, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	else
		show_status(cli, reply);
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_status = {
	.name = "status",
	.usage = "[--watch]",
	.summary = "where the host is in an update",
	.help = "Shows the host's state and its guests. States: normal, preparing, prepared,\n"
		"frozen, resuming, aborting, degraded (a guest needs an operator).\n"
		"\n"
		"  --watch           then one line for each change (-o json: one object), until\n"
		"                    interrupted\n",
	.run = run,
};
