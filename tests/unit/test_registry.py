"""Records of the living survive their host, whole or not at all."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pyrokernel.host.registry import Record, Registry


def record(name: str, pid: int = 1) -> Record:
    return Record(
        pid=pid, start_time=2, instance="0" * 16, socket="/s", journal_dir="/j", spec={"name": name}, restarts=3
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.write(record("k1"))
    registry.write(record("k0"))
    registry.write(record("k1", pid=7))
    assert registry.read_all() == [record("k0"), record("k1", pid=7)]


def test_what_was_removed_is_gone(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.write(record("k0"))
    registry.remove("k0")
    registry.remove("never there")
    assert registry.read_all() == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', "null"])
def test_a_damaged_record_does_not_hide_the_others(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(tmp_path)
    registry.write(record("k1"))
    (tmp_path / "k0.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert registry.read_all() == [record("k1")]
    assert "k0.json" in caplog.text


def test_a_directory_that_was_cleared_away_is_made_again(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "mesh" / "kernels")
    registry.write(record("k0"))
    assert registry.read_all() == [record("k0")]
    assert (tmp_path / "mesh" / "kernels").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_costs_the_record_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(tmp_path)
    registry.write(record("k0"))
    (tmp_path / "k0.new").symlink_to("/dev/full")
    with caplog.at_level(logging.WARNING):
        registry.write(record("k0", pid=7))
    assert "a next host will not know it" in caplog.text
    assert registry.read_all() == [record("k0")]
    assert [path.name for path in tmp_path.iterdir()] == ["k0.json"], "no draft is left"


def test_a_write_that_was_cut_short_leaves_the_earlier_record(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.write(record("k0"))
    (tmp_path / "k0.new").write_text("{")
    assert registry.read_all() == [record("k0")]
