# SPDX-License-Identifier: Apache-2.0
"""Runs one program and says what it cost: wall time, CPU time, memory; and a server's CPU time.

CPU time is user plus system time of the process and the children it waited for, from wait4 for a
program that ends and from /proc/PID/stat for one that runs. Both count threads of io_uring that
the kernel starts for the process.
"""
import os
import resource
import subprocess
import tempfile
import time

import peers

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def run_measured(argv):
    """Runs a program to its end. Gives ({"seconds", "cpu_seconds", "memory_mib"}, its output).

    PeerFailed when it fails. The peak of memory can't be told below what this runner itself has
    had (memory_floor_mib), since a new process counts from there."""
    argv = [str(word) for word in argv]
    with tempfile.TemporaryFile() as output:
        begin = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=subprocess.STDOUT)
        try:
            _, status, used = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode != 0:
        raise peers.PeerFailed(f"{' '.join(argv)}: exit status {process.returncode}\n{text}")
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime,
            "memory_mib": used.ru_maxrss / 1024}, text


def memory_floor_mib():
    """The least peak of memory that run_measured can report."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_seconds_of(pid):
    """The CPU time that a running process, all threads, has used so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        # The second field, the name in parentheses, may hold anything.
        fields = file.read().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / CLOCK_TICKS
