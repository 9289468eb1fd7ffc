"""A hundred thousand printed lines, and when a client has them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from measuring import Row, Run, experiment, under, within
from ours import Kernels
from peers import execnets, jupyter, parallel, pipes

LINES = 100_000
ALONE = "the print loop alone"
TEXT = "line {number} of many"
SOURCE = f"for number in range({LINES}):\n    print(f'{TEXT}')"
TO_FILE = "import contextlib, tempfile\nwith tempfile.TemporaryFile('w') as file, contextlib.redirect_stdout(file):\n"
TO_FILE += "".join(f"    {line}\n" for line in SOURCE.splitlines())
EXPECTED = [TEXT.format(number=number) for number in range(LINES)]

ALL = Row("lines", "100,000 printed lines, until the client has all", "ms", within(2.0, ALONE), floor=ALONE)
FIRST = Row("first-line", "until it has the first of them", "ms", under(3.0))


@experiment(ALL, FIRST, seconds=100)
def printing(run: Run) -> None:
    """Follow a cell that prints."""
    _take(run, run.rounds(11), pipes.Loops(), execnets.Gateways(), jupyter.Kernel())
    for peer in run.slow(parallel.Engines()):
        _take(run, 3, peer)


def _take(run: Run, rounds: int, *others: Any) -> None:
    firsts: dict[str, list[float]] = {}
    with run.open(Kernels(), *others) as peers:
        sides = {}
        for name, peer in peers.items():
            if name == pipes.Loops.name:
                sides[ALONE] = _alone(peer)
            else:
                sides[name] = _follow(peer, firsts.setdefault(name, []))
        run.in_turn(ALL, sides, lambda _, lines: lines == EXPECTED, rounds=rounds, warm=1)
    run.figures(FIRST, {name: times[2:] for name, times in firsts.items()})


def _alone(loops: pipes.Loops) -> Callable[[int], list[str]]:
    """The loop in a process by itself, whose output goes to a file that nobody reads."""

    def step(_: int) -> list[str]:
        loops.execute(TO_FILE)
        return EXPECTED

    return step


def _follow(peer: Any, firsts: list[float]) -> Callable[[int], list[str]]:
    """The loop in a kernel, followed; notes when the first line came."""

    def step(_: int) -> list[str]:
        begun = time.perf_counter()
        lines: list[str] = peer.printed(SOURCE, lambda: firsts.append(time.perf_counter() - begun))
        return lines

    return step
