# SPDX-License-Identifier: Apache-2.0
"""Tests of agent.py's: another QEMU for guests that have taps, with a connection that lives through it."""

import contextlib
import ctypes
import functools
import json
import os
import re
import subprocess

from agent_vmm_upgrade import begin_upgrade, check_only_qemu, upgraded
from rig import (Guest, Monitor, Package, PrivateQemu, Writer, check, every_qemu, full_version, poll, ram_users, test,
                 write_program)

import witness_client  # in the folder that rig has put on the path

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
TAP, HOST, GUEST = "hf-tap", "10.9.0.1", "10.9.0.2"


def enter_network():
    """What is started by this thread has a network of its own, with a tap that is there before its QEMU."""
    check(LIBC.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno()))
    for words in (f"tuntap add {TAP} mode tap", f"addr add {HOST}/24 dev {TAP}", f"link set {TAP} up", "link set lo up"):
        subprocess.run(["ip", *words.split()], check=True)


@contextlib.contextmanager
def own_network():
    """The same for a while."""
    usual = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter_network()
        yield
    finally:
        check(LIBC.setns(usual, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno()))
        os.close(usual)


def offloads():
    """What of a packet's checksum and size is left to the guest, which QEMU tells the tap."""
    (link,) = json.loads(subprocess.run(["ip", "-json", "-details", "link", "show", TAP], text=True, capture_output=True,
                                        check=True).stdout)
    check(link["linkinfo"]["info_data"]["vnet_hdr"], f"{link}")
    out = subprocess.run(["ethtool", "-k", TAP], text=True, capture_output=True, check=True).stdout
    return [line.strip() for line in out.splitlines() if "tx-" in line]


class Connected:
    """A guest behind the tap, and a connection to it."""

    def __init__(self, world, make, netdev="", name="g", **kwargs):
        netdev = netdev or f"tap,id=net,ifname={TAP},script=no,downscript=no"
        self.world = world
        self.guest = make(name, machine="q35", append=f"hf.ip={GUEST}/24 hf.port=7000", extra=[
            "-netdev", netdev, "-device", "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:68:66:02"], **kwargs)
        self.guest.wait_ready()
        self.client = witness_client.WitnessClient(GUEST, 7000).start()
        check(self.client.wait_connected(60), "no connection to the guest")
        self.offloads = offloads()
        check(any(line.startswith("tx-tcp-segmentation: on") for line in self.offloads), f"{self.offloads}")

    def check_connected(self):
        """Nothing of the connection was lost, and the tap is as it was."""
        check(self.client.wait_quiet(30), f"the connection: {self.client.result()}")
        check(offloads() == self.offloads, f"the tap has {offloads()}, and had {self.offloads}")

    def check_well(self, pid=None):
        """And it works, in one QEMU."""
        check_only_qemu(self.world, self.guest, pid)
        self.check_connected()
        self.guest.wait_alive()

    def close(self):
        result = self.client.stop()
        check(result["ok"], f"the connection: {result}")


@test
def qemu_is_replaced_behind_a_tap(world):
    """From 7.2 to 10.0, whose disks and cards 11.1 doesn't load, and to 11.1; named in both ways that a command line
    has. Then by an update, and again."""
    as_json = json.dumps({"type": "tap", "id": "net", "ifname": TAP, "script": "no", "downscript": "no"})
    for version, name, netdev in (("10.0", "old", ""), ("11.1", "json", as_json)):
        with own_network():
            package = Package(world)
            package.install("7.2")
            world.start_agent()
            connected = Connected(world, functools.partial(Guest, world), netdev, name)
            guest = connected.guest
            package.install(version)
            world.expect(0, "vmm-upgrade", name, "--dry-run", says=f"would replace QEMU .* by {version}")
            result = upgraded(world, name)
            check(result["outcome"] == "replaced" and result["pid"] == guest.pid, f"{result}")
            check({p["name"] for p in result["phases"]} == {"pause", "save", "vmm-start", "load", "resume"}, f"{result}")
            check(sum(p["duration_ns"] for p in result["phases"]) == result["blackout_ns"] > 0, f"{result}")
            check(full_version(guest).startswith(version), f"it runs on {full_version(guest)}")
            connected.check_well(result["pid"])
            world.upgrade()
            connected.check_well()
            check(upgraded(world, name, "--force")["outcome"] == "replaced", "it was not replaced after an update")
            connected.check_well()
            guest.qmp("stop")
            check(upgraded(world, name, "--force")["outcome"] == "replaced", "a paused one was not replaced")
            check(guest.status == "paused", f"it is {guest.status}")
            guest.qmp("cont")
            connected.check_well()
            connected.close()
            guest.qmp("quit")
            world.agent.terminate()
            world.agent.wait()


