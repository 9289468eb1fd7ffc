"""Who may ask for what: roles and limits, checked before it is done. Runs in every process that is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from Pyro5.core import DAEMON_NAME
from Pyro5.protocol import FLAGS_BATCH, FLAGS_COMPRESSED, FLAGS_KEEPSERIALIZED, FLAGS_ONEWAY
from Pyro5.serializers import JsonSerializer, SerpentSerializer, serializers_by_id

from pyrokernel.errors import ProtocolError, PyrokernelError
from pyrokernel.roles import Role
from pyrokernel.wire.connection import MSG_INVOKE, Connection, IncomingMessage
from pyrokernel.wire.exposing import DAEMON_ROLES, marked_role, refusal
from pyrokernel.wire.greeting import PLAIN_SERIALIZERS
from pyrokernel.wire.limits import Limits, Turns
from pyrokernel.wire.opcodes import SmallRequest
from pyrokernel.wire.trust import Peer

__all__ = ["WAITING_METHODS", "Admission", "Objects", "OnRefused", "request_in"]

_SERIALIZERS = frozenset({SerpentSerializer.serializer_id, JsonSerializer.serializer_id})
"""Those of Pyro's own that are decoded at all: no marshal, no msgpack, from nobody."""

_MAX_LOOKS = 100
"""Calls in one batch of somebody who may only look: as limits count them, a batch is one request."""

WAITING_METHODS = frozenset({"follow", "reply", "await_kernel", "obituary", "deaths", "start_state"})
"""What an observer may ask for that waits: not in a turn, for which all other observers wait."""

OnRefused = Callable[[Peer, str, Role], None]
"""Told who asked for what, and which role that takes."""


class Objects(dict[str, Any]):
    """The objects of one daemon by id; also by the id that other machines use, which ends with a word for its socket.

    Args:
        objects: They, by their ids.
        word: Which stands for the socket: `OBJECT/WORD`.

    Attributes:
        offered: Of those that are a user's own, by id, what Pyro says of their members.
    """

    def __init__(self, objects: Mapping[str, Any], word: str) -> None:
        super().__init__(objects)
        self._suffix = f"/{word}"
        self.offered: dict[str, Any] = {}

    def id_of(self, object_id: str) -> str:
        """Return the id by which an object is kept: who decides about it, and who serves it, mean the same one."""
        return object_id.removesuffix(self._suffix)

    def get(self, object_id: str, default: Any = None) -> Any:
        """Return an object by its id here or elsewhere; what Pyro asks for comes by here, too."""
        return super().get(self.id_of(object_id), default)


