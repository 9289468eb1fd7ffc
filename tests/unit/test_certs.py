"""The authority of a mesh: what stands in its certificates, and that no command leaves half of anything."""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from certificates import Authority as Quick
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from pyrokernel.certs import files
from pyrokernel.certs.authority import Authority, create, opened, read_index
from pyrokernel.certs.bundles import environment
from pyrokernel.certs.crl import make_crl, number_of, read_revoked, take_over
from pyrokernel.certs.facts import from_now
from pyrokernel.certs.files import locked, write_private
from pyrokernel.certs.index import Index, Record
from pyrokernel.certs.making import CLOCKS_APART, DAYS, alternative_names, make_ca, make_identity
from pyrokernel.cli import ExitCode, main
from pyrokernel.client import mesh as mesh_module
from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.front import doctor
from pyrokernel.roles import Role
from pyrokernel.settings import JOINED, Settings
from pyrokernel.wire.identity import Identity, shake_hands
from pyrokernel.wire.naming import Directory
from pyrokernel.wire.refusals import trouble_of
from pyrokernel.wire.revoked import SEEN, newest_seen, refuse_older, seen_words

NOW = datetime.datetime(2026, 5, 4, 12, tzinfo=datetime.UTC)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the directory that holds all that is configured here."""
    for name in [name for name in os.environ if name.startswith(("PYROKERNEL_", "PYRO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("PYROKERNEL_RUNTIME_DIR", str(tmp_path / "r"))
    monkeypatch.setenv("PYROKERNEL_STATE_DIR", str(tmp_path / "s"))
    monkeypatch.setenv("PYROKERNEL_HOST", "lab1")
    return tmp_path / "config" / "pyrokernel"


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """Return the directory of an authority that has issued nothing yet."""
    create(tmp_path / "ca", "lab")
    return tmp_path / "ca"


def meet(server: Path, client: Path, name: str) -> None:
    """Let two identities shake hands."""
    shake_hands(Identity.load(server).server_context(), Identity.load(client).client_context(), name)


# What stands in a certificate


def extension(cert: x509.Certificate, kind: Any) -> tuple[Any, bool]:
    found = cert.extensions.get_extension_for_class(kind)
    return found.value, found.critical


def test_an_authority_signs_and_does_nothing_else() -> None:
    key, cert = make_ca("lab", days=10, now=NOW)
    assert isinstance(key.curve, ec.SECP256R1)
    constraints, critical = extension(cert, x509.BasicConstraints)
    assert (constraints.ca, constraints.path_length, critical) == (True, 0, True)
    usage, critical = extension(cert, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, critical) == (True, True, True)
    assert (usage.digital_signature, usage.key_encipherment, usage.key_agreement) == (False, False, False)


@pytest.mark.parametrize(
    ("kind", "purposes"),
    [
        ("user", {ExtendedKeyUsageOID.CLIENT_AUTH}),
        ("host", {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}),
    ],
)
def test_a_certificate_is_for_one_purpose(kind: str, purposes: set[Any]) -> None:
    ca_key, ca_cert = make_ca("lab", days=100, now=NOW)
    _, cert = make_identity(kind, "ana", [], ca_key=ca_key, ca=ca_cert, days=3, now=NOW)
    purpose, critical = extension(cert, x509.ExtendedKeyUsage)
    assert (set(purpose), critical) == (purposes, True)
    constraints, critical = extension(cert, x509.BasicConstraints)
    assert (constraints.ca, critical) == (False, True)
    usage, critical = extension(cert, x509.KeyUsage)
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign, critical) == (True, False, False, True)
    names, _ = extension(cert, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"pyrokernel:{kind}:ana"]
    cert.verify_directly_issued_by(ca_cert)


def test_a_certificate_is_valid_a_little_before_it_is_made_and_not_beyond_its_authority() -> None:
    ca_key, ca_cert = make_ca("lab", days=10, now=NOW)
    _, cert = make_identity("user", "ana", [], ca_key=ca_key, ca=ca_cert, days=3, now=NOW)
    assert cert.not_valid_before_utc == NOW - CLOCKS_APART
    assert cert.not_valid_after_utc == NOW + datetime.timedelta(days=3)
    _, cert = make_identity("user", "ana", [], ca_key=ca_key, ca=ca_cert, days=300, now=NOW)
    assert cert.not_valid_after_utc == ca_cert.not_valid_after_utc


def test_keys_and_serial_numbers_are_new_each_time() -> None:
    ca_key, ca_cert = make_ca("lab", days=10, now=NOW)
    made = [make_identity("user", "ana", [], ca_key=ca_key, ca=ca_cert, days=3, now=NOW) for _ in range(8)]
    assert len({cert.serial_number for _, cert in made}) == 8
    assert len({key.private_numbers().private_value for key, _ in made}) == 8
    assert max(cert.serial_number.bit_length() for _, cert in made) > 64


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "*.example.org", "a..b", "x" * 64, "host:5", "\x1b[1m"])
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="is neither a host name such as"):
        alternative_names([name])


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a b", "x" * 65, "\x1b[1m", "ana\n"])
def test_what_is_no_name_of_a_user_is_refused(ca: Path, name: str) -> None:
    with opened(ca) as authority, pytest.raises(SettingsError, match="user name"):
        authority.issue("user", name)
    assert read_index(ca).records == []


def test_who_was_issued_a_certificate_cannot_issue_any(tmp_path: Path) -> None:
    lab = Quick(tmp_path / "lab")
    host, user = lab.identity("host", "lab1", ["lab1"]), lab.identity("user", "ana")
    forger = Quick(tmp_path / "forged")
    forger.cert = x509.load_pem_x509_certificate((user / "cert.pem").read_bytes())
    forger.key = _key_in(user)
    forged = forger.identity("user", "root")
    with (forged / "key.pem").open("ab") as stream:  # the whole chain is shown
        stream.write((user / "cert.pem").read_bytes())
    client = Identity(forged).client_context()
    client.load_verify_locations(lab.directory / "lab1" / "ca.pem")
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        shake_hands(Identity.load(host).server_context(), client, "lab1")


def _key_in(identity: Path) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key((identity / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


# Names of others


@pytest.mark.parametrize("name", ["lab1", "LAB1.example.org", "192.0.2.1", "2001:db8:0:0::1"])
def test_a_host_gets_no_name_of_another_unless_that_is_meant(
    ca: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = ["--ca", str(ca)]
    others = ["--name", "lab1.example.org", "--name", "192.0.2.1", "--name", "2001:db8::1", "--name", "127.0.0.1"]
    assert main(["certs", "issue-host", "lab1", *others, *words]) == ExitCode.OK
    assert main(["certs", "issue-host", "lab2", "--name", "127.0.0.1", *words]) == ExitCode.OK  # each machine's own
    capsys.readouterr()
    for asked in (["renew", "lab2"], ["issue-host", "lab3"]):
        assert main(["certs", *asked, "--name", name, *words]) == ExitCode.USAGE
        assert f"{name} is a name of host lab1, and {asked[1]} could pass for that" in capsys.readouterr().err
    assert main(["certs", "renew", "lab2", "--name", name, "--shared", *words]) == ExitCode.OK
    assert main(["certs", "renew", "lab2", *words]) == ExitCode.OK  # what it has, it keeps
    assert main(["certs", "revoke", "lab2", *words]) == ExitCode.OK
    assert main(["certs", "revoke", "lab1", *words]) == ExitCode.OK
    assert main(["certs", "issue-host", "lab3", "--name", name, *words]) == ExitCode.OK  # whose it is no more


@pytest.mark.parametrize("before", ["nothing", "valid", "expired", "revoked"])
def test_the_command_that_shares_a_name_is_one_that_works(
    ca: Path, capsys: pytest.CaptureFixture[str], before: str
) -> None:
    run(capsys, "issue-host", "lab1", "--name", "192.0.2.1", "--ca", str(ca))
    if before != "nothing":
        with opened(ca) as authority:
            authority.issue("host", "lab2", ["lab2"], days=1e-9 if before == "expired" else None)
            if before == "revoked":
                authority.revoke("lab2")
    action = "renew" if before == "valid" else "issue-host"
    assert main(["certs", action, "lab2", "--name", "192.0.2.1", "--ca", str(ca)]) == ExitCode.USAGE
    told = capsys.readouterr().err.strip()
    words = shlex.split(told.rpartition("pyrokernel certs ")[2])
    assert words[0] == action
    (made,) = run(capsys, *words, "--ca", str(ca))
    assert "192.0.2.1" in made["names"]


# Lists of what was revoked


def test_a_list_says_what_was_revoked_and_which_is_newer(tmp_path: Path) -> None:
    lab = Quick(tmp_path)
    ca_pem = (lab.identity("user", "ana") / "ca.pem").read_bytes()
    older = make_crl({}, 1, ca_key=lab.key, ca=lab.cert)
    newer = make_crl({5: NOW, 2**150: NOW}, 2, ca_key=lab.key, ca=lab.cert)
    assert (read_revoked(older, ca_pem), number_of(older, ca_pem)) == ((1, frozenset()), 1)
    assert (read_revoked(newer, ca_pem), number_of(newer, ca_pem)) == ((2, frozenset({5, 2**150})), 2)


def test_a_list_is_valid_as_long_as_its_authority(tmp_path: Path) -> None:
    lab = Quick(tmp_path)
    crl = x509.load_pem_x509_crl(make_crl({5: NOW}, 2, ca_key=lab.key, ca=lab.cert))
    assert crl.last_update_utc == lab.cert.not_valid_before_utc, "a clock that is behind refuses it"
    assert crl.next_update_utc == lab.cert.not_valid_after_utc


def _pem(der: bytes) -> bytes:
    return b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(der) + b"-----END X509 CRL-----\n"


def test_a_list_by_somebody_else_is_refused(tmp_path: Path) -> None:
    lab, other = Quick(tmp_path / "a"), Quick(tmp_path / "b")
    ca_pem = (lab.identity("user", "ana") / "ca.pem").read_bytes()
    forged = make_crl({5: NOW}, 2, ca_key=other.key, ca=lab.cert)
    foreign = make_crl({5: NOW}, 2, ca_key=other.key, ca=Quick(tmp_path / "c", "mars").cert)
    own = x509.load_pem_x509_crl(make_crl({5: NOW}, 2, ca_key=lab.key, ca=lab.cert))
    sha256, unknown = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040309")
    signed_oddly = _pem(own.public_bytes(serialization.Encoding.DER).replace(sha256, unknown))
    for crl in (forged, foreign, signed_oddly, b"", b"nonsense", ca_pem):
        with pytest.raises(ValueError, match=r"."):
            read_revoked(crl, ca_pem)
        with pytest.raises(ValueError, match=r"."):
            number_of(crl, ca_pem)


def test_no_list_older_than_one_that_was_seen_is_taken_over(tmp_path: Path) -> None:
    lab = Quick(tmp_path)
    host = lab.identity("host", "lab1", ["lab1"])

    def numbered(number: int, *serials: int) -> bytes:
        return make_crl(dict.fromkeys(serials, NOW), number, ca_key=lab.key, ca=lab.cert)

    assert take_over(numbered(4, 5), host)
    assert not take_over(numbered(4, 5), host)  # signed anew, and the same list
    for gone_back in (lambda: None, lambda: (host / "crl.pem").write_bytes(numbered(2)), (host / "crl.pem").unlink):
        gone_back()
        with pytest.raises(
            AccessRefusedError, match=r"is number 3, and number 4 is known .* set crl_number in its index.json to 5,"
        ):
            take_over(numbered(3, 5), host)
    assert take_over(numbered(4, 5), host)
    with pytest.raises(AccessRefusedError, match="number 4"):
        take_over(numbered(4), host)  # an authority that was brought back from a backup, and knows less
    shutil.copy(Quick(tmp_path / "m", "mars").identity("host", "lab1", ["lab1"]) / "ca.pem", host / "ca.pem")
    assert newest_seen(host) == 0  # lists of another authority have numbers of their own


@pytest.mark.parametrize("cut", [0, 3, -1, 2])
def test_a_list_that_is_damaged_is_below_what_was_seen(tmp_path: Path, cut: int) -> None:
    lab = Quick(tmp_path)
    host = lab.identity("host", "lab1", ["lab1"])
    good = make_crl({5: NOW}, 4, ca_key=lab.key, ca=lab.cert)
    take_over(good, host)
    der = base64.b64decode(b"".join(good.splitlines()[1:-1]))
    ends = der.rfind(b"\x55\x1d\x14") + 3 + cut if cut >= 0 else 0  # behind, within or before the number
    inside = base64.b64encode(der[:ends]).decode() if cut >= 0 else "MIIBI"
    (host / "crl.pem").write_text(f"-----BEGIN X509 CRL-----\n{inside}\n-----END X509 CRL-----\n")
    with pytest.raises(SettingsError, match=r"crl\.pem is damaged, or has no number, and number 4 of it was there"):
        refuse_older(host)
    assert "is damaged" in failure_of(lambda: trouble_of(Identity.load(host)))
    assert take_over(good, host), "what mends it is the list that was there"


def test_what_was_seen_is_of_the_authority_whatever_stands_around_its_certificate(tmp_path: Path) -> None:
    lab = Quick(tmp_path)
    host = lab.identity("host", "lab1", ["lab1"])
    take_over(make_crl({}, 4, ca_key=lab.key, ca=lab.cert), host)
    certificate = (host / "ca.pem").read_bytes()
    (host / "ca.pem").write_bytes("Aussteller: Universität\r\n".encode() + certificate + certificate)
    assert newest_seen(host) == 4
    for damaged in (b"", b"-----BEGIN CERTIFICATE-----\nMIIBI\n-----END CERTIFICATE-----\n", b"\xff"):
        (host / "ca.pem").write_bytes(damaged)
        with pytest.raises(SettingsError, match=r"ca\.pem holds no certificate of an authority; copy ca\.pem"):
            newest_seen(host)


@pytest.mark.parametrize("told", ["{", "[]", '{"authority": "", "number": 1e999}', '{"authority": ""}'])
def test_a_damaged_note_of_what_was_seen_says_how_to_mend_it(tmp_path: Path, told: str) -> None:
    host = Quick(tmp_path).identity("host", "lab1", ["lab1"])
    (host / SEEN).write_text(told)
    with pytest.raises(SettingsError, match=r"crl\.seen is damaged .* then remove "):
        newest_seen(host)


def failure_of(action: Callable[[], object]) -> str:
    with pytest.raises(SettingsError) as caught:
        action()
    return str(caught.value)


def test_who_was_revoked_is_refused_by_servers_and_by_clients(ca: Path) -> None:
    with opened(ca) as authority:
        authority.issue("user", "ana")
        authority.issue("user", "bob")
        authority.issue("host", "lab1", ["lab1"])
    ana, bob, host = (ca / "issued" / name for name in ("ana", "bob", "lab1"))
    meet(host, ana, "lab1")
    with opened(ca) as authority:
        assert [record.name for record in authority.revoke("ana")] == ["ana"]
        assert authority.publish_crl([]) == ([ana, bob, host], {})
    meet(host, bob, "lab1")
    with pytest.raises(OSError, match="certificate revoked"):
        meet(host, ana, "lab1")
    with opened(ca) as authority:
        authority.revoke("lab1")
        authority.publish_crl([])
    with pytest.raises(OSError, match="certificate revoked"):
        meet(host, bob, "lab1")
    assert trouble_of(Identity.load(host)).startswith(f"the certificate of host lab1 in {host} was revoked; ")


def test_the_list_goes_only_to_identities_of_its_authority(ca: Path, tmp_path: Path) -> None:
    foreign = Quick(tmp_path / "mars").identity("user", "eve")
    with opened(ca) as authority:
        authority.issue("user", "ana")
        authority.revoke("ana")
        assert authority.publish_crl([foreign, tmp_path / "absent"]) == ([ca / "issued" / "ana"], {})
    assert not (foreign / "crl.pem").exists()


@pytest.mark.parametrize("kind", ["user", "host"])
def test_an_identity_of_this_machine_notes_which_list_it_has(ca: Path, tmp_path: Path, kind: str) -> None:
    here = tmp_path / "here"
    with opened(ca) as authority:
        authority.issue(kind, "ana", into=here)
        authority.issue("host", "lab2", ["lab2"])
        first = (here / "crl.pem").read_bytes()
        assert newest_seen(here) == 1
        authority.revoke("lab2")
        authority.publish_crl([])
    assert newest_seen(here) == 2
    (here / "crl.pem").write_bytes(first)
    with pytest.raises(SettingsError, match=r"is number 1 of the list .* and number 2 was there before"):
        Identity.load(here).client_context()
    assert not (ca / "issued" / "lab2" / SEEN).exists(), "it would be copied over what that machine has seen"


def test_an_authority_from_a_backup_puts_no_older_list_over_a_newer_one(ca: Path, tmp_path: Path) -> None:
    here, backup = tmp_path / "here", tmp_path / "backup"
    with opened(ca) as authority:
        authority.issue("user", "ana", into=here)
        authority.issue("user", "bob")
    shutil.copytree(ca, backup)
    with opened(ca) as authority:
        for name in ("bob", "eve", "zoe"):
            if name != "bob":
                authority.issue("user", name)
            authority.revoke(name)
        assert authority.publish_crl([])[1] == {}
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    with opened(backup) as authority:
        known = list(authority.index.records)
        with pytest.raises(AccessRefusedError, match=r"number 1, and number 4 is known in .* to 5, and revoke anew"):
            authority.renew("ana")
        assert authority.index.records == known, "what nobody has would count as the newest"
        authority.revoke("bob")
        told, refused = authority.publish_crl([])
        assert told == [backup / "issued" / "bob"]
        assert list(refused) == [here]
        assert "is number 2, and number 4 is known in" in refused[here]
        assert {path.name: path.read_bytes() for path in here.iterdir()} == before
        # What the text says mends it.
        authority.index.crl_number = 5
        authority.index.write(backup / "index.json")
    with opened(backup) as authority:
        assert authority.publish_crl([]) == ([here, backup / "issued" / "bob"], {})
        authority.renew("ana")
    assert newest_seen(here) == 5


def test_a_list_that_was_forged_closes_the_door(tmp_path: Path) -> None:
    lab, other = Quick(tmp_path / "a"), Quick(tmp_path / "b")
    host, user = lab.identity("host", "lab1", ["lab1"]), lab.identity("user", "ana")
    (host / "crl.pem").write_bytes(make_crl({}, 9, ca_key=other.key, ca=lab.cert))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        meet(host, user, "lab1")
    (host / "crl.pem").write_text("nonsense")
    with pytest.raises(SettingsError, match=r"crl\.pem cannot be used"):
        meet(host, user, "lab1")


# The authority


def test_a_name_is_issued_once_and_then_renewed(ca: Path) -> None:
    with opened(ca) as authority:
        first = authority.issue("user", "ana")
        with pytest.raises(
            SettingsError, match="user ana has a certificate; for a new one: pyrokernel certs renew ana"
        ):
            authority.issue("user", "ana")
        authority.issue("host", "lab2", ["lab2"])
        with pytest.raises(SettingsError, match=r"certs renew lab2 --name 10\.0\.0\.2$"):
            authority.issue("host", "lab2", ["lab2", "10.0.0.2"])
        with pytest.raises(SettingsError, match="ana is the name of a user here; choose another for the host"):
            authority.issue("host", "ana", ["ana"])
        second = authority.renew("ana")
    assert first.serial != second.serial
    assert [record.serial for record in read_index(ca).of("ana")] == [first.serial, second.serial]
    assert int(Identity.load(ca / "issued" / "ana", "user").cert["serialNumber"], 16) == second.serial


def test_a_renewal_lasts_as_long_and_has_the_same_names_and_more(ca: Path) -> None:
    with opened(ca) as authority:
        first = authority.issue("host", "lab1", ["lab1", "192.0.2.1"], days=7)
        second = authority.renew("lab1", ["lab1.example.org", "lab1"])
        third = authority.renew("lab1", days=2)
    assert second.names == third.names == ("lab1", "192.0.2.1", "lab1.example.org")
    assert round((second.ends - second.begins) - (first.ends - first.begins)) == 0
    assert round(third.ends - third.begins) == 2 * 86400 + CLOCKS_APART.total_seconds()


def test_who_was_revoked_is_let_in_again_by_issuing_only(ca: Path) -> None:
    with opened(ca) as authority:
        authority.issue("user", "ana")
        authority.renew("ana")
        assert len(authority.revoke("ana")) == 2, "the older one would still be valid"
        assert authority.revoke("ana") == []
        with pytest.raises(SettingsError, match="was revoked; to let it in again: pyrokernel certs issue ana"):
            authority.renew("ana")
        new = authority.issue("user", "ana")
        assert read_revoked((ca / "crl.pem").read_bytes(), authority.ca_pem).serials.isdisjoint({new.serial})


@pytest.mark.parametrize("action", [Authority.renew, Authority.revoke])
def test_what_was_never_issued_is_said_to_be_so(ca: Path, action: Callable[[Authority, str], object]) -> None:
    with opened(ca) as authority, pytest.raises(SettingsError, match="nothing was issued for 'bob' here"):
        action(authority, "bob")


def test_a_list_that_was_not_written_any_more_is_written_by_the_next_command(ca: Path) -> None:
    with opened(ca) as authority:
        record = authority.issue("user", "ana")
        before = (ca / "crl.pem").read_bytes()
        authority.revoke("ana")
    (ca / "crl.pem").write_bytes(before)
    with opened(ca) as authority:
        assert record.serial in read_revoked((ca / "crl.pem").read_bytes(), authority.ca_pem).serials
        assert number_of((ca / "crl.pem").read_bytes(), authority.ca_pem) == 2


def test_no_identity_of_somebody_else_is_overwritten_by_a_renewal(ca: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    with opened(ca) as authority:
        authority.issue("user", "ana", into=mine)
        mine.rename(tmp_path / "away")
        foreign = Quick(tmp_path, "mars").identity("user", "ana", at="mine")
        record = authority.renew("ana")
        assert authority.directory_of(record) == ca / "issued" / "ana"
    assert Identity.load(foreign).cert["issuer"] == ((("commonName", "mars"),),)


@pytest.mark.parametrize("name", ["ca.key", ""])
def test_a_key_of_an_authority_that_others_may_read_is_refused(ca: Path, name: str) -> None:
    (ca / name).chmod(0o755)
    with pytest.raises(AccessRefusedError, match=r"others may read .*; run: chmod [67]00 "), opened(ca):
        pytest.fail("it was opened")


def test_a_damaged_authority_is_one_line(ca: Path, tmp_path: Path) -> None:
    create(tmp_path / "other", "other")
    for name, text in (
        ("ca.key", b"nonsense"),
        ("ca.key", (tmp_path / "other" / "ca.key").read_bytes()),
        ("ca.pem", b"nonsense"),
        ("index.json", b"[]"),
        ("index.json", b"{"),
        ("index.json", b'{"format": 9}'),
    ):
        was = (ca / name).read_bytes()
        (ca / name).write_bytes(text)
        with pytest.raises(SettingsError, match=r"backup|this version reads 1"), opened(ca):
            pytest.fail("it was opened")
        (ca / name).write_bytes(was)
    with opened(ca) as authority:
        authority.issue("user", "ana")


def test_an_authority_that_has_expired_says_what_to_do(tmp_path: Path) -> None:
    create(tmp_path / "old", "old", days=1e-9)
    expected = r"expired on .*; begin another: pyrokernel certs init --ca DIR"
    with pytest.raises(SettingsError, match=expected), opened(tmp_path / "old"):
        pytest.fail("it was opened")


def test_records_tell_how_they_are() -> None:
    record = Record(serial=1, kind="user", name="ana", names=(), begins=0, ends=300, directory="")
    assert [record.state(now) for now in (0, 199, 201, 299, 300)] == ["valid", "valid", "due", "due", "expired"]
    index = Index(1, [record])
    index.revoke([record], 5.0)
    assert index.records[0].state(0) == "revoked"


# Nobody finds half of anything


def test_all_files_are_private(ca: Path) -> None:
    was = os.umask(0)
    try:
        with opened(ca) as authority:
            authority.issue("user", "ana")
            authority.revoke("ana")
    finally:
        os.umask(was)
    for path in [ca, *ca.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def interrupted(count: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let Ctrl-C fall before the replacement of a file of that number; return what ends that."""
    replace, numbers = os.replace, itertools.count()

    def stop(source: Any, target: Any) -> None:
        if next(numbers) == count:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", stop)
    return lambda: monkeypatch.setattr(files.os, "replace", replace)


