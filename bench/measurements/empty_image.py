# SPDX-License-Identifier: Apache-2.0
"""convert of an empty 8 TiB qcow2: nothing may be done for every cluster of an empty disk."""
from harness import usage
from harness.contest import Check, Contender, Result, alternate

import peers

NAME = "empty"
SIZE_BYTES = 8 << 40
SECONDS_MAX = 0.2
MEMORY_MAX_MIB = 64
UNITS = {"seconds": "s", "cpu_seconds": "CPU s", "memory_mib": "peak MiB"}


def measure(world):
    """To qcow2 and to raw."""
    empty = world.ram / "empty.qcow2"
    peers.run([world.path("qemu-img"), "create", "-q", "-f", "qcow2", empty, SIZE_BYTES])
    try:
        for target_format in ("qcow2", "raw"):
            yield _contest(world, empty, target_format)
    finally:
        empty.unlink()


def _contest(world, empty, target_format):
    title = f"convert an empty 8 TiB qcow2 to {target_format}"
    world.log(title)
    target = world.ram / "empty.target"

    def prepare():
        target.unlink(missing_ok=True)

    def verify():
        size = peers.qemu_info(target, "-f", target_format)["virtual-size"]
        if size != SIZE_BYTES:
            raise peers.PeerFailed(f"{title}: the target has {size} bytes")

    def converter(name):
        argv = [world.path(name), "convert", "-f", "qcow2", "-O", target_format,
                "-t", "writeback", "-T", "writeback", empty, target]
        return Contender(name, lambda: usage.run_measured(argv)[0], prepare, verify)

    try:
        series = alternate([converter("ringdisk"), converter("qemu-img")],
                           world.settings.runs, world.log)
    finally:
        target.unlink(missing_ok=True)
    ours = series["ringdisk"]
    seconds, memory = ours.median("seconds"), ours.spread("memory_mib")[1]
    checks = [
        Check(f"{title}: wall time", f"{seconds:.3f} s", f"under {SECONDS_MAX} s",
              seconds < SECONDS_MAX),
        Check(f"{title}: memory", f"{memory:.0f} MiB", f"under {MEMORY_MAX_MIB} MiB",
              memory < MEMORY_MAX_MIB),
    ]
    note = f"Peaks below {usage.memory_floor_mib():.0f} MiB can't be told apart."
    return Result(title, UNITS, list(series.values()), checks, note)
