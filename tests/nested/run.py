#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run one case on a nested host: a real kexec with real KVM guests, on any machine.

    run.py CASE [--keep] [--attempts N]     run cases/CASE.py
    run.py --list            what cases there are

The run's files (console log, control log, disk) are under build/nested/run; they are kept with --keep,
and when the case fails.

The emulation of KVM's hardware is not perfect (docs/TESTING.md). So a case that ended because something
never came, or with the host's kernel complaining, is run again, up to N times. What a case
itself found wrong (a word of memory, a number, a state) is final. The last lines say how many attempts it
took, if more than one, what each that broke had to complain of, and what was found wrong: tests/check.py
repeats them."""

import argparse
import collections
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import time
import traceback

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import nested  # noqa: E402  (needs the path above)


PASSED, FAILED, BROKEN = 0, 1, 2

# How an attempt ended, and unless it passed all the reasons, a line each.
Attempt = collections.namedtuple("Attempt", "result reasons")


def load_case(name):
    path = nested.NESTED / "cases" / f"{name}.py"
    if not path.exists():
        sys.exit(f"run.py: there is no case {name}; the cases are: {' '.join(case_names())}")
    spec = importlib.util.spec_from_file_location(f"case_{name.replace('-', '_')}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def case_names():
    return sorted(path.stem for path in (nested.NESTED / "cases").glob("*.py"))


def host_image(kind="plain"):
    """The host's disk image, made or made anew when something in it changed."""
    done = subprocess.run([nested.NESTED / "root.sh", "image", kind], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit("run.py: could not make the image of the nested host")
    return done.stdout.strip().splitlines()[-1]


def run_case(name, keep):
    case = load_case(name)
    started = time.monotonic()
    kind = getattr(case, "HOST", "plain")
    image = host_image(kind)
    print(f"{name}: {case.__doc__.strip().splitlines()[0]}")
    directory = nested.TOP / "build/nested/run" / f"{name}-{time.strftime('%H%M%S')}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    host = nested.Host(directory, image, memory=getattr(case, "MEMORY", 3072),
                       append=getattr(case, "APPEND", ""), kind=kind, reboots=getattr(case, "REBOOTS", False))
    host.note(f"image ready after {host.started - started:.1f} s")

    problem, broken = None, False
    try:
        case.run(host)
    except nested.Failure as failure:
        problem, broken = str(failure), isinstance(failure, nested.Broken)
    except KeyboardInterrupt:
        problem = "interrupted"
    except OSError as error:
        # The control channel's other end is gone.
        problem, broken = f"the nested host ended: {error}", True
    except Exception as error:
        problem = f"{error!r}\n\n{traceback.format_exc()}"
    if host.alive and (problem or keep):
        try:
            host.collect()
        except (nested.Failure, OSError) as failure:
            host.note(f"could not collect the host's logs: {failure}")
    host.stop()

    try:
        alarms = nested.log_alarms(host.serial_log)
    except nested.Failure as failure:
        alarms = [str(failure)]
    reasons = [" / ".join(problem.partition("\n\n")[0].splitlines()[:3])] if problem else []
    if alarms:
        broken = True
        reasons += [f"the console log has: {alarm_title(alarm)}" for alarm in alarms]
        problem = (problem + "\n" if problem else "") + "the console log has:\n" + "\n".join(alarms)
    if problem:
        host.note(f"FAILED: {problem}")
        for log in ("serial.log", "qemu.log", "holdfastd.log"):
            path = directory / log
            if path.exists() and path.stat().st_size:
                tail = path.read_text(errors="replace").splitlines()[-15:]
                print(f"--- the end of {log}:", *tail, sep="\n    ")
        print(f"{name}: FAILED; everything is in {directory}")
        return Attempt(BROKEN if broken else FAILED, reasons)
    host.note(f"passed, {time.monotonic() - started:.1f} s in all")
    if keep:
        print(f"{name}: everything is in {directory}")
    else:
        shutil.rmtree(directory)
    return Attempt(PASSED, [])


def alarm_title(alarm):
    """The first line that says what a complaint of the kernel is about."""
    lines = alarm.splitlines()
    return next((line for line in lines if "[ cut here ]" not in line), lines[0])


def summary(name, attempts):
    """What must not be forgotten over a good end, for people and for tests/check.py."""
    if len(attempts) > 1:
        yield f"{name}: {'passed' if attempts[-1].result == PASSED else 'FAILED'} ({len(attempts)} attempts)"
    for number, attempt in enumerate(attempts, 1):
        for reason in attempt.reasons:
            yield f"remark  attempt {number}: {reason}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", nargs="?")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--attempts", type=int, default=1)
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        for name in case_names():
            print(f"{name:20} {load_case(name).__doc__.strip().splitlines()[0]}")
        return 0
    if not args.case:
        parser.error("which case? --list tells")
    # The QEMU that emulates the host is one of these.
    subprocess.run([nested.NESTED / "qemus.sh"], check=True, stdout=subprocess.DEVNULL)
    attempts = []
    while len(attempts) < args.attempts and (not attempts or attempts[-1].result == BROKEN):
        attempts.append(run_case(args.case, args.keep))
        if attempts[-1].result == BROKEN:
            print(f"{args.case}: attempt {len(attempts)} of {args.attempts} ended with a host that broke",
                  flush=True)
    for line in summary(args.case, attempts):
        print(line)
    return 0 if attempts[-1].result == PASSED else 1


if __name__ == "__main__":
    sys.exit(main())
