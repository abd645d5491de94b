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
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

import libvirt_host
import rig
from libvirt_host import SAVE, Bridge, Domain, Events, LibvirtWorld, Neighbour, run
from rig import TESTS, TOP, Guest, PrivateQemu, check, guest_json, kernel, poll, test

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


# ---- what must work


def run_state(domain):
    """Of a domain whose QEMU went through a pause and a resume: the reason may have changed with that."""
    return domain.state.split()[0]


def check_capabilities(domain):
    """libvirt sets `events` when it starts a QEMU, not when it finds one, and can't save a domain without it."""
    check(not domain.capability("x-ignore-shared"), f"{domain.name}: x-ignore-shared is still on")
    check(domain.capability("events"), f"{domain.name}: libvirt's migration capability `events` is off")


def check_untouched(domains, before, pids):
    """They are what they were, in the QEMUs where they were, and nothing keeps libvirt from starting them."""
    for domain, was, pid in zip(domains, before, pids):
        after = domain.seen()
        check(domain.pid == pid, f"{domain.name} has another QEMU")
        check(after["state"].split()[0] == was["state"].split()[0], f"{domain.name} is {after['state']}")
        domain.check_seen({**was, "state": after["state"]})
        check_capabilities(domain)
        check(not domain.guard.exists(), f"{domain.name}: libvirt is still kept from starting it")
        if run_state(domain) == "running":
            domain.wait_alive()
        else:
            domain.check_quiet()


def check_update(world, *guests):
    """An update is made, and they live on in new QEMUs."""
    pids = [guest.pid for guest in guests]
    world.upgrade()
    world.wait_libvirt()
    check(world.state == "normal", f"the host is {world.state}")
    check(not set(pids) & {guest.pid for guest in guests}, "a guest still has its old QEMU")
    for guest in guests:
        guest.wait_alive()


def answers_on(address, family=socket.AF_INET):
    """The first bytes that a server says there."""
    sock = socket.socket(family)
    sock.settimeout(10)
    try:
        sock.connect(address)
        return sock.recv(12)
    finally:
        sock.close()


def check_surroundings(world, domain):
    """What QEMU of the full domain talks to works with the new one as it did with the old one."""
    definition = ElementTree.fromstring(domain.virsh("dumpxml"))
    pty = definition.find("devices/serial/source").get("path")
    check(pathlib.Path(pty).is_char_device(), f"there is no {pty}")
    told = {c["label"]: c["filename"] for c in domain.qmp("query-chardev")}
    check(told["charserial0"] == f"pty:{pty}", f"libvirt says {pty}, QEMU {told['charserial0']}")
    channel = definition.find("devices/channel/source").get("path")
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(channel)
    sock.close()
    port = int(definition.find("devices/graphics").get("port"))
    check(answers_on(("127.0.0.1", port)).startswith(b"RFB "), "VNC doesn't answer")
    check(domain.qmp("query-tpm")[0]["options"]["type"] == "emulator", "the TPM is gone")
    # Two that write to one TPM's state would spoil it; the old one ends with its QEMU, a moment later. One that is a
    # zombie was started by the agent before it executed itself anew.
    poll(lambda: len(run("pgrep", "-x", "-r", "D,R,S", "swtpm").split()) == 1, 30, "the old swtpm to end")
    tap = definition.find("devices/interface/target").get("dev")
    check(pathlib.Path(f"/sys/class/net/br0/brif/{tap}").exists(), f"{tap} is not on its bridge")


@every_libvirt
def update_of_domains(world):
    """Of all kinds, beside a guest of ours, twice in a row; then libvirt does with them all that it ever did."""
    bridge = Bridge()
    policy = "<holdfast:policy xmlns:holdfast='urn:holdfast:libvirt:1' priority='77'/>"
    pc = Domain(world, "pc", machine="pc", metadata=policy)
    full = Domain(world, "full", cpus=2, cells=2, memory=128, disk=True, tpm=True, vnc=True, pty=True, agent=True,
                  tap=bridge)
    fleeting = Domain(world, "fleeting", machine="pc", transient=True)
    sleeper = Domain(world, "sleeper", machine="pc")
    ours = Guest(world, "ours", machine="pc")
    domains = [pc, full, fleeting, sleeper]
    for guest in [*domains, ours]:
        guest.wait_ready()
    sleeper.virsh("suspend")
    sleeper.check_quiet()
    client = witness_client.WitnessClient(bridge.guest, 7000)
    client.start()
    check(client.wait_connected(60), "the guest can't be reached")
    world.start_agent()
    world.expect(0, "check")
    known = {g["name"] for g in world.ask("guests")["guests"]}
    check(known == {"pc", "full", "fleeting", "sleeper", "ours"}, f"known are {known}")
    check(world.policy("pc")["priority"] == "77", f"policy: {world.policy('pc')}")
    check_surroundings(world, full)
    before = [domain.seen() for domain in domains]

    for round_ in range(2):
        pids = [guest.pid for guest in [*domains, ours]]
        world.upgrade()
        world.wait_libvirt()
        check(world.state == "normal", f"round {round_}: the host is {world.state}")
        check(not set(pids) & {guest.pid for guest in [*domains, ours]}, "a guest still has its old QEMU")
        report = world.ask("report")["report"]
        outcomes = {g["name"]: g["outcome"] for g in report["guests"]}
        check(report["outcome"] == "done" and
              outcomes == {**{guest.name: "resumed" for guest in (pc, full, fleeting, ours)}, "sleeper": "paused"},
              f"report: {report}")
        for domain, was in zip(domains, before):
            domain.check_seen(was)
            check_capabilities(domain)
            check(not domain.guard.exists(), f"{domain.name}: libvirt is still kept from starting it")
        for guest in (pc, full, fleeting, ours):
            guest.wait_alive()
        sleeper.check_quiet()
        check_surroundings(world, full)

    # libvirtd finds them all again, without the agent, too.
    subprocess.run([world.libvirt.hook, "stop"], check=True)
    subprocess.run([world.libvirt.hook, "start"], check=True)
    for domain, was in zip(domains, before):
        domain.check_seen(was)
    events = Events(world)
    sleeper.virsh("resume")
    events.wait("'sleeper': Resumed")
    sleeper.wait_alive()
    full.virsh("suspend")
    events.wait("'full': Suspended")
    full.check_quiet()
    full.virsh("resume")
    full.wait_alive()
    result = client.stop()
    check(result["ok"], f"the conversation: {result}")

    image = world.path / "pc.saved"
    pc.virsh("save", image)
    events.wait("'pc': Stopped")
    check(image.stat().st_size > 48 << 20, f"the image has only {image.stat().st_size} bytes: RAM is missing")
    world.virsh("restore", image)
    pc.wait_alive()
    fleeting.virsh("destroy")
    check("fleeting" not in world.virsh("list", "--all", "--name").split(), "the transient domain outlived its end")
    sleeper.virsh("destroy")
    sleeper.boot()
    os.kill(full.pid, signal.SIGKILL)
    poll(lambda: full.state == "shut off (crashed)", 10, f"libvirt to notice the end of a QEMU: {full.state}")
    events.close()
    pc.wait_alive()
    ours.wait_alive()


