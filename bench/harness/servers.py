# SPDX-License-Identifier: Apache-2.0
"""The NBD servers that are measured, each started the same way: a function of image and socket."""
import signal

import peers

CONNECTIONS_MAX = "16"


def ringdisk(world, image, socket, *arguments):
    """ringdisk serve, page cache, with as many threads as it takes by default."""
    return peers.Server([world.path("ringdisk"), "serve", image, "--nbd", f"unix:{socket}",
                         "--cache", "writeback", *arguments],
                        socket, ready_line="ringdisk: ready")


def qemu_nbd(world, image, socket, aio, *arguments):
    """qemu-nbd, page cache, with --aio=io_uring or threads."""
    return peers.Server([world.path("qemu-nbd"), "-f", "qcow2", "-k", socket, "-t",
                         "-e", CONNECTIONS_MAX, "--cache=writeback", f"--aio={aio}",
                         *arguments, image], socket)


def nbdkit_file(world, image, socket, *arguments):
    """nbdkit's file plugin on a raw image."""
    return peers.Server([world.path("nbdkit"), "-f", "-U", socket, *arguments, "file", image],
                        socket)


def probe(world, image, socket):
    """The minimal server on a raw image."""
    return peers.Server([world.path("probe_nbd_server"), socket, image], socket,
                        exit_status=-signal.SIGTERM)
