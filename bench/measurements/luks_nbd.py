# SPDX-License-Identifier: Apache-2.0
"""4 KiB random requests over NBD of a LUKS1 image, depth 32, one connection, in tmpfs.

fio and the server share the machine's cores. Against ringdisk itself on a plain raw file with the
same data, and against qemu-nbd on the same LUKS image, at the better of --aio=io_uring and threads.
"""
import peers
from harness import encrypted, fio, images, servers
from harness.contest import Contender, Result, alternate, check_at_least, most

NAME = "luks-nbd"
DEPTH = 32
OF_PLAIN = 0.85
OF_QEMU = 2.5
UNITS = {"iops": "requests/s", "server_us": "server CPU us/request"}


def measure(world):
    """Reads and writes."""
    fio.require_nbd_engine(world)
    image = world.ram / "random.luks"
    with images.copy_of(images.raw_source(world), world.ram, "random.raw") as raw:
        try:
            encrypted.create(world, "luks", image, world.settings.image_bytes)
            peers.run([world.path("qemu-img"), "convert", *encrypted.secret(world), "-n", "-m",
                       "16", "-W", "-f", "raw", "--target-image-opts", raw,
                       encrypted.luks(image)])
            for workload in ("randread", "randwrite"):
                yield _contest(world, image, raw, workload)
        finally:
            image.unlink(missing_ok=True)


def _contest(world, image, raw, workload):
    title = f"NBD 4k {workload} depth {DEPTH} over LUKS, 1 connection"
    world.log(title)
    socket = world.ram / "nbd.sock"

    def contender(name, argv, **ready):
        def run():
            with peers.Server(argv, socket, **ready) as server:
                return fio.random_load(world, server, workload, 1, depth=DEPTH)
        return Contender(name, run)

    def ringdisk(name, *image_words):
        return contender(name, [world.path("ringdisk"), "serve", *image_words, "--nbd",
                                f"unix:{socket}", "--cache", "writeback"],
                         ready_line="ringdisk: ready")

    def qemu_nbd(aio):
        return contender(f"qemu-nbd {aio}",
                         [world.path("qemu-nbd"), *encrypted.secret(world), "--image-opts",
                          encrypted.luks(image), "-k", socket, "-t", "-e",
                          servers.CONNECTIONS_MAX, "--cache=writeback", f"--aio={aio}"])

    series = alternate([
        ringdisk("ringdisk, LUKS", *encrypted.secret(world), "--image-opts",
                 encrypted.luks(image)),
        ringdisk("ringdisk, raw", "-f", "raw", raw),
        qemu_nbd("io_uring"), qemu_nbd("threads"),
    ], world.settings.runs, world.log)
    ours = series["ringdisk, LUKS"]
    qemu = most([series["qemu-nbd io_uring"], series["qemu-nbd threads"]], "iops")
    checks = [check_at_least(f"{title}: requests/s", ours, series["ringdisk, raw"], "iops",
                             OF_PLAIN),
              check_at_least(f"{title}: requests/s", ours, qemu, "iops", OF_QEMU)]
    return Result(title, UNITS, list(series.values()), checks)
