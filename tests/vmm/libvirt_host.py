# SPDX-License-Identifier: Apache-2.0
"""A libvirt of a test's own: libvirtd, virtlogd and domains with witnesses, in namespaces where nothing of the machine
is touched and two tests don't meet, with the files of the machine or of another root.

What is private: mounts (/run, libvirt's folders in /etc and /var, /dev/pts), processes (all end with the first one),
network, /sys (without control groups)."""

import difflib
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import rig
from rig import Failure, Guest, World, check, guest_kernel, poll, witness_words

# Where things are inside.
INSIDE = pathlib.Path("/mnt")
PLACES = {"holdfast": rig.TOP, "cache": rig.CACHE}
RAM = pathlib.Path("/var/lib/libvirt/qemu/ram")
SAVE = pathlib.Path("/var/lib/libvirt/qemu/save")
UNSHARE = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child",
           "--propagation", "private"]


# As daemons have it: above all without our TMPDIR, which is nobody else's.
DAEMON_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def run(*argv, env=None):
    done = subprocess.run([str(a) for a in argv], text=True, capture_output=True, stdin=subprocess.DEVNULL, env=env)
    check(done.returncode == 0, f"{' '.join(map(str, argv))}: {done.stdout}{done.stderr}")
    return done.stdout


def enter(root, folder):
    """As the first process of new namespaces: make everything private that libvirt writes to, and have @root for a
    root. @folder will be /mnt/folder."""
    places = {**PLACES, "folder": folder}
    stage = pathlib.Path(folder) / "stage"
    stage.mkdir()
    run("mount", "-t", "tmpfs", "-o", "mode=755", "stage", stage)
    for name, place in places.items():
        (stage / name).mkdir()
        run("mount", "--bind", place, stage / name)
    if root != pathlib.Path("/"):
        # A mount point, because libvirt changes how mounts propagate from its root.
        run("mount", "--bind", root, root)
        run("mount", "--rbind", "/dev", root / "dev")
    run("mount", "--rbind", stage, root / "mnt")
    run("mount", "-t", "proc", "proc", root / "proc")
    if os.path.ismount(root / "sys"):
        # With what is mounted in it: libvirt would look for its control groups under the new one.
        run("umount", "--recursive", "--lazy", root / "sys")
    run("mount", "-t", "sysfs", "sysfs", root / "sys")
    os.chroot(root)
    os.chdir("/")
    run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=666,mode=620,gid=5", "devpts", "/dev/pts")
    if not os.path.islink("/dev/ptmx"):
        run("mount", "--bind", "/dev/pts/ptmx", "/dev/ptmx")
    for path in ("/run", "/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt",
                 "/var/lib/swtpm-localca", "/var/log/swtpm"):
        if os.path.isdir(path):
            old = os.stat(path)
            run("mount", "-t", "tmpfs", "-o", "mode=755", "libvirt", path)
            os.chown(path, old.st_uid, old.st_gid)
    if os.path.exists("/dev/kvm"):
        # One that root alone can use is there for libvirtd, but not for the QEMUs that it asks what they can do: it
        # would ask them again and again, for seconds, whether they can't do KVM after all.
        node = INSIDE / "kvm"
        os.mknod(node, 0o666 | stat.S_IFCHR, os.stat("/dev/kvm").st_rdev)
        os.chmod(node, 0o666)
        run("mount", "--bind", node, "/dev/kvm")
    run("ip", "link", "set", "lo", "up")


def init(root, folder, argv):
    """The first process: @argv in @root. Return: how that ended. Zombies would be living processes for libvirt, so all
    that lose their parent are waited for."""
    enter(pathlib.Path(root), folder)
    child = os.fork()
    if child == 0:
        os.environ["HOLDFAST_CACHE"] = str(INSIDE / "cache")
        os.environ["TMPDIR"] = str(INSIDE / "folder")
        os.environ["HF_BUILD"] = str(INSIDE / "holdfast" / os.path.relpath(rig.BUILD, rig.TOP))
        os.environ.pop("DBUS_SYSTEM_BUS_ADDRESS", None)
        os.execvp("python3", ["python3", str(INSIDE / "holdfast" / argv[0]), *argv[1:]])
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


