"""Plain data: values and arrays in a pickle that runs nobody's code when it is read. Runs in every process.

Such a pickle names three functions of this room and nothing else: one makes values of a short list of kinds,
one an array, one a scalar of an array. Containers and numbers of Python's own need no name in a pickle.
What may come from a client with no more than a URL is narrower: see `is_data`.
"""

from __future__ import annotations

import collections
import functools
import io
import math
import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final

from pyrokernel.errors import NotSerializableError
from pyrokernel.wire.memory import flat

_CLASSES: Final = {
    ("builtins", "complex"): "complex",
    ("builtins", "ellipsis"): "ellipsis",
    ("builtins", "range"): "range",
    ("builtins", "slice"): "slice",
    ("collections", "OrderedDict"): "OrderedDict",
    ("collections", "deque"): "deque",
    ("datetime", "date"): "date",
    ("datetime", "datetime"): "datetime",
    ("datetime", "time"): "time",
    ("datetime", "timedelta"): "timedelta",
    ("datetime", "timezone"): "timezone",
    ("decimal", "Decimal"): "Decimal",
    ("fractions", "Fraction"): "Fraction",
    ("uuid", "UUID"): "UUID",
}
"""Classes of plain data that a pickle has no code of its own for, by name because not all of them are imported."""

_DATA: Final = frozenset({"complex", "date", "datetime", "time", "timedelta", "timezone", "Decimal"})
"""Kinds that count as data for whoever has a URL."""

_BUILTIN: Final = frozenset({bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, type(None)})


