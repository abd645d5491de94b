/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The carrier through execve: the agent keeps the fds and starts itself anew.
 *
 * The carrier owns, in a list of held sessions, one duplicate of every file. A struct hf_session is
 * a handle on one of them: it comes and goes, what is held stays until it is finished or discarded.
 * That is LUO's behaviour without a kernel change, except that files are not frozen in size.
 *
 * The list is guarded by the carrier's lock. A held session's files are touched only by the thread
 * that has its handle, and by export, which runs when no other call does.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "memfd-preserve/carrier-impl.h"

/* The kernel takes environment strings up to 128 KiB. */
#define ENV_MAX (128u << 10)
#define MAX_HELD_FILES 4096

struct held_file {
	uint64_t token;
	int fd;
};

struct held {
	struct held *next;
	char name[HF_SESSION_NAME_BYTES];
	bool incoming;
	bool retrieved; /* somebody has, or had, the handle */
	struct held_file *files;
	size_t n_files;
};

struct hold_carrier {
	struct hf_carrier base;
	struct held *held;
};

struct hold_session {
	struct hf_session base;
	struct held *held;
};

static struct hold_carrier *to_hold(struct hf_carrier *c)
{
	return (struct hold_carrier *)c;
}

static struct held *held_of(const struct hf_session *s)
{
	return ((const struct hold_session *)s)->held;
}

static int no_memory(struct hf_error *e)
{
	return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

static struct held *find_held(struct held *list, const char *name, bool incoming)
{
	for (struct held *h = list; h; h = h->next)
		if (h->incoming == incoming && strcmp(h->name, name) == 0)
			return h;
	return NULL;
}

static void held_free(struct held *h)
{
	/* The reverse of the order in which they came, as LUO does it. */
	while (h->n_files > 0)
		close(h->files[--h->n_files].fd);
	free(h->files);
	free(h);
}

static void held_remove(struct hold_carrier *hc, struct held *h)
{
	pthread_mutex_lock(&hc->base.lock);
	for (struct held **p = &hc->held; *p; p = &(*p)->next)
		if (*p == h) {
			*p = h->next;
			break;
		}
	pthread_mutex_unlock(&hc->base.lock);
	held_free(h);
}

/* Takes @fd on success only. */
static int held_add_file(struct held *h, uint64_t token, int fd)
{
	struct held_file *files = reallocarray(h->files, h->n_files + 1, sizeof(*files));

	if (!files)
		return -ENOMEM;
	h->files = files;
	files[h->n_files++] = (struct held_file){.token = token, .fd = fd};
	return 0;
}

static struct held_file *held_find_file(struct held *h, uint64_t token)
{
	for (size_t i = 0; i < h->n_files; i++)
		if (h->files[i].token == token)
			return &h->files[i];
	return NULL;
}

static struct hold_session *new_session(const char *name, bool incoming)
{
	struct hold_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	strncpy(s->base.name, name, sizeof(s->base.name) - 1);
	s->base.incoming = incoming;
	return s;
}

static int hold_create(
	struct hf_carrier *c, const char *name, struct hf_session **ret, struct hf_error *e)
{
	struct hold_carrier *hc = to_hold(c);
	struct hold_session *s = new_session(name, false);
	struct held *h = calloc(1, sizeof(*h));
	int r = 0;

	if (!s || !h) {
		free(s);
		free(h);
		return no_memory(e);
	}
	memcpy(h->name, s->base.name, sizeof(h->name));
	pthread_mutex_lock(&c->lock);
	if (find_held(hc->held, name, false)) {
		r = -EEXIST;
	} else {
		h->next = hc->held;
		hc->held = h;
	}
	pthread_mutex_unlock(&c->lock);
	if (r < 0) {
		free(s);
		free(h);
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "there is a session %s already", name);
	}
	s->held = h;
	*ret = &s->base;
	return 0;
}

static int hold_retrieve(
	struct hf_carrier *c, const char *name, struct hf_session **ret, struct hf_error *e)
{
	struct hold_session *s = new_session(name, true);
	struct held *h;
	int r = 0;

	if (!s)
		return no_memory(e);
	pthread_mutex_lock(&c->lock);
	h = find_held(to_hold(c)->held, name, true);
	if (!h)
		r = -ENOENT;
	else if (h->retrieved)
		r = -EALREADY;
	else
		h->retrieved = true;
	pthread_mutex_unlock(&c->lock);
	if (r < 0) {
		free(s);
		return hf_error_set(e, r, HF_ERR_FAILED, NULL,
			r == -ENOENT ? "no session %s is held" : "session %s was retrieved before",
			name);
	}
	s->held = h;
	*ret = &s->base;
	return 0;
}

