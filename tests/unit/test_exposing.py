"""What somebody is told who may not do something: who can change that, and by which command."""

from __future__ import annotations

import pytest

from pyrokernel.roles import Role
from pyrokernel.wire.exposing import refusal
from pyrokernel.wire.trust import Peer


@pytest.mark.parametrize(
    ("kind", "address", "remedy"),
    [
        ("user", "", "`pyrokernel terminal add eve --role user`"),
        ("user", "192.0.2.1:5", "`pyrokernel policy check eve`"),
        ("account", "", "`pyrokernel policy check eve`"),
        ("user@lab2", "192.0.2.1:5", "`pyrokernel policy check eve --through lab2`"),
        ("host", "192.0.2.1:5", "`pyrokernel policy check eve --host`"),
    ],
)
def test_the_remedy_is_where_the_role_came_from(
    monkeypatch: pytest.MonkeyPatch, kind: str, address: str, remedy: str
) -> None:
    monkeypatch.setenv("PYROKERNEL_HOST", "lab1")
    kind, _, through = kind.partition("@")
    peer = Peer(uid=-1, role=Role.OBSERVER, user="eve", kind=kind, address=address, through=through)
    text = str(refusal(peer, "`submit`", Role.USER))
    assert text.startswith(f"{peer.author} is an observer here, and `submit` takes a user: ")
    assert remedy in text
    assert (f"on lab1: {remedy}" in text) == bool(address), "the policy of another machine is not the one that counts"
    assert text.count("`pyrokernel policy") + text.count("`pyrokernel terminal") == 1
    assert ("certs issue USER" in text) == (kind == "host")
    assert ("lab2 has let them in as less" in text) == bool(through), "the policy here may well say more"
