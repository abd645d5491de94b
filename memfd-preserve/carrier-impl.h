/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a carrier has to provide. For carrier*.c only.
 *
 * carrier.c checks arguments, keeps the table of preserved inodes and frees sessions; a carrier
 * does its own part and fills errors. Sessions are embedded at the start of the carrier's own
 * structure and come from malloc.
 */
#pragma once

#include <pthread.h>
#include <stddef.h>

#include "common/fd.h"
#include "memfd-preserve/carrier.h"
#include "memfd-preserve/keeper.h"

struct hf_carrier_ops {
	enum hf_carrier_kind kind;
	const char *name;
	/* Make a session (struct hf_session filled but for carrier). */
	int (*create)(struct hf_carrier *c, const char *name, struct hf_session **ret,
		struct hf_error *e);
	int (*retrieve)(struct hf_carrier *c, const char *name, struct hf_session **ret,
		struct hf_error *e);
	int (*adopt)(struct hf_carrier *c, int fd, bool incoming, struct hf_session **ret,
		struct hf_error *e); /* may be NULL */
	int (*preserve)(struct hf_session *s, uint64_t token, int fd, struct hf_error *e);
	int (*copy)(struct hf_session *s, uint64_t *ret_changed, struct hf_error *e); /* or NULL */
	int (*seal)(struct hf_session *s, struct hf_error *e);			      /* or NULL */
	int (*get)(struct hf_session *s, uint64_t token, int *ret_fd, struct hf_error *e);
	int (*spend)(struct hf_session *s, struct hf_error *e); /* or NULL */
	/* On success the session is over, its memory remains. */
	int (*finish)(struct hf_session *s, struct hf_error *e);
	void (*discard)(struct hf_session *s);
	void (*detach)(struct hf_session *s); /* may be NULL */
	int (*fd)(const struct hf_session *s);
	int (*keep)(
		struct hf_carrier *c, const char *socket_path, bool *ret_found, struct hf_error *e);
	void (*unkeep)(struct hf_carrier *c);
	/* Both or neither. */
	int (*hand_over)(struct hf_carrier *c, const char *last, struct hf_error *e);
	int (*take_back)(struct hf_carrier *c, const char *last, struct hf_error *e);
	void (*free)(struct hf_carrier *c);
};

/* A file that is preserved by this carrier now. */
struct hf_carried_file {
	struct hf_inode inode;
	const struct hf_session *session; /* NULL once detached: preserved for good */
};

struct hf_carrier {
	const struct hf_carrier_ops *ops;
	struct hf_keeper *keeper; /* or NULL */
	pthread_mutex_t lock;	  /* guards files, and what the carrier says it guards */
	struct hf_carried_file *files;
	size_t n_files;
};

struct hf_session {
	struct hf_carrier *carrier;
	bool incoming;
	char name[HF_SESSION_NAME_BYTES];
};

/** hf_session_name_valid() - Whether a name has only the allowed bytes, and 1 to 63 of them. */
bool hf_session_name_valid(const char *name, size_t len);
