"""Tab on files: in strings, after commands, and only for those who may look."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrokernel.kernel import paths, service
from pyrokernel.kernel.paths import complete_path, complete_program
from pyrokernel.shell.here import Here
from pyrokernel.shell.paths import last_word
from tests.unit.completing import matches


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data.csv", "notes.txt", ".hidden", "it's", "my file", "bad\nname"):
        (tmp_path / name).write_text("")
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "monday").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def in_string(code: str, **namespace: Any) -> dict[str, str]:
    return matches(code, namespace, files=True)


def test_a_string_is_completed_as_a_path() -> None:
    assert in_string("x = 'da") == {"data.csv": "file", "days/": "directory"}
    assert in_string("open('days/mo") == {"monday": "file"}
    assert in_string("f(1, encoding='u', path=r'~/no") == {"notes.txt": "file"}
    assert in_string('f"da') == {"data.csv": "file", "days/": "directory"}


def test_what_opens_files_is_offered_them_before_anything_is_typed() -> None:
    everything = {"data.csv": "file", "days/": "directory", "it\\'s": "file", "my file": "file", "notes.txt": "file"}
    for call in ("open('", "Path('", "np.load('", "pd.read_csv('"):
        assert in_string(call) == everything
    assert in_string("print('") == in_string("x = '") == {}


def test_hidden_files_are_offered_once_a_dot_is_typed() -> None:
    assert in_string("'.h") == {".hidden": "file"}
    assert in_string("open('.") == {"./": "directory", ".hidden": "file"}
    assert in_string("open('..") == {"../": "directory"}


def test_the_python_of_the_shell_completes_files_too() -> None:
    assert Here().offer("open('no") == [("notes.txt", 6, "file")]


def test_keys_win_and_an_index_is_no_path() -> None:
    assert in_string("d['da", d={"date": 1}) == {"date": "key"}
    assert in_string("d['da", d={"other": 1}) == {}
    assert set(in_string("files = ['da")) == {"data.csv", "days/"}


@pytest.mark.parametrize("code", ["'''da", "b'da", "'\\da", "f'{x}da", "'da'", "# 'da"])
def test_what_is_no_path_is_left_alone(code: str) -> None:
    assert in_string(code) == {}


def test_files_are_offered_only_where_that_is_asked_for() -> None:
    assert matches("open('da") == {}


def test_who_may_not_run_code_is_told_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: Any = SimpleNamespace(
        _cells=SimpleNamespace(touch=lambda: None, running=None), _seen=lambda options: {"days": 1}
    )

    def ask(code: str, **options: str) -> Any:
        return service.KernelService.complete(kernel, code, -1, options)["matches"]

    for may_run, found in ((True, ["data.csv", "days/"]), (False, [])):
        peer = SimpleNamespace(may_run_code=may_run)
        monkeypatch.setattr(service, "current_peer", lambda peer=peer: peer)
        assert list(ask("open('da")) == list(ask("da", what="path")) == found
        assert list(ask("day")) == ["days"]


def test_a_large_directory_is_looked_at_in_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MATCH_LIMIT", 2)
    assert complete_path("").matches == ("data.csv", "days/")
    monkeypatch.setattr(paths, "_SCAN_LIMIT", 0)
    assert complete_path("").matches == ()


def test_looks_that_hang_cost_the_others_an_answer_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_looks", threading.Semaphore(0))
    assert complete_path("da").matches == ()
    monkeypatch.undo()
    assert paths._looks.acquire(blocking=False)
    paths._looks.release()


def test_programs_come_from_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/not/there")
    (folder / "data.csv").chmod(0o755)
    assert complete_program("da").matches == ("data.csv",)
    assert complete_program("").matches == ()


def test_a_folder_that_cannot_be_read_offers_nothing() -> None:
    assert complete_path("/not/there/x").matches == ()
    assert complete_path("a\0b/").matches == ()


@pytest.mark.parametrize(
    ("text", "part", "value", "quote", "program"),
    [
        ("l", "l", "l", "", True),
        ("ls da", "da", "da", "", False),
        ("ls --file=days/mo", "mo", "days/mo", "", False),
        ("cat my\\ fi", "my\\ fi", "my fi", "", False),
        ("cat 'my fi", "my fi", "my fi", "'", False),
        ('cat "days/m', "m", "days/m", '"', False),
        ("cat x | gr", "gr", "gr", "", True),
        ("A=1 ls", "ls", "ls", "", False),
        ("ls ", "", "", "", False),
    ],
)
def test_the_last_word_is_found_as_the_system_would(
    text: str, part: str, value: str, quote: str, program: bool
) -> None:
    word = last_word(text)
    assert (text[word.start :], word.value, word.quote, word.program) == (part, value, quote, program)


@pytest.mark.parametrize("text", ['ls "My Doc"', 'cat my"fi', "cat 'a'b"])
def test_a_quote_amid_a_name_is_left_to_whoever_types_it(text: str) -> None:
    assert last_word(text).mixed
    assert not last_word(text + "/").mixed
