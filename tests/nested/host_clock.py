# SPDX-License-Identifier: Apache-2.0
"""Whether the nested host's wall clock is right after a jump."""

from nested import fail

MAX_ERROR_NS = 10e6


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

    def expect(self, report, error_ns):
        """The agent says that it has moved the clock, and it was off by so little after that."""
        if "clock_correction_ns" not in report:
            fail("the host's clock was not carried over, see the agent's log")
        self.host.note(f"the host's clock was moved by {report['clock_correction_ns'] / 1e6:+.1f} ms after the jump; "
                       f"it is {error_ns / 1e6:+.2f} ms from where the old kernel's would be "
                       f"(holdfast says at most {report['clock_error_ns'] / 1e6:.2f} ms)")
        if abs(error_ns) > MAX_ERROR_NS:
            fail(f"the host's clock is off by {error_ns / 1e6:.1f} ms")
