"""Which words are a variable in the kernels, and which of those a command too. Runs in the shell process."""

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
    known = is_variable(word, group)
    if known:
        reader.variables.add(word)
    elif known is not None:
        reader.variables.discard(word)


def is_variable(name: str, group: Group) -> bool | None:
    """Whether a kernel has a variable of that name; None when none that answers has, and not all did in time."""
    answers, _, missing = ask_all(group, "variables", {"names": [name]}, timeout=_ANSWER_SECONDS)
    if any(found["name"] == name for variables in answers.values() for found in variables):
        return True
    return None if missing else False
