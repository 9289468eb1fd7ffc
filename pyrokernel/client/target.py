"""Target: what a reference leads to, and how to get there. Runs in the caller's process.

What is done to it is done to the object, as a cell of its kernel; what comes back and stays there is a target again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyrokernel.client import keeper, reaching
from pyrokernel.client.parcels import pack_arguments
from pyrokernel.client.streams import pause_streams
from pyrokernel.client.urls import ReferenceUrl
from pyrokernel.errors import (
    AccessRefusedError,
    KernelConnectionError,
    KernelDiedError,
    KernelRestartedError,
    NotSerializableError,
    PyrokernelError,
    ReferenceGoneError,
    RemoteError,
    ResultUnavailableError,
    SettingsError,
)
from pyrokernel.messages import KernelStatus, Lent, Reply, new_id
from pyrokernel.settings import parse_span
from pyrokernel.wire.codec import Packed

if TYPE_CHECKING:
    from pyrokernel.client.kernel import Kernel
    from pyrokernel.client.mesh import Mesh

NAMES_SECONDS = 0.3
"""How long Tab waits for the names of an object."""

_REPR_SECONDS = 1.0
_REPR_CHARS = 2000
_AGAIN_SECONDS = 1.0


class Target:
    """What a `Reference` leads to, and how to get there.

    Attributes:
        kernel, instance: Where the object is, and in which life of that kernel.
        lent: What the kernel says of it.
        of: For a method, the reference that it belongs to.
        parked, collected, released: Whether it was pickled; its handle is gone; it was given back by `release`.
        address: Where its mesh is found: address of the name server, and name.
    """

    def __init__(self, kernel: str, instance: str, lent: Lent, mesh: Mesh | tuple[str, str]) -> None:
        self.kernel, self.instance, self.lent = kernel, instance, lent
        self._mesh: Mesh | None = None
        if isinstance(mesh, tuple):
            self.address = mesh
        else:
            self._mesh, self.address = mesh, (mesh.settings.ns_address, mesh.settings.mesh)
        self.of: object = None
        self.parked = self.collected = self.released = False
        self._held = False
        self._methods: dict[str, Lent] = {}

    @property
    def mesh(self) -> Mesh:
        """The mesh, reached at first need."""
        if self._mesh is None:
            self._mesh = reaching.reach(*self.address)
        return self._mesh

    def hold(self, *, leased: bool) -> None:
        """Have the reference renewed from now on."""
        if self.lent.lease:
            self._held = True
            self.mesh.holding(self.kernel, self.instance).take(self.lent.token, self.lent.times, leased=leased)
            if self.collected:  # meanwhile
                self.let_go()

    def hold_soon(self) -> None:
        """Have a reference that was unpickled renewed at once, by the keeper: finding its mesh may take long."""

        def hold() -> bool:
            if self.collected:
                return False
            self._mesh = self._mesh or reaching.reached(*self.address)
            if self._mesh is None:
                return True
            self.hold(leased=False)
            return False

        if self.lent.lease:
            keeper.keep(("hold", id(self)), hold, _AGAIN_SECONDS)

    def let_go(self) -> None:
        """Give the reference back; a finalizer may call this."""
        self.collected = True
        if self._held and self._mesh is not None:
            self._held = False
            self._mesh.holding(self.kernel, self.instance).give(self.lent.token, self.parked)

    def request(self, op: str, name: str = "") -> dict[str, Any]:
        """Return an operation as it travels."""
        asked: dict[str, Any] = {"ref": self.lent.token, "op": op, "member": self.lent.member, "name": name}
        asked["data"] = self.lent.restricted
        return {key: value for key, value in asked.items() if value}

    def operate(self, op: str, *args: Any, name: str = "") -> Any:
        """Do something to the object, and return what came of it: a value, or another `Target`."""
        return self._operate(self.request(op, name), self.pack(args, {}))

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the object; as `operate`."""
        return self._operate(self.request("call"), self.pack(args, kwargs))

    def _operate(self, asked: dict[str, Any], arguments: Packed) -> Any:
        kernel = self.owner()
        pause_streams(self.instance)
        return self.unpack(self.checked(kernel.operate(asked, arguments, shown=self.lent.shown)))

    def checked(self, reply: Reply) -> Any:
        """Return the value of a reply in wire form, or raise what went wrong."""
        error = reply.error()
        if isinstance(error, (KernelDiedError, KernelRestartedError)):
            raise self.gone(error)
        if isinstance(error, RemoteError) and error.ename == AccessRefusedError.__name__:
            raise AccessRefusedError(error.evalue) from error
        if isinstance(error, RemoteError) and error.ename == ReferenceGoneError.__name__:
            raise ReferenceGoneError(error.evalue, kernel=self.kernel, instance=self.instance) from error
        if error is not None:
            raise error
        if reply.value_missing:
            raise ResultUnavailableError(kernel=reply.kernel, cell=reply.cell, reason=reply.value_missing)
        return reply.value

    def unpack(self, value: Any) -> Any:
        """Return what travelled in place of a value."""
        if isinstance(value, Packed):
            value = value.load_data() if self.lent.restricted else value.load()
        if "lent" not in value:
            return value["value"]
        return self.other(Lent.from_wire(value["lent"]))

    def other(self, lent: Lent) -> Target:
        """Return something else in the same life of the kernel, restricted where this is."""
        if self.lent.restricted:
            lent = dataclasses.replace(lent, restricted=True)
        return Target(self.kernel, self.instance, lent, self.mesh)

    def owner(self) -> Kernel:
        """Return a handle to the life of the kernel that has the object.

        Raises:
            ReferenceGoneError: It was released, or that life is over.
        """
        if self.released:
            reason = "it was released here"
            raise ReferenceGoneError(kernel=self.kernel, instance=self.instance, reason=reason)
        try:
            return self.mesh.kernel_of(self.kernel, self.instance)
        except KernelConnectionError as error:
            raise self.gone(error) from error

    def ask(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Call a control method of the kernel, which answers also while a cell runs."""
        kernel = self.owner()
        try:
            return kernel.ask(method, *args, timeout=timeout)
        except (KernelDiedError, KernelRestartedError) as error:
            raise self.gone(error) from error

    def gone(self, error: KernelConnectionError) -> Exception:
        """Return the error that says that the object went with its kernel; others come back as they are."""
        if isinstance(error, KernelDiedError):
            reason = f"its kernel died ({error.cause or 'cause unknown'})"
        elif isinstance(error, KernelRestartedError):
            reason = "its kernel was restarted"
        else:
            return error
        found = ReferenceGoneError(kernel=self.kernel, instance=self.instance, reason=reason)
        found.__cause__ = error
        return found

    def get(self, name: str, of: object) -> Any:
        """Return an attribute; a method that is known already without asking for it again.

        Args:
            name: Which.
            of: The reference that is asked; a method lives by it and needs no lease of its own.
        """
        known = self._methods.get(name)
        if known is not None:
            method = Target(self.kernel, self.instance, known, self.mesh)
            method.released, method.of = self.released, of
            return method
        try:
            found = self.operate("get", name=name)
        except RemoteError as error:
            if error.ename == "AttributeError":
                raise AttributeError(error.evalue, name=name) from error
            raise
        if type(found) is Target:
            lent = found.lent
            if lent.token == self.lent.token and lent.member == name:
                self._methods[name] = lent
        return found

    def names(self, timeout: float) -> list[str]:
        """List the attributes of the object; none when the kernel does not say so in time."""
        try:
            found: list[str] = self.ask("members", self.lent.token, self.lent.member, timeout=timeout)
        except PyrokernelError:
            return []
        return found

    def describe(self) -> str:
        """Show the object, as its kernel does if it is idle."""
        what = f"Reference to {self.lent.shown} ({self.lent.type}) in kernel {self.kernel!r}"
        if self.lent.restricted:
            return f"<{what}, restricted>"  # a repr may tell of what is not public
        cell = new_id()
        try:
            if self.ask("describe", timeout=_REPR_SECONDS)["status"] != KernelStatus.IDLE.value:
                return f"<{what}, busy>"
            options = {"shown": self.lent.shown, "timeout": _REPR_SECONDS, "cell": cell}
            reply = self.owner().operate(self.request("repr"), self.pack((), {}), **options)
            text = str(self.unpack(self.checked(reply)))
        except TimeoutError:
            with contextlib.suppress(PyrokernelError):  # where it has not begun, it need not
                self.ask("cancel", cell, timeout=NAMES_SECONDS)
            return f"<{what}, busy>"
        except Exception as error:  # noqa: BLE001  a repr never raises: it says what it found
            return f"<{what}, {type(error).__name__}>"
        short = text if len(text) <= _REPR_CHARS else f"{text[:_REPR_CHARS]}..."
        return f"<Reference to {self.lent.shown} in kernel {self.kernel!r}: {short}>"

    def share(self, expires: float | str, exposed: bool) -> str:
        """Return a URL; see `Reference.url`."""
        if self.lent.restricted:
            raise SettingsError("what came by a URL cannot be mailed on by another; mail the URL itself")
        seconds = _span(expires)
        if self.lent.member:
            held: Target = self.operate("hold")
            held.hold(leased=True)
            try:
                return held.share(expires, exposed)
            finally:
                held.let_go()
        token = self.ask("share", self.lent.token, {"seconds": seconds, "exposed": exposed})
        return str(ReferenceUrl(self.kernel, self.instance, token, *self.address))

    def pack(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
        """Return the arguments of an operation as they travel: to what is restricted only data."""
        if not self.lent.restricted:
            return pack_arguments(args, kwargs)
        try:
            return Packed.dump_data((args, dict(kwargs)))
        except NotSerializableError as error:
            text = f"to what was opened by a URL only plain data and arrays are passed: {error}"
            raise NotSerializableError(text) from error


def _span(expires: float | str) -> float | None:
    """Return in how many seconds a URL expires, None for never."""
    if expires == "never":
        return None
    try:
        seconds = parse_span(expires)
    except ValueError as error:
        raise SettingsError(f"expires: {error}; or 'never'") from error
    if not 0 < seconds < float("inf"):
        raise SettingsError(f"a URL expires after more than 0 s, not {expires!r}; 'never' is for as long as it can be")
    return seconds
