"""Questions that nobody wants the answer to any more end, and nothing else does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from prompt_toolkit.application import Application
from waiting import wait_until

from pyrokernel.shell.asking import given_up


class Prompt:
    """What reads at the terminal, as far as it is asked here."""

    is_running, is_done = True, False

    def __init__(self) -> None:
        self.loop = self
        self.asked = 0
        self.exits: list[BaseException] = []

    def call_soon_threadsafe(self, callback: Callable[[], None]) -> None:
        """Do it at once."""
        callback()
        self.asked += 1

    def exit(self, exception: BaseException) -> None:
        """End."""
        self.exits.append(exception)


class Late(threading.Event):
    """An event that is found set when the question is over."""

    def __init__(self) -> None:
        super().__init__()
        self.looked, self.gate = threading.Event(), threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the gate instead."""
        self.looked.set()
        return self.gate.wait(10)


def test_a_question_whose_answer_came_in_the_same_moment_does_not_end_the_next_prompt() -> None:
    prompt, until = Prompt(), Late()
    with given_up(until, lambda: cast(Application[Any], prompt)):
        assert until.looked.wait(10)
    until.gate.set()
    wait_until(lambda: prompt.asked)
    assert prompt.exits == []


def test_a_question_that_nobody_wants_answered_ends() -> None:
    prompt, until = Prompt(), threading.Event()
    with given_up(until, lambda: cast(Application[Any], prompt)):
        until.set()
        wait_until(lambda: prompt.exits)
    assert isinstance(prompt.exits[0], EOFError)
