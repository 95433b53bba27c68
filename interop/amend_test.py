#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Amended images, ours looked at by qemu-img and the other way round: what the disk holds stays,
qemu-img check finds nothing, what is refused is refused by both."""
import pattern
import peers

KIB, MIB = 1 << 10, 1 << 20
SIZE = 8 * MIB
SEED = 20241122


class AmendTest(peers.Case):
    """A disk with content, and a raw file that holds the same."""

    def setUp(self):
        super().setUp()
        self.raw = self.directory / "disk.raw"
        self.image = self.directory / "disk.qcow2"
        self.wanted = pattern.full(SIZE, SEED)
        self.wanted.write(self.raw)

    def make(self, *options):
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, self.raw, self.image)

    def require_same(self):
        peers.qemu_check(self.image)
        peers.ringdisk("check", self.image)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", self.raw, self.image)

    def specific(self):
        return peers.qemu_info(self.image)["format-specific"]["data"]

    def test_versions_and_widths_as_qemu_img_sees_them(self):
        for cluster in ("512", "4k", "64k", "2M"):
            with self.subTest(cluster=cluster):
                self.make("-o", f"cluster_size={cluster},compat=0.10")
                peers.ringdisk("amend", "-o", "compat=1.1", self.image)
                self.assertEqual(self.specific()["compat"], "1.1")
                self.require_same()
                for bits in (1, 64, 8, 16):
                    peers.ringdisk("amend", "-p", "-o", f"refcount_bits={bits}", self.image)
                    self.assertEqual(self.specific()["refcount-bits"], bits)
                    self.require_same()
                peers.ringdisk("amend", "-o", "lazy_refcounts=on", self.image)
                self.assertTrue(self.specific()["lazy-refcounts"])
                peers.ringdisk("amend", "-q", "-f", "qcow2", "-o", "compat=0.10", self.image)
                self.assertEqual(self.specific()["compat"], "0.10")
                self.require_same()

    def test_images_that_qemu_img_amended(self):
        self.make("-o", "compat=0.10")
        peers.qemu_img("amend", "-o", "compat=1.1,refcount_bits=2", self.image)
        self.require_same()
        peers.ringdisk("amend", "-o", "refcount_bits=32,compat=v3", self.image)
        peers.qemu_img("amend", "-o", "refcount_bits=16,compat=0.10", self.image)
        self.require_same()

    def test_zero_clusters_become_what_version_2_can_hold(self):
        base, overlay = self.directory / "base.qcow2", self.directory / "overlay.qcow2"
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", self.raw, base)
        peers.qemu_img("create", "-f", "qcow2", "-b", base.name, "-F", "qcow2", overlay)
        peers.qemu_io(overlay, ["write -z 64k 1M", "write -z -u 3M 200k", "write -P 9 5M 64k",
                                "write -z 5M 32k", "write -z 5M 64k"])
        peers.qemu_img("snapshot", "-c", "then", overlay)
        peers.qemu_io(overlay, ["write -z 6M 1M", "write -P 8 100k 10k"])
        before = self.directory / "before.raw"
        then = self.directory / "then.raw"
        peers.qemu_img("convert", "-O", "raw", overlay, before)
        peers.qemu_img("convert", "-l", "then", "-O", "raw", overlay, then)
        peers.ringdisk("amend", "-o", "compat=0.10", overlay)
        peers.qemu_check(overlay)
        peers.ringdisk("check", overlay)
        peers.qemu_img("compare", "-f", "raw", before, overlay)
        again = self.directory / "again.raw"
        peers.qemu_img("convert", "-l", "then", "-O", "raw", overlay, again)
        peers.require_same(then, again)
        peers.qemu_img("snapshot", "-d", "then", overlay)
        peers.qemu_check(overlay)

    def test_size(self):
        self.make()
        peers.ringdisk("amend", "-o", "size=16M", self.image)
        self.assertEqual(peers.qemu_info(self.image)["virtual-size"], 16 * MIB)
        peers.ringdisk("amend", "-o", "size=8M,refcount_bits=8", self.image)
        self.require_same()

    def test_refusals_leave_the_image_as_it_is(self):
        self.make()
        before = self.image.read_bytes()
        cases = (("cluster_size=4k", "cluster_size"), ("preallocation=full", "preallocation"),
                 ("bogus=1", "bogus"), ("backing_file=x", "rebase"),
                 ("data_file=x", "data_file"), ("data_file_raw=on", "data_file_raw"),
                 ("refcount_bits=3", "power of two"), ("compat=9", "compat"),
                 ("compat=0.10,lazy_refcounts=on", "lazy_refcounts"),
                 ("compat=0.10,refcount_bits=8", "refcount_bits"),
                 ("encrypt.new-secret=x", "encrypt"), ("size=many", "many"),
                 ("backing_fmt=garbage", "no image format"))
        for options, text in cases:
            with self.subTest(options=options):
                done = peers.ringdisk("amend", "-o", options, self.image, expect=1)
                self.assertIn(text, done.stderr)
                self.assertIn(self.image.name, done.stderr)
                peers.qemu_img("amend", "-o", options, self.image, expect=1)
                self.assertEqual(self.image.read_bytes(), before)
        done = peers.ringdisk("amend", "-f", "raw", "-o", "size=1M", self.raw, expect=1)
        self.assertIn("raw", done.stderr)
        done = peers.ringdisk("amend", self.image, expect=1)
        self.assertIn("-o", done.stderr)

    def test_the_list_of_options(self):
        self.make()
        done = peers.ringdisk("amend", "-o", "help", self.image)
        for option in ("compat", "lazy_refcounts", "refcount_bits", "size", "backing_file"):
            self.assertIn(option + "=", done.stdout)


class InUseTest(peers.Case):
    """An image that another program writes to."""

    def test_who_cannot_share_is_not_told_to(self):
        image, socket = self.directory / "disk.qcow2", self.directory / "nbd.sock"
        peers.ringdisk("create", "-q", "-f", "qcow2", image, "1M")
        with peers.serve_qemu_nbd(image, socket):
            for words in (("amend", "-o", "lazy_refcounts=on", image), ("resize", image, "2M")):
                done = peers.ringdisk(*words, expect=1)
                self.assertIn("in use by another program", done.stderr)
                self.assertIn("end that program first", done.stderr)
                self.assertNotIn("-U", done.stderr)
            done = peers.ringdisk("info", image, expect=1)
            self.assertIn("-U", done.stderr)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
