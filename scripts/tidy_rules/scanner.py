# SPDX-License-Identifier: Apache-2.0
#
# A small scanner for C++: text -> tokens, matched brackets, and what each brace opens (a namespace,
# a class, a function, a block, an initialiser). It is not a compiler: it does not expand macros,
# both sides of an #if are read, and where C++ is ambiguous it guesses by the usual spelling. Rules
# that stand on it say so where they are a best effort.
#
# Comments and preprocessor directives are kept apart from the tokens, so that no rule mistakes the
# text of a comment or of a string for code.
import bisect
import re
from typing import NamedTuple

IDENT, NUMBER, STRING, CHAR, PUNCT = "ident", "number", "string", "char", "punct"

# What a "{" opens.
NAMESPACE, CLASS, ENUM, FUNCTION, LAMBDA, BLOCK, INIT = (
    "namespace", "class", "enum", "function", "lambda", "block", "init")

TOKEN = re.compile(r"""
    (?P<space>\s+)
  | (?P<comment>//(?:[^\\\n]|\\(?:.|\n))*|/\*.*?(?:\*/|\Z))
  | (?P<raw>(?:u8|[uUL])?R"(?P<mark>[^\s()\\]{0,16})\(.*?\)(?P=mark)")
  | (?P<string>(?:u8|[uUL])?"(?:[^"\\\n]|\\.)*")
  | (?P<char>(?:u8|[uUL])?'(?:[^'\\\n]|\\.)*')
  | (?P<ident>[A-Za-z_]\w*)
  | (?P<number>\.?\d(?:[eEpP][+-]|'?[\w.])*)
  | (?P<punct>->\*?|::|\+\+|--|<<=|>>=|<=>|\.\.\.|&&|\|\||[<>=!+\-*/%&|^]=|<<|\#\#|.)
""", re.VERBOSE | re.DOTALL)

