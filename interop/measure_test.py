#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""measure against qemu-img's: the same numbers for random sizes, options and sources, in text and
in JSON; and no image that convert makes is larger than measure said. Where our images are not laid
out as qemu-img's (LUKS begins its data at a whole MiB) the difference is just that."""
import json
import random

import encrypted
import peers

KIB, MIB = 1 << 10, 1 << 20
SEED = 20261121
SIZE_CASES = 200
SOURCES = 14
TARGETS_PER_SOURCE = 14
LUKS2 = "version=2,pbkdf=pbkdf2,pbkdf-force-iterations=1000"


def measure(*words):
    """What ringdisk measures, as a dictionary."""
    return json.loads(peers.ringdisk("measure", "--output=json", *words).stdout)


def random_qcow2_options(dice, preallocates=True):
    """Options that create takes, as text for -o."""
    is_extended = dice.random() < 0.2
    bits = dice.randrange(14 if is_extended else 9, 22)
    options = [f"cluster_size={1 << bits}"]
    if is_extended:
        options.append("extended_l2=on")
    elif dice.random() < 0.15:
        return ",".join(options + ["compat=0.10"])
    if dice.random() < 0.5:
        options.append(f"refcount_bits={1 << dice.randrange(7)}")
    if preallocates and dice.random() < 0.3:
        options.append("preallocation=" + dice.choice(["off", "metadata", "falloc", "full"]))
    for option in ("lazy_refcounts=on", "compression_type=zstd", "compat=1.1"):
        if dice.random() < 0.1:
            options.append(option)
    return ",".join(options)


class MeasureCase(peers.Case):
    def require_same(self, *words):
        """Both measure the same, to the letter, or both refuse; gives the numbers."""
        theirs = peers.qemu_img("measure", *words, "--output=json", expect=None)
        ours = peers.ringdisk("measure", *words, "--output=json", expect=None)
        self.assertEqual((ours.returncode, ours.stdout), (theirs.returncode, theirs.stdout),
                         f"{words}\n{ours.stderr}\n{theirs.stderr}")
        if ours.returncode == 0:
            return json.loads(ours.stdout)
        self.assertEqual(len(ours.stderr.splitlines()), 1, ours.stderr)
        return None

    def require_same_text(self, *words):
        self.assertEqual(peers.ringdisk("measure", *words).stdout,
                         peers.qemu_img("measure", *words).stdout)


class SizesTest(MeasureCase):
    """Empty images: no file is touched."""

    def test_random_sizes_and_options(self):
        dice = random.Random(SEED)
        refused = 0
        for number in range(SIZE_CASES):
            size = dice.choice([0, 1, 511, 513, dice.randrange(1 << dice.randrange(1, 48))])
            options = random_qcow2_options(dice)
            with self.subTest(number=number, size=size, options=options):
                report = self.require_same("-O", "qcow2", "-o", options, "--size", size)
                refused += report is None
        self.assertLess(refused, SIZE_CASES // 2)

    def test_plain_words(self):
        for words in (["--size", "1G"], ["--size", "513"], ["--size=1.5M"],
                      ["-O", "qcow2", "--size=0"],
                      ["--target-format", "qcow2", "--size=1G"],
                      ["-O", "qcow2", "-o", "size=1G", "--size", "1M"],
                      ["-O", "raw", "-o", "preallocation=full", "--size", "5000"],
                      ["-O", "qcow2", "-o", "backing_file=x,backing_fmt=raw", "--size", "1G"],
                      ["-O", "qcow2", "-o", "backing_file=x", "--size", "1G"],
                      ["-O", "qcow2", "-o", "data_file=x", "--size", "1G"],
                      ["-O", "qcow2", "-o", "data_file=x,data_file_raw=on", "--size", "1G"]):
            with self.subTest(" ".join(words)):
                self.assertIsNotNone(self.require_same(*words))
                self.require_same_text(*words)

    def test_refusals_are_one_line(self):
        image = self.directory / "image.qcow2"
        peers.qemu_img("create", "-q", "-f", "qcow2", image, "1M")
        lines = [[], [image, image], ["--size", "1G", image], ["--size", "foo"], ["--size", "-1"],
                 ["--size", "8E"], ["--size", "1G", "-f", "raw"], ["--size", "1G", "--image-opts"],
                 ["--size", "1G", "-l", "s"], ["-O", "bogus", "--size", "1"],
                 ["-l", "nosuch", image], ["nosuch.qcow2"],
                 ["-f", "raw", "--image-opts", f"driver=qcow2,file.filename={image}"]]
        lines += [["-O", "qcow2", "-o", options, "--size", "1G"]
                  for options in ("bogus=1", "cluster_size=1000", "preallocation=bogus",
                                  "extended_l2=on,cluster_size=4k", "compat=0.10,refcount_bits=1",
                                  "refcount_bits=3", "compat=7")]
        lines += [["-O", "qcow2", "--size", "64P"]]
        for words in lines:
            with self.subTest(" ".join(map(str, words))):
                self.assertIsNone(self.require_same(*words))

    def test_what_create_would_refuse_is_refused(self):
        for target, options in (("qcow2", "preallocation=full,backing_file=x,backing_fmt=raw"),
                                ("qcow2", "data_file_raw=on"), ("qcow2", "encrypt.format=aes"),
                                ("qcow2", "lazy_refcounts=on,compat=0.10"),
                                ("qcow2", "encrypt.format=luks,encrypt.version=2"),
                                ("qcow2", "encrypt.format=luks,compat=0.10,preallocation=full"),
                                ("luks", "cipher-alg=bogus"), ("luks", "preallocation=bogus"),
                                ("luks", "sector-size=4096"), ("raw", "preallocation=metadata")):
            with self.subTest(target=target, options=options):
                done = peers.ringdisk("measure", "-O", target, "-o", options, "--size", "1M",
                                      expect=1)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)


