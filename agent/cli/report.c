/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast report: what an update did, and how long each part of the blackout took.
 */
#include "agent/cli/cli.h"

#include <string.h>

/* Leaves room for the name in front and the total behind. */
#define MAX_PHASES (HF_CLI_MAX_COLUMNS - 2)

struct phases {
	const char *names[MAX_PHASES];
	char titles[MAX_PHASES][24];
	size_t n;
};

static void collect_phases(struct phases *p, struct json_object *array)
{
	for (size_t i = 0; i < hf_json_array_size(array); i++) {
		struct json_object *phase = json_object_array_get_idx(array, i);
		const char *name = hf_json_get_string(phase, "name", "?");
		size_t k = 0;

		while (k < p->n && strcmp(p->names[k], name) != 0)
			k++;
		if (k < p->n || p->n == MAX_PHASES)
			continue;
		snprintf(p->titles[p->n], sizeof(p->titles[0]), HF_CLI_RIGHT "%s",
			hf_cli_clean(name));
		p->names[p->n++] = name;
	}
}

/* A cell with milliseconds, or an empty one. */
static void duration_cell(struct hf_cli_table *table, struct json_object *obj, const char *key)
{
	char text[32] = "";

	if (obj && json_object_object_get(obj, key))
		snprintf(text, sizeof(text), "%.1f", (double)hf_json_get_int(obj, key, 0) / 1e6);
	hf_cli_table_cell(table, text);
}

static struct json_object *find_phase(struct json_object *array, const char *name)
{
	for (size_t i = 0; i < hf_json_array_size(array); i++) {
		struct json_object *phase = json_object_array_get_idx(array, i);

		if (strcmp(hf_json_get_string(phase, "name", "?"), name) == 0)
			return phase;
	}
	return NULL;
}

static void phase_row(struct hf_cli_table *table, const struct phases *p, const char *who,
	struct json_object *subject)
{
	struct json_object *array = hf_json_get_array(subject, "phases");

	hf_cli_table_cell(table, who);
	for (size_t i = 0; i < p->n; i++)
		duration_cell(table, find_phase(array, p->names[i]), "duration_ns");
	duration_cell(table, subject, "blackout_ns");
}

static void show_phases(const struct hf_cli *cli, struct json_object *report)
{
	struct json_object *guests = hf_json_get_array(report, "guests");
	struct hf_cli_table table = {0};
	struct phases p = {0};

	/* The guests have the finer split; the host's phases are in the same order. */
	for (size_t i = 0; i < hf_json_array_size(guests); i++)
		collect_phases(
			&p, hf_json_get_array(json_object_array_get_idx(guests, i), "phases"));
	collect_phases(&p, hf_json_get_array(report, "phases"));
	if (p.n == 0)
		return;

	puts("\nBlackout in milliseconds");
	hf_cli_table_column(&table, "");
	for (size_t i = 0; i < p.n; i++)
		hf_cli_table_column(&table, p.titles[i]);
	hf_cli_table_column(&table, HF_CLI_RIGHT "TOTAL");
	phase_row(&table, &p, "host", report);
	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		struct json_object *g = json_object_array_get_idx(guests, i);

		phase_row(&table, &p, hf_json_get_string(g, "name", "?"), g);
	}
	hf_cli_table_print(cli, &table);
}

static void show_guests(const struct hf_cli *cli, struct json_object *guests)
{
	static const char *const columns[] = {"GUEST", "OUTCOME", HF_CLI_RIGHT "BLACKOUT",
		HF_CLI_RIGHT "RAM", HF_CLI_RIGHT "STATE", HF_CLI_RIGHT "PRESERVE",
		HF_CLI_RIGHT "RETRIEVE", "MESSAGE"};
	struct hf_cli_table table = {0};

	if (hf_json_array_size(guests) == 0)
		return;
	puts("");
	for (size_t i = 0; i < HF_ARRAY_SIZE(columns); i++)
		hf_cli_table_column(&table, columns[i]);
	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		struct json_object *g = json_object_array_get_idx(guests, i);

		hf_cli_table_cell(&table, hf_json_get_string(g, "name", "?"));
		hf_cli_table_cell(&table, hf_json_get_string(g, "outcome", "?"));
		hf_cli_table_cell(&table, hf_cli_duration(hf_json_get_int(g, "blackout_ns", 0)));
		hf_cli_table_cell(&table, hf_cli_bytes(hf_json_get_int(g, "ram_bytes", 0)));
		hf_cli_table_cell(&table, hf_cli_bytes(hf_json_get_int(g, "state_bytes", 0)));
		hf_cli_table_cell(&table, hf_cli_duration(hf_json_get_int(g, "preserve_ns", 0)));
		hf_cli_table_cell(&table, hf_cli_duration(hf_json_get_int(g, "retrieve_ns", 0)));
		hf_cli_table_cell(&table, hf_json_get_string(g, "message", ""));
	}
	hf_cli_table_print(cli, &table);
}

