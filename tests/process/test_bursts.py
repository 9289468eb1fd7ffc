"""Bursts: many small requests of a job, each answered, listed, interrupted and lost on its own."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import PORTABLE
from waiting import wait_until

import pyrokernel as pk

NOTES = """
import os, time
def note(item):
    index, path, go = item
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{index}\\n".encode())
    os.close(fd)
    while go and not os.path.exists(go):
        time.sleep(0.001)
    return index
"""

HANG_UP = """
import gc, socket
loop, = [one for one in gc.get_objects() if type(one).__name__ == "WorkLoop"]
hung_up = [connection.sock.shutdown(socket.SHUT_RDWR) for connection in loop.connections if connection.kept]
"""


@pytest.fixture
def one() -> Iterator[pk.Kernel]:
    """A kernel of its own."""
    with pk.local(1) as mesh:
        yield mesh["k0"]


def test_each_chunk_is_listed_and_what_all_print_is_of_the_job(one: pk.Kernel) -> None:
    job = one.map(lambda x: print("item", x), range(300), chunk=1, shown="print them")
    assert job.results() == [None] * 300
    parts = one.cells(1)
    assert len(parts) == 300
    assert {(part["source"], part["status"], part["items"], part["failed"]) for part in parts} == {
        ("print them", "ok", 1, 0)
    }
    assert len({part["cell"] for part in parts}) == 300
    assert job.output()["k0"].splitlines() == [f"item {x}" for x in range(300)]
    own = {part["cell"] for part in parts}
    printed = [event for event in one.events() if event.kind == "output"]
    assert {event.cell for event in printed} <= own


def test_only_the_chunk_in_which_a_kernel_died_is_lost_however_many_wait_behind_it() -> None:
    with pk.local(2) as mesh:

        def die_at_700(x: int) -> int:
            import os

            return os._exit(1) if x == 700 else x

        results: list[Any] = mesh[:].map(die_at_700, range(1500), chunk=1).results(check=False)
        lost = {item: error for item, error in enumerate(results) if isinstance(error, pk.KernelDiedError)}
        assert max(lost) == 700
        if PORTABLE:  # by TCP what was on its way is lost with the kernel; what killed one is tried on no other
            assert len({error.kernel for error in lost.values()}) == 1
        else:
            assert len(lost) == 1
        assert [value for item, value in enumerate(results) if item not in lost] == [
            item for item in range(1500) if item not in lost
        ]


def test_an_interrupt_ends_the_chunk_that_runs_and_no_other(one: pk.Kernel, tmp_path: Path) -> None:
    one.execute(NOTES)
    path, never = str(tmp_path / "noted"), str(tmp_path / "never")
    job = one.map("note", [(n, path, never if n == 150 else "") for n in range(300)], chunk=1)
    wait_until(lambda: job.progress[0] == 150)
    running = one.describe()["running"]
    assert running["source"] == "map(note, ...)"
    assert one.interrupt(running["cell"]).outcome == "interrupted"
    results = job.results(check=False)
    interrupted = results.pop(150)
    assert isinstance(interrupted, pk.RemoteError)
    assert interrupted.ename == "KeyboardInterrupt"
    assert results == [*range(150), *range(151, 300)]


def test_whatever_a_function_raises_costs_its_chunk_alone(one: pk.Kernel) -> None:
    def raise_some(x: int) -> int:
        if x % 10 == 3:
            raise SystemExit(7)
        return 1 // (x % 10 - 5)

    results: list[Any] = one.map(raise_some, range(100), chunk=1).results(check=False)
    assert [(n, error.ename, error.index) for n, error in enumerate(results) if isinstance(error, pk.RemoteError)] == [
        failure
        for ten in range(0, 100, 10)
        for failure in ((ten + 3, "SystemExit", None), (ten + 5, "ZeroDivisionError", ten + 5))
    ]
    errors = [event for event in one.events() if event.kind == "error"]
    assert [event.data["ename"] for event in errors] == ["SystemExit"] * 10


@pytest.mark.parametrize("where", ["begin_chunk", "end_chunk", "_keep", "answer"])
def test_a_kernel_in_which_the_end_of_a_chunk_fails_goes_on(one: pk.Kernel, where: str) -> None:
    # As a profiler of the user's does, or a lack of memory, in the kernel's own code.
    one.execute(f"""
import sys
def strike(frame, event, argument):
    if event == "return" and frame.f_code.co_name == {where!r}:
        sys.setprofile(None)
        raise MemoryError("no more")
def begin(item):
    if item == 30:
        sys.setprofile(strike)
    return item
""")
    results = one.map("begin", range(60), chunk=1).results(check=False)
    failures = [found for found in results if not isinstance(found, int)]
    assert [(type(one), getattr(one, "ename", "")) for one in failures] in ([], [(pk.RemoteError, "MemoryError")])
    assert one.describe()["running"] is None
    assert all(cell["status"] for cell in one.cells())
    assert one.execute("6 * 7", timeout=20).result == 42


def test_a_function_is_loaded_once_for_all_chunks(one: pk.Kernel) -> None:
    seen: list[int] = []

    def count(x: int) -> int:
        seen.append(x)
        return len(seen)

    assert one.map(count, range(40), chunk=1).results() == list(range(1, 41))
    assert one.map(count, range(40), chunk=1).results() == list(range(1, 41))


def test_long_arguments_and_results_travel_as_short_ones_do(one: pk.Kernel) -> None:
    sizes = [1, 100, 20_000, 3, 300_000, 70_000, 10] * 4
    items = [bytes([n]) * size for n, size in enumerate(sizes)]
    assert one.map(lambda data: data + data[:1], items, chunk=1).results() == [item + item[:1] for item in items]
    numpy = pytest.importorskip("numpy")
    arrays = [numpy.full(size, n) for n, size in enumerate(sizes)]
    for found, array in zip(one.map(lambda data: data + 1, arrays, chunk=1), arrays, strict=True):
        numpy.testing.assert_array_equal(found, array + 1)


def test_a_child_that_a_function_forks_ends_there(one: pk.Kernel) -> None:
    def fork(x: int) -> int:
        import os

        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        return x

    assert one.map(fork, range(20), chunk=1).results() == list(range(20))


def test_a_connection_that_is_lost_in_the_middle_costs_nothing_and_runs_nothing_twice(
    one: pk.Kernel, tmp_path: Path
) -> None:
    one.execute(NOTES)
    path, go = str(tmp_path / "noted"), tmp_path / "go"
    job = one.map("note", [(n, path, str(go) if n == 200 else "") for n in range(600)], chunk=1)
    wait_until(lambda: job.progress[0] == 200)
    with pk.connect(one.mesh.settings) as other:
        cell = other["k0"].submit(HANG_UP)
        go.touch()
        assert cell.reply(timeout=30).ok
        assert job.results() == list(range(600))
    assert len(one.pull("hung_up")) >= 1
    times = collections.Counter(Path(path).read_text().split())
    assert set(times.values()) == {1}
    assert len(times) == 600
