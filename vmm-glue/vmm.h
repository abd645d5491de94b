/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: One guest and the QEMU process that runs it: pause, save, roll back, respawn, load, resume.
 *
 * A struct hf_vmm is the agent's hand on one QEMU, over that guest's private QMP socket. Nothing
 * here knows which carrier takes the RAM across, or what other guests do: the agent drives all
 * guests at once, each through the same order of calls:
 *
 *   old kernel:  attach -> probe -> save -> (jump)      or, from any of these: rollback
 *                attach -> probe -> save, which fails -> halt -> (jump)          likewise
 *                attach -> probe -> copy -> quit        to move RAM to memfds: likewise
 *   new kernel:  respawn (start, connect, load, verify) -> resume
 *                cold_boot (start with new memory, connect) -> resume, when that has failed
 *   one kernel:  attach -> probe of one; start_beside of another; save of the first -> load into
 * the second -> resume of that -> kill of the first; or kill the second, roll back
 *
 * Every operation is asynchronous: it returns at once, and its callback runs exactly once from the
 * loop, never from within the call. At most one operation is under way per VMM, except that
 * rollback may be asked for at any time and then ends the other one (-ECANCELED) first.
 * A QEMU that dies or closes its monitor ends the operation under way with an error and is reported
 * through the gone callback once.
 *
 * The VMM is described by a struct hf_manifest_guest, the same structure that crosses in the
 * manifest; it is borrowed and must outlive the hf_vmm. What is learned of the guest on the way out
 * (state, status, network, limits, resolved machine type, stamps) is written into it.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"
#include "memfd-preserve/stream.h"
#include "qmp/qmp.h"
#include "vmm-glue/ram-receive.h"

struct hf_taps;
struct hf_vmm;

/** Called when an operation ended. @error is NULL on success; borrowed for the call. */
typedef void (*hf_vmm_done_fn)(struct hf_vmm *vmm, const struct hf_error *error, void *data);

/** Called once if QEMU goes away on its own (not after hf_vmm_quit()). */
typedef void (*hf_vmm_gone_fn)(struct hf_vmm *vmm, const struct hf_error *error, void *data);

/** The guest stands still. From the loop, while the operation goes on; it may be rolled back. */
typedef void (*hf_vmm_paused_fn)(struct hf_vmm *vmm, void *data);

/** struct hf_vmm_probe - what a running QEMU says of itself. */
struct hf_vmm_probe {
	struct hf_qmp_version version; /* QEMU's, from the greeting */
	char status[32];	       /* query-status, as QEMU writes it */
	bool running;		       /* its vCPUs run */
	char machine_type[64];	       /* resolved: "pc-i440fx-10.0", never an alias */
	uint64_t state_estimate_bytes; /* measured room that the device state needs at most, usually
					*/
	bool migrating;		       /* by somebody else */
	unsigned int n_blockers;       /* what QEMU itself says forbids a migration */
	char blockers[4][160];
	/*
	 * A virtqueue with more entries than its device asks for, as some builds of QEMU make them.
	 * 0: there is none, or QEMU doesn't say.
	 */
	uint64_t odd_queue_entries;
	char odd_queue_device[32]; /* "virtio-rng" */
	/* Only after hf_vmm_want_details(), and where QEMU says it. */
	bool balloon;
	uint64_t balloon_bytes;	  /* RAM that the guest has beside it */
	bool free_page_reporting; /* what the guest frees is given back to the host */
	bool agent_known;	  /* the next two are meant */
	bool agent_channel;	  /* there is a channel for a guest agent */
	bool agent_open;	  /* and something in the guest has it open */
	unsigned int n_no_flush;  /* disks that ignore the guest's flushes */
	char no_flush_disk[64];	  /* the first of them */
};

/**
 * hf_vmm_new() - A hand on a guest, not connected yet.
 * @event: loop, a reference is taken
 * @guest: description, borrowed
 * @ring:  device-state streams, borrowed
 * @gone:  may be NULL
 * @data:  for @gone
 */
