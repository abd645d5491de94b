#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Proves that the witness can fail.

Runs the witness as an ordinary process, harms its memory, its disk file and its network from
outside, one way at a time, and demands that each harm is reported for what it is; and that a
witness left alone reports nothing. Needs no root: a process may write the memory of its child.

    selftest.py WITNESS [TEST...]
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import witness_client as wc  # noqa: E402

PAGE = 4096
BLOCK = 65536
RECORD = 4096
WITNESS = None
PATIENCE = 30


class Harm(unittest.TestCase):
    """Starts one witness for each test; harm happens while it is stopped."""

    options = ()

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory(prefix="witness-selftest.")
        self.disk = os.path.join(self.dir.name, "disk")
        self.log = os.path.join(self.dir.name, "log")
        self.start()

    def tearDown(self):
        self.end()
        self.dir.cleanup()

    def start(self, *more):
        self.out = open(self.log, "ab")
        self.proc = subprocess.Popen(
            [WITNESS, "--host-test", "hf.name=self", "hf.seed=77", "hf.mem_mib=8", "hf.threads=1",
             "hf.duty=10", "hf.report_ms=50", f"hf.disk={self.disk}", "hf.disk_ms=2",
             "hf.disk_slots=64", "hf.port=0", *self.options, *more],
            stdout=self.out, stdin=subprocess.DEVNULL)

    def end(self):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGCONT)
            self.proc.terminate()
        self.proc.wait()
        self.out.close()

    def records(self, tag):
        return [r for r in wc.read_log(self.log) if r["tag"] == tag]

    def wait_for(self, what, condition):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            self.assertIsNone(self.proc.poll(), "the witness ended")
            time.sleep(0.02)
        with open(self.log, errors="replace") as f:
            self.fail(f"no {what} within {PATIENCE} s; log:\n{f.read()[-3000:]}")

    def ready(self):
        self.wait_for("READY", lambda: self.records("READY"))
        self.debug = self.records("DEBUG")[0]
        self.base = int(self.debug["mem"], 16)

    def status(self):
        return (self.records("STATUS") or [{}])[-1]

    def wait_passes(self, more):
        target = self.status().get("passes", 0) + more
        self.wait_for(f"{more} passes", lambda: self.status().get("passes", 0) >= target)

    def wait_disk(self, more):
        target = self.status().get("disk_seq", 0) + more
        self.wait_for(f"{more} records", lambda: self.status().get("disk_seq", 0) >= target)

    def failure(self, kind, cause):
        def find():
            return [r for r in self.records("FAIL") if r["kind"] == kind and r["cause"] == cause]
        rec = self.wait_for(f"FAIL kind={kind} cause={cause}", find)[0]
        # Sticky: still failed in a line that was written well after.
        n = rec["n"]
        late = self.wait_for("later status",
                             lambda: [s for s in self.records("STATUS") if s["n"] > n + 3])
        self.assertTrue(all(s["state"] == "failed" and s["fails"] > 0 for s in late))
        self.assertTrue(wc.judge_log(wc.read_log(self.log)))
        return rec

    # Stopped, the witness can't tell a slow hand from a quick one.
    def stop(self):
        self.proc.send_signal(signal.SIGSTOP)
        path = f"/proc/{self.proc.pid}/task"
        def stopped():
            for t in os.listdir(path):
                with open(f"{path}/{t}/stat") as f:
                    if f.read().rpartition(")")[2].split()[0] != "T":
                        return False
            return True
        self.wait_for("stop", stopped)

    def cont(self):
        self.proc.send_signal(signal.SIGCONT)

    def peek(self, address, size):
        with open(f"/proc/{self.proc.pid}/mem", "rb", 0) as f:
            f.seek(address)
            return f.read(size)

    def poke(self, address, data):
        with open(f"/proc/{self.proc.pid}/mem", "r+b", 0) as f:
            f.seek(address)
            f.write(data)

    def cursor(self):
        return int.from_bytes(self.peek(int(self.debug["cursor"], 16), 8), "little")

    def page_away_from_cursor(self, blocks_ahead):
        """Offset of a page so far from the chunk in work that nothing is about to rewrite it."""
        return (self.cursor() // BLOCK * BLOCK + blocks_ahead * BLOCK + 3 * PAGE) % self.debug["bytes"]

    def stop_away_from(self, off):
        """Stop it where the block that this is in comes neither now nor next: its entry is looked at before the
        cursor gets there."""
        self.stop()
        while (off // BLOCK - self.cursor() // BLOCK) % (self.debug["bytes"] // BLOCK) <= 1:
            self.cont()
            time.sleep(0.01)
            self.stop()


class Healthy(Harm):
    def test_nothing_wrong(self):
        self.ready()
        client = wc.WitnessClient("127.0.0.1", self.debug["port"], 0.005).start()
        self.assertTrue(client.wait_connected(10))
        self.wait_passes(3)
        self.wait_disk(200)  # three times round the ring
        result = client.stop()
        self.assertTrue(result["ok"], result)
        self.assertGreater(result["echoed"], 20)
        self.assertGreater(result["beats"], 2)
        self.assertEqual(result["sent"], result["echoed"])
        last = self.status()
        self.assertEqual((last["state"], last["fails"], last["bad"], last["disk_bad"],
                          last["net_bad"]), ("ok", 0, 0, 0, 0))
        self.assertEqual(wc.judge_log(wc.read_log(self.log)), [])
        self.assertEqual(last["mem_bytes"], 8 << 20)

    def test_stop_is_a_gap(self):
        self.ready()
        client = wc.WitnessClient("127.0.0.1", self.debug["port"], 0.01).start()
        self.assertTrue(client.wait_connected(10))
        time.sleep(0.3)
        self.stop()
        time.sleep(1.5)
        self.cont()
        self.wait_passes(2)
        self.assertTrue(client.wait_quiet(10))
        result = client.stop()
        self.assertTrue(result["ok"], result)
        self.assertGreater(result["gap_max_ns"], 1.45e9)
        self.assertLess(result["gap_max_ns"], 10e9)
        # A stopped process, unlike a stopped guest, sees the time go by.
        self.assertGreater(self.status()["gap_max_ns"], 1.45e9)
        self.assertEqual(self.status()["fails"], 0)

    def test_knocking_is_no_connection(self):
        self.ready()
        for _ in range(3):
            socket.create_connection(("127.0.0.1", self.debug["port"])).close()
        time.sleep(0.3)
        self.assertEqual(self.status()["fails"], 0)

    def test_unknown_option(self):
        self.end()
        self.start("hf.treads=3")
        self.assertEqual(self.proc.wait(PATIENCE), 2)
        self.assertEqual(self.records("FAIL")[-1]["cause"], "options")

    def test_more_memory_than_there_is(self):
        self.end()
        self.start("hf.mem_mib=8000000")
        self.assertEqual(self.proc.wait(PATIENCE), 2)
        self.assertEqual(self.records("FAIL")[-1]["cause"], "too-little")


class Memory(Harm):
    def test_one_bit(self):
        self.ready()
        self.stop()
        off = self.page_away_from_cursor(40) + 8 * 17
        word = int.from_bytes(self.peek(self.base + off, 8), "little") ^ 1 << 43
        self.poke(self.base + off, word.to_bytes(8, "little"))
        self.cont()
        rec = self.failure("mem", "bitflip")
        self.assertEqual(int(rec["off"], 16), off)
        self.assertEqual(self.status()["bad"], 1)

    def test_garbage_word(self):
        self.ready()
        self.stop()
        off = self.page_away_from_cursor(40)
        self.poke(self.base + off, b"garbage!")
        self.cont()
        self.assertEqual(int(self.failure("mem", "unknown")["off"], 16), off)

    def test_zero_page(self):
        self.ready()
        self.stop()
        self.poke(self.base + self.page_away_from_cursor(40), bytes(PAGE))
        self.cont()
        self.failure("mem", "zero")
        self.assertEqual(self.status()["bad"], PAGE // 8)

    def swap(self, a, b):
        one, two = self.peek(self.base + a, PAGE), self.peek(self.base + b, PAGE)
        self.poke(self.base + a, two)
        self.poke(self.base + b, one)

    def test_swapped_pages(self):
        self.ready()
        self.stop()
        a, b = self.page_away_from_cursor(40), self.page_away_from_cursor(50)
        self.swap(a, b)
        self.cont()
        rec = self.failure("mem", "moved")
        self.assertEqual(int(rec["from_off"], 16), b)
        self.wait_passes(2)
        self.assertEqual(self.status()["bad"], 2 * PAGE // 8)

    def test_swapped_pages_of_one_block(self):
        self.ready()
        self.stop()
        a = self.page_away_from_cursor(40)
        self.swap(a, a + PAGE)
        self.cont()
        self.failure("mem", "moved")

    def test_swapped_blocks(self):
        self.ready()
        self.stop()
        a, b = (self.page_away_from_cursor(n) // BLOCK * BLOCK for n in (40, 50))
        for off in range(0, BLOCK, PAGE):
            self.swap(a + off, b + off)
        self.cont()
        self.failure("mem", "moved")

    def test_shifted_page(self):
        self.ready()
        self.stop()
        off = self.page_away_from_cursor(40)
        self.poke(self.base + off, self.peek(self.base + off + 8, PAGE))
        self.cont()
        self.failure("mem", "moved")

    def rolled_back(self, passes):
        self.ready()
        self.stop()
        off = self.page_away_from_cursor(40)
        old = self.peek(self.base + off, PAGE)
        self.cont()
        self.wait_passes(passes)
        # What it reported of its passes may have been behind.
        self.wait_for("rewriting", lambda: self.peek(self.base + off, PAGE) != old)
        self.stop_away_from(off)
        self.poke(self.base + off, old)
        self.cont()
        rec = self.failure("mem", "stale")
        self.assertEqual(int(rec["off"], 16), off)
        self.assertLess(rec["from_gen"], rec["gen"])

    def test_page_of_the_past(self):
        self.rolled_back(2)

    def test_page_and_table_of_the_past(self):
        """A block that goes back in time together with its entry in the generation table."""
        self.ready()
        self.stop()
        off = self.page_away_from_cursor(40) // BLOCK * BLOCK
        entry = int(self.debug["table"], 16) + off // BLOCK * 8
        old, old_entry = self.peek(self.base + off, BLOCK), self.peek(entry, 8)
        self.cont()
        self.wait_for("rewriting", lambda: self.peek(entry, 8) != old_entry)
        self.stop_away_from(off)
        self.poke(self.base + off, old)
        self.poke(entry, old_entry)
        self.cont()
        self.failure("mem", "generation")
        self.failure("mem", "stale")


class Disk(Harm):
    def slot_read(self, slot):
        with open(self.disk, "rb") as f:
            f.seek(slot * RECORD)
            return f.read(RECORD)

    def slot_write(self, slot, data):
        with open(self.disk, "r+b") as f:
            f.seek(slot * RECORD)
            f.write(data)

    def full_ring(self):
        self.ready()
        self.wait_disk(80)

    def seq(self, slot):
        return int.from_bytes(self.slot_read(slot)[24:32], "little")

    def left(self, slot):
        """How many records are written before this one is overwritten."""
        return (slot - max(self.seq(n) for n in range(64))) % 64

    def safe_slot(self):
        """A slot that was written some time ago and has some time left."""
        return next(slot for slot in range(64) if self.left(slot) == 32)

    def test_lost_record(self):
        """The acknowledged write never reached the disk: the slot holds its former record."""
        self.full_ring()
        while True:
            self.stop()
            slot = self.safe_slot()
            old, seq = self.slot_read(slot), self.seq(slot)
            self.cont()
            self.wait_for("overwriting", lambda: self.seq(slot) != seq)
            self.stop()
            # It takes four writes until all was read back.
            if self.seq(slot) == seq + 64 and self.left(slot) > 16:
                break
            self.cont()
        self.slot_write(slot, old)
        self.cont()
        rec = self.failure("disk", "lost")
        self.assertEqual(rec["slot"], slot)
        self.assertEqual(rec["want"] - rec["got"], 64)

    def test_never_written(self):
        self.full_ring()
        self.stop()
        self.slot_write(self.safe_slot(), bytes(RECORD))
        self.cont()
        self.failure("disk", "empty")

    def test_truncated(self):
        self.full_ring()
        self.stop()
        os.truncate(self.disk, 20 * RECORD)
        self.cont()
        self.failure("disk", "empty")

    def test_repeated_record(self):
        self.full_ring()
        self.stop()
        slot = self.safe_slot()
        self.slot_write(slot, self.slot_read((slot + 1) % 64))
        self.cont()
        self.assertEqual(self.failure("disk", "repeated")["slot"], slot)

    def test_damaged_record(self):
        self.full_ring()
        self.stop()
        slot = self.safe_slot()
        data = bytearray(self.slot_read(slot))
        data[2000] ^= 4
        self.slot_write(slot, data)
        self.cont()
        self.assertEqual(self.failure("disk", "corrupt")["slot"], slot)

    def test_reboot(self):
        """A guest that starts anew on its old disk did not live through anything."""
        self.full_ring()
        self.end()
        os.unlink(self.log)  # line numbers begin anew
        self.start()
        self.failure("self", "rebooted")


class Relay(threading.Thread):
    """Passes lines on between client and witness; harm(line) gives the lines to pass on."""

    def __init__(self, port, to_guest=None, to_client=None):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.target = port
        self.harm = {"guest": to_guest, "client": to_client}
        self.socks = []

    def run(self):
        client, _ = self.listener.accept()
        guest = socket.create_connection(("127.0.0.1", self.target))
        self.socks = [client, guest]
        threading.Thread(target=self.pump, args=(guest, client, "client"), daemon=True).start()
        self.pump(client, guest, "guest")

    def pump(self, source, sink, direction):
        harm = self.harm[direction] or (lambda line: [line])
        try:
            with source.makefile("rb") as f:
                for line in f:
                    for out in harm(line):
                        sink.sendall(out)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def reset(self):
        """Ends both connections the hard way."""
        for s in self.socks:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            try:
                s.shutdown(socket.SHUT_RD)  # wakes the pump, which holds the socket open
            except OSError:
                pass  # the other half has taken this one with it
            s.close()

    def close(self):
        for s in [self.listener, *self.socks]:
            s.close()


class Network(Harm):
    def relay(self, **harm):
        self.ready()
        relay = Relay(self.debug["port"], **harm)
        self.addCleanup(relay.close)
        relay.start()
        client = wc.WitnessClient("127.0.0.1", relay.port, 0.005).start()
        self.assertTrue(client.wait_connected(10))
        return relay, client

    @staticmethod
    def at(seq, word, change):
        """Applies change to the one line that starts with the word and this number."""
        prefix = f"{word} {seq} ".encode()
        return lambda line: change(line) if line.startswith(prefix) else [line]

    def client_fails(self, client, pattern):
        self.wait_for("client error", client.failed)
        result = client.stop()
        self.assertFalse(result["ok"])
        self.assertTrue(any(re.search(pattern, e) for e in result["errors"]), result["errors"])

    def test_relay_is_harmless(self):
        _, client = self.relay()
        time.sleep(0.5)
        result = client.stop()
        self.assertTrue(result["ok"], result)
        self.assertEqual(self.status()["fails"], 0)

    def test_dropped_message(self):
        _, client = self.relay(to_guest=self.at(20, "MSG", lambda line: []))
        rec = self.failure("net", "lost")
        self.assertEqual((rec["want"], rec["got"]), (20, 21))
        self.client_fails(client, "connection lost")

    def test_repeated_message(self):
        _, client = self.relay(to_guest=self.at(20, "MSG", lambda line: [line, line]))
        self.failure("net", "repeated")
        self.client_fails(client, "connection lost")

    def test_damaged_message(self):
        _, client = self.relay(to_guest=self.at(20, "MSG", lambda line: [line[:-3] + b"??\n"]))
        self.client_fails(client, "wrong payload")

    def test_dropped_echo(self):
        _, client = self.relay(to_client=self.at(20, "ECHO", lambda line: []))
        self.client_fails(client, "echo 21, expected 20")

    def test_repeated_echo(self):
        _, client = self.relay(to_client=self.at(20, "ECHO", lambda line: [line, line]))
        self.client_fails(client, "echo 20, expected 21")

    def test_dropped_beat(self):
        _, client = self.relay(to_client=self.at(2, "BEAT", lambda line: []))
        self.client_fails(client, "beat 3, expected 2")

    def test_guest_of_the_past(self):
        """Echoes whose counter goes back: what a guest of which all went back would send."""
        def older(line):
            words = line.split()
            words[2] = b"5"
            return [b" ".join(words) + b"\n"]
        _, client = self.relay(to_client=self.at(20, "ECHO", older))
        self.client_fails(client, "counter went from 19 to 5")

    def test_reset(self):
        relay, client = self.relay()
        time.sleep(0.3)
        relay.reset()
        self.wait_for("net failure", lambda: [r for r in self.records("FAIL")
                                              if r["kind"] == "net"
                                              and r["cause"] in ("reset", "closed")])
        self.client_fails(client, "connection lost")

    def test_closed_without_bye(self):
        self.ready()
        with socket.create_connection(("127.0.0.1", self.debug["port"])) as s:
            s.sendall(b"HELLO 1 x\nMSG 1 x\n")
            self.assertIn(b"HELLO 1 self", s.recv(4096))
        self.failure("net", "closed")

    def test_guest_gone(self):
        _, client = self.relay()
        self.proc.kill()
        end = time.monotonic() + PATIENCE
        while not client.failed() and time.monotonic() < end:
            time.sleep(0.02)
        self.assertFalse(client.stop()["ok"])

    def test_never_there(self):
        with socket.create_server(("127.0.0.1", 0)) as s:
            port = s.getsockname()[1]
        client = wc.WitnessClient("127.0.0.1", port).start()
        self.assertFalse(client.wait_connected(0.5))
        self.assertFalse(client.stop()["ok"])

    def test_silent_guest(self):
        self.ready()
        client = wc.WitnessClient("127.0.0.1", self.debug["port"], 0.02, silence=0.5).start()
        self.assertTrue(client.wait_connected(10))
        self.stop()
        end = time.monotonic() + PATIENCE
        while not client.failed() and time.monotonic() < end:
            time.sleep(0.02)
        self.assertIn("silent", client.stop()["errors"][0])

    def test_failure_reaches_the_client(self):
        """A guest whose memory is wrong says so to the client, even if its console is not read."""
        self.ready()
        client = wc.WitnessClient("127.0.0.1", self.debug["port"]).start()
        self.assertTrue(client.wait_connected(10))
        self.stop()
        self.poke(self.base + self.page_away_from_cursor(40), b"garbage!")
        self.cont()
        self.failure("mem", "unknown")
        time.sleep(0.1)
        result = client.stop()
        self.assertEqual(result["errors"], [])
        self.assertFalse(result["ok"])
        self.assertEqual(result["guest_fails"], 1)


class Log(unittest.TestCase):
    """The reader of logs must not believe a torn line, nor miss a whole one."""

    @staticmethod
    def line(body):
        return f"{body} sum={wc.line_sum(body.encode()):08x}".encode()

    def status(self, n, **more):
        words = {"passes": n, "words": n, "disk_seq": n, "net_msgs": n, "fails": 0, **more}
        return self.line(f"WITNESS-STATUS v=1 n={n} name=a boot=00ff t=1.0 state=ok "
                         + " ".join(f"{k}={v}" for k, v in words.items()))

    def judge(self, *lines):
        return wc.judge_log([r for r in map(wc.parse_line, lines) if r])

    def boot(self, n=1):
        return [self.line(f"WITNESS-BOOT v=1 n={n} name=a boot=00ff t=0.1 seed=1"),
                self.line(f"WITNESS-READY v=1 n={n + 1} name=a boot=00ff t=0.5 fails=0")]

    def test_good(self):
        self.assertEqual(self.judge(*self.boot(), self.status(3), self.status(4)), [])

    def test_after_kernel_message_and_carriage_return(self):
        rec = wc.parse_line(b"[  1.0] something" + self.status(3) + b"\r")
        self.assertEqual((rec["tag"], rec["n"], rec["boot"]), ("STATUS", 3, "00ff"))

    def test_torn(self):
        whole = self.status(3)
        for cut in range(len(whole)):
            self.assertIsNone(wc.parse_line(whole[:cut]))
        self.assertIsNone(wc.parse_line(whole.replace(b"passes=3", b"passes=4")))

    def test_crash_has_no_sum(self):
        rec = wc.parse_line(b"WITNESS-FAIL v=1 kind=self cause=crash")
        self.assertEqual((rec["tag"], rec["cause"]), ("FAIL", "crash"))

    def test_bad(self):
        good = [*self.boot(), self.status(3)]
        fail = self.line("WITNESS-FAIL v=1 n=4 name=a boot=00ff t=1 kind=mem cause=zero")
        for lines in ([self.boot()[0], self.status(3)],
                      [*good, fail],
                      [*good, self.status(4, passes=1)],
                      [*good, self.status(4, fails=2)],
                      [*good, self.status(3)],
                      [*good, self.status(4).replace(b"00ff", b"00fe")[:-8] + b"0" * 8, fail],
                      [*good, *self.boot()]):
            self.assertTrue(self.judge(*lines), lines)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    WITNESS = os.path.abspath(sys.argv.pop(1))
    unittest.main()
