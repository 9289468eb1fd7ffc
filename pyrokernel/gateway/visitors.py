"""Whoever has shown a certificate: who that is, what they may do, how long they stay. Runs in the gateway process."""

from __future__ import annotations

import dataclasses
import logging
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from pyrokernel.audit import AuditFile, refusals_to
from pyrokernel.errors import AccessRefusedError, PyrokernelError, SettingsError
from pyrokernel.gateway.pump import Pump
from pyrokernel.policy import HOST, USER, Decider
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.wire.exposing import words_to_check
from pyrokernel.wire.identity import Identity, kind_and_name
from pyrokernel.wire.introduction import introduced, unpack
from pyrokernel.wire.refusals import shown_badly
from pyrokernel.wire.remote import written
from pyrokernel.wire.tls import TlsSocket
from pyrokernel.wire.trust import Peer, account_of_process

log = logging.getLogger(__name__)


class Visitor(NamedTuple):
    """Somebody from another machine.

    Attributes:
        shown: Who it is by its certificate, and what that may do.
        peer: Whom the connection is for: the same, or whom that host introduces.
        allowed: What the policy gives to whom it is for.
        kernel: Which kernel it wanted, "" for none.
        serial: Number of the certificate.
        until: Unix time at which that ends.
    """

    shown: Peer
    peer: Peer
    allowed: Role
    kernel: str
    serial: int
    until: float


