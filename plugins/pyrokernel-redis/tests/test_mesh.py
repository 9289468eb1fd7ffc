"""The shared state of a mesh in Redis, with real processes, which are killed too. Runs in the test process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyrokernel as pk
import pytest
from pyrokernel.testing import assert_loaded
from waiting import wait_until

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def start(server: Any, **section: Any) -> pk.Mesh:
    plugins = {"redis": {"url": server.url, **section}}
    return pk.local(1, plugins_dir=str(ROOT), state_store="redis", plugins=plugins)


@pytest.fixture
def mesh(server: Any) -> Iterator[pk.Mesh]:
    with start(server) as found:
        yield found


def pid_of(mesh: pk.Mesh) -> int:
    return int(mesh.shared.describe()["pid"])


def answers(mesh: pk.Mesh) -> bool:
    try:
        mesh.shared.get("x")
    except pk.StateStorageError:
        return False
    return True


def test_what_users_do_works(mesh: pk.Mesh, server: Any) -> None:
    shared = mesh.shared
    assert_loaded(mesh, "redis")
    assert shared.describe()["kind"] == "redis"
    with shared.watch("run/") as watch:
        shared.m["run/1"] = {"a": [1, 2.5, None], "é": "ü"}
        change = watch.get(timeout=10)
        assert change is not None
        assert (change.key, change.value) == ("run/1", {"a": [1, 2.5, None], "é": "ü"})
    assert [shared.increment("n", 2) for _ in range(3)] == [2, 4, 6]
    assert mesh["k0"].execute("shared.m['n'] + 1").result == 7
    shared.set("n", "text")
    shared.undo("n")
    assert shared.get("n") == 6
    assert sorted(shared.keys()) == ["n", "run/1"]
    with shared.lock("stage") as token:
        assert [lock["token"] for lock in shared.locks()] == [token]
    assert shared.locks() == []
    queue = shared.queue("todo")
    queue.put("first")
    queue.put("second")
    assert [queue.get(timeout=1), queue.get(timeout=1), len(queue)] == ["first", "second", 0]
    del shared.m["n"]
    assert [change.op for change in shared.history("n")] == ["delete", "set", "set", "set", "set", "set"]
    shared.set("large", os.urandom(300_000))
    assert len(shared.get("large")) == 300_000
    assert server.client.hlen("pyrokernel:local:log") > 0


def test_conditions_hold_among_many_writers(mesh: pk.Mesh) -> None:
    shared = mesh.shared
    shared.set("n", 0)

    def add() -> None:
        for _ in range(50):
            shared.modify("n", lambda value: value + 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared.get("n") == 200


def test_the_service_may_be_killed(mesh: pk.Mesh) -> None:
    shared = mesh.shared
    shared.set("x", [1, 2])
    queue = shared.queue("todo")
    queue.put("job")
    with shared.lock("stage") as token:
        os.kill(pid_of(mesh), signal.SIGKILL)
        assert shared.get("x") == [1, 2]
        assert [lock["token"] for lock in shared.locks()] == [token]
    assert shared.increment("n") == 1
    assert queue.get(timeout=5) == "job"


def test_redis_may_be_killed(mesh: pk.Mesh, server: Any) -> None:
    shared = mesh.shared
    shared.set("x", 1)
    service = pid_of(mesh)
    server.kill()
    with pytest.raises(pk.StateStorageError, match=r"Redis is away.*nothing was changed"):
        shared.set("x", 2)
    with pytest.raises(pk.StateStorageError, match="Redis is away"):
        shared.get("unknown")
    server.start()
    wait_until(lambda: answers(mesh))
    assert pid_of(mesh) == service, "the service lived on"
    assert shared.get("x") == 1
    shared.set("x", 3)
    assert shared.get("x") == 3


def test_a_lock_outlives_a_redis_that_was_away(mesh: pk.Mesh, server: Any) -> None:
    shared = mesh.shared
    lock = shared.lock("stage", ttl=1.0)
    token = lock.acquire(timeout=5)
    server.kill()
    for _ in range(3):
        with pytest.raises(pk.StateStorageError):
            shared.set("x", 1)
    server.start()
    wait_until(lambda: answers(mesh))
    assert lock.check() == token
    lock.release()


def test_every_acknowledged_write_survives_both_being_killed(mesh: pk.Mesh, server: Any) -> None:
    """Each increment that was answered is there, once; what was not may be there, once."""
    shared = mesh.shared
    shared.set("n", 0)
    done: list[int] = []
    unsure = 0
    ended = threading.Event()

    def count() -> None:
        nonlocal unsure
        while not ended.is_set():
            try:
                done.append(int(shared.increment("n")))
            except pk.StateStorageError:
                continue  # nothing was changed, it says
            except pk.StateError:
                unsure += 1

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for turn in range(3):
            goal = len(done) + 20
            wait_until(lambda goal=goal: len(done) >= goal, timeout=20)  # type: ignore[misc]
            if turn != 1:
                server.kill()
                server.start()
            else:
                os.kill(pid_of(mesh), signal.SIGKILL)
        goal = len(done) + 20
        wait_until(lambda: len(done) >= goal, timeout=20)
    finally:
        ended.set()
        thread.join()
    assert len(set(done)) == len(done)
    assert done == sorted(done)
    assert len(done) <= shared.get("n") <= len(done) + unsure


def test_the_next_mesh_of_that_name_goes_on_with_it(server: Any) -> None:
    with start(server) as mesh:
        mesh.shared.set("x", 1)
        with start(server) as other, pytest.raises(pk.PyrokernelError, match="another service has it, process"):
            other.shared.get("x")
    with start(server) as mesh:
        assert mesh.shared.get("x") == 1
    with start(server, prefix="elsewhere:") as mesh:
        assert mesh.shared.get("x", None) is None


def test_a_backup_is_made_with_the_tools_of_redis(mesh: pk.Mesh) -> None:
    with pytest.raises(pk.StateError, match="BGSAVE"):
        mesh.shared.backup()


def test_a_redis_that_is_not_there_is_told_to_whoever_asks(tmp_path: Path) -> None:
    plugins = {"redis": {"url": f"unix://{tmp_path}/none.sock"}}
    with (
        pk.local(1, plugins_dir=str(ROOT), state_store="redis", plugins=plugins) as mesh,
        pytest.raises(pk.StateStorageError, match=r"none\.sock: Redis is away"),
    ):
        mesh.shared.get("x")
