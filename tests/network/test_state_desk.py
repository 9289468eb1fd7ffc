"""The desk of the shared state over sockets: who shares a commit, who is told of what, what strangers can do."""

from __future__ import annotations

import contextlib
import pickle
import random
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from state_rooms import DeskRoom, Room, answer, ask, options, send, wire_write
from waiting import wait_until

from pyrokernel.errors import (
    AccessRefusedError,
    LockLostError,
    ProtocolError,
    StateConflictError,
    StateError,
    StateStorageError,
    StateTypeError,
)
from pyrokernel.messages import STATE_OBJECT
from pyrokernel.roles import Role
from pyrokernel.state.engine import Limits
from pyrokernel.state.service import StateService
from pyrokernel.wire import codec
from pyrokernel.wire.connection import MSG_INVOKE, Connection, frame
from pyrokernel.wire.fanout import ConnectionLost, Request
from pyrokernel.wire.limits import PATIENCE_SECONDS, Quota

Start = Callable[..., DeskRoom]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes a desk that does not run yet: a test decides what arrives together; or another one on its room."""
    desks: list[DeskRoom] = []

    def make(room: Room | None = None, **limits: int) -> DeskRoom:
        made = room or Room(tmp_path / f"s{len(desks)}", Limits(**limits), monotonic=time.monotonic)
        desks.append(DeskRoom(made))
        return desks[-1]

    yield make
    for desk in desks:
        desk.close()
    for room in {id(desk.room): desk.room for desk in desks}.values():
        room.close()


@pytest.fixture
def desk(start: Start) -> Iterator[DeskRoom]:
    """A desk that runs."""
    with start().running() as found:
        yield found


def together(desk: DeskRoom, *requests: tuple[Connection, str, tuple[Any, ...]]) -> list[Any]:
    """Have requests read in one round, in the order of their connections; return answers or errors."""
    for connection, method, arguments in requests:
        send(connection, method, *arguments)
    desk.desk._take_arrivals()
    desk.desk._round()
    found: list[Any] = []
    for connection, _, _ in requests:
        try:
            found.append(answer(connection, 0.05))
        except TimeoutError:
            found.append(None)
        except (ProtocolError, StateConflictError, StateStorageError, StateTypeError) as error:
            found.append(error)
    return found


def set_to(key: str, value: Any) -> tuple[Any, ...]:
    return ("", [wire_write(key, value)], (), options())


def test_a_watch_that_begins_together_with_a_write_misses_nothing(start: Start) -> None:
    desk = start()
    watcher, writer = desk.connect(), desk.connect()
    began, _ = together(desk, (watcher, "watch", ("", "", 0, 10.0)), (writer, "write", set_to("a", 1)))
    assert began is not None
    told = [change["revision"] for change in began["changes"]]
    with desk.running():
        ask(writer, "write", *set_to("a", 2))
        following = ask(watcher, "watch", "", "", told[-1], 10.0)
        told += [change["revision"] for change in following["changes"]]
    assert told == [1, 2]


def test_a_watch_is_told_nothing_twice(start: Start) -> None:
    desk = start()
    writer, watcher = desk.connect(), desk.connect()
    together(desk, (writer, "write", set_to("a", 1)), (watcher, "watch", ("", "", 1, 10.0)))
    with desk.running():
        ask(writer, "write", *set_to("a", 2))
        assert [change["revision"] for change in answer(watcher)["changes"]] == [2]


def test_a_hundred_watchers_of_one_key_are_told_of_every_write(desk: DeskRoom) -> None:
    watchers = [desk.connect() for _ in range(100)]
    writer = desk.connect()
    for watcher in watchers:
        send(watcher, "watch", "", "k", 0, 10.0)
    wait_until(lambda: len(desk.desk._parked) == 100)
    ask(writer, "write", *set_to("other", 0))
    for value in range(3):
        revision = ask(writer, "write", *set_to("k", value))[0][0]
        for watcher in watchers:
            told = answer(watcher)
            assert [change["revision"] for change in told["changes"]] == [revision]
            send(watcher, "watch", "", "k", told["next"], 10.0)
        wait_until(lambda: len(desk.desk._parked) == 100)


def test_a_watcher_of_a_quiet_key_outlives_three_times_what_is_kept(start: Start) -> None:
    desk = start(changes=50, versions=2)
    watcher, writer = desk.connect(), desk.connect()
    with desk.running():
        send(watcher, "watch", "", "quiet", 0, 30.0)
        wait_until(lambda: len(desk.desk._parked) == 1)
        for value in range(150):
            ask(writer, "write", *set_to("busy", value))
        wait_until(lambda: desk.room.store.floor() == 100)
        revision = ask(writer, "write", *set_to("quiet", 1))[0][0]
        told = answer(watcher)
        assert [change["revision"] for change in told["changes"]] == [revision]
        # And when its time is over it goes on from now, not from where it began.
        send(watcher, "watch", "", "quiet", revision, 0.05)
        assert answer(watcher)["next"] == revision


def test_requests_of_one_round_fail_each_for_itself(start: Start) -> None:
    """One begins to write and fails; what the others wrote is there, once, and of that one nothing."""
    desk = start()
    desk.room.set("n", 2**4095)
    before, bad, after = (desk.connect() for _ in range(3))
    twice = [{"op": "increment", "key": "n", "amount": 2**4095}] * 2
    found = together(
        desk,
        (before, "write", ("", [{"op": "increment", "key": "a", "amount": 1}], (), {})),
        (bad, "write", ("", [wire_write("half", 1), *twice], (), {})),
        (after, "write", ("", [{"op": "increment", "key": "a", "amount": 1}], (), {})),
    )
    assert isinstance(found[1], StateTypeError)
    assert [found[0][0][2], found[2][0][2]] == ["1", "2"]
    assert (desk.room.text("a"), desk.room.text("half"), desk.room.text("n")) == ("2", None, str(2**4095))


def test_a_listing_between_writes_of_one_round_keeps_them_one_commit(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the commit: none of the writes is there, and none is done twice afterwards."""
    desk = start()
    first, lister, second = (desk.connect() for _ in range(3))
    increment = ("", [{"op": "increment", "key": "n", "amount": 1}], (), {})
    commit, failures = desk.room.store.commit, iter([True])

    def fails_once() -> None:
        if next(failures, False):
            raise StateStorageError(path="p", reason="No space left on device")
        commit()

    monkeypatch.setattr(desk.room.store, "commit", fails_once)
    found = together(desk, (first, "write", increment), (lister, "keys", ("",)), (second, "write", increment))
    assert [found[0][0][2], found[1], found[2][0][2]] == ["1", ["n"], "2"]
    assert desk.room.text("n") == "2"


