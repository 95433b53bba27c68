# SPDX-License-Identifier: Apache-2.0
"""A guest: QEMU with a current kernel and an initramfs made for the test, and scripts run in it.

    with Guest(modules=["nbd nbds_max=2"], tools=["nbd-client", "mkfs.ext4"], add=[ringdisk],
               disks=[image]) as guest:
        text = guest.run("nbd-client -unix /run/nbd.sock /dev/nbd0")

QEMU's plain emulation is taken even where /dev/kvm is: the same processor everywhere (AVX2, no
AVX-512), so that a test passes or fails for everyone alike. It is slow (a boot takes about ten
seconds, a system call twenty times longer than here), so a file of tests shares one guest.
One guest runs at a time on a machine, whoever starts it: two make each other late.
Only the QEMU that was started here is ever ended.
"""
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

from vm.initramfs import Initramfs
from vm.kernel import Absent, kernel_directory, locked
from vm.modules import Modules

BOOT_TIMEOUT_S = 120
SCRIPT_TIMEOUT_S = 120
END_TIMEOUT_S = 30
GRACE_S = 30                 # more than the guest gives a script, for it to say why
SHOWN_LINES = 40             # of output and of kernel messages, in an error
STATUS_LATE = 124
INIT = pathlib.Path(__file__).with_name("init")
ALWAYS = ("bash",)           # besides busybox
FILES_OF = {"mkfs.ext4": ["/etc/mke2fs.conf"]}
PACKAGES = {"busybox": "busybox-static", "qemu-system-x86_64": "qemu-system-x86",
            "nbd-client": "nbd-client", "cryptsetup": "cryptsetup-bin", "dmsetup": "dmsetup",
            "mkfs.ext4": "e2fsprogs", "e2fsck": "e2fsprogs"}
COMPLAINT = re.compile(r"BUG:|WARNING: CPU|Oops|panic|blocked for more than|I/O error|vm-init:")


def most_telling(messages):
    """Of the kernel's messages: the first complaint and what follows, or the last ones."""
    first = next((i for i, line in enumerate(messages) if COMPLAINT.search(line)), -SHOWN_LINES)
    return messages[first:][:SHOWN_LINES]


class GuestFailed(Exception):
    """A guest or a script in it ended otherwise than expected; the text says what both said."""


