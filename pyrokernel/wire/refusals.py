"""What a handshake that failed means, in one line that says what to do. Runs in every process.

TLS tells the two ends different things: whoever refuses knows why, and the other is sent a word (an alert). Both are
explained here; where the reason lies in one's own certificate or clock, these are looked at.
"""

from __future__ import annotations

import datetime
import socket
import ssl
import time
from collections.abc import Callable

from pyrokernel.errors import PyrokernelError
from pyrokernel.settings import split_address
from pyrokernel.texts import one_line, span
from pyrokernel.wire.identity import Identity, PeerCert, kind_and_name, names_in
from pyrokernel.wire.socks import connect_by
from pyrokernel.wire.tls import TlsSocket

__all__ = ["explain", "explain_dial", "look_at", "shown_badly", "trouble_of"]

_LONGEST_LINE = 2000

# X509_V_ERR_* of <openssl/x509_vfy.h>, as in `verify_code`.
_FOREIGN = {2, 7, 18, 19, 20, 21, 27, 30, 31}
_NO_CRL, _CRL_FORGED, _NOT_YET, _EXPIRED, _CRL_NOT_YET, _CRL_EXPIRED, _REVOKED = 3, 8, 9, 10, 11, 12, 23
_PURPOSE, _HOST_NAME, _ADDRESS = 26, 62, 64

_BAD_CERTIFICATES = {
    **dict.fromkeys(_FOREIGN, "a certificate of another authority"),
    _EXPIRED: "an expired certificate",
    _NOT_YET: "a certificate that is not valid yet",
    _REVOKED: "a revoked certificate",
}

_PLAINTEXT = {
    "HTTP_REQUEST",
    "HTTPS_PROXY_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNEXPECTED_MESSAGE",
    "UNKNOWN_PROTOCOL",
    "WRONG_VERSION_NUMBER",
}
_OLD = {"NO_PROTOCOLS_AVAILABLE", "TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW"}


def explain(error: BaseException, where: str, identity: Identity | None = None, shown: PeerCert | None = None) -> str:
    """Say in one line what a failed handshake means and what to do.

    Args:
        error: What the handshake raised, or the first reading or writing behind it.
        where: Address of the other end.
        identity: One's own.
        shown: Certificate of the other end, if it is known.
    """
    text = _meaning(error, where, identity, shown)
    return one_line(text or f"{where}: {_reason(error)}", _LONGEST_LINE)


def explain_dial(error: BaseException, address: str, identity: Identity, deadline: float, via: str = "") -> str:
    """Explain why a server cannot be reached; looks at its certificate once more where that says more.

    Args:
        error: What the handshake raised, or the first reading or writing behind it.
        address: "HOST:PORT".
        identity: One's own.
        deadline: Of whoever dials: the look is over by then.
        via: As for `look_at`.
    """
    code = getattr(error, "verify_code", 0)
    told_more = code in (_NOT_YET, _EXPIRED, _HOST_NAME, _ADDRESS)
    return explain(error, address, identity, look_at(address, identity, deadline, via) if told_more else None)


def look_at(address: str, identity: Identity, deadline: float, via: str = "") -> PeerCert | None:
    """Return the certificate of a server of the same authority, whatever its names and times; None if there is none.

    Args:
        address: "HOST:PORT".
        identity: One's own.
        deadline: When to be done with it.
        via: "HOST:PORT" of the proxy by which it is dialled, "" for none.
    """
    host, port = split_address(address)
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    try:
        context = identity.lenient_context()
        plain = connect_by(via, host, int(port), left) if via else socket.create_connection((host, int(port)), left)
        with plain:
            secured = TlsSocket(plain, context)
            secured.shake_hands(deadline)
            return secured.getpeercert()
    except (OSError, ValueError, PyrokernelError):
        return None  # the error that is explained is told all the same


