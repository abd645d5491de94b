# SPDX-License-Identifier: Apache-2.0
"""A nested host for tests: boot it, run commands in it, follow it through a kexec.

    from nested import Host, fail

    def run(host):
        host.boot()
        host.run("test -c /dev/kvm")
        host.spawn("hf-kexec …")
        host.wait_boot(2)

A case is a file cases/NAME.py with a docstring and a function run(host). It fails by raising; see
fail(). Attributes of the module that change the host: MEMORY (MiB), APPEND (more kernel command line),
HOST (what boots it: "plain", or "systemd" and "forky" for Debian's systemd, or "stock" for Debian's kernel
and a TPM as well; see root.sh), REBOOTS (true: the host may be reset).
"""

import base64
import collections
import contextlib
import gzip
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time

NESTED = pathlib.Path(__file__).resolve().parent
TOP = NESTED.parent.parent
CACHE = pathlib.Path(os.environ.get("HOLDFAST_CACHE")
                     or pathlib.Path(os.environ.get("XDG_CACHE_HOME")
                                     or pathlib.Path.home() / ".cache") / "holdfast")

# Where the outer network ends in the nested host: a guest with this address, behind br0.
GUEST_ADDRESS = "10.0.2.100"
GUEST_PORT = 7000

# Where the host image keeps what cases need.
TEST_DIR = "/var/lib/hf-test"

CMDLINE = "root=/dev/vda rw init=/usr/lib/hf-test/{init} console=ttyS0 net.ifnames=0 loglevel=5 panic=-1"
# Of our own kernels; and of Debian's, whose mitigations only cost time where no CPU speculates.
WORDS = "kho=on liveupdate=on"
WORDS_STOCK = "mitigations=off"

ALARMS = re.compile(r"WARNING:|\bBUG\b|\bOops\b|Call Trace|Kernel panic|general protection fault|"
                    r"detected stalls|soft lockup|blocked for more than|hf-init: .*: ")


class Failure(Exception):
    """A case failed, for a reason that its message tells."""


class Broken(Failure):
    """Something that was waited for never came: a host that hangs or ended, a guest that is gone.
    The emulation itself may be at fault; see run.py."""


def fail(message):
    raise Failure(message)


# How every life of a host begins on the control channel.
GREETING = b"\x1e@hf-boot "

# A TPM that swtpm emulates. SeaBIOS disables its hierarchies for the rest of the boot when it doesn't answer within
# milliseconds, which was seen on a busy machine; this firmware leaves it alone, and the kernel starts it up.
TPM_WORDS = ["-bios", "qboot.rom", "-chardev", "socket,id=tpm,path=tpm.sock", "-tpmdev", "emulator,id=tpm,chardev=tpm",
             "-device", "tpm-crb,tpmdev=tpm"]

# Factor of every time-out here, for a machine that does much else.
PATIENCE = float(os.environ.get("HOLDFAST_PATIENCE") or 1)

Boot = collections.namedtuple("Boot", "tsc mono_ns release seen")
Result = collections.namedtuple("Result", "rc out")


class Job:
    """A command that runs in the host. Its status is None while it runs, and "rebooted" when the
    host jumped into another kernel under it."""

    def __init__(self, host, number, command):
        self.host = host
        self.number = number
        self.command = command
        self.output = bytearray()
        self.status = None

    @property
    def out(self):
        return self.output.decode(errors="replace")

    def wait(self, timeout=60):
        """Wait for the end; returns its Result."""
        self.host.wait_for(lambda: self.status is not None, timeout,
                           f"the end of: {self.command}")
        return Result(self.status, self.out)

    def kill(self):
        self.host.send(f"kill {self.number}")


