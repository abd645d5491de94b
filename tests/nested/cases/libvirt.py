# SPDX-License-Identifier: Apache-2.0
"""Libvirt's domains live through two changes of the host's kernel, beside a guest of holdfast-vmm.

One domain on `pc` that is started with the host, one on `q35` with NUMA, disk, network, VNC and a TPM that a client
outside talks to, and a transient one with a pseudo-terminal and the channel of a guest agent. Whatever libvirt says of
them afterwards is what it said before, and it can do with them all that it could."""

from guests import Guest
from libvirt_host import (Domain, destroy, expect_devices, expect_same, facts, save_restore, start_network,
                          suspend_resume, wait_libvirt)
from nested import TEST_DIR, fail
from systemd_host import start_host
from updates import expect_all, upgrade

HOST = "libvirt"
MEMORY = 6144


def make_guests(host):
    """Three domains, and one guest that is not libvirt's."""
    # The one with the most to do before it runs is started first, with all of the host's CPUs.
    return [Domain(host, "q35", memory=256, cells=2, disk=True, net=True, vnc=True, tpm=True),
            Domain(host, "pc", machine="pc", autostart=True),
            Domain(host, "transient", machine="pc", memory=160, transient=True, pty=True, agent=True),
            Guest(host, "own", machine="pc", memory=128)]


def check_guests(host, guests, passes):
    """They go on, and every word of their memory is right so many times more."""
    for guest in guests:
        if guest.state() != "running":
            fail(f"guest {guest.name} is {guest.state()}")
    for guest in guests:
        guest.wait_passes(passes)
        last = guest.judge()
        host.note(f"{guest.name}: {last['passes']} passes over {int(last['mem_bytes']) >> 20} MiB, no word wrong")


def update(host, guests, client, image, release, boots):
    """One live update, and all of libvirt's facts compared."""
    domains = guests[:3]
    before = facts(host, domains)
    client.reset_gaps()
    host.note(f"live update to Linux {release}")
    report = upgrade(host, image, release, boots)
    print(host.run("holdfast report").out)
    expect_all(report, guests)
    wait_libvirt(host)
    expect_same(before, facts(host, domains))
    expect_devices(host, domains)
    left = host.run("ls /var/lib/libvirt/qemu/save").out.split()
    if left:
        fail(f"something is left where libvirt has saved domains: {left}")
    host.note("libvirt says the same of its domains as before")
    check_guests(host, guests, 2)
    gap = client.result()["gap_max_ns"]
    host.note(f"blackout {report['blackout_ns'] / 1e9:.2f} s, longest silence outside {gap / 1e9:.2f} s")


def run(host):
    guests = make_guests(host)
    q35, pc, transient, _ = guests
    old, new = host.kernels["OLD_VERSION"], host.kernels["NEW_VERSION"]
    start_host(host, [])
    start_network(host)
    for guest in guests:
        guest.start()
    host.note("libvirt has started its domains")
    for guest in guests:
        guest.wait_ready(240)
        guest.judge()
    host.note(f"{len(guests)} guests are ready")
    client = q35.client()
    expect_devices(host, guests[:3])
    print(host.run(f"holdfast check --kernel {TEST_DIR}/bzImage-new").out)
    print(host.run("holdfast guests").out)

    update(host, guests, client, "bzImage-new", new, 2)
    update(host, guests, client, "bzImage-old", old, 3)

    suspend_resume(host, q35)
    save_restore(host, pc)
    check_guests(host, guests, 1)
    result = client.stop()
    if not result["ok"]:
        fail(f"the connection from outside: {result}")
    host.note(f"the TCP connection from outside is still the same: {result['echoed']} messages echoed")
    for domain in (transient, q35):
        destroy(host, domain)
    if pc.name not in facts(host, [])[""]["autostart"].split():
        fail("the domain that is started with the host no longer is")
