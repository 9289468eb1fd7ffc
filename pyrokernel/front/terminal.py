"""Writing for people and for scripts: tables, sizes, colours, JSON. Runs in the caller's process."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
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


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Lay out rows below a header; empty columns are left out.

    Args:
        header: Title of each column; shape (n_columns,).
        rows: Cells; shape (n_rows, n_columns).
        right: Titles of the columns that are aligned to the right.
    """
    kept = [index for index in range(len(header)) if any(row[index] for row in rows)]
    widths = [max(len(line[index]) for line in (header, *rows)) for index in kept]
    lines = []
    for line in (header, *rows):
        cells = [
            line[index].rjust(width) if header[index] in right else line[index].ljust(width)
            for index, width in zip(kept, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def width_left(used: int = 0, *, default: int = 100) -> int:
    """Return how many columns are left in a line, at least 20; `default` stands in where there is no terminal."""
    return max(20, shutil.get_terminal_size((default, 24)).columns - used)


def one_line(text: str, width: int = 60) -> str:
    """Return the first line of a text, cut to a width, without characters that a terminal would obey."""
    lines = text.strip().splitlines() or [""]
    first = "".join(character if character.isprintable() else " " for character in lines[0])
    more = len(lines) > 1
    return first if len(first) <= width and not more else first[: max(0, width - 4)].rstrip() + " ..."


def size(count_bytes: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count_bytes < 1024:
            return f"{count_bytes:.0f} {unit}"
        count_bytes /= 1024
    return f"{count_bytes:.1f} GiB"


def span(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if hours < 1:
        return f"{minutes:.0f} min"
    return f"{hours:.0f} h {minutes % 60:.0f} min" if days < 1 else f"{days:.0f} d {hours % 24:.0f} h"


def plural(number: int, noun: str) -> str:
    """Return a number and its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listing(names: Sequence[str], shown: int = 12) -> str:
    """Return names in a row, counting those beyond `shown`."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