class Host:
    """One nested host, under an outer QEMU that emulates AMD's virtualization."""

    def __init__(self, directory, image, memory=3072, cpus=3, append="", kind="plain", reboots=False):
        """With @reboots the host may go by way of its firmware, which boots the kernel that it was started with."""
        self.directory = pathlib.Path(directory)
        self.image = image
        self.memory = memory
        self.cpus = cpus
        self.kind = kind
        self.reboots = reboots
        words = WORDS_STOCK if kind == "stock" else WORDS
        self.cmdline = f"{CMDLINE.format(init='hf-init' if kind == 'plain' else 'hf-systemd')} {words} {append}".strip()
        self.started = time.monotonic()
        self.boots = []
        self.jobs = {}
        self.next_job = 1
        self.changed = threading.Condition()
        self.process = None
        self.tpm = None
        self.control = None
        self.port = None
        env = (CACHE / "kernel/current.env").read_text().split()
        self.kernels = dict(item.split("=", 1) for item in env)
        # A kernel that finds out the rate of its TSC by itself gets it wrong when the emulated CPU
        # is held up, and the guests' clocks then jump. The emulated TSC is the machine's.
        self.tsc_rate = machine_tsc_hz()
        self.cmdline += f" tsc=reliable tsc_early_khz={round(self.tsc_rate / 1000)}"

    # ---- what happened so far, for people

    def note(self, text):
        """One line of progress."""
        print(f"{time.monotonic() - self.started:7.1f} s  {text}", flush=True)

    # ---- the outer QEMU

    def boot(self, kernel="OLD", timeout=120):
        """Start the outer QEMU on a kernel ("OLD" or "NEW") and wait for the host's first process."""
        disk = self.directory / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.image, disk],
                       check=True)
        self.port = free_port()
        if self.kind == "stock":
            self.start_tpm()
        ours, theirs = socket.socketpair()
        self.control = ours
        argv = [
            # However this program ends, the emulated host ends with it.
            "setpriv", "--pdeathsig", "TERM",
            outer_qemu(), "-nodefaults", "-no-user-config", "-display", "none",
            *([] if self.reboots else ["-no-reboot"]), "-name", "holdfast-nested", "-machine", "q35", "-accel", "tcg,thread=multi",
            "-cpu", "max", "-smp", str(self.cpus), "-m", str(self.memory),
            *self.kernel_words(kernel), "-append", self.cmdline,
            "-drive", f"if=none,id=disk,file={disk},format=qcow2,cache=unsafe,discard=unmap",
            "-device", "virtio-blk-pci,drive=disk",
            "-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:"
            f"{self.port}-{GUEST_ADDRESS}:{GUEST_PORT}",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            *(TPM_WORDS if self.tpm else []),
            "-serial", "file:serial.log",
            "-chardev", f"socket,id=control,fd={theirs.fileno()}", "-serial", "chardev:control",
            "-monitor", "unix:monitor,server=on,wait=off",
        ]
        with open(self.directory / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(argv, cwd=self.directory, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, pass_fds=[theirs.fileno()])
        theirs.close()
        threading.Thread(target=self.read_control, daemon=True).start()
        boot = self.wait_boot(1, timeout)
        self.note(f"Linux {boot.release} is up (first process after "
                  f"{boot.mono_ns / 1e9:.2f} s of kernel time)")

    def kernel_words(self, kernel):
        """The outer QEMU's words for one of our kernels, or for Debian's with its initrd."""
        if self.kind != "stock":
            return ["-kernel", f"{self.kernels[kernel]}/bzImage"]
        beside = self.image.removesuffix(".img")
        return ["-kernel", f"{beside}.vmlinuz", "-initrd", f"{beside}.initrd"]

    def start_tpm(self):
        """A TPM, whose state is the run's: what was sealed to it can be had again after a reset."""
        (self.directory / "tpm").mkdir()
        with open(self.directory / "tpm.log", "wb") as log:
            self.tpm = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "swtpm", "socket", "--tpm2", "--tpmstate", "dir=tpm",
                 "--ctrl", "type=unixio,path=tpm.sock"],
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10 * PATIENCE
        while not (self.directory / "tpm.sock").exists():
            if self.tpm.poll() is not None or time.monotonic() > deadline:
                fail(f"swtpm did not start: {(self.directory / 'tpm.log').read_text(errors='replace')}")
            time.sleep(0.05)

    def outer(self, command):
        """Give the outer QEMU's monitor a command; its answer is not waited for."""
        with socket.socket(socket.AF_UNIX) as sock:
            # By way of /proc: the name of a socket has to be short.
            directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                sock.connect(f"/proc/self/fd/{directory}/monitor")
            finally:
                os.close(directory)
            sock.sendall(command.encode() + b"\n")
            # It takes no more of who has gone.
            sock.settimeout(2)
            with contextlib.suppress(TimeoutError):
                while sock.recv(4096):
                    pass

    def stop(self):
        """End the outer QEMU, whatever the host is doing, and its TPM."""
        for process in (self.process, self.tpm):
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if self.control:
            self.control.close()

    @property
    def alive(self):
        return self.process is not None and self.process.poll() is None

    # ---- the control channel; tools/hf-init.c has the other end and the format

    def read_control(self):
        data = b""
        with open(self.directory / "control.log", "wb") as log:
            while True:
                try:
                    more = self.control.recv(65536)
                except OSError:
                    more = b""
                if not more:
                    break
                log.write(more)
                log.flush()
                with self.changed:
                    data = self.take_frames(data + more)
                    self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def take_frames(self, data):
        """Take every whole frame off the data; returns what is left."""
        while True:
            # A kernel that jumped may have cut a frame short: the next one's greeting ends it.
            greeting = data.find(GREETING)
            if greeting < 0:
                return self.take_life(data)
            self.take_life(data[:greeting])
            line, newline, rest = data[greeting:].partition(b"\n")
            if not newline:
                return data[greeting:]
            data = rest
            _, tsc, mono_ns, release = line.decode().split()
            for job in self.jobs.values():
                job.status = "rebooted"
            self.jobs.clear()
            self.boots.append(Boot(int(tsc), int(mono_ns), release, time.monotonic()))

    def take_life(self, data):
        """The same for frames of one life of the host."""
        while True:
            line, newline, rest = data.partition(b"\n")
            words = line.split()
            if not newline:
                return data
            if len(words) == 3 and words[0] == b"@out":
                size = int(words[2])
                if len(rest) < size:
                    return data
                job = self.jobs.get(int(words[1]))
                if job:
                    job.output += rest[:size]
                rest = rest[size:]
            elif len(words) == 3 and words[0] == b"@end":
                job = self.jobs.pop(int(words[1]), None)
                if job:
                    job.status = int(words[2])
            data = rest

    def send(self, line):
        self.control.sendall(line.encode() + b"\n")

    def wait_for(self, condition, timeout, what):
        """Wait until a condition holds; fail at the time-out, or when the host is gone."""
        timeout *= PATIENCE
        deadline = time.monotonic() + timeout
        with self.changed:
            while not condition():
                left = deadline - time.monotonic()
                if not self.alive:
                    raise Broken(f"the nested host ended while waiting for {what}")
                if left <= 0:
                    raise Broken(f"after {timeout} s still waiting for {what}")
                self.changed.wait(min(left, 1))

    # ---- for cases

    def spawn(self, command):
        """Start a shell command in the host; returns its Job at once."""
        if "\n" in command or len(command) > 2900:
            fail("a command for the host must be one line of at most 2900 bytes; see put()")
        with self.changed:
            job = Job(self, self.next_job, command)
            self.next_job += 1
            self.jobs[job.number] = job
        self.send(f"run {job.number} {command}")
        return job

    def run(self, command, timeout=60, check=True):
        """Run a shell command in the host; returns (rc, out). Unless check is false, any end but
        exit status 0 fails the case."""
        job = self.spawn(command)
        try:
            result = job.wait(timeout)
        except Failure:
            if self.alive:
                job.kill()
            if job.out:
                print(job.out)
            raise
        if check and result.rc != 0:
            fail(f"{command!r} ended with {result.rc}:\n{result.out}")
        return result

    def put(self, path, content, mode="644"):
        """Write a file in the host."""
        data = base64.b64encode(content.encode() if isinstance(content, str) else content).decode()
        self.run(f"rm -f {path}.b64; mkdir -p $(dirname {path})")
        for start in range(0, len(data), 2700):
            self.run(f"echo {data[start:start + 2700]} >>{path}.b64")
        self.run(f"base64 -d {path}.b64 >{path}; rm {path}.b64; chmod {mode} {path}")

    def get(self, path, timeout=60):
        """Read a file of the host. Gzip on the way: the control channel is a serial line. (Gzip
        warns when a log grows while it reads; that is nothing.)"""
        out = self.run(f"test -r {path} && gzip -c {path} 2>/dev/null | base64", timeout).out
        return gzip.decompress(base64.b64decode(out))

    def poll(self, condition, timeout=30, what="a condition", interval=0.3):
        """Call condition() until it returns something true, and return that."""
        timeout *= PATIENCE
        deadline = time.monotonic() + timeout
        while True:
            result = condition()
            if result:
                return result
            if not self.alive:
                raise Broken(f"the nested host ended while waiting for {what}")
            if time.monotonic() > deadline:
                raise Broken(f"after {timeout} s still waiting for {what}")
            time.sleep(interval)

    def wait_boot(self, count, timeout=90):
        """Wait until the host has come up for the count-th time, and return that Boot."""
        self.wait_for(lambda: len(self.boots) >= count, timeout, f"boot {count} of the nested host")
        return self.boots[count - 1]

    def tsc_hz(self):
        """The rate of the host's TSC. It runs on through a kexec, as the clocks do not."""
        return self.tsc_rate

    # ---- the log of the host's consoles

    @property
    def serial_log(self):
        try:
            return (self.directory / "serial.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def collect(self):
        """Save what only the running host knows into the run's directory."""
        commands = {"dmesg.log": "dmesg", "ps.log": "ps -ef", "files.log": "ls -lR /run/holdfast"}
        if self.kind != "plain":
            commands["journal.log"] = "journalctl -b --no-pager -o short-monotonic"
        names = self.run("cd /var/log; ls *.log", timeout=15, check=False).out.split()
        commands.update({name: f"cat /var/log/{name}" for name in names})
        for name, command in commands.items():
            out = self.run(command, timeout=15, check=False).out
            (self.directory / name).write_text(out)


def machine_tsc_hz():
    """The rate of this machine's TSC, which is what the outer QEMU emulates."""
    def sample():
        out = subprocess.run([TOP / "build/nested/tools/hf-tsc"], stdout=subprocess.PIPE, check=True)
        return map(int, out.stdout.split())

    tsc, mono_ns = sample()
    time.sleep(0.3)
    tsc_end, mono_ns_end = sample()
    return (tsc_end - tsc) * 1e9 / (mono_ns_end - mono_ns)


def outer_qemu():
    """The QEMU that emulates the host: the newest of qemus.sh, when it is there. Debian 12's own (7.2)
    is slower, and corrupts the host's memory once its KVM maps guest memory in 2 MiB pages."""
    return os.environ.get("HOLDFAST_OUTER_QEMU") or next(
        (path for path in [str(CACHE / "qemu/11.1/qemu-system-x86_64")] if os.access(path, os.X_OK)),
        "qemu-system-x86_64")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def allowed_patterns():
    patterns, comment = [], False
    for line in (NESTED / "log-allow").read_text().splitlines():
        if line.startswith("#") or not line.strip():
            comment = line.startswith("#")
        elif not comment:
            fail(f"log-allow: no reason is given for: {line}")
        else:
            patterns.append(re.compile(line))
    return patterns


def log_alarms(text):
    """The kernel's complaints in a console log, without those known to be harmless: a list of
    texts, one for each."""
    allowed = allowed_patterns()
    alarms, block = [], None
    for line in text.replace("\r", "").splitlines():
        if "[ cut here ]" in line:
            block = []
        if block is not None:
            block.append(line)
            if "[ end trace" in line:
                if not any(p.search(entry) for p in allowed for entry in block):
                    alarms.append("\n".join(block))
                block = None
        elif ALARMS.search(line) and not any(p.search(line) for p in allowed):
            alarms.append(line)
    if block:
        alarms.append("\n".join(block))
    return alarms
