"""How values become bytes between our own peers: vectored pickle-5. Runs in every process.

Two layers, so that reading a message never runs code:

- The *envelope* (method name, options, reply fields) is plain data. It is read by an
  unpickler that knows one class, `Packed`, and refuses every other.
- A *value* travels inside the envelope as `Packed`, still pickled. Whoever may load it
  calls `load()`, in the thread and at the moment of their choice.

Large buffers (arrays, bytes) are not copied into the pickle: they follow it in the
payload, each aligned, and arrive as writable memory that the loaded objects use in place.

Source: PEP 574, "Pickle protocol 5 with out-of-band data".
"""

from __future__ import annotations

import io
import logging
import mmap
import pickle
import re
import struct
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, cast

from pyrokernel.errors import MessageTooLargeError, NotSerializableError, ProtocolError
from pyrokernel.wire import large
from pyrokernel.wire.arrivals import Arrival
from pyrokernel.wire.large import Stream, dump_by_value, dump_pieces, join, load_pieces, small_pieces
from pyrokernel.wire.memory import flat
from pyrokernel.wire.plain import Maker, dump_plain, is_data, load_plain
from pyrokernel.wire.segments import PART_BYTES, SEGMENT_BYTES, Attached, Filling, Freight, lay_out

log = logging.getLogger(__name__)

SERIALIZER_ID = 0x50
"""Marks our payloads in a Pyro header. It is in none of Pyro's global tables: a stock peer cannot reach it."""

MAX_PAYLOAD_BYTES = 64 << 30
"""The most that goes through a socket as one message; above 1 GiB it is cut into pieces."""

_by_value: set[str] = set()
"""Names of modules that `send_by_value` was told of."""

_named_by_value: re.Pattern[bytes] | None = None
"""Finds in a stream what is to go by value; None until the next stream, after a name was added."""

Buffer: TypeAlias = "large.Buffer"

_IN_BAND_BYTES = 4096
"""A pickle up to this, without buffers, travels inside that of the envelope: one part less to send and to read."""

_STACK_GLOBAL = b"\x93"
_SLIM_BYTES = 16 * 1024
"""Longer streams are not copied on their way."""

_ALIGNMENT = 64
_COUNTS = struct.Struct("!II")
_LENGTH = struct.Struct("!Q")
_ONE = struct.Struct(f"!IIQ{_ALIGNMENT - 16}x")
_LENGTH_PLACE = struct.Struct("!QQ")
_NOTHING = memoryview(b"")
_IN_PAYLOAD = (1 << 64) - 1
"""In place of a place in the segment."""

_PADDING = bytes(_ALIGNMENT)
_GAP = bytes(_ALIGNMENT - _COUNTS.size)
_BARE = 0xFFFFFFFF
"""As the number of buffers: the payload is bytes, not a pickle."""


