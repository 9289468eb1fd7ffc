"""How values of the shared state become bytes, and which of them everybody may load. Runs in every process.

A value has a *kind*, which says who may read it:

- "int", "float", "str" and "bytes" are what they say, as text or bytes; no pickle is involved.
- "plain" is data (None, bool, lists, dicts, sets, tuples, dates, decimals ...) and NumPy arrays, pickled so
  that reading it makes these and nothing else: see `plain`.
- "pickle" is any other object; whoever loads it runs what its pickle says, so only readers who trust its author do.
- "reference" says, as plain data, where an object is that stays in its kernel.

The service that keeps the values reads none of them but "int" and "float", which it can add to.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from pyrokernel.errors import NotSerializableError
from pyrokernel.wire.codec import Buffer, Packed
from pyrokernel.wire.large import join
from pyrokernel.wire.plain import dump_plain, is_plain_class, load_plain, view_of

__all__ = ["PLAIN", "SCALARS", "Encoded", "decode_value", "encode_value", "type_name"]

SCALARS = ("int", "float", "str", "bytes")
"""Kinds that are read without a pickle."""

PLAIN = (*SCALARS, "plain", "reference")
"""Kinds that run no code when they are read."""

SUMMARY_CHARS = 80
_MAX_INT_BITS = 4096
"""Above this the text of an integer takes quadratic time, and Python refuses to make it; it goes as plain data."""


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
    view = view_of(kind)
    if view is not None:
        return encode_value(view(value))
    try:
        stream, buffers = dump_plain(value)
    except NotSerializableError:
        packed = Packed.dump(value)
        return Encoded("pickle", type_name(kind), f"<{type_name(kind)}>", (join(packed.data), *packed.buffers))
    return Encoded("plain", type_name(kind), _summary(value), (stream, *buffers))


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
    return load_plain(first, parts[1:])


def type_name(cls: type) -> str:
    """Return the name of a class as people write it: builtins without their module."""
    module = getattr(cls, "__module__", "")
    name = str(getattr(cls, "__qualname__", cls))
    return name if module in ("builtins", "") else f"{module}.{name}"


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
        if is_plain_class(kind):
            return super().repr_instance(x, level)
        return f"<{type_name(kind)}>"


_summaries = _Summary()


def _summary(value: Any) -> str:
    return _cut(_summaries.repr(value))


def _short(value: str | bytes) -> str:
    return _cut(repr(value[: SUMMARY_CHARS + 1]))


def _cut(text: str) -> str:
    return text if len(text) <= SUMMARY_CHARS else text[: SUMMARY_CHARS - 3] + "..."
