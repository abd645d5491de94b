#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a live update costs a guest, beside the bare turnaround of a kexec, in one run on one nested host.

    blackout.py [-o table|json] [--quick]

First the yardstick: the host jumps with no guests and without holdfast, three times; then live updates
with 1, 2 and 4 guests, and with one guest of 128 MiB, 512 MiB and 1 GiB on 4 KiB and on 2 MiB folios; and once
more without reading the VMM's files ahead. Every jump is into the same kernel. Absolute times are those of
an emulated machine: the ratios are what counts."""

import argparse
import json
import pathlib
import re
import shutil
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/nested"), str(TOP / "tests/nested/witness"), str(TOP / "tests")]

import nested  # noqa: E402
import run as runner  # noqa: E402
from guests import Guest  # noqa: E402

BARE_RUNS = 3
# name, guests, MiB each, folio size, read ahead
PLAN = [
    ("1 guest, 128 MiB", 1, 128, "2M", True),
    ("1 guest, 128 MiB, no read-ahead", 1, 128, "2M", False),
    ("2 guests, 128 MiB", 2, 128, "2M", True),
    ("4 guests, 128 MiB", 4, 128, "2M", True),
    ("1 guest, 512 MiB", 1, 512, "2M", True),
    ("1 guest, 1 GiB", 1, 1024, "2M", True),
    ("1 guest, 128 MiB, 4 KiB folios", 1, 128, "4K", True),
    ("1 guest, 512 MiB, 4 KiB folios", 1, 512, "4K", True),
    ("1 guest, 1 GiB, 4 KiB folios", 1, 1024, "4K", True),
]
QUICK = [PLAN[0], PLAN[1], PLAN[5]]
PHASES = ["pause", "save", "jump", "boot", "agent", "vmm-start", "load", "resume"]


def status(host):
    return json.loads(host.run("holdfast status -o json").out)


def agent_up(host):
    host.poll(lambda: host.run("holdfast status", check=False).rc == 0, 60, "the agent")


def bare(host, cmdline):
    """Seconds from reboot(2) to the new kernel's first process, and to its clock's start."""
    hz = host.tsc_hz()
    boots = len(host.boots)
    host.spawn(f"hf-kexec {nested.TEST_DIR}/bzImage-new '{cmdline}'")
    boot = host.wait_boot(boots + 1)
    left = int(re.findall(r"hf-kexec: tsc (\d+)", host.serial_log)[-1])
    return (boot.tsc - left) / hz


def one_update(host, cmdline, number, guests, mib, folios, readahead):
    host.run("echo %s >/sys/kernel/mm/transparent_hugepage/shmem_enabled" %
             ("advise" if folios == "2M" else "never"))
    running = [Guest(host, f"b{number}-{i}", machine="q35", cpus=1, memory=mib, words="hf.duty=10 hf.mem=75")
               for i in range(guests)]
    for guest in running:
        guest.start()
    for guest in running:
        guest.wait_ready(240)
    boots = len(host.boots)
    extra = "" if readahead else " hf.agent-args=--no-readahead"
    job = host.spawn(f"holdfast upgrade --kernel {nested.TEST_DIR}/bzImage-new --cmdline '{cmdline}{extra}'")
    host.wait_for(lambda: len(host.boots) > boots or job.status is not None, 240, "the jump")
    if job.status not in (None, "rebooted"):
        nested.fail(f"holdfast upgrade ended with {job.status}:\n{job.out}")
    agent_up(host)
    host.poll(lambda: status(host)["state"] in ("normal", "degraded"), 120, "the end of the update")
    if status(host)["state"] != "normal":
        nested.fail(status(host)["message"])
    report = json.loads(host.run("holdfast report -o json").out)["report"]
    for guest in running:
        guest.wait_status(1)
        guest.judge()
        guest.hmp("quit")
    host.run("rm -f /var/log/guest-b*.log")
    return report


def summarize(name, spec, report, bare_s):
    guests = report["guests"]
    worst = max(guests, key=lambda guest: guest["blackout_ns"])
    gib = sum(guest["ram_bytes"] for guest in guests) / 2**30
    return {
        "name": name, "guests": spec[1], "mib": spec[2], "folios": spec[3], "readahead": spec[4],
        "blackout_s": worst["blackout_ns"] / 1e9,
        "ratio": worst["blackout_ns"] / 1e9 / bare_s,
        "phases_s": {phase["name"]: phase["duration_ns"] / 1e9 for phase in worst["phases"]},
        "preserve_s_per_gib": sum(guest["preserve_ns"] for guest in guests) / 1e9 / gib,
        "retrieve_s_per_gib": sum(guest["retrieve_ns"] for guest in guests) / 1e9 / gib,
        "state_bytes": worst["state_bytes"],
        "agent_rss_mib": report["agent_rss_bytes"] / 2**20,
        "readahead_mib": report["readahead_bytes"] / 2**20,
    }


def table(result):
    print(f"\nbare kexec: {result['bare_s']:.2f} s (runs: "
          + ", ".join(f"{seconds:.2f}" for seconds in result["bare_runs_s"]) + ")\n")
    print(f"{'':34} blackout  /bare  " + " ".join(f"{phase:>9}" for phase in PHASES)
          + "  preserve  retrieve   RSS")
    print(f"{'':34}       s         " + " ".join(f"{'s':>9}" for _ in PHASES)
          + "     s/GiB     s/GiB   MiB")
    for row in result["updates"]:
        print(f"{row['name']:34} {row['blackout_s']:8.2f} {row['ratio']:6.2f}  "
              + " ".join(f"{row['phases_s'].get(phase, 0):9.3f}" for phase in PHASES)
              + f" {row['preserve_s_per_gib']:9.3f} {row['retrieve_s_per_gib']:9.3f} {row['agent_rss_mib']:5.1f}")
    by_name = {row["name"]: row for row in result["updates"]}
    small, large = by_name.get(PLAN[0][0]), by_name.get("1 guest, 1 GiB")
    if small and large:
        print(f"\n128 MiB to 1 GiB on 2 MiB folios: {large['blackout_s'] / small['blackout_s'] - 1:+.1%} blackout")
    without = by_name.get(PLAN[1][0])
    if small and without:
        print(f"without read-ahead: {without['blackout_s'] / small['blackout_s'] - 1:+.1%} blackout")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--quick", action="store_true", help="only the rows that answer the main questions")
    args = parser.parse_args()
    out = sys.stdout
    if args.output == "json":
        sys.stdout = sys.stderr

    directory = TOP / "build/nested/run/bench"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    host = nested.Host(directory, runner.host_image(), memory=6144)
    cmdline = host.cmdline
    host.cmdline += " hf.agent=no"
    try:
        host.boot("NEW")
        runs = [bare(host, f"{cmdline} hf.agent=no") for _ in range(BARE_RUNS - 1)]
        runs.append(bare(host, cmdline))
        bare_s = sorted(runs)[len(runs) // 2]
        host.note(f"bare kexec: {bare_s:.2f} s")
        agent_up(host)
        rows = []
        for number, spec in enumerate(QUICK if args.quick else PLAN):
            report = one_update(host, cmdline, number, *spec[1:])
            rows.append(summarize(spec[0], spec, report, bare_s))
            host.note(f"{spec[0]}: {rows[-1]['blackout_s']:.2f} s, {rows[-1]['ratio']:.2f} x bare")
    finally:
        if host.alive:
            host.collect()
        host.stop()
    alarms = nested.log_alarms(host.serial_log)
    if alarms:
        sys.exit("the console log has:\n" + "\n".join(alarms))
    result = {"bare_s": bare_s, "bare_runs_s": runs, "updates": rows,
              "kernel": host.kernels["NEW_VERSION"]}
    if args.output == "json":
        json.dump(result, out, indent=2)
        out.write("\n")
    else:
        table(result)


if __name__ == "__main__":
    main()
