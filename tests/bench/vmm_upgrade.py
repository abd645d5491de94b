#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long a guest stands still for a new QEMU: `holdfast vmm-upgrade` beside QEMU's own cpr-transfer, in one run.

    vmm_upgrade.py [-o table|json] [--rounds N] [--quick] [--accel kvm|tcg]

The same guest, firmware that writes to memory without end, with 256 MiB, 1 GiB and 4 GiB of RAM, all of it allocated; by
each QEMU that can do cpr-transfer (10.0 and newer), replaced by itself. Under KVM where that runs such a guest, else
emulated, which holdfast pauses before it is moved. The two ways take turns. Of both it is the time between the events STOP
of the old QEMU and RESUME of the new one; of cpr-transfer once with QEMU's defaults and once without a limit of bandwidth.
The blackout of an emulated guest has its first phase besides, which begins when the pause is asked for. Absolute times are
those of this machine, and of what else it has to do: the ratio of medians is what counts, and beside it that of the best
rounds."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/vmm"), str(TOP / "tests/nested")]

import rig  # noqa: E402
from rig import Failure, Monitor, Skip, World, Writer, check, poll  # noqa: E402

SIZES_MIB = (256, 1024, 4096)
WRITTEN_MIB = 2
PHASES = ("pause", "save", "load", "resume")


def allocate(pid, mib):
    """All of the guest's RAM, as a guest has it that has been running for long."""
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = "memfd:" in os.readlink(fd) and fd.stat().st_size == mib << 20
        except FileNotFoundError:
            continue
        if found:
            with open(fd, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, mib << 20)
            return
    raise Failure(f"process {pid} has no RAM of {mib} MiB")


