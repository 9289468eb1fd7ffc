"""Which words are both a command and a variable, as the kernels have it. Runs in the shell process."""

from __future__ import annotations

from pyrokernel.client.group import Group
from pyrokernel.client.listing import ask_all
from pyrokernel.shell.parser import SourceReader

_ANSWER_SECONDS = 0.25


def look_up(line: str, reader: SourceReader, group: Group) -> None:
    """Where a line is a command or Python about a variable of that name, ask the kernels which, and remember it.

    Asked at Enter, not at each key: only `ps`, `time [x]` and the like are both. A kernel that does not answer
    in time changes nothing.
    """
    word = SourceReader(reader.commands).command_of(line)
    full = SourceReader(reader.commands)
    full.variables = set(reader.commands)
    if not word or full.command_of(line):
        return
    answers, _, missing = ask_all(group, "variables", {"names": [word]}, timeout=_ANSWER_SECONDS)
    if any(found["name"] == word for variables in answers.values() for found in variables):
        reader.variables.add(word)
    elif not missing:
        reader.variables.discard(word)
