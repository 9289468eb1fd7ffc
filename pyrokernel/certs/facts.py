"""What can be said of a certificate: whose, for how long, by whom, whether revoked. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from pyrokernel.certs.crl import read_revoked
from pyrokernel.certs.index import Record
from pyrokernel.errors import SettingsError
from pyrokernel.texts import one_line, span, table
from pyrokernel.wire.identity import KINDS

__all__ = ["Facts", "facts_of", "format_facts", "format_records", "from_now"]

_STATES = {"valid": "", "due": "expires soon", "expired": "EXPIRED", "revoked": "REVOKED"}


@dataclasses.dataclass(frozen=True)
class Facts:
    """A certificate.

    Attributes:
        file: Where it was read.
        kind: "user", "host" or "ca"; "" for one that other tools made.
        name: Whose.
        names: Host names and addresses it is for.
        begins: Seconds since the epoch from which it is valid.
        ends: Until when.
        serial: Its number, in hexadecimal digits.
        fingerprint: SHA-256, as other tools write it.
        authority: Name of who signed it.
        authority_file: The certificate of that authority on this machine; "" where there is none.
        revoked: Whether a list on this machine revokes it.
    """

    file: str
    kind: str
    name: str
    names: tuple[str, ...]
    begins: float
    ends: float
    serial: str
    fingerprint: str
    authority: str
    authority_file: str
    revoked: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as a script gets it."""
        return {**dataclasses.asdict(self), "names": list(self.names)}


def facts_of(file: Path, authorities: Iterable[Path]) -> Facts:
    """Read a certificate.

    Args:
        file: Where it is; for one with several, the first counts.
        authorities: Directories in which a `ca.pem` and a `crl.pem` may be.

    Raises:
        SettingsError: There is no certificate.
    """
    try:
        cert = x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"{file} holds no certificate: {one_line(str(error), 100)}") from error
    try:
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = found.get_values_for_type(x509.UniformResourceIdentifier)
        names = (
            *found.get_values_for_type(x509.DNSName),
            *map(str, found.get_values_for_type(x509.IPAddress)),
        )
    except x509.ExtensionNotFound:
        uris, names = [], ()
    kinds = [uri.split(":")[1] for uri in uris if uri.startswith("pyrokernel:")]
    signer = _signer(cert, authorities)
    return Facts(
        file=str(file),
        kind=kinds[0] if len(kinds) == 1 and kinds[0] in KINDS else "",
        name=_common_name(cert.subject),
        names=tuple(one_line(name, 253) for name in names),
        begins=cert.not_valid_before_utc.timestamp(),
        ends=cert.not_valid_after_utc.timestamp(),
        serial=f"{cert.serial_number:x}",
        fingerprint=cert.fingerprint(hashes.SHA256()).hex(":").upper(),
        authority=_common_name(cert.issuer),
        authority_file=str(signer) if signer else "",
        revoked=signer is not None and _is_revoked(cert, signer),
    )


def format_facts(facts: Facts, now: float) -> str:
    """Return a certificate as a person reads it."""
    begins, ends = (time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(edge)) for edge in (facts.begins, facts.ends))
    state = "revoked" if facts.revoked else "valid"
    if not facts.revoked and not facts.begins <= now < facts.ends:
        state = "expired" if now >= facts.ends else "not valid yet"
    rows = [
        ("file", facts.file),
        ("state", state),
        ("valid", f"{begins} to {ends} ({from_now(facts.ends - now)})"),
        ("for", ", ".join(facts.names)),
        ("serial", facts.serial),
        ("SHA-256", facts.fingerprint),
        ("authority", f"{facts.authority} ({facts.authority_file or 'foreign: its certificate is not here'})"),
    ]
    lines = [f"  {what:<9}  {text}" for what, text in rows if text]
    return "\n".join([f"{facts.kind or 'certificate of other tools:'} {facts.name}", *lines])


def format_records(records: Sequence[Record], now: float) -> str:
    """Return a table of what an authority issued."""
    rows = [
        (
            record.name,
            record.kind,
            time.strftime("%Y-%m-%d", time.localtime(record.ends)),
            from_now(record.ends - now),
            _STATES[record.state(now)],
            ", ".join(record.names),
            f"{record.serial:x}",
        )
        for record in records
    ]
    return table(("NAME", "KIND", "UNTIL", "", "STATE", "FOR", "SERIAL"), rows)


def from_now(seconds: float) -> str:
    """Say how far a moment is: "in 12 days", "3 h 5 min ago"."""
    length = f"{abs(seconds) / 86400:,.0f} days" if abs(seconds) >= 2 * 86400 else span(abs(seconds))
    return f"in {length}" if seconds >= 0 else f"{length} ago"


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return one_line(str(found[0].value), 200) if found else one_line(name.rfc4514_string(), 200)


def _signer(cert: x509.Certificate, authorities: Iterable[Path]) -> Path | None:
    """Return the certificate of an authority here that signed this one."""
    for directory in authorities:
        file = directory / "ca.pem"
        try:
            cert.verify_directly_issued_by(x509.load_pem_x509_certificate(file.read_bytes()))
        except (OSError, ValueError, TypeError, InvalidSignature):
            continue  # none, damaged, or somebody else's
        return file
    return None


def _is_revoked(cert: x509.Certificate, signer: Path) -> bool:
    try:
        return cert.serial_number in read_revoked((signer.parent / "crl.pem").read_bytes(), signer.read_bytes()).serials
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot tell what was revoked: {signer.parent / 'crl.pem'}: {error}") from error
