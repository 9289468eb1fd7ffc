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
import pickle
import re
import struct
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from pyrokernel.errors import MessageTooLargeError, NotSerializableError, ProtocolError
from pyrokernel.wire.plain import Maker, dump_plain, is_data, load_plain

log = logging.getLogger(__name__)

SERIALIZER_ID = 0x50
"""Marks our payloads in a Pyro header. It is in none of Pyro's global tables: a stock peer cannot reach it."""

MAX_PAYLOAD_BYTES = 1 << 30
"""Pyro's own default for one message; larger data goes in pieces."""

_by_value: set[str] = set()
"""Names of modules that `send_by_value` was told of."""

_named_by_value: re.Pattern[bytes] | None = None
"""Finds in a stream what is to go by value; None until the next stream, after a name was added."""

Buffer: TypeAlias = "bytes | bytearray | memoryview"

_IN_BAND_BYTES = 4096
"""A pickle up to this, without buffers, travels inside that of the envelope: one part less to send and to read."""

_STACK_GLOBAL = b"\x93"
_ALIGNMENT = 64
_COUNTS = struct.Struct("!II")
_LENGTH = struct.Struct("!Q")
_PADDING = bytes(_ALIGNMENT)


class Packed:
    """A value in wire form: its pickle and the buffers that go beside it.

    Attributes:
        data: The pickle stream.
        buffers: Out-of-band buffers, in the order the stream takes them; shape (n_buffers,).
    """

    __slots__ = ("buffers", "data")

    def __init__(self, data: Buffer, buffers: Sequence[Any] = ()) -> None:
        self.data = data
        self.buffers = tuple(buffers)

    @classmethod
    def dump(cls, value: Any) -> Packed:
        """Pickle a value; buffers of at least a few hundred bytes stay where they are.

        Functions and classes of `__main__` and of kernel namespaces go by value.

        Raises:
            NotSerializableError: The value cannot be pickled; the message names it.
        """
        buffers: list[pickle.PickleBuffer] = []
        try:
            data = pickle.dumps(value, 5, buffer_callback=buffers.append)
            if _STACK_GLOBAL not in data or not _names_by_value(data):  # without it no module is named at all
                return cls(data, [_flat(buffer) for buffer in buffers] if buffers else ())
        except Exception as error:  # noqa: BLE001  whatever a __reduce__ raises: cloudpickle, which knows more, decides
            log.debug("%s goes by value: %s", type(value), error)
        return cls._dump_by_value(value)

    @classmethod
    def _dump_by_value(cls, value: Any) -> Packed:
        import cloudpickle  # 20 ms and only needed for functions and classes written at a prompt

        buffers: list[pickle.PickleBuffer] = []
        # The registry is one for the process and for all its threads: namespaces are added, never taken out again.
        known = cloudpickle.list_registry_pickle_by_value()
        for name, module in list(sys.modules.items()):
            wanted = (name in _by_value or name.startswith("__pyrokernel_")) and name not in known
            # A module may have put something else in its place, which cloudpickle refuses.
            if wanted and type(module) is types.ModuleType and module.__name__ == name:
                cloudpickle.register_pickle_by_value(module)
        try:
            data = cloudpickle.dumps(value, 5, buffer_callback=buffers.append)
        except Exception as error:
            raise NotSerializableError(
                f"cannot pickle {type(value).__name__}: {type(error).__name__}: {error}"
            ) from error
        return cls(data, [_flat(buffer) for buffer in buffers])

    @property
    def size_bytes(self) -> int:
        """Bytes this value takes on the wire."""
        return len(self.data) + sum(map(len, self.buffers))

    def load(self) -> Any:
        """Unpickle the value: runs whatever code the stream names, so only for peers that may run code here.

        Raises:
            NotSerializableError: The stream needs a class or module that is not here.
        """
        try:
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
        return load_plain(self.data, self.buffers, data=True)

    def as_data(self) -> Packed:
        """Return the same value, to be loaded as `load_data` does."""
        return _PackedData(self.data, self.buffers)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.buffers and len(self.data) <= _IN_BAND_BYTES:
            return Packed, (bytes(self.data),)  # no copy of what is bytes, as it nearly always is
        return Packed, (
            pickle.PickleBuffer(self.data),
            tuple(pickle.PickleBuffer(buffer) for buffer in self.buffers),
        )

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


def _names_by_value(stream: bytes) -> bool:
    """Whether a stream names a module that means something else at the receiver."""
    global _named_by_value
    if _named_by_value is None:
        # As a stream writes a short text, with its length before it, so that a part of another text does not count.
        names = sorted(re.escape(bytes([len(name)]) + name) for name in map(str.encode, _by_value) if len(name) < 256)
        _named_by_value = re.compile(b"|".join([b"__main__", b"__pyrokernel_", *(b"\x8c" + name for name in names)]))
    return _named_by_value.search(stream) is not None


def encode(envelope: Any) -> list[Buffer]:
    """Turn an envelope into the buffers of one payload, ready for `sendmsg`.

    Layout: `!II` number of buffers and length of the pickle, `!Q` each buffer's length,
    then the pickle and the buffers, each starting at a multiple of 64 bytes.

    Raises:
        NotSerializableError: Something in it is neither plain data nor `Packed`.
        MessageTooLargeError: More than 1 GiB.
    """
    loose: list[pickle.PickleBuffer] = []
    try:
        stream = pickle.dumps(envelope, 5, buffer_callback=loose.append)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise NotSerializableError(f"a message holds plain data only: {error}") from error
    if not loose and len(stream) <= MAX_PAYLOAD_BYTES - _ALIGNMENT:
        return [_COUNTS.pack(0, len(stream)) + _PADDING[: _ALIGNMENT - _COUNTS.size], stream]
    views = [_flat(buffer) for buffer in loose]
    head = _COUNTS.pack(len(views), len(stream)) + b"".join(_LENGTH.pack(len(view)) for view in views)
    parts: list[Buffer] = [head]
    total = len(head)
    tail: list[Buffer] = [stream, *views]
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


def decode(payload: memoryview) -> Any:
    """Read an envelope; values in it stay `Packed`, buffers point into `payload`.

    Raises:
        ProtocolError: It is malformed, or names a class.
    """
    try:
        count, length = _COUNTS.unpack_from(payload)
        if count == 0:
            if _ALIGNMENT + length > len(payload):
                raise ValueError("a part reaches beyond the end")
            return _EnvelopeUnpickler(io.BytesIO(payload[_ALIGNMENT : _ALIGNMENT + length])).load()
        if count * _LENGTH.size > len(payload):
            raise ValueError("more buffers than bytes")
        offset = _COUNTS.size
        sizes: list[int] = [length]
        for _ in range(count):
            sizes.append(_LENGTH.unpack_from(payload, offset)[0])
            offset += _LENGTH.size
        parts: list[memoryview] = []
        for size in sizes:
            offset += -offset % _ALIGNMENT
            if offset + size > len(payload):
                raise ValueError("a part reaches beyond the end")
            parts.append(payload[offset : offset + size])
            offset += size
        return _EnvelopeUnpickler(io.BytesIO(parts[0]), buffers=parts[1:]).load()
    except ProtocolError:
        raise
    except Exception as error:  # a garbled pickle can raise nearly anything
        raise ProtocolError(f"a message does not parse: {type(error).__name__}: {error}") from error


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


def _flat(buffer: pickle.PickleBuffer) -> memoryview:
    """View a buffer as bytes, whatever its shape (raw() refuses only non-contiguous ones, which pickle copies)."""
    return buffer.raw()
