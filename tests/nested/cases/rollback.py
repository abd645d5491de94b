# SPDX-License-Identifier: Apache-2.0
"""Everything before the jump can be undone, on real LUO: bad images, abort, a jump that returns.

Ends with new QEMUs for the guests and an update that works, to show that nothing of the failed ones was left behind."""

import gzip
import json
import pathlib
import stat
import subprocess
import tempfile

import kernel_sample
from guests import Guest
from nested import TEST_DIR, fail
from updates import end_connection, expect_all, expect_running, expect_untouched, holdfast, state, upgrade, wait_agent
from witness.mkinitramfs import entry


def mount_second(host):
    """A file system beside the root, which has files open for writing always, and so is never made read-only."""
    with tempfile.NamedTemporaryFile() as image:
        image.truncate(8 << 20)
        subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", image.name], check=True, stdout=subprocess.DEVNULL)
        host.put("/var/second.img.gz", gzip.compress(pathlib.Path(image.name).read_bytes()))
    host.run("gunzip /var/second.img.gz && mkdir -p /mnt/second && mount -o loop /var/second.img /mnt/second")


def run(host):
    host.boot()
    image = f"{TEST_DIR}/bzImage-new"
    wait_agent(host)
    guests = [Guest(host, "one", machine="pc", memory=128), Guest(host, "two", machine="q35", memory=128, disk=True, net=True, vhost=True)]
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_ready()
    client = guests[1].client()

    host.note("varlinkctl: introspect, call, follow progress")
    socket = "/run/holdfast/control.sock"
    text = host.run(f"varlinkctl introspect {socket} org.holdfast.Host").out
    for method in ("Check", "Prepare", "Upgrade", "Report"):
        if f"method {method}" not in text:
            fail(f"varlinkctl does not see method {method}:\n{text}")
    reply = json.loads(host.run(f"varlinkctl call {socket} org.holdfast.Host.Guests '{{}}'").out)
    if sorted(guest["name"] for guest in reply["guests"]) != ["one", "two"]:
        fail(f"varlinkctl call Guests: {reply}")
    out = host.run(f"varlinkctl call --more {socket} org.holdfast.Host.Prepare "
                   f"'{{\"target\":{{\"kernel\":\"{image}\"}}}}'", 120).out
    if "preparing" not in out or "update_id" not in out:
        fail(f"varlinkctl --more shows no progress:\n{out}")
    out = holdfast(host, "inspect kho")
    if "luo" not in out.lower():
        fail(f"KHO's trees show no LUO:\n{out}")
    holdfast(host, "inspect manifest", says="one")
    holdfast(host, "prepare --kernel " + image, 1, "commit or abort")

    host.note("abort")
    holdfast(host, "abort")
    expect_untouched(host, guests)

    host.note("images that are none")
    holdfast(host, "upgrade --kernel /nonexistent", 3, "/nonexistent")
    holdfast(host, f"upgrade --kernel {TEST_DIR}/initramfs.cpio.gz", 3, "initramfs.cpio.gz: not a kernel image")
    # The running kernel would load this one, and the jump end in nothing.
    host.run(f"head -c 1000000 {image} >/tmp/cut")
    holdfast(host, "upgrade --kernel /tmp/cut", 3, "/tmp/cut: not a kernel image: it is cut")
    expect_untouched(host, guests)

    host.note("images that would lose every guest")
    kho, luo, memfd = (host.run(f"holdfast inspect kernel {image} | sed -n 's/^{family} *//p'").out.strip()
                       for family in ("kho", "luo", "memfd"))
    out = holdfast(host, f"check --kernel {image}")
    if f"the running kernel's {kho} and {luo}" not in out:
        fail(f"check does not compare formats:\n{out}")
    for formats, says in (([kho, memfd], f"{kho}, no luo, {memfd}"), ([], "no kho, no luo, no memfd"),
                          ([kho, "luo-v999", memfd], f"{kho}, luo-v999, {memfd}")):
        host.put("/tmp/other", kernel_sample.bzimage(formats))
        holdfast(host, "upgrade --kernel /tmp/other", 3, f"hands over as {kho}, {luo}, memfd unknown, and it "
                                                         f"understands {says}")
    expect_untouched(host, guests)

    host.note("a guest that ends while the update is prepared")
    third = Guest(host, "third", machine="pc", memory=128)
    third.start()
    third.wait_ready()
    holdfast(host, "prepare --kernel " + image)
    third.hmp("quit")
    host.poll(lambda: state(host) == "normal", 30, "the roll-back")
    expect_untouched(host, guests)

    host.note("a jump that returns: somebody unloads the image behind holdfast's back")
    mount_second(host)
    holdfast(host, "prepare --kernel " + image)
    host.spawn("while [ $(cat /sys/kernel/kexec_loaded) = 0 ]; do :; done; hf-kexec --unload")
    holdfast(host, "commit", 5, "refused to jump")
    expect_untouched(host, guests)
    # It was read-only then, without anything left in its journal; see below.
    host.run("echo written >/mnt/second/file")
    for guest in guests:
        if "x-ignore-shared: on" in guest.hmp("info migrate_capabilities"):
            fail(f"guest {guest.name}: x-ignore-shared is still on")

    host.note("the agent is killed while the update is prepared, and started again")
    holdfast(host, "prepare --kernel " + image)
    host.run("pkill -9 -x holdfastd")
    host.spawn("holdfastd >>/var/log/holdfastd.log 2>&1")
    wait_agent(host)
    expect_untouched(host, guests)

    host.note("their QEMUs are replaced while they run")
    done = json.loads(host.run("holdfast vmm-upgrade --all --force -o json 2>/dev/null", 120).out)["guests"]
    for guest in done:
        # QEMU stops the first one itself; the other one is paused, until its new QEMU has come up with its tap.
        phases = {phase["name"]: phase["duration_ns"] for phase in guest.get("phases", [])}
        behind_tap = guest["name"] == "two"
        if guest["outcome"] != "replaced" or (phases["pause"] > 0) != behind_tap or ("vmm-start" in phases) != behind_tap:
            fail(f"vmm-upgrade: {guest}")
    host.note(", ".join(f"{guest['name']} stood still for {guest['blackout_ns'] / 1e6:.1f} ms" for guest in done))
    expect_untouched(host, guests)

    host.note("and an update that works, with an initrd")
    host.put("/tmp/initrd", entry(1, "nothing-of-use", stat.S_IFREG | 0o644, b"0") + entry(0, "TRAILER!!!", 0))
    expect_all(upgrade(host, "bzImage-new", host.kernels["NEW_VERSION"], 2, "--initrd /tmp/initrd"), guests)
    if "Freeing initrd memory" not in host.run("dmesg").out:
        fail("the new kernel was given no initrd")
    if host.run("mount -o loop /var/second.img /mnt/second && cat /mnt/second/file").out.strip() != "written":
        fail("what was written before the jump is not there")
    if "recovery" in host.run("dmesg | grep EXT4.*loop").out:
        fail("the second file system was not made read-only for the jump: it had to be recovered")
    expect_running(guests)
    end_connection(client)
