/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The manifest: what this agent tells its next self.
 *
 * Written by the old agent, read by the new one, which may be a newer or an older build. On the
 * wire it is a 64-byte header and a flattened device tree; docs/FORMATS.md has it byte by byte, and
 * tests/golden/ one of every version that was released.
 *
 * Evolution: new properties and nodes are added freely, older readers ignore what they don't know.
 * What an older reader must not ignore has a name that begins with HF_MANIFEST_REQUIRED; a reader
 * that doesn't know it refuses the manifest (-EPROTONOSUPPORT). `min-reader-version` refuses
 * altogether.
 *
 * Ownership: the manifest owns every string, array and guest in it; all of them come from malloc
 * and may be replaced with hf_manifest_set(). hf_manifest_free() frees everything. No fds in here.
 * Encoding and decoding do no I/O and keep nothing of the buffers they are given.
 *
 * Units: TSC readings are raw ticks of the host's counter, 0 when not taken; sizes are bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "memfd-preserve/policy.h"

/* What this build writes, and the oldest reader that can act on it. */
#define HF_MANIFEST_VERSION 8
#define HF_MANIFEST_MIN_READER 1
/* A property or node with this prefix is refused by readers that don't know it. */
#define HF_MANIFEST_REQUIRED "required,"

#define HF_MANIFEST_HEADER_BYTES 64
#define HF_MANIFEST_MAX_BYTES (64u << 20)

/* Limits, the same when writing and reading. */
#define HF_MANIFEST_MAX_GUESTS 4096
#define HF_MANIFEST_MAX_STRINGS 4096	    /* in one argv or environment */
#define HF_MANIFEST_MAX_STRING (128u << 10) /* bytes of one of them, and of any other string */
#define HF_MANIFEST_MAX_GROUPS 65536
#define HF_MANIFEST_MAX_SETTINGS 64 /* KEY=VALUE of the launcher */
#define HF_MANIFEST_MAX_RAM 64
#define HF_MANIFEST_MAX_CHUNKS 64
#define HF_MANIFEST_MAX_NETS 64
#define HF_MANIFEST_MAX_FDS 512
#define HF_MANIFEST_MAX_FOLDERS 64
#define HF_MANIFEST_MAX_HELPERS 16
#define HF_MANIFEST_MAX_DISKS 64
#define HF_MANIFEST_MAX_FILES 16384
#define HF_MANIFEST_MAX_RLIMITS 64 /* numbers, two a limit */
#define HF_MANIFEST_MAX_CPUS 128   /* words of 64 CPUs */

/* A nice value or OOM score that isn't known. */
#define HF_MANIFEST_UNKNOWN INT32_MIN

#define HF_UUID_CHARS 37 /* 8-4-4-4-12 and the NUL */

/* One of the VMM's standard streams. */
enum hf_manifest_stdio_kind {
	HF_STDIO_NONE, /* closed */
	HF_STDIO_NULL, /* /dev/null, also for what can't be opened again (pipe, socket, terminal) */
	HF_STDIO_PATH, /* a file that is opened again by path */
};

struct hf_manifest_stdio {
	uint32_t kind;	     /* enum hf_manifest_stdio_kind */
	uint32_t open_flags; /* for HF_STDIO_PATH: of open(2), without O_CREAT, O_EXCL, O_TRUNC */
	char *path;	     /* for HF_STDIO_PATH, else NULL */
};

/* One RAM block on a preserved memfd. */
struct hf_manifest_ram {
	char *id;	/* QEMU's object id, which names the RAMBlock */
	uint64_t token; /* in the guest's session */
	uint64_t size;
	int32_t fd; /* number that argv refers to: the file must be there when the VMM starts */
};

/* One preserved memfd of device state. Filled in order, each to its capacity but the last. */
struct hf_manifest_chunk {
	uint64_t token;
	uint64_t length;   /* bytes of the stream in it */
	uint64_t capacity; /* size of the memfd */
};

