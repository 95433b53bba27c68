#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Internal snapshots in both directions: those that ringdisk makes are listed, read, applied and
deleted by qemu-img, and the other way round; qemu-img check finds nothing after any step."""
import itertools

import pattern
import peers

MIB = 1 << 20
SIZE = 4 * MIB
SEED = 20241120
GEOMETRIES = ({}, {"cluster_size": "512"}, {"cluster_size": "4k", "refcount_bits": "8"},
              {"cluster_size": "2M"}, {"compat": "0.10"}, {"refcount_bits": "64"})


class SnapshotTest(peers.Case):
    """Two states of a disk; the earlier one is kept by a snapshot."""

    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.qcow2"
        self.raw = self.directory / "disk.raw"
        self.copy = self.directory / "copy.raw"
        self.before = pattern.sparse(SIZE, SEED)
        self.after = pattern.full(SIZE, SEED + 1)
        self.programs = {"ringdisk": peers.ringdisk, "qemu-img": peers.qemu_img}

    def make(self, options):
        """An image that holds `before`."""
        self.before.write(self.raw)
        chosen = ["-o", ",".join(f"{key}={value}" for key, value in options.items())]
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", *(chosen if options else []),
                       self.raw, self.image)

    def overwrite(self):
        """The disk becomes `after`."""
        self.after.write(self.raw)
        peers.ringdisk("convert", "-n", "-f", "raw", "-O", "qcow2", self.raw, self.image)

    def require(self, wanted, *snapshot):
        """Both programs read `wanted` from the disk, or with -l from a snapshot, and find no
        fault in the image."""
        for program in self.programs.values():
            program("convert", "-f", "qcow2", "-O", "raw", *snapshot, self.image, self.copy)
            wanted.require(self.copy)
            self.copy.unlink()
            program("check", "-f", "qcow2", self.image)

    def test_each_makes_the_other_reads_applies_and_deletes(self):
        for (maker, other), options in itertools.product(
                (("ringdisk", "qemu-img"), ("qemu-img", "ringdisk"), ("ringdisk", "ringdisk")),
                GEOMETRIES):
            with self.subTest(maker=maker, other=other, **options):
                self.make(options)
                self.programs[maker]("snapshot", "-c", "early", self.image)
                self.require(self.before)
                self.overwrite()
                self.require(self.after)
                self.require(self.before, "-l", "early")
                self.programs[maker]("snapshot", "-c", "late", self.image)
                self.programs[other]("snapshot", "-a", "early", self.image)
                self.require(self.before)
                self.require(self.after, "-l", "late")
                self.programs[other]("snapshot", "-d", "early", self.image)
                self.require(self.before)
                self.programs[other]("snapshot", "-a", "2", self.image)
                self.programs[other]("snapshot", "-d", "late", self.image)
                self.require(self.after)

    def test_the_list_is_that_of_qemu_img(self):
        self.make({})
        for name in ("one", "a name with spaces", "drei-ä"):
            peers.ringdisk("snapshot", "-c", name, self.image)
        ours = peers.ringdisk("snapshot", "-l", self.image).stdout
        theirs = peers.qemu_img("snapshot", "-l", self.image).stdout
        if "VM_SIZE" in theirs:  # QEMU 10's columns
            self.assertEqual(ours, theirs)
        self.assertEqual(len(ours.splitlines()), len(theirs.splitlines()))
        self.assertIn("a name with spaces", ours)

    def test_compressed_clusters_are_shared_like_others(self):
        wanted = pattern.sparse(SIZE, SEED + 2, compressible=True)
        wanted.write(self.raw)
        peers.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", self.raw, self.image)
        peers.ringdisk("snapshot", "-c", "packed", self.image)
        self.overwrite()
        self.require(wanted, "-l", "packed")
        peers.ringdisk("snapshot", "-d", "packed", self.image)
        self.require(self.after)

    def test_an_l1_table_may_be_longer_than_a_refcount_block(self):
        peers.qemu_img("create", "-f", "qcow2", "-o", "cluster_size=512", self.image, "1G")
        peers.qemu_io(self.image, ["write -P 17 0 64k", "write -P 18 900M 64k"])
        peers.ringdisk("snapshot", "-c", "long", self.image)
        peers.qemu_io(self.image, ["write -P 19 0 4k", "read -P 18 900M 64k"])
        peers.qemu_img("check", self.image)
        peers.ringdisk("snapshot", "-a", "long", self.image)
        peers.qemu_io(self.image, ["read -P 17 0 64k"])
        peers.qemu_img("check", self.image)

    def test_names_that_repeat_or_are_ids_of_others_mean_the_same_to_both(self):
        for maker, program in itertools.product(self.programs, self.programs):
            with self.subTest(maker=maker, program=program):
                peers.qemu_img("create", "-f", "qcow2", self.image, "1M")
                for number, name in enumerate(("one", "one", "1", "2", "x"), 1):
                    peers.qemu_io(self.image, [f"write -P {number} 0 64k"])
                    self.programs[maker]("snapshot", "-c", name, self.image)
                for name, number in (("5", 5), ("1", 1), ("2", 2), ("one", 1), ("3", 3)):
                    self.programs[program]("snapshot", "-a", name, self.image)
                    peers.qemu_io(self.image, [f"read -P {number} 0 64k"])
                    self.programs[program]("convert", "-l", name, "-O", "raw", self.image,
                                           self.copy)
                    self.assertEqual(self.copy.read_bytes()[0], number)
                for name, left in (("1", "1245"), ("2", "125"), ("one", "25"), ("one", "5")):
                    self.programs[program]("snapshot", "-d", name, self.image)
                    listed = peers.qemu_img("snapshot", "-l", self.image).stdout.splitlines()[2:]
                    self.assertEqual("".join(line.split()[0] for line in listed), left)

    def test_names_that_are_not_there_are_refused(self):
        self.make({})
        for action in ("-a", "-d"):
            done = peers.ringdisk("snapshot", action, "gone", self.image, expect=1)
            self.assertIn("there is no snapshot 'gone'", done.stderr)
        done = peers.ringdisk("snapshot", "-c", "x", self.raw, expect=1)
        self.assertIn("has no snapshots", done.stderr)
        done = peers.ringdisk("convert", "-O", "raw", "-l", "gone", self.image, self.copy, expect=1)
        self.assertIn("there is no snapshot 'gone'", done.stderr)
        # Of a variable that is empty; the disk as it is now is not what was meant.
        done = peers.ringdisk("convert", "-O", "raw", "-l", "", self.image, self.copy, expect=1)
        self.assertIn("-l needs", done.stderr)
        self.assertFalse(self.copy.exists())

    def test_one_without_a_name_is_found(self):
        self.make({})
        peers.qemu_img("snapshot", "-c", "", self.image)
        self.overwrite()
        self.require(self.before, "-l", "snapshot.name=")
        peers.ringdisk("snapshot", "-a", "", self.image)
        self.require(self.before)
        peers.ringdisk("snapshot", "-d", "", self.image)
        self.require(self.before)
        self.assertNotIn("snapshots", peers.qemu_info(self.image))


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
