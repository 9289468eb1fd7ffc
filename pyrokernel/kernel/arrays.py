"""Arrays that a client gathers into one: what they need, and into which memory. Runs in the kernel process."""

from __future__ import annotations

import sys
from typing import Any

from pyrokernel.wire.arrivals import Arrival
from pyrokernel.wire.segments import PART_BYTES

__all__ = ["hand_over", "measure"]


def measure(value: Any) -> dict[str, Any] | None:
    """Return type and shape of a large array whose elements are bytes and nothing else, None of any other value."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or not value.ndim or value.nbytes < PART_BYTES:
        return None
    # Also not of a type that its short form does not name, such as one with fields.
    if value.dtype.hasobject or numpy.dtype(value.dtype.str) != value.dtype:
        return None
    return {"dtype": value.dtype.str, "shape": list(value.shape)}


def hand_over(value: Any, into: dict[str, Any], arrival: Arrival | None) -> bool:
    """Copy an array to its place in the client's memory; False when it is another one than was measured.

    Args:
        value: The variable as it is now.
        into: What `measure` said of it, and "place": where it goes in the segment.
        arrival: The segment.

    Raises:
        ProtocolError: It does not fit there.
    """
    if arrival is None or measure(value) != {"dtype": into["dtype"], "shape": into["shape"]}:
        return False
    # As bytes: memoryview() refuses dates.
    numpy = sys.modules["numpy"]
    flat = numpy.ascontiguousarray(value).reshape(-1).view(numpy.uint8)
    arrival.write(memoryview(flat), int(into["place"]))
    return True