DIRECTIVE = re.compile(r"(?:/\*.*?\*/|//[^\n]*|\\\n|[^\n])*", re.DOTALL)
COMMENT_OR_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|(//[^\n]*|/\*.*?\*/)', re.DOTALL)

CONTROL = frozenset(("if", "for", "while", "switch", "catch"))
NOT_A_FUNCTION = frozenset(("alignas", "decltype", "requires", "noexcept", "explicit",
                            "__attribute__"))
OPENING = {"(": ")", "[": "]", "{": "}"}
CLOSING = frozenset(OPENING.values())


class Token(NamedTuple):
    kind: str
    text: str
    at: int  # offset in the file


class Remark(NamedTuple):
    """A comment or a preprocessor directive: its text and the line it begins on."""
    text: str
    line: int


class Body(NamedTuple):
    """A function or lambda: token indices of its first token, its braces, and its name."""
    name: str
    kind: str
    first: int
    open: int
    close: int


class Scan:
    """The tokens of one C++ text and what is known about its brackets."""

    def __init__(self, text):
        self.line_starts = [0] + [m.end() for m in re.finditer(r"\n", text)]
        self.tokens = []
        self.comments = []
        self.directives = []
        self._tokenise(text)
        self.match = {}    # index of a bracket -> index of its partner
        self.parent = {}   # index of an opening bracket -> index of the one around it, or -1
        self.braces = {}   # index of a "{" -> what it opens
        self.bodies = []   # functions and lambdas, in order of their opening brace
        self.places = {}   # identifier -> indices of its tokens
        for index, token in enumerate(self.tokens):
            if token.kind == IDENT:
                self.places.setdefault(token.text, []).append(index)
        self._match_brackets()

    # --- asked by rules ---------------------------------------------------------------------------

    def line(self, index):
        """The line of token `index`, counted from 1."""
        return self.line_of_offset(self.tokens[index].at)

    def line_of_offset(self, at):
        return bisect.bisect_right(self.line_starts, at)

    def text(self, index):
        """The text of token `index`; "" beyond either end."""
        return self.tokens[index].text if 0 <= index < len(self.tokens) else ""

    def find(self, *names):
        """Indices of all tokens that are one of these identifiers, in order."""
        return sorted(index for name in names for index in self.places.get(name, ()))

    def enclosing(self, index):
        """The innermost bracket open at token `index`, or -1."""
        i = index - 1
        while i >= 0:
            text = self.tokens[i].text
            if text in CLOSING and self.tokens[i].kind == PUNCT:
                i = self.match.get(i, i)
                if self.text(i) in OPENING and i in self.parent:
                    i -= 1
                    continue
            elif text in OPENING and self.tokens[i].kind == PUNCT:
                return i
            i -= 1
        return -1

    def owner(self, index):
        """The innermost function or lambda around token `index` (a Body), or None."""
        best = None
        for body in self.bodies:
            if body.open < index < body.close:
                best = body
            elif body.open > index:
                break
        return best

    def scope_kind(self, index):
        """What the innermost brace around token `index` opens; NAMESPACE at file level."""
        at = self.enclosing(index)
        while at >= 0 and at not in self.braces:
            at = self.parent[at]
        return NAMESPACE if at < 0 else self.braces[at]

    # --- tokens -----------------------------------------------------------------------------------

    def _tokenise(self, text):
        at, end = 0, len(text)
        line_is_blank = True  # nothing but white space and comments so far on this line
        while at < end:
            if line_is_blank and text[at] == "#":
                at = self._directive(text, at)
                continue
            found = TOKEN.match(text, at)
            kind = found.lastgroup
            piece = found.group()
            if kind == "space":
                line_is_blank = line_is_blank or "\n" in piece
            elif kind == "comment":
                self.comments.append(Remark(piece, self.line_of_offset(at)))
            else:
                line_is_blank = False
                if kind == "raw":
                    kind = STRING
                self.tokens.append(Token(kind, piece, at))
            at = found.end()

    def _directive(self, text, at):
        """Keeps one directive with its continuation lines; a comment in it counts as a comment."""
        found = DIRECTIVE.match(text, at)
        line = self.line_of_offset(at)
        directive = found.group()
        if "//" in directive or "/*" in directive:
            for comment in COMMENT_OR_STRING.finditer(directive):
                if comment.group(1):
                    self.comments.append(
                        Remark(comment.group(1), self.line_of_offset(at + comment.start(1))))
        self.directives.append(Remark(directive, line))
        return found.end()

    # --- brackets ---------------------------------------------------------------------------------

    def _match_brackets(self):
        stack = []
        for index, token in enumerate(self.tokens):
            if token.kind != PUNCT:
                continue
            text = token.text
            if text in OPENING:
                self.parent[index] = stack[-1] if stack else -1
                if text == "{":
                    self._classify(index, stack)
                stack.append(index)
            elif text in CLOSING:
                # The two sides of an #if may leave a bracket over; drop down to the partner, if
                # any.
                depth = len(stack) - 1
                while depth >= 0 and OPENING[self.tokens[stack[depth]].text] != text:
                    depth -= 1
                if depth >= 0:
                    partner = stack[depth]
                    del stack[depth:]
                    self.match[partner] = index
                    self.match[index] = partner
        last = len(self.tokens) - 1
        self.bodies = [body._replace(close=self.match.get(body.open, last)) for body in self.bodies]

    def _classify(self, index, stack):
        around = stack[-1] if stack else -1
        outer = self.braces.get(around) if around >= 0 else NAMESPACE
        lambda_at = self._lambda_introducer(index)
        if lambda_at is not None:
            kind = LAMBDA
            self.bodies.append(Body("a lambda", LAMBDA, lambda_at, index, -1))
        elif outer is None:  # inside ( ) or [ ]
            kind = INIT
        elif outer in (NAMESPACE, CLASS):
            kind = self._classify_declaration(index)
        elif outer in (INIT, ENUM):
            kind = INIT
        else:
            kind = self._classify_statement(index)
        self.braces[index] = kind

    def head(self, index):
        """Token indices from the end of the previous statement up to `index`, brackets skipped."""
        i = index - 1
        head = []
        while i >= 0:
            text = self.tokens[i].text
            if self.tokens[i].kind == PUNCT:
                if text in (";", "{"):
                    break
                if text == "}" and self.braces.get(self.match.get(i, -1)) != INIT:
                    break
                if text in ("(", "["):
                    break
                if text in CLOSING and i in self.match:
                    i = self.match[i]
                    head.append(i)
                    i -= 1
                    continue
                if text == ":" and self.text(i - 1) in ("public", "private", "protected"):
                    break
            head.append(i)
            i -= 1
        head.reverse()
        return head

    def _classify_declaration(self, index):
        """A "{" in a namespace or class."""
        head = self.head(index)
        texts = [self.tokens[i].text for i in head]
        if "namespace" in texts or (texts[:1] == ["extern"] and len(texts) == 2):
            return NAMESPACE
        if "enum" in texts:
            return ENUM
        name_at, parens = self._declarator(head)
        if "operator" not in texts and any(
                text == "=" and self._angle_depth(texts[:n]) <= 0 for n, text in enumerate(texts)):
            return INIT
        if parens is None:
            keyword = any(word in texts for word in ("class", "struct", "union"))
            return CLASS if keyword else INIT  # `T member{0};`
        # A constructor's member initialisers: `Foo() : a_{1}, b_(2) {` - only the last is the body.
        after = [i for i in head if i > parens]
        colon = next((i for i in after if self.text(i) == ":"), None)
        if colon is not None:
            before = self.text(index - 1)
            if before not in (")", "}"):
                return INIT
        self.bodies.append(Body(name_at, FUNCTION, head[0], index, -1))
        return FUNCTION

    @staticmethod
    def _angle_depth(texts):
        return texts.count("<") - texts.count(">")

    def _declarator(self, head):
        """(name, index of the parameter list) of the function that is declared, or ("", None)."""
        angle = 0
        for position, i in enumerate(head):
            text = self.tokens[i].text
            if text == "<" and self.text(i - 1) != "operator":
                angle += 1
            elif text == ">" and self.text(i - 1) != "operator":
                angle -= 1
            elif text == "(" and angle <= 0 and position > 0:
                before = self.text(i - 1)
                if before in NOT_A_FUNCTION:
                    continue
                if self.tokens[i - 1].kind == IDENT or self._is_operator_name(i):
                    return self._qualified_name(i), i
        return "", None

    def _is_operator_name(self, paren):
        return any(self.text(paren - back) == "operator" for back in (1, 2, 3))

    def _qualified_name(self, paren):
        name = self.text(paren - 1)
        if name.startswith("TEST") and self.text(paren + 2) == ",":
            return self.text(paren + 1) + "." + self.text(paren + 3)
        for back in (2, 3):
            if self.text(paren - back) == "operator":
                name = "operator" + "".join(self.text(paren - n) for n in range(back - 1, 0, -1))
        i = paren - 2
        if self.text(i) == "~":
            name = "~" + name
            i -= 1
        if self.text(i) == "::" and self.tokens[i - 1].kind == IDENT:
            name = self.text(i - 1) + "::" + name
        return name

    def _classify_statement(self, index):
        """A "{" in a function body."""
        before = self.text(index - 1)
        if before in (";", "{", "}", ")", "else", "do", "try", ":"):
            return BLOCK
        if before == "]" and self.text(self.match.get(index - 1, -1) + 1) == "[":
            return BLOCK  # if (…) [[likely]] {
        head = self.head(index)
        texts = [self.tokens[i].text for i in head]
        if "enum" in texts:
            return ENUM
        if texts and texts[0] in ("struct", "class", "union"):
            return CLASS
        return INIT

    def _lambda_introducer(self, brace):
        """The index of the "[" of the lambda whose body opens at `brace`, or None."""
        i = brace - 1
        steps = 0
        # Back over a trailing return type, a requires-clause or specifiers to ")" , "]" or ">".
        while i >= 0 and steps < 60:
            steps += 1
            token = self.tokens[i]
            text = token.text
            if text == "]" and i in self.match:
                start = self.match[i]
                return start if self._introduces_lambda(start) else None
            if text == ")" and i in self.match:
                start = self.match[i]
                previous = self.text(start - 1)
                if previous == "]" and start - 1 in self.match:
                    bracket = self.match[start - 1]
                    return bracket if self._introduces_lambda(bracket) else None
                if previous == ">":  # [] <class T> (T x) { … }
                    bracket = self._before_template_parameters(start - 1)
                    if bracket is not None:
                        return bracket
                i = start - 1  # noexcept(…), decltype(…), or not a lambda at all
                continue
            if (token.kind in (IDENT, NUMBER) and text not in CONTROL) or text in (
                    "->", "::", "<", ">", ",", "*", "&", "&&"):
                i -= 1
                continue
            return None
        return None

    def _before_template_parameters(self, angle):
        depth = 0
        i = angle
        while i >= 0 and angle - i < 80:
            text = self.tokens[i].text
            if text == ">":
                depth += 1
            elif text == "<":
                depth -= 1
                if depth == 0:
                    if self.text(i - 1) == "]" and i - 1 in self.match:
                        bracket = self.match[i - 1]
                        return bracket if self._introduces_lambda(bracket) else None
                    return None
            i -= 1
        return None

    def _introduces_lambda(self, bracket):
        if bracket not in self.parent or self.text(bracket) != "[" or self.text(bracket + 1) == "[":
            return False
        before = self.tokens[bracket - 1] if bracket > 0 else None
        if before is None:
            return True
        if before.text in (")", "]", "operator", "delete", "["):
            return False
        if before.kind == IDENT:
            return before.text in ("return", "co_return", "co_await", "co_yield", "case", "else")
        return before.kind == PUNCT
