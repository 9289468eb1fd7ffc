"""What a store of the shared state keeps, and what it must be able to do. Runs in the state process.

The log is the truth: one `Row` a write, numbered by the revision; what a key holds now is the newest
row of it. Between `begin` and `commit` nothing is promised; after `commit` everything since `begin`
survives the death of any process, or none of it does.

For authors of a store: `pyrokernel_open_store` in docs/hooks.md shows a whole one. The service decides,
a store only keeps; nothing is asked of it but what `Store` says, which the checks of tests/storing.py
go through. Only `backup` is called by another thread than all the rest. What is written since `begin`
is seen by every method at once, before it is committed. When `commit` raises, none of it may come to
light later: `rollback` follows, the client is told that nothing was changed, and the service asks for
the same again. A store that is away raises `StateStorageError` from whatever is asked of it; the service
lives on, tells its clients, and asks again.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol


class Row(NamedTuple):
    """One write.

    Attributes:
        revision: Its number; one count for the whole state, without regard to spaces.
        space, key: What was written.
        op: "set", "delete", "expire" (its lease ran out).
        kind, type, summary: As in `wire.values.Encoded`; "" for a removal.
        sizes: Bytes of each part of the value; () where the value is gone or never was.
        data: The parts one after the other, or b"" when they are in a file.
        file: Name of the file that holds the parts, each at a multiple of 64, "" for none.
        author: The account that wrote it, as the operating system says.
        via: The kernel it was written from, and whose cell it ran if not of its account, "k0, ana"; "" for none.
        at: Unix time in seconds, never less than that of the row before.
        lease: Id of the lease that the key lives by, "" for none.
        previous: Revision of the row before this one of the same key, 0 for none.
        version: How many rows the key has had, this one included.
        created: Revision at which the key came to be.
        restores: Revision whose value an undo brought back, 0 for none.
        request: Id of the request, by which a repeated one is known.
    """

    revision: int
    space: str
    key: str
    op: str
    kind: str = ""
    type: str = ""
    summary: str = ""
    sizes: tuple[int, ...] = ()
    data: bytes = b""
    file: str = ""
    author: str = ""
    via: str = ""
    at: float = 0.0
    lease: str = ""
    previous: int = 0
    version: int = 1
    created: int = 0
    restores: int = 0
    request: str = ""

    @property
    def alive(self) -> bool:
        """Whether the key has a value after this write."""
        return self.op == "set"

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return sum(self.sizes)


class Store(Protocol):
    """Keeps rows. Whatever cannot be kept raises `StateStorageError`; what is damaged, `StateCorruptError`."""

    id: str
    """Random, made with the store: a cursor of one store means nothing in another."""

    backed_up_by: str
    """How a store is backed up that cannot do it itself, a sentence for people; "" for one that has `backup`."""

    def begin(self) -> None:
        """Begin to write."""

    def commit(self) -> None:
        """Make everything since `begin` last."""

    def rollback(self) -> None:
        """Make everything since `begin` undone. Never raises because the store is away."""

    def revision(self) -> int:
        """Return the revision of the newest row, 0 for none; also after rows were forgotten."""

    def floor(self) -> int:
        """Return the revision up to which rows may have been forgotten."""

    def write(self, row: Row) -> None:
        """Append a row to the log, and make it what its key holds."""

    def current(self, space: str, key: str) -> Row | None:
        """Return the newest row of a key, which may be a removal; None for a key that never was, or is forgotten."""

    def row(self, revision: int) -> Row | None:
        """Return a row of the log, None if it is forgotten."""

    def scan(self, space: str, prefix: str, after: str | None, limit: int) -> list[Row]:
        """Return the newest rows of living keys without their data, by key in code-point order.

        Args:
            space: Of which space.
            prefix: What their keys begin with.
            after: Only keys behind this one; None for the first.
            limit: At most so many.
        """

    def count(self, space: str) -> int:
        """Return how many keys a space has."""

    def spaces(self) -> list[str]:
        """Return the names of the spaces that have keys, sorted."""

    def changes(self, since: int, upto: int, space: str, prefix: str, limit: int) -> list[Row]:
        """Return the rows of a space and prefix with since < revision <= upto, oldest first."""

    def recent_requests(self, limit: int) -> list[tuple[str, int]]:
        """Return the ids of the last requests that wrote, with the revisions of their rows, oldest first."""

    def filed(self) -> list[Row]:
        """Return the rows whose values are in files, oldest first, without data."""

    def leased(self) -> list[Row]:
        """Return the newest rows of living keys that live by a lease, oldest first, without data."""

    def drop_value(self, revision: int) -> None:
        """Forget the value of a row, which is no longer what its key holds."""

    def forget(self, revisions: Iterable[int]) -> None:
        """Forget rows of the log, those that there are; the newest of all only if `set_floor` goes with it."""

    def forget_key(self, space: str, key: str) -> None:
        """Forget that a removed key ever was; never called for one that is there."""

    def set_floor(self, revision: int) -> None:
        """Remember up to which revision rows may have been forgotten."""

    def idle(self) -> None:
        """Do what is better done while nobody waits. Never raises because the store is away."""

    def backup(self, target: Path) -> None:
        """Write a copy of everything but files to a new SQLite file with a table `log`; another thread, amid writes."""

    def close(self) -> None:
        """Let go of everything."""
