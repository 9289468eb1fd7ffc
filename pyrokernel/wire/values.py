"""How values of the shared state become bytes, and which of them everybody may load. Runs in every process.

A value has a *kind*, which says who may read it:

- "int", "float", "str" and "bytes" are what they say, as text or bytes; no pickle is involved.
- "plain" is data (None, bool, lists, dicts, sets, tuples, dates, decimals ...) and NumPy arrays, pickled so
  that it is read by an unpickler that knows a short list of harmless constructors and refuses all others.
- "pickle" is any other object; whoever loads it runs what its pickle says, so only readers who trust its author do.
- "reference" says, as plain data, where an object is that stays in its kernel.

The service that keeps the values reads none of them but "int" and "float", which it can add to.
"""

from __future__ import annotations

import collections
import functools
import io
import pickle
import re
import reprlib
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pyrokernel.errors import NotSerializableError
from pyrokernel.wire.codec import Buffer, Packed

__all__ = ["PLAIN", "SCALARS", "Encoded", "decode_value", "encode_value", "type_name"]

SCALARS = ("int", "float", "str", "bytes")
"""Kinds that are read without a pickle."""

PLAIN = (*SCALARS, "plain", "reference")
"""Kinds that run no code when they are read."""

SUMMARY_CHARS = 80
_MAX_INT_BITS = 4096
"""Above this the text of an integer takes quadratic time, and Python refuses to make it; it goes as plain data."""

