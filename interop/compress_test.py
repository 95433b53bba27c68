#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""convert -c: every qemu-img on this machine (that of bench/peers and the system's) reads, compares
and checks what ringdisk compressed, over both types, cluster sizes and levels; -c goes with -n, -B,
-S and -W, and is refused by name where it cannot be. Every 512-byte block has its own content."""
import itertools
import json
import random
import shutil

import pattern
import peers

KIB = 1 << 10
MIB = 1 << 20
SIZE = 6 * MIB + 512 * 5
SEED = 20250301
TYPES = ("zlib", "zstd")


def qemu_images():
    """The paths of all qemu-img there are."""
    return {path for path in (peers.find("qemu-img"), shutil.which("qemu-img")) if path}


class Compressed(peers.Case):
    def setUp(self):
        super().setUp()
        self.raw = self.directory / "disk.raw"
        self.image = self.directory / "disk.qcow2"

    def compress(self, *arguments, options=""):
        words = ["-o", options] if options else []
        peers.ringdisk("convert", "-c", "-f", "raw", "-O", "qcow2", *words, *arguments,
                       self.raw, self.image)

    def require_read_by_all(self):
        """The image is the raw file, for every reader, and clean; gives the number of compressed
        clusters, on which all agree."""
        counts = set()
        for program in qemu_images():
            peers.run([program, "compare", "-f", "raw", "-F", "qcow2", self.raw, self.image])
            done = peers.run([program, "check", "--output=json", self.image])
            counts.add(json.loads(done.stdout).get("compressed-clusters", 0))
        peers.ringdisk("convert", "-f", "qcow2", "-O", "raw", self.image,
                       self.directory / "again.raw")
        peers.require_same(self.raw, self.directory / "again.raw")
        done = peers.ringdisk("check", "--output=json", self.image)
        counts.add(json.loads(done.stdout).get("compressed-clusters", 0))
        self.assertEqual(len(counts), 1, counts)
        return counts.pop()

    def test_every_type_and_cluster_size(self):
        pattern.sparse(SIZE, SEED, compressible=True).write(self.raw)
        clusters = ("512", "4k", "16k", "64k", "256k", "2M")
        for kind, cluster in itertools.product(TYPES, clusters):
            with self.subTest(kind=kind, cluster=cluster):
                self.compress(options=f"compression_type={kind},cluster_size={cluster}")
                self.assertGreater(self.require_read_by_all(), 0)
                if cluster != "2M":  # of which the tables alone take more than the disk has
                    self.assertLess(self.image.stat().st_size, SIZE)
                told = json.loads(peers.ringdisk("info", "--output=json", self.image).stdout)
                self.assertEqual(told["format-specific"]["data"]["compression-type"], kind)

    def test_narrow_refcounts_and_version_2(self):
        pattern.sparse(SIZE, SEED + 1, compressible=True).write(self.raw)
        for options in ("refcount_bits=1", "refcount_bits=2,cluster_size=4k", "compat=0.10",
                        "refcount_bits=64,cluster_size=512"):
            with self.subTest(options=options):
                self.compress(options=options)
                self.assertGreater(self.require_read_by_all(), 0)

    def test_every_level(self):
        pattern.sparse(MIB, SEED + 2, compressible=True).write(self.raw)
        levels = [("zlib", level) for level in range(1, 13)]
        levels += [("zstd", level) for level in range(1, 23)]
        for kind, level in levels:
            with self.subTest(kind=kind, level=level):
                self.compress(options=f"compression_type={kind},compression_level={level}")
                self.assertGreater(self.require_read_by_all(), 0)

    def test_matches_farther_back_than_qemus_own_window(self):
        """Bytes that repeat 30000 bytes later and nowhere nearer: the clusters shrink only by
        distances that QEMU's own deflate, with a window of 4 KiB, does not make."""
        chance = random.Random(SEED)
        for cluster in (64 * KIB, MIB, 2 * MIB):
            with self.subTest(cluster=cluster):
                with open(self.raw, "wb") as file:
                    for _ in range(3):
                        piece = chance.randbytes(30000)
                        file.write((piece * (2 * MIB // len(piece) + 1))[:2 * MIB])
                self.compress(options=f"cluster_size={cluster}")
                self.assertEqual(self.require_read_by_all(), 6 * MIB // cluster)

    def test_clusters_that_do_not_shrink_and_zeros(self):
        self.raw.write_bytes(random.Random(SEED).randbytes(MIB) + bytes(2 * MIB))
        self.compress()
        self.assertEqual(self.require_read_by_all(), 0)
        self.assertLess(self.image.stat().st_size, MIB + MIB // 2)
        self.compress("-S", "0")  # zeros are written, too
        self.assertEqual(self.require_read_by_all(), 2 * MIB // (64 * KIB))

    def test_over_an_existing_image(self):
        pattern.sparse(SIZE, SEED + 4, compressible=True).write(self.raw)
        peers.qemu_img("create", "-f", "qcow2", "-o", "compression_type=zstd", self.image,
                       str(SIZE))
        peers.qemu_io(self.image, ["write -P 7 0 3M", "write -z 1M 64k"])
        self.compress("-n", "-W", "-m", "4")
        first = self.require_read_by_all()
        self.compress("-n", "-o", "compression_level=1")
        self.assertEqual(self.require_read_by_all(), first)

    def test_over_a_backing_image(self):
        base = self.directory / "base.raw"
        lower = pattern.full(SIZE, SEED + 5, compressible=True)
        lower.write(base)
        top = self.directory / "top.qcow2"
        peers.qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", top)
        peers.qemu_io(top, ["write -P 9 1M 100k", "write -z 2M 64k", "write -P 3 5M 512"])
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", top, self.raw)
        peers.ringdisk("convert", "-c", "-f", "qcow2", "-O", "qcow2", "-B", "base.raw", "-F", "raw",
                       top, self.image)
        self.assertEqual(self.require_read_by_all(), 3)

    def test_writes_into_what_we_compressed(self):
        pattern.sparse(SIZE, SEED + 6, compressible=True).write(self.raw)
        for kind in TYPES:
            with self.subTest(kind=kind):
                self.compress(options=f"compression_type={kind}")
                before = self.require_read_by_all()
                commands = ["write -P 5 100k 30k", "write -P 6 3M 1M", "write -z 2M 200k"]
                peers.qemu_io(self.raw, commands, image_format="raw")
                with peers.serve_ringdisk(self.image, self.directory / "nbd.sock") as server:
                    peers.qemu_io(server.uri(), commands, image_format="raw")
                self.assertLess(self.require_read_by_all(), before)


class Refused(peers.Case):
    def refusal(self, *arguments, made=False):
        source, target = self.directory / "a.raw", self.directory / "b"
        pattern.sparse(MIB, SEED).write(source)
        done = peers.ringdisk("convert", *arguments, source, target, expect=1)
        self.assertEqual(target.exists(), made)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        return done.stderr

    def test_a_format_without_compressed_clusters(self):
        self.assertIn("raw", self.refusal("-c", "-O", "raw"))
        (self.directory / "b").write_bytes(bytes(MIB))
        self.assertIn("raw", self.refusal("-c", "-n", "-O", "raw", made=True))
        self.assertEqual((self.directory / "b").read_bytes(), bytes(MIB))

    def test_levels(self):
        for options, words in (("compression_level=13", "zlib is 1 to 12"),
                               ("compression_type=zstd,compression_level=23", "zstd is 1 to 22"),
                               ("compression_level=0", "from 1 on"),
                               ("compression_level=fast", "from 1 on")):
            self.assertIn(words, self.refusal("-c", "-O", "qcow2", "-o", options))
        self.assertIn("needs -c", self.refusal("-O", "qcow2", "-o", "compression_level=3"))
        done = peers.ringdisk("create", "-f", "qcow2", "-o", "compression_level=3",
                              self.directory / "c", "1M", expect=1)
        self.assertIn("convert -c", done.stderr)

    def test_preallocation(self):
        self.assertIn("preallocation",
                      self.refusal("-c", "-O", "qcow2", "-o", "preallocation=metadata"))


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
