"""Tab: commands and their arguments by cmd2, Python names by a kernel. Runs in the shell process.

The prompt takes no key until it has the answer, so that what is typed after Tab comes after what Tab
brings. An answer comes within 150 ms or not at all; nothing is printed, whatever fails.
"""

from __future__ import annotations

import collections
import itertools
import queue
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.shortcuts import CompleteStyle

from pyrokernel import messages
from pyrokernel.client.group import Group
from pyrokernel.controls import harmless, plain
from pyrokernel.shell.parser import Takes, rest_of
from pyrokernel.texts import label, one_line

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell

ANSWER_SECONDS = 0.15
"""Later than this, Tab offers nothing: a list that pops up while one types on is worse than none."""

ASK_SECONDS = 0.8 * ANSWER_SECONDS
"""What the kernels get of it: those that answered are shown, though another holds on."""

_MAX_UNANSWERED = 4
_SHOWN_IN_ONE_COLUMN = 7

# Together with the space between, less than the 60 above which prompt_toolkit would cut columns in half.
_NAME_WIDTH = 28
_ABOUT_WIDTH = 29

_FIRST_WORD = re.compile(r"\s*(:|%{0,2})\w*\Z")
_COMMAND = re.compile(r"\s*(?:(?:\w+\s*=\s*)?!+\s*|(?::|%{0,2})\w+\s+)")
_WORDS_THEN_PYTHON = re.compile(r"\s*(?::|%{0,2})\w+\s+(\S+)\s+")
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
            except Exception:  # noqa: BLE001 - whatever fails: Tab shows nothing, and the prompt stays whole
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
        few = len(found) <= _SHOWN_IN_ONE_COLUMN
        self._shell.main_session.complete_style = CompleteStyle.COLUMN if few else CompleteStyle.MULTI_COLUMN
        return found if few else in_columns(found)

    def _find(self, document: Document) -> list[Completion]:
        text = document.text_before_cursor
        line = text.rpartition("\n")[2]
        if _FIRST_WORD.match(text):
            names = [] if line.lstrip().startswith((":", "%")) else self._python(text, self._group())
            commands = self._commands(line)
            # A command of kernels is a function there too: offered once, unless somebody has set that name.
            said = self._shell.remote.words.keys() - self._shell.reader.variables
            return [*commands, *(each for each in names if each.display_text not in said)]
        command = self._shell.reader.command_of(text)
        offer = self._shell.offers.get(command)
        if offer is not None:
            return self._offered(offer, _COMMAND.sub("", text, count=1))
        what = self._shell.reader.commands.get(command)
        if what is Takes.PYTHON:
            return self._python(rest_of(text), self._group())
        if what is Takes.WORD_AND_PYTHON:
            match = _WORDS_THEN_PYTHON.match(text)
            if match:
                return self._python(text[match.end() :], self._group_of(match[1]))
        if command and "\n" not in document.text:
            return self._arguments(document.text, document.cursor_position)
        return self._python(text, self._group())

    def _commands(self, line: str) -> list[Completion]:
        """Complete the first word."""
        word = line.lstrip().lstrip(":%")
        if not word:
            return []
        return [
            Completion(command + " ", -len(word), display=command, display_meta=self._about(command))
            for command in sorted(self._shell.reader.commands)
            if command.startswith(word) and not command.startswith("_") and command not in self._shell.refused
        ]

    def _about(self, command: str) -> str:
        """Say what a command is: of the kernels', whose."""
        remote = self._shell.remote.words.get(command)
        return plain(f"command of {remote.info.owner}") if remote else "command"

    def _offered(self, offer: Callable[[str], list[tuple[str, int, str]]], text: str) -> list[Completion]:
        """Have a command complete the text after it."""
        nothing: list[tuple[str, int, str]] = []
        return [
            Completion(match, start - len(text), display=harmless(match), display_meta=harmless(about))
            for match, start, about in self._in_time(lambda: offer(text), nothing)
        ]

    def _arguments(self, line: str, cursor: int) -> list[Completion]:
        """Complete a word after a command."""
        called = line.lstrip().lstrip(":%")  # as the parser hands it to cmd2
        line, cursor = called, cursor - (len(line) - len(called))
        match = _LAST_WORD.search(line[:cursor])
        assert match is not None  # it may be empty, but it is there
        word = match[0]
        # cmd2 must not be asked through its own Completer, which prints hints into the prompt.
        found = self._in_time(lambda: self._shell.complete(word, line, match.start(), cursor), None)
        if found is None or found.error:
            return []
        end = " " if len(found) == 1 and cursor == len(line) else ""
        return [
            Completion(
                item.text + end, -len(word), display=plain(str(item.text)), display_meta=plain(str(item.display_meta))
            )
            for item in found
        ]

    def _python(self, code: str, group: Group | None) -> list[Completion]:
        """Complete Python from the live variables of kernels."""
        if not group or not code.strip():
            return []
        nothing: dict[str, messages.Completion] = {}
        found = self._in_time(lambda: group.complete(code, timeout=ASK_SECONDS), nothing)
        return [
            Completion(match, start - len(code), display=harmless(match), display_meta=harmless(about))
            for match, start, about in merge(found)
        ]

    def _group(self) -> Group:
        return self._shell.target.group

    def _group_of(self, words: str) -> Group | None:
        return self._in_time(lambda: self._shell.target.mesh.select([words]), None)


def in_columns(found: Sequence[Completion]) -> list[Completion]:
    """Write beside each match what is said of it: a list of several columns has no place of its own for that."""
    about_width = min(_ABOUT_WIDTH, max(len(match.display_meta_text) for match in found))
    name_width = min(_NAME_WIDTH, max(len(match.display_text) for match in found))
    return [
        Completion(
            match.text,
            match.start_position,
            display=f"{match.display_text:{name_width}}  {one_line(match.display_meta_text, about_width)}".rstrip(),
            display_meta=match.display_meta,
        )
        for match in found
    ]


def merge(found: Mapping[str, messages.Completion]) -> list[tuple[str, int, str]]:
    """Join what several kernels offer.

    Args:
        found: By kernel name; shape (n_kernels,).

    Returns:
        Each match with its start in the text and a word about it: its type, and where it is not the same
        on all kernels in how many it is there, or on which its type differs; shape (n_matches,).
    """
    kinds: dict[tuple[str, int], dict[str, str]] = {}
    for kernel, completion in found.items():
        types = itertools.chain(completion.types, itertools.repeat(""))
        for match, kind in zip(completion.matches, types, strict=False):
            kinds.setdefault((match, completion.cursor_start), {})[kernel] = kind
    merged = []
    for (match, start), by_kernel in kinds.items():
        (usual, _), *others = collections.Counter(by_kernel.values()).most_common()
        about = usual
        if others:
            about = f"{usual}; type differs on {label(name for name, kind in by_kernel.items() if kind != usual)}"
        if len(by_kernel) < len(found):
            about = f"{about}; {len(by_kernel)} of {len(found)}"
        merged.append((match, start, about.removeprefix("; ")))
    # What only some kernels have must not stand apart from its neighbours.
    return merged if len(found) <= 1 else sorted(merged, key=lambda item: item[0].lstrip("_").lower())
