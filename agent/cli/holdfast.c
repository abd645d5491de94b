/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast: the operator's command line. One verb per file; this one has the table of them.
 */
#include "agent/cli/cli.h"

#include <langinfo.h>
#include <locale.h>
#include <string.h>

static const struct hf_cli_verb *const verbs[] = {
	&hf_cli_verb_check,
	&hf_cli_verb_plan,
	&hf_cli_verb_guests,
	&hf_cli_verb_adopt,
	&hf_cli_verb_prepare,
	&hf_cli_verb_commit,
	&hf_cli_verb_upgrade,
	&hf_cli_verb_vmm_upgrade,
	&hf_cli_verb_abort,
	&hf_cli_verb_status,
	&hf_cli_verb_report,
	&hf_cli_verb_history,
	&hf_cli_verb_retry,
	&hf_cli_verb_dump,
	&hf_cli_verb_release,
	&hf_cli_verb_inspect,
	&hf_cli_verb_libvirt,
	&hf_cli_verb_shutdown,
};

static void show_usage(FILE *f)
{
	fputs("usage: holdfast VERB [OPTIONS]\n"
	      "       holdfast VERB --help\n"
	      "       holdfast --version\n"
	      "\n"
	      "Swaps the host kernel under running virtual machines.\n"
	      "\n",
		f);
	for (size_t i = 0; i < HF_ARRAY_SIZE(verbs); i++)
		fprintf(f, "  %-11s %s\n", verbs[i]->name, verbs[i]->summary);
	fputs("\nEvery verb but libvirt takes -o table (for people, the default) or -o json (for "
	      "programs).\n",
		f);
}

/* Results that did not reach their reader are no success. */
static int finish(int code)
{
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "holdfast: can't write the result: %s\n", strerror(errno));
		return code == HF_EXIT_OK ? HF_EXIT_FAILED : code;
	}
	return code;
}

int main(int argc, char **argv)
{
	struct hf_cli cli = {0};
	const char *verb = argc > 1 ? argv[1] : NULL;
	int code;

	setlocale(LC_CTYPE, "");
	hf_cli_terminal_init(&cli);
	/* Whatever the terminal can show, what the agent says is UTF-8. */
	if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		setlocale(LC_CTYPE, "C.UTF-8");

	if (!verb) {
		show_usage(stderr);
		return HF_EXIT_USAGE;
	}
	if (strcmp(verb, "--version") == 0) {
		puts("holdfast " HF_VERSION);
		return finish(HF_EXIT_OK);
	}
	if (strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0 || strcmp(verb, "help") == 0) {
		show_usage(stdout);
		return finish(HF_EXIT_OK);
	}
	for (size_t i = 0; i < HF_ARRAY_SIZE(verbs) && !cli.verb; i++)
		if (strcmp(verbs[i]->name, verb) == 0)
			cli.verb = verbs[i];
	if (!cli.verb) {
		fprintf(stderr, "holdfast: no verb '%s'\n  See: holdfast --help\n", verb);
		return HF_EXIT_USAGE;
	}
	code = cli.verb->run(&cli, argc - 1, argv + 1);
	hf_cli_disconnect(&cli);
	return finish(code);
}
