# SPDX-License-Identifier: Apache-2.0
"""A host with Debian's own kernel, whose guests cross in images that are encrypted by a key sealed to its TPM.

Nothing of the host is the tests' but the virtual machine: kernel, initrd, systemd and units are those of the packages.
The power fails in the middle of an update, and nothing is brought up from half an image. Then guests cross a reset
of the machine, and a kexec of the kernel that runs, after which the key is missing until it is put back."""

from guests import Guest
from nested import fail
from systemd_host import check_qemus, start_host
from updates import end_connection, expect_from_images, holdfast, leave, state, status, wait_agent, wait_end

HOST = "stock"
MEMORY = 4096
REBOOTS = True

IMAGES = "/var/lib/holdfast/images"
KEY = "/etc/credstore.encrypted/holdfast.image-key"
# As holdfastd(8) has it.
MAKE_KEY = (f"mkdir -p -m 700 $(dirname {KEY}) && head -c 32 /dev/urandom | "
            f"systemd-creds encrypt --with-key=tpm2 --tpm2-pcrs=7 --name=holdfast.image-key - {KEY}")
# So much of a guest's image is written when the power fails.
WRITTEN = 32 << 20
# What every guest has in its memory: the beginning of its kernel's first message.
PATTERN = "Linux version "


def make_key(host):
    holdfast(host, "upgrade --carrier image --reboot", code=3, says="there is no key to encrypt them with")
    # Of the firmware it may say no: the tests' isn't UEFI.
    host.note("the TPM: " + " ".join(host.run("systemd-analyze has-tpm2", check=False).out.split()))
    host.run(MAKE_KEY)
    host.run("systemctl restart holdfastd")
    wait_agent(host)
    holdfast(host, "plan --carrier image --reboot", says="which will be encrypted")


def left_in_images(host):
    return host.run(f"find {IMAGES} -type f 2>/dev/null", check=False).out.split()


def lose_power(host):
    """The agent stands still when some of the memory is on the disk, so that it stays half of it."""
    agent = host.run("systemctl show -P MainPID holdfastd").out.strip()
    job = host.spawn("holdfast upgrade --carrier image --reboot")
    # Their room is allocated at once, and has zeros.
    host.run("while :; do "
             f"for f in {IMAGES}/outgoing/*/1.img; do cmp -s -i {WRITTEN}:0 -n 4096 $f /dev/zero; "
             f"[ $? = 1 ] && [ $(stat -c %s $f) -gt {2 * WRITTEN} ] && break 2; done; "
             f"done; kill -STOP {agent}; sync", timeout=120)
    files = left_in_images(host)
    if job.status is not None or not files or any("/outgoing/" not in file for file in files):
        fail(f"the update is at {files}, not where the power is to fail: {job.status}, {job.out}")
    host.note(f"the power fails when {WRITTEN >> 20} MiB of an image are written")
    host.outer("system_reset")
    host.wait_boot(2, 180)
    wait_agent(host)
    if state(host) != "normal" or status(host)["guests"]:
        fail(f"after a power failure the host is {status(host)}")
    if host.run("pgrep qemu-system", check=False).out:
        fail("a guest was brought up from half an image")
    if left_in_images(host):
        fail(f"of the update that came to nothing there is left: {left_in_images(host)}")
    if host.run("cat /sys/kernel/kexec_loaded").out.strip() != "0":
        fail("a kernel is loaded")


def hold_without_key(host):
    """Guests stay in their images, and who looks is told why."""
    host.poll(lambda: state(host) == "degraded", 60, "the agent to find images that it can't read")
    holdfast(host, "status", says="the credential holdfast.image-key")
    if len(left_in_images(host)) < 3 or host.run("pgrep qemu-system", check=False).out:
        fail(f"without the key, there is {left_in_images(host)}, and QEMUs run")


def start_anew(host, guests):
    host.run("rm -f /var/log/guest-*.log; rm -f /var/lib/hf-test/disk-*.img")
    for guest in guests:
        guest.start()
    for guest in guests:
        guest.wait_ready()


def check_encrypted(host, guest):
    """What is in the guest's memory is not in its image."""
    pid = host.run(f"pgrep -f -- '-name {guest.name} '").out.split()[0]
    plain = host.run(f"for f in /proc/{pid}/fd/*; do case $(readlink $f) in /memfd:*) "
                     f"grep -qaF '{PATTERN}' $f && echo $f;; esac; done; true").out
    if not plain:
        fail(f"`{PATTERN}` is not in the memory of {guest.name}: that it is not in the image means nothing")
    files = [file for file in left_in_images(host) if file.endswith(".img")]
    size = int(host.run(f"du -sm {IMAGES} | cut -f1").out)
    if len(files) != 2 or size < 64:
        fail(f"there are {size} MiB in images: {files}")
    found = host.run(f"grep -laF '{PATTERN}' {' '.join(files)}", timeout=120, check=False).out
    if found:
        fail(f"`{PATTERN}` is readable in {found}")
    for file in files:
        if host.run(f"dd if={file} bs=1 skip=104 count=3 status=none").out != "kek":
            fail(f"{file} is not encrypted by a wrapped key")
    host.note(f"{size} MiB in {len(files)} images, none of it readable")


def expect_back(host, guests, client, report):
    expect_from_images(host, guests, client, report)
    host.note(f"guests are back after {report['blackout_ns'] / 1e9:.2f} s")
    check_qemus(host)


def run(host):
    web = Guest(host, "web", machine="q35", memory=128, disk=True, net=True)
    small = Guest(host, "small", machine="pc", memory=128)
    guests = [web, small]
    start_host(host, guests)
    release = host.boots[0].release
    for path in ("/dev/liveupdate", "/sys/kernel/debug/kho"):
        if host.run(f"test -e {path}", check=False).rc == 0:
            fail(f"this is no stock kernel: it has {path}")

    make_key(host)
    lose_power(host)
    start_anew(host, guests)
    client = web.client()

    host.note("through the firmware")
    holdfast(host, "prepare --carrier image --reboot")
    check_encrypted(host, small)
    leave(host, "commit", release, 3)
    expect_back(host, guests, client, wait_end(host))

    host.note("through a jump into the same kernel, where the key is missing at first")
    holdfast(host, f"prepare --kernel /boot/vmlinuz-{release} --initrd /boot/initrd.img-{release} --carrier image")
    host.run(f"mv {KEY} {KEY}.away")
    leave(host, "commit", release, 4)
    hold_without_key(host)
    host.run(f"mv {KEY}.away {KEY}; systemctl restart holdfastd")
    wait_agent(host)
    expect_back(host, guests, client, wait_end(host))

    result = end_connection(client)
    host.note(f"the TCP connection from outside is still the same: {result['echoed']} messages echoed, "
              f"longest silence {result['gap_max_ns'] / 1e9:.2f} s")
