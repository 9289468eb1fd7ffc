"""Tab on a thousand names."""

from __future__ import annotations

import time
from typing import Any

from measuring import OURS, Row, Run, experiment, under
from ours import Kernels
from peers import jupyter

NAMES = 1_000
DEFINE = f"for number in range({NAMES}):\n    globals()[f'quantity_{{number}}'] = number"
CODE = "quantity_"
EXPECTED = sorted(f"quantity_{number}" for number in range(NAMES))
BUSY_SECONDS = 1.0
BUSY = f"import time\nuntil = time.monotonic() + {BUSY_SECONDS}\nwhile time.monotonic() < until:\n    pass"

IDLE = Row("complete", "complete 1,000 names", "ms", under(5.0))
WORKING = Row(
    "complete-busy",
    "the same while the kernel computes",
    "ms",
    under(20.0),
    note=f"a loop in Python that takes {BUSY_SECONDS:g} s; a Jupyter kernel answers when it has ended",
)


def _right(_: int, matches: Any) -> bool:
    return sorted(matches) == EXPECTED


@experiment(IDLE, WORKING, seconds=60)
def completing(run: Run) -> None:
    """Complete, first in idle kernels."""
    with run.open(Kernels(), jupyter.Kernel()) as peers:
        for peer in peers.values():
            peer.execute(DEFINE)
        steps = {name: lambda _, peer=peer: peer.complete(CODE) for name, peer in peers.items()}
        run.in_turn(IDLE, steps, _right, rounds=run.rounds(20), repeat=10, warm=3)
        busy: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(run.rounds(8, 2)):
            for name, peer in peers.items():
                busy[name] += _while_busy(peer, 25 if name == OURS else 1)
        run.figures(WORKING, busy)


def _while_busy(peer: Any, times: int) -> list[float]:
    """Have a kernel compute; return how long completions took meanwhile."""
    cell = peer.begin(BUSY)
    seconds = []
    for number in range(times):
        begun = time.perf_counter()
        matches = peer.complete(CODE)
        seconds.append(time.perf_counter() - begun)
        assert _right(number, matches)
    peer.wait(cell)
    return seconds