def shown_badly(error: Exception) -> str:
    """Name in a few words the certificate for which a handshake was refused here, "" if it was not for that."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _BAD_CERTIFICATES.get(error.verify_code, "a certificate that is not accepted")
    if isinstance(error, ssl.SSLError) and error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "no certificate"
    return ""


def trouble_of(identity: Identity) -> str:
    """Say in one line why peers would refuse an identity as things are, "" if they would not.

    Raises:
        AccessRefusedError: Others may read the key.
        SettingsError: A file is missing or damaged.
    """
    try:
        identity.check_now()
    except ssl.SSLCertVerificationError as error:
        code, what = error.verify_code, f"the certificate of {_who(identity.cert)} in {identity.directory}"
        if code in (_EXPIRED, _NOT_YET):
            clock = f"; but first {_compare_clocks()}" if code == _NOT_YET else ""
            return one_line(
                f"{what} {_when(code, identity.cert)}; {_renew(identity.cert, 'here')}{clock}", _LONGEST_LINE
            )
        if code == _REVOKED:
            return f"{what} was revoked; whoever runs the authority can issue another"
        return explain(error, str(identity.directory), identity)
    return ""


def _meaning(error: BaseException, where: str, identity: Identity | None, shown: PeerCert | None) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _refused_here(error, where, identity, shown)
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError, EOFError)):
        return _closed(where, identity)
    if isinstance(error, TimeoutError):
        return f"{where} does not answer a TLS handshake in time: it may speak no TLS. {_without_tls()}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if reason in _PLAINTEXT:
            return f"{where} speaks no TLS, and plaintext is refused. {_without_tls()}"
        if reason in _OLD:
            return f"{where} speaks no TLS 1.3, and older versions are refused; update its Python and OpenSSL"
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return f"{where} shows no certificate; it needs an identity: pyrokernel certs issue NAME, copied to it"
        if refused := _ALERTS.get(reason):
            damage = _damage(identity)
            return f"{where} refuses the certificate here: {damage}" if damage else refused(where, identity)
    return ""


def _closed(where: str, identity: Identity | None) -> str:
    """Explain a connection that ended: the alert that says why may be lost on the way."""
    try:
        own = _damage(identity) or (trouble_of(identity) if identity else "")
    except PyrokernelError as error:
        own = str(error)
    if own:
        return f"{where} closed the connection while shaking hands: {own}"
    return (
        f"{where} closed the connection while shaking hands: it speaks no TLS, or refuses what {_directory(identity)} "
        f"says; see its log. {_without_tls()}"
    )


def _refused_here(
    error: ssl.SSLCertVerificationError, where: str, identity: Identity | None, shown: PeerCert | None
) -> str:
    """Explain why the certificate of the other end is refused."""
    code, whose = error.verify_code, f"the certificate of {_who(shown)}" if shown else "a certificate"
    if code in _FOREIGN:
        return (
            f"{where} shows a certificate that {_authority(identity)} did not sign; both ends need identities of one "
            "authority: where that lies, run pyrokernel certs issue-host HOST (or issue USER), and copy what it names"
        )
    if code in (_EXPIRED, _NOT_YET):
        return f"{where} shows {whose} that {_when(code, shown)}; {_renew(shown)}{_clock(code, identity)}"
    if code in (_HOST_NAME, _ADDRESS):
        return _wrong_name(where, shown)
    if code == _REVOKED:
        return (
            f"{where} shows a certificate that was revoked; issue another where its authority lies, and copy it there"
        )
    if code == _PURPOSE:
        return (
            f"{where} shows a certificate of the wrong kind, a user's where a host's belongs, say; servers "
            "use one of pyrokernel certs issue-host, users one of pyrokernel certs issue"
        )
    if code in (_NO_CRL, _CRL_FORGED, _CRL_NOT_YET, _CRL_EXPIRED):
        file = identity.crl_file if identity else "crl.pem"
        return (
            f"{where} cannot be checked: {file} is not the list of its authority, or not of this time "
            f"({error.verify_message}); copy crl.pem from where the authority lies"
        )
    return f"{where} shows a certificate that is refused: {error.verify_message}"


def _wrong_name(where: str, shown: PeerCert | None) -> str:
    meant = split_address(where)[0] or where
    if not shown:
        return (
            f"the certificate of {where} is not for {meant}; use a name that it is for, or where its authority lies: "
            f"pyrokernel certs renew HOST --name {meant}"
        )
    name, names = _who(shown).rpartition(" ")[2], ", ".join(names_in(shown)) or "no host"
    return (
        f"{where} shows the certificate of {_who(shown)}, which is for {names} and not for {meant}; use one of its "
        f"names, or where its authority lies: pyrokernel certs renew {name} --name {meant}"
    )


def _when(code: int, cert: PeerCert | None) -> str:
    if not cert:
        return "has expired" if code == _EXPIRED else "is not valid yet"
    now = time.time()
    if code == _EXPIRED:
        end = ssl.cert_time_to_seconds(cert["notAfter"])
        return f"expired {span(max(now - end, 0))} ago ({_utc(end)})"
    begin = ssl.cert_time_to_seconds(cert["notBefore"])
    return f"is valid only in {span(max(begin - now, 0))} ({_utc(begin)})"


def _renew(cert: PeerCert | None, to: str = "there") -> str:
    name = _who(cert).rpartition(" ")[2] if cert else "NAME"
    return f"renew it where its authority lies (pyrokernel certs renew {name}) and copy it {to}"


def _clock(code: int, identity: Identity | None) -> str:
    """Name the clock where that is the likelier reason: certificates are made to be valid at once."""
    own = _own(identity)
    if code != _NOT_YET and (own is None or _is_current(own)):
        return ""
    return f"; but first {_compare_clocks()}"


def _own(identity: Identity | None) -> PeerCert | None:
    """Return one's own certificate; None where there is none that can be used."""
    return None if identity is None or _damage(identity) else identity.cert


