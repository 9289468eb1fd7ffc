"""Identities: what proves who somebody is, and refusals that say what to do. Every handshake here is a real one."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import Authority, shaking_hands

from pyrokernel.certs.crl import make_crl, remember
from pyrokernel.certs.making import certificate_pem, key_pem
from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.settings import Settings
from pyrokernel.wire import remote
from pyrokernel.wire.identity import Identity, check_kind, kind_and_name, names_in, shake_hands
from pyrokernel.wire.refusals import explain, explain_dial, look_at


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def host(lab: Authority) -> Identity:
    return Identity.load(lab.identity("host", "lab1", ["lab1", "127.0.0.1"]), "host")


@pytest.fixture(scope="module")
def user(lab: Authority) -> Identity:
    return Identity.load(lab.identity("user", "ana"), "user")


def refusal(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = "lab1") -> ssl.SSLError:
    """Let two meet that must not; return what the one who refuses raises."""
    with pytest.raises(ssl.SSLError) as caught:
        shake_hands(server, client, name)
    return caught.value


def failure_of(action: Callable[[], object]) -> OSError:
    """Return what an action raises, whichever error of a connection it is."""
    try:
        action()
    except OSError as error:
        return error
    pytest.fail("nothing was raised")


def read_behind_handshake(client: ssl.SSLContext, plain: socket.socket, name: str) -> None:
    """Shake hands and wait for a byte: what a server refuses is read only then."""
    with client.wrap_socket(plain, server_hostname=name) as sock:
        sock.recv(1)


def alert(server: ssl.SSLContext, client: ssl.SSLContext) -> OSError:
    """Return what a client reads when the server refuses it."""
    near, far = socket.socketpair()

    def refuse() -> None:
        with pytest.raises(ssl.SSLError):
            server.wrap_socket(far, server_side=True)

    thread = threading.Thread(target=refuse)
    thread.start()
    try:
        return failure_of(lambda: read_behind_handshake(client, near, "lab1"))
    finally:
        thread.join()
        near.close()
        far.close()


@pytest.fixture
def listening() -> Iterator[Callable[[ssl.SSLContext], str]]:
    yield from shaking_hands()


def test_both_ends_learn_who_the_other_is(host: Identity, user: Identity) -> None:
    server, client = shake_hands(host.server_context(), user.client_context(), "lab1")
    assert kind_and_name(server.getpeercert() or {}) == ("user", "ana")
    assert kind_and_name(client.getpeercert() or {}) == ("host", "lab1")
    assert names_in(client.getpeercert() or {}) == ["lab1", "127.0.0.1"]
    assert client.version() == "TLSv1.3"


def test_an_address_is_a_name_like_any_other(host: Identity, user: Identity) -> None:
    shake_hands(host.server_context(), user.client_context(), "127.0.0.1")


def test_the_name_of_a_host_is_not_one_by_which_it_is_reached(lab: Authority, user: Identity) -> None:
    unreachable = Identity.load(lab.identity("host", "by-name-only"))
    error = refusal(unreachable.server_context(), user.client_context(), "by-name-only")
    assert "Hostname mismatch" in str(error)


def test_a_host_connects_to_another(host: Identity, lab: Authority) -> None:
    other = Identity.load(lab.identity("host", "lab2", ["lab2"]))
    server, _ = shake_hands(host.server_context(), other.client_context(), "lab1")
    assert check_kind(server.getpeercert() or {}, "user", "host", where="lab2:5") == ("host", "lab2")


def test_an_identity_knows_its_own_certificate(user: Identity, host: Identity) -> None:
    assert (user.kind, user.name) == ("user", "ana")
    assert (host.kind, host.name) == ("host", "lab1")
    assert kind_and_name(user.ca) == ("ca", "lab")


def test_key_and_certificate_of_other_tools_may_lie_in_two_files(lab: Authority, host: Identity) -> None:
    found = lab.identity("user", "bob")
    key = (found / "key.pem").read_text()
    (found / "key.pem").write_text(key[: key.index("-----BEGIN CERTIFICATE")])
    shake_hands(host.server_context(), Identity.load(found).client_context(), "lab1")


def test_no_session_is_resumed(host: Identity, user: Identity) -> None:
    assert host.server_context().num_tickets == 0
    _, client = shake_hands(host.server_context(), user.client_context(), "lab1")
    with pytest.raises(ssl.SSLWantReadError):
        client.read(1)
    assert client.session is None or not client.session.has_ticket


def test_older_tls_is_refused(host: Identity, user: Identity) -> None:
    old = user.client_context()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    error = refusal(host.server_context(), old)
    assert explain(error, "10.0.0.9:5").startswith("10.0.0.9:5 speaks no TLS 1.3, and older versions are refused; ")


# What is wrong with a directory


def test_a_missing_directory_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"there is no identity .*absent; `pyrokernel certs init`.* issue-host NAME"
    ):
        Identity.load(tmp_path / "absent", "host")


@pytest.mark.parametrize("name", ["ca.pem", "key.pem"])
def test_a_missing_file_is_named(lab: Authority, name: str) -> None:
    found = lab.identity("user", "ana", at=f"without-{name}")
    (found / name).unlink()
    with pytest.raises(SettingsError, match=f"lacks {name}; .*pyrokernel certs issue NAME"):
        Identity.load(found)


def test_a_key_that_others_may_read_is_refused(lab: Authority) -> None:
    found = lab.identity("user", "ana", at="open-key")
    (found / "key.pem").chmod(0o640)
    with pytest.raises(AccessRefusedError, match=r"others may read .*key\.pem; run: chmod 600 .*key\.pem$"):
        Identity.load(found)


def test_a_key_that_others_may_read_is_refused_later_too(lab: Authority) -> None:
    found = Identity.load(lab.identity("user", "ana", at="opened-later"))
    found.key_file.chmod(0o644)
    with pytest.raises(AccessRefusedError, match="chmod 600"):
        found.client_context()


def test_a_directory_that_others_may_enter_is_refused(lab: Authority) -> None:
    found = lab.identity("user", "ana", at="open-directory")
    found.chmod(0o755)
    with pytest.raises(AccessRefusedError, match="run: chmod 700"):
        Identity.load(found)


def test_a_key_of_somebody_else_is_refused(lab: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    found = lab.identity("user", "ana", at="their-key")
    if os.getuid() == 0:
        os.chown(found / "key.pem", 1234, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(AccessRefusedError, match=r"belongs to uid \d+; an identity is used by its owner only"):
        Identity.load(found)


def test_an_identity_of_the_other_kind_is_refused(host: Identity, user: Identity) -> None:
    with pytest.raises(SettingsError, match="is the identity of host lab1, and that of a user belongs there; "):
        Identity.load(host.directory, "user")
    with pytest.raises(SettingsError, match="is the identity of user ana, and that of a host belongs there; "):
        Identity.load(user.directory, "host")


def test_a_certificate_of_another_authority_than_ca_pem_is_refused(lab: Authority, tmp_path: Path) -> None:
    found = lab.identity("user", "ana", at="mixed")
    shutil.copy(Authority(tmp_path).identity("user", "ana") / "ca.pem", found)
    with pytest.raises(SettingsError, match=r"cert\.pem and ca\.pem in .* do not belong together"):
        Identity.load(found, "user")


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_damaged_key_is_one_line(lab: Authority, text: str) -> None:
    found = lab.identity("user", "ana", at=f"damaged-{len(text)}")
    (found / "key.pem").write_text(text)
    with pytest.raises(SettingsError, match=r"key\.pem in .* cannot be used .*pyrokernel certs renew"):
        Identity.load(found).client_context()


def test_a_damaged_authority_is_one_line(lab: Authority) -> None:
    found = lab.identity("user", "ana", at="damaged-ca")
    (found / "ca.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match=r"ca\.pem cannot be used .*copy ca\.pem"):
        Identity.load(found).client_context()


def test_an_identity_that_has_expired_is_still_read(lab: Authority) -> None:
    assert Identity.load(lab.identity("user", "old", days=1, begun=9), "user").name == "old"


@pytest.mark.parametrize(
    "cert",
    [
        {},
        {"subject": ((("commonName", "ana"),),)},
        {"subject": ((("commonName", "ana"),),), "subjectAltName": (("URI", "pyrokernel:user:bob"),)},
        {"subject": ((("commonName", "a/b"),),), "subjectAltName": (("URI", "pyrokernel:user:a/b"),)},
        {"subject": ((("commonName", "ana"),),), "subjectAltName": (("URI", "pyrokernel:king:ana"),)},
        {"subject": ((("commonName", "ana"),),), "subjectAltName": (("DNS", "pyrokernel:user:ana"),)},
        {
            "subject": ((("commonName", "ana"),),),
            "subjectAltName": (("URI", "pyrokernel:user:ana"), ("URI", "pyrokernel:host:ana")),
        },
    ],
)
def test_a_certificate_that_does_not_say_one_kind_is_refused(cert: dict[str, object]) -> None:
    with pytest.raises(AccessRefusedError, match="does not say whether it is a user's or a host's"):
        kind_and_name(cert)


def test_a_peer_of_the_wrong_kind_is_refused(user: Identity) -> None:
    with pytest.raises(AccessRefusedError, match=r"lab1:5 shows the certificate of user ana, where that of a host .*"):
        check_kind(user.cert, "host", where="lab1:5")


def test_a_renewal_that_comes_between_two_readings_is_read_again(
    lab: Authority, user: Identity, host: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = host.server_context()
    older = iter([lab.identity("user", "ana", at="older") / "cert.pem"])
    monkeypatch.setattr(Identity, "chain_file", property(lambda self: next(older, self.key_file)))
    shake_hands(server, user.client_context(), "lab1")


def test_a_certificate_of_another_key_is_refused(lab: Authority) -> None:
    found, other = lab.identity("user", "ana", at="one-key"), lab.identity("user", "ana", at="another")
    key = (found / "key.pem").read_text()
    (found / "key.pem").write_text(key[: key.index("-----BEGIN CERTIFICATE")])
    shutil.copy(other / "cert.pem", found)
    with pytest.raises(SettingsError, match=r"key\.pem in .* cannot be used \(KEY_VALUES_MISMATCH\)"):
        Identity.load(found).client_context()


def test_a_renewed_identity_shows_its_new_certificate(lab: Authority) -> None:
    found = Identity.load(lab.identity("user", "ana", at="renewed"))
    before = found.cert["serialNumber"]
    shutil.copy(lab.identity("user", "ana", at="newer") / "key.pem", found.key_file)
    assert found.cert["serialNumber"] != before


# What a failed handshake means, told by the end that refuses


def test_a_foreign_authority_is_told_to_both(lab: Authority, host: Identity, user: Identity, tmp_path: Path) -> None:
    foreign = Identity.load(Authority(tmp_path, "mars").identity("user", "eve"))
    error = refusal(host.server_context(), trusting_all(foreign))
    assert explain(error, "10.0.0.9:5", host).startswith(
        f"10.0.0.9:5 shows a certificate that the authority lab ({host.ca_file}) did not sign; both ends need"
    )
    error = refusal(host.server_context(), foreign.client_context())
    assert explain(error, "lab1:5", foreign).startswith("lab1:5 shows a certificate that the authority mars (")
    told = explain(alert(host.server_context(), trusting_all(foreign)), "lab1:5", foreign)
    assert told.startswith("lab1:5 does not know the authority mars (")
    assert f"pyrokernel certs issue NAME), copied to {foreign.directory}, or give it one of yours" in told


def test_an_authority_of_the_same_name_is_foreign_all_the_same(host: Identity, tmp_path: Path) -> None:
    foreign = Identity.load(Authority(tmp_path).identity("user", "ana"))
    assert "did not sign" in explain(refusal(host.server_context(), trusting_all(foreign)), "10.0.0.9:5", host)


def test_a_user_is_no_server(user: Identity) -> None:
    error = refusal(user.server_context(), user.client_context(), "ana")
    assert "shows a certificate of the wrong kind, a user's where a host's belongs" in explain(error, "ana:5", user)


def test_an_authority_is_no_user_and_both_are_told(lab: Authority, host: Identity) -> None:
    posing = lab.identity("user", "posing")
    (posing / "key.pem").write_bytes(key_pem(lab.key) + certificate_pem(lab.cert))
    client = Identity(posing).client_context()
    assert "shows a certificate of the wrong kind" in explain(
        refusal(host.server_context(), client), "10.0.0.9:5", host
    )
    told = explain(alert(host.server_context(), client), "lab1:5")
    assert told.startswith(
        "lab1:5 refuses the certificate in the identity directory (setting certs): it is of the wrong"
    )


def test_a_client_without_certificate_is_told_to_both(host: Identity, user: Identity) -> None:
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.load_verify_locations(host.ca_file)
    told = explain(refusal(host.server_context(), bare), "10.0.0.9:5", host)
    assert told.startswith("10.0.0.9:5 shows no certificate; it needs an identity: pyrokernel certs issue NAME")
    told = explain(alert(host.server_context(), bare), "lab1:5", user)
    assert told.startswith("lab1:5 wants a certificate, and none was shown; ")
    assert str(user.directory) in told


def test_an_expired_client_is_told_to_both(lab: Authority, host: Identity) -> None:
    old = Identity.load(lab.identity("user", "late", days=1, begun=3))
    told = explain(refusal(host.server_context(), old.client_context()), "10.0.0.9:5", host)
    assert told.startswith("10.0.0.9:5 shows a certificate that has expired; renew it where its authority lies")
    assert "clock" not in told
    told = explain(alert(host.server_context(), old.client_context()), "lab1:5", old)
    assert f"the certificate in {old.directory} expired 2 d 0 h ago (" in told
    assert told.endswith("renew it where its authority lies (pyrokernel certs renew late) and copy it here")


def test_a_clock_that_is_ahead_elsewhere_is_named(lab: Authority, host: Identity, user: Identity) -> None:
    error = alert(host.server_context(), Identity.load(lab.identity("user", "slow", days=1, begun=3)).client_context())
    told = explain(error, "lab1:5", user)  # whose own certificate is valid here
    assert "as expired, and by the clock here it is valid until" in told
    assert "compare the clocks (date -u): the one here says 20" in told


def test_a_clock_that_is_behind_is_named(lab: Authority, host: Identity) -> None:
    early = Identity.load(lab.identity("user", "early", begun=-2))
    told = explain(refusal(host.server_context(), early.client_context()), "10.0.0.9:5", host)
    assert "is not valid yet" in told
    assert "compare the clocks (date -u)" in told
    told = explain(alert(host.server_context(), early.client_context()), "lab1:5", early)
    assert f"refuses the certificate in {early.directory}, valid from 20" in told
    assert "compare the clocks (date -u)" in told


def trusting_all(identity: Identity) -> ssl.SSLContext:
    """Return the context of a client that refuses nobody."""
    context = identity.client_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


# A client looks once more where that says more


def dial(address: str, identity: Identity) -> str:
    """Connect, fail, and return the explanation."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as plain:
        error = failure_of(lambda: read_behind_handshake(identity.client_context(), plain, host))
    return explain_dial(error, address, identity, time.monotonic() + 5)


