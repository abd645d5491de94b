/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: From a call that ends in the jump to the report of the update.
 *
 * The connection ends in the jump: in a kexec together with this program; with the `hold` carrier,
 * where the agent replaces only itself, the successor listens at the same place a moment later.
 * Whether the update went well is read from its report and not guessed from the connection: an
 * agent that crashed after the freeze and came back on the old kernel looks the same from here.
 */
#include "agent/cli/cli.h"

#include <string.h>
#include <time.h>

#define POLL_NS (100 * 1000 * 1000)
/* The report is written at about the time at which the state becomes normal. */
#define REPORT_TRIES 50

static void wait_a_little(void)
{
	const struct timespec pause = {.tv_nsec = POLL_NS};

	nanosleep(&pause, NULL);
}

/* Waits until the agent says that resuming is over. Return: 0 or -errno. */
static int wait_for_end(struct hf_cli *cli, struct hf_error *e)
{
	for (;;) {
		cleanup_json struct json_object *status = NULL;
		const char *state;
		int r;

		r = hf_cli_reconnect(cli, e);
		if (r < 0)
			return r;
		do {
			json_object_put(TAKE_PTR(status));
			r = hf_cli_call(cli, "Status", NULL, false, &status, e);
			if (r < 0)
				break;
			state = hf_json_get_string(status, "state", "");
			if (strcmp(state, "resuming") != 0 && strcmp(state, "frozen") != 0)
				return 0;
			wait_a_little();
		} while (true);
		/* The old agent may have taken the connection and gone before it answered. */
		if (r != -ECONNRESET)
			return r;
		wait_a_little();
	}
}

static int print_report(struct hf_cli *cli)
{
	struct hf_error e = {0};

	for (int i = 0; i < REPORT_TRIES; i++) {
		cleanup_json struct json_object *reply = NULL;
		struct json_object *params = json_object_new_object();
		int r;

		hf_json_add_string(params, "id", cli->update_id[0] ? cli->update_id : NULL);
		r = hf_cli_call(cli, "Report", params, false, &reply, &e);
		if (r == 0) {
			struct json_object *report = hf_json_get_object(reply, "report");

			if (cli->json)
				hf_cli_print_json(reply);
			return hf_cli_show_report(cli, report);
		}
		if (r != -EREMOTEIO)
			break;
		wait_a_little();
	}
	hf_error_prefix(&e, "the update has ended, but its report can't be had");
	return hf_cli_fail(cli, &e, NULL);
}

int hf_cli_follow(struct hf_cli *cli, const char *method, struct json_object *params,
	struct json_object **ret)
{
	cleanup_json struct json_object *reply = NULL;
	struct hf_error e = {0};
	int r;

	r = hf_cli_call(cli, method, params, true, &reply, &e);
	if (r == 0) {
		*ret = TAKE_PTR(reply);
		return HF_CLI_GO_ON;
	}
	if (r != -ECONNRESET)
		return hf_cli_fail(cli, &e, reply);
	if (!cli->frozen) {
		hf_error_set(&e, r, HF_ERR_FAILED, "See what it says now: holdfast status",
			"the agent ended the connection before the jump");
		return hf_cli_fail(cli, &e, NULL);
	}
	fputs("The agent is gone to its successor; waiting for that.\n", stderr);
	r = wait_for_end(cli, &e);
	return r < 0 ? hf_cli_fail(cli, &e, NULL) : print_report(cli);
}
