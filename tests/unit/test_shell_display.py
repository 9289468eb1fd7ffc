"""Equal replies are folded into one, output streams, kernels are named briefly."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from pyrokernel.controls import harmless
from pyrokernel.shell.display import HOLD_LINE_SECONDS, HOLD_REPLY_SECONDS, Display


class Screen:
    def __init__(self, *names: str) -> None:
        self.now = 0.0
        self.text = ""
        self.errors = ""
        self.display = Display(names, self.write, clock=lambda: self.now)

    def write(self, stream: str, text: str) -> None:
        if stream == "stderr":
            self.errors += text
        else:
            self.text += text


def test_one_kernel_is_shown_as_it_prints() -> None:
    screen = Screen("k0")
    screen.display.output("k0", "stdout", "a")
    assert screen.text == "a"
    screen.display.result("k0", "42")
    screen.display.ended("k0")
    assert screen.text == "a\n42\n"


def test_equal_results_are_one_with_the_names_of_the_kernels() -> None:
    screen = Screen("k0", "k1", "k2", "k3")
    for name, text in (("k0", "2"), ("k1", "3"), ("k2", "2"), ("k3", "2")):
        screen.display.result(name, text)
        screen.display.ended(name)
    assert screen.text == "[k0, k2-k3] 2\n[k1] 3\n"


def test_equal_errors_are_one_although_their_cells_have_other_numbers() -> None:
    screen = Screen("k0", "k1")
    for name, number in (("k0", 3), ("k1", 7)):
        screen.display.error(name, f'File "<cell {number}>"\nKeyError\n')
        screen.display.ended(name)
    assert screen.errors == '[k0-k1]\nFile "<cell 3>"\nKeyError\n'


def test_equal_lines_are_folded_and_different_ones_marked() -> None:
    screen = Screen("k0", "k1")
    screen.display.output("k0", "stdout", "same\nzero\n")
    screen.display.output("k1", "stdout", "same\none\n")
    screen.now = HOLD_LINE_SECONDS
    screen.display.flush()
    assert screen.text == "[k0-k1] same\n[k0] zero\n[k1] one\n"


def test_a_line_is_not_held_for_a_kernel_that_stays_silent() -> None:
    screen = Screen("k0", "k1")
    screen.display.output("k0", "stdout", "first\nsec")
    assert screen.text == ""
    assert screen.display.due() == pytest.approx(HOLD_LINE_SECONDS)
    screen.now = HOLD_LINE_SECONDS
    screen.display.flush()
    assert screen.text == "[k0] first\n"
    assert screen.display.due() is None


def test_a_result_is_held_until_all_have_ended_or_a_second_has_passed() -> None:
    screen = Screen("k0", "k1")
    screen.display.result("k0", "1")
    screen.display.ended("k0")
    screen.now = HOLD_REPLY_SECONDS / 2
    screen.display.flush()
    assert screen.text == ""
    screen.now = HOLD_REPLY_SECONDS
    screen.display.flush()
    assert screen.text == "[k0] 1\n"


def test_results_shown_at_one_moment_are_in_the_order_of_the_kernels_and_later_ones_stay_later() -> None:
    screen = Screen("k0", "k1", "k2", "k3")
    for now, name in ((0.0, "k3"), (0.1, "k1"), (0.9, "k0")):
        screen.now = now
        screen.display.result(name, name)
        screen.display.ended(name)
    screen.now = HOLD_REPLY_SECONDS
    screen.display.flush()
    assert screen.text == "[k1] k1\n[k3] k3\n"
    screen.display.result("k2", "k2")
    screen.display.ended("k2")
    assert screen.text == "[k1] k1\n[k3] k3\n[k0] k0\n[k2] k2\n"


def test_lines_of_output_come_before_results_in_the_order_they_came() -> None:
    screen = Screen("k0", "k1")
    screen.display.output("k1", "stdout", "from k1\n")
    screen.now = 0.01
    screen.display.output("k0", "stdout", "from k0\n")
    screen.display.result("k1", "1")
    screen.display.result("k0", "0")
    screen.now = 0.02
    for name in ("k1", "k0"):
        screen.display.ended(name)
    assert screen.text == "[k1] from k1\n[k0] from k0\n[k0] 0\n[k1] 1\n"


def test_a_remark_has_a_line_of_its_own_and_is_folded() -> None:
    alone = Screen("k0")
    alone.display.output("k0", "stdout", "half")
    alone.display.remark("k0", "[something missing]")
    assert (alone.text, alone.errors) == ("half\n", "[something missing]\n")
    several = Screen("k0", "k1")
    several.display.output("k0", "stdout", "half")
    for name in ("k0", "k1"):
        several.display.remark(name, "[something missing]")
        several.now = HOLD_LINE_SECONDS
    several.display.flush()
    assert several.text == "[k0] half\n"
    assert several.errors == "[k0-k1] [something missing]\n"


def test_output_comes_before_the_result_and_unfinished_lines_are_ended() -> None:
    screen = Screen("k0", "k1")
    screen.display.output("k0", "stdout", "50%\r100%")
    screen.display.result("k0", "1")
    screen.display.ended("k0")
    screen.display.ended("k1")
    assert screen.text == "[k0] 100%\n[k0] 1\n"


def test_terminal_controls_are_shown_and_colours_stay() -> None:
    assert harmless("\x1b[31mred\x1b[0m\ttab\r\n") == "\x1b[31mred\x1b[0m\ttab\r\n"
    assert harmless("\x1b]0;title\x07\x1b[2J\x9b") == "\\x1b]0;title\\x07\\x1b[2J\\x9b"


def test_what_turns_text_around_or_has_no_width_is_shown_and_joiners_of_scripts_stay() -> None:
    for code in (0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF):
        assert harmless(f"a{chr(code)}b") == f"a\\u{code:04x}b"
    assert harmless("\xad\U000e0041") == "\\xad\\U000e0041"
    for text in ("\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\U0001f469\u200d\U0001f4bb"):
        assert harmless(text) == text


def test_of_the_characters_that_format_others_only_joiners_and_signs_that_show_stay() -> None:
    stay = {0x200C, 0x200D, *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    formats = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Cf"}
    assert {code for code in formats if harmless(chr(code)) == chr(code)} == formats & stay


def test_colours_that_hide_text_are_dropped_and_those_of_many_stay() -> None:
    assert harmless("\x1b[8ma\x1b[5mb\x1b[0;06mc") == "ab\x1b[mc"
    assert harmless("\x1b[1;8;31ma") == "\x1b[1;31ma"
    for colour in ("\x1b[38;5;8m", "\x1b[1;48;2;5;6;8;4m", "\x1b[m", "\x1b[38m"):
        assert harmless(colour) == colour
    assert harmless("\x1b[38;5;8;8m") == "\x1b[38;5;8m"
    assert harmless("\x1b[8;" + "9" * 5000 + "m").startswith("\x1b[9")


def test_no_kernel_gets_behind_its_mark_or_colours_that_of_others() -> None:
    screen = Screen("k0", "k1")
    screen.display.output("k0", "stdout", "a" + "\b" * 9 + "[k1] lie\n")
    screen.display.output("k0", "stdout", "\x1b[31mred\n")
    screen.display.result("k0", "a\r[k1] lie\b\x1b[2K")
    for name in ("k0", "k1"):
        screen.display.ended(name)
    assert screen.text == "[k0] [k1] lie\n[k0] \x1b[31mred\x1b[0m\n[k0] a\\x0d[k1] lie\\x08\n"


def test_bars_that_are_drawn_over_show_their_last_state() -> None:
    screen = Screen("k0", "k1")
    screen.display.output("k0", "stdout", "10%\b\b\b20%\n50%\r99%\r\nend of line\r\n")
    for name in ("k0", "k1"):
        screen.display.ended(name)
    assert screen.text == "[k0] 20%\n[k0] 99%\n[k0] end of line\n"
    assert harmless("|\b/") == "|\\x08/"
    assert harmless("|\b/", backspace=True) == "|\b/"


def test_one_kernel_leaves_no_colour_on() -> None:
    screen = Screen("k0")
    screen.display.output("k0", "stdout", "\x1b[31mred")
    screen.display.output("k0", "stdout", " still")
    screen.display.remark("k0", "ours")
    assert (screen.text, screen.errors) == ("\x1b[31mred still\x1b[0m\n", "ours\n")
    screen.display.output("k0", "stdout", "\x1b[32mok\x1b[0m")
    screen.display.ended("k0")
    assert screen.text.endswith("\x1b[32mok\x1b[0m\n")
