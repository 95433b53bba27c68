# SPDX-License-Identifier: Apache-2.0
#
# Rules about coroutines. g++ 12.2 compiles co_await wrongly, without a warning, in conditions,
# beside braced temporaries, in "?:", "&&" and "||", and in lambdas with captures (docs/decisions/
# has the measurements). So co_await stands only where nothing else happens:
#
#   co_await f(x);      T y = co_await f(x);      y = co_await f(x);      co_return co_await f(x);
#
# The rules read tokens, not types: they know calls and names, not what a name means.
import re

from tidy_rules.findings import Finding
from tidy_rules.scanner import CONTROL, IDENT, INIT, LAMBDA, NUMBER, OPENING, PUNCT

COROUTINE_WORDS = ("co_await", "co_return", "co_yield")
# Braces around these build nothing that could be destroyed twice: `f(uint32_t{0})`.
SCALARS = frozenset(("bool", "char", "int", "unsigned", "long", "size_t", "ssize_t", "uintptr_t",
                     *(f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64))))
EXECUTOR = ("src/async/executor.h", "src/async/executor.cc")
PLACES = ("as a statement of its own, as the whole initialiser of one variable, as the right side "
          "of '=' or after co_return")


# --- where co_await may stand ---------------------------------------------------------------------


def check_co_await(tree):
    """co_await stands alone, its operand is a plain call chain."""
    for file in tree.cpp():
        scan = file.scan
        for at in scan.find("co_await"):
            if scan.text(at - 1) == "operator":
                continue
            wrong = (wrong_before(scan, at) or wrong_operand(scan, at))
            if wrong:
                yield Finding(file.path, scan.line(at), wrong)


def statement_before(scan, at):
    """(the statement's tokens before `at`, matched brackets skipped, and what they follow)."""
    prefix = []
    i = at - 1
    while i >= 0:
        token = scan.tokens[i]
        if token.kind == PUNCT:
            text = token.text
            if text == ";" or text in OPENING:
                break
            if text in (")", "]", "}") and i in scan.match:
                start = scan.match[i]
                if text == "}" and scan.braces.get(start) != INIT:
                    break
                if text == ")" and is_control_header(scan, start):
                    break
                prefix.append(start)
                i = start - 1
                continue
            if text == ":" and is_label_colon(scan, i):
                break
        elif token.text in ("else", "do"):
            break
        prefix.append(i)
        i -= 1
    prefix.reverse()
    return prefix, i


def is_control_header(scan, paren):
    before = scan.text(paren - 1)
    return before in CONTROL or (before == "constexpr" and scan.text(paren - 2) == "if")


def is_label_colon(scan, colon):
    """`name:` and `case x:`, as opposed to the ":" of "?:"."""
    i = colon - 1
    while i >= 0 and scan.text(i) not in (";", "{", "}", "?"):
        if scan.text(i) in ("case", "default"):
            return True
        i -= 1
    return scan.text(i) != "?" and i == colon - 2


def wrong_before(scan, at):
    """What is wrong with what stands before co_await in its statement, or None."""
    prefix, stop = statement_before(scan, at)
    texts = [scan.text(i) for i in prefix]
    stopper = scan.text(stop)
    if stopper in ("(", "["):
        return wrong_bracket(scan, stop)
    if stopper == "{" and scan.braces.get(stop) == INIT:
        return ("co_await in a braced initialiser is compiled wrongly by g++ 12; name its value "
                "in a statement before")
    for bad in ("?", "||"):
        if bad in texts:
            return f"co_await beside '{bad}' is compiled wrongly by g++ 12; use if and else"
    is_cast_to_void = texts == ["("] and scan.text(prefix[0] + 1) == "void"
    if not texts or texts == ["co_return"] or is_cast_to_void:
        return None
    if texts[-1] != "=":
        return f"co_await inside a larger expression; it may stand only {PLACES}"
    return wrong_target(scan, prefix[:-1])


def wrong_bracket(scan, bracket):
    before = scan.text(bracket - 1)
    if scan.text(bracket) == "(" and is_control_header(scan, bracket):
        word = "if" if before == "constexpr" else before
        return (f"co_await in the head of '{word}' is compiled wrongly by g++ 12; name its value "
                "in a statement before")
    if scan.text(bracket) == "[":
        return f"co_await inside [ ]; it may stand only {PLACES}"
    return ("co_await inside parentheses or as an argument; name its value first: it may stand "
            "only " + PLACES)


