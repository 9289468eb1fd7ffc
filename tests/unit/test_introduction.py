"""Whom a connection is for: nobody is given more than who opened it has."""

from __future__ import annotations

import pytest

from pyrokernel.errors import ProtocolError
from pyrokernel.roles import Role
from pyrokernel.wire.introduction import FOR, introduced, pack, unpack, words_for
from pyrokernel.wire.trust import Peer

OURS = Peer(uid=1000, pid=7, role=Role.ADMIN, user="ana")


def test_without_annotations_a_peer_is_who_opened_the_connection() -> None:
    assert introduced(OURS, {}) is OURS


def test_a_peer_is_whom_it_acts_for() -> None:
    found = introduced(OURS, unpack(pack({b"OTHR": b"x", FOR: words_for("bob", Role.OBSERVER, "10.0.0.2:5")})))
    assert (found.user, found.role, found.address, found.uid) == ("bob", Role.OBSERVER, "10.0.0.2:5", -1)
    assert not found.may_run_code
    assert introduced(OURS, {FOR: words_for("bob", Role.USER)}).uid == 1000


def test_a_user_a_host_and_an_account_of_one_name_are_told_apart() -> None:
    assert OURS.kind == "account"
    assert introduced(OURS, {FOR: words_for("ana", Role.USER)}).kind == "user"
    assert introduced(OURS, {FOR: words_for("ana", Role.USER, kind="host")}).kind == "host"


@pytest.mark.parametrize(
    ("kind", "through", "identity", "author"),
    [
        ("account", "", "account:bob", "bob"),
        ("user", "", "user:bob", "bob"),
        ("user", "lab2", "user:bob@lab2", "bob@lab2"),
        ("host", "", "host:bob", "host:bob"),
    ],
)
def test_an_identity_has_kind_and_introducer_and_people_read_what_they_need(
    kind: str, through: str, identity: str, author: str
) -> None:
    found = Peer(uid=1, user="bob", kind=kind, through=through)
    assert (found.identity, found.author) == (identity, author)


def test_who_let_a_user_in_is_said_with_it() -> None:
    found = introduced(OURS, {FOR: words_for("bob", Role.USER, "10.0.0.2:5", through="lab2")})
    assert (found.through, found.identity) == ("lab2", "user:bob@lab2")


def test_nobody_is_given_more_than_who_opened_the_connection_has() -> None:
    stranger = Peer(uid=5, role=Role.OBSERVER, user="eve")
    assert introduced(stranger, {FOR: words_for("ana", Role.ADMIN)}).role is Role.OBSERVER


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"user": "x", "role": "king"}',
        b'{"user": 5, "role": "user"}',
        b'{"user": "x", "role": "user", "kind": "account"}',
        b'{"user": "x", "role": "user", "kind": 7}',
        b"null",
        b'{"user": "", "role": "user"}',
        b'{"user": "x", "role": 3}',
        b'{"user": "x", "role": "user", "address": 5}',
        b'{"user": "x", "role": ["user"]}',
        b'{"user": "x", "role": "user", "through": 7}',
        b'{"user": "x", "role": "user", "through": "\x1b[2J"}',
    ],
)
def test_a_malformed_introduction_ends_the_connection(said: bytes) -> None:
    with pytest.raises(ProtocolError):
        introduced(OURS, {FOR: said})


@pytest.mark.parametrize("data", [b"PKB", b"PKBY\0\0\0", b"PKBY\0\0\0\5abcd", b"PKBY\xff\xff\xff\xff"])
def test_annotations_that_are_cut_off_end_the_connection(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(data)
