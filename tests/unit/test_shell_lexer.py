"""What is typed is coloured as what it is."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from prompt_toolkit.document import Document
from prompt_toolkit.utils import Event

from pyrokernel.shell.keys import colour_soon
from pyrokernel.shell.lexer import ShellLexer, python_lexer
from pyrokernel.shell.parser import SourceReader, Takes

READER = SourceReader({"ps": Takes.WORDS, "time": Takes.PYTHON, "on": Takes.WORD_AND_PYTHON, "sh": Takes.TEXT})


def coloured(text: str) -> list[list[tuple[str, str]]]:
    lines = ShellLexer(READER, python_lexer()).lex_document(Document(text))
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


def test_python_is_plain_as_long_as_its_lexer_is_not_ready() -> None:
    plain = ShellLexer(READER).lex_document(Document("%time len('a')"))
    assert plain(0) == [("class:pygments.keyword", "%time "), ("", "len('a')")]


@pytest.mark.parametrize("text", ["x = 'a'\n" * 2_000, "x = '" + "a" * 60_000 + "'"])
def test_a_long_text_has_no_colours(text: str) -> None:
    assert all(style == "" for line in coloured(text) for style, _ in line)


def test_colours_are_made_ready_once_when_the_prompt_has_been_drawn() -> None:
    redrawn: list[bool] = []
    drawn_again = asyncio.Event()

    def draw() -> None:
        redrawn.append(True)
        drawn_again.set()

    app = SimpleNamespace(invalidate=draw)
    app.after_render = Event(app)
    plain = ShellLexer(READER)
    session = SimpleNamespace(lexer=plain, app=app)
    shell: Any = SimpleNamespace(main_session=session, reader=READER)
    colour_soon(shell)
    assert session.lexer is plain

    async def draw_twice() -> None:
        app.after_render.fire()
        app.after_render.fire()
        await asyncio.wait_for(drawn_again.wait(), 10)

    asyncio.run(draw_twice())
    assert len(session.lexer.lex_document(Document("len('a')"))(0)) > 1
    assert redrawn == [True]
