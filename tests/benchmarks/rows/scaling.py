"""Cost against the number of kernels, up to 1,000, and against the size of data, up to 4 GB.

The thousand kernels are simulated: their sockets are served by a few processes, which answer with what a real kernel
has answered. The client is the real one, and so is every byte on its sockets.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import functions
from measuring import OURS, Row, Run, experiment
from ours import Kernels
from simulated import Simulated

COUNTS = (1, 10, 30, 100, 300, 1000)
SIZES = (1_000_000, 10_000_000, 100_000_000, 400_000_000, 1_000_000_000, 2_000_000_000, 4_000_000_000)

FRESH = "fill new memory"

COPIED_AT_ONCE = 1_000_000_000
"""The floor copies what is larger in parts: memory is for four gigabytes to be in a few places at once."""

KERNELS = Row("scaling-kernels", "one call on 1,000 simulated kernels", "ms", note="plot: 1 to 1,000 kernels")
BYTES = Row("scaling-bytes", "push 4 GB to a kernel, which returns its checksum", "ms", note="plot: 1 MB to 4 GB")


@experiment(KERNELS, seconds=60)
def many_kernels(run: Run) -> None:
    """Time a call by the number of kernels."""
    counts = COUNTS[:4] if run.quick else COUNTS
    line, spent = [], []
    with Kernels() as kernels, Simulated(kernels.one, counts[-1]) as simulated:
        for count in counts:
            group = simulated.group(count)
            for _ in range(3):
                group.call("step", 1)
            times, before = [], time.process_time()
            for number in range(run.rounds(15)):
                begun = time.perf_counter()
                answers = group.call("step", 1)
                times.append(time.perf_counter() - begun)
                assert list(answers.values()) == [2] * count, number
            line.append((count, statistics.median(times)))
            spent.append((count, (time.process_time() - before) / len(times)))
    if counts == COUNTS:
        run.figures(KERNELS, {OURS: times})
    run.points(KERNELS, {"simulated kernels": line, "the client's processor time for these": spent})


@experiment(BYTES, seconds=90)
def many_bytes(run: Run) -> None:
    """Time a push by the size of the array."""
    import numpy as np

    sizes = SIZES[:4] if run.quick else SIZES
    pushes: list[tuple[float, float]] = []
    pulls: list[tuple[float, float]] = []
    copies: list[tuple[float, float]] = []
    fresh: list[tuple[float, float]] = []
    source = np.arange(sizes[-1] // 8, dtype=np.float64)
    target = np.zeros(min(sizes[-1], COPIED_AT_ONCE) // 8)
    with Kernels() as kernels:
        for size in sizes:
            array = source[: size // 8]
            expected = functions.checksum(array)

            def copy(array: Any = array) -> int:
                total = 0
                for first in range(0, len(array), len(target)):
                    part = array[first : first + len(target)]
                    np.copyto(target[: len(part)], part)
                    total += functions.checksum(target[: len(part)])
                return total % 2**64

            def touch(array: Any = array, expected: int = expected) -> int:
                np.ones_like(array)
                return expected

            def push(array: Any = array) -> int:
                return kernels.push(array)

            def pull() -> int:
                return functions.checksum(kernels.one.pull("array"))

            for line, step in ((copies, copy), (fresh, touch), (pushes, push), (pulls, pull)):
                times = []
                for _ in range(1 if size > COPIED_AT_ONCE else 5):
                    if step is push:
                        kernels.execute("array = None")  # or there would be two while the next one comes
                    begun = time.perf_counter()
                    found = step()
                    times.append(time.perf_counter() - begun)
                    assert found == expected
                line.append((size, min(times)))
                run.points(BYTES, {"push": pushes, "pull": pulls, "memcpy + checksum": copies, FRESH: fresh})
    if sizes == SIZES:
        run.figures(BYTES, {OURS: [pushes[-1][1]]})
