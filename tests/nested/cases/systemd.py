# SPDX-License-Identifier: Apache-2.0
"""A host that systemd boots: the units and their sandbox, and every way in which a host is shut down.

Guests cross by `holdfast upgrade`, and by `systemctl kexec`. While an update is prepared, a jump without the
agent is refused, stopping the agent or rebooting undoes it, and a shutdown on which it fails ends in no kexec
but in a host that goes back to work, its guests untouched."""

import re

from guests import Guest
from host_clock import WallClock
from nested import TEST_DIR, fail
from systemd_host import check_qemus, start_host
from updates import (end_connection, expect_all, expect_running, expect_untouched, holdfast, state, status, upgrade,
                     wait_agent, wait_update)

HOST = "systemd"
# The slower a boot, the more often memory is short of whole huge pages.
MEMORY = 6144

MAX_EXPOSURE = 3.0

# Says that it was stopped, as any service of the host is by an orderly shutdown.
WITNESS_UNIT = """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/sh -c 'echo stopped >>/var/log/hf-service.log; {also}'
"""


# Tells how it was run, and then what its file of that name has for an exit status.
HEALTH = "/usr/local/bin/hf-health"
HEALTH_SCRIPT = """#!/bin/sh
{
echo guest=$HOLDFAST_GUEST_NAME uuid=$HOLDFAST_GUEST_UUID words="$*" uid=$(id -u) dir=$(pwd)
env | cut -d= -f1 | sort | tr '\\n' ' '
echo
grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status
readlink /proc/self/ns/mnt
} >/var/log/hf-health-$HOLDFAST_GUEST_NAME.log
echo health of $HOLDFAST_GUEST_NAME was asked for
exit $(cat /var/lib/hf-test/health-$HOLDFAST_GUEST_NAME)
"""


def check_sandbox(host):
    """The agent is confined, and nothing of that reaches the QEMUs."""
    out = host.run("systemd-analyze security --no-pager holdfastd.service", check=False).out
    exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", out).group(1))
    host.note(f"exposure of holdfastd.service: {exposure}")
    if exposure > MAX_EXPOSURE:
        fail(f"holdfastd.service is more exposed than {MAX_EXPOSURE}:\n{out}")
    if "Seccomp:\t2" not in host.run("cat /proc/$(pgrep -o -f 'holdfastd --spawner')/status").out:
        fail("holdfastd is in no sandbox")


def configure_health(host, statuses):
    host.put(HEALTH, HEALTH_SCRIPT, "755")
    host.put("/etc/holdfast/holdfast.conf.d/health.conf", f"[defaults]\nhealth-command={HEALTH} one  two\n")
    for name, status in statuses.items():
        host.run(f"echo {status} >{TEST_DIR}/health-{name}; rm -f /var/log/hf-health-{name}.log")
    print(host.run("holdfastd --check-config").out)


def check_health(host, report, statuses):
    """The health-command was run for each guest, outside of the agent's sandbox, and its word counts."""
    own = host.run("readlink /proc/1/ns/mnt").out.strip()
    told_now = {guest["name"]: guest for guest in status(host)["guests"]}
    for entry in report["guests"]:
        name, want = entry["name"], statuses[entry["name"]]
        told = host.run(f"cat /var/log/hf-health-{name}.log", check=False).out.splitlines()
        if len(told) != 5 or told[0] != f"guest={name} uuid={entry['uuid']} words=one two uid=0 dir=/":
            fail(f"the health-command of {name} was run like this: {told}")
        if not {"HOLDFAST_GUEST_NAME", "HOLDFAST_GUEST_UUID", "PATH"} <= set(told[1].split()) <= {
                "HOLDFAST_GUEST_NAME", "HOLDFAST_GUEST_UUID", "PATH", "PWD", "OLDPWD", "SHLVL", "_"}:
            fail(f"the health-command of {name} has the environment {told[1]}")
        if sorted(told[2:4]) != ["NoNewPrivs:\t0", "Seccomp:\t0"] or told[4] != own:
            fail(f"the health-command of {name} is in a sandbox: {told[2:]}")
        found = [f["message"] for f in told_now[name]["findings"] if f["id"] == "guest.unhealthy"]
        if want == 0 and (entry["outcome"] != "resumed" or found):
            fail(f"{name} is well, but: {entry}, {found}")
        if want and (entry["outcome"] != "unhealthy" or f"exit status {want}" not in entry["message"] or len(found) != 1):
            fail(f"{name} is unhealthy, but: {entry}, {found}")
        # journald has much to do while a host comes up.
        log = host.run("journalctl --sync && journalctl -b --no-pager -o cat -t holdfastd").out
        if f"health of {name} was asked for" not in log:
            fail(f"what the health-command of {name} said is not in the agent's log")
    host.note(f"health-command: {', '.join(f'{name} {want}' for name, want in statuses.items())}")


def retry_unhealthy(host):
    """Once it is mended, the operator has it looked at again."""
    again = host.run("holdfast retry small 2>&1", check=False)
    if again.rc != 6 or "exit status 3" not in again.out:
        fail(f"holdfast retry of a guest that is not well ended with {again.rc}: {again.out}")
    host.run(f"echo 0 >{TEST_DIR}/health-small")
    host.run("holdfast retry small")
    if "guest.unhealthy" in host.run("holdfast status -o json").out:
        fail("a guest that is well again is still called unhealthy")


