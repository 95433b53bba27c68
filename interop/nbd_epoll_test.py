# SPDX-License-Identifier: Apache-2.0
"""The NBD tests once more without io_uring, as in a sandbox or on a kernel that has none: the whole
of nbd_test.py and serve_test.py on the epoll loop."""
import os

import peers
from nbd_test import Fio, Libnbd, Qemu, Served  # pylint: disable=unused-import
from serve_test import Service, Stalled  # pylint: disable=unused-import

# Every server that the tests start inherits it.
os.environ["RINGDISK_LOOP"] = "epoll"


class Loop(Served):
    def test_it_really_is_the_other_loop(self):
        with self.serve("-v") as server:
            self.assertIn("shards on epoll", server.log())


if __name__ == "__main__":
    peers.main(needs=["qemu-img", "qemu-io", "nbdinfo", "nbdcopy", "nbdsh", "fio", "nbd"])
