"""Large values without NumPy: bytes, bytearrays, arrays and memory views that are not copied into a pickle.

Runs in every process. The pickler hands over large bytes as they are where it writes to a file, and so the stream is
a list of pieces, most of which are the user's own objects. Arrays and views go beside it, as those of NumPy do, and
come back as what they were.

Source: `_Pickler_write_bytes` in CPython's Modules/_pickle.c.
"""

from __future__ import annotations

import array
import collections
import copyreg
import functools
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

from pyrokernel.errors import NotSerializableError
from pyrokernel.wire.segments import PART_BYTES

__all__ = ["Pieces", "Stream", "dump_by_value", "dump_pieces", "holds_large", "join", "load_pieces", "small_pieces"]

Buffer: TypeAlias = "bytes | bytearray | memoryview"
Pieces: TypeAlias = "tuple[Buffer, ...]"
Stream: TypeAlias = "Buffer | Pieces"

_LARGE = frozenset({bytes, bytearray, array.array, memoryview})
_CONTAINERS = frozenset({tuple, list, dict})
_LOOKED_AT = 64
"""So many items of a container are looked at; who has more of them has small ones, as a rule."""

_MAX_FRAME_BYTES = 4 * PART_BYTES
"""No piece that the pickler itself wrote is larger: it begins a new one after 64 KiB."""


def holds_large(values: Iterable[Any]) -> bool:
    """Whether there are some of those that this room is for among values, or in containers among them."""
    for value in values:
        kind = type(value)
        if kind in _LARGE:
            if kind is memoryview or len(value) >= PART_BYTES:
                return True
        elif kind in _CONTAINERS and 0 < len(value) <= _LOOKED_AT:
            for one in value.values() if kind is dict else value:
                if type(one) in _LARGE and (type(one) is memoryview or len(one) >= PART_BYTES):
                    return True
    return False


def dump_pieces(value: Any) -> tuple[Stream, list[pickle.PickleBuffer]]:
    """Pickle a value; return its stream, and the buffers beside it."""
    return _dump(pickle.Pickler, value, _TABLE)


def dump_by_value(value: Any) -> tuple[Stream, list[pickle.PickleBuffer]]:
    """Pickle a value by cloudpickle; return its stream, and the buffers beside it."""
    made = _by_value_pickler()
    return _dump(made, value, made.dispatch_table)


def load_pieces(pieces: Sequence[Buffer], buffers: Sequence[Any]) -> Any:
    """Unpickle what `dump_pieces` made: large bytes are copied once, to where they stay."""
    return pickle.Unpickler(_Reader(pieces), buffers=buffers).load()


def join(stream: Stream) -> Buffer:
    """Return a stream in one piece.

    Raises:
        NotSerializableError: A peer sent something else.
    """
    try:
        return b"".join(stream) if isinstance(stream, tuple) else stream
    except TypeError as error:
        raise NotSerializableError(f"the pieces of a value are bytes: {error}") from error


def small_pieces(stream: Stream) -> Sequence[Buffer]:
    """Return the pieces of a stream in which names can be."""
    return [one for one in stream if len(one) <= _MAX_FRAME_BYTES] if isinstance(stream, tuple) else [stream]


def _dump(made: Callable[..., Any], value: Any, table: Any) -> tuple[Stream, list[pickle.PickleBuffer]]:
    sink, buffers = _Sink(), []  # type: _Sink, list[pickle.PickleBuffer]
    pickler = made(sink, 5, buffer_callback=buffers.append)
    pickler.dispatch_table = table
    pickler.dump(value)
    pieces: list[Buffer] = []
    small: list[Any] = []
    for one in sink.written:
        if len(one) < PART_BYTES:
            small.append(one)
            continue
        if small:
            pieces.append(b"".join(small))
            small.clear()
        pieces.append(one)
    if small:
        pieces.append(b"".join(small))
    return (pieces[0] if len(pieces) == 1 else tuple(pieces)), buffers


class _Sink:
    """A file that keeps what is written to it, uncopied."""

    __slots__ = ("write", "written")

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.write = self.written.append


class _Reader:
    """A file of several pieces, of which large ones are copied to where the reader wants them."""

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        self._pieces = collections.deque(memoryview(piece) for piece in pieces)

    def readinto(self, target: Any) -> int:
        """Fill a buffer as far as there is something."""
        view, done = memoryview(target).cast("B"), 0
        while done < len(view) and self._pieces:
            piece = self._pieces[0]
            part = piece[: len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)
            if len(part) == len(piece):
                self._pieces.popleft()
            else:
                self._pieces[0] = piece[len(part) :]
        return done

    def read(self, size: int) -> bytes:
        """Return so many bytes, or what is left."""
        target = bytearray(min(size, sum(map(len, self._pieces))))
        self.readinto(target)
        return bytes(target)

    def readline(self) -> bytes:
        """Return the rest of a line; no opcode of protocol 5 asks for one."""
        line = bytearray()
        while not line.endswith(b"\n") and (one := self.read(1)):
            line += one
        return bytes(line)


def make_array(typecode: str, data: Any) -> array.array[Any]:
    """Return an array of a buffer's content (named by pickles)."""
    made = array.array(typecode)
    made.frombytes(data)
    return made


def make_view(data: Any, code: str, shape: tuple[int, ...]) -> memoryview:
    """Return a view of a buffer, of elements of a type and in a shape (named by pickles)."""
    view = memoryview(data).cast("B")
    return view.cast(code, shape) if len(shape) > 1 and len(view) else view.cast(code)  # type: ignore[call-overload, no-any-return]  # the code is one of a memoryview


def _reduce_array(value: array.array[Any]) -> tuple[Any, ...]:
    return make_array, (value.typecode, pickle.PickleBuffer(value))


def _reduce_view(value: memoryview) -> tuple[Any, ...]:
    data = value if value.c_contiguous else memoryview(value.tobytes())
    try:
        memoryview(b"").cast(value.format)  # type: ignore[call-overload]  # the format may be any
    except (ValueError, NotImplementedError):
        return make_view, (pickle.PickleBuffer(data), "B", (value.nbytes,))
    return make_view, (pickle.PickleBuffer(data), value.format, value.shape)


_REDUCERS = {array.array: _reduce_array, memoryview: _reduce_view}


_TABLE: Any = collections.ChainMap(_REDUCERS, copyreg.dispatch_table)
"""What the pickler asks; all else is found where pickle.dumps finds it."""


@functools.cache
def _by_value_pickler() -> Any:
    import cloudpickle  # 20 ms and only needed for functions and classes written at a prompt

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # it has no type information
        dispatch_table: ClassVar[Any] = collections.ChainMap(_REDUCERS, *cloudpickle.Pickler.dispatch_table.maps)

    return ByValue
