"""Going through an iterator that stays in its kernel: one cell reads ahead, its values come as they are made.

Runs in the caller's process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pyrokernel.client import keeper
from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.errors import KernelConnectionError, NotSerializableError
from pyrokernel.messages import new_id
from pyrokernel.wire.codec import Packed

if TYPE_CHECKING:
    from pyrokernel.client.target import Target

_POLL_SECONDS = 25.0
_PAUSE_SECONDS = 1.0

_local = threading.local()


def read(target: Target, given: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield the values of an iterator as they come; it runs ahead by 1,000 of them, and waits for the reader.

    Args:
        target: The iterator.
        given: Makes of each value what the reader is given.
    """
    over = False
    while not over:
        call = [target.request("drain"), target.pack((), {})]
        cell = target.owner().submit(f"for ... in {target.lent.shown}", cell=new_id(), call=call, yields=True)
        stream, streams = _Stream(target, cell.id), _streams()
        streams.append(stream)
        try:
            yield from stream.values(given)
        except KeyboardInterrupt:
            cell.interrupt()
            raise
        except GeneratorExit:
            # Perhaps in a garbage collection, in the middle of anything: no I/O here.
            keeper.soon(stream.pause)
            raise
        finally:
            streams.remove(stream)  # of the thread that began it, whichever this is
        target.checked(cell.reply(check=False))
        over = not stream.paused


def pause_streams(instance: str) -> None:
    """Make room in a kernel that this thread keeps busy by a loop, for what is done inside of it."""
    for stream in _streams():
        if stream.instance == instance:
            stream.pause()


class _Stream:
    """One cell that goes through an iterator.

    Args:
        target: The iterator.
        cell: Id of the cell.
    """

    def __init__(self, target: Target, cell: str) -> None:
        self.instance = target.instance
        self.paused = False
        self._target, self._cell = target, cell
        self._over = self._told = False

    def values(self, given: Callable[[Any], Any]) -> Iterator[Any]:
        """Yield the values until the cell has ended."""
        position = 0
        while not self._over:
            answer = self._ask(position, _POLL_SECONDS, None)
            for value in answer["values"]:
                position += 1
                if not isinstance(value, Packed):
                    raise NotSerializableError(f"value {position} of {self._target.lent.shown}: {value['missing']}")
                yield given(self._target.unpack(value))
            self._over, self.paused = answer["ended"], answer["paused"]

    def pause(self) -> None:
        """End the cell at the next value, so that others get their turn."""
        if not self._over and not self._told:
            self._told = True
            self._ask(-1, 0.0, _PAUSE_SECONDS)

    def _ask(self, after: int, wait: float, timeout: float | None) -> dict[str, Any]:
        mesh, link = self._target.mesh, self._target.owner().link
        request = kernel_request("values", self._cell, after, wait)
        found, errors, missing = gather(mesh, [link], request, kind="control", timeout=timeout)
        for error in errors.values():
            raise self._target.gone(error) if isinstance(error, KernelConnectionError) else error
        return {"ended": False} if missing else dict(found[link.name])


def _streams() -> list[_Stream]:
    """Return the loops over iterators that this thread is in."""
    found: list[_Stream] = _local.__dict__.setdefault("streams", [])
    return found
