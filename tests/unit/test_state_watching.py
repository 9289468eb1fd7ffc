"""Watchers of the shared state, at the service, without sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrokernel.state.engine import Engine
from pyrokernel.state.files import Files
from pyrokernel.state.parked import Wait
from pyrokernel.state.service import Caller, StateService
from pyrokernel.state.sqlite import SQLiteStore

CALLER = Caller(user="ana")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[StateService]:
    """A service of its own."""
    tmp_path.chmod(0o700)
    store = SQLiteStore(tmp_path / "state.db")
    yield StateService(Engine(store, Files(tmp_path)), {}, tmp_path / "backups")
    store.close()


def _set(service: StateService, key: str) -> None:
    write = {"op": "set", "key": key, "kind": "int", "type": "int", "summary": "1", "value": b"1"}
    service.write(CALLER, "", [write])


def test_a_watch_that_came_together_with_a_write_is_told_of_it(service: StateService) -> None:
    since = service.watch(CALLER, "", "k")["next"]
    first = service.watch(CALLER, "", "k", since, 5)
    _set(service, "k")
    second = service.watch(CALLER, "", "k", since, 5)
    assert isinstance(first, Wait)
    assert [change["key"] for change in first.attempt(since)["changes"]] == ["k"]
    assert [change["key"] for change in second["changes"]] == ["k"]
