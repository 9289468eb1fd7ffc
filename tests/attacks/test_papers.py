"""Certificates that are revoked, renewed or run out, and a policy that changes, while connections are open."""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
from collections.abc import Callable
from pathlib import Path

from attacking import Fortress, answer_to, context_of, hello, is_closed, object_in, plain
from certificates import Authority
from cryptography import x509
from Pyro5.protocol import MSG_CONNECTOK
from waiting import wait_until

from pyrokernel.certs.crl import make_crl
from pyrokernel.wire.identity import Identity

SOON = 6.0
"""Seconds: the gateway looks once a second."""


def opened(fortress: Fortress, who: str) -> ssl.SSLSocket:
    """Open a connection, and keep it."""
    sock = fortress.secured(who)
    sock.sendall(hello(object_in(fortress.uri_of("k0"))))
    assert answer_to(sock)[0] == MSG_CONNECTOK
    return sock


def comes_in(fortress: Fortress, who: str) -> bool:
    try:
        with fortress.secured(who) as sock:
            sock.sendall(hello(object_in(fortress.uri_of("k0"))))
            return answer_to(sock)[0] == MSG_CONNECTOK
    except (ssl.SSLError, ConnectionError):
        return False


def serial_of(certs: Path) -> int:
    return x509.load_pem_x509_certificate((certs / "cert.pem").read_bytes()).serial_number


def revoke(fortress: Fortress, *names: str, number: int = 2, to: str = "lab1") -> None:
    """Put a list of what is revoked where the gateway looks."""
    now = datetime.datetime.now(datetime.UTC)
    revoked = {serial_of(fortress.certs(name)): now for name in names}
    authority = fortress.authority
    replace(fortress.certs(to) / "crl.pem", make_crl(revoked, number, ca_key=authority.key, ca=authority.cert))


def replace(path: Path, data: bytes) -> None:
    draft = path.with_name(".draft")
    draft.write_bytes(data)
    draft.chmod(0o600)
    draft.rename(path)


def test_a_revoked_certificate_ends_its_connections_and_opens_none(fortress_of: Callable[..., Fortress]) -> None:
    fortress = fortress_of()
    gone, stays = opened(fortress, "ana"), opened(fortress, "olga")
    since = len(fortress.logged())
    revoke(fortress, "ana")
    wait_until(lambda: is_closed(gone), timeout=SOON)
    assert not is_closed(stays)
    assert "ana at 127.0.0.2" in fortress.logged(since)
    assert "revoked" in fortress.logged(since)
    assert not comes_in(fortress, "ana")
    assert comes_in(fortress, "olga")
    assert "was revoked" in fortress.log_of(lambda: comes_in(fortress, "ana"), "refused 127.0.0.2")
    assert "Traceback" not in fortress.logged()
    for sock in (gone, stays):
        sock.close()


def test_a_list_that_cannot_be_used_changes_nothing_and_is_told_once(fortress_of: Callable[..., Fortress]) -> None:
    """Garbage, another authority's, or no list at all: what was revoked stays so, who is in stays in."""
    fortress = fortress_of()
    revoke(fortress, "ana")
    wait_until(lambda: not comes_in(fortress, "ana"))
    stays = opened(fortress, "olga")
    good = (fortress.certs("lab1") / "crl.pem").read_bytes()
    since = len(fortress.logged())
    other = Authority(fortress.folder / "other")
    for number, bad in enumerate(
        (b"garbage", b"", good[:-40], make_crl({}, 9, ca_key=other.key, ca=other.cert), b"\x00" * 100_000)
    ):
        told = len(fortress.logged())
        replace(fortress.certs("lab1") / "crl.pem", bad)
        wait_until(lambda told=told: "cannot be used, what it was holds on" in fortress.logged(told), timeout=SOON)
        assert not comes_in(fortress, "ana"), number
        assert not is_closed(stays), number
    replace(fortress.certs("lab1") / "crl.pem", good)
    wait_until(lambda: comes_in(fortress, "olga"), timeout=SOON)
    assert fortress.logged(since).count("cannot be used, what it was holds on") == 5
    assert "Traceback" not in fortress.logged()
    stays.close()


def test_a_certificate_that_runs_out_ends_its_connections(fortress_of: Callable[..., Fortress]) -> None:
    fortress = fortress_of()
    fortress.authority.identity("user", "ana", at="short", days=1 / 86400 * 6, begun=0)
    sock = opened(fortress, "short")
    assert not is_closed(sock)
    wait_until(lambda: is_closed(sock), timeout=6 + SOON)
    assert "the certificate has expired" in fortress.logged()
    assert not comes_in(fortress, "short")
    sock.close()


def test_a_renewed_certificate_of_the_host_is_shown_without_a_restart(fortress_of: Callable[..., Fortress]) -> None:
    fortress = fortress_of()
    pid, stays = fortress.gateway_pid(), opened(fortress, "ana")

    def shown() -> int:
        context = context_of(fortress.certs("ana"))
        with contextlib.closing(context.wrap_socket(plain(fortress.port))) as sock:
            der = sock.getpeercert(binary_form=True)
            assert der is not None
            return x509.load_der_x509_certificate(der).serial_number

    before = shown()
    assert before == serial_of(fortress.certs("lab1"))
    # Half of a copy first: the old one goes on.
    since = len(fortress.logged())
    key = fortress.certs("lab1") / "key.pem"
    whole = key.read_bytes()
    replace(key, whole[:100])
    wait_until(lambda: "holds on" in fortress.logged(since), timeout=SOON)
    assert shown() == before
    fortress.authority.identity("host", "lab1", ["127.0.0.1", "localhost"], at="renewed")
    for file in ("cert.pem", "key.pem"):
        replace(fortress.certs("lab1") / file, (fortress.certs("renewed") / file).read_bytes())
    wait_until(lambda: shown() == serial_of(fortress.certs("renewed")), timeout=SOON)
    assert fortress.gateway_pid() == pid
    assert not is_closed(stays)
    assert Identity(fortress.certs("lab1")).name == "lab1"
    with fortress.connected() as mesh:
        assert mesh["k0"].execute("6 * 7").result == 42
    stays.close()


def test_a_policy_that_takes_a_role_away_ends_the_connections_of_those_it_is_for(
    fortress_of: Callable[..., Fortress],
) -> None:
    fortress = fortress_of()
    gone, stays = opened(fortress, "ana"), opened(fortress, "olga")
    policy = fortress.folder / "policy.toml"
    text = policy.read_text()
    since = len(fortress.logged())
    policy.write_text(text.replace('ana = "user"', 'ana = "observer"'))
    os.utime(policy)
    wait_until(lambda: is_closed(gone), timeout=SOON)
    assert not is_closed(stays)
    assert "the policy gives another role now" in fortress.logged(since)
    policy.write_text("[users\nana = broken")
    wait_until(lambda: "mend the file" in fortress.logged(since), timeout=SOON)
    assert comes_in(fortress, "olga")
    policy.write_text(text.replace('ana = "user"', 'ana = "nobody"'))
    wait_until(lambda: not comes_in(fortress, "ana"), timeout=SOON)
    for sock in (gone, stays):
        sock.close()
