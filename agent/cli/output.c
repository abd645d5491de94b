/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What people see: terminals, tables, units.
 */
#include "agent/cli/cli.h"

#include <langinfo.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

#define N_BUFFERS 8
#define COLOR_RED "\033[31m"
#define COLOR_GREEN "\033[32m"
#define COLOR_YELLOW "\033[33m"
#define COLOR_BOLD "\033[1m"
#define COLOR_OFF "\033[0m"

void hf_cli_terminal_init(struct hf_cli *cli)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");
	bool color = !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;

	cli->out_glyphs = isatty(STDOUT_FILENO) && strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
	cli->out_color = color && isatty(STDOUT_FILENO);
	cli->err_color = color && isatty(STDERR_FILENO);
}

/* Bytes of the printable character that @text begins with, 0 when it is none. */
static size_t printable(const char *text, size_t size)
{
	mbstate_t state = {0};
	wchar_t wide;
	size_t n;

	if ((unsigned char)text[0] < 0x80)
		return text[0] >= 0x20 && text[0] != 0x7f;
	n = mbrtowc(&wide, text, size, &state);
	if (n == 0 || n > size)
		return 0;
	return iswprint((wint_t)wide) ? n : 0;
}

const char *hf_cli_clean(const char *text)
{
	static char buffers[N_BUFFERS][1024];
	static unsigned int next;
	char *out = buffers[next++ % N_BUFFERS], *p = out;
	const char *limit = out + sizeof(buffers[0]) - sizeof("...");

	for (size_t left = text ? strlen(text) : 0; left > 0;) {
		size_t n = printable(text, left);

		if (p + n >= limit) {
			p = stpcpy(p, "...");
			break;
		}
		if (n == 0)
			*p++ = '?';
		else
			p = mempcpy(p, text, n);
		n = HF_MAX(n, (size_t)1);
		text += n;
		left -= n;
	}
	*p = 0;
	return out;
}

const char *hf_cli_bytes(int64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	static char buffers[N_BUFFERS][32];
	static unsigned int next;
	char *out = buffers[next++ % N_BUFFERS];
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < HF_ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	/* Round sizes, as RAM has them, need no fraction. */
	snprintf(out, sizeof(buffers[0]), value == (double)(int64_t)value ? "%.0f %s" : "%.1f %s",
		value, units[unit]);
	return out;
}

const char *hf_cli_duration(int64_t ns)
{
	static char buffers[N_BUFFERS][32];
	static unsigned int next;
	char *out = buffers[next++ % N_BUFFERS];

	if (ns < 1000000)
		snprintf(out, sizeof(buffers[0]), "%.3f ms", (double)ns / 1e6);
	else if (ns < 1000000000)
		snprintf(out, sizeof(buffers[0]), "%.1f ms", (double)ns / 1e6);
	else
		snprintf(out, sizeof(buffers[0]), "%.3f s", (double)ns / 1e9);
	return out;
}

void hf_cli_print_json(struct json_object *obj)
{
	puts(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
							 JSON_C_TO_STRING_NOSLASHESCAPE));
}

void hf_cli_table_column(struct hf_cli_table *table, const char *title)
{
	if (table->n_columns < HF_CLI_MAX_COLUMNS)
		table->titles[table->n_columns++] = title;
}

void hf_cli_table_cell(struct hf_cli_table *table, const char *text)
{
	char **cells = realloc(table->cells, (table->n_cells + 1) * sizeof(*cells));

	if (!cells)
		abort(); /* a program for one answer has nothing to save */
	table->cells = cells;
	cells[table->n_cells] = strdup(text && text[0] ? hf_cli_clean(text) : "-");
	if (!cells[table->n_cells++])
		abort();
}

/* Columns that a cleaned string takes on the screen. */
static int screen_width(const char *text)
{
	mbstate_t state = {0};
	int width = 0;

	while (*text) {
		wchar_t wide;
		size_t n = mbrtowc(&wide, text, strlen(text), &state);
		int w;

		if (n == 0 || n > strlen(text))
			return width + (int)strlen(text);
		w = wcwidth(wide);
		width += w > 0 ? w : 0;
		text += n;
	}
	return width;
}

static const char *title_text(const char *title)
{
	return title[0] == HF_CLI_RIGHT[0] ? title + 1 : title;
}

static void print_cell(const char *text, int width, bool right, bool last)
{
	int pad = width - screen_width(text);

	if (right)
		printf("%*s%s", pad, "", text);
	else
		printf("%s%*s", text, last ? 0 : pad, "");
	fputs(last ? "\n" : "  ", stdout);
}

void hf_cli_table_print(const struct hf_cli *cli, struct hf_cli_table *table)
{
	int widths[HF_CLI_MAX_COLUMNS];
	size_t n = table->n_columns;

	if (n == 0)
		return;
	for (size_t i = 0; i < n; i++)
		widths[i] = screen_width(title_text(table->titles[i]));
	for (size_t i = 0; i < table->n_cells; i++)
		widths[i % n] = HF_MAX(widths[i % n], screen_width(table->cells[i]));

	fputs(cli->out_color ? COLOR_BOLD : "", stdout);
	for (size_t i = 0; i < n; i++) {
		/* The colour ends before the line does. */
		if (i + 1 == n && cli->out_color) {
			bool right = table->titles[i][0] == HF_CLI_RIGHT[0];
			const char *title = title_text(table->titles[i]);

			printf("%*s%s%s\n", right ? widths[i] - screen_width(title) : 0, "", title,
				COLOR_OFF);
			break;
		}
		print_cell(title_text(table->titles[i]), widths[i],
			table->titles[i][0] == HF_CLI_RIGHT[0], i + 1 == n);
	}
	for (size_t i = 0; i < table->n_cells; i++) {
		print_cell(table->cells[i], widths[i % n],
			table->titles[i % n][0] == HF_CLI_RIGHT[0], (i + 1) % n == 0);
		free(table->cells[i]);
	}
	free(table->cells);
	*table = (struct hf_cli_table){0};
}

void hf_cli_mark(const struct hf_cli *cli, enum hf_cli_mood mood, const char *word)
{
	static const char *const glyphs[] = {"✓", "!", "✗"};
	static const char *const colors[] = {COLOR_GREEN, COLOR_YELLOW, COLOR_RED};

	if (cli->out_color)
		fputs(colors[mood], stdout);
	if (cli->out_glyphs)
		fputs(glyphs[mood], stdout);
	else
		printf("%-7s", hf_cli_clean(word));
	if (cli->out_color)
		fputs(COLOR_OFF, stdout);
}

void hf_cli_field(const char *label, const char *value)
{
	if (value && value[0])
		printf("%-12s %s\n", label, hf_cli_clean(value));
}
