# SPDX-License-Identifier: Apache-2.0
"""Load over NBD on an empty qcow2 and on a preallocated one: what allocation costs.

A 32 GiB image in tmpfs, so large that random 4 KiB writes of one run nearly all meet a cluster that
is not there yet. "Preallocated" has all its tables (preallocation=metadata) and no data, so that
both pay the same for the file's own memory. Each run gets a new image.
"""
import peers
from harness import fio, images, servers
from harness.contest import Contender, Result, alternate, check_at_least

NAME = "empty-load"
SIZE_BYTES = 32 << 30
WRITES_OF_PREALLOCATED = 0.6
UNITS = {"iops": "requests/s", "server_us": "server CPU us/request"}
# workload, block, what an empty image must reach of a preallocated one (None: shown)
LOADS = (("randwrite", "4k", WRITES_OF_PREALLOCATED), ("randread", "4k", 1), ("randrw", "4k", None),
         ("rw", "512k", None))
KINDS = {"empty": "off", "preallocated": "metadata"}


def measure(world):
    """The four loads of the ublk-qcow2 comparison (Linux block list, 2022-10), one connection."""
    fio.require_nbd_engine(world)
    for workload, block, limit in LOADS:
        yield _contest(world, workload, block, limit)


def _contest(world, workload, block, limit):
    title = f"NBD {block} {workload} depth 64, an empty image against a preallocated one"
    world.log(title)
    image, socket = world.ram / "load.qcow2", world.ram / "load.sock"

    def contender(program, start, kind):
        def prepare():
            image.unlink(missing_ok=True)
            peers.run([world.path("qemu-img"), "create", "-q", "-f", "qcow2", "-o",
                       f"preallocation={KINDS[kind]}", image, SIZE_BYTES])

        def run():
            with start(world, image, socket) as server:
                return fio.random_load(world, server, workload, 1, block=block,
                                       size_bytes=SIZE_BYTES)
        return Contender(f"{program}, {kind}", run, prepare, lambda: peers.qemu_check(image))

    def qemu_nbd(*arguments):
        return servers.qemu_nbd(*arguments, aio="io_uring")

    contenders = [contender(program, start, kind)
                  for program, start in (("ringdisk", servers.ringdisk), ("qemu-nbd", qemu_nbd))
                  for kind in KINDS]
    images.touch_free_memory(world)
    try:
        series = alternate(contenders, world.settings.runs, world.log)
    finally:
        image.unlink(missing_ok=True)
    checks = []
    if limit is not None:
        checks.append(check_at_least(f"{title}: requests/s", series["ringdisk, empty"],
                                     series["ringdisk, preallocated"], "iops", limit))
    for kind in KINDS:
        checks.append(check_at_least(f"{title}: requests/s, {kind}", series[f"ringdisk, {kind}"],
                                     series[f"qemu-nbd, {kind}"], "iops", 1))
    return Result(title, UNITS, list(series.values()), checks)
