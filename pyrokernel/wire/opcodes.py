"""Requests of a peer that may not run code: a pickle of plain data, read by hand. Runs in every process that is called.

Python's own unpickler, even one that looks up no names, does what its instructions say: it makes a memo of any size,
takes objects from the registry of `copyreg`, puts one list into another until walking through them takes for ever. A
request to look at something needs none of that. Read here are numbers, texts, bytes, and lists, tuples, dicts and sets
of them, as our own clients write them; any other instruction ends the request. Object and method come first, so that
they are known before anything behind them is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from pyrokernel.errors import ProtocolError

__all__ = ["MAX_REQUEST_BYTES", "SmallRequest"]

MAX_REQUEST_BYTES: Final = 256 * 1024
"""Of one request: what is completed or inspected is a cell at most."""

_HEAD_BYTES: Final = 64
_COUNTS = struct.Struct("!II")
_MAX_DEPTH: Final = 20
_MAX_STACK: Final = 4096
_MAX_MEMO: Final = 16_384

_MARK: Final = object()
_PLAIN_KEYS: Final = (str, int, float, bool, bytes, type(None))


class SmallRequest:
    """One request, read as far as it is asked for.

    Args:
        payload: As `codec.encode` makes it, without large buffers.

    Attributes:
        object_id, method: What it is for.

    Raises:
        ProtocolError: It does not begin as a request does.
    """

    def __init__(self, payload: memoryview) -> None:
        self._stack: list[tuple[Any, int]] = []
        """Values and how deep each is."""
        self._memo: list[Any] = []
        self._data = b""
        self._at = 0
        if len(payload) > MAX_REQUEST_BYTES:
            raise ProtocolError(f"a request of {len(payload)} bytes, where at most {MAX_REQUEST_BYTES} are taken")
        if len(payload) < _HEAD_BYTES:
            raise ProtocolError("a request is cut off")
        # Buffers beside the stream are for values, which whoever may only look does not send.
        self._buffers, length = _COUNTS.unpack_from(payload)
        if self._buffers == 0:
            self._data = bytes(payload[_HEAD_BYTES : _HEAD_BYTES + length])
        else:
            begin = _COUNTS.size + 8 * self._buffers
            begin += -begin % _HEAD_BYTES
            self._data = bytes(payload[begin : begin + length])
        self._run(lambda: len(self._texts()) >= 3)
        found = self._texts()
        if len(found) < 3 or found[0] is not _MARK or not isinstance(found[1], str) or not isinstance(found[2], str):
            raise ProtocolError("a request begins with an object and a method")
        self.object_id, self.method = found[1], found[2]

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments, and the named ones.

        Raises:
            ProtocolError: They are more than plain data, or do not parse.
        """
        if self._buffers:
            raise ProtocolError("a request of somebody who may only look has no large values")
        self._run(lambda: False)
        whole = self._stack[0][0] if len(self._stack) == 1 else None
        if not isinstance(whole, tuple) or len(whole) != 4 or whole[:2] != (self.object_id, self.method):
            raise ProtocolError("a request has object, method, arguments and named arguments")
        args, kwargs = whole[2:]
        if not isinstance(args, (tuple, list)) or not isinstance(kwargs, dict):
            raise ProtocolError("the arguments of a request are a tuple and a dict")
        if not all(isinstance(name, str) for name in kwargs):
            raise ProtocolError("arguments are named by texts")
        return tuple(args), kwargs

    def _texts(self) -> list[Any]:
        return [value for value, _ in self._stack[:3]]

    def _run(self, is_enough: Callable[[], bool]) -> None:
        """Carry out instructions to the end, or until what is there is enough."""
        try:
            while not is_enough():
                code = self._data[self._at]
                self._at += 1
                if code == 0x2E:  # STOP
                    return
                self._step(code)
                if len(self._stack) > _MAX_STACK:
                    raise ProtocolError("a request holds too much at once")
        except (IndexError, ValueError, TypeError, struct.error) as error:
            raise ProtocolError(f"a request does not parse: {type(error).__name__}: {error}") from error

    def _step(self, code: int) -> None:
        if code in _VALUES:
            self._stack.append((_VALUES[code](), 1))
        elif code in _SIZED:
            size, make = _SIZED[code]
            self._stack.append((make(self._take(size)), 0))
        elif code in _LONG:
            size, make = _LONG[code]
            self._stack.append((make(self._take(int.from_bytes(self._take(size), "little"))), 0))
        elif code in _SKIPPED:
            self._take(_SKIPPED[code])
        elif code in _TUPLES:
            count = _TUPLES[code]
            if len(self._stack) < count:
                raise IndexError("too few values for a tuple")
            items, self._stack[-count:] = self._stack[-count:], []
            self._push(tuple, items)
        elif code in _STEPS:
            _STEPS[code](self)
        else:
            raise ProtocolError(f"whoever may only look sends plain data, and no instruction {code:#04x}")

    def _take(self, size: int) -> bytes:
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            raise IndexError("it is cut off")
        self._at += size
        return data

    def _push(self, make: Callable[[list[Any]], Any], items: list[tuple[Any, int]]) -> None:
        self._stack.append((make([self._checked(value) for value, _ in items]), self._deeper(items)))

    def _checked(self, value: Any) -> Any:
        if value is _MARK:
            raise ValueError("a mark is no value")
        return value

    def _deeper(self, items: list[tuple[Any, int]]) -> int:
        depth = 1 + max((depth for _, depth in items), default=0)
        if depth > _MAX_DEPTH:
            raise ProtocolError(f"a request has lists within lists, {_MAX_DEPTH} deep at most")
        return depth

    def _since_mark(self) -> list[tuple[Any, int]]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at][0] is _MARK:
                items, self._stack[at:] = self._stack[at + 1 :], []
                return items
        raise IndexError("there is no mark")

    def _extend(self, kind: Any, items: list[tuple[Any, int]]) -> None:
        """Put items into the container on top."""
        target: Any
        target, depth = self._stack.pop()
        if type(target) is not kind:
            raise ValueError(f"no {kind.__name__} to put items into")
        values = [self._checked(value) for value, _ in items]
        if kind is list:
            target.extend(values)
        elif kind is set:
            target.update(map(_key, values))
        else:
            if len(values) % 2:
                raise ValueError("a key has no value")
            target.update(zip(map(_key, values[::2]), values[1::2], strict=True))
        self._stack.append((target, max(depth, self._deeper(items))))

    # The instructions

    def _mark(self) -> None:
        self._stack.append((_MARK, 0))

    def _tuple(self) -> None:
        self._push(tuple, self._since_mark())

    def _frozenset(self) -> None:
        self._push(lambda values: frozenset(map(_key, values)), self._since_mark())

    def _append(self) -> None:
        self._extend(list, [self._stack.pop()])

    def _appends(self) -> None:
        self._extend(list, self._since_mark())

    def _set_item(self) -> None:
        value = self._stack.pop()
        self._extend(dict, [self._stack.pop(), value])

    def _set_items(self) -> None:
        self._extend(dict, self._since_mark())

    def _add_items(self) -> None:
        self._extend(set, self._since_mark())

    def _memoize(self) -> None:
        if len(self._memo) >= _MAX_MEMO:
            raise ProtocolError("a request remembers too much")
        self._memo.append(self._stack[-1][0])

    def _fetch(self) -> None:
        self._get(self._take(1)[0])

    def _long_get(self) -> None:
        self._get(int.from_bytes(self._take(4), "little"))

    def _get(self, at: int) -> None:
        value = self._memo[at]
        # A container in many places is small here, and endless for whoever walks through it.
        if type(value) not in _PLAIN_KEYS:
            raise ProtocolError("a request has the same list, dict or tuple twice")
        self._stack.append((value, 0))


