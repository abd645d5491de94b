/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast libvirt: hosts whose guests are libvirt's. A program of its own does the work, so
 * that this one doesn't load libvirt's library.
 */
#include "agent/cli/cli.h"

#include <string.h>
#include <sys/wait.h>

#define PROGRAM "holdfast-libvirt"

/* What the dynamic linker ends a program with whose library is missing; a shell's "not found", too.
 */
#define EXIT_NO_LIBRARY 127

static int cannot_execute(struct hf_cli *cli, const char *path, int err)
{
	struct hf_error e = {0};

	if (err == -ENOENT)
		hf_error_set(&e, err, HF_ERR_NOT_READY,
			"install it (`make install` of a build with libvirt-dev), or set "
			"HOLDFAST_LIBEXEC_DIR to where it is",
			"there is no %s", path);
	else
		hf_error_set(
			&e, err, HF_ERR_FAILED, NULL, "can't execute %s: %s", path, strerror(-err));
	return hf_cli_fail(cli, &e, NULL);
}

static int no_library(struct hf_cli *cli)
{
	struct hf_error e = {0};

	hf_error_set(&e, -ELIBACC, HF_ERR_NOT_READY, "install libvirt (Debian: libvirt0)",
		PROGRAM " can't be started: a library of libvirt's is missing");
	return hf_cli_fail(cli, &e, NULL);
}

/* Can the dynamic linker load it? Only then is it executed: what it does should be its own. */
static int try_it(struct hf_cli *cli, const char *path)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return cannot_execute(cli, path, -errno);
	if (pid == 0) {
		if (!freopen("/dev/null", "w", stdout))
			_exit(EXIT_FAILURE);
		execl(path, PROGRAM, "--version", NULL);
		_exit(EXIT_FAILURE);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return cannot_execute(cli, path, -errno);
	/* The linker has said which. */
	return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NO_LIBRARY ? no_library(cli)
									   : HF_CLI_GO_ON;
}

static int show_help(const struct hf_cli *cli)
{
	printf("usage: holdfast libvirt %s\n\n%s\n", cli->verb->usage, cli->verb->help);
	return HF_EXIT_OK;
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	const char *dir = secure_getenv("HOLDFAST_LIBEXEC_DIR");
	char path[4096];
	int r;

	if (argc < 2)
		return hf_cli_usage_error(cli, "libvirt what? setup or enable");
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
		return show_help(cli);
	snprintf(path, sizeof(path), "%s/" PROGRAM, dir && *dir ? dir : HF_LIBEXEC_DIR);
	if (access(path, X_OK) < 0)
		return cannot_execute(cli, path, -errno);
	r = try_it(cli, path);
	if (r != HF_CLI_GO_ON)
		return r;
	argv[0] = (char[]){PROGRAM};
	execv(path, argv);
	return cannot_execute(cli, path, -errno);
}

const struct hf_cli_verb hf_cli_verb_libvirt = {
	.name = "libvirt",
	.usage = "setup|enable [OPTIONS]",
	.summary = "prepare a host and its domains, where guests are libvirt's",
	.help = "  setup [--check] [--size SIZE] [--root DIR]\n"
		"      prepare the host: a tmpfs for domains' memory, the order of services\n"
		"  enable DOMAIN|--all [--check] [--connect URI]\n"
		"      have a domain's memory be where it can be carried over\n"
		"\n"
		"Both show what they change, and with --check change nothing. For more: holdfast\n"
		"libvirt VERB --help\n",
	.run = run,
};