/* Whether an update before this one still holds the file: LUO refuses that, so does this. */
static bool held_from_before(struct hold_carrier *hc, const struct hf_inode *inode)
{
	bool found = false;

	pthread_mutex_lock(&hc->base.lock);
	for (struct held *h = hc->held; h; h = h->next) {
		for (size_t i = 0; h->incoming && i < h->n_files; i++) {
			struct hf_inode other;

			if (hf_fd_inode(h->files[i].fd, &other, NULL) == 0)
				found |= hf_inode_equal(&other, inode);
		}
	}
	pthread_mutex_unlock(&hc->base.lock);
	return found;
}

static int hold_preserve(struct hf_session *s, uint64_t token, int fd, struct hf_error *e)
{
	struct held *h = held_of(s);
	unsigned long long t = token;
	struct hf_inode inode;
	struct stat st;
	int copy, r;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, "use memfd memory",
			"the file of token %llu of session %s is not memory", t, s->name);
	if (held_find_file(h, token))
		return hf_error_set(e, -EEXIST, HF_ERR_FAILED, NULL,
			"token %llu is in use in session %s", t, s->name);
	r = hf_fd_inode(fd, &inode, NULL);
	if (r == 0 && held_from_before(to_hold(s->carrier), &inode))
		return hf_error_set(e, -EALREADY, HF_ERR_FAILED,
			"finish the update before this one first",
			"the file for token %llu of session %s is still held", t, s->name);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
			"holding token %llu of session %s: %m", t, s->name);
	r = held_add_file(h, token, copy);
	if (r < 0) {
		close(copy);
		return no_memory(e);
	}
	return 0;
}

static int hold_get(struct hf_session *s, uint64_t token, int *ret_fd, struct hf_error *e)
{
	struct held_file *f = held_find_file(held_of(s), token);
	int fd;

	if (!f)
		return hf_error_set(e, -ENOENT, HF_ERR_FAILED, NULL, "session %s has no token %llu",
			s->name, (unsigned long long)token);
	fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "token %llu of session %s: %m",
			(unsigned long long)token, s->name);
	*ret_fd = fd;
	return 0;
}

static int hold_finish(struct hf_session *s, struct hf_error *e)
{
	held_remove(to_hold(s->carrier), held_of(s));
	return 0;
}

static void hold_discard(struct hf_session *s)
{
	held_remove(to_hold(s->carrier), held_of(s));
}

static int hold_fd(const struct hf_session *s)
{
	return -EBADF;
}

static void hold_free(struct hf_carrier *c)
{
	struct hold_carrier *hc = to_hold(c);

	while (hc->held) {
		struct held *h = hc->held;

		hc->held = h->next;
		held_free(h);
	}
	free(hc);
}

static const struct hf_carrier_ops hold_ops = {
	.name = "hold",
	.create = hold_create,
	.retrieve = hold_retrieve,
	.preserve = hold_preserve,
	.get = hold_get,
	.finish = hold_finish,
	.discard = hold_discard,
	.fd = hold_fd,
	.free = hold_free,
};

/* Whether the next self gets this one: there it would be one session with its namesake. */
static bool crosses(struct hold_carrier *hc, const struct held *h)
{
	const struct held *other;

	if (!h->incoming)
		return true;
	other = find_held(hc->held, h->name, false);
	return !other || other->n_files == 0;
}

static void set_cloexec_all(struct hold_carrier *hc)
{
	for (struct held *h = hc->held; h; h = h->next)
		for (size_t i = 0; i < h->n_files; i++)
			hf_fd_cloexec(h->files[i].fd, true);
}

int hf_carrier_hold_export(struct hf_carrier *c, char **ret_env, struct hf_error *e)
{
	struct hold_carrier *hc = to_hold(c);
	cleanup_free char *env = NULL;
	size_t used;
	const char *comma = "";

	if (c->ops != &hold_ops)
		return hf_error_set(
			e, -ENOTSUP, HF_ERR_INVALID, NULL, "only the hold carrier can be exported");
	env = malloc(ENV_MAX);
	if (!env)
		return no_memory(e);
	used = (size_t)snprintf(env, ENV_MAX, HF_HOLD_ENV "=");
	for (struct held *h = hc->held; h; h = h->next) {
		for (size_t i = 0; i < h->n_files && crosses(hc, h); i++) {
			used += (size_t)snprintf(env + used, ENV_MAX - used, "%s%d:%llu:%s", comma,
				h->files[i].fd, (unsigned long long)h->files[i].token, h->name);
			if (used >= ENV_MAX)
				return hf_error_set(e, -E2BIG, HF_ERR_FAILED, NULL,
					"too many files are held to pass them on");
			comma = ",";
		}
	}
	for (struct held *h = hc->held; h; h = h->next) {
		for (size_t i = 0; i < h->n_files && crosses(hc, h); i++) {
			int r = hf_fd_cloexec(h->files[i].fd, false);

			if (r < 0) {
				set_cloexec_all(hc);
				return hf_error_set(e, r, HF_ERR_FAILED, NULL,
					"passing on session %s: %s", h->name, strerror(-r));
			}
		}
	}
	*ret_env = TAKE_PTR(env);
	return 0;
}

