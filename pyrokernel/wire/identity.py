"""Identities: a directory with a certificate and its key, and the TLS contexts made of it. Runs in every process.

Only the standard library is needed to use an identity; `pyrokernel.certs` makes them. In its directory are `ca.pem`,
the certificate of whoever vouches for all; `key.pem`, the private key and behind it the certificate, in one file that
is replaced as a whole; `cert.pem`, the same certificate for people and other programs; and `crl.pem`, what was
revoked, which may be missing unless one was noted before (`wire.revoked`). What a refusal means, `wire.refusals`
explains.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyrokernel.errors import AccessRefusedError, SettingsError
from pyrokernel.wire.revoked import refuse_older

__all__ = ["KINDS", "Identity", "PeerCert", "check_kind", "kind_and_name", "names_in", "plain_name", "shake_hands"]

PeerCert = Mapping[str, Any]
"""What `getpeercert()` returns."""

KINDS = ("user", "host", "ca")

_URI = re.compile(r"pyrokernel:(user|host|ca):([A-Za-z0-9_][A-Za-z0-9._-]{0,63})")
_ANY_TIME = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME of <openssl/x509_vfy.h>; Python does not export it."""
_ROUNDS = 8
"""Steps of a handshake in memory; two suffice."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """A directory with what proves who somebody is.

    Attributes:
        directory: Which.
    """

    directory: Path

    @classmethod
    def load(cls, directory: Path, kind: str = "") -> Identity:
        """Return the identity of a directory whose files are there, and private.

        Args:
            directory: Which.
            kind: "user" or "host": it must be of this kind; "" for either.

        Raises:
            AccessRefusedError: Others may read the key.
            SettingsError: A file is missing or damaged, or the identity is of another kind.
        """
        found = cls(directory)
        if not directory.is_dir():
            raise SettingsError(f"there is no identity {directory}; {_how_to_get(directory, kind)}")
        check_owned(directory)
        for file in (found.ca_file, found.key_file):
            if not file.is_file():
                raise SettingsError(f"the identity {directory} lacks {file.name}; {_how_to_get(directory, kind)}")
        check_owned(found.key_file)
        if kind and found.kind != kind:
            raise SettingsError(
                f"{directory} is the identity of {found.kind} {found.name}, and that of a {kind} belongs there; "
                f"{_how_to_get(directory, kind)}"
            )
        return found

    @property
    def ca_file(self) -> Path:
        """Certificate of the authority."""
        return self.directory / "ca.pem"

    @property
    def cert_file(self) -> Path:
        """The certificate, for people and other programs."""
        return self.directory / "cert.pem"

    @property
    def key_file(self) -> Path:
        """The private key, and behind it the certificate."""
        return self.directory / "key.pem"

    @property
    def chain_file(self) -> Path:
        """Where the certificate is read: beside the key, so that a renewal cannot come between the two.

        Other tools write key and certificate into two files; then it is `cert_file`.
        """
        return self.key_file if b"BEGIN CERTIFICATE" in self.key_file.read_bytes() else self.cert_file

    @property
    def crl_file(self) -> Path:
        """What was revoked; may be missing."""
        return self.directory / "crl.pem"

    @property
    def cert(self) -> PeerCert:
        """Its own certificate, as `getpeercert()` of the other end would return it; also one that has expired.

        Raises:
            SettingsError: It is not by this authority, or a file is damaged.
        """
        server = self._context(ssl.PROTOCOL_TLS_SERVER)
        server.verify_mode, server.verify_flags = ssl.CERT_REQUIRED, server.verify_flags | _ANY_TIME
        try:
            return self._shown_to(server)
        except ssl.SSLError as error:
            text = getattr(error, "verify_message", "") or error.reason or str(error)
            raise SettingsError(
                f"cert.pem and ca.pem in {self.directory} do not belong together ({text}); copy both anew from where "
                "`pyrokernel certs` issued them"
            ) from error

    @property
    def ca(self) -> PeerCert:
        """The certificate of the authority.

        Raises:
            SettingsError: It is none of an authority.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._trust(context)
        found = context.get_ca_certs()
        if not found:
            raise SettingsError(f"{self.ca_file} holds no certificate of an authority; copy ca.pem of your mesh there")
        return found[0]

    @property
    def kind(self) -> str:
        """What it is of: "user" or "host"."""
        return kind_and_name(self.cert)[0]

    @property
    def name(self) -> str:
        """Whose it is."""
        return kind_and_name(self.cert)[1]

    def server_context(self) -> ssl.SSLContext:
        """Return what shakes hands with those who connect: only TLS 1.3, only with certificates of this authority.

        Raises:
            AccessRefusedError: Others may read the key.
            SettingsError: A file is missing or damaged.
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        # A session that is resumed would skip the check of a certificate that was revoked meanwhile.
        context.num_tickets = 0
        self._heed_revoked(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Return what shakes hands with a server: only TLS 1.3, and its certificate must be for the host that is meant.

        Raises:
            AccessRefusedError: Others may read the key.
            SettingsError: A file is missing or damaged.
        """
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.hostname_checks_common_name = False
        self._heed_revoked(context)
        return context

    def lenient_context(self) -> ssl.SSLContext:
        """Return a client's context that minds the authority, but neither names nor times: to look at what is wrong."""
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= _ANY_TIME
        return context

    def check_now(self) -> None:
        """Raise what a peer would: the certificate has expired, is not valid yet, or was revoked.

        Raises:
            AccessRefusedError: Others may read the key.
            SettingsError: A file is missing or damaged.
            ssl.SSLCertVerificationError: A peer would refuse it.
        """
        self._shown_to(self.server_context())

    def _shown_to(self, server: ssl.SSLContext) -> PeerCert:
        # The standard library shows the certificates of peers only, so an identity meets itself.
        client = self._context(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        return shake_hands(server, client)[0].getpeercert() or {}

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._trust(context)
        check_owned(self.key_file)
        try:
            self.load_pair(context)
        except ssl.SSLError as error:
            why = error.reason or str(error)
            raise SettingsError(
                f"key.pem in {self.directory} cannot be used ({why}): it must hold a private key without passphrase "
                "and its certificate; copy the directory anew, or renew it with: pyrokernel certs renew"
            ) from error
        except OSError as error:
            raise SettingsError(f"cannot read the identity {self.directory}: {error}") from error
        return context

    def load_pair(self, context: ssl.SSLContext) -> None:
        """Load certificate and key. OpenSSL opens the file once for each: a renewal may come between, but not twice."""
        try:
            context.load_cert_chain(self.chain_file, self.key_file, _no_passphrase)
        except ssl.SSLError as error:
            if error.reason != "KEY_VALUES_MISMATCH":
                raise
            context.load_cert_chain(self.chain_file, self.key_file, _no_passphrase)

    def _trust(self, context: ssl.SSLContext) -> None:
        try:
            context.load_verify_locations(self.ca_file)
        except OSError as error:  # an SSLError is one
            why = getattr(error, "reason", "") or error
            raise SettingsError(f"{self.ca_file} cannot be used ({why}); copy ca.pem of your mesh there") from error

    def _heed_revoked(self, context: ssl.SSLContext) -> None:
        """Refuse what was revoked. A list that is damaged, old or by somebody else closes all: it may hide a name."""
        refuse_older(self.directory)
        try:
            context.load_verify_locations(self.crl_file)
        except FileNotFoundError:
            return
        except OSError as error:
            why = getattr(error, "reason", "") or error
            raise SettingsError(
                f"{self.crl_file} cannot be used ({why}); copy crl.pem of your authority there"
            ) from error
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def kind_and_name(cert: PeerCert) -> tuple[str, str]:
    """Return the kind of a certificate, and whose it is.

    Args:
        cert: As `getpeercert()` returns it, of a handshake that verified it.

    Raises:
        AccessRefusedError: It is none of `pyrokernel certs`, or contradicts itself.
    """
    uris = [
        value for what, value in cert.get("subjectAltName", ()) if what == "URI" and value.startswith("pyrokernel:")
    ]
    common = [value for part in cert.get("subject", ()) for key, value in part if key == "commonName"]
    found = _URI.fullmatch(uris[0]) if len(uris) == 1 else None
    if found is None or common != [found[2]]:
        raise AccessRefusedError(
            f"the certificate of {common[0] if common else 'nobody'!r} does not say whether it is a user's or a "
            "host's; use one that `pyrokernel certs issue` or `issue-host` made"
        )
    return found[1], found[2]


def check_kind(cert: PeerCert, *kinds: str, where: str) -> tuple[str, str]:
    """Return kind and name of a peer whose certificate is of one of some kinds.

    Args:
        cert: As `getpeercert()` returns it.
        kinds: Which are right here.
        where: Whose it is: the address of the peer.

    Raises:
        AccessRefusedError: It is of another kind.
    """
    kind, name = kind_and_name(cert)
    if kind not in kinds:
        wanted = " or ".join(kinds)
        command = "issue-host" if "host" in kinds else "issue"
        raise AccessRefusedError(
            f"{where} shows the certificate of {kind} {name}, where that of a {wanted} belongs; "
            f"make one with: pyrokernel certs {command} NAME"
        )
    return kind, name


def names_in(cert: PeerCert) -> list[str]:
    """Return the host names and addresses that a certificate is for."""
    return [value for what, value in cert.get("subjectAltName", ()) if what in ("DNS", "IP Address")]


def plain_name(name: str) -> str:
    """Return a name or address of a host as others of the same meaning are written."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name.lower().removesuffix(".")


def check_owned(path: Path) -> None:
    """Refuse a file or directory of an identity that others could read.

    Raises:
        AccessRefusedError: It belongs to somebody else, or others have rights to it.
        SettingsError: It does not exist.
    """
    try:
        info = path.stat()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}; see: pyrokernel certs --help") from error
    if not hasattr(os, "getuid"):
        return  # Windows: what is below a user's own folder is private by the rights that it inherits
    if info.st_uid not in (os.getuid(), 0):
        raise AccessRefusedError(f"{path} belongs to uid {info.st_uid}; an identity is used by its owner only")
    if stat.S_IMODE(info.st_mode) & 0o077:
        mode = "700" if stat.S_ISDIR(info.st_mode) else "600"
        raise AccessRefusedError(f"others may read {path}; run: chmod {mode} {path}")


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str | None = None
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Let two contexts meet in memory; return the server's and the client's end of a connection that stands.

    Args:
        server: At one end.
        client: At the other.
        host: Name of the server, for a client that minds it.

    Raises:
        ssl.SSLError: One refuses the other.
    """
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True))
    left = set(ends)
    for _ in range(_ROUNDS):
        for end in ends:
            try:
                end.do_handshake()
                left.discard(end)
            except ssl.SSLWantReadError:
                pass
        if not left:
            return ends[1], ends[0]
    raise ssl.SSLError("the handshake does not come to an end")


def _how_to_get(directory: Path, kind: str) -> str:
    command = {"user": "issue NAME", "host": "issue-host NAME"}.get(kind, "issue NAME")
    return (
        f"`pyrokernel certs init` begins a mesh; for one that there is, run where its authority lies: pyrokernel certs "
        f"{command}, and copy what it wrote to {directory}"
    )


def _no_passphrase() -> str:
    """Answer OpenSSL, which would ask the terminal."""
    return ""