@every_qemu
def writers_behind_taps(world):
    """Under KVM, two guests that write their memory all the time and have no use for their network: one after the other."""
    with own_network():
        subprocess.run(["ip", "tuntap", "add", "hf-second", "mode", "tap"], check=True)
        world.start_agent()
        guests = [Writer(world, 2, name=name, shared=True, extra=[
            "-netdev", f"tap,id=n,ifname={tap},script=no,downscript=no", "-device", "virtio-net-pci,netdev=n,romfile="])
                  for name, tap in (("first", TAP), ("second", "hf-second"))]
        for _ in range(3):
            (world.path / "agent.log").write_text("")
            for result in world.ask("vmm-upgrade", "--all", "--force")["guests"]:
                check(result["outcome"] == "replaced", f"{result}")
                pause = {p["name"]: p["duration_ns"] for p in result["phases"]}["pause"]
                check(pause > 0, f"it was not paused first: {result}")
            told = re.findall("pausing it|stood still", world.log())
            check(told == ["pausing it", "stood still"] * 2, f"both at once: {world.log()}")
            for guest in guests:
                check_only_qemu(world, guest)
                guest.wait_alive(2)


@every_qemu
def qemus_behind_a_tap_that_fail(world):
    """The new one ends after it took the tap, or doesn't load: the guest goes on in the old one, with its network."""
    world.configure("[defaults]\nresume-timeout=3s\n")
    with own_network():
        world.start_agent()
        connected = Connected(world, functools.partial(Guest, world))
        old, broken = connected.guest.pid, world.path / "broken"
        others = 'for a; do shift; case "$a" in virtio-net-pci*) a=rtl8139,${a#*,};; esac; set -- "$@" "$a"; done; '
        for does, says in (
                ('case "$*" in *-incoming*) echo no memory >&2; exit 1;; esac; exec QEMU "$@"', "no memory"),
                ('case "$*" in *-incoming*) exec sleep 60;; esac; exec QEMU "$@"', "QEMU did not"),
                (f'{others} exec QEMU "$@"', "virtio-net|load"),
        ):
            write_program(broken, does.replace("QEMU \"", f"{world.qemu} \""))
            world.expect(5, "vmm-upgrade", "g", "--qemu", str(broken), says=says)
            connected.check_well(old)
        connected.close()


@test
def replacement_behind_a_tap_that_is_broken_off(world):
    """The client goes, holdfastd is stopped, somebody lets the guest run, while it stands still. Deaths are sweep.py's."""
    with own_network():
        world.start_agent()
        private = PrivateQemu(world)
        connected = Connected(world, private.guest)
        private.is_slow(5)
        old = connected.guest.pid

        def check_undone():
            poll(lambda: ram_users(old) == [old], 10, "the end of what the new one's shell had started")
            connected.check_well(old)

        client = begin_upgrade(world, "pausing it")
        world.expect(75, "vmm-upgrade", "g", says="being replaced")
        client.kill()
        client.communicate()
        # At once, and not when its new QEMU would be there.
        poll(lambda: "it goes on in the old one" in world.log(), 4, "the undo")
        check_undone()

        client = begin_upgrade(world, "pausing it")
        world.agent.terminate()
        _, err = client.communicate(timeout=60)
        check(client.returncode in (1, 5), f"it ended with {client.returncode}: {err}")
        check(world.agent.wait(20) == 0, "the agent did not stop cleanly")
        world.start_agent()
        check_undone()

        # Somebody lets the guest run in its old QEMU, by a monitor that moved aside: what was saved is old then.
        private.is_slow(4)
        client = begin_upgrade(world, "pausing it")
        aside = Monitor(f"{connected.guest.own_monitor}.holdfast-old")
        poll(lambda: aside.command("query-status")["status"] == "postmigrate", 10, "the end of the save", interval=0.01)
        aside.command("cont")
        aside.close()
        _, err = client.communicate(timeout=60)
        check(client.returncode == 5 and "somebody let it run" in err, f"it ended with {client.returncode}: {err}")
        check_undone()
        connected.close()


@test
def taps_that_cant_be_handed_over(world):
    """Several queues, a name that only the kernel knows: refused, with the guest as it was."""
    with own_network():
        subprocess.run(["ip", "tuntap", "add", "hf-many", "mode", "tap", "multi_queue"], check=True)
        world.start_agent()
        many = Guest(world, "many", machine="pc", extra=["-netdev", "tap,id=n,ifname=hf-many,script=no,downscript=no,queues=2"])
        pattern = Guest(world, "pattern", machine="pc", extra=["-netdev", "tap,id=n,ifname=hf%d,script=no,downscript=no"])
        old = Guest(world, "old", machine="pc", extra=["-nic", f"tap,ifname={TAP},script=no,downscript=no,model=e1000"])
        for guest, says in ((many, "each queue of a tap has one user"), (pattern, "the name of its tap is not known"),
                            (old, "a network backend has one user")):
            guest.wait_ready()
            world.expect(3, "vmm-upgrade", guest.name, "--force", says=says)
            check(guest.status == "running", f"{guest.name} is {guest.status}")
