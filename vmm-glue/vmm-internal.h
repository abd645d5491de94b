/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the files of vmm.h share. Nobody else includes this.
 *
 * vmm.c holds the frame: operations, time-outs, the end of QEMU. vmm-attach.c, vmm-save.c,
 * vmm-copy.c, vmm-rollback.c, vmm-respawn.c, vmm-beside.c and vmm-cold-boot.c hold one step of a
 * guest's way each.
 *
 * An operation ends by hf_vmm_end() or hf_vmm_fail(). That only notes the outcome: the callback
 * runs later, from the loop, once the guest is *settled*, which means that no stream uses a sink
 * any more and that no QEMU which was to be killed is still there. So callbacks never run inside
 * calls, and what was borrowed for an operation is free when they do.
 */
#pragma once

#include "common/fd.h"
#include "common/tsc.h"
#include "qmp/commands.h"
#include "vmm-glue/libvirt.h"
#include "vmm-glue/spawn.h"
#include "vmm-glue/taps.h"
#include "vmm-glue/vmm.h"

#define HF_VMM_GETFD_NAME "holdfast-state"
#define HF_VMM_MAX_TRACKED 24
#define HF_VMM_MAX_PTYS 16

enum hf_vmm_op_kind {
	HF_VMM_OP_NONE,
	HF_VMM_OP_ATTACH,
	HF_VMM_OP_SAVE,
	HF_VMM_OP_VERIFY,
	HF_VMM_OP_COPY,
	HF_VMM_OP_ROLLBACK,
	HF_VMM_OP_HALT,
	HF_VMM_OP_QUIT,
	HF_VMM_OP_RESPAWN,
	HF_VMM_OP_COLD_BOOT,
	HF_VMM_OP_START,
	HF_VMM_OP_LOAD,
	HF_VMM_OP_RESUME,
};

/* One operation, from its start until its callback ran. */
struct hf_vmm_op {
	enum hf_vmm_op_kind kind;
	bool ended; /* outcome known, callback still due */
	hf_vmm_done_fn done;
	void *data;
	uint64_t timeout_ns;
	struct hf_error error; /* err is 0 on success */
};

struct hf_vmm {
	sd_event *event;
	struct hf_manifest_guest *guest;
	struct hf_stream_ring *ring;
	hf_vmm_gone_fn gone;
	void *gone_data;

	struct hf_qmp *qmp;
	struct hf_child *child;
	struct hf_vmm_op op;	  /* the one under way */
	struct hf_vmm_op overrun; /* one that a rollback ended, its callback still due */
	sd_event_source *deadline;
	sd_event_source *poll;
	sd_event_source *settle;
	void (*poll_fn)(struct hf_vmm *vmm);
	unsigned int n_polls;
	const char *waiting; /* what QEMU is to do, for the message when it doesn't */
	uint64_t tracked[HF_VMM_MAX_TRACKED]; /* commands whose callbacks may still come */
	size_t n_tracked;

	bool attached; /* it was known to be there, so that its end is news */
	bool killing;  /* a QEMU that must be gone before anything is reported */
	bool lost;     /* its monitor or process went away */
	bool gone_due;
	struct hf_error gone_error;
	bool freed; /* by its owner, while a callback or a stream still used it */
	unsigned int in_callback;

