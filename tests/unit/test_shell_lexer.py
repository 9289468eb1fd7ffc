"""What is typed is coloured as what it is."""

from __future__ import annotations

import pytest
from prompt_toolkit.document import Document

from pyrokernel.shell.lexer import ShellLexer
from pyrokernel.shell.parser import SourceReader, Takes

READER = SourceReader({"ps": Takes.WORDS, "time": Takes.PYTHON, "on": Takes.WORD_AND_PYTHON, "sh": Takes.TEXT})


def coloured(text: str) -> list[list[tuple[str, str]]]:
    lines = ShellLexer(READER).lex_document(Document(text))
    return [[(part[0], part[1]) for part in lines(number)] for number in range(text.count("\n") + 1)]


@pytest.mark.parametrize(
    "text",
    [
        "ps -a",
        "import os",
        "%time x = 'a'",
        "%%time\nfor x in y:\n    pass",
        "!ls -l",
        "%nope",
        "",
        "on k0 f(x)",
        "  ps",
    ],
)
def test_no_character_is_lost(text: str) -> None:
    assert ["".join(part[1] for part in line) for line in coloured(text)] == text.split("\n")


def style_of(text: str, word: str) -> str:
    return next(style for line in coloured(text) for style, part in line if part.strip() == word)


def test_commands_and_python_are_told_apart() -> None:
    assert style_of("ps -a", "ps") == "class:pygments.keyword"
    assert style_of("ps = 3", "3") == "class:pygments.literal.number.integer"
    assert style_of("%time len('a')", "%time") == "class:pygments.keyword"
    assert "builtin" in style_of("%time len('a')", "len")
    assert style_of("%nope 3", "%nope") == "class:pygments.error"
