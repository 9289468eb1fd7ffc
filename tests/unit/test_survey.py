"""The survey finds what is there, never fails on a file, and does not care how files are split."""

from __future__ import annotations

import pickle
import random
import sysconfig
import textwrap
import warnings
from pathlib import Path

import pytest

from pyrokernel import survey
from pyrokernel.survey import FileFinding, format_table, merge, stdlib_files, survey_file, survey_files


@pytest.fixture
def write(tmp_path: Path):
    """Return a function that writes a source file and returns its path."""

    def write(source: str | bytes, name: str = "module.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else textwrap.dedent(source).encode())
        return str(path)

    return write


def complexity(body: str) -> int:
    """Return the complexity of a function with that body."""
    tree = survey.ast.parse("async def f():\n" + textwrap.indent(textwrap.dedent(body), "    "))
    functions, _ = survey._look_through(tree)
    return next(function["complexity"] for function in functions if function["name"] == "f")


class TestOneFile:
    def test_functions_have_the_names_that_python_gives_them(self, write) -> None:
        finding = survey_file(
            write("""
                class A:
                    class B:
                        def method(self):
                            def inner(): pass
                            class Local:
                                async def deep(self): pass
                def plain(): pass
            """)
        )
        assert [function["name"] for function in finding["functions"]] == [
            "A.B.method",
            "A.B.method.<locals>.inner",
            "A.B.method.<locals>.Local.deep",
            "plain",
        ]

    def test_a_function_is_measured_from_def_to_its_last_line(self, write) -> None:
        finding = survey_file(write("@decorator\ndef f(\n    a,\n):\n    return [\n        a,\n    ]\n\n\nx = 1\n"))
        assert [(f["line"], f["lines"]) for f in finding["functions"]] == [(2, 6)]
        assert finding["lines"] == 10

    def test_imports_are_found_wherever_they_stand_and_once(self, write) -> None:
        finding = survey_file(
            write("""
                import os, os.path
                import numpy as np
                from collections import abc, deque
                from . import sibling
                from ..parent import thing
                def f():
                    import os
                    try:
                        import json
                    except ImportError:
                        pass
            """)
        )
        assert finding["imports"] == [".", "..parent", "collections", "json", "numpy", "os", "os.path"]

    def test_an_empty_file_has_nothing(self, write) -> None:
        path = write("")
        assert survey_file(path) == FileFinding(path=path, lines=0, functions=[], imports=[], error="")


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ("pass", 1),
        ("if a: pass", 2),
        ("if a: pass\nelif b: pass\nelse: pass", 3),
        ("for x in y: pass\nelse: pass", 2),
        ("async for x in y: pass", 2),
        ("while a and b or c: pass", 4),
        ("try: pass\nexcept A: pass\nexcept B: pass\nelse: pass\nfinally: pass", 3),
        ("with a: pass", 1),
        ("return a if b else c", 2),
        ("return [x for x in y if a if b]", 4),
        ("return {x: y for x in a for y in b}", 3),
        ("match a:\n    case 1: pass\n    case [x] if x: pass\n    case _: pass", 3),
        ("match a:\n    case x if x: pass\n    case y: pass", 2),
        ("return lambda: a or b", 2),
        ("def g():\n    if a: pass", 1),
        ("class G:\n    if a: pass", 2),
    ],
)
def test_each_decision_adds_a_path(body: str, paths: int) -> None:
    assert complexity(body) == paths


class TestFilesThatDoNotParse:
    @pytest.mark.parametrize(
        ("source", "error"),
        [
            (b"def f(:\n", "SyntaxError: invalid syntax (line 1)"),
            (b"print 'two'\n", "SyntaxError: Missing parentheses in call"),
            (b"x = '\xff'\n", "SyntaxError: (unicode error)"),
            (b"# coding: klingon\n", "SyntaxError: "),
            (b"x = 1\x00\n", "null bytes"),
            (b"(" * 100_000, "SyntaxError: too many nested parentheses"),
        ],
        ids=["syntax", "python 2", "bytes", "codec", "null", "nested"],
    )
    def test_the_reason_is_recorded(self, write, source: bytes, error: str) -> None:
        finding = survey_file(write(source))
        assert error in finding["error"]
        assert finding["functions"] == []
        assert finding["lines"] == 1

    def test_an_expression_too_deep_for_the_parser_is_recorded(self, write) -> None:
        finding = survey_file(write("x = " + "-" * 100_000 + "1\n"))
        assert finding["error"].startswith(("RecursionError", "MemoryError", "SyntaxError"))

    def test_a_file_that_is_not_there_is_recorded(self, tmp_path: Path) -> None:
        assert survey_file(str(tmp_path / "missing.py"))["error"] == "FileNotFoundError: No such file or directory"

    def test_a_warning_is_no_reason_even_where_warnings_are_errors(self, write) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert survey_file(write("x = '\\d'\nassert (1, 'always true')\n"))["error"] == ""


