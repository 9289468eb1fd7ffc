"""Which store is opened, and what is told when there is none. Runs in the test process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.errors import StateCorruptError, StateError, StateStorageError
from pyrokernel.settings import Settings
from pyrokernel.state.ahead import WriteAhead
from pyrokernel.state.backups import Backups
from pyrokernel.state.files import Files
from pyrokernel.state.opening import open_store
from pyrokernel.state.sqlite import SQLiteStore
from pyrokernel.stores import Store

Open = Callable[..., Store]

IN_HOUSE = """
from pyrokernel import hookimpl
from pyrokernel.state.sqlite import SQLiteStore

class Elsewhere(SQLiteStore):
    backed_up_by = "its own tools"

@hookimpl
def pyrokernel_open_store(directory, mesh, durability, settings):
    store = Elsewhere(directory / "elsewhere.db")
    store.told = (directory, mesh, durability, dict(settings))
    return store
"""


@pytest.fixture
def open_with(tmp_path: Path) -> Open:
    """Open the store of a name, with plugins by name and source."""

    def open_with(name: str, sources: dict[str, str], **more: Any) -> Store:
        folder = tmp_path / "plugins"
        folder.mkdir()
        for plugin, source in sources.items():
            (folder / f"pyrokernel_{plugin}.py").write_text(source)
        settings = Settings(state_store=name, plugins_dir=str(folder), **more)
        return open_store(tmp_path, settings, Backups(tmp_path))

    return open_with


def test_sqlite_needs_no_plugin(tmp_path: Path) -> None:
    store = open_store(tmp_path, Settings(), Backups(tmp_path))
    assert isinstance(store, WriteAhead)
    store.close()
    assert (tmp_path / "state.db").exists()


def test_a_damaged_file_names_the_newest_backup(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"nothing of the kind" * 100)
    backup = tmp_path / "backups" / "old"
    backup.mkdir(parents=True)
    SQLiteStore(backup / "state.db").close()
    with pytest.raises(StateCorruptError, match=f"state restore {backup}"):
        open_store(tmp_path, Settings(), Backups(tmp_path))


def test_the_plugin_of_that_name_is_asked(open_with: Open, tmp_path: Path) -> None:
    """`pyrokernel_open_store` gets where, whose, how durable, and the section."""
    section = {"elsewhere": {"level": 3}}
    store: Any = open_with("elsewhere", {"elsewhere": IN_HOUSE}, mesh="lab", durability="power", plugins=section)
    assert store.told == (tmp_path, "lab", "power", {"level": 3})
    store.close()


def test_no_other_plugin_is_imported(open_with: Open, tmp_path: Path) -> None:
    other = f"open({str(tmp_path / 'imported')!r}, 'w')"
    open_with("elsewhere2", {"elsewhere2": IN_HOUSE, "other": other}).close()
    assert not (tmp_path / "imported").exists()


def test_a_store_with_tools_of_its_own_is_not_backed_up_from_here(open_with: Open, tmp_path: Path) -> None:
    store = open_with("elsewhere3", {"elsewhere3": IN_HOUSE})
    backups = Backups(tmp_path)
    backups.attach(store, Files(tmp_path))
    with pytest.raises(StateError, match="not backed up from here: its own tools"):
        backups.make()
    assert not backups.directory.exists()
    store.close()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, "there is no plugin of that name"),
        ("import no_such_module", "could not be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1", "brings no store"),
        (IN_HOUSE.replace("return store", "store.close(); return None"), "returned a NoneType without begin"),
        (IN_HOUSE.replace("return store", "store.close(); return {}"), "returned a dict without begin"),
        (IN_HOUSE.replace("store = ", "1 / 0; store = "), "cannot open its store: ZeroDivisionError"),
        (IN_HOUSE.replace("store = ", "raise SystemExit(3); store = "), "cannot open its store: SystemExit"),
        (IN_HOUSE.replace("durability,", "durabilty,"), "could not be loaded: .*durabilty"),
    ],
)
def test_what_cannot_be_opened_names_setting_problem_and_what_there_is(
    open_with: Open, request: pytest.FixtureRequest, source: str | None, problem: str
) -> None:
    name = f"broken{abs(hash(request.node.name))}"  # a module is imported once
    sources = {f"spare{name}": IN_HOUSE} | ({name: source} if source is not None else {})
    with pytest.raises(StateStorageError, match=problem) as caught:
        open_with(name, sources)
    assert f"'{name}' (setting state_store)" in str(caught.value)
    assert f"sqlite, spare{name}" in str(caught.value)


def test_what_a_plugin_says_itself_stays_as_it_is(open_with: Open) -> None:
    raising = "from pyrokernel.errors import StateStorageError" + IN_HOUSE.replace(
        "store = ", "raise StateStorageError(path='P', reason='R'); store = "
    )
    with pytest.raises(StateStorageError, match="kept in P: R") as caught:
        open_with("outspoken", {"outspoken": raising})
    assert caught.value.path == "P"


def test_a_plugin_to_go_without_is_none(open_with: Open) -> None:
    with pytest.raises(StateStorageError, match="there is no plugin of that name"):
        open_with("elsewhere4", {"elsewhere4": IN_HOUSE}, no_plugin="elsewhere4")
