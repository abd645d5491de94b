#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The outside half of the witness: a TCP client of the guest, and a reader of its console log.

As a program it talks to one witness until SIGINT or --seconds, then prints its findings as JSON
and exits 0 when nothing was lost, repeated, changed or reset:

    witness_client.py --port 7001 --seconds 60
    witness_client.py log guest.log          # judges a console log the same way

As a library:

    client = WitnessClient("127.0.0.1", 7001)
    client.start()
    client.wait_connected(120)
    ... the update ...
    result = client.stop()                   # dict, see WitnessClient.result()

Connecting is tried again until the guest says HELLO, because a port forwarder accepts long before
the guest does. From HELLO on there is one connection and no second try: any end of it is an error.
"""

import argparse
import hashlib
import json
import os
import re
import selectors
import signal
import socket
import sys
import threading
import time

NS = 1_000_000_000


class WitnessClient:
    """Numbered messages to one witness, in a thread of their own.

    interval: seconds between messages; beat: seconds between lines that the guest sends unasked
    (0: none), silence: seconds without any line after which the guest counts as lost.
    """

    def __init__(self, host, port, interval=0.02, silence=300.0, name=None, beat=0.1):
        self.address = (host, port)
        self.interval_ns = int(interval * NS)
        self.silence_ns = int(silence * NS)
        self.beat_ms = round(beat * 1000)
        self.name = name or f"{host}:{port}"
        self.token = f"{os.getpid():x}-{id(self):x}"
        self.lock = threading.Lock()
        self.connected = threading.Event()
        self.stopping = threading.Event()
        self.thread = None
        self.sock = None
        self.inbuf = b""
        self.outbuf = b""
        self.errors = []
        self.guest_name = None
        self.guest_boot = None
        self.guest_fails = 0
        self.sent = 0
        self.echoed = 0
        self.attempts = 0
        self.sent_at = {}
        self.last_total = 0
        self.last_mono_ns = 0
        self.last_reply_ns = 0
        self.last_echo_ns = 0
        self.beats = 0
        self.bye = False
        self.said_bye = False
        self._forget_gaps()

    # --- for the caller ---------------------------------------------------------------------

    def start(self):
        self.thread = threading.Thread(target=self._run, name=f"witness-{self.name}", daemon=True)
        self.thread.start()
        return self

    def wait_connected(self, timeout):
        """True once the guest said HELLO; False when time ran out or the client failed before."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.connected.wait(0.1):
                return True
            if self.errors or not self.thread.is_alive():
                return False
        return False

    def reset_gaps(self):
        """Forgets gaps seen so far, so that what follows is measured alone."""
        with self.lock:
            self._forget_gaps()

    def failed(self):
        with self.lock:
            return bool(self.errors)

    def wait_quiet(self, timeout):
        """Waits until every message sent so far was answered: the guest is talking again."""
        with self.lock:
            target = self.sent
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            with self.lock:
                if self.errors:
                    return False
                if self.echoed >= target:
                    return True
            time.sleep(0.01)
        return False

    def stop(self, timeout=30.0):
        """Says BYE, waits for every outstanding echo, returns result()."""
        self.stopping.set()
        if self.thread:
            self.thread.join(timeout)
            if self.thread.is_alive():
                self._error(f"no BYE within {timeout:g} s: {self.sent - self.echoed} unanswered")
        return self.result()

    def result(self):
        with self.lock:
            now = time.monotonic_ns()
            # A guest that is silent right now has a gap that isn't over yet.
            open_gap = now - self.last_reply_ns if self.last_reply_ns and not self.bye else 0
            return {
                "ok": not self.errors and self.connected.is_set() and not self.guest_fails,
                "name": self.guest_name or self.name,
                "boot": self.guest_boot,
                "errors": list(self.errors),
                "guest_fails": self.guest_fails,
                "attempts": self.attempts,
                "sent": self.sent,
                "echoed": self.echoed,
                "beats": self.beats,
                "gap_max_ns": max(self.gap_max_ns, open_gap),
                "gap_max_at_ns": self.gap_max_at_ns,
                "echo_gap_max_ns": max(self.echo_gap_max_ns, open_gap),
                "gaps": sorted(self.gaps, reverse=True)[:5],
                "rtt_max_ns": self.rtt_max_ns,
                "rtt_mean_ns": self.rtt_sum_ns // self.rtt_count if self.rtt_count else 0,
            }

    # --- the thread -------------------------------------------------------------------------

    def _forget_gaps(self):
        self.gap_max_ns = 0  # longest time without any line of the guest
        self.echo_gap_max_ns = 0  # longest time without an echo: retransmission included
        self.gap_max_at_ns = 0  # CLOCK_MONOTONIC of this machine at the start of that gap
        self.gaps = []  # (ns, start) of gaps beyond ten intervals
        self.rtt_max_ns = 0
        self.rtt_sum_ns = 0
        self.rtt_count = 0

    def _error(self, text):
        with self.lock:
            if len(self.errors) < 20:
                self.errors.append(text)

    def _run(self):
        try:
            if self._connect():
                self._talk()
        except OSError as e:
            self._error(f"connection lost after message {self.echoed}: {e.strerror or e}")
        except ValueError as e:
            self._error(f"malformed reply after message {self.echoed}: {e}")
        finally:
            if self.sock:
                self.sock.close()

    def _connect(self):
        while not self.stopping.is_set():
            self.attempts += 1
            try:
                self.sock = socket.create_connection(self.address, timeout=5)
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sock.sendall(f"HELLO 1 {self.token} {self.beat_ms}\n".encode())
                if self._hello():
                    self.sock.setblocking(False)
                    self.last_reply_ns = self.last_echo_ns = time.monotonic_ns()
                    self.connected.set()
                    return True
            except OSError:
                pass
            if self.sock:
                self.sock.close()
                self.sock = None
            self.stopping.wait(0.5)
        self._error("never connected")
        return False

    def _hello(self):
        while b"\n" not in self.inbuf:
            data = self.sock.recv(4096)
            if not data:
                self.inbuf = b""
                return False
            self.inbuf += data
        line, self.inbuf = self.inbuf.split(b"\n", 1)
        words = line.decode("ascii", "replace").split()
        if len(words) != 5 or words[:2] != ["HELLO", "1"]:
            raise OSError(f"not a witness: {line[:60]!r}")
        self.guest_name, self.guest_boot = words[2], words[3]
        return True

    def _talk(self):
        sel = selectors.DefaultSelector()
        sel.register(self.sock, selectors.EVENT_READ)
        due = time.monotonic_ns()
        while not self.bye:
            now = time.monotonic_ns()
            if not self.said_bye and self.stopping.is_set():
                self.outbuf += f"BYE {self.sent}\n".encode()
                self.said_bye = True
            while not self.said_bye and now >= due:
                self._send_message(now)
                # Messages missed while this machine was busy are not made up for.
                due = max(due + self.interval_ns, now - self.interval_ns)
            self._flush()
            wait = self.interval_ns if self.said_bye else max(due - time.monotonic_ns(), 0)
            if sel.select(wait / NS):
                self._receive()
            elif now - self.last_reply_ns > self.silence_ns:
                raise OSError(f"silent for {self.silence_ns / NS:g} s")

    def _payload(self, seq):
        return hashlib.blake2b(f"{self.token}:{seq}".encode(), digest_size=12).hexdigest()

    def _send_message(self, now):
        with self.lock:
            self.sent += 1
            self.sent_at[self.sent] = now
        self.outbuf += f"MSG {self.sent} {self._payload(self.sent)}\n".encode()

    def _flush(self):
        if self.outbuf:
            try:
                self.outbuf = self.outbuf[self.sock.send(self.outbuf):]
            except BlockingIOError:
                pass

    def _receive(self):
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        if not data:
            raise OSError("closed by the guest")
        now = time.monotonic_ns()
        with self.lock:
            gap = now - self.last_reply_ns
            if gap > self.gap_max_ns:
                self.gap_max_ns, self.gap_max_at_ns = gap, self.last_reply_ns
            if gap > 10 * self.interval_ns:
                self.gaps = sorted(self.gaps + [(gap, self.last_reply_ns)], reverse=True)[:5]
            self.last_reply_ns = now
        self.inbuf += data
        *lines, self.inbuf = self.inbuf.split(b"\n")
        for line in lines:
            self._line(line.decode("ascii", "replace"), now)
        if len(self.inbuf) > 4096:
            raise ValueError("endless line")

    def _line(self, line, now):
        words = line.split()
        if words[:1] == ["BYE"] and len(words) == 2:
            if not self.said_bye or int(words[1]) != self.sent or self.echoed != self.sent:
                raise ValueError(f"BYE {words[1]} with {self.echoed} of {self.sent} echoed")
            self.bye = True
            return
        if words[:1] == ["BEAT"] and len(words) == 4:
            self._beat(*(int(w) for w in words[1:]))
            return
        if words[:1] != ["ECHO"] or len(words) != 6:
            raise ValueError(repr(line[:80]))
        seq, total, mono_ns, fails = (int(w) for w in words[1:5])
        if seq != self.echoed + 1:
            raise ValueError(f"echo {seq}, expected {self.echoed + 1}")
        if words[5] != self._payload(seq):
            raise ValueError(f"echo {seq} with a wrong payload")
        if total <= self.last_total:
            raise ValueError(f"guest's counter went from {self.last_total} to {total}")
        self._guest_says(mono_ns, fails)
        with self.lock:
            self.echoed, self.last_total = seq, total
            self.echo_gap_max_ns = max(self.echo_gap_max_ns, now - self.last_echo_ns)
            self.last_echo_ns = now
            rtt = now - self.sent_at.pop(seq)
            self.rtt_max_ns = max(self.rtt_max_ns, rtt)
            self.rtt_sum_ns += rtt
            self.rtt_count += 1

    def _beat(self, number, mono_ns, fails):
        if number != self.beats + 1:
            raise ValueError(f"beat {number}, expected {self.beats + 1}")
        self._guest_says(mono_ns, fails)
        with self.lock:
            self.beats = number

    def _guest_says(self, mono_ns, fails):
        if mono_ns < self.last_mono_ns:
            raise ValueError(f"guest's clock went from {self.last_mono_ns} to {mono_ns} ns")
        with self.lock:
            self.last_mono_ns, self.guest_fails = mono_ns, fails


