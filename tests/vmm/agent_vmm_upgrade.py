# SPDX-License-Identifier: Apache-2.0
"""Tests of agent.py's: another QEMU for guests that run."""

import fcntl
import json
import os
import pathlib
import re
import signal
import socket
import subprocess

from rig import (BUILD, Failure, Guest, Package, PrivateQemu, Writer, check, every_qemu, full_version, kernel, poll,
                 private_guest, ram_users, test, write_program)


def upgraded(world, name, *options):
    """By `holdfast vmm-upgrade`. Return: what it says of the guest."""
    return next(g for g in world.ask("vmm-upgrade", name, *options)["guests"] if g["name"] == name)


def begin_upgrade(world, says="beside the one that it runs in"):
    """Return: the client, when its guest has come as far as the log says."""
    (world.path / "agent.log").write_text("")
    client = subprocess.Popen([str(BUILD / "holdfast"), "vmm-upgrade", "g", "--force"], env=world.env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    poll(lambda: says in world.log(), 20, f"`{says}`", interval=0.01)
    return client


def check_only_qemu(world, guest, old=None):
    """One QEMU has its RAM, it is the one that is registered, and nothing is left of what was tried."""
    users = ram_users(guest.pid)
    check(users == [guest.pid], f"{guest.name} is in process {guest.pid}, and these have its RAM: {users}")
    check(old is None or guest.pid == old, f"{guest.name} is in process {guest.pid}, and was in {old}")
    left = [str(p) for p in (world.path / "run/vmm-upgrade").glob("*")] + \
        [str(p) for p in world.path.glob("*.holdfast-old")]
    check(not left, f"left behind: {left}")
    check(not guest.capability("x-ignore-shared"), f"{guest.name}: x-ignore-shared is still on")
    check(world.state == "normal", f"the host is {world.state}")


@test
def qemu_is_replaced_under_a_guest(world):
    """From 7.2 to 10.0 to 11.1, with a disk and while it works; then an ordinary update."""
    package = Package(world)
    package.install("7.2")
    world.start_agent()
    guest = Guest(world, "g", machine="pc", cpus=2, extra=["-device", "VGA"])
    disk = Guest(world, "disk", machine="pc", disk=True).wait_ready()
    guest.wait_ready()
    world.expect(0, "vmm-upgrade", "g", says="runs on QEMU 7.2.* already")
    for version in ("10.0", "11.1"):
        package.install(version)
        old = guest.pid
        world.expect(0, "vmm-upgrade", "g", "--dry-run", says=f"would replace QEMU .* by {re.escape(version)}")
        check(guest.pid == old, "a dry run did something")
        result = upgraded(world, "g")
        check(result["outcome"] == "replaced" and result["pid"] == guest.pid != old, f"{result}")
        check(full_version(guest).startswith(version), f"it runs on {full_version(guest)}")
        check({p["name"] for p in result["phases"]} == {"pause", "save", "load", "resume"}, f"{result}")
        check(sum(p["duration_ns"] for p in result["phases"]) == result["blackout_ns"] > 0, f"{result}")
        guest.wait_alive(2)
        check_only_qemu(world, guest)
    old = guest.pid
    check(upgraded(world, "g")["outcome"] == "current" and guest.pid == old, "it was replaced by the same")
    check(upgraded(world, "g", "--force")["outcome"] == "replaced" and guest.pid != old, "--force has no effect")
    guest.wait_alive()
    world.upgrade()
    guest.wait_alive()
    check(upgraded(world, "g", "--force")["outcome"] == "replaced", "it was not replaced after an update")
    guest.wait_alive()
    check_only_qemu(world, guest)
    # It has come to 11.1 without 10.0 in between, whose disks have queues that 11.1 doesn't load.
    check(full_version(disk).startswith("11.1"), f"it runs on {full_version(disk)}")
    check(upgraded(world, "disk", "--force")["outcome"] == "replaced", "the one with a disk was not replaced")
    disk.wait_alive(2)


@every_qemu
def qemu_is_replaced_by_the_same(world):
    """Again and again; a paused guest stays paused, and the sockets of its command line are its new QEMU's."""
    world.start_agent()
    guest = Guest(world, "g", memory=128, extra=["-device", "virtio-serial", "-chardev",
                                                 f"socket,id=c,path={world.path}/c.sock,server=on,wait=off",
                                                 "-device", "virtserialport,chardev=c,name=c"]).wait_ready()
    for _ in range(3):
        old = guest.pid
        world.expect(0, "vmm-upgrade", "g", "--force", says="g: replaced QEMU .*now process")
        check(guest.pid != old, "it is the same process")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{world.path}/c.sock")
        check_only_qemu(world, guest)
        guest.wait_alive()
    guest.qmp("stop")
    result = upgraded(world, "g", "--force")
    check(result["outcome"] == "replaced" and "blackout_ns" not in result, f"{result}")
    check(guest.status == "paused", f"it is {guest.status}")
    guest.check_quiet()
    guest.qmp("cont")
    guest.wait_alive()


def ram_of(pid):
    """The guest's memory, as it is in its file."""
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if "memfd:holdfast:" in os.readlink(fd):
            return fd.read_bytes()
    raise Failure(f"process {pid} has no memory of a guest's")


@every_qemu
def new_qemu_leaves_memory_alone(world):
    """Neither its start nor the load changes a byte of a guest's memory: so there is a way back from both."""
    world.start_agent()
    guest = Guest(world, "g", memory=160, disk=True, extra=[
        "-device", "VGA", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-nic", "user,model=e1000",
        "-device", "virtio-serial", "-device", "virtio-rng-pci", "-device", "virtio-balloon-pci",
        "-device", "qemu-xhci", "-device", "usb-tablet"]).wait_ready()
    guest.wait_alive()
    guest.qmp("stop")
    before = ram_of(guest.pid)
    check(upgraded(world, "g", "--force")["outcome"] == "replaced", "it was not replaced")
    after = ram_of(guest.pid)
    check(len(before) == len(after) == 160 << 20 and any(before), "this is not the guest's memory")
    changed = [i for i in range(0, len(before), 4096) if before[i:i + 4096] != after[i:i + 4096]]
    check(not changed, f"pages were changed: {[hex(i) for i in changed[:10]]}")
    guest.qmp("cont")
    guest.wait_alive()


@every_qemu
def qemu_is_replaced_while_the_guest_writes(world):
    """Under KVM it runs on until QEMU stops it by itself, with the new one on the same memory already."""
    world.start_agent()
    guest = Writer(world, mib=2, shared=True)
    for _ in range(3):
        old = guest.pid
        result = upgraded(world, "writer", "--force")
        check(result["outcome"] == "replaced" and guest.pid != old, f"{result}")
        check({p["name"]: p["duration_ns"] for p in result["phases"]}["pause"] == 0, f"it was paused first: {result}")
        guest.wait_alive()
        check_only_qemu(world, guest)
    guest.qmp("stop")
    check(upgraded(world, "writer", "--force")["outcome"] == "replaced", "a paused one is not replaced")
    check(guest.status == "paused", f"it is {guest.status}")
    guest.qmp("cont")
    guest.wait_alive()


@test
def qemus_are_replaced_that_fail(world):
    """A program that is none, one that ends, one that doesn't answer, one that can't load: it goes on in the old one."""
    world.configure("[defaults]\nresume-timeout=3s\n")
    world.start_agent()
    guest = Guest(world, "g", machine="pc", disk=True, extra=["-device", "virtio-rng-pci"]).wait_ready()
    old = guest.pid
    broken = world.path / "broken"
    others = 'for a; do shift; [ "$a" = virtio-rng-pci ] && a=virtio-balloon-pci; set -- "$@" "$a"; done; '
    for does, code, says in (
            ("echo no room for QEMU >&2; exit 1", 3, "no room for QEMU"),
            (f'case "$*" in *-incoming*) echo no memory >&2; exit 1;; esac; exec {world.qemu} "$@"', 5, "no memory"),
            (f'case "$*" in *-incoming*) exec sleep 60;; esac; exec {world.qemu} "$@"', 5, "QEMU did not"),
            # Or the old one says first that nobody takes its state any more.
            (f'{others} exec {world.qemu} "$@"', 5, "virtio-rng|load|saving the device state ended as `failed`"),
    ):
        write_program(broken, does)
        world.expect(code, "vmm-upgrade", "g", "--qemu", str(broken), says=says)
        check(guest.status == "running", f"it is {guest.status}")
        check_only_qemu(world, guest, old)
        guest.wait_alive()
    for path, says in ((str(world.path / "none"), "No such file"), (str(world.path), "not a program"),
                       ("qemu-system-x86_64", "absolute path")):
        world.expect(2, "vmm-upgrade", "g", "--qemu", path, says=says)
    broken.chmod(0o777)
    world.expect(2, "vmm-upgrade", "g", "--qemu", str(broken), says="written to by others than root")
    world.expect(0, "vmm-upgrade", "g", "--qemu", world.qemu, says="replaced")
    guest.wait_alive()
    check_only_qemu(world, guest)


@test
def qemu_that_hangs_in_the_load(world):
    """It is stopped before the guest is saved: after the time-out the guest goes on in the old one."""
    world.configure("[defaults]\nresume-timeout=4s\n")
    world.start_agent()
    private = PrivateQemu(world)
    guest = private.guest("g", machine="pc").wait_ready()
    private.is_slow(1)
    old, notes = guest.pid, world.path / "run/vmm-upgrade"
    client = begin_upgrade(world)
    # So that it isn't saved before the new one is stopped.
    os.kill(old, signal.SIGSTOP)
    poll(lambda: any('"pausing"' in note.read_text() for note in notes.glob("*.json")), 20, "the pause", interval=0.01)
    new = json.loads(json.loads(next(notes.glob("*.json")).read_text())["registration"])["pid"]
    check(new != old, "the note has the old QEMU for the new one")
    os.kill(new, signal.SIGSTOP)
    os.kill(old, signal.SIGCONT)
    _, err = client.communicate(timeout=60)
    check(client.returncode == 5 and "QEMU did not load its device state within 4000 ms" in err,
          f"it ended with {client.returncode}: {err}")
    check("going back to its old QEMU" in world.log(), "the log does not say that a load had begun")
    check(guest.status == "running", f"it is {guest.status}")
    check_only_qemu(world, guest, old)
    guest.wait_alive()


@test
def disk_that_the_new_qemu_cant_lock(world):
    """Somebody else has the image locked when it changes hands: neither QEMU can run the guest, until that is over."""
    world.start_agent()
    guest = Guest(world, "g", machine="pc", disk=True).wait_ready()
    old = guest.pid
    with open(guest.disk, "rb") as image:
        # What QEMU takes for somebody who doesn't let others write: block/file-posix.c.
        fcntl.lockf(image, fcntl.LOCK_SH, 1, 201)
        world.expect(6, "vmm-upgrade", "g", "--force", says='"write" lock')
    check(guest.pid == old and guest.status != "running", f"it is {guest.status}, in process {guest.pid}")
    guest.check_quiet()
    world.expect(75, "prepare", "--kernel", kernel(), says="has not come to its end")
    world.agent.kill()
    world.agent.wait()
    world.start_agent()
    poll(lambda: guest.status == "running", 20, "the guest to run again")
    poll(lambda: not list((world.path / "run/vmm-upgrade").glob("*")), 20, "the note's end")
    check_only_qemu(world, guest, old)
    guest.wait_alive()
    world.expect(0, "vmm-upgrade", "g", "--force", says="replaced")
    guest.wait_alive()


@test
def guests_that_cant_get_another_qemu(world):
    """What there is once, what is somebody else's, what is under way; with a reason and a remedy."""
    world.start_agent()
    pidfile = Guest(world, "pidfile", machine="pc", extra=["-pidfile", world.path / "pid"])
    port = Guest(world, "port", machine="pc", extra=["-vnc", "127.0.0.1:77"])
    private = private_guest(world, "private", machine="pc")
    plain = Guest(world, "plain", machine="pc").wait_ready()
    for guest, says in ((pidfile, "locks that file.*-pidfile"), (port, "a port has one user.*-vnc"),
                        (private, "RAM can't be handed")):
        world.expect(3, "vmm-upgrade", guest.name, "--force", says=says)
        check(guest.status == "running", f"{guest.name} is {guest.status}")
    world.expect(1, "vmm-upgrade", "nobody", says="no guest with this name")
    world.expect(2, "vmm-upgrade", says="name a guest, or say --all")
    world.expect(2, "vmm-upgrade", "plain", "--all", says="name a guest, or say --all")
    old = plain.pid
    done = world.expect(3, "vmm-upgrade", "--all", "--force", says="plain: replaced QEMU")
    check("pidfile: no second QEMU" in done.stdout and "To do: " in done.stdout, done.stdout)
    check(plain.pid != old, "the one that can was not replaced")
    plain.wait_alive()
    private.process.kill()
    pidfile.process.kill()
    port.process.kill()
    poll(lambda: len(world.ask("guests")["guests"]) == 1, 10, "the end of guests")
    world.expect(0, "prepare", "--kernel", kernel())
    world.expect(1, "vmm-upgrade", "plain", "--force", says="commit or abort")
    world.expect(0, "abort")
    plain.wait_alive()


@test
def replacement_during_a_migration(world):
    """Somebody else migrates the guest: it is left to that, and can be replaced when that is over."""
    world.start_agent()
    guest = Guest(world, "g", machine="pc").wait_ready()
    old = guest.pid
    guest.qmp("migrate-set-parameters", **{"max-bandwidth": 4096})
    guest.qmp("migrate", uri="exec:cat >/dev/null")
    world.expect(3, "vmm-upgrade", "g", "--force", says="somebody else is migrating or saving it")
    world.expect(3, "prepare", "--kernel", kernel(), says="somebody else is migrating or saving it")
    check(guest.pid == old and guest.qmp("query-migrate")["status"] == "active", "the migration was disturbed")
    guest.qmp("migrate_cancel")
    poll(lambda: guest.qmp("query-migrate")["status"] == "cancelled", 10, "the end of the migration")
    guest.wait_alive()
    world.expect(0, "vmm-upgrade", "g", "--force", says="replaced")
    guest.wait_alive()


@test
def qemus_of_many_guests_are_replaced(world):
    """All at once, one of them with a program that fails: the others don't suffer."""
    world.start_agent()
    private = PrivateQemu(world)
    guests = [Guest(world, f"g{i}", machine="pc", memory=80) for i in range(3)]
    bad = private.guest("bad", machine="pc", memory=80)
    for guest in (*guests, bad):
        guest.wait_ready()
    before = {g.name: g.pid for g in (*guests, bad)}
    private.fails_to_load()
    done = world.expect(5, "vmm-upgrade", "--all", "--force", says="bad: .*no such state")
    check(done.stdout.count("replaced QEMU") == 3, done.stdout)
    check(bad.pid == before["bad"] and bad.status == "running", "the bad one is not where it was")
    for guest in (*guests, bad):
        guest.wait_alive()
        check_only_qemu(world, guest)
        check((guest.pid == before[guest.name]) == (guest is bad), f"{guest.name} is in the wrong process")


@test
def replacement_that_is_broken_off(world):
    """The client goes, holdfastd is stopped, the old or the new QEMU is killed while the new one starts."""
    world.start_agent()
    private = PrivateQemu(world)
    guest = private.guest("g", machine="pc").wait_ready()
    private.is_slow(3)
    old = guest.pid

    client = begin_upgrade(world)
    world.expect(75, "prepare", "--kernel", kernel(), says="being replaced")
    world.expect(75, "vmm-upgrade", "g", says="being replaced")
    check(world.ask("guests")["guests"][0]["step"] == "starting", "the step is not shown")
    client.kill()
    client.communicate()
    poll(lambda: "it goes on in the old one" in world.log(), 30, "the undo")
    check_only_qemu(world, guest, old)
    guest.wait_alive()

    client = begin_upgrade(world)
    world.agent.terminate()
    _, err = client.communicate(timeout=60)
    check(client.returncode in (1, 5), f"it ended with {client.returncode}: {err}")
    check(world.agent.wait(20) == 0, "the agent did not stop cleanly")
    world.start_agent()
    check_only_qemu(world, guest, old)
    guest.wait_alive()

    client = begin_upgrade(world)
    world.agent.kill()
    world.agent.wait()
    client.communicate()
    world.start_agent()
    poll(lambda: not list((world.path / "run/vmm-upgrade").glob("*")), 20, "the next agent to look after it")
    check_only_qemu(world, guest, old)
    guest.wait_alive()

    client = begin_upgrade(world)
    os.kill(old, signal.SIGKILL)
    _, err = client.communicate(timeout=60)
    check(client.returncode == 6 and "ended by itself" in err, f"it ended with {client.returncode}: {err}")
    poll(lambda: not world.registrations() or not world.ask("guests")["guests"], 10, "the guest to be forgotten")
    check(not list((world.path / "run/vmm-upgrade").glob("*")), "a note is left")
