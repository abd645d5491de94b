/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Which of the guests that can't come along could be adopted.
 */
#pragma once

#include "vmm-glue/registration.h"

/**
 * hf_adopt_possible() - Is its RAM all that keeps a registered guest from being preserved, and can
 * that be moved? By what is known of it without asking its QEMU.
 * @error: why not; may be NULL
 */
bool hf_adopt_possible(const struct hf_registration *reg, struct hf_error *error);
