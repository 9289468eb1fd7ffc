"""What is a command and what is Python, and whether it is complete. Runs in the shell process.

`SourceReader` decides both, from the text alone: cmd2 asks some 27 times per keystroke, so
no question may leave this process. `Parser` is the seam to cmd2: Python becomes a
`Statement` of the hidden command `_python`, untouched, so that `;`, `|`, `>`, `#` and `@`
mean in it what they mean in Python.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from cmd2.parsing import Statement, StatementParser

from pyrokernel.shell.source import completeness, has_backgrounds, in_background, is_blank

PYTHON = "_python"
"""The command that Python becomes; hidden, so that the word stays free for a variable."""

UNKNOWN = "_unknown"
"""The command that `%word` becomes when no command of that name exists; it cannot be Python either."""

OTHER_NAMES = {
    "!": "sh", "bash": "sh", "file": "writefile", "hist": "history", "lsmagic": "help", "magic": "help",
    "quickref": "help",
}  # fmt: skip
"""What IPython calls some of our commands, after "%"; without that, these are words of Python."""


class Takes(enum.Enum):
    """What follows a command."""

    WORDS = enum.auto()
    """Words and options, which cmd2 takes apart."""
    TEXT = enum.auto()
    """Anything, to the end of the line."""
    PYTHON = enum.auto()
    """Python, to the end of the block."""
    WORD_AND_PYTHON = enum.auto()
    """One word, then Python to the end of the block."""
    CELL = enum.auto()
    """Text to the end of the line; below `%%`, lines that are not Python."""


Command = TypeVar("Command", bound=Callable[..., Any])


def takes(what: Takes) -> Callable[[Command], Command]:
    """Say of a `do_` method what follows its command; without this, words."""

    def mark(function: Command) -> Command:
        function.takes = what  # type: ignore[attr-defined]  # read by `Shell`
        return function

    return mark


_FIRST_WORD = re.compile(r"\s*(:|%{0,2})([A-Za-z_]\w*|(?<=%%)!)(.*)", re.DOTALL)
_SYSTEM = re.compile(r"\s*(?:([A-Za-z_]\w*)\s*=\s*)?!(.*)", re.DOTALL)
_NAME = r"[A-Za-z_][\w.]*(?:\[[^\]]*\][\w.]*)*|[\w.*]*\*[\w.*]*"
_QUESTION = re.compile(rf"\s*(?:(\?\??)\s*({_NAME})|({_NAME}|)\s*(\?\??))\s*")
_ASSIGNS = re.compile(r"(=(?!=)|(\+|-|\*\*?|//?|%|@|&|\||\^|<<|>>)=|:\s*[\w\"'\[(]+.*=)")
_OPERATES = re.compile(r"([=!<>]=|[<*%@&^,.(\[{;?~]|[-+]\s|//?\s|(in|is|and|or|not|if|for)\b)")
_LEAVES = re.compile(r"\s*(?:exit|quit)\s*\(\s*(\d*)\s*\)\s*;?\s*")
_WORDS = re.compile(r"(\S*)(.*)", re.DOTALL)
_WITH_PYTHON = (Takes.PYTHON, Takes.WORD_AND_PYTHON)
_WITH_BLOCKS = (*_WITH_PYTHON, Takes.CELL)
_GOES_ON = re.compile(r"(elif|else|except|finally)\b|[)\]}]")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of what was typed: one command, or consecutive Python (command "")."""

    text: str
    command: str = ""


