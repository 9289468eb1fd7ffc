"""What a stock Pyro5 client can ask of the shared state: plain data only. Runs in the state process, on its threads.

Our own clients do not come this way: the desk reads their requests itself.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, TypeVar

from pyrokernel.errors import NotSerializableError, StateKeyError
from pyrokernel.roles import Role
from pyrokernel.state.backups import Backups
from pyrokernel.state.desk import Desk
from pyrokernel.state.service import Caller, StateService
from pyrokernel.wire.codec import Packed
from pyrokernel.wire.daemon import current_peer
from pyrokernel.wire.exposing import expose
from pyrokernel.wire.large import join
from pyrokernel.wire.values import SCALARS, decode_value, encode_value

T = TypeVar("T")

_SECONDS = 30.0


class StockState:
    """The exposed object; docs/protocol.md describes its methods.

    Args:
        desk: Where requests are carried out.
        service: Which carries them out.
        backups: Where backups are made.
    """

    def __init__(self, desk: Desk, service: StateService, backups: Backups) -> None:
        self._desk, self._service, self._backups = desk, service, backups

    @expose(Role.OBSERVER)
    def ping(self) -> str:
        """Answer with the instance id."""
        return self._service.ping(self._caller())

    @expose(Role.OBSERVER)
    def describe(self) -> dict[str, Any]:
        """Say what this service is, and how much it keeps."""
        return self._do(self._service.describe)

    @expose(Role.OBSERVER)
    def keys(self, prefix: str = "", space: str = "") -> list[str]:
        """Return keys in order, the first 10,000."""
        return self._do(lambda caller: self._service.keys(caller, space, prefix))

    @expose(Role.OBSERVER)
    def entries(self, prefix: str = "", space: str = "") -> list[dict[str, Any]]:
        """Return what is known of keys but their values, of the first 10,000."""
        return self._do(lambda caller: self._service.entries(caller, space, prefix))

    @expose(Role.OBSERVER)
    def get(self, key: str, space: str = "") -> Any:
        """Return a number, text or bytes.

        Raises:
            StateKeyError: There is no such key.
            NotSerializableError: It is something else.
        """
        found = self._do(lambda caller: self._service.get(caller, space, key))
        if found is None:
            raise StateKeyError(key=key)
        _, kind, name, _, value = found
        if kind not in SCALARS:
            raise NotSerializableError(f"{key!r} is a {name}; execute `shared.m[{key!r}]` in a kernel to read it")
        return decode_value(kind, (join(value.data) if isinstance(value, Packed) else value,))

    @expose(Role.USER)
    def set(self, key: str, value: Any, space: str = "") -> int:
        """Set a key to a number, text or bytes; return the revision."""
        encoded = encode_value(_bytes_of(value))
        if encoded.kind not in SCALARS:
            raise NotSerializableError(f"a {encoded.type} is set from a kernel or a Python client only")
        kind, name, summary, parts = encoded
        write = {"op": "set", "key": key, "kind": kind, "type": name, "summary": summary, "value": parts[0]}
        return int(self._do(lambda caller: self._service.write(caller, space, [write]))[0][0])

    @expose(Role.USER)
    def delete(self, key: str, space: str = "") -> int:
        """Delete a key; return the revision."""
        return int(self._do(lambda caller: self._service.write(caller, space, [{"op": "delete", "key": key}]))[0][0])

    @expose(Role.USER)
    def increment(self, key: str, amount: float = 1, space: str = "") -> Any:
        """Add to a number, which begins at 0; return what it is now."""
        write = {"op": "increment", "key": key, "amount": amount}
        text = self._do(lambda caller: self._service.write(caller, space, [write]))[0][2]
        return int(text) if isinstance(amount, int) and text.lstrip("-").isdecimal() else float(text)

    @expose(Role.ADMIN)
    def backup(self, name: str = "") -> str:
        """Make a backup while the state is in use; return its path."""
        return str(self._backups.make(name))

    def _caller(self) -> Caller:
        return Caller(user=current_peer().author, role=current_peer().role)

    def _do(self, ask: Callable[[Caller], T]) -> T:
        caller = self._caller()
        return self._desk.submit(lambda: ask(caller)).result(_SECONDS)


def _bytes_of(value: Any) -> Any:
    """Return bytes that serpent has spelled as a dict, anything else as it is; no dict is stored here anyway."""
    if isinstance(value, dict) and value.keys() == {"data", "encoding"} and value["encoding"] == "base64":
        return base64.b64decode(value["data"], validate=True)
    return value
