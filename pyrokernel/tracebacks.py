"""Tracebacks without the frames of whoever ran the code. Runs in the kernel and the shell process."""

from __future__ import annotations

import os
import traceback

_ASYNCIO_FOLDER = os.path.join(os.path.dirname(os.__file__), "asyncio") + os.sep


def format_error(error: BaseException, own: tuple[str, ...]) -> str:
    """Format a traceback, and those of its causes and contexts; where no frame remains, the error alone.

    Args:
        error: What was raised; it may fight back when it is looked at.
        own: How the file names of the frames begin that are left out.
    """
    try:
        formatted = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _hide(formatted, own)
        alone = not formatted.stack and formatted.__cause__ is None and formatted.__context__ is None
        return "".join(formatted.format_exception_only() if alone else formatted.format())
    except Exception as failure:  # noqa: BLE001  an exception whose own attributes raise when they are looked at
        return f"{type(error).__name__} (its traceback cannot be shown: {type(failure).__name__})\n"


def _hide(formatted: traceback.TracebackException | None, own: tuple[str, ...]) -> None:
    """Leave out our own frames, and those of the event loop above the first of the user's."""
    seen: set[int] = set()
    while formatted is not None and id(formatted) not in seen:
        seen.add(id(formatted))
        frames = [frame for frame in formatted.stack if not frame.filename.startswith(own)]
        while len(frames) > 1 and frames[0].filename.startswith(_ASYNCIO_FOLDER):
            frames.pop(0)
        formatted.stack[:] = frames
        _hide(formatted.__context__, own)
        formatted = formatted.__cause__