class Events(Monitor):
    """A monitor whose events are waited for."""

    def wait(self, name, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            message = json.loads(self.file.readline())
            if message.get("event") == name:
                stamp = message["timestamp"]
                return stamp["seconds"] + stamp["microseconds"] / 1e6
        raise Failure(f"no event {name} in {timeout} s")

    def ask(self, name, **arguments):
        """A command, on whose answer nothing depends that was said before it."""
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()


def unix(path):
    return {"transport": "socket", "type": "unix", "path": str(path)}


def channel(kind, path):
    return {"channel-type": kind, "addr": unix(path)}


class CprGuest(Writer):
    """The guest as cpr-transfer needs it, and its move from one QEMU to the next."""

    def __init__(self, world, accel, mib):
        self.world, self.n, self.serial = world, 0, world.path / "cpr.serial"
        # The firmware is that of holdfast's guest.
        self.argv = [
            world.qemu, "-nodefaults", "-no-user-config", "-display", "none",
            "-object", f"memory-backend-memfd,id=pc.ram,size={mib}M,share=on",
            "-machine", "pc,memory-backend=pc.ram,aux-ram-share=on", "-accel", accel, "-cpu", "qemu64",
            "-m", str(mib), "-bios", world.path / "writer.bin",
            "-chardev", f"file,id=serial,path={self.serial},append=on", "-serial", "chardev:serial"]
        self.process, self.monitor = self.start()
        self.wait_alive()
        allocate(self.process.pid, mib)

    def start(self, *extra):
        path = self.world.path / f"cpr{self.n}.qmp"
        self.n += 1
        with open(self.world.path / "cpr.log", "ab") as log:
            process = subprocess.Popen([str(a) for a in [*self.argv, "-qmp", f"unix:{path},server=on,wait=off", *extra]],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.next_path = path
        return process, None if extra else self.connect(path)

    @staticmethod
    def connect(path):
        poll(path.exists, 60, "QEMU's monitor", interval=0.01)
        return Events(path)

    def move(self, tuned):
        """Return: seconds between STOP in the old QEMU and RESUME in the new one."""
        main, cpr = self.world.path / f"main{self.n}.sock", self.world.path / f"cpr{self.n}.sock"
        process, _ = self.start("-incoming", json.dumps(channel("main", main)),
                                "-incoming", json.dumps(channel("cpr", cpr)))
        poll(cpr.exists, 60, "the new QEMU", interval=0.01)
        # It has a name before it listens, and to find out by connecting would be taken for the other QEMU.
        time.sleep(0.2)
        self.monitor.command("migrate-set-parameters", mode="cpr-transfer",
                             **{"max-bandwidth": 0 if tuned else 128 << 20})
        self.monitor.ask("migrate", channels=[channel("main", main), channel("cpr", cpr)])
        # Its monitor listens when the CPR state has come, long before it runs.
        new = self.connect(self.next_path)
        stopped = self.monitor.wait("STOP")
        resumed = new.wait("RESUME")
        self.monitor.close()
        self.process.kill()
        self.process.wait()
        self.process, self.monitor = process, new
        return resumed - stopped

    def close(self):
        self.process.kill()
        self.process.wait()


def has_kvm(qemu):
    world = World(qemu)
    try:
        Writer(world, WRITTEN_MIB)
        return True
    except Skip:
        return False
    finally:
        world.close(False)


def measure(qemu, accel, mib, rounds):
    # Notes are on a tmpfs in earnest, too: /run.
    tempfile.tempdir = "/dev/shm"
    world = World(qemu)
    failed = True
    cpr = None
    try:
        world.start_agent()
        guest = Writer(world, WRITTEN_MIB, "g", accel, mib, shared=True)
        allocate(guest.pid, mib)
        cpr = CprGuest(world, accel, mib)
        ours, plain, tuned = [], [], []
        for _ in range(rounds):
            result = world.ask("vmm-upgrade", "g", "--force")["guests"][0]
            check(result["outcome"] == "replaced", f"{result}")
            ours.append(result)
            guest.wait_alive()
            plain.append(cpr.move(False))
            cpr.wait_alive()
            tuned.append(cpr.move(True))
            cpr.wait_alive()
        failed = False
        return ours, plain, tuned
    finally:
        if cpr:
            cpr.close()
        world.close(failed)


def summarize(version, mib, ours, plain, tuned):
    still = [(r["blackout_ns"] - r["phases"][0]["duration_ns"]) / 1e9 for r in ours]
    blackout = statistics.median(still)
    row = {
        "qemu": version, "mib": mib, "rounds": len(ours), "blackout_s": blackout,
        "phases_s": {name: statistics.median(p["duration_ns"] for r in ours for p in r["phases"] if p["name"] == name) / 1e9
                     for name in PHASES},
        "phases_best_s": {name: min(p["duration_ns"] for r in ours for p in r["phases"] if p["name"] == name) / 1e9
                          for name in PHASES},
        "cpr_s": statistics.median(plain), "cpr_unlimited_s": statistics.median(tuned),
        "best_s": min(still), "cpr_best_s": min(plain), "cpr_unlimited_best_s": min(tuned),
        "all_s": {"holdfast": still, "cpr": plain, "cpr_unlimited": tuned},
    }
    row["ratio_best"] = row["best_s"] / row["cpr_best_s"]
    row["ratio"] = blackout / row["cpr_s"]
    row["ratio_unlimited"] = blackout / row["cpr_unlimited_s"]
    return row


def table(accel, rows):
    print(f"\n{accel.upper():12} {'RAM':>6}  blackout  " + " ".join(f"{phase:>7}" for phase in PHASES)
          + "  cpr-transfer  ratio  unlimited  ratio   best     cpr  ratio")
    print(f"{'':12} {'MiB':>6}        ms  " + " ".join(f"{'ms':>7}" for _ in PHASES) + "            ms                ms            ms      ms")
    for row in rows:
        print(f"QEMU {row['qemu']:7} {row['mib']:6} {row['blackout_s'] * 1e3:9.1f}  "
              + " ".join(f"{row['phases_s'][phase] * 1e3:7.1f}" for phase in PHASES)
              + f" {row['cpr_s'] * 1e3:13.1f} {row['ratio']:6.2f} {row['cpr_unlimited_s'] * 1e3:10.1f}"
              + f" {row['ratio_unlimited']:6.2f} {row['best_s'] * 1e3:6.1f} {row['cpr_best_s'] * 1e3:7.1f}"
              + f" {row['ratio_best']:6.2f}")
    for version in dict.fromkeys(row["qemu"] for row in rows):
        own = [row for row in rows if row["qemu"] == version]
        print(f"QEMU {version}: {own[0]['mib']} MiB to {own[-1]['mib']} MiB of RAM: "
              f"{own[-1]['blackout_s'] / own[0]['blackout_s'] - 1:+.1%} blackout, cpr-transfer "
              f"{own[-1]['cpr_s'] / own[0]['cpr_s'] - 1:+.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="the newest QEMU, the smallest size")
    parser.add_argument("--accel", choices=("kvm", "tcg"), help="for both; KVM where it runs the guest")
    args = parser.parse_args()
    qemus = [(v, q) for v, q in rig.find_qemus() if int(v.split(".")[0]) >= 10]
    if not qemus:
        sys.exit("cpr-transfer needs QEMU 10.0 or newer: make qemus")
    accel = args.accel or ("kvm" if has_kvm(qemus[0][1]) else "tcg")
    rows = []
    for version, qemu in qemus[-1:] if args.quick else qemus:
        for mib in SIZES_MIB[:1] if args.quick else SIZES_MIB:
            rows.append(summarize(version, mib, *measure(qemu, accel, mib, args.rounds)))
            print(f"QEMU {version}, {mib} MiB: {rows[-1]['blackout_s'] * 1e3:.1f} ms, {rows[-1]['ratio']:.2f} x cpr-transfer",
                  file=sys.stderr, flush=True)
    if args.output == "json":
        json.dump({"accel": accel, "rows": rows}, sys.stdout, indent=2)
        print()
    else:
        table(accel, rows)


if __name__ == "__main__":
    main()
