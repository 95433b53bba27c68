# SPDX-License-Identifier: Apache-2.0
"""Throw-away virtual machines for tests: `with Guest(modules=…) as guest: guest.run(script)`.

One is booted in about ten seconds by plain emulation, without rights and without /dev/kvm, from a
kernel package of the distribution and an initramfs made of this machine's own programs.

kernel.py finds the kernel, modules.py what must be loaded and in which order, initramfs.py packs
the files, guest.py runs the machine and talks to `init`, its process 1; case.py is for unittest.
"""
from vm.case import Case, main
from vm.guest import Guest, GuestFailed
from vm.kernel import Absent

__all__ = ["Absent", "Case", "Guest", "GuestFailed", "main"]
