# SPDX-License-Identifier: Apache-2.0
"""nbdcopy of 2 GiB from a read-only NBD export in tmpfs to null:, one and four connections.

ringdisk and qemu-nbd serve the qcow2, nbdkit's file plugin and the probe the raw file with the
same data. The time is nbdcopy's from start to end; its CPU time is shown beside the server's.
"""
import functools

from harness import images, servers, usage
from harness.contest import Contender, Result, alternate, check_at_most, least

NAME = "nbd-copy"
UNITS = {"seconds": "s", "server_cpu_seconds": "server CPU s", "cpu_seconds": "nbdcopy CPU s"}


def measure(world):
    """One connection, then four."""
    for connections in (1, 4):
        yield _contest(world, connections)


def _contest(world, connections):
    title = f"nbdcopy to null:, {connections} connection{'s' if connections > 1 else ''}"
    world.log(title)
    socket = world.ram / "nbd.sock"
    qcow2, raw = images.qcow2_source(world), images.raw_source(world)

    def contender(name, start):
        def run():
            with start() as server:
                before = usage.cpu_seconds_of(server.pid)
                sample, _ = usage.run_measured([world.path("nbdcopy"),
                                                f"--connections={connections}",
                                                server.uri(), "null:"])
                after = usage.cpu_seconds_of(server.pid)
            return {"seconds": sample["seconds"], "server_cpu_seconds": after - before,
                    "cpu_seconds": sample["cpu_seconds"]}
        return Contender(name, run)

    def qemu(aio):
        return functools.partial(servers.qemu_nbd, world, qcow2, socket, aio, "-r")

    series = alternate([
        contender("ringdisk", lambda: servers.ringdisk(world, qcow2, socket, "--read-only")),
        contender("qemu-nbd io_uring", qemu("io_uring")),
        contender("qemu-nbd threads", qemu("threads")),
        contender("nbdkit file, raw", lambda: servers.nbdkit_file(world, raw, socket, "-r")),
        contender("C probe, raw", lambda: servers.probe(world, raw, socket)),
    ], world.settings.runs, world.log)
    best_qemu = least([series["qemu-nbd io_uring"], series["qemu-nbd threads"]], "seconds")
    checks = [check_at_most(f"{title}: wall time", series["ringdisk"], other, "seconds", 1)
              for other in (best_qemu, series["nbdkit file, raw"])]
    return Result(title, UNITS, list(series.values()), checks)
