"""Rows of the shared state in Redis: what a batch changes, and where each row is. Runs in the state process.

Under the prefix and the name of the mesh, with `{space}` for the name of a space:

    meta              hash     format, id, revision, floor, commit
    log               hash     the row of each revision but its value, as JSON
    data              hash     the value of each revision, if it is not in a file
    current:{space}   hash     the revision of each key that ever was
    keys:{space}      zset     the keys that are there, by name
    changes:{space}   zset     the revisions of a space
    requests          zset     the revisions that have a request
    filed, leased     set      the revisions with a file, with a lease
    spaces            set      the names of spaces
    owner, alive      string   whose the state is; see `link`

A batch is kept in memory, as what each row and key was before it and what they are after it. From that
come the commands of its commit, and, the other way round, those that undo it.
"""

from __future__ import annotations

import collections
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from pyrokernel.errors import StateError, StateStorageError
from pyrokernel.stores import Row

from pyrokernel_redis.link import Command, Link, Options, Word, chunks

FORMAT = 1
"""Of what is in Redis; another one is refused, not changed."""

_PAGE = 1000
"""Rows that are asked for at once where it is not known how many are wanted."""

_BARE = [name for name in Row._fields if name != "data"]
_BEHIND_ALL = b"\xff"
"""Behind every character: no UTF-8 has such a byte."""

# One question instead of two or three, each of which waits for its answer.
_ROW = """
local at = ARGV[1]
if KEYS[3] then at = redis.call('HGET', KEYS[3], at) end
if not at then return false end
return {redis.call('HGET', KEYS[1], at), redis.call('HGET', KEYS[2], at)}
"""

_ADVICE = (
    "Redis has tools of its own: BGSAVE, and a copy of its dump.rdb and appendonlydir; large values are in the folder "
    "`values` of the state. To restore, stop the mesh, put both back, and start Redis and the mesh"
)

Place = tuple[str, str]
"""Space and key."""


class _Newest(NamedTuple):
    """The newest row of a key: its revision, 0 for none, and whether the key is there."""

    revision: int = 0
    alive: bool = False


class _Side(NamedTuple):
    """What a batch finds, or leaves."""

    rows: dict[int, Row | None]
    newest: dict[Place, _Newest]
    floor: int
    revision: int


