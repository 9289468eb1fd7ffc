"""Jobs: what failed says which item it was, what was printed can be read, and lost kernels are replaced."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.wire.fanout import Fanout

SLEEPS = "import time\ndef nap(x):\n    if x: time.sleep(60)\n    return x\n"


def pid_of(kernel: pk.Kernel) -> int:
    return int(kernel.describe()["pid"])


def test_a_failure_names_its_item(group: pk.Group) -> None:
    job = group.map(lambda text: int(text), ["1", "2", "three", "4"])
    with pytest.raises(pk.RemoteError, match=r"ValueError: .*\(item 2 \('three'\) in kernel 'k\d'\)") as caught:
        job.results()
    assert caught.value.index == 2
    assert "results(check=False)" in " ".join(caught.value.__notes__)
    results = job.results(check=False)
    assert [results[0], results[1], results[3]] == [1, 2, 4]
    assert results[2].index == 2


def test_a_chunk_that_fails_as_a_whole_says_which_items_it_cost(group: pk.Group) -> None:
    with pytest.raises(pk.RemoteError) as caught:
        group.map("nothing_of_that_name", range(6), chunk=6).results()
    assert "items 0 to 5 of the job got no result" in "".join(caught.value.__notes__)


def test_an_item_that_cannot_travel_is_named_and_leaves_its_chunk_alone(group: pk.Group) -> None:
    items: list[Any] = [*range(9)]
    items[4] = threading.Lock()
    job = group.map(lambda x: x, items, chunk=9)
    results = job.results(check=False)
    assert results[:4] + results[5:] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert "item 4 (<lock>) cannot travel" in str(results[4])


def test_variables_and_shares_that_cannot_travel_are_named(group: pk.Group, kernel: pk.Kernel) -> None:
    lock = threading.Lock()
    for one in (group, kernel):
        with pytest.raises(pk.NotSerializableError, match="variable 'lock' cannot travel"):
            one.push(a=1, lock=lock)
        with pytest.raises(pk.NotSerializableError, match="item 2 of 'x' cannot travel"):
            one.scatter("x", [0, 1, lock])


def test_a_job_out_of_time_says_how_far_it_came_and_what_goes_on(group: pk.Group) -> None:
    group.execute(SLEEPS)
    job = group[:1].map("nap", [0, 1, 0, 0], chunk=1, timeout=1.0)
    with pytest.raises(pk.ReplyTimeoutError) as caught:
        job.results()
    text = "the job ran out of its 1 s with 1 of 4 items done; chunks of it go on in k0: job.cancel() stops them"
    assert str(caught.value) == text
    assert caught.value.missing == ("k0",)
    kernel = group["k0"]
    assert kernel.describe()["running"]
    job.cancel()
    wait_until(lambda: not kernel.describe()["running"])
    assert kernel.execute("'idle'", timeout=10).result == "idle"


def test_items_of_a_cancelled_job_say_so(group: pk.Group) -> None:
    group.execute(SLEEPS)
    job = group[:1].map("nap", [0, 1, 0, 0, 0, 0], chunk=1)
    wait_until(lambda: job.progress[0] == 1)
    job.cancel()
    results = job.results(check=False)
    assert results[0] == 0
    assert {type(result) for result in results[1:]} == {pk.CellCancelledError}


def test_what_calls_print_is_read_while_the_job_runs_and_after_it(group: pk.Group, tmp_path: Path) -> None:
    group.execute("import os, sys, time\nprint('not of the job')")
    go = tmp_path / "go"

    def speak(x: int, go: str = str(go)) -> None:
        import os
        import sys
        import time

        print("out", x)
        print("err", x, file=sys.stderr)
        while x == 1 and not os.path.exists(go):
            time.sleep(0.001)
        print("end", x)

    job = group[:2].map(speak, range(4), chunk=1)
    wait_until(lambda: "out 1\n" in "".join(job.output().values()))
    assert "end 1" not in "".join(job.output().values())
    go.touch()
    job.results()
    output = job.output()
    assert list(output) == ["k0", "k1"]
    lines = "".join(output.values()).splitlines()
    assert sorted(lines) == sorted(f"{word} {x}" for word in ("out", "err", "end") for x in range(4))
    assert job.output() == output


def test_what_calls_printed_in_a_kernel_that_died_is_read_too() -> None:
    with pk.local(1) as mesh:

        def die(x: int) -> int:
            import os

            print("item", x, flush=True)
            if x == 1:
                os.kill(os.getpid(), 9)
            return x

        job = mesh[:].map(die, range(4), chunk=1)
        results = job.results(check=False)
        assert results[0] == 0
        assert isinstance(results[1], pk.KernelDiedError)
        assert job.output()["k0"].startswith("item 0\nitem 1\n")
        assert results[2:] == [2, 3]
        assert sorted(job.output()["k0"].splitlines()) == [f"item {x}" for x in range(4)]


def test_all_kernels_of_a_job_die_and_those_that_follow_do_the_rest() -> None:
    with pk.local(2) as mesh:
        marker = Path(mesh.settings.runtime_dir) / "go"

        def wait(x: int, marker: str = str(marker)) -> int:
            import os
            import time

            while not os.path.exists(marker):
                time.sleep(0.001)
            return x

        job = mesh[:].map(wait, range(12), chunk=1, retries=1)
        wait_until(lambda: all(kernel.describe()["running"] for kernel in mesh))
        pids = [pid_of(kernel) for kernel in mesh]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        marker.touch()
        assert job.wait(30)
        assert job.results() == list(range(12))


def test_no_kernel_left_says_which_items_and_what_to_do() -> None:
    specs = [pk.KernelSpec(name=name, restart="never") for name in ("a", "b")]
    with pk.local(specs) as mesh:
        job = mesh[:].map(lambda x: __import__("os")._exit(1), range(40), chunk=1)
        results = job.results(check=False)
        assert [type(result) for result in results[:2]] == [pk.KernelDiedError] * 2
        texts = {str(result) for result in results if not isinstance(result, pk.KernelDiedError)}
        (text,) = texts
        assert "no kernel is left" in text
        assert "items 2 to 39 got no result" in text
        assert "`pyrokernel ps`" in text
        assert "restart()" in text


def test_only_the_chunk_in_which_a_kernel_died_is_lost() -> None:
    with pk.local(2) as mesh:

        def die_at_5(x: int) -> int:
            import os

            return os._exit(1) if x == 5 else x

        results = mesh[:].map(die_at_5, range(20), chunk=1).results(check=False)
        assert isinstance(results.pop(5), pk.KernelDiedError)
        assert results == [*range(5), *range(6, 20)]


def test_a_job_on_restarted_kernels_says_so_once() -> None:
    with pk.local(2) as mesh:
        group = mesh[:]
        for kernel in group:
            old = kernel.instance
            os.kill(pid_of(kernel), signal.SIGKILL)
            wait_until(lambda name=kernel.name, old=old: mesh[name].instance != old)  # type: ignore[misc]  # bound now
        job = group.map(abs, range(8), chunk=4)
        assert job.wait(30)
        assert {type(result) for result in job.results(check=False)} <= {pk.KernelRestartedError, pk.KernelDiedError}
        wait_until(lambda: group.map(abs, range(8)).results(check=False) == list(range(8)))


def failing(kernel: pk.Kernel) -> dict[str, Callable[[], Any]]:
    """What a kernel can be asked, each of which fails once it has died."""
    return {
        "execute": lambda: kernel.execute("1"),
        "unchecked execute": lambda: kernel.execute("1", check=False),
        "call": lambda: kernel.call(abs, 1),
        "submit": lambda: kernel.submit("1"),
        "push": lambda: kernel.push(a=1),
        "pull": lambda: kernel.pull("a"),
        "scatter": lambda: kernel.scatter("a", [1]),
        "gather": lambda: kernel.gather("a"),
        "map": lambda: kernel.map(abs, [1]).results(),
        "interrupt": lambda: kernel.interrupt(),
        "variables": lambda: kernel.variables(),
        "cells": lambda: kernel.cells(),
        "cancel": lambda: kernel.cancel("0" * 32),
        "complete": lambda: kernel.complete("a"),
        "events": lambda: kernel.events(),
    }


def test_a_single_kernel_raises_its_own_error_whatever_it_is_asked() -> None:
    with pk.local([pk.KernelSpec(name="k0", restart="never"), pk.KernelSpec(name="other")]) as mesh:
        kernel = mesh["k0"]
        os.kill(pid_of(kernel), signal.SIGKILL)
        for what, ask in failing(kernel).items():
            with pytest.raises(pk.KernelConnectionError):
                pytest.fail(f"{what} did not fail: {ask()!r}")


def test_one_kernel_has_what_many_have(kernel: pk.Kernel) -> None:
    assert kernel.map(abs, [-2, -1]).results() == [2, 1]
    kernel.scatter("part", range(4))
    assert kernel.gather("part") == [0, 1, 2, 3]
    with pytest.raises(pk.RemoteError):
        kernel.map(lambda x: 1 // x, [0]).results()


def test_many_kernels_have_what_one_has(group: pk.Group) -> None:
    group.execute("marked = 1")
    assert all("marked" in {entry["name"] for entry in found} for found in group.variables().values())
    assert [found[-1]["source"] for found in group.cells().values()] == ["marked = 1"] * 3
    assert {len(found) for found in group.cells(1).values()} == {1}
    first = group.submit("import time; time.sleep(60)")
    behind = group.submit("went_on = True")
    wait_until(lambda: all(kernel.describe()["running"] for kernel in group))
    assert set(group.cancel(behind["k0"].id).values()) == {True}
    assert set(group.cancel(first["k0"].id).values()) == {False}
    group.interrupt()
    assert not any("went_on" in {entry["name"] for entry in found} for found in group.variables().values())


def test_a_function_where_source_is_meant_is_refused_with_the_way_to_do_it(group: pk.Group, kernel: pk.Kernel) -> None:
    for ask in (kernel.execute, kernel.submit, group.execute, group.submit):
        with pytest.raises(pk.SettingsError, match=r"not a function; call\(function"):
            ask(abs)
    with pytest.raises(pk.SettingsError, match="take a function"):
        group.map([1, 2], abs)  # type: ignore[arg-type]  # the wrong way round
    with pytest.raises(pk.SettingsError, match="at least 1"):
        group.map(abs, [1], chunk=0)


def test_a_group_is_chosen_from_a_group(group: pk.Group) -> None:
    assert group[[0, 2]].names == group["k0", "k2"].names == ["k0", "k2"]
    assert group[[2, "k0", -1]].names == ["k2", "k0"]
    assert len(group[[]]) == 0
    with pytest.raises(pk.KernelNotFoundError):
        group[["k0", "nobody"]]
    with pytest.raises(IndexError):
        group[[7]]


def test_the_cells_of_a_job_say_whose_they_are_and_count_as_one(kernel: pk.Kernel) -> None:
    kernel.execute("'before'")
    kernel.map(lambda n: 1 // (n - 3), range(10), chunk=2, shown="what I typed").wait()
    parts = kernel.cells(1)
    assert {(part["source"], part["client"], part["author"] != "") for part in parts} == {
        ("what I typed", kernel.mesh.client, True)
    }
    assert [(part["items"], part["failed"]) for part in parts] == [(2, 0), (2, 1), (2, 0), (2, 0), (2, 0)]
    (job,) = {part["job"] for part in parts}
    before, *same = kernel.cells(2)
    assert (before["source"], before["job"], before["client"]) == ("'before'", "", kernel.mesh.client)
    assert same == parts
    (started,) = (event for event in kernel.events(cell=parts[0]["cell"]) if event.kind == "started")
    assert (started.data["client"], started.data["job"]) == (kernel.mesh.client, job)
    kernel.map("abs", [1]).wait()
    assert [part["source"] for part in kernel.cells(1)] == ["map(abs, ...)"]


def test_an_ear_that_is_given_back_after_the_mesh_was_closed_is_closed() -> None:
    with pk.local(1) as mesh:
        link = mesh.host_of("k0")
        assert link is not None
        ear = mesh.lend_ear(link)
        with Fanout() as fanout:
            ear.listen(fanout, "deaths")
            assert ear.leave(fanout)
    connection = ear._connection
    mesh.return_ear(ear)
    assert connection is not None
    assert connection.sock.fileno() == -1
