# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in the middle of every command that may take long: it ends at once with the status a shell
expects (128 plus the signal), says so in one line, says what of its work is there, and leaves no
half image behind."""
import os
import pathlib
import signal
import struct
import subprocess
import time

import luks_volumes
import peers

MIB = 1 << 20
TIMEOUT_S = 30


class Interrupted(peers.Case):
    def start(self, *arguments):
        return subprocess.Popen([peers.ringdisk_path(), *map(str, arguments)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)

    def interrupt(self, process, sent=signal.SIGINT):
        """What it says (both streams, from now on) once it has been interrupted as it should."""
        self.assertIsNone(process.poll(), "it ended too soon to be interrupted")
        process.send_signal(sent)
        output, errors = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 128 + sent, errors.decode())
        self.assertEqual(len(errors.decode().splitlines()), 1, errors.decode())
        return output.decode(), errors.decode()

    def wait_for_blocks(self, path, process):
        """Until `path` has begun to be written."""
        limit = time.monotonic() + TIMEOUT_S
        while not path.exists() or path.stat().st_blocks == 0:
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.005)

    def test_bench_says_how_far_it_came(self):
        disk = self.directory / "disk.raw"
        disk.write_bytes(os.urandom(MIB))
        process = self.start("bench", "-f", "raw", "-c", "2000000000", disk)
        self.assertTrue(process.stdout.readline().startswith(b"Sending 2000000000 read"))
        time.sleep(0.05)
        output, errors = self.interrupt(process)
        self.assertRegex(output, r"Run interrupted after \d+\.\d{3} seconds and [1-9]\d* of "
                                 r"2000000000 requests\.")
        self.assertIn("bench was interrupted", errors)

    def test_map_says_that_its_list_is_not_complete(self):
        disk = self.directory / "disk.raw"
        with open(disk, "wb") as file:
            for i in range(20000):  # more text than a pipe holds
                file.seek(i * 8192)
                file.write(b"x" * 4096)
        process = self.start("map", "--output=json", "-f", "raw", disk)
        self.assertEqual(process.stdout.read(1), b"[")
        output, errors = self.interrupt(process)
        self.assertIn("map was interrupted: the list ends too early", errors)
        self.assertFalse(output.rstrip().endswith("]"), "it looks complete")

    def test_check_says_that_it_did_not_come_to_its_end(self):
        disk = self.directory / "disk.qcow2"
        peers.ringdisk("create", "-q", "-f", "qcow2", "-o",
                       "cluster_size=512,preallocation=metadata", disk, "2G")
        process = self.start("check", "--progress=json", disk)
        self.assertIn(b"progress", process.stdout.readline())
        _, errors = self.interrupt(process)
        self.assertIn("check was interrupted", errors)

    def endless_image(self):
        """32 TiB in which every second cluster is data, of which there is one: all L1 entries name
        the same table. To look at all of it takes a minute."""
        disk = self.directory / "endless.qcow2"
        peers.ringdisk("create", "-q", "-f", "qcow2", disk, "32T")
        with open(disk, "r+b") as file:
            file.seek(36)
            entries, l1_at = struct.unpack(">IQ", file.read(12))
            table_at = (os.path.getsize(disk) + 65535) // 65536 * 65536
            file.seek(table_at)
            file.write(struct.pack(">QQ", table_at + 65536, 0) * 4096 + os.urandom(65536))
            file.seek(l1_at)
            file.write(struct.pack(">Q", table_at) * entries)
        return disk

    def wait_until_it_listens(self, process):
        """Until the process has blocked signals, for whoever waits for them."""
        limit = time.monotonic() + TIMEOUT_S
        listens = False
        while not listens:
            with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                blocked = next(line for line in status if line.startswith("SigBlk:"))
            listens = int(blocked.split()[1], 16) >> (signal.SIGINT - 1) & 1
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), limit)

    def test_measure_says_nothing_of_a_size(self):
        process = self.start("measure", "-O", "qcow2", self.endless_image())
        self.wait_until_it_listens(process)
        time.sleep(0.1)
        output, errors = self.interrupt(process)
        self.assertIn("measure was interrupted", errors)
        self.assertEqual(output, "")

    def test_create_leaves_no_half_image(self):
        disk = self.directory / "disk.raw"
        process = self.start("create", "-q", "-f", "raw", "-o", "preallocation=full", disk, "200G")
        self.wait_for_blocks(disk, process)
        _, errors = self.interrupt(process, signal.SIGTERM)
        self.assertIn("create was interrupted", errors)
        self.assertFalse(disk.exists())

    def test_convert_over_a_target_that_was_there_says_what_it_is_now(self):
        source, target = self.directory / "source.raw", self.directory / "target.raw"
        for path in (source, target):
            with open(path, "wb") as file:
                file.truncate(1 << 40)
        process = self.start("convert", "-n", "-S", "0", "-f", "raw", "-O", "raw", source, target)
        self.wait_for_blocks(target, process)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=TIMEOUT_S)[1].decode()
        self.assertEqual(process.returncode, 128 + signal.SIGINT)
        self.assertIn("target.raw: holds only a part of the source", errors)
        self.assertIn("convert was interrupted", errors)

    # Minutes of a derivation that no library can stop; the memory tells that it has begun.
    COSTLY_KIB, COSTLY_PASSES = 200_000, 2000

    def wait_for_memory(self, process):
        limit = time.monotonic() + TIMEOUT_S
        pages = self.COSTLY_KIB * 1024 // os.sysconf("SC_PAGE_SIZE") // 2
        while int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1]) < pages:
            self.assertIsNone(process.poll())
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.01)

    def make_volume(self):
        volume, key = self.directory / "disk.luks", self.directory / "key"
        key.write_bytes(b"a passphrase")
        with open(volume, "wb") as file:
            file.truncate(20 * MIB)
        peers.ringdisk("luks", "format", "--key-file", key, "--pbkdf-memory", "32",
                       "--pbkdf-force-iterations", "4", volume)
        return volume, key

    def test_no_key_derivation_is_waited_for_and_no_header_changes(self):
        volume, key = self.make_volume()
        before = volume.read_bytes()
        header = self.directory / "header.luks"
        costly = ("--key-file", key, "--pbkdf-memory", str(self.COSTLY_KIB),
                  "--pbkdf-force-iterations", str(self.COSTLY_PASSES), volume)
        new = ("--new-key-file", key)
        for words in (("add-key", *new), ("change-key", *new), ("format", "--force"),
                      ("format", "--header", header)):
            with self.subTest(words=words):
                process = self.start("luks", *words, *costly)
                self.wait_for_memory(process)
                _, errors = self.interrupt(process)
                self.assertIn("luks was interrupted", errors)
                self.assertEqual(volume.read_bytes(), before)
                self.assertFalse(header.exists())

    def test_an_open_that_derives_a_key_ends_and_leaves_no_target(self):
        volume, key = self.make_volume()
        luks_volumes.change_metadata(volume, lambda metadata: metadata["keyslots"]["0"]["kdf"]
                                     .update(memory=self.COSTLY_KIB, time=self.COSTLY_PASSES))
        target = self.directory / "target.raw"
        process = self.start("convert", "--kdf-work-max=1T", "--key-file", key, "-f", "luks", "-O",
                             "raw", volume, target)
        self.wait_for_memory(process)
        _, errors = self.interrupt(process, signal.SIGTERM)
        self.assertIn("convert was interrupted", errors)
        self.assertFalse(target.exists())

    def test_a_reader_that_goes_away_ends_map_quietly(self):
        disk = self.directory / "disk.raw"
        with open(disk, "wb") as file:
            for i in range(20000):
                file.seek(i * 8192)
                file.write(b"x" * 4096)
        process = self.start("map", "-f", "raw", disk)
        process.stdout.read(1)
        process.stdout.close()
        process.stdout = None
        errors = process.communicate(timeout=TIMEOUT_S)[1]
        self.assertEqual((process.returncode, errors), (-signal.SIGPIPE, b""))


if __name__ == "__main__":
    peers.main()
