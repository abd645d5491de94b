#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boots the witness as a guest in plain QEMU, without a nested host and without holdfast.

    boottest.py BZIMAGE INITRAMFS [--accel tcg] [--ram-mib 128] [--smp 1] [--keep DIR]

First it leaves the guest in peace but for a stop of two seconds, and demands that everything is
found intact and the stop is measured rightly. Then it swaps two pages of the guest's RAM and takes
one record on its disk back to the past, and demands that the guest notices both.
"""

import argparse
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import witness_client as wc  # noqa: E402

PAGE = 4096
RECORD = 4096
SLOTS = 64
STEP = 0x9E3779B97F4A7C15
STOP_SECONDS = 2.0


class Qmp:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        for _ in range(100):
            try:
                self.sock.connect(path)
                break
            except OSError:
                time.sleep(0.1)
        self.file = self.sock.makefile("rw")
        self.file.readline()
        self.run("qmp_capabilities")

    def run(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            reply = json.loads(self.file.readline())
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise RuntimeError(f"{command}: {reply['error']}")


class Guest:
    def __init__(self, args, folder):
        self.log = os.path.join(folder, "console.log")
        self.disk = os.path.join(folder, "disk.img")
        self.ram = os.path.join(folder, "ram")
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        with open(self.disk, "wb") as f:
            f.truncate(SLOTS * RECORD)
        self.ram_mib = args.ram_mib
        words = ["console=ttyS0", "quiet", "panic=-1", "kho=off", "liveupdate=off",
                 "cgroup_disable=memory", "cgroup.memory=nokmem", "hf.name=boot", "hf.seed=99",
                 f"hf.ram_mib={args.ram_mib}", "hf.disk=/dev/vda",
                 f"hf.disk_slots={SLOTS}", "hf.ip=10.0.2.100/24", "hf.port=7000", *args.append]
        self.proc = subprocess.Popen(
            [args.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-accel", args.accel,
             "-machine", f"{args.machine},memory-backend=ram", "-cpu", args.cpu,
             "-smp", str(args.smp), "-m", str(args.ram_mib), "-object",
             f"memory-backend-file,id=ram,size={args.ram_mib}M,share=on,mem-path={self.ram}",
             "-kernel", args.kernel, "-initrd", args.initramfs, "-append", " ".join(words),
             "-serial", f"file:{self.log}", "-no-reboot",
             "-drive", f"if=none,id=d,format=raw,file={self.disk}",
             "-device", "virtio-blk-pci,drive=d",
             "-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.100:7000",
             "-device", "virtio-net-pci,netdev=n",
             "-qmp", f"unix:{folder}/qmp,server=on,wait=off"])
        self.qmp = Qmp(f"{folder}/qmp")

    def end(self):
        self.proc.kill()
        self.proc.wait()

    def records(self, tag):
        return [r for r in wc.read_log(self.log) if r["tag"] == tag]

    def status(self):
        return (self.records("STATUS") or [{}])[-1]

    def wait_for(self, what, condition, patience=180):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            if self.proc.poll() is not None:
                break
            time.sleep(0.1)
        with open(self.log, errors="replace") as f:
            sys.exit(f"no {what}; console:\n{f.read()[-4000:]}")

    def pages(self, count):
        """Offsets in the RAM file of pages that hold the pattern."""
        found = []
        with open(self.ram, "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
            # From the middle, in strides: neighbours may be about to be rewritten.
            for off in range(len(m) // 2, len(m), 37 * PAGE):
                word = struct.unpack_from("<512Q", m, off)
                if all((b - a) % 2**64 == STEP for a, b in zip(word, word[1:])):
                    found.append(off)
                    if len(found) == count:
                        break
        return found


def expect(what, condition, detail):
    print(f"{'ok' if condition else 'NOT OK'}: {what}: {detail}", flush=True)
    if not condition:
        sys.exit(1)


def in_peace(guest, args):
    began = time.monotonic()
    guest.wait_for("READY", lambda: guest.records("READY") or guest.records("FAIL"), 300)
    expect("no failure at the start", not guest.records("FAIL"), guest.records("FAIL"))
    ready = guest.records("READY")[0]
    expect("ready", ready["fails"] == 0, f"after {time.monotonic() - began:.1f} s")
    share = ready["mem_bytes"] / (args.ram_mib << 20)
    expect("memory under watch", share >= 0.75, f"{ready['mem_bytes']} bytes, {share:.1%}")

    client = wc.WitnessClient("127.0.0.1", guest.port).start()
    expect("client connected", client.wait_connected(60), client.guest_name)
    n = guest.status()["n"]
    guest.wait_for("five reports", lambda: guest.status()["n"] >= n + 5)
    calm = client.result()
    before = guest.status()
    client.reset_gaps()
    guest.qmp.run("stop")
    time.sleep(STOP_SECONDS)
    guest.qmp.run("cont")
    guest.wait_for("two passes", lambda: guest.status()["passes"] >= before["passes"] + 2)
    expect("client hears again", client.wait_quiet(60), "")
    result, after = client.stop(), guest.status()

    expect("client", result["ok"], result)
    gap = result["gap_max_ns"] / 1e9
    expect("gap seen by the client", STOP_SECONDS <= gap < STOP_SECONDS + 3,
           f"{gap:.3f} s; before the stop {calm['gap_max_ns'] / 1e9:.3f} s")
    expect("guest", after["state"] == "ok" and wc.judge_log(wc.read_log(guest.log)) == [], after)
    expect("pause seen by the RTC", abs(after["rtc_lost_s"] - STOP_SECONDS) <= 1,
           f"{after['rtc_lost_s']} s")
    # The clocks stand still in a stop: neither a gap nor a step of the wall clock.
    expect("monotonic clock", after["gap_max_ns"] < STOP_SECONDS * 1e9,
           f"gap {after['gap_max_ns'] / 1e6:.1f} ms, of it {before['gap_max_ns'] / 1e6:.1f} before")
    expect("wall clock", abs(after["wall_step_max_ns"]) < 1e9,
           f"step {after['wall_step_max_ns']} ns; TSC step {after['tsc_step_max_ns']} ns")
    print(f"speed: {after['mib_s']} MiB/s, {after['passes']} passes, "
          f"slowest append {after['disk_slow_ns'] / 1e6:.1f} ms")


def in_harm(guest):
    guest.qmp.run("stop")
    a, b = guest.pages(2)
    with open(guest.ram, "r+b") as f:
        one, two = os.pread(f.fileno(), PAGE, a), os.pread(f.fileno(), PAGE, b)
        os.pwrite(f.fileno(), two, a)
        os.pwrite(f.fileno(), one, b)
    guest.qmp.run("cont")
    rec = guest.wait_for("FAIL about memory",
                         lambda: [r for r in guest.records("FAIL") if r["kind"] == "mem"])[0]
    expect("swapped pages", rec["cause"] == "moved", rec)
    guest.wait_for("count", lambda: guest.status()["bad"] == 2 * PAGE // 8)

    guest.qmp.run("stop")
    slot = (guest.status()["disk_seq"] + SLOTS // 2) % SLOTS
    with open(guest.disk, "rb") as f:
        old = os.pread(f.fileno(), RECORD, slot * RECORD)
    guest.qmp.run("cont")
    seq = guest.status()["disk_seq"]
    guest.wait_for("next lap", lambda: guest.status()["disk_seq"] >= seq + SLOTS + 2)
    guest.qmp.run("stop")
    with open(guest.disk, "r+b") as f:
        os.pwrite(f.fileno(), old, slot * RECORD)
    guest.qmp.run("cont")
    rec = guest.wait_for("FAIL about the disk",
                         lambda: [r for r in guest.records("FAIL") if r["kind"] == "disk"])[0]
    expect("lost record", rec["cause"] == "lost" and rec["slot"] == slot, rec)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("kernel")
    ap.add_argument("initramfs")
    ap.add_argument("--qemu", default="qemu-system-x86_64")
    ap.add_argument("--machine", default="pc")
    ap.add_argument("--cpu", default="max")
    ap.add_argument("--accel", default="tcg,thread=multi")
    ap.add_argument("--ram-mib", type=int, default=128)
    ap.add_argument("--smp", type=int, default=1)
    ap.add_argument("--append", action="append", default=[], help="another word for the guest")
    ap.add_argument("--keep", help="folder to leave the console log in")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="witness-boottest.") as folder:
        guest = Guest(args, args.keep or folder)
        try:
            in_peace(guest, args)
            in_harm(guest)
        finally:
            guest.end()
    print("witness boot test passed")


if __name__ == "__main__":
    main()
