#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""qcow2 in both directions: QEMU writes and ringdisk reads; ringdisk writes, QEMU reads and finds
nothing to complain about. Over cluster sizes, refcount widths, versions, compression, snapshots and
backing chains; every 512-byte block has its own content."""
import itertools
import random

import pattern
import peers

MIB = 1 << 20
SIZE = 6 * MIB + 512 * 5
SEED = 20240501


def options_text(options):
    """-o's value for a dictionary."""
    return ",".join(f"{key}={value}" for key, value in options.items())


def geometries():
    """Dictionaries of -o options that make a difference to tables, each cluster size and refcount
    width at least once."""
    for cluster in ("512", "1k", "4k", "64k", "256k", "2M"):
        yield {"compat": "1.1", "cluster_size": cluster}
        yield {"compat": "0.10", "cluster_size": cluster}
    for bits in (1, 2, 4, 8, 16, 32, 64):
        for cluster in ("512", "64k"):
            yield {"compat": "1.1", "cluster_size": cluster, "refcount_bits": bits}


class TheyWriteWeRead(peers.Case):
    def setUp(self):
        super().setUp()
        self.raw = self.directory / "disk.raw"
        self.image = self.directory / "disk.qcow2"
        self.copy = self.directory / "copy.raw"
        self.pattern = pattern.sparse(SIZE, SEED)

    def read_back(self, wanted):
        peers.ringdisk("convert", "-f", "qcow2", "-O", "raw", self.image, self.copy)
        wanted.require(self.copy)
        self.copy.unlink()

    def test_every_geometry(self):
        self.pattern.write(self.raw)
        for options in geometries():
            with self.subTest(**options):
                peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", options_text(options),
                               self.raw, self.image)
                self.read_back(self.pattern)

    def test_compressed_clusters(self):
        wanted = pattern.sparse(SIZE, SEED + 1, compressible=True)
        wanted.write(self.raw)
        kinds = itertools.product(("512", "4k", "64k", "2M"), ("zlib", "zstd"))
        for cluster, kind in kinds:
            with self.subTest(cluster=cluster, kind=kind):
                options = {"cluster_size": cluster, "compression_type": kind}
                peers.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2",
                               "-o", options_text(options), self.raw, self.image)
                self.read_back(wanted)

    def test_a_chain_of_backing_images(self):
        base, middle = self.directory / "base.raw", self.directory / "middle.qcow2"
        lower = pattern.full(SIZE - 512 * 300, SEED + 2)
        lower.write(base)
        peers.qemu_img("create", "-f", "qcow2", "-b", "base.raw", "-F", "raw", middle)
        peers.qemu_io(middle, ["write -P 17 64k 200k", "write -z 1M 128k", "discard 2M 1M"])
        peers.qemu_img("create", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2",
                       "-o", "cluster_size=4k", self.image, str(SIZE))
        peers.qemu_io(self.image, ["write -P 33 100k 5k", "write -z 3M 12k"])
        wanted = self.directory / "wanted.raw"
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, wanted)
        peers.ringdisk("convert", "-f", "qcow2", "-O", "raw", self.image, self.copy)
        peers.require_same(wanted, self.copy)

    def test_the_active_state_beside_snapshots(self):
        self.pattern.write(self.raw)
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", self.raw, self.image)
        peers.qemu_img("snapshot", "-c", "before", self.image)
        peers.qemu_io(self.image, ["write -P 9 0 64k", "write -P 8 1234k 100k"])
        wanted = self.directory / "wanted.raw"
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, wanted)
        peers.ringdisk("convert", "-f", "qcow2", "-O", "raw", self.image, self.copy)
        peers.require_same(wanted, self.copy)


