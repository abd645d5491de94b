#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Saving guest memory to an image and loading it, beside what the disk can do and what QEMU does, in one run.

    image.py [-o table|json] [--mib 2048] [--folder DIR] [--runs 3] [--no-qemu] [--no-virsh]

Memory is a file on a tmpfs with 0, 50 and 100 % data, the rest zeros. Each row is done --runs times, one after the
other in turns so that what else the machine does hits all alike, and has its medians. The yardstick is fio: the same number of bytes with
the same size of requests and as many of them at a time, past the page cache, into a file with its room allocated before.
QEMU is every one there is, paused, with that memory: `migrate` to a file through `exec:cat`, and from 11.0 on mapped-ram with
multifd and direct I/O; then as much is loaded by another one. virsh is `save` and `restore` of a domain that stands still, with the same
memory. What is loaded comes from the disk. Before anything that takes memory as much of it is used and given back: a virtual machine may
get memory that it has not used for seconds from its host again, slowly, which is not what a host's own memory is like. Ratios are what
counts."""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(TOP / "tests/vmm"))

import rig  # noqa: E402

MIB = 1 << 20
PERCENT = (0, 50, 100)


def make_ram(path, mib, percent):
    """Data in pieces of 8 MiB, all different."""
    piece, every = 8, 100 // percent if percent else 0
    with open(path, "wb") as file:
        file.truncate(mib * MIB)
        # Zeros that were written, not holes.
        for at in range(0, mib, piece):
            file.seek(at * MIB)
            file.write(os.urandom(piece * MIB) if every and at // piece % every == 0 else bytes(piece * MIB))


def ours(folder, ram, cipher):
    out = subprocess.run([rig.BUILD / "tests/image-bench", folder, ram, cipher], stdout=subprocess.PIPE, check=True)
    return json.loads(out.stdout)


def warm_up(shm, mib):
    """So that memory which this machine has not used lately, and gets slowly if it is virtual, is in no result."""
    path = shm / "warm"
    left = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    with open(path, "wb") as file:
        for _ in range(min(mib, left // 2)):
            file.write(bytes(MIB))
    path.unlink()


def fio(folder, size, engine):
    """Seconds to write and to read so many bytes."""
    path, result = folder / "bench-fio", {}
    for verb in ("write", "read"):
        out = subprocess.run(
            ["fio", "--name=bench", f"--filename={path}", f"--rw={verb}", "--bs=1M", f"--size={size}", "--direct=1",
             f"--ioengine={engine}", "--iodepth=12", "--fallocate=posix", "--end_fsync=1", "--invalidate=1",
             "--output-format=json"], stdout=subprocess.PIPE, check=True)
        result[verb] = json.loads(out.stdout)["jobs"][0]["job_runtime"] / 1000
    path.unlink()
    return result


def forget(path):
    """What is read next comes from the disk, as after a reboot."""
    fd = os.open(path, os.O_RDONLY)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


class Qemu:
    """One that stands still, with its memory in a file."""

    def __init__(self, folder, qemu, ram, mib, mapped, *extra):
        self.monitor = folder / "bench-qmp"
        self.process = subprocess.Popen(
            [qemu, "-S", "-nodefaults", "-display", "none", "-machine", "q35,accel=tcg,memory-backend=ram", "-m", f"{mib}M",
             "-object", f"memory-backend-file,id=ram,size={mib}M,mem-path={ram},share=on",
             "-qmp", f"unix:{self.monitor},server=on,wait=off", *extra], stdin=subprocess.DEVNULL)
        rig.poll(self.monitor.exists, 30, "QEMU's monitor")
        self.qmp = rig.Monitor(self.monitor, timeout=600)
        self.qmp.command("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        if mapped:
            self.qmp.command("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in ("mapped-ram", "multifd")])
            self.qmp.command("migrate-set-parameters", **{"direct-io": True, "multifd-channels": os.cpu_count()})

    def migrate(self, command, uri):
        """Return: seconds."""
        begin = time.monotonic()
        self.qmp.command(command, uri=uri)
        while True:
            status = self.qmp.command("query-migrate").get("status")
            if status == "completed":
                return time.monotonic() - begin
            if status == "failed":
                raise rig.Failure(f"{command}: {self.qmp.command('query-migrate')}")
            time.sleep(0.005)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.monitor.unlink(missing_ok=True)


def qemus_own(folder, qemu, ram, mib, mapped):
    """Seconds of QEMU's migration to a file, and from it."""
    path, again = folder / "bench-qemu", ram.with_suffix(".again")
    try:
        warm_up(ram.parent, mib)
        with Qemu(folder, qemu, ram, mib, mapped) as source:
            save = source.migrate("migrate", f"file:{path}" if mapped else f"exec:cat >{path}")
            begin = time.monotonic()
            # Saved is what is on the disk.
            forget(path)
            save += time.monotonic() - begin
        warm_up(ram.parent, mib)
        with Qemu(folder, qemu, again, mib, mapped, "-incoming", "defer") as target:
            load = target.migrate("migrate-incoming", f"file:{path}" if mapped else f"exec:cat {path}")
        return {"save": save, "load": load}
    finally:
        for file in (path, again):
            file.unlink(missing_ok=True)


