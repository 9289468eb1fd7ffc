"""One call on many kernels at once."""

from __future__ import annotations

from typing import Any

from measuring import Row, Run, experiment, faster
from ours import Kernels
from peers import dasks, execnets, parallel, pipes, pyro, rays, rpycs

SIZES = {4: 1.5, 16: 1.5, 64: 3.0, 128: 3.0}
ROWS = {
    workers: Row(
        f"fan-out-{workers}",
        f"one call on {workers} kernels",
        "ms",
        faster(limit, "rpyc", "execnet"),
        floor="multiprocessing Pipe",
        note="the floor writes to all pipes, then reads all",
    )
    for workers, limit in SIZES.items()
}


def _take(run: Run, workers: int) -> None:
    def right(number: int, answers: Any) -> bool:
        return bool(answers == [number + 1] * workers)

    quick = [pipes.Loops(workers), rpycs.Servers(workers), execnets.Gateways(workers)]
    if workers == 4:
        quick.append(pyro.Daemons("msgpack", workers))
    with run.open(Kernels(workers), *quick) as peers:
        steps = {name: peer.call_all for name, peer in peers.items()}
        run.in_turn(ROWS[workers], steps, right, rounds=run.rounds(40), repeat=max(2, 100 // workers), warm=5)
    slow = (parallel.Engines(workers), dasks.Workers(workers), rays.Actors(workers))
    for peer in run.slow(*slow) if workers == 4 else ():
        with run.open(Kernels(workers), peer) as peers:
            steps = {name: peer.call_all for name, peer in peers.items()}
            run.in_turn(ROWS[workers], steps, right, rounds=run.rounds(15), repeat=5, warm=2)


@experiment(ROWS[4], seconds=90)
def fan_out_4(run: Run) -> None:
    """Four kernels, and those peers that take long to start."""
    _take(run, 4)


@experiment(ROWS[16], seconds=60)
def fan_out_16(run: Run) -> None:
    """Sixteen."""
    _take(run, 16)


@experiment(ROWS[64], seconds=90)
def fan_out_64(run: Run) -> None:
    """Sixty-four processes of each kind, on whatever processors there are."""
    if not run.quick:
        _take(run, 64)


@experiment(ROWS[128], seconds=120)
def fan_out_128(run: Run) -> None:
    """A hundred and twenty-eight of each."""
    if not run.quick:
        _take(run, 128)
