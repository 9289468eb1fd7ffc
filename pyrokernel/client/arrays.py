"""Arrays of the shared state: read-only, with an error that says how to change them. Runs in the caller's process.

The class is made when the first array is met: NumPy is no dependency.
"""

from __future__ import annotations

import functools
from typing import Any

from pyrokernel.errors import StateTypeError

_IN_PLACE = (
    "__setitem__", "__delitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__",
    "__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__", "__imatmul__",
    "fill", "itemset", "partition", "put", "resize", "setfield", "sort",
)  # fmt: skip
"""Methods of an array that change it."""


def read_only(array: Any, key: str) -> Any:
    """Return an array as one that cannot be changed, and says so with the key to edit."""
    view = array.view(_shared_array())
    view.flags.writeable = False
    view.shared_key = key
    return view


@functools.cache
def _shared_array() -> Any:
    import numpy  # loaded already: it made the array

    class SharedArray(numpy.ndarray):
        """An array that belongs to the shared state; what is computed from it is an ordinary array."""

        __module__ = __name__
        shared_key = ""

        def __array_finalize__(self, source: Any) -> None:
            self.shared_key = getattr(source, "shared_key", "")

        def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
            plain = numpy.asarray(array)
            return plain[()] if return_scalar else plain

        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
            if any(isinstance(one, SharedArray) and not one.flags.writeable for one in out or ()):
                _refuse(next(one for one in out if isinstance(one, SharedArray)))
            plain = [numpy.asarray(one) if isinstance(one, SharedArray) else one for one in inputs]
            if out:
                options["out"] = tuple(numpy.asarray(one) if isinstance(one, SharedArray) else one for one in out)
            return getattr(ufunc, method)(*plain, **options)

        def copy(self, order: Any = "C") -> Any:
            """Return an ordinary array of the same content."""
            return numpy.array(self, order=order, subok=False)

        def astype(self, *args: Any, **options: Any) -> Any:
            """Return an ordinary array of another type."""
            return numpy.array(self, copy=False, subok=False).astype(*args, **options)

        def to_plain(self) -> Any:
            """Return the array as an ordinary one on the same memory."""
            return numpy.asarray(self)

        def __reduce_ex__(self, protocol: Any) -> Any:
            return numpy.asarray(self).__reduce_ex__(protocol)

        def __deepcopy__(self, memo: Any) -> Any:
            return self.copy()

    def refusing(name: str) -> Any:
        original = getattr(numpy.ndarray, name, None)

        def method(self: Any, *args: Any, **options: Any) -> Any:
            if not self.flags.writeable:
                _refuse(self)
            return original(self, *args, **options)  # type: ignore[misc]  # a view that became writable by a copy

        return functools.wraps(original)(method) if original is not None else None

    for name in _IN_PLACE:
        method = refusing(name)
        if method is not None:
            setattr(SharedArray, name, method)
    SharedArray.__qualname__ = "SharedArray"
    return SharedArray


def _refuse(array: Any) -> None:
    key = array.shared_key
    raise StateTypeError(
        f"the array {key!r} of the shared state is read-only: everybody maps the same memory. Change a copy of it with "
        f"`with shared.edit({key!r}) as array: ...`, which writes it back"
    )
