"""The benchmarks run, also where no peer is installed, and their page has every row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME_WIDTH = 19
"""Of the names that `--list` prints before the titles."""

MADE = '{"date": "", "processors": 2, "model": "", "memory_gib": 1, "system": "", "python": "", "seconds": 1}'


def run(*arguments: str | Path) -> str:
    command = [sys.executable, str(ROOT / "tests" / "benchmarks" / "run.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout


def test_a_row_is_taken_checked_and_written(tmp_path: Path) -> None:
    found = tmp_path / "figures.json"
    table = run("complete", "--quick", "--json", found)
    results = json.loads(found.read_text())
    assert results["failed"] == {}
    ours = results["rows"]["complete"]["sides"]["pyrokernel"]
    assert 0 < ours["median"] <= ours["p99"]
    assert "| complete 1,000 names | under 5 ms |" in table
    again = run("--from", found)
    assert again == table


def test_a_row_that_fails_is_told_of_and_the_others_go_on(tmp_path: Path) -> None:
    found = tmp_path / "figures.json"
    failed = {"call": "ended after 9 s"}
    found.write_text(json.dumps({"made": json.loads(MADE), "rows": {}, "absent": {}, "failed": failed}))
    assert "| ended after 9 s |" in run("--from", found)


def test_every_row_is_on_the_page() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    titles = [line[NAME_WIDTH:] for line in run("--list").splitlines()]
    assert [title for title in titles if f"| {title} |" not in page] == []
