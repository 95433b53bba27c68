#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The kernel that the virtual machine boots: Debian's package, fetched once and unpacked.

Run as a program it fetches what is missing and prints the folder, which holds

    vmlinuz           the kernel
    release           what `uname -r` says
    modules/          the package's lib/modules/RELEASE, modules still compressed

The package comes from apt, which checks its signature, and is never installed: nothing of this
machine changes. $RINGDISK_VM_KERNEL_DEB names a .deb to take instead, without a network;
$RINGDISK_VM_CACHE is where it is kept (ringdisk-vm in the user's cache, 40 MB, safe to remove).
"""
import contextlib
import fcntl
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile

SERIES = "6.12"            # has ublk, VDUSE, and io_uring as today's servers have it
FLAVOUR = "cloud-amd64"    # a third of the generic kernel's size, with every driver that we test
FETCH_TIMEOUT_S = 300


class Absent(Exception):
    """The virtual machine cannot be run here; the text says what to do about it."""


def cache_directory():
    """Where kernels are kept; made if it is not there."""
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = pathlib.Path(os.environ.get("RINGDISK_VM_CACHE") or f"{user}/ringdisk-vm")
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(name):
    """Holds the lock `name` of the cache directory, which one process has at a time."""
    with open(cache_directory() / f"{name}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kernel_directory():
    """The folder of the unpacked kernel, fetched if this is the first time."""
    given = os.environ.get("RINGDISK_VM_KERNEL_DEB")
    name = f"given-{pathlib.Path(given).stem}" if given else f"{SERIES}-{FLAVOUR}"
    target = cache_directory() / name
    with locked("kernel"):
        if not (target / "release").exists():
            with tempfile.TemporaryDirectory(prefix="new-", dir=cache_directory()) as scratch:
                package = pathlib.Path(given) if given else _fetch(scratch)
                _unpack(package, pathlib.Path(scratch), target)
    return target


def newest(names):
    """The newest kernel of our series and flavour among package names, or None."""
    shape = re.compile(rf"linux-image-{re.escape(SERIES)}\.\d+(\+deb\d+|-\d+)?(\.\d+)?-{FLAVOUR}")
    fitting = [name for name in names if shape.fullmatch(name)]
    return max(fitting, key=lambda name: [int(n) for n in re.findall(r"\d+", name)], default=None)


def _fetch(directory):
    if platform.machine() != "x86_64":
        raise Absent(f"the virtual machine is an x86-64 one, this machine is {platform.machine()}")
    if not shutil.which("apt-get"):
        raise Absent("no apt-get here: name a kernel package with RINGDISK_VM_KERNEL_DEB=FILE")
    names = _run(["apt-cache", "pkgnames", f"linux-image-{SERIES}"]).split()
    package = newest(names)
    if package is None:
        raise Absent(f"apt knows no linux-image-{SERIES}.*-{FLAVOUR}: run apt-get update (Debian "
                     "12 has it among the security updates), or set RINGDISK_VM_KERNEL_DEB=FILE")
    print(f"vm: fetching {package}", file=sys.stderr, flush=True)
    # Without a user of its own for downloads, apt does not complain about the folder's owner.
    _run(["apt-get", "-q", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=3", "download",
          package], cwd=directory)
    return next(pathlib.Path(directory).glob("linux-image-*.deb"))


def _unpack(package, scratch, target):
    _run(["dpkg-deb", "-x", str(package), str(scratch / "all")])
    image = next((scratch / "all/boot").glob("vmlinuz-*"))
    release = image.name.removeprefix("vmlinuz-")
    candidates = [scratch / "all" / lib / "modules" / release for lib in ("lib", "usr/lib")]
    kept = scratch / "kept"
    kept.mkdir()
    image.rename(kept / "vmlinuz")
    next(path for path in candidates if path.is_dir()).rename(kept / "modules")
    (kept / "release").write_text(release + "\n", encoding="ascii")
    shutil.rmtree(target, ignore_errors=True)
    kept.rename(target)


def _run(argv, cwd=None):
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL, timeout=FETCH_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"the kernel package cannot be had: {error}") from error
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Absent(f"{argv[0]} failed ({words[-1] if words else done.returncode}): run apt-get "
                     "update, or set RINGDISK_VM_KERNEL_DEB=FILE")
    return done.stdout


if __name__ == "__main__":
    try:
        print(kernel_directory())
    except Absent as absent:
        print(f"vm: {absent}", file=sys.stderr)
        sys.exit(1)