def wrong_target(scan, target):
    """Checks `T x`, `x`, `x->y[i]` before the "=" of `… = co_await …`."""
    texts = [scan.text(i) for i in target]
    if "auto" in texts:
        after = [t for t in texts[texts.index("auto") + 1:] if t not in ("&", "&&", "const")]
        if after[:1] == ["["]:
            return ("no structured binding of co_await; name the value, then take it apart in the "
                    "next statement")
    depth = 0
    for text in texts:
        depth += {"<": 1, ">": -1}.get(text, 0)
        if text == "," and depth <= 0:
            return "co_await must initialise one variable; give the others statements of their own"
        if text == "=":
            return "co_await in a chain of assignments; assign in two statements"
    last = scan.tokens[target[-1]] if target else None
    if last is None or (last.kind != IDENT and last.text not in ("[",)):
        return f"co_await inside a larger expression; it may stand only {PLACES}"
    allowed = {"::", "<", ">", "*", "&", "&&", ",", ".", "->", "["}
    for i in target:
        token = scan.tokens[i]
        if token.kind == PUNCT and token.text not in allowed:
            return (f"'{token.text}' beside co_await; the value must go to one plain variable, in "
                    "a statement of its own")
    return None


OPERAND = re.compile(
    r"(?:[*&] )*(?:\(\) |(?:template |:: )?ID )"
    r"(?:(?:::|\.|->) (?:template |~ )?ID |\(\) |\[\] "
    r"|< (?:(?:ID|NUM|::|,|\*|&|&&|\(\)|\.\.\.|<|>) )*> (?=\(\)|::))*")


def wrong_operand(scan, at):
    """What is wrong with the operand of the co_await at token `at`, or None."""
    shape = []
    i = at + 1
    while i < len(scan.tokens):
        token = scan.tokens[i]
        if token.text == ";" and token.kind == PUNCT:
            break
        if token.text in (")", "]", "}") and token.kind == PUNCT:
            break
        body = lambda_at(scan, i)
        if body is not None and not captures(scan, i):  # its call is a call like any other
            shape.append("ID")
            i = body.close + 1
            continue
        if token.text in OPENING and token.kind == PUNCT:
            wrong = wrong_inside(scan, i)
            if wrong:
                return wrong
            shape.append(token.text + OPENING[token.text])
            i = scan.match.get(i, i) + 1
            continue
        shape.append("ID" if token.kind == IDENT and token.text != "template"
                     else "NUM" if token.kind == NUMBER else token.text)
        i += 1
    for bad in ("?", "&&", "||"):
        if bad in shape and not OPERAND.fullmatch(" ".join(shape) + " "):
            return f"'{bad}' beside co_await is compiled wrongly by g++ 12; use if and else"
    if not OPERAND.fullmatch(" ".join(shape) + " "):
        return ("co_await of more than a name or a chain of calls; it must be the whole "
                "expression: name its value, then go on in the next statement")
    return None


def wrong_inside(scan, opening):
    """What is wrong inside one bracket of the operand: braces, captures, conditional operators."""
    if scan.text(opening) == "{":
        return ("a braced temporary in an awaiting expression is compiled wrongly by g++ 12; name "
                "it in a statement before, or give the type a constructor")
    i = opening + 1
    end = scan.match.get(opening, opening)
    while i < end:
        token = scan.tokens[i]
        if token.kind == PUNCT:
            kind = scan.braces.get(i)
            if kind == LAMBDA:  # its body is a function of its own
                i = scan.match.get(i, i) + 1
                continue
            if kind is not None and scan.text(i - 1) not in SCALARS:
                return ("a braced temporary in an awaiting expression is compiled wrongly by "
                        "g++ 12; name it in a statement before, or give the type a constructor")
            if token.text in ("?", "||") or (token.text == "&&" and not is_reference(scan, i)):
                return (f"'{token.text}' in an awaiting expression is compiled wrongly by g++ 12; "
                        "name the argument in a statement before")
            if token.text == "[" and captures(scan, i):
                return ("a lambda with captures in an awaiting expression is compiled wrongly by "
                        "g++ 12; name it in a statement before, or pass a function and arguments")
        i += 1
    return None


def is_reference(scan, at):
    """Whether "&&" is part of a lambda's parameter or a template argument: `T&& x`, `auto&&`."""
    return scan.text(at - 1) in ("auto", ">") or scan.text(at + 1) in (">", ",", ")")


