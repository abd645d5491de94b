/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the QEMU that is installed now says of itself.
 *
 * After the jump a guest is started by the program that its name leads to by then, which need not
 * be the one it runs in: packages are upgraded under running guests. So that one is asked, before
 * anything is touched: its version, the machine types it has, the folders it looks for firmware in.
 *
 * It is run as it will be then: by the guest's user, in the guest's folder and environment, with a
 * time-out and a limit on what it may say. What it said is kept until the file is another one
 * (device, inode, time of its change); of a script that tells nothing, so one is asked every time.
 * Several guests of one user that ask at the same time get the same answer.
 *
 * One struct hf_installed serves all guests; everything happens on the loop's thread.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"
#include "qmp/qmp.h"

/** struct hf_installed_vmm - its answer. */
struct hf_installed_vmm {
	/*
	 * Why there is none. err is -ENOEXEC when it can't be executed, or ends with a failure, so
	 * that a respawn would too; anything else leaves open what it is.
	 */
	struct hf_error error;
	struct hf_qmp_version version;
	char **machines;  /* types, in full and aliases; NULL-terminated; NULL when it didn't say */
	char **data_dirs; /* absolute, in the order it looks; likewise */
};

struct hf_installed;

/** hf_installed_new() - Nothing known yet. */
int hf_installed_new(sd_event *event, struct hf_installed **ret);

/** hf_installed_free() - Questions under way are dropped, without their callbacks. NULL is fine. */
struct hf_installed *hf_installed_free(struct hf_installed *in);

/** Called once, on the loop, when hf_installed_get() has the answer. */
typedef void (*hf_installed_done_fn)(void *data);

/**
 * hf_installed_ask() - Make sure that the program a guest would be started with is known.
 * @guest:      borrowed for the call
 * @timeout_ns: for the program to answer
 *
 * Return: 1 when it is known already and @done won't be called; 0 when @done will be; -errno. A
 * program that can't be run, or makes no sense, is known as that.
 */
int hf_installed_ask(struct hf_installed *in, const struct hf_manifest_guest *guest,
	uint64_t timeout_ns, hf_installed_done_fn done, void *data);

/**
 * hf_installed_get() - What was learned last of the program of a guest.
 *
 * Return: borrowed until the next hf_installed_ask(); NULL when it was never asked.
 */
const struct hf_installed_vmm *hf_installed_get(
	const struct hf_installed *in, const struct hf_manifest_guest *guest);

/** hf_installed_parse_version() - Of `--version`: pure. Return: 0, -EBADMSG. */
int hf_installed_parse_version(const char *text, size_t size, struct hf_qmp_version *ret);

/**
 * hf_installed_parse_machines() - The types in `-machine help`: pure.
 * @ret: NULL-terminated, in one allocation: free() it
 *
 * Return: 0, -EBADMSG when there are none, -ENOMEM.
 */
int hf_installed_parse_machines(const char *text, size_t size, char ***ret);

/** hf_installed_parse_dirs() - The folders in `-L help`: pure. As hf_installed_parse_machines(). */
int hf_installed_parse_dirs(const char *text, size_t size, char ***ret);
