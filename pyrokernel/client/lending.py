"""References of kernels: made, opened, listed, revoked. Runs in the caller's process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pyrokernel.client.calls import gather, kernel_request
from pyrokernel.client.parcels import check_namespace, pack_arguments
from pyrokernel.client.reference import Reference, given, target_of
from pyrokernel.client.target import Target
from pyrokernel.client.urls import SCHEME, ReferenceUrl
from pyrokernel.errors import PyrokernelError, ReferenceGoneError, SettingsError
from pyrokernel.messages import PUBLISHED_OBJECT, Lent, RefInfo

if TYPE_CHECKING:
    from pyrokernel.client.group import Group
    from pyrokernel.client.kernel import Kernel
    from pyrokernel.client.mesh import Mesh


def first_references(group: Group, source: str, namespace: str) -> dict[str, Reference]:
    """Return references to the value of an expression in each kernel; see `Group.ref`."""
    if not str(source).strip() or str(source) != source:
        raise SettingsError(f"a reference is made of an expression as a str, such as 'camera', not {source!r}")
    asked, shown = {"op": "make", "source": source}, source.strip()
    space = check_namespace(namespace)
    replies = group.operate(asked, pack_arguments((), {}), shown=shown, namespace=space, check=True)
    found: dict[str, Reference] = {}
    for name, reply in replies.items():
        maker = Target(name, reply.instance, Lent(token=""), group.mesh)
        found[name] = given(maker.unpack(reply.value))
    return found


def open_reference(mesh: Mesh, what: str) -> Reference:
    """Return a restricted reference by a URL or the name of a published object; see `Mesh.open`."""
    if "://" not in what and not what.startswith(SCHEME + ":"):
        entry = mesh.published_entry(what)
        kernel, instance, token = entry.value("kernel"), entry.value("instance"), PUBLISHED_OBJECT + what
    else:
        url = ReferenceUrl.parse(what)
        mesh = mesh.mesh_at(url.ns, url.mesh)
        kernel, instance, token = url.kernel, url.instance, url.token
    probe = Target(kernel, instance, Lent(token=token, restricted=True), mesh)
    lent = Lent.from_wire(probe.ask("reference", token))
    return Reference._of(Target(kernel, instance, lent, mesh), leased=True)


def list_references(kernels: Iterable[Kernel]) -> tuple[list[RefInfo], list[str]]:
    """Ask kernels for their references; return these, oldest first, and which kernels did not answer."""
    members = list(kernels)
    if not members:
        return [], []
    mesh, links = members[0].mesh, [kernel.link for kernel in members]
    values, _, _ = gather(mesh, links, kernel_request("refs"), kind="control", timeout=mesh.settings.timeout)
    found = [RefInfo.from_wire(one) for answer in values.values() for one in answer]
    return sorted(found, key=lambda info: info.created), [link.name for link in links if link.name not in values]


def revoke(kernels: Iterable[Kernel], which: str | Reference) -> int:
    """End a reference by itself, its id or URL, wherever it is among these kernels; return how many entries ended.

    Raises:
        ReferenceGoneError: None of the kernels has such a reference.
        SettingsError: It is nothing of these, or reads like a URL and is none.
    """
    members = list(kernels)
    if type(which) is Reference:
        target = target_of(which)
        members, token = [kernel for kernel in members if kernel.name == target.kernel], target.lent.token
    elif not isinstance(which, str):
        raise SettingsError(f"a reference is revoked by itself, its id or its URL, not by {type(which).__name__}")
    elif "://" not in which:
        token = which
    else:
        url = ReferenceUrl.parse(which)
        members, token = [kernel for kernel in members if kernel.name == url.kernel], url.token
    ended = 0
    errors: list[PyrokernelError] = []
    if members:
        mesh, links = members[0].mesh, [kernel.link for kernel in members]
        request = kernel_request("revoke", token)
        values, failed, _ = gather(mesh, links, request, kind="control", timeout=mesh.settings.timeout)
        ended, errors = sum(values.values()), list(failed.values())
    if not ended and errors:
        raise errors[0]
    if not ended:
        names = ", ".join(kernel.name for kernel in members) or "none"
        raise ReferenceGoneError(
            f"no reference {which!r} in the kernels that were asked ({names}); `pyrokernel refs` lists those there are"
        )
    return ended
