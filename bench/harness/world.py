# SPDX-License-Identifier: Apache-2.0
"""The world that measurements run in: sizes, programs, and directories that vanish.

Owned by bench/run for the length of one run. `ram` is a directory in tmpfs, `disk` one on a file
system with O_DIRECT. Both are named after this process and removed at its end, whatever happens;
what a killed run left behind is removed by the next.
"""
import contextlib
import dataclasses
import os
import pathlib
import shutil
import typing

import peers

MIB = 1 << 20
GIB = 1 << 30
PREFIX = "ringdisk-bench-"
SOURCES = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = ("qemu-img", "qemu-io", "qemu-nbd", "nbdkit", "nbdcopy", "fio")
PROBES = ("probe_nbd_server", "probe_copy", "probe_encrypt")
# What a probe in C++ is built of besides its own file, below src/.
PROBE_PARTS = {"probe_encrypt": ("base/check.cc", "base/error.cc", "crypto/cpu_features.cc",
                                 "crypto/aes_keys.cc", "crypto/xts_aesni.cc",
                                 "crypto/xts_vaes256.cc", "crypto/xts_vaes512.cc")}


class CannotMeasure(Exception):
    """The machine or its programs do not allow a measurement; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is measured."""

    runs: int = 7
    image_bytes: int = 2 * GIB
    fragmented_bytes: int = GIB
    load_seconds: int = 3
    ram_base: pathlib.Path = pathlib.Path("/dev/shm")
    disk_base: pathlib.Path = peers.REPOSITORY / "build"


@dataclasses.dataclass(frozen=True)
class World:
    """Where measurements run, with which programs. `path(name)` is the program's path."""

    settings: Settings
    ram: pathlib.Path
    disk: pathlib.Path
    programs: dict
    log: typing.Callable[[str], None]

    def path(self, program):
        """The path of ringdisk, a peer or a probe."""
        return self.programs[program]


def filesystem_of(path):
    """The type of the file system that `path` (which exists) lies on."""
    path = pathlib.Path(path).resolve()
    mounts = {}
    with open("/proc/self/mounts", encoding="utf-8") as file:
        for line in file:
            _, place, kind = line.split()[:3]
            mounts[place] = kind
    return next(mounts[str(place)] for place in (path, *path.parents) if str(place) in mounts)


def _available_memory():
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file
                    if line.startswith("MemAvailable:"))


def require_space(settings):
    """CannotMeasure unless there is room: in tmpfs for the two sources and two more images at a
    time, on disk for two images, in memory for the tmpfs part and the page cache of the disk's."""
    ram_needed = 4 * settings.image_bytes + GIB
    disk_needed = 2 * settings.image_bytes + GIB
    checks = (
        (shutil.disk_usage(settings.ram_base).free, ram_needed, settings.ram_base),
        (shutil.disk_usage(settings.disk_base).free, disk_needed, settings.disk_base),
        (_available_memory(), ram_needed + settings.image_bytes, "memory"),
    )
    for free, needed, where in checks:
        if free < needed:
            raise CannotMeasure(f"{where}: {free // MIB} MiB free, {needed // MIB} MiB needed;"
                                " make room, or measure less with --quick")
    if filesystem_of(settings.ram_base) != "tmpfs":
        raise CannotMeasure(f"{settings.ram_base} is not a tmpfs; name one with --ram DIR")
    if filesystem_of(settings.disk_base) in ("tmpfs", "ramfs"):
        raise CannotMeasure(f"{settings.disk_base} is in memory; name a disk with --disk DIR")


def _remove_leftovers(base):
    """Removes directories of runs whose process is gone."""
    for directory in base.glob(PREFIX + "*"):
        owner = directory.name[len(PREFIX):]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _directory(base):
    _remove_leftovers(base)
    directory = base / f"{PREFIX}{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def _compiler(variable, *names):
    named = os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)
    if not named:
        raise CannotMeasure(f"no compiler for the probes: install {names[0]}, or name one with"
                            f" {variable}")
    return named.split()


def _build_probe(name, directory):
    """Compiles a probe with optimisation; gives its path."""
    target = directory / name
    options = ["-O2", "-pthread", "-o", target]
    if name in PROBE_PARTS:
        sources = SOURCES.parent / "src"
        peers.run([*_compiler("CXX", "clang++-16", "c++"), "-std=c++20", *options, "-I", sources,
                   SOURCES / f"{name}.cc", *(sources / part for part in PROBE_PARTS[name])])
    else:
        peers.run([*_compiler("CC", "clang-16", "cc"), *options, SOURCES / f"{name}.c"])
    return str(target)


@contextlib.contextmanager
def make_world(settings, log):
    """A World, with the probes built; its directories vanish at the end."""
    settings.disk_base.mkdir(parents=True, exist_ok=True)
    require_space(settings)
    programs = {"ringdisk": peers.ringdisk_path()}
    programs.update({name: peers.need(name) for name in PROGRAMS})
    with _directory(settings.ram_base) as ram, _directory(settings.disk_base) as disk:
        programs.update({name: _build_probe(name, disk) for name in PROBES})
        yield World(settings, ram, disk, programs, log)
