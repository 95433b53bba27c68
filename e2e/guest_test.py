#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The virtual machine itself: what a test relies on when it runs a script in a guest."""
import pathlib
import sys
import tempfile
import unittest

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "interop"))

import pattern  # noqa: E402  (the path is set above)
import peers  # noqa: E402
import vm  # noqa: E402
from vm.guest import most_telling  # noqa: E402
from vm.initramfs import Initramfs, libraries  # noqa: E402
from vm.kernel import newest  # noqa: E402

LATE = "vm-init: the script runs"


class Script(vm.Case):
    """What comes back from a script."""

    @classmethod
    def machine(cls):
        directory = tempfile.TemporaryDirectory(prefix="ringdisk-e2e-")
        cls.addClassCleanup(directory.cleanup)
        cls.disk = pathlib.Path(directory.name) / "disk.raw"
        cls.content = pattern.full(1 << 20, seed=1)
        cls.content.write(cls.disk)
        return {"disks": [cls.disk], "modules": ["nbd nbds_max=3"], "forgiven": LATE}

    def test_runs_as_root_on_a_current_kernel(self):
        self.assertEqual(self.guest.run("id -u; uname -r").split()[0], "0")
        self.assertRegex(self.guest.run("uname -r"), r"^6\.")

    def test_both_streams_and_odd_bytes_come_back(self):
        text = self.guest.run("echo one; echo two >&2; printf 'three\\n'")
        self.assertEqual(text, "one\ntwo\nthree\n")

    def test_an_unexpected_status_is_an_error_with_the_words(self):
        with self.assertRaisesRegex(vm.GuestFailed, "(?s)status 7, expected 0.*because"):
            self.guest.run("echo because; exit 7")
        self.assertEqual(self.guest.run("echo fine; exit 7", expect=7), "fine\n")

    def test_the_first_command_that_fails_ends_it(self):
        self.assertNotIn("never", self.guest.run("false | cat; echo never", expect=1))

    def test_one_that_hangs_is_stopped_and_the_next_one_runs(self):
        with self.assertRaisesRegex(vm.GuestFailed, "(?s)stopped after 1 s.*so far.*sleep 77"):
            self.guest.run("echo so far; sleep 77", timeout_s=1)
        self.assertEqual(self.guest.run("echo next"), "next\n")

    def test_what_it_leaves_running_stays(self):
        self.guest.run("sleep 1000 & echo $! >/run/pid")
        self.guest.run("kill -0 $(cat /run/pid); kill $(cat /run/pid)")

    def test_a_long_one_arrives_whole(self):
        lines = "\n".join(f": line {number}" for number in range(20_000))
        self.assertEqual(self.guest.run(f"{lines}\necho end"), "end\n")

    def test_module_parameters_are_given(self):
        self.assertEqual(self.guest.run("ls -d /dev/nbd* | wc -l").strip(), "3")

    def test_a_disk_is_the_file_both_ways(self):
        self.guest.run("dd if=/dev/vda of=/tmp/copy bs=64k; dd if=/dev/zero of=/dev/vda bs=64k "
                       "count=16 conv=fsync; cmp -n 1048576 /dev/vda /dev/zero")
        self.assertEqual(self.disk.read_bytes(), bytes(1 << 20))
        self.guest.run("dd if=/tmp/copy of=/dev/vda bs=64k conv=fsync")
        self.content.require(self.disk)