class RedisStore:
    """Rows in a Redis.

    Args:
        options: Which Redis, and where in it.
        mesh: Whose state.
        durability: What a commit must survive.

    Attributes:
        id: As `pyrokernel.stores.Store` has it.
        backed_up_by: How it is backed up.

    Raises:
        StateStorageError: It cannot be opened.
    """

    def __init__(self, options: Options, mesh: str, durability: str = "process") -> None:
        self.backed_up_by = _ADVICE
        self._link = Link(options, mesh, durability)
        self._prefix = self._link.prefix
        self._before = self._after = _Side({}, {}, 0, 0)
        try:
            self.id = self._open()
        except BaseException:
            self._link.close()
            raise
        self.begin()

    def _open(self) -> str:
        """Read what there is, or make it; return the id."""
        meta = self._read_meta()
        if not meta:
            if self._link.ask("EXISTS", self._name("log")):
                self._refuse(f"{self._name('meta')} is gone, which says how to read the rest")
            first = {"format": str(FORMAT), "id": secrets.token_hex(8), "revision": "0", "floor": "0", "commit": "new"}
            self._link.ask("HSET", self._name("meta"), *(word for pair in first.items() for word in pair))
            meta = self._read_meta()
        if meta.get("format") != str(FORMAT):
            self._refuse(f"under {self._prefix} there is format {meta.get('format')}, and this version reads {FORMAT}")
        try:
            self._floor, self._revision = int(meta["floor"]), int(meta["revision"])
            self._link.start(meta["commit"])
            self._spaces = self._known_spaces()
            return meta["id"]
        except (KeyError, ValueError) as error:
            self._refuse(f"under {self._prefix} there is no shared state of ours: {error!r}")

    def _read_meta(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self._link.ask("HGETALL", self._name("meta")).items()}

    def _known_spaces(self) -> set[str]:
        """Return the names of spaces; those of which nothing is left, such as of queues that were used once, go."""
        names = [name.decode() for name in self._link.ask("SMEMBERS", self._name("spaces"))]
        sizes = self._link.ask_all([("HLEN", self._name("current", name)) for name in names])
        gone = [name for name, size in zip(names, sizes, strict=True) if not size]
        if gone:
            self._link.ask_all(list(chunks("SREM", self._name("spaces"), gone)))
        return set(names) - set(gone)

    # Writing

    def begin(self) -> None:
        """Begin to write."""
        self._before = _Side({}, {}, self._floor, self._revision)
        self._after = _Side({}, {}, self._floor, self._revision)

    def commit(self) -> None:
        """Make everything since `begin` last: one script, which Redis carries out as a whole."""
        before, after = self._before, self._after._replace(floor=self._floor, revision=self._revision)
        if before == after:  # nothing was written
            return
        fresh = {space for space, _ in after.newest} - self._spaces
        commands = [*chunks("SADD", self._name("spaces"), sorted(fresh)), *self._steps(before, after)]
        self._link.commit(commands, self._steps(after, before))
        self._spaces |= fresh
        self.begin()

    def rollback(self) -> None:
        """Make everything since `begin` undone."""
        self._floor, self._revision = self._before.floor, self._before.revision
        self.begin()

    def write(self, row: Row) -> None:
        """Append a row, and make it what its key holds."""
        place = (row.space, row.key)
        was = _Newest(row.previous, row.previous != 0 and row.created != row.revision)
        self._before.newest.setdefault(place, was)
        self._after.newest[place] = _Newest(row.revision, row.alive)
        self._before.rows.setdefault(row.revision, None)
        self._after.rows[row.revision] = row
        self._revision = row.revision

    def drop_value(self, revision: int) -> None:
        """Forget the value of a row."""
        row = self.row(revision)
        if row is not None:
            self._before.rows.setdefault(revision, row)
            self._after.rows[revision] = row._replace(sizes=(), data=b"", file="")

    def forget(self, revisions: Iterable[int]) -> None:
        """Forget rows."""
        wanted = list(revisions)
        unseen = [revision for revision in wanted if revision not in self._before.rows]
        for row in self._with_data(self._stored_rows(unseen)):
            self._before.rows[row.revision] = row
        self._after.rows.update(dict.fromkeys(revision for revision in wanted if revision in self._before.rows))

    def forget_key(self, space: str, key: str) -> None:
        """Forget that a removed key ever was."""
        place = (space, key)
        newest = self._after.newest.get(place)
        if newest is None:
            found, rank = self._link.ask_all(
                [("HGET", self._name("current", space), key), ("ZSCORE", self._name("keys", space), key)]
            )
            newest = _Newest(int(found or 0), rank is not None)
        if newest.revision and not newest.alive:
            self._before.newest.setdefault(place, newest)
            self._after.newest[place] = _Newest()

    def set_floor(self, revision: int) -> None:
        """Remember up to where rows may be missing."""
        self._floor = revision

    # Reading

    def revision(self) -> int:
        """Return the revision of the newest row."""
        return self._revision

    def floor(self) -> int:
        """Return the revision up to which rows may be missing."""
        return self._floor

    def current(self, space: str, key: str) -> Row | None:
        """Return the newest row of a key."""
        newest = self._after.newest.get((space, key))
        if newest is not None:
            return self.row(newest.revision) if newest.revision else None
        row = self._read_row(key, self._name("current", space))
        return None if row is None else self._after.rows.get(row.revision, row)

    def row(self, revision: int) -> Row | None:
        """Return a row of the log."""
        return self._after.rows[revision] if revision in self._after.rows else self._read_row(revision)

    def _read_row(self, which: str | int, *more: str) -> Row | None:
        """Return a row as Redis has it, by its revision, or by its key and the name of the hash of its space."""
        found = self._link.run(_ROW, [self._name("log"), self._name("data"), *more], [which])
        if found is None or found[0] is None:
            return None
        bare, data = found
        return self._decode(bare)._replace(data=data or b"")

    def scan(self, space: str, prefix: str, after: str | None, limit: int) -> list[Row]:
        """Return the newest rows of living keys without their data, by key in code-point order."""
        ours = {
            key: newest
            for (one, key), newest in self._after.newest.items()
            if one == space and key.startswith(prefix) and (after is None or key > after)
        }
        start = b"[" + prefix.encode() if after is None or after < prefix else b"(" + after.encode()
        # As many more as may turn out to be gone.
        keys = [
            key.decode()
            for key in self._link.ask(
                "ZRANGEBYLEX", self._name("keys", space), start, b"(" + prefix.encode() + _BEHIND_ALL,
                "LIMIT", 0, limit + len(ours),
            )
        ]  # fmt: skip
        theirs = [key for key in keys if key not in ours]
        found = self._link.ask("HMGET", self._name("current", space), *theirs) if theirs else []
        revisions = {key: int(revision) for key, revision in zip(theirs, found, strict=True) if revision}
        revisions |= {key: newest.revision for key, newest in ours.items() if newest.alive}
        return self._rows([revisions[key] for key in sorted(revisions)[:limit]])

    def count(self, space: str) -> int:
        """Return how many keys a space has."""
        stored = int(self._link.ask("ZCARD", self._name("keys", space)))
        return stored + self._more(space)

    def _more(self, space: str) -> int:
        """Return how many keys more a space has than before the batch."""
        touched = [place for place in self._after.newest if place[0] == space]
        return sum(self._after.newest[place].alive - self._before.newest[place].alive for place in touched)

    def spaces(self) -> list[str]:
        """Return the names of the spaces that have keys."""
        names = sorted(self._spaces | {space for space, _ in self._after.newest})
        counts = self._link.ask_all([("ZCARD", self._name("keys", name)) for name in names])
        return [name for name, count in zip(names, counts, strict=True) if count + self._more(name)]

    def changes(self, since: int, upto: int, space: str, prefix: str, limit: int) -> list[Row]:
        """Return rows of a space and prefix, oldest first."""
        found: list[Row] = []
        stored = self._before.revision
        while since < min(upto, stored) and len(found) < limit:
            page = self._link.ask(
                "ZRANGEBYSCORE", self._name("changes", space), f"({since}", min(upto, stored), "LIMIT", 0, _PAGE
            )
            rows = self._rows([int(revision) for revision in page])
            found += [row for row in rows if row.key.startswith(prefix)]
            since = int(page[-1]) if len(page) == _PAGE else stored
        since = max(since, stored)
        ours = [row for revision, row in self._after.rows.items() if row is not None and since < revision <= upto]
        found += [row for row in sorted(ours) if row.space == space and row.key.startswith(prefix)]
        return self._with_data(found[:limit])

    def recent_requests(self, limit: int) -> list[tuple[str, int]]:
        """Return the last requests with the revisions of their rows, oldest first."""
        # As many more as the batch may have forgotten.
        most = limit + len(self._after.rows)
        newest_first = self._link.ask("ZREVRANGE", self._name("requests"), 0, most - 1)
        rows = self._and_ours(map(int, newest_first), lambda row: row.request != "")
        return [(row.request, row.revision) for row in rows[-limit:]]

    def filed(self) -> list[Row]:
        """Return the rows whose values are in files, oldest first."""
        return self._and_ours(map(int, self._link.ask("SMEMBERS", self._name("filed"))), lambda row: row.file != "")

    def leased(self) -> list[Row]:
        """Return the newest rows of living keys that live by a lease."""
        stored = self._link.ask("SMEMBERS", self._name("leased"))
        rows = self._and_ours(map(int, stored), lambda row: row.lease != "" and row.alive)
        newest = self._link.ask_all([("HGET", self._name("current", row.space), row.key) for row in rows])
        return [row for row, found in zip(rows, newest, strict=True) if self._is_newest(row, found)]

    def _is_newest(self, row: Row, found: bytes | None) -> bool:
        ours = self._after.newest.get((row.space, row.key))
        return row.revision == (ours.revision if ours is not None else int(found or 0))

    # Upkeep

    def idle(self) -> None:
        """Do nothing: Redis does what it has to by itself."""

    def backup(self, target: Path) -> NoReturn:
        """Refuse.

        Raises:
            StateError: Always; the message says what to do.
        """
        raise StateError(f"no backup can be made in {target}: {self.backed_up_by}")

    def close(self) -> None:
        """Let go of it; another service may have it at once."""
        self._link.close()

    # Rows, and how they are kept

    def _name(self, what: str, space: str | None = None) -> str:
        return self._prefix + what if space is None else f"{self._prefix}{what}:{space}"

    def _and_ours(self, revisions: Iterable[int], wanted: Callable[[Row], bool]) -> list[Row]:
        """Return rows without data by their revisions, and those of the batch, if they are wanted; oldest first."""
        rows = self._rows(sorted({*revisions, *self._after.rows}))
        return [row._replace(data=b"") for row in rows if wanted(row)]

    def _rows(self, revisions: Sequence[int]) -> list[Row]:
        """Return rows as the batch leaves them, those that are not forgotten, in this order, without data."""
        stored = self._stored_rows([revision for revision in revisions if revision not in self._after.rows])
        found: Mapping[int, Row | None] = {row.revision: row for row in stored} | self._after.rows
        return [row._replace(data=b"") for revision in revisions if (row := found.get(revision)) is not None]

    def _stored_rows(self, revisions: Sequence[int]) -> list[Row]:
        """Return rows as Redis has them, without data."""
        answers = self._link.ask_all(list(chunks("HMGET", self._name("log"), revisions)))
        return [self._decode(bare) for answer in answers for bare in answer if bare]

    def _with_data(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows with their data."""
        wanted = [row.revision for row in rows if row.sizes and not row.file and row.revision not in self._after.rows]
        answers = self._link.ask_all(list(chunks("HMGET", self._name("data"), wanted)))
        found = dict(zip(wanted, (data for answer in answers for data in answer), strict=True))
        ours = {revision: row.data for revision, row in self._after.rows.items() if row is not None}
        return [row._replace(data=found.get(row.revision) or ours.get(row.revision, b"")) for row in rows]

    def _decode(self, bare: bytes) -> Row:
        try:
            fields = dict(zip(_BARE, json.loads(bare), strict=True))
            return Row(**{**fields, "sizes": tuple(fields["sizes"])})
        except (ValueError, TypeError) as error:
            self._refuse(f"a row in {self._name('log')} is none of ours: {bare[:60]!r} ({error})")

    def _refuse(self, reason: str) -> NoReturn:
        raise StateStorageError(path=f"Redis, {self._link.where}", reason=reason)

    def _steps(self, before: _Side, after: _Side) -> list[Command]:
        """Return the commands that make what was before what is to be after."""
        words: dict[tuple[str, str, int], list[Word]] = collections.defaultdict(list)

        def add(verb: str, key: str, *more: Word) -> None:
            words[verb, key, len(more)] += more

        for revision, row in after.rows.items():
            was = before.rows[revision]
            if row is not None:
                self._put_row(row, was, add)
            elif was is not None:
                self._remove_row(was, add)
        for (space, key), newest in after.newest.items():
            found = before.newest[space, key]
            if newest.revision:
                add("HSET", self._name("current", space), key, newest.revision)
            else:
                add("HDEL", self._name("current", space), key)
            if newest.alive and not found.alive:
                add("ZADD", self._name("keys", space), 0, key)
            elif found.alive and not newest.alive:
                add("ZREM", self._name("keys", space), key)
        add("HSET", self._name("meta"), "floor", after.floor, "revision", after.revision)
        return [step for (verb, key, width), found in words.items() for step in chunks(verb, key, found, width)]

    def _put_row(self, row: Row, was: Row | None, add: Callable[..., None]) -> None:
        revision = row.revision
        bare = json.dumps([getattr(row, name) for name in _BARE], separators=(",", ":"))
        add("HSET", self._name("log"), revision, bare)
        if row.data:
            add("HSET", self._name("data"), revision, row.data)
        elif was is not None and was.data:
            add("HDEL", self._name("data"), revision)
        if row.file:
            add("SADD", self._name("filed"), revision)
        elif was is not None and was.file:
            add("SREM", self._name("filed"), revision)
        if was is None:
            add("ZADD", self._name("changes", row.space), revision, revision)
            if row.request:
                add("ZADD", self._name("requests"), revision, revision)
            if row.lease:
                add("SADD", self._name("leased"), revision)

    def _remove_row(self, was: Row, add: Callable[..., None]) -> None:
        revision = was.revision
        add("HDEL", self._name("log"), revision)
        if was.data:
            add("HDEL", self._name("data"), revision)
        add("ZREM", self._name("changes", was.space), revision)
        if was.request:
            add("ZREM", self._name("requests"), revision)
        if was.file:
            add("SREM", self._name("filed"), revision)
        if was.lease:
            add("SREM", self._name("leased"), revision)
