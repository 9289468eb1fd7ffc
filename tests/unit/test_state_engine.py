"""The engine of the shared state: what each write does, what is undone, what is forgotten and what never is."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from state_rooms import ME, Room, asked, write_of

from pyrokernel.errors import (
    LockLostError,
    ProtocolError,
    PyrokernelError,
    StateCompactedError,
    StateConflictError,
    StateError,
    StateKeyError,
    StateStorageError,
    StateTypeError,
    StateValueError,
)
from pyrokernel.state import engine as engine_module
from pyrokernel.state.engine import Author, Limits, check_key

Start = Callable[..., Room]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes engines; closes them."""
    rooms: list[Room] = []

    def make(**limits: int) -> Room:
        rooms.append(Room(tmp_path / f"s{len(rooms)}", Limits(**limits)))
        return rooms[-1]

    yield make
    for room in rooms:
        room.close()


@pytest.fixture
def room(start: Start) -> Room:
    """An engine with the usual limits."""
    return start()


def revisions(room: Room, since: int = 0, prefix: str = "", space: str = "") -> list[int]:
    return [row.revision for row in room.engine.changes(space, prefix, since, 10_000)[0]]


# Writing


def test_a_write_has_revision_author_time_and_version(room: Room) -> None:
    room.set("a", 1)
    room.wall.now += 5
    row = room.set("a", 2, Author("you", "k0", "r"))
    assert (row.revision, row.version, row.created, row.previous) == (2, 2, 1, 1)
    assert (row.author, row.via, row.at) == ("you", "k0", 1_700_000_005.0)


def test_times_never_go_back_though_the_clock_does(room: Room) -> None:
    first = room.set("a", 1)
    room.wall.now -= 10_000_000
    second = room.set("a", 2)
    assert second.at == first.at
    room.restart()
    assert room.set("a", 3).at == first.at


def test_all_writes_of_a_request_are_done_or_none(room: Room) -> None:
    room.set("a", 1)
    with pytest.raises(StateKeyError):
        room.write(write_of("b", 1), {"op": "delete", "key": "gone"})
    with pytest.raises(StateConflictError) as caught:
        room.write(write_of("b", 1), conditions=[{"key": "a", "revision": 7}])
    assert (caught.value.expected, caught.value.actual, caught.value.author) == (7, 1, "me")
    assert (room.text("a"), room.text("b"), room.engine.revision) == ("1", None, 1)


def test_a_write_that_fails_halfway_says_so_and_is_undone_by_a_rollback(room: Room) -> None:
    """Two numbers that are added to the same key may be too much only together."""
    room.set("n", 2**4095)
    mark = room.engine.mark()
    with pytest.raises(StateTypeError, match="bits"):
        room.engine.write("", [write_of("b", 1), *[{"op": "increment", "key": "n", "amount": 2**4095}] * 2], (), ME)
    assert room.engine.mark() != mark
    room.engine.rollback()
    assert (room.text("b"), room.engine.revision, room.engine.mark()) == (None, 1, mark)


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), "a\0b", "\ud800", "x" * 4097])
def test_what_can_be_no_key_is_refused(key: Any) -> None:
    with pytest.raises(StateTypeError):
        check_key(key)


@pytest.mark.parametrize("key", ["", " ", "ключ", "a/b", "x" * 4096, "~lock/a", "\U0010ffff"])
def test_any_text_is_a_key(room: Room, key: str) -> None:
    room.set(key, 1)
    assert [row.key for row in room.store.scan("", "", None, 10)] == [key]


def test_a_value_of_two_gibibytes_is_refused_before_it_is_read(room: Room) -> None:
    write = {"op": "set", "key": "a", "kind": "bytes", "type": "bytes", "file": "staged-x", "sizes": [1 << 31]}
    with pytest.raises(StateValueError, match="at most 1073741824"):
        room.write(write)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "evil"},
        {"kind": None},
        {"kind": "int", "parts": [b"1e5"]},
        {"kind": "float", "parts": [b"one"]},
        {"file": "staged-none", "sizes": [1]},
        {"file": "../state.db", "sizes": [1]},
        {"file": "staged-/../../state.db", "sizes": [1]},
        {"file": "staged-x\0y", "sizes": [1]},
        {"file": "staged-x", "sizes": [-1]},
        {"file": "staged-x", "sizes": ["1"]},
        {"file": "staged-x", "sizes": []},
        {"lease": "no lease"},
    ],
)
def test_a_write_that_is_none_is_refused_before_the_others_are_begun(room: Room, wrong: dict[str, Any]) -> None:
    mark = room.engine.mark()
    with pytest.raises((ProtocolError, StateTypeError, LockLostError)):
        room.engine.write("", [write_of("a", 1), {**write_of("b", 1), **wrong}], (), ME)
    assert (room.engine.mark(), room.text("a")) == (mark, None)


