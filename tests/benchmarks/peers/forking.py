"""Workers that are forks of this process, for peers that leave it to the user to start them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

CONTEXT = multiprocessing.get_context("fork")


def fork(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Start a worker that runs a function."""
    process = CONTEXT.Process(target=_run, args=(target, args), daemon=True)
    process.start()
    return process


def _run(target: Callable[..., None], args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        target(*args)
    except (EOFError, OSError):
        pass  # the other side has gone
    finally:
        os._exit(0)  # what this process inherited is its parent's to clean up


def end(process: BaseProcess) -> None:
    """End a worker."""
    process.terminate()
    process.join(5)
