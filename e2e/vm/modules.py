# SPDX-License-Identifier: Apache-2.0
"""Kernel modules for a guest: which files, in which order.

What a module depends on is read from the module itself (its .modinfo section holds "depends=a,b"
and "softdep=pre: c", each ended by a NUL byte), so that neither kmod nor a run of depmod is
needed. Modules are unpacked here: the guest only loads them.
"""
import lzma
import re

from vm.kernel import Absent


class Modules:
    """The modules of one kernel. `select()` first, then `names` (in the order of loading; with
    parameters) and `contents` say what the guest must have."""

    def __init__(self, directory):
        self._root = directory / "modules"
        self._paths = {_plain(path.name): path for path in self._root.rglob("*.ko*")}
        built_in = (self._root / "modules.builtin").read_text(encoding="ascii").split()
        self._built_in = {_plain(path.rsplit("/", 1)[-1]) for path in built_in}
        self.contents = {}
        self.order = []

    def select(self, wanted):
        """Adds `wanted` ("NAME" or "NAME parameter=value …") and all that it needs before it.
        What is built into the kernel needs no file."""
        name, _, parameters = wanted.partition(" ")
        self._add(_plain(name), parameters, needed_by=None)

    def _add(self, name, parameters, needed_by):
        if name in self.contents or name in self._built_in:
            return
        if name not in self._paths:
            whose = f", which {needed_by} needs" if needed_by else ""
            raise Absent(f"the kernel has no module {name}{whose}")
        content = _unpacked(self._paths[name])
        self.contents[name] = content  # before its needs: there may be a cycle of soft ones
        for soft in re.findall(rb"\0softdep=pre: ?([^\0]*)", content):
            for other in soft.decode().split("post:")[0].split():
                if _plain(other) in self._paths:
                    self._add(_plain(other), "", name)
        for hard in re.findall(rb"\0depends=([^\0]+)", content):
            for other in hard.decode().split(","):
                self._add(_plain(other), "", name)
        self.order.append((name, parameters))


def _plain(file_name):
    """A module's name as the kernel has it: "dm-crypt.ko.xz" is dm_crypt."""
    return file_name.split(".ko")[0].replace("-", "_")


def _unpacked(path):
    content = path.read_bytes()
    if path.suffix == ".ko":
        return content
    if path.suffix == ".xz":
        return lzma.decompress(content)
    raise Absent(f"{path}: compressed in a way that the virtual machine's tools do not know")
