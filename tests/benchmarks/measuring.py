"""What a row of the table is, and how its sides are timed: in turn, in one run, every answer checked.

Runs in the process of one experiment. A *side* is one way to do the work of a row: ours, a peer's, or the floor, which
is the least that any of them could take. Sides are taken in turn, a few operations each in every *round*, so
that whatever else the machine does meets all of them. The ratio of two sides is the median of their ratios by rounds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

OURS = "pyrokernel"
"""What our own side is called, in every row."""


@dataclasses.dataclass(frozen=True)
class Promise:
    """What a row is to reach.

    Attributes:
        kind: "faster": the best of `of`, divided by ours, is at least `limit`. "within": ours, divided by the best of
            `of`, is at most `limit`. "under": ours is at most `limit`, in the unit of the row. "above": ours exceeds
            the best of `of` by at most `limit`, in that unit.
        limit: The figure.
        of: Names of sides.
    """

    kind: str
    limit: float
    of: tuple[str, ...] = ()


def faster(limit: float, *of: str) -> Promise:
    """Promise to be so many times faster than the best of some sides."""
    return Promise("faster", limit, of)


def within(limit: float, *of: str) -> Promise:
    """Promise to take at most so many times what the best of some sides takes."""
    return Promise("within", limit, of)


def under(limit: float) -> Promise:
    """Promise a figure in the unit of the row."""
    return Promise("under", limit)


def above(limit: float, *of: str) -> Promise:
    """Promise to exceed the best of some sides by at most a figure in the unit of the row."""
    return Promise("above", limit, of)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: What it is asked for by.
        title: The work, in words.
        unit: Of its figures: "us", "ms", "s" of time, or "MiB".
        promise: What it is to reach; None where nothing was promised.
        floor: The side that is the least it could take, "" for none.
        note: What a reader should know of it.
    """

    name: str
    title: str
    unit: str
    promise: Promise | None = None
    floor: str = ""
    note: str = ""


UNITS = {"us": 1e6, "ms": 1e3, "s": 1.0, "MiB": 1.0}
"""By what a measured figure (seconds, or MiB) is multiplied to be in the unit of a row."""


@dataclasses.dataclass
class Taken:
    """What was taken of one side of a row.

    Attributes:
        first: The very first operation, apart from the others: it includes what is done once.
        rounds: The others, by rounds.
        ratios: By rounds, the median of this side divided by ours in the same round.
    """

    first: float | None = None
    rounds: list[list[float]] = dataclasses.field(default_factory=list)
    ratios: list[float] = dataclasses.field(default_factory=list)

    @property
    def all(self) -> list[float]:
        """Every operation but the first, sorted."""
        return sorted(one for each in self.rounds for one in each)

    def summary(self, unit: str) -> dict[str, Any]:
        """Return what the table says of it, in a unit."""
        taken, factor = self.all, UNITS[unit]
        return {
            "median": statistics.median(taken) * factor,
            "p99": taken[min(len(taken) - 1, round(0.99 * (len(taken) - 1)))] * factor,
            "first": None if self.first is None else self.first * factor,
            "operations": len(taken),
            "to_ours": statistics.median(self.ratios) if self.ratios else None,
        }


class WrongAnswerError(Exception):
    """A side gave an answer that is not right; its time is worth nothing."""


