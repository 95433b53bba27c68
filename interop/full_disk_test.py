# SPDX-License-Identifier: Apache-2.0
"""A disk that is full under an image being served: the writes that do not fit fail with ENOSPC, the
others, a flush and the image stay right. Needs root for a small file system of its own."""
import json
import os
import subprocess
import sys

import peers

MIB = 1 << 20
PIECE = 64 << 10


class FullDisk(peers.Case):
    def setUp(self):
        super().setUp()
        self.mount = self.directory / "small"
        self.mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", self.mount], check=True)
        self.addCleanup(subprocess.run, ["umount", self.mount], check=True)

    def write_scattered(self, client, count):
        """One piece to every 16 MiB, so that many tables are needed; gives those that fitted."""
        fitted, refused = {}, set()
        for i in range(count):
            at = i * 16 * MIB
            content = bytes([i + 1]) * PIECE
            try:
                client.pwrite(content, at)
                fitted[at] = content
            except peers.nbd_module().Error as error:
                refused.add(error.errno)
        return fitted, refused

    def test_what_was_acknowledged_stays_and_the_image_checks_clean(self):
        nbd = peers.nbd_module()
        image = self.mount / "disk.qcow2"
        socket_path = self.directory / "disk.sock"
        peers.ringdisk("create", "-q", "-f", "qcow2", image, "2G")
        with peers.serve_ringdisk(image, socket_path):
            client = nbd.NBD()
            client.connect_unix(str(socket_path))
            fitted, refused = self.write_scattered(client, 120)
            client.flush()
            client.shutdown()
        self.assertGreater(len(fitted), 20)
        self.assertEqual(refused, {"ENOSPC"})
        peers.ringdisk("check", image)
        peers.qemu_img("check", image)
        with peers.serve_ringdisk(image, socket_path, "--read-only"):
            client = nbd.NBD()
            client.connect_unix(str(socket_path))
            for at, content in fitted.items():
                self.assertEqual(client.pread(PIECE, at), content, at)
            client.shutdown()

    def test_a_resize_that_finds_no_space_says_so_and_leaves_the_size(self):
        for image_format in ("raw", "qcow2"):
            for mode in ("falloc", "full"):
                with self.subTest(image_format=image_format, mode=mode):
                    image = self.mount / "disk"
                    peers.ringdisk("create", "-q", "-f", image_format, image, "1M")
                    done = peers.ringdisk("resize", "-f", image_format, f"--preallocation={mode}",
                                          image, "64M", expect=1)
                    self.assertIn("No space left on device", done.stderr)
                    info = peers.ringdisk("info", "-f", image_format, "--output=json", image)
                    self.assertEqual(json.loads(info.stdout)["virtual-size"], MIB)
                    peers.qemu_img("check" if image_format == "qcow2" else "info", "-f",
                                   image_format, image)
                    image.unlink()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("skipped: mounting a small file system needs root")
        sys.exit(peers.EXIT_SKIPPED)
    peers.main(needs=["nbd", "qemu-img"])
