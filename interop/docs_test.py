#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The commands that docs/*.md shows work as they stand there: the sh blocks of a page, in order, in
an empty directory."""
import contextlib
import os
import re
import shlex
import signal
import subprocess

import peers

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
PROGRAMS = ["nbdinfo", "nbdcopy", "cryptsetup"]
PAGE_TIMEOUT_S = 200


class DocsTest(peers.Case):
    def run_page(self, name):
        text = (peers.REPOSITORY / "docs" / name).read_text(encoding="utf-8")
        blocks = BLOCK.findall(text)
        self.assertGreater(len(blocks), 3)
        script = "\n".join(["set -eux", *blocks])
        programs = self.directory / "programs"
        programs.mkdir()
        for program, path in (("ringdisk", peers.ringdisk_path()), *self.peer_paths()):
            wrapper = programs / program
            wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(str(path))} "$@"\n', encoding="utf-8")
            wrapper.chmod(0o755)
        work = self.directory / "work"
        work.mkdir()
        environment = dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin")
        log = self.directory / "log"
        with open(log, "wb") as output, subprocess.Popen(
                ["bash", "-c", script], cwd=work, env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True) as page:
            try:
                status = page.wait(PAGE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                status = "none: it hangs"
            with contextlib.suppress(ProcessLookupError):
                os.killpg(page.pid, signal.SIGKILL)  # a server that a failure has left
        self.assertEqual(status, 0, log.read_text(encoding="utf-8", errors="replace")[-2000:])

    def peer_paths(self):
        for program in PROGRAMS:
            yield program, peers.need(program)

    def test_qcow2(self):
        self.run_page("qcow2.md")

    def test_encryption(self):
        self.run_page("encryption.md")


if __name__ == "__main__":
    peers.main(needs=PROGRAMS)