def _key(value: Any) -> Any:
    """Return a key or a member of a set; of tuples within tuples the hash alone could take for ever."""
    if type(value) not in _PLAIN_KEYS:
        raise ProtocolError("keys in a request are numbers and texts")
    return value


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _unsigned(data: bytes) -> int:
    return int.from_bytes(data, "little")


# Instructions by their codes, as `pickletools` describes them; a pickle of protocol 5 of data alone uses no others.
_VALUES: Final[dict[int, Callable[[], Any]]] = {
    ord("N"): lambda: None,
    0x88: lambda: True,
    0x89: lambda: False,
    ord("]"): list,
    ord(")"): tuple,
    ord("}"): dict,
    0x8F: set,
}
_SIZED: Final[dict[int, tuple[int, Callable[[bytes], Any]]]] = {
    ord("J"): (4, _signed),
    ord("K"): (1, _unsigned),
    ord("M"): (2, _unsigned),
    ord("G"): (8, lambda data: struct.unpack(">d", data)[0]),
}
_LONG: Final[dict[int, tuple[int, Callable[[bytes], Any]]]] = {
    0x8A: (1, _signed),
    0x8C: (1, _text),
    ord("X"): (4, _text),
    ord("C"): (1, bytes),
    ord("B"): (4, bytes),
}
_SKIPPED: Final = {0x80: 1, 0x95: 8}
"""The version, and the lengths of frames, which are for readers of files."""
_TUPLES: Final = {0x85: 1, 0x86: 2, 0x87: 3}
_STEPS: Final[dict[int, Callable[[SmallRequest], None]]] = {
    ord("("): SmallRequest._mark,
    ord("t"): SmallRequest._tuple,
    0x91: SmallRequest._frozenset,
    ord("a"): SmallRequest._append,
    ord("e"): SmallRequest._appends,
    ord("s"): SmallRequest._set_item,
    ord("u"): SmallRequest._set_items,
    0x90: SmallRequest._add_items,
    0x94: SmallRequest._memoize,
    ord("h"): SmallRequest._fetch,
    ord("j"): SmallRequest._long_get,
}
