"""Questions that may take any time, answered by threads, each once at a time. Runs in the gateway process.

Who waits for an answer is told after `ANSWER_SECONDS` that there is none; a thread that hangs goes on to hang. So one
asker has a share of the threads, and what it asks beyond that waits for its own questions, not for those of others.
"""

from __future__ import annotations

import functools
import logging
import queue
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from pyrokernel.loop import Loop, Timer

__all__ = ["ANSWER_SECONDS", "Answer", "Questions"]

log = logging.getLogger(__name__)

ANSWER_SECONDS = 3.0


class Answer(NamedTuple):
    """What came of a question, which may be None."""

    found: Any


Then = Callable[[Answer | None], None]


class _Question:
    """One that somebody waits for, or that a thread still works at."""

    def __init__(self, asker: str, work: Callable[[], Any], note: Callable[[Any], None], timer: Timer) -> None:
        self.asker, self.work, self.note, self.timer = asker, work, note, timer
        self.then: list[Then] = []
        self.is_begun = self.is_late = False


class Questions:
    """Those of one kind; all methods belong to the loop's thread.

    Args:
        loop: In whose thread answers arrive.
        threads: So many at most; one is started when it is needed.
        share: So many work for one asker at most.
        on_late: Called with the key of a question that is not answered in time.
    """

    def __init__(self, loop: Loop, threads: int, share: int, on_late: Callable[[Hashable], None]) -> None:
        self._loop, self._most, self._share, self._late = loop, threads, share, on_late
        self._open: dict[Hashable, _Question] = {}
        self._waiting: dict[str, OrderedDict[Hashable, None]] = {}
        """By asker the keys of those that no thread has begun with."""
        self._begun: Counter[str] = Counter()
        self._handed: queue.SimpleQueue[tuple[Hashable, Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads = 0

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, key: Hashable, asker: str, work: Callable[[], Any], note: Callable[[Any], None], then: Then) -> None:
        """Have a thread work, unless one does for the same key.

        Args:
            key: What the question is.
            asker: Of whose share the thread is.
            work: Returns the answer.
            note: Called with the answer before anybody hears of it, so that nobody has it asked again.
            then: Called with it; with None after `ANSWER_SECONDS`, at once where those are over for this question, and
                where the work raised.
        """
        question = self._open.get(key)
        if question is None:
            timer = self._loop.after(ANSWER_SECONDS, lambda: self._on_late(key))
            question = self._open[key] = _Question(asker, work, note, timer)
            self._waiting.setdefault(asker, OrderedDict())[key] = None
            self._begin()
        if question.is_late:
            then(None)
        else:
            question.then.append(then)

    def close(self) -> None:
        """Let the threads go that are not asked anything."""
        for _ in range(self._threads):
            self._handed.put(None)

    def _begin(self) -> None:
        """Have threads begin with what waits, first for the asker for whom the fewest work."""
        while self._begun.total() < self._most:
            able = [asker for asker in self._waiting if self._begun[asker] < self._share]
            if not able:
                return
            asker = min(able, key=self._begun.__getitem__)
            key = next(iter(self._waiting[asker]))
            self._forget_waiting(asker, key)
            self._begun[asker] += 1
            self._open[key].is_begun = True
            self._handed.put((key, self._open[key].work))
            if self._threads < self._begun.total():
                self._threads += 1
                # Not of a pool: Python waits for the threads of those at its end, and one may hang for ever.
                threading.Thread(target=self._work, name="pyrokernel-policy", daemon=True).start()

    def _forget_waiting(self, asker: str, key: Hashable) -> None:
        del self._waiting[asker][key]
        if not self._waiting[asker]:
            del self._waiting[asker]

    def _work(self) -> None:
        while True:
            handed = self._handed.get()
            if handed is None:
                return
            key, work = handed
            try:
                answer = Answer(work())
            except Exception:
                log.exception("a question cannot be answered")  # whoever waits is told that there is no answer
                answer = None
            self._loop.call(functools.partial(self._on_answer, key, answer))

    def _on_answer(self, key: Hashable, answer: Answer | None) -> None:
        question = self._open.pop(key)
        question.timer.cancel()
        self._begun[question.asker] -= 1
        if not self._begun[question.asker]:
            del self._begun[question.asker]
        if answer is not None:
            question.note(answer.found)
        self._tell(question.then, answer)
        self._begin()

    def _on_late(self, key: Hashable) -> None:
        question = self._open[key]
        question.is_late = True
        if not question.is_begun:  # nothing hangs with it: it may be asked again
            self._forget_waiting(question.asker, key)
            del self._open[key]
        waiting, question.then = question.then, []
        self._late(key)
        self._tell(waiting, None)

    def _tell(self, waiting: list[Then], answer: Answer | None) -> None:
        for then in waiting:
            self._loop.call(functools.partial(then, answer))  # each by itself: a mistake in one is not the others'