def test_what_is_said_of_a_value_is_cut_and_never_keeps_it_from_being_stored(room: Room) -> None:
    room.set("a", 1, type="\ud800" * 5, summary="x" * 10_000)
    room.restart()
    row = room.engine.get("", "a")
    assert row is not None
    assert row.type == "?????"
    assert len(row.summary) == engine_module.MAX_TEXT


@pytest.mark.parametrize(
    ("before", "amount", "after"),
    [(1, 2, "3"), (1, 0.5, "1.5"), (0.5, 1, "1.5"), (2**200, 1, str(2**200 + 1)), (1.0, float("inf"), "inf")],
)
def test_a_number_is_incremented(room: Room, before: float, amount: float, after: str) -> None:
    room.set("n", before)
    room.write({"op": "increment", "key": "n", "amount": amount})
    assert room.text("n") == after


@pytest.mark.parametrize(
    ("before", "amount"),
    [("a", 1), (10**400, 0.5), (2**4095, 2**4095), (1, True), (1, "1"), (1, None), (1, 1j)],
    ids=["text", "huge", "longer", "bool", "amount-text", "amount-none", "complex"],
)
def test_what_cannot_be_added_is_an_error_and_changes_nothing(room: Room, before: Any, amount: Any) -> None:
    room.set("n", before)
    with pytest.raises(StateTypeError):
        room.write({"op": "increment", "key": "n", "amount": amount})
    room.engine.rollback()
    assert room.engine.revision == 1


# Requests that come again


def test_a_repeated_request_is_known_also_after_a_restart(room: Room) -> None:
    (first,) = room.engine.write("", [{"op": "increment", "key": "n", "amount": 5}], (), asked("r1"))
    room.commit()
    for _ in range(2):
        known = room.engine.known("r1")
        assert known is not None
        assert [(row.revision, row.data) for row in known] == [(first.revision, b"5")]
        room.restart()


def test_a_request_that_put_is_known_though_the_value_was_taken_in_the_same_commit(room: Room) -> None:
    """The answers to both may be lost; without this the value would be put, and got, twice."""
    put = room.engine.put("", "q", write_of("", 7), asked("put"))
    taken = room.engine.take("", "q", "", asked("take"))
    room.commit()
    for _ in range(2):
        known = room.engine.known("put")
        assert known is not None
        assert [row.revision for row in known] == [put.revision]
        again = room.engine.known("take")
        assert taken is not None
        assert again is not None
        assert (again[0].key, again[0].data) == (taken.key, b"7")
        room.restart()


@pytest.mark.parametrize("what", ["undo", "unlock", "done"])
def test_what_is_done_once_is_known_afterwards(room: Room, what: str) -> None:
    lease = room.engine.grant(10, ME)
    if what == "undo":
        room.set("a", 1)
        room.set("a", 2)
        room.engine.undo("", "a", None, asked("r"))
    elif what == "unlock":
        room.engine.lock("", "l", lease, ME)
        assert room.engine.unlock("", "l", lease, asked("r"))
    else:
        room.engine.put("", "q", write_of("", 7), ME)
        taken = room.engine.take("", "q", lease, ME)
        assert taken is not None
        assert room.engine.done("", "q", taken.key, lease, asked("r"))
    room.commit()
    assert room.engine.known("r") is not None
    room.restart()
    assert room.engine.known("r") is not None


def test_a_request_that_was_undone_is_not_known(room: Room) -> None:
    room.engine.write("", [write_of("a", 1)], (), asked("r"))
    room.engine.rollback()
    assert room.engine.known("r") is None
    assert room.engine.known("") is None


def test_a_request_whose_rows_are_forgotten_is_refused_not_repeated(start: Start) -> None:
    room = start(versions=1, changes=1)
    room.engine.write("", [write_of("a", 1)], (), asked("r"))
    room.commit()
    for value in range(5):
        room.set("a", value)
    room.prune()
    with pytest.raises(StateError, match="long ago"):
        room.engine.known("r")


def test_known_requests_take_bounded_memory(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "KEPT_REQUESTS", 10)
    for number in range(30):
        room.set("a", "x" * 1000, asked(f"r{number}"))
    assert room.engine.known("r5") is None
    assert room.engine.known("r29") is not None
    assert len(room.engine._recent) == 10