class Libvirt:
    """The daemons of one world."""

    def __init__(self, world):
        self.world = world
        self.pid_file = pathlib.Path("/run/libvirtd.pid")
        user = pwd.getpwnam("libvirt-qemu")
        for path in (RAM.parent, RAM, SAVE):
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, user.pw_uid, user.pw_gid)
        run("mount", "-t", "tmpfs", "-o", f"mode=700,uid={user.pw_uid},gid={user.pw_gid}", "ram", RAM)
        etc = pathlib.Path("/etc/libvirt")
        # What libvirtd finds out about a QEMU takes seconds, is the same for each test, and is looked at by libvirtd.
        version = run("libvirtd", "--version").split()[-1]
        self.version = tuple(map(int, version.split(".")))
        self.primed = INSIDE / "cache/libvirt" / f"capabilities-{version}"
        if self.primed.is_dir():
            shutil.copytree(self.primed, "/var/cache/libvirt/qemu/capabilities")
        (etc / "libvirtd.conf").write_text(f'log_outputs = "2:file:{world.path}/libvirtd.log"\nauth_unix_rw = "none"\n'
                                           f'admin_max_clients = 5\n')
        (etc / "qemu.conf").write_text('security_driver = "none"\n')
        (etc / "virtlogd.conf").write_text(f'log_outputs = "2:file:{world.path}/virtlogd.log"\n')
        self.log = pathlib.Path("/var/log/libvirt/qemu")
        self.hook = world.path / "libvirt-daemon"
        self.hook.write_text(f"#!/bin/sh\nexec {sys.executable} {__file__} daemon \"$1\" {self.pid_file}\n")
        self.hook.chmod(0o755)
        run("virtlogd", "-d", "-p", "/run/virtlogd.pid", env=DAEMON_ENV)

    def start(self):
        daemon("start", self.pid_file)
        return self

    def stop(self):
        daemon("stop", self.pid_file)

    @property
    def pid(self):
        return int(self.pid_file.read_text())

    def prime(self):
        """Keep what libvirtd found out, for later runs."""
        new = self.primed.with_suffix(f".{os.getpid()}-{self.world.path.name}")
        if not self.primed.exists() and os.path.isdir("/var/cache/libvirt/qemu/capabilities"):
            shutil.copytree("/var/cache/libvirt/qemu/capabilities", new)
            try:
                new.rename(self.primed)
            except OSError:
                shutil.rmtree(new)  # another one was first


def daemon(verb, pid_file):
    """As the agent's helper of that name: stop libvirtd, or start it and wait until it answers."""
    pid_file = pathlib.Path(pid_file)
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pid = 0
    if verb == "stop" and pid:
        os.kill(pid, signal.SIGTERM)
        poll(lambda: not os.path.exists(f"/proc/{pid}"), 30, "libvirtd to end")
    if verb == "start" and not pid:
        pid_file.unlink(missing_ok=True)
        # As by systemd, none of its children may have our pipes.
        run("sh", "-c", f"exec libvirtd -d -p {pid_file} >/dev/null 2>&1", env=DAEMON_ENV)
        poll(lambda: subprocess.run(["virsh", "-q", "-c", "qemu:///system", "list"], capture_output=True,
                                    stdin=subprocess.DEVNULL).returncode == 0, 30, "libvirtd to answer")


def sockets(folder, names):
    """Those that can't be copied."""
    paths = {name: pathlib.Path(folder) / name for name in names}
    return [name for name, path in paths.items() if not path.is_file() and not path.is_dir()]


