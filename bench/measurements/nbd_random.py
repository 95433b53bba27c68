# SPDX-License-Identifier: Apache-2.0
"""4 KiB random requests over NBD, depth 64, one and two connections, on a fully allocated qcow2.

fio and the server share the machine's cores. ringdisk and qemu-nbd serve the same qcow2, the
probe serves a raw file with the same data: no format, no checks, the machine's limit. All use the
page cache, in tmpfs and on a disk whose file is cached. qemu-nbd counts at the better of
--aio=io_uring and threads.
"""
import functools
import itertools

from harness import fio, images, servers
from harness.contest import (Contender, Result, alternate, check_at_least, check_at_most, most)

NAME = "nbd-random"
OF_PROBE = 0.85
OF_QEMU = 2.0
CPU_OF_QEMU = 0.5
UNITS = {"iops": "requests/s", "server_us": "server CPU us/request"}


def measure(world):
    """Reads and writes, one and two jobs, in tmpfs and in the page cache of a disk."""
    fio.require_nbd_engine(world)
    for directory, place in ((world.ram, "in tmpfs"), (world.disk, "in a disk's page cache")):
        with (images.copy_of(images.qcow2_source(world), directory, "random.qcow2") as qcow2,
              images.copy_of(images.raw_source(world), directory, "random.raw") as raw):
            for workload, jobs in itertools.product(("randread", "randwrite"), (1, 2)):
                yield _contest(world, qcow2, raw, place, workload, jobs)


def _contest(world, qcow2, raw, place, workload, jobs):
    title = f"NBD 4k {workload} depth 64, {jobs} job{'s' if jobs > 1 else ''}, {place}"
    world.log(title)
    socket = world.ram / "nbd.sock"

    def contender(name, image, start):
        def run():
            with start(world, image, socket) as server:
                return fio.random_load(world, server, workload, jobs)
        return Contender(name, run, lambda: images.write_back(image))

    contenders = [
        contender("ringdisk", qcow2, servers.ringdisk),
        contender("qemu-nbd io_uring", qcow2, functools.partial(servers.qemu_nbd, aio="io_uring")),
        contender("qemu-nbd threads", qcow2, functools.partial(servers.qemu_nbd, aio="threads")),
        contender("C probe, raw", raw, servers.probe),
    ]
    series = alternate(contenders, world.settings.runs, world.log)
    ours, probe = series["ringdisk"], series["C probe, raw"]
    qemu = most([series["qemu-nbd io_uring"], series["qemu-nbd threads"]], "iops")
    checks = [
        check_at_least(f"{title}: requests/s", ours, probe, "iops", OF_PROBE),
        check_at_least(f"{title}: requests/s", ours, qemu, "iops", OF_QEMU),
        check_at_most(f"{title}: server CPU", ours, qemu, "server_us", CPU_OF_QEMU),
    ]
    return Result(title, UNITS, list(series.values()), checks)