def test_a_wrong_host_name_lists_what_the_certificate_is_for(
    lab: Authority, user: Identity, listening: Callable[[ssl.SSLContext], str]
) -> None:
    other = Identity.load(lab.identity("host", "lab3", ["lab3", "lab3.example.org", "192.0.2.3"]))
    address = listening(other.server_context())
    assert dial(address, user) == (
        f"{address} shows the certificate of host lab3, which is for lab3, lab3.example.org, 192.0.2.3 and not for "
        "127.0.0.1; use one of its names, or where its authority lies: pyrokernel certs renew lab3 --name 127.0.0.1"
    )


def test_an_expired_server_says_since_when(
    lab: Authority, user: Identity, listening: Callable[[ssl.SSLContext], str]
) -> None:
    address = listening(Identity.load(lab.identity("host", "dusty", ["127.0.0.1"], days=1, begun=3)).server_context())
    told = dial(address, user)
    assert told.startswith(f"{address} shows the certificate of host dusty that expired 2 d 0 h ago (20")
    assert told.endswith("renew it where its authority lies (pyrokernel certs renew dusty) and copy it there")


def test_if_all_has_expired_it_may_be_the_clock(lab: Authority, listening: Callable[[ssl.SSLContext], str]) -> None:
    old = Identity.load(lab.identity("host", "both", ["127.0.0.1"], days=1, begun=3))
    assert "but first compare the clocks (date -u)" in dial(listening(old.server_context()), old)


