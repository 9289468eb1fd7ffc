"""`audit`: who ran what, where and when. Runs in the caller's process."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pyrokernel.client.auditing import Audit, state_writes
from pyrokernel.client.mesh import Mesh
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import note, say, say_json
from pyrokernel.shell.controls import plain
from pyrokernel.texts import one_line, stopwatch

_FOLLOW_SECONDS = 1.0
_SOURCE_CHARS = 100
_WHO_CHARS = 24

_TOLD = ("kernels", "modules", "cause", "asked", "takes", "error", "reason", "signal")
"""Fields that say more of what was done than its name, in this order."""


def main(args: argparse.Namespace) -> int:
    """Show the records."""
    since = time.time() - args.since if args.since else 0.0
    with open_mesh(settings_of(args)) as mesh:
        audit = mesh.audit(user=args.user, kernel=args.kernel, since=since)
        show = say_json if args.json else _show
        found = list(_with_state(mesh, audit, args, since)) if args.state else list(_joined(audit))
        for record in found[-args.number :] if args.number else found:
            show(record)
        if not found and not args.follow:
            note("nothing was recorded that fits")
        for host in audit.without:
            note(f"host {host} keeps no record (setting audit_bytes)")
        if args.follow:
            with contextlib.suppress(KeyboardInterrupt):
                _follow(audit, show)
    return ExitCode.OK


def _follow(audit: Audit, show: Any) -> None:
    while True:
        time.sleep(_FOLLOW_SECONDS)
        for record in audit:
            show(record)


def _with_state(mesh: Mesh, audit: Audit, args: argparse.Namespace, since: float) -> Iterator[dict[str, Any]]:
    """Merge what was written to the shared state into the record, by time."""
    writes = [] if args.kernel else state_writes(mesh.shared, args.user, since)
    yield from sorted([*_joined(audit), *writes], key=lambda record: float(record["at"]))


def _joined(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell the end of a cell beside its beginning, where both are there."""
    found: list[dict[str, Any]] = []
    running: dict[tuple[Any, Any], dict[str, Any]] = {}
    for record in records:
        which = (record.get("kernel"), record.get("cell"))  # a cell of a group has one id in all kernels
        begun = running.pop(which, None) if record["what"] == "end" else None
        if begun is not None:
            begun.update(status=record.get("status", ""), seconds=record.get("seconds", 0.0))
            continue
        if record["what"] == "cell" and "status" not in record:
            running[which] = record
        found.append(record)
    return found


def _show(record: Mapping[str, Any]) -> None:
    # All of it may be somebody else's words: names in certificates, source, errors.
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["at"]))
    who = str(record.get("user") or "-")
    via = f" ({record['via']})" if record.get("via") else ""
    where = str(record.get("kernel") or record.get("object") or record.get("host") or "-")
    where = where.removeprefix("~")  # gateway and shared state, which are among the kernels of a host
    say(f"{at}  {_word(who + via, _WHO_CHARS)}  {_word(where, 12)}  {_what(record)}")


def _what(record: Mapping[str, Any]) -> str:
    count = f" ({record['count']} times)" if record.get("count") else ""
    if record["what"] in ("cell", "end"):
        source = one_line(plain(str(record.get("source") or f"cell {record['cell']}")), _SOURCE_CHARS)
        took = f" {stopwatch(record['seconds'])}" if "seconds" in record else ""
        return f"{source}{count}  {record.get('status') or 'running'}{took}"
    if record["what"] == "state":
        return f"state {one_line(plain(str(record['source'])), _SOURCE_CHARS)}"
    told = [f"{name}={_shown(record[name])}" for name in _TOLD if record.get(name)]
    return one_line(plain(" ".join([str(record["what"]), *told])), 2 * _SOURCE_CHARS) + count


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _word(text: str, width: int) -> str:
    return one_line(plain(text), 60).ljust(width)
