"""What both front ends write: tables, names, sizes, journals as sessions."""

from __future__ import annotations

from typing import Any

import pytest

from pyrokernel.messages import Event, KernelInfo, KernelStatus
from pyrokernel.texts import (
    Tail,
    Transcript,
    describe_gap,
    describe_missing,
    format_kernels,
    label,
    one_line,
    size,
    span,
    table,
)


def test_kernels_are_named_briefly() -> None:
    assert label(["k0", "k1", "k2", "k4", "gpu-1", "gpu-2", "camera"]) == "k0-k2, k4, gpu-[1-2], camera"
    assert label(f"{letter}x" for letter in "abcdefghij") == "ax, bx, cx, dx, ex, fx, gx, hx and 2 more"
    assert label([]) == ""


def test_who_told_nothing_is_named_with_the_reason() -> None:
    assert describe_missing({"k0": "", "k1": "nobody answers at its socket", "k2": ""}) == [
        "k0, k2 did not answer in time: a C call may hold the interpreter",
        "nobody answers at its socket",
    ]


def test_a_table_leaves_out_empty_columns_and_aligns() -> None:
    assert table(("A", "B", "N"), [("x", "", "1"), ("long", "", "22")], right=("N",)) == "A      N\nx      1\nlong  22"


@pytest.mark.parametrize(
    ("text", "shown"), [("a\nb", "a ..."), ("x" * 20, "xxxxxx ..."), ("\x1b[31mred", " [31mred"), ("", "")]
)
def test_one_line_is_short_and_harmless(text: str, shown: str) -> None:
    assert one_line(text, 10) == shown


@pytest.mark.parametrize(("count", "shown"), [(0, "0 B"), (2048, "2 KiB"), (5 << 20, "5 MiB"), (3 << 30, "3.0 GiB")])
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.01, "10 ms"), (2, "2.0 s"), (120, "2 min"), (7260, "2 h 1 min"), (90000, "1 d 1 h")]
)
def test_spans(seconds: float, shown: str) -> None:
    assert span(seconds) == shown


# Kernels as rows


def info(name: str, **fields: Any) -> KernelInfo:
    return KernelInfo(**{"name": name, "instance": "1", "status": "idle", **fields})


def test_marked_kernels_have_a_star_and_protected_ones_say_so() -> None:
    text = format_kernels([info("k0"), info("camera", tags=("optics",), protected=True)], now=0.0, marked=["camera"])
    assert [line.split() for line in text.splitlines()] == [
        ["NAME", "STATUS", "TAGS"],
        ["k0", "idle"],
        ["*", "camera", "idle", "optics,(protected)"],
    ]


def test_a_cause_is_cut_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    dead = info("k0", tags=("a-long-tag", "and-another"), status="dead", cause="x" * 100)
    assert max(map(len, format_kernels([dead], now=0.0).splitlines())) == 60


# Journals as sessions


def output(text: str, cell: str = "c", **data: Any) -> Event:
    return Event(seq=1, kind="output", cell=cell, data={"text": text, "stream": "stdout", **data})


def test_a_transcript_reads_like_a_session() -> None:
    text: list[str] = []
    transcript = Transcript(text.append)
    started = Event(seq=1, kind="started", cell="c", data={"source": "f()\ng()", "execution_count": 2, "author": "me"})
    for event in (
        started,
        output("half"),
        Event(seq=3, kind="result", cell="c", data={"text": "42"}),
        output("from before\n", cell="earlier!!", late=True),
        Event(seq=5, kind="gap", data={"lost_bytes": 3000, "reason": "the disk was full"}),
    ):
        transcript.add(event)
    head, *rest = "".join(text).splitlines()
    assert head.startswith("[2] ")
    assert head.endswith("me cell c")
    assert rest == [
        ">>> f()",
        "... g()",
        "half",
        "42",
        "[late output of cell earlier!]",
        "from before",
        "[3,000 bytes of output missing: the disk was full]",
    ]


def test_a_transcript_that_sets_in_amid_a_cell_does_not_call_it_late() -> None:
    text: list[str] = []
    transcript = Transcript(text.append)
    for event in (output("a\n"), output("b\n"), output("old\n", cell="other", late=True), output("c\n")):
        transcript.add(event)
    assert "".join(text) == "a\nb\n[late output of cell other]\nold\nc\n"


def test_a_gap_says_what_is_missing_and_why() -> None:
    gap = Event(seq=9, kind="gap", data={"first": 2, "last": 9, "reason": "the cap"})
    assert describe_gap(gap) == "[events 2 to 9 missing: the cap]"


# The last lines


@pytest.mark.parametrize(
    ("pieces", "last"),
    [
        (["a\nb", "c\nd\n"], "bc\nd\n"),
        (["a\nb\nc"], "b\nc"),
        (["a\n"], "a\n"),
        (["a"], "a"),
        ([], ""),
        (["\n\n\n"], "\n\n"),
    ],
)
def test_the_last_two_lines_are_kept_as_they_came(pieces: list[str], last: str) -> None:
    tail = Tail(2)
    for piece in pieces:
        tail.write(piece)
    assert tail.text == last


def test_no_lines_are_no_text() -> None:
    tail = Tail(0)
    tail.write("a\nb")
    assert tail.text == ""


def test_a_tail_is_full_when_its_first_line_is_whole() -> None:
    tail = Tail(2)
    tail.write("end of a line\nb\n")
    assert not tail.full
    tail.write("c\n")
    assert tail.full


@pytest.mark.parametrize(("columns", "missing"), [("40", {"PID", "MEMORY", "UP"}), ("80", set()), ("", set())])
def test_a_narrow_terminal_gets_fewer_columns(columns: str, missing: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    found = [
        info("k0", pid=12345, execution_count=12, memory_bytes=9 << 20, started=1.0, running={"source": "x" * 200}),
        info("k1", pid=12345, execution_count=3, memory_bytes=9 << 20, started=1.0),
    ]
    text = format_kernels(found, now=8000.0)
    assert {"NAME", "STATUS", "PID", "MEMORY", "UP", "DOING"} - set(text.split("\n")[0].split()) == missing
    if columns:
        assert max(map(len, text.split("\n"))) <= int(columns)


def test_a_kernel_says_which_failed_at_its_start_the_init_file_or_what_was_shipped() -> None:
    for raised, said in (("KeyError: 3", "init failed: KeyError: 3"), ("ship a.py: gone", " ship a.py: gone")):
        info = KernelInfo(name="k0", instance="01", status=KernelStatus.IDLE, init_error=raised)
        assert said in format_kernels([info], now=0.0)
        assert ("init failed" in format_kernels([info], now=0.0)) is said.startswith("init")
