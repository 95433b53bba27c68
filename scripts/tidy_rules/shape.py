# SPDX-License-Identifier: Apache-2.0
#
# Rules about the shape of files: how long they are, how they begin, what they are called.
import ast
import os
import re

from tidy_rules import tree as kinds
from tidy_rules.findings import Finding, split_entries
from tidy_rules.scanner import FUNCTION, NAMESPACE, CLASS

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
COLUMNS_MAX = 100
README_LINES_MAX = 60
EXCEPTIONS = "scripts/tidy_exceptions.txt"


def is_measured(file):
    return file.is_cpp or file.is_script


# --- sizes ----------------------------------------------------------------------------------------


def function_sizes(file):
    """(name, first line, lines) of each function of a file."""
    if file.is_cpp:
        scan = file.scan
        for body in scan.bodies:
            is_named = body.kind == FUNCTION or scan.scope_kind(body.first) in (NAMESPACE, CLASS)
            if is_named:
                first = scan.line(body.first)
                yield body.name, first, scan.line(body.close) - first + 1
    elif file.kind == kinds.PYTHON:
        try:
            module = ast.parse(file.text)
        except SyntaxError:
            return
        for node in ast.walk(module):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def read_exceptions(tree):
    """({key: limit}, {key: line}, findings); keys are ("file", path), ("function", path, name)."""
    limits, lines, findings = {}, {}, []
    for number, words in split_entries(tree.text_of(EXCEPTIONS)):
        shape = {"file": 3, "function": 4}.get(words[0])
        if shape != len(words) or not words[-1].isdigit():
            findings.append(Finding(EXCEPTIONS, number, "cannot read this entry; write "
                                    "'file PATH LINES' or 'function PATH NAME LINES'"))
            continue
        key = tuple(words[:-1])
        limits[key] = max(int(words[-1]), limits.get(key, 0))
        lines[key] = number
    return limits, lines, findings


def check_sizes(tree):
    """Files of at most 500 lines and functions of at most 70, or an exception that fits exactly."""
    limits, entry_lines, findings = read_exceptions(tree)
    yield from findings
    largest = {}
    for file in tree.files:
        if not is_measured(file):
            continue
        key = ("file", file.path)
        largest[key] = size = len(file.lines)
        if size > limits.get(key, FILE_LINES_MAX):
            yield Finding(file.path, limits.get(key, FILE_LINES_MAX) + 1,
                          f"the file has {size} lines, {limits.get(key, FILE_LINES_MAX)} are "
                          "allowed; split it by what it is about")
        for name, line, lines in function_sizes(file):
            key = ("function", file.path, name)
            largest[key] = max(lines, largest.get(key, 0))
            if lines > limits.get(key, FUNCTION_LINES_MAX):
                yield Finding(file.path, line, f"'{name}' has {lines} lines, "
                              f"{limits.get(key, FUNCTION_LINES_MAX)} are allowed; give its "
                              "parts names of their own")
    for key, limit in limits.items():
        default = FILE_LINES_MAX if key[0] == "file" else FUNCTION_LINES_MAX
        size = largest.get(key, 0)
        if size <= default:
            yield Finding(EXCEPTIONS, entry_lines[key],
                          f"'{' '.join(key)}' needs no exception any more; remove the entry")
        elif size < limit:
            yield Finding(EXCEPTIONS, entry_lines[key],
                          f"'{' '.join(key)}' allows {limit} lines but has {size}; lower it")


def check_columns(tree):
    """Lines of at most 100 columns, but for one unbreakable word such as an address."""
    for file in tree.files:
        if not is_measured(file):
            continue
        for number, line in enumerate(file.lines, 1):
            if len(line) > COLUMNS_MAX and len(line.strip().lstrip("/#* ").split()) > 1:
                yield Finding(file.path, number, f"the line has {len(line)} columns, "
                              f"{COLUMNS_MAX} are allowed; break it")


# --- the first lines ------------------------------------------------------------------------------

SPDX_LINE = re.compile(r"^(//|#) SPDX-License-Identifier: (.*)$")
LICENSE = "Apache-2.0"


