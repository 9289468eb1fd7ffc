"""Words of one's own that stand for the beginning of a line. Runs in the shell process.

Not cmd2's own aliases, which are words for words: here what an alias stands for may be Python too.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cmd2 import Statement
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from pyrokernel.shell.parser import Takes, arguments_of, takes

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell
    from pyrokernel.shell.here import Offers

_WORD = re.compile(r"[A-Za-z]\w*")
_USAGE = "usage: alias create NAME LINE, alias delete NAME, or alias to list them"


class Aliases:
    """The aliases of a shell; each is a command of it while it exists.

    Args:
        shell: Whose.

    Attributes:
        lines: By name, what it stands for.
    """

    DEFAULT_CATEGORY = "Shell"

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self.lines: dict[str, str] = {}
        self._running: list[str] = []

    @takes(Takes.TEXT)
    def do_alias(self, statement: Statement) -> None:
        """Let a word stand for the beginning of a line: alias create NAME LINE, alias delete NAME, or alias.

        What is typed after the word is added to the line, which may be a command or Python. Without anything,
        aliases are listed. They last as long as the shell; the startup file is the place for those to keep.
        """
        words = str(statement).split(None, 2)
        match words:
            case [] | ["list"]:
                self._shell.print_lines([f"alias create {name} {line}" for name, line in sorted(self.lines.items())])
                self._shell.last_result = dict(self.lines)
            case ["create", name, line]:
                self._create(name, line)
            case ["delete", name] if name in self.lines:
                self._delete(name)
            case ["delete", name]:
                self._shell.fail(f"there is no alias {name!r}; `alias` lists them")
            case _:
                self._shell.fail(_USAGE)

    def _create(self, name: str, line: str) -> None:
        reader = self._shell.reader
        if not _WORD.fullmatch(name):
            self._shell.fail(f"{name!r} cannot be an alias: letters, digits and '_', beginning with a letter")
            return
        if keyword.iskeyword(name) or keyword.issoftkeyword(name):
            self._shell.fail(f"{name!r} is a word of Python's own, and would be lost to it")
            return
        if name in reader.commands and name not in self.lines:
            self._shell.fail(f"{name!r} is a command of the shell already")
            return
        reader.commands = {**reader.commands, name: _takes(reader.commands, reader.command_of(line), line)}
        self.lines[name] = line

        def run(statement: Statement) -> bool:
            return self._run(name, str(statement))

        run.__doc__ = f"Stand for `{line}`."
        self._shell.take_in(run, name)
        self._shell.offers[name] = lambda text: self._offer(name, text)
        self._shell.last_result = name

    def _delete(self, name: str) -> None:
        reader = self._shell.reader
        reader.commands = {word: what for word, what in reader.commands.items() if word != name}
        del self.lines[name], self._shell.offers[name]
        setattr(self._shell, f"do_{name}", None)  # not delattr: a command of cmd2's that was left out would be back
        self._shell.last_result = name

    def _run(self, name: str, rest: str) -> bool:
        """Run the line that an alias stands for; return whether it leaves the shell."""
        if name in self._running:
            self._shell.fail(f"alias {name!r} stands for itself: {' -> '.join([*self._running, name])}")
            return False
        self._running.append(name)
        try:
            return self._shell.run_line(f"{self.lines[name]} {rest}".rstrip())
        finally:
            self._running.remove(name)

    def _offer(self, name: str, text: str) -> Offers:
        """Complete what follows an alias as what follows the line it stands for."""
        document = Document(f"{self.lines[name]} {text}")
        completer = self._shell.main_session.completer
        assert completer is not None  # set with the prompt
        found = completer.get_completions(document, CompleteEvent())
        return [(item.text, len(text) + item.start_position, item.display_meta_text) for item in found]


def _takes(commands: Mapping[str, Takes], command: str, line: str) -> Takes:
    """Return what follows an alias of a line."""
    what = commands.get(command, Takes.PYTHON if not command else Takes.TEXT)
    if what is Takes.WORD_AND_PYTHON and arguments_of(line)[0]:
        return Takes.PYTHON
    return Takes.TEXT if what is Takes.WORDS else what
