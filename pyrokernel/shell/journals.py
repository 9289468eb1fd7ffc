"""Cells that ran or run, found by number or id and read from the kernels' journals. Runs in the shell process."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pyrokernel.client.calls import ask_kernel
from pyrokernel.client.cell import Cell
from pyrokernel.client.group import Group
from pyrokernel.client.kernel import Kernel
from pyrokernel.client.listing import fold_jobs, list_cells
from pyrokernel.messages import Event, EventKind

_LIMITS = (100, 4096)
_ID_SHOWN = 8
"""Digits of an id that are shown; so many decimal ones are an id and no number."""

_PAST_LINES = 200
_REACH = 500


@dataclasses.dataclass(frozen=True)
class Past:
    """What a cell that runs already has said.

    Attributes:
        events: The last of it.
        cut: Whether there was more before.
        question: Of an `input()` that waits for an answer, as in its event; or None.
    """

    events: Iterable[Event] = ()
    cut: bool = False
    question: Mapping[str, Any] | None = None


def is_cell(word: str) -> bool:
    """Whether a word can be the number of a cell (-1: the last), or the beginning of its id."""
    return word.removeprefix("-").isdecimal() or (
        4 <= len(word) <= 32 and all(digit in "0123456789abcdef" for digit in word)
    )


def find_cells(group: Group, word: str) -> list[dict[str, Any]]:
    """Return the cells that a word means, at most one per kernel: entries of `list_cells`.

    Args:
        group: Where to look.
        word: A number (execution count), or the beginning of an id.
    """
    for limit in _LIMITS:
        listed, _ = list_cells(group, limit)
        found = {cell["kernel"]: cell for cell in listed if _is_meant(cell, word)}
        if found:
            return list(found.values())
    return []


def find_from_end(group: Group, number: int) -> str:
    """Return the id of the cell that began last, with 2 of the one before, and so on; "" when there is none."""
    listed, _ = list_cells(group, _LIMITS[0])
    begun: dict[str, float] = {}
    for cell in fold_jobs(listed):
        if cell.get("started"):
            begun[cell["cell"]] = max(cell["started"], begun.get(cell["cell"], 0.0))
    ordered = sorted(begun, key=lambda cell: begun[cell])
    return ordered[-number] if 0 < number <= len(ordered) else ""


def find_parts(group: Group, word: str) -> list[dict[str, Any]]:
    """Return the cells of the job whose id begins with a word: entries of `list_cells`."""
    listed, _ = list_cells(group, _LIMITS[-1])
    jobs = [cell["job"] for cell in listed if cell.get("job", "").startswith(word)]
    return [cell for cell in listed if cell.get("job") == jobs[-1]] if jobs else []


def _is_meant(cell: dict[str, Any], word: str) -> bool:
    if word.isdecimal() and len(word) < _ID_SHOWN:
        return str(cell.get("execution_count", "")) == word
    return str(cell["cell"]).startswith(word)


@dataclasses.dataclass(frozen=True)
class Journal:
    """The journal of one kernel, as far as one cell goes.

    Attributes:
        kernel: Which.
        cell: Id of the cell.
        started: Since when it runs or ran, Unix time in seconds; 0 when that is not known.
    """

    kernel: Kernel
    cell: str
    started: float

    def begin(self) -> int:
        """Return the position before the cell's first event."""
        position = self._before(self.started - 0.001) if self.started else 0
        # A clock that was set back misleads: then all of it is read.
        first = next(self.read(position), None)
        return position if first is not None and first.kind in (EventKind.STARTED, EventKind.QUEUED) else 0

    def read(self, after: int) -> Iterator[Event]:
        """Yield the cell's events after a position, up to its end or up to now."""
        while True:
            answer = self._follow(after, cell=self.cell)
            for event in map(Event.from_wire, answer["events"]):
                yield event
                if event.kind == EventKind.ENDED:
                    return
            if answer["next"] in (after, answer["last"]):
                return
            after = int(answer["next"])

    def recent(self, question: dict[str, Any] | None) -> tuple[Past, Cell]:
        """Return the last lines of what the cell said so far, and a handle to follow it from there."""
        begin = self.begin()
        last = int(self._follow(1 << 62)["last"])
        reach = _REACH
        while True:
            position = max(begin, last - reach)
            events = list(self.read(position))
            kept, cut = _last_lines(events, _PAST_LINES)
            if cut or position == begin:
                break
            reach *= 4
        handle = Cell(
            self.kernel.mesh, self.kernel.link, self.cell, after=max([last, *(event.seq for event in events)])
        )
        return Past(kept, cut, question), handle

    def _before(self, moment: float) -> int:
        """Return the position of the last event before a moment, by bisection."""
        low, high = 0, int(self._follow(1 << 62)["last"])
        while low < high:
            middle = (low + high) // 2
            events = self._follow(middle, max_bytes=1)["events"]
            if not events or (events[0]["kind"] != EventKind.GAP and events[0]["at"] >= moment):
                high = middle
            else:
                low = max(int(events[0]["seq"]), middle + 1)
        return low

    def _follow(self, after: int, *, cell: str = "", max_bytes: int = 0) -> dict[str, Any]:
        options = {"cell": cell, "max_bytes": max_bytes}
        mesh = self.kernel.mesh
        answer: dict[str, Any] = ask_kernel(mesh, self.kernel.link, "follow", after, 0.0, options)
        return answer


def _last_lines(events: list[Event], limit: int) -> tuple[list[Event], bool]:
    """Return the events that hold the last lines of output, and whether earlier ones were left out."""
    lines = 0
    for index in range(len(events) - 1, -1, -1):
        event = events[index]
        if event.kind != EventKind.OUTPUT:
            continue
        text = str(event.data["text"])
        lines += text.count("\n")
        if lines > limit:
            whole = text.split("\n")
            text = "\n".join(whole[lines - limit :])
            shortened = Event(
                seq=event.seq, kind=event.kind, cell=event.cell, at=event.at, data={**event.data, "text": text}
            )
            head = [before for before in events[:index] if before.kind == EventKind.STARTED]
            return [*head, shortened, *events[index + 1 :]], True
    return events, False
