"""Starting this interpreter anew with this very package. Runs in clients and in the host process."""

from __future__ import annotations

import os
import sys


def python_with(module: str) -> list[str]:
    """Return the command line that runs a module of this package.

    Without the working directory on its path: a `queue.py` of the user's, or another checkout
    of this package, would otherwise be imported in place of the right one. The exception is a
    package that was itself imported from the working directory.
    """
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    isolated = [] if os.path.samefile(home, os.curdir) else ["-P"]
    return [sys.executable, *isolated, "-m", module]
