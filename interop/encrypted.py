# SPDX-License-Identifier: Apache-2.0
"""What tests of encrypted images share: a directory with secrets, and a program on a terminal."""
import os
import pty
import select
import signal
import time

import pattern
import peers

KIB, MIB = 1 << 10, 1 << 20
SIZE = 4 * MIB
SEED = 20261121
QUICK = "iter-time=10"


class EncryptedCase(peers.Case):
    """A disk's content in `self.raw`, and two passphrases: secrets sec0 and sec1."""

    def setUp(self):
        super().setUp()
        self.raw = self.directory / "disk.raw"
        self.copy = self.directory / "copy.raw"
        self.wanted = pattern.sparse(SIZE, SEED)
        self.wanted.write(self.raw)
        self.key_file = self.secret("sec0", b"correct horse battery staple")
        self.secret("sec1", b"another one")
        self.secret("wrong", b"nobody's")

    def secret(self, name, content):
        path = self.directory / f"{name}.key"
        path.write_bytes(content)
        return path

    def objects(self, *names):
        """--object words for the secrets (default: sec0)."""
        words = []
        for name in names or ("sec0",):
            words += ["--object", f"secret,id={name},file={self.directory / name}.key"]
        return words

    def require_refused(self, text, *words, status=1, **options):
        """ringdisk says one line that holds `text`, and fails."""
        done = peers.ringdisk(*words, expect=status, **options)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        self.assertIn(text, lines[0])
        return lines[0]


class Typist:
    """A program on a terminal of its own, and what is typed there."""

    def __init__(self, argv):
        self.seen = b""
        self.status = None
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execv(str(argv[0]), [str(word) for word in argv])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)

    def wait_for(self, text, timeout_s=60):
        """Until the terminal shows `text`."""
        limit = time.monotonic() + timeout_s
        while text.encode() not in self.seen:
            if time.monotonic() > limit or not self._look():
                raise peers.PeerFailed(f"{text!r} did not appear: {self.seen!r}")

    def type(self, text):
        os.write(self._terminal, text.encode())

    def end(self):
        """Its exit status; all that it shows is in `seen`."""
        while self._look():
            pass
        _, self.status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(self.status)

    def _look(self):
        ready, _, _ = select.select([self._terminal], [], [], 60)
        try:
            more = os.read(self._terminal, 4096) if ready else b""
        except OSError:  # the other side is closed
            more = b""
        self.seen += more
        return bool(more)