def virsh(folder, ram, mib):
    """The same of `virsh save` and `virsh restore`, by the libvirt of this machine in namespaces of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as private:
        os.chmod(private, 0o755)
        script = pathlib.Path(__file__).with_name("virsh_save.py")
        out = subprocess.run([sys.executable, script, private, ram, str(mib)], stdout=subprocess.PIPE, check=True)
    return json.loads(out.stdout)


def medians(rows):
    return {key: statistics.median(row[key] for row in rows) if not isinstance(rows[0][key], bool) else rows[0][key]
            for key in rows[0]}


def measure(args, folder, ram, percent):
    make_ram(ram, args.mib, percent)
    runs, qemus = {}, [] if args.no_qemu else rig.find_qemus()
    for turn in range(args.runs):
        for cipher in ("plain", "encrypted")[::-1 if turn % 2 else 1]:
            runs.setdefault(cipher, []).append(ours(folder, ram, cipher))
        data = int(runs["plain"][0]["data_bytes"])
        if data:
            runs.setdefault("fio", []).append(fio(folder, data, args.fio_engine))
        for version, qemu in qemus:
            runs.setdefault(f"qemu {version} exec", []).append(qemus_own(folder, qemu, ram, args.mib, False))
            if tuple(map(int, version.split("."))) >= (11, 0):
                runs.setdefault(f"qemu {version} mapped-ram", []).append(qemus_own(folder, qemu, ram, args.mib, True))
        if not args.no_virsh:
            runs.setdefault("virsh", []).append(virsh(folder, ram, args.mib))
    row = {"percent": percent, "mib": args.mib, "data_mib": data // MIB,
           "seconds": {name: medians(results) for name, results in runs.items()}}
    plain, sealed = row["seconds"]["plain"], row["seconds"]["encrypted"]
    row["ratios"] = {}
    for what, verb in (("save", "write"), ("load", "read")):
        others = {"the best QEMU": [result[what] for name, result in row["seconds"].items() if name.startswith("qemu")],
                  "virsh": [result[what] for name, result in row["seconds"].items() if name == "virsh"],
                  "fio": [row["seconds"]["fio"][verb]] if data else []}
        row["ratios"].update({f"{what}/{name}": min(seconds) / plain[what] for name, seconds in others.items() if seconds})
        row["ratios"][f"encrypted/plain {what}"] = plain[what] / sealed[what]
    return row


def table(rows):
    for row in rows:
        print(f"\n{row['mib']} MiB of memory, {row['percent']} % data")
        for name, result in row["seconds"].items():
            cells = [f"{key} {value:.2f} s" for key, value in result.items() if isinstance(value, float)
                     and not key.endswith("_bytes")]
            rate = result.get("save") or result.get("write")
            if row["data_mib"]:
                cells.append(f"= {row['data_mib'] / rate:.0f} MiB/s")
            print(f"  {name:22} {', '.join(cells)}")
        print("  " + ", ".join(f"{name}: {value:.2f}" for name, value in row["ratios"].items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--folder", type=pathlib.Path, default=TOP / "build")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--percent", type=int, choices=PERCENT, action="append")
    parser.add_argument("--fio-engine", default="io_uring")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--no-virsh", action="store_true")
    args = parser.parse_args()
    if not shutil.which("fio"):
        sys.exit("image.py: fio is missing, which the disk is measured with: apt-get install fio")
    # On a tmpfs a guest's memory is what it is in a memfd.
    with tempfile.TemporaryDirectory(dir=args.folder) as folder, tempfile.TemporaryDirectory(dir="/dev/shm") as shm:
        rows = [measure(args, pathlib.Path(folder), pathlib.Path(shm) / "ram", percent)
                for percent in args.percent or PERCENT]
    if args.output == "json":
        print(json.dumps(rows, indent=2))
    else:
        table(rows)


if __name__ == "__main__":
    main()
