#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The runner of `make check`: what it makes of a step's end and output. Needs nothing built."""

import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.dont_write_bytecode = True
TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))
import check  # noqa: E402

STEP = check.Step("some-step", "true")
ALLOWED = ["some-step/test-real: no QEMU*", "other/*"]


class Judge(unittest.TestCase):
    def counts(self, status, text, allowed=()):
        return check.judge(STEP, status, text, allowed)[:3]

    def test_without_counts_a_step_is_one(self):
        self.assertEqual(self.counts(0, "all is well\n"), (1, 0, 0))
        self.assertEqual(self.counts(2, "no\n"), (0, 1, 0))
        self.assertEqual(self.counts(None, ""), (0, 1, 0))

    def test_the_last_counts_are_the_steps(self):
        text = "1 passed, 0 failed, 0 skipped\nmore\n7 passed, 2 failed, 0 skipped\nmake: Error 1\n"
        self.assertEqual(self.counts(2, text), (7, 2, 0))

    def test_a_failure_after_good_counts_is_a_failure(self):
        self.assertEqual(self.counts(1, "3 passed, 0 failed, 0 skipped\n"), (3, 1, 0))
        self.assertEqual(self.counts(None, "3 passed, 0 failed, 0 skipped\n"), (3, 1, 0))

    def test_nothing_counted_is_a_failure(self):
        self.assertEqual(self.counts(0, "0 passed, 0 failed, 0 skipped\n"), (0, 1, 0))

    def test_an_unexpected_skip_is_a_failure(self):
        text = "ok      a\nskip    test-real: no QEMU here\n1 passed, 0 failed, 1 skipped\n"
        self.assertEqual(self.counts(0, text), (1, 1, 0))
        self.assertEqual(self.counts(0, text, ALLOWED), (1, 0, 1))
        self.assertEqual(self.counts(0, text.replace("QEMU", "root"), ALLOWED), (1, 1, 0))
        self.assertEqual(self.counts(0, "0 passed, 0 failed, 1 skipped\n", ALLOWED), (0, 1, 0))
        self.assertEqual(self.counts(77, "no root\n", ALLOWED), (0, 1, 0))


class Run(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="check.")
        self.log = pathlib.Path(self.dir.name) / "log"

    def tearDown(self):
        self.dir.cleanup()

    def execute(self, script, limit=20):
        return check.execute(check.Step("s", ["bash", "-c", script], limit), self.log)

    def test_status_and_output(self):
        self.assertEqual(self.execute("echo out; echo err >&2; read -r line || exit 5"), 5)
        self.assertEqual(self.log.read_text(), "out\nerr\n")

    def test_a_limit_ends_everything_that_was_started(self):
        pid_file = pathlib.Path(self.dir.name) / "pid"
        self.assertIsNone(self.execute(f"sleep 100 & echo $! >{pid_file}; wait", 1))
        state = subprocess.run(["ps", "-o", "stat=", "-p", pid_file.read_text().strip()],
                               stdout=subprocess.PIPE, text=True).stdout.strip()
        self.assertIn(state[:1], ("", "Z"))

    def test_make_does_not_hand_its_own_flags_on(self):
        os.environ["MAKEFLAGS"] = "-n"
        try:
            self.assertEqual(self.execute("test -z \"${MAKEFLAGS:-}\""), 0)
        finally:
            del os.environ["MAKEFLAGS"]

    def test_every_step_has_a_name_of_its_own(self):
        names = [step.name for step in check.steps()]
        self.assertEqual(len(names), len(set(names)))


class Summary(unittest.TestCase):
    def main(self, *scripts):
        steps = [check.Step(f"step-{i}", ["bash", "-c", script]) for i, script in enumerate(scripts)]
        out = io.StringIO()
        with tempfile.TemporaryDirectory(prefix="check.") as logs, contextlib.redirect_stdout(out), \
                mock.patch.object(check, "LOGS", pathlib.Path(logs)), \
                mock.patch.object(check, "steps", lambda: steps), \
                mock.patch.object(sys, "argv", ["check.py"]):
            self.assertEqual(check.main(), 0)
        return out.getvalue().splitlines()

    def test_more_than_one_attempt_is_said(self):
        lines = self.main("echo 'x: passed (2 attempts)'", "echo well")
        self.assertRegex(lines[0], r"^ok .* step-0 +1 passed \(2 attempts\)$")
        self.assertRegex(lines[1], r"^ok .* step-1 +1 passed$")

    def test_remarks_are_repeated_at_the_end(self):
        lines = self.main("echo 'remark  attempt 1: [2.0] BUG: x'; echo 'remark  attempt 1: more'", "echo well")
        self.assertEqual(lines[1:3], ["        attempt 1: [2.0] BUG: x", "        attempt 1: more"])
        self.assertEqual(lines[4:6], ["step-0: attempt 1: [2.0] BUG: x", "step-0: attempt 1: more"])
        self.assertEqual(lines[-1], "2 passed, 0 failed, 0 skipped")


if __name__ == "__main__":
    program = unittest.main(exit=False)
    result = program.result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed, 0 skipped")
    sys.exit(1 if bad else 0)