@every_libvirt
def memory_on_memfds(world):
    """Cells of one size are told apart; and nobody needs a tmpfs. Newer QEMUs would put it into the device state."""
    run("umount", libvirt_host.RAM)
    one = Domain(world, "one", machine="pc", source="memfd")
    cells = Domain(world, "cells", cpus=3, cells=3, memory=192, source="memfd", transient=True)
    domains = [one, cells]
    for domain in domains:
        domain.wait_ready()
        check(rig.memfds(domain.pid), f"{domain.name} has no memfd")
    world.start_agent()
    before, pids = [domain.seen() for domain in domains], [domain.pid for domain in domains]
    if world.libvirt.version >= (11, 0):
        world.expect(3, "check", says="its RAM is on memfds")
        world.upgrade(code=3, says="holdfast libvirt enable one")
        check_untouched(domains, before, pids)
        return
    for _ in range(2):
        check_update(world, *domains)
        for domain, was in zip(domains, before):
            domain.check_seen(was)
    for domain in domains:
        image = world.path / f"{domain.name}.saved"
        domain.virsh("save", image)
        check(image.stat().st_size > 48 << 20, f"{domain.name}'s image has {image.stat().st_size} bytes: RAM is missing")
        world.virsh("restore", image)
        domain.wait_alive()
    # Their memory is on memfds of the restored QEMUs now.
    check_update(world, *domains)


@test
def private_memory_on_memfds(world):
    """Nobody else has what QEMU has written there."""
    domain = Domain(world, "g", machine="pc", source="memfd", access="private").wait_ready()
    world.start_agent()
    before, pid = domain.seen(), domain.pid
    world.expect(3, "check", says="holdfast libvirt enable g")
    world.upgrade(code=3, says="g: ")
    check_untouched([domain], [before], [pid])


def check_all_written(domain):
    """What its witness wrote is in the file from the first line on, each line once and whole."""
    numbers = [record["n"] for record in domain.records()]
    check(numbers == list(range(1, len(numbers) + 1)), f"{domain.name}'s console: {numbers}")


def is_open(pid, path):
    """For writing at its end?"""
    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if os.readlink(fd) == str(path):
            flags = int(re.search(r"flags:\s+(\d+)", pathlib.Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text())[1], 8)
            return flags & os.O_ACCMODE == os.O_WRONLY and bool(flags & os.O_APPEND)
    return False


@every_libvirt
def consoles_in_files(world):
    """Those that virtlogd writes, and those that QEMU writes itself: nothing is lost, nothing written over."""
    logs = {name: world.path / f"{name}&'.log" for name in ("pty", "virtio", "channel")}
    quoted = {name: str(path).replace("&", "&amp;").replace("'", "&apos;") for name, path in logs.items()}
    metadata = ("<x:x xmlns:x='urn:x'><devices><serial type='file'><source path='/etc/x'/><alias name='serial0'/></serial>"
                "</devices></x:x>")
    piped = Domain(world, "piped", machine="pc", memory=128, logged=True, metadata=metadata, devices=(
        f"<serial type='pty'><log file='{quoted['pty']}' append='on'/></serial>"
        f"<console type='file'><source path='{quoted['virtio']}'/><target type='virtio'/></console>"
        f"<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/>"
        f"<log file='{quoted['channel']}'/></channel>")).wait_ready()
    world.libvirt.stop()
    with open("/etc/libvirt/qemu.conf", "a") as conf:
        conf.write('stdio_handler = "file"\n')
    world.libvirt.start()
    direct = Domain(world, "direct", logged=True, transient=True).wait_ready()
    check(is_open(direct.pid, direct.console), "libvirt did not hand over the file itself")
    domains = [piped, direct]
    world.start_agent()
    before = [domain.seen() for domain in domains]
    for _ in range(2):
        check_update(world, *domains)
        for domain, was in zip(domains, before):
            check(is_open(domain.pid, domain.console), f"{domain.name}: its QEMU has not its file")
            domain.check_seen(was)
            check_all_written(domain)
        for path in logs.values():
            check(is_open(piped.pid, path), f"nobody has {path}")
    # Of a file that was moved away, a new one is made as that was; the old one has what was before.
    old = direct.console.stat()
    moved = direct.console.rename(world.path / "moved")
    check_update(world, piped)
    now = direct.console.stat()
    check((now.st_uid, now.st_gid) == (0, 0) and now.st_size > 0 and old.st_ino != now.st_ino, f"the new file: {now}")
    numbers = [r["n"] for path in (moved, direct.console) for r in rig.witness_client.read_log(path)]
    check(numbers == list(range(1, len(numbers) + 1)), f"in the two files: {numbers}")
    piped.virsh("destroy")
    piped.boot()


