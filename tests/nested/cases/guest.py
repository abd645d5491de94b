# SPDX-License-Identifier: Apache-2.0
"""A witness guest on the nested host's KVM, reached by TCP from outside. Without holdfast."""

from guests import Guest
from nested import Broken, fail

APPEND = "hf.agent=no"


def run(host):
    host.boot()
    guest = Guest(host, "web", cpus=2, memory=256, disk=True, net=True, launcher="")
    guest.start()
    guest.wait_ready()
    host.note("the guest is ready")
    client = guest.client()
    guest.wait_status(3)
    if guest.state() != "running":
        fail(f"the guest is {guest.state()}")
    guest.hmp("stop")
    if guest.state() != "paused":
        fail(f"the stopped guest is {guest.state()}")
    guest.hmp("cont")
    guest.wait_status(3)
    result = client.stop()
    if not result["ok"]:
        # holdfast has no part in this: it is the emulated host.
        raise Broken(f"the connection from outside: {result}")
    host.note(f"{result['echoed']} messages echoed, {guest.judge()}")