def test_a_server_of_tomorrow_says_from_when(
    lab: Authority, user: Identity, listening: Callable[[ssl.SSLContext], str]
) -> None:
    address = listening(Identity.load(lab.identity("host", "soon", ["127.0.0.1"], begun=-1.5)).server_context())
    told = dial(address, user)
    assert "host soon that is valid only in 1 d 11 h (20" in told
    assert "but first compare the clocks (date -u): the one here says 20" in told


def test_looking_takes_no_longer_than_whoever_dials_has_time(
    lab: Authority, user: Identity, listening: Callable[[ssl.SSLContext], str]
) -> None:
    address = listening(Identity.load(lab.identity("host", "lab9", ["lab9"])).server_context())
    assert look_at(address, user, time.monotonic() + 5) is not None
    assert look_at(address, user, time.monotonic()) is None
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        assert look_at(f"127.0.0.1:{silent.getsockname()[1]}", user, begun + 0.1) is None
        assert time.monotonic() - begun < 2


def test_looking_goes_by_the_proxy_or_not_at_all(lab: Authority, user: Identity) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(("127.0.0.1", 0)) as there:
        there.setblocking(False)
        address, via = (f"127.0.0.1:{one.getsockname()[1]}" for one in (there, proxy))
        assert look_at(address, user, time.monotonic() + 0.1, via) is None
        proxy.accept()[0].close()
        with pytest.raises(BlockingIOError):
            there.accept()


