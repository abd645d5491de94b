# SPDX-License-Identifier: Apache-2.0
"""Tests of agent.py's: updates whose guests' memory is on disk meanwhile (the carrier `image`), without a jump."""

import os
import secrets

from rig import Guest, PrivateQemu, check, every_qemu, guest_json, kernel, poll, test

IMAGE = ("--carrier", "image", "--plaintext")


def images(world):
    """Files of images that there are, as paths below their folder."""
    folder = world.path / "state/images"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def give_key(world):
    credentials = world.path / "credentials"
    credentials.mkdir(exist_ok=True)
    (credentials / "holdfast.image-key").write_bytes(secrets.token_bytes(32))
    world.env["CREDENTIALS_DIRECTORY"] = str(credentials)
    return credentials / "holdfast.image-key"


@every_qemu
def update_through_images(world):
    """Memory goes to disk and back: it is all there, and nothing stays on the disk. Twice, then without images."""
    world.start_agent()
    guests = [Guest(world, "pc", machine="pc"), Guest(world, "q35", cpus=2, memory=128, disk=True),
              Guest(world, "sleeper", machine="pc")]
    for guest in guests:
        guest.wait_ready()
    guests[2].qmp("stop")
    for round_ in range(3):
        before = [guest.pid for guest in guests]
        world.expect(0, "upgrade", "--kernel", kernel(), *(IMAGE if round_ < 2 else ()))
        check(world.state == "normal", f"round {round_}: the host is {world.state}")
        check(not set(before) & {guest.pid for guest in guests}, "a guest still has its old QEMU")
        check([guest.status for guest in guests] == ["running", "running", "paused"],
              f"round {round_}: {[guest.status for guest in guests]}")
        check(not images(world), f"images stay: {images(world)}")
        report = world.ask("report")["report"]
        check(report["carrier"] == ("image" if round_ < 2 else "hold"), f"report: {report}")
        check(report["outcome"] == "done" and len(report["guests"]) == 3, f"report: {report}")
        check(report["agent_rss_bytes"] < 64 << 20, f"the agent needs {report['agent_rss_bytes']} bytes")
        guests[0].wait_alive()
        guests[1].wait_alive()
        guests[2].check_quiet()
    guests[2].qmp("cont")
    guests[2].wait_alive()
    poll(lambda: len(world.keepers()) <= 1, 10, "the keeper of images to end")


@test
def images_are_undone(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    pid = guest.pid
    world.expect(0, "prepare", "--kernel", kernel(), *IMAGE)
    check(images(world), "nothing was copied while the guest runs")
    guest.wait_alive()
    world.expect(0, "abort")
    check(world.state == "normal" and guest.pid == pid and guest.status == "running", "abort changed something")
    check(not images(world), f"images stay: {images(world)}")
    guest.wait_alive()


@test
def images_of_an_agent_that_died(world):
    """It had copied, and not committed: the next one throws that away, and the guest has never stopped."""
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    pid = guest.pid
    world.expect(0, "prepare", "--kernel", kernel(), *IMAGE)
    world.agent.kill()
    world.agent.wait()
    world.start_agent()
    check(world.state == "normal" and guest.pid == pid and guest.status == "running", "something has changed")
    check(not images(world), f"images stay: {images(world)}")
    guest.wait_alive()


@test
def images_are_encrypted(world):
    """With a key no word of a guest is readable on the disk; without one that has to be said."""
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    world.expect(3, "upgrade", "--kernel", kernel(), "--carrier", "image", says="no key to encrypt")
    check(not images(world), f"images: {images(world)}")
    world.agent.terminate()
    world.agent.wait()
    give_key(world)
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel(), "--carrier", "image")
    folder = world.path / "state/images"
    for name in images(world):
        path = folder / name
        check(path.stat().st_mode & 0o77 == 0, f"{path} is readable for others")
        data = path.read_bytes()
        check(b"WITNESS" not in data and b"Linux version" not in data, f"{path} has text of the guest")
        # No page of one byte either, which is what memory is full of.
        check(not any(data[at:at + 64] == data[at:at + 1] * 64 and data[at] for at in range(1 << 16, len(data), 4096)),
              f"{path} has a page of the guest")
    pid = guest.pid
    world.expect(0, "commit")
    check(world.state == "normal" and guest.pid != pid, "commit did not replace QEMU")
    check(not images(world), f"images stay: {images(world)}")
    guest.wait_alive()


def held_image(world, **kwargs):
    """A guest whose memory is on disk, and here, but which did not come up; its QEMU would do so now."""
    qemu = PrivateQemu(world)
    guest = qemu.guest("g", **kwargs).wait_ready()
    world.start_agent()
    world.expect(0, "prepare", "--kernel", kernel(), *IMAGE)
    qemu.fails_to_load()
    world.expect(6, "commit", says="no such state")
    qemu.works()
    check(images(world), "its image is gone")
    return guest


