# SPDX-License-Identifier: Apache-2.0
"""Three guests live through a change of the host's kernel; memory, disk, clock and TCP are watched.

The main case, and what `make demo` shows: one guest on `pc`, one on `q35` with disk and network and a
client outside, one that is paused before the update and must be paused, intact, after it."""

from guests import Guest
from nested import TEST_DIR, fail
from updates import expect_all, upgrade, wait_agent

MEMORY = 4096
MAX_CLOCK_ERROR_NS = 10e6


class WallClock:
    """The host's wall clock against its TSC, which runs on through the jump as the clock does not.

    The rate is the one at which the old kernel lets its clock run: what it would say now, had it gone on,
    is what the new kernel's must say. Readings that took longer than a millisecond are taken once more."""

    def __init__(self, host):
        self.host = host
        self.start = self.read()

    def read(self):
        for _ in range(20):
            tsc, ns, width = map(int, self.host.run("hf-tsc wall").out.split())
            if width * 1000 < self.host.tsc_hz():
                return tsc, ns
        fail("the host's clock can't be read within a millisecond")

    def before(self):
        """Right before the jump: long enough after the first reading to know the rate."""
        self.last = self.read()
        ticks, ns = (b - a for a, b in zip(self.start, self.last))
        if ns < 5e9:
            fail(f"only {ns / 1e9:.1f} s to find the clock's rate")
        self.hz = ticks * 1e9 / ns
        if abs(self.hz / self.host.tsc_hz() - 1) > 0.02:
            fail(f"the old kernel takes {self.hz:.0f} ticks for a second, the machine {self.host.tsc_hz():.0f}")

    def error_ns(self):
        """How far the clock is ahead of where it would be."""
        ticks, ns = (b - a for a, b in zip(self.last, self.read()))
        return ns - ticks * 1e9 / self.hz


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
    error_ns = clock.error_ns()
    host.note(f"the host runs Linux {host.run('uname -r').out.strip()}, its guests are back")
    print(host.run("holdfast report").out)

    if "clock_correction_ns" not in report:
        fail("the host's clock was not carried over, see the agent's log")
    host.note(f"the host's clock was moved by {report['clock_correction_ns'] / 1e6:+.1f} ms after the jump; it is "
              f"{error_ns / 1e6:+.2f} ms from where the old kernel's would be "
              f"(holdfast says at most {report['clock_error_ns'] / 1e6:.2f} ms)")
    if abs(error_ns) > MAX_CLOCK_ERROR_NS:
        fail(f"the host's clock is off by {error_ns / 1e6:.1f} ms")
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
    result = client.stop()
    if not result["ok"]:
        fail(f"the connection from outside: {result}")
    host.note(f"the TCP connection from outside is still the same: {result['echoed']} messages echoed, "
              f"longest silence {result['gap_max_ns'] / 1e9:.2f} s")
