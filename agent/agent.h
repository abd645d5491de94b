/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The agent's own context: loop, carrier, state, and who is told about progress.
 *
 * One struct hf_agent lives as long as the process. The host state changes only through
 * hf_agent_event(). An update on its way out is a struct hf_update (update.c), one on its way in a
 * struct hf_arrival (arrival.c); never both.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "agent/state.h"
#include "common/error.h"
#include "common/tsc.h"
#include "common/varlink.h"
#include "memfd-preserve/carrier.h"
#include "memfd-preserve/stream.h"

#define HF_UUID_BYTES 37 /* text form with its NUL */
#define HF_MANIFEST_SESSION "holdfast"
#define HF_MANIFEST_TOKEN 1

struct hf_update;
struct hf_arrival;
struct hf_survey;
struct hf_installed;
struct hf_inhibit;
struct hf_adopt;
struct hf_vmm_upgrade;
struct hf_vmm_upgrades;
struct hf_recheck;
struct hf_authority;
struct hf_libvirt_gate;
struct hf_saved_domains;

struct hf_agent {
	sd_event *event;
	struct hf_carrier *carrier;
	struct hf_carrier *image; /* through any reboot, for updates that ask for it */
	bool has_image_key;
	struct hf_carrier *kept; /* of an adoption, or NULL: see adopt-keep.h */
	struct hf_stream_ring *ring;
	struct hf_installed *installed; /* what is known of the QEMUs on this host */
	struct hf_varlink_server *server;
	struct hf_inhibit *inhibit;	/* lock against a shutdown, or NULL: never wanted */
	struct hf_authority *authority; /* who else than root may change the host */
	enum hf_state state;
	struct hf_update *update;	      /* on its way out, or NULL */
	struct hf_arrival *arrival;	      /* on its way in, or held guests, or NULL */
	struct hf_adopt *adopt;		      /* moving a guest's RAM, or NULL */
	struct hf_vmm_upgrades *vmm_upgrades; /* replacing guests' QEMUs, or NULL */
	struct hf_vmm_upgrade *stands_still;  /* of these the one whose QEMU starts in its pause */
	struct hf_recheck *recheck;	      /* looking at an unhealthy guest again, or NULL */
	struct hf_survey *survey;	      /* asking all guests how they are, or NULL */
	struct hf_libvirt_gate *libvirt_gate; /* keeps libvirt's daemon away, or NULL: never did */
	struct hf_saved_domains *saved_domains; /* by libvirt, for an update, or NULL */
	bool shutting_down;			/* guests that can't come along; see shut-down.h */
	unsigned int n_looking;	  /* kernel images that are looked into, or wait for it */
	struct hf_tsc_mark start; /* of this process: the earliest reading there is */
	uint64_t update_begin_ns; /* CLOCK_MONOTONIC, for elapsed times */
	char update_id[HF_UUID_BYTES];
	char last_update_id[HF_UUID_BYTES];
	char message[512]; /* the newest line of progress */
	struct hf_varlink_call *watchers[HF_VARLINK_MAX_CLIENTS];
	size_t n_watchers;
	sd_event_source *heartbeat; /* while there are any */
	char **argv;		    /* our own, for the jump of the hold carrier */
	uint64_t state_bytes;	    /* first room for device state; 0: as measured of each guest */
	bool stopping;		    /* leave when the update under way is undone */
	bool again;		    /* an agent before this one died in an arrival: see keeper.h */
};

/** hf_agent_is_luo() - Does this agent cross a kexec (or only its own execve)? */
bool hf_agent_is_luo(const struct hf_agent *agent);

/** hf_agent_event() - Move along the state table. A wrong event is a bug: logged, refused with
 * -EPERM. */
int hf_agent_event(struct hf_agent *agent, enum hf_state_event event);

/**
 * hf_agent_progress() - Tell everybody who listens, and the log.
 * @guest: name of the guest it is about, or NULL for the host
 */
void hf_agent_progress(struct hf_agent *agent, const char *guest, const char *fmt, ...)
	HF_PRINTF(3, 4);

/**
 * hf_agent_tell() - Tell one call that watches, and nobody else.
 * @begin_ns: since when the elapsed time counts
 */
void hf_agent_tell(struct hf_agent *agent, struct hf_varlink_call *call, uint64_t begin_ns,
	const char *guest, const char *fmt, ...) HF_PRINTF(5, 6);

/**
 * hf_agent_watch() - Send progress to a call from now on, as replies with `continues`.
 *
 * When there is none for ten seconds, the newest is sent again, as still under way. The caller
 * keeps its own reference; hf_agent_unwatch() ends it. Return: 0, -ENOBUFS, -ENOMEM.
 */
int hf_agent_watch(struct hf_agent *agent, struct hf_varlink_call *call);
void hf_agent_unwatch(struct hf_agent *agent, struct hf_varlink_call *call);

/** hf_agent_new_update_id() - Begin an update: a fresh random uuid, the clock for elapsed times. */
int hf_agent_new_update_id(struct hf_agent *agent);

/** hf_agent_now_ns() - CLOCK_MONOTONIC. */
uint64_t hf_agent_now_ns(void);

/** hf_agent_rss_bytes() - Peak resident memory of this process, 0 when unknown. */
uint64_t hf_agent_rss_bytes(void);

/** hf_state_dir() - Where reports are kept: $HOLDFAST_STATE_DIR or /var/lib/holdfast. */
const char *hf_state_dir(void);
