/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Asking a guest to power down, and waiting for the end of its QEMU.
 *
 * It gets what a press of its power button is, and nothing more: one that doesn't react, or reacts
 * after the time-out, is not harmed. It needs no more than a registered process and its private
 * monitor: guests that can't be preserved have that too, when they were started for it.
 */
#pragma once

#include <systemd/sd-event.h>

#include "common/error.h"
#include "vmm-glue/registration.h"

struct hf_powerdown;

/** Called once, from the loop. @error is NULL when its QEMU has ended. */
typedef void (*hf_powerdown_done_fn)(
	struct hf_powerdown *p, const struct hf_error *error, void *data);

/**
 * hf_powerdown_start() - Press the button.
 * @reg:        the guest, with a monitor; borrowed for the call
 * @timeout_ns: from now to its end
 * @ret:        until hf_powerdown_free()
 *
 * Return: 0 when @done will be called; else -errno and @error says why. A process that is gone by
 * now is no failure.
 */
int hf_powerdown_start(sd_event *event, const struct hf_registration *reg, uint64_t timeout_ns,
	hf_powerdown_done_fn done, void *data, struct hf_powerdown **ret, struct hf_error *error);

/** hf_powerdown_free() - Let go; no callback runs afterwards. In the callback, too. NULL is fine.
 */
void hf_powerdown_free(struct hf_powerdown *p);
