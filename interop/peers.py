# SPDX-License-Identifier: Apache-2.0
"""The programs that are not ours, and what a test against them needs.

Finds ringdisk and the peer programs (those of bench/peers where they are set up, else the
system's), runs them with errors that say what went wrong, starts and stops servers by their
process id, makes directories that vanish, and compares files byte for byte. pattern.py beside
it makes test data whose every block has its own content.

A test file is plain unittest and ends with `peers.main(needs=[...])`, which ends with status 77
("skipped") when ringdisk or a needed program is absent. bench/run uses the same functions.

Nothing here ends a process that it did not start itself.
"""
import contextlib
import functools
import importlib
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
EXIT_SKIPPED = 77
RUN_TIMEOUT_S = 120
READY_TIMEOUT_S = 20
STOP_TIMEOUT_S = 20

# What to say when a program is absent.
DEBIAN_PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "nbdkit": "nbdkit",
    "nbdcopy": "libnbd-bin",
    "nbdinfo": "libnbd-bin",
    "nbdsh": "python3-libnbd",
    "fio": "fio",
    "cryptsetup": "cryptsetup-bin",
}


class MissingPeer(Exception):
    """A program that the caller needs is not on this machine; the text says how to get it."""


class PeerFailed(Exception):
    """A program or server ended otherwise than expected; the text holds what it said."""


# Finding


def peers_directory():
    """Where bench/peers/setup puts its wrappers (they may not be there)."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(os.environ.get("RINGDISK_PEERS") or f"{cache}/ringdisk-peers") / "bin"


def find(name):
    """The path of peer `name` as text, or None. bench/peers' version wins over the system's."""
    wrapper = peers_directory() / name
    if os.access(wrapper, os.X_OK):
        return str(wrapper)
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def need(name):
    """The path of peer `name`; MissingPeer when it is absent."""
    path = find(name)
    if path is None:
        package = DEBIAN_PACKAGES.get(name)
        remedy = f"install Debian's {package} or run bench/peers/setup" if package else "install it"
        raise MissingPeer(f"{name} is not on this machine: {remedy}")
    return path


def ringdisk_path():
    """The ringdisk under test: $RINGDISK, else the release build; MissingPeer when absent."""
    path = os.environ.get("RINGDISK") or str(REPOSITORY / "build/release/ringdisk")
    if not os.access(path, os.X_OK):
        raise MissingPeer(f"no ringdisk at {path}: build it (make), or name it with RINGDISK=PATH")
    return str(pathlib.Path(path).resolve())


def version(path):
    """The first line that PROGRAM --version prints."""
    lines = run([path, "--version"], timeout_s=READY_TIMEOUT_S).stdout.splitlines()
    return lines[0].strip() if lines else "unknown"


def nbd_module():
    """libnbd's Python module. An interpreter that is not the system's finds the system's module
    when both are the same version of Python; MissingPeer otherwise."""
    for directory in (None, "/usr/lib/python3/dist-packages"):
        if directory:
            sys.path.append(directory)
        try:
            return importlib.import_module("nbd")
        except ImportError:
            continue
    raise MissingPeer("Python's nbd module is absent: install Debian's python3-libnbd")


class Case(unittest.TestCase):
    """A test with an empty directory of its own, `self.directory`, removed afterwards."""

    def setUp(self):
        self.directory = self.enterContext(scratch())


def main(needs=()):
    """Runs the calling test file's tests, after checking that ringdisk and `needs` are there.
    "ringdisk" is always needed; "nbd" stands for libnbd's Python module."""
    try:
        ringdisk_path()
        for name in needs:
            nbd_module() if name == "nbd" else need(name)
    except MissingPeer as absent:
        print(f"skipped: {absent}")
        sys.exit(EXIT_SKIPPED)
    unittest.main(module="__main__", verbosity=2)


# Running


def _limit_files(bytes_max):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))


