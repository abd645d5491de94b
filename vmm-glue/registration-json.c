/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "vmm-glue/registration.h"

static const char *const stdio_kinds[] = {
	[HF_STDIO_NONE] = "none", [HF_STDIO_NULL] = "null", [HF_STDIO_PATH] = "path"};

bool hf_uuid_parse(const char *text, char ret[HF_UUID_CHARS])
{
	char out[HF_UUID_CHARS];
	size_t i;

	for (i = 0; i < HF_UUID_CHARS - 1; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
		out[i] = (char)tolower((unsigned char)text[i]);
	}
	if (text[i])
		return false;
	out[i] = 0;
	memcpy(ret, out, sizeof(out));
	return true;
}

/* Well-formed UTF-8 without surrogates and overlong forms: what a JSON parser accepts. */
static bool is_utf8(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		unsigned int extra = *s < 0x80 ? 0 : *s < 0xe0 ? 1 : *s < 0xf0 ? 2 : 3;
		static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
		uint32_t c = extra == 0 ? *s : *s & (0x3fu >> extra);
		uint32_t min = least[extra];

		if ((*s >= 0x80 && *s < 0xc2) || *s > 0xf4)
			return false;
		for (s++; extra; extra--, s++) {
			if ((*s & 0xc0) != 0x80)
				return false;
			c = c << 6 | (*s & 0x3f);
			/* After the last byte: a form that is too long, a surrogate, beyond
			 * Unicode. */
			if (extra == 1 && (c < min || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff))
				return false;
		}
	}
	return true;
}

bool hf_guest_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > HF_GUEST_NAME_MAX || !is_utf8(name))
		return false;
	for (const char *s = name; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f || *s == '/')
			return false;
	return true;
}

/* Arguments, environment and paths are bytes: what JSON can't hold as text goes as {"hex": …}. */
static struct json_object *bytes_new(const char *s)
{
	static const char digits[] = "0123456789abcdef";
	cleanup_json struct json_object *obj = NULL;
	cleanup_free char *hex = NULL;
	size_t n = strlen(s);

	if (is_utf8(s))
		return json_object_new_string(s);
	obj = json_object_new_object();
	hex = malloc(2 * n + 1);
	if (!obj || !hex)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		hex[2 * i] = digits[(unsigned char)s[i] >> 4];
		hex[2 * i + 1] = digits[s[i] & 15];
	}
	hex[2 * n] = 0;
	hf_json_add_string(obj, "hex", hex);
	return TAKE_PTR(obj);
}

static int hex_digit(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int bytes_get(struct json_object *value, char **ret)
{
	const char *s;
	char *out;
	size_t n;

	if (json_object_is_type(value, json_type_string)) {
		s = json_object_get_string(value);
		n = (size_t)json_object_get_string_len(value);
		if (strlen(s) != n || n >= HF_MANIFEST_MAX_STRING)
			return -EBADMSG;
		*ret = strdup(s);
		return *ret ? 0 : -ENOMEM;
	}
	s = hf_json_get_string(value, "hex", NULL);
	if (!s || json_object_object_length(value) != 1)
		return -EBADMSG;
	n = strlen(s);
	if (n % 2 || n / 2 >= HF_MANIFEST_MAX_STRING)
		return -EBADMSG;
	out = malloc(n / 2 + 1);
	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < n / 2; i++) {
		int hi = hex_digit(s[2 * i]), lo = hex_digit(s[2 * i + 1]);

		if (hi < 0 || lo < 0 || hi + lo == 0) {
			free(out);
			return -EBADMSG;
		}
		out[i] = (char)(hi << 4 | lo);
	}
	out[n / 2] = 0;
	*ret = out;
	return 0;
}

/* ---- writing ---- */

static struct json_object *strings_new(char *const *strings, size_t n)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < n; i++)
		hf_json_append(array, bytes_new(strings[i]));
	return array;
}

static struct json_object *uint_new(uint64_t v)
{
	return json_object_new_uint64(v);
}

static struct json_object *numbers_new(const uint32_t *v, size_t n)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < n; i++)
		hf_json_append(array, uint_new(v[i]));
	return array;
}

static struct json_object *stdio_new(const struct hf_manifest_stdio *v)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < 3; i++) {
		struct json_object *o = json_object_new_object();

		hf_json_add_string(o, "kind", stdio_kinds[HF_MIN(v[i].kind, HF_STDIO_PATH)]);
		if (v[i].kind == HF_STDIO_PATH) {
			hf_json_add(o, "flags", uint_new(v[i].open_flags));
			hf_json_add(o, "path", bytes_new(v[i].path ?: ""));
		}
		hf_json_append(array, o);
	}
	return array;
}

static struct json_object *ram_new(const struct hf_registration *reg)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < reg->guest.n_ram; i++) {
		struct json_object *o = json_object_new_object();

