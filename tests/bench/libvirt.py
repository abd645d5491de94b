#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a live update costs libvirt's domains, beside the same guests of holdfast-vmm, in one run on one nested host.

    libvirt.py [-o table|json]

1, 2 and 4 guests, each time first of the launcher and then of libvirt, all with 128 MiB and confined by nothing. The
host is booted by systemd, and every jump is into the same kernel. Absolute times are those of an emulated
machine: the ratio is what counts."""

import argparse
import json
import pathlib
import shutil
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/nested"), str(TOP / "tests/nested/witness"), str(TOP / "tests"),
                str(TOP / "tests/bench")]

import nested  # noqa: E402
import run as runner  # noqa: E402
from blackout import PHASES  # noqa: E402
from guests import Guest  # noqa: E402
from libvirt_host import LIGHTER, Domain, set_up, wait_libvirt  # noqa: E402
from systemd_host import start_host  # noqa: E402
from updates import expect_all, expect_running, upgrade  # noqa: E402

COUNTS = (1, 2, 4)
MIB = 128


class OfLauncher(Guest):
    KIND = "launcher"

    def __init__(self, host, name):
        super().__init__(host, name, machine="pc", memory=MIB, words=LIGHTER)

    def end(self):
        self.hmp("quit")


class OfLibvirt(Domain):
    KIND = "libvirt"

    def __init__(self, host, name):
        super().__init__(host, name, machine="pc", memory=MIB)

    def end(self):
        self.virsh("destroy")
        self.virsh("undefine")


def one_update(host, kind, count):
    guests = [kind(host, f"{kind.KIND}{count}-{i}") for i in range(count)]
    for guest in guests:
        guest.start()
        guest.wait_ready(240)
    report = upgrade(host, "bzImage-new", host.kernels["NEW_VERSION"], len(host.boots) + 1)
    expect_all(report, guests)
    wait_libvirt(host)
    expect_running(guests)
    for guest in guests:
        guest.end()
    worst = max(report["guests"], key=lambda guest: guest["blackout_ns"])
    row = {"kind": kind.KIND, "guests": count, "mib": MIB, "blackout_s": worst["blackout_ns"] / 1e9,
           "phases_s": {phase["name"]: phase["duration_ns"] / 1e9 for phase in worst["phases"]}}
    host.note(f"{count} of {kind.KIND}: {row['blackout_s']:.2f} s")
    return row


def measure(host):
    start_host(host, [])
    set_up(host)
    return [one_update(host, kind, count) for count in COUNTS for kind in (OfLauncher, OfLibvirt)]


def table(rows, ratios):
    print(f"\n{'':20} blackout  " + " ".join(f"{phase:>9}" for phase in PHASES) + "   (s)")
    for row in rows:
        print(f"{row['guests']} of {row['kind']:15} {row['blackout_s']:8.2f}  "
              + " ".join(f"{row['phases_s'].get(phase, 0):9.3f}" for phase in PHASES))
    print()
    for count, ratio in ratios.items():
        print(f"{count} domains: {ratio:.2f} x the launcher's")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    args = parser.parse_args()
    out = sys.stdout
    if args.output == "json":
        sys.stdout = sys.stderr

    directory = TOP / "build/nested/run/bench-libvirt"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    host = nested.Host(directory, runner.host_image("libvirt"), memory=6144, kind="libvirt")
    try:
        rows = measure(host)
    finally:
        if host.alive:
            host.collect()
        host.stop()
    alarms = nested.log_alarms(host.serial_log)
    if alarms:
        sys.exit("the console log has:\n" + "\n".join(alarms))
    by_kind = {(row["kind"], row["guests"]): row["blackout_s"] for row in rows}
    ratios = {count: by_kind["libvirt", count] / by_kind["launcher", count] for count in COUNTS}
    if args.output == "json":
        json.dump({"updates": rows, "ratios": ratios}, out, indent=2)
        out.write("\n")
    else:
        table(rows, ratios)


if __name__ == "__main__":
    main()
