"""Reference: a handle to an object that stays in its kernel. Runs in the caller's process.

What is done to the handle is done to the object, as a cell of its kernel. A handle can be pickled, and
finds its mesh by itself where it is unpickled; in the very life of the kernel that has the object it is
that object again.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Self

from pyrokernel.client.own import find_own, is_own
from pyrokernel.client.streams import read
from pyrokernel.client.target import NAMES_SECONDS, Target
from pyrokernel.errors import RemoteError
from pyrokernel.messages import Lent

_STATE = "_pyrokernel_"
_DISPLAYS = ("_repr_", "_ipython_")
"""What front ends look for in every object that they show."""


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
        return given(target_of(self).operate("fetch"))

    def url(self, expires: float | str = "1d", *, exposed: bool = False) -> str:
        """Return a URL by which whoever gets it reaches the object: its public names, as docs/api.md says.

        The object is kept until then, also where this handle is gone; `Kernel.revoke` takes the URL back.

        Args:
            expires: Seconds, a text such as "30m", "1h" or "7d", or "never": as long as the kernel lives.
            exposed: Only what is marked with `pyrokernel.expose`.

        Raises:
            SettingsError: `expires` is none of these; or nothing of the object would be reached.
        """
        return target_of(self).share(expires, exposed)

    def release(self) -> None:
        """Give the object back now instead of when this handle is collected; what it is used for next raises."""
        target = target_of(self)
        target.let_go()
        target.released = True

    def attribute(self, name: str) -> Any:
        """Return an attribute of any name, also one that the handle has itself."""
        return given(target_of(self).get(name, self))

    def __getattr__(self, name: str) -> Any:
        if (name.startswith("__") and name.endswith("__")) or name.startswith(_DISPLAYS):
            text = f"a reference has no {name}; attribute({name!r}) asks for that of its object"
            raise AttributeError(text, name=name)
        return given(target_of(self).get(name, self))

    def __setattr__(self, name: str, value: Any) -> None:
        _check_settable(name)
        target_of(self).operate("set", value, name=name)

    def __delattr__(self, name: str) -> None:
        _check_settable(name)
        target_of(self).operate("del", name=name)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102  ruff takes the "/" for a method's name
        return given(target_of(self).call(args, kwargs))

    def __getitem__(self, key: Any) -> Any:
        return given(target_of(self).operate("item", key))

    def __setitem__(self, key: Any, value: Any) -> None:
        target_of(self).operate("setitem", key, value)

    def __delitem__(self, key: Any) -> None:
        target_of(self).operate("delitem", key)

    def __len__(self) -> int:
        try:
            return int(target_of(self).operate("len"))
        except RemoteError as error:
            if error.ename == "TypeError":  # as for a generator: list() asks first, and goes on after this one only
                raise TypeError(error.evalue) from error
            raise

    def __contains__(self, item: Any) -> bool:
        return bool(target_of(self).operate("contains", item))

    def __bool__(self) -> bool:
        return bool(target_of(self).operate("bool"))

    def __iter__(self) -> Iterator[Any]:
        return _read(given(target_of(self).operate("iter")))

    def __next__(self) -> Any:
        try:
            return given(target_of(self).operate("next"))
        except RemoteError as error:
            if error.ename == "StopIteration":
                raise StopIteration from error
            raise

    def __enter__(self) -> Any:
        found = given(target_of(self).operate("enter"))
        return self if isinstance(found, Reference) and found == self else found

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> bool:
        if error is None:
            return bool(target_of(self).operate("exit"))
        if isinstance(error, RemoteError):
            return bool(target_of(self).operate("exit", error.ename, error.evalue))
        return bool(target_of(self).operate("exit", type(error).__name__, str(error)))

    def __eq__(self, other: object) -> bool:
        return _identity(self) == _identity(other) if isinstance(other, Reference) else NotImplemented

    def __hash__(self) -> int:
        return hash(_identity(self))

    def __repr__(self) -> str:
        return target_of(self).describe()

    def __dir__(self) -> list[str]:
        return sorted({"attribute", "fetch", "release", "url", *target_of(self).names(NAMES_SECONDS)})

    def __reduce__(self) -> tuple[Any, ...]:
        target = target_of(self)
        target.parked = True
        lent = {**target.lent.to_wire(), "times": 0}
        return revive, (target.kernel, target.instance, lent, target.address)


def names_of(reference: Reference) -> list[str]:
    """List the attributes of the object of a reference, for completion; none when its kernel does not say so soon."""
    return target_of(reference).names(NAMES_SECONDS)


def pin(reference: Reference, name: str) -> None:
    """Keep the object of a reference alive under a name until `unpin`, whoever holds the reference.

    Raises:
        ReferenceGoneError: It is gone already.
    """
    target_of(reference).ask("pin", target_of(reference).lent.token, name)


def unpin(reference: Reference, name: str) -> None:
    """Let go of what `pin` has kept under a name."""
    target_of(reference).ask("unpin", name)


def revive(kernel: str, instance: str, lent: dict[str, Any], address: tuple[str, str]) -> Any:
    """Return what a pickled reference means here."""
    found = Lent.from_wire(lent)
    if is_own(instance) and not found.restricted:
        return find_own(found.token, found.member)
    return Reference._of(Target(kernel, instance, found, address), leased=False)


def target_of(reference: Reference) -> Target:
    """Return what a reference leads to."""
    found: Target = object.__getattribute__(reference, _STATE)
    return found


def _identity(reference: Reference) -> tuple[str, str, str]:
    target = target_of(reference)
    return target.instance, target.lent.token, target.lent.member


def _check_settable(name: str) -> None:
    if (name.startswith("__") and name.endswith("__")) or name == _STATE:
        raise AttributeError(f"{name} of a reference cannot be set", name=name)


def given(found: Any) -> Any:
    """Return what an operation has found, as users get it."""
    if type(found) is not Target:
        return found
    return Reference._of(found, leased=None if found.of is not None else True)


def _read(iterator: Reference) -> Iterator[Any]:
    """Yield the values of an iterator, and hold it meanwhile."""
    yield from read(target_of(iterator), given)
