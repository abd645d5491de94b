/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast-vmm: QEMU, with guest RAM that a live update can preserve.
 *
 *   holdfast-vmm [--name N] [--uuid U] [--policy KEY=VALUE]... -- qemu-system-x86_64 ARGS...
 *
 * Whatever is in the way of preserving a guest, the guest starts: with one warning, and shown by
 * `holdfast guests` with the reason. Only what would harm another guest, or what the user got
 * wrong on this command line, is an error.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "vmm-glue/launch.h"

enum { EXIT_USAGE = 2, EXIT_EXEC = 127 };

/* What the command line gave, with what it points to. */
struct options {
	struct hf_launch_options launch;
	struct hf_policy policy;
	const char *settings[HF_POLICY_N_];
};

static void usage(FILE *out)
{
	fprintf(out,
		"Usage: holdfast-vmm [OPTION...] -- QEMU [ARGUMENT...]\n\n"
		"Starts QEMU with guest memory that can be carried over a change of the host "
		"kernel.\n\n"
		"      --name NAME      name of the guest (default: QEMU's -name, else from the "
		"UUID)\n"
		"      --uuid UUID      identity of the guest (default: QEMU's -uuid, else a new "
		"one)\n"
		"      --policy KEY=VALUE\n"
		"                       what to do for this guest in an update, several times for "
		"several\n"
		"                       keys; see holdfast.conf(5)\n"
		"      --version        print the version and exit\n"
		"      --help           print this and exit\n");
}

static void say(const char *what, const struct hf_error *e)
{
	fprintf(stderr, "holdfast-vmm: %s%s%s%s%s\n", what, e->message, e->remedy[0] ? " (" : "",
		e->remedy, e->remedy[0] ? ")" : "");
}

static int add_policy(struct options *o, const char *text)
{
	struct hf_error e = {0};
	int r = hf_policy_assign(&o->policy, text, &e);

	if (r < 0)
		say("--policy: ", &e);
	else
		o->settings[o->launch.n_settings++] = text;
	return r;
}

/* Return: -1 to go on, else an exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	enum { OPT_NAME = 256, OPT_UUID, OPT_POLICY, OPT_VERSION, OPT_HELP };
	static const struct option longs[] = {
		{"name", required_argument, NULL, OPT_NAME},
		{"uuid", required_argument, NULL, OPT_UUID},
		{"policy", required_argument, NULL, OPT_POLICY},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, OPT_HELP},
		{NULL, 0, NULL, 0},
	};
	int c;

	/* "+": the first word that is no option is QEMU, with or without `--` before it. */
	while ((c = getopt_long(argc, argv, "+", longs, NULL)) >= 0) {
		switch (c) {
		case OPT_NAME:
			o->launch.name = optarg;
			break;
		case OPT_UUID:
			o->launch.uuid = optarg;
			break;
		case OPT_POLICY:
			if (add_policy(o, optarg) < 0)
				return EXIT_USAGE;
			break;
		case OPT_VERSION:
			printf("holdfast-vmm %s\n", HF_VERSION);
			return 0;
		case OPT_HELP:
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc)
		return -1;
	fprintf(stderr, "holdfast-vmm: QEMU's command line is missing\n");
	usage(stderr);
	return EXIT_USAGE;
}

static int make_qmp_folder(void)
{
	char path[4096];
	int r = hf_mkdir_p(hf_run_dir(), 0755);

	snprintf(path, sizeof(path), "%s/qmp", hf_run_dir());
	return r < 0 ? r : hf_mkdir_p(path, 0700);
}

static int exec_failed(const char *program, int err)
{
	fprintf(stderr, "holdfast-vmm: can't execute %s: %s\n", program, strerror(-err));
	return EXIT_EXEC;
}

/* As the user gave it: for probes of QEMU, and where not even a registration can be written. */
static int exec_plain(char **argv)
{
	execvp(argv[0], argv);
	return exec_failed(argv[0], -errno);
}

static int launch(const struct hf_cmdline *plan, const struct hf_launch_options *o, char **argv)
{
	struct hf_error e = {0};
	struct hf_launch l;
	int r, status;

	r = hf_launch_prepare(plan, o, &l, &e);
	if (r == -EINVAL) {
		say("", &e);
		hf_launch_clear(&l);
		return EXIT_USAGE;
	}
	if (r == 0 && make_qmp_folder() == 0)
		r = hf_registration_write(&l.reg, &e);
	else if (r == 0)
		r = hf_error_set(&e, -EACCES, HF_ERR_NOT_PERMITTED, "run it as root",
			"%s can't be written to", hf_run_dir());
	if (r == -EBUSY) {
		say("", &e);
		hf_launch_clear(&l);
		return EXIT_FAILURE;
	}
	if (r < 0) {
		say("the guest starts, but no live update will know it: ", &e);
		hf_launch_clear(&l);
		return exec_plain(argv);
	}
	if (plan->reason[0])
		fprintf(stderr,
			"holdfast-vmm: guest %s can't be carried over a live update: %s%s%s%s\n",
			l.reg.guest.name, plan->reason, plan->remedy[0] ? " (" : "", plan->remedy,
			plan->remedy[0] ? ")" : "");
	r = hf_launch_exec(&l);
	status = exec_failed(argv[0], r);
	hf_registration_remove(l.reg.guest.uuid);
	hf_launch_clear(&l);
	return status;
}

int main(int argc, char **argv)
{
	struct options o = {.launch = {.policy = &o.policy, .settings = o.settings}};
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	struct hf_error e = {0};
	int r;

	hf_policy_init(&o.policy);
	r = parse_options(argc, argv, &o);
	if (r >= 0) {
		hf_policy_clear(&o.policy);
		return r;
	}
	argv += optind;
	argc -= optind;
	r = hf_cmdline_parse((const char *const *)argv, argc, &plan, &e);
	if (r < 0) {
		say("", &e);
		r = EXIT_USAGE;
	} else {
		r = plan->kind == HF_CMDLINE_PROBE ? exec_plain(argv)
						   : launch(plan, &o.launch, argv);
	}
	hf_policy_clear(&o.policy);
	return r;
}
