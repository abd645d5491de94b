/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the parts of the command line parser share: the option table, and the parse under way.
 *
 * cmdline-options.c knows which options QEMU has and walks argv the way QEMU does.
 * cmdline.c decides about RAM, cmdline-devices.c about everything else that can't cross,
 * cmdline-build.c writes the new argv.
 */
#pragma once

#include <string.h>

#include "vmm-glue/cmdline-params.h"
#include "vmm-glue/cmdline.h"

static inline bool hf_has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Which part of a command line an option belongs to. */
enum hf_option_kind {
	HF_OPTION_PLAIN, /* of no interest */
	HF_OPTION_ACCEL,
	HF_OPTION_ADD_FD,
	HF_OPTION_CHARDEV,
	HF_OPTION_CHARSTREAM, /* -serial, -parallel, -debugcon */
	HF_OPTION_DAEMONIZE,
	HF_OPTION_DEVICE,
	HF_OPTION_DISPLAY,
	HF_OPTION_DRIVE,
	HF_OPTION_ENABLE_KVM,
	HF_OPTION_FSDEV,
	HF_OPTION_GLOBAL,
	HF_OPTION_INCOMING,
	HF_OPTION_LOADVM,
	HF_OPTION_MACHINE,
	HF_OPTION_MEM_PATH,
	HF_OPTION_MEM_PREALLOC,
	HF_OPTION_MEMORY,
	HF_OPTION_MON,
	HF_OPTION_MONITOR, /* -monitor, -qmp, -qmp-pretty */
	HF_OPTION_NAME,
	HF_OPTION_NET, /* -net, -nic */
	HF_OPTION_NETDEV,
	HF_OPTION_NODEFAULTS,
	HF_OPTION_NOGRAPHIC,
	HF_OPTION_NUMA,
	HF_OPTION_OBJECT,
	HF_OPTION_OVERCOMMIT,
	HF_OPTION_PRECONFIG,
	HF_OPTION_PROBE, /* makes QEMU print something and end */
	HF_OPTION_READCONFIG,
	HF_OPTION_S,
	HF_OPTION_SET,
	HF_OPTION_SNAPSHOT,
	HF_OPTION_TPMDEV,
	HF_OPTION_UUID,
	HF_OPTION_XEN,
	HF_OPTION_IMAGE,   /* not an option: a disk image's name */
	HF_OPTION_UNKNOWN, /* in none of the QEMU versions known here */
	HF_OPTION_MISSING, /* the last one, and its value isn't there */
	HF_OPTION_KINDS_
};

#define HF_OPTION_HAS_ARG (1u << 0)
#define HF_OPTION_HAS_HELP (1u << 1) /* the value `help` makes it a probe */

/* One step through argv. */
struct hf_option {
	enum hf_option_kind kind;
	unsigned int flags;
	const char *name;  /* as written, without dashes */
	const char *value; /* "" when it takes none */
	size_t arg;	   /* index of the option itself */
	size_t value_arg;  /* index of its value; the same as arg when it takes none */
};

/**
 * hf_option_next() - Walk argv as QEMU does.
 * @pos: index of the next argument, starting at 1; moved on
 *
 * Return: false at the end.
 */
bool hf_option_next(char *const *argv, size_t n, size_t *pos, struct hf_option *ret);

/** struct hf_cmdline_parse - a parse under way. */
struct hf_cmdline_parse {
	struct hf_cmdline *plan;
	uint64_t machine_memory_bytes; /* -machine memory.size, counts less than -m */
	uint64_t m_bytes;
	bool has_memdev;  /* RAM of NUMA nodes comes from objects */
	bool has_backend; /* -machine memory-backend= */
	bool no_defaults;
	bool default_serial; /* as seen so far */
	bool default_monitor;
	bool display_stdio; /* curses */
};

/**
 * hf_cmdline_refuse() - Record why the guest can't be preserved; the first reason stays.
 * @remedy: what the user can do
 */
void hf_cmdline_refuse(struct hf_cmdline_parse *p, const char *remedy, const char *fmt, ...)
	HF_PRINTF(3, 4);

/**
 * hf_cmdline_device() - Everything that isn't RAM, machine or identity.
 *
 * Return: 0 or -ENOMEM.
 */
int hf_cmdline_device(struct hf_cmdline_parse *p, const struct hf_option *o);

/** hf_cmdline_check_files() - Refuse files that were handed over for something unknown. */
void hf_cmdline_check_files(struct hf_cmdline_parse *p);

/** hf_cmdline_replaced() - Is this a key of a memory object that the builder leaves out? */
bool hf_cmdline_replaced(const char *key);
