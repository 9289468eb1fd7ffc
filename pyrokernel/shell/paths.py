"""Tab on files and programs of the kernels' machines, after commands. Runs in the shell process."""

from __future__ import annotations

import dataclasses
import re

from pyrokernel import messages
from pyrokernel.client.group import Group
from pyrokernel.client.listing import ask_all
from pyrokernel.shell.completer import ASK_SECONDS, merge
from pyrokernel.shell.here import Offers

_SPECIAL = re.compile(r"([\s\\'\"$&;|<>()*?\[\]{}`!#])")
_ENDS_WORD = " \t;|&<>()="
_BEGINS_COMMAND = ";|&("


@dataclasses.dataclass(frozen=True)
class Word:
    """The word of the system's shell that is being typed.

    Attributes:
        start: Where the last part of its path begins in the text.
        value: What it means, without quotes and backslashes.
        quote: The quote it stands in, or "".
        program: Whether it names a program to run.
        mixed: Whether a quote ends or begins within that part, so that no completion would fit both sides of it.
    """

    start: int
    value: str
    quote: str = ""
    program: bool = False
    mixed: bool = False


def last_word(text: str) -> Word:
    """Find the word at the end of a command of the system's shell."""
    value, quote, start, program, escaped, mixed = "", "", 0, True, False, False
    for at, sign in enumerate(text):
        if escaped or (quote and sign not in (quote, "\\")):
            value, escaped = value + sign, False
        elif sign == "\\" and quote != "'":
            escaped = True
        elif sign == quote:
            quote, mixed = "", True
        elif sign in "'\"" and not quote:
            mixed = at > start
            quote, start = sign, at + 1
        elif sign in _ENDS_WORD:
            program = sign in _BEGINS_COMMAND or (program and not value)
            value, start, mixed = "", at + 1, False
        else:
            value += sign
        if sign == "/":
            start, mixed = at + 1, False
    return Word(start, value, quote, program, mixed)


def offer_words(group: Group, text: str, *, programs: bool = False) -> Offers:
    """Complete the last word of a command of the system's shell: a file, or a program where one can stand."""
    word = last_word(text)
    if word.mixed or "$" in word.value or "{" in word.value:
        return []
    what = "program" if programs and word.program and "/" not in word.value else "path"
    return [
        (name if word.quote else _SPECIAL.sub(r"\\\1", name), word.start, about)
        for name, about in _ask(group, word.value, what)
        if not word.quote or word.quote not in name
    ]


def offer_folders(group: Group, text: str) -> Offers:
    """Complete a directory that is all of a text, spaces and all; a quote before it stays."""
    path = text.lstrip().lstrip("'\"")
    start = len(text) - len(path.rpartition("/")[2])
    return [(name, start, about) for name, about in _ask(group, path, "path") if name.endswith("/")]


def offer_paths(group: Group, typed: str) -> list[str]:
    """Complete a path of the kernels' machines; shape (n_matches,)."""
    head = typed[: len(typed) - len(typed.rpartition("/")[2])]
    return [head + name for name, _ in _ask(group, typed, "path")]


def offer_local_words(text: str) -> Offers:
    """Complete the last word of a text: a file of the shell's machine."""
    from pyrokernel.kernel.paths import complete_path  # late: the prompt does not wait for it

    word = last_word(text)
    if word.mixed:
        return []
    found = complete_path(word.value)
    return [
        (name if word.quote else _SPECIAL.sub(r"\\\1", name), word.start, about)
        for name, about in zip(found.matches, found.types, strict=False)
        if not word.quote or word.quote not in name
    ]


def _ask(group: Group, typed: str, what: str) -> list[tuple[str, str]]:
    answers, _, _ = ask_all(group, "complete", typed, len(typed), {"what": what}, timeout=ASK_SECONDS)
    found = {kernel: messages.Completion.from_wire(answer) for kernel, answer in answers.items()}
    return [(name, about) for name, _, about in merge(found)]
