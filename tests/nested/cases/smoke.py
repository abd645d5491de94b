# SPDX-License-Identifier: Apache-2.0
"""The nested host itself: KVM and live update are there, and a bare kexec changes the kernel.

Without holdfast: when this fails, so does everything else, and the reason is not in holdfast."""

import re

from nested import TEST_DIR, fail

APPEND = "hf.agent=no"


def run(host):
    host.boot()
    old, new = host.kernels["OLD_VERSION"], host.kernels["NEW_VERSION"]
    uname = host.run("uname -r").out.strip()
    if uname != old:
        fail(f"booted Linux {uname}, not {old}")
    host.run("test -c /dev/kvm && test -c /dev/liveupdate && test -d /sys/kernel/debug/kho")
    host.run("test $(cat /sys/class/net/eth0/master/address) = $(cat /sys/class/net/br0/address)")

    # Two commands at once, an exit status, a signal, more output than one frame.
    slow = host.spawn("sleep 1; echo late")
    if host.run("seq 5000 | tail -n1; exit 3", check=False) != (3, "5000\n"):
        fail("the control channel garbles output or status")
    if len(host.run("seq 5000").out) != 23893:
        fail("the control channel loses output")
    if host.run("kill -9 $$", check=False).rc != 137 or slow.wait() != (0, "late\n"):
        fail("the control channel mixes commands up")

    host.run("qemu-system-x86_64 -accel kvm -cpu kvm64 -machine q35 -nodefaults -display none "
             "-S -daemonize -pidfile /run/guest.pid -qmp unix:/run/guest.qmp,server=on,wait=off")
    host.run("kill $(cat /run/guest.pid)")

    host.note("kexec without guests and without holdfast")
    job = host.spawn(f"hf-kexec {TEST_DIR}/bzImage-new '{host.cmdline}'")
    boot = host.wait_boot(2)
    if boot.release != new or host.run("uname -r").out.strip() != new:
        fail(f"kexec led to Linux {boot.release}, not {new}")
    if job.status != "rebooted":
        fail(f"hf-kexec ended with {job.status}")
    left = int(re.search(r"hf-kexec: tsc (\d+)", host.serial_log).group(1))
    turnaround = (boot.tsc - left) / host.tsc_hz()
    host.note(f"Linux {new} is up: {turnaround:.2f} s from reboot(2) to the first process, "
              f"{boot.mono_ns / 1e9:.2f} s of it by the new kernel's clock")
    host.run("test -c /dev/kvm && test -c /dev/liveupdate")
    if "KHO: exec from" not in host.run("dmesg").out:
        fail("the new kernel doesn't know that it was handed anything over")
