# SPDX-License-Identifier: Apache-2.0
"""`ringdisk serve` as a service: where it listens, how it says that it is ready, how it stops, also
with a client that does not take its replies, and that one thread serves as well as many."""
import contextlib
import os
import signal
import socket
import struct
import time

import pattern
import peers

SIZE = 16 << 20


def export_name_handshake(client, name=b""):
    """The oldest way into the transmission phase (NBD_OPT_EXPORT_NAME), on a connected socket."""
    client.recv(18, socket.MSG_WAITALL)
    client.sendall(struct.pack(">I", 3))
    client.sendall(b"IHAVEOPT" + struct.pack(">II", 1, len(name)) + name)
    return struct.unpack(">QH", client.recv(10, socket.MSG_WAITALL))


def read_requests(count, length):
    return b"".join(struct.pack(">IHHQQI", 0x25609513, 0, 0, i, 0, length) for i in range(count))


class ServiceCase(peers.Case):
    """A raw disk of a known pattern, to be served."""

    def setUp(self):
        super().setUp()
        self.disk = pattern.sparse(SIZE, seed=21)
        self.image = self.directory / "disk.raw"
        self.disk.write(self.image)
        self.socket = self.directory / "nbd.sock"

    def serve(self, *arguments, environment=None):
        return peers.serve_ringdisk(self.image, self.socket, "-f", "raw", *arguments,
                                    environment=environment)


