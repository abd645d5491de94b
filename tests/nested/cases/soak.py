# SPDX-License-Identifier: Apache-2.0
"""The same guests live through one live update after the other, between two kernels, and nothing grows.

`make soak N=20` runs it so often; with the other cases it does two rounds."""

import os

from guests import Guest
from nested import fail
from updates import expect_all, upgrade, wait_agent

MEMORY = 4096
ROUNDS = int(os.environ.get("HF_SOAK_ROUNDS", "2"))
# The host's page cache and slabs come and go; what is lost each time would be a guest's RAM or a part of it.
SLACK_KIB = 48 * 1024


def measure(host):
    """What would grow if something were left behind: memory in use, the agent's files, processes of ours."""
    host.run("sync; echo 3 >/proc/sys/vm/drop_caches")
    free = int(host.run("sed -n 's/^MemAvailable: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").out)
    agent = host.run("pgrep -x holdfastd").out.split()[0]
    files = int(host.run(f"ls /proc/{agent}/fd | wc -l").out)
    ours = host.run("pgrep -x holdfastd; pgrep -x hf-keeper; pgrep -x qemu-system-x86; "
                    "pgrep -f '^/usr/sbin/holdfastd.*be-spawner'; true").out.split()
    return free, files, len(ours)


def run(host):
    host.boot()
    wait_agent(host)
    guests = [Guest(host, "small", machine="pc", memory=128), Guest(host, "web", cpus=2, memory=256, disk=True)]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_ready()
    targets = [("bzImage-new", host.kernels["NEW_VERSION"]), ("bzImage-old", host.kernels["OLD_VERSION"])]
    first, worst = None, 0
    for number in range(ROUNDS):
        image, release = targets[number % 2]
        report = upgrade(host, image, release, number + 2)
        expect_all(report, guests)
        for guest in guests:
            guest.wait_passes(1)
            guest.judge()
        now = measure(host)
        # Each kernel has a use of its own: like is compared with like.
        first = first or {}
        begin = first.setdefault(image, now)
        if begin[0] - now[0] > SLACK_KIB or now[1:] != begin[1:]:
            fail(f"round {number + 1}: free KiB, files, processes were {begin} at first with this kernel, now {now}")
        worst = max(worst, max(guest["blackout_ns"] for guest in report["guests"]))
        host.note(f"round {number + 1} of {ROUNDS}: {now[0] // 1024} MiB free, {now[1]} files, {now[2]} processes")
    host.note(f"all words right after {ROUNDS} updates; longest blackout {worst / 1e9:.2f} s")
