"""What the policy gives to whom, found out beside the loop, which moves everybody's bytes. Runs in the gateway process.

The policy's file is looked at once a second, whoever is here. A plugin is asked once for everybody who is the same
user, from the same machine, at the same kernel, and its answer holds for a second. It may talk to a directory service
and hang: then it holds up whom it was asked about, who is refused in the end, and nobody else.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pyrokernel.loop import Loop, Timer
from pyrokernel.policy import Decider, Policy, Said, Verdict
from pyrokernel.roles import Role

log = logging.getLogger(__name__)

ANSWER_SECONDS = 3.0
"""Whom a plugin has said nothing of by then is refused."""

HOLD_SECONDS = 1.0
"""How long an answer holds for others who are the same."""

TOO_LATE = Verdict(Role.NOBODY, "the policy of this machine has not answered in time")

_THREADS = 16
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


class _Question:
    """One that somebody waits for; each is asked once at a time."""

    def __init__(self, timer: Timer, note: Callable[[Any], None]) -> None:
        self.timer, self.note = timer, note
        self.then: list[Callable[[Any], None]] = []
        self.is_late = False


class Decisions:
    """Knows the policy, and whom it gives what; all methods belong to the loop's thread.

    Args:
        loop: In whose thread answers arrive.
        decider: Reads the file, and asks plugins.
    """

    def __init__(self, loop: Loop, decider: Decider) -> None:
        self._loop, self._decider = loop, decider
        self._policy = decider.policy
        self._known: dict[Who, tuple[float, Verdict]] = {}
        self._questions: dict[object, _Question] = {}
        self._asked: queue.SimpleQueue[tuple[object, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads = 0

    def decide(self, who: Who, address: str, then: Then, *, anew: bool = False) -> None:
        """Find out what somebody may do.

        Args:
            who: Of whom.
            address: Where one of their connections comes from.
            then: Called with the verdict: at once where it is known, and in any case within `ANSWER_SECONDS`.
            anew: Ask also where the last answer still holds.
        """
        if not self._decider.has_plugins:
            then(self._weigh(Said(), who))
            return
        since, verdict = self._known.get(who, (0.0, None))
        if verdict is not None and not anew and time.monotonic() - since < HOLD_SECONDS:
            then(verdict)
            return

        def note(said: Said) -> None:
            self._known[who] = time.monotonic(), self._weigh(said, who)

        def decided(said: Said | None) -> None:
            then(TOO_LATE if said is None else self._weigh(said, who))

        ask = functools.partial(self._decider.ask_plugins, who.user, who.kind, who.kernel, address, who.through)
        self._ask(who, ask, note, decided)

    def _weigh(self, said: Said, who: Who) -> Verdict:
        return self._policy.weigh(said, who.user, who.kind, who.kernel, who.through)

    def look_around(self, then: Callable[[], None]) -> None:
        """Look at the policy's file, and forget what was said of those who are gone.

        Args:
            then: Called when that is done; also where the file is on a disk that does not answer.
        """
        now = time.monotonic()
        self._known = {who: known for who, known in self._known.items() if now - known[0] < HOLD_SECONDS}

        def note(policy: Policy) -> None:
            self._policy = policy

        self._ask(_FILE, lambda: self._decider.policy, note, lambda _: then())

    def close(self) -> None:
        """Let the threads go that are not asked anything."""
        for _ in range(self._threads):
            self._asked.put(None)

    def _ask(
        self, key: object, work: Callable[[], Any], note: Callable[[Any], None], then: Callable[[Any], None]
    ) -> None:
        """Have a thread work; call `then` in the loop with what came of it, or with None if that takes too long.

        What came of it is noted first: whoever asks from then on is not to have it asked again.
        """
        question = self._questions.get(key)
        if question is None:
            question = _Question(self._loop.after(ANSWER_SECONDS, lambda: self._on_late(key)), note)
            self._questions[key] = question
            self._asked.put((key, work))
            if self._threads < min(_THREADS, len(self._questions)):
                self._threads += 1
                # Not of a pool: Python waits for the threads of those at its end, and a plugin may hang for ever.
                threading.Thread(target=self._work, name="pyrokernel-policy", daemon=True).start()
        if question.is_late:
            then(None)
        else:
            question.then.append(then)

    def _work(self) -> None:
        while True:
            asked = self._asked.get()
            if asked is None:
                return
            key, work = asked
            try:
                found = work()
            except Exception:
                log.exception("the policy cannot be asked")  # whoever waits is refused
                found = None
            self._loop.call(functools.partial(self._on_answer, key, found))

    def _on_answer(self, key: object, found: Any) -> None:
        question = self._questions.pop(key)
        question.timer.cancel()
        if found is not None:
            question.note(found)
        self._tell(question.then, found)

    def _on_late(self, key: object) -> None:
        question = self._questions[key]
        question.is_late = True
        waiting, question.then = question.then, []
        log.warning("the policy does not answer within %g s about %s", ANSWER_SECONDS, _shown(key))
        self._tell(waiting, None)

    def _tell(self, waiting: list[Callable[[Any], None]], found: Any) -> None:
        for then in waiting:
            self._loop.call(functools.partial(then, found))  # each by itself: a mistake in one is not the others'


def _shown(key: object) -> str:
    return f"{key.kind} {key.user}" if isinstance(key, Who) else "its file"
