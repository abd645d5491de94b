#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The agent with real QEMUs and no reboot: the `hold` carrier, guests under emulation, witnesses in them.

    agent.py [-j N] [--qemu PATH]... [TEST]...

Each test has an agent and guests of its own in a folder of its own. The tests of failure run with the
first QEMU, those marked @every_qemu with each. Last line: N passed, N failed, N skipped."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(TOP / "tests/nested"))

import kernel_sample  # noqa: E402
import witness_client  # noqa: E402

BUILD = pathlib.Path(os.environ.get("HF_BUILD", TOP / "build/gcc"))
CACHE = pathlib.Path(os.environ.get("HOLDFAST_CACHE")
                     or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "holdfast")
TESTS = []


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failure(message)


def test(function):
    TESTS.append((function, False))
    return function


def every_qemu(function):
    TESTS.append((function, True))
    return function


def kernel():
    env = dict(line.split("=", 1) for line in (CACHE / "kernel/current.env").read_text().split())
    return f"{env['OLD']}/bzImage"


class Monitor:
    """One QMP connection; a second one on the same socket gets no greeting."""

    def __init__(self, path, timeout=5):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(str(path))
        self.file = self.sock.makefile("rw")
        self.greeting = self.file.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.file.write(json.dumps({"execute": name, "arguments": arguments} if arguments
                                   else {"execute": name}) + "\n")
        self.file.flush()
        while True:
            reply = json.loads(self.file.readline())
            if "return" in reply:
                return reply["return"]
            check("error" not in reply, f"{name}: {reply}")

    def close(self):
        self.file.close()
        self.sock.close()


