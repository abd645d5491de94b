/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The QMP commands that are used, and what their replies mean.
 *
 * Each hf_qmp_<command>() submits (see hf_qmp_command() for what it returns and when @fn runs);
 * each hf_qmp_parse_<thing>() is pure and turns the `ret` that the callback gets into a C struct
 * without pointers. The peer is untrusted: a parser answers -EBADMSG for a reply of the wrong shape
 * and cuts text that is too long only where it is meant for people (`error_desc`, blocked reasons);
 * names that are compared or opened are refused instead (-EBADMSG). One that fills an array answers
 * -ENOBUFS when there is more than fits. Where a command and a parser share a comment, the parser
 * is for that command's reply.
 *
 * Facts about versions are from QEMU's qapi/ schemas and tried on 7.2, 10.0 and 11.1.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qmp/qmp.h"

/* ---- run state ---- */

enum hf_qmp_run_state {
	HF_QMP_RUN_UNKNOWN, /* a word this build doesn't know */
	HF_QMP_RUN_DEBUG,
	HF_QMP_RUN_INMIGRATE,
	HF_QMP_RUN_INTERNAL_ERROR,
	HF_QMP_RUN_IO_ERROR,
	HF_QMP_RUN_PAUSED,
	HF_QMP_RUN_POSTMIGRATE,
	HF_QMP_RUN_PRELAUNCH,
	HF_QMP_RUN_FINISH_MIGRATE,
	HF_QMP_RUN_RESTORE_VM,
	HF_QMP_RUN_RUNNING,
	HF_QMP_RUN_SAVE_VM,
	HF_QMP_RUN_SHUTDOWN,
	HF_QMP_RUN_SUSPENDED,
	HF_QMP_RUN_WATCHDOG,
	HF_QMP_RUN_GUEST_PANICKED,
	HF_QMP_RUN_COLO,
	_HF_QMP_RUN_MAX,
};

struct hf_qmp_status {
	enum hf_qmp_run_state state;
	bool running;  /* vCPUs run */
	char name[32]; /* QEMU's word */
};

