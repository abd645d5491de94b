/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the verbs of `holdfast` share.
 *
 *  holdfast.c   main: the verb table
 *  options.c    command lines
 *  output.c     terminals, tables, units
 *  talk.c       calling the agent, progress, errors
 *  target.c     --kernel and its friends
 *  inspect-kernel.c  the part of `inspect` that needs no agent
 *  follow.c     an update from progress through the jump to its report
 *  libvirt.c    executing holdfast-libvirt
 *  orderly.c    leaving the jump to systemd
 *  VERB.c       one verb each
 *
 * Results go to stdout, progress and errors to stderr. Everything that comes from the agent and
 * goes to a person passes through hf_cli_clean(): a guest's name must not drive a terminal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/error.h"
#include "common/json.h"
#include "common/varlink.h"

#define HF_CLI_IFACE "org.holdfast.Host."

/* Exit codes: see holdfast(1). */
enum hf_cli_exit {
	HF_EXIT_OK = 0,
	HF_EXIT_FAILED = 1,
	HF_EXIT_USAGE = 2,
	HF_EXIT_NOT_READY = 3,
	HF_EXIT_NOT_PERMITTED = 4,
	HF_EXIT_ROLLED_BACK = 5,
	HF_EXIT_DEGRADED = 6,
	HF_EXIT_TRY_AGAIN = 75,
};

struct hf_cli;

/**
 * struct hf_cli_verb - one verb.
 * @name:    as typed
 * @usage:   its arguments, for the synopsis
 * @summary: one line, for the list of verbs
 * @help:    what --help says below the synopsis
 * @run:     does it; @argv[0] is the verb. Return: an exit code.
 */
struct hf_cli_verb {
	const char *name;
	const char *usage;
	const char *summary;
	const char *help;
	int (*run)(struct hf_cli *cli, int argc, char **argv);
};

/** struct hf_cli - this run of the program. */
struct hf_cli {
	const struct hf_cli_verb *verb;
	bool json;	 /* -o json */
	bool out_glyphs; /* stdout is a terminal that shows UTF-8 */
	bool out_color;
	bool err_color;
	struct hf_varlink_client *client; /* NULL until needed */
	bool frozen;			  /* the last progress said that the jump is next */
	char update_id[64];		  /* from progress, or "" */
};

extern const struct hf_cli_verb hf_cli_verb_abort, hf_cli_verb_adopt, hf_cli_verb_check,
	hf_cli_verb_commit, hf_cli_verb_dump, hf_cli_verb_guests, hf_cli_verb_history,
	hf_cli_verb_inspect, hf_cli_verb_libvirt, hf_cli_verb_plan, hf_cli_verb_prepare,
	hf_cli_verb_release, hf_cli_verb_report, hf_cli_verb_retry, hf_cli_verb_shutdown,
	hf_cli_verb_status, hf_cli_verb_upgrade, hf_cli_verb_vmm_upgrade;

/* ---- options.c ---- */

/**
 * struct hf_cli_option - a long option.
 * @name:  without dashes; NULL ends a table
 * @value: receives the argument; NULL: takes none
 * @set:   set when given; may be NULL
 */
struct hf_cli_option {
	const char *name;
	const char **value;
	bool *set;
};

/* hf_cli_parse() results below 0: go on; else the exit code to end with at once. */
#define HF_CLI_GO_ON (-1)

/**
 * hf_cli_parse() - Parse a verb's command line; -o, --output and --help are known to every verb.
 * @options:  table, or NULL
 * @max_args: how many arguments may remain
 * @ret_args: their first; may be NULL when @max_args is 0
 *
 * Return: HF_CLI_GO_ON, or an exit code (help was shown, or the command line is wrong).
 */
int hf_cli_parse(struct hf_cli *cli, int argc, char **argv, const struct hf_cli_option *options,
	int max_args, char ***ret_args);

/**
 * hf_cli_parse_guest() - The same for a verb that does something to one guest, which has to be
 * named first.
 *
 * Return: HF_CLI_GO_ON with at least one of *@ret_args, or an exit code.
 */
int hf_cli_parse_guest(struct hf_cli *cli, int argc, char **argv,
	const struct hf_cli_option *options, int max_args, char ***ret_args);

/** hf_cli_usage_error() - Say what is wrong with the command line. Return: HF_EXIT_USAGE. */
int hf_cli_usage_error(const struct hf_cli *cli, const char *fmt, ...) HF_PRINTF(2, 3);

/* ---- output.c ---- */

