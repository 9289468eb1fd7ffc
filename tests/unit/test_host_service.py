"""The host's exposed object: what many may ask at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrokernel.host import service as room
from pyrokernel.host.service import HostService
from pyrokernel.messages import Event
from pyrokernel.roles import Role
from pyrokernel.wire.trust import Peer


class Loop:
    """Runs at once what it is given."""

    def submit(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function())
        return future


class Reader:
    """A journal that takes as long to read as it is told."""

    begun = threading.Semaphore(0)
    goes_on = threading.Event()

    def __init__(self, directory: Path, **_: Any) -> None:
        pass

    def read(self, after: int, *, max_bytes: int) -> list[Event]:
        self.begun.release()
        assert self.goes_on.wait(10)
        return []


def test_those_who_may_only_look_read_old_events_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = threading.local()
    monkeypatch.setattr(room, "JournalReader", Reader)
    monkeypatch.setattr(room, "current_peer", lambda: asks.peer)
    places: Any = SimpleNamespace(
        shelf=tmp_path, journals=lambda _: [tmp_path / "1f"], journal=lambda *_: tmp_path / "1f"
    )
    nothing: Any = SimpleNamespace(kernels=list)
    loop: Any = Loop()
    service = HostService(loop, nothing, nothing, places, {}, {}, lambda: None, lambda _: True, nothing)

    def ask(role: Role) -> None:
        asks.peer = Peer(uid=-1, role=role, user=role.word)
        assert service.read_journal("k0") == {"instance": "1f", "events": [], "next": 0}

    lookers = [threading.Thread(target=ask, args=(Role.OBSERVER,)) for _ in range(3)]
    worker = threading.Thread(target=ask, args=(Role.USER,))
    for thread in lookers:
        thread.start()
    assert Reader.begun.acquire(timeout=10)
    worker.start()
    assert Reader.begun.acquire(timeout=10)
    assert not Reader.begun.acquire(timeout=0.2)
    Reader.goes_on.set()
    for thread in (*lookers, worker):
        thread.join(10)
        assert not thread.is_alive()
