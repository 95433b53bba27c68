# SPDX-License-Identifier: Apache-2.0
"""Load by fio's nbd engine (libnbd) on an NBD server, and what the server pays for it."""
import json

import peers
from harness import usage
from harness.world import CannotMeasure


def require_nbd_engine(world):
    """CannotMeasure when this fio was built without libnbd."""
    engines = peers.run([world.path("fio"), "--enghelp"], expect=None).stdout
    if "nbd" not in engines.split():
        raise CannotMeasure(f"{world.path('fio')} has no nbd engine: run bench/peers/setup")


def one_pass(world, path, write, block, batch, direct, passes):
    """Seconds that fio needs for `passes` over a raw file, `batch` requests of `block` bytes at a
    time: in sequence when batch is 1, anywhere else. Plain calls through the page cache, io_uring
    past it."""
    kind = ("" if batch == 1 else "rand") + ("write" if write else "read")
    engine = ["--ioengine=io_uring", f"--iodepth={batch}", f"--iodepth_batch={batch}",
              f"--iodepth_batch_complete_min={batch}", f"--iodepth_batch_complete_max={batch}",
              "--direct=1"] if direct else ["--ioengine=psync"]
    done = peers.run([world.path("fio"), "--name=pass", f"--filename={path}", f"--rw={kind}",
                      f"--bs={block}", *engine, "--invalidate=0", f"--loops={passes}",
                      "--output-format=json"])
    job, = json.loads(done.stdout[done.stdout.index("{"):])["jobs"]
    return job["write" if write else "read"]["runtime"] / 1000


def random_load(world, server, workload, jobs, depth=64, block="4k", size_bytes=None):
    """Runs `workload` ("randread", "randwrite", "randrw", "rw") on the first `size_bytes` of a
    server's export (default: as many as an image has) from `jobs` connections. Gives {"iops":
    requests a second, "server_us": server CPU microseconds a request}."""
    before = usage.cpu_seconds_of(server.pid)
    done = peers.run([
        world.path("fio"), "--name=load", "--ioengine=nbd", f"--uri={server.uri()}",
        f"--rw={workload}", f"--bs={block}", f"--iodepth={depth}", f"--numjobs={jobs}",
        f"--size={size_bytes or world.settings.image_bytes}", "--norandommap", "--randrepeat=1",
        "--time_based", f"--runtime={world.settings.load_seconds}", "--group_reporting",
        "--output-format=json"])
    used = usage.cpu_seconds_of(server.pid) - before
    # fio may say something before the JSON.
    job, = json.loads(done.stdout[done.stdout.index("{"):])["jobs"]
    sides = (job["read"], job["write"])
    requests = sum(side["total_ios"] for side in sides)
    if job["error"] or not requests:
        raise peers.PeerFailed(f"fio: error {job['error']}, {requests} requests done")
    return {"iops": sum(side["iops"] for side in sides), "server_us": used * 1e6 / requests}
