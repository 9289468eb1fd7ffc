"""`NAME?`: what a name is in the kernels of the group, and where they differ. Runs in the shell process."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cmd2 import CommandSet, Statement

from pyrokernel.client.listing import ask_all
from pyrokernel.messages import Inspection
from pyrokernel.shell.completer import ASK_SECONDS, merge
from pyrokernel.shell.cut import cut_text
from pyrokernel.shell.here import Offers
from pyrokernel.shell.hints import ASKING
from pyrokernel.shell.parser import Takes, takes
from pyrokernel.texts import describe_silence, label, names_by, one_line

if TYPE_CHECKING:
    from pyrokernel.shell.app import Shell  # noqa: F401 - names the application in the base class

_VARIANTS_SHOWN = 3
_VALUES_SHOWN = 8


class InspectCommands(CommandSet["Shell"]):
    """Look at objects in the kernels."""

    DEFAULT_CATEGORY = "Habits"

    @takes(Takes.TEXT)
    def do_inspect(self, statement: Statement) -> None:
        """Say what a name is in the kernels: NAME?, or NAME?? for its source; also inspect [--source] NAME.

        It answers while a cell runs, and runs no code of the object. With `*` in it, it lists the names that match.
        """
        text = str(statement).strip()
        name = text.removeprefix("--source").strip()
        detail = int(name != text)
        if not name:
            self._cmd.print_lines(ASKING)
        elif "*" in name:
            self._list_names(name)
        else:
            self._describe(name, detail)

    def _list_names(self, pattern: str) -> None:
        """List the names that a pattern such as `np.*load*` matches, in the kernels."""
        begin = re.match(r"(?:\w+\.)*(?:\w*(?=\*))?", pattern)[0]  # type: ignore[index]  # it matches any text
        found = merge(self._cmd.target.anew().complete(begin, timeout=self._cmd.target.mesh.settings.timeout))
        names = {begin[:start] + match: about for match, start, about in found}
        kept = {name: about for name, about in names.items() if fnmatch.fnmatchcase(name, pattern)}
        width = max(map(len, kept), default=0)
        self._cmd.page("\n".join(f"{name:<{width}}  {about}".rstrip() for name, about in kept.items()))
        if not kept:
            self._cmd.fail(f"no name matches `{one_line(pattern)}`")
        self._cmd.last_result = list(kept)

    def _describe(self, name: str, detail: int) -> None:
        """Say what a name is in the kernels; its source too with detail 1."""
        group = self._cmd.target.anew()
        answers, errors, missing = ask_all(group, "inspect", name, len(name), {"detail": detail})
        silent = [kernel for kernel in group.names if kernel in missing or kernel in errors]
        found = {kernel: Inspection.from_wire(answers[kernel]) for kernel in group.names if kernel in answers}
        known = {kernel: inspection for kernel, inspection in found.items() if inspection.found}
        if known:
            text = "\n".join(describe(known, source=bool(detail)))
            self._cmd.page(text if self._cmd.has_pager else self._in_short(text, name))
        without = [kernel for kernel in found if kernel not in known]
        if without:
            hint = "" if known or name not in self._cmd.reader.commands else f"; `help {name}` tells of the command"
            say = self._cmd.notice if known else self._cmd.fail
            say(f"{label(without)}: there is no `{one_line(name)}`{hint}")
        if silent:
            (self._cmd.notice if found else self._cmd.fail)(describe_silence(silent))
        self._cmd.last_result = {kernel: inspection.to_wire() for kernel, inspection in known.items()}

    def offer_inspect(self, text: str) -> Offers:
        """Complete a name that the kernels know."""
        return merge(self._cmd.target.group.complete(text, timeout=ASK_SECONDS))

    def _in_short(self, text: str, name: str) -> str:
        see_all = f"`pyrokernel shell -c '{one_line(name)}??'` shows all"
        return cut_text(text, see_all, self._cmd.lines) if self._cmd.at_prompt else text


def describe(found: Mapping[str, Inspection], *, source: bool) -> list[str]:
    """Say what a name is; where kernels differ, for each what it is there.

    Args:
        found: By kernel name, not empty.
        source: Show the source in place of the docstring, where there is one.
    """
    variants = names_by({kernel: _page(inspection, source) for kernel, inspection in found.items()})
    lines: list[str] = []
    for page, kernels in list(variants.items())[:_VARIANTS_SHOWN]:
        if len(variants) > 1:
            lines += ["", f"[{label(kernels)}]"]
        lines += [*page[:2], *_values({kernel: found[kernel].summary for kernel in kernels}), *page[2:]]
    more = [kernel for kernels in list(variants.values())[_VARIANTS_SHOWN:] for kernel in kernels]
    lines += ["", f"{label(more)}: different again"] if more else []
    return lines[1:] if len(variants) > 1 else lines


def _page(inspection: Inspection, source: bool) -> tuple[str, ...]:
    """Return the lines about a name, but for its value; the first two are of one line each."""
    head = inspection.signature or inspection.name
    head = f"{inspection.name}{head}" if head.startswith("(") else head
    page = [f"Name:      {head}", f"Type:      {inspection.type}"]
    if source and inspection.source:
        return (*page, "Source:", inspection.source.rstrip("\n"))
    page += ["Docstring:", inspection.docstring] if inspection.docstring else []
    page += ["Source:    not kept"] if source else []
    return tuple(page)


def _values(summaries: Mapping[str, str]) -> list[str]:
    """Show the value that a name has on each kernel, equal ones together."""
    alike = names_by(summaries)
    if len(alike) == 1:
        (summary,) = alike
        return [f"Value:     {summary}"] if summary else []
    lines = [f"Value:     [{label(kernels)}] {one_line(summary, 80)}" for summary, kernels in alike.items()]
    more = len(lines) - _VALUES_SHOWN
    return [*lines[:_VALUES_SHOWN], f"           ... and {more} more"] if more > 0 else lines
