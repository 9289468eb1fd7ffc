"""Tab: commands and their arguments by cmd2, Python names by a kernel. Runs in the shell process.

prompt_toolkit calls this in a thread. An answer comes within 150 ms or not at all; nothing is
printed, whatever fails.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.shortcuts import CompleteStyle

from pyrokernel import messages
from pyrokernel.client.kernel import Kernel
from pyrokernel.errors import PyrokernelError
from pyrokernel.shell.display import harmless
from pyrokernel.shell.parser import TAKES_PYTHON

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell

ANSWER_SECONDS = 0.15
"""Later than this, Tab offers nothing: a list that pops up while one types on is worse than none."""

_MAX_UNANSWERED = 4
_SHOWN_IN_ONE_COLUMN = 7

_FIRST_WORD = re.compile(r"\s*:?\w*\Z")
_WORDS_THEN_PYTHON = re.compile(r"\s*:?\w+\s+(\S+)\s+")
_LAST_WORD = re.compile(r"\S*\Z")

T = TypeVar("T")


class InTime:
    """Asks questions in threads of their own, so that an answer that does not come holds up nobody."""

    def __init__(self) -> None:
        self._unanswered = threading.Semaphore(_MAX_UNANSWERED)

    def __call__(self, question: Callable[[], T], otherwise: T, seconds: float = ANSWER_SECONDS) -> T:
        """Return the answer, or `otherwise` when there is none in time or the question fails."""
        if not self._unanswered.acquire(blocking=False):
            return otherwise
        answers: queue.SimpleQueue[T] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(question())
            except (PyrokernelError, OSError):
                answers.put(otherwise)
            finally:
                self._unanswered.release()

        threading.Thread(target=ask, name="complete", daemon=True).start()
        try:
            return answers.get(timeout=seconds)
        except queue.Empty:
            return otherwise


class Router(Completer):
    """Sends Tab to where the answer is.

    Args:
        shell: Knows the commands, how to complete their arguments, and the current group.
    """

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._in_time = InTime()

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Return what the text before the cursor could become."""
        found = self._find(document)
        style = CompleteStyle.COLUMN if len(found) <= _SHOWN_IN_ONE_COLUMN else CompleteStyle.MULTI_COLUMN
        self._shell.main_session.complete_style = style
        return found

    def _find(self, document: Document) -> list[Completion]:
        text = document.text_before_cursor
        line = text.rpartition("\n")[2]
        if _FIRST_WORD.match(text):
            names = [] if line.lstrip().startswith(":") else self._python(text, self._first_kernel())
            return [*self._commands(line), *names]
        command = self._shell.reader.command_of(text)
        if command in TAKES_PYTHON:
            match = _WORDS_THEN_PYTHON.match(text)
            if match:
                return self._python(text[match.end() :], self._kernel_of(match[1]))
        if command and "\n" not in document.text:
            return self._arguments(document.text, document.cursor_position)
        return self._python(text, self._first_kernel())

    def _commands(self, line: str) -> list[Completion]:
        """Complete the first word."""
        word = line.lstrip().removeprefix(":")
        if not word:
            return []
        return [
            Completion(command + " ", -len(word), display=command, display_meta="command")
            for command in sorted(self._shell.reader.commands)
            if command.startswith(word) and not command.startswith("_")
        ]

    def _arguments(self, line: str, cursor: int) -> list[Completion]:
        """Complete a word after a command."""
        match = _LAST_WORD.search(line[:cursor])
        assert match is not None  # it may be empty, but it is there
        word = match[0]
        # cmd2 must not be asked through its own Completer, which prints hints into the prompt.
        found = self._in_time(lambda: self._shell.complete(word, line, match.start(), cursor), None)
        if found is None or found.error:
            return []
        end = " " if len(found) == 1 and cursor == len(line) else ""
        return [
            Completion(item.text + end, -len(word), display=str(item.text), display_meta=str(item.display_meta))
            for item in found
        ]

    def _python(self, code: str, kernel: Kernel | None) -> list[Completion]:
        """Complete Python from the live variables of a kernel."""
        if kernel is None or not code.strip():
            return []
        found = self._in_time(lambda: kernel.complete(code, timeout=ANSWER_SECONDS * 2), messages.Completion())
        start = found.cursor_start - len(code)
        kinds: list[Any] = [*found.types, *[""] * len(found.matches)]
        return [
            Completion(match, start, display=harmless(match), display_meta=harmless(str(kind)))
            for match, kind in zip(found.matches, kinds, strict=False)
        ]

    def _first_kernel(self) -> Kernel | None:
        return next(iter(self._shell.target.group), None)

    def _kernel_of(self, words: str) -> Kernel | None:
        return self._in_time(lambda: next(iter(self._shell.target.mesh.select(words.split(",")))), None)
