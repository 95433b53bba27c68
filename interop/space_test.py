#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a client trims over NBD, and the zeros that it writes where they are detected, take no space
in the files behind: raw and qcow2, checked by the blocks that the host has given them."""
import itertools
import json
import os

import peers

MIB = 1 << 20
SIZE = 64 * MIB
FORMATS = ("raw", "qcow2")


def blocks_bytes(path):
    """What the file takes of the host's disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_blocks * 512


class SpaceTest(peers.Case):
    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.img"
        self.socket = self.directory / "nbd.sock"
        self.uri = f"nbd+unix:///?socket={self.socket}"

    def create(self, image_format):
        if self.image.exists():
            self.image.unlink()
        peers.qemu_img("create", "-q", "-f", image_format, self.image, str(SIZE))

    def serve(self, image_format, *arguments):
        return peers.serve_ringdisk(self.image, self.socket, "-f", image_format, *arguments)

    def sh(self, *scripts):
        return peers.nbdsh(self.uri, *scripts)

    def fill(self):
        self.sh(f"for i in range({SIZE // MIB}): h.pwrite(bytes([1 + i]) * {MIB}, i * {MIB})",
                "h.flush()")

    def require_read(self, offset, byte):
        self.sh(f"assert h.pread({MIB}, {offset}) == bytes([{byte}]) * {MIB}")

    def test_a_trim_gives_space_back(self):
        for image_format in FORMATS:
            with self.subTest(image_format):
                self.create(image_format)
                with self.serve(image_format):
                    self.fill()
                    full = blocks_bytes(self.image)
                    self.assertGreaterEqual(full, SIZE)
                    self.sh(f"h.trim({SIZE // 2}, {16 * MIB})", "h.flush()")
                    self.require_read(15 * MIB, 16)
                    self.require_read(48 * MIB, 49)
                self.assertLess(blocks_bytes(self.image), full - SIZE // 2 + 2 * MIB)
                if image_format == "qcow2":
                    peers.qemu_check(self.image)

    def test_ignored_trims_give_nothing_back(self):
        for image_format in FORMATS:
            with self.subTest(image_format):
                self.create(image_format)
                with self.serve(image_format, "--discard", "ignore"):
                    self.fill()
                    self.sh(f"h.trim({SIZE}, 0)", "h.flush()")
                    self.require_read(0, 1)
                    self.require_read(63 * MIB, 64)
                    self.sh(f"h.zero({16 * MIB}, 0)", "h.flush()")
                    self.require_read(0, 0)
                self.assertGreaterEqual(blocks_bytes(self.image), SIZE)

    def test_written_zeros_take_no_space_where_they_are_detected(self):
        for image_format, mode in itertools.product(FORMATS, ("on", "unmap")):
            with self.subTest(image_format, mode=mode):
                self.create(image_format)
                with self.serve(image_format, "--detect-zeroes", mode):
                    self.sh(f"for i in range({SIZE // MIB}): h.pwrite(bytes({MIB}), i * {MIB})",
                            f"h.pwrite(bytes({MIB // 2}) + b'x' * {MIB // 2}, {8 * MIB})",
                            "h.flush()")
                    self.require_read(9 * MIB, 0)
                    self.sh(f"assert h.pread({MIB}, {8 * MIB}) == "
                            f"bytes({MIB // 2}) + b'x' * {MIB // 2}")
                if image_format == "qcow2" or mode == "unmap":
                    self.assertLess(blocks_bytes(self.image), 2 * MIB)
                if image_format == "qcow2":
                    peers.qemu_check(self.image)

    def test_zeros_over_what_was_there_give_it_back_with_unmap_alone(self):
        self.create("qcow2")
        with self.serve("qcow2", "--detect-zeroes", "on"):
            self.fill()
            self.sh(f"for i in range({SIZE // MIB}): h.pwrite(bytes({MIB}), i * {MIB})",
                    "h.flush()")
        self.assertGreaterEqual(blocks_bytes(self.image), SIZE)
        with self.serve("qcow2", "--detect-zeroes", "unmap"):
            self.fill()
            self.sh(f"for i in range({SIZE // MIB}): h.pwrite(bytes({MIB}), i * {MIB})",
                    "h.flush()")
        self.assertLess(blocks_bytes(self.image), 2 * MIB)
        peers.qemu_check(self.image)

    def test_without_it_zeros_are_data(self):
        self.create("qcow2")
        with self.serve("qcow2"):
            self.sh(f"h.pwrite(bytes({16 * MIB}), 0)", "h.flush()")
        self.assertGreaterEqual(blocks_bytes(self.image), 16 * MIB)

    def test_a_description_says_the_same_as_the_options(self):
        source = self.directory / "source.raw"
        source.write_bytes(bytes(8 * MIB) + b"x" * MIB)
        self.create("qcow2")
        # -S 0: the copy itself looks for no zeros.
        description = f"driver=qcow2,detect-zeroes=unmap,file.filename={self.image}"
        peers.ringdisk("convert", "-n", "-S", "0", "-f", "raw", "--target-image-opts", source,
                       description)
        self.assertLess(blocks_bytes(self.image), 4 * MIB)
        peers.qemu_check(self.image)

    def test_a_trim_hides_the_backing_image_as_in_qemu(self):
        """Also where nothing was ever written; version 2, which cannot, leaves all as it is."""
        base, theirs = self.directory / "base.qcow2", self.directory / "theirs.qcow2"
        peers.qemu_img("create", "-q", "-f", "qcow2", base, str(SIZE))
        peers.qemu_io(base, [f"write -q -P 1 0 {SIZE}"])
        for options in ("compat=0.10", "compat=1.1", "extended_l2=on", "cluster_size=4k"):
            with self.subTest(options):
                for image in (self.image, theirs):
                    peers.qemu_img("create", "-q", "-f", "qcow2", "-o", options, "-b", base,
                                   "-F", "qcow2", image)
                    peers.qemu_io(image, ["write -q -P 2 0 1M", "write -q -z 1M 1M"])
                peers.run([peers.need("qemu-io"), "-f", "qcow2", "--discard=unmap", theirs],
                          stdin=f"discard 512k 3M\ndiscard {SIZE - MIB} 1M\n")
                with self.serve("qcow2"):
                    self.sh(f"h.trim({3 * MIB}, {MIB // 2})", f"h.trim({MIB}, {SIZE - MIB})")
                    self.require_read(4 * MIB, 1)
                    if options != "compat=0.10":
                        self.require_read(2 * MIB, 0)
                        self.require_read(SIZE - MIB, 0)
                peers.qemu_check(self.image)
                peers.qemu_img("compare", self.image, theirs)
                ours, wanted = (peers.without_holes(
                    [{key: value for key, value in extent.items() if key != "offset"}
                     for extent in peers.qemu_map(image)]) for image in (self.image, theirs))
                self.assertEqual(ours, wanted)

    def test_what_contradicts_itself_is_refused(self):
        self.create("qcow2")
        for arguments, why in ((("--detect-zeroes", "maybe"), "off, on or unmap"),
                               (("--detect-zeroes", "unmap", "--discard", "ignore"),
                                "needs discard=unmap")):
            done = peers.ringdisk("serve", self.image, "-f", "qcow2", "--nbd",
                                  f"unix:{self.socket}", *arguments, expect=1)
            self.assertIn(why, done.stderr)

    def test_clusters_without_content_are_not_read(self):
        """preallocation=metadata: 512 GiB of holes. Reading them would take a minute."""
        made = ("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", self.image, "512G")
        peers.ringdisk(*made)
        peers.qemu_io(self.image, ["write -P 1 300G 128k"])
        told = [json.loads(program("map", "--output=json", "-f", "qcow2", self.image).stdout)
                for program in (peers.ringdisk, peers.qemu_img)]
        self.assertEqual(*told)
        copy = self.directory / "copy.raw"
        peers.ringdisk("convert", "-f", "qcow2", "-O", "raw", self.image, copy, timeout_s=15)
        self.assertEqual(blocks_bytes(copy), 128 << 10)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "nbdsh"])
