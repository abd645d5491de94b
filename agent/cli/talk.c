/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Calling the agent, showing its progress, reporting its errors.
 */
#include "agent/cli/cli.h"

#include <string.h>
#include <time.h>

#define RECONNECT_SECONDS 120
#define RECONNECT_PAUSE_NS (100 * 1000 * 1000)

int hf_cli_connect(struct hf_cli *cli, struct hf_error *e)
{
	return cli->client ? 0 : hf_varlink_client_connect(NULL, &cli->client, e);
}

void hf_cli_disconnect(struct hf_cli *cli)
{
	cli->client = hf_varlink_client_free(cli->client);
}

void hf_cli_note(
	const struct hf_cli *cli, int64_t elapsed_ns, const char *guest, const char *message)
{
	fprintf(stderr, "%s[%9.3f s]%s ", cli->err_color ? "\033[2m" : "", (double)elapsed_ns / 1e9,
		cli->err_color ? "\033[0m" : "");
	if (guest && guest[0])
		fprintf(stderr, "%s: ", hf_cli_clean(guest));
	fprintf(stderr, "%s\n", hf_cli_clean(message));
}

static int on_progress(struct json_object *params, void *userdata)
{
	struct json_object *p = hf_json_get_object(params, "progress");
	struct hf_cli *cli = userdata;
	const char *id, *state;

	if (!p)
		return 0;
	id = hf_json_get_string(p, "update_id", "");
	state = hf_json_get_string(p, "state", "");
	snprintf(cli->update_id, sizeof(cli->update_id), "%s", id);
	cli->frozen = strcmp(state, "frozen") == 0;
	hf_cli_note(cli, hf_json_get_int(p, "elapsed_ns", 0), hf_json_get_string(p, "guest", NULL),
		hf_json_get_string(p, "message", state));
	return 0;
}

int hf_cli_call(struct hf_cli *cli, const char *method, struct json_object *params, bool progress,
	struct json_object **ret, struct hf_error *e)
{
	char name[128];
	int r;

	r = hf_cli_connect(cli, e);
	if (r < 0) {
		json_object_put(params);
		return r;
	}
	snprintf(name, sizeof(name), "%s%s", HF_CLI_IFACE, method);
	r = hf_varlink_client_call(
		cli->client, name, params, progress ? on_progress : NULL, cli, ret, e);
	/* After anything but an answer the stream is of no more use. */
	if (r < 0 && r != -EREMOTEIO)
		hf_cli_disconnect(cli);
	return r;
}

static int exit_code(const char *name)
{
	static const struct {
		const char *name;
		int code;
	} codes[] = {
		{HF_ERR_INVALID, HF_EXIT_USAGE},
		{HF_ERR_NOT_READY, HF_EXIT_NOT_READY},
		{HF_ERR_NOT_PERMITTED, HF_EXIT_NOT_PERMITTED},
		{"PermissionDenied", HF_EXIT_NOT_PERMITTED},
		{HF_ERR_BUSY, HF_EXIT_TRY_AGAIN},
		{HF_ERR_ROLLED_BACK, HF_EXIT_ROLLED_BACK},
		{HF_ERR_DEGRADED, HF_EXIT_DEGRADED},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(codes); i++)
		if (strcmp(codes[i].name, name) == 0)
			return codes[i].code;
	return HF_EXIT_FAILED;
}

static void fail_json(const struct hf_error *e, struct json_object *params)
{
	cleanup_json struct json_object *obj = json_object_new_object();

	hf_json_add_string(obj, "error", e->name);
	if (params) {
		json_object_object_foreach (params, key, value)
			hf_json_add(obj, key, json_object_get(value));
	} else {
		hf_json_add_string(obj, "message", e->message);
		hf_json_add_string(obj, "remedy", e->remedy[0] ? e->remedy : NULL);
	}
	hf_cli_print_json(obj);
}

int hf_cli_fail(struct hf_cli *cli, const struct hf_error *e, struct json_object *params)
{
	struct json_object *findings = hf_json_get_array(params, "findings");

	if (cli->json)
		fail_json(e, params);
	else if (findings)
		hf_cli_show_findings(cli, findings, NULL);
	fflush(stdout);

	fprintf(stderr, "%sholdfast:%s ", cli->err_color ? "\033[31m" : "",
		cli->err_color ? "\033[0m" : "");
	if (e->guest[0])
		fprintf(stderr, "%s: ", hf_cli_clean(e->guest));
	fprintf(stderr, "%s\n", hf_cli_clean(e->message));
	if (e->remedy[0])
		fprintf(stderr, "  %s\n", hf_cli_clean(e->remedy));
	return exit_code(e->name);
}

static int call_or_fail(struct hf_cli *cli, const char *method, struct json_object *params,
	bool progress, struct json_object **ret)
{
	cleanup_json struct json_object *reply = NULL;
	struct hf_error e = {0};

	if (hf_cli_call(cli, method, params, progress, &reply, &e) < 0)
		return hf_cli_fail(cli, &e, reply);
	*ret = TAKE_PTR(reply);
	return HF_CLI_GO_ON;
}

int hf_cli_fetch(struct hf_cli *cli, const char *method, struct json_object *params,
	struct json_object **ret)
{
	return call_or_fail(cli, method, params, false, ret);
}

int hf_cli_watch(struct hf_cli *cli, const char *method, struct json_object *params,
	struct json_object **ret)
{
	return call_or_fail(cli, method, params, true, ret);
}

int hf_cli_reconnect(struct hf_cli *cli, struct hf_error *e)
{
	const struct timespec pause = {.tv_nsec = RECONNECT_PAUSE_NS};
	struct timespec now, start;
	int r;

	hf_cli_disconnect(cli);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (;;) {
		r = hf_cli_connect(cli, e);
		if (r == 0 || (r != -ENOENT && r != -ECONNREFUSED && r != -EAGAIN))
			return r;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec - start.tv_sec >= RECONNECT_SECONDS)
			return hf_error_set(e, -ETIMEDOUT, HF_ERR_FAILED,
				"Look at it: systemctl status holdfastd",
				"the agent did not come back within %d s", RECONNECT_SECONDS);
		nanosleep(&pause, NULL);
	}
}
