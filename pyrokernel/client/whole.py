"""One array out of parts in kernels, which write them where they belong in it. Runs in the caller's process."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from pyrokernel.messages import KERNEL_OBJECT
from pyrokernel.wire.arrivals import Arrival
from pyrokernel.wire.fanout import Request
from pyrokernel.wire.segments import SEGMENT_BYTES, Freight


class Whole:
    """The array that parts make, joined along their first axis, in memory that the kernels share for that moment.

    Args:
        parts: Of each kernel in order type and shape, as it says them; shape (n_kernels,).
    """

    def __init__(self, parts: Sequence[dict[str, Any]]) -> None:
        import numpy

        self._parts = parts
        self._dtype = numpy.dtype(parts[0]["dtype"])
        self._shape = (sum(part["shape"][0] for part in parts), *parts[0]["shape"][1:])
        self._freight = Freight(writable=True)
        self._size = self._dtype.itemsize * math.prod(self._shape)
        self._freight.reserve(self._size)

    @classmethod
    def of(cls, parts: Sequence[Any]) -> Whole | None:
        """Return what is to be made of such parts, None where they are not alike, or not worth it."""
        if not all(isinstance(part, dict) for part in parts):
            return None
        if len({(part["dtype"], *part["shape"][1:]) for part in parts}) != 1:
            return None
        whole = cls(parts)
        return whole if whole._size >= SEGMENT_BYTES and whole._freight.filling() is not None else None

    def requests(self, name: str) -> list[Request]:
        """Return what to ask each kernel, in order, to have it write variable `name` where it belongs."""
        place, requests = 0, []
        for part in self._parts:
            options = {"into": {**part, "place": place}}
            requests.append(Request(KERNEL_OBJECT, "pull", [[name], options], freight=self._freight, attach=True))
            place += self._dtype.itemsize * math.prod(part["shape"])
        return requests

    def array(self) -> Any:
        """Return the array, once every kernel has written."""
        import numpy

        filling = self._freight.filling()
        assert filling is not None, "it was made with one"
        content = Arrival(os.dup(filling.descriptor)).map(0, self._size)
        return numpy.frombuffer(content, self._dtype).reshape(self._shape)
