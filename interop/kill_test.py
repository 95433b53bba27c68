#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a real server in the middle of writes, zeroes, discards and flushes from libnbd: after
each the image has leaks at the most, every flushed byte is there, and no block holds what was never
written to it.

The model keeps for each 512-byte block what it may hold:

    certain   what the last flush that has ended covers: a set, since a discard leaves two choices
    since     the changes that were asked for after that, in order; any prefix may have happened

RINGDISK_KILLS=N kills N times (100), RINGDISK_SEED=N draws other requests."""
import dataclasses
import os
import random
import threading
import time

import peers

BLOCK = 512
BLOCKS = 8192
DEPTH = 8
ZEROS = bytes(BLOCK)
KILLS = int(os.environ.get("RINGDISK_KILLS", "100"))
SEED = int(os.environ.get("RINGDISK_SEED", "1"))
DISCARD = None


def changed(contents, change):
    """What a block may hold after a change that was made to one of `contents`."""
    return contents | {ZEROS} if change is DISCARD else {change}


class Model:
    """What each block may hold."""

    def __init__(self):
        self.certain = [{ZEROS} for _ in range(BLOCKS)]
        self.since = [[] for _ in range(BLOCKS)]
        self.done = [0] * BLOCKS  # of `since`; a block has one request in flight at the most

    def begin(self, block, change):
        """A change was asked for."""
        self.since[block].append(change)

    def end(self, block):
        """It was acknowledged."""
        self.done[block] += 1

    def covered(self):
        """What a flush that is asked for now covers."""
        return [(block, count) for block, count in enumerate(self.done) if count]

    def flushed(self, covered):
        """That flush has ended."""
        for block, count in covered:
            for change in self.since[block][:count]:
                self.certain[block] = changed(self.certain[block], change)
            del self.since[block][:count]
            self.done[block] -= count

    def may_hold(self, block):
        """All that the block may hold after a crash."""
        contents = now = set(self.certain[block])
        for change in self.since[block]:
            now = changed(now, change)
            contents = contents | now
        return contents

    def settle(self, block, content):
        """The block was found to hold this after a crash, and nothing is in flight any more."""
        self.certain[block], self.since[block], self.done[block] = {content}, [], 0


class Client:
    """Random requests, DEPTH in flight, until the connection breaks."""

    def __init__(self, nbd, uri, model, chance):
        self.nbd, self.model, self.chance = nbd, model, chance
        self.handle = nbd.NBD()
        self.handle.connect_uri(uri)
        self.in_flight = {}  # cookie: (blocks, what a flush covers)
        self.busy = set()
        self.requests = 0

    def run(self):
        """Gives the number of requests that were acknowledged."""
        try:
            while True:
                self.start_one()
                while len(self.in_flight) >= DEPTH:
                    self.handle.poll(-1)
                    self.reap()
        except self.nbd.Error:
            return self.requests

    def start_one(self):
        """A flush now and then, else a change of a few blocks that nothing else is changing."""
        if self.chance.random() < 0.05 and not any(c for _, c in self.in_flight.values()):
            covered = self.model.covered()
            self.in_flight[self.handle.aio_flush()] = ((), covered)
            return
        first = self.chance.randrange(BLOCKS)
        blocks = range(first, min(BLOCKS, first + self.chance.randint(1, 150)))
        if self.busy.intersection(blocks):
            return
        offset, length = first * BLOCK, len(blocks) * BLOCK
        what = self.chance.random()
        if what < 0.8:
            contents = [self.chance.randbytes(16) * (BLOCK // 16) for _ in blocks]
        else:
            contents = [ZEROS if what < 0.9 else DISCARD for _ in blocks]
        for block, content in zip(blocks, contents):
            self.model.begin(block, content)
        if what < 0.8:
            buffer = self.nbd.Buffer.from_bytearray(bytearray(b"".join(contents)))
            cookie = self.handle.aio_pwrite(buffer, offset)
        elif what < 0.9:
            cookie = self.handle.aio_zero(length, offset)
        else:
            cookie = self.handle.aio_trim(length, offset)
        self.busy.update(blocks)
        self.in_flight[cookie] = (blocks, None)

    def reap(self):
        """Takes note of what has ended."""
        for cookie in list(self.in_flight):
            if not self.handle.aio_command_completed(cookie):
                continue
            blocks, covered = self.in_flight.pop(cookie)
            self.requests += 1
            for block in blocks:
                self.model.end(block)
            self.busy.difference_update(blocks)
            if covered is not None:
                self.model.flushed(covered)


@dataclasses.dataclass(frozen=True)
class Kind:
    """What image is killed."""
    options: str = ""

    @property
    def is_lazy(self):
        """Its refcounts may be stale after a kill."""
        return "lazy_refcounts" in self.options


KINDS = (Kind(), Kind("cluster_size=4k"), Kind("cluster_size=512,refcount_bits=1"),
         Kind("lazy_refcounts=on,cluster_size=4k"), Kind("data_file=disk.data"),
         Kind("data_file=disk.raw,data_file_raw=on,cluster_size=4k"))


class KillTest(peers.Case):
    """One image that lives through all the kills of a test."""

    def setUp(self):
        super().setUp()
        # Where data files lie.
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.directory)
        self.dirty_kills = 0

    def check(self, image):
        """ringdisk check, as soon as the kernel has let go of the dead server's files: it takes an
        io_uring apart after the process has ended, and its locks with it."""
        limit = time.monotonic() + 10
        while True:
            done = peers.ringdisk("check", "-q", image, expect=None)
            if "in use by another program" not in done.stderr or time.monotonic() > limit:
                return done
            time.sleep(0.005)

    def count_anew(self, image):
        """Lazy refcounts are stale on the disk where the dirty bit says so, and only there; a
        repair or the next open for writing puts them right."""
        with open(image, "rb") as file:
            is_dirty = (file.read(80)[79] & 1) != 0
        if is_dirty:
            self.dirty_kills += 1
            command = ("compact",) if self.dirty_kills % 2 else ("check", "-r", "all")
            peers.ringdisk(*command, "-q", image)
            self.assertEqual(self.check(image).returncode, 0)
        return is_dirty

    def require_model(self, image, model, kind):
        """Leaks at the most, and every block holds one of the things that it may hold."""
        done = self.check(image)
        if not (kind.is_lazy and self.count_anew(image)):
            self.assertIn(done.returncode, (0, 3), done.stdout + done.stderr)
        raw = self.directory / "after.raw"
        peers.qemu_img("convert", "-f", "qcow2", "-O", "raw", image, raw)
        content = raw.read_bytes()
        for block in range(BLOCKS):
            found = content[block * BLOCK:(block + 1) * BLOCK]
            if found not in model.may_hold(block):
                self.fail(f"block {block} holds {found[:16].hex()}..., which it may not")
            model.settle(block, found)

    def kill_again_and_again(self, kills, kind):
        """Gives the number of requests that were acknowledged in all."""
        nbd = peers.nbd_module()
        chance = random.Random(SEED)
        image = self.directory / "disk.qcow2"
        options = ["-o", kind.options] if kind.options else []
        peers.ringdisk("create", "-q", "-f", "qcow2", *options, image, str(BLOCKS * BLOCK))
        model = Model()
        self.dirty_kills = 0
        requests = 0
        for _ in range(kills):
            server = peers.serve_ringdisk(image, self.directory / "nbd.sock", "-f", "qcow2")
            client = Client(nbd, server.uri(), model, chance)
            killer = threading.Timer(chance.uniform(0.005, 0.15), server.kill)
            killer.start()
            requests += client.run()
            killer.join()
            self.require_model(image, model, kind)
        if kind.is_lazy:
            self.assertGreater(self.dirty_kills, 0, "no kill met a dirty image")
        return requests

    def test_what_was_written_through_needs_no_flush(self):
        nbd = peers.nbd_module()
        for mode in ("writethrough", "directsync"):
            with self.subTest(mode=mode):
                image = self.directory / f"{mode}.qcow2"
                peers.ringdisk("create", "-q", "-f", "qcow2", image, "16M")
                server = peers.serve_ringdisk(image, self.directory / "nbd.sock", "-f", "qcow2",
                                              "--cache", mode)
                client = nbd.NBD()
                client.connect_uri(server.uri())
                client.pwrite(b"\5" * 4096, 1 << 20)
                server.kill()
                self.assertEqual(self.check(image).returncode, 0)
                peers.qemu_io(image, ["read -P 5 1M 4k"])

    def test_a_killed_server_leaves_leaks_at_the_most(self):
        for number, kind in enumerate(KINDS):
            with self.subTest(options=kind.options):
                kills = -(-KILLS // len(KINDS))
                self.assertGreater(self.kill_again_and_again(kills, kind), kills)
                (self.directory / "disk.qcow2").rename(self.directory / f"{number}.qcow2")


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "nbd"])
