"""A reference that arrives finds its mesh, whichever threads look for it."""

from __future__ import annotations

import contextlib
import threading
import types
from typing import Any

import pytest
from waiting import wait_until

from pyrokernel.client import keeper, reaching, reference_data
from pyrokernel.client import mesh as mesh_module
from pyrokernel.errors import NameServerNotFoundError


class Opened:
    """Stands for a mesh."""

    def __init__(self, settings: Any) -> None:
        self.settings = types.SimpleNamespace(ns_address=settings.ns_address, mesh=settings.mesh)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    """The meshes that were opened; whoever opens one gives others the time to do the same."""
    found: list[Opened] = []
    both = threading.Barrier(2)

    def connect(settings: Any) -> Opened:
        found.append(Opened(settings))
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return found[-1]

    monkeypatch.setattr(mesh_module, "connect", connect)
    monkeypatch.setattr(reaching, "_reached", {})
    return found


def test_threads_that_need_the_same_mesh_open_it_once(opened: list[Opened]) -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(reaching.reach("localhost:1", "both")), name=str(number))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert set(map(id, results)) == {id(opened[0])}


def test_a_reference_whose_mesh_does_not_answer_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, asked, renewed = threading.Event(), threading.Event(), threading.Event()

    def connect(settings: Any) -> Opened:
        asked.set()
        assert answers.wait(20)
        raise NameServerNotFoundError("nobody is there")

    monkeypatch.setattr(mesh_module, "connect", connect)
    described = ["k0", "1" * 16, {"token": "t" * 24, "lease": 60.0}, ("localhost:1", "silent")]
    held = reference_data.from_data(described)
    try:
        assert asked.wait(10)
        keeper.keep("other", lambda: renewed.set() or False, 60)
        assert renewed.wait(10)
    finally:
        answers.set()
        del held
        wait_until(lambda: not reaching._seeking)


def test_a_mesh_that_was_closed_is_opened_anew(opened: list[Opened]) -> None:
    first: Any = reaching.reach("localhost:1", "again")
    reaching.forget_mesh(first)
    second: Any = reaching.reach("localhost:1", "again")
    assert second is not first
    assert reaching.reach("localhost:1", "again") is second
