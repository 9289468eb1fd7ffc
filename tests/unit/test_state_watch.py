"""A watcher that asks just before a write is told of it, whatever else is carried out together."""

from __future__ import annotations

from pathlib import Path

from pyrokernel.state.engine import Author, Engine, Limits
from pyrokernel.state.files import Files
from pyrokernel.state.parked import Wait
from pyrokernel.state.service import Caller, StateService
from pyrokernel.state.sqlite import SQLiteStore


def test_a_write_carried_out_together_with_the_question_answers_it(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "state.db")
    engine = Engine(store, Files(tmp_path), Limits(10, 1000, 1000))
    service = StateService(engine, {}, tmp_path)
    caller = Caller(user="ana")
    wait = service.watch(caller, "", "a", 0, timeout=30.0)
    assert isinstance(wait, Wait)
    engine.write("", [{"op": "set", "key": "a", "kind": "int", "type": "int", "summary": "1", "parts": (b"1",)}], [],
                 Author("ada", "", ""))  # fmt: skip
    answer = wait.attempt(0)
    assert [change["key"] for change in answer["changes"]] == ["a"]
    engine.commit()
    store.close()
