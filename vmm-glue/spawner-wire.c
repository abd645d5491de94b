/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "vmm-glue/spawn-internal.h"
#include "vmm-glue/spawner.h"

#define MAGIC 0x50534648u /* HFSP */
#define VERSION 2
#define NO_STRING UINT32_MAX
/* As the manifest has them. */
#define MAX_STRINGS 4096
#define MAX_GROUPS 65536
#define MAX_NUMBERS 128

/* ---- writing ---- */

static void put(FILE *f, const void *data, size_t size)
{
	fwrite(data, 1, size, f);
}

static void put_u32(FILE *f, size_t n)
{
	uint32_t v = (uint32_t)n;

	put(f, &v, sizeof(v));
}

static void put_string(FILE *f, const char *s)
{
	put_u32(f, s ? strlen(s) : NO_STRING);
	if (s)
		put(f, s, strlen(s) + 1);
}

static void put_strings(FILE *f, char *const *strings)
{
	size_t n = 0;

	while (strings && strings[n])
		n++;
	put_u32(f, n);
	for (size_t i = 0; i < n; i++)
		put_string(f, strings[i]);
}

static void put_numbers(FILE *f, const uint64_t *numbers, size_t n)
{
	put_u32(f, n);
	for (size_t i = 0; i < n; i++)
		put(f, &numbers[i], sizeof(numbers[i]));
}

int hf_spawner_encode(const struct hf_spawn_spec *s, void **ret, size_t *ret_size)
{
	char *data = NULL;
	FILE *f = open_memstream(&data, ret_size);
	bool failed;

	if (!f)
		return -ENOMEM;
	put_u32(f, MAGIC);
	put_u32(f, VERSION);
	put_string(f, s->program);
	put_strings(f, s->argv);
	put_strings(f, s->envp);
	put_string(f, s->cwd);
	put_u32(f, s->uid);
	put_u32(f, s->gid);
	put_u32(f, s->n_groups);
	for (size_t i = 0; i < s->n_groups; i++)
		put_u32(f, s->groups[i]);
	put_u32(f, s->umask);
	put_u32(f, s->limits ? 1 : 0);
	if (s->limits) {
		put_numbers(f, s->limits->rlimits, s->limits->n_rlimits);
		put_numbers(f, s->limits->cpus, s->limits->n_cpus);
		put_u32(f, (uint32_t)s->limits->nice);
		put_u32(f, (uint32_t)s->limits->oom_score_adj);
	}
	put_string(f, s->apparmor);
	put_u32(f, s->n_fds);
	for (size_t i = 0; i < s->n_fds; i++)
		put_u32(f, (uint32_t)s->fds[i].number);
	for (size_t i = 0; i < HF_ARRAY_SIZE(s->stdio); i++)
		put_string(f, s->stdio[i]);
	put_string(f, s->log_path);
	put_u32(f, s->output_fd > 0 ? 1 : 0);
	failed = ferror(f) != 0;
	if (fclose(f) != 0 || failed) {
		free(data);
		return -ENOMEM;
	}
	*ret = data;
	return 0;
}

/* ---- reading: the first thing that is wrong stays in err, and what is read then is nothing ----
 */

struct reader {
	const uint8_t *at, *end;
	struct hf_spawner_request *request;
	int err;
};

static void wrong(struct reader *r, int err)
{
	if (!r->err)
		r->err = err;
}

static void get(struct reader *r, void *ret, size_t size)
{
	if (!r->err && (size_t)(r->end - r->at) >= size) {
		memcpy(ret, r->at, size);
		r->at += size;
		return;
	}
	memset(ret, 0, size);
	wrong(r, -EBADMSG);
}

static uint32_t get_u32(struct reader *r, uint32_t max)
{
	uint32_t v;

	get(r, &v, sizeof(v));
	if (v <= max)
		return v;
	wrong(r, -EBADMSG);
	return 0;
}