/** hf_cli_terminal_init() - Find out what stdout and stderr can show. */
void hf_cli_terminal_init(struct hf_cli *cli);

/**
 * hf_cli_clean() - A string for people, without anything that would drive a terminal.
 *
 * Control characters become '?'. Return: one of eight static buffers, cut at 1 KiB with "...";
 * "" for NULL.
 */
const char *hf_cli_clean(const char *text);

/** hf_cli_bytes() - "512 MiB". Return: one of eight static buffers. */
const char *hf_cli_bytes(int64_t bytes);

/** hf_cli_duration() - "12.3 ms", "1.204 s". Return: one of eight static buffers. */
const char *hf_cli_duration(int64_t ns);

/** hf_cli_print_json() - Print an object for programs. */
void hf_cli_print_json(struct json_object *obj);

#define HF_CLI_MAX_COLUMNS 16

/* Marks a column whose cells are numbers: put it in front of the column's title. */
#define HF_CLI_RIGHT "\001"

/** struct hf_cli_table - rows of text, aligned when printed. */
struct hf_cli_table {
	const char *titles[HF_CLI_MAX_COLUMNS];
	size_t n_columns;
	char **cells;
	size_t n_cells;
};

/** hf_cli_table_column() - Add a column, before the first cell. @title stays the caller's. */
void hf_cli_table_column(struct hf_cli_table *table, const char *title);

/** hf_cli_table_cell() - Add the next cell, row by row. Copied, cleaned; nothing shows as "-". */
void hf_cli_table_cell(struct hf_cli_table *table, const char *text);

/** hf_cli_table_print() - Print titles and rows on stdout, and free the cells. */
void hf_cli_table_print(const struct hf_cli *cli, struct hf_cli_table *table);

/* How a thing went, for hf_cli_mark(). */
enum hf_cli_mood { HF_MOOD_GOOD, HF_MOOD_DOUBTFUL, HF_MOOD_BAD };

/** hf_cli_mark() - Print a glyph in its colour, or @word padded where glyphs don't show. */
void hf_cli_mark(const struct hf_cli *cli, enum hf_cli_mood mood, const char *word);

/** hf_cli_field() - Print "label  value" on stdout; nothing for a NULL or empty value. */
void hf_cli_field(const char *label, const char *value);

/* ---- talk.c ---- */

/** hf_cli_connect() - Connect unless connected. Return: 0 or -errno with @e filled. */
int hf_cli_connect(struct hf_cli *cli, struct hf_error *e);

/** hf_cli_disconnect() - Forget the connection. */
void hf_cli_disconnect(struct hf_cli *cli);

/**
 * hf_cli_call() - Call a method of org.holdfast.Host, connecting first.
 * @method:   without interface
 * @params:   consumed
 * @progress: ask for progress and show it on stderr
 * @ret:      as in hf_varlink_client_call()
 */
int hf_cli_call(struct hf_cli *cli, const char *method, struct json_object *params, bool progress,
	struct json_object **ret, struct hf_error *e);

/**
 * hf_cli_fail() - Report an error to the user.
 * @e:      what happened
 * @params: what the agent sent with it, borrowed; or NULL. Findings in it are shown; with -o json
 *          it is printed on stdout, with `error` added.
 *
 * Return: the exit code for it.
 */
int hf_cli_fail(struct hf_cli *cli, const struct hf_error *e, struct json_object *params);

/**
 * hf_cli_fetch() - hf_cli_call() without progress, reporting failure.
 *
 * Return: HF_CLI_GO_ON with *@ret set, or an exit code.
 */
int hf_cli_fetch(struct hf_cli *cli, const char *method, struct json_object *params,
	struct json_object **ret);

/** hf_cli_watch() - The same with progress. */
int hf_cli_watch(struct hf_cli *cli, const char *method, struct json_object *params,
	struct json_object **ret);

/** hf_cli_note() - Print a line of progress on stderr. */
void hf_cli_note(
	const struct hf_cli *cli, int64_t elapsed_ns, const char *guest, const char *message);

/**
 * hf_cli_reconnect() - Wait until an agent answers again, 120 s at most.
 *
 * Return: 0; -ETIMEDOUT or another -errno with @e filled.
 */
int hf_cli_reconnect(struct hf_cli *cli, struct hf_error *e);

/* ---- target.c ---- */

/** struct hf_cli_target - the options that say what to jump into. */
struct hf_cli_target {
	const char *kernel, *initrd, *append, *cmdline, *carrier;
	bool reboot, plaintext;
};

