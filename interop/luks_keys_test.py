#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LUKS headers and key slots of ringdisk and cryptsetup (and qemu-img, which has LUKS1): what one
makes the others open, add keys to, change and remove; afterwards all of them open it still."""
import json
import os
import stat

import peers

MIB = 1 << 20
CHEAP = {"luks1": ["--pbkdf-force-iterations=1000"],
         "luks2": ["--pbkdf=argon2id", "--pbkdf-force-iterations=4", "--pbkdf-memory=32",
                   "--pbkdf-parallel=1"]}
PBKDF2 = ["--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000"]
ARGON2I = ["--pbkdf=argon2i", "--pbkdf-force-iterations=4", "--pbkdf-memory=64",
           "--pbkdf-parallel=2"]
# version, options that both programs take
VOLUMES = (
    ("luks1", CHEAP["luks1"]),
    ("luks1", ["--cipher=aes-cbc-essiv:sha256", "--key-size=256", *CHEAP["luks1"]]),
    ("luks1", ["--cipher=aes-xts-plain64", "--key-size=256", "--hash=sha512", *CHEAP["luks1"]]),
    ("luks1", ["--cipher=aes-cbc-plain64", "--key-size=128", "--hash=sha1", *CHEAP["luks1"]]),
    ("luks1", ["--hash=ripemd160", *CHEAP["luks1"]]),
    ("luks2", CHEAP["luks2"]),
    ("luks2", [*PBKDF2, "--hash=sha256"]),
    ("luks2", [*PBKDF2, "--hash=sha512", "--sector-size=4096"]),
    ("luks2", [*PBKDF2, "--cipher=aes-cbc-essiv:sha256", "--key-size=256"]),
    ("luks2", [*ARGON2I, "--sector-size=1024", "--key-size=256"]),
    ("luks2", [*CHEAP["luks2"], "--sector-size=2048", "--label=my disk", "--subsystem=tests"]),
    ("luks2", [*CHEAP["luks2"], "--luks2-metadata-size=64k", "--luks2-keyslots-size=1m"]),
    ("luks2", [*CHEAP["luks2"], "--offset=65536"]),
)


class LuksCase(peers.Case):
    """A file, keys for it, and both programs' ways with them."""

    def setUp(self):
        super().setUp()
        self.keys = {}
        for name in ("first", "second", "third", "wrong"):
            self.keys[name] = self.directory / f"{name}.key"
            self.keys[name].write_bytes(f"the {name} passphrase".encode())
        self.disk = self.directory / "disk.luks"

    def make_file(self, path=None, size=40 * MIB):
        path = path or self.disk
        path.unlink(missing_ok=True)
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def cryptsetup(self, *words, expect=0):
        return peers.run([peers.need("cryptsetup"), "-q", *words], expect=expect)

    def luks(self, *words, expect=0, **options):
        return peers.ringdisk("luks", *words, expect=expect, **options)

    def cryptsetup_formats(self, version, options, *more):
        self.cryptsetup("luksFormat", f"--type={version}", *options, *more, self.disk,
                        self.keys["first"])

    def we_format(self, version, options, *more):
        self.luks("format", f"--type={version}", *options, *more, "--key-file", self.keys["first"],
                  self.disk)

    def cryptsetup_slot(self, name, *more):
        """The number of the slot that cryptsetup opens with this key; None."""
        done = self.cryptsetup("open", "--test-passphrase", "-v", "--key-file", self.keys[name],
                               *more, self.disk, expect=None)
        words = done.stdout.split()
        return int(words[words.index("slot") + 1]) if done.returncode == 0 else None

    def our_slot(self, name, *more):
        """The same with ringdisk: the slot that it removes from a copy when given this key."""
        copy = self.directory / "copy.luks"
        peers.run(["cp", "--sparse=always", self.disk, copy])
        done = self.luks("remove-key", "--force", "--key-file", self.keys[name], *more, copy,
                         expect=None)
        copy.unlink()
        return int(done.stdout.split()[2]) if done.returncode == 0 else None

    def require_slots(self, **slots):
        """Both programs open these slots with these keys."""
        for name, slot in slots.items():
            self.assertEqual(self.cryptsetup_slot(name), slot, f"cryptsetup, {name}")
            self.assertEqual(self.our_slot(name), slot, f"ringdisk, {name}")

    def add(self, version, old, new, *more):
        return self.luks("add-key", *CHEAP[version], "--key-file", self.keys[old],
                         "--new-key-file", self.keys[new], *more, self.disk)

    def cryptsetup_adds(self, version, old, new):
        self.cryptsetup("luksAddKey", *CHEAP[version], "--key-file", self.keys[old], self.disk,
                        self.keys[new])


