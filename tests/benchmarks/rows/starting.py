"""From nothing to four kernels that have answered, and what they weigh."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import processes
from measuring import OURS, Row, Run, above, experiment, faster
from ours import Kernels
from peers import execnets, parallel, pipes

WORKERS = 4
START = Row(
    "start",
    "a process starts, has 4 kernels made, called and ended, and ends",
    "ms",
    faster(1.0, "execnet"),
    floor="python -c pass",
    note="whole processes, imports included",
)
WARM = Row("start-warm", "the same in a process that runs already", "ms", faster(1.0, "execnet"))
MEMORY = Row(
    "memory",
    "memory of a kernel (PSS), one of 4",
    "MiB",
    above(3.0, "execnet"),
    note="after a call; what processes share is divided among them",
)
MEMORY_16 = Row("memory-16", "memory of a kernel (PSS), one of 16", "MiB", above(3.0, "execnet"))
ALL_16 = Row(
    "memory-all-16",
    "memory of all processes that 16 kernels need, for each kernel",
    "MiB",
    note="ours with host, template and name server",
)

SOURCES = {
    "python -c pass": "pass",
    OURS: """
import pyrokernel as pk
with pk.local(4) as mesh:
    mesh[:].execute("from functions import step")
    assert list(mesh[:].call("step", 1).values()) == [2] * 4
""",
    "execnet": """
import execnet
group = execnet.Group()
gateways = [group.makegateway("popen") for _ in range(4)]
channels = [one.remote_exec("from functions import step; channel.send(step(channel.receive()))") for one in gateways]
for channel in channels:
    channel.send(1)
assert [channel.receive() for channel in channels] == [2] * 4
group.terminate(timeout=2)
""",
    "multiprocessing Pool": """
import multiprocessing
from functions import step
with multiprocessing.get_context("spawn").Pool(4) as pool:
    assert pool.map(step, [1] * 4, 1) == [2] * 4
""",
    "ipyparallel": """
import ipyparallel, logging
from functions import step
with ipyparallel.Cluster(n=4, log_level=logging.ERROR) as client:
    assert list(client[:].apply_sync(step, 1)) == [2] * 4
""",
    "Dask": """
import distributed, logging
from functions import step
if __name__ == "__main__":
    with distributed.LocalCluster(n_workers=4, threads_per_worker=1, dashboard_address=None,
                                  silence_logs=logging.CRITICAL) as cluster, distributed.Client(cluster) as client:
        assert list(client.run(step, 1).values()) == [2] * 4
""",
    "Ray": """
import logging, ray
from functions import step
ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
class Worker:
    step = staticmethod(step)
actors = [ray.remote(Worker).remote() for _ in range(4)]
assert ray.get([one.step.remote(1) for one in actors]) == [2] * 4
ray.shutdown()
""",
}
"""Whole programs; each checks its own answers."""

LONG = ("ipyparallel", "Dask", "Ray")


def _program(name: str) -> Any:
    def run(_: int) -> int:
        done = subprocess.run([sys.executable, "-c", SOURCES[name]], capture_output=True, text=True, check=False)
        if "ModuleNotFoundError" in done.stderr:
            raise ModuleNotFoundError("not installed")
        if done.returncode:
            raise RuntimeError(done.stderr[-300:])
        return 0

    return run


def _ended(_: int, status: Any) -> bool:
    return bool(status == 0)


@experiment(START, WARM, seconds=110)
def starting(run: Run) -> None:
    """Start and end."""
    quick = {name: _program(name) for name in SOURCES if name not in LONG}
    run.in_turn(START, quick, _ended, rounds=run.rounds(15), warm=1)
    slow = {name: _program(name) for name in (OURS, *LONG)}
    if not run.quick:
        run.in_turn(START, slow, _ended, rounds=2)

    def begun(make: Any) -> Any:
        def run_once(number: int) -> list[int]:
            with make() as peer:
                return list(peer.call_all(number))

        return run_once

    sides = {OURS: begun(lambda: Kernels(WORKERS)), "execnet": begun(lambda: execnets.Gateways(WORKERS))}
    run.in_turn(WARM, sides, lambda number, found: found == [number + 1] * WORKERS, rounds=run.rounds(11), warm=1)


@experiment(MEMORY, MEMORY_16, ALL_16, seconds=60)
def memory(run: Run) -> None:
    """Weigh kernels after a call; one kind at a time, so that nothing is shared with the other."""
    for row, workers in ((MEMORY, WORKERS), (MEMORY_16, 16)):
        ours, all_of_them = _weigh(run, Kernels(workers), workers)
        execnet, execnet_all = _weigh(run, execnets.Gateways(workers), workers)
        pool, pool_all = _weigh(run, pipes.Loops(workers), workers)
        run.figures(row, {OURS: ours, "execnet": execnet, "multiprocessing Pipe": pool})
        if row is MEMORY_16:
            run.figures(ALL_16, {OURS: all_of_them, "execnet": execnet_all, "multiprocessing Pipe": pool_all})
    for peer in run.slow(parallel.Engines(WORKERS)):
        run.figures(MEMORY, {peer.name: _weigh(run, peer, WORKERS)[0]})


def _weigh(run: Run, peer: Any, workers: int) -> tuple[list[float], list[float]]:
    """Return the memory of each worker, and that of all processes divided by their number."""
    with run.open(peer) as started:
        if not started:
            return [], []
        before = set(processes.descendants())
        assert len(before) >= workers
        answers = peer.call_all(1)
        assert list(answers) == [2] * workers
        every = processes.descendants()
        each = [processes.memory_mib([pid]) for pid in peer.pids()]
        return each, [processes.memory_mib(every) / workers]
