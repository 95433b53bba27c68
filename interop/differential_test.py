#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random lives of images, lived twice: the same commands by ringdisk in one directory and by
qemu-img in another. After each, both must have agreed on success or failure; the disks must hold
the same bytes; info must say the same of both; and neither program may find fault with the image
of the other.

The lives are seeded: a failure prints its seed and the commands so far. RINGDISK_LIVES=N lives more
than a test run has time for, RINGDISK_LIFE=SEED one alone."""
import json
import os
import random

import peers

LIVES = int(os.environ.get("RINGDISK_LIVES", "8"))
STEPS = 14
FIRST_SEED = 20261121
KIB, MIB = 1 << 10, 1 << 20


class Life:
    """Two directories in which the same happens, and what is known of the images there."""

    def __init__(self, directory, seed):
        self.random = random.Random(seed)
        self.ours, self.theirs = directory / "ringdisk", directory / "qemu"
        self.ours.mkdir()
        self.theirs.mkdir()
        self.log = [f"seed {seed}"]
        self.size = self.random.choice([MIB, 3 * MIB + 512, 8 * MIB, 5 * MIB + 64 * KIB])
        self.version_2 = False
        self.has_data_file = self.is_extended = self.is_resized = False
        self.is_zstd = False
        self.snapshots, self.bitmaps = [], []
        self.copies = 0

    # Doing the same twice

    def both(self, *words):
        """Runs one command line in both directories; gives whether it succeeded."""
        words = [str(word) for word in words]
        self.log.append(" ".join(words))
        ours = peers.ringdisk(*words, cwd=self.ours, expect=None)
        theirs = peers.qemu_img(*words, cwd=self.theirs, expect=None)
        if (ours.returncode == 0) != (theirs.returncode == 0):
            self.fail(f"ringdisk: status {ours.returncode} {ours.stdout}{ours.stderr}\n"
                      f"qemu-img: status {theirs.returncode} {theirs.stdout}{theirs.stderr}")
        if ours.returncode not in (0, 1):
            self.fail(f"ringdisk: status {ours.returncode} {ours.stdout}{ours.stderr}")
        return ours.returncode == 0

    def fail(self, what):
        """Ends the life with all that happened in it."""
        raise AssertionError("\n".join([*self.log, what]))

    def write(self, image, image_format="qcow2"):
        """The same random changes of both disks."""
        commands = []
        for _ in range(self.random.randint(1, 6)):
            length = self.random.choice([512, 4 * KIB, 20 * KIB, 64 * KIB, 300 * KIB])
            offset = self.random.randrange(0, self.size, 512)
            length = min(length, self.size - offset)
            kind = self.random.choice(["write -P {byte}", "write -P {byte}", "write -z",
                                       "write -z -u", "discard"])
            commands.append(kind.format(byte=self.random.randint(1, 255)) + f" {offset} {length}")
        self.log.append(f"qemu-io {image}: {'; '.join(commands)}")
        for place in (self.ours, self.theirs):
            peers.qemu_io(image, commands, image_format, cwd=place)

    # What is compared

    def compare(self, image, image_format="qcow2"):
        """Bytes, descriptions and health of both."""
        if image_format == "qcow2":
            for name, program in (("ringdisk", peers.ringdisk), ("qemu-img", peers.qemu_img)):
                for place in (self.ours, self.theirs):
                    done = program("check", "-f", "qcow2", image, cwd=place, expect=None)
                    # qemu-img leaks where it gives up in the middle (refcount_bits=1, snapshot -c).
                    is_leak = place == self.theirs and done.returncode == 3
                    if done.returncode != 0 and not is_leak:
                        self.fail(f"{name} check {place / image}: {done.stdout}{done.stderr}")
            self.compare_descriptions(image)
        for program, place in ((peers.qemu_img, self.ours), (peers.qemu_img, self.theirs)):
            program("convert", "-f", image_format, "-O", "raw", image, "content.raw", cwd=place)
        offset = peers.first_difference(self.ours / "content.raw", self.theirs / "content.raw")
        if offset is not None:
            self.fail(f"{image}: the disks differ at byte {offset}")

    def compare_descriptions(self, image):
        """info of ringdisk about ringdisk's image and of qemu-img about qemu-img's."""
        told = [json.loads(program("info", "--output=json", image, cwd=place).stdout)
                for program, place in ((peers.ringdisk, self.ours), (peers.qemu_img, self.theirs))]
        for description in told:
            self.forget_incidentals(description)
        if told[0] != told[1]:
            self.fail(f"info {image}:\n{json.dumps(told[0], sort_keys=True)}\n"
                      f"{json.dumps(told[1], sort_keys=True)}")

    @staticmethod
    def forget_incidentals(description):
        """Drops what may differ: places, times, space taken, and the tree of open files."""
        for key in ("children", "actual-size", "full-backing-filename", "dirty-flag"):
            description.pop(key, None)
        for snapshot in description.get("snapshots", []):
            for key in ("date-sec", "date-nsec", "vm-clock-sec", "vm-clock-nsec", "icount"):
                snapshot.pop(key, None)
        data = description.get("format-specific", {}).get("data", {})
        data.get("bitmaps", []).sort(key=lambda bitmap: bitmap["name"])

    # Beginnings

    def begin(self):
        """base.qcow2 or base.raw, and disk.qcow2, over it or on its own."""
        base_format = self.random.choice(["qcow2", "raw"])
        self.both("create", "-q", "-f", base_format, f"base.{base_format}", self.size)
        self.write(f"base.{base_format}", base_format)
        options = self.choose_options()
        words = ["create", "-q", "-f", "qcow2"]
        self.has_backing = not self.has_data_file and self.random.random() < 0.6
        if self.has_backing:
            words += ["-b", f"base.{base_format}", "-F", base_format]
        words += ["-o", ",".join(options)] if options else []
        self.base = (f"base.{base_format}", base_format)
        self.both(*words, "disk.qcow2", self.size)

    def choose_options(self):
        """Options of `create`, none that contradict each other."""
        pick = self.random.random
        chosen = []
        if pick() < 0.2:
            self.version_2 = True
            chosen.append("compat=0.10")
        cluster = self.random.choice([None, "512", "4k", "32k", "2M"])
        if not self.version_2 and pick() < 0.25:
            self.is_extended = True
            cluster = self.random.choice(["16k", "64k", "128k"])
            chosen.append("extended_l2=on")
        if cluster:
            chosen.append(f"cluster_size={cluster}")
        if not self.version_2:
            if pick() < 0.3:
                chosen.append(f"refcount_bits={self.random.choice([1, 8, 16, 32, 64])}")
            if pick() < 0.2:
                chosen.append("lazy_refcounts=on")
            if pick() < 0.3:
                self.is_zstd = pick() < 0.5
                chosen.append(f"compression_type={'zstd' if self.is_zstd else 'zlib'}")
            if pick() < 0.15:
                self.has_data_file = True
                chosen.append("data_file=disk.data")
                if pick() < 0.5:
                    chosen.append("data_file_raw=on")
        return chosen

    # Steps

    def step(self):
        """One thing that happens, as the random numbers have it."""
        kinds = [self.write_disk, self.write_disk, self.snapshot, self.resize, self.rebase,
                 self.commit, self.amend, self.bitmap, self.convert, self.map, self.repair]
        self.random.choice(kinds)()

    def write_disk(self):
        """Changes by qemu-io."""
        self.write("disk.qcow2")

    def snapshot(self):
        """One of snapshot's verbs, on names that may not be there."""
        names = self.snapshots + ["nobody"]
        verb = self.random.choice(["-c", "-c", "-a", "-d"])
        if verb == "-c":
            name = f"s{len(self.log)}"
            if self.both("snapshot", "-c", name, "disk.qcow2"):
                self.snapshots.append(name)
            return
        name = self.random.choice(names)
        if self.both("snapshot", verb, name, "disk.qcow2"):
            if verb == "-d":
                self.snapshots.remove(name)
            self.note_size()

    def note_size(self):
        """A snapshot may have been of another size."""
        self.size = peers.qemu_info(self.theirs / "disk.qcow2")["virtual-size"]

    def resize(self):
        """Up or down, sometimes without leave."""
        size = self.size + self.random.choice([-MIB, -64 * KIB, 512, 64 * KIB, MIB, 7 * MIB])
        words = ["--shrink"] if self.random.random() < 0.7 else []
        if self.both("resize", "-q", *words, "disk.qcow2", max(size, 0)):
            self.size = max(size, 0)
            self.is_resized = True

    def rebase(self):
        """To nothing, to the base, by name or with what differs copied. Not with snapshots: those
        change with it, so ringdisk refuses what qemu-img does."""
        if self.snapshots:
            return
        words = ["-u"] if self.random.random() < 0.2 and not self.has_backing else []
        if self.random.random() < 0.5:
            words += ["-b", ""]
        else:
            words += ["-b", self.base[0], "-F", self.base[1]]
        if self.both("rebase", *words, "-f", "qcow2", "disk.qcow2"):
            self.has_backing = words[-1] != ""

    def commit(self):
        """What disk.qcow2 has of its own goes down."""
        self.both("commit", "-q", *(["-d"] if self.random.random() < 0.5 else []), "-f", "qcow2",
                  "disk.qcow2")

    def amend(self):
        """Another version or laziness. Not another width of refcounts: qemu-img 10 may never end
        then."""
        option = self.random.choice(["compat=0.10", "compat=1.1", "lazy_refcounts=on",
                                     "lazy_refcounts=off", "cluster_size=1k"])
        if option == "compat=0.10" and self.is_zstd:
            return  # qemu-img makes an image of it that says zlib
        self.both("amend", "-q", "-f", "qcow2", "-o", option, "disk.qcow2")

    def bitmap(self):
        """One change of a bitmap that may not be there."""
        names = self.bitmaps + ["nobody"]
        verb = self.random.choice(["--add", "--add", "--remove", "--clear", "--enable",
                                   "--disable"])
        name = f"b{len(self.log)}" if verb == "--add" else self.random.choice(names)
        words = ["-g", self.random.choice(["512", "4k", "64k"])] if verb == "--add" else []
        if self.both("bitmap", verb, *words, "-f", "qcow2", "disk.qcow2", name):
            if verb == "--add":
                self.bitmaps.append(name)
            if verb == "--remove":
                self.bitmaps.remove(name)

    def convert(self):
        """A copy, in one of many forms; of a snapshot, perhaps."""
        self.copies += 1
        form = self.random.choice(["raw", "qcow2", "qcow2"])
        words = ["-O", form]
        if form == "qcow2":
            words += self.random.choice([[], ["-c"], ["-o", "compat=0.10"], ["--bitmaps"],
                                         ["-o", "extended_l2=on"], ["-S", "0"],
                                         ["-o", "preallocation=metadata"],
                                         ["-c", "-o", "compression_type=zstd"]])
        # qemu-img gives a snapshot's copy the size that the disk has now.
        may_be_snapshot = self.snapshots and not self.is_resized and "--bitmaps" not in words
        if may_be_snapshot and self.random.random() < 0.3:
            words += ["-l", self.random.choice(self.snapshots)]
        copy = f"copy{self.copies}.{form}"
        if self.both("convert", "-q", "-f", "qcow2", *words, "disk.qcow2", copy):
            self.compare(copy, form)

    def map(self):
        """map tells the same of the image that ringdisk made, whoever tells."""
        self.log.append("map")
        told = [json.loads(program("map", "--output=json", "-f", "qcow2", "disk.qcow2",
                                   cwd=self.ours).stdout)
                for program in (peers.ringdisk, peers.qemu_img)]
        told = [peers.without_holes(extents) for extents in told]
        if told[0] != told[1]:
            self.fail(f"map:\n{told[0]}\n{told[1]}")

    def repair(self):
        """Nothing to repair, and nothing broken by it. (qemu-img 10 loses the snapshots of an image
        with bitmaps there.)"""
        if self.snapshots and self.bitmaps:
            return
        self.both("check", "-q", "-r", self.random.choice(["leaks", "all"]), "-f", "qcow2",
                  "disk.qcow2")

    def live(self):
        """The whole of it."""
        self.begin()
        self.compare("disk.qcow2")
        for _ in range(STEPS):
            self.step()
            self.compare("disk.qcow2")


class DifferentialTest(peers.Case):
    """Each life in a directory of its own."""

    def test_lives_are_the_same(self):
        only = os.environ.get("RINGDISK_LIFE")
        seeds = [int(only)] if only else range(FIRST_SEED, FIRST_SEED + LIVES)
        for seed in seeds:
            with self.subTest(seed=seed), peers.scratch() as directory:
                Life(directory, seed).live()


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
