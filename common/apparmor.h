/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Where libvirt and AppArmor have what confines QEMU.
 *
 * Each domain's profile includes libvirt's abstraction, and that, where libvirt is new enough, all
 * that is in a folder for additions. `holdfast libvirt setup` puts there what a QEMU needs that
 * holdfast starts.
 */
#pragma once

#define HF_APPARMOR_PROFILES "/etc/apparmor.d/libvirt"
#define HF_APPARMOR_ABSTRACTION "/etc/apparmor.d/abstractions/libvirt-qemu"
#define HF_APPARMOR_DROP_IN_DIR "abstractions/libvirt-qemu.d"
#define HF_APPARMOR_DROP_IN "/etc/apparmor.d/" HF_APPARMOR_DROP_IN_DIR "/holdfast"