class SourceReader:
    """Tells commands from Python.

    Attributes:
        commands: The words that are commands, and what follows each.
        variables: Words that name a variable in the kernels, as far as the shell knows; those that
            are commands too mean the variable wherever the line is valid Python.
        learn: Called with a line whose first word is no command, before that is settled: may add to `commands`.
            None where lines are typed, for it may ask kernels.
    """

    def __init__(self, commands: Mapping[str, Takes] | None = None) -> None:
        self.commands: Mapping[str, Takes] = commands or {}
        self.variables: set[str] = set()
        self.learn: Callable[[str], None] | None = None
        self._last: tuple[tuple[str, Mapping[str, Takes], frozenset[str]], list[Piece]] | None = None

    def command_of(self, line: str) -> str:
        """Return the command that a text calls, "" when it is Python."""
        if _LEAVES.fullmatch(line):
            return "quit"
        if _SYSTEM.match(line):
            return "sh"
        if "?" in line and _QUESTION.fullmatch(line):  # slow on many blank lines
            return "inspect"
        match = _FIRST_WORD.match(line)
        if match is None:
            return UNKNOWN if heads_block(line) else ""
        sign, word, rest = match.groups()
        word = _meant(sign, word)
        if sign == "%%" and self.commands.get(word) not in _WITH_BLOCKS:
            return UNKNOWN
        if not self._knows(word, line):
            return UNKNOWN if sign else ""
        if sign or not rest.strip():
            return word if sign or word not in self.variables else ""
        if not rest[0].isspace():
            return ""
        rest = rest.strip()
        if _ASSIGNS.match(rest):
            return ""
        if word not in self.variables and self.commands[word] is Takes.PYTHON and rest[0] in "([{@":
            return word  # a call, an index or a product of somebody's would not have just that space
        if (word in self.variables or _OPERATES.match(rest)) and completeness(line) != "invalid":
            return ""
        return word

    def _knows(self, word: str, line: str) -> bool:
        """Whether a word is a command, perhaps one that is only learned of now."""
        if word not in self.commands and self.learn is not None:
            self.learn(line)
        return word in self.commands

    def shadowed(self, text: str) -> str:
        """Return the command that a line of Python would have been, had there been no variable of that name."""
        match = _FIRST_WORD.match(text)
        if not match or match[2] not in self.variables:
            return ""
        # `time.sleep(1)` is Python whatever is known: there is nothing to tell.
        return match[2] if SourceReader(self.commands).command_of(text) == match[2] else ""

    def pieces(self, lines: Iterable[str]) -> Iterator[Piece]:
        """Cut a script into commands and single Python statements, each as soon as its end is known.

        Args:
            lines: With or without their newlines; read one by one, so that they may come from a pipe.
        """
        block: list[str] = []

        def taken() -> Piece:
            text = "\n".join(block)
            block.clear()
            return Piece(text, self.command_of(text))

        for line in lines:
            line = line.rstrip("\r\n")
            at_margin = bool(line.strip()) and not line[0].isspace()
            whole = bool(block) and heads_block(block[0])
            ends = not line.strip() if whole else at_margin and not _GOES_ON.match(line)
            if block and ends and self._state(block) == "open":
                yield taken()
            if not block and is_blank(line):
                continue
            block.append(line)
            # Indented lines are not looked at until the margin is reached again: a long function costs one look.
            if (at_margin or len(block) == 1) and self._state(block) in ("complete", "invalid"):
                yield taken()
        if block and not is_blank("\n".join(block)):
            yield taken()

    def split(self, text: str) -> list[Piece]:
        """Cut what was typed or pasted at its commands and background lines; Python between them stays together."""
        # Asked for the same text again and again: once for each filter of each key binding.
        asked = (text, self.commands, frozenset(self.variables))
        last = self._last
        if last is None or last[0] != asked:
            self._last = last = (asked, self._split(text))
        return last[1]

    def _split(self, text: str) -> list[Piece]:
        lines = text.split("\n")
        # What was entered as one block is one: the second half of a shell script must not run as Python.
        cut = any(self.command_of(line) for line in lines) or has_backgrounds(text)
        if len(lines) == 1 or heads_block(text) or not cut:
            return [Piece(text, self.command_of(text))]
        merged: list[Piece] = []
        for piece in self.pieces(lines):
            if merged and not any(each.command or in_background(each.text) for each in (piece, merged[-1])):
                merged[-1] = Piece(f"{merged[-1].text}\n{piece.text}")
            else:
                merged.append(piece)
        if len(merged) == 1 and not merged[0].command:
            return [Piece(text)]
        return merged or [Piece(text)]

    def finished(self, text: str) -> bool:
        """Whether Enter runs this text; else it asks for one more line."""
        last = self.split(text)[-1]
        state = self._state(last.text.split("\n"))
        if state == "open":
            return "\n" in text and not text.rpartition("\n")[2].strip()
        return state != "incomplete"

    def _state(self, block: list[str]) -> str:
        """Return the completeness of a block that may begin with a command."""
        command = self.command_of(block[0])
        text = "\n".join(block)
        if not command:
            return completeness(text)
        what = self.commands.get(command)
        source = arguments_of(text)[1] if what is Takes.WORD_AND_PYTHON else rest_of(text)
        if heads_block(block[0]):
            # A whole block belongs to it, however soon that could end, and whether or not the command exists.
            goes_on = what in _WITH_PYTHON and completeness(source) == "incomplete"
            return "incomplete" if len(block) == 1 or goes_on else "open"
        return completeness(source) if what in _WITH_PYTHON else "complete"


