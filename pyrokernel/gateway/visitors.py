"""Whoever has shown a certificate: who that is, what they may do, how long they stay. Runs in the gateway process."""

from __future__ import annotations

import logging
import ssl
import time
from typing import NamedTuple

from pyrokernel.audit import AuditFile, refusals_to
from pyrokernel.errors import AccessRefusedError, PyrokernelError
from pyrokernel.gateway.pump import Pump
from pyrokernel.policy import Decider
from pyrokernel.roles import Role
from pyrokernel.settings import Settings
from pyrokernel.wire.identity import Identity, kind_and_name
from pyrokernel.wire.remote import written
from pyrokernel.wire.tls import TlsSocket
from pyrokernel.wire.trust import Peer, account_of_process

log = logging.getLogger(__name__)


class Visitor(NamedTuple):
    """Somebody from another machine.

    Attributes:
        peer: Who it is, and what it may do.
        kind: Of its certificate: "user" or "host".
        kernel: Which kernel it wanted, "" for none.
        serial: Number of the certificate.
        until: Unix time at which that ends.
    """

    peer: Peer
    kind: str
    kernel: str
    serial: int
    until: float


class Visitors:
    """What certificates are worth here, and the connections of those that were shown.

    Args:
        settings: Where identity and policy are.

    Raises:
        SettingsError: The identity, or the policy, cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._policy = Decider(settings, account_of_process())
        self._on_refused = refusals_to(AuditFile.beside(settings), {"object": "gateway"})
        self._here: dict[Pump, Visitor] = {}
        self._revoked: frozenset[int] = frozenset()
        self._load()

    def _load(self) -> None:
        self.identity = Identity.load(self._settings.host_certs_dir, "host")
        self.context: ssl.SSLContext = self.identity.server_context()
        self._written = written(self.identity)
        self._revoked = self._read_revoked()

    def recognise(self, sock: TlsSocket, address: str, kernel: str) -> Visitor:
        """Return who is at the other end of a connection.

        Args:
            sock: After its handshake.
            address: Where it comes from.
            kernel: Which kernel it wants, "" for none.

        Raises:
            AccessRefusedError: It is nobody to whom the policy gives anything.
        """
        cert = sock.getpeercert()
        kind, name = kind_and_name(cert)
        role = self._policy.role_of(name, kind, kernel, address)
        peer = Peer(uid=-1, role=role, user=name, kind=kind, address=address)
        if role is Role.NOBODY:
            self._on_refused(peer, f"kernel {kernel}" if kernel else "a connection", Role.OBSERVER)
            raise AccessRefusedError(
                f"the policy of this machine gives {kind} {name} no role; an admin can, in {self._settings.policy_file}"
            )
        serial = int(str(cert["serialNumber"]), 16)
        if serial in self._revoked:
            self._on_refused(peer, "a connection with a revoked certificate", Role.OBSERVER)
            raise AccessRefusedError(f"the certificate of {kind} {name} was revoked; ask for a new one")
        until = float(ssl.cert_time_to_seconds(str(cert["notAfter"])))
        return Visitor(peer, kind, kernel, serial, until)

    def note(self, pump: Pump, visitor: Visitor) -> None:
        """Remember whose connection this is."""
        self._here[pump] = visitor

    def forget(self, pump: Pump) -> None:
        """It has ended."""
        self._here.pop(pump, None)

    def unwelcome(self) -> list[Pump]:
        """Return the connections whose certificates or roles have ended; takes up what is new on disk first."""
        if written(self.identity) != self._written:
            try:
                self._load()
            except (PyrokernelError, OSError) as error:
                # Half copied, say: what was good goes on being good, and is looked at again.
                log.warning("the identity was changed and cannot be used: %s", error)
        now = time.time()
        found = []
        for pump, visitor in self._here.items():
            peer = visitor.peer
            if visitor.serial in self._revoked:
                why = "the certificate was revoked"
            elif visitor.until < now:
                why = "the certificate has expired"
            elif self._policy.role_of(peer.user, visitor.kind, visitor.kernel, peer.address) is not peer.role:
                why = "the policy gives another role now"
            else:
                continue
            log.warning("%s at %s has to go: %s", peer.user, peer.address, why)
            found.append(pump)
        return found

    def _read_revoked(self) -> frozenset[int]:
        if not self.identity.crl_file.exists():
            return frozenset()
        from pyrokernel.certs.crl import read_revoked  # loads `cryptography`, for those who have revoked something

        return read_revoked(self.identity.crl_file.read_bytes(), self.identity.ca_file.read_bytes())
