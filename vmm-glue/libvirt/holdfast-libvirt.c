/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast-libvirt: what holdfast does with libvirt's library. One verb per file; this one has
 * the table of them. `holdfast libvirt` executes it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vmm-glue/libvirt/verbs.h"

static const struct hf_libvirt_verb *const verbs[] = {
	&hf_libvirt_verb_setup,
	&hf_libvirt_verb_enable,
	&hf_libvirt_verb_list,
	&hf_libvirt_verb_monitor,
	&hf_libvirt_verb_save,
	&hf_libvirt_verb_start,
};

static int show_usage(FILE *f)
{
	fputs("usage: holdfast-libvirt VERB [OPTIONS]\n"
	      "       holdfast-libvirt VERB --help\n"
	      "       holdfast-libvirt --version\n"
	      "\n",
		f);
	for (size_t i = 0; i < HF_ARRAY_SIZE(verbs); i++)
		fprintf(f, "  %s %s\n", verbs[i]->name, verbs[i]->usage);
	return HF_LIBVIRT_OK;
}

/* Results that did not reach their reader are no success. */
static int finish(int code)
{
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "holdfast: can't write the result: %s\n", strerror(errno));
		return code == HF_LIBVIRT_OK ? HF_LIBVIRT_FAILED : code;
	}
	return code;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;

	if (!name) {
		show_usage(stderr);
		return HF_LIBVIRT_USAGE;
	}
	if (strcmp(name, "--version") == 0) {
		puts("holdfast-libvirt " HF_VERSION);
		return finish(HF_LIBVIRT_OK);
	}
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		return finish(show_usage(stdout));
	for (size_t i = 0; i < HF_ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i]->name, name) == 0)
			return finish(verbs[i]->run(verbs[i], argc - 1, argv + 1));
	fprintf(stderr, "holdfast libvirt: no verb '%s'\n  See: holdfast libvirt --help\n", name);
	return HF_LIBVIRT_USAGE;
}
