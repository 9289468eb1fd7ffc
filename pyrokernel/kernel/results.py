"""Turns the value of a cell into what its request asked for. Runs in the kernel process.

Text is always made. The repr of a huge or hostile object costs the cell nothing but an
error message; a value that cannot travel is explained, and the cell still succeeds.
"""

from __future__ import annotations

import base64
import itertools
import pickle
from collections.abc import Callable
from typing import Any

from pyrokernel.errors import MessageTooLargeError, NotSerializableError
from pyrokernel.wire.codec import Packed, is_plain
from pyrokernel.wire.large import holds_large

MAX_TEXT_CHARS = 1024 * 1024
MAX_REPR_ITEMS = 100_000
"""Longer strings and containers are shown by their beginning."""
MAX_RESULT_BYTES = 1 << 30
"""Larger results stay in the kernel, whatever its clients ask for; they can be pulled."""
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_SCALARS = (type(None), bool, int, float)
"""Pickled without further questions."""
_LAID_OUT = (list, tuple, dict, set)
MAX_BUNDLE_CHARS = 16 * 1024 * 1024

_MIME_METHODS = {
    "_repr_html_": "text/html",
    "_repr_markdown_": "text/markdown",
    "_repr_latex_": "text/latex",
    "_repr_svg_": "image/svg+xml",
    "_repr_json_": "application/json",
    "_repr_png_": "image/png",
    "_repr_jpeg_": "image/jpeg",
}
"""The methods by which objects show themselves; names as in IPython's display protocol."""


def text_of(value: Any, *, for_people: bool = False) -> tuple[str, bool]:
    """Return the repr of a value and whether it was cut at 1 MiB characters.

    Args:
        value: Any object.
        for_people: Show a long list or dict over several lines.

    Raises:
        Exception: Whatever the object's `__repr__` raises; the caller runs this as user code.
    """
    if type(value) in _SIZED and len(value) > MAX_REPR_ITEMS:
        # Its whole repr would take several times its own memory, to be cut afterwards.
        head, unit = _head_of(value)
        return f"{repr(head)[:MAX_TEXT_CHARS]}... ({len(value)} {unit})", True
    text = repr(value)
    if len(text) <= MAX_TEXT_CHARS:
        return over_lines(value, text) if for_people else text, False
    return f"{text[:MAX_TEXT_CHARS]}... ({len(text)} characters, the first {MAX_TEXT_CHARS} shown)", True


def over_lines(value: Any, text: str) -> str:
    """Return the repr of a builtin container over several lines, if it is long."""
    if type(value) not in _LAID_OUT:
        return text
    from pyrokernel.kernel.layout import laid_out  # on first use: kernels start without it

    try:
        return laid_out(value, text)
    except Exception:  # noqa: BLE001  the repr of an item is user code, and may work only once
        return text


def _head_of(value: Any) -> tuple[Any, str]:
    """Return the beginning of a large builtin value, and what its length counts."""
    if isinstance(value, (str, bytes, bytearray)):
        return value[:MAX_REPR_ITEMS], "characters" if isinstance(value, str) else "bytes"
    if isinstance(value, dict):
        return dict(itertools.islice(value.items(), MAX_REPR_ITEMS)), "items"
    return type(value)(itertools.islice(value, MAX_REPR_ITEMS)), "items"


def bundle_of(value: Any, text: str) -> dict[str, str]:
    """Return a value as MIME type to text; binary types in base64.

    An object's `_repr_mimebundle_` or `_repr_*_` that raises or returns nonsense is left out,
    as IPython does: the plain text is always there.
    """
    bundle = {"text/plain": text}
    own = _ask(value, "_repr_mimebundle_")
    if isinstance(own, tuple) and own:
        own = own[0]
    if isinstance(own, dict):
        for mime, data in own.items():
            _put(bundle, str(mime), data)
    for method, mime in _MIME_METHODS.items():
        if mime not in bundle:
            data = _ask(value, method)
            _put(bundle, mime, data[0] if isinstance(data, tuple) and data else data)
    return bundle


def pack_value(value: Any, *, max_bytes: int, plain: bool, data: bool = False) -> tuple[Any, str]:
    """Return a value in wire form and, when it has to stay here, why.

    Args:
        value: Any object.
        max_bytes: Above this it stays.
        plain: The peer reads serpent or JSON: plain data goes as it is, nothing else goes.
        data: The peer loads plain data and arrays only.
    """
    if plain:
        if is_plain(value):
            return value, ""
        return None, f"a {type(value).__name__} is not plain data, and this client does not read pickles"
    if type(value) in _SCALARS:
        packed = Packed(pickle.dumps(value, 5))
        if len(packed.data) <= max_bytes:
            return packed, ""
    try:
        packed = Packed.dump_data(value) if data else Packed.dump(value, pieces=holds_large((value,)))
    except (NotSerializableError, MessageTooLargeError) as error:
        return None, str(error)
    size, limit = packed.size_bytes, min(max_bytes, MAX_RESULT_BYTES)
    if size > limit:
        return None, f"it takes {size} bytes, above the limit of {limit} for a reply"
    return packed, ""


def _ask(value: Any, method: str) -> Any:
    """Call a display method if the class has it."""
    found: Callable[..., Any] | None = getattr(type(value), method, None)
    if found is None or isinstance(value, type):
        return None
    try:
        return found(value)
    except Exception:  # noqa: BLE001  user code; its absence from the bundle is the documented effect
        return None


def _put(bundle: dict[str, str], mime: str, data: Any) -> None:
    if isinstance(data, (bytes, bytearray, memoryview)):
        data = base64.b64encode(data).decode("ascii")
    elif isinstance(data, (dict, list)):
        import json

        try:
            data = json.dumps(data)
        except (TypeError, ValueError):
            return
    if isinstance(data, str) and len(data) <= MAX_BUNDLE_CHARS:
        bundle[mime] = data
