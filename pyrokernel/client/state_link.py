"""The way from a client to the shared state: asks, asks again when the service was away, moves large values.

Every write carries an id, by which the service knows it when it comes a second time; so a write whose
answer was lost is sent again, and still done once. Runs in the caller's process.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pyrokernel.client import inside
from pyrokernel.client.links import Link, ask
from pyrokernel.client.reference import Reference, pin
from pyrokernel.client.reference_data import from_data, from_stranger, to_data, to_own, what_it_is
from pyrokernel.errors import (
    AccessRefusedError,
    KernelConnectionError,
    KernelNotFoundError,
    MachineLostError,
    NameServerError,
    NotSerializableError,
    PyrokernelError,
    StateError,
    StateStorageError,
    StateUnavailableError,
    StateValueError,
)
from pyrokernel.messages import STATE_OBJECT
from pyrokernel.systems import own_uid
from pyrokernel.wire.codec import Buffer, Packed
from pyrokernel.wire.direct import ask_directly
from pyrokernel.wire.fanout import ConnectionLost, Request
from pyrokernel.wire.introduction import acts_for
from pyrokernel.wire.mapped import FILE_BYTES, check_size, layout, map_value, write_value
from pyrokernel.wire.trust import account
from pyrokernel.wire.values import PLAIN, Encoded, decode_value, encode_value

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh
    from pyrokernel.wire.connection import Connection

PIN = "shared state "
"""What the names begin with under which kernels keep what keys refer to; then, in JSON, space, key and time."""

log = logging.getLogger(__name__)

_PAUSES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Between tries to reach a service that is away; the last one is repeated."""
_IN_BAND_BYTES = 16 * 1024
"""Up to this a value is cheaper to copy into the request than to send beside it."""
_BACKUP_SECONDS = 3600.0

_CONTAINERS = (list, dict, set, tuple, frozenset)
_INSTEAD = (
    "an object that stays in its kernel goes under a key of its own: shared.m[key] = object in a cell of that kernel, "
    "or shared.m[key] = kernel.ref('name') from anywhere"
)