class Admission:
    """Checks what is asked of the objects of one daemon.

    Args:
        served: They.
        limits: How much one user may ask for.
        on_refused: Told, on any thread, of whoever asked for more than their role is for.
    """

    def __init__(self, served: Objects, limits: Limits, on_refused: OnRefused) -> None:
        self._served = served
        self.limits = limits
        self._on_refused = on_refused
        self.turns = Turns()

    def check_connection(self, peer: Peer) -> None:
        """Refuse a connection of somebody who may nothing, or has too many; a good one is counted.

        Raises:
            AccessRefusedError: It is refused.
        """
        if peer.role < Role.OBSERVER:
            self._refuse(peer, "a connection", Role.OBSERVER)
        self.limits.arrive(peer)

    def needed_role(self, object_id: str, method: str) -> Role:
        """Return the least role that a method of an object takes; what nobody has marked takes the highest.

        Of a user's own object, whatever it is marked with, each method runs code, and so does reading a property.
        """
        served, object_id = self._served.get(object_id), self._served.id_of(object_id)
        if object_id in self._served.offered:  # whatever it is called
            return Role.USER
        if object_id == DAEMON_NAME:
            return DAEMON_ROLES.get(method, Role.ADMIN)
        marked = marked_role(served, method)
        return Role.ADMIN if marked is None else marked

    def _knows(self, object_id: str, method: str) -> bool:
        """Whether there is such a method, as far as that can be said without running code of the object's."""
        served = self._served.get(object_id)
        return served is not None and inspect.getattr_static(type(served), method, None) is not None

    def check_role(self, peer: Peer, object_id: Any, method: Any) -> None:
        """Refuse a call that takes a higher role.

        Raises:
            AccessRefusedError: So it does.
        """
        if peer.role < Role.ADMIN:
            needed = self.needed_role(str(object_id), str(method))
            if peer.role < needed:
                # A name that somebody made up is no news, and could be another one each time.
                known = self._knows(str(object_id), str(method))
                self._refuse(peer, f"`{method!s:.80}`" if known else "what there is not", needed)

    def open(self, conn: Connection, message: IncomingMessage) -> tuple[Any, Any, Any, Any]:
        """Return object, method, arguments and named arguments of a request in our codec that its peer may make.

        Raises:
            AccessRefusedError: It may not.
            ProtocolError: It is none.
        """
        if conn.peer.role >= Role.ADMIN:
            return request_in(message)
        self.limits.pace(conn.peer)
        if conn.peer.role >= Role.USER:
            object_id, method, args, kwargs = request_in(message)
            self.check_role(conn.peer, object_id, method)
            return object_id, method, args, kwargs
        with self.turns.of(conn.peer):
            request = SmallRequest(message.payload)
            self.check_role(conn.peer, request.object_id, request.method)
            return request.object_id, request.method, *request.arguments()

    def check_stock(self, conn: Connection, message: IncomingMessage) -> bool:
        """Refuse a message in Pyro's own protocol that its peer may not send; say whether what it asks for waits.

        Raises:
            AccessRefusedError: So it is.
            ProtocolError: It is in a serializer or a form that is taken from nobody.
        """
        is_call = message.type == MSG_INVOKE
        if is_call and (message.serializer_id not in _SERIALIZERS or message.flags & FLAGS_KEEPSERIALIZED):
            raise ProtocolError(f"serializer {message.serializer_id} is decoded from nobody: use serpent or JSON")
        if conn.peer.role >= Role.ADMIN:
            return False
        if message.flags & FLAGS_COMPRESSED:
            raise ProtocolError("what is compressed may be of any size: only an admin sends that")
        self.limits.pace(conn.peer)
        if not is_call:
            return False
        if message.flags & FLAGS_ONEWAY and conn.peer.role < Role.USER:
            raise ProtocolError("a call that nobody waits for has a thread of its own: whoever may only look waits")
        # Of whoever may run code a stock client may also send proxies: to call back, say.
        with self.turns.of(conn.peer):
            asked = _asked(message, PLAIN_SERIALIZERS if conn.peer.role < Role.USER else serializers_by_id)
        if len(asked) > _MAX_LOOKS and conn.peer.role < Role.USER:
            raise ProtocolError(f"whoever may only look asks for {_MAX_LOOKS} things at once at most")
        for object_id, method in asked:
            self.check_role(conn.peer, object_id, method)
        waits = any(method in WAITING_METHODS for _, method in asked)
        if waits and len(asked) > 1 and conn.peer.role < Role.USER:
            raise ProtocolError("what waits is asked for by itself by whoever may only look")
        return waits

    def _refuse(self, peer: Peer, what: str, needed: Role) -> None:
        self._on_refused(peer, what.strip("`"), needed)
        raise refusal(peer, what, needed)


def _asked(message: IncomingMessage, serializers: Mapping[int, Any]) -> list[tuple[str, str]]:
    """Return object and method of each call in a request of Pyro's own."""
    try:
        object_id, method, args, _ = serializers[message.serializer_id].loadsCall(bytes(message.payload))
        methods = [one[0] for one in args] if message.flags & FLAGS_BATCH else [method]
    except PyrokernelError:
        raise
    except Exception as error:  # whatever is wrong with what a peer sends
        raise ProtocolError(f"a request does not parse: {error!r:.200}") from error
    return [(str(object_id), str(one)) for one in methods]


def request_in(message: IncomingMessage) -> tuple[Any, Any, Any, Any]:
    """Return object, method, arguments and named arguments of a request in our codec.

    Raises:
        ProtocolError: It is none.
    """
    found = message.decode()
    if not isinstance(found, (tuple, list)) or len(found) != 4:
        raise ProtocolError("a request has object, method, arguments and named arguments")
    object_id, method, args, kwargs = found
    if not (isinstance(object_id, str) and isinstance(method, str)):
        raise ProtocolError("object and method of a request are texts")
    if not isinstance(args, (tuple, list)) or not isinstance(kwargs, dict):
        raise ProtocolError("the arguments of a request are a tuple and a dict")
    return object_id, method, args, kwargs
