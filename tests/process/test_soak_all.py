"""Everything at once for ten minutes, kernels being killed all the while: nothing is wrong, and nothing is left."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator

import pytest
import soaking
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.wire import spare

CLIENTS = 4
SLACK = {"descriptors": 4, "memfds": 2, "mapped": 4, "threads": 2, "memory": 40}
"""How much more than after warming up: kept connections come and go, and so do threads that end by themselves."""


def all_answer(mesh: pk.Mesh) -> bool:
    """Whether every kernel is there, on both kinds of connection; one that was killed at last may not be yet."""
    try:
        return all(kernel.call(abs, -1) == 1 and kernel.describe() for kernel in mesh)
    except soaking.KILLED:
        return False


def held(mesh: pk.Mesh) -> dict[str, dict[str, int]]:
    """Return what the processes of a mesh hold, of the kernels the most that one does: some have just begun.

    What they keep for the next time, segments above all, is given back first, as it would be after some idle seconds.
    """
    wait_until(lambda: all_answer(mesh))  # which also leaves a connection of either kind to each
    spare.tidy(math.inf)
    mesh[:].execute("import math; from pyrokernel.wire import spare; spare.tidy(math.inf); None")
    found: dict[str, dict[str, int]] = {}
    for name, pid in processes(mesh):
        so_far = found.setdefault(name, {})
        for what, number in soaking.inventory(pid).items():
            so_far[what] = max(so_far.get(what, 0), number)
    return found


def processes(mesh: pk.Mesh) -> Iterator[tuple[str, int]]:
    """Say of every process that has to do with a mesh what it is, and its id."""
    yield "client", os.getpid()
    for host in mesh.hosts():
        about = mesh.ask_host(host, "describe")
        yield "host", int(about["pid"])
    yield "state", int(mesh.shared.describe()["pid"])
    for info in mesh.ps():
        yield "kernel", info.pid


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seconds", [4, pytest.param(600, marks=pytest.mark.soak)])
def test_everything_at_once_leaves_nothing_behind(seconds: int) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    with pk.local(4) as mesh:
        load = soaking.Load(mesh, CLIENTS, kill_seconds=10 if seconds > 60 else 1)
        load.run(max(2, seconds / 10), seed)
        before = held(mesh)
        load.run(seconds, seed + 1000)
        print(dict(load.done))
        assert load.wrong == []
        assert all(load.done[what] for what in ("call", "bulk", "map", "follow", "interrupt", "kills"))
        left: list[str] = []

        def settled() -> bool:
            left[:] = [
                f"{name}: {number} {what}, {before[name][what]} before"
                for name, now in held(mesh).items()
                for what, number in now.items()
                if number > before[name][what] + SLACK[what]
            ]
            return not left

        try:
            wait_until(settled, timeout=30)
        finally:
            print(before, held(mesh), left, sep="\n")
