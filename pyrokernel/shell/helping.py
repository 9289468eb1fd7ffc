"""What `help` says: commands by subject, one line each, and an example of each. Pure. Runs in the shell process."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Mapping

from pyrokernel.controls import COLOUR

EXAMPLES: Mapping[str, str] = {
    "alias": "alias create mem import resource; resource.getrusage(0).ru_maxrss",
    "cancel": "cancel 3f2a",
    "cd": "cd /data/run7",
    "cells": "cells 17",
    "commands": "commands",
    "debug": "debug k0",
    "edit": "edit 12",
    "env": "env OMP_NUM_THREADS=2",
    "exit": "exit",
    "follow": "follow k0",
    "gather": "gather squares as all_squares",
    "help": "help gather",
    "here": "here sorted(all_squares)[-3:]",
    "history": "history -s import",
    "inspect": "json.dumps?",
    "interrupt": "interrupt k0",
    "load_ext": "load_ext autoreload",
    "logs": "logs k0 -n 20",
    "map": "map lambda x: x ** 2 over range(100) into squares",
    "matplotlib": "matplotlib inline",
    "on": "on k0,k3 len(part)",
    "pip": "pip install tqdm",
    "plugins": "plugins",
    "ps": "ps > kernels.txt",
    "pull": "pull part",
    "push": "push limit = 0.5",
    "pwd": "pwd",
    "quit": "quit",
    "refs": "refs revoke 3f2a9c81d0b4",
    "reset": "reset",
    "restart": "restart k3",
    "run": "run nightly.py --fast",
    "scatter": "scatter part = range(1000)",
    "set": "set timing true",
    "sh": "!nvidia-smi",
    "shared": "shared history cal/gain",
    "ship": "ship analysis.py",
    "stop": "stop k3",
    "time": "time sum(range(1000))",
    "timeit": "timeit -n 1000 sum(range(1000))",
    "tour": "tour next",
    "unship": "unship analysis",
    "use": "use gpu-* k0",
    "watch": "watch on",
    "who": "who k0",
    "whos": "whos k0",
    "writefile": "%%writefile notes.txt",
}
"""By command, a line that one could type."""

_FIRST = ("Kernels", "Cells", "Data")
_LAST = ("Shell", "Aliases", "Commands of the kernels")
_INDENT = "  "


def summary(doc: str) -> str:
    """Return the first sentence of a docstring, without the usage that follows a colon."""
    line = inspect.cleandoc(doc).partition("\n")[0]
    return line.partition(": ")[0].rstrip(".")


def overview(subjects: Mapping[str, Mapping[str, str]], width: int) -> list[str]:
    """Lay out all commands by subject.

    Args:
        subjects: By subject, the commands and their docstrings.
        width: Of the terminal.
    """
    longest = max((len(name) for commands in subjects.values() for name in commands), default=0)
    begin = len(_INDENT) + longest + 2
    lines: list[str] = []
    for subject in _in_order(subjects):
        lines += ["", subject] if lines else [subject]
        for name, doc in sorted(subjects[subject].items()):
            lines += textwrap.wrap(
                summary(doc),
                max(width, begin + 16),
                initial_indent=f"{_INDENT}{name}".ljust(begin),
                subsequent_indent=" " * begin,
                break_on_hyphens=False,
            )
    more = "`help NAME` tells more about a command. What is no command is Python, and goes to the kernels."
    return [*lines, "", *textwrap.wrap(more, width, break_on_hyphens=False)]


def _in_order(subjects: Iterable[str]) -> list[str]:
    others = sorted(set(subjects) - {*_FIRST, *_LAST})
    return [subject for subject in (*_FIRST, *others, *_LAST) if subject in set(subjects)]


def details(name: str, doc: str, usage: str, width: int) -> list[str]:
    """Say what one command does.

    Args:
        name: Of the command.
        doc: Its docstring.
        usage: What its parser says of its arguments; "" when it takes them as they are.
        width: Of the terminal.
    """
    text = usage.rstrip() if usage else inspect.cleandoc(doc)
    lines = []
    for line in text.split("\n"):
        lines += wrap(line, width)
    example = EXAMPLES.get(name)
    return [*lines, "", f"For instance: {example}"] if example else lines


def wrap(line: str, width: int) -> list[str]:
    """Break a line between words, if it is longer than the terminal is wide; words stay whole."""
    if len(COLOUR.sub("", line)) <= width:
        return [line]
    margin = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
