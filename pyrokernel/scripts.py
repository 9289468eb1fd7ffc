"""Python files as they are sent to kernels, and how a script that exits ends its cell. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import re
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyrokernel.errors import SettingsError
from pyrokernel.messages import Event, EventKind

_EXIT_WORDS = {"": 0, "None": 0, "False": 0, "True": 1}


@dataclasses.dataclass(frozen=True)
class Source:
    """Code to run.

    Attributes:
        text: The code.
        filename: How tracebacks call it, "" for the number of its cell.
        argv: `sys.argv` while it runs, None to leave that as it is.
        is_stdin: Whether it came from standard input, which has no answers to input() then.
    """

    text: str
    filename: str = ""
    argv: tuple[str, ...] | None = None
    is_stdin: bool = False

    def options(self) -> dict[str, Any]:
        """Return what kernels are told beside the code."""
        options: dict[str, Any] = {"filename": self.filename}
        if self.argv is not None:
            options["argv"] = list(self.argv)
        return options


def read_script(file: str, arguments: Iterable[str] = ()) -> Source:
    """Read a file of this machine, to run as Python would run it.

    Args:
        file: Its path, which may begin with "~".
        arguments: What follows in `sys.argv`.

    Raises:
        SettingsError: It cannot be read.
    """
    path = Path(file).expanduser()
    try:
        with tokenize.open(str(path)) as stream:  # as Python reads source: by its coding line
            text = stream.read()
    except (OSError, SyntaxError, UnicodeError) as error:
        raise SettingsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    # Absolute, because the kernel may work in another directory.
    return Source(text, str(path.absolute()), (str(path.absolute()), *arguments))


def exit_of(event: Event) -> tuple[int, str] | None:
    """Return the exit code that a script asked for with `sys.exit`, and the text it gave instead of one.

    Returns:
        As Python itself: 0 for nothing, the number, or 1 and the text; None when the event is no such exit.
    """
    if event.kind != EventKind.ERROR or event.data.get("ename") != "SystemExit":
        return None
    value = str(event.data.get("evalue", ""))
    if value in _EXIT_WORDS:
        return _EXIT_WORDS[value], ""
    if re.fullmatch(r"-?\d+", value):
        return int(value) & 0xFF, ""
    return 1, value
