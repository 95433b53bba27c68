#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a description says of how a qcow2 image is worked with, and no image records: ringdisk and
qemu-img take and refuse the same words, and they mean the same."""
import os
import struct

import peers

MIB = 1 << 20
DIRTY = 1
TAKEN = ("lazy-refcounts=on", "lazy-refcounts=off", "pass-discard-request=off",
         "pass-discard-request=on,pass-discard-snapshot=off,pass-discard-other=on",
         "overlap-check=none", "overlap-check=constant", "overlap-check=cached",
         "overlap-check=all", "overlap-check.template=none", "overlap-check.main-header=off",
         "overlap-check.active-l1=on", "overlap-check.active-l2=off",
         "overlap-check.refcount-table=on", "overlap-check.refcount-block=off",
         "overlap-check.snapshot-table=on", "overlap-check.inactive-l1=off",
         "overlap-check.inactive-l2=on", "overlap-check.bitmap-directory=off",
         "cache-size=1M", "l2-cache-size=512k", "refcount-cache-size=128k",
         "cache-clean-interval=5", "l2-cache-entry-size=16k")
REFUSED = ("lazy-refcounts=42", "pass-discard-request=maybe", "overlap-check=blubb",
           "overlap-check.template=blubb", "overlap-check=constant,overlap-check.template=all",
           "overlap-check.nosuch=on", "overlap-check.main-header=2", "cache-clean-interval=-1",
           "l2-cache-size=much")


class RunOptionsTest(peers.Case):
    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.qcow2"
        self.socket = self.directory / "nbd.sock"

    def create(self, options):
        peers.qemu_img("create", "-q", "-f", "qcow2", "-o", options, self.image, "64M")

    def described(self, words):
        return f"driver=qcow2,file.filename={self.image},{words}"

    def serve(self, words):
        return peers.Server([peers.ringdisk_path(), "serve", "--image-opts", self.described(words),
                             "--nbd", f"unix:{self.socket}"], self.socket,
                            ready_line="ringdisk: ready")

    def sh(self, *scripts):
        peers.nbdsh(f"nbd+unix:///?socket={self.socket}", *scripts)

    def is_dirty(self):
        with open(self.image, "rb") as file:
            file.seek(72)
            return struct.unpack(">Q", file.read(8))[0] & DIRTY != 0

    def test_the_same_words_are_taken_and_refused(self):
        self.create("compat=1.1")
        copy = self.directory / "copy"
        for words, status in ([(words, 0) for words in TAKEN] + [(words, 1) for words in REFUSED]):
            for program in (peers.ringdisk, peers.qemu_img):
                with self.subTest(words, program=program.__name__):
                    program("convert", "-O", "raw", "--image-opts", self.described(words), copy,
                            expect=status)
        self.create("compat=0.10")
        for program in (peers.ringdisk, peers.qemu_img):
            program("info", "--image-opts", self.described("lazy-refcounts=on"), expect=1)

    def test_refcounts_are_lazy_as_it_is_said(self):
        """A killed server leaves the dirty bit, or none, and an image that can be mended."""
        for recorded in ("on", "off"):
            for said in ("on", "off"):
                with self.subTest(recorded=recorded, said=said):
                    self.create(f"lazy_refcounts={recorded}")
                    with self.serve(f"lazy-refcounts={said}") as server:
                        self.sh(f"h.pwrite(b'x' * {4 * MIB}, {MIB})", "h.flush()")
                        server.kill()
                    self.assertEqual(self.is_dirty(), said == "on")
                    peers.ringdisk("check", "-r", "all", self.image)
                    self.assertFalse(self.is_dirty())
                    peers.qemu_check(self.image)
                    peers.qemu_io(self.image, ["read -P 120 1M 4M"])
                    with self.serve(f"lazy-refcounts={said}"):
                        self.sh(f"h.pwrite(b'y' * {4 * MIB}, {8 * MIB})", "h.flush()")
                    self.assertFalse(self.is_dirty())
                    peers.qemu_check(self.image)

    def test_what_is_freed_keeps_its_space_where_that_is_said(self):
        for said, most in (("off", None), ("on", 4 * MIB)):
            with self.subTest(said):
                self.create("compat=1.1")
                with self.serve(f"pass-discard-request={said}"):
                    self.sh(f"h.pwrite(b'x' * {16 * MIB}, 0)", "h.flush()",
                            f"h.trim({16 * MIB}, 0)", "h.flush()",
                            f"assert h.pread({MIB}, 0) == bytes({MIB})")
                taken = os.stat(self.image).st_blocks * 512
                if most is None:
                    self.assertGreaterEqual(taken, 16 * MIB)
                else:
                    self.assertLess(taken, most)
                peers.qemu_check(self.image)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io", "nbdsh"])
