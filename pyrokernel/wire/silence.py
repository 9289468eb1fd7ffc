"""Machines of which nothing is heard: whoever waited for one does not wait again as long. Runs in every process.

A pulled cable, a lost power supply or a firewall says no goodbye. What is under way is given up after `GONE_SECONDS`
without a sign (`tls`). Before callers are told, the machine is dialled once more, shortly: the way may have been
another one. All that is asked of it in the same moment has the same answer, without trying again.
"""

from __future__ import annotations

import errno
import time
from typing import NamedTuple

from pyrokernel.errors import MachineLostError

__all__ = ["GONE_SECONDS", "heard", "is_silence", "is_silent", "note", "note_dial", "patience"]

GONE_SECONDS = 2.5
"""A machine that owes an answer to the operating system of this one for so long is gone."""

_AGAIN_SECONDS = 1.0
"""How long the first dial after that may take; each further one may take twice as long, until one succeeds."""
_PAUSE_SECONDS = 2.0
"""How long what a dial has found out holds."""

_SILENT = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}


class _Silence(NamedTuple):
    """What is known of a machine that does not answer.

    Attributes:
        since: Monotonic moment at which it was noticed.
        dialled: That at which it was last dialled in vain, or 0.
        dials: How often it was.
        reason: What the system said.
    """

    since: float
    dialled: float = 0.0
    dials: int = 0
    reason: str = ""


_silent: dict[str, _Silence] = {}
"""By address, "HOST:PORT"."""


def is_silence(error: BaseException | None) -> bool:
    """Whether an error means that a machine did not answer at all, in contrast to one that refused."""
    return isinstance(error, OSError) and (error.errno in _SILENT or isinstance(error, TimeoutError))


def note(address: str, error: BaseException) -> None:
    """Remember that a connection ended because nothing was heard on it."""
    if address and is_silence(error):
        _silent.setdefault(address, _Silence(time.monotonic(), reason=_text(error)))


def note_dial(address: str, error: BaseException) -> MachineLostError:
    """Remember that a machine was dialled in vain, and return what to raise."""
    now = time.monotonic()
    before = _silent.get(address) or _Silence(now)
    _silent[address] = found = before._replace(dialled=now, dials=before.dials + 1, reason=_text(error))
    return _lost(address, found)


def is_silent(address: str) -> bool:
    """Whether nothing was heard of a machine, and it has not answered since."""
    return address in _silent


def heard(address: str) -> None:
    """It answers."""
    _silent.pop(address, None)


def patience(address: str, seconds: float) -> float:
    """Return how long a dial may take.

    Args:
        address: "HOST:PORT".
        seconds: How long it may take to a machine of which nothing bad is known.

    Raises:
        MachineLostError: It was dialled in vain a moment ago.
    """
    found = _silent.get(address)
    if found is None:
        return seconds
    if found.dials and time.monotonic() - found.dialled < _PAUSE_SECONDS:
        raise _lost(address, found)
    return min(seconds, _AGAIN_SECONDS * 2.0 ** min(found.dials, 8))


def _lost(address: str, found: _Silence) -> MachineLostError:
    return MachineLostError(machine=address, reason=found.reason)


def _text(error: BaseException) -> str:
    return getattr(error, "strerror", "") or str(error)
