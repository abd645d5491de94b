#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Domains of real libvirts with the agent and no reboot: the `hold` carrier, libvirtd stopped and started around it.

    libvirt.py [-j N] [--root DIR]... [--list] [TEST]...

Each test has a libvirtd, an agent and guests of its own, in namespaces of its own: nothing of the machine's libvirt is
touched. Needs root. Without --root all run with the machine's libvirt, and those marked @every_libvirt also with
each that tests/nested/libvirts.sh has made. Last line: N passed, N failed, N skipped."""

import argparse
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import libvirt_host
import rig
from libvirt_host import Bridge, Domain, Events, LibvirtWorld
from rig import TESTS, TOP, check

import witness_client  # in the folder that rig has put on the path

every_libvirt = rig.every_qemu


# ---- the suite's own tools, without the agent


@every_libvirt
def libvirt_works_here(world):
    """What the other tests rely on: domains run, are seen, and outlive libvirtd."""
    bridge = Bridge()
    domains = [Domain(world, "pc", machine="pc"),
               Domain(world, "q35", cpus=2, cells=2, memory=128, disk=True, tpm=True, vnc=True, pty=True, agent=True,
                      tap=bridge), Domain(world, "fleeting", transient=True)]
    for domain in domains:
        domain.wait_ready()
    client = witness_client.WitnessClient(bridge.guest, 7000)
    client.start()
    check(client.wait_connected(60), "the guest can't be reached")
    domains[0].virsh("suspend")
    domains[0].check_quiet()
    before = [domain.seen() for domain in domains]
    pids = [domain.pid for domain in domains]
    subprocess.run([world.libvirt.hook, "stop"], check=True)
    world.virsh("list", code=1)
    subprocess.run([world.libvirt.hook, "start"], check=True)
    for domain, was in zip(domains, before):
        domain.check_seen(was)
    check(pids == [domain.pid for domain in domains], "a QEMU was replaced")
    events = Events(world)
    domains[0].virsh("resume")
    events.wait("'pc': Resumed")
    events.close()
    for domain in domains:
        domain.wait_alive()
    result = client.stop()
    check(result["ok"], f"the conversation: {result}")


# ---- running them


def run_inside(name, label):
    """One test, in the namespaces."""
    (function,) = [function for function, _ in TESTS if function.__name__ == name]
    passed = rig.run_one(function, label, shutil.which("qemu-system-x86_64"), LibvirtWorld)
    return 77 if passed is None else 0 if passed else 1


def run_outside(name, root, label):
    """Return: whether it passed, or None for a skip."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="hf-libvirt-"))
    folder.chmod(0o755)
    inside = [str(pathlib.Path(__file__).resolve().relative_to(TOP)), "--inside", label, name]
    code = subprocess.run([*libvirt_host.UNSHARE, sys.executable, __file__, "--init", str(root), str(folder), *inside],
                          stdin=subprocess.DEVNULL).returncode
    if code in (0, 77):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"        kept: {folder}", flush=True)
    return {0: True, 77: None}.get(code, False)


def label_of(root):
    def ask(*argv):
        out = subprocess.run(["chroot", root, *argv], text=True, capture_output=True, check=True).stdout
        return next(word for word in out.split() if word[0].isdigit())
    return f"libvirt {ask('libvirtd', '--version')}, QEMU {ask('qemu-system-x86_64', '--version')}"


def main():
    if sys.argv[1:2] == ["--init"]:
        sys.exit(libvirt_host.init(sys.argv[2], sys.argv[3], sys.argv[4:]))
    if sys.argv[1:2] == ["--inside"]:
        sys.exit(run_inside(sys.argv[3], sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-j", "--jobs", type=int, default=2)
    parser.add_argument("--root", action="append", default=[], type=pathlib.Path)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("tests", nargs="*")
    args = parser.parse_args()
    wanted = [(function, every) for function, every in TESTS if not args.tests or function.__name__ in args.tests]
    unknown = set(args.tests) - {function.__name__ for function, _ in TESTS}
    if unknown:
        parser.error(f"there is no test {', '.join(sorted(unknown))}")
    if args.list:
        print("\n".join(function.__name__ for function, _ in wanted))
        return
    if os.geteuid() != 0:
        sys.exit("libvirt.py: namespaces and libvirtd need root")
    if not args.root and not shutil.which("libvirtd"):
        sys.exit("libvirt.py: there is no libvirtd on this machine; see mk/deps.sh")
    roots = args.root or [pathlib.Path("/"), *sorted((rig.CACHE / "libvirt").glob("*-*/usr/sbin/libvirtd"))]
    roots = [root.parents[2] if root.name == "libvirtd" else root for root in roots]
    labels = {root: label_of(root) for root in roots}
    subprocess.run([TOP / "tests/nested/witness/build.sh"], check=True)
    jobs = [(function.__name__, root, labels[root]) for function, every in wanted
            for root in (roots if every else roots[:1])]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda job: run_outside(*job), jobs))
    passed, failed, skipped = results.count(True), results.count(False), results.count(None)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
