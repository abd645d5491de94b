# SPDX-License-Identifier: Apache-2.0
"""What suites share that drive the agent with real QEMUs and no reboot: a world with an agent in it, guests with
witnesses, and the running of tests."""

import functools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(TOP / "tests/nested"))

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
    return str(CACHE / "kernel" / pathlib.Path(env["OLD"]).name / "bzImage")


def guest_kernel():
    """The same, unpacked: emulated CPUs need as long for that as for the boot. QEMU starts it by its PVH note."""
    packed = pathlib.Path(kernel())
    unpacked = TOP / "build/witness" / f"vmlinux-{packed.parent.name}"
    if not unpacked.exists():
        image = packed.read_bytes()
        # Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length; the size follows zstd's frame.
        at, length = struct.unpack_from("<II", image, 0x248)
        at += (image[0x1f1] + 1) * 512
        with tempfile.NamedTemporaryFile(dir=unpacked.parent, delete=False) as out:
            subprocess.run(["zstd", "-dcq"], input=image[at:at + length - 4], stdout=out, check=True)
        os.rename(out.name, unpacked)
    return str(unpacked)


class Monitor:
    """One QMP connection; a second one on the same socket gets no greeting."""

    def __init__(self, path, timeout=20):
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


def witness_words(name, memory, duty=12, console="ttyS0"):
    """The kernel's command line for a witness in @memory MiB."""
    return (f"console={console} quiet panic=-1 kho=off liveupdate=off hf.name={name} hf.report_ms=300 "
            f"hf.seed={sum(name.encode())} hf.ram_mib={memory} hf.mem=60 hf.duty={duty}")


