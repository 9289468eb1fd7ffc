"""The few calls into the C library that Python does not offer. Runs in the kernel process.

ctypes costs about 10 ms and some memory, so it is loaded only when one of these is really needed.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
from typing import Any

_PUNCH_HOLE_KEEP_SIZE = 0x03
"""FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <linux/falloc.h>."""

_LINE_BUFFERED = 1
"""_IOLBF in glibc, musl and macOS."""

_SILENT = frozenset({"msgpack._cmsgpack"})
"""What Pyro5 imports where it is installed, and never prints."""

_known_modules = 0
_c_code = False


def c_code_loaded() -> bool:
    """Tell whether code from outside the standard library may use C's own stdout.

    Cheap when nothing was imported since the last call.
    """
    global _known_modules, _c_code
    if len(sys.modules) != _known_modules and not _c_code:
        _known_modules = len(sys.modules)
        _c_code = "ctypes" in sys.modules or any(map(_is_foreign_extension, list(sys.modules.values())))
    return _c_code


def _is_foreign_extension(module: Any) -> bool:
    file = module.__dict__.get("__file__") if type(module) is type(sys) else None
    return (
        isinstance(file, str)
        and file.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
        and "lib-dynload" not in file
        and module.__name__ not in _SILENT
    )


@functools.cache
def _stdout() -> tuple[Any, Any] | None:
    """Return C's fflush and its stdout, which from now on passes on every line; None where there is no such symbol."""
    import ctypes

    try:
        library = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(library, "__stdoutp" if sys.platform == "darwin" else "stdout")
        library.setvbuf(stdout, None, _LINE_BUFFERED, ctypes.c_size_t(0))
    except (OSError, ValueError, AttributeError):
        return None
    return library.fflush, stdout


def flush_stdout() -> None:
    """Flush C's stdout if any C code may have written to it.

    Not fflush(NULL): that waits for the lock of every stream, also of one that
    another thread is reading from.
    """
    if (len(sys.modules) != _known_modules or _c_code) and c_code_loaded():
        found = _stdout()
        if found is not None:
            flush, stdout = found
            flush(stdout)


@functools.cache
def _fallocate() -> Any:
    import ctypes

    function = ctypes.CDLL(None, use_errno=True).fallocate
    function.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return function


def punch_hole(fd: int, end: int) -> bool:
    """Give the space of the first `end` bytes of a file back; return whether the file system can."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(_fallocate()(fd, _PUNCH_HOLE_KEEP_SIZE, 0, end) == 0)
    except (OSError, AttributeError):
        return False
