"""What `ship --watch` sees of files that are saved, as editors save them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyrokernel.client.watching import Watched


def looked(watched: Watched) -> list[Path]:
    """Look twice: what changes is told when it has come to rest."""
    return watched.look() + watched.look()


def test_what_has_not_changed_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("a = 1")
    assert looked(Watched([path])) == []


def test_a_save_is_told_once_and_when_it_has_come_to_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("a = 1")
    watched = Watched([path])
    path.write_text("a = 12")
    assert watched.look() == []
    path.write_text("a = 123")  # still being written
    assert watched.look() == []
    assert watched.look() == [path]
    assert looked(watched) == []


def test_a_file_that_takes_the_place_of_another_is_a_save(tmp_path: Path) -> None:
    path, fresh = tmp_path / "a.py", tmp_path / "a.py.new"
    path.write_text("a = 1")
    watched = Watched([path])
    fresh.write_text("a = 2")
    os.utime(fresh, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # same time, same size: another file
    os.replace(fresh, path)
    assert looked(watched) == [path]


def test_what_is_missing_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("a = 1")
    watched = Watched([path])
    path.unlink()
    assert looked(watched) == []
    path.write_text("a = 2 ")
    assert looked(watched) == [path]


def test_of_a_package_any_file_counts_but_what_machines_make(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "below" / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    watched = Watched([package])
    (package / "below" / "__pycache__" / "x.pyc").write_text("x")
    (package / ".hidden").write_text("x")
    assert looked(watched) == []
    (package / "below" / "data.txt").write_text("x")
    assert looked(watched) == [package]
    (package / "below" / "data.txt").unlink()
    assert looked(watched) == [package]


def test_a_look_reads_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        (tmp_path / f"m{number}.py").write_text("")
    watched = Watched([tmp_path, *sorted(tmp_path.iterdir())])
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("a file was read"))
    monkeypatch.setattr("io.open", lambda *_: pytest.fail("a file was read"))
    assert looked(watched) == []
