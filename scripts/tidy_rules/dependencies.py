# SPDX-License-Identifier: Apache-2.0
#
# Rules about who includes whom. DEPS (at the root) lists, lowest rank first, what each folder may
# include; its header describes the format, and cmake/deps.cmake links by the same lines.
import re

from tidy_rules.findings import Finding, split_entries

INCLUDE = re.compile(r'^#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
THROWING_LIBRARIES = ("CLI/", "nlohmann/")


def includes(file):
    """(line, path, is_quoted) of each include of a C++ file."""
    for directive in file.scan.directives:
        found = INCLUDE.match(directive.text)
        if found:
            yield directive.line, found.group(1) or found.group(2), found.group(1) is not None


def read_deps(tree):
    """({folder: allowed folders}, findings), in the order of rank."""
    allowed, findings = {}, []
    for number, words in split_entries(tree.text_of("DEPS")):
        folder = words[0]
        if not re.fullmatch(r"[a-z0-9_]+:", folder):
            findings.append(Finding("DEPS", number, "cannot read this line; write "
                                    "'folder: the folders it may include'"))
            continue
        folder = folder[:-1]
        if folder in allowed:
            findings.append(Finding("DEPS", number, f"'{folder}' has a line already"))
        names = set()
        for word in words[1:]:
            name = word.rstrip("+")
            if name not in allowed:
                findings.append(Finding("DEPS", number, f"'{folder}' names '{name}', which has no "
                                        "line above it; order the lines by rank"))
                continue
            names.add(name)
            if word.endswith("+"):
                names |= allowed[name]
        allowed[folder] = names
    return allowed, findings


def check_deps(tree):
    """Includes follow DEPS: lower ranks only, slices know nothing of each other."""
    allowed, findings = read_deps(tree)
    yield from findings
    for file in tree.cpp():
        if file.folder and file.folder not in allowed:
            yield Finding(file.path, 1, f"the folder '{file.folder}' has no line in DEPS; add one "
                          "that says what it may include")
        elif file.is_shipped or (file.top == "sim" and not file.is_test):
            yield from check_includes_of(file, allowed)


def check_includes_of(file, allowed):
    for line, path, is_quoted in includes(file):
        if not is_quoted:
            continue
        folder = path.split("/", 1)[0] if "/" in path else ""
        if not folder or folder == "..":
            yield Finding(file.path, line, f'"{path}" is included without its folder; write '
                          f'"{file.folder}/{path.rsplit("/", 1)[-1]}"')
        elif folder == "sim" and file.top == "src":
            yield Finding(file.path, line, "shipped code must not include the simulator; take the "
                          "interface it implements as an argument")
        elif path.endswith("_test.h") and file.top == "src":
            yield Finding(file.path, line, f'"{path}" is a header for tests; what ships must not '
                          "include it: move what both need into a header of its own")
        elif folder != file.folder and folder not in allowed.get(file.folder, ()):
            known = folder in allowed
            reason = ("DEPS does not let it" if known else "DEPS knows no such folder")
            yield Finding(file.path, line, f"'{file.folder}' includes \"{path}\" but {reason}; use "
                          "what block/ or a lower folder offers, or hand the thing in from app/")


def check_include_cycles(tree):
    """No file includes itself by way of others."""
    edges = {}
    for file in tree.cpp():
        edges[file.path] = targets = []
        for line, path, is_quoted in includes(file):
            if is_quoted:
                target = next((p for p in ("src/" + path, path) if p in tree.by_path), None)
                if target:
                    targets.append((target, line))
    state = {}  # path -> "open" while its includes are followed, then "done"

    def follow(path, trail):
        state[path] = "open"
        for target, line in edges.get(path, ()):
            if state.get(target) == "open":
                ring = trail[trail.index(target):] + [target]
                yield Finding(path, line, "include cycle: " + " -> ".join(ring) +
                              "; move what both need into a file of its own")
            elif target not in state:
                yield from follow(target, trail + [target])
        state[path] = "done"

    for path in edges:
        if path not in state:
            yield from follow(path, [path])


def check_throwing_libraries(tree):
    """Libraries that throw are included by files named *_throwing.cc only."""
    for file in tree.cpp():
        if file.path.endswith("_throwing.cc"):
            continue
        for line, path, _ in includes(file):
            if path.startswith(THROWING_LIBRARIES):
                yield Finding(file.path, line, f"<{path}> throws; wrap it once, in a file named "
                              "*_throwing.cc, behind a header that returns Result")
