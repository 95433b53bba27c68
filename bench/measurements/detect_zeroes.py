# SPDX-License-Identifier: Apache-2.0
"""Writes over NBD of which every second 64 KiB are zeros, with detect-zeroes=unmap and without.

nbdcopy writes them all (no extents asked for, no zeros looked for). Shown beside the time: what the
image takes of its storage afterwards. The images are new, so memory is touched before each run
(convert.py has why).
"""
import functools
import random

import peers
from harness import images, servers, usage
from harness.contest import Contender, Result, alternate, check_at_most, least
from harness.world import MIB

NAME = "detect-zeroes"
GRAIN = 64 << 10
SEED = 20241130
UNITS = {"seconds": "s", "server_cpu_seconds": "server CPU s", "image_mib": "image MiB"}


def measure(world):
    """Off, then unmap."""
    source = world.ram / "half-zero.raw"
    try:
        _make(world, source)
        for mode in ("off", "unmap"):
            yield _contest(world, source, mode)
    finally:
        source.unlink(missing_ok=True)


def _make(world, source):
    chance = random.Random(SEED)
    with open(source, "wb") as file:
        for _ in range(world.settings.image_bytes // (2 * GRAIN)):
            file.write(chance.randbytes(GRAIN))
            file.write(bytes(GRAIN))


def _contest(world, source, mode):
    title = f"nbdcopy of half zeros, detect-zeroes={mode}"
    world.log(title)
    socket, image = world.ram / "nbd.sock", world.ram / "detect.qcow2"
    detection = ("--discard=unmap", f"--detect-zeroes={mode}")

    def prepare():
        image.unlink(missing_ok=True)
        images.touch_free_memory(world)
        peers.run([world.path("qemu-img"), "create", "-q", "-f", "qcow2", image,
                   source.stat().st_size])

    def contender(name, start):
        def run():
            with start() as server:
                before = usage.cpu_seconds_of(server.pid)
                sample, _ = usage.run_measured([world.path("nbdcopy"), "--no-extents", "--sparse=0",
                                                "--flush", source, server.uri()])
                used = usage.cpu_seconds_of(server.pid) - before
            return {"seconds": sample["seconds"], "server_cpu_seconds": used,
                    "image_mib": image.stat().st_blocks * 512 / MIB}

        def verify():
            peers.run([world.path("qemu-img"), "compare", "-f", "raw", "-F", "qcow2", source,
                       image], timeout_s=600)
        return Contender(name, run, prepare, verify)

    def qemu(aio):
        return functools.partial(servers.qemu_nbd, world, image, socket, aio, *detection)

    try:
        series = alternate([
            contender("ringdisk", lambda: servers.ringdisk(world, image, socket, *detection)),
            contender("qemu-nbd io_uring", qemu("io_uring")),
            contender("qemu-nbd threads", qemu("threads")),
        ], world.settings.runs, world.log)
    finally:
        image.unlink(missing_ok=True)
    best = least([series["qemu-nbd io_uring"], series["qemu-nbd threads"]], "seconds")
    checks = [check_at_most(f"{title}: {what}", series["ringdisk"], best, metric, 1)
              for what, metric in (("wall time", "seconds"), ("image", "image_mib"))]
    return Result(title, UNITS, list(series.values()), checks)