def run(argv, expect=0, stdin=None, timeout_s=RUN_TIMEOUT_S, cwd=None, environment=None,
        file_bytes_max=None):
    """Runs a program to its end; gives the CompletedProcess with text in stdout and stderr.

    `expect` is the exit status it must end with; None takes any. `environment` adds to the
    caller's. With `file_bytes_max` no file grows beyond that: writes fail as on a full disk.
    PeerFailed shows the command line and all that the program said."""
    limit = functools.partial(_limit_files, file_bytes_max) if file_bytes_max else None
    argv = [str(word) for word in argv]
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, cwd=cwd,
                              timeout=timeout_s, check=False, preexec_fn=limit,
                              env={**os.environ, **(environment or {})},
                              stdin=subprocess.DEVNULL if stdin is None else None)
    except subprocess.TimeoutExpired as late:
        raise PeerFailed(f"{' '.join(argv)}: not done after {timeout_s} s") from late
    if expect is not None and done.returncode != expect:
        raise PeerFailed(f"{' '.join(argv)}: exit status {done.returncode}, expected {expect}\n"
                         f"{done.stdout}{done.stderr}")
    return done


def ringdisk(*arguments, **options):
    """Runs ringdisk with `arguments`; options as in run()."""
    return run([ringdisk_path(), *arguments], **options)


def qemu_img(*arguments, **options):
    """Runs qemu-img with `arguments`; options as in run()."""
    return run([need("qemu-img"), *arguments], **options)


def qemu_io(image, commands, image_format="qcow2", **options):
    """Runs qemu-io `commands` (a list such as ["write -P 1 0 64k"]) on an image, in order, as one
    session, which fails when one of them did; a read with -P fails on other content."""
    return run([need("qemu-io"), "-f", image_format, image],
               stdin="\n".join(commands) + "\n", **options)


