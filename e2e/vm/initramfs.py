# SPDX-License-Identifier: Apache-2.0
"""The files of a guest, packed as the kernel takes them (a cpio archive in the "newc" format).

Programs bring the shared libraries that ldd lists. /bin, /sbin, /lib and /lib64 are links into
/usr, as on a merged Debian, so that paths of this machine are right in the guest.

One entry of the archive, all numbers eight hexadecimal digits, name and content each padded with
zeros to a multiple of four (the kernel's Documentation/driver-api/early-userspace/buffer-format):

    | 070701 | ino | mode | uid | gid | nlink | mtime | size | device (4) | name size | 0 |
    | name NUL | content |
"""
import os
import pathlib
import re
import stat
import subprocess

MERGED = ("bin", "sbin", "lib", "lib64")
DIRECTORIES = ("dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "vm", "var/lib", "var/log",
               "usr/bin", "usr/sbin", "usr/lib", "usr/lib64")


class MissingLibrary(Exception):
    """A program cannot be taken along: this machine does not have all its libraries."""


class Initramfs:
    """A tree of files; `add_…` then `write`. The first file at a path stays."""

    def __init__(self):
        self._entries = {}  # path without the first slash: (mode, path of this machine or bytes)
        for path in DIRECTORIES:
            self._add_directory(path)
        for name in MERGED:
            self.add_link(f"/{name}", f"usr/{name}")
        self.add_link("/var/run", "../run")
        self.add_link("/etc/mtab", "../proc/self/mounts")

    def add_bytes(self, path, content, executable=False):
        """A file with `content`."""
        self._add(path, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def add_link(self, path, target):
        """A symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, os.fsencode(target))

    def add_file(self, source, path=None):
        """This machine's file `source`, at `path` (default: the same), and its libraries."""
        source = pathlib.Path(source)
        mode = stat.S_IFREG | stat.S_IMODE(source.stat().st_mode)
        self._add(path or str(source), mode, source.resolve())
        for library in libraries(source):
            self._add(library, stat.S_IFREG | 0o755, pathlib.Path(library).resolve())

    def write(self, target):
        """Writes the archive to the file `target`."""
        with open(target, "wb") as out:
            for number, path in enumerate(sorted(self._entries), 1):  # parents before children
                mode, content = self._entries[path]
                if isinstance(content, pathlib.Path):
                    content = content.read_bytes()
                out.write(_entry(number, mode, path, content))
            out.write(_entry(0, 0, "TRAILER!!!", b""))

    def _add_directory(self, path):
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            self._entries.setdefault("/".join(parts[:count]), (stat.S_IFDIR | 0o755, b""))

    def _add(self, path, mode, content):
        path = re.sub(rf"^({'|'.join(MERGED)})/", r"usr/\1/", path.lstrip("/"))
        if "/" in path:
            self._add_directory(path.rsplit("/", 1)[0])
        self._entries.setdefault(path, (mode, content))


def libraries(program):
    """Paths of the shared libraries of an ELF file, its loader included; none for other files."""
    with open(program, "rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    missing = re.findall(r"^\s*(\S+) => not found", listed, re.M)
    if missing:
        raise MissingLibrary(f"{program} needs {', '.join(missing)}, not found on this machine")
    found = re.findall(r"^\s*(?:\S+ => )?(/\S+) \(0x", listed, re.M)
    # Threads load it by name when they end.
    return found + [path for path in ("/lib/x86_64-linux-gnu/libgcc_s.so.1",)
                    if found and os.path.exists(path)]


def _entry(number, mode, path, content):
    name = os.fsencode(path) + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    numbers = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % value for value in numbers) + name
    return _padded(head) + _padded(content)


def _padded(content):
    return content + bytes(-len(content) % 4)
