"""Published names, against a name server that is a dict."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection
from typing import cast

import pytest

from pyrokernel.client import keeper
from pyrokernel.errors import KernelNotFoundError
from pyrokernel.kernel import publications
from pyrokernel.kernel.publications import Publications
from pyrokernel.kernel.references import References
from pyrokernel.messages import KernelBirth, KernelSpec
from pyrokernel.wire.daemon import Daemon
from pyrokernel.wire.naming import Entry


class FakeDirectory:
    """The name server; what a test wants to come in between happens during the next look-up."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.meanwhile: list[Callable[[], object]] = []

    def lookup(self, name: str) -> Entry:
        while self.meanwhile:
            self.meanwhile.pop()()
        if name not in self.entries:
            raise KernelNotFoundError(f"no {name}")
        return self.entries[name]

    def register(self, name: str, uri: str, metadata: Collection[str] = (), *, replace: bool = False) -> None:
        self.entries[name] = Entry(name, uri, frozenset(metadata))

    def remove(self, name: str) -> None:
        del self.entries[name]

    def close(self) -> None: ...


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> FakeDirectory:
    found = FakeDirectory()
    monkeypatch.setattr(publications, "Directory", lambda *_, **__: found)
    monkeypatch.setattr(keeper, "keep", lambda *_: None)  # the test looks itself
    return found


@pytest.fixture
def published(directory: FakeDirectory) -> Publications:
    spec = KernelSpec(name="k0").to_wire()
    birth = KernelBirth(spec=spec, instance="instance", mesh="m", host="h", socket="", journal_dir="", ns="ns")
    daemon = types.SimpleNamespace(offer=lambda value, name: f"PYRO:{name}@./u:k0", withdraw=lambda name: None)
    references = types.SimpleNamespace(publish=lambda name, value: None, revoke=lambda which, why: None)
    found = Publications(birth, cast(Daemon, daemon), cast(References, references))
    found.publish("camera", object())
    return found


def test_a_published_name_that_is_lost_comes_back(published: Publications, directory: FakeDirectory) -> None:
    directory.entries.clear()
    assert published._look()
    assert set(directory.entries) == {"camera"}


def test_a_name_that_is_taken_back_while_it_is_looked_for_stays_away(
    published: Publications, directory: FakeDirectory
) -> None:
    directory.meanwhile.append(lambda: published.unpublish("camera"))
    assert not published._look()
    assert not directory.entries