@test
def image_whose_disk_has_changed(world):
    """The guest may have been started afresh elsewhere: it is held, and comes up when somebody says that it was not."""
    guest = held_image(world, disk=True)
    with open(guest.disk, "r+b") as disk:
        disk.write(disk.read(1))
    world.expect(6, "retry", "g", says=f"its disk {guest.disk} was written to after its memory was saved")
    check(guest_json(world, "g")["status"] == "held", "it is not held any more")
    check(images(world), "its image is gone")
    world.expect(0, "retry", "g", "--ignore-disks")
    check(world.state == "normal" and not images(world), f"the host is {world.state}, images: {images(world)}")
    guest.wait_alive()


@test
def image_of_a_guest_that_was_started_afresh(world):
    """Its memory is of the past as long as the guest runs in another."""
    guest = held_image(world)
    other = Guest(world, "other", holdfast=("--uuid", guest_json(world, "g")["uuid"])).wait_ready()
    world.expect(6, "retry", "g", says=f"it was started afresh meanwhile, as process {other.pid}")
    other.wait_alive()
    other.qmp("quit")
    other.process.wait()
    world.expect(0, "retry", "g")
    check(world.state == "normal" and not images(world), f"the host is {world.state}, images: {images(world)}")
    guest.wait_alive()


@test
def key_that_is_gone(world):
    """An agent without the key holds guests in their images and says so; it can be restarted, with the key."""
    key = give_key(world)
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    world.expect(0, "prepare", "--kernel", kernel(), "--carrier", "image")
    key.rename(key.with_suffix(".away"))
    world.cli("commit")
    poll(lambda: world.state == "degraded", 30, "the host to be degraded")
    for round_ in range(2):
        check("credential holdfast.image-key" in world.cli("status").stdout, f"status says {world.cli('status').stdout}")
        kept = images(world)
        check(kept, "the images are gone")
        world.agent.terminate()
        check(world.agent.wait(20) == 0, f"holdfastd ended with {world.agent.returncode}")
        check(images(world) == kept, f"of {kept} there is left: {images(world)}")
        if round_ == 0:
            world.start_agent()
    key.with_suffix(".away").rename(key)
    world.start_agent()
    poll(lambda: world.state == "normal", 60, "the guest to be back")
    check(guest.status == "running", f"the guest is {guest.status}")
    check(not images(world), f"images stay: {images(world)}")
    guest.wait_alive()


@test
def bad_requests_for_images(world):
    world.start_agent()
    world.expect(2, "upgrade", "--kernel", kernel(), "--plaintext", says="need --carrier image")
    world.expect(2, "upgrade", "--kernel", kernel(), "--carrier", "image", "--reboot", says="one of them")
    world.expect(2, "upgrade", "--kernel", kernel(), "--carrier", "pigeon", says="no carrier `pigeon`")
    world.expect(2, "prepare", "--kernel", kernel(), *IMAGE, "--orderly", says="unmounted the disks")
    check(not os.path.exists(world.path / "state/images"), "a folder was made")


@test
def images_only_where_they_are_needed(world):
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    world.expect(2, "upgrade", "--carrier", "auto", "--reboot", says="for guests' memory on disk")
    world.expect(0, "upgrade", "--kernel", kernel(), "--carrier", "auto", "--plaintext")
    check(world.ask("report")["report"]["carrier"] == "hold", "images were made without need")
    guest.wait_alive()


@test
def images_by_configuration(world):
    """Where a request doesn't say the way, the host's configuration does; a request goes before it."""
    world.configure("[host]\ncarrier=image\nplaintext-images=yes\n")
    world.start_agent()
    guest = Guest(world, "g").wait_ready()
    found = [finding["id"] for finding in world.ask("check")["findings"]]
    check("host.images" in found, f"the check is of another way: {found}")
    world.expect(0, "upgrade", "--kernel", kernel())
    check(world.ask("report")["report"]["carrier"] == "image", "the configuration was not asked")
    world.expect(0, "upgrade", "--kernel", kernel(), "--carrier", "hold")
    check(world.ask("report")["report"]["carrier"] == "hold", "the request was not asked")
    world.configure("[host]\ncarrier=auto\n")
    world.expect(0, "upgrade", "--kernel", kernel())
    check(world.ask("report")["report"]["carrier"] == "hold", "images were made without need")
    guest.wait_alive()


@test
def images_are_planned(world):
    world.start_agent()
    Guest(world, "g").wait_ready()
    plan = world.ask("plan", "--kernel", kernel(), *IMAGE)
    says = {step["name"]: step["what"] for step in plan["steps"]}
    check("copied to disk" in says["prepare"] and "read from disk" in says["resume"], f"the steps: {says}")
    check("boot" not in says, f"the steps: {says}")
    found = {finding["id"]: finding for finding in plan["findings"]}
    check(found["host.images"]["verdict"] == "warning", f"findings: {found}")
    found = {finding["id"]: finding for finding in world.ask("check", "--kernel", kernel(), "--carrier", "image")["findings"]}
    check(found["host.images"]["verdict"] == "refusal", f"findings: {found}")