def fill(path):
    """Sends to a datagram socket until nothing more goes in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sender.sendto(b"full", str(path))


class Service(ServiceCase):
    """Addresses, exports, readiness, threads."""

    def serve_tcp(self, images, *arguments):
        """On a free port of 127.0.0.1; gives the server and the NBD URI without an export."""
        server = peers.Server([peers.ringdisk_path(), "serve", *images, "-f", "raw",
                               "--nbd", "tcp:127.0.0.1:0", *arguments],
                              ready_line="ringdisk: ready on tcp:127.0.0.1:")
        port = int(server.log().split("ready on tcp:127.0.0.1:")[1].split()[0])
        return server, f"nbd://127.0.0.1:{port}/"

    def test_tcp_on_a_free_port_with_several_exports(self):
        other = pattern.full(1 << 20, seed=22)
        other.write(self.directory / "other.raw")
        server, uri = self.serve_tcp([self.image, self.directory / "other.raw"],
                                     "--name", "one", "--name", "two", "--read-only")
        with server:
            listed = peers.nbdinfo(uri, "--list")["exports"]
            self.assertEqual({export["export-name"]: export["export-size"] for export in listed},
                             {"one": SIZE, "two": 1 << 20})
            self.assertTrue(all(export["is_read_only"] for export in listed))
            peers.nbdcopy(uri + "one", self.directory / "one.copy", "--connections=4")
            peers.nbdcopy(uri + "two", self.directory / "two.copy")
            refused = peers.nbdsh(uri + "two", "h.set_strict_mode(0)",
                                  "try:\n h.zero(512, 0)\nexcept nbd.Error as e:\n print(e.errno)")
            self.assertEqual(refused.stdout.strip(), "EPERM")
        self.disk.require(self.directory / "one.copy")
        other.require(self.directory / "two.copy")

    def test_an_image_that_may_not_be_written_is_told_of_at_the_start(self):
        image = self.directory / "damaged.qcow2"
        peers.qemu_img("convert", "-f", "raw", "-O", "qcow2", self.image, image)
        with open(image, "r+b") as file:
            file.seek(48)
            table, = struct.unpack(">Q", file.read(8))
            file.seek(table + 8)
            file.write(struct.pack(">Q", 123))  # a refcount block at no cluster
        before = image.read_bytes()
        refused = peers.run([peers.ringdisk_path(), "serve", image, "--nbd", f"unix:{self.socket}"],
                            expect=1)
        self.assertNotIn("ready", refused.stdout)
        self.assertIn("damaged.qcow2", refused.stderr)
        self.assertFalse(self.socket.exists())
        self.assertEqual(image.read_bytes(), before)
        with peers.serve_ringdisk(image, self.socket, "--read-only") as server:
            peers.nbdcopy(server.uri(), self.directory / "copy.raw")
        peers.require_same(self.image, self.directory / "copy.raw")

    def test_exports_are_called_by_their_files_where_no_name_is_given(self):
        (self.directory / "other.raw").write_bytes(bytes(4096))
        server, uri = self.serve_tcp([self.image, self.directory / "other.raw"])
        with server:
            listed = peers.nbdinfo(uri, "--list")["exports"]
        self.assertEqual([export["export-name"] for export in listed], ["disk.raw", "other.raw"])

    def test_any_number_of_exports_is_listed(self):
        names = [f"export{i}" for i in range(200)]
        with peers.serve_ringdisk([self.image] * 200, self.socket, "-f", "raw", "--read-only",
                                  *(f"--name={name}" for name in names)) as server:
            listed = peers.nbdinfo(server.uri(), "--list")["exports"]
        self.assertEqual([export["export-name"] for export in listed], names)

    def test_several_addresses_are_served_and_named(self):
        server = peers.Server([peers.ringdisk_path(), "serve", self.image, "-f", "raw",
                               "--nbd", f"unix:{self.socket}", "--nbd", "tcp:127.0.0.1:0"],
                              self.socket, ready_line="ringdisk: ready on tcp:")
        with server:
            self.assertIn(f"ringdisk: ready on unix:{self.socket}\n", server.log())
            self.assertEqual(peers.nbdinfo(server.uri())["exports"][0]["export-size"], SIZE)

    def test_the_pid_file_is_there_when_it_is_ready_and_gone_afterwards(self):
        pid_file = self.directory / "pid"
        with self.serve("--pid-file", pid_file) as server:
            self.assertEqual(pid_file.read_text(), f"{server.pid}\n")
        self.assertFalse(pid_file.exists())
        absent = self.directory / "absent" / "pid"
        done = peers.ringdisk("serve", self.image, "-f", "raw", "--nbd", f"unix:{self.socket}",
                              "--pid-file", absent, expect=1)
        self.assertEqual(done.stderr, f"ringdisk: cannot write pid file '{absent}': "
                                      "No such file or directory\n")

    def test_the_service_manager_is_told(self):
        path = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            manager.settimeout(10)
            with self.serve(environment={"NOTIFY_SOCKET": str(path)}):
                self.assertEqual(manager.recv(100), b"READY=1")
            self.assertEqual(manager.recv(100), b"STOPPING=1")
        # A manager that is not there is a warning.
        with self.serve(environment={"NOTIFY_SOCKET": str(path)}) as server:
            self.assertIn("the service manager was not told READY=1", server.log())

    def test_the_service_manager_hears_of_a_stop_before_it_was_told_that_all_is_ready(self):
        path = self.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(path))
            manager.settimeout(10)
            fill(path)  # so READY=1 waits, and the stop comes meanwhile
            server = self.serve(environment={"NOTIFY_SOCKET": str(path)})
            self.addCleanup(server.kill)
            os.kill(server.pid, signal.SIGTERM)
            time.sleep(0.2)
            heard = []
            while not heard or heard[-1] != b"STOPPING=1":
                heard.append(manager.recv(100))
            self.assertEqual(heard[-2], b"READY=1")

    def test_any_number_of_threads_serves(self):
        for threads in (1, 2, 5):
            with self.serve("--threads", str(threads)) as server:
                tasks = len(os.listdir(f"/proc/{server.pid}/task"))
                self.assertGreaterEqual(tasks, threads)
                target = self.directory / f"copy{threads}"
                peers.nbdcopy(server.uri(), target, "--connections=4")
            self.disk.require(target)

    def test_a_stop_finishes_what_was_acknowledged(self):
        with self.serve() as server:
            other = pattern.full(SIZE, seed=23)
            other.write(self.directory / "other.raw")
            peers.nbdcopy(self.directory / "other.raw", server.uri(), "--connections=4")
        other.require(self.image)
        self.assertFalse(self.socket.exists())


class Stalled(ServiceCase):
    """A client that asks for much and takes nothing."""

    def stall(self):
        client = self.enterContext(socket.socket(socket.AF_UNIX))
        client.connect(str(self.socket))
        self.assertEqual(export_name_handshake(client)[0], SIZE)
        client.sendall(read_requests(64, 1 << 20))
        return client

    def wait_for_line(self, server, words):
        limit = time.monotonic() + 5
        while words not in server.log():
            self.assertLess(time.monotonic(), limit, server.log())
            self.assertTrue(server.running(), server.log())
            time.sleep(0.01)

    def test_idle_clients_are_closed_at_once(self):
        with self.serve() as server:
            with socket.socket(socket.AF_UNIX) as idle, socket.socket(socket.AF_UNIX) as silent:
                idle.connect(str(self.socket))
                export_name_handshake(idle)
                silent.connect(str(self.socket))
                began = time.monotonic()
                server.stop()
                self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(server.log(), f"ringdisk: ready on unix:{self.socket}\n")

    def test_a_second_signal_ends_the_wait_that_was_spoken_of(self):
        server = self.serve()
        with server:
            self.stall()
            os.kill(server.pid, signal.SIGTERM)
            self.wait_for_line(server, "ringdisk: stopping: 1 client has requests under way")
            self.assertIn("cut off after 10 seconds, or at once at a second signal", server.log())
            time.sleep(0.5)
            self.assertTrue(server.running(), "it does not wait")
            began = time.monotonic()
            server.stop()  # the second signal; status 0 is expected
            self.assertLess(time.monotonic() - began, 3)
        self.assertEqual(len(server.log().splitlines()), 2, server.log())

    def test_without_one_the_client_is_cut_off_and_the_server_ends(self):
        with self.serve() as server:
            self.stall()
            began = time.monotonic()
            server.stop()
            self.assertGreater(time.monotonic() - began, 8)
        self.assertIn("did not take its last replies in time", server.log())

    def test_clients_that_send_garbage_are_a_few_lines(self):
        with self.serve() as server:
            for _ in range(400):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(self.socket))
                    client.sendall(b"x" * 100)
                    while client.recv(100):
                        pass
            self.assertEqual(peers.nbdinfo(server.uri())["exports"][0]["export-size"], SIZE)
        lines = server.log().splitlines()[1:]
        dropped = [line for line in lines if "dropped" in line]
        left_out = [int(line.split()[1]) for line in lines if "more lines about clients" in line]
        self.assertEqual(len(dropped) + sum(left_out), 400, server.log())
        self.assertLess(len(lines), 200)


if __name__ == "__main__":
    peers.main(needs=["nbdinfo", "nbdcopy", "nbdsh", "qemu-img"])
