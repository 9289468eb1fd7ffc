"""Which sources pass through Sage's preparser, and what they become. Runs in the kernel process.

The preparser keeps the number of lines, so tracebacks name the lines that were typed.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable

from pyrokernel.messages import HABIT

_SAGE_FILE = ".sage"
_PYTHON_FILES = (".py", ".pyw", ".pyi")
_CONTINUED = re.compile(r"(?:[^\n]*\\\n)+[^\n]*")
_FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def is_sage_source(filename: str) -> bool:
    """Whether text of this file name is Sage: a cell, or a file that ends in ".sage".

    Files of Python stay what they are, as in Sage itself; so do the lines that a front end makes
    of commands such as `!ls`.
    """
    return filename.endswith(_SAGE_FILE) or (filename != HABIT and not filename.endswith(_PYTHON_FILES))


def preparsed(source: str, filename: str, preparse: Callable[[str], str] | None = None) -> str | None:
    """Return the Python that a source of Sage means; None when it stays as it is.

    What cannot be preparsed, or is no Python afterwards nor before, stays: Python's own error then
    shows what was typed.

    Args:
        source: The text.
        filename: "<cell 3>", or the name of a file.
        preparse: What to use, None for Sage's own.
    """
    if not is_sage_source(filename):
        return None
    found = preparse or sage_preparse
    try:
        text = found(source)
    except Exception:  # noqa: BLE001  its regular expressions meet text that is no program; Python says it better
        return None
    if text == source or not (_compiles(text) or _compiles(source)):
        return None
    return text


def sage_preparse(source: str) -> str:
    """Run Sage's preparser, and keep the lines: it joins those that a backslash continues."""
    module = importlib.import_module("sage.repl.preparse")
    if "\\\n" in source:
        code, literals, _ = module.strip_string_literals(source)
        source = _CONTINUED.sub(_joined, code) % literals
    return str(module.preparse(source))


def _joined(found: re.Match[str]) -> str:
    """Put a continued statement on its first line, and the line ends behind it."""
    return found[0].replace("\\\n", " ") + "\n" * found[0].count("\\\n")


def _compiles(source: str) -> bool:
    try:
        compile(source, "<sage>", "exec", _FLAGS, dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True