int hf_vmm_new(sd_event *event, struct hf_manifest_guest *guest, struct hf_stream_ring *ring,
	hf_vmm_gone_fn gone, void *data, struct hf_vmm **ret);

/**
 * hf_vmm_free() - Let go: closes the monitor and pending work; the QEMU process lives on.
 *
 * Allowed in any callback; none runs afterwards. A QEMU that is being respawned and has not loaded
 * yet is killed: nobody would know of it. Roll a save under way back first: the sink may be written
 * to for a moment longer.
 */
void hf_vmm_free(struct hf_vmm *vmm);
void hf_vmm_freep(struct hf_vmm **vmm);

/**
 * hf_vmm_attach() - Connect to the running QEMU's private monitor and ask what it is.
 * @pid:         the process, as registered
 * @start_ticks: its start time: -ESTALE when it is another process now
 * @timeout_ns:  for all of it
 *
 * On success hf_vmm_get_probe() answers, and guest->status, was_running, qemu_version, machine,
 * limits and net are filled. -EBUSY: another client holds the monitor. The probe's blockers also
 * name devices that were plugged in or out since the start: a respawn would not have them.
 */
int hf_vmm_attach(struct hf_vmm *vmm, pid_t pid, uint64_t start_ticks, uint64_t timeout_ns,
	hf_vmm_done_fn done, void *data);
const struct hf_vmm_probe *hf_vmm_get_probe(const struct hf_vmm *vmm);

/**
 * hf_vmm_use_own_monitor() - Attach to the QEMU of a libvirt domain itself, not through libvirt.
 *
 * For where libvirt's daemon isn't there yet: the monitor takes one client.
 */
void hf_vmm_use_own_monitor(struct hf_vmm *vmm);

/**
 * hf_vmm_leave_libvirt() - Close a libvirt domain's monitor: libvirt's daemon is about to be
 * stopped.
 *
 * A rollback connects anew: to QEMU itself, or through libvirt if that is still there. Only while
 * no operation is under way.
 */
void hf_vmm_leave_libvirt(struct hf_vmm *vmm);

/**
 * hf_vmm_probe_check() - Can a guest be saved, as it is now?
 *
 * Return: 0; -EOPNOTSUPP when QEMU forbids it; -EBUSY when it is in the middle of something;
 * -EALREADY when it was saved before and did not run since.
 */
int hf_vmm_probe_check(const struct hf_vmm_probe *probe, struct hf_error *error);

/** hf_vmm_want_roms() - Have the next hf_vmm_attach() ask for ROM files, too. */
void hf_vmm_want_roms(struct hf_vmm *vmm);

/**
 * hf_vmm_want_profile() - Have hf_vmm_attach() load the AppArmor profile that QEMU has, once more.
 *
 * For an update: what can't be loaded now can't be when a new QEMU needs it.
 */
void hf_vmm_want_profile(struct hf_vmm *vmm);

/** hf_vmm_want_details() - Have the next hf_vmm_attach() fill the end of the probe, too. */
void hf_vmm_want_details(struct hf_vmm *vmm);

/** struct hf_vmm_channel - one of QEMU's character devices on a socket. */
struct hf_vmm_channel {
	bool known; /* QEMU has it; the next two are meant */
	bool taken; /* a client is connected: another one would wait until that leaves */
	bool open;  /* something in the guest has its end open */
};

/** Called when QEMU has answered, or could not be asked. */
typedef void (*hf_vmm_channel_fn)(
	struct hf_vmm *vmm, const struct hf_vmm_channel *channel, void *data);

/**
 * hf_vmm_ask_channel() - Ask for a character device of an attached or respawned QEMU.
 * @label: its id
 * @done:  called once, from the loop, within seconds; never after hf_vmm_free()
 *
 * hf_vmm_forget_channel() has it never called. It is not called, either, when QEMU goes away while
 * another operation is under way. Not an operation: it may be asked whenever none is under way.
 * Return: 0 or -errno.
 */
