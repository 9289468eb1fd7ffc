"""Arrays of 100 MB: to a kernel, back, to all, in parts. The clock stops when every kernel has returned a checksum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import functions
import tcp
from floor import Memory
from measuring import OURS, Row, Run, experiment, faster, within
from ours import Kernels, right_sum
from peers import dasks, execnets, parallel, pipes, rays, redises

MB = 1_000_000
ARRAY = 100 * MB
WORKERS = 4
FLOOR = Memory.name

VIEW = Row("push-view", "push 100 MB to a kernel, which reads it as it came", "ms", within(1.2, FLOOR), floor=FLOOR)
COPY = Row("push-copy", "push 100 MB to a kernel, which copies it", "ms", within(3.0, FLOOR), floor=FLOOR)
PULL = Row("pull", "pull 100 MB from a kernel", "ms", within(2.0, FLOOR), floor=FLOOR)
BROADCAST = Row("broadcast", "push 100 MB to 4 kernels", "ms", faster(1.0, "Ray"), floor="memcpy + 4 checksums")
SCATTER = Row("scatter", "scatter 400 MB over 4 kernels", "ms", faster(1.0, "Ray"), floor=FLOOR)
GATHER = Row("gather", "gather 400 MB from 4 kernels into one array", "ms", faster(1.0, "Ray"), floor=FLOOR)

TCP_NOTE = "our messages on a TCP connection; kernels listen on unix sockets only"
TCP_PUSH = Row("push-tcp", "push 100 MB over TCP on loopback", "ms", within(4.0, FLOOR), floor=FLOOR, note=TCP_NOTE)
TCP_PULL = Row("pull-tcp", "pull 100 MB over TCP on loopback", "ms", within(4.0, FLOOR), floor=FLOOR, note=TCP_NOTE)


def _made(size: int) -> Any:
    import numpy as np

    return np.random.default_rng(size).random(size // 8)


def _summed(pull: Callable[[], Any]) -> Callable[[int], int]:
    return lambda _: functions.checksum(pull())


@experiment(VIEW, COPY, PULL, seconds=110)
def one_kernel(run: Run) -> None:
    """One kernel, or worker: there, and back."""
    array = _made(ARRAY)
    right, memory = right_sum(array), Memory(array)
    quick = [pipes.Shared(1, ARRAY), pipes.Loops()]
    with run.open(Kernels(), *quick) as peers:
        steps: dict[str, Any] = {FLOOR: memory.copy}
        steps |= {name: lambda _, peer=peer: peer.push(array) for name, peer in peers.items()}
        run.in_turn(VIEW, steps, right, rounds=run.rounds(15), warm=2)
        copied = {FLOOR: memory.copy, OURS: lambda _: peers[OURS].push_copied(array)}
        run.in_turn(COPY, copied, right, rounds=run.rounds(15), warm=2)
        for peer in peers.values():
            peer.prepare(array)
        steps = {FLOOR: memory.copy} | {name: _summed(peer.pull) for name, peer in peers.items()}
        run.in_turn(PULL, steps, right, rounds=run.rounds(15), warm=2)
    for peer in run.slow(rays.Actors(), dasks.Workers(), execnets.Gateways(), parallel.Engines(), redises.Server()):
        with run.open(Kernels(), peer) as peers:
            steps = {name: lambda _, peer=peer: peer.push(array) for name, peer in peers.items()}
            run.in_turn(VIEW, steps, right, rounds=run.rounds(5, 2), warm=1)
            for one in peers.values():
                one.prepare(array)
            steps = {name: _summed(one.pull) for name, one in peers.items()}
            run.in_turn(PULL, steps, right, rounds=run.rounds(5, 2), warm=1)


@experiment(BROADCAST, SCATTER, GATHER, seconds=110)
def four_kernels(run: Run) -> None:
    """Four of them; with Ray, which is to be beaten, from the first round on."""
    array, large = _made(ARRAY), _made(WORKERS * ARRAY)
    whole, size = Memory(array), len(array)
    sums = [functions.checksum(large[n * size : (n + 1) * size]) for n in range(WORKERS)]
    total = functions.checksum(large)

    def all_right(_: int, found: Any) -> bool:
        return list(found) == [functions.checksum(array)] * WORKERS

    def parts_right(_: int, found: Any) -> bool:
        return list(found) == sums

    memory = Memory(large)
    # Forks of this process come before Ray is in it.
    best = (pipes.Shared(WORKERS, WORKERS * ARRAY), rays.Actors(WORKERS))
    for others in (best, *[(peer,) for peer in run.slow(dasks.Workers(WORKERS))]):
        with run.open(Kernels(WORKERS), *others) as peers:
            rounds = run.rounds(9 if others is best else 4, 1)
            steps: dict[str, Any] = {"memcpy + 4 checksums": lambda _: whole.copy_and_sum(WORKERS)}
            steps |= {name: lambda _, peer=peer: peer.broadcast(array) for name, peer in peers.items()}
            run.in_turn(BROADCAST, steps, all_right, rounds=rounds, warm=1)
            steps = {FLOOR: lambda _: memory.copy_and_sum(1, WORKERS)}
            steps |= {name: lambda _, peer=peer: peer.scatter(large) for name, peer in peers.items()}
            run.in_turn(SCATTER, steps, parts_right, rounds=rounds, warm=1)
            for peer in peers.values():
                peer.prepare_parts(large)
            steps = {FLOOR: memory.copy} | {name: _summed(peer.gather) for name, peer in peers.items()}
            run.in_turn(GATHER, steps, lambda _, found: found == total, rounds=rounds, warm=1)


@experiment(TCP_PUSH, TCP_PULL, seconds=60)
def over_tcp(run: Run) -> None:
    """One worker at the other end of a TCP connection."""
    array = _made(ARRAY)
    right, memory = right_sum(array), Memory(array)
    with run.open(tcp.Worker()) as peers:
        ours = peers[OURS]
        pushes = {FLOOR: memory.copy, OURS: lambda _: ours.push(array)}
        run.in_turn(TCP_PUSH, pushes, right, rounds=run.rounds(15), warm=2)
        ours.prepare(array)
        pulls = {FLOOR: memory.copy, OURS: _summed(ours.pull)}
        run.in_turn(TCP_PULL, pulls, right, rounds=run.rounds(15), warm=2)
