#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs every step of CI and counts.

    check.py [--fast] [--list] [STEP...]

--fast runs the steps that need neither root nor a minute. A STEP is a name of --list, or the
beginning of one ("nested" is every nested case). Each step's output is in build/log/STEP.log; the end
of a failed one is shown.

Steps that only need processors (analyzers, fuzzers) run aside, at low priority, while the others wait for
something again and again.

A step counts what the last line "N passed, N failed, N skipped" of its output says, or 1. A skip that
tests/expected-skips does not list is a failure. How many attempts a nested case took is said if it was
more than one, and lines "remark  …" of a step are shown, and again at the end, however well it ended. The
last line here has the sums; exit status 1 when anything failed."""

import argparse
import concurrent.futures
import fnmatch
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
LOGS = TOP / "build/log"
JOBS = os.cpu_count() or 1
COUNTS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)
SKIP = re.compile(r"^skip(?:ped)?\s+(.+)$", re.MULTILINE)
# Of tests/nested/run.py.
ATTEMPTS = re.compile(r"^\S+: (?:passed|FAILED) (\(\d+ attempts\))$", re.MULTILINE)
REMARK = re.compile(r"^remark\s+(.+)$", re.MULTILINE)
TAIL = 40
INTERRUPTED = threading.Event()


class Step:
    """One command. `limit` is in seconds, for a machine of two busy cores. Steps that are `aside` run one
    after the other beside the rest, which must not need what they make."""

    def __init__(self, name, command, limit=600, fast=False, aside=False):
        self.name = name
        self.command = (["nice", "-n", "19"] if aside else []) \
            + (command if isinstance(command, list) else command.split())
        self.limit = limit
        self.fast = fast
        self.aside = aside
        self.remarks = []


def make(target, variant=None, keep_going=False):
    return (["make", "-s", "--no-print-directory", f"-j{JOBS}"] + (["-k"] if keep_going else [])
            + ([f"VARIANT={variant}"] if variant else []) + target.split())


def steps():
    yield Step("build-gcc", make("all unit-bins"), 900, fast=True)
    yield Step("layers", make("lint-layers"), fast=True)
    yield Step("unit-gcc", make("unit"), 900, fast=True)
    yield Step("install", make(f"install DESTDIR={TOP}/build/check-root"), 300)
    yield Step("lint", make("lint"), 1500, aside=True)
    yield Step("fuzz", make("fuzz"), 3000, aside=True)
    yield Step("build-asan", make("all unit-bins", "asan"), 1200)
    yield Step("unit-asan", make("unit", "asan"), 1200)
    # Programs under tests/unit that are no cmocka tests: the command line, scripts.
    for test in sorted((TOP / "tests/unit").glob("test-*.*")):
        if test.suffix in (".py", ".sh") and os.access(test, os.X_OK):
            yield Step(f"unit-{test.stem.removeprefix('test-')}", [test.relative_to(TOP).as_posix()], 600)
    yield Step("witness", make("check-witness"), 300)
    yield Step("nested-selftest", "tests/nested/selftest.py", 120)
    yield Step("qemus", "tests/nested/qemus.sh", 1800)
    yield Step("vmm", make("vmm"), 1800)
    yield Step("kernels", "tests/nested/kernel.sh", 3000)
    # Its guests run the nested host's kernel.
    yield Step("agent", make("agent"), 1800)
    yield Step("sweep", make("sweep"), 1800)
    # With the machine's libvirt; `make libvirt` has that of the next Debian as well.
    yield Step("libvirt", ["tests/vmm/libvirt.py", "-j", "3", "--root", "/"], 1800)
    # Plain ones first: what they find wrong is the reason for most of what fails later.
    cases = sorted(path.stem for path in (TOP / "tests/nested/cases").glob("*.py"))
    # Takes as long as half of the others together: make nested CASE=libvirt.
    cases.remove("libvirt")
    for case in sorted(cases, key=lambda name: (name not in ("smoke", "guest"), name)):
        yield Step(f"nested-{case}", ["tests/nested/run.py", case, "--attempts", "3"], 1200)


def expected_skips():
    """Patterns `STEP/NAME` that may be skipped; each line says why behind a `#`. What says that it needs
    root may be skipped for others, as check-fast is theirs, too."""
    patterns = [] if os.geteuid() == 0 else ["*need root"]
    for number, line in enumerate((TOP / "tests/expected-skips").read_text().splitlines(), 1):
        pattern, _, reason = line.partition("#")
        if not pattern.strip():
            continue
        if not reason.strip():
            sys.exit(f"tests/expected-skips:{number}: no reason is given")
        patterns.append(pattern.strip())
    return patterns


def end_group(process):
    """End a step with everything it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def execute(step, log):
    """Run a step; returns its exit status, or None at the time limit or when all was interrupted."""
    env = {name: value for name, value in os.environ.items()
           if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
    with open(log, "wb") as out:
        process = subprocess.Popen(step.command, cwd=TOP, env=env, stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + step.limit
        try:
            while process.poll() is None and time.monotonic() < deadline and not INTERRUPTED.wait(0.05):
                pass
            return process.poll()
        finally:
            if process.poll() is None:
                end_group(process)


def judge(step, status, text, allowed):
    """What a step's end and output come to: (passed, failed, skipped, complaints)."""
    complaints = []
    found = COUNTS.findall(text)
    passed, failed, skipped = map(int, found[-1]) if found else (int(status == 0), 0, 0)
    if status == 77 and not found:
        passed, skipped = 0, 1
        text = f"skip {step.name}: {text.strip().splitlines()[-1] if text.strip() else ''}"
    if skipped:
        names = SKIP.findall(text)
        unexpected = [name for name in names
                      if not any(fnmatch.fnmatch(f"{step.name}/{name}", pattern) for pattern in allowed)]
        # A skip without a name can't be looked up, so it is not expected either.
        count = len(unexpected) + max(0, skipped - len(names))
        if count:
            complaints += [f"not an expected skip: {name}" for name in unexpected] or ["an unnamed skip"]
            skipped -= min(count, skipped)
            failed += count
    if status is None:
        complaints.append("was interrupted" if INTERRUPTED.is_set() else f"did not end within {step.limit} s")
    if status not in (0, 77) and not failed:
        failed = 1
    if not passed + failed + skipped:
        complaints.append("counted nothing at all")
        failed = 1
    return passed, failed, skipped, complaints


def run(step, allowed):
    """Run a step and say what came of it; returns (passed, failed, skipped)."""
    log = LOGS / f"{step.name}.log"
    started = time.monotonic()
    try:
        status = execute(step, log)
    except OSError as error:
        log.write_text(f"{error}\n")
        status = 127
    text = log.read_text(errors="replace")
    passed, failed, skipped, complaints = judge(step, status, text, allowed)
    took = time.monotonic() - started
    counts = f"  {passed} passed" + (f", {failed} failed" if failed else "") \
        + (f", {skipped} skipped" if skipped else "") + "".join(f" {words}" for words in ATTEMPTS.findall(text)[-1:])
    step.remarks = REMARK.findall(text)
    lines = [f"{'FAILED' if failed else 'ok':8}{took:7.1f} s  {step.name:24}{counts}"]
    lines += [f"        {remark}" for remark in step.remarks]
    if failed:
        lines += [f"        {complaint}" for complaint in complaints]
        told = text.splitlines()
        # What failed in the middle of a long log, then its end.
        lines += [f"        {line}" for line in told[:-TAIL] if line.startswith("FAILED")]
        lines += [f"        {line}" for line in told[-TAIL:]]
        lines += [f"        (the whole log is {log.relative_to(TOP)})"]
    # At once, as others print, too.
    print("\n".join(lines), flush=True)
    return passed, failed, skipped


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("step", nargs="*")
    args = parser.parse_args()

    chosen = [step for step in steps() if (step.fast or not args.fast)
              and (not args.step or any(step.name.startswith(name) for name in args.step))]
    if args.list:
        for step in chosen:
            print(f"{step.name:24}{' '.join(step.command)}")
        return 0
    if not chosen:
        sys.exit("check.py: there is no such step: see --list")

    # What was started ends with us.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    LOGS.mkdir(parents=True, exist_ok=True)
    allowed = expected_skips()
    started = time.monotonic()
    lanes = [[step for step in chosen if step.aside is aside] for aside in (False, True)]
    # What runs aside finds the build there, and doesn't make it at the same time as others.
    results = [run(lanes[0].pop(0), allowed)] if lanes[0] else []
    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        futures = [pool.submit(lambda lane=lane: [run(step, allowed) for step in lane if not INTERRUPTED.is_set()])
                   for lane in lanes]
        try:
            results += [result for future in futures for result in future.result()]
        except BaseException:
            INTERRUPTED.set()
            raise
    total = [sum(column) for column in zip(*results)]
    took = time.monotonic() - started
    for step in chosen:
        for remark in step.remarks:
            print(f"{step.name}: {remark}")
    print(f"{len(chosen)} steps in {took // 60:.0f} min {took % 60:.0f} s; logs are in build/log")
    print("{} passed, {} failed, {} skipped".format(*total))
    return 1 if total[1] else 0


if __name__ == "__main__":
    sys.exit(main())
