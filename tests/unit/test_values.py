"""Values in wire form: what goes in comes out, and reading plain data runs nobody's code."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import math
import os
import pickle
import pickletools
import random
import struct
import uuid
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.errors import NotSerializableError
from pyrokernel.wire.values import SUMMARY_CHARS, decode_value, encode_value

UTC = datetime.UTC


def round_trip(value: Any) -> Any:
    kind, _, _, parts = encode_value(value)
    return decode_value(kind, [bytes(part) for part in parts])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, "int"), (-1, "int"), (2**4095, "int"), (2**5000, "plain"), (0.1, "float"), (float("inf"), "float"),
        (-0.0, "float"), ("", "str"), ("\ud800", "str"), ("\0é\U0010ffff", "str"), (b"", "bytes"), (b"\0\xff", "bytes"),
        (None, "plain"), (True, "plain"), (1j, "plain"), (..., "plain"), ([], "plain"),
        ([1, [2, {"a": (3,)}]], "plain"),
        ({1, 2}, "plain"), (frozenset({1}), "plain"), (bytearray(b"ab"), "plain"), (range(1, 9, 2), "plain"),
        (slice(1, None), "plain"), (collections.OrderedDict(b=1, a=2), "plain"), (collections.deque([1], 5), "plain"),
        (datetime.datetime(2024, 2, 29, 1, 2, 3, 4, UTC), "plain"), (datetime.date(1, 1, 1), "plain"),
        (datetime.timedelta(days=-1, microseconds=1), "plain"), (datetime.time(23, 59), "plain"),
        (decimal.Decimal("0.10"), "plain"), (fractions.Fraction(1, 3), "plain"), (uuid.UUID(int=5), "plain"),
        (collections.OrderedDict, "pickle"), ([datetime.date, datetime.date(1, 1, 1)], "pickle"),
        (Path("a/b"), "pickle"), (ValueError("a"), "pickle"), (collections.Counter("ab"), "pickle"),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_what_goes_in_comes_out(value: Any, kind: str) -> None:
    encoded = encode_value(value)
    assert encoded.kind == kind
    found = round_trip(value)
    assert type(found) is type(value)
    assert repr(found) == repr(value)
    assert len(encoded.summary) <= SUMMARY_CHARS
    encoded.summary.encode()


def test_not_a_number_comes_out() -> None:
    assert math.isnan(round_trip(float("nan")))


def random_plain(chance: random.Random, depth: int = 0) -> Any:
    """Return plain data of any shape."""
    leaves: list[Any] = [
        None, True, False, chance.randint(-(2**70), 2**70), chance.random() * 10 ** chance.randint(-300, 300),
        "".join(chr(chance.choice([chance.randrange(0xD800), chance.randrange(0xE000, 0x110000)])) for _ in range(5)),
        chance.randbytes(chance.randrange(40)), complex(chance.random(), 1),
        datetime.date(chance.randrange(1, 9999), 1, 1),
        decimal.Decimal(chance.randrange(10**9)) / 7, uuid.UUID(int=chance.getrandbits(128)),
        range(chance.randrange(9)),
    ]  # fmt: skip
    if depth > 4 or chance.random() < 0.3:
        return chance.choice(leaves)
    inner = [random_plain(chance, depth + 1) for _ in range(chance.randrange(5))]
    shape = chance.randrange(5)
    if shape == 0:
        return inner
    if shape == 1:
        return tuple(inner)
    if shape == 2:
        return {chance.choice(leaves): value for value in inner}
    if shape == 3:
        return set(chance.sample(leaves, 4))
    return collections.deque(inner)


@pytest.mark.parametrize("seed", range(200))
def test_random_plain_data_comes_out(seed: int) -> None:
    value = random_plain(random.Random(seed))
    assert encode_value([value]).kind == "plain"
    assert round_trip(value) == value


def test_an_ordered_dict_with_attributes_keeps_them() -> None:
    value = collections.OrderedDict(a=1)
    value.note = "b"  # type: ignore[attr-defined]
    assert round_trip(value).note == "b"


def test_a_deque_that_contains_itself_comes_out() -> None:
    value: collections.deque[Any] = collections.deque([1], 3)
    value.append(value)
    found = round_trip(value)
    assert (found[0], found.maxlen) == (1, 3)
    assert found[1] is found


def test_what_contains_itself_comes_out() -> None:
    value: list[Any] = [1]
    value.append(value)
    found = round_trip(value)
    assert found[1] is found


def test_the_same_object_twice_is_one_object_still() -> None:
    inner = [1]
    found = round_trip([inner, inner])
    assert found[0] is found[1]


@pytest.mark.parametrize(
    "dtype",
    ["?", "i1", "<i8", ">u4", "f2", "f8", "c16", "S5", "U3", "M8[ns]", "m8[D]", "V6", [("a", "i4"), ("b", "f8", 2)]],
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_out(dtype: Any, shape: tuple[int, ...], order: Any) -> None:
    numpy = pytest.importorskip("numpy")
    count = math.prod(shape) * numpy.dtype(dtype).itemsize
    data = bytes(range(1, 200)) * (count // 199 + 1)
    array = numpy.frombuffer(data[:count], dtype).reshape(shape).copy(order=order)
    if numpy.dtype(dtype).kind in "?U":
        array = numpy.zeros(shape, dtype, order)
    encoded = encode_value(array)
    assert encoded.kind == "plain"
    found = round_trip(array)
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize("step", [slice(None, None, 2), slice(None, None, -1)])
def test_views_of_arrays_come_out(step: slice) -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(24).reshape(4, 6)[:, step]
    assert (round_trip({"a": [array]})["a"][0] == array).all()


def test_arrays_that_are_more_than_numbers_are_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy = pytest.importorskip("numpy")
    meters = type("meters", (numpy.float64,), {"__module__": __name__})
    monkeypatch.setitem(globals(), "meters", meters)
    for value in (
        numpy.array([1, []], object),
        numpy.ma.array([1], mask=[True]),
        numpy.zeros(2, [("a", "O")]),
        meters(1.0),
    ):
        assert encode_value(value).kind == "pickle"


def test_scalars_of_numpy_come_out() -> None:
    numpy = pytest.importorskip("numpy")
    padded = numpy.dtype({"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [0, 8]})
    for value in (
        numpy.float32(0.5),
        numpy.int64(-1),
        numpy.bool_(True),
        numpy.datetime64("2024-01-01", "D"),
        numpy.str_(""),
        numpy.zeros(1, padded)[0],
    ):
        found = round_trip(value)
        assert (type(found), found) == (type(value), value)


# Hostile plain data. Each of these would leave a file behind if anything of it were run.


class Runs:
    """Pickles as a call of something."""

    def __init__(self, function: Any, *args: Any) -> None:
        self._call = function, args

    def __reduce__(self) -> Any:
        return self._call


def global_call(module: str, name: str, *args: Any) -> bytes:
    """Return a pickle that calls a global by name, whether it is here or not."""
    return (
        b"\x80\x04" + f"c{module}\n{name}\n".encode() + pickle.dumps(args, 3)[2:-1] + b"R."
    )  # GLOBAL, then the arguments, then REDUCE


def stack_global(module: str, name: str) -> bytes:
    """Return a pickle that is just a global."""
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
    return b"\x80\x04" + texts + b"\x93."


def make(*args: Any) -> bytes:
    """Return a pickle that calls the maker of plain data."""
    return global_call("pyrokernel.wire.plain", "_make", *args)


def array(descr: Any, shape: Any, data: bytes) -> bytes:
    """Return a pickle that makes an array."""
    return global_call("pyrokernel.wire.plain", "_make_array", descr, shape, "C", data)


HOSTILE = {
    "os.system": lambda mark: pickle.dumps(Runs(os.system, f"touch {mark}")),
    "posix.system": lambda mark: global_call("posix", "system", f"touch {mark}"),
    "open": lambda mark: pickle.dumps(Runs(open, mark, "w")),
    "io.open": lambda mark: global_call("io", "open", mark, "w"),
    "eval": lambda mark: pickle.dumps(Runs(eval, f"open({mark!r}, 'w')")),
    "exec": lambda mark: pickle.dumps(Runs(exec, f"open({mark!r}, 'w')")),
    "compile": lambda mark: global_call("builtins", "compile", "1", "a", "eval"),
    "__import__": lambda mark: global_call("builtins", "__import__", "antigravity"),
    "getattr": lambda mark: global_call("builtins", "getattr", {}, "get"),
    "python 2 names": lambda mark: global_call("__builtin__", "eval", f"open({mark!r}, 'w')"),
    "python 2 file": lambda mark: global_call("__builtin__", "file", mark, "w"),
    "map": lambda mark: global_call("builtins", "map", None, []),
    "type": lambda mark: global_call("builtins", "type", "T", (), {}),
    "object": lambda mark: stack_global("builtins", "object"),
    "subprocess": lambda mark: global_call("subprocess", "Popen", ["touch", mark]),
    "runpy": lambda mark: global_call("runpy", "run_path", mark),
    "importlib": lambda mark: global_call("importlib", "import_module", "antigravity"),
    "ctypes": lambda mark: global_call("ctypes", "CDLL", "libc.so.6"),
    "codecs": lambda mark: global_call("codecs", "open", mark, "w"),
    "codec that is code": lambda mark: global_call("_codecs", "encode", "x", "rot13"),
    "_codecs.lookup": lambda mark: global_call("_codecs", "lookup", "latin1"),
    "_codecs.register": lambda mark: global_call("_codecs", "register", len),
    "copyreg": lambda mark: global_call("copyreg", "_reconstructor", object, object, None),
    "operator": lambda mark: global_call("operator", "attrgetter", "__class__"),
    "functools": lambda mark: global_call("functools", "partial", os.getcwd),
    "pickle": lambda mark: global_call("pickle", "loads", pickle.dumps(Runs(os.system, f"touch {mark}"))),
    "dotted name": lambda mark: stack_global("collections", "deque.__init__.__globals__"),
    "dotted module": lambda mark: stack_global("collections.abc", "sys.modules"),
    "datetime.sys": lambda mark: stack_global("datetime", "sys"),
    "uuid.os": lambda mark: stack_global("uuid", "os.system"),
    "decimal.getcontext": lambda mark: global_call("decimal", "getcontext"),
    "our own machinery": lambda mark: stack_global("pyrokernel.wire.values", "decode_value"),
    "our own numpy": lambda mark: stack_global("pyrokernel.wire.plain", "_numpy"),
    "our own pickler": lambda mark: stack_global("pyrokernel.wire.plain", "_Unpickler.load"),
    "our own codec": lambda mark: global_call("pyrokernel.wire.codec", "Packed", b"", ()),
    "array of objects": lambda mark: global_call("pyrokernel.wire.plain", "_make_array", "O", (1,), "C", b"12345678"),
    "array with objects": lambda mark: global_call(
        "pyrokernel.wire.plain", "_make_array", [("a", "O")], (1,), "C", b"12345678"
    ),
    "scalar object": lambda mark: global_call("pyrokernel.wire.plain", "_make_scalar", "O", b"12345678"),
    "array too short": lambda mark: global_call(
        "pyrokernel.wire.plain", "_make_array", "<f8", (1 << 40,), "C", b"12345678"
    ),
    "array of nothing": lambda mark: global_call("pyrokernel.wire.plain", "_make_array", "<f8", (1 << 45,), "C", b""),
    "small array of nothing": lambda mark: array("<f8", (3,), b""),
    "array of nothing, backwards": lambda mark: array("<f8", (-1, -3), b""),
    "array whose shape is guessed": lambda mark: array("<f8", (-1,), b"12345678"),
    "array of half an element": lambda mark: array("<f8", (1,), b"1234"),
    "array of too many bytes": lambda mark: array("<f8", (1,), b"1234567812345678"),
    "array of bytes and no elements": lambda mark: array("<f8", (0,), b"12345678"),
    "array of texts without bytes": lambda mark: array("S0", (1 << 40,), b""),
    "array of nested shapes": lambda mark: array([("a", "<f8", (1 << 20,))], (1,), b""),
    "array whose shape is a number": lambda mark: array("<f8", 3, b""),
    "array whose shape is a list": lambda mark: array("<f8", [0], b""),
    "array whose shape is a text": lambda mark: array("<f8", "abc", b""),
    "scalar of too many bytes": lambda mark: global_call(
        "pyrokernel.wire.plain", "_make_scalar", "<f8", b"1234567812345678"
    ),
    "huge range list": lambda mark: b"\x80\x04]" + b"(" * 10 + b"e.",
    "persistent id": lambda mark: b"\x80\x04\x8c\x01aQ.",
    "extension": lambda mark: b"\x80\x04\x82\x01.",
    "missing buffer": lambda mark: b"\x80\x05\x97.",
    "build": lambda mark: b"\x80\x04ccollections\ndeque\n)R}\x8c\x01aK\x01sb.",
    "class build": lambda mark: b"\x80\x04ccollections\nOrderedDict\n}\x8c\x07popitemN\x73b.",
    "memo": lambda mark: b"\x80\x04h\x05.",
    "set of a range": lambda mark: pickle.dumps(Runs(set, range(1 << 40))),
    "deque of a range": lambda mark: pickle.dumps(Runs(collections.deque, range(1 << 40))),
    "dict of a range": lambda mark: pickle.dumps(Runs(collections.OrderedDict, range(1 << 40))),
    "bytearray of a number": lambda mark: pickle.dumps(Runs(bytearray, 1 << 33)),
    "deque made of a range": lambda mark: make("deque", range(1 << 40)),
    "dict made of a range": lambda mark: make("OrderedDict", range(1 << 40)),
    "fraction made of a text": lambda mark: make("Fraction", "1e999999999", 1),
    "uuid made of a text": lambda mark: make("UUID", "1" * 32, None),
    "kind that is not known": lambda mark: make("bytearray", 1 << 33),
    "kind that is no text": lambda mark: make(["deque"]),
    "fraction that is computed": lambda mark: pickle.dumps(Runs(fractions.Fraction, "1e999999999")),
    "huge text": lambda mark: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"a.",
    "huge frame": lambda mark: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"K\x01.",
    "nothing": lambda mark: b"",
    "no stop": lambda mark: b"\x80\x04K\x01",
    "protocol 99": lambda mark: b"\x80\x63K\x01.",
    "garbage": lambda mark: b"\xff\xfe\xfd",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_plain_data_is_refused_without_a_trace(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    before = collections.OrderedDict.popitem
    with pytest.raises(NotSerializableError):
        decode_value("plain", [HOSTILE[name](str(mark))])
    assert not mark.exists()
    assert collections.OrderedDict.popitem is before


STATES: dict[str, Any] = {
    "attributes": {"__qualname__": "other", "__name__": "other", "_make": 1, "__code__": 1, "made": 1},
    "slots": (None, {"__qualname__": "other", "__name__": "other", "_make": 1, "__code__": 1, "made": 1}),
    "one slot": (None, {"_make": "other"}),
    "text": "other",
    "class": (None, {"__class__": 1}),
}


@pytest.mark.parametrize("name", ["_make", "_make_array", "_make_scalar"])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("change", [b"b", b"b0", b"(K\x01K\x02u", b"K\x01a", b"(K\x01e", b"(K\x01\x90", b")\x81"])
def test_what_makes_values_is_not_changed_by_them(name: str, state: str, change: bytes) -> None:
    """A function or class that a stream could set attributes of would be another one for the whole process."""
    numpy = pytest.importorskip("numpy")
    stream = f"cpyrokernel.wire.plain\n{name}\n".encode()
    last = change.replace(b"b", pickle.dumps(STATES[state], 2)[2:-1] + b"b")
    with pytest.raises(NotSerializableError):
        decode_value("plain", [b"\x80\x04N" + stream + last + b"."])
    assert encode_value([numpy.arange(3), numpy.float32(1), datetime.date(1, 1, 1)]).kind == "plain"
    assert round_trip([datetime.date(1, 1, 1), numpy.float32(1)]) == [datetime.date(1, 1, 1), 1]


def test_an_array_is_not_turned_into_objects_by_its_state() -> None:
    pytest.importorskip("numpy")
    made = global_call("pyrokernel.wire.plain", "_make_array", "<i8", (1,), "C", b"\1" * 8)[:-1]
    for kind in ("O", "|O", None):
        state = pickle.dumps((1, (1,), kind, False, [1]), 2)[2:-1]
        with pytest.raises(NotSerializableError):
            decode_value("plain", [made + state + b"b."])


def test_what_makes_values_is_no_value() -> None:
    found = decode_value("plain", [stack_global("pyrokernel.wire.plain", "_make")])
    for change in (lambda: setattr(found, "a", 1), lambda: delattr(found, "_make"), lambda: pickle.dumps(found)):
        with pytest.raises(NotSerializableError):
            change()


@pytest.mark.parametrize("kind", ["", "Plain", "pickle ", "evil", "PICKLE"])
def test_a_kind_that_is_not_known_is_not_taken_for_a_pickle(kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(NotSerializableError, match="not known"):
        decode_value(kind, [pickle.dumps(Runs(os.system, f"touch {mark}"))])
    assert not mark.exists()


@pytest.mark.parametrize(
    ("kind", "data"),
    [("int", b""), ("int", b"1e5"), ("int", b"9" * 5000), ("float", b"one"), ("str", b"\xff"), ("plain", b"")],
)
def test_what_is_not_what_its_kind_says_is_an_error_of_ours(kind: str, data: bytes) -> None:
    with pytest.raises(NotSerializableError):
        decode_value(kind, [data])


def makes_room(stream: bytes) -> bool:
    """Whether a stream has Python's own reader make room for what a number says, before it looks what is there."""
    try:
        for opcode, arg, _ in pickletools.genops(stream):
            if opcode.name in ("PUT", "LONG_BINPUT") and arg > 1000:
                return True
    except ValueError as error:
        return "bytearray8" in str(error)
    return False


def test_mutations_of_good_data_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a bit flips to, it is plain data or an error of ours."""
    chance = random.Random(5)
    seed = encode_value([{"a": (1, 2.5, "x"), "b": {1, 2}}, datetime.date(2024, 1, 1), decimal.Decimal("1.5"), b"xyz"])
    good = bytes(seed.parts[0])
    monkeypatch.chdir(tmp_path)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(5000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if makes_room(bytes(data)):
            continue
        try:
            decode_value("plain", [bytes(data)])
        except NotSerializableError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert outcomes["refused"] > 1000
    assert outcomes["read"] > 100
    assert list(tmp_path.iterdir()) == []
