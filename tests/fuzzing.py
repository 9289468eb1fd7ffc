"""Inputs that are nearly right, the same ones each time. Runs in the test process."""

from __future__ import annotations

import contextlib
import random
import resource
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from Pyro5.protocol import FLAGS_BATCH, MSG_CONNECT, MSG_CONNECTFAIL, MSG_CONNECTOK, MSG_PING
from Pyro5.serializers import JsonSerializer, MarshalSerializer, SerpentSerializer

from pyrokernel.errors import KernelNotFoundError, error_to_wire
from pyrokernel.messages import PROTOCOL_VERSION
from pyrokernel.roles import Role
from pyrokernel.wire import codec
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.connection import FLAGS_COMPRESSED, FLAGS_EXCEPTION, MSG_INVOKE, MSG_RESULT, frame
from pyrokernel.wire.introduction import FOR, TO, pack, words_for

SERPENT, JSON, MARSHAL = SerpentSerializer(), JsonSerializer(), MarshalSerializer()
STOCK = (SERPENT, JSON)

INTERESTING = (0, 1, 2, 16, 39, 40, 41, 63, 64, 127, 128, 255, 4096, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
HEADER = struct.Struct("!4sHBBHHII16sHH")
"""As in `pyrokernel.wire.connection`."""
HEADER_BYTES = HEADER.size

_HEADROOM_BYTES = 1 << 30


@contextlib.contextmanager
def bounded_memory(headroom: int = _HEADROOM_BYTES) -> Iterator[None]:
    """Let this process take so much more memory than it has, and no more: what asks for more gets a MemoryError."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + headroom, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def joined(buffers: Sequence[Any]) -> bytes:
    """Return the bytes of a message."""
    return b"".join(map(bytes, buffers))


def hello_words(kind: str = "control", **more: Any) -> dict[str, Any]:
    """Return what our own clients say first."""
    return {"pyrokernel": PROTOCOL_VERSION, "kind": kind, "codec": "pickle5", "instance": "", **more}


def greetings(object_id: str) -> list[bytes]:
    """Return valid first messages of every kind."""
    said = pack({FOR: words_for("ana", Role.USER, "10.0.0.1:9"), TO: b"tls:10.0.0.1:9191"})
    hellos: list[Any] = ["hello", hello_words(), hello_words("work"), hello_words(segments=True, files=True)]
    return [
        joined(frame(MSG_CONNECT, [serializer.dumps({"handshake": words, "object": object_id})],
                     serializer_id=serializer.serializer_id, annotations=annotations))
        for serializer in STOCK for words in hellos for annotations in (b"", said)
    ]  # fmt: skip


def calls(object_id: str, methods: Sequence[tuple[str, tuple[Any, ...]]]) -> list[bytes]:
    """Return valid requests of every kind."""
    found = []
    for seq, (method, args) in enumerate(methods):
        found.append(joined(frame(MSG_INVOKE, codec.encode((object_id, method, args, {})), seq=seq, cell="ab" * 16)))
        for serializer in STOCK:
            number = serializer.serializer_id
            payload = serializer.dumpsCall(object_id, method, [], {"value": 1})
            found.append(joined(frame(MSG_INVOKE, [payload], serializer_id=number, seq=seq)))
            batch = serializer.dumpsCall(object_id, "<batch>", [(method, [1], {})], {})
            found.append(joined(frame(MSG_INVOKE, [batch], serializer_id=number, flags=FLAGS_BATCH)))
        payload = SERPENT.dumpsCall(object_id, method, [1], {})
        squeezed = __import__("zlib").compress(payload)
        found.append(joined(frame(MSG_INVOKE, [squeezed], serializer_id=1, flags=FLAGS_COMPRESSED)))
        found.append(joined(frame(MSG_INVOKE, [MARSHAL.dumpsCall(object_id, method, [1], {})], serializer_id=3)))
    found.append(joined(frame(MSG_PING, [b"ping"], serializer_id=1)))
    return found


def answers() -> list[bytes]:
    """Return valid answers of every kind, to a handshake and to a request."""
    told = {"kernel": "k0", "instance": "i", "protocol": PROTOCOL_VERSION, "user": "ana", "role": "user"}
    found = [joined(frame(MSG_RESULT, codec.encode(value))) for value in envelopes()]
    failed = error_to_wire(KernelNotFoundError("there is none"))
    found.append(joined(frame(MSG_RESULT, codec.encode(failed), flags=FLAGS_EXCEPTION)))
    for kind, value in ((MSG_CONNECTOK, {"handshake": told, "meta": {}}), (MSG_CONNECTFAIL, "no")):
        found.append(joined(frame(kind, [SERPENT.dumps(value)], serializer_id=1)))
    return found


def envelopes() -> list[Any]:
    """Return what travels in our codec: plain data and packed values."""
    array = np.arange(1000.0)
    return [
        None,
        ("object", "method", (1, "two", b"three", None, 4.5), {"five": [6, {7: 8}, {9}]}),
        ("object", "method", [Packed.dump({"a": array, "b": [1] * 50})], {}),
        ("object", "method", (Packed.dump_data([array, array.astype("int8"), 3 + 4j, "text"]), array.tobytes()), {}),
        {"status": "ok", "value": Packed.dump(list(range(300))), "stdout": "x" * 500},
        [Packed.dump(bytes(70_000), pieces=True)],
    ]


class Mutator:
    """Makes inputs out of valid ones.

    Args:
        seed: The same seed makes the same inputs.
    """

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def some_of(self, valid: Sequence[bytes], count: int) -> Iterator[bytes]:
        """Return so many inputs."""
        for _ in range(count):
            data = self.chance.choice(valid)
            for _ in range(self.chance.choice((1, 1, 1, 2, 3, 8))):
                data = self._changed(data, valid)
            yield data[: 1 << 20]

    def messages(self, valid: Sequence[bytes], count: int) -> Iterator[bytes]:
        """Return so many messages: with wrong headers, and with right headers around wrong bodies."""
        for message in self.some_of(valid, count):
            if len(message) < HEADER_BYTES or self.chance.random() < 0.3:
                yield message
            elif self.chance.random() < 0.5:
                yield self._with_field(self.chance.choice(valid))
            else:
                yield self._fitting(self.chance.choice(valid), message[HEADER_BYTES:])

    def _changed(self, data: bytes, valid: Sequence[bytes]) -> bytes:
        at = self.chance.randrange(len(data) + 1)
        kind = self.chance.randrange(8)
        if kind == 0 and data:
            at = self.chance.randrange(len(data))
            return data[:at] + bytes([data[at] ^ (1 << self.chance.randrange(8))]) + data[at + 1 :]
        if kind == 1:
            return data[:at] + self.chance.randbytes(self.chance.choice((1, 2, 4, 9))) + data[at + 1 :]
        if kind == 2:
            return data[:at]
        if kind == 3:
            return data[:at] + data[at + self.chance.choice((1, 2, 8, 64)) :]
        if kind == 4:
            number = self.chance.choice(INTERESTING).to_bytes(4, self.chance.choice(("big", "little")))
            return data[:at] + number + data[at + 4 :]
        if kind == 5:
            return data[:at] + data[at : at + 32] * self.chance.choice((2, 3, 40)) + data[at:]
        if kind == 6:
            other = self.chance.choice(valid)
            return data[:at] + other[self.chance.randrange(len(other) + 1) :]
        return data[:at] + self.chance.randbytes(self.chance.choice((1, 3, 17))) + data[at:]

    def _with_field(self, message: bytes) -> bytes:
        fields = list(HEADER.unpack_from(message))
        at = self.chance.choice((1, 2, 3, 4, 4, 5, 6, 6, 7, 7, 9, 10))
        limit = 0xFF if at in (2, 3) else 0xFFFFFFFF if at in (6, 7) else 0xFFFF
        fields[at] = self.chance.choice((*INTERESTING, fields[at] + 1, fields[at] - 1, self.chance.getrandbits(32)))
        fields[at] &= limit
        return HEADER.pack(*fields) + message[HEADER_BYTES:]

    def _fitting(self, message: bytes, body: bytes) -> bytes:
        """Return a message whose header says how long its body is."""
        fields = list(HEADER.unpack_from(message))
        annotations = self.chance.choice((0, 0, 0, min(fields[7], len(body)), self.chance.randrange(len(body) + 1)))
        fields[6], fields[7] = len(body) - annotations, annotations
        return HEADER.pack(*fields) + body
