/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Keeping libvirt's daemon away while its domains change their process.
 *
 * A daemon that runs would take the end of an old QEMU for the end of the domain, and would not
 * look for the new one. After a jump it isn't there: the service manager starts it when the agent
 * is ready. Where there is no jump (the carrier `hold`, a retry) it is stopped first, and started
 * afterwards. Several guests may want it away at the same time.
 */
#pragma once

#include "agent/agent.h"

struct hf_libvirt_gate;
struct hf_manifest_guest;

/** Called once, from the loop. @error NULL: the daemon isn't there. */
typedef void (*hf_libvirt_gate_fn)(const struct hf_error *error, void *data);

/**
 * hf_libvirt_gate_close() - Have the daemon stopped.
 *
 * After a success hf_libvirt_gate_open() has to follow. Return: 0 when @closed will be called;
 * -errno.
 */
int hf_libvirt_gate_close(struct hf_agent *agent, hf_libvirt_gate_fn closed, void *data);

/** hf_libvirt_gate_forget() - @closed is not called any more for @data; as if it had failed. */
void hf_libvirt_gate_forget(struct hf_agent *agent, void *data);

/** hf_libvirt_gate_take() - It was closed by the agent before this one. Likewise. */
int hf_libvirt_gate_take(struct hf_agent *agent);

/** hf_libvirt_gate_recover() - Have a daemon started that an agent which died left stopped. */
void hf_libvirt_gate_recover(struct hf_agent *agent);

/** hf_libvirt_gate_open() - The daemon may come back, as far as this caller is concerned. */
void hf_libvirt_gate_open(struct hf_agent *agent);

/** hf_libvirt_gate_unguard() - Let libvirt start a guest again, or say in the log that it won't. */
void hf_libvirt_gate_unguard(const struct hf_manifest_guest *guest);

/** hf_libvirt_gate_free() - At the end of the agent; a daemon that is away stays so. */
void hf_libvirt_gate_free(struct hf_libvirt_gate *gate);
