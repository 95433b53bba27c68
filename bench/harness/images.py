# SPDX-License-Identifier: Apache-2.0
"""The images that are measured: incompressible data, as raw and as qcow2, and copies of them.

The two sources are made when first wanted, kept in tmpfs, and only ever read; a measurement that
writes works on a copy and removes it.
"""
import contextlib
import os
import random
import shutil

import peers
from harness.world import MIB

SEED = 20190801


def raw_source(world):
    """A raw file of incompressible data in tmpfs, the same bytes in every run."""
    path = world.ram / "source.raw"
    if not path.exists():
        world.log(f"making {world.settings.image_bytes // MIB} MiB of incompressible data")
        chance = random.Random(SEED)
        with open(path, "wb") as file:
            for _ in range(world.settings.image_bytes // MIB):
                file.write(chance.randbytes(MIB))
    return path


def qcow2_source(world):
    """The same disk as qcow2 with QEMU's default options, made by qemu-img, in tmpfs."""
    path = world.ram / "source.qcow2"
    if not path.exists():
        peers.run([world.path("qemu-img"), "convert", "-f", "raw", "-O", "qcow2",
                   raw_source(world), path])
    return path


def source(world, image_format):
    """The source image of a format, "raw" or "qcow2"."""
    return {"raw": raw_source, "qcow2": qcow2_source}[image_format](world)


@contextlib.contextmanager
def copy_of(original, directory, name):
    """A copy of an image in a directory, in the page cache and durable; removed at the end."""
    path = directory / name
    try:
        shutil.copyfile(original, path)
        write_back(path)
        yield path
    finally:
        path.unlink(missing_ok=True)


def write_back(path):
    """Writes a file's dirty pages to its disk, so that the next run does not pay for them."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def touch_free_memory(world):
    """Fills as much free memory as an image takes, and frees it: what is made next meets pages that
    the machine has at hand, whoever makes it."""
    path = world.ram / "touched"
    try:
        with open(path, "wb") as file:
            for _ in range(world.settings.image_bytes // MIB):
                file.write(bytes(MIB))
    finally:
        path.unlink(missing_ok=True)


def require_same_disk(world, image, image_format):
    """Raises PeerFailed unless an image's content is that of the source."""
    peers.run([world.path("qemu-img"), "compare", "-f", "raw", "-F", image_format,
               raw_source(world), image])