/* One tap the VMM had open, made anew before it starts. */
struct hf_manifest_net {
	char *id; /* netdev id on the command line */
	char *ifname;
	char *bridge; /* or NULL */
	char *mac;    /* of the tap itself, "aa:bb:cc:dd:ee:ff", or NULL */
	uint32_t mtu;
	uint32_t queues;
	uint32_t flags; /* IFF_* of TUNSETIFF */
	int32_t fd;	/* number that argv refers to, -1 when the VMM opens it by name */
};

/* What one descriptor is that the VMM is started with, besides its RAM. */
enum hf_manifest_fd_kind {
	HF_FD_LISTEN, /* a UNIX socket that listens at `path` */
	HF_FD_TAP,    /* a queue of the tap called `path` */
	HF_FD_VHOST,  /* /dev/vhost-net */
	HF_FD_FILE,   /* the file `path`, to write at its end */
	HF_FD_N_,
};

struct hf_manifest_fd {
	int32_t fd;    /* number that argv refers to */
	uint32_t kind; /* enum hf_manifest_fd_kind */
	char *path;
	uint32_t mode; /* of a socket or file, as are its owners */
	uint32_t uid;
	uint32_t gid;
};

/* A folder that the VMM's files are in, where folders are lost with the kernel. */
struct hf_manifest_folder {
	char *path;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
};

/* A file that the VMM had open to read and write: what the guest's memory goes with. */
struct hf_manifest_disk {
	char *path;
	uint64_t size;	   /* bytes, when the guest was saved */
	uint64_t mtime_ns; /* of its last change then, since 1970; 0: not known */
};

/* A process that has to run before the VMM, which connects to it: swtpm. */
struct hf_manifest_helper {
	char **argv;
	size_t n_argv;
	uint32_t uid;
	uint32_t gid;
	uint32_t *groups;
	size_t n_groups;
	char *socket; /* where it listens, and what that is to be like */
	uint32_t socket_mode;
	uint32_t socket_uid;
	uint32_t socket_gid;
	char *apparmor; /* as the guest's */
};

/* What the VMM's process may use, and how the kernel treats it. */
struct hf_manifest_limits {
	uint64_t *rlimits;     /* soft and hard of RLIMIT_* 0, 1, 2 …; UINT64_MAX: no limit */
	size_t n_rlimits;      /* numbers in it; 0: not known */
	uint64_t *cpus;	       /* mask of the CPUs it may use, CPU 0 the lowest bit of the first */
	size_t n_cpus;	       /* words in it; 0: not known */
	int32_t nice;	       /* or HF_MANIFEST_UNKNOWN */
	int32_t oom_score_adj; /* or HF_MANIFEST_UNKNOWN */
};

struct hf_manifest_guest {
	char uuid[HF_UUID_CHARS];
	char *name;
	char *manager;		   /* "qemu" or "libvirt" */
	char *policy;		   /* what to do when it can't be preserved: "refuse", … */
	struct hf_policy policies; /* in effect: of files, launcher and defaults together */
	char **settings;	   /* n_settings strings KEY=VALUE of its launcher, and a NULL */
	size_t n_settings;
	char *session; /* the carrier session that holds its files */
	char *status;  /* QMP run state before the pause: "running", "paused", … */
	bool was_running;
	bool agent_answered; /* its guest agent did, when the update was prepared */

	/* How to start the VMM again. */
	char *vmm;   /* the binary as it was given: found anew, so that a newer one is used */
	char **argv; /* n_argv strings and a NULL */
	size_t n_argv;
	char **env; /* n_env strings NAME=value and a NULL */
	size_t n_env;
	char *cwd;
	uint32_t uid;
	uint32_t gid;
	uint32_t *groups;
	size_t n_groups;
	uint32_t umask;
	struct hf_manifest_limits limits;
	struct hf_manifest_stdio stdio[3];
	char *qmp_path; /* holdfast's own monitor socket */
	char *machine;	/* versioned machine type that QEMU resolved the user's to, or NULL */
	uint32_t qemu_version[3];

