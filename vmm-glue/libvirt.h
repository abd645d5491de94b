/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Guests that libvirt manages.
 *
 * libvirt may lose its daemon at any time: QEMUs run on, and the next daemon finds them by the
 * *status file* of each, /run/libvirt/qemu/NAME.xml, which has all that is known of the running
 * domain. That is the door by which a domain goes over a live update. On the way out the agent
 * talks to QEMU through libvirt, and takes a copy of the status file; on the way in it starts
 * QEMU as libvirt did and puts the status file back, before libvirt's daemon is started: that finds
 * its domains running, as after a restart of its own.
 *
 * Everything that goes through libvirt's API is done by the program `holdfast-libvirt`, a process
 * per question: its calls block, a daemon that hangs would take a caller with it, and the agent has
 * no time to load libvirt's libraries in a blackout.
 *
 * A domain is registered like any other guest, with the manager "libvirt": hf_libvirt_refresh()
 * writes its registration and removes those of domains that have ended.
 *
 * While a domain's memory is on its way, a *guard* stands where libvirt would look for a saved
 * image of it. libvirt can't read it, says so, and doesn't start the domain: neither autostart nor
 * somebody with virsh can boot it afresh beside its own memory.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

#define HF_LIBVIRT_RUN_DIR "/run/libvirt/qemu"
#define HF_LIBVIRT_SAVE_DIR "/var/lib/libvirt/qemu/save"
#define HF_LIBVIRT_CONFIG_DIR "/etc/libvirt/qemu"
#define HF_LIBVIRT_LOG_DIR "/var/log/libvirt/qemu"

/** hf_libexec_dir() - Where holdfast's own programs are: $HOLDFAST_LIBEXEC_DIR or as installed. */
const char *hf_libexec_dir(void);

struct hf_libvirt_call;

/** Called once, from the loop. @error NULL: it went well. */
typedef void (*hf_libvirt_done_fn)(const struct hf_error *error, void *data);

/**
 * hf_libvirt_refresh() - Have every domain that runs registered, and no other.
 *
 * Where there is no libvirt that is done at once, from the loop all the same. Fails when domains
 * run and libvirt doesn't answer (-ENOTCONN, -ETIMEDOUT): nobody knows then what they are.
 * Return: 0 when @done will be called, unless hf_libvirt_call_free() is before; -errno.
 */
int hf_libvirt_refresh(sd_event *event, uint64_t timeout_ns, hf_libvirt_done_fn done, void *data,
	struct hf_libvirt_call **ret);

/**
 * hf_libvirt_daemon() - Have libvirt's daemon stopped, or started again.
 *
 * Runs `libvirt-daemon` of the libexec folder, or $HOLDFAST_LIBVIRT_DAEMON, with `stop` or `start`.
 * QEMUs are not touched by either.
 */
int hf_libvirt_daemon(sd_event *event, bool start, uint64_t timeout_ns, hf_libvirt_done_fn done,
	void *data, struct hf_libvirt_call **ret);

/**
 * hf_libvirt_put_away() - Have libvirt save a domain into its own image, or start it from there.
 * @save: save it; else start it, after a save that is still under way was stopped
 *
 * A save that takes too long goes on in libvirt's daemon. Starting a domain that runs is no error,
 * and none is booted afresh: see hf_libvirt_call_is_gone().
 */
int hf_libvirt_put_away(sd_event *event, const char *uuid, bool save, uint64_t timeout_ns,
	hf_libvirt_done_fn done, void *data, struct hf_libvirt_call **ret);

/** hf_libvirt_call_is_gone() - Was there no image to start it from, or no such domain? In @done. */
bool hf_libvirt_call_is_gone(const struct hf_libvirt_call *call);

/** hf_libvirt_call_ran() - Was it found running, and not started from an image? In @done. */
bool hf_libvirt_call_ran(const struct hf_libvirt_call *call);

/**
 * hf_libvirt_may_save() - Can libvirt put a domain into an image of its own, and is it there later?
 * @jump: there will be another kernel then, and nothing that is in memory
 *
 * Return: 0 as far as files tell; or -errno with the reason.
 */
int hf_libvirt_may_save(const struct hf_manifest_guest *guest, bool jump, struct hf_error *error);

/** hf_libvirt_call_free() - End a call; its callback is not called any more. NULL is fine. */
struct hf_libvirt_call *hf_libvirt_call_free(struct hf_libvirt_call *call);

/** hf_libvirt_has_daemon() - Does anybody listen on one of its sockets? */
bool hf_libvirt_has_daemon(void);

