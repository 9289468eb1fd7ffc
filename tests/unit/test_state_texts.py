"""The shared state in tables and sentences: bounded, and never obeyed by a terminal."""

from __future__ import annotations

from typing import Any

import pytest

from pyrokernel.client.state_texts import (
    describe_change,
    describe_spaces,
    describe_undo,
    format_entries,
    format_history,
    format_locks,
    format_spaces,
    key_text,
    list_entries,
)
from pyrokernel.messages import StateChange, StateEntry

NOW = 1_000_000.0


def entry(key: str = "steps", **fields: Any) -> StateEntry:
    usual = {"revision": 7, "type": "int", "summary": "5", "size": 1, "author": "ada", "at": NOW - 90}
    return StateEntry(key=key, **{**usual, **fields})


def change(**fields: Any) -> StateChange:
    usual = {"key": "steps", "revision": 7, "type": "int", "summary": "5", "size": 1, "author": "ada", "at": NOW - 90}
    return StateChange(**{**usual, **fields})


class Keys:
    """A namespace of so many keys, `key0000` and so on."""

    def __init__(self, number: int) -> None:
        self.names = [f"key{place:05}" for place in range(number)]

    def _page(self, prefix: str, after: str | None, limit: int) -> list[str]:
        return [name for name in self.names if name.startswith(prefix) and (after is None or name > after)][:limit]

    def keys(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> list[str]:
        return self._page(prefix, after, min(limit, 10_000))

    def entries(self, prefix: str = "", *, after: str | None = None, limit: int = 1000) -> list[StateEntry]:
        return [entry(name) for name in self._page(prefix, after, min(limit, 10_000))]

    @property
    def m(self) -> list[str]:
        return self.names


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_a_table_of_keys_has_all_that_is_known_of_them() -> None:
    header, first, second = format_entries(
        [entry(), entry("x", type="list", summary="[1, 2]", size=2048, via="k0", at=NOW, expires=59.0)], now=NOW
    ).splitlines()
    assert header.split() == ["KEY", "TYPE", "SIZE", "SUMMARY", "AUTHOR", "AGE", "REVISION", "EXPIRES"]
    assert first.split() == ["steps", "int", "1", "B", "5", "ada", "1", "min", "7"]
    assert second.split()[3:] == ["KiB", "[1,", "2]", "ada", "(k0)", "0", "ms", "7", "in", "59.0", "s"]


def test_a_narrow_terminal_keeps_key_summary_and_author(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "34")
    lines = format_entries([entry(summary="a" * 80)], now=NOW).splitlines()
    assert lines[0].split() == ["KEY", "SUMMARY", "AUTHOR"]
    assert max(map(len, lines)) <= 34
    assert "..." in lines[1]


def test_a_table_for_a_file_is_whole() -> None:
    text = format_entries([entry("k" * 300, summary="a" * 300)], now=NOW, wide=False)
    assert "k" * 300 in text
    assert "a" * 300 in text


HOSTILE = "\x1b]0;owned\x07\x1b[2J\r\nnext \u202egnp\x9b31m"


@pytest.mark.parametrize("wide", [True, False])
def test_nothing_that_others_wrote_is_obeyed_or_breaks_a_line(wide: bool) -> None:
    told = {"author": HOSTILE, "via": HOSTILE, "type": HOSTILE, "summary": HOSTILE}
    lock = {"name": HOSTILE, "token": 1, "author": HOSTILE, "via": HOSTILE, "since": NOW, "expires": None}
    tables = [
        format_entries([entry(HOSTILE, **told)], now=NOW, wide=wide),
        format_history([change(key=HOSTILE, **told)], now=NOW, wide=wide),
        format_locks([lock], now=NOW),
        format_spaces({HOSTILE: 1}),
    ]
    assert [len(text.splitlines()) for text in tables] == [2, 2, 2, 2]
    lines = [describe_change(change(key=HOSTILE, **told)), describe_spaces({HOSTILE: 1})]
    lines.append(describe_undo(HOSTILE, change(restores=3, **told)))
    lines.append(describe_change(change(key=HOSTILE, op=HOSTILE, **told)))
    assert all(line.isprintable() for text in [*tables, *lines] for line in text.split("\n"))
    assert all(len(line.splitlines()) == 1 for line in lines)


@pytest.mark.parametrize("key", ["", " ", "a ", " a", "a\nb", "a\x1bb", "\u202eb", "\ud800"])
def test_a_key_that_would_not_stand_out_is_shown_as_python_writes_it(key: str) -> None:
    assert key_text(key) == repr(key)


@pytest.mark.parametrize("key", ["steps", "two words", "größe", "数", "it's", "cal/2024", "*"])
def test_any_other_key_is_shown_as_it_is(key: str) -> None:
    assert key_text(key) == key


@pytest.mark.parametrize(
    ("number", "prefix", "limit", "listed", "more"),
    [
        (3, "", 200, 3, ""),
        (200, "", 200, 200, ""),
        (1234, "", 200, 200, "... and 1,034 more keys"),
        (1234, "key0", 200, 200, "... and 1,034 more keys"),
        (1234, "key0001", 200, 10, ""),
        (12_000, "key", 200, 200, "... and more than 10,000 more keys"),
        (2500, "", None, 2500, ""),
        (2500, "", 1500, 1500, "... and 1,000 more keys"),
        (0, "", None, 0, ""),
    ],
)
def test_long_lists_are_bounded_and_say_how_many_more(
    number: int, prefix: str, limit: int | None, listed: int, more: str
) -> None:
    found, told = list_entries(Keys(number), prefix, limit)  # type: ignore[arg-type]
    assert (len(found), told) == (listed, more)
    assert [one.key for one in found] == Keys(number).names[:listed] or prefix


def test_history_says_what_each_write_did() -> None:
    rows = format_history(
        [
            change(revision=12, restores=3, summary="1", via="k0"),
            change(revision=9, op="delete", type="", summary="", size=0),
            change(revision=8, op="expire", author=""),
            change(revision=7, kept=False),
            change(revision=6, op="delete", restores=-1),
        ],
        now=NOW,
    ).splitlines()
    assert rows[0].split()[:4] == ["REVISION", "WHAT", "AUTHOR", "AGE"]
    assert "1 [undo to revision 3]" in rows[1]
    assert "ada (k0)" in rows[1]
    assert " deleted " in rows[2]
    assert " expired " in rows[3]
    assert "5 [forgotten]" in rows[4]
    assert "deleted [undo to the time before the first]" in rows[5]


def test_locks_say_who_holds_them_and_how_long() -> None:
    lock = {"name": "stage", "token": 41, "author": "ada", "via": "k2", "since": NOW - 3, "expires": 27.0}
    header, row = format_locks([lock], now=NOW).splitlines()
    assert header.split() == ["NAME", "TOKEN", "AUTHOR", "HELD", "EXPIRES"]
    assert row.split() == ["stage", "41", "ada", "(k2)", "3.0", "s", "in", "27.0", "s", "unless", "renewed"]


def test_a_change_is_one_line() -> None:
    assert describe_change(change(via="k0"))[8:] == "  7  steps = 5  by ada (k0)"
    assert describe_change(change(op="delete"))[8:] == "  7  steps deleted  by ada"


def test_an_undo_says_where_it_led() -> None:
    assert describe_undo("x", change(restores=3, revision=9)) == "x = 5 (as at revision 3, now revision 9)"
    assert describe_undo("x", change(op="delete", restores=-1)).startswith("x: it was not there before, and is deleted")
    assert describe_undo("x", None) == "x: it was not there before either"


def test_namespaces_are_counted() -> None:
    assert describe_spaces({}) == "0 keys in the common namespace"
    assert describe_spaces({"": 1, "project": 2000}) == "1 key in the common namespace, 2,000 in project"
    assert [line.split() for line in format_spaces({"": 1, "project": 2000}).splitlines()[1:]] == [
        ["(common)", "1"],
        ["project", "2,000"],
    ]
