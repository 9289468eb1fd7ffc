"""What is too large for one message goes in pieces, and comes out whole."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from pyrokernel.errors import ProtocolError
from pyrokernel.wire import codec, connection
from pyrokernel.wire.codec import MAX_PAYLOAD_BYTES, Packed
from pyrokernel.wire.connection import MSG_INVOKE, EagerReader, IncomingMessage, MessageReader, frame, send_now

numpy = pytest.importorskip("numpy")

PIECE = 256 * 1024


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PIECE_BYTES", PIECE)


@pytest.fixture(params=[MessageReader, lambda: EagerReader(MAX_PAYLOAD_BYTES)], ids=["whole", "eager"])
def reader(request: pytest.FixtureRequest) -> Any:
    return request.param()


def carry(buffers: list[Any], reader: Any) -> list[IncomingMessage]:
    """Send buffers while a reader takes what has arrived, a little at a time; return its messages."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        found = []
        while True:
            buffers = send_now(ours, buffers)
            message = reader.read(theirs)
            while message is not None:
                found.append(message)
                message = (reader.next() if isinstance(reader, EagerReader) else None) or reader.read(theirs)
            if not buffers and reader.idle:
                return found


@pytest.mark.parametrize("size", [PIECE - 200, PIECE, PIECE + 1, 3 * PIECE, 5 * PIECE + 17])
def test_a_message_in_pieces_is_one(size: int, reader: Any) -> None:
    value = {"x": numpy.random.default_rng(size).bytes(size), "y": numpy.arange(size // 8), "z": numpy.arange(3)}
    sent = frame(MSG_INVOKE, codec.encode(["f", Packed.dump(value, pieces=True)]), seq=7, cell="ab" * 16)
    after = frame(MSG_INVOKE, codec.encode(["after"]), seq=8)
    first, second = carry([*sent, *after], reader)
    name, packed = first.decode()
    found = packed.load()
    assert (name, first.seq, first.cell) == ("f", 7, "ab" * 16)
    assert found["x"] == value["x"]
    assert numpy.array_equal(found["y"], value["y"])
    assert found["y"].flags.writeable
    assert (second.decode(), second.seq) == (["after"], 8)


def test_no_piece_is_larger_than_a_message_may_be() -> None:
    sent = frame(MSG_INVOKE, codec.encode([Packed.dump(numpy.zeros(PIECE))]))
    headers = [IncomingMessage(bytes(part), empty=True) for part in sent if bytes(part[:4]) == b"PYRO"]
    assert [header.pieces for header in headers] == list(range(len(headers) - 1, -1, -1))
    assert max(header.size for header in headers) == PIECE
    assert len(headers) == 9


@pytest.mark.parametrize("spoil", ["order", "other"])
def test_another_message_in_place_of_a_piece_is_refused(spoil: str, reader: Any) -> None:
    sent = b"".join(bytes(part) for part in frame(MSG_INVOKE, codec.encode([bytes(3 * PIECE)]), seq=1))
    first, rest = sent[: 40 + PIECE], sent[40 + PIECE :]
    if spoil == "order":
        rest = rest[40 + PIECE :]
    else:
        rest = b"".join(bytes(part) for part in frame(MSG_INVOKE, codec.encode(["x"]), seq=1)) + rest
    with pytest.raises(ProtocolError, match="in place of"):
        carry([first, rest], reader)


@pytest.mark.parametrize(("kind", "most"), [(MessageReader, 4096), (MessageReader, 2 * PIECE), (EagerReader, PIECE)])
def test_more_pieces_than_are_taken_are_refused_at_the_first(kind: Any, most: int) -> None:
    sent = frame(MSG_INVOKE, codec.encode([bytes(3 * PIECE)]))
    with pytest.raises(ProtocolError, match="at most"):
        carry(sent, kind(most))


def test_a_promise_of_much_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PIECE_BYTES", 1 << 30)
    header = bytearray(frame(MSG_INVOKE, codec.encode(["x"]))[0][:40])
    header[12:16] = (1 << 30).to_bytes(4)
    header[36:38] = (7).to_bytes(2)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        reader = MessageReader()
        ours.sendall(header + b"few")
        before = resident_bytes()
        assert reader.read(theirs) is None
        assert resident_bytes() - before < 32 << 20


def resident_bytes() -> int:
    with open("/proc/self/statm") as found:
        return int(found.read().split()[1]) * 4096
