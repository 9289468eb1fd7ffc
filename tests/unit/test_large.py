"""Large bytes, arrays and views travel uncopied, and come back as what they were."""

from __future__ import annotations

import array
import os
import pickle
from typing import Any

import pytest

from pyrokernel.wire import codec
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.large import dump_pieces, holds_large, load_pieces

BIG = 200_000


def travel(packed: Packed) -> Any:
    """Return what a receiver loads."""
    payload = b"".join(bytes(part) for part in codec.encode([packed]))
    (found,) = codec.decode(memoryview(bytearray(payload)))
    return found.load()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, memoryview):
        kinds = (one.format, one.shape, one.readonly) == (other.format, other.shape, other.readonly)
        return kinds and one.tobytes() == other.tobytes()
    return bool(one == other)


VALUES = [
    os.urandom(BIG),
    bytearray(os.urandom(BIG)),
    array.array("d", range(BIG // 8)),
    array.array("i"),
    memoryview(os.urandom(BIG)),
    memoryview(bytearray(BIG)),
    memoryview(array.array("d", range(BIG // 8))),
    memoryview(bytes(range(240)) * 1000).cast("B", (100, 2400)),
    memoryview(bytearray(BIG)).cast("i", (BIG // 40, 10)),
    memoryview(b""),
    "ä" * BIG,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{len(value)}")
@pytest.mark.parametrize("around", [lambda v: v, lambda v: {"x": v}, lambda v: ([1, {"y": v}], v)])
def test_a_value_comes_back_as_it_was(value: Any, around: Any) -> None:
    whole = around(value)
    found = travel(Packed.dump(whole, pieces=True))
    if isinstance(whole, dict):
        found = found["x"]
    elif isinstance(whole, tuple):
        found = found[0][1]["y"]
    assert type(found) is type(value)
    assert same(found, value)


def test_views_with_gaps_are_closed_up() -> None:
    found = travel(Packed.dump(memoryview(bytes(range(100)))[::3], pieces=True))
    assert found.tobytes() == bytes(range(100))[::3]


@pytest.mark.parametrize("value", [os.urandom(BIG), bytearray(BIG)])
def test_large_bytes_are_not_copied(value: Any) -> None:
    stream, _ = dump_pieces({"a": 1, "x": value, "z": [2]})
    assert isinstance(stream, tuple)
    assert any(piece is value for piece in stream)
    assert load_pieces(stream, ()) == {"a": 1, "x": value, "z": [2]}


@pytest.mark.parametrize("value", [array.array("d", range(BIG)), memoryview(bytes(BIG))])
def test_arrays_and_views_are_not_copied(value: Any) -> None:
    packed = Packed.dump(value, pieces=True)
    assert packed.buffers[0].obj is (value if isinstance(value, array.array) else value.obj)
    assert packed.buffers[0].nbytes == memoryview(value).nbytes
    if isinstance(value, array.array):
        with pytest.raises(BufferError):
            value.append(1.0)
    else:
        value.release()  # theirs
        assert packed.buffers[0] == bytes(BIG)


def test_what_one_value_holds_twice_is_still_one() -> None:
    content = os.urandom(BIG)
    found = travel(Packed.dump({"a": content, "b": [content]}, pieces=True))
    assert found["a"] is found["b"][0]


def test_a_small_value_is_pickled_as_ever() -> None:
    for value in (((1000,), {"bins": 10}), b"x" * 100, [1] * 100_000, {"a": "b"}):
        assert not holds_large([value])
        assert Packed.dump(value).data == pickle.dumps(value, 5)


def test_functions_of_main_travel_with_large_values() -> None:
    content = os.urandom(BIG)
    value = (lambda x: x + len(content), content, memoryview(content))
    function, found, view = travel(Packed.dump(value, pieces=True))
    assert function(1) == BIG + 1
    assert found == content
    assert view == content


def test_a_text_that_looks_like_a_name_does_not_make_large_bytes_go_by_value() -> None:
    content = b"__main__\x93" * BIG
    packed = Packed.dump((content,), pieces=True)
    assert any(piece is content for piece in packed.data)
    assert travel(packed) == (content,)


@pytest.mark.parametrize("value", [bytes(BIG), bytearray(BIG), memoryview(b""), [array.array("d", range(BIG))]])
def test_large_values_are_seen_near_the_surface(value: Any) -> None:
    assert holds_large([value])
    assert holds_large([1, {"x": value}]) or isinstance(value, list)
    assert not holds_large([1, "x", [2], {"x": b"y"}])


def test_a_stream_in_one_piece_is_any_pythons() -> None:
    packed = Packed.dump([os.urandom(BIG)])
    assert isinstance(packed.data, bytes)
    pickle.loads(packed.data)


def test_frames_and_tables_travel_without_a_copy() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": range(BIG), "y": [0.5] * BIG})
    packed = Packed.dump(frame, pieces=True)
    assert len(packed.data) < 10_000
    assert travel(packed).equals(frame)


def test_tables_travel_without_a_copy() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"x": list(range(BIG)), "s": [str(number) for number in range(BIG)]})
    packed = Packed.dump(table, pieces=True)
    assert len(packed.data) < 10_000
    assert travel(packed).equals(table)


@pytest.mark.parametrize("data", [(), (1,), (b"", None), (b"\x80\x05" * 3, b"x" * 10), ("text",)])
def test_pieces_that_are_none_are_not_loaded(data: Any) -> None:
    from pyrokernel.errors import NotSerializableError

    for packed in (Packed(data), Packed(data).as_data()):
        with pytest.raises(NotSerializableError):
            packed.load()
