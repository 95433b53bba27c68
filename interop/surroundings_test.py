# SPDX-License-Identifier: Apache-2.0
"""What whoever starts ringdisk may have left it with: standard streams that are closed or full, a
limit on the size of files, few file descriptors."""
import contextlib
import errno
import os
import resource
import socket
import struct
import subprocess
import time
import unittest

import peers
import serve_test

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

    def connect(self, socket_path, timeout_s=peers.READY_TIMEOUT_S):
        """As far as the transmission phase; BlockingIOError where that takes too long."""
        client = self.enterContext(socket.socket(socket.AF_UNIX))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", timeout_s, 0))
        client.connect(str(socket_path))
        serve_test.export_name_handshake(client)
        return client

    def test_without_memory_clients_get_an_answer_and_the_server_lives_on(self):
        socket_path = self.directory / "nbd.sock"
        try:
            server = peers.Server([peers.ringdisk_path(), "serve", self.image, "--nbd",
                                   f"unix:{socket_path}"], socket_path,
                                  ready_line="ringdisk: ready",
                                  preexec=limit(resource.RLIMIT_AS, 512 * MIB))
        except peers.PeerFailed as failed:
            self.skipTest(f"a build that wants more memory: {failed}")
        reads, length = 15, 4 * MIB
        with server:
            clients = [self.connect(socket_path) for _ in range(20)]
            for client in clients:
                client.sendall(serve_test.read_requests(reads, length))
            errors = [self.take_replies(client, reads, length) for client in clients]
            self.assertEqual(set().union(*errors), {0, errno.ENOMEM})
            clients[0].sendall(serve_test.read_requests(1, length))
            self.assertEqual(self.take_replies(clients[0], 1, length), {0})

    def take_replies(self, client, count, length):
        """The errors of simple replies to reads of an empty disk."""
        errors = set()
        for _ in range(count):
            error = struct.unpack(">IIQ", client.recv(16, socket.MSG_WAITALL))[1]
            errors.add(error)
            if error == 0:
                self.assertEqual(client.recv(length, socket.MSG_WAITALL), bytes(length))
        return errors

    @unittest.skipIf(os.environ.get("RD_VARIANT") == "asan",
                     "a sanitizer needs file descriptors itself: it looks at memory through a pipe")
    def test_without_file_descriptors_idle_clients_give_way_and_the_log_stays_short(self):
        socket_path = self.directory / "nbd.sock"
        server = peers.Server([peers.ringdisk_path(), "serve", self.image, "--nbd",
                               f"unix:{socket_path}"], socket_path, ready_line="ringdisk: ready",
                              preexec=limit(resource.RLIMIT_NOFILE, 40))
        with server:
            idle = []
            for _ in range(60):
                idle.append(self.enterContext(socket.socket(socket.AF_UNIX)))
                idle[-1].connect(str(socket_path))
            settled = [self.connect(socket_path)]
            with contextlib.suppress(BlockingIOError):
                while True:  # until there are descriptors for no more
                    settled.append(self.connect(socket_path, timeout_s=1))
            self.assertGreater(len(settled), 10)
            for client in settled:
                client.sendall(serve_test.read_requests(1, 512))
                self.assertEqual(self.take_replies(client, 1, 512), {0})
            lines = [line for line in server.log().splitlines() if "cannot accept" in line]
            self.assertEqual(len(lines), 1, server.log())
            settled.pop().close()
            self.connect(socket_path)


if __name__ == "__main__":
    peers.main(needs=["nbd", "qemu-img"])