def qemu_check(image, image_format="qcow2"):
    """What `qemu-img check` finds, as a dictionary; PeerFailed unless it finds nothing at all."""
    done = qemu_img("check", "-f", image_format, "--output=json", image, expect=None)
    if done.returncode != 0:
        raise PeerFailed(f"qemu-img check {image}: exit status {done.returncode}\n"
                         f"{done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def qemu_info(image, *arguments):
    """`qemu-img info` of an image as a dictionary."""
    return json.loads(qemu_img("info", "--output=json", *arguments, image).stdout)


def qemu_map(image, *arguments):
    """`qemu-img map` of an image as a list of dictionaries."""
    return json.loads(qemu_img("map", "--output=json", *arguments, image).stdout)


def without_holes(extents):
    """A map where holes of the file below clusters that have a place count as data: which program
    asks the file for them, and when, is its own affair."""
    merged = []
    for extent in extents:
        extent = dict(extent, zero=extent["zero"] and not extent["data"])
        last = merged[-1] if merged else {}
        goes_on = all(last.get(key) == extent[key]
                      for key in ("depth", "present", "zero", "data", "compressed"))
        if "offset" in extent or "offset" in last:
            goes_on = goes_on and (
                extent.get("offset") == last.get("offset", -1) + last["length"])
        if goes_on:
            last["length"] += extent["length"]
        else:
            merged.append(extent)
    return merged


def nbdcopy(source, target, *arguments, **options):
    """Copies with libnbd's nbdcopy; source and target are paths, NBD URIs or "null:"."""
    return run([need("nbdcopy"), *arguments, "--", source, target], **options)


def nbdinfo(uri, *arguments):
    """nbdinfo's JSON about a server, or with "--map" its extents."""
    return json.loads(run([need("nbdinfo"), "--json", *arguments, uri]).stdout)


def nbdsh(uri, *scripts, **options):
    """Runs Python `scripts` in nbdsh, where `h` is a handle connected to `uri`."""
    words = [word for script in scripts for word in ("-c", script)]
    # nbdsh starts the first python3 in PATH, and only the system's has the module.
    path = {"PATH": f"/usr/bin:{os.environ.get('PATH', '')}"}
    return run([need("nbdsh"), "-u", uri, *words], environment=path, **options)


# Files


@contextlib.contextmanager
def scratch(base=None, prefix="ringdisk-interop-"):
    """A new directory (a Path) that is removed at the end, whatever happens."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=base, ignore_cleanup_errors=True) as path:
        yield pathlib.Path(path)


def first_difference(one, other, block_bytes=1 << 20):
    """The offset of the first byte in which two files differ (the shorter one's end if it is the
    other's beginning), or None when they are the same."""
    with open(one, "rb") as first, open(other, "rb") as second:
        offset = 0
        while True:
            left, right = first.read(block_bytes), second.read(block_bytes)
            if left != right:
                common = min(len(left), len(right))
                return offset + next((i for i in range(common) if left[i] != right[i]), common)
            if not left:
                return None
            offset += len(left)


def require_same(one, other):
    """Raises AssertionError, naming the place, unless two files are the same byte for byte."""
    offset = first_difference(one, other)
    if offset is not None:
        raise AssertionError(f"{one} and {other} differ at byte {offset}"
                             f" (sizes {os.path.getsize(one)} and {os.path.getsize(other)})")


# Servers


class Server:
    """A server program, from its start until `stop` or the end of a `with` block.

    It is ready when its standard output holds a line that begins with `ready_line`, or, without
    one, when the unix socket `socket_path` accepts a connection. PeerFailed if it ends before
    that or takes too long. On SIGTERM it is expected to end with `exit_status`. `environment` adds
    to the caller's; `preexec` is called in the new process. `pid`, `socket_path` and `log()` are
    for the caller."""

    def __init__(self, argv, socket_path=None, ready_line=None, exit_status=0, environment=None,
                 preexec=None):
        if socket_path is None and ready_line is None:
            raise ValueError("nothing tells when the server is ready")
        self.argv = [str(word) for word in argv]
        self.socket_path = None if socket_path is None else str(socket_path)
        self._exit_status = exit_status
        self._written = None
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self._log,
                                         stderr=subprocess.STDOUT, preexec_fn=preexec,
                                         env={**os.environ, **(environment or {})})
        self.pid = self._process.pid
        try:
            self._wait_until_ready(ready_line)
        except BaseException:
            self._end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self._end()

    def uri(self, export=""):
        """The NBD URI of one of its exports."""
        return f"nbd+unix:///{export}?socket={self.socket_path}"

    def log(self):
        """All that the server has written so far to its standard output and error."""
        if self._written is not None:
            return self._written
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def running(self):
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def kill(self):
        """Ends it at once, as a crash would."""
        self._process.kill()
        self._process.wait()
        self._end()

    def stop(self):
        """Sends SIGTERM and waits for the end; a server that stays is killed. PeerFailed when it
        had ended by itself, had to be killed, or ended with another status than it should."""
        if self._written is not None:
            return
        how = self._end()
        status = self._process.returncode
        if how != "ended" or status != self._exit_status:
            raise PeerFailed(f"{' '.join(self.argv)}: {how}, status {status}\n{self.log()}")

    def _end(self):
        """Leaves neither process nor socket nor open file; says how it ended."""
        how = "ended"
        if not self.running():
            how = "had ended by itself"
        else:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except BaseException as interruption:
                how = "had to be killed"
                self._process.kill()
                self._process.wait()
                if not isinstance(interruption, subprocess.TimeoutExpired):
                    raise
        if self._written is None:
            self._written = self.log()
            self._log.close()
        if self.socket_path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.socket_path)
        return how

    def _wait_until_ready(self, ready_line):
        limit = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < limit:
            if not self.running():
                raise PeerFailed(f"{' '.join(self.argv)}: ended with status "
                                 f"{self._process.returncode} before it was ready\n{self.log()}")
            if ready_line is None:
                if self._accepts():
                    return
            elif any(line.startswith(ready_line) for line in self.log().splitlines()):
                return
            time.sleep(0.01)
        raise PeerFailed(f"{' '.join(self.argv)}: not ready after {READY_TIMEOUT_S} s\n"
                         f"{self.log()}")

    def _accepts(self):
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.socket_path) == 0


def serve_ringdisk(images, socket_path, *arguments, environment=None):
    """`ringdisk serve` of one image or a list of them on a unix socket."""
    images = [images] if isinstance(images, (str, os.PathLike)) else images
    return Server([ringdisk_path(), "serve", *images, "--nbd", f"unix:{socket_path}", *arguments],
                  socket_path, ready_line="ringdisk: ready", environment=environment)


def serve_qemu_nbd(image, socket_path, *arguments, image_format="qcow2"):
    """qemu-nbd, which stays after its clients leave and takes up to 16 at once."""
    return Server([need("qemu-nbd"), "-f", image_format, "-k", socket_path, "-t", "-e", "16",
                   *arguments, image], socket_path)


def serve_nbdkit(socket_path, *arguments):
    """nbdkit in the foreground; `arguments` are its options, the plugin and the plugin's own."""
    return Server([need("nbdkit"), "-f", "-U", socket_path, *arguments], socket_path)