int hf_vmm_ask_channel(struct hf_vmm *vmm, const char *label, hf_vmm_channel_fn done, void *data);
void hf_vmm_forget_channel(struct hf_vmm *vmm);

/**
 * hf_vmm_get_roms() - The ROM files that QEMU says it loaded.
 *
 * Names as QEMU has them, most without a folder: see start-files.h. NULL-terminated, borrowed; NULL
 * when there are none, when it was not asked or did not say.
 */
char *const *hf_vmm_get_roms(const struct hf_vmm *vmm);

/** hf_vmm_monitor_pid() - The process behind the monitor of an attached QEMU. 0: not known. */
pid_t hf_vmm_monitor_pid(const struct hf_vmm *vmm);

/** hf_vmm_pid() - The QEMU process: attached to, or respawned. 0 when there is none. */
pid_t hf_vmm_pid(const struct hf_vmm *vmm);

/**
 * hf_vmm_save() - Pause the guest and write its device state into a sink. First half of the
 * blackout.
 * @sink: where the state goes (mapped, preserved memfds), borrowed until @done
 * @grow: supplies one more chunk when the sink is full, may be NULL
 * @data: for @grow and @done
 *
 * Pauses only a guest that runs, and records that in guest->was_running and guest->status. On
 * success the guest stands in postmigrate, guest->state_length and state_xxh3 are set, and so are
 * tsc_pause, tsc_paused and tsc_saved; the chunks' lengths are in the sink. On failure the caller
 * rolls back, or, when it was refused, calls hf_vmm_halt() first.
 */
