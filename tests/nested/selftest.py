#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the nested runner itself that need no host: the control channel, the log scan, the attempts."""

import sys

sys.dont_write_bytecode = True

import contextlib  # noqa: E402
import io  # noqa: E402
import pathlib  # noqa: E402
import tempfile  # noqa: E402
import unittest  # noqa: E402
from unittest import mock  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import nested  # noqa: E402
import run  # noqa: E402

STREAM = (b"@out 1 6\nhello\n@out 2 12\n@end 1 9\nab\n@out 1 4\n"
          b"you\n@end 1 3\n@out 2 500\nlost in the ju\n\x1e@hf-boot 900 3000000000 7.3.4\n@out 3 1\nx@end 3 0\n")


def fed(pieces):
    """A host that got the stream in these pieces, and its three jobs."""
    host = nested.Host.__new__(nested.Host)
    host.boots = []
    jobs = [nested.Job(host, number, "") for number in (1, 2, 3)]
    host.jobs = {1: jobs[0], 2: jobs[1]}
    data = b""
    for piece in pieces:
        data = host.take_frames(data + piece)
        if host.boots and jobs[2].status is None:
            host.jobs[3] = jobs[2]
    return host, jobs


class Channel(unittest.TestCase):
    def check(self, pieces):
        host, jobs = fed(pieces)
        self.assertEqual([(b.tsc, b.mono_ns, b.release) for b in host.boots],
                         [(900, 3000000000, "7.3.4")])
        self.assertEqual([(job.status, job.out) for job in jobs[:2]],
                         [(3, "hello\nyou\n"), ("rebooted", "@end 1 9\nab\n")])

    def test_in_two_pieces(self):
        for at in range(len(STREAM) + 1):
            self.check([STREAM[:at], STREAM[at:]])

    def test_byte_by_byte(self):
        pieces = [STREAM[i:i + 1] for i in range(len(STREAM))]
        self.check(pieces)
        self.assertEqual(fed(pieces)[1][2].status, 0)


class LogScan(unittest.TestCase):
    BLOCK = ["[1.0] ------------[ cut here ]------------", "[1.0] WARNING: CPU: 0 at mm/x.c:1",
             "[1.0] Call Trace:", "[1.0] ---[ end trace 0000 ]---"]

    def test_quiet(self):
        self.assertEqual(nested.log_alarms("[0.1] Linux version 7.2.12\nDEBUG stuff\nBUGS\n"), [])

    def test_each_alarm(self):
        for line in ("WARNING: CPU: 0", "BUG: sleeping function", "Oops: 0000", "Call Trace:",
                     "Kernel panic - not syncing", "rcu: INFO: rcu_preempt detected stalls"):
            self.assertEqual(nested.log_alarms(f"fine\n[2.0] {line}\r\nfine\n"), [f"[2.0] {line}"])

    def test_block_is_one_alarm(self):
        self.assertEqual(len(nested.log_alarms("\n".join(self.BLOCK))), 1)
        self.assertEqual(len(nested.log_alarms("\n".join(self.BLOCK[:3]))), 1)

    def test_allowed(self):
        saved = nested.allowed_patterns
        nested.allowed_patterns = lambda: [nested.re.compile(r"at mm/x\.c")]
        try:
            self.assertEqual(nested.log_alarms("\n".join(self.BLOCK)), [])
            self.assertEqual(len(nested.log_alarms("\n".join(self.BLOCK + ["BUG: other"]))), 1)
        finally:
            nested.allowed_patterns = saved

    def test_every_allowance_has_a_reason(self):
        nested.allowed_patterns()


class Attempts(unittest.TestCase):
    ALARM = "fine\n" + "\n".join(LogScan.BLOCK) + "\n[2.0] BUG: sleeping\n[3.0] fine\n"

    class Host:
        alive, started = False, 0

        def __init__(self, log):
            self.serial_log = log

        def note(self, text):
            print(text)

        def stop(self):
            pass

    def attempts(self, *ends):
        """Runs a case whose attempts end so, each a console log and what is raised. (exit status, the last
        lines, how many attempts there were)"""
        case = mock.Mock(__doc__="A case.", spec=["run", "__doc__"])
        case.run.side_effect = [error for _, error in ends]
        out = io.StringIO()
        with tempfile.TemporaryDirectory() as top, contextlib.redirect_stdout(out), \
                mock.patch.object(nested, "TOP", pathlib.Path(top)), \
                mock.patch.object(nested, "Host", side_effect=[self.Host(log) for log, _ in ends]), \
                mock.patch.object(run, "host_image"), mock.patch.object(run.subprocess, "run"), \
                mock.patch.object(run, "load_case", return_value=case), \
                mock.patch.object(sys, "argv", ["run.py", "x", "--attempts", "3"]):
            status = run.main()
        told = [line for line in out.getvalue().splitlines() if line.startswith("remark ") or " attempts)" in line]
        self.assertEqual(told, out.getvalue().splitlines()[-len(told):] if told else [])
        return status, told, case.run.call_count

    def test_one_good_attempt(self):
        self.assertEqual(self.attempts(("fine\n", None)), (0, [], 1))

    def test_an_alarm_is_named_after_a_good_end(self):
        self.assertEqual(self.attempts((self.ALARM, None), ("fine\n", None)), (0, [
            "x: passed (2 attempts)",
            "remark  attempt 1: the console log has: [1.0] WARNING: CPU: 0 at mm/x.c:1",
            "remark  attempt 1: the console log has: [2.0] BUG: sleeping"], 2))

    def test_a_host_that_hangs(self):
        hung = nested.Broken("still waiting\nfor it")
        self.assertEqual(self.attempts(("", hung), (self.ALARM, hung), ("", OSError("gone"))), (1, [
            "x: FAILED (3 attempts)",
            "remark  attempt 1: still waiting / for it",
            "remark  attempt 2: still waiting / for it",
            "remark  attempt 2: the console log has: [1.0] WARNING: CPU: 0 at mm/x.c:1",
            "remark  attempt 2: the console log has: [2.0] BUG: sleeping",
            "remark  attempt 3: the nested host ended: gone"], 3))

    def test_what_a_case_found_is_final(self):
        self.assertEqual(self.attempts(("", nested.Failure("a wrong word"))), (1, [
            "remark  attempt 1: a wrong word"], 1))
        self.assertEqual(self.attempts(("", ValueError("no number"))), (1, [
            "remark  attempt 1: ValueError('no number')"], 1))
        self.assertEqual(self.attempts((self.ALARM, None), ("", nested.Failure("a wrong word"))), (1, [
            "x: FAILED (2 attempts)",
            "remark  attempt 1: the console log has: [1.0] WARNING: CPU: 0 at mm/x.c:1",
            "remark  attempt 1: the console log has: [2.0] BUG: sleeping",
            "remark  attempt 2: a wrong word"], 2))


if __name__ == "__main__":
    unittest.main()