class Visitors:
    """What certificates are worth here, and the connections of those that were shown.

    Args:
        settings: Where identity and policy are.
        share: So many connections one certificate may have.

    Raises:
        SettingsError: The identity, or the policy, cannot be used.
    """

    def __init__(self, settings: Settings, share: int) -> None:
        self._settings = settings
        self._share = share
        self._counts: Counter[tuple[str, str]] = Counter()
        self._troubles: tuple[int, ...] = ()
        self._policy = Decider(settings, account_of_process())
        self._on_refused = refusals_to(AuditFile.beside(settings), {"object": "gateway"}, logs=False)
        self._here: dict[Pump, Visitor] = {}
        self._revoked: frozenset[int] = frozenset()
        self._load()

    def _load(self) -> None:
        identity = Identity.load(self._settings.host_certs_dir, "host")
        now = written(identity)
        context, revoked = identity.server_context(), _read_revoked(identity)
        # All of it or nothing: a list that cannot be used must not come without the rest, nor the rest without it.
        self.identity, self.context, self._revoked, self._written = identity, context, revoked, now

    def recognise(self, sock: TlsSocket, address: str, kernel: str, annotations: bytes | memoryview = b"") -> Visitor:
        """Return who is at the other end of a connection: a host acts for its users, a user for nobody.

        Args:
            sock: After its handshake.
            address: Where it comes from.
            kernel: Which kernel it wants, "" for none.
            annotations: Of the first message.

        Raises:
            AccessRefusedError: It is nobody to whom the policy gives anything, or a host that says it is another one.
            ProtocolError: The annotations of a host are malformed.
        """
        cert = sock.getpeercert()
        kind, name = kind_and_name(cert)
        role = self._policy.role_of(name, kind, kernel, address)
        peer = Peer(uid=-1, role=role, user=name, kind=kind, address=address)
        self._check_role(peer, role, kernel)
        serial = int(str(cert["serialNumber"]), 16)
        if serial in self._revoked:
            self._on_refused(peer, "a connection with a revoked certificate", Role.OBSERVER)
            raise AccessRefusedError(f"the certificate of {kind} {name} was revoked; ask for a new one")
        if self._counts[kind, name] >= self._share:
            raise AccessRefusedError(
                f"{kind} {name} has {self._share} connections to this machine, and no certificate has more: close some"
            )
        until = float(ssl.cert_time_to_seconds(str(cert["notAfter"])))
        visitor = Visitor(peer, peer, role, kernel, serial, until)
        return self._acting(visitor, unpack(annotations)) if kind == HOST else visitor

    def _acting(self, visitor: Visitor, annotations: Mapping[bytes, bytes]) -> Visitor:
        """Return a host's visit as that of whom the host introduces, if it does."""
        host = visitor.shown
        peer = dataclasses.replace(introduced(host, annotations), through="")
        if peer.kind == HOST:
            if peer.user != host.user:
                raise AccessRefusedError(
                    f"host {host.user} says that it is host {peer.user}, which only a certificate of that shows"
                )
            return visitor._replace(peer=peer)
        allowed = self._policy.role_of(peer.user, USER, visitor.kernel, host.address, host.user)
        peer = dataclasses.replace(peer, role=min(peer.role, allowed), through=host.user)
        self._check_role(peer, allowed, visitor.kernel)
        return visitor._replace(peer=peer, allowed=allowed)

    def _check_role(self, peer: Peer, allowed: Role, kernel: str) -> None:
        """Refuse somebody to whom the policy gives nothing."""
        if allowed is Role.NOBODY:
            self._on_refused(peer, f"kernel {kernel}" if kernel else "a connection", Role.OBSERVER)
            introducer = f", whom host {peer.through} introduces," if peer.through else ""
            raise AccessRefusedError(
                f"the policy of this machine gives {peer.kind} {peer.user}{introducer} no role; an admin of it can "
                f"(`pyrokernel policy check {words_to_check(peer)}` there says what it gives)"
            )

    def note_failure(self, error: Exception, address: str) -> None:
        """Write down that a handshake failed, if that was for a certificate; whose it is TLS does not say then."""
        shown = shown_badly(error)
        if shown:
            self._on_refused(Peer(uid=-1, address=address), f"a connection with {shown}", Role.OBSERVER)

    def note(self, pump: Pump, visitor: Visitor) -> None:
        """Remember whose connection this is."""
        self._here[pump] = visitor
        self._counts[visitor.shown.kind, visitor.shown.user] += 1

    def forget(self, pump: Pump) -> None:
        """It has ended."""
        visitor = self._here.pop(pump, None)
        if visitor is not None:
            key = visitor.shown.kind, visitor.shown.user
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]

    def unwelcome(self) -> list[Pump]:
        """Return the connections whose certificates or roles have ended; takes up what is new on disk first."""
        self._take_up_news()
        now = time.time()
        found = []
        for pump, visitor in self._here.items():
            peer = visitor.peer
            if visitor.serial in self._revoked:
                why = "the certificate was revoked"
            elif visitor.until < now:
                why = "the certificate has expired"
            elif (
                self._policy.role_of(peer.user, peer.kind, visitor.kernel, visitor.shown.address, peer.through)
                is not visitor.allowed
            ):
                why = "the policy gives another role now"
            else:
                continue
            log.warning("%s at %s has to go: %s", peer.author, peer.address, why)
            self._on_refused(peer, f"a connection to stay open: {why}", Role.OBSERVER)
            found.append(pump)
        return found

    def _take_up_news(self) -> None:
        """Read the identity anew if it was written."""
        now = written(self.identity)
        if now == self._written:
            return
        try:
            self._load()
        except (PyrokernelError, OSError) as error:
            # Half copied, say: what was good goes on being good, and is looked at again.
            if now != self._troubles:
                log.warning("the identity was changed and cannot be used, what it was holds on: %s", error)
            self._troubles = now


def shown_name(sock: TlsSocket) -> str:
    """Return kind and name of a certificate that was shown, for people."""
    try:
        return " ".join(kind_and_name(sock.getpeercert()))
    except AccessRefusedError:
        return "somebody"


def _read_revoked(identity: Identity) -> frozenset[int]:
    """Return the numbers of what was revoked.

    Raises:
        SettingsError: The list is not one of this authority, or what reads it is not installed.
    """
    if not identity.crl_file.exists():
        return frozenset()
    try:
        from pyrokernel.certs.crl import read_revoked  # loads `cryptography`, for those who have revoked something

        return read_revoked(identity.crl_file.read_bytes(), identity.ca_file.read_bytes())
    except ImportError as error:
        raise SettingsError(
            f"{identity.crl_file} is read by cryptography, which is not here ({error}): pip install pyrokernel[network]"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{identity.crl_file} cannot be used: {error}; copy it anew from its authority") from error
