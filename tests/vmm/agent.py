#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent with real QEMUs and no reboot: the `hold` carrier, guests under emulation, witnesses in them.

    agent.py [-j N] [--qemu PATH]... [TEST]...

Each test has an agent and guests of its own in a folder of its own. The tests of failure run with the
first QEMU, those marked @every_qemu with each. Last line: N passed, N failed, N skipped."""

import argparse
import calendar
import concurrent.futures
import functools
import json
import os
import pathlib
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

from rig import (BUILD, REFUSES_STATE, TESTS, TOP, Failure, Guest, Monitor, Package, PrivateQemu, Skip, Writer, check,
                 every_qemu, find, find_qemus, findings_of, full_version, guest_json, kernel, memfds, poll, private_guest,
                 qemu_that, qemu_version, ram_files, raw_call, run_one, test, write_program)

import agent_image  # noqa: F401  # tests of its own
import agent_manifest  # noqa: F401
import agent_taps  # noqa: F401
import agent_vmm_upgrade  # noqa: F401
import kernel_sample  # in the folder that rig has put on the path


# A boot sector that does what an operating system does with the power button of QEMU's pc and q35: it enables the
# event (PM1_EN), sleeps until it happens (PM1_STS), and then switches the machine off (PM1_CNT).
BUTTON = bytes.fromhex("ba0206 b80001 ef"         # mov dx, 0x602; mov ax, 0x100; out dx, ax
                       "fb f4 ba0006 ed"          # wait: sti; hlt; mov dx, 0x600; in ax, dx
                       "f6c401 74f5"              # test ah, 1; jz wait
                       "ba0406 b80020 ef"         # mov dx, 0x604; mov ax, 0x2000; out dx, ax
                       "f4 ebfd").ljust(510, b"\0") + b"\x55\xaa"


class ButtonGuest(Guest):
    """No witness: firmware, and a boot sector that reacts to the power button, or none."""

    def __init__(self, world, name, reacts=True, extra=(), holdfast=()):
        self.world, self.name = world, name
        self.own_monitor = world.path / f"{name}.qmp"
        disk = world.path / f"{name}.boot"
        disk.write_bytes((BUTTON if reacts else bytes(512)).ljust(1 << 20, b"\0"))
        argv = [BUILD / "holdfast-vmm", "--name", name, *holdfast, "--", world.qemu, "-nodefaults", "-no-user-config",
                "-display", "none", "-machine", "pc", "-accel", "tcg", "-m", "32",
                "-drive", f"file={disk},format=raw,if=ide",
                "-qmp", f"unix:{self.own_monitor},server=on,wait=off", *extra]
        with open(world.path / f"{name}.log", "ab") as log:
            self.process = subprocess.Popen([str(a) for a in argv], env=world.env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        world.guests.append(self)
        poll(self.own_monitor.exists, 20, f"{name} to start")

    @property
    def runs(self):
        return self.process.poll() is None

    def wait_listening(self):
        """Until it has enabled the event."""
        poll(lambda: "0100" in self.qmp("human-monitor-command", **{"command-line": "i/hx 0x602"}), 20,
             f"{self.name} to listen to its power button")
        return self


# ---- what must work


@every_qemu
def update_of_three_guests(world):
    """A pc, a q35 with a disk, and a paused guest get a new QEMU, twice in a row."""
    world.start_agent()
    guests = [Guest(world, "pc", machine="pc"), Guest(world, "q35", cpus=2, memory=128, disk=True),
              Guest(world, "sleeper", machine="pc")]
    for guest in guests:
        guest.wait_ready()
    guests[2].qmp("stop")
    for round_ in range(2):
        before = [guest.pid for guest in guests]
        world.expect(0, "prepare", "--kernel", kernel())
        # It has mapped what it ever will; the one that writes the report is its successor.
        peak = int(re.search(r"VmHWM:\s*(\d+) kB", pathlib.Path(f"/proc/{world.agent.pid}/status").read_text())[1])
        check(peak < 16 << 10, f"the agent needed {peak} KiB to prepare")
        world.expect(0, "commit")
        check(world.state == "normal", f"round {round_}: the host is {world.state}")
        check(not set(before) & {guest.pid for guest in guests}, "a guest still has its old QEMU")
        check([guest.status for guest in guests] == ["running", "running", "paused"],
              f"round {round_}: {[guest.status for guest in guests]}")
        for guest in guests:
            check(not guest.capability("x-ignore-shared"), f"{guest.name}: x-ignore-shared is still on")
        report = world.ask("report")["report"]
        check(report["outcome"] == "done" and len(report["guests"]) == 3, f"report: {report}")
        for entry in report["guests"]:
            total = sum(phase["duration_ns"] for phase in entry["phases"])
            check(abs(total - entry["blackout_ns"]) < 10000, f"phases don't add up: {entry}")
        check(report["agent_rss_bytes"] < 16 << 20, f"the agent needs {report['agent_rss_bytes']} bytes")
        guests[0].wait_alive()
        guests[1].wait_alive()
        guests[2].check_quiet()
    guests[2].qmp("cont")
    guests[2].wait_alive()


@every_qemu
def prepare_then_abort_then_commit(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    pid = guest.pid
    world.expect(0, "prepare", "--kernel", kernel())
    check(world.state == "prepared", f"the host is {world.state}")
    guest.wait_alive()
    world.expect(1, "prepare", "--kernel", kernel(), says="commit or abort")
    world.expect(0, "abort")
    check(world.state == "normal" and guest.pid == pid and guest.status == "running", "abort changed something")
    guest.wait_alive()
    world.expect(0, "prepare", "--kernel", kernel())
    world.expect(0, "inspect", "manifest", says="g")
    world.expect(0, "commit")
    check(world.state == "normal" and guest.pid != pid, "commit did not replace QEMU")
    guest.wait_alive()


@every_qemu
def roms_are_read_ahead(world):
    """Firmware and ROMs, which QEMU closes after reading, are among the files noted for the new kernel."""
    world.start_agent()
    guest = Guest(world, "g", machine="pc", extra=["-device", "e1000", "-device", "VGA"], kernel=kernel()).wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    open_files = {os.readlink(f) for f in pathlib.Path(f"/proc/{guest.pid}/fd").iterdir()}
    listed = [entry["path"] for entry in find(world.ask("inspect", "manifest"), "readahead")]
    for name in ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin", "efi-e1000.rom", "vgabios-stdvga.bin"):
        paths = [p for p in listed if p.endswith(f"/{name}")]
        check(len(paths) == 1 and os.path.exists(paths[0]), f"{name}: {paths} of {listed}")
        check(os.path.realpath(paths[0]) not in open_files, f"{name} is open: nothing is shown by this")
    check(kernel() in listed, f"the guest's kernel is not in {listed}")
    check("won't be read ahead" not in world.log(), "something was not found, see the log")
    world.expect(0, "commit")
    guest.wait_alive()


@every_qemu
def ordinary_save_still_carries_ram(world):
    """After an update x-ignore-shared is really off: a plain migration stream is as large as the RAM in use."""
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    world.upgrade()
    stream = world.path / "stream"
    guest.qmp("stop")
    guest.qmp("migrate", uri=f"exec:cat >{stream}")
    poll(lambda: guest.qmp("query-migrate").get("status") in ("completed", "failed"), 60, "the migration")
    check(guest.qmp("query-migrate")["status"] == "completed", "an ordinary save fails after an update")
    check(stream.stat().st_size > 48 << 20, f"the stream has only {stream.stat().st_size} bytes: RAM is missing")


@test
def agent_was_stopped_while_guests_started(world):
    guest = Guest(world, "early").wait_ready()
    world.start_agent()
    world.upgrade()
    guest.wait_alive()


def surroundings(pid):
    """What a process may use, and how the kernel treats it."""
    limits = {name: resource.prlimit(pid, number) for name, number in vars(resource).items()
              if name.startswith("RLIMIT_")}
    score = pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    return {**limits, "nice": os.getpriority(os.PRIO_PROCESS, pid), "cpus": os.sched_getaffinity(pid), "oom": score}


@every_qemu
def limits_come_along(world):
    """Limits set on the running QEMU, its nice value, CPUs and OOM score are those of the next one."""
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    pid = guest.pid
    # Soft and hard alike: newer QEMUs take all the descriptors that they may.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (333, 333))
    resource.prlimit(pid, resource.RLIMIT_MEMLOCK, (65536, 131072))
    resource.prlimit(pid, resource.RLIMIT_CORE, (0, 4096))
    os.setpriority(os.PRIO_PROCESS, pid, 3)
    os.sched_setaffinity(pid, {max(os.sched_getaffinity(pid))})
    pathlib.Path(f"/proc/{pid}/oom_score_adj").write_text("444")
    before = surroundings(pid)
    for round_ in range(2):
        world.upgrade()
        check(guest.pid != pid, "the guest still has its old QEMU")
        after = surroundings(guest.pid)
        check(after == before, f"round {round_}: {[(k, before[k], after[k]) for k in before if after[k] != before[k]]}")
    check("not as before" not in world.log(), "the agent says that something is missing")
    guest.wait_alive()


@test
def dry_run_changes_nothing(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    pid = guest.pid
    world.expect(0, "upgrade", "--kernel", kernel(), "--dry-run")
    check(world.state == "normal" and guest.pid == pid, "a dry run did something")


@test
def device_state_outgrows_its_room(world):
    """Room for 4 KiB, a state of several hundred: more memfds are added while the guest is paused."""
    world.start_agent("--state-bytes", "4096")
    guest = Guest(world, "g").wait_ready()
    world.upgrade()
    check(world.ask("report")["report"]["guests"][0]["state_bytes"] > 65536, "the state is too small for this test")
    check("larger than" in world.log(), "nothing grew")
    guest.wait_alive()


@test
def readiness_is_told_to_the_service_manager(world):
    path = str(world.path / "notify")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    sock.settimeout(5)
    world.env["NOTIFY_SOCKET"] = path
    world.start_agent()
    check("READY=1" in sock.recv(4096).decode(), "no READY=1")


@test
def status_watch_follows_an_update(world):
    world.start_agent()
    Guest(world, "g").wait_ready()
    watch = raw_call(world, "org.holdfast.Host.Status", {}, more=True)
    watch.settimeout(10)
    world.expect(0, "prepare", "--kernel", kernel())
    data = b""
    while b'"prepared"' not in data:
        more = watch.recv(65536)
        check(more, "the watch ended")
        data += more
    watch.close()
    world.expect(0, "abort")


# ---- policies


@test
def broken_configuration(world):
    """It is told with file and line, and keeps updates from being made, but neither agent nor guests from running."""
    path = world.configure("[defaults]\nsave-timeout=20s\n\nsave-timout=2s\n[guest g]\npriority=high\n")
    world.start_agent()
    check(f"{path}:4" in world.log(), "the agent does not tell at its start")
    guest = Guest(world, "g").wait_ready()
    pid = guest.pid
    told = re.escape(f"{path}:4: there is no setting `save-timout`")
    world.expect(3, "check", says=told)
    world.expect(3, "check", says="did you mean `save-timeout`")
    for verb in (["prepare"], ["upgrade"], ["upgrade", "--dry-run"]):
        world.expect(3, *verb, "--kernel", kernel(), says=told)
    found = [f for f in world.ask("check")["findings"] if f["id"] == "host.config"]
    check(len(found) == 2 and all(f["verdict"] == "refusal" for f in found) and
          f"{path}:6: `high` is no value of priority" in found[1]["message"] and
          found[1]["remedy"] == "a number from 0 to 100", f"findings: {found}")
    check("policy" not in world.ask("guests")["guests"][0], "a policy is shown that is in effect nowhere")
    alone = subprocess.run([str(BUILD / "holdfastd"), "--check-config"], env=world.env, text=True, capture_output=True)
    check(alone.returncode == 1 and not alone.stdout and alone.stderr.startswith(f"{path}:4: ") and
          alone.stderr.count("\n") == 2, f"--check-config: {alone}")
    check(world.state == "normal" and guest.pid == pid, "something was begun")

    # Read anew each time. And what came over needs no configuration: the agent that comes finds a broken one.
    world.configure("[defaults]\nsave-timeout=20s\n")
    alone = subprocess.run([str(BUILD / "holdfastd"), "--check-config"], env=world.env, text=True, capture_output=True)
    check(alone.returncode == 0 and "\nsave-timeout=20s\n" in alone.stdout, f"--check-config: {alone}")
    world.expect(0, "check")
    world.expect(0, "prepare", "--kernel", kernel())
    world.configure("[defalts]\n")
    world.expect(0, "commit")
    check(guest.pid != pid and world.state == "normal", f"the host is {world.state}")
    guest.wait_alive()
    world.expect(3, "check", says=re.escape(f"{path}:1: there is no section [defalts]"))


@test
def policies_have_their_order(world):
    """Sections for a guest go before its launcher, and that before [defaults]; what a launcher gave comes along."""
    world.configure("[defaults]\npriority=10\nclock=frozen\nsave-timeout=7s\n")
    world.configure("[guest g*]\nsave-timeout=8s\n[guest other]\npriority=1\n", "holdfast.conf.d/50-guests.conf")
    wanted = {"priority": "20", "clock": "frozen", "save-timeout": "8s", "resume-timeout": "1min", "health-command": "",
              "not-eligible": "refuse", "resume-failure": "hold"}
    world.start_agent()
    guest = Guest(world, "g", holdfast=["--policy", "priority=20", "--policy", "save-timeout=9s"]).wait_ready()
    for round_ in range(2):
        got = world.policy("g")
        check({k: got[k] for k in wanted} == wanted and len(got) == 11, f"round {round_}: {got}")
        world.expect(0, "guests", "g", says=r"save-timeout +8s")
        world.expect(0, "prepare", "--kernel", kernel())
        manifest = world.ask("inspect", "manifest")["manifest"]["guests"][0]
        check(manifest["priority"] == 20 and manifest["clock"] == "frozen" and
              manifest["save_timeout_ns"] == 8 * 10**9 and manifest["not_eligible"] == "refuse" and
              manifest["settings"] == ["priority=20", "save-timeout=9s"], f"the manifest has {manifest}")
        world.expect(0, "commit")
    world.configure("", "holdfast.conf.d/50-guests.conf")
    check(world.policy("g")["save-timeout"] == "9s", f"without the section: {world.policy('g')}")
    guest.wait_alive()


@test
def time_out_of_the_configuration(world):
    """One guest's own: it can't save, and the others don't stand still for the usual 30 s."""
    world.configure("[guest g]\nsave-timeout=1s\n")
    world.start_agent()
    other, guest = Guest(world, "other").wait_ready(), Guest(world, "g").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    os.kill(guest.pid, signal.SIGSTOP)
    started = time.monotonic()
    commit = subprocess.Popen([str(BUILD / "holdfast"), "commit"], env=world.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    poll(lambda: "rolling back" in world.log(), 10, "the time-out")
    check(time.monotonic() - started < 8, "it was not the time-out that was configured")
    os.kill(guest.pid, signal.SIGCONT)
    _, err = commit.communicate(timeout=60)
    check(commit.returncode == 5 and "within 1000 ms" in err, f"commit ended with {commit.returncode}: {err}")
    for each in (other, guest):
        poll(lambda each=each: each.status == "running", 10, f"{each.name} to run again")
        each.wait_alive()


@test
def ineligible_guests_are_shut_down(world):
    """If that is their policy, and only when nothing else stands in the way; the update is made without them."""
    config = world.configure("[guest plugged]\nnot-eligible=shutdown\n")
    world.start_agent()
    good = Guest(world, "good").wait_ready()
    # One that could not be preserved from the start, and one that a device was plugged into.
    ram = ButtonGuest(world, "ram", extra=["-mem-path", world.path], holdfast=["--policy", "not-eligible=shutdown"])
    plugged = ButtonGuest(world, "plugged")
    for guest in (ram, plugged):
        guest.wait_listening()
    plugged.qmp("device_add", driver="virtio-rng-pci", id="later")
    pid = good.pid
    for name in ("ram", "plugged"):
        eligible, found = findings_of(world, name)
        (finding,) = (f for f in found.values() if f["verdict"] != "ok")
        check(not eligible and finding["verdict"] == "warning" and "power down" in finding["message"], f"{name}: {found}")
    world.expect(0, "check", says="power down")
    world.expect(0, "upgrade", "--kernel", kernel(), "--dry-run")

    # Nothing of it is done for an update that is refused anyway.
    config.write_text(config.read_text() + "colour=red\n")
    world.upgrade(code=3, says=re.escape(f"{config}:3"))
    config.write_text("[guest plugged]\nnot-eligible=refuse\n")
    world.upgrade(code=3, says="plugged")
    config.write_text("[guest plugged]\nnot-eligible=adopt\n")
    world.upgrade(code=3, says="plugged: .*its policy is to adopt it, which can't be done: it is not its RAM")
    config.write_text("[guest plugged]\nnot-eligible=shutdown\n")
    time.sleep(1)
    check(ram.runs and plugged.runs and good.pid == pid, "a guest ended for nothing")
    check("powering down" not in world.log(), "a guest was asked for nothing")

    done = world.upgrade()
    check("plugged: powering down" in done.stderr and "ram: has ended" in done.stderr, f"progress: {done.stderr}")
    for guest in (ram, plugged):
        check(guest.process.wait(10) == 0, f"{guest.name} did not end by itself: {guest.process.returncode}")
    check(good.pid != pid and world.state == "normal", f"the host is {world.state}")
    check([g["name"] for g in world.ask("report")["report"]["guests"]] == ["good"], "the report has others")
    good.wait_alive()


@test
def guest_that_ignores_its_power_button(world):
    """It is left as it is, and no update is made; nor for one that is paused, or that nobody can ask."""
    world.configure("[defaults]\nnot-eligible=shutdown\nshutdown-timeout=1s\n")
    world.start_agent()
    good = Guest(world, "good").wait_ready()
    pid = good.pid
    deaf = ButtonGuest(world, "deaf", reacts=False, extra=["-mem-path", world.path],
                       holdfast=["--policy", "not-eligible=shutdown"])
    world.upgrade(code=3, says="deaf: it was asked to power down and did not end within 1 s")
    check(deaf.status == "running" and good.pid == pid and world.state == "normal", "it was not left as it is")
    deaf.qmp("stop")
    world.upgrade(code=3, says="deaf: .*does not run")
    check(deaf.status == "paused" and good.pid == pid, "it was not left as it is")
    deaf.qmp("quit")
    # RAM that could be moved gets it a monitor: a shared file beside it keeps it from being moved.
    shared = f"memory-backend-file,id=nv,size=2M,mem-path={world.path}/nv,share=on"
    mute = ButtonGuest(world, "mute", extra=["-mem-path", world.path, "-object", shared])
    world.upgrade(code=3, says="mute: .*no monitor to be asked over")
    check(mute.runs and good.pid == pid, "it was not left as it is")
    good.wait_alive()


@test
def guest_that_cant_be_loaded_boots_anew(world):
    """If that is its policy: from its disk, with new memory, and only then is the old one given up."""
    world.configure("[guest cold]\nresume-failure=cold-boot\n")
    usual = world.qemu
    world.qemu, break_it = qemu_that(world, "qemu-cold", REFUSES_STATE)
    # A disk that two QEMUs can't have open, which the witness leaves alone: it knows only one boot.
    disk = world.path / "locked.img"
    disk.write_bytes(bytes(1 << 20))
    guest = Guest(world, "cold", extra=["-drive", f"file={disk},format=raw,if=virtio"],
                  holdfast=["--policy", "priority=60"]).wait_ready()
    world.qemu = usual
    good = Guest(world, "good").wait_ready()
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    break_it()
    pid, boots = guest.pid, len([r for r in guest.records() if r["tag"] == "READY"])
    world.expect(0, "commit", says="1 guests resumed, 1 started afresh|cold-booted")
    check(world.state == "normal", f"the host is {world.state}")
    check(guest.pid != pid and guest.status == "running", f"the guest is {guest.status}")
    poll(lambda: len([r for r in guest.records() if r["tag"] == "READY"]) == boots + 1, 60, "the guest to boot")
    report = world.ask("report")["report"]
    outcomes = {g["name"]: g["outcome"] for g in report["guests"]}
    check(report["outcome"] == "done" and outcomes == {"cold": "cold-booted", "good": "resumed"}, f"report: {report}")
    told = next(g["message"] for g in report["guests"] if g["name"] == "cold")
    check("no such state" in told, f"the report does not say why: {told}")
    check("cold was started afresh, what it had in memory is given up" in world.log(), "the log is silent")
    check(not ram_files(world.agent.pid), f"the agent still holds {ram_files(world.agent.pid)}")
    good.wait_alive()
    # It is a guest like any other, with what its launcher asked for.
    check(world.policy("cold")["priority"] == "60", f"policy: {world.policy('cold')}")
    write_program(world.path / "qemu-cold", f'exec {usual} "$@"')
    pid = guest.pid
    world.upgrade()
    check(guest.pid != pid and guest.status == "running", f"the guest is {guest.status}")
    check({g["outcome"] for g in world.ask("report")["report"]["guests"]} == {"resumed"}, "the next update fails")
    good.wait_alive()


@test
def guest_that_cant_be_started_at_all_is_held(world):
    """Then its memory is not given up, whatever its policy; and the other one doesn't wait for it."""
    world.configure("[guest bad]\nresume-failure=cold-boot\npriority=90\n")
    usual = world.qemu
    good = Guest(world, "good").wait_ready()
    world.qemu, break_it = qemu_that(world, "qemu-bad", "echo nothing works >&2; exit 1")
    Guest(world, "bad").wait_ready()
    world.qemu = usual
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    break_it()
    world.expect(6, "commit", says="bad")
    check(world.state == "degraded", f"the host is {world.state}")
    status = world.ask("status")
    held = [g for g in status["guests"] if g["status"] == "held"]
    check([g["name"] for g in held] == ["bad"] and "nothing works" in held[0]["findings"][0]["message"], f"{status}")
    check({g["name"]: g["outcome"] for g in world.ask("report")["report"]["guests"]} ==
          {"good": "resumed", "bad": "held"}, "the report is wrong")
    check("bad can't be started afresh, either" in world.log(), "the log is silent")
    check(any("pc.ram" in link for link in ram_files(world.agent.pid)), "its memory is gone")
    check(not list((world.path / "run/resumed").glob(f"{held[0]['uuid']}*")), "it is noted as running")
    good.wait_alive()


@test
def guest_that_cant_be_loaded_is_held(world):
    """Without a policy that says otherwise."""
    usual = world.qemu
    world.qemu, break_it = qemu_that(world, "qemu-bad", REFUSES_STATE)
    Guest(world, "bad").wait_ready()
    world.qemu = usual
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    break_it()
    world.expect(6, "commit", says="no such state")
    check(any("pc.ram" in link for link in ram_files(world.agent.pid)), "its memory is gone")
    check(len(world.registrations()) == 0, "it was started")


@test
def priorities_have_their_order(world):
    """Who matters least is paused first and brought up last; who matters the same goes at once."""
    world.configure("[guest low*]\npriority=10\n[guest high]\npriority=90\n")
    world.start_agent()
    guests = [Guest(world, name).wait_ready() for name in ("low1", "high", "middle", "low2")]
    world.upgrade()
    report = {g["name"]: {p["name"]: p["duration_ns"] for p in g["phases"]} for g in world.ask("report")["report"]["guests"]}

    def after(name, *phases):
        return sum(report[name][p] for p in phases)

    start, up = ("agent",), ("agent", "vmm-start", "load", "resume")
    down = ("pause", "save", "jump")
    for first, second in (("low1", "middle"), ("low2", "middle"), ("middle", "high")):
        # Backwards from the jump: this one was saved when that one was not paused yet.
        check(after(first, "jump") > after(second, *down), f"{first} was not saved before {second}: {report}")
        # Forwards from the agent's start: this one is started when that one runs.
        check(after(first, *start) > after(second, *up), f"{first} was started before {second} ran: {report}")
    for one, other in (("low1", "low2"), ("low2", "low1")):
        check(after(one, *start) < after(other, *up), f"{one} waited for {other}: {report}")
        check(after(one, "jump") < after(other, *down), f"{one} was saved before {other} was paused: {report}")
    for guest in guests:
        guest.wait_alive()


# ---- RAM that is moved first


def check_private(world, guest, pid):
    """It is the guest that it was, in the QEMU where it was, and can be adopted still."""
    check(guest.pid == pid and guest.process.poll() is None, f"{guest.name} has another QEMU")
    poll(lambda: guest.status == "running", 20, f"{guest.name} to run")
    parameters = guest.qmp("query-migrate-parameters")
    check(parameters["downtime-limit"] == 300 and parameters["max-bandwidth"] == 128 << 20,
          f"{guest.name}: its migration settings were not put back: {parameters}")
    check(not guest.capability("events"), f"{guest.name}: a capability is still on")
    eligible, found = findings_of(world, guest.name)
    check(not eligible and "holdfast adopt" in found["guest.ram"]["remedy"], f"{guest.name}: {found}")
    check(world.state == "normal", f"the host is {world.state}")
    check(not (world.path / "run/frozen.json").exists(), "the freeze note is still there")
    guest.wait_alive()


@every_qemu
def adoption(world):
    """RAM in a private file is moved, of a guest that was rewriting it; then the guest is like any other."""
    world.start_agent()
    guest = private_guest(world, cpus=2, memory=128, disk=True, extra=["-device", "VGA"])
    pid = guest.pid
    world.expect(3, "check", says="holdfast adopt g")
    # Emulated CPUs write to pages without QEMU noticing.
    world.expect(5, "adopt", "g", says="--paused")
    check_private(world, guest, pid)
    done = world.expect(0, "adopt", "g", "--paused", says="Adopted: guest g, now process")
    check("round" in done.stderr or "copying" in done.stderr, f"no progress: {done.stderr}")
    check(guest.pid != pid and guest.process.wait(10) is not None, "the old QEMU is still there")
    check(guest.status == "running" and world.state == "normal", f"it is {guest.status}, the host {world.state}")
    guest.wait_alive(2)
    eligible, found = findings_of(world, "g")
    check(eligible, f"it is not eligible: {found}")
    check(not guest.capability("x-ignore-shared"), "x-ignore-shared is on")
    world.expect(1, "adopt", "g", says="can be preserved as it is")
    for _ in range(2):
        pid = guest.pid
        world.upgrade()
        check(guest.pid != pid, "an ordinary update did not replace QEMU")
        guest.wait_alive()


@test
def adoption_of_an_unknown_qemu(world):
    """One that was not started by holdfast-vmm, with plain private RAM, by its process and a second monitor."""
    world.start_agent()
    stranger = Guest(world, "stranger", launcher=False, extra=[
        "-qmp", f"unix:{world.path}/second.qmp,server=on,wait=off", "-uuid", "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"])
    other = Guest(world, "other", launcher=False).wait_ready()
    stranger.wait_ready()
    pid = str(stranger.process.pid)
    second = str(world.path / "second.qmp")
    check(not world.ask("guests")["guests"], "it is known already")
    world.expect(2, "adopt", "--pid", pid, says="needs --qmp")
    world.expect(2, "adopt", "--pid", pid, "g", "--qmp", second, says="a guest, or a process")
    world.expect(2, "adopt", "--pid", "x1", "--qmp", second, says="takes a number")
    world.expect(2, "adopt", "--pid", pid, "--qmp", f"{second}-not", says="No such file")
    # The monitor of another guest would have that one copied and this one ended.
    world.expect(3, "adopt", "--pid", pid, "--qmp", str(other.own_monitor), says="the guest's QEMU is process")
    world.expect(1, "adopt", "--pid", "999999999", "--qmp", second, says="process 999999999")
    check(not world.ask("guests")["guests"] and stranger.status == other.status == "running", "something was done")
    world.expect(0, "adopt", "--pid", pid, "--qmp", second, "--name", "friend", "--paused", says="Adopted: guest friend")
    stranger.name = "friend"
    check(stranger.process.wait(10) == 0 and stranger.pid != int(pid), "the old QEMU is still there")
    stranger.wait_alive()
    check(other.status == "running", f"the other one is {other.status}")
    eligible, found = findings_of(world, "friend")
    check(eligible, f"it is not eligible: {found}")
    world.upgrade()
    stranger.wait_alive()
    other.wait_alive()
    other.process.kill()


@every_qemu
def adoption_of_a_running_guest(world):
    """Under KVM: RAM is copied while all of it is being rewritten, and nothing that was written is lost."""
    world.start_agent()
    guest = Writer(world, mib=2)
    done = world.ask("adopt", "writer", "--downtime", "50")
    check(done["copy"]["rounds"] > 1 and done["adopted"]["blackout_ns"] > 0, f"{done}")
    check(guest.process.wait(10) == 0, "the old QEMU is still there")
    guest.wait_alive()
    check(findings_of(world, "writer")[0], "it is not eligible")
    world.upgrade()
    guest.wait_alive()


@test
def adoption_of_a_paused_guest(world):
    world.start_agent()
    guest = private_guest(world)
    guest.qmp("stop")
    world.expect(0, "adopt", "g", says="Adopted")
    check(guest.status == "paused", f"it is {guest.status}")
    guest.check_quiet()
    guest.qmp("cont")
    guest.wait_alive()


def begin_adoption(world, guest, *options):
    """Until its RAM is being copied; then its QEMU stands still. Return: the client."""
    pid = guest.pid
    client = subprocess.Popen([str(BUILD / "holdfast"), "adopt", guest.name, "--paused", *options], env=world.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    poll(lambda: "copying its RAM while it is paused" in world.log(), 10, "the copy to begin", interval=0.005)
    os.kill(pid, signal.SIGSTOP)
    check("adopted: it stood still" not in world.log(), "it was copied before it could be stopped: nothing is shown")
    return client


@every_qemu
def adoption_that_is_broken_off(world):
    """The client goes, the time is over, holdfastd is stopped or killed: the guest runs on in its old QEMU."""
    world.start_agent()
    guest = private_guest(world, memory=256)
    pid = guest.pid

    client = begin_adoption(world, guest)
    world.expect(75, "prepare", "--kernel", kernel(), says="being adopted")
    world.expect(75, "adopt", "g", says="being adopted")
    check(world.ask("guests")["guests"][0]["step"] == "copying", "the step is not shown")
    client.kill()
    client.communicate()
    poll(lambda: "the client that asked for the adoption went away" in world.log(), 10, "the agent to notice")
    os.kill(pid, signal.SIGCONT)
    poll(lambda: "it runs as before" in world.log(), 30, "the undo")
    check_private(world, guest, pid)

    (world.path / "agent.log").write_text("")
    client = begin_adoption(world, guest, "--timeout", "1")
    time.sleep(1.5)
    os.kill(pid, signal.SIGCONT)
    _, err = client.communicate(timeout=60)
    check(client.returncode == 5 and "g: QEMU did not" in err, f"it ended with {client.returncode}: {err}")
    check_private(world, guest, pid)

    (world.path / "agent.log").write_text("")
    client = begin_adoption(world, guest)
    # Emulated CPUs must not run now, whoever wants it.
    os.kill(pid, signal.SIGCONT)
    monitor = Monitor(guest.own_monitor)
    poll(lambda: monitor.command("query-status")["status"] == "paused", 10, "the pause", interval=0.002)
    monitor.command("cont")
    monitor.close()
    _, err = client.communicate(timeout=60)
    check(client.returncode == 5 and "let it run during the copy" in err, f"it ended with {client.returncode}: {err}")
    check_private(world, guest, pid)

    (world.path / "agent.log").write_text("")
    client = begin_adoption(world, guest)
    world.agent.terminate()
    time.sleep(0.2)
    os.kill(pid, signal.SIGCONT)
    _, err = client.communicate(timeout=60)
    check(client.returncode in (1, 5), f"it ended with {client.returncode}: {err}")
    check(world.agent.wait(20) == 0, "the agent did not stop cleanly")
    world.start_agent()
    check_private(world, guest, pid)

    (world.path / "agent.log").write_text("")
    client = begin_adoption(world, guest)
    world.agent.kill()
    world.agent.wait()
    client.communicate()
    os.kill(pid, signal.SIGCONT)
    # It was paused for the copy: the next agent lets it run again.
    world.start_agent()
    poll(lambda: not (world.path / "run/frozen.json").exists(), 20, "the next agent to look after it")
    check(guest.status == "running" and guest.pid == pid, f"it is {guest.status}")
    guest.wait_alive()
    world.expect(0, "adopt", "g", "--paused", says="Adopted")
    guest.wait_alive()


@every_qemu
def adopted_guest_ends_meanwhile(world):
    """QEMU is killed while it is copied: that is said, and nothing else suffers."""
    world.start_agent()
    other = Guest(world, "other").wait_ready()
    guest = private_guest(world, memory=256)
    client = begin_adoption(world, guest)
    guest.process.kill()
    _, err = client.communicate(timeout=60)
    check(client.returncode == 5 and "g: its QEMU" in err, f"it ended with {client.returncode}: {err}")
    check(world.state == "normal" and [g["name"] for g in world.ask("guests")["guests"]] == ["other"], "not normal")
    check(not (world.path / "run/frozen.json").exists(), "the freeze note is still there")
    world.upgrade()
    other.wait_alive()


@test
def adopted_guest_that_does_not_come_up_is_held(world):
    """The old QEMU is gone and the new one won't start: the guest is held, and the agent stays."""
    wrapper = world.path / "qemu-private"
    wrapper.write_text(f"#!/bin/sh\ncase \"$*\" in *'-incoming defer'*) echo no room for it >&2; exit 1;; esac\n"
                       f"exec {world.qemu} \"$@\"\n")
    wrapper.chmod(0o755)
    world.start_agent()
    good = Guest(world, "good").wait_ready()
    world.qemu = wrapper
    private_guest(world)
    world.expect(6, "adopt", "g", "--paused", says="g: it is held")
    check(world.state == "degraded", f"the host is {world.state}")
    held = [g for g in world.ask("status")["guests"] if g["status"] == "held"]
    check([g["name"] for g in held] == ["g"] and "no room for it" in held[0]["findings"][0]["message"], f"{held}")
    world.expect(6, "adopt", "good", says="operator")
    world.agent.terminate()
    time.sleep(1)
    check(world.agent.poll() is None, "the agent stopped and gave the held guest's memory up")
    good.wait_alive()


@test
def held_adopted_guest_is_dumped_and_retried(world):
    """Its files stay with the agent from one try to the next, and no longer."""
    private = PrivateQemu(world)
    world.start_agent()
    guest = private_guest(world, "g", private, memory=128)
    guest.wait_alive()
    private.fails_to_load()
    world.expect(6, "adopt", "g", "--paused", says="g: it is held: .*no such state")
    world.expect(6, "retry", "g", says="g: .*no such state")
    check(world.state == "degraded" and guest_json(world, "g")["status"] == "held", "it is not held any more")
    core = world.path / "core"
    world.expect(0, "dump", "g", str(core), says="128 MiB of memory")
    check(any(Core(core).read(0x1000000, 1 << 20)), "its memory is not in the core")
    private.path.unlink()
    world.expect(6, "retry", "g", says="qemu-private")
    private.works()
    world.expect(0, "retry", "g")
    check(world.state == "normal" and guest.status == "running", f"the host is {world.state}")
    check(not memfds(world.agent.pid), f"the agent keeps {memfds(world.agent.pid)}")
    check(not list((world.path / "run/resumed").glob("*")), "notes stay behind")
    guest.wait_alive()
    check(findings_of(world, "g")[0], "it is not eligible")
    world.upgrade()
    guest.wait_alive()


@test
def agent_killed_when_the_adopted_guests_old_qemu_has_ended(world):
    """The keeper has the guest: the next agent starts its new QEMU. With the carrier `luo`, as on a real host."""
    private = PrivateQemu(world)
    world.start_agent("--carrier", "luo")
    other = Guest(world, "other").wait_ready()
    guest = private_guest(world, "g", private, memory=128)
    guest.wait_alive()
    private.is_slow(60)
    client = subprocess.Popen([str(BUILD / "holdfast"), "adopt", "g", "--paused"], env=world.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    guest.process.wait(60)
    poll(lambda: world.state == "resuming", 10, "the arrival")
    check(not (world.path / "run/frozen.json").exists(), "the freeze note is still there")
    world.agent.kill()
    world.agent.wait()
    client.communicate(timeout=20)
    check(client.returncode != 0, "the client was told that all is well")
    check([k for k in world.keepers() if [m for m in memfds(k) if "pc.ram" in m]], "nobody has its memory")
    private.works()
    world.start_agent("--carrier", "luo")
    poll(lambda: world.state == "normal", 30, "the next agent to bring it up")
    check("died when it adopted a guest: going on" in world.log(), "the log is silent")
    check(guest.status == "running", f"it is {guest.status}")
    guest.wait_alive(2)
    check(findings_of(world, "g")[0], "it is not eligible")
    poll(lambda: not world.keepers() and not (world.path / "run/adopted.sock").exists(), 10, "the keeper to end")
    check(not memfds(world.agent.pid) and not list((world.path / "run/resumed").glob("*")), "something stays behind")
    check(not guest.capability("x-ignore-shared"), "x-ignore-shared is on")
    check(not world.cli("report").stdout.startswith("Update"), "it is told as an update")
    world.agent.terminate()
    check(world.agent.wait(20) == 0, "the agent does not stop")
    world.start_agent()
    world.upgrade()
    for each in (guest, other):
        each.wait_alive()


@test
def agent_killed_while_an_adopted_guest_is_held(world):
    """It is held by the next one as well, and nothing else can be done with the host; then it comes back."""
    private = PrivateQemu(world)
    world.start_agent("--carrier", "luo")
    guest = private_guest(world, "g", private, memory=128)
    guest.wait_alive()
    private.fails_to_load()
    world.expect(6, "adopt", "g", "--paused", says="g: it is held: .*no such state")
    for _ in range(2):
        world.agent.kill()
        world.agent.wait()
        world.start_agent("--carrier", "luo")
        poll(lambda: world.state == "degraded", 30, "the guest to be held again")
        check(guest_json(world, "g")["status"] == "held", "it is not shown as held")
    world.expect(6, "adopt", "g", says="operator")
    world.expect(6, "retry", "g", says="g: .*no such state")
    core = world.path / "core"
    world.expect(0, "dump", "g", str(core), says="128 MiB of memory")
    check(any(Core(core).read(0x1000000, 1 << 20)), "its memory is not in the core")
    world.expect(0, "retry", "g", "--qemu", world.qemu)
    check(world.state == "normal" and guest.status == "running", f"the host is {world.state}")
    guest.wait_alive(2)
    poll(lambda: not world.keepers(), 10, "the keeper to end")
    check(not memfds(world.agent.pid), f"the agent keeps {memfds(world.agent.pid)}")


@test
def adopted_as_is_their_policy(world):
    """By prepare, when nothing else is in the way: paused guests, as their CPUs are emulated; all or no update."""
    config = world.configure("[defaults]\nnot-eligible=adopt\n")
    world.start_agent()
    good = Guest(world, "good").wait_ready()
    one, two = private_guest(world, "one"), private_guest(world, "two")
    pids = {guest: guest.pid for guest in (good, one, two)}
    for guest in (one, two):
        eligible, found = findings_of(world, guest.name)
        check(not eligible and found["guest.ram"]["verdict"] == "warning", f"{found}")
    plan = {g["name"]: g["action"] for g in world.ask("plan")["guests"]}
    check(plan == {"good": "carry", "one": "adopt", "two": "adopt"}, f"{plan}")
    world.expect(0, "plan", says="adopted, then carried over")
    world.expect(0, "check", says="it is adopted when an update is prepared")
    world.expect(0, "upgrade", "--kernel", kernel(), "--dry-run")
    config.write_text(config.read_text() + "colour=red\n")
    world.upgrade(code=3, says=re.escape(f"{config}:3"))
    config.write_text("[defaults]\nnot-eligible=adopt\n")
    check({guest: guest.pid for guest in pids} == pids and "adopting" not in world.log(), "something was done")

    one.qmp("stop")
    world.upgrade(code=3, says="two: not adopted, as is its policy: .*emulated")
    check(one.pid != pids[one] and two.pid == pids[two] and good.pid == pids[good], "it is not one that was adopted")
    check(findings_of(world, "one")[0], "it was not left adopted")
    check(world.state == "normal" and one.status == "paused" and two.status == "running", f"{one.status}, {two.status}")
    two.wait_alive()

    two.qmp("stop")
    done = world.upgrade()
    check("two: copying its RAM" in done.stderr, f"progress: {done.stderr}")
    check(all(guest.pid != pid for guest, pid in pids.items()), "one was not carried over")
    check(len(world.ask("report")["report"]["guests"]) == 3, "the report has others")
    for guest in (one, two):
        check(guest.status == "paused", f"{guest.name} is {guest.status}")
        guest.qmp("cont")
    for guest in pids:
        guest.wait_alive()


@test
def adoption_by_policy_that_is_broken_off(world):
    """The client that asked for the update goes, or the guest's new QEMU fails: no update, and nobody else suffers."""
    world.configure("[defaults]\nnot-eligible=adopt\n")
    world.start_agent()
    private = PrivateQemu(world)
    guest = private_guest(world, "g", private, memory=256)
    guest.qmp("stop")
    pid = guest.pid
    client = subprocess.Popen([str(BUILD / "holdfast"), "prepare", "--kernel", kernel()], env=world.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    poll(lambda: "copying its RAM" in world.log(), 20, "the copy to begin", interval=0.005)
    os.kill(pid, signal.SIGSTOP)
    check("adopted: it stood still" not in world.log(), "it was copied before it could be stopped: nothing is shown")
    world.expect(75, "prepare", "--kernel", kernel(), says="being adopted")
    client.kill()
    client.communicate()
    poll(lambda: "the client that asked for the update went away" in world.log(), 10, "the agent to notice")
    os.kill(pid, signal.SIGCONT)
    poll(lambda: "it runs as before" in world.log(), 30, "the undo")
    check(guest.pid == pid and guest.status == "paused" and world.state == "normal", f"it is {guest.status}")
    check(not (world.path / "run/frozen.json").exists(), "the freeze note is still there")

    private.fails_to_load()
    world.upgrade(code=6, says="g: not adopted, as is its policy: it is held: .*no such state")
    check(world.state == "degraded", f"the host is {world.state}")
    private.works()
    world.expect(0, "retry", "g")
    check(world.state == "normal" and guest.status == "paused", f"the host is {world.state}")
    guest.qmp("cont")
    guest.wait_alive()
    world.upgrade()
    guest.wait_alive()


@test
def held_adopted_guest_is_released(world):
    private = PrivateQemu(world)
    world.start_agent()
    good = Guest(world, "good").wait_ready()
    private_guest(world, "g", private, memory=128)
    private.fails_to_load()
    world.expect(6, "adopt", "g", "--paused", says="g: it is held")
    world.expect(2, "release", "g", says="128 MiB, for good")
    check(memfds(world.agent.pid), "the agent has nothing of it")
    world.expect(0, "release", "g", "--yes", says="128 MiB")
    check(world.state == "normal" and guest_json(world, "g") is None, f"the host is {world.state}")
    check(not memfds(world.agent.pid), f"the agent keeps {memfds(world.agent.pid)}")
    check(not list((world.path / "run/resumed").glob("*")), "notes stay behind")
    world.expect(1, "retry", "g", says="no guest of this name")
    good.wait_alive()
    world.upgrade()
    good.wait_alive()
    world.agent.terminate()
    check(world.agent.wait(20) == 0, "the agent does not stop")


# ---- another QEMU than the one that runs


def has_odd_queues(guest):
    """A queue of the random number generator has 8 entries, but for the QEMUs that get it wrong."""
    path = next(d["path"] for d in guest.qmp("x-query-virtio") if d["name"] == "virtio-rng")
    return guest.qmp("x-query-virtio-queue-status", path=path, queue=0)["vring-num-default"] > 8


@test
def newer_qemu_is_installed(world):
    """A pair of versions that works is said, and works; one that doesn't is refused; the same one is neither."""
    package = Package(world)
    package.install("10.0")
    world.start_agent()
    plain = Guest(world, "plain", machine="pc").wait_ready()
    virtio = Guest(world, "virtio", extra=["-device", "virtio-rng-pci"]).wait_ready()
    odd, old = has_odd_queues(virtio), full_version(plain)
    for guest in (plain, virtio):
        eligible, found = findings_of(world, guest.name)
        check(eligible and set(found) == {"guest.eligible", "guest.agent"}, f"the same QEMU, but: {found}")

    package.install("11.1")
    eligible, found = findings_of(world, "plain")
    check(eligible and found["guest.eligible"]["verdict"] == "ok", f"plain: {found}")
    caveat = found["guest.qemu-version"]
    check(caveat["verdict"] == "warning" and old in caveat["message"] and " 11.1." in caveat["message"],
          f"plain: {caveat}")
    eligible, found = findings_of(world, "virtio")
    reason = found["guest.qemu-version"]
    check(old in reason["message"] and " 11.1." in reason["message"] and reason["remedy"], f"virtio: {reason}")
    check(eligible != odd and reason["verdict"] == ("refusal" if odd else "warning"), f"virtio: {reason}")
    if odd:
        world.expect(3, "check", says="virtio-rng")
        world.expect(0, "guests", says="virtqueues")
        for verb in (["prepare"], ["upgrade"], ["upgrade", "--dry-run"]):
            world.expect(3, *verb, "--kernel", kernel(), says=f"virtio: .*{re.escape(old)}.* 11\\.1\\.")
        check(world.state == "normal", f"the host is {world.state}")
        for guest in (plain, virtio):
            check(full_version(guest) == old and guest.status == "running", f"{guest.name} suffered")
            guest.wait_alive()
        # With the old package back, nothing is in the way.
        package.install("10.0")
        world.upgrade()
        virtio.wait_alive()
        virtio.qmp("quit")
        poll(lambda: len(world.ask("guests")["guests"]) == 1, 10, "the end of a guest")
        package.install("11.1")

    world.expect(0, "check", says="look at the warnings first")
    world.upgrade()
    check(full_version(plain).startswith("11.1."), f"plain runs on {full_version(plain)}")
    plain.wait_alive()
    eligible, found = findings_of(world, "plain")
    check(eligible and set(found) == {"guest.eligible", "guest.agent"}, f"the same QEMU, but: {found}")


@test
def older_qemu_is_installed(world):
    """It lacks the machine type; and then it is gone altogether."""
    package = Package(world)
    package.install("10.0")
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    old = package.versions["10.0"]
    package.install("7.2")
    world.expect(3, "check", says="QEMU 7.2.*no machine type `pc-q35-10.0`")
    world.upgrade(code=3, says="g: .*no machine type")
    package.path.unlink()
    world.expect(3, "check", says="nothing could be started.*qemu-package")
    world.upgrade(code=3, says="g: .*qemu-package")
    package.path.write_text("#!/bin/sh\necho no room for QEMU; exit 1\n")
    package.path.chmod(0o755)
    world.expect(3, "check", says="no room for QEMU")
    # It may be one all the same: no more than a warning.
    package.path.write_text(f"#!/bin/sh\n[ $1 = --version ] || exec {old} \"$@\"\n")
    world.expect(0, "check", says="can't be told")
    world.upgrade()
    guest.wait_alive()


# ---- what must be refused, with guests running as before


@test
def ineligible_guest_refuses_all(world):
    world.start_agent()
    good = Guest(world, "good").wait_ready()
    bad = Guest(world, "bad", extra=["-mem-path", str(world.path)])
    poll(lambda: len(world.registrations()) == 2, 10, "the second registration")
    world.expect(3, "check", says="bad")
    world.upgrade(code=3, says="bad")
    check(world.state == "normal" and good.status == "running", "the good guest suffered")
    good.wait_alive()
    check(bad.process.poll() is None, "the ineligible guest does not run")


@test
def monitor_taken(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    entry = json.loads(next((world.path / "run/guests").glob("*.json")).read_text())
    thief = Monitor(find(entry, "qmpPath"))
    world.expect(3, "check", says="taken by another client")
    world.upgrade(code=3, says="g: .*taken by another client")
    thief.close()
    guest.wait_alive()
    world.upgrade()
    guest.wait_alive()


# A program that has a guest's memory and its monitor's socket, and says there what the file beside it has. What it is
# asked it answers with nothing else: where a line ends in ASKED, one command is read, whose number takes the place of ID.
BABBLER = """
import json, os, re, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(re.search("[^,=: ]*/qmp/[^, ]*", " ".join(sys.argv)).group())
listener.listen(4)
while True:
    peer = listener.accept()[0].makefile("rwb", buffering=0)
    try:
        for line in open(os.environ["BABBLE"], "rb"):
            if line.endswith(b"ASKED\\n"):
                asked = json.loads(peer.readline())
                line = line[:-6].replace(b"ID", str(asked["id"]).encode()) + b"\\n"
            while line:
                line = line[peer.write(line):]
        while peer.read(65536):
            pass
    except (OSError, ValueError):
        pass
    peer.close()
"""


@test
def monitor_that_talks_nonsense(world):
    """Whatever a guest's monitor says, the agent and the other guest live, and it is said what is wrong, and where."""
    greeting = (b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, '
                b'"capabilities": []}}\r\n')
    babble = world.path / "babble"
    world.env["BABBLE"] = str(babble)
    (world.path / "babbler.py").write_text(BABBLER)
    babble.touch()
    other = Guest(world, "other").wait_ready()
    private = PrivateQemu(world)
    private.write(f'case "$*" in */qmp/*) exec {sys.executable} {world.path}/babbler.py "$@";; esac\n'
                  f'exec {world.qemu} "$@"')
    guest = private.guest("babbler")
    poll(lambda: list((world.path / "run/qmp").glob("*.sock"))[1:], 20, "its monitor")
    world.start_agent()
    pid = other.pid
    agreed = greeting + b'{"return": {}, "id": ID}ASKED\n'
    monitor = "see who listens on its monitor: it has to be the guest's QEMU"
    for says, told, remedy in (
            (os.urandom(4096).replace(b"{", b"x") + b"\n", "QEMU sent what is no JSON object", monitor),
            (b"[" * 100000 + b"\n", "QEMU sent what is no JSON object", monitor),
            (b'{"QMP": 1}\n', "what answers is not QMP", monitor),
            (b'{"QMP": "' + b"x" * (64 << 20), "QEMU sent a message beyond all limits", monitor),
            (greeting, "QEMU did not answer `qmp_capabilities`", "look what QEMU is doing: process [0-9]+"),
            (agreed + b'{"return": {}, "id": 4711}ASKED\n', "a reply to a command that was never sent", monitor),
            (agreed + b'{"return": 7, "id": ID}ASKED\n', "QEMU's answer to .* makes no sense", monitor)):
        babble.write_bytes(says)
        world.expect(3, "check", says=f"Guest babbler\n +refusal .*{told}.*\n +{remedy}\n")
        world.upgrade(code=3, says=f"holdfast: babbler: .*{told}.*\n +{remedy}\n")
        check(world.state == "normal" and other.pid == pid, "something was begun")
    guest.process.kill()
    guest.process.wait()
    other.wait_alive()
    world.upgrade()
    other.wait_alive()


@test
def silent_qemu_times_out(world):
    world.start_agent()
    other, guest = Guest(world, "other"), Guest(world, "g").wait_ready()
    other.wait_ready()
    os.kill(guest.pid, signal.SIGSTOP)
    world.upgrade(code=3, says="g: ")
    os.kill(guest.pid, signal.SIGCONT)
    for each in (other, guest):
        check(each.status == "running", f"{each.name} is {each.status}")
        each.wait_alive()
    world.upgrade()
    guest.wait_alive()


@test
def guest_that_hangs_in_commit_rolls_all_back(world):
    world.start_agent()
    other, guest = Guest(world, "other").wait_ready(), Guest(world, "g").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    os.kill(guest.pid, signal.SIGSTOP)
    commit = subprocess.Popen([str(BUILD / "holdfast"), "commit"], env=world.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # The save times out after 30 s, the other guest is paused meanwhile; then this one can answer again.
    time.sleep(31)
    os.kill(guest.pid, signal.SIGCONT)
    _, err = commit.communicate(timeout=90)
    check(commit.returncode in (5, 6) and "g" in err, f"commit ended with {commit.returncode}: {err}")
    check("still under way: " in err, f"nothing was said meanwhile: {err}")
    for each in (other, guest):
        poll(lambda each=each: each.status == "running", 10, f"{each.name} to run again")
        check(not each.capability("x-ignore-shared"), f"{each.name}: x-ignore-shared is still on")
        each.wait_alive()


@test
def save_that_qemu_refuses_rolls_back(world):
    """A device without migration support: QEMU says so only when the save begins."""
    world.start_agent()
    other = Guest(world, "other").wait_ready()
    disk = world.path / "nvme.img"
    disk.write_bytes(b"\0" * (1 << 20))
    guest = Guest(world, "nvme", extra=["-drive", f"if=none,id=n,file={disk},format=raw",
                                        "-device", "nvme,drive=n,serial=x"]).wait_ready()
    done = world.cli("upgrade", "--kernel", kernel())
    check(done.returncode in (3, 5), f"upgrade ended with {done.returncode}: {done.stderr}")
    check("nvme" in done.stderr and "non-migratable" in done.stderr, f"the reason is missing: {done.stderr}")
    for each in (other, guest):
        check(each.status == "running", f"{each.name} is {each.status}")
        check(not each.capability("x-ignore-shared"), f"{each.name}: x-ignore-shared is still on")
        each.wait_alive()
    check(world.state == "normal", f"the host is {world.state}")


@every_qemu
def device_plugged_in_after_prepare_rolls_back(world):
    """QEMU saves it, and no command line would have it after the jump: then the guest could never be loaded."""
    world.start_agent()
    other, guest = Guest(world, "other").wait_ready(), Guest(world, "g", machine="pc").wait_ready()
    pids = other.pid, guest.pid
    world.expect(0, "prepare", "--kernel", kernel())
    guest.qmp("device_add", driver="virtio-rng-pci", id="late")
    world.expect(5, "commit", says="device late was plugged in")
    for each, pid in zip((other, guest), pids):
        check(each.status == "running" and each.pid == pid, f"{each.name} is {each.status}")
        check(not each.capability("x-ignore-shared"), f"{each.name}: x-ignore-shared is still on")
        each.wait_alive()
    check(world.state == "normal", f"the host is {world.state}")
    world.expect(3, "prepare", "--kernel", kernel(), says="late was plugged in")


def pluggable_guest(world, name, **how):
    """Until plug() it can be saved; then it has a device that QEMU up to 10 can't, and no check has seen."""
    disk = world.path / f"{name}.img"
    disk.write_bytes(bytes(1 << 20))
    return Guest(world, name, machine="pc", extra=["-drive", f"if=none,id=n,file={disk},format=raw"], **how)


def plug(guest):
    guest.qmp("device_add", driver="nvme", drive="n", serial="x", id="plugged")


def boots(guest):
    return len([r for r in guest.records() if r["tag"] == "READY"])


@test
def guest_that_cant_be_saved_boots_anew(world):
    """If that is its policy: it goes without its device state, and the others don't notice."""
    world.configure("[guest nvme]\nsave-failure=cold-boot\n")
    world.start_agent()
    guest = pluggable_guest(world, "nvme", holdfast=["--policy", "priority=40"]).wait_ready()
    good = Guest(world, "good").wait_ready()
    plan = world.cli("plan").stdout
    check(re.search("nvme .*if it can't be saved, it is started afresh", plan), f"the plan is silent: {plan}")
    check(not re.search("good .*afresh", plan), f"the plan says too much: {plan}")
    pid, before = guest.pid, boots(guest)
    world.expect(0, "prepare", "--kernel", kernel())
    plug(guest)
    done = world.expect(0, "commit", says="1 guests resumed, 1 started afresh|cold-booted")
    check(re.search("nvme: .*can't be saved, and will be started afresh: .*non-migratable", done.stderr),
          f"commit does not say it: {done.stderr}")
    check(world.state == "normal", f"the host is {world.state}")
    check(guest.pid != pid and guest.status == "running", f"the guest is {guest.status}")
    check(not pathlib.Path(f"/proc/{pid}").exists() or guest.process.poll() is not None, "its old QEMU still runs")
    poll(lambda: boots(guest) == before + 1, 60, "the guest to boot")
    check(boots(good) == 1, "the other one was started afresh")
    good.wait_alive()
    report = world.ask("report")["report"]
    outcomes = {g["name"]: g["outcome"] for g in report["guests"]}
    check(report["outcome"] == "done" and outcomes == {"nvme": "cold-booted", "good": "resumed"}, f"report: {report}")
    told = next(g for g in report["guests"] if g["name"] == "nvme")
    check("could not be saved before the jump" in told["message"] and "non-migratable" in told["message"], f"{told}")
    check(told["state_bytes"] == 0, f"it had a device state: {told}")
    check("nvme can't be saved: " in world.log() and "what it has in memory will be lost" in world.log(),
          "the log is silent")
    update = world.ask("history")["updates"][0]
    check(update["cold_booted"] == 1 and update["guests"] == 2, f"history: {update}")
    check("2 (1 afresh)" in world.cli("history").stdout, "history is silent")
    check(not ram_files(world.agent.pid), f"the agent still holds {ram_files(world.agent.pid)}")
    # It is a guest like any other, with what its launcher asked for; the device went with its memory.
    check(world.policy("nvme")["priority"] == "40", f"policy: {world.policy('nvme')}")
    pid = guest.pid
    world.upgrade()
    check(guest.pid != pid and guest.status == "running", f"the guest is {guest.status}")
    good.wait_alive()


@test
def guest_without_state_runs_on_after_a_rollback(world):
    """Another one can't be saved either, and may not be started afresh: then nobody is."""
    world.configure("[guest mayboot]\nsave-failure=cold-boot\npriority=10\n")
    world.start_agent()
    guests = [pluggable_guest(world, name).wait_ready() for name in ("mayboot", "maynot")]
    pids = [g.pid for g in guests]
    world.expect(0, "prepare", "--kernel", kernel())
    for each in guests:
        plug(each)
    world.expect(5, "commit", says="maynot: .*non-migratable")
    check("mayboot can't be saved: " in world.log(), "it was not tried without its state")
    check(world.state == "normal", f"the host is {world.state}")
    check([g.pid for g in guests] == pids, "a guest is in another process")
    for each in guests:
        check(each.status == "running", f"{each.name} is {each.status}")
        check(not each.capability("x-ignore-shared"), f"{each.name}: x-ignore-shared is still on")
        each.wait_alive()
        check(boots(each) == 1, f"{each.name} was started afresh")


@test
def guest_that_is_late_is_not_started_afresh(world):
    """A time-out says nothing about the guest: the update is rolled back, whatever the policy."""
    world.configure("[guest g]\nsave-failure=cold-boot\nsave-timeout=2s\n")
    world.start_agent()
    other, guest = Guest(world, "other").wait_ready(), Guest(world, "g").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    os.kill(guest.pid, signal.SIGSTOP)
    commit = subprocess.Popen([str(BUILD / "holdfast"), "commit"], env=world.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    poll(lambda: "within 2000 ms" in world.log(), 20, "the time-out")
    os.kill(guest.pid, signal.SIGCONT)
    _, err = commit.communicate(timeout=90)
    check(commit.returncode == 5 and "within 2000 ms" in err, f"commit ended with {commit.returncode}: {err}")
    check("afresh" not in world.log(), "it was to be started afresh")
    for each in (other, guest):
        poll(lambda each=each: each.status == "running", 10, f"{each.name} to run again")
        each.wait_alive()


@test
def guest_without_state_that_cant_be_started_is_held(world):
    """Its memory is kept, and a retry starts it afresh."""
    world.configure("[guest nvme]\nsave-failure=cold-boot\n")
    usual = world.qemu
    good = Guest(world, "good").wait_ready()
    world.qemu, break_it = qemu_that(world, "qemu-bad", "echo nothing works >&2; exit 1")
    guest = pluggable_guest(world, "nvme").wait_ready()
    world.qemu = usual
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    plug(guest)
    break_it()
    world.expect(6, "commit", says="nvme")
    check(world.state == "degraded", f"the host is {world.state}")
    held = [g for g in world.ask("status")["guests"] if g["status"] == "held"]
    check([g["name"] for g in held] == ["nvme"], f"held: {held}")
    check("could not be saved before the jump" in held[0]["findings"][0]["message"], f"{held}")
    check("nvme can't be started afresh, either: " in world.log(), "the log is silent")
    check(any("pc.ram" in link for link in ram_files(world.agent.pid)), "its memory is gone")
    good.wait_alive()
    world.expect(0, "dump", "nvme", str(world.path / "core"), says="registers: .*it could not be saved")
    write_program(world.path / "qemu-bad", f'exec {usual} "$@"')
    before = boots(guest)
    world.expect(0, "retry", "nvme")
    check(world.state == "normal", f"the host is {world.state}")
    poll(lambda: boots(guest) == before + 1, 60, "the guest to boot")
    check(not ram_files(world.agent.pid), f"the agent still holds {ram_files(world.agent.pid)}")


@test
def agent_killed_with_a_guest_without_state(world):
    """The next one lets it run on, as it does the others."""
    world.configure("[guest nvme]\nsave-failure=cold-boot\n")
    world.start_agent()
    guest, blocker = pluggable_guest(world, "nvme").wait_ready(), Guest(world, "blocker").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    plug(guest)
    os.kill(blocker.pid, signal.SIGSTOP)
    commit = subprocess.Popen([str(BUILD / "holdfast"), "commit"], env=world.env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    poll(lambda: "nvme can't be saved: " in world.log(), 20, "the guest to be without its state")
    check(guest.status != "running", "it still runs")
    world.agent.kill()
    world.agent.wait()
    commit.kill()
    commit.wait()
    os.kill(blocker.pid, signal.SIGCONT)
    world.start_agent()
    for each in (guest, blocker):
        poll(lambda each=each: each.status == "running", 20, f"{each.name} to run again")
        each.wait_alive()
        check(boots(each) == 1, f"{each.name} was started afresh")


@test
def guest_dies_while_prepared(world):
    world.start_agent()
    other, guest = Guest(world, "other").wait_ready(), Guest(world, "doomed").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    guest.process.kill()
    poll(lambda: world.state == "normal", 20, "the roll-back")
    check("doomed" in world.log(), "the log does not name the guest")
    other.wait_alive()
    world.upgrade()
    other.wait_alive()


def other_and_doomed(world):
    """Return: a guest that is to live, one that is to die, and the first one's process."""
    world.start_agent()
    other, doomed = Guest(world, "other").wait_ready(), Guest(world, "doomed").wait_ready()
    return other, doomed, other.pid


def die(world, guest, *verb, when=None):
    """@guest's QEMU is killed while @verb waits for it, or when @when. How that ended: exit status, standard error."""
    if not when:
        os.kill(guest.pid, signal.SIGSTOP)
    client = subprocess.Popen([str(BUILD / "holdfast"), *verb], env=world.env, text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if when:
        poll(when, 20, "the time to kill it", interval=0.002)
    else:
        time.sleep(1)
    check(client.poll() is None, f"{verb} did not wait for {guest.name}")
    guest.process.kill()
    _, err = client.communicate(timeout=60)
    check(re.search(f"^holdfast: {guest.name}: its QEMU went away.*\n  .+", err, re.MULTILINE),
          f"it doesn't say whose QEMU ended, or not what to do: {err}")
    return client.returncode, err


def check_as_before(world, guest, pid):
    check(world.state == "normal", f"the host is {world.state}")
    check("doomed: as before" not in world.log(), "a guest that has ended is called as before")
    check(guest.pid == pid and guest.status == "running", f"{guest.name} is {guest.status}, in process {guest.pid}")
    check(not guest.capability("x-ignore-shared"), f"{guest.name}: x-ignore-shared is still on")
    guest.wait_alive()


def check_update_without_it(world, other, pid):
    world.upgrade()
    check(other.pid != pid, "no update can be made without it")
    other.wait_alive()


@test
def guest_dies_while_preparing(world):
    """When it is looked at, and when its memory is copied to disk, which takes a while; the other one lives."""
    other, guest, pid = other_and_doomed(world)
    code, err = die(world, guest, "prepare", "--kernel", kernel())
    check(code == 3 and "see QEMU's log, and try again" in err, f"it ended with {code}: {err}")
    check("preparing" not in world.log(), "something was begun")
    check_as_before(world, other, pid)

    late = Guest(world, "late", memory=192).wait_ready()
    code, err = die(world, late, "prepare", "--kernel", kernel(), "--carrier", "image", "--plaintext",
                    when=lambda: guest_json(world, "late").get("step") == "preserving")
    check(code == 5 and "prepare again" in err, f"it ended with {code}: {err}")
    check("preparing -> aborting" in world.log(), "it was not undone")
    check_as_before(world, other, pid)
    check([g["name"] for g in world.ask("guests")["guests"]] == ["other"], "the dead one is still a guest")
    check_update_without_it(world, other, pid)


@test
def guest_dies_while_it_is_saved(world):
    other, guest, pid = other_and_doomed(world)
    world.expect(0, "prepare", "--kernel", kernel())
    code, err = die(world, guest, "commit")
    check(code == 5 and "see QEMU's log, and try again" in err, f"it ended with {code}: {err}")
    check("other: saved" in world.log(), "it was not committed")
    check_as_before(world, other, pid)
    check_update_without_it(world, other, pid)


@test
def guest_started_after_prepare(world):
    world.start_agent()
    first = Guest(world, "first").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    late = Guest(world, "late").wait_ready()
    world.expect(1, "commit", says="late: .*started after")
    check(world.state == "prepared", f"the host is {world.state}")
    world.expect(0, "abort")
    for each in (first, late):
        each.wait_alive()


@test
def client_vanishes(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    pid = guest.pid
    os.kill(pid, signal.SIGSTOP)
    sock = raw_call(world, "org.holdfast.Host.Upgrade", {"target": {"kernel": kernel()}})
    time.sleep(0.5)
    sock.close()
    os.kill(pid, signal.SIGCONT)
    time.sleep(1)
    poll(lambda: world.state == "normal", 20, "the agent to give up")
    check(guest.pid == pid and guest.status == "running", "the update went on without its client")
    guest.wait_alive()


@test
def usage_errors(world):
    """Verbs that are used wrongly, with an agent that could do what is asked."""
    world.start_agent()
    world.expect(2, "upgrade", says="kernel")
    world.expect(2, "upgrade", "--kernel", kernel(), "--append", "a", "--cmdline", "b", says="--cmdline")
    world.expect(2, "frobnicate", says="frobnicate")
    check("preparing" not in world.log() and world.state == "normal", "something was begun")


@test
def host_without_luo(world):
    """The luo carrier on a kernel that can't: refused before anything is touched."""
    if os.path.exists("/dev/liveupdate"):
        raise Skip("this host's kernel has it")
    guest = Guest(world, "g").wait_ready()
    world.start_agent("--carrier", "luo")
    world.expect(3, "check", says="Live Update Orchestrator|liveupdate|LUO")
    world.upgrade(code=3, says="liveupdate|LUO")
    world.expect(3, "check", "--kernel", "/etc/passwd", says="/etc/passwd: not a kernel image: ")
    world.expect(3, "check", "--kernel", "/nonexistent", says="/nonexistent")
    check(guest.status == "running", f"the guest is {guest.status}")
    guest.wait_alive()


def target_findings(world, kernel, verb="check"):
    """What is found about a target, by id: (verdict, message). The host itself may not be ready."""
    done = world.cli(verb, "--kernel", str(kernel), "-o", "json")
    check(done.returncode in (0, 3), f"{verb} ended with {done.returncode}: {done.stderr}")
    return {f["id"]: (f["verdict"], f["message"]) for f in json.loads(done.stdout)["findings"]
            if f["id"].startswith("target.")}


@test
def target_that_would_lose_guests(world):
    """The luo carrier looks into the target: one that can't take over is refused, whatever else is."""
    guest = Guest(world, "g").wait_ready()
    pid = guest.pid
    world.start_agent("--carrier", "luo")
    whole = kernel_sample.bzimage()
    images = {
        "whole": (whole, None, None),
        "without-luo": (kernel_sample.bzimage(["kho-v4", "memfd-v2"]), "target.formats", "kho-v4, no luo, memfd-v2"),
        "without-all": (kernel_sample.bzimage([]), "target.formats", "no kho, no luo, no memfd"),
        "fixed": (kernel_sample.bzimage(xloadflags=1), "target.kexec", "CONFIG_RELOCATABLE"),
        "vmlinux": (kernel_sample.vmlinux(), "target.kexec", "ELF"),
        "cut": (whole[:-1], "target.image", "not a kernel image: it is cut"),
        "corrupt": (whole.replace(b"\x1f\x8b\x08", b"\x1f\x8b\x09"), "target.image", "gzip data is corrupt"),
    }
    for name, (data, id_, says) in images.items():
        path = world.path / name
        path.write_bytes(data)
        for verb in ("check", "prepare", "upgrade"):
            if not id_ and verb != "check":
                continue  # the host may be ready for it
            found = target_findings(world, path, verb)
            refusals = [i for i, (verdict, _) in found.items() if verdict == "refusal"]
            if id_:
                check(refusals == [id_] and says in found[id_][1], f"{verb} {name}: {found}")
            elif not os.path.exists("/sys/kernel/debug/kho"):
                # Nothing to compare with: that is said, and no more.
                check(not refusals and found["target.formats"][0] == "warning", f"{verb} {name}: {found}")
        check(world.state == "normal" and "preparing" not in world.log(), f"{name}: something was begun")
        check(guest.pid == pid and guest.status == "running", f"{name}: the guest is {guest.status}")
    # A real one, with a configuration beside it that says what is missing.
    check(target_findings(world, kernel())["target.image"][0] == "ok", "the nested host's kernel is refused")
    (world.path / "config-7.3.4").write_text("# CONFIG_KVM_AMD is not set\n# CONFIG_KVM_INTEL is not set\n")
    found = target_findings(world, world.path / "whole")
    flags = re.search(r"^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE).group(1).split()
    wanted = "refusal" if "svm" in flags or "vmx" in flags else None
    check(found.get("target.kvm", (None,))[0] == wanted, f"KVM: {found}")
    guest.wait_alive()


@test
def targets_of_several_callers(world):
    """One image is looked into at a time, each caller gets the answer to its own question, in any order."""
    guest = Guest(world, "g").wait_ready()
    world.start_agent("--carrier", "luo")
    (world.path / "no").write_bytes(kernel_sample.bzimage([]))
    (world.path / "pipe").unlink(missing_ok=True)
    os.mkfifo(world.path / "pipe")
    asked = [(name, raw_call(world, "org.holdfast.Host.Check", {"target": {"kernel": str(path)}}))
             for name, path in [("real", kernel()), ("no", world.path / "no"), ("pipe", world.path / "pipe")] * 5]
    gone = [raw_call(world, "org.holdfast.Host.Check", {"target": {"kernel": kernel()}}) for _ in range(5)]
    for sock in gone:
        sock.close()
    for name, sock in asked:
        sock.settimeout(30)
        data = b""
        while not data.endswith(b"\0"):
            more = sock.recv(65536)
            check(more, "the agent closed the connection")
            data += more
        sock.close()
        found = {f["id"]: f for f in json.loads(data[:-1])["parameters"]["findings"]}
        if name == "pipe":
            check("is not a file with contents" in found["target.image"]["message"], f"{name}: {found}")
        else:
            check((found["target.formats"]["verdict"] == "refusal") == (name == "no") or
                  os.path.exists("/sys/kernel/debug/kho"), f"{name}: {found}")
    check(world.state == "normal", f"the host is {world.state}")
    guest.wait_alive()


def found(answer, guest=None):
    """Findings by id: (verdict, message); of a guest, or of the host."""
    return {f["id"]: (f["verdict"], f["message"]) for f in answer["findings"] if f.get("guest") == guest}


@every_qemu
def caveats_of_a_guest(world):
    """What QEMU says of its balloon, its disks and its agent's channel; and its CPU, beside another kernel."""
    unsafe = world.path / "unsafe.img"
    with open(unsafe, "wb") as image:
        image.truncate(1 << 20)
    plain = Guest(world, "plain").wait_ready()
    guest = Guest(world, "g", memory=160, extra=[
        "-cpu", "max", "-device", "virtio-balloon-pci,free-page-reporting=on",
        "-drive", f"if=none,id=u,file={unsafe},format=raw,cache=unsafe", "-device", "virtio-blk-pci,drive=u",
        "-device", "virtio-serial-pci",
        "-chardev", f"socket,id=qga0,path={world.path}/qga,server=on,wait=off",
        "-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0"]).wait_ready()
    wanted = {"guest.balloon": "it has a balloon: ", "guest.free-page-reporting": "reports free pages",
              "guest.disk-cache": "its disk u ignores"}
    world.start_agent()
    for round_ in range(2):
        answer = world.ask("check")
        has = found(answer, "g")
        check(answer["verdict"] == "warning", f"the verdict is {answer['verdict']}")
        world.expect(0, "check", says="Verdict: ready with caveats: ")
        for id_, says in wanted.items():
            check(has[id_][0] == "warning" and says in has[id_][1], f"round {round_}: {id_}: {has}")
        check(has["guest.agent"][0] == "ok" and "nothing in the guest has it open" in has["guest.agent"][1], f"{has}")
        check(set(has) == {*wanted, "guest.agent", "guest.eligible"}, f"round {round_}: {sorted(has)}")
        check(set(found(answer, "plain")) == {"guest.agent", "guest.eligible"}, f"{found(answer, 'plain')}")
        check(found(world.ask("guests", "g")["guests"][0], "g") == has, "`guests` says something else")
        world.upgrade()
    guest.wait_alive()
    plain.wait_alive()
    # Its CPU is a caveat where the kernel changes.
    world.agent.terminate()
    world.agent.wait()
    world.start_agent("--carrier", "luo")
    (world.path / "new").write_bytes(kernel_sample.bzimage(release="7.99.1"))
    (world.path / "same").write_bytes(kernel_sample.bzimage(release=os.uname().release))
    has = found(world.ask("check", "--kernel", str(world.path / "new")), "g")
    check("`max`" in has["guest.cpu-model"][1], f"{has}")
    check("guest.cpu-model" not in found(world.ask("check", "--kernel", str(world.path / "same")), "g"), "same kernel")
    check(guest.status == "running", f"the guest is {guest.status}")


@test
def guest_on_huge_pages(world):
    """hugetlbfs: refused, under a name of its own. Not reserved, so that no page of them is needed."""
    world.start_agent()
    # Nor by a kernel that QEMU unpacks into it.
    guest = Guest(world, "g", kernel=kernel(), extra=[
        "-object", "memory-backend-memfd,id=m,size=96M,hugetlb=on,reserve=off", "-machine", "memory-backend=m", "-S"])
    poll(lambda: guest.own_monitor.exists() or guest.process.poll() is not None, 20, "QEMU")
    if guest.process.poll() is not None:
        raise Skip("QEMU gets no memory on huge pages here")
    answer = world.ask("check")
    check(found(answer, "g") == {"guest.hugetlb": ("refusal", "RAM m is on hugetlb pages, which the kernel can't "
                                                   "preserve")}, f"{answer}")
    check(answer["verdict"] == "refusal", f"{answer}")
    world.expect(3, "check", says="Verdict: not ready: ")
    world.expect(3, "plan", says="REFUSES THE UPDATE.*RAM m is on hugetlb")
    world.upgrade(code=3, says="hugetlb")


@test
def host_that_is_looked_at(world):
    """The luo carrier's findings on this very machine: each is there, whatever it says."""
    world.start_agent("--carrier", "luo")
    has = found(world.ask("check"))
    for id_ in ("host.luo", "host.kexec", "host.memory", "host.cgroup", "host.init", "host.storage"):
        check(id_ in has, f"no {id_} in {has}")
    comm = pathlib.Path("/proc/1/comm").read_text().strip()
    check(f"process 1 is {comm}" in has["host.init"][1], f"{has['host.init']}")
    holds = world.ask("plan")
    check({**found(holds)} == has or set(found(holds)) == set(has), f"`plan` finds something else: {found(holds)}")
    check([step["name"] for step in holds["steps"]] ==
          ["prepare", "freeze", "jump", "boot", "resume", "report"], f"{holds['steps']}")


@test
def history_and_plan(world):
    """No estimates before the first update; then those of the reports, to the nanosecond."""
    world.start_agent()
    guests = [Guest(world, "a").wait_ready(), Guest(world, "b", memory=128).wait_ready()]
    guests[1].qmp("stop")
    plan = world.ask("plan")
    check(plan["updates"] == 0 and not any(key in plan for key in ("blackout", "preserve")), f"{plan}")
    check(not any("blackout" in g for g in plan["guests"]) and not any("estimate" in s for s in plan["steps"]), f"{plan}")
    check([(g["name"], g["action"], g["ram_bytes"]) for g in plan["guests"]] ==
          [("a", "carry", 96 << 20), ("b", "keep_paused", 128 << 20)], f"{plan['guests']}")
    world.expect(0, "plan", says="No history yet")
    world.expect(0, "history", says="No update has been made yet")
    reports = []
    for _ in range(2):
        world.upgrade()
        reports.insert(0, world.ask("report")["report"])
    (world.path / "state/reports/00000000-0000-4000-8000-000000000000.json").write_text("{")

    history = world.ask("history")
    check(history["skipped"] == ["00000000-0000-4000-8000-000000000000"], f"{history}")
    check(len(history["updates"]) == 2, f"{history}")
    for update, report in zip(history["updates"], reports):
        check(all(update[key] == report[key] for key in ("id", "time", "outcome", "carrier", "from_kernel", "to_kernel"))
              and update["guests"] == 2
              and update["longest_blackout_ns"] == max(g["blackout_ns"] for g in report["guests"]), f"{update} {report}")
        check(abs(time.time() - calendar.timegm(time.strptime(report["time"], "%Y-%m-%dT%H:%M:%SZ"))) < 300,
              f"it was not at {report['time']}")
    world.expect(0, "history", says=f"{reports[0]['id']}.*done")

    def matches(estimate, values, what):
        near = abs(estimate["median_ns"] - sum(values) / len(values)) <= 1 and abs(estimate["worst_ns"] - max(values)) <= 1
        check(near and estimate["updates"] == 2, f"{what}: {estimate} of {values}")

    plan = world.ask("plan")
    check(plan["updates"] == 2 and plan["skipped"] == history["skipped"], f"{plan}")
    matches(plan["blackout"], [r["blackout_ns"] for r in reports], "blackout")
    timed = {step["name"]: step["estimate"] for step in plan["steps"] if "estimate" in step}
    for name in ("prepare", "freeze", "jump", "resume"):
        matches(timed[name], [p["duration_ns"] for r in reports for p in r["phases"] if p["name"] == name], name)
    check([step["name"] for step in plan["steps"]] == ["prepare", "freeze", "jump", "resume", "report"], f"{plan}")
    for guest in plan["guests"]:
        mine = [g for r in reports for g in r["guests"] if g["uuid"] == guest["uuid"]]
        if guest["name"] == "a" or any(g["blackout_ns"] for g in mine):
            matches(guest["blackout"], [g["blackout_ns"] for g in mine], guest["name"])
        for phase in guest["phases"]:
            matches(phase, [p["duration_ns"] for g in mine for p in g["phases"] if p["name"] == phase["name"]], phase["name"])
        rates = sorted(g["preserve_ns"] / g["ram_bytes"] for r in reports for g in r["guests"])
        check(len(rates) == 4 and abs(guest["preserve"]["worst_ns"] - rates[3] * guest["ram_bytes"]) <= 1 and
              abs(guest["preserve"]["median_ns"] - (rates[1] + rates[2]) / 2 * guest["ram_bytes"]) <= 1, f"{guest} {rates}")
    world.expect(0, "plan", says="Times are of the last 2 updates")
    # Another carrier has no history.
    world.expect(0, "prepare", "--kernel", kernel())
    prepared = world.ask("plan")
    check(found(prepared)["host.state"][0] == "refusal" and prepared["verdict"] == "refusal", f"{prepared}")
    world.expect(0, "abort")
    world.agent.terminate()
    world.agent.wait()
    world.start_agent("--carrier", "luo")
    check(world.ask("plan")["updates"] == 0, "estimates of another carrier")
    guests[0].wait_alive()


@test
def unknown_guest(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    world.expect(0, "guests", "g", says=f"{guest.pid}")
    core = str(world.path / "core")
    for verb in (("guests", "nobody"), ("adopt", "nobody"), ("vmm-upgrade", "nobody")):
        world.expect(1, *verb, says="^holdfast: nobody: there is no guest with this name or uuid\n"
                                    "  `holdfast guests` lists those there are")
    for verb in (("retry", "nobody"), ("release", "nobody"), ("release", "nobody", "--yes"), ("dump", "nobody", core)):
        world.expect(1, *verb, says="^holdfast: nobody: no guest of this name or uuid is held\n  see `holdfast status`")
    check(not os.path.exists(core), "a dump of nobody")
    guest.wait_alive()


@test
def two_agents(world):
    world.start_agent()
    second = subprocess.run([str(BUILD / "holdfastd"), "--carrier", "hold"], env=world.env, text=True,
                            capture_output=True, timeout=10)
    check(second.returncode == 75 and "another holdfastd" in second.stderr and
          "Remedy: use that one, or stop it first" in second.stderr, f"{second}")
    check(world.state == "normal", "the first agent suffered")


@test
def stop_while_prepared_undoes(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    world.agent.terminate()
    check(world.agent.wait(20) == 0, "the agent did not stop cleanly")
    check(guest.status == "running", f"the guest is {guest.status}")
    guest.wait_alive()
    world.start_agent()
    world.upgrade()
    guest.wait_alive()


@test
def agent_killed_while_prepared(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    world.agent.kill()
    world.agent.wait()
    guest.wait_alive()
    world.start_agent()
    world.upgrade()
    guest.wait_alive()


@test
def agent_killed_while_frozen(world):
    """Guests were left paused: the next agent lets those run that ran."""
    world.start_agent()
    guest, sleeper = Guest(world, "g").wait_ready(), Guest(world, "sleeper").wait_ready()
    blocker = Guest(world, "blocker").wait_ready()
    sleeper.qmp("stop")
    world.expect(0, "prepare", "--kernel", kernel())
    os.kill(blocker.pid, signal.SIGSTOP)
    commit = subprocess.Popen([str(BUILD / "holdfast"), "commit"], env=world.env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    poll(lambda: guest.status == "postmigrate", 20, "the guest to be saved")
    world.agent.kill()
    world.agent.wait()
    commit.kill()
    commit.wait()
    guest.check_quiet()
    os.kill(blocker.pid, signal.SIGCONT)
    world.start_agent()
    poll(lambda: guest.status == "running" and blocker.status == "running", 20, "the guests to run again")
    check(not guest.capability("x-ignore-shared"), "x-ignore-shared is still on")
    for each in (guest, blocker):
        each.wait_alive()
    sleeper.check_quiet()
    check(not (world.path / "run/frozen.json").exists(), "the freeze note is still there")


@test
def guest_left_paused_that_does_not_answer(world):
    """Nothing is begun that would forget it; a later agent has it run."""
    world.start_agent()
    guest, stuck = Guest(world, "g").wait_ready(), Guest(world, "stuck").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    os.kill(stuck.pid, signal.SIGSTOP)
    commit = subprocess.Popen([str(BUILD / "holdfast"), "commit"], env=world.env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    poll(lambda: guest.status == "postmigrate", 20, "the guest to be saved")
    world.agent.kill()
    world.agent.wait()
    commit.kill()
    commit.wait()
    world.start_agent()
    world.expect(75, "prepare", "--kernel", kernel(), says="don't all run again")
    poll(lambda: "stuck was left paused by an agent that died and can't be put back" in world.log(), 30,
         "the agent to give up")
    check(guest.status == "running", f"the other guest is {guest.status}")
    for verb in (("prepare", "--kernel", kernel()), ("adopt", "g")):
        world.expect(75, *verb, says="restarted")
    check((world.path / "run/frozen.json").exists(), "the freeze note is gone")
    os.kill(stuck.pid, signal.SIGCONT)
    world.agent.terminate()
    check(world.agent.wait(20) == 0, "the agent did not stop cleanly")
    world.start_agent()
    poll(lambda: stuck.status == "running", 20, "the guest to run again")
    poll(lambda: not (world.path / "run/frozen.json").exists(), 10, "the note to be removed")
    world.upgrade()
    for each in (guest, stuck):
        each.wait_alive()


@test
def leftovers_of_an_agent_that_died_at_the_end(world):
    """It had given the manifest up, but not yet forgotten which guests ran: the next agent does."""
    stale = world.path / "run/resumed/0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab.json"
    stale.parent.mkdir(parents=True)
    stale.write_text('{"pid": 4000000, "start_ticks": 1}')
    world.start_agent()
    check(not stale.exists(), "a note of the last arrival is still there")
    guest = Guest(world, "g").wait_ready()
    world.upgrade()
    check(not list(stale.parent.glob("*")), "notes stay behind after an arrival")
    guest.wait_alive()


@test
def failed_respawn_holds_the_guest(world):
    """QEMU is gone when it is needed: this guest is held, the other one runs, the agent does not stop."""
    other_qemu = world.path / "qemu-private"
    other_qemu.write_text(f"#!/bin/sh\nexec {world.qemu} \"$@\"\n")
    other_qemu.chmod(0o755)
    good = Guest(world, "good").wait_ready()
    usual, world.qemu = world.qemu, other_qemu
    Guest(world, "bad").wait_ready()
    world.qemu = usual
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    other_qemu.unlink()
    world.expect(6, "commit", says="bad")
    check(world.state == "degraded", f"the host is {world.state}")
    good.wait_alive()
    status = world.ask("status")
    held = [g for g in status["guests"] if g["status"] == "held"]
    check([g["name"] for g in held] == ["bad"] and held[0]["findings"], f"status: {status}")
    check(world.ask("report")["report"]["outcome"] == "degraded", "the report does not say degraded")
    world.expect(6, "prepare", "--kernel", kernel(), says="operator")
    world.agent.terminate()
    time.sleep(1)
    check(world.agent.poll() is None, "the agent stopped and gave the held guest's memory up")
    good.wait_alive()


@test
def slow_guest_keeps_nobody_waiting(world):
    """One whose new QEMU takes ten seconds to start: others of the same priority run long before, and are reported so."""
    world.start_agent()
    private = PrivateQemu(world)
    slow, quick = private.guest("slow").wait_ready(), Guest(world, "quick", disk=True).wait_ready()
    world.expect(0, "prepare", "--kernel", kernel())
    private.is_slow(10)
    before = quick.pid
    commit = subprocess.Popen([str(BUILD / "holdfast"), "commit"], env=world.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # It is registered when it runs; meanwhile it isn't.
    poll(lambda: {e["name"]: e["pid"] for e in world.registrations()}.get("quick", before) != before, 8,
         "the quick one to run")
    check(quick.status == "running", f"it is {quick.status}")
    check((guest_json(world, "slow") or {}).get("status") != "running" and world.state == "resuming", "nothing is slow")
    quick.wait_alive()
    check(commit.wait(60) == 0 and world.state == "normal", f"the host is {world.state}")
    blackouts = {g["name"]: g["blackout_ns"] / 1e9 for g in world.ask("report")["report"]["guests"]}
    check(blackouts["quick"] < 8 < 10 < blackouts["slow"], f"blackouts: {blackouts}")
    for guest in (slow, quick):
        guest.wait_alive()


@every_qemu
def held_guest_is_retried(world):
    """Held because its QEMU is missing; retried in vain; back with all of its memory when QEMU is."""
    private = PrivateQemu(world)
    good, bad = Guest(world, "good").wait_ready(), private.guest("bad", cpus=2).wait_ready()
    bad.wait_alive()
    world.start_agent()
    world.expect(1, "retry", "bad", says="no guest of this name")
    world.expect(0, "prepare", "--kernel", kernel())
    private.path.unlink()
    world.expect(6, "commit", says="bad")
    held = guest_json(world, "bad")
    check(held["status"] == "held" and "qemu-private" in held["findings"][0]["message"], f"{held}")
    world.expect(0, "status", says="holdfast retry bad")
    check("holdfast retry bad" in world.log(), "the log does not say what to do")
    world.expect(2, "retry", says="which guest")
    world.expect(1, "retry", "good", says="good: .*not held")
    world.expect(1, "retry", "nobody", says="nobody: no guest")
    for _ in range(2):
        world.expect(6, "retry", "bad", says="bad: .*qemu-private")
        check(world.state == "degraded" and guest_json(world, "bad")["status"] == "held", "it is not held any more")
    private.fails_to_load()
    world.expect(6, "retry", "bad", says="bad: .*no such state")
    good.wait_alive()
    private.works()
    done = world.expect(0, "retry", held["uuid"])
    check("bad" in done.stderr, f"no progress: {done.stderr}")
    check(world.state == "normal" and bad.status == "running", f"the host is {world.state}")
    check(not memfds(world.agent.pid), f"the agent keeps {memfds(world.agent.pid)}")
    check(not bad.capability("x-ignore-shared"), "x-ignore-shared is still on")
    report = world.ask("report")["report"]
    check(report["outcome"] == "done" and [g["outcome"] for g in report["guests"]] == ["resumed"] * 2, f"{report}")
    check(not list((world.path / "run/resumed").glob("*")), "notes stay behind")
    world.expect(1, "retry", "bad", says="no guest of this name")
    for guest in (good, bad):
        guest.wait_alive()
    world.upgrade()
    for guest in (good, bad):
        guest.wait_alive()


@test
def retry_with_another_qemu(world):
    """It is checked, and what the guest runs in is what the next update starts."""
    private, other = PrivateQemu(world), PrivateQemu(world, "qemu-other")
    guest = private.guest("g").wait_ready()
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    private.path.unlink()
    world.expect(6, "commit", says="g")
    (world.path / "text").write_text("no program")
    world.expect(2, "retry", "g", "--qemu", "qemu-other", says="absolute path")
    world.expect(2, "retry", "g", "--qemu", str(world.path / "nothing"), says="No such file")
    world.expect(2, "retry", "g", "--qemu", str(world.path / "text"), says="not a program")
    world.expect(2, "retry", "g", "--qemu", str(world.path), says="not a program")
    check(guest_json(world, "g")["status"] == "held", "it is not held any more")
    other.fails_to_load()
    world.expect(6, "retry", "g", "--qemu", str(other.path), says="no such state")
    check(guest_json(world, "g")["vmm"] == str(private.path), "a QEMU that failed is taken for its own")
    check(not list((world.path / "run/resumed").glob("*")), "notes stay behind")
    other.works()
    world.expect(0, "retry", "g", "--qemu", str(other.path))
    check(world.state == "normal" and guest.status == "running", f"the host is {world.state}")
    check(guest_json(world, "g")["vmm"] == str(other.path), "the registration has another QEMU")
    guest.wait_alive()
    world.upgrade()
    guest.wait_alive()


@test
def retries_at_once(world):
    """One at a time; while others are still coming in; and for a caller that goes away."""
    private, slow = PrivateQemu(world), PrivateQemu(world, "qemu-slow")
    bad, late = private.guest("bad").wait_ready(), slow.guest("late").wait_ready()
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    private.path.unlink()
    slow.is_slow(6)
    commit = subprocess.Popen([str(BUILD / "holdfast"), "commit"], env=world.env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    poll(lambda: "bad is held" in world.log(), 20, "the guest to be held")
    poll(lambda: (guest_json(world, "bad") or {}).get("status") == "held", 10, "the new agent")
    check(world.state == "resuming", f"the host is {world.state}")
    world.expect(6, "retry", "bad", says="bad: ")
    private.is_slow(3)
    first = raw_call(world, "org.holdfast.Host.Retry", {"guest": "bad"})
    time.sleep(0.5)
    world.expect(75, "retry", "bad", says="bad: it is under way")
    world.expect(75, "release", "bad", "--yes", says="bad: it is under way")
    first.close()
    poll(lambda: world.state == "normal", 30, "both to come back")
    commit.wait(30)
    for guest in (bad, late):
        check(guest.status == "running", f"{guest.name} is {guest.status}")
        guest.wait_alive()
    report = world.ask("report")["report"]
    check(report["outcome"] == "done" and len(report["guests"]) == 2, f"{report}")


@test
def guest_that_ran_is_never_loaded_again(world):
    """Let run, but not registered: taken over by a retry. Where its process has ended, a retry is refused."""
    private, folder = PrivateQemu(world), world.path / "run/guests"
    alive, dead = private.guest("alive").wait_ready(), private.guest("dead").wait_ready()
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    # A folder is in the place of its file.
    private.write(f'case "$*" in *-incoming*) for f in {folder}/*.json; do [ -f $f ] && rm $f && mkdir $f; done;; esac'
                  f'\nexec {world.qemu} "$@"')
    world.expect(6, "commit", says="registered")
    for path in folder.glob("*.json"):
        path.rmdir()
    check(alive.status == dead.status == "running", "they don't run")
    pids = {}
    for guest in (alive, dead):
        text = world.expect(1, "release", guest.name, "--yes", says="let run as process").stderr
        pids[guest.name] = int(re.search(r"process (\d+)", text).group(1))
    world.expect(2, "retry", "dead", "--qemu", world.qemu, says="another QEMU can't have it")
    os.kill(pids["dead"], signal.SIGKILL)
    poll(lambda: not os.path.exists(f"/proc/{pids['dead']}"), 10, "the end of its process")
    for _ in range(2):
        world.expect(6, "retry", "dead", says="dead: it ran on this kernel already")
    world.expect(0, "retry", "alive")
    check(world.state == "degraded" and alive.pid == pids["alive"], "it was not taken over")
    alive.wait_alive()
    world.expect(0, "release", "dead", "--yes")
    check(world.state == "normal", f"the host is {world.state}")
    alive.wait_alive()
    private.works()
    world.upgrade()
    alive.wait_alive()


@test
def held_guest_is_released(world):
    """Not without --yes; then its memory is free, the others run, and the host is normal."""
    private = PrivateQemu(world)
    good = Guest(world, "good").wait_ready()
    private.guest("bad", memory=128).wait_ready()
    private.guest("worse").wait_ready()
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    private.fails_to_load()
    world.expect(6, "commit", says="bad")
    world.expect(2, "release", "bad", says="128 MiB, for good")
    world.expect(2, "release", says="which guest")
    world.expect(1, "release", "good", says="good: .*not held")
    world.expect(1, "release", "good", "--yes", says="good: .*not held")
    world.expect(1, "release", "nobody", "--yes", says="nobody: no guest")
    check(guest_json(world, "bad")["status"] == "held", "it was released without --yes")
    before = len(memfds(world.agent.pid))
    world.expect(0, "release", "bad", "--yes", says="128 MiB")
    check(world.state == "degraded" and guest_json(world, "bad") is None, "it is still there, or nobody is held")
    check(0 < len(memfds(world.agent.pid)) < before, f"the agent keeps {memfds(world.agent.pid)}")
    world.expect(1, "retry", "bad", says="it is gone")
    world.expect(1, "release", "bad", "--yes", says="it is gone")
    world.expect(6, "retry", "worse")
    world.expect(0, "release", "worse", "--yes")
    check(world.state == "normal", f"the host is {world.state}")
    check(not memfds(world.agent.pid), f"the agent keeps {memfds(world.agent.pid)}")
    report = world.ask("report")["report"]
    check(report["outcome"] == "done" and sorted(g["outcome"] for g in report["guests"]) ==
          ["released", "released", "resumed"], f"{report}")
    good.wait_alive()
    world.upgrade()
    good.wait_alive()
    world.agent.terminate()
    check(world.agent.wait(20) == 0, "the agent does not stop")


class Core:
    """An ELF core, read by what the format says and by nothing of holdfast's."""

    def __init__(self, path):
        self.file = open(path, "rb")
        head = self.file.read(64)
        check(head[:6] == b"\x7fELF\x02\x01" and struct.unpack_from("<HH", head, 16) == (4, 62), f"{path}: {head}")
        offset, (size, n) = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<HH", head, 54)
        self.loads, self.notes = [], []
        for i in range(n):
            kind, _, at, virtual, physical, length, _, _ = struct.unpack("<IIQQQQQQ", self.pread(56, offset + i * size))
            if kind == 1:
                check(virtual == physical, f"{path}: virtual {virtual:#x}, physical {physical:#x}")
                self.loads.append((physical, length, at))
            elif kind == 4:
                self.read_notes(self.pread(length, at))

    def pread(self, size, offset):
        return os.pread(self.file.fileno(), size, offset)

    def read_notes(self, data):
        while data:
            name, size, kind = struct.unpack_from("<III", data)
            begin = 12 + (name + 3) // 4 * 4
            self.notes.append((data[12:12 + name - 1].decode(), kind, data[begin:begin + size]))
            data = data[begin + (size + 3) // 4 * 4:]

    def read(self, physical, size):
        for begin, length, at in self.loads:
            if begin <= physical and physical + size <= begin + length:
                return self.pread(size, at + physical - begin)
        raise Failure(f"{physical:#x} is not in the core: {self.loads}")


def gdb(core, *commands):
    words = [word for command in commands for word in ("-ex", command)]
    return subprocess.run(["gdb", "-batch", "-nx", *words, "-c", str(core)], text=True, capture_output=True,
                          check=True).stdout


def hold_it(world, private):
    world.expect(0, "prepare", "--kernel", kernel())
    private.fails_to_load()
    world.expect(6, "commit", says="no such state")


@every_qemu
def held_guest_is_dumped(world):
    """A core like the one that QEMU writes of the same guest; debuggers open it; the guest is as it was."""
    private = PrivateQemu(world)
    guest = private.guest("g", cpus=2, memory=128, machine="pc").wait_ready()
    guest.wait_alive()
    guest.qmp("stop")
    guest.qmp("dump-guest-memory", paging=False, protocol=f"file:{world.path}/theirs")
    world.start_agent()
    hold_it(world, private)
    ours = world.path / "ours"
    done = world.expect(0, "dump", "g", str(ours), says=r"128 MiB of memory, .* the registers of 2 vCPUs")
    check("Missing" not in done.stdout, done.stdout)
    check(ours.stat().st_mode & 0o7777 == 0o600, f"its mode is {ours.stat().st_mode:o}")

    mine, theirs = Core(ours), Core(world.path / "theirs")
    check(mine.loads[0][:2] == (0, 128 << 20) and len(mine.loads) == 1, f"{mine.loads}")
    for at in range(1 << 20, 128 << 20, 1 << 20):
        check(mine.read(at, 1 << 20) == theirs.read(at, 1 << 20), f"memory at {at:#x} differs")
    theirs.notes = [n for n in theirs.notes if n[0] in ("CORE", "QEMU")]
    check([n[:2] for n in mine.notes] == [("CORE", 1)] * 2 + [("QEMU", 0)] * 2, f"{[n[:2] for n in mine.notes]}")
    check(mine.notes == theirs.notes, "registers differ from those in QEMU's dump")

    elf = subprocess.run(["readelf", "-aW", ours], text=True, capture_output=True, check=True)
    check(not elf.stderr and "CORE (Core file)" in elf.stdout and elf.stdout.count("NT_PRSTATUS") == 2, f"{elf}")
    rip = struct.unpack_from("<Q", mine.notes[0][2], 112 + 16 * 8)[0]
    # Zeros would show nothing; how far the guest has come in its memory is up to it.
    used = next(at for at in range(1 << 20, 128 << 20, 4096) if any(mine.read(at, 8)) and any(mine.read(at + 8, 8)))
    text = gdb(ours, "info registers rip", f"x/2xg {used:#x}", "info threads")
    check(re.search(rf"rip +{rip:#x}", text), f"gdb: not {rip:#x}: {text}")
    words = struct.unpack("<2Q", mine.read(used, 16))
    check(re.search(rf"{used:#x}:\s+{words[0]:#018x}\s+{words[1]:#018x}", text), f"gdb: not {words}: {text}")
    check("LWP 2" in text, f"gdb: {text}")

    check(world.state == "degraded" and guest_json(world, "g")["status"] == "held", "it is not held any more")
    private.works()
    world.expect(0, "retry", "g")
    check(world.state == "normal" and guest.status == "paused", f"the host is {world.state}")
    guest.qmp("cont")
    guest.wait_alive()


@test
def dumps_that_are_refused(world):
    """Nothing is overwritten, nothing followed, and what fails leaves no file."""
    private = PrivateQemu(world)
    good = Guest(world, "good").wait_ready()
    private.guest("g").wait_ready()
    world.start_agent()
    hold_it(world, private)
    there, link = world.path / "there", world.path / "link"
    there.write_text("precious")
    link.symlink_to(world.path / "elsewhere")
    for path in (there, link):
        world.expect(2, "dump", "g", str(path), says="File exists")
    check(there.read_text() == "precious" and not (world.path / "elsewhere").exists(), "a file was touched")
    world.expect(2, "dump", "g", str(world.path / "no/file"), says="No such file")
    world.expect(2, "dump", "g", str(world.path) + "/", says="absolute path of a file")
    world.expect(2, "dump", "g", says="which file")
    world.expect(2, "dump", says="which guest")
    world.expect(1, "dump", "good", str(world.path / "new"), says="good: .*not held")
    world.expect(1, "dump", "nobody", str(world.path / "new"), says="nobody: no guest")
    check(not (world.path / "new").exists(), "a dump that was refused left a file")
    # A path from where the caller is.
    done = subprocess.run([str(BUILD / "holdfast"), "dump", "g", "new", "-o", "json"], env=world.env, text=True,
                          capture_output=True, cwd=world.path)
    reply = json.loads(done.stdout)
    check(done.returncode == 0 and reply["ram_bytes"] == 96 << 20 and reply["vcpus"] == 1, f"{done}")
    check(0 < reply["data_bytes"] < reply["ram_bytes"], f"{reply}")
    core = world.path / "new"
    check(core.stat().st_blocks * 512 < reply["data_bytes"] + (1 << 20), "zeros take room in the file")
    # Released: nothing is left to dump.
    world.expect(0, "release", "g", "--yes")
    world.expect(1, "dump", "g", str(world.path / "newer"), says="no guest")
    Core(core)
    good.wait_alive()


@test
def dump_under_way(world):
    """Nothing else is done with the guest meanwhile; a caller that goes away takes the file along."""
    private = PrivateQemu(world)
    usual, world.qemu = world.qemu, private.path
    process, ram = plain_guest(world, "g", "-machine", "q35", "-m", "3G")
    world.qemu = usual
    # To be read, though there is nothing in it; that takes some tenths of a second.
    with open(ram[0], "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 3 << 30)
    world.start_agent()
    hold_it(world, private)
    path = world.path / "core"
    dump = raw_call(world, "org.holdfast.Host.Dump", {"guest": "g", "path": str(path)})
    poll(path.exists, 10, "the dump to begin", interval=0.005)
    others = {method: raw_call(world, f"org.holdfast.Host.{method}", {"guest": "g", **more}) for method, more in
              (("Retry", {}), ("Release", {}), ("Dump", {"path": str(world.path / "other")}))}
    dump.close()
    for method, sock in others.items():
        sock.settimeout(10)
        answer = sock.recv(65536).decode()
        check("Busy" in answer and "being written" in answer, f"{method}: {answer}")
        sock.close()
    poll(lambda: "g was not dumped: it was interrupted" in world.log(), 10, "the end of the dump")
    check(not path.exists() and not (world.path / "other").exists(), "a file stayed behind")
    world.expect(0, "dump", "g", str(path), says="3 GiB of memory")
    Core(path)
    check(path.stat().st_blocks * 512 < 16 << 20, "zeros take room in the file")
    private.works()
    world.expect(0, "retry", "g")
    check(world.state == "normal", f"the host is {world.state}")
    process.wait()


def plain_guest(world, name, *extra):
    """Nothing but firmware in it: memory that nobody touches costs nothing."""
    with open(world.path / f"{name}.log", "ab") as log:
        process = subprocess.Popen([str(a) for a in (
            BUILD / "holdfast-vmm", "--name", name, "--", world.qemu, "-nodefaults", "-no-user-config", "-display",
            "none", "-accel", "tcg", "-qmp", f"unix:{world.path}/{name}.qmp,server=on,wait=off", *extra)],
            env=world.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    poll(lambda: any(g["name"] == name for g in world.registrations()), 10, "its registration")
    poll(lambda: (world.path / f"{name}.qmp").exists(), 10, "its monitor")
    time.sleep(1)
    entry = next(e for p in (world.path / "run/guests").glob("*.json")
                 for e in [json.loads(p.read_text())] if e["name"] == name)
    return process, [f"/proc/{entry['pid']}/fd/{block['fd']}" for block in entry["ram"]]


def mark(path, offset, text):
    with open(path, "r+b") as ram:
        os.pwrite(ram.fileno(), text, offset)


def places(world, name):
    """Where QEMU itself says that the RAM below and above 4 GiB is: address and offset."""
    monitor = Monitor(world.path / f"{name}.qmp")
    text = monitor.command("human-monitor-command", **{"command-line": "info mtree"})
    monitor.close()
    found = re.findall(r"([0-9a-f]{16})-([0-9a-f]{16}) .*alias ram-(?:below|above)-4g @\S+ ([0-9a-f]{16})", text)
    return sorted({(int(a, 16), int(b, 16) - int(a, 16) + 1, int(c, 16)) for a, b, c in found})


@every_qemu
def dump_knows_where_memory_is(world):
    """Below the hole, above it, in several blocks: where QEMU says that it is."""
    private = PrivateQemu(world)
    usual, world.qemu = world.qemu, private.path
    gib = 1 << 30
    numa = ["-object", "memory-backend-ram,id=m0,size=2G", "-object", "memory-backend-memfd,id=m1,size=3G",
            "-numa", "node,nodeid=1,memdev=m0", "-numa", "node,nodeid=0,memdev=m1"]
    guests = {"q35": ("-machine", "q35", "-m", "4G"), "pc": ("-machine", "pc", "-m", "4G"),
              "low": ("-machine", "pc,max-ram-below-4g=1G", "-m", "2G"), "small": ("-machine", "q35", "-m", "2G"),
              "numa": ("-machine", "q35", "-m", "5G", *numa)}
    started, wanted = [], {}
    for name, args in guests.items():
        process, ram = plain_guest(world, name, *args)
        started.append(process)
        wanted[name] = places(world, name)
        sizes = [os.stat(path).st_size for path in ram]
        # The last bytes of the part below the hole, and the first above it. NUMA nodes by their numbers.
        order = [1, 0] if name == "numa" else [0]
        for address, length, offset in wanted[name]:
            for at, text in ((offset, b"RAMfirst"), (offset + length - 8, b"RAM last")):
                i = 0
                while at >= sizes[order[i]]:
                    at -= sizes[order[i]]
                    i += 1
                if address or text == b"RAM last":
                    mark(ram[order[i]], at, text)
    world.start_agent()
    hold_it(world, private)
    for name in guests:
        path = world.path / f"{name}.core"
        world.expect(0, "dump", name, str(path), says="1 vCPU are")
        core = Core(path)
        spans = []
        for address, length, _ in sorted(core.loads):
            if spans and sum(spans[-1]) == address:
                spans[-1] = (spans[-1][0], spans[-1][1] + length)
            else:
                spans.append((address, length))
        check(spans == [(a, n) for a, n, _ in wanted[name]], f"{name}: {core.loads}, wanted {wanted[name]}")
        for address, length, _ in wanted[name]:
            check(core.read(address + length - 8, 8) == b"RAM last", f"{name}: the end of {address:#x} is elsewhere")
            check(not address or core.read(address, 8) == b"RAMfirst",
                  f"{name}: {address:#x} is elsewhere")
        check(path.stat().st_blocks * 512 < 64 << 20, f"{name}: {path.stat().st_blocks * 512} bytes on disk")
    check(len(wanted["q35"]) == 2 and wanted["numa"][1][0] == 4 * gib, f"{wanted}")
    world.qemu = usual
    for name in guests:
        world.expect(0, "release", name, "--yes")
    check(world.state == "normal", f"the host is {world.state}")
    for process in started:
        process.wait()


@test
def agent_killed_while_a_guest_is_held(world):
    """The keeper has what is held: the next agent tries once more, and holds it as before."""
    private = PrivateQemu(world)
    good = Guest(world, "good").wait_ready()
    bad = private.guest("bad").wait_ready()
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    private.path.unlink()
    world.expect(6, "commit", says="bad")
    for _ in range(2):
        world.agent.kill()
        world.agent.wait()
        world.start_agent()
        poll(lambda: world.state == "degraded", 30, "the guest to be held again")
        check(guest_json(world, "bad")["status"] == "held", "it is not shown as held")
    good.wait_alive()
    private.works()
    world.expect(0, "retry", "bad")
    check(world.state == "normal", f"the host is {world.state}")
    for guest in (good, bad):
        guest.wait_alive()
    world.upgrade()
    for guest in (good, bad):
        guest.wait_alive()


NOBODY = 65534


def as_nobody(call):
    """Runs that in a process of a user without rights. What it returns."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.write(write, str(call()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as out:
        answer = out.read().decode()
    os.waitpid(pid, 0)
    return answer


@test
def forged_registration(world):
    """Of a user's own process, to be started again as root: nothing of it is run, and no update begins."""
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    forged_uuid = "deadbeef-0000-4000-8000-000000000001"
    told = world.path / "evil-was-here"
    evil = world.path / "evil"
    write_program(evil, f"touch {told}")
    sleeper = subprocess.Popen(["sleep", "600"], user=NOBODY, group=NOBODY, extra_groups=[])
    try:
        honest = next((world.path / "run/guests").glob("*.json"))
        tree = json.loads(honest.read_text())
        stat = pathlib.Path(f"/proc/{sleeper.pid}/stat").read_text()
        tree.update(uuid=forged_uuid, name="forged", pid=sleeper.pid, vmm=str(evil), argv=[str(evil)],
                    startTicks=int(stat.rsplit(")", 1)[1].split()[19]))
        forged = honest.with_name(f"{forged_uuid}.json")
        # As root, and as another user; as the latter even if root had said so.
        for owner, uid in ((NOBODY, 0), (NOBODY, NOBODY + 1), (0, NOBODY + 1)):
            forged.write_text(json.dumps({**tree, "uid": uid}))
            forged.chmod(0o600)
            os.chown(forged, owner, owner)
            check("forged" not in str(world.ask("guests")), "it is a guest")
            done = world.cli("prepare", "--kernel", kernel())
            check(done.returncode != 0 and "registrations" in done.stdout + done.stderr, f"prepare: {done}")
        check(not told.exists(), "what it names was run")
        # A folder that others can write to: nothing in it is believed, and that is said.
        forged.unlink()
        honest.parent.chmod(0o777)
        done = world.cli("guests")
        check(done.returncode != 0 and "others than root" in done.stderr, f"guests: {done}")
        honest.parent.chmod(0o700)
        world.upgrade()
        guest.wait_alive()
    finally:
        sleeper.kill()
        sleeper.wait()


@test
def others_only_look(world):
    """A user without rights: looking is allowed, changing anything isn't; nor can it lock root out."""
    world.start_agent()
    world.path.chmod(0o711)

    def ask(method, parameters=None):
        with raw_call(world, f"org.holdfast.Host.{method}", parameters or {}) as sock:
            sock.settimeout(10)
            return sock.recv(65536).decode()

    check('"state":"normal"' in as_nobody(lambda: ask("Status")), "Status is refused")
    for method in ("Prepare", "Commit", "Upgrade", "Abort", "VmmUpgrade", "Retry", "Dump", "Release", "InspectManifest",
                   "InspectKho"):
        answer = as_nobody(lambda m=method: ask(m))
        check("NotPermitted" in answer, f"{method}: {answer}")

    for path in (world.path / "run/keeper.sock", world.path / "run/guests", world.path / "run/qmp"):
        if path.exists():
            check(path.stat().st_mode & 0o077 == 0, f"{path} is open to others")

    crowd = os.fork()
    if crowd == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        held = []
        for _ in range(200):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(1)
            held.append(sock)
            try:
                sock.connect(world.env["HOLDFAST_SOCKET"])
                sock.sendall(b'{"method":"org.holdfast.Host.Status","more":true}\0')
            except OSError:
                pass
        time.sleep(60)
        os._exit(0)
    try:
        time.sleep(2)
        check(os.waitpid(crowd, os.WNOHANG) == (0, 0), "there is no crowd")
        check(world.state == "normal", "root was locked out")
    finally:
        os.kill(crowd, signal.SIGKILL)
        os.waitpid(crowd, 0)


@test
def garbage_on_the_control_socket(world):
    world.start_agent()
    for data in (b"\0\0\0", b"{\0", b"x" * 100000 + b"\0", b'{"method":1}\0', b'{"method":"org.holdfast.Host.Nope"}\0',
                 b'{"method":"org.holdfast.Host.Prepare","parameters":{"target":7}}\0'):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(world.env["HOLDFAST_SOCKET"])
        sock.sendall(data)
        sock.settimeout(2)
        try:
            sock.recv(65536)
        except (ConnectionResetError, TimeoutError):
            pass
        sock.close()
    check(world.state == "normal", "the agent did not survive garbage")


# ---- running them


@test
def health_command_says_yes(world):
    """It runs once the guest does, as a process of its own, and is told which guest it is about."""
    world.start_agent()
    out = world.path / "told"
    script = world.path / "check.sh"
    # In a subshell: for a pipeline or a redirection of its own the shell has more open for a moment.
    script.write_text("#!/bin/sh\n(ls /proc/$$/fd) >$3\n(readlink /proc/$$/fd/0; echo $1 $2; env) >>$3\n")
    script.chmod(0o755)
    guest = Guest(world, "g", holdfast=["--policy", f"health-command={script} one\t two  {out}"]).wait_ready()
    world.upgrade()
    text = out.read_text()
    told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    check(text.startswith("0\n1\n10\n2\n/dev/null\none two\n"), f"the command was told: {text}")
    check(told["HOLDFAST_GUEST_NAME"] == "g" and len(told["HOLDFAST_GUEST_UUID"]) == 36, f"its environment: {told}")
    check("HOLDFAST_RUN_DIR" not in told, "it has the agent's environment")
    entry = world.ask("report")["report"]["guests"][0]
    check(entry["outcome"] == "resumed", f"report: {entry}")
    check(entry["clock"] == "lags" and "no channel" in entry["clock_message"], f"its clock: {entry}")
    check(0 < entry["clock_lag_ns"] == entry["blackout_ns"], f"its lag: {entry}")
    guest.wait_alive()


@test
def health_command_says_no(world):
    """By its exit status, by its end, by not being there, or by not ending: reported, and the guests run on."""
    world.start_agent()
    script = world.path / "hang.sh"
    script.write_text(f"#!/bin/sh\necho $$ >{world.path}/pid; sleep 1000 & wait\n")
    script.chmod(0o755)
    kill = world.path / "kill.sh"
    kill.write_text("#!/bin/sh\necho hello journal\nkill -9 $$\n")
    kill.chmod(0o755)
    wanted = {"no": ("/bin/false", "exit status 1"), "killed": (kill, "signal 9"),
              "absent": ("/nonexistent/check", "No such file"), "hangs": (script, "did not end in time"), "well": ("", "")}
    guests = [Guest(world, name, machine="pc", memory=64,
                    holdfast=["--policy", f"health-command={command}", "--policy", "resume-timeout=8s"])
              for name, (command, _) in wanted.items()]
    for guest in guests:
        guest.wait_ready()
    done = world.upgrade(6, says="unhealthy")
    check("done" in done.stdout, f"the update is not done: {done.stdout}")
    check(world.state == "normal", f"the host is {world.state}")
    report = world.ask("report")["report"]
    check(report["outcome"] == "done", f"report: {report['outcome']}")
    for entry in report["guests"]:
        want = wanted[entry["name"]][1]
        check(entry["outcome"] == ("unhealthy" if want else "resumed") and want in (entry.get("message") or ""),
              f"report: {entry}")
    findings = {g["name"]: [f["message"] for f in g["findings"] if f["id"] == "guest.unhealthy"]
                for g in world.ask("status")["guests"]}
    check(all(bool(found) == bool(wanted[name][1]) for name, found in findings.items()), f"status: {findings}")
    check(not pathlib.Path(f"/proc/{int((world.path / 'pid').read_text())}").exists(), "the command that hung is still there")
    check("hello journal" in world.log(), "what a command said is not in the log")
    check(not list((world.path / "run/resumed").glob("*")), "something of the arrival is left")
    for guest in guests:
        check(guest.status == "running", f"{guest.name} is {guest.status}")
        guest.wait_alive()
    for path in (script, kill):
        path.write_text("#!/bin/sh\nexit 0\n")
    world.upgrade(6)
    findings = {g["name"] for g in world.ask("status")["guests"] for f in g["findings"] if f["id"] == "guest.unhealthy"}
    check(findings == {"no", "absent"}, f"after another update: {findings}")


@test
def unhealthy_guest_is_retried(world):
    """It runs, and is looked at again until it is well: with the configuration of now, by an agent that is new."""
    world.start_agent()
    script = world.path / "check.sh"

    def answer(text):
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)

    def unhealthy():
        return {g["name"]: f["message"] for g in world.ask("status")["guests"] for f in g["findings"]
                if f["id"] == "guest.unhealthy"}

    answer("exit 7")
    guest = Guest(world, "g", holdfast=["--policy", f"health-command={script}"]).wait_ready()
    well = Guest(world, "well", machine="pc", memory=64).wait_ready()
    world.upgrade(6, says="unhealthy")
    pid = guest.pid
    check(set(unhealthy()) == {"g"} and "exit status 7" in unhealthy()["g"], f"status: {unhealthy()}")
    check(world.state == "normal", f"the host is {world.state}")
    world.expect(1, "retry", "well", says="held")
    world.expect(2, "retry", "g", "--qemu", world.qemu, says="without --qemu")
    answer("exit 8")
    world.expect(6, "retry", "g", says="exit status 8")
    check("exit status 8" in unhealthy()["g"], f"status: {unhealthy()}")
    guest.qmp("stop")
    answer("exit 0")
    world.expect(1, "retry", "g", says="paused")
    check(set(unhealthy()) == {"g"}, f"a guest that is paused is called well: {unhealthy()}")
    guest.qmp("cont")

    # The note outlives the agent; what is asked is the configuration's of now.
    world.agent.kill()
    world.agent.wait()
    world.start_agent()
    check(set(unhealthy()) == {"g"}, f"after the agent's restart: {unhealthy()}")
    world.configure("[guest g]\nhealth-command=/nonexistent\nnonsense\n")
    world.expect(3, "retry", "g", says="configuration has errors")
    world.configure("[guest g]\nhealth-command=/nonexistent\n")
    world.expect(6, "retry", "g", says="No such file")
    world.configure("")

    # While it is looked at it is nobody else's.
    answer(f"echo $$ >{world.path}/asked; while [ ! -e {world.path}/go ]; do sleep 0.1; done")
    retry = subprocess.Popen([str(BUILD / "holdfast"), "retry", "g"], env=world.env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    poll((world.path / "asked").exists, 20, "the health-command")
    world.expect(75, "retry", "g", says="looked at")
    world.expect(75, "prepare", "--kernel", kernel(), says="looked at")
    check({g["name"]: g["step"] for g in world.ask("status")["guests"] } == {"g": "checking", "well": "idle"},
          f"status: {world.ask('status')['guests']}")
    (world.path / "go").touch()
    out = retry.communicate(timeout=60)[0]
    check(retry.returncode == 0 and "g is well" in out, f"retry: {retry.returncode}: {out}")
    check(not unhealthy(), f"status: {unhealthy()}")
    check(guest.pid == pid, "it runs in another QEMU")

    # And an agent that is stopped in the middle takes the command along.
    answer("exit 1")
    world.upgrade(6)
    (world.path / "asked").unlink()
    answer(f"echo $$ >{world.path}/asked; exec sleep 1000")
    retry = subprocess.Popen([str(BUILD / "holdfast"), "retry", "g"], env=world.env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    poll((world.path / "asked").exists, 20, "the health-command")
    world.agent.terminate()
    check(world.agent.wait(20) == 0, "the agent did not stop")
    retry.communicate(timeout=20)
    command = pathlib.Path(f"/proc/{int((world.path / 'asked').read_text())}")
    poll(lambda: not command.exists(), 5, "the end of the command")
    world.start_agent()
    check(set(unhealthy()) == {"g"}, f"status: {unhealthy()}")
    guest.wait_alive()
    well.wait_alive()


@test
def agent_channel_without_agent(world):
    """The channel is there, but nobody in the guest has it open: it isn't asked, and the report says so."""
    world.start_agent()
    sock = world.path / "qga.sock"
    extra = ["-device", "virtio-serial-pci", "-chardev", f"socket,id=qga,path={sock},server=on,wait=off",
             "-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0"]
    guest = Guest(world, "g", extra=extra).wait_ready()
    frozen = Guest(world, "frozen", machine="pc", holdfast=["--policy", "clock=frozen"]).wait_ready()
    world.upgrade()
    entries = {e["name"]: e for e in world.ask("report")["report"]["guests"]}
    check(entries["g"]["clock"] == "lags" and "opened" in entries["g"]["clock_message"], f"report: {entries['g']}")
    check(entries["frozen"]["clock"] == "frozen" and not entries["frozen"].get("clock_message"),
          f"report: {entries['frozen']}")
    # Somebody has the channel: it isn't fought over.
    taken = socket.socket(socket.AF_UNIX)
    taken.connect(str(sock))
    world.expect(0, "prepare", "--kernel", kernel())
    world.expect(0, "abort")
    taken.close()
    guest.wait_alive()
    frozen.wait_alive()


class GuestAgent:
    """qemu-ga itself, spoken to as holdfast does. One at a time: the channel has one client."""

    def __init__(self, path):
        self.path = path

    def ask(self, command, timeout=20, **arguments):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(timeout)
            sock.connect(str(self.path))
            file = sock.makefile("rwb")
            number = random.randrange(1 << 40)
            # What ends a request cut short is one of its own to the agent, which complains of it.
            file.write(b'\xff{"execute": "guest-sync-delimited", "arguments": {"id": %d}}\n' % number)
            file.flush()
            reply = {}
            while reply.get("return") != number:
                reply = json.loads(file.readline().rpartition(b"\xff")[2])
            file.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            file.flush()
            reply = json.loads(file.readline())
            check("return" in reply, f"{command}: {reply}")
            return reply["return"]

    def answers(self):
        try:
            self.ask("guest-ping", timeout=3)
            return True
        except (OSError, ValueError):
            return False

    def lag(self):
        """By how many seconds the guest's clock is behind this machine's."""
        before = time.time()
        return (before + time.time()) / 2 - self.ask("guest-get-time") / 1e9

    def run(self, script):
        self.ask("guest-exec", path="/bin/busybox", arg=["sh", "-c", script])


@test
def debian_guest_agent(world):
    """A guest with the qemu-ga of Debian: it is seen, sets the guest's clock, and is asked whether the guest is well."""
    initrd = world.path / "qga.cpio.gz"
    if os.geteuid() != 0:
        raise Skip("unpacking the guest agent needs root")
    subprocess.run([TOP / "tests/nested/qga.sh", initrd], check=True, stdout=subprocess.DEVNULL)
    world.start_agent()
    sock = world.path / "qga.sock"
    guest = Guest(world, "g", memory=128, initrd=initrd, append="rdinit=/qga-init hf.mem=20",
                  holdfast=["--policy", "resume-timeout=8s"],
                  extra=["-device", "virtio-serial-pci",
                         "-chardev", f"socket,id=qga,path={sock},server=on,wait=off",
                         "-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0"]).wait_ready()
    agent = GuestAgent(sock)

    def finding(id):
        return [f for g in world.ask("status")["guests"] for f in g["findings"] if f["id"] == id]

    def stand_still():
        """Without kexec the blackout is short: the clock is to lag by more than could be chance."""
        try:
            agent.ask("guest-set-time", time=int(time.time() * 1e9))
        except Failure as failure:
            # The clock is set by then. The guest's kernel has no /dev/rtc.
            check("hwclock" in str(failure), str(failure))
        guest.qmp("stop")
        time.sleep(1)
        guest.qmp("cont")
        check(0.7 < agent.lag() < 1.7, f"the guest's clock is {agent.lag()} s behind")

    def entry():
        return world.ask("report")["report"]["guests"][0]

    poll(lambda: "is there" in str(finding("guest.agent")), 60, "the guest's agent to be seen")
    poll(agent.answers, 60, "an answer of the guest's agent")
    stand_still()
    world.upgrade()
    check(entry()["outcome"] == "resumed" and entry()["clock"] == "caught-up", f"report: {entry()}")
    check(abs(entry()["clock_lag_ns"]) < 250e6, f"report: {entry()}")
    check(abs(agent.lag()) < 0.5, f"the guest's clock is {agent.lag()} s behind after the update")
    stand_still()

    # It answers when the update is prepared, and is gone when the guest is back: that counts.
    agent.run("/bin/busybox sleep 3; kill -9 $(/bin/busybox pidof qemu-ga)")
    world.expect(0, "prepare", "--kernel", kernel())
    poll(lambda: not agent.answers(), 20, "the end of the guest's agent")
    world.expect(6, "commit", says="unhealthy")
    check(entry()["outcome"] == "unhealthy" and "answered before the update" in entry()["message"], f"report: {entry()}")
    check(entry()["clock"] == "lags", f"report: {entry()}")
    check(len(finding("guest.unhealthy")) == 1, "nothing is said of it")

    # Some seconds later it is started again, which an agent that is new finds out when it is told to look.
    world.agent.kill()
    world.agent.wait()
    world.start_agent()
    poll(agent.answers, 90, "an answer of the guest's agent", 1)
    check(agent.lag() > 0.7, f"somebody has set the guest's clock: it is {agent.lag()} s behind")
    world.expect(0, "retry", "g", says="is well")
    check(not finding("guest.unhealthy"), "it is still called unhealthy")
    check(abs(agent.lag()) < 0.5, f"the guest's clock is {agent.lag()} s behind after it was retried")
    guest.wait_alive()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-j", "--jobs", type=int, default=4)
    parser.add_argument("--qemu", action="append", default=[])
    parser.add_argument("tests", nargs="*")
    args = parser.parse_args()
    qemus = [(qemu_version(q), q) for q in args.qemu] or find_qemus()
    subprocess.run([TOP / "tests/nested/witness/build.sh"], check=True)
    jobs = [(function, f"QEMU {version}", qemu) for function, every in TESTS
            if not args.tests or function.__name__ in args.tests
            for version, qemu in (qemus if every else qemus[:1])]
    # Most of a test's time is waiting for guests.
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda job: run_one(*job), jobs))
    passed, failed, skipped = results.count(True), results.count(False), results.count(None)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
