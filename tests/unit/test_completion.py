"""What Tab offers: names, attributes, keys, keyword arguments, modules."""

from __future__ import annotations

import collections
import functools
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.kernel.completion import complete
from tests.unit.completing import make_namespace, matches


@pytest.fixture
def namespace() -> dict[str, Any]:
    return make_namespace()


# -- names


def test_names_come_from_namespace_builtins_keywords_and_extra(namespace: dict[str, Any]) -> None:
    found = matches("x = na", namespace, extra=["narrow", "other"])
    assert found == {"name_one": "float", "name_two": "NoneType", "narrow": "name"}
    assert matches("whi")["while"] == "keyword"
    assert matches("so")["sorted"] == "function"
    assert matches("Cam", namespace)["Camera"] == "class"
    assert matches("mat", namespace)["math"] == "module"


def test_names_defined_in_the_source_so_far_are_offered() -> None:
    assert matches("def f(alpha, beta):\n    return al")["alpha"] == "name"
    assert "total" in matches("total = 1\nfor item in []:\n    tot")
    assert "thing" in matches("import numpy as thing\nth")
    assert "nowhere" not in matches("x = self.nowhere + nowhere2\nnow")


def test_underscored_names_wait_for_an_underscore(namespace: dict[str, Any]) -> None:
    assert "_private" not in matches("", namespace)
    assert "_private" in matches("_", namespace)
    assert matches("camera._", namespace) == {"_handle": "int"}
    assert "_handle" not in matches("camera.", namespace)
    assert "__init__" in matches("camera.__", namespace)


def test_cursor_offsets_count_characters_and_replace_the_typed_part() -> None:
    code = "'äöü😀'; wörter = 1; wör"
    found = complete(code, len(code), {"wörter_zwei": 1})
    assert (found.cursor_start, found.cursor_end) == (len(code) - 3, len(code))
    assert set(found.matches) == {"wörter", "wörter_zwei"}
    middle = complete("xyz + 1", 1, {"xyz": 1})
    assert (middle.matches, middle.cursor_start, middle.cursor_end) == (("xyz",), 0, 1)
    assert complete("abc", 99, {"abcd": 1}).matches == ("abcd",)
    assert "abcd" in complete("abc", -5, {"abcd": 1}).matches


# -- attributes


@pytest.mark.parametrize(
    ("code", "match", "word"),
    [
        ("os.path.jo", "join", "function"),
        ("xml.do", "dom", "module"),
        ("math.p", "pi", "float"),
        ("camera.sn", "snap", "function"),
        ("camera.im", "image", "property"),
        ("camera.co", "count", "int"),
        ("camera.le", "lens", "dict"),
        ("camera.em", "empty", "property"),
        ("camera.fr", "frames", "list"),
        ("camera.frames[0].upp", "upper", "function"),
        ("camera.lens['zoom'][0].is_", "is_integer", "function"),
        ("camera.image.upp", "upper", "function"),
        ("camera.snap(1).upp", "upper", "function"),
        ("Camera.pr", "probe", "function"),
        ("Camera(2).sn", "snap", "function"),
        ("Color.RED.na", "name", ""),
        ("point.ri", "right", "property"),
        ("point.right.app", "append", "function"),
        ("point[0].upp", "upper", "function"),
        ("xs[0].sn", "snap", "function"),
        ("xs[-1].po", "pop", "function"),
        ("xs[1:].po", "pop", "function"),
        ("d['key1']['inner'][1].upp", "upper", "function"),
        ("d[7].upp", "upper", "function"),
        ("''.jo", "join", "function"),
        ("b''.jo", "join", "function"),
        ("[].ap", "append", "function"),
        ("{}.ke", "keys", "function"),
        ("{1, 2}.un", "union", "function"),
        ("{**d}.ke", "keys", "function"),
        ("().co", "count", "function"),
        ("(x for x in y).se", "send", "function"),
        ("[max(1, 2), [3], {4: (5)}].ap", "append", "function"),
        ("(max(1), (2)).co", "count", "function"),
        ("{max(1): [2]}.ke", "keys", "function"),
        ("((camera)).sn", "snap", "function"),
        ("print(max(1, (2)), camera.sn", "snap", "function"),
        ("1..is_", "is_integer", "function"),
        ("(camera).sn", "snap", "function"),
        ("(\n  camera\n  .sn", "snap", "function"),
        ("if True:\n    y = camera.sn", "snap", "function"),
        ("print('a', camera.sn", "snap", "function"),
        ("not camera.sn", "snap", "function"),
        ("f'{camera.sn", "snap", "function"),
        ('f\'{{}} {d["key1"].ke', "keys", "function"),
        ("x = [1, camera.sn|, 3]", "snap", "function"),
        ("'''never closed\n' ; \"\"\"x\"\"\" '''; camera.sn", "snap", "function"),
    ],
)
def test_chains_are_followed_without_running_them(namespace: dict[str, Any], code: str, match: str, word: str) -> None:
    found = matches(code, namespace)
    assert match in found
    assert not word or found[match] == word