		hf_json_add(o, "id", bytes_new(reg->guest.ram[i].id));
		hf_json_add(o, "size", uint_new(reg->guest.ram[i].size));
		hf_json_add_int(o, "fd", reg->guest.ram[i].fd);
		hf_json_add(o, "dev", uint_new(reg->ram_inodes[i].dev));
		hf_json_add(o, "ino", uint_new(reg->ram_inodes[i].ino));
		hf_json_append(array, o);
	}
	return array;
}

int hf_registration_format(const struct hf_registration *reg, char **ret_json, size_t *ret_size,
	struct hf_error *error)
{
	cleanup_json struct json_object *o = json_object_new_object();
	const struct hf_manifest_guest *g = &reg->guest;
	cleanup_free char *copy = NULL;
	const char *text;
	size_t size;

	if (g->n_ram > HF_MANIFEST_MAX_RAM)
		return hf_error_set(error, -EINVAL, HF_ERR_FAILED, NULL, "too many RAM blocks");
	/* An agent that is older than the launcher can do with a guest that asks for nothing. */
	hf_json_add_int(o, "version", g->n_settings > 0 ? HF_REGISTRATION_VERSION : 1);
	hf_json_add_string(o, "uuid", g->uuid);
	hf_json_add_string(o, "name", g->name);
	hf_json_add_string(o, "manager", g->manager ?: "qemu");
	hf_json_add_string(o, "policy", g->policy ?: "refuse");
	if (g->n_settings > 0)
		hf_json_add(o, "settings", strings_new(g->settings, g->n_settings));
	hf_json_add_int(o, "pid", reg->pid);
	hf_json_add(o, "startTicks", uint_new(reg->start_ticks));
	hf_json_add_string(o, "reason", reg->reason);
	hf_json_add_string(o, "remedy", reg->remedy);
	hf_json_add(o, "vmm", bytes_new(g->vmm ?: ""));
	hf_json_add(o, "argv", strings_new(g->argv, g->n_argv));
	hf_json_add(o, "env", strings_new(g->env, g->n_env));
	hf_json_add(o, "cwd", bytes_new(g->cwd ?: "/"));
	hf_json_add_int(o, "uid", g->uid);
	hf_json_add_int(o, "gid", g->gid);
	hf_json_add(o, "groups", numbers_new(g->groups, g->n_groups));
	hf_json_add_int(o, "umask", g->umask);
	hf_json_add(o, "stdio", stdio_new(g->stdio));
	if (g->qmp_path)
		hf_json_add(o, "qmpPath", bytes_new(g->qmp_path));
	hf_json_add(o, "qemuVersion", numbers_new(g->qemu_version, 3));
	hf_json_add(o, "ram", ram_new(reg));
	text = o ? json_object_to_json_string_ext(
			   o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE)
		 : NULL;
	copy = text ? strdup(text) : NULL;
	if (!copy)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	size = strlen(copy);
	if (size > HF_REGISTRATION_MAX_BYTES)
		return hf_error_set(error, -EFBIG, HF_ERR_FAILED, NULL,
			"arguments and environment are too large to be recorded");
	*ret_json = TAKE_PTR(copy);
	*ret_size = size;
	return 0;
}

/* ---- reading ---- */

static int get_strings(struct json_object *array, char ***ret, size_t *ret_n)
{
	size_t n = hf_json_array_size(array);
	char **v;
	int r = 0;

	if (n > HF_MANIFEST_MAX_STRINGS)
		return -EBADMSG;
	v = calloc(n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	*ret = v;
	/* Counted one by one, so that a failure frees just what is there. */
	for (*ret_n = 0; r == 0 && *ret_n < n; *ret_n += r == 0)
		r = bytes_get(json_object_array_get_idx(array, *ret_n), &v[*ret_n]);
	return r;
}

static int get_number(struct json_object *value, uint64_t max, uint64_t *ret)
{
	if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0 ||
		json_object_get_uint64(value) > max)
		return -EBADMSG;
	*ret = json_object_get_uint64(value);
	return 0;
}

static int get_u32(struct json_object *obj, const char *key, uint32_t *ret)
{
	uint64_t v;
	int r = get_number(json_object_object_get(obj, key), UINT32_MAX, &v);

	if (r == 0)
		*ret = (uint32_t)v;
	return r;
}

static int get_u64(struct json_object *obj, const char *key, uint64_t *ret)
{
	return get_number(json_object_object_get(obj, key), UINT64_MAX, ret);
}

