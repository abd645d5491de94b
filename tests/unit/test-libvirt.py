#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`holdfast libvirt` as an operator sees it: hosts in a folder, and domains of libvirt's test driver.

usage: test-libvirt.py [PROGRAM]      PROGRAM defaults to build/gcc/holdfast; holdfast-libvirt is beside it

Nothing of this machine's libvirt is asked or changed. Exits 0 or 1; the last line is "N passed, N failed,
N skipped".
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = TOP / "build/gcc/holdfast"
STOP = TOP / "deploy/libexec/libvirt-guests-stop"
TIMEOUT = 90

UNITS = "etc/systemd/system"
MOUNT = f"{UNITS}/var-lib-libvirt-qemu-ram.mount"
DAEMONS = [f"{UNITS}/libvirtd.service.d/holdfast.conf", f"{UNITS}/virtqemud.service.d/holdfast.conf"]
GUESTS = f"{UNITS}/libvirt-guests.service.d/holdfast.conf"


class LibvirtTest(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-libvirt."))
        self.env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOLDFAST_LIBEXEC_DIR": str(PROGRAM.parent)}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    def tearDown(self):
        shutil.rmtree(self.dir)

    def run_cli(self, *args, **env):
        p = subprocess.run([PROGRAM, "libvirt", *args], env={**self.env, **env}, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT, text=True)
        self.assertNotIn("Sanitizer", p.stderr)
        self.assertNotIn("runtime error", p.stderr)
        return p


class Program(LibvirtTest):
    def test_usage(self):
        for args, what in (([], "libvirt what?"), (["frob"], "no verb 'frob'"), (["setup", "--frob"], "no option '--frob'"),
                           (["setup", "more"], "too many arguments"), (["setup", "--size", "much"], "'much' is no size"),
                           (["setup", "--size"], "needs a value"), (["enable"], "which DOMAIN"),
                           (["enable", "--all", "x"], "not both"), (["enable", "x", "y"], "too many arguments")):
            p = self.run_cli(*args)
            self.assertEqual((p.returncode, p.stdout), (2, ""), args)
            self.assertIn(what, p.stderr)

    def test_help(self):
        for verb in ("setup", "enable"):
            p = self.run_cli(verb, "--help")
            self.assertEqual((p.returncode, p.stderr), (0, ""))
            self.assertTrue(p.stdout.startswith(f"usage: holdfast libvirt {verb} "), p.stdout)

    def test_not_installed(self):
        p = self.run_cli("setup", HOLDFAST_LIBEXEC_DIR=str(self.dir))
        self.assertEqual(p.returncode, 3)
        self.assertIn(f"there is no {self.dir}/holdfast-libvirt", p.stderr)
        # What needs no program works.
        self.assertEqual(self.run_cli("--help", HOLDFAST_LIBEXEC_DIR=str(self.dir)).returncode, 0)

    def test_library_missing(self):
        """The dynamic linker says which one; holdfast what to do."""
        program = self.dir / "holdfast-libvirt"
        program.write_text("#!/bin/sh\necho libvirt.so.0: cannot open >&2\nexit 127\n")
        program.chmod(0o755)
        p = self.run_cli("setup", HOLDFAST_LIBEXEC_DIR=str(self.dir))
        self.assertEqual(p.returncode, 3)
        self.assertIn("libvirt.so.0", p.stderr)
        self.assertIn("a library of libvirt's is missing", p.stderr)

    def test_only_it_has_libvirt(self):
        def needs(name):
            return subprocess.run(["readelf", "-d", PROGRAM.parent / name], stdout=subprocess.PIPE, check=True,
                                  text=True).stdout

        for name in ("holdfast", "holdfastd", "holdfast-vmm"):
            self.assertNotIn("libvirt", needs(name))
            self.assertNotIn("libxml", needs(name))
        self.assertIn("libvirt.so", needs("holdfast-libvirt"))


class Setup(LibvirtTest):
    def setUp(self):
        super().setUp()
        self.write("etc/libvirt/qemu.conf", "#user = \"x\"\n")
        self.write("etc/passwd", "root:x:0:0::/:/bin/sh\nlibvirt-qemu:x:64055:108::/:/bin/false\n")
        self.write("etc/group", "kvm:x:108:\nlibvirt-qemu:x:64056:\n")
        self.write("sys/kernel/mm/transparent_hugepage/shmem_enabled", "never\n")
        self.write("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:21 / /dev/shm rw - tmpfs tmpfs rw\n")
        self.write("usr/lib/systemd/system/libvirt-guests.service", "[Service]\nExecStop=/opt/guests.sh stop\n")

    def write(self, path, text):
        (self.dir / path).parent.mkdir(parents=True, exist_ok=True)
        (self.dir / path).write_text(text)

    def read(self, path):
        return (self.dir / path).read_text()

    def setup(self, *args):
        return self.run_cli("setup", "--root", str(self.dir), *args)

    def tree(self):
        return {p: p.read_bytes() for p in self.dir.rglob("*") if p.is_file()}

    def test_check_changes_nothing(self):
        before = self.tree()
        p = self.setup("--check")
        self.assertEqual((p.returncode, p.stderr), (1, ""))
        self.assertEqual(self.tree(), before)
        for path in (MOUNT, GUESTS, *DAEMONS):
            self.assertIn(f"--- /dev/null\n+++ /{path}\n", p.stdout)
        self.assertIn("\n+Where=/var/lib/libvirt/qemu/ram\n", p.stdout)

    def test_writes_once(self):
        p = self.setup()
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.assertIn("size=90%%,mode=0711,uid=64055,gid=64056,", self.read(MOUNT))
        self.assertIn("huge=advise", self.read(MOUNT))
        for path in DAEMONS:
            self.assertIn("\nAfter=holdfastd.service var-lib-libvirt-qemu-ram.mount\n", self.read(path))
        self.assertIn("/opt/guests.sh stop'", self.read(GUESTS))
        self.assertEqual((self.dir / MOUNT).stat().st_mode & 0o777, 0o644)
        # What was shown is what was written.
        self.assertEqual([line[1:] for line in p.stdout.splitlines() if line.startswith("+Options=")],
                         [line for line in self.read(MOUNT).splitlines() if line.startswith("Options=")])
        before = self.tree()
        for args in ([], ["--check"]):
            p = self.setup(*args)
            self.assertEqual((p.returncode, p.stdout), (0, "The host is set up: nothing to do.\n"))
        self.assertEqual(self.tree(), before)

    def test_size_stays(self):
        self.assertEqual(self.setup("--size", "64G").returncode, 0)
        self.assertIn("Options=size=64G,", self.read(MOUNT))
        self.assertEqual(self.setup("--check").returncode, 0)
        p = self.setup("--size", "50%")
        self.assertEqual(p.returncode, 0)
        self.assertIn("-Options=size=64G,", p.stdout)
        self.assertIn("+Options=size=50%%,", p.stdout)
        self.assertEqual(self.setup("--check").returncode, 0)

    def test_edited_file_is_shown(self):
        self.setup()
        self.write(DAEMONS[0], self.read(DAEMONS[0]) + "Requires=other.service\n")
        p = self.setup("--check")
        self.assertEqual(p.returncode, 1)
        self.assertIn(f"--- /{DAEMONS[0]}\n", p.stdout)
        self.assertIn("\n-Requires=other.service\n", p.stdout)
        self.assertNotIn(DAEMONS[1], p.stdout)

    def test_owner_of_qemu_conf(self):
        self.write("etc/libvirt/qemu.conf", "user = \"root\"\ngroup = \"+77\"\nmemory_backing_dir = '/srv/vm-ram'\n")
        self.assertEqual(self.setup().returncode, 0)
        unit = self.read(f"{UNITS}/srv-vm\\x2dram.mount")
        self.assertIn("uid=0,gid=77,", unit)
        self.assertIn("Where=/srv/vm-ram\n", unit)

    def test_no_huge_pages(self):
        """A kernel without them refuses to mount with huge=."""
        shutil.rmtree(self.dir / "sys")
        self.assertEqual(self.setup().returncode, 0)
        self.assertNotIn("huge=", self.read(MOUNT))

    def test_tmpfs_already(self):
        self.write("etc/libvirt/qemu.conf", "memory_backing_dir = \"/dev/shm\"\n")
        p = self.setup()
        self.assertEqual(p.returncode, 0)
        self.assertIn("on a tmpfs already: /dev/shm", p.stdout)
        self.assertEqual(list((self.dir / UNITS).glob("*.mount")), [])
        self.assertIn("\nAfter=holdfastd.service\n", self.read(DAEMONS[0]))

    def test_refused(self):
        for conf, mounts, what in (
                ("memory_backing_dir = 5\n", "", "not one string in quotes"),
                ("memory_backing_dir = \"/a b\"\n", "", "can't be mounted"),
                ("memory_backing_dir = \"/\"\n", "", "can't be mounted"),
                ("user = \"nobody-here\"\n", "", "no user 'nobody-here'"),
                ("", "30 22 0:3 / /var/lib/libvirt/qemu/ram rw - hugetlbfs x rw\n", "type hugetlbfs")):
            self.write("etc/libvirt/qemu.conf", conf)
            self.write("proc/self/mountinfo", mounts)
            before = self.tree()
            for args in ([], ["--check"]):
                p = self.setup(*args)
                self.assertEqual((p.returncode, p.stdout), (3, ""), what)
                self.assertIn(what, p.stderr)
                self.assertEqual(len(p.stderr.splitlines()), 2, p.stderr)
            self.assertEqual(self.tree(), before)

    def test_foreign_unit(self):
        self.write(MOUNT, "[Mount]\nWhat=/dev/sdb\nWhere=/var/lib/libvirt/qemu/ram\n")
        p = self.setup()
        self.assertEqual(p.returncode, 3)
        self.assertIn("is not holdfast's", p.stderr)
        self.assertIn("What=/dev/sdb", self.read(MOUNT))
        self.write("proc/self/mountinfo", "30 22 0:3 / /var/lib/libvirt/qemu/ram rw - tmpfs x rw\n")
        self.assertEqual(self.setup().returncode, 0)
        self.assertIn("What=/dev/sdb", self.read(MOUNT))

    def test_no_libvirt(self):
        shutil.rmtree(self.dir / "etc/libvirt")
        p = self.setup()
        self.assertEqual(p.returncode, 3)
        self.assertIn("libvirt is not installed", p.stderr)

    def test_guests_service(self):
        """Without the service nothing is written for it; one that isn't understood is left alone."""
        self.write("usr/lib/systemd/system/libvirt-guests.service", "[Service]\nExecStop=-/a 'b c'\n")
        p = self.setup()
        self.assertEqual(p.returncode, 0)
        self.assertIn("is not understood", p.stderr)
        self.assertNotIn("ExecStop", self.read(GUESTS))
        (self.dir / GUESTS).unlink()
        (self.dir / "usr/lib/systemd/system/libvirt-guests.service").unlink()
        self.assertEqual(self.setup("--check").returncode, 0)
        self.assertFalse((self.dir / GUESTS).exists())

    def test_apparmor(self):
        """Where libvirt's profiles take additions from a folder they get one, and nothing is written elsewhere."""
        drop_in = "etc/apparmor.d/abstractions/libvirt-qemu.d/holdfast"
        self.write("etc/apparmor.d/abstractions/libvirt-qemu", "  #include <local/abstractions/libvirt-qemu>\n")
        self.assertEqual(self.setup().returncode, 0)
        self.assertFalse((self.dir / drop_in).exists())
        self.write("etc/apparmor.d/abstractions/libvirt-qemu", "  include if exists <abstractions/libvirt-qemu.d>\n")
        self.assertEqual(self.setup("--check").returncode, 1)
        self.assertEqual(self.setup().returncode, 0)
        self.assertIn("\nunix (send, receive) type=stream addr=none peer=(label=unconfined),\n", self.read(drop_in))
        self.assertEqual(self.setup("--check").returncode, 0)

    def test_no_diff_no_writing(self):
        """What can't be shown is not done."""
        before = self.tree()
        p = self.run_cli("setup", "--root", str(self.dir), PATH=str(self.dir))
        self.assertEqual(p.returncode, 1)
        self.assertIn("can't show what would be changed", p.stderr)
        self.assertEqual(self.tree(), before)

    def test_write_fails(self):
        self.write(f"{UNITS}/libvirtd.service.d", "in the way")
        p = self.setup()
        self.assertEqual(p.returncode, 1)
        self.assertIn("libvirtd.service.d", p.stderr)
        (self.dir / UNITS / "libvirtd.service.d").unlink()
        self.assertEqual(self.setup().returncode, 0)
        self.assertEqual(self.setup("--check").returncode, 0)


class Enable(LibvirtTest):
    def node(self, *domains):
        """A node of libvirt's test driver with these domains. Each connection has it anew."""
        path = self.dir / "node.xml"
        path.write_text("<node>%s</node>" % "".join(domains))
        return f"test://{path}"

    @staticmethod
    def domain(name, inside="", run="off", extra=""):
        state = "5" if run == "off" else "1"
        return (f"<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'><name>{name}</name>"
                f"<memory unit='KiB'>1024</memory>{inside}<os><type>hvm</type></os><devices>{extra}</devices>"
                f"<test:runstate>{state}</test:runstate></domain>")

    SHARED = "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"

    def enable(self, uri, *args):
        return self.run_cli("enable", "--connect", uri, *args)

    def test_off(self):
        uri = self.node(self.domain("a"))
        p = self.enable(uri, "--check", "a")
        self.assertEqual((p.returncode, p.stderr), (1, ""))
        self.assertIn('+    <source type="file"/>\n+    <access mode="shared"/>\n', p.stdout)
        self.assertTrue(p.stdout.endswith("\na: to be changed\n"), p.stdout)
        # Libvirt takes it, and has it then: the program reads it back.
        p = self.enable(uri, "a")
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.assertTrue(p.stdout.endswith("\na: changed\n"), p.stdout)

    def test_running(self):
        p = self.enable("test:///default", "test")
        self.assertEqual((p.returncode, p.stderr), (0, ""))
        self.assertIn("test: changed; it runs with the memory of before", p.stdout)

    def test_done(self):
        p = self.enable(self.node(self.domain("a", self.SHARED, run="on")), "a")
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, "a: its definition is as it should be\n", ""))
        p = self.enable(self.node(self.domain("a", self.SHARED)), "a", "--check")
        self.assertEqual(p.returncode, 0)

    def test_refused(self):
        uri = self.node(self.domain("a", "<memoryBacking><hugepages/></memoryBacking>"))
        for args in ([], ["--check"]):
            p = self.enable(uri, "a", *args)
            self.assertEqual((p.returncode, p.stdout), (3, ""))
            self.assertIn("holdfast: a: its memory is on hugetlb pages", p.stderr)
            self.assertEqual(len(p.stderr.splitlines()), 2)

    def test_all(self):
        huge = "<memoryBacking><hugepages/></memoryBacking>"
        uri = self.node(self.domain("a"), self.domain("b", huge), self.domain("c", self.SHARED), self.domain("d"))
        p = self.enable(uri, "--all")
        self.assertEqual(p.returncode, 3)
        for line in ("a: changed", "c: its definition is as it should be", "d: changed"):
            self.assertIn(f"{line}\n", p.stdout)
        self.assertIn("holdfast: b: its memory is on hugetlb pages", p.stderr)
        p = self.enable(self.node(self.domain("a"), self.domain("c", self.SHARED)), "--all", "--check")
        self.assertEqual(p.returncode, 1)
        p = self.enable(self.node(), "--all")
        self.assertEqual((p.returncode, p.stdout), (0, "libvirt has no persistent domains.\n"))

    def test_by_uuid(self):
        p = self.enable("test:///default", "--check", "6695eb01-f6a4-8304-79aa-97f2502e193f")
        self.assertEqual(p.returncode, 1)
        self.assertIn("\ntest: to be changed", p.stdout)

    def test_unknown(self):
        p = self.enable("test:///default", "nix")
        self.assertEqual((p.returncode, p.stdout), (1, ""))
        self.assertIn("libvirt has no domain 'nix'", p.stderr)
        # 1 would be "there is something to do".
        self.assertEqual(self.enable("test:///default", "nix", "--check").returncode, 3)

    def test_no_daemon(self):
        p = self.enable(f"qemu+unix:///system?socket={self.dir}/sock", "--all")
        self.assertEqual((p.returncode, p.stdout), (3, ""))
        self.assertIn("can't connect to libvirt", p.stderr)


