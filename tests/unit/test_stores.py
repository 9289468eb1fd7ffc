"""One contract for all stores: those that are in the house, and the one that docs/hooks.md shows.

Runs in the test process.
"""

from __future__ import annotations

import re
import types
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


def shown(folder: Path) -> Store:
    page = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
    (source,) = re.findall(r"^```python\n(# pyrokernel_json\.py\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("pyrokernel_json")
    exec(source, vars(module))
    store: Store = module.pyrokernel_open_store(folder)
    return store


@pytest.mark.parametrize("open_in", [sqlite, ahead, shown])
@pytest.mark.parametrize("check", storing.CHECKS, ids=storing.name_of)
def test_it_keeps_the_contract(check: storing.Check, open_in: storing.Callable[[Path], Store], tmp_path: Path) -> None:
    check(lambda: open_in(tmp_path))
