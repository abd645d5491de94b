/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What all carriers have in common: checks, and the table of preserved files.
 *
 * Preserving one file twice was not refused by every kernel and corrupts memory there, so it is
 * refused here, by dev and inode, before the kernel is asked.
 */
#include "memfd-preserve/carrier.h"

#include <ctype.h>
#include <string.h>

#include "memfd-preserve/carrier-impl.h"

bool hf_session_name_valid(const char *name, size_t len)
{
	if (len == 0 || len >= HF_SESSION_NAME_BYTES)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("-_.@+", name[i]))
			return false;
	return true;
}

static int check_name(const char *name, struct hf_error *e)
{
	if (hf_session_name_valid(name, strnlen(name, HF_SESSION_NAME_BYTES)))
		return 0;
	return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
		"`%.70s` is no session name: 1 to 63 letters, digits and -_.@+ are allowed", name);
}

void hf_carrier_free(struct hf_carrier *c)
{
	if (!c)
		return;
	hf_keeper_close(c->keeper);
	free(c->files);
	pthread_mutex_destroy(&c->lock);
	c->ops->free(c);
}

enum hf_carrier_kind hf_carrier_kind(const struct hf_carrier *c)
{
	return c->ops->kind;
}

const char *hf_carrier_name(const struct hf_carrier *c)
{
	return c->ops->name;
}

int hf_carrier_keep(
	struct hf_carrier *c, const char *socket_path, bool *ret_found, struct hf_error *e)
{
	return c->ops->keep(c, socket_path, ret_found, e);
}

pid_t hf_carrier_keeper(const struct hf_carrier *c)
{
	return c->keeper ? hf_keeper_pid(c->keeper) : 0;
}

void hf_carrier_unkeep(struct hf_carrier *c)
{
	c->ops->unkeep(c);
}

int hf_carrier_hand_over(struct hf_carrier *c, const char *last, struct hf_error *e)
{
	return c->ops->hand_over ? c->ops->hand_over(c, last, e) : 0;
}

int hf_carrier_take_back(struct hf_carrier *c, const char *last, struct hf_error *e)
{
	return c->ops->take_back ? c->ops->take_back(c, last, e) : 0;
}

int hf_carrier_session_create(
	struct hf_carrier *c, const char *name, struct hf_session **ret_session, struct hf_error *e)
{
	struct hf_session *s = NULL;
	int r = check_name(name, e);

	if (r == 0)
		r = c->ops->create(c, name, &s, e);
	if (r < 0)
		return r;
	s->carrier = c;
	*ret_session = s;
	return 0;
}

int hf_carrier_session_retrieve(
	struct hf_carrier *c, const char *name, struct hf_session **ret_session, struct hf_error *e)
{
	struct hf_session *s = NULL;
	int r = check_name(name, e);

	if (r == 0)
		r = c->ops->retrieve(c, name, &s, e);
	if (r < 0)
		return r;
	s->carrier = c;
	*ret_session = s;
	return 0;
}

int hf_carrier_session_adopt(struct hf_carrier *c, int fd, bool incoming,
	struct hf_session **ret_session, struct hf_error *e)
{
	struct hf_session *s = NULL;
	int r;

	if (!c->ops->adopt)
		return hf_error_set(e, -ENOTSUP, HF_ERR_INVALID, NULL,
			"the %s carrier has no session fds to adopt", c->ops->name);
	r = c->ops->adopt(c, fd, incoming, &s, e);
	if (r < 0)
		return r;
	s->carrier = c;
	*ret_session = s;
	return 0;
}

const char *hf_session_name(const struct hf_session *s)
{
	return s->name;
}

bool hf_session_incoming(const struct hf_session *s)
{
	return s->incoming;
}

int hf_session_fd(const struct hf_session *s)
{
	return s->carrier->ops->fd(s);
}

