"""What stands around the prompt, as far as it needs no kernels: help, history, startup, tour, prompt, editor."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from cmd2 import CommandSet, Statement
from waiting import wait_until

from pyrokernel.errors import PyrokernelError
from pyrokernel.settings import Settings
from pyrokernel.shell.aliases import _takes
from pyrokernel.shell.editing import edited, editor
from pyrokernel.shell.helping import details, overview, summary, wrap
from pyrokernel.shell.history import History, Unwritten, found, numbers
from pyrokernel.shell.lookout import Lookout, View
from pyrokernel.shell.parser import SourceReader, Takes
from pyrokernel.shell.restricted import admit, local
from pyrokernel.shell.startup import numbered, startup_file
from pyrokernel.shell.tour import STEPS, Deed, Tour

COMMANDS = {"ps": Takes.WORDS, "on": Takes.WORD_AND_PYTHON, "here": Takes.PYTHON, "tour": Takes.WORDS}


def test_a_summary_is_a_sentence_without_the_usage() -> None:
    assert summary("Join the parts: gather NAME [as NEW].\n\n    More.") == "Join the parts"
    assert summary("Leave the shell; the kernels stay.") == "Leave the shell; the kernels stay"


def test_help_is_one_line_each_by_subject_and_fits_a_small_terminal() -> None:
    subjects = {
        "Shell": {"exit": "Leave."},
        "Kernels": {"use": "Choose.", "ps": "List the kernels of the mesh with all that there is to say of them."},
        "Habits": {"time": "Measure."},
    }
    wide = overview(subjects, 100)
    assert wide[:3] == [
        "Kernels",
        "  ps    List the kernels of the mesh with all that there is to say of them",
        "  use   Choose",
    ]
    assert [line for line in wide if line and line[0] != " "][:3] == ["Kernels", "Habits", "Shell"]
    narrow = overview(subjects, 40)
    assert max(map(len, narrow)) <= 40
    assert "        with all that there is to say of" in narrow


def test_help_of_a_command_ends_with_an_example() -> None:
    assert details("ps", "List.", "Usage: ps [-h]\n", 80) == ["Usage: ps [-h]", "", "For instance: ps > kernels.txt"]
    assert details("strange", "Be strange.", "", 80) == ["Be strange."]


def test_long_lines_break_between_words_and_keep_their_margin() -> None:
    assert wrap("    one two three", 12) == ["    one two", "    three"]
    assert wrap("no-break-in-this-word", 8) == ["no-break-in-this-word"]
    assert wrap("", 8) == [""]
    assert wrap("\x1b[1mone\x1b[0m two", 8) == ["\x1b[1mone\x1b[0m two"]


def test_history_shows_numbers_and_searches() -> None:
    newest_first = ["x = 1", "def f():\n    return 1", "import os", "IMPORT"]
    assert found(newest_first, "", 2) == ["3  def f():", "       return 1", "4  x = 1"]
    assert found(newest_first, "import", 10) == ["1  IMPORT", "2  import os"]
    assert found(newest_first, "nowhere", 10) == []
    assert found(newest_first, "", None, numbers("2-3")) == ["2  import os", "3  def f():", "       return 1"]
    assert found(newest_first, "", 1, numbers("2")) == ["2  import os"]
    assert found(newest_first, "1", 10, own="x = 1") == ["3  def f():", "       return 1"]
    with pytest.raises(ValueError, match="invalid literal"):
        numbers("~1/2")


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_a_line_again_counts_once(kind: str, tmp_path: Path) -> None:
    history = History(tmp_path / "h") if kind == "file" else Unwritten()
    for line in ("x = 1", "x = 1\n", "y", "", "x = 1"):
        history.append_string(line)
    assert list(history.load_history_strings()) == ["x = 1", "y", "x = 1"]


def test_the_startup_file_lies_beside_the_configuration_or_where_a_setting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert startup_file(Settings()) == tmp_path / "pyrokernel" / "shell.pk"
    assert startup_file(Settings(shell_startup="~/mine.pk")) == Path.home() / "mine.pk"


def test_pieces_of_a_script_know_their_lines() -> None:
    lines = ["# a comment", "", "ps", "def f():", "    return 1", "", "f()\r", "x = [", "1]", "ps"]
    pieces = SourceReader(COMMANDS).pieces(lines)
    assert [(number, piece.text) for number, piece in numbered(pieces, lines)] == [
        (3, "ps"),
        (4, "def f():\n    return 1\n"),
        (7, "f()"),
        (8, "x = [\n1]"),
        (10, "ps"),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("ps", Takes.TEXT),
        ("on k0", Takes.PYTHON),
        ("on", Takes.WORD_AND_PYTHON),
        ("here", Takes.PYTHON),
        ("import os; os.getpid()", Takes.PYTHON),
    ],
)
def test_what_follows_an_alias_is_what_follows_its_line(line: str, what: Takes) -> None:
    assert _takes(COMMANDS, SourceReader(COMMANDS).command_of(line), line) is what


@pytest.mark.parametrize(
    ("view", "prompt"),
    [
        (View(["k0"]), "k0"),
        (View(["k0"], busy=1), "k0 (busy)"),
        (View(["k0"], fresh=1), "k0 (restarted)"),
        (View([], gone=["k0"]), "k0 (gone)"),
        (View([], gone=["k0", "k1"]), "2 kernels (2 gone)"),
        (View(["k0", "k1"]), "2 kernels"),
        (View(["k0", "k1"], busy=1, gone=["k2", "k3"]), "2 kernels (1 busy, 2 gone)"),
        (View(["k0"], gone=["k1"]), "k0 (1 gone)"),
    ],
)
def test_the_prompt_counts_kernels_and_says_how_they_are(view: View, prompt: str) -> None:
    assert view.prompt == prompt


def test_kernels_are_looked_at_only_while_the_prompt_waits() -> None:
    looks: list[int] = []
    told: list[View] = []

    def see() -> View:
        looks.append(1)
        if len(looks) == 2:
            raise PyrokernelError("nobody answers")
        return View(["k0"], busy=len(looks))

    lookout = Lookout(see, told.append, seconds=0.01)
    lookout.resume()
    wait_until(lambda: len(told) >= 3)
    assert [view.busy for view in told[:3]] == [1, 3, 4]  # a look that fails says nothing
    lookout.pause()
    lookout.resume()
    lookout.close()
    assert not any(thread.name == "lookout" for thread in threading.enumerate())
    seen = len(told)
    lookout.resume()
    assert len(told) == seen


def test_a_look_that_ends_after_the_line_was_entered_is_not_told() -> None:
    begun, go_on = threading.Event(), threading.Event()
    told: list[View] = []

    def see() -> View:
        begun.set()
        assert go_on.wait(10)
        return View(["k0"], busy=1)

    lookout = Lookout(see, told.append, seconds=0.01)
    lookout.resume()
    assert begun.wait(10)
    lookout.pause()
    go_on.set()
    lookout.close()
    assert told == []


def test_a_look_begun_before_a_line_is_not_told_at_the_prompt_after_it() -> None:
    begun, go_on = threading.Event(), threading.Event()
    told: list[View] = []

    def see() -> View:
        first = not begun.is_set()
        begun.set()
        assert go_on.wait(10)
        return View(["k0"], busy=int(first))

    lookout = Lookout(see, told.append, seconds=60)
    lookout.resume()
    assert begun.wait(10)
    lookout.pause()
    lookout.resume()  # the line took less time than the look
    go_on.set()
    wait_until(lambda: told)  # at once, not after the minute between two looks
    lookout.close()
    assert [view.busy for view in told] == [0]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_look_may_fail_in_any_way_once_it_is_not_wanted_any_more() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def see() -> View:
        begun.set()
        assert go_on.wait(10)
        raise ValueError("the connection was closed")

    lookout = Lookout(see, lambda view: None, seconds=0.01)
    lookout.resume()
    assert begun.wait(10)
    closing = threading.Thread(target=lookout.close)
    closing.start()
    wait_until(lambda: lookout._over)
    go_on.set()
    closing.join(10)
    wait_until(lambda: not any(thread.name == "lookout" for thread in threading.enumerate()))


class Mixed(CommandSet[Any]):
    def do_safe(self, _: Statement) -> None:
        """Do nothing."""

    @local
    def do_risky(self, _: Statement) -> None:
        """Do much."""


class Wholly(CommandSet[Any]):
    LOCAL: ClassVar[bool] = True

    def do_risk(self, _: Statement) -> None:
        """Do much."""


def test_a_mark_on_a_set_or_a_command_keeps_it_out() -> None:
    mixed, wholly = Mixed(), Wholly()
    assert admit([mixed, wholly]) == ([mixed], {"risky", "risk"})


COMPLETE = ("on", "use", "scatter", "gather", "here", "shared", "cells", "logs")

DEEDS = [
    Deed("x = 20 + 22"),
    Deed("x.bit_length()", completed=True),
    Deed("on k0 x", "on"),
    Deed("gather part", "gather"),
    Deed("shared", "shared"),
    Deed("name = input('who? ')"),
    Deed("import time; time.sleep(60)", ok=False, interrupted=True),
    Deed("import time; time.sleep(3) &"),
    Deed("cells", "cells"),
]


def test_the_tour_goes_on_when_its_line_was_typed_and_only_then() -> None:
    tour = Tour(COMPLETE)
    assert len(DEEDS) == len(STEPS) == len(tour.steps)
    for number, deed in enumerate(DEEDS):
        assert f"Tour {number + 1} of 9: " in tour.text
        others = [
            *(Deed("ps", "ps"), Deed("tour", "tour"), Deed("use nobody", "use", ok=False), Deed("1 + 1")),
            *(Deed("typo!", ok=False), Deed("use k0", "use"), Deed("logs", "logs"), Deed("nothing &", ok=False)),
        ]
        assert not any(tour.take(other) for other in others)
        assert tour.take(deed)
    assert tour.over
    assert "come back" in tour.text
    assert not tour.take(DEEDS[0])


def test_the_tour_passes_over_what_is_not_there() -> None:
    tour = Tour({"on", "use", "cells", "logs"})
    assert len(tour.steps) == len(STEPS) - 2
    for _ in range(20):
        tour.skip()
    assert tour.over


def test_the_tour_names_a_kernel_there_is_and_knows_when_it_is_the_only_one() -> None:
    tour = Tour(COMPLETE)
    texts: dict[tuple[str, ...], str] = {}
    for kernels in (("gpu-0",), ("gpu-0", "gpu-1", "gpu-2")):
        tour.kernels, tour.position = kernels, 0
        texts[kernels] = ""
        while not tour.over:
            texts[kernels] += tour.text
            tour.skip()
    alone, several = texts.values()
    assert "on gpu-0 x + 1" in alone
    assert "serve -n 3` in another terminal makes them three" in alone
    tour.kernels, tour.position, tour.others = ("k0",), 2, 3
    assert "`use all` takes them all" in tour.text
    assert "serve -n 3" not in tour.text
    assert '\n    name = input("who? ")' in alone
    assert "on gpu-2 x + 1" in several
    assert "makes them three" not in several
    assert 'on gpu-2 name = input("who? ")' in several
    assert not any("k0" in text or "{" in text for text in texts.values())


def test_the_tour_fits_a_small_terminal() -> None:
    for step in STEPS:
        for line in [*step.text.split("\n"), *step.alone.split("\n")]:
            assert all(len(part) <= 72 or " " not in part for part in wrap(line, 72))
            assert len(line) <= 72 or not line.startswith(" "), "a line that is typed is not to be broken"
            assert line[:1] in ("", " ", "{") or line[-1] in ":.", "a paragraph is one line"


def test_the_editor_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert editor({"VISUAL": "code --wait", "EDITOR": "vi"}) == ["code", "--wait"]
    assert editor({"VISUAL": " ", "EDITOR": "vi"}) == ["vi"]
    with pytest.raises(ValueError, match=r"EDITOR is .*: No closing quotation"):
        editor({"EDITOR": "vi '"})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert editor({}) == []


def script(tmp_path: Path, body: str) -> list[str]:
    """Make a program that stands for an editor; it keeps the name of what it opened in a file."""
    path = tmp_path / "editor"
    path.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n{body}\n')
    path.chmod(0o755)
    return [str(path)]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("echo 'y = 2' >> $1", "x = 1\ny = 2"),
        ("echo 'y = 2' > $1.new; mv $1.new $1", "y = 2"),  # as editors do that write a new file
        (": > $1", ""),
        ("true", None),
        ("echo 'y = 2' >> $1; exit 1", None),
        ("rm $1", None),
    ],
)
def test_only_what_was_saved_counts(tmp_path: Path, body: str, text: str | None) -> None:
    assert edited(script(tmp_path, body), "x = 1") == text
    assert not Path((tmp_path / "opened").read_text().strip()).exists()


def test_what_is_edited_is_nobody_elses_to_read(tmp_path: Path) -> None:
    edited(script(tmp_path, f"stat -c %a $1 > {tmp_path}/mode"), "password = 1")
    assert (tmp_path / "mode").read_text() == "600\n"


def test_an_editor_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        edited([str(tmp_path / "missing")], "x = 1")