class WeWriteTheyRead(peers.Case):
    def setUp(self):
        super().setUp()
        self.raw = self.directory / "disk.raw"
        self.image = self.directory / "disk.qcow2"
        self.copy = self.directory / "copy.raw"

    def test_convert_to_every_geometry(self):
        wanted = pattern.sparse(SIZE, SEED + 3)
        wanted.write(self.raw)
        for options in geometries():
            with self.subTest(**options):
                peers.ringdisk("convert", "-f", "raw", "-O", "qcow2", "-o", options_text(options),
                               self.raw, self.image)
                peers.qemu_check(self.image)
                peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, self.copy)
                wanted.require(self.copy)
                self.image.unlink()

    def write_at_random(self, seed, discards=True):
        """The same random requests to the image, through ringdisk, and to a raw copy of the disk,
        through QEMU alone; then the image is clean and both hold the same."""
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, self.raw)
        size = self.raw.stat().st_size
        chance = random.Random(seed)
        commands = []
        for number in range(60):
            length = 512 * chance.randint(1, 300)
            offset = 512 * chance.randint(0, (size - length) // 512)
            what = chance.choice(("write", "write", "write", "write -z", "flush"))
            if what == "flush":
                commands.append("flush")
            elif what == "write":
                commands.append(f"write -P {number + 1} {offset} {length}")
            else:
                commands.append(f"write -z {'-u ' if discards else ''}{offset} {length}")
        peers.qemu_io(self.raw, commands, image_format="raw")
        socket = self.directory / "nbd.sock"
        with peers.serve_ringdisk(self.image, socket) as server:
            peers.qemu_io(server.uri(), commands,
                          image_format="raw")
        peers.qemu_check(self.image)
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, self.copy)
        peers.require_same(self.raw, self.copy)

    def test_requests_into_images_that_qemu_made(self):
        for seed, options in enumerate(geometries()):
            with self.subTest(seed=seed, **options):
                self.image.unlink(missing_ok=True)
                peers.qemu_img("create", "-f", "qcow2", "-o", options_text(options), self.image,
                               str(SIZE))
                peers.qemu_io(self.image, ["write -P 200 1M 300k", "write -P 201 3M 1M"])
                self.write_at_random(seed)

    def test_requests_over_a_backing_image(self):
        base = self.directory / "base.raw"
        pattern.full(SIZE - 512 * 100, SEED + 4).write(base)
        for seed, compat in enumerate(("1.1", "0.10")):
            with self.subTest(compat=compat):
                self.image.unlink(missing_ok=True)
                peers.qemu_img("create", "-f", "qcow2", "-o", f"compat={compat}",
                               "-b", "base.raw", "-F", "raw", self.image, str(SIZE))
                self.write_at_random(100 + seed)

    def test_requests_beside_a_snapshot_leave_the_snapshot_alone(self):
        wanted = pattern.sparse(SIZE, SEED + 5)
        wanted.write(self.raw)
        for cluster in ("512", "64k"):
            with self.subTest(cluster=cluster):
                self.image.unlink(missing_ok=True)
                peers.qemu_img("convert", "-f", "raw", "-O", "qcow2",
                               "-o", f"cluster_size={cluster}", self.raw, self.image)
                peers.qemu_img("snapshot", "-c", "before", self.image)
                self.write_at_random(200)
                peers.qemu_img("snapshot", "-a", "before", self.image)
                peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, self.copy)
                wanted.require(self.copy)
                wanted.write(self.raw)

    def test_requests_into_compressed_images(self):
        wanted = pattern.sparse(SIZE, SEED + 6, compressible=True)
        wanted.write(self.raw)
        for kind in ("zlib", "zstd"):
            with self.subTest(kind=kind):
                self.image.unlink(missing_ok=True)
                peers.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2",
                               "-o", f"compression_type={kind}", self.raw, self.image)
                self.write_at_random(300)


class Refused(peers.Case):
    def refusal(self, image, *arguments):
        done = peers.ringdisk("convert", "-f", "qcow2", "-O", "raw", *arguments, image,
                              self.directory / "out.raw", expect=1)
        lines = done.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn(str(image), lines[0])
        return lines[0]

    def test_features_that_are_not_supported_are_named(self):
        image = self.directory / "disk.qcow2"
        peers.qemu_img("create", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o",
                       "encrypt.format=aes,encrypt.key-secret=s", image, "1M")
        self.assertIn("legacy AES", self.refusal(image))

    def test_a_truncated_image(self):
        image = self.directory / "disk.qcow2"
        peers.qemu_img("create", "-f", "qcow2", image, "1G")
        with open(image, "r+b") as file:
            file.truncate(3 * 65536)
        self.assertIn("cut short", self.refusal(image))


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
