# SPDX-License-Identifier: Apache-2.0
"""Libvirt's domains on a nested host: each runs the witness, as the guests of guests.py do.

Attributes of a domain that an update must leave alone are compared as a whole: see Domain.facts()."""

import difflib
import re
import uuid
import xml.etree.ElementTree

from guests import LIGHT, Guest
from nested import GUEST_ADDRESS, GUEST_PORT, TEST_DIR, fail
from updates import holdfast

NETWORK = "outside"
NETWORK_XML = f"""<network>
  <name>{NETWORK}</name>
  <forward mode='bridge'/>
  <bridge name='br0'/>
</network>"""

# What a domain has for its RAM to be carried over.
MEMORY_BACKING = "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"

# There are more guests here than elsewhere, and libvirt's own work besides.
LIGHTER = "hf.report_ms=4000 hf.clock_ms=100 hf.disk_ms=500 hf.mem=50"

# Libvirt takes no notice of the CPUs that it may use itself; see leave_first_cpu() in tools/hf-init.c.
CPUS = "1-2"

RAM_SIZE = "1g"

IMAGES = "/var/lib/libvirt/images"


def virsh(host, words, timeout=60, check=True):
    return host.run(f"virsh -q {words} 2>&1", timeout, check)


def set_up(host):
    """Prepare the host as an operator does: it says what it writes, and the second time there is nothing to do."""
    # AppArmor's parser takes many seconds of an emulated CPU.
    host.put("/etc/holdfast/holdfast.conf.d/slow.conf", "[defaults]\nattach-timeout=60s\nresume-timeout=120s\n")
    print(holdfast(host, f"libvirt setup --size {RAM_SIZE}"))
    holdfast(host, "libvirt setup --check")
    # Without being restarted libvirt has the files in there from now on.
    if host.run("findmnt -no FSTYPE /var/lib/libvirt/qemu/ram").out.strip() != "tmpfs":
        fail("no tmpfs is mounted where domains have their memory")


def start_network(host):
    """The network of libvirt that domains reach the outside by: br0, which the host has anyway."""
    host.put(f"{TEST_DIR}/network.xml", NETWORK_XML)
    virsh(host, f"net-define {TEST_DIR}/network.xml")
    virsh(host, f"net-autostart {NETWORK}")
    virsh(host, f"net-start {NETWORK}")


class Domain(Guest):
    """A domain of libvirt that runs the witness as its init.

    With cells it has so many NUMA cells, of which the first has the CPUs. With net it has the address that
    the outside reaches; agent is the channel of a guest agent. A transient one is gone once it ends.
    Its console is in the host's /var/log/guest-NAME.log, as that of other guests: virtlogd writes it until
    the first update."""

    def __init__(self, host, name, machine="q35", cpus=1, memory=128, cells=0, disk=False, net=False, vnc=False,
                 tpm=False, pty=False, agent=False, transient=False, autostart=False):
        # Not Guest's, which is about a command line.
        self.host = host
        self.name = name
        self.memory = memory
        self.net = net
        self.transient = transient
        self.autostart = autostart
        self.vnc = vnc
        self.tpm = tpm
        self.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"holdfast-test-{name}"))
        self.console = f"/var/log/guest-{name}.log"
        self.disk = f"{IMAGES}/{name}.img" if disk else None
        self.file = f"{TEST_DIR}/{name}.xml"
        # The pseudo-terminal is the first serial line then, which nobody reads.
        line = "ttyS1" if pty else "ttyS0"
        words = (f"console={line} earlyprintk={line},115200 quiet panic=-1 kho=off liveupdate=off cgroup_disable=memory "
                 f"cgroup.memory=nokmem hf.name={name} hf.seed={sum(name.encode()) * 7919} hf.ram_mib={memory} "
                 f"{LIGHT} {LIGHTER}")
        devices = ""
        if vnc:
            devices += "<graphics type='vnc'/><video><model type='vga'/></video>"
        if tpm:
            devices += "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
        if pty:
            devices += "<serial type='pty'/>"
        devices += f"<serial type='file'><source path='{self.console}' append='on'/></serial>"
        if agent:
            devices += "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        if disk:
            devices += (f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{self.disk}'/>"
                        "<target dev='vda' bus='virtio'/></disk>")
            words += " hf.disk=/dev/vda"
        if net:
            devices += (f"<interface type='network'><mac address='52:54:00:68:66:01'/><source network='{NETWORK}'/>"
                        "<model type='virtio'/><rom enabled='no'/></interface>")
            words += f" hf.ip={GUEST_ADDRESS}/24 hf.port={GUEST_PORT}"
        cell_cpus = [f"cpus='0-{cpus - 1}'"] + [""] * cells
        numa = "".join(f"<cell id='{i}' {cell_cpus[i]} memory='{memory // cells}' unit='MiB' memAccess='shared'/>"
                       for i in range(cells))
        self.xml = f"""<domain type='kvm'>
  <name>{name}</name>
  <uuid>{self.uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  {MEMORY_BACKING}
  <vcpu cpuset='{CPUS}'>{cpus}</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{TEST_DIR}/bzImage-old</kernel>
    <initrd>{TEST_DIR}/initramfs.cpio.gz</initrd>
    <cmdline>{words}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>kvm64</model>
    {f"<numa>{numa}</numa>" if cells else ""}
  </cpu>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {devices}
  </devices>
</domain>"""

    def start(self):
        if self.disk:
            self.host.run(f"truncate -s 16M {self.disk}")
        self.host.put(self.file, self.xml)
        if self.transient:
            virsh(self.host, f"create {self.file}", 120)
            return
        virsh(self.host, f"define {self.file}")
        if self.autostart:
            self.virsh("autostart")
        self.virsh("start", timeout=120)

    def virsh(self, words, *more, timeout=60):
        """A verb of virsh that takes a domain, and what comes after that."""
        return virsh(self.host, " ".join([words, self.name, *more]), timeout).out.strip()

    def state(self):
        return self.virsh("domstate")

    def hmp(self, command):
        return self.virsh("qemu-monitor-command --hmp", f"'{command}'").replace("\r", "")

    def pid(self):
        return self.host.run(f"cat /run/libvirt/qemu/{self.name}.pid").out.strip()

    def facts(self):
        """All that libvirt says of the domain and that an update doesn't change. The names of its pseudo-terminals
        may change, and its time of CPU does."""
        # At the first time under a kernel, libvirt tries every QEMU that there is for this.
        info = [line for line in self.virsh("dominfo", timeout=240).splitlines()
                if not line.startswith(("CPU time:", "Used memory:"))]
        return {
            "id": self.virsh("domid"),
            "state": self.virsh("domstate --reason"),
            "info": "\n".join(info),
            "xml": plain_xml(self.virsh("dumpxml")),
            "inactive xml": "" if self.transient else self.virsh("dumpxml --inactive --security-info"),
        }


