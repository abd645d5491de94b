/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/registration-trust.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* A line of 65536 groups, and the rest. */
#define STATUS_MAX_BYTES (1u << 20)

bool hf_registration_trusts(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static int check_folder(const char *path, struct hf_error *error)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0
				       : hf_error_set(error, -errno, HF_ERR_FAILED, NULL, "%s: %s",
						 path, strerror(errno));
	if (S_ISDIR(st.st_mode) && hf_registration_trusts(st.st_uid) &&
		!(st.st_mode & (S_IWGRP | S_IWOTH)))
		return 0;
	return hf_error_set(error, -EPERM, HF_ERR_NOT_PERMITTED,
		"make it a folder of root's that nobody else can write to, and look at what is in "
		"it",
		"no guest is believed to be one while others than root may write to %s: what is "
		"registered there is started as its users",
		path);
}

int hf_registration_check_folder(struct hf_error *error)
{
	char path[PATH_MAX];
	int r;

	if (snprintf(path, sizeof(path), "%s/guests", hf_run_dir()) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	r = check_folder(hf_run_dir(), error);
	return r < 0 ? r : check_folder(path, error);
}

int hf_registration_check_file(const struct stat *st, struct hf_error *error)
{
	if (!S_ISREG(st->st_mode) || st->st_nlink > 1)
		return hf_error_set(error, -EPERM, HF_ERR_NOT_PERMITTED, "remove it",
			"it is no file of its own");
	if (st->st_mode & (S_IWGRP | S_IWOTH))
		return hf_error_set(error, -EPERM, HF_ERR_NOT_PERMITTED, "remove it",
			"others than its owner may write to it");
	return 0;
}

/* ---- who a process is ---- */

struct credentials {
	unsigned int uids[4], gids[4]; /* real, effective, saved, of the file system */
	uint32_t *groups;
	size_t n_groups;
};

static void clear_credentials(struct credentials *c)
{
	free(c->groups);
	c->groups = NULL;
}
#define cleanup_credentials HF_CLEANUP(clear_credentials)

static int parse_four(const char *status, const char *key, unsigned int ret[4])
{
	const char *line = strstr(status, key);

	if (!line ||
		sscanf(line + strlen(key), "%u %u %u %u", &ret[0], &ret[1], &ret[2], &ret[3]) != 4)
		return -EBADMSG;
	return 0;
}

static int parse_groups(const char *status, struct credentials *ret)
{
	static const char key[] = "\nGroups:";
	const char *p = strstr(status, key);
	char *end;

	ret->groups = calloc(HF_MANIFEST_MAX_GROUPS, sizeof(*ret->groups));
	if (!p || !ret->groups)
		return p ? -ENOMEM : -EBADMSG;
	for (p += strlen(key);; p = end) {
		unsigned long v;

		while (*p == ' ' || *p == '\t')
			p++;
		if (*p == '\n' || *p == 0)
			return 0;
		v = strtoul(p, &end, 10);
		if (end == p || v > UINT32_MAX || ret->n_groups == HF_MANIFEST_MAX_GROUPS)
			return -EBADMSG;
		ret->groups[ret->n_groups++] = (uint32_t)v;
	}
}

static int read_credentials(pid_t pid, struct credentials *ret)
{
	cleanup_free char *status = NULL;
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	r = hf_file_read(path, STATUS_MAX_BYTES, &status, NULL);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	r = parse_four(status, "\nUid:", ret->uids);
	if (r == 0)
		r = parse_four(status, "\nGid:", ret->gids);
	return r < 0 ? r : parse_groups(status, ret);
}

static bool all_are(const unsigned int ids[4], unsigned int id)
{
	for (int i = 0; i < 4; i++)
		if (ids[i] != id)
			return false;
	return true;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static bool same_groups(const struct credentials *c, const struct hf_manifest_guest *g)
{
	cleanup_free uint32_t *sorted = NULL;

	if (c->n_groups != g->n_groups)
		return false;
	if (g->n_groups == 0)
		return true;
	sorted = malloc(g->n_groups * sizeof(*sorted));
	if (!sorted)
		return false;
	memcpy(sorted, g->groups, g->n_groups * sizeof(*sorted));
	qsort(sorted, g->n_groups, sizeof(*sorted), by_number);
	qsort(c->groups, c->n_groups, sizeof(*c->groups), by_number);
	return memcmp(sorted, c->groups, g->n_groups * sizeof(*sorted)) == 0;
}

int hf_registration_check_process(const struct hf_registration *reg, struct hf_error *error)
{
	cleanup_credentials struct credentials c = {0};
	const struct hf_manifest_guest *g = &reg->guest;
	bool trusted = hf_registration_trusts(reg->owner);
	int r;

	r = read_credentials(reg->pid, &c);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL,
			"can't read who process %d is: %s", (int)reg->pid, strerror(-r));
	if (!trusted && !all_are(c.uids, reg->owner))
		return hf_error_set(error, -EPERM, HF_ERR_NOT_PERMITTED, "remove the file",
			"the registration of guest %s is user %u's, and process %d is not", g->name,
			(unsigned int)reg->owner, (int)reg->pid);
	/* -runas: what is started as root again becomes this again. */
	if (trusted && g->uid == 0 && c.uids[1] != 0)
		return 0;
	if (all_are(c.uids, g->uid) && all_are(c.gids, g->gid) && same_groups(&c, g))
		return 0;
	return hf_error_set(error, -EPERM, HF_ERR_NOT_PERMITTED,
		"remove the file, or start the guest anew",
		"guest %s is registered with another user, group or groups (user %u, group %u) "
		"than its "
		"process %d has (user %u, group %u)",
		g->name, g->uid, g->gid, (int)reg->pid, c.uids[1], c.gids[1]);
}
