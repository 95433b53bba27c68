# SPDX-License-Identifier: Apache-2.0
"""`ringdisk check` against `qemu-img check` on images that were damaged on purpose, one damage at
a time: the same numbers of corruptions and leaks, the same exit status. Images of both programs.
And repairs: what ringdisk has repaired qemu-img finds nothing in, and the other way round, with the
content kept."""
import json
import os
import shutil
import struct

import peers

MIB = 1 << 20
CLUSTER = 65536
COPIED = 1 << 63
OFFSET_MASK = ((1 << 56) - 1) & ~511


class Image:
    """Raw access to the tables of a version 3 image with 64 KiB clusters and 16-bit refcounts."""

    def __init__(self, path):
        self.file = open(path, "r+b")
        header = self.read(0, 104)
        self.l1_size, self.l1 = struct.unpack(">IQ", header[36:48])
        self.refcount_table, = struct.unpack(">Q", header[48:56])
        self.block = self.number(self.refcount_table)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def read(self, at, length):
        self.file.seek(at)
        return self.file.read(length)

    def number(self, at):
        return struct.unpack(">Q", self.read(at, 8))[0]

    def write(self, at, form, value):
        self.file.seek(at)
        self.file.write(struct.pack(form, value))

    def l2_entry_at(self, guest_cluster):
        return (self.number(self.l1) & OFFSET_MASK) + guest_cluster * 8

    def l2_entry(self, guest_cluster):
        return self.number(self.l2_entry_at(guest_cluster))

    def set_l2_entry(self, guest_cluster, value):
        self.write(self.l2_entry_at(guest_cluster), ">Q", value)

    def set_refcount(self, host_offset, value):
        self.write(self.block + host_offset // CLUSTER * 2, ">H", value)


class Images(peers.Case):
    """Fresh images to be damaged."""

    def images(self):
        """The same content in an image made by each program."""
        raw = self.directory / "source.raw"
        with open(raw, "wb") as disk:
            disk.write(os.urandom(10 * CLUSTER))
            disk.truncate(4 * MIB)
        for name, maker in (("ours", peers.ringdisk), ("theirs", peers.qemu_img)):
            path = self.directory / f"{name}.qcow2"
            maker("convert", "-f", "raw", "-O", "qcow2", raw, path)
            yield path


class Damage(Images):
    """Each test damages a fresh image and asks both programs."""

    def same_verdict(self, path, status):
        words = ["check", "-f", "qcow2", "--output=json", path]
        theirs = peers.qemu_img(*words, expect=status)
        ours = peers.ringdisk(*words, expect=status)
        keys = ("corruptions", "leaks", "check-errors", "image-end-offset")
        one, other = json.loads(ours.stdout), json.loads(theirs.stdout)
        self.assertEqual({key: one.get(key) for key in keys},
                         {key: other.get(key) for key in keys}, ours.stderr + theirs.stderr)

    def damaged(self, damage, status):
        for path in self.images():
            self.same_verdict(path, 0)
            with Image(path) as image:
                damage(image)
            self.same_verdict(path, status)

    def test_a_pointer_that_is_gone_leaks(self):
        self.damaged(lambda image: image.set_l2_entry(3, 0), 3)

    def test_a_refcount_too_high_leaks(self):
        def damage(image):
            # Without the flag, which would contradict the refcount and be a corruption.
            image.set_refcount(image.l2_entry(9) & OFFSET_MASK, 2)
            image.set_l2_entry(9, image.l2_entry(9) & ~COPIED)
        self.damaged(damage, 3)

    def test_a_refcount_of_zero_is_a_corruption(self):
        self.damaged(lambda image: image.set_refcount(image.l2_entry(5) & OFFSET_MASK, 0), 2)

    def test_two_pointers_at_one_cluster_are_a_corruption(self):
        self.damaged(lambda image: image.set_l2_entry(2, image.l2_entry(7)), 2)

    def test_a_missing_copied_flag_is_a_corruption(self):
        self.damaged(lambda image: image.set_l2_entry(4, image.l2_entry(4) & ~COPIED), 2)

    def test_an_l1_entry_with_reserved_bits_is_a_corruption(self):
        self.damaged(lambda image: image.write(image.l1, ">Q", image.number(image.l1) | 1), 2)

    def test_a_shared_l2_table_with_the_copied_flag_is_a_corruption(self):
        def damage(image):
            image.set_refcount(image.number(image.l1) & OFFSET_MASK, 2)
        self.damaged(damage, 2)

    def test_lines_of_what_is_wrong_are_the_same(self):
        def damage(image):
            image.set_l2_entry(3, 0)
            image.set_refcount(image.l2_entry(5) & OFFSET_MASK, 0)
        for path in self.images():
            with Image(path) as image:
                damage(image)
            for form in ("human", "json"):
                words = ["check", "-f", "qcow2", f"--output={form}", path]
                theirs = peers.qemu_img(*words, expect=2)
                ours = peers.ringdisk(*words, expect=2)
                self.assertEqual(ours.stderr.strip(), theirs.stderr.strip())
                self.assertEqual(ours.stdout, theirs.stdout)


def set_leak(image):
    image.set_l2_entry(3, 0)


def set_refcount_too_high(image):
    image.set_refcount(image.l2_entry(9) & OFFSET_MASK, 3)
    image.set_l2_entry(9, image.l2_entry(9) & ~COPIED)


def set_refcount_zero(image):
    image.set_refcount(image.l2_entry(5) & OFFSET_MASK, 0)


def set_shared(image):
    image.set_l2_entry(2, image.l2_entry(7))


def clear_copied(image):
    image.set_l2_entry(4, image.l2_entry(4) & ~COPIED)


def remove_block(image):
    image.write(image.refcount_table, ">Q", 0)


def set_block_outside(image):
    image.write(image.refcount_table, ">Q", 1 << 40)


def set_block_twice(image):
    image.write(image.refcount_table + 8, ">Q", image.block)


def misalign_zeros(image):
    image.set_l2_entry(20, (image.l2_entry(4) & OFFSET_MASK) + 512 | 1)


def mark_dirty(image):
    set_refcount_zero(image)
    image.write(72, ">Q", 1)


def mark_corrupt(image):
    set_leak(image)
    image.write(72, ">Q", 2)


# What qemu-img repairs too.
COMMON_DAMAGE = (set_leak, set_refcount_too_high, set_refcount_zero, set_shared, clear_copied,
                 remove_block, set_block_twice, misalign_zeros, mark_dirty, mark_corrupt)


class VmState(peers.Case):
    """What lies behind the end of the disk."""

    def test_it_counts_as_qemu_img_counts_it(self):
        path = self.directory / "disk.qcow2"
        peers.qemu_img("create", "-q", "-f", "qcow2", path, "64M")
        peers.qemu_io(path, ["write 0 1M", "write -b 0 1M"])
        peers.qemu_img("snapshot", "-c", "one", path)
        peers.qemu_io(path, ["write 512k 64k", "write -b 128k 64k"])
        for words in (["check"], ["check", "--output=json"]):
            ours = peers.ringdisk(*words, path).stdout
            self.assertEqual(ours, peers.qemu_img(*words, path).stdout)
        self.assertEqual(json.loads(ours)["allocated-clusters"], 32)


class Repair(Images):
    """Repaired by the one, looked at by the other."""

    def content(self, path, maker=peers.qemu_img):
        raw = self.directory / "content.raw"
        maker("convert", "-f", "qcow2", "-O", "raw", path, raw)
        return raw.read_bytes()

    def test_what_we_repair_is_sound_and_as_qemu_would_have_it(self):
        for damage in (*COMMON_DAMAGE, set_block_outside):
            for path in self.images():
                with self.subTest(damage=damage.__name__, image=path.name):
                    with Image(path) as image:
                        damage(image)
                    other = self.directory / "theirs_repaired.qcow2"
                    shutil.copy(path, other)
                    peers.ringdisk("check", "-r", "all", path)
                    self.assertEqual(peers.qemu_check(path).get("corruptions", 0), 0)
                    peers.ringdisk("check", path)
                    if damage is set_block_outside:
                        continue  # qemu-img makes the file a TiB long
                    peers.qemu_img("check", "-r", "all", other)
                    peers.ringdisk("check", other)
                    self.assertEqual(self.content(path), self.content(other))
                    self.assertEqual(self.content(path), self.content(other, peers.ringdisk))

    def test_repairing_leaks_says_what_qemu_img_says(self):
        for damage in (set_leak, set_refcount_too_high):
            for path in self.images():
                with Image(path) as image:
                    damage(image)
                other = self.directory / "theirs_repaired.qcow2"
                shutil.copy(path, other)
                ours = peers.ringdisk("check", "-r", "leaks", path)
                theirs = peers.qemu_img("check", "-r", "leaks", other)
                self.assertEqual(ours.stdout, theirs.stdout)
                self.assertIn("Double checking the fixed image now...", ours.stdout)
                self.assertIn("Repairing cluster", ours.stderr)
                peers.qemu_check(path)

    def test_numbers_of_a_repair_are_in_the_json(self):
        for path in self.images():
            with Image(path) as image:
                set_leak(image)
                set_refcount_zero(image)
            done = peers.ringdisk("check", "-r", "all", "--output=json", path)
            report = json.loads(done.stdout)
            self.assertEqual((report["leaks-fixed"], report["corruptions-fixed"]), (1, 1))
            self.assertNotIn("leaks", report)
            self.assertNotIn("corruptions", report)

    def test_what_nobody_can_repair_stays_and_is_said(self):
        for path in self.images():
            with Image(path) as image:
                image.set_l2_entry(20, image.l2_entry(4) + 512)
            for prog in (peers.qemu_img, peers.ringdisk):
                prog("check", "-r", "all", path, expect=2)

    def test_leaks_are_not_repaired_over_broken_refcount_tables(self):
        for path in self.images():
            with Image(path) as image:
                remove_block(image)
            before = path.read_bytes()
            done = peers.ringdisk("check", "-r", "leaks", path, expect=1)
            self.assertIn("need to rebuild", done.stderr)
            self.assertEqual(path.read_bytes(), before)

    def test_the_command_line_is_refused_where_it_makes_no_sense(self):
        path = next(iter(self.images()))
        for words in (["-r", "some"], ["-r", "all", "-U"], ["--memory-max", "1M"]):
            peers.ringdisk("check", *words, path, expect=1)


def shorten_extra(path, lengths, version):
    """Cuts the extra bytes of each snapshot table entry to so many, and says the version."""
    with open(path, "r+b") as image:
        image.seek(60)
        count, at = struct.unpack(">IQ", image.read(12))
        image.seek(at)
        old = image.read(CLUSTER)
        new, place = b"", 0
        for length in lengths[:count]:
            fixed, rest = old[place:place + 40], old[place + 40:]
            names = sum(struct.unpack(">HH", fixed[12:16]))
            extra, = struct.unpack(">I", fixed[36:40])
            entry = fixed[:36] + struct.pack(">I", length) + rest[:length]
            entry += rest[extra:extra + names]
            new += entry + bytes(-len(entry) % 8)
            place += (40 + extra + names + 7) // 8 * 8
        image.seek(at)
        image.write(new.ljust(CLUSTER, b"\0"))
        image.seek(4)
        image.write(struct.pack(">I", version))
        if version == 3:
            image.seek(72)
            image.write(struct.pack(">QQQII", 0, 0, 0, 4, 104))


class IncompleteSnapshots(Images):
    """Images of version 2 with snapshots that were made version 3 by their header alone."""

    def image(self, lengths, version=3):
        path = self.directory / "snapshots.qcow2"
        path.unlink(missing_ok=True)
        peers.qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", path, "4M")
        for i in range(len(lengths)):
            peers.run([peers.need("qemu-io"), "-f", "qcow2", "-c",
                       f"write -P {i + 1} {i * CLUSTER} {2 * CLUSTER}", path])
            peers.qemu_img("snapshot", "-c", f"snapshot {i}", path)
        shorten_extra(path, lengths, version)
        return path

    def snapshots(self, path, maker):
        """What a program says of them."""
        info = maker("info", "--output=json", "-f", "qcow2", path).stdout
        return json.loads(info)["snapshots"]

    def contents(self, path, count, maker):
        contents = []
        for i in range(count):
            raw = self.directory / "content.raw"
            maker("convert", "-f", "qcow2", "-O", "raw", "-l", f"snapshot.name=snapshot {i}",
                  path, raw)
            contents.append(raw.read_bytes())
        return contents

    def test_what_is_found_is_what_qemu_img_finds(self):
        for version, lengths, status in ((3, (0, 24, 8), 2), (3, (15,), 2), (3, (16, 24), 0),
                                         (2, (0, 8, 24), 0)):
            path = self.image(lengths, version)
            for words in (["check"], ["check", "--output=json"], ["check", "-r", "leaks"]):
                with self.subTest(version=version, lengths=lengths, words=words):
                    before = path.read_bytes()
                    theirs = peers.qemu_img(*words, "-f", "qcow2", path, expect=status)
                    self.assertEqual(path.read_bytes(), before)
                    ours = peers.ringdisk(*words, "-f", "qcow2", path, expect=status)
                    self.assertEqual(path.read_bytes(), before)
                    self.assertEqual(ours.stderr.strip(), theirs.stderr.strip())
                    self.assertEqual(ours.stdout, theirs.stdout)

    def test_what_one_repairs_is_sound_for_the_other_and_says_the_same(self):
        path = self.image((0, 24, 8))
        snapshots = self.snapshots(path, peers.ringdisk)
        contents = self.contents(path, 3, peers.ringdisk)
        other = self.directory / "theirs_repaired.qcow2"
        shutil.copy(path, other)
        ours = peers.ringdisk("check", "-r", "all", path)
        theirs = peers.qemu_img("check", "-r", "all", other)
        self.assertEqual(ours.stderr.strip(), theirs.stderr.strip())
        self.assertEqual([line for line in ours.stdout.splitlines() if "offset" not in line],
                         [line for line in theirs.stdout.splitlines() if "offset" not in line])
        for repaired in (path, other):
            for maker in (peers.ringdisk, peers.qemu_img):
                with self.subTest(image=repaired.name, maker=maker.__name__):
                    maker("check", repaired)
                    self.assertEqual(self.snapshots(repaired, maker), snapshots)
                    self.assertEqual(self.contents(repaired, 3, maker), contents)
        peers.qemu_img("snapshot", "-d", "snapshot 1", path)
        peers.ringdisk("snapshot", "-d", "snapshot 0", path)
        peers.qemu_check(path)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
