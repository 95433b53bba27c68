# SPDX-License-Identifier: Apache-2.0
"""Four qcow2 images, each written in another order of 64 KiB blocks, used 1 MiB at a time, depth 1.

    in sequence              0  1  2  3 ...           a request of 1 MiB is one host range
    random within 1 MiB      9  3 14  0 ... 17 ...    16 ranges, near each other
    random                   any order                16 ranges, anywhere
    in reverse               ... 3  2  1  0           16 ranges, backwards

The clusters lie in the file in the order they were written. What fragmentation costs is each
image's time over that of the sequential one; qemu-img bench is measured beside it, and what the
machine itself charges: fio on a raw file, 1 MiB at once and 16 times 64 KiB anywhere.
"""
import itertools
import os
import random
import re

import peers
from harness import fio, usage
from harness.contest import Check, Contender, Result, alternate, ratio
from harness.world import MIB

NAME = "fragmented"
LIMIT = 1.05
BLOCK = 64 << 10
UNITS = {"seconds": "s", "cpu_seconds": "CPU s"}
WHOLE, SCATTERED = "fio on a raw file, 1 MiB at once", "fio on a raw file, 16 x 64 KiB anywhere"
PROGRAMS = {"ringdisk": "ringdisk bench", "qemu-img": "qemu-img bench"}


def _sequence(count):
    return list(range(count))


def _random_within_1_mib(count):
    chance = random.Random(1)
    group = MIB // BLOCK
    return [block for begin in range(0, count, group)
            for block in chance.sample(range(begin, begin + group), group)]


def _random(count):
    return random.Random(2).sample(range(count), count)


def _reverse(count):
    return list(reversed(range(count)))


ORDERS = {"in sequence": _sequence, "random within 1 MiB": _random_within_1_mib,
          "random": _random, "in reverse": _reverse}


def measure(world):
    """Reads and writes, cache none on the disk and the page cache in tmpfs."""
    # In tmpfs one pass over the image is too short to tell a few per cent.
    places = ((world.disk, "cache none on disk", ("-t", "none", "-n"), 1),
              (world.ram, "page cache in tmpfs", ("-t", "writeback"), 4))
    for directory, place, cache, passes in places:
        images = {order: directory / f"{order.replace(' ', '-')}.qcow2" for order in ORDERS}
        raw = directory / "fragmented.raw"
        try:
            for order, image in images.items():
                _make_image(world, image, ORDERS[order](world.settings.fragmented_bytes // BLOCK))
            _make_raw(world, raw)
            for write in (False, True):
                yield _contest(world, images, raw, place, cache, passes, write)
        finally:
            for image in (*images.values(), raw):
                image.unlink(missing_ok=True)


def _make_image(world, path, order):
    """A qcow2 whose blocks were written in `order`, with the pattern 0xff."""
    world.log(f"writing {path.name}")
    peers.run([world.path("qemu-img"), "create", "-q", "-f", "qcow2", path,
               world.settings.fragmented_bytes])
    commands = [f"write -q -P 0xff {block * BLOCK} {BLOCK}" for block in order]
    peers.run([world.path("qemu-io"), "-f", "qcow2", path],
              stdin="\n".join([*commands, "flush", ""]), timeout_s=600)
    _drop_from_cache(path)


def _make_raw(world, path):
    with open(path, "wb") as file:
        for _ in range(world.settings.fragmented_bytes // MIB):
            file.write(b"\xff" * MIB)
    _drop_from_cache(path)


def _drop_from_cache(path):
    # O_DIRECT is not to meet cached pages in the first run only (tmpfs ignores this).
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _contest(world, images, raw, place, cache, passes, write):
    title = f"fragmented qcow2, 1 MiB {'writes' if write else 'reads'} at depth 1, {place}"
    world.log(title)
    count = passes * world.settings.fragmented_bytes // MIB
    contenders = []
    for (order, image), program in itertools.product(images.items(), PROGRAMS):
        argv = [world.path(program), "bench", "-f", "qcow2", "-c", count, "-d", 1, "-s", "1M",
                *cache, *(["-w", "--pattern=255"] if write else []), image]
        contenders.append(Contender(_contender_name(program, order),
                                    lambda argv=argv: _bench(argv)))
    for name, block, batch in ((WHOLE, MIB, 1), (SCATTERED, BLOCK, MIB // BLOCK)):
        run = _fio_pass(world, raw, write, block, batch, "none" in cache, passes)
        contenders.append(Contender(name, run))
    series = alternate(contenders, world.settings.runs, world.log, warm=True)
    in_order = [series[_contender_name(program, order)] for program in PROGRAMS for order in ORDERS]
    return Result(title, UNITS, [*in_order, series[WHOLE], series[SCATTERED]],
                  _checks(title, series))


def _checks(title, series):
    sequential = series[_contender_name("ringdisk", "in sequence")]
    machine = ratio(series[SCATTERED], series[WHOLE], "seconds")
    checks = []
    for order in ORDERS:
        if order != "in sequence":
            found = ratio(series[_contender_name("ringdisk", order)], sequential, "seconds")
            checks.append(Check(
                f"{title}: {order}",
                f"{found:.2f} of {sequential.name}; a raw file scattered: {machine:.2f}",
                f"at most {LIMIT:g}", found <= LIMIT,
                {f"seconds to {sequential.name}": found, "the machine's own": machine}))
    return checks


def _fio_pass(world, raw, write, block, batch, direct, passes):
    def run():
        before = os.times()
        seconds = fio.one_pass(world, raw, write, block, batch, direct, passes)
        after = os.times()
        used = (after.children_user + after.children_system
                - before.children_user - before.children_system)
        return {"seconds": seconds, "cpu_seconds": used}
    return run


def _contender_name(program, order):
    return f"{PROGRAMS[program]}, {order}"


def _bench(argv):
    """A sample of one bench run; its seconds are those that the program itself prints, which
    leave out starting and opening."""
    sample, output = usage.run_measured(argv)
    match = re.search(r"Run completed in ([0-9.]+) seconds", output)
    if not match:
        raise peers.PeerFailed(f"{' '.join(map(str, argv))} did not say 'Run completed in N"
                               f" seconds':\n{output}")
    return {"seconds": float(match[1]), "cpu_seconds": sample["cpu_seconds"]}
