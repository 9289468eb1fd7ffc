"""Reference: a handle to an object that stays in its kernel. Runs in the caller's process.

What is done to the handle is done to the object, as a cell of its kernel. A handle can be pickled, and
finds its mesh by itself where it is unpickled; in the very life of the kernel that has the object it is
that object again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from pyrokernel.client import keeper, reaching
from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.parcels import pack_arguments
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
from pyrokernel.messages import LEASE_SECONDS, KernelStatus, Lent, Reply, new_id
from pyrokernel.settings import parse_span
from pyrokernel.wire.codec import Packed

if TYPE_CHECKING:
    from pyrokernel.client.kernel import Kernel
    from pyrokernel.client.mesh import Mesh

_NAMES_SECONDS = 0.3
"""How long Tab waits for the names of an object."""

_REPR_SECONDS = 1.0
_REPR_CHARS = 2000
_POLL_SECONDS = 25.0
_AGAIN_SECONDS = 1.0
_STATE = "_pyrokernel_"
_DISPLAYS = ("_repr_", "_ipython_")
"""What front ends look for in every object that they show."""


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
        self.of: Reference | None = None
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
        """Do something to the object, and return what came of it: a value, or another `Reference`."""
        return self._operate(self.request(op, name), self._pack(args, {}))

    def call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the object; as `operate`."""
        return self._operate(self.request("call"), self._pack(args, kwargs))

    def _operate(self, asked: dict[str, Any], arguments: Packed) -> Any:
        kernel = self.owner()
        _pause_streams(self.instance)
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

    def other(self, lent: Lent) -> Reference:
        """Return the reference to something else in the same life of the kernel, restricted where this one is."""
        if self.lent.restricted:
            lent = dataclasses.replace(lent, restricted=True)
        return Reference._of(Target(self.kernel, self.instance, lent, self.mesh), leased=True)

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

    def get(self, name: str, of: Reference) -> Any:
        """Return an attribute; a method that is known already without asking for it again.

        Args:
            name: Which.
            of: The reference that is asked; a method lives by it and needs no lease of its own.
        """
        known = self._methods.get(name)
        if known is not None:
            method = Target(self.kernel, self.instance, known, self.mesh)
            method.released, method.of = self.released, of
            return Reference._of(method, leased=None)
        try:
            found = self.operate("get", name=name)
        except RemoteError as error:
            if error.ename == "AttributeError":
                raise AttributeError(error.evalue, name=name) from error
            raise
        if isinstance(found, Reference):
            lent = _target(found).lent
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
            reply = self.owner().operate(self.request("repr"), self._pack((), {}), **options)
            text = str(self.unpack(self.checked(reply)))
        except TimeoutError:
            with contextlib.suppress(PyrokernelError):  # where it has not begun, it need not
                self.ask("cancel", cell, timeout=_NAMES_SECONDS)
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
            return str(self.operate("hold").url(expires, exposed=exposed))
        token = self.ask("share", self.lent.token, {"seconds": seconds, "exposed": exposed})
        return str(ReferenceUrl(self.kernel, self.instance, token, *self.address))

    def read(self) -> Iterator[Any]:
        """Yield the values of an iterator as they come; it runs ahead by 1,000 of them, and waits for the reader."""
        over = False
        while not over:
            call = [self.request("drain"), self._pack((), {})]
            cell = self.owner().submit(f"for ... in {self.lent.shown}", cell=new_id(), call=call, yields=True)
            stream, streams = _Stream(self, cell.id), _streams()
            streams.append(stream)
            try:
                yield from stream.values()
            except KeyboardInterrupt:
                cell.interrupt()
                raise
            except GeneratorExit:
                # Perhaps in a garbage collection, in the middle of anything: no I/O here.
                keeper.soon(stream.pause)
                raise
            finally:
                streams.remove(stream)  # of the thread that began it, whichever this is
            self.checked(cell.reply(check=False))
            over = not stream.paused

    def _pack(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
        if not self.lent.restricted:
            return pack_arguments(args, kwargs)
        try:
            return Packed.dump_data((args, dict(kwargs)))
        except NotSerializableError as error:
            text = f"to what was opened by a URL only plain data and arrays are passed: {error}"
            raise NotSerializableError(text) from error


class _Stream:
    """One cell that goes through an iterator.

    Args:
        target: The iterator.
        cell: Id of the cell.
    """

    def __init__(self, target: Target, cell: str) -> None:
        self.instance = target.instance
        self.paused = False
        self._target, self._cell = target, cell
        self._over = self._told = False

    def values(self) -> Iterator[Any]:
        """Yield the values until the cell has ended."""
        position = 0
        while not self._over:
            answer = self._ask(position, _POLL_SECONDS, None)
            for value in answer["values"]:
                position += 1
                if not isinstance(value, Packed):
                    raise NotSerializableError(f"value {position} of {self._target.lent.shown}: {value['missing']}")
                yield self._target.unpack(value)
            self._over, self.paused = answer["ended"], answer["paused"]

    def pause(self) -> None:
        """End the cell at the next value, so that others get their turn."""
        if not self._over and not self._told:
            self._told = True
            self._ask(-1, 0.0, _REPR_SECONDS)

    def _ask(self, after: int, wait: float, timeout: float | None) -> dict[str, Any]:
        mesh, link = self._target.mesh, self._target.owner().link
        request = kernel_request("values", self._cell, after, wait)
        found, errors, missing = gather(mesh, [link], request, kind="control", timeout=timeout)
        for error in errors.values():
            raise self._target.gone(error) if isinstance(error, KernelConnectionError) else error
        return {"ended": False} if missing else dict(found[link.name])


class Reference:
    """A handle to an object in a kernel.

    Attributes, calls, items, iteration, `with`, `len`, `in` and `bool` reach the object, each as a cell of its
    kernel. Data and arrays come back as copies, anything else as another reference; of attributes and items those
    that can change stay references too, so that their changes are seen. Names with two underscores at both ends
    are the handle's own, because Python itself looks for them; `attribute` reaches those of the object, as it does
    `fetch`, `url`, `release` and `attribute`. Two references are equal when they lead to the same object by the
    same way. Ctrl-C as in `Kernel.execute`.

    Raises:
        RemoteError: What the object raised, with its traceback; AttributeError where it has no such attribute.
        ReferenceGoneError: It expired, was revoked or released, or its kernel has ended.
        AccessRefusedError: A URL does not reach that.
    """

    __slots__ = ("__weakref__", _STATE)

    _pyrokernel_: Target

    def __init__(self) -> None:
        raise TypeError("references are made by kernel.ref(expression), and by mesh.open(url)")

    @classmethod
    def _of(cls, target: Target, *, leased: bool | None) -> Self:
        """Make a reference; `leased` is whether it was just lent, None where another holds it."""
        reference = object.__new__(cls)
        object.__setattr__(reference, _STATE, target)
        if leased is None:
            return reference
        # No I/O in it: it may run anywhere, in the middle of anything.
        weakref.finalize(reference, target.let_go).atexit = False
        if leased:
            target.hold(leased=True)
        else:
            target.hold_soon()
        return reference

    def fetch(self) -> Any:
        """Return a copy of the object.

        Raises:
            ResultUnavailableError: It cannot travel, or is too large.
            AccessRefusedError: It was opened by a URL, and is neither data nor an array.
        """
        return _target(self).operate("fetch")

    def url(self, expires: float | str = "1d", *, exposed: bool = False) -> str:
        """Return a URL by which whoever gets it reaches the object: its public names, as docs/api.md says.

        The object is kept until then, also where this handle is gone; `Kernel.revoke` takes the URL back.

        Args:
            expires: Seconds, a text such as "30m", "1h" or "7d", or "never": as long as the kernel lives.
            exposed: Only what is marked with `pyrokernel.expose`.

        Raises:
            SettingsError: `expires` is none of these; or nothing of the object would be reached.
        """
        return _target(self).share(expires, exposed)

    def release(self) -> None:
        """Give the object back now instead of when this handle is collected; what it is used for next raises."""
        target = _target(self)
        target.let_go()
        target.released = True

    def attribute(self, name: str) -> Any:
        """Return an attribute of any name, also one that the handle has itself."""
        return _target(self).get(name, self)

    def __getattr__(self, name: str) -> Any:
        if (name.startswith("__") and name.endswith("__")) or name.startswith(_DISPLAYS):
            text = f"a reference has no {name}; attribute({name!r}) asks for that of its object"
            raise AttributeError(text, name=name)
        return _target(self).get(name, self)

    def __setattr__(self, name: str, value: Any) -> None:
        _check_settable(name)
        _target(self).operate("set", value, name=name)

    def __delattr__(self, name: str) -> None:
        _check_settable(name)
        _target(self).operate("del", name=name)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102  ruff takes the "/" for a method's name
        return _target(self).call(args, kwargs)

    def __getitem__(self, key: Any) -> Any:
        return _target(self).operate("item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _target(self).operate("setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        _target(self).operate("delitem", key)

    def __len__(self) -> int:
        try:
            return int(_target(self).operate("len"))
        except RemoteError as error:
            if error.ename == "TypeError":  # as for a generator: list() asks first, and goes on after this one only
                raise TypeError(error.evalue) from error
            raise

    def __contains__(self, item: Any) -> bool:
        return bool(_target(self).operate("contains", item))

    def __bool__(self) -> bool:
        return bool(_target(self).operate("bool"))

    def __iter__(self) -> Iterator[Any]:
        found: Reference = _target(self).operate("iter")
        return _read(found)

    def __next__(self) -> Any:
        try:
            return _target(self).operate("next")
        except RemoteError as error:
            if error.ename == "StopIteration":
                raise StopIteration from error
            raise

    def __enter__(self) -> Any:
        found = _target(self).operate("enter")
        return self if isinstance(found, Reference) and found == self else found

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> bool:
        if error is None:
            return bool(_target(self).operate("exit"))
        if isinstance(error, RemoteError):
            return bool(_target(self).operate("exit", error.ename, error.evalue))
        return bool(_target(self).operate("exit", type(error).__name__, str(error)))

    def __eq__(self, other: object) -> bool:
        return _identity(self) == _identity(other) if isinstance(other, Reference) else NotImplemented

    def __hash__(self) -> int:
        return hash(_identity(self))

    def __repr__(self) -> str:
        return _target(self).describe()

    def __dir__(self) -> list[str]:
        return sorted({"attribute", "fetch", "release", "url", *_target(self).names(_NAMES_SECONDS)})

    def __reduce__(self) -> tuple[Any, ...]:
        target = _target(self)
        target.parked = True
        lent = {**target.lent.to_wire(), "times": 0}
        return _revive, (target.kernel, target.instance, lent, target.address)


def names_of(reference: Reference) -> list[str]:
    """List the attributes of the object of a reference, for completion; none when its kernel does not say so soon."""
    return _target(reference).names(_NAMES_SECONDS)


def pin(reference: Reference, name: str) -> None:
    """Keep the object of a reference alive under a name until `unpin`, whoever holds the reference.

    Raises:
        ReferenceGoneError: It is gone already.
    """
    _target(reference).ask("pin", _target(reference).lent.token, name)


def unpin(reference: Reference, name: str) -> None:
    """Let go of what `pin` has kept under a name."""
    _target(reference).ask("unpin", name)


def to_data(reference: Reference) -> list[Any]:
    """Return a reference as plain data, for `from_data` in any process of the mesh."""
    return list(reference.__reduce__()[1])


def from_data(data: list[Any]) -> Any:
    """Return what `to_data` described: a reference, or in the very kernel that has it the object itself.

    Raises:
        ReferenceGoneError: This is that kernel, and it has it no more.
    """
    kernel, instance, lent, (ns, mesh) = data
    return _revive(kernel, instance, lent, (ns, mesh))


def from_stranger(data: list[Any], mesh: Mesh) -> Reference:
    """Return the reference that `to_data` described, as somebody wrote it who is not trusted: only data comes back.

    Raises:
        AccessRefusedError: It leads into another mesh, or nowhere.
    """
    try:
        kernel, instance, told, address = data
        texts = {name: told[name] for name in ("token", "member", "shown", "type")}
    except (TypeError, ValueError, LookupError) as error:
        raise AccessRefusedError("what it says of a reference does not parse") from error
    if not all(type(text) is str for text in (kernel, instance, *texts.values())):
        raise AccessRefusedError("what it says of a reference does not parse")
    here = (mesh.settings.ns_address, mesh.settings.mesh)
    if address != here and address != list(here):
        raise AccessRefusedError("it is a reference into another mesh")
    lent = Lent(**texts, restricted=True, lease=LEASE_SECONDS)
    return Reference._of(Target(kernel, instance, lent, mesh), leased=False)


def token_of(data: list[Any]) -> str:
    """Return the token of what `to_data` described."""
    return str(data[2]["token"])


def what_it_is(reference: Reference) -> tuple[str, str]:
    """Return the name of the class of the object, and in a few words where it is; asks nobody."""
    target = _target(reference)
    return target.lent.type, f"<reference to {target.lent.shown} in kernel {target.kernel!r}>"


def to_own(value: Any, shown: str, mesh: Mesh) -> Reference | None:
    """Return a reference to an object of this very kernel; None where this process is no kernel.

    Args:
        value: The object.
        shown: How it is to read.
        mesh: Of the kernel.
    """
    if _own.pid != os.getpid():
        return None
    return Reference._of(Target(_own.kernel, _own.instance, _own.lend(value, shown), mesh), leased=None)


def own(kernel: str, instance: str, find: Callable[[str, str], Any], lend: Callable[[Any, str], Lent]) -> None:
    """Say that this process is a life of a kernel, in which references to its own objects are these objects.

    Args:
        kernel, instance: Which.
        find: Returns the object that a token and the name of a method mean.
        lend: Lends an object, given also how it is to read.
    """
    _own.pid, _own.kernel, _own.instance, _own.find, _own.lend = os.getpid(), kernel, instance, find, lend


class _Own:
    """Which life of a kernel this process is, if it is one."""

    pid = 0
    kernel = ""
    instance = ""
    find: Callable[[str, str], Any]
    lend: Callable[[Any, str], Lent]


_own = _Own()
_local = threading.local()


def _revive(kernel: str, instance: str, lent: dict[str, Any], address: tuple[str, str]) -> Any:
    """Return what a pickled reference means here."""
    found = Lent.from_wire(lent)
    if instance == _own.instance and _own.pid == os.getpid() and not found.restricted:
        return _own.find(found.token, found.member)
    return Reference._of(Target(kernel, instance, found, address), leased=False)


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


def _target(reference: Reference) -> Target:
    found: Target = object.__getattribute__(reference, _STATE)
    return found


def _identity(reference: Reference) -> tuple[str, str, str]:
    target = _target(reference)
    return target.instance, target.lent.token, target.lent.member


def _check_settable(name: str) -> None:
    if (name.startswith("__") and name.endswith("__")) or name == _STATE:
        raise AttributeError(f"{name} of a reference cannot be set", name=name)


def _read(iterator: Reference) -> Iterator[Any]:
    """Yield the values of an iterator, and hold it meanwhile."""
    yield from _target(iterator).read()


def _streams() -> list[_Stream]:
    """Return the loops over iterators that this thread is in."""
    found: list[_Stream] = _local.__dict__.setdefault("streams", [])
    return found


def _pause_streams(instance: str) -> None:
    """Make room in a kernel that this thread keeps busy by a loop, for what is done inside of it."""
    for stream in _streams():
        if stream.instance == instance:
            stream.pause()
