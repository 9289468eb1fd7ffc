"""Parcels: what cannot travel is named, and what to do is said."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pyrokernel.client.parcels import (
    check_source,
    pack_arguments,
    pack_function,
    pack_part,
    pack_variables,
    write_arguments,
)
from pyrokernel.errors import NotSerializableError, SettingsError
from pyrokernel.wire.codec import Packed

LOCK: Any = threading.Lock()


def test_what_can_travel_does() -> None:
    assert pack_variables({"a": 1}).load() == {"a": 1}
    assert pack_part("x", [1, 2], 5).load() == {"x": [1, 2]}
    assert pack_arguments([1], {"b": 2}).load() == ((1,), {"b": 2})
    packed, shown = pack_function(abs)
    assert (packed.load(), shown) == (abs, "abs")  # type: ignore[union-attr]  # a function is packed, a name is not
    assert pack_function("a.b") == ("a.b", "a.b")


class Number(int):
    """More than a number."""


@pytest.mark.parametrize("args", [(), (1, 2.5, True, None), ("text", b"bytes")])
def test_a_few_plain_arguments_travel_as_they_are(args: tuple[Any, ...]) -> None:
    assert write_arguments(args, {}) == [args, {}]


@pytest.mark.parametrize("args", [("x" * 257,), (b"x" * 257,), (1,) * 17, ([1],), (1j,), (Number(1),), (bytearray(1),)])
def test_all_other_arguments_are_packed(args: tuple[Any, ...]) -> None:
    packed = write_arguments(args, {})
    assert isinstance(packed, Packed)
    found, kwargs = packed.load()
    assert (found, kwargs) == (args, {})
    assert [type(one) for one in found] == [type(one) for one in args]


def test_arguments_by_name_are_packed() -> None:
    packed = write_arguments((1,), {"b": 2})
    assert isinstance(packed, Packed)
    assert packed.load() == ((1,), {"b": 2})


def test_a_variable_is_named() -> None:
    with pytest.raises(
        NotSerializableError, match=r"variable 'lock' cannot travel: TypeError: .*_thread.lock.*execute"
    ):
        pack_variables({"a": 1, "lock": threading.Lock()})


def test_an_item_of_a_part_is_named_by_its_place_in_the_whole() -> None:
    with pytest.raises(NotSerializableError, match="item 6 of 'x' cannot travel"):
        pack_part("x", [1, threading.Lock()], 5)


def test_an_argument_is_named() -> None:
    with pytest.raises(NotSerializableError, match="argument 2 cannot travel"):
        pack_arguments([1, threading.Lock()], {})
    with pytest.raises(NotSerializableError, match="argument 'b' cannot travel"):
        pack_arguments([1], {"b": threading.Lock()})


def test_what_a_function_uses_is_named() -> None:
    mine = threading.Lock()

    def locked() -> None:
        with mine:
            pass

    with pytest.raises(NotSerializableError, match="'mine', which locked uses, cannot travel"):
        pack_function(locked)


def test_a_function_is_a_function() -> None:
    with pytest.raises(SettingsError, match="take a function, or its dotted name, not list"):
        pack_function([1, 2])  # type: ignore[arg-type]  # the mistake that is meant


def test_source_is_text() -> None:
    check_source("1")
    with pytest.raises(SettingsError, match=r"not a function; call\(function, ...\)"):
        check_source(len)
    with pytest.raises(SettingsError, match="not bytes"):
        check_source(b"1")