/* Enter a file in the table before it is preserved, so that two threads can't both do it. */
static int claim_file(struct hf_session *s, const struct hf_inode *inode)
{
	struct hf_carrier *c = s->carrier;
	struct hf_carried_file *files;
	int r = 0;

	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < c->n_files && r == 0; i++)
		if (hf_inode_equal(&c->files[i].inode, inode))
			r = -EALREADY;
	if (r == 0) {
		files = reallocarray(c->files, c->n_files + 1, sizeof(*files));
		if (files) {
			c->files = files;
			files[c->n_files++] = (struct hf_carried_file){*inode, s};
		} else {
			r = -ENOMEM;
		}
	}
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* Forget one file of a session, or all of them when @inode is NULL. */
static void unclaim_files(struct hf_session *s, const struct hf_inode *inode)
{
	struct hf_carrier *c = s->carrier;
	size_t kept = 0;

	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < c->n_files; i++) {
		bool gone = c->files[i].session == s &&
			    (!inode || hf_inode_equal(&c->files[i].inode, inode));

		if (!gone)
			c->files[kept++] = c->files[i];
	}
	c->n_files = kept;
	pthread_mutex_unlock(&c->lock);
}

static int check_outgoing(const struct hf_session *s, struct hf_error *e)
{
	if (!s->incoming)
		return 0;
	return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
		"session %s was retrieved: nothing can be preserved in it", s->name);
}

int hf_session_preserve(struct hf_session *s, uint64_t token, int fd, struct hf_error *e)
{
	struct hf_inode inode;
	int r;

	r = check_outgoing(s, e);
	if (r < 0)
		return r;
	r = hf_fd_inode(fd, &inode, NULL);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "file to preserve in session %s: %s",
			s->name, strerror(-r));
	r = claim_file(s, &inode);
	if (r == -EALREADY)
		return hf_error_set(e, r, HF_ERR_FAILED,
			"give each guest memory of its own: one file can't be carried twice",
			"the file for token %llu of session %s is preserved already",
			(unsigned long long)token, s->name);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL, "out of memory");
	r = s->carrier->ops->preserve(s, token, fd, e);
	if (r < 0)
		unclaim_files(s, &inode);
	return r;
}

int hf_session_copy(struct hf_session *s, uint64_t *ret_changed, struct hf_error *e)
{
	uint64_t changed = 0;
	int r = check_outgoing(s, e);

	if (r == 0 && s->carrier->ops->copy)
		r = s->carrier->ops->copy(s, &changed, e);
	if (r == 0 && ret_changed)
		*ret_changed = changed;
	return r;
}

int hf_session_seal(struct hf_session *s, struct hf_error *e)
{
	int r = check_outgoing(s, e);

	return r == 0 && s->carrier->ops->seal ? s->carrier->ops->seal(s, e) : r;
}

int hf_session_spend(struct hf_session *s, struct hf_error *e)
{
	if (!s->incoming)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
			"session %s was created here: nobody can bring it up", s->name);
	return s->carrier->ops->spend ? s->carrier->ops->spend(s, e) : 0;
}

int hf_session_retrieve(struct hf_session *s, uint64_t token, int *ret_fd, struct hf_error *e)
{
	if (!s->incoming)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
			"session %s was created here: nothing to retrieve from it", s->name);
	return s->carrier->ops->get(s, token, ret_fd, e);
}

int hf_session_finish(struct hf_session *s, struct hf_error *e)
{
	int r;

	if (!s->incoming)
		return hf_error_set(e, -EINVAL, HF_ERR_INVALID, NULL,
			"session %s was created here: it can be discarded, not finished", s->name);
	r = s->carrier->ops->finish(s, e);
	if (r < 0)
		return r;
	free(s);
	return 0;
}

void hf_session_discard(struct hf_session *s)
{
	if (!s)
		return;
	if (s->incoming) {
		hf_session_detach(s);
		return;
	}
	s->carrier->ops->discard(s);
	unclaim_files(s, NULL);
	free(s);
}

void hf_session_detach(struct hf_session *s)
{
	struct hf_carrier *c = s->carrier;

	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < c->n_files; i++)
		if (c->files[i].session == s)
			c->files[i].session = NULL;
	pthread_mutex_unlock(&c->lock);
	if (c->ops->detach)
		c->ops->detach(s);
	free(s);
}