class Guest:
    def __init__(self, world, name, machine="q35", cpus=1, memory=96, disk=False, extra=(), holdfast=(),
                 duty=12, launcher=True, accel="tcg", kernel=None, initrd=None, append=""):
        self.world, self.name = world, name
        self.console = world.path / f"{name}.console"
        self.own_monitor = world.path / f"{name}.qmp"
        words = [witness_words(name, memory, duty), append]
        argv = [BUILD / "holdfast-vmm", "--name", name, *holdfast, "--"] if launcher else []
        argv += [world.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-machine", machine,
                "-accel", accel, "-cpu", "qemu64", "-smp", str(cpus), "-m", str(memory),
                "-kernel", kernel or guest_kernel(), "-initrd", initrd or TOP / "build/witness/initramfs.cpio.gz",
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


# Firmware that writes to RAM without end. In 32-bit mode: from 16 MiB up to an address that is patched in, each
# page's first word must be the number of passes so far, and gets the next one. `.` on the serial port after every
# 64 passes, `F` and a halt when a page isn't as it was left.
WRITER = bytes.fromhex(
    "fa2e660f011678000f20c00c010f22c066ea18000f00080066b810008ed88ec08ed031edbb00000001392b75258d4501890381c300100000"
    "81fb7856341272e945f7c53f00000075db66baf803b02eeeebd266baf803b046eef4ebfd8d7426000000000000000000ffff0000009bcf00"
    "ffff00000093cf00170060000f00")


class Writer(Guest):
    """A guest that is nothing but WRITER, with RAM in a private file unless it is `shared`."""

    def __init__(self, world, mib, name="writer", accel="kvm", memory=256, shared=False, extra=()):
        if accel == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            raise Skip("there is no KVM")
        self.world, self.name = world, name
        self.own_monitor = world.path / f"{name}.qmp"
        code = bytearray(WRITER.ljust(65536, b"\0"))
        at = code.index(bytes.fromhex("78563412"))
        code[at:at + 4] = ((16 + mib) << 20).to_bytes(4, "little")
        code[0xfff0:0xfff5] = bytes.fromhex("ea000000f0")
        (world.path / "writer.bin").write_bytes(code)
        self.serial = world.path / f"{name}.serial"
        with open(world.path / f"{name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [str(BUILD / "holdfast-vmm"), "--name", name, "--", world.qemu, "-nodefaults", "-no-user-config",
                 "-display", "none", "-machine", "pc", "-accel", accel, "-cpu", "qemu64", "-m", str(memory),
                 *([] if shared else ["-mem-path", str(world.path)]), "-bios", str(world.path / "writer.bin"),
                 "-qmp", f"unix:{self.own_monitor},server=on,wait=off",
                 "-chardev", f"file,id=serial,path={self.serial},append=on", "-serial", "chardev:serial", *extra],
                env=world.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        world.guests.append(self)
        deadline = time.monotonic() + 10
        while not self.said():
            if time.monotonic() > deadline or self.process.poll() is not None:
                world.guests.remove(self)
                self.process.kill()
                self.process.wait()
                raise Skip("KVM doesn't run such a guest here") if accel == "kvm" else Failure(f"{name} does not run")
            time.sleep(0.1)

    def said(self):
        return self.serial.read_text() if self.serial.exists() else ""

    def wait_alive(self, passes=1):
        before = len(self.said()) + passes - 1
        poll(lambda: "F" in self.said() or len(self.said()) > before + 2, 20, "the guest to write on")
        check("F" not in self.said(), "a page is not as the guest left it")


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
                    "HOLDFAST_SOCKET": str(self.path / "run/control.sock"),
                    "HOLDFAST_CONFIG_DIR": str(self.path / "etc")}
        self.guests = []
        self.agent = None

    def start_agent(self, *args):
        self.agent_log = open(self.path / "agent.log", "ab")
        self.agent = subprocess.Popen([str(BUILD / "holdfastd"), "--carrier", "hold", "--debug", *args], env=self.env,
                                      stdin=subprocess.DEVNULL, stdout=self.agent_log, stderr=self.agent_log)
        poll(lambda: (self.path / "run/control.sock").exists() and self.cli("status").returncode == 0, 10, "the agent")
        return self

    def configure(self, text, name="holdfast.conf"):
        path = self.path / "etc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def policy(self, name):
        """What is in effect for a guest."""
        return self.ask("guests", name)["guests"][0]["policy"]

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
        entries = [json.loads(p.read_text()) for p in (self.path / "run/guests").glob("*.json") if p.is_file()]
        return [{"name": find(e, "name"), "pid": find(e, "pid")} for e in entries]

    def log(self):
        return (self.path / "agent.log").read_text(errors="replace")

    def keepers(self):
        """Processes that keep what an agent of this world had: they outlive it, that is what they are for."""
        ours = f"HOLDFAST_RUN_DIR={self.env['HOLDFAST_RUN_DIR']}".encode()
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            comm = pathlib.Path("/proc", pid, "comm")
            try:
                if comm.read_text().strip() == "hf-keeper" and ours in comm.with_name("environ").read_bytes():
                    found.append(int(pid))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                pass
        return found

    def close(self, failed):
        for guest in self.registrations():
            try:
                os.kill(guest["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass
        for keeper in self.keepers():
            os.kill(keeper, signal.SIGKILL)
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


def qemu_that(world, name, does):
    """A program that is QEMU until it is told to be something else."""
    path = world.path / name
    write_program(path, f"exec {world.qemu} \"$@\"")
    return path, lambda: write_program(path, does.format(qemu=world.qemu))


def write_program(path, line):
    new = path.with_suffix(".new")
    new.write_text(f"#!/bin/sh\n{line}\n")
    new.chmod(0o755)
    new.rename(path)


REFUSES_STATE = """case "$*" in *-incoming*) echo "no such state" >&2; exit 1;; *) exec {qemu} "$@";; esac"""


def ram_files(pid):
    """Memfds of guests' RAM that a process has open."""
    links = []
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(fd))
        except FileNotFoundError:
            pass  # closed meanwhile
    return sorted(link for link in links if "memfd:holdfast:" in link)


def ram_users(pid):
    """Processes that have files open which are the RAM of the guest in one of them; not an agent's."""
    def files(of):
        found = set()
        for fd in pathlib.Path(f"/proc/{of}/fd").iterdir():
            try:
                if "memfd:holdfast:" in os.readlink(fd) and "state" not in os.readlink(fd):
                    found.add(fd.stat().st_ino)
            except OSError:
                pass  # closed meanwhile
        return found

    ram, users = files(pid), []
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            if files(other) & ram and "holdfastd" not in os.readlink(f"/proc/{other}/exe"):
                users.append(int(other))
        except OSError:
            pass  # it ended meanwhile
    return sorted(users)


def findings_of(world, name):
    guest = next(g for g in world.ask("check")["guests"] if g["name"] == name)
    return guest["eligible"], {f["id"]: f for f in guest["findings"]}


class PrivateQemu:
    """A program of one guest's own: QEMU, until a test has it be something else."""

    def __init__(self, world, name="qemu-private"):
        self.world, self.path = world, world.path / name
        self.works()

    def write(self, script):
        new = self.path.with_suffix(".new")
        new.write_text(f"#!/bin/sh\n{script}\n")
        new.chmod(0o755)
        new.rename(self.path)

    def works(self):
        self.write(f"exec {self.world.qemu} \"$@\"")

    def fails_to_load(self):
        """As one does that can't read the device state: only when there is one to be loaded."""
        self.write(f'case "$*" in *-incoming*) echo no such state; exit 1;; esac\nexec {self.world.qemu} "$@"')

    def is_slow(self, seconds):
        self.write(f'case "$*" in *-incoming*) sleep {seconds};; esac\nexec {self.world.qemu} "$@"')

    def guest(self, name, **kwargs):
        usual, self.world.qemu = self.world.qemu, self.path
        try:
            return Guest(self.world, name, **kwargs)
        finally:
            self.world.qemu = usual


def private_guest(world, name="g", private=None, **how):
    """RAM in an unlinked file on a plain file system, mapped privately. @private: its own QEMU."""
    folder = world.path / "ram"
    folder.mkdir(exist_ok=True)
    make = private.guest if private else functools.partial(Guest, world)
    return make(name, extra=["-mem-path", folder, *how.pop("extra", [])], **how).wait_ready()


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


def full_version(guest):
    v = guest.qmp("query-version")["qemu"]
    return f"{v['major']}.{v['minor']}.{v['micro']}"


def guest_json(world, name):
    return next((g for g in world.ask("status")["guests"] if g["name"] == name), None)


def memfds(pid):
    links = []
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(fd))
        except FileNotFoundError:
            pass
    return [link for link in links if link.startswith("/memfd:")]


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


def run_one(function, version, qemu, make_world=World):
    """Return: whether it passed, or None for a skip."""
    world = make_world(qemu)
    started = time.monotonic()
    name = f"{function.__name__} ({version})"
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
