"""One loop sends to many and waits for all, whatever some of them do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from served import OBJECT, PORTABLE, Service
from waiting import wait_until

from pyrokernel.errors import CellNotFoundError, MessageTooLargeError, NotSerializableError, ProtocolError
from pyrokernel.wire import codec
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.fanout import Fanout, Request
from pyrokernel.wire.proxy import connect

numpy = pytest.importorskip("numpy")


def open_to(daemon: Daemon) -> Any:
    return connect(daemon.uri_for(OBJECT), kind="control")


def soon() -> float:
    return time.monotonic() + 20


def test_answers_come_as_they_are_ready_not_in_order(daemon: Daemon, service: Service) -> None:
    slow, quick = open_to(daemon), open_to(daemon)
    with Fanout() as fanout:
        fanout.send(slow, Request(OBJECT, "wait"), "slow")
        fanout.send(quick, Request(OBJECT, "echo", [1]), "quick")
        answers = fanout.answers(soon())
        assert next(answers).token == "quick"
        service.gate.set()
        assert next(answers).token == "slow"
        assert list(answers) == []


def test_requests_on_one_connection_are_answered_in_order(daemon: Daemon) -> None:
    connection = open_to(daemon)
    with Fanout() as fanout:
        for number in range(50):
            fanout.send(connection, Request(OBJECT, "echo", [number]), number)
        answers = [(answer.token, answer.value) for answer in fanout.answers(soon())]
    assert answers == [(number, number) for number in range(50)]


def test_requests_that_are_sent_together_are_written_at_once_and_answered_in_order(daemon: Daemon) -> None:
    first, second = open_to(daemon), open_to(daemon)
    with Fanout() as fanout:
        with fanout.together():
            for number in range(50):
                fanout.send(first if number % 2 else second, Request(OBJECT, "echo", [number]), number)
            assert len(fanout._lanes[first].unsent) == len(fanout._lanes[second].unsent) == 25
        answers = [(answer.token, answer.value) for answer in fanout.answers(soon())]
    assert sorted(answers) == [(number, number) for number in range(50)]
    for parity in (0, 1):
        mine = [token for token, _ in answers if token % 2 == parity]
        assert mine == sorted(mine)


def test_what_has_come_and_is_not_yielded_yet_is_known(daemon: Daemon) -> None:
    connection = open_to(daemon)
    with Fanout() as fanout:
        for number in range(3):
            fanout.send(connection, Request(OBJECT, "echo", [number]), number)
        answers = fanout.answers(soon())
        for left in (2, 1, 0):
            next(answers)
            if left:
                wait_until(lambda: fanout.has_more(connection))
        assert not fanout.has_more(connection)
        connection.close()
        assert not fanout.has_more(connection)


def test_bytes_travel_as_they_are() -> None:
    for data in (b"", b"x", bytes(100_000)):
        payload = b"".join(codec.encode_bytes(data))
        assert codec.decode(memoryview(payload)) == data
        with pytest.raises(ProtocolError):
            codec.decode(memoryview(payload)[: len(payload) - 1])


def test_the_deadline_leaves_the_rest_pending_and_drops_their_connections(daemon: Daemon) -> None:
    slow, quick = open_to(daemon), open_to(daemon)
    with Fanout() as fanout:
        fanout.send(slow, Request(OBJECT, "wait"), "slow")
        fanout.send(quick, Request(OBJECT, "echo", [1]), "quick")
        assert [answer.token for answer in fanout.answers(time.monotonic() + 0.3)] == ["quick"]
        assert fanout.pending == 1
    assert slow.sock.fileno() == -1, "its late answer would reach the next caller"


def test_a_lost_connection_is_an_answer(private_dir: Path, service: Service) -> None:
    served = Daemon(private_dir / "l.sock", identity={}, portable=PORTABLE)
    served.register(service, OBJECT)
    served.start()
    connection = open_to(served)
    with Fanout() as fanout:
        fanout.send(connection, Request(OBJECT, "wait"), "x")
        served.close()
        (answer,) = fanout.answers(soon())
    service.gate.set()
    assert answer.lost


def test_ctrl_c_amid_the_sending_is_nothing_but_ctrl_c(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = open_to(daemon)
    with Fanout() as fanout:
        monkeypatch.setattr(fanout._selector, "register", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fanout.send(connection, Request(OBJECT, "echo", [1]), "late")


def interrupted(*args: object) -> None:
    raise KeyboardInterrupt


def test_a_closed_connection_is_an_answer(daemon: Daemon) -> None:
    connection = open_to(daemon)
    connection.close()
    with Fanout() as fanout:
        fanout.send(connection, Request(OBJECT, "echo", [1]), "x")
        (answer,) = fanout.answers(soon())
    assert answer.lost


def test_errors_arrive_as_themselves(daemon: Daemon) -> None:
    with Fanout() as fanout:
        fanout.send(open_to(daemon), Request(OBJECT, "fail"), "x")
        (answer,) = fanout.answers(soon())
    assert isinstance(answer.error, CellNotFoundError)
    assert answer.error.kernel == "k"


def test_large_arrays_travel_both_ways_writable_and_aligned(daemon: Daemon) -> None:
    array = numpy.arange(3_000_000, dtype="float64")
    with Fanout() as fanout:
        fanout.send(open_to(daemon), Request(OBJECT, "echo", [Packed.dump({"a": array, "b": b"x" * 5})]), "x")
        (answer,) = fanout.answers(soon())
    loaded = answer.value.load()
    assert numpy.array_equal(loaded["a"], array)
    assert loaded["a"].flags.writeable
    assert loaded["a"].flags.aligned
    assert loaded["b"] == b"x" * 5


def test_many_buffers_travel(daemon: Daemon) -> None:
    arrays = [numpy.full(10, number) for number in range(2000)]
    with Fanout() as fanout:
        fanout.send(open_to(daemon), Request(OBJECT, "echo", [Packed.dump(arrays)]), "x")
        (answer,) = fanout.answers(soon())
    assert all(numpy.array_equal(ours, theirs) for ours, theirs in zip(arrays, answer.value.load(), strict=True))


def test_functions_of_main_and_lambdas_travel_by_value() -> None:
    assert Packed.dump(lambda x: x + 1).load()(1) == 2


def test_what_cannot_be_pickled_says_so() -> None:
    with pytest.raises(NotSerializableError, match="generator"):
        Packed.dump(number for number in range(3))


def test_an_envelope_takes_plain_data_only() -> None:
    with pytest.raises(NotSerializableError):
        codec.encode(lambda: None)


def test_more_than_a_message_may_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_PAYLOAD_BYTES", 1000)
    with pytest.raises(MessageTooLargeError, match="in parts"):
        codec.encode(["x" * 2000])


@pytest.mark.parametrize(
    "payload", [b"", b"\0" * 8, b"\xff" * 64, b"\0\0\0\1\0\0\0\1", b"\0" * 7 + b"\x05" + b"\0" * 61]
)
def test_malformed_payloads_are_protocol_errors(payload: bytes) -> None:
    from pyrokernel.errors import ProtocolError

    with pytest.raises(ProtocolError):
        codec.decode(memoryview(payload))
