"""The record of sessions: what strangers do does not push it out of its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyrokernel_terminal import sessions
from pyrokernel_terminal.sessions import Record


def test_of_a_flood_of_refusals_the_first_are_written_and_then_how_many_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 6000.0
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now)
    record = Record(tmp_path / "terminal" / "sessions.log")
    for number in range(1000):
        record.write_refusal(user=f"eve{number}", by="ssh", why="no key")
    now += 60
    for _ in range(2):
        record.write_refusal(user="bob", by="ssh", why="no key")
    record.close()
    lines = [json.loads(line) for line in (tmp_path / "terminal" / "sessions.log").read_text().splitlines()]
    assert [line["user"] for line in lines] == [*(f"eve{number}" for number in range(30)), "bob", "bob"]
    assert [line.get("left_out") for line in lines[-2:]] == [970, None]
