# SPDX-License-Identifier: Apache-2.0
"""The agent is killed again and again while guests come in; every guest is resumed exactly once.

The new kernel's first process kills holdfastd so many milliseconds after each of its starts, from
before it has read the manifest to when guests run, and starts it again."""

import json

from guests import Guest
from nested import TEST_DIR, fail
from updates import expect_all, last_report, status, upgrade, wait_agent

MEMORY = 4096

# In the nested host a guest needs about 1.5 s from the agent's start to running again.
KILLS = [15, 100, 400, 800, 1100, 1200, 1300, 1400, 1500, 1600, 1700, 1800, 1900, 2000, 2200, 2500]


def run(host):
    host.boot()
    new = host.kernels["NEW_VERSION"]
    wait_agent(host)
    small = Guest(host, "small", machine="pc", cpus=1, memory=128)
    web = Guest(host, "web", machine="q35", cpus=2, memory=256, disk=True, net=True)
    sleeper = Guest(host, "sleeper", machine="pc", cpus=1, memory=128)
    guests = [small, web, sleeper]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_ready()
    client = web.client()
    sleeper.wait_status(1)
    sleeper.hmp("stop")

    kills = ",".join(map(str, KILLS))
    host.note(f"live update; the agent is killed after {kills} ms")
    client.reset_gaps()
    host.spawn(f"holdfast upgrade --kernel {TEST_DIR}/bzImage-new --append hf.kill-agent={kills}")
    boot = host.wait_boot(2, 180)
    if boot.release != new:
        fail(f"the host runs Linux {boot.release}, not {new}")

    def settled():
        # First: what an agent says that is about to be killed is not the end.
        if host.run("cat /run/hf-kills 2>/dev/null | wc -c").out.strip() != str(len(KILLS)):
            return False
        out = host.run("holdfast status -o json 2>/dev/null", check=False)
        return out.rc == 0 and json.loads(out.out)["state"] in ("normal", "degraded")

    host.poll(settled, 120, "the last of the agents to be done")
    now = status(host)
    log = host.run("cat /var/log/holdfastd.log").out
    if now["state"] != "normal":
        fail(f"the host is {now['state']}: {now['message']}\n{log}")
    host.note(f"{log.count('taken over')} times a guest that ran was taken over, "
              f"{log.count('had begun to load')} times a half-loaded QEMU was ended")
    expect_all(last_report(host), guests)
    running = host.run("pgrep -x qemu-system-x86 | wc -l").out.strip()
    if running != "3":
        fail(f"{running} QEMUs run, not 3\n{log}")
    for guest, want in ((small, "running"), (web, "running"), (sleeper, "paused")):
        if guest.state() != want:
            fail(f"guest {guest.name} is {guest.state()}, not {want}")
    for guest in (small, web):
        guest.wait_passes(2)
    sleeper.hmp("cont")
    sleeper.wait_passes(2)
    for guest in guests:
        guest.judge()
    result = client.stop()
    if not result["ok"]:
        fail(f"the connection from outside: {result}")
    left = host.run("pgrep -x hf-keeper; ls /run/holdfast/keeper.sock /run/holdfast/resumed/* 2>/dev/null; true").out
    if left.strip():
        fail(f"something is left behind: {left}")
    host.note(f"all words right, the TCP connection is the same: longest silence {result['gap_max_ns'] / 1e9:.2f} s")

    host.note("and the guests can be carried once more")
    cmdline = " ".join(word for word in host.run("cat /proc/cmdline").out.split() if "kill-agent" not in word)
    report = upgrade(host, "bzImage-old", host.kernels["OLD_VERSION"], 3, f"--cmdline '{cmdline}'")
    expect_all(report, guests)
    for guest in guests:
        guest.wait_passes(1)
        guest.judge()