class Packed:
    """A value in wire form: its pickle and the buffers that go beside it.

    Attributes:
        data: The pickle stream, in pieces where it has large ones (`wire.large`).
        buffers: Out-of-band buffers, in the order the stream takes them; shape (n_buffers,).
    """

    __slots__ = ("buffers", "data")

    def __init__(self, data: Stream, buffers: Sequence[Any] = ()) -> None:
        self.data = data
        self.buffers = tuple(buffers)

    @classmethod
    def dump(cls, value: Any, *, pieces: bool = False) -> Packed:
        """Pickle a value; buffers of at least a few hundred bytes stay where they are.

        Functions and classes of `__main__` and of kernel namespaces go by value.

        Args:
            value: Any object.
            pieces: Do not copy large bytes, arrays and views in it either: slower for anything else. The stream is in
                pieces then, and what it names is of this package.

        Raises:
            NotSerializableError: The value cannot be pickled; the message names it.
        """
        buffers: list[pickle.PickleBuffer] = []
        data: Stream
        try:
            if pieces:
                data, buffers = dump_pieces(value)
                by_value = any(_STACK_GLOBAL in one and _names_by_value(one) for one in small_pieces(data))
            else:
                data = pickle.dumps(value, 5, buffer_callback=buffers.append)
                by_value = _STACK_GLOBAL in data and _names_by_value(data)  # without it no module is named at all
            if not by_value:
                return cls(data, [flat(buffer) for buffer in buffers] if buffers else ())
        except Exception as error:  # noqa: BLE001  whatever a __reduce__ raises: cloudpickle, which knows more, decides
            log.debug("%s goes by value: %s", type(value), error)
        return cls._dump_by_value(value, pieces=pieces)

    @classmethod
    def _dump_by_value(cls, value: Any, *, pieces: bool) -> Packed:
        import cloudpickle  # 20 ms and only needed for functions and classes written at a prompt

        data: Stream
        buffers: list[pickle.PickleBuffer]
        # The registry is one for the process and for all its threads: namespaces are added, never taken out again.
        known = cloudpickle.list_registry_pickle_by_value()
        for name, module in list(sys.modules.items()):
            wanted = (name in _by_value or name.startswith("__pyrokernel_")) and name not in known
            # A module may have put something else in its place, which cloudpickle refuses.
            if wanted and type(module) is types.ModuleType and module.__name__ == name:
                cloudpickle.register_pickle_by_value(module)
        try:
            if pieces:
                data, buffers = dump_by_value(value)
            else:
                buffers = []
                data = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
        except Exception as error:
            raise NotSerializableError(
                f"cannot pickle {type(value).__name__}: {type(error).__name__}: {error}"
            ) from error
        return cls(data, [flat(buffer) for buffer in buffers])

    @property
    def size_bytes(self) -> int:
        """Bytes this value takes on the wire."""
        size = sum(map(len, self.data)) if isinstance(self.data, tuple) else len(self.data)
        return size + sum(map(len, self.buffers))

    def load(self) -> Any:
        """Unpickle the value: runs whatever code the stream names, so only for peers that may run code here.

        Raises:
            NotSerializableError: The stream needs a class or module that is not here.
        """
        try:
            if isinstance(self.data, tuple):
                return load_pieces(self.data, self.buffers)
            return pickle.loads(self.data, buffers=self.buffers)
        except Exception as error:  # unpickling runs constructors of the user's classes
            raise NotSerializableError(
                f"cannot load the value here: {type(error).__name__}: {error}; "
                "is the module it needs installed on this side?"
            ) from error

    @classmethod
    def dump_data(cls, value: Any) -> Packed:
        """Pickle what `is_data` allows, so that `load_data` reads it at any peer.

        Raises:
            NotSerializableError: Something in it is of another class.
        """
        if not is_data(value):
            raise NotSerializableError(f"only plain data and arrays travel here, not {type(value).__name__}")
        return cls(*dump_plain(value))

    def load_data(self) -> Any:
        """Unpickle what `is_data` allows; nothing else is looked up, so that any peer may have sent it.

        Raises:
            NotSerializableError: It holds something else, or does not parse.
        """
        return load_plain(join(self.data), self.buffers, data=True)

    def as_data(self) -> Packed:
        """Return the same value, to be loaded as `load_data` does."""
        return _PackedData(self.data, self.buffers)

    def slim(self) -> Packed | bytes:
        """Return what stands for it where nothing else is meant: its stream, if that is all, and short.

        Bytes take a third of the time in an envelope that an object takes.
        """
        data = self.data
        return data if type(data) is bytes and not self.buffers and len(data) <= _SLIM_BYTES else self

    @classmethod
    def of(cls, slim: Packed | bytes) -> Packed:
        """Return the value that `slim` made something of."""
        return cls(slim) if type(slim) is bytes else cast("Packed", slim)

    def __reduce__(self) -> tuple[Any, ...]:
        data, buffers = self.data, self.buffers
        if isinstance(data, tuple):
            return Packed, (tuple(map(pickle.PickleBuffer, data)), tuple(map(pickle.PickleBuffer, buffers)))
        if not buffers and len(data) <= _IN_BAND_BYTES:
            return Packed, (bytes(data),)  # no copy of what is bytes, as it nearly always is
        return Packed, (pickle.PickleBuffer(data), tuple(map(pickle.PickleBuffer, buffers)))

    def __repr__(self) -> str:
        return f"<Packed {self.size_bytes} bytes, {len(self.buffers)} buffers>"


class _PackedData(Packed):
    """A value from a peer whose pickles are not trusted."""

    __slots__ = ()

    def load(self) -> Any:
        """Unpickle plain data and arrays only."""
        return self.load_data()


def get_ready() -> None:
    """Load what it takes to send functions and classes by value, before the first of them is sent."""
    import cloudpickle  # noqa: F401


def send_by_value(module: str) -> None:
    """From now on functions and classes of this module travel whole: the receiver may not have it, or another one."""
    global _named_by_value
    _by_value.add(module)
    _named_by_value = None


def _names_by_value(stream: Buffer) -> bool:
    """Whether a stream names a module that means something else at the receiver."""
    global _named_by_value
    if _named_by_value is None:
        # As a stream writes a short text, with its length before it, so that a part of another text does not count.
        names = sorted(re.escape(bytes([len(name)]) + name) for name in map(str.encode, _by_value) if len(name) < 256)
        _named_by_value = re.compile(b"|".join([b"__main__", b"__pyrokernel_", *(b"\x8c" + name for name in names)]))
    return _named_by_value.search(stream) is not None