	char warning[512];
	struct hf_vmm_probe probe;
	struct hf_vmm_stamps stamps;
	uint64_t other_ram_bytes; /* used bytes of all blocks that are not preserved RAM */
	bool own_monitor; /* of a libvirt domain: to its QEMU itself, as libvirt isn't there */
	bool helpers_started;
	bool ptys_known;
	struct hf_libvirt_pty ptys[HF_VMM_MAX_PTYS];
	size_t n_ptys;
	bool want_profile;
	bool profile_loaded;
	struct hf_child *loader; /* AppArmor's parser, while it runs */
	void (*then_loaded)(struct hf_vmm *vmm);
	bool want_roms;
	char **roms; /* NULL-terminated once there is one */
	size_t n_roms;
	void (*roms_done)(struct hf_vmm *vmm);
	char channel_label[96]; /* of hf_vmm_ask_channel() */
	hf_vmm_channel_fn channel_done;
	void *channel_data;
	bool want_details;
	void (*details_done)(struct hf_vmm *vmm);
	char balloon_path[256];		     /* in QOM, or "" */
	struct hf_qmp_virtio_device *virtio; /* while they are asked about */
	size_t n_virtio, next_virtio;
	void (*virtio_done)(struct hf_vmm *vmm);
	struct hf_qmp_virtqueue virtqueue;
	void (*devices_answered)(struct hf_vmm *vmm, const char *why);
	unsigned int n_replies; /* of the step's commands, still to come: no success without */

	/* What save changed and rollback has to change back. */
	bool save_begun;
	bool migrate_sent;
	bool status_known; /* guest->was_running is of this save */
	bool refused;	   /* the save failed because QEMU said so */
	uint64_t old_max_bandwidth;
	uint64_t old_downtime_ms;
	bool downtime_changed;
	bool old_ignore_shared;
	bool old_events;
	struct hf_error restore_error; /* a setting that rollback could not change back */

	/* Save and load. */
	struct hf_stream *stream;
	bool streaming;			  /* the done of @stream or @receiver is still to come */
	struct hf_ram_receiver *receiver; /* borrowed: copy */
	hf_vmm_progress_fn progress;
	uint64_t new_downtime_ms;
	bool pause_first;	 /* copy */
	hf_vmm_paused_fn paused; /* save: pause it first, and call this; or NULL */
	bool emulated;		 /* its CPUs: it must not run while it is copied */
	bool live;		 /* it runs while it is saved, until QEMU stops it */
	bool woken;		 /* somebody has let it run, or reset it, after it was saved */
	bool stream_ok;
	unsigned int n_waits; /* left, for what its consoles said to be written */
	struct hf_error stream_error;
	struct hf_stream_result result;
	struct hf_sink *sink;	  /* borrowed: save; NULL: another QEMU reads the stream */
	struct hf_sink load_sink; /* own: load */
	hf_stream_grow_fn grow;
	int stream_fd; /* QEMU's end, until it has been sent */
	int load_fd;   /* of a QEMU started beside the guest's: what that one is to write to */
	bool beside; /* it was, and has not been told to let the guest run: nobody else knows it */
	bool migration_completed;
	bool incoming_sent;
	bool capability_off; /* in the new QEMU, for good */
	struct hf_inode ram_inodes[HF_MANIFEST_MAX_RAM];
	int ram_fds[HF_MANIFEST_MAX_RAM];   /* borrowed: respawn waits for its network first */
	const struct hf_taps *taps;	    /* borrowed: of the QEMU beside it */
	char **built_argv;		    /* while QEMU is being started */
	int fresh_fds[HF_MANIFEST_MAX_RAM]; /* own: cold boot, until QEMU has them */
	hf_vmm_spawned_fn spawned;	    /* of a cold boot */
};

/**
 * hf_vmm_begin() - Start an operation. Return: 0, -EBUSY when one is under way, or -errno.
 */
int hf_vmm_begin(struct hf_vmm *vmm, enum hf_vmm_op_kind kind, uint64_t timeout_ns,
	hf_vmm_done_fn done, void *data);

/** hf_vmm_end() - The operation under way succeeded. */
void hf_vmm_end(struct hf_vmm *vmm);

/** hf_vmm_fail() - The operation under way failed. A QEMU that was being respawned is killed. */
void hf_vmm_fail(struct hf_vmm *vmm, const struct hf_error *error);

/** hf_vmm_failf() - The same, from its parts. @remedy may be NULL. */
void hf_vmm_failf(struct hf_vmm *vmm, int err, const char *remedy, const char *fmt, ...)
	HF_PRINTF(4, 5);

