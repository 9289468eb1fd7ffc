"""A store that goes away and comes back, under a service that lives on. Runs in the test process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

import pyrokernel as pk

pytestmark = pytest.mark.slow

PLUGIN = """
import os

from pyrokernel import hookimpl
from pyrokernel.errors import StateStorageError
from pyrokernel.state.sqlite import SQLiteStore


class Away(SQLiteStore):
    backed_up_by = "copy the file"

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name in ("commit", "current", "row", "scan", "count", "changes", "leased") and os.path.exists(AWAY):
            raise StateStorageError(path="elsewhere", reason="it is away")
        return found


@hookimpl
def pyrokernel_open_store(directory):
    return Away(directory / "away.db")
"""


@pytest.fixture
def away(tmp_path: Path) -> Path:
    """A file: as long as it is there the store is not."""
    (tmp_path / "pyrokernel_away.py").write_text(PLUGIN.replace("AWAY", repr(str(tmp_path / "away"))))
    return tmp_path / "away"


@pytest.fixture
def mesh(away: Path) -> Iterator[pk.Mesh]:
    with pk.local(1, plugins_dir=str(away.parent), state_store="away") as found:
        yield found


def answers(mesh: pk.Mesh) -> bool:
    try:
        mesh.shared.get("never")
    except pk.StateStorageError:
        return False
    return True


def test_each_request_is_told_and_the_next_one_after_it_works(mesh: pk.Mesh, away: Path) -> None:
    shared = mesh.shared
    shared.set("x", 1)
    pid = shared.describe()["pid"]
    away.touch()
    for _ in range(3):
        with pytest.raises(pk.StateStorageError, match="elsewhere: it is away; nothing was changed"):
            shared.set("x", 2)
    away.unlink()
    wait_until(lambda: answers(mesh))
    assert shared.get("x") == 1
    assert shared.increment("x") == 2
    assert shared.describe()["pid"] == pid


def test_who_watches_meanwhile_misses_nothing(mesh: pk.Mesh, away: Path) -> None:
    shared = mesh.shared
    shared.set("x", 0)
    seen: list[int] = []

    def follow() -> None:
        while len(seen) < 3:
            try:
                change = watch.get(timeout=10)
            except pk.StateStorageError:
                continue  # the same watch goes on from where it was
            assert change is not None
            seen.append(change.value)

    with shared.watch("x") as watch:
        thread = threading.Thread(target=follow)
        thread.start()
        shared.set("x", 1)
        away.touch()
        with pytest.raises(pk.StateStorageError):
            shared.set("x", 99)
        away.unlink()
        wait_until(lambda: answers(mesh))
        shared.set("x", 2)
        shared.set("x", 3)
        thread.join(20)
    assert seen == [1, 2, 3]


def test_a_lock_is_held_on(mesh: pk.Mesh, away: Path) -> None:
    shared = mesh.shared
    lock = shared.lock("stage", ttl=2.0)
    token = lock.acquire(timeout=5)
    away.touch()
    with pytest.raises(pk.StateStorageError):
        shared.set("x", 1)
    away.unlink()
    wait_until(lambda: answers(mesh))
    assert lock.check() == token
    lock.release()
    assert shared.locks() == []


def test_a_plugin_that_brings_no_store_is_told_to_whoever_asks(tmp_path: Path) -> None:
    (tmp_path / "pyrokernel_none.py").write_text("")
    with (
        pk.local(1, plugins_dir=str(tmp_path), state_store="none") as mesh,
        pytest.raises(
            pk.StateStorageError, match=r"'none' .setting state_store.: plugin 'none' brings no store.*sqlite"
        ),
    ):
        mesh.shared.get("x")
