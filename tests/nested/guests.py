# SPDX-License-Identifier: Apache-2.0
"""Guests for the nested cases: each runs the witness on the nested host's real KVM."""

import re
import shlex

import witness_client
from nested import GUEST_ADDRESS, GUEST_PORT, TEST_DIR, Broken, fail


# The witness samples, reports and works less often than it could: every interrupt and every byte on a
# serial line of a guest costs the emulated host a good part of a millisecond.
LIGHT = "hf.duty=10 hf.clock_ms=20 hf.report_ms=1500 hf.disk_ms=150"


class Guest:
    """One guest that runs the witness as its init.

    The launcher is put before the QEMU command line: "" runs QEMU bare, the default is holdfast-vmm.
    With net, the guest has the address that the outside reaches (one guest of a host only).
    Its console is in the host's /var/log/guest-NAME.log, appended to by every QEMU that the
    guest goes through; its monitor is /run/guest-NAME.monitor."""

    def __init__(self, host, name, machine="q35", cpus=1, memory=128, disk=False, net=False,
                 vhost=False, seed=None, launcher=None, words="", qemu="qemu-system-x86_64", extra=""):
        self.host = host
        self.name = name
        self.memory = memory
        self.net = net
        self.console = f"/var/log/guest-{name}.log"
        self.monitor = f"/run/guest-{name}.monitor"
        self.disk = f"{TEST_DIR}/disk-{name}.img" if disk else None
        self.tap = f"tap-{name}" if net else None
        self.launcher = f"holdfast-vmm --name {name} --" if launcher is None else launcher
        self.seed = seed if seed is not None else sum(name.encode()) * 7919
        # See the witness's README for what the kernel's own words are good for.
        append = ["console=ttyS0 earlyprintk=ttyS0,115200 quiet panic=-1",
                  "kho=off liveupdate=off cgroup_disable=memory",
                  f"cgroup.memory=nokmem hf.name={name} hf.seed={self.seed} hf.ram_mib={memory} {LIGHT}"]
        argv = [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                "-name", name,
                "-machine", machine, "-accel", "kvm", "-cpu", "kvm64", "-smp", str(cpus),
                "-m", f"{memory}M",
                "-kernel", f"{TEST_DIR}/bzImage-old", "-initrd", f"{TEST_DIR}/initramfs.cpio.gz",
                "-chardev", f"file,id=console,path={self.console},append=on",
                "-serial", "chardev:console",
                "-monitor", f"unix:{self.monitor},server=on,wait=off"]
        if disk:
            argv += ["-drive", f"if=none,id=disk,file={self.disk},format=raw",
                     "-device", "virtio-blk-pci,drive=disk"]
            append.append("hf.disk=/dev/vda")
        if net:
            argv += ["-netdev", f"tap,id=net,ifname={self.tap},script=no,downscript=no"
                     + (",vhost=on" if vhost else ""),
                     "-device", "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:68:66:01"]
            append.append(f"hf.ip={GUEST_ADDRESS}/24 hf.port={GUEST_PORT}")
        argv += ["-append", " ".join(append + ([words] if words else []))]
        self.command = f"{self.launcher} {shlex.join(argv)} {extra}".strip()

    def start(self):
        """Start it in the background; its QEMU's messages go to /var/log/guest-NAME.qemu.log."""
        if self.disk:
            self.host.run(f"truncate -s 16M {self.disk}")
        if self.tap:
            self.host.run(f"ip tuntap add {self.tap} mode tap && "
                          f"ip link set {self.tap} master br0 up")
        self.host.run(f"({self.command}) >/var/log/guest-{self.name}.qemu.log 2>&1 &")

    def records(self):
        """Everything the witness has said so far."""
        path = self.host.directory / f"guest-{self.name}.log"
        path.write_bytes(self.host.get(self.console))
        return witness_client.read_log(path)

    def said(self, tag):
        """How many lines with a tag (READY, STATUS, FAIL …) its console has; cheap."""
        return int(self.host.run(f"grep -c '^WITNESS-{tag} ' {self.console} 2>/dev/null || true").out or 0)

    def wait_ready(self, timeout=90):
        self.host.poll(lambda: self.said("READY") or self.said("FAIL"), timeout,
                       f"guest {self.name} to be ready")

    def wait_status(self, more=2, timeout=60):
        """Wait until the witness has reported so many times more than now."""
        target = self.said("STATUS") + more
        self.host.poll(lambda: self.said("STATUS") >= target, timeout,
                       f"more reports of guest {self.name}")

    def passes(self):
        """How often the witness has verified every word so far."""
        found = re.findall(r"^WITNESS-STATUS v=1 .* passes=(\d+)",
                           self.host.run(f"tail -c 4000 {self.console}").out, re.M)
        return int(found[-1]) if found else 0

    def wait_passes(self, more):
        """Wait until it has done so so many times more."""
        target = self.passes() + more
        self.host.poll(lambda: self.passes() >= target, 120, f"{more} more passes of guest {self.name}", 1)

    def judge(self):
        """Fail unless everything the witness ever found was right; returns its last report."""
        records = self.records()
        faults = witness_client.judge_log(records)
        if faults:
            fail(f"the witness in guest {self.name} found: " + "; ".join(map(str, faults)))
        return [record for record in records if record["tag"] == "STATUS"][-1]

    def hmp(self, command):
        """Give its human monitor a command and return the answer."""
        out = self.host.run(f"echo {shlex.quote(command)} | socat -t 2 - UNIX:{self.monitor}").out
        return out.replace("\r", "")

    def state(self):
        """QEMU's word for what the guest does: running, paused, postmigrate …"""
        for line in self.hmp("info status").splitlines():
            if line.startswith("VM status: "):
                words = line.removeprefix("VM status: ").split(None, 1)
                return words[1].strip("()") if len(words) > 1 else words[0]
        fail(f"guest {self.name}'s monitor doesn't tell its status")

    def client(self, interval=0.05):
        """A TCP client on the outside, connected to this guest through the nested host."""
        client = witness_client.WitnessClient("127.0.0.1", self.host.port, interval).start()
        if not client.wait_connected(90):
            raise Broken(f"no connection from outside to guest {self.name}")
        return client