class Guest:
    def __init__(self, world, name, machine="q35", cpus=1, memory=96, disk=False, extra=(), holdfast=(),
                 duty=25, launcher=True, accel="tcg"):
        self.world, self.name = world, name
        self.console = world.path / f"{name}.console"
        self.own_monitor = world.path / f"{name}.qmp"
        words = [f"console=ttyS0 quiet panic=-1 kho=off liveupdate=off hf.name={name} hf.report_ms=300",
                 f"hf.seed={sum(name.encode())} hf.ram_mib={memory} hf.mem=60 hf.duty={duty}"]
        argv = [BUILD / "holdfast-vmm", "--name", name, *holdfast, "--"] if launcher else []
        argv += [world.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-machine", machine,
                "-accel", accel, "-cpu", "qemu64", "-smp", str(cpus), "-m", str(memory),
                "-kernel", kernel(), "-initrd", TOP / "build/witness/initramfs.cpio.gz",
                "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
                "-qmp", f"unix:{self.own_monitor},server=on,wait=off", *extra]
        if disk:
            self.disk = world.path / f"{name}.img"
            with open(self.disk, "wb") as image:
                image.truncate(16 << 20)
            argv += ["-drive", f"if=none,id=disk,file={self.disk},format=raw", "-device", "virtio-blk-pci,drive=disk"]
            words.append("hf.disk=/dev/vda")
        argv += ["-append", " ".join(words)]
        with open(world.path / f"{name}.log", "ab") as log:
            self.process = subprocess.Popen([str(a) for a in argv], env=world.env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        world.guests.append(self)

    @property
    def pid(self):
        """Of the QEMU it runs in now, by its registration."""
        for entry in self.world.registrations():
            if entry["name"] == self.name:
                return entry["pid"]
        raise Failure(f"{self.name} is not registered")

    def qmp(self, command, **arguments):
        monitor = Monitor(self.own_monitor)
        try:
            return monitor.command(command, **arguments)
        finally:
            monitor.close()

    @property
    def status(self):
        return self.qmp("query-status")["status"]

    def capability(self, name):
        return {c["capability"]: c["state"] for c in self.qmp("query-migrate-capabilities")}[name]

    def records(self):
        return witness_client.read_log(self.console) if self.console.exists() else []

    def last(self):
        status = [r for r in self.records() if r["tag"] == "STATUS"]
        return status[-1] if status else {"passes": 0, "n": 0}

    def wait_ready(self):
        poll(lambda: any(r["tag"] in ("READY", "FAIL") for r in self.records()), 60, f"{self.name} to be ready")
        return self

    def wait_alive(self, passes=1):
        """It works on, with every word of its memory verified so many times more, and nothing wrong."""
        target = self.last()["passes"] + passes
        poll(lambda: self.last()["passes"] >= target, 60, f"{self.name} to go on working")
        wrong = witness_client.judge_log(self.records())
        check(not wrong, f"{self.name}: {wrong}")

    def check_quiet(self):
        """It stands still."""
        before = self.last()["n"]
        time.sleep(1)
        check(self.last()["n"] == before, f"{self.name} runs, but should be paused")


def poll(condition, timeout, what, interval=0.1):
    deadline = time.monotonic() + timeout
    while not condition():
        check(time.monotonic() < deadline, f"after {timeout} s still waiting for {what}")
        time.sleep(interval)


class World:
    """A runtime folder, an agent, guests; all gone at the end."""

    def __init__(self, qemu):
        self.qemu = qemu
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="hf-vmm-"))
        self.env = {**os.environ, "HOLDFAST_RUN_DIR": str(self.path / "run"),
                    "HOLDFAST_STATE_DIR": str(self.path / "state"), "HOLDFAST_LOG_DIR": str(self.path / "log"),
                    "HOLDFAST_SOCKET": str(self.path / "run/control.sock")}
        self.guests = []
        self.agent = None

    def start_agent(self, *args):
        self.agent_log = open(self.path / "agent.log", "ab")
        self.agent = subprocess.Popen([str(BUILD / "holdfastd"), "--carrier", "hold", "--debug", *args], env=self.env,
                                      stdin=subprocess.DEVNULL, stdout=self.agent_log, stderr=self.agent_log)
        poll(lambda: (self.path / "run/control.sock").exists() and self.cli("status").returncode == 0, 10, "the agent")
        return self

    def cli(self, *args, timeout=120):
        return subprocess.run([str(BUILD / "holdfast"), *args], env=self.env, text=True, capture_output=True,
                              timeout=timeout, stdin=subprocess.DEVNULL)

    def ask(self, *args):
        """A verb's answer as JSON."""
        done = self.cli(*args, "-o", "json")
        check(done.returncode in (0, 3, 6), f"holdfast {' '.join(args)}: {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def expect(self, code, *args, says=""):
        done = self.cli(*args)
        check(done.returncode == code,
              f"holdfast {' '.join(args)} ended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}")
        check(re.search(says, done.stderr + done.stdout), f"holdfast {' '.join(args)} does not say `{says}`: "
              f"{done.stdout}{done.stderr}")
        return done

    def upgrade(self, code=0, says=""):
        return self.expect(code, "upgrade", "--kernel", kernel(), says=says)

    @property
    def state(self):
        return self.ask("status")["state"]

    def registrations(self):
        entries = [json.loads(p.read_text()) for p in (self.path / "run/guests").glob("*.json")]
        return [{"name": find(e, "name"), "pid": find(e, "pid")} for e in entries]

    def log(self):
        return (self.path / "agent.log").read_text(errors="replace")

    def close(self, failed):
        for guest in self.registrations():
            try:
                os.kill(guest["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in [g.process for g in self.guests] + ([self.agent] if self.agent else []):
            if process.poll() is None:
                process.kill()
            process.wait()
        if failed:
            print(f"        kept: {self.path}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)


def find(tree, key):
    """A key of a registration, wherever the format has it."""
    if isinstance(tree, dict):
        if key in tree:
            return tree[key]
        tree = list(tree.values())
    for item in tree if isinstance(tree, list) else []:
        found = find(item, key) if isinstance(item, (dict, list)) else None
        if found is not None:
            return found
    return None


def raw_call(world, method, parameters, more=False):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(world.env["HOLDFAST_SOCKET"])
    sock.sendall(json.dumps({"method": method, "parameters": parameters, "more": more}).encode() + b"\0")
    return sock


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
        world.upgrade()
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
    guest = Guest(world, "g", machine="pc", extra=["-device", "e1000", "-device", "VGA"]).wait_ready()
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


# ---- RAM that is moved first


def private_guest(world, name="g", **how):
    """RAM in an unlinked file on a plain file system, mapped privately."""
    folder = world.path / "ram"
    folder.mkdir(exist_ok=True)
    return Guest(world, name, extra=["-mem-path", folder, *how.pop("extra", [])], **how).wait_ready()


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
    world.expect(2, "adopt", "--pid", pid, "--qmp", str(other.own_monitor), says="belongs to process")
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


# Firmware that writes to RAM without end. In 32-bit mode: from 16 MiB up to an address that is patched in, each
# page's first word must be the number of passes so far, and gets the next one. `.` on the serial port after every
# 64 passes, `F` and a halt when a page isn't as it was left.
WRITER = bytes.fromhex(
    "fa2e660f011678000f20c00c010f22c066ea18000f00080066b810008ed88ec08ed031edbb00000001392b75258d4501890381c300100000"
    "81fb7856341272e945f7c53f00000075db66baf803b02eeeebd266baf803b046eef4ebfd8d7426000000000000000000ffff0000009bcf00"
    "ffff00000093cf00170060000f00")


class Writer:
    """A guest that is nothing but WRITER, under KVM, with RAM in a private file."""

    def __init__(self, world, mib):
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            raise Skip("there is no KVM")
        code = bytearray(WRITER.ljust(65536, b"\0"))
        at = code.index(bytes.fromhex("78563412"))
        code[at:at + 4] = ((16 + mib) << 20).to_bytes(4, "little")
        code[0xfff0:0xfff5] = bytes.fromhex("ea000000f0")
        (world.path / "writer.bin").write_bytes(code)
        self.serial = world.path / "serial"
        log = open(world.path / "writer.log", "ab")
        self.process = subprocess.Popen(
            [str(BUILD / "holdfast-vmm"), "--name", "writer", "--", world.qemu, "-nodefaults", "-no-user-config",
             "-display", "none", "-machine", "pc", "-accel", "kvm", "-cpu", "qemu64", "-m", "256",
             "-mem-path", str(world.path), "-bios", str(world.path / "writer.bin"),
             "-chardev", f"file,id=serial,path={self.serial},append=on", "-serial", "chardev:serial"], env=world.env, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log)
        world.guests.append(self)
        deadline = time.monotonic() + 10
        while not self.said():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise Skip("KVM doesn't run such a guest here")
            time.sleep(0.1)

    def said(self):
        return self.serial.read_text() if self.serial.exists() else ""

    def wait_alive(self):
        before = len(self.said())
        poll(lambda: "F" in self.said() or len(self.said()) > before + 2, 20, "the guest to write on")
        check("F" not in self.said(), "a page is not as the guest left it")


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


# ---- another QEMU than the one that runs


class Package:
    """A program that is QEMU, and can be upgraded to another one while guests run in it."""

    def __init__(self, world):
        self.path = world.path / "qemu-package"
        self.versions = dict(find_qemus())
        world.qemu = self.path

    def install(self, version):
        if version not in self.versions:
            raise Skip(f"QEMU {version} is not on this machine")
        new = self.path.with_suffix(".new")
        new.write_text(f"#!/bin/sh\nexec {self.versions[version]} \"$@\"\n")
        new.chmod(0o755)
        new.rename(self.path)


def findings_of(world, name):
    guest = next(g for g in world.ask("check")["guests"] if g["name"] == name)
    return guest["eligible"], {f["id"]: f for f in guest["findings"]}


def full_version(guest):
    v = guest.qmp("query-version")["qemu"]
    return f"{v['major']}.{v['minor']}.{v['micro']}"


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
        check(eligible and list(found) == ["guest.eligible"], f"the same QEMU, but: {found}")

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
    check(eligible and list(found) == ["guest.eligible"], f"the same QEMU, but: {found}")


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
def bad_kernel_image(world):
    """The hold carrier asks for none that is good, it stays in its kernel. Here: no such verb misuse."""
    world.start_agent()
    world.expect(2, "upgrade", says="kernel")
    world.expect(2, "upgrade", "--kernel", kernel(), "--append", "a", "--cmdline", "b")
    world.expect(2, "frobnicate")


@test
def host_without_luo(world):
    """The luo carrier on a kernel that can't: refused before anything is touched."""
    if os.path.exists("/dev/liveupdate"):
        return
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


@test
def unknown_guest(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    world.expect(0, "guests", "g", says=f"{guest.pid}")
    world.expect(1, "guests", "nobody", says="nobody: there is no guest")


@test
def two_agents(world):
    world.start_agent()
    second = subprocess.run([str(BUILD / "holdfastd"), "--carrier", "hold"], env=world.env, text=True,
                            capture_output=True, timeout=10)
    check(second.returncode == 75 and "another holdfastd" in second.stderr, f"{second}")
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
    commit.wait(150)
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
def cut_and_corrupt_manifests_are_refused(world):
    world.start_agent()
    golden = sorted((TOP / "tests/golden").glob("manifest-v*.bin"))[0]
    world.expect(0, "inspect", "manifest", str(golden))
    data = golden.read_bytes()
    for name, bad in (("cut", data[:len(data) // 2]), ("flipped", data[:200] + bytes([data[200] ^ 1]) + data[201:]),
                      ("empty", b""), ("noise", os.urandom(4096))):
        path = world.path / name
        path.write_bytes(bad)
        done = world.cli("inspect", "manifest", str(path))
        check(done.returncode not in (0, -6, -11), f"{name}: accepted")
    check(world.state == "normal", "the agent did not survive it")


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


def qemu_version(path):
    out = subprocess.run([path, "--version"], text=True, capture_output=True, check=True).stdout
    return re.search(r"version (\d+\.\d+)", out).group(1)


def find_qemus():
    qemus = [shutil.which("qemu-system-x86_64")]
    qemus += sorted(str(p) for p in (CACHE / "qemu").glob("*/qemu-system-x86_64"))
    seen = {}
    for path in filter(None, qemus):
        seen.setdefault(qemu_version(path), path)
    return list(seen.items())


def run_one(function, version, qemu):
    world = World(qemu)
    started = time.monotonic()
    name = f"{function.__name__} (QEMU {version})"
    problem = None
    try:
        function(world)
    except Skip as skip:
        print(f"skip    {function.__name__}: {skip}", flush=True)
        world.close(False)
        return None
    except Failure as failure:
        problem = str(failure)
    except Exception:
        problem = traceback.format_exc()
    if problem:
        tail = "\n".join(world.log().splitlines()[-25:]) if (world.path / "agent.log").exists() else ""
        print(f"FAILED  {name}: {problem}\n        agent's log:\n{tail}", flush=True)
    else:
        print(f"ok      {name}, {time.monotonic() - started:.1f} s", flush=True)
    world.close(bool(problem))
    return problem is None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--qemu", action="append", default=[])
    parser.add_argument("tests", nargs="*")
    args = parser.parse_args()
    qemus = [(qemu_version(q), q) for q in args.qemu] or find_qemus()
    subprocess.run([TOP / "tests/nested/witness/build.sh"], check=True)
    jobs = [(function, version, qemu) for function, every in TESTS
            if not args.tests or function.__name__ in args.tests
            for version, qemu in (qemus if every else qemus[:1])]
    # Most of a test's time is waiting for guests: two at a time fill two processors.
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda job: run_one(*job), jobs))
    passed, failed, skipped = results.count(True), results.count(False), results.count(None)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
