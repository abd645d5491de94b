/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: QEMU's command line, as far as guest RAM, identity and inherited files go.
 *
 * A pure parser and builder: argv in, a plan out, argv out of the plan. It decides whether the
 * guest's RAM can be put on memfds that outlive QEMU, and writes the command line that does so with
 * RAMBlock names unchanged. It opens nothing, and what the plan says depends on argv alone: the
 * same argv gives the same RAM blocks in the same order before and after the jump.
 *
 * What travels (struct hf_manifest_guest's argv) is the *user's* argv, never a built one: whoever
 * starts the guest parses it and builds anew, with the fd numbers of that moment.
 *
 * Conservative by design: an option it doesn't know, a number it can't read, RAM in a place it
 * doesn't control, and the guest counts as not preservable, with the reason. Such a guest starts
 * with its argv untouched, or with a monitor added if its RAM could be moved while it runs.
 *
 * Ownership: the plan owns copies of everything; hf_cmdline_free() frees it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

/* What the command line is for. */
enum hf_cmdline_kind {
	HF_CMDLINE_GUEST, /* runs a guest */
	HF_CMDLINE_PROBE, /* asks QEMU something (-help, -machine none, -device help, …) and ends */
};

/* One RAM block to be put on a memfd. */
struct hf_cmdline_ram {
	char *id;      /* QEMU's object id; the RAMBlock has this name before and after */
	uint64_t size; /* bytes, a multiple of 4096: size of the memfd */
	int arg;       /* index in argv of the -object's value, -1: the machine's default RAM */
};

/* One host tap that QEMU opens itself (by name, script or bridge helper). */
struct hf_cmdline_tap {
	char *id;	  /* netdev id, NULL when the command line gives none */
	char *ifname;	  /* NULL: QEMU or the kernel chooses */
	char *script;	  /* as given; NULL: QEMU's default; "no": none */
	char *downscript; /* likewise */
	char *bridge;	  /* br=, NULL when not given */
	char *helper;	  /* helper=, NULL when not given */
	bool helper_used; /* the tap comes from the bridge helper: -netdev bridge, or helper= */
	uint32_t queues;  /* 1 or more */
};

/* One descriptor that libvirt starts QEMU with. */
struct hf_cmdline_fd {
	int fd;
	enum hf_manifest_fd_kind kind;
	char *id;  /* of the chardev or netdev that it belongs to; of a file: libvirt's opaque */
	int set;   /* of a file: number of its set, by which a chardev names it */
	bool used; /* of a file: a chardev that is understood does */
};

struct hf_cmdline {
	enum hf_cmdline_kind kind;
	bool libvirt; /* libvirt wrote it: see hf_cmdline_parse_libvirt() */
	char **argv;  /* copy of the user's, NULL at the end */
	size_t n_argv;

	char *name;    /* guest name of -name, or NULL */
	char *uuid;    /* -uuid as given, or NULL */
	char *machine; /* machine type as given (maybe an alias), or NULL for QEMU's default */
	uint64_t memory_bytes; /* -m, 128 MiB when absent; not counting maxmem */
	bool paused;	       /* -S; not libvirt's, which is on all its command lines */
	bool kvm;	       /* asks for KVM */
	bool daemonize;	       /* -daemonize */
	bool stdio;	       /* a console or monitor is on QEMU's standard streams */
	bool mem_lock;	       /* guest RAM is locked */
	bool prealloc;	       /* -mem-prealloc, or prealloc=on of any block */

	/* Why the RAM can't be preserved, and what the user can do about it. "" and "": it can. */
	char reason[512];
	char remedy[256];

	struct hf_cmdline_ram *ram; /* what goes on memfds; complete only when reason is "" */
	size_t n_ram;
	struct hf_cmdline_tap *taps;
	size_t n_taps;
	struct hf_cmdline_fd *fds; /* libvirt's only */
	size_t n_fds;
	char **sockets; /* paths that its chardevs connect to: somebody has to listen there */
	size_t n_sockets;

	/* For hf_cmdline_build() only. */
	bool default_ram;     /* one of ram[] is the machine's default RAM */
	bool default_monitor; /* QEMU would make a monitor of its own accord */
	bool default_serial;  /* likewise a serial port */
	bool nographic;
};

/** struct hf_cmdline_how - what the built command line is to contain. */
struct hf_cmdline_how {
	const int *ram_fds;   /* one per ram[]: fd numbers in the process that becomes QEMU */
	const int *tap_fds;   /* likewise per taps[], which all have names; NULL: QEMU opens them */
	const char *qmp_path; /* holdfast's monitor socket, NULL: none */
	bool respawn;	   /* on preserved RAM: add -incoming defer and -S, preallocate nothing */
	bool monitor_only; /* RAM stays as the user has it */
	const char *
		machine_type; /* resolved versioned type for a respawn, NULL: as the user gave it */
};

/**
 * hf_cmdline_parse() - Understand a QEMU command line.
 * @argv: strings, argv[0] is the program
 * @n:    how many
 * @ret:  the plan
 * @e:    filled on failure, may be NULL
 *
 * A guest that can't be preserved is no failure: see the plan's reason. Return: 0; -EINVAL when
 * there is no program; -EFBIG over the limits of a manifest; -ENOMEM.
 */
int hf_cmdline_parse(
	const char *const *argv, size_t n, struct hf_cmdline **ret, struct hf_error *e);

/**
 * hf_cmdline_parse_libvirt() - The same of a command line that libvirt wrote.
 *
 * RAM may be in shared files here, because their owner, libvirt, makes a folder of its own for each
 * domain and forgets them with it, or on memfds, which are QEMU's own; private RAM may not;
 * descriptors may have been handed over, where it is known what they are; and a TPM may be emulated
 * by another process.
 */
int hf_cmdline_parse_libvirt(
	const char *const *argv, size_t n, struct hf_cmdline **ret, struct hf_error *e);

/** hf_cmdline_of_guest() - One or the other, by who manages the guest. */
int hf_cmdline_of_guest(
	const struct hf_manifest_guest *guest, struct hf_cmdline **ret, struct hf_error *e);

/** hf_guest_is_libvirt() - Is libvirt its manager? */
bool hf_guest_is_libvirt(const struct hf_manifest_guest *guest);

/**
 * hf_cmdline_build() - Write the command line that puts the RAM on memfds.
 * @plan:     of hf_cmdline_parse(), a guest; its reason isn't looked at
 * @how:      fds and additions
 * @ret_argv: strings and a NULL, in one allocation: free() it
 * @ret_n:    number of strings, may be NULL
 *
 * Every argument of the user stays as it is and where it is, but: the values of -object options
 * that define RAM, of -netdev options that are taps with tap_fds, and for a respawn -loadvm and
 * -incoming. Additions come at the end.
 * Return: 0; -EINVAL when an option can't be rewritten; -ENOMEM.
 */
int hf_cmdline_build(const struct hf_cmdline *plan, const struct hf_cmdline_how *how,
	char ***ret_argv, size_t *ret_n, struct hf_error *e);

/**
 * hf_cmdline_adopt() - The command line of the same guest with RAM that can be on memfds.
 * @argv:     a command line whose RAM is in private files or on hugetlb pages
 * @ret_argv: strings and a NULL, in one allocation: free() it
 * @ret_n:    number of strings
 *
 * RAMBlocks have the same names and sizes, so that the guest's migration stream loads; what is left
 * out is where its RAM was. hf_cmdline_parse() finds nothing to object to in what comes out, so
 * that it is fit for a registration. Return: 0; -EALREADY when the RAM can be preserved as it is;
 * -EOPNOTSUPP when something else is in the way, with the reason; -errno.
 */
int hf_cmdline_adopt(
	const char *const *argv, size_t n, char ***ret_argv, size_t *ret_n, struct hf_error *e);

/** hf_cmdline_free() - Free a plan. NULL is fine. */
void hf_cmdline_free(struct hf_cmdline *plan);

static inline void hf_cleanup_cmdline_freep(struct hf_cmdline **p)
{
	hf_cmdline_free(*p);
}
#define cleanup_cmdline HF_CLEANUP(hf_cleanup_cmdline_freep)
