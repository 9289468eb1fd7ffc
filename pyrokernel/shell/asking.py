"""Questions at the terminal that nobody wants the answer to any more. Runs in the shell process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from prompt_toolkit.application import Application

_WATCH_SECONDS = 0.5
"""How soon after its answer the thread that watches a question ends."""

_AGAIN_SECONDS = 0.05
"""A question that is only about to be shown cannot be taken back yet."""


@contextlib.contextmanager
def given_up(until: threading.Event | None, application: Callable[[], Application[Any]]) -> Iterator[None]:
    """End the question that the block asks, by EOFError, once an event is set; None lets it wait for ever.

    Args:
        until: Set by another thread when the answer is not wanted any more.
        application: Returns what is on the terminal now.
    """
    if until is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if until.wait(_WATCH_SECONDS):
                _end(application(), over)
                over.wait(_AGAIN_SECONDS)

    threading.Thread(target=watch, name="question", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _end(application: Application[Any], over: threading.Event) -> None:
    """End the question that is read at the terminal, unless it is over; from any thread."""

    def end() -> None:
        # In the thread that asks: what it reads once the question is over is another one, or the next line of the user.
        if application.is_running and not application.is_done and not over.is_set():
            application.exit(exception=EOFError())

    loop = application.loop
    if loop is not None and application.is_running:
        with contextlib.suppress(RuntimeError):  # its loop is closed: it has ended by itself
            loop.call_soon_threadsafe(end)
