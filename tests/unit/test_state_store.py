"""What every store of the shared state promises; run over the database, and over the file in front of it."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrokernel.errors import StateCorruptError, StateStorageError
from pyrokernel.state import ahead as ahead_module
from pyrokernel.state.ahead import WriteAhead
from pyrokernel.state.sqlite import SQLiteStore, check_file, newest_revision
from pyrokernel.stores import Row, Store

Opener = Callable[[], Store]


class Shelf:
    """One store that can be closed and opened again.

    Args:
        directory: Where it is.
        kind: "database", "ahead" (the database lags behind), "given" (it has every commit at once), or "killed"
            (it lags behind, and nobody closes it in order).
    """

    def __init__(self, directory: Path, kind: str) -> None:
        self._directory, self._kind = directory, kind
        self.store = self._open()

    def _open(self) -> Store:
        database = SQLiteStore(self._directory / "state.db")
        return database if self._kind == "database" else WriteAhead(database, self._directory / "state.ahead")

    def reopen(self) -> Store:
        """End, and start again."""
        if self._kind == "killed":
            assert isinstance(self.store, WriteAhead)
            kill(self.store)
        else:
            self.store.close()
        self.store = self._open()
        return self.store

    def twice(self) -> Iterator[Store]:
        """Yield the store as it is, and once more after a new start."""
        yield self.store
        yield self.reopen()

    def write(self, *rows: Row) -> None:
        """Write rows, committed."""
        self.store.begin()
        for row in rows:
            self.store.write(row)
        self.store.commit()


def kill(store: WriteAhead) -> None:
    """End as SIGKILL does, as far as files can tell."""
    os.close(store._file)
    store._store.close()


@pytest.fixture(params=["database", "ahead", "given", "killed"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    if request.param == "given":
        monkeypatch.setattr(ahead_module, "_MAX_ROWS", 1)
    found = Shelf(tmp_path, request.param)
    yield found
    found.store.close()


def row(revision: int, key: str = "k", op: str = "set", **fields: object) -> Row:
    """Return a row of a key that is written for the first time, unless fields say otherwise."""
    values = {"created": revision, "kind": "str", "type": "str", "data": b"v", "sizes": (1,), "at": 1.5, **fields}
    return Row(revision=revision, space=str(values.pop("space", "")), key=key, op=op, **values)  # type: ignore[arg-type]


def keys(store: Store, prefix: str = "", after: str | None = None, limit: int = 100, space: str = "") -> list[str]:
    return [one.key for one in store.scan(space, prefix, after, limit)]


def test_a_row_comes_back_as_it_was_written(shelf: Shelf) -> None:
    written = row(
        1, "ключ", kind="plain", type="list", summary="[…]", sizes=(3, 0, 4), data=b"abc\0\xff\0d", file="f",
        author="a",
        via="k0", lease="l", previous=0, version=7, restores=-1, request="r",
    )  # fmt: skip
    shelf.write(written)
    for store in shelf.twice():
        assert store.row(1) == store.current("", "ключ") == written
        assert store.scan("", "", None, 9) == [written._replace(data=b"")]
        assert store.changes(0, 9, "", "", 9) == [written]


def test_an_empty_value_is_not_a_forgotten_one(shelf: Shelf) -> None:
    shelf.write(row(1, sizes=(0,), data=b""))
    for store in shelf.twice():
        assert store.current("", "k") == row(1, sizes=(0,), data=b"")


def test_the_newest_row_is_what_a_key_holds(shelf: Shelf) -> None:
    shelf.write(row(1), row(2, previous=1, version=2, created=1, data=b"w"))
    shelf.write(row(3, "other"))
    for store in shelf.twice():
        current = store.current("", "k")
        assert current is not None
        assert (current.revision, current.data) == (2, b"w")
        assert store.current("", "never") is None
        assert store.revision() == 3


def test_what_is_rolled_back_was_never_there(shelf: Shelf) -> None:
    shelf.write(row(1))
    shelf.store.begin()
    shelf.store.write(row(2, previous=1, created=1, version=2, data=b"w"))
    shelf.store.write(row(3, "new"))
    shelf.store.drop_value(1)
    shelf.store.forget([1])
    shelf.store.set_floor(2)
    shelf.store.rollback()
    for store in shelf.twice():
        assert (store.revision(), store.floor(), store.count(""), keys(store)) == (1, 0, 1, ["k"])
        assert store.row(1) == row(1)
        assert store.row(2) is None


def test_keys_are_listed_in_code_point_order_by_prefix_and_page(shelf: Shelf) -> None:
    names = ["", "a", "a/1", "a/2", "a\U0010ffff", "a\U0010ffff1", "b", "é", "\ud7ff", "\ue000", "\U0010ffff"]
    for revision, name in enumerate(random.Random(1).sample(names, len(names)), 1):
        shelf.write(row(revision, name))
    for store in shelf.twice():
        assert keys(store) == sorted(names)
        assert keys(store, "a/") == ["a/1", "a/2"]
        assert keys(store, "a\U0010ffff") == ["a\U0010ffff", "a\U0010ffff1"]
        assert keys(store, "\ud7ff") == ["\ud7ff"]
        assert keys(store, "\U0010ffff") == ["\U0010ffff"]
        pages: list[str] = []
        while page := keys(store, "a", pages[-1] if pages else None, 2):
            assert len(page) <= 2
            pages += page
        assert pages == sorted(name for name in names if name.startswith("a"))


def test_removed_keys_are_neither_listed_nor_counted(shelf: Shelf) -> None:
    shelf.write(row(1), row(2, "l"))
    shelf.write(row(3, op="delete", previous=1, created=1, version=2, sizes=(), data=b""))
    for store in shelf.twice():
        assert (keys(store), store.count("")) == (["l"], 1)
        current = store.current("", "k")
        assert current is not None
        assert not current.alive
    shelf.write(row(4, previous=3, version=3))
    assert (keys(shelf.store), shelf.store.count("")) == (["k", "l"], 2)


def test_spaces_are_apart(shelf: Shelf) -> None:
    shelf.write(row(1, space="a"), row(2, space="b"), row(3, space="~lock/"))
    for store in shelf.twice():
        assert store.spaces() == ["a", "b", "~lock/"]
        assert [keys(store, space=space) for space in ("a", "b", "")] == [["k"], ["k"], []]
        assert [one.revision for one in store.changes(0, 9, "b", "", 9)] == [2]
    shelf.write(row(4, op="delete", space="a", previous=1, created=1, version=2, sizes=(), data=b""))
    assert shelf.store.spaces() == ["b", "~lock/"]


def test_changes_are_a_window_of_the_log(shelf: Shelf) -> None:
    for revision in range(1, 21):
        shelf.write(row(revision, f"{'ab'[revision % 2]}{revision}"))
    for store in shelf.twice():
        seen = [one.revision for one in store.changes(4, 15, "", "a", 4)]
        assert seen == [6, 8, 10, 12]
        assert [one.revision for one in store.changes(12, 15, "", "a", 4)] == [14]
        assert store.changes(20, 20, "", "", 4) == []


def test_forgotten_rows_and_keys_are_gone(shelf: Shelf) -> None:
    shelf.write(row(1), row(2, op="delete", previous=1, created=1, version=2, sizes=(), data=b""), row(3, "l"))
    shelf.store.begin()
    shelf.store.forget([1, 2])
    shelf.store.forget_key("", "k")
    shelf.store.forget_key("", "l")  # lives, so it stays
    shelf.store.set_floor(3)
    shelf.store.commit()
    for store in shelf.twice():
        assert (store.row(1), store.row(2), store.current("", "k")) == (None, None, None)
        assert (store.revision(), store.floor()) == (3, 3)


def test_the_revision_goes_on_though_the_newest_row_is_forgotten(shelf: Shelf) -> None:
    shelf.write(row(1), row(2, "l"))
    shelf.store.begin()
    shelf.store.forget([1, 2])
    shelf.store.set_floor(2)
    shelf.store.commit()
    assert shelf.reopen().revision() == 2


def test_a_dropped_value_leaves_its_row(shelf: Shelf) -> None:
    shelf.write(row(1, file="f", data=b"", sizes=(9,)), row(2, previous=1, created=1, version=2))
    shelf.store.begin()
    shelf.store.drop_value(1)
    shelf.store.commit()
    for store in shelf.twice():
        assert store.row(1) == row(1, file="", data=b"", sizes=())
        assert store.filed() == []
        assert store.changes(0, 1, "", "", 9) == [row(1, file="", data=b"", sizes=())]


def test_rows_with_files_leases_and_requests_are_found(shelf: Shelf) -> None:
    shelf.write(row(1, "a", file="f1", data=b""), row(2, "b", lease="l1", request="r1"), row(3, "c", lease="l1"))
    shelf.write(
        row(4, "c", previous=3, created=3, version=2, request="r2"), row(5, "d", file="f2", data=b"", request="r2")
    )
    for store in shelf.twice():
        assert [one.file for one in store.filed()] == ["f1", "f2"]
        assert [(one.key, one.lease) for one in store.leased()] == [("b", "l1")]
        assert store.recent_requests(9) == [("r1", 2), ("r2", 4), ("r2", 5)]
        assert store.recent_requests(1) == [("r2", 5)]


def test_a_listing_in_the_middle_of_a_write_makes_nothing_last(shelf: Shelf) -> None:
    """Several requests share a commit; one that lists must not commit what the others wrote."""
    shelf.write(row(1))
    shelf.store.begin()
    shelf.store.write(row(2, "l", file="f", data=b"", lease="x", request="r"))
    assert keys(shelf.store) == ["k", "l"]
    assert (shelf.store.count(""), shelf.store.spaces()) == (2, [""])
    assert [one.revision for one in (*shelf.store.filed(), *shelf.store.leased())] == [2, 2]
    assert shelf.store.recent_requests(5) == [("r", 2)]
    shelf.store.rollback()
    for store in shelf.twice():
        assert (keys(store), store.count(""), store.revision()) == (["k"], 1, 1)


@pytest.mark.parametrize("seed", range(8))
def test_a_store_does_what_a_dict_would(shelf: Shelf, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random writes, removals, rollbacks and restarts, against a model."""
    monkeypatch.setattr(ahead_module, "_MAX_HIDING", 3)
    chance = random.Random(seed)
    newest: dict[tuple[str, str], Row] = {}
    log: dict[int, Row] = {}
    revision = 0
    for _ in range(120):
        draft, draft_log, draft_revision = dict(newest), dict(log), revision
        shelf.store.begin()
        for _ in range(chance.randrange(1, 4)):
            place = (chance.choice(["", "s"]), chance.choice("abcdef") + chance.choice(["", "/x"]))
            was = draft.get(place)
            draft_revision += 1
            op = "delete" if was is not None and was.alive and chance.random() < 0.4 else "set"
            written = Row(
                draft_revision, *place, op, data=b"v" * (op == "set"), sizes=(1,) if op == "set" else (), at=0.0,
                previous=was.revision if was else 0, version=was.version + 1 if was else 1,
                created=was.created if was is not None and was.alive else draft_revision,
            )  # fmt: skip
            shelf.store.write(written)
            draft[place] = draft_log[draft_revision] = written
        if chance.random() < 0.25:
            shelf.store.rollback()
        else:
            shelf.store.commit()
            newest, log, revision = draft, draft_log, draft_revision
        if chance.random() < 0.1:
            shelf.reopen()
        for space in ("", "s"):
            alive = sorted(key for (where, key), one in newest.items() if where == space and one.alive)
            assert (keys(shelf.store, space=space), shelf.store.count(space)) == (alive, len(alive))
            assert keys(shelf.store, "b", "b", 2, space) == [key for key in alive if key[0] == "b" and key > "b"][:2]
        since = chance.randrange(revision + 1)
        expected = [one for one in log.values() if one.revision > since and one.space == "s" and one.key[0] == "a"]
        assert shelf.store.changes(since, revision, "s", "a", 999) == expected
        assert shelf.store.revision() == revision


