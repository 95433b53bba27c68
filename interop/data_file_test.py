#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images with an external data file, made by one program and used by the other: what the disk
holds, what a raw data file holds, sizes, what is refused and what is never opened."""
import json
import os

import pattern
import peers

KIB, MIB = 1 << 10, 1 << 20
SIZE = 4 * MIB
SEED = 20241124


class DataFileTest(peers.Case):
    """A raw file with content, and an image whose data file lies beside it."""

    def setUp(self):
        super().setUp()
        # qemu-img takes a data file's name from where it is run, not from where the image lies.
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.raw = self.directory / "disk.raw"
        self.image = self.directory / "disk.qcow2"
        self.data = self.directory / "disk.data"
        self.copy = self.directory / "copy.raw"
        self.wanted = pattern.full(SIZE, SEED)
        self.wanted.write(self.raw)

    def ringdisk_makes(self, *options):
        peers.ringdisk("convert", "-f", "raw", "-O", "qcow2", "-o",
                       ",".join((f"data_file={self.data.name}", *options)), self.raw, self.image)

    def require_same(self):
        peers.qemu_check(self.image)
        peers.ringdisk("check", self.image)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", self.raw, self.image)
        peers.ringdisk("convert", "-O", "raw", self.image, self.copy)
        self.wanted.require(self.copy)

    def specific(self):
        ours = json.loads(peers.ringdisk("info", "--output=json", self.image).stdout)
        theirs = peers.qemu_info(self.image)
        self.assertEqual(ours["format-specific"], theirs["format-specific"])
        text = peers.ringdisk("info", self.image).stdout
        self.assertIn(f"data file: {theirs['format-specific']['data']['data-file']}\n", text)
        return theirs["format-specific"]["data"]

    def test_ours_read_by_qemu(self):
        for options in ((), ("data_file_raw=on",), ("cluster_size=512",), ("extended_l2=on",),
                        ("data_file_raw=on", "cluster_size=2M"), ("lazy_refcounts=on",),
                        ("preallocation=metadata",)):
            with self.subTest(options=options):
                self.ringdisk_makes(*options)
                self.require_same()
                self.assertEqual(self.specific()["data-file"], self.data.name)
                self.assertEqual(self.specific()["data-file-raw"], "data_file_raw=on" in options)
                self.wanted.require(self.data)

    def test_theirs_read_and_written_by_us(self):
        for options in ("", ",data_file_raw=on", ",extended_l2=on", ",cluster_size=4k"):
            with self.subTest(options=options):
                self.image.unlink(missing_ok=True)
                peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o",
                               f"data_file={self.data.name}{options}", self.raw, self.image)
                self.require_same()
                other = pattern.full(SIZE, SEED + 1)
                changed = self.directory / "changed.raw"
                other.write(changed)
                peers.ringdisk("convert", "-n", "-f", "raw", "-O", "qcow2", changed, self.image)
                peers.qemu_check(self.image)
                peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", changed, self.image)
                if "raw" in options:
                    other.require(self.data)

    def test_zeros_are_written_to_a_raw_data_file(self):
        for raw in ("on", "off"):
            with self.subTest(raw=raw):
                self.ringdisk_makes(f"data_file_raw={raw}")
                zeros = self.directory / "zeros.raw"
                zeros.write_bytes(bytes(SIZE))
                peers.ringdisk("convert", "-n", "-f", "raw", "-O", "qcow2", zeros, self.image)
                peers.qemu_check(self.image)
                peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", zeros, self.image)
                if raw == "on":
                    peers.require_same(zeros, self.data)

    def test_sizes_stay_in_step(self):
        for options in ((), ("data_file_raw=on",)):
            with self.subTest(options=options):
                self.ringdisk_makes(*options)
                peers.ringdisk("resize", self.image, "6M")
                self.assertEqual(self.data.stat().st_size, 6 * MIB)
                peers.qemu_check(self.image)
                peers.qemu_io(self.image, ["write -P 5 5M 64k", "read -P 0 4M 1M"])
                peers.ringdisk("resize", "--shrink", self.image, "4M")
                self.assertEqual(self.data.stat().st_size, 4 * MIB)
                self.require_same()
                peers.ringdisk("resize", self.image, "6M")
                peers.qemu_io(self.image, ["read -P 0 4M 2M"])
                if options:
                    self.assertEqual(self.data.read_bytes()[4 * MIB:], bytes(2 * MIB))

    def test_amended(self):
        self.ringdisk_makes("data_file_raw=on")
        peers.ringdisk("amend", "-o", "data_file_raw=on,lazy_refcounts=on", self.image)
        self.assertTrue(self.specific()["data-file-raw"])
        peers.ringdisk("amend", "-o", "data_file_raw=off,refcount_bits=8", self.image)
        self.assertFalse(self.specific()["data-file-raw"])
        self.require_same()
        other = self.directory / "other.data"
        other.write_bytes(self.data.read_bytes())
        peers.ringdisk("amend", "-o", f"data_file={other.name}", self.image)
        self.assertEqual(self.specific()["data-file"], other.name)
        self.data.unlink()
        self.require_same()
        for options in ("data_file_raw=on", "compat=0.10", "data_file=json:x"):
            done = peers.ringdisk("amend", "-o", options, self.image, expect=1)
            self.assertIn(self.image.name, done.stderr)

    def test_a_discard_gives_back_space_of_a_raw_data_file(self):
        self.ringdisk_makes("data_file_raw=on")
        before = os.stat(self.data).st_blocks
        socket = self.directory / "s"
        with peers.Server([peers.ringdisk_path(), "serve", self.image, "--nbd", f"unix:{socket}"],
                          socket, ready_line="ringdisk: ready") as server:
            peers.qemu_io(server.uri(), ["discard 1M 1M", "read -P 0 1M 1M"], image_format="raw")
        self.assertLess(os.stat(self.data).st_blocks, before)
        peers.qemu_check(self.image)
        peers.qemu_img("compare", "-f", "qcow2", "-F", "raw", self.image, self.data)

    def test_over_a_backing_image_committed_and_rebased(self):
        overlay = self.directory / "overlay.qcow2"
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", self.raw, self.image)
        peers.ringdisk("create", "-f", "qcow2", "-o", "data_file=overlay.data", "-b",
                       self.image.name, "-F", "qcow2", overlay)
        peers.qemu_io(overlay, ["write -P 9 1M 100k", "write -z 2M 64k", "discard 3M 128k"])
        peers.qemu_img("convert", "-O", "raw", overlay, self.copy)
        peers.ringdisk("commit", overlay)
        peers.qemu_check(overlay)
        peers.qemu_img("compare", "-f", "raw", self.copy, overlay)
        peers.ringdisk("rebase", "-b", "", overlay)
        peers.qemu_check(overlay)
        peers.qemu_img("compare", "-f", "raw", self.copy, overlay)

    def test_what_is_refused(self):
        cases = (("data_file_raw=on", "needs a data_file"),
                 ("data_file=x,compat=0.10", "compat=1.1"),
                 ("data_file=json:x", "local file"),
                 ("data_file=nbd://host", "local file"),
                 (f"data_file={self.image.name}", self.image.name))
        for options, text in cases:
            with self.subTest(options=options):
                done = peers.ringdisk("create", "-f", "qcow2", "-o", options, self.image, "1M",
                                      expect=1)
                self.assertIn(text, done.stderr)
        done = peers.ringdisk("create", "-f", "qcow2", "-o", "data_file=x,data_file_raw=on", "-b",
                              self.raw.name, "-F", "raw", self.image, expect=1)
        self.assertIn("exclude", done.stderr)
        self.ringdisk_makes()
        done = peers.ringdisk("snapshot", "-c", "one", self.image, expect=1)
        self.assertIn("data file", done.stderr)
        done = peers.ringdisk("convert", "-c", "-f", "raw", "-O", "qcow2", "-n", self.raw,
                              self.image, expect=1)
        self.assertIn("compress", done.stderr)
        self.require_same()

    def test_preallocated_as_asked(self):
        for mode in ("falloc", "full"):
            for raw in ("off", "on"):
                with self.subTest(mode=mode, raw=raw):
                    peers.ringdisk("create", "-q", "-f", "qcow2", "-o",
                                   f"data_file={self.data.name},data_file_raw={raw},"
                                   f"preallocation={mode}", self.image, str(SIZE + 512))
                    status = self.data.stat()
                    self.assertEqual(status.st_size, SIZE + 512)
                    self.assertGreaterEqual(status.st_blocks * 512, SIZE + 512)
                    self.assertLess(self.image.stat().st_size, MIB)
                    peers.qemu_check(self.image)
                    done = json.loads(peers.ringdisk("check", "--output=json", self.image).stdout)
                    self.assertEqual(done["allocated-clusters"], done["total-clusters"])

    def test_a_data_file_that_was_moved_is_recorded_without_the_old_one(self):
        self.ringdisk_makes()
        moved = self.directory / "moved.data"
        self.data.rename(moved)
        peers.ringdisk("amend", "-o", f"data_file={moved.name}", self.image)
        self.require_same()
        peers.ringdisk("amend", "-o", "data_file=not-here-yet", self.image)
        moved.rename(self.directory / "not-here-yet")
        self.require_same()
        before = self.image.read_bytes()
        other = self.directory / "other.qcow2"
        peers.qemu_img("create", "-f", "qcow2", "-o", f"data_file={self.image.name}", other,
                       str(self.image.stat().st_size))
        self.image.write_bytes(before)
        for name, text in ((self.image.name, "its own data file"), (f"./{self.image.name}", "own"),
                           (other.name, "whose data file this one is"), ("nbd://x", "local")):
            with self.subTest(name=name):
                done = peers.ringdisk("amend", "-o", f"data_file={name}", self.image, expect=1)
                self.assertIn(text, done.stderr)
                self.assertEqual(self.image.read_bytes(), before)

    def test_a_raw_one_that_was_cut_is_not_fuller_than_full(self):
        self.ringdisk_makes("data_file_raw=on")
        peers.ringdisk("resize", "--shrink", self.image, "1M")
        done = json.loads(peers.ringdisk("check", "--output=json", self.image).stdout)
        self.assertEqual((done["allocated-clusters"], done["total-clusters"]), (16, 16))

    def rename_data_file(self, name):
        """Writes another name of at most as many bytes over the one in the header."""
        head = bytearray(self.image.read_bytes()[:65536])
        kind = bytes.fromhex("44415441")
        at = head.index(kind)
        length = int.from_bytes(head[at + 4:at + 8], "big")
        self.assertLessEqual(len(name), length)
        head[at + 4:at + 8] = len(name).to_bytes(4, "big")
        head[at + 8:at + 8 + length] = name.encode().ljust(length, b"\0")
        with open(self.image, "r+b") as image:
            image.write(head)

    def test_an_image_opens_no_file_it_may_not(self):
        self.data = self.directory / ("a-name-with-some-room-" + "x" * 60)
        secret = self.directory / "sub" / "secret"
        secret.parent.mkdir()
        secret.write_bytes(bytes(SIZE))
        for name, text in (('json:{"driver":"file","filename":"x"}', "local file"),
                           ("nbd://localhost/x", "local file"), ("/etc/hostname", "--allow-path"),
                           ("absent", "absent"), (self.image.name, "itself")):
            with self.subTest(name=name):
                self.ringdisk_makes()
                self.rename_data_file(name)
                for arguments in (("convert", "-O", "raw", self.image, self.copy),
                                  ("resize", self.image, "8M")):
                    done = peers.ringdisk(*arguments, expect=1)
                    self.assertIn(text, done.stderr)
                # What only describes opens nothing.
                peers.ringdisk("info", self.image)
                peers.ringdisk("check", self.image)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
