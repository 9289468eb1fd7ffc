"""Commands of kernels as words of the shell, as far as that needs no kernels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cmd2 import CommandSet, Statement

from pyrokernel import plugins
from pyrokernel.messages import CommandInfo
from pyrokernel.settings import Settings
from pyrokernel.shell.extending import extend
from pyrokernel.shell.history import Unwritten
from pyrokernel.shell.house import House
from pyrokernel.shell.parser import UNKNOWN, SourceReader, Takes
from pyrokernel.shell.remote import RemoteCommand, parser_of
from pyrokernel.wording import arguments_from, written


def parameter(name: str, type: str, kind: str = "either", default: str = "", help: str = "") -> dict[str, Any]:
    about = {"name": name, "type": type, "kind": kind, "default": default, "help": help, "required": not default}
    return {**about, "annotation": type, "choices": []}


GREET = CommandInfo(
    name="greet",
    owner="plugin test",
    doc="Greet: at 100 % \x1b[2J.\n\nMore.",
    parameters=(
        parameter("who", "str", help="Of 50 %."),
        parameter("times", "int", default="1"),
        parameter("path", "path", "keyword", default="'x'"),
        parameter("help", "bool", "keyword", default="False", help="Or not."),
    ),
    returns="str",
)


def test_a_parser_reads_words_as_the_signature_says() -> None:
    parsed = parser_of(GREET, lambda typed: []).parse_args(["Ada", "--path", "a/b"])
    args, kwargs = arguments_from(parsed, GREET.parameters)
    assert (args, kwargs) == (["Ada"], {"path": "a/b"})
    assert written("greet", args, kwargs) == "greet('Ada', path='a/b')"


def test_its_help_has_signature_docstring_and_owner_and_no_terminal_obeys_it() -> None:
    text = parser_of(GREET, lambda typed: []).format_help()
    assert "greet(who: str, times: int = 1, *, path: path = " in text
    assert "Greet: at 100 % \\x1b[2J." in text
    assert "Of 50 %." in text
    assert "A command of the kernels, of plugin test; in Python: greet(...)" in text


def test_only_what_takes_paths_completes_them() -> None:
    parser = parser_of(GREET, lambda typed: [typed + "!"])
    completed = [action.dest for action in parser._actions if action.get_completer()]  # type: ignore[attr-defined]
    assert completed == ["argument_path"]


def test_a_command_says_whose_it_is() -> None:
    ran: list[Any] = []

    def run(*words: Any) -> bool:
        ran.append(words)
        return True

    command = RemoteCommand(GREET, run)
    assert command.__doc__ == "Greet (plugin test)."
    command(Statement("Ada", raw=":greet Ada ", command="greet"))
    assert ran == [("greet", ["Ada"], ":greet Ada")]


def test_a_reader_learns_before_it_takes_a_line_for_python() -> None:
    reader = SourceReader({"ps": Takes.WORDS})
    asked: list[str] = []

    def learn(line: str) -> None:
        asked.append(line)
        if line.startswith(("hello", ":hello")):
            reader.commands = {**reader.commands, "hello": Takes.WORDS}

    assert reader.command_of("hello Ada") == ""
    reader.learn = learn
    assert reader.command_of("ps") == "ps"
    assert reader.command_of("other Ada") == ""
    assert reader.command_of(":other") == UNKNOWN
    assert reader.command_of("hello Ada") == "hello"
    assert reader.command_of("hello('Ada')") == ""
    assert reader.command_of("hello = 3") == ""
    assert asked == ["other Ada", ":other", "hello Ada"]


class Own(CommandSet[Any]):
    """What the shell has."""

    def do_ps(self, _: Statement) -> None:
        """Own."""


SETS = """
from cmd2 import CommandSet
from pyrokernel import hookimpl

class Good(CommandSet):
    def do_good(self, _): pass

class Taken(CommandSet):
    def do_ps(self, _): pass

class Keyword(CommandSet):
    do_import = lambda self, _: None

class Raises(CommandSet):
    def do_raises(self, _): pass
    def on_register(self, cmd): raise RuntimeError("on purpose")

class Files(CommandSet):
    LOCAL = True
    def do_files(self, _): pass

@hookimpl
def pyrokernel_register_command_sets(register, settings):
    for one in (Taken, Raises, Good, Keyword, Files):
        register(one())
"""


class TestExtending:
    """Sets of commands that plugins bring."""

    names: ClassVar[set[str]] = {"good", "files"}

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        (tmp_path / f"pyrokernel_{tmp_path.name}.py").write_text(SETS)
        (tmp_path / f"pyrokernel_bad_{tmp_path.name}.py").write_text("import sys; sys.exit('not today')\n")
        return Settings(plugins_dir=str(tmp_path))

    @pytest.mark.parametrize("restricted", [False, True])
    def test_each_bad_one_costs_itself_alone(
        self, settings: Settings, restricted: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        house = House([Own()], Unwritten(), restricted=restricted)
        with caplog.at_level(logging.WARNING):  # as without -v
            found = extend(house, settings)
        assert {"good"} <= set(house.get_visible_commands())
        assert ("files" in house.get_visible_commands()) is not restricted
        assert ("files" in house.refused) is restricted
        assert "raises" not in house.get_all_commands()
        problems = "\n".join(found.problems)
        for said in ("SystemExit: not today", "refused: ps: the shell has", "on purpose", "import: the shell has"):
            assert said in problems
        assert len(found.problems) == 4
        assert not caplog.records

    def test_one_that_hangs_is_given_up_and_brings_nothing_later(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plugins, "LOAD_SECONDS", 0.3)
        folder = Path(settings.plugins_dir)
        (folder / f"pyrokernel_a_{folder.name}.py").write_text("import threading; threading.Event().wait()\n")
        house = House([Own()], Unwritten())
        found = extend(house, settings)
        assert "good" in house.get_visible_commands()
        assert any("did not end within 0.3 s" in problem for problem in found.problems)

    def test_without_plugins_nothing_is_loaded(self, tmp_path: Path) -> None:
        (tmp_path / "pyrokernel_unwanted.py").write_text("raise AssertionError\n")
        found = extend(House([Own()], Unwritten()), Settings(plugins_dir=str(tmp_path), no_plugin="unwanted"))
        assert found.plugins is None
        assert found.problems == []
