"""The shared state beside what people would use instead.

What is compared is not the same promise. An acknowledged write to `shared` survives `kill -9` of every process; one to
Redis with its default persistence is lost if it came after the last snapshot; Manager's dict keeps nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import functions
from floor import Memory
from measuring import OURS, Row, Run, experiment
from ours import Kernels, right_sum
from peers import redises
from peers.forking import CONTEXT

import pyrokernel as pk

MANAGER = "multiprocessing Manager"
VALUE = b"x" * 100
KEYS = 100
CLIENTS, CLIENT_CALLS = 4, 2000
WATCHERS = 100
ARRAY_BYTES = 100_000_000
FLOOR = Memory.name

SET = Row("state-set", "shared state: set 100 bytes", "us", note="Redis by unix socket")
GET = Row("state-get", "shared state: get 100 bytes", "us")
INCREMENT = Row("state-increment", "shared state: increment a counter", "us")
CROWD = Row("state-crowd", f"shared state: {CLIENTS} clients at once, each {CLIENT_CALLS} sets and gets", "ms")
ARRAY_SET = Row("state-array-set", "shared state: set an array of 100 MB", "ms", floor=FLOOR)
ARRAY_GET = Row("state-array-get", "shared state: get it, and read all of it", "ms", floor=FLOOR)
WATCH = Row("state-watch", f"shared state: from a write until the last of {WATCHERS} watchers is told", "ms")


def _key(number: int) -> str:
    return f"k{number % KEYS}"


@experiment(SET, GET, INCREMENT, CROWD, ARRAY_SET, ARRAY_GET, WATCH, seconds=110)
def state(run: Run) -> None:
    """One client, several, large values, watchers."""
    with run.open(Kernels(), redises.Server()) as peers, multiprocessing.Manager() as manager:
        shared, redis = peers[OURS].mesh.shared, peers["Redis"].client if "Redis" in peers else None
        managed = manager.dict()
        _single(run, shared, redis, managed)
        _crowd(run, peers[OURS].mesh, peers.get("Redis"), managed)
        _arrays(run, shared, peers.get("Redis"))
        _watchers(run, shared)


def _single(run: Run, shared: Any, redis: Any, managed: Any) -> None:
    def done(_: int, answer: Any) -> bool:
        return answer is not False

    sets: dict[str, Callable[[int], Any]] = {
        OURS: lambda number: shared.m.__setitem__(_key(number), VALUE),
        MANAGER: lambda number: managed.__setitem__(_key(number), VALUE),
    }
    gets: dict[str, Callable[[int], Any]] = {
        OURS: lambda number: shared.m[_key(number)],
        MANAGER: lambda number: managed[_key(number)],
    }
    counts: dict[str, Callable[[int], Any]] = {OURS: lambda _: shared.increment("counter")}
    if redis is not None:
        sets["Redis"] = lambda number: redis.set(_key(number), VALUE)
        gets["Redis"] = lambda number: redis.get(_key(number))
        counts["Redis"] = lambda _: redis.incr("counter")
    repeat, rounds = 100, run.rounds(20)
    run.in_turn(SET, sets, done, rounds=rounds, repeat=repeat, warm=KEYS)
    run.in_turn(GET, gets, lambda _, answer: answer == VALUE, rounds=rounds, repeat=repeat, warm=KEYS)
    run.in_turn(INCREMENT, counts, done, rounds=rounds, repeat=repeat, warm=KEYS)
    assert shared.get("counter") == 1 + KEYS + rounds * repeat


def _client_of_shared(environ: dict[str, str], number: int, ready: Any, go: Any) -> None:
    os.environ.update(environ)
    with pk.connect() as mesh:
        m = mesh.shared.m
        _use(lambda count: m.__setitem__(f"c{number}", count), lambda: m[f"c{number}"], ready, go)


def _client_of_manager(managed: Any, number: int, ready: Any, go: Any) -> None:
    _use(lambda count: managed.__setitem__(f"c{number}", count), lambda: managed[f"c{number}"], ready, go)


def _client_of_redis(path: str, number: int, ready: Any, go: Any) -> None:
    import redis

    client = redis.Redis(unix_socket_path=path)
    _use(lambda count: client.set(f"c{number}", count), lambda: int(client.get(f"c{number}")), ready, go)


def _use(put: Callable[[int], Any], get: Callable[[], int], ready: Any, go: Any) -> None:
    put(0)
    ready.release()
    go.wait()
    for count in range(CLIENT_CALLS):
        put(count)
        assert get() == count


def _crowd(run: Run, mesh: pk.Mesh, redis: Any, managed: Any) -> None:
    clients: dict[str, tuple[Callable[..., None], Any]] = {
        OURS: (_client_of_shared, mesh.settings.to_env()),
        MANAGER: (_client_of_manager, managed),
    }
    if redis is not None:
        clients["Redis"] = (_client_of_redis, redis.path)
    times: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(run.rounds(3, 1)):
        for name, (work, argument) in clients.items():
            ready, go = CONTEXT.Semaphore(0), CONTEXT.Event()
            processes = [CONTEXT.Process(target=work, args=(argument, n, ready, go)) for n in range(CLIENTS)]
            for process in processes:
                process.start()
            for _ in processes:
                ready.acquire()
            begun = time.perf_counter()
            go.set()
            for process in processes:
                process.join()
                assert process.exitcode == 0
            times[name].append(time.perf_counter() - begun)
    run.figures(CROWD, times)


def _arrays(run: Run, shared: Any, redis: Any) -> None:
    import numpy as np

    array = np.random.default_rng(1).random(ARRAY_BYTES // 8)
    memory = Memory(array)

    def put(_: int) -> int:
        shared.set("array", array)
        return functions.checksum(array)

    sets: dict[str, Callable[[int], Any]] = {FLOOR: memory.copy, OURS: put}
    gets: dict[str, Callable[[int], Any]] = {
        FLOOR: memory.copy,
        OURS: lambda _: functions.checksum(shared.get("array")),
    }
    if redis is not None:
        redis.prepare(array)
        gets["Redis"] = lambda _: functions.checksum(redis.pull())
    run.in_turn(ARRAY_SET, sets, right_sum(array), rounds=run.rounds(9), warm=4)
    run.in_turn(ARRAY_GET, gets, right_sum(array), rounds=run.rounds(9), warm=1)
    assert np.array_equal(shared.get("array"), array)


def _watchers(run: Run, shared: Any) -> None:
    last: list[float] = []
    for number in range(run.rounds(15)):
        told: list[float] = []

        def follow(watch: Any, value: int, told: list[float] = told) -> None:
            change = watch.get(30)
            told.append(time.perf_counter())
            assert change.value == value

        watches = [shared.watch("hot") for _ in range(WATCHERS)]
        threads = [threading.Thread(target=follow, args=(watch, number)) for watch in watches]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # until all of them wait; who does not yet is only told sooner
        begun = time.perf_counter()
        shared.m["hot"] = number
        for thread in threads:
            thread.join()
        assert len(told) == WATCHERS
        last.append(max(told) - begun)
    run.figures(WATCH, {OURS: last})
