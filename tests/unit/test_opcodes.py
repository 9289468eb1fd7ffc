"""Requests read by hand: all that our own clients write, and nothing that does harm."""

from __future__ import annotations

import pickle
import random
import time
from typing import Any

import pytest

from pyrokernel.errors import ProtocolError
from pyrokernel.wire import codec
from pyrokernel.wire.opcodes import MAX_REQUEST_BYTES, SmallRequest

ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    (("x.", -1, {"namespace": "", "what": "path"}), {}),
    ((None, True, False, 0, 255, 256, 65535, 65536, -1, -(1 << 31), 1 << 31, 1 << 200, -(1 << 200), 1.5, -0.0), {}),
    ((b"", b"x" * 300, "", "é\udcff", "y" * 300, "z" * 70_000), {}),
    (([], [1], [1, 2, [3, [4]]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {1: 2}, {"a": {"b": None}}), {}),
    ((set(), {1, 2}, frozenset(), frozenset({"a"})), {}),
    (("again", "again", {"again": "again"}), {"limit": 5, "after": None}),
    ((list(range(3000)), {str(number): number for number in range(3000)}), {}),
]


def payload(object_id: str, method: str, args: Any, kwargs: Any) -> memoryview:
    return memoryview(b"".join(bytes(part) for part in codec.encode((object_id, method, args, kwargs))))


@pytest.mark.parametrize(("args", "kwargs"), ARGUMENTS)
def test_what_our_clients_write_is_read_as_python_reads_it(args: Any, kwargs: Any) -> None:
    request = SmallRequest(payload("pyrokernel.kernel", "complete", args, kwargs))
    assert (request.object_id, request.method) == ("pyrokernel.kernel", "complete")
    found = request.arguments()
    assert repr(found) == repr((args, kwargs))


def test_long_ids_and_names_are_read() -> None:
    request = SmallRequest(payload("o" * 300, "m" * 300, (1,), {}))
    assert (request.object_id, request.method, request.arguments()) == ("o" * 300, "m" * 300, ((1,), {}))


@pytest.mark.parametrize(
    "envelope", [None, 5, (), ("o",), ("o", "m"), ("o", 5, (), {}), (5, "m", (), {}), ["o", "m", (), {}], {"o": "m"}]
)
def test_what_is_no_request_is_refused(envelope: Any) -> None:
    with pytest.raises(ProtocolError):
        SmallRequest(memoryview(b"".join(map(bytes, codec.encode(envelope))))).arguments()


@pytest.mark.parametrize("arguments", [(5, {}), ((), 5), ((), {5: 6}), ((), {}, 7)])
def test_arguments_are_a_tuple_and_a_dict(arguments: Any) -> None:
    with pytest.raises(ProtocolError):
        SmallRequest(memoryview(b"".join(map(bytes, codec.encode(("o", "m", *arguments)))))).arguments()


def test_a_large_request_is_refused_by_its_size() -> None:
    with pytest.raises(ProtocolError, match="at most"):
        SmallRequest(memoryview(bytes(MAX_REQUEST_BYTES + 1)))


def test_whatever_comes_is_read_or_refused_and_takes_no_time() -> None:
    chance = random.Random(5)
    whole = [bytes(payload("pyrokernel.kernel", "complete", *one)) for one in ARGUMENTS[:7]]
    begun = time.process_time()
    refused = 0
    for _ in range(20_000):
        data = bytearray(chance.choice(whole)[:2000])
        for _ in range(chance.randint(1, 8)):
            place = chance.randrange(len(data))
            if chance.random() < 0.5:
                data[place] = chance.randrange(256)
            else:
                data[place:place] = chance.randbytes(chance.randint(1, 4))
        try:
            SmallRequest(memoryview(bytes(data))).arguments()
        except ProtocolError:
            refused += 1
    assert refused > 10_000
    assert time.process_time() - begun < 60


@pytest.mark.parametrize("code", range(256))
def test_an_instruction_is_known_for_data_or_refused(code: int) -> None:
    """Whatever the unpickler does with it, a class or function is never called here."""
    head = pickle.dumps(("pyrokernel.kernel", "complete"), 5)
    words = head[head.index(b"\x8c") : head.index(b"\x86")]
    stream = b"\x80\x05(" + words + bytes([code]) + b"cos\nsystem\n\x8c\x02ls\x85R."
    data = codec._COUNTS.pack(0, len(stream)).ljust(64, b"\0") + stream
    with pytest.raises(ProtocolError):
        SmallRequest(memoryview(data)).arguments()
