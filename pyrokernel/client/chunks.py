"""Chunks: the items of a job that travel together, and what comes back for each. Runs in the caller's process."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pyrokernel.client.backlog import Span
from pyrokernel.client.calls import kernel_request
from pyrokernel.client.links import Link
from pyrokernel.client.parcels import explain, read_reply
from pyrokernel.errors import (
    KernelConnectionError,
    KernelDiedError,
    KernelRestartedError,
    NotSerializableError,
    PyrokernelError,
    RemoteError,
    ReplyTimeoutError,
    SettingsError,
)
from pyrokernel.messages import KERNEL_OBJECT
from pyrokernel.texts import label
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.fanout import Request

_MAX_RESULT_BYTES = 1 << 30
_SHOWN_CHARS = 60
_SHOWN_ITEMS = 4
_CALL = "(args, kwargs), such as ((1000,), {'bins': 10})"
_BRACKETS: dict[type, tuple[str, str]] = {list: ("[", "]"), tuple: ("(", ")"), dict: ("{", "}")}
_TELLING = frozenset(["datetime", "decimal", "fractions", "pathlib", "uuid"])
"""Modules whose objects have short reprs; any other class might run anything, or write a gigabyte."""


@dataclasses.dataclass(eq=False, slots=True)
class Line:
    """What one life of a kernel has of a job.

    Attributes:
        link: The way to it.
        chunks: What was sent and is not answered, in this order; without what was taken back whole.
        items: How many items these have.
        withdrawn: How many that were taken back whole it has not read yet.
        cells: Ids of all that was ever sent to it, with their places in that order.
        last: Place of the last one that can have begun before its kernel died, None while that lives.
        equipped: Whether the connection has had a request that says what is called.
    """

    link: Link
    chunks: list[Chunk] = dataclasses.field(default_factory=list)
    items: int = 0
    withdrawn: int = 0
    cells: dict[str, int] = dataclasses.field(default_factory=dict)
    last: int | None = None
    equipped: bool = False

    @property
    def idle(self) -> bool:
        """Whether it has nothing of the job, and would begin at once with something."""
        return not self.chunks and not self.withdrawn

    def append(self, chunk: Chunk) -> None:
        """Put a chunk behind those that were sent before."""
        chunk.line = self
        self.chunks.append(chunk)
        self.items += len(chunk.items)
        self.cells[chunk.cell] = len(self.cells)

    def remove(self, chunk: Chunk) -> bool:
        """Strike off a chunk; False when it was before."""
        chunks = self.chunks
        if chunks and chunks[0] is chunk:
            del chunks[0]
        elif chunk in chunks:
            chunks.remove(chunk)
        else:
            return False
        self.items -= len(chunk.items)
        return True

    def explain(self, error: KernelConnectionError) -> KernelConnectionError:
        """Return what to say of a chunk without an answer, before the first of those is struck off.

        A kernel that had something of the job has died, also for what was sent to it after that; what a kernel begins
        next it reads after the answer to the one before has left.
        """
        death = error.__cause__ if isinstance(error, KernelRestartedError) else error
        if not isinstance(death, KernelDiedError):
            return error
        first = self.cells[self.chunks[0].cell] if self.chunks else len(self.cells)
        if death is not error:
            if self.last is None and first == 0 and self.died_in(death) is None:
                return error  # it was gone before the job: a fresh namespace may lack what the function needs
            first -= 1
        if self.last is None:
            self.last = first
        return death

    def never_began(self, chunk: Chunk, error: BaseException) -> bool:
        """Whether a chunk without an answer cannot have begun before its kernel died.

        Where answers that have left arrive, it is behind the first that has none. In what it died is known besides, if
        that was of this job.
        """
        if not isinstance(error, KernelDiedError):
            return False
        place, died_in = self.cells[chunk.cell], self.died_in(error)
        is_behind = self.link.keeps_answers and self.last is not None and place > self.last
        return is_behind or (died_in is not None and place > died_in)

    def died_in(self, error: BaseException | None) -> int | None:
        """Return the place of what it died in, None where that is not known or was nothing of the job."""
        last = error.last_cell if isinstance(error, KernelDiedError) else None
        return self.cells.get(last["cell"]) if last else None


@dataclasses.dataclass(eq=False, slots=True)
class Chunk:
    """Consecutive items.

    Attributes:
        first: Index of the first in the job.
        items: The items; shape (n_items,). Fewer, once the last of them were taken back.
        retries: How often it may be sent again when its kernel has died.
        calls: Whether each item is a whole call, (args, kwargs), and not the one argument of it.
        cell, line: As what it was sent, and behind which others.
        size_bytes: What its items take, once there is a request.
        since: Since when nothing of the job is before it in its kernel, as a monotonic moment.
        asked: Whether its kernel is being asked to give back what it has not begun.
        begun: Whether there was nothing more to give back.
    """

    first: int
    items: list[Any]
    retries: int
    calls: bool = False
    cell: str = ""
    size_bytes: int = 0
    since: float = 0.0
    asked: bool = False
    begun: bool = False
    line: Line = dataclasses.field(init=False)

    def request(self, function: str | Packed, about: Mapping[str, str], *, kept: bool = False) -> Request:
        """Make the request that calls a function with each item, or makes each of the calls.

        Args:
            function: A dotted name, or a function pickled.
            about: What the request says of its job: client, job, shown.
            kept: Whether the connection had such a request of this job before; the kernel keeps what is the same.

        Raises:
            NotSerializableError: An item cannot be pickled; the message names it when it is the only one.
            MessageTooLargeError: All of it is more than one message may have.
        """
        try:
            arguments = Packed.dump((self.items, {}))
        except NotSerializableError as error:
            if len(self.items) > 1:
                raise
            item = self._show(self.items[0])
            which = f"call {self.first} {item}" if self.calls else f"item {self.first} ({item})"
            raise explain(which, error) from error
        self.size_bytes = arguments.size_bytes
        if kept:
            return Request(KERNEL_OBJECT, "more", (arguments.slim(), self.cell), None, self.cell)
        options = {
            "cell": self.cell,
            "map": "calls" if self.calls else True,
            "want": "value",
            **about,
            "max_result_bytes": _MAX_RESULT_BYTES,
            "keep": True,
        }
        return kernel_request("call", function, arguments, options, cell=self.cell)

    def span(self, kept: int = 0) -> Span:
        """Return which items of the job it has, without so many of the first."""
        return Span(self.first + kept, self.first + len(self.items), self.retries)

    def halves(self) -> list[Span]:
        """Return its items in two; nothing when it has one only."""
        middle = len(self.items) // 2
        return [Span(self.first, self.first + middle, self.retries), self.span(middle)] if middle else []

    def outcomes(self, answer: Any) -> Outcome:
        """Return what a kernel answered.

        Raises:
            PyrokernelError: The chunk failed as a whole.
        """
        if answer is None:  # the connection is a new one, and keeps nothing yet
            return Outcome([], {}, 0.0, 0)
        if type(answer) is bytes:
            found, size_bytes = Packed(answer).load(), len(answer)
        else:
            reply = read_reply(answer)
            found, size_bytes = reply.result, reply.value.size_bytes
        values = found["values"]
        failures: dict[int, PyrokernelError] = {}
        for offset, failure in found["failures"]:
            values[offset] = failures[offset] = self._failure(offset, failure)
        return Outcome(values, failures, found["seconds"], size_bytes)

    def _failure(self, offset: int, wire: dict[str, Any]) -> RemoteError:
        return RemoteError(
            kernel=self.line.link.name,
            ename=wire["error"],
            evalue=wire["message"],
            traceback=wire["traceback"],
            cell=self.cell,
            index=self.first + offset,
            item=self._show(self.items[offset]),
        )

    def _show(self, item: Any) -> str:
        return show_call(*item) if self.calls else show_item(item)

    def mark(self, error: PyrokernelError) -> PyrokernelError:
        """Note on an error of the whole chunk which items it cost."""
        indices = range(self.first, self.first + len(self.items))
        error.add_note(f"{show_indices(indices)} of the job got no result; results(check=False) returns the others")
        return error


class Outcome(NamedTuple):
    """What came of the items of a chunk that were begun, which are all unless the rest was taken back.

    Attributes:
        results: In order, exceptions in the places of those that failed; shape (n_begun,).
        failures: These exceptions by their positions.
        seconds: How long the calls took.
        size_bytes: What the results took on their way.
    """

    results: list[Any]
    failures: Mapping[int, PyrokernelError]
    seconds: float
    size_bytes: int


def check_calls(calls: Iterable[Any], first: int = 0) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return calls as they travel.

    Args:
        calls: Each (args, kwargs): a sequence and a mapping.
        first: Index of the first of them in the job.

    Raises:
        SettingsError: One is something else; the message has its index.
    """
    return [_check_call(call, index) for index, call in enumerate(calls, first)]


