"""Jobs on kernels of different speed: what one has not begun others do, and nothing is ever done twice."""

from __future__ import annotations

import collections
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from served import PORTABLE
from waiting import wait_until

import pyrokernel as pk
from pyrokernel.client.calls import Exchange, gather, kernel_request
from pyrokernel.client.parcels import pack_arguments
from pyrokernel.messages import Death

NOTES = """
import os, time
def note(item):
    index, seconds, path, go = item
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{index} {os.getpid()}\\n".encode())
    os.close(fd)
    time.sleep(seconds)
    while go and not os.path.exists(go):
        time.sleep(0.001)
    return index
"""


def noted(path: Path) -> collections.Counter[int]:
    """How often each item was begun."""
    return collections.Counter(int(line.split()[0]) for line in path.read_text().splitlines())


@pytest.mark.parametrize("chunk", [None, 1, 4])
def test_no_item_runs_twice_whatever_is_stolen_and_whoever_dies(chunk: int | None, tmp_path: Path) -> None:
    dice = random.Random(11)
    path = tmp_path / "noted"
    items = [(n, dice.choice([0.0] * 30 + [0.002] * 10 + [0.1]), str(path), "") for n in range(600)]
    with pk.local(4) as mesh:
        mesh[:].execute(NOTES)
        ended = threading.Event()
        job = mesh[:].map("note", items, chunk=chunk)

        def kill() -> None:
            for name in ("k1", "k3"):
                wait_until(lambda after=100 if name == "k1" else 200: job.done or job.progress[0] > after)
                if not job.done:
                    os.kill(int(mesh[name].describe()["pid"]), signal.SIGKILL)
            ended.set()

        threading.Thread(target=kill, daemon=True).start()
        results = job.results(check=False)
        assert ended.wait(30)
        times = noted(path)
    assert max(times.values()) == 1
    for index, result in enumerate(results):
        if result == index:
            assert times[index] == 1
        else:
            assert isinstance(result, pk.KernelDiedError)
    # A death costs the chunk it came in, and no more; by TCP also answers that were on their way.
    done = sum(result == index for index, result in enumerate(results))
    assert done >= 600 - 2 * (chunk or 200) or PORTABLE


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_kernel_that_dies_in_something_else_costs_a_chunk_at_most(chunk: int, tmp_path: Path) -> None:
    """Whatever had been sent to it was lost: it had begun nothing of the job, and so nothing told what it died in."""
    path, go = tmp_path / "noted", tmp_path / "go"
    with pk.local(2) as mesh:
        mesh[:].execute(NOTES)
        quick = [(n, 0.0, str(path), "") for n in range(400)]
        mesh[:].map("note", quick, chunk=chunk).results()  # from now on many are sent ahead
        path.unlink()
        busy = mesh["k0"].submit("time.sleep(60)")
        wait_until(lambda: mesh["k0"].describe()["running"])
        job = mesh[:].map("note", [*quick[:-1], (399, 0.0, str(path), str(go))], chunk=chunk)
        wait_until(lambda: mesh["k0"].describe()["waiting"])
        os.kill(int(mesh["k0"].describe()["pid"]), signal.SIGKILL)
        go.touch()
        results = job.results(check=False)
        with pytest.raises(pk.KernelDiedError):
            busy.reply()
        times = noted(path)
    lost = [result for result in results if not isinstance(result, int)]
    # By TCP answers may be lost, so it is not known that nothing was begun: nothing is done twice, and all is told.
    assert len(lost) <= chunk or PORTABLE
    assert max(times.values()) == 1
    assert sum(times.values()) == 400 - len(lost)


def test_what_a_kernel_has_not_begun_of_its_chunk_is_done_by_others(group: pk.Group, tmp_path: Path) -> None:
    group.execute(NOTES)
    path, go = tmp_path / "noted", tmp_path / "go"
    quick = [(n, 0.0, str(path), "") for n in range(2000)]
    assert len(group.map("note", quick).results()) == 2000  # from now on chunks are large from the beginning
    path.unlink()
    job = group.map("note", [(0, 0.0, str(path), str(go)), *quick[1:]])
    wait_until(lambda: job.progress[0] == 1999)
    assert not job.ready(0)
    go.touch()
    assert job.results() == list(range(2000))
    assert set(noted(path).values()) == {1}


def test_chunks_of_a_chosen_size_stay_whole_and_those_that_wait_are_done_by_others(
    group: pk.Group, tmp_path: Path
) -> None:
    group.execute(NOTES)
    path, go = tmp_path / "noted", tmp_path / "go"
    job = group.map("note", [(n, 0.0, str(path), str(go) if n == 0 else "") for n in range(60)], chunk=5)
    wait_until(lambda: job.progress[0] == 55)
    assert not any(job.ready(n) for n in range(5))
    go.touch()
    assert job.results() == list(range(60))
    assert set(noted(path).values()) == {1}
    sizes = [part["items"] for parts in group.cells(1).values() for part in parts]
    assert set(sizes) == {5}