@pytest.mark.parametrize(
    "code",
    ["nope.", "camera.nope.", "# camera.", "'camera.", "1.", "def ca", "import os as ca", "d['key1", "camera.snap)."],
)
def test_nothing_is_offered_where_nothing_is_known(namespace: dict[str, Any], code: str) -> None:
    assert not set(matches(code, namespace)) - {"key1"}


def test_a_module_offers_what_its_all_announces_and_its_loaded_submodules(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lazy")
    module.__all__ = ["later"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lazy.loaded", types.ModuleType("lazy.loaded"))
    found = matches("lazy.", {"lazy": module})
    assert (found["later"], found["loaded"]) == ("attribute", "module")
    assert matches("lazy.loaded.__na", {"lazy": module}) == {"__name__": "str"}


# -- keys


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("d['ke", ["key1", "key2"]),
        ('d["ke', ["key1", "key2"]),
        ('d["""ke', ["key1", "key2"]),
        ("d['key1']['in", ["inner"]),
        ("d['key1'][\n  'in", ["inner"]),
        ("d['quo", ['quo"te']),
        ('d["quo', ['quo\\"te']),
        ('d["it', ["it's"]),
        ("d['it", ["it\\'s"]),
        ("d['new", ["new\\nline"]),
        ("d[7", ["7", "71"]),
    ],
)
def test_keys_are_completed_as_they_would_be_typed(namespace: dict[str, Any], code: str, expected: list[str]) -> None:
    found = complete(code, len(code), namespace)
    assert list(found.matches) == expected
    assert set(found.types) == {"key"}


@pytest.mark.parametrize("quote", ["'", '"'])
def test_every_offered_key_finds_its_item(namespace: dict[str, Any], quote: str) -> None:
    code = f"d[{quote}"
    found = complete(code, len(code), namespace)
    values = [eval(code[: found.cursor_start] + match + quote + "]", dict(namespace)) for match in found.matches]
    assert values == [value for key, value in namespace["d"].items() if isinstance(key, str)]


def test_an_open_bracket_offers_whole_keys_in_the_order_of_the_dict(namespace: dict[str, Any]) -> None:
    assert list(matches("d[", namespace)) == [
        "'key1'",
        "'key2'",
        "'quo\"te'",
        '"it\'s"',
        "'new\\nline'",
        "7",
        "71",
        "('a', 1)",
    ]
    assert "camera" in matches("d[cam", namespace)


def test_keys_come_from_dict_subclasses_that_keep_its_getitem() -> None:
    namespace = {"c": collections.Counter(abc=1), "o": collections.OrderedDict(abc="")}
    assert matches("c['a", namespace) == {"abc": "key"}
    assert "upper" in matches("o['abc'].up", namespace)


def test_record_arrays_offer_fields_and_arrays_their_attributes() -> None:
    numpy = pytest.importorskip("numpy")
    namespace = {"np": numpy, "rec": numpy.zeros(2, dtype=[("first", "f8"), ("second", "i4")])}
    assert matches("rec['f", namespace) == {"first": "key"}
    assert "transpose" in matches("rec.T.tr", namespace)
    assert matches("np.lina", namespace) == {"linalg": "module"}
    assert "axis=" in matches("np.mean(rec, ax", namespace)


