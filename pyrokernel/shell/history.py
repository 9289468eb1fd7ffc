"""Lines typed before, in a file that several shells share. Runs in the shell process.

Not cmd2's own history file, which each shell rewrites whole when it ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory


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