static char *get_string(struct reader *r)
{
	uint32_t size = get_u32(r, UINT32_MAX);
	const uint8_t *s = r->at;

	if (r->err || size == NO_STRING)
		return NULL;
	if ((size_t)(r->end - s) <= size || s[size] != 0 || memchr(s, 0, size)) {
		wrong(r, -EBADMSG);
		return NULL;
	}
	r->at += (size_t)size + 1;
	return (char *)(uintptr_t)s;
}

static void *get_memory(struct reader *r, size_t n, size_t size)
{
	void *memory = calloc(n, size);

	if (!memory)
		wrong(r, -ENOMEM);
	else
		r->request->memory[r->request->n_memory++] = memory;
	return memory;
}

static char **get_strings(struct reader *r)
{
	size_t n = get_u32(r, MAX_STRINGS);
	char **strings = get_memory(r, n + 1, sizeof(*strings));

	for (size_t i = 0; strings && i < n; i++) {
		strings[i] = get_string(r);
		if (!strings[i])
			wrong(r, -EBADMSG);
	}
	return strings;
}

static uint64_t *get_numbers(struct reader *r, size_t *ret_n)
{
	size_t n = get_u32(r, MAX_NUMBERS);
	uint64_t *numbers = get_memory(r, n + 1, sizeof(*numbers));

	*ret_n = numbers ? n : 0;
	for (size_t i = 0; i < *ret_n; i++)
		get(r, &numbers[i], sizeof(numbers[i]));
	return numbers;
}

static void get_groups(struct reader *r, struct hf_spawn_spec *s)
{
	size_t n = get_u32(r, MAX_GROUPS);
	gid_t *groups = get_memory(r, n + 1, sizeof(*groups));

	s->groups = groups;
	s->n_groups = groups ? n : 0;
	for (size_t i = 0; i < s->n_groups; i++)
		groups[i] = get_u32(r, UINT32_MAX);
}

static void get_limits(struct reader *r, struct hf_manifest_limits *l)
{
	l->rlimits = get_numbers(r, &l->n_rlimits);
	l->cpus = get_numbers(r, &l->n_cpus);
	l->nice = (int32_t)get_u32(r, UINT32_MAX);
	l->oom_score_adj = (int32_t)get_u32(r, UINT32_MAX);
}

int hf_spawner_decode(const void *data, size_t size, struct hf_spawner_request *ret)
{
	struct reader r = {.at = data, .end = (const uint8_t *)data + size, .request = ret};
	struct hf_spawn_spec *s = &ret->spec;

	*ret = (struct hf_spawner_request){0};
	if (get_u32(&r, UINT32_MAX) != MAGIC)
		return -EBADMSG;
	if (get_u32(&r, UINT32_MAX) != VERSION)
		return r.err ? r.err : -EPROTONOSUPPORT;
	s->program = get_string(&r);
	s->argv = get_strings(&r);
	s->envp = get_strings(&r);
	s->cwd = get_string(&r);
	s->uid = get_u32(&r, UINT32_MAX);
	s->gid = get_u32(&r, UINT32_MAX);
	get_groups(&r, s);
	s->umask = get_u32(&r, 07777);
	if (get_u32(&r, 1)) {
		get_limits(&r, &ret->limits);
		s->limits = &ret->limits;
	}
	s->apparmor = get_string(&r);
	s->fds = ret->fds;
	s->n_fds = get_u32(&r, HF_ARRAY_SIZE(ret->fds));
	for (size_t i = 0; i < s->n_fds; i++)
		ret->fds[i] =
			(struct hf_spawn_fd){.fd = -EBADF, .number = (int)get_u32(&r, INT32_MAX)};
	for (size_t i = 0; i < HF_ARRAY_SIZE(s->stdio); i++)
		s->stdio[i] = get_string(&r);
	s->log_path = get_string(&r);
	ret->has_output = get_u32(&r, 1) != 0;
	if (!s->program || !s->argv || !s->argv[0] || r.at != r.end)
		wrong(&r, -EBADMSG);
	return r.err;
}

void hf_spawner_request_release(struct hf_spawner_request *request)
{
	for (size_t i = 0; i < request->n_memory; i++)
		free(request->memory[i]);
	request->n_memory = 0;
}