# Rollback


def everything(room: Room) -> dict[str, Any]:
    """Return all that an engine keeps in mind, and what it would answer."""
    engine = room.engine
    return {
        "revision": engine.revision,
        "keys": {space: [row.key for row in room.store.scan(space, "", None, 1000)] for space in ("", "~lock/")},
        "queue": [row.key for row in room.store.scan("~queue//q", "", None, 1000)],
        "leases": {name: (lease.deadline, set(lease.keys)) for name, lease in engine._leases.items()},
        "expiry": engine.next_expiry(),
        "recent": dict(engine._recent),
        "past": (dict(engine._past), engine._past_bytes),
        "values": {path.name for path in room.files.values.iterdir()},
        "counts": (room.store.count(""), room.store.count("~queue//q")),
        "log": revisions(room),
    }


@pytest.mark.parametrize("seed", range(12))
def test_a_rollback_leaves_everything_as_it_was(start: Start, seed: int) -> None:  # noqa: C901  one kind of write each
    """Also while the store answers nothing: a full or broken disk is the very reason to roll back."""
    chance = random.Random(seed)
    room = start(versions=3, changes=20, file_bytes=400_000)
    leases = [room.engine.grant(10 + n, ME) for n in range(3)]
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        engine, lease = room.engine, chance.choice(leases)
        key, author = chance.choice("abc"), asked(f"r{seed}-{done}")
        value = chance.choice([done, "x" * 100, b"y" * 100_000])
        choice = chance.randrange(10)
        try:
            if choice <= 2:
                more = {"lease": lease} if chance.random() < 0.3 else {}
                engine.write("", [{**write_of(key, value), **more}], (), author)
            elif choice == 3:
                engine.write("", [{"op": "delete", "key": key, "missing": True}], (), author)
            elif choice == 4:
                engine.put("", "q", write_of("", value), author)
            elif choice == 5:
                engine.take("", "q", chance.choice(["", lease]), author)
            elif choice == 6:
                engine.lock("", key, lease, author)
            elif choice == 7:
                engine.unlock("", key, "", author)
            elif choice == 8:
                engine.undo("", key, None, author)
            else:
                room.clock.now += 3
                engine.expire()
                leases.append(engine.grant(10, author))
        except (StateError, PyrokernelError):
            engine.rollback()

    for _ in range(60):
        step()
        room.commit()
    room.engine.written.clear()
    for _ in range(15):
        before, alive = everything(room), list(leases)
        for _ in range(chance.randrange(1, 6)):
            step()
        if chance.random() < 0.3:
            room.engine.prune(10)
        room.engine.rollback()
        leases[:] = alive
        assert everything(room) == before
    before = everything(room)
    room.restart()
    after = everything(room)
    for name in ("leases", "expiry"):  # they have their whole time anew
        del before[name], after[name]
    was, now = before.pop("recent"), after.pop("recent")
    assert after == before
    for request, revisions_of in was.items():
        # What wrote nothing may be done again, and so may the taking of what is back in its queue.
        if revisions_of and all(room.store.row(revision) for revision in revisions_of):
            assert now[request] == revisions_of


# Leases and locks


def test_a_key_goes_with_its_lease_and_a_new_value_sets_it_free(room: Room) -> None:
    lease = room.engine.grant(10, ME)
    room.set("a", 1, lease=lease)
    room.set("b", 1, lease=lease)
    room.set("b", 2)
    room.clock.now += 10
    room.engine.expire()
    room.commit()
    assert (room.text("a"), room.text("b")) == (None, "2")
    assert room.engine.history("", "a", 10)[0].op == "expire"


def test_a_lease_counts_on_the_monotonic_clock_only(room: Room) -> None:
    lease = room.engine.grant(10, ME)
    room.set("a", 1, lease=lease)
    room.wall.now += 10_000_000
    room.engine.expire()
    assert room.text("a") == "1"
    room.wall.now -= 20_000_000
    room.clock.now += 10
    room.engine.expire()
    assert room.text("a") is None


def test_a_lease_has_its_whole_time_anew_after_a_restart(room: Room) -> None:
    lease = room.engine.grant(10, ME)
    room.set("a", 1, lease=lease)
    room.clock.now += 9
    room.restart()
    assert room.engine.remaining(lease) == 10
    room.clock.now += 9
    room.engine.expire()
    assert room.text("a") == "1"


