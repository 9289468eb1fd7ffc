"""One contract for all stores: here those that are in the house. Runs in the test process."""

from __future__ import annotations

from pathlib import Path

import pytest
import storing

from pyrokernel.state.ahead import WriteAhead
from pyrokernel.state.sqlite import SQLiteStore
from pyrokernel.stores import Store


def sqlite(folder: Path) -> Store:
    return SQLiteStore(folder / "state.db")


def ahead(folder: Path) -> Store:
    return WriteAhead(SQLiteStore(folder / "state.db"), folder / "state.ahead")


@pytest.mark.parametrize("open_in", [sqlite, ahead])
@pytest.mark.parametrize("check", storing.CHECKS, ids=storing.name_of)
def test_it_keeps_the_contract(check: storing.Check, open_in: storing.Callable[[Path], Store], tmp_path: Path) -> None:
    check(lambda: open_in(tmp_path))
