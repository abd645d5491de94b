/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The carrier that leaves no kernel: the keeper has the files while the agent starts anew.
 *
 * An outgoing session is a list of duplicates in this process. Handing over gives them to the
 * keeper (keeper.h), where the next agent finds them, be it this process after an execve or another
 * one after its death. An incoming session is no more than a name that the keeper knows. That is
 * LUO's behaviour without a kernel change, except that files are not frozen in size.
 *
 * The list of outgoing sessions is guarded by the carrier's lock; a session's files are touched
 * only by the thread that has it, and by the hand-over, which runs when no other call does.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fault.h"
#include "memfd-preserve/carrier-impl.h"

struct hold_file {
	uint64_t token;
	int fd;
};

struct hold_session {
	struct hf_session base;
	struct hold_session *next; /* of the carrier's outgoing ones */
	struct hold_file *files;
	size_t n_files;
};

struct hold_carrier {
	struct hf_carrier base;
	struct hold_session *outgoing;
};

static struct hold_carrier *to_carrier(struct hf_carrier *c)
{
	return (struct hold_carrier *)c;
}

static struct hold_session *to_session(struct hf_session *s)
{
	return (struct hold_session *)s;
}

static int no_memory(struct hf_error *e)
{
	return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

static struct hold_session *find(struct hold_carrier *hc, const char *name)
{
	for (struct hold_session *s = hc->outgoing; s; s = s->next) {
		if (strcmp(s->base.name, name) == 0)
			return s;
	}
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

/* ---- on the way out ---- */

static int hold_create(
	struct hf_carrier *c, const char *name, struct hf_session **ret, struct hf_error *e)
{
	struct hold_carrier *hc = to_carrier(c);
	struct hold_session *s = new_session(name, false);
	int r = 0;

	if (!s)
		return no_memory(e);
	pthread_mutex_lock(&c->lock);
	if (find(hc, name)) {
		r = -EEXIST;
	} else {
		s->next = hc->outgoing;
		hc->outgoing = s;
	}
	pthread_mutex_unlock(&c->lock);
	if (r < 0) {
		free(s);
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "there is a session %s already", name);
	}
	*ret = &s->base;
	return 0;
}

static int hold_preserve(struct hf_session *base, uint64_t token, int fd, struct hf_error *e)
{
	struct hold_session *s = to_session(base);
	unsigned long long t = token;
	struct hold_file *files;
	struct stat st;
	int copy;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, "use memfd memory",
			"the file of token %llu of session %s is not memory", t, base->name);
	for (size_t i = 0; i < s->n_files; i++) {
		if (s->files[i].token == token)
			return hf_error_set(e, -EEXIST, HF_ERR_FAILED, NULL,
				"token %llu is in use in session %s", t, base->name);
	}
	files = reallocarray(s->files, s->n_files + 1, sizeof(*files));
	if (!files)
		return no_memory(e);
	s->files = files;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
			"holding token %llu of session %s: %m", t, base->name);
	files[s->n_files++] = (struct hold_file){.token = token, .fd = copy};
	return 0;
}

/* Its files stay open to the end of the process, as those of `luo` do. */
static void hold_detach(struct hf_session *base)
{
	struct hold_carrier *hc = to_carrier(base->carrier);
	struct hold_session *s = to_session(base);

	pthread_mutex_lock(&hc->base.lock);
	for (struct hold_session **p = &hc->outgoing; *p; p = &(*p)->next) {
		if (*p == s) {
			*p = s->next;
			break;
		}
	}
	pthread_mutex_unlock(&hc->base.lock);
}

static void hold_discard(struct hf_session *base)
{
	struct hold_session *s = to_session(base);

	hold_detach(base);
	/* The reverse of the order in which they came, as LUO does it. */
	while (s->n_files > 0)
		close(s->files[--s->n_files].fd);
	free(s->files);
}

static int hand_over_session(struct hf_keeper *keeper, const struct hold_session *s)
{
	int r = 0;

	for (size_t i = 0; i < s->n_files && r == 0; i++)
		r = hf_keeper_put(keeper, s->base.name, s->files[i].token, s->files[i].fd);
	return r;
}