@pytest.mark.parametrize("count", range(6))
def test_a_renewal_that_is_interrupted_leaves_the_old_or_the_new(
    ca: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with opened(ca) as authority:
        authority.issue("user", "ana")
        authority.issue("host", "lab1", ["lab1"])
    end = interrupted(count, monkeypatch)
    with opened(ca) as authority, pytest.raises(KeyboardInterrupt):
        authority.renew("ana")
    end()
    assert not list(ca.rglob("*.draft"))
    meet(ca / "issued" / "lab1", ca / "issued" / "ana", "lab1")
    there = int(Identity.load(ca / "issued" / "ana").cert["serialNumber"], 16)
    with opened(ca) as authority:
        assert there in {record.serial for record in authority.revoke("ana")}, "it could not be revoked"
        authority.issue("user", "ana")
    meet(ca / "issued" / "lab1", ca / "issued" / "ana", "lab1")


@pytest.mark.parametrize("count", range(4))
def test_a_beginning_that_is_interrupted_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    end = interrupted(count, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        create(tmp_path / "ca", "lab")
    end()
    assert create(tmp_path / "ca", "lab")
    assert not create(tmp_path / "ca", "lab")
    with opened(tmp_path / "ca") as authority:
        authority.issue("user", "ana")


def test_what_a_killed_command_left_is_cleared_away(ca: Path) -> None:
    old, new = ca / ".ca.key.x.draft", ca / ".index.json.y.draft"
    for draft in (old, new):
        draft.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    with opened(ca):
        assert not old.exists()
        assert new.exists(), "it may be of a command that runs"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(tmp_path / "file", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_commands_at_once_lose_nothing(ca: Path) -> None:
    names = [f"user{number}" for number in range(8)]

    def issue(name: str) -> None:
        with opened(ca) as authority:
            authority.issue("user", name)

    threads = [threading.Thread(target=issue, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {record.name for record in read_index(ca).records} == set(names)


def test_who_waits_for_too_long_is_told_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PATIENCE_SECONDS", 0.05)
    with (tmp_path / "lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        expected = r"another `pyrokernel certs` works in .* end it \(fuser "
        with pytest.raises(AccessRefusedError, match=expected), locked(tmp_path):
            pytest.fail("it was locked")


# The command


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Run a command in JSON and return its answer."""
    assert main(["certs", *words, "--json"]) == ExitCode.OK
    return json.loads(capsys.readouterr().out)


def test_init_makes_one_machine_work(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "init", "--user", "ana", "--name", "192.0.2.5")
    assert told["authority"] == str(home / "ca")
    assert [(one["kind"], one["name"], one["copy"]) for one in told["identities"]] == [
        ("host", "lab1", ""),
        ("user", "ana", ""),
    ]
    for name in ("lab1", "localhost", "127.0.0.1", "::1", "192.0.2.5"):
        meet(home / "host", home / "certs", name)
    assert Identity.load(home / "host", "host").ca["subject"] == ((("commonName", "lab1"),),)


def test_init_again_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init", "mars")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    again = run(capsys, "init", "venus")
    assert (again["made"], again["identities"]) == (False, [])
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before


def test_init_brings_back_what_is_missing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init")
    (home / "host").rename(home / "gone")
    assert [one["kind"] for one in run(capsys, "init")["identities"]] == ["host"]
    meet(home / "host", home / "certs", "localhost")


def test_init_leaves_the_identity_of_another_authority(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = Quick(home, "mars").identity("user", "eve", at="certs")
    assert [one["kind"] for one in run(capsys, "init")["identities"]] == ["host"]
    assert Identity.load(foreign).name == "eve"
    assert main(["doctor"]) == ExitCode.UNWELL
    assert "are of different authorities, and refuse each other" in capsys.readouterr().out


def test_a_user_of_the_name_of_the_machine_is_asked_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "init", "--user", "lab1"]) == ExitCode.USAGE
    assert "both called lab1; name yourself: pyrokernel certs init --user NAME" in capsys.readouterr().err


def test_init_says_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["certs", "init"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert "another machine: pyrokernel certs issue-host HOST --name ADDRESS; " in told


def test_what_is_to_be_copied_is_a_command(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ca = tmp_path / "it's here"
    run(capsys, "init", "--ca", str(ca))
    (told,) = run(capsys, "issue-host", "lab2", "--name", "192.0.2.7", "--ca", str(ca))
    assert told["names"] == ["lab2", "192.0.2.7"]
    mkdir, _, copy = told["copy"].partition(" && ")
    assert mkdir == "ssh lab2 mkdir -p -m 700 .config/pyrokernel/host"
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    local = copy.replace("scp", "cp").replace("lab2:.config/pyrokernel/host/", shlex.quote(str(target)))
    subprocess.run(local, shell=True, check=True)
    assert Identity.load(target, "host").name == "lab2"


def test_renew_of_what_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init")
    run(capsys, "issue", "ana", "--days", "0.001")  # of which the five minutes before count
    run(capsys, "issue", "bob")
    assert [one["name"] for one in run(capsys, "renew", "--due")] == ["ana"]
    assert {one["name"] for one in run(capsys, "renew", "--all")} > {"ana", "bob", "lab1"}


def test_an_identity_of_this_machine_is_renewed_where_it_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init", "--user", "ana")
    before = (home / "certs" / "key.pem").read_bytes()
    (told,) = run(capsys, "renew", "ana")
    assert (told["directory"], told["copy"]) == (str(home / "certs"), "")
    assert (home / "certs" / "key.pem").read_bytes() != before
    meet(home / "host", home / "certs", "localhost")


def test_revoke_tells_this_machine(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init", "--user", "ana")
    run(capsys, "issue", "bob")
    told = run(capsys, "revoke", "bob")
    assert [one["name"] for one in told["revoked"]] == ["bob"]
    assert {str(home / "certs"), str(home / "host")} < set(told["told"])
    with pytest.raises(OSError, match="certificate revoked"):
        meet(home / "host", home / "ca" / "issued" / "bob", "localhost")


def test_revoke_says_which_directory_of_this_machine_knows_a_newer_list(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "init", "--user", "ana")
    run(capsys, "issue", "bob")
    index = home / "ca" / "index.json"
    (home / "certs" / SEEN).write_bytes(seen_words(home / "certs", 9))
    assert main(["certs", "revoke", "bob"]) == ExitCode.REFUSED
    told = capsys.readouterr()
    assert "revoked bob: 1 of its certificates" in told.out
    assert f"it was copied to: {home / 'host'}" in told.err
    assert f"not taken in {home / 'certs'}: this list of revoked certificates is number 2, and number 9" in told.err
    assert main(["certs", "revoke", "bob", "--json"]) == ExitCode.REFUSED
    assert list(json.loads(capsys.readouterr().out)["refused"]) == [str(home / "certs")]
    index.write_text(json.dumps({**json.loads(index.read_bytes()), "crl_number": 10}))
    assert run(capsys, "revoke", "bob")["refused"] == {}


def test_list_marks_what_needs_attention(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init", "--user", "ana")
    run(capsys, "issue", "bob", "--days", "0.001")
    run(capsys, "issue", "eve")
    run(capsys, "revoke", "eve")
    run(capsys, "renew", "ana")
    assert main(["certs", "list"]) == ExitCode.OK
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == ["NAME", "lab1", "ana", "bob", "eve"]
    assert "expires soon" in lines["bob"]
    assert "REVOKED" in lines["eve"]
    assert "in 30 days" in lines["ana"]
    states = [(one["name"], one["state"]) for one in run(capsys, "list", "--all")]
    assert states == [("lab1", "valid"), ("ana", "valid"), ("bob", "due"), ("eve", "revoked"), ("ana", "valid")]


def test_show_says_all_of_a_certificate(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init", "--user", "ana")
    run(capsys, "issue-host", "lab2", "--name", "192.0.2.7")
    assert main(["certs", "show", "lab2"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert told.startswith("host lab2\n")
    assert "for        lab2, 192.0.2.7\n" in told
    assert f"authority  lab1 ({home / 'ca' / 'ca.pem'})\n" in told
    assert "(in 90 days)\n" in told
    (facts,) = run(capsys, "show", str(home / "ca" / "issued" / "lab2" / "cert.pem"))
    assert facts["serial"] in told
    assert facts["fingerprint"] in told
    assert len(facts["fingerprint"]) == 95
    run(capsys, "revoke", "lab2")
    assert main(["certs", "show", str(home / "ca" / "issued" / "lab2")]) == ExitCode.OK
    assert "  state      revoked\n" in capsys.readouterr().out


def test_show_alone_shows_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init", "--user", "ana")
    assert [(one["kind"], one["name"]) for one in run(capsys, "show")] == [
        ("user", "ana"),
        ("host", "lab1"),
        ("ca", "lab1"),
    ]


def test_show_says_that_a_certificate_is_foreign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init")
    alone = tmp_path / "alone.pem"
    alone.write_bytes((Quick(tmp_path, "mars").identity("user", "eve") / "cert.pem").read_bytes())
    assert main(["certs", "show", str(alone)]) == ExitCode.OK
    assert "authority  mars (foreign: its certificate is not here)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["list"], ExitCode.USAGE, "there is no authority in "),
        (["issue", "ana"], ExitCode.USAGE, "make one: pyrokernel certs init"),
        (["show"], ExitCode.USAGE, "there is no identity on this machine; `pyrokernel certs init` makes one"),
        (["show", "nobody"], ExitCode.USAGE, "there is neither a file nobody nor something issued for that name"),
        (["env"], ExitCode.USAGE, "`pyrokernel certs init` begins a mesh"),
        (["init", "a/b"], ExitCode.USAGE, "authority name 'a/b': use 1 to 64 letters"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], words: list[str], code: ExitCode, told: str) -> None:
    assert main(["certs", *words]) == code
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "x", "1e9"])
def test_days_are_a_number_above_zero(capsys: pytest.CaptureFixture[str], days: str) -> None:
    with pytest.raises(SystemExit):
        main(["certs", "issue", "ana", f"--days={days}"])
    assert "is no number of days up to 36,500, such as 30" in capsys.readouterr().err


def test_the_environment_says_where_an_identity_lies_now(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init", "--user", "ana")
    moved = home / "it's moved"
    (home / "certs").rename(moved)
    assert main(["certs", "env", str(moved)]) == ExitCode.OK
    lines = capsys.readouterr().out
    shown = subprocess.run(
        ["sh", "-c", f"{lines}\nenv"], env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert f"PYROKERNEL_CERTS={moved}" in shown
    assert f"PYRO_SSL_CLIENTCERT={moved}/key.pem" in shown
    assert {"PYRO_SSL=1", "PYRO_SSL_REQUIRECLIENTCERT=1"} < set(shown)
    assert not any(line.startswith("PYRO_SSL_SERVER") for line in shown), "a user is no server"
    assert shlex.quote(str(moved / "ca.pem")) in (moved / "env").read_text()


def test_the_environment_of_a_machine_is_that_of_its_host_and_user(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "init")
    assert main(["certs", "env"]) == ExitCode.OK
    shown = dict(line.removeprefix("export ").split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["PYRO_SSL_SERVERCERT"] == str(home / "host" / "key.pem")
    assert shown["PYRO_SSL_CLIENTCERT"] == str(home / "certs" / "key.pem")
    assert environment(Identity(home / "host"))["PYRO_SSL_CLIENTCERT"] == str(home / "host" / "key.pem")


@pytest.mark.parametrize(("seconds", "told"), [(12.4 * 86400, "in 12 days"), (-3600 * 3, "3 h 0 min ago")])
def test_distances_in_time_are_for_people(seconds: float, told: str) -> None:
    assert from_now(seconds) == told


def without_cryptography(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.modules['cryptography'] = None; from pyrokernel.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


def test_without_its_package_one_line_says_what_to_install() -> None:
    ended = without_cryptography("certs", "init")
    assert ended.returncode == ExitCode.FAILED
    assert ended.stderr == (
        "pyrokernel: pyrokernel certs needs the package cryptography; "
        "run: python -m pip install 'pyrokernel[network]'\n"
    )


def test_to_use_an_identity_needs_no_package(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "init")
    ended = without_cryptography("certs", "env")
    assert ended.returncode == ExitCode.OK
    assert "export PYRO_SSL=1\n" in ended.stdout
    assert "ok     user cert" in without_cryptography("doctor").stdout


# doctor


def test_doctor_says_nothing_of_certificates_where_none_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    assert " cert " not in capsys.readouterr().out


def test_doctor_misses_the_identity_of_a_host_that_listens(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYROKERNEL_LISTEN", "127.0.0.1:0")
    assert main(["doctor"]) == ExitCode.UNWELL
    assert "WRONG  host cert    there is no identity" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("days", "begun", "level", "told"),
    [
        (10, 0, "ok", "ana, by authority lab, until 20"),
        (10, 8, "note", "2.0 days are left"),
        (10, 12, "WRONG", "expired 2 d 0 h ago"),
        (10, -2, "WRONG", "is valid only in 1 d 23 h"),
    ],
)
def test_doctor_says_how_long_a_certificate_is_valid(
    home: Path, capsys: pytest.CaptureFixture[str], days: float, begun: float, level: str, told: str
) -> None:
    Quick(home).identity("user", "ana", days=days, begun=begun, at="certs")
    main(["doctor"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "user cert" in line)
    assert line.startswith(f"  {level}")
    assert told in line


def test_doctor_says_how_to_close_a_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (Quick(home).identity("user", "ana", at="certs") / "key.pem").chmod(0o644)
    assert main(["doctor"]) == ExitCode.UNWELL
    assert f"mend it: chmod 600 {home / 'certs' / 'key.pem'}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("user", "told"), [("root", True), ("bob", False)])
def test_doctor_says_that_a_certificate_counts_for_nothing_where_the_account_lets_in(
    home: Path, user: str, told: bool
) -> None:
    Quick(home).identity("user", "bob", at="certs")
    mesh: Any = SimpleNamespace(settings=Settings(certs=str(home / "certs")), me=lambda: (user, Role.ADMIN))
    texts = [found.text for found in doctor.check_name(mesh)]
    assert len(texts) == told
    for text in texts:
        assert text.startswith("here you are root by your account, admin of this mesh; certificate 'bob' counts where")


def test_who_revokes_is_told_of_a_stock_name_server_that_the_host_here_has_joined(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stock(*_: Any) -> bool:
        raise AttributeError("take_revoked")

    run(capsys, "init")
    run(capsys, "issue", "bob")
    folder = Settings(runtime_dir=os.environ["PYROKERNEL_RUNTIME_DIR"]).mesh_runtime_dir
    folder.mkdir(parents=True, mode=0o700)
    write_private(folder / JOINED, b'{"ns": "127.0.0.1:9"}')
    monkeypatch.setattr(mesh_module, "connect", lambda _: contextlib.nullcontext(SimpleNamespace(hosts=list)))
    monkeypatch.setattr(Directory, "take_revoked", stock)
    assert main(["certs", "revoke", "bob"]) == ExitCode.OK
    assert "the name server at 127.0.0.1:9 is a stock one, which heeds no lists" in capsys.readouterr().err


def test_usual_lives_are_short() -> None:
    assert DAYS == {"user": 30, "host": 90, "ca": 3650}