@test
def console_behind_a_link(world):
    """Who can change links could have root open anything; and a file that is lost after all holds no guest."""
    (world.path / "real").mkdir()
    (world.path / "link").symlink_to("real")
    console = f"<console type='file'><source path='{world.path}/link/x.log'/><target type='virtio'/></console>"
    linked = Domain(world, "linked", memory=128, devices=console).wait_ready()
    domain = Domain(world, "g", machine="pc", logged=True).wait_ready()
    world.start_agent()
    before, pids = [linked.seen(), domain.seen()], [linked.pid, domain.pid]
    world.expect(3, "check", says="symbolic link")
    world.upgrade(code=3, says="linked: .*link/x.log")
    check_untouched([linked, domain], before, pids)
    linked.virsh("destroy")
    world.expect(0, "prepare", "--kernel", kernel())
    secret = world.path / "secret"
    secret.write_text("")
    domain.console.unlink()
    domain.console.symlink_to(secret)
    world.expect(0, "commit")
    world.wait_libvirt()
    check(run_state(domain) == "running" and domain.pid != pids[1], f"it is {domain.state}")
    check("could not be given the file" in world.log(), "nobody is told")
    time.sleep(2)
    check(secret.read_text() == "", "it was written to what a link led to")


def booted(domain):
    return len([r for r in domain.records() if r["tag"] == "READY"])


@test
def what_libvirt_saved_before_is_restored_after(world):
    """A managed save of a domain that is not running is none of ours, in an update and after it."""
    saved, runner = Domain(world, "saved").wait_ready(), Domain(world, "runner").wait_ready()
    saved.virsh("managedsave")
    image = saved.guard.read_bytes()
    world.start_agent()
    check_update(world, runner)
    check(saved.guard.read_bytes() == image, "its image was changed")
    saved.virsh("start")
    for domain in (saved, runner):
        domain.wait_alive()


def files_of(pid):
    """Devices and inodes of the files that a process has mapped shared."""
    maps = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {tuple(line.split()[3:5]) for line in maps if line.split()[1].endswith("s") and line.split()[4] != "0"}


@every_libvirt
def domain_is_migrated_after_an_update(world):
    """By libvirt, and with its memory: what holdfast sets for saving without it is not set any more."""
    domain = Domain(world, "g", machine="pc").wait_ready()
    neighbour = Neighbour(world)
    world.start_agent()
    check_update(world, domain)
    pid, files = domain.pid, files_of(domain.pid)
    run(*neighbour.migrate(domain))
    check(not os.path.exists(f"/proc/{pid}") and neighbour.pid(domain) != pid, "it is in the same QEMU")
    check(files and not files & files_of(neighbour.pid(domain)), "its memory is in the same files")
    neighbour.check_has(domain)
    check(domain.state.startswith("shut off"), f"here it is {domain.state}")


# ---- nothing happens


@test
def prepare_and_abort(world):
    domains = [Domain(world, "g"), Domain(world, "fleeting", machine="pc", transient=True)]
    for domain in domains:
        domain.wait_ready()
    world.start_agent()
    before, pids = [domain.seen() for domain in domains], [domain.pid for domain in domains]
    # One by one their QEMUs can't be replaced.
    world.expect(3, "vmm-upgrade", "--all", "--force", says="libvirt manages it")
    world.expect(0, "prepare", "--kernel", kernel())
    check(world.state == "prepared", f"the host is {world.state}")
    # Nobody has to keep away from it now.
    domains[0].virsh("suspend")
    domains[0].virsh("resume")
    world.expect(0, "abort")
    check(world.state == "normal", f"the host is {world.state}")
    check_untouched(domains, before, pids)
    check_update(world, *domains)


@test
def domain_that_hangs_in_commit_rolls_all_back(world):
    """libvirt doesn't get an answer of its QEMU, either."""
    world.configure("[guest stuck]\nsave-timeout=2s\n")
    stuck, other, sleeper = Domain(world, "stuck"), Domain(world, "other"), Domain(world, "sleeper", machine="pc")
    ours = Guest(world, "ours", machine="pc")
    domains = [stuck, other, sleeper]
    for guest in [*domains, ours]:
        guest.wait_ready()
    sleeper.virsh("suspend")
    world.start_agent()
    before, pids = [domain.seen() for domain in domains], [domain.pid for domain in domains]
    world.expect(0, "prepare", "--kernel", kernel())
    os.kill(stuck.pid, signal.SIGSTOP)
    commit = begin(world, "commit")
    poll(lambda: "rolling back" in world.log(), 60, "the time-out")
    os.kill(pids[0], signal.SIGCONT)
    _, err = commit.communicate(timeout=90)
    check(commit.returncode == 5 and "stuck" in err, f"commit ended with {commit.returncode}: {err}")
    poll(lambda: world.state == "normal", 20, "the end of the roll-back")
    check_untouched(domains, before, pids)
    ours.wait_alive()
    # QEMU saves a paused guest once; it has to have run before it is saved again.
    sleeper.virsh("resume")
    sleeper.virsh("suspend")
    check_update(world, stuck, other, ours)
    sleeper.check_quiet()


