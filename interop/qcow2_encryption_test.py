#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LUKS inside qcow2, made by one program and used by the other: what the disk and its snapshots
hold, what is said of it, key slots, exports, checks, and what is refused."""
import json
import re

import encrypted
import pattern
import peers
from encrypted import MIB, QUICK, SEED, SIZE

SHAPES = ("", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "lazy_refcounts=on",
          "refcount_bits=1", "compat=0.10", "encrypt.cipher-alg=aes-128", "encrypt.hash-alg=sha512",
          "encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256")


class Qcow2EncryptionTest(encrypted.EncryptedCase):
    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.qcow2"
        self.described = f"driver=qcow2,encrypt.key-secret=sec0,file.filename={self.image}"

    @staticmethod
    def options(more=""):
        return ",".join(filter(None, ("encrypt.format=luks,encrypt.key-secret=sec0",
                                      f"encrypt.{QUICK}", more)))

    def ringdisk_makes(self, more="", image=None):
        return peers.ringdisk("convert", *self.objects(), "-f", "raw", "-O", "qcow2", "-o",
                              self.options(more), self.raw, image or self.image)

    def qemu_makes(self, more=""):
        self.image.unlink(missing_ok=True)
        peers.qemu_img("convert", *self.objects(), "-f", "raw", "-O", "qcow2", "-o",
                       self.options(more), self.raw, self.image)

    def require_sound(self, key="sec0"):
        """Their check needs a passphrase, ours none."""
        done = peers.qemu_img("check", *self.objects(key), "--image-opts",
                              self.described.replace("sec0", key), expect=None)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        peers.ringdisk("check", self.image)

    def require_qemu_reads(self, wanted=None, key="sec0", words=()):
        self.copy.unlink(missing_ok=True)
        peers.qemu_img("convert", *self.objects(key), *words, "--image-opts", "-O", "raw",
                       self.described.replace("sec0", key), self.copy)
        (wanted or self.wanted).require(self.copy)

    def require_we_read(self, wanted=None, key="sec0", words=()):
        peers.ringdisk("convert", *self.objects(key), *words, "--image-opts", "-O", "raw",
                       self.described.replace("sec0", key), self.copy)
        (wanted or self.wanted).require(self.copy)

    def specific(self):
        ours = json.loads(peers.ringdisk("info", "--output=json", self.image).stdout)
        theirs = peers.qemu_info(self.image)
        for key in ("virtual-size", "format", "encrypted", "cluster-size", "format-specific"):
            self.assertEqual(ours[key], theirs[key])
        return ours["format-specific"]["data"]["encrypt"]

    def test_ours_read_by_qemu(self):
        for more in SHAPES:
            with self.subTest(more=more):
                self.ringdisk_makes(more)
                self.require_sound()
                self.require_qemu_reads()
                self.assertEqual(self.specific()["format"], "luks")
                self.require_we_read()

    def test_theirs_read_and_written_by_us(self):
        other = pattern.sparse(SIZE, SEED + 1)
        changed = self.directory / "changed.raw"
        other.write(changed)
        for more in SHAPES:
            with self.subTest(more=more):
                self.qemu_makes(more)
                self.require_we_read()
                self.specific()
                peers.ringdisk("convert", "-n", "--key-file", self.key_file, "-f", "raw", "-O",
                               "qcow2", changed, self.image)
                self.require_sound()
                self.require_qemu_reads(other)

    def test_the_text_of_info_and_create_is_qemus(self):
        words = ("create", *self.objects(), "-f", "qcow2", "-o", self.options(), self.image, SIZE)
        theirs = peers.qemu_img(*words).stdout
        self.image.unlink()
        self.assertEqual(peers.ringdisk(*words).stdout, theirs)
        ours = peers.ringdisk("info", self.image).stdout
        theirs = peers.qemu_img("info", self.image).stdout
        without_size = re.compile(r"disk size: .*\n")
        self.assertEqual(without_size.sub("", ours),
                         without_size.sub("", theirs[:theirs.index("Child node")]))

    def test_a_new_disk_reads_as_zeros(self):
        peers.ringdisk("create", *self.objects(), "-f", "qcow2", "-o", self.options(), self.image,
                       SIZE)
        self.require_sound()
        nothing = pattern.Pattern(SIZE, SEED, ())
        self.require_qemu_reads(nothing)
        peers.run([peers.need("qemu-io"), *self.objects(), "--image-opts", self.described, "-c",
                   "write -P 5 65000 1000"])
        peers.ringdisk("convert", *self.objects(), "--image-opts", "-O", "raw", self.described,
                       self.copy)
        content = self.copy.read_bytes()
        self.assertEqual(content[65000:66000], b"\5" * 1000)
        self.assertFalse(any(content[:65000]) or any(content[66000:]))

    def test_preallocated_it_reads_as_zeros_and_keeps_its_clusters(self):
        """QEMU's own read as noise until they are written. Parts of clusters are written by both,
        and no cluster is taken from elsewhere for it."""
        for how, more in (("metadata", ""), ("falloc", ""), ("full", ""),
                          ("falloc", "extended_l2=on"), ("metadata", "cluster_size=512")):
            with self.subTest(how=how, more=more):
                options = self.options(f"preallocation={how}" + (more and f",{more}"))
                peers.ringdisk("create", *self.objects(), "-f", "qcow2", "-o", options, self.image,
                               SIZE)
                end = self.image.stat().st_size
                self.assertGreater(end, SIZE)
                if how != "metadata":
                    self.assertGreaterEqual(self.image.stat().st_blocks * 512, SIZE)
                self.require_sound()
                self.require_qemu_reads(pattern.Pattern(SIZE, SEED, ()))
                peers.run([peers.need("qemu-io"), *self.objects(), "--image-opts", self.described,
                           "-c", "write -P 5 65000 1000"])
                socket = self.directory / "socket"
                with peers.serve_ringdisk(self.described, socket, "--image-opts",
                                          *self.objects()) as server:
                    peers.run([peers.need("qemu-io"), "-f", "raw", server.uri(), "-c",
                               "write -P 6 1000000 70000"])
                self.assertEqual(self.image.stat().st_size, end)
                self.require_sound()
                content = bytearray(SIZE)
                content[65000:66000] = b"\5" * 1000
                content[1000000:1070000] = b"\6" * 70000
                for program in (peers.ringdisk, peers.qemu_img):
                    program("convert", *self.objects(), "--image-opts", "-O", "raw",
                            self.described, self.copy)
                    self.assertTrue(self.copy.read_bytes() == content, program.__name__)

    def test_over_a_backing_image(self):
        base = self.directory / "base.qcow2"
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", self.raw, base)
        peers.ringdisk("create", *self.objects(), "-f", "qcow2", "-o", self.options(), "-b", base,
                       "-F", "qcow2", self.image)
        self.require_qemu_reads()
        peers.run([peers.need("qemu-io"), *self.objects(), "--image-opts", self.described, "-c",
                   "write -P 5 65000 1000"])
        self.require_sound()
        first = bytearray(self.raw.read_bytes())
        first[65000:66000] = b"\5" * 1000
        self.raw.write_bytes(first)
        peers.ringdisk("convert", *self.objects(), "--image-opts", "-O", "raw", self.described,
                       self.copy)
        peers.require_same(self.raw, self.copy)

    def test_snapshots(self):
        self.ringdisk_makes()
        peers.ringdisk("snapshot", "-c", "ours", self.image)
        other = pattern.sparse(SIZE, SEED + 1)
        changed = self.directory / "changed.raw"
        other.write(changed)
        peers.ringdisk("convert", "-n", *self.objects(), "-f", "raw", "--target-image-opts",
                       changed, self.described)
        peers.qemu_img("snapshot", *self.objects(), "-c", "theirs", "--image-opts", self.described)
        self.require_sound()
        self.require_qemu_reads(words=("-l", "snapshot.name=ours"))
        self.require_we_read(words=("-l", "ours"))
        self.require_we_read(other, words=("-l", "theirs"))
        peers.ringdisk("snapshot", "-a", "ours", self.image)
        self.require_sound()
        self.require_qemu_reads()
        peers.ringdisk("snapshot", "-d", "theirs", self.image)
        self.require_sound()

    def test_key_slots(self):
        self.ringdisk_makes()
        both = ("amend", *self.objects("sec0", "sec1"), "--image-opts", self.described, "-o")
        peers.ringdisk(*both, f"encrypt.state=active,encrypt.new-secret=sec1,encrypt.{QUICK}")
        self.require_qemu_reads(key="sec1")
        peers.qemu_img(*both, "encrypt.state=inactive,encrypt.old-secret=sec1")
        self.assertEqual([slot["active"] for slot in self.specific()["slots"]][:2], [True, False])
        peers.qemu_img(*both, f"encrypt.state=active,encrypt.new-secret=sec1,encrypt.{QUICK}")
        peers.ringdisk(*both, "encrypt.state=inactive,encrypt.old-secret=sec0")
        self.require_sound("sec1")
        self.require_we_read(key="sec1")
        self.require_qemu_reads(key="sec1")
        self.require_refused("last", "amend", "-f", "qcow2", self.image, "-o",
                             "encrypt.state=inactive,encrypt.keyslot=1")

    def test_a_key_slot_is_replaced_and_the_last_one_goes_with_force(self):
        self.ringdisk_makes()
        amend = ("amend", *self.objects("sec0", "sec1"), "--image-opts", self.described, "-o")
        replace = f"encrypt.state=active,encrypt.new-secret=sec1,encrypt.keyslot=0,encrypt.{QUICK}"
        self.require_refused("in use", *amend, replace)
        peers.ringdisk(*amend, replace, "--force")
        self.require_qemu_reads(key="sec1")
        self.require_we_read(key="sec1")
        last = ("amend", "-f", "qcow2", self.image, "-o",
                "encrypt.state=inactive,encrypt.keyslot=0")
        self.require_refused("last", *last)
        peers.ringdisk(*last, "--force")
        self.assertFalse(any(slot["active"] for slot in self.specific()["slots"]))

    def test_served_and_changed(self):
        self.qemu_makes()
        socket = self.directory / "s"
        with peers.Server([peers.ringdisk_path(), "serve", "--nbd", f"unix:{socket}",
                           *self.objects(), "--image-opts", self.described], socket,
                          ready_line="ringdisk: ready") as server:
            peers.nbdcopy(server.uri(), self.copy)
            self.wanted.require(self.copy)
            other = pattern.full(SIZE, SEED + 2)
            other.write(self.copy)
            peers.nbdcopy(self.copy, server.uri())
        self.require_sound()
        self.require_qemu_reads(other)

    def test_another_size(self):
        self.ringdisk_makes()
        peers.ringdisk("resize", *self.objects(), "--image-opts", self.described, "6M")
        self.require_sound()
        larger = pattern.Pattern(6 * MIB, SEED, self.wanted.extents)
        self.require_qemu_reads(larger)

    def test_convert_between_encrypted_images(self):
        luks, again = self.directory / "disk.luks", self.directory / "again.qcow2"
        both = self.objects("sec0", "sec1")
        self.ringdisk_makes()
        peers.ringdisk("convert", *both, "-O", "luks", "-o", f"key-secret=sec1,{QUICK}",
                       "--image-opts", self.described, luks)
        peers.ringdisk("convert", *both, "-O", "qcow2", "-o", self.options(), "--image-opts",
                       f"driver=luks,key-secret=sec1,file.filename={luks}", again)
        self.image = again
        self.described = f"driver=qcow2,encrypt.key-secret=sec0,file.filename={again}"
        self.require_sound()
        self.require_qemu_reads()

    def test_what_is_refused(self):
        make = ("create", *self.objects(), "-q", "-f", "qcow2", self.image, "1M", "-o")
        for more, text in (("compat=0.10,preallocation=metadata", "noise"),
                           ("data_file=x.data", "data_file"), ("encrypt.version=2", "version 1"),
                           ("encrypt.cipher-alg=rot13", "rot13"),
                           ("encrypt.nonsense=1", "nonsense")):
            with self.subTest(more=more):
                self.require_refused(text, *make, self.options(more))
                self.assertFalse(self.image.exists())
        self.require_refused("legacy AES", *make, "encryption=on")
        self.require_refused("legacy AES", *make, "encrypt.format=aes,encrypt.key-secret=sec0")
        self.require_refused("compressed", "convert", "-c", *self.objects(), "-O", "qcow2", "-o",
                             self.options(), self.raw, self.image)
        self.ringdisk_makes()
        self.require_refused("encryption", "amend", "-o", "compat=0.10", self.image)
        self.require_refused("needs a passphrase", "convert", "-O", "raw", self.image, self.copy)
        self.require_refused("key slot", "convert", *self.objects("wrong"), "-O", "raw",
                             "--image-opts", self.described.replace("sec0", "wrong"), self.copy)
        self.assertFalse(self.copy.exists())

    def test_a_file_that_was_cut_short_is_told(self):
        """Whoever made it; QEMU gives noise. It is not written to, and the loss stays told."""
        pattern.full(SIZE, SEED).write(self.raw)
        for maker in (self.qemu_makes, self.ringdisk_makes):
            maker()
            size = self.image.stat().st_size
            with open(self.image, "r+b") as file:
                file.truncate(size - 3 * 65536 - 1000)
            line = self.require_refused("has been cut short", "convert", *self.objects(),
                                        "--image-opts", "-O", "raw", self.described, self.copy)
            self.assertIn(f"run 'ringdisk check {self.image}'", line)
            self.require_refused("it can only be read", "snapshot", "-c", "s", self.image)
            for words in ((), ("-r", "leaks"), ("-r", "all")):
                done = peers.ringdisk("check", *words, self.image, expect=2)
                self.assertIn("data cluster beyond the end of the file", done.stdout + done.stderr)
            peers.ringdisk("convert", "--salvage", *self.objects(), "--image-opts", "-O", "raw",
                           self.described, self.copy)
            salvaged, wanted = self.copy.read_bytes(), self.raw.read_bytes()
            lost = 3 * 65536 + 1024  # whole sectors
            self.assertEqual(salvaged.count(0) - wanted.count(0), lost - wanted[-lost:].count(0))
            self.assertEqual(salvaged[:-lost], wanted[:-lost])
            self.copy.unlink()
            self.image.unlink()

    def test_legacy_aes_is_refused_by_name(self):
        peers.run([peers.need("qemu-img"), "create", *self.objects(), "-f", "qcow2", "-o",
                   "encrypt.format=aes,encrypt.key-secret=sec0", self.image, "1M"])
        self.require_refused("legacy AES", "convert", "-O", "raw", self.image, self.copy)
        self.assertIn("format: aes", peers.ringdisk("info", self.image).stdout)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io", "nbdcopy"])