@pytest.mark.parametrize("chunk", [None, 1, 10])
def test_a_kernel_that_is_busy_with_something_else_holds_nothing_up(
    chunk: int | None, group: pk.Group, kernel: pk.Kernel, tmp_path: Path
) -> None:
    group.execute(NOTES)
    path, go = tmp_path / "noted", tmp_path / "go"
    busy = kernel.submit(f"while not os.path.exists({str(go)!r}): time.sleep(0.001)\n'free'")
    wait_until(lambda: kernel.describe()["running"])
    job = group.map("note", [(n, 0.0, str(path), "") for n in range(300)], chunk=chunk)
    assert job.results() == list(range(300))
    assert kernel.describe()["running"]["cell"] == busy.id
    go.touch()
    assert busy.reply(timeout=30).text == "'free'"
    assert kernel.execute("1 + 1").result == 2
    assert set(noted(path).values()) == {1}


def test_a_request_that_was_cancelled_unread_is_not_run_when_it_is_sent_again(kernel: pk.Kernel) -> None:
    kernel.execute("seen = []")
    cell = "c" * 32
    assert kernel.cancel(cell)
    packed = pack_arguments((["once"],), {})
    request = kernel_request("call", "seen.extend", packed, {"cell": cell}, cell=cell)
    for expected in (pk.CellCancelledError, pk.ResultExpiredError):
        _, errors, _ = gather(kernel.mesh, [kernel.link], request, kind="work", timeout=30)
        assert isinstance(errors[kernel.name], expected)
        assert not kernel.cancel(cell)
    assert kernel.execute("seen").result == []


def test_an_answer_that_nobody_has_read_yet_keeps_nobody_waiting_when_its_kernel_dies() -> None:
    """Where deaths were listened for, the rest of a dead kernel's answers was waited for, and nothing was read."""
    with pk.local(1) as mesh, Exchange(mesh, "work", blocking=False) as exchange:
        link = mesh["k0"].link
        exchange.send(link, kernel_request("execute", "0", {}), "greeting")
        assert next(exchange.answers())[1] == "greeting"
        exchange.send(link, kernel_request("execute", "6 * 7", {}), "unread")
        (connection,) = exchange._connections.values()
        wait_until(lambda: connection.has_input)
        exchange._listening_from = 0.0
        exchange._deaths.append(Death(kernel="k0", instance=link.instance, at=time.time()))
        ((_, token, reply, error),) = exchange.answers(time.monotonic() + 10)
    assert (token, reply["text"], error) == ("unread", "42", None)


def test_a_connection_whose_answers_nobody_took_is_closed(kernel: pk.Kernel) -> None:
    before = kernel.execute("0").execution_count
    exchange = Exchange(kernel.mesh, "work")
    for number in range(2):
        exchange.send(kernel.link, kernel_request("execute", str(number), {}), number)
    wait_until(lambda: kernel.describe()["execution_count"] == before + 2)
    assert next(exchange.answers())[1] == 0
    (connection,) = exchange._connections.values()
    exchange.close()
    assert connection.sock.fileno() == -1


def test_a_result_that_cannot_travel_costs_only_its_item(group: pk.Group) -> None:
    job = group.map(lambda x: __import__("threading").Lock() if x == 3 else x, range(6), chunk=6)
    results: list[Any] = job.results(check=False)
    assert results[:3] + results[4:] == [0, 1, 2, 4, 5]
    assert isinstance(results[3], pk.RemoteError)
    assert (results[3].index, results[3].ename) == (3, "NotSerializableError")
    assert "cannot pickle" in str(results[3])


def test_many_small_requests_that_wait_are_taken_back_together(group: pk.Group, tmp_path: Path) -> None:
    group.execute(NOTES)
    path, go = tmp_path / "noted", tmp_path / "go"
    items = [(n, 0.0, str(path), str(go) if n >= 200 else "") for n in range(1000)]
    job = group.map("note", items, chunk=1)
    wait_until(lambda: job.progress[0] == 200 and all(kernel.describe()["running"] for kernel in group))
    job.cancel()
    results = job.results(check=False)
    assert results[:200] == list(range(200))
    assert {type(result) for result in results[200:]} == {pk.CellCancelledError}
    assert len(noted(path)) == 203
    assert {reply.result for reply in group.execute("1", timeout=10).values()} == {1}


def test_a_kernel_that_was_busy_with_something_else_takes_part_in_what_is_added(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with pk.local(2) as mesh:
        mesh[:].execute(NOTES)
        busy = mesh["k1"].submit(f"note((0, 0.0, {str(tmp_path / 'busy')!r}, {str(go)!r}))")
        wait_until((tmp_path / "busy").exists)
        job = mesh[:].map("note", [(n, 0.0, str(tmp_path / "first"), "") for n in range(4)], retries=2)
        assert job.results() == [0, 1, 2, 3], "k0 alone"
        go.touch()
        assert busy.reply(timeout=10).status == "ok"
        mesh.stop(["k0"])
        job.add((4, 0.0, str(tmp_path / "second"), ""))
        assert job.wait(20)
        assert job.results() == [0, 1, 2, 3, 4]