_HARMLESS = {
    ("builtins", "Ellipsis"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
    ("builtins", "ellipsis"),
    ("builtins", "frozenset"),
    ("builtins", "range"),
    ("builtins", "set"),
    ("builtins", "slice"),
    ("collections", "OrderedDict"),
    ("collections", "deque"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "time"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    ("uuid", "UUID"),
    ("uuid", "SafeUUID"),
    ("_codecs", "encode"),  # how protocol 2 writes bytes; with "latin1" only, see _latin1
    (__name__, "_array"),
    (__name__, "_scalar"),
}
"""What plain data may name: constructors that only make values."""


class Encoded(NamedTuple):
    """A value in wire form.

    Attributes:
        kind: See this module's docstring.
        type: Name of its class, for people.
        summary: A few words that say what it is.
        parts: The pickle or text, then the buffers beside it; shape (1 + n_buffers,).
    """

    kind: str
    type: str
    summary: str
    parts: tuple[Buffer, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts together."""
        return sum(len(part) for part in self.parts)


def encode_value(value: Any) -> Encoded:
    """Return a value in wire form: as plain data where that is possible, else pickled.

    Raises:
        NotSerializableError: It cannot be pickled; the message names its class.
    """
    kind = type(value)
    if kind is int and value.bit_length() <= _MAX_INT_BITS:
        text = str(value)
        return Encoded("int", "int", text if len(text) <= SUMMARY_CHARS else text[:77] + "...", (text.encode(),))
    if kind is float:
        text = repr(value)
        return Encoded("float", "float", text, (text.encode(),))
    if kind is str:
        return Encoded("str", "str", _short(value), (value.encode("utf-8", "surrogatepass"),))
    if kind is bytes:
        return Encoded("bytes", "bytes", _short(value), (value,))
    view = _plain_of(kind)
    if view is not None:
        return encode_value(view(value))
    try:
        parts = _dump_plain(value)
    except _NotPlain:
        packed = Packed.dump(value)
        return Encoded("pickle", type_name(kind), f"<{type_name(kind)}>", (packed.data, *packed.buffers))
    return Encoded("plain", type_name(kind), _summary(value), parts)


def decode_value(kind: str, parts: Sequence[Buffer]) -> Any:
    """Return the value; of a pickle, whoever calls this has decided to run what it says.

    Args:
        kind: As `Encoded.kind`.
        parts: As `Encoded.parts`; arrays use these buffers in place.

    Raises:
        NotSerializableError: It needs a class that is not here, or plain data names one that it may not.
    """
    if kind in PLAIN:
        try:
            return _decode_plain(kind, parts)
        except NotSerializableError:
            raise
        except Exception as error:  # a garbled pickle can raise nearly anything
            raise NotSerializableError(f"the value does not parse: {type(error).__name__}: {error}") from error
    if kind != "pickle":
        raise NotSerializableError(f"it is of a kind that is not known here, {kind!r:.80}")
    return Packed(parts[0], parts[1:]).load()


def _decode_plain(kind: str, parts: Sequence[Buffer]) -> Any:
    first = parts[0]
    if kind == "int":
        return int(bytes(first))
    if kind == "float":
        return float(bytes(first))
    if kind == "str":
        return str(first, "utf-8", "surrogatepass")
    if kind == "bytes":
        return bytes(first)
    return _PlainUnpickler(io.BytesIO(first), buffers=parts[1:]).load()


def type_name(cls: type) -> str:
    """Return the name of a class as people write it: builtins without their module."""
    module = getattr(cls, "__module__", "")
    name = str(getattr(cls, "__qualname__", cls))
    return name if module in ("builtins", "") else f"{module}.{name}"


def _plain_of(cls: type) -> Callable[[Any], Any] | None:
    """Return how a view of a stored value (`client.live`, `client.arrays`) becomes what it shows, None for others."""
    return getattr(cls, "to_plain", None) if cls.__module__.startswith("pyrokernel.client.") else None


class _NotPlain(Exception):
    """Something in a value is neither plain data nor an array."""


def _dump_plain(value: Any) -> tuple[Buffer, ...]:
    """Pickle plain data and arrays; anything else raises `_NotPlain`."""
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    try:
        _PlainPickler(stream, 5, buffer_callback=buffers.append).dump(value)
    except (_NotPlain, pickle.PicklingError, RecursionError, AttributeError, TypeError) as error:
        raise _NotPlain from error
    return (stream.getvalue(), *(buffer.raw() for buffer in buffers))


class _PlainPickler(pickle.Pickler):
    """Pickles builtin containers as ever, a few value types by their constructors, arrays by their buffer."""

    def reducer_override(self, value: Any) -> Any:
        # Called only for what pickle has no code of its own for; containers and numbers never come here.
        kind = type(value)
        # Classes and functions come here too, on their way into the stream as the constructors of values.
        is_named = isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType))
        named = value if is_named else kind
        if (named.__module__, named.__qualname__) in _HARMLESS:
            return NotImplemented
        view = _plain_of(kind)
        if view is not None:
            return _as_is, (view(value),)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            return self._reduce_array(value, numpy)
        if numpy is not None and isinstance(value, numpy.generic) and not value.dtype.hasobject:
            return _scalar, (value.dtype.str, value.tobytes()) if value.dtype.names is None else _refuse()
        raise _NotPlain

    def _reduce_array(self, value: Any, numpy: Any) -> Any:
        # Subclasses (masked arrays, matrices) mean something else than their numbers alone.
        if type(value) is not numpy.ndarray or value.dtype.hasobject:
            raise _NotPlain
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        flat = numpy.asarray(value, order=order)
        flat = flat.reshape(-1, order=order).view(numpy.uint8) if flat.size else flat
        descr = value.dtype.str if value.dtype.names is None else numpy.lib.format.dtype_to_descr(value.dtype)
        return _array, (descr, value.shape, order, pickle.PickleBuffer(flat if value.size else b""))


def _refuse() -> Any:
    raise _NotPlain


class _PlainUnpickler(pickle.Unpickler):
    """Reads plain data and arrays; any other class is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise NotSerializableError(f"plain data may not name {module}.{name}")
        if module == "_codecs":
            return _latin1
        if module == "fractions":
            return _fraction
        found = super().find_class(module, name)
        return functools.partial(_collection, found) if found in _COLLECTIONS else found


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, by which pickles write bytes; of encodings there, one is harmless for sure."""
    if encoding != "latin1":
        raise NotSerializableError(f"plain data may not be encoded as {encoding!r}")
    return text.encode("latin1")


_COLLECTIONS = (bytearray, set, frozenset, collections.deque, collections.OrderedDict)


def _collection(cls: Any, *args: Any) -> Any:
    """Make a collection of what the stream holds; of a range or a number, a few bytes would fill the memory."""
    if any(isinstance(one, (range, int)) for one in args[:1]):
        raise NotSerializableError(f"plain data may not hold a {cls.__name__} of {args[0]!r:.40}")
    return cls(*args)


def _fraction(*args: Any) -> Any:
    """Make a fraction of integers; the text may have an exponent, which would be computed."""
    if not all(type(one) is int or (type(one) is str and re.fullmatch(r"-?\d+(/\d+)?", one)) for one in args):
        raise NotSerializableError(f"plain data may not hold a fraction of {args!r:.40}")
    import fractions  # 3 ms, for those who have any

    return fractions.Fraction(*args)


def _array(descr: Any, shape: tuple[int, ...], order: str, buffer: Any) -> Any:
    """Rebuild an array on its buffer; without NumPy here, say so."""
    numpy = _numpy()
    dtype = numpy.dtype(descr if isinstance(descr, str) else [tuple(field) for field in descr])
    if dtype.hasobject:
        raise NotSerializableError("an array of plain data holds no objects")
    if len(memoryview(buffer)) == 0:
        return numpy.empty(shape, dtype)
    return numpy.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _scalar(descr: str, data: bytes) -> Any:
    """Rebuild a NumPy scalar."""
    return _numpy().frombuffer(data, dtype=descr)[0]


def _as_is(value: Any) -> Any:
    """Stand for what is plain itself: a live view travels as what it shows."""
    return value


_HARMLESS.add((__name__, "_as_is"))


@functools.cache
def _numpy() -> Any:
    try:
        import numpy  # only where a value is one of its arrays
    except ImportError as error:
        raise NotSerializableError("the value is a NumPy array, and NumPy is not installed here") from error
    return numpy


_SHOWN = (bool, float, bytes, types.NoneType, types.EllipsisType)


class _Summary(reprlib.Repr):
    """A short repr of plain data; of what is not known only the class is named."""

    def __init__(self) -> None:
        super().__init__()
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 6
        self.maxstring = self.maxother = self.maxlong = 40
        self.maxlevel = 3

    def repr_instance(self, x: Any, level: int) -> str:
        kind = type(x)
        if hasattr(x, "dtype") and hasattr(x, "shape") and kind.__module__.partition(".")[0] == "numpy":
            return f"<array {x.dtype} {x.shape}>" if x.shape else str(x)
        if kind in _SHOWN or (kind.__module__, kind.__qualname__) in _HARMLESS:
            return super().repr_instance(x, level)
        return f"<{type_name(kind)}>"


_summaries = _Summary()


def _summary(value: Any) -> str:
    return _cut(_summaries.repr(value))


def _short(value: str | bytes) -> str:
    return _cut(repr(value[: SUMMARY_CHARS + 1]))


def _cut(text: str) -> str:
    return text if len(text) <= SUMMARY_CHARS else text[: SUMMARY_CHARS - 3] + "..."
