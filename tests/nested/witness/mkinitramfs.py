#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes an initramfs that holds the witness as /init and next to nothing else.

    mkinitramfs.py WITNESS OUTPUT.cpio.gz

The archive (format "newc") is written here and not by cpio, because it holds a device node:
without /dev/console the kernel starts init with no console, and making a node takes root. The
same input always gives the same bytes.
"""

import gzip
import os
import stat
import sys


def entry(ino, name, mode, data=b"", rdev=(0, 0)):
    """One member of the archive: header, name and data, the latter two padded to four bytes."""
    path = name.encode() + b"\0"
    fields = (ino, mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % f for f in fields) + path
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def archive(init):
    members = [
        ("dev", stat.S_IFDIR | 0o755, b"", (0, 0)),
        ("proc", stat.S_IFDIR | 0o755, b"", (0, 0)),
        ("sys", stat.S_IFDIR | 0o755, b"", (0, 0)),
        ("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)),
        ("init", stat.S_IFREG | 0o755, init, (0, 0)),
    ]
    out = b"".join(entry(i, *m) for i, m in enumerate(members, 1))
    return out + entry(0, "TRAILER!!!", 0)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1], "rb") as f:
        data = archive(f.read())
    part = sys.argv[2] + ".part"
    with open(part, "wb") as f:
        f.write(gzip.compress(data, 9, mtime=0))
    os.replace(part, sys.argv[2])


if __name__ == "__main__":
    main()
