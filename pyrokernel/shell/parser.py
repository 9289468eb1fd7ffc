"""What is a command and what is Python, and whether it is complete. Runs in the shell process.

`SourceReader` decides both, from the text alone: cmd2 asks some 27 times per keystroke, so
no question may leave this process. `Parser` is the seam to cmd2: Python becomes a
`Statement` of the hidden command `_python`, untouched, so that `;`, `|`, `>`, `#` and `@`
mean in it what they mean in Python.
"""

from __future__ import annotations

import ast
import codeop
import contextlib
import dataclasses
import functools
import re
import textwrap
from collections.abc import Iterable, Iterator

from cmd2.parsing import Statement, StatementParser

PYTHON = "_python"
"""The command that Python becomes; hidden, so that the word stays free for a variable."""

TAKES_PYTHON = frozenset({"on"})
"""Commands whose second argument is Python, up to the end of the block."""

_COMPOUND = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try,
    ast.TryStar, ast.With, ast.AsyncWith, ast.Match,
)  # fmt: skip

_FIRST_WORD = re.compile(r"\s*(:?)([A-Za-z_]\w*)(.*)", re.DOTALL)
_ASSIGNS = re.compile(r"(=(?!=)|(\+|-|\*\*?|//?|%|@|&|\||\^|<<|>>)=|:\s*[\w\"'\[(]+.*=)")
_OPERATES = re.compile(r"([=!<>]=|[<*/%@&^,.(\[{;?~]|-\s|\+\s|(in|is|and|or|not|if|for)\b)")
_LEAVES = re.compile(r"\s*(exit|quit)\s*\(\s*\)\s*;?\s*")
_GOES_ON = re.compile(r"(elif|else|except|finally)\b|[)\]}]")


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of what was typed: one command, or consecutive Python (command "")."""

    text: str
    command: str = ""


class SourceReader:
    """Tells commands from Python.

    Attributes:
        commands: The words that are commands.
        variables: Words that name a variable in the kernels, as far as the shell knows; those that
            are commands too mean the variable wherever the line is valid Python.
    """

    def __init__(self, commands: Iterable[str] = ()) -> None:
        self.commands = frozenset(commands)
        self.variables: set[str] = set()

    def command_of(self, line: str) -> str:
        """Return the command that a text calls, "" when it is Python."""
        if _LEAVES.fullmatch(line):
            return "quit"
        match = _FIRST_WORD.match(line)
        if match is None:
            return ""
        colon, word, rest = match.groups()
        if word not in self.commands:
            return ""
        if colon or not rest.strip():
            return word if colon or word not in self.variables else ""
        if not rest[0].isspace():
            return ""
        rest = rest.strip()
        if _ASSIGNS.match(rest):
            return ""
        if (word in self.variables or _OPERATES.match(rest)) and completeness(line) != "invalid":
            return ""
        return word

    def shadowed(self, text: str) -> str:
        """Return the command that a line of Python would have been, had there been no variable of that name."""
        match = _FIRST_WORD.match(text)
        return match.group(2) if match and match.group(2) in self.variables & self.commands else ""

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
            if block and at_margin and not _GOES_ON.match(line) and self._state(block) == "open":
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
        """Cut what was typed or pasted at its commands; Python between them stays together, blank lines and all."""
        lines = text.split("\n")
        if len(lines) == 1 or not any(self.command_of(line) for line in lines):
            return [Piece(text, self.command_of(text))]
        merged: list[Piece] = []
        for piece in self.pieces(lines):
            if merged and not piece.command and not merged[-1].command:
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
        if command in TAKES_PYTHON:
            return completeness(arguments_of(text)[1])
        return "complete" if command else completeness(text)


class Parser(StatementParser):
    """cmd2's parser, for commands only.

    Args:
        reader: Says which lines those are.
    """

    def __init__(self, reader: SourceReader) -> None:
        super().__init__(terminators=[], shortcuts={})
        self.reader = reader
        self._script = False
        self._last: tuple[str, frozenset[str], Statement] | None = None

    @contextlib.contextmanager
    def as_script(self) -> Iterator[None]:
        """Take what is parsed in this block for complete: cmd2 would read on, from standard input."""
        before, self._script = self._script, True
        self._last = None
        try:
            yield
        finally:
            self._script, self._last = before, None

    def parse(self, line: str) -> Statement:
        """Make a statement of a line or block.

        Raises:
            Cmd2ShlexError: A command has an open quotation mark.
        """
        # Asked for the same text again and again: once for each filter of each key binding.
        if self._last is not None and self._last[:2] == (line, frozenset(self.reader.variables)):
            return self._last[2]
        statement = self._parse(line)
        self._last = (line, frozenset(self.reader.variables), statement)
        return statement

    def _parse(self, line: str) -> Statement:
        if is_blank(line):
            return Statement("", raw=line)
        pieces = self.reader.split(line)
        command = pieces[0].command if len(pieces) == 1 else ""
        if command == "quit" and _LEAVES.fullmatch(line):
            return Statement("", raw=line, command="quit")
        if command and command not in TAKES_PYTHON:
            return super().parse(line.strip().removeprefix(":"))
        text = line
        if command:
            match = _FIRST_WORD.match(line)
            assert match is not None
            text = match.group(3).strip()
        terminator = "\n" if self._script or self.reader.finished(line) else ""
        return Statement(text, raw=line, command=command or PYTHON, multiline_command=True, terminator=terminator)


def arguments_of(text: str) -> tuple[str, str]:
    """Split `on WORDS SOURCE` into words and source."""
    match = _FIRST_WORD.match(text)
    rest = match.group(3).strip() if match else text
    words, _, source = rest.partition(" ")
    return words, source.strip()


def is_blank(text: str) -> bool:
    """Whether there is nothing to run: only blank lines and comments."""
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.split("\n"))


def dedented(source: str) -> str:
    """Undo the margin of a block that was pasted from the inside of something."""
    return textwrap.dedent(source) if source[:1] in (" ", "\t") else source


def bound_names(source: str) -> set[str]:
    """Return the names that a cell sets at its top level, as far as its text says; none when it does not parse."""
    try:
        tree = _compiled(dedented(source))
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return set()
    names: set[str] = set()
    for node in tree.body if tree is not None else []:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        for child in ast.walk(node):
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                names.add(child.id)
            elif isinstance(child, ast.alias):
                names.add((child.asname or child.name).partition(".")[0])
    return names


@functools.lru_cache(maxsize=256)
def completeness(source: str) -> str:
    """Judge Python source, alone, without running it.

    Returns:
        "complete"; "open" (valid, and ends in a block that could go on); "incomplete"; or "invalid".
    """
    try:
        tree = _compiled(dedented(source))
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return "invalid"
    if tree is None:
        return "incomplete"
    last = tree.body[-1] if tree.body else None
    if isinstance(last, _COMPOUND) and last.end_lineno != last.lineno:
        return "open"
    return "complete"


def _compiled(source: str) -> ast.Module | None:
    """Parse source; None when it is incomplete."""
    judge = codeop.CommandCompiler()
    # Kernels run `await` at the top level.
    judge.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    if judge(source, "<input>", "exec") is None:
        return None
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree: ast.Module = compile(source, "<input>", "exec", flags, dont_inherit=True)
    return tree
