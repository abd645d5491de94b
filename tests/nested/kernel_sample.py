# SPDX-License-Identifier: Apache-2.0
"""Small kernel images for tests: strings in an ELF head's company, packed with gzip, behind a boot header
as in Linux 7.3. They start nothing. tests/unit/kernel-sample.h makes the same, and more kinds."""

import gzip
import struct

SETUP_SECTS = 4
PAYLOAD_OFFSET = 0x2c4
FORMATS = ("kho-v4", "luo-v5", "memfd-v2")


def vmlinux(formats=FORMATS, release="7.3.4", config=None):
    data = b"\x7fELF\x02\x01\x01" + bytes(1000)
    for name in formats:
        data += b"\xff" + name.encode() + b"\0"
    data += f"\0Linux version {release} (me@there) #1 SMP\n\0".encode()
    if config is not None:
        data += b"IKCFG_ST" + gzip.compress(config.encode()) + b"IKCFG_ED"
    return data


def bzimage(formats=FORMATS, release="7.3.4", config=None, xloadflags=0x7f):
    payload = gzip.compress(vmlinux(formats, release, config))
    code = bytes(PAYLOAD_OFFSET) + payload
    code += bytes(-len(code) % 16)
    head = bytearray((SETUP_SECTS + 1) * 512)
    head[0:2] = b"MZ"
    head[0x1f1] = SETUP_SECTS
    struct.pack_into("<I", head, 0x1f4, len(code) // 16)
    struct.pack_into("<H", head, 0x1fe, 0xaa55)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<HH", head, 0x206, 0x020f, 0)
    struct.pack_into("<H", head, 0x20e, 0x100)
    head[0x211] = 1
    struct.pack_into("<H", head, 0x236, xloadflags)
    struct.pack_into("<II", head, 0x248, PAYLOAD_OFFSET, len(payload))
    version = f"{release} (me@there) #1 SMP".encode()
    head[0x300:0x300 + len(version)] = version
    return bytes(head) + code
