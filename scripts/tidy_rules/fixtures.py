# SPDX-License-Identifier: Apache-2.0
#
# How the tests of the rules are written: a made-up tree whose wrong lines carry the mark "@bad".
# A rule must find exactly the marked lines, so a rule that finds nothing, or too much, fails its
# test.
import tidy_rules
from tidy_rules.tree import Tree

MARK = "@bad"
SPDX = "SPDX-License-Identifier: Apache-2.0"
CPP_HEADER = f"// {SPDX}\n//\n// What the file is.\n"
SCRIPT_HEADER = f"#!/usr/bin/env python3\n# {SPDX}\n#\n# What the script does.\n"

# Which rules were shown a wrong text and which a right one, over all tests of the process.
refused = set()
accepted = set()


def cpp(code, path="src/base/x.cc"):
    """A tree of one C++ file with the usual header before `code`."""
    pragma = "#pragma once\n" if path.endswith(".h") else ""
    return {path: CPP_HEADER + pragma + code}


def marked_lines(texts):
    return sorted((path, number) for path, text in texts.items()
                  for number, line in enumerate(text.split("\n"), 1) if MARK in line)


def findings_of(rule, texts):
    """What `rule` finds in the tree, as (path, line) without repetitions, and the full findings."""
    results = tidy_rules.run(Tree.of_texts(texts), None if rule == "allow_list" else [rule])
    found = results[rule]
    return sorted({(finding.path, finding.line) for finding in found}), found


def check(test, rule, texts):
    """Fails unless `rule` finds exactly the marked lines of `texts`."""
    marks = marked_lines(texts)
    places, found = findings_of(rule, texts)
    test.assertEqual(places, marks, "\n".join(f.message for f in found))
    (refused if marks else accepted).add(rule)
    for finding in found:
        test.assertTrue(len(finding.message) > 20, "a message says what to do instead")


def check_at(test, rule, texts, places):
    """The same for lines that cannot carry a mark (a missing file, a first line)."""
    found, _ = findings_of(rule, texts)
    test.assertEqual(found, sorted(places))
    (refused if places else accepted).add(rule)