# The file of the database


def test_another_process_has_it(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    with pytest.raises(StateStorageError, match="only one service"):
        SQLiteStore(tmp_path / "state.db")
    store.close()


def test_a_file_gets_its_name_when_its_tables_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that is killed while it makes the file must not leave one that no other can read."""
    path = tmp_path / "state.db"
    (tmp_path / "state.db.new").write_bytes(b"half of one")
    seen: list[bool] = []
    rename = Path.rename

    def look(self: Path, target: Path) -> Path:
        seen.append(path.exists())
        assert check_file(self) == []
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look)
    SQLiteStore(path).close()
    assert seen == [False]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["state.db"]


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()


def other_format(path: Path) -> None:
    SQLiteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
        db.execute("PRAGMA journal_mode = DELETE")
    db.close()


def without_id(path: Path) -> None:
    SQLiteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM meta WHERE name = 'id'")
    db.close()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_text("Dear diary\n" * 1000), id="text"),
        pytest.param(lambda path: path.write_bytes(bytes(8192)), id="zeros"),
        pytest.param(foreign, id="foreign"),
        pytest.param(other_format, id="format"),
        pytest.param(without_id, id="meta"),
    ],
)
def test_what_is_no_file_of_ours_is_refused_and_left_as_it_is(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "state.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(StateCorruptError) as caught:
        SQLiteStore(path, newest_backup=lambda: "the backup")
    assert (caught.value.path, caught.value.backup) == (str(path), "the backup")
    assert path.read_bytes() == before


def damaged(path: Path, how: str) -> None:
    """Make a file of 2,000 keys, and spoil it."""
    store = SQLiteStore(path)
    store.begin()
    for revision in range(1, 2001):
        store.write(row(revision, f"key{revision}", data=b"x" * 100, sizes=(100,)))
    store.commit()
    store.close()
    data = path.read_bytes()
    assert len(data) > 40 * 4096
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.write_bytes(data[: 10 * 4096] + b"\xa5" * (len(data) - 12 * 4096) + data[-2 * 4096 :])


@pytest.mark.parametrize("how", ["truncated", "overwritten"])
def test_damage_is_said_where_it_is_met_and_then_nothing_is_written(tmp_path: Path, how: str) -> None:
    path = tmp_path / "state.db"
    damaged(path, how)
    before = path.read_bytes()
    with pytest.raises(StateCorruptError) as caught:  # noqa: PT012  where the damage is met depends on how it was done
        store = SQLiteStore(path, newest_backup=lambda: "the backup")
        for revision in range(1, 2001):
            store.row(revision)
    assert (caught.value.path, caught.value.backup) == (str(path), "the backup")
    if how == "overwritten":
        with pytest.raises(StateCorruptError):
            store.begin()
        store.close()
    assert path.read_bytes() == before
    (tmp_path / "copy").write_bytes(before)
    assert check_file(tmp_path / "copy") != []


def test_a_revision_that_no_column_can_hold_is_nobody_elses_error(tmp_path: Path) -> None:
    from pyrokernel.errors import ProtocolError

    store = SQLiteStore(tmp_path / "state.db")
    for wrong in (1 << 70, {}, object()):
        with pytest.raises(ProtocolError):
            store.row(wrong)  # type: ignore[arg-type]
    assert newest_revision(tmp_path / "none") == 0
    store.close()
