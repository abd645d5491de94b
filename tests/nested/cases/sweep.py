# SPDX-License-Identifier: Apache-2.0
"""The agent dies at every fault point, and every step fails, on real LUO; no guest is lost.

Before the jump one fault follows the other in one kernel. After the jump each agent has a fault in the
same arrival, at later and later points, until one has none. What is to come of each is in
common/fault-points.def. All kinds of faults, with real QEMUs as well, are in tests/vmm/sweep.py."""

import json
import sys

from guests import Guest
from nested import TEST_DIR, TOP, fail

sys.path.insert(0, str(TOP / "tests"))
import fault_points  # noqa: E402

APPEND = "hf.agent=no"
AGENT = "/usr/lib/hf-test/holdfastd-faults"
LOG = "/var/log/holdfastd.log"
KINDS = ("SIGKILL", "EIO")


class Agent:
    """One after the other, each with a fault or none."""

    def __init__(self, host):
        self.host, self.pid, self.mark = host, None, 0

    def start(self, fault=""):
        out = self.host.run(f"touch {LOG}; wc -c <{LOG}; "
                            f"HOLDFAST_FAULT='{fault}' setsid {AGENT} {' '.join(fault_points.agent_args(fault))} >>{LOG} 2>&1 </dev/null & echo $!").out.split()
        self.mark, self.pid = int(out[0]), int(out[1])

    def lives(self):
        return self.host.run(f"kill -0 {self.pid} 2>/dev/null", check=False).rc == 0

    def log(self):
        return self.host.run(f"tail -c +{self.mark + 1} {LOG}").out

    def wait_death(self, timeout=60):
        self.host.poll(lambda: not self.lives(), timeout, "the agent's end", 0.2)

    def end(self):
        self.host.run(f"kill -9 {self.pid}", check=False)
        self.wait_death()

    def state(self):
        """None while it is busy, or not there."""
        result = self.host.run("holdfast status -o json 2>/dev/null", check=False)
        state = json.loads(result.out).get("state") if result.rc == 0 and result.out.strip() else None
        return state if state in ("normal", "degraded") else None

    def wait_state(self, want, timeout=90):
        self.host.poll(self.state, timeout, "the agent to be done", 0.2)
        if self.state() != want:
            fail(f"the host is {self.state()}, not {want}:\n{self.log()}")

    def expect_reached(self, point, kind):
        if f"fault point {point.name}: {kind}" not in self.log():
            fail(f"{point.name}={kind}: the point was not reached:\n{self.log()}")


def check_old(host, agent, guests, point, kind, said):
    """Nothing of the update is left, and each guest is as it was. @said: what the one that runs had reported."""
    runner, sleeper = guests
    host.poll(lambda: runner.state() == "running", 30, f"{runner.name} to run again", 0.2)
    if sleeper.state() not in ("paused", "postmigrate"):
        fail(f"{point.name}={kind}: {sleeper.name} is {sleeper.state()}")
    left = host.run("cat /sys/kernel/kexec_loaded; cd /run/holdfast && "
                    "ls -d frozen.json target-loaded read-only resumed/* 2>/dev/null; true").out.split()
    if left != ["0"]:
        fail(f"{point.name}={kind}: left behind: {left}\n{agent.log()}")
    host.poll(lambda: runner.said("STATUS") > said, 30, f"a report of {runner.name}", 0.3)
    if sleeper.state() == "postmigrate":
        # QEMU saves it only once until it has run.
        sleeper.hmp("cont")
        sleeper.hmp("stop")


def before_the_jump(host, agent, guests):
    upgrade = f"holdfast upgrade --kernel {TEST_DIR}/bzImage-new --append hf.agent=no"
    count = 0
    for point in fault_points.read("luo"):
        if point.phase not in ("PREPARE", "COMMIT", "UNDO"):
            continue
        for kind in (kind for kind in KINDS if kind in point.kinds()):
            said = guests[0].said("STATUS")
            agent.start(point.spec(kind, "jump")[0])
            agent.wait_state("normal")
            job = host.spawn(f"{upgrade} >/dev/null 2>&1")
            if kind in fault_points.DEATHS:
                agent.wait_death()
                agent.expect_reached(point, kind)
                job.kill()
                agent.start()
            else:
                host.poll(lambda point=point, kind=kind: f"{point.name}: {kind}" in agent.log(), 60,
                          f"the fault {point.name}={kind}", 0.2)
                host.poll(agent.state, 60, "the roll-back", 0.2)
                job.kill()
                if agent.state() == "degraded":
                    agent.end()
                    agent.start()
            agent.wait_state("normal")
            check_old(host, agent, guests, point, kind, said)
            agent.end()
            count += 1
    return count


