/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: How a guest started by holdfast-vmm is known to the agent: one file per guest.
 *
 * holdfast-vmm writes /run/holdfast/guests/UUID.json (mode 0600, atomically) before it becomes
 * QEMU, and the agent writes it anew after a respawn. The agent need not run for this. A file is
 * believed only as far as the process it names bears it out: start time, user and groups
 * (registration-trust.h), the RAM files open in it under the numbers given (dev and inode), and
 * that it is the one that listens on the monitor.
 *
 * guest.argv is the user's command line as it was given, not the one QEMU was started with (see
 * cmdline.h); guest.ram[].fd is the number of the RAM file in the running process.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/error.h"
#include "common/fd.h"
#include "memfd-preserve/manifest.h"

#define HF_REGISTRATION_VERSION 2
#define HF_REGISTRATION_MAX_BYTES (16u << 20)
#define HF_GUEST_NAME_MAX 63
#define HF_RUN_DIR_DEFAULT "/run/holdfast" /* $HOLDFAST_RUN_DIR replaces it (tests, nested use) */

/** struct hf_registration - a guest's description and the process it runs in. */
struct hf_registration {
	struct hf_manifest_guest guest;
	pid_t pid;
	uint64_t start_ticks;
	uid_t owner;	  /* of the file that it was read from; not in it */
	char reason[512]; /* why its RAM can't be preserved, "" when it can */
	char remedy[256];
	struct hf_inode ram_inodes[HF_MANIFEST_MAX_RAM]; /* of the RAM files, one per guest.ram[] */
};

/** hf_run_dir() - The runtime folder. Static string. */
const char *hf_run_dir(void);

/**
 * hf_uuid_parse() - Check a UUID and write it in lower case.
 *
 * Return: false when it isn't of the form 8-4-4-4-12.
 */
bool hf_uuid_parse(const char *text, char ret[HF_UUID_CHARS]);

/** hf_guest_name_valid() - Can a guest be called this? 1 to HF_GUEST_NAME_MAX bytes, UTF-8, no
 * control characters, no slash. */
bool hf_guest_name_valid(const char *name);

/** hf_registration_path() - Where a guest's file is. Return: 0 or -ENAMETOOLONG. */
int hf_registration_path(const char *uuid, char *ret, size_t size);

/**
 * hf_registration_write() - Write or replace a guest's file; makes the folders.
 *
 * What crosses otherwise isn't written: tokens, state, nets, time stamps, status.
 * Return: 0; -EBUSY when another process that lives is registered under the UUID; -errno.
 */
int hf_registration_write(const struct hf_registration *reg, struct hf_error *error);

/**
 * hf_registration_read() - Parse one file.
 *
 * The UUID in it must be the one of its name. Return: 0; -ENOENT; -EBADMSG with the file's name
 * when malformed; -EPROTONOSUPPORT written by a newer holdfast; -ELOOP for a symbolic link; -EPERM
 * when it isn't its owner's alone; -errno.
 */
int hf_registration_read(const char *path, struct hf_registration *ret, struct hf_error *error);

/** hf_registration_parse() - The same from memory: pure, fuzzed. */
int hf_registration_parse(
	const char *json, size_t size, struct hf_registration *ret, struct hf_error *error);

/** hf_registration_format() - The contents of the file: pure. @ret_json is the caller's. */
int hf_registration_format(const struct hf_registration *reg, char **ret_json, size_t *ret_size,
	struct hf_error *error);

/** hf_registration_remove() - Forget a guest. One that isn't there is fine. Return: 0 or -errno. */
int hf_registration_remove(const char *uuid);

/** hf_registration_alive() - Is the process still the one that was registered? A zombie isn't. */
bool hf_registration_alive(const struct hf_registration *reg);

/**
 * hf_registration_list() - All guests registered, sorted by name; files of dead processes are
 * removed.
 * @ret:   array, owned by the caller: hf_registration_list_free()
 * @ret_n: its length
 *
 * A malformed file, and one that its process doesn't bear out, is skipped and counted in @ret_bad
 * (may be NULL), never fatal; no folder means no guests.
 */
int hf_registration_list(struct hf_registration **ret, size_t *ret_n, size_t *ret_bad);
void hf_registration_list_free(struct hf_registration *regs, size_t n);

/** hf_registration_clear() - Free what is in it, the guest's fields included. */
void hf_registration_clear(struct hf_registration *reg);
#define cleanup_registration HF_CLEANUP(hf_registration_clear)

/**
 * hf_registration_open_ram() - Get the RAM fds of a running guest, each checked against dev, inode
 * and size.
 * @ret_fds: room for reg->guest.n_ram; all owned by the caller on success, none on failure
 *
 * Return: 0; -ESTALE when the process or one of the files isn't the registered one; -EPERM when a
 * user who isn't trusted registered memory of somebody else's; -errno.
 */
int hf_registration_open_ram(
	const struct hf_registration *reg, int *ret_fds, struct hf_error *error);
