"""`state`: keys of the shared state listed, read, written, followed, undone. Runs in the caller's process."""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from pyrokernel.client.shared import Shared
from pyrokernel.client.state_texts import (
    LISTED,
    describe_change,
    describe_undo,
    format_entries,
    format_history,
    format_locks,
    key_text,
    list_entries,
)
from pyrokernel.controls import harmless
from pyrokernel.errors import SettingsError, StateError
from pyrokernel.front.exits import ExitCode
from pyrokernel.front.reach import open_mesh, settings_of
from pyrokernel.front.terminal import is_terminal, note, paint, say, say_json
from pyrokernel.messages import StateChange
from pyrokernel.texts import plural

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[Shared]:
    """Reach the namespace that the command line names."""
    with open_mesh(settings_of(args)) as mesh:
        shared = mesh.shared
        yield shared[args.space] if args.space else shared


def ls(args: argparse.Namespace) -> int:
    """List keys."""
    on_terminal = sys.stdout.isatty()
    limit = args.number if args.number is not None else (LISTED if on_terminal and not args.json else None)
    with opened(args) as shared:
        found, more = list_entries(shared, args.prefix, limit)
        others = [name for name in shared.spaces() if name != args.space] if not found else []
    if args.json:
        say_json([entry.to_wire() for entry in found])
    elif found:
        say(format_entries(found, now=time.time(), wide=on_terminal))
        if more:
            note(more)
    elif not more:
        begin = f" that begins {key_text(args.prefix)}" if args.prefix else ""
        elsewhere = f"; namespaces with keys: {', '.join(name or '(common)' for name in others)}" if others else ""
        note(f"no key{begin}{elsewhere}")
    else:
        note(more)
    return ExitCode.OK


def get(args: argparse.Namespace) -> int:
    """Print a value."""
    with opened(args) as shared:
        value = shared.read(args.key).value
    if args.raw:
        if not isinstance(value, (str, bytes)):
            raise StateError(f"{args.key!r} is a {type(value).__name__}, and --raw prints text and bytes only")
        data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    elif args.json:
        say(_as_json(args.key, value))
    else:
        text = value if isinstance(value, str) else repr(value)
        say(harmless(text) if sys.stdout.isatty() else text)
    return ExitCode.OK


def _as_json(key: str, value: Any) -> str:
    def listed(part: Any) -> Any:
        if hasattr(part, "tolist"):  # an array, or a number of NumPy's
            return part.tolist()
        raise TypeError(f"there is a {type(part).__name__} in it")

    try:
        return json.dumps(value, default=listed)
    except (TypeError, ValueError, RecursionError) as error:
        raise StateError(
            f"{key!r} cannot be written as JSON: {error}; without --json it is as Python has it"
        ) from error


def set_key(args: argparse.Namespace) -> int:
    """Set a key."""
    value = _from_json(args.value) if args.json else parse_value(args.value)
    with opened(args) as shared:
        revision = shared.set(args.key, value)
    note(f"{key_text(args.key)}: revision {revision}")
    return ExitCode.OK


def parse_value(text: str) -> Any:
    """Return what a Python literal says; any other text is itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a backslash in what is perhaps no Python at all
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return text


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the value is not JSON: {error}") from error


def rm(args: argparse.Namespace) -> int:
    """Delete keys."""
    with opened(args) as shared:
        shared.delete_many(args.keys)
    note(f"deleted {plural(len(set(args.keys)), 'key')}; undo brings them back")
    return ExitCode.OK


def history(args: argparse.Namespace) -> int:
    """List the writes to a key."""
    with opened(args) as shared:
        changes = shared.history(args.key, max(1, args.number))
    if args.json:
        say_json([_told(change) for change in changes])
    elif changes:
        say(format_history(changes, now=time.time(), wide=sys.stdout.isatty()))
    else:
        note(f"nothing is known of a key {key_text(args.key)}")
    return ExitCode.OK if changes else ExitCode.NO_KERNEL


def undo(args: argparse.Namespace) -> int:
    """Bring back what a key was."""
    with opened(args) as shared:
        change = shared.undo(args.key)
    say(describe_undo(args.key, change))
    return ExitCode.OK


def diff(args: argparse.Namespace) -> int:
    """Show what changed."""
    with opened(args) as shared:
        lines = shared.diff(args.key, args.old, args.new)
    for line in lines:
        text = harmless(line) if sys.stdout.isatty() else line
        say(paint(text, _COLOURS[line[0]], sys.stdout) if line[:1] in _COLOURS else text)
    if not lines:
        note("no difference")
    return ExitCode.OK


def watch(args: argparse.Namespace) -> int:
    """Follow writes."""
    with opened(args) as shared, shared.watch(args.prefix, since=args.since) as changes:
        if is_terminal(sys.stderr) and not args.json:
            what = f"keys that begin {key_text(args.prefix)}" if args.prefix else "all keys"
            note(f"watching {what} from revision {changes.revision} on; Ctrl-C ends it")
        for change in changes:
            if args.json:
                say_json(_told(change))
            else:
                say(describe_change(change))
    return ExitCode.OK


def _told(change: StateChange) -> dict[str, Any]:
    """Return a write as a script gets it: without its value."""
    return {name: getattr(change, name) for name in StateChange.__dataclass_fields__ if name != "packed"}


def locks(args: argparse.Namespace) -> int:
    """List the locks that are held, or break one."""
    with opened(args) as shared:
        if args.broken is not None:
            if not shared.break_lock(args.broken):
                note(f"nobody holds a lock {key_text(args.broken)}")
                return ExitCode.NO_KERNEL
            note(f"the lock {key_text(args.broken)} is free; whoever had it is told when it gives it back")
            return ExitCode.OK
        held = shared.locks()
    if args.json:
        say_json(held)
    elif held:
        say(format_locks(held, now=time.time()))
    else:
        note("no lock is held")
    return ExitCode.OK