class VhostUser(unittest.TestCase):
    """A disk whose server runs outside: QEMU's own here."""

    def test_its_disk_is_the_servers_image(self):
        with peers.scratch(prefix="ringdisk-e2e-") as directory:
            image, wanted, socket = (directory / name for name in ("disk", "wanted", "socket"))
            pattern.full(1 << 20, seed=2).write(wanted)
            image.write_bytes(bytes(1 << 20))
            with peers.Server(
                    [peers.need("qemu-storage-daemon"), "--blockdev",
                     f"driver=file,node-name=disk,filename={image}", "--export",
                     "type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=2,"
                     f"addr.type=unix,addr.path={socket}"], socket):
                with vm.Guest(disks=[wanted], vhost_user=[socket]) as guest:
                    guest.run("[ $(ls /sys/block/vdb/mq | wc -l) = 2 ]\n"
                              "dd if=/dev/vda of=/dev/vdb bs=64k conv=fsync; cmp /dev/vda /dev/vdb")
            peers.require_same(wanted, image)


class Trouble(unittest.TestCase):
    """A guest whose kernel is not well."""

    def test_complaints_fail_the_test(self):
        with self.assertRaisesRegex(vm.GuestFailed, "the kernel complained: .*BUG: planted"):
            with vm.Guest(forgiven="BUG: forgiven") as guest:
                guest.run("echo '<1>BUG: forgiven' >/dev/kmsg; echo '<1>BUG: planted' >/dev/kmsg")
                self.assertEqual(len(guest.complaints()), 1)

    def test_a_panic_ends_the_wait_and_is_shown(self):
        with self.assertRaisesRegex(vm.GuestFailed, "(?s)ended by itself.*Kernel panic"):
            with vm.Guest() as guest:
                guest.run("echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger")

    def test_the_first_complaint_is_shown_and_what_follows_or_the_end(self):
        quiet = [f"line {i}" for i in range(100)]
        self.assertEqual(most_telling(quiet)[-1], "line 99")
        shown = most_telling(quiet[:5] + ["Kernel panic"] + quiet)
        self.assertEqual(shown[:2], ["Kernel panic", "line 0"])
        self.assertEqual(most_telling(quiet[:3]), quiet[:3])

    def test_a_module_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(vm.Absent, "no module no_such_module"):
            with vm.Guest(modules=["no-such-module"]):
                pass

    def test_a_tool_that_is_not_there_is_named(self):
        with self.assertRaisesRegex(vm.Absent, "no-such-tool is not on this machine"):
            with vm.Guest(tools=["no-such-tool"]):
                pass


class Parts(unittest.TestCase):
    """What needs no guest."""

    def test_the_newest_kernel_is_by_number_and_of_our_flavour(self):
        names = ["linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.90+deb12-amd64",
                 "linux-image-6.12.12+deb12-cloud-amd64", "linux-image-6.1.0-99-cloud-amd64",
                 "linux-image-6.12.40+deb12-cloud-amd64-dbg",
                 "linux-image-6.12.40+deb12-cloud-amd64-unsigned"]
        self.assertEqual(newest(names), "linux-image-6.12.12+deb12-cloud-amd64")
        self.assertIsNone(newest(["linux-image-6.12.40+deb12-amd64"]))
        self.assertIsNone(newest([]))

    def test_an_archive_is_what_cpio_reads(self):
        with tempfile.TemporaryDirectory(prefix="ringdisk-e2e-") as directory:
            tree = Initramfs()
            tree.add_bytes("/etc/odd", b"12345")
            tree.add_file("/bin/bash")
            tree.add_bytes("/bin/bash", b"the first one stays")
            target = pathlib.Path(directory) / "initramfs"
            tree.write(target)
            peers.run(["busybox", "cpio", "-idm", "-F", target], cwd=directory)
            unpacked = pathlib.Path(directory)
            self.assertEqual((unpacked / "etc/odd").read_bytes(), b"12345")
            peers.require_same(unpacked / "bin/bash", "/bin/bash")

    def test_programs_bring_their_libraries_and_scripts_none(self):
        self.assertTrue(any("libc.so" in path for path in libraries("/bin/bash")))
        self.assertTrue(any("/ld-" in path for path in libraries("/bin/bash")))
        self.assertEqual(libraries(__file__), [])


if __name__ == "__main__":
    vm.main(needs=["qemu-storage-daemon"])
