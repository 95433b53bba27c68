#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What else cryptsetup can do to a LUKS volume, and we must live with: all key slots in use, odd
passphrases, other versions and ciphers, labels, tokens, detached headers, encryption half-way; the
payload is read after each. All kinds of volumes are in luks1_matrix_test.py and
luks2_matrix_test.py, changes of keys in luks_keys_test.py.
"""
import json
import os
import re

import peers
from luks_matrix import Kind
from luks_volumes import OFFSET, SIZE, VolumeCase, cryptsetup

KINDS = (Kind(1, "aes-xts-plain64", 512), Kind(1, "aes-cbc-essiv:sha256", 256, "sha512"),
         Kind(2, "aes-xts-plain64", 512, hash=None, kdf="argon2id", sector_size=4096),
         Kind(2, "aes-xts-plain64", 256))
UUID = "22222222-2222-4222-8222-222222222222"
# In luksDump: what is random, and how it is laid over lines.
RANDOM = re.compile(r"^\s*(UUID|Salt|MK digest|MK salt|Digest):.*\n((\s+([0-9a-f]{2} )+\s*\n)*)",
                    re.M)


def luks(action, *words, **options):
    return peers.ringdisk("luks", action, *words, **options)


class FeatureCase(VolumeCase):
    def setUp(self):
        super().setUp()
        self.keys.append(self.directory / "key3")
        self.keys[2].write_bytes(b"the third")

    def opens_by_both(self, volume, *header):
        """For each passphrase, whether it opens; both programs must agree."""
        by_them, by_us = [], []
        for key in self.keys:
            them = cryptsetup("open", "--test-passphrase", *header, "--key-file", key, volume,
                              expect=None)
            us = peers.ringdisk("convert", "--key-file", key, "-f", "luks", "-O", "raw", volume,
                                self.directory / "seen", expect=None)
            by_them.append(them.returncode == 0)
            by_us.append(us.returncode == 0)
            if us.returncode == 0:
                peers.require_same(self.raw, self.directory / "seen")
            else:
                self.assertEqual(us.returncode, 1, us.stderr)
                self.assertEqual(len(us.stderr.splitlines()), 1, us.stderr)
        self.assertEqual(by_us, by_them)
        return by_us


class KeySlots(FeatureCase):
    """Filled by both in turn, with whatever a passphrase may be."""

    def test_every_slot_can_be_filled(self):
        for kind, slots in ((KINDS[0], 8), (KINDS[3], 32)):
            with self.subTest(str(kind)), self.scratch() as directory:
                volume = self.we_make(kind, directory)
                for number in range(1, slots):
                    self.keys[1].write_bytes(b"number %d" % number)
                    words = ("--key-file", self.keys[0], *kind.derivation_options())
                    if number % 2:
                        luks("add-key", *words, "--new-key-file", self.keys[1], volume)
                    else:
                        cryptsetup("luksAddKey", *words, volume, self.keys[1])
                self.assertEqual(self.opens_by_both(volume), [True, True, False])
                luks("add-key", *words, "--new-key-file", self.keys[2], volume, expect=1)
                cryptsetup("luksAddKey", *words, volume, self.keys[2], expect=1)

    def test_odd_passphrases(self):
        for content in (b"a line\n", b"\0zero\0", bytes(range(256)) * 16, b"x"):
            with self.subTest(content=content[:10]), self.scratch() as directory:
                self.keys[0].write_bytes(content)
                for make in (self.they_make, self.we_make):
                    self.assertTrue(self.opens_by_both(make(KINDS[3], directory))[0])


class Headers(FeatureCase):
    """What is around the key slots."""

    def test_the_same_words_make_the_same_header(self):
        for kind in KINDS:
            with self.subTest(str(kind)), self.scratch() as directory:
                ours, theirs = directory / "ours", directory / "theirs"
                for volume in (ours, theirs):
                    volume.touch()
                    os.truncate(volume, 20 << 20)
                luks("format", "--key-file", self.keys[0], *kind.cryptsetup_options(), ours)
                cryptsetup("luksFormat", *kind.cryptsetup_options(), theirs, self.keys[0])
                dumped = [RANDOM.sub(r"\1\n", cryptsetup("luksDump", volume).stdout)
                          .replace(str(volume), "") for volume in (ours, theirs)]
                if kind.version == 1:  # the digest's iterations are counted by time
                    dumped = [re.sub(r"MK iterations:.*", "", text) for text in dumped]
                self.assertEqual(dumped[0].replace("Epoch:         \t1", "Epoch:         \t3"),
                                 dumped[1].replace("Epoch:         \t1", "Epoch:         \t3"))

    def test_versions_are_converted_by_them(self):
        with self.scratch() as directory:
            volume = self.we_make(KINDS[0], directory)
            for version in (2, 1):
                cryptsetup("convert", "--type", f"luks{version}", volume)
                self.assertEqual(self.opens_by_both(volume), [True, False, False])

    def test_detached_headers(self):
        for kind in KINDS:
            with self.subTest(str(kind)), self.scratch() as directory:
                volume, header = self.they_make(kind, directory), directory / "header"
                cryptsetup("luksHeaderBackup", "--header-backup-file", header, volume)
                with open(volume, "r+b") as file:
                    file.write(os.urandom(OFFSET))  # no header there any more
                self.add_key(kind, header)
                for key in self.keys[:2]:
                    peers.ringdisk("convert", "--object", f"secret,id=s,file={key}",
                                   "--image-opts", "-O", "raw",
                                   f"driver=luks,key-secret=s,header.filename={header},"
                                   f"file.filename={volume}", directory / "raw")
                    peers.require_same(self.raw, directory / "raw")
                    cryptsetup("open", "--test-passphrase", "--header", header, "--key-file", key,
                               volume)

    def test_what_we_do_not_use_does_not_disturb(self):
        with self.scratch() as directory:
            volume = self.they_make(KINDS[3], directory)
            quick = KINDS[3].derivation_options()
            cryptsetup("config", "--label", "a label", "--subsystem", "a subsystem", volume)
            peers.run([peers.need("cryptsetup"), "token", "import", volume],
                      stdin='{"type": "some-token", "keyslots": ["0"], "text": "\\u00e4"}')
            cryptsetup("luksAddKey", *quick, "--unbound", "--key-size", "256", "--key-file",
                       self.keys[0], volume, self.keys[2])
            self.assertEqual(self.opens_by_both(volume)[:2], [True, False])
            self.add_key(KINDS[3], volume)
            self.assertEqual(self.opens_by_both(volume)[:2], [True, True])
            dumped = cryptsetup("luksDump", volume).stdout
            for kept in ("a label", "a subsystem", "some-token", "unbound"):
                self.assertIn(kept, dumped)

    def test_unbound_key_slots_are_kept_and_open_nothing(self):
        with self.scratch() as directory:
            volume = self.they_make(KINDS[3], directory)
            quick = KINDS[3].derivation_options()
            cryptsetup("luksAddKey", *quick, "--unbound", "--key-size", "256", "-S", "7",
                       "--key-file", self.keys[0], volume, self.keys[2])
            by = ("--key-file", self.keys[0])
            luks("config", "--label", "other", "--uuid", UUID, volume)
            luks("add-key", *by, "--new-key-file", self.keys[1], *quick, volume)
            luks("change-key", *by, "--new-key-file", self.keys[0], *quick, "-S", "0", volume)
            for words in (("test-key",), ("test-key", "-S", "7"), ("remove-key",)):
                done = luks(*words, "--key-file", self.keys[2], volume, expect=1)
                self.assertIn("key slot", done.stderr)
            busy = luks("add-key", *by, "--new-key-file", self.keys[1], "-S", "7", volume, expect=1)
            self.assertIn("key slot 7 is in use", busy.stderr)
            cryptsetup("open", "--test-passphrase", "-S", "7", "--key-file", self.keys[2], volume)
            self.assertEqual(self.opens_by_both(volume), [True, True, False])
            luks("remove-key", *by, volume)
            done = luks("remove-key", "--key-file", self.keys[1], volume, expect=1)
            self.assertIn("is the last one that opens this disk", done.stderr)
            self.assertIn("7: luks2 (unbound)", cryptsetup("luksDump", volume).stdout)
            luks("kill-slot", "--key-file", self.keys[1], volume, "7")
            dumped = cryptsetup("luksDump", volume).stdout
            self.assertNotIn("unbound", dumped)
            self.assertEqual(dumped[dumped.index("Digests:"):].count("pbkdf2"), 1)
            self.assertEqual(self.opens_by_both(volume), [False, True, False])

    def test_words_of_headers_are_changed_by_both(self):
        for kind in KINDS:
            with self.subTest(str(kind)), self.scratch() as directory:
                volume = self.they_make(kind, directory)
                self.add_key(kind, volume)
                luks("config", "--uuid", UUID, volume)
                self.assertEqual(cryptsetup("luksUUID", volume).stdout.strip(), UUID)
                done = luks("config", "--label", "a label", volume, expect=int(kind.version == 1))
                if kind.version == 1:
                    self.assertIn("LUKS1 has no labels", done.stderr)
                    continue
                peers.run([peers.need("cryptsetup"), "token", "import", volume],
                          stdin='{"type": "some-token", "keyslots": ["1"]}')
                luks("config", "--priority", "ignore", "-S", "0", "--subsystem", "ours", volume)
                dumped = cryptsetup("luksDump", volume).stdout
                for text in ("a label", "ours", "ignored", "some-token"):
                    self.assertIn(text, dumped)
                ours = json.loads(luks("dump", "--output=json", volume).stdout)
                self.assertEqual(ours["tokens"], [{"token": 0, "type": "some-token",
                                                   "keyslots": [1]}])
                self.assertEqual(self.opens_by_both(volume), [False, True, False])
                cryptsetup("config", "--priority", "normal", "-S", "0", volume)
                self.assertEqual(self.opens_by_both(volume), [True, True, False])

    def test_an_erased_volume_opens_with_its_key_alone(self):
        for kind in KINDS:
            with self.subTest(str(kind)), self.scratch() as directory:
                volume = self.they_make(kind, directory)
                self.add_key(kind, volume)
                before = volume.read_bytes()
                done = luks("erase", volume, expect=1, stdin="")
                self.assertIn("'--yes' does it", done.stderr)
                self.assertTrue(volume.read_bytes() == before)
                self.assertEqual(luks("erase", "--yes", volume).stdout, "2 key slots erased\n")
                self.assertEqual(self.opens_by_both(volume), [False, False, False])
                self.assertTrue(volume.read_bytes()[OFFSET:] == before[OFFSET:])
                key = directory / "volume-key"
                size = ("--key-size", kind.key_bits) if kind.version == 2 else ()
                cryptsetup("luksAddKey", *kind.derivation_options(), "--volume-key-file", key,
                           *size, volume, self.keys[1])
                luks("add-key", *kind.derivation_options(), "--volume-key-file", key,
                     "--new-key-file", self.keys[2], volume)
                self.assertEqual(self.opens_by_both(volume), [False, True, True])

    def test_a_part_of_a_key_file_is_the_same_to_both(self):
        with self.scratch() as directory:
            volume = self.they_make(KINDS[3], directory)
            large = directory / "large"
            large.write_bytes(os.urandom(5000) + self.keys[0].read_bytes() + b"the new one")
            old = len(self.keys[0].read_bytes())
            part = ("--keyfile-offset", 5000, "--keyfile-size", old)
            new = ("--new-keyfile-offset", 5000 + old, "--new-keyfile-size", 7)
            luks("add-key", *KINDS[3].derivation_options(), "--key-file", large, *part,
                 "--new-key-file", large, *new, volume)
            for words in (part, ("--keyfile-offset", 5000 + old, "--keyfile-size", 7)):
                cryptsetup("open", "--test-passphrase", "--key-file", large, *words, volume)
                luks("test-key", "--key-file", large, *words, volume)
            peers.ringdisk("convert", "--key-file", large, *part, "-f", "luks", "-O", "raw",
                           volume, directory / "raw")
            peers.require_same(self.raw, directory / "raw")
            for words in (("--keyfile-offset", 6000), ("--keyfile-size", 6000)):
                cryptsetup("open", "--test-passphrase", "--key-file", large, *words, volume,
                           expect=None)
                done = luks("test-key", "--key-file", large, *words, volume, expect=1)
                self.assertIn("it ends before the part", done.stderr)

    def test_other_ciphers_of_key_slots(self):
        with self.scratch() as directory:
            volume = self.they_make(KINDS[2], directory)
            cryptsetup("luksAddKey", *KINDS[3].derivation_options(), "--keyslot-cipher",
                       "aes-cbc-essiv:sha256", "--keyslot-key-size", "128", "--key-file",
                       self.keys[0], volume, self.keys[1])
            self.assertEqual(self.opens_by_both(volume), [True, True, False])

    def test_a_damaged_copy_is_no_matter(self):
        for at in (0, 4096 + 100, 16384, 16384 + 5000):
            with self.subTest(at=at), self.scratch() as directory:
                volume = self.we_make(KINDS[3], directory)
                with open(volume, "r+b") as file:
                    file.seek(at)
                    file.write(b"damage")
                self.read_by_us(volume, self.keys[0], directory / "raw")
                self.add_key(KINDS[3], volume)  # writes both copies anew
                cryptsetup("open", "--test-passphrase", "--disable-locks", "--key-file",
                           self.keys[1], volume)
                peers.ringdisk("check", "-f", "luks", volume)

    def test_a_disk_without_its_primary_header_is_told_of(self):
        why = "primary header damaged, read from the second copy"
        for wiped in (6, 4096, 16384):
            with self.subTest(wiped=wiped), self.scratch() as directory:
                volume = self.they_make(KINDS[3], directory)
                with open(volume, "r+b") as file:
                    file.write(bytes(wiped))
                before = volume.read_bytes()
                cryptsetup("isLuks", "--type", "luks2", "--disable-locks", volume)
                info = peers.ringdisk("info", volume).stdout
                self.assertIn("file format: luks", info)
                self.assertIn(why, info)
                self.assertIn(why, luks("dump", volume).stdout)
                self.assertIn(why, peers.ringdisk("check", volume, expect=2).stderr)
                # What only looks like it may be a raw disk of somebody's.
                for words in (["check", "-r", "all"], ["bench", "-w"], ["resize", "--shrink"]):
                    size = ["1M"] if "resize" in words else []
                    done = peers.ringdisk(*words, volume, *size, expect=1)
                    self.assertIn("say -f luks if it is one, else -f raw", done.stderr)
                    self.assertTrue(volume.read_bytes() == before, words)
                done = peers.ringdisk("info", "-f", "raw", volume)
                self.assertEqual((done.stdout.count("format: raw"), done.stderr), (1, ""))
                peers.ringdisk("check", "-f", "luks", "-r", "all", volume)
                self.assertEqual(self.opens_by_both(volume)[0], True)

    def test_a_disk_that_became_another_is_that(self):
        with self.scratch() as directory:
            volume = self.they_make(KINDS[3], directory)
            with open(volume, "r+b") as file:
                file.write(bytes(510) + b"\x55\xaa")
            done = peers.ringdisk("info", volume)
            self.assertIn("file format: raw", done.stdout)
            self.assertIn("holds the second copy of a LUKS2 header", done.stderr)
            peers.ringdisk("bench", "-w", "-c", "8", volume)

    def test_a_volume_being_encrypted_anew_is_refused(self):
        with self.scratch() as directory:
            volume = self.they_make(KINDS[3], directory)
            cryptsetup("reencrypt", "--init-only", *KINDS[3].derivation_options(), "--key-file",
                       self.keys[0], volume)
            done = peers.ringdisk("convert", "--key-file", self.keys[0], "-f", "luks", "-O", "raw",
                                  volume, directory / "raw", expect=1)
            self.assertIn("re-encryption", done.stderr)
            self.assertFalse((directory / "raw").exists())
            self.assertEqual(volume.stat().st_size, OFFSET + SIZE)


if __name__ == "__main__":
    peers.main(needs=["cryptsetup"])
