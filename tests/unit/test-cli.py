#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line against an agent that says what a test wants it to say.

usage: test-cli.py [PROGRAM]      PROGRAM defaults to build/gcc/holdfast

The agent here is a few lines of Python that speak Varlink on a socket in a temporary folder. Exits 0
or 1; the last line is "N passed, N failed, N skipped".
"""

import base64
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(TOP, "tests/nested"))

import kernel_sample  # noqa: E402  (needs the path above)

PROGRAM = os.path.join(TOP, "build/gcc/holdfast")
TIMEOUT = 30

GUEST = {
    "uuid": "5f4dcc3b-0000-4000-8000-000000000001", "name": "web1", "manager": "qemu", "pid": 4711,
    "status": "running", "eligible": True, "step": "idle", "vmm": "QEMU 10.0.2",
    "ram": [{"id": "pc.ram", "size_bytes": 128 << 20, "file": "memfd"}], "findings": [],
}
OTHER = dict(GUEST, name="datenbank", pid=5000, eligible=False,
             ram=[{"id": "a", "size_bytes": 1 << 30, "file": "memfd"},
                  {"id": "b", "size_bytes": 1 << 29, "file": "memfd"}],
             findings=[{"id": "vfio", "verdict": "refusal", "guest": "datenbank",
                        "message": "it has a PCI device of the host", "remedy": "Detach it."}])
STATUS = {"state": "normal", "agent_version": "1.2", "kernel": "7.2.1", "carrier": "luo",
          "update_id": None, "message": None, "last_update_id": "u-0", "guests": [GUEST]}


def phase(name, ms):
    return {"name": name, "duration_ns": int(ms * 1e6)}


REPORT = {
    "id": "u-1", "outcome": "done", "carrier": "hold", "from_kernel": "7.2.1", "to_kernel": "7.3.0",
    "from_version": "1.2", "to_version": "1.3", "blackout_ns": 412345678,
    "phases": [phase("jump", 250), phase("boot", 100.5)],
    "guests": [
        {"uuid": GUEST["uuid"], "name": "web1", "outcome": "resumed", "blackout_ns": 412345678,
         "ram_bytes": 128 << 20, "state_bytes": 70000,
         "phases": [phase("pause", 1.25), phase("save", 10), phase("jump", 250), phase("boot", 100.5)],
         "preserve_ns": 1500000000, "retrieve_ns": 800000, "message": None},
    ],
    "readahead_bytes": 80 << 20, "readahead_ns": 120000000, "agent_rss_bytes": 9 << 20, "message": None,
}


class Close(Exception):
    """Raised by a handler: end the connection without an answer."""


class Agent:
    """Serves Varlink at a path. Handlers: method name -> function(Call), answering as it likes."""

    def __init__(self, path, handlers):
        self.path = path
        self.handlers = handlers
        self.calls = []
        self.gone = 0
        self.listener = None
        self.connections = []
        self.start()

    def start(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def stop(self):
        if self.listener.fileno() < 0:
            return
        # A close alone would not wake accept().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
        for c in self.connections:
            try:
                c.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def accept(self, listener):
        while True:
            try:
                c, _ = listener.accept()
            except OSError:
                return
            self.connections.append(c)
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        buf = b""
        try:
            while True:
                data = c.recv(65536)
                if not data:
                    self.gone += 1
                    return
                buf += data
                while b"\0" in buf:
                    text, buf = buf.split(b"\0", 1)
                    message = json.loads(text)
                    self.calls.append(message)
                    interface, name = message["method"].rsplit(".", 1)
                    assert interface == "org.holdfast.Host", interface
                    self.handlers[name](Call(self, c, message))
        except ConnectionResetError:
            # Closed with something unread: gone all the same.
            self.gone += 1
        except (Close, OSError):
            pass
        finally:
            c.close()


class Call:
    def __init__(self, agent, c, message):
        self.agent, self.c = agent, c
        self.params = message.get("parameters") or {}
        self.more = message.get("more", False)

    def send(self, **message):
        self.c.sendall(json.dumps(message).encode() + b"\0")

    def reply(self, params):
        self.send(parameters=params)

    def progress(self, state, message, guest=None, ms=5.0):
        assert self.more
        self.send(continues=True, parameters={"progress": {
            "update_id": "u-1", "state": state, "guest": guest, "message": message,
            "elapsed_ns": int(ms * 1e6)}})

    def error(self, name, **params):
        self.send(error="org.holdfast.Host." + name, parameters=params)


def replies(params):
    return lambda call: call.reply(params)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


class CliTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="holdfast-cli.")
        self.path = os.path.join(self.dir, "socket")
        self.agent = None
        self.env = {"PATH": os.environ["PATH"], "HOLDFAST_SOCKET": self.path, "TERM": "xterm",
                    "LC_ALL": "C.UTF-8"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    def tearDown(self):
        if self.agent:
            self.agent.stop()
        shutil.rmtree(self.dir)

    def serve(self, **handlers):
        self.agent = Agent(self.path, handlers)
        return self.agent

    def run_cli(self, *args, stdout=subprocess.PIPE, **kwargs):
        p = subprocess.run([PROGRAM, *args], env=self.env, stdin=subprocess.DEVNULL, stdout=stdout,
                           stderr=subprocess.PIPE, timeout=TIMEOUT, **kwargs)
        err = p.stderr.decode()
        self.assertNotIn("Sanitizer", err)
        self.assertNotIn("runtime error", err)
        return Result(p.returncode, (p.stdout or b"").decode(), err)

    def run_on_terminal(self, *args):
        """Runs with stdout on a terminal."""
        master, slave = pty.openpty()
        p = subprocess.Popen([PROGRAM, *args], env=self.env, stdin=subprocess.DEVNULL, stdout=slave,
                             stderr=subprocess.PIPE)
        os.close(slave)
        out = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            out += data
        os.close(master)
        err = p.communicate(timeout=TIMEOUT)[1].decode()
        return Result(p.returncode, out.decode().replace("\r\n", "\n"), err)


class CommandLines(CliTest):
    VERBS = ("check", "plan", "guests", "adopt", "prepare", "commit", "upgrade", "abort", "status", "report", "history",
             "retry", "dump", "release", "inspect", "libvirt", "shutdown", "vmm-upgrade")

    def test_no_verb(self):
        r = self.run_cli()
        self.assertEqual((r.code, r.out), (2, ""))
        self.assertIn("usage: holdfast", r.err)

    def test_help_and_version(self):
        r = self.run_cli("--help")
        self.assertEqual((r.code, r.err), (0, ""))
        for verb in self.VERBS:
            self.assertRegex(r.out, r"(?m)^  %s +\S" % verb)
            h = self.run_cli(verb, "--help")
            self.assertEqual((h.code, h.err), (0, ""))
            self.assertTrue(h.out.startswith("usage: holdfast %s " % verb), h.out)
        self.assertRegex(self.run_cli("--version").out, r"^holdfast \d+\.\d+")

    def test_wrong(self):
        for args, what in (
                (["frobnicate"], "no verb 'frobnicate'"),
                (["status", "--wathc"], "no option '--wathc'"),
                (["status", "-x"], "no option '-x'"),
                (["status", "again"], "too many arguments: 'again'"),
                (["status", "-o", "xml"], "no output format 'xml'"),
                (["status", "-o"], "option '-o' needs a value"),
                (["prepare"], "--kernel FILE is missing"),
                (["prepare", "--kernel", ""], "--kernel FILE is missing"),
                (["upgrade", "--dry-run"], "--kernel FILE is missing"),
                (["upgrade", "--kernel"], "option '--kernel' needs a value"),
                (["check", "--initrd", "x"], "need --kernel"),
                (["plan", "--initrd", "x"], "need --kernel"),
                (["plan", "x"], "too many arguments: 'x'"),
                (["history", "x"], "too many arguments: 'x'"),
                (["prepare", "--kernel", "k", "--append", "a", "--cmdline", "b"], "one of them"),
                (["retry"], "retry which guest?"),
                (["retry", "a", "b"], "too many arguments: 'b'"),
                (["retry", "a", "--qemu", "qemu"], "--qemu takes an absolute path"),
                (["release", "--yes"], "release which guest?"),
                (["dump"], "dump which guest?"),
                (["dump", "web1"], "dump it to which file?"),
                (["dump", "web1", "a", "b"], "too many arguments: 'b'"),
                (["vmm-upgrade"], "name a guest, or say --all"),
                (["vmm-upgrade", "g", "--all"], "name a guest, or say --all"),
                (["vmm-upgrade", "g", "--qemu", "qemu"], "--qemu takes an absolute path, not 'qemu'"),
                (["adopt"], "name a guest, or a process with --pid"),
                (["adopt", "g", "--pid", "7", "--qmp", "/"], "name a guest, or a process"),
                (["adopt", "--pid", "7"], "--pid needs --qmp"),
                (["adopt", "g", "--name", "n"], "--name goes with --pid"),
                (["adopt", "g", "--qmp", "/none"], "/none: No such file"),
                (["adopt", "g", "--downtime", "0"], "--downtime takes a number, not '0'"),
                (["adopt", "g", "--timeout", "1h"], "--timeout takes a number, not '1h'"),
                (["adopt", "--pid", "-7", "--qmp", "/"], "--pid takes a number, not '-7'"),
                (["inspect"], "inspect what?"),
                (["inspect", "kernel"], "inspect which kernel?"),
                (["inspect", "kernel", "a", "b"], "too many arguments: 'b'"),
                (["inspect", "guest"], "can't inspect 'guest'"),
                (["inspect", "kho", "x"], "can't inspect 'x'"),
                (["report", "a", "b"], "too many arguments: 'b'")):
            r = self.run_cli(*args)
            self.assertEqual((r.code, r.out), (2, ""), args)
            self.assertIn(what, r.err)
            self.assertIn("See: holdfast", r.err)

    def test_agent_not_running(self):
        for args in (["check"], ["guests"], ["prepare", "--kernel", "k"], ["commit"], ["abort"],
                     ["upgrade", "--kernel", "k"], ["status"], ["status", "--watch"], ["report"],
                     ["plan"], ["history"], ["inspect", "kho"]):
            r = self.run_cli(*args)
            self.assertEqual((r.code, r.out), (3, ""), args)
            self.assertIn("holdfast: the agent is not running", r.err)
            self.assertIn("\n  Start it: systemctl start holdfastd\n", r.err)
        # A socket that nobody listens on any more is the same.
        s = socket.socket(socket.AF_UNIX)
        s.bind(self.path)
        s.close()
        self.assertEqual(self.run_cli("status").code, 3)

    def test_result_that_can_not_be_written(self):
        self.serve(Status=replies(STATUS))
        with open("/dev/full", "w") as full:
            r = self.run_cli("status", stdout=full)
        self.assertEqual(r.code, 1)
        self.assertIn("can't write the result", r.err)


class Errors(CliTest):
    def test_exit_codes(self):
        codes = {"InvalidArgument": 2, "HostNotReady": 3, "NotPermitted": 4, "Busy": 75,
                 "NoSuchGuest": 1, "WrongState": 1, "RolledBack": 5, "Degraded": 6, "Failed": 1,
                 "SomethingNew": 1}
        for name, code in codes.items():
            self.serve(Abort=lambda call: call.error(name, message="it is so", remedy="Do this.",
                                                     guest="web1"))
            r = self.run_cli("abort")
            self.assertEqual((r.code, r.out), (code, ""), name)
            self.assertEqual(r.err, "holdfast: web1: it is so\n  Do this.\n")
            self.agent.stop()
        self.serve(Abort=lambda call: call.error("Failed", message="only this"))
        self.assertEqual(self.run_cli("abort").err, "holdfast: only this\n")

    def test_json(self):
        self.serve(Abort=lambda call: call.error("Busy", message="m", remedy=None, retry_s=3))
        r = self.run_cli("abort", "-o", "json")
        self.assertEqual(r.code, 75)
        self.assertEqual(json.loads(r.out), {"error": "Busy", "message": "m", "retry_s": 3})
        self.assertEqual(r.err, "holdfast: m\n")

    def test_findings_of_a_refusal(self):
        self.serve(Prepare=lambda call: call.error(
            "HostNotReady", message="not ready", findings=[
                {"id": "kho", "verdict": "refusal", "message": "no KHO", "remedy": "Boot with kho=on."}]))
        r = self.run_cli("prepare", "--kernel", "/k")
        self.assertEqual(r.code, 3)
        self.assertEqual(r.out, "Host\n  refusal no KHO\n          Boot with kho=on.\n")
        self.assertEqual(r.err, "holdfast: not ready\n")

    def test_older_agent(self):
        self.serve(Abort=lambda call: call.send(error="org.varlink.service.MethodNotFound",
                                                parameters={"method": "org.holdfast.Host.Abort"}))
        r = self.run_cli("abort")
        self.assertEqual(r.code, 1)
        self.assertIn("org.varlink.service.MethodNotFound: org.holdfast.Host.Abort", r.err)

    def test_nonsense(self):
        self.serve(Abort=lambda call: call.c.sendall(b"hello\0"))
        r = self.run_cli("abort")
        self.assertEqual(r.code, 1)
        self.assertIn("can't be understood", r.err)

    def test_terminal_is_not_driven(self):
        self.serve(Abort=lambda call: call.error("Failed", message="a\x1b[2Jb\x07\nc\u009bd",
                                                 guest="\x1b]0;x\x07", remedy="\r"))
        self.assertEqual(self.run_cli("abort").err, "holdfast: ?]0;x?: a?[2Jb??c??d\n  ?\n")


class Check(CliTest):
    OK = {"id": "luo", "verdict": "ok", "guest": None, "message": "LUO is there", "remedy": None}
    WARNING = {"id": "mem", "verdict": "warning", "guest": None, "message": "little memory",
               "remedy": "Free some."}

    def reply(self, verdict, findings, guests=()):
        return {"verdict": verdict, "findings": findings, "guests": list(guests)}

    def test_verdicts(self):
        for verdict, code, text in (
                ("ok", 0, "ready: the host can be updated"),
                ("warning", 0, "ready with caveats: the host can be updated; look at the warnings first"),
                ("refusal", 3, "not ready: the host can't be updated as it is"),
                ("unheard-of", 3, "not ready: the host can't be updated as it is")):
            self.serve(Check=replies(self.reply(verdict, [self.OK])))
            r = self.run_cli("check")
            self.assertEqual(r.code, code)
            self.assertTrue(r.out.endswith(f"\n\nVerdict: {text}\n"), r.out)
            self.assertEqual(self.run_cli("check", "-o", "json").code, code)
            self.agent.stop()

    def test_table(self):
        # The guest's refusal comes twice and is shown once.
        self.serve(Check=replies(self.reply(
            "refusal", [self.OK, self.WARNING, OTHER["findings"][0]], [GUEST, OTHER])))
        r = self.run_cli("check")
        self.assertEqual(r.code, 3)
        self.assertEqual(r.out, """\