void hf_carrier_hold_unexport(struct hf_carrier *c)
{
	if (c->ops == &hold_ops)
		set_cloexec_all(to_hold(c));
}

/* A decimal number that ends at @end; moves *p behind it. No sign, no space, no leading zeros. */
static int parse_number(const char **p, char end, uint64_t max, uint64_t *ret)
{
	const char *s = *p;
	uint64_t v = 0;

	if (*s < '0' || *s > '9' || (s[0] == '0' && s[1] != end))
		return -EBADMSG;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(v, 10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(*s - '0'), &v) || v > max)
			return -EBADMSG;
	if (*s != end)
		return -EBADMSG;
	*p = s + 1;
	*ret = v;
	return 0;
}

static bool fd_is_held(struct held *list, int fd)
{
	for (struct held *h = list; h; h = h->next)
		for (size_t i = 0; i < h->n_files; i++)
			if (h->files[i].fd == fd)
				return true;
	return false;
}

/* One `fd:token:session`, ended by a comma or the end of the string. */
static int import_entry(struct hold_carrier *hc, const char *entry, size_t len)
{
	const char *p = entry;
	uint64_t fd, token;
	size_t name_len;
	struct held *h;
	struct stat st;
	char name[HF_SESSION_NAME_BYTES] = "";

	if (parse_number(&p, ':', INT32_MAX, &fd) < 0 ||
		parse_number(&p, ':', UINT64_MAX, &token) < 0)
		return -EBADMSG;
	name_len = len - (size_t)(p - entry);
	if (!hf_session_name_valid(p, name_len))
		return -EBADMSG;
	memcpy(name, p, name_len);
	if (fd < 3 || fd_is_held(hc->held, (int)fd) || fstat((int)fd, &st) < 0 ||
		!S_ISREG(st.st_mode))
		return -EBADMSG;
	h = find_held(hc->held, name, true);
	if (!h) {
		h = calloc(1, sizeof(*h));
		if (!h)
			return -ENOMEM;
		memcpy(h->name, name, sizeof(h->name));
		h->incoming = true;
		h->next = hc->held;
		hc->held = h;
	}
	if (held_find_file(h, token))
		return -EBADMSG;
	return held_add_file(h, token, (int)fd);
}

static int import_all(struct hold_carrier *hc, const char *env, struct hf_error *e)
{
	size_t n = 0;

	while (*env) {
		size_t len = strcspn(env, ",");
		int r = n++ < MAX_HELD_FILES ? import_entry(hc, env, len) : -EBADMSG;

		if (r == 0 && env[len] == ',' && !env[len + 1])
			r = -EBADMSG;
		if (r == -ENOMEM)
			return no_memory(e);
		if (r < 0)
			return hf_error_set(e, r, HF_ERR_FAILED, NULL,
				"environment " HF_HOLD_ENV
				": entry `%.*s` is malformed, doubled, or "
				"not an open regular file",
				(int)HF_MIN(len, (size_t)100), env);
		env += len + (env[len] == ',');
	}
	set_cloexec_all(hc);
	return 0;
}

int hf_carrier_hold_new(struct hf_carrier **ret_carrier, struct hf_error *e)
{
	const char *value = getenv(HF_HOLD_ENV);
	cleanup_free char *env = NULL;
	struct hold_carrier *hc = calloc(1, sizeof(*hc));
	int r;

	if (value)
		env = strdup(value);
	if (!hc || (value && !env)) {
		free(hc);
		return no_memory(e);
	}
	unsetenv(HF_HOLD_ENV);
	hc->base.ops = &hold_ops;
	pthread_mutex_init(&hc->base.lock, NULL);
	r = env ? import_all(hc, env, e) : 0;
	if (r < 0) {
		/* What it names is not known to be ours: nothing is closed. */
		for (struct held *h = hc->held; h; h = h->next)
			h->n_files = 0;
		hf_carrier_free(&hc->base);
		return r;
	}
	*ret_carrier = &hc->base;
	return 0;
}
