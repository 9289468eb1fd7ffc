"""Writes that are answered are in the file, whatever happens: a kill at any byte, a full disk at any step."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.errors import StateCorruptError, StateStorageError
from pyrokernel.state import ahead as ahead_module
from pyrokernel.state.ahead import WriteAhead
from pyrokernel.state.sqlite import SQLiteStore
from pyrokernel.stores import Row


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The database, and the file in front of it."""
    return tmp_path / "state.db", tmp_path / "state.ahead"


@pytest.fixture
def opened(places: tuple[Path, Path]) -> Iterator[Callable[[], WriteAhead]]:
    """Opens stores; closes them."""
    stores: list[WriteAhead] = []

    def open_store() -> WriteAhead:
        stores.append(WriteAhead(SQLiteStore(places[0]), places[1]))
        return stores[-1]

    yield open_store
    for store in stores:
        kill(store)


def kill(store: WriteAhead) -> None:
    """End as SIGKILL does, as far as files can tell; ended already is fine."""
    if store._file >= 0:
        os.close(store._file)
        store._file = -1
        store._store.close()


def put(store: WriteAhead, revision: int, key: str = "", data: bytes = b"v") -> None:
    """Write and commit."""
    store.begin()
    store.write(
        Row(revision, "", key or f"k{revision}", "set", "bytes", data=data, sizes=(len(data),), created=revision)
    )
    store.commit()


def held(store: WriteAhead) -> list[str]:
    return [row.key for row in store.scan("", "", None, 1000)]


def test_what_is_committed_is_found_after_a_kill(opened: Callable[[], WriteAhead]) -> None:
    store = opened()
    for revision in range(1, 6):
        put(store, revision)
    store.begin()
    store.write(Row(6, "", "never", "set"))
    kill(store)
    store = opened()
    assert held(store) == ["k1", "k2", "k3", "k4", "k5"]
    assert store.revision() == 5


def test_a_kill_at_any_byte_loses_only_what_was_not_answered(
    opened: Callable[[], WriteAhead], places: tuple[Path, Path]
) -> None:
    store = opened()
    ends = [0]
    for revision in range(1, 4):
        put(store, revision)
        ends.append(places[1].stat().st_size)
    kill(store)
    database, whole = places[0].read_bytes(), places[1].read_bytes()
    for size in range(len(whole) + 1):
        places[0].write_bytes(database)
        places[1].write_bytes(whole[:size])
        store = opened()
        assert store.revision() == sum(end <= size for end in ends[1:])
        put(store, store.revision() + 1, "after")
        kill(store)
        store = opened()
        assert "after" in held(store)
        kill(store)
        for name in ("state.db-wal", "state.db-shm"):
            (places[0].parent / name).unlink(missing_ok=True)


def test_a_kill_between_giving_and_emptying_does_nothing_twice(
    opened: Callable[[], WriteAhead], places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Least of all what forgets: the key that was removed and forgotten may have come back, and gone again, since."""
    store = opened()
    put(store, 1, "k")
    store.begin()
    store.write(Row(2, "", "k", "delete", previous=1, created=1, version=2))
    store.forget([1, 2])
    store.forget_key("", "k")
    store.commit()
    put(store, 3, "k")
    store.begin()
    store.write(Row(4, "", "k", "delete", previous=3, created=3, version=2))
    store.commit()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "ftruncate", killed)
    with pytest.raises(KeyboardInterrupt):
        store.idle()
    monkeypatch.undo()
    kill(store)
    assert places[1].stat().st_size > 0
    store = opened()
    current = store.current("", "k")
    assert current is not None
    assert (current.revision, store.count(""), store.revision()) == (4, 0, 4)
    assert places[1].stat().st_size == 0


def test_a_file_that_cannot_be_emptied_is_read_once(
    opened: Callable[[], WriteAhead], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    put(store, 1)

    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", fails)
        store.idle()
        put(store, 2)
        store.idle()
    put(store, 3)
    kill(store)
    store = opened()
    assert held(store) == ["k1", "k2", "k3"]
    assert store.count("") == 3


def full(_: object = None) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_write_that_finds_the_disk_full_leaves_no_trace(
    opened: Callable[[], WriteAhead], places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    put(store, 1)
    size = places[1].stat().st_size
    write = os.write
    for written in (lambda *_: full(), lambda file, data: write(file, data[: len(data) // 2])):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", written)
            with pytest.raises(StateStorageError, match="No space left"):
                put(store, 2)
        store.rollback()
        assert places[1].stat().st_size == size
        assert (held(store), store.revision()) == (["k1"], 1)
    put(store, 2)
    kill(store)
    assert held(opened()) == ["k1", "k2"]


def test_what_follows_half_a_record_is_read_again_or_not_written(
    opened: Callable[[], WriteAhead], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the half cannot be cut off, a record behind it would never be read: an answered write would be lost."""
    store = opened()
    put(store, 1)
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:5]))
        patch.setattr(os, "ftruncate", lambda *_: full())
        with pytest.raises(StateStorageError):
            put(store, 2)
        store.rollback()
        patch.setattr(os, "write", write)
        with pytest.raises(StateStorageError):
            put(store, 2)
        store.rollback()
    put(store, 2)
    kill(store)
    assert held(opened()) == ["k1", "k2"]