def hanging_disk(host, agent, guests):
    """Writing back hangs when guests are paused already: they go on by themselves, the agent is ended later."""
    agent.start("settle=hang")
    agent.wait_state("normal")
    job = host.spawn(f"holdfast upgrade --kernel {TEST_DIR}/bzImage-new --append hf.agent=no >/dev/null 2>&1")
    host.poll(lambda: "settle: hang" in agent.log(), 60, "the disk to hang", 0.2)
    host.poll(lambda: guests[0].state() == "running", 60, "guests to go on without the disk", 0.5)
    job.kill()
    agent.end()
    agent.start()
    agent.wait_state("normal")
    host.poll(lambda: guests[0].state() == "running", 30, "the guest", 0.2)
    agent.end()


def after_the_jump(host, agent):
    """All faults in one arrival; those that come only once for it take what is left of it."""
    count = 0
    points = {point.name: point for point in fault_points.read("luo")}
    order = [name for name, point in points.items() if point.phase == "ARRIVE"]
    # As long as a half-loaded QEMU can be there, and when a guest runs.
    order.insert(order.index("resume-journal"), "end-others")
    order.insert(order.index("finish-session"), "take-over")
    for point in (points[name] for name in order):
        for kind in (kind for kind in KINDS[::-1] if kind in point.kinds()):
            agent.start(f"{point.name}={kind}")
            if kind in fault_points.DEATHS:
                agent.wait_death()
            elif point.failure == "HELD":
                agent.wait_state("degraded")
                agent.end()
            else:
                host.poll(lambda point=point, kind=kind: f"{point.name}: {kind}" in agent.log(), 60,
                          f"the fault {point.name}={kind}", 0.2)
                agent.end()
            agent.expect_reached(point, kind)
            count += 1
    return count


def run(host):
    host.boot()
    agent = Agent(host)
    agent.start()
    agent.wait_state("normal")
    guests = [Guest(host, "runner", machine="pc", memory=128), Guest(host, "sleeper", machine="pc", memory=128)]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_ready()
    guests[1].wait_status(1)
    guests[1].hmp("stop")
    agent.end()

    count = before_the_jump(host, agent, guests)
    host.note(f"{count} faults before the jump: every guest as before, each time")
    hanging_disk(host, agent, guests)
    host.note("a disk that hangs at the jump keeps no guest paused")
    if guests[1].state() == "postmigrate":
        guests[1].hmp("cont")
        guests[1].hmp("stop")
    for guest in guests:
        guest.judge()

    agent.start()
    agent.wait_state("normal")
    host.spawn(f"holdfast upgrade --kernel {TEST_DIR}/bzImage-new --append hf.agent=no")
    boot = host.wait_boot(2, 180)
    if boot.release != host.kernels["NEW_VERSION"]:
        fail(f"the host runs Linux {boot.release}")
    host.note("the jump")
    count = after_the_jump(host, agent)
    agent.start()
    agent.wait_state("normal", 120)
    host.note(f"{count} faults after it, in one arrival")
    if host.run("pgrep -x qemu-system-x86 | wc -l").out.strip() != "2":
        fail("not two QEMUs run")
    for guest, want in zip(guests, ("running", "paused")):
        if guest.state() != want:
            fail(f"guest {guest.name} is {guest.state()}, not {want}")
    guests[1].hmp("cont")
    for guest in guests:
        guest.wait_status(3)
        guest.judge()
    left = host.run("pgrep -x hf-keeper; ls /run/holdfast/keeper.sock /run/holdfast/resumed/* 2>/dev/null; true").out
    if left.strip():
        fail(f"something is left behind: {left}")
    host.note("both guests are intact, and nothing is left")
