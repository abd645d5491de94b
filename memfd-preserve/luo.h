/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Thin calls to /dev/liveupdate.
 *
 * One function an ioctl, nothing kept between calls. Only memfd-preserve/carrier-luo.c calls the
 * ones that deal in session fds (retrieving, it has the keeper call).
 *
 * Ownership: closing the last reference to a session fd destroys what the session holds. Before the
 * jump that un-preserves its files; after it, it frees every file not yet retrieved, guest RAM
 * included. So session fds have one owner, never a cleanup attribute, and are close-on-exec.
 *
 * The device has a single opener at a time, and others (systemd from 261 on) need it too: it is
 * open here only while one session is created or retrieved. Inside this process such calls wait for
 * each other; for other processes they retry EBUSY with a growing pause up to a deadline.
 *
 * All functions are thread-safe. Preserve and retrieve take as long as the file is large.
 * Facts: Linux 7.2.12 and 7.3.4, kernel/liveupdate/.
 */
#pragma once

#include <stdint.h>

#include "common/error.h"
#include "memfd-preserve/luo-uapi.h"

#define HF_LUO_DEVICE "/dev/liveupdate"

/* How long to wait for another opener of the device. */
#define HF_LUO_OPEN_TIMEOUT_NS (10 * HF_NSEC_PER_SEC)

/**
 * hf_luo_session_create() - Create an outgoing session.
 * @device:     path of the device
 * @name:       1 to 63 bytes
 * @timeout_ns: how long to wait for another opener of the device
 * @ret_fd:     session fd, owned by the caller (see DOC)
 *
 * Return: 0; -EEXIST when an outgoing session has this name; -EBUSY when the device stayed taken;
 * -ENOENT/-ENODEV/-ENXIO without the device; -EACCES/-EPERM without the right; -EIO when the kernel
 * could not read what the kernel before it had left (it stays so until a reboot); other -errno.
 */
int hf_luo_session_create(const char *device, const char *name, uint64_t timeout_ns, int *ret_fd);

/**
 * hf_luo_session_retrieve() - Get hold of a session the previous kernel handed over.
 *
 * Parameters as hf_luo_session_create(). Each session can be retrieved once.
 * Return: 0; -ESRCH when no such session came over (the kernel's ENOENT: told apart here from a
 * device that isn't there); -EALREADY when it was retrieved before; else as
 * hf_luo_session_create().
 */
int hf_luo_session_retrieve(const char *device, const char *name, uint64_t timeout_ns, int *ret_fd);

/**
 * hf_luo_preserve() - Preserve a file in an outgoing session.
 * @session_fd: session
 * @token:      the name of the file in this session, any number
 * @fd:         stays the caller's; the kernel takes a reference of its own
 *
 * Until the session is closed the file can't change its size (EPERM); its contents can.
 * Pages in KHO's scratch memory are moved out of it, and one that can't be moved, often because
 * somebody uses it just now, is ENOMEM to the kernel (migrate_longterm_unpinnable_folios() in
 * mm/gup.c): so that is tried again, up to five times in 0.75 s and what the calls take.
 * Return: 0; -EEXIST token in use; -EBUSY file preserved already; -ENOENT or -EOPNOTSUPP a kind of
 * file the kernel can't preserve; -ENOMEM; -EINVAL not an outgoing session.
 */
int hf_luo_preserve(int session_fd, uint64_t token, int fd);

/**
 * hf_luo_retrieve() - Get a preserved file back.
 * @session_fd: a retrieved session
 * @token:      as given to preserve
 * @ret_fd:     close-on-exec, owned by the caller
 *
 * Asking again for a file that came back gives it again. A failure is final: the kernel keeps the
 * error and doesn't retry. Memory is charged to the caller's cgroup: run without a memory limit.
 * Return: 0; -ENOENT no such token; other -errno.
 */
int hf_luo_retrieve(int session_fd, uint64_t token, int *ret_fd);

/**
 * hf_luo_finish() - Tell the kernel that a retrieved session is done with. Irreversible.
 *
 * Files not retrieved by now are freed. Return: 0; -EBUSY not possible yet, nothing has changed.
 */
int hf_luo_finish(int session_fd);

/**
 * hf_luo_get_name() - Name of the session behind an fd.
 * @name: room for HF_LUO_NAME_BYTES
 *
 * Return: 0; -ENOTTY or -EINVAL when @session_fd isn't a LUO session.
 */
int hf_luo_get_name(int session_fd, char *name);

/**
 * hf_luo_check() - Can this host preserve anything at all?
 * @device:  path of the device
 * @proc:    the /proc folder to read misc and cmdline from
 * @e:       a sentence and a remedy on failure, may be NULL
 *
 * The kernel registers the device only when both KHO and LUO are on, so that its presence answers
 * for both. Taken by another opener for a moment counts as present.
 * Return: 0; -ENODEV the kernel has none (not built in, or not switched on; the remedy says which
 * parameters are missing); -ENOENT the kernel has it but /dev has no node; -EACCES; -EIO.
 */
int hf_luo_check(const char *device, const char *proc, struct hf_error *e);

/** hf_luo_available() - hf_luo_check() of the running host. */
static inline int hf_luo_available(struct hf_error *e)
{
	return hf_luo_check(HF_LUO_DEVICE, "/proc", e);
}
