# SPDX-License-Identifier: Apache-2.0
"""The cipher by itself: our AES-XTS kernels against OpenSSL, and one queue that idle cores help.

The kernels: 64 KiB a call, 512-byte sectors, one core, as `ringdisk bench --calibrate` measures
them. The queue: 4 KiB reads at depth 32 from one core over memory, with AES by OpenSSL without AES
instructions, so that the cipher is nearly all there is; with one thread and with two.
"""
import re

import peers
from harness import encrypted, usage
from harness.contest import (Contender, Result, alternate, check_at_least, check_at_most)
from harness.world import MIB

NAME = "luks-cipher"
OF_OPENSSL = 3.5
TWO_OF_ONE = 1.7
CPU_TWO_OF_ONE = 1.15
REQUESTS = 200_000
# Takes AES-NI and PCLMULQDQ out of what OpenSSL believes the machine to have.
NO_AES = "OPENSSL_ia32cap=~0x200000200000000"
KERNEL = re.compile(r"^aes-xts-plain64, 256 bits +(\w+) +([0-9.]+) GB/s", re.MULTILINE)


def measure(world):
    """Kernels, then the queue."""
    yield _kernels(world)
    yield _one_queue(world)


def _kernels(world):
    title = "AES-256-XTS, 512-byte sectors, 64 KiB a call, one core"
    world.log(title)
    argv = [world.path("ringdisk"), "bench", "--calibrate"]
    names = [name for name, _ in KERNEL.findall(peers.run(argv).stdout)]

    def contender(name):
        def run():
            rates = dict(KERNEL.findall(usage.run_measured(argv)[1]))
            return {"gb_per_second": float(rates[name])}
        return Contender(name, run)

    series = alternate([contender(name) for name in names], world.settings.runs, world.log)
    checks = []
    if "vaes512" in series:
        checks.append(check_at_least(title, series["vaes512"], series["openssl"],
                                     "gb_per_second", OF_OPENSSL))
    return Result(title, {"gb_per_second": "GB/s"}, list(series.values()), checks)


def _one_queue(world):
    title = "4k reads of one queue, depth 32, over memory, AES without AES instructions"
    world.log(title)
    header = world.ram / "header.luks"
    encrypted.create(world, "luks", header, MIB)
    description = (f"driver=luks,key-secret=sec0,header={header},"
                   "file.driver=mem,file.size=256M")

    def contender(threads):
        argv = ["env", NO_AES, world.path("ringdisk"), "bench", "--cpu-features", "none",
                "--threads", threads, *encrypted.secret(world), "--queues", 1, "-d", 32, "-c",
                REQUESTS, "--image-opts", description]

        def run():
            used, text = usage.run_measured(argv)
            seconds = re.search(r"completed in ([0-9.]+) seconds", text)[1]
            return {"seconds": float(seconds), "cpu_seconds": used["cpu_seconds"]}
        return Contender(f"{threads} thread{'s' if threads > 1 else ''}", run)

    try:
        series = alternate([contender(1), contender(2)], world.settings.runs, world.log)
    finally:
        header.unlink(missing_ok=True)
    one, two = series["1 thread"], series["2 threads"]
    checks = [check_at_most(f"{title}: wall time", two, one, "seconds", 1 / TWO_OF_ONE),
              check_at_most(f"{title}: CPU time", two, one, "cpu_seconds", CPU_TWO_OF_ONE)]
    return Result(title, {"seconds": "s", "cpu_seconds": "CPU s"}, list(series.values()), checks)
