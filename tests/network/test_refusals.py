"""Who connects by TLS and is refused reads in one line why, and what to do."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import Authority, shaking_hands

from pyrokernel.certs.crl import make_crl
from pyrokernel.errors import AccessRefusedError, KernelUnreachableError
from pyrokernel.wire.identity import Identity
from pyrokernel.wire.proxy import Proxy
from pyrokernel.wire.remote import Credentials

Serve = Callable[[ssl.SSLContext], str]


@pytest.fixture
def lab(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "lab")


@pytest.fixture
def listening() -> Iterator[Serve]:
    yield from shaking_hands()


@pytest.fixture
def server(lab: Authority, listening: Serve) -> str:
    """Return the address of a server that shakes hands and hangs up."""
    return listening(Identity.load(lab.identity("host", "lab1", ["127.0.0.1"])).server_context())


def refused(address: str, identity: Path) -> str:
    """Connect and return what one is told."""
    with pytest.raises(AccessRefusedError) as caught:
        Proxy(f"PYRO:Pyro.NameServer@{address}", 5.0, Credentials(identity))
    return str(caught.value)


def test_an_expired_user_is_told_to_renew(lab: Authority, server: str) -> None:
    told = refused(server, lab.identity("user", "late", days=1, begun=3))
    assert "expired 2 d 0 h ago" in told
    assert f"{server} refuses it; renew it where its authority lies (pyrokernel certs renew late)" in told


def test_a_revoked_user_is_told_so(lab: Authority, listening: Serve) -> None:
    host, user = lab.identity("host", "lab1", ["127.0.0.1"]), lab.identity("user", "ana")
    serial = int(Identity.load(user).cert["serialNumber"], 16)
    now = datetime.datetime.now(datetime.UTC)
    (host / "crl.pem").write_bytes(make_crl({serial: now}, 2, ca_key=lab.key, ca=lab.cert))
    address = listening(Identity.load(host).server_context())
    assert refused(address, user).startswith(f"the certificate in {user} was revoked: {address} refuses it; ")


def test_an_identity_whose_files_do_not_belong_together_is_told_so(lab: Authority, server: str, tmp_path: Path) -> None:
    user = Authority(tmp_path, "mars").identity("user", "eve")
    (user / "ca.pem").write_bytes((lab.identity("user", "ana") / "ca.pem").read_bytes())
    told = refused(server, user)
    assert told.startswith(f"{server} refuses the certificate here: cert.pem and ca.pem in {user} do not belong ")


def test_a_wrong_host_name_lists_what_the_certificate_is_for(lab: Authority, listening: Serve) -> None:
    address = listening(Identity.load(lab.identity("host", "lab3", ["lab3.example.org"])).server_context())
    told = refused(address, lab.identity("user", "ana"))
    assert "which is for lab3.example.org and not for 127.0.0.1; " in told
    assert told.endswith("pyrokernel certs renew lab3 --name 127.0.0.1")


def test_a_server_of_another_authority_is_told_by_name(server: str, tmp_path: Path) -> None:
    told = refused(server, Authority(tmp_path, "mars").identity("user", "eve"))
    assert told.startswith(f"{server} shows a certificate that the authority mars (")


def test_who_has_no_identity_is_told_where_one_belongs(server: str, tmp_path: Path) -> None:
    with pytest.raises(
        KernelUnreachableError, match=r"if it speaks TLS, an identity belongs into .*/none \(pyrokernel"
    ):
        Proxy(f"PYRO:Pyro.NameServer@{server}", 5.0, Credentials(tmp_path / "none"))
