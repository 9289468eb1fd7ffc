"""Floods and giants are cut, and nothing of what is left is wrong."""

from __future__ import annotations

import pytest

from pyrokernel.shell.cut import LINE_CHARS, MAX_LINES, TEXT_LINE_CHARS, Cut, cut_text
from pyrokernel.shell.display import Display

GIANT = MAX_LINES * TEXT_LINE_CHARS


def test_what_fits_passes_as_it_is() -> None:
    cut = Cut(lines=3)
    assert [cut.take(text) for text in ("a", "b\n", "c\nd\n")] == ["a", "b\n", "c\nd\n"]
    assert cut.hidden == 0
    assert cut.rest() == []


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_however_it_comes_the_beginning_is_shown_and_the_end_kept(size: int) -> None:
    text = "".join(f"line {n}\n" for n in range(100)) + "open"
    cut = Cut(lines=10, last=3)
    shown = "".join(cut.take(text[start : start + size]) for start in range(0, len(text), size))
    assert shown == "".join(f"line {n}\n" for n in range(10))
    assert cut.hidden == 91
    assert cut.rest() == ["line 98", "line 99", "open"]


def test_a_line_without_end_is_cut_and_little_of_it_is_kept() -> None:
    cut = Cut(lines=10)
    assert len(cut.take("x" * 1_000_000)) == 10 * LINE_CHARS
    for _ in range(10):
        assert cut.take("y" * 1_000_000) == ""
    (rest,) = cut.rest()
    assert rest.startswith("...y")
    assert len(rest) < 10_000


def test_a_progress_bar_may_draw_over_itself_for_ever() -> None:
    cut = Cut(lines=3)
    for n in range(1000):
        text = f"\r{n:5} of 1000 " + "=" * 100
        assert cut.take(text) == text
    assert not cut.closed


def test_lines_that_end_as_on_windows_count() -> None:
    cut = Cut(lines=2)
    assert cut.take("a\r\nb\r\nc\r\n") == "a\r\nb\r\n"


@pytest.mark.parametrize("text", ["x" * 100_000, "\n" * 100_000, "row\n" * 3000, ("y" * 1000 + "\n") * 100])
def test_a_giant_loses_its_middle(text: str) -> None:
    shown = cut_text(text, "see FILE")
    assert len(shown) < GIANT + 100
    assert shown.count("\n") < 1010
    head, note, tail = shown.partition("\n... ")
    number = int(note and tail.split(" ")[0].replace(",", ""))
    end = tail.partition("...\n")[2]
    assert text.startswith(head)
    assert text.endswith(end)
    assert len(head) + number + len(end) == len(text)


def test_what_is_no_giant_is_left_alone() -> None:
    text = "x" * GIANT
    assert cut_text(text, "") == text


def test_kernels_that_say_the_same_are_cut_together_and_different_ones_share_the_screen() -> None:
    said: list[str] = []
    display = Display(
        ["k0", "k1"], lambda _, text: said.append(text), clock=lambda: 0.0, see_all=lambda name: "see FILE"
    )
    for name in ("k0", "k1"):
        display.output(name, "stdout", "same\n" * 1500)
        display.ended(name)
    assert said.count("[k0-k1] same\n") == 1010
    assert said.count("[k0-k1] ... more output is not shown; see FILE\n") == 1

    said.clear()
    display = Display(
        ["k0", "k1"], lambda _, text: said.append(text), clock=lambda: 0.0, see_all=lambda name: "see FILE"
    )
    for n in range(2000):
        for name in ("k0", "k1"):
            display.output(name, "stdout", f"{name} {n}\n")
        display.flush(all_of_it=True)
    for name in ("k0", "k1"):
        display.ended(name)
    assert len(said) < 1100
    assert said[-1] == "[k1] k1 1999\n"


def test_many_kernels_that_say_different_things_at_once_fill_one_screen() -> None:
    said: list[str] = []
    names = [f"k{n}" for n in range(64)]
    display = Display(names, lambda _, text: said.append(text), clock=lambda: 0.0, see_all=lambda name: "see FILE")
    for name in names:
        display.output(name, "stdout", "".join(f"{name} {n}\n" for n in range(300)))
    for name in names:
        display.ended(name)
    assert len(said) < 1000 + 3 * len(names)
    shown = [line.partition("] ")[2] for line in said]
    of_k3 = [int(line.split()[1]) for line in shown if line.startswith("k3 ")]
    assert 1 < len(of_k3) < 300
    assert of_k3 == [*range(len(of_k3) - 1), 299]  # its beginning, nothing twice, and its last line
    hidden = 300 - len(of_k3) + 1
    assert f"[k3] ... {hidden:,} lines not shown; the last of them:\n" in said
    assert "k63 299\n" in shown


def test_many_long_results_that_differ_fill_one_screen() -> None:
    said: list[str] = []
    names = [f"k{n}" for n in range(64)]
    display = Display(
        names,
        lambda _, text: said.append(text),
        clock=lambda: 0.0,
        see_all=lambda name: "see FILE",
        see_result=lambda name: "see all",
    )
    for name in names:
        display.result(name, "\n".join(f"{name} {n}" for n in range(60)))
        display.ended(name)
    lines = "".join(said).split("\n")
    assert len(lines) < 1000 + 10 * len(names)
    assert lines.count("k0 30") == 1
    assert "k63 0" in lines
    assert "k63 30" not in lines


def test_a_long_result_at_the_prompt_is_cut_at_about_a_screen() -> None:
    said: list[str] = []
    display = Display(
        ["k0"],
        lambda _, text: said.append(text),
        see_all=lambda name: "see FILE",
        see_result=lambda name: "see cell",
    )
    display.result("k0", "\n".join(f"row {n}" for n in range(180)))
    (shown,) = said
    assert shown.count("\n") == 71
    assert shown.startswith("row 0\n")
    assert "not shown; see cell ...\n" in shown
    assert shown.endswith("row 179\n")
    display.result("k0", "x" * 9000)
    assert "... 3,400 characters are not shown; see cell ..." in said[1]
    display.result("k0", "x" * 2 * GIANT)
    assert "... 34,400 characters are not shown; see FILE ..." in said[2]


def test_results_that_differ_only_in_what_is_cut_are_not_called_equal() -> None:
    said: list[str] = []
    display = Display(["k0", "k1"], lambda _, text: said.append(text), see_all=lambda name: "see FILE")
    for name in ("k0", "k1"):
        display.result(name, "x" * GIANT + name + "x" * GIANT)
        display.ended(name)
    assert [text[:5] for text in said] == ["[k0]\n", "[k1]\n"]
