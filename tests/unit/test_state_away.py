"""The engine while its store is away: what is undone, and what is known when it is back. Runs in the test process."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrokernel.errors import StateStorageError
from pyrokernel.state.engine import Author, Engine
from pyrokernel.state.files import Files
from pyrokernel.state.sqlite import SQLiteStore
from pyrokernel.stores import Row

ADA = Author("ada")


class AwayStore(SQLiteStore):
    """One that can be away, as a database behind a network can."""

    away = False

    def _check(self) -> None:
        if self.away:
            raise StateStorageError(path=str(self._path), reason="away")

    def commit(self) -> None:
        self._check()
        super().commit()

    def current(self, space: str, key: str) -> Row | None:
        self._check()
        return super().current(space, key)

    def scan(self, space: str, prefix: str, after: str | None, limit: int) -> list[Row]:
        self._check()
        return super().scan(space, prefix, after, limit)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path) -> AwayStore:
    return AwayStore(tmp_path / "state.db")


@pytest.fixture
def engine(store: AwayStore, clock: Clock, tmp_path: Path) -> Engine:
    return Engine(store, Files(tmp_path), monotonic=clock)


def put(engine: Engine, key: str, value: bytes, **more: object) -> None:
    engine.write(
        "", [{"op": "set", "key": key, "parts": [value], **more}], [], Author("ada", request=f"{key}{value!r}")
    )


def fail_to_commit(engine: Engine, store: AwayStore) -> None:
    store.away = True
    with pytest.raises(StateStorageError):
        engine.commit()
    engine.rollback()


def test_what_could_not_be_committed_is_undone_once_the_store_is_back(engine: Engine, store: AwayStore) -> None:
    put(engine, "x", b"1")
    engine.commit()
    put(engine, "x", b"2")
    lease = engine.grant(5, ADA)
    fail_to_commit(engine, store)
    with pytest.raises(StateStorageError):
        engine.refresh()
    store.away = False
    engine.refresh()
    row = engine.get("", "x")
    assert row is not None
    assert row.data == b"1"
    assert engine.known("xb'1'") is not None
    assert engine.known("xb'2'") is None
    assert engine.remaining(lease) is None
    assert engine.revision == 1


def test_leases_get_their_whole_time_again_when_the_store_is_back(
    engine: Engine, store: AwayStore, clock: Clock
) -> None:
    """Nobody could renew them meanwhile."""
    lease = engine.grant(5, ADA)
    put(engine, "x", b"1", lease=lease)
    engine.commit()
    put(engine, "y", b"1")
    fail_to_commit(engine, store)
    clock.now += 100
    store.away = False
    engine.refresh()
    engine.expire()
    assert engine.remaining(lease) == 5
    assert engine.next_expiry() == clock.now + 5
    clock.now += 6
    engine.expire()
    engine.commit()
    assert engine.get("", "x") is None


def test_leases_keep_their_time_when_the_store_was_there(engine: Engine, clock: Clock) -> None:
    lease = engine.grant(5, ADA)
    engine.commit()
    clock.now += 3
    put(engine, "x", b"1")
    engine.rollback()
    engine.refresh()
    assert engine.remaining(lease) == 2


def test_a_store_that_goes_away_while_it_is_read_anew_leaves_what_was_known(
    engine: Engine, store: AwayStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = engine.grant(5, ADA)
    engine.commit()
    put(engine, "x", b"1")

    def go_away(limit: int) -> list[tuple[str, Row]]:
        raise StateStorageError(path="", reason="away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "recent_requests", go_away)
        engine.rollback()
    assert engine.remaining(lease) == 5
    engine.refresh()
    assert engine.known("xb'1'") is None
    assert engine.remaining(lease) == 5
