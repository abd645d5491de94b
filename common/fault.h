/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Fault points: places where a test can have the program die, hang or fail.
 *
 * They are listed in fault-points.def. Without -DHF_FAULTS, as in every build that is installed,
 * they cost nothing and there is no name of one in the program.
 *
 * With it, the environment variable HOLDFAST_FAULT says what is to happen: `POINT=KIND[:N]`,
 * several joined with commas. KIND is exit, SIGKILL, EIO, ENOMEM, ENOSPC, or hang (the thread
 * does not go on). It happens at the Nth time (1 when not given) that this process comes to the
 * point, and once.
 */
#pragma once

#include "common/error.h"

enum hf_fault_point {
#define HF_FAULT_POINT(id, name, phase, death, failure, text) HF_FAULT_##id,
#include "common/fault-points.def"
#undef HF_FAULT_POINT
	HF_FAULT_N_,
};

#ifdef HF_FAULTS
/**
 * hf_fault() - A fault point.
 * @e: filled on failure; may be NULL
 *
 * Return: 0 when nothing is to happen, or -EIO, -ENOMEM or -ENOSPC. Thread-safe.
 */
int hf_fault(enum hf_fault_point point, struct hf_error *e);
#else
static inline int hf_fault(enum hf_fault_point point, struct hf_error *e)
{
	(void)point;
	(void)e;
	return 0;
}
#endif
