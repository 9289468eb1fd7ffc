"""How new the list of what was revoked is, so that nobody goes back to an older one. Runs in every process.

Each list has a number, above that of every earlier one. Of the newest that was checked in an identity directory the
number is noted there, in `crl.seen`: an old copy that is put over it, or a list that is gone, would make certificates
valid again that were revoked. Only the standard library is needed to look. `certs.crl` notes: in a host's directory for
its gateway, and in all of the authority's own machine; that of a user elsewhere has no note, and refuses no list.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from pyrokernel.errors import SettingsError

__all__ = ["SEEN", "newest_seen", "refuse_older", "seen_words"]

SEEN = "crl.seen"

_LIST = re.compile(rb"-----BEGIN X509 CRL-----(.+?)-----END X509 CRL-----", re.DOTALL)
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_CRL_NUMBER = b"\x06\x03\x55\x1d\x14\x04"
"""In DER: the object identifier 2.5.29.20 (RFC 5280, section 5.2.3), and the tag of its octets."""


def refuse_older(directory: Path) -> None:
    """Refuse the list of an identity directory if a newer one was there before.

    The signature is not looked at: whoever uses the list does that.

    Raises:
        SettingsError: It is older, damaged, or gone.
    """
    seen = newest_seen(directory)
    if not seen:
        return
    file = directory / "crl.pem"
    try:
        number = _number_in(file.read_bytes())
    except FileNotFoundError:
        raise SettingsError(
            f"{file} is gone, and number {seen} of it was there; copy crl.pem anew from where the authority lies"
        ) from None
    if not number:
        raise SettingsError(
            f"{file} is damaged, or has no number, and number {seen} of it was there before; copy crl.pem anew from "
            "where the authority lies"
        )
    if number < seen:
        raise SettingsError(
            f"{file} is number {number} of the list of what was revoked, and number {seen} was there before; copy "
            "crl.pem anew from where the authority lies"
        )


def newest_seen(directory: Path) -> int:
    """Return the number of the newest list that was checked in an identity directory, 0 for none.

    Raises:
        SettingsError: The file that says so is damaged, or that with the certificate of the authority.
    """
    file = directory / SEEN
    try:
        told = json.loads(file.read_bytes())
        authority, number = told["authority"], int(told["number"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise SettingsError(
            f"{file} is damaged ({error}); copy crl.pem anew from where the authority lies, then remove {file}"
        ) from error
    return number if authority == _fingerprint(directory) else 0  # lists of another authority have other numbers


def seen_words(directory: Path, number: int) -> bytes:
    """Return what the file says of a list with a number, by the authority of an identity directory.

    Raises:
        SettingsError: There is no certificate of one.
    """
    return json.dumps({"authority": _fingerprint(directory), "number": number}).encode()


def _fingerprint(directory: Path) -> str:
    """Return which authority it is. OpenSSL takes the first certificate in the file, whatever stands around it."""
    file = directory / "ca.pem"
    der = _first(_CERTIFICATE, file.read_bytes())
    if not der:
        raise SettingsError(f"{file} holds no certificate of an authority; copy ca.pem of your mesh there")
    return hashlib.sha256(der).hexdigest()


def _number_in(pem: bytes) -> int:
    """Return the number of a list, 0 where it has none or is damaged."""
    der = _first(_LIST, pem)
    at = der.rfind(_CRL_NUMBER)
    if at < 0:
        return 0
    # The octets are one integer: length of the octets, tag, length of the integer, its bytes.
    size, begin = der[at + len(_CRL_NUMBER) + 2 :][:1], at + len(_CRL_NUMBER) + 3
    return int.from_bytes(der[begin : begin + int.from_bytes(size, "big")], "big")


def _first(kind: re.Pattern[bytes], pem: bytes) -> bytes:
    """Return what the first block of a kind has in it, nothing where there is none or it is damaged."""
    found = kind.search(pem)
    try:
        return base64.b64decode(found[1]) if found else b""
    except ValueError:
        return b""