def _check_call(call: Any, index: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not isinstance(call, (tuple, list)) or len(call) != 2:
        raise SettingsError(f"call {index} is {_CALL}, not {show_item(call)}")
    args, kwargs = call
    if not isinstance(args, Sequence) or isinstance(args, (str, bytes, bytearray, memoryview)):
        raise SettingsError(f"the args of call {index} are a tuple or list, as in {_CALL}, not {show_item(args)}")
    if not isinstance(kwargs, Mapping):
        raise SettingsError(f"the kwargs of call {index} are a dict, as in {_CALL}, not {show_item(kwargs)}")
    for name in kwargs:
        if not isinstance(name, str):
            raise SettingsError(f"the kwargs of call {index} have names of type str, not {show_item(name)}")
    return tuple(args), dict(kwargs)


def show_item(item: Any) -> str:
    """Return an item as a short text; runs no `__repr__` of a user's class."""
    try:
        text = _show(item, 2)
    except Exception:  # noqa: BLE001  a metaclass, or a subclass of something here, may raise anything
        return "an item that cannot be shown"
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 4] + " ..."


def show_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the arguments of a call as a short text, such as "(1000, bins=10)"; as `show_item`."""
    shown = [show_item(value) for value in itertools.islice(args, _SHOWN_ITEMS)]
    shown += [
        f"{name}={show_item(value)}"
        for name, value in itertools.islice(kwargs.items(), max(1, _SHOWN_ITEMS - len(shown)))
    ]
    more = len(args) + len(kwargs) > len(shown)
    text = ", ".join(shown + ["..."] * more)
    return f"({text if len(text) <= _SHOWN_CHARS - 2 else text[: _SHOWN_CHARS - 6] + ' ...'})"


def _show(item: Any, depth: int) -> str:
    kind = type(item)
    if kind in (str, bytes, bytearray):
        return repr(item) if len(item) <= _SHOWN_CHARS else repr(item[:_SHOWN_CHARS]) + " ..."
    if kind is int:
        return str(item) if item.bit_length() <= 200 else f"<int of {item.bit_length()} bits>"
    library = kind.__module__.partition(".")[0]
    if item is None or kind in (bool, float, complex, range) or library in _TELLING:
        return repr(item)
    if library == "numpy" and getattr(item, "ndim", 1) == 0:
        return repr(item)
    if kind in _BRACKETS and depth:
        shown = [_show(one, depth - 1) for one in itertools.islice(item, _SHOWN_ITEMS)]
        if kind is dict:
            values = [_show(one, depth - 1) for one in itertools.islice(item.values(), _SHOWN_ITEMS)]
            shown = [f"{key}: {value}" for key, value in zip(shown, values, strict=True)]
        left, right = _BRACKETS[kind]
        return left + ", ".join(shown + ["..."] * (len(item) > _SHOWN_ITEMS)) + right
    shape = f" of shape {item.shape}" if library in ("numpy", "pandas") and hasattr(item, "shape") else ""
    return f"<{kind.__name__}{shape}>"


def show_indices(indices: Iterable[int]) -> str:
    """Name items briefly, such as "items 0 to 3, 7"; at most four runs of them.

    Args:
        indices: In ascending order, at least one.
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:_SHOWN_ITEMS]]
    more = sum(last - first + 1 for first, last in runs[_SHOWN_ITEMS:])
    noun = "item" if runs == [[runs[0][0]] * 2] else "items"
    return f"{noun} {', '.join(parts)}" + (f" and {more} more" if more else "")


def out_of_time(seconds: float, done: int, total: int, busy: Sequence[str]) -> ReplyTimeoutError:
    """Return the error of the items without a result when the time of their job has passed.

    Args:
        seconds: Its time.
        done, total: How many items have a result, of how many.
        busy: Names of the kernels where chunks go on.
    """
    goes_on = f"; chunks of it go on in {label(busy)}: job.cancel() stops them" if busy else ""
    message = f"the job ran out of its {seconds:g} s with {done} of {total} items done{goes_on}"
    return ReplyTimeoutError(message, seconds=seconds, cell="", replies={}, missing=tuple(busy))


def nobody_left(kernels: Sequence[str], left: Sequence[int]) -> KernelConnectionError:
    """Return the error of the items that no kernel is left to run.

    Args:
        kernels: Names of the kernels of the job.
        left: Indices of the items.
    """
    nothing = f"; {show_indices(left)} got no result" if left else ""
    return KernelConnectionError(
        f"no kernel is left to run the job: {label(kernels)} ended, and nothing took the place{nothing}. "
        "`pyrokernel ps` says why they ended, group.restart() starts them afresh; then map these items again"
    )
