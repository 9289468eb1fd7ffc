"""One request to one worker and its answer."""

from __future__ import annotations

from typing import Any

from floor import RawSocket
from measuring import Row, Run, experiment, faster
from ours import Kernels
from peers import dasks, execnets, jupyter, parallel, pipes, pyro, rays, rpycs

CALL = Row(
    "call",
    "call of a function that is there already, unix socket",
    "us",
    faster(1.0, "multiprocessing Pipe"),
    floor="raw socket",
)
EXECUTE = Row(
    "execute",
    "execute a statement, then evaluate and fetch a value",
    "us",
    faster(1.0, "multiprocessing Pipe"),
    floor="raw socket",
    note="the floor is two trips",
)


def _is_next(number: int, answer: Any) -> bool:
    return bool(answer == number + 1)


@experiment(CALL, seconds=90)
def calls(run: Run) -> None:
    """Call from Python to Python; those that keep processes busy of their own are taken apart from the others."""
    quick = [RawSocket(), pipes.Loops(), pyro.Daemons("serpent"), pyro.Daemons("msgpack"), execnets.Gateways(),
             rpycs.Servers(), pipes.Pool(1), pipes.Manager()]  # fmt: skip
    with run.open(Kernels(), *quick) as peers:
        steps = {name: peer.call for name, peer in peers.items()}
        run.in_turn(CALL, steps, _is_next, rounds=run.rounds(60), repeat=50, warm=50)
    for peer in run.slow(jupyter.Kernel(), parallel.Engines(), dasks.Workers(), rays.Actors()):
        with run.open(Kernels(), peer) as peers:
            steps = {name: peer.call for name, peer in peers.items()}
            run.in_turn(CALL, steps, _is_next, rounds=run.rounds(15), repeat=10, warm=5)


@experiment(EXECUTE, seconds=60)
def executes(run: Run) -> None:
    """Execute source text, then evaluate another."""

    def step(peer: Any) -> Any:
        if isinstance(peer, RawSocket):
            return lambda number: peer.call(peer.call(number))

        def both(number: int) -> Any:
            peer.execute(f"value = {number} + 1")
            return peer.evaluate("value + 1")

        return both

    def right(number: int, answer: Any) -> bool:
        return bool(answer == number + 2)

    quick = [RawSocket(), pipes.Loops(), pyro.Daemons("msgpack"), execnets.Gateways(), rpycs.Servers()]
    with run.open(Kernels(), *quick) as peers:
        steps = {name: step(peer) for name, peer in peers.items()}
        run.in_turn(EXECUTE, steps, right, rounds=run.rounds(60), repeat=25, warm=25)
    for peer in run.slow(jupyter.Kernel(), parallel.Engines()):
        with run.open(Kernels(), peer) as peers:
            steps = {name: step(peer) for name, peer in peers.items()}
            run.in_turn(EXECUTE, steps, right, rounds=run.rounds(15), repeat=10, warm=5)
