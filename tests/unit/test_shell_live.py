"""The line that says who still runs."""

from __future__ import annotations

import io

import pytest

from pyrokernel.client.bar import LiveLine
from pyrokernel.shell.live import Watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_the_line_is_cut_to_the_terminal_and_leaves_no_trace() -> None:
    terminal = Terminal()
    live = LiveLine(terminal)
    live.show("x" * 100)
    assert terminal.getvalue() == "\r\x1b[K\x1b[2m" + "x" * 36 + "...\x1b[0m"
    live.erase()
    live.erase()
    assert terminal.getvalue().endswith("\x1b[0m\r\x1b[K")
    assert terminal.getvalue().count("\r\x1b[K") == 2


def test_without_colours_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    LiveLine(terminal).show("abc")
    assert terminal.getvalue() == "\r\x1b[Kabc"


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_where_a_line_cannot_be_taken_back_there_is_none(
    kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = kind()
    live = LiveLine(stream)
    live.show("abc")
    live.erase()
    assert stream.getvalue() == ""


def test_it_says_who_is_done_who_runs_and_who_waits() -> None:
    now = [100.0]
    watch = Watch(["k0", "k1", "k2", "k3"], clock=lambda: now[0])
    assert watch.due() == 1.0
    now[0] = 112.0
    assert watch.line(["k1", "k2", "k3"], ["k3"], ctrl_c="interrupts") == (
        "1 of 4 done, k1-k2 run, k3 waits for the cell before, 12.0 s (Ctrl-C interrupts)"
    )
    assert watch.due() == 1.0


def test_of_one_kernel_it_does_not_count() -> None:
    now = [0.0]
    watch = Watch(["k0"], clock=lambda: now[0])
    now[0] = 75.0
    assert watch.line(["k0"], ctrl_c="leaves it running") == "k0 runs, 1 min (Ctrl-C leaves it running)"


def test_how_far_commands_are_comes_first_and_soon() -> None:
    now = [100.0]
    watch = Watch(["k0", "k1"], clock=lambda: now[0])
    watch.progress("k0", 1, 4, "walking\nslowly")
    assert watch.due() == 0.25
    watch.progress("k1", 3, 4, "walking")
    now[0] = 100.5
    assert watch.line(["k0", "k1"], ctrl_c="interrupts").startswith("[#####.....]  50% walking, 0 of 2 done, k0-k1 run")
    assert watch.due() == 1.0
    watch.progress("k0", 5, 4, "walking")
    assert watch.due() == 0.25
    assert watch.line(["k0"], ctrl_c="interrupts").startswith("[##########] 100% walking, 1 of 2 done")
    watch.progress("k0", 1, 0, "")
    assert watch.line(["k0"], ctrl_c="interrupts").startswith("[#####.....]  50%, 1 of 2 done")
