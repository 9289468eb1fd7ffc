"""A shell for others, over a network: without what touches the machine that serves it. Runs in the shell process.

What a kernel runs is the kernel's business; here is about the process of the shell. A set of commands that
reads or writes files, starts programs or runs Python in this process says `LOCAL = True`; a single command
of another set is marked with `local`. A restricted shell knows the words and refuses them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from cmd2 import CommandSet, Statement

MARK = "LOCAL"
_PREFIX = "do_"

Command = TypeVar("Command", bound=Callable[..., Any])


def local(function: Command) -> Command:
    """Mark a `do_` method that works on the machine of the shell."""
    setattr(function, MARK, True)
    return function


def is_local(thing: object) -> bool:
    """Whether a command or a set of them works on the machine of the shell."""
    return bool(getattr(thing, MARK, False))


def admit(command_sets: Iterable[CommandSet[Any]]) -> tuple[list[CommandSet[Any]], set[str]]:
    """Choose the sets of commands that others may use.

    Returns:
        Those sets, and the names of all commands that are refused: of the other sets, and single ones of these.
    """
    admitted: list[CommandSet[Any]] = []
    refused: set[str] = set()
    for commands in command_sets:
        if not is_local(commands):
            admitted.append(commands)
        refused |= {name for name in commands_in(commands) if is_local(commands) or is_marked(commands, name)}
    return admitted, refused


def is_marked(owner: object, name: str) -> bool:
    """Whether a single command of an object is marked."""
    return is_local(getattr(owner, _PREFIX + name, None))


def commands_in(owner: object) -> list[str]:
    """Return the names of the commands that an object has."""
    return [name.removeprefix(_PREFIX) for name in dir(owner) if name.startswith(_PREFIX)]


def refusal(name: str, fail: Callable[[str], None]) -> Callable[[Statement], None]:
    """Return what stands for a command that is refused.

    Args:
        name: Of the command.
        fail: Says why something failed.
    """

    def refuse(_: Statement) -> None:
        fail(f"`{name}` is not in this shell, which is served to others: it works on the machine that serves it")

    return refuse


def ignore_job_control() -> None:
    """Ignore the keys that stop or dump a process: nobody sits there who could bring it back or wants its core."""
    for name in ("SIGTSTP", "SIGQUIT"):
        if hasattr(signal, name):  # Windows has neither
            signal.signal(getattr(signal, name), signal.SIG_IGN)
