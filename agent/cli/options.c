/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Command lines of the verbs, on top of getopt_long(3).
 */
#include "agent/cli/cli.h"

#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#define MAX_OPTIONS 12
#define FIRST_OPTION 256 /* getopt's value of the first option of the verb's own table */

int hf_cli_usage_error(const struct hf_cli *cli, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "holdfast %s: ", cli->verb->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n  See: holdfast %s --help\n", cli->verb->name);
	return HF_EXIT_USAGE;
}

static int show_help(const struct hf_cli *cli)
{
	const struct hf_cli_verb *v = cli->verb;

	printf("usage: holdfast %s %s%s[-o table|json]\n\n%s\n", v->name, v->usage,
		v->usage[0] ? " " : "", v->help);
	return HF_EXIT_OK;
}

static int set_output(struct hf_cli *cli, const char *format)
{
	if (strcmp(format, "json") != 0 && strcmp(format, "table") != 0)
		return hf_cli_usage_error(cli, "no output format '%s': table or json", format);
	cli->json = strcmp(format, "json") == 0;
	return HF_CLI_GO_ON;
}

/* Return: how many options the table of getopt has, its end not counted. */
static int build_getopt_table(const struct hf_cli_option *options, struct option *table)
{
	int n = 0;

	table[n++] = (struct option){"help", no_argument, NULL, 'h'};
	table[n++] = (struct option){"output", required_argument, NULL, 'o'};
	for (int i = 0; options && options[i].name && n < MAX_OPTIONS; i++)
		table[n++] = (struct option){options[i].name,
			options[i].value ? required_argument : no_argument, NULL, FIRST_OPTION + i};
	table[n] = (struct option){0};
	return n;
}

int hf_cli_parse(struct hf_cli *cli, int argc, char **argv, const struct hf_cli_option *options,
	int max_args, char ***ret_args)
{
	struct option table[MAX_OPTIONS + 1];
	int c, r;

	build_getopt_table(options, table);
	opterr = 0;
	optind = 0; /* GNU: start anew, main has used it already */
	while ((c = getopt_long(argc, argv, ":ho:", table, NULL)) != -1) {
		if (c == 'h')
			return show_help(cli);
		if (c == ':')
			return hf_cli_usage_error(
				cli, "option '%s' needs a value", argv[optind - 1]);
		if (c == '?')
			return hf_cli_usage_error(cli, "no option '%s'", argv[optind - 1]);
		if (c == 'o') {
			r = set_output(cli, optarg);
			if (r != HF_CLI_GO_ON)
				return r;
			continue;
		}
		if (options[c - FIRST_OPTION].value)
			*options[c - FIRST_OPTION].value = optarg;
		if (options[c - FIRST_OPTION].set)
			*options[c - FIRST_OPTION].set = true;
	}
	if (argc - optind > max_args)
		return hf_cli_usage_error(cli, "too many arguments: '%s'", argv[optind + max_args]);
	if (ret_args)
		*ret_args = argv + optind;
	return HF_CLI_GO_ON;
}

int hf_cli_parse_guest(struct hf_cli *cli, int argc, char **argv,
	const struct hf_cli_option *options, int max_args, char ***ret_args)
{
	int r = hf_cli_parse(cli, argc, argv, options, max_args, ret_args);

	if (r == HF_CLI_GO_ON && !(*ret_args)[0])
		return hf_cli_usage_error(cli, "%s which guest?", cli->verb->name);
	return r;
}