class Run:
    """One run of an experiment: takes its sides and keeps what came of them.

    Args:
        quick: Fewer rounds, smaller sizes: to see that everything works, not how fast.
        output: File for the results, written again after every row, so that what is taken survives a time-out.
    """

    def __init__(self, *, quick: bool, output: Path) -> None:
        self.quick = quick
        self._output = output
        self._rows: dict[str, dict[str, Any]] = {}
        self._taken: dict[str, dict[str, Taken]] = {}
        self._absent: dict[str, str] = {}

    def rounds(self, full: int, quick: int = 3) -> int:
        """Return how many rounds to take."""
        return quick if self.quick else full

    def slow(self, *peers: Any) -> tuple[Any, ...]:
        """Return peers that take seconds to start, none of them where it is to be quick."""
        return () if self.quick else peers

    @contextlib.contextmanager
    def open(self, *peers: Any) -> Iterator[dict[str, Any]]:
        """Start peers, one after the other; yield those that did by name. One that cannot is noted, and left out."""
        with contextlib.ExitStack() as stack:
            started = {}
            for peer in peers:
                try:
                    started[peer.name] = stack.enter_context(peer)
                except ImportError as error:
                    self._note(peer.name, f"not installed ({error.name})")
                except Exception as error:  # noqa: BLE001  a peer that does not start is its own affair
                    self._note(peer.name, f"did not start: {type(error).__name__}: {error}")
            yield started

    def in_turn(
        self,
        row: Row,
        sides: Mapping[str, Callable[[int], Any]],
        right: Callable[[int, Any], bool],
        *,
        rounds: int,
        repeat: int = 1,
        warm: int = 0,
        cold: bool = True,
    ) -> None:
        """Time sides of a row by turns, and keep the figures. May be called again with ours and further sides.

        Args:
            row: Which.
            sides: By name, an operation; it is given a number, and returns its answer.
            right: Whether an answer to a number is right.
            rounds, repeat: How many rounds, and operations of each side in a round.
            warm: Operations of each side before the first round, not kept (but for the first of all).
            cold: Whether the very first operation is to be taken apart; False where it takes long and was warmed up.
        """
        turns = _Turns(sides, right, lambda name, why: self._note(name, why, row))
        for name in turns.names if cold else ():
            turns.take_first(name, 1 + warm)
        for number in range(rounds):
            medians = {}
            for name in turns.names:
                seconds = turns.take(name, range(number * repeat, (number + 1) * repeat))
                if seconds:
                    medians[name] = statistics.median(seconds)
            turns.compare(medians)
        self.keep(row, {name: turns.taken[name] for name in turns.names})

    def best(
        self,
        row: Row,
        sides: Mapping[str, Callable[[int], Any]],
        right: Callable[[int, Any], bool],
        *,
        rounds: int,
        name: str,
    ) -> None:
        """As `in_turn`, but of all sides except ours only the one with the smallest median is kept, under a name."""
        self.in_turn(row, sides, right, rounds=rounds)
        kept = self._taken[row.name]
        others = {side: kept.pop(side) for side in list(kept) if side != OURS}
        if others:
            chosen = min(others, key=lambda side: statistics.median(others[side].all))
            print(f"  {name}: {chosen}", file=sys.stderr)
            self.keep(row, {name: others[chosen]})

    def keep(self, row: Row, taken: Mapping[str, Taken]) -> None:
        """Add sides to a row. Of a side that was taken before, as ours is with every further peer, the first counts."""
        kept = self._taken.setdefault(row.name, {})
        for name, one in taken.items():
            kept.setdefault(name, one)
        self._rows.setdefault(row.name, {})["sides"] = {name: one.summary(row.unit) for name, one in kept.items()}
        self._save()

    def figures(self, row: Row, values: Mapping[str, list[float]]) -> None:
        """Keep figures that were not timed here: by side, one a round, in seconds or MiB."""
        ours = values.get(OURS, [])
        taken = {}
        for name, ones in values.items():
            ratios = [one / our for one, our in zip(ones, ours, strict=False) if our]
            taken[name] = Taken(None, [[one] for one in ones], ratios)
        self.keep(row, taken)

    def points(self, row: Row, points: Mapping[str, list[tuple[float, float]]]) -> None:
        """Keep what a plot shows: by line, (x, seconds)."""
        self._rows.setdefault(row.name, {"sides": {}})["points"] = {name: list(line) for name, line in points.items()}
        self._save()

    def _note(self, side: str, why: str, row: Row | None = None) -> None:
        self._absent[f"{row.name}: {side}" if row else side] = why
        print(f"  {side}: {why}", file=sys.stderr)
        self._save()

    def _save(self) -> None:
        self._output.write_text(json.dumps({"rows": self._rows, "absent": self._absent}))


class _Turns:
    """The sides of a row while they are taken: times them, checks their answers, leaves out who fails."""

    def __init__(
        self,
        sides: Mapping[str, Callable[[int], Any]],
        right: Callable[[int, Any], bool],
        failed: Callable[[str, str], None],
    ) -> None:
        self._working, self._right, self._failed = dict(sides), right, failed
        self.taken = {name: Taken() for name in sides}

    @property
    def names(self) -> list[str]:
        """Who has not failed."""
        return list(self._working)

    def take_first(self, name: str, count: int) -> None:
        """Take one side for the first time, and on until it is warm."""
        seconds = self._attempt(name, range(count))
        if seconds:
            self.taken[name].first = seconds[0]

    def take(self, name: str, numbers: range) -> list[float]:
        """Take one side; return its seconds, none if it fails."""
        seconds = self._attempt(name, numbers)
        if seconds:
            self.taken[name].rounds.append(seconds)
        return seconds

    def compare(self, medians: Mapping[str, float]) -> None:
        """Note the ratios to ours of one round."""
        for name, median in medians.items():
            if OURS in medians:
                self.taken[name].ratios.append(median / medians[OURS])

    def _attempt(self, name: str, numbers: range) -> list[float]:
        step, seconds, answers = self._working[name], [], []
        try:
            for number in numbers:
                begun = time.perf_counter()
                answer = step(number)
                seconds.append(time.perf_counter() - begun)
                answers.append(answer)
            for number, answer in zip(numbers, answers, strict=True):
                if not self._right(number, answer):
                    raise WrongAnswerError(f"{answer!r:.200} to number {number}")
        except Exception as error:  # noqa: BLE001  a side that fails is told in the table, the others go on
            self._failed(name, f"failed: {type(error).__name__}: {str(error)[:300]}")
            del self._working[name]
            return []
        return seconds


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What fills one or more rows, in a process of its own.

    Attributes:
        name: Of its function.
        rows: Which it fills.
        seconds: How long it may take; it is ended then, and the other experiments go on.
        take: Does it.
    """

    name: str
    rows: tuple[Row, ...]
    seconds: float
    take: Callable[[Run], None]


EXPERIMENTS: dict[str, Experiment] = {}
"""All there are, in the order of the table."""


def experiment(*rows: Row, seconds: float) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Make a function the experiment that fills some rows within some seconds."""

    def register(take: Callable[[Run], None]) -> Callable[[Run], None]:
        EXPERIMENTS[take.__name__] = Experiment(take.__name__, rows, seconds, take)
        return take

    return register