def test_looking_shows_nothing_of_foreigners(
    user: Identity, tmp_path: Path, listening: Callable[[ssl.SSLContext], str]
) -> None:
    foreign = Identity.load(Authority(tmp_path, "mars").identity("host", "lab1", ["127.0.0.1"]))
    address = listening(foreign.server_context())
    assert look_at(address, user, time.monotonic() + 5) is None
    assert "did not sign" in dial(address, user)


def test_a_client_that_speaks_no_tls_is_told_so(host: Identity) -> None:
    near, far = socket.socketpair()
    with near, far, pytest.raises(ssl.SSLError) as caught:  # noqa: PT012
        near.sendall(b"PYRO" + bytes(36))
        host.server_context().wrap_socket(far, server_side=True)
    told = explain(caught.value, "10.0.0.9:5", host)
    assert told.startswith("10.0.0.9:5 speaks no TLS, and plaintext is refused. ")
    assert 'eval "$(pyrokernel certs env)"' in told


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"PYRO" + bytes(36), b""])
def test_a_server_that_speaks_no_tls_is_told_so(user: Identity, answer: bytes) -> None:
    near, far = socket.socketpair()
    with near, far:
        far.sendall(answer)
        far.shutdown(socket.SHUT_WR)
        error = failure_of(lambda: read_behind_handshake(user.client_context(), near, "lab1"))
    assert "speaks no TLS" in explain(error, "lab1:5", user)