	struct hf_manifest_ram *ram;
	size_t n_ram;
	struct hf_manifest_chunk *state;
	size_t n_state;
	uint64_t state_length; /* sum of the chunks' lengths */
	uint64_t state_xxh3;   /* XXH3-64 of the whole stream */
	char *not_saved;       /* why it has no device state and is started afresh, or NULL */
	/* The state is what remains of a migration with RAM: loaded without x-ignore-shared. */
	bool ram_copied;
	/* The QEMU that its RAM was copied from, which has to be gone before another runs. 0: none.
	 */
	uint32_t adopted_pid;
	uint64_t adopted_start_ticks; /* start time: field 22 of /proc/PID/stat */
	struct hf_manifest_net *net;
	size_t n_net;
	/* What is below has to be there before its VMM starts. */
	bool inherits;
	struct hf_manifest_fd *fds;
	size_t n_fds;
	struct hf_manifest_folder *folders;
	size_t n_folders;
	struct hf_manifest_helper *helpers;
	size_t n_helpers;
	struct hf_manifest_disk *disks;
	size_t n_disks;
	char *apparmor;	      /* profile of AppArmor's that its VMM is confined by, or NULL */
	char *libvirt_status; /* of a domain: libvirt's own description of it as it runs, or NULL */

	uint64_t tsc_pause;   /* pause asked for */
	uint64_t tsc_paused;  /* vCPUs stopped */
	uint64_t tsc_saved;   /* device state complete */
	uint64_t preserve_ns; /* time spent preserving RAM */
};

/* A file worth having in the page cache when the VMMs start. */
struct hf_manifest_file {
	char *path;
	uint64_t size;
};

struct hf_manifest {
	/* Set by decode; encode writes HF_MANIFEST_VERSION and HF_MANIFEST_MIN_READER. */
	uint32_t version;
	uint32_t min_reader_version;

	char update_id[HF_UUID_CHARS];
	char boot_id[HF_UUID_CHARS]; /* of the old kernel */
	char *writer;		     /* "holdfast 0.1.0" */
	char *carrier;		     /* "luo", "hold" */
	char *from_kernel;	     /* uname -r of the old kernel */
	char *target_kernel;	     /* path of the image jumped into */
	char *target_initrd;	     /* or NULL */
	char *target_cmdline;	     /* or NULL */
	uint64_t tsc_hz;
	uint64_t tsc_prepare;
	uint64_t tsc_prepared;
	uint64_t tsc_commit;
	uint64_t tsc_jump;
	/* The wall clock at one instant late in the freeze; all 0 where it isn't to be carried. */
	uint64_t clock_tsc;
	uint64_t clock_ns;    /* CLOCK_REALTIME, since the epoch */
	uint64_t clock_width; /* ticks between which the clock was read */

	struct hf_manifest_file *readahead;
	size_t n_readahead;
	struct hf_manifest_guest **guests; /* pointers, so that a guest stays where it is */
	size_t n_guests;
};

/** hf_manifest_new() - An empty manifest. Return: 0 or -ENOMEM. */
int hf_manifest_new(struct hf_manifest **ret_manifest);

/** hf_manifest_free() - Free a manifest and all in it. NULL is fine. */
void hf_manifest_free(struct hf_manifest *m);

/**
 * hf_manifest_add_guest() - Append an empty guest.
 * @ret_guest: owned by the manifest; stays at its place
 *
 * Its numbers are 0 or HF_MANIFEST_UNKNOWN, its policies the defaults, its stdio HF_STDIO_NONE.
 * Return: 0, -ENOMEM, -EFBIG too many.
 */
int hf_manifest_add_guest(struct hf_manifest *m, struct hf_manifest_guest **ret_guest);

