"""Runs source and calls the way a Python console does. Runs in the kernel process, in its main thread.

Pure: no sockets, no journal. It does what the standard library's `code` and `codeop` do
(compiler flags that persist, displayhook, `_`, tracebacks without our own frames), and adds
what people expect of a notebook: the value of the last expression only, `await` at top level.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import collections
import contextlib
import inspect
import io
import linecache
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pyrokernel import tracebacks
from pyrokernel.errors import SettingsError
from pyrokernel.kernel import debugging
from pyrokernel.kernel.interrupts import Interrupts

if TYPE_CHECKING:
    import asyncio

DEFAULT_NAMESPACE = "main"
MAX_ERROR_CHARS = 256 * 1024
_KEPT_SOURCES = 1000
_INPUT_CHARS = 64 * 1024
_FUTURE_FLAGS = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}
_NEVER_AWAITED = frozenset({type(None), bool, int, float, str, bytes, list, tuple, dict})
_STATEMENT = re.compile(
    r"[^\W\d]\w* *(?:\*\*|//|<<|>>|[-+*/%@&|^])?=(?!=)|"
    r"(?:import|from|def|class|for|while|if|with|try|del|pass|raise|assert|global|async)\b"
).match
"""Whether a line begins as no expression does."""
_ASSIGNS = re.compile(r"(?<![=<>!])=(?!=)").search
"""Whether a line has what is an assignment, an argument by name, or in a text: which of them, its syntax tree says."""
_CLASS_NAME = type.__dict__["__name__"]
"""Read so, the name of a class runs nothing of its metaclass."""


class Outcome:
    """How user code ended.

    Attributes:
        rendered: What `render` made of the value, None if there was none to show.
        error: What it raised, or None.
        ename, evalue, traceback: The error as text, "" without one.
    """

    rendered: Any = None
    error: BaseException | None = None
    ename: str = ""
    evalue: str = ""
    traceback: str = ""


class HabitError(Exception):
    """Ends a cell with its text alone, because there is no code of the user's that a traceback could point to."""


class Namespace:
    """The variables of one namespace: a real module, so that classes defined in it can be pickled.

    Attributes:
        module: `__main__` for the default namespace, `__pyrokernel_NAME__` for others.
        variables: Its live dictionary.
        flags: `__future__` features switched on by earlier cells.
        input: What the last cell ran, the beginning of it.
        given: Names that plugins and commands have given it, with their values.
    """

    def __init__(self, name: str) -> None:
        module_name = "__main__" if name == DEFAULT_NAMESPACE else f"__pyrokernel_{name}__"
        self.module = types.ModuleType(module_name)
        self.variables: dict[str, Any] = self.module.__dict__
        self.variables["__builtins__"] = builtins
        sys.modules[module_name] = self.module
        self.flags = 0
        self.input = ""
        self.given: dict[str, Any] = {}

    def give(self, names: Mapping[str, Any]) -> None:
        """Set these names in place of those given before; what the user has set stays the user's."""
        variables = self.variables
        for name in self.untouched():
            if name not in names:
                del variables[name]
        for name, value in names.items():
            if name not in variables or (name in self.given and variables[name] is self.given[name]):
                variables[name] = value
        self.given = dict(names)

    def restore(self) -> None:
        """Give again what the user has deleted, such as a variable that stood in place of a command."""
        for name, value in self.given.items():
            self.variables.setdefault(name, value)

    def untouched(self) -> list[str]:
        """Return the names given that still mean what was given."""
        variables = self.variables
        return [name for name, value in self.given.items() if variables.get(name, self) is value]