def test_the_next_expiry_is_exact_after_renewals(room: Room) -> None:
    first, second = room.engine.grant(10, ME), room.engine.grant(12, ME)
    room.clock.now += 5
    assert room.engine.renew(first)
    assert room.engine.next_expiry() == room.clock.now + 7
    room.engine.expire([second])
    assert room.engine.next_expiry() == room.clock.now + 10
    room.engine.expire([first])
    assert room.engine.next_expiry() == float("inf")


def test_leases_that_are_over_are_not_kept_in_mind(room: Room) -> None:
    for _ in range(3000):
        room.engine.expire([room.engine.grant(1_000_000, ME)])
    room.commit()
    assert len(room.engine._deadlines) <= 1001
    assert room.store.scan("~lease", "", None, 10) == []


def test_tokens_grow_from_owner_to_owner(room: Room) -> None:
    tokens = []
    for _ in range(5):
        lease = room.engine.grant(10, ME)
        other = room.engine.grant(10, ME)
        row = room.engine.lock("", "l", lease, ME)
        assert row is not None
        assert room.engine.lock("", "l", other, ME) is None
        again = room.engine.lock("", "l", lease, ME)
        assert again is not None
        assert again.revision == row.revision
        tokens.append(row.revision)
        room.engine.expire([lease])
        room.commit()
        room.restart()
    assert tokens == sorted(set(tokens))


def test_a_lease_that_is_over_gets_no_lock(room: Room) -> None:
    lease = room.engine.grant(10, ME)
    room.engine.expire([lease])
    with pytest.raises(LockLostError):
        room.engine.lock("", "l", lease, ME)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e10])
def test_a_lease_lasts_some_time(room: Room, ttl: float) -> None:
    with pytest.raises(StateTypeError):
        room.engine.grant(ttl, ME)


# Queues


def test_a_queue_is_in_order_and_what_is_not_done_comes_back_to_its_place(room: Room) -> None:
    lease = room.engine.grant(10, ME)
    for value in range(3):
        room.engine.put("", "q", write_of("", value), ME)
    first = room.engine.take("", "q", lease, ME)
    assert first is not None
    assert first.data == b"0"
    second = room.engine.take("", "q", "", ME)
    assert second is not None
    assert second.data == b"1"
    room.engine.expire([lease])
    room.commit()
    room.restart()
    taken = [room.engine.take("", "q", "", ME) for _ in range(3)]
    assert [row.data if row else None for row in taken] == [b"0", b"2", None]


def test_a_large_value_passes_a_queue_and_its_file_is_let_go(start: Start) -> None:
    room = start(changes=5, file_bytes=1)
    lease = room.engine.grant(10, ME)
    room.engine.put("", "q", write_of("", b"x" * 100_000), ME)
    taken = room.engine.take("", "q", lease, ME)
    assert taken is not None
    assert taken.file
    assert (room.files.values / taken.file).read_bytes()[:3] == b"xxx"
    assert room.engine.done("", "q", taken.key, lease, ME)
    room.commit()
    assert not any(room.files.values.iterdir())


def test_nothing_stays_of_queues_and_locks_that_were_used(start: Start) -> None:
    room = start(changes=10)
    for number in range(50):
        lease = room.engine.grant(10, ME)
        room.engine.put("", "q", write_of("", number), asked(f"p{number}"))
        row = room.engine.take("", "q", lease, asked(f"t{number}"))
        assert row is not None
        room.engine.lock("", "l", lease, asked(f"l{number}"))
        room.engine.done("", "q", row.key, lease, asked(f"d{number}"))
        room.engine.expire([lease])
        room.commit()
    for number in range(20):
        room.set("a", number)
    room.prune()
    room.restart()
    kept = [row for revision in range(1, room.engine.revision + 1) if (row := room.store.row(revision)) is not None]
    assert [row.key for row in kept if row.revision <= room.store.floor() and row.space] == []
    assert len([row for row in kept if row.space]) <= 10


# The past


def test_undo_goes_back_step_by_step_and_redoes_nothing(room: Room) -> None:
    for value in "abc":
        room.set("k", value)
    seen = []
    for _ in range(3):
        room.engine.undo("", "k", None, ME)
        room.commit()
        seen.append(room.text("k"))
    assert seen == ["b", "a", None]
    with pytest.raises(StateKeyError):
        room.engine.undo("", "k", None, ME)
    room.set("k", "d")
    room.engine.undo("", "k", None, ME)
    assert room.text("k") is None


