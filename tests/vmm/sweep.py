#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every fault point with every kind of fault, on real QEMUs with the `hold` carrier, and what came of it.

    sweep.py [-j N] [--list] [POINT[=KIND]]...

Needs the programs of `make VARIANT=faults`. Two guests, one that runs and one that is paused, go through
one update after the other; each update has one fault. Then the agent is started again, as a service manager
would, and both guests have to be as they were: in the QEMU that common/fault-points.def says, with every word
of memory right, and nothing left behind. So do guests whose memory is on disk meanwhile (`image:POINT`), one with
private RAM that is adopted (`adopt:POINT` is a point that updates have, too), and two whose QEMUs are replaced while
they run. Last line: N passed, N failed, N skipped."""

import argparse
import concurrent.futures
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback

import agent_taps
import rig
from rig import TOP, Failure, Guest, World, check, kernel, poll

sys.path.insert(0, str(TOP / "tests"))
import fault_points  # noqa: E402

WATCHDOG_S = 2
STUCK_S = 6


class Supervisor(World):
    """A world whose agent has a service manager: started again when it ends, killed when it hangs."""

    def __init__(self, qemu):
        super().__init__(qemu)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(self.path / "notify"))
        self.env |= {"NOTIFY_SOCKET": str(self.path / "notify"), "WATCHDOG_USEC": str(WATCHDOG_S * 1_000_000)}
        self.heard = 0
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            try:
                if b"WATCHDOG=1" in self.notify.recv(4096):
                    self.heard = time.monotonic()
            except OSError:
                return

    def launch(self, fault):
        self.heard = time.monotonic()
        log = open(self.path / "agent.log", "ab")
        self.agent = subprocess.Popen([str(rig.BUILD / "holdfastd"), "--carrier", "hold",
                                       *fault_points.agent_args(fault)], stdin=subprocess.DEVNULL,
                                      env={**self.env, "HOLDFAST_FAULT": fault}, stdout=log, stderr=log)
        log.close()

    def wait_death(self, kind):
        """The agent's end: by the fault itself, or by the watchdog, or, when only a thread of it hangs and it
        goes on answering, by an operator who has waited long enough."""
        begin = time.monotonic()
        while self.agent.poll() is None:
            hung = time.monotonic() - self.heard > 2 * WATCHDOG_S
            if kind == "hang" and (hung or time.monotonic() - begin > STUCK_S):
                self.agent.kill()
            check(time.monotonic() - begin < 60, "the agent does not die")
            time.sleep(0.05)

    def answers(self):
        if self.agent.poll() is not None or not (self.path / "run/control.sock").exists():
            return False
        return self.cli("status").returncode == 0

    def stop(self):
        if self.agent and self.agent.poll() is None:
            self.agent.kill()
        self.agent and self.agent.wait()

    def status(self):
        return self.ask("status")


def settled(world):
    try:
        return world.answers() and world.status().get("state") in ("normal", "degraded")
    except Failure:
        return False  # it starts itself anew in the middle of the answer


def start_and_wait(world, fault=""):
    world.launch(fault)
    poll(lambda: settled(world), 60, "the agent to be done with what it found")


def check_nothing_left(world):
    left = [p.name for p in (world.path / "run").glob("*") if p.name in ("frozen.json", "target-loaded", "read-only")]
    left += [p.name for p in (world.path / "run/resumed").glob("*")]
    check(not left, f"left behind: {left}")
    for pid in world.keepers():
        files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        check(not [f for f in files if "memfd" in f], f"the keeper keeps {files}")


def check_guests(world, runner, sleeper, before, outcome):
    after = [runner.pid, sleeper.pid]
    check(runner.status == "running", f"{runner.name} is {runner.status}")
    check(sleeper.status in ("paused", "postmigrate"), f"{sleeper.name} is {sleeper.status}")
    same = [a == b for a, b in zip(after, before)]
    check(all(same) if outcome == "OLD" else not any(same),
          f"{outcome} was to come of it, but the QEMUs are {after} and were {before}")
    for guest in (runner, sleeper):
        check(not guest.capability("x-ignore-shared"), f"{guest.name}: x-ignore-shared is still on")
    runner.wait_alive()
    sleeper.check_quiet()


def go_through(world, command, faults, point, kind):
    """With an agent for each of @faults, and after a death one without. Return: when nothing goes on any more."""
    deadly = kind in fault_points.DEATHS
    first, second = faults
    log_begin = (world.path / "agent.log").stat().st_size if (world.path / "agent.log").exists() else 0
    start_and_wait(world, first)
    client = subprocess.Popen([str(rig.BUILD / "holdfast"), *command], env=world.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        if second:
            world.wait_death("SIGKILL")
            world.launch(second)
        if deadly:
            world.wait_death(kind)
            start_and_wait(world)
        else:
            poll(lambda: settled(world) and f"fault point {point.name}: {kind}" in world.log()[log_begin:], 60,
                 "the agent to be done")
            # Where the host's state says nothing of what goes on, its client does.
            poll(lambda: client.poll() is not None, 60, "the client to be done")
            # The state is that of before for a moment.
            time.sleep(0.3)
            poll(lambda: settled(world), 60, "the agent to be done")
    finally:
        client.kill()
        client.wait()
    check(f"fault point {point.name}: {kind}" in world.log()[log_begin:], "the point was not reached")
    state = world.status()
    if point.outcome(kind) == "HELD":
        check(state["state"] == "degraded", f"the host is {state['state']}: nobody is told that a guest is held")
    if state["state"] == "degraded":
        check(not deadly, f"after a death the host is degraded: {state.get('message')}")
        check(state.get("message"), "the host is degraded and does not say why")
        world.stop()
        start_and_wait(world)
        state = world.status()
    if point.name == "finish-manifest" and not deadly:
        # All is well, but for what the next agent has to clear away.
        world.stop()
        start_and_wait(world)
        state = world.status()
    check(state["state"] == "normal", f"the host is {state['state']}: {state.get('message')}")


def stop_cleanly(world):
    world.agent.terminate()
    check(world.agent.wait(20) == 0, "the agent does not stop cleanly")
    check_nothing_left(world)


class Updates:
    """Two guests that go through one update after the other."""

    def __init__(self, world):
        self.world = world
        self.runner, self.sleeper = [Guest(world, name, machine="pc", memory=80) for name in ("runner", "sleeper")]
        for guest in (self.runner, self.sleeper):
            guest.wait_ready()
        self.sleeper.qmp("stop")

    def upgrade(self):
        return ["upgrade", "--kernel", kernel()]

    def try_one(self, point, kind):
        before = [self.runner.pid, self.sleeper.pid]
        go_through(self.world, self.upgrade(), point.spec(kind, "hand-over-last"), point, kind)
        check_guests(self.world, self.runner, self.sleeper, before, "OLD" if point.outcome(kind) == "OLD" else "NEW")
        stop_cleanly(self.world)
        if self.sleeper.status == "postmigrate":
            # QEMU saves it only once until it has run: what `check` says of that is a test of its own.
            self.sleeper.qmp("cont")
            self.sleeper.qmp("stop")


class ImageUpdates(Updates):
    """The same, with memory on disk meanwhile."""

    def upgrade(self):
        return ["upgrade", "--kernel", kernel(), "--carrier", "image", "--plaintext"]

    def try_one(self, point, kind):
        super().try_one(point, kind)
        left = [str(path) for path in (self.world.path / "state/images").rglob("*") if path.is_file()]
        check(not left, f"images are left: {left}")


class Adoptions:
    """A guest with private RAM, which is adopted; once it was, another one."""

    def __init__(self, world):
        self.world, self.guest, self.n = world, None, 0

    def new_guest(self):
        self.n += 1
        self.guest = rig.Writer(self.world, 2, name=f"private{self.n}", accel="tcg", memory=32)

    def try_one(self, point, kind):
        if not self.guest:
            self.new_guest()
        guest, before = self.guest, self.guest.pid
        go_through(self.world, ["adopt", guest.name, "--paused"], point.adoption_spec(kind), point, kind)
        poll(lambda: guest.status == "running", 10, f"{guest.name} to run")
        poll(lambda: not (self.world.path / "run/frozen.json").exists(), 10, "the freeze note's end")
        guest.wait_alive()
        if point.outcome(kind) == "OLD":
            check(guest.pid == before, f"it is in process {guest.pid}, and was in {before}")
        else:
            check(guest.pid != before, "it has the old QEMU")
            check(guest.process.wait(5) is not None, "its old QEMU is still there")
        stop_cleanly(self.world)
        poll(lambda: not self.world.keepers(), 10, "the keeper's end")
        if point.outcome(kind) != "OLD":
            guest.qmp("quit")
            self.guest = None


class Replacements:
    """A guest that works behind a tap and one that is paused, whose QEMUs are replaced together, again and again. And
    one under KVM, where there is that: it is not paused before."""

    def __init__(self, world):
        self.world = world
        agent_taps.enter_network()
        sleeps = Guest(world, "sleeps", machine="pc", memory=80, disk=True)
        self.connected = agent_taps.Connected(world, functools.partial(Guest, world), name="works", memory=80, disk=True)
        self.guests = [self.connected.guest, sleeps.wait_ready()]
        try:
            self.guests.append(rig.Writer(world, 2, shared=True))
        except rig.Skip:
            pass

    def try_one(self, point, kind):
        works, sleeps, *writers = self.guests
        sleeps.qmp("cont")
        sleeps.qmp("stop")
        before = [guest.pid for guest in self.guests]
        go_through(self.world, ["vmm-upgrade", "--all", "--force"], point.replacement_spec(kind), point, kind)
        notes = self.world.path / "run/vmm-upgrade"
        poll(lambda: not list(notes.glob("*")), 30, "what is left to be seen to")
        check(sleeps.status in ("paused", "postmigrate"), f"the paused one is {sleeps.status}")
        for guest in [works, *writers]:
            check(guest.status == "running", f"{guest.name} is {guest.status}")
            guest.wait_alive()
        sleeps.check_quiet()
        self.connected.check_connected()
        after = [guest.pid for guest in self.guests]
        # The fault is come to by one of them, which need not be the first; a death is one of both, wherever they are.
        moved = [a != b for a, b in zip(after, before)]
        if kind in fault_points.FAILURES:
            check(moved.count(False) == 1, f"one was to stay, but the QEMUs are {after} and were {before}")
        elif point.outcome(kind) == "NEW":
            check(any(moved), f"neither is in a new QEMU: {after}")
        for guest, old, new in zip(self.guests, before, after):
            users = rig.ram_users(new)
            check(users == [new], f"{guest.name} is in {new}, was in {old}, and these have its RAM: {users}")
            check(not guest.capability("x-ignore-shared"), f"{guest.name}: x-ignore-shared is still on")
        check(not list(self.world.path.glob("*.holdfast-old")), "sockets are left aside")
        stop_cleanly(self.world)


def name_of(cls, point, kind):
    """Adoptions' own points say by their names what they are of."""
    other = cls is Adoptions and point.phase not in fault_points.ADOPTION
    return f"{'adopt:' if other else 'image:' if cls is ImageUpdates else ''}{point.name}={kind}"


