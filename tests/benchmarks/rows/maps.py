"""Many small tasks spread over four kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tasks
from measuring import Row, Run, experiment, faster
from ours import Kernels
from peers import dasks, execnets, parallel, pipes, rays

WORKERS, TASKS = 4, 10_000
EACH = Row("tasks-each", "10,000 identity tasks on 4 kernels, one a request", "ms", faster(1.1, "execnet"))
CHUNKED = Row(
    "tasks",
    "10,000 identity tasks on 4 kernels, default chunks",
    "ms",
    faster(1.0, "multiprocessing Pool, best chunks"),
)
SKEWED = Row(
    "tasks-skewed", "1,008 tasks that differ by 1000 times", "ms", floor="ideal", note="Pool takes them one at a time"
)
SLOW = Row("tasks-slow-kernel", "400 tasks, one of 4 kernels 20 times slower", "ms", floor="ideal")
CHUNKS = (50, 250, 625, 1250, 2500)


@experiment(EACH, CHUNKED, seconds=110)
def many_tasks(run: Run) -> None:
    """Identity of 10,000 numbers, in order."""
    items = list(range(TASKS))

    def right(_: int, answers: Sequence[Any]) -> bool:
        return answers == items

    with run.open(Kernels(WORKERS), execnets.Gateways(WORKERS), pipes.Pool(WORKERS)) as peers:
        steps = {name: lambda _, peer=peer: peer.each(items) for name, peer in peers.items()}
        run.in_turn(EACH, steps, right, rounds=run.rounds(10))
        steps = {"pyrokernel": lambda _: peers["pyrokernel"].map(items)}
        for chunk in CHUNKS:
            steps[f"Pool, chunks of {chunk}"] = lambda _, chunk=chunk: peers["multiprocessing Pool"].map(items, chunk)
        run.best(CHUNKED, steps, right, rounds=run.rounds(20), name="multiprocessing Pool, best chunks")
    for peer in run.slow(parallel.Engines(WORKERS), dasks.Workers(WORKERS), rays.Actors(WORKERS)):
        with run.open(Kernels(WORKERS), peer) as peers:
            for one in peers.values():
                one.map(items[:100])
            steps = {name: lambda _, peer=peer: peer.map(items) for name, peer in peers.items()}
            run.in_turn(CHUNKED, steps, right, rounds=1, cold=False)


@experiment(SKEWED, SLOW, seconds=60)
def uneven_tasks(run: Run) -> None:
    """Tasks, or kernels, that differ; beside the shortest time that four could take."""
    run.figures(SKEWED, tasks.skewed(run.rounds(9)))
    run.figures(SLOW, tasks.one_slow_kernel(run.rounds(9)))
