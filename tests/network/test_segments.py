"""Large data in shared memory: what a receiver reads stays as it was sent, and nothing is left behind."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from served import OBJECT, Service
from waiting import wait_until

from pyrokernel.errors import ProtocolError
from pyrokernel.roles import Role
from pyrokernel.wire import arrivals, codec, segments, spare
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.connection import MSG_INVOKE, Connection, EagerReader, frame
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.fanout import Fanout, Request
from pyrokernel.wire.proxy import connect
from pyrokernel.wire.trust import Peer

numpy = pytest.importorskip("numpy")
pytestmark = pytest.mark.skipif(not segments.available(), reason="this system has no segments")

US = Peer(uid=os.getuid(), pid=os.getpid(), role=Role.ADMIN)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test: once what was kept for next time is given back, no descriptor of a segment is left."""
    spare.tidy(time.monotonic())
    before = memfds()  # tests of other modules may have left values in cycles
    yield
    spare.tidy(time.monotonic())
    assert set(memfds()) <= set(before)


def memfds() -> list[str]:
    """Return the descriptors of segments that this process has."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing itself
            continue
        if target.startswith("/memfd:pyrokernel"):
            found.append(name)
    return found


def pair(*, first: bool = True, second: bool = True) -> tuple[Connection, Connection]:
    """Two connected connections, which take segments or not."""
    ends = tuple(Connection(sock, US) for sock in socket.socketpair())
    for end, takes in zip(ends, (first, second), strict=True):
        if takes:
            end.take_segments()
    return ends


def message(value: Any, sender: Connection) -> list[Any]:
    return frame(MSG_INVOKE, codec.encode([Packed.dump(value)], sender.freight), seq=1)


def large(seed: int = 0, size: int = 300_000) -> Any:
    return numpy.random.default_rng(seed).random(size)


def test_an_array_arrives_writable_and_its_sender_sees_nothing_of_what_is_written() -> None:
    sender, receiver = pair()
    sent = large()
    before = sent.copy()
    sender.send(message({"x": sent, "small": numpy.ones(3)}, sender))
    got = receiver.recv_message()
    assert got.size < 1000, "the array is not in the message"
    (packed,) = got.decode()
    values = packed.load()
    assert numpy.array_equal(values["x"], before)
    assert values["x"].flags.aligned
    values["x"][:] = 0
    assert numpy.array_equal(sent, before)
    assert numpy.array_equal(values["small"], numpy.ones(3))
    sender.close()
    receiver.close()
    assert not values["x"].any(), "it outlives the connection"


def test_what_a_receiver_still_has_is_not_written_over() -> None:
    sender, receiver = pair()
    held = []
    for seed in range(5):
        sender.send(message(large(seed), sender))
        held.append(receiver.recv_message().decode()[0].load())
    for seed, found in enumerate(held):
        assert numpy.array_equal(found, large(seed)), seed
    sender.close()
    receiver.close()


def test_memory_is_used_again_once_all_let_go_of_it() -> None:
    sender, receiver = pair()
    for seed in range(20):
        sender.send(message(large(seed), sender))
        found = receiver.recv_message().decode()[0].load()
        assert numpy.array_equal(found, large(seed))
        if seed % 3 == 1:
            found[::4096] = -1  # the pages it was given are the receiver's own now, and must not be shown again
        del found
    assert len(spare.ours(segments._Pool)._segments) == 1
    sender.close()
    receiver.close()


def exchange(sent: Any) -> Any:
    """Return an array as it arrives at the other end of a connection."""
    sender, receiver = pair()
    sender.send(message(sent, sender))
    found = receiver.recv_message().decode()[0].load()
    sender.close()
    receiver.close()
    return found


def test_whether_a_large_map_is_clean_is_found_out_before_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, look = [], arrivals._Map._shows_segment

    def note(found: Any) -> bool:
        looked.append(threading.current_thread().name)
        return look(found)

    monkeypatch.setattr(arrivals._Map, "_shows_segment", note)
    for round_ in range(1, 4):
        sent = large(round_, 3_000_000)
        assert numpy.array_equal(exchange(sent), sent)
        wait_until(lambda: len(looked) == round_)  # noqa: B023  used at once
    assert set(looked) == {"pyrokernel-spare"}
    written = exchange(sent)
    written[-1] = 0
    del written
    wait_until(lambda: not spare.ours(arrivals._Maps)._maps)  # it would not be shown again, so it goes at once


def test_what_is_written_while_somebody_looks_at_a_map_is_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange(large(1))
    (kept,) = spare.ours(arrivals._Maps)._maps.values()
    look = arrivals._Map._shows_segment

    def look_slowly(found: Any) -> bool:
        monkeypatch.undo()
        clean = look(found)
        again = exchange(large(2))
        again[:] = 0
        return clean

    monkeypatch.setattr(arrivals._Map, "_shows_segment", look_slowly)
    assert kept.is_clean(), "before it was given out again"
    assert numpy.array_equal(exchange(large(3)), large(3))


def test_a_view_of_a_small_part_keeps_all_of_it_from_being_used_again() -> None:
    sender, receiver = pair()
    sender.send(message(large(1), sender))
    part = receiver.recv_message().decode()[0].load()[-3:]
    for seed in range(2, 5):
        sender.send(message(large(seed), sender))
        receiver.recv_message().decode()[0].load()
    assert numpy.array_equal(part, large(1)[-3:])
    sender.close()
    receiver.close()


def test_what_waits_unread_is_not_written_over_even_when_its_sender_has_given_up() -> None:
    sender, receiver = pair()
    sender.send(message(large(1), sender))
    sender.close()
    other, reading = pair()
    for seed in range(2, 5):
        other.send(message(large(seed), other))
        reading.recv_message()
    assert numpy.array_equal(receiver.recv_message().decode()[0].load(), large(1))
    for connection in (receiver, other, reading):
        connection.close()


def test_a_forked_child_keeps_what_it_inherited() -> None:
    sender, receiver = pair()
    sender.send(message(large(1), sender))
    found = receiver.recv_message().decode()[0].load()
    go, ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        for descriptor in map(int, memfds()):
            os.close(descriptor)  # as a process that becomes a daemon does; what is mapped stays
        os.read(go, 1)
        os._exit(0 if numpy.array_equal(found, large(1)) else 1)
    os.close(go)
    del found
    for seed in range(2, 6):
        sender.send(message(large(seed), sender))
        receiver.recv_message().decode()[0].load()
    os.close(ready)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sender.close()
    receiver.close()


def test_a_receiver_that_stops_reading_gets_few_segments() -> None:
    sender, receiver = pair()
    sender.send(message(large(), sender))
    assert sender.freight() is None, "the rest goes through the socket, which is bounded"
    receiver.recv_message()
    assert sender.freight() is not None
    others = [pair() for _ in range(12)]
    for one, _ in others:
        one.sock.sendall(b"unread")
    assert sum(one.freight() is not None for one, _ in others) < 12
    for connection in (sender, receiver, *(end for ends in others for end in ends)):
        connection.close()


def test_a_message_with_a_segment_is_refused_where_none_was_asked_for() -> None:
    sender, receiver = pair(second=False)
    sender.send(message(large(), sender))
    with pytest.raises(ProtocolError, match="did not ask"):
        receiver.recv_message()
    sender.close()
    receiver.close()


@pytest.mark.parametrize("count", [0, 2, 5])
def test_no_descriptor_or_too_many_are_refused_and_closed(count: int) -> None:
    sender, receiver = pair()
    header, *body = message(large(), sender)
    open_before = len(os.listdir("/proc/self/fd"))
    sender.sock.sendall(header)
    socket.send_fds(sender.sock, [b"".join(body)], [0] * count)
    with pytest.raises(ProtocolError):
        receiver.recv_message()
    del header, body
    receiver.reader = EagerReader()
    assert len(os.listdir("/proc/self/fd")) <= open_before
    sender.close()
    receiver.close()


def test_descriptors_that_nobody_announced_are_dropped() -> None:
    sender, receiver = pair()
    parts = b"".join(bytes(part) for part in frame(MSG_INVOKE, codec.encode(["x" * 5000]), seq=1))
    open_before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(sender.sock, [parts[:40]], [0])
    socket.send_fds(sender.sock, [parts[40:]], [0, 1])
    assert receiver.recv_message().decode() == ["x" * 5000]
    assert len(os.listdir("/proc/self/fd")) == open_before
    sender.close()
    receiver.close()


def _not_sealed() -> int:
    descriptor = os.memfd_create("pyrokernel", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1 << 22)
    return descriptor


def _too_short() -> int:
    descriptor = os.memfd_create("pyrokernel", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1 << 20)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor


@pytest.mark.parametrize("make", [_not_sealed, _too_short, lambda: os.open("/dev/null", os.O_RDONLY)])
def test_what_could_end_the_reader_is_not_mapped(make: Any) -> None:
    sender, receiver = pair()
    header, *body = message(large(), sender)
    descriptor = make()
    sender.sock.sendall(header)
    socket.send_fds(sender.sock, [b"".join(body)], [descriptor])
    os.close(descriptor)
    got = receiver.recv_message()
    with pytest.raises(ProtocolError, match="segment"):
        got.decode()
    del header, body, got
    sender.close()
    receiver.close()


def test_an_eager_reader_refuses_segments() -> None:
    sender, receiver = pair()
    receiver.reader = EagerReader()
    sender.send(message(large(), sender))
    with pytest.raises(ProtocolError, match="did not ask"):
        receiver.recv_message()
    sender.close()
    receiver.close()


def test_a_request_to_several_is_copied_once(unix_daemon: Daemon, service: Service) -> None:
    connections = [connect(unix_daemon.uri_for(OBJECT), kind="control", segments=True) for _ in range(3)]
    with Fanout() as fanout:
        request = Request(OBJECT, "echo", [Packed.dump(large())])
        for connection in connections:
            fanout.send(connection, request, connection)
        answers = list(fanout.answers(time.monotonic() + 20))
        assert [answer.error for answer in answers] == [None] * 3
        for answer in answers:
            assert numpy.array_equal(answer.value.load(), large())
            fanout.release(answer.connection)
        sent = {id(request.buffers_for(connection)) for connection in connections}
        assert len(sent) == 1
        assert request.buffers_for(connections[0]) is not request.buffers
    for connection in connections:
        connection.close()
    del answers, answer, request
    unix_daemon.close()
    wait_until(lambda: unix_daemon.connection_count() == 0)


def test_without_memory_to_share_data_goes_through_the_socket(
    unix_daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(unix_daemon.uri_for(OBJECT), kind="control", segments=True)

    def refuse(*args: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with Fanout() as fanout:
        fanout.send(connection, Request(OBJECT, "echo", [Packed.dump(large())]), "x")
        (answer,) = fanout.answers(time.monotonic() + 20)
    assert numpy.array_equal(answer.value.load(), large())
    connection.close()


def test_data_that_is_no_array_goes_too() -> None:
    sender, receiver = pair()
    value = {"bytes": os.urandom(1 << 20), "array": array.array("d", range(200_000)), "bytearray": bytearray(1 << 20)}
    sender.send(message(value, sender))
    found = receiver.recv_message().decode()[0].load()
    assert found == value
    assert {type(one) for one in found.values()} == {bytes, array.array, bytearray}
    sender.close()
    receiver.close()
