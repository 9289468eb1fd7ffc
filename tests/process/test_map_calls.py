"""Scatter sets: one command with many sets of arguments, read while it runs, with more added on the way."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk

WAITS = """
import os, time
def wait_for(path, value=None):
    while not os.path.exists(path):
        time.sleep(0.001)
    return value
"""

HISTOGRAM = """
import random
def histogram(size, bins=10, *, distribution="uniform"):
    draw = random.Random(size).random
    counts = [0] * bins
    for _ in range(size):
        value = draw() ** 2 if distribution == "square" else draw()
        counts[int(value * bins)] += 1
    return counts
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_call_has_its_own_arguments(group: pk.Group, kernel: pk.Kernel) -> None:
    calls: list[Any] = [((), {}), ((1,), {"bins": 10}), ([2, 3], {}), ((), {"x": [1]})]
    expected = [(tuple(args), kwargs) for args, kwargs in calls]

    def keywords(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs

    assert group.map_calls(keywords, calls).results() == expected
    assert group.map_calls(keywords, calls, chunk=4).results() == expected
    assert list(kernel.map_calls(keywords, calls)) == expected
    assert kernel.map_calls("math.hypot", [((3, 4), {}), ((6, 8), {})]).results() == [5.0, 10.0]


def test_a_hundred_histograms_by_name_arrive_whole(group: pk.Group) -> None:
    group.execute(HISTOGRAM)
    calls = [((1000 + n,), {"bins": 5 + n % 7, "distribution": ("uniform", "square")[n % 2]}) for n in range(100)]
    job = group.map_calls("histogram", calls)
    arrived = dict(job.as_completed())
    assert sorted(arrived) == list(range(100))
    assert [arrived[n] for n in range(100)] == job.results()
    assert [(sum(counts), len(counts)) for counts in job] == [(1000 + n, 5 + n % 7) for n in range(100)]
    assert repr(job) == "<Job histogram 100 of 100 done>"


def test_five_thousand_calls_of_a_generator() -> None:
    def calls() -> Iterator[tuple[tuple[int], dict[str, int]]]:
        for number in range(5000):
            yield (number,), {"step": 2}

    with pk.local(4) as mesh:
        job = mesh[:].map_calls(lambda number, step: number * step, calls())
        assert job.results() == list(range(0, 10_000, 2))
        assert sorted(job.arrived) == list(range(5000))


def test_what_is_ready_is_told_without_waiting(group: pk.Group, tmp_path: Path) -> None:
    group.execute(WAITS)
    go = str(tmp_path / "go")
    job = group.map_calls("wait_for", [((go,), {"value": "slow"}), (("/",), {"value": "quick"})], chunk=1)
    assert job.result(1) == "quick"
    assert (job.ready(0), job.ready(1), job.ready(-1)) == (False, True, True)
    assert (job.arrived, job.progress, job.done, job.errors) == ([1], (1, 2), False, {})
    assert not job.wait(0.01)
    assert next(job.as_completed()) == (1, "quick")
    with pytest.raises(IndexError, match="no item 2 in a job of 2"):
        job.ready(2)
    Path(go).touch()
    assert job.results() == ["slow", "quick"]
    assert job.arrived == [1, 0]


def test_calls_are_added_by_another_thread_and_run_beside_those_that_go_on(group: pk.Group, tmp_path: Path) -> None:
    group.execute(WAITS)
    go = str(tmp_path / "go")
    job = group.map_calls("wait_for", [((go,), {"value": 0})], chunk=100)
    wait_until(lambda: any(kernel.describe()["running"] for kernel in group))
    added: list[range] = []
    thread = threading.Thread(target=lambda: added.append(job.add((("/",), {"value": 1}), (("/", 2), {}))))
    thread.start()
    thread.join()
    assert added == [range(1, 3)]
    # Two other kernels are free: neither the first call nor a full chunk is waited for.
    assert (job.result(1), job.result(2), job.ready(0)) == (1, 2, False)
    assert job.progress == (2, 3)
    Path(go).touch()
    assert job.results() == [0, 1, 2]


def test_who_iterates_gets_what_is_added_meanwhile(group: pk.Group) -> None:
    job = group.map_calls(lambda depth, name: (depth, name), [((0, "root"), {})])
    seen = []
    for _, (depth, name) in job.as_completed():
        seen.append(name)
        if depth < 3:
            job.extend(((depth + 1, f"{name}.{part}"), {}) for part in range(2))
    assert len(seen) == len(set(seen)) == 15
    assert len(job) == 15
    job = group.map_calls(lambda number: number, [((0,), {})])
    for number in job:
        if number < 5:
            job.add(((), {"number": number + 1}))
    assert job.results() == list(range(6))


def test_a_job_that_is_done_goes_on_with_what_is_added(group: pk.Group) -> None:
    job = group.map_calls("divmod")
    assert (job.done, job.results(), len(job)) == (True, [], 0)
    for number in range(20):
        assert job.add(((number, 3), {})) == range(number, number + 1)
        assert job.wait(30)
    assert job.results() == [divmod(number, 3) for number in range(20)]
    assert job.extend([]) == range(20, 20)
    assert len({part["job"] for parts in group.cells(20).values() for part in parts if "divmod" in part["source"]}) == 1


def test_items_are_added_to_a_map_too(group: pk.Group) -> None:
    job = group.map(abs, [-1, -2])
    assert job.add(-3) == range(2, 3)
    assert job.extend(range(-5, -3)) == range(3, 5)
    assert job.results() == [1, 2, 3, 5, 4]


def test_many_threads_add_while_others_read(group: pk.Group) -> None:
    job = group.map_calls(lambda thread, number: (thread, number))
    given: dict[int, tuple[int, int]] = {}

    def add(thread: int) -> None:
        for number in range(50):
            (index,) = job.add(((thread, number), {}))
            given[index] = (thread, number)
            if number % 10 == 0:
                assert job.result(index) == (thread, number)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert job.results() == [given[index] for index in range(200)]
    assert sorted(job.arrived) == list(range(200))


def test_nothing_is_added_after_a_cancel(group: pk.Group, tmp_path: Path) -> None:
    group.execute(WAITS)
    job = group[:1].map_calls("wait_for", [(("/", "done"), {}), ((str(tmp_path / "never"),), {})], chunk=1)
    assert job.result(0) == "done"
    job.cancel()
    assert type(job.results(check=False)[1]) is pk.CellCancelledError
    with pytest.raises(pk.CellCancelledError, match="takes no more"):
        job.add((("/",), {}))
    assert len(job) == 2
    assert list(job.errors) == [1]


def test_what_is_added_is_cancelled_too(group: pk.Group, tmp_path: Path) -> None:
    group.execute(WAITS)
    never = str(tmp_path / "never")
    job = group[:1].map_calls("wait_for", [((never,), {})])
    wait_until(lambda: bool(group["k0"].describe()["running"]))
    job.extend(((never,), {}) for _ in range(20))
    job.cancel()
    assert {type(error) for error in job.results(check=False)} == {pk.CellCancelledError}
    assert group["k0"].execute("'idle'", timeout=10).result == "idle"


def test_the_time_of_a_job_counts_from_its_beginning(group: pk.Group, tmp_path: Path) -> None:
    group.execute(WAITS)
    job = group[:1].map_calls("wait_for", [((str(tmp_path / "go"),), {})], timeout=0.5)
    job.add(((str(tmp_path / "go"),), {}))
    assert {type(error) for error in job.results(check=False)} == {pk.ReplyTimeoutError}
    with pytest.raises(pk.ReplyTimeoutError, match=r"the job's 0.5 s have passed"):
        job.add((("/",), {}))
    job.cancel()


def test_failures_are_kept_beside_results(group: pk.Group) -> None:
    calls = [((10,), {"divisor": number % 3}) for number in range(9)]
    job = group.map_calls(lambda number, divisor: number // divisor, calls)
    assert job.wait(30)
    assert sorted(job.errors) == [0, 3, 6]
    error = job.errors[3]
    assert isinstance(error, pk.RemoteError)
    assert (error.ename, error.index, error.item) == ("ZeroDivisionError", 3, "(10, divisor=0)")
    results = job.results(check=False)
    assert [results[index] for index in (1, 2, 4, 5)] == [10, 5, 10, 5]
    assert results[3] is error
    assert dict(job.as_completed(check=False))[6] is job.errors[6]
    with pytest.raises(pk.RemoteError, match="ZeroDivisionError"):
        job.result(6)
    with pytest.raises(pk.RemoteError, match=r"TypeError: .*item 0 \(\(1, 2, size=3\)\)"):
        group.map_calls("abs", [((1, 2), {"size": 3})]).results()


def test_a_result_that_is_an_exception_is_no_failure(group: pk.Group) -> None:
    job = group.map_calls("ValueError", [(("kept",), {})])
    assert [str(value) for value in job] == ["kept"]
    assert job.errors == {}


def test_a_call_that_cannot_travel_leaves_its_chunk_alone(group: pk.Group) -> None:
    calls: list[Any] = [((number,), {}) for number in range(9)]
    calls[4] = ((), {"number": threading.Lock()})
    results = group.map_calls(lambda number: number, calls, chunk=9).results(check=False)
    assert results[:4] + results[5:] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert "call 4 (number=<lock>) cannot travel" in str(results[4])


def test_what_is_no_call_is_refused_before_any_is_sent(group: pk.Group) -> None:
    before = {name: len(cells) for name, cells in group.cells(1000).items()}
    with pytest.raises(pk.SettingsError, match=r"call 1 is \(args, kwargs\)"):
        group.map_calls("abs", [((1,), {}), (2,)])  # type: ignore[list-item]  # what is refused
    assert {name: len(cells) for name, cells in group.cells(1000).items()} == before
    job = group.map_calls("abs", [((-1,), {})])
    with pytest.raises(pk.SettingsError, match="the args of call 2 are a tuple or list"):
        job.add(((-2,), {}), (-3, {}))
    assert job.results() == [1]
    with pytest.raises(pk.SettingsError, match="at least 1"):
        group.map_calls("abs", [], chunk=0)


def test_a_kernel_that_dies_costs_the_call_it_was_in() -> None:
    with pk.local(2) as mesh:

        def die_at_5(number: int, how: int = 9) -> int:
            import os

            if number == 5:
                os.kill(os.getpid(), how)
            return number

        job = mesh[:].map_calls(die_at_5, [((number,), {}) for number in range(10)], chunk=1)
        assert [index for index, _ in job.as_completed(check=False) if isinstance(_, pk.KernelDiedError)] == [5]
        job.extend(((number,), {"how": 0}) for number in range(10))
        assert job.results(check=False)[10:] == list(range(10))
        assert list(job.errors) == [5]


def test_when_all_kernels_have_died_those_that_follow_take_what_is_added() -> None:
    with pk.local(1) as mesh:
        group = mesh[:]
        old = group["k0"].instance
        job = group.map_calls("os.kill", [((int(group["k0"].describe()["pid"]), signal.SIGKILL), {})])
        assert isinstance(job.results(check=False)[0], pk.KernelDiedError)
        wait_until(lambda: mesh["k0"].instance != old)
        job.add(((os.getpid(), 0), {}))
        assert job.results(check=False)[1] is None


def test_calls_are_tried_again_where_that_was_asked_for(tmp_path: Path) -> None:
    with pk.local(2) as mesh:

        def die_once(marker: str) -> str:
            import os

            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return "second"
            os._exit(1)

        job = mesh[:].map_calls(die_once, retries=1)
        job.add(((str(tmp_path / "died"),), {}))
        assert job.results() == ["second"]


def test_what_added_calls_print_is_read(group: pk.Group) -> None:
    job = group.map_calls("print", [(("one",), {"end": ";"})])
    assert job.wait(30)
    job.add((("two", "three"), {"sep": "-", "end": ";"}))
    assert job.wait(30)
    assert sorted("".join(job.output().values()).split(";")) == ["", "one", "two-three"]


def test_the_cells_of_a_scatter_set_say_so(kernel: pk.Kernel) -> None:
    kernel.map_calls("abs", [((-1,), {}), ((), {})], chunk=2).wait()
    (cell,) = kernel.cells(1)
    assert (cell["source"], cell["items"], cell["failed"]) == ("map_calls(abs, ...)", 2, 1)


def test_a_terminal_is_shown_how_far_it_is(group: pk.Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    group.execute(WAITS)
    go = str(tmp_path / "go")
    job = group.map_calls("wait_for", [(("/",), {}), ((), {}), ((go,), {})], chunk=1)
    wait_until(lambda: job.progress[0] == 2)
    terminal = Terminal()
    thread = threading.Thread(target=job.show, args=(terminal,))
    thread.start()
    wait_until(lambda: "2 of 3" in terminal.getvalue())
    assert thread.is_alive()
    Path(go).touch()
    thread.join()
    *drawn, last = terminal.getvalue().split("\r\x1b[K")
    assert "[#############.......] 2 of 3" in drawn[1]
    assert "/s, " in drawn[1] or "/min, " in drawn[1]
    assert " left, 1 failed  wait_for" in drawn[1]
    assert last.startswith("[####################] 3 of 3")
    assert last.endswith("1 failed  wait_for\n")
    assert " left" not in last


def test_elsewhere_it_is_one_line_at_the_end(group: pk.Group, capsys: pytest.CaptureFixture[str]) -> None:
    group.map_calls("abs", [((-1,), {})] * 4).show()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("[####################] 4 of 4")
    assert line.endswith("/s  abs")


@pytest.mark.parametrize(
    "wait", [lambda job: job.show(io.StringIO()), lambda job: job.result(0)], ids=["show", "result"]
)
def test_ctrl_c_cancels(group: pk.Group, tmp_path: Path, wait: Callable[[pk.Job], Any]) -> None:
    group.execute(WAITS)
    job = group.map_calls("wait_for", [((str(tmp_path / "never"),), {})] * 3, chunk=1)

    def press() -> None:
        wait_until(lambda: all(kernel.describe()["running"] for kernel in group))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        wait(job)
    thread.join()
    assert "the job was stopped on k0-k2; 0 of 3 items have their results" in "".join(caught.value.__notes__)
    assert {type(error) for error in job.errors.values()} == {pk.CellCancelledError}
    assert all(reply.result == 2 for reply in group.execute("1 + 1", timeout=10).values())