def lambda_at(scan, bracket):
    """The lambda (a Body) that begins at token `bracket`, or None."""
    if scan.text(bracket) != "[":
        return None
    for body in scan.bodies:
        if body.first == bracket and body.kind == LAMBDA:
            return body
    return None


def captures(scan, bracket):
    """The captures of the lambda introduced at `bracket`; [] if none, or if it is no lambda."""
    close = scan.match.get(bracket, bracket)
    if lambda_at(scan, bracket) is None or close == bracket + 1:
        return []
    pieces, depth = [[]], 0
    for i in range(bracket + 1, close):
        text = scan.text(i)
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text, 0)
        if text == "," and depth == 0:
            pieces.append([])
        else:
            pieces[-1].append(text)
    return pieces


# --- what a coroutine may be ----------------------------------------------------------------------


def own_tokens(scan, body):
    """Token indices of a body without the functions and lambdas inside it."""
    inner = [other for other in scan.bodies
             if body.open < other.open and other.close < body.close]
    i = body.open + 1
    for other in inner:
        if other.open < i:
            continue
        yield from range(i, other.open)
        i = other.close + 1
    yield from range(i, body.close)


def coroutines(scan):
    """The functions and lambdas that are coroutines."""
    found = []
    for at in scan.find(*COROUTINE_WORDS):
        if scan.text(at - 1) != "operator":
            body = scan.owner(at)
            if body is not None and body not in found:
                found.append(body)
    return found


def check_coroutine_lambda(tree):
    """A lambda with captures is no coroutine; tests and fuzzers may name one with references."""
    for file in tree.cpp():
        scan = file.scan
        for body in coroutines(scan):
            pieces = captures(scan, body.first) if body.kind == LAMBDA else []
            if not pieces:
                continue
            by_reference = all(piece[:1] == ["&"] for piece in pieces)
            named = scan.text(body.first - 1) == "=" and scan.tokens[body.first - 2].kind == IDENT
            may_be_named = file.path.endswith(("_test.cc", "_fuzz.cc"))
            if may_be_named and by_reference and named:
                continue
            instead = ("name it and capture by reference" if may_be_named else
                       "write a function and pass what it needs as parameters")
            yield Finding(file.path, scan.line(body.first), "a lambda with captures is a "
                          f"coroutine: its captures die before it ends; {instead}")


def check_aligned_locals(tree):
    """No over-aligned locals in coroutines (best effort: the word alignas)."""
    for file in tree.cpp():
        scan = file.scan
        if not scan.find("alignas"):
            continue
        for body in coroutines(scan):
            for i in own_tokens(scan, body):
                if scan.text(i) == "alignas":
                    yield Finding(file.path, scan.line(i), "an over-aligned local of a coroutine "
                                  "is misaligned by both compilers; take a buffer from the pool")


def check_thread_local(tree):
    """thread_local is for the current shard alone."""
    for file in tree.cpp():
        if file.path in EXECUTOR:
            continue
        for at in file.scan.find("thread_local", "__thread"):
            yield Finding(file.path, file.scan.line(at), "thread_local; reach shard state through "
                          "Executor::current() (async/executor.h) or take it as an argument")


def check_await_suspend(tree):
    """await_suspend gives bool or void: no symmetric transfer, and it destroys no frame."""
    for file in tree.cpp():
        scan = file.scan
        for at in scan.find("await_suspend"):
            if scan.text(at - 1) in (".", "->") or scan.text(at + 1) != "(":
                continue
            close = scan.match.get(at + 1, at + 1)
            before = [scan.text(i) for i in scan.head(at)]
            after = []
            i = close + 1
            while i < len(scan.tokens) and scan.text(i) not in ("{", ";"):
                after.append(scan.text(i))
                i += 1
            if "coroutine_handle" in before + after:
                yield Finding(file.path, scan.line(at), "symmetric transfer overflows the stack in "
                              "sanitizer builds; return bool and let the trampoline resume")
            if scan.text(i) != "{":
                continue
            for inner in range(i, scan.match.get(i, i)):
                if scan.text(inner) == "destroy" and scan.text(inner - 1) in (".", "->"):
                    yield Finding(file.path, scan.line(inner), "a frame is destroyed inside "
                                  "await_suspend; leave that to whoever takes the result")
