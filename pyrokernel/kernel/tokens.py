"""The source before a cursor as tokens, however broken it is. Runs in the kernel process.

Not `tokenize`: it raises on half-typed strings, and where it does so differs from 3.11 to 3.12.
"""

from __future__ import annotations

import ast
import keyword
import re
from typing import Any, Final, NamedTuple

from pyrokernel.kernel.reading import MISSING

CONSTANTS: Final[dict[str, Any]] = {"True": True, "False": False, "None": None}

ODD_ESCAPE: Final = re.compile(r"\\(?:[^\n\\'\"abfnrtvxNuU0-7]|[4-7][0-7][0-7])")
"""A backslash that means nothing: parsing it would print a warning into the running cell's output."""

_WINDOW: Final = 16_384
_BINDERS: Final = frozenset({"def", "class", "as", "import", "for", "global", "nonlocal", "lambda"})
_TOKEN: Final = re.compile(
    r"""
    (?: [ \t\f\r]++ | \\\r?\n )*+
    (?: (?P<comment> \#[^\n]* )
    | (?P<newline> \n )
    | (?P<string> (?i:[rbfut]{0,2})
          (?: \"{3} (?: [^"\\]++ | \\(?:.|\Z) | "(?!"") )*+ (?:\"{3})?
            | '{3} (?: [^'\\]++ | \\(?:.|\Z) | '(?!'') )*+ (?:'{3})?
            | " (?: [^"\\\n]++ | \\(?:.|\Z) )*+ "?
            | ' (?: [^'\\\n]++ | \\(?:.|\Z) )*+ '? ) )
    | (?P<number> 0[xXbBoO][\da-fA-F_]+ | (?: \d[\d_]*\.?[\d_]* | \.\d[\d_]* ) (?:[eE][+-]?\d+)? [jJ]? )
    | (?P<name> [^\W\d]\w* )
    | (?P<op> \.\.\. | -> | := | [=!<>]= | \*\* | // | . )
    | (?P<end> \Z ) )
    """,
    re.VERBOSE | re.DOTALL,
)
_STRING: Final = re.compile(
    r"""(?P<prefix>[a-zA-Z]*)(?P<quote>'''|\"\"\"|'|")"""
    r"""(?P<body>(?:(?!(?P=quote))[^\\]|\\(?:.|\Z))*+)(?P<close>(?P=quote))?""",
    re.DOTALL,
)


class Token(NamedTuple):
    """A piece of source: kind is "string", "number", "name", "op" or "newline"; start counts characters."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.start + len(self.text)

    @property
    def is_name(self) -> bool:
        """Whether it can name an object."""
        return self.kind == "name" and (self.text in CONSTANTS or not keyword.iskeyword(self.text))


class Tail:
    """The source before a cursor as tokens, however broken it is.

    Attributes:
        text: The source; of a long one the last part, from the beginning of a line.
        offset: Characters left out before it.
        tokens: Its tokens, shape (n_tokens,), without comments and without line ends inside brackets.
        pairs: Index of each bracket's partner, both ways.
        open: Indexes of the brackets that are still open, outermost first.
        in_comment: Whether the cursor is in a comment.
    """

    def __init__(self, source: str) -> None:
        cut = max(0, len(source) - _WINDOW)
        if cut:
            cut = source.find("\n", cut) + 1 or cut
        self.offset = cut
        self.text = source[cut:]
        self.tokens: list[Token] = []
        self.pairs: dict[int, int] = {}
        self.open: list[int] = []
        self.in_comment = False
        self._scan()

    def _scan(self) -> None:
        tokens, opened = self.tokens, self.open
        for match in _TOKEN.finditer(self.text):
            kind = match.lastgroup
            if kind is None or kind == "end":
                break
            self.in_comment = kind == "comment"
            if kind == "comment" or (kind == "newline" and opened):
                continue
            text = match[kind]
            if kind == "op":
                if text in "([{":
                    opened.append(len(tokens))
                elif text in ")]}" and opened:
                    partner = opened.pop()
                    self.pairs[len(tokens)], self.pairs[partner] = partner, len(tokens)
            tokens.append(Token(kind, text, match.start(kind)))

    def is_trailer(self, index: int) -> bool:
        """Tell whether the bracket at `index` calls or indexes what stands before it."""
        if index <= 0:
            return False
        before = self.tokens[index - 1]
        return before.is_name or before.kind == "string" or (before.kind == "op" and before.text in ")]}")

    def primary(self, end: int) -> int:
        """Return the index of the first token of the expression `a.b(c)[d]` that ends before token `end`; -1: none."""
        index = end - 1
        while index >= 0:
            token = self.tokens[index]
            if token.kind == "op" and token.text in ")]}":
                index = self.pairs.get(index, -1)
                if index < 0 or self.tokens[index].text == "{" or not self.is_trailer(index):
                    return index
                index -= 1
            elif token.kind == "name" and index > 0 and self.tokens[index - 1].text == ".":
                index -= 2
            else:
                return index if token.is_name or token.kind in ("string", "number") else -1
        return -1

    def level(self, start: int, end: int) -> list[int]:
        """List the tokens from start to end that stand in no inner bracket."""
        found = []
        while start < end:
            found.append(start)
            start = max(start, self.pairs.get(start, start)) + 1
        return found


def literal(token: Token) -> Any:
    """Return the value of a string or number, MISSING when it has none yet (an f-string, half a string)."""
    if token.kind == "string":
        match = _STRING.match(token.text)
        if match is None or not match["close"] or "f" in match["prefix"].lower() or ODD_ESCAPE.search(token.text):
            return MISSING
    elif token.kind != "number":
        return MISSING
    try:
        return ast.literal_eval(token.text)
    except (ValueError, SyntaxError):
        return MISSING


def string_parts(token: Token) -> tuple[str, str, str, bool]:
    """Split a string token into prefix, quote, body, and whether it is closed."""
    match = _STRING.match(token.text)
    if match is None:
        return "", "", "", False
    return match["prefix"].lower(), match["quote"], match["body"], match["close"] is not None


def open_brace(body: str) -> int | None:
    """Return where the expression begins that an f-string is in the middle of."""
    begins: list[int] = []
    at = 0
    while at < len(body):
        if body[at] == "{":
            if not begins and body[at + 1 : at + 2] == "{":
                at += 1
            else:
                begins.append(at + 1)
        elif body[at] == "}" and begins:
            begins.pop()
        at += 1
    return begins[0] if begins else None


def bound_names(tokens: list[Token]) -> set[str]:
    """Collect the names that the source defines: they may be in no namespace yet."""
    names: set[str] = set()
    depth = in_def = 0
    for index, token in enumerate(tokens):
        before = tokens[index - 1].text if index else ""
        if token.text in ("(", "[", "{"):
            depth += 1
            if token.text == "(" and index > 1 and tokens[index - 2].text == "def":
                in_def = depth
        elif token.text in (")", "]", "}"):
            in_def = 0 if depth == in_def else in_def
            depth -= 1
        elif token.is_name and before != ".":
            after = tokens[index + 1].text if index + 1 < len(tokens) else ""
            listed = after == "," or (before == "," and after == "in")
            declared = after == ":" and before in ("", "\n", ";")
            assigned = depth == 0 and (after == "=" or listed or declared)
            parameter = in_def and depth == in_def and before in ("(", ",", "*", "**")
            if before in _BINDERS or assigned or after == ":=" or parameter:
                names.add(token.text)
    return {name for name in names if not keyword.iskeyword(name)}