Host
  ok      LUO is there
  warning little memory
          Free some.
Guest web1
Guest datenbank
  refusal it has a PCI device of the host
          Detach it.

Verdict: not ready: the host can't be updated as it is
""")

    def test_terminal(self):
        self.serve(Check=replies(self.reply("refusal", [self.OK, self.WARNING], [OTHER])))
        r = self.run_on_terminal("check")
        self.assertIn("  \x1b[32m✓\x1b[0m LUO is there\n", r.out)
        self.assertIn("  \x1b[33m!\x1b[0m little memory\n    Free some.\n", r.out)
        self.assertIn("  \x1b[31m✗\x1b[0m it has a PCI device", r.out)
        self.env["NO_COLOR"] = "1"
        r = self.run_on_terminal("check")
        self.assertIn("  ✓ LUO is there\n", r.out)
        self.assertNotIn("\x1b", r.out)
        self.env["LC_ALL"] = "C"
        r = self.run_on_terminal("check")
        self.assertTrue(r.out.isascii(), r.out)

    def test_request(self):
        self.serve(Check=replies(self.reply("ok", [])))
        open(os.path.join(self.dir, "vmlinuz"), "w").close()
        os.symlink("vmlinuz", os.path.join(self.dir, "newest"))
        self.run_cli("check")
        self.run_cli("check", "--kernel", "newest", "--initrd", "none.img", "--append", "a=b c", cwd=self.dir)
        self.run_cli("check", "--kernel=/abs", "--cmdline", "")
        real = os.path.realpath(self.dir)
        self.assertEqual([c.get("parameters") for c in self.agent.calls], [
            {},
            {"target": {"kernel": real + "/vmlinuz", "initrd": self.dir + "/none.img", "append": "a=b c"}},
            {"target": {"kernel": "/abs", "cmdline": ""}}])

    def test_json(self):
        reply = self.reply("warning", [self.WARNING], [GUEST])
        self.serve(Check=replies(reply))
        r = self.run_cli("check", "-o", "json")
        self.assertEqual((r.code, json.loads(r.out)), (0, reply))


def estimate(updates, median, worst, **more):
    return {"updates": updates, "median_ns": int(median * 1e6), "worst_ns": int(worst * 1e6), **more}


class Plan(CliTest):
    REPLY = {
        "verdict": "warning", "findings": [Check.OK, Check.WARNING, OTHER["findings"][0]],
        "steps": [{"name": "prepare", "guests": "run", "what": "RAM is kept", "estimate": estimate(3, 20, 25.5)},
                  {"name": "jump", "guests": "paused", "what": "the kernel changes"}],
        "guests": [
            {"uuid": "u", "name": "web1", "action": "carry", "ram_bytes": 1 << 30, "preserve": estimate(3, 10, 12),
             "blackout": estimate(2, 412.3, 1500), "phases": [estimate(2, 1, 2, name="pause")]},
            {"uuid": "v", "name": "new\x1b[2J", "action": "keep_paused", "ram_bytes": 1 << 29, "phases": []},
            {"uuid": "w", "name": "datenbank", "action": "refuse", "ram_bytes": 1 << 20, "phases": [],
             "message": "it has a PCI device of the host"}],
        "blackout": estimate(3, 500, 2000), "preserve": estimate(3, 15, 18), "updates": 3, "skipped": ["bad-1"]}

    def test_table(self):
        self.serve(Plan=replies(self.REPLY))
        r = self.run_cli("plan", "--kernel", "/k", "--append", "a")
        self.assertEqual(r.code, 0)
        self.assertEqual(self.agent.calls[0]["parameters"], {"target": {"kernel": "/k", "append": "a"}})
        self.assertEqual(r.err, "holdfast: the report of update bad-1 can't be read, and is left out\n")
        self.assertEqual(r.out, """\
