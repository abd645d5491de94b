/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The host's file systems at the jump: written back, read-only where that can be, and back.
 *
 * kexec does not sync. What is made read-only is noted in the runtime folder first, so that an
 * agent that starts after one which died there makes it writable again.
 */
#pragma once

/**
 * hf_disks_settle() - Write everything back and remount read-only what can be.
 *
 * File systems with files open for writing (guests' disks, the root) stay writable and are synced.
 * Blocks, for ever when a disk does.
 */
void hf_disks_settle(void);

/** hf_disks_unsettle() - Undo of hf_disks_settle(), of this process or of one that died. Blocks. */
void hf_disks_unsettle(void);