class Parser(StatementParser):
    """cmd2's parser, for commands only.

    Args:
        reader: Says which lines those are.
    """

    def __init__(self, reader: SourceReader) -> None:
        super().__init__(terminators=[], shortcuts={})
        self.reader = reader
        self._script = False

    @contextlib.contextmanager
    def as_script(self) -> Iterator[None]:
        """Take what is parsed in this block for complete: cmd2 would read on, from standard input."""
        before, self._script = self._script, True
        try:
            yield
        finally:
            self._script = before

    def parse(self, line: str) -> Statement:
        """Make a statement of a line or block.

        Raises:
            Cmd2ShlexError: A command has an open quotation mark.
        """
        if is_blank(line):
            return Statement("", raw=line)
        pieces = self.reader.split(line)
        command = pieces[0].command if len(pieces) == 1 else ""
        leaves = _LEAVES.fullmatch(line)
        if command == "quit" and leaves:
            return Statement(leaves[1], raw=line, command="quit")
        question = _QUESTION.fullmatch(line)
        if command == "inspect" and question:
            name, signs = (question[2], question[1]) if question[2] else (question[3], question[4])
            return Statement(f"--source {name}" if signs == "??" else name, raw=line, command=command)
        if command and self.reader.commands.get(command, Takes.TEXT) is Takes.WORDS:
            statement = super().parse(f"{command} {rest_of(line)}")
            object.__setattr__(statement, "raw", line)  # with the sign that says that the command is meant
            return statement
        text = rest_of(line) if command else line
        terminator = "\n" if self._script or self.reader.finished(line) else ""
        return Statement(text, raw=line, command=command or PYTHON, multiline_command=True, terminator=terminator)


def rest_of(text: str) -> str:
    """Return what follows the command of a text."""
    match = _SYSTEM.match(text)
    if match:
        return match[2].strip()
    match = _FIRST_WORD.match(text)
    return _without_margins(match[3]) if match else text


def assigned_by(text: str) -> str:
    """Return the variable that `NAME = !COMMAND` sets, "" when it is another text."""
    match = _SYSTEM.match(text)
    return (match[1] or "") if match else ""


def arguments_of(text: str) -> tuple[str, str]:
    """Split `on WORDS SOURCE` into words and source."""
    words, source = _WORDS.fullmatch(rest_of(text)).groups()  # type: ignore[union-attr]  # it matches any text
    return words, _without_margins(source)


def heads_block(text: str) -> bool:
    """Whether a text begins with `%%`: the lines below its first belong to that."""
    return text.lstrip().startswith("%%")


def block_of(text: str) -> tuple[str, str, str]:
    """Split what `%%WORD ARGUMENTS` heads into that word, its arguments and the lines below, as they are."""
    head, _, below = text.strip("\n").partition("\n")
    match = _FIRST_WORD.match(head)
    return (match[2], match[3].strip(), below.rstrip()) if match else ("", "", below.rstrip())


def _meant(sign: str, word: str) -> str:
    """Return our name of a command."""
    return OTHER_NAMES.get(word, word) if sign.startswith("%") else word


def _without_margins(text: str) -> str:
    """Strip a text; where it begins with the end of a line, the margin of the next stays."""
    head, _, below = text.partition("\n")
    return text.strip() if head.strip() or not below.strip() else below.rstrip()
