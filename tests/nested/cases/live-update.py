# SPDX-License-Identifier: Apache-2.0
"""Three guests live through a change of the host's kernel; memory, disk, clock and TCP are watched.

The main case, and what `make demo` shows: one guest on `pc`, one on `q35` with disk and network and a
client outside, one that is paused before the update and must be paused, intact, after it."""

from guests import Guest
from host_clock import WallClock
from nested import TEST_DIR, fail
from updates import end_connection, expect_all, upgrade, wait_agent

MEMORY = 4096


def run(host):
    host.boot()
    clock = WallClock(host)
    old, new = host.kernels["OLD_VERSION"], host.kernels["NEW_VERSION"]
    wait_agent(host)

    small = Guest(host, "small", machine="pc", cpus=1, memory=128)
    web = Guest(host, "web", machine="q35", cpus=2, memory=256, disk=True, net=True)
    sleeper = Guest(host, "sleeper", machine="pc", cpus=1, memory=128)
    guests = [small, web, sleeper]
    for guest in guests:
        guest.start()
        guest.wait_ready()
    host.note("three guests are ready, each rewrites and verifies three quarters of its memory")
    client = web.client()
    sleeper.wait_status(1)
    sleeper.hmp("stop")
    asleep = sleeper.said("STATUS")
    pids = host.run("pgrep -x qemu-system-x86 | wc -l").out.strip()
    if pids != "3":
        fail(f"{pids} QEMUs run, not 3")
    print(host.run(f"holdfast check --kernel {TEST_DIR}/bzImage-new").out)
    print(host.run("holdfast guests").out)

    host.note(f"live update: Linux {old} to {new}")
    client.reset_gaps()
    clock.before()
    report = upgrade(host, "bzImage-new", new, 2)
    clock_error_ns = clock.error_ns()
    host.note(f"the host runs Linux {host.run('uname -r').out.strip()}, its guests are back")
    print(host.run("holdfast report").out)

    clock.expect(report, clock_error_ns)
    expect_all(report, guests)
    for guest, want in ((small, "running"), (web, "running"), (sleeper, "paused")):
        if guest.state() != want:
            fail(f"guest {guest.name} is {guest.state()}, not {want}")
    if sleeper.said("STATUS") != asleep:
        fail("the paused guest ran")
    for guest in (small, web):
        guest.wait_passes(2)
    sleeper.hmp("cont")
    sleeper.wait_passes(2)
    for guest in guests:
        last = guest.judge()
        host.note(f"{guest.name}: {last['passes']} passes over {int(last['mem_bytes']) >> 20} MiB "
                  f"({last['mem_pct']} %), no word wrong")
    result = end_connection(client)
    host.note(f"the TCP connection from outside is still the same: {result['echoed']} messages echoed, "
              f"longest silence {result['gap_max_ns'] / 1e9:.2f} s")
