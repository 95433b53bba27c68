# SPDX-License-Identifier: Apache-2.0
#
# Rules that ban a name or a call and name its replacement. Where one file must use the thing
# after all (the logger writes to stderr, the inbox of a shard needs its lock),
# scripts/tidy_allow.txt says so with the reason; an entry that nothing needs is an error, so the
# list stays true.
import io
import re
import tokenize
from typing import Callable, NamedTuple

from tidy_rules import tree as kinds
from tidy_rules.dependencies import includes
from tidy_rules.findings import Finding
from tidy_rules.scanner import (BLOCK, CLASS, FUNCTION, IDENT, INIT, LAMBDA, NAMESPACE, PUNCT)

# --- who a ban is for -----------------------------------------------------------------------------


def shipped(file):
    return file.is_shipped


def shipped_but_app(file):
    return file.is_shipped and file.folder != "app"


def shipped_but_runtime(file):
    return file.is_shipped and file.folder != "runtime"


def not_throwing(file):
    return file.top in ("src", "sim", "fuzz") and not file.path.endswith("_throwing.cc")


def simulated(file):
    """Code that must run in the simulator's time, its tests included, but not the clock itself."""
    is_clock = file.path.startswith("src/runtime/clock")
    return file.top in ("src", "sim") and not is_clock and not file.path.endswith("_bench.cc")


def src_but_app(file):
    return file.top == "src" and file.folder != "app"


def everywhere(file):
    """All C++; what is written in C (small programs in bench/) has other means."""
    return file.is_cpp and not file.path.endswith(".c")


# --- how a ban recognises its name ----------------------------------------------------------------

STATEMENT_WORDS = frozenset(("return", "co_return", "co_await", "co_yield", "else", "do", "case",
                             "throw"))


def is_word(scan, at):
    """The bare keyword or name, whatever it stands in."""
    del scan, at
    return True


def is_std(scan, at):
    """std::name."""
    return scan.text(at - 1) == "::" and scan.text(at - 2) == "std"


def is_chrono(scan, at):
    return scan.text(at - 1) == "::" and scan.text(at - 2) == "chrono"


def is_this_thread(scan, at):
    return scan.text(at - 1) == "::" and scan.text(at - 2) == "this_thread"


def is_libc_call(scan, at):
    """name(…), ::name(…) or std::name(…): a call, no member, no declaration, no other namespace."""
    if scan.text(at + 1) != "(":
        return False
    before = at - 1
    if scan.text(before) == "::":
        if scan.text(before - 1) == "std":
            before -= 1
        elif scan.tokens[before - 1].kind == IDENT and scan.text(before - 1) not in STATEMENT_WORDS:
            return False
        before -= 1
    if before < 0:
        return True
    token = scan.tokens[before]
    if token.text in (".", "->", "~"):
        return False
    if token.kind == IDENT:
        return token.text in STATEMENT_WORDS
    # `T* name(` and `T& name(` and `T<U> name(` outside of functions declare.
    if token.text in ("*", "&", ">"):
        return scan.owner(at) is not None
    return True


def is_new_expression(scan, at):
    return scan.text(at - 1) != "operator"


def is_delete_expression(scan, at):
    return scan.text(at - 1) not in ("operator", "=")


def is_std_or_libc(scan, at):
    return is_std(scan, at) or is_libc_call(scan, at)


class Ban(NamedTuple):
    """`names`, where `matches` and in files of which `applies`, is to be replaced by `instead`."""
    rule: str
    names: tuple
    matches: Callable
    applies: Callable
    instead: str
    headers: tuple = ()


