# SPDX-License-Identifier: Apache-2.0
"""Libvirt's domains live through two changes of the host's kernel, beside a guest of holdfast-vmm.

One domain on `pc` that is started with the host, one on `q35` with NUMA, disk, network, VNC and a TPM that a client
outside talks to, and a transient one with a pseudo-terminal and the channel of a guest agent. AppArmor confines each. Whatever libvirt says of
them afterwards is what it said before, and it can do with them all that it could. The way there is `systemctl kexec`, the
way back `holdfast upgrade`."""

from guests import Guest
from libvirt_host import (LIGHTER, Domain, destroy, expect_confined, expect_devices, expect_same, facts, save_restore,
                          set_up, start_network, suspend_resume, wait_libvirt)
from nested import TEST_DIR, fail
from systemd_host import start_host
from updates import end_connection, expect_all, holdfast, upgrade, wait_update

HOST = "libvirt"
MEMORY = 6144
# As Debian's kernels have it.
APPEND = "lsm=apparmor"


def make_guests(host):
    """Three domains, and one guest that is not libvirt's."""
    return [Domain(host, "q35", memory=256, cells=2, disk=True, net=True, vnc=True, tpm=True),
            Domain(host, "pc", machine="pc", autostart=True),
            Domain(host, "transient", machine="pc", memory=160, transient=True, pty=True, agent=True),
            Guest(host, "own", machine="pc", memory=128, words=LIGHTER)]


def check_guests(host, guests, passes):
    """They go on, and every word of their memory is right so many times more."""
    for guest in guests:
        if guest.state() != "running":
            fail(f"guest {guest.name} is {guest.state()}")
    for guest in guests:
        guest.wait_passes(passes)
        last = guest.judge()
        host.note(f"{guest.name}: {last['passes']} passes over {int(last['mem_bytes']) >> 20} MiB, no word wrong")


def by_systemd(host, image, release, boots):
    """Live-update the host by `systemctl kexec`: every service is stopped before, libvirt-guests.service too."""
    holdfast(host, f"prepare --orderly --kernel {TEST_DIR}/{image}")
    names = host.run("virsh -q list --name").out.split()
    pids = [host.run(f"cat /run/libvirt/qemu/{name}.pid").out.strip() for name in names]
    for pid in pids + host.run("pgrep -x swtpm").out.split():
        group = host.run(f"cat /proc/{pid}/cgroup").out.strip()
        if not group.startswith("0::/holdfast.slice/"):
            fail(f"systemd would stop process {pid} of a domain: it is in {group}")
    host.spawn("systemctl kexec")
    return wait_update(host, boots, release)


def update(host, guests, client, how, image, release, boots):
    """One live update, and all of libvirt's facts compared."""
    domains = guests[:3]
    before = facts(host, domains)
    client.reset_gaps()
    host.note(f"live update to Linux {release}")
    report = how(host, image, release, boots)
    print(host.run("holdfast report").out)
    expect_all(report, guests)
    wait_libvirt(host)
    expect_same(before, facts(host, domains))
    expect_devices(host, domains)
    expect_confined(host, domains)
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
    set_up(host)
    start_network(host)
    # One after another: while it fills its memory, each takes all that it gets of the emulated CPUs.
    for guest in guests:
        guest.start()
        guest.wait_ready(240)
        host.note(f"{guest.name} is ready")
    client = q35.client()
    expect_devices(host, guests[:3])
    expect_confined(host, guests[:3])
    print(host.run(f"holdfast check --kernel {TEST_DIR}/bzImage-new").out)
    print(host.run("holdfast guests").out)

    update(host, guests, client, by_systemd, "bzImage-new", new, 2)
    update(host, guests, client, upgrade, "bzImage-old", old, 3)

    suspend_resume(host, q35)
    save_restore(host, pc)
    check_guests(host, guests, 1)
    result = end_connection(client)
    host.note(f"the TCP connection from outside is still the same: {result['echoed']} messages echoed")
    for domain in (transient, q35):
        destroy(host, domain)
    if pc.name not in facts(host, [])[""]["autostart"].split():
        fail("the domain that is started with the host no longer is")
