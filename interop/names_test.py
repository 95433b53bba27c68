#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How images are named and described on the command line and in one another: what qemu-img takes,
ringdisk takes, and means the same by it."""
import json

import peers


class Names(peers.Case):
    """Small images under many names."""

    def refused(self, *arguments, says=()):
        """One line on standard error, with these words."""
        first = peers.ringdisk(*arguments, expect=1).stderr.splitlines()[0]
        for words in says:
            self.assertIn(words, first)

    def test_words_of_any_node_are_what_they_are_to_qemu_img(self):
        disk, top = self.directory / "disk.qcow2", self.directory / "top.qcow2"
        peers.ringdisk("create", "-q", "-f", "qcow2", disk, "1M")
        peers.ringdisk("create", "-q", "-f", "qcow2", "-b", disk.name, "-F", "qcow2", top)
        # As libvirt writes them.
        words = ("node-name=f,read-only=off,cache.direct=off,cache.no-flush=off,file.node-name=s,"
                 "file.aio=threads,file.auto-read-only=on,file.discard=unmap,cache-size=8M,"
                 "refcount-cache-size=1M,l2-cache-entry-size=4096,cache-clean-interval=600")
        below = ",backing.node-name=b,backing.read-only=on,backing.file.auto-read-only=on"
        described = f"driver=qcow2,file.driver=file,file.filename={top}"
        for command in ("info", "map", "check", "resize"):
            size = ("2M",) if command == "resize" else ()
            for program in (peers.ringdisk, peers.qemu_img):
                opens_chain = command in ("map", "resize")
                program(command, "--image-opts",
                        f"{described},{words}{below if opens_chain else ''}", *size)
                for word in ("read-only=on", "file.read-only=on", "force-share=on"):
                    with self.subTest(command=command, word=word, program=program.__name__):
                        program(command, "--image-opts", f"{described},{word}", *size,
                                expect=1 if size else 0)
        inside = f"driver=qcow2,cache.direct=off,file.driver=raw,file.file.filename={top}"
        for program in (peers.ringdisk, peers.qemu_img):
            program("map", "--image-opts", f"{inside},file.node-name=w,file.file.node-name=f,"
                    "file.file.read-only=on")
        self.refused("resize", "--image-opts", f"{described},read-only=on", "3M",
                     says=["top.qcow2", "read-only=on"])
        for word in ("read-only=perhaps", "file.aio=fast", "cache-size=much",
                     "backing.read-only=perhaps"):
            name, value = word.split("=")
            for command in ("info", "map"):
                self.refused(command, "--image-opts", f"{described},{word}",
                             says=[name.split(".")[-1], value])

    def test_a_backing_file_may_be_named_by_its_protocol(self):
        base, top = self.directory / "base.qcow2", self.directory / "top.qcow2"
        peers.ringdisk("create", "-q", "-f", "qcow2", base, "1M")
        peers.qemu_io(base, ["write -P 7 0 64k"])
        for maker in (peers.ringdisk, peers.qemu_img):
            maker("create", "-q", "-f", "qcow2", "-b", f"file:{base}", "-F", "qcow2", top)
            infos = [json.loads(program("info", "--output=json", top).stdout)
                     for program in (peers.ringdisk, peers.qemu_img)]
            for key in ("backing-filename", "full-backing-filename"):
                self.assertEqual(infos[0][key], infos[1][key])
            peers.ringdisk("convert", "-O", "raw", top, self.directory / "copy.raw")
            self.assertEqual((self.directory / "copy.raw").read_bytes()[:1], b"\x07")
        # Each program would look for it where it is started.
        self.refused("create", "-f", "qcow2", "-b", "file:base.qcow2", "-F", "qcow2", top,
                     says=["file:base.qcow2", "whole path"])
        self.refused("rebase", "-b", f"file:{top}", "-F", "qcow2", top, says=["own backing"])
        # What only others can open is recorded where nobody is to look, from any directory.
        for name in ("nbd://localhost:1/x", "https://host/x.qcow2"):
            for program in (peers.ringdisk, peers.qemu_img):
                for image in (top, top.name):
                    program("create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", image,
                            "1M", cwd=self.directory)
                    program("rebase", "-u", "-b", name, "-F", "raw", image, cwd=self.directory)
                    info = json.loads(peers.ringdisk("info", "--output=json", top).stdout)
                    self.assertEqual(info["full-backing-filename"], name)
            self.refused("create", "-f", "qcow2", "-b", name, "-F", "raw", top, "1M",
                         says=["not supported"])
            self.refused("map", top, says=["not a local file name"])


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io"])
