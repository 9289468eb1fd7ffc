"""Whoever has shown a certificate: who that is, what they may do, how long they stay. Runs in the gateway process."""

from __future__ import annotations

import dataclasses
import functools
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from pyrokernel.audit import AuditFile, refusals_to
from pyrokernel.errors import AccessRefusedError, PyrokernelError, SettingsError
from pyrokernel.gateway.decisions import TOO_LATE, Decisions, Who
from pyrokernel.gateway.handing import Handing
from pyrokernel.gateway.pump import Pump
from pyrokernel.loop import Loop
from pyrokernel.policy import HOST, Decider, Verdict
from pyrokernel.roles import Role
from pyrokernel.settings import Settings, split_address
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

    @property
    def who(self) -> Who:
        """Of whom the policy speaks: whom the connection is for."""
        return self._who(self.peer)

    @property
    def bearer(self) -> Who:
        """Who has shown the certificate."""
        return self._who(self.shown)

    def _who(self, peer: Peer) -> Who:
        return Who(peer.user, peer.kind, self.kernel, split_address(self.shown.address)[0], peer.through)


Then = Callable[[Visitor | PyrokernelError], None]


class Visitors:
    """What certificates are worth here, and the connections of those that were shown.

    Args:
        loop: In whose thread all of this happens.
        settings: Where identity and policy are.
        share: So many connections one certificate may have.
        dismiss: Told of whom no kernel is to begin anything more.

    Raises:
        SettingsError: The identity, or the policy, cannot be used.
    """

    def __init__(self, loop: Loop, settings: Settings, share: int, dismiss: Callable[[Peer], None]) -> None:
        self._settings = settings
        self._share = share
        self._dismiss = dismiss
        self._counts: Counter[str] = Counter()
        """By identity of the certificate, the connections that stand."""
        self._undecided: Counter[str] = Counter()
        """And those of which the policy has not said yet what they may do."""
        self._troubles: tuple[int, ...] = ()
        self._decisions = Decisions(loop, Decider(settings, account_of_process()))
        self._on_refused = refusals_to(AuditFile.beside(settings), {"object": "gateway"}, logs=False)
        self._here: dict[Pump | Handing, Visitor] = {}
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

        What the policy gives is not known yet: `peer.role` is what whoever it is claims.

        Args:
            sock: After its handshake.
            address: Where it comes from.
            kernel: Which kernel it wants, "" for none.
            annotations: Of the first message.

        Raises:
            AccessRefusedError: The certificate is none of `pyrokernel certs`, or a host says that it is another one.
            ProtocolError: The annotations of a host are malformed.
        """
        cert = sock.getpeercert()
        kind, name = kind_and_name(cert)
        shown = Peer(uid=-1, role=Role.ADMIN, user=name, kind=kind, address=address)
        peer = shown
        if kind == HOST:
            # Where from, and by which host, is not what that host says.
            peer = dataclasses.replace(introduced(shown, unpack(annotations)), through="", address=address)
            if peer.kind != HOST:
                peer = dataclasses.replace(peer, through=name)
            elif peer.user != name:
                raise AccessRefusedError(
                    f"host {name} says that it is host {peer.user}, which only a certificate of that shows"
                )
        until = float(ssl.cert_time_to_seconds(str(cert["notAfter"])))
        return Visitor(shown, peer, Role.NOBODY, kernel, int(str(cert["serialNumber"]), 16), until)

    def admit(self, visitor: Visitor, then: Then) -> None:
        """Ask the policy what somebody may do.

        Args:
            visitor: As `recognise` returns it.
            then: Called with it and its role, at once or a moment later; or with the reason why it is refused.
        """
        try:
            self._check_revoked(visitor)
            self._check_share(visitor)
        except AccessRefusedError as error:
            then(error)
            return
        # Counted from now on: a plugin may take its time, and one certificate must not fill the machine meanwhile.
        self._undecided[visitor.shown.identity] += 1

        def decided(found: Visitor | PyrokernelError) -> None:
            _take_off(self._undecided, visitor.shown.identity)
            then(found)

        self._decisions.decide(
            visitor.bearer, visitor.shown.address, functools.partial(self._on_shown, visitor, decided)
        )

    def _on_shown(self, visitor: Visitor, then: Then, verdict: Verdict) -> None:
        """Go on with what whoever has shown the certificate may do."""
        shown = dataclasses.replace(visitor.shown, role=verdict.role)
        try:
            self._check_role(shown, verdict, visitor.kernel)
        except AccessRefusedError as error:
            then(error)
            return
        visitor = visitor._replace(shown=shown)
        if visitor.peer.through:
            decided = functools.partial(self._on_peer, visitor, then)
            self._decisions.decide(visitor.who, visitor.shown.address, decided, most=verdict)
        else:
            self._on_peer(visitor, then, verdict)

    def _on_peer(self, visitor: Visitor, then: Then, verdict: Verdict) -> None:
        """Go on with what whom the connection is for may do: no more than was claimed, and than the host may."""
        role = min(visitor.peer.role, visitor.shown.role, verdict.role)
        peer = dataclasses.replace(visitor.peer, role=role)
        try:
            self._check_revoked(visitor)
            self._check_role(peer, verdict, visitor.kernel)
        except AccessRefusedError as error:
            then(error)
            return
        then(visitor._replace(peer=peer, allowed=verdict.role))

    def _check_revoked(self, visitor: Visitor) -> None:
        """Refuse a certificate that was revoked."""
        if visitor.serial in self._revoked:
            self._on_refused(visitor.shown, "a connection with a revoked certificate", Role.OBSERVER)
            raise AccessRefusedError(f"the certificate of {visitor.shown.described} was revoked; ask for a new one")

    def _check_share(self, visitor: Visitor) -> None:
        """Refuse a certificate that has enough connections, whether they are decided about or not."""
        shown = visitor.shown
        if self._counts[shown.identity] + self._undecided[shown.identity] >= self._share:
            raise AccessRefusedError(
                f"{shown.described} has {self._share} connections to this machine, and no certificate has more: "
                "close some"
            )

    def _check_role(self, peer: Peer, verdict: Verdict, kernel: str) -> None:
        """Refuse somebody to whom the policy gives nothing."""
        if verdict.role is not Role.NOBODY:
            return
        self._on_refused(peer, f"kernel {kernel}" if kernel else "a connection", Role.OBSERVER)
        if verdict is TOO_LATE:
            raise AccessRefusedError(f"{verdict.line} about {peer.described}; try again, or tell an admin of it")
        raise AccessRefusedError(
            f"the policy of this machine gives {peer.described} no role; an admin of it can "
            f"(`pyrokernel policy check {words_to_check(peer)}` there says what it gives)"
        )

    def note_failure(self, error: Exception, address: str) -> None:
        """Write down that a handshake failed, if that was for a certificate; whose it is TLS does not say then."""
        shown = shown_badly(error)
        if shown:
            self._on_refused(Peer(uid=-1, address=address), f"a connection with {shown}", Role.OBSERVER)

    def note(self, pump: Pump | Handing, visitor: Visitor) -> None:
        """Remember whose connection this is."""
        self._here[pump] = visitor
        self._counts[visitor.shown.identity] += 1

    def forget(self, pump: Pump | Handing) -> None:
        """It has ended."""
        visitor = self._here.pop(pump, None)
        if visitor is not None:
            _take_off(self._counts, visitor.shown.identity)

    def look_around(self) -> None:
        """Take up what is new on disk, and hang up on those whose certificates or roles have ended."""
        self._take_up_news()
        now = time.time()
        for pump, visitor in list(self._here.items()):
            if visitor.serial in self._revoked:
                self._send_away(pump, visitor, "the certificate was revoked", dismissed=True)
            elif visitor.until < now:
                self._send_away(pump, visitor, "the certificate has expired")
        self._decisions.look_around(self._compare_roles)

    def close(self) -> None:
        """Ask nobody any more."""
        self._decisions.close()

    def _compare_roles(self) -> None:
        """Ask anew what those may do who are here: once for all connections of one, and before that of their host."""
        by_bearer: dict[Who, dict[Who, list[Pump | Handing]]] = {}
        for pump, visitor in self._here.items():
            by_bearer.setdefault(visitor.bearer, {}).setdefault(visitor.who, []).append(pump)
        for bearer, by_who in by_bearer.items():
            address = self._here[next(iter(by_who.values()))[0]].shown.address
            compare = functools.partial(self._compare_with_bearer, by_who, address)
            self._decisions.decide(bearer, address, compare, anew=True)

    def _compare_with_bearer(self, by_who: dict[Who, list[Pump | Handing]], address: str, verdict: Verdict) -> None:
        """Go on with what whoever has shown the certificate may do now."""
        for who, pumps in by_who.items():
            compare = functools.partial(self._compare, pumps)
            if who.through:
                self._decisions.decide(who, address, compare, most=verdict, anew=True)
            else:
                compare(verdict)

    def _compare(self, pumps: list[Pump | Handing], verdict: Verdict) -> None:
        """Hang up on those of somebody's connections that have another role than the policy gives now."""
        for pump in pumps:
            visitor = self._here.get(pump)
            if visitor is not None and visitor.allowed is not verdict.role:
                if verdict is TOO_LATE:
                    self._send_away(pump, visitor, verdict.line)
                    continue
                changed = f"the policy gives another role now: {verdict.role.word}, by {verdict.line}"
                self._send_away(pump, visitor, changed, dismissed=verdict.role < Role.USER)

    def _send_away(self, pump: Pump | Handing, visitor: Visitor, why: str, *, dismissed: bool = False) -> None:
        """Hang up on somebody, and write down why; where they may run nothing any more, the kernels are told."""
        log.warning("%s at %s has to go: %s", visitor.peer.author, visitor.peer.address, why)
        self._on_refused(visitor.peer, f"a connection to stay open: {why}", Role.OBSERVER)
        if dismissed:
            self._dismiss(visitor.peer)
        pump.close()

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


def _take_off(counts: Counter[str], whose: str) -> None:
    counts[whose] -= 1
    if not counts[whose]:
        del counts[whose]


def shown_name(sock: TlsSocket) -> str:
    """Return kind and name of a certificate that was shown, for people."""
    try:
        return " ".join(kind_and_name(sock.getpeercert()))
    except AccessRefusedError:
        return "somebody"


def _read_revoked(identity: Identity) -> frozenset[int]:
    """Return the numbers of what was revoked, and note that this list was seen: no older one is heeded from now on.

    Raises:
        SettingsError: The list is not one of this authority, or what reads it is not installed.
    """
    if not identity.crl_file.exists():
        return frozenset()
    try:
        from pyrokernel.certs import crl  # loads `cryptography`, for those who have revoked something

        revoked = crl.read_revoked(identity.crl_file.read_bytes(), identity.ca_file.read_bytes())
        crl.remember(identity.directory, revoked.number)
        return revoked.serials
    except ImportError as error:
        raise SettingsError(
            f"{identity.crl_file} is read by cryptography, which is not here ({error}): pip install pyrokernel[network]"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{identity.crl_file} cannot be used: {error}; copy it anew from its authority") from error