@pytest.mark.parametrize("waits", ["take", "lock", "watch"])
def test_who_waited_for_what_was_undone_waits_on(start: Start, waits: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = start()
    mine = desk.room.engine.grant(100, desk_author())
    theirs = desk.room.engine.grant(100, desk_author())
    desk.room.engine.lock("", "l", theirs, desk_author())
    desk.room.commit()
    waiter, other = desk.connect(), desk.connect()
    asks = {
        "take": ("", "q", "", 30.0, options()),
        "lock": ("", "l", mine, 30.0, options()),
        "watch": ("", "k", 100, 30.0),
    }
    wakes = {"take": ("put", ("", "q", wire_write("", 7), options())), "lock": ("unlock", ("", "l", theirs, options())),
             "watch": ("write", set_to("k", 1))}  # fmt: skip
    assert together(desk, (waiter, waits, asks[waits])) == [None]
    method, arguments = wakes[waits]

    def full() -> None:
        raise StateStorageError(path="p", reason="No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(desk.room.store, "commit", full)
        (failed,) = together(desk, (other, method, arguments))
        assert isinstance(failed, StateStorageError)
    assert len(desk.desk._parked) == 1
    with desk.running():
        assert ask(other, method, *arguments)
        assert answer(waiter)


def desk_author() -> Any:
    from pyrokernel.state.engine import Author

    return Author("me")


@pytest.mark.parametrize("what", ["increment", "put", "take", "undo", "unlock", "done"])
def test_a_request_that_comes_again_is_done_once_whoever_died_between(start: Start, what: str) -> None:
    desk = start()
    author, engine = desk_author(), desk.room.engine
    lease = engine.grant(100, author)
    desk.room.set("n", 1)
    desk.room.set("n", 2)
    for value in (5, 6):
        engine.put("", "q", {**wire_write("", value), "parts": (str(value).encode(),)}, author)
    engine.lock("", "l", lease, author)
    number = engine.take("", "work", lease, author) if what == "done" else None
    if what == "done":
        engine.put("", "work", {**wire_write("", 1), "parts": (b"1",)}, author)
        number = engine.take("", "work", lease, author)
    desk.room.commit()
    again = options(f"again-{what}")
    method, arguments = {
        "increment": ("write", ("", [{"op": "increment", "key": "n", "amount": 5}], (), again)),
        "put": ("put", ("", "q", wire_write("", 9), again)),
        "take": ("take", ("", "q", "", 0.0, again)),
        "undo": ("undo", ("", "n", None, again)),
        "unlock": ("unlock", ("", "l", lease, again)),
        "done": ("done", ("", "work", number.key if number else "", lease, again)),
    }[what]
    (first,) = together(desk, (desk.connect(), method, arguments))
    assert first
    revision = engine.revision
    for _ in range(2):
        (second,) = together(desk, (desk.connect(), method, arguments))
        assert second == first
        assert desk.room.engine.revision == revision
        desk.room.restart()
        desk = start(desk.room)


# Leases and connections


def test_what_lives_by_a_connection_ends_with_it(desk: DeskRoom) -> None:
    holder, waiter = desk.connect(pid=1), desk.connect(pid=2)
    lease = ask(holder, "grant", 100.0, True, options())
    assert ask(holder, "lock", "", "l", lease, 0.0, options())
    mine = ask(waiter, "grant", 100.0, False, options())
    send(waiter, "lock", "", "l", mine, 30.0, options())
    wait_until(lambda: len(desk.desk._parked) == 1)
    holder.close()
    assert answer(waiter) > 0


def test_a_lease_ends_with_the_connection_that_renewed_it_last(desk: DeskRoom) -> None:
    """A client whose service was stopped for a while comes with a new connection, and gives up the old one after."""
    old, new = desk.connect(), desk.connect()
    lease = ask(old, "grant", 100.0, False, options())
    assert ask(old, "renew", [lease], [lease]) == []
    assert ask(new, "renew", [lease], [lease]) == []
    old.close()
    probe = desk.connect()
    wait_until(lambda: ask(probe, "ping") == "i" and desk.service._processes[1].connections == 2)
    assert ask(new, "renew", [lease], [lease]) == []
    new.close()
    wait_until(lambda: desk.service._processes[1].connections == 1)
    assert ask(probe, "renew", [lease]) == [lease]
    assert desk.service._owners == {}


def test_what_was_asked_on_a_connection_given_up_since_does_not_bind_a_lease_to_it_again(desk: DeskRoom) -> None:
    """A service that stood still reads what waits on both connections in any order."""
    old, new = desk.connect(), desk.connect()
    lease = ask(old, "grant", 100.0, False, options())
    assert ask(new, "renew", [lease], [lease], 2) == []
    assert ask(old, "renew", [lease], [lease], 1) == []
    old.close()
    wait_until(lambda: desk.service._processes[1].connections == 1)
    assert ask(new, "renew", [lease], [lease], 2) == []


def test_a_lock_that_was_asked_for_by_a_client_that_died_meanwhile_is_nobodys(desk: DeskRoom) -> None:
    keeper, asking, other = desk.connect(), desk.connect(), desk.connect()
    lease = ask(keeper, "grant", 100.0, True, options())
    mine = ask(other, "grant", 100.0, False, options())
    assert ask(other, "lock", "", "l", mine, 0.0, options())
    send(asking, "lock", "", "l", lease, 30.0, options())
    wait_until(lambda: len(desk.desk._parked) == 1)
    asking.close()
    keeper.close()
    wait_until(lambda: len(desk.desk._parked) == 0)
    assert ask(other, "unlock", "", "l", mine, options())
    assert ask(other, "locks", "") == []
    with pytest.raises(LockLostError):
        ask(other, "lock", "", "l", lease, 0.0, options())


def test_any_connection_of_a_process_may_use_the_file_that_another_one_was_handed(desk: DeskRoom) -> None:
    """Connections are shared by threads, and those above a few are closed when they are given back."""
    first, second, stranger = desk.connect(pid=7), desk.connect(pid=7), desk.connect(pid=8)
    handed = ask(first, "stage", 3)
    Path(handed["path"]).write_bytes(b"abc")
    first.close()
    wait_until(lambda: desk.service._processes[7].connections == 1)
    write = {"op": "set", "key": "a", "kind": "bytes", "type": "bytes", "file": handed["name"], "sizes": [3]}
    assert ask(second, "write", "", [write], (), options())
    lost = ask(second, "stage", 3)
    second.close()
    wait_until(lambda: not Path(lost["path"]).exists())
    assert 7 not in desk.service._processes
    assert ask(stranger, "get", "", "a")[1] == "bytes"


def test_large_values_are_answered_whole_to_those_far_away_though_they_are_replaced(desk: DeskRoom) -> None:
    near, far = desk.connect(), desk.connect(nearby=False)
    far.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    size = 8_000_000

    def store(letter: bytes) -> None:
        handed = ask(near, "stage", size)
        Path(handed["path"]).write_bytes(letter * size)
        write = {"op": "set", "key": "a", "kind": "bytes", "type": "bytes", "file": handed["name"], "sizes": [size]}
        ask(near, "write", "", [write], (), options())

    store(b"a")
    send(far, "get", "", "a")
    wait_for_unsent(desk)
    desk.room.engine.limits = Limits(file_bytes=0)
    for letter in (b"b", b"c", b"d"):
        store(letter)
    found = answer(far)
    assert bytes(found[4].data) == b"a" * size


# Strangers


def test_a_client_that_does_not_read_costs_one_answer(desk: DeskRoom) -> None:
    reader, writer = desk.connect(), desk.connect()
    ask(writer, "write", "", [wire_write(f"k{n}", "x" * 60_000) for n in range(100)], (), options())
    reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    send(reader, "items", "")
    client = wait_for_unsent(desk)
    held = sum(len(buffer) for buffer in client.unsent)
    assert 1_000_000 < held < 20_000_000
    send(reader, "items", "")
    wait_until(lambda: client.connection.sock.fileno() < 0)
    assert client.unsent == [] or ask(writer, "ping") == "i"
    with pytest.raises(ConnectionLost):  # noqa: PT012  the first answer may have arrived in whole
        answer(reader)
        answer(reader)


def wait_for_unsent(desk: DeskRoom) -> Any:
    """Return the client that has not taken its large answer."""
    found: list[Any] = []

    def look() -> bool:
        found[:] = [client for client in desk.clients() if sum(map(len, client.unsent)) > 100_000]
        return bool(found)

    wait_until(look)
    return found[0]


def test_requests_are_not_piled_up(desk: DeskRoom) -> None:
    """Else a client could fill the memory with them, and the time of the only thread."""
    connection = desk.connect()
    one = b"".join(bytes(part) for part in Request(STATE_OBJECT, "ping", ()).buffers)
    connection.sock.sendall(one * 50)
    with pytest.raises(ConnectionLost):
        ask(connection, "ping")
    assert ask(desk.connect(), "ping") == "i"


def test_a_head_that_promises_a_gibibyte_costs_nothing(desk: DeskRoom) -> None:
    head = bytes(frame(MSG_INVOKE, [b"x"])[0])[:40]
    connections = [desk.connect() for _ in range(50)]
    for connection in connections:
        connection.sock.sendall(head[:12] + struct.pack("!I", 1 << 30) + head[16:])
        connection.sock.sendall(b"only this")
    assert ask(desk.connect(), "ping") == "i"
    for connection in connections:
        connection.close()
    wait_until(lambda: sum(process.connections for process in desk.service._processes.values()) == 1)


METHODS = [name for name in dir(StateService) if getattr(getattr(StateService, name), "asked", False)]


def arbitrary(chance: random.Random, depth: int = 0) -> Any:
    """Return anything that a message can hold."""
    simple: list[Any] = [
        None, True, 0, 1, -1, 1 << 31, 1 << 63, 1 << 70, -(1 << 70), 10**400, 0.5, float("nan"), float("inf"), -1e308,
        "", "k", "q", "~lock/", "~lease", "../x", "a\0b", "\ud800", "é" * 5000,
        b"", b"k", b"\xff" * 100, 1j, (), [], {}, "int", "set",
        "increment", "delete", "clear", "staged-x", codec.Packed(b"x", [b"y"]), codec.Packed(b""), "0" * 20,
    ]  # fmt: skip
    if depth > 3 or chance.random() < 0.5:
        return chance.choice(simple)
    inner = [arbitrary(chance, depth + 1) for _ in range(chance.randrange(4))]
    names = ["op", "key", "kind", "type", "summary", "value", "file", "sizes", "lease", "amount", "initial",
             "prefix", "revision",
             "exists", "missing", "request", "via", "parts"]  # fmt: skip
    return chance.choice([inner, tuple(inner), {chance.choice(names): one for one in inner}])


def nearly_right(chance: random.Random, leases: list[str]) -> tuple[str, list[Any]]:
    """Return a request that could be one, with up to two things in it that are not."""
    key = chance.choice(["a", "b", "n", "l", "q"])
    write: dict[str, Any] = chance.choice([
        wire_write(key, chance.choice([1, 0.5, "x", [1], b"y" * 70_000, 2**4000])),
        {"op": "increment", "key": key, "amount": chance.choice([1, 0.5, 2**4000])},
        {"op": "delete", "key": key, "missing": True},
    ])  # fmt: skip
    lease, option = chance.choice(leases), options()
    condition = {"key": key, chance.choice(["revision", "exists"]): chance.choice([0, 1, True])}
    arguments: dict[str, list[Any]] = {
        "write": ["", [write, dict(write)][: chance.randrange(1, 3)], [condition][: chance.randrange(2)], option],
        "get": ["", key], "get_many": ["", [key, "x"]], "get_at": ["", key, chance.randrange(50)],
        "keys": ["", "", None, 5],
        "entries": ["", "a"], "items": ["", ""], "history": ["", key, 5], "undo": ["", key, None, option],
        "watch": ["", "", chance.randrange(50), 0.0], "grant": [5.0, False, option], "renew": [[lease], [lease]],
        "revoke": [lease], "lock": ["", key, lease, 0.0, option], "unlock": ["", key, lease, option], "locks": [""],
        "put": ["", "q", wire_write("", 1), option], "take": ["", "q", lease, 0.0, option], "length": ["", "q"],
        "done": ["", "q", "0" * 20, lease, option], "stage": [10], "count": [""], "revision_of": ["", key],
        "spaces": [], "ping": [], "describe": [],
    }  # fmt: skip
    method = chance.choice(METHODS)
    found = arguments[method]
    for _ in range(chance.randrange(3)):
        if found:
            place = chance.randrange(len(found))
            if isinstance(found[place], dict) and chance.random() < 0.7 and found[place]:
                found[place][chance.choice(list(found[place]))] = arbitrary(chance)
            elif isinstance(found[place], list) and found[place] and isinstance(found[place][0], dict):
                found[place][0][chance.choice(list(found[place][0]))] = arbitrary(chance)
            else:
                found[place] = arbitrary(chance)
    return method, found


def garbled(chance: random.Random) -> bytes:
    """Return bytes that look like a request, more or less."""
    request = Request(
        STATE_OBJECT, chance.choice([*METHODS, "", "leave", "__init__", "_space", "no"]), [arbitrary(chance)]
    )
    data = bytearray(b"".join(bytes(part) for part in request.buffers))
    for _ in range(chance.randrange(1, 6)):
        # Not the lengths in the head, else it is waited for what never comes; that has a test of its own.
        place = chance.choice([*range(12), *range(20, 104), *range(104, len(data))])
        data[min(place, len(data) - 1)] = chance.choice([0, 1, 0x80, 0xFF, chance.randrange(256)])
    return bytes(data)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(4))
def test_twenty_thousand_requests_that_are_none_end_nothing_and_spoil_nothing(start: Start, seed: int) -> None:
    """Garbage, unknown methods, arguments of all types; somebody else counts meanwhile and loses nothing."""
    chance = random.Random(seed)
    desk = start(changes=500, versions=3, file_bytes=1_000_000)
    with desk.running():
        counter, hostile = desk.connect(pid=1), desk.connect(pid=2)
        leases = [ask(hostile, "grant", 100.0, False, options()) for _ in range(2)]
        outcomes: dict[str, int] = {}
        for number in range(6000):
            kind = chance.choice(["any", "near", "near", "garbled"])
            try:
                if kind == "garbled":
                    hostile.sock.sendall(garbled(chance))
                    method, arguments = "ping", []
                elif kind == "near":
                    method, arguments = nearly_right(chance, leases)
                else:
                    method, arguments = chance.choice(METHODS), [arbitrary(chance) for _ in range(chance.randrange(6))]
                    arguments = [0.01 if isinstance(one, float) else one for one in arguments]
                ask(hostile, method, *arguments, timeout=0.5)
                outcome = "answered"
            except (ConnectionLost, TimeoutError, OSError):
                hostile.close()
                hostile = desk.connect(pid=2)
                outcome = "cut"
            except Exception as error:  # noqa: BLE001  counted, and looked at below
                outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if number % 50 == 0:
                row = ask(counter, "write", "mine", [{"op": "increment", "key": "n", "amount": 1}], (), options())
                assert row[0][2] == str(number // 50 + 1), f"seed {seed}, request {number}"
        assert desk.is_alive()
        assert outcomes["answered"] > 500
        assert outcomes["ProtocolError"] > 500
        assert outcomes.get("cut", 0) > 100
    desk.room.restart()
    assert desk.room.text("n", "mine") == "120"
    assert desk.room.store.count("mine") == 1


def test_a_pickle_in_a_message_is_not_loaded(desk: DeskRoom, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "mark"), "w")

    connection = desk.connect()
    stream = pickle.dumps((STATE_OBJECT, "ping", [Touch()], {}), 5)
    payload = struct.pack("!II", 0, len(stream)) + bytes(56) + stream
    send(connection, "ping")
    assert answer(connection) == "i"
    connection.send(frame(MSG_INVOKE, [payload], seq=connection.seq))
    with pytest.raises(ProtocolError, match="may not name"):
        answer(connection)
    assert not (tmp_path / "mark").exists()


def test_who_asks_too_often_is_told_after_a_moment_and_holds_nobody_up(tmp_path: Path) -> None:
    room = Room(tmp_path / "s", Limits(), monotonic=time.monotonic)
    limited = DeskRoom(room, Quota(user_requests=5))
    with contextlib.closing(room), contextlib.closing(limited), limited.running():
        ana, bob = (
            limited.connect(role=Role.USER, user=name, kind="user", address="10.0.0.9:7") for name in ("ana", "bob")
        )
        for _ in range(5):
            ask(ana, "ping")
        begun = time.monotonic()
        send(ana, "ping")
        assert ask(bob, "ping") == "i"
        assert time.monotonic() - begun < PATIENCE_SECONDS / 2
        with pytest.raises(AccessRefusedError, match="user_requests"):
            answer(ana)
        assert time.monotonic() - begun >= PATIENCE_SECONDS * 0.9
        assert ask(ana, "ping") == "i", "it has waited, and goes on"


def test_an_observer_asks_the_desk_in_plain_data_and_reads_only(tmp_path: Path) -> None:
    room = Room(tmp_path / "s", Limits(), monotonic=time.monotonic)
    desk = DeskRoom(room)
    with contextlib.closing(room), contextlib.closing(desk), desk.running():
        eve = desk.connect(role=Role.OBSERVER, user="eve", kind="user", address="10.0.0.9:7")
        with pytest.raises(AccessRefusedError, match="`write` of the shared state takes a user"):
            ask(eve, "write", *set_to("x", 1))
        with pytest.raises(ProtocolError, match="plain data"):
            ask(eve, "keys", "", codec.Packed.dump(1))
        assert ask(eve, "keys", "") == []
        with pytest.raises(ProtocolError, match="no method"):
            ask(eve, "stage_it", 5)


def test_what_an_observer_asks_for_that_is_not_there_stays_in_no_memory(tmp_path: Path) -> None:
    room = Room(tmp_path / "s", Limits(), monotonic=time.monotonic)
    desk = DeskRoom(room)
    with contextlib.closing(room), contextlib.closing(desk), desk.running():
        boss, eve = desk.connect(), desk.connect(role=Role.OBSERVER, user="eve", kind="user", address="10.0.0.9:7")
        ask(boss, "write", *set_to("x", 1))
        with pytest.raises(StateTypeError, match="at most"):
            ask(eve, "length", "", "x" * 100_000)
        tracemalloc.start()
        try:
            for number in range(9000):
                assert ask(boss, "length", "", f"{number:0>1000}") == 0
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < 7_000_000
        assert ask(eve, "count", "") == 1, "and what is there is counted anew"


def test_an_observer_gets_little_at_once_however_much_it_asks_for(tmp_path: Path) -> None:
    """Each of its connections may leave an answer unread, and that is kept meanwhile."""
    room = Room(tmp_path / "s", Limits(), monotonic=time.monotonic)
    desk = DeskRoom(room)
    with contextlib.closing(room), contextlib.closing(desk), desk.running():
        boss, eve = desk.connect(), desk.connect(role=Role.OBSERVER, user="eve", kind="user", address="10.0.0.9:7")
        names = [f"v{number:03}" for number in range(100)]
        for name in names:
            ask(boss, "write", *set_to(name, "x" * 50_000))
        with pytest.raises(StateError, match="ask for fewer"):
            ask(eve, "get_many", "", ["v000"] * 60_000)
        assert len(ask(eve, "get_many", "", names[:80])) == 80
        assert len(ask(boss, "get_many", "", names)) == 100
        assert [len(ask(one, "items", "", "", None, 100)) for one in (boss, eve)] == [100, 21]
        page = ask(eve, "watch", "", "", 0)
        assert len(page["changes"]) == 21
        assert len(ask(eve, "watch", "", "", page["next"])["changes"]) == 21, "the rest comes with the next"
