#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Chains of encrypted images, each with its own secret, as QEMU's users describe them: backing.*
options and json:{…}, on chains that either program made, read, written and committed by both."""
import json

import encrypted
import peers
from encrypted import MIB, QUICK, SIZE


class ChainCase(encrypted.EncryptedCase):
    """base (qcow2 with LUKS, sec0) < middle (sec1) < top (sec2); the disk is as `self.wanted`."""

    def setUp(self):
        super().setUp()
        self.secret("sec2", b"the third one")
        self.secrets = self.objects("sec0", "sec1", "sec2")
        self.base, self.middle, self.top = (self.directory / f"{name}.qcow2"
                                            for name in ("base", "middle", "top"))

    def options(self, secret):
        return f"encrypt.format=luks,encrypt.key-secret={secret},encrypt.{QUICK}"

    def described(self, file, *secrets):
        """Of an image and those below it, from the top on."""
        words = [f"driver=qcow2,file.filename={file}"]
        prefix = ""
        for secret in secrets:
            words.append(f"{prefix}encrypt.key-secret={secret}")
            prefix += "backing."
        return ",".join(words)

    def whole(self):
        return self.described(self.top, "sec2", "sec1", "sec0")

    def make(self, program):
        """The chain, by one program; what the upper two hold, qemu-io writes."""
        program("convert", *self.secrets, "-f", "raw", "-O", "qcow2", "-o", self.options("sec0"),
                self.raw, self.base)
        for image, below, secret in ((self.middle, self.base, "sec1"),
                                     (self.top, self.middle, "sec2")):
            program("create", "-q", *self.secrets, "-f", "qcow2", "-b", below.name, "-F", "qcow2",
                    "-o", self.options(secret), image)
        self.write(self.described(self.middle, "sec1", "sec0"), 1)
        self.write(self.whole(), 2)

    def write(self, described, number):
        """64 KiB that are `number` over and over, and those of the raw copy, at `number` MiB."""
        commands = [f"write -P {number} {number}M 64k"]
        peers.run([peers.need("qemu-io"), *self.secrets, "--image-opts", described],
                  stdin="\n".join(commands) + "\n")
        with open(self.raw, "r+b") as file:
            file.seek(number * MIB)
            file.write(bytes([number]) * 65536)

    def require(self, program, *words):
        self.copy.unlink(missing_ok=True)
        program("convert", *self.secrets, *words, "-O", "raw", self.copy)
        peers.require_same(self.raw, self.copy)


class Chains(ChainCase):
    def test_read_by_both_whoever_made_it(self):
        for maker in (peers.qemu_img, peers.ringdisk):
            with self.subTest(maker=maker.__name__):
                for image in (self.base, self.middle, self.top):
                    image.unlink(missing_ok=True)
                self.wanted.write(self.raw)
                self.make(maker)
                for reader in (peers.ringdisk, peers.qemu_img):
                    self.require(reader, "--image-opts", self.whole())

    def test_json_names(self):
        self.make(peers.qemu_img)
        described = {"driver": "qcow2", "file": {"driver": "file", "filename": str(self.top)},
                     "encrypt.key-secret": "sec2",
                     "backing": {"driver": "qcow2", "encrypt.key-secret": "sec1",
                                 "backing": {"driver": "qcow2", "encrypt": {"key-secret": "sec0"},
                                             "file": {"driver": "file",
                                                      "filename": str(self.base)}},
                                 "file": {"driver": "file", "filename": str(self.middle)}}}
        for reader in (peers.ringdisk, peers.qemu_img):
            self.require(reader, "json:" + json.dumps(described))

    def test_words_that_the_images_below_take(self):
        """Whether they are opened or not."""
        self.make(peers.ringdisk)
        words = ["l2-cache-size=1M", "detect-zeroes=off", "discard=ignore", "encrypt.format=luks",
                 "encrypt.kdf-iterations-max=100M", "encrypt.kdf-memory-max=1G",
                 "encrypt.kdf-work-max=2G", "file.driver=file", "file.locking=auto",
                 "file.cache=writeback", "file.cache.direct=off", "file.cache.no-flush=off",
                 "file.discard=ignore"]
        for prefix in ("backing.", "backing.backing."):
            described = ",".join([self.whole(), *(prefix + word for word in words)])
            self.require(peers.ringdisk, "--image-opts", described)
            for command in ("info", "check"):
                peers.ringdisk(command, *self.secrets, "--image-opts", described)
        self.wanted.write(self.raw)
        top = self.directory / "over-luks.qcow2"
        peers.ringdisk("convert", *self.secrets, "-f", "raw", "-O", "luks", "-o",
                       f"key-secret=sec0,{QUICK}", self.raw, self.directory / "base.luks")
        peers.ringdisk("create", "-q", *self.secrets, "-f", "qcow2", "-b", "base.luks", "-F",
                       "luks", "-u", top, SIZE)
        words = ["key-secret=sec0", "allow-discards=off", "kdf-memory-max=1G",
                 f"header={self.directory / 'base.luks'}"]
        described = ",".join([f"driver=qcow2,file.filename={top}",
                              *("backing." + word for word in words)])
        self.require(peers.ringdisk, "--image-opts", described)
        for command in ("info", "check"):
            peers.ringdisk(command, *self.secrets, "--image-opts", described)

    def test_another_base_than_recorded(self):
        """LUKS below qcow2 that records no format of it, in another directory: named by the user,
        so no gate is asked."""
        elsewhere = self.directory / "elsewhere"
        elsewhere.mkdir()
        base = elsewhere / "base.luks"
        peers.qemu_img("convert", *self.secrets, "-f", "raw", "-O", "luks", "-o",
                       f"key-secret=sec0,{QUICK}", self.raw, base)
        peers.qemu_img("create", "-q", "-u", *self.secrets, "-f", "qcow2", "-o",
                       self.options("sec2"), "-b", "gone.luks", "-F", "luks", self.top, SIZE)
        described = (self.described(self.top, "sec2") + ",backing.driver=luks,"
                     f"backing.key-secret=sec0,backing.file.filename={base}")
        for reader in (peers.ringdisk, peers.qemu_img):
            self.require(reader, "--image-opts", described)
        self.write(described, 3)
        for reader in (peers.ringdisk, peers.qemu_img):
            self.require(reader, "--image-opts", described)

    def test_none_below(self):
        """What only the images below hold reads as zeros then."""
        self.make(peers.qemu_img)
        texts = {"driver": "qcow2", "file.filename": str(self.top), "encrypt.key-secret": "sec2",
                 "backing": None}
        copies = []
        for reader in (peers.ringdisk, peers.qemu_img):
            copies.append(self.directory / f"{reader.__name__}.raw")
            reader("convert", *self.secrets, "json:" + json.dumps(texts), "-O", "raw", copies[-1])
        peers.require_same(*copies)
        content = copies[0].read_bytes()
        self.assertEqual(content.count(2), 65536)
        self.assertEqual(content.count(0), SIZE - 65536)
        self.require_refused("write backing.file.filename=FILE", "convert", *self.secrets,
                             "--image-opts", self.whole() + ",backing=node0", "-O", "raw",
                             self.copy)

    def test_written_and_committed_by_us(self):
        self.make(peers.ringdisk)
        socket = self.directory / "socket"
        with peers.serve_ringdisk(self.whole(), socket, "--image-opts", *self.secrets) as server:
            peers.run([peers.need("qemu-io"), "-f", "raw", server.uri()],
                      stdin="write -P 9 3M 64k\n")
        with open(self.raw, "r+b") as file:
            file.seek(3 * MIB)
            file.write(b"\x09" * 65536)
        self.require(peers.qemu_img, "--image-opts", self.whole())
        peers.ringdisk("commit", *self.secrets, "--image-opts", self.whole())
        self.require(peers.qemu_img, "--image-opts", self.described(self.middle, "sec1", "sec0"))
        self.require(peers.ringdisk, "--image-opts", self.described(self.middle, "sec1", "sec0"))

    def test_what_is_refused(self):
        self.make(peers.qemu_img)
        words = ("convert", *self.secrets, "--image-opts", "-O", "raw")
        wrong = self.described(self.top, "sec2", "sec1", "sec1")
        self.require_refused(f"{self.base}: no key slot opens", *words, wrong, self.copy)
        self.require_refused("has no option 'backing.colour'", *words,
                             self.whole() + ",backing.colour=red",
                             self.copy)
        self.require_refused("has no option 'backing.backing.encrypt.colour'", *words,
                             self.whole() + ",backing.backing.encrypt.colour=red", self.copy)
        deep = "backing.backing.encrypt.colour"
        for command in (("info",), ("check",), ("snapshot", "-l"), ("compact",)):
            for more, text in (("backing.colour=red", "qcow2 has no option 'backing.colour'"),
                               (f"{deep}=red", f"no driver has an option '{deep}'")):
                self.require_refused(text, *command, *self.secrets, "--image-opts",
                                     f"{self.whole()},{more}")
        peers.ringdisk("check", *self.secrets, "--image-opts", self.whole())
        for secrets, option in ((("sec2",), "backing.encrypt.key-secret"),
                                (("sec2", "sec1"), "backing.backing.encrypt.key-secret"),
                                ((), "encrypt.key-secret")):
            line = self.require_refused("needs a passphrase", *words,
                                        self.described(self.top, *secrets), self.copy)
            self.assertIn(f" and {option}=sec0 in its description", line)
        line = self.require_refused("needs a passphrase", "commit", *self.secrets, "--image-opts",
                                    self.described(self.middle, "sec1"))
        self.assertIn(" and backing.encrypt.key-secret=sec0 in its description", line)
        line = self.require_refused("needs a passphrase", "commit", "-b", self.base, *self.secrets,
                                    "--image-opts", self.described(self.top, "sec2", "sec1"))
        self.assertIn(" and backing.backing.encrypt.key-secret=sec0 in its description", line)
        self.require_refused("has no backing image, of which 'backing.encrypt.key-secret' speaks",
                             *words, self.described(self.base, "sec0", "sec1"), self.copy)
        outside = self.directory / "outside"
        outside.mkdir()
        moved = outside / "top.qcow2"
        peers.qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", self.base, "-F", "qcow2", moved,
                       SIZE)
        described = f"driver=qcow2,file.filename={moved},backing.encrypt.key-secret=sec0"
        self.require_refused("lies outside the image's own directory", *words, described, self.copy)
        peers.ringdisk(*words, "--allow-path", self.directory, described, self.copy)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
