#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images that somebody made to do harm, through the program itself: made by qemu-img, then changed
after the public descriptions of vulnerabilities in other programs. Every command ends soon, with
little memory, with an exit status of its own, and where it fails with one line that names the
image. A served image that is damaged in one place is served everywhere else."""
import os
import resource
import struct
import subprocess
import threading
import zlib

import peers

KIB, MIB = 1 << 10, 1 << 20
SIZE = 4 * MIB
CLUSTER = 64 * KIB
TIME_MAX_S = 30
MEMORY_MAX_KIB = 256 * KIB
COPIED, COMPRESSED = 1 << 63, 1 << 62
INCOMPATIBLE_AT, CORRUPT, DATA_FILE = 72, 2, 4
HEADER = {"backing_offset": (8, 8), "backing_length": (16, 4), "cluster_bits": (20, 4),
          "size": (24, 8), "l1_size": (36, 4), "l1_offset": (40, 8), "refcount_offset": (48, 8),
          "refcount_clusters": (56, 4), "snapshots": (60, 4), "snapshot_offset": (64, 8),
          "refcount_order": (96, 4), "header_length": (100, 4)}


class Ended:
    """A program that has run to its end, with what it took."""

    def __init__(self, *arguments):
        with subprocess.Popen([peers.ringdisk_path(), *map(str, arguments)],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as process:
            limit = threading.Timer(TIME_MAX_S, process.kill)
            limit.start()
            self.said = process.stderr.read()
            _, self.status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(self.status)
            limit.cancel()
        self.status = process.returncode
        self.memory_kib = usage.ru_maxrss


class HostileCase(peers.Case):
    """An image with 64 KiB of content at its beginning, and what is done to it."""

    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.qcow2"
        self.copy = self.directory / "copy.raw"
        peers.qemu_img("create", "-f", "qcow2", self.image, str(SIZE))
        peers.qemu_io(self.image, ["write -P 17 0 64k", "write -P 18 1M 64k"])
        self.right = self.image.read_bytes()

    def get64(self, at):
        return struct.unpack_from(">Q", self.image.read_bytes(), at)[0]

    def put(self, at, value):
        with open(self.image, "r+b") as file:
            file.seek(at)
            file.write(value if isinstance(value, bytes) else struct.pack(">Q", value))

    def put_field(self, name, value):
        at, length = HEADER[name]
        self.put(at, value.to_bytes(length, "big"))

    def restore(self):
        self.image.write_bytes(self.right)

    def l2_table(self):
        return self.get64(self.get64(40)) & ((1 << 56) - 512)

    def run_bounded(self, *arguments):
        """Runs ringdisk; it may succeed or fail, but not misbehave."""
        done = Ended(*arguments)
        self.assertIn(done.status, (0, 1, 2, 3), f"{arguments}: {done.said}")
        self.assertLess(done.memory_kib, MEMORY_MAX_KIB, arguments)
        if done.status == 1:
            lines = done.said.splitlines()
            self.assertTrue(lines, arguments)
            self.assertIn("disk.qcow2", lines[-1])
            self.assertLess(len(lines[-1]), 600)
        return done

    def run_all(self):
        """Everything that reads an image; gives the status of reading all of its disk."""
        self.run_bounded("info", self.image)
        self.run_bounded("check", self.image)
        self.run_bounded("map", self.image)
        self.run_bounded("snapshot", "-l", self.image)
        return self.run_bounded("convert", "-f", "qcow2", "-O", "raw", self.image,
                                self.copy).status


class HeaderTest(HostileCase):
    """Numbers in the header."""

    def require_refused(self, name, values, **others):
        for value in values:
            with self.subTest(field=name, value=hex(value)):
                self.restore()
                for other, other_value in others.items():
                    self.put_field(other, other_value)
                self.put_field(name, value)
                self.assertEqual(self.run_all(), 1)
                done = self.run_bounded("snapshot", "-c", "one", self.image)
                self.assertEqual(done.status, 1)

    def test_cve_2014_0144_header_and_names(self):
        self.require_refused("header_length", (0, 103, 0x10001, 0x7ffffff8, 0xffffffff))
        self.require_refused("backing_offset", (8, CLUSTER, 1 << 63, (1 << 64) - 1),
                             backing_length=8)
        self.require_refused("backing_length", (1024, 0x7fffffff, 0xffffffff), backing_offset=1024)

    def test_cve_2014_0143_shifts(self):
        self.require_refused("cluster_bits", (0, 8, 22, 63, 64, 0xffffffff))
        self.require_refused("refcount_order", (7, 31, 64, 0xffffffff))

    def test_cve_2014_0144_tables(self):
        self.require_refused("refcount_clusters", (0, 129, 0x7fffffff, 0xffffffff))
        self.require_refused("refcount_offset", (0, CLUSTER + 1, 1 << 62, (1 << 64) - CLUSTER))
        self.require_refused("l1_size", (0, 0x400001, 0x1fffffff, 0x20000001, 0xffffffff))
        self.require_refused("l1_offset", (0, CLUSTER + 8, 1 << 62, (1 << 64) - CLUSTER))

    def test_cve_2014_0223_sizes(self):
        self.require_refused("size", (1 << 63, (1 << 64) - 512, (1 << 63) - 512, 1 << 50))

    def test_cve_2014_0146_snapshot_tables(self):
        for count in (65536, 65537, 0x10000000, 0xffffffff):
            for offset in (0, 1 << 62, len(self.right) // CLUSTER * CLUSTER):
                with self.subTest(count=count, offset=hex(offset)):
                    self.restore()
                    self.put_field("snapshots", count)
                    self.put_field("snapshot_offset", offset)
                    self.run_all()
                    done = self.run_bounded("snapshot", "-d", "1", self.image)
                    self.assertEqual(done.status, 1)


class FileTest(HostileCase):
    """Names of other files."""

    def test_cve_2024_4467_a_data_file_is_not_a_description(self):
        for name in (b'json:{"driver":"null-co","size":"1T"}', b"nbd:localhost:1", b"/etc/passwd",
                     b"../../../../etc/passwd"):
            with self.subTest(name=name):
                self.restore()
                self.put(INCOMPATIBLE_AT, DATA_FILE)
                extension = struct.pack(">II", 0x44415441, len(name)) + name
                self.put(struct.unpack_from(">I", self.right, 100)[0],
                         extension + bytes(-len(extension) % 8 + 8))
                self.assertEqual(self.run_all(), 1)

    def test_backing_files_in_a_loop_or_without_end(self):
        other = self.directory / "other-disk.qcow2"
        for image, below in ((self.image, self.image), (other, self.image), (self.image, other)):
            image.unlink(missing_ok=True)
            peers.qemu_img("create", "-u", "-f", "qcow2", "-b", below.name, "-F", "qcow2", image,
                           "1M")
            if image == other:
                continue
            done = self.run_bounded("convert", "-O", "raw", image, self.copy)
            self.assertEqual(done.status, 1)
            self.run_bounded("info", image)
        below = "gone.raw"
        for number in range(210):
            image = self.directory / f"{number}-disk.qcow2"
            peers.ringdisk("create", "-q", "-u", "-f", "qcow2", "-b", below, "-F",
                           "qcow2" if number else "raw", image, "1M")
            below = image.name
        done = self.run_bounded("convert", "-O", "raw", image, self.copy)
        self.assertEqual(done.status, 1)


class TableTest(HostileCase):
    """Entries of L1, L2 and refcount tables."""

    def test_cve_2014_0147_refcount_blocks_on_other_tables(self):
        refcounts = self.get64(48)
        for place in (0, refcounts, self.get64(40), refcounts + 512, 1 << 62):
            with self.subTest(place=hex(place)):
                self.restore()
                self.put(refcounts, place)
                self.assertEqual(self.run_all(), 0, "a reader needs no refcounts")
                done = self.run_bounded("snapshot", "-c", "one", self.image)
                self.assertEqual(done.status, 1)

    def test_cve_2014_0143_entries_beyond_everything(self):
        l1, l2 = self.get64(40), self.l2_table()
        for table, entry in ((l1, COPIED | 1 << 55), (l2, COPIED | 1 << 55), (l2, COPIED | 512),
                             (l2, (1 << 62) - 1)):
            with self.subTest(table=table, entry=hex(entry)):
                self.restore()
                self.put(table, entry)
                self.run_all()
                self.run_bounded("snapshot", "-c", "one", self.image)
                self.run_bounded("resize", "--shrink", self.image, "64k")

    def test_tables_that_are_their_own_content(self):
        l1, l2 = self.get64(40), self.l2_table()
        for at, place in ((l1, l1), (l1, 0), (l2, l2), (l2, l1), (l1, self.get64(48))):
            with self.subTest(at=at, place=place):
                self.restore()
                self.put(at, COPIED | place)
                self.run_all()
                self.run_bounded("resize", "--shrink", self.image, "64k")
                self.run_bounded("check", "-r", "all", self.image)

    def test_a_decompression_bomb(self):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = packer.compress(bytes(128 * MIB)) + packer.flush()
        self.assertLess(len(bomb), 2 * CLUSTER)
        place = (len(self.right) + CLUSTER - 1) // CLUSTER * CLUSTER
        self.put(place, bomb.ljust(2 * CLUSTER, b"\0"))
        self.put(self.l2_table(), COMPRESSED | 255 << 54 | place)
        if self.run_all() == 0:
            self.assertEqual(self.copy.read_bytes()[:CLUSTER], bytes(CLUSTER))


class ServedTest(HostileCase):
    """An image that is found damaged while it is in use."""

    def test_healthy_parts_are_served_on(self):
        l2, l1 = self.l2_table(), self.get64(40)
        data = self.get64(l2) & ((1 << 56) - 512)
        for entry in (COPIED | l1, COPIED | data | 16, COPIED | (data + 512), 1 << 61 | data):
            with self.subTest(entry=hex(entry)):
                self.restore()
                self.put(l2, entry)
                with peers.Server([peers.ringdisk_path(), "serve", self.image, "--nbd",
                                   f"unix:{self.directory / 's'}"], self.directory / "s",
                                  ready_line="ringdisk: ready", exit_status=1) as server:
                    peers.nbdsh(server.uri(), HEALTHY, DAMAGED, HEALTHY, REFUSED, HEALTHY)
                    self.assertIn("disk.qcow2", server.log())
                self.assertEqual(self.get64(INCOMPATIBLE_AT), CORRUPT)
                again = peers.ringdisk("serve", self.image, "--nbd",
                                       f"unix:{self.directory / 's'}", expect=1)
                self.assertIn("check -r all", again.stderr)
                with peers.serve_ringdisk(self.image, self.directory / "s",
                                          "--read-only") as server:
                    peers.nbdsh(server.uri(), HEALTHY)


HEALTHY = "assert h.pread(65536, 1 << 20) == bytes([18]) * 65536"
DAMAGED = """
import errno
try:
    h.pread(512, 0)
    raise SystemExit("a damaged cluster was read")
except nbd.Error as error:
    assert error.errnum == errno.EIO, error
"""
REFUSED = """
for at in (0, 2 << 20):
    try:
        h.pwrite(bytes(512), at)
        raise SystemExit("a damaged image was written")
    except nbd.Error:
        pass
"""


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    peers.main(needs=["qemu-img", "qemu-io", "nbdsh"])
