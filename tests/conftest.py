"""What holds for all tests: a folder each, the width of no terminal, and byte code that is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Let processes that tests start keep byte code, where the environment would have them compile all of it anew.

    The suite starts some 3,000 interpreters, and each would spend half a second on that. It goes beside what
    pytest itself keeps, not among the sources.
    """
    for name in ("COLUMNS", "LINES"):  # readline exports them, and the workers of pytest-xdist inherit them
        os.environ.pop(name, None)
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        kept = Path(__file__).resolve().parent.parent / ".pytest_cache" / "byte-code"
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(kept))


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for one test; unlike pytest's own without the name of the test: sockets have short addresses."""
    return tmp_path_factory.mktemp("t")
