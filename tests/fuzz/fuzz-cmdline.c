/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Any command line, one argument a line.
 *
 * Whatever it says, it parses (or is too long); a guest that can be preserved can be built both
 * ways; building leaves the user's other arguments as they are and where they are; and what was
 * built holds no RAM outside files: it is refused when parsed again. As libvirt's, it has no file
 * handed over that no console of the same name writes to.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "memfd-preserve/manifest.h"
#include "vmm-glue/cmdline.h"

#define MAX_ARGS 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_ram_arg(const struct hf_cmdline *plan, size_t arg)
{
	for (size_t i = 0; i < plan->n_ram; i++)
		if (plan->ram[i].arg == (int)arg)
			return true;
	return false;
}

static void check_built(const struct hf_cmdline *plan, bool respawn)
{
	int fds[HF_MANIFEST_MAX_RAM];
	const struct hf_cmdline_how how = {.ram_fds = fds,
		.qmp_path = "/run/q,mp",
		.respawn = respawn,
		.machine_type = respawn ? "pc-i440fx-10.0" : NULL};
	struct hf_cmdline *again;
	char **argv;
	size_t n, at = 0;

	for (size_t i = 0; i < HF_MANIFEST_MAX_RAM; i++)
		fds[i] = 100 + (int)i;
	if (hf_cmdline_build(plan, &how, &argv, &n, NULL) < 0)
		abort();
	assert(!argv[n]);
	for (size_t i = 0; i < plan->n_argv; i++) {
		/* -loadvm and its value are the only ones that may go. */
		if (respawn && at < n && strcmp(argv[at], plan->argv[i]) != 0 &&
			!is_ram_arg(plan, i) && strstr(plan->argv[i], "loadvm")) {
			i++;
			continue;
		}
		assert(at < n);
		assert(is_ram_arg(plan, i) || strcmp(argv[at], plan->argv[i]) == 0);
		at++;
	}
	if (hf_cmdline_parse((const char *const *)argv, n, &again, NULL) == 0) {
		assert(!plan->n_ram || again->reason[0]);
		hf_cmdline_free(again);
	}
	free(argv);
}

/* What was rewritten once has nothing left to rewrite. */
static void check_adopted(const char *const *argv, size_t n)
{
	char **made, **again;
	size_t n_made, n_again;

	if (hf_cmdline_adopt(argv, n, &made, &n_made, NULL) < 0)
		return;
	assert(n_made <= n && !made[n_made]);
	if (hf_cmdline_adopt((const char *const *)made, n_made, &again, &n_again, NULL) !=
		-EALREADY)
		abort();
	free(made);
}

static void check_libvirt(const char *const *argv, size_t n)
{
	int fds[HF_MANIFEST_MAX_RAM] = {0};
	const struct hf_cmdline_how how = {.ram_fds = fds, .respawn = true};
	struct hf_cmdline *plan;
	char **built = NULL;

	if (hf_cmdline_parse_libvirt(argv, n, &plan, NULL) < 0)
		return;
	assert(!plan->reason[0] == !plan->remedy[0]);
	for (size_t i = 0; i < plan->n_fds; i++) {
		assert(plan->fds[i].fd >= 3 && plan->fds[i].id);
		assert(plan->reason[0] || plan->kind != HF_CMDLINE_GUEST ||
			plan->fds[i].kind != HF_FD_FILE ||
			(plan->fds[i].used && plan->fds[i].set >= 0));
	}
	if (plan->kind == HF_CMDLINE_GUEST && !plan->reason[0] &&
		hf_cmdline_build(plan, &how, &built, NULL, NULL) < 0)
		abort();
	free(built);
	hf_cmdline_free(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *argv[MAX_ARGS] = {"qemu-system-x86_64"};
	struct hf_cmdline *plan;
	char *text, *next;
	size_t n = 1;
	int r;

	text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	next = text;
	for (char *s; n < MAX_ARGS && (s = strsep(&next, "\n"));)
		argv[n++] = s;
	r = hf_cmdline_parse(argv, n, &plan, NULL);
	assert(r == 0 || r == -EFBIG);
	if (r == 0) {
		assert(plan->memory_bytes > 0 && plan->memory_bytes % 8192 == 0);
		assert(!plan->reason[0] == !plan->remedy[0]);
		for (size_t i = 0; i < plan->n_ram; i++)
			assert(plan->ram[i].size > 0 && plan->ram[i].size % 4096 == 0);
		if (plan->kind == HF_CMDLINE_GUEST && !plan->reason[0]) {
			check_built(plan, false);
			check_built(plan, true);
		}
		hf_cmdline_free(plan);
	}
	check_adopted(argv, n);
	check_libvirt(argv, n);
	free(text);
	return 0;
}