class LuksKeys(LuksCase):
    def test_what_cryptsetup_made_we_open_and_add_a_key_to(self):
        for version, options in VOLUMES:
            with self.subTest(version=version, options=options):
                self.make_file()
                self.cryptsetup_formats(version, options)
                self.require_slots(first=0, wrong=None)
                self.add(version, "first", "second")
                self.require_slots(first=0, second=1, wrong=None)
                self.cryptsetup_adds(version, "second", "third")
                self.require_slots(first=0, second=1, third=2)

    def test_what_we_made_cryptsetup_opens_and_adds_a_key_to(self):
        for version, options in VOLUMES:
            with self.subTest(version=version, options=options):
                self.make_file()
                self.we_format(version, options)
                self.require_slots(first=0, wrong=None)
                self.cryptsetup_adds(version, "first", "second")
                self.require_slots(first=0, second=1)
                self.add(version, "second", "third")
                self.require_slots(first=0, second=1, third=2, wrong=None)

    def test_keys_are_changed_and_removed_in_turns(self):
        for version in ("luks1", "luks2"):
            with self.subTest(version=version):
                self.make_file()
                self.we_format(version, CHEAP[version])
                self.add(version, "first", "second")
                self.luks("change-key", *CHEAP[version], "--key-file", self.keys["first"],
                          "--new-key-file", self.keys["third"], self.disk)
                self.require_slots(first=None, second=1, third=0)
                self.cryptsetup("luksChangeKey", *CHEAP[version], "--key-file",
                                self.keys["third"], self.disk, self.keys["first"])
                self.require_slots(third=None, second=1)
                self.assertIsNotNone(self.our_slot("first"))
                self.luks("remove-key", "--key-file", self.keys["first"], self.disk)
                self.require_slots(first=None, second=1)
                self.add(version, "second", "third", "--key-slot=5")
                self.cryptsetup("luksKillSlot", "--key-file", self.keys["third"], self.disk, "1")
                self.require_slots(second=None, third=5)
                self.add(version, "third", "first")
                self.luks("kill-slot", "--key-file", self.keys["first"], self.disk, "5")
                self.require_slots(first=0, third=None)

    def test_nothing_that_is_said_holds_a_passphrase(self):
        self.make_file()
        said = ""
        verbose = ["-v", "-v", "--key-file", self.keys["first"]]
        for words in (["format", *CHEAP["luks2"]], ["dump"], ["dump", "--output=json"],
                      ["add-key", *CHEAP["luks2"], "--new-key-file", self.keys["second"]],
                      ["change-key", *CHEAP["luks2"], "--new-key-file", self.keys["third"]]):
            done = self.luks(*words, *verbose, self.disk)
            said += done.stdout + done.stderr
        for wrong in ("first", "wrong"):
            done = self.luks("remove-key", "-v", "-v", "--key-file", self.keys[wrong], self.disk,
                             expect=1)
            said += done.stdout + done.stderr
        self.assertIn("key slot 1 added", said)
        self.assertIn("no key slot opens", said)
        for key in self.keys.values():
            self.assertNotIn(key.read_text(), said)
        self.assertFalse(any(key.read_bytes() in self.disk.read_bytes()
                             for key in self.keys.values()))

    def test_the_last_key_stays_unless_forced(self):
        for version in ("luks1", "luks2"):
            with self.subTest(version=version):
                self.make_file()
                self.we_format(version, CHEAP[version])
                done = self.luks("remove-key", "--key-file", self.keys["first"], self.disk,
                                 expect=1)
                self.assertIn("disk.luks: key slot 0 is the last one", done.stderr)
                self.require_slots(first=0)
                self.luks("kill-slot", "--force", self.disk, "0")
                self.require_slots(first=None)

    def test_a_wrong_passphrase_is_one_line_and_status_1(self):
        for version in ("luks1", "luks2"):
            self.make_file()
            self.cryptsetup_formats(version, CHEAP[version])
            done = self.luks("add-key", "--key-file", self.keys["wrong"], "--new-key-file",
                             self.keys["second"], self.disk, expect=1)
            self.assertEqual(done.stderr,
                             f"ringdisk: {self.disk}: no key slot opens with this passphrase\n")

    def test_nobody_is_asked_for_what_is_refused_anyway(self):
        self.make_file()
        for words, why in (
                (["add-key", self.disk], "there is no LUKS header"),
                (["kill-slot", self.disk, "0"], "there is no LUKS header"),
                (["format", "--offset=8", self.disk], "cannot begin at 4096"),
                (["format", "--offset=4000000", self.disk], "make it larger first")):
            self.assertIn(why, self.luks(*words, expect=1).stderr)
        self.cryptsetup_formats("luks2", CHEAP["luks2"])
        self.assertIn("'--force' overwrites it",
                      self.luks("format", self.disk, expect=1).stderr)

    def test_a_key_comes_from_standard_input(self):
        self.make_file()
        self.cryptsetup_formats("luks2", CHEAP["luks2"])
        self.luks("add-key", *CHEAP["luks2"], "--key-file", "-", "--new-key-file",
                  self.keys["second"], self.disk, stdin=self.keys["first"].read_text())
        self.luks("add-key", *CHEAP["luks2"], "--key-file", self.keys["second"],
                  "--new-key-file=-", self.disk, stdin=self.keys["third"].read_text())
        self.require_slots(first=0, second=1, third=2)

    def test_the_volume_key_opens(self):
        for version in ("luks1", "luks2"):
            with self.subTest(version=version):
                key = self.directory / "volume.key"
                key.write_bytes(os.urandom(64))
                self.make_file()
                self.we_format(version, CHEAP[version], "--volume-key-file", key)
                self.cryptsetup("open", "--test-passphrase", "--volume-key-file", key, self.disk)
                self.add(version, "first", "second", "--volume-key-file", key)
                self.require_slots(first=0, second=1)

    def test_damaged_copies_are_repaired(self):
        for at in (0, 5000, 16384, 16384 + 5000):
            with self.subTest(at=at):
                self.make_file()
                self.cryptsetup_formats("luks2", CHEAP["luks2"])
                with open(self.disk, "r+b") as file:
                    file.seek(at)
                    file.write(b"damage")
                dump = json.loads(self.luks("dump", "--output=json", self.disk).stdout)
                self.assertIn("damage", dump)
                said = self.add("luks2", "first", "second").stderr
                which = "first" if at < 16384 else "second"
                self.assertIn(f"disk.luks: the {which} copy of the LUKS2 header was written anew",
                              said)
                dump = json.loads(self.luks("dump", "--output=json", self.disk).stdout)
                self.assertNotIn("damage", dump)
                self.require_slots(first=0, second=1)

    def test_dumps_say_the_same(self):
        for version, options in VOLUMES:
            with self.subTest(version=version, options=options):
                self.make_file()
                self.cryptsetup_formats(version, options)
                theirs = self.cryptsetup("luksDump", self.disk).stdout
                ours = self.luks("dump", self.disk).stdout
                missing = set(self.facts(ours)) - set(self.facts(theirs))
                self.assertFalse(missing, f"{missing} is not in\n{theirs}")

    @staticmethod
    def facts(dump):
        """The lines of a dump, without what only divides it."""
        lines = (" ".join(line.split()) for line in dump.splitlines())
        return [line for line in lines if line and "information" not in line]

    def test_detached_headers(self):
        for version in ("luks1", "luks2"):
            with self.subTest(version=version):
                header = self.directory / "header.luks"
                header.unlink(missing_ok=True)
                self.make_file(size=MIB)
                self.we_format(version, CHEAP[version], "--header", header)
                self.assertEqual(stat.S_IMODE(header.stat().st_mode), 0o600)
                self.assertFalse(any(self.disk.read_bytes()))
                self.assertEqual(self.cryptsetup_slot("first", "--header", header), 0)
                header.unlink()
                self.cryptsetup_formats(version, CHEAP[version], "--header", header)
                self.add(version, "first", "second", "--header", header)
                self.assertEqual(self.cryptsetup_slot("second", "--header", header), 1)

    def test_a_detached_header_wants_its_data(self):
        header, nothing = self.directory / "header.luks", self.directory / "nothing"
        words = ("format", *CHEAP["luks2"], "--key-file", self.keys["first"], "--header")
        done = self.luks(*words, header, nothing, expect=1)
        self.assertIn(f"{nothing}: No such file", done.stderr)
        self.assertFalse(header.exists())
        self.make_file(size=MIB)
        done = self.luks(*words, self.disk, self.disk, expect=1)
        self.assertIn("its own header's file", done.stderr)
        self.assertFalse(any(self.disk.read_bytes()))

    def test_backups_of_either_are_restored_by_the_other(self):
        backup = self.directory / "backup.luks"
        words = ["--header-backup-file", backup, self.disk]
        for version in ("luks1", "luks2"):
            for ours_first in (True, False):
                with self.subTest(version=version, ours_first=ours_first):
                    backup.unlink(missing_ok=True)
                    self.make_file()
                    self.cryptsetup_formats(version, CHEAP[version])
                    if ours_first:
                        self.luks("header-backup", *words)
                        self.assertEqual(stat.S_IMODE(backup.stat().st_mode), 0o600)
                    else:
                        self.cryptsetup("luksHeaderBackup", *words)
                    self.luks("kill-slot", "--force", self.disk, "0")
                    self.require_slots(first=None)
                    if ours_first:
                        self.cryptsetup("luksHeaderRestore", *words)
                    else:
                        self.luks("header-restore", *words)
                    self.require_slots(first=0)

    def test_nothing_is_overwritten_unless_forced(self):
        self.make_file()
        self.cryptsetup_formats("luks2", CHEAP["luks2"])
        done = self.luks("format", "--key-file", self.keys["second"], *CHEAP["luks2"], self.disk,
                         expect=1)
        self.assertIn("'--force' overwrites it", done.stderr)
        self.require_slots(first=0)
        self.luks("format", "--force", "--key-file", self.keys["second"], *CHEAP["luks2"],
                  self.disk)
        self.require_slots(first=None, second=0)
        backup = self.directory / "backup.luks"
        backup.write_bytes(b"mine")
        done = self.luks("header-backup", "--header-backup-file", backup, self.disk, expect=1)
        self.assertIn("File exists", done.stderr)
        self.assertEqual(backup.read_bytes(), b"mine")

    def test_a_served_volume_is_described_and_backed_up_when_asked_to(self):
        self.make_file()
        self.cryptsetup_formats("luks2", CHEAP["luks2"])
        backup = self.directory / "backup.luks"
        with peers.serve_ringdisk(self.disk, self.directory / "socket", "--key-file",
                                  self.keys["first"]):
            for words in (["dump", self.disk],
                          ["header-backup", "--header-backup-file", backup, self.disk]):
                self.assertIn("use -U", self.luks(*words, expect=1).stderr)
                backup.unlink(missing_ok=True)
                self.luks(*words, "-U")
            done = self.luks("add-key", "-U", self.disk, expect=1)
            self.assertIn("'--force-share' has no meaning", done.stderr)
        self.luks("kill-slot", "--force", self.disk, "0")
        self.cryptsetup("luksHeaderRestore", "--header-backup-file", backup, self.disk)
        self.require_slots(first=0)

    def test_a_full_disk_leaves_no_half_written_file(self):
        self.make_file()
        self.cryptsetup_formats("luks2", CHEAP["luks2"])
        backup, header = self.directory / "backup.luks", self.directory / "header.luks"
        for words, made in (
                (["header-backup", "--header-backup-file", backup, self.disk], backup),
                (["format", "--key-file", self.keys["first"], *CHEAP["luks2"], "--header", header,
                  self.disk], header)):
            done = peers.ringdisk("luks", *words, expect=1, file_bytes_max=100 << 10)
            self.assertIn(made.name, done.stderr)
            self.assertFalse(made.exists())

    def test_a_key_is_tested_as_cryptsetup_tests_it(self):
        for version in ("luks1", "luks2"):
            with self.subTest(version=version):
                self.make_file()
                self.cryptsetup_formats(version, CHEAP[version])
                self.cryptsetup_adds(version, "first", "second")
                before = self.disk.read_bytes()

                def test(key, *more, expect=0):
                    return self.luks("test-key", "--key-file", self.keys[key], *more, self.disk,
                                     expect=expect)

                for number, key in enumerate(("first", "second")):
                    self.assertEqual(test(key).stdout, f"key slot {number} opens\n")
                    self.assertEqual(self.cryptsetup_slot(key), number)
                self.assertIn("no key slot opens", test("wrong", expect=1).stderr)
                self.assertIn("no key slot opens", test("second", "-S", "0", expect=1).stderr)
                self.assertIn("slot 5 is not in use", test("first", "-S", "5", expect=1).stderr)
                volume_key = self.directory / "volume.key"
                volume_key.unlink(missing_ok=True)
                self.cryptsetup("luksDump", "--dump-volume-key", "--volume-key-file", volume_key,
                                "--key-file", self.keys["first"], self.disk)
                done = self.luks("test-key", "--volume-key-file", volume_key, self.disk)
                self.assertEqual(done.stdout, "this is the volume key\n")
                volume_key.write_bytes(bytes(len(volume_key.read_bytes())))
                done = self.luks("test-key", "--volume-key-file", volume_key, self.disk, expect=1)
                self.assertIn("not the key of the volume", done.stderr)
                self.assertEqual(self.disk.read_bytes(), before)

    def test_an_empty_pipe_holds_no_passphrase_and_an_empty_file_no_key(self):
        self.make_file()
        before = self.disk.read_bytes()
        for source in ("-", "fd:0", "/dev/null"):
            done = self.luks("format", "--key-file", source, *CHEAP["luks2"], self.disk, stdin="",
                             expect=1)
            self.assertIn("nothing came", done.stderr)
        self.assertEqual(self.disk.read_bytes(), before)
        self.cryptsetup_formats("luks2", CHEAP["luks2"])
        empty = self.directory / "empty"
        empty.touch()
        self.cryptsetup("luksAddKey", *CHEAP["luks2"], "--key-file", self.keys["first"], self.disk,
                        empty)  # which cryptsetup takes, and no volume key is
        done = self.luks("add-key", "--volume-key-file", empty, "--new-key-file",
                         self.keys["second"], *CHEAP["luks2"], self.disk, expect=1)
        self.assertIn("holds no volume key", done.stderr)
        self.require_slots(first=0, second=None)

    def test_options_without_effect_are_refused(self):
        self.make_file()
        for words in (["add-key", "--cipher=x-y-z"], ["dump", "--hash=sha1"],
                      ["format", "--output=json"], ["remove-key", "--new-key-file=x"],
                      ["dump", "--header-backup-file=x"], ["explode"],
                      ["format", "--type=luks1", "--luks2-metadata-size=32k"], ["kill-slot"],
                      ["header-backup"]):
            done = self.luks(*words, "--key-file", self.keys["first"], self.disk, expect=1)
            self.assertTrue(done.stderr.startswith("ringdisk: "), done.stderr)
            self.assertFalse(any(self.disk.read_bytes()[:4096]))


