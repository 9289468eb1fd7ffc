"""What was shipped where, in the words of both front ends. Runs in the caller's process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pyrokernel.messages import Shipped
from pyrokernel.texts import label, names_by, one_line, span, table

_HEADER = ("MODULE", "VERSION", "KERNELS", "COMMANDS", "BY", "WHEN")
_COMMANDS_WIDTH = 40


def version(digest: str) -> str:
    """Return a digest as people are shown it."""
    return digest[:8]


def describe_shipped(found: Mapping[str, Sequence[Shipped]]) -> Iterator[str]:
    """Say what became of modules, equal outcomes in one line.

    Args:
        found: By kernel, as `Group.ship` returns it: the same modules everywhere.
    """
    count = max(map(len, found.values()), default=0)
    for place in range(count):
        said = {name: _outcome(ones[place]) for name, ones in found.items() if place < len(ones)}
        for text, names in names_by(said).items():
            yield f"{label(names)}: {text}"


def describe_printed(printed: Mapping[str, str]) -> Iterator[str]:
    """Say what modules printed when they were run, line by line; what is equal on several kernels is said once.

    Args:
        printed: Text by kernel.
    """
    for text, names in names_by(printed).items():
        yield from (f"{label(names)}: {line}" for line in text.splitlines())


def _outcome(one: Shipped) -> str:
    commands = f"; commands: {', '.join(one.commands)}" if one.commands else ""
    if one.state == "replaced":
        return f"{one.shown} replaced {version(one.was)} -> {version(one.digest)}{commands}"
    state = {"rerun": "run again, because what it imports was replaced"}.get(one.state, one.state)
    return f"{one.shown} {version(one.digest)} {state}" + ("" if one.state == "unchanged" else commands)


def describe_given_back(found: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> Iterator[str]:
    """Say which modules kernels have no more, equal answers in one line.

    Args:
        found: By kernel, as `Group.unship` returns it.
        wanted: The names that were asked for, as modules are called.
    """
    for name in wanted:
        had = [kernel for kernel, names in found.items() if name in names]
        if had:
            yield f"{label(had)}: {name} and its commands are gone"


def format_shipped(found: Mapping[str, Sequence[Shipped]], *, now: float) -> str:
    """Lay out what kernels have, one line for each version of a module.

    Args:
        found: By kernel, as `Group.shipped` returns it.
        now: Unix time in seconds.
    """
    rows = []
    for versions in _versions(found).values():
        for kernels in versions.values():
            newest = max(kernels.values(), key=lambda one: one.at)
            rows.append(
                (
                    newest.shown,
                    version(newest.digest),
                    label(kernels),
                    one_line(", ".join(newest.commands), _COMMANDS_WIDTH),
                    newest.by,
                    f"{span(max(0.0, now - newest.at))} ago" if newest.at else "",
                )
            )
    return table(_HEADER, rows)


def describe_differences(found: Mapping[str, Sequence[Shipped]]) -> Iterator[str]:
    """Say of which modules kernels have different versions, or some have none.

    Args:
        found: By kernel, as `Group.shipped` returns it.
    """
    for versions in _versions(found).values():
        holders = {kernel for kernels in versions.values() for kernel in kernels}
        lacking = [kernel for kernel in found if kernel not in holders]
        parts = [f"{label(kernels)}: {version(digest)}" for digest, kernels in versions.items()]
        if lacking:
            parts.append(f"{label(lacking)}: none")
        if len(parts) > 1:
            shown = next(one.shown for kernels in versions.values() for one in kernels.values())
            yield f"{shown} differs ({'; '.join(parts)}); ship it to all of them to make them alike"


def _versions(found: Mapping[str, Sequence[Shipped]]) -> dict[str, dict[str, dict[str, Shipped]]]:
    """Return by module name, and by digest, the kernels that have it, by name; in the order of the modules' names."""
    by_name: dict[str, dict[str, dict[str, Shipped]]] = {}
    for kernel, ones in found.items():
        for one in ones:
            by_name.setdefault(one.name, {}).setdefault(one.digest, {})[kernel] = one
    return dict(sorted(by_name.items()))
