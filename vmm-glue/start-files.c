/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/start-files.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vmm-glue/cmdline-internal.h"

#define MAX_DIRS 64

static void free_list(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

void hf_start_files_clear(struct hf_start_files *files)
{
	free_list(files->paths, files->n_paths);
	free_list(files->missing, files->n_missing);
	*files = (struct hf_start_files){0};
}

static int append(char ***list, size_t *n, const char *text)
{
	char **p, *copy;

	for (size_t i = 0; i < *n; i++)
		if (strcmp((*list)[i], text) == 0)
			return 0;
	if (*n == HF_START_FILES_MAX)
		return 0;
	copy = strdup(text);
	p = reallocarray(*list, *n + 2, sizeof(*p));
	if (p)
		*list = p;
	if (!copy || !p) {
		free(copy);
		return -ENOMEM;
	}
	p[(*n)++] = copy;
	p[*n] = NULL;
	return 0;
}

/* A search under way: the command line's own folders come before those built in. */
struct search {
	const struct hf_manifest_guest *guest;
	const char *dirs[MAX_DIRS];
	size_t n_dirs;
	struct hf_start_files *files;
};

/* Relative names mean the guest's folder. */
static bool try_path(const struct search *s, const char *dir, const char *name, char *path)
{
	const char *cwd = s->guest->cwd && s->guest->cwd[0] ? s->guest->cwd : "/";
	const char *first = name[0] == '/' || (dir && dir[0] == '/') ? "" : cwd;
	int n = snprintf(path, PATH_MAX, "%s%s%s%s%s", first, first[0] ? "/" : "", dir ? dir : "",
		dir ? "/" : "", name);

	return n < PATH_MAX && access(path, R_OK) == 0;
}

static int look_for(struct search *s, const char *name)
{
	struct hf_start_files *f = s->files;
	char path[PATH_MAX];
	bool found;

	if (!name[0])
		return 0;
	found = try_path(s, NULL, name, path);
	for (size_t i = 0; !found && name[0] != '/' && i < s->n_dirs; i++)
		found = try_path(s, s->dirs[i], name, path);
	if (found)
		return append(&f->paths, &f->n_paths, path);
	return append(&f->missing, &f->n_missing, name);
}

static int add_dir(struct search *s, const char *dir)
{
	if (s->n_dirs < MAX_DIRS)
		s->dirs[s->n_dirs++] = dir;
	return 0;
}

/* What the command line names. ROMs on it are in QEMU's own lists, too. */
static int walk_options(struct search *s, bool dirs)
{
	const struct hf_manifest_guest *g = s->guest;
	struct hf_option o;
	size_t pos = 1;
	int r = 0;

	while (r == 0 && hf_option_next(g->argv, g->n_argv, &pos, &o)) {
		if (dirs)
			r = strcmp(o.name, "L") == 0 ? add_dir(s, o.value) : 0;
		else if (strcmp(o.name, "kernel") == 0 || strcmp(o.name, "initrd") == 0)
			r = look_for(s, o.value);
	}
	return r;
}

int hf_start_files_find(const struct hf_manifest_guest *guest, char *const *roms,
	char *const *data_dirs, struct hf_start_files *ret)
{
	struct search s = {.guest = guest, .files = ret};
	int r;

	*ret = (struct hf_start_files){0};
	r = walk_options(&s, true);
	for (; data_dirs && *data_dirs; data_dirs++)
		add_dir(&s, *data_dirs);
	if (r == 0)
		r = walk_options(&s, false);
	for (; r == 0 && roms && *roms; roms++)
		r = look_for(&s, *roms);
	if (r < 0)
		hf_start_files_clear(ret);
	return r;
}
