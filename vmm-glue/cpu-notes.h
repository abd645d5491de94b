/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The registers of saved vCPUs, as notes of a core file.
 *
 * For each vCPU what debuggers know (NT_PRSTATUS) and what QEMU's own dumps have beside it (a note
 * called QEMU, with control registers and segments). Always in their 64-bit form, also for a guest
 * that was not in long mode.
 */
#pragma once

#include "memfd-preserve/elf-core.h"
#include "vmm-glue/vmdesc.h"

/**
 * hf_cpu_notes_add() - Append the notes of every vCPU in a device state.
 * @ret_n: how many vCPUs there are
 *
 * All of them or none: on failure @notes is as it was. Return: 0; -ENOENT when the state has no
 * x86 vCPU; -EBADMSG, -ENOTUNIQ as hf_vmdesc_find(); -ENOMEM.
 */
int hf_cpu_notes_add(const struct hf_vmdesc *d, struct hf_core_notes *notes, size_t *ret_n);
