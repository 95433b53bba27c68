# SPDX-License-Identifier: Apache-2.0
"""LUKS volumes for tests: made by cryptsetup, by qemu-img or by us, all with one known content."""
import hashlib
import json
import os

import luks_reference
import pattern
import peers

KIB = 1 << 10
SIZE = 64 * KIB
OFFSET = 2 << 20  # of the payload of what cryptsetup makes here


def cryptsetup(*arguments, **options):
    return peers.run([peers.need("cryptsetup"), "--batch-mode", *arguments], **options)


def change_metadata(volume, change):
    """Calls `change` with the JSON of a LUKS2 volume of cryptsetup's, and writes what it then is
    into both copies of the header, with right checksums."""
    with open(volume, "r+b") as file:
        size = int.from_bytes(file.read(16)[8:], "big")
        for start in (0, size):
            file.seek(start)
            header = bytearray(file.read(size))
            metadata = json.loads(header[4096:].rstrip(b"\0"))
            change(metadata)
            header[4096:] = json.dumps(metadata).encode().ljust(size - 4096, b"\0")
            header[448:512] = bytes(64)
            header[448:480] = hashlib.sha256(header).digest()
            file.seek(start)
            file.write(header)


class VolumeCase(peers.Case):
    """A disk's content, two passphrases, and both programs."""

    def setUp(self):
        super().setUp()
        self.raw = self.directory / "disk.raw"
        pattern.full(SIZE, seed=31).write(self.raw)
        self.content = self.raw.read_bytes()
        self.keys = [self.directory / "key1", self.directory / "key2"]
        for number, key in enumerate(self.keys):
            key.write_bytes(b"passphrase %d, \xc3\xa4" % number)

    def scratch(self):
        return peers.scratch(base=self.directory, prefix="volume-")

    def read_by_us(self, volume, key, target):
        peers.ringdisk("convert", "--key-file", key, "-f", "luks", "-O", "raw", volume, target)
        peers.require_same(self.raw, target)

    def require_opens(self, volume, *keys):
        for key in keys:
            cryptsetup("open", "--test-passphrase", "--key-file", key, volume)

    def require_qemu_reads(self, volume, key, target):
        peers.qemu_img("convert", "--object", f"secret,id=s,file={key}", "--image-opts",
                       f"driver=luks,key-secret=s,file.filename={volume}", "-O", "raw", target)
        peers.require_same(self.raw, target)

    def add_key(self, kind, volume):
        """The second passphrase, by us."""
        peers.ringdisk("luks", "add-key", "--key-file", self.keys[0], "--new-key-file",
                       self.keys[1], *kind.derivation_options(), volume)

    def qemu_makes(self, options, directory):
        """A volume of qemu-img's with the same content."""
        volume = directory / "theirs"
        peers.qemu_img("convert", "--object", f"secret,id=s,file={self.keys[0]}", "-f", "raw",
                       "-O", "luks", "-o", f"key-secret=s,{options}", self.raw, volume)
        return volume

    def they_make(self, kind, directory):
        """A volume of cryptsetup's, whose payload OpenSSL wrote."""
        volume = directory / "theirs"
        with open(volume, "wb") as file:
            file.truncate(OFFSET + SIZE)
        volume_key = directory / "volume-key"
        volume_key.write_bytes(os.urandom(kind.key_bits // 8))
        cryptsetup("luksFormat", *kind.cryptsetup_options(), "--offset",
                   OFFSET // luks_reference.SECTOR, "--volume-key-file", volume_key,
                   volume, self.keys[0])
        payload = luks_reference.apply_cipher(kind.cipher, volume_key.read_bytes(),
                                              kind.sector_size, 0, self.content, encrypts=True)
        with open(volume, "r+b") as file:
            file.seek(OFFSET)
            file.write(payload)
        return volume

    def we_make(self, kind, directory):
        """A volume of ours with the same content."""
        volume = directory / "ours"
        peers.ringdisk("convert", "--object", f"secret,id=s,file={self.keys[0]}", "-f", "raw",
                       "-O", "luks", "-o", f"key-secret=s,{kind.ringdisk_options()}",
                       self.raw, volume)
        return volume


class MatrixCase(VolumeCase):
    """The two checks that every kind of volume passes."""

    def check_theirs(self, kind):
        with self.scratch() as directory:
            volume = self.they_make(kind, directory)
            self.read_by_us(volume, self.keys[0], directory / "raw")
            self.add_key(kind, volume)
            self.require_opens(volume, *self.keys)

    def check_ours(self, kind):
        with self.scratch() as directory:
            volume = self.we_make(kind, directory)
            seen = luks_reference.Volume(volume, self.keys[0])
            self.assertEqual((seen.version, seen.cipher, len(seen.key) * 8, seen.sector_size),
                             (kind.version, kind.cipher, kind.key_bits, kind.sector_size))
            self.assertTrue(seen.read(SIZE) == self.content, "the payload is other bytes")
            if kind.qemu_opens():
                self.require_qemu_reads(volume, self.keys[0], directory / "seen-by-qemu")
            cryptsetup("luksAddKey", *kind.derivation_options(), "--key-file", self.keys[0],
                       volume, self.keys[1])
            self.read_by_us(volume, self.keys[1], directory / "raw")
