"""The names of the installed parts, and what stands for missing ones. Runs in the test process."""

from __future__ import annotations

import io
import threading

import pytest

from pyrokernel_sage import parts


def test_numbers_are_pythons_where_sages_are_not_installed() -> None:
    found = parts.combined([])
    assert found["Integer"] is int
    assert found["RealNumber"] is float
    assert found["ComplexNumber"](0, "1.5") == 1.5j  # type: ignore[operator]  # a name may be anything


def test_a_larger_part_improves_the_names_of_those_it_is_built_on() -> None:
    small, large = {"RR": "doubles", "a": 1}, {"RR": "any precision", "a": 1, "matrix": 2}
    assert parts.combined([large, small])["RR"] == "any precision"
    assert parts.combined([small, large])["RR"] == "any precision"


def test_a_missing_name_says_what_to_install() -> None:
    missing = parts.combined([])["QQ"]
    assert repr(missing) == "<QQ is not installed here: pip install 'passagemath-categories'>"
    with pytest.raises(ModuleNotFoundError, match=r"QQ .* install 'passagemath-categories'"):
        missing["x"]  # type: ignore[index]  # what `R.<x> = QQ[]` does
    with pytest.raises(ModuleNotFoundError, match="QQ"):
        missing(3)  # type: ignore[operator]
    with pytest.raises(ModuleNotFoundError, match="QQ"):
        missing.gen  # type: ignore[attr-defined]  # noqa: B018


def test_a_missing_name_can_be_looked_at() -> None:
    missing = parts.combined([])["QQ"]
    assert not hasattr(missing, "_repr_html_")
    assert not hasattr(missing, "__array__")


def test_what_is_installed_is_not_missing() -> None:
    assert parts.combined([{"QQ": 1, "Integer": 2}])["QQ"] == 1


def test_what_is_missing_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_names", parts.combined([]))
    monkeypatch.setattr(parts, "_said", False)
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    parts.say_what_is_missing()
    parts.say_what_is_missing()
    assert written.getvalue().count("3/4 is 0.75") == 1


def test_nothing_is_said_where_numbers_are_sages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parts, "_names", parts.combined([{"Integer": object}]))
    parts.say_what_is_missing()
    assert capsys.readouterr().err == ""


def test_another_thread_does_not_import_sage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_names", None)
    raised: list[BaseException] = []

    def work() -> None:
        try:
            parts.names()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "main thread" in str(raised[0])
