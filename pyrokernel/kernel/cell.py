"""A cell: one request to run something, and how lists show it. Runs in the kernel process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.messages import new_id
from pyrokernel.wire.codec import Packed

if TYPE_CHECKING:
    from pyrokernel.kernel.chunk import Chunk
    from pyrokernel.kernel.yielding import Yields

MAX_SOURCE_EVENT_CHARS = 64 * 1024
MAX_SOURCE_LISTED_CHARS = 200


@dataclasses.dataclass(eq=False, init=False)
class Cell:
    """One request to run something.

    Args:
        source, fields: Attributes; what is not given has the value below, the id is a new one.

    Attributes:
        source: What is run; for a call, how it reads.
        shown: What stands for the source in lists and events, "" for itself.
        call: The function (by name, pickled, or itself), its arguments, and whether it is mapped over items
            ("calls": each a whole call); or None.
        want: "none", "text", "mime" or "value".
        plain: The client reads no pickles.
        author, client: Who sent it, and by which client: its id, "" where it has none.
        kind: What the author is: "user" or "host", "" for this account.
        via: "HOST:PORT" from where, "" for this machine.
        through: The host that has let the author in, "" for none.
        job: Id of the job it is a part of, "" for none.
        waiters: (kernel, instance) of the kernels that wait for it.
        namespace, filename: Where it runs, and how tracebacks call it ("" for its number).
        argv: `sys.argv` of a script, None for what is none.
        yields: Takes the values of a generator for a client that reads them one by one; None when nobody does.
        lend: Makes of a value what travels in its place, for an operation on a reference; None for other cells.
        data: Only plain data and arrays travel, packed so that any peer can load them.
        begin: Called when it starts.
        started: Since when it runs, Unix time in seconds; 0 before.
        chunk: What becomes of its items, when it is mapped over some.
    """

    source: str
    id: str = ""
    call: tuple[Any, Packed, bool | str] | None = None
    want: str = "text"
    plain: bool = False
    author: str = ""
    client: str = ""
    kind: str = ""
    via: str = ""
    through: str = ""
    job: str = ""
    waiters: Sequence[tuple[str, str]] = ()
    namespace: str = ""
    filename: str = ""
    argv: Sequence[str] | None = None
    shown: str = ""
    max_result_bytes: int = 64 * 1024 * 1024
    begin: Callable[[], None] | None = None
    yields: Yields | None = None
    lend: Callable[[Any], Any] | None = None
    data: bool = False
    state: str = "new"
    started: float = 0.0
    chunk: Chunk | None = None
    reply: dict[str, Any] | None = None
    size: int = 0

    def __init__(self, source: str, **fields: Any) -> None:
        self.source = source
        self.__dict__.update(fields)  # a quarter of the time of setting each of them
        if not self.id:
            self.id = new_id()

    @property
    def title(self) -> str:
        """What lists and events say was run."""
        return self.shown or self.source

    @property
    def origin(self) -> dict[str, str]:
        """Whose it is, as lists and events have it; of what kind, and where from, only where that is another's."""
        told = {"author": self.author, "client": self.client, "job": self.job}
        if not self.kind:
            return told
        return told | {name: said for name in ("kind", "via", "through") if (said := getattr(self, name))}


def listed(cell: str, source: str, origin: Mapping[str, str]) -> dict[str, Any]:
    """Return what lists of cells say of each: id, source, author, client, job."""
    return {"cell": cell, "source": short(source, MAX_SOURCE_LISTED_CHARS), **origin}


def ending(cell: Cell) -> dict[str, Any]:
    """Return what lists of cells say of one that has ended."""
    reply = cell.reply or {}
    ending = {name: reply[name] for name in ("status", "execution_count", "started", "duration", "ename")}
    ending["evalue"] = reply["evalue"][:MAX_SOURCE_LISTED_CHARS]
    chunk = cell.chunk
    return ending | ({"items": chunk.called, "failed": chunk.failed} if chunk and chunk.called else {})


def short(source: str, limit: int = MAX_SOURCE_EVENT_CHARS) -> str:
    """Return the beginning of a source, and how much more there is."""
    if len(source) <= limit:
        return source
    return f"{source[:limit]}\n# ... {len(source) - limit} characters more"
