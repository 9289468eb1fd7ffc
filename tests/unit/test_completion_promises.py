"""Asking for matches runs nothing of the user's, is answered whatever the source, soon, and with an end."""

from __future__ import annotations

import collections
import functools
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

import pyrokernel
from pyrokernel.kernel.completion import MATCH_LIMIT, complete
from tests.unit.completing import make_namespace, matches


class Hostile(type):
    """Records every call that reaches it; so does its instance below."""

    calls: ClassVar[collections.Counter[str]] = collections.Counter()

    def __getattribute__(cls, name: str) -> Any:
        Hostile.calls[f"meta {name}"] += 1
        raise AssertionError(name)

    def __eq__(cls, other: object) -> bool:
        Hostile.calls["meta eq"] += 1
        return True

    def __hash__(cls) -> int:
        Hostile.calls["meta hash"] += 1
        return 0

    def __instancecheck__(cls, instance: object) -> bool:
        Hostile.calls["meta instancecheck"] += 1
        return True


def _make_hostile() -> Any:
    def record(name: str) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            Hostile.calls[name] += 1
            raise AssertionError(name)

        return run

    class Descriptor:
        __get__ = record("descriptor get")
        __set__ = record("descriptor set")

    names = [
        "__getattr__ __getattribute__ __repr__ __str__ __len__ __dir__ __eq__ __hash__ __bool__ __iter__",
        "__getitem__ __contains__ __call__ __index__ __format__ __length_hint__ keys items",
    ]
    body: dict[str, Any] = {name: record(name) for line in names for name in line.split()}
    body |= {"attribute": 1, "managed": Descriptor(), "computed": property(record("property"))}
    body["__class__"] = property(record("class"))
    body["__signature__"] = property(record("signature"))
    body["__wrapped__"] = property(record("wrapped"))
    body["__doc__"] = property(record("doc"))
    return Hostile("Odd", (), body), Hostile("OddDict", (dict,), body), Hostile("OddList", (list,), body)


@pytest.fixture
def namespace() -> dict[str, Any]:
    return make_namespace()


def test_nothing_of_the_users_runs() -> None:
    odd, odd_dict, odd_list = _make_hostile()
    instance = object.__new__(odd)
    namespace: dict[str, Any] = {
        "Odd": odd,
        "odd": instance,
        "od": dict.__new__(odd_dict),
        "ol": list.__new__(odd_list),
        "box": [instance, {"k": instance}],
        "by_name": {"x": instance},
        "part": functools.partial(print, instance),
    }
    dict.__setitem__(namespace["od"], "key", instance)
    dict.__setitem__(namespace["by_name"], "y", odd)
    list.append(namespace["ol"], instance)
    Hostile.calls.clear()
    for name in ("odd", "Odd", "od", "ol", "box[0]", "box[1]['k']", "by_name['x']", "od['key']", "ol[0]", "odd()"):
        for tail in ("", ".", ".att", ".managed.", ".computed.", ".nothing.", "[", "['", "[0].", "(", "().", "(a=1, "):
            found = matches(name + tail, namespace)
            assert tail != ".att" or "[" in name or "(" in name or "attribute" in found
    assert not Hostile.calls


def test_keys_with_a_hostile_eq_are_not_compared() -> None:
    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

    namespace = {"d": {Key("k"): 1, "kk": "text"}}
    assert matches("d['k", namespace) == {"kk": "key"}
    assert matches("d['k'].", namespace) == {}
    assert "upper" in matches("d['kk'].up", namespace)


def test_a_users_dir_runs_only_when_allowed() -> None:
    class Remote:
        def __dir__(self) -> list[str]:
            return ["remote_method", "not a name"]

    class Broken:
        real = 1

        def __dir__(self) -> list[str]:
            raise ValueError

    namespace = {"remote": Remote(), "broken": Broken()}
    assert "remote_method" not in matches("remote.", namespace)
    assert matches("remote.rem", namespace, allow_dir=True) == {"remote_method": "attribute"}
    assert matches("broken.re", namespace, allow_dir=True) == {"real": "int"}


@pytest.mark.parametrize(
    "code",
    [
        "((((((((",
        ")]}.",
        "a[b(c{.",
        "\x00.",
        "\ud800.",
        "'\\",
        "f'{",
        "f'{{{",
        "x['",
        "['",
        "['a",
        "d[[['",
        ".",
        "..",
        "...",
        "from",
        "import",
        "from .",
        "import ,",
        "from a import (",
        "lambda:",
        "@",
        "1e",
        "0x",
        "d['\\x",
        "d['\\q'].",
        "for in in in.",
        "(" * 20_000 + "d.",
        "d" + "[0]" * 5000 + ".",
        "x" * 100_000,
        "'" * 99_999,
        "\\" * 9_999,
        "]" * 9_999 + ".",
        " " * 99_999,
        "\\\n" * 9_999,
        "# d." + " " * 9_999,
    ],
)
def test_broken_source_gives_an_answer(namespace: dict[str, Any], code: str) -> None:
    for cursor in {0, len(code) // 2, len(code)}:
        found = complete(code, cursor, namespace)
        assert 0 <= found.cursor_start <= found.cursor_end == cursor


def test_invalid_escapes_print_no_warning(capfd: pytest.CaptureFixture[str]) -> None:
    matches("d['\\d'].x + '\\d'.jo", {"d": {}})
    assert capfd.readouterr() == ("", "")


def test_the_namespace_may_change_while_it_is_read() -> None:
    namespace: dict[str, Any] = {f"name_{i}": i for i in range(500)}
    namespace["d"] = {f"key_{i}": i for i in range(500)}
    stop = threading.Event()

    def churn() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            for held in (namespace, namespace["d"]):
                held[f"more_{count}"] = count
                held.pop(f"more_{count - 50}", None)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            assert len(matches("name_", namespace)) == 500
            assert len(matches("d['key_", namespace)) == 500
    finally:
        stop.set()
        thread.join()


def test_answers_are_bounded() -> None:
    names = {f"n{i}": i for i in range(5000)}
    assert len(matches("n", names)) == MATCH_LIMIT
    namespace = {"d": {f"key{i}": i for i in range(1_000_000)}, "xs": [0] * 1_000_000}
    started = time.perf_counter()
    assert len(matches("d['key", namespace)) == MATCH_LIMIT
    assert matches("d['nothing", namespace) == {}
    assert matches("d['nothing'].", namespace) == {}
    assert matches("xs[999_999].rea", namespace) == {"real": "property"}
    assert time.perf_counter() - started < 2  # each takes some 10 ms; a scan of everything many times that


def test_a_thousand_names_take_milliseconds() -> None:
    namespace = {f"name_{i}": i for i in range(1000)}
    complete("na", 2, namespace)
    best = min(_seconds("na", namespace) for _ in range(20))
    assert best < 0.05  # 1 ms on an idle machine: this only catches a change of order


def _seconds(code: str, namespace: dict[str, Any]) -> float:
    started = time.perf_counter()
    complete(code, len(code), namespace)
    return time.perf_counter() - started


def test_long_source_is_read_from_its_last_part() -> None:
    code = "x = 'abc'\n" * 100_000 + "wor"
    found = complete(code, len(code), {"word": 1})
    assert (found.matches, found.cursor_start) == (("word",), len(code) - 3)


def test_completion_loads_nothing_heavy() -> None:
    heavy = ("jedi", "IPython", "rlcompleter", "pkgutil", "numpy", "pandas")
    script = f"import sys, pyrokernel.kernel.completion; print(*(name for name in {heavy} if name in sys.modules))"
    root = Path(pyrokernel.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
