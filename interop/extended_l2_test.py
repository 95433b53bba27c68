#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images with extended L2 entries (32 subclusters a cluster), in both directions: QEMU makes them
and writes pieces of 2 KiB and less, ringdisk reads, maps and writes them; ringdisk makes and fills
them, QEMU reads them and finds nothing to complain about."""
import json
import random
import struct

import pattern
import peers

SIZE = (6 << 20) + 512 * 5
SEED = 20240612
CLUSTERS = ("16k", "64k", "2M")


def drawn_commands(seed, count=80):
    """qemu-io commands that touch odd pieces: parts of subclusters, single ones, runs of them,
    whole clusters; data and zeros."""
    chance = random.Random(seed)
    commands = []
    for number in range(count):
        grain, most = chance.choice(((512, 4), (2048, 1), (2048, 40), (65536, 3), (512, 500)))
        length = grain * chance.randint(1, most)
        offset = chance.randint(0, (SIZE - length) // grain) * grain
        what = chance.choice((f"write -P {number % 255 + 1}", f"write -P {number % 250 + 1}",
                              "write -z", "write -z -u"))
        commands.append(f"{what} {offset} {length}")
        if number % 20 == 19:
            commands.append("flush")
    return commands


class Extended(peers.Case):
    def setUp(self):
        super().setUp()
        self.raw = self.directory / "disk.raw"
        self.image = self.directory / "disk.qcow2"
        self.copy = self.directory / "copy.raw"
        self.base = self.directory / "base.raw"
        pattern.full(SIZE - 512 * 300, SEED).write(self.base)

    def make(self, program, *options, backing=False, size=SIZE):
        self.image.unlink(missing_ok=True)
        words = ["-b", "base.raw", "-F", "raw"] if backing else []
        program("create", "-f", "qcow2", "-o", ",".join(("extended_l2=on",) + options), *words,
                self.image, str(size))

    def start_raw(self):
        """The disk as a raw file, read by QEMU."""
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, self.raw)

    def write_through_ringdisk(self, commands):
        with peers.serve_ringdisk(self.image, self.directory / "nbd.sock") as server:
            peers.qemu_io(server.uri(), commands, image_format="raw")

    def require_disk(self, wanted):
        """Both programs find the image sound and read `wanted`, and have the same map of it."""
        peers.qemu_check(self.image)
        peers.ringdisk("check", self.image)
        for program in (peers.ringdisk, peers.qemu_img):
            program("convert", "-f", "qcow2", "-O", "raw", self.image, self.copy)
            peers.require_same(wanted, self.copy)
            self.copy.unlink()
        self.require_same_map()

    def require_same_map(self):
        ours = json.loads(peers.ringdisk("map", "--output=json", self.image).stdout)
        theirs = peers.qemu_map(self.image)
        self.assertEqual(peers.without_holes(ours), peers.without_holes(theirs))
        if ours != theirs or any(entry.get("compressed") for entry in ours):
            return  # a table of places has no lines for compressed clusters
        self.assertEqual(peers.ringdisk("map", self.image).stdout,
                         peers.qemu_img("map", self.image).stdout)

    def geometries(self):
        for seed, cluster in enumerate(CLUSTERS):
            for backing in (False, True):
                with self.subTest(cluster=cluster, backing=backing):
                    yield seed * 2 + backing, f"cluster_size={cluster}", backing

    def test_what_qemu_wrote_is_read_and_mapped(self):
        for seed, option, backing in self.geometries():
            self.make(peers.qemu_img, option, backing=backing)
            commands = drawn_commands(seed)
            self.start_raw()
            peers.qemu_io(self.image, commands)
            peers.qemu_io(self.raw, commands, image_format="raw")
            self.require_disk(self.raw)

    def test_ringdisk_writes_what_qemu_made(self):
        for seed, option, backing in self.geometries():
            self.make(peers.qemu_img, option, backing=backing)
            peers.qemu_io(self.image, drawn_commands(seed + 20))
            self.start_raw()
            commands = drawn_commands(seed + 40)
            self.write_through_ringdisk(commands)
            peers.qemu_io(self.raw, commands, image_format="raw")
            self.require_disk(self.raw)

    def test_qemu_writes_what_ringdisk_made(self):
        for seed, option, backing in self.geometries():
            self.make(peers.ringdisk, option, backing=backing)
            self.start_raw()
            for turn in range(2):
                commands = drawn_commands(seed + 60 + turn)
                if turn == 0:
                    self.write_through_ringdisk(commands)
                else:
                    peers.qemu_io(self.image, commands)
                peers.qemu_io(self.raw, commands, image_format="raw")
                self.require_disk(self.raw)

    def test_preallocated_places_show_the_backing_image_until_they_are_written(self):
        for mode in ("metadata", "falloc", "full"):
            for backing in (False, True):
                for maker in (peers.ringdisk, peers.qemu_img):
                    with self.subTest(mode=mode, backing=backing, maker=maker.__name__):
                        self.make(maker, f"preallocation={mode}", backing=backing)
                        self.start_raw()
                        self.require_disk(self.raw)
                        commands = drawn_commands(80, 30)
                        self.write_through_ringdisk(commands)
                        peers.qemu_io(self.raw, commands, image_format="raw")
                        self.require_disk(self.raw)

    def test_converted_and_compressed(self):
        wanted = pattern.sparse(SIZE, SEED + 1, compressible=True)
        wanted.write(self.raw)
        for words in ([], ["-c"]):
            for maker in (peers.ringdisk, peers.qemu_img):
                for kind in ("zlib", "zstd"):
                    with self.subTest(words=words, maker=maker.__name__, kind=kind):
                        self.image.unlink(missing_ok=True)
                        wanted.write(self.raw)
                        maker("convert", *words, "-f", "raw", "-O", "qcow2",
                              "-o", f"extended_l2=on,compression_type={kind}", self.raw, self.image)
                        self.require_disk(self.raw)
                        commands = drawn_commands(90, 40)
                        self.write_through_ringdisk(commands)
                        peers.qemu_io(self.raw, commands, image_format="raw")
                        self.require_disk(self.raw)

    def test_snapshots_keep_what_they_held(self):
        for maker in (peers.ringdisk, peers.qemu_img):
            with self.subTest(maker=maker.__name__):
                self.make(peers.qemu_img, backing=True)
                peers.qemu_io(self.image, drawn_commands(100))
                self.start_raw()
                before = self.directory / "before.raw"
                self.raw.rename(before)
                maker("snapshot", "-c", "one", self.image)
                self.start_raw()
                commands = drawn_commands(101)
                self.write_through_ringdisk(commands)
                peers.qemu_io(self.raw, commands, image_format="raw")
                self.require_disk(self.raw)
                peers.ringdisk("convert", "-l", "one", "-O", "raw", self.image, self.copy)
                peers.require_same(before, self.copy)
                maker("snapshot", "-a", "one", self.image)
                self.require_disk(before)
                self.write_through_ringdisk(drawn_commands(102, 20))
                peers.qemu_check(self.image)
                maker("snapshot", "-d", "one", self.image)
                peers.qemu_check(self.image)
                peers.ringdisk("check", self.image)

    def test_commit_and_resize(self):
        self.make(peers.ringdisk, backing=True, size=SIZE - 512 * 300)
        self.start_raw()
        chance = random.Random(110)
        commands = [f"write -P {i + 1} {chance.randint(0, 2600) * 2048 + 512} {512 * (i % 9 + 1)}"
                    for i in range(30)]
        self.write_through_ringdisk(commands)
        peers.qemu_io(self.raw, commands, image_format="raw")
        self.require_disk(self.raw)
        peers.ringdisk("commit", self.image)
        peers.require_same(self.raw, self.base)
        self.require_disk(self.raw)
        for size in (SIZE + (40 << 20), SIZE - (3 << 20) // 512 * 512):
            for program in (peers.ringdisk, peers.qemu_img):
                program("resize", "--shrink", self.image, str(size))
                self.start_raw()
                self.require_disk(self.raw)

    def test_rebase_keeps_the_disk(self):
        other = self.directory / "other.raw"
        pattern.sparse(SIZE - 512 * 100, SEED + 3).write(other)
        for words in (["-b", "other.raw", "-F", "raw"], ["-b", ""]):
            with self.subTest(words=words):
                self.make(peers.qemu_img, backing=True)
                peers.qemu_io(self.image, drawn_commands(120))
                self.start_raw()
                peers.ringdisk("rebase", *words, self.image)
                self.require_disk(self.raw)

    def test_compact_keeps_the_disk(self):
        self.make(peers.qemu_img, backing=True)
        peers.qemu_io(self.image, drawn_commands(130))
        peers.qemu_img("snapshot", "-c", "one", self.image)
        peers.qemu_io(self.image, drawn_commands(131) + ["write -z -u 1M 2M"])
        self.start_raw()
        peers.ringdisk("compact", self.image)
        self.require_disk(self.raw)

    def test_info_shows_it(self):
        self.make(peers.ringdisk)
        ours = json.loads(peers.ringdisk("info", "--output=json", self.image).stdout)
        self.assertIs(ours["format-specific"]["data"]["extended-l2"], True)
        theirs = peers.qemu_info(self.image)
        self.assertEqual(ours["format-specific"], theirs["format-specific"])

    def test_what_cannot_be_made_is_named(self):
        for option in ("cluster_size=8k", "compat=0.10"):
            done = peers.ringdisk("create", "-f", "qcow2", "-o", f"extended_l2=on,{option}",
                                  self.image, "1M", expect=1)
            self.assertIn("extended_l2", done.stderr)
            self.assertFalse(self.image.exists())

    def test_damaged_bitmaps_are_found_by_both(self):
        for bitmap in ((1 << 32) | 1, (1 << 63) | 0xffffffff):
            with self.subTest(bitmap=bitmap):
                self.make(peers.qemu_img)
                peers.qemu_io(self.image, ["write -P 1 0 1M"])
                with open(self.image, "r+b") as file:
                    file.seek(40)
                    file.seek(struct.unpack(">Q", file.read(8))[0])
                    table = struct.unpack(">Q", file.read(8))[0] & ((1 << 56) - 512)
                    file.seek(table + 5 * 16 + 8)
                    file.write(struct.pack(">Q", bitmap))
                done = peers.ringdisk("check", "--output=json", self.image, expect=2)
                self.assertEqual(json.loads(done.stdout)["corruptions"], 1)
                peers.qemu_io(self.image, [f"read {5 * 65536} 64k"], expect=1)
                refused = peers.ringdisk("convert", "-O", "raw", self.image, self.copy, expect=1)
                self.assertIn("L2 entry 5", refused.stderr)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