BANS = (
    Ban("mutex", ("mutex", "recursive_mutex", "shared_mutex", "timed_mutex", "lock_guard",
                  "unique_lock", "scoped_lock", "shared_lock", "condition_variable",
                  "condition_variable_any", "call_once", "once_flag"), is_std, shipped,
        "keep the state on one shard, use async/mutex.h inside it, or send a message to its owner",
        ("mutex", "shared_mutex", "condition_variable")),
    Ban("threads", ("thread", "jthread", "async"), is_std, shipped_but_runtime,
        "run it on a shard (shard.call) or hand it to runtime's pool of blocking calls",
        ("thread", "future")),
    Ban("exceptions", ("throw", "try", "catch"), is_word, not_throwing,
        "return Result; wrap a library that throws in a file named *_throwing.cc"),
    Ban("assert", ("assert",), is_libc_call, everywhere,
        "CHECK (base/check.h), which also holds in release builds", ("cassert", "assert.h")),
    Ban("output", ("printf", "fprintf", "vprintf", "vfprintf", "dprintf", "puts", "fputs",
                   "putchar", "perror"), is_libc_call, shipped_but_app,
        "the log (base/log.h), or return the text to app/"),
    Ban("output", ("cout", "cerr", "clog", "cin"), is_std, shipped_but_app,
        "the log (base/log.h), or return the text to app/", ("iostream",)),
    Ban("clock", ("system_clock", "steady_clock", "high_resolution_clock"), is_chrono, simulated,
        "the clock that is handed down (runtime/clock.h); the simulator has its own"),
    Ban("clock", ("time", "gettimeofday", "clock_gettime", "clock", "localtime", "gmtime"),
        is_libc_call, simulated,
        "the clock that is handed down (runtime/clock.h); the simulator has its own"),
    Ban("random", ("rand", "srand", "random", "srandom", "drand48"), is_libc_call, simulated,
        "the seeded generator that is handed down (base/random.h)"),
    Ban("random", ("random_device",), is_std, simulated,
        "the seeded generator that is handed down (base/random.h)", ("random",)),
    Ban("sleep", ("sleep", "usleep", "nanosleep", "clock_nanosleep"), is_libc_call, simulated,
        "a timer of the loop (runtime/timer.h), which the simulator can run"),
    Ban("sleep", ("sleep_for", "sleep_until"), is_this_thread, simulated,
        "a timer of the loop (runtime/timer.h), which the simulator can run"),
    Ban("environment", ("getenv", "secure_getenv", "setenv", "putenv", "unsetenv"), is_libc_call,
        src_but_app, "an option that app/ reads from the environment and hands down"),
    Ban("new_delete", ("new",), is_new_expression, shipped,
        "std::make_unique, a container, or std::construct_at in storage you own"),
    Ban("new_delete", ("delete",), is_delete_expression, shipped,
        "an owner (std::unique_ptr, a container), or std::destroy_at"),
    Ban("new_delete", ("malloc", "calloc", "realloc", "free", "strdup", "posix_memalign",
                       "aligned_alloc"), is_libc_call, shipped,
        "a container, std::unique_ptr or the buffer pool"),
    Ban("unsafe_c", ("strcpy", "strcat", "strncpy", "strncat", "stpcpy"), is_libc_call, everywhere,
        "std::string, or a bounded copy of a std::span (base/bytes.h)"),
    Ban("unsafe_c", ("sprintf", "vsprintf"), is_libc_call, everywhere,
        "std::string and std::to_chars, or snprintf with the size of the buffer"),
    Ban("unsafe_c", ("atoi", "atol", "atoll", "atof", "strtol", "strtoul", "strtoll", "strtoull",
                     "strtod", "stoi", "stol", "stoul", "stoll", "stoull", "sscanf", "scanf"),
        is_std_or_libc, everywhere, "std::from_chars, which says what it could not read"),
    Ban("unsafe_c", ("strtok",), is_libc_call, everywhere, "std::string_view::find and substr"),
    Ban("unsafe_c", ("system", "popen", "alloca", "gets", "tmpnam", "mktemp"), is_libc_call,
        everywhere, "nothing: name the process, the size or the file yourself"),
)

BANNED_RULES = tuple(dict.fromkeys(ban.rule for ban in BANS))


def make_check(rule):
    """The check of all bans called `rule`."""
    bans = [ban for ban in BANS if ban.rule == rule]

    def check(tree):
        for file in tree.cpp():
            for ban in bans:
                if ban.applies(file):
                    yield from uses_of(file, ban)

    check.__doc__ = ", ".join(name for ban in bans for name in ban.names)
    return check


def uses_of(file, ban):
    for name in ban.names:
        for at in file.scan.places.get(name, ()):
            if ban.matches(file.scan, at):
                yield Finding(file.path, file.scan.line(at), f"'{name}'; instead: {ban.instead}")
    if ban.headers:
        for line, path, is_quoted in includes(file):
            if path in ban.headers and not is_quoted:
                yield Finding(file.path, line, f"<{path}>; instead: {ban.instead}")


# --- bans that need more than a name --------------------------------------------------------------

BYTE_FILES = re.compile(r"^src/base/(endian|bytes|span_reader)\w*\.(h|cc)$")


def check_reinterpret_cast(tree):
    """reinterpret_cast has a comment "// why:" on its line or above, but for base/bytes, endian."""
    for file in tree.cpp():
        places = file.scan.find("reinterpret_cast")
        if not places or BYTE_FILES.match(file.path) or file.top == "bench":
            continue
        explained = lines_explained(file)
        for at in places:
            line = file.scan.line(at)
            if line not in explained:
                yield Finding(file.path, line, "reinterpret_cast without a reason; use "
                              "base/bytes.h, base/endian.h or std::bit_cast, or say "
                              "'// why: …' in the line above")


