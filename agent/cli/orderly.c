/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Leaving the jump to an orderly shutdown of the host by systemd.
 *
 * Guests have to outlast it. Where systemd would stop a guest's QEMU with the unit that it was
 * started in (a login session, mostly), it is moved into a scope that no shutdown stops; where that
 * can't be done, because it is the main process of a service, it is said before anything happens.
 * The same goes for the swtpm of a domain of libvirt's, without which its QEMU can't be saved.
 */
#include "agent/cli/cli.h"

#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "common/fd.h"

#define SYSTEMD "org.freedesktop.systemd1"
#define SWTPM_DIR "/run/libvirt/qemu/swtpm"
#define MANAGER "/org/freedesktop/systemd1", SYSTEMD ".Manager"

static int bus_error(struct hf_error *e, int r, const char *what, const sd_bus_error *error)
{
	return hf_error_set(e, r, HF_ERR_FAILED,
		"an orderly update needs systemd and D-Bus; without --orderly neither is needed",
		"can't %s: %s", what, error && error->message ? error->message : strerror(-r));
}

/* Does systemd stop this unit when the host is shut down? 1, 0 or -errno. */
static int is_stopped(sd_bus *bus, const char *unit, struct hf_error *e)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	char **conflicts = NULL;
	int r, found = 0;

	r = sd_bus_get_property_strv(
		bus, SYSTEMD, unit, SYSTEMD ".Unit", "Conflicts", &error, &conflicts);
	if (r < 0)
		bus_error(e, r, "ask systemd for a guest's unit", &error);
	sd_bus_error_free(&error);
	for (size_t i = 0; r >= 0 && conflicts && conflicts[i]; i++) {
		found |= strcmp(conflicts[i], "shutdown.target") == 0;
		free(conflicts[i]);
	}
	free(conflicts);
	return r < 0 ? r : found;
}

static int is_main_process(sd_bus *bus, const char *unit, pid_t pid)
{
	uint32_t main_pid = 0;

	/* Only services have one. */
	return sd_bus_get_property_trivial(bus, SYSTEMD, unit, SYSTEMD ".Service", "MainPID", NULL,
		       'u', &main_pid) >= 0 &&
	       main_pid == (uint32_t)pid;
}

static int move(
	sd_bus *bus, const char *scope, const char *description, pid_t pid, struct hf_error *e)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r;

	r = sd_bus_call_method(bus, SYSTEMD, MANAGER, "StartTransientUnit", &error, NULL,
		"ssa(sv)a(sa(sv))", scope, "fail", 6, "Description", "s", description, "Slice", "s",
		"holdfast.slice", "DefaultDependencies", "b", 0, "IgnoreOnIsolate", "b", 1,
		"CollectMode", "s", "inactive-or-failed", "PIDs", "au", 1, (uint32_t)pid, 0);
	if (r < 0)
		bus_error(e, r, "have a guest outlast the shutdown", &error);
	sd_bus_error_free(&error);
	return r < 0 ? r : 0;
}

/* Has a process outlast the shutdown, in a scope of that name unless it does anyway. */
static int settle_process(
	sd_bus *bus, const char *scope, const char *description, pid_t pid, struct hf_error *e)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	cleanup_free char *unit = NULL;
	sd_bus_message *reply = NULL;
	const char *path;
	int r;

	r = sd_bus_call_method(
		bus, SYSTEMD, MANAGER, "GetUnitByPID", &error, &reply, "u", (uint32_t)pid);
	if (r >= 0)
		r = sd_bus_message_read(reply, "o", &path);
	if (r >= 0 && !(unit = strdup(path)))
		r = -ENOMEM;
	if (r < 0)
		bus_error(e, r, "find a guest's unit", &error);
	sd_bus_error_free(&error);
	sd_bus_message_unref(reply);
	if (r >= 0)
		r = is_stopped(bus, unit, e);
	if (r > 0 && is_main_process(bus, unit, pid))
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"give its unit DefaultDependencies=no and IgnoreOnIsolate=yes, or leave "
			"--orderly out",
			"systemd would stop it before the kexec, for it is the main process of a "
			"service");
	return r > 0 ? move(bus, scope, description, pid, e) : r;
}