int hf_vmm_save(struct hf_vmm *vmm, struct hf_sink *sink, hf_stream_grow_fn grow,
	uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_save_into() - The same, into a QEMU that hf_vmm_start_beside() started.
 * @beside: hf_vmm_load() of it must be under way, but see @paused; it can be saved into once
 *
 * Both work at the same time. The state is nowhere else, so nothing is known of its length or
 * checksum: the save counts when this QEMU has completed it, and the load when the other one has.
 *
 * With KVM the guest is not paused before: it runs until QEMU stops it by itself for its devices,
 * and the stamps tsc_pause and tsc_paused are the same. Somebody who pauses or continues it in the
 * meantime is heeded: guest->was_running is of the moment it was stopped.
 *
 * With @paused, which may be NULL, the guest is paused first in any case, and @paused is called
 * when it is, with @data: @beside is to be started only then, and takes what waits for it.
 */
int hf_vmm_save_into(struct hf_vmm *vmm, struct hf_vmm *beside, uint64_t timeout_ns,
	hf_vmm_paused_fn paused, hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_verify_saved() - See that a guest which hf_vmm_save_into() saved still stands still.
 *
 * Fails with -EBUSY when somebody has let it run, or reset it, since: what was saved is not what it
 * is any more, and it is to be rolled back.
 */
int hf_vmm_verify_saved(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/** hf_vmm_check_stands() - The same as far as QEMU's events have told it. Return: 0 or -EBUSY. */
int hf_vmm_check_stands(const struct hf_vmm *vmm, struct hf_error *e);

/**
 * hf_vmm_save_refused() - After a save that failed: is the reason the guest's own?
 *
 * True when its QEMU said that it can't, or did what it must not, and is still there. False for a
 * time-out, for what the agent lacked, and for a QEMU that ended.
 */
bool hf_vmm_save_refused(const struct hf_vmm *vmm);

/**
 * hf_vmm_halt() - After such a save: have the guest stand still for good, its disks written out.
 *
 * On success nothing of the save is under way any more, the guest is paused, and its QEMU has
 * drained and flushed all its disks after that: whenever the process ends, they are no worse than
 * after a power cut at that moment. It can still be rolled back, and has to be after a failure.
 */
int hf_vmm_halt(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/** struct hf_vmm_progress - how far a copy of RAM is. */
struct hf_vmm_progress {
	uint64_t sent_bytes;	  /* in all rounds */
	uint64_t remaining_bytes; /* not sent since they were written last */
	uint64_t total_bytes;	  /* of RAM */
	uint64_t dirty_bytes_per_s;
	uint64_t rounds;
};

/** Called now and then, on the loop. It may call hf_vmm_rollback(). */
typedef void (*hf_vmm_progress_fn)(void *data, const struct hf_vmm_progress *progress);

/**
 * hf_vmm_copy() - Send all of the guest's RAM and then its device state, while it runs as long as
 * possible.
 * @receiver:    made for guest->ram, not started; borrowed until @done
 * @paused:      pause the guest first; without, one whose CPUs are emulated is refused
 * @downtime_ms: how long the guest may stand still for the last round, by QEMU's reckoning
 * @timeout_ns:  for all of it: a guest that writes faster than it is copied never gets done
 * @progress:    may be NULL
 * @data:        for @progress and @done
 *
 * An ordinary pre-copy migration. On success the guest stands in postmigrate, all its RAM is in the
 * receiver's memfds, the receiver has the device state, and guest->was_running, status and the
 * stamps are set. On failure, or to undo it, the caller rolls back, as after hf_vmm_save().
 */
int hf_vmm_copy(struct hf_vmm *vmm, struct hf_ram_receiver *receiver, bool paused,
	uint64_t downtime_ms, uint64_t timeout_ns, hf_vmm_progress_fn progress, hf_vmm_done_fn done,
	void *data);

/**
 * hf_vmm_rollback() - Make the guest as it was before save, from whatever point was reached.
 *
 * Cancels a save under way, switches x-ignore-shared off again, restores migration parameters, and
 * lets the guest run again if it ran before. Does nothing, successfully, for a guest that was only
 * attached. An error here means that the guest does not run as it did: the operator must be told.
 */
int hf_vmm_rollback(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_recover() - The undo of a save that a dead agent began, wherever that was in it.
 * @was_running: whether the guest ran before: then it is let run again
 *
 * Of an attached VMM. See hf_vmm_rollback().
 */
int hf_vmm_recover(
	struct hf_vmm *vmm, bool was_running, uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_quit() - End a saved QEMU, and wait until the process is gone.
 *
 * Irreversible. Only for a carrier that does not end QEMU by itself (hold): two QEMUs must never
 * have one RAM.
 */
int hf_vmm_quit(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_respawn() - Start a new QEMU on preserved RAM and load the device state.
 * @ram_fds:   one per guest->ram[], borrowed
 * @state_fds: one per guest->state[], borrowed
 *
 * Starts the QEMU that is installed now with the guest's command line, `-incoming defer` and `-S`,
 * and the limits the old one had, re-creates its taps, loads, and verifies that the load completed.
 * The guest stands paused afterwards: nothing of it ran yet. Loading may write into guest RAM, but
 * only what the same state writes again. So loading once more is sound after an agent's death, as
 * long as the guest was not let run. After a failure it is not tried again by itself: QEMU may have
 * come to grief halfway (-EUCLEAN) for a reason that an operator has to look at. On failure the
 * QEMU it started is gone again when @done runs.
 */
int hf_vmm_respawn(struct hf_vmm *vmm, const int *ram_fds, const int *state_fds,
	uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_start_beside() - Start a new QEMU on the RAM of a guest that runs in another one.
 * @ram_fds: one per guest->ram[], borrowed
 * @taps:    the other one's, borrowed until the load is over; NULL: it has none
 *
 * As hf_vmm_respawn(), up to where it would load: nothing of the guest is touched, but taps, which
 * want it to stand still. It has its monitor at guest->qmp_path, which must not be the other one's.
 * Freed before hf_vmm_resume(), it is killed.
 */
int hf_vmm_start_beside(struct hf_vmm *vmm, const int *ram_fds, const struct hf_taps *taps,
	uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_load() - Have a QEMU that was started beside the guest's load its device state.
 * @timeout_ns: of the other one's save, too; see hf_vmm_limit()
 *
 * To be followed by hf_vmm_save_into() of the other one. Everything else as for hf_vmm_respawn(),
 * failure included: then the new QEMU is gone when @done runs, and the guest can go on in the old
 * one. What the load has written by then is of the state that the old one has, too. Its migration
 * capabilities are switched off again by hf_vmm_resume(), when the guest runs.
 */
int hf_vmm_load(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/** hf_vmm_limit() - The operation under way, if there is one, has this much time from now. */
void hf_vmm_limit(struct hf_vmm *vmm, uint64_t timeout_ns);

/**
 * hf_vmm_cancel() - Have the operation under way fail, with an error. Its @done runs as usual.
 *
 * A QEMU that was on its way up is ended. Does nothing when none is under way.
 */
void hf_vmm_cancel(struct hf_vmm *vmm, const struct hf_error *cause);

/**
 * hf_vmm_kill() - End a QEMU by force, and wait until the process is gone.
 *
 * Irreversible. It leaves its sockets' names alone, which may be another one's by now. Only of one
 * that was saved, or never ran: its disks are as it was told to leave them.
 */
int hf_vmm_kill(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/**
 * typedef hf_vmm_spawned_fn - a new QEMU exists.
 *
 * Called from within its start: @vmm may only be asked for its pid. Return: 0; -errno to have it
 * ended again, with @error.
 */
typedef int (*hf_vmm_spawned_fn)(struct hf_vmm *vmm, void *data, struct hf_error *error);

/**
 * hf_vmm_cold_boot() - Start the guest afresh, by its own command line, on new memfds.
 * @spawned: told of the process before anything can come of it: it doesn't run the guest yet
 * @data:    for @spawned and @done
 *
 * After a respawn that failed. The guest stands at its reset vector afterwards, and hf_vmm_resume()
 * lets it run, unless its command line has -S: guest->was_running says so then. The memory it had
 * is not touched. On failure the QEMU it started is gone again when @done runs.
 */
int hf_vmm_cold_boot(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_spawned_fn spawned,
	hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_adopt_fresh() - Take over what another agent, which died, had started afresh.
 *
 * Of an attached VMM. hf_vmm_resume() comes next, whether it runs already or not. Return: 0 or
 * -errno.
 */
int hf_vmm_adopt_fresh(struct hf_vmm *vmm, struct hf_error *error);

/**
 * hf_vmm_adopt() - Take over what another agent, which died, had respawned and let run.
 * @ram_fds: as for hf_vmm_respawn()
 *
 * Of an attached VMM. hf_vmm_resume() comes next, as after a respawn. Return: 0 or -errno.
 */
int hf_vmm_adopt(struct hf_vmm *vmm, const int *ram_fds, struct hf_error *error);

/**
 * hf_vmm_resume() - Let the guest go on if it ran before; announce its addresses; capability off.
 *
 * A guest that was paused stays paused. On success the stamp resumed is set, QMP says `running`
 * (or paused) and the guest is registered under /run/holdfast/guests with its new pid.
 */
int hf_vmm_resume(struct hf_vmm *vmm, uint64_t timeout_ns, hf_vmm_done_fn done, void *data);

/**
 * hf_vmm_get_warning() - What attach or respawn could not do, but the guest can live without.
 *
 * A sentence, or "": limits of the old QEMU that could not be read, or given to the new one.
 */
const char *hf_vmm_get_warning(const struct hf_vmm *vmm);

/** struct hf_vmm_stamps - TSC readings of the way up; 0 where not reached. */
struct hf_vmm_stamps {
	uint64_t spawn;	  /* QEMU is being started */
	uint64_t ready;	  /* it answers QMP */
	uint64_t loaded;  /* device state is in */
	uint64_t resumed; /* its vCPUs run, or it stays paused as it was */
};

/** hf_vmm_get_stamps() - Those so far. Borrowed until hf_vmm_free(). */
const struct hf_vmm_stamps *hf_vmm_get_stamps(const struct hf_vmm *vmm);
