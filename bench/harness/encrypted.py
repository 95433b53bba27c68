# SPDX-License-Identifier: Apache-2.0
"""LUKS images for measurements: one passphrase, slots that are quick to open (so that the payload
is measured and not the key derivation), and the words by which every program names them."""
import peers

ITERATION_MS = 10


def secret(world):
    """The arguments that hand the passphrase to ringdisk and to QEMU's programs alike."""
    path = world.ram / "passphrase"
    path.write_text("measured", encoding="ascii")
    return ["--object", f"secret,id=sec0,file={path}"]


def luks(path):
    """A LUKS image as --image-opts."""
    return f"driver=luks,key-secret=sec0,file.filename={path}"


def qcow2(path):
    """A qcow2 image with LUKS inside as --image-opts."""
    return f"driver=qcow2,encrypt.key-secret=sec0,file.filename={path}"


def create(world, kind, path, size):
    """An empty image, made by qemu-img with its default cipher: "luks" or "qcow2"."""
    options = {"luks": f"key-secret=sec0,iter-time={ITERATION_MS}",
               "qcow2": "encrypt.format=luks,encrypt.key-secret=sec0,"
                        f"encrypt.iter-time={ITERATION_MS}"}[kind]
    peers.run([world.path("qemu-img"), "create", "-q", *secret(world), "-f", kind, "-o", options,
               path, size])


def require_same_disk(world, described, source, source_format):
    """Raises PeerFailed unless an encrypted image holds what a plain one does, as qemu-img reads
    them."""
    peers.run([world.path("qemu-img"), "compare", *secret(world), "--image-opts", described,
               f"driver={source_format},file.filename={source}"])