class StateLink:
    """The way to the shared state, for any thread.

    Args:
        reach: Returns the mesh; called when it is needed first.
    """

    def __init__(self, reach: Callable[[], Mesh]) -> None:
        self._reach_mesh = reach
        self._mesh: Mesh | None = None
        self.user = acts_for() or account(own_uid())
        self._known_as = ""
        self._link: Link | None = None
        self._client = os.urandom(8).hex()
        self._numbers = itertools.count(1)
        self._pid = os.getpid()

    @property
    def mesh(self) -> Mesh:
        """The mesh whose state this is."""
        if self._mesh is None:
            self._mesh = self._reach_mesh()
        return self._mesh

    def close(self) -> None:
        """Close what is idle."""
        if self._link is not None:
            self._link.close()

    def write_options(self) -> dict[str, str]:
        """Return what goes with each write: its id, and the kernel and cell that it comes from."""
        if self._pid != os.getpid():  # a forked child must not use the ids of its parent
            self._client, self._pid = os.urandom(8).hex(), os.getpid()
        return {"request": f"{self._client}{next(self._numbers):x}", "via": inside.writer()}

    def ask(
        self, method: str, *args: Any, wait: float = 0.0, changes: bool = False, patience: float | None = None
    ) -> Any:
        """Call a method of the service; when it is away, wait for it as long as the setting `timeout` says.

        Args:
            method, args: What to call; docs/protocol.md lists the methods.
            wait: Seconds that the service itself may wait before it answers.
            changes: Whether the call writes.
            patience: Seconds to wait for the service instead of those of the setting.

        Raises:
            StateUnavailableError: It is away, or does not answer.
            PyrokernelError: What it raised.
        """
        seconds = self.mesh.settings.timeout if patience is None else patience
        deadline = time.monotonic() + seconds
        start = patience is None or patience >= 1.0
        sent = False
        for attempt in itertools.count():
            link: Link | None = None
            try:
                # Whoever cannot wait starts nothing.
                link = self._reach(start=start)
                connection = link.take("work")
            except (KernelConnectionError, NameServerError) as error:
                self._pause(attempt, link, deadline, error, sent and changes, start)
                continue
            try:
                value = ask_directly(connection, STATE_OBJECT, method, args, seconds + wait, alert=not wait)
            except ConnectionLost as error:
                connection.close()
                link.close()
                sent = True
                self._pause(attempt, link, deadline, error, sent and changes, start)
                continue
            except TimeoutError as error:
                connection.close()
                reason = f"{method} was not answered in {seconds + wait:g} s"
                raise StateUnavailableError(reason=reason, unsure=changes) from error
            except PyrokernelError:
                link.give(connection)
                raise
            except BaseException:  # Ctrl-C, say: what comes on this connection now is nobody's
                connection.close()
                raise
            if not link.is_here:
                self._note_me(str(connection.greeting.get("user") or ""))
            link.give(connection)
            return value
        raise AssertionError("unreachable")

    def _note_me(self, known_as: str) -> None:
        """Learn as whom this process is known elsewhere: by a certificate, not by the name of its account here.

        A kernel is known there as its host, and goes on to take pickles of the name of its account as well: what ana
        keeps from one machine, her kernels on another one are to load.
        """
        self._known_as = known_as
        if known_as and not known_as.startswith("host:"):
            self.user = known_as

    def take_connection(self) -> Connection:
        """Return a connection for somebody who keeps it, as leases do."""
        return self._reach().take("work")

    def _reach(self, *, start: bool = True) -> Link:
        if self._link is None:
            self._link = self.mesh.find_state(start=start)
        return self._link

    def _pause(
        self, attempt: int, link: Link | None, deadline: float, error: Exception, unsure: bool, start: bool
    ) -> None:
        """Wait for the service to be there again; find out where.

        Raises:
            StateUnavailableError: It will not be, or not in time.
            StateError: It cannot be started: its files are damaged, say.
            AccessRefusedError: Somebody else has its name.
        """
        left = deadline - time.monotonic()
        lost = next((one for one in (error, error.__cause__) if isinstance(one, MachineLostError)), None)
        if left <= 0 or lost is not None:  # what restarts within seconds is no machine of which nothing is heard
            told = link.lost(lost) if lost is not None and link is not None else error
            raise StateUnavailableError(reason=str(told), unsure=unsure) from error
        if attempt and link is not None:
            try:
                # Its host knows when the next one is ready; without a host there is nobody to ask, but to try.
                self.mesh.await_state(link.instance, min(left, 5.0))
            except KernelNotFoundError as gone:
                why = self._why_gone(link, gone)
                if why:
                    # Its name goes away a moment after it was stopped, for a backup to be put in its place, say.
                    if attempt >= len(_PAUSES):
                        raise StateUnavailableError(reason=why, unsure=unsure) from error
                    time.sleep(min(left, _PAUSES[attempt]))
            except PyrokernelError:
                time.sleep(min(left, _PAUSES[min(attempt, len(_PAUSES) - 1)]))
        elif attempt:
            time.sleep(min(left, _PAUSES[min(attempt, len(_PAUSES) - 1)]))
        try:
            found = self.mesh.find_state(self._link, start=start)
        except (StateError, AccessRefusedError):
            raise
        except PyrokernelError as away:
            log.info("the shared state is not found for the moment: %s", away)
            return
        if self._link is None or (found.uri, found.instance) != (self._link.uri, self._link.instance):
            self._link = found

    def _why_gone(self, link: Link, gone: PyrokernelError) -> str:
        """Return why nobody but the one who has gone is registered, "" when there is somebody."""
        try:
            return str(gone) if self.mesh.find_state(link).instance == link.instance else ""
        except StateError:
            raise
        except PyrokernelError as error:
            return str(error)

    def backup(self, name: str) -> str:
        """Have the service make a backup; return where it is."""
        # Not through the desk, whose one thread it would keep.
        link = self._reach()
        return str(ask(link, Request(STATE_OBJECT, "backup", (name,)), _BACKUP_SECONDS))

    # Values

    def encode(self, value: Any, key: str, space: str | None = None) -> dict[str, Any]:
        """Return the fields of a write that carry a value; a large one is in a file then.

        Args:
            value: Of any class. In a kernel, what cannot be pickled stays there, and a reference to it is stored.
            key: Where it goes.
            space: Of which namespace the key is; None for a queue, which keeps no object alive.

        Raises:
            NotSerializableError: It cannot be pickled, and this is no kernel.
            ReferenceGoneError: It is a reference to what is no more.
            StateValueError: It is too large.
            StateStorageError: The disk is full, say.
        """
        if type(value) is Reference:
            return self.place(self._encode_reference(value, key, space), key)
        try:
            if isinstance(value, io.IOBase):  # cloudpickle would send what is in the file, which is not what was meant
                raise NotSerializableError(f"an open file ({type(value).__name__}) is not what is in it")
            encoded = encode_value(value)
        except NotSerializableError as error:
            stays = None if isinstance(value, _CONTAINERS) or space is None else to_own(value, key, self.mesh)
            if stays is None:
                raise NotSerializableError(f"{key!r} cannot be set: {error}; {_INSTEAD}") from error
            return self.place(self._encode_reference(stays, key, space), key)
        if encoded.kind == "pickle" and Reference.__module__.encode() in encoded.parts[0]:
            raise NotSerializableError(f"{key!r} cannot be set: there is a reference within the value; {_INSTEAD}")
        return self.place(encoded, key)

    def _encode_reference(self, reference: Reference, key: str, space: str | None) -> Encoded:
        """Return a reference in wire form, after having its kernel keep the object as long as the key does."""
        if space is None:
            raise NotSerializableError(f"a reference cannot be put into the queue {key!r}, which keeps no object alive")
        pin(reference, PIN + json.dumps([space, key, time.time()]))
        kind, summary = what_it_is(reference)
        return Encoded("reference", kind, summary, encode_value(to_data(reference)).parts)

    def place(self, encoded: Encoded, key: str) -> dict[str, Any]:
        """Return the fields of a write that carry a value in wire form."""
        size = encoded.size_bytes
        fields: dict[str, Any] = {"kind": encoded.kind, "type": encoded.type, "summary": encoded.summary}
        check_size(key, encoded.type, size)
        if size <= FILE_BYTES or self.mesh.settings.portable or not self._reach().is_here:
            alone = len(encoded.parts) == 1 and size <= _IN_BAND_BYTES
            fields["value"] = bytes(encoded.parts[0]) if alone else Packed(encoded.parts[0], encoded.parts[1:])
            return fields
        sizes = [len(part) for part in encoded.parts]
        handed = self.ask("stage", layout(sizes)[1])
        try:
            write_value(handed["path"], encoded.parts)
        except AccessRefusedError:
            raise  # an OSError too, and none of the disk's
        except OSError as error:
            raise StateStorageError(path=handed["path"], reason=str(error.strerror or error)) from error
        return {**fields, "file": handed["name"], "sizes": sizes}

    def fetch(self, found: Sequence[Any]) -> tuple[Buffer, ...] | None:
        """Return the parts of a value that the service answered; None when its file was replaced meanwhile."""
        value = found[4]
        if isinstance(value, bytes):
            return (value,)
        if isinstance(value, Packed):
            return (value.data, *value.buffers)
        if value is None:
            raise AccessRefusedError(
                f"this value is a pickled {found[2]}, set by {found[3]}, and who may only look gets plain data: "
                "ask an admin of the mesh for the role user, or whoever set it for plain data"
            )
        try:
            return map_value(value["path"], value["sizes"])
        except AccessRefusedError:
            raise  # an OSError too, and none of the disk's
        except OSError as error:
            # Each array keeps a descriptor for as long as it lives: of very many at once there are too few.
            reason = f"it cannot be mapped: {error.strerror or error}"
            raise StateValueError(key="a value in a file", type=found[2], author=found[3], reason=reason) from error

    def decode(self, key: str, found: Sequence[Any], parts: Sequence[Buffer]) -> Any:
        """Return the value itself, if it may be loaded here; a reference of a stranger's moves nothing but data.

        Args:
            key: Whose it is.
            found: As the service answered: revision, kind, type, author, value.
            parts: Of the value.

        Raises:
            StateValueError: Its author is not trusted, or it needs what is not installed here.
        """
        _, kind, name, author, _ = found
        trusted = author in (self.user, self._known_as or self.user) or author in self.mesh.settings.trusted
        if kind not in PLAIN and not trusted:
            reason = (
                f"it is a pickled object, which runs code when it is loaded; to trust {author}, add trust={author!r}"
            )
            raise StateValueError(key=key, type=name, author=author, reason=reason + " to the settings")
        try:
            value = decode_value(kind, parts)
            if kind == "reference" and not trusted:
                return from_stranger(value, self.mesh)
        except PyrokernelError as error:
            raise StateValueError(key=key, type=name, author=author, reason=str(error)) from error
        return from_data(value) if kind == "reference" else value