class LibvirtWorld(World):
    """A world with a libvirt. What is not put away ends with the namespaces."""

    def __init__(self, qemu):
        super().__init__(qemu)
        self.path.chmod(0o755)
        self.env["HOLDFAST_LIBEXEC_DIR"] = str(rig.BUILD)
        # QEMU isn't root, and libvirt gives it the files that it is to read.
        self.kernel, self.initrd = self.path / "vmlinux", self.path / "initramfs"
        shutil.copy(guest_kernel(), self.kernel)
        shutil.copy(rig.TOP / "build/witness/initramfs.cpio.gz", self.initrd)
        self.libvirt = Libvirt(self)
        self.env["HOLDFAST_LIBVIRT_DAEMON"] = str(self.libvirt.hook)
        self.libvirt.start()

    def virsh(self, *args, code=0, timeout=60):
        """Return: what it says. @code: how it has to end, None: any."""
        done = subprocess.run(["virsh", "-q", "-c", "qemu:///system", *map(str, args)], text=True, capture_output=True,
                              timeout=timeout, stdin=subprocess.DEVNULL)
        check(code is None or done.returncode == code,
              f"virsh {' '.join(map(str, args))}: {done.returncode}: {done.stdout}{done.stderr}")
        return (done.stdout + done.stderr).strip()

    def wait_libvirt(self):
        """An update is done when guests run; libvirtd is started after that, and finds its domains as it comes."""
        poll(lambda: not self.virsh("list", code=None).startswith("error"), 30, "libvirtd to answer after an update")

    def close(self, failed):
        if not failed:
            self.libvirt.prime()
        for path in (self.libvirt.log, pathlib.Path("/var/log/swtpm"), pathlib.Path("/run/libvirt/qemu")):
            if failed and path.is_dir():
                shutil.copytree(path, self.path / "left" / path.relative_to("/"), dirs_exist_ok=True, ignore=sockets)

    def power_loss(self):
        """Every process ends, and what was in memory is gone."""
        for pid in [int(p) for p in os.listdir("/proc") if p.isdigit()]:
            if pid not in (1, os.getpid()):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if self.agent:
            self.agent.wait()
        for folder in (pathlib.Path("/run"), self.path / "run", RAM):
            for path in folder.glob("*"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        boot = self.path / "boot_id"
        boot.write_text("deadbeef-0000-4000-8000-%012x\n" % os.getpid())
        run("mount", "--bind", boot, "/proc/sys/kernel/random/boot_id")
        run("virtlogd", "-d", "-p", "/run/virtlogd.pid", env=DAEMON_ENV)


def canonical(text):
    """A definition without what libvirt itself changes when it is started anew: the order of devices."""
    domain = ElementTree.fromstring(re.sub(r"/dev/pts/\d+", "/dev/pts/N", text))
    devices = domain.find("devices")
    devices[:] = sorted(devices, key=lambda device: ElementTree.tostring(device, "unicode").split())
    return ElementTree.tostring(domain, "unicode")


class Domain(Guest):
    """A guest of libvirt's, with a witness."""

    def __init__(self, world, name, machine="q35", cpus=1, memory=96, cells=1, shared=True, source="file",
                 access="shared", disk=False, tpm=False,
                 vnc=False, pty=False, agent=False, tap=None, devices="", metadata="", append="", transient=False,
                 emulator=None, logged=False, start=True):
        self.world, self.name, self.transient = world, name, transient
        self.console = world.path / f"{name}.console"
        self.console.touch()
        self.console.chmod(0o666)
        words = [append, witness_words(name, memory, console=f"ttyS{int(pty and not logged)}")]
        if logged:
            # By libvirt's own means, which are a pipe from virtlogd.
            devices = f"<serial type='file'><source path='{self.console}' append='on'/></serial>" + devices
            serial = ""
        else:
            serial = f"""<qemu:commandline>
    <qemu:arg value='-chardev'/><qemu:arg value='file,id=witness,path={self.console},append=on'/>
    <qemu:arg value='-device'/><qemu:arg value='isa-serial,chardev=witness,index={int(pty)}'/>
  </qemu:commandline>"""
        if disk:
            self.disk = world.path / f"{name}.img"
            self.disk.write_bytes(b"")
            os.truncate(self.disk, 16 << 20)
            devices += (f"<disk type='file'><driver name='qemu' type='raw'/><source file='{self.disk}'/>"
                        "<target dev='vda' bus='virtio'/></disk>")
            words.append("hf.disk=/dev/vda")
        if tpm:
            devices += "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"
        if vnc:
            devices += "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/><video><model type='vga'/></video>"
        if pty:
            devices += "<serial type='pty'/>"
        if agent:
            devices += "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        if tap:
            devices += (f"<interface type='bridge'><source bridge='{tap.name}'/><model type='virtio'/></interface>")
            words.append(f"hf.ip={tap.guest}/24 hf.port=7000")
        numa = "".join(f"<cell id='{i}' cpus='{i}' memory='{memory // cells}' unit='MiB'/>" for i in range(cells))
        backing = f"<memoryBacking><source type='{source}'/><access mode='{access}'/></memoryBacking>" if shared else ""
        self.xml = world.path / f"{name}.xml"
        self.xml.write_text(f"""
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>{memory}</memory>
  {backing}
  <vcpu>{cpus}</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{world.kernel}</kernel><initrd>{world.initrd}</initrd>
    <cmdline>{" ".join(words)}</cmdline></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model>
    {f"<numa>{numa}</numa>" if cells > 1 else ""}</cpu>
  <devices><emulator>{emulator or world.qemu}</emulator>{devices}</devices>
  {serial}
</domain>""")
        if not transient:
            world.virsh("define", self.xml)
        if start:
            world.virsh("create" if transient else "start", self.xml if transient else name)

    @property
    def pid(self):
        return int(pathlib.Path(f"/run/libvirt/qemu/{self.name}.pid").read_text())

    def virsh(self, verb, *args, **how):
        return self.world.virsh(verb, self.name, *args, **how)

    def boot(self, *options):
        """From the beginning, and so does what its witness says."""
        os.truncate(self.console, 0)
        self.virsh("start", *options)
        self.wait_ready()

    def qmp(self, command, **arguments):
        words = {"execute": command, **({"arguments": arguments} if arguments else {})}
        reply = json.loads(self.virsh("qemu-monitor-command", json.dumps(words)))
        check("error" not in reply, f"{command}: {reply}")
        return reply["return"]

    @property
    def state(self):
        """As libvirt has it, with the reason."""
        return self.virsh("domstate", "--reason")

    @property
    def guard(self):
        return SAVE / f"{self.name}.save"

    def seen(self):
        """All that a user of libvirt sees of it and that has to stay, whatever happens to its QEMU."""
        return {"id": self.virsh("domid"), "uuid": self.virsh("domuuid"), "state": self.state,
                "xml": canonical(self.virsh("dumpxml")),
                "persistent": re.search(r"Persistent: +(\w+)", self.virsh("dominfo")).group(1),
                "inactive": None if self.transient else self.virsh("dumpxml", "--inactive"),
                "blocks": self.virsh("domblklist"), "interfaces": self.virsh("domiflist")}

    def check_seen(self, before):
        after = self.seen()
        for key, was in before.items():
            lines = [str(text).splitlines() for text in (was, after[key])]
            changes = "\n".join(difflib.unified_diff(*lines, "before", "after", lineterm=""))
            check(after[key] == was, f"{self.name}: {key}:\n{changes}")


class Bridge:
    """A bridge of the host, which taps of domains are on."""

    def __init__(self, name="br0"):
        self.name, self.host, self.guest = name, "10.9.0.1", "10.9.0.2"
        run("ip", "link", "add", name, "type", "bridge")
        run("ip", "addr", "add", f"{self.host}/24", "dev", name)
        run("ip", "link", "set", name, "up")


class Neighbour:
    """A second libvirtd, as of another host: with folders and a host name of its own, and the rest as here. Domains can
    be migrated to it."""

    def __init__(self, world):
        self.world, self.path = world, world.path / "neighbour"
        self.uri = f"qemu+unix:///system?socket={self.path}/run/libvirt-sock"
        for name in ("run", "etc"):
            (self.path / name).mkdir(parents=True)
        (self.path / "etc/libvirtd.conf").write_text(
            f'log_outputs = "2:file:{self.path}/libvirtd.log"\nauth_unix_rw = "none"\n'
            'host_uuid = "00000000-0000-4000-8000-000000000002"\n')
        # virtlogd is not there.
        (self.path / "etc/qemu.conf").write_text('security_driver = "none"\nstdio_handler = "file"\n')
        user = pwd.getpwnam("libvirt-qemu")
        mounts = f"""
            hostname neighbour
            mount --bind {self.path}/run /run/libvirt
            mount --bind {self.path}/etc /etc/libvirt
            mount -t tmpfs -o mode=755 libvirt /var/lib/libvirt
            mkdir -p {RAM}
            chown {user.pw_uid}:{user.pw_gid} {RAM.parent} {RAM}
            mount -t tmpfs -o mode=700,uid={user.pw_uid},gid={user.pw_gid} ram {RAM}
            exec libvirtd -d -p {self.path}/libvirtd.pid >/dev/null 2>&1"""
        run("unshare", "--mount", "--uts", "sh", "-ec", mounts, env=DAEMON_ENV)
        poll(lambda: self.virsh("list").returncode == 0, 30, "the second libvirtd to answer")

    def virsh(self, *args):
        return subprocess.run(["virsh", "-q", "-c", self.uri, *map(str, args)], text=True, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=60)

    def pid(self, domain):
        return int((self.path / f"run/qemu/{domain.name}.pid").read_text())

    def migrate(self, domain):
        """The command that migrates a domain to it."""
        return ["virsh", "-q", "-c", "qemu:///system", "migrate", "--live", "--unsafe", domain.name, self.uri,
                "--migrateuri", "tcp://127.0.0.1:49200"]

    def check_has(self, domain):
        """The domain works on there, and with every word of its memory."""
        check(self.virsh("domstate", domain.name).stdout.strip() == "running",
              f"{domain.name} is {self.virsh('domstate', domain.name)}")
        domain.wait_alive()


class Events:
    """What libvirt tells about its domains, from now on."""

    def __init__(self, world):
        self.path = world.path / "events"
        with open(self.path, "w") as events:
            self.process = subprocess.Popen(
                ["virsh", "-q", "-c", "qemu:///system", "event", "--loop", "--event", "lifecycle"], stdout=events,
                stderr=events, stdin=subprocess.DEVNULL)
        time.sleep(1)

    def wait(self, pattern):
        poll(lambda: re.search(pattern, self.path.read_text()), 10, f"an event like `{pattern}`")

    def close(self):
        self.process.terminate()
        self.process.wait()


if __name__ == "__main__":
    try:
        check(len(sys.argv) == 4 and sys.argv[1] == "daemon", "usage: libvirt_host.py daemon stop|start PID-FILE")
        daemon(sys.argv[2], sys.argv[3])
    except Failure as failure:
        sys.exit(f"libvirt-daemon: {failure}")
