"""`audit`: who ran what, where and when. Runs in the caller's process."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any

from pyrokernel.audit import AuditFile
from pyrokernel.client.auditing import Audit, by_time, records_here, state_writes
from pyrokernel.controls import plain
from pyrokernel.errors import NameServerNotFoundError
from pyrokernel.front.exits import ExitCode, code_of, worst
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import complain, note, say, say_json
from pyrokernel.settings import Settings, check_name
from pyrokernel.texts import one_line, stopwatch

_FOLLOW_SECONDS = 1.0
_SOURCE_CHARS = 100
_WHO_CHARS = 24

_TOLD = (
    "of", "kernels", "modules", "cause", "asked", "takes", "error", "reason", "signal",
    "first", "last", "lines", "file",
)  # fmt: skip
"""Fields that say more of what was done than its name, in this order."""


def main(args: argparse.Namespace) -> int:
    """Show the records."""
    settings = settings_of(args)
    if args.kernel:  # one, unlike elsewhere: a pattern would find nothing, and look as if nothing had been done
        check_name(args.kernel.removeprefix("~"), "kernel")
    wanted = {"user": args.user, "kernel": args.kernel, "since": args.since}
    try:
        mesh = open_mesh(settings)
    except NameServerNotFoundError as error:
        found = _here(settings, wanted)
        if found is None or args.follow or args.state:
            raise
        note(f"this is from the file of this machine, without what was run since its host ended: {error}")
        _show_all(found, args)
        return ExitCode.NO_MESH if settings.ns else ExitCode.OK  # with a name server there are other machines
    with mesh:
        audit = mesh.audit(user=args.user, kernel=args.kernel, since=args.since, check=False)
        found = list(audit)
        code = ExitCode.OK
        for host, reason in audit.failed.items():
            here = _here(settings, wanted) if host == settings.host_name else None
            if len(audit.failed) == len(mesh.hosts()) and here is None:
                raise reason
            found += here or []
            rest = "this is from its file" if here is not None else "what it has is missing"
            complain(f"host {host} does not show its record, {rest}: {reason}")
            code = worst([code, code_of(reason)])
        if args.state and not args.kernel:
            found += state_writes(mesh.shared, args.user, args.since)
        _show_all(found, args)
        for host in audit.without:
            note(f"host {host} keeps no record (setting audit_bytes)")
        if args.follow:
            code = worst([code, _follow(audit, args)])
    return code


def _here(settings: Settings, wanted: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """Return what the file of this machine has, None where there is none for the account that asks."""
    if settings.act_for or not AuditFile.beside(settings).exists:
        return None
    return records_here(settings, wanted)


def _show_all(found: list[dict[str, Any]], args: argparse.Namespace) -> None:
    joined = _joined(by_time(found))
    for record in joined[-args.number :] if args.number else joined:
        _show(record, args)
    if not joined and not args.follow:
        note("nothing was recorded that fits")


def _follow(audit: Audit, args: argparse.Namespace) -> ExitCode:
    """Show what comes until Ctrl-C; return what hosts that failed meanwhile make of the exit code."""
    told, code = set(audit.failed), ExitCode.OK
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(_FOLLOW_SECONDS)
            for record in audit:
                _show(record, args)
            for host in audit.failed.keys() - told:
                complain(f"host {host} does not show its record any more: {audit.failed[host]}")
                code = worst([code, code_of(audit.failed[host])])
            told = set(audit.failed)
    return code


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


def _show(record: Mapping[str, Any], args: argparse.Namespace) -> None:
    if args.json:
        say_json(record)
        return
    # All of it may be somebody else's words: names in certificates, source, errors.
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["at"]))
    who = str(record.get("user") or "-")
    via = f" ({record['via']})" if record.get("via") else ""
    say(f"{at}  {_word(who + via, _WHO_CHARS)}  {_word(_where(record), 12)}  {_what(record)}")


def _where(record: Mapping[str, Any]) -> str:
    """Return the kernel of a record; else what it is of which machine, as each of a mesh has one."""
    kernel = str(record.get("kernel") or "")
    if kernel and not kernel.startswith("~"):
        return kernel
    what = record.get("object") or kernel.removeprefix("~")  # gateway and shared state are among the kernels of a host
    return " ".join(str(word) for word in (record.get("host"), what) if word) or "-"


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
