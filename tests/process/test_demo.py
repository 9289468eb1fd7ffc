"""The demo keeps its promises: the same findings on one kernel and on all, and nothing lost by a kill."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pyrokernel as pk
from pyrokernel import survey
from pyrokernel.front.demo import survey_on


def test_one_kernel_and_all_find_the_same(mesh: pk.Mesh) -> None:
    files = survey.stdlib_files()[::40]
    seen: list[Mapping[str, tuple[int, int]]] = []
    together, _ = survey_on(mesh[:], files, lambda counts: seen.append(dict(counts)))
    alone, _ = survey_on(mesh[:1], files)
    assert together == alone == survey.merge([survey.survey_files(files)])
    assert together["files"] == len(files)
    assert sum(done for done, _ in seen[-1].values()) == len(files)


def test_the_demo_shows_everything_and_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyrokernel", "demo", "--quick", "-n", "2"],
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for promise in (
        "longest functions",
        "time on one kernel",
        "the findings are the same, on one and on all",
        "20 of 20 lines, result 20",
        "killed by SIGKILL",
        "last cell    import time",
        "last output  measuring ...",
        "1 + 1 = 2",
    ):
        assert promise in done.stdout
