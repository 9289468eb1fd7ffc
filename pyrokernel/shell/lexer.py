"""Colours while one types: Python as Python, commands as commands. Runs in the shell process.

What knows Python takes a twentieth of a second to get ready. The prompt does not wait for that, nor does a key:
it begins with a lexer for which Python has no colours.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer, PygmentsLexer, SimpleLexer
from prompt_toolkit.styles import Style

from pyrokernel.shell.parser import UNKNOWN, SourceReader, Takes

_COMMAND = re.compile(r"(\s*(?::|%{0,2}|!)\w*)(\s*)")
_MAX_LINES = 1_000
_MAX_LENGTH = 50_000
_HAS_PYTHON = (Takes.PYTHON, Takes.WORD_AND_PYTHON)


class ShellLexer(Lexer):
    """Colours a text; what is no command is Python.

    Args:
        reader: Says which.
        python: Colours Python; without it, that stays plain.
    """

    def __init__(self, reader: SourceReader, python: Lexer | None = None) -> None:
        self._reader = reader
        self._python = python or SimpleLexer()

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return what gives each line its colours; a long text has none, for it would be coloured anew at each key."""
        if len(document.text) > _MAX_LENGTH or len(document.lines) > _MAX_LINES:
            return SimpleLexer().lex_document(document)
        command = self._reader.command_of(document.lines[0])
        if not command:
            return self._python.lex_document(document)
        match = _COMMAND.match(document.lines[0])
        style = "class:pygments.error" if command == UNKNOWN else "class:pygments.keyword"
        head = match[0] if match else ""
        if self._reader.commands.get(command) not in _HAS_PYTHON:
            return lambda line: _split(document.lines[line], len(head) if line == 0 else 0, style)
        blanked = [" " * len(head) + document.lines[0][len(head) :], *document.lines[1:]]
        python = self._python.lex_document(Document("\n".join(blanked)))

        def colours(line: int) -> StyleAndTextTuples:
            if line > 0:
                return python(line)
            # The command's own letters, in front of what the lexer found in the rest.
            rest = "".join(fragment[1] for fragment in python(0))[len(head) :]
            return [(style, head), *_without(python(0), len(head))] if rest else [(style, head)]

        return colours


COLOURS = Style.from_dict(
    {
        "pygments.keyword": "bold #009040",
        "pygments.operator.word": "bold #009040",
        "pygments.name.builtin": "#9060c0",
        "pygments.name.function": "#3080d0",
        "pygments.name.class": "bold #3080d0",
        "pygments.name.namespace": "#3080d0",
        "pygments.name.exception": "#c05050",
        "pygments.name.decorator": "#b060b0",
        "pygments.literal.string": "#b07030",
        "pygments.literal.number": "#209090",
        "pygments.comment": "italic #808080",
        "pygments.error": "#d04040",
    }
)
"""Of medium brightness: they are read on light paper and on dark. Those of Pygments are made for light alone."""


def python_lexer() -> Lexer:
    """Return what colours Python; slow."""
    from pygments.lexers.python import PythonLexer  # type: ignore[import-untyped, unused-ignore]  # stubs are a package of their own

    return PygmentsLexer(PythonLexer)


def _split(text: str, at: int, style: str) -> StyleAndTextTuples:
    return [(style, text[:at]), ("", text[at:])] if at else [("", text)]


def _without(fragments: StyleAndTextTuples, count: int) -> StyleAndTextTuples:
    """Return fragments without their first characters."""
    left: StyleAndTextTuples = []
    for fragment in fragments:
        style, text = fragment[0], fragment[1]
        left.append((style, text[count:]))
        count = max(0, count - len(text))
    return [fragment for fragment in left if fragment[1]]
