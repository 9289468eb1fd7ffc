"""Lines typed before, in a file that several shells share, or in memory. Runs in the shell process.

Not cmd2's own history file, which each shell rewrites whole when it ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory, InMemoryHistory


class History(FileHistory):
    """Lines typed before, one file per user and mesh; each is appended at once, so that two shells lose none."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._last = ""

    def load_history_strings(self) -> Iterable[str]:
        """Return the lines, newest first; none when the file cannot be read."""
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def append_string(self, string: str) -> None:
        """Add a line; the same one again counts once."""
        string = string.rstrip()
        if string and string != self._last:
            self._last = string
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Write a line to the file, which only its owner can read; without a disk it is remembered until the end."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
            super().store_string(string)
        except (OSError, UnicodeError):
            return


class Unwritten(InMemoryHistory):
    """Lines typed before, forgotten when the shell ends."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""

    def append_string(self, string: str) -> None:
        """Add a line; the same one again counts once."""
        string = string.rstrip()
        if string and string != self._last:
            self._last = string
            super().append_string(string)


def found(lines: Iterable[str], text: str, limit: int) -> list[str]:
    """Lay out lines typed before with their numbers, the oldest first.

    Args:
        lines: All of them, newest first.
        text: Only those that have it, in whatever case; "" for all.
        limit: How many of those, the last ones.
    """
    numbered = list(enumerate(reversed(list(lines)), 1))
    kept = [(number, line) for number, line in numbered if text.lower() in line.lower()][-limit:]
    margin = len(str(len(numbered)))
    shown = []
    for number, line in kept:
        first, *rest = line.split("\n")
        shown += [f"{number:>{margin}}  {first}", *(f"{'':>{margin}}  {more}" for more in rest)]
    return shown