def test_a_connection_that_just_ends_is_explained_by_the_certificate_here(lab: Authority, user: Identity) -> None:
    old = Identity.load(lab.identity("user", "cut-off", days=1, begun=3))
    told = explain(ConnectionResetError(104, "Connection reset by peer"), "lab1:5", old)
    assert told.startswith("lab1:5 closed the connection while shaking hands: the certificate of user cut-off in ")
    assert "expired 2 d 0 h ago" in told
    told = explain(ConnectionResetError(104, "Connection reset by peer"), "lab1:5", user)
    assert f"it speaks no TLS, or refuses what {user.directory} says; see its log. " in told


def test_a_connection_that_just_ends_is_explained_by_the_list_here_too(lab: Authority) -> None:
    user = Identity.load(lab.identity("user", "lost"))
    user.crl_file.write_bytes(make_crl({}, 3, ca_key=lab.key, ca=lab.cert))
    remember(user.directory, 3)
    user.crl_file.unlink()
    told = explain(ConnectionResetError(104, "Connection reset by peer"), "lab1:5", user)
    assert told.startswith(f"lab1:5 closed the connection while shaking hands: {user.crl_file} is gone, and number 3 ")


def test_a_server_that_says_nothing_is_told_so(user: Identity) -> None:
    near, far = socket.socketpair()
    near.settimeout(0.05)
    with near, far:
        error = failure_of(lambda: read_behind_handshake(user.client_context(), near, "lab1"))
    assert explain(error, "lab1:5", user).startswith("lab1:5 does not answer a TLS handshake in time")