static void show_host(struct json_object *report)
{
	const char *from = hf_json_get_string(report, "from_kernel", "?");
	const char *to = hf_json_get_string(report, "to_kernel", "?");
	int64_t readahead = hf_json_get_int(report, "readahead_bytes", 0);
	int64_t rss = hf_json_get_int(report, "agent_rss_bytes", 0);
	char text[1024];

	hf_cli_field("update", hf_json_get_string(report, "id", "?"));
	hf_cli_field("time", hf_json_get_string(report, "time", NULL));
	hf_cli_field("outcome", hf_json_get_string(report, "outcome", "?"));
	hf_cli_field("message", hf_json_get_string(report, "message", NULL));
	hf_cli_field("carrier", hf_json_get_string(report, "carrier", NULL));
	snprintf(text, sizeof(text), "%s -> %s", from, to);
	hf_cli_field("kernel", text);
	snprintf(text, sizeof(text), "%s -> %s", hf_json_get_string(report, "from_version", "?"),
		hf_json_get_string(report, "to_version", "?"));
	hf_cli_field("holdfast", text);
	hf_cli_field("blackout", hf_cli_duration(hf_json_get_int(report, "blackout_ns", 0)));
	if (readahead > 0) {
		snprintf(text, sizeof(text), "%s in %s", hf_cli_bytes(readahead),
			hf_cli_duration(hf_json_get_int(report, "readahead_ns", 0)));
		hf_cli_field("read-ahead", text);
	}
	if (json_object_object_get(report, "clock_correction_ns")) {
		snprintf(text, sizeof(text), "moved by %+.1f ms, right within %.1f ms",
			(double)hf_json_get_int(report, "clock_correction_ns", 0) / 1e6,
			(double)hf_json_get_int(report, "clock_error_ns", 0) / 1e6);
		hf_cli_field("clock", text);
	}
	if (rss > 0)
		hf_cli_field("agent RAM", hf_cli_bytes(rss));
}

static bool any_unhealthy(struct json_object *report)
{
	struct json_object *guests = hf_json_get_array(report, "guests");

	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		struct json_object *g = json_object_array_get_idx(guests, i);

		if (strcmp(hf_json_get_string(g, "outcome", ""), "unhealthy") == 0)
			return true;
	}
	return false;
}

/* Only where a guest runs; a report of an older agent doesn't know. */
static void show_clocks(const struct hf_cli *cli, struct json_object *guests)
{
	struct hf_cli_table table = {0};
	bool any = false;

	hf_cli_table_column(&table, "GUEST");
	hf_cli_table_column(&table, "CLOCK");
	hf_cli_table_column(&table, HF_CLI_RIGHT "LAG");
	hf_cli_table_column(&table, "REASON");
	for (size_t i = 0; i < hf_json_array_size(guests); i++) {
		struct json_object *g = json_object_array_get_idx(guests, i);
		const char *clock = hf_json_get_string(g, "clock", NULL);
		char lag[32];

		if (!clock)
			continue;
		any = true;
		snprintf(lag, sizeof(lag), "%.3f s",
			(double)hf_json_get_int(g, "clock_lag_ns", 0) / 1e9);
		hf_cli_table_cell(&table, hf_json_get_string(g, "name", "?"));
		hf_cli_table_cell(&table, clock);
		hf_cli_table_cell(&table, lag);
		hf_cli_table_cell(&table, hf_json_get_string(g, "clock_message", ""));
	}
	if (any)
		puts("");
	if (any)
		hf_cli_table_print(cli, &table);
}

int hf_cli_show_report(const struct hf_cli *cli, struct json_object *report)
{
	const char *outcome = hf_json_get_string(report, "outcome", "");

	if (!cli->json) {
		show_host(report);
		show_phases(cli, report);
		show_guests(cli, hf_json_get_array(report, "guests"));
		hf_cli_show_domains(cli, hf_json_get_array(report, "domains"));
		show_clocks(cli, hf_json_get_array(report, "guests"));
	}
	if (strcmp(outcome, "done") == 0)
		return any_unhealthy(report) ? HF_EXIT_DEGRADED : HF_EXIT_OK;
	if (strcmp(outcome, "rolled-back") == 0)
		return HF_EXIT_ROLLED_BACK;
	return strcmp(outcome, "degraded") == 0 ? HF_EXIT_DEGRADED : HF_EXIT_FAILED;
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	cleanup_json struct json_object *reply = NULL;
	struct json_object *params;
	char **args;
	int r;

	r = hf_cli_parse(cli, argc, argv, NULL, 1, &args);
	if (r != HF_CLI_GO_ON)
		return r;
	params = json_object_new_object();
	hf_json_add_string(params, "id", args[0]);
	r = hf_cli_fetch(cli, "Report", params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	/* Showing the report of an update that went wrong is no failure of this call. */
	hf_cli_show_report(cli, hf_json_get_object(reply, "report"));
	return HF_EXIT_OK;
}

const struct hf_cli_verb hf_cli_verb_report = {
	.name = "report",
	.usage = "[ID]",
	.summary = "what an update did, and how long each part took",
	.help = "Shows the report of an update, of the newest without ID: its outcome, the\n"
		"blackout of the host and of each guest split into its phases, and what\n"
		"preserving and retrieving cost.\n",
	.run = run,
};