def encode(envelope: Any, freight: Callable[[], Freight | None] | None = None) -> list[Buffer]:
    """Turn an envelope into the buffers of one payload, ready for `sendmsg`.

    Args:
        envelope: Plain data and `Packed` values.
        freight: Returns where large buffers may go; None for into the payload.

    Raises:
        NotSerializableError: Something in it is neither plain data nor `Packed`.
        MessageTooLargeError: More than 64 GiB.
    """
    stream, views = dump_envelope(envelope)
    if freight is not None and is_bulky(views):
        encoded, shared = Encoded(stream, views), freight()
        payload = None if shared is None else in_segment(encoded, shared, shared.reserve(encoded.room))
        if payload is not None:
            return payload
    return inline(stream, views)


def dump_envelope(envelope: Any) -> tuple[bytes, list[memoryview]]:
    """Return the pickle of an envelope, and the buffers beside it.

    Raises:
        NotSerializableError: Something in it is neither plain data nor `Packed`.
    """
    loose: list[pickle.PickleBuffer] = []
    try:
        stream = pickle.dumps(envelope, 5, buffer_callback=loose.append)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise NotSerializableError(f"a message holds plain data only: {error}") from error
    return stream, ([flat(buffer) for buffer in loose] if loose else [])


def is_bulky(views: Sequence[memoryview]) -> bool:
    """Whether buffers are so large that they are better off in a segment."""
    size = 0
    for view in views:
        size += len(view)
    return size >= SEGMENT_BYTES and any(len(view) >= PART_BYTES for view in views)


def inline(stream: bytes, views: Sequence[memoryview]) -> list[Buffer]:
    """Return a payload with everything in it.

    Layout: `!II` number of buffers and length of the pickle, `!Q` each buffer's length,
    then the pickle and the buffers, each starting at a multiple of 64 bytes.

    Raises:
        MessageTooLargeError: More than 64 GiB.
    """
    if not views and len(stream) <= MAX_PAYLOAD_BYTES - _ALIGNMENT:
        return [_COUNTS.pack(0, len(stream)) + _GAP, stream]
    if len(views) == 1 and len(stream) + len(views[0]) <= MAX_PAYLOAD_BYTES - 2 * _ALIGNMENT:
        # One value, as in most messages: the same in a third of the time.
        return [_ONE.pack(1, len(stream), len(views[0])), stream, _PADDING[: -len(stream) % _ALIGNMENT], views[0]]
    head = _COUNTS.pack(len(views), len(stream)) + b"".join([_LENGTH.pack(len(view)) for view in views])
    return _aligned(head, [stream, *views])


class Encoded:
    """An envelope whose large buffers go to a segment.

    Args:
        stream, views: As `dump_envelope` returns them.

    Attributes:
        room: Bytes that the large ones take there.
    """

    __slots__ = ("_stream", "_views", "room")

    def __init__(self, stream: bytes, views: Sequence[memoryview]) -> None:
        self._stream, self._views = stream, views
        self.room = lay_out([len(view) for view in views if len(view) >= PART_BYTES], 0)[1]

    def beside(self, filling: Filling, place: int) -> list[Buffer]:
        """Write the large buffers to a segment, from a place on; return the payload, which has the others.

        Layout: as that of `inline`, but `!QQ` for each buffer, its length and its place in the segment.

        Raises:
            OSError: The segment takes no more.
        """
        large = [view for view in self._views if len(view) >= PART_BYTES]
        places, _ = lay_out([len(view) for view in large], place)
        filling.write(large, places)
        found = iter(places)
        table = [(len(view), next(found) if len(view) >= PART_BYTES else _IN_PAYLOAD) for view in self._views]
        head = Attached(
            _COUNTS.pack(len(table), len(self._stream)) + b"".join(_LENGTH_PLACE.pack(*entry) for entry in table)
        )
        head.filling = filling
        return _aligned(head, [self._stream, *(view for view in self._views if len(view) < PART_BYTES)])


def in_segment(encoded: Encoded, freight: Freight, place: int) -> list[Buffer] | None:
    """Return the payload of an envelope whose large buffers are in a segment, None where there is no segment for it."""
    filling = freight.filling()
    if filling is None:
        return None
    try:
        return encoded.beside(filling, place)
    except OSError as error:  # no memory that can be shared: the sockets need none
        log.debug("a segment was not filled: %s", error)
        return None


