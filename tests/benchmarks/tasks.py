"""Tasks and kernels that differ, beside multiprocessing and the ideal: `python tests/benchmarks/tasks.py [ROUNDS]`.

Prints one table, decides nothing. Each function measures one row on its own kernels and processes, both sides
interleaved, and returns the seconds of each side; every answer is checked.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyrokernel as pk

KERNELS = 4
QUICK_SECONDS = 0.0001
LONG_SECONDS = 0.1
SKEWED = [QUICK_SECONDS] * 500 + [LONG_SECONDS] * 8 + [QUICK_SECONDS] * 500
"""Tasks that differ by 1000 times; the long ones are neighbours, so that chunks would have several of them."""

SLOW_ITEMS = 400
USUAL_SECONDS = 0.002
SLOW_SECONDS = 0.04

Sides = dict[str, list[float]]
"""Seconds of each round, by who did it; "ideal" and "floor" are computed."""


def timed(side: list[float], work: Callable[[], Any], check: Callable[[Any], bool]) -> None:
    """Note the seconds that some work takes, and check what it returned."""
    begun = time.perf_counter()
    found = work()
    side.append(time.perf_counter() - begun)
    if not check(found):
        raise AssertionError(f"a wrong answer: {found!r:.200}")


def skewed(rounds: int) -> Sides:
    """Tasks that differ by 1000 times, beside `Pool.imap_unordered`, one at a time, and the shortest time possible."""
    ideal = max(max(SKEWED), sum(SKEWED) / KERNELS)
    sides: Sides = {"pyrokernel": [], "Pool.imap_unordered, chunks of 1": [], "ideal": [ideal] * rounds}
    with multiprocessing.get_context("fork").Pool(KERNELS) as pool, pk.local(KERNELS) as mesh:
        group = mesh[:]
        for _ in range(rounds):
            alone = lambda: list(pool.imap_unordered(time.sleep, SKEWED))  # noqa: E731  as above
            timed(sides["Pool.imap_unordered, chunks of 1"], alone, lambda found: len(found) == len(SKEWED))
            job = lambda: group.map(time.sleep, SKEWED).results()  # noqa: E731  as above
            timed(sides["pyrokernel"], job, lambda found: len(found) == len(SKEWED))
    return sides


def one_slow_kernel(rounds: int) -> Sides:
    """Even tasks on kernels of which one is 20 times slower than the others, beside the shortest time possible."""
    rate = (KERNELS - 1) / USUAL_SECONDS + 1 / SLOW_SECONDS
    sides: Sides = {"pyrokernel": [], "ideal": [SLOW_ITEMS / rate] * rounds}
    expected = list(range(SLOW_ITEMS))
    with pk.local(KERNELS) as mesh:
        group = mesh[:]
        group.execute("import time\ndef work(item):\n    time.sleep(seconds)\n    return item")
        group.push(seconds=USUAL_SECONDS)
        group[-1:].push(seconds=SLOW_SECONDS)
        for _ in range(rounds):
            job = lambda: group.map("work", range(SLOW_ITEMS)).results()  # noqa: E731  as above
            timed(sides["pyrokernel"], job, lambda found: found == expected)
    return sides


ROWS: Mapping[str, Callable[[int], Sides]] = {
    "tasks that differ by 1000 times": skewed,
    "one kernel 20 times slower": one_slow_kernel,
}


def table(sides: Sides) -> list[tuple[str, float, float]]:
    """Return of each side its name, its median in ms, and how many times as long as ours that is."""
    ours = statistics.median(sides["pyrokernel"])
    return [(name, statistics.median(side) * 1e3, statistics.median(side) / ours) for name, side in sides.items()]


def main(arguments: Sequence[str]) -> None:
    """Measure all rows and print them."""
    rounds = int(arguments[0]) if arguments else 7
    for row, measure in ROWS.items():
        print(row)
        for name, milliseconds, ratio in table(measure(rounds)):
            print(f"  {name:36} {milliseconds:9.2f} ms  {ratio:6.2f} of ours")


if __name__ == "__main__":
    main(sys.argv[1:])
