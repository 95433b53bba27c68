#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Persistent dirty bitmaps in both directions: those that one program makes, fills, edits, copies
and exports are what the other reads; qemu-img check finds nothing after any step."""
import itertools
import json
import time

import peers

MIB = 1 << 20
SIZE = 8 * MIB
GRANULE = 64 << 10
GEOMETRIES = ({}, {"cluster_size": "4k", "refcount_bits": "8"}, {"cluster_size": "2M"},
              {"cluster_size": "512"})
INCONSISTENT = "inconsistent and cannot be used"


def dirty_extents(uri, bitmap):
    """The dirty ranges of a bitmap that a server exports, as (begin, end), by nbdinfo --map."""
    extents = json.loads(peers.run([peers.need("nbdinfo"), "--json",
                                    f"--map=qemu:dirty-bitmap:{bitmap}", uri]).stdout)
    return merged((one["offset"], one["offset"] + one["length"])
                  for one in extents if one["type"] == 1)


def merged(ranges):
    """Ranges that touch as one."""
    result = []
    for begin, end in sorted(ranges):
        if result and result[-1][1] >= begin:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((begin, end))
    return result


def granules(*ranges, granule=GRANULE):
    """What is dirty after writes of (offset, length)."""
    return merged((at // granule * granule, -(-(at + length) // granule) * granule)
                  for at, length in ranges)


class BitmapTest(peers.Case):
    """An image, and who may look into its bitmaps."""

    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.qcow2"
        self.copy = self.directory / "copy.qcow2"
        self.socket = self.directory / "nbd.sock"
        self.programs = {"ringdisk": peers.ringdisk, "qemu-img": peers.qemu_img}

    def make(self, options=None, size=SIZE):
        chosen = ",".join(f"{key}={value}" for key, value in (options or {}).items())
        peers.qemu_img("create", "-q", "-f", "qcow2", *(["-o", chosen] if chosen else []),
                       self.image, str(size))

    def write(self, program, commands):
        """qemu-io commands on the image, by QEMU or through `ringdisk serve`."""
        if program == "qemu-img":
            peers.qemu_io(self.image, commands)
            return
        with peers.serve_ringdisk(self.image, self.socket, "-f", "qcow2"):
            peers.qemu_io(f"nbd+unix:///?socket={self.socket}", commands, image_format="raw")

    def wait_for_lock(self):
        """The kernel lets go of a killed server's files a moment later."""
        limit = time.monotonic() + 20
        while peers.ringdisk("info", self.image, expect=None).returncode != 0:
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.05)

    def bitmaps(self, image=None):
        """name -> (flags, granularity), which both programs must say alike."""
        def listed(program):
            info = json.loads(program("info", "--output=json", image or self.image).stdout)
            found = info["format-specific"]["data"].get("bitmaps", [])
            return {one["name"]: (one["flags"], one["granularity"]) for one in found}
        ours, theirs = listed(peers.ringdisk), listed(peers.qemu_img)
        self.assertEqual(ours, theirs)
        return ours

    def require(self, wanted, image=None):
        """Bitmaps by name hold those dirty ranges, whoever exports them; the image is sound."""
        image = image or self.image
        peers.qemu_check(image)
        peers.ringdisk("check", "-q", "-f", "qcow2", image)
        uri = f"nbd+unix:///?socket={self.socket}"
        for name, ranges in wanted.items():
            with peers.serve_ringdisk(image, self.socket, "-f", "qcow2", "--read-only",
                                      "--bitmap", name):
                self.assertEqual(dirty_extents(uri, name), ranges, f"{name} by ringdisk")
            with peers.serve_qemu_nbd(image, self.socket, "-r", "-B", name):
                self.assertEqual(dirty_extents(uri, name), ranges, f"{name} by qemu-nbd")

    def test_each_records_reads_and_edits_the_others(self):
        for (maker, other), options in itertools.product(
                (("ringdisk", "qemu-img"), ("qemu-img", "ringdisk"), ("ringdisk", "ringdisk")),
                GEOMETRIES):
            with self.subTest(maker=maker, other=other, **options):
                self.make(options)
                edit = self.programs[maker]
                edit("bitmap", "--add", "-g", "64k", self.image, "b0")
                edit("bitmap", "--add", "--disable", "-g", "4k", self.image, "off")
                self.assertEqual(self.bitmaps(), {"b0": (["auto"], GRANULE), "off": ([], 4096)})
                self.write(other, ["write 100k 10k", "write -z 1M 512k"])
                self.write(maker, ["write 4M 1k", "discard 6M 1M", "write 7M 512"])
                first = granules((100 << 10, 10 << 10), (MIB, MIB // 2), (4 * MIB, 1024),
                                 (7 * MIB, 512))
                seen = self.exported("b0")
                # A discard of less than a cluster may do nothing; QEMU records it all the same.
                allowed = granules((100 << 10, 10 << 10), (MIB, MIB // 2), (4 * MIB, 1024),
                                   (6 * MIB, MIB), (7 * MIB, 512))
                self.assertIn(seen, (first, allowed))
                self.require({"b0": seen, "off": []})
                edit = self.programs[other]
                edit("bitmap", "--merge", "b0", "--enable", self.image, "off")
                edit("bitmap", "--clear", "--disable", self.image, "b0")
                self.assertEqual(self.bitmaps(), {"b0": ([], GRANULE), "off": (["auto"], 4096)})
                self.require({"b0": [], "off": seen})
                self.programs[maker]("bitmap", "--remove", self.image, "b0")
                self.assertEqual(self.bitmaps(), {"off": (["auto"], 4096)})
                self.programs[other]("bitmap", "--remove", self.image, "off")
                self.assertEqual(self.bitmaps(), {})
                peers.qemu_check(self.image)

    def exported(self, name):
        with peers.serve_ringdisk(self.image, self.socket, "-f", "qcow2", "--read-only",
                                  "--bitmap", name):
            seen = dirty_extents(f"nbd+unix:///?socket={self.socket}", name)
        return seen

    def test_several_edits_in_order_and_a_merge_from_another_file(self):
        self.make()
        peers.ringdisk("bitmap", "--add", self.image, "b0")
        self.write("ringdisk", ["write 1M 64k"])
        peers.qemu_img("create", "-q", "-f", "qcow2", self.copy, str(SIZE))
        peers.ringdisk("bitmap", "--add", "--merge", "b0", "-b", self.image, "-F", "qcow2",
                       "--disable", self.copy, "from-elsewhere")
        self.assertEqual(self.bitmaps(self.copy), {"from-elsewhere": ([], GRANULE)})
        self.require({"from-elsewhere": granules((MIB, 64 << 10))}, self.copy)

    def test_errors_read_as_those_of_qemu_img(self):
        self.make()
        peers.ringdisk("bitmap", "--add", self.image, "b0")
        for words in (("--add", "b0"), ("--clear", "none"), ("--remove", "none"),
                      ("--merge", "none", "b0"), ("-g", "64k", "--clear", "b0"), ("b0",),
                      ("--add", "-g", "1", "b1"), ("--add", "-g", "3000", "b1")):
            with self.subTest(words=words):
                arguments = ["bitmap", *words[:-1], self.image, words[-1]]
                theirs = peers.qemu_img(*arguments, expect=1).stderr
                ours = peers.ringdisk(*arguments, expect=1).stderr
                for wording in ("Bitmap already exists: b0", "Dirty bitmap 'none' not found"):
                    self.assertEqual(wording in theirs, wording in ours, ours)

    def test_what_a_kill_leaves_is_inconsistent_for_both(self):
        self.make()
        peers.qemu_img("bitmap", "--add", self.image, "b0")
        with peers.serve_ringdisk(self.image, self.socket, "-f", "qcow2") as server:
            peers.qemu_io(f"nbd+unix:///?socket={self.socket}", ["write 1M 64k", "flush"],
                          image_format="raw")
            server.kill()
        self.wait_for_lock()
        self.assertEqual(self.bitmaps(), {"b0": (["in-use", "auto"], GRANULE)})
        for program in self.programs.values():
            said = program("bitmap", "--clear", self.image, "b0", expect=1).stderr
            self.assertIn(INCONSISTENT, said)
            said = program("convert", "--bitmaps", "-O", "qcow2", self.image, self.copy,
                           expect=1).stderr
            self.assertIn("Cannot copy inconsistent bitmap 'b0'", said)
            program("convert", "--bitmaps", "--skip-broken-bitmaps", "-O", "qcow2", self.image,
                    self.copy)
            self.assertEqual(self.bitmaps(self.copy), {})
            size = peers.qemu_info(self.image)["virtual-size"]
            for words in (("resize", self.image, "+1M"), ("resize", "--shrink", self.image, "-1M")):
                self.assertIn(INCONSISTENT, program(*words, expect=1).stderr)
            self.assertEqual(peers.qemu_info(self.image)["virtual-size"], size)
        peers.ringdisk("check", "-q", "-r", "leaks", self.image, expect=None)
        peers.qemu_check(self.image)
        peers.ringdisk("bitmap", "--remove", self.image, "b0")
        peers.ringdisk("resize", self.image, "+1M")
        peers.qemu_check(self.image)

    def test_convert_carries_them(self):
        self.make()
        for program in self.programs.values():
            program("bitmap", "--add", "-g", "4k", self.image, "b0")
            program("bitmap", "--add", "--disable", self.image, "off")
            self.write("qemu-img", ["write 5M 100k"])
            program("convert", "--bitmaps", "-O", "qcow2", self.image, self.copy)
            self.assertEqual(self.bitmaps(self.copy), self.bitmaps())
            self.require({"b0": granules((5 * MIB, 100 << 10), granule=4096), "off": []},
                         self.copy)
            program("bitmap", "--remove", self.image, "b0")
            program("bitmap", "--remove", self.image, "off")
        raw = self.directory / "disk.raw"
        peers.ringdisk("bitmap", "--add", self.image, "b0")
        said = peers.ringdisk("convert", "--bitmaps", "-O", "raw", self.image, raw, expect=1).stderr
        self.assertIn("does not support bitmaps", said)

    def test_another_size_and_a_snapshot_keep_them_right(self):
        for size in ("20M", "3M"):
            with self.subTest(size=size):
                self.make()
                peers.ringdisk("bitmap", "--add", self.image, "b0")
                self.write("qemu-img", ["write 1M 64k", "write 7M 64k"])
                shrinks = ("--shrink",) if size == "3M" else ()
                peers.ringdisk("resize", "-q", *shrinks, self.image, size)
                wanted = granules((MIB, 64 << 10), *(() if shrinks else ((7 * MIB, 64 << 10),)))
                self.require({"b0": wanted})
                self.write("qemu-img", ["write 2M 64k"])
                self.require({"b0": merged(wanted + granules((2 * MIB, 64 << 10)))})
        self.make()
        self.write("qemu-img", ["write -P 1 0 1M"])
        peers.ringdisk("snapshot", "-c", "early", self.image)
        self.write("qemu-img", ["write -P 2 512k 64k"])
        peers.ringdisk("bitmap", "--add", self.image, "b0")
        peers.ringdisk("snapshot", "-a", "early", self.image)
        self.require({"b0": granules((512 << 10, 64 << 10))})
        peers.ringdisk("snapshot", "-d", "early", self.image)
        self.require({"b0": granules((512 << 10, 64 << 10))})

    def test_an_enabled_one_shows_what_clients_of_a_writable_export_change(self):
        self.make()
        peers.ringdisk("bitmap", "--add", self.image, "b0")
        uri = f"nbd+unix:///?socket={self.socket}"
        with peers.serve_ringdisk(self.image, self.socket, "-f", "qcow2", "--bitmap", "b0"):
            self.assertEqual(dirty_extents(uri, "b0"), [])
            peers.qemu_io(uri, ["write 1M 4k"], image_format="raw")
            self.assertEqual(dirty_extents(uri, "b0"), granules((MIB, 4096)))
        self.require({"b0": granules((MIB, 4096))})

    def test_one_of_an_image_below_is_found_as_qemu_nbd_finds_it(self):
        self.make()
        peers.qemu_img("bitmap", "--add", self.image, "b0")
        self.write("qemu-img", ["write 1M 4k"])
        peers.qemu_img("bitmap", "--disable", self.image, "b0")
        uri = f"nbd+unix:///?socket={self.socket}"
        top = self.directory / "top.qcow2"
        for size in (SIZE, SIZE // 2):
            peers.qemu_img("create", "-q", "-f", "qcow2", "-b", self.image.name, "-F", "qcow2",
                           top, str(size))
            for serve, read_only in ((peers.serve_ringdisk, "--read-only"),
                                     (peers.serve_qemu_nbd, "-r")):
                with serve(top, self.socket, read_only, "-B", "b0"):
                    self.assertEqual(dirty_extents(uri, "b0"), granules((MIB, 4096)))
        peers.qemu_img("create", "-q", "-f", "qcow2", "-b", self.image.name, "-F", "qcow2", top,
                       str(2 * SIZE))
        for name, text in (("b0", "smaller disk"), ("none", "none")):
            done = peers.ringdisk("serve", top, "--nbd", f"unix:{self.socket}", "-B", name,
                                  expect=1)
            self.assertIn(text, done.stderr)

    def test_many_sessions_take_the_space_of_one(self):
        self.make()
        peers.ringdisk("bitmap", "--add", self.image, "b0")
        sizes = []
        for number in range(6):
            self.write("ringdisk", [f"write {number}M 4k", "write 0 4k"])
            sizes.append(self.image.stat().st_size - number * GRANULE)
        self.assertLess(max(sizes[2:]) - sizes[1], 4 * GRANULE, sizes)
        peers.qemu_check(self.image)

    def test_info_reads_like_qemu_img(self):
        self.make()
        peers.ringdisk("bitmap", "--add", self.image, "b0")
        peers.ringdisk("bitmap", "--add", "--disable", "-g", "4k", self.image, "off")
        ours = peers.ringdisk("info", self.image).stdout
        theirs = peers.qemu_img("info", self.image).stdout
        begin = "    bitmaps:\n"
        self.assertEqual(ours[ours.index(begin):ours.index("refcount bits")],
                         theirs[theirs.index(begin):theirs.index("refcount bits")])


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io", "qemu-nbd", "nbdinfo"])
