/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: What the kernel's live update orchestrator (LUO) expects on its ioctls.
 *
 * Debian 12 and 13 ship kernel headers without it, so the numbers and layouts are written down
 * here; they are those of Linux 7.2 and 7.3 (include/uapi/linux/liveupdate.h). This interface is a
 * contract of the kernel's: nothing in this file may be changed to taste.
 *
 * Every argument begins with its own size, which lets the kernel take older, shorter ones. Fields
 * it doesn't know must be zero.
 *
 * Errors that mean the same on each ioctl: ENOTTY, the ioctl is unknown; E2BIG, the argument is
 * longer than the kernel knows and not zero there; EOPNOTSUPP, a value it doesn't support.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* Bytes of a session name, its NUL included. */
#define HF_LUO_NAME_BYTES 64

/* On /dev/liveupdate. No direction bits in any of the numbers. */
#define HF_LUO_CREATE_SESSION _IO(0xBA, 0x00)
#define HF_LUO_RETRIEVE_SESSION _IO(0xBA, 0x01)

/* On a session fd. Preserve: sessions created here. Retrieve and finish: sessions retrieved. */
#define HF_LUO_PRESERVE_FD _IO(0xBA, 0x40)
#define HF_LUO_RETRIEVE_FD _IO(0xBA, 0x41)
#define HF_LUO_FINISH _IO(0xBA, 0x42)
#define HF_LUO_GET_NAME _IO(0xBA, 0x43)

/* HF_LUO_CREATE_SESSION and HF_LUO_RETRIEVE_SESSION: name in, fd out. */
struct hf_luo_session_arg {
	uint32_t size;
	int32_t fd;
	uint8_t name[HF_LUO_NAME_BYTES];
};

/* HF_LUO_PRESERVE_FD: fd and token in. HF_LUO_RETRIEVE_FD: token in, fd out. */
struct hf_luo_fd_arg {
	uint32_t size;
	int32_t fd;
	uint64_t token __attribute__((aligned(8)));
};

/* HF_LUO_FINISH */
struct hf_luo_finish_arg {
	uint32_t size;
	uint32_t reserved;
};

/* HF_LUO_GET_NAME: name out */
struct hf_luo_name_arg {
	uint32_t size;
	uint32_t reserved;
	uint8_t name[HF_LUO_NAME_BYTES];
};

static_assert(sizeof(struct hf_luo_session_arg) == 72, "layout of the kernel's");
static_assert(offsetof(struct hf_luo_session_arg, name) == 8, "layout of the kernel's");
static_assert(sizeof(struct hf_luo_fd_arg) == 16, "layout of the kernel's");
static_assert(offsetof(struct hf_luo_fd_arg, token) == 8, "layout of the kernel's");
static_assert(sizeof(struct hf_luo_finish_arg) == 8, "layout of the kernel's");
static_assert(sizeof(struct hf_luo_name_arg) == 72, "layout of the kernel's");
static_assert(HF_LUO_CREATE_SESSION == 0xBA00, "number of the kernel's");
static_assert(HF_LUO_GET_NAME == 0xBA43, "number of the kernel's");
