/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast inspect: what is handed over in a jump, decoded for people.
 */
#include "agent/cli/cli.h"

#include <string.h>

#include "common/fd.h"

/* As base64 and with the rest of the call it has to fit into one message. */
#define MAX_MANIFEST_BYTES (HF_VARLINK_MAX_IN / 4 * 3 - 4096)

static char *to_base64(const unsigned char *data, size_t size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = malloc((size + 2) / 3 * 4 + 1), *p = text;

	for (size_t i = 0; text && i < size; i += 3) {
		uint32_t bits = (uint32_t)data[i] << 16;

		if (i + 1 < size)
			bits |= (uint32_t)data[i + 1] << 8;
		if (i + 2 < size)
			bits |= data[i + 2];
		*p++ = digits[bits >> 18];
		*p++ = digits[bits >> 12 & 63];
		*p++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
		*p++ = i + 2 < size ? digits[bits & 63] : '=';
	}
	if (p)
		*p = 0;
	return text;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && strcmp(text + n - m, end) == 0;
}

static void show_value(struct json_object *value, const char *key);
static void show_tree(struct json_object *value, int depth);

/* One "key: value" line, or "key:" and what it holds below it. */
static void show_entry(const char *key, struct json_object *value, int depth)
{
	bool nested = json_object_is_type(value, json_type_object) ||
		      json_object_is_type(value, json_type_array);

	printf("%*s%s:", depth * 2, "", hf_cli_clean(key));
	if (!nested) {
		putchar(' ');
		show_value(value, key);
	}
	putchar('\n');
	if (nested)
		show_tree(value, depth + 1);
}

/* The wire's depth limit bounds the recursion. */
static void show_tree(struct json_object *value, int depth)
{
	if (json_object_is_type(value, json_type_object)) {
		json_object_object_foreach (value, key, child)
			show_entry(key, child, depth);
	}
	for (size_t i = 0; i < hf_json_array_size(value); i++) {
		char key[32];

		snprintf(key, sizeof(key), "%zu", i);
		show_entry(key, json_object_array_get_idx(value, i), depth);
	}
}

static void show_value(struct json_object *value, const char *key)
{
	int64_t n = json_object_get_int64(value);

	fputs(hf_cli_clean(value ? json_object_get_string(value) : "-"), stdout);
	if (!json_object_is_type(value, json_type_int))
		return;
	if (ends_with(key, "_bytes") && n >= 1024)
		printf(" (%s)", hf_cli_bytes(n));
	else if (ends_with(key, "_ns") && n >= 1000)
		printf(" (%s)", hf_cli_duration(n));
}

static int inspect(
	struct hf_cli *cli, const char *method, struct json_object *params, const char *key)
{
	cleanup_json struct json_object *reply = NULL;
	int r;

	r = hf_cli_fetch(cli, method, params, &reply);
	if (r != HF_CLI_GO_ON)
		return r;
	if (cli->json)
		hf_cli_print_json(reply);
	else
		show_tree(hf_json_get_object(reply, key), 0);
	return HF_EXIT_OK;
}

static int inspect_manifest(struct hf_cli *cli, const char *path)
{
	struct json_object *params = json_object_new_object();
	cleanup_free char *data = NULL, *text = NULL;
	struct hf_error e = {0};
	size_t size;
	int r;

	if (path) {
		r = hf_file_read(path, MAX_MANIFEST_BYTES, &data, &size);
		if (r < 0) {
			json_object_put(params);
			hf_error_set(&e, r, HF_ERR_FAILED, NULL, "%s: %s", path,
				r == -EFBIG ? "too large for a manifest" : strerror(-r));
			return hf_cli_fail(cli, &e, NULL);
		}
		text = to_base64((unsigned char *)data, size);
		hf_json_add_string(params, "data", text);
	}
	return inspect(cli, "InspectManifest", params, "manifest");
}

static int run(struct hf_cli *cli, int argc, char **argv)
{
	char **args;
	int r;

	r = hf_cli_parse(cli, argc, argv, NULL, 2, &args);
	if (r != HF_CLI_GO_ON)
		return r;
	if (!args[0])
		return hf_cli_usage_error(cli, "inspect what? manifest, kho or kernel");
	if (strcmp(args[0], "manifest") == 0)
		return inspect_manifest(cli, args[1]);
	if (strcmp(args[0], "kho") == 0 && !args[1])
		return inspect(cli, "InspectKho", NULL, "trees");
	if (strcmp(args[0], "kernel") == 0 && !args[1])
		return hf_cli_usage_error(cli, "inspect which kernel? An IMAGE is missing");
	if (strcmp(args[0], "kernel") == 0)
		return hf_cli_inspect_kernel(cli, args[1]);
	return hf_cli_usage_error(cli, "can't inspect '%s': manifest [FILE], kho or kernel IMAGE",
		args[1] ? args[1] : args[0]);
}

const struct hf_cli_verb hf_cli_verb_inspect = {
	.name = "inspect",
	.usage = "manifest [FILE] | kho | kernel IMAGE",
	.summary = "decode what is handed over in a jump, or look into a kernel image",
	.help = "  manifest [FILE]   what the agent tells its successor: of the update under way,\n"
		"                    or from a file\n"
		"  kho               what the running kernel was handed, and will hand over\n"
		"  kernel IMAGE      what a kernel image is, and which formats of handing over it\n"
		"                    understands; needs no agent\n",
	.run = run,
};
