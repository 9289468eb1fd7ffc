"""What holds for all tests: the processes they start keep byte code."""

from __future__ import annotations

import os
from pathlib import Path


def pytest_configure() -> None:
    """Let processes that tests start keep byte code, where the environment would have them compile all of it anew.

    The suite starts some 3,000 interpreters, and each would spend half a second on that. It goes beside what
    pytest itself keeps, not among the sources.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        kept = Path(__file__).resolve().parent.parent / ".pytest_cache" / "byte-code"
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(kept))
