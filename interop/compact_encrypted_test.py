#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compaction of LUKS inside qcow2: what moves is enciphered anew, so that qemu-img reads the same
disk and the same snapshots afterwards, finds nothing to complain of, and opens with the same keys;
whose passphrase it is, and what is said without one."""
import json
import os
import random

import encrypted
import peers
from encrypted import KIB, MIB, QUICK, SEED

SIZE = 16 * MIB
SHAPES = ("", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "compat=0.10",
          "refcount_bits=64,cluster_size=4k",
          "encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256")


class CompactEncryptedTest(encrypted.EncryptedCase):
    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.qcow2"
        self.described = f"driver=qcow2,encrypt.key-secret=sec0,file.filename={self.image}"
        self.random = random.Random(SEED)

    def create(self, program, more="", size=SIZE):
        self.image.unlink(missing_ok=True)
        options = ",".join(filter(None, ("encrypt.format=luks,encrypt.key-secret=sec0",
                                         f"encrypt.{QUICK}", more)))
        program("create", "-q", *self.objects(), "-f", "qcow2", "-o", options, self.image,
                str(size))

    def write(self, commands):
        peers.run([peers.need("qemu-io"), "-d", "unmap", *self.objects(), "--image-opts",
                   self.described], stdin="\n".join([*commands, "q"]) + "\n")

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
        self.write(commands)

    def contents(self):
        """The disk and each snapshot, read by qemu-img, as files."""
        info = peers.qemu_info(self.image)
        names = [one["name"] for one in info.get("snapshots", [])]
        files = {}
        for name in [None, *names]:
            target = self.directory / f"{name}.{len(os.listdir(self.directory))}.raw"
            words = ["-l", f"snapshot.name={name}"] if name else []
            peers.qemu_img("convert", *self.objects(), *words, "--image-opts", "-O", "raw",
                           self.described, target)
            files[name] = target
        return files

    def require_sound(self):
        done = peers.qemu_img("check", *self.objects(), "--image-opts", self.described, expect=None)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        peers.ringdisk("check", self.image)

    def compact(self):
        """What it reports; everything must be as before."""
        before = self.contents()
        done = peers.ringdisk("compact", "--output=json", *self.objects(), "--image-opts",
                              self.described)
        report = json.loads(done.stdout)
        self.assertEqual(report["bytes-after"], self.image.stat().st_size)
        self.assertLessEqual(report["bytes-after"], report["bytes-before"])
        self.assertEqual(report["obstacles"], [])
        self.require_sound()
        after = self.contents()
        self.assertEqual(before.keys(), after.keys())
        for name, file in before.items():
            self.assertIsNone(peers.first_difference(file, after[name]), f"snapshot {name}")
        for file in (*before.values(), *after.values()):
            file.unlink()
        return report

    def test_the_disk_and_its_snapshots_stay_what_they_are(self):
        for more in SHAPES:
            with self.subTest(more=more):
                self.create(peers.qemu_img, more)
                for i in range(3):
                    self.scramble(30)
                    maker = peers.qemu_img if i % 2 else peers.ringdisk
                    if maker is peers.ringdisk:
                        maker("snapshot", "-c", f"s{i}", self.image)
                    else:
                        maker("snapshot", *self.objects(), "--image-opts", "-c", f"s{i}",
                              self.described)
                self.scramble(30)
                self.compact()
                peers.ringdisk("snapshot", "-d", "s1", self.image)
                report = self.compact()
                self.assertGreater(report["bytes-moved"], 0)
                self.scramble(30)
                self.require_sound()

    def test_the_file_is_as_short_as_that_of_a_plain_image(self):
        self.create(peers.qemu_img)
        self.write(["write -q -P 1 0 12M", "discard 0 10M"])
        report = self.compact()
        self.assertGreater(report["bytes-moved"], MIB)
        header = 2 * MIB + 128 * KIB  # of LUKS, in whole clusters
        tables = 6 * 64 * KIB
        self.assertLessEqual(report["bytes-after"], header + tables + 2 * MIB)

    def test_keys_open_as_before(self):
        self.create(peers.qemu_img)
        self.write(["write -q -P 1 0 12M", "discard 0 10M"])
        self.compact()
        peers.qemu_img("amend", *self.objects("sec0", "sec1"), "--image-opts", "-o",
                       f"encrypt.state=active,encrypt.new-secret=sec1,encrypt.{QUICK}",
                       self.described)
        self.described = self.described.replace("sec0", "sec1")
        self.copy.unlink(missing_ok=True)
        peers.ringdisk("convert", *self.objects("sec1"), "--image-opts", "-O", "raw",
                       self.described, self.copy)
        self.assertEqual(self.copy.read_bytes(), bytes(10 * MIB) + b"\x01" * 2 * MIB +
                         bytes(SIZE - 12 * MIB))

    def test_a_preallocated_image_stays_sparse(self):
        for more in ("", ",extended_l2=on"):
            with self.subTest(more=more):
                self.create(peers.ringdisk, f"preallocation=metadata{more}", 64 * MIB)
                self.write(["write -q -P 7 1M 1M", "discard 4M 32M"])
                report = self.compact()
                self.assertLess(report["bytes-after"], report["bytes-before"] - 16 * MIB)
                self.assertLess(self.image.stat().st_blocks * 512, 8 * MIB)

    def test_whose_passphrase_it_is(self):
        self.create(peers.qemu_img)
        self.write(["write -q -P 1 0 12M", "discard 0 10M"])
        before = self.image.read_bytes()
        self.require_refused("needs a passphrase", "compact", self.image)
        self.require_refused("no key slot opens", "compact", *self.objects("wrong"), "--image-opts",
                             self.described.replace("sec0", "wrong"))
        self.require_refused("there is no secret 'sec0'", "compact", "--image-opts", self.described)
        self.require_refused("has no option 'colour'", "compact", *self.objects(), "--image-opts",
                             self.described + ",colour=red")
        self.assertEqual(before, self.image.read_bytes())
        words = (peers.ringdisk_path(), "compact", self.image)
        with encrypted.Typist(words) as program:
            program.wait_for("Enter passphrase for")
            program.type("correct horse battery staple\n")
            self.assertEqual(program.end(), 0, program.seen)
        self.assertLess(self.image.stat().st_size, len(before))
        self.require_sound()
        done = peers.ringdisk("compact", "--key-file", self.key_file, self.image)
        self.assertTrue(done.stdout.startswith("Cut 0 bytes"))


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
