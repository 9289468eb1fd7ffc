"""The shared state beside what people would use instead: `python tests/benchmarks/shared.py [REDIS_SERVER]`.

In one run, in turn: redis-server through redis-py with its default persistence, `multiprocessing.Manager`'s dict, and
`shared`. Each figure is a median; each ratio is of two figures of this run. Every answer is checked.

What is compared is not the same promise. An acknowledged write to `shared` survives `kill -9` of every process;
one to Redis with its default persistence is lost if it came after the last snapshot; Manager's dict keeps nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import pyrokernel as pk

ROUNDS, CALLS, KEYS = 20, 250, 100
VALUE = b"x" * 100
CLIENTS, CLIENT_CALLS = 4, 4000
WATCHERS = 100
ARRAY_BYTES = 100 * 1000 * 1000


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def in_turn(calls: dict[str, Callable[[int], Any]]) -> dict[str, tuple[float, float]]:
    """Time calls by turns; return median and 99th percentile in microseconds, by name."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            for number in range(CALLS):
                begun = time.perf_counter()
                call(number)
                taken[name].append(time.perf_counter() - begun)
    return {
        name: (statistics.median(one) * 1e6, sorted(one)[int(len(one) * 0.99)] * 1e6) for name, one in taken.items()
    }


@contextlib.contextmanager
def redis_server(program: str) -> Iterator[tuple[Any, Any]]:
    """Run a Redis server with its default settings but for where it listens; yield clients by TCP and unix socket."""
    import redis

    directory = tempfile.mkdtemp(prefix="pk-redis-", dir="/tmp")
    path = os.path.join(directory, "redis.sock")
    with contextlib.closing(__import__("socket").create_server(("127.0.0.1", 0))) as found:
        port = found.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", path, "--dir", directory],
        stdout=subprocess.DEVNULL,
    )
    try:
        clients = redis.Redis(port=port), redis.Redis(unix_socket_path=path)
        while True:
            with contextlib.suppress(redis.ConnectionError):
                clients[0].ping()
                break
            assert process.poll() is None, "redis-server ended"
            time.sleep(0.02)
        yield clients
        for client in clients:
            client.close()
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def single_client(shared: Any, redis_tcp: Any, redis_unix: Any, managed: Any) -> None:
    """One client, one request after the other."""

    def key(number: int) -> str:
        return f"k{number % KEYS}"

    sets: dict[str, Callable[[int], Any]] = {
        "redis-py, TCP": lambda n: redis_tcp.set(key(n), VALUE),
        "redis-py, unix socket": lambda n: redis_unix.set(key(n), VALUE),
        "Manager().dict()": lambda n: managed.__setitem__(key(n), VALUE),
        "shared.set": lambda n: shared.set(key(n), VALUE),
        "shared.m[key] = value": lambda n: shared.m.__setitem__(key(n), VALUE),
        "shared.increment": lambda n: shared.increment("counter"),
    }
    gets: dict[str, Callable[[int], Any]] = {
        "redis-py, TCP": lambda n: redis_tcp.get(key(n)),
        "redis-py, unix socket": lambda n: redis_unix.get(key(n)),
        "Manager().dict()": lambda n: managed[key(n)],
        "shared.get": lambda n: shared.get(key(n)),
        "shared.m[key]": lambda n: shared.m[key(n)],
    }
    for what, calls in (("set", sets), ("get", gets)):
        found = in_turn(calls)
        best = min(found[name][0] for name in calls if name.startswith("redis"))
        print(f"\n{what}, 100 bytes, one client: median and 99th percentile in us; times faster than Redis")
        for name, (median, late) in found.items():
            print(f"  {name:26} {median:8.1f} {late:8.1f} {best / median:8.2f}")
    assert shared.get("k7") == redis_tcp.get("k7") == managed["k7"] == VALUE
    assert shared.get("counter") == ROUNDS * CALLS


def _client_of_shared(environ: dict[str, str], number: int, ready: Any, go: Any) -> None:
    os.environ.update(environ)
    with pk.connect() as mesh:
        m = mesh.shared.m
        m[f"c{number}"] = 0
        ready.release()
        go.wait()
        for count in range(CLIENT_CALLS):
            m[f"c{number}"] = count
            assert m[f"c{number}"] == count


def _client_of_manager(managed: Any, number: int, ready: Any, go: Any) -> None:
    managed[f"c{number}"] = 0
    ready.release()
    go.wait()
    for count in range(CLIENT_CALLS):
        managed[f"c{number}"] = count
        assert managed[f"c{number}"] == count