/** hf_vmm_attach_on_ready() - The monitor of a QEMU that is attached to is ready. */
void hf_vmm_attach_on_ready(struct hf_vmm *vmm);

/**
 * hf_vmm_check_monitor() - Is it the guest's own QEMU that listens on its monitor?
 *
 * Return: 0, or -ESTALE.
 */
int hf_vmm_check_monitor(const struct hf_qmp *q, pid_t pid, struct hf_error *error);

/**
 * hf_vmm_load_profile() - Have the guest's AppArmor profile loaded, if it has one.
 * @then: called when it is, from the loop; if it can't be, the operation under way fails instead
 *
 * Return: 1 @then will be called; 0 there is nothing to wait for, and it won't; -errno.
 */
int hf_vmm_load_profile(struct hf_vmm *vmm, void (*then)(struct hf_vmm *vmm), struct hf_error *e);

/** hf_vmm_drop_loader() - End what loads it. */
void hf_vmm_drop_loader(struct hf_vmm *vmm);

/** hf_vmm_make_stream() - Make the socket between two QEMUs, once. 0 or -errno. */
int hf_vmm_make_stream(struct hf_vmm *vmm, struct hf_error *e);

/** hf_vmm_ram_number() - The descriptor that a RAM file has in a QEMU started by an agent. */
int hf_vmm_ram_number(const struct hf_vmm *vmm, size_t index);

/**
 * hf_vmm_connect() - Connect to a running QEMU: to its own monitor, or through libvirt.
 *
 * hf_vmm_qmp_ops has the rest. Return: 0 or -errno.
 */
int hf_vmm_connect(struct hf_vmm *vmm, uint64_t timeout_ns, struct hf_error *error);

/** hf_vmm_in() - Whether this operation is under way and still open. */
bool hf_vmm_in(const struct hf_vmm *vmm, enum hf_vmm_op_kind kind);

/**
 * HF_VMM_SEND() - Submit a command as a part of the operation under way.
 * @fn:      takes the reply, with @vmm as its data; may be NULL
 * @command: the hf_qmp_*() function, followed by the arguments that are its own
 *
 * It has no time-out but the operation's. Is: 0, or -errno when the operation has failed, or is
 * about to: send no more.
 */
#define HF_VMM_SEND(vmm, fn, command, ...) \
	({ \
		struct hf_vmm *hf_send_v_ = (vmm); \
		uint64_t hf_send_id_ = 0; \
		int hf_send_r_ = command(hf_send_v_->qmp, ##__VA_ARGS__, HF_QMP_TIMEOUT_NEVER, fn, \
			hf_send_v_, &hf_send_id_); \
		hf_vmm_sent(hf_send_v_, hf_send_r_, hf_send_id_); \
	})

/**
 * hf_vmm_sent() - Take note of a command that was submitted, for HF_VMM_SEND().
 * @r:  what its hf_qmp_*() call returned
 * @id: its id
 *
 * Return: @r.
 */
int hf_vmm_sent(struct hf_vmm *vmm, int r, uint64_t id);

/**
 * hf_vmm_send_caps() - HF_VMM_SEND() of the two capabilities that matter here.
 * @ignore_shared: leave RAM in shared files out of the stream
 * @events:        MIGRATION events
 */
int hf_vmm_send_caps(struct hf_vmm *vmm, bool ignore_shared, bool events, hf_qmp_reply_fn fn);

/** hf_vmm_forget_commands() - No callback of a command submitted so far will run. */
void hf_vmm_forget_commands(struct hf_vmm *vmm);

/** hf_vmm_poll_later() - Call @fn in a while: 0.5 ms first, then longer and longer up to 10 ms. */
void hf_vmm_poll_later(struct hf_vmm *vmm, void (*fn)(struct hf_vmm *vmm));