Host
  ok      LUO is there
  warning little memory
          Free some.
Guest datenbank
  refusal it has a PCI device of the host
          Detach it.

STEP     GUESTS   MEDIAN    WORST  WHAT HAPPENS
prepare  run     20.0 ms  25.5 ms  RAM is kept
jump     paused        -        -  the kernel changes

GUEST      ACTION                          RAM  PRESERVE  BLACKOUT    WORST  UPDATES  WHY
web1       carried over                  1 GiB   10.0 ms  412.3 ms  1.500 s        2  -
new?[2J    carried over, stays paused  512 MiB         -         -        -        -  -
datenbank  REFUSES THE UPDATE            1 MiB         -         -        -        -  it has a PCI device of the host

Blackout   500.0 ms, 2.000 s at worst: first guest paused to last guest running
Preserving 15.0 ms, 18.0 ms at worst: by RAM, for all guests one after the other
Times are of the last 3 updates of this host that were done.

Verdict: ready with caveats: the host can be updated; look at the warnings first
""")

    def test_no_history(self):
        self.serve(Plan=replies(dict(self.REPLY, verdict="refusal", guests=[], updates=0, blackout=None,
                                     preserve=None, skipped=[])))
        r = self.run_cli("plan")
        self.assertEqual((r.code, r.err, self.agent.calls[0]["parameters"]), (3, "", {}))
        self.assertIn("\nNo guests.\n\nNo history yet: ", r.out)
        self.assertNotIn("at worst", r.out)

    def test_json(self):
        self.serve(Plan=replies(self.REPLY))
        r = self.run_cli("plan", "-o", "json")
        self.assertEqual((r.code, r.err, json.loads(r.out)), (0, "", self.REPLY))


class Adopting(CliTest):
    REPLY = {"adopted": {"uuid": "u-2", "name": "we\x07b", "pid": 4712, "blackout_ns": 412 * 10**6},
             "copy": {"sent_bytes": 3 << 30, "remaining_bytes": 0, "total_bytes": 2 << 30, "rounds": 4,
                      "dirty_bytes_per_second": 9}}

    def test_adopt(self):
        def handler(call):
            call.progress("normal", "round 1: 7 MiB sent", guest="web")
            call.send(continues=True, parameters={"copy": self.REPLY["copy"]})
            call.reply(self.REPLY)

        self.serve(Adopt=handler)
        r = self.run_cli("adopt", "web", "--paused", "--downtime", "20", "--timeout", "60")
        self.assertEqual(r.code, 0)
        self.assertEqual(r.out, "Adopted: guest we?b, now process 4712. It stood still for 412.0 ms; "
                                "3 GiB were copied in 4 rounds.\n")
        self.assertIn("web: round 1: 7 MiB sent", r.err)
        params = {k: v for k, v in self.agent.calls[0]["parameters"].items() if v is not None}
        self.assertEqual(params, {"guest": "web", "paused": True, "downtime_ms": 20, "timeout_s": 60})
        self.assertEqual(json.loads(self.run_cli("adopt", "web", "-o", "json").out), self.REPLY)

    def test_by_process(self):
        self.serve(Adopt=replies(self.REPLY))
        r = self.run_cli("adopt", "--pid", "4711", "--qmp", self.path, "--name", "n")
        self.assertEqual((r.code, r.err), (0, ""))
        params = {k: v for k, v in self.agent.calls[0]["parameters"].items() if v is not None}
        self.assertEqual(params, {"pid": 4711, "qmp": self.path, "name": "n"})

    def test_failures(self):
        self.serve(Adopt=lambda call: call.error(call.params["guest"], message="no", remedy="do", guest="web"))
        for name, code in (("RolledBack", 5), ("Degraded", 6), ("Busy", 75), ("HostNotReady", 3), ("NoSuchGuest", 1)):
            r = self.run_cli("adopt", name)
            self.assertEqual((r.code, r.out, r.err), (code, "", "holdfast: web: no\n  do\n"))


class Replacing(CliTest):
    GUESTS = [
        {"uuid": "u-1", "name": "we\x07b", "outcome": "replaced", "pid": 4712, "from": "7.2.22", "to": "10.0.2",
         "blackout_ns": 9 * 10**6, "phases": [{"name": "pause", "duration_ns": 2 * 10**6},
                                              {"name": "save", "duration_ns": 7 * 10**6}]},
        {"uuid": "u-2", "name": "sleeper", "outcome": "replaced", "pid": 4713, "from": "7.2.22", "to": "10.0.2"},
        {"uuid": "u-3", "name": "new", "outcome": "current", "pid": 4714, "from": "10.0.2", "to": "10.0.2"},
        {"uuid": "u-4", "name": "dry", "outcome": "would_replace", "pid": 4715, "from": "7.2.22", "to": "10.0.2"},
    ]
    LINES = ("we?b: replaced QEMU 7.2.22 by 10.0.2, now process 4712; it stood still for 9.0 ms (pause 2.0 ms, save 7.0 ms)\n"
             "sleeper: replaced QEMU 7.2.22 by 10.0.2, now process 4713\n"
             "new: runs on QEMU 10.0.2 already\n"
             "dry: would replace QEMU 7.2.22 by 10.0.2\n")

    @staticmethod
    def failed(name, error):
        return {"uuid": "u-9", "name": name, "outcome": "failed", "from": "", "to": "", "error": error, "message": "no",
                "remedy": "do"}

    def test_outcomes(self):
        self.serve(VmmUpgrade=replies({"guests": self.GUESTS}))
        r = self.run_cli("vmm-upgrade", "--all", "--force", "--qemu", "/opt/q")
        self.assertEqual((r.code, r.out, r.err), (0, self.LINES, ""))
        params = {k: v for k, v in self.agent.calls[0]["parameters"].items() if v is not None}
        self.assertEqual(params, {"all": True, "force": True, "qemu": "/opt/q"})
        self.assertTrue(self.agent.calls[0].get("more"))
        r = self.run_cli("vmm-upgrade", "web", "--dry-run", "-o", "json")
        self.assertEqual((r.code, json.loads(r.out)), (0, {"guests": self.GUESTS}))
        params = {k: v for k, v in self.agent.calls[1]["parameters"].items() if v is not None}
        self.assertEqual(params, {"guest": "web", "dry_run": True})

    def test_none(self):
        self.serve(VmmUpgrade=replies({"guests": []}))
        r = self.run_cli("vmm-upgrade", "--all")
        self.assertEqual((r.code, r.out), (0, "There are no guests.\n"))

    def test_failures_among_all(self):
        errors = []
        self.serve(VmmUpgrade=lambda call: call.reply({"guests": self.GUESTS + [self.failed(e, e) for e in errors]}))
        for errors, code in ((["HostNotReady"], 3), (["HostNotReady", "RolledBack"], 5), (["RolledBack", "Failed"], 1),
                             (["Degraded", "HostNotReady", "RolledBack"], 6), (["SomethingNew"], 1)):
            r = self.run_cli("vmm-upgrade", "--all")
            self.assertEqual((r.code, r.out), (code, self.LINES + "".join(f"{e}: no. To do: do\n" for e in errors)))

    def test_failure_of_one(self):
        self.serve(VmmUpgrade=lambda call: call.error(call.params["guest"], message="no", remedy="do", guest="web"))
        for name, code in (("RolledBack", 5), ("Degraded", 6), ("Busy", 75), ("HostNotReady", 3), ("NoSuchGuest", 1)):
            r = self.run_cli("vmm-upgrade", name)
            self.assertEqual((r.code, r.out, r.err), (code, "", "holdfast: web: no\n  do\n"))


class Looking(CliTest):
    def test_guests(self):
        self.serve(Guests=replies({"guests": [GUEST, OTHER]}))
        r = self.run_cli("guests")
        self.assertEqual((r.code, r.err), (0, ""))
        self.assertEqual(r.out, """\
GUEST      STATUS       RAM   PID  MANAGER  VMM          UUID                                  ELIGIBLE
web1       running  128 MiB  4711  qemu     QEMU 10.0.2  5f4dcc3b-0000-4000-8000-000000000001  yes
datenbank  running  1.5 GiB  5000  qemu     QEMU 10.0.2  5f4dcc3b-0000-4000-8000-000000000001  no: it has a PCI device of the host
""")
        self.assertEqual(json.loads(self.run_cli("guests", "--output=json").out),
                         {"guests": [GUEST, OTHER]})

    def test_guests_aligned_by_screen_width(self):
        self.serve(Guests=replies({"guests": [dict(GUEST, name="ü東"), dict(GUEST, name="ab\tc", pid=0)]}))
        lines = self.run_cli("guests").out.splitlines()
        self.assertTrue(lines[1].startswith("ü東    running"), lines[1])
        self.assertTrue(lines[2].startswith("ab?c   running"), lines[2])
        self.assertRegex(lines[2], r"MiB +-  qemu")

    def test_no_guests(self):
        self.serve(Guests=replies({"guests": []}))
        self.assertIn("No guests", self.run_cli("guests").out)

    def test_status(self):
        self.serve(Status=replies(dict(STATUS, message="all is well")))
        r = self.run_cli("status")
        self.assertEqual(r.code, 0)
        self.assertTrue(r.out.startswith("""\
state        normal
message      all is well
kernel       7.2.1
agent        1.2
carrier      luo
last update  u-0

GUEST  STATUS   STEP """), r.out)

    def test_watch(self):
        """Follows over the end of one agent to the next, and ends when the agent says so."""
        def handler(call):
            self.assertTrue(call.more)
            if self.rounds == 0:
                self.rounds += 1
                call.send(parameters=STATUS, continues=True)
                call.send(parameters=dict(STATUS, state="preparing", guests=[dict(GUEST, step="preserve")]),
                          continues=True)
                raise Close
            call.send(parameters=dict(STATUS, state="resuming", message="two to go"), continues=True)
            call.reply(STATUS)

        for args in ([], ["-o", "json"]):
            self.rounds = 0
            self.serve(Status=handler)
            r = self.run_cli("status", "--watch", *args)
            self.assertEqual(r.code, 0)
            self.assertIn("waiting for it to come back", r.err)
            lines = r.out.splitlines()
            if args:
                self.assertEqual([json.loads(line)["state"] for line in lines],
                                 ["normal", "preparing", "resuming", "normal"])
            else:
                clock = r"^\d\d:\d\d:\d\d "
                self.assertRegex(lines[0], clock + r"normal  web1=running/idle$")
                self.assertRegex(lines[1], clock + r"preparing  web1=running/preserve$")
                self.assertRegex(lines[2], clock + r"resuming  web1=running/idle  \(two to go\)$")
            self.agent.stop()

    def test_report(self):
        self.serve(Report=replies({"report": REPORT}))
        r = self.run_cli("report", "u-1")
        self.assertEqual(r.code, 0)
        self.assertEqual(self.agent.calls[0]["parameters"], {"id": "u-1"})
        self.assertEqual(r.out, """\
update       u-1
outcome      done
carrier      hold
kernel       7.2.1 -> 7.3.0
holdfast     1.2 -> 1.3
blackout     412.3 ms
read-ahead   80 MiB in 120.0 ms
agent RAM    9 MiB

Blackout in milliseconds
      pause  save   jump   boot  TOTAL
host      -     -  250.0  100.5  412.3
web1    1.2  10.0  250.0  100.5  412.3

GUEST  OUTCOME  BLACKOUT      RAM     STATE  PRESERVE  RETRIEVE  MESSAGE
web1   resumed  412.3 ms  128 MiB  68.4 KiB   1.500 s  0.800 ms  -
""")
        r = self.run_cli("report", "-o", "json")
        self.assertEqual(json.loads(r.out), {"report": REPORT})
        self.assertEqual(self.agent.calls[1]["parameters"], {})

    UPDATES = [
        {"id": "u-2", "time": "2026-11-21T15:00:00Z", "outcome": "done", "carrier": "luo", "from_kernel": "7.2.1",
         "to_kernel": "7.3.0", "guests": 12, "longest_blackout_ns": 412345678, "cold_booted": 2},
        {"id": "u-1", "outcome": "rolled-back", "carrier": "luo", "from_kernel": "7.2.1", "to_kernel": "7.2.1",
         "guests": 0, "longest_blackout_ns": 0, "message": "it broke"}]

    def test_history(self):
        reply = {"updates": self.UPDATES, "skipped": ["u-0\x07"]}
        self.serve(History=replies(reply))
        r = self.run_cli("history")
        self.assertEqual(r.code, 0)
        self.assertEqual(r.err, "holdfast: the report of update u-0? can't be read, and is left out\n")
        self.assertEqual(r.out, """\
TIME                  UPDATE  KERNEL          OUTCOME             GUESTS  BLACKOUT
2026-11-21T15:00:00Z  u-2     7.2.1 -> 7.3.0  done         12 (2 afresh)  412.3 ms
-                     u-1     7.2.1 -> 7.2.1  rolled-back              0         -
""")
        r = self.run_cli("history", "-o", "json")
        self.assertEqual((r.err, json.loads(r.out)), ("", reply))
        self.agent.stop()
        self.serve(History=replies({"updates": [], "skipped": []}))
        r = self.run_cli("history")
        self.assertEqual((r.code, r.out, r.err), (0, "No update has been made yet.\n", ""))

    def test_report_of_clocks(self):
        self.assertNotIn("CLOCK", self.report_of(REPORT))
        guests = [dict(REPORT["guests"][0], name="late", outcome="unhealthy", message="it says no", clock="lags",
                       clock_lag_ns=3100000000, clock_message="nobody is\x1b there"),
                  dict(REPORT["guests"][0], name="quick", clock="caught-up", clock_lag_ns=-2000000),
                  dict(REPORT["guests"][0], name="asleep")]
        out = self.report_of(dict(REPORT, guests=guests, clock_correction_ns=-812300000, clock_error_ns=420000))
        self.assertRegex(out, r"clock +moved by -812.3 ms, right within 0.4 ms\n")
        self.assertRegex(out, r"late +unhealthy ")
        clocks = out[out.index("CLOCK"):]
        self.assertRegex(clocks, r"late +lags +3.100 s +nobody is\? there\n")
        self.assertRegex(clocks, r"quick +caught-up +-0.002 s")
        self.assertNotIn("asleep", clocks)

    def report_of(self, report):
        self.serve(Report=replies({"report": report}))
        r = self.run_cli("report")
        self.agent.stop()
        self.assertEqual(r.code, 0)
        return r.out

    def test_report_of_a_failure_is_a_report(self):
        self.serve(Report=replies({"report": dict(REPORT, outcome="degraded", guests=[], phases=[])}))
        r = self.run_cli("report")
        self.assertEqual(r.code, 0)
        self.assertIn("outcome      degraded\n", r.out)

    def test_inspect(self):
        blob = bytes(range(256)) * 3
        file = os.path.join(self.dir, "manifest.dtb")
        tree = {"version": 1, "created_ns": 2500000000, "guests": [{"name": "web1", "ram_bytes": 134217728,
                                                                    "ok": True, "none": None}]}
        self.serve(InspectManifest=replies({"manifest": tree}), InspectKho=replies({"trees": {"out": {}}}))
        for n in (0, 1, 2, 3, len(blob)):
            with open(file, "wb") as f:
                f.write(blob[:n])
            r = self.run_cli("inspect", "manifest", file)
            sent = self.agent.calls[-1]["parameters"]["data"]
            self.assertEqual(base64.b64decode(sent, validate=True), blob[:n])
        self.assertEqual(r.out, """\
version: 1
created_ns: 2500000000 (2.500 s)
guests:
  0:
    name: web1
    ram_bytes: 134217728 (128 MiB)
    ok: true
    none: -
""")
        self.run_cli("inspect", "manifest")
        self.assertEqual(self.agent.calls[-1]["parameters"], {})
        self.assertEqual(self.run_cli("inspect", "kho").out, "out:\n")
        self.assertEqual(json.loads(self.run_cli("inspect", "kho", "-o", "json").out), {"trees": {"out": {}}})

    def test_inspect_unreadable(self):
        r = self.run_cli("inspect", "manifest", "/nonexistent")
        self.assertEqual((r.code, r.err), (1, "holdfast: /nonexistent: No such file or directory\n"))
        with open(os.path.join(self.dir, "big"), "wb") as f:
            f.truncate(1 << 21)
        r = self.run_cli("inspect", "manifest", f.name)
        self.assertEqual(r.code, 1)
        self.assertIn("too large for a manifest", r.err)

    def write(self, name, data):
        path = os.path.join(self.dir, name)
        with open(path, "wb") as f:
            f.write(data)
        return path

    def test_inspect_kernel(self):
        """Needs no agent: none is running here."""
        path = self.write("bzImage", kernel_sample.bzimage())
        r = self.run_cli("inspect", "kernel", path)
        self.assertEqual((r.code, r.err), (0, ""))
        self.assertEqual(r.out, f"""\
image        {path}
kind         bzImage, {os.path.getsize(path) / 1024:.1f} KiB
release      7.3.4
banner       Linux version 7.3.4 (me@there) #1 SMP
packed       gzip, unpacked {len(kernel_sample.vmlinux()) / 1024:.1f} KiB
kexec        yes
kho          kho-v4
luo          luo-v5
memfd        memfd-v2
config       not known: neither built in nor beside the image
""")
        kernel = json.loads(self.run_cli("inspect", "kernel", path, "-o", "json").out)["kernel"]
        self.assertEqual(kernel["formats"], {"kho": ["kho-v4"], "luo": ["luo-v5"], "memfd": ["memfd-v2"]})
        self.assertEqual((kernel["kind"], kernel["kexec"], kernel["compression"], kernel["release"]),
                         ("bzImage", True, "gzip", "7.3.4"))
        self.assertEqual(kernel["kernel_bytes"], len(kernel_sample.vmlinux()))
        self.assertNotIn("config", kernel)

    def test_inspect_kernel_that_will_not_do(self):
        path = self.write("bzImage", kernel_sample.bzimage(["kho-v4", "kho-v3"], xloadflags=1))
        r = self.run_cli("inspect", "kernel", path)
        self.assertEqual(r.code, 0)
        self.assertIn("kexec        no: it can't be moved in memory: CONFIG_RELOCATABLE is off\n", r.out)
        self.assertIn("kho          kho-v4, kho-v3\n", r.out)
        self.assertIn("luo          none: it has no CONFIG_LIVEUPDATE\n", r.out)
        self.assertIn("memfd        none: it has no CONFIG_LIVEUPDATE_MEMFD\n", r.out)
        path = self.write("vmlinux", kernel_sample.vmlinux())
        self.assertIn("kexec        no: it is an ELF file", self.run_cli("inspect", "kernel", path).out)

    def test_inspect_kernel_with_configuration(self):
        path = self.write("vmlinuz", kernel_sample.bzimage())
        beside = self.write("config-7.3.4", b"CONFIG_TUN=m\n# CONFIG_BRIDGE is not set\n")
        r = self.run_cli("inspect", "kernel", path)
        self.assertIn(f"config       {beside}\n", r.out)
        self.assertRegex(r.out, r"(?m)^  CONFIG_TUN +on$")
        self.assertRegex(r.out, r"(?m)^  CONFIG_BRIDGE +off$")
        # The one in the image is the right one for sure.
        path = self.write("vmlinuz", kernel_sample.bzimage(config="CONFIG_KVM_AMD=y\n"))
        self.assertIn("config       built in\n", self.run_cli("inspect", "kernel", path).out)
        config = json.loads(self.run_cli("inspect", "kernel", path, "-o", "json").out)["kernel"]["config"]
        self.assertNotIn("file", config)
        self.assertEqual((config["options"]["CONFIG_KVM_AMD"], config["options"]["CONFIG_TUN"]), (True, False))

    def test_inspect_what_is_no_kernel(self):
        whole = kernel_sample.bzimage()
        fifo = os.path.join(self.dir, "fifo")
        os.mkfifo(fifo)
        for path, says in (
                (self.write("text", b"hello\n" * 1000), "not a kernel image: it is neither"),
                (self.write("empty", b""), "not a kernel image: it is neither"),
                (self.write("cut", whole[:-100]), f"not a kernel image: it is cut: it has {len(whole) - 100} bytes"),
                (self.write("corrupt", whole.replace(b"\x1f\x8b\x08", b"\x1f\x8b\x09")), "gzip data is corrupt"),
                (self.dir, "not a kernel image: it is no regular file"),
                (fifo, "not a kernel image: it is no regular file")):
            r = self.run_cli("inspect", "kernel", path)
            self.assertEqual((r.code, r.out), (3, ""), path)
            self.assertIn(f"holdfast: {path}: ", r.err)
            self.assertIn(says, r.err)
        r = self.run_cli("inspect", "kernel", "/nonexistent")
        self.assertEqual((r.code, r.err), (1, "holdfast: /nonexistent: No such file or directory\n"))


class Held(CliTest):
    GUEST = dict(GUEST, status="held", step="held", pid=0, eligible=False, findings=[
        {"id": "guest.held", "verdict": "refusal", "guest": "web1", "message": "its QEMU is gone",
         "remedy": "Install it."}])

    def test_status(self):
        self.serve(Status=replies(dict(STATUS, state="degraded", guests=[self.GUEST, OTHER])))
        out = self.run_cli("status").out
        self.assertIn("\nweb1 is held:\n  its QEMU is gone\n  Install it.\n", out)
        self.assertRegex(out, r"holdfast retry web1 \[--qemu PATH\]\n")
        self.assertRegex(out, r"holdfast dump web1 FILE\n")
        self.assertRegex(out, r"holdfast release web1 --yes\n")
        self.assertNotIn("datenbank is held", out)

    def test_retry(self):
        def retry(call):
            call.progress("degraded", "tried once more", guest="web1")
            call.reply({})
        agent = self.serve(Retry=retry)
        r = self.run_cli("retry", "web1", "--qemu", "/opt/qemu")
        self.assertEqual((r.code, r.out), (0, "web1 is back.\n"))
        self.assertIn("web1: tried once more", r.err)
        self.assertEqual(agent.calls[0]["parameters"], {"guest": "web1", "qemu": "/opt/qemu"})
        self.run_cli("retry", "web1", "-o", "json")
        self.assertEqual(agent.calls[1]["parameters"], {"guest": "web1"})
        agent.stop()
        self.serve(Retry=lambda call: call.error("Degraded", message="it is so", guest="web1"))
        r = self.run_cli("retry", "web1")
        self.assertEqual((r.code, r.err), (6, "holdfast: web1: it is so\n"))

    def test_dump(self):
        def dump(call):
            call.progress("degraded", "300 of 512 MiB", guest="web1")
            call.reply({"ram_bytes": 512 << 20, "data_bytes": 3 << 20, "vcpus": 2, "missing": []})
        agent = self.serve(Dump=dump)
        r = self.run_cli("dump", "web1", "/d/f")
        self.assertEqual((r.code, r.out), (0, "web1: 512 MiB of memory, 3 MiB of them not zero, and the registers "
                                              "of 2 vCPUs are in /d/f.\n"))
        self.assertIn("web1: 300 of 512 MiB", r.err)
        self.run_cli("dump", "web1", "f", cwd=self.dir)
        self.assertEqual([c["parameters"] for c in agent.calls], [
            {"guest": "web1", "path": "/d/f"}, {"guest": "web1", "path": os.path.join(self.dir, "f")}])
        agent.stop()
        self.serve(Dump=replies({"ram_bytes": 1, "data_bytes": 1, "vcpus": 0, "missing": ["registers: a\x1bb"]}))
        r = self.run_cli("dump", "web1", "/f")
        self.assertEqual((r.code, r.out), (0, "web1: 1 B of memory, 1 B of them not zero are in /f.\n"
                                              "Missing: registers: a?b.\n"))

    def test_release(self):
        agent = self.serve(Release=replies({"ram_bytes": 512 << 20}))
        r = self.run_cli("release", "web1")
        self.assertEqual((r.code, r.out), (2, ""))
        self.assertIn("web1: nothing was done: this would give up its memory, 512 MiB, for good", r.err)
        self.assertIn("holdfast release web1 --yes\n", r.err)
        self.assertEqual(agent.calls[0]["parameters"], {"guest": "web1", "dry_run": True})
        r = self.run_cli("release", "web1", "--yes")
        self.assertEqual((r.code, r.out), (0, "web1 is given up: 512 MiB are free again.\n"))
        self.assertEqual(agent.calls[1]["parameters"], {"guest": "web1"})
        self.assertEqual(json.loads(self.run_cli("release", "web1", "--yes", "-o", "json").out),
                         {"ram_bytes": 512 << 20})
        agent.stop()
        self.serve(Release=lambda call: call.error("WrongState", message="it is not held", guest="web1"))
        self.assertEqual(self.run_cli("release", "web1").code, 1)


class Updates(CliTest):
    def test_prepare(self):
        def prepare(call):
            call.progress("preparing", "loading the kernel")
            call.progress("preparing", "RAM preserved", "web1", 1234.5)
            call.reply({"update_id": "u-1"})

        self.serve(Prepare=prepare)
        r = self.run_cli("prepare", "--kernel", "/k")
        self.assertEqual(r.code, 0)
        self.assertTrue(self.agent.calls[0]["more"])
        self.assertIn("Prepared: update u-1.", r.out)
        self.assertEqual(r.err, "[    0.005 s] loading the kernel\n[    1.234 s] web1: RAM preserved\n")
        r = self.run_cli("prepare", "--kernel", "/k", "-o", "json")
        self.assertEqual(json.loads(r.out), {"update_id": "u-1"})
        self.assertIn("RAM preserved", r.err)

    def test_rolled_back(self):
        def commit(call):
            call.progress("frozen", "pausing", "web1")
            call.progress("aborting", "resuming", "web1")
            call.error("RolledBack", message="saving failed", guest="web1", remedy="Look at its log.")

        self.serve(Commit=commit)
        r = self.run_cli("commit")
        self.assertEqual((r.code, r.out), (5, ""))
        self.assertTrue(r.err.endswith("holdfast: web1: saving failed\n  Look at its log.\n"), r.err)

    def test_orderly_without_systemd(self):
        """What was prepared for a shutdown that can't be had is undone."""
        self.env["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={self.dir}/nothing"
        self.serve(Prepare=replies({"update_id": "u-1"}), Guests=replies({"guests": [GUEST]}), Abort=replies({}),
                   Status=replies(dict(STATUS, state="prepared", update_id="u-1")))
        for verb in ("prepare", "upgrade"):
            r = self.run_cli(verb, "--kernel", "/k", "--orderly")
            self.assertEqual((r.code, r.out), (1, ""), r.err)
            self.assertIn("holdfast: can't reach systemd: ", r.err)
            self.assertIn("What was prepared is undone.", r.err)
            self.assertTrue(self.agent.calls[-1]["method"].endswith(".Abort"))
        # Only what is in a request of its own keeps a kernel loaded.
        prepares = [c["parameters"] for c in self.agent.calls if c["method"].endswith(".Prepare")]
        self.assertEqual(prepares, [{"target": {"kernel": "/k"}, "orderly": True}, {"target": {"kernel": "/k"}}])
        # Nothing is undone that somebody else prepared.
        n = len(self.agent.calls)
        r = self.run_cli("commit", "--orderly")
        self.assertEqual((r.code, r.out), (1, ""))
        self.assertNotIn("Abort", str(self.agent.calls[n:]))

    def test_orderly_commit_of_nothing(self):
        self.serve(Status=replies(STATUS))
        r = self.run_cli("commit", "--orderly")
        self.assertEqual(r.code, 1)
        self.assertIn("the host is in state `normal`\n  prepare an update first", r.err)

    def shutdown(self, state, noted, guests=(GUEST,), **handlers):
        """The end of a shutdown, in a state of the host; noted: an update was prepared and nobody undid it."""
        self.env["HOLDFAST_RUN_DIR"] = self.dir
        if noted:
            open(os.path.join(self.dir, "prepared"), "w").close()
        self.serve(Status=replies(dict(STATUS, state=state, guests=list(guests))), **handlers)
        return self.run_cli("shutdown", "kexec")

    def test_shutdown_without_update(self):
        r = self.shutdown("normal", False)
        self.assertEqual((r.code, r.out, r.err), (0, "", ""))

    def test_shutdown_commits(self):
        def commit(call):
            call.error("RolledBack", message="saving failed")

        r = self.shutdown("prepared", True, Commit=commit)
        self.assertEqual(r.code, 5)
        self.assertIn("holdfast: saving failed\n", r.err)
        self.assertIn("no kexec: the prepared update failed", r.err)

    def test_shutdown_that_lost_the_update(self):
        r = self.shutdown("normal", True)
        self.assertEqual(r.code, 1)
        self.assertIn("no kexec: the update that was prepared had to be undone", r.err)
        # And so it stays, for whoever tries again.
        self.assertEqual(self.run_cli("shutdown", "kexec").code, 1)
        self.assertIn(f"remove {self.dir}/prepared", r.err)

    def test_shutdown_that_lost_update_and_guests(self):
        r = self.shutdown("normal", True, guests=[dict(GUEST, status="gone")])
        self.assertEqual((r.code, r.err), (0, ""))

    def test_shutdown_in_the_middle(self):
        for state in ("preparing", "aborting", "resuming"):
            r = self.shutdown(state, False)
            self.assertEqual(r.code, 1)
            self.assertIn("no kexec: an update is under way", r.err)
            self.agent.stop()

    def test_shutdown_with_held_guests(self):
        r = self.shutdown("degraded", False)
        self.assertEqual(r.code, 1)
        self.assertIn("no kexec: the memory of guests that need you would be lost", r.err)

    def test_shutdown_that_lost_the_agent(self):
        self.env["HOLDFAST_RUN_DIR"] = self.dir
        # Nobody has prepared anything, as far as anybody knows.
        self.assertEqual(self.run_cli("shutdown", "kexec").code, 0)
        open(os.path.join(self.dir, "prepared"), "w").close()
        r = self.run_cli("shutdown", "kexec")
        self.assertEqual(r.code, 1)
        self.assertIn("holdfastd has ended since", r.err)

    def test_dry_run(self):
        self.serve(Upgrade=replies({}))
        r = self.run_cli("upgrade", "--kernel", "/k", "--dry-run")
        self.assertEqual((r.code, r.out), (0, "Nothing stands in the way, and nothing was changed.\n"))
        self.assertEqual(self.agent.calls[0]["parameters"], {"target": {"kernel": "/k"}, "dry_run": True})

    def test_agent_dies_before_the_jump(self):
        def upgrade(call):
            call.progress("preparing", "loading the kernel")
            raise Close

        self.serve(Upgrade=upgrade)
        r = self.run_cli("upgrade", "--kernel", "/k")
        self.assertEqual(r.code, 1)
        self.assertIn("ended the connection before the jump\n  See what it says now: holdfast status", r.err)

    def follow(self, outcome, *args, report_late=0, state="normal"):
        """An agent that goes away at the freeze, is absent for a while, then resumes guests."""
        left = {"resuming": 3, "late": report_late}

        def jump(call):
            call.progress("frozen", "jumping")
            first = self.agent
            first.stop()

            def return_later():
                time.sleep(0.5)
                first.start()

            threading.Thread(target=return_later, daemon=True).start()
            raise Close

        def status(call):
            left["resuming"] -= 1
            if left["resuming"] == 1:
                raise Close  # even then it may stumble once
            call.reply(dict(STATUS, state="resuming" if left["resuming"] > 0 else state))

        def report(call):
            self.assertEqual(call.params, {"id": "u-1"})
            left["late"] -= 1
            if left["late"] >= 0:
                call.error("Failed", message="no such report")
            else:
                call.reply({"report": dict(REPORT, outcome=outcome)})

        self.serve(Upgrade=jump, Commit=jump, Status=status, Report=report)
        r = self.run_cli(*args)
        self.agent.stop()
        self.agent = None
        return r

    def test_over_the_jump(self):
        r = self.follow("done", "commit")
        self.assertEqual(r.code, 0, r.err)
        self.assertIn("outcome      done\n", r.out)
        self.assertIn("waiting for that", r.err)
        r = self.follow("done", "upgrade", "--kernel", "/k", "-o", "json", report_late=3)
        self.assertEqual((r.code, json.loads(r.out)), (0, {"report": REPORT}))

    def test_over_the_jump_with_losses(self):
        r = self.follow("degraded", "commit", state="degraded")
        self.assertEqual(r.code, 6)
        self.assertIn("outcome      degraded\n", r.out)

    def test_jump_that_was_none(self):
        """The agent crashed after the freeze and came back on the old kernel."""
        r = self.follow("rolled-back", "commit")
        self.assertEqual(r.code, 5)

    def test_interrupted(self):
        """^C ends the connection, which is how the agent learns to undo."""
        started = threading.Event()

        def prepare(call):
            call.progress("preparing", "loading the kernel")
            started.set()

        self.serve(Prepare=prepare)
        # A job in the background of a script is born with SIGINT ignored.
        p = subprocess.Popen([PROGRAM, "prepare", "--kernel", "/k"], env=self.env,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.assertTrue(started.wait(TIMEOUT))
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(TIMEOUT), -signal.SIGINT)
        end = time.monotonic() + TIMEOUT
        while self.agent.gone == 0 and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(self.agent.gone, 1)


def main():
    global PROGRAM
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    if len(sys.argv) == 2:
        PROGRAM = os.path.abspath(sys.argv[1])
    if not os.access(PROGRAM, os.X_OK):
        sys.exit("%s: no such program; build it first" % PROGRAM)
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=1).run(suite)
    failed = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    print("%d passed, %d failed, %d skipped" % (result.testsRun - failed - skipped, failed, skipped))
    sys.exit(0 if failed == 0 and result.testsRun > skipped else 1)


if __name__ == "__main__":
    main()