def test_items_of_arrays_offer_what_their_type_has() -> None:
    numpy = pytest.importorskip("numpy")

    class Own:
        def __init__(self) -> None:
            self.secret = 1

    namespace = {"a": numpy.zeros(3), "b": numpy.zeros((2, 2)), "own": numpy.array([Own()])}
    assert "is_integer" in matches("a[0].is_", namespace)
    assert "is_integer" in matches("a[-1].is_", namespace)
    assert "transpose" in matches("b[0].tr", namespace)
    assert "transpose" in matches("a[0:2].tr", namespace)
    assert matches("own[0].", namespace) == {}


def test_data_frames_offer_columns() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"col_a": [1, 2], "col b": [3, 4], "other": ["x", "y"]})
    namespace = {"df": frame, "s": pandas.Series([1], index=["label"])}
    assert matches("df['co", namespace) == {"col_a": "column", "col b": "column"}
    assert matches("df[['other', 'co", namespace) == {"col_a": "column", "col b": "column"}
    assert matches("df.col", namespace)["col_a"] == "column"
    assert "col b" not in matches("df.col", namespace)
    assert "median" in matches("df['col_a'].med", namespace)
    assert matches("s['la", namespace) == {"label": "column"}


# -- keyword arguments


def test_a_call_offers_the_parameters_not_given_yet(namespace: dict[str, Any]) -> None:
    assert matches("Camera(po", namespace)["port="] == "parameter"
    assert "port=" not in matches("Camera(1, p", namespace)
    assert "speed=" in matches("Camera(1, sp", namespace)
    assert "speed=" not in matches("Camera(1, speed=2, sp", namespace)
    assert {"gain="} == {match for match in matches("camera.snap(", namespace) if match.endswith("=")}
    assert "key=" in matches("print(sorted([1, 2], ke", namespace)
    assert "pattern=" in matches("Camera.find(\n    pat", namespace)
    assert "bus=" in matches("camera.probe(b", namespace)
    assert not [match for match in matches("def Camera(", namespace) if match.endswith("=")]
    assert not [match for match in matches("Camera((", namespace) if match.endswith("=")]


def test_wrapped_and_partial_functions_show_what_is_left_to_give() -> None:
    def inner(one: int, two: int, three: int) -> None: ...

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> None: ...

    namespace = {"outer": outer, "part": functools.partial(inner, 1, three=2)}
    assert "two=" in matches("outer(t", namespace)
    assert [match for match in matches("part(", namespace) if match.endswith("=")] == ["two="]


# -- imports


def test_imports_offer_modules_without_importing_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "zz_package"
    (package / "zz_sub").mkdir(parents=True)
    for path in (
        tmp_path / "zz_module.py",
        package / "__init__.py",
        package / "zz_leaf.py",
        package / "zz_sub/__init__.py",
    ):
        path.write_text("raise AssertionError('imported')")
    (tmp_path / "zz-not-a-name.py").touch()
    (tmp_path / "zz_plain").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert matches("import zz") == {"zz_module": "module", "zz_package": "module"}
    assert matches("import os, zz") == {"zz_module": "module", "zz_package": "module"}
    assert matches("import zz_package.") == {"zz_leaf": "module", "zz_sub": "module"}
    assert matches("from zz_package import zz_l") == {"zz_leaf": "module"}
    assert matches("from zz_pa") == {"zz_package": "module"}
    (tmp_path / "zz_new.py").touch()
    os.utime(tmp_path, ns=(0, 0))
    assert "zz_new" in matches("import zz")
    assert not [name for name in sys.modules if name.startswith("zz")]


def test_import_statements_are_understood(namespace: dict[str, Any]) -> None:
    assert matches("from os import pa")["path"] == "module"
    assert matches("from os.path import (join, \n    ba")["basename"] == "function"
    assert matches("if True: from os import getp")["getpid"] == "function"
    assert matches("from os ") == {"import": "keyword"}
    assert "sys" in matches("import sy")
    assert matches("from . import a") == {}
    assert matches("import os as ") == {}
    assert "camera" in matches("import os; cam", namespace)
    assert "camera" in matches("import os\ncam", namespace)
