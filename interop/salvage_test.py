#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""convert --salvage of damaged images: all that can be read arrives, the rest is zeros, exactly as
with qemu-img; what is lost is listed. And convert -r, which keeps to its rate."""
import struct
import time

import pattern
import peers

KIB, MIB = 1 << 10, 1 << 20
CLUSTER = 64 * KIB
SIZE = 4 * MIB
SEED = 20261121


def table_entry(image, cluster):
    """(where the L2 entry of a guest cluster lies in an image's file, the entry)"""
    l1_offset, = struct.unpack_from(">Q", image, 40)
    l2_offset = struct.unpack_from(">Q", image, l1_offset)[0] & 0x00fffffffffffe00
    at = l2_offset + 8 * cluster
    return at, struct.unpack_from(">Q", image, at)[0]


class SalvageTest(peers.Case):
    def setUp(self):
        super().setUp()
        self.raw = self.directory / "data.raw"
        self.image = self.directory / "damaged.qcow2"
        self.ours, self.theirs = self.directory / "ours.raw", self.directory / "theirs.raw"
        pattern.sparse(SIZE, SEED).write(self.raw)
        with open(self.raw, "r+b") as file:  # cluster 4 has content that compresses
            file.seek(4 * CLUSTER)
            file.write(b"salvaged" * (CLUSTER // 8))

    def make(self, *options):
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, self.raw, self.image)
        return bytearray(self.image.read_bytes())

    def require_as_qemu(self, damaged, lost_bytes):
        self.image.write_bytes(damaged)
        done = peers.ringdisk("convert", "-O", "raw", self.image, self.ours, expect=1)
        self.assertIn("damaged.qcow2", done.stderr)
        self.assertFalse(self.ours.exists())
        done = peers.ringdisk("convert", "--salvage", "-O", "raw", self.image, self.ours)
        self.assertIn("damaged.qcow2", done.stderr)
        self.assertIn(f"the target has zeros there, {lost_bytes} bytes from {4 * CLUSTER} on",
                      done.stderr)
        peers.qemu_img("convert", "--salvage", "-O", "raw", self.image, self.theirs)
        peers.require_same(self.theirs, self.ours)
        done = peers.ringdisk("convert", "-q", "--salvage", "-O", "raw", self.image, self.ours)
        self.assertEqual(done.stderr, "")

    def test_an_entry_that_points_nowhere(self):
        image = self.make()
        at, entry = table_entry(image, 4)
        struct.pack_into(">Q", image, at, entry + 512)  # not at a cluster
        self.require_as_qemu(image, CLUSTER)

    def test_a_stream_that_is_noise(self):
        image = self.make("-c")
        _, entry = table_entry(image, 4)
        begin = entry & ((1 << 54) - 1)
        image[begin:begin + 64] = bytes(range(128, 192))
        self.require_as_qemu(image, CLUSTER)

    def test_what_goes_with_it(self):
        self.make()
        for options in (["-C", "--salvage"], ["-C", "-S", "4k"], ["-C", "-c", "-O", "qcow2"]):
            peers.ringdisk("convert", *options, self.image, self.ours, expect=1)
            peers.qemu_img("convert", *options, self.image, self.theirs, expect=1)
        peers.ringdisk("convert", "-C", "-O", "raw", self.image, self.ours)
        peers.require_same(self.raw, self.ours)


class RateTest(peers.Case):
    def test_a_copy_takes_its_time(self):
        raw, copy = self.directory / "data.raw", self.directory / "copy.qcow2"
        with open(raw, "wb") as file:
            file.write(b"r" * (3 * MIB))
        began = time.monotonic()
        peers.ringdisk("convert", "-r", "2M", "-O", "qcow2", raw, copy)
        self.assertGreater(time.monotonic() - began, 1)
        peers.qemu_check(copy)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, copy)

    def test_a_commit_takes_its_time(self):
        base, top = self.directory / "base.raw", self.directory / "top.qcow2"
        with open(base, "wb") as file:
            file.truncate(3 * MIB)
        peers.qemu_img("create", "-f", "qcow2", "-b", base.name, "-F", "raw", top)
        peers.qemu_io(top, ["write -P 5 0 3M"])
        began = time.monotonic()
        peers.ringdisk("commit", "-r", "2M", top)
        self.assertGreater(time.monotonic() - began, 1)
        self.assertEqual(base.read_bytes(), b"\x05" * (3 * MIB))

    def test_rates_that_are_none(self):
        raw = self.directory / "data.raw"
        raw.write_bytes(b"r" * 512)
        for rate in ("0", "-1", "fast"):
            peers.ringdisk("convert", "-r", rate, raw, self.directory / "copy.raw", expect=1)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