def plain_xml(text):
    """The XML without the names of pseudo-terminals."""
    xml.etree.ElementTree.fromstring(text)
    return re.sub(r"/dev/pts/\d+", "/dev/pts/N", text)


def domain_list(host):
    """Active and inactive ones, as `virsh list` has them."""
    return sorted(" ".join(line.split()) for line in virsh(host, "list --all").out.splitlines() if line.strip())


def facts(host, domains):
    known = {domain.name: domain.facts() for domain in domains}
    known[""] = {"list": "\n".join(domain_list(host)), "networks": virsh(host, "net-list --all").out,
                 "autostart": virsh(host, "list --all --autostart --name").out}
    return known


def expect_same(before, after):
    """Fail, saying what differs, unless both are the same."""
    wrong = []
    for name, items in before.items():
        for key, value in items.items():
            now = after[name][key]
            if now != value:
                wrong.append(f"{key} of {name or 'the host'}:\n" + "\n".join(difflib.unified_diff(
                    value.splitlines(), now.splitlines(), "before", "now", lineterm="", n=1)))
    if wrong:
        fail("libvirt says something else than before:\n" + "\n".join(wrong))


def wait_libvirt(host):
    """It answers; it is started anew with the host."""
    host.poll(lambda: virsh(host, "list", check=False).rc == 0, 120, "libvirt", 1)


def expect_devices(host, domains):
    """What is outside of their QEMUs is there: one process for each TPM, an answer of each display."""
    tpms = [domain for domain in domains if domain.tpm]
    running = host.run("pgrep -x swtpm | wc -l").out.strip()
    if running != str(len(tpms)):
        fail(f"{running} TPMs run, not {len(tpms)}")
    for domain in domains:
        if domain.vnc:
            port = 5900 + int(domain.virsh("vncdisplay").rpartition(":")[2])
            said = host.run(f"socat -T 5 -u TCP:127.0.0.1:{port} - </dev/null | head -c 4", check=False).out
            if said != "RFB ":
                fail(f"the display of domain {domain.name} says {said!r}")


def suspend_resume(host, domain):
    """By hand, with somebody listening to what libvirt says of it."""
    job = host.spawn(f"stdbuf -oL virsh -q event --domain {domain.name} --event lifecycle --loop --timeout 120")
    # Nobody hears an event before he is registered for it, and nothing says when he is.
    host.run("sleep 5")
    for verb, want in (("suspend", "paused (user)"), ("resume", "running (unpaused)")):
        domain.virsh(verb)
        state = domain.virsh("domstate --reason")
        if state != want:
            fail(f"domain {domain.name} is {state} after virsh {verb}, not {want}")
    host.poll(lambda: "Suspended" in job.out and "Resumed" in job.out, 30, f"events of domain {domain.name}")
    job.kill()
    domain.wait_status(2)
    host.note(f"domain {domain.name} was suspended and resumed by libvirt")


def save_restore(host, domain):
    """Saved by libvirt, a domain has all of its memory in the image, and comes back from that."""
    image = f"{IMAGES}/{domain.name}.save"
    used = int(domain.judge()["mem_bytes"])
    domain.virsh("save", image, timeout=300)
    if domain.state() != "shut off":
        fail(f"domain {domain.name} is {domain.state()} after virsh save")
    size = int(host.run(f"stat -c %s {image}").out)
    if size < used:
        fail(f"the image of domain {domain.name} has {size} bytes, of which {used} should be its memory")
    virsh(host, f"restore {image}", 300)
    host.run(f"rm {image}")
    domain.wait_status(2)
    host.note(f"domain {domain.name} was saved to {size >> 20} MiB and restored by libvirt")


def expect_confined(host, domains):
    """AppArmor has each domain's QEMU in the domain's profile."""
    for domain in domains:
        label = host.run(f"cat /proc/{domain.pid()}/attr/apparmor/current").out.strip()
        if label != f"libvirt-{domain.uuid} (enforce)":
            fail(f"the QEMU of domain {domain.name} is confined as {label!r}")


def destroy(host, domain):
    """Gone if it is transient, known otherwise."""
    pid = domain.pid()
    domain.virsh("destroy")
    if host.run(f"test -e /proc/{pid}", check=False).rc == 0:
        fail(f"the QEMU of domain {domain.name} still runs")
    names = virsh(host, "list --all --name").out.split()
    if (domain.name in names) == domain.transient:
        fail(f"after virsh destroy {domain.name} there are {names}")