static int settle_guest(sd_bus *bus, struct json_object *guest, struct hf_error *e)
{
	const char *name = hf_json_get_string(guest, "name", "?");
	pid_t pid = (pid_t)hf_json_get_int(guest, "pid", 0);
	char scope[128], description[256];
	int r;

	if (pid <= 0)
		return 0;
	snprintf(scope, sizeof(scope), "holdfast-guest-%s.scope",
		hf_json_get_string(guest, "uuid", "?"));
	snprintf(description, sizeof(description), "Virtual machine %s", name);
	r = settle_process(bus, scope, description, pid, e);
	if (r < 0)
		hf_error_guest(e, name);
	return r;
}

/* libvirt's swtpm processes, by their pid files. One that has ended left its file behind. */
static int settle_tpms(sd_bus *bus, struct hf_error *e)
{
	DIR *dir = opendir(SWTPM_DIR);
	char path[512], scope[64];
	int r = 0;

	for (struct dirent *d; dir && r >= 0 && (d = readdir(dir));) {
		cleanup_free char *text = NULL;
		const char *dot = strrchr(d->d_name, '.');
		pid_t pid;

		if (!dot || strcmp(dot, ".pid") != 0 ||
			snprintf(path, sizeof(path), SWTPM_DIR "/%s", d->d_name) >=
				(int)sizeof(path) ||
			hf_file_read(path, 64, &text, NULL) < 0)
			continue;
		pid = (pid_t)strtol(text, NULL, 10);
		if (pid <= 1 || (kill(pid, 0) < 0 && errno == ESRCH))
			continue;
		snprintf(scope, sizeof(scope), "holdfast-tpm-%d.scope", (int)pid);
		r = settle_process(bus, scope, d->d_name, pid, e);
	}
	if (dir)
		closedir(dir);
	return r;
}

int hf_cli_abort_after(struct hf_cli *cli, int code)
{
	cleanup_json struct json_object *reply = NULL;
	struct hf_error e = {0};

	if (hf_cli_call(cli, "Abort", NULL, false, &reply, &e) < 0)
		return hf_cli_fail(cli, &e, reply);
	fputs("What was prepared is undone. Every guest is as it was before.\n", stderr);
	return code;
}

int hf_cli_orderly_settle(struct hf_cli *cli)
{
	cleanup_json struct json_object *reply = NULL;
	struct json_object *guests;
	struct hf_error e = {0};
	sd_bus *bus = NULL;
	int r = hf_cli_fetch(cli, "Guests", NULL, &reply);

	if (r != HF_CLI_GO_ON)
		return r;
	guests = hf_json_get_array(reply, "guests");
	r = sd_bus_open_system(&bus);
	if (r < 0)
		bus_error(&e, r, "reach systemd", NULL);
	for (size_t i = 0; r >= 0 && i < hf_json_array_size(guests); i++)
		r = settle_guest(bus, json_object_array_get_idx(guests, i), &e);
	if (r >= 0)
		r = settle_tpms(bus, &e);
	sd_bus_flush_close_unref(bus);
	return r < 0 ? hf_cli_fail(cli, &e, NULL) : HF_CLI_GO_ON;
}

int hf_cli_orderly_kexec(struct hf_cli *cli)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	struct hf_error e = {0};
	sd_bus *bus = NULL;
	int r = sd_bus_open_system(&bus);

	/* Not by logind: its locks are there to keep others from this. */
	if (r >= 0)
		r = sd_bus_call_method(bus, SYSTEMD, MANAGER, "StartUnit", &error, NULL, "ss",
			"kexec.target", "replace-irreversibly");
	if (r < 0)
		bus_error(&e, r, "have systemd shut the host down", &error);
	sd_bus_error_free(&error);
	sd_bus_flush_close_unref(bus);
	if (r < 0)
		return hf_cli_fail(cli, &e, NULL);
	puts("The host is shutting down; guests run on. The jump is the end of it.");
	return HF_EXIT_OK;
}
