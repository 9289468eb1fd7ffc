"""A namespace of the shared state as the client rooms use it: keys read and written, one request each.

`shared` and `shared_map` are the faces of it. Runs in the caller's process.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pyrokernel.client.live import NEWEST, Stored, live
from pyrokernel.client.reference_data import token_of
from pyrokernel.errors import PyrokernelError, StateConflictError, StateKeyError, StateTypeError
from pyrokernel.messages import StateEntry
from pyrokernel.settings import parse_span
from pyrokernel.wire.values import decode_value

if TYPE_CHECKING:
    from pyrokernel.client.leases import Leases
    from pyrokernel.client.state_link import StateLink

log = logging.getLogger(__name__)

PAGE = 1000
"""Keys that are asked for at a time."""

_TRIES = 100
"""How often a value's file may be replaced between the answer that names it and its opening."""
_TAB_SECONDS = 0.3


class Version(NamedTuple):
    """A value as it is at one revision.

    Attributes:
        value: A copy that is the caller's own; arrays in it are read-only.
        revision: By which it can be written back.
        author: The account that wrote it.
    """

    value: Any
    revision: int
    author: str


class Space:
    """The keys of one namespace.

    Args:
        link: The way to the service.
        name: Of the namespace, "" for the common one.
        leases: Who renews what lives by a lease.
    """

    def __init__(self, link: StateLink, name: str, leases: Leases) -> None:
        self.link, self.name, self.leases = link, name, leases

    # Reading

    def read(self, key: str) -> Version:
        """Return a value with its revision.

        Raises:
            StateKeyError: There is no such key.
            StateValueError: It cannot be loaded here, or its author is not trusted.
        """
        return self._version(key, self._ask_for(key))

    def read_live(self, key: str) -> tuple[Version, Any]:
        """Return a value, and as what users of the mapping get it."""
        found = self.read(key)
        return found, live(found.value, Stored(self, key, found.value, found.revision))

    def fetch(self, key: str, unless: int = 0) -> tuple[int, Any]:
        """Return revision and value; `NEWEST` for the value when the revision is the one that is known."""
        answer = self._ask_for(key, unless)
        if answer[4] is None:
            return answer[0], NEWEST
        found = self._version(key, answer)
        return found.revision, found.value

    def read_many(self, keys: Iterable[str]) -> dict[str, Version]:
        """Return the values of keys, all of one moment; those that are not there are left out."""
        wanted = [text(key) for key in keys]
        for _ in range(_TRIES):
            answers = self.link.ask("get_many", self.name, wanted)
            parts = [None if answer is None else self.link.fetch(answer) for answer in answers]
            # A file that was taken out of use since belongs to another moment: ask for all anew.
            if all(found is not None for found, answer in zip(parts, answers, strict=True) if answer is not None):
                return {
                    key: Version(self.link.decode(key, answer, found), answer[0], answer[3])
                    for key, answer, found in zip(wanted, answers, parts, strict=True)
                    if answer is not None and found is not None
                }
        raise StateConflictError("these values are replaced faster than they can be read", key=wanted[0], actual=0)

    def read_at(self, key: str, revision: int) -> Any:
        """Return the value that a key had at a revision.

        Raises:
            StateKeyError: It had none, or that is forgotten.
            StateValueError: That value is forgotten, or cannot be loaded here.
        """
        answer = self.link.ask("get_at", self.name, text(key), revision)
        if answer is None:
            raise StateKeyError(f"{key!r} was deleted at revision {revision}", key=key)
        parts = self.link.fetch(answer)
        if parts is None:
            raise StateKeyError(f"version {revision} of {key!r} is forgotten", key=key)
        return self.link.decode(key, answer, parts)

    def _ask_for(self, key: str, unless: int = 0) -> Sequence[Any]:
        answer: Sequence[Any] | None = self.link.ask("get", self.name, text(key), unless)
        if answer is None:
            raise StateKeyError(key=key)
        return answer

    def _version(self, key: str, answer: Sequence[Any]) -> Version:
        """Return the value that an answer carries or leads to, or the one that has replaced it meanwhile."""
        for _ in range(_TRIES):
            parts = self.link.fetch(answer)
            if parts is not None:
                return Version(self.link.decode(key, answer, parts), answer[0], answer[3])
            answer = self._ask_for(key)
        raise StateConflictError(f"{key!r} is replaced faster than it can be read", key=key, actual=answer[0])

    def contains(self, key: str) -> bool:
        """Whether there is such a key."""
        return bool(self.link.ask("revision_of", self.name, text(key)))

    def count(self) -> int:
        """Return how many keys there are."""
        return int(self.link.ask("count", self.name))

    def keys(self, prefix: str = "", *, after: str | None = None, limit: int = PAGE) -> list[str]:
        """Return keys that begin so, in order."""
        found: list[str] = self.link.ask("keys", self.name, text(prefix, "prefix"), after, limit)
        return found

    def entries(self, prefix: str = "", *, after: str | None = None, limit: int = 10_000) -> list[StateEntry]:
        """Return what is known of keys but their values."""
        found = self.link.ask("entries", self.name, text(prefix, "prefix"), after, limit)
        return [StateEntry.from_wire(entry) for entry in found]

    def iterate_keys(self, prefix: str = "") -> Iterator[str]:
        """Yield all keys that begin so, in order; those written meanwhile may be among them."""
        last: str | None = None
        while page := self.keys(prefix, after=last):
            yield from page
            last = page[-1]

    def iterate_items(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield keys that begin so with their values, as users of the mapping get them."""
        last: str | None = None
        while page := self.link.ask("items", self.name, prefix, last, PAGE):
            for key, answer in page:
                try:
                    found = self._version(key, answer)
                except StateKeyError:
                    continue  # deleted since
                yield key, live(found.value, Stored(self, key, found.value, found.revision))
            last = page[-1][0]

    # For TAB, which waits for nobody

    def complete_keys(self, prefix: str, limit: int = PAGE) -> list[str]:
        """Return keys that begin so, [] when the service does not answer at once."""
        try:
            found: list[str] = self.link.ask("keys", self.name, prefix, None, limit, patience=_TAB_SECONDS)
        except PyrokernelError:
            return []
        return found

    def peek(self, key: str) -> Any:
        """Return a copy of plain data, or a reference, if the service answers at once.

        Raises:
            KeyError: It does not, or there is nothing to look into.
        """
        try:
            answer = self.link.ask("get", self.name, key, patience=_TAB_SECONDS)
            parts = self.link.fetch(answer) if answer is not None and answer[1] in ("plain", "reference") else None
            if parts is not None:
                return self.link.decode(key, answer, parts)
        except PyrokernelError as error:
            raise KeyError(key) from error
        raise KeyError(key)

    def tokens_of(self, keys: Sequence[str], *, patience: float | None = None) -> dict[str, str]:
        """Return the tokens of the references that keys hold, all of the same moment; "" for those that hold none.

        Args:
            keys: Which.
            patience: Seconds to wait for the service instead of those of the setting.
        """
        found = self.link.ask("get_many", self.name, list(keys), patience=patience)
        return {key: self._token_in(one) for key, one in zip(keys, found, strict=True)}

    def _token_in(self, found: Sequence[Any] | None) -> str:
        if found is None or found[1] != "reference":
            return ""
        try:
            parts = self.link.fetch(found)
            return token_of(decode_value("reference", parts)) if parts is not None else ""
        except (PyrokernelError, TypeError, LookupError) as error:  # anybody may have written it
            log.info("a reference of the shared state does not parse: %s", error)
            return ""

    # Writing

    def write(self, writes: Sequence[Mapping[str, Any]], conditions: Sequence[Mapping[str, Any]] = ()) -> list[Any]:
        """Write as docs/protocol.md describes it: all or nothing."""
        options = self.link.write_options()
        found: list[Any] = self.link.ask("write", self.name, writes, conditions, options, changes=True)
        return found

    def write_of(self, key: str, value: Any) -> dict[str, Any]:
        """Return a write that sets a key."""
        return {"op": "set", "key": text(key), **self.link.encode(value, key, self.name)}

    def set(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | str | None = None,
        keep_alive: bool = False,
        revision: int | None = None,
    ) -> int:
        """Set a key; return the revision. See `Shared.set`."""
        if keep_alive and ttl is None:
            raise StateTypeError("keep_alive=True renews the time of a key, so it wants one: ttl=30, say")
        write = self.write_of(key, value)
        lease = ""
        if ttl is not None:
            lease = write["lease"] = self.leases.grant(seconds_of(ttl), keep=keep_alive)
        try:
            found = int(self.write([write], _on(key, revision))[0][0])
        except BaseException:
            if lease:
                with contextlib.suppress(PyrokernelError):  # it ends by itself
                    self.leases.revoke(lease)
            raise
        self.leases.hold((self.name, key), lease if keep_alive else "")
        return found

    def compare_and_set(self, key: str, value: Any, revision: int, *, keep: bool = False) -> int:
        """Set a key only if it has a revision, 0 for no such key; return the new one.

        Args:
            key, value, revision: As for `Shared.compare_and_set`.
            keep: Leave the key the time that it has: it is changed, not set anew.
        """
        return int(self.write([{**self.write_of(key, value), "keep": keep}], _on(key, revision))[0][0])

    def setdefault(self, key: str, default: Any) -> None:
        """Set a key if it is not there; of all who do so at once, one does."""
        if not self.contains(key):
            with contextlib.suppress(StateConflictError):  # somebody else was quicker
                self.compare_and_set(key, default, 0)

    def increment(self, key: str, amount: float, initial: float = 0) -> Any:
        """Add to a number; return what it is now."""
        for number in (amount, initial):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise StateTypeError(f"{key!r} is incremented by an int or float, not by {number!r}")
        write = {"op": "increment", "key": text(key), "amount": amount, "initial": initial}
        number_text = self.write([write])[0][2]
        return int(number_text) if number_text.lstrip("-").isdecimal() else float(number_text)

    def update(self, items: Iterable[tuple[str, Any]]) -> None:
        """Set many keys at once: all of them or none."""
        writes = [self.write_of(key, value) for key, value in items]
        if writes:
            self.write(writes)

    def delete(self, key: str, revision: int | None = None) -> int:
        """Delete a key, only if it has a revision; return that of the removal."""
        found = int(self.write([{"op": "delete", "key": text(key)}], _on(key, revision))[0][0])
        self.leases.hold((self.name, key), "")
        return found

    def pop(self, key: str) -> Any:
        """Delete a key and return what it was; of all who try at once, one gets it."""
        while True:
            found = self.read(key)
            with contextlib.suppress(StateConflictError):  # changed meanwhile: what it is now is to be returned
                self.delete(key, found.revision)
                return found.value

    def clear(self, prefix: str = "") -> int:
        """Delete all keys that begin so, at once; return how many."""
        return len(self.write([{"op": "clear", "prefix": text(prefix, "prefix")}]))


def text(given: Any, what: str = "key") -> str:
    """Return a key or the like as it travels.

    Raises:
        StateTypeError: It is no text.
    """
    if type(given) is str:
        return given
    if isinstance(given, str):
        return str(given)
    raise StateTypeError(f"a {what} of the shared state is a str, not {type(given).__name__} ({given!r:.80})")


def seconds_of(ttl: float | str) -> float:
    """Return a time to live in seconds, from a number or text such as "30m".

    Raises:
        StateTypeError: It is none.
    """
    try:
        seconds = parse_span(ttl)
    except ValueError as error:
        raise StateTypeError(f"ttl: {error}") from error
    if not 0 < seconds < 10**9:
        raise StateTypeError(f"ttl is some seconds, more than 0, not {ttl!r}")
    return seconds


def _on(key: str, revision: int | None) -> list[dict[str, Any]]:
    return [] if revision is None else [{"key": key, "revision": revision}]
