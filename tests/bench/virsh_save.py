#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long `virsh save` and `virsh restore` take for a domain with given memory. A part of image.py.

    virsh_save.py FOLDER RAM MIB

FOLDER is for the saved domain, RAM a file with MIB MiB. The domain is started paused and never runs: its memory, in a file as
libvirt makes it, gets what is in RAM. Prints {"save": seconds, "load": seconds}. Needs root."""

import json
import pathlib
import shutil
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(TOP / "tests/vmm"), str(TOP / "tests/bench")]

import libvirt_host  # noqa: E402 (before others put a folder on the path that has one of that name, too)
import image  # noqa: E402


def inside(ram, mib):
    world = libvirt_host.LibvirtWorld(shutil.which("qemu-system-x86_64"))
    domain = libvirt_host.Domain(world, "bench", machine="pc", memory=mib, start=False)
    domain.virsh("start", "--paused")
    (memory,) = [path for path in libvirt_host.RAM.rglob("*") if path.is_file()]
    with open(ram, "rb") as source, open(memory, "r+b") as target:
        shutil.copyfileobj(source, target, 8 << 20)
    saved = world.path / "saved"
    image.warm_up(pathlib.Path(ram).parent, mib)
    begin = time.monotonic()
    domain.virsh("save", saved, timeout=600)
    # Saved is what is on the disk.
    image.forget(saved)
    save = time.monotonic() - begin
    image.warm_up(pathlib.Path(ram).parent, mib)
    begin = time.monotonic()
    world.virsh("restore", "--paused", saved, timeout=600)
    load = time.monotonic() - begin
    domain.virsh("destroy")
    world.close(False)
    print(json.dumps({"save": save, "load": load}))


def main():
    if sys.argv[1:2] == ["--init"]:
        sys.exit(libvirt_host.init(sys.argv[2], sys.argv[3], sys.argv[4:]))
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2], int(sys.argv[3]))
        return
    folder, ram, mib = sys.argv[1:]
    script = str(pathlib.Path(__file__).resolve().relative_to(TOP))
    sys.exit(subprocess.run([*libvirt_host.UNSHARE, sys.executable, __file__, "--init", "/", folder, script, "--inside",
                             ram, mib], stdin=subprocess.DEVNULL).returncode)


if __name__ == "__main__":
    main()
