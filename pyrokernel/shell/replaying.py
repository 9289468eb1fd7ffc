"""A cell that ran, shown again from the journals of its kernels. Runs in the shell process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from pyrokernel.client.group import Group
from pyrokernel.messages import EventKind
from pyrokernel.shell.display import Display
from pyrokernel.shell.journals import Journal, find_cells, find_from_end, find_parts
from pyrokernel.shell.listing import format_cells
from pyrokernel.texts import describe_gap, label, span, status_of

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell


def replay(shell: Shell, group: Group, word: str) -> None:
    """Show a cell again: its source, what it wrote, what came of it; of a job, list its cells.

    Args:
        shell: Where.
        group: The kernels it may have run on.
        word: Its number, or the beginning of its id or of its job's; "-2" is the last but one.
    """
    if word.startswith("-"):
        word = find_from_end(group, int(word[1:])) or word
    found = find_cells(group, word)
    parts = [] if found else find_parts(group, word)
    if parts:
        shell.print_lines([format_cells(parts, now=time.time(), whole_jobs=False)])
        shell.last_result = parts
        return
    if not found:
        shell.fail(f"no cell {word} on {label(group.names)}, or it is too long ago; `cells -n 100` lists more")
        return
    alike = [cell for cell in found if cell["cell"] == found[0]["cell"]]
    others = [cell["kernel"] for cell in found if cell not in alike]
    names = [cell["kernel"] for cell in alike]
    if others:
        shell.notice(f"this is cell {word} of {label(names)}; `cells {others[0]} {word}` shows another")
    _print_header(shell, alike)
    on_screen = shell.stdout.isatty()
    how = f"`cells {word} > FILE` writes all that the journal has"
    if shell.restricted:
        how = f"after `set lines {100 * shell.lines}`, `cells {word}` shows more"
    display = Display(
        names,
        lambda _, text: shell.write("stdout", text),
        clock=lambda: 0.0,  # nothing comes late: equals wait for each other however long reading takes
        see_all=(lambda _: how) if on_screen else None,
        lines=shell.lines,
    )
    for cell in alike:
        _print_events(group, cell, display)
    display.flush(all_of_it=True)
    display.margin()
    running = [cell["kernel"] for cell in alike if cell["status"] == "running"]
    if running:
        shell.notice(f"still runs on {label(running)}; `follow {' '.join(running)}` goes on from here")
    shell.last_result = alike


def _print_header(shell: Shell, alike: list[dict[str, Any]]) -> None:
    first = alike[0]
    begun = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(first["started"])) if first.get("started") else ""
    names = label(cell["kernel"] for cell in alike)
    count = first.get("execution_count") or "?"
    parts = [f"[{count}] {names}", begun, first["author"], f"cell {first['cell'][:8]}", status_of(first)]
    if first.get("duration"):
        parts.append(span(max(cell.get("duration", 0.0) for cell in alike)))
    shell.print_lines(["  ".join(filter(None, parts))])


def _print_events(group: Group, cell: dict[str, Any], display: Display) -> None:
    """Put what a journal has of a cell on a display."""
    name = cell["kernel"]
    journal = Journal(group[name], cell["cell"], float(cell.get("started") or 0.0))
    for event in journal.read(journal.begin()) if cell["status"] != "waiting" else ():
        data = event.data
        match event.kind:
            case EventKind.STARTED:
                first, *rest = str(data["source"]).rstrip("\n").split("\n")
                source = "\n".join([f">>> {first}", *(f"... {line}" for line in rest)])
                display.output(name, "stdout", source + "\n")
            case EventKind.OUTPUT:
                display.output(name, data["stream"], data["text"])
            case EventKind.RESULT:
                display.result(name, data["text"])
            case EventKind.ERROR:
                display.error(name, data["traceback"] or f"{data['ename']}: {data['evalue']}")
            case EventKind.INPUT:
                display.remark(name, f"[asked: {data.get('prompt', '')}]")
            case EventKind.GAP:
                display.remark(name, describe_gap(event))
    display.ended(name)