/** hf_vmm_poll_after() - Call @fn in @usec. One may wait at a time: the newer replaces. */
void hf_vmm_poll_after(struct hf_vmm *vmm, uint64_t usec, void (*fn)(struct hf_vmm *vmm));

/** hf_vmm_settle() - Deliver what is due, if nothing stands against it. */
void hf_vmm_settle(struct hf_vmm *vmm);

/** hf_vmm_lose() - Its QEMU went away: ends the operation under way and makes `gone` due. */
void hf_vmm_lose(struct hf_vmm *vmm, const struct hf_error *reason);

/** hf_vmm_drop_monitor() - Close the monitor, and the callbacks of its commands. */
void hf_vmm_drop_monitor(struct hf_vmm *vmm);

/** hf_vmm_stream_over() - Nothing streams any more. Return: false when @vmm has gone with that. */
bool hf_vmm_stream_over(struct hf_vmm *vmm);

/** hf_vmm_on_stream_done() - hf_stream_done_fn of both directions. */
void hf_vmm_on_stream_done(void *data, const struct hf_stream_result *result);

/** hf_vmm_on_child_exit() - hf_child_exit_fn of attached and respawned processes. */
void hf_vmm_on_child_exit(struct hf_child *child, void *data);

/** hf_vmm_check_reply() - Fail the operation on a command's error. Return: whether to go on. */
bool hf_vmm_check_reply(struct hf_vmm *vmm, int err, const struct hf_error *error);

/** hf_vmm_take_status() - The same of query-status, whose answer has to make sense as well. */
bool hf_vmm_take_status(struct hf_vmm *vmm, int err, struct json_object *ret,
	const struct hf_error *error, struct hf_qmp_status *status);

/** hf_vmm_take_migration() - The same of query-migrate. */
bool hf_vmm_take_migration(struct hf_vmm *vmm, int err, struct json_object *ret,
	const struct hf_error *error, struct hf_qmp_migration *migration);

/** hf_vmm_take_kvm() - The same of query-kvm. @enabled: false also on failure */
bool hf_vmm_take_kvm(struct hf_vmm *vmm, int err, struct json_object *ret,
	const struct hf_error *error, bool *enabled);

/** hf_vmm_qmp_ops - callbacks of both kinds of connection; userdata is the hf_vmm. */
extern const struct hf_qmp_ops hf_vmm_qmp_ops;

/**
 * hf_vmm_compare_named() - Compare argv's devices with the children of /machine/peripheral.
 * @children: qom-list's answer, untrusted
 * @ret_why:  what is different, "" when nothing is
 *
 * Return: 0, -EBADMSG.
 */
int hf_vmm_compare_named(const struct hf_manifest_guest *guest, struct json_object *children,
	char *ret_why, size_t size);

/** hf_vmm_compare_anonymous() - The same with the children of /machine/peripheral-anon. */
int hf_vmm_compare_anonymous(const struct hf_manifest_guest *guest, struct json_object *children,
	char *ret_why, size_t size);

/**
 * hf_vmm_ask_devices() - Have QEMU's devices compared with those of its command line, both ways.
 * @answered: called once for each of the two, with what is different, "" when nothing is; not when
 *            an answer can't be used, and the operation has failed by that
 *
 * Return: 0, or -errno when the operation has failed.
 */
int hf_vmm_ask_devices(struct hf_vmm *vmm, void (*answered)(struct hf_vmm *vmm, const char *why));

/**
 * hf_vmm_ask_virtio() - Look for virtqueues larger than they should be.
 * @done: called when that is over, also when QEMU doesn't tell: nothing fails for lack of it
 *
 * Return: 0, or -errno when the operation has failed.
 */
int hf_vmm_ask_virtio(struct hf_vmm *vmm, void (*done)(struct hf_vmm *vmm));

