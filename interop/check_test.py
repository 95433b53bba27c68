# SPDX-License-Identifier: Apache-2.0
"""`ringdisk check` against `qemu-img check` on images that were damaged on purpose, one damage at
a time: the same numbers of corruptions and leaks, the same exit status. Images of both programs."""
import json
import os
import struct

import peers

MIB = 1 << 20
CLUSTER = 65536
COPIED = 1 << 63
OFFSET_MASK = ((1 << 56) - 1) & ~511


class Image:
    """Raw access to the tables of a version 3 image with 64 KiB clusters and 16-bit refcounts."""

    def __init__(self, path):
        self.file = open(path, "r+b")
        header = self.read(0, 104)
        self.l1_size, self.l1 = struct.unpack(">IQ", header[36:48])
        self.refcount_table, = struct.unpack(">Q", header[48:56])
        self.block = self.number(self.refcount_table)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def read(self, at, length):
        self.file.seek(at)
        return self.file.read(length)

    def number(self, at):
        return struct.unpack(">Q", self.read(at, 8))[0]

    def write(self, at, form, value):
        self.file.seek(at)
        self.file.write(struct.pack(form, value))

    def l2_entry_at(self, guest_cluster):
        return (self.number(self.l1) & OFFSET_MASK) + guest_cluster * 8

    def l2_entry(self, guest_cluster):
        return self.number(self.l2_entry_at(guest_cluster))

    def set_l2_entry(self, guest_cluster, value):
        self.write(self.l2_entry_at(guest_cluster), ">Q", value)

    def set_refcount(self, host_offset, value):
        self.write(self.block + host_offset // CLUSTER * 2, ">H", value)


class Damage(peers.Case):
    """Each test damages a fresh image and asks both programs."""

    def images(self):
        """The same content in an image made by each program."""
        raw = self.directory / "source.raw"
        with open(raw, "wb") as disk:
            disk.write(os.urandom(10 * CLUSTER))
            disk.truncate(4 * MIB)
        for name, maker in (("ours", peers.ringdisk), ("theirs", peers.qemu_img)):
            path = self.directory / f"{name}.qcow2"
            maker("convert", "-f", "raw", "-O", "qcow2", raw, path)
            yield path

    def same_verdict(self, path, status):
        words = ["check", "-f", "qcow2", "--output=json", path]
        theirs = peers.qemu_img(*words, expect=status)
        ours = peers.ringdisk(*words, expect=status)
        keys = ("corruptions", "leaks", "check-errors", "image-end-offset")
        one, other = json.loads(ours.stdout), json.loads(theirs.stdout)
        self.assertEqual({key: one.get(key) for key in keys},
                         {key: other.get(key) for key in keys}, ours.stderr + theirs.stderr)

    def damaged(self, damage, status):
        for path in self.images():
            self.same_verdict(path, 0)
            with Image(path) as image:
                damage(image)
            self.same_verdict(path, status)

    def test_a_pointer_that_is_gone_leaks(self):
        self.damaged(lambda image: image.set_l2_entry(3, 0), 3)

    def test_a_refcount_too_high_leaks(self):
        def damage(image):
            # Without the flag, which would contradict the refcount and be a corruption.
            image.set_refcount(image.l2_entry(9) & OFFSET_MASK, 2)
            image.set_l2_entry(9, image.l2_entry(9) & ~COPIED)
        self.damaged(damage, 3)

    def test_a_refcount_of_zero_is_a_corruption(self):
        self.damaged(lambda image: image.set_refcount(image.l2_entry(5) & OFFSET_MASK, 0), 2)

    def test_two_pointers_at_one_cluster_are_a_corruption(self):
        self.damaged(lambda image: image.set_l2_entry(2, image.l2_entry(7)), 2)

    def test_a_missing_copied_flag_is_a_corruption(self):
        self.damaged(lambda image: image.set_l2_entry(4, image.l2_entry(4) & ~COPIED), 2)

    def test_an_l1_entry_with_reserved_bits_is_a_corruption(self):
        self.damaged(lambda image: image.write(image.l1, ">Q", image.number(image.l1) | 1), 2)

    def test_a_shared_l2_table_with_the_copied_flag_is_a_corruption(self):
        def damage(image):
            image.set_refcount(image.number(image.l1) & OFFSET_MASK, 2)
        self.damaged(damage, 2)


if __name__ == "__main__":
    peers.main(needs=["qemu-img"])
