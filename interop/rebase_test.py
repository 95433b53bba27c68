#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Overlays over another backing image: what the disk shows stays, as qemu-img sees it; the name
alone; nothing below; what is refused; an interruption."""
import json
import os
import signal
import subprocess
import time

import pattern
import peers

KIB, MIB = 1 << 10, 1 << 20
SIZE = 8 * MIB
SEED = 20241123


class RebaseTest(peers.Case):
    """An overlay over one image, and another image beside that."""

    def setUp(self):
        super().setUp()
        self.base = self.directory / "base.qcow2"
        self.other = self.directory / "other.qcow2"
        self.overlay = self.directory / "overlay.qcow2"
        self.shown = self.directory / "shown.raw"
        raw = self.directory / "base.raw"
        pattern.full(SIZE, SEED).write(raw)
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, self.base)
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, self.other)
        peers.qemu_io(self.other, ["write -P 3 1M 700k", "write -z 5M 1M", "discard 6M 256k"])
        peers.qemu_io(self.base, ["write -z 2M 300k"])
        raw.unlink()

    def make(self, *options, base=None, base_format="qcow2", size=SIZE):
        backing = ("-b", base.name, "-F", base_format) if base else ()
        peers.qemu_img("create", "-f", "qcow2", *options, *backing, self.overlay, str(size))
        peers.qemu_io(self.overlay, ["write -P 7 100k 50k", "write -z 3M 130k",
                                     "write -P 9 5000k 1k"])
        peers.qemu_img("convert", "-O", "raw", self.overlay, self.shown)

    def require_same(self):
        peers.qemu_check(self.overlay)
        peers.ringdisk("check", self.overlay)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", self.shown, self.overlay)

    def backing(self):
        info = peers.qemu_info(self.overlay)
        return info.get("backing-filename"), info.get("backing-filename-format")

    def test_what_the_disk_shows_stays(self):
        for options in ((), ("-o", "cluster_size=512"), ("-o", "cluster_size=2M"),
                        ("-o", "compat=0.10"), ("-o", "extended_l2=on"),
                        ("-o", "extended_l2=on,cluster_size=1M")):
            for size in (SIZE, 5 * MIB + 512, 12 * MIB):
                with self.subTest(options=options, size=size):
                    self.make(*options, base=self.base, size=size)
                    peers.ringdisk("rebase", "-p", "-b", self.other.name, "-F", "qcow2",
                                   self.overlay)
                    self.assertEqual(self.backing(), (self.other.name, "qcow2"))
                    self.require_same()
                    peers.ringdisk("rebase", "-b", "", self.overlay)
                    self.assertEqual(self.backing(), (None, None))
                    self.base.rename(self.directory / "away")
                    self.require_same()
                    (self.directory / "away").rename(self.base)

    def test_an_image_without_one_gets_one(self):
        for options in ((), ("-o", "compat=0.10")):
            with self.subTest(options=options):
                self.make(*options)
                peers.ringdisk("rebase", "-b", self.base.name, "-F", "qcow2", self.overlay)
                self.assertEqual(self.backing(), (self.base.name, "qcow2"))
                self.require_same()

    def test_as_qemu_img_does_it(self):
        self.make(base=self.base)
        twin = self.directory / "twin.qcow2"
        twin.write_bytes(self.overlay.read_bytes())
        peers.ringdisk("rebase", "-b", self.other.name, "-F", "qcow2", self.overlay)
        peers.qemu_img("rebase", "-b", self.other.name, "-F", "qcow2", twin)
        peers.qemu_img("compare", self.overlay, twin)
        self.assertEqual(peers.qemu_info(twin)["backing-filename"], self.other.name)
        self.assertLessEqual(os.stat(self.overlay).st_size, os.stat(twin).st_size + MIB)

    def test_what_is_copied_is_compressed(self):
        for options in ((), ("-o", "cluster_size=4k"), ("-o", "extended_l2=on"),
                        ("-o", "compat=0.10"), ("-o", "compression_type=zstd")):
            with self.subTest(options=options):
                self.make(*options, base=self.base)
                peers.ringdisk("rebase", "-c", "-b", "", self.overlay)
                self.assertEqual(self.backing(), (None, None))
                self.require_same()
                done = json.loads(peers.qemu_img("check", "--output=json", self.overlay).stdout)
                self.assertGreater(done.get("compressed-clusters", 0), 0)
        self.overlay.unlink()
        peers.ringdisk("create", "-q", "-f", "qcow2", "-o", "data_file=disk.data", "-b",
                       self.base.name, "-F", "qcow2", self.overlay)
        done = peers.ringdisk("rebase", "-c", "-b", "", self.overlay, expect=1)
        self.assertIn("compress", done.stderr)
        self.assertEqual(self.backing(), (self.base.name, "qcow2"))

    def test_the_overlay_stays_locked_until_it_has_its_new_name(self):
        """Everything that rebase opens for writing it opens once."""
        self.make(base=self.base)
        trace = self.directory / "trace"
        peers.run([peers.need("strace"), "-f", "-e", "trace=openat,close", "-o", trace,
                   peers.ringdisk_path(), "rebase", "-b", self.other.name, "-F", "qcow2",
                   self.overlay])
        opened = [line for line in trace.read_text().splitlines()
                  if self.overlay.name in line and "O_RDWR" in line]
        self.assertEqual(len(opened), 1, opened)
        self.require_same()

    def test_what_is_the_same_is_not_copied(self):
        self.make(base=self.base)
        middle = self.directory / "middle.qcow2"
        peers.qemu_img("create", "-f", "qcow2", "-b", self.base.name, "-F", "qcow2", middle)
        before = os.stat(self.overlay).st_size
        peers.ringdisk("rebase", "-b", middle.name, "-F", "qcow2", self.overlay)
        self.require_same()
        self.assertEqual(os.stat(self.overlay).st_size, before)

    def test_the_name_alone(self):
        self.make(base=self.base)
        moved = self.directory / "moved.qcow2"
        self.base.rename(moved)
        peers.ringdisk("rebase", "-u", "-b", moved.name, "-F", "qcow2", self.overlay)
        self.require_same()
        peers.ringdisk("rebase", "-u", "-b", "nowhere.raw", "-F", "raw", self.overlay)
        self.assertEqual(self.backing()[0], "nowhere.raw")
        peers.ringdisk("rebase", "-u", "-b", "disk.vmdk", "-F", "vmdk", self.overlay)
        self.assertEqual(self.backing(), ("disk.vmdk", "vmdk"))  # others can read that
        peers.ringdisk("rebase", "-u", "-b", "", self.overlay)
        self.assertEqual(self.backing(), (None, None))

    def test_unknown_extensions_stay(self):
        self.make(base=self.base)
        head = bytearray(self.overlay.read_bytes())
        length = int.from_bytes(head[100:104], "big")
        at = int.from_bytes(head[8:16], "big")
        name = bytes(head[at:at + int.from_bytes(head[16:20], "big")])
        kind, content = bytes.fromhex("5a5a1234"), b"what nobody knows!!"
        extension = kind + len(content).to_bytes(4, "big") + content + bytes(5)
        rest = bytes(head[length:at])
        head[length:at + len(name)] = extension + rest + name
        del head[65536:65536 + len(extension)]
        head[8:16] = (at + len(extension)).to_bytes(8, "big")
        self.overlay.write_bytes(bytes(head))
        peers.qemu_check(self.overlay)
        peers.ringdisk("rebase", "-b", self.other.name, "-F", "qcow2", self.overlay)
        self.require_same()
        self.assertIn(kind + len(content).to_bytes(4, "big") + content,
                      self.overlay.read_bytes()[:65536])

    def test_a_raw_data_file_leaves_nothing_to_a_backing_image(self):
        peers.ringdisk("create", "-q", "-f", "qcow2", "-o", "data_file=disk.raw,data_file_raw=on",
                       self.overlay, str(SIZE))
        for options in ((), ("-u",)):
            done = peers.ringdisk("rebase", *options, "-b", self.other.name, "-F", "qcow2",
                                  self.overlay, expect=1)
            self.assertIn("data_file_raw", done.stderr)
        self.assertEqual(self.backing(), (None, None))

    def test_refusals(self):
        self.make(base=self.base)
        before = self.overlay.read_bytes()
        elsewhere = self.directory / "sub"
        elsewhere.mkdir()
        peers.qemu_img("create", "-f", "qcow2", "-b", f"../{self.overlay.name}", "-F", "qcow2",
                       elsewhere / "above.qcow2")
        cases = ((("-b", self.other.name), "needs a format"),
                 ((), "-b"),
                 (("-b", "absent.qcow2", "-F", "qcow2"), "absent.qcow2"),
                 (("-b", self.overlay.name, "-F", "qcow2"), "own backing"),
                 (("-u", "-b", self.overlay.name, "-F", "qcow2"), "own backing"),
                 (("-b", "sub/above.qcow2", "-F", "qcow2", "--allow-path", self.directory),
                  "own backing"),
                 (("-b", "json:{}", "-F", "qcow2"), "json"),
                 (("-u", "-b", self.other.name, "-F", "garbage"), "no image format 'garbage'"),
                 (("-b", "/etc/hostname", "-F", "raw"), "--allow-path"))
        for arguments, text in cases:
            with self.subTest(arguments=arguments):
                done = peers.ringdisk("rebase", *arguments, self.overlay, expect=1)
                self.assertIn(text, done.stderr)
                self.assertEqual(self.overlay.read_bytes(), before)
        peers.qemu_img("snapshot", "-c", "one", self.overlay)
        done = peers.ringdisk("rebase", "-b", self.other.name, "-F", "qcow2", self.overlay,
                              expect=1)
        self.assertIn("snapshots", done.stderr)

    def test_an_interrupted_rebase_keeps_the_old_image(self):
        big = 1024 * MIB
        raw = self.directory / "big.raw"
        subprocess.run(["dd", "if=/dev/urandom", f"of={raw}", "bs=1M", "count=256", "status=none"],
                       check=True)
        os.truncate(raw, big)
        peers.qemu_img("create", "-f", "qcow2", "-b", raw.name, "-F", "raw", self.overlay)
        process = subprocess.Popen([peers.ringdisk_path(), "rebase", "-b", "", self.overlay],
                                   stderr=subprocess.PIPE, text=True)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        if process.returncode == 0:
            self.skipTest("the machine was faster than the signal")
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        self.assertIn("keeps its backing image", said)
        self.assertEqual(self.backing(), (raw.name, "raw"))
        peers.qemu_check(self.overlay)
        peers.qemu_img("compare", "-f", "raw", "-F", "qcow2", raw, self.overlay)


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