def tool_path(name):
    """The path of this machine's program `name`, /sbin included; Absent when it is not there."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        package = PACKAGES.get(name)
        raise Absent(f"{name} is not on this machine"
                     + (f": install Debian's {package}" if package else ""))
    return path


class Guest:
    """One virtual machine, from the start to the end of a `with` block.

    modules   kernel modules, "NAME" or "NAME parameter=value …"; what they need comes along
    tools     programs of this machine, found by name
    add       programs by path, put into /usr/local/bin under their own name
    disks     raw files, /dev/vda, /dev/vdb … in the guest; what it writes is in them at the end
    vhost_user  sockets of vhost-user-blk servers outside, the next disks, two queues each
    forgiven  a regular expression: complaints of the kernel that the test provokes

    A kernel that complains of anything else fails the test at the end."""

    def __init__(self, modules=(), tools=(), add=(), disks=(), vhost_user=(), memory_mib=768,
                 cores=2, forgiven=r"(?!)"):
        self._modules = [*modules, *(["virtio_blk"] if disks or vhost_user else [])]
        self._tools = [*ALWAYS, *tools]
        self._added = [pathlib.Path(path) for path in add]
        self._disks = [pathlib.Path(path) for path in disks]
        self._vhost_user = [pathlib.Path(path) for path in vhost_user]
        self._size = (memory_mib, cores)
        self._forgiven = re.compile(forgiven)
        self._cleanup = contextlib.ExitStack()
        self._directory = self._process = self._agent = None
        self._shown = 0

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked("one-guest"))
            self._directory = pathlib.Path(stack.enter_context(
                tempfile.TemporaryDirectory(prefix="ringdisk-vm-")))
            kernel = kernel_directory()
            self._pack(kernel)
            stack.callback(self._end)
            self._start(kernel)
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, kind, *_):
        with self._cleanup:
            if kind is None:
                self._agent.sendall(b"end\n")
                self._wait_for_end()
                complaints = self.complaints()
                if complaints:
                    raise GuestFailed(self._report("the kernel complained: " + complaints[0]))

    def run(self, script, timeout_s=SCRIPT_TIMEOUT_S, expect=0):
        """Runs a bash script (-euo pipefail) as root; gives what it printed, both streams.
        GuestFailed when its status is not `expect`; None takes any."""
        content = script.encode()
        self._agent.sendall(b"run %d %d\n" % (timeout_s, len(content)) + content)
        answer = self._answer(timeout_s + GRACE_S)
        text = self._new_output()
        status = int(answer.removeprefix("done "))
        if expect is not None and status != expect:
            why = f"stopped after {timeout_s} s" if status == STATUS_LATE else f"status {status}"
            raise GuestFailed(self._report(f"the script: {why}, expected {expect}\n{text}"))
        return text

    def complaints(self):
        """Lines of the kernel that tell of trouble, but for those that are forgiven."""
        return [line for line in self._console().splitlines()
                if COMPLAINT.search(line) and not self._forgiven.search(line)]

    # Starting

    def _pack(self, kernel):
        tree = Initramfs()
        tree.add_file(tool_path("busybox"), "/usr/bin/busybox")
        for name in self._tools:
            tree.add_file(tool_path(name))
            for path in FILES_OF.get(name, ()):
                tree.add_file(path)
        for path in self._added:
            tree.add_file(path, f"/usr/local/bin/{path.name}")
        modules = Modules(kernel)
        for name in self._modules:
            modules.select(name)
        for name, content in modules.contents.items():
            tree.add_bytes(f"/vm/modules/{name}.ko", content)
        loads = "".join(f"{name} {parameters}\n" for name, parameters in modules.order)
        tree.add_bytes("/vm/load", loads.encode())
        tree.add_bytes("/etc/passwd", b"root:x:0:0:root:/root:/bin/bash\n")
        tree.add_bytes("/etc/group", b"root:x:0:\ndisk:x:6:\n")
        tree.add_bytes("/etc/hosts", b"127.0.0.1 localhost guest\n")
        tree.add_bytes("/init", INIT.read_bytes(), executable=True)
        tree.write(self._directory / "initramfs")

    def _command(self, kernel):
        memory_mib, cores = self._size
        command = [
            tool_path("qemu-system-x86_64"), "-no-user-config", "-nodefaults", "-display", "none",
            "-no-reboot", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-smp", str(cores), "-m", str(memory_mib), "-kernel", str(kernel / "vmlinuz"),
            "-initrd", "initramfs", "-append",
            "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic random.trust_cpu=on "
            "mitigations=off nowatchdog",
            "-chardev", "file,id=console,path=console", "-serial", "chardev:console",
            "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
            "-chardev", "socket,id=agent,path=agent,server=on,wait=off",
            "-chardev", "file,id=output,path=output"]
        for port in ("agent", "output"):
            command += ["-device", f"virtserialport,chardev={port},name={port}"]
        return command + self._disk_options(memory_mib)

    def _disk_options(self, memory_mib):
        def quoted(path):
            return str(path.resolve()).replace(",", ",,")
        options = []
        for number, path in enumerate(self._disks):
            options += ["-drive", f"if=none,id=disk{number},format=raw,discard=unmap,"
                        f"file.locking=off,file={quoted(path)}",  # the test reads it meanwhile
                        "-device", f"virtio-blk-pci,drive=disk{number}"]
        if self._vhost_user:  # whose servers map the guest's memory
            options += ["-object", f"memory-backend-memfd,id=memory,size={memory_mib}M,share=on",
                        "-machine", "memory-backend=memory"]
        for number, path in enumerate(self._vhost_user):
            options += ["-chardev", f"socket,id=server{number},path={quoted(path)}", "-device",
                        f"vhost-user-blk-pci,chardev=server{number},num-queues=2"]
        return options

    def _start(self, kernel):
        for name in ("console", "output", "qemu.log"):
            (self._directory / name).touch()
        with open(self._directory / "qemu.log", "wb") as log:
            self._process = subprocess.Popen(self._command(kernel), cwd=self._directory,
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._agent = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while self._agent.connect_ex(str(self._directory / "agent")) != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise GuestFailed(self._report("QEMU did not start"))
            time.sleep(0.02)
        answer = self._answer(max(1, deadline - time.monotonic()))
        if answer != "ready":
            raise GuestFailed(self._report(f"the guest said {answer!r} instead of ready"))

    # Talking

    def _answer(self, timeout_s):
        self._agent.settimeout(timeout_s)
        line = b""
        try:
            while not line.endswith(b"\n"):
                piece = self._agent.recv(1)
                if not piece:
                    self._process.wait()
                    raise GuestFailed(self._report("the guest ended by itself"))
                line += piece
        except TimeoutError as late:
            raise GuestFailed(self._report(f"no answer after {timeout_s:.0f} s")) from late
        return line.decode().strip()

    def _new_output(self):
        with open(self._directory / "output", "rb") as file:
            file.seek(self._shown)
            content = file.read()
        self._shown += len(content)
        return content.decode(errors="replace")

    def _console(self):
        text = (self._directory / "console").read_text(errors="replace")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", text)

    def _report(self, what):
        def shown(lines):
            return "\n".join(f"  | {line}" for line in lines)

        def tail(text):
            return shown(text.splitlines()[-SHOWN_LINES:])
        log = (self._directory / "qemu.log").read_text(errors="replace")
        parts = [what, tail(self._new_output()), "kernel messages:",
                 shown(most_telling(self._console().splitlines()))]
        return "\n".join(parts + (["QEMU:", tail(log)] if log else []))

    # Ending

    def _wait_for_end(self):
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired as late:
            raise GuestFailed(self._report(f"no end after {END_TIMEOUT_S} s")) from late

    def _end(self):
        if self._agent is not None:
            self._agent.close()
        if self._process is not None:
            self._process.kill()  # does nothing to one that has ended
            self._process.wait()
