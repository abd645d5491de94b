/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The files that make a host ready for libvirt's domains, and what is read for them. Pure:
 * text in, text out. Texts returned are the caller's to free.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* The first line of each file: what begins with it is holdfast's to write anew. */
#define HF_HOST_FILES_MARK "# Written by `holdfast libvirt setup`, which writes it anew.\n"

/**
 * hf_host_conf_string() - The value of a string in one of libvirt's configuration files.
 * @ret: set to NULL when the key is not there, or only in a comment
 *
 * Return: 0; -EBADMSG when its value is not one string in quotes; -ENOMEM.
 */
int hf_host_conf_string(const char *text, const char *key, char **ret);

/**
 * hf_host_path_is_plain() - Can a folder be named in a unit as it is?
 *
 * That is: absolute, neither the root nor with "..", and of characters that mean nothing to
 * systemd.
 */
bool hf_host_path_is_plain(const char *path);

/** hf_host_unit_name() - "/a/b-c", ".mount" to "a-b\x2dc.mount". Return: NULL for lack of memory.
 */
char *hf_host_unit_name(const char *path, const char *suffix);

/** struct hf_host_mount - the mount that a path is on. */
struct hf_host_mount {
	char type[32];	 /* of its file system; "" when not known */
	bool at_path;	 /* it is mounted right there */
	char point[256]; /* where it is mounted, cut */
};

/** hf_host_mount_of() - Look a path up in the text of /proc/self/mountinfo. */
void hf_host_mount_of(const char *mountinfo, const char *path, struct hf_host_mount *ret);

/** hf_host_size_is_valid() - "90%", "64G", "1048576": what tmpfs takes as a size. */
bool hf_host_size_is_valid(const char *size);

/** hf_host_unit_size() - The size that a mount unit of ours has. Return: NULL when there is none.
 */
char *hf_host_unit_size(const char *unit);

/**
 * struct hf_host_ram - the tmpfs for domains' memory.
 * @dir:  where
 * @size: as hf_host_size_is_valid() has it
 * @huge: whether the kernel has transparent huge pages
 */
struct hf_host_ram {
	const char *dir;
	const char *size;
	uid_t uid;
	gid_t gid;
	bool huge;
};

/** hf_host_mount_unit() - The unit that mounts it. Return: NULL for lack of memory. */
char *hf_host_mount_unit(const struct hf_host_ram *ram);

/**
 * hf_host_daemon_drop_in() - What libvirtd.service and virtqemud.service get.
 * @mount_unit: or NULL when there is none of ours
 */
char *hf_host_daemon_drop_in(const char *mount_unit);

/**
 * hf_host_apparmor_drop_in() - What profiles of QEMUs have to allow besides, for AppArmor.
 *
 * A QEMU that holdfast starts is spoken to over a socket that it is born with, which holdfastd, a
 * process that isn't confined, has the other end of.
 */
char *hf_host_apparmor_drop_in(void);

/**
 * hf_host_exec_stop() - The one command that a unit is stopped with.
 *
 * Return: NULL when there is none, or several, or one that is not plain words.
 */
char *hf_host_exec_stop(const char *unit);

/**
 * hf_host_guests_drop_in() - What libvirt-guests.service gets.
 * @exec_stop: what it is stopped with, or NULL to leave that alone
 * @wrapper:   path of libvirt-guests-stop
 */
char *hf_host_guests_drop_in(const char *exec_stop, const char *wrapper);
