# SPDX-License-Identifier: Apache-2.0
"""A nested host that systemd boots."""

import re

from nested import fail
from updates import wait_agent


def start_host(host, guests):
    """Boot, and bring guests up."""
    host.boot()
    wait_agent(host)
    host.run("systemctl is-system-running --wait", timeout=120, check=False)
    version = host.run("systemctl --version | head -n1").out.strip()
    started = re.search(r"= (.*s)\s*$", host.run("systemd-analyze").out, re.M).group(1)
    host.note(f"{version}; up in {started}")
    failed = host.run("systemctl --failed --plain --no-legend").out.strip()
    if failed:
        fail(f"units failed: {failed}")
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_ready()
    host.note(f"{len(guests)} guests are ready")


def check_qemus(host):
    """Respawned, they are as free as they were."""
    own = host.run("readlink /proc/1/ns/mnt").out
    for pid in host.run("pgrep -x qemu-system-x86").out.split():
        status = host.run(f"cat /proc/{pid}/status").out
        if "Seccomp:\t0" not in status or "NoNewPrivs:\t0" not in status:
            fail(f"a QEMU is in a sandbox:\n{status}")
        if host.run(f"readlink /proc/{pid}/ns/mnt").out != own:
            fail("a QEMU has a mount name space of its own")
        group = host.run(f"cat /proc/{pid}/cgroup").out.strip()
        if group != "0::/holdfast.slice/holdfast-spawn.service":
            fail(f"a QEMU is in control group {group}")
    limit = host.run("cat /sys/fs/cgroup/holdfast.slice/memory.max "
                     "/sys/fs/cgroup/holdfast.slice/*/memory.max").out.split()
    if set(limit) != {"max"}:
        fail(f"guests' memory has a limit: {limit}")