static int get_groups(struct json_object *array, struct hf_manifest_guest *g)
{
	size_t n = hf_json_array_size(array);
	uint64_t v;
	int r = 0;

	if (n > HF_MANIFEST_MAX_GROUPS)
		return -EBADMSG;
	g->groups = calloc(n + 1, sizeof(*g->groups));
	if (!g->groups)
		return -ENOMEM;
	for (; g->n_groups < n; g->n_groups++) {
		r = get_number(json_object_array_get_idx(array, g->n_groups), UINT32_MAX, &v);
		if (r < 0)
			return r;
		g->groups[g->n_groups] = (uint32_t)v;
	}
	return 0;
}

static int get_stdio(struct json_object *array, struct hf_manifest_stdio *v)
{
	if (hf_json_array_size(array) != 3)
		return -EBADMSG;
	for (size_t i = 0; i < 3; i++) {
		struct json_object *o = json_object_array_get_idx(array, i);
		const char *kind = hf_json_get_string(o, "kind", "");
		size_t k = 0;
		int r;

		while (k < HF_ARRAY_SIZE(stdio_kinds) && strcmp(kind, stdio_kinds[k]) != 0)
			k++;
		if (k == HF_ARRAY_SIZE(stdio_kinds))
			return -EBADMSG;
		v[i].kind = (uint32_t)k;
		if (k != HF_STDIO_PATH)
			continue;
		r = get_u32(o, "flags", &v[i].open_flags);
		if (r == 0)
			r = bytes_get(json_object_object_get(o, "path"), &v[i].path);
		if (r < 0)
			return r;
	}
	return 0;
}

static int get_ram(struct json_object *array, struct hf_registration *reg)
{
	struct hf_manifest_guest *g = &reg->guest;
	size_t n = hf_json_array_size(array);
	int r = 0;

	if (n > HF_MANIFEST_MAX_RAM)
		return -EBADMSG;
	g->ram = calloc(n + 1, sizeof(*g->ram));
	if (!g->ram)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < n; i++) {
		struct json_object *o = json_object_array_get_idx(array, i);
		struct hf_manifest_ram *ram = &g->ram[i];
		uint32_t fd;

		if (!json_object_is_type(o, json_type_object))
			return -EBADMSG;
		r = bytes_get(json_object_object_get(o, "id"), &ram->id);
		if (r == 0)
			g->n_ram++;
		if (r == 0)
			r = get_u64(o, "size", &ram->size);
		if (r == 0)
			r = get_u32(o, "fd", &fd);
		if (r == 0)
			r = get_u64(o, "dev", &reg->ram_inodes[i].dev);
		if (r == 0)
			r = get_u64(o, "ino", &reg->ram_inodes[i].ino);
		if (r == 0 && (fd > INT32_MAX || ram->size == 0 || ram->size > INT64_MAX))
			r = -EBADMSG;
		if (r == 0)
			ram->fd = (int32_t)fd;
	}
	return r;
}

/* The parts of the top object, as found; all borrowed. */
struct parts {
	const char *uuid, *name, *manager, *policy, *reason, *remedy;
	struct json_object *argv, *env, *groups, *stdio, *version, *ram, *settings;
};

static int get_scalars(struct json_object *o, const struct parts *p, struct hf_registration *reg)
{
	struct hf_manifest_guest *g = &reg->guest;
	uint64_t pid;
	int r;

	if (!hf_uuid_parse(p->uuid, g->uuid) || !hf_guest_name_valid(p->name))
		return -EBADMSG;
	if (strlen(p->reason) >= sizeof(reg->reason) || strlen(p->remedy) >= sizeof(reg->remedy))
		return -EBADMSG;
	memcpy(reg->reason, p->reason, strlen(p->reason) + 1);
	memcpy(reg->remedy, p->remedy, strlen(p->remedy) + 1);
	g->name = strdup(p->name);
	g->manager = strdup(p->manager);
	g->policy = strdup(p->policy);
	if (!g->name || !g->manager || !g->policy)
		return -ENOMEM;
	r = get_number(json_object_object_get(o, "pid"), INT32_MAX, &pid);
	if (r == 0 && pid == 0)
		r = -EBADMSG;
	if (r == 0)
		reg->pid = (pid_t)pid;
	if (r == 0)
		r = get_u64(o, "startTicks", &reg->start_ticks);
	if (r == 0)
		r = get_u32(o, "uid", &g->uid);
	if (r == 0)
		r = get_u32(o, "gid", &g->gid);
	if (r == 0)
		r = get_u32(o, "umask", &g->umask);
	return r;
}

