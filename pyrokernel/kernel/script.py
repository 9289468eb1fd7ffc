"""What a script expects of the process that runs it. Runs in the kernel process, in its main thread."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_MISSING = object()


@contextlib.contextmanager
def as_script(variables: dict[str, Any], filename: str, argv: Sequence[str]) -> Iterator[None]:
    """Let a cell see `sys.argv`, and if it is a file also `__file__` and its folder on `sys.path`, for its time only.

    Args:
        variables: The namespace it runs in.
        filename: Of the cell; counts as a file when it is an absolute path.
        argv: Name and arguments.
    """
    argv_before, file_before = sys.argv, variables.get("__file__", _MISSING)
    folder = os.path.dirname(filename) if os.path.isabs(filename) else ""
    sys.argv = list(argv)
    if folder:
        variables["__file__"] = filename
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.argv = argv_before
        if folder:
            with contextlib.suppress(ValueError):  # the script took it out itself
                sys.path.remove(folder)
            if file_before is _MISSING:
                variables.pop("__file__", None)
            else:
                variables["__file__"] = file_before
