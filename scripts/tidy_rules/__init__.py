# SPDX-License-Identifier: Apache-2.0
#
# The rules of the house: RULES names every one, in the order in which they are reported. A rule
# is a function from a Tree to Findings; its docstring says in one line what it holds.
from tidy_rules import banned, coroutines, dependencies, shape
from tidy_rules.findings import Finding, split_entries
from tidy_rules.tree import Tree

ALLOW = "scripts/tidy_allow.txt"

RULES = {
    "deps": dependencies.check_deps,
    "include_cycles": dependencies.check_include_cycles,
    "throwing_libraries": dependencies.check_throwing_libraries,
    "sizes": shape.check_sizes,
    "columns": shape.check_columns,
    "spdx": shape.check_spdx,
    "file_header": shape.check_file_header,
    "pragma_once": shape.check_pragma_once,
    "file_names": shape.check_file_names,
    "readme": shape.check_readme,
    "co_await": coroutines.check_co_await,
    "coroutine_lambda": coroutines.check_coroutine_lambda,
    "aligned_locals": coroutines.check_aligned_locals,
    "thread_local": coroutines.check_thread_local,
    "await_suspend": coroutines.check_await_suspend,
    **{rule: banned.make_check(rule) for rule in banned.BANNED_RULES},
    "reinterpret_cast": banned.check_reinterpret_cast,
    "using_namespace": banned.check_using_namespace,
    "todo": banned.check_todo,
    "globals": banned.check_globals,
}
ALLOWABLE = frozenset(banned.BANNED_RULES) | {"globals"}


def read_allow(tree):
    """({(rule, path): line}, findings) of scripts/tidy_allow.txt; each entry has a reason."""
    entries, findings = {}, []
    for number, words in split_entries(tree.text_of(ALLOW)):
        rule, path, reason = words[0], words[1] if len(words) > 1 else "", words[2:]
        if rule not in ALLOWABLE:
            findings.append(Finding(ALLOW, number, f"'{rule}' is no rule with exceptions; these "
                                    f"have: {', '.join(sorted(ALLOWABLE))}"))
        elif len(reason) < 3:
            findings.append(Finding(ALLOW, number, "an entry is 'RULE PATH the reason in words'"))
        else:
            entries[rule, path] = number
    return entries, findings


def run(tree, names=None):
    """{rule: findings} of the rules called `names`; without names all, and the unneeded entries."""
    entries, allow_findings = read_allow(tree)
    used = set()
    results = {}
    for name in names or RULES:
        kept = []
        for finding in RULES[name](tree):
            if (name, finding.path) in entries:
                used.add((name, finding.path))
            else:
                kept.append(finding)
        results[name] = sorted(kept, key=lambda finding: finding[:3])
    if names is None:
        results["allow_list"] = allow_findings + [
            Finding(ALLOW, number, f"'{rule} {path}' is needed by nothing; remove the entry")
            for (rule, path), number in entries.items() if (rule, path) not in used]
    return results


__all__ = ["RULES", "ALLOW", "Finding", "Tree", "run"]
