# SPDX-License-Identifier: Apache-2.0
"""What an operator does on the nested host, and what must have come of it."""

import json

from nested import TEST_DIR, fail


def wait_agent(host, timeout=60):
    host.poll(lambda: host.run("holdfast status", check=False).rc == 0, timeout, "the agent")


def holdfast(host, words, code=0, says="", timeout=120):
    """Run the command line: it must end with this code, and say this. Returns its output."""
    result = host.run(f"holdfast {words} 2>&1", timeout, check=False)
    if result.rc != code or says not in result.out:
        fail(f"holdfast {words} ended with {result.rc}, not {code}, or does not say `{says}`:\n{result.out}")
    return result.out


def status(host):
    return json.loads(host.run("holdfast status -o json").out)


def state(host):
    return status(host)["state"]


def last_report(host):
    return json.loads(host.run("holdfast report -o json").out)["report"]


def expect_running(guests):
    """They run, and their witnesses go on and find nothing wrong."""
    for guest in guests:
        if guest.state() != "running":
            fail(f"guest {guest.name} is {guest.state()}")
        guest.wait_status(2)
        guest.judge()


def end_connection(client):
    """A client outside hangs up: nothing of its connection was lost. Returns what it found."""
    result = client.stop()
    if not result["ok"]:
        fail(f"the connection from outside: {result}")
    return result


def expect_untouched(host, guests, loaded="0"):
    """Guests run as before, no image is loaded, no update is under way."""
    if state(host) != "normal":
        fail(f"the host is {state(host)}")
    expect_running(guests)
    if host.run("cat /sys/kernel/kexec_loaded").out.strip() != loaded:
        fail("a kernel image is loaded that should not be, or the other way round")


def wait_jump(host, boots, release):
    """The host comes up anew, with the kernel that it should have, and its agent answers."""
    boot = host.wait_boot(boots, 180)
    if boot.release != release:
        fail(f"the host runs Linux {boot.release}, not {release}")
    wait_agent(host)


def wait_end(host):
    """The agent that answers brings the guests in; returns the report when it is done."""
    host.poll(lambda: state(host) in ("normal", "degraded"), 120, "the end of the update")
    now = status(host)
    if now["state"] != "normal":
        fail(f"the host is {now['state']}: {now['message']}")
    return last_report(host)


def wait_update(host, boots, release):
    """The host comes up anew and its guests with it; returns the report when the agent is done."""
    wait_jump(host, boots, release)
    return wait_end(host)


def leave(host, words, release, boots):
    """Have `holdfast` with these words leave the kernel, as far as to an agent that answers."""
    job = host.spawn(f"holdfast {words}")
    host.wait_for(lambda: len(host.boots) >= boots or job.status is not None, 180, "the jump")
    if job.status not in (None, "rebooted"):
        fail(f"{job.command} ended with {job.status}:\n{job.out}")
    wait_jump(host, boots, release)


def jump(host, image, release, boots, words=""):
    """Live-update the host into an image, as far as to an agent that answers."""
    leave(host, f"upgrade --kernel {TEST_DIR}/{image} {words}", release, boots)


def upgrade(host, image, release, boots, words=""):
    """Live-update the host into an image; returns the report when the agent is done with it."""
    jump(host, image, release, boots, words)
    return wait_end(host)


def expect_all(report, guests):
    """The update is done, and all of them came over by it."""
    if report["outcome"] != "done" or len(report["guests"]) != len(guests):
        fail(f"the report says {report['outcome']} for {len(report['guests'])} guests")


def expect_from_images(host, guests, client, report, others=()):
    """Guests that ran are back from disk, with all their memory, and nothing of it stays there; @others came along."""
    if report["carrier"] != "image":
        fail(f"they crossed with the carrier {report['carrier']}")
    expect_all(report, [*guests, *others])
    print(host.run("holdfast report").out)
    for guest in guests:
        if guest.state() != "running":
            fail(f"guest {guest.name} is {guest.state()}")
        guest.wait_passes(2)
        last = guest.judge()
        host.note(f"{guest.name}: {last['passes']} passes over {int(last['mem_bytes']) >> 20} MiB, no word wrong")
    if client.failed():
        fail("the connection from outside has ended")
    left = host.run("find /var/lib/holdfast/images -type f").out
    if left:
        fail(f"memory of guests is left on the disk: {left}")
