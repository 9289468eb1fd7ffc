"""What both front ends write: tables, names, kernels as rows, journals as sessions. Runs in the caller's process.

Pure, but for the width of the terminal: data in, text out. `shell/` and `front/` say the same
thing in the same words because they say it through here.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pyrokernel.messages import Event, EventKind, KernelInfo, KernelStatus, Receipt, RefInfo
from pyrokernel.scripts import exit_of

T = TypeVar("T", bound=Hashable)

_HEADER = ("", "NAME", "STATUS", "CELLS", "WAIT", "MEMORY", "UP", "RESTARTS", "PID", "HOST", "TAGS", "DOING")
_RIGHT = ("CELLS", "WAIT", "MEMORY", "UP", "RESTARTS", "PID")
_NUMBERED = re.compile(r"(.*?)(\d+)")
_NAMES_SHOWN = 8
_LEAST_WIDTH = 16
_USUAL_WIDTH = 100
_SPARED = ("PID", "HOST", "RESTARTS", "MEMORY", "UP", "WAIT", "TAGS", "CELLS")
"""Columns that a narrow terminal goes without, in this order."""


def plural(number: int, noun: str) -> str:
    """Return a number and its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def label(names: Iterable[str]) -> str:
    """Name kernels briefly, at most eight parts: runs of numbers as "k0-k3", or "lab2-[0-3]" where that has a hyphen.

    Args:
        names: In natural order, as a mesh lists them.
    """
    runs: list[tuple[str, str, str, int]] = []
    for name in names:
        match = _NUMBERED.fullmatch(name)
        stem, number = (match[1], int(match[2])) if match else (name, -1)
        if runs and match and runs[-1][2] == stem and runs[-1][3] == number - 1:
            runs[-1] = (runs[-1][0], name, stem, number)
        else:
            runs.append((name, name, stem, number))
    parts = [first if first == last else _run(first, last, stem) for first, last, stem, _ in runs]
    more = len(parts) - _NAMES_SHOWN
    return ", ".join(parts[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _run(first: str, last: str, stem: str) -> str:
    return f"{stem}[{first[len(stem) :]}-{last[len(stem) :]}]" if "-" in stem else f"{first}-{last}"


def describe_silence(names: Iterable[str]) -> str:
    """Say that kernels did not answer."""
    return f"{label(names)} did not answer in time: a C call may hold the interpreter"


def describe_missing(why: Mapping[str, str]) -> list[str]:
    """Say why kernels told nothing.

    Args:
        why: By kernel name, as `client.listing.list_cells` returns it.
    """
    silent = [name for name, reason in why.items() if not reason]
    return [*([describe_silence(silent)] if silent else []), *(reason for reason in why.values() if reason)]


def names_by(values: Mapping[str, T]) -> dict[T, list[str]]:
    """Return the names that have each value, in the order of the names: what is equal is said once."""
    names: dict[T, list[str]] = {}
    for name, value in values.items():
        names.setdefault(value, []).append(name)
    return names


def status_of(cell: Mapping[str, Any]) -> str:
    """Say how it stands with a cell, or with a job: what it raised, how many of its items failed, or its status.

    Args:
        cell: As `client.listing.list_cells` and `fold_jobs` return them.
    """
    if cell.get("ename") == "SystemExit":
        code, _ = exit_of(Event(seq=0, kind=EventKind.ERROR, data=dict(cell))) or (0, "")
        return f"exit {code}"
    if cell.get("failed") and cell["status"] == "ok":
        return f"{cell['failed']:,} failed"
    return str(cell.get("ename") or cell["status"])


def one_line(text: str, width: int = 60) -> str:
    """Return the first line of a text, cut to a width, without characters that a terminal would obey."""
    lines = text.strip().splitlines() or [""]
    first = _visible(lines[0])
    more = len(lines) > 1
    return first if len(first) <= width and not more else first[: max(0, width - 4)].rstrip() + " ..."


def _visible(text: str) -> str:
    """Return a text with blanks in place of what a terminal would obey."""
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


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


def stopwatch(seconds: float) -> str:
    """Return a measured time with three digits, as IPython's timeit does."""
    seconds = float(f"{seconds:.2e}")  # rounded first: 999.9 µs is 1 ms
    if seconds >= 60:
        minutes, hours = seconds // 60, seconds // 3600
        return f"{hours:.0f} h {minutes % 60:.0f} min" if hours else f"{minutes:.0f} min {seconds % 60:.0f} s"
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Container[str] = ()) -> str:
    """Lay out rows below a header; empty columns are left out, and whatever a terminal would obey.

    Args:
        header: Title of each column; shape (n_columns,).
        rows: Cells; shape (n_rows, n_columns).
        right: Titles of the columns that are aligned to the right.
    """
    kept = [index for index in range(len(header)) if any(row[index] for row in rows)]
    rows = [[_visible(cell) for cell in row] for row in rows]
    widths = [max(len(line[index]) for line in (header, *rows)) for index in kept]
    lines = []
    for line in (header, *rows):
        cells = [
            line[index].rjust(width) if header[index] in right else line[index].ljust(width)
            for index, width in zip(kept, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def wide_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Container[str] = (),
    spared: Sequence[str] = (),
    cut: str = "",
) -> str:
    """Lay out rows as `table`, as wide as the terminal: one column is cut to what the others leave.

    Args:
        header, rows, right: As for `table`.
        spared: Columns that a narrow terminal goes without, in this order.
        cut: Title of the column that is cut; "" for the last one.
    """
    place = header.index(cut) if cut else len(header) - 1
    width = shutil.get_terminal_size((_USUAL_WIDTH, 24)).columns
    for count in range(len(spared) + 1):
        # A column without a word in it is left out.
        rows = [
            tuple("" if title in spared[:count] else cell for title, cell in zip(header, row, strict=True))
            for row in rows
        ]
        others = table(_without(header, place), [_without(row, place) for row in rows], right=right)
        used = max(map(len, others.splitlines()))
        if used + 2 + _LEAST_WIDTH <= width:
            break
    left = max(_LEAST_WIDTH // 2, width - used - 2)
    cut_rows = [(*row[:place], one_line(row[place], left), *row[place + 1 :]) for row in rows]
    return table(header, cut_rows, right=right)


def _without(cells: Sequence[str], place: int) -> tuple[str, ...]:
    return (*cells[:place], *cells[place + 1 :])


def format_kernels(infos: Sequence[KernelInfo], *, now: float, marked: Container[str] = ()) -> str:
    """Lay out what `ps` lists, one line per kernel, as wide as the terminal; in a narrow one columns are left out.

    Args:
        infos: As `Mesh.ps` returns them.
        now: Unix time in seconds.
        marked: Names of the kernels that get a star.
    """
    several_hosts = len({info.host for info in infos}) > 1
    lines = [(*_cells(info, now, marked, several_hosts), _doing(info)) for info in infos]
    terminal = shutil.get_terminal_size((0, 24)).columns
    for count in range(len(_SPARED) + 1):
        # A column without a word in it is left out.
        lines = [
            tuple("" if title in _SPARED[:count] else cell for title, cell in zip(_HEADER, line, strict=True))
            for line in lines
        ]
        used = max(map(len, table(_HEADER[:-1], [line[:-1] for line in lines], right=_RIGHT).splitlines()))
        if not terminal or used + _LEAST_WIDTH <= terminal:
            break
    left = terminal - used - 2 if terminal else max(_LEAST_WIDTH, _USUAL_WIDTH - used - 2)
    return table(_HEADER, [(*line[:-1], one_line(line[-1], left)) for line in lines], right=_RIGHT)


def _cells(info: KernelInfo, now: float, marked: Container[str], several_hosts: bool) -> tuple[str, ...]:
    return (
        "*" if info.name in marked else "",
        info.name,
        info.status,
        "" if info.execution_count is None else str(info.execution_count),
        str(len(info.waiting)) if info.waiting else "",
        size(info.memory_bytes) if info.memory_bytes else "",
        span(now - info.started) if info.started and info.status != KernelStatus.DEAD else "",
        str(info.restarts) if info.restarts else "",
        str(info.pid) if info.pid else "",
        info.host if several_hosts else "",
        ",".join([*info.tags, *(["(protected)"] if info.protected else [])]),
    )


def _doing(info: KernelInfo) -> str:
    if info.cause and info.status == KernelStatus.DEAD:
        return info.cause
    if info.running:
        question = info.running.get("asks")
        return f"waits for input: {question['prompt']}" if question else str(info.running["source"])
    if info.init_error:
        what = "" if info.init_error.startswith("ship ") else "init failed: "
        return f"{what}{info.init_error.strip().splitlines()[-1]}"
    return info.note or info.journal_error


_REFERENCES_HEADER = ("ID", "KERNEL", "KIND", "OBJECT", "TYPE", "BY", "USED", "ENDS")


def format_references(infos: Sequence[RefInfo], *, now: float, wide: bool = True) -> str:
    """Lay out references, one a line.

    Args:
        infos: As `Kernel.refs` returns them.
        now: Unix time in seconds.
        wide: Cut to the width of the terminal.
    """
    rows = [
        (
            info.id,
            info.kernel,
            info.kind + (", exposed" if info.exposed and info.kind != "published" else ""),
            one_line(info.shown),
            info.type,
            info.by,
            str(info.uses),
            _ending_of(info, now),
        )
        for info in infos
    ]
    right = ("USED",)
    if wide:
        return wide_table(_REFERENCES_HEADER, rows, right=right, spared=("OBJECT",))
    return table(_REFERENCES_HEADER, rows, right=right)


def _ending_of(info: RefInfo, now: float) -> str:
    """Say when a reference ends."""
    if info.pins:
        return f"kept as {', '.join(info.pins)}"
    if info.expires and not info.left:
        return f"in {span(max(0.0, info.expires - now))}"
    if info.kind == "handle":
        held = f"held by {plural(info.holders, 'client')}"
        return f"{held}, at the latest in {span(max(0.0, info.expires - now))}" if info.expires else held
    return "with the kernel"


def describe_receipts(receipts: Iterable[Receipt], kill: str) -> list[str]:
    """Say what became of an interrupt, equal outcomes on one line, and what to try where it was of no use.

    Args:
        receipts: One per kernel.
        kill: The command that ends kernels at the cost of their variables, to which their names are added.
    """
    alike: dict[str, list[str]] = {}
    for receipt in receipts:
        detail = f" ({receipt.detail})" if receipt.detail else ""
        alike.setdefault(receipt.outcome + detail, []).append(receipt.kernel)
    lines = []
    for outcome, names in alike.items():
        held = outcome.startswith(("unanswered", "caught"))
        hint = f"; to end it at the cost of the variables: {kill} {' '.join(names)}" if held else ""
        lines.append(f"{label(names)}: {outcome}{hint}")
    return lines


def describe_busy(running: Mapping[str, Any], now: float) -> str:
    """Say what a kernel is busy with, and since when.

    Args:
        running: From its `describe`.
        now: Unix time in seconds.
    """
    since = f" since {span(max(0.0, now - running['since']))}" if running.get("since") else ""
    asks = ", which waits for an answer to input()" if running.get("asks") else ""
    what = "its init file" if running["author"] == "init" else f"a cell of {running['author']}"
    return f"busy with {what}{since}{asks}: {one_line(running['source'])}"


def describe_gap(event: Event) -> str:
    """Say what is missing."""
    data = event.data
    if data.get("lost_bytes"):
        amount = f"{data['lost_bytes']:,} bytes of output"
    elif data.get("first"):
        amount = f"events {data['first']} to {data.get('last', data['first'])}"
    else:
        amount = "something"
    return f"[{amount} missing: {data.get('reason', 'unknown')}]"


class Transcript:
    """Turns a journal into the text of a session: what was sent, and what came of it.

    Args:
        write: Takes text.
        sources: Whether to show what was sent.
    """

    def __init__(self, write: Callable[[str], Any], *, sources: bool = True) -> None:
        self._write = write
        self._sources = sources
        self._open_line = False
        self._cell = ""

    def add(self, event: Event) -> None:
        """Write one event."""
        data = event.data
        if event.kind == EventKind.STARTED:
            self._cell = event.cell
            if self._sources:
                self._line(_header(event))
        elif event.kind == EventKind.OUTPUT:
            # A journal whose beginning is gone, or not asked for, may set in amid a cell: that one is not late.
            if not data.get("late"):
                self._cell = self._cell or event.cell
            if data.get("late") or (event.cell and event.cell != self._cell):
                self._line(f"[late output of cell {event.cell[:8]}]")
            self._write(data["text"])
            self._open_line = not data["text"].endswith("\n")
        elif event.kind == EventKind.RESULT:
            self._line(data["text"])
        elif event.kind == EventKind.FIGURE:
            self._line(f"[figure: {data['path']}]")
        elif event.kind == EventKind.ERROR:
            self._line(data["traceback"].rstrip("\n") or f"{data['ename']}: {data['evalue']}")
        elif event.kind == EventKind.INPUT:
            self._line(f"[asked: {data.get('prompt', '')}]")
        elif event.kind == EventKind.GAP:
            self._line(describe_gap(event))

    def _line(self, text: str) -> None:
        self._write(("\n" if self._open_line else "") + text + "\n")
        self._open_line = False


def _header(event: Event) -> str:
    data = event.data
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.at))
    first, *rest = (data.get("source") or "").rstrip("\n").split("\n")
    head = f"[{data.get('execution_count', '?')}] {at} {data.get('author', '')} cell {event.cell[:8]}"
    return "\n".join([head, f">>> {first}", *(f"... {line}" for line in rest)])


class Tail:
    """The last lines of a text that comes in pieces.

    Args:
        limit: How many lines.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines = deque([""], maxlen=limit + 1)
        self._ends = 0

    def write(self, text: str) -> None:
        """Take more text."""
        first, *rest = text.split("\n")
        self._lines[-1] += first
        self._lines.extend(rest)
        self._ends += len(rest)

    @property
    def full(self) -> bool:
        """Whether earlier text could not change the lines."""
        return self._ends > self._limit

    @property
    def text(self) -> str:
        """The lines, joined as they came."""
        lines = list(self._lines)
        # What follows the last newline is a line only if there is something.
        return "\n".join(lines[1:] if lines[-1] and len(lines) > self._limit else lines)
