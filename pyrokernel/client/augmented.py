"""Is this assignment the end of a `+=`? Runs in the caller's process.

`m["n"] += 1` reads, adds, and assigns, and only the assignment knows that the value it was given comes from what
was read a moment ago. It must not overwrite what somebody wrote in between; a plain `m["n"] = 1` may. The
difference is in the caller's byte code, and nowhere else.

Source: dis, https://docs.python.org/3/library/dis.html: an augmented assignment to an item ends in BINARY_OP with
an in-place operator, SWAP 3, SWAP 2, STORE_SUBSCR (CPython 3.11 to 3.14).
"""

from __future__ import annotations

import opcode
import types
from typing import Any, Final

_STORE: Final = opcode.opmap["STORE_SUBSCR"]
_SWAP: Final = opcode.opmap["SWAP"]
_BINARY: Final = opcode.opmap["BINARY_OP"]
_CACHE: Final = opcode.opmap["CACHE"]
_ADDING: Final = frozenset({"+=", "-="})
_SIGNS: Final = [sign for _, sign in getattr(opcode, "_nb_ops", [])]
"""Operators by the argument of BINARY_OP."""

PLAIN: Final = ""
UNKNOWN: Final = "?"


def operator_before(frame: types.FrameType | None) -> str:
    """Return the operator of the augmented assignment that a frame is at the end of, such as "+=".

    Returns:
        `PLAIN` for an ordinary assignment; `UNKNOWN` where the assignment was not made by byte code (C, Cython).
    """
    if frame is None:
        return UNKNOWN
    code, at = frame.f_code.co_code, frame.f_lasti
    if at < 0 or code[at] != _STORE:
        return UNKNOWN
    if at < 6 or (code[at - 2], code[at - 1]) != (_SWAP, 2) or (code[at - 4], code[at - 3]) != (_SWAP, 3):
        return PLAIN
    at -= 6
    while at > 0 and code[at] == _CACHE:
        at -= 2
    if code[at] != _BINARY or code[at + 1] >= len(_SIGNS):
        return PLAIN
    sign = _SIGNS[code[at + 1]]
    return sign if sign.endswith("=") else PLAIN


def difference(sign: str, before: Any, after: Any) -> Any | None:
    """Return what a `+=` or `-=` of numbers has added, None where that cannot be said."""
    if sign not in _ADDING or not _is_number(before) or not _is_number(after):
        return None
    return after - before


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)
