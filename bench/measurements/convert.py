# SPDX-License-Identifier: Apache-2.0
"""convert between raw and qcow2, 2 GiB of incompressible data in tmpfs, existing and new target.

Every contender flushes what it wrote (-t writeback; qemu-img's own default would leave that out).
qemu-img counts at the better of its default and `-m 16 -W`. The bound beside it is the copy probe:
the same bytes from file to file by two threads, without any format.

Targets are judged on existing files. With a new one most of the time is the machine's: a virtual
machine asks its host for every page that nobody used lately, at a price that varies fourfold from
run to run. So it is shown, with freed memory just touched before each run, and not judged.
"""
import itertools

import peers
from harness import images, usage
from harness.contest import Check, Contender, Result, alternate, check_at_most, least, ratio

NAME = "convert"
PARALLEL = ("-m", "16", "-W")
OF_QEMU = 0.75
OF_PROBE = 1.3
UNITS = {"seconds": "s", "cpu_seconds": "CPU s"}
NEW_TARGET_NOTE = "Not judged: mostly the machine's handing out of memory, see the spread."


def measure(world):
    """Both directions, each to an existing target and to a new one."""
    for pair, existing in itertools.product((("qcow2", "raw"), ("raw", "qcow2")), (True, False)):
        yield _contest(world, *pair, existing)


def _contest(world, source_format, target_format, existing):
    source = images.source(world, source_format)
    target = world.ram / "target.img"
    copied = world.ram / "target.copy"
    title = (f"convert {source_format} to {target_format},"
             f" {'existing' if existing else 'new'} target")
    world.log(title)

    def prepare():
        if not existing:
            target.unlink(missing_ok=True)
            copied.unlink(missing_ok=True)
            images.touch_free_memory(world)

    def converter(name, program, *options):
        argv = [program, "convert", "-f", source_format, "-O", target_format, "-t", "writeback",
                "-T", "writeback", *options, *(["-n"] if existing else []), source, target]
        return Contender(name, lambda: usage.run_measured(argv)[0], prepare,
                         lambda: images.require_same_disk(world, target, target_format))

    probe_argv = [world.path("probe_copy"), source, copied]
    contenders = [
        converter("ringdisk", world.path("ringdisk")),
        converter("qemu-img", world.path("qemu-img")),
        converter("qemu-img -m 16 -W", world.path("qemu-img"), *PARALLEL),
        Contender("copy probe", lambda: usage.run_measured(probe_argv)[0], prepare,
                  lambda: peers.require_same(source, copied)),
    ]
    try:
        if existing:
            _make_existing(world, source, target_format, target, probe_argv)
        series = alternate(contenders, world.settings.runs, world.log, warm=existing)
    finally:
        target.unlink(missing_ok=True)
        copied.unlink(missing_ok=True)
    if not existing:
        return Result(title, UNITS, list(series.values()), [], NEW_TARGET_NOTE)
    return Result(title, UNITS, list(series.values()), _checks(title, series))


def _make_existing(world, source, target_format, target, probe_argv):
    """Targets of full size, every page touched, with other content than they are to get."""
    size = world.settings.image_bytes
    peers.run([world.path("qemu-img"), "create", "-q", "-f", target_format, target, size])
    step = 1 << 30
    peers.run([world.path("qemu-io"), "-f", target_format, target],
              stdin="".join(f"write -q -P 0x5a {offset} {min(step, size - offset)}\n"
                            for offset in range(0, size, step)))
    peers.run(probe_argv)


def _checks(title, series):
    ours, probe = series["ringdisk"], series["copy probe"]
    qemu = least([series["qemu-img"], series["qemu-img -m 16 -W"]], "seconds")
    to_qemu, to_probe = ratio(ours, qemu, "seconds"), ratio(ours, probe, "seconds")
    return [
        Check(f"{title}: wall time",
              f"{to_qemu:.2f} of {qemu.name}, {to_probe:.2f} of the copy probe",
              f"at most {OF_QEMU} of qemu-img or {OF_PROBE} of the probe",
              to_qemu <= OF_QEMU or to_probe <= OF_PROBE,
              {f"seconds to {qemu.name}": to_qemu, "seconds to copy probe": to_probe}),
        check_at_most(f"{title}: CPU time", ours, qemu, "cpu_seconds", 1),
    ]
