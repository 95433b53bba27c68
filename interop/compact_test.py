#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compaction of images that qemu-io and qemu-img have filled with holes, snapshots and compressed
clusters: afterwards qemu-img finds nothing to complain of, reads the same disk and the same
snapshots, and the file is about as long as what it holds."""
import json
import os
import random
import signal
import subprocess

import pattern
import peers

MIB = 1 << 20
SIZE = 16 * MIB
SEED = 20241121
GEOMETRIES = ({}, {"cluster_size": "512"}, {"cluster_size": "4k", "refcount_bits": "8"},
              {"cluster_size": "2M"}, {"compat": "0.10"}, {"refcount_bits": "64"},
              {"cluster_size": "4k", "refcount_bits": "64"})


class CompactTest(peers.Case):
    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.qcow2"
        self.random = random.Random(SEED)

    def create(self, options, *more):
        chosen = ["-o", ",".join(f"{key}={value}" for key, value in options.items())]
        peers.qemu_img("create", "-q", "-f", "qcow2", *(chosen if options else []), *more,
                       self.image, str(SIZE))

    def scramble(self, requests=60):
        """Writes and discards all over the disk."""
        commands = []
        for _ in range(requests):
            at = self.random.randrange(SIZE // 4096) * 4096
            length = min(self.random.randrange(1, 200) * 4096, SIZE - at)
            if self.random.random() < 0.4:
                commands.append(f"discard {at} {length}")
            else:
                commands.append(f"write -q -P {self.random.randrange(1, 255)} {at} {length}")
        peers.qemu_io(self.image, commands)

    def snapshots(self):
        info = peers.qemu_info(self.image)
        return [one["name"] for one in info.get("snapshots", [])]

    def contents(self):
        """The disk and each snapshot, read by qemu-img, as files."""
        files = {}
        for name in [None, *self.snapshots()]:
            target = self.directory / f"{name}.{len(os.listdir(self.directory))}.raw"
            words = ["-l", f"snapshot.name={name}"] if name else []
            peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", *words, self.image, target)
            files[name] = target
        return files

    def compact(self, *arguments):
        """What it reports; everything must be as before."""
        before = self.contents()
        done = peers.ringdisk("compact", "--output=json", *arguments, self.image)
        report = json.loads(done.stdout)
        self.assertEqual(report["bytes-after"], self.image.stat().st_size)
        self.assertLessEqual(report["bytes-after"], report["bytes-before"])
        peers.qemu_check(self.image)
        after = self.contents()
        self.assertEqual(before.keys(), after.keys())
        for name, file in before.items():
            self.assertIsNone(peers.first_difference(file, after[name]), f"snapshot {name}")
        for file in (*before.values(), *after.values()):
            file.unlink()
        return report

    def require_dense(self, report, clusters_more=0):
        """The file holds nothing but what is in use: a copy cannot be shorter by much."""
        self.assertEqual(report["obstacles"], [])
        found = json.loads(peers.qemu_img("check", "--output=json", self.image).stdout)
        cluster = peers.qemu_info(self.image)["cluster-size"]
        used = found.get("allocated-clusters", 0) * cluster
        tables = 2 * MIB if cluster >= 65536 else MIB
        self.assertLessEqual(report["bytes-after"],
                             used + max(tables, 8 * cluster) + clusters_more * cluster)

    def test_holes_of_discards_go(self):
        for options in GEOMETRIES:
            with self.subTest(**options):
                self.create(options)
                for _ in range(3):
                    self.scramble()
                report = self.compact()
                self.require_dense(report)
                self.scramble()
                peers.qemu_check(self.image)
                self.compact()
                self.image.unlink()

    def bitmaps(self):
        """What qemu-img says of them, and which parts of the disk each calls dirty: as an image in
        which those are allocated."""
        found = peers.qemu_info(self.image)["format-specific"]["data"].get("bitmaps", [])
        dirty = {}
        for name in (one["name"] for one in found):
            with_one = self.directory / "with-one.qcow2"
            peers.qemu_img("create", "-q", "-f", "qcow2", with_one, str(SIZE))
            peers.qemu_img("bitmap", "--add", "-g", "64k", with_one, name)
            peers.qemu_img("bitmap", "--merge", name, "-b", self.image, "-F", "qcow2", with_one,
                           name)
            server = peers.serve_qemu_nbd(with_one, self.directory / "bitmap.sock", "-B", name)
            dirty[name] = peers.nbdinfo(server.uri(), f"--map=qemu:dirty-bitmap:{name}")
            server.kill()
        return sorted(str(one) for one in found), dirty

    def test_dirty_bitmaps_move_and_stay_what_they_are(self):
        for options in ({}, {"cluster_size": "512"}, {"cluster_size": "4k", "extended_l2": "off"}):
            with self.subTest(**options):
                self.create(options)
                for i in range(4):
                    maker = peers.qemu_img if i % 2 else peers.ringdisk
                    maker("bitmap", "--add", "-g", "64k", self.image, f"b{i}-{'x' * 200}")
                    self.scramble(30)
                peers.qemu_img("bitmap", "--disable", self.image, f"b2-{'x' * 200}")
                peers.ringdisk("bitmap", "--remove", self.image, f"b0-{'x' * 200}")
                self.scramble()
                before = self.bitmaps()
                self.assertEqual(len(before[1]), 3)
                self.require_dense(self.compact())
                self.assertEqual(self.bitmaps(), before)
                self.scramble()
                self.compact()
                self.image.unlink()

    def test_an_image_with_a_data_file_has_its_tables_moved(self):
        os.chdir(self.directory)
        self.create({"data_file": "disk.data", "cluster_size": "512"})
        peers.ringdisk("bitmap", "--add", "-g", "512", self.image, "gone")
        self.scramble()
        peers.qemu_img("resize", "-q", self.image, str(2 * SIZE))
        peers.qemu_img("bitmap", "--add", self.image, "kept")
        peers.qemu_io(self.image, [f"write -q -P 9 {SIZE} 4M"])
        peers.ringdisk("bitmap", "--remove", self.image, "gone")
        report = self.compact()
        self.assertLess(report["bytes-after"], report["bytes-before"])
        self.assertEqual(report["obstacles"], [])
        self.scramble()
        self.compact()

    def test_room_is_made_for_a_long_table(self):
        """Every second cluster is a hole, and the longer L1 table of a larger disk lies behind."""
        self.create({"cluster_size": "512"})
        peers.qemu_io(self.image, ["write -q -P 5 0 2M"])
        peers.qemu_io(self.image, [f"discard {at} 512" for at in range(0, 2 * MIB, 1024)])
        peers.qemu_img("resize", "-q", self.image, "64M")
        self.require_dense(self.compact())

    def test_snapshots_stay_what_they_were(self):
        for options in GEOMETRIES:
            with self.subTest(**options):
                self.create(options)
                for i in range(4):
                    self.scramble(30)
                    maker = peers.qemu_img if i % 2 else peers.ringdisk
                    maker("snapshot", "-c", f"s{i}", self.image)
                self.scramble(30)
                self.compact()
                peers.qemu_img("snapshot", "-d", "s1", self.image)
                peers.ringdisk("snapshot", "-d", "s2", self.image)
                self.compact()
                peers.qemu_img("snapshot", "-a", "s0", self.image)
                peers.qemu_img("snapshot", "-d", "s3", self.image)
                self.compact()
                self.image.unlink()

    def test_compressed_clusters_are_packed_anew(self):
        source = self.directory / "source.raw"
        for options in ({}, {"compression_type": "zstd"}, {"cluster_size": "4k"},
                        {"compat": "0.10"}):
            for program in (peers.qemu_img, peers.ringdisk):
                with self.subTest(**options):
                    pattern.full(SIZE, SEED, compressible=True).write(source)
                    chosen = ",".join(f"{key}={value}" for key, value in options.items())
                    program("convert", "-c", "-f", "raw", "-O", "qcow2",
                            *(["-o", chosen] if options else []), source, self.image)
                    peers.qemu_img("snapshot", "-c", "packed", self.image)
                    self.scramble(30)
                    self.compact()
                    peers.qemu_img("snapshot", "-d", "packed", self.image)
                    report = self.compact()
                    self.assertLess(report["bytes-after"], report["bytes-before"])
                    self.image.unlink()

    def test_a_backing_image_shows_through_as_before(self):
        base = self.directory / "base.raw"
        pattern.full(SIZE, SEED).write(base)
        self.create({}, "-b", base.name, "-F", "raw")
        self.scramble()
        self.scramble()
        self.require_dense(self.compact())

    def test_a_preallocated_image_stays_sparse(self):
        self.create({"preallocation": "metadata"})
        peers.qemu_io(self.image, ["write -q -P 7 1M 1M", "discard 4M 8M"])
        self.compact()
        self.assertLess(self.image.stat().st_blocks * 512, 4 * MIB)

    def test_what_it_says(self):
        self.create({})
        self.scramble()
        before = self.image.stat().st_size
        done = peers.ringdisk("compact", self.image)
        after = self.image.stat().st_size
        self.assertEqual(done.stdout, f"Cut {before - after} bytes: was {before}, now {after}.\n")
        done = peers.ringdisk("compact", "-q", self.image)
        self.assertEqual(done.stdout, "")
        done = peers.ringdisk("compact", "--image-opts",
                              f"driver=qcow2,file.filename={self.image}")
        self.assertEqual(done.stdout, f"Cut 0 bytes: was {after}, now {after}.\n")
        raw = self.directory / "disk.raw"
        raw.write_bytes(b"x" * 4096)
        done = peers.ringdisk("compact", "-f", "raw", raw, expect=1)
        self.assertIn("has no holes", done.stderr)

    def test_a_signal_leaves_a_whole_image(self):
        peers.qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", self.image, "256M")
        peers.qemu_io(self.image, ["write -q -P 1 0 64M", "write -q -P 2 64M 128M",
                                   "discard 0 64M"])
        before = self.directory / "before.raw"
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, before)
        process = subprocess.Popen([peers.ringdisk_path(), "compact", "--progress=json",
                                    str(self.image)], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertIn(process.returncode, (0, 130), errors.decode())
        peers.qemu_check(self.image)
        after = self.directory / "after.raw"
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", self.image, after)
        self.assertIsNone(peers.first_difference(before, after))
        peers.ringdisk("compact", "-q", self.image)
        peers.qemu_check(self.image)
        self.assertLess(self.image.stat().st_size, 132 * MIB)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
