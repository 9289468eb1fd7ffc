"""One request to one process: the short way, and how the other one takes over."""

from __future__ import annotations

import _thread
import itertools
import platform
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from served import OBJECT, PORTABLE, Service
from waiting import wait_until

from pyrokernel.errors import CellNotFoundError, KernelRestartedError
from pyrokernel.messages import new_id
from pyrokernel.wire import codec
from pyrokernel.wire.connection import MSG_INVOKE, MSG_RESULT, Connection, EagerReader, frame, peek, peek_cell
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.direct import answer_at_once, ask_directly, send_short
from pyrokernel.wire.fanout import Fanout, Request
from pyrokernel.wire.proxy import connect
from pyrokernel.wire.trust import Peer


def open_to(daemon: Daemon, instance: str = "") -> Connection:
    return connect(daemon.uri_for(OBJECT), kind="control", instance=instance)


def ask_at_once(connection: Connection, request: Request, seconds: float) -> tuple[Any, Exception | None] | None:
    assert send_short(connection, request)
    return answer_at_once(connection, request.seq, seconds, alert=True)


def test_an_answer_that_is_due_at_once_comes_at_once(daemon: Daemon) -> None:
    connection = open_to(daemon)
    for number in range(100):
        assert ask_at_once(connection, Request(OBJECT, "echo", [number]), 20) == (number, None)


def test_what_the_other_side_raises_comes_back_as_data(daemon: Daemon) -> None:
    answer = ask_at_once(open_to(daemon), Request(OBJECT, "fail"), 20)
    assert answer is not None
    assert isinstance(answer[1], CellNotFoundError)


def test_what_takes_longer_is_awaited_by_a_fanout_on_the_same_connection(daemon: Daemon, service: Service) -> None:
    connection = open_to(daemon)
    assert ask_at_once(connection, Request(OBJECT, "echo", [1]), 20) == (1, None)
    request = Request(OBJECT, "wait")
    assert ask_at_once(connection, request, 0.01) is None
    with Fanout() as fanout:
        fanout.adopt(connection, request.seq, "slow")
        # The loop must not wait for this one: it would not see the other.
        other = open_to(daemon)
        fanout.send(other, Request(OBJECT, "echo", [2]), "quick")
        answers = fanout.answers(time.monotonic() + 20)
        assert next(answers).token == "quick"
        service.gate.set()
        assert next(answers).token == "slow"
        fanout.release(connection)
    assert ask_at_once(connection, Request(OBJECT, "echo", [3]), 20) == (3, None)


def test_a_connection_that_ends_is_told_from_an_answer(private_dir: Path, service: Service) -> None:
    served = Daemon(private_dir / "l.sock", identity={}, portable=PORTABLE)
    served.register(service, OBJECT)
    served.start()
    connection = open_to(served)
    assert ask_at_once(connection, Request(OBJECT, "echo", [1]), 20) == (1, None)
    served.close()
    request = Request(OBJECT, "echo", [2])
    assert not send_short(connection, request) or answer_at_once(connection, request.seq, 20, alert=True) is None
    assert connection.sock.fileno() < 0


def test_another_instance_is_told_from_a_lost_connection(private_dir: Path, service: Service) -> None:
    served = Daemon(private_dir / "i.sock", identity={"instance": "new", "kernel": "k"}, portable=PORTABLE)
    served.register(service, OBJECT)
    served.start()
    connection = open_to(served, instance="old")
    answer = ask_at_once(connection, Request(OBJECT, "echo", [1]), 20)
    assert answer is not None
    assert isinstance(answer[1], KernelRestartedError)
    assert connection.sock.fileno() < 0
    served.close()


@pytest.mark.parametrize("piece", [1, 7, 39, 40, 41, 300, 100_000])
def test_messages_are_the_same_however_their_bytes_arrive(piece: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    sent: list[Any] = ["a", b"b" * 1000, list(range(200)), None]
    data = b"".join(part for seq, value in enumerate(sent) for part in frame(MSG_INVOKE, codec.encode(value), seq=seq))
    reader, found = EagerReader(), []
    with ours, theirs:
        for start in range(0, len(data), piece):
            theirs.sendall(data[start : start + piece])
            message = reader.read(ours)
            while message is not None:
                found.append((message.seq, codec.decode(message.payload)))
                message = reader.next()
    assert found == list(enumerate(sent))
    assert reader.idle


def test_what_was_read_ahead_is_seen_like_what_waits_in_the_socket() -> None:
    ours, theirs = socket.socketpair()
    cells = [new_id() for _ in range(3)]
    connection = Connection(ours, Peer(uid=0))
    reader = connection.reader = EagerReader()
    with ours, theirs:
        theirs.sendall(b"".join(itertools.chain(*(frame(MSG_INVOKE, codec.encode(1), cell=cell) for cell in cells))))
        assert peek_cell(connection) == cells[0]
        for cell, following in itertools.pairwise([*cells, ""]):
            message = reader.next() or reader.read(ours)
            assert message is not None
            assert message.cell == cell
            assert reader.has_next == bool(following)
            assert peek_cell(connection) == following
        with pytest.raises(BlockingIOError):
            peek(connection, 40)


def test_an_answer_of_which_half_has_come_does_not_hold_the_caller_for_longer_than_it_would_wait() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, Peer(uid=0))
    request = Request(OBJECT, "echo", [1])
    answer = b"".join(frame(MSG_RESULT, codec.encode(b"x" * 200_000), seq=request.seq))
    with ours, theirs:
        theirs.sendall(answer[:70_000])
        assert ask_at_once(connection, request, 0.05) is None
        theirs.setblocking(False)
        sent = theirs.send(answer[70_000:])
        with Fanout() as fanout:
            fanout.adopt(connection, request.seq, "rest")
            theirs.setblocking(True)
            theirs.sendall(answer[70_000 + sent :])
            (found,) = fanout.answers(time.monotonic() + 20)
    assert found.value == b"x" * 200_000


def test_segments_are_for_control_connections_only(daemon: Daemon) -> None:
    connection = connect(daemon.uri_for(OBJECT), kind="work", segments=True)
    assert ask_at_once(connection, Request(OBJECT, "execute"), 20) is not None
    assert not next(iter(daemon.transportServer.connections)).segments  # type: ignore[union-attr]


@pytest.mark.parametrize("way", ["direct", "fanout"])
def test_ctrl_c_is_heeded_also_where_it_falls_between_a_look_for_signals_and_a_system_call(way: str) -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, Peer(uid=0))

    def press() -> None:
        assert theirs.recv(1 << 16)
        sleeping = Path(f"/proc/self/task/{threading.main_thread().native_id}/syscall")
        call = {"direct": "45 ", "fanout": "232 "}[way]  # recvfrom, epoll_wait
        wait_until(lambda: platform.machine() != "x86_64" or sleeping.read_text().startswith(call))
        # As a signal that comes a moment too early for the call: it is noted, and ends no sleep.
        _thread.interrupt_main()

    thread = threading.Thread(target=press)

    def ask() -> None:
        if way == "direct":
            ask_directly(connection, OBJECT, "echo", (1,), 30)
        with Fanout() as fanout:
            fanout.send(connection, Request(OBJECT, "echo", [1]), "token")
            list(fanout.answers(time.monotonic() + 30))

    begun = time.monotonic()
    with ours, theirs:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            ask()
        thread.join()
    assert time.monotonic() - begun < 10