def comment_mark(file):
    return "//" if file.is_cpp else "#"


def first_line_number(file):
    return 2 if file.lines and file.lines[0].startswith("#!") else 1


def check_spdx(tree):
    """Exactly one SPDX line, and it is the first (after a script's #! line)."""
    for file in tree.files:
        if not is_measured(file):
            continue
        wanted = f"{comment_mark(file)} SPDX-License-Identifier: {LICENSE}"
        first = first_line_number(file)
        text = file.lines[first - 1] if len(file.lines) >= first else ""
        if text != wanted:
            yield Finding(file.path, first, f"the first line must be '{wanted}'")
        for number, line in enumerate(file.lines, 1):
            if number != first and SPDX_LINE.match(line):
                yield Finding(file.path, number, "a second SPDX line; remove it")


def check_file_header(tree):
    """After the SPDX line a comment says what the file is."""
    for file in tree.files:
        if not is_measured(file) or file.path.endswith("__init__.py"):
            continue
        start = first_line_number(file)
        following = [line.strip() for line in file.lines[start:start + 2]]
        mark = comment_mark(file)
        said = [line for line in following if line.startswith(mark) and line.strip(mark + " ")]
        is_python = file.kind == kinds.PYTHON
        docstring = is_python and any(line.startswith('"""') for line in following)
        if not said and not docstring:
            yield Finding(file.path, start + 1, "no file header; say here in a comment of 2 to 15 "
                          "lines what the file is, who owns it, and what it costs")


def check_pragma_once(tree):
    """A header has #pragma once, before everything but comments."""
    for file in tree.cpp():
        if not file.path.endswith(".h"):
            continue
        directives = file.scan.directives
        if not directives or directives[0].text.split() != ["#pragma", "once"]:
            line = directives[0].line if directives else 1
            yield Finding(file.path, line, "the first directive of a header must be '#pragma once' "
                          "(no include guards)")


# --- names and places -----------------------------------------------------------------------------

BAD_NAME_WORDS = frozenset(("util", "utils", "helper", "helpers", "mgr", "manager", "ctx",
                            "misc", "common", "stuff"))
BAD_NAMES = frozenset(("info", "data"))


def check_file_names(tree):
    """No file is called after nothing in particular; names are snake_case."""
    for file in tree.files:
        if not (file.is_cpp or file.kind in (kinds.PYTHON, kinds.SHELL)):
            continue
        stem = os.path.basename(file.path).split(".")[0]
        plain = re.sub(r"_(test|fuzz|bench|throwing)$", "", stem)
        bad = [word for word in plain.split("_") if word in BAD_NAME_WORDS]
        # "info" is also a command of the program, and its files carry the name of the command.
        if plain in BAD_NAMES and file.folder not in ("jobs", "app"):
            bad.append(plain)
        if bad:
            yield Finding(file.path, 1, f"'{bad[0]}' says nothing as a file name; name the file "
                          "after what it holds")
        if file.is_cpp and not re.fullmatch(r"[a-z][a-z0-9_]*", stem):
            yield Finding(file.path, 1, "C++ files are named in snake_case")


def check_readme(tree):
    """Every folder of code has a README.md that is one short reading."""
    folders = {}
    for file in tree.files:
        parts = file.path.split("/")
        if parts[0] == "src" and len(parts) > 2:
            folders.setdefault("/".join(parts[:2]), file.path)
        elif parts[0] in ("sim", "fuzz", "bench", "interop", "e2e") and len(parts) > 1:
            folders.setdefault(parts[0], file.path)
    for folder in sorted(folders):
        readme = tree.by_path.get(folder + "/README.md")
        if readme is None:
            yield Finding(folder + "/README.md", 1, "missing; write 10 to 30 lines: what the "
                          "folder is for, what it offers, who owns what, on which shards it lives")
        elif len(readme.lines) > README_LINES_MAX:
            yield Finding(readme.path, README_LINES_MAX + 1, f"{len(readme.lines)} lines; aim at "
                          "10 to 30, and move the rest to docs/", is_warning=True)