static int get_all(struct json_object *o, const struct parts *p, struct hf_registration *reg)
{
	struct hf_manifest_guest *g = &reg->guest;
	uint64_t v = 0;
	int r;

	r = get_scalars(o, p, reg);
	if (r == 0)
		r = bytes_get(json_object_object_get(o, "vmm"), &g->vmm);
	if (r == 0)
		r = bytes_get(json_object_object_get(o, "cwd"), &g->cwd);
	if (r == 0 && json_object_object_get(o, "qmpPath"))
		r = bytes_get(json_object_object_get(o, "qmpPath"), &g->qmp_path);
	if (r == 0)
		r = get_strings(p->argv, &g->argv, &g->n_argv);
	if (r == 0)
		r = get_strings(p->env, &g->env, &g->n_env);
	if (r == 0 && hf_json_array_size(p->settings) > HF_MANIFEST_MAX_SETTINGS)
		r = -EBADMSG;
	if (r == 0 && p->settings)
		r = get_strings(p->settings, &g->settings, &g->n_settings);
	if (r == 0)
		r = get_groups(p->groups, g);
	if (r == 0)
		r = get_stdio(p->stdio, g->stdio);
	if (r == 0)
		r = get_ram(p->ram, reg);
	if (r == 0 && hf_json_array_size(p->version) != 3)
		r = -EBADMSG;
	for (size_t i = 0; r == 0 && i < 3; i++) {
		r = get_number(json_object_array_get_idx(p->version, i), UINT32_MAX, &v);
		g->qemu_version[i] = (uint32_t)v;
	}
	if (r == 0 && g->n_argv == 0)
		r = -EBADMSG;
	return r;
}

static int dispatch(struct json_object *o, int64_t version, struct parts *p, const char **ret_bad)
{
	/* The values of type NULL here may be text or bytes, or need a range: get_all() checks. */
	const struct hf_json_field fields[] = {
		{"version", json_type_int, 0, NULL},
		{"uuid", json_type_string, 0, &p->uuid},
		{"name", json_type_string, 0, &p->name},
		{"manager", json_type_string, 0, &p->manager},
		{"policy", json_type_string, 0, &p->policy},
		{"settings", json_type_array, HF_JSON_OPTIONAL, &p->settings},
		{"pid", json_type_int, 0, NULL},
		{"startTicks", json_type_int, 0, NULL},
		{"reason", json_type_string, 0, &p->reason},
		{"remedy", json_type_string, 0, &p->remedy},
		{"argv", json_type_array, 0, &p->argv},
		{"env", json_type_array, 0, &p->env},
		{"uid", json_type_int, 0, NULL},
		{"gid", json_type_int, 0, NULL},
		{"groups", json_type_array, 0, &p->groups},
		{"umask", json_type_int, 0, NULL},
		{"stdio", json_type_array, 0, &p->stdio},
		{"qemuVersion", json_type_array, 0, &p->version},
		{"ram", json_type_array, 0, &p->ram},
		{0},
	};
	static const char *const bytes[] = {"vmm", "cwd", "qmpPath"};
	cleanup_json struct json_object *known = json_object_new_object();

	if (!known)
		return -ENOMEM;
	json_object_object_foreach (o, key, value) {
		bool is_bytes = false;

		for (size_t i = 0; i < HF_ARRAY_SIZE(bytes); i++)
			is_bytes |= strcmp(key, bytes[i]) == 0;
		if (!is_bytes)
			hf_json_add(known, key, json_object_get(value));
	}
	/* Borrowed values stay valid: @o holds them as well. The bad key is a constant or in @o. */
	if (hf_json_dispatch(known, fields, ret_bad) < 0 || (version < 2 && p->settings)) {
		*ret_bad = NULL;
		for (size_t i = 0; fields[i].name; i++)
			if (!(fields[i].flags & HF_JSON_OPTIONAL) &&
				!json_object_object_get(o, fields[i].name))
				*ret_bad = fields[i].name;
		return -EBADMSG;
	}
	return 0;
}

int hf_registration_parse(
	const char *json, size_t size, struct hf_registration *ret, struct hf_error *error)
{
	cleanup_json struct json_object *o = NULL;
	struct hf_registration reg = {0};
	const char *bad = NULL;
	struct parts p = {0};
	int64_t version;
	int r;

	r = size > HF_REGISTRATION_MAX_BYTES ? -EBADMSG : hf_json_parse(json, size, 8, &o);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "no JSON object");
	version = hf_json_get_int(o, "version", 0);
	if (version > HF_REGISTRATION_VERSION)
		return hf_error_set(error, -EPROTONOSUPPORT, HF_ERR_FAILED, "use that holdfast",
			"written by a newer holdfast (version %lld)", (long long)version);
	if (version < 1)
		return hf_error_set(
			error, -EBADMSG, HF_ERR_FAILED, NULL, "not a guest's registration");
	r = dispatch(o, version, &p, &bad);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL, "a field is %s%s",
			bad ? "missing: " : "unknown or of the wrong type", bad ?: "");
	r = get_all(o, &p, &reg);
	if (r < 0) {
		hf_registration_clear(&reg);
		return hf_error_set(
			error, r, HF_ERR_FAILED, NULL, "a field has an impossible value");
	}
	*ret = reg;
	return 0;
}
