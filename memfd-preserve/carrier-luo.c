/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The carrier through kexec, and the only owner of LUO session fds.
 *
 * No other file but the keeper's may close, duplicate or inherit one: closing it destroys what it
 * holds (luo.h). Here they are closed in two places, luo_discard() and luo_finish(), and nowhere
 * else. On every error path a session fd is left open rather than closed: a leak costs memory, a
 * close costs a guest.
 */
#include <string.h>

#include "memfd-preserve/carrier-impl.h"
#include "memfd-preserve/luo.h"

struct luo_carrier {
	struct hf_carrier base;
	char *device;
};

struct luo_session {
	struct hf_session base;
	int fd; /* no automatic clean-up, ever */
};

static struct luo_session *to_luo(struct hf_session *s)
{
	return (struct luo_session *)s;
}

static const char *device_of(const struct hf_carrier *c)
{
	return ((const struct luo_carrier *)c)->device;
}

/* Sentences for what opening the device can come back with. */
static int device_error(
	const struct hf_carrier *c, int r, const char *what, const char *name, struct hf_error *e)
{
	switch (r) {
	case -EBUSY:
		return hf_error_set(e, r, HF_ERR_BUSY,
			"find who has it open (fuser /dev/liveupdate) and try again",
			"can't %s session %s: another process keeps %s open", what, name,
			device_of(c));
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
	case -EACCES:
	case -EPERM:
	case -EIO: {
		int err = hf_luo_check(device_of(c), "/proc", e);

		if (err == 0) /* it changed its mind in between */
			err = hf_error_set(e, r, HF_ERR_FAILED, NULL, "%s", strerror(-r));
		hf_error_prefix(e, "can't %s session %s", what, name);
		return err == -ENOENT ? -ENODEV : err;
	}
	default:
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "can't %s session %s: %s", what,
			name, strerror(-r));
	}
}

static int luo_create(
	struct hf_carrier *c, const char *name, struct hf_session **ret, struct hf_error *e)
{
	struct luo_session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	r = hf_luo_session_create(device_of(c), name, HF_LUO_OPEN_TIMEOUT_NS, &s->fd);
	if (r < 0) {
		free(s);
		if (r == -EEXIST)
			return hf_error_set(e, r, HF_ERR_FAILED,
				"another process preserves under this name: is a second agent "
				"running?",
				"there is a session %s already", name);
		return device_error(c, r, "create", name, e);
	}
	strncpy(s->base.name, name, sizeof(s->base.name) - 1);
	*ret = &s->base;
	return 0;
}

static int retrieve_session(const char *device, const char *name, int *ret_fd)
{
	return hf_luo_session_retrieve(device, name, HF_LUO_OPEN_TIMEOUT_NS, ret_fd);
}

static int luo_retrieve(
	struct hf_carrier *c, const char *name, struct hf_session **ret, struct hf_error *e)
{
	struct luo_session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	r = c->keeper ? hf_keeper_retrieve(c->keeper, name, &s->fd)
		      : retrieve_session(device_of(c), name, &s->fd);
	if (r < 0) {
		free(s);
		if (r == -ESRCH)
			return hf_error_set(e, -ENOENT, HF_ERR_FAILED, NULL,
				"the previous kernel handed over no session %s", name);
		if (r == -EALREADY)
			return hf_error_set(e, r, HF_ERR_FAILED,
				"another process has it, or had it and closed it",
				"session %s was retrieved before", name);
		return device_error(c, r, "retrieve", name, e);
	}
	strncpy(s->base.name, name, sizeof(s->base.name) - 1);
	s->base.incoming = true;
	*ret = &s->base;
	return 0;
}

static int luo_adopt(
	struct hf_carrier *c, int fd, bool incoming, struct hf_session **ret, struct hf_error *e)
{
	struct luo_session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	r = hf_luo_get_name(fd, s->base.name);
	if (r == 0)
		r = hf_fd_cloexec(fd, true);
	if (r < 0) {
		free(s);
		return hf_error_set(e, -EBADMSG, HF_ERR_FAILED, NULL, "fd %d is no LUO session: %s",
			fd, strerror(-r));
	}
	s->base.incoming = incoming;
	s->fd = fd;
	*ret = &s->base;
	return 0;
}

