# SPDX-License-Identifier: Apache-2.0
"""convert -c of 1 GiB of text, binaries and random data, raw to qcow2 in tmpfs, zlib and zstd.

qemu-img runs with `-m 16 -W`, its fastest way. Nobody is given a level. The image may be no larger
than qemu-img's. The data are files of this machine, a third each, a MiB of each in turn, so that
two machines compare different bytes; ratios are of one run.
"""
import os
import pathlib

import peers
from harness import images, usage
from harness.contest import Check, Contender, Result, alternate, check_at_least, check_at_most
from harness.world import MIB, CannotMeasure

NAME = "compress"
SOURCE_BYTES = 1 << 30
SMALLEST_SHARE_BYTES = 32 * MIB
PARALLEL = ("-m", "16", "-W")
TIMES_FASTER = {"zlib": 2.5, "zstd": 1.3}
UNITS = {"seconds": "s", "cpu_seconds": "CPU s", "image_mib": "MiB"}
TEXT_ROOTS = ("/usr/include", "/usr/share/doc", "/usr/lib/python3")
TEXT_ENDINGS = (".h", ".hpp", ".py", ".txt", ".html", ".json", "copyright")
BINARY_ROOTS = ("/usr/bin", "/usr/lib", "/usr/sbin")
ELF = b"\x7fELF"


def measure(world):
    """Both compression types."""
    source = _source(world)
    try:
        for kind in TIMES_FASTER:
            yield _contest(world, source, kind)
    finally:
        source.unlink(missing_ok=True)


def _contest(world, source, kind):
    target = world.ram / "compressed.qcow2"
    title = f"convert -c, {kind}"
    world.log(title)

    def converter(name, program, *options):
        argv = [program, "convert", "-c", "-f", "raw", "-O", "qcow2", "-t", "writeback", "-T",
                "writeback", "-o", f"compression_type={kind}", *options, source, target]

        def run():
            target.unlink(missing_ok=True)
            sample = usage.run_measured(argv)[0]
            return {**sample, "image_mib": target.stat().st_size / MIB}
        return Contender(name, run, verify=lambda: _require_same(world, source, target))

    contenders = [converter("ringdisk", world.path("ringdisk")),
                  converter("qemu-img -m 16 -W", world.path("qemu-img"), *PARALLEL)]
    try:
        series = alternate(contenders, world.settings.runs, world.log, warm=True)
    finally:
        target.unlink(missing_ok=True)
    return Result(title, UNITS, list(series.values()), list(_checks(title, kind, series)))


def _checks(title, kind, series):
    ours, qemu = series["ringdisk"], series["qemu-img -m 16 -W"]
    slower = check_at_least(f"{title}: speed", qemu, ours, "seconds", TIMES_FASTER[kind])
    yield Check(slower.what, f"{slower.ratios['seconds to ringdisk']:.2f} times {qemu.name}",
                slower.target, slower.met, slower.ratios)
    yield check_at_most(f"{title}: size", ours, qemu, "image_mib", 1)


def _require_same(world, source, target):
    peers.run([world.path("qemu-img"), "compare", "-f", "raw", "-F", "qcow2", source, target])
    peers.qemu_check(target)


def _source(world):
    """The mixed data, in tmpfs. A MiB at a time, since what this process holds is added to the
    peaks that are measured later (usage.memory_floor_mib)."""
    size = min(SOURCE_BYTES, world.settings.image_bytes)
    count = size // 3 // MIB
    world.log(f"gathering {3 * count} MiB of text, binaries and random data")
    text = _pieces(TEXT_ROOTS, lambda path, head: path.name.endswith(TEXT_ENDINGS))
    binaries = _pieces(BINARY_ROOTS, lambda path, head: head.startswith(ELF))
    path = world.ram / "mixed.raw"
    with open(images.raw_source(world), "rb") as noise, open(path, "wb") as file:
        for _ in range(count):
            file.write(next(text))
            file.write(next(binaries))
            file.write(noise.read(MIB))
    return path


def _pieces(roots, is_right):
    """The files that are right, in order of their names, as pieces of a MiB, for ever: a small
    machine's files are used again, far enough apart that no cluster holds both."""
    while True:
        gathered, total = bytearray(), 0
        for path in _files(roots):
            try:
                content = path.read_bytes()
            except OSError:
                continue
            if not is_right(path, content[:len(ELF)]):
                continue
            gathered += content
            total += len(content)
            while len(gathered) >= MIB:
                yield bytes(gathered[:MIB])
                del gathered[:MIB]
        if total < SMALLEST_SHARE_BYTES:
            raise CannotMeasure(f"not enough files below {', '.join(roots)}")


def _files(roots):
    for root in roots:
        for directory, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = pathlib.Path(directory) / name
                if path.is_file() and not path.is_symlink():
                    yield path