def run_some(jobs, qemu):
    """One world for each class of tries, as long as nothing is wrong in it."""
    world, tries, results = None, None, []
    for cls, point, kind in jobs:
        started = time.monotonic()
        problem = None
        try:
            if world and not isinstance(tries, cls):
                world.close(False)
                world = None
            if not world:
                world = Supervisor(qemu)
                tries = cls(world)
            tries.try_one(point, kind)
        except Failure as failure:
            problem = str(failure)
        except Exception:
            problem = traceback.format_exc()
        name = name_of(cls, point, kind)
        if problem:
            tail = "\n".join(world.log().splitlines()[-25:]) if (world.path / "agent.log").exists() else ""
            print(f"FAILED  {name}: {problem}\n        agent's log:\n{tail}", flush=True)
            world.close(True)
            world = None
        else:
            print(f"ok      {name}: {point.outcome(kind).lower()}, {time.monotonic() - started:.1f} s", flush=True)
        results.append(problem is None)
    if world:
        world.close(False)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-j", "--jobs", type=int, default=3)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("points", nargs="*")
    args = parser.parse_args()
    rig.BUILD = TOP / "build/faults"
    jobs = [(Updates, point, kind) for point in fault_points.read("hold") for kind in point.kinds()]
    jobs += [(ImageUpdates, point, kind) for point, kind in fault_points.images()]
    jobs += [(Adoptions, point, kind) for point, kind in fault_points.adoption()]
    jobs += [(Replacements, point, kind) for point, kind in fault_points.replacement()]
    jobs = [job for job in jobs if not args.points or set(args.points) & {name_of(*job), name_of(*job).split("=")[0]}]
    if args.list:
        print("\n".join(name_of(*job) for job in jobs))
        return
    subprocess.run([TOP / "tests/nested/witness/build.sh"], check=True)
    qemu = rig.find_qemus()[0][1]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        shares = [jobs[i::args.jobs] for i in range(args.jobs)]
        results = sum(pool.map(lambda share: run_some(share, qemu), shares), [])
    print(f"{results.count(True)} passed, {results.count(False)} failed, 0 skipped")
    sys.exit(1 if not all(results) or not results else 0)


if __name__ == "__main__":
    main()