def _client_of_redis(port: int, number: int, ready: Any, go: Any) -> None:
    import redis

    with contextlib.closing(redis.Redis(port=port)) as client:
        client.set(f"c{number}", 0)
        ready.release()
        go.wait()
        for count in range(CLIENT_CALLS):
            client.set(f"c{number}", count)
            assert int(client.get(f"c{number}")) == count


def four_clients(mesh: pk.Mesh, port: int, managed: Any) -> None:
    """Four processes at once, each setting and getting."""
    context = multiprocessing.get_context("fork")
    workers: dict[str, tuple[Callable[..., None], Any]] = {
        "Manager().dict()": (_client_of_manager, managed),
        "redis-py, TCP": (_client_of_redis, port),
        "shared.m": (_client_of_shared, mesh.settings.to_env()),
    }
    rates: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(3):
        for name, (work, argument) in workers.items():
            ready, go = context.Semaphore(0), context.Event()
            processes = [context.Process(target=work, args=(argument, n, ready, go)) for n in range(CLIENTS)]
            for process in processes:
                process.start()
            for _ in processes:
                ready.acquire()
            begun = time.perf_counter()
            go.set()
            for process in processes:
                process.join()
                assert process.exitcode == 0
            rates[name].append(2 * CLIENTS * CLIENT_CALLS / (time.perf_counter() - begun))
    base = statistics.median(rates["Manager().dict()"])
    print("\nset and get, four clients: operations a second; times Manager's")
    for name, found in rates.items():
        print(f"  {name:26} {statistics.median(found):8.0f} {statistics.median(found) / base:17.2f}")


def arrays(shared: Any) -> None:
    """A large array, in multiples of copying it in memory (both warm)."""
    source = np.random.default_rng(1).random(ARRAY_BYTES // 8)
    target = np.empty_like(source)
    checksum = source.sum()
    np.copyto(target, source)
    copies = [timed(lambda: np.copyto(target, source)) for _ in range(9)]
    sums = [timed(lambda: source.sum()) for _ in range(9)]
    sets, gets, reads = [], [], []
    for _ in range(14):
        sets.append(timed(lambda: shared.set("array", source)))
        begun = time.perf_counter()
        found = shared.get("array")
        gets.append(time.perf_counter() - begun)
        total = found.sum()
        reads.append(time.perf_counter() - begun)
        assert total == checksum
        del found
    copy, adding = statistics.median(copies), statistics.median(sums)
    print(f"\narray of {ARRAY_BYTES / 1e6:.0f} MB: milliseconds; times memcpy ({copy * 1e3:.1f} ms)")
    rows = {
        "set, files new to the disk": statistics.median(sets[:5]),
        "set, files used before": statistics.median(sets[-5:]),
        "get (mapped)": statistics.median(gets),
        "get and sum, less the sum": statistics.median(reads) - adding,
    }
    for name, seconds in rows.items():
        print(f"  {name:26} {seconds * 1e3:8.1f} {seconds / copy:8.2f}")


def watchers(mesh: pk.Mesh, shared: Any) -> None:
    """Many watchers on one key, in threads of one client: how long from the write until each was told."""
    told: list[float] = []
    last: list[float] = []
    for round_number in range(20):
        begun = [0.0]
        times: list[float] = []

        def follow(watch: Any, value: int, times: list[float] = times) -> None:
            change = watch.get(30)
            times.append(time.perf_counter())
            assert change.value == value

        watches = [shared.watch("hot") for _ in range(WATCHERS)]
        threads = [threading.Thread(target=follow, args=(watch, round_number)) for watch in watches]
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # until all of them wait; who does not yet is only told sooner
        begun[0] = time.perf_counter()
        shared.m["hot"] = round_number
        for thread in threads:
            thread.join()
        assert len(times) == WATCHERS
        told += [moment - begun[0] for moment in times]
        last.append(max(times) - begun[0])
    print(f"\n{WATCHERS} watchers of one key: milliseconds from the write until told")
    print(f"  median {statistics.median(told) * 1e3:.1f}, the last one {statistics.median(last) * 1e3:.1f} ", end="")
    print(f"(slowest of 20 rounds {max(last) * 1e3:.1f})")


def main() -> None:
    """Run everything."""
    program = sys.argv[1] if len(sys.argv) > 1 else shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed (Debian: apt-get install redis-server)")
    with pk.local(1) as mesh, redis_server(program) as (tcp, unix), multiprocessing.Manager() as manager:
        managed = manager.dict()
        shared = mesh.shared
        single_client(shared, tcp, unix, managed)
        four_clients(mesh, tcp.connection_pool.connection_kwargs["port"], managed)
        arrays(shared)
        watchers(mesh, shared)


if __name__ == "__main__":
    main()