def lines_explained(file):
    """Lines that carry a comment with "why:", and the first line below a block of such comments."""
    lines = set()
    comment_lines = {comment.line for comment in file.scan.comments}
    for comment in file.scan.comments:
        if "why:" in comment.text:
            lines.add(comment.line)
            line = comment.line + 1
            while line in comment_lines:
                lines.add(line)
                line += 1
            lines.add(line)
    return lines


def check_using_namespace(tree):
    """No using namespace, but for literals."""
    for file in tree.cpp():
        scan = file.scan
        for at in scan.find("namespace"):
            if scan.text(at - 1) != "using":
                continue
            end = at
            while scan.text(end + 1) not in (";", ""):
                end += 1
            if not scan.text(end).endswith("literals"):
                yield Finding(file.path, scan.line(at), "'using namespace'; name what you use "
                              "('using std::span;') or write the namespace")


PROMISE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b(\(#\d+\))?")


def check_todo(tree):
    """TODO names its issue, FIXME and its kin do not exist."""
    for file in tree.files:
        for line, text in remarks_of(file):
            for offset, piece in enumerate(text.split("\n")):
                for word, issue in PROMISE.findall(piece):
                    if word != "TODO" or not issue:
                        yield Finding(file.path, line + offset, f"'{word}' without an issue; do it "
                                      "now, or write an issue and 'TODO(#number): what'")


def remarks_of(file):
    """(line, text) of each comment of a file of code."""
    if file.is_cpp:
        return [(comment.line, comment.text) for comment in file.scan.comments]
    if file.kind == kinds.PYTHON:
        try:
            return [(token.start[0], token.string)
                    for token in tokenize.generate_tokens(io.StringIO(file.text).readline)
                    if token.type == tokenize.COMMENT]
        except (SyntaxError, tokenize.TokenError):
            return []
    if file.is_script:
        return [(number, line[line.index("#"):]) for number, line in enumerate(file.lines, 1)
                if re.search(r"(^|\s)#", line)]
    return []


# --- globals --------------------------------------------------------------------------------------

CONSTANT = frozenset(("const", "constexpr", "consteval"))
NOT_A_VARIABLE = frozenset(("using", "typedef", "namespace", "class", "struct", "union", "enum",
                            "extern", "template", "friend", "static_assert", "concept", "public",
                            "private", "protected", "asm", "requires"))
GLOBAL_INSTEAD = ("make it in main() and hand it down, or make it constexpr; there are no globals "
                  "and no singletons")


def check_globals(tree):
    """No variables with static lifetime that can change (best effort)."""
    for file in tree.shipped():
        scan = file.scan
        for at in scan.find("static"):
            if is_mutable_static(scan, at):
                yield Finding(file.path, scan.line(at), f"a static variable; {GLOBAL_INSTEAD}")
        yield from namespace_variables(file)


def is_mutable_static(scan, at):
    depth, i = 0, at + 1
    texts = []
    while i < len(scan.tokens):
        text = scan.text(i)
        depth += {"<": 1, ">": -1}.get(text, 0)
        if depth <= 0 and text in (";", "=", "{", "("):
            break
        texts.append(text)
        i += 1
    if CONSTANT & set(texts) or "operator" in texts:
        return False
    is_called_like = scan.text(i) == "("
    in_function = scan.scope_kind(at) in (FUNCTION, LAMBDA, BLOCK)
    return not is_called_like or in_function


def namespace_variables(file):
    """Variables at namespace scope without the word static."""
    scan = file.scan
    start = 0
    i = 0
    while i < len(scan.tokens):
        token = scan.tokens[i]
        if token.kind == PUNCT and token.text in ("(", "["):
            i = scan.match.get(i, i)
        elif token.kind == PUNCT and token.text == "{":
            kind = scan.braces.get(i)
            if kind != NAMESPACE:
                i = scan.match.get(i, i)
            if kind not in (INIT, CLASS):
                start = i + 1
        elif token.kind == PUNCT and token.text == "}":
            start = i + 1
        elif token.kind == PUNCT and token.text == ";":
            if is_mutable_variable(scan, start, i):
                yield Finding(file.path, scan.line(start), f"a global variable; {GLOBAL_INSTEAD}")
            start = i + 1
        i += 1


def is_mutable_variable(scan, start, end):
    """Whether tokens [start, end) at namespace scope declare a variable that can change."""
    words = []
    i = start
    while i < end:
        text = scan.text(i)
        if text == "[" and i in scan.match:
            i = scan.match[i] + 1
            continue
        if text in ("=", "{", "("):
            break
        words.append(i)
        i += 1
    texts = {scan.text(w) for w in words}
    names = [w for w in words if scan.tokens[w].kind == IDENT]
    if scan.text(i) == "(" or len(names) < 2 or texts & CONSTANT or "static" in texts:
        return False
    return not (texts & NOT_A_VARIABLE or "thread_local" in texts or "operator" in texts)
