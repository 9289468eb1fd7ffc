"""The words of `pyrokernel state`, what its values are, and the files it works on; no mesh."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.cli import ExitCode, build_parser, main
from pyrokernel.errors import StateConflictError, StateError, StateKeyError, StateStorageError, StateUnavailableError
from pyrokernel.front.exits import code_of
from pyrokernel.front.state import parse_value
from pyrokernel.front.state_files import disk_bytes
from pyrokernel.state.backups import DATABASE, Backups, restore
from pyrokernel.state.claim import claim
from pyrokernel.state.files import Files
from pyrokernel.state.sqlite import SQLiteStore


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("-5", -5), ("1e3", 1000.0), ("'3'", "3"), ("[1, 'a', None]", [1, "a", None]), ("{1: 2}", {1: 2}),
        ("b'x'", b"x"), ("hello", "hello"), ("two words", "two words"), ("", ""), ("1 +", "1 +"), ("os.getpid()",
        "os.getpid()"), ("'\\d", "'\\d"), ("[" * 5000, "[" * 5000), ("\0", "\0"), ("{[]: 1}", "{[]: 1}"),
    ],
)  # fmt: skip
def test_a_value_is_a_literal_or_text(text: str, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = parse_value(text)
    assert (found, type(found)) == (value, type(value))


def test_a_backslash_that_python_would_warn_of_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse_value("'\\d'") == "\\d"


@pytest.mark.parametrize("words", [("state", "ls", "--mesh", "lab"), ("state", "--mesh", "lab", "ls"),
                                   ("--mesh", "lab", "state", "ls")])  # fmt: skip
def test_common_options_stand_anywhere(words: tuple[str, ...]) -> None:
    args = build_parser().parse_args(words)
    assert (args.mesh, args.target) == ("lab", "state:ls")


@pytest.mark.parametrize(
    ("words", "meant", "remedy"),
    [
        (("state", "lst"), "did you mean ls?", "`pyrokernel state --help`"),
        (("state", "ls", "--jsn"), "did you mean --json?", "`pyrokernel state ls --help`"),
        (("state", "get", "a", "b"), "'b' is one argument too many", "`pyrokernel state get --help`"),
        (("state", "get"), "KEY", "`pyrokernel state get --help`"),
        (("state", "diff", "k", "one"), "not a whole number", "`pyrokernel state diff --help`"),
        (("state", "get", "k", "--raw", "--json"), "not allowed with", "`pyrokernel state get --help`"),
    ],
)
def test_what_is_mistyped_is_guessed(
    words: tuple[str, ...], meant: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(words)
    assert ended.value.code == ExitCode.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert meant in line
    assert remedy in line


def test_state_alone_shows_its_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["state"]) == ExitCode.USAGE
    text = capsys.readouterr().out
    assert "put a backup in place" in text
    assert "pyrokernel state" in text


def test_errors_of_the_shared_state_have_codes_that_tell_them_apart() -> None:
    codes = [code_of(error()) for error in (StateKeyError, StateConflictError, StateUnavailableError, StateError)]
    assert codes == [ExitCode.NO_KERNEL, ExitCode.REFUSED, ExitCode.TIMEOUT, ExitCode.FAILED]


def test_what_has_several_names_takes_its_room_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a" / "one", tmp_path / "two")
    (tmp_path / "empty").mkdir()
    assert disk_bytes([tmp_path / "a", tmp_path / "two"]) == 1000
    assert disk_bytes([tmp_path / "gone"]) == 0


# The directory of a state


def test_a_directory_belongs_to_one_at_a_time(tmp_path: Path) -> None:
    held = claim(tmp_path)
    with pytest.raises(StateStorageError, match="there can be only one service"):
        claim(tmp_path, 0.05)
    os.close(held)
    os.close(claim(tmp_path))


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup of an empty state in `tmp_path/state`, which has a value since."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    store = SQLiteStore(directory / DATABASE)
    backups = Backups(directory)
    backups.attach(store, Files(directory))
    made = backups.make("good")
    store.close()
    (directory / "values" / "newer").write_text("a value")
    return made


def test_a_restored_state_is_another_one_to_whoever_watched_the_old(tmp_path: Path, backup: Path) -> None:
    directory = tmp_path / "state"
    aside = restore(directory, backup)
    assert (aside / "values" / "newer").exists()
    assert not (directory / "values" / "newer").exists()
    ids = []
    for path in (aside, backup, directory):
        with contextlib.closing(sqlite3.connect(path / DATABASE)) as db:
            ids.append(db.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()[0])
    assert ids[0] == ids[1] != ids[2]
    assert not list(directory.glob("restoring-*"))


def test_a_service_that_somebody_starts_meanwhile_is_ended_again(tmp_path: Path, backup: Path) -> None:
    directory = tmp_path / "state"
    held = [claim(directory)]
    stops = []

    def stop() -> None:
        stops.append(1)
        while held:
            os.close(held.pop())
        if len(stops) < 3:
            held.append(claim(directory))

    restore(directory, backup, stop)
    assert len(stops) == 3


def test_a_service_that_does_not_end_keeps_what_it_has(tmp_path: Path, backup: Path) -> None:
    directory = tmp_path / "state"
    before = (directory / DATABASE).read_bytes()
    held = claim(directory)
    with pytest.raises(StateStorageError, match="another process"):
        restore(directory, backup)
    os.close(held)
    assert (directory / DATABASE).read_bytes() == before
    assert (directory / "values" / "newer").exists()
    assert not [*directory.glob("restoring-*"), *directory.glob("replaced-*")]


@pytest.mark.parametrize("damage", ["missing", "text"])
def test_what_is_no_backup_changes_nothing(tmp_path: Path, backup: Path, damage: str) -> None:
    directory = tmp_path / "state"
    if damage == "missing":
        (backup / DATABASE).unlink()
    else:
        (backup / DATABASE).write_text("no database at all " * 100)
    stopped: list[int] = []
    with pytest.raises(StateError, match="no backup" if damage == "missing" else "damaged itself"):
        restore(directory, backup, lambda: stopped.append(1))
    assert not stopped
    assert (directory / "values" / "newer").exists()