class QemuLuks1(LuksCase):
    """The same files with qemu-img, which reads and writes the data behind them as well."""

    def secret(self, name):
        return ["--object", f"secret,id=s0,file={self.keys[name]}"]

    def qemu_reads(self, name):
        raw = self.directory / "qemu.raw"
        peers.qemu_img("convert", *self.secret(name), "-O", "raw", "--image-opts",
                       f"driver=luks,key-secret=s0,file.filename={self.disk}", raw)
        return raw.read_bytes()

    def test_what_qemu_made_gets_keys_and_keeps_its_data(self):
        peers.qemu_img("create", "-q", "-f", "luks", *self.secret("first"), "-o",
                       "key-secret=s0,iter-time=10", self.disk, "1M")
        plain = self.directory / "plain.raw"
        plain.write_bytes(bytes(range(256)) * 4096)
        peers.qemu_img("convert", *self.secret("first"), "-n", "-f", "raw", plain,
                       "--target-image-opts",
                       f"driver=luks,key-secret=s0,file.filename={self.disk}")
        self.add("luks1", "first", "second")
        self.assertEqual(self.qemu_reads("second"), plain.read_bytes())
        self.luks("change-key", *CHEAP["luks1"], "--key-file", self.keys["first"],
                  "--new-key-file", self.keys["third"], self.disk)
        self.assertEqual(self.qemu_reads("third"), plain.read_bytes())
        self.require_slots(first=None, second=1, third=0)

    def test_what_we_made_qemu_opens(self):
        for version, options in VOLUMES:
            if version != "luks1" or "--hash=ripemd160" in options:
                continue
            with self.subTest(options=options):
                self.make_file(size=4 * MIB)
                self.we_format(version, options)
                self.assertEqual(len(self.qemu_reads("first")), 4 * MIB - self.payload_offset())

    def payload_offset(self):
        return json.loads(self.luks("dump", "--output=json", self.disk).stdout)["payload-offset"]


if __name__ == "__main__":
    peers.main(needs=["cryptsetup", "qemu-img"])
