# SPDX-License-Identifier: Apache-2.0
"""What whoever starts ringdisk may have left it with: standard streams that are closed or full, a
limit on the size of files, few file descriptors."""
import contextlib
import os
import resource
import subprocess
import time

import peers

MIB = 1 << 20


def close_input_and_errors():
    os.close(0)
    os.close(2)


def limit(what, value):
    return lambda: resource.setrlimit(what, (value, value))


class Surroundings(peers.Case):
    def setUp(self):
        super().setUp()
        self.image = self.directory / "disk.qcow2"
        peers.ringdisk("create", "-q", "-f", "qcow2", self.image, "64M")

    def run_with(self, stdout, *words):
        with open(stdout, "wb") as output:
            return subprocess.run([peers.ringdisk_path(), *map(str, words)], stdout=output,
                                  stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                  check=False, timeout=peers.RUN_TIMEOUT_S)

    def test_an_output_that_cannot_be_written_is_a_failure_that_is_said(self):
        for words in (("--help",), ("help", "serve"), ("version",), ("info", self.image),
                      ("map", "--output=json", self.image), ("check", self.image)):
            with self.subTest(words=words):
                done = self.run_with("/dev/full", *words)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(done.stderr, "ringdisk: write to standard output: "
                                              "No space left on device\n")

    def test_an_output_that_is_closed_is_one_too(self):
        done = subprocess.run([peers.ringdisk_path(), "info", str(self.image)],
                              stderr=subprocess.PIPE, text=True, check=False,
                              preexec_fn=lambda: os.close(1), timeout=peers.RUN_TIMEOUT_S)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr, "ringdisk: write to standard output: Bad file descriptor\n")

    def test_a_passphrase_is_not_read_from_what_took_the_place_of_a_closed_input(self):
        done = subprocess.run([peers.ringdisk_path(), "info", "--key-file", "-", str(self.image)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              check=False, preexec_fn=lambda: os.close(0),
                              timeout=peers.RUN_TIMEOUT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("Bad file descriptor", done.stderr)

    def open_files(self, process):
        """Number and name of what a process has open, once its image is."""
        until = time.monotonic() + peers.READY_TIMEOUT_S
        opened = {}
        while str(self.image) not in opened.values():
            self.assertLess(time.monotonic(), until)
            opened = {}
            for number in os.listdir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    opened[int(number)] = os.readlink(f"/proc/{process.pid}/fd/{number}")
        return opened

    def test_no_file_takes_the_number_of_a_closed_stream(self):
        process = subprocess.Popen([peers.ringdisk_path(), "bench", "-c", "2000000000",
                                    str(self.image)], stdout=subprocess.DEVNULL,
                                   preexec_fn=close_input_and_errors)
        try:
            opened = self.open_files(process)
        finally:
            process.kill()
            process.wait()
        self.assertEqual([opened[0], opened[2]], ["/dev/null", "/dev/null"])

    def test_a_file_may_not_grow_and_the_server_lives_on(self):
        nbd = peers.nbd_module()
        socket_path = self.directory / "nbd.sock"
        server = peers.Server([peers.ringdisk_path(), "serve", self.image, "--nbd",
                               f"unix:{socket_path}"], socket_path, ready_line="ringdisk: ready",
                              preexec=limit(resource.RLIMIT_FSIZE, 2 * MIB))
        fitted = set()
        with server:
            client = nbd.NBD()
            client.connect_unix(str(socket_path))
            for at in range(0, 64 * MIB, MIB):
                try:
                    client.pwrite(b"x" * 65536, at)
                    fitted.add(at)
                except nbd.Error as error:
                    self.assertEqual(error.errno, "ENOSPC")
            self.assertTrue(0 < len(fitted) < 64, fitted)
            for at in range(0, 64 * MIB, MIB):
                expected = b"x" if at in fitted else bytes(1)
                self.assertEqual(client.pread(65536, at), expected * 65536)
            client.shutdown()
        peers.qemu_check(self.image)

    def test_commands_that_reach_the_limit_say_so(self):
        source, target = self.directory / "source.raw", self.directory / "target.qcow2"
        source.write_bytes(os.urandom(4 * MIB))
        done = subprocess.run([peers.ringdisk_path(), "convert", "-f", "raw", "-O", "qcow2",
                               str(source), str(target)], stderr=subprocess.PIPE, text=True,
                              check=False, preexec_fn=limit(resource.RLIMIT_FSIZE, MIB),
                              timeout=peers.RUN_TIMEOUT_S)
        self.assertEqual(done.returncode, 1)
        self.assertIn("File too large", done.stderr)
        self.assertFalse(target.exists())


if __name__ == "__main__":
    peers.main(needs=["nbd", "qemu-img"])