# --- the console log ------------------------------------------------------------------------

LINE = re.compile(rb"WITNESS-([A-Z]+) v=1 [^\r\n]*")


def line_sum(data):
    """FNV-1a of 32 bits, as at the end of every line of the witness."""
    h = 0x811C9DC5
    for byte in data:
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    return h


def parse_line(data):
    """One line of a console as a dict, or None if it isn't a whole line of a witness.

    Numbers are int or float; "tag" is BOOT, READY, STATUS, FAIL or DEBUG.
    """
    match = LINE.search(data)
    if not match:
        return None
    tag = match[1].decode()
    text, found, checksum = match[0].rpartition(b" sum=")
    # A crash can't compute sums; it must be heard nevertheless.
    if b" cause=crash" not in match[0]:
        if not found or not re.fullmatch(rb"[0-9a-f]{8}", checksum):
            return None
        if int(checksum, 16) != line_sum(text):
            return None
    else:
        text = match[0]
    rec = {"tag": tag}
    for word in text.decode("ascii", "replace").split()[1:]:
        key, eq, value = word.partition("=")
        if eq:
            rec[key] = parse_value(key, value)
    return rec


def parse_value(key, value):
    # These may look like numbers by chance.
    if key not in ("boot", "name"):
        if re.fullmatch(r"-?\d+", value):
            return int(value)
        if re.fullmatch(r"\d+\.\d+", value):
            return float(value)
    return value