def test_undo_write_undo(room: Room) -> None:
    for value in "abc":
        room.set("k", value)
    room.engine.undo("", "k", None, ME)
    room.engine.undo("", "k", None, ME)
    room.set("k", "d")
    room.engine.undo("", "k", None, ME)
    assert room.text("k") == "a"


def test_undo_of_a_removal_brings_the_value_back_file_and_all(room: Room) -> None:
    room.set("k", b"x" * 100_000)
    room.write({"op": "delete", "key": "k"})
    row = room.engine.undo("", "k", None, ME)
    room.commit()
    assert row is not None
    assert row.file
    assert (room.files.values / row.file).stat().st_size >= 100_000
    room.restart()
    assert (room.files.values / row.file).exists()


def test_undo_on_condition(room: Room) -> None:
    room.set("k", 1)
    room.set("k", 2)
    with pytest.raises(StateConflictError):
        room.engine.undo("", "k", 1, ME)
    with pytest.raises(StateKeyError):
        room.engine.undo("", "never", None, ME)
    room.engine.undo("", "k", 2, ME)
    assert room.text("k") == "1"


def test_history_is_bounded_and_rare_keys_keep_their_versions(start: Start) -> None:
    room = start(versions=3, changes=10)
    for value in range(5):
        room.set("rare", value)
    for value in range(200):
        room.set("busy", value)
    room.prune()
    assert [room.store.row(row.revision).data for row in room.engine.history("", "rare", 99)] == [b"4", b"3", b"2"]  # type: ignore[union-attr]
    assert len(room.engine.history("", "busy", 999)) == 10
    kept = [revision for revision in range(1, room.engine.revision + 1) if room.store.row(revision) is not None]
    assert len(kept) == 3 + 10
    for value in range(20):
        room.set("other", value)
    room.prune()
    assert len(room.engine.history("", "busy", 999)) == 3


def test_a_deleted_key_vanishes_once_it_is_old(start: Start) -> None:
    room = start(versions=3, changes=10)
    for value in range(4):
        room.set("gone", value)
    room.write({"op": "delete", "key": "gone"})
    assert len(room.engine.history("", "gone", 99)) == 5
    for value in range(30):
        room.set("other", value)
    room.prune()
    assert room.engine.history("", "gone", 99) == []
    assert room.store.current("", "gone") is None
    assert room.set("gone", 1).version == 1


def test_a_watch_from_a_forgotten_revision_is_told_so(start: Start) -> None:
    room = start(changes=10)
    for value in range(50):
        room.set("a", value)
    room.prune()
    assert room.store.floor() == 40
    with pytest.raises(StateCompactedError) as caught:
        room.engine.changes("", "", 39, 100)
    assert (caught.value.since, caught.value.floor) == (39, 40)
    assert revisions(room, 40) == list(range(41, 51))


def test_changes_come_in_pages_without_a_gap(room: Room) -> None:
    for number in range(95):
        room.set(f"{'ab'[number % 2]}{number}", number)
    seen, since = [], 0
    while True:
        rows, following = room.engine.changes("", "a", since, 10)
        seen += [row.revision for row in rows]
        if following == since:
            break
        since = following
    assert seen == list(range(1, 96, 2))


def test_large_values_of_the_past_are_bounded_and_only_those_that_are_there_count(start: Start) -> None:
    room = start(versions=2, changes=3, file_bytes=250_000)
    for number in range(10):
        room.set("a", bytes([number]) * 100_000)
    assert len(list(room.files.values.iterdir())) == 3
    assert room.engine._past_bytes == 200_000
    with pytest.raises(StateValueError, match="forgotten"):  # noqa: PT012  which one fails is not known
        for _ in range(5):
            room.engine.undo("", "a", None, ME)
    room.engine.rollback()
    for number in range(10):
        room.set("b", number)
    room.prune()
    assert room.engine._past_bytes == sum(size for _, size in room.engine._past.values()) == 100_000
    room.restart()
    assert room.engine._past_bytes == 100_000


def test_a_storage_error_in_the_middle_keeps_what_was_there(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.set("a", b"x" * 100_000, asked("first"))
    before = everything(room)

    def full(*_: object) -> None:
        raise StateStorageError(path="p", reason="No space left on device")

    for name in ("commit", "write"):
        with monkeypatch.context() as patch:
            patch.setattr(room.store, name, full)
            for value in (1, b"y" * 100_000):
                with pytest.raises(StateStorageError):
                    room.set("a", value, asked(f"{name}{value!r:.3}"))
                room.engine.rollback()
                assert everything(room) == before
    room.set("a", 2)
    assert room.text("a") == "2"
