"""What a request to run something says of itself, before it is run. Runs in the kernel process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pyrokernel.errors import ProtocolError, SettingsError
from pyrokernel.kernel.cell import MAX_SOURCE_EVENT_CHARS, listed
from pyrokernel.kernel.operations import show_operation
from pyrokernel.messages import new_id
from pyrokernel.wire import codec
from pyrokernel.wire.connection import HEADER_BYTES, Connection, IncomingMessage, peek, peek_cell
from pyrokernel.wire.trust import Peer, is_own, shown_identity

_PEEK_BYTES = 64 * 1024
"""Longer requests are listed without their source."""

_MAX_ID_CHARS = 64
_is_id = re.compile("[0-9a-f]{32}").fullmatch


def cell_id(options: Mapping[str, Any]) -> str:
    """Return the id that the client chose, a new one if it chose none.

    Raises:
        SettingsError: It is not an id.
    """
    cell = options.get("cell")
    if not cell:
        return new_id()
    if not isinstance(cell, str) or not _is_id(cell):
        raise SettingsError(f"a cell id is 32 hexadecimal digits, not {cell!r}")
    return cell


def origin(options: Mapping[str, Any], peer: Peer) -> dict[str, str]:
    """Return whose a cell is: author, client and job; of others than this account more of who and where they are."""
    found = {
        "author": shown_identity(maker(options, peer)),
        "client": str(options.get("client") or "")[:_MAX_ID_CHARS],
        "job": str(options.get("job") or "")[:_MAX_ID_CHARS],
    }
    if peer.kind != "account":
        found["kind"] = peer.kind
    if peer.address:
        found["via"] = peer.address
    if peer.through:
        found["through"] = peer.through
    return found


def maker(options: Mapping[str, Any], peer: Peer) -> str:
    """Return the identity of who asks; front ends of this account say whom they act for, of others it is known."""
    said = options.get("author")
    return f"user:{said}" if said and is_own(peer) else peer.identity


def shown(options: Mapping[str, Any]) -> str:
    """Return what is to stand for the source of a cell in lists and events, "" for itself."""
    return str(options.get("shown") or "")[:MAX_SOURCE_EVENT_CHARS]


def show_call(function: Any, options: Mapping[str, Any]) -> str:
    """Return how a call reads in lists; a part of a job, as its client wants the job to be shown."""
    if options.get("map") and shown(options):
        return shown(options)
    if type(function) is str:
        return f"{function.removeprefix(':')}(...)"
    if isinstance(function, Mapping):
        return show_operation(function, shown(options) or "reference")
    return f"{options.get('shown', 'function')}(...)"


def peek_request(connection: Connection) -> dict[str, Any] | None:
    """Describe the request that waits unread in a work connection, None if there is none (any thread)."""
    cell = peek_cell(connection)
    if not cell:
        return None
    source, options = "", {}
    try:
        data = peek(connection, _PEEK_BYTES)
        if len(data) > HEADER_BYTES and IncomingMessage(data[:HEADER_BYTES], empty=True).cell == cell:
            # Reading an envelope runs no code; our own clients send no annotations before it.
            _, method, args, _ = codec.decode(memoryview(data)[HEADER_BYTES:])
            if method == "more" and connection.kept is not None:
                return dict(connection.kept.listed(cell))
            options = args[-1] if isinstance(args[-1], dict) else {}
            source = show_call(args[0], options) if method == "call" else shown(options) or str(args[0])
    except (OSError, ProtocolError, ValueError, TypeError, IndexError):
        pass  # read meanwhile, too long, or not what our clients send: it waits all the same
    return listed(cell, source, origin(options, connection.peer))