def _aligned(head: Buffer, tail: Sequence[Buffer]) -> list[Buffer]:
    """Return a payload whose parts after the first start at multiples of 64 bytes."""
    parts: list[Buffer] = [head]
    total = len(head)
    for part in tail:
        gap = -total % _ALIGNMENT
        if gap:
            parts.append(_PADDING[:gap])
        parts.append(part)
        total += gap + len(part)
    if total > MAX_PAYLOAD_BYTES:
        raise MessageTooLargeError(
            f"a message of {total / 2**30:.2f} GiB is above the limit of {MAX_PAYLOAD_BYTES / 2**30:g} GiB; "
            "send or fetch it in parts"
        )
    return parts


def encode_bytes(data: bytes) -> list[Buffer]:
    """Turn bytes that are all of an envelope into a payload, without a pickle around them."""
    return [_COUNTS.pack(_BARE, len(data)) + _GAP, data]


def decode(payload: memoryview, arrival: Arrival | None = None) -> Any:
    """Read an envelope; values in it stay `Packed`, buffers point into `payload` or into the segment.

    Args:
        payload: A message's body.
        arrival: The segment that came with it.

    Raises:
        ProtocolError: It is malformed, or names a class.
    """
    try:
        count, length = _COUNTS.unpack_from(payload)
        if arrival is not None:
            return _decode_beside(payload, arrival, count, length)
        if count == 0:
            if _ALIGNMENT + length > len(payload):
                raise ValueError("a part reaches beyond the end")
            return _EnvelopeUnpickler(io.BytesIO(payload[_ALIGNMENT : _ALIGNMENT + length])).load()
        if count == _BARE:
            if _ALIGNMENT + length > len(payload):
                raise ValueError("the bytes reach beyond the end")
            return bytes(payload[_ALIGNMENT : _ALIGNMENT + length])
        if count * _LENGTH.size > len(payload):
            raise ValueError("more buffers than bytes")
        offset = _COUNTS.size
        sizes: list[int] = [length]
        for _ in range(count):
            sizes.append(_LENGTH.unpack_from(payload, offset)[0])
            offset += _LENGTH.size
        parts = _cut(payload, offset, sizes)
        return _EnvelopeUnpickler(io.BytesIO(parts[0]), buffers=parts[1:]).load()
    except ProtocolError:
        raise
    except Exception as error:  # a garbled pickle can raise nearly anything
        raise ProtocolError(f"a message does not parse: {type(error).__name__}: {error}") from error


def _decode_beside(payload: memoryview, arrival: Arrival, count: int, length: int) -> Any:
    end = _COUNTS.size + count * _LENGTH_PLACE.size
    if end > len(payload):
        raise ValueError("more buffers than bytes")
    table = list(_LENGTH_PLACE.iter_unpack(payload[_COUNTS.size : end]))
    inside = iter(_cut(payload, end, [length, *(size for size, place in table if place == _IN_PAYLOAD)]))
    stream = next(inside)
    ends = [place + size for size, place in table if place != _IN_PAYLOAD]
    begin = min((place for _, place in table), default=0)
    begin -= begin % mmap.ALLOCATIONGRANULARITY
    shared = arrival.map(begin, max(ends)) if ends else _NOTHING
    buffers = [
        next(inside) if place == _IN_PAYLOAD else shared[place - begin : place - begin + size] for size, place in table
    ]
    return _EnvelopeUnpickler(io.BytesIO(stream), buffers=buffers).load()


def _cut(payload: memoryview, offset: int, sizes: Iterable[int]) -> list[memoryview]:
    """Return the parts of a payload that begin behind an offset, each at a multiple of 64."""
    parts = []
    for size in sizes:
        offset += -offset % _ALIGNMENT
        if offset + size > len(payload):
            raise ValueError("a part reaches beyond the end")
        parts.append(payload[offset : offset + size])
        offset += size
    return parts


_MAKE_PACKED = Maker(Packed)
"""Stands for the class in a message, which could change that."""


class _EnvelopeUnpickler(pickle.Unpickler):
    """Reads plain data and `Packed`; any other class is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (__name__, "Packed"):
            return _MAKE_PACKED
        raise ProtocolError(f"a message may not name {module}.{name}")


def is_plain(value: Any, *, depth: int = 20) -> bool:
    """Whether a value is made of the types that serpent and JSON peers can read too."""
    if value is None or type(value) in (bool, int, float, str, bytes, complex):
        return True
    if depth == 0:
        return False
    if type(value) in (list, tuple, set):
        return _all_plain(value, depth - 1)
    if type(value) is dict:
        return _all_plain(value.keys(), depth - 1) and _all_plain(value.values(), depth - 1)
    return False


def _all_plain(values: Iterable[Any], depth: int) -> bool:
    return all(is_plain(value, depth=depth) for value in values)
