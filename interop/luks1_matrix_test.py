#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LUKS1 volumes of every kind that cryptsetup or qemu-img can make (luks_matrix.py), both ways.

They make, we read their bytes and add a key, they open with both. We make, they open, their key and
OpenSSL's cipher give our bytes (luks_reference.py), and so does qemu-img; they add a key, we open
with it. What dm-crypt itself makes of the payload is in e2e/luks_test.py.
"""
import os

import luks_matrix
import peers
from luks_volumes import (OFFSET, SIZE, MatrixCase, VolumeCase, change_metadata, cryptsetup)


class Matrix(MatrixCase):
    """All kinds."""

    def test_cryptsetups(self):
        luks_matrix.for_each(luks_matrix.kinds_of(1), self.check_theirs)

    def test_ours(self):
        luks_matrix.for_each(luks_matrix.kinds_of(1), self.check_ours)


class Qemu(VolumeCase):
    """What qemu-img makes; it takes a second or two for each."""

    def check_qemus(self, kind):
        with self.scratch() as directory:
            volume = self.qemu_makes(kind.qemu_options(), directory)
            self.read_by_us(volume, self.keys[0], directory / "raw")
            self.add_key(kind, volume)
            self.require_qemu_reads(volume, self.keys[1], directory / "seen-by-qemu")

    def test_luks1_of_qemu_img(self):
        luks_matrix.for_each(luks_matrix.qemu_kinds(), self.check_qemus)


class Refused(VolumeCase):
    """What they can make and we cannot open is refused by name."""

    def require_refused(self, volume, *words, **options):
        done = peers.ringdisk("convert", "--key-file", self.keys[0], "-f", "luks", "-O", "raw",
                              volume, self.directory / "never", expect=1, **options)
        for word in (volume.name, *words):
            self.assertIn(word, done.stderr)
        self.assertFalse((self.directory / "never").exists())

    def test_ciphers_of_cryptsetup(self):
        for version in (1, 2):
            for cipher in ("aes-ecb", "aes-xts-benbi", "aes-ctr-plain64", "aes-cbc-null",
                           "aes-cbc-plain64be", "aes-cbc-eboiv"):
                with self.subTest(cipher, version=version), self.scratch() as directory:
                    volume = directory / "theirs"
                    volume.touch()
                    os.truncate(volume, OFFSET + SIZE)
                    kind = luks_matrix.Kind(version, cipher, 256)
                    cryptsetup("luksFormat", *kind.cryptsetup_options(), volume, self.keys[0])
                    self.require_refused(volume, cipher)

    def test_whirlpool_where_openssl_has_no_legacy_provider(self):
        """The refusal names the hash and what to install, and nothing is left of a new image."""
        without = {"OPENSSL_MODULES": str(self.directory)}
        for version in (1, 2):
            with self.subTest(version=version), self.scratch() as directory:
                kind = luks_matrix.Kind(version, "aes-xts-plain64", 512, "whirlpool")
                self.require_refused(self.they_make(kind, directory), "'whirlpool'", "legacy.so",
                                     environment=without)
                ours = directory / "ours"
                done = peers.ringdisk("create", "--object", f"secret,id=s,file={self.keys[0]}",
                                      "-f", "luks", "-o", f"key-secret=s,{kind.ringdisk_options()}",
                                      ours, SIZE, expect=1, environment=without)
                self.assertIn("'whirlpool'", done.stderr)
                self.assertIn("legacy.so", done.stderr)
                self.assertFalse(ours.exists())

    def test_ciphers_that_only_kernels_have(self):
        """Their key slots are enciphered with AES here, so these open; the payload does not."""
        for cipher in ("serpent-xts-plain64", "twofish-xts-plain64", "aes-lrw-benbi"):
            with self.subTest(cipher), self.scratch() as directory:
                volume = self.they_make(luks_matrix.Kind(2, "aes-xts-plain64", 512), directory)
                change_metadata(volume, lambda metadata, name=cipher:
                                metadata["segments"]["0"].update(encryption=name))
                self.require_opens(volume, self.keys[0])
                self.require_refused(volume, f"its cipher '{cipher}' is not supported")

    def test_ciphers_of_qemu_img(self):
        for options, word in (("cipher-alg=serpent-256", "serpent-xts-plain64"),
                              ("cipher-alg=twofish-256,cipher-mode=cbc,ivgen-alg=essiv,"
                               "ivgen-hash-alg=sha256", "twofish-cbc-essiv:sha256"),
                              ("cipher-alg=cast5-128,cipher-mode=cbc", "cast5-cbc-plain64")):
            with self.subTest(word), self.scratch() as directory:
                self.require_refused(self.qemu_makes(f"{options},iter-time=10", directory), word)


if __name__ == "__main__":
    peers.main(needs=["cryptsetup", "qemu-img"])