def read_log(path):
    """Every whole witness line of a console log, oldest first."""
    with open(path, "rb") as f:
        return [r for r in map(parse_line, f.read().split(b"\n")) if r]


def judge_log(records):
    """What is wrong in a log, as a list of sentences; empty if nothing is."""
    wrong = []
    boots = [r for r in records if r["tag"] == "BOOT"]
    status = [r for r in records if r["tag"] == "STATUS"]
    if not any(r["tag"] == "READY" for r in records):
        wrong.append("never ready")
    if len(boots) > 1:
        wrong.append(f"booted {len(boots)} times")
    if len({r["boot"] for r in records if r["tag"] != "FAIL"}) > 1:
        wrong.append("boot id changed")
    for r in records:
        if r["tag"] == "FAIL":
            wrong.append("FAIL " + " ".join(f"{k}={v}" for k, v in r.items()
                                            if k not in ("tag", "v", "n", "boot", "name")))
    last = 0
    for r in records:
        if r.get("n", last + 1) <= last:
            wrong.append(f"line {r['n']} after line {last}: the guest went back in time")
        last = r.get("n", last)
    for before, after in zip(status, status[1:]):
        for key in ("passes", "words", "disk_seq", "net_msgs"):
            if after[key] < before[key]:
                wrong.append(f"{key} went from {before[key]} to {after[key]}")
    if status and (status[-1]["fails"] or status[-1]["state"] == "failed"):
        wrong.append(f"{status[-1]['fails']} failures in the last line")
    return wrong


def main_log(args):
    records = read_log(args.file)
    wrong = judge_log(records)
    last = next((r for r in reversed(records) if r["tag"] == "STATUS"), None)
    print(json.dumps({"ok": not wrong, "wrong": wrong, "lines": len(records), "last": last}))
    return 1 if wrong else 0


def main_connect(args):
    client = WitnessClient(args.host, args.port, args.interval, args.silence).start()
    stop = threading.Event()
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, lambda *_: stop.set())
    if client.wait_connected(args.connect_timeout):
        print(f"connected to {client.guest_name}", file=sys.stderr)
        end = time.monotonic() + args.seconds if args.seconds else float("inf")
        while time.monotonic() < end and not stop.is_set() and not client.failed():
            stop.wait(0.1)
    result = client.stop()
    print(json.dumps(result))
    return 0 if result["ok"] else 1


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    if sys.argv[1:2] == ["log"]:
        ap.add_argument("log")
        ap.add_argument("file")
        return main_log(ap.parse_args())
    ap.add_argument("--host", default="127.0.0.1")
    ap.add_argument("--port", type=int, required=True)
    ap.add_argument("--interval", type=float, default=0.02, help="seconds between messages")
    ap.add_argument("--seconds", type=float, help="how long; without: until SIGINT or SIGTERM")
    ap.add_argument("--silence", type=float, default=300, help="seconds until a guest is lost")
    ap.add_argument("--connect-timeout", type=float, default=120)
    return main_connect(ap.parse_args())


if __name__ == "__main__":
    sys.exit(main())