class SourcesTest(MeasureCase):
    """Random disks with holes, zeros, snapshots, bitmaps and backing images."""

    def make_source(self, dice, number):
        """Gives the words that name it, and whether it has bitmaps."""
        size = dice.randrange(1, 40) * MIB // dice.choice([1, 1, 1, 3]) // 512 * 512
        image = self.directory / f"source{number}"
        kind = dice.choice(["raw", "qcow2", "qcow2", "qcow2", "overlay", "overlay"])
        if kind == "raw":
            self.write_raw(dice, image, size)
            return ["-f", "raw", image], False
        options = random_qcow2_options(dice, preallocates=False)
        words = ["create", "-q", "-f", "qcow2", "-o", options]
        if kind == "overlay":
            base = self.directory / f"base{number}.raw"
            self.write_raw(dice, base, size // dice.choice([1, 2]) // 512 * 512)
            words += ["-b", base.name, "-F", "raw"]
        peers.qemu_img(*words, image, size)
        peers.qemu_io(image, self.random_commands(dice, size, 40, "compat=0.10" not in options))
        if dice.random() < 0.4 and "refcount_bits=1" not in options.split(","):
            peers.qemu_img("snapshot", "-c", "before", image)
            peers.qemu_io(image, self.random_commands(dice, size, 20, "compat=0.10" not in options))
        has_bitmaps = "compat=0.10" not in options and dice.random() < 0.5
        for bitmap in range(dice.randrange(1, 4) if has_bitmaps else 0):
            peers.qemu_img("bitmap", "--add", "-g", 1 << dice.randrange(9, 20), image,
                           "b" * dice.randrange(1, 60) + str(bitmap))
        # Holes of the file below clusters that have a place are zeros to who asks the file, which
        # one of the two programs may do and the other not. Here is none.
        image.write_bytes(image.read_bytes())
        return ["-f", "qcow2", image], has_bitmaps

    @staticmethod
    def write_raw(dice, path, size):
        with open(path, "wb") as file:
            for _ in range(dice.randrange(8)):
                at = dice.randrange(max(size, 1))
                file.seek(at)
                file.write(dice.randbytes(min(dice.randrange(1, 300 * KIB), size - at)))
            file.truncate(size + dice.choice([0, 0, -1 if size else 0]))

    @staticmethod
    def random_commands(dice, size, count, has_zeros):
        commands = []
        for _ in range(count):
            length = min(dice.randrange(1, 400) * 512, size)
            at = dice.randrange((size - length) // 512 + 1) * 512
            what = dice.choice(["write -P 7", "write -P 9", "write -P 0", "write -z", "write -z -u",
                                "discard"])
            if what.startswith("write -z") and not has_zeros:
                what = "write -P 3"
            commands.append(f"{what} {at} {length}")
        return commands

    def check_target(self, dice, number, source, has_bitmaps):
        """Measures; now and then converts, and looks at what came out."""
        options = random_qcow2_options(dice)
        target = ["-O", "qcow2", "-o", options]
        report = self.require_same(*target, *source)
        if report is None or dice.random() < 0.5:
            return
        made = self.directory / f"made{number}.qcow2"
        takes_bitmaps = has_bitmaps and "compat=0.10" not in options
        peers.ringdisk("convert", *(["--bitmaps"] if takes_bitmaps else []), *source[:2], *target,
                       source[2], made)
        room = report["required"] + (report.get("bitmaps", 0) if takes_bitmaps else 0)
        if "=metadata" in options:  # clusters with a place but no content are holes of the file
            room += report["fully-allocated"] - report["required"]
        self.assertLessEqual(made.stat().st_size, room, options)
        peers.qemu_check(made)
        made.unlink()

    def test_random_sources(self):
        dice = random.Random(SEED)
        for number in range(SOURCES):
            source, has_bitmaps = self.make_source(dice, number)
            self.require_same(*source)
            self.require_same_text("-O", "qcow2", *source)
            self.require_same("-O", "qcow2", "-o", "backing_file=x,backing_fmt=raw", *source)
            for target in range(TARGETS_PER_SOURCE):
                with self.subTest(source=number, target=target):
                    self.check_target(dice, f"{number}.{target}", source, has_bitmaps)

    def test_snapshots(self):
        image = self.directory / "image.qcow2"
        peers.qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "20M")
        peers.qemu_io(image, ["write -P 1 1M 3M"])
        peers.qemu_img("snapshot", "-c", "before", image)
        peers.qemu_io(image, ["write -P 2 10M 1M", "write -z 1M 2M"])
        numbers = [self.require_same("-O", "qcow2", *words, image)["required"]
                   for words in ([], ["-l", "before"], ["-l", "snapshot.name=before"],
                                 ["-l", "snapshot.id=1"])]
        self.assertEqual(numbers[0] + MIB, numbers[1])
        self.assertEqual(numbers[1:], numbers[1:2] * 3)

    def test_descriptions_and_compressed_clusters(self):
        raw, image = self.directory / "disk.raw", self.directory / "image.qcow2"
        self.write_raw(random.Random(1), raw, 5 * MIB)
        peers.qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", raw, image)
        self.require_same("-O", "qcow2", "--image-opts", f"driver=qcow2,file.filename={image}")
        self.require_same("-O", "qcow2", "-o", "cluster_size=512", "-U", image)
        self.require_same("-O", "qcow2", "--image-opts",
                          f"driver=raw,file.filename={raw},offset=1M,size=2M")

    def test_full_disks_fit(self):
        raw, made = self.directory / "disk.raw", self.directory / "made.qcow2"
        raw.write_bytes(random.Random(2).randbytes(6 * MIB - 512))
        for bits in range(9, 22):
            for width in (1, 16, 64):
                options = f"cluster_size={1 << bits},refcount_bits={width}"
                with self.subTest(options=options):
                    report = self.require_same("-O", "qcow2", "-o", options, "-f", "raw", raw)
                    self.assertEqual(report["required"], report["fully-allocated"])
                    peers.ringdisk("convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, made)
                    self.assertLessEqual(made.stat().st_size, report["required"])

    def test_an_external_data_file_is_counted(self):
        raw, made = self.directory / "disk.raw", self.directory / "made.qcow2"
        data = self.directory / "made.data"
        raw.write_bytes(random.Random(3).randbytes(2 * MIB))
        options = "data_file=made.data,cluster_size=4k"
        report = self.require_same("-O", "qcow2", "-o", options, "-f", "raw", raw)
        peers.ringdisk("convert", "-f", "raw", "-O", "qcow2", "-o", options, raw, made)
        self.assertLessEqual(made.stat().st_size + data.stat().st_size, report["required"])

    def test_no_more_is_read_than_mappings(self):
        raw = self.directory / "disk.raw"
        with open(raw, "wb") as file:
            file.truncate(1 << 43)
            file.seek(1 << 42)
            file.write(b"x")
        report = self.require_same("-O", "qcow2", "-o", "cluster_size=2M", "-f", "raw", raw)
        self.assertEqual(report["fully-allocated"] - report["required"], (1 << 43) - 2 * MIB)


class EncryptedTest(encrypted.EncryptedCase):
    def payload_offset(self, size, program, *words):
        """Where the data of an image begins that `program` makes."""
        made = self.directory / "empty.luks"
        program("create", "-q", *self.objects(), "-f", "luks", *words, made, size)
        return made.stat().st_size - size

    def test_luks1_differs_by_where_its_data_begins(self):
        for options in ("cipher-mode=xts", "cipher-alg=aes-128,cipher-mode=cbc"):
            words = ["-o", f"key-secret=sec0,{encrypted.QUICK},{options}"]
            ours_begin = self.payload_offset(MIB, peers.ringdisk, *words)
            theirs_begin = self.payload_offset(MIB, peers.qemu_img, *words)
            source = ["-f", "raw", self.raw] if "xts" in options else ["--size", 5 * MIB]
            with self.subTest(options=options):
                words = ["-O", "luks", *words]
                ours = measure(*words, *source)
                theirs = json.loads(peers.qemu_img("measure", "--output=json", *self.objects(),
                                                   *words, *source).stdout)
                for numbers in (ours, theirs):
                    self.assertEqual(numbers["required"], numbers["fully-allocated"])
                self.assertEqual(ours["required"] - ours_begin, theirs["required"] - theirs_begin)

    def test_no_secret_is_needed_for_what_is_not_made(self):
        with_secret = measure("-O", "luks", "-o", "key-secret=nobody", "--size", "1G")
        self.assertEqual(with_secret, measure("-O", "luks", "--size", "1G"))
        self.assertEqual(measure("-O", "qcow2", "-o", "encrypt.format=luks", "--size", "1G"),
                         measure("-O", "qcow2", "-o",
                                 "encrypt.format=luks,encrypt.key-secret=nobody", "--size", "1G"))

    def test_encrypted_qcow2(self):
        for cluster, source in (("64k", ["--size", "1G"]), ("2M", ["-f", "raw", self.raw])):
            words = ["-O", "qcow2", "-o", f"encrypt.format=luks,encrypt.key-secret=sec0,"
                                          f"encrypt.{encrypted.QUICK},cluster_size={cluster}"]
            with self.subTest(cluster=cluster):
                theirs = peers.qemu_img("measure", "--output=json", *self.objects(), *words,
                                        *source).stdout
                self.assertEqual(measure(*words, *source), json.loads(theirs))

    def test_an_encrypted_source_is_content_from_end_to_end(self):
        image = self.directory / "image.luks"
        peers.ringdisk("convert", *self.objects(), "-f", "raw", "-O", "luks", "-o",
                       f"key-secret=sec0,{encrypted.QUICK}", self.raw, image)
        source = ["--image-opts", f"driver=luks,key-secret=sec0,file.filename={image}"]
        for target in (["-O", "raw"], ["-O", "qcow2"]):
            words = ["measure", "--output=json", *self.objects(), *target, *source]
            self.assertEqual(peers.ringdisk(*words).stdout, peers.qemu_img(*words).stdout)
        self.require_refused("no secret 'sec0'", "measure", *self.objects("sec1"), "--image-opts",
                             source[1])

    def test_what_is_made_fits(self):
        luks = [f"key-secret=sec0,{encrypted.QUICK},{more}"
                for more in ("cipher-alg=aes-128", "cipher-alg=aes-256,cipher-mode=cbc",
                             "preallocation=full")]
        luks += [f"key-secret=sec0,{LUKS2},{more}"
                 for more in ("label=disk", "sector-size=4096",
                              "sector-size=2048,cipher-alg=aes-128")]
        inner = [f"encrypt.format=luks,encrypt.key-secret=sec0,encrypt.{encrypted.QUICK},{more}"
                 for more in ("cluster_size=512", "cluster_size=4k,refcount_bits=64",
                              "cluster_size=64k", "cluster_size=2M,extended_l2=on")]
        made = self.directory / "made"
        cases = [("luks", one) for one in luks] + [("qcow2", one) for one in inner]
        for target, options in cases:
            with self.subTest(target=target, options=options):
                words = ["-O", target, "-o", options]
                report = measure(*words, "-f", "raw", self.raw)
                peers.ringdisk("convert", *self.objects(), "-f", "raw", *words, self.raw, made)
                self.assertLessEqual(made.stat().st_size, report["required"])
                if target == "luks":
                    self.assertEqual(made.stat().st_size, report["required"])
                made.unlink()

    def test_a_detached_header(self):
        header = self.directory / "header"
        for options in (f"key-secret=sec0,{encrypted.QUICK}", f"key-secret=sec0,{LUKS2}"):
            words = ["-o", f"detached-header=on,{options}"]
            peers.ringdisk("create", "-q", *self.objects(), "-f", "luks", *words, header, "1G")
            self.assertEqual(measure("-O", "luks", *words, "--size", "1G")["required"],
                             header.stat().st_size)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
