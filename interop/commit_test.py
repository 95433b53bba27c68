#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An overlay committed into its backing image, raw or qcow2, larger, smaller or as large: the
backing image then reads as the overlay did, and the overlay holds nothing any more and reads the
same."""
import fcntl
import os
import struct
import subprocess

import pattern
import peers

KIB, MIB = 1 << 10, 1 << 20
SIZE = 4 * MIB
SEED = 20241122


F_OFD_GETLK = 36
WRITE_LOCK_BYTE = 101  # QEMU's: "I write"


def is_locked_for_writing(file):
    """Whether somebody else holds the byte that says so."""
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, WRITE_LOCK_BYTE, 1, 0)
    found = fcntl.fcntl(file.fileno(), F_OFD_GETLK, asked)
    return struct.unpack("hhqqi4x", found)[0] != fcntl.F_UNLCK


class CommitTest(peers.Case):
    """base <- top, with content in both."""

    def setUp(self):
        super().setUp()
        self.base = self.directory / "base.img"
        self.top = self.directory / "top.qcow2"
        self.wanted = self.directory / "wanted.raw"
        self.raw = self.directory / "data.raw"

    def make(self, base_format, base_size=SIZE, top_size=SIZE, options=()):
        pattern.sparse(base_size, SEED).write(self.raw)
        peers.qemu_img("convert", "-f", "raw", "-O", base_format, self.raw, self.base)
        peers.qemu_img("create", "-f", "qcow2", "-b", self.base.name, "-F", base_format, *options,
                       self.top, str(top_size))
        peers.qemu_io(self.top, ["write -P 17 100k 300k", "write -z 1M 256k", "discard 2M 512k",
                                 f"write -P 18 {top_size - 64 * KIB} 64k"])
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.top, self.wanted)

    def require(self, image, image_format):
        peers.qemu_img("compare", "-f", "raw", "-F", image_format, self.wanted, image)

    def test_the_backing_image_takes_all_and_the_image_is_empty(self):
        for base_format in ("raw", "qcow2"):
            for base_size, top_size in ((SIZE, SIZE), (3 * MIB, SIZE), (SIZE, 3 * MIB)):
                for options in ((), ("-o", "cluster_size=4k")):
                    with self.subTest(base=base_format, base_size=base_size, top_size=top_size):
                        self.make(base_format, base_size, top_size, options)
                        done = peers.ringdisk("commit", self.top)
                        self.assertEqual(done.stdout, "Image committed.\n")
                        peers.qemu_check(self.top)
                        self.require(self.top, "qcow2")
                        self.assertFalse(any(one["depth"] == 0 and one["data"]
                                             for one in peers.qemu_map(self.top)))
                        if top_size >= base_size:
                            self.require(self.base, base_format)
                        self.top.unlink()

    def test_what_the_base_gains_does_not_show_what_lies_below_it(self):
        base, middle, top = (self.directory / name for name in ("g.qcow2", "m.qcow2", "t.qcow2"))
        for image, below, size in ((base, None, 8 * MIB), (middle, base, 4 * MIB + 512),
                                   (top, middle, 8 * MIB)):
            chain = ("-b", below.name, "-F", "qcow2") if below else ()
            peers.qemu_img("create", "-f", "qcow2", *chain, image, str(size))
        peers.qemu_io(base, ["write -P 187 0 8M"])
        peers.qemu_img("convert", "-O", "raw", top, self.wanted)
        peers.ringdisk("commit", top)
        self.require(top, "qcow2")
        self.require(middle, "qcow2")

    def chain(self, sizes):
        """Images one over another, each with content of its own, with zeros and with clusters given
        back; the same for qemu-img in other files."""
        images = []
        for depth, size in enumerate(sizes):
            image = self.directory / f"chain{depth}.qcow2"
            chain = ("-b", images[-1].name, "-F", "qcow2") if images else ()
            peers.qemu_img("create", "-f", "qcow2", *chain, image, str(size))
            begin = depth * 384 * KIB
            peers.qemu_io(image, [f"write -P {depth + 65} {begin} 700k",
                                  f"write -z {begin + 100 * KIB} 130k",
                                  f"write -P {depth + 97} {size - 4 * KIB} 4k"])
            images.append(image)
        return images

    def test_an_image_further_down_takes_what_all_above_it_hold(self):
        for sizes in ((4 * MIB,) * 4, (8 * MIB, 6 * MIB, 3 * MIB + 512, 8 * MIB),
                      (3 * MIB, 4 * MIB, 5 * MIB, 6 * MIB)):
            for lowest in (0, 1, 2):
                with self.subTest(sizes=sizes, lowest=lowest):
                    images = self.chain(sizes)
                    top, base = images[-1], images[lowest]
                    peers.qemu_img("convert", "-O", "raw", top, self.wanted)
                    before = [image.read_bytes() for image in images]
                    peers.ringdisk("commit", "-b", base.name if lowest else base, top)
                    for depth, image in enumerate(images):
                        if depth != lowest:
                            self.assertEqual(image.read_bytes(), before[depth])
                    peers.qemu_check(base)
                    self.require(base, "qcow2")
                    self.require(top, "qcow2")

    def test_an_image_that_is_kept(self):
        self.make("qcow2")
        before = self.top.read_bytes()
        peers.ringdisk("commit", "-d", "-q", "-f", "qcow2", self.top)
        self.assertEqual(self.top.read_bytes(), before)
        self.require(self.base, "qcow2")
        peers.qemu_check(self.base)

    def test_snapshots_of_the_image_survive(self):
        self.make("raw")
        peers.ringdisk("snapshot", "-c", "kept", self.top)
        peers.ringdisk("commit", self.top)
        peers.qemu_check(self.top)
        peers.ringdisk("snapshot", "-a", "kept", self.top)
        self.require(self.top, "qcow2")

    def test_the_image_is_locked_from_the_copying_until_it_is_empty(self):
        self.make("raw", 96 * MIB, 96 * MIB)
        peers.qemu_io(self.top, ["write -P 19 0 96M"])
        before = self.base.stat().st_mtime_ns
        with open(self.top, "r+b") as file, subprocess.Popen(
                [peers.ringdisk_path(), "commit", "-q", self.top]) as commit:
            while self.base.stat().st_mtime_ns == before and commit.poll() is None:
                pass
            while is_locked_for_writing(file) and commit.poll() is None:
                pass
            let_go = self.top.stat()
            self.assertEqual(commit.wait(peers.RUN_TIMEOUT_S), 0)
        # Whoever opens it once the lock is gone finds the emptied image.
        now = self.top.stat()
        self.assertEqual((let_go.st_mtime_ns, let_go.st_size), (now.st_mtime_ns, now.st_size))

    def test_refusals(self):
        self.make("raw")
        done = peers.ringdisk("commit", "-f", "raw", self.base, expect=1)
        self.assertIn("has no backing image", done.stderr)
        done = peers.ringdisk("commit", "-b", "other.img", self.top, expect=1)
        self.assertIn("'other.img' is no backing image of it", done.stderr)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
