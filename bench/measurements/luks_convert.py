# SPDX-License-Identifier: Apache-2.0
"""convert to and from encrypted images, 2 GiB of incompressible data in tmpfs, existing targets.

AES-256-XTS with 512-byte sectors, LUKS1, which is what qemu-img can do. As in `convert`, everything
is flushed and qemu-img counts at the better of its default and `-m 16 -W`. Beside it the encryption
probe: the same bytes enciphered from file to file by two threads, without any format. Key slots
open in milliseconds.
"""
import functools

import peers
from harness import encrypted, images, usage
from harness.contest import (Contender, Result, alternate, check_at_most, least)

NAME = "luks-convert"
PARALLEL = ("-m", "16", "-W")
OF_QEMU = 1 / 5
CPU_OF_QEMU = 1 / 3
OF_PROBE = 1.25
OF_PLAIN = 1.35
UNITS = {"seconds": "s", "cpu_seconds": "CPU s"}


def measure(world):
    """Into LUKS, out of it, and into qcow2 with LUKS inside."""
    source = images.qcow2_source(world)
    plain = f"driver=qcow2,file.filename={source}"
    target, copied = world.ram / "target.img", world.ram / "target.raw"
    try:
        yield _into_luks(world, plain, target, copied)
        yield _against_qemu(world, "convert LUKS to raw", encrypted.luks(target),
                            f"driver=raw,file.filename={copied}",
                            lambda: images.require_same_disk(world, copied, "raw"))
        target.unlink()
        _make_target(world, "qcow2", target, encrypted.qcow2(target), plain)
        yield _against_qemu(world, "convert qcow2 to qcow2 with LUKS", plain,
                            encrypted.qcow2(target), _same_as_source(world, "qcow2", target))
    finally:
        target.unlink(missing_ok=True)
        copied.unlink(missing_ok=True)


def _argv(world, program, source, target, *options):
    return [world.path(program), "convert", *encrypted.secret(world), "-n", "--image-opts",
            "--target-image-opts", "-t", "writeback", "-T", "writeback", *options, source, target]


def _converter(world, name, program, source, target, verify, *options):
    argv = _argv(world, program, source, target, *options)
    return Contender(name, lambda: usage.run_measured(argv)[0], verify=verify)


def _programs(world, source, target, verify):
    make = functools.partial(_converter, world, source=source, target=target, verify=verify)
    return [make("ringdisk", "ringdisk"), make("qemu-img", "qemu-img"),
            _converter(world, "qemu-img -m 16 -W", "qemu-img", source, target, verify, *PARALLEL)]


def _make_target(world, kind, path, described, source):
    """An image of full size, every page touched."""
    encrypted.create(world, kind, path, world.settings.image_bytes)
    peers.run(_argv(world, "qemu-img", source, described, *PARALLEL))


def _same_as_source(world, kind, path):
    described = {"luks": encrypted.luks, "qcow2": encrypted.qcow2}[kind](path)
    source = images.qcow2_source(world)
    return lambda: encrypted.require_same_disk(world, described, source, "qcow2")


def _into_luks(world, plain, target, copied):
    """With the probe and our own conversion to a plain file in the same run."""
    title = "convert qcow2 to LUKS1"
    world.log(title)
    described = encrypted.luks(target)
    _make_target(world, "luks", target, described, plain)
    raw = f"driver=raw,file.filename={copied}"
    probe = [world.path("probe_encrypt"), images.raw_source(world), copied]
    peers.run(probe)
    contenders = _programs(world, plain, described, _same_as_source(world, "luks", target)) + [
        _converter(world, "ringdisk, to raw", "ringdisk", plain, raw,
                   lambda: images.require_same_disk(world, copied, "raw")),
        Contender("encryption probe", lambda: usage.run_measured(probe)[0]),
    ]
    series = alternate(contenders, world.settings.runs, world.log, warm=True)
    ours, qemu = series["ringdisk"], series["qemu-img -m 16 -W"]
    checks = [
        check_at_most(f"{title}: wall time", ours, qemu, "seconds", OF_QEMU),
        check_at_most(f"{title}: CPU time", ours, qemu, "cpu_seconds", CPU_OF_QEMU),
        check_at_most(f"{title}: wall time", ours, series["encryption probe"], "seconds",
                      OF_PROBE),
        check_at_most(f"{title}: wall time", ours, series["ringdisk, to raw"], "seconds",
                      OF_PLAIN),
    ]
    return Result(title, UNITS, list(series.values()), checks)


def _against_qemu(world, title, source, target, verify):
    world.log(title)
    series = alternate(_programs(world, source, target, verify), world.settings.runs, world.log,
                       warm=True)
    qemu = least([series["qemu-img"], series["qemu-img -m 16 -W"]], "seconds")
    checks = [check_at_most(f"{title}: wall time", series["ringdisk"], qemu, "seconds", OF_QEMU)]
    return Result(title, UNITS, list(series.values()), checks)