static int hold_take_back(struct hf_carrier *c, const char *last, struct hf_error *e)
{
	int r = 0;

	if (!c->keeper)
		return 0;
	r = hf_keeper_drop(c->keeper, last);
	for (struct hold_session *s = to_carrier(c)->outgoing; s; s = s->next)
		hf_keeper_drop(c->keeper, s->base.name);
	if (r < 0 && r != -ENOENT)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL,
			"the keeper doesn't give the guests' memory back: %s", strerror(-r));
	return 0;
}

static int hold_hand_over(struct hf_carrier *c, const char *last, struct hf_error *e)
{
	struct hold_carrier *hc = to_carrier(c);
	const struct hold_session *s, *end;
	struct hf_error ignored = {0};
	int r = 0;

	if (!c->keeper)
		return hf_error_set(e, -ENOTSUP, HF_ERR_INVALID, NULL,
			"the %s carrier has nobody to give its sessions to", c->ops->name);
	end = find(hc, last);
	if (!end)
		return hf_error_set(
			e, -ENOENT, HF_ERR_FAILED, NULL, "there is no session %s", last);
	for (s = hc->outgoing; s && r == 0; s = s->next) {
		if (s != end)
			r = hand_over_session(c->keeper, s);
	}
	if (r == 0)
		r = hf_fault(HF_FAULT_HAND_OVER_LAST, NULL);
	if (r == 0)
		r = hand_over_session(c->keeper, end);
	if (r < 0) {
		hold_take_back(c, last, &ignored);
		return hf_error_set(e, r, HF_ERR_FAILED, NULL,
			"the keeper doesn't take the guests' memory: %s", strerror(-r));
	}
	return 0;
}

/* ---- on the way in ---- */

static int hold_retrieve(
	struct hf_carrier *c, const char *name, struct hf_session **ret, struct hf_error *e)
{
	struct hold_session *s;
	int r = c->keeper ? hf_keeper_look(c->keeper, name) : -ENOENT;

	if (r == -ENOENT)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "no session %s is held", name);
	if (r == -EALREADY)
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "session %s was finished before", name);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "can't ask for session %s: %s", name,
			strerror(-r));
	s = new_session(name, true);
	if (!s)
		return no_memory(e);
	*ret = &s->base;
	return 0;
}

static int hold_get(struct hf_session *s, uint64_t token, int *ret_fd, struct hf_error *e)
{
	unsigned long long t = token;
	int r = hf_keeper_get(s->carrier->keeper, s->name, token, ret_fd);

	if (r == -ENOENT)
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "session %s has no token %llu", s->name, t);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "token %llu of session %s: %s", t,
			s->name, strerror(-r));
	return 0;
}

static int hold_finish(struct hf_session *s, struct hf_error *e)
{
	int r = hf_keeper_drop(s->carrier->keeper, s->name);

	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "session %s can't be finished: %s",
			s->name, strerror(-r));
	return 0;
}

static int hold_fd(const struct hf_session *s)
{
	return -EBADF;
}

/* ---- the carrier ---- */

static int hold_keep(
	struct hf_carrier *c, const char *socket_path, bool *ret_found, struct hf_error *e)
{
	return hf_keeper_open(socket_path, "", NULL, &c->keeper, ret_found, e);
}

static void hold_unkeep(struct hf_carrier *c)
{
	if (c->keeper)
		hf_keeper_clear(c->keeper);
}

static void hold_free(struct hf_carrier *c)
{
	free(to_carrier(c));
}

static const struct hf_carrier_ops hold_ops = {
	.kind = HF_CARRIER_HOLD,
	.name = "hold",
	.create = hold_create,
	.retrieve = hold_retrieve,
	.preserve = hold_preserve,
	.get = hold_get,
	.finish = hold_finish,
	.discard = hold_discard,
	.detach = hold_detach,
	.fd = hold_fd,
	.keep = hold_keep,
	.unkeep = hold_unkeep,
	.hand_over = hold_hand_over,
	.take_back = hold_take_back,
	.free = hold_free,
};

int hf_carrier_hold_new(struct hf_carrier **ret_carrier, struct hf_error *e)
{
	struct hold_carrier *hc = calloc(1, sizeof(*hc));

	if (!hc)
		return no_memory(e);
	hc->base.ops = &hold_ops;
	pthread_mutex_init(&hc->base.lock, NULL);
	*ret_carrier = &hc->base;
	return 0;
}