def test_any_other_error_is_told_as_it_is() -> None:
    assert explain(OSError(113, "No route to host"), "lab1:5") == "lab1:5: No route to host"


@pytest.mark.parametrize("reason", ["\x1b[31m", "two\nlines"])
def test_an_explanation_is_one_harmless_line(reason: str) -> None:
    told = explain(OSError(1, reason), "lab1:5")
    assert "\x1b" not in told
    assert "\n" not in told


@pytest.mark.parametrize("has_host", [True, False])
def test_who_has_no_certificate_is_told_which_one_is_missing_and_what_that_of_the_machine_is_for(
    tmp_path: Path, has_host: bool
) -> None:
    if has_host:
        (tmp_path / "host").mkdir()
    settings = Settings(
        certs=str(tmp_path / "certs"), host_certs=str(tmp_path / "host"), runtime_dir=str(tmp_path / "run")
    )
    with pytest.raises(AccessRefusedError) as refused:
        remote.dial("192.0.2.1", 9, 1.0, remote.Credentials.of(settings), stock=True)
    text = str(refused.value)
    assert f"a certificate of yours in {tmp_path / 'certs'}" in text
    assert "`pyrokernel certs issue USER`" in text
    assert ("`pyrokernel serve --join NS:PORT`" in text) == has_host


def test_a_directory_that_was_named_and_is_not_there_is_not_replaced_by_what_the_host_shows(tmp_path: Path) -> None:
    """A misspelt one had its user come in as the host of the machine."""
    settings = Settings(runtime_dir=str(tmp_path), certs=str(tmp_path / "nothere"))
    settings.mesh_runtime_dir.mkdir()
    (settings.mesh_runtime_dir / "gateway").touch()
    assert remote.Credentials.of(settings).gateway == ""
    assert remote.Credentials.of(Settings(runtime_dir=str(tmp_path), host_certs=str(tmp_path))).gateway
