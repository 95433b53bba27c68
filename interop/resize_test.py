#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disks made larger and smaller: what is kept is kept, what is gained reads as zeros, qemu-img
check finds nothing."""
import os
import shutil

import pattern
import peers

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZE = 4 * MIB
SEED = 20241121


class ResizeTest(peers.Case):
    """A disk with content, and a raw file that holds what it is to hold."""

    def setUp(self):
        super().setUp()
        self.raw = self.directory / "disk.raw"
        self.image = self.directory / "disk.qcow2"
        self.copy = self.directory / "copy.raw"
        self.wanted = pattern.full(SIZE, SEED)
        self.wanted.write(self.raw)

    def make(self, *options):
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, self.raw, self.image)

    def resize_both(self, size, *arguments, change=None):
        """The image by ringdisk, and the raw file beside it to the same `size`."""
        done = peers.ringdisk("resize", *arguments, self.image, change or str(size))
        self.assertEqual(done.stdout, "Image resized.\n")
        os.truncate(self.raw, size)
        peers.qemu_check(self.image)
        peers.ringdisk("check", self.image)
        self.assertEqual(peers.qemu_info(self.image)["virtual-size"], size)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", self.raw, self.image)

    def test_no_disk_becomes_empty(self):
        self.make()
        for size in ("0", f"-{SIZE}"):
            done = peers.ringdisk("resize", "--shrink", self.image, size, expect=1)
            self.assertIn("has to keep some size", done.stderr)
        self.assertEqual(peers.qemu_info(self.image)["virtual-size"], SIZE)

    def test_what_is_kept_is_kept_and_what_is_gained_is_zero(self):
        for options in ((), ("-o", "cluster_size=512"), ("-o", "cluster_size=2M"),
                        ("-o", "compat=0.10"), ("-o", "cluster_size=4k,refcount_bits=1")):
            with self.subTest(options=options):
                self.wanted.write(self.raw)
                self.make(*options)
                self.resize_both(5 * MIB)
                self.resize_both(5 * MIB + 512, change="+512")
                self.resize_both(4 * MIB + 512, "--shrink", "-f", "qcow2", change="-1M")
                self.resize_both(1234 * KIB, "--shrink")
                self.resize_both(64 * MIB)
                self.resize_both(512, "--shrink")
                self.resize_both(MIB)

    def test_a_part_of_a_file_leaves_what_lies_before_it(self):
        before = self.raw.read_bytes()[:MIB]
        part = "driver=raw,offset=1M,file.filename="
        theirs = self.directory / "theirs.raw"
        for size in (2 * MIB, 8 * MIB, 512):
            shutil.copy(self.raw, theirs)
            for program, file in ((peers.ringdisk, self.raw), (peers.qemu_img, theirs)):
                program("resize", "--shrink", "--image-opts", f"{part}{file}", str(size))
            self.assertEqual(self.raw.stat().st_size, MIB + size)
            peers.require_same(self.raw, theirs)
            self.assertEqual(self.raw.read_bytes()[:MIB], before)

    def test_a_part_of_fixed_size_stays_as_it_is(self):
        before = self.raw.read_bytes()
        part = f"driver=raw,offset=1M,size=1M,file.filename={self.raw}"
        for program in (peers.ringdisk, peers.qemu_img):
            for size in ("512k", "2M", "8M"):
                done = program("resize", "--shrink", "--image-opts", part, size, expect=1)
                self.assertIn("fixed", done.stderr)
        self.assertEqual(self.raw.read_bytes(), before)

    def test_space_for_what_is_gained_is_taken_at_once(self):
        for mode in ("metadata", "falloc", "full"):
            with self.subTest(mode):
                self.wanted.write(self.raw)
                self.make()
                self.resize_both(24 * MIB, f"--preallocation={mode}")
                extents = peers.qemu_map(self.image)
                gained = [extent for extent in extents if extent["start"] >= SIZE]
                self.assertTrue(all("offset" in extent for extent in gained), gained)
                if mode != "metadata":
                    self.assertGreaterEqual(os.stat(self.image).st_blocks * 512, 24 * MIB)
        before = os.stat(self.raw).st_size
        for mode in ("falloc", "full"):
            peers.ringdisk("resize", "-f", "raw", f"--preallocation={mode}", self.raw, "+8M")
            before += 8 * MIB
            self.assertEqual(os.stat(self.raw).st_size, before)
            self.assertGreaterEqual(os.stat(self.raw).st_blocks * 512, 8 * MIB)

    def test_what_space_cannot_be_taken_for_is_refused_and_unchanged(self):
        for arguments, said in ((("--preallocation=metadata", "-f", "raw", self.raw, "+1M"),
                                 "no metadata"),
                                (("--preallocation=full", "--shrink", "-f", "raw", self.raw, "1M"),
                                 "disks that grow"),
                                (("--preallocation=some", "-f", "raw", self.raw, "+1M"),
                                 "off, metadata, falloc or full")):
            done = peers.ringdisk("resize", *arguments, expect=1)
            self.assertIn(said, done.stderr)
            self.assertEqual(os.stat(self.raw).st_size, SIZE)

    def test_a_shrunk_disk_gives_its_space_back(self):
        self.make()
        before = os.stat(self.image).st_blocks
        peers.ringdisk("resize", "--shrink", self.image, "1M")
        self.assertLess(os.stat(self.image).st_blocks * 512, before * 512 - 2 * MIB)

    def test_the_l1_table_grows_with_the_disk(self):
        self.make("-o", "cluster_size=512")
        self.resize_both(GIB)
        peers.qemu_io(self.image, ["write -P 7 900M 64k", "read -P 7 900M 64k"])
        peers.qemu_check(self.image)

    def test_what_is_gained_does_not_show_the_backing_image(self):
        overlay, twin = self.directory / "overlay.qcow2", self.directory / "overlay2.qcow2"
        for image in (overlay, twin):
            peers.qemu_img("create", "-f", "qcow2", "-b", self.raw.name, "-F", "raw", image, "1M")
        peers.ringdisk("resize", overlay, "6M")
        peers.qemu_img("resize", twin, "6M")
        peers.qemu_img("compare", overlay, twin)
        peers.qemu_io(overlay, [f"read -P 0 1M {5 * MIB}"])

    def test_what_is_gained_does_not_show_vm_state(self):
        peers.qemu_img("create", "-q", "-f", "qcow2", self.image, "64M")
        peers.qemu_io(self.image, ["write -P 1 0 64k", "write -b -P 0x77 0 1M"])
        peers.qemu_img("snapshot", "-c", "running", self.image)
        peers.ringdisk("resize", self.image, "2G")
        peers.qemu_check(self.image)
        peers.qemu_io(self.image, ["read -P 1 0 64k", "read -P 0 64k 2000M"])
        peers.ringdisk("snapshot", "-a", "running", self.image)
        peers.qemu_io(self.image, ["read -P 1 0 64k", "read -b -P 0x77 0 1M"])
        # Smaller first: what lay behind the end lies farther behind it then.
        peers.ringdisk("resize", "--shrink", self.image, "32M")
        peers.ringdisk("resize", self.image, "2G")
        peers.qemu_io(self.image, ["read -P 1 0 64k", "read -P 0 64k 2000M"])
        peers.qemu_check(self.image)

    def test_snapshots_keep_their_size(self):
        self.make()
        peers.ringdisk("snapshot", "-c", "small", self.image)
        peers.ringdisk("resize", self.image, "9M")
        peers.ringdisk("convert", "-l", "small", "-O", "raw", self.image, self.copy)
        self.wanted.require(self.copy)
        peers.ringdisk("resize", "--shrink", self.image, "1M")
        peers.ringdisk("snapshot", "-a", "small", self.image)
        peers.qemu_check(self.image)
        peers.qemu_img("convert", "-O", "raw", self.image, self.copy)
        self.wanted.require(self.copy)

    def test_a_version_2_image_with_snapshots_is_refused_with_all_it_holds(self):
        self.make("-o", "compat=0.10")
        peers.ringdisk("snapshot", "-c", "kept", self.image)
        done = peers.ringdisk("resize", "--shrink", self.image, "1M", expect=1)
        self.assertIn("version 2", done.stderr)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", self.raw, self.image)

    def test_raw_files(self):
        peers.ringdisk("resize", "-f", "raw", self.raw, "+1M")
        self.assertEqual(self.raw.stat().st_size, SIZE + MIB)
        peers.ringdisk("resize", "-f", "raw", "--shrink", self.raw, str(SIZE))
        self.wanted.require(self.raw)

    def test_refusals_name_the_image_and_the_way_out(self):
        self.make()
        cases = ((("resize", self.image, "1M"), "--shrink"),
                 (("resize", self.image, "+1000"), "multiple of 512"),
                 (("resize", "--shrink", self.image, "1000"), "multiple of 512"),
                 (("resize", self.image, "--shrink", "-5M"), "not so much"),
                 (("resize", self.image, "many"), "invalid image size"),
                 (("resize", self.image), "expecting"),
                 (("resize", self.image, "8E"), "'8E'"),
                 (("resize", self.image, "7E"), self.image.name))
        for arguments, text in cases:
            with self.subTest(arguments=arguments):
                done = peers.ringdisk(*arguments, expect=1)
                self.assertIn(text, done.stderr)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", self.raw, self.image)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