/** hf_qmp_query_status() - What the guest is doing. */
int hf_qmp_query_status(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_status(struct json_object *ret, struct hf_qmp_status *ret_status);

/** hf_qmp_run_state_parse() - From QEMU's word; HF_QMP_RUN_UNKNOWN for others and NULL. */
enum hf_qmp_run_state hf_qmp_run_state_parse(const char *name);
/** hf_qmp_run_state_name() - QEMU's word; "unknown" for HF_QMP_RUN_UNKNOWN. */
const char *hf_qmp_run_state_name(enum hf_qmp_run_state state);

/** hf_qmp_stop() - Pause the guest. The reply means that its vCPUs stand still. */
int hf_qmp_stop(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_cont() - Let the guest run; one that is being loaded, as soon as it is. */
int hf_qmp_cont(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_quit() - End QEMU. The reply may get lost in its exit: -ECONNRESET is success too. */
int hf_qmp_quit(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_system_powerdown() - Press the guest's power button. What it does is up to the guest. */
int hf_qmp_system_powerdown(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_query_kvm() - Do its CPUs run by KVM? */
int hf_qmp_query_kvm(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_kvm(struct json_object *ret, bool *ret_enabled);

/* ---- identity ---- */

/** hf_qmp_query_version() - QEMU's version, which the greeting has as well. */
int hf_qmp_query_version(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_parse_version() - Of query-version's reply, or of the greeting's `version` (the same). */
int hf_qmp_parse_version(struct json_object *ret, struct hf_qmp_version *ret_version);

/** hf_qmp_query_name() - The guest's name, of `-name`. */
int hf_qmp_query_name(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_parse_name() - "" when the guest has none; -EBADMSG when it doesn't fit @size. */
int hf_qmp_parse_name(struct json_object *ret, char *buf, size_t size);

/** hf_qmp_query_uuid() - The guest's UUID, of `-uuid`. */
int hf_qmp_query_uuid(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_parse_uuid() - Lower-case with dashes; all zeros when the guest has none. */
int hf_qmp_parse_uuid(struct json_object *ret, char buf[static 37]);

/* ---- migration ---- */

enum hf_qmp_migration_status {
	HF_QMP_MIGRATION_UNKNOWN, /* a word this build doesn't know: not terminal */
	HF_QMP_MIGRATION_NONE,
	HF_QMP_MIGRATION_SETUP,
	HF_QMP_MIGRATION_CANCELLING,
	HF_QMP_MIGRATION_CANCELLED,
	HF_QMP_MIGRATION_ACTIVE,
	HF_QMP_MIGRATION_POSTCOPY_DEVICE,
	HF_QMP_MIGRATION_POSTCOPY_ACTIVE,
	HF_QMP_MIGRATION_POSTCOPY_PAUSED,
	HF_QMP_MIGRATION_POSTCOPY_RECOVER_SETUP,
	HF_QMP_MIGRATION_POSTCOPY_RECOVER,
	HF_QMP_MIGRATION_COMPLETED,
	HF_QMP_MIGRATION_FAILING, /* 11.x: on its way to failed, not terminal */
	HF_QMP_MIGRATION_FAILED,
	HF_QMP_MIGRATION_COLO,
	HF_QMP_MIGRATION_PRE_SWITCHOVER,
	HF_QMP_MIGRATION_DEVICE,
	HF_QMP_MIGRATION_WAIT_UNPLUG,
	_HF_QMP_MIGRATION_MAX,
};

/**
 * hf_qmp_migration_status_parse() - From QEMU's word.
 *
 * Return: HF_QMP_MIGRATION_UNKNOWN for others and NULL.
 */
enum hf_qmp_migration_status hf_qmp_migration_status_parse(const char *name);

/** hf_qmp_migration_status_name() - QEMU's word; "unknown" for HF_QMP_MIGRATION_UNKNOWN. */
const char *hf_qmp_migration_status_name(enum hf_qmp_migration_status status);

/** hf_qmp_migration_over() - Whether nothing more will come: completed, failed, cancelled. */
bool hf_qmp_migration_over(enum hf_qmp_migration_status status);

/** hf_qmp_parse_migration_event() - Of a MIGRATION event's data. Return: 0 or -EBADMSG. */
int hf_qmp_parse_migration_event(
	struct json_object *data, enum hf_qmp_migration_status *ret_status);

#define HF_QMP_MAX_BLOCKERS 8

struct hf_qmp_migration {
	enum hf_qmp_migration_status status; /* NONE when QEMU never migrated */
	char error_desc[256];		     /* "" when there is none */
	bool has_ram;			     /* the next five are meant */
	uint64_t ram_total_bytes;
	uint64_t ram_remaining_bytes;
	uint64_t ram_transferred_bytes; /* all bytes of the stream, devices included */
	uint64_t ram_normal_bytes;	/* RAM pages in it: 0 when x-ignore-shared did its work */
	uint64_t ram_duplicate_pages;
	uint64_t ram_dirty_pages_per_s; /* the guest rewrites; these two 0 until known */
	uint64_t ram_rounds;		/* times that dirty pages were collected */
	uint64_t total_time_ms;		/* 0 until known */
	uint64_t downtime_ms;
	uint64_t setup_time_ms;
	size_t n_blockers; /* how many there are, also those beyond the array */
	char blockers[HF_QMP_MAX_BLOCKERS]
		     [256]; /* why this guest can't be migrated, QEMU's words */
};

/** hf_qmp_query_migrate() - How the last migration is getting on, in or out; what blocks one. */
int hf_qmp_query_migrate(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_migration(struct json_object *ret, struct hf_qmp_migration *ret_migration);

/**
 * hf_qmp_migrate() - Start saving. @uri: e.g. "fd:NAME" after hf_qmp_getfd(). The reply means
 * started; the end comes as MIGRATION event and in hf_qmp_query_migrate().
 */
int hf_qmp_migrate(struct hf_qmp *q, const char *uri, uint64_t timeout_ns, hf_qmp_reply_fn fn,
	void *data, uint64_t *ret_id);

/** hf_qmp_migrate_cancel() - Give saving up. The end comes as with hf_qmp_migrate(). */
int hf_qmp_migrate_cancel(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/**
 * hf_qmp_migrate_incoming() - Start loading in a QEMU that was started with `-incoming defer`.
 *
 * Adds `exit-on-error: false` from QEMU 9.1 on, where it exists, so that a failed load can be asked
 * for its cause. That goes by the greeting's version, so submit it once the connection is ready:
 * -EAGAIN before the greeting.
 */
int hf_qmp_migrate_incoming(struct hf_qmp *q, const char *uri, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

struct hf_qmp_capability {
	const char *name; /* "x-ignore-shared", "events" … */
	bool on;
};

/** hf_qmp_migrate_set_capabilities() - Switch these on or off, and leave the others. */
int hf_qmp_migrate_set_capabilities(struct hf_qmp *q, const struct hf_qmp_capability *caps,
	size_t n_caps, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_query_migrate_capabilities() - All that QEMU has; the next two take its reply apart. */
int hf_qmp_query_migrate_capabilities(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_parse_capability() - Look one up. Return: 0, -ENOENT when QEMU lacks it, -EBADMSG. */
int hf_qmp_parse_capability(struct json_object *ret, const char *name, bool *ret_on);

/**
 * hf_qmp_next_capability() - The capabilities that are on, one after the other.
 * @pos:      0 at first; moved on
 * @ret_name: borrowed from @ret
 *
 * Return: 0, -ENOENT when there are no more, -EBADMSG.
 */
int hf_qmp_next_capability(struct json_object *ret, size_t *pos, const char **ret_name);

/** struct hf_qmp_migrate_parameters - those we set, and read back. */
struct hf_qmp_migrate_parameters {
	bool has_max_bandwidth;
	uint64_t max_bandwidth; /* bytes a second, 0: no limit */
	bool has_downtime_limit;
	uint64_t downtime_limit_ms;
	char mode[32]; /* "normal", "cpr-reboot" …; "" when not set, or before 8.2 */
};

/**
 * hf_qmp_migrate_set_parameters() - Set those that are marked: has_*, and mode when not "".
 *
 * `mode` exists from QEMU 8.2 on: earlier ones answer with an error.
 */
int hf_qmp_migrate_set_parameters(struct hf_qmp *q, const struct hf_qmp_migrate_parameters *p,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_query_migrate_parameters() - Those parameters as they are. */
int hf_qmp_query_migrate_parameters(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_migrate_parameters(
	struct json_object *ret, struct hf_qmp_migrate_parameters *ret_params);

/* ---- descriptors ---- */

/** hf_qmp_getfd() - Give QEMU a descriptor under a name, private to this monitor. See
 * hf_qmp_command() for @fd. A name already taken is replaced. */
int hf_qmp_getfd(struct hf_qmp *q, const char *name, int fd, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_closefd() - Have QEMU close a descriptor that hf_qmp_getfd() gave it and nothing took. */
int hf_qmp_closefd(struct hf_qmp *q, const char *name, uint64_t timeout_ns, hf_qmp_reply_fn fn,
	void *data, uint64_t *ret_id);

/* ---- network ---- */

/** struct hf_qmp_announce - rounds of RARP. Times in ms. */
struct hf_qmp_announce {
	unsigned int initial_ms, max_ms, rounds, step_ms;
};

/** hf_qmp_announce_self() - @a: NULL for QEMU's own habit: 50 ms, 550 ms, 5 rounds, 100 ms. */
int hf_qmp_announce_self(struct hf_qmp *q, const struct hf_qmp_announce *a, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/* ---- what the guest is made of ---- */

/** hf_qmp_human_command() - The human monitor's command; the reply is its text, for the parsers. */
int hf_qmp_human_command(struct hf_qmp *q, const char *line, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);

/** hf_qmp_parse_text() - The reply's text, borrowed from @ret. -EBADMSG when it is none. */
int hf_qmp_parse_text(struct json_object *ret, const char **ret_text, size_t *ret_size);

/** struct hf_qmp_ramblock - a line of `info ramblock`. */
struct hf_qmp_ramblock {
	char name[256];
	uint64_t page_bytes;
	uint64_t offset;
	uint64_t used_bytes;
	uint64_t total_bytes;
};

/**
 * hf_qmp_parse_ramblocks() - Parse what `info ramblock` prints.
 * @text:   text, needs no NUL
 * @size:   its size
 * @blocks: room for the blocks
 * @max:    how many
 * @ret_n:  how many there are
 *
 * Return: 0, -EBADMSG, -ENOBUFS when there are more than @max.
 */
int hf_qmp_parse_ramblocks(
	const char *text, size_t size, struct hf_qmp_ramblock *blocks, size_t max, size_t *ret_n);

/** struct hf_qmp_rom - a line of `info roms`. */
struct hf_qmp_rom {
	char name[256];	   /* the file as the command line or QEMU names it, e.g. "bios-256k.bin" */
	char fw_path[256]; /* where the guest finds it in fw_cfg, or "" */
	uint64_t size_bytes;
};

/** hf_qmp_parse_roms() - Parse what `info roms` prints. As hf_qmp_parse_ramblocks(). */
int hf_qmp_parse_roms(
	const char *text, size_t size, struct hf_qmp_rom *roms, size_t max, size_t *ret_n);

/** struct hf_qmp_romfile - a PCI device's ROM file as `info qtree` prints it. */
struct hf_qmp_romfile {
	char name[256]; /* as the command line or QEMU names it, e.g. "efi-virtio.rom" */
};

/**
 * hf_qmp_parse_romfiles() - Find the ROM files in what `info qtree` prints.
 *
 * As hf_qmp_parse_ramblocks(), but most of the text is of no interest, so anything is allowed in
 * it, and names come once each. PCI devices keep their ROMs to themselves: `info roms` lacks them.
 */
int hf_qmp_parse_romfiles(
	const char *text, size_t size, struct hf_qmp_romfile *files, size_t max, size_t *ret_n);

/** struct hf_qmp_virtio_device - a virtio device, on any bus. */
struct hf_qmp_virtio_device {
	char name[64];	/* "virtio-blk", the same whatever the bus */
	char path[256]; /* in QOM */
};

/** hf_qmp_query_virtio() - x-query-virtio: all virtio devices. From QEMU 7.2 on. */
int hf_qmp_query_virtio(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_virtio_devices(
	struct json_object *ret, struct hf_qmp_virtio_device *devs, size_t max, size_t *ret_n);

/** struct hf_qmp_virtqueue - how many entries a virtqueue has. */
struct hf_qmp_virtqueue {
	uint64_t num;	      /* now: the guest's driver may have made it smaller */
	uint64_t num_default; /* after the device's next reset */
};

/** hf_qmp_query_virtqueue() - x-query-virtio-queue-status of one queue. From QEMU 7.2 on. */
int hf_qmp_query_virtqueue(struct hf_qmp *q, const char *path, unsigned int queue,
	uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_virtqueue(struct json_object *ret, struct hf_qmp_virtqueue *ret_queue);

/** struct hf_qmp_memdev - a memory backend object. */
struct hf_qmp_memdev {
	char id[256]; /* "" when it has none */
	uint64_t size_bytes;
	bool share;
	bool merge;
	bool dump;
	bool prealloc;
};

/** hf_qmp_query_memdev() - All memory backend objects. */
int hf_qmp_query_memdev(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_memdevs(
	struct json_object *ret, struct hf_qmp_memdev *devs, size_t max, size_t *ret_n);

/** hf_qmp_query_balloon() - A guest without a balloon answers DeviceNotActive: -ENODEV. */
int hf_qmp_query_balloon(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_balloon(struct json_object *ret, uint64_t *ret_actual_bytes);

/** struct hf_qmp_chardev - a character device. */
struct hf_qmp_chardev {
	char label[128];
	char filename[512]; /* for people: cut when longer */
	bool frontend_open;
};

/** hf_qmp_query_chardev() - All character devices. */
int hf_qmp_query_chardev(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_chardevs(
	struct json_object *ret, struct hf_qmp_chardev *devs, size_t max, size_t *ret_n);

/** struct hf_qmp_block - a disk, and what is in it. */
struct hf_qmp_block {
	char device[128]; /* of -drive; "" for one of -blockdev */
	char qdev[256];	  /* the device's id or path in QOM, or "" */
	bool inserted;	  /* the next three are meant */
	bool writeback;
	bool direct;   /* past the host's page cache */
	bool no_flush; /* the guest's flushes are ignored */
};

/** hf_qmp_query_block() - All disks. 7.2, 10.0 and 11.1 answer alike. */
int hf_qmp_query_block(
	struct hf_qmp *q, uint64_t timeout_ns, hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
int hf_qmp_parse_blocks(
	struct json_object *ret, struct hf_qmp_block *blocks, size_t max, size_t *ret_n);

/** hf_qmp_qom_get() - A property of a QOM object; @ret of the callback is its bare value. */
int hf_qmp_qom_get(struct hf_qmp *q, const char *path, const char *property, uint64_t timeout_ns,
	hf_qmp_reply_fn fn, void *data, uint64_t *ret_id);
/** hf_qmp_parse_number() - A bare number, such as a property's. Return: 0 or -EBADMSG. */
int hf_qmp_parse_number(struct json_object *ret, uint64_t *ret_number);
/** hf_qmp_parse_bool() - A bare truth value. Return: 0 or -EBADMSG. */
int hf_qmp_parse_bool(struct json_object *ret, bool *ret_value);
/** hf_qmp_qom_list() - Properties of a QOM object: an array of {name, type}. */
int hf_qmp_qom_list(struct hf_qmp *q, const char *path, uint64_t timeout_ns, hf_qmp_reply_fn fn,
	void *data, uint64_t *ret_id);
