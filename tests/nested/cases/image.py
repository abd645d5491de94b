# SPDX-License-Identifier: Apache-2.0
"""Guests' memory goes to disk and back: through a jump between kernels without LUO, and through the firmware.

The host has no LUO and no KHO at all. One guest with disk and network and a client outside, one without, one that is
paused. First `upgrade --carrier image --kernel`, then `--reboot`: the outer QEMU resets the machine, whose memory is
that of a fresh boot. The same connection from outside lives through both."""

from guests import Guest
from nested import fail
from updates import end_connection, expect_from_images, holdfast, leave, upgrade, wait_agent, wait_end

MEMORY = 4096
APPEND = "kho=off liveupdate=off"
REBOOTS = True
IMAGE = "--carrier image --plaintext"


def expect_back(host, guests, sleeper, asleep, client, report):
    expect_from_images(host, guests, client, report, [sleeper])
    if sleeper.state() != "paused" or sleeper.said("STATUS") != asleep:
        fail("the paused guest ran")


def run(host):
    host.boot()
    wait_agent(host)
    if host.run("test -e /dev/liveupdate", check=False).rc == 0:
        fail("the host has LUO, which is to be done without here")
    old, new = host.kernels["OLD_VERSION"], host.kernels["NEW_VERSION"]
    web = Guest(host, "web", machine="q35", cpus=2, memory=192, disk=True, net=True)
    small = Guest(host, "small", machine="pc", cpus=1, memory=128)
    sleeper = Guest(host, "sleeper", machine="pc", cpus=1, memory=128)
    for guest in (web, small, sleeper):
        guest.start()
        guest.wait_ready()
    client = web.client()
    sleeper.wait_status(1)
    sleeper.hmp("stop")
    asleep = sleeper.said("STATUS")

    # Without LUO nothing else is possible, and the agent says so.
    holdfast(host, "upgrade --kernel /var/lib/hf-test/bzImage-new", code=3, says="")
    holdfast(host, "upgrade --kernel /var/lib/hf-test/bzImage-new --carrier image", code=3, says="no key")
    holdfast(host, "plan --kernel /var/lib/hf-test/bzImage-new --carrier auto --plaintext", says="goes to disk, because")

    host.note(f"through a jump, Linux {old} to {new}")
    client.reset_gaps()
    report = upgrade(host, "bzImage-new", new, 2, "--carrier auto --plaintext")
    expect_back(host, [web, small], sleeper, asleep, client, report)

    host.note(f"through the firmware, to Linux {old}")
    leave(host, f"upgrade {IMAGE} --reboot", old, 3)
    expect_back(host, [web, small], sleeper, asleep, client, wait_end(host))

    sleeper.hmp("cont")
    sleeper.wait_passes(2)
    sleeper.judge()
    result = end_connection(client)
    host.note(f"the TCP connection from outside is still the same: {result['echoed']} messages echoed, "
              f"longest silence {result['gap_max_ns'] / 1e9:.2f} s")