static int luo_preserve(struct hf_session *s, uint64_t token, int fd, struct hf_error *e)
{
	int r = hf_luo_preserve(to_luo(s)->fd, token, fd);
	unsigned long long t = token;

	switch (r) {
	case 0:
		return 0;
	case -EEXIST:
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "token %llu is in use in session %s",
			t, s->name);
	case -EBUSY:
		return hf_error_set(e, -EALREADY, HF_ERR_FAILED,
			"end what preserves it: another agent, or an update that was not finished",
			"the file for token %llu of session %s is preserved already", t, s->name);
	case -ENOENT:
	case -EOPNOTSUPP:
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"use memfd or unlinked tmpfs memory, not hugetlb, and "
			"CONFIG_LIVEUPDATE_MEMFD",
			"the kernel can't preserve the kind of file of token %llu of session %s", t,
			s->name);
	case -ENOMEM:
		return hf_error_set(e, r, HF_ERR_FAILED, "free memory on the host and try again",
			"no memory to preserve token %llu of session %s", t, s->name);
	default:
		return hf_error_set(e, r, HF_ERR_FAILED, NULL,
			"preserving token %llu of session %s: %s", t, s->name, strerror(-r));
	}
}

static int luo_get(struct hf_session *s, uint64_t token, int *ret_fd, struct hf_error *e)
{
	int r = hf_luo_retrieve(to_luo(s)->fd, token, ret_fd);
	unsigned long long t = token;

	if (r == 0)
		return 0;
	if (r == -ENOENT)
		return hf_error_set(
			e, r, HF_ERR_FAILED, NULL, "session %s has no token %llu", s->name, t);
	return hf_error_set(e, r, HF_ERR_FAILED,
		r == -ENOMEM ? "was the agent started in a cgroup with a memory limit? The kernel "
			       "does not "
			       "retry"
			     : "see the kernel log; the kernel does not retry",
		"token %llu of session %s could not be retrieved: %s", t, s->name, strerror(-r));
}

static int luo_finish(struct hf_session *s, struct hf_error *e)
{
	int r = hf_luo_finish(to_luo(s)->fd);

	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "session %s can't be finished: %s",
			s->name, strerror(-r));
	/* Empty now: closing takes nothing with it. A keeper that is gone has closed its own. */
	close(to_luo(s)->fd);
	if (s->carrier->keeper)
		hf_keeper_drop(s->carrier->keeper, s->name);
	return 0;
}

static void luo_discard(struct hf_session *s)
{
	close(to_luo(s)->fd);
}

static int luo_fd(const struct hf_session *s)
{
	return ((const struct luo_session *)s)->fd;
}

static int luo_keep(
	struct hf_carrier *c, const char *socket_path, bool *ret_found, struct hf_error *e)
{
	return hf_keeper_open(
		socket_path, device_of(c), retrieve_session, &c->keeper, ret_found, e);
}

static void luo_unkeep(struct hf_carrier *c)
{
	hf_keeper_close(TAKE_PTR(c->keeper));
}

static void luo_free(struct hf_carrier *c)
{
	struct luo_carrier *lc = (struct luo_carrier *)c;

	free(lc->device);
	free(lc);
}

static const struct hf_carrier_ops luo_ops = {
	.kind = HF_CARRIER_LUO,
	.name = "luo",
	.create = luo_create,
	.retrieve = luo_retrieve,
	.adopt = luo_adopt,
	.preserve = luo_preserve,
	.get = luo_get,
	.finish = luo_finish,
	.discard = luo_discard,
	.fd = luo_fd,
	.keep = luo_keep,
	.unkeep = luo_unkeep,
	.free = luo_free,
};

int hf_carrier_luo_new(const char *device, struct hf_carrier **ret_carrier, struct hf_error *e)
{
	struct luo_carrier *lc = calloc(1, sizeof(*lc));

	if (lc)
		lc->device = strdup(device ? device : HF_LUO_DEVICE);
	if (!lc || !lc->device) {
		free(lc);
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	}
	lc->base.ops = &luo_ops;
	pthread_mutex_init(&lc->base.lock, NULL);
	*ret_carrier = &lc->base;
	return 0;
}
