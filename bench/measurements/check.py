# SPDX-License-Identifier: Apache-2.0
"""check of large images that have all their tables (preallocation=metadata), sparse, in tmpfs.

4 TiB in 64 KiB clusters, 64 million of them, against qemu-img check; 16 TiB alone, for its memory.
"""
import peers
from harness import usage
from harness.contest import Check, Contender, Result, alternate, check_at_most

NAME = "check"
COMPARED_BYTES = 4 << 40
ALONE_BYTES = 16 << 40
OF_QEMU = 0.5
MEMORY_MAX_MIB = 1024
UNITS = {"seconds": "s", "cpu_seconds": "CPU s", "memory_mib": "peak MiB"}


def measure(world):
    """Both sizes."""
    image = world.ram / "check.qcow2"
    for size, names in ((COMPARED_BYTES, ("ringdisk", "qemu-img")), (ALONE_BYTES, ("ringdisk",))):
        title = f"check of a preallocated {size >> 40} TiB qcow2"
        world.log(title)
        peers.run([world.path("ringdisk"), "create", "-q", "-f", "qcow2", "-o",
                   "preallocation=metadata", image, size], timeout_s=600)
        try:
            series = alternate([_checker(world, name, image) for name in names],
                               world.settings.runs, world.log, warm=True)
        finally:
            image.unlink(missing_ok=True)
        yield Result(title, UNITS, list(series.values()), _checks(title, series))


def _checker(world, name, image):
    argv = [world.path(name), "check", "-f", "qcow2", image]
    return Contender(name, lambda: usage.run_measured(argv)[0])


def _checks(title, series):
    if "qemu-img" in series:
        return [check_at_most(f"{title}: wall time", series["ringdisk"], series["qemu-img"],
                              "seconds", OF_QEMU)]
    memory = series["ringdisk"].spread("memory_mib")[1]
    return [Check(f"{title}: memory", f"{memory:.0f} MiB", f"under {MEMORY_MAX_MIB} MiB",
                  memory < MEMORY_MAX_MIB)]
