"""Arrays of the shared state: read-only, with an error that says how to change them. Runs in the caller's process.

The class is made when the first array is met: NumPy is no dependency.
"""

from __future__ import annotations

import functools
from typing import Any, NoReturn

from pyrokernel.errors import StateTypeError

_IN_PLACE = (
    "__setitem__", "__delitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__",
    "__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__", "__imatmul__",
    "fill", "partition", "put", "resize", "setfield", "sort",
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
    """Return the class; what is computed from its arrays, or copied, is an ordinary array."""
    import numpy  # loaded already: it made the array

    base = numpy.ndarray
    methods = {
        "__doc__": "An array that belongs to the shared state and can be read only; `shared.edit(key)` changes it.",
        "__module__": __name__,
        "shared_key": "",
        "__array_finalize__": _keep_key,
        "__array_wrap__": lambda self, array, context=None, scalar=False: _unwrapped(array, scalar),
        "__array_ufunc__": _compute,
        "__reduce_ex__": lambda self, protocol: to_plain(self).__reduce_ex__(protocol),
        "__deepcopy__": lambda self, memo: to_plain(self).copy(),
        "__copy__": lambda self: to_plain(self).copy(),
        "copy": lambda self, order="C": to_plain(self).copy(order),
        "astype": lambda self, *args, **options: to_plain(self).astype(*args, **options),
        "to_plain": to_plain,
    }
    refused = {name: _refusing(getattr(base, name)) for name in _IN_PLACE if hasattr(base, name)}
    return type("SharedArray", (base,), methods | refused)


def to_plain(array: Any) -> Any:
    """Return an ordinary array on the same memory, as read-only as that is."""
    return array.view(type(array).__mro__[1])


def _keep_key(self: Any, source: Any) -> None:
    self.shared_key = getattr(source, "shared_key", "")


def _unwrapped(array: Any, scalar: bool) -> Any:
    plain = to_plain(array) if hasattr(array, "shared_key") else array
    return plain[()] if scalar else plain


def _compute(self: Any, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
    """Compute with ordinary arrays; refuse to write the result into the shared state."""
    for target in out or ():
        if hasattr(target, "shared_key") and not target.flags.writeable:
            _refuse(target)
    plain = [to_plain(one) if hasattr(one, "shared_key") else one for one in inputs]
    if out:
        options["out"] = tuple(to_plain(one) if hasattr(one, "shared_key") else one for one in out)
    return getattr(ufunc, method)(*plain, **options)


def _refusing(original: Any) -> Any:
    @functools.wraps(original)
    def method(self: Any, *args: Any, **options: Any) -> Any:
        if not self.flags.writeable:
            _refuse(self)
        return original(self, *args, **options)

    return method


def _refuse(array: Any) -> NoReturn:
    key = array.shared_key
    raise StateTypeError(
        f"the array {key!r} of the shared state is read-only: everybody maps the same memory. Change a copy of it with "
        f"`with shared.edit({key!r}) as array: ...`, which writes it back"
    )
