"""Data and arrays travel so that any peer can load them, and nothing else does."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import os
import pickle
import re
from typing import Any

import pytest

from pyrokernel.errors import NotSerializableError, ProtocolError
from pyrokernel.wire import codec, plain
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.plain import is_data, is_simple

numpy = pytest.importorskip("numpy")

DATA: list[Any] = [
    None, True, 3, 2.5, 1j, "text", b"bytes", (), (1, ("a", None)), [1, [2]], {"a": {1: (2,)}}, {1, 2}, frozenset({3}),
    datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC), datetime.date(2026, 1, 2), datetime.timedelta(1.5),
    datetime.time(1, 2), decimal.Decimal("1.10"),
]  # fmt: skip

ARRAYS: list[Any] = [
    numpy.arange(6).reshape(2, 3), numpy.arange(6).reshape(2, 3).T, numpy.empty((0, 3)), numpy.array(5.0),
    numpy.array(["a", "bcd"]), numpy.array([b"x"]), numpy.array(["2026-01-02"], "M8[D]"), numpy.ones(1000, ">f4")[::3],
    numpy.zeros(3, [("x", "i4"), ("y", "f8", 2)]), numpy.array([True, False]), numpy.array([1 + 2j]),
]  # fmt: skip


@pytest.mark.parametrize("value", DATA, ids=repr)
def test_data_comes_back_as_it_was(value: Any) -> None:
    assert is_data(value)
    loaded = Packed.dump_data(value).load_data()
    assert (type(loaded), loaded) == (type(value), value)


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back_as_they_were(array: Any) -> None:
    loaded = Packed.dump_data({"array": [array]}).load_data()["array"][0]
    assert (loaded.dtype, loaded.shape) == (array.dtype, array.shape)
    assert numpy.array_equal(loaded, array)


@pytest.mark.parametrize(
    "scalar", [numpy.float32(1.5), numpy.int64(3), numpy.bool_(True), numpy.datetime64("2026-01-02")]
)
def test_scalars_of_arrays_come_back_as_scalars(scalar: Any) -> None:
    assert is_simple(scalar)
    loaded = Packed.dump_data(scalar).load_data()
    assert (type(loaded), loaded) == (type(scalar), scalar)


class Text(str):
    """A text with code of its own."""

    __slots__ = ()


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "value",
    [object(), len, os, Text("x"), Pair(1, 2), [print], {"a": object()}, numpy.array([print]), fractions.Fraction(1, 2),
     range(3), collections.OrderedDict(a=1), numpy.ma.masked_array([1]), numpy.dtype("f8")],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_is_no_data_is_not_sent_as_such(value: Any) -> None:
    assert not is_data(value)
    with pytest.raises(NotSerializableError):
        Packed.dump_data(value)


class Runs:
    """Runs a function where it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "value",
    [Runs(os.system, "true"), Runs(eval, "1"), Runs(getattr, "", "join"), Runs(numpy.dtype, "O"), Runs(numpy.load, "x"),
     Runs(numpy.arange, 3), numpy.arange(3), [Runs(bytearray, 10)], fractions.Fraction(1, 2), datetime,
     Runs(plain._make, "Fraction", 1, 2), Runs(plain._make, "range", 9), Runs(plain._make_data, "complex", 1)],
    ids=lambda value: re.sub(" at 0x.*?>", ">", repr(getattr(value, "call", value)))[:40],
)  # fmt: skip
def test_a_stream_that_names_anything_else_is_not_loaded(value: Any) -> None:
    try:
        stream = pickle.dumps(value)
    except TypeError:  # a module: not even this could be sent
        stream = b"cos\nsystem\n."
    with pytest.raises(NotSerializableError):
        Packed(stream).load_data()
    with pytest.raises(NotSerializableError):
        Packed(stream).as_data().load()


@pytest.mark.parametrize("descr", ["O", "|O", [("x", "O")], "nonsense"])
def test_an_array_that_passes_pointers_off_as_numbers_is_not_made(descr: Any) -> None:
    stream = pickle.dumps(Runs(plain._make_array, descr, (1,), "C", b"\1" * 8))
    with pytest.raises(NotSerializableError):
        Packed(stream).load_data()


def test_a_shape_that_does_not_fit_is_refused() -> None:
    for shape in ((3,), "x", (1 << 62,)):
        with pytest.raises(NotSerializableError):
            Packed(pickle.dumps(Runs(plain._make_array, "f8", shape, "C", b"\1" * 8))).load_data()


def test_garbage_is_refused() -> None:
    for stream in (b"", b"x", pickle.dumps([1])[:-1], b"\x80\x05\x97."):
        with pytest.raises(NotSerializableError):
            Packed(stream).load_data()


@pytest.mark.parametrize("name", ["_make", "_make_array", "_make_scalar"])
@pytest.mark.parametrize("state", [{"__name__": "other"}, (None, {"__name__": "other"}), "other"], ids=str)
def test_what_makes_data_is_not_changed_by_it(name: str, state: Any) -> None:
    stream = b"\x80\x04" + f"cpyrokernel.wire.plain\n{name}\n".encode() + pickle.dumps(state, 2)[2:-1] + b"b."
    with pytest.raises(NotSerializableError):
        Packed(stream).load_data()
    assert getattr(plain, name).__name__ == name
    assert Packed.dump_data([numpy.arange(2), 1j]).load_data()[1] == 1j


@pytest.mark.parametrize("state", [{"load": 1}, (None, {"load": 1, "size_bytes": 2}), "other"], ids=str)
def test_a_message_does_not_change_the_class_of_values(state: Any) -> None:
    before = dict(vars(Packed))
    stream = b"\x80\x04cpyrokernel.wire.codec\nPacked\n" + pickle.dumps(state, 2)[2:-1] + b"b."
    payload = codec._COUNTS.pack(0, len(stream)).ljust(64, b"\0") + stream
    with pytest.raises(ProtocolError):
        codec.decode(memoryview(payload))
    assert dict(vars(Packed)) == before


def test_values_in_a_message_are_values_still() -> None:
    payload = b"".join(map(bytes, codec.encode(["a", Packed.dump([1, b"x" * 1000])])))
    name, value = codec.decode(memoryview(bytearray(payload)))
    assert (name, type(value), value.load()) == ("a", Packed, [1, b"x" * 1000])
