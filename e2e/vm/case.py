# SPDX-License-Identifier: Apache-2.0
"""Tests in a guest, for unittest: one guest for a class of tests, and reasons for skipping them."""
import sys
import unittest

import peers
from vm.guest import Guest, tool_path
from vm.kernel import Absent, kernel_directory


class Case(unittest.TestCase):
    """Tests that share one guest, `self.guest`, made with the keywords of `self.machine()`."""

    guest = None

    @classmethod
    def machine(cls):
        """What to give to Guest."""
        return {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.guest = cls.enterClassContext(Guest(**cls.machine()))


def main(needs=()):
    """Runs the calling file's tests; status 77 ("skipped") and the reason where the virtual
    machine, ringdisk or one of the programs `needs` cannot be had."""
    try:
        peers.ringdisk_path()
        for name in ("qemu-system-x86_64", "busybox", *needs):
            tool_path(name)
        kernel_directory()
    except (Absent, peers.MissingPeer) as absent:
        print(f"skipped: {absent}")
        sys.exit(peers.EXIT_SKIPPED)
    unittest.main(module="__main__", verbosity=2)
