/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What a registration is believed for.
 *
 * From a registration follows which program is started as which user, which monitor is spoken to
 * and whose memory is taken. So its folder is root's alone; and should a file of somebody else ever
 * get there, it can only be about that user's own process, and nothing is done with more rights
 * than that process has.
 *
 * "Trusted" is root, and the user that the agent runs as: who has either can do all this anyway.
 */
#pragma once

#include <sys/stat.h>

#include "vmm-glue/registration.h"

/**
 * hf_registration_check_folder() - Can nobody who isn't trusted put registrations there?
 *
 * Looks at the runtime folder and at the one for guests in it; no folders are fine. Return: 0;
 * -EPERM (NotPermitted) with the folder and a remedy; -errno.
 */
int hf_registration_check_folder(struct hf_error *error);

/**
 * hf_registration_check_file() - Is an open registration one that may be read?
 * @st: of the open file
 *
 * Return: 0; -EPERM when it is no regular file, has other names, or others may write to it.
 */
int hf_registration_check_file(const struct stat *st, struct hf_error *error);

/**
 * hf_registration_check_process() - Does the process that is named bear the file out?
 *
 * Its user, group and supplementary groups, all of /proc/PID/status, must be those that the guest
 * is to be started with again. A file of a user who isn't trusted must be about a process of that
 * user. One that root started, and that gave its rights up by itself (QEMU's -runas), may have
 * fewer than were registered: it will give them up again. Return: 0; -EPERM; -ESRCH; -errno.
 */
int hf_registration_check_process(const struct hf_registration *reg, struct hf_error *error);

/** hf_registration_trusts() - Is it root, or who we are? */
bool hf_registration_trusts(uid_t uid);