def begin(world, *args):
    return subprocess.Popen([str(rig.BUILD / "holdfast"), *args], env=world.env, text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@test
def libvirtd_that_cant_be_stopped_rolls_all_back(world):
    """It would tell the domains' ends to the world, so nothing is ended under its eyes."""
    domains = [Domain(world, "g").wait_ready()]
    world.start_agent()
    before, pids = [domain.seen() for domain in domains], [domain.pid for domain in domains]
    rig.write_program(world.libvirt.hook, "echo it has its own mind >&2; exit 1")
    world.upgrade(code=5, says="its own mind|libvirt")
    check(world.state == "normal", f"the host is {world.state}")
    check_untouched(domains, before, pids)


@test
def agent_killed_with_libvirtd_stopped(world):
    """Nothing was handed over yet: the domain runs on in its old QEMU, and somebody starts libvirtd again."""
    domain = Domain(world, "g").wait_ready()
    world.start_agent()
    before, pid = domain.seen(), domain.pid
    works = world.libvirt.hook.read_text()
    rig.write_program(world.libvirt.hook, f"{works.splitlines()[1].removeprefix('exec ')}\nkill -9 $PPID")
    upgrade = begin(world, "upgrade", "--kernel", kernel())
    world.agent.wait(60)
    upgrade.kill()
    upgrade.communicate()
    domain.check_quiet()
    world.libvirt.hook.write_text(works)
    world.start_agent()
    world.wait_libvirt()
    poll(lambda: run_state(domain) == "running", 60, "the domain to run again")
    check_untouched([domain], [before], [pid])


@test
def libvirtd_that_does_not_start_again(world):
    """Then the domains run without it, and are its own when it comes."""
    domain, ours = Domain(world, "g").wait_ready(), Guest(world, "ours", machine="pc").wait_ready()
    world.start_agent()
    before, pid = domain.seen(), domain.pid
    works = world.libvirt.hook.read_text()
    rig.write_program(world.libvirt.hook,
                      f"[ $1 = stop ] || {{ echo not today >&2; exit 1; }}\n{works.splitlines()[1]}")
    done = world.cli("upgrade", "--kernel", kernel())
    check(done.returncode in (0, 6) and "could not be stopped or started" in world.log(), f"{done.returncode}: {done.stderr}")
    check(domain.pid != pid, "the domain has its old QEMU")
    for guest in (domain, ours):
        guest.wait_alive()
    world.libvirt.start()
    domain.check_seen(before)
    domain.wait_alive()


@test
def domain_destroyed_while_prepared(world):
    domain, doomed = Domain(world, "g").wait_ready(), Domain(world, "doomed").wait_ready()
    world.start_agent()
    before, pid = domain.seen(), domain.pid
    world.expect(0, "prepare", "--kernel", kernel())
    doomed.virsh("destroy")
    poll(lambda: world.state == "normal", 20, "the roll-back")
    check("doomed" in world.log(), "the log does not name the domain")
    check_untouched([domain], [before], [pid])
    check(not doomed.guard.exists(), "libvirt is kept from starting it")
    doomed.boot()
    check_update(world, domain, doomed)


@test
def domain_started_while_prepared(world):
    first, late = Domain(world, "first").wait_ready(), Domain(world, "late", start=False)
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    late.virsh("start")
    late.wait_ready()
    # It is seen when libvirt is asked, which is when there is something to be undone.
    world.expect(5, "commit", says="late: .*started after")
    check(world.state == "normal", f"the host is {world.state}")
    for each in (first, late):
        each.wait_alive()
    check_update(world, first, late)


@test
def domain_defined_anew_while_prepared(world):
    """What it is to be after its next start is libvirt's own; what it is now stays."""
    domain = Domain(world, "g").wait_ready()
    world.start_agent()
    before, pid = domain.seen(), domain.pid
    world.expect(0, "prepare", "--kernel", kernel())
    new = world.path / "new.xml"
    new.write_text(before["inactive"].replace("<vcpu placement='static'>1<", "<vcpu placement='static'>2<"))
    world.virsh("define", new)
    inactive = domain.virsh("dumpxml", "--inactive")
    check("'static'>2<" in inactive, "nothing was defined")
    world.expect(0, "commit")
    world.wait_libvirt()
    check(domain.pid != pid, "the domain has its old QEMU")
    domain.check_seen({**before, "inactive": inactive})
    domain.wait_alive()


@test
def domain_undefined_while_prepared(world):
    """It is transient from then on, and comes along as such."""
    domain = Domain(world, "g").wait_ready()
    world.start_agent()
    before, pid = domain.seen(), domain.pid
    world.expect(0, "prepare", "--kernel", kernel())
    domain.virsh("undefine")
    world.expect(0, "commit")
    world.wait_libvirt()
    check(domain.pid != pid, "the domain has its old QEMU")
    domain.transient = True
    domain.check_seen({**before, "persistent": "no", "inactive": None})
    check(not domain.guard.exists(), "libvirt is kept from starting it")
    domain.wait_alive()


@test
def domain_that_leaves_while_prepared(world):
    """It ends by itself, is saved or migrated away by libvirt: each is the end of the update, and takes nothing away
    from the domain."""
    stays, quits = Domain(world, "g").wait_ready(), Domain(world, "quits", machine="pc").wait_ready()
    saved, moves = Domain(world, "saved", machine="pc").wait_ready(), Domain(world, "moves", machine="pc").wait_ready()
    neighbour = Neighbour(world)
    world.start_agent()
    before, pid = stays.seen(), stays.pid

    def leaves(domain, how):
        world.expect(0, "prepare", "--kernel", kernel())
        how()
        poll(lambda: world.state == "normal", 30, f"the roll-back for {domain.name}")
        check(f"{domain.name}" in world.log(), "the log does not name the domain")
        check(domain.state.startswith("shut off"), f"{domain.name} is {domain.state}")

    # Not by a command: its reply may get lost behind the end of its monitor.
    leaves(quits, lambda: os.kill(quits.pid, signal.SIGTERM))
    leaves(saved, lambda: saved.virsh("managedsave"))
    leaves(moves, lambda: run(*neighbour.migrate(moves)))
    check_untouched([stays], [before], [pid])
    neighbour.check_has(moves)
    saved.virsh("start")
    saved.wait_alive()
    quits.boot()
    check_update(world, stays, saved, quits)


@test
def domain_is_migrating(world):
    """What libvirt does with a domain is neither disturbed nor waited for, and is no harm to it."""
    stays, moves = Domain(world, "g").wait_ready(), Domain(world, "moves", machine="pc").wait_ready()
    neighbour = Neighbour(world)
    world.start_agent()
    before, pids = [each.seen() for each in (stays, moves)], [each.pid for each in (stays, moves)]

    def begin_migration():
        # So slow that it doesn't come to its end.
        migration = subprocess.Popen([*neighbour.migrate(moves), "--bandwidth", "1"], stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        poll(lambda: moves.qmp("query-migrate").get("status") == "active", 30, "the migration to begin")
        return migration

    def end_migration(migration):
        check(migration.poll() is None, f"the migration has ended, with {migration.returncode}")
        moves.virsh("domjobabort")
        check(migration.wait(30) != 0, "the migration was not aborted")
        poll(lambda: run_state(moves) == "running", 10, "the domain to run")

    migration = begin_migration()
    world.expect(3, "check", says="moves")
    world.expect(3, "prepare", "--kernel", kernel(), says="moves")
    check(world.state == "normal", f"the host is {world.state}")
    end_migration(migration)
    check_untouched([stays, moves], before, pids)

    world.expect(0, "prepare", "--kernel", kernel())
    migration = begin_migration()
    world.expect(5, "commit", says="moves")
    poll(lambda: world.state == "normal", 30, "the roll-back")
    end_migration(migration)
    check_untouched([stays, moves], before, pids)
    check_update(world, stays, moves)


@test
def agent_killed_while_prepared(world):
    domain = Domain(world, "g").wait_ready()
    world.start_agent()
    before, pid = domain.seen(), domain.pid
    world.expect(0, "prepare", "--kernel", kernel())
    world.agent.kill()
    world.agent.wait()
    check_untouched([domain], [before], [pid])
    world.start_agent()
    check_untouched([domain], [before], [pid])
    check_update(world, domain)


@test
def agent_killed_while_frozen(world):
    """Domains were left paused: the next agent lets those run that ran, and takes away what keeps libvirt off."""
    domain, sleeper = Domain(world, "g").wait_ready(), Domain(world, "sleeper", machine="pc").wait_ready()
    blocker = Domain(world, "blocker", machine="pc").wait_ready()
    sleeper.virsh("suspend")
    world.start_agent()
    domains = [domain, sleeper, blocker]
    before, pids = [each.seen() for each in domains], [each.pid for each in domains]
    world.expect(0, "prepare", "--kernel", kernel())
    os.kill(blocker.pid, signal.SIGSTOP)
    commit = begin(world, "commit")
    poll(lambda: domain.status == "postmigrate", 20, "the domain to be saved")
    world.agent.kill()
    world.agent.wait()
    commit.kill()
    commit.communicate()
    domain.check_quiet()
    os.kill(blocker.pid, signal.SIGCONT)
    world.start_agent()
    poll(lambda: run_state(domain) == run_state(blocker) == "running", 30, "the domains to run again")
    check_untouched(domains, before, pids)
    check(not (world.path / "run/frozen.json").exists(), "the freeze note is still there")


# ---- what is refused


@test
def domain_without_shared_memory(world):
    domain, private = Domain(world, "g").wait_ready(), Domain(world, "private", shared=False).wait_ready()
    world.start_agent()
    before, pids = [domain.seen(), private.seen()], [domain.pid, private.pid]
    world.expect(3, "check", says="holdfast libvirt enable")
    world.upgrade(code=3, says="private")
    check_untouched([domain, private], before, pids)
    private.virsh("destroy")
    check_update(world, domain)


@test
def device_attached_by_libvirt(world):
    """It is not on the command line that the new QEMU gets."""
    domain = Domain(world, "g", machine="pc").wait_ready()
    rng = world.path / "rng.xml"
    rng.write_text("<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>")
    world.start_agent()
    world.expect(0, "check")
    domain.virsh("attach-device", rng, "--live")
    before, pid = domain.seen(), domain.pid
    world.expect(3, "check", says="rng0 was plugged in")
    world.upgrade(code=3, says="g: ")
    check_untouched([domain], [before], [pid])


@test
def libvirtd_is_stopped(world):
    """Its domains run on, and an update would lose them."""
    domain, ours = Domain(world, "g").wait_ready(), Guest(world, "ours", machine="pc").wait_ready()
    before, pid = domain.seen(), domain.pid
    world.libvirt.stop()
    world.start_agent()
    world.expect(3, "check", says="libvirt")
    world.upgrade(code=3, says="libvirt")
    found = [f for f in world.ask("check")["findings"] if "libvirt" in f["message"]]
    check(found and found[0]["verdict"] == "refusal" and found[0]["remedy"], f"findings: {found}")
    world.libvirt.start()
    check_untouched([domain], [before], [pid])
    check_update(world, domain, ours)


@test
def libvirtd_that_does_not_answer(world):
    """Nothing waits for it without end, and nothing is done; not even with no domain there."""
    domain = Domain(world, "g").wait_ready()
    world.start_agent()
    before, pid = domain.seen(), domain.pid
    daemon = world.libvirt.pid
    os.kill(daemon, signal.SIGSTOP)
    try:
        for verb in (("check",), ("prepare", "--kernel", kernel())):
            begun = time.monotonic()
            world.expect(3, *verb, says="libvirt")
            check(time.monotonic() - begun < 60, f"{verb[0]} took {time.monotonic() - begun:.0f} s")
        check(world.state == "normal", f"the host is {world.state}")
    finally:
        os.kill(daemon, signal.SIGCONT)
    check_untouched([domain], [before], [pid])
    check_update(world, domain)


# ---- domains that libvirt saves for the update


SAVED = "not-eligible=managed-save"


def private(world, name, **how):
    """A domain that can't come along, and is saved."""
    return Domain(world, name, machine="pc", shared=False, **how)


def domains_of(answer):
    return {d["name"]: d["outcome"] for d in answer.get("domains") or []}


def wait_started_again(world, domains, boots):
    """From their images, with all that they had in memory."""
    # Where a save may still come, they are looked at for a while.
    poll(lambda: not domains_of(world.ask("status")), 120, f"the agent to be done with them: {world.ask('status')}")
    poll(lambda: all(run_state(domain) == "running" for domain in domains), 10, "the domains to run again")
    check(not (world.path / "state/saved-domains").exists(), "the file that names them is still there")
    for domain in domains:
        check(not domain.guard.exists(), f"{domain.name}: its image is still there")
        check(booted(domain) == boots, f"{domain.name} was booted")
        domain.wait_alive()


@every_libvirt
def domains_are_saved_for_an_update(world):
    """By their policy: they run again afterwards, or are paused, as they were, with their memory."""
    world.configure(f"[defaults]\n{SAVED}\n")
    metadata = "<holdfast:policy xmlns:holdfast='urn:holdfast:libvirt:1' not-eligible='managed-save'/>"
    comes, saved = Domain(world, "comes").wait_ready(), private(world, "saved", metadata=metadata).wait_ready()
    sleeper = private(world, "sleeper").wait_ready()
    sleeper.virsh("suspend")
    world.start_agent()
    world.expect(0, "check", says="saved: .*libvirt saves it to disk|libvirt saves it to disk")
    world.expect(0, "plan", says="saved by libvirt first")
    world.expect(0, "upgrade", "--kernel", kernel(), "--dry-run")
    check(saved.state.startswith("running"), f"it is {saved.state}")
    before, pids = [each.seen() for each in (comes, saved)], [each.pid for each in (comes, saved, sleeper)]
    world.upgrade()
    world.wait_libvirt()
    wait_started_again(world, [saved], 1)
    check(world.state == "normal", f"the host is {world.state}")
    check(not set(pids) & {each.pid for each in (comes, saved, sleeper)}, "one has its old QEMU")
    comes.check_seen(before[0])
    comes.wait_alive()
    check(saved.virsh("dumpxml", "--inactive") == before[1]["inactive"], "another definition")
    check(run_state(sleeper) == "paused", f"it is {sleeper.state}")
    sleeper.check_quiet()
    sleeper.virsh("resume")
    sleeper.wait_alive()
    report = world.ask("report")["report"]
    check([g["name"] for g in report["guests"]] == ["comes"], f"the report has {report['guests']}")
    check(domains_of(report) == {"saved": "running", "sleeper": "running"}, f"the report has {report.get('domains')}")


@test
def saved_domains_when_there_is_no_update(world):
    """Aborted, rolled back, or the agent is killed: they are started again in each case."""
    world.configure(f"[defaults]\n{SAVED}\n")
    comes, saved = Domain(world, "comes").wait_ready(), private(world, "saved").wait_ready()
    world.start_agent()
    pid = comes.pid

    def prepare():
        world.expect(0, "prepare", "--kernel", kernel())
        check(saved.state.startswith("shut off") and saved.guard.exists(), f"it is {saved.state}")
        check(domains_of(world.ask("status")) == {"saved": "saved"}, f"{world.ask('status')}")

    prepare()
    world.expect(0, "abort")
    wait_started_again(world, [saved], 1)
    check(domains_of(world.ask("report")["report"]) == {"saved": "running"}, "the report does not tell")

    prepare()
    world.agent.kill()
    world.agent.wait()
    check(saved.state.startswith("shut off"), f"it is {saved.state}")
    world.start_agent()
    wait_started_again(world, [saved], 1)

    prepare()
    # Somebody else does, which is the end of the update.
    saved.virsh("start")
    world.expect(5, "commit", says="saved: .*started after")
    wait_started_again(world, [saved], 1)
    comes.wait_alive()
    check(comes.pid == pid and world.state == "normal", f"the host is {world.state}")


@test
def agent_killed_while_libvirt_saves(world):
    """The save goes on without it: the next agent stops it, or starts the domain from what came of it."""
    world.configure(f"[defaults]\n{SAVED}\n")
    domain = private(world, "g").wait_ready()
    world.start_agent()
    os.kill(domain.pid, signal.SIGSTOP)
    pid, upgrade = domain.pid, begin(world, "upgrade", "--kernel", kernel())
    poll(lambda: "being saved" in world.log(), 30, "the save to begin")
    time.sleep(1)
    world.agent.kill()
    world.agent.wait()
    upgrade.communicate()
    check((world.path / "state/saved-domains").exists(), "nobody knows of it")
    world.start_agent()
    time.sleep(2)
    os.kill(pid, signal.SIGCONT)
    wait_started_again(world, [domain], 1)


@test
def power_is_lost_while_domains_are_saved(world):
    """They are on the disk, and so is which they are. A kernel that was jumped into finds no more than that."""
    world.configure(f"[defaults]\n{SAVED}\n")
    domain = private(world, "g").wait_ready()
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    world.power_loss()
    world.start_agent()
    check(domains_of(world.ask("status")) == {"g": "saved"}, f"{world.ask('status')}")
    world.libvirt.start()
    wait_started_again(world, [domain], 1)


@test
def domain_that_libvirt_cant_save(world):
    """The update is refused, and those that were saved by then are started again."""
    world.configure(f"[defaults]\n{SAVED}\n")
    saved, large = private(world, "saved").wait_ready(), private(world, "large", memory=192).wait_ready()
    world.start_agent()
    # Room for one of them.
    run("mount", "-t", "tmpfs", "-o", "size=110m", "save", SAVE)
    pid = large.pid
    world.upgrade(code=1, says="large: ")
    wait_started_again(world, [saved, large], 1)
    check(world.state == "normal" and large.pid == pid, f"the host is {world.state}")
    run("umount", SAVE)
    # One that has no definition to be saved with, one that takes too long, and a guest of ours.
    fleeting = private(world, "fleeting", transient=True).wait_ready()
    pids = [saved.pid, large.pid, fleeting.pid]
    world.upgrade(code=3, says="fleeting: .*transient")
    check(pids == [saved.pid, large.pid, fleeting.pid], "a domain was saved for nothing")
    fleeting.virsh("destroy")
    world.configure(f"[defaults]\n{SAVED}\n[guest large]\nshutdown-timeout=1s\n")
    os.kill(large.pid, signal.SIGSTOP)
    world.upgrade(code=3, says="large: libvirt did not save it in time")
    os.kill(large.pid, signal.SIGCONT)
    wait_started_again(world, [saved, large], 1)
    world.configure("[defaults]\nnot-eligible=shutdown\n")
    world.upgrade(code=3, says="isn't done with libvirt's domains")


@test
def libvirtd_that_comes_late_for_saved_domains(world):
    """It is waited for; what it can't start is reported, and keeps its image until somebody does."""
    world.configure(f"[defaults]\n{SAVED}\n")
    saved, bad = private(world, "saved").wait_ready(), private(world, "bad", disk=True).wait_ready()
    world.env["HOLDFAST_LIBVIRT_START_SECONDS"] = "20"
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel())
    world.agent.kill()
    world.agent.wait()
    world.libvirt.stop()
    away = bad.disk.with_suffix(".away")
    bad.disk.rename(away)
    world.start_agent()
    poll(lambda: "can't be started again yet" in world.log(), 20, "the first try")
    check(domains_of(world.ask("status")) == {"saved": "saved", "bad": "saved"}, f"{world.ask('status')}")
    world.upgrade(code=75, says="started again")
    world.libvirt.start()
    poll(lambda: run_state(saved) == "running", 30, "the domain to run again")
    poll(lambda: domains_of(world.ask("status")) == {"bad": "failed"}, 60, "the agent to give the other one up")
    done = world.cli("status")
    check("bad.img" in done.stdout and "virsh start bad" in done.stdout, f"it does not say what to do: {done.stdout}")
    check(bad.guard.exists() and booted(bad) == 1, "its image is gone")
    away.rename(bad.disk)
    bad.virsh("start")
    wait_started_again(world, [saved, bad], 1)
    check(world.state == "normal", f"the host is {world.state}")


# ---- domains that don't come up


class DomainQemu(PrivateQemu):
    """One that goes by the name that libvirt started it with."""

    def write(self, script):
        super().write(script.replace("exec ", "exec -a $0 "))
        new = self.path.with_suffix(".new")
        new.write_text(self.path.read_text().replace("#!/bin/sh", "#!/bin/bash"))
        new.chmod(0o755)
        new.rename(self.path)


def held_domain(world, **how):
    """A domain that can't be loaded, beside one that can. Return: its QEMU, the good one, the bad one, how that was."""
    private = DomainQemu(world)
    good, bad = Domain(world, "good").wait_ready(), Domain(world, "bad", emulator=private.path, **how).wait_ready()
    world.start_agent()
    before = bad.seen()
    world.expect(0, "prepare", "--kernel", kernel())
    private.fails_to_load()
    world.expect(6, "commit", says="bad +held")
    check("no such state" in (world.libvirt.log / "bad.log").read_text(), "QEMU's words are not in libvirt's log")
    world.wait_libvirt()
    check(world.state == "degraded" and guest_json(world, "bad")["status"] == "held", f"the host is {world.state}")
    good.wait_alive()
    return private, good, bad, before


@every_libvirt
def held_domain_is_retried(world):
    """Until then libvirt refuses to start it, by hand or by itself; after that it is the domain that it was."""
    private, good, bad, before = held_domain(world, cpus=2)
    private.works()
    boots = booted(bad)
    check(bad.state.startswith("shut off"), f"it is {bad.state}")
    check(bad.guard.exists(), "nothing keeps libvirt from starting it")
    bad.virsh("start", code=1)
    bad.virsh("autostart")
    world.libvirt.stop()
    pathlib.Path("/run/libvirt/qemu/autostarted").unlink(missing_ok=True)
    world.libvirt.start()
    time.sleep(3)
    check(bad.state.startswith("shut off"), f"it is {bad.state}")
    bad.virsh("start", code=1)
    bad.virsh("autostart", "--disable")
    check(booted(bad) == boots and bad.guard.exists(), "it was booted")
    good.wait_alive()

    world.expect(0, "retry", "bad")
    world.wait_libvirt()
    check(world.state == "normal", f"the host is {world.state}")
    bad.check_seen(before)
    check(not bad.guard.exists(), "libvirt is kept from starting it")
    for domain in (good, bad):
        domain.wait_alive()
    check_update(world, good, bad)
    bad.virsh("destroy")
    bad.boot()


@test
def domain_whose_disk_comes_late(world):
    """Such as one on the network: held until it is there, with the reason."""
    good, bad = Domain(world, "good").wait_ready(), Domain(world, "bad", disk=True).wait_ready()
    world.start_agent()
    before = bad.seen()
    away = bad.disk.with_suffix(".away")
    works = world.libvirt.hook.read_text()
    # When all is saved, and before the old QEMUs end.
    rig.write_program(world.libvirt.hook, f"[ $1 = start ] || mv {bad.disk} {away}\n{works.splitlines()[1]}")
    world.upgrade(code=6, says="bad +held")
    world.libvirt.hook.write_text(works)
    world.wait_libvirt()
    held = guest_json(world, "bad")
    check(held["status"] == "held" and "bad.img" in str(held), f"it does not say why: {held}")
    done = world.cli("retry", "bad")
    check(done.returncode != 0 and "bad.img" in done.stderr, f"retry: {done.returncode}: {done.stderr}")
    world.wait_libvirt()
    good.wait_alive()
    away.rename(bad.disk)
    world.expect(0, "retry", "bad")
    world.wait_libvirt()
    check(world.state == "normal", f"the host is {world.state}")
    bad.check_seen(before)
    check(not bad.guard.exists(), "libvirt is kept from starting it")
    for domain in (good, bad):
        domain.wait_alive()


@test
def domain_whose_bridge_comes_late(world):
    """It runs without it: its tap is put on the bridge by whoever starts libvirtd when there is one."""
    bridge = Bridge()
    domain = Domain(world, "g", tap=bridge).wait_ready()
    world.start_agent()
    before = domain.seen()
    world.expect(0, "prepare", "--kernel", kernel())
    run("ip", "link", "del", "br0")
    world.expect(0, "commit")
    world.wait_libvirt()
    domain.check_seen(before)
    domain.wait_alive()
    bridge = Bridge()
    world.libvirt.stop()
    world.libvirt.start()
    poll(lambda: list(pathlib.Path("/sys/class/net/br0/brif").iterdir()), 10, "the tap to be on the bridge")
    client = witness_client.WitnessClient(bridge.guest, 7000)
    client.start()
    check(client.wait_connected(60), "the guest can't be reached")
    result = client.stop()
    check(result["ok"], f"the conversation: {result}")
    domain.wait_alive()


@test
def held_domain_is_taken_from_libvirt(world):
    """libvirt refuses to rename it and to undefine it. Told to forget it all the same, it gets it back."""
    private, good, bad, before = held_domain(world)
    private.works()
    bad.virsh("domrename", "other", code=1)
    bad.virsh("undefine", code=1)
    check(bad.guard.exists(), "nothing keeps libvirt from starting it")
    bad.virsh("undefine", "--managed-save")
    check("bad" not in world.virsh("list", "--all", "--name").split(), "libvirt knows it")
    world.expect(0, "retry", "bad")
    world.wait_libvirt()
    bad.transient = True
    bad.check_seen({**before, "persistent": "no", "inactive": None})
    for domain in (good, bad):
        domain.wait_alive()


@test
def held_domain_is_released(world):
    private, good, bad, _ = held_domain(world)
    private.works()
    world.expect(0, "release", "bad", "--yes")
    check(world.state == "normal" and not bad.guard.exists(), f"the host is {world.state}")
    bad.boot()
    good.wait_alive()
    check_update(world, good, bad)


@test
def held_transient_domain_is_retried(world):
    """libvirt knows nothing of it meanwhile."""
    private, good, bad, before = held_domain(world, transient=True)
    check("bad" not in world.virsh("list", "--all", "--name").split(), "libvirt knows it")
    private.works()
    world.expect(0, "retry", "bad")
    world.wait_libvirt()
    bad.check_seen(before)
    for domain in (good, bad):
        domain.wait_alive()


@test
def held_domain_that_is_forced_to_boot(world):
    """Its owner says so: then it is libvirt's, and a retry doesn't run it a second time."""
    private, good, bad, _ = held_domain(world)
    private.works()
    bad.boot("--force-boot")
    pid = bad.pid
    done = world.cli("retry", "bad")
    world.wait_libvirt()
    check(done.returncode != 0, f"it was loaded beside the one that runs: {done.stdout}{done.stderr}")
    check(bad.pid == pid and bad.state.startswith("running"), f"it is {bad.state}")
    world.expect(0, "release", "bad", "--yes")
    check(bad.pid == pid and world.state == "normal", f"the host is {world.state}")
    for domain in (good, bad):
        domain.wait_alive()


@test
def power_is_lost_while_a_domain_is_held(world):
    """With the memory: there is nothing left to be kept for, and libvirt may start it."""
    private, _, bad, _ = held_domain(world)
    check(bad.guard.exists(), "nothing keeps libvirt from starting it")
    private.works()
    world.power_loss()
    world.start_agent()
    check(world.state == "normal", f"the host is {world.state}")
    check(not bad.guard.exists(), "libvirt is still kept from starting it")
    world.libvirt.start()
    bad.boot()


@test
def images_of_libvirt_are_left_alone(world):
    """An agent that starts removes only what is its own among saved domains."""
    domain = Domain(world, "g").wait_ready()
    domain.virsh("managedsave")
    image = domain.guard.read_bytes()
    strange = SAVE / "strange.save"
    strange.write_bytes(b"neither libvirt's nor holdfast's")
    world.start_agent()
    check(domain.guard.read_bytes() == image and strange.exists(), "it took away what is not its own")


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
