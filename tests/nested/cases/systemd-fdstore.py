# SPDX-License-Identifier: Apache-2.0
"""Debian forky's systemd hands file descriptors over the same kexec as holdfast its guests; neither harms the other.

systemd 261 and newer makes a LUO session of its own, at the very end of a shutdown. A service that has put a
memfd into its file descriptor store has it back in the new kernel, and the guests run on. One of them is
started in a scope that every shutdown stops, as a login session is: it is moved out of that. Another is the main
process of a service, which can't be helped: it is refused."""

from guests import Guest
from nested import TEST_DIR, fail
from systemd_host import check_qemus, start_host
from updates import end_connection, expect_all, expect_running, expect_untouched, holdfast, wait_update

HOST = "forky"
MEMORY = 6144

# Makes a memfd at its first start, and says what is in the one that it got back.
SERVICE = """
[Service]
Type=oneshot
RemainAfterExit=yes
NotifyAccess=all
FileDescriptorStoreMax=4
FileDescriptorStorePreserve=yes
ExecStart=/usr/lib/hf-test/hf-fdstore "{text}"

[Install]
WantedBy=multi-user.target
"""


def said(host):
    return host.run("cat /var/log/hf-fdstore.log").out


def refuse_service(host):
    host.note("a guest that is the main process of a service is refused")
    guest = Guest(host, "unit", machine="pc", memory=128,
                  launcher="systemd-run --quiet --unit=unit.service holdfast-vmm --name unit --")
    guest.start()
    guest.wait_ready()
    holdfast(host, f"prepare --orderly --kernel {TEST_DIR}/bzImage-new", 3,
             "it is the main process of a service")
    expect_untouched(host, [guest])
    guest.hmp("quit")


def run(host):
    guests = [Guest(host, "web", machine="q35", memory=128, disk=True, net=True,
                    launcher="systemd-run --quiet --scope --unit=session-of-web holdfast-vmm --name web --")]
    start_host(host, guests)
    refuse_service(host)
    new = host.kernels["NEW_VERSION"]
    client = guests[0].client()
    text = "kept over the kexec"
    host.put("/etc/systemd/system/hf-fdstore.service", SERVICE.format(text=text))
    host.run("systemctl daemon-reload; systemctl enable --now hf-fdstore.service")
    if said(host) != f"stored: {text}\n":
        fail(f"the service has not stored its memfd: {said(host)}")

    host.note(f"holdfast upgrade --orderly: Linux {host.kernels['OLD_VERSION']} to {new}")
    job = host.spawn(f"holdfast upgrade --orderly --kernel {TEST_DIR}/bzImage-new")
    host.wait_for(lambda: len(host.boots) >= 2 or job.status not in (None, 0, "rebooted"), 180, "the jump")
    if len(host.boots) < 2:
        fail(f"holdfast upgrade --orderly ended with {job.status}:\n{job.out}")
    report = wait_update(host, 2, new)
    expect_all(report, guests)
    host.note(f"guests are back after {report['blackout_ns'] / 1e9:.2f} s")
    host.poll(lambda: said(host).count("\n") >= 2, 60, "the service to be started again")
    if said(host) != f"stored: {text}\nback: {text}\n":
        fail(f"the service has not got its memfd back: {said(host)}")
    count = host.run("busctl get-property org.freedesktop.systemd1 /org/freedesktop/systemd1 "
                     "org.freedesktop.systemd1.Manager KExecCount", check=False).out.strip()
    host.note(f"the service has its memfd back; systemd's count of kexecs: {count}")
    check_qemus(host)
    expect_running(guests)
    result = end_connection(client)
    host.note(f"the TCP connection from outside is still the same: longest silence "
              f"{result['gap_max_ns'] / 1e9:.2f} s")