/** hf_libvirt_pid() - The QEMU that libvirt has a domain run in, by its pid file; 0: none. */
pid_t hf_libvirt_pid(const struct hf_manifest_guest *guest);

/** hf_libvirt_has_domains() - Does a QEMU of libvirt's run? By its pid files. */
bool hf_libvirt_has_domains(void);

/**
 * hf_libvirt_check_known() - Is every QEMU of libvirt's one of these guests'?
 *
 * Only looks at files: it is the last look before a jump. Return: 0; -ESTALE with the domain's
 * name.
 */
int hf_libvirt_check_known(
	struct hf_manifest_guest *const *guests, size_t n, struct hf_error *error);

/**
 * hf_libvirt_open_monitor() - A QMP connection to a domain's QEMU, through libvirt.
 * @ret_fd: one end of a socket, the caller's; it is closed at the other end when that fails
 *
 * No events come over it. Return: 0 or -errno.
 */
int hf_libvirt_open_monitor(sd_event *event, const char *uuid, int *ret_fd, struct hf_error *error);

/**
 * hf_libvirt_check_memfds() - Can this QEMU leave RAM out of the device state that is on memfds?
 *
 * guest->qemu_version is that of the process. Return: 0; -EOPNOTSUPP it can't; -errno.
 */
int hf_libvirt_check_memfds(
	const struct hf_manifest_guest *guest, pid_t pid, struct hf_error *error);

/** hf_libvirt_read_status() - Take a copy of a domain's status file. Return: 0 or -errno. */
int hf_libvirt_read_status(struct hf_manifest_guest *guest, struct hf_error *error);

/** struct hf_libvirt_pty - a terminal that the new QEMU made. */
struct hf_libvirt_pty {
	char alias[64]; /* of the device: "serial0" */
	char path[64];
};

/**
 * hf_libvirt_patch_status() - The status file of the same domain in another process: pure.
 *
 * The pid and the paths of terminals are other ones, and there is no mount namespace of the
 * domain's own. Return: 0, *ret_xml is the caller's; -EBADMSG when that is no status file; -ENOMEM.
 */
int hf_libvirt_patch_status(const char *xml, pid_t pid, const struct hf_libvirt_pty *ptys,
	size_t n_ptys, char **ret_xml);

/**
 * hf_libvirt_console_path() - The file that a device of a domain writes to: pure.
 * @xml:    libvirt's status file
 * @opaque: libvirt's name for what it handed over: ALIAS-source or ALIAS-log
 *
 * Return: 0; -ENOENT no such device, or it has no such file; -EBADMSG that is no status file, or a
 * path that can't be read; -ENAMETOOLONG.
 */
int hf_libvirt_console_path(const char *xml, const char *opaque, char *ret, size_t size);

/** hf_libvirt_log_path() - Where libvirt has a domain's log. Return: 0 or -errno. */
int hf_libvirt_log_path(const struct hf_manifest_guest *guest, char *ret, size_t size);

/** hf_libvirt_publish() - Write a guest's status and pid files for libvirt. Return: 0 or -errno. */
int hf_libvirt_publish(const struct hf_manifest_guest *guest, pid_t pid,
	const struct hf_libvirt_pty *ptys, size_t n_ptys, struct hf_error *error);

/**
 * hf_libvirt_withdraw() - Take a guest's status and pid files away, while its daemon is.
 *
 * After its old QEMU has ended. A daemon that found them would clear away what the new one needs.
 */
void hf_libvirt_withdraw(const struct hf_manifest_guest *guest);

/**
 * hf_libvirt_guard() - Keep libvirt from starting a domain afresh.
 *
 * Synced to disk. Return: 0; -EEXIST it has a saved image of its own; -errno.
 */
int hf_libvirt_guard(const struct hf_manifest_guest *guest, struct hf_error *error);

/** hf_libvirt_unguard() - Let it again. Removes nothing but a guard. Return: 0 or -errno. */
int hf_libvirt_unguard(const struct hf_manifest_guest *guest);

/** hf_libvirt_unguard_all() - Remove every guard there is: no guest is on its way. */
void hf_libvirt_unguard_all(void);

/**
 * hf_libvirt_release_ram() - Take the names of a guest's RAM files away: QEMU keeps them open.
 * @ram_fds: the files, one per guest->ram[]
 */
int hf_libvirt_release_ram(
	const struct hf_manifest_guest *guest, const int *ram_fds, struct hf_error *error);
