# SPDX-License-Identifier: Apache-2.0
"""Tests of agent.py's: a manifest that is cut, corrupt, or of a newer holdfast, met by an agent that arrives or is
asked about it."""

import ctypes
import os
import struct

from rig import TOP, Guest, PrivateQemu, check, guest_json, kernel, memfds, poll, test

HEADER_BYTES = 64


def whole(data):
    """Without the rest of its file."""
    return data[:HEADER_BYTES + struct.unpack_from("<Q", data, 16)[0]]


def newer(data):
    """The same manifest, as a holdfast would write it that only newer ones can read: intact, and too new."""
    head, tree = data[:24], bytearray(whole(data)[HEADER_BYTES:])
    _, _, _, strings = struct.unpack_from(">4I", tree)
    name = tree.index(b"\0min-reader-version\0", strings) + 1 - strings
    struct.pack_into(">I", tree, tree.index(struct.pack(">3I", 3, 4, name)) + 12, 1000)
    unsigned = head + bytes(40) + tree
    xxhash = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
    xxhash.argtypes, xxhash.restype = (ctypes.c_char_p, ctypes.c_size_t), ctypes.c_uint64
    return head + struct.pack("<Q", xxhash(unsigned, len(unsigned))) + bytes(32) + tree


def spoilt(data):
    """By name: such a manifest, what is said of it, and what to do about one that came over."""
    flipped = bytearray(data)
    flipped[200] ^= 1
    help_ = "no guest is lost yet: don't stop holdfastd and don't reboot, and ask for help"
    return {
        "cut": (whole(data)[:-1], "the manifest can't be read: it is cut short", help_),
        "corrupt": (bytes(flipped), "the manifest can't be read: its checksum is wrong", help_),
        "newer": (newer(data), "the manifest is from a newer holdfast: it asks for manifest version 1000",
                  "install the holdfast that wrote the manifest, or a newer one, and restart holdfastd"),
    }


@test
def cut_and_corrupt_manifests_are_refused(world):
    world.start_agent()
    golden = sorted((TOP / "tests/golden").glob("manifest-v*.bin"))[-1]
    world.expect(0, "inspect", "manifest", str(golden))
    data = golden.read_bytes()
    wanted = {name: (bad, says) for name, (bad, says, _) in spoilt(data).items()}
    wanted |= {"empty": (b"", "cut short"), "zeros": (bytes(4096), "never written"),
               "noise": (b"x" + os.urandom(4095), "it is something else")}
    for name, (bad, says) in wanted.items():
        path = world.path / name
        path.write_bytes(bad)
        done = world.expect(2, "inspect", "manifest", str(path), says=says)
        check(not done.stdout, f"{name}: {done.stdout}")
    world.expect(2, "inspect", "manifest", str(world.path / "newer"), says="or a newer one")
    check(world.state == "normal", "the agent did not survive it")


class Kept:
    """The manifest that an agent left with the keeper, through the keeper's own descriptor."""

    def __init__(self, world):
        (keeper,) = world.keepers()
        (self.path,) = (f"/proc/{keeper}/fd/{fd}" for fd in os.listdir(f"/proc/{keeper}/fd")
                        if "manifest" in os.readlink(f"/proc/{keeper}/fd/{fd}"))
        with open(self.path, "rb") as file:
            self.data = file.read()

    def write(self, data):
        with open(self.path, "r+b") as file:
            file.truncate(len(data))
            file.write(data)


@test
def manifest_that_cant_be_read(world):
    """By an agent that arrives: it says so and touches nothing. When one can read it, both guests are back."""
    private = PrivateQemu(world)
    guests = [private.guest("g", cpus=2).wait_ready(), private.guest("sleeper", machine="pc").wait_ready()]
    guests[1].qmp("stop")
    before = [guest.last()["passes"] for guest in guests]
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    private.fails_to_load()
    world.expect(6, "commit", says="no such state")
    check(world.ask("status")["state"] == "degraded", "they are not held")
    # Held and handed over are the same to the next agent: all that there is of them is with the keeper.
    world.agent.kill()
    world.agent.wait()
    private.works()
    manifest = Kept(world)
    kept = memfds(world.keepers()[0])
    check(sum("pc.ram" in link for link in kept) == 2 == sum("state" in link for link in kept), f"the keeper has {kept}")
    for name, (bad, says, remedy) in spoilt(manifest.data).items():
        manifest.write(bad)
        world.start_agent()
        status = world.ask("status")
        check(status["state"] == "degraded" and says in status["message"] and f"To do: {remedy}" in status["message"],
              f"{name}: {status}")
        check(says in world.log() and remedy in world.log(), f"{name}: the log is silent")
        check(not status["guests"] and not world.ask("guests")["guests"], f"{name}: {status['guests']}")
        world.expect(0, "status", says=says)
        # Nothing can be done to guests that aren't known, and nothing begun beside them.
        for verb in (("retry", "g"), ("release", "g", "--yes"), ("dump", "g", str(world.path / "core"))):
            world.expect(1, *verb, says="see `holdfast status`")
        world.expect(6, "prepare", "--kernel", kernel(), says="operator")
        world.expect(1, "inspect", "manifest", says="no manifest")
        check(memfds(world.keepers()[0]) == kept, f"{name}: the keeper has {memfds(world.keepers()[0])}")
        check(not memfds(world.agent.pid), f"{name}: the agent has {memfds(world.agent.pid)}")
        # As when another holdfast is installed and the service restarted.
        world.agent.terminate()
        check(world.agent.wait(20) == 0, f"{name}: the agent does not stop")
        check(memfds(world.keepers()[0]) == kept, f"{name}: the keeper has {memfds(world.keepers()[0])}")
    manifest.write(manifest.data)
    world.start_agent()
    poll(lambda: world.state == "normal", 30, "both to come back")
    check([guest.status for guest in guests] == ["running", "paused"], f"{[g.status for g in guests]}")
    check(guest_json(world, "g")["status"] == "running", f"{guest_json(world, 'g')}")
    report = world.ask("report")["report"]
    check(report["outcome"] == "done" and [g["outcome"] for g in report["guests"]] == ["resumed", "paused"],
          f"{report}")
    guests[1].qmp("cont")
    for guest, passes in zip(guests, before):
        guest.wait_alive()
        check(guest.last()["passes"] > passes, f"{guest.name} began anew")
    world.upgrade()
    for guest in guests:
        guest.wait_alive()
