"""References as plain data, as the shared state keeps them. Runs in the caller's process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyrokernel.client.own import lend_own
from pyrokernel.client.reference import Reference, revive, target_of
from pyrokernel.client.target import Target
from pyrokernel.errors import AccessRefusedError
from pyrokernel.messages import LEASE_SECONDS, Lent

if TYPE_CHECKING:
    from pyrokernel.client.mesh import Mesh


def to_data(reference: Reference) -> list[Any]:
    """Return a reference as plain data, for `from_data` in any process of the mesh."""
    return list(reference.__reduce__()[1])


def from_data(data: list[Any]) -> Any:
    """Return what `to_data` described: a reference, or in the very kernel that has it the object itself.

    Raises:
        ReferenceGoneError: This is that kernel, and it has it no more.
    """
    kernel, instance, lent, (ns, mesh) = data
    return revive(kernel, instance, lent, (ns, mesh))


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
    target = target_of(reference)
    return target.lent.type, f"<reference to {target.lent.shown} in kernel {target.kernel!r}>"


def to_own(value: Any, shown: str, mesh: Mesh) -> Reference | None:
    """Return a reference to an object of this very kernel; None where this process is no kernel.

    Args:
        value: The object.
        shown: How it is to read.
        mesh: Of the kernel.
    """
    lent = lend_own(value, shown)
    return None if lent is None else Reference._of(Target(*lent, mesh), leased=None)
