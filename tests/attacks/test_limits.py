"""What others can cause again and again takes a bounded part of a log, and of a disk."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrokernel.audit import AuditFile, refusals_to
from pyrokernel.birth import BoundedLog, log_aside
from pyrokernel.loglimit import LogLimit
from pyrokernel.roles import Role
from pyrokernel.wire.trust import Peer


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("pyrokernel.attacked")
    yield found
    found.handlers.clear()
    found.propagate = True


def test_of_many_records_a_second_a_few_are_kept_and_the_others_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limit = LogLimit(logging.getLogger("x"), "%d more were refused", most=3, clock=clock)
    asked = []
    for number in range(1000):
        limit.warning("refused %s", lambda number=number: asked.append(number) or number)
    assert [record.getMessage() for record in caplog.records] == ["refused 0", "refused 1", "refused 2"]
    assert asked == [0, 1, 2], "what takes time to find out is found out for what is shown"
    clock.now += 1
    limit.settle()
    limit.settle()
    limit.warning("refused again")
    assert [record.getMessage() for record in caplog.records[3:]] == ["997 more were refused", "refused again"]


def test_a_log_and_the_one_before_it_are_bounded_and_private(tmp_path: Path, logger: logging.Logger) -> None:
    path = tmp_path / "g.log"
    logger.propagate = False  # pytest-xdist cannot pass on a captured line that is no UTF-8
    logger.addHandler(BoundedLog(path, cap_bytes=10_000))
    for number in range(2000):
        logger.warning("line %d \ud800", number)
    sizes = [each.stat().st_size for each in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert all(size <= 10_000 for size in sizes)
    assert "line 1999" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_says_nothing_elsewhere(
    tmp_path: Path, logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    log_aside([logger.name], tmp_path / "nowhere" / "k.log")
    logger.warning("for nobody")
    assert capfd.readouterr() == ("", "")


def test_refusals_of_made_up_names_neither_fill_the_memory_nor_hide_later_ones(
    tmp_path: Path, monkeypatch: Any
) -> None:
    from pyrokernel import audit

    monkeypatch.setattr(audit, "_REMEMBERED", 50)
    monkeypatch.setattr(audit, "REFUSALS_SECONDS", 0.0)
    record = AuditFile(tmp_path, 10_000_000)
    record.create()
    refused = refusals_to(record, {}, logs=False)
    peer = Peer(1, user="eve", role=Role.OBSERVER)
    for number in range(500):
        refused(peer, f"made up {number}", Role.ADMIN)
    refused(peer, "execute", Role.USER)
    assert '"execute"' in (tmp_path / "audit.jsonl").read_text().splitlines()[-1]
    known = next(
        cell.cell_contents
        for cell in refused.__closure__ or ()
        if isinstance(cell.cell_contents, dict) and cell.cell_contents
    )
    assert len(known) <= 51
