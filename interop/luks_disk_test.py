#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LUKS images made by one program and used by the other: what the disk holds, what is said of it,
key slots, detached headers, exports, and what is refused. Secrets as people give them."""
import json
import os
import re

import encrypted
import pattern
import peers
from encrypted import MIB, QUICK, SEED, SIZE

CIPHERS = ("", "cipher-alg=aes-128", "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
           "cipher-mode=cbc,ivgen-alg=plain64,cipher-alg=aes-256", "hash-alg=sha512",
           "ivgen-alg=plain", "hash-alg=sha1,cipher-alg=aes-256",
           "cipher-mode=cbc,ivgen-alg=plain64,ivgen-hash-alg=sha1")


class LuksDiskTest(encrypted.EncryptedCase):
    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.luks"
        self.described = f"driver=luks,key-secret=sec0,file.filename={self.image}"

    def ringdisk_makes(self, options="", **more):
        text = ",".join(filter(None, ("key-secret=sec0", QUICK, options)))
        return peers.ringdisk("convert", *self.objects(), "-f", "raw", "-O", "luks", "-o", text,
                              self.raw, self.image, **more)

    def qemu_makes(self, options=""):
        self.image.unlink(missing_ok=True)
        text = ",".join(filter(None, ("key-secret=sec0", QUICK, options)))
        peers.qemu_img("convert", *self.objects(), "-f", "raw", "-O", "luks", "-o", text, self.raw,
                       self.image)

    def require_qemu_reads(self, wanted=None, key="sec0"):
        self.copy.unlink(missing_ok=True)
        peers.qemu_img("convert", *self.objects(key), "--image-opts", "-O", "raw",
                       self.described.replace("sec0", key), self.copy)
        (wanted or self.wanted).require(self.copy)

    def require_we_read(self, wanted=None, key="sec0"):
        peers.ringdisk("convert", "--key-file", self.directory / f"{key}.key", "-f", "luks", "-O",
                       "raw", self.image, self.copy)
        (wanted or self.wanted).require(self.copy)

    def specific(self):
        ours = json.loads(peers.ringdisk("info", "--output=json", self.image).stdout)
        theirs = peers.qemu_info(self.image)
        for key in ("virtual-size", "format", "encrypted", "format-specific"):
            self.assertEqual(ours[key], theirs[key])
        return ours["format-specific"]["data"]

    def test_ours_read_by_qemu(self):
        for options in CIPHERS:
            with self.subTest(options=options):
                self.ringdisk_makes(options)
                self.require_qemu_reads()
                self.specific()

    def test_theirs_read_and_written_by_us(self):
        other = pattern.sparse(SIZE, SEED + 1)
        changed = self.directory / "changed.raw"
        other.write(changed)
        for options in CIPHERS:
            with self.subTest(options=options):
                self.qemu_makes(options)
                self.require_we_read()
                self.specific()
                peers.ringdisk("convert", "-n", "--key-file", self.key_file, "-f", "raw", "-O",
                               "luks", changed, self.image)
                self.require_qemu_reads(other)

    def test_version_2_is_ours_alone(self):
        for options in ("", "sector-size=4096", "pbkdf=pbkdf2,label=backup",
                        "pbkdf=argon2i,pbkdf-memory=64,pbkdf-force-iterations=4"):
            with self.subTest(options=options):
                self.ringdisk_makes("version=2," + (options or "pbkdf-memory=1024"))
                self.require_we_read()
                text = peers.ringdisk("info", self.image).stdout
                self.assertIn("version: 2\n", text)
                self.assertEqual("label: backup" in text, "label" in options)

    def test_what_whole_sectors_add_to_a_disk_is_zeros(self):
        with open(self.raw, "r+b") as file:
            file.truncate(SIZE - 3 * 512)
        self.ringdisk_makes("version=2,sector-size=4096,pbkdf-memory=1024")
        peers.ringdisk("convert", "--key-file", self.key_file, "-O", "raw", self.image, self.copy)
        self.assertTrue(self.copy.read_bytes() == self.raw.read_bytes() + bytes(3 * 512))

    def test_the_text_of_info_is_qemus(self):
        self.ringdisk_makes()
        ours = peers.ringdisk("info", self.image).stdout
        theirs = peers.qemu_img("info", self.image).stdout
        without_size = re.compile(r"disk size: .*\n")
        self.assertEqual(without_size.sub("", ours),
                         without_size.sub("", theirs[:theirs.index("Child node")]))

    def test_map_and_bench(self):
        self.ringdisk_makes()
        words = (*self.objects(), "--output=json", "--image-opts", self.described)
        ours = json.loads(peers.ringdisk("map", *words).stdout)
        self.assertEqual(ours, json.loads(peers.qemu_img("map", *words).stdout))
        peers.ringdisk("bench", "-c", 100, *self.objects(), "--image-opts", self.described)

    def test_key_slots(self):
        self.ringdisk_makes()
        amend = ("amend", *self.objects("sec0", "sec1"), "--image-opts", self.described, "-o")
        peers.ringdisk(*amend, f"state=active,new-secret=sec1,{QUICK}")
        self.require_qemu_reads(key="sec1")
        self.require_qemu_reads()
        peers.ringdisk(*amend, "state=inactive,old-secret=sec0")
        self.assertEqual([slot["active"] for slot in self.specific()["slots"]][:3],
                         [False, True, False])
        self.require_qemu_reads(key="sec1")
        self.require_refused("key slot", "convert", "--key-file", self.key_file, "-f", "luks",
                             "-O", "raw", self.image, self.copy)
        last = ("amend", *self.objects("sec1"), "-f", "luks", self.image, "-o")
        self.require_refused("lose the disk", *last, "state=inactive,old-secret=sec1")
        self.require_refused("last", *last, "state=inactive,keyslot=1")
        self.require_refused("new-secret", *last, "state=active")
        self.require_refused("state=", *last, "new-secret=sec1")
        self.require_we_read(key="sec1")

    def test_their_key_slots(self):
        self.qemu_makes()
        peers.qemu_img("amend", *self.objects("sec0", "sec1"), "--image-opts", self.described, "-o",
                       f"state=active,new-secret=sec1,keyslot=5,{QUICK}")
        self.require_we_read(key="sec1")
        peers.ringdisk("amend", "-f", "luks", self.image, "-o", "state=inactive,keyslot=0")
        self.require_qemu_reads(key="sec1")
        self.require_we_read(key="sec1")

    def test_served(self):
        self.qemu_makes()
        socket = self.directory / "s"
        with peers.Server([peers.ringdisk_path(), "serve", "--nbd", f"unix:{socket}", "--key-file",
                           self.key_file, "-f", "luks", self.image], socket,
                          ready_line="ringdisk: ready") as server:
            peers.nbdcopy(server.uri(), self.copy)
            self.wanted.require(self.copy)
            # Halves of a sector, which have to be padded.
            commands = ["write -P 7 1000 100", "read -P 7 1000 100", "flush"]
            peers.qemu_io(server.uri(), commands, "raw")
        peers.run([peers.need("qemu-io"), *self.objects(), "--image-opts", self.described, "-c",
                   "read -P 7 1000 100"])
        first = bytearray(self.raw.read_bytes())
        first[1000:1100] = b"\7" * 100
        self.raw.write_bytes(first)
        self.copy.unlink()
        peers.qemu_img("convert", *self.objects(), "--image-opts", "-O", "raw", self.described,
                       self.copy)
        peers.require_same(self.raw, self.copy)

    def test_resize(self):
        self.ringdisk_makes()
        for word, size in (("+1M", 5 * MIB), ("4M", 4 * MIB)):
            peers.ringdisk("resize", "--shrink", "--key-file", self.key_file, "-f", "luks",
                           self.image, word)
            self.assertEqual(peers.qemu_info(self.image)["virtual-size"], size)
            self.specific()
        self.require_qemu_reads()
        self.require_refused("multiple", "resize", "--key-file", self.key_file, "-f", "luks",
                             self.image, "5000000")

    def test_detached_headers(self):
        header, payload = self.directory / "h.luks", self.directory / "p.raw"
        described = (f"driver=luks,key-secret=sec0,header.driver=file,header.filename={header},"
                     f"file.driver=file,file.filename={payload}")
        for maker in (peers.ringdisk, peers.qemu_img):
            with self.subTest(maker=maker.__name__):
                header.unlink(missing_ok=True)
                payload.unlink(missing_ok=True)
                maker("create", *self.objects(), "-f", "luks", "-o",
                      f"key-secret=sec0,detached-header=on,{QUICK}", header)
                info = json.loads(peers.ringdisk("info", "--output=json", header).stdout)
                self.assertEqual(info["virtual-size"], 0)  # the disk is not in it
                self.assertTrue(info["format-specific"]["data"]["detached-header"])
                os.truncate(payload, SIZE) if payload.exists() else payload.write_bytes(bytes(SIZE))
                peers.ringdisk("convert", *self.objects(), "-n", "-f", "raw", "--target-image-opts",
                               self.raw, described)
                self.copy.unlink(missing_ok=True)
                peers.qemu_img("convert", *self.objects(), "--image-opts", "-O", "raw", described,
                               self.copy)
                self.wanted.require(self.copy)

    def test_nothing_is_converted_into_a_header_alone(self):
        # That no key is derived first shows in that none is asked for.
        for word in ("on", "true", "yes", "y"):
            done = self.require_refused("driver=luks,header.filename=HEADER,file.filename=DISK",
                                        "convert", "-O", "luks", "-o", f"detached-header={word}",
                                        self.raw, self.image)
            self.assertFalse(self.image.exists(), done)
        self.ringdisk_makes("detached-header=off")
        self.require_qemu_reads()

    def test_what_is_missing_or_wrong_is_named_as_it_is_written(self):
        inner = self.directory / "disk.qcow2"
        secret = "encrypt.format=luks,encrypt.key-secret=sec0"
        make = ("create", *self.objects(), "-q", "-f", "qcow2", "-o")
        peers.ringdisk(*make, f"{secret},encrypt.iter-time=10", inner, "1M")
        amend = ("amend", *self.objects(), "--key-file", self.key_file, inner, "-o")
        add = ("luks", "add-key", self.image)
        self.ringdisk_makes()
        for text, words in (
                ("-o encrypt.key-secret=sec0",
                 ("create", "-q", "-f", "qcow2", "-o", "encrypt.format=luks", self.copy, "1M")),
                ("-o key-secret=sec0", ("create", "-q", "-f", "luks", self.copy, "1M")),
                ("and encrypt.key-secret=sec0 in its", ("convert", inner, self.copy)),
                ("--key-secret=sec0", add),
                ("--new-key-file PATH", (*add, "--key-file", self.key_file)),
                ("-o encrypt.key-secret=sec0",
                 ("amend", inner, *self.objects(), "-o",
                  "encrypt.state=active,encrypt.new-secret=sec0")),
                ("encrypt.state=active or encrypt.state=inactive", (*amend, "encrypt.keyslot=1")),
                ("needs encrypt.new-secret=ID", (*amend, "encrypt.state=active")),
                ("needs encrypt.old-secret=ID or encrypt.keyslot=N",
                 (*amend, "encrypt.state=inactive")),
                ("no option 'encrypt.colour'", (*make, f"{secret},encrypt.colour=1", self.copy, 1)),
                ("encrypt.cipher-alg 'rot13'",
                 (*make, f"{secret},encrypt.cipher-alg=rot13", self.copy, 1)),
                ("say encrypt.format=luks, too", (*make, "encrypt.iter-time=1", self.copy, 1))):
            with self.subTest(text=text):
                self.require_refused(text, *words, stdin="")

    def test_a_person_is_asked_before_all_keys_go(self):
        self.ringdisk_makes()
        argv = [peers.ringdisk_path(), "luks", "erase", self.image]
        for answer, status in (("yes\n", 1), ("\n", 1), ("YES\n", 0)):
            self.require_qemu_reads()
            with encrypted.Typist(argv) as typist:
                typist.wait_for("(type YES)")
                typist.type(answer)
                self.assertEqual(typist.end(), status, typist.seen)
        done = peers.ringdisk("luks", "test-key", "--key-file", self.key_file, self.image, expect=1)
        self.assertIn("no key slot is in use", done.stderr)

    def test_check(self):
        self.ringdisk_makes("version=2,pbkdf-memory=1024")
        self.assertIn("No errors", peers.ringdisk("check", self.image).stdout)
        with open(self.image, "r+b") as damaged:
            damaged.write(b"gone")
        self.require_we_read()  # by the other copy
        words = ("check", "-f", "luks", self.image)
        self.assertEqual(peers.ringdisk(*words, expect=2).returncode, 2)
        peers.ringdisk(*words, "-r", "all", expect=None)
        self.assertIn("No errors", peers.ringdisk(*words).stdout)
        with open(self.image, "rb") as mended:
            self.assertEqual(mended.read(4), b"LUKS")

    def test_cut_short(self):
        for length in (1 * MIB, 3 * MIB + 100):
            with self.subTest(length=length):
                self.ringdisk_makes()
                os.truncate(self.image, length)
                peers.ringdisk("check", "-f", "luks", self.image, expect=2)
                peers.ringdisk("convert", "--key-file", self.key_file, "-f", "luks", "-O", "raw",
                               self.image, self.copy, expect=1)
                self.assertFalse(self.copy.exists())

    def test_what_is_refused(self):
        make = ("create", *self.objects(), "-f", "luks", self.image, "1M", "-q", "-o")
        for options, text in (("cipher-alg=rot13", "rot13"), ("hash-alg=md4", "md4"),
                              ("cipher-mode=ecb", "ecb"), ("version=3", "version"),
                              ("sector-size=4096", "LUKS1"), ("pbkdf=argon2id", "LUKS1"),
                              (f"backing_file={self.raw},backing_fmt=raw", "backing"),
                              ("nonsense=1", "nonsense"),
                              ("key-secret=sec7", "sec7"), ("preallocation=some", "some")):
            with self.subTest(options=options):
                self.require_refused(text, *make, options)
                self.assertFalse(self.image.exists())
        self.ringdisk_makes()
        before = self.image.read_bytes()
        self.require_refused("needs a passphrase", "convert", "-f", "luks", "-O", "raw", self.image,
                             self.copy)
        self.require_refused("key slot", "convert", *self.objects("wrong"), "-O", "raw",
                             "--image-opts", self.described.replace("sec0", "wrong"), self.copy)
        self.assertFalse(self.copy.exists())
        self.assertEqual(self.image.read_bytes(), before)


class SecretTest(encrypted.EncryptedCase):
    """The ways in which a passphrase is given, by what opens."""

    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.luks"
        peers.ringdisk("convert", "--key-file", self.key_file, "-f", "raw", "-O", "luks", "-o",
                       QUICK, self.raw, self.image)

    def convert(self, *words, **options):
        self.copy.unlink(missing_ok=True)
        done = peers.ringdisk("convert", "-O", "raw", *words, self.image, self.copy, **options)
        self.wanted.require(self.copy)
        return done

    def described(self, *words, **options):
        self.copy.unlink(missing_ok=True)
        done = peers.ringdisk("convert", "-O", "raw", *words, "--image-opts",
                              f"driver=luks,key-secret=a,file.filename={self.image}", self.copy,
                              **options)
        self.wanted.require(self.copy)
        return done

    def test_objects(self):
        encoded = self.secret("encoded", b"Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==\n")
        done = self.described("--object", f"secret,id=a,format=base64,file={encoded}")
        self.assertEqual(done.stderr, "")
        done = self.described("--object", "secret,id=a,data=correct horse battery staple")
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn("command line", done.stderr)
        self.assertNotIn("staple", done.stderr)

    def test_passed_descriptors(self):
        self.convert("--key-file", "/dev/fd/0", stdin="correct horse battery staple")
        self.convert("--key-file", "fd:0", stdin="correct horse battery staple")
        self.described("--object", "secret,id=a,file=fd:0", stdin="correct horse battery staple")

    def test_a_person_is_asked(self):
        argv = [peers.ringdisk_path(), "convert", "-O", "raw", self.image, self.copy]
        with encrypted.Typist(argv) as typist:
            typist.wait_for(f"Enter passphrase for {self.image}: ")
            typist.type("correct horse battery staple\n")
            self.assertEqual(typist.end(), 0, typist.seen)
            self.assertNotIn(b"staple", typist.seen)
        self.wanted.require(self.copy)

    def test_a_person_makes_a_disk(self):
        made = self.directory / "made.luks"
        argv = [peers.ringdisk_path(), "convert", "-f", "raw", "-O", "luks", "-o", QUICK, self.raw,
                made]
        with encrypted.Typist(argv) as typist:
            typist.wait_for("Enter passphrase")
            typist.type("correct horse battery staple\n")
            typist.wait_for("Verify passphrase")
            typist.type("correct horse battery staple\n")
            self.assertEqual(typist.end(), 0, typist.seen)
        self.image = made
        self.convert("--key-file", self.key_file)

    def test_a_new_passphrase_is_asked_for_once_and_verified_once(self):
        luks, qcow2, raw = (self.directory / name for name in ("n.luks", "n.qcow2", "n.raw"))
        inner = f"encrypt.format=luks,encrypt.{QUICK}"
        with open(raw, "wb") as file:
            file.truncate(20 * MIB)
        choosing = [("convert", "-q", "-f", "raw", "-O", "luks", "-o", QUICK, self.raw, luks),
                    ("convert", "-q", "-O", "qcow2", "-o", inner, "-f", "raw", self.raw, qcow2),
                    ("create", "-q", "-f", "luks", "-o", QUICK, luks, "1M"),
                    ("create", "-q", "-f", "qcow2", "-o", f"{inner},preallocation=metadata", qcow2,
                     "1M"),
                    ("luks", "format", "-q", "-i", "10", raw),
                    ("luks", "add-key", "-q", "-i", "10", raw),
                    ("luks", "change-key", "-q", "-i", "10", raw)]
        for words in choosing:
            asks_for_old = words[1] in ("add-key", "change-key")
            with self.subTest(words=words):
                with encrypted.Typist([peers.ringdisk_path(), *words]) as typist:
                    questions = ["Verify passphrase"]
                    if asks_for_old:
                        questions.insert(0, "the new key slot")
                    typist.wait_for("Enter passphrase")
                    typist.type("correct horse battery staple\n")
                    for question in questions:
                        typist.wait_for(question)
                        typist.type("correct horse battery staple\n")
                    self.assertEqual(typist.end(), 0, typist.seen)
                    self.assertEqual(typist.seen.count(b"Verify passphrase: "), 1, typist.seen)
                    self.assertEqual(typist.seen.count(b"Enter passphrase for "),
                                     1 + asks_for_old, typist.seen)

    def test_a_person_gives_up(self):
        argv = [peers.ringdisk_path(), "convert", "-O", "raw", self.image, self.copy]
        with encrypted.Typist(argv) as typist:
            typist.wait_for("Enter passphrase")
            typist.type("half\3")
            self.assertEqual(typist.end(), 130, typist.seen)
            self.assertIn(b"interrupted", typist.seen)
        self.assertFalse(self.copy.exists())


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io", "nbdcopy"])