/**
 * hf_vmm_ask_roms() - Learn the names of ROM files.
 * @done: called twice, once for each of QEMU's lists, also when it doesn't tell
 *
 * Return: 0, or -errno when the operation has failed.
 */
int hf_vmm_ask_roms(struct hf_vmm *vmm, void (*done)(struct hf_vmm *vmm));

/**
 * hf_vmm_ask_details() - Ask about balloon, guest agent's channel and disks.
 * @done: called three times, once for each of them, also when QEMU doesn't tell
 *
 * Return: 0, or -errno when the operation has failed.
 */
int hf_vmm_ask_details(struct hf_vmm *vmm, void (*done)(struct hf_vmm *vmm));

/** hf_vmm_ask_reporting() - Ask the balloon at balloon_path for free page reporting. Likewise. */
int hf_vmm_ask_reporting(struct hf_vmm *vmm, void (*done)(struct hf_vmm *vmm));

/** hf_vmm_forget_roms() - Free them. */
void hf_vmm_forget_roms(struct hf_vmm *vmm);

/** hf_vmm_loading() - Whether a new QEMU loads, or is about to. */
static inline bool hf_vmm_loading(const struct hf_vmm *vmm)
{
	return hf_vmm_in(vmm, HF_VMM_OP_RESPAWN) || hf_vmm_in(vmm, HF_VMM_OP_LOAD);
}

/** hf_vmm_starting() - Whether a new QEMU is on its way up: what must be gone after a failure. */
static inline bool hf_vmm_starting(const struct hf_vmm *vmm)
{
	return hf_vmm_loading(vmm) || hf_vmm_in(vmm, HF_VMM_OP_START) ||
	       hf_vmm_in(vmm, HF_VMM_OP_COLD_BOOT);
}

/**
 * hf_vmm_widen() - Have a whole device state fit into a socket, whose end is written to.
 *
 * So that its writer is not woken up again and again to write a little more. Without the right to
 * it the socket stays as it is.
 */
void hf_vmm_widen(int fd);

/** hf_vmm_check_ram() - Take note of the RAM files that a new QEMU is to have. 0 or -errno. */
int hf_vmm_check_ram(struct hf_vmm *vmm, const int *ram_fds, struct hf_error *e);

/**
 * hf_vmm_begin_start() - hf_vmm_begin() of what starts a QEMU: the one there was is forgotten.
 *
 * Return: 0; -EALREADY one is still there; -EINVAL the guest can't be started; else as that.
 */
int hf_vmm_begin_start(struct hf_vmm *vmm, enum hf_vmm_op_kind kind, uint64_t timeout_ns,
	hf_vmm_done_fn done, void *data);

/** hf_vmm_start_new() - Restore the network, and start QEMU on vmm->ram_fds. */
void hf_vmm_start_new(struct hf_vmm *vmm);

/** hf_vmm_forget_fresh() - Close what was made for a cold boot. */
void hf_vmm_forget_fresh(struct hf_vmm *vmm);

/* Steps called across files. */
void hf_vmm_rollback_anew(struct hf_vmm *vmm);
void hf_vmm_save_on_event(struct hf_vmm *vmm, const char *name, struct json_object *data);
void hf_vmm_save_on_stream(struct hf_vmm *vmm);
void hf_vmm_saved_on_event(struct hf_vmm *vmm, const char *name);
void hf_vmm_copy_on_event(struct hf_vmm *vmm, const char *name, struct json_object *data);
void hf_vmm_respawn_on_ready(struct hf_vmm *vmm);
void hf_vmm_cold_boot_on_ready(struct hf_vmm *vmm);
void hf_vmm_beside_on_ready(struct hf_vmm *vmm);
void hf_vmm_respawn_on_event(struct hf_vmm *vmm, const char *name, struct json_object *data);
void hf_vmm_respawn_on_stream(struct hf_vmm *vmm);
void hf_vmm_respawn_on_lost(struct hf_vmm *vmm, const struct hf_error *reason);
