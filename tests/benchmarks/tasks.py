"""Many tasks on four kernels beside execnet and multiprocessing: `python tests/benchmarks/tasks.py [ROUNDS]`.

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
TASKS = 10_000
CHUNK_SIZES = (100, 250, 500, 1000, 2500)
"""Of `Pool.map`, which is also asked with its own choice; the best of them counts."""

QUICK_SECONDS = 0.0001
LONG_SECONDS = 0.1
SKEWED = [QUICK_SECONDS] * 500 + [LONG_SECONDS] * 8 + [QUICK_SECONDS] * 500
"""Tasks that differ by 1000 times; the long ones are neighbours, so that chunks would have several of them."""

SLOW_ITEMS = 400
USUAL_SECONDS = 0.002
SLOW_SECONDS = 0.04

Sides = dict[str, list[float]]
"""Seconds of each round, by who did it; "ideal" and "floor" are computed."""


def identity(value: Any) -> Any:
    """Return the argument; for processes that can import this module."""
    return value


def alike(value: Any) -> Any:
    """Do the same; travels by value, for kernels that cannot."""
    return value


alike.__module__ = "__main__"


def timed(side: list[float], work: Callable[[], Any], check: Callable[[Any], bool]) -> None:
    """Note the seconds that some work takes, and check what it returned."""
    begun = time.perf_counter()
    found = work()
    side.append(time.perf_counter() - begun)
    if not check(found):
        raise AssertionError(f"a wrong answer: {found!r:.200}")


def one_per_request(rounds: int) -> Sides:
    """10,000 identity tasks, a request each, beside execnet with a message each."""
    import execnet

    sides: Sides = {"pyrokernel": [], "execnet": []}
    expected = list(range(TASKS))
    gateways = [execnet.makegateway("popen//python=" + sys.executable) for _ in range(KERNELS)]
    try:
        channels = [gateway.remote_exec("for item in channel: channel.send(item)") for gateway in gateways]

        def echo() -> list[int]:
            for item in range(TASKS):
                channels[item % KERNELS].send(item)
            return [channels[item % KERNELS].receive() for item in range(TASKS)]

        with pk.local(KERNELS) as mesh:
            group = mesh[:]
            for _ in range(rounds):
                timed(sides["execnet"], echo, lambda found: found == expected)
                job = lambda: group.map(alike, range(TASKS), chunk=1).results()  # noqa: E731  one line each
                timed(sides["pyrokernel"], job, lambda found: found == expected)
    finally:
        execnet.default_group.terminate(timeout=1.0)
    return sides


def default_chunks(rounds: int) -> Sides:
    """10,000 identity tasks as they come, beside `Pool.map` with the chunk size that suits it best."""
    sides: Sides = {"pyrokernel": [], "Pool.map, its own choice": []}
    sides |= {f"Pool.map, chunks of {size}": [] for size in CHUNK_SIZES}
    expected = list(range(TASKS))
    with multiprocessing.get_context("fork").Pool(KERNELS) as pool, pk.local(KERNELS) as mesh:
        group = mesh[:]
        for _ in range(rounds):
            timed(
                sides["pyrokernel"],
                lambda: group.map(alike, range(TASKS)).results(),
                lambda found: found == expected,
            )
            for name, size in zip(list(sides)[1:], (None, *CHUNK_SIZES), strict=True):
                work = lambda size=size: pool.map(identity, range(TASKS), size)  # noqa: E731  as above
                timed(sides[name], work, lambda found: found == expected)
    return sides


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
    "10,000 identity tasks, one per request": one_per_request,
    "10,000 identity tasks, default chunking": default_chunks,
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
