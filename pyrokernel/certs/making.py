"""Making keys and certificates: what stands in them, and for how long. Runs in the caller's process.

X.509 (RFC 5280) on ECDSA P-256. The kind of a certificate is a URI among its names, `pyrokernel:user:ana`, which the
standard library's `getpeercert()` shows; the common name repeats the name for people and for other programs.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pyrokernel.errors import SettingsError
from pyrokernel.settings import check_name

__all__ = ["CLOCKS_APART", "DAYS", "alternative_names", "certificate_pem", "key_pem", "make_ca", "make_identity"]

DAYS = {"user": 30, "host": 90, "ca": 3650}
"""How long a certificate of each kind lasts where nothing else is asked for."""

CLOCKS_APART = datetime.timedelta(minutes=5)
"""Certificates are valid this long before they are made: a clock that is a little behind refuses none."""

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PURPOSES = {
    "user": (ExtendedKeyUsageOID.CLIENT_AUTH,),
    "host": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
}


def make_ca(name: str, *, days: float, now: datetime.datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Make a key, and the certificate in which it says itself that it is an authority.

    It signs certificates of users and hosts, and lists of those revoked; it cannot make further authorities.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _begin("ca", name, [], key, days=days, now=now).issuer_name(_subject(name))
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(
        _usage(key_cert_sign=True, crl_sign=True), critical=True
    )
    return key, made.sign(key, hashes.SHA256())


def make_identity(
    kind: str,
    name: str,
    names: Iterable[str],
    *,
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    days: float,
    now: datetime.datetime,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Make a key and a certificate for it.

    Args:
        kind: "user" or "host".
        name: Of the user or host.
        names: Where a host is reached: names in the DNS, and addresses.
        ca_key: Signs it.
        ca: What says whose key that is.
        days: It ends after so many, and not after `ca` does.
        now: What the time is.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    begun = _begin(kind, name, names, key, days=days, now=now, last=ca.not_valid_after_utc).issuer_name(ca.subject)
    made = (
        begun.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_PURPOSES[kind]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key()),  # type: ignore[arg-type]  # is one of EC
            critical=False,
        )
    )
    return key, made.sign(ca_key, hashes.SHA256())


def alternative_names(names: Iterable[str]) -> list[x509.GeneralName]:
    """Return where a host is reached as it stands in a certificate.

    Raises:
        SettingsError: One is neither a name of a machine nor an address.
    """
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):
                raise SettingsError(
                    f"{name!r} is neither a host name such as lab1.example.org nor an address such as 192.0.2.7"
                ) from None
            found.append(x509.DNSName(name))
    return found


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as it stands in a file."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Return a certificate as it stands in a file."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begin(
    kind: str,
    name: str,
    names: Iterable[str],
    key: ec.EllipticCurvePrivateKey,
    *,
    days: float,
    now: datetime.datetime,
    last: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    """Begin with what all kinds have."""
    check_name(name, kind)
    uri = x509.UniformResourceIdentifier(f"pyrokernel:{kind}:{name}")
    end = now + datetime.timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_APART)
        .not_valid_after(min(end, last) if last else end)
        .add_extension(x509.SubjectAlternativeName([uri, *alternative_names(names)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**allowed: bool) -> x509.KeyUsage:
    usages = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
              "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{usage: allowed.get(usage, False) for usage in usages})