@pytest.fixture
def findings(write) -> list[FileFinding]:
    """Twelve files with many ties, one of them broken."""
    paths = [
        write(f"import os, m{n % 3}\ndef f():\n    if a: pass\ndef g{n}(): pass\n", f"{'abc'[n % 3]}/f{n}.py")
        for n in range(11)
    ]
    return survey_files([*paths, write("def", "broken.py")])


def test_the_summary_is_the_same_however_files_are_split(findings: list[FileFinding]) -> None:
    whole = merge([findings])
    for seed in range(20):
        shuffled = random.Random(seed).sample(findings, len(findings))
        n_parts = seed % 5 + 1
        assert merge([shuffled[n::n_parts] for n in range(n_parts)]) == whole
    assert merge([[finding] for finding in findings]) == whole


def test_the_summary_adds_up(findings: list[FileFinding], tmp_path: Path) -> None:
    summary = merge([findings])
    assert (summary["files"], summary["lines"], summary["functions"]) == (12, 45, 22)
    assert summary["root"] == str(tmp_path)
    assert summary["most_imported"] == [("os", 11), ("m0", 4), ("m1", 4), ("m2", 3)]
    assert [path for path, _ in summary["unparsed"]] == [str(tmp_path / "broken.py")]
    assert len(summary["longest"]) == survey.TOP
    assert summary["longest"][0] == {"path": str(tmp_path / "a/f0.py"), "name": "f", "line": 2, "value": 2}


def test_relative_imports_are_not_counted_together(write) -> None:
    parts = [survey_files([write("from . import x", f"{name}/m.py")]) for name in "ab"]
    assert merge(parts)["most_imported"] == []


def test_nothing_at_all_has_a_summary_and_a_table() -> None:
    assert merge([])["files"] == 0
    assert format_table(merge([[], []])).splitlines()[0] == "0 files, 0 lines, 0 functions"


def test_findings_are_plain_data(findings: list[FileFinding]) -> None:
    assert b"pyrokernel" not in pickle.dumps((findings, merge([findings])))


def test_the_table_shows_each_list_and_counts_the_rest(write, tmp_path: Path) -> None:
    good = write("import os\ndef f():\n    return a or b\n", "a.py")
    bad = [write("def", f"bad{n}.py") for n in range(7)]
    assert format_table(merge([survey_files([good, *bad])]), shown=2) == textwrap.dedent(f"""\
        {tmp_path}: 8 files, 10 lines, 1 functions

        longest functions (lines)
          2  f  a.py:2

        most complex functions (paths)
          2  f  a.py:2

        most imported modules (files)
          1  os

        files that do not parse: 7
          bad0.py: SyntaxError: invalid syntax (line 1)
          bad1.py: SyntaxError: invalid syntax (line 1)
          and 5 more""")


def test_the_standard_library_is_found_without_what_was_installed_into_it() -> None:
    paths = stdlib_files()
    folder = Path(sysconfig.get_path("stdlib"))
    assert paths == sorted(set(paths))
    assert {str(folder / "ast.py"), str(folder / "json" / "decoder.py")} <= set(paths)
    assert not [path for path in paths if "site-packages" in path or not path.endswith(".py")]


def test_a_part_of_the_standard_library_is_surveyed() -> None:
    paths = [path for path in stdlib_files() if Path(path).parent.name in {"json", "logging"}]
    summary = merge([survey_files(paths)])
    assert not summary["unparsed"]
    assert summary["functions"] > 100
    assert "_make_iterencode" in format_table(summary, shown=survey.TOP)