def test_a_database_that_cannot_be_written_holds_nobody_up_until_too_much_is_owed(
    opened: Callable[[], WriteAhead], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_module, "_MAX_ROWS", 5)
    monkeypatch.setattr(ahead_module, "_MAX_HIDING", 2)
    monkeypatch.setattr(ahead_module, "_MAX_OWED_BYTES", 20_000)
    store = opened()
    put(store, 1)

    def cannot() -> None:
        raise StateStorageError(path="p", reason="database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store._store, "commit", cannot)
        revision = 1
        with pytest.raises(StateStorageError, match="full"):  # noqa: PT012  which one fails is not known
            while True:
                put(store, revision + 1, data=b"x" * 500)
                revision += 1
        assert revision > 20
        store.rollback()
        assert len(held(store)) == store.count("") == store.revision() == revision
        store.idle()
    put(store, revision + 1)
    kill(store)
    assert len(held(opened())) == revision + 1


def test_a_service_starts_on_a_full_disk_and_gives_later(
    opened: Callable[[], WriteAhead], places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    put(store, 1)
    kill(store)

    def cannot(_: SQLiteStore) -> None:
        raise StateStorageError(path="p", reason="database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStore, "commit", cannot)
        store = opened()
        assert (held(store), store.revision()) == (["k1"], 1)
        assert places[1].stat().st_size > 0
    store.idle()
    assert places[1].stat().st_size == 0


def test_with_power_a_write_waits_for_the_disk(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    store = WriteAhead(SQLiteStore(places[0], power=True), places[1], power=True)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    put(store, 1)
    assert synced == [store._file]
    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(StateStorageError):
        put(store, 2)
    store.rollback()
    store.close()
    assert SQLiteStore(places[0]).revision() == 1


@pytest.mark.parametrize("where", ["mark", "length", "short length", "checksum", "middle", "last record"])
def test_damage_is_told_from_a_write_that_was_not_finished(
    opened: Callable[[], WriteAhead], places: tuple[Path, Path], where: str
) -> None:
    """Answered writes must not be lost without a word; and the file stays as it is."""
    store = opened()
    put(store, 1)
    first = places[1].stat().st_size
    put(store, 2)
    second = places[1].stat().st_size
    put(store, 3)
    kill(store)
    data = bytearray(places[1].read_bytes())
    spots = {"mark": first, "length": first + 4, "short length": first + 7, "checksum": first + 8, "middle": first + 30}
    spot = spots.get(where, len(data) - 5)
    data[spot] ^= 0x15
    assert first < second < len(data)
    places[1].write_bytes(data)
    with pytest.raises(StateCorruptError, match="not as they were written"):
        opened()
    assert places[1].read_bytes() == bytes(data)


def test_zeros_at_the_end_are_what_a_power_cut_leaves(
    opened: Callable[[], WriteAhead], places: tuple[Path, Path]
) -> None:
    store = opened()
    put(store, 1)
    kill(store)
    with places[1].open("ab") as stream:
        stream.write(bytes(5000))
    assert held(opened()) == ["k1"]


def test_a_hole_that_a_power_cut_left_is_told_to_watchers(
    opened: Callable[[], WriteAhead], places: tuple[Path, Path]
) -> None:
    store = opened()
    put(store, 1)
    store.idle()
    put(store, 2)
    store.idle()  # the file is empty, and begins anew
    put(store, 3)
    kill(store)
    ahead = places[1].read_bytes()
    places[1].unlink()
    places[0].unlink()
    for name in ("state.db-wal", "state.db-shm"):
        (places[0].parent / name).unlink(missing_ok=True)
    put(store := opened(), 1)
    kill(store)
    kill(opened())
    places[1].write_bytes(ahead)  # the disk has it, and not what the database was given before
    store = opened()
    assert (held(store), store.revision(), store.floor()) == (["k1", "k3"], 3, 2)
    kill(store)
    assert opened().floor() == 2
