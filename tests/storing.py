"""What every store of the shared state must do: one list of checks for all. Runs in the test process.

A test hands each check a function that opens the store anew, with what was in it when it was closed::

    @pytest.mark.parametrize("check", storing.CHECKS, ids=storing.name_of)
    def test_it_keeps_the_contract(check, tmp_path):
        check(lambda: MyStore(tmp_path))
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from pyrokernel.stores import Row, Store

Open = Callable[[], Store]
Check = Callable[[Open], None]

CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Add a check to the list."""
    CHECKS.append(function)
    return function


def name_of(each: Check) -> str:
    """Return how a check is called, for pytest."""
    return each.__name__


@contextlib.contextmanager
def opened(open_store: Open) -> Iterator[Store]:
    """Open a store, and close it."""
    store = open_store()
    try:
        yield store
    finally:
        store.close()


class Writer:
    """Writes rows as the engine does: numbered, each with what it follows."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def set(self, key: str, value: bytes = b"1", space: str = "", **fields: object) -> Row:
        """Write a value."""
        sizes = fields.pop("sizes", (len(value),))
        return self._append(space, key, "set", data=value, sizes=sizes, kind="bytes", type="bytes", **fields)

    def remove(self, key: str, space: str = "", op: str = "delete", **fields: object) -> Row:
        """Remove a key."""
        return self._append(space, key, op, **fields)

    def _append(self, space: str, key: str, op: str, **fields: object) -> Row:
        was = self.store.current(space, key)
        revision = self.store.revision() + 1
        row = Row(
            revision, space, key, op, author="ada", via="k0", at=1000.5 + revision,
            previous=was.revision if was else 0, version=was.version + 1 if was else 1,
            created=was.created if was and was.alive else revision,
            **fields,  # type: ignore[arg-type]
        )  # fmt: skip
        self.store.write(row)
        return row


@contextlib.contextmanager
def batch(store: Store) -> Iterator[Writer]:
    """Write, and commit."""
    store.begin()
    yield Writer(store)
    store.commit()


def both(open_store: Open, write: Callable[[Writer], None], look: Callable[[Store], None]) -> None:
    """Write something; look at it within the batch, after the commit, and after the store was opened anew."""
    with opened(open_store) as store:
        with batch(store) as writer:
            write(writer)
            look(store)
        look(store)
    with opened(open_store) as store:
        look(store)


def keys(rows: list[Row]) -> list[str]:
    """Return the keys of rows."""
    return [row.key for row in rows]


@check
def a_new_store_is_empty(open_store: Open) -> None:
    with opened(open_store) as store:
        assert (store.revision(), store.floor()) == (0, 0)
        assert store.current("", "x") is None
        assert store.row(1) is None
        assert store.scan("", "", None, 10) == store.changes(0, 10, "", "", 10) == []
        assert store.recent_requests(10) == store.filed() == store.leased() == []
        assert store.spaces() == []
        assert store.count("") == 0


@check
def it_keeps_its_id(open_store: Open) -> None:
    with opened(open_store) as store:
        first = store.id
    with opened(open_store) as store:
        assert store.id == first


@check
def a_row_comes_back_as_it_was_written(open_store: Open) -> None:
    row = Row(
        1, "lab", "fit", "set", "pickle", "Fit", 'Fit("ä", 3)', (3, 0, 4), b"\x00\xff\r\n123", "", "ada", "k1",
        1700000000.1234567, "lease", 0, 1, 1, 0, "request-1",
    )  # fmt: skip

    def look(store: Store) -> None:
        assert store.row(1) == store.current("lab", "fit") == row
        assert store.changes(0, 1, "lab", "", 10) == [row]
        bare = row._replace(data=b"")
        assert store.scan("lab", "", None, 10) == store.leased() == [bare]
        assert store.recent_requests(10) == [("request-1", 1)]
        assert store.revision() == 1

    both(open_store, lambda writer: writer.store.write(row), look)


@check
def what_was_rolled_back_never_was(open_store: Open) -> None:
    with opened(open_store) as store:
        with batch(store) as writer:
            writer.set("kept", b"1")
            writer.set("gone", b"", file="f1", sizes=(9,))
            writer.remove("gone")
        store.begin()
        writer = Writer(store)
        writer.set("kept", b"", lease="l", request="r", file="f2", sizes=(9,))
        writer.set("new", b"2", space="lab")
        store.drop_value(1)
        store.forget([2])
        store.forget_key("", "gone")
        store.set_floor(2)
        store.rollback()

        def look(store: Store) -> None:
            assert (store.revision(), store.floor()) == (3, 0)
            assert [row.data for row in store.changes(0, 9, "", "", 9)] == [b"1", b"", b""]
            assert store.spaces() == [""]
            assert store.count("") == 1
            assert store.count("lab") == 0
            assert keys(store.scan("", "", None, 9)) == ["kept"]
            assert store.leased() == store.recent_requests(9) == []
            assert [row.file for row in store.filed()] == ["f1"]
            found = store.current("", "gone")
            assert found is not None
            assert found.op == "delete"

        look(store)
        with batch(store) as writer:  # nothing of it comes along with the next commit
            writer.set("lab", b"3")
            writer.remove("lab")
            store.forget([4])
            store.forget_key("", "lab")
    with opened(open_store) as store:
        assert store.revision() == 5
        assert keys(store.scan("", "", None, 9)) == ["kept"]
        assert store.spaces() == [""]


@check
def a_batch_that_is_not_committed_is_lost_with_the_store(open_store: Open) -> None:
    with opened(open_store) as store:
        with batch(store) as writer:
            writer.set("x")
        store.begin()
        Writer(store).set("y")
        store.rollback()
    with opened(open_store) as store:
        assert store.revision() == 1


@check
def an_empty_batch_changes_nothing(open_store: Open) -> None:
    with opened(open_store) as store:
        with batch(store):
            pass
        store.begin()
        store.rollback()
        assert store.revision() == 0


@check
def keys_are_in_the_order_of_code_points(open_store: Open) -> None:
    names = ["", "A", "Z", "a", "a/b", "a0", "aa", "b", "é", "ż", "日本", "\uffff", "😀", "\U0010ffff"]

    def write(writer: Writer) -> None:
        for name in reversed(names):
            writer.set(name)

    def look(store: Store) -> None:
        assert keys(store.scan("", "", None, 100)) == names == sorted(names)
        for place, name in enumerate(names):
            assert keys(store.scan("", "", name, 100)) == names[place + 1 :]
            assert keys(store.scan("", name, None, 100)) == [one for one in names if one.startswith(name)]

    both(open_store, write, look)


@check
def a_listing_goes_on_where_the_last_one_ended(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        for number in range(25):
            writer.set(f"run/{number:02}")
        writer.set("run")
        writer.set("rum")
        writer.set("rup")
        writer.set("run/0", space="other")

    def look(store: Store) -> None:
        found: list[str] = []
        while page := store.scan("", "run/", found[-1] if found else None, 7):
            assert len(page) <= 7
            found += keys(page)
        assert found == [f"run/{number:02}" for number in range(25)]
        assert keys(store.scan("", "run/", "a", 2)) == ["run/00", "run/01"]
        assert store.scan("", "run/", "s", 2) == []

    both(open_store, write, look)


@check
def a_listing_within_a_batch_has_what_the_batch_changed(open_store: Open) -> None:
    with opened(open_store) as store:
        with batch(store) as writer:
            for name in "abcdefgh":
                writer.set(name)
        with batch(store) as writer:
            for name in "abc":
                writer.remove(name)
            writer.set("b", b"again")
            writer.set("dd")
            writer.remove("e")
            store.forget_key("", "e")
            assert keys(store.scan("", "", None, 4)) == ["b", "d", "dd", "f"]
            assert store.count("") == 6
        assert keys(store.scan("", "", None, 4)) == ["b", "d", "dd", "f"]
        assert store.count("") == 6


@check
def keys_that_are_gone_are_not_counted(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        for name in ("x", "y", "z"):
            writer.set(name, space="lab")
        writer.set("x", b"2", space="lab")
        writer.remove("y", space="lab")
        writer.remove("z", space="lab", op="expire")
        writer.set("z", space="lab")
        writer.set("only", space="left")
        writer.remove("only", space="left")

    def look(store: Store) -> None:
        assert store.count("lab") == 2
        assert store.count("left") == 0
        assert store.spaces() == ["lab"]

    both(open_store, write, look)


@check
def spaces_are_sorted(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        for space in ("~queue/lab/todo", "zoo", "", "lab", "é"):
            writer.set("x", space=space)

    both(open_store, write, lambda store: eq(store.spaces(), ["", "lab", "zoo", "~queue/lab/todo", "é"]))


def eq(found: object, wanted: object) -> None:
    assert found == wanted


@check
def changes_are_told_from_a_revision_on(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        for number in range(1, 11):
            writer.set("even" if number % 2 == 0 else "odd", str(number).encode(), space="" if number < 9 else "lab")

    def look(store: Store) -> None:
        def told(since: int, upto: int, prefix: str = "", limit: int = 100, space: str = "") -> list[int]:
            rows = store.changes(since, upto, space, prefix, limit)
            assert [int(row.data) for row in rows] == [row.revision for row in rows]
            return [row.revision for row in rows]

        assert told(0, 10) == list(range(1, 9))
        assert told(3, 6) == [4, 5, 6]
        assert told(0, 10, "ev") == [2, 4, 6, 8]
        assert told(2, 10, "odd", 2) == [3, 5]
        assert told(0, 10, space="lab") == [9, 10]
        assert told(8, 10) == told(10, 10) == told(0, 10, "none") == []

    both(open_store, write, look)


@check
def changes_have_what_is_committed_and_what_is_not(open_store: Open) -> None:
    with opened(open_store) as store:
        with batch(store) as writer:
            for name in ("a", "b", "c"):
                writer.set(name)
        with batch(store) as writer:
            writer.set("d")
            writer.remove("a")
            store.drop_value(2)
            store.forget([3])
            found = store.changes(0, store.revision(), "", "", 10)
            assert [(row.key, row.op, row.data) for row in found] == [
                ("a", "set", b"1"), ("b", "set", b""), ("d", "set", b"1"), ("a", "delete", b""),
            ]  # fmt: skip
            assert keys(store.changes(1, 4, "", "", 2)) == ["b", "d"]
            assert keys(store.changes(0, 9, "", "", 1)) == ["a"]
        assert store.changes(0, store.revision(), "", "", 10) == found


@check
def the_past_of_a_key_is_a_chain(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        for value in (b"1", b"2"):
            writer.set("x", value)
            writer.set("other", value)
        writer.remove("x")
        writer.set("x", b"3", restores=1)

    def look(store: Store) -> None:
        row = store.current("", "x")
        past: list[tuple[str, bytes, int, int]] = []
        while row is not None:
            past.append((row.op, row.data, row.version, row.created))
            row = store.row(row.previous) if row.previous else None
        assert past == [("set", b"3", 4, 6), ("delete", b"", 3, 1), ("set", b"2", 2, 1), ("set", b"1", 1, 1)]

    both(open_store, write, look)


@check
def a_removal_is_what_its_key_holds(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        writer.set("x")
        writer.remove("x")

    def look(store: Store) -> None:
        row = store.current("", "x")
        assert row is not None
        assert (row.op, row.alive, row.previous) == ("delete", False, 1)
        assert store.scan("", "", None, 10) == []

    both(open_store, write, look)


@check
def forgotten_rows_are_gone_and_the_newest_revision_stays(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        writer.set("x", request="r1", lease="l")
        writer.set("x", b"22", request="r2")
        writer.remove("x", request="r3")
        writer.set("y", b"", file="f", sizes=(10,))
        writer.set("y")
        writer.remove("y")
        store = writer.store
        store.forget([1, 2, 4, 5, 6, 6, 77])
        store.forget_key("", "y")
        store.forget_key("", "never")
        store.set_floor(6)

    def look(store: Store) -> None:
        assert (store.revision(), store.floor()) == (6, 6)
        assert [store.row(revision) is None for revision in range(1, 7)] == [True, True, False, True, True, True]
        assert store.current("", "y") is None
        removed = store.current("", "x")
        assert removed is not None
        assert removed.revision == 3
        assert keys(store.changes(0, 6, "", "", 10)) == ["x"]
        assert [request for request, _ in store.recent_requests(10)] == ["r3"]
        assert store.filed() == store.leased() == []

    both(open_store, write, look)


@check
def rows_of_earlier_batches_can_be_forgotten(open_store: Open) -> None:
    with opened(open_store) as store:
        with batch(store) as writer:
            writer.set("~lease", b"data", request="r1", lease="l", space="~lease")
            writer.set("x", b"", file="f", sizes=(7,))
            writer.set("x")
        with batch(store) as writer:
            store.forget([1, 2])
            writer.remove("~lease", space="~lease")
            store.forget_key("~lease", "~lease")
    with opened(open_store) as store:
        assert store.revision() == 4
        assert store.current("~lease", "~lease") is None
        assert store.filed() == store.leased() == store.recent_requests(10) == []
        assert store.row(1) is store.row(2) is None
        assert store.spaces() == [""]


@check
def a_forgotten_key_may_come_back(open_store: Open) -> None:
    with opened(open_store) as store:
        with batch(store) as writer:
            writer.set("x")
            writer.remove("x")
            store.forget([1, 2])
            store.forget_key("", "x")
            writer.set("x", b"new")
            assert store.count("") == 1
        with batch(store) as writer:
            writer.remove("x")
            store.forget_key("", "x")
            writer.set("x", b"newer")
            assert store.count("") == 1
    with opened(open_store) as store:
        row = store.current("", "x")
        assert row is not None
        assert (row.data, row.previous, row.version) == (b"newer", 0, 1)
        assert store.count("") == 1


@check
def a_value_can_be_forgotten_alone(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        writer.set("x", b"small")
        writer.set("x", b"", file="f", sizes=(100, 3))
        writer.set("x", b"now")
        writer.store.drop_value(1)
        writer.store.drop_value(2)
        writer.store.drop_value(99)

    def look(store: Store) -> None:
        for revision in (1, 2):
            row = store.row(revision)
            assert row is not None
            assert (row.sizes, row.data, row.file, row.type) == ((), b"", "", "bytes")
        assert store.filed() == []
        current = store.current("", "x")
        assert current is not None
        assert current.data == b"now"

    both(open_store, write, look)


@check
def files_are_known_as_long_as_their_rows(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        writer.set("a", b"", file="fa", sizes=(5,))
        writer.set("b", b"", file="fb", sizes=(6,))
        writer.set("a", b"1")

    both(open_store, write, lambda store: eq([row.file for row in store.filed()], ["fa", "fb"]))


@check
def leases_are_those_of_the_newest_rows(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        writer.set("first", lease="l1")
        writer.set("second", lease="l2")
        writer.set("third", lease="l1", space="~lock/")
        writer.set("fourth", lease="l1")
        writer.set("first", lease="l2")
        writer.set("second")
        writer.remove("fourth", op="expire", lease="")

    def look(store: Store) -> None:
        found = [(row.space, row.key, row.lease, row.data) for row in store.leased()]
        assert found == [("~lock/", "third", "l1", b""), ("", "first", "l2", b"")]

    both(open_store, write, look)
    with opened(open_store) as store, batch(store) as writer:
        writer.set("first")
        assert keys(store.leased()) == ["third"]


@check
def the_last_requests_are_known(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        for number in range(6):
            writer.set(f"k{number}", request=f"r{number // 2}")
            writer.set("without")

    def look(store: Store) -> None:
        found = [("r0", 1), ("r0", 3), ("r1", 5), ("r1", 7), ("r2", 9), ("r2", 11)]
        assert store.recent_requests(100) == found
        assert store.recent_requests(3) == found[-3:]

    both(open_store, write, look)


@check
def large_batches_are_kept_whole(open_store: Open) -> None:
    def write(writer: Writer) -> None:
        for number in range(2500):
            writer.set(f"key/{number:05}", b"x" * (number % 50), request="all")

    def look(store: Store) -> None:
        assert store.count("") == 2500
        assert len(store.scan("", "key/", None, 10_000)) == 2500
        assert [len(row.data) for row in store.changes(2000, 2500, "", "", 1000)] == [n % 50 for n in range(2000, 2500)]
        assert keys(store.changes(0, 2500, "", "key/02499", 10)) == ["key/02499"]

    both(open_store, write, look)
    with opened(open_store) as store:
        with batch(store):
            store.forget(range(1, 2001))
        assert len(store.changes(0, 2500, "", "", 10_000)) == 500


@check
def idling_and_closing_lose_nothing(open_store: Open) -> None:
    with opened(open_store) as store:
        for number in range(3):
            with batch(store) as writer:
                writer.set("x", str(number).encode())
            store.idle()
    with opened(open_store) as store:
        row = store.current("", "x")
        assert row is not None
        assert (row.data, row.version) == (b"2", 3)


@check
def it_says_how_it_is_backed_up(open_store: Open) -> None:
    with opened(open_store) as store:
        assert isinstance(store.backed_up_by, str)
