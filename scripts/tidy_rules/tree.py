# SPDX-License-Identifier: Apache-2.0
#
# The files that the rules look at: which belong to the project, what kind each is, its lines and,
# for C++, its tokens. Built from the working copy (files known to git and new ones that are not
# ignored) or, in tests, from a dictionary.
import os
import re
import subprocess

from tidy_rules.scanner import Scan

CPP, PYTHON, SHELL, BUILD, MARKDOWN, OTHER = "c++", "python", "shell", "build", "markdown", "other"

CODE_FOLDERS = ("src", "sim", "fuzz", "bench", "interop", "e2e", "scripts", "cmake")
BUILD_FILES = ("CMakeLists.txt", "Makefile", "DEPS")
SKIPPED = ("fuzz/corpus/", "build/")


class File:
    """One file of the project. Text, lines and tokens are made when first asked for."""

    def __init__(self, path, read):
        self.path = path
        self._read = read
        self._text = None
        self._lines = None
        self._scan = None
        self._kind = None

    @property
    def text(self):
        if self._text is None:
            self._text = self._read()
        return self._text

    @property
    def lines(self):
        if self._lines is None:
            self._lines = self.text.split("\n")
            if self._lines[-1] == "":
                self._lines.pop()
        return self._lines

    @property
    def scan(self):
        if self._scan is None:
            self._scan = Scan(self.text)
        return self._scan

    @property
    def kind(self):
        if self._kind is None:
            self._kind = self._find_kind()
        return self._kind

    def _find_kind(self):
        name = os.path.basename(self.path)
        extension = os.path.splitext(name)[1]
        by_extension = {".cc": CPP, ".h": CPP, ".c": CPP, ".py": PYTHON, ".sh": SHELL,
                        ".cmake": BUILD, ".md": MARKDOWN}
        if extension in by_extension:
            return by_extension[extension]
        if name in BUILD_FILES:
            return BUILD
        if extension == "" and self.text.startswith("#!"):
            first = self.text.split("\n", 1)[0]
            return PYTHON if "python" in first else SHELL
        return OTHER

    @property
    def is_cpp(self):
        return self.kind == CPP

    @property
    def is_script(self):
        return self.kind in (PYTHON, SHELL, BUILD)

    @property
    def top(self):
        """The first folder of the path; "" for a file of the root."""
        return self.path.split("/", 1)[0] if "/" in self.path else ""

    @property
    def folder(self):
        """The name DEPS knows: the folder below src/, or "sim"; "" for everything else."""
        parts = self.path.split("/")
        if parts[0] == "src" and len(parts) > 2:
            return parts[1]
        return "sim" if parts[0] == "sim" else ""

    @property
    def is_for_developers(self):
        """Tests, fuzzers, benches and their headers: they may see everything, are never shipped."""
        return self.top != "src" or bool(re.search(r"_(test|fuzz|bench)\.(cc|h)$", self.path))

    @property
    def is_test(self):
        return self.path.endswith("_test.cc")

    @property
    def is_shipped(self):
        """C++ that ends up in the binary."""
        return self.is_cpp and not self.is_for_developers


class Tree:
    """All files of the project, in order of their paths."""

    def __init__(self, files):
        self.files = sorted(files, key=lambda file: file.path)
        self.by_path = {file.path: file for file in self.files}

    @classmethod
    def of_texts(cls, texts):
        """A tree made up for a test: {path: text}."""
        return cls([File(path, lambda text=text: text) for path, text in texts.items()])

    @classmethod
    def of_folder(cls, root):
        def reader(path):
            def read():
                with open(os.path.join(root, path), encoding="utf-8", errors="replace") as stream:
                    return stream.read()
            return read
        return cls([File(path, reader(path)) for path in list_files(root)])

    def cpp(self):
        return (file for file in self.files if file.is_cpp)

    def shipped(self):
        return (file for file in self.files if file.is_shipped)

    def text_of(self, path):
        file = self.by_path.get(path)
        return file.text if file else ""


def list_files(root):
    """Paths of the project's files below `root`: git's view of the working copy, or a walk."""
    try:
        out = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True).stdout.decode("utf-8", "replace")
        paths = [path for path in out.split("\0") if path]
    except (OSError, subprocess.CalledProcessError):
        paths = []
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in ("build", ".git", "__pycache__")]
            paths += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted({path for path in paths
                   if not path.startswith(SKIPPED) and os.path.isfile(os.path.join(root, path))})
