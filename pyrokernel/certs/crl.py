"""Lists of what was revoked, signed by the authority (RFC 5280, section 5).

Runs in the caller's process, and in hosts, gateways and name servers.

A list says in its number which is the newer of two. It is valid as long as its authority: that no news arrives must not
close a mesh, nor must news that arrives where a clock is behind. The certificates themselves are short-lived.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyrokernel.certs.files import write_private
from pyrokernel.errors import AccessRefusedError
from pyrokernel.wire.revoked import SEEN, newest_seen, seen_words

__all__ = ["Revoked", "is_news", "make_crl", "number_of", "read_revoked", "remember", "take_over"]

log = logging.getLogger(__name__)


class Revoked(NamedTuple):
    """What a list says.

    Attributes:
        number: Of the list; 0 where it has none, as lists of some other tools.
        serials: Numbers of the certificates that are revoked.
    """

    number: int
    serials: frozenset[int]


def make_crl(
    revoked: Mapping[int, datetime.datetime],
    number: int,
    *,
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
) -> bytes:
    """Return a list of revoked certificates as it stands in a file.

    Args:
        revoked: When each serial number was revoked.
        number: Of this list; above that of every earlier one.
        ca_key: Signs it.
        ca: What says whose key that is.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(ca.not_valid_before_utc)
        .next_update(ca.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()),  # type: ignore[arg-type]  # is one of EC
            critical=False,
        )
    )
    for serial, when in revoked.items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_revoked(crl_pem: bytes, ca_pem: bytes) -> Revoked:
    """Return what a list revokes.

    Args:
        crl_pem: The list.
        ca_pem: Certificate of the authority that must have signed it.

    Raises:
        ValueError: It is no list, or not by this authority.
    """
    crl = _read(crl_pem, ca_pem)
    return Revoked(_number(crl), frozenset(entry.serial_number for entry in crl))


def remember(directory: Path, number: int) -> None:
    """Note in an identity directory that a list with a number was checked there; older ones are refused then."""
    try:
        if number > newest_seen(directory):
            write_private(directory / SEEN, seen_words(directory, number))
    except OSError as error:  # a directory that is mounted for reading only: nobody here can put an old list there
        log.warning("that list %d of what was revoked was seen cannot be noted: %s", number, error)


def take_over(crl_pem: bytes, directory: Path, *, notes: bool = True) -> bool:
    """Put a list in the place of the one in an identity directory; say whether it is newer than that.

    Who brings it does not matter: only the authority can have signed it, and none that is older is taken.

    Args:
        crl_pem: The list.
        directory: Of the identity; its `ca.pem` is there.
        notes: Whether it is noted there that this list was seen.

    Raises:
        AccessRefusedError, SettingsError: As `is_news`.
    """
    news = is_news(crl_pem, directory)
    if news:
        write_private(directory / "crl.pem", crl_pem)
    if notes:
        remember(directory, number_of(crl_pem, (directory / "ca.pem").read_bytes()))
    return news


def is_news(crl_pem: bytes, directory: Path) -> bool:
    """Tell whether a list says something else than the one in an identity directory.

    Raises:
        AccessRefusedError: It is no list, not by the authority of that identity, or older than what is known there.
        SettingsError: What is known there cannot be read.
    """
    ca = (directory / "ca.pem").read_bytes()
    try:
        told = Revoked(number_of(crl_pem, ca), read_revoked(crl_pem, ca).serials)
    except ValueError as error:
        raise AccessRefusedError(f"this is no list of revoked certificates by the authority in {directory}") from error
    there = Revoked(0, frozenset())
    with contextlib.suppress(FileNotFoundError, ValueError):  # there is none, or it is damaged
        there = read_revoked((directory / "crl.pem").read_bytes(), ca)
    known = max(there.number, newest_seen(directory))
    if told.number < known or (told.number == there.number and told != there):
        raise AccessRefusedError(
            f"this list of revoked certificates is number {told.number}, and number {known} is known in {directory}; "
            f"if the authority is a backup brought back: set crl_number in its index.json to {known + 1}, and revoke "
            "anew what it has forgotten"
        )
    return told != there


def number_of(crl_pem: bytes, ca_pem: bytes) -> int:
    """Return the number of a list, by which one is newer than another.

    Args:
        crl_pem: The list.
        ca_pem: Certificate of the authority that must have signed it.

    Raises:
        ValueError: It is no list, not by this authority, or has no number.
    """
    number = _number(_read(crl_pem, ca_pem))
    if not number:
        raise ValueError("the list of revoked certificates has no number")
    return number


def _number(crl: x509.CertificateRevocationList) -> int:
    """Return the number of a list, 0 where it has none."""
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0


def _read(crl_pem: bytes, ca_pem: bytes) -> x509.CertificateRevocationList:
    crl, ca = x509.load_pem_x509_crl(crl_pem), x509.load_pem_x509_certificate(ca_pem)
    key = ca.public_key()
    try:
        algorithm = crl.signature_hash_algorithm
    except UnsupportedAlgorithm:
        algorithm = None  # ours signs by one that is known
    if crl.issuer != ca.subject or not isinstance(key, ec.EllipticCurvePublicKey) or algorithm is None:
        raise ValueError("the list of revoked certificates is by another authority")
    try:
        key.verify(crl.signature, crl.tbs_certlist_bytes, ec.ECDSA(algorithm))
    except InvalidSignature as error:
        raise ValueError("the list of revoked certificates is not signed by this authority") from error
    return crl
