/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast shutdown: what the service manager tells of the host's shutdown.
 *
 * An update that is prepared becomes a proper one when the host's services are shut down for a
 * kexec: guests run on until everything else was stopped, and then the agent commits. `kexec` is
 * the last thing before the service manager would jump. Its failure stops that: no kexec may end
 * guests that were to be carried over it.
 */
#include "agent/cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

/* The agent's, since an update was prepared and nobody has undone it. See agent/prepared-note.h. */
static bool was_prepared(char *path, size_t size)
{
	const char *dir = secure_getenv("HOLDFAST_RUN_DIR");

	snprintf(path, size, "%s/prepared", dir && *dir ? dir : "/run/holdfast");
	return access(path, F_OK) == 0;
}

static size_t n_alive(struct json_object *status)
{
	struct json_object *guests = hf_json_get_array(status, "guests");
	size_t n = 0;

	for (size_t i = 0; i < hf_json_array_size(guests); i++)
		n += strcmp(hf_json_get_string(json_object_array_get_idx(guests, i), "status", ""),
			     "gone") != 0;
	return n;
}

static int refuse(const char *why)
{
	fprintf(stderr,
		"holdfast: no kexec: %s. Guests run on; the host's services are started again. See "
		"`holdfast status`.\n",
		why);
	return HF_EXIT_FAILED;
}

/*
 * From 261 on systemd hands the file descriptor stores of services over in the jump, in a session
 * of its own that it makes at the very end. So the jump has to be its own. The bus is gone by now;
 * systemd's own socket is not.
 */
static bool systemd_hands_over(void)
{
	cleanup_free char *version = NULL;
	sd_bus *bus = NULL;
	int r = sd_bus_new(&bus);

	if (r >= 0)
		r = sd_bus_set_address(bus, "unix:path=/run/systemd/private");
	if (r >= 0)
		r = sd_bus_start(bus);
	if (r >= 0)
		r = sd_bus_get_property_string(bus, "org.freedesktop.systemd1",
			"/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "Version",
			NULL, &version);
	if (r < 0)
		fprintf(stderr, "holdfast: can't ask systemd for its version: %s\n", strerror(-r));
	sd_bus_close_unref(bus);
	return r >= 0 && strtol(version, NULL, 10) >= 261;
}

static int commit(struct hf_cli *cli)
{
	cleanup_json struct json_object *reply = NULL;
	struct json_object *params = NULL;
	bool hand_over = systemd_hands_over();
	int r;

	if (hand_over) {
		params = json_object_new_object();
		hf_json_add_bool(params, "hand_over", true);
	}
	r = hf_cli_follow(cli, "Commit", params, &reply);
	if (r == HF_CLI_GO_ON && hand_over)
		return HF_EXIT_OK;
	/* Still here: there was no jump. */
	refuse("the prepared update failed");
	return r == HF_CLI_GO_ON || r == HF_EXIT_OK ? HF_EXIT_FAILED : r;
}

/* Right before the jump of the service manager. */
static int at_kexec(struct hf_cli *cli)
{
	cleanup_json struct json_object *status = NULL;
	struct hf_error e = {0};
	const char *state;
	char path[512];
	bool noted = was_prepared(path, sizeof(path));
	int r = hf_cli_call(cli, "Status", NULL, false, &status, &e);

	if (r < 0)
		return noted ? refuse("an update was prepared, and holdfastd has ended since")
			     : HF_EXIT_OK;
	state = hf_json_get_string(status, "state", "");
	if (strcmp(state, "prepared") == 0)
		return commit(cli);
	if (strcmp(state, "normal") != 0)
		return refuse(
			strcmp(state, "degraded") == 0
				? "the memory of guests that need you would be lost"
				: "an update is under way that has not been prepared to the end");
	if (noted && n_alive(status) > 0) {
		refuse("the update that was prepared had to be undone");
		fprintf(stderr, "  prepare another; or, for a kexec that ends them, remove %s\n",
			path);
		return HF_EXIT_FAILED;
	}
	return HF_EXIT_OK;
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	char **args;
	int r = hf_cli_parse(cli, argc, argv, NULL, 1, &args);

	if (r != HF_CLI_GO_ON)
		return r;
	if (args[0] && strcmp(args[0], "kexec") == 0)
		return at_kexec(cli);
	return hf_cli_usage_error(cli, "it is `shutdown kexec`");
}

const struct hf_cli_verb hf_cli_verb_shutdown = {
	.name = "shutdown",
	.usage = "kexec",
	.summary = "for systemd: make an update of a kexec at the end of a shutdown",
	.help = "What holdfast-kexec.service calls after everything else was stopped. Commits a\n"
		"prepared update, and fails when the kexec would lose guests.\n",
	.run = run,
};
