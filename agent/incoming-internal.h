/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What incoming.c, the chain of a guest that comes in, and incoming-held.c share.
 *
 * Functions that take an error may run in a worker, one a guest at a time; the others are the
 * loop's.
 */
#pragma once

#include "agent/health.h"
#include "agent/incoming.h"

struct hf_incoming {
	struct hf_agent *agent;
	struct hf_carrier *carrier; /* that has its session */
	struct hf_manifest_guest *guest;
	hf_incoming_passed_fn passed;
	hf_incoming_done_fn done;
	void *data;
	bool may_load; /* those that go first are out of the way */
	bool has_passed;
	bool afresh;	     /* it was, or is being, started afresh */
	struct hf_error why; /* it had to be, or has to be, when this agent knows */
	enum hf_incoming_step step;
	struct hf_session *session;
	int ram_fds[HF_MANIFEST_MAX_RAM];
	int state_fds[HF_MANIFEST_MAX_CHUNKS];
	struct hf_vmm *vmm;
	struct hf_vmm_stamps stamps;
	/* What this agent did, or one before it that died: */
	bool over;     /* the guest ran, or was given up, and its session is finished */
	bool released; /* an operator gave it up */
	bool looked;   /* at what the agent before noted of it */
	pid_t ran_in;  /* the guest was let run in this process, or 0 */
	uint64_t ran_in_start;
	bool adopting;	   /* that process is being taken over: it may have run */
	bool runs;	   /* it was resumed: only its session is left to finish */
	bool retried;	   /* not the first attempt of this agent */
	bool ignore_disks; /* an operator says that they are as they were */
	bool gated;	   /* libvirt's daemon is kept away for it */
	bool dumping;	   /* its files are being read */
	char *ran_vmm;	   /* in another VMM binary than the manifest's, or NULL */
	char *own_vmm;	   /* the manifest's, while it is tried with another; or NULL */
	bool was_running;  /* and status: before the update, which an attach overwrites */
	char *status;
	size_t n_ended; /* QEMUs that had its RAM but never ran it */
	uint64_t retrieve_ns;
	struct hf_health *gate; /* while it is in it */
	struct hf_health_result health;
	struct hf_error error;
	struct hf_error release_error;
};

/**
 * hf_incoming_is_image() - Does it come from disk?
 *
 * There it outlives this kernel, and on a later boot it may be known only there that it was brought
 * up.
 */
bool hf_incoming_is_image(const struct hf_incoming *in);

/**
 * hf_incoming_retrieve() - Get its files, and find out whether it ran already. In a worker: it
 * takes time in proportion to RAM. @data is the guest.
 */
int hf_incoming_retrieve(void *data);

/** hf_incoming_again() - Begin the chain, or what is left of it. Return: 0 or -errno. */
int hf_incoming_again(struct hf_incoming *in);

/**
 * hf_incoming_wants_gate() - Must libvirt's daemon be stopped before it is started?
 *
 * One that runs already would not look for what is started now: it is started anew.
 */
bool hf_incoming_wants_gate(const struct hf_incoming *in);

/** hf_incoming_open_gate() - The daemon may come back, as far as this guest is concerned. */
void hf_incoming_open_gate(struct hf_incoming *in);

/** hf_incoming_check_libvirt() - -EBUSY: libvirt runs it already, on other memory. */
int hf_incoming_check_libvirt(const struct hf_incoming *in, struct hf_error *error);

/** hf_incoming_own_vmm_again() - End the trial of another VMM binary. */
void hf_incoming_own_vmm_again(struct hf_incoming *in);

/** hf_incoming_close_fds() - Close its RAM and device state. */
void hf_incoming_close_fds(struct hf_incoming *in);

/** hf_incoming_read_journal() - Read, once, what an agent that died noted of it. 0 or -errno. */
int hf_incoming_read_journal(struct hf_incoming *in, struct hf_error *error);

/** hf_incoming_process_lives() - Is the process that it was let run in still there? */
bool hf_incoming_process_lives(const struct hf_incoming *in);

/** hf_incoming_open_session() - Get its session, if it is not here yet. 0 or -errno. */
int hf_incoming_open_session(struct hf_incoming *in, struct hf_error *error);

/** hf_incoming_retrieve_files() - Get those files that are not here yet. Return: 0 or -errno. */
int hf_incoming_retrieve_files(struct hf_incoming *in, struct hf_error *error);

/** hf_incoming_end_others() - End QEMUs that have its RAM; it was not let run. 0 or -errno. */
int hf_incoming_end_others(struct hf_incoming *in, struct hf_error *error);
