#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes an initramfs with the witness and, beside it, qemu-guest-agent.

    mkqga.py ROOT WITNESS.cpio.gz OUTPUT.cpio.gz

ROOT has the packages unpacked. The kernel unpacks archives that lie one behind the other, so the agent's
is put behind the witness's. The guest has to be started with rdinit=/qga-init: that starts the agent, again 25
seconds after it has ended, and becomes the witness.
"""

import gzip
import os
import pathlib
import stat
import subprocess
import sys

from mkinitramfs import entry

PROGRAMS = {"usr/sbin/qemu-ga": "sbin/qemu-ga", "usr/sbin/hwclock": "sbin/hwclock", "usr/bin/busybox": "bin/busybox"}
LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = f"{LIBRARIES}/ld-linux-x86-64.so.2"

INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
(
while :; do
	while [ ! -e /dev/vport0p1 ]; do /bin/busybox sleep 0.2; done
	/sbin/qemu-ga -m virtio-serial -p /dev/vport0p1 -t /run
	/bin/busybox sleep 25
done
) </dev/null >/dev/null 2>&1 &
exec /init "$@"
"""


def libraries(root, program):
    """What the loader would load, of the root's own."""
    out = subprocess.run([root / LOADER, "--inhibit-cache", "--library-path", root / LIBRARIES, "--list", root / program],
                         text=True, stdout=subprocess.PIPE, check=True).stdout
    found = [line.split("=>")[1].split()[0] for line in out.splitlines() if "=>" in line and "not found" not in line]
    if "not found" in out:
        sys.exit(f"mkqga.py: {program} lacks libraries:\n{out}")
    return {pathlib.Path(path) for path in found}


def members(root):
    for name in ("bin", "sbin", "lib", "lib64", "run", "var"):
        yield name, stat.S_IFDIR | 0o755, b""
    yield "var/run", stat.S_IFLNK | 0o777, b"/run"
    yield "qga-init", stat.S_IFREG | 0o755, INIT.encode()
    yield "bin/sh", stat.S_IFLNK | 0o777, b"busybox"
    yield "lib64/ld-linux-x86-64.so.2", stat.S_IFREG | 0o755, (root / LOADER).read_bytes()
    needed = set()
    for source, target in PROGRAMS.items():
        yield target, stat.S_IFREG | 0o755, (root / source).read_bytes()
        needed |= libraries(root, source)
    for path in sorted(needed):
        if not path.name.startswith("ld-linux"):
            yield f"lib/{path.name}", stat.S_IFREG | 0o755, path.read_bytes()


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    root, witness, output = map(pathlib.Path, sys.argv[1:])
    data = b"".join(entry(i, *m) for i, m in enumerate(members(root), 1)) + entry(0, "TRAILER!!!", 0)
    part = output.with_name(output.name + ".part")
    part.write_bytes(witness.read_bytes() + gzip.compress(data, 6, mtime=0))
    os.replace(part, output)


if __name__ == "__main__":
    main()
