"""Lines typed before, in a file that several shells share, or in memory. Runs in the shell process.

Not cmd2's own history file, which each shell rewrites whole when it ends.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory, InMemoryHistory


class History(FileHistory):
    """Lines typed before, one file per user and mesh; each is appended at once, so that two shells lose none.

    Attributes:
        last: The line that was added last, "" when none was.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self.last = ""

    @property
    def problem(self) -> str:
        """Why lines are not kept, "" when nothing speaks against it; a FIFO would be waited for."""
        if self._path.exists() and not self._path.is_file():
            return f"{self._path} is not a file: what is typed is not kept"
        return ""

    def load_history_strings(self) -> Iterable[str]:
        """Return the lines, newest first; none when the file cannot be read."""
        try:
            return [] if self.problem else list(super().load_history_strings())
        except OSError:
            return []

    def append_string(self, string: str) -> None:
        """Add a line; the same one again counts once."""
        string = string.rstrip()
        if string and string != self.last:
            self.last = string
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Write a line to the file, which only its owner can read; without a disk it is remembered until the end."""
        try:
            if self.problem:
                return
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
            super().store_string(string)
        except (OSError, UnicodeError):
            return


class Unwritten(InMemoryHistory):
    """Lines typed before, forgotten when the shell ends; attributes as those of `History`."""

    problem = ""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def append_string(self, string: str) -> None:
        """Add a line; the same one again counts once."""
        string = string.rstrip()
        if string and string != self.last:
            self.last = string
            super().append_string(string)


def positive(text: str) -> int:
    """Read a number above 0.

    Raises:
        ValueError: It is none.
    """
    number = int(text)
    if number < 1:
        raise ValueError(f"must be above 0, not {number}")
    return number


def numbers(text: str) -> range:
    """Read `3` or `3-5`.

    Raises:
        ValueError: It is neither.
    """
    first, dash, last = text.partition("-")
    return range(int(first), int(last if dash else first) + 1)


ALL = range(1, sys.maxsize)
"""The numbers of all lines."""


def found(lines: Iterable[str], text: str, limit: int | None, numbers: range = ALL, own: str = "") -> list[str]:
    """Lay out lines typed before with their numbers, the oldest first.

    Args:
        lines: All of them, newest first.
        text: Only those that have it, in whatever case; "" for all.
        limit: How many of those, the last ones; None for all.
        numbers: Only those.
        own: The line that asks, left out where it is the newest.
    """
    numbered = list(enumerate(reversed(list(lines)), 1))
    margin = len(str(len(numbered)))
    if own and numbered and numbered[-1][1] == own:
        numbered.pop()
    kept = [(number, line) for number, line in numbered if number in numbers and text.lower() in line.lower()]
    shown = []
    for number, line in kept[-(limit or len(kept)) :]:
        first, *rest = line.split("\n")
        shown += [f"{number:>{margin}}  {first}", *(f"{'':>{margin}}  {more}" for more in rest)]
    return shown
