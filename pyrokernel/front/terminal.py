"""Writing for people and for scripts: answers, notes, errors, colours, JSON. Runs in the caller's process."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any, TextIO

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def prepare() -> None:
    """Let any text be written: output of a kernel may hold what the terminal's encoding does not."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str = "") -> None:
    """Write a line that is the answer."""
    print(text, flush=True)


def note(text: str) -> None:
    """Write a line beside the answer, to standard error."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Write an error the way all of them look."""
    note(f"pyrokernel: {text}")


def say_json(data: Any) -> None:
    """Write data for a script: one line of JSON."""
    print(json.dumps(data, default=str), flush=True)


def is_terminal(stream: TextIO) -> bool:
    """Tell whether a person looks at a stream, at a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def has_person() -> bool:
    """Tell whether standard input is somebody who can be asked."""
    # It is None in a process that was started without one.
    return sys.stdin is not None and sys.stdin.isatty()


def paint(text: str, style: str, stream: TextIO) -> str:
    """Colour a text where a person looks at it and has not said NO_COLOR (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or not is_terminal(stream):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"
