# SPDX-License-Identifier: Apache-2.0
"""Two guests can't come up after a jump: one is dumped, outlives the agent and comes back, one is released.

One of the two had private RAM and was adopted before. A third guest, with a client outside, must not notice
anything but the jump. The QEMU of the other two is a program that refuses to load anything on the new kernel."""

import base64
import json
import struct
import subprocess

from guests import Guest
from nested import TEST_DIR, fail
from updates import end_connection, holdfast, jump, state, status, wait_agent

MEMORY = 4096
OWN_QEMU = "/usr/local/bin/qemu-own"

# The witness's words, as tests/nested/witness/mem.c has them.
MASK = (1 << 64) - 1
STEP, STEP_INVERSE = 0x9e3779b97f4a7c15, 0xf1de83e19937733d
BLOCK_WORDS = (64 << 10) // 8
GENERATIONS = 100


def held(host):
    """Names of the guests that are held, as `holdfast status` has them; it must say what the host is."""
    now = status(host)
    names = sorted(guest["name"] for guest in now["guests"] if guest["status"] == "held")
    if now["state"] not in ("resuming", "degraded" if names else "normal"):
        fail(f"the host is {now['state']}, and held are {names}")
    return names


def expect_held(host, *names):
    if held(host) != sorted(names):
        fail(f"{held(host)} are held, not {names}")


def pid_of(host, name):
    guests = json.loads(host.run("holdfast guests -o json").out)["guests"]
    return next(guest["pid"] for guest in guests if guest["name"] == name)


def mix64(x):
    for _ in range(2):
        x = ((x ^ x >> 32) * 0xd6e8feb86659fd93) & MASK
    return x ^ x >> 32


def is_witness_page(page, guest):
    """Whether these 4 KiB are such as only this guest's witness writes."""
    words = struct.unpack("<512Q", page)
    if any((b - a) & MASK != STEP for a, b in zip(words, words[1:])):
        return False
    for block in range(guest.memory * (1 << 20) // (8 * BLOCK_WORDS)):
        inner = mix64((guest.seed + block * 0xff51afd7ed558ccd) & MASK)
        for generation in range(GENERATIONS):
            at = ((words[0] - mix64(inner ^ (generation * STEP) & MASK)) * STEP_INVERSE) & MASK
            if at < BLOCK_WORDS:
                return True
    return False


def read_at(host, path, offset, size):
    out = host.run(f"dd if={path} bs=4096 skip={offset // 4096} count={size // 4096 + 1} 2>/dev/null | base64").out
    return base64.b64decode(out)[offset % 4096:][:size]


def check_core(host, path, guest):
    """What readelf makes of it, and that the guest's own words are in it."""
    size = int(host.run(f"stat -c %s {path}").out)
    head = host.directory / "core.head"
    with open(head, "wb") as file:
        file.write(read_at(host, path, 0, 32768))
        file.truncate(size)
    text = subprocess.run(["readelf", "-W", "-h", "-l", head], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, check=True).stdout
    if "CORE (Core file)" not in text or "X86-64" not in text or "warning" in text.lower():
        fail(f"readelf says of the core:\n{text}")
    loads = [tuple(int(word, 16) for word in line.split()[1:6])
             for line in text.splitlines() if line.split()[:1] == ["LOAD"]]
    if sum(load[3] for load in loads) < guest.memory << 20:
        fail(f"the core has less memory than the guest:\n{text}")
    offset, _, physical, length, _ = max(loads, key=lambda load: load[3])
    pages = [read_at(host, path, offset + (((32 << 20) + n * (5 << 20)) - physical), 4096) for n in range(16)
             if physical <= (32 << 20) + n * (5 << 20) < physical + length - 4096]
    found = sum(is_witness_page(page, guest) for page in pages)
    if found < len(pages) // 4 or not found:
        fail(f"{found} of {len(pages)} pages of the core are the witness's")
    host.note(f"the core has {len(loads)} parts of memory; {found} of {len(pages)} pages looked at are the witness's")


def run(host):
    host.boot()
    wait_agent(host)
    host.put(OWN_QEMU, f"#!/bin/sh\n[ $(uname -r) = {host.kernels['OLD_VERSION']} ] || case \"$*\" in\n"
                       "*-incoming*) echo no such state >&2; exit 1;;\nesac\nexec qemu-system-x86_64 \"$@\"\n", "755")
    moved = Guest(host, "moved", machine="pc", qemu=OWN_QEMU, extra="-mem-path /var/tmp")
    gone = Guest(host, "gone", machine="pc", qemu=OWN_QEMU)
    other = Guest(host, "other", disk=True, net=True)
    for guest in (moved, gone, other):
        guest.start()
        guest.wait_ready()
    client = other.client()

    host.note("a guest with private RAM is adopted while it runs")
    holdfast(host, f"check --kernel {TEST_DIR}/bzImage-new", 3, "holdfast adopt moved")
    pids = {name: pid_of(host, name) for name in ("moved", "gone", "other")}
    print(holdfast(host, "adopt moved --downtime 20000", says="Adopted: guest moved", timeout=300))
    if pid_of(host, "moved") == pids["moved"] or [pid_of(host, n) for n in ("gone", "other")] != [pids["gone"], pids["other"]]:
        fail(f"of {pids} not just that of the adopted guest is another one now")
    moved.wait_passes(1)
    moved.judge()
    if host.run("ls /run/holdfast/adopted.sock 2>/dev/null; pgrep -x hf-keeper; true").out:
        fail("the adoption's keeper is still there")

    host.note("the jump")
    client.reset_gaps()
    jump(host, "bzImage-new", host.kernels["NEW_VERSION"], 2)
    host.poll(lambda: state(host) != "resuming", 120, "the end of the update")
    expect_held(host, "gone", "moved")
    holdfast(host, "report", says="degraded")
    pid = pid_of(host, "other")
    other.wait_passes(1)
    holdfast(host, "status", says="degraded")
    holdfast(host, "status", says="holdfast retry moved")

    host.note("one is dumped")
    holdfast(host, "dump moved /var/tmp/core", says="128 MiB of memory")
    check_core(host, "/var/tmp/core", moved)
    host.run("rm /var/tmp/core")
    expect_held(host, "gone", "moved")

    host.note("the agent is killed and started again")
    host.run("pkill -9 -x holdfastd")
    host.spawn("holdfastd >>/var/log/holdfastd.log 2>&1")
    wait_agent(host)
    host.poll(lambda: held(host) == ["gone", "moved"], 60, "both to be held again")

    host.note("one is retried with another QEMU, one is released")
    seen = moved.passes()
    holdfast(host, "retry moved", 6, "no such state")
    holdfast(host, "retry moved --qemu /usr/bin/qemu-system-x86_64")
    expect_held(host, "gone")
    if moved.state() != "running":
        fail(f"the guest that was retried is {moved.state()}")
    moved.wait_passes(2)
    last = moved.judge()
    holdfast(host, "release gone", 2, "128 MiB, for good")
    expect_held(host, "gone")
    holdfast(host, "release gone --yes")
    expect_held(host)
    host.note(f"moved goes on: {last['passes']} passes, {seen} of them before, no word wrong")

    if pid_of(host, "other") != pid or other.state() != "running":
        fail("the guest that came up was touched")
    other.wait_passes(1)
    other.judge()
    end_connection(client)
    host.poll(lambda: not host.run("pgrep -x hf-keeper; ls /run/holdfast/keeper.sock /run/holdfast/resumed/* "
                                   "2>/dev/null; true").out.strip(), 20, "nothing to be left behind")
