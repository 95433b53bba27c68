#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ringdisk's NBD server before clients that are not ours: libnbd (nbdinfo, nbdsh, nbdcopy), QEMU
(qemu-img, qemu-io) and fio. What they write through it is on the disk, what is on the disk they
read, and what they are told of it is right."""
import json
import subprocess
import unittest

import pattern
import peers

SIZE = 32 << 20


class Served(peers.Case):
    """A raw disk of a known pattern under a server."""

    def setUp(self):
        super().setUp()
        self.disk = pattern.sparse(SIZE, seed=7)
        self.image = self.directory / "disk.raw"
        self.disk.write(self.image)

    def serve(self, *arguments, image=None):
        image_format = "raw" if image is None else "qcow2"
        return peers.serve_ringdisk(image or self.image, self.directory / "nbd.sock",
                                    "-f", image_format, *arguments)


class Libnbd(Served):
    """nbdinfo, nbdsh and nbdcopy."""

    def test_nbdinfo_shows_size_and_abilities(self):
        with self.serve() as server:
            export = peers.nbdinfo(server.uri())["exports"][0]
        self.assertEqual(export["export-size"], SIZE)
        self.assertIn("base:allocation", export["contexts"])
        self.assertFalse(export["is_read_only"])
        for ability in ("can_multi_conn", "can_fua", "can_flush", "can_trim", "can_zero",
                        "can_fast_zero", "can_df", "can_cache"):
            self.assertTrue(export[ability], ability)
        self.assertEqual(export["block_size_minimum"], 1)
        self.assertEqual(export["block_size_maximum"], 32 << 20)

    def test_a_read_only_export_refuses_writes(self):
        with self.serve("--read-only") as server:
            self.assertTrue(peers.nbdinfo(server.uri())["exports"][0]["is_read_only"])
            said = peers.nbdsh(server.uri(), "h.set_strict_mode(0)",
                               "try:\n h.pwrite(b'x' * 512, 0)\nexcept nbd.Error as e:\n"
                               " print(e.errno)")
        self.assertEqual(said.stdout.strip(), "EPERM")
        self.disk.require(self.image)

    def test_several_exports_are_listed_and_chosen_by_name(self):
        second = pattern.full(1 << 20, seed=8)
        second.write(self.directory / "second.raw")
        with peers.serve_ringdisk([self.image, self.directory / "second.raw"],
                                  self.directory / "nbd.sock", "-f", "raw",
                                  "--name", "a", "--name", "b") as server:
            listed = peers.nbdinfo(server.uri(), "--list")["exports"]
            self.assertEqual([export["export-name"] for export in listed], ["a", "b"])
            peers.nbdcopy(server.uri("b"), self.directory / "copy.raw")
        second.require(self.directory / "copy.raw")

    def test_nbdcopy_reads_the_disk_over_one_and_four_connections(self):
        with self.serve() as server:
            for connections in (1, 4):
                target = self.directory / f"copy{connections}.raw"
                peers.nbdcopy(server.uri(), target, f"--connections={connections}")
                self.disk.require(target)

    def test_nbdcopy_writes_the_disk(self):
        other = pattern.sparse(SIZE, seed=9)
        source = self.directory / "other.raw"
        other.write(source)
        with self.serve() as server:
            peers.nbdcopy(source, server.uri(), "--connections=4", "--flush")
        other.require(self.image)

    def test_every_command_works_in_one_session(self):
        script = """
assert h.get_size() == 32 << 20
block = bytes(range(256)) * 16
h.pwrite(block, 12345, nbd.CMD_FLAG_FUA)
assert h.pread(4096, 12345) == block
h.zero(100, 12400)
assert h.pread(100, 12400) == bytes(100)
h.zero(65536, 1 << 20, nbd.CMD_FLAG_NO_HOLE)
h.trim(1 << 20, 4 << 20, nbd.CMD_FLAG_FUA)
h.cache(1 << 20, 0)
h.flush()
assert h.pread(65536, 1 << 20) == bytes(65536)
chunks = []
h.pread_structured(1 << 20, 0, lambda b, o, s, e: chunks.append((o, len(b))))
assert sum(length for _, length in chunks) == 1 << 20
try:
    h.set_strict_mode(0)
    h.pread(512, 32 << 20)
    assert False, "a read past the end succeeded"
except nbd.Error as e:
    assert e.errno == "EINVAL", e.errno
assert h.pread(4096, 12345)[:55] == block[:55]
print("done")
"""
        with self.serve() as server:
            said = peers.nbdsh(server.uri(), script)
        self.assertEqual(said.stdout.strip(), "done")


class Qemu(Served):
    """qemu-img and qemu-io over nbd:."""

    def test_qemu_img_reads_a_qcow2_and_writes_it(self):
        image = self.directory / "disk.qcow2"
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", self.image, image)
        other = pattern.sparse(SIZE, seed=11)
        source = self.directory / "other.raw"
        other.write(source)
        with self.serve(image=image) as server:
            peers.qemu_img("convert", "-f", "raw", "-O", "raw", server.uri(),
                           self.directory / "read.raw")
            self.disk.require(self.directory / "read.raw")
            peers.qemu_img("convert", "-n", "-f", "raw", "-O", "raw", source, server.uri())
        peers.qemu_check(image)
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", image, self.directory / "back.raw")
        other.require(self.directory / "back.raw")

    def test_qemu_sees_the_holes_of_the_file(self):
        with self.serve() as server:
            through_server = peers.qemu_map(server.uri(), "-f", "raw")
        zeroes = sum(part["length"] for part in through_server if part["zero"])
        direct = peers.qemu_map(self.image, "-f", "raw")
        self.assertEqual(zeroes, sum(part["length"] for part in direct if part["zero"]))

    def test_qemu_io_verifies_what_it_wrote(self):
        with self.serve() as server:
            peers.qemu_io(server.uri(), [
                "write -P 0x5a 1000 70000", "read -P 0x5a 1000 70000",
                "write -z 2000 3000", "read -P 0 2000 3000", "read -P 0x5a 5000 1000",
                "write -z -u 1M 1M", "read -P 0 1M 1M", "discard 4M 1M", "flush",
            ], image_format="raw")


class Fio(Served):
    """fio's nbd engine checks every block that it wrote."""

    def test_random_writes_verify_over_two_connections(self):
        with self.serve() as server:
            done = subprocess.run(
                [peers.need("fio"), "--name=verify", "--ioengine=nbd", f"--uri={server.uri()}",
                 "--rw=randwrite", "--bs=4k", "--iodepth=64", "--size=8M", "--numjobs=2",
                 "--offset_increment=16M", "--verify=crc32c", "--group_reporting",
                 "--verify_state_save=0", "--output-format=json"],
                capture_output=True, text=True, timeout=peers.RUN_TIMEOUT_S, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        report = json.loads(done.stdout[done.stdout.index("{"):])
        self.assertEqual(report["jobs"][0]["error"], 0)
        self.assertGreater(report["jobs"][0]["read"]["total_ios"], 4000)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io", "nbdinfo", "nbdcopy", "nbdsh", "fio", "nbd"])