def dump_plain(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle plain data and arrays; return the stream and the buffers beside it.

    Raises:
        NotSerializableError: Something in it is neither.
    """
    stream = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    try:
        _Pickler(stream, 5, buffer_callback=buffers.append).dump(value)
        return stream.getvalue(), [flat(buffer) for buffer in buffers]
    except (pickle.PicklingError, RecursionError, AttributeError, TypeError, ValueError, BufferError) as error:
        raise NotSerializableError(f"cannot send it as data: {type(error).__name__}: {error}") from error


def load_plain(stream: Any, buffers: Iterable[Any] = (), *, data: bool = False) -> Any:
    """Unpickle what `dump_plain` wrote, whoever sent it.

    Args:
        stream: Bytes.
        buffers: Those beside it; arrays use them in place.
        data: Refuse what `is_data` does not allow.

    Raises:
        NotSerializableError: It holds something else, or does not parse.
    """
    reader = _DataUnpickler if data else _Unpickler
    try:
        return reader(io.BytesIO(stream), buffers=buffers).load()
    except NotSerializableError:
        raise
    except Exception as error:  # a garbled pickle can raise nearly anything
        raise NotSerializableError(f"the value does not parse: {type(error).__name__}: {error}") from error


def is_plain_class(cls: type) -> bool:
    """Whether the values of a class are plain data, if what they hold is."""
    return cls in _BUILTIN or _kind_of(cls) != ""


def view_of(cls: type) -> Callable[[Any], Any] | None:
    """Return how a view of a stored value (`client.live`, `client.arrays`) becomes what it shows, None for others."""
    return getattr(cls, "to_plain", None) if cls.__module__.startswith("pyrokernel.client.") else None


def is_data(value: Any, *, depth: int = 20) -> bool:
    """Whether a value is plain data, an array of numbers or texts, a date, or made of these alone."""
    if is_simple(value):
        return True
    kind = type(value)
    if depth == 0:
        return False
    if kind in (list, tuple, set, frozenset):
        return all(is_data(item, depth=depth - 1) for item in value)
    if kind is dict:
        return all(is_data(key, depth=depth - 1) and is_data(item, depth=depth - 1) for key, item in value.items())
    numpy = sys.modules.get("numpy")
    return numpy is not None and kind is numpy.ndarray and not value.dtype.hasobject


def is_simple(value: Any) -> bool:
    """Whether a value is one that cannot change: a number, a text, bytes, a date, None, or a tuple of these."""
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return True
    if kind is tuple:
        return all(map(is_simple, value))
    if _kind_of(kind) in _DATA:
        # Time zones that are no mere offset are objects of any class.
        zone = getattr(value, "tzinfo", None)
        return zone is None or _kind_of(type(zone)) == "timezone"
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.generic) and _is_scalar(value)


def _kind_of(cls: type) -> str:
    """Return of which kind the values of a class are, "" for none: a class that only calls itself so is not meant."""
    name = (cls.__module__, cls.__qualname__)
    kind = _CLASSES.get(name, "")
    if kind in ("", "ellipsis"):
        return kind if cls is type(...) else ""
    return kind if getattr(sys.modules.get(name[0]), name[1], None) is cls else ""


def _is_scalar(value: Any) -> bool:
    """Whether a scalar is of NumPy's own class: what a subclass means is more than its number."""
    kind = type(value)
    return kind is value.dtype.type and kind.__module__ == "numpy" and not value.dtype.hasobject


class Maker:
    """What a pickle gets in place of a class or function that it names: it is called, and refuses all else.

    Pickles change what they have: the instruction BUILD calls `__setstate__`, or sets attributes where there is none. A
    class or function would be changed for the whole process.

    Args:
        make: Called with what the pickle has.
    """

    __slots__ = ("_make",)

    _make: Callable[..., Any]

    def __init__(self, make: Callable[..., Any]) -> None:
        object.__setattr__(self, "_make", make)

    def __call__(self, *args: Any) -> Any:
        """Make a value."""
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        self._refuse()

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse()

    def __delattr__(self, name: str) -> None:
        self._refuse()

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._refuse()

    def _refuse(self) -> None:
        raise NotSerializableError("what makes the values of a pickle is neither changed nor passed on by it")


class _Pickler(pickle.Pickler):
    """Writes containers and numbers as ever, and calls of this room's functions for all else."""

    def reducer_override(self, value: Any) -> Any:
        # Called only for what pickle has no code of its own for, and for classes and functions.
        if any(value is named for named in _NAMED):
            return NotImplemented
        kind = type(value)
        name = _kind_of(kind)
        if name:
            return _reduce(name, value)
        view = view_of(kind)
        if view is not None:
            return _make, ("itself", view(value))
        numpy = sys.modules.get("numpy")
        if numpy is not None and kind is numpy.ndarray and not value.dtype.hasobject:
            return _reduce_array(value, numpy)
        if numpy is not None and isinstance(value, numpy.generic) and _is_scalar(value):
            return _make_scalar, (_descr(value.dtype, numpy), value.tobytes())
        raise NotSerializableError(f"only plain data and arrays travel here, not {kind.__name__}")


def _reduce(name: str, value: Any) -> tuple[Any, ...]:
    """Return the call that makes a value, and what is put into it then."""
    if name == "deque":
        return _make, (name, value.maxlen), None, iter(value)
    if name == "OrderedDict":
        if vars(value):
            raise NotSerializableError("an OrderedDict with attributes is more than data")
        return _make, (name,), None, None, iter(value.items())
    return _make, (name, *_ARGUMENTS.get(name, _own_arguments)(value))


def _own_arguments(value: Any) -> Any:
    """Return what a class has its own values made of."""
    return value.__reduce__()[1]


_ARGUMENTS: Final[dict[str, Callable[[Any], Any]]] = {
    "complex": lambda value: (value.real, value.imag),
    "ellipsis": lambda value: (),
    "Fraction": lambda value: (value.numerator, value.denominator),
    "UUID": lambda value: (value.int, value.is_safe.value),
}
"""What values are made of, where that is not what their class says."""


def _reduce_array(value: Any, numpy: Any) -> tuple[Any, ...]:
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    flat = numpy.asarray(value, order=order)
    flat = flat.reshape(-1, order=order).view(numpy.uint8) if flat.size else b""
    return _make_array, (_descr(value.dtype, numpy), value.shape, order, pickle.PickleBuffer(flat))


def _descr(dtype: Any, numpy: Any) -> Any:
    """Return what says the type of elements, so that no class of NumPy's is named.

    The pickles of NumPy's own rebuild it by `__setstate__`, which believes what a stream says of it; one that passes
    pointers off as numbers would let its sender read and write the memory of the receiver.
    """
    return dtype.str if dtype.names is None else numpy.lib.format.dtype_to_descr(dtype)


def _make(name: str, *args: Any) -> Any:
    """Make a value of a kind."""
    maker = _KINDS.get(name)
    if maker is None:
        raise NotSerializableError(f"plain data holds nothing of the kind {name!r:.80}")
    return maker(*args)


def _make_data(name: str, *args: Any) -> Any:
    """Make a value of a kind that counts as data."""
    if name not in _DATA:
        raise NotSerializableError(f"only plain data and arrays are taken here, nothing of the kind {name!r:.80}")
    return _make(name, *args)


def _make_date(name: str, *args: Any) -> Any:
    import datetime  # as the rooms of the other kinds: for those who have any

    return getattr(datetime, name)(*args)


def _make_decimal(text: str) -> Any:
    import decimal

    return decimal.Decimal(text)


def _make_fraction(numerator: int, denominator: int) -> Any:
    # A text may have an exponent, which would be computed.
    if type(numerator) is not int or type(denominator) is not int:
        raise NotSerializableError(f"a fraction is made of integers, not of {numerator!r:.40} and {denominator!r:.40}")
    import fractions

    return fractions.Fraction(numerator, denominator)


def _make_uuid(number: int, safe: int | None) -> Any:
    if type(number) is not int:
        raise NotSerializableError(f"a UUID is made of an integer, not of {number!r:.40}")
    import uuid

    return uuid.UUID(int=number, is_safe=uuid.SafeUUID(safe))


# What collections hold comes after them: made of a range or a number, a few bytes would fill the memory.
_KINDS: Final[dict[str, Callable[..., Any]]] = {
    "complex": complex,
    "ellipsis": lambda: ...,
    "itself": lambda value: value,  # of a live view, which travels as what it shows
    "range": range,
    "slice": slice,
    "OrderedDict": lambda: collections.OrderedDict(),
    "deque": lambda length: collections.deque(maxlen=length),
    "Decimal": _make_decimal,
    "Fraction": _make_fraction,
    "UUID": _make_uuid,
    **{name: functools.partial(_make_date, name) for name in ("date", "datetime", "time", "timedelta", "timezone")},
}
"""Makes a value of each kind."""


def _make_array(descr: Any, shape: tuple[int, ...], order: str, buffer: Any) -> Any:
    """Make an array on its buffer; without NumPy here, say so."""
    numpy = _numpy()
    dtype = _dtype(descr, numpy)
    if type(shape) is not tuple or not all(type(length) is int and length >= 0 for length in shape):
        raise NotSerializableError(f"an array has no shape of {shape!r:.40}")
    # An array without bytes would be made of whatever lies in the memory, and as much of that as its shape says.
    if math.prod(shape) * dtype.itemsize != memoryview(buffer).nbytes:
        raise NotSerializableError(f"an array of shape {shape!r:.40} is not made of {memoryview(buffer).nbytes} bytes")
    if 0 in shape:
        return numpy.empty(shape, dtype)
    return numpy.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _make_scalar(descr: Any, data: bytes) -> Any:
    """Make a scalar of an array."""
    numpy = _numpy()
    dtype = _dtype(descr, numpy)
    if dtype.itemsize == 0:  # an empty text
        return numpy.zeros((), dtype)[()]
    if len(data) != dtype.itemsize:
        raise NotSerializableError(f"a scalar of {dtype.itemsize} bytes is not made of {len(data)}")
    return numpy.frombuffer(data, dtype=dtype)[0]


def _dtype(descr: Any, numpy: Any) -> Any:
    """Return the type of elements by its description; objects would be pointers of the sender's choice."""
    dtype = numpy.lib.format.descr_to_dtype(descr)
    if dtype.hasobject:
        raise NotSerializableError("an array of plain data holds no objects")
    return dtype


@functools.cache
def _numpy() -> Any:
    try:
        import numpy  # only where a value is one of its arrays
    except ImportError as error:
        raise NotSerializableError("the value is a NumPy array, and NumPy is not installed here") from error
    return numpy


_NAMED: Final = (_make, _make_array, _make_scalar)
"""What a pickle of plain data names."""

_MAKERS: Final = {function.__name__: Maker(function) for function in _NAMED}
_DATA_MAKERS: Final = {**_MAKERS, _make.__name__: Maker(_make_data)}


class _Unpickler(pickle.Unpickler):
    """Reads plain data and arrays; any other name is refused, and none is looked up."""

    makers = _MAKERS

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name."""
        if module == __name__ and name in self.makers:
            return self.makers[name]
        raise NotSerializableError(f"plain data may not name {module}.{name}")


class _DataUnpickler(_Unpickler):
    """Reads what `is_data` allows."""

    makers = _DATA_MAKERS
