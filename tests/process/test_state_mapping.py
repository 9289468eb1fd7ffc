"""CPython's own tests of the mapping protocol, against `shared.m`.

They use keys of many kinds, and `shared.m` takes texts. So the map under test translates keys on their way in
and out, and does nothing else: every operation on the stored mapping is one with string keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

import pyrokernel as pk
from pyrokernel.client.shared import Shared
from pyrokernel.client.shared_map import SharedMap, as_items, keys_of

mapping_tests = pytest.importorskip("test.mapping_tests", reason="this Python comes without its own tests")

_numbers = itertools.count(1)
_shared: list[Shared] = []


@pytest.fixture(autouse=True)
def shared(mesh: pk.Mesh) -> None:
    """Give the maps under test a mesh."""
    _shared[:] = [mesh.shared]


def _in(key: Any) -> str:
    hash(key)  # a dict refuses what has none
    return key if isinstance(key, str) else f"\x01{type(key).__name__}:{key!r}"


def _out(key: str) -> Any:
    kind, _, text = key[1:].partition(":")
    return key if key[:1] != "\x01" else {"int": int, "float": float}.get(kind, lambda _: None)(text)


class Translating(SharedMap):
    """`shared.m` of a fresh namespace, with keys translated."""

    def __init__(self, *args: Any, **values: Any) -> None:
        shared = _shared[0][f"mapping{next(_numbers)}"]
        super().__init__(keys_of(shared.m), shared)
        if args or values:
            self.update(*args, **values)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_in(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_in(key), value)

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(_in(key))

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(_in(key))

    def __iter__(self) -> Iterator[Any]:
        return map(_out, super().__iter__())

    def items(self) -> Any:
        return {key: self[key] for key in self}.items()

    def update(self, other: Any = (), /, **values: Any) -> None:
        super().update([(_in(key), value) for key, value in as_items(other, values)])

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(_in(key), default) if key in self else default

    def pop(self, key: Any, *default: Any) -> Any:
        return super().pop(_in(key), *default)

    def popitem(self) -> Any:
        key, value = super().popitem()
        return _out(key), value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        super().setdefault(_in(key), default)
        return self[key]


class TestSharedMapProtocol(mapping_tests.TestMappingProtocol):  # type: ignore[misc]  # without type information
    """What every mapping must do, run as it stands in CPython but for what makes new mappings; docs/api.md lists it."""

    type2test = Translating

    def test_fromkeys(self) -> None:
        # A new mapping has nowhere to be: shared.m is the one of its namespace.
        assert not hasattr(SharedMap, "fromkeys")

    def test_popitem(self) -> None:
        """Up to 64 entries of 2,048: each costs requests, and there is no table here that grows with them."""
        fewer = lambda *ends: range(*((7,) if ends == (12,) else ends))  # noqa: E731
        with mock.patch.object(mapping_tests, "range", fewer, create=True):
            super().test_popitem()

    def test_copy(self) -> None:
        # For the same reason a copy is a dict, and nobody shares it.
        found = self._full_mapping({1: 1, 2: [2]})
        copy = found.copy()
        assert type(copy) is dict
        assert copy == {1: 1, 2: [2]}
        assert type(copy[2]) is list


def test_repr_is_that_of_a_dict() -> None:
    m = _shared[0]["repr"].m
    assert repr(m) == "{}"
    m["a"] = 2
    assert repr(m) == "{'a': 2}"


def test_keys_are_in_code_point_order_and_may_be_added_while_they_are_read() -> None:
    m = _shared[0]["order"].m
    m.update({"b": 1, "ä": 2, "a": 3, "": 4, "\U0001f600": 5, "B": 6})
    assert list(m) == ["", "B", "a", "b", "ä", "\U0001f600"]
    seen = []
    for key in m:
        seen.append(key)
        m["A" + key] = 0
        if key[:1] == "A":
            break
    assert seen[:2] in (["", "A"], ["", "B"])  # behind the place of the reader, in the page that it has or not


@pytest.mark.parametrize("key", [1, None, ("a",), b"a", "a\0b", "\ud800", "k" * 5000])
def test_a_key_that_cannot_be_one_is_refused_with_a_reason(key: Any) -> None:
    m = _shared[0]["keys"].m
    with pytest.raises(pk.StateTypeError, match="key"):
        m[key] = 1
    with pytest.raises(pk.StateTypeError):
        m[key]
    assert len(m) == 0
