#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tests' own tools: patterns notice misplaced data, servers start and stop by process id.

Needs neither ringdisk nor any peer but libcrypto."""
import os
import re
import signal
import sys
import unittest

import luks_matrix
import luks_reference
import pattern
import peers


class PatternTest(peers.Case):
    """Patterns are reproducible, and name the block that is wrong."""

    def setUp(self):
        super().setUp()
        self.path = self.directory / "disk.raw"

    def test_a_file_as_written_is_the_pattern(self):
        for seed in range(1, 20):
            made = pattern.sparse(1 << 20, seed, fill=0.1 * (1 + seed % 9))
            made.write(self.path)
            made.require(self.path)

    def test_the_same_seed_gives_the_same_pattern_and_another_seed_another(self):
        self.assertEqual(pattern.sparse(1 << 20, 5), pattern.sparse(1 << 20, 5))
        self.assertNotEqual(pattern.sparse(1 << 20, 5).extents, pattern.sparse(1 << 20, 6).extents)

    def test_about_the_asked_share_is_data(self):
        for fill in (0.1, 0.5, 0.9):
            made = pattern.sparse(64 << 20, 3, fill=fill)
            data = sum(end - begin for begin, end in made.extents) * pattern.BLOCK_BYTES
            self.assertAlmostEqual(data / made.size_bytes, fill, delta=0.1)

    def test_contents_agree_with_blocks_across_any_range(self):
        made = pattern.sparse(1 << 18, 4, extent_blocks_max=8)
        blocks = made.size_bytes // pattern.BLOCK_BYTES
        one_by_one = [made.block(index) for index in range(blocks)]
        for begin in range(0, blocks, 7):
            end = min(blocks, begin + 45)
            self.assertEqual(made.contents(begin, end), b"".join(one_by_one[begin:end]))

    def test_all_blocks_of_one_disk_differ(self):
        content = pattern.full(1 << 20, 1).contents(0, 2048)
        self.assertEqual(len({content[i:i + 512] for i in range(0, len(content), 512)}), 2048)

    def test_a_block_in_the_wrong_place_is_named(self):
        made = pattern.full(1 << 16, 9)
        made.write(self.path)
        with open(self.path, "r+b") as file:
            file.seek(10 * 512)
            file.write(made.block(12))
        with self.assertRaisesRegex(AssertionError, "block 10 holds block 12 of seed 9 instead"):
            made.require(self.path)

    def test_a_torn_block_and_a_short_file_are_named(self):
        made = pattern.full(1 << 16, 9)
        made.write(self.path)
        with open(self.path, "r+b") as file:
            file.seek(3 * 512 + 511)
            file.write(b"!")
        with self.assertRaisesRegex(AssertionError, "block 3 holds no block's content"):
            made.require(self.path)
        os.truncate(self.path, 1024)
        with self.assertRaisesRegex(AssertionError, "1024 bytes instead of 65536"):
            made.require(self.path)


class FileTest(peers.Case):
    """Files are compared to the last byte."""

    def test_the_first_different_byte_is_found(self):
        one, other = self.directory / "one", self.directory / "other"
        content = bytearray(os.urandom((3 << 20) + 5))
        one.write_bytes(content)
        other.write_bytes(content)
        self.assertIsNone(peers.first_difference(one, other))
        content[-1] ^= 1
        other.write_bytes(content)
        self.assertEqual(peers.first_difference(one, other), len(content) - 1)
        other.write_bytes(content[:-3])
        self.assertEqual(peers.first_difference(one, other), len(content) - 3)


class ServerTest(peers.Case):
    """Servers are waited for, and their failures show what they said."""

    def python(self, code):
        """The command line of a small server."""
        return [sys.executable, "-c", code]

    def test_a_server_is_ready_at_its_line_and_ends_at_sigterm(self):
        code = ("import signal, time; signal.signal(15, lambda *_: exit(0));"
                "print('ready: now', flush=True); time.sleep(60)")
        with peers.Server(self.python(code), ready_line="ready") as server:
            self.assertTrue(server.running())
            self.assertEqual(server.log(), "ready: now\n")
        self.assertFalse(server.running())

    def test_a_server_that_fails_says_why(self):
        with self.assertRaisesRegex(peers.PeerFailed, "(?s)status 3 before it was ready.*no disk"):
            peers.Server(self.python("print('no disk'); exit(3)"), ready_line="ready")

    def test_a_server_that_dies_at_work_is_noticed(self):
        code = "import time; print('ready', flush=True); time.sleep(60)"
        with self.assertRaisesRegex(peers.PeerFailed, "had ended by itself, status -9"):
            with peers.Server(self.python(code), ready_line="ready") as server:
                os.kill(server.pid, signal.SIGKILL)
                os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)

    def test_a_program_that_fails_shows_its_words(self):
        with self.assertRaisesRegex(peers.PeerFailed, "(?s)exit status 2, expected 0.*because"):
            peers.run(self.python("print('because'); exit(2)"))


class LuksToolsTest(unittest.TestCase):
    """The second opinion on encrypted bytes, and the loop over all kinds of volumes."""

    def test_xts_is_that_of_ieee_1619(self):
        # The standard's second vector.
        arguments = ("aes-xts-plain64", b"\x11" * 16 + b"\x22" * 16, 512, 0x3333333333)
        cipher = bytes.fromhex("c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0")
        self.assertEqual(luks_reference.apply_cipher(*arguments, b"\x44" * 32, True), cipher)
        self.assertEqual(luks_reference.apply_cipher(*arguments, cipher, False), b"\x44" * 32)

    def test_sectors_are_numbered_by_512_bytes_whatever_their_size(self):
        key, content = bytes(range(64)), bytes(range(256)) * 32
        whole = luks_reference.apply_cipher("aes-xts-plain64", key, 4096, 0, content, True)
        second = luks_reference.apply_cipher("aes-xts-plain64", key, 4096, 8, content[4096:], True)
        self.assertEqual(whole[4096:], second)
        small = luks_reference.apply_cipher("aes-xts-plain64", key, 512, 0, content, True)
        self.assertNotEqual(small[:4096], whole[:4096])

    def test_plain_ivs_wrap_at_32_bits_and_plain64_do_not(self):
        for iv, wraps in (("plain", True), ("plain64", False)):
            one, other = (luks_reference.apply_cipher(f"aes-cbc-{iv}", bytes(32), 512, first,
                                                      bytes(512), True) for first in (1, 1 + 2**32))
            self.assertEqual(one == other, wraps)

    def test_every_kind_that_fails_is_counted_and_named(self):
        kinds = luks_matrix.kinds_of(1)

        def check(kind):
            if kind is kinds[1]:
                raise ValueError("because")
        what = rf"1 of {len(kinds)} .*\n.*{re.escape(str(kinds[1]))}: because"
        with self.assertRaisesRegex(AssertionError, what):
            luks_matrix.for_each(kinds, check)


if __name__ == "__main__":
    unittest.main(verbosity=2)