/** hf_manifest_remove_guest() - Take a guest out and free it, if it is in there. */
void hf_manifest_remove_guest(struct hf_manifest *m, struct hf_manifest_guest *guest);

/** hf_manifest_clear_guest() - Free what a guest owns and zero it: one that is in no manifest. */
void hf_manifest_clear_guest(struct hf_manifest_guest *guest);

/** hf_manifest_find_guest() - Guest by UUID or else by name. Return: it, or NULL. */
struct hf_manifest_guest *hf_manifest_find_guest(const struct hf_manifest *m, const char *id);

/** hf_manifest_set() - Replace a string by a copy of @value (NULL: none). Return: 0 or -ENOMEM. */
int hf_manifest_set(char **field, const char *value);

/**
 * hf_manifest_set_strings() - Replace argv or env by copies.
 * @values: @n strings, no NULL needed after them
 *
 * Return: 0, -ENOMEM, -EFBIG more than HF_MANIFEST_MAX_STRINGS.
 */
int hf_manifest_set_strings(char ***field, size_t *ret_n, const char *const *values, size_t n);

/**
 * hf_manifest_add_ram() - Append one zeroed entry to a list of the guest's (net: with fd -1).
 *
 * Return: the entry, valid until the next append, or NULL without memory.
 */
struct hf_manifest_ram *hf_manifest_add_ram(struct hf_manifest_guest *g);
struct hf_manifest_chunk *hf_manifest_add_chunk(struct hf_manifest_guest *g);
struct hf_manifest_net *hf_manifest_add_net(struct hf_manifest_guest *g);
struct hf_manifest_fd *hf_manifest_add_fd(struct hf_manifest_guest *g);
struct hf_manifest_folder *hf_manifest_add_folder(struct hf_manifest_guest *g);
struct hf_manifest_helper *hf_manifest_add_helper(struct hf_manifest_guest *g);
struct hf_manifest_disk *hf_manifest_add_disk(struct hf_manifest_guest *g);

/** hf_manifest_forget_disks() - Drop that list. */
void hf_manifest_forget_disks(struct hf_manifest_guest *g);

/** hf_manifest_forget_inherited() - Drop the three lists, inherits, and apparmor. */
void hf_manifest_forget_inherited(struct hf_manifest_guest *g);

/** hf_manifest_add_file() - The same for the files to read ahead, which are the whole host's. */
struct hf_manifest_file *hf_manifest_add_file(struct hf_manifest *m);

/**
 * hf_manifest_encode() - Write the wire form.
 * @m:        manifest; refused when it breaks a limit, so that no reader ever has to
 * @buf:      destination, aligned to 8 bytes (as from malloc or mmap)
 * @capacity: its size: what was preserved at prepare
 * @ret_size: bytes used; what lies behind them doesn't matter to readers
 *
 * Allocates nothing that grows with the guests: it runs in the blackout.
 * Return: 0; -EFBIG doesn't fit (the sentence counts the guests); -EINVAL a field that can't be
 * written, named in the sentence.
 */
int hf_manifest_encode(const struct hf_manifest *m, void *buf, size_t capacity, size_t *ret_size,
	struct hf_error *e);

/**
 * hf_manifest_decode() - Read the wire form.
 * @data: the whole memfd; bytes behind the manifest are ignored
 * @size: its size
 * @ret_manifest: freed with hf_manifest_free()
 *
 * Trusts nothing. Return: 0; -EBADMSG cut, corrupt or not a manifest; -EPROTONOSUPPORT written by a
 * newer holdfast that says older ones can't act on it; -ENOMEM.
 */
int hf_manifest_decode(
	const void *data, size_t size, struct hf_manifest **ret_manifest, struct hf_error *e);

struct json_object;

/**
 * hf_manifest_to_json() - For people: `holdfast inspect manifest`.
 *
 * Return: a new object that the caller puts, or NULL without memory.
 */
struct json_object *hf_manifest_to_json(const struct hf_manifest *m);
