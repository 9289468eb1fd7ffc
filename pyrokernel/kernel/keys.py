"""Keys as they would be typed between square brackets. Runs in the kernel process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

_KEY_LENGTH: Final = 500
"""Characters of a key that is offered."""


def spell_keys(keys: Iterable[Any], prefix: str, quote: str, typed: str | None, limit: int) -> list[str]:
    """Write the keys that can be written, as source.

    Args:
        keys: Of any type; only strings, bytes, numbers, None and tuples of these can be written.
        prefix: Letters before the quote that is typed, such as "b", in lower case.
        quote: The quote that is typed, "" when there is none yet: then keys are written whole.
        typed: What follows the quote, None when there is none; only keys that begin so are wanted.
        limit: How many different ones to write.
    """
    found: dict[str, None] = {}
    literal = typed is not None and "\\" not in typed
    for key in keys:
        if literal and type(key) is str and not key.startswith(typed or ""):
            continue  # the same answer as below, quickly
        text = _whole(key) if typed is None else _spelled(key, prefix, quote)
        if text is not None and text.startswith(typed or ""):
            found[text] = None
            if len(found) == limit:
                break
    return list(found)


def _whole(key: Any) -> str | None:
    """Write a key with its quotes, if it has any; None when it cannot be written."""
    return repr(key) if _is_plain(key) else None


def _is_plain(key: Any) -> bool:
    """Tell whether the repr of a key is short and runs nothing of the user's."""
    kind = type(key)
    if kind is tuple:
        return len(key) <= 8 and all(_is_plain(part) for part in key)
    if kind is str or kind is bytes:
        return len(key) <= _KEY_LENGTH
    if kind is int:
        return bool(key.bit_length() < 1000)
    return kind is float or kind is bool or key is None


def _spelled(key: Any, prefix: str, quote: str) -> str | None:
    """Write a key as it stands between its quotes; None when it cannot be written so."""
    if type(key) is not (bytes if "b" in prefix else str) or len(key) > _KEY_LENGTH:
        return None
    if type(key) is str and key.isprintable() and "\\" not in key and quote[0] not in key:
        return key
    if "r" in prefix:
        return None
    text = repr(key + '"')[1:-2] if isinstance(key, str) else repr(key + b'"')[2:-2]
    # The added quote makes repr choose single quotes, so every single quote in the text is escaped.
    return text if quote[0] == "'" else text.replace("\\'", "'").replace('"', '\\"')