class Interpreter:
    """Executes code in namespaces; one at a time, in the main thread.

    Args:
        interrupts: Is armed exactly while user code runs.

    Attributes:
        transform: Rewrites source before it is compiled, given also how tracebacks call it.
        running: Id and namespace of the cell whose code runs.
    """

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts
        self.transform: Callable[[str, str], str] = lambda source, filename: source
        self.running = ("", "")
        self._given: Mapping[str, Any] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._sources: collections.deque[str] = collections.deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shown: list[Any] = []
        self.namespace()
        sys.displayhook = self._displayhook
        sys.breakpointhook = debugging.break_here

    def namespace(self, name: str = "") -> Namespace:
        """Return a namespace, made on first use; "" is the default one.

        Raises:
            SettingsError: The name is not an identifier.
        """
        name = name or DEFAULT_NAMESPACE
        found = self._namespaces.get(name)
        if found is None:
            if not name.isidentifier():
                raise SettingsError(f"a namespace is named by a Python identifier, not {name!r}")
            found = self._namespaces[name] = Namespace(name)
            found.give(self._given)
        return found

    def existing(self, name: str = "") -> Namespace | None:
        """Return a namespace if it was made; "" is the default one."""
        return self._namespaces.get(name or DEFAULT_NAMESPACE)

    def give(self, names: Mapping[str, Any]) -> None:
        """Set names in all namespaces, those made later too, in place of those given before."""
        self._given = names
        for space in list(self._namespaces.values()):
            space.give(names)

    def run_source(
        self,
        cell: str,
        source: str,
        render: Callable[[Any], Any],
        *,
        filename: str,
        namespace: str = "",
        shown: str = "",
        before: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Run a cell of source.

        Args:
            cell: Its id, for interrupts.
            source: Any text; what does not compile ends as an error.
            render: Makes of the value what the request asked for; runs as user code, because it calls
                the `__repr__` and `__reduce__` of user objects.
            filename: How tracebacks call it.
            namespace: Where it runs.
            shown: What later cells find as `_i`, "" for the source.
            before: Called first; what it raises is raised by the cell.
        """
        outcome = Outcome()

        def body() -> None:
            before()
            space = self.namespace(namespace)
            self.running = (cell, namespace)
            space.restore()
            _rotate_inputs(space, shown or source)
            self._remember(filename, source)
            statements, expression = self._compile(self.transform(source, filename), filename, space)
            value = self._run_parts(statements, expression, space.variables)
            if expression is None or source.rstrip().endswith(";"):
                return
            self._shown.clear()
            sys.displayhook(value)
            if self._shown:
                _rotate_underscores(space.variables, value)
                outcome.rendered = render(value)

        error = self._run_code(cell, body)
        if error is not None:
            self._explain(cell, error, outcome)
        self._shown.clear()
        return outcome

    def run(self, cell: str, body: Callable[[], None]) -> Outcome | None:
        """Run something under the same rules that keeps its value itself; return what it raised, None if nothing."""
        error = self._run_code(cell, body)
        if error is None:
            return None
        outcome = Outcome()
        self._explain(cell, error, outcome)
        return outcome

    def awaited(self, value: Any) -> Any:
        """Return a value or, if that can be awaited, what comes of it."""
        return value if type(value) in _NEVER_AWAITED or not inspect.isawaitable(value) else self._await(value)

    def run_aside(self, body: Callable[[], Any]) -> None:
        """Run user code that belongs to no cell; what it raises is printed, and half lines are not left to the next."""
        error = self._run_armed("", body)
        if error is not None:
            text = [f"{_CLASS_NAME.__get__(type(error))}\n"]

            def describe() -> None:
                text[0] = format_error(error)

            self._run_armed("", describe)
            sys.stderr.write(_cut(text[0]))
        self._run_armed("", _flush)

    def _explain(self, cell: str, error: BaseException, outcome: Outcome) -> None:
        # SystemExit and KeyboardInterrupt end the cell, never the kernel: it outlives what it runs.
        outcome.error = error
        outcome.rendered = None
        outcome.ename, outcome.evalue, outcome.traceback = _CLASS_NAME.__get__(type(error)), "", ""

        def describe() -> None:
            outcome.evalue = _cut(_text_of(error))
            outcome.traceback = _cut(format_error(error))

        # Armed again: the exception's own __str__ is user code, and may be without end.
        failure = self._run_armed(cell, describe)
        self._run_armed(cell, lambda: debugging.keep_failure(error))  # looking at what it is may run user code too
        if failure is not None:
            outcome.evalue = f"<its text cannot be shown: {_CLASS_NAME.__get__(type(failure))}>"
            outcome.traceback = f"{outcome.ename}: {outcome.evalue}\n"

    def _run_code(self, cell: str, body: Callable[[], None]) -> BaseException | None:
        """Run what a cell is; return what it raised, or the interrupt that came too early for a signal or too late."""

        def whole() -> None:
            self.interrupts.settle()
            body()
            self.interrupts.settle()

        return self._run_armed(cell, whole)

    def _run_armed(self, cell: str, body: Callable[[], None]) -> BaseException | None:
        """Run something that may be interrupted; return what it raised."""
        try:
            try:
                self.interrupts.arm(cell)
                body()
            finally:
                self.interrupts.disarm()
                debugging.leave()
        except BaseException as error:  # noqa: BLE001  the user's code may raise anything
            self.interrupts.disarm()  # again: a SIGINT at its first instruction kept it from doing anything
            return error
        return None

    def _compile(
        self, source: str, filename: str, space: Namespace
    ) -> tuple[types.CodeType | None, types.CodeType | None]:
        """Compile to (statements, last expression), either of which may be missing."""
        flags = space.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        one_line = _is_one_line(source)
        is_statement = one_line and _STATEMENT(source) is not None
        if one_line and not is_statement and not _ASSIGNS(source):
            # What it warns of, it would warn of again below: hence not for whatever may be an assignment.
            with contextlib.suppress(SyntaxError, ValueError):  # another statement, or an error
                return None, compile(source, filename, "eval", flags, dont_inherit=True)
        tree, last = (source, None) if is_statement else _apart(source, filename, flags)
        statements = expression = None
        if isinstance(tree, str) or tree.body:
            statements = compile(tree, filename, "exec", flags, dont_inherit=True)
            if "__future__" in source:
                for flag in _FUTURE_FLAGS.values():
                    space.flags |= statements.co_flags & flag
                flags |= space.flags
        if last is not None:
            expression = compile(ast.Expression(last.value), filename, "eval", flags, dont_inherit=True)
        return statements, expression

    def _run_parts(
        self, statements: types.CodeType | None, expression: types.CodeType | None, variables: dict[str, Any]
    ) -> Any:
        """Run the statements, then the expression, and return its value.

        If either awaits, both run in one task: `asyncio.create_task` in the statements needs the loop too.
        """
        parts = [code for code in (statements, expression) if code is not None]
        for code in parts:
            if code.co_flags & inspect.CO_COROUTINE:
                return self._await(_in_one_task(parts, variables))
        value = None
        for code in parts:
            value = eval(code, variables)
        return value

    def _await(self, awaitable: Any) -> Any:
        """Run an awaitable to its end on the kernel's one event loop.

        The loop runs only here, so that a cell may still call `asyncio.run` itself. An
        interrupted cell's task is cancelled and awaited: nothing of it runs on in the next cell.
        """
        import asyncio  # 30 ms and 4 MB that only cells with await need

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        loop = self._loop
        task = loop.create_task(_as_coroutine(awaitable))
        self.interrupts.watch_task(task)
        try:
            return loop.run_until_complete(task)
        except asyncio.CancelledError as error:
            raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
        except KeyboardInterrupt:
            if not task.done():
                task.cancel()
                loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise
        finally:
            self.interrupts.watch_task(None)

    def _displayhook(self, value: Any) -> None:
        """Stand in as `sys.displayhook`: keep the value for the reply instead of printing it."""
        if value is not None:
            self._shown.append(value)

    def _remember(self, filename: str, source: str) -> None:
        """Give tracebacks and `inspect.getsource` the lines of a cell; old cells are forgotten."""
        # The time of None keeps linecache.checkcache from looking for such a file.
        linecache.cache[filename] = (len(source), None, _lines_of(source), filename)
        self._sources.append(filename)
        if len(self._sources) > _KEPT_SOURCES:
            linecache.cache.pop(self._sources.popleft(), None)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def outcome_of(call: Callable[[], Any], render: Callable[[Any], Any]) -> Outcome:
    """Run a callable on this thread, which is not the main one: nothing interrupts it, and what it raises is data."""
    outcome = Outcome()
    try:
        value = call()
        if inspect.isawaitable(value):
            import asyncio  # as for cells with await

            value = asyncio.run(_as_coroutine(value))
        outcome.rendered = render(value)
    except BaseException as error:  # noqa: BLE001  user code may raise anything, and somebody waits for its end
        outcome.error = error
        outcome.ename = _CLASS_NAME.__get__(type(error))
        outcome.evalue, outcome.traceback = _cut(_text_of(error)), _cut(format_error(error))
    return outcome


def _is_one_line(source: str) -> bool:
    """Whether a source is one line with one statement or expression on it, which spares it to be taken apart."""
    return source.isprintable() and ";" not in source and not source.startswith(" ")


def _apart(source: str, filename: str, flags: int) -> tuple[str | ast.Module, ast.Expr | None]:
    """Parse a source; return its syntax tree without the last expression, and that."""
    tree = compile(source, filename, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    return tree, last


def _lines_of(source: str) -> list[str]:
    """Cut a source as the compiler counts its lines, each with its end: without one its carets would be off."""
    if source.isprintable():  # nothing in it ends a line
        return [f"{source}\n"]
    lines = io.StringIO(source, newline=None).readlines()  # str.splitlines() also cuts at form feeds and the like
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines


async def _as_coroutine(awaitable: Any) -> Any:
    return await awaitable


async def _in_one_task(parts: list[types.CodeType], variables: dict[str, Any]) -> Any:
    value = None
    for code in parts:
        value = eval(code, variables)
        if code.co_flags & inspect.CO_COROUTINE:
            value = await value
    return value


def _rotate_underscores(variables: dict[str, Any], value: Any) -> None:
    """Keep the last three values as `_`, `__` and `___`, as IPython does."""
    variables["___"] = variables.get("__")
    variables["__"] = variables.get("_")
    variables["_"] = value


def _rotate_inputs(space: Namespace, source: str) -> None:
    """Keep what the last three cells ran as `_i`, `_ii` and `_iii`, as IPython does; of giants the beginning."""
    variables = space.variables
    variables["_iii"] = variables.get("_ii", "")
    variables["_ii"] = variables.get("_i", "")
    variables["_i"] = space.input
    space.input = source[:_INPUT_CHARS]


def format_error(error: BaseException) -> str:
    """Format a traceback with the lines of the cell and without our own frames."""
    return f"{error}\n" if type(error) is HabitError else tracebacks.format_error(error, debugging.OWN_FRAMES)


def _text_of(error: BaseException) -> str:
    try:
        return str.__getitem__(str(error), slice(None))  # a plain str, whatever subclass __str__ returned
    except Exception as failure:  # noqa: BLE001  a user's __str__ may raise anything
        return f"<its text cannot be shown: {type(failure).__name__}>"


def _cut(text: str) -> str:
    if len(text) <= MAX_ERROR_CHARS:
        return text
    half = MAX_ERROR_CHARS // 2
    return f"{text[:half]}\n... {len(text) - MAX_ERROR_CHARS} characters left out ...\n{text[-half:]}"