/* The rows of an option table for a struct hf_cli_target. */
#define HF_CLI_TARGET_OPTIONS(t) \
	{"kernel", &(t)->kernel, NULL}, {"initrd", &(t)->initrd, NULL}, \
		{"append", &(t)->append, NULL}, {"cmdline", &(t)->cmdline, NULL}, \
		{"carrier", &(t)->carrier, NULL}, {"reboot", NULL, &(t)->reboot}, \
	{ \
		"plaintext", NULL, &(t)->plaintext \
	}

#define HF_CLI_TARGET_HELP \
	"  --kernel FILE     the kernel image to jump into\n" \
	"  --initrd FILE     its initial RAM disk\n" \
	"  --append TEXT     add to the running kernel's command line\n" \
	"  --cmdline TEXT    use this command line in its place\n" \
	"  --carrier image   have guests' memory on disk meanwhile: for kernels without LUO;\n" \
	"                    auto: only if nothing else will do\n" \
	"  --reboot          with that: by way of the firmware, in place of a kernel\n" \
	"  --plaintext       with that: there is no key, and memory may lie there readable\n"

/**
 * hf_cli_target_json() - The Target of the interface, with absolute paths.
 * @required: is a kernel a must?
 * @ret:      the object, or NULL when no kernel was given
 *
 * Return: HF_CLI_GO_ON or an exit code.
 */
int hf_cli_target_json(const struct hf_cli *cli, const struct hf_cli_target *target, bool required,
	struct json_object **ret);

/**
 * hf_cli_ask_target() - Take a verb's command line, which may name a target, and call a method.
 * @method: takes a `target`, or null
 * @ret:    its answer, the caller's
 *
 * Return: HF_CLI_GO_ON or an exit code.
 */
int hf_cli_ask_target(
	struct hf_cli *cli, int argc, char **argv, const char *method, struct json_object **ret);

/* ---- follow.c ---- */

/**
 * hf_cli_follow() - Call a method that ends in the jump, and see it through.
 * @method: without interface
 * @params: consumed
 * @ret:    the reply when there was no jump; untouched after a jump
 *
 * After a real kexec nobody is left to return to. When the agent replaces only itself, this waits
 * for its successor and prints the report. Return: HF_CLI_GO_ON when the method just replied, or an
 * exit code.
 */
int hf_cli_follow(struct hf_cli *cli, const char *method, struct json_object *params,
	struct json_object **ret);

/* ---- orderly.c ---- */

/**
 * hf_cli_orderly_settle() - See to it that every guest outlasts a shutdown of the host by systemd.
 *
 * Return: HF_CLI_GO_ON or an exit code.
 */
int hf_cli_orderly_settle(struct hf_cli *cli);

/** hf_cli_abort_after() - Undo what was prepared, for what came after it failed. Return: @code. */
int hf_cli_abort_after(struct hf_cli *cli, int code);

/**
 * hf_cli_orderly_kexec() - Have systemd shut the host down for a kexec, which commits what is
 * prepared.
 *
 * Returns while that is under way. Return: an exit code.
 */
int hf_cli_orderly_kexec(struct hf_cli *cli);

/* ---- inspect-kernel.c ---- */

/** hf_cli_inspect_kernel() - Look into a kernel image, without the agent. Return: an exit code. */
int hf_cli_inspect_kernel(struct hf_cli *cli, const char *path);

/* ---- check.c, guests.c, history.c, report.c, status.c ---- */

/**
 * hf_cli_show_verdict() - Print whether the host is ready, unless for programs.
 * @verdict: ok, warning, refusal
 *
 * Return: the exit code for it.
 */
int hf_cli_show_verdict(const struct hf_cli *cli, const char *verdict);

/** hf_cli_show_skipped() - Say on stderr which reports could not be read. NULL is fine. */
void hf_cli_show_skipped(struct json_object *skipped);

/** hf_cli_show_findings() - Print findings grouped by host and guest. Both arrays may be NULL. */
void hf_cli_show_findings(
	const struct hf_cli *cli, struct json_object *findings, struct json_object *guests);

/** hf_cli_show_guests() - Print guests as a table. @steps: with the step of the update. */
void hf_cli_show_guests(const struct hf_cli *cli, struct json_object *guests, bool steps);

/** hf_cli_show_domains() - Print what became of domains that libvirt saved; NULL: nothing. */
void hf_cli_show_domains(const struct hf_cli *cli, struct json_object *domains);

/**
 * hf_cli_show_report() - Print an UpdateReport, unless for programs.
 *
 * Return: the exit code that fits its outcome.
 */
int hf_cli_show_report(const struct hf_cli *cli, struct json_object *report);
