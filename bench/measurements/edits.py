# SPDX-License-Identifier: Apache-2.0
"""Changes of whole images in tmpfs: rebase, snapshot -d, compact.

rebase: an overlay that holds every fourth cluster goes from one full backing image to another that
differs in every second one. snapshot -d: of an image of 1 TiB that has all its tables
(preallocation=metadata). Both against qemu-img. compact has no peer; it is held against cp of the
bytes that it leaves, since a copy without the holes is what one would make instead: an image full
of single holes, and one whose front half was discarded.
"""
import os
import shutil

import peers
from harness import images, usage
from harness.contest import Contender, Result, alternate, check_at_most
from harness.world import MIB

NAME = "edits"
CLUSTER = 64 << 10
SNAPSHOT_BYTES = 1 << 40
QUICK_SNAPSHOT_BYTES = 256 << 30
UNITS = {"seconds": "s", "cpu_seconds": "CPU s", "memory_mib": "peak MiB"}
COPY_NOTE = "cp copies what compact leaves, to a new file: what a convert would write at least."


def measure(world):
    """All three."""
    yield _rebase(world)
    yield _delete_snapshot(world)
    for name, discards in (("every second cluster", _every_second), ("the front half", _front)):
        yield _compact(world, name, discards)


def _qemu_io(world, image, commands):
    peers.run([world.path("qemu-io"), "-f", "qcow2", image], stdin="\n".join(commands) + "\n",
              timeout_s=600)


def _remove(*paths):
    for path in paths:
        path.unlink(missing_ok=True)


def _rebase(world):
    title = "rebase to a backing image that differs by half"
    world.log(title)
    size = world.settings.image_bytes // 2
    old, new, made, overlay = (world.ram / f"rebase-{name}.qcow2"
                               for name in ("old", "new", "made", "overlay"))
    qemu_img = world.path("qemu-img")

    def prepare():
        shutil.copyfile(made, overlay)

    def verify():
        peers.run([qemu_img, "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", old, made])
        peers.run([qemu_img, "compare", "-f", "qcow2", "-F", "qcow2", made, overlay],
                  timeout_s=600)

    def contender(name):
        argv = [world.path(name), "rebase", "-f", "qcow2", "-F", "qcow2", "-b", new, overlay]
        return Contender(name, lambda: usage.run_measured(argv)[0], prepare, verify)

    try:
        for image, backing in ((old, ()), (made, ("-b", old, "-F", "qcow2"))):
            peers.run([qemu_img, "create", "-q", "-f", "qcow2", *backing, image, size])
        _qemu_io(world, old, [f"write -q -P 17 {at} {min(256 * MIB, size - at)}"
                              for at in range(0, size, 256 * MIB)])
        shutil.copyfile(old, new)
        _qemu_io(world, new, [f"write -q -P 34 {at} {CLUSTER}"
                              for at in range(0, size, 2 * CLUSTER)])
        _qemu_io(world, made, [f"write -q -P 51 {at} {CLUSTER}"
                               for at in range(CLUSTER, size, 4 * CLUSTER)])
        series = alternate([contender("ringdisk"), contender("qemu-img")], world.settings.runs,
                           world.log, warm=True)
    finally:
        _remove(old, new, made, overlay)
    check = check_at_most(f"{title}: wall time", series["ringdisk"], series["qemu-img"], "seconds",
                          1)
    return Result(title, UNITS, list(series.values()), [check])


def _delete_snapshot(world):
    is_quick = world.settings.runs == 1
    size = QUICK_SNAPSHOT_BYTES if is_quick else SNAPSHOT_BYTES
    title = f"snapshot -d of a preallocated {size >> 30} GiB qcow2"
    world.log(title)
    image = world.ram / "snapshot.qcow2"

    def prepare():
        peers.run([world.path("ringdisk"), "snapshot", "-c", "one", image], timeout_s=600)

    def contender(name):
        argv = [world.path(name), "snapshot", "-d", "one", image]
        return Contender(name, lambda: usage.run_measured(argv)[0], prepare)

    try:
        peers.run([world.path("ringdisk"), "create", "-q", "-f", "qcow2", "-o",
                   "preallocation=metadata", image, size], timeout_s=600)
        series = alternate([contender("ringdisk"), contender("qemu-img")], world.settings.runs,
                           world.log, warm=True)
    finally:
        _remove(image)
    check = check_at_most(f"{title}: wall time", series["ringdisk"], series["qemu-img"], "seconds",
                          1)
    return Result(title, UNITS, list(series.values()), [check])


def _every_second(size):
    return [f"discard {at} {CLUSTER}" for at in range(0, size, 2 * CLUSTER)]


def _front(size):
    return [f"discard 0 {size // 2}"]


def _compact(world, name, discards):
    title = f"compact after a discard of {name}"
    world.log(title)
    made, image, copied = (world.ram / f"compact-{part}.qcow2"
                           for part in ("made", "image", "copied"))
    size = world.settings.image_bytes // CLUSTER * CLUSTER

    def prepare():
        _remove(copied)
        # Holes are kept, so that what is discarded takes no space.
        peers.run(["cp", "--sparse=always", made, image])

    def verify():
        peers.run([world.path("qemu-img"), "compare", "-f", "qcow2", "-F", "qcow2", made, image],
                  timeout_s=600)
        shutil.copyfile(image, copied)

    def prepare_copy():
        _remove(world.ram / "compact-copy.qcow2")

    compact = [world.path("ringdisk"), "compact", "-q", image]
    copy = ["cp", "--sparse=never", copied, world.ram / "compact-copy.qcow2"]
    try:
        shutil.copyfile(images.qcow2_source(world), made)
        _qemu_io(world, made, discards(size))
        series = alternate([Contender("ringdisk", lambda: usage.run_measured(compact)[0], prepare,
                                      verify)], world.settings.runs, world.log)
        shutil.copyfile(image, copied)
        series |= alternate([Contender("cp", lambda: usage.run_measured(copy)[0], prepare_copy)],
                            world.settings.runs, world.log)
        left = os.stat(image).st_size / MIB
    finally:
        _remove(made, image, copied, world.ram / "compact-copy.qcow2")
    return Result(title, UNITS, list(series.values()), [], f"{COPY_NOTE} {left:.0f} MiB are left.")
