# SPDX-License-Identifier: Apache-2.0
"""4 KiB random reads over NBD of an image whose L2 tables are larger than the cache for them.

64 GiB in 4 KiB clusters have 128 MiB of L2 tables; every program may keep 8 MiB of them. The image
has tables and no data (preallocation=metadata), in tmpfs, so that what is measured is finding.
Two connections; ringdisk with one thread and with two.
"""
import peers
from harness import fio, servers
from harness.contest import Contender, Result, alternate, check_at_least

NAME = "lookups"
SIZE_BYTES = 64 << 30
CACHE = "8M"
TWO_OF_ONE = 1.3
OF_QEMU = 2.0
UNITS = {"iops": "requests/s", "server_us": "server CPU us/request"}


def measure(world):
    """One contest."""
    fio.require_nbd_engine(world)
    image, socket = world.ram / "lookups.qcow2", world.ram / "lookups.sock"
    peers.run([world.path("qemu-img"), "create", "-q", "-f", "qcow2", "-o",
               "cluster_size=4k,preallocation=metadata", image, SIZE_BYTES])
    title = "NBD 4k randread depth 64, 2 jobs, L2 tables 16 times their cache"
    world.log(title)
    description = f"driver=qcow2,l2-cache-size={CACHE},file.filename={image}"

    def contender(name, argv, ready):
        def run():
            with peers.Server(argv, socket, **ready) as server:
                return fio.random_load(world, server, "randread", 2, size_bytes=SIZE_BYTES)
        return Contender(name, run)

    def ringdisk(threads):
        return contender(
            f"ringdisk, {threads} thread{'s' if threads > 1 else ''}",
            [world.path("ringdisk"), "serve", "--image-opts", description, "--nbd",
             f"unix:{socket}", "--cache", "writeback", "--threads", threads],
            {"ready_line": "ringdisk: ready"})

    qemu_nbd = contender(
        "qemu-nbd", [world.path("qemu-nbd"), "--image-opts", description, "-k", socket, "-t", "-e",
                     servers.CONNECTIONS_MAX, "--cache=writeback", "--aio=io_uring"], {})
    try:
        series = alternate([ringdisk(1), ringdisk(2), qemu_nbd], world.settings.runs, world.log)
    finally:
        image.unlink(missing_ok=True)
    one, two = series["ringdisk, 1 thread"], series["ringdisk, 2 threads"]
    checks = [check_at_least(f"{title}: requests/s", two, one, "iops", TWO_OF_ONE),
              check_at_least(f"{title}: requests/s", two, series["qemu-nbd"], "iops", OF_QEMU)]
    yield Result(title, UNITS, list(series.values()), checks)