def _damage(identity: Identity | None) -> str:
    """Say why an identity can be used for nothing, "" if it can."""
    try:
        return "" if identity is None or identity.cert else "it is empty"
    except PyrokernelError as error:
        return str(error)


def _is_current(cert: PeerCert) -> bool:
    begin, end = (ssl.cert_time_to_seconds(cert[edge]) for edge in ("notBefore", "notAfter"))
    return begin <= time.time() <= end


def _compare_clocks() -> str:
    return f"compare the clocks (date -u): the one here says {_utc(time.time())}"


def _refused_as_foreign(where: str, identity: Identity | None) -> str:
    return (
        f"{where} does not know {_authority(identity)}, and both ends need identities of one; take one of its "
        f"authority (where that lies: pyrokernel certs issue NAME), copied to {_directory(identity)}, or give it one "
        "of yours"
    )


def _refused_as_expired(where: str, identity: Identity | None) -> str:
    cert = _own(identity)
    if cert and _is_current(cert):
        end = _utc(ssl.cert_time_to_seconds(cert["notAfter"]))
        return (
            f"{where} refuses the certificate in {_directory(identity)} as expired, and by the clock here it is valid "
            f"until {end}: {_compare_clocks()}"
        )
    return (
        f"the certificate in {_directory(identity)} {_when(_EXPIRED, cert)}, and {where} refuses it; "
        f"{_renew(cert, 'here')}"
    )


def _refused_as_bad(where: str, identity: Identity | None) -> str:
    """Explain the alert for a certificate that is not valid yet, and for others that OpenSSL has no word for."""
    cert = _own(identity)
    begin = f", valid from {_utc(ssl.cert_time_to_seconds(cert['notBefore']))} on" if cert else ""
    return f"{where} refuses the certificate in {_directory(identity)}{begin}: {_compare_clocks()}, and see its log"


_ALERTS: dict[str, Callable[[str, Identity | None], str]] = {
    "TLSV1_ALERT_UNKNOWN_CA": _refused_as_foreign,
    "TLSV1_ALERT_DECRYPT_ERROR": _refused_as_foreign,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _refused_as_expired,
    "SSLV3_ALERT_BAD_CERTIFICATE": _refused_as_bad,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": lambda where, identity: (
        f"the certificate in {_directory(identity)} was revoked: {where} refuses it; whoever runs the authority can "
        "issue another"
    ),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": lambda where, identity: (
        f"{where} refuses the certificate in {_directory(identity)}: it is of the wrong kind; users "
        "connect with one of pyrokernel certs issue, hosts with one of issue-host"
    ),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": lambda where, identity: (
        f"{where} wants a certificate, and none was shown; get an identity from whoever runs its authority: "
        f"pyrokernel certs issue NAME, copied to {_directory(identity)}"
    ),
}
"""What the other end says of one's own certificate."""


def _who(cert: PeerCert | None) -> str:
    try:
        return " ".join(kind_and_name(cert or {}))
    except PyrokernelError:
        return "somebody else's tools"


def _authority(identity: Identity | None) -> str:
    if identity is None:
        return "the authority of this mesh"
    try:
        common = [value for part in identity.ca.get("subject", ()) for key, value in part if key == "commonName"]
    except PyrokernelError:
        common = []
    return f"the authority {common[0]} ({identity.ca_file})" if common else f"the authority of {identity.ca_file}"


def _directory(identity: Identity | None) -> str:
    return str(identity.directory) if identity else "the identity directory (setting certs)"


def _without_tls() -> str:
    return (
        'Is it a stock Pyro5 tool without its TLS variables? There: eval "$(pyrokernel certs env)", then start it again'
    )


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _reason(error: BaseException) -> str:
    return getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
