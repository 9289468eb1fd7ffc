"""What the policy gives to whom, found out beside the loop, which moves everybody's bytes. Runs in the gateway process.

The policy's file is looked at once a second, whoever is here, on a thread of its own. A plugin is asked once for
everybody who is the same user, from the same machine, at the same kernel, and its answer holds for a second. It may
talk to a directory service and hang: then whom it was asked about is refused in the end. Of the threads that ask, one
certificate has a quarter: what hangs there holds up the same certificate, a host with all whom it introduces, and
others only where it hangs about four certificates at once.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

from pyrokernel.gateway.questions import ANSWER_SECONDS, Answer, Questions
from pyrokernel.loglimit import LogLimit
from pyrokernel.loop import Loop
from pyrokernel.policy import Decider, Policy, Verdict
from pyrokernel.roles import Role
from pyrokernel.wire.trust import Peer

log = logging.getLogger(__name__)

HOLD_SECONDS = 1.0
"""How long an answer holds for others who are the same."""

TOO_LATE = Verdict(Role.NOBODY, "the policy of this machine has not answered in time")

_THREADS = 64
_SHARE = 16
"""So many of them may ask for one certificate: a quarter, as of the connections."""
_FILE = "file"
"""Stands for the question about the policy's file."""

Then = Callable[[Verdict], None]


class Who(NamedTuple):
    """Of whom the policy speaks.

    Attributes:
        user, kind: Name and kind of the certificate.
        kernel: Which kernel is wanted, "" for none.
        machine: Address where it comes from, without the port.
        through: Name of the host that introduces the user, "" for none.
    """

    user: str
    kind: str
    kernel: str
    machine: str
    through: str = ""

    @property
    def peer(self) -> Peer:
        """The same as a peer, by which it is counted and called."""
        return Peer(uid=-1, user=self.user, kind=self.kind, through=self.through)


class Decisions:
    """Knows the policy, and whom it gives what; all methods belong to the loop's thread.

    Args:
        loop: In whose thread answers arrive.
        decider: Reads the file, and asks plugins.
    """

    def __init__(self, loop: Loop, decider: Decider) -> None:
        self._decider = decider
        self._policy = decider.policy
        self._known: dict[Who, tuple[float, Verdict | None]] = {}
        """When plugins were asked about whom, and what they said."""
        self._late = LogLimit(log, "the policy did not answer in time about %d more in that second")
        self._plugins = Questions(loop, _THREADS, _SHARE, self._note_late)
        self._file = Questions(loop, 1, 1, self._note_late)

    def decide(self, who: Who, address: str, then: Then, *, most: Verdict | None = None, anew: bool = False) -> None:
        """Find out what somebody may do.

        Args:
            who: Of whom.
            address: Where one of their connections comes from.
            then: Called with the verdict: at once where it is known, and in any case within `ANSWER_SECONDS`.
            most: What the host may do that introduces them; None where they have shown a certificate.
            anew: Ask also where the last answer still holds.
        """
        if most is not None and most.role is Role.NOBODY:
            then(most)
            return
        if not self._decider.has_plugins:
            then(self._weigh(None, who, most))
            return
        known = self._known.get(who)
        if known is not None and not anew and time.monotonic() - known[0] < HOLD_SECONDS:
            then(self._weigh(known[1], who, most))
            return

        def note(said: Verdict | None) -> None:
            self._known[who] = time.monotonic(), said

        def decided(answer: Answer | None) -> None:
            then(TOO_LATE if answer is None else self._weigh(answer.found, who, most))

        ask = functools.partial(self._decider.ask_plugins, who.user, who.kind, who.kernel, address)
        self._plugins.ask(who, who.peer.bearer, ask, note, decided)

    def _weigh(self, said: Verdict | None, who: Who, most: Verdict | None) -> Verdict:
        return self._policy.weigh(said, who.user, who.kind, who.kernel, most)

    def look_around(self, then: Callable[[], None]) -> None:
        """Look at the policy's file, and forget what was said of those who are gone.

        Args:
            then: Called when that is done; also where the file is on a disk that does not answer.
        """
        self._late.settle()
        now = time.monotonic()
        self._known = {who: known for who, known in self._known.items() if now - known[0] < HOLD_SECONDS}

        def note(policy: Policy) -> None:
            self._policy = policy

        self._file.ask(_FILE, _FILE, lambda: self._decider.policy, note, lambda _: then())

    def close(self) -> None:
        """Ask nobody any more."""
        self._plugins.close()
        self._file.close()

    def _note_late(self, key: Hashable) -> None:
        about = key.peer.described if isinstance(key, Who) else "its file"
        self._late.warning("the policy does not answer within %g s about %s", ANSWER_SECONDS, about)
