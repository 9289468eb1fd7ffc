"""Finding and loading plugins, without a kernel."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import wait_until

from pyrokernel import plugins as plugins_module
from pyrokernel.plugins import Plugin, Plugins, find
from pyrokernel.settings import Settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plugins folder; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setattr(plugins_module, "_found", None)
    monkeypatch.setattr(plugins_module, "_finder", plugins_module._Finder())
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("pyrokernel_unit"):
            del sys.modules[name]


def write(folder: Path, name: str, text: str = "") -> None:
    (folder / f"pyrokernel_{name}.py").write_text(f"from pyrokernel import hookimpl\n{text}")


def plugins_of(folder: Path) -> Plugins:
    settings = Settings(plugins_dir=str(folder))
    return Plugins(settings, [one for one in find(settings) if one.name.startswith("unit")])


def ignore(plugin: Plugin) -> None:
    """Take nothing."""


def test_finding_imports_nothing_and_keeps_to_the_alphabet(folder: Path) -> None:
    for name in ("unit_b", "unit_a"):
        write(folder, name, "raise RuntimeError\n")
    (folder / "pyrokernel_unit_c").mkdir()
    (folder / "pyrokernel_unit_c" / "__init__.py").touch()
    (folder / "pyrokernel_unit_d").mkdir()  # no package
    assert [plugin.name for plugin in plugins_of(folder).all] == ["unit_a", "unit_b", "unit_c"]
    assert not [name for name in sys.modules if name.startswith("pyrokernel_unit")]


def test_what_is_put_into_the_folder_later_is_found(folder: Path) -> None:
    assert plugins_of(folder).all == []
    write(folder, "unit_late")
    assert [plugin.name for plugin in plugins_of(folder).all] == ["unit_late"]


def test_a_hook_that_hangs_while_it_is_taken_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins_module, "LOAD_SECONDS", 0.05)
    write(folder, "unit_hangs")
    write(folder, "unit_works")
    gate, taken = threading.Event(), []

    def take(plugin: Plugin) -> None:
        if plugin.name == "unit_hangs":
            gate.wait()
        taken.append(plugin.name)

    plugins = plugins_of(folder)
    plugins.load(take)
    hangs, works = plugins.infos()
    assert taken == ["unit_works"]
    assert hangs.problems == ("calling its hooks did not end within 0.05 s; it is left to itself",)
    assert works.problems == ()
    gate.set()
    wait_until(lambda: "unit_hangs" in taken)


def test_an_import_that_ends_after_it_was_given_up_counts_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins_module, "LOAD_SECONDS", 0.05)
    gate = threading.Event()
    monkeypatch.setattr(threading, "gate_of_this_test", gate, raising=False)
    write(folder, "unit_slow", "import threading\nthreading.gate_of_this_test.wait()\ndone = True\n")
    plugins = plugins_of(folder)
    taken: list[str] = []
    plugins.load(lambda plugin: taken.append(plugin.name))
    gate.set()
    wait_until(lambda: not [one for one in threading.enumerate() if one.name == "pyrokernel-plugin-unit_slow"])
    (info,) = plugins.infos()
    assert not info.loaded
    assert info.problems == ("importing pyrokernel_unit_slow did not end within 0.05 s; it is left to itself",)
    assert taken == []


def test_of_a_hook_that_raises_time_and_again_the_first_is_noted(folder: Path) -> None:
    write(
        folder,
        "unit_raises",
        "@hookimpl\ndef pyrokernel_cell_started(cell):\n"
        "    raise (SystemExit if cell['id'] == 'x' else ValueError)(cell['id'])\n",
    )
    plugins = plugins_of(folder)
    plugins.load(ignore)
    for cell in "abxcd":
        assert list(plugins.each("pyrokernel_cell_started", cell={"id": cell}, kernel=None)) == []
    first, second = plugins.infos()[0].problems
    assert first.startswith("pyrokernel_cell_started raised ValueError: a (")
    assert second.startswith("pyrokernel_cell_started raised SystemExit: x (")


def test_an_interrupt_is_nobodys_problem(folder: Path) -> None:
    write(folder, "unit_ends", "@hookimpl\ndef pyrokernel_cell_ended(): raise KeyboardInterrupt\n")
    plugins = plugins_of(folder)
    plugins.load(ignore)
    with pytest.raises(KeyboardInterrupt):
        list(plugins.each("pyrokernel_cell_ended", cell={}, kernel=None))
    assert plugins.infos()[0].problems == ()
