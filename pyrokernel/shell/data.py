"""The commands that move data between kernels and the shell's own Python. Runs in the shell process."""

from __future__ import annotations

import builtins
import contextlib
import keyword
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cmd2 import Statement

from pyrokernel.client.group import Group
from pyrokernel.errors import GatherError, PyrokernelError, VariableNotFoundError
from pyrokernel.shell.here import Offers, described
from pyrokernel.shell.local import LocalCommands
from pyrokernel.shell.parser import Takes, takes
from pyrokernel.texts import label, names_by, one_line, plural

_VALUES_SHOWN = 8
_AS = re.compile(r"(\w+)(?:\s+as\s+(\w+))?")


class DataCommands(LocalCommands):
    """Send data to kernels and bring it back."""

    @takes(Takes.PYTHON)
    def do_push(self, statement: Statement) -> None:
        """Set a variable on all kernels of the group: push NAME, or push NAME = EXPR.

        The value is that of the shell's own Python, or what EXPR is there.
        """
        found = self._value(str(statement), "push")
        if found is None:
            return
        name, value = found
        group = self._cmd.target.anew()
        with self._interruptible("push"):
            group.push({name: value})
            self._cmd.print_lines([f"{label(group.names)}: {name} ({described(value)})"])
            self._cmd.last_result = group.names

    @takes(Takes.PYTHON)
    def do_scatter(self, statement: Statement) -> None:
        """Cut a sequence into one part for each kernel of the group: scatter NAME = EXPR.

        EXPR is evaluated in the shell's own Python; the parts become the variable NAME of the kernels.
        """
        found = self._value(str(statement), "scatter", _sized)
        if found is None:
            return
        name, items = found
        group = self._cmd.target.anew()
        with self._interruptible("scatter"):
            group.scatter(name, items)
            self._cmd.print_lines([shares(len(items), group.names)])
            self._cmd.last_result = group.names

    @takes(Takes.TEXT)
    def do_gather(self, statement: Statement) -> None:
        """Bring the parts of a variable here, joined in the order of the kernels: gather NAME [as NEW]."""
        names = self._names(str(statement), "gather")
        if names is None:
            return
        name, new = names
        group = self._cmd.target.anew()
        with self._interruptible("gather"):
            try:
                value = group.gather(name)
            except GatherError as error:
                self._miss(error, group, name)
                return
            except PyrokernelError:
                raise
            except Exception as error:  # noqa: BLE001 - joining calls code of the values
                why = f"{type(error).__name__}: {one_line(str(error))}"
                self._cmd.fail(f"the parts of {name!r} do not join: {why}; `pull {name}` brings them as they are")
                return
            self._land(new, value)

    @takes(Takes.TEXT)
    def do_pull(self, statement: Statement) -> None:
        """Bring a variable here, as a dict from kernel to value; of one kernel, the value: pull NAME [as NEW]."""
        names = self._names(str(statement), "pull")
        if names is None:
            return
        name, new = names
        group = self._cmd.target.anew()
        with self._interruptible("pull"):
            try:
                values = group.pull(name)
            except GatherError as error:
                self._miss(error, group, name)
                return
            if len(group) == 1:
                self._land(new, values[group.names[0]])
            else:
                ordered = {kernel: values[kernel] for kernel in group.names}
                self._land(new, ordered, by_kernel(ordered))

    def _value(self, text: str, command: str, then: Callable[[Any], Any] | None = None) -> tuple[str, Any] | None:
        """Read NAME or NAME = EXPR; return name and value, None when the reason why not is told."""
        name, sign, expression = (part.strip() for part in text.partition("="))
        if not name.isidentifier() or keyword.iskeyword(name) or (sign and not expression):
            self._cmd.fail(f"usage: {command} NAME = EXPR, or {command} NAME for a variable of `here`")
            return None
        if not sign and name not in self._here.namespace:
            self._cmd.fail(
                f"there is no {name!r} here; `{command} {name} = EXPR` sends a value, `here` lists variables"
            )
            return None
        outcome = self._here.evaluate(expression or name, then)
        return None if self._failed(outcome) else (name, outcome.value)

    def _names(self, text: str, command: str) -> tuple[str, str] | None:
        """Read NAME [as NEW]; return both, None when it is told that they do not parse."""
        match = _AS.fullmatch(text.strip())
        names = (match[1], match[2] or match[1]) if match else ()
        if not names or not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
            self._cmd.fail(f"usage: {command} NAME [as NEW]")
            return None
        return names

    def _miss(self, error: GatherError, group: Group, name: str) -> None:
        """Say which kernels do not have a variable, if that is all that failed."""
        if not all(isinstance(failure, VariableNotFoundError) for failure in error.errors.values()):
            raise error
        without = [kernel for kernel in group.names if kernel in error.errors]
        self._cmd.fail(f"{label(without)}: no variable {name!r}; `who` lists what there is")

    @contextlib.contextmanager
    def _interruptible(self, what: str) -> Iterator[None]:
        """Let Ctrl-C end the waiting, and say so."""
        try:
            yield
        except KeyboardInterrupt:
            self._cmd.fail(f"{what}: interrupted before all kernels had answered")

    def offer_push(self, text: str) -> Offers:
        """Complete a variable of the shell's own Python, or the expression."""
        return self._here.offer(text) if "=" in text else self._here.offer_names(text)

    offer_scatter = offer_push

    def offer_gather(self, text: str) -> Offers:
        """Complete a variable of the kernels."""
        if " " in text or "." in text:
            return []
        # What every Python has is there too, and is not what anybody gathers.
        common = {*dir(builtins), *keyword.kwlist, *keyword.softkwlist}
        return [offer for offer in self._on_kernels(text) if offer[0] not in common and offer[0][:2] != "__"]

    offer_pull = offer_gather


def _sized(value: Any) -> Any:
    """Return a value that has a length, read into a list if that takes it."""
    if not hasattr(value, "__len__"):
        return list(value) if hasattr(value, "__iter__") else value
    len(value)  # may raise, here where that is shown as the traceback that it is
    return value


def shares(total: int, names: list[str]) -> str:
    """Say how many items went to which kernels, as `Group.scatter` cuts them."""
    items = plural(total, "item")
    if len(names) == 1:
        return f"{items} on {names[0]}"
    each, longer = divmod(total, len(names))
    if not longer:
        return f"{items} over {label(names)}: {each:,} each"
    more, fewer = label(names[:longer]), label(names[longer:])
    return f"{items} over {label(names)}: {each + 1:,} on {more}, {each:,} on {fewer}"


def by_kernel(values: Mapping[str, Any]) -> list[str]:
    """Show what each kernel has in short, equal values on one line with their kernels."""
    from pyrokernel.kernel.summaries import summary  # late, as in `here`

    alike = names_by({name: summary(value) for name, value in values.items()})
    lines = [f"[{label(names)}] {text}" for text, names in alike.items()]
    more = len(lines) - _VALUES_SHOWN
    return [*lines[:_VALUES_SHOWN], f"... and {more} more"] if more > 0 else lines
