/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The same guest, with its RAM elsewhere.
 *
 * A guest whose RAM can't be preserved is moved to memfds by a migration, and then goes on as if it
 * had been started with RAM that can. The command line for that is made here, for a registration
 * and not for QEMU: hf_cmdline_build() puts the memfds in, as for every other guest.
 *
 * QEMU names RAMBlocks after the objects that make them, and with old machine types the name goes
 * by the kind of object, too: alike for memory-backend-file and -memfd. So the one is written as
 * the other. The RAM of -mem-path is an object that the machine makes, with its usual name.
 */
#include <string.h>

#include "common/json.h"
#include "vmm-glue/cmdline-internal.h"

#define PREFIX "memory-backend-"
#define MEMFD PREFIX "memfd"

struct rewrite {
	char **values; /* one per argument; NULL: as it was */
	bool *dropped; /* one per argument */
	bool changed;
};

static bool is_place(const char *key)
{
	static const char *const keys[] = {"qom-type", "mem-path", "share", "discard-data",
		"hugetlb", "hugetlbsize", "seal", "align", "offset", "pmem", "readonly", "rom"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

static int refuse(struct hf_error *e, const char *id, const char *why, const char *remedy)
{
	return hf_error_set(
		e, -EOPNOTSUPP, HF_ERR_NOT_READY, remedy, "RAM %.64s is %s", id ? id : "?", why);
}

/* Contents that outlive the guest, or that others see, must not be left behind. */
static int check_file(const struct hf_params *v, struct hf_error *e)
{
	const char *path = hf_params_get(v, "mem-path");
	const char *id = hf_params_get(v, "id");

	if (hf_params_is_on(v, "readonly") || hf_params_is_on(v, "rom"))
		return refuse(e, id, "a read-only file", "shut it down for the update");
	if (hf_params_is_on(v, "pmem"))
		return refuse(e, id, "persistent memory", "shut it down for the update");
	if (hf_params_is_on(v, "share") && path && !strstr(path, "hugepages") &&
		!strstr(path, "hugetlb"))
		return refuse(e, id, "a shared file, which others may use too",
			"start the guest with memory-backend-memfd");
	return 0;
}

static char *as_list(const struct hf_params *v, const char *original)
{
	size_t room = strlen(original) + sizeof(MEMFD) + 1;
	char *out = malloc(room), *end = out;

	if (!out)
		return NULL;
	end = stpcpy(end, MEMFD);
	for (size_t i = 0; i < v->n; i++) {
		if (is_place(v->v[i].key))
			continue;
		*end++ = ',';
		memcpy(end, original + v->v[i].start, v->v[i].length);
		end += v->v[i].length;
		*end = 0;
	}
	return out;
}

static char *as_json(const char *original)
{
	cleanup_json struct json_object *in = NULL, *obj = json_object_new_object();
	const char *text;

	if (!obj || hf_json_parse(original, strlen(original), 8, &in) < 0)
		return NULL;
	hf_json_add_string(obj, "qom-type", MEMFD);
	json_object_object_foreach (in, key, value) {
		if (!is_place(key))
			hf_json_add(obj, key, json_object_get(value));
	}
	text = json_object_to_json_string_ext(
		obj, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	return text ? strdup(text) : NULL;
}

static int on_object(struct rewrite *w, const struct hf_option *o, struct hf_error *e)
{
	cleanup_params struct hf_params v = {0};
	const char *type;
	int r = hf_params_parse(o->value, "qom-type", &v);

	if (r == -EBADMSG)
		return 0; /* the parser says what is wrong with it */
	if (r < 0)
		return r;
	type = hf_params_get(&v, "qom-type");
	if (!type || (strcmp(type, PREFIX "file") != 0 &&
			     !(strcmp(type, MEMFD) == 0 && hf_params_is_on(&v, "hugetlb"))))
		return 0;
	r = check_file(&v, e);
	if (r < 0)
		return r;
	w->values[o->value_arg] = v.json ? as_json(o->value) : as_list(&v, o->value);
	w->changed = true;
	return w->values[o->value_arg] ? 0 : -ENOMEM;
}

/* Pages that the guest says are free are left out of a migration: then not all of them come. */
static int on_device(const struct hf_option *o, struct hf_error *e)
{
	cleanup_params struct hf_params v = {0};
	int r = hf_params_parse(o->value, "driver", &v);

	if (r < 0)
		return r == -EBADMSG ? 0 : r;
	if (hf_params_is_on(&v, "free-page-hint"))
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"shut it down for the update, or start it without free-page-hint",
			"its balloon has free-page-hint=on, which leaves RAM out of a migration");
	return 0;
}

static int on_option(struct rewrite *w, const struct hf_option *o, struct hf_error *e)
{
	switch (o->kind) {
	case HF_OPTION_OBJECT:
		return on_object(w, o, e);
	case HF_OPTION_DEVICE:
		return on_device(o, e);
	case HF_OPTION_MEM_PATH:
		w->dropped[o->arg] = w->dropped[o->value_arg] = true;
		w->changed = true;
		return 0;
	default:
		return 0;
	}
}

static int put_together(
	const struct rewrite *w, const char *const *argv, size_t n, char ***ret, size_t *ret_n)
{
	size_t bytes = 0, out = 0;
	char **made, *end;

	for (size_t i = 0; i < n; i++)
		bytes += strlen(w->values[i] ? w->values[i] : argv[i]) + 1;
	made = malloc((n + 1) * sizeof(*made) + bytes);
	if (!made)
		return -ENOMEM;
	end = (char *)(made + n + 1);
	for (size_t i = 0; i < n; i++) {
		if (w->dropped[i])
			continue;
		made[out++] = end;
		end = stpcpy(end, w->values[i] ? w->values[i] : argv[i]) + 1;
	}
	made[out] = NULL;
	*ret = made;
	*ret_n = out;
	return 0;
}

/* Nothing else may be in the way. */
static int check(const char *const *argv, size_t n, struct hf_error *e)
{
	cleanup_cmdline struct hf_cmdline *plan = NULL;
	int r = hf_cmdline_parse(argv, n, &plan, e);

	if (r < 0)
		return r;
	if (plan->kind != HF_CMDLINE_GUEST)
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, NULL,
			"its command line is not one of a guest");
	if (plan->reason[0])
		return hf_error_set(
			e, -EOPNOTSUPP, HF_ERR_NOT_READY, plan->remedy, "%s", plan->reason);
	return 0;
}

int hf_cmdline_adopt(
	const char *const *argv, size_t n, char ***ret_argv, size_t *ret_n, struct hf_error *e)
{
	struct rewrite w = {.values = calloc(n + 1, sizeof(*w.values)),
		.dropped = calloc(n + 1, sizeof(*w.dropped))};
	cleanup_free char **made = NULL;
	struct hf_error why = {0};
	struct hf_option o;
	size_t pos = 1, out = 0;
	int r = w.values && w.dropped ? 0 : -ENOMEM;

	/* Only read: the walk takes what QEMU's main() gets. */
	while (r == 0 && hf_option_next((char *const *)argv, n, &pos, &o))
		r = on_option(&w, &o, &why);
	if (r == 0)
		r = put_together(&w, argv, n, &made, &out);
	for (size_t i = 0; w.values && i < n; i++)
		free(w.values[i]);
	free(w.values);
	free(w.dropped);
	if (r == 0)
		r = check((const char *const *)made, out, &why);
	if (r == 0 && !w.changed)
		r = hf_error_set(&why, -EALREADY, HF_ERR_STATE, "there is nothing to do",
			"its RAM can be preserved as it is");
	if (r < 0) {
		if (!why.err)
			hf_error_set(&why, r, HF_ERR_FAILED, NULL, "reading the command line: %s",
				strerror(-r));
		if (e)
			*e = why;
		return r;
	}
	*ret_argv = TAKE_PTR(made);
	*ret_n = out;
	return 0;
}