def stop_agent(host, guests):
    host.note("stopping the agent undoes what is prepared")
    holdfast(host, f"prepare --kernel {TEST_DIR}/bzImage-new")
    host.run("systemctl stop holdfastd")
    if host.run("cat /sys/kernel/kexec_loaded").out.strip() != "0":
        fail("a kernel is still loaded")
    expect_running(guests)
    host.run("systemctl start holdfastd")
    wait_agent(host)
    expect_untouched(host, guests)


def jump_without_agent(host, guests):
    host.note("a jump without the agent is refused by the kernel")
    holdfast(host, f"prepare --kernel {TEST_DIR}/bzImage-new")
    result = host.run("hf-kexec --jump", check=False)
    if result.rc == 0 or "Invalid argument" not in result.out:
        fail(f"hf-kexec --jump ended with {result.rc}: {result.out}")
    if state(host) != "prepared":
        fail(f"the host is {state(host)}")


def reboot(host, guests):
    """Still prepared. All of a reboot but its last act, which would leave nothing to look at."""
    host.note("a reboot is refused; a forced one undoes what is prepared")
    host.put("/run/systemd/system/systemd-reboot.service.d/hf.conf", "[Unit]\nSuccessAction=none\n"
             "[Service]\nType=oneshot\nExecStart=/bin/true\n")
    host.run("systemctl daemon-reload")
    # As on a terminal; otherwise logind only says that access is denied.
    for words, says in (("--check-inhibitors=yes", "a live update of this host is prepared"), ("", "ccess denied")):
        refused = host.run(f"systemctl reboot {words} 2>&1", check=False)
        if refused.rc == 0 or says not in refused.out:
            fail(f"systemctl reboot {words} ended with {refused.rc}: {refused.out}")
    host.run("systemctl start --no-block --job-mode=replace-irreversibly reboot.target")
    host.poll(lambda: host.run("systemctl is-active reboot.target", check=False).rc == 0, 60,
              "the end of the shutdown")
    if host.run("systemctl is-active holdfastd", check=False).out.strip() != "inactive":
        fail("the agent is still there")
    if host.run("cat /sys/kernel/kexec_loaded").out.strip() != "0":
        fail("a kernel is still loaded")
    expect_running(guests)
    host.run("rm -r /run/systemd/system/systemd-reboot.service.d; systemctl daemon-reload; "
             "systemctl start default.target", timeout=90)
    wait_agent(host)
    expect_untouched(host, guests)


def put_service(host, also="true"):
    host.put("/run/systemd/system/hf-service.service", WITNESS_UNIT.format(also=also))
    host.run("rm -f /var/log/hf-service.log; systemctl daemon-reload; systemctl start hf-service")


def broken_kexec(host, guests):
    host.note("an update that fails on the way to the kexec ends in no kexec")
    third = Guest(host, "third", machine="pc", memory=128)
    third.start()
    third.wait_ready()
    pid = host.run("pgrep -f -- '-name third'").out.split()[0]
    put_service(host, f"kill -9 {pid}; sleep 2")
    holdfast(host, f"prepare --orderly --kernel {TEST_DIR}/bzImage-old")
    host.spawn("systemctl kexec")
    host.poll(lambda: "no kexec: the update that was prepared had to be undone"
              in host.run("journalctl -b --no-pager -u holdfast-kexec").out, 90, "the refusal", 1)
    host.poll(lambda: host.run("systemctl is-active hf-service multi-user.target dbus", check=False).out.split()
              == ["inactive", "active", "active"], 90, "the services to be back")
    if len(host.boots) != 2:
        fail("the host has jumped")
    expect_untouched(host, guests)


def run(host):
    guests = [Guest(host, "small", machine="pc", memory=128),
              Guest(host, "web", machine="q35", memory=128, disk=True, net=True, vhost=True)]
    start_host(host, guests)
    clock = WallClock(host)
    old, new = host.kernels["OLD_VERSION"], host.kernels["NEW_VERSION"]
    client = guests[1].client()
    check_sandbox(host)
    stop_agent(host, guests)
    jump_without_agent(host, guests)
    reboot(host, guests)

    host.note(f"holdfast upgrade: Linux {old} to {new}")
    health = {"small": 0, "web": 0}
    configure_health(host, health)
    clock.before()
    report = upgrade(host, "bzImage-new", new, 2)
    # The sandbox leaves no right to set clocks; the spawner has it.
    clock.expect(report, clock.error_ns())
    expect_all(report, guests)
    host.note(f"guests are back after {report['blackout_ns'] / 1e9:.2f} s")
    print(host.run("holdfast report").out)
    check_health(host, report, health)
    check_qemus(host)
    expect_running(guests)

    broken_kexec(host, guests)

    host.note(f"systemctl kexec: Linux {new} to {old}")
    health = {"small": 3, "web": 0}
    configure_health(host, health)
    put_service(host)
    holdfast(host, f"prepare --orderly --kernel {TEST_DIR}/bzImage-old")
    host.spawn("systemctl kexec")
    report = wait_update(host, 3, old)
    expect_all(report, guests)
    host.note(f"guests are back after {report['blackout_ns'] / 1e9:.2f} s")
    print(host.run("holdfast report").out)
    check_health(host, report, health)
    retry_unhealthy(host)
    if host.run("cat /var/log/hf-service.log").out != "stopped\n":
        fail("the host's services were not shut down")
    check_qemus(host)
    expect_running(guests)
    result = end_connection(client)
    host.note(f"the TCP connection from outside is still the same: longest silence "
              f"{result['gap_max_ns'] / 1e9:.2f} s")