class GuestsStop(LibvirtTest):
    """What libvirt-guests.service is stopped with, with a systemctl of the test's own."""

    def setUp(self):
        super().setUp()
        (self.dir / "bin").mkdir()
        (self.dir / "libvirt/qemu/swtpm").mkdir(parents=True)
        self.jobs("12 kexec.target start waiting")
        self.prepared(True)

    def jobs(self, text, code=0):
        program = self.dir / "bin/systemctl"
        program.write_text(f"#!/bin/sh\n[ \"$1\" = list-jobs ] || exit 9\necho ' {text}'\nexit {code}\n")
        program.chmod(0o755)

    def prepared(self, on):
        path = self.dir / "prepared"
        path.write_text("") if on else path.unlink()

    def guest(self, pid, cgroup, name="a"):
        (self.dir / f"libvirt/qemu/{name}.pid").write_text(str(pid))
        if cgroup:
            (self.dir / f"proc/{pid}").mkdir(parents=True)
            (self.dir / f"proc/{pid}/cgroup").write_text(f"0::{cgroup}\n")

    def stops(self):
        """Whether guests are stopped as ever."""
        env = {"PATH": f"{self.dir}/bin:{os.environ['PATH']}", "HOLDFAST_RUN_DIR": str(self.dir),
               "HOLDFAST_LIBVIRT_RUN_DIR": f"{self.dir}/libvirt", "HOLDFAST_PROC_DIR": f"{self.dir}/proc"}
        p = subprocess.run([STOP, "echo", "stop", "it"], env=env, stdout=subprocess.PIPE, check=True, text=True,
                           timeout=TIMEOUT)
        self.assertIn(p.stdout.splitlines()[0], ("stop it", "holdfast carries the guests over the kexec: none is "
                                                 "saved or shut down"))
        return p.stdout == "stop it\n"

    def test_carried(self):
        self.guest(7, "/holdfast.slice/holdfast-guest-x.scope/libvirt/emulator")
        self.guest(8, "/holdfast.slice/holdfast-spawn.service", "swtpm/a-swtpm")
        self.guest(9, None, "ended")
        # libvirt's daemon is to be stopped.
        self.guest(10, "/system.slice/libvirtd.service", "driver")
        self.assertFalse(self.stops())

    def test_nothing_prepared(self):
        self.prepared(False)
        self.assertTrue(self.stops())

    def test_other_shutdown(self):
        for jobs, code in (("12 reboot.target start waiting", 0), ("12 kexec.target stop waiting", 0), ("", 0),
                           ("12 my-kexec.target start waiting", 0), ("12 kexec.target start waiting", 1)):
            self.jobs(jobs, code)
            self.assertTrue(self.stops(), jobs)

    def test_one_would_be_stopped(self):
        self.guest(7, "/holdfast.slice/holdfast-guest-x.scope")
        self.guest(8, "/machine.slice/machine-qemu-1.scope", "b")
        self.assertTrue(self.stops())

    def test_tpm_would_be_stopped(self):
        self.guest(7, "/holdfast.slice/holdfast-guest-x.scope")
        self.guest(8, "/machine.slice/machine-qemu-1.scope/libvirt/emulator", "swtpm/a-swtpm")
        self.assertTrue(self.stops())

    def test_doubt(self):
        self.guest("", None)
        self.assertTrue(self.stops())

    def test_drop_in_runs_it(self):
        """The command of the drop-in, as systemd gives it to the shell; without holdfast it is libvirt's own."""
        root = self.dir / "root"
        for path, text in (("etc/libvirt/qemu.conf", ""), ("etc/passwd", "libvirt-qemu:x:1:1::/:\n"),
                           ("etc/group", "libvirt-qemu:x:1:\n"),
                           ("lib/systemd/system/libvirt-guests.service", "ExecStop=/bin/echo stop it\n")):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        self.assertEqual(self.run_cli("setup", "--root", str(root)).returncode, 0)
        line = (root / GUESTS).read_text().splitlines()[-1]
        self.assertTrue(line.startswith("ExecStop=/bin/sh -c '") and line.endswith("'"), line)
        command = line[len("ExecStop=/bin/sh -c '"):-1].replace("$$", "$")
        wrapper = command.split("=", 1)[1].split(";", 1)[0]
        for stand_in, said in ((str(self.dir / "gone"), "stop it\n"), ("/bin/echo", "/bin/echo stop it\n")):
            p = subprocess.run(["/bin/sh", "-c", command.replace(wrapper, stand_in)], stdout=subprocess.PIPE, check=True,
                               text=True)
            self.assertEqual(p.stdout, said)


def main():
    global PROGRAM
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    if len(sys.argv) == 2:
        PROGRAM = pathlib.Path(sys.argv[1]).resolve()
    for program in (PROGRAM, PROGRAM.parent / "holdfast-libvirt"):
        if not os.access(program, os.X_OK):
            sys.exit(f"{program}: no such program; build it first")
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=1).run(suite)
    failed = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed, {skipped} skipped")
    sys.exit(0 if failed == 0 and result.testsRun > skipped else 1)


if __name__ == "__main__":
    main()
